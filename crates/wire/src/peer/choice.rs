//! What operators decide about a group, as members tell it each other.

use serde::{Deserialize, Serialize};

use crate::model::InstanceId;

/// What operators decided about a group last. Every member holds the same: of two accounts the
/// greater wins, so merging is commutative, associative and idempotent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Choice {
    /// One more than the decision before, as far as its instance knew.
    pub counter: u64,
    /// The instance that the verb was given to.
    pub by: InstanceId,
    /// When, milliseconds since the epoch.
    pub at: u64,
    /// What.
    pub wish: Wish,
}

/// What an operator wants of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Wish {
    /// Nothing: priority decides.
    Priority,
    /// This instance leads, whatever the priorities.
    Leader {
        /// Which.
        instance: InstanceId,
    },
    /// The group is stopped on this instance, and nobody takes its agents over.
    FailoverOff {
        /// Which.
        stopped: InstanceId,
    },
    /// A wish that this version does not know: priority decides.
    #[serde(other)]
    Unknown,
}

impl Wish {
    /// The instance on which the group is stopped without failover.
    #[must_use]
    pub fn stopped(&self) -> Option<&InstanceId> {
        match self {
            Self::FailoverOff { stopped } => Some(stopped),
            _ => None,
        }
    }
}

impl Choice {
    /// As [`Wish::stopped`].
    #[must_use]
    pub fn stopped(&self) -> Option<&InstanceId> {
        self.wish.stopped()
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let by = &self.by;
        match &self.wish {
            Wish::Leader { instance } => write!(f, "{instance} leads, chosen by operator on {by}"),
            Wish::FailoverOff { stopped } => {
                write!(f, "failover off, stopped on {stopped} by operator on {by}")
            }
            Wish::Priority => write!(f, "priority decides again, said {by}"),
            Wish::Unknown => write!(f, "a choice of a newer version, made on {by}"),
        }
    }
}
