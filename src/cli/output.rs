//! Writing to the terminal or a pipe.

use std::io::{self, IsTerminal, Write};

/// Whether stdout shows colours: a terminal, and `NO_COLOR` is not set.
pub(super) fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Whether stdout is a terminal.
pub(super) fn terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes to stdout. `false`: the reader is gone (`| head`), which is no error but an end.
pub(super) fn print(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}
