//! Wall-clock time for forgetting.
//!
//! What is known of a command is kept until a time of the wall clock, because it outlives the
//! process. A clock that is set forward must not make all of it old at once: duplicates of those
//! commands would run again. So a jump forward counts only after it has lasted as long as outcomes
//! are remembered at least; till then time goes on from where it was.

use crate::api::ids::Now;
use crate::api::limits;

/// A clock may be ahead of where it was by this, milliseconds, without having jumped.
const DRIFT_MS: u64 = 1_000;

/// Wall-clock time without its jumps forward.
#[derive(Debug, Clone, Default)]
pub struct Steady {
    /// Wall-clock time when the monotonic clock was 0; `None` before the first look.
    origin: Option<i128>,
    /// Since when the wall clock is ahead, monotonic milliseconds.
    ahead_since: Option<u64>,
}

impl Steady {
    /// The time to forget by; takes what the clocks say now.
    pub fn at(&mut self, now: Now) -> u64 {
        let seen = i128::from(now.wall) - i128::from(now.mono);
        let origin = *self.origin.get_or_insert(seen);
        if seen <= origin + i128::from(DRIFT_MS) {
            // Set back: what is kept is kept for longer.
            self.origin = Some(seen);
            self.ahead_since = None;
            return now.wall;
        }
        let since = *self.ahead_since.get_or_insert(now.mono);
        if now.mono.saturating_sub(since) >= limits::LEDGER_RETENTION_MS {
            self.origin = Some(seen);
            self.ahead_since = None;
            return now.wall;
        }
        u64::try_from(origin + i128::from(now.mono)).unwrap_or(now.wall)
    }
}

/// The engine's clock for forgetting: as the present one, with a wall clock that does not jump
/// forward.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    now: Now,
    steady: Steady,
}

impl Retention {
    pub(crate) fn now(&self) -> Now {
        self.now
    }

    pub(crate) fn advance(&mut self, now: Now) {
        self.now = Now {
            mono: now.mono,
            wall: self.steady.at(now),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;
    const HOUR: u64 = 3_600_000;

    fn now(mono: u64, ahead: u64) -> Now {
        let wall = START + mono + ahead;
        Now { mono, wall }
    }

    #[test]
    fn a_jump_forward_counts_only_when_it_has_lasted() {
        let mut steady = Steady::default();
        assert_eq!(steady.at(now(0, 0)), START);
        // Slow drift is followed.
        assert_eq!(steady.at(now(1_000, 900)), START + 1_900);
        assert_eq!(steady.at(now(2_000, 1_800)), START + 3_800);
        assert_eq!(steady.at(now(3_000, HOUR)), START + 4_800);
        // Back in time: nothing has happened.
        assert_eq!(steady.at(now(4_000, 1_800)), START + 5_800);
        // Ahead again, and it stays so.
        let began = 5_000;
        assert_eq!(steady.at(now(began, HOUR)), START + began + 1_800);
        let last = began + limits::LEDGER_RETENTION_MS - 1;
        assert_eq!(steady.at(now(last, HOUR)), START + last + 1_800);
        assert_eq!(steady.at(now(last + 1, HOUR)), START + last + 1 + HOUR);
    }

    #[test]
    fn set_back_it_keeps_for_longer_also_when_that_is_mended() {
        let mut steady = Steady::default();
        steady.at(now(HOUR, HOUR));
        let back = steady.at(now(HOUR + 1, 0));
        assert_eq!(back, START + HOUR + 1);
        assert_eq!(steady.at(now(HOUR + 2, HOUR)), START + HOUR + 2);
    }
}
