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
use crate::wire::command::{Addressed, ClientCommand, Malformed, ReplyTo};
use crate::wire::event::ClientEvent;
use crate::wire::message::RawMessage;
use crate::wire::reply::{Outcome, Reply, ReplyError};

use super::command::{Command, Outbound, ReplyRoute};
use super::ids::{BootId, DeliveryId, JobId, LinkEpoch, PublishId};
use super::input::{Delivery, PublishOutcome, Source};
use super::ledger::{self, Known};
use super::outbox::Sent;
use super::peer::{ForwardRefusal, PeerMessage};
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
type LaneKey = (bool, Arc<str>);

#[derive(Debug, Default)]
struct Lane {
    running: Option<JobId>,
    queue: VecDeque<JobId>,
}

/// All jobs and lanes.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    // Ordered: what the engine does must depend on its inputs alone.
    map: BTreeMap<JobId, Job>,
    lanes: BTreeMap<LaneKey, Lane>,
    deliveries: HashMap<LinkEpoch, usize>,
    /// Jobs held or forwarded, in arrival order.
    held: VecDeque<JobId>,
}

/// An answer in the making.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    pub outcome: Outcome,
    pub status: Option<u16>,
    pub downstream: Option<String>,
    pub error: Option<(String, String)>,
    pub retry_after_ms: Option<u64>,
}

impl Answered {
    pub(super) fn ok(outcome: Outcome, status: Option<u16>, downstream: Option<String>) -> Self {
        Self {
            outcome,
            status,
            downstream,
            error: None,
            retry_after_ms: None,
        }
    }

    pub(super) fn error(outcome: Outcome, code: &str, message: impl Into<String>) -> Self {
        Self {
            outcome,
            status: None,
            downstream: None,
            error: Some((code.to_owned(), message.into())),
            retry_after_ms: None,
        }
    }
}

fn lane_key(command: &ClientCommand) -> LaneKey {
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

    fn insert(&mut self, id: JobId, job: Job) {
        if let Origin::Delivery(delivery) = &job.origin {
            *self.deliveries.entry(delivery.link).or_default() += 1;
        }
        self.map.insert(id, job);
    }

    fn remove(&mut self, id: JobId) -> Option<Job> {
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
    fn leave_lane(&mut self, id: JobId, key: &LaneKey) -> bool {
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
    fn is_forward(&self, id: JobId) -> bool {
        self.map
            .get(&id)
            .is_some_and(|job| matches!(job.origin, Origin::Forwarded { .. }))
    }

    /// Whether its outcome is another instance's to find.
    fn waits_elsewhere(&self, id: JobId) -> bool {
        self.map
            .get(&id)
            .is_some_and(|job| matches!(job.state, State::Held { .. } | State::Forwarded { .. }))
    }

    /// Takes those out that wait for a job and came from peers.
    fn take_forwarded_waiters(&mut self, id: JobId) -> Vec<JobId> {
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

    fn forwarded(&self, peer: &InstanceId, id: u64) -> Option<JobId> {
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

    pub(super) fn on_delivery(&mut self, delivery: Delivery) {
        let id = self.new_job(
            Origin::Delivery(delivery.id),
            Arc::new(delivery.raw),
            delivery.command,
        );
        match id {
            Ok(id) if delivery.source == Source::Expired => self.answer_expired(id),
            Ok(id) => self.accept(id),
            Err((id, malformed)) => self.refuse(id, &malformed),
        }
    }

    fn new_job(
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
    fn accept(&mut self, id: JobId) {
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
        if self.now.wall >= command.deadline_ms {
            self.finish(id, Self::expired());
            return;
        }
        if let Some((key, body)) = key {
            self.ledger.start(key, body, id, command.deadline_ms);
        }
        self.place(id, &command);
    }

    /// Answers `IN_DOUBT` to what may have been started before and is not to be repeated.
    fn doubted(&mut self, id: JobId, command: &ClientCommand) -> bool {
        let doubted = command.maybe_seen && command.spec.repeat != Repeat::Safe;
        if doubted {
            self.in_doubt(id, "it may have been started before and is not repeated");
        }
        doubted
    }

    /// Answers a command that waits with the outcome that a peer has told since.
    fn answered_elsewhere(&mut self, id: JobId) -> bool {
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
    fn place(&mut self, id: JobId, command: &ClientCommand) {
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

    fn hold(&mut self, id: JobId) {
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

    fn enqueue(&mut self, id: JobId, command: &ClientCommand) {
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
    fn advance_lane(&mut self, key: &LaneKey) {
        loop {
            let blocked = self.paused() || (key.0 && !self.route.available());
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
    }

    fn start_job(&mut self, id: JobId) {
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
    fn overtaken(&self, id: JobId, command: &ClientCommand) -> bool {
        let Some(agent) = changed_agent(command).filter(|_| command.maybe_seen) else {
            return false;
        };
        let newest = self.sessions.get(agent).and_then(|s| s.newest_change);
        let sent = self.jobs.get(id).and_then(|job| job.raw.timestamp);
        sent.zip(newest).is_some_and(|(sent, newest)| sent < newest)
    }

    /// Remembers when a state change that was carried out had been sent.
    fn note_change(&mut self, id: JobId, command: &ClientCommand, outcome: Outcome) {
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

    fn hello(&mut self, id: JobId, destination: &Destination) {
        self.sessions.learn_destination(destination, true);
        self.tell_status(id, destination);
    }

    fn beat_of(&mut self, id: JobId, destination: &Destination) {
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

    fn tell_status(&mut self, id: JobId, destination: &Destination) {
        let event = ClientEvent::System(self.system_status());
        let correlation = self.correlation(id);
        self.tell(destination, event, correlation, self.epoch, Some(id));
        self.finish(id, Answered::ok(Outcome::Ok, None, None));
    }

    // ---- outcomes -----------------------------------------------------------------------------

    /// A command has its outcome: remember it, tell the client, let the lane go on.
    pub(super) fn finish(&mut self, id: JobId, answered: Answered) {
        let Some((command, key)) = self.job_command(id) else {
            return;
        };
        let reply = Arc::new(self.reply_to_command(&command, &answered));
        if let Some((key, _)) = key
            && let Some((record, early)) = self.ledger.finish(self.now, key, reply.clone())
        {
            self.outcomes.push(record);
            if early {
                self.events.push_back(Event::LedgerOverflow);
            }
        }
        self.note_change(id, &command, answered.outcome);
        self.report(id, &command, answered.outcome);
        if let Some((code, message)) = &answered.error {
            self.tell_error(id, &command, code, message);
        }
        let waiters = self
            .jobs
            .get_mut(id)
            .map(|job| std::mem::take(&mut job.waiters))
            .unwrap_or_default();
        // An orphan's client is answered through the redelivery, where that has come already.
        let orphan = self
            .jobs
            .get(id)
            .is_some_and(|job| job.origin == Origin::Orphan);
        if !orphan || waiters.is_empty() {
            self.send_reply(id, &command, reply.clone());
        }
        for waiter in waiters {
            self.answer_again(waiter, &reply);
        }
        self.settle(id);
        let key = lane_key(&command);
        if self.jobs.leave_lane(id, &key) {
            self.advance_lane(&key);
        }
    }

    fn reply_to_command(&self, command: &ClientCommand, answered: &Answered) -> Reply {
        Reply {
            command: command.spec.name.to_owned(),
            id: command.addressee.as_str().to_owned(),
            outcome: answered.outcome,
            status: answered.status,
            instance: self.cfg.instance.to_string(),
            downstream: answered.downstream.clone(),
            error: answered.error.as_ref().map(|(code, message)| ReplyError {
                code: code.clone(),
                message: message.clone(),
            }),
            retry_after_ms: answered.retry_after_ms,
            body: None,
        }
    }

    fn report(&mut self, id: JobId, command: &ClientCommand, outcome: Outcome) {
        let now = self.now.mono;
        let Some(job) = self.jobs.get(id) else {
            return;
        };
        let started = job.started.unwrap_or(now);
        self.events.push_back(Event::CommandFinished {
            command: command.spec.name,
            outcome,
            millis: now.saturating_sub(job.received),
            waited: started.saturating_sub(job.received),
            identified: command.identity.is_some(),
        });
    }

    /// The error event to the client, as clients without replies expect it.
    fn tell_error(&mut self, id: JobId, command: &ClientCommand, code: &str, message: &str) {
        let Some(destination) = self.destination_of(command) else {
            return;
        };
        let agent = match &command.addressee {
            Addressed::Agent(agent) => Some(agent.clone()),
            Addressed::Destination(_) => None,
        };
        let event = match (&agent, code == ErrorCode::ReLogin.as_str()) {
            (Some(agent), true) => ClientEvent::ReLogin {
                agent: agent.clone(),
            },
            _ => ClientEvent::Error {
                agent,
                code: code.to_owned(),
                message: message.to_owned(),
            },
        };
        let correlation = command.correlation_id.clone();
        self.tell(&destination, event, correlation, self.epoch, Some(id));
    }

    /// The destination that hears of this command: the agent's, the one it is to be bound to, or
    /// the one that `reply_to` names.
    fn destination_of(&self, command: &ClientCommand) -> Option<Destination> {
        match &command.addressee {
            Addressed::Destination(destination) => Some(destination.clone()),
            Addressed::Agent(agent) => {
                let named = command.args.get("destination");
                let wanted = named.and_then(|text| Destination::new(text).ok());
                wanted
                    .or_else(|| {
                        let session = self.sessions.get(agent)?;
                        Some(session.record.destination.clone())
                    })
                    .or_else(|| match &command.reply_to {
                        Some(ReplyTo::Queue(name)) => Destination::new(name).ok(),
                        _ => None,
                    })
            }
        }
    }

    /// Sends the terminal reply, where one is asked for.
    fn send_reply(&mut self, id: JobId, command: &ClientCommand, reply: Arc<Reply>) {
        let Some(reply_to) = &command.reply_to else {
            return;
        };
        let own = self.destination_of(command);
        let to_itself = own.is_some_and(|own| own.as_str() == reply_to.as_str())
            && self.known_client(command, reply_to);
        if to_itself {
            return;
        }
        let route = match reply_to {
            ReplyTo::Direct(name) => ReplyRoute::Direct(name.clone()),
            ReplyTo::Queue(name) if command.federated => ReplyRoute::Federated(name.clone()),
            ReplyTo::Queue(name) => ReplyRoute::Queue(name.clone()),
        };
        let message_id = self.message_id();
        let correlation_id = command.correlation_id.clone();
        self.post_reply(
            id,
            Outbound::Reply {
                route,
                reply,
                correlation_id,
                message_id,
            },
        );
    }

    /// Posts a reply. Its way was chosen for the broker that its command was consumed on.
    fn post_reply(&mut self, id: JobId, message: Outbound) {
        let home = self.jobs.get(id).and_then(|job| job.home);
        let home = home.or(self.links.active_broker()).unwrap_or(0);
        self.post_from(message, Some(id), Some(home));
    }

    /// Whether `reply_to` is the address of a client that we know: such a client is told by events.
    fn known_client(&self, command: &ClientCommand, reply_to: &ReplyTo) -> bool {
        if matches!(command.spec.step, Step::Hello | Step::Beat | Step::Connect) {
            return true;
        }
        Destination::new(reply_to.as_str())
            .is_ok_and(|destination| self.sessions.knows_destination(&destination))
    }

    /// Everything about this job is said; acknowledge as soon as the broker has it.
    fn settle(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        job.state = State::Settling;
        let waiters = std::mem::take(&mut job.waiters);
        if job.unconfirmed == 0 {
            self.done(id);
        }
        // Those that waited for it: its outcome is known now, or they take its place.
        for waiter in waiters {
            self.accept(waiter);
        }
    }

    /// One of a job's publications is confirmed (or dropped for good).
    pub(super) fn publish_settled(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        job.unconfirmed = job.unconfirmed.saturating_sub(1);
        if job.unconfirmed == 0 && matches!(job.state, State::Settling) {
            self.done(id);
        }
    }

    fn done(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(id) else {
            return;
        };
        match job.origin {
            Origin::Delivery(delivery) => self.out.push_back(Command::Ack(delivery)),
            Origin::Forwarded { peer, id } => {
                self.say(Some(&peer), PeerMessage::ForwardDone { id });
            }
            Origin::Orphan => {}
        }
    }

    fn answer_again(&mut self, id: JobId, reply: &Arc<Reply>) {
        if let Some((command, _)) = self.job_command(id) {
            self.send_reply(id, &command, reply.clone());
        }
        self.settle(id);
    }

    /// An answer that is not the command's outcome and so is not remembered.
    fn answer_without_record(&mut self, id: JobId, outcome: Outcome, words: &str) {
        let Some((command, _)) = self.job_command(id) else {
            return;
        };
        let code = ErrorCode::PleaseRetry.as_str();
        let answered = Answered::error(outcome, code, words);
        let reply = Arc::new(self.reply_to_command(&command, &answered));
        self.report(id, &command, outcome);
        self.tell_error(id, &command, code, words);
        self.send_reply(id, &command, reply);
        self.settle(id);
    }

    pub(super) fn reject(&mut self, id: JobId, code: ErrorCode, message: &str) {
        let answered = Answered::error(Outcome::Rejected, code.as_str(), message);
        self.finish(id, answered);
    }

    pub(super) fn in_doubt(&mut self, id: JobId, why: &str) {
        self.events.push_back(Event::InDoubt);
        if let Some((command, Some((key, body)))) = self.job_command(id) {
            self.ledger.start(key, body, id, command.deadline_ms);
        }
        self.finish(id, Answered::error(Outcome::InDoubt, "IN_DOUBT", why));
    }

    fn overloaded(&mut self, id: JobId) {
        let words = "too many commands wait; try again later";
        let code = ErrorCode::PleaseRetry.as_str();
        let mut answered = Answered::error(Outcome::Rejected, code, words);
        answered.retry_after_ms = Some(limits::RETRY_AFTER_MS);
        // Refused for now, not for good: the id may come again.
        let Some((command, key)) = self.job_command(id) else {
            return;
        };
        if let Some((key, _)) = key {
            self.ledger.forget(&key);
        }
        let reply = Arc::new(self.reply_to_command(&command, &answered));
        self.report(id, &command, Outcome::Rejected);
        self.tell_error(id, &command, code, words);
        self.send_reply(id, &command, reply);
        self.settle(id);
    }

    pub(super) fn expired() -> Answered {
        let words = "its deadline passed before it was started";
        Answered::error(Outcome::Expired, "EXPIRED", words)
    }

    /// A command that the broker expired: answered from there, unless its outcome is known.
    fn answer_expired(&mut self, id: JobId) {
        let Some((_, key)) = self.job_command(id) else {
            return;
        };
        match key.map(|(key, body)| self.ledger.look_up(&key, body)) {
            Some(Known::Finished(reply)) => self.answer_again(id, &reply),
            Some(Known::Running(first)) => self.wait_for(id, first),
            Some(Known::OtherBody) => self.settle(id),
            Some(Known::No) | None => {
                if let Some((command, Some((key, body)))) = self.job_command(id) {
                    self.ledger.start(key, body, id, command.deadline_ms);
                }
                self.finish(id, Self::expired());
            }
        }
    }

    /// A message that is no command: answered where an address is known, and kept for people.
    fn refuse(&mut self, id: JobId, malformed: &Malformed) {
        self.events.push_back(Event::DeadLettered {
            reason: malformed.reason,
            detail: malformed.detail.clone(),
        });
        let known = malformed
            .agent
            .as_ref()
            .and_then(|agent| self.sessions.get(agent))
            .map(|session| session.record.destination.clone())
            .or_else(|| malformed.destination.clone())
            .or_else(|| match &malformed.reply_to {
                Some(ReplyTo::Queue(name)) => Destination::new(name).ok(),
                _ => None,
            });
        let code = malformed.code.as_str();
        if let Some(destination) = &known {
            let event = ClientEvent::Error {
                agent: malformed.agent.clone(),
                code: code.to_owned(),
                message: malformed.detail.clone(),
            };
            let correlation = malformed.correlation_id.clone();
            self.tell(destination, event, correlation, self.epoch, Some(id));
        }
        self.reply_to_malformed(id, malformed, known.as_ref());
        if let Some(raw) = self.jobs.get(id).map(|job| job.raw.clone()) {
            self.post(
                Outbound::DeadLetter {
                    raw,
                    reason: malformed.reason,
                    detail: malformed.detail.clone(),
                },
                Some(id),
            );
        }
        self.settle(id);
    }

    fn reply_to_malformed(
        &mut self,
        id: JobId,
        malformed: &Malformed,
        known: Option<&Destination>,
    ) {
        let Some(reply_to) = &malformed.reply_to else {
            return;
        };
        let told = known.is_some_and(|own| {
            own.as_str() == reply_to.as_str() && self.sessions.knows_destination(own)
        });
        if told {
            return;
        }
        let federated = self.jobs.get(id).is_some_and(|job| job.raw.federated);
        let route = match reply_to {
            ReplyTo::Direct(name) => ReplyRoute::Direct(name.clone()),
            ReplyTo::Queue(name) if federated => ReplyRoute::Federated(name.clone()),
            ReplyTo::Queue(name) => ReplyRoute::Queue(name.clone()),
        };
        let reply = Arc::new(Reply {
            command: malformed.command.clone().unwrap_or_default(),
            id: malformed.id.clone(),
            outcome: Outcome::Rejected,
            status: None,
            instance: self.cfg.instance.to_string(),
            downstream: None,
            error: Some(ReplyError {
                code: malformed.code.as_str().to_owned(),
                message: malformed.detail.clone(),
            }),
            retry_after_ms: None,
            body: None,
        });
        let message_id = self.message_id();
        let correlation_id = malformed.correlation_id.clone();
        self.post_reply(
            id,
            Outbound::Reply {
                route,
                reply,
                correlation_id,
                message_id,
            },
        );
    }

    fn wait_for(&mut self, id: JobId, first: JobId) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.state = State::Duplicate;
        }
        if let Some(job) = self.jobs.get_mut(first) {
            job.waiters.push(id);
        }
    }

    // ---- publications -------------------------------------------------------------------------

    pub(super) fn on_published(&mut self, id: PublishId, outcome: PublishOutcome) {
        match outcome {
            PublishOutcome::Confirmed => {
                if let Some(job) = self.outbox.remove(id).and_then(|sent| sent.job) {
                    self.publish_settled(job);
                }
            }
            PublishOutcome::Returned => {
                if let Some(sent) = self.outbox.remove(id) {
                    self.reroute(sent);
                }
            }
            PublishOutcome::Failed => {
                self.outbox.retry(id);
                self.timers.set_by(Timer::Outbox, self.now.mono + 100);
            }
        }
    }

    /// A reply found no queue: the other way, then the dead letters.
    fn reroute(&mut self, sent: Sent) {
        let Sent {
            mut message,
            job,
            first_way,
        } = sent;
        if let Outbound::Reply {
            route,
            reply,
            correlation_id,
            ..
        } = &message
        {
            match route {
                ReplyRoute::Queue(_) | ReplyRoute::Federated(_) if first_way => {
                    message.flip_route();
                    self.post(message, job);
                }
                ReplyRoute::Queue(name)
                | ReplyRoute::Federated(name)
                | ReplyRoute::Direct(name) => {
                    self.events.push_back(Event::ReplyUnroutable);
                    let parked = Outbound::ParkedReply {
                        reply_to: name.clone(),
                        reply: reply.clone(),
                        correlation_id: correlation_id.clone(),
                    };
                    self.post(parked, job);
                }
            }
        }
        if let Some(job) = job {
            self.publish_settled(job);
        }
    }

    // ---- held, forwarded ----------------------------------------------------------------------

    /// Looks at held and forwarded commands again: whose are they now?
    pub(super) fn release_held(&mut self) {
        let held = std::mem::take(&mut self.jobs.held);
        for id in held {
            let Some((command, _)) = self.job_command(id) else {
                continue;
            };
            if !self.owner_may_have_it(id)
                && (self.answered_elsewhere(id) || !self.recall(id, &command))
            {
                continue;
            }
            if self.serves(&command) && !self.owner_may_have_it(id) {
                self.release(id, &command);
            } else if self.still_waits(id, &command) {
                self.jobs.held.push_back(id);
            }
        }
        if !self.jobs.held.is_empty() {
            self.timers.set_by(Timer::Held, self.now.mono + 50);
        }
    }

    /// The command is ours now.
    fn release(&mut self, id: JobId, command: &ClientCommand) {
        if !self.doubted(id, command) {
            self.enqueue(id, command);
        }
    }

    /// What was handed to an owner that is gone (or has started anew) may have been run there.
    /// `false`: it is answered and waits no longer.
    fn recall(&mut self, id: JobId, command: &ClientCommand) -> bool {
        let since = self.now.mono;
        let Some(job) = self.jobs.get_mut(id) else {
            return false;
        };
        if !matches!(job.state, State::Forwarded { .. }) {
            return true;
        }
        job.state = State::Held { since };
        if command.spec.repeat != Repeat::Safe {
            self.in_doubt(id, "its owner was lost while it had this command");
            return false;
        }
        true
    }

    /// A forwarded command stays with a living owner until that owner answers.
    fn owner_may_have_it(&self, id: JobId) -> bool {
        match self.jobs.get(id).map(|job| &job.state) {
            Some(State::Forwarded { to, boot, .. }) => self
                .members
                .get(to)
                .is_some_and(|peer| peer.liveness.present() && peer.boot == *boot),
            _ => false,
        }
    }

    /// Forwards, forwards again, or expires a held command. `false`: it waits no longer.
    fn still_waits(&mut self, id: JobId, command: &ClientCommand) -> bool {
        let (since, forwarded) = match self.jobs.get(id).map(|job| &job.state) {
            Some(State::Held { since }) => (*since, None),
            Some(State::Forwarded { to, sent_at, .. }) => (*sent_at, Some(to.clone())),
            _ => return false,
        };
        let now = self.now;
        match forwarded {
            None if now.wall >= command.deadline_ms => {
                self.finish(id, Self::expired());
                return false;
            }
            None => {
                if let Some(owner) = self.owner_to_ask(command, since) {
                    self.forward(id, owner);
                }
            }
            Some(owner) => {
                let present = self
                    .members
                    .get(&owner)
                    .is_some_and(|peer| peer.liveness.present());
                if present && now.mono >= since + limits::RESEND_MS {
                    self.forward(id, owner);
                }
            }
        }
        true
    }

    fn forward(&mut self, id: JobId, owner: InstanceId) {
        let Some(boot) = self.members.get(&owner).map(|peer| peer.boot) else {
            return;
        };
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        let mut raw = job.raw.as_ref().clone();
        // By its id the owner would know it again; without one it must be told.
        let again = matches!(job.state, State::Forwarded { .. });
        raw.redelivered |= again && job.key.is_none();
        job.state = State::Forwarded {
            to: owner.clone(),
            boot,
            sent_at: self.now.mono,
        };
        self.say(Some(&owner), PeerMessage::Forward { id: id.0, raw });
    }

    /// A peer hands us a command of an agent that we own.
    pub(super) fn on_forward(&mut self, peer: &InstanceId, id: u64, raw: RawMessage) {
        if self.jobs.forwarded(peer, id).is_some() {
            return;
        }
        let parsed = crate::wire::command::parse(&raw, &self.cfg.parse, self.now.wall);
        let ours = parsed.as_ref().is_ok_and(|command| self.serves(command));
        if !ours {
            let why = ForwardRefusal::NotOwner;
            self.say(Some(peer), PeerMessage::ForwardRefused { id, why });
            return;
        }
        if self.jobs.len() >= 2 * self.cfg.prefetch {
            let why = ForwardRefusal::Busy;
            self.say(Some(peer), PeerMessage::ForwardRefused { id, why });
            return;
        }
        let origin = Origin::Forwarded {
            peer: peer.clone(),
            id,
        };
        match self.new_job(origin, Arc::new(raw), parsed) {
            Ok(job) => self.accept(job),
            Err((job, malformed)) => self.refuse(job, &malformed),
        }
    }

    pub(super) fn on_forward_done(&mut self, from: &InstanceId, id: u64) {
        let id = JobId(id);
        let forwarded = self
            .jobs
            .get(id)
            .is_some_and(|job| matches!(&job.state, State::Forwarded { to, .. } if to == from));
        if !forwarded {
            self.stale("forward");
            return;
        }
        self.jobs.held.retain(|held| *held != id);
        if let Some((key, _)) = self.jobs.get(id).and_then(|job| job.key) {
            self.ledger.forget(&key);
        }
        // What waited for it is asked for again: the answers are the owner's to give.
        self.settle(id);
    }

    pub(super) fn on_forward_refused(&mut self, from: &InstanceId, id: u64, why: ForwardRefusal) {
        let id = JobId(id);
        let now = self.now.mono;
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        if !matches!(&job.state, State::Forwarded { to, .. } if to == from) {
            return;
        }
        match why {
            ForwardRefusal::NotOwner => {
                job.state = State::Held { since: now };
                self.timers.set_by(Timer::Held, now + 50);
            }
            ForwardRefusal::Busy => {
                self.jobs.held.retain(|held| *held != id);
                self.overloaded(id);
            }
        }
    }

    /// The holder's delivery is gone: what has not been started is dropped.
    pub(super) fn on_forward_withdrawn(&mut self, peer: &InstanceId, id: u64) {
        if let Some(job) = self.jobs.forwarded(peer, id) {
            self.orphan(job);
        }
    }

    /// Our leadership went to another: what has not been started is held for the new leader.
    pub(super) fn hand_over_waiting(&mut self) {
        let waiting: Vec<JobId> = self
            .jobs
            .lanes
            .iter()
            .filter(|(key, _)| key.0)
            .flat_map(|(_, lane)| lane.queue.iter().copied())
            .collect();
        let mut waiting = waiting;
        waiting.sort();
        for id in waiting {
            let Some((command, _)) = self.job_command(id) else {
                continue;
            };
            if self.serves(&command) {
                continue;
            }
            self.jobs.leave_lane(id, &lane_key(&command));
            let origin = self.jobs.get(id).map(|job| job.origin.clone());
            if let Some(Origin::Forwarded { peer, id: number }) = origin {
                let why = ForwardRefusal::NotOwner;
                self.give_up(id);
                self.say(Some(&peer), PeerMessage::ForwardRefused { id: number, why });
            } else {
                for waiter in self.jobs.take_forwarded_waiters(id) {
                    self.send_back(waiter);
                }
                self.hold(id);
            }
        }
    }

    /// Hands a peer's command back: it was not run here.
    fn send_back(&mut self, id: JobId) {
        if let Some(Origin::Forwarded { peer, id }) = self.jobs.remove(id).map(|job| job.origin) {
            let why = ForwardRefusal::NotOwner;
            self.say(Some(&peer), PeerMessage::ForwardRefused { id, why });
        }
    }

    /// A drain: what waits goes back to its queue, for another instance.
    pub(super) fn give_back_waiting(&mut self) {
        let mut waiting: Vec<JobId> = self
            .jobs
            .map
            .iter()
            .filter(|(_, job)| matches!(job.state, State::Queued | State::Held { .. }))
            .map(|(id, _)| *id)
            .collect();
        waiting.sort();
        for id in waiting {
            let Some((command, _)) = self.job_command(id) else {
                continue;
            };
            self.jobs.leave_lane(id, &lane_key(&command));
            self.jobs.held.retain(|held| *held != id);
            match self.jobs.get(id).map(|job| job.origin.clone()) {
                Some(Origin::Delivery(delivery)) => self.out.push_back(Command::Requeue(delivery)),
                Some(Origin::Forwarded { peer, id }) => {
                    let why = ForwardRefusal::NotOwner;
                    self.say(Some(&peer), PeerMessage::ForwardRefused { id, why });
                }
                _ => {}
            }
            self.give_up(id);
        }
    }

    // ---- lost deliveries ----------------------------------------------------------------------

    /// A link is gone: its deliveries come again. What was not started is dropped here; what was
    /// started goes on, and the redelivery meets its outcome.
    pub(super) fn drop_deliveries(&mut self, link: LinkEpoch) {
        let lost: Vec<JobId> = self
            .jobs
            .map
            .iter()
            .filter(|(_, job)| matches!(&job.origin, Origin::Delivery(d) if d.link == link))
            .map(|(id, _)| *id)
            .collect();
        // Duplicates first, or they would take the place of what is dropped with them.
        let (waiting, others): (Vec<JobId>, Vec<JobId>) = lost.into_iter().partition(|id| {
            let job = self.jobs.get(*id);
            job.is_some_and(|job| matches!(job.state, State::Duplicate))
        });
        for id in waiting.into_iter().chain(others) {
            self.orphan(id);
        }
    }

    fn orphan(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(id) else {
            return;
        };
        match &job.state {
            State::Running(_) | State::Connecting | State::Settling => {
                if let Some(mut job) = self.jobs.remove(id) {
                    job.origin = Origin::Orphan;
                    self.jobs.insert(id, job);
                }
            }
            State::Forwarded { to, .. } => {
                let to = to.clone();
                self.jobs.held.retain(|held| *held != id);
                self.say(Some(&to), PeerMessage::ForwardWithdrawn { id: id.0 });
                self.give_up(id);
            }
            State::Held { .. } => {
                self.jobs.held.retain(|held| *held != id);
                self.give_up(id);
            }
            State::Queued => {
                if let Some((command, _)) = self.job_command(id) {
                    self.jobs.leave_lane(id, &lane_key(&command));
                }
                self.give_up(id);
            }
            State::Duplicate => {
                for other in self.jobs.map.values_mut() {
                    other.waiters.retain(|waiter| *waiter != id);
                }
                self.jobs.remove(id);
            }
        }
    }

    /// Forgets a job that was never started; those that waited for it take its place.
    fn give_up(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(id) else {
            return;
        };
        if let Some((key, _)) = job.key {
            self.ledger.forget(&key);
        }
        for waiter in job.waiters {
            self.accept(waiter);
        }
    }

    /// Commands that wait behind a closed door (no service, a drain) still meet their deadline.
    pub(super) fn expire_waiting(&mut self) {
        let wall = self.now.wall;
        let late: Vec<JobId> = self
            .jobs
            .lanes
            .values()
            .flat_map(|lane| lane.queue.iter().copied())
            .filter(|id| {
                self.jobs
                    .get(*id)
                    .and_then(|job| job.command.as_ref())
                    .is_some_and(|command| command.deadline_ms <= wall)
            })
            .collect();
        for id in late {
            if let Some((command, _)) = self.job_command(id) {
                self.jobs.leave_lane(id, &lane_key(&command));
                if !self.answered_elsewhere(id) {
                    self.finish(id, Self::expired());
                }
            }
        }
        if self.jobs.held_count() > 0 {
            self.release_held();
        }
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

    fn duplicate(&mut self, kind: &'static str) {
        self.events.push_back(Event::Duplicate { kind });
    }
}
