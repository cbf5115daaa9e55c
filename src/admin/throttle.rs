//! Wrong tokens are limited by the address that they come from: a token cannot be guessed by
//! trying, and a client with an old one does not fill the log.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Wrong tokens that one address may give in [`WINDOW`]; then none of its tokens is looked at
/// until that is over.
pub(super) const WRONG: u32 = 10;
/// Counted from the first wrong one.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are counted. Beyond it the one whose time ends first is forgotten: an attacker
/// with so many addresses gets a few more guesses, and nobody else is shut out by him.
const ADDRESSES: usize = 1_024;

#[derive(Debug, Clone, Copy)]
struct Count {
    until: Instant,
    wrong: u32,
}

/// All addresses that gave a wrong token lately.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<IpAddr, Count>>);

impl Throttle {
    /// How long this address has to wait before a token of its is looked at.
    pub(super) fn wait(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let known = self.lock().get(&whose(from)).copied()?;
        (known.wrong >= WRONG && now < known.until).then(|| known.until - now)
    }

    /// Counts a wrong token; whether it was the last that is looked at.
    pub(super) fn wrong(&self, from: IpAddr, now: Instant) -> bool {
        let mut known = self.lock();
        let from = whose(from);
        if known.len() >= ADDRESSES && !known.contains_key(&from) {
            known.retain(|_, count| now < count.until);
            let first = known.iter().min_by_key(|(_, count)| count.until);
            let first = first.map(|(address, _)| *address);
            if known.len() >= ADDRESSES
                && let Some(first) = first
            {
                known.remove(&first);
            }
        }
        let until = now + WINDOW;
        let count = known.entry(from).or_insert(Count { until, wrong: 0 });
        if now >= count.until {
            *count = Count { until, wrong: 0 };
        }
        count.wrong = count.wrong.saturating_add(1);
        count.wrong == WRONG
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One machine has a whole network of IPv6 addresses.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let network = six.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        Instant::now()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn after_so_many_wrong_ones_an_address_waits_for_the_minutes_end() {
        let (throttle, start) = (Throttle::default(), now());
        let (bad, good) = (address("10.0.0.7"), address("10.0.0.8"));
        for n in 1..=WRONG {
            assert_eq!(throttle.wait(bad, start), None);
            assert_eq!(throttle.wrong(bad, start), n == WRONG);
        }
        assert_eq!(throttle.wait(bad, start), Some(WINDOW));
        assert_eq!(
            throttle.wait(address("::ffff:10.0.0.7"), start),
            Some(WINDOW)
        );
        assert_eq!(throttle.wait(good, start), None);
        assert_eq!(throttle.wait(bad, start + WINDOW), None);
        assert!(!throttle.wrong(bad, start + WINDOW));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_the_table_is_bounded() {
        let (throttle, start) = (Throttle::default(), now());
        for n in 1..=WRONG {
            throttle.wrong(address(&format!("2001:db8::{n:x}")), start);
        }
        assert!(throttle.wait(address("2001:db8::ffff"), start).is_some());
        assert!(throttle.wait(address("2001:db8:0:1::1"), start).is_none());
        for n in 0..5_000_u32 {
            throttle.wrong(std::net::Ipv4Addr::from_bits(n).into(), start);
        }
        assert_eq!(throttle.lock().len(), ADDRESSES);
    }
}
