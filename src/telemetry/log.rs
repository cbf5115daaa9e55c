//! The log on stderr.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write as _};
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::last::Last;
use super::repeats::{self, Kinds, Repeats, Style};
use super::{stderr, tally};
use crate::settings::LogFormat;

/// Level of the libraries, where `log.level` does not name them: their chatter hides ours. What
/// ends a connection or a channel is told by ours, once and in our words; lapin says it again for
/// each of its parts, the end that was asked for included, as an error. It would also write every
/// message that is returned, body and all. What is left of it is a thread of its own that panicked.
const LIBRARIES: &str = "warn,lapin=off,lapin::thread=error";

/// How often lines that were held back are looked at where nothing else is written.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the process holds back.
static HELD: OnceLock<Arc<Kinds>> = OnceLock::new();

/// What the process writes at all.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level cannot be read.
    #[error("log.level {level:?} cannot be used: {reason}")]
    Level {
        /// As it was given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process logs already.
    #[error("the log is set up already: {0}")]
    Again(String),
}

/// Starts logging to stderr, once a process. `level` is one level, which is for this program
/// alone (its libraries stay at `warn`), or a list as `info,tandem::broker=debug,lapin=info`.
/// What libraries write through the `log` crate comes along. Lines that repeat themselves are
/// limited and counted. Colours only on a terminal, and not
/// where `NO_COLOR` is set. A thread writes them, so that nobody waits for whoever reads standard
/// error; panics are lines of the log from then on.
///
/// # Errors
/// Where the level cannot be read, or the process logs already.
pub fn init(format: LogFormat, level: &str) -> Result<(), LogError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let kinds = Arc::new(Kinds::new(match format {
        LogFormat::Text => Style::Text,
        LogFormat::Json => Style::Json,
    }));
    let limited = Arc::clone(&kinds);
    let started = match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let lines = tracing_subscriber::fmt::layer()
                .with_writer(Last::writer)
                .with_ansi(colours)
                .map_event_format(|format| Repeats::new(format.with_ansi(colours), limited));
            registry.with(lines).try_init()
        }
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(Last::writer)
                .map_event_format(|format| Repeats::new(format, limited));
            registry.with(lines).try_init()
        }
    };
    started.map_err(|error| LogError::Again(error.to_string()))?;
    // The one that was set up: there is no second.
    let _ = HELD.set(kinds);
    let _ = FILTER.set(handle);
    stderr::start();
    std::panic::set_hook(Box::new(tell_panic));
    Ok(())
}

/// A panic is a line of the log: the usual words would wait for whoever reads standard error.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("-");
    let place = panic.location().map(ToString::to_string);
    let place = place.unwrap_or_default();
    let words = panic.payload_as_str().unwrap_or("-");
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(thread, place, words, "an error in this program: panic");
    } else {
        let line = format!("thread {thread} panicked at {place}: {words}\n");
        let _ = Last::writer().write_all(line.as_bytes());
    }
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        let _ = Last::writer().write_all(format!("{trace}\n").as_bytes());
    }
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(directives(level)).map_err(|error| LogError::Level {
        level: level.to_owned(),
        reason: error.to_string(),
    })
}

/// Another level for the log that [`init`] has set up.
///
/// # Errors
/// Where the level cannot be read, or no log was set up; nothing changes then.
pub fn set_level(level: &str) -> Result<(), LogError> {
    let wrong = |reason: String| LogError::Level {
        level: level.to_owned(),
        reason,
    };
    let filter = filter(level)?;
    let handle = FILTER.get();
    let handle = handle.ok_or_else(|| wrong("no log was set up".to_owned()))?;
    handle
        .reload(filter)
        .map_err(|error| wrong(error.to_string()))
}

/// Writes what was held back for its time, and says how much was dropped, for ever; to be spawned
/// beside the instance.
pub async fn upkeep() {
    let mut interval = tokio::time::interval(UPKEEP);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        write_held(false);
        tell_dropped();
    }
}

/// Writes all that was held back, and waits a second at most until everything is written: the
/// process ends.
pub fn flush() {
    write_held(true);
    tell_dropped();
    stderr::drain();
}

/// Says that whoever reads standard error is too slow, or gone.
fn tell_dropped() {
    let lines = stderr::dropped();
    if lines > 0 {
        tally::log_lines_dropped(lines);
        tracing::warn!(
            lines,
            "lines of the log were dropped: standard error is not read"
        );
    }
}

fn write_held(all: bool) {
    let Some(kinds) = HELD.get() else {
        return;
    };
    for line in kinds.due(repeats::now(), all) {
        // As with every line: where nobody reads, nobody is told.
        let _ = Last::writer().write_all(line.as_bytes());
    }
}

/// The level as filter directives.
fn directives(level: &str) -> String {
    let mut parts = Vec::new();
    for part in level.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        if part.contains('=') {
            parts.push(part.to_owned());
        } else if part.eq_ignore_ascii_case("off") {
            parts.push("off".to_owned());
        } else {
            parts.push(format!("{LIBRARIES},tandem={part}"));
        }
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_this_program_alone() {
        let libraries = "warn,lapin=off,lapin::thread=error";
        assert_eq!(directives("debug"), format!("{libraries},tandem=debug"));
        assert_eq!(
            directives("info, tandem::broker=debug,lapin=info"),
            format!("{libraries},tandem=info,tandem::broker=debug,lapin=info")
        );
        assert_eq!(directives("off"), "off");
    }

    #[test]
    fn every_level_of_the_settings_is_a_filter() {
        for level in ["error", "warn", "info", "debug", "trace", "off", "INFO"] {
            assert!(EnvFilter::try_new(directives(level)).is_ok(), "{level}");
        }
        let error = init(LogFormat::Text, "tandem=loud").unwrap_err();
        assert!(error.to_string().contains("tandem=loud"), "{error}");
    }
}
