//! Virtual time: what happens next, to whom.

use std::collections::{BTreeMap, BTreeSet};

use tandem_engine::Input;
use tandem_engine::command::Call;
use tandem_engine::config::Planted;
use tandem_engine::ids::{LinkEpoch, Now, SubscriptionEpoch};
use tandem_engine::peer::PeerMessage;
use tandem_model::{AgentId, InstanceId};
use tandem_wire::command::Defaults;
use tandem_wire::message::RawMessage;
use tandem_wire::reply::Reply;

use crate::broker::{Broker, Conn};
use crate::clients::Client;
use crate::digest::Digest;
use crate::instance::Node;
use crate::invariants::Seen;
use crate::network::Network;
use crate::plan::{Fault, Plan, Trouble};
use crate::platform::Platform;
use crate::rng::Rng;
use crate::trace::Trace;

/// Wall clock at virtual time 0, milliseconds since the epoch.
pub const WALL: u64 = 1_700_000_000_000;
/// Prefetch where the plan says nothing.
pub const PREFETCH: usize = 20;
/// `command.max-age`, and the time to live in the command queues.
pub const MAX_AGE_MS: u64 = 9_000;
pub const REQUEST_TIMEOUT_MS: u64 = 1_000;

/// Something that happens at a time.
#[derive(Debug)]
pub enum Ev {
    Start(usize),
    Input(usize, u64, Box<Input>),
    Client(usize, u64),
    Move(usize),
    Burst(usize),
    /// One of a burst is to be sent again, by a client.
    Again(usize, String),
    Hostile(u64),
    /// A connection is found dead by its broker.
    BrokerDrops(usize, Conn),
    /// A link is found dead by its instance, where the way is still cut.
    LinkDies(usize, u64, LinkEpoch),
    Dialled(usize, u64, LinkEpoch, usize),
    Attach(usize, u64, LinkEpoch, u32),
    Hop(usize, u64, u64, Box<RawMessage>),
    /// A message may have waited too long in its queue.
    Expiry,
    PeerHop(usize, usize, u64, Option<InstanceId>, Box<PeerMessage>),
    Reply(usize, usize, String, Box<Reply>),
    Effect(usize, u64, Box<Call>),
    /// A call that its sender has given up reaches the platform.
    LateCall(usize, Box<Call>),
    Subscribed(usize, u64, AgentId, SubscriptionEpoch),
    Written(usize, u64),
    Journaled(usize, u64),
    Begin(usize),
    End(usize),
    StartGroup(usize, bool),
}

pub struct World {
    pub now: u64,
    pub plan: Plan,
    pub planted: Planted,
    pub rng: Rng,
    /// For what older plans do not have: they stay the same runs.
    pub other_rng: Rng,
    pub platform: Platform,
    pub trace: Trace,
    /// Of all that engines ordered and told, where it is asked for.
    pub digest: Option<Digest>,
    pub seen: Seen,
    pub nodes: Vec<Node>,
    pub brokers: [Broker; 2],
    pub net: Network,
    /// Connections that a cut has broken, whether their ends know it or not.
    pub broken: BTreeSet<Conn>,
    /// What each instance finds at the downstream, by node and service.
    pub trouble: Vec<[[Option<Trouble>; 2]; 2]>,
    pub clients: Vec<Client>,
    pub defaults: Defaults,
    /// Inputs taken, for a measure of the work done.
    pub steps: u64,
    queue: BTreeMap<(u64, u64), Ev>,
    sequence: u64,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let mut world = Self {
            now: 0,
            planted: Planted::default(),
            rng: Rng::new(plan.seed ^ 0x7357),
            other_rng: Rng::new(plan.seed ^ 0x0DD5),
            platform: Platform::default(),
            trace: Trace::Off,
            digest: None,
            seen: Seen::new(&plan),
            nodes: (0..plan.nodes).map(|_| Node::default()).collect(),
            brokers: [Broker::default(), Broker::default()],
            net: Network::default(),
            broken: BTreeSet::new(),
            trouble: vec![[[None; 2]; 2]; plan.nodes],
            clients: (0..plan.clients).map(|n| Client::new(n, n % 2)).collect(),
            defaults: Defaults {
                max_age_ms: MAX_AGE_MS,
                cluster_name: "tandem".into(),
                generate_traces: false,
                command_queues: vec!["Connector1".into()],
            },
            steps: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            plan,
        };
        world.schedule();
        world
    }

    fn schedule(&mut self) {
        for broker in &mut self.brokers {
            broker.up = true;
        }
        for node in 0..self.nodes.len() {
            let at = self.rng.below(700);
            self.after(at, Ev::Start(node));
        }
        for client in 0..self.clients.len() {
            let at = 2_500 + self.rng.below(300);
            self.after(at, Ev::Client(client, 0));
        }
        for index in 0..self.plan.faults.len() {
            let Fault { at, millis, .. } = self.plan.faults[index];
            self.after(at, Ev::Begin(index));
            self.after(at + millis, Ev::End(index));
        }
        for step in self.plan.moves.clone() {
            self.after(step.at, Ev::Move(step.client));
        }
        for (index, burst) in self.plan.extra.bursts.clone().into_iter().enumerate() {
            self.after(burst.at, Ev::Burst(index));
        }
        for (number, at) in self.plan.hostile.clone().into_iter().enumerate() {
            self.after(at, Ev::Hostile(number as u64));
        }
    }

    pub fn after(&mut self, millis: u64, event: Ev) {
        self.sequence += 1;
        self.queue.insert((self.now + millis, self.sequence), event);
    }

    pub fn input_after(&mut self, millis: u64, node: usize, boot: u64, input: Input) {
        self.after(millis, Ev::Input(node, boot, Box::new(input)));
    }

    /// An instance's wall clock.
    pub fn wall(&self, node: usize) -> u64 {
        (WALL + self.now).saturating_add_signed(self.plan.skew[node])
    }

    pub fn clock(&self, node: usize) -> Now {
        Now {
            mono: self.now,
            wall: self.wall(node),
        }
    }

    /// No new commands.
    pub fn stopping(&self) -> bool {
        self.now > self.plan.stop_at
    }

    /// Runs to the end, or until enough is broken, and judges.
    pub fn run(&mut self) {
        while self.step() {
            if self.seen.violations.len() > 10 {
                return;
            }
        }
        let mut seen = std::mem::take(&mut self.seen);
        seen.judge(self);
        self.seen = seen;
        let outcomes = &self.seen.outcomes;
        self.trace
            .say(self.now, || format!("outcomes {outcomes:?}"));
    }

    /// The next thing, in order of time: an instance's timer, or what was on its way.
    fn step(&mut self) -> bool {
        let timer = (0..self.nodes.len())
            .filter_map(|node| self.due(node).map(|at| (at, node)))
            .min();
        let next = self.queue.first_key_value().map(|((at, _), _)| *at);
        let at = timer.map(|(at, _)| at).into_iter().chain(next).min();
        let Some(at) = at.filter(|at| *at <= self.plan.end_at) else {
            return false;
        };
        self.now = at;
        self.steps += 1;
        match timer {
            Some((due, node)) if due <= at && next.is_none_or(|next| next > due) => self.tick(node),
            _ => {
                if let Some((_, event)) = self.queue.pop_first() {
                    self.happen(event);
                }
            }
        }
        self.dispatch();
        true
    }

    fn happen(&mut self, event: Ev) {
        match event {
            Ev::Start(node) => self.start(node),
            Ev::Input(node, boot, input) => self.input(node, boot, *input),
            Ev::Client(client, token) => self.client_turn(client, token),
            Ev::Move(client) => self.client_moves(client),
            Ev::Burst(index) => self.burst(index),
            Ev::Again(client, id) => self.send_of_burst(client, &id),
            Ev::Hostile(number) => self.hostile(number),
            Ev::BrokerDrops(broker, conn) => self.brokers[broker].drop_conn(conn),
            Ev::LinkDies(node, boot, link) => self.link_dies(node, boot, link),
            Ev::Dialled(node, boot, link, broker) => self.dialled(node, boot, link, broker),
            Ev::Attach(node, boot, link, tries) => self.attach(node, boot, link, tries),
            Ev::Hop(to, life, broker_life, raw) => self.hop(to, life, broker_life, *raw),
            Ev::Expiry => {}
            Ev::PeerHop(broker, from, boot, to, message) => {
                self.peer_arrives(broker, from, boot, to.as_ref(), &message);
            }
            Ev::Reply(from, client, id, reply) => self.reply_arrives(from, client, &id, &reply),
            Ev::Effect(node, boot, call) => self.effect(node, boot, &call),
            Ev::LateCall(node, call) => {
                self.carry_out_request(node, &call);
            }
            Ev::Subscribed(node, boot, agent, number) => {
                self.subscribed(node, boot, agent, number);
            }
            Ev::Written(node, boot) => self.written(node, boot),
            Ev::Journaled(node, boot) => self.journaled(node, boot),
            Ev::Begin(index) => {
                let fault = self.plan.faults[index].clone();
                self.begin(&fault);
            }
            Ev::End(index) => {
                let fault = self.plan.faults[index].clone();
                self.end(&fault);
            }
            Ev::StartGroup(node, failover) => self.start_group(node, failover),
        }
    }
}
