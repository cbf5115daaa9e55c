//! What is known of one agent.

use crate::model::{Cause, Destination, Dialog, InstanceId, Secret, User};
use crate::wire::event::continued;

use crate::agents::correlation::Expectation;
use crate::api::ids::{CallId, JobId, SubscriptionEpoch};
use crate::api::limits;
use crate::peer::SessionRecord;

use super::tally::Tally;

pub use super::sessions::Sessions;

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
    /// The node that is being tried.
    pub node: usize,
    /// That node was asked; else its domain is waited for.
    pub asked: bool,
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
    /// A notification has told of the agent since that was asked for.
    pub newer_user: bool,
    /// Ids of calls that notifications have told of since the calls were asked for, at most
    /// [`limits::DIALOGS_PER_AGENT`].
    pub newer_calls: Vec<String>,
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

/// The part of a session that all instances share. Anybody reads it; only [`Sessions`] changes it,
/// which marks the change for peers and disk ([`Sessions::change`]).
#[derive(Debug, Clone)]
pub struct Record(pub(super) SessionRecord);

impl std::ops::Deref for Record {
    type Target = SessionRecord;

    fn deref(&self) -> &SessionRecord {
        &self.0
    }
}

/// What this instance knows of one agent.
#[derive(Debug, Clone)]
pub struct Session {
    /// The part that all instances share.
    pub record: Record,
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
    /// As the record's `newest_change`, of accounts that were known before: only its owner writes that.
    pub newest_known: Option<u64>,
    /// This instance, as its owner, has seen the agent signed in.
    pub seen_in: bool,
    /// The node of the newest subscription that stood.
    pub last_node: Option<usize>,
    /// Until then a sign-out without a reason may be that of the node that was left, monotonic
    /// milliseconds.
    pub moved_until: u64,
    /// Not signed in again by itself before then, monotonic milliseconds.
    pub again_after: u64,
    /// When the tombstone is removed.
    pub buried_until: Option<u64>,
    /// On its way to or from another living instance.
    pub moving: Option<Move>,
    /// When its client was heard last at the own broker, with no other instance there: monotonic
    /// milliseconds.
    pub heard_at: Option<u64>,
    /// No move before then, monotonic milliseconds: after one, or after one was refused.
    pub still_until: u64,
    /// Its part in the tally.
    pub(super) counted: Tally,
    /// It may have changed since it was counted.
    pub(super) stale: bool,
}

impl Session {
    /// A session from a record, without subscription.
    #[must_use]
    pub fn new(record: SessionRecord) -> Self {
        Self {
            record: Record(record),
            dialogs: Vec::new(),
            subscription: Subscription::None,
            refused: false,
            connecting: None,
            expected: Vec::new(),
            sync: None,
            settling: None,
            sign_in_seen: false,
            linger_until: None,
            newest_known: None,
            seen_in: false,
            last_node: None,
            moved_until: 0,
            again_after: 0,
            buried_until: None,
            moving: None,
            heard_at: None,
            still_until: 0,
            counted: Tally::default(),
            stale: true,
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

    /// Whether the peers and the store are to know of it: not while the first Connect of an agent
    /// is being proven, of whom nothing is known beside.
    #[must_use]
    pub fn told(&self) -> bool {
        self.live() || self.record.version.epoch > 0
    }

    /// A new session in the place of an ended one: nothing of that goes over into it but its
    /// version and its client, which are the caller's to change.
    pub fn begin_anew(&mut self) {
        let record = SessionRecord {
            extension: None,
            mobile: None,
            watched: Vec::new(),
            signed_in: false,
            user: None,
            ..self.record.0.clone()
        };
        *self = Self {
            newest_known: self.newest_known,
            heard_at: self.heard_at,
            counted: self.counted,
            stale: self.stale,
            ..Self::new(record)
        };
    }

    /// A notification has told of the agent: a read under way may show what was before.
    pub fn outdates_user(&mut self) {
        if let Some(sync) = self.sync.as_mut().filter(|sync| sync.call.is_some()) {
            sync.newer_user = true;
        }
    }

    /// The same of a call.
    pub fn outdates_call(&mut self, id: &str) {
        if let Some(sync) = self.sync.as_mut().filter(|sync| sync.call.is_some())
            && sync.newer_calls.len() < limits::DIALOGS_PER_AGENT
            && !sync.newer_calls.iter().any(|known| known == id)
        {
            sync.newer_calls.push(id.to_owned());
        }
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
