//! Open files: the limit of this process, and what it is shared out to.
//!
//! ```text
//!   limit = what the process itself needs (brokers, journal, log, …)
//!         + operators and monitoring (admin listener)
//!         + downstream requests, and idle connections of them
//!         + notification sessions: one an agent, all the rest
//! ```
//!
//! Sessions are the part that grows with the agents. They get what the others leave, so that with
//! all of them open there is still a descriptor for the request of an agent that is served, and
//! for a broker that has to be dialled again.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Nobody needs more: a limit of a billion, as some container engines set it, only makes programs
/// slow that count on it.
const ENOUGH: u64 = 1 << 20;
/// Standard streams, timers, log, journal, store, the management APIs, names being resolved.
const OWN: u64 = 40;
/// For each broker: two links with two connections each, of which the sockets count twice, and
/// short-lived ones.
const A_BROKER: u64 = 16;
/// Connections of the admin listener: at least, at most.
const ADMIN: (u64, u64) = (4, 128);
/// Downstream requests at a time: at least, at most.
const REQUESTS: (u64, u64) = (8, 4_096);
/// Idle connections to the downstream at most, all nodes together.
const IDLE: u64 = 2 * crate::downstream::MAX_IDLE as u64;
/// How often the open ones are counted.
const COUNTED_EVERY: Duration = Duration::from_secs(5);

/// The limit of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What holds now.
    pub soft: u64,
    /// What it may be raised to.
    pub hard: u64,
}

/// What the parts may hold open at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Notification sessions.
    pub sessions: usize,
    /// Downstream requests. As many connections may be idle besides, but not more than 512.
    pub requests: usize,
    /// Connections of the admin listener.
    pub admin: usize,
}

/// Raises the limit as far as this process may. Where that is refused it stays as it was.
///
/// # Errors
/// The limit cannot be read at all.
pub fn raise() -> std::io::Result<Limit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(ENOUGH);
    if soft >= wanted {
        return Ok(Limit { soft, hard });
    }
    // A sandbox may forbid it.
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => Ok(Limit { soft: wanted, hard }),
        Err(error) => {
            tracing::warn!(soft, hard, %error, "the limit of open files cannot be raised");
            Ok(Limit { soft, hard })
        }
    }
}

impl Limit {
    /// Shares it out. The parts together never exceed it, except where it is too small for
    /// anything.
    #[must_use]
    pub fn shares(self, brokers: usize) -> Shares {
        let own = OWN + A_BROKER * brokers as u64;
        let rest = self.soft.saturating_sub(own);
        let admin = (rest / 16).clamp(ADMIN.0, ADMIN.1);
        let requests = (rest / 6).clamp(REQUESTS.0, REQUESTS.1);
        let sessions = rest.saturating_sub(admin + requests + requests.min(IDLE));
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Shares {
            sessions: count(sessions),
            requests: count(requests),
            admin: count(admin),
        }
    }
}

/// Keeps the gauges of limit and open descriptors, for ever.
pub async fn watch(limit: Limit) {
    let mut interval = tokio::time::interval(COUNTED_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        // With tens of thousands the list takes its time.
        let open = tokio::task::spawn_blocking(open).await.ok().flatten();
        crate::telemetry::descriptors(open, limit.soft);
    }
}

/// How many this process has open; `None` where the system does not tell.
#[must_use]
pub fn open() -> Option<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them is the list's own.
    Some((entries.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(soft: u64) -> Shares {
        Limit { soft, hard: soft }.shares(2)
    }

    #[test]
    fn the_shares_fit_into_the_limit_and_sessions_get_the_most_of_it() {
        for soft in [200, 256, 1_024, 4_096, 65_536, ENOUGH] {
            let shares = shares(soft);
            let idle = shares.requests.min(2 * crate::downstream::MAX_IDLE);
            let all = shares.sessions + shares.requests + idle + shares.admin;
            assert!(
                all as u64 + OWN + 2 * A_BROKER <= soft,
                "{soft}: {shares:?}"
            );
            assert!(shares.sessions as u64 >= soft / 3, "{soft}: {shares:?}");
        }
        assert!(shares(65_536).sessions > crate::engine::limits::SESSIONS);
    }

    #[test]
    fn a_limit_that_is_too_small_leaves_no_session() {
        assert_eq!(shares(64).sessions, 0);
        assert_eq!(shares(0).sessions, 0);
    }

    #[test]
    fn open_ones_are_counted() {
        let before = open().unwrap();
        let files: Vec<_> = (0..50).map(|_| tempfile::tempfile().unwrap()).collect();
        // Other tests open and close theirs meanwhile.
        assert!(
            open().unwrap() >= before.saturating_sub(40) + 10,
            "{before}"
        );
        drop(files);
    }
}
