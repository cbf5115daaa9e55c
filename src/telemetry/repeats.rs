//! Lines that repeat themselves are limited and counted.
//!
//! ```text
//!   1st … 5th of a kind within a minute   as they are
//!   every further one                     held: the newest one is kept, and they are counted
//!   when the minute is over               the newest one, "(repeated 512 times)"; and so on, one
//!                                         line a minute, until a minute passes without one
//! ```
//!
//! Two lines are of one kind if they come from one place of the program with the same message and
//! the same texts. Numbers do not count (a link's number, a duration, a port), except in fields
//! that say whom a line is about: another agent or broker is another kind. Lines of level debug
//! and trace are never held, nor are those of [`EVERY_ONE`].

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Target of lines that are never held: the one line on each command. They are bounded by the
/// commands themselves, and whoever looks for one finds it or nothing.
pub(super) const EVERY_ONE: &str = "tandem::command";
/// Lines of one kind that are written before the rest is held.
const FIRST: u32 = 5;
/// For so long.
const WINDOW: Duration = Duration::from_secs(60);
/// Kinds that are told apart. Beyond it only the place in the program counts.
const KINDS: usize = 1_000;
/// Fields that say whom a line is about.
const WHOM: &[&str] = &[
    "agent",
    "broker",
    "claimed",
    "command",
    "downstream",
    "exchange",
    "from",
    "group",
    "peer",
    "queue",
    "team",
    "to",
];

/// Fields that tell one message from the next: no two lines would be of a kind by them.
const WHICH: &[&str] = &["command_id", "correlation_id", "trace_id"];

/// How a line is written, which decides where the count stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// One line of text.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is known of the lines of one kind.
#[derive(Debug)]
struct Seen {
    /// End of the minute.
    until: Instant,
    written: u32,
    held: u64,
    /// The newest of those that are held.
    newest: String,
}

/// What is to be done with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Write,
    Hold(u64),
}

/// All kinds of lines of the last minute.
#[derive(Debug)]
pub(super) struct Kinds {
    style: Style,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    seen: HashMap<u64, Seen>,
    /// No minute ends before.
    next: Option<Instant>,
}

impl Book {
    /// The kind that a line counts for. Minutes that are over make room for new kinds.
    fn kind(&mut self, kind: u64, place: u64, now: Instant) -> u64 {
        if self.seen.len() < KINDS || self.seen.contains_key(&kind) {
            return kind;
        }
        if self.next.is_some_and(|next| now >= next) {
            self.seen
                .retain(|_, known| known.held > 0 || now < known.until);
            self.next = self.seen.values().map(|known| known.until).min();
        }
        if self.seen.len() < KINDS { kind } else { place }
    }
}

impl Kinds {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            book: Mutex::default(),
        }
    }

    /// Counts a line. `place` is the kind that it is of where too many are told apart.
    fn judge(&self, kind: u64, place: u64, now: Instant) -> Verdict {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = book.kind(kind, place, now);
        let until = now + WINDOW;
        book.next = Some(book.next.map_or(until, |next| next.min(until)));
        let known = book.seen.entry(kind).or_insert(Seen {
            until,
            written: 0,
            held: 0,
            newest: String::new(),
        });
        if now >= known.until && known.held == 0 {
            known.until = until;
            known.written = 0;
        }
        if known.written < FIRST {
            known.written += 1;
            return Verdict::Write;
        }
        known.held += 1;
        Verdict::Hold(kind)
    }

    fn keep(&self, kind: u64, line: String) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = book.seen.get_mut(&kind) {
            known.newest = line;
        }
    }

    /// The lines that are to be written now, with their counts: those whose minute is over, or all
    /// that are held.
    pub(super) fn due(&self, now: Instant, all: bool) -> Vec<String> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        if !all && book.next.is_none_or(|next| now < next) {
            return due;
        }
        book.seen.retain(|_, known| {
            if now < known.until && !all {
                return true;
            }
            if known.held == 0 {
                return false;
            }
            let newest = std::mem::take(&mut known.newest);
            due.push(with_count(self.style, &newest, known.held));
            known.held = 0;
            known.until = now + WINDOW;
            true
        });
        book.next = book.seen.values().map(|known| known.until).min();
        due
    }
}

/// A line that says how often it was held back.
fn with_count(style: Style, line: &str, count: u64) -> String {
    let line = line.trim_end_matches('\n');
    match (style, line.strip_suffix('}')) {
        (Style::Json, Some(open)) => format!("{open},\"repeated\":{count}}}\n"),
        _ => format!("{line} (repeated {count} times)\n"),
    }
}

/// Writes events as `F` does, and holds those that repeat themselves.
pub(super) struct Repeats<F> {
    format: F,
    kinds: Arc<Kinds>,
}

impl<F> Repeats<F> {
    pub(super) fn new(format: F, kinds: Arc<Kinds>) -> Self {
        Self { format, kinds }
    }
}

impl<S, N, F> FormatEvent<S, N> for Repeats<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // The levels are ordered from error, the least, to trace.
        let about = event.metadata();
        if *about.level() > Level::INFO || about.target() == EVERY_ONE {
            return self.format.format_event(context, writer, event);
        }
        let now = now();
        let (kind, place) = kind_of(event);
        match self.kinds.judge(kind, place, now) {
            Verdict::Write => {
                self.format.format_event(context, writer.by_ref(), event)?;
            }
            Verdict::Hold(kind) => {
                let mut line = String::new();
                let held = Writer::new(&mut line);
                self.format.format_event(context, held, event)?;
                self.kinds.keep(kind, line);
            }
        }
        for line in self.kinds.due(now, false) {
            writer.write_str(&line)?;
        }
        Ok(())
    }
}

/// The kind of a line, and its place in the program.
fn kind_of(event: &Event<'_>) -> (u64, u64) {
    let mut hasher = DefaultHasher::new();
    event.metadata().callsite().hash(&mut hasher);
    let place = hasher.finish();
    let mut texts = Texts { hasher };
    event.record(&mut texts);
    (texts.hasher.finish(), place)
}

/// Takes in the texts of a line.
struct Texts {
    hasher: DefaultHasher,
}

impl Texts {
    fn text(&mut self, field: &Field, text: fmt::Arguments<'_>) {
        if WHICH.contains(&field.name()) {
            return;
        }
        field.name().hash(&mut self.hasher);
        let mut digest = Digest {
            hasher: &mut self.hasher,
            digits: WHOM.contains(&field.name()),
        };
        // Hashing cannot fail; what a value's own words fail with is not our concern.
        let _ = digest.write_fmt(text);
    }
}

impl Visit for Texts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_f64(&mut self, _: &Field, _: f64) {}

    fn record_i64(&mut self, _: &Field, _: i64) {}

    fn record_u64(&mut self, _: &Field, _: u64) {}

    fn record_i128(&mut self, _: &Field, _: i128) {}

    fn record_u128(&mut self, _: &Field, _: u128) {}
}

struct Digest<'a> {
    hasher: &'a mut DefaultHasher,
    digits: bool,
}

impl fmt::Write for Digest<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.digits || !byte.is_ascii_digit() {
                self.hasher.write_u8(byte);
            }
        }
        Ok(())
    }
}

pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_written_the_rest_is_counted_once_a_minute_and_calm_ends_it() {
        let kinds = Kinds::new(Style::Text);
        let start = now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let line = |seconds: u64| {
            if let Verdict::Hold(kind) = kinds.judge(1, 0, at(seconds)) {
                kinds.keep(kind, format!("refused at {seconds}\n"));
                return false;
            }
            true
        };
        let written = (0..59).filter(|second| line(*second)).count();
        assert_eq!(written, 5);
        assert!(kinds.due(at(59), false).is_empty());
        let due = kinds.due(at(60), false);
        assert_eq!(due, ["refused at 58 (repeated 54 times)\n"]);
        // It goes on: one line a minute.
        assert!((60..120).all(|second| !line(second)));
        let due = kinds.due(at(120), false);
        assert_eq!(due, ["refused at 119 (repeated 60 times)\n"]);
        // A calm minute.
        assert!(kinds.due(at(180), false).is_empty());
        assert!(line(181));
        assert!(kinds.due(at(300), false).is_empty());
    }

    #[test]
    fn what_is_held_at_the_end_is_told() {
        let kinds = Kinds::new(Style::Json);
        let now = now();
        for _ in 0..8 {
            if let Verdict::Hold(kind) = kinds.judge(1, 0, now) {
                kinds.keep(kind, "{\"level\":\"WARN\"}\n".to_owned());
            }
        }
        let due = kinds.due(now, true);
        assert_eq!(due, ["{\"level\":\"WARN\",\"repeated\":3}\n"]);
        assert!(kinds.due(now, true).is_empty());
    }

    #[test]
    fn a_flood_of_kinds_is_bounded() {
        let kinds = Kinds::new(Style::Text);
        let now = now();
        let written = (10..100_000)
            .filter(|kind| kinds.judge(*kind, 0, now) == Verdict::Write)
            .count();
        assert_eq!(written, KINDS + FIRST as usize);
        assert_eq!(kinds.book.lock().unwrap().seen.len(), KINDS + 1);
    }

    /// What is written to it.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn lines(&self) -> Vec<String> {
            let bytes = self.0.lock().unwrap();
            let text = String::from_utf8_lossy(&bytes);
            text.lines().map(str::to_owned).collect()
        }
    }

    fn logged(style: Style, work: impl FnOnce()) -> (Page, Arc<Kinds>) {
        use tracing_subscriber::layer::SubscriberExt as _;
        let (page, kinds) = (Page::default(), Arc::new(Kinds::new(style)));
        let (writer, limited) = (page.clone(), Arc::clone(&kinds));
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false);
        let registry = tracing_subscriber::registry();
        match style {
            Style::Text => {
                let lines = lines.map_event_format(|format| Repeats::new(format, limited));
                tracing::subscriber::with_default(registry.with(lines), work);
            }
            Style::Json => {
                let lines = lines.json().flatten_event(true);
                let lines = lines.map_event_format(|format| Repeats::new(format, limited));
                tracing::subscriber::with_default(registry.with(lines), work);
            }
        }
        (page, kinds)
    }

    #[test]
    fn numbers_make_no_other_kind_and_agents_do() {
        let (page, kinds) = logged(Style::Text, || {
            for link in 0..1_000_u64 {
                let reason = format!("connect: no answer from 10.0.0.1:{}", 5_000 + link);
                tracing::warn!(broker = "b1", link, %reason, "broker not connected");
                tracing::warn!(broker = "b2", link, %reason, "broker not connected");
                tracing::debug!(link, "dialling");
            }
            for id in ["3f9a", "d2e4", "77aa", "beef", "cafe", "f00d"] {
                tracing::warn!(agent = "9", command_id = id, "message dead-lettered");
            }
            for agent in 0..20 {
                tracing::warn!(agent = format!("{agent}").as_str(), "subscription lost");
            }
        });
        let lines = page.lines();
        let of = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
        assert_eq!(of("broker not connected broker=\"b1\""), 5, "{lines:#?}");
        assert_eq!(of("broker not connected broker=\"b2\""), 5);
        assert_eq!(of("subscription lost"), 20);
        assert_eq!(of("message dead-lettered"), 5);
        // No test of this process asks for a filter.
        assert_eq!(of("dialling"), 1_000);
        let held = kinds.due(now(), true);
        assert_eq!(held.len(), 3, "{held:?}");
        let held: Vec<_> = held.iter().filter(|line| line.contains("link")).collect();
        let last = "link=999 reason=connect: no answer from 10.0.0.1:5999 (repeated 995 times)\n";
        assert!(held.iter().all(|line| line.ends_with(last)), "{held:?}");
    }

    #[test]
    fn the_one_line_on_each_command_is_never_held() {
        let failed = |id: u64| crate::engine::Event::CommandFinished {
            command: "MakeReady",
            tag: Arc::new(crate::engine::life::Tag {
                command: "MakeReady".to_owned(),
                addressee: "1001".to_owned(),
                command_id: Some(format!("c-{id}")),
                correlation_id: None,
                trace: None,
            }),
            outcome: crate::wire::reply::Outcome::Failed,
            code: Some("AGENT_NOT_FOUND".to_owned()),
            downstream: None,
            status: Some(404),
            request_id: None,
            millis: 3,
            waited: 1,
            identified: true,
        };
        let labels = crate::telemetry::Labels {
            instance: "gc-1".to_owned(),
        };
        let (page, kinds) = logged(Style::Text, || {
            for id in 0..20 {
                crate::telemetry::emit(&failed(id), &labels);
            }
        });
        let lines = page.lines();
        for id in 0..20 {
            let own = format!("command_id=\"c-{id}\"");
            assert!(lines.iter().any(|line| line.contains(&own)), "{lines:#?}");
        }
        assert_eq!(lines.len(), 20);
        assert!(kinds.due(now(), true).is_empty());
    }

    #[test]
    fn json_lines_stay_json() {
        let (page, kinds) = logged(Style::Json, || {
            for _ in 0..9 {
                tracing::error!(reason = "} \" {", "again");
            }
        });
        let mut lines = page.lines();
        assert_eq!(lines.len(), 5);
        lines.extend(kinds.due(now(), true));
        for line in &lines {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["message"], "again");
            assert_eq!(value["reason"], "} \" {");
        }
        assert!(lines[5].contains("\"repeated\":4"), "{}", lines[5]);
    }
}
