//! What must survive a restart of both instances: sessions, destinations, epochs, groups.
//!
//! One write at a time; what changes meanwhile goes into the next one. Agents' states are not
//! kept: they are read anew.
//!
//! Epochs are reserved in blocks. None is used, in a message, an event or a record, before the
//! store has one at least as great: after a crash counting goes on above it, and so no epoch
//! stands for two times of ownership.

use crate::model::{AgentId, Destination};

use crate::api::command::{Keep, KeptGroup, LifeCommand, StoreCommand};
use crate::api::ids::VerbId;
use crate::peer::SessionRecord;
use crate::state::timer::Timer;
use crate::{Engine, Event, limits};

/// The store's side of the engine.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// What is being written, until the store says that it has it.
    now: Option<Keep>,
    /// Since when, monotonic milliseconds.
    since: u64,
    /// It takes so long that nothing can be expected of it.
    hangs: bool,
    /// Highest fencing epoch seen anywhere.
    epoch: u64,
    /// Greatest epoch that may be used: it is on disk.
    reserved: u64,
    /// After a failure: not before then, monotonic milliseconds.
    not_before: u64,
    /// The last write failed.
    failing: bool,
    /// Answers that wait for their change to be durable; whether it is in the write under way.
    answers: Vec<(VerbId, String, bool)>,
}

impl Keeping {
    /// Highest fencing epoch seen anywhere.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// An epoch was seen somewhere: those of this instance go on above it.
    pub(crate) fn see_epoch(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }
}

/// Of a disk that does not answer.
pub(crate) fn late_words() -> String {
    let seconds = limits::DISK_WAIT_MS / 1_000;
    format!("the disk has not answered for {seconds} s")
}

impl Engine {
    /// Puts back what the store kept. Before [`Engine::start`].
    pub fn restore(
        &mut self,
        sessions: Vec<SessionRecord>,
        destinations: Vec<Destination>,
        epoch: u64,
    ) {
        let seen = sessions.iter().map(|record| record.version.epoch).max();
        self.keeping.see_epoch(epoch.max(seen.unwrap_or(0)));
        self.sessions.restore(sessions, destinations);
    }

    /// Puts back what operators decided. Before [`Engine::start`].
    pub fn restore_groups(&mut self, groups: Vec<KeptGroup>) {
        for kept in groups {
            self.groups.restore(kept);
        }
    }

    // ---- epochs -------------------------------------------------------------------------------

    /// A new epoch, greater than all seen; `None` while none is reserved on disk.
    pub(crate) fn next_epoch(&mut self) -> Option<u64> {
        if !self.epoch_ready() {
            self.keep();
            return None;
        }
        self.keeping.epoch += 1;
        Some(self.keeping.epoch)
    }

    /// Whether a new epoch can be had now.
    pub(crate) fn epoch_ready(&self) -> bool {
        self.keeping.epoch < self.keeping.reserved
    }

    /// Whether none can be had, as the store takes nothing: a block that is on its way is waited for.
    pub(crate) fn lacks_epochs(&self) -> bool {
        (self.keeping.failing || self.keeping.hangs) && !self.epoch_ready()
    }

    fn wants_epochs(&self) -> bool {
        self.keeping.reserved < self.keeping.epoch.saturating_add(limits::EPOCH_BLOCK / 2)
    }

    // ---- writing ------------------------------------------------------------------------------

    /// Whether the store lacks something that it can be given now.
    pub(crate) fn to_keep(&self) -> bool {
        let lacks = self.sessions.has_unkept()
            || self.wants_epochs()
            || self.groups.iter().any(|group| group.unkept);
        lacks && self.keeping.now.is_none()
    }

    /// When the next write may begin, monotonic milliseconds.
    pub(crate) fn keep_at(&self) -> u64 {
        let soon = self.now.mono + limits::KEEP_DELAY_MS;
        soon.max(self.keeping.not_before)
    }

    /// Whether what is to survive a restart of an agent's session is on disk, or cannot be put
    /// there now.
    pub(crate) fn is_kept(&self, agent: &AgentId) -> bool {
        let writing = self.keeping.now.as_ref();
        let writing = writing.is_some_and(|keep| keep.sessions.iter().any(|(a, _)| a == agent));
        let failing = self.keeping.hangs || self.now.mono < self.keeping.not_before;
        failing || !(writing || self.sessions.is_unkept(agent))
    }

    /// Before the end: whether nothing is left to write, or nothing can be written now. What is
    /// left is given to the store at once.
    pub(crate) fn kept_all(&mut self) -> bool {
        self.keep();
        let lacks = self.sessions.has_unkept() || self.groups.iter().any(|group| group.unkept);
        let failing = self.keeping.hangs || self.now.mono < self.keeping.not_before;
        failing || !(lacks || self.keeping.now.is_some())
    }

    pub(crate) fn keep(&mut self) {
        if !self.to_keep() || self.now.mono < self.keeping.not_before {
            return;
        }
        let unkept = self.sessions.take_unkept(limits::KEEP_RECORDS);
        let groups = self.groups.take_unkept();
        let epoch = match self.wants_epochs() {
            true => self.keeping.epoch.saturating_add(limits::EPOCH_BLOCK),
            false => self.keeping.reserved,
        };
        let keep = Keep {
            sessions: unkept.sessions,
            destinations: unkept.destinations,
            forgotten: unkept.forgotten,
            epoch,
            groups,
        };
        for (.., taken) in &mut self.keeping.answers {
            *taken = true;
        }
        self.keeping.now = Some(keep.clone());
        self.keeping.since = self.now.mono;
        self.out.push(StoreCommand::Keep(Box::new(keep)));
    }

    /// The write under way has ended. What waited for it goes on; after a failure all of it is to
    /// be kept later, and nothing new is owned meanwhile.
    pub(crate) fn on_kept(&mut self, failure: Option<String>) {
        let Some(keep) = self.keeping.now.take() else {
            self.stale("store");
            return;
        };
        let answers = std::mem::take(&mut self.keeping.answers);
        let (kept, waiting): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(.., taken)| *taken);
        self.keeping.answers = waiting;
        self.answer_verbs(kept, failure.as_deref());
        self.keeping.hangs = false;
        self.keeping.failing = failure.is_some();
        match failure {
            None => {
                let had = self.epoch_ready();
                self.keeping.reserved = self.keeping.reserved.max(keep.epoch);
                if !had && self.epoch_ready() {
                    self.epochs_are_back();
                }
                self.keep();
                self.look_at_waiting();
            }
            Some(reason) => {
                self.out.tell(Event::NotKept { reason });
                let agents = keep.sessions.into_iter().map(|(agent, _)| agent).collect();
                self.sessions
                    .keep_later(agents, keep.destinations, keep.forgotten);
                for kept in keep.groups {
                    self.groups.keep_later(&kept.name);
                }
                self.keeping.not_before = self.now.mono + limits::KEEP_RETRY_MS;
                self.timers.set(Timer::Keep, self.keeping.not_before);
            }
        }
    }

    /// Those whose change was to be written.
    fn answer_verbs(&mut self, verbs: Vec<(VerbId, String, bool)>, failure: Option<&str>) {
        for (id, said, _) in verbs {
            let result = match failure {
                None => Ok(said),
                Some(reason) => Err(format!(
                    "{said}, but a restart forgets it: it could not be written: {reason}"
                )),
            };
            self.out.push(LifeCommand::VerbDone { id, result });
        }
    }

    /// A write that takes long counts as failed, as far as others wait for it: a disk that hangs may
    /// never say so. No other one is begun before it has ended.
    pub(crate) fn look_at_store(&mut self) {
        let late = self.now.mono >= self.keeping.since + limits::DISK_WAIT_MS;
        let writing = self.keeping.now.is_some();
        if !writing || !late || self.cluster.pause.is_open() {
            return;
        }
        let reason = late_words();
        let answers = std::mem::take(&mut self.keeping.answers);
        self.answer_verbs(answers, Some(&reason));
        if !std::mem::replace(&mut self.keeping.hangs, true) {
            self.out.tell(Event::NotKept { reason });
            self.look_at_waiting();
            self.look_at_roles("store");
        }
    }

    /// What waited for an epoch goes on.
    fn epochs_are_back(&mut self) {
        self.look_at_roles("store");
        self.own_strays();
        self.take_from_absent();
    }

    /// Answers an operator once what was changed is durable.
    pub(crate) fn answer_when_kept(&mut self, id: VerbId, said: String) {
        if self.groups.iter().all(|group| !group.unkept) {
            let result = Ok(said);
            self.out.push(LifeCommand::VerbDone { id, result });
            return;
        }
        self.keeping.answers.push((id, said, false));
        // The operator may have made room.
        self.keeping.not_before = self.now.mono;
        self.keep();
    }
}
