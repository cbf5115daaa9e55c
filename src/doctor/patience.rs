//! The management API tells the truth of a few seconds ago: who consumes and how much waits is
//! gathered every `collect_statistics_interval` (5 s unless the broker says otherwise). A consumer
//! that has just been registered is not in the list yet. What would be called bad because of such
//! a list is looked at again until the list is younger than the examination.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the lists may be behind, from the start of the examination on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    began: Instant,
    limit: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            began: now(),
            limit,
        }
    }

    /// Waits for the next look; `false`: what the lists say now can be trusted.
    pub(super) async fn again(&self) -> bool {
        if self.began.elapsed() >= self.limit {
            return false;
        }
        tokio::time::sleep(PAUSE.min(self.limit)).await;
        true
    }

    /// What is to be said of something that was missing at each look.
    pub(super) fn words(&self) -> String {
        format!(
            "(looked for again and again, for {} s)",
            self.limit.as_secs()
        )
    }
}

fn now() -> Instant {
    Instant::now()
}
