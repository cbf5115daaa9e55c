//! What changed lately: roles, brokers, downstreams, peers, takeovers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use crate::engine::Event;

/// Entries kept; beyond it the oldest is forgotten.
const ENTRIES: usize = 500;
/// Longest reason kept, in characters.
const REASON_CHARS: usize = 300;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When, RFC 3339 in UTC with milliseconds.
    pub at: String,
    /// `role`, `operator`, `alarm`, `broker`, `consumer`, `downstream`, `service`, `peer`,
    /// `takeover`, `pause`.
    pub kind: String,
    /// Which group, broker, node or peer.
    pub subject: String,
    /// State before, where it is known.
    pub from: Option<String>,
    /// State after.
    pub to: String,
    /// Why.
    pub reason: Option<String>,
}

/// The list, shared between the driver, which feeds it, and the listener.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<VecDeque<HistoryEntry>>>);

impl History {
    /// Keeps the happening where it is a change of state; others are not kept.
    pub fn record(&self, event: &Event) {
        let Some(entry) = entry(event) else {
            return;
        };
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() == ENTRIES {
            list.pop_front();
        }
        list.push_back(entry);
    }

    /// All entries, the newest first.
    #[must_use]
    pub fn entries(&self) -> Vec<HistoryEntry> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().rev().cloned().collect()
    }
}

fn entry(event: &Event) -> Option<HistoryEntry> {
    let updown = |up: bool| if up { "up" } else { "down" };
    let entry = match event {
        Event::RoleChanged {
            group,
            from,
            to,
            reason,
        } => make("role", group, to.as_str())
            .from(from.as_str())
            .reason(reason),
        Event::Operator { group, what } => make("operator", group, what),
        Event::Alone {
            group,
            reason,
            detail,
        } => make("alarm", group, reason).reason(detail),
        Event::BrokerLink { broker, up, reason } => {
            make("broker", broker, updown(*up)).reason(reason)
        }
        Event::BrokerFailover { from, to } => make("broker", to, "serving").from(from),
        Event::BrokerBlocked { broker, blocked } => {
            let state = if *blocked { "blocked" } else { "unblocked" };
            make("broker", broker, state)
        }
        Event::LinkGarbled {
            broker, problem, ..
        } => make("broker", broker, "garbled").reason(problem),
        Event::BrokerWay { broker, way, lost } => match lost {
            Some((words, reason)) => make("broker", broker, words).reason(reason),
            None => make("broker", broker, &format!("{way} work again")),
        },
        Event::OneCluster { problem } => make("broker", "list", "one-cluster").reason(problem),
        Event::ConsumerLost { group, reason } => make("consumer", group, "lost").reason(reason),
        Event::DownstreamState { node, up, reason } => {
            make("downstream", node, updown(*up)).reason(reason)
        }
        Event::DownstreamFailover { from, to } => make("downstream", to, "current").from(from),
        Event::Service { available } => {
            let state = if *available {
                "in service"
            } else {
                "out of service"
            };
            make("service", "downstream", state)
        }
        Event::PeerUp { peer } => make("peer", peer.as_str(), "alive"),
        Event::PeerSuspect { peer } => make("peer", peer.as_str(), "suspect"),
        Event::PeerLost { peer, reason } => make("peer", peer.as_str(), "lost").reason(reason),
        Event::Fenced {
            peer,
            broker,
            closed,
        } => {
            let did = match closed {
                Ok(count) => format!("{count} connections closed at {broker}"),
                Err(_) => format!("could not be fenced at {broker}"),
            };
            let entry = make("peer", peer.as_str(), &did);
            match closed {
                Ok(_) => entry,
                Err(reason) => entry.reason(reason),
            }
        }
        Event::TakeoverStarted { reason, agents } => {
            make("takeover", &format!("{agents} agents"), "started").reason(reason)
        }
        Event::TakeoverFinished {
            reason,
            agents,
            millis,
        } => {
            let state = format!("finished in {millis} ms");
            make("takeover", &format!("{agents} agents"), &state).reason(reason)
        }
        Event::OwnPause { millis } => make(
            "pause",
            "this process",
            &format!("was away for {millis} ms"),
        ),
        Event::Shortage {
            of,
            reason,
            began: true,
        } => make("alarm", "this machine", &format!("no {of} left")).reason(reason),
        // What happens all the time, or is no change of state: the metrics count it.
        Event::CommandFinished { .. }
        | Event::Stage { .. }
        | Event::DeadLettered { .. }
        | Event::InDoubt
        | Event::Resolved { .. }
        | Event::DoubleEffect { .. }
        | Event::Duplicate { .. }
        | Event::EventPublished
        | Event::EventDropped
        | Event::ReplyUnroutable
        | Event::LedgerOverflow
        | Event::AgentMoved { .. }
        | Event::PeerRejected { .. }
        | Event::PeerRoundTrip { .. }
        | Event::SubscriptionLost { .. }
        | Event::Shortage { .. }
        | Event::NotKept { .. }
        | Event::NotJournaled { .. }
        | Event::ImpossibleStep { .. }
        | Event::Stale { .. } => return None,
    };
    Some(entry)
}

fn make(kind: &str, subject: &str, to: &str) -> HistoryEntry {
    HistoryEntry {
        at: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        from: None,
        to: to.to_owned(),
        reason: None,
    }
}

impl HistoryEntry {
    fn from(mut self, from: &str) -> Self {
        self.from = (!from.is_empty()).then(|| from.to_owned());
        self
    }

    fn reason(mut self, reason: &str) -> Self {
        self.reason = (!reason.is_empty()).then(|| reason.chars().take(REASON_CHARS).collect());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::peer::Role;

    #[test]
    fn changes_are_kept_newest_first_and_messages_are_not() {
        let history = History::default();
        history.record(&Event::EventPublished);
        history.record(&Event::RoleChanged {
            group: "agents".to_owned(),
            from: Role::Follower,
            to: Role::Leader,
            reason: "peer-lost",
        });
        history.record(&Event::BrokerLink {
            broker: "a:5672".to_owned(),
            up: false,
            reason: "x".repeat(10_000),
        });
        let entries = history.entries();
        assert_eq!(entries.len(), 2);
        assert_eq!(
            (entries[0].kind.as_str(), entries[0].to.as_str()),
            ("broker", "down")
        );
        assert_eq!(entries[0].reason.as_ref().unwrap().len(), REASON_CHARS);
        assert_eq!(entries[1].from.as_deref(), Some("follower"));
        assert_eq!(entries[1].reason.as_deref(), Some("peer-lost"));
        assert!(entries[1].at.ends_with('Z'), "{}", entries[1].at);
    }

    #[test]
    fn the_oldest_is_forgotten_at_the_bound() {
        let history = History::default();
        for millis in 0..ENTRIES as u64 + 5 {
            history.record(&Event::OwnPause { millis });
        }
        let entries = history.entries();
        assert_eq!(entries.len(), ENTRIES);
        assert_eq!(entries[ENTRIES - 1].to, "was away for 5 ms");
    }
}
