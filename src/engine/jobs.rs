//! The life of one command, from its delivery to its acknowledgement.
//!
//! ```text
//!  delivery ─▶ known id? ──yes──▶ same reply again ───────────────────────────────┐
//!     │ no                                                                        │
//!     ▼                                                                           │
//!  own agent? ─no─▶ Held ─▶ Forwarded ─(owner done)───────────────────────────────┤
//!     │ yes          │ ▲        │ owner lost                                      │
//!     ▼              ▼ └────────┘                                                 ▼
//!  Queued (lane of the agent) ─▶ Running ─▶ outcome ─▶ Settling ─(confirmed)─▶ acknowledged
//! ```
//!
//! One lane an agent (or destination): its commands run one after another, lanes in parallel.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::catalogue::{ErrorCode, Repeat, Step};
use crate::model::{AgentId, Destination, InstanceId};
use crate::wire::command::{Addressed, ClientCommand, Malformed};
use crate::wire::event::ClientEvent;
use crate::wire::message::RawMessage;
use crate::wire::reply::Outcome;

use super::ids::{BootId, DeliveryId, JobId, LinkEpoch};
use super::input::{Delivery, Source};
use super::ledger::{self, Known};
use super::timer::Timer;
use super::work::Work;
use super::{Engine, Event, limits};

/// Where a job came from, and so who is told that it is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// An own delivery, to be acknowledged.
    Delivery(DeliveryId),
    /// A peer's delivery that it holds.
    Forwarded { peer: InstanceId, id: u64 },
    /// A delivery whose link is gone: there is nobody to tell.
    Orphan,
}

/// How far a job is.
#[derive(Debug)]
pub(super) enum State {
    /// Another instance may own the agent; decided when there is evidence.
    Held { since: u64 },
    /// Handed to the owner.
    Forwarded {
        to: InstanceId,
        /// The owner's start: another one knows nothing of it.
        boot: BootId,
        sent_at: u64,
    },
    /// Waits for its turn.
    Queued,
    /// Waits for another job of the same id.
    Duplicate,
    /// Downstream requests are under way.
    Running(Box<Work>),
    /// Waits for the service's word on a Connect.
    Connecting,
    /// Has its outcome; publications are being confirmed.
    Settling,
}

/// One command in work.
#[derive(Debug)]
pub(super) struct Job {
    pub origin: Origin,
    pub raw: Arc<RawMessage>,
    /// `None`: could not be understood.
    pub command: Option<Arc<ClientCommand>>,
    pub key: Option<(ledger::Key, [u8; 8])>,
    /// Broker that the delivery came from; a forwarded command counts as consumed here.
    pub home: Option<usize>,
    pub received: u64,
    pub started: Option<u64>,
    pub state: State,
    pub unconfirmed: u32,
    /// Jobs of the same id that wait for this one's outcome.
    pub waiters: Vec<JobId>,
}

/// A lane's key: the address behind `#`, agents and destinations apart.
pub(super) type LaneKey = (bool, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) running: Option<JobId>,
    pub(super) queue: VecDeque<JobId>,
}

/// All jobs and lanes.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    // Ordered: what the engine does must depend on its inputs alone.
    pub(super) map: BTreeMap<JobId, Job>,
    pub(super) lanes: BTreeMap<LaneKey, Lane>,
    pub(super) deliveries: HashMap<LinkEpoch, usize>,
    /// Jobs held or forwarded, in arrival order.
    pub(super) held: VecDeque<JobId>,
}

/// An answer in the making.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    pub outcome: Outcome,
    pub status: Option<u16>,
    pub downstream: Option<String>,
    pub error: Option<(String, String)>,
    pub retry_after_ms: Option<u64>,
    /// Answer of a generic HTTP downstream.
    pub body: Option<serde_json::Value>,
}

impl Answered {
    pub(super) fn ok(outcome: Outcome, status: Option<u16>, downstream: Option<String>) -> Self {
        Self {
            outcome,
            status,
            downstream,
            error: None,
            retry_after_ms: None,
            body: None,
        }
    }

    pub(super) fn error(outcome: Outcome, code: &str, message: impl Into<String>) -> Self {
        Self {
            outcome,
            status: None,
            downstream: None,
            error: Some((code.to_owned(), message.into())),
            retry_after_ms: None,
            body: None,
        }
    }
}

pub(super) fn lane_key(command: &ClientCommand) -> LaneKey {
    let agent = matches!(command.addressee, Addressed::Agent(_));
    (agent, command.addressee.as_str().into())
}

/// The agent whose state a command changes.
fn changed_agent(command: &ClientCommand) -> Option<&AgentId> {
    match (&command.addressee, command.spec.step) {
        (Addressed::Agent(agent), Step::SignIn(_) | Step::Request(_) | Step::Sequence(_)) => {
            Some(agent)
        }
        _ => None,
    }
}

impl Jobs {
    pub(super) fn get(&self, id: JobId) -> Option<&Job> {
        self.map.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.map.get_mut(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether a command was begun here (or is unknown).
    pub(super) fn started(&self, id: JobId) -> bool {
        !self.map.get(&id).is_some_and(|job| {
            matches!(
                job.state,
                State::Held { .. } | State::Forwarded { .. } | State::Queued
            )
        })
    }

    pub(super) fn any_on(&self, link: LinkEpoch) -> bool {
        self.deliveries.get(&link).is_some_and(|count| *count > 0)
    }

    pub(super) fn running(&self) -> usize {
        self.lanes
            .values()
            .filter(|lane| lane.running.is_some())
            .count()
    }

    pub(super) fn held_count(&self) -> usize {
        self.held.len()
    }

    /// Whether commands wait for this agent.
    pub(super) fn waiting_for(&self, agent: &str) -> bool {
        self.lanes
            .get(&(true, agent.into()))
            .is_some_and(|lane| lane.running.is_some() || !lane.queue.is_empty())
    }

    pub(super) fn add_publish(&mut self, id: JobId) {
        if let Some(job) = self.map.get_mut(&id) {
            job.unconfirmed += 1;
        }
    }

    pub(super) fn insert(&mut self, id: JobId, job: Job) {
        if let Origin::Delivery(delivery) = &job.origin {
            *self.deliveries.entry(delivery.link).or_default() += 1;
        }
        self.map.insert(id, job);
    }

    pub(super) fn remove(&mut self, id: JobId) -> Option<Job> {
        let job = self.map.remove(&id)?;
        if let Origin::Delivery(delivery) = &job.origin
            && let Some(count) = self.deliveries.get_mut(&delivery.link)
        {
            *count -= 1;
            if *count == 0 {
                self.deliveries.remove(&delivery.link);
            }
        }
        Some(job)
    }

    /// Takes a job out of its lane; returns whether it was running there.
    pub(super) fn leave_lane(&mut self, id: JobId, key: &LaneKey) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else {
            return false;
        };
        let was_running = lane.running == Some(id);
        if was_running {
            lane.running = None;
        } else {
            lane.queue.retain(|queued| *queued != id);
        }
        if lane.running.is_none() && lane.queue.is_empty() {
            self.lanes.remove(key);
        }
        was_running
    }

    /// Whether a peer handed it to us.
    pub(super) fn is_forward(&self, id: JobId) -> bool {
        self.map
            .get(&id)
            .is_some_and(|job| matches!(job.origin, Origin::Forwarded { .. }))
    }

    /// Whether its outcome is another instance's to find.
    pub(super) fn waits_elsewhere(&self, id: JobId) -> bool {
        self.map
            .get(&id)
            .is_some_and(|job| matches!(job.state, State::Held { .. } | State::Forwarded { .. }))
    }

    /// Takes those out that wait for a job and came from peers.
    pub(super) fn take_forwarded_waiters(&mut self, id: JobId) -> Vec<JobId> {
        let all = self
            .map
            .get_mut(&id)
            .map(|job| std::mem::take(&mut job.waiters))
            .unwrap_or_default();
        let (forwards, own) = all.into_iter().partition(|waiter| self.is_forward(*waiter));
        if let Some(job) = self.map.get_mut(&id) {
            job.waiters = own;
        }
        forwards
    }

    pub(super) fn forwarded(&self, peer: &InstanceId, id: u64) -> Option<JobId> {
        self.map
            .iter()
            .find_map(|(job, entry)| match &entry.origin {
                Origin::Forwarded { peer: p, id: i } if p == peer && *i == id => Some(*job),
                _ => None,
            })
    }
}

impl Engine {
    // ---- arrival ------------------------------------------------------------------------------

    pub(super) fn on_delivery(&mut self, mut delivery: Delivery) {
        if let (Ok(command), Source::Commands { group }) = (&mut delivery.command, delivery.source)
        {
            command.group = group;
        }
        let id = self.new_job(
            Origin::Delivery(delivery.id),
            Arc::new(delivery.raw),
            delivery.command,
        );
        match id {
            Ok(id) if delivery.source == Source::Expired => self.answer_expired(id),
            Ok(id) => {
                self.hear_client(id);
                self.accept(id);
            }
            Err((id, malformed)) => self.refuse(id, &malformed),
        }
    }

    pub(super) fn new_job(
        &mut self,
        origin: Origin,
        raw: Arc<RawMessage>,
        command: Result<ClientCommand, Box<Malformed>>,
    ) -> Result<JobId, (JobId, Box<Malformed>)> {
        let id = JobId(self.number());
        let (command, malformed) = match command {
            Ok(command) => (Some(Arc::new(command)), None),
            Err(malformed) => (None, Some(malformed)),
        };
        let key = command.as_deref().and_then(ledger::key_of);
        let home = match &origin {
            Origin::Delivery(delivery) => self.links.broker_of(delivery.link),
            _ => self.links.active_broker(),
        };
        self.jobs.insert(
            id,
            Job {
                origin,
                raw,
                command,
                key,
                home,
                received: self.now.mono,
                started: None,
                state: State::Held {
                    since: self.now.mono,
                },
                unconfirmed: 0,
                waiters: Vec::new(),
            },
        );
        match malformed {
            None => Ok(id),
            Some(malformed) => Err((id, malformed)),
        }
    }

    /// Looks up what is known of the command, then finds out whose it is.
    pub(super) fn accept(&mut self, id: JobId) {
        let Some((command, key)) = self.job_command(id) else {
            return;
        };
        if let Some((key, body)) = key {
            match self.ledger.look_up(&key, body) {
                Known::No => {}
                Known::OtherBody => {
                    self.duplicate("other_body");
                    let words = "the same message_id came before with another body";
                    self.answer_without_record(id, Outcome::Rejected, words);
                    return;
                }
                Known::Finished(reply) => {
                    self.duplicate("finished");
                    self.answer_again(id, &reply);
                    return;
                }
                Known::Running(first) if self.jobs.get(first).is_none() => {
                    self.ledger.forget(&key);
                }
                Known::Running(first) => {
                    self.duplicate("running");
                    // Its holder may be the one that this first one waits for.
                    if self.jobs.is_forward(id) && self.jobs.waits_elsewhere(first) {
                        self.send_back(id);
                    } else {
                        self.wait_for(id, first);
                    }
                    return;
                }
            }
        }
        // Another owner may know its outcome: there it is decided.
        if self.serves(&command) && self.doubted(id, &command) {
            return;
        }
        if let Some((key, body)) = key {
            self.ledger.start(key, body, id, command.deadline_ms);
        }
        if self.now.wall >= command.deadline_ms {
            self.finish(id, Self::expired());
            return;
        }
        self.place(id, &command);
    }

    /// Answers `IN_DOUBT` to what may have been started before and is not to be repeated.
    pub(super) fn doubted(&mut self, id: JobId, command: &ClientCommand) -> bool {
        let doubted = command.maybe_seen && command.repeat != Repeat::Safe;
        if doubted {
            self.in_doubt(id, "it may have been started before and is not repeated");
        }
        doubted
    }

    /// Answers a command that waits with the outcome that a peer has told since.
    pub(super) fn answered_elsewhere(&mut self, id: JobId) -> bool {
        let Some((key, body)) = self.jobs.get(id).and_then(|job| job.key) else {
            return false;
        };
        let Known::Finished(reply) = self.ledger.look_up(&key, body) else {
            return false;
        };
        self.answer_again(id, &reply);
        true
    }

    /// Into the own lane, or held for its owner. What a peer handed to us is never held: it goes
    /// back to its holder, or two instances would wait for each other.
    pub(super) fn place(&mut self, id: JobId, command: &ClientCommand) {
        if self.serves(command) {
            self.enqueue(id, command);
        } else if self.jobs.is_forward(id) {
            if let Some((key, _)) = self.jobs.get(id).and_then(|job| job.key) {
                self.ledger.forget(&key);
            }
            self.send_back(id);
        } else {
            self.hold(id);
        }
    }

    pub(super) fn hold(&mut self, id: JobId) {
        if self.jobs.held.len() >= (self.cfg.prefetch / 2).max(1) {
            self.overloaded(id);
            return;
        }
        if let Some(job) = self.jobs.get_mut(id) {
            job.state = State::Held {
                since: self.now.mono,
            };
        }
        self.jobs.held.push_back(id);
        self.timers.set_by(Timer::Evidence, self.now.mono);
        self.release_held();
    }

    pub(super) fn enqueue(&mut self, id: JobId, command: &ClientCommand) {
        let key = lane_key(command);
        let lane = self.jobs.lanes.entry(key.clone()).or_default();
        if lane.queue.len() >= limits::LANE_DEPTH {
            self.overloaded(id);
            return;
        }
        lane.queue.push_back(id);
        if let Some(job) = self.jobs.get_mut(id) {
            job.state = State::Queued;
        }
        self.advance_lane(&key);
    }

    /// Starts the lane's next command, if it may.
    pub(super) fn advance_lane(&mut self, key: &LaneKey) {
        loop {
            let closed = key.0 && (!self.route.available() || self.yields(&key.1));
            let blocked = self.paused(key) || closed;
            let Some(lane) = self.jobs.lanes.get_mut(key) else {
                return;
            };
            if lane.running.is_some() || blocked {
                return;
            }
            let Some(id) = lane.queue.pop_front() else {
                self.jobs.lanes.remove(key);
                return;
            };
            lane.running = Some(id);
            self.start_job(id);
            // A command that finished at once has left the lane; the next one may start.
            let still = self
                .jobs
                .lanes
                .get(key)
                .is_some_and(|lane| lane.running == Some(id));
            if still {
                return;
            }
        }
    }

    /// All lanes may go on: service is back, a role was taken, a pause is over.
    pub(super) fn advance_all(&mut self) {
        let keys: Vec<LaneKey> = self.jobs.lanes.keys().cloned().collect();
        for key in keys {
            self.advance_lane(&key);
        }
        self.unpark();
    }

    pub(super) fn start_job(&mut self, id: JobId) {
        let Some((command, _)) = self.job_command(id) else {
            return;
        };
        if self.answered_elsewhere(id) {
            self.jobs.leave_lane(id, &lane_key(&command));
            return;
        }
        if self.now.wall >= command.deadline_ms {
            self.finish(id, Self::expired());
            return;
        }
        if self.overtaken(id, &command) {
            self.in_doubt(id, "a newer command of its agent was carried out before");
            return;
        }
        let now = self.now.mono;
        if let Some(job) = self.jobs.get_mut(id) {
            job.started = Some(now);
        }
        self.adopt(&command);
        match (&command.addressee, command.spec.step) {
            (Addressed::Destination(destination), Step::Hello) => self.hello(id, destination),
            (Addressed::Destination(destination), Step::Beat) => self.beat_of(id, destination),
            (Addressed::Agent(agent), Step::Connect) => self.connect(id, agent, &command),
            (Addressed::Agent(agent), _) => self.start_work(id, agent, &command),
            (Addressed::Destination(_), _) => {
                self.reject(
                    id,
                    ErrorCode::PleaseRetry,
                    "this command addresses an agent",
                );
            }
        }
    }

    /// Whether this state change may have been seen before, and a newer one of its agent was
    /// carried out here: to run it would undo that. Clients' clocks tell in whole seconds, and
    /// only where they are given.
    pub(super) fn overtaken(&self, id: JobId, command: &ClientCommand) -> bool {
        let Some(agent) = changed_agent(command).filter(|_| command.maybe_seen) else {
            return false;
        };
        let newest = self.sessions.get(agent).and_then(|s| s.newest_change);
        let sent = self.jobs.get(id).and_then(|job| job.raw.timestamp);
        sent.zip(newest).is_some_and(|(sent, newest)| sent < newest)
    }

    /// Remembers when a state change that was carried out had been sent.
    pub(super) fn note_change(&mut self, id: JobId, command: &ClientCommand, outcome: Outcome) {
        let effect = matches!(outcome, Outcome::Ok | Outcome::Accepted | Outcome::InDoubt);
        let job = self.jobs.get(id).filter(|job| job.started.is_some());
        let sent = job.and_then(|job| job.raw.timestamp);
        let (Some(sent), Some(agent), true) = (sent, changed_agent(command), effect) else {
            return;
        };
        // A client's clock that is ahead must not bar what is sent later.
        let sent = sent.min(self.now.wall / 1_000);
        if let Some(session) = self.sessions.get_mut(agent) {
            session.newest_change = session.newest_change.max(Some(sent));
        }
    }

    // ---- clients ------------------------------------------------------------------------------

    pub(super) fn hello(&mut self, id: JobId, destination: &Destination) {
        self.sessions.learn_destination(destination, true);
        self.tell_status(id, destination);
    }

    pub(super) fn beat_of(&mut self, id: JobId, destination: &Destination) {
        if self.sessions.knows_destination(destination) {
            self.tell_status(id, destination);
            return;
        }
        let event = ClientEvent::DestinationReconnect {
            destination: destination.clone(),
        };
        let correlation = self.correlation(id);
        self.tell(destination, event, correlation, self.epoch, Some(id));
        self.finish(id, Answered::ok(Outcome::Ok, None, None));
    }

    pub(super) fn tell_status(&mut self, id: JobId, destination: &Destination) {
        let event = ClientEvent::System(self.system_status());
        let correlation = self.correlation(id);
        self.tell(destination, event, correlation, self.epoch, Some(id));
        self.finish(id, Answered::ok(Outcome::Ok, None, None));
    }

    // ---- small --------------------------------------------------------------------------------

    #[allow(clippy::type_complexity)]
    pub(super) fn job_command(
        &self,
        id: JobId,
    ) -> Option<(Arc<ClientCommand>, Option<(ledger::Key, [u8; 8])>)> {
        let job = self.jobs.get(id)?;
        Some((job.command.clone()?, job.key))
    }

    pub(super) fn correlation(&self, id: JobId) -> Option<String> {
        let job = self.jobs.get(id)?;
        job.command.as_ref()?.correlation_id.clone()
    }

    pub(super) fn duplicate(&mut self, kind: &'static str) {
        self.events.push_back(Event::Duplicate { kind });
    }
}
