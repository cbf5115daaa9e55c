//! The latest steps of the latest commands, in memory: what `tandem trace` tells.
//!
//! Bounded in number, bytes and age; the oldest steps go first. Nothing of it is on disk: what
//! must not be forgotten is in the journal.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::clock::wall_ms;
use crate::engine::Event;
use crate::engine::life::{Tag, row};
use crate::engine::limits::TRACE_ROWS;
use crate::engine::peer::TraceRow;
use crate::model::InstanceId;

/// Steps kept: some five minutes of a hundred commands a second, at seven or eight steps each.
const STEPS: usize = 250_000;
/// Bytes that they may take, the texts of a command counted once.
const BYTES: usize = 32 * 1024 * 1024;
/// How long a step is kept at most, milliseconds.
const KEPT_MS: u64 = 15 * 60 * 1000;

/// A step: of which command, which one, and more for people.
#[derive(Debug)]
struct Entry {
    at: u64,
    tag: TagKey,
    word: &'static str,
    detail: Box<str>,
}

/// Where a command's texts are. They stay there, and no others come to stand there, for as long as
/// a step of it is kept.
type TagKey = usize;

/// A command of which steps are kept.
#[derive(Debug)]
struct Known {
    tag: Arc<Tag>,
    steps: usize,
}

#[derive(Debug, Default)]
struct Steps {
    entries: VecDeque<Entry>,
    commands: HashMap<TagKey, Known>,
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
            self.keep(wall_ms(), tag, stage.word(), stage.detail());
        }
    }

    fn keep(&self, at: u64, tag: &Arc<Tag>, word: &'static str, detail: String) {
        let entry = Entry {
            at,
            tag: Arc::as_ptr(tag).addr(),
            word,
            detail: detail.into_boxed_str(),
        };
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push(entry, tag);
        while steps.is_over(at) && steps.pop() {}
    }

    /// The steps of the commands with this command or correlation id, or of this trace, the oldest
    /// first; of very many the latest.
    #[must_use]
    pub fn of(&self, id: &str) -> Vec<TraceRow> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let named = steps.commands.iter();
        let named: HashMap<TagKey, &Tag> = named
            .filter(|(_, known)| known.tag.is_known_by(id))
            .map(|(key, known)| (*key, &*known.tag))
            .collect();
        if named.is_empty() {
            return Vec::new();
        }
        let kept = steps.entries.iter().rev();
        let mut rows: Vec<TraceRow> = kept
            .filter_map(|entry| Some((entry, *named.get(&entry.tag)?)))
            .take(TRACE_ROWS)
            .map(|(entry, tag)| {
                let step = (entry.word, &*entry.detail);
                row(entry.at, &self.instance, tag, step)
            })
            .collect();
        rows.reverse();
        rows
    }

    /// Time of the oldest step that is kept, milliseconds since the epoch: nothing is known of what
    /// was before. `None` where there is none.
    #[must_use]
    pub fn since(&self) -> Option<u64> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.entries.front().map(|entry| entry.at)
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.detail.len()
    }
}

impl Steps {
    fn push(&mut self, entry: Entry, tag: &Arc<Tag>) {
        self.bytes += entry.bytes();
        let known = self.commands.entry(entry.tag).or_insert_with(|| {
            self.bytes += size_of_tag(tag);
            let tag = Arc::clone(tag);
            Known { tag, steps: 0 }
        });
        known.steps += 1;
        self.entries.push_back(entry);
    }

    /// Takes the oldest away; whether there was one.
    fn pop(&mut self) -> bool {
        let Some(oldest) = self.entries.pop_front() else {
            return false;
        };
        self.bytes -= oldest.bytes();
        if let Some(known) = self.commands.get_mut(&oldest.tag) {
            known.steps -= 1;
            if known.steps == 0 {
                self.bytes -= size_of_tag(&known.tag);
                self.commands.remove(&oldest.tag);
            }
        }
        true
    }

    fn is_over(&self, now: u64) -> bool {
        let stale = |entry: &Entry| entry.at.saturating_add(KEPT_MS) < now;
        self.entries.len() > STEPS || self.bytes > BYTES || self.entries.front().is_some_and(stale)
    }
}

fn size_of_tag(tag: &Tag) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    size_of::<(TagKey, Known)>()
        + size_of::<Tag>()
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
    /// What this instance knows, and how far back its record reaches, milliseconds since the epoch.
    Own(Vec<TraceRow>, Option<u64>),
    /// What a member knows.
    Rows(InstanceId, Vec<TraceRow>),
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

    /// This instance's own answer.
    pub fn own(&mut self, number: u64, rows: Vec<TraceRow>, since: Option<u64>) {
        self.send(number, Told::Own(rows, since));
    }

    /// A member's answer. One that nobody waits for any more is dropped.
    pub fn told(&mut self, number: u64, from: InstanceId, rows: Vec<TraceRow>) {
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

    const HELD: &str = "held";

    fn keep(record: &Record, at: u64, tag: &Arc<Tag>, word: &'static str) {
        record.keep(at, tag, word, String::new());
    }

    fn len(record: &Record) -> (usize, usize) {
        let steps = record.steps.lock().unwrap();
        (steps.entries.len(), steps.bytes)
    }

    #[test]
    fn a_command_is_found_by_its_ids_and_its_trace_and_by_no_other() {
        let record = Record::new("gc-1");
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        let (a, b) = (tag("a"), tag("b"));
        let traced = Arc::new(Tag {
            trace: crate::model::Trace::read(&parent, None).map(Arc::new),
            ..Tag::default()
        });
        assert_eq!(record.since(), None);
        keep(&record, 1, &a, HELD);
        keep(&record, 2, &b, HELD);
        keep(&record, 3, &a, "acknowledged");
        keep(&record, 4, &traced, HELD);
        let words =
            |id: &str| -> Vec<String> { record.of(id).into_iter().map(|row| row.stage).collect() };
        assert_eq!(words("a"), ["held", "acknowledged"]);
        assert_eq!(words("corr-b"), ["held"]);
        assert_eq!(words(trace), ["held"]);
        assert!(words("c").is_empty());
        assert_eq!(record.of("a")[1].at, Some(3));
        assert_eq!(record.since(), Some(1));
    }

    #[test]
    fn number_bytes_and_age_are_bounded() {
        let record = Record::new("gc-1");
        let a = tag("a");
        for at in 0..STEPS + 10_000 {
            keep(&record, at as u64, &a, HELD);
        }
        assert_eq!(len(&record).0, STEPS);
        assert_eq!(record.since(), Some(10_000));
        assert_eq!(record.of("a").len(), TRACE_ROWS);
        let at = (STEPS + 10_000) as u64;
        for number in 0..700 {
            let long = tag(&format!("{number:0>60000}"));
            keep(&record, at, &long, HELD);
        }
        assert!(len(&record).1 <= BYTES, "{:?}", len(&record));
        keep(&record, KEPT_MS + at + 1, &tag("z"), HELD);
        assert_eq!(len(&record).0, 1);
        let steps = record.steps.lock().unwrap();
        assert_eq!(steps.commands.len(), 1);
        assert_eq!(
            steps.bytes,
            steps.entries[0].bytes() + size_of_tag(&tag("z"))
        );
    }

    /// What a client sees of a hundred commands a second for minutes: as they are, of eight steps
    /// with some words each.
    #[test]
    fn it_reaches_five_minutes_back_at_a_hundred_commands_a_second() {
        let record = Record::new("gc-1");
        let minutes = 10;
        for number in 0..minutes * 60 * 100_u64 {
            let one = tag(&format!("{number:0>36}"));
            for step in 0..8 {
                let detail = "finesse-1.example: done 202, 14 ms".to_owned();
                record.keep(number * 10 + step, &one, "called", detail);
            }
        }
        let now = minutes * 60_000;
        let reached = now - record.since().unwrap();
        assert!(reached >= 290_000, "{reached} ms");
        assert!(len(&record).1 <= BYTES);
    }
}
