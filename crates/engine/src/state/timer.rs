//! The engine's timers: one entry a timer, the earliest is what the driver arms.

use std::collections::{BTreeSet, HashMap};

use crate::model::AgentId;

use crate::api::ids::JobId;

/// Everything that can come due.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// A broker may be dialled again, the preferred one was healthy long enough, or a way is to be
    /// proven.
    Links,
    /// A heartbeat is to be sent.
    Heartbeat,
    /// The peers' consumers are to be counted.
    Evidence,
    /// Peers may have become suspect or lost; roles are looked at again.
    Members,
    /// A downstream node is to be probed.
    Probe(usize),
    /// Changes are to be told to the peers.
    Delta,
    /// Changes are to be made durable.
    Keep,
    /// Journal records are to be sent, or sent again.
    Journal,
    /// Commands that wait for evidence or acknowledgements are looked at.
    Doubt,
    /// The next batch of subscriptions may start.
    Takeover,
    /// Something about one agent: a retry, a read, the end of a linger.
    Agent(AgentId),
    /// A command's next step may go out without its having been seen that the one before it had its
    /// effect.
    Step(JobId),
    /// Held and forwarded commands are looked at again, deadlines included.
    Held,
    /// A consumer that was asked for should stand by now.
    Consumers,
    /// Publications that failed on a living link are tried again.
    Outbox,
    /// The next part of the agents' states is published.
    States,
    /// Old entries are swept out.
    Sweep,
    /// The grace of a shutdown or drain is over.
    Grace,
}

/// The table.
#[derive(Debug, Default)]
pub struct Timers {
    at: HashMap<Timer, u64>,
    order: BTreeSet<(u64, Timer)>,
}

impl Timers {
    /// Sets a timer, replacing its former time.
    pub fn set(&mut self, timer: Timer, at: u64) {
        self.stop(&timer);
        self.at.insert(timer.clone(), at);
        self.order.insert((at, timer));
    }

    /// Sets a timer unless it comes due sooner.
    pub fn set_by(&mut self, timer: Timer, at: u64) {
        if self.at.get(&timer).is_none_or(|known| *known > at) {
            self.set(timer, at);
        }
    }

    /// Stops a timer.
    pub fn stop(&mut self, timer: &Timer) {
        if let Some(at) = self.at.remove(timer) {
            self.order.remove(&(at, timer.clone()));
        }
    }

    /// Takes a timer that is due.
    pub fn pop_due(&mut self, now: u64) -> Option<Timer> {
        let (at, _) = self.order.first()?;
        if *at > now {
            return None;
        }
        let (_, timer) = self.order.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }

    /// The earliest time.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.order.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_a_new_time_replaces_the_old() {
        let mut timers = Timers::default();
        timers.set(Timer::Heartbeat, 50);
        timers.set(Timer::Delta, 20);
        timers.set(Timer::Heartbeat, 10);
        timers.set_by(Timer::Delta, 30);
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(10), Some(Timer::Heartbeat));
        assert_eq!(timers.pop_due(25), Some(Timer::Delta));
        assert_eq!(timers.next(), None);
    }
}
