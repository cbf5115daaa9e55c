//! Time, as the engine is told it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::engine::ids::Now;
#[cfg(feature = "failpoints")]
use crate::failpoints::skewed;

/// Both clocks: one that only goes forward, and the wall's.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        let start = Instant::now();
        Self { start }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        Now {
            mono: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            wall: wall_ms(),
        }
    }

    /// When [`Now::mono`] will be this.
    pub(crate) fn instant(&self, mono: u64) -> tokio::time::Instant {
        (self.start + Duration::from_millis(mono)).into()
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
