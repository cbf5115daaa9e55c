//! Writing to the terminal or a pipe.

use std::io::{self, IsTerminal, Write};

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

/// Cursor home and clear.
pub(super) const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Writes to stdout. `false`: the reader is gone (`| head`), which is no error but an end.
pub(super) fn print(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}
