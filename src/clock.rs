//! Time, as the engine is told it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::engine::ids::Now;
#[cfg(feature = "failpoints")]
use crate::failpoints::skewed;

/// Both clocks: one that only goes forward, also while the machine sleeps, and the wall's.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Duration,
}

/// Time since the machine was started, with that in which it was suspended: a process that slept
/// with its machine was away, too. [`Instant`] leaves that time out.
#[must_use]
pub fn uptime() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let id = ClockId::CLOCK_BOOTTIME;
    // On others the plain one counts it, or nothing does.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let id = ClockId::CLOCK_MONOTONIC;
    // No kernel that has the clock refuses it to anybody.
    clock_gettime(id).map_or(Duration::ZERO, Duration::from)
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: uptime() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        Now {
            mono: self.mono(),
            wall: wall_ms(),
        }
    }

    fn mono(&self) -> u64 {
        let since = uptime().saturating_sub(self.start);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// When [`Now::mono`] will be this, should the machine not sleep before.
    pub(crate) fn instant(&self, mono: u64) -> tokio::time::Instant {
        let now = Instant::now();
        (now + Duration::from_millis(mono.saturating_sub(self.mono()))).into()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Milliseconds since the epoch.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let wall = since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    skewed(wall)
}

#[cfg(not(feature = "failpoints"))]
fn skewed(wall: u64) -> u64 {
    wall
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The system's own word, which counts the time of sleep.
    #[cfg(target_os = "linux")]
    #[test]
    fn uptime_is_the_systems() {
        let told = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = told.split(' ').next().unwrap().parse().unwrap();
        let apart = (uptime().as_secs_f64() - seconds).abs();
        assert!(apart < 60.0, "{apart} s apart");
    }

    #[test]
    fn what_is_due_comes_after_as_long_as_it_is_ahead() {
        let clock = Clock::new();
        let due = clock.now().mono + 60_000;
        let ahead = clock.instant(due) - tokio::time::Instant::now();
        assert!(ahead <= Duration::from_millis(60_001), "{ahead:?}");
        assert!(clock.instant(0) <= tokio::time::Instant::now());
    }
}
