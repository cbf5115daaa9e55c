//! All jobs: the one table of them, and the lists that follow from their states.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::api::ids::{JobId, LinkEpoch};
use crate::jobs::intent::{Intending, Recording};
use crate::jobs::sharing::Sharing;
use crate::jobs::work::Work;
use crate::limits;
use crate::model::InstanceId;

use super::job::{Evidence, Job, Origin, Refused, State, Transition};
use super::lanes::Lanes;
use super::later::Doubts;

/// All jobs and lanes.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    // Ordered: what the engine does must depend on its inputs alone.
    map: BTreeMap<JobId, Job>,
    pub(crate) lanes: Lanes,
    /// Jobs whose delivery came on a link that stands.
    deliveries: HashMap<LinkEpoch, usize>,
    /// Jobs held or forwarded, in arrival order.
    held: VecDeque<JobId>,
    /// Jobs that wait for evidence, acknowledgements or the disk.
    waiting: BTreeSet<JobId>,
    /// Running ones whose request is not sent yet, with the node; at most the prefetch.
    pub(super) parked: Vec<(JobId, usize)>,
    /// Answers in doubt that may still be found out.
    pub(crate) doubts: Doubts,
    /// How many got their outcome.
    finished: u64,
    /// Commands of peers that are over here: a copy of one is not run.
    over: BTreeSet<(InstanceId, u64)>,
    /// The same, the latest last.
    over_in_turn: VecDeque<(InstanceId, u64)>,
}

impl Jobs {
    pub(crate) fn get(&self, id: JobId) -> Option<&Job> {
        self.map.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.map.get_mut(&id)
    }

    /// How many requests are held back.
    pub(crate) fn parked_len(&self) -> usize {
        self.parked.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// What has become known of a job: the one place where its state changes. `None`: the job is
    /// gone.
    pub(crate) fn step(
        &mut self,
        id: JobId,
        evidence: Evidence,
    ) -> Option<Result<Transition, Refused>> {
        let job = self.map.get_mut(&id)?;
        let done = job.step(evidence);
        debug_assert!(done.is_ok(), "{id:?}: {done:?}");
        if job.waits_for_word() {
            self.waiting.insert(id);
        } else {
            self.waiting.remove(&id);
        }
        Some(done)
    }

    /// Whether a command was begun here (or is unknown).
    pub(crate) fn started(&self, id: JobId) -> bool {
        self.map.get(&id).is_none_or(Job::begun)
    }

    /// Jobs that wait for evidence, acknowledgements or the disk.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (JobId, &State)> {
        let jobs = self.waiting.iter();
        jobs.filter_map(|id| Some((*id, self.map.get(id)?.state())))
    }

    /// The same, to change.
    pub(crate) fn waiting_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        let waiting = &self.waiting;
        let jobs = self.map.iter_mut();
        jobs.filter_map(|(id, job)| waiting.contains(id).then_some(job))
    }

    pub(crate) fn state(&self, id: JobId) -> Option<&State> {
        self.map.get(&id).map(Job::state)
    }

    /// The requests of a running job.
    pub(crate) fn work_mut(&mut self, id: JobId) -> Option<&mut Work> {
        self.map.get_mut(&id)?.work_mut()
    }

    pub(crate) fn intending_mut(&mut self, id: JobId) -> Option<&mut Intending> {
        self.map.get_mut(&id)?.intending_mut()
    }

    pub(crate) fn sharing_mut(&mut self, id: JobId) -> Option<&mut Sharing> {
        self.map.get_mut(&id)?.sharing_mut()
    }

    pub(crate) fn recording_mut(&mut self, id: JobId) -> Option<&mut Recording> {
        self.map.get_mut(&id)?.recording_mut()
    }

    pub(crate) fn any_on(&self, link: LinkEpoch) -> bool {
        self.deliveries.get(&link).is_some_and(|count| *count > 0)
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.lanes.busy().count()
    }

    /// One more got its outcome.
    pub(crate) fn count_finished(&mut self) {
        self.finished += 1;
    }

    /// How many got their outcome.
    pub(crate) fn finished(&self) -> u64 {
        self.finished
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
        self.waiting.remove(&id);
        self.count_out(&job.origin);
        Some(job)
    }

    /// Its delivery is gone; it goes on.
    pub(crate) fn orphan(&mut self, id: JobId) {
        if let Some(job) = self.map.get_mut(&id) {
            let former = std::mem::replace(&mut job.origin, Origin::Orphan);
            self.count_out(&former);
        }
    }

    fn count_out(&mut self, origin: &Origin) {
        if let Origin::Delivery(delivery) = origin
            && let Some(count) = self.deliveries.get_mut(&delivery.link)
        {
            *count -= 1;
            if *count == 0 {
                self.deliveries.remove(&delivery.link);
            }
        }
    }

    // ---- held ---------------------------------------------------------------------------------

    /// How many are held or forwarded.
    pub(crate) fn held_count(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn hold(&mut self, id: JobId) {
        self.held.push_back(id);
    }

    /// It is held and forwarded no longer.
    pub(crate) fn unhold(&mut self, id: JobId) {
        self.held.retain(|held| *held != id);
    }

    /// All that are held or forwarded, to be looked at; what still waits is held again.
    pub(crate) fn take_held(&mut self) -> VecDeque<JobId> {
        std::mem::take(&mut self.held)
    }

    // ---- where they came from -----------------------------------------------------------------

    /// Jobs with which something is so, in the order of their arrival.
    pub(crate) fn ids_where(&self, is: impl Fn(&Job) -> bool) -> Vec<JobId> {
        let found = self.map.iter().filter(|(_, job)| is(job));
        found.map(|(id, _)| *id).collect()
    }

    /// It waits for no other job any more.
    pub(crate) fn wait_no_longer(&mut self, id: JobId) {
        for other in self.map.values_mut() {
            other.waiters.retain(|waiter| *waiter != id);
        }
    }

    /// Whether a peer handed it to us.
    pub(crate) fn is_forward(&self, id: JobId) -> bool {
        self.map
            .get(&id)
            .is_some_and(|job| matches!(job.origin, Origin::Forwarded { .. }))
    }

    /// Whether its outcome is another instance's to find.
    pub(crate) fn waits_elsewhere(&self, id: JobId) -> bool {
        self.map.get(&id).is_some_and(Job::waits_elsewhere)
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

    /// A peer's command is over here: it was answered, or its delivery is gone.
    pub(crate) fn note_over(&mut self, peer: &InstanceId, id: u64) {
        let one = (peer.clone(), id);
        if !self.over.insert(one.clone()) {
            return;
        }
        self.over_in_turn.push_back(one);
        if self.over_in_turn.len() > limits::FORWARDS_OVER
            && let Some(oldest) = self.over_in_turn.pop_front()
        {
            self.over.remove(&oldest);
        }
    }

    /// Whether a peer's command is over here.
    pub(crate) fn is_over(&self, peer: &InstanceId, id: u64) -> bool {
        self.over.contains(&(peer.clone(), id))
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
