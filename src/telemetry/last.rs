//! The last lines of the log, kept in memory for whoever is asked for help.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::stderr;

/// Bytes kept; the oldest lines go first.
const KEPT: usize = 512 * 1024;
/// Longest line kept, bytes.
const LINE: usize = 16 * 1024;

/// What the process wrote last.
static LAST: Mutex<Lines> = Mutex::new(Lines {
    lines: VecDeque::new(),
    bytes: 0,
});

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        let end = bytes.len().min(LINE);
        let mut line = plain(&String::from_utf8_lossy(&bytes[..end]));
        if !line.ends_with('\n') {
            line.push('\n');
        }
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > KEPT {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
        }
    }
}

/// Without a terminal's colours.
fn plain(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('m').map_or(part, |(_, rest)| rest)
    })
}

/// Hands lines to standard error, and keeps what it handed on.
#[derive(Debug)]
pub(super) struct Last;

impl Last {
    pub(super) fn writer() -> Self {
        Self
    }
}

impl Write for Last {
    /// One call a line: the layer writes each whole.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LAST.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(bytes);
        stderr::add(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The last lines, the oldest first, each with its end.
#[must_use]
pub fn last_lines() -> Vec<String> {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    last.lines.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_colours_are_left_out() {
        let mut lines = Lines::default();
        lines.add("\u{1b}[2m2026\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m up\n".as_bytes());
        assert_eq!(lines.lines[0], "2026  INFO up\n");
        for n in 0..1_000 {
            lines.add(format!("{n} {}\n", "x".repeat(2_000)).as_bytes());
        }
        assert!(lines.bytes <= KEPT && lines.lines.len() > 100);
        assert!(lines.lines.back().unwrap().starts_with("999 "));
        lines.add(&[b'y'; 100_000]);
        assert_eq!(lines.lines.back().unwrap().len(), LINE + 1);
    }
}
