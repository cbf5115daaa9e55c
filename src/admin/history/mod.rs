//! What changed, and who changed it: roles, brokers, downstreams, peers, takeovers, verbs.
//!
//! ```text
//!   engine::Event, verbs, starts ──▶ one row a transition ──▶ memory ──▶ page, /api/v1/history
//!                                        a repetition is counted   └──▶ data.dir/history.jsonl
//! ```
//!
//! Bounded in memory and on disk. A file that cannot be written is warned of and stops nothing:
//! what waits for it is written once it can be.

mod file;
mod since;
mod verb;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

pub(crate) use file::read;
pub(crate) use since::since;
pub(crate) use verb::{Given, REASON_MOST};

use crate::engine::Event;
use crate::engine::members::GOODBYE;

/// Rows kept in memory; beyond it the oldest is forgotten.
const ENTRIES: usize = 10_000;
/// Longest reason kept, in characters.
const REASON_CHARS: usize = 300;
/// Longest other text kept, in characters.
const TEXT_CHARS: usize = 300;
/// Rows that are looked through for the one that repeats itself.
const LOOKED_AT: usize = 200;
/// How often a row that repeats itself is written anew, milliseconds.
const COUNTED_MS: i64 = 60_000;

/// Kind of the row of a takeover, which becomes longer while it goes on and is one row in the end.
pub(crate) const TAKEOVER: &str = "takeover";
/// State of a takeover that has not finished.
pub(crate) const STARTED: &str = "started";

/// What is a state: told again without having changed, it is counted.
const STATES: [&str; 6] = [
    "alarm",
    "broker",
    "consumer",
    "downstream",
    "peer",
    "service",
];

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Rises, over restarts too. A later line of the file with the same number replaces it.
    #[serde(default)]
    pub id: u64,
    /// When, RFC 3339 in UTC with milliseconds.
    pub at: String,
    /// `role`, `operator` (a verb that somebody gave), `choice` (what stands for a group since),
    /// `alarm`, `broker`, `consumer`, `downstream`, `service`, `peer`, `takeover`, `pause`,
    /// `instance` (started, stopped), `reload`.
    pub kind: String,
    /// Which group, broker, node, peer or instance.
    pub subject: String,
    /// State before, where it is known.
    #[serde(default)]
    pub from: Option<String>,
    /// State after; of a verb: which, and what came of it.
    pub to: String,
    /// Why; of a verb: what its giver said.
    #[serde(default)]
    pub reason: Option<String>,
    /// How often it was told without a change in between, this time included.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub count: u64,
    /// When it was told last, where that is more than once; as `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Name of the token that the verb came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Address that the verb came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

fn once() -> u64 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_once(count: &u64) -> bool {
    *count == 1
}

#[derive(Debug)]
struct Row {
    entry: HistoryEntry,
    /// Whether the file has another form of it, or none.
    changed: bool,
    /// When the file was given one.
    written: DateTime<Utc>,
}

#[derive(Debug, Default)]
struct Rows {
    list: VecDeque<Row>,
    next: u64,
    file: Option<file::Writer>,
}

/// The list, shared between those who feed it and the listener.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Rows>>);

impl History {
    /// The history of a data folder: what is kept there, and a file that takes what comes. Without
    /// a usable file there is a warning, and the memory alone.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let (known, unreadable) = read(dir).unwrap_or_else(|error| {
            let file = dir.join(file::NAME);
            tracing::warn!(file = %file.display(), %error, "history of before cannot be read");
            (Vec::new(), 0)
        });
        if unreadable > 0 {
            tracing::info!(
                unreadable,
                "lines of the history were not whole: passed over"
            );
        }
        let now = Utc::now();
        let last = known.last().map_or(0, |entry| entry.id);
        let wall = u64::try_from(now.timestamp_millis()).unwrap_or_default();
        let skipped = known.len().saturating_sub(ENTRIES);
        let row = |entry| Row {
            entry,
            changed: false,
            written: now,
        };
        let rows = Rows {
            list: known.into_iter().skip(skipped).map(row).collect(),
            // Where the file was lost, no number comes twice.
            next: wall.max(last + 1),
            file: file::Writer::start(dir),
        };
        Self(Arc::new(Mutex::new(rows)))
    }

    /// Keeps the happening where it is a change of state; others are not kept.
    pub fn record(&self, event: &Event) {
        if let Some(entry) = entry(event) {
            self.add(entry);
        }
    }

    /// The process began or ends.
    pub fn instance(&self, instance: &str, to: &str, reason: &str) {
        self.add(make("instance", instance, to).reason(reason));
    }

    /// The property file was read again.
    pub fn reloaded(&self, to: &str, reason: &str) {
        self.add(make("reload", "settings", to).reason(reason));
    }

    /// A verb, and what came of it.
    pub(crate) fn verb(&self, given: &Given) {
        self.add(given.entry());
    }

    fn add(&self, entry: HistoryEntry) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.add(entry, Utc::now());
    }

    /// All rows, the newest first.
    #[must_use]
    pub fn entries(&self) -> Vec<HistoryEntry> {
        self.newest(ENTRIES)
    }

    /// The newest rows, so many at most, the newest first.
    #[must_use]
    pub fn newest(&self, most: usize) -> Vec<HistoryEntry> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = rows.list.iter().rev().take(most);
        newest.map(|row| row.entry.clone()).collect()
    }

    /// Rows from that time on, the newest first. One that was told again since belongs to them.
    #[must_use]
    pub fn since(&self, from: DateTime<Utc>) -> Vec<HistoryEntry> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = rows.list.iter().rev();
        let asked = newest.filter(|row| row.entry.touches(from));
        asked.map(|row| row.entry.clone()).collect()
    }

    /// Gives what was counted to the file, and waits a moment until all is written.
    pub fn close(&self) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Utc::now();
        for index in 0..rows.list.len() {
            rows.write(index, now);
        }
        let file = rows.file.take();
        drop(rows);
        if let Some(file) = file {
            file.close();
        }
    }
}

impl Rows {
    fn add(&mut self, mut entry: HistoryEntry, now: DateTime<Utc>) {
        if entry.kind == TAKEOVER && self.goes_on(&entry, now) {
            return;
        }
        if let Some(index) = self.latest_about(&entry) {
            let row = &mut self.list[index];
            if row.entry.to == entry.to && STATES.contains(&entry.kind.as_str()) {
                row.entry.count += 1;
                row.entry.last = Some(entry.at);
                row.changed = true;
                if (now - row.written).num_milliseconds() >= COUNTED_MS {
                    self.write(index, now);
                }
                return;
            }
            // Its count is final.
            self.write(index, now);
        }
        entry.id = self.next.max(1);
        self.next = entry.id + 1;
        if self.list.len() == ENTRIES {
            self.list.pop_front();
        }
        self.list.push_back(Row {
            entry,
            changed: true,
            written: now,
        });
        self.write(self.list.len() - 1, now);
    }

    /// Whether it is told in the row of a takeover that has begun before; its end is that of all
    /// that go on.
    fn goes_on(&mut self, entry: &HistoryEntry, now: DateTime<Utc>) -> bool {
        let newest = self.list.iter().enumerate().rev().take(LOOKED_AT);
        let open: Vec<usize> = newest
            .take_while(|(_, row)| row.entry.kind != "instance")
            .filter(|(_, row)| row.entry.kind == TAKEOVER && row.entry.to == STARTED)
            .map(|(index, _)| index)
            .collect();
        let mut told = false;
        for index in open {
            let row = &mut self.list[index];
            if row.entry.reason == entry.reason {
                row.entry.subject.clone_from(&entry.subject);
                told = true;
            } else if entry.to == STARTED {
                continue;
            }
            row.entry.to.clone_from(&entry.to);
            row.changed = true;
            self.write(index, now);
        }
        told
    }

    /// The newest row about the same thing. What was so before a start says nothing.
    fn latest_about(&self, entry: &HistoryEntry) -> Option<usize> {
        let newest = self.list.iter().enumerate().rev().take(LOOKED_AT);
        newest
            .take_while(|(_, row)| row.entry.kind != "instance")
            .find(|(_, row)| row.entry.kind == entry.kind && row.entry.subject == entry.subject)
            .map(|(index, _)| index)
    }

    fn write(&mut self, index: usize, now: DateTime<Utc>) {
        let row = &mut self.list[index];
        if !row.changed {
            return;
        }
        row.changed = false;
        row.written = now;
        if let (Some(file), Ok(line)) = (&self.file, serde_json::to_string(&row.entry)) {
            file.add(line);
        }
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
        Event::Operator { group, what } => make("choice", group, what),
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
        Event::PeerLost { peer, reason } if *reason == GOODBYE => {
            make("peer", peer.as_str(), "left").reason(reason)
        }
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
            make(TAKEOVER, &agents_of(*agents), STARTED).reason(reason)
        }
        Event::TakeoverFinished {
            reason,
            agents,
            millis,
        } => {
            let state = format!("finished in {millis} ms");
            make(TAKEOVER, &agents_of(*agents), &state).reason(reason)
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
        | Event::InDoubt { .. }
        | Event::Resolved { .. }
        | Event::DoubleEffect { .. }
        | Event::Duplicate { .. }
        | Event::EventPublished
        | Event::EventDropped
        | Event::ReplyUnroutable
        | Event::LedgerOverflow { .. }
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

fn agents_of(count: usize) -> String {
    match count {
        1 => "1 agent".to_owned(),
        _ => format!("{count} agents"),
    }
}

fn make(kind: &str, subject: &str, to: &str) -> HistoryEntry {
    HistoryEntry {
        id: 0,
        at: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        kind: kind.to_owned(),
        subject: cut(subject, TEXT_CHARS),
        from: None,
        to: cut(to, TEXT_CHARS),
        reason: None,
        count: 1,
        last: None,
        token: None,
        address: None,
    }
}

/// At most so many characters, and none that a terminal acts on.
fn cut(text: &str, most: usize) -> String {
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(most).collect()
}

impl HistoryEntry {
    fn from(mut self, from: &str) -> Self {
        self.from = (!from.is_empty()).then(|| cut(from, TEXT_CHARS));
        self
    }

    fn reason(mut self, reason: &str) -> Self {
        self.reason = (!reason.is_empty()).then(|| cut(reason, REASON_CHARS));
        self
    }

    /// Whether it was told at that time or later.
    pub(crate) fn touches(&self, from: DateTime<Utc>) -> bool {
        let at = self.last.as_deref().unwrap_or(&self.at);
        DateTime::parse_from_rfc3339(at).is_ok_and(|at| at >= from)
    }
}

#[cfg(test)]
mod tests;
