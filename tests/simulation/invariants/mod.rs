//! What must hold, one file each; the table of the main file says where each is promised.
//!
//! While a run goes on it tells [`Seen`] what happened; what is wrong at once is a violation at
//! once, the rest is judged at the end.

mod i01_one_effect;
mod i02_terminal_outcome;
mod i03_same_outcome;
mod i04_reply_before_ack;
mod i05_order;
mod i06_one_owner;
mod i07_epochs;
mod i08_secrets;
mod i09_bounds;
mod i10_service;
mod i11_short_pauses;
mod i12_hostile_input;
mod i13_sign_in;
mod i14_true_answers;
mod i15_events;
pub mod i16_sign_outs;
mod i17_roles;

use std::collections::{BTreeMap, BTreeSet};

use tandem_engine::Event;
use tandem_engine::peer::PeerMessage;
use tandem_wire::event::ClientEvent;
use tandem_wire::reply::Reply;

use crate::plan::Plan;
use crate::trace::Trace;
use crate::world::World;

pub use i08_secrets::PLANTED_SECRET;

/// Everything that the invariants are judged by.
#[derive(Debug, Default)]
pub struct Seen {
    pub violations: Vec<String>,
    /// How often each outcome was told.
    pub outcomes: BTreeMap<&'static str, u32>,
    /// Command ids that a broker took.
    accepted: BTreeSet<String>,
    /// Command ids with a published or parked reply.
    replied: BTreeSet<String>,
    effects: i01_one_effect::Effects,
    told: i03_same_outcome::Told,
    order: i05_order::Order,
    owners: i06_one_owner::Owners,
    epochs: i07_epochs::Epochs,
    secrets: i08_secrets::Secrets,
    pauses: i11_short_pauses::Pauses,
    hostile: i12_hostile_input::Hostile,
    connected: i13_sign_in::Connected,
    confirms: i04_reply_before_ack::Confirms,
    answers: i14_true_answers::Answers,
    events: i15_events::Events,
    pub roles: i17_roles::Roles,
}

impl Seen {
    pub fn new(plan: &Plan) -> Self {
        Self {
            told: i03_same_outcome::Told::new(plan),
            owners: i06_one_owner::Owners::new(plan),
            secrets: i08_secrets::Secrets::new(plan),
            pauses: i11_short_pauses::Pauses::new(plan),
            connected: i13_sign_in::Connected::new(plan),
            roles: i17_roles::Roles::new(plan),
            ..Self::default()
        }
    }

    pub fn violate(&mut self, text: String) {
        self.violations.push(text);
    }

    /// A broker took a client's message.
    pub fn accepted(&mut self, id: &str, at: u64) {
        self.order.sent(id, at);
        self.accepted.insert(id.to_owned());
    }

    /// A call that is not to be repeated was carried out.
    pub fn effect(&mut self, who: &str, id: &str, at: u64) {
        let wrong = self.effects.effect(who, id, at);
        self.violations.extend(wrong);
        self.order.change(who, id, at);
    }

    /// A state change was carried out.
    pub fn change(&mut self, who: &str, id: &str, at: u64) {
        self.effects.repeatable(id);
        self.order.change(who, id, at);
    }

    /// A command set an agent's state.
    pub fn state_set(&mut self, who: &str, id: &str, at: u64) {
        self.order.state_set(who, id, at);
    }

    /// A reply was published.
    pub fn told(&mut self, id: &str, reply: &Reply, who: &str, at: u64) {
        self.replied.insert(id.to_owned());
        *self.outcomes.entry(reply.outcome.as_str()).or_default() += 1;
        self.answers.told(id, reply, who, at);
        let wrong = self.told.told(id, reply, who, at);
        self.violations.extend(wrong);
        self.violations.extend(self.secrets.reply(reply));
        let wrong = self.connected.told(&reply.id, reply, who, at);
        self.violations.extend(wrong);
    }

    /// A reply that nobody takes was kept.
    pub fn parked(&mut self, id: &str) {
        self.replied.insert(id.to_owned());
    }

    /// A message was put with the dead letters; where its client gave no address that may be
    /// used, that is all the answer there is.
    pub fn dead_lettered(&mut self, id: &str, reason: &'static str) {
        self.replied.insert(id.to_owned());
        let wrong = self.hostile.dead_lettered(id, reason);
        self.violations.extend(wrong);
    }

    /// An answer was confirmed to the instance that had published it.
    pub fn confirmed(&mut self, id: &str, definite: bool, step: u64) {
        self.confirms.confirmed(id, definite, step);
    }

    /// A copy of a command was handed out that its client or a broker had sent before.
    pub fn sent_again(&mut self, id: &str) {
        self.order.sent_again(id);
    }

    /// A delivery was acknowledged that was handed out at a step of the run.
    pub fn acked(&mut self, id: &str, handed_out: u64, by: &str, at: u64) {
        let wrong = self.confirms.acked(id, handed_out, by, at);
        self.violations.extend(wrong);
    }

    /// An instance ended an agent's last subscription.
    pub fn let_go(&mut self, who: &str, agent: &str, at: u64) {
        let wrong = self.owners.let_go(who, agent, at);
        self.violations.extend(wrong);
    }

    /// An instance told its peers something.
    pub fn said(&mut self, node: usize, boot: u64, message: &PeerMessage, _trace: &mut Trace) {
        let wrong = self.epochs.said(node, boot, message);
        self.violations.extend(wrong);
    }

    /// An event was published to a client.
    pub fn event(
        &mut self,
        event: &ClientEvent,
        message: &str,
        who: (&str, u64),
        epoch: u64,
        at: u64,
    ) {
        let wrong = self.events.published(who, event, epoch, at);
        self.violations.extend(wrong);
        let wrong = self.secrets.event(event);
        self.violations.extend(wrong);
        self.answers.event(event, message);
    }

    /// Something worth a log line.
    pub fn happened(&mut self, who: &str, event: &Event, at: u64) {
        let wrong = self.pauses.happened(who, event, at);
        self.violations.extend(wrong);
        let wrong = self.roles.happened(who, event, at);
        self.violations.extend(wrong);
        let wrong = self.secrets.happened(event);
        self.violations.extend(wrong);
    }

    /// All that is judged when everything is over.
    pub fn judge(&mut self, world: &World) {
        let mut bad = Vec::new();
        bad.extend(i02_terminal_outcome::judge(&self.accepted, &self.replied));
        bad.extend(self.order.judge(&world.plan));
        bad.extend(i06_one_owner::judge(world));
        bad.extend(i09_bounds::judge(world));
        bad.extend(i10_service::judge(world));
        bad.extend(self.hostile.judge(&self.accepted));
        bad.extend(self.answers.judge(&self.effects, world.plan.cuts()));
        bad.extend(self.events.judge(world));
        bad.extend(i16_sign_outs::judge(world));
        self.violations.extend(bad);
    }
}
