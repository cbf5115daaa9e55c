//! What a broker's keeper knows of a destination: whether it is at home there, was, or is at home at
//! another broker and would come here if that one were lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::objects::Registration;
use super::worker::Order;

/// How far the clocks of two instances may be apart, milliseconds.
pub(super) const CLOCKS: u64 = 1000;

/// Pause before the next worker of a destination, after a first failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest one: with every attempt the management API is asked about the queue.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A broker is lost that could not be had for so long, milliseconds.
const LOST: u64 = 5_000;
/// It is in any case when no word came from there for so long, milliseconds: two renewals are
/// missing.
pub(super) const SILENT: u64 = 130_000;

/// A destination that is at home here, or was, or may be.
pub(super) struct Home {
    pub(super) registration: Registration,
    /// The held message; `None` where its home is elsewhere now.
    pub(super) tag: Option<u64>,
    pub(super) order: watch::Sender<Order>,
    pub(super) taken: Arc<AtomicU64>,
    /// When its registration was last heard of, milliseconds since the epoch.
    pub(super) heard: u64,
    /// The same, where it was not only given to this process anew.
    pub(super) told: Option<u64>,
    /// Its worker's last failure.
    pub(super) stuck: Option<Stuck>,
}

/// Why a worker ended, when, and the pause before the next one.
#[derive(Debug, Clone)]
pub(super) struct Stuck {
    why: String,
    at: Instant,
    pub(super) pause: Duration,
}

impl Stuck {
    /// After another failure: the pause grows where the reason is the same and nothing went well
    /// meanwhile.
    pub(super) fn after(before: Option<&Self>, why: &str, at: Instant) -> Self {
        let same = |before: &&Self| {
            before.why == why && at.duration_since(before.at) < before.pause + LONGEST_PAUSE
        };
        let pause = before
            .filter(same)
            .map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        let why = why.to_owned();
        Self { why, at, pause }
    }
}

impl Home {
    /// Whether its broker is lost that cannot be had from here since then: so it is for everybody,
    /// as far as can be known here. Who hears of it from there meanwhile leaves it alone; else two
    /// instances that do not see each other's broker would take it from each other for ever.
    pub(super) fn is_lost(&self, since: u64, now: u64) -> bool {
        let silent = |told: u64| told < since || now.saturating_sub(told) > SILENT;
        now.saturating_sub(since) >= LOST && self.told.is_none_or(silent)
    }

    /// When its broker was lost that cannot be had from here since then: while words of it came, it
    /// posted what came with them.
    pub(super) fn lost_at(&self, since: u64) -> u64 {
        self.told.map_or(since, |told| told.max(since))
    }

    /// A word of it came.
    pub(super) fn hears(&mut self, now: u64) {
        self.heard = now;
        self.told = Some(now);
    }

    pub(super) fn seen(&self) -> u64 {
        let taken = self.taken.load(Ordering::Relaxed);
        self.registration.seen.max(taken)
    }

    /// Whether it is at home at another broker, and comes here when that is lost.
    pub(super) fn stands_by(&self) -> bool {
        self.order.borrow().standby
    }

    /// Whether it is at home here.
    pub(super) fn is_held(&self) -> bool {
        self.tag.is_some() && !self.stands_by()
    }

    /// The word by which it comes here, where its broker cannot be had since then.
    pub(super) fn moved(&self, to: &str, since: u64) -> Registration {
        let (known, lost) = (&self.registration, self.lost_at(since));
        Registration {
            // What was made before the loss waits at the lost broker, and is posted when that is
            // back. In any case a later word than the one that brought it there.
            at: lost.saturating_sub(CLOCKS).max(known.at + 1),
            seen: self.seen(),
            home: to.to_owned(),
            said: false,
            ..known.clone()
        }
    }
}

/// What a registration is, to one who has these homes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    Old,
    /// A destination that was not known.
    Settles,
    /// One that was not known, and is at home at another broker.
    StandsBy,
    /// What stands by is at home there still.
    Goes,
    /// Another place, or another time, of one that is known.
    Changes,
}

/// What a client has said here after another word of it that was said, or moved, by a clock that was
/// ahead: the later one. `None` where no clock was.
pub(super) fn put_right(
    home: Option<&Home>,
    registration: &Registration,
    now: u64,
) -> Option<Registration> {
    let known = &home?.registration;
    let ahead = known.at > now.saturating_add(CLOCKS) && known.rank() > registration.rank();
    (ahead && registration.said).then(|| Registration {
        at: known.at.saturating_add(1),
        said: false,
        ..registration.clone()
    })
}

/// `far`: federation brought it.
pub(super) fn news(home: Option<&Home>, registration: &Registration, far: bool) -> News {
    let Some(home) = home else {
        return match far {
            false => News::Settles,
            // An instance of before says nothing of its home.
            true if registration.home.is_empty() => News::Old,
            true => News::StandsBy,
        };
    };
    match registration.rank().cmp(&home.registration.rank()) {
        std::cmp::Ordering::Less => News::Old,
        std::cmp::Ordering::Equal if far && home.stands_by() && home.tag.is_some() => News::Goes,
        // Our own renewal of what has been let go meanwhile must not bring it back.
        std::cmp::Ordering::Equal if far || home.tag.is_none() => News::Old,
        _ => News::Changes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(at: u64) -> Registration {
        let url = "https://crm.example/".to_owned();
        Registration::new("crm", url, at).at_home("b-1")
    }

    fn home(tag: Option<u64>, standby: bool) -> Home {
        let (order, _) = watch::channel(Order {
            leaving: tag.is_none(),
            standby,
            ..Order::to("")
        });
        Home {
            registration: registration(7),
            tag,
            order,
            taken: Arc::default(),
            heard: 7,
            told: Some(7),
            stuck: None,
        }
    }

    #[test]
    fn a_late_renewal_brings_nobody_back_who_was_let_go_and_a_new_word_does() {
        let (held, gone, by) = (home(Some(1), false), home(None, false), home(Some(1), true));
        for (home, at, far, expected) in [
            (None, 7, false, News::Settles),
            (None, 7, true, News::StandsBy),
            (Some(&held), 6, false, News::Old),
            (Some(&held), 7, false, News::Changes),
            (Some(&held), 7, true, News::Old),
            (Some(&held), 8, true, News::Changes),
            (Some(&gone), 7, false, News::Old),
            (Some(&gone), 8, false, News::Changes),
            (Some(&by), 6, true, News::Old),
            (Some(&by), 7, true, News::Goes),
            (Some(&by), 8, true, News::Changes),
            (Some(&by), 8, false, News::Changes),
        ] {
            assert_eq!(news(home, &registration(at), far), expected, "{at} {far}");
        }
        let before = Registration::new("crm", String::new(), 7);
        assert_eq!(news(None, &before, true), News::Old);
    }

    #[test]
    fn what_a_client_says_counts_although_the_clock_was_ahead_when_it_said_something_else() {
        let now = 100_000;
        let mut known = home(Some(1), false);
        known.registration.at = now + CLOCKS + 1;
        let other = "https://crm.example/other".to_owned();
        let word = Registration {
            said: true,
            ..Registration::new("crm", other, now)
        };
        assert_eq!(news(Some(&known), &word, false), News::Old);
        let right = put_right(Some(&known), &word, now).unwrap();
        assert_eq!(right.at, known.registration.at + 1);
        assert_eq!((right.url.as_str(), right.said), (word.url.as_str(), false));
        assert_eq!(news(Some(&known), &right, false), News::Changes);
        // At another broker that takes it for its own.
        assert_eq!(news(Some(&known), &right, true), News::Changes);
        // A keeper's renewal of what was said before.
        let renewal = Registration {
            said: false,
            ..word.clone()
        };
        assert_eq!(put_right(Some(&known), &renewal, now), None);
        // No further ahead than clocks may be, or not known.
        known.registration.at = now + CLOCKS;
        assert_eq!(put_right(Some(&known), &word, now), None);
        assert_eq!(put_right(None, &word, now), None);
        // Later words need no help.
        known.registration.at = now + CLOCKS + 1;
        let later = Registration {
            at: known.registration.at + 1,
            ..word
        };
        assert_eq!(put_right(Some(&known), &later, now), None);
    }

    #[test]
    fn a_broker_is_not_lost_of_which_a_word_came_though_it_cannot_be_had_from_here() {
        let mut by = home(Some(1), true);
        assert!(!by.is_lost(100_000, 104_999) && by.is_lost(100_000, 105_000));
        by.hears(103_000);
        assert!(!by.is_lost(100_000, 200_000) && by.is_lost(100_000, 240_000));
        by.told = None;
        assert!(by.is_lost(100_000, 105_000));
    }

    #[test]
    fn the_pause_grows_while_the_reason_is_the_same() {
        let mut now = Instant::now();
        let mut stuck = Stuck::after(None, "not durable", now);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(stuck.pause, Duration::from_secs(seconds));
            now += stuck.pause;
            stuck = Stuck::after(Some(&stuck), "not durable", now);
        }
        let other = Stuck::after(Some(&stuck), "gone", now);
        assert_eq!(other.pause, FIRST_PAUSE);
        // It was used for a while.
        now += 2 * LONGEST_PAUSE;
        let again = Stuck::after(Some(&stuck), "not durable", now);
        assert_eq!(again.pause, FIRST_PAUSE);
    }

    #[test]
    fn what_moves_says_since_when_and_always_something_later() {
        let mut by = home(Some(1), true);
        let moved = by.moved("b-2", 60_000);
        assert_eq!((moved.at, moved.home.as_str()), (59_000, "b-2"));
        assert!(by.moved("b-2", 500).at > by.registration.at);
        // It could not be had from here, and was there for others for a while yet.
        by.hears(100_000);
        assert_eq!(by.moved("b-2", 60_000).at, 99_000);
    }
}
