//! What the simulator really did: one entry an accepted effect.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::Serialize;

use super::lock;

/// One accepted effect.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Counts up from 1, also over a clear.
    pub seq: u64,
    /// Milliseconds since the epoch.
    pub time: i64,
    /// Node that took the request: 1 or 2.
    pub node: usize,
    /// The agent it acted on.
    #[serde(serialize_with = "text")]
    pub agent: Arc<str>,
    /// `LOGIN`, `READY`, `MAKE_CALL`, `ANSWER`, …
    pub kind: &'static str,
    /// The caller's `requestId` header; empty when absent.
    pub request_id: Box<str>,
    /// The caller's `traceparent` header; empty when absent.
    pub traceparent: Box<str>,
    /// The number called, the dialog acted on, the reason code; empty when there is none.
    pub detail: Box<str>,
}

fn text<S: serde::Serializer>(text: &Arc<str>, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(text)
}

#[derive(Debug)]
struct Inner {
    entries: VecDeque<Entry>,
    next: u64,
}

/// The effects in order, bounded: the oldest entries go first.
#[derive(Debug)]
pub struct Ledger {
    inner: Mutex<Inner>,
    limit: usize,
}

impl Ledger {
    /// An empty ledger of at most `limit` entries.
    pub fn new(limit: usize) -> Self {
        let inner = Inner {
            entries: VecDeque::new(),
            next: 1,
        };
        Self {
            inner: Mutex::new(inner),
            limit: limit.max(1),
        }
    }

    /// Adds one effect that happened now; of its request the id and the `traceparent`.
    pub fn record(
        &self,
        node: usize,
        agent: &Arc<str>,
        kind: &'static str,
        (request_id, traceparent): (&str, &str),
        detail: &str,
    ) {
        let mut entry = Entry {
            seq: 0,
            time: super::now_ms(),
            node,
            agent: agent.clone(),
            kind,
            request_id: request_id.into(),
            traceparent: traceparent.into(),
            detail: detail.into(),
        };
        let mut inner = lock(&self.inner);
        entry.seq = inner.next;
        inner.next += 1;
        if inner.entries.len() >= self.limit {
            inner.entries.pop_front();
        }
        inner.entries.push_back(entry);
    }

    /// Entries after `since`, of one agent if given.
    pub fn entries(&self, agent: Option<&str>, since: u64) -> Vec<Entry> {
        let inner = lock(&self.inner);
        let from = inner.entries.partition_point(|entry| entry.seq <= since);
        inner
            .entries
            .range(from..)
            .filter(|entry| agent.is_none_or(|agent| &*entry.agent == agent))
            .cloned()
            .collect()
    }

    /// How many effects were ever accepted.
    pub fn total(&self) -> u64 {
        lock(&self.inner).next - 1
    }

    /// Forgets all entries; the numbering goes on.
    pub fn clear(&self) {
        lock(&self.inner).entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entry_goes_first_and_since_counts_on() {
        let ledger = Ledger::new(2);
        let (a, b): (Arc<str>, Arc<str>) = ("1001".into(), "1002".into());
        ledger.record(1, &a, "LOGIN", ("", ""), "");
        ledger.record(1, &b, "READY", ("r-1", "00-ab"), "");
        ledger.record(2, &a, "MAKE_CALL", ("", ""), "7007");
        assert_eq!(ledger.entries(None, 0).len(), 2);
        assert_eq!(ledger.entries(None, 2)[0].kind, "MAKE_CALL");
        assert_eq!(ledger.entries(Some("1002"), 0)[0].seq, 2);
        ledger.clear();
        ledger.record(1, &a, "LOGOUT", ("", ""), "");
        assert_eq!(ledger.entries(None, 0)[0].seq, 4);
    }
}
