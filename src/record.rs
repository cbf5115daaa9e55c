//! The latest steps of the latest commands, in memory: what `tandem trace` tells.
//!
//! Bounded in number, bytes and age; the oldest steps go first. Nothing of it is on disk: what
//! must not be forgotten is in the journal.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::clock::wall_ms;
use crate::engine::Event;
use crate::engine::life::{Stage, Tag, row};
use crate::engine::limits::TRACE_ROWS;
use crate::engine::peer::TraceRow;
use crate::model::InstanceId;

/// Steps kept: of a busy minute, some hundred commands a second.
const STEPS: usize = 50_000;
/// Bytes that they may take, texts counted for each step anew.
const BYTES: usize = 16 * 1024 * 1024;
/// How long a step is kept at most, milliseconds.
const KEPT_MS: u64 = 15 * 60 * 1000;

#[derive(Debug)]
struct Entry {
    at: u64,
    tag: Arc<Tag>,
    stage: Stage,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Steps {
    entries: VecDeque<Entry>,
    bytes: usize,
}

/// The record, shared between the driver's ends.
#[derive(Debug, Clone)]
pub struct Record {
    instance: Arc<str>,
    steps: Arc<Mutex<Steps>>,
}

impl Record {
    /// An empty record of this instance.
    #[must_use]
    pub fn new(instance: &str) -> Self {
        Self {
            instance: instance.into(),
            steps: Arc::default(),
        }
    }

    /// Keeps the happening where it is a step of a command.
    pub fn record(&self, event: &Event) {
        if let Event::Stage { tag, stage } = event {
            self.keep(wall_ms(), tag.clone(), stage.clone());
        }
    }

    fn keep(&self, at: u64, tag: Arc<Tag>, stage: Stage) {
        let bytes = size_of::<Entry>() + size_of_tag(&tag) + stage.detail().len();
        let entry = Entry {
            at,
            tag,
            stage,
            bytes,
        };
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.bytes += bytes;
        steps.entries.push_back(entry);
        while steps.is_over(at) {
            let Some(oldest) = steps.entries.pop_front() else {
                break;
            };
            steps.bytes -= oldest.bytes;
        }
    }

    /// The steps of the commands with this command or correlation id, the oldest first; of very
    /// many the latest.
    #[must_use]
    pub fn of(&self, id: &str) -> Vec<TraceRow> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let known = steps.entries.iter().rev();
        let mut rows: Vec<TraceRow> = known
            .filter(|entry| entry.tag.is_known_by(id))
            .take(TRACE_ROWS)
            .map(|entry| row(entry.at, &self.instance, &entry.tag, &entry.stage))
            .collect();
        rows.reverse();
        rows
    }
}

impl Steps {
    fn is_over(&self, now: u64) -> bool {
        let stale = |entry: &Entry| entry.at.saturating_add(KEPT_MS) < now;
        self.entries.len() > STEPS || self.bytes > BYTES || self.entries.front().is_some_and(stale)
    }
}

fn size_of_tag(tag: &Tag) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    size_of::<Tag>()
        + tag.command.len()
        + tag.addressee.len()
        + text(&tag.command_id)
        + text(&tag.correlation_id)
}

/// Questions under way at once; a further one is answered with nothing.
const QUESTIONS: usize = 32;

/// What comes of one question.
#[derive(Debug)]
pub enum Told {
    /// These members are to answer, besides this instance.
    Asked(Vec<InstanceId>),
    /// What this instance knows (`None`), or a member.
    Rows(Option<InstanceId>, Vec<TraceRow>),
}

/// Questions that wait for members' answers. Whoever asked goes away when it has waited enough.
#[derive(Debug, Default)]
pub struct Traces {
    next: u64,
    open: BTreeMap<u64, mpsc::Sender<Told>>,
}

impl Traces {
    /// A new question's number; `None` where there are too many.
    pub fn begin(&mut self, asker: mpsc::Sender<Told>) -> Option<u64> {
        self.open.retain(|_, asker| !asker.is_closed());
        if self.open.len() >= QUESTIONS {
            return None;
        }
        self.next += 1;
        self.open.insert(self.next, asker);
        Some(self.next)
    }

    /// Who was asked.
    pub fn asked(&mut self, number: u64, members: Vec<InstanceId>) {
        self.send(number, Told::Asked(members));
    }

    /// An answer. One that nobody waits for any more is dropped.
    pub fn told(&mut self, number: u64, from: Option<InstanceId>, rows: Vec<TraceRow>) {
        self.send(number, Told::Rows(from, rows));
    }

    fn send(&mut self, number: u64, told: Told) {
        if let Some(asker) = self.open.get(&number) {
            // Full only where members answer more than once.
            let _ = asker.try_send(told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(id: &str) -> Arc<Tag> {
        Arc::new(Tag {
            command: "MakeReady".to_owned(),
            addressee: "1001".to_owned(),
            command_id: Some(id.to_owned()),
            correlation_id: Some(format!("corr-{id}")),
            trace: None,
        })
    }

    fn len(record: &Record) -> (usize, usize) {
        let steps = record.steps.lock().unwrap();
        (steps.entries.len(), steps.bytes)
    }

    #[test]
    fn a_command_is_found_by_both_its_ids_and_by_no_other() {
        let record = Record::new("gc-1");
        record.keep(1, tag("a"), Stage::Held);
        record.keep(2, tag("b"), Stage::Held);
        record.keep(3, tag("a"), Stage::Acknowledged);
        let words =
            |id: &str| -> Vec<String> { record.of(id).into_iter().map(|row| row.stage).collect() };
        assert_eq!(words("a"), ["held", "acknowledged"]);
        assert_eq!(words("corr-b"), ["held"]);
        assert!(words("c").is_empty());
        assert_eq!(record.of("a")[1].at, Some(3));
    }

    #[test]
    fn number_bytes_and_age_are_bounded() {
        let record = Record::new("gc-1");
        for at in 0..60_000 {
            record.keep(at, tag("a"), Stage::Held);
        }
        assert_eq!(len(&record).0, STEPS);
        assert_eq!(record.of("a").len(), TRACE_ROWS);
        let long = tag(&"x".repeat(100_000));
        for at in 0..200 {
            record.keep(at, long.clone(), Stage::Held);
        }
        assert!(len(&record).1 <= BYTES, "{:?}", len(&record));
        record.keep(KEPT_MS + 100_000, tag("z"), Stage::Held);
        assert_eq!(len(&record).0, 1);
    }
}
