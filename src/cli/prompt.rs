//! Asking for a password at a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::model::Secret;

/// Shows again what is typed, however the question ends.
struct Shown(Termios);

impl Drop for Shown {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// The line that is typed at the terminal, which does not show it.
///
/// # Errors
/// Where standard input is no terminal, or it ends.
pub(super) fn password(question: &str) -> io::Result<Secret> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(io::Error::other("standard input is no terminal"));
    }
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    silent.local_flags.insert(LocalFlags::ECHONL);
    let shown = Shown(before);
    tcsetattr(&stdin, SetArg::TCSANOW, &silent)?;
    let mut out = io::stderr();
    out.write_all(question.as_bytes())?;
    out.flush()?;
    let mut line = Zeroizing::new(String::new());
    let read = stdin.lock().read_line(&mut line)?;
    drop(shown);
    if read == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}
