//! Warnings that are given once in a while.

use std::time::Duration;

use tokio::time::Instant;

/// The same warning is not said again before this.
const QUIET: Duration = Duration::from_secs(60);

/// When a warning was last given.
#[derive(Debug, Default)]
pub(super) struct Warned(Option<Instant>);

impl Warned {
    /// Whether it is time for it; then it counts as given.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|at| at.elapsed() >= QUIET);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_given_once_in_a_while() {
        let mut warned = Warned::default();
        assert!(warned.is_due() && !warned.is_due());
        warned.0 = warned.0.and_then(|at| at.checked_sub(QUIET));
        assert!(warned.is_due());
    }
}
