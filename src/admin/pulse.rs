//! How much is served, and how fast: one figure a second, for the status page.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::engine::Event;
use crate::wire::reply::Outcome;

/// Seconds remembered; beyond it the oldest is forgotten.
const SECONDS: usize = 120;
/// Upper bounds of the classes of durations, milliseconds; what is longer is in a class of its own.
const BOUNDS: [u64; 22] = [
    1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1_000, 2_000, 5_000,
    10_000, 30_000,
];

/// What was finished within one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Second {
    /// Commands that got their outcome.
    pub done: u64,
    /// Of these, those that were not done: rejected, failed, expired or in doubt.
    pub not_done: u64,
    /// Half of them took at most so many milliseconds (rounded up to a class).
    pub p50_ms: Option<u64>,
    /// 99 of 100 took at most so many milliseconds (rounded up to a class).
    pub p99_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct Counts {
    not_done: AtomicU64,
    classes: [AtomicU64; BOUNDS.len() + 1],
    seconds: Mutex<VecDeque<Second>>,
}

/// Counts what is finished; shared between the driver, which feeds it, and the listener.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Counts>);

impl Pulse {
    /// Counts the happening where it is the end of a command.
    pub fn record(&self, event: &Event) {
        let Event::CommandFinished {
            outcome, millis, ..
        } = event
        else {
            return;
        };
        let class = BOUNDS.partition_point(|bound| bound < millis);
        self.0.classes[class].fetch_add(1, Ordering::Relaxed);
        if !matches!(outcome, Outcome::Ok | Outcome::Accepted) {
            self.0.not_done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Closes one second after the other, for as long as it is polled.
    pub async fn keep(self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        loop {
            tick.tick().await;
            self.close_second();
        }
    }

    /// The last seconds, the oldest first.
    #[must_use]
    pub fn seconds(&self) -> Vec<Second> {
        let seconds = self.0.seconds.lock();
        let seconds = seconds.unwrap_or_else(PoisonError::into_inner);
        seconds.iter().copied().collect()
    }

    fn close_second(&self) {
        let classes = self
            .0
            .classes
            .each_ref()
            .map(|class| class.swap(0, Ordering::Relaxed));
        let done = classes.iter().sum();
        let second = Second {
            done,
            not_done: self.0.not_done.swap(0, Ordering::Relaxed).min(done),
            p50_ms: quantile(&classes, done, 50),
            p99_ms: quantile(&classes, done, 99),
        };
        let seconds = self.0.seconds.lock();
        let mut seconds = seconds.unwrap_or_else(PoisonError::into_inner);
        if seconds.len() == SECONDS {
            seconds.pop_front();
        }
        seconds.push_back(second);
    }
}

/// The bound of the class in which the wanted part of all is reached.
fn quantile(classes: &[u64], done: u64, percent: u64) -> Option<u64> {
    let wanted = (done * percent).div_ceil(100);
    let mut reached = 0;
    let class = classes.iter().position(|count| {
        reached += count;
        done > 0 && reached >= wanted
    })?;
    let longest = BOUNDS[BOUNDS.len() - 1];
    Some(BOUNDS.get(class).copied().unwrap_or(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(outcome: Outcome, millis: u64) -> Event {
        Event::CommandFinished {
            command: "MakeReady",
            tag: Arc::default(),
            outcome,
            code: None,
            downstream: None,
            status: None,
            request_id: None,
            millis,
            waited: 0,
            identified: true,
        }
    }

    #[test]
    fn a_second_says_how_many_and_how_fast() {
        let pulse = Pulse::default();
        for _ in 0..98 {
            pulse.record(&finished(Outcome::Accepted, 4));
        }
        pulse.record(&finished(Outcome::Failed, 400));
        pulse.record(&finished(Outcome::Ok, 1_000_000));
        pulse.record(&Event::EventPublished);
        pulse.close_second();
        pulse.close_second();
        let first = Second {
            done: 100,
            not_done: 1,
            p50_ms: Some(5),
            p99_ms: Some(500),
        };
        assert_eq!(pulse.seconds(), [first, Second::default()]);
    }

    #[test]
    fn the_list_is_bounded() {
        let pulse = Pulse::default();
        for _ in 0..SECONDS + 5 {
            pulse.close_second();
        }
        assert_eq!(pulse.seconds().len(), SECONDS);
    }
}
