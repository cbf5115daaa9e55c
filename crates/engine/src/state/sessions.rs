//! All agent sessions, and the clients' destinations.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::api::limits;
use crate::model::{AgentId, Destination, InstanceId};
use crate::peer::{SessionRecord, Version};

use super::session::Session;
use super::tally::Tally;

/// What the store is to be given.
#[derive(Debug, Default)]
pub struct Unkept {
    /// Changed sessions; one that is gone has no record.
    pub sessions: Vec<(AgentId, Option<SessionRecord>)>,
    /// New destinations.
    pub destinations: Vec<Destination>,
    /// Destinations to forget.
    pub forgotten: Vec<Destination>,
}

/// All sessions and destinations.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    // Ordered: what the engine does must depend on its inputs alone.
    map: BTreeMap<AgentId, Session>,
    by_destination: HashMap<Destination, BTreeSet<AgentId>>,
    destinations: BTreeMap<Destination, u64>,
    /// The same in the order in which they were heard.
    by_age: BTreeMap<u64, Destination>,
    next_seen: u64,
    dirty: BTreeSet<AgentId>,
    new_destinations: Vec<Destination>,
    /// Sessions and destinations that the store does not have as they are.
    unkept: BTreeSet<AgentId>,
    unkept_destinations: BTreeSet<Destination>,
    /// Destinations that the store is to forget.
    forgotten: BTreeSet<Destination>,
    /// A planted fault: wall-clock time, which then stands for versions.
    clock: Option<u64>,
    /// A planted fault: another owner's account is taken whatever its epoch.
    any_epoch: bool,
    tally: Tally,
    /// Sessions to be counted anew.
    stale: BTreeSet<AgentId>,
}

impl Sessions {
    /// A living session.
    #[must_use]
    pub fn get(&self, agent: &AgentId) -> Option<&Session> {
        self.map.get(agent).filter(|session| session.live())
    }

    /// A session to change, tombstone or not; its record by [`Self::change`] alone.
    pub fn get_mut(&mut self, agent: &AgentId) -> Option<&mut Session> {
        let session = self.map.get_mut(agent)?;
        if !session.stale {
            session.stale = true;
            self.stale.insert(agent.clone());
        }
        Some(session)
    }

    fn put(&mut self, mut session: Session) {
        let agent = session.record.agent.clone();
        (session.stale, session.counted) = (true, Tally::default());
        self.stale.insert(agent.clone());
        if let Some(former) = self.map.insert(agent, session) {
            self.tally.subtract(former.counted);
        }
    }

    /// What the living sessions come to; `me` is always the same. Only what may have changed since
    /// is counted: every heartbeat asks.
    pub fn tally(&mut self, me: &InstanceId) -> Tally {
        for agent in std::mem::take(&mut self.stale) {
            if let Some(session) = self.map.get_mut(&agent) {
                let now = Tally::of(session, me);
                session.stale = false;
                self.tally.subtract(session.counted);
                self.tally.add(now);
                session.counted = now;
            }
        }
        self.tally
    }

    /// The same, for who only looks.
    #[must_use]
    pub fn count(&self, me: &InstanceId) -> Tally {
        let mut tally = self.tally;
        for session in self.stale.iter().filter_map(|agent| self.map.get(agent)) {
            tally.subtract(session.counted);
            tally.add(Tally::of(session, me));
        }
        tally
    }

    /// All, tombstones included.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.map.values()
    }

    /// The planted fault `MergeByClock`: later wall-clock time wins.
    pub(crate) fn merge_by_clock(&mut self, wall: u64) {
        self.clock = Some(wall);
    }

    /// The planted fault `SkipEpochCheck`: any owner is believed.
    pub(crate) fn take_any_epoch(&mut self) {
        self.any_epoch = true;
    }

    /// Whether an account wins over the one that is known.
    fn newer(&self, record: &SessionRecord, known: &SessionRecord) -> bool {
        let (theirs, ours) = (&record.version, &known.version);
        match self.clock {
            None if self.any_epoch => theirs.owner != ours.owner || theirs > ours,
            None => theirs > ours,
            Some(_) => theirs.counter > ours.counter,
        }
    }

    /// Number of all, tombstones included.
    #[must_use]
    pub fn number(&self) -> usize {
        self.map.len()
    }

    /// Whether another session finds room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.map.len() < limits::SESSIONS
    }

    /// Adds a session that nobody is told of yet, nor is it kept: [`Self::own`] makes that so.
    pub fn insert(&mut self, session: Session) {
        self.index(&session.record);
        self.put(session);
    }

    /// The owner changes a record: counts its version, and marks it for the peers and the disk.
    /// Returns what `change` does; `None` where there is no such session.
    pub fn change<T>(
        &mut self,
        agent: &AgentId,
        change: impl FnOnce(&mut SessionRecord) -> T,
    ) -> Option<T> {
        let changed = self.change_state(agent, change)?;
        self.unkept.insert(agent.clone());
        Some(changed)
    }

    /// As [`Self::change`], where only the agent's state changes: that is read anew after a restart
    /// and not worth a write to disk.
    pub fn change_state<T>(
        &mut self,
        agent: &AgentId,
        change: impl FnOnce(&mut SessionRecord) -> T,
    ) -> Option<T> {
        let clock = self.clock;
        let session = self.get_mut(agent)?;
        let record = &mut session.record.0;
        let changed = change(record);
        let counter = &mut record.version.counter;
        *counter = clock.unwrap_or(*counter + 1);
        self.dirty.insert(agent.clone());
        Some(changed)
    }

    /// Changes a record without a mark: of a session whose owner is another instance, which is told
    /// and marks it, or which is made another's next.
    pub fn amend(&mut self, agent: &AgentId, change: impl FnOnce(&mut SessionRecord)) {
        if let Some(session) = self.get_mut(agent) {
            change(&mut session.record.0);
        }
    }

    /// Makes `owner` the owner of a session in `epoch`.
    pub fn own(&mut self, agent: &AgentId, owner: &InstanceId, epoch: u64, rank: u16) {
        let clock = self.clock;
        if let Some(session) = self.get_mut(agent) {
            session.record.0.version = Version {
                epoch,
                rank,
                owner: owner.clone(),
                counter: clock.unwrap_or(1),
            };
            self.dirty.insert(agent.clone());
            self.unkept.insert(agent.clone());
        }
    }

    /// The owner grants a session to another instance, whose word on it is told from now on.
    /// Returns the record as it stands.
    pub fn give(&mut self, agent: &AgentId, version: Version) -> Option<SessionRecord> {
        let session = self.get_mut(agent)?;
        session.record.0.version = version;
        let record = session.record.0.clone();
        self.dirty.remove(agent);
        self.unkept.insert(agent.clone());
        Some(record)
    }

    /// Binds an agent to a destination; returns the former one where it differs.
    pub fn rebind(&mut self, agent: &AgentId, destination: &Destination) -> Option<Destination> {
        let session = self.get_mut(agent)?;
        let former = std::mem::replace(&mut session.record.0.destination, destination.clone());
        if former == *destination {
            return None;
        }
        let record = session.record.0.clone();
        self.unbind(&former, agent);
        self.index(&record);
        Some(former)
    }

    /// A peer's account of a session. The greater version wins. Returns whether it was taken and
    /// the owner before.
    pub fn merge(&mut self, record: SessionRecord) -> Option<Option<InstanceId>> {
        let room = self.has_room();
        let known = self.map.get(&record.agent);
        if known.is_some_and(|known| !self.newer(&record, &known.record)) {
            return None;
        }
        match self.get_mut(&record.agent) {
            Some(session) => {
                let former = std::mem::replace(&mut session.record.0, record.clone());
                session.newest_known = session.newest_known.max(former.newest_change);
                self.unbind(&former.destination, &record.agent);
                let same = former.same_but_state(&record);
                let proven = former.password != record.password;
                self.index(&record);
                if proven && let Some(session) = self.map.get_mut(&record.agent) {
                    // What was refused here is not what its owner has now.
                    session.refused = false;
                }
                if !same {
                    self.unkept.insert(record.agent);
                }
                Some(Some(former.version.owner))
            }
            None if room => {
                self.index(&record);
                self.unkept.insert(record.agent.clone());
                self.put(Session::new(record));
                Some(None)
            }
            None => None,
        }
    }

    /// Removes a tombstone that is old enough.
    pub fn remove(&mut self, agent: &AgentId) {
        if let Some(session) = self.map.remove(agent) {
            self.tally.subtract(session.counted);
            self.unbind(&session.record.destination, agent);
        }
        self.dirty.remove(agent);
        self.unkept.insert(agent.clone());
    }

    /// A client made itself known. Returns whether it is new.
    pub fn learn_destination(&mut self, destination: &Destination, tell_peers: bool) -> bool {
        self.next_seen += 1;
        self.by_age.insert(self.next_seen, destination.clone());
        let former = self
            .destinations
            .insert(destination.clone(), self.next_seen);
        if let Some(former) = former {
            self.by_age.remove(&former);
        }
        let new = former.is_none();
        if new {
            self.forgotten.remove(destination);
            self.unkept_destinations.insert(destination.clone());
        }
        if new && tell_peers {
            self.new_destinations.push(destination.clone());
        }
        if self.destinations.len() > limits::DESTINATIONS
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.destinations.remove(&oldest);
            self.unkept_destinations.remove(&oldest);
            self.forgotten.insert(oldest);
        }
        new
    }

    /// Whether a client made itself known, here or at a peer.
    #[must_use]
    pub fn knows_destination(&self, destination: &Destination) -> bool {
        self.destinations.contains_key(destination)
            || self
                .by_destination
                .get(destination)
                .is_some_and(|agents| !agents.is_empty())
    }

    /// All known destinations.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.destinations.keys()
    }

    /// Takes what is to be told to the peers, at most `max` records and what one message holds.
    pub fn take_changes(&mut self, max: usize) -> (Vec<SessionRecord>, Vec<Destination>) {
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < max
            && bytes < limits::PART_BYTES
            && let Some(agent) = self.dirty.pop_first()
        {
            if let Some(session) = self.map.get(&agent)
                && session.told()
            {
                bytes += session.record.weight();
                records.push(session.record.0.clone());
            }
        }
        let count = self.new_destinations.len().min(max);
        (records, self.new_destinations.drain(..count).collect())
    }

    /// Takes what the store is to keep, at most `max` of each; a session that is gone has no
    /// record. Not before its first Connect is proven.
    pub fn take_unkept(&mut self, max: usize) -> Unkept {
        let mut unkept = Unkept::default();
        while unkept.sessions.len() < max
            && let Some(agent) = self.unkept.pop_first()
        {
            let session = self.map.get(&agent).filter(|session| session.told());
            let record = session.map(|session| session.record.0.clone());
            unkept.sessions.push((agent, record));
        }
        let first = |from: &mut BTreeSet<Destination>| {
            let taken = std::iter::from_fn(|| from.pop_first());
            taken.take(max).collect()
        };
        unkept.destinations = first(&mut self.unkept_destinations);
        unkept.forgotten = first(&mut self.forgotten);
        unkept
    }

    /// Whether the store lacks something of a session.
    #[must_use]
    pub fn is_unkept(&self, agent: &AgentId) -> bool {
        self.unkept.contains(agent)
    }

    /// What was taken could not be kept: it is to be kept later.
    pub fn keep_later(
        &mut self,
        agents: Vec<AgentId>,
        destinations: Vec<Destination>,
        forgotten: Vec<Destination>,
    ) {
        self.unkept.extend(agents);
        let known = |destination: &Destination| self.destinations.contains_key(destination);
        let (again, gone): (Vec<_>, Vec<_>) = destinations.into_iter().partition(known);
        let (_, forgotten): (Vec<_>, Vec<_>) = forgotten.into_iter().partition(known);
        self.unkept_destinations.extend(again);
        self.forgotten.extend(gone.into_iter().chain(forgotten));
    }

    /// Whether the store lacks something.
    #[must_use]
    pub fn has_unkept(&self) -> bool {
        !(self.unkept.is_empty()
            && self.unkept_destinations.is_empty()
            && self.forgotten.is_empty())
    }

    /// Puts back what the store kept; nothing of it counts as changed.
    pub fn restore(&mut self, records: Vec<SessionRecord>, destinations: Vec<Destination>) {
        for record in records {
            self.index(&record);
            self.put(Session::new(record));
        }
        for destination in destinations {
            self.learn_destination(&destination, false);
        }
        self.unkept.clear();
        self.unkept_destinations.clear();
    }

    /// Of what was restored, ended sessions are remembered until then, monotonic milliseconds.
    pub fn bury(&mut self, until: u64) {
        for session in self.map.values_mut().filter(|session| !session.live()) {
            session.buried_until = Some(until);
        }
    }

    /// Whether there is something to tell.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.dirty.is_empty() || !self.new_destinations.is_empty()
    }

    fn unbind(&mut self, destination: &Destination, agent: &AgentId) {
        if let Some(agents) = self.by_destination.get_mut(destination) {
            agents.remove(agent);
            if agents.is_empty() {
                self.by_destination.remove(destination);
            }
        }
    }

    fn index(&mut self, record: &SessionRecord) {
        self.by_destination
            .entry(record.destination.clone())
            .or_default()
            .insert(record.agent.clone());
    }
}
