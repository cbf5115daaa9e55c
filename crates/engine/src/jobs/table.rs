//! Jobs, the lanes they wait in, and what is being answered.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::ids::{BootId, CallId, DeliveryId, JobId, LinkEpoch};
use crate::intent::{Intending, Recording};
use crate::ledger;
use crate::life::Tag;
use crate::model::{AgentId, InstanceId};
use crate::sharing::Sharing;
use crate::wire::command::{Addressed, ClientCommand};
use crate::wire::message::RawMessage;
use crate::wire::reply::{Outcome, Reply};
use crate::work::Work;

/// Where a job came from, and so who is told that it is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An own delivery, to be acknowledged.
    Delivery(DeliveryId),
    /// A peer's delivery that it holds.
    Forwarded { peer: InstanceId, id: u64 },
    /// A delivery whose link is gone: there is nobody to tell.
    Orphan,
}

/// How far a job is.
#[derive(Debug)]
pub(crate) enum State {
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
    /// May have been started before: waits for what others know, or for the platform's word.
    Doubting {
        since: u64,
        /// The question to the platform.
        asking: Option<CallId>,
    },
    /// Its intent is on its way to the disk and the members.
    Intending(Box<Intending>),
    /// Downstream requests are under way.
    Running(Box<Work>),
    /// Waits for the service's word on a Connect.
    Connecting,
    /// Its agent's session is on its way to the disk and the members.
    Sharing(Box<Sharing>),
    /// Its outcome is on its way to the disk and the members.
    Recording(Box<Recording>),
    /// Has its outcome; publications are being confirmed.
    Settling,
}

/// One command in work.
#[derive(Debug)]
pub(crate) struct Job {
    pub origin: Origin,
    pub raw: Arc<RawMessage>,
    /// By what it is known.
    pub tag: Arc<Tag>,
    /// Id of its last downstream request, where one was made.
    pub request_id: Option<String>,
    /// `None`: could not be understood.
    pub command: Option<Arc<ClientCommand>>,
    pub key: Option<(ledger::Key, [u8; 8])>,
    /// It may have been delivered before, here or elsewhere.
    pub seen: bool,
    /// The broker has expired it: it is not started, whatever its own deadline says.
    pub expired: bool,
    /// It is proven that nobody has started it.
    pub proven: bool,
    /// What another instance told meanwhile, which carried it out, too.
    pub told: Option<Arc<Reply>>,
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
pub(crate) type LaneKey = (bool, Arc<str>);

#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) running: Option<JobId>,
    pub(crate) queue: VecDeque<JobId>,
}

/// All jobs and lanes.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    // Ordered: what the engine does must depend on its inputs alone.
    pub(crate) map: BTreeMap<JobId, Job>,
    pub(crate) lanes: BTreeMap<LaneKey, Lane>,
    pub(crate) deliveries: HashMap<LinkEpoch, usize>,
    /// Jobs held or forwarded, in arrival order.
    pub(crate) held: VecDeque<JobId>,
}

/// An answer in the making.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub outcome: Outcome,
    pub status: Option<u16>,
    pub downstream: Option<String>,
    pub error: Option<(String, String)>,
    pub retry_after_ms: Option<u64>,
    /// Answer of a generic HTTP downstream.
    pub body: Option<crate::model::Json>,
}

impl Answered {
    pub(crate) fn ok(outcome: Outcome, status: Option<u16>, downstream: Option<String>) -> Self {
        Self {
            outcome,
            status,
            downstream,
            error: None,
            retry_after_ms: None,
            body: None,
        }
    }

    /// What another instance has told.
    pub(crate) fn told(reply: &Reply) -> Self {
        let error = reply.error.as_ref();
        Self {
            outcome: reply.outcome,
            status: reply.status,
            downstream: reply.downstream.clone(),
            error: error.map(|error| (error.code.clone(), error.message.clone())),
            retry_after_ms: reply.retry_after_ms,
            body: reply.body.clone(),
        }
    }

    pub(crate) fn error(outcome: Outcome, code: &str, message: impl Into<String>) -> Self {
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

pub(crate) fn agent_lane(agent: &AgentId) -> LaneKey {
    (true, agent.as_str().into())
}

pub(crate) fn lane_key(command: &ClientCommand) -> LaneKey {
    let agent = matches!(command.addressee, Addressed::Agent(_));
    (agent, command.addressee.as_str().into())
}

impl Jobs {
    pub(crate) fn get(&self, id: JobId) -> Option<&Job> {
        self.map.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.map.get_mut(&id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether a command was begun here (or is unknown).
    pub(crate) fn started(&self, id: JobId) -> bool {
        !self.map.get(&id).is_some_and(|job| match job.state {
            State::Held { .. }
            | State::Forwarded { .. }
            | State::Queued
            | State::Doubting { .. }
            | State::Intending(_) => true,
            // A refusal: it was never begun.
            State::Recording(_) => job.started.is_none(),
            _ => false,
        })
    }

    pub(crate) fn any_on(&self, link: LinkEpoch) -> bool {
        self.deliveries.get(&link).is_some_and(|count| *count > 0)
    }

    pub(crate) fn running(&self) -> usize {
        self.lanes
            .values()
            .filter(|lane| lane.running.is_some())
            .count()
    }

    pub(crate) fn held_count(&self) -> usize {
        self.held.len()
    }

    /// Whether commands wait for this agent.
    pub(crate) fn waiting_for(&self, agent: &AgentId) -> bool {
        self.lanes
            .get(&agent_lane(agent))
            .is_some_and(|lane| lane.running.is_some() || !lane.queue.is_empty())
    }

    pub(crate) fn add_publish(&mut self, id: JobId) {
        if let Some(job) = self.map.get_mut(&id) {
            job.unconfirmed += 1;
        }
    }

    pub(crate) fn insert(&mut self, id: JobId, job: Job) {
        if let Origin::Delivery(delivery) = &job.origin {
            *self.deliveries.entry(delivery.link).or_default() += 1;
        }
        self.map.insert(id, job);
    }

    pub(crate) fn remove(&mut self, id: JobId) -> Option<Job> {
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
    pub(crate) fn leave_lane(&mut self, id: JobId, key: &LaneKey) -> bool {
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
    pub(crate) fn is_forward(&self, id: JobId) -> bool {
        self.map
            .get(&id)
            .is_some_and(|job| matches!(job.origin, Origin::Forwarded { .. }))
    }

    /// Whether its outcome is another instance's to find.
    pub(crate) fn waits_elsewhere(&self, id: JobId) -> bool {
        self.map
            .get(&id)
            .is_some_and(|job| matches!(job.state, State::Held { .. } | State::Forwarded { .. }))
    }

    /// Takes those out that wait for a job and came from peers.
    pub(crate) fn take_forwarded_waiters(&mut self, id: JobId) -> Vec<JobId> {
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

    pub(crate) fn forwarded(&self, peer: &InstanceId, id: u64) -> Option<JobId> {
        self.map
            .iter()
            .find_map(|(job, entry)| match &entry.origin {
                Origin::Forwarded { peer: p, id: i } if p == peer && *i == id => Some(*job),
                _ => None,
            })
    }
}
