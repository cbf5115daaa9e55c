//! Delays between attempts of a client to reach its brokers: exponential, with jitter. What an
//! instance tries again the engine plans, under its own clock.
//!
//! The only file that uses the crate `backoff`, which is unmaintained: it computes delays, and
//! nothing from outside reaches it.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;

/// A sequence of delays that never ends.
#[derive(Debug)]
pub struct Delays {
    backoff: ExponentialBackoff,
    longest: Duration,
}

impl Delays {
    /// From about `first`, doubling to about `longest`; each a quarter shorter or longer at most,
    /// so that those who lost the same broker do not come back at the same moment.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        let backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(first)
            .with_max_interval(longest)
            .with_multiplier(2.0)
            .with_randomization_factor(0.25)
            .with_max_elapsed_time(None)
            .build();
        Self { backoff, longest }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        self.backoff.next_backoff().unwrap_or(self.longest)
    }

    /// Waits for the next delay.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_bound_and_never_end() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut delays = Delays::new(first, longest);
        let all: Vec<Duration> = (0..200).map(|_| delays.next_delay()).collect();
        assert!(all[0] >= first.mul_f64(0.74) && all[0] <= first.mul_f64(1.26));
        assert!(all.iter().all(|delay| *delay <= longest.mul_f64(1.26)));
        assert!(all[199] >= longest.mul_f64(0.74));
    }
}
