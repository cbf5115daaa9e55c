//! A driver that stands still must not keep its consumers' priority: the process ends, the broker
//! gives its commands to the peer, and whoever supervises it starts it anew.
//!
//! So it is with the parts beside it without which it would wait for ever ([`vital`]).
//!
//! A thread of its own looks at the driver's beat, so that a runtime whose threads all hang is
//! noticed too. What a supervisor is told is the business of [`crate::supervisor`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;

/// Without a beat for this long the process ends. Longer than the time after which peers think it
/// lost, so that a moment's starvation kills nobody.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Without a beat for this long `/livez` says so.
pub const SLOW: Duration = Duration::from_secs(2);

/// Exit code of a process whose driver stands still (internal error).
const EXIT: i32 = 70;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// A gap between two looks from which it follows that the whole process was away, not the driver.
const AWAY: Duration = Duration::from_secs(1);

const NEVER: u64 = u64::MAX;

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// Milliseconds from the start to the last beat; [`NEVER`] before the first.
    beat: AtomicU64,
    done: AtomicBool,
}

/// The driver's beat, as others see it.
#[derive(Debug, Clone)]
pub struct Watchdog {
    shared: Arc<Shared>,
}

impl Watchdog {
    /// A watchdog that nobody looks at yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                start: now(),
                beat: AtomicU64::new(NEVER),
                done: AtomicBool::new(false),
            }),
        }
    }

    /// Starts to look: `stalled` is called once when there was no beat for `limit`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn watch(
        &self,
        limit: Duration,
        stalled: impl FnOnce(Duration) + Send + 'static,
    ) -> std::io::Result<()> {
        self.beat();
        let watchdog = self.clone();
        let look = move || watchdog.look(limit, stalled);
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(look)?;
        Ok(())
    }

    fn look(&self, limit: Duration, stalled: impl FnOnce(Duration)) {
        let mut last = now();
        while !self.shared.done.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            // Stopped and continued: the driver gets its time, too.
            if last.elapsed() > LOOK + AWAY {
                self.beat();
            }
            last = now();
            let silent = self.silent();
            if silent >= limit {
                stalled(silent);
                return;
            }
        }
    }

    /// The driver goes on.
    pub fn beat(&self) {
        let millis = self.shared.start.elapsed().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.shared.beat.store(millis, Ordering::Relaxed);
    }

    /// How long there was no beat; nothing before the first.
    #[must_use]
    pub fn silent(&self) -> Duration {
        let beat = match self.shared.beat.load(Ordering::Relaxed) {
            NEVER => return Duration::ZERO,
            millis => Duration::from_millis(millis),
        };
        self.shared.start.elapsed().saturating_sub(beat)
    }

    /// The driver has ended in order.
    pub fn done(&self) {
        self.shared.done.store(true, Ordering::Relaxed);
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}

/// Ends the process: nothing that hangs is waited for.
pub fn end(silent: Duration) {
    tracing::error!(
        seconds = silent.as_secs(),
        "the driver stands still: the process ends so that a peer can serve"
    );
    crate::telemetry::flush();
    std::process::exit(EXIT);
}

/// Does work that nothing else does in its place. A panic in it ends the process: whoever waits for
/// its results would wait for ever, and the instance would seem to serve.
pub fn vital<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done,
        Err(_) => broken(what),
    }
}

/// The same for a task.
pub async fn vital_task<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done,
        Err(_) => broken(what),
    }
}

fn broken(what: &'static str) -> ! {
    tracing::error!(
        what,
        "an error in this program ended a part that all else needs: the process ends so that a \
         peer can serve"
    );
    crate::telemetry::flush();
    std::process::exit(EXIT);
}

fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_driver_that_stands_still_is_noticed_and_one_that_goes_on_is_not() {
        let (tell, heard) = channel();
        let watchdog = Watchdog::new();
        let told = tell.clone();
        let limit = Duration::from_millis(600);
        watchdog
            .watch(limit, move |silent| told.send(silent).unwrap())
            .unwrap();
        for _ in 0..20 {
            watchdog.beat();
            std::thread::sleep(Duration::from_millis(50));
        }
        // A starved test machine may stop the beats as well.
        if let Ok(silent) = heard.try_recv() {
            assert!(silent >= limit);
            return;
        }
        let silent = heard.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(silent >= limit);
    }

    #[test]
    fn a_driver_that_ended_in_order_is_not_missed() {
        let (tell, heard) = channel::<Duration>();
        let watchdog = Watchdog::new();
        watchdog.done();
        watchdog
            .watch(Duration::ZERO, move |silent| tell.send(silent).unwrap())
            .unwrap();
        // The thread ends and drops what it would have called.
        assert!(heard.recv_timeout(Duration::from_secs(30)).is_err());
    }
}
