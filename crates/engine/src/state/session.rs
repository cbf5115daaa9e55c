//! Agent sessions and client destinations.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::{AgentId, Cause, Destination, Dialog, InstanceId, Secret, User};
use crate::wire::event::continued;

use crate::agents::correlation::Expectation;
use crate::api::ids::{CallId, JobId, SubscriptionEpoch};
use crate::api::limits;
use crate::peer::{SessionRecord, Version};

/// A notification subscription of this instance for an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    /// None, and none is wanted.
    None,
    /// To be had when its turn comes (takeover) or when the time has come (after a failure).
    Waiting {
        /// Not before, monotonic milliseconds.
        not_before: u64,
        /// Failures so far.
        tries: u32,
    },
    /// On its way.
    Starting {
        /// Attempt.
        epoch: SubscriptionEpoch,
        /// Failures before.
        tries: u32,
        /// Node.
        node: usize,
    },
    /// Established.
    Up {
        /// Attempt.
        epoch: SubscriptionEpoch,
        /// Node.
        node: usize,
    },
}

impl Subscription {
    /// The attempt, where there is one.
    #[must_use]
    pub fn epoch(self) -> Option<SubscriptionEpoch> {
        match self {
            Self::Starting { epoch, .. } | Self::Up { epoch, .. } => Some(epoch),
            Self::None | Self::Waiting { .. } => None,
        }
    }

    /// The node that it is or is to be at.
    #[must_use]
    pub fn node(self) -> Option<usize> {
        match self {
            Self::Starting { node, .. } | Self::Up { node, .. } => Some(node),
            Self::None | Self::Waiting { .. } => None,
        }
    }

    /// Whether it is established.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Up { .. })
    }
}

/// A Connect that waits for the service's word on its credentials; until then the former binding
/// holds.
#[derive(Debug, Clone)]
pub struct PendingConnect {
    /// The command.
    pub job: JobId,
    /// New destination.
    pub destination: Destination,
    /// New password.
    pub password: Secret,
    /// Attempt.
    pub epoch: SubscriptionEpoch,
    /// Nodes tried.
    pub tried: u32,
    /// Name of the group whose queue the command came through; empty is the first group.
    pub group: String,
}

/// Reading an agent anew: after sign-in, takeover, a lost subscription.
#[derive(Debug, Clone, Default)]
pub struct Sync {
    /// Due at, monotonic milliseconds; `None`: under way.
    pub due: Option<u64>,
    /// Publish `AgentInfo` as well: the agent has just signed in.
    pub sign_in: bool,
    /// Of the sign-in command.
    pub cause: Cause,
    /// The read under way.
    pub call: Option<CallId>,
    /// What was read so far.
    pub user: Option<Box<User>>,
    /// Failures so far.
    pub tries: u32,
}

/// A sign-in that was accepted and has had no effect yet.
#[derive(Debug, Clone, Copy)]
pub struct Settling {
    /// When it was accepted, monotonic milliseconds.
    pub since: u64,
    /// The node that is to know the agent.
    pub node: usize,
    /// Reads so far that did not show it.
    pub reads: u32,
}

/// An agent on its way from one living owner to another (active-active).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// To here: the subscription is being had first.
    Preparing {
        /// Given up then, monotonic milliseconds.
        until: u64,
    },
    /// To here: the owner was asked.
    Claimed {
        /// Given up then.
        until: u64,
        /// Asked again then.
        again: u64,
    },
    /// To another: nothing more is started here, what runs is finished.
    Yielding {
        /// Who asked.
        to: InstanceId,
        /// Given up then.
        until: u64,
    },
}

/// What this instance knows of one agent.
#[derive(Debug, Clone)]
pub struct Session {
    /// The part that all instances share.
    pub record: SessionRecord,
    /// Calls, oldest first; only the owner knows them.
    pub dialogs: Vec<Dialog>,
    /// Own subscription.
    pub subscription: Subscription,
    /// Its password was refused: not tried again before its client connects.
    pub refused: bool,
    /// Connect under way.
    pub connecting: Option<PendingConnect>,
    /// Notifications awaited.
    pub expected: Vec<Expectation>,
    /// Reading under way or due.
    pub sync: Option<Sync>,
    /// A sign-in that is to have its effect.
    pub settling: Option<Settling>,
    /// The notification of a sign-in came before its answer.
    pub sign_in_seen: bool,
    /// When the subscription of a signed-out agent is given up.
    pub linger_until: Option<u64>,
    /// The node of the newest subscription that stood.
    pub last_node: Option<usize>,
    /// Until then a sign-out without a reason may be that of the node that was left, monotonic
    /// milliseconds.
    pub moved_until: u64,
    /// Not signed in again by itself before then, monotonic milliseconds.
    pub again_after: u64,
    /// When the tombstone is removed.
    pub buried_until: Option<u64>,
    /// When the newest state change that was carried out here had been sent, seconds since the
    /// epoch by its client's clock.
    pub newest_change: Option<u64>,
    /// On its way to or from another living instance.
    pub moving: Option<Move>,
    /// When its client was heard last at the own broker, with no other instance there: monotonic
    /// milliseconds.
    pub heard_at: Option<u64>,
    /// No move before then, monotonic milliseconds: after one, or after one was refused.
    pub still_until: u64,
}

impl Session {
    /// A session from a record, without subscription.
    #[must_use]
    pub fn new(record: SessionRecord) -> Self {
        Self {
            record,
            dialogs: Vec::new(),
            subscription: Subscription::None,
            refused: false,
            connecting: None,
            expected: Vec::new(),
            sync: None,
            settling: None,
            sign_in_seen: false,
            linger_until: None,
            last_node: None,
            moved_until: 0,
            again_after: 0,
            buried_until: None,
            newest_change: None,
            moving: None,
            heard_at: None,
            still_until: 0,
        }
    }

    /// The agent's name as events carry it.
    #[must_use]
    pub fn name(&self) -> String {
        self.record
            .user
            .as_ref()
            .map(|user| user.full_name())
            .unwrap_or_default()
    }

    /// Whether an instance is its owner.
    #[must_use]
    pub fn owned_by(&self, instance: &InstanceId) -> bool {
        self.record.version.owner == *instance
    }

    /// Whether it stands for a living agent.
    #[must_use]
    pub fn live(&self) -> bool {
        !self.record.tombstone
    }

    /// Whether a sign-in is under way that a notification with this request id would belong to.
    #[must_use]
    pub fn signing_in(&self, now: u64, request: Option<&str>) -> bool {
        let request = request.unwrap_or_default();
        self.expected.iter().any(|known| {
            known.state == Some("LOGIN")
                && ((request.is_empty() && known.fresh(now)) || known.request_id == request)
        })
    }

    /// Whether the peers are to know of it: not while its first Connect is being proven.
    #[must_use]
    pub fn told(&self) -> bool {
        self.live() || self.connecting.is_none()
    }

    /// Puts a call in its place; returns whether it was known before.
    pub fn keep_dialog(&mut self, dialog: &Dialog) -> bool {
        let extension = self.record.extension.as_deref().unwrap_or_default();
        if let Some(known) = self.dialogs.iter_mut().find(|known| known.id == dialog.id) {
            *known = continued(dialog, Some(known), extension);
            return true;
        }
        if self.dialogs.len() >= limits::DIALOGS_PER_AGENT {
            self.dialogs.remove(0);
        }
        self.dialogs.push(dialog.clone());
        false
    }
}

/// All sessions and destinations.
#[derive(Debug, Default)]
pub struct Sessions {
    // Ordered: what the engine does must depend on its inputs alone.
    map: BTreeMap<AgentId, Session>,
    by_destination: HashMap<Destination, BTreeSet<AgentId>>,
    destinations: BTreeMap<Destination, u64>,
    next_seen: u64,
    dirty: BTreeSet<AgentId>,
    new_destinations: Vec<Destination>,
    /// Sessions and destinations that the store does not have as they are.
    unkept: BTreeSet<AgentId>,
    unkept_destinations: BTreeSet<Destination>,
    /// A planted fault: wall-clock time, which then stands for versions.
    clock: Option<u64>,
    /// A planted fault: another owner's account is taken whatever its epoch.
    any_epoch: bool,
}

impl Sessions {
    /// A living session.
    #[must_use]
    pub fn get(&self, agent: &AgentId) -> Option<&Session> {
        self.map.get(agent).filter(|session| session.live())
    }

    /// A session to change, tombstone or not. Changes of the record are to be marked with
    /// [`Self::touch`].
    pub fn get_mut(&mut self, agent: &AgentId) -> Option<&mut Session> {
        self.map.get_mut(agent)
    }

    /// All, tombstones included.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.map.values()
    }

    /// Digest of the living sessions' versions, never 0: equal tables have equal digests.
    #[must_use]
    pub fn digest(&self) -> u64 {
        const PRIME: u64 = 0x0000_0100_0000_01B3;
        let mut digest: u64 = 0xCBF2_9CE4_8422_2325;
        for session in self.map.values().filter(|session| session.live()) {
            let version = &session.record.version;
            let texts = [session.record.agent.as_str(), version.owner.as_str()];
            for byte in texts.into_iter().flat_map(str::bytes) {
                digest = (digest ^ u64::from(byte)).wrapping_mul(PRIME);
            }
            for number in [version.epoch, version.counter] {
                digest = (digest ^ number).wrapping_mul(PRIME);
            }
        }
        digest | 1
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

    /// Number of living sessions, and of those with that owner.
    #[must_use]
    pub fn count(&self, owner: &InstanceId) -> (usize, usize) {
        let live = self.map.values().filter(|session| session.live());
        live.fold((0, 0), |(total, owned), session| {
            let own = session.owned_by(owner);
            (total + 1, owned + usize::from(own))
        })
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

    /// Adds or replaces a session that this instance owns.
    pub fn insert(&mut self, session: Session) {
        let agent = session.record.agent.clone();
        self.index(&session.record);
        self.map.insert(agent.clone(), session);
        self.unkept.insert(agent.clone());
        self.dirty.insert(agent);
    }

    /// The owner changed a record: counts its version and marks it for the peers.
    pub fn touch(&mut self, agent: &AgentId) {
        if let Some(session) = self.map.get_mut(agent) {
            let counter = &mut session.record.version.counter;
            *counter = self.clock.unwrap_or(*counter + 1);
            self.dirty.insert(agent.clone());
            self.unkept.insert(agent.clone());
        }
    }

    /// As [`Self::touch`], where only the agent's state changed: that is read anew after a restart
    /// and not worth a write to disk.
    pub fn touch_state(&mut self, agent: &AgentId) {
        if let Some(session) = self.map.get_mut(agent) {
            let counter = &mut session.record.version.counter;
            *counter = self.clock.unwrap_or(*counter + 1);
            self.dirty.insert(agent.clone());
        }
    }

    /// Makes `owner` the owner of a session in `epoch`.
    pub fn own(&mut self, agent: &AgentId, owner: &InstanceId, epoch: u64, rank: u16) {
        if let Some(session) = self.map.get_mut(agent) {
            session.record.version = Version {
                epoch,
                rank,
                owner: owner.clone(),
                counter: self.clock.unwrap_or(1),
            };
            self.dirty.insert(agent.clone());
            self.unkept.insert(agent.clone());
        }
    }

    /// The owner grants a session to another instance, whose word on it is told from now on.
    /// Returns the record as it stands.
    pub fn give(&mut self, agent: &AgentId, version: Version) -> Option<SessionRecord> {
        let session = self.map.get_mut(agent)?;
        session.record.version = version;
        self.dirty.remove(agent);
        self.unkept.insert(agent.clone());
        Some(session.record.clone())
    }

    /// Binds an agent to a destination; returns the former one where it differs.
    pub fn rebind(&mut self, agent: &AgentId, destination: &Destination) -> Option<Destination> {
        let session = self.map.get_mut(agent)?;
        let former = std::mem::replace(&mut session.record.destination, destination.clone());
        if former == *destination {
            return None;
        }
        if let Some(agents) = self.by_destination.get_mut(&former) {
            agents.remove(agent);
        }
        let record = session.record.clone();
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
        match self.map.get_mut(&record.agent) {
            Some(session) => {
                let former = session.record.clone();
                if let Some(agents) = self.by_destination.get_mut(&former.destination) {
                    agents.remove(&record.agent);
                }
                let same = former.same_but_state(&record);
                session.record = record.clone();
                self.index(&record);
                if !same {
                    self.unkept.insert(record.agent);
                }
                Some(Some(former.version.owner))
            }
            None if room => {
                self.index(&record);
                self.unkept.insert(record.agent.clone());
                self.map.insert(record.agent.clone(), Session::new(record));
                Some(None)
            }
            None => None,
        }
    }

    /// Removes a tombstone that is old enough.
    pub fn remove(&mut self, agent: &AgentId) {
        if let Some(session) = self.map.remove(agent)
            && let Some(agents) = self.by_destination.get_mut(&session.record.destination)
        {
            agents.remove(agent);
        }
        self.dirty.remove(agent);
        self.unkept.insert(agent.clone());
    }

    /// A client made itself known. Returns whether it is new.
    pub fn learn_destination(&mut self, destination: &Destination, tell_peers: bool) -> bool {
        self.next_seen += 1;
        let new = self
            .destinations
            .insert(destination.clone(), self.next_seen)
            .is_none();
        if new {
            self.unkept_destinations.insert(destination.clone());
        }
        if new && tell_peers {
            self.new_destinations.push(destination.clone());
        }
        if self.destinations.len() > limits::DESTINATIONS {
            let oldest = self.destinations.iter().min_by_key(|(_, seen)| **seen);
            if let Some((oldest, _)) = oldest.map(|(d, s)| (d.clone(), *s)) {
                self.destinations.remove(&oldest);
            }
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

    /// Takes what is to be told to the peers, at most `max` records.
    pub fn take_changes(&mut self, max: usize) -> (Vec<SessionRecord>, Vec<Destination>) {
        let mut records = Vec::new();
        while records.len() < max
            && let Some(agent) = self.dirty.pop_first()
        {
            if let Some(session) = self.map.get(&agent)
                && session.told()
            {
                records.push(session.record.clone());
            }
        }
        let count = self.new_destinations.len().min(max);
        (records, self.new_destinations.drain(..count).collect())
    }

    /// Takes what the store is to keep, at most `max` of each; a session that is gone has no
    /// record. Not before its first Connect is proven.
    pub fn take_unkept(
        &mut self,
        max: usize,
    ) -> (Vec<(AgentId, Option<SessionRecord>)>, Vec<Destination>) {
        let mut sessions = Vec::new();
        while sessions.len() < max
            && let Some(agent) = self.unkept.pop_first()
        {
            let session = self.map.get(&agent).filter(|session| session.told());
            let record = session.map(|session| session.record.clone());
            sessions.push((agent, record));
        }
        let mut destinations = Vec::new();
        while destinations.len() < max
            && let Some(destination) = self.unkept_destinations.pop_first()
        {
            destinations.push(destination);
        }
        (sessions, destinations)
    }

    /// Whether the store lacks something of a session.
    #[must_use]
    pub fn is_unkept(&self, agent: &AgentId) -> bool {
        self.unkept.contains(agent)
    }

    /// What was taken could not be kept: it is to be kept later.
    pub fn keep_later(&mut self, agents: Vec<AgentId>, destinations: Vec<Destination>) {
        self.unkept.extend(agents);
        self.unkept_destinations.extend(destinations);
    }

    /// Whether the store lacks something.
    #[must_use]
    pub fn has_unkept(&self) -> bool {
        !self.unkept.is_empty() || !self.unkept_destinations.is_empty()
    }

    /// Puts back what the store kept; nothing of it counts as changed.
    pub fn restore(&mut self, records: Vec<SessionRecord>, destinations: Vec<Destination>) {
        for record in records {
            self.index(&record);
            self.map.insert(record.agent.clone(), Session::new(record));
        }
        for destination in destinations {
            self.learn_destination(&destination, false);
        }
        self.unkept.clear();
        self.unkept_destinations.clear();
    }

    /// Whether there is something to tell.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.dirty.is_empty() || !self.new_destinations.is_empty()
    }

    fn index(&mut self, record: &SessionRecord) {
        self.by_destination
            .entry(record.destination.clone())
            .or_default()
            .insert(record.agent.clone());
    }
}
