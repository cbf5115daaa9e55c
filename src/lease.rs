//! Whether this process has been away: stopped, swapped out, starved.
//!
//! The engine decides on a request, a task sends it. Between the two the process may be frozen
//! for seconds, and a peer may have taken over. So a request carries a [`Pass`] from the time of
//! its decision, which is looked at right before the bytes leave: after a pause it is void, and the
//! engine is asked again, which by then knows that it was away.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::clock::uptime;

/// Looks in one limit: a gap is then told from a late look.
const LOOKS: u32 = 8;

#[derive(Debug)]
struct Seen {
    /// As [`now`] says.
    at: Duration,
    /// Pauses noticed so far.
    pauses: u64,
}

/// Notices pauses of this process. Looks at the clock by itself several times in each limit, and
/// whenever it is asked.
#[derive(Debug)]
pub struct Lease {
    seen: Mutex<Seen>,
    limit: Duration,
}

impl Lease {
    /// A lease that a gap of more than `limit` ends. Its thread ends with the last handle.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(limit: Duration) -> std::io::Result<Arc<Self>> {
        let lease = Arc::new(Self {
            seen: Mutex::new(Seen {
                at: now(),
                pauses: 0,
            }),
            limit,
        });
        let weak = Arc::downgrade(&lease);
        let pause = (limit / LOOKS).max(Duration::from_millis(1));
        std::thread::Builder::new()
            .name("lease".to_owned())
            .spawn(move || watch(&weak, pause))?;
        Ok(lease)
    }

    /// A pass of now.
    #[must_use]
    pub fn pass(self: &Arc<Self>) -> Pass {
        Pass {
            pauses: self.look(),
            lease: Arc::clone(self),
        }
    }

    /// As if the process had been away for so long.
    #[cfg(test)]
    pub(crate) fn hold(&self, away: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.at = seen.at.saturating_sub(away);
    }

    /// Pauses so far, the one that just ended included.
    fn look(&self) -> u64 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        // Under the lock: whoever looks first after a pause counts it, before anyone else is let
        // through.
        if now.saturating_sub(seen.at) > self.limit {
            seen.pauses += 1;
        }
        seen.at = now;
        seen.pauses
    }
}

/// Time on a clock that shows a day when the machine is started, so that a test can be away for longer
/// than it runs.
fn now() -> Duration {
    uptime() + Duration::from_secs(86_400)
}

fn watch(lease: &Weak<Lease>, pause: Duration) {
    while let Some(lease) = lease.upgrade() {
        lease.look();
        drop(lease);
        std::thread::sleep(pause);
    }
}

/// Leave to act, from the time of a decision.
#[derive(Debug, Clone)]
pub struct Pass {
    lease: Arc<Lease>,
    pauses: u64,
}

impl Pass {
    /// Whether the process has been here ever since. Once false it stays so.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.lease.look() == self.pauses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_void_after_a_gap_and_a_new_one_holds() {
        let lease = Lease::start(Duration::from_secs(3_600)).unwrap();
        let pass = lease.pass();
        assert!(pass.holds());
        lease.hold(Duration::from_secs(7_200));
        assert!(!pass.holds());
        assert!(!pass.holds(), "a look does not renew it");
        assert!(lease.pass().holds());
    }
}
