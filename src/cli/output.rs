//! Writing to the terminal, a pipe or a file.
//!
//! What cannot be written was not shown: a command whose output went to a full disk has failed,
//! whatever it found. [`print`] remembers it, and [`ended`] says so when the command is done. A pipe
//! whose reader has enough (`| head`) is no failure.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::exit;

/// As `eprintln!`, without its panic: see [`to_stderr`].
macro_rules! complain {
    ($($line:tt)*) => {
        $crate::cli::output::to_stderr(format_args!($($line)*))
    };
}

/// Narrowest that is believed of a terminal, in characters.
const NARROWEST: usize = 40;

/// How text for people is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// With colours.
    pub(super) colours: bool,
    /// Longest line, in characters.
    pub(super) width: usize,
    /// Most lines, where only so many can be seen.
    pub(super) height: Option<usize>,
}

/// Colours on a terminal without `NO_COLOR`; lines as long as `COLUMNS` says, else as the
/// terminal is wide, else uncut, for `grep` and files.
pub(super) fn look() -> Look {
    let terminal = terminal();
    let columns = std::env::var("COLUMNS").ok();
    let columns = columns.and_then(|columns| columns.trim().parse().ok());
    let size = terminal.then(terminal_size::terminal_size).flatten();
    let wide = size.map(|(width, _)| usize::from(width.0));
    // An empty NO_COLOR is none (no-color.org).
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Look {
        colours: terminal && !plain,
        width: columns.or(wide).unwrap_or(usize::MAX).max(NARROWEST),
        height: size.map(|(_, height)| usize::from(height.0)),
    }
}

#[cfg(test)]
impl Look {
    /// Without colours, a page wide.
    pub(super) const PAGE: Self = Self {
        colours: false,
        width: 100,
        height: None,
    };
}

/// Whether stdout is a terminal.
pub(super) fn terminal() -> bool {
    io::stdout().is_terminal()
}

/// A time in milliseconds since the epoch: RFC 3339 in UTC.
pub(super) fn iso(millis: u64) -> String {
    crate::admin::iso(millis)
}

/// Cursor home and clear.
pub(super) const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Why something was not shown, where it was not for a reader that is gone. Once a process, as
/// stdout is.
static UNSHOWN: OnceLock<String> = OnceLock::new();

/// Writes to stdout. `false`: nobody reads any more, or it cannot be written; go on no longer.
pub(super) fn print(text: &str) -> bool {
    let mut out = io::stdout().lock();
    shown(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Whether it was written; if not for another reason than a reader that is gone, that is
/// remembered.
pub(super) fn shown(written: io::Result<()>) -> bool {
    if let Err(error) = &written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        UNSHOWN.get_or_init(|| error.to_string());
    }
    written.is_ok()
}

/// The exit code of a command that ended with `code`: not 0 where it could not show all.
pub(super) fn ended(code: ExitCode) -> ExitCode {
    shown(io::stdout().flush());
    judged(code, UNSHOWN.get().map(String::as_str))
}

fn judged(code: ExitCode, unshown: Option<&str>) -> ExitCode {
    match unshown {
        None => code,
        Some(error) => {
            complain!("tandem: standard output cannot be written: {error}");
            if code == ExitCode::SUCCESS {
                ExitCode::from(exit::FAILED)
            } else {
                code
            }
        }
    }
}

/// Whether errors are said as JSON. Once a process, as stderr is.
static JSON: AtomicBool = AtomicBool::new(false);

/// From now on every line on stderr is one JSON object, `{"error":"…"}`, or is not.
pub(super) fn speak_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// A line for machines.
fn as_json(line: &str) -> String {
    let line = without_name(line);
    // Findings of a property file say themselves which of the two they are.
    let (kind, line) = match line.split_once(": ") {
        Some((kind @ ("error" | "warning"), rest)) => (kind, rest),
        _ => ("error", line),
    };
    serde_json::json!({ kind: line }).to_string()
}

/// Without the `tandem deadletter: ` that tells people who speaks.
fn without_name(line: &str) -> &str {
    let Some((name, rest)) = line.split_once(": ") else {
        return line;
    };
    let word = |c: char| c.is_ascii_lowercase() || c == '-';
    match name.strip_prefix("tandem") {
        Some("") => rest,
        Some(verb)
            if verb
                .strip_prefix(' ')
                .is_some_and(|verb| verb.chars().all(word)) =>
        {
            rest
        }
        _ => line,
    }
}

/// Writes a line to stderr. Where that is full or gone there is nobody left to tell, and no reason
/// to end otherwise than without it, as the macros of the library do by a panic.
pub(super) fn to_stderr(line: fmt::Arguments<'_>) {
    let line = if JSON.load(Ordering::Relaxed) {
        as_json(&line.to_string())
    } else {
        line.to_string()
    };
    let _ = io::stderr().lock().write_fmt(format_args!("{line}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_shown_is_not_done() {
        let (done, usage) = (ExitCode::SUCCESS, ExitCode::from(exit::USAGE));
        assert_eq!(judged(done, None), done);
        assert_eq!(judged(done, Some("full")), ExitCode::from(exit::FAILED));
        assert_eq!(judged(usage, Some("full")), usage);
    }

    #[test]
    fn the_speakers_name_is_for_people() {
        for (line, wanted) in [
            ("tandem deadletter: no such letter", "no such letter"),
            ("tandem support-bundle: full: disk", "full: disk"),
            ("tandem: a: b", "a: b"),
            ("tandem.properties: line 3", "tandem.properties: line 3"),
            ("broker a: refused", "broker a: refused"),
        ] {
            assert_eq!(without_name(line), wanted);
        }
    }

    #[test]
    fn for_machines_an_error_is_one_line_of_json() {
        let line = as_json("tandem: a\n\"b\"");
        assert_eq!(line, r#"{"error":"a\n\"b\""}"#);
        for kind in ["warning", "error"] {
            let line = as_json(&format!("{kind}: site.properties:7: x"));
            assert_eq!(line, format!("{{\"{kind}\":\"site.properties:7: x\"}}"));
        }
    }

    #[test]
    fn a_reader_that_is_gone_is_no_failure() {
        assert!(shown(Ok(())));
        assert!(!shown(Err(io::ErrorKind::BrokenPipe.into())));
        assert_eq!(UNSHOWN.get(), None);
    }
}
