//! The pure heart: what happens goes in as [`Input`], what is to be done comes out as [`Command`],
//! what is worth telling as [`Event`]. No I/O, no clock, no task, no lock.
//!
//! ```text
//!   handle(now, Input) ──▶ ┌────────────────────────────────────────────────────────────┐ ──▶ poll_command()
//!                          │ one match, a handler for each input, then `after()`        │
//!   poll_timeout() ◀────── │                                                            │ ──▶ poll_event()
//!                          │ leadership  who leads which group    jobs     one command  │
//!                          │ cluster     the members              agents   one agent    │
//!                          │ brokers     links, confirms          journal  intents      │
//!                          │ downstream  nodes, requests          durable  the disk     │
//!                          │                                                            │
//!                          │ placement   whose agent, which group, may it run here:     │
//!                          │             questions that change nothing                  │
//!                          │ state       sessions, timers, clocks  view  the status page│
//!                          │ api         what goes in and comes out: read it first      │
//!                          └────────────────────────────────────────────────────────────┘
//! ```
//!
//! After every [`Engine::handle`] the caller takes all commands, then all events, then arms one
//! timer with [`Engine::poll_timeout`].

mod agents;
mod api;
mod brokers;
mod cluster;
mod downstream;
mod durable;
mod ending;
mod jobs;
pub mod journal;
mod leadership;
mod placement;
mod state;
pub mod view;

#[cfg(test)]
mod tests;

pub use api::command::{Command, Outbound};
pub use api::config::Config;
pub use api::event::Event;
pub use api::input::Input;
pub use api::{command, config, event, ids, input, limits, way};
pub use cluster::members;
pub use jobs::life;
pub use state::steady;
pub use view::View;

use tandem_model::{self as model, catalogue};
use tandem_wire as wire;
pub use tandem_wire::peer;

use agents::Agents;
use api::command::Output;
use api::ids::Now;
use brokers::attach::Attachment;
use brokers::link::Links;
use brokers::outbox::Outbox;
use cluster::Cluster;
use cluster::members::Members;
use downstream::calls::Calls;
use downstream::route::Route;
use downstream::shortage::Room;
use durable::keep::Keeping;
use ending::Ending;
use jobs::Jobs;
use jobs::ledger::Ledger;
use journal::Book;
use leadership::groups::Groups;
use state::rng::Numbers;
use state::session::Sessions;
use state::steady::Retention;
use state::timer::{Timer, Timers};

/// The connector's decisions. See the module's documentation.
#[derive(Debug)]
pub struct Engine {
    cfg: Config,
    now: Now,
    /// What is kept is forgotten by this clock.
    retention: Retention,
    out: Output,
    timers: Timers,
    numbers: Numbers,
    ending: Ending,
    // Brokers.
    links: Links,
    attached: Attachment,
    outbox: Outbox,
    // Who is there, and who leads.
    members: Members,
    cluster: Cluster,
    groups: Groups,
    // Agents and their commands.
    sessions: Sessions,
    agents: Agents,
    jobs: Jobs,
    ledger: Ledger,
    // Disk.
    book: Book,
    keeping: Keeping,
    // Downstream.
    route: Route,
    calls: Calls,
    room: Room,
}

impl Engine {
    /// An engine at rest; the first [`Engine::handle`] starts it.
    #[must_use]
    pub fn new(cfg: Config) -> Self {
        let seed = cfg.seed | 1;
        Self {
            now: Now::default(),
            retention: Retention::default(),
            out: Output::default(),
            timers: Timers::default(),
            numbers: Numbers::new(seed, cfg.boot.0),
            ending: Ending::default(),
            links: Links::new(cfg.brokers.clone(), seed),
            attached: Attachment::default(),
            outbox: Outbox::default(),
            members: Members::default(),
            cluster: Cluster::default(),
            groups: Groups::new(&cfg.groups),
            sessions: Sessions::default(),
            agents: Agents::default(),
            jobs: Jobs::default(),
            ledger: Ledger::with_bound(cfg.remembered),
            book: Book::default(),
            keeping: Keeping::default(),
            route: Route::new(&cfg.nodes, cfg.failback),
            calls: Calls::default(),
            room: Room::default(),
            cfg,
        }
    }

    /// Sets everything in motion: to be called once, before the first input.
    pub fn start(&mut self, now: Now) {
        self.now = now;
        self.retention.advance(now);
        self.sessions.bury(now.mono + limits::TOMBSTONE_MS);
        self.agents.all_here_since = now.mono;
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
        if self.ending.has_exited() {
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
        self.out.next_event()
    }

    /// When [`Engine::handle`] is to be called with [`Input::Tick`], monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.ending.has_exited() {
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
                self.out.tell(Event::OwnPause { millis: late });
                self.was_away();
                self.members.forgive(late, now.mono);
                self.members.doubt_counts();
                self.groups.forgive_consumers(late);
                self.book.forgive(late, now.mono);
                // Nor has a newcomer listened meanwhile.
                self.attached.forgive(late, now.mono);
                let doubts = !self.cfg.planted.skips_epoch_check();
                // One that was gone before may have come and taken over meanwhile.
                let others = self.members.present().next().is_some()
                    || self.book.known_members().next().is_some();
                if late > self.cfg.peers.suspect && doubts && others {
                    if late >= self.cfg.peers.silent() {
                        self.cluster.pause.stand_aside();
                    }
                    self.note_thaw(now);
                    self.fence_until_heard(now.mono);
                }
            }
        }
        self.now = now;
        self.retention.advance(now);
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
        if self.ending.has_exited() {
            return;
        }
        self.look_at_members();
        self.look_at_links();
        self.flush_outbox();
        self.flush_journal();
        if self.to_keep() {
            self.timers.set_by(Timer::Keep, self.keep_at());
        }
        if self.cluster.replication.has_outcomes() || self.sessions.has_changes() {
            self.timers
                .set_by(Timer::Delta, self.now.mono + limits::DELTA_DELAY_MS);
        }
        self.leave_links();
        self.check_shutdown();
    }

    /// Whether commands are in work: one that was taken and is not acknowledged.
    #[must_use]
    pub fn in_work(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Removes those that are old enough; most times there is none. A member that is away may come
    /// back with the session as it was: before everybody has been here for as long, none is removed,
    /// unless they are many.
    fn sweep_tombstones(&mut self) {
        let tally = self.sessions.tally(&self.cfg.instance);
        let number = self.sessions.number();
        let ended = number.saturating_sub(usize::try_from(tally.total).unwrap_or(usize::MAX));
        let now = self.now.mono;
        if self.somebody_is_away() {
            self.agents.all_here_since = now;
        }
        let early = now < self.agents.all_here_since + limits::TOMBSTONE_MS;
        if ended == 0 || (early && ended <= limits::TOMBSTONES_KEPT) {
            return;
        }
        let old: Vec<_> = self
            .sessions
            .iter()
            // One with a Connect under way is that Connect's to keep or to end.
            .filter(|session| session.connecting.is_none())
            .filter(|session| session.buried_until.is_some_and(|until| until <= now))
            .map(|session| (session.record.agent.clone(), session.subscription.epoch()))
            .collect();
        for (agent, subscription) in old {
            if let Some(subscription) = subscription {
                self.unsubscribe(&agent, subscription);
            }
            self.sessions.remove(&agent);
        }
    }

    /// Whether a member that is known is not here.
    fn somebody_is_away(&self) -> bool {
        self.book.known_members().any(|id| {
            let peer = self.members.get(id);
            !peer.is_some_and(|peer| peer.liveness.present())
        })
    }

    fn sweep(&mut self) {
        self.sweep_tombstones();
        self.sweep_journal();
        self.look_at_disk();
        self.look_at_store();
        self.timers.set(Timer::Sweep, self.now.mono + 1_000);
        self.forget_strangers();
        self.note_steady_leads();
        self.return_strays();
        self.own_strays();
        // An account of a session may name one that has left it to others meanwhile.
        self.take_from_absent();
        self.mend_subscriptions();
        self.expire_waiting();
    }
}
