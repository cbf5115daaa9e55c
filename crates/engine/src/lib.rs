//! The pure heart: what happens goes in as [`Input`], what is to be done comes out as [`Command`],
//! what is worth telling as [`Event`]. No I/O, no clock, no task, no lock.
//!
//! ```text
//!   handle(now, Input) ──▶ ┌────────────────────────────────────────────────────────────┐ ──▶ poll_command()
//!                          │ links        which broker serves · attach · ways through   │
//!                          │              it (fitness)                                  │ ──▶ poll_event()
//!   poll_timeout() ◀────── │ members      which peers live                              │
//!                          │ roles        who leads which group · handover · consumers  │
//!                          │              · groups (whose agent) · choice (operators)   │
//!                          │ ownership    whose agent is it · moving                    │
//!                          │ sessions     what is known of each agent · keep (on disk)  │
//!                          │ replication  what peers tell each other                    │
//!                          │ jobs         the life of one command, in lanes             │
//!                          │              · work · withheld · held · answers            │
//!                          │ intent       a non-idempotent call: durable, acknowledged, │
//!                          │              then made · journal (disk, members)           │
//!                          │ doubt        what may have run before                      │
//!                          │ ledger       what became of command ids · life (its steps) │
//!                          │ agents       subscriptions · connect · reading · notices   │
//!                          │              · lists · supervise · states (of all agents)  │
//!                          │ route        which downstream node · service               │
//!                          │ sharing      sessions known to all before a reply         │
//!                          │ outbox       what waits for a confirm · publishing         │
//!                          └────────────────────────────────────────────────────────────┘
//! ```
//!
//! After every [`Engine::handle`] the caller takes all commands, then all events, then arms one
//! timer with [`Engine::poll_timeout`].

mod agents;
mod answers;
mod apart;
mod aside;
mod attach;
mod choice;
pub mod command;
pub mod config;
mod connect;
mod consumers;
mod correlation;
mod doubt;
pub mod event;
pub mod fitness;
mod garbled;
mod groups;
mod handover;
mod held;
mod http;
pub mod ids;
pub mod input;
mod intent;
mod jobs;
pub mod journal;
mod keep;
pub mod ledger;
pub mod life;
pub mod limits;
pub mod link;
mod lists;
pub mod members;
mod moving;
mod notices;
mod outbox;
mod outcomes;
mod ownership;
mod platform;
mod publishing;
mod reading;
mod replication;
mod rng;
mod roles;
pub mod route;
mod sequence;
mod service;
mod session;
mod sharing;
mod shortage;
mod states;
pub mod steady;
mod strangers;
mod supervise;
mod timer;
pub mod view;
mod ways;
mod withheld;
mod work;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

pub use command::{Command, Outbound};
pub use config::Config;
pub use event::Event;
pub use input::Input;
pub use view::View;

use attach::Twin;
use command::{LifeCommand, Orders};
use ids::{BootId, CallId, LinkEpoch, Now};
use jobs::Jobs;
use journal::Book;
use ledger::Ledger;
use link::Links;
use members::Members;
use outbox::Outbox;
use roles::Group;
use route::Route;
use session::Sessions;
use timer::{Timer, Timers};

use tandem_model::{self as model, catalogue};
use tandem_wire as wire;
pub use tandem_wire::peer;

use model::{AgentId, InstanceId};

/// What a downstream request is for.
#[derive(Debug, Clone)]
enum CallFor {
    /// A step of a command.
    Job(ids::JobId),
    /// Reading an agent anew.
    Sync(AgentId),
    /// Making an agent ready after its sign-in.
    Habit(AgentId),
    /// Signing an agent in again on a node that does not know it, or that signed it out itself.
    Again(AgentId),
    /// Finding out whether a command was carried out before.
    Ask(ids::JobId, doubt::Proof),
    /// The same, after it was answered in doubt.
    Later(ledger::Key, doubt::Proof),
}

/// The connector's decisions. See the module's documentation.
#[derive(Debug)]
pub struct Engine {
    cfg: Config,
    now: Now,
    /// The same with a wall clock that does not jump forward: what is kept is forgotten by it.
    kept: Now,
    steady: steady::Steady,
    out: Orders,
    events: VecDeque<Event>,
    timers: Timers,
    links: Links,
    /// The link on which the own control queue is consumed.
    control_on: Option<LinkEpoch>,
    /// Links that are left as soon as their deliveries are settled, and since when, monotonic
    /// milliseconds.
    leaving: Vec<(LinkEpoch, u64)>,
    members: Members,
    groups: Vec<Group>,
    sessions: Sessions,
    jobs: Jobs,
    ledger: Ledger,
    book: Book,
    /// Answers in doubt that may still be found out.
    doubts: BTreeMap<ledger::Key, doubt::Doubt>,
    outbox: Outbox,
    route: Route,
    room: shortage::Room,
    calls: HashMap<CallId, (CallFor, usize)>,
    takeover: agents::Takeover,
    /// Running commands whose request is not sent yet, with the node; at most the prefetch.
    parked: Vec<(ids::JobId, usize)>,
    echoes: correlation::Echoes,
    strangers: strangers::Strangers,
    /// Agents that are being given away; at most one entry a session.
    yielding: Vec<AgentId>,
    states: states::Round,
    outcomes: Vec<peer::OutcomeRecord>,
    keeping: keep::Keeping,
    /// Highest fencing epoch seen anywhere.
    epoch: u64,
    /// This process was away: no start of a command before this time or a peer's sign of life.
    fenced_until: Option<u64>,
    /// It was away for so long that another one may lead: it consumes no commands either.
    stands_aside: bool,
    /// The pause is over once a peer echoes this heartbeat, or a later one.
    fence_seq: u64,
    /// Since when no peer can be heard: the own control queue is not consumed.
    deaf_since: Option<u64>,
    apart: apart::Apart,
    joined_at: Option<u64>,
    /// When a member that is not heard yet was seen to have a consumer, monotonic milliseconds.
    unheard_at: Option<u64>,
    /// Whether expired commands are answered. Not before what the others know is known here: one
    /// that they carried out would be said to have expired.
    answers_expired: bool,
    /// An earlier process under the own id that is heard.
    twin: Option<Twin>,
    /// Peers whose question was answered: which start of theirs, and when.
    greeted: BTreeMap<InstanceId, (BootId, u64)>,
    /// The broker that served last.
    last_broker: Option<usize>,
    shutdown: Option<u64>,
    draining: bool,
    exited: bool,
    rng: u64,
    next_id: u64,
    heartbeat_seq: u64,
    last_beat: u64,
    /// When a newcomer asked last for what its peers know.
    asked_at: u64,
    /// Commands that got their outcome.
    finished: u64,
}

impl Engine {
    /// An engine at rest; the first [`Engine::handle`] starts it.
    #[must_use]
    pub fn new(cfg: Config) -> Self {
        let seed = cfg.seed | 1;
        Self {
            now: Now::default(),
            kept: Now::default(),
            steady: steady::Steady::default(),
            out: Orders::default(),
            events: VecDeque::new(),
            timers: Timers::default(),
            links: Links::new(cfg.brokers.clone(), seed),
            control_on: None,
            leaving: Vec::new(),
            members: Members::default(),
            groups: cfg.groups.iter().map(|name| Group::new(name)).collect(),
            sessions: Sessions::default(),
            jobs: Jobs::default(),
            ledger: Ledger::default(),
            book: Book::default(),
            doubts: BTreeMap::new(),
            outbox: Outbox::default(),
            route: Route::new(&cfg.nodes, cfg.failback),
            room: shortage::Room::default(),
            calls: HashMap::new(),
            takeover: agents::Takeover::default(),
            parked: Vec::new(),
            echoes: correlation::Echoes::default(),
            strangers: strangers::Strangers::default(),
            yielding: Vec::new(),
            states: states::Round::default(),
            outcomes: Vec::new(),
            keeping: keep::Keeping::default(),
            epoch: 0,
            fenced_until: None,
            stands_aside: false,
            fence_seq: 0,
            deaf_since: None,
            apart: apart::Apart::default(),
            joined_at: None,
            unheard_at: None,
            answers_expired: false,
            twin: None,
            greeted: BTreeMap::new(),
            last_broker: None,
            shutdown: None,
            draining: false,
            exited: false,
            rng: seed,
            // Peers echo these numbers: those of two starts must not meet.
            next_id: (cfg.boot.0 & 0xFF_FFFF) << 40,
            heartbeat_seq: 0,
            last_beat: 0,
            asked_at: 0,
            finished: 0,
            cfg,
        }
    }

    /// Sets everything in motion: to be called once, before the first input.
    pub fn start(&mut self, now: Now) {
        self.now = now;
        self.look_at_clock();
        for node in 0..self.route.nodes().len() {
            self.timers.set(Timer::Probe(node), now.mono);
        }
        self.timers.set(Timer::Heartbeat, now.mono);
        self.timers.set(Timer::Evidence, now.mono);
        self.timers.set(Timer::Sweep, now.mono + 1_000);
        // Epochs first: without one nothing is owned.
        self.keep();
        if self.cfg.agents.states_interval > 0 {
            let first = now.mono + self.cfg.agents.states_interval;
            self.timers.set(Timer::States, first);
        }
        self.after();
    }

    // ---- inputs -------------------------------------------------------------------------------

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input) {
        if self.exited {
            return;
        }
        self.advance(now);
        match input {
            Input::Tick => {}
            Input::LinkUp {
                link,
                node,
                cluster,
            } => self.on_link_up(link, node, cluster),
            Input::LinkDown { link, reason } => self.on_link_down(link, reason),
            Input::LinkGarbled { link, problem } => self.on_link_garbled(link, problem),
            Input::ControlAttached { link } => self.on_control_attached(link),
            Input::IdInUse { link } => self.on_id_in_use(link),
            Input::LinkBlocked { link, blocked } => self.on_link_blocked(link, blocked),
            Input::Consuming { link, group, tag } => self.on_consuming(link, group, &tag),
            Input::ConsumerLost {
                link,
                group,
                tag,
                reason,
            } => self.on_consumer_lost(link, group, &tag, reason),
            Input::ConsumerUnlisted { tag, reason } => self.on_consumer_unlisted(&tag, reason),
            Input::Delivery(delivery) => self.on_delivery(*delivery),
            Input::Published { publish, outcome } => self.on_published(publish, outcome),
            Input::Barred { link, way, reason } => self.on_barred(link, way, &reason),
            Input::Proved { link, way, proof } => self.on_proved(link, way, &proof),
            Input::CallDone { call, outcome } => self.on_call_done(call, outcome),
            Input::Probed { node, health } => self.on_probed(node, health),
            Input::Notice {
                agent,
                subscription,
                notice,
            } => self.on_notice(&agent, subscription, notice),
            Input::Peer {
                from,
                boot,
                message,
            } => self.on_peer(&from, boot, message),
            Input::PeerRejected { claimed, reason } => self.on_peer_rejected(claimed, reason),
            Input::Unreadable(raw) => self.on_unreadable(*raw),
            Input::PeerConsumers { link, peer, count } => {
                self.on_peer_consumers(link, &peer, count);
            }
            Input::Fenced {
                broker,
                peer,
                closed,
            } => self.on_fenced(broker, peer, closed),
            Input::Kept { failure } => self.on_kept(failure),
            Input::Journaled { ids, failure } => self.on_journaled(&ids, failure.as_deref()),
            Input::TraceWanted { number, id } => self.on_trace_wanted(number, &id),
            Input::TraceTold { to, number, rows } => {
                self.say(Some(&to), peer::PeerMessage::TraceAnswer { number, rows });
            }
            Input::Operator { id, verb } => self.on_verb(id, &verb),
            Input::Shutdown => self.on_shutdown(),
        }
        self.run_timers();
        self.after();
    }

    // ---- outputs ------------------------------------------------------------------------------

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.out.next()
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Engine::handle`] is to be called with [`Input::Tick`], monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.exited {
            return None;
        }
        self.timers.next()
    }

    // ---- time ---------------------------------------------------------------------------------

    /// Moves the clock; notices when this process was away.
    fn advance(&mut self, now: Now) {
        if self.cfg.planted.merges_by_clock() {
            self.sessions.merge_by_clock(now.wall);
        }
        if self.cfg.planted.skips_epoch_check() {
            self.sessions.take_any_epoch();
        }
        if let Some(due) = self.timers.next() {
            let late = now.mono.saturating_sub(due.max(self.now.mono));
            if late > limits::OWN_LAG_MS {
                self.events.push_back(Event::OwnPause { millis: late });
                self.was_away();
                self.members.forgive(late, now.mono);
                self.members.doubt_counts();
                self.forgive_consumers(late);
                // Nor has a newcomer listened meanwhile.
                self.joined_at = self.joined_at.map(|at| (at + late).min(now.mono));
                let doubts = !self.cfg.planted.skips_epoch_check();
                if late > self.cfg.peers.suspect
                    && doubts
                    && self.members.present().next().is_some()
                {
                    self.stands_aside |= late >= self.cfg.peers.silent();
                    self.note_thaw(now);
                    self.fence_until_heard(now.mono);
                }
            }
        }
        self.now = now;
        self.look_at_clock();
    }

    /// Nothing is started before a peer has answered, or was listened for.
    fn fence_until_heard(&mut self, now: u64) {
        let until = now + self.cfg.peers.suspect;
        self.fenced_until = Some(until);
        self.fence_seq = self.heartbeat_seq + 1;
        self.timers.set(Timer::Heartbeat, now);
        self.timers.set_by(Timer::Members, until);
    }

    /// What happened during the pause is known, as far as somebody is there to tell.
    fn unfence(&mut self) {
        self.fenced_until = None;
        self.stands_aside = false;
        self.refresh_consumers();
        self.advance_all();
    }

    fn look_at_clock(&mut self) {
        self.kept = Now {
            mono: self.now.mono,
            wall: self.steady.at(self.now),
        };
    }

    fn run_timers(&mut self) {
        while let Some(timer) = self.timers.pop_due(self.now.mono) {
            match timer {
                // Links are looked at after every input.
                Timer::Links => {}
                Timer::Heartbeat => self.beat(),
                Timer::Evidence => self.count_consumers(),
                Timer::Members => {}
                Timer::Probe(node) => self.probe(node),
                Timer::Delta => self.send_delta(),
                Timer::Keep => self.keep(),
                Timer::Journal => self.journal_due(),
                Timer::Doubt => self.doubts_due(),
                Timer::Takeover => self.takeover_step(),
                Timer::Agent(agent) => self.agent_due(&agent),
                Timer::Step(id) => self.step_due(id),
                Timer::Held => self.release_held(),
                Timer::Consumers => self.consumers_due(),
                Timer::Outbox => {
                    self.outbox.rested();
                    self.retry_refused();
                }
                Timer::States => self.publish_states(),
                Timer::Sweep => self.sweep(),
                Timer::Grace => self.grace_over(),
            }
        }
    }

    /// Cheap upkeep after every input: members, roles, links, outbox, timers.
    fn after(&mut self) {
        if self.exited {
            return;
        }
        self.look_at_members();
        self.look_at_links();
        self.flush_outbox();
        self.flush_journal();
        if self.to_keep() {
            self.timers.set_by(Timer::Keep, self.keep_at());
        }
        if !self.outcomes.is_empty() || self.sessions.has_changes() {
            self.timers
                .set_by(Timer::Delta, self.now.mono + limits::DELTA_DELAY_MS);
        }
        self.leave_links();
        self.check_shutdown();
    }

    fn sweep(&mut self) {
        let now = self.now.mono;
        let old: Vec<AgentId> = self
            .sessions
            .iter()
            .filter(|session| session.buried_until.is_some_and(|until| until <= now))
            .map(|session| session.record.agent.clone())
            .collect();
        for agent in old {
            self.sessions.remove(&agent);
        }
        self.book.sweep(self.kept);
        self.timers.set(Timer::Sweep, now + 1_000);
        self.forget_strangers();
        self.return_strays();
        self.own_strays();
        self.mend_subscriptions();
        self.expire_waiting();
    }

    // ---- the end --------------------------------------------------------------------

    fn on_shutdown(&mut self) {
        if self.shutdown.is_some() {
            return;
        }
        let until = self.now.mono + self.cfg.shutdown_grace;
        self.shutdown = Some(until);
        self.timers.set(Timer::Grace, until);
        // Half of the grace for a handover in order, the other half to finish without one. That
        // it is under way needs no answer.
        let wait = (self.cfg.shutdown_grace / 2).min(limits::HANDOVER_WAIT_MS);
        let _ = self.drain(wait, "shutdown");
    }

    fn grace_over(&mut self) {
        if self.shutdown.is_some() {
            self.exit();
        }
    }

    /// Ends when everything started is finished and confirmed.
    fn check_shutdown(&mut self) {
        let idle = self.jobs.is_empty() && self.outbox.is_done() && self.drained();
        if self.shutdown.is_some() && idle {
            self.exit();
        }
    }

    fn exit(&mut self) {
        if self.exited {
            return;
        }
        self.say(None, peer::PeerMessage::Goodbye);
        self.out.push(LifeCommand::Exit);
        self.exited = true;
    }
}
