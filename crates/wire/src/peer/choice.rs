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

    /// When, as people read it: RFC 3339 in UTC, to the second; empty for what no calendar has.
    #[must_use]
    pub fn time(&self) -> String {
        let at = i64::try_from(self.at).ok();
        let at = at.and_then(chrono::DateTime::from_timestamp_millis);
        at.map_or_else(String::new, |at| {
            at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_tells_its_time_and_none_that_no_calendar_has() {
        let made = |at| Choice {
            counter: 1,
            by: InstanceId::new("gc-1").unwrap(),
            at,
            wish: Wish::Priority,
        };
        assert_eq!(made(1_796_083_200_999).time(), "2026-12-01T00:00:00Z");
        assert_eq!(made(0).time(), "1970-01-01T00:00:00Z");
        assert_eq!(made(u64::MAX).time(), "");
        assert_eq!(made(i64::MAX.cast_unsigned()).time(), "");
    }
}
