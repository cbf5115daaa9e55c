//! What is told of callbacks: status and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::clock::wall_ms;
use crate::telemetry::{self, CallbackGauges};

/// One destination at one broker.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Whose events.
    pub destination: String,
    /// The broker where they wait.
    pub broker: String,
    /// Scheme, host and port of where they go.
    pub to: String,
    /// `posting`, `failing`, or `leaving` where another broker is its home now.
    pub state: &'static str,
    /// Events that wait, as last counted.
    pub waiting: u64,
    /// Events that the client took, counted by this process.
    pub posted: u64,
    /// Attempts that failed and were, or will be, repeated.
    pub failed: u64,
    /// Events that were given up: refused by the client or too old.
    pub dropped: u64,
    /// Age of the event that is being posted, milliseconds; 0 where none is.
    pub oldest_ms: u64,
    /// The last failure, while there is one.
    pub last_error: Option<String>,
    /// When the event that is being posted was made, milliseconds since the epoch.
    #[serde(skip)]
    pub made: Option<u64>,
    /// Whether the last failure is that its queue cannot be used: over once it can.
    #[serde(skip)]
    pub stuck: bool,
}

impl Row {
    fn age(&self, now: u64) -> u64 {
        self.made.map_or(0, |made| now.saturating_sub(made))
    }

    fn goes_well(&mut self) {
        (self.last_error, self.stuck) = (None, false);
        if self.state == "failing" {
            self.state = "posting";
        }
    }

    fn goes_wrong(&mut self, why: &str, stuck: bool) {
        (self.last_error, self.stuck) = (Some(why.to_owned()), stuck);
        if self.state == "posting" {
            self.state = "failing";
        }
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Posted,
    Refused,
    Expired,
    Repeated,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Posted => "posted",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Repeated => "repeated",
        }
    }
}

type Rows = BTreeMap<(String, String), Row>;

/// What this instance does with callbacks. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Callbacks(Arc<Mutex<Rows>>);

impl Callbacks {
    /// Every destination whose events this instance posts.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let now = wall_ms();
        let aged = |row: &Row| Row {
            oldest_ms: row.age(now),
            ..row.clone()
        };
        self.lock().values().map(aged).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `url` is shown without its path, which may hold a key of the client's.
    pub(super) fn set(&self, (broker, destination): (&str, &str), url: &str, leaving: bool) {
        let to = reqwest::Url::parse(url).ok();
        let to = to.map(|url| url.origin().ascii_serialization());
        let mut rows = self.lock();
        let key = (broker.to_owned(), destination.to_owned());
        let row = rows.entry(key).or_insert_with(|| Row {
            destination: destination.to_owned(),
            broker: broker.to_owned(),
            to: String::new(),
            state: "posting",
            waiting: 0,
            posted: 0,
            failed: 0,
            dropped: 0,
            oldest_ms: 0,
            last_error: None,
            made: None,
            stuck: false,
        });
        row.to = to.unwrap_or_default();
        // A failure is over when something is taken, not when it is tried again.
        row.state = match (leaving, &row.last_error) {
            (true, _) => "leaving",
            (false, Some(_)) => "failing",
            (false, None) => "posting",
        };
        gauges(broker, &rows);
    }

    /// An event that was made then is being posted.
    pub(super) fn begun(&self, at: (&str, &str), made: u64) {
        self.change(at, |row| row.made = Some(made));
    }

    /// It is posted no more, and waits on.
    pub(super) fn put_back(&self, at: (&str, &str)) {
        self.change(at, |row| row.made = None);
    }

    pub(super) fn outcome(&self, at: (&str, &str), outcome: Outcome) {
        telemetry::callback(outcome.as_str());
        self.change(at, |row| {
            row.made = None;
            match outcome {
                Outcome::Posted => {
                    row.posted += 1;
                    row.goes_well();
                }
                Outcome::Refused | Outcome::Expired => row.dropped += 1,
                Outcome::Repeated => {}
            }
        });
    }

    pub(super) fn failed(&self, at: (&str, &str), why: &str) {
        telemetry::callback_failed();
        self.change(at, |row| {
            row.failed += 1;
            row.goes_wrong(why, false);
        });
        gauges(at.0, &self.lock());
    }

    /// Nothing of it can be posted now: its queue cannot be used.
    pub(super) fn stuck(&self, at: (&str, &str), why: &str) {
        self.change(at, |row| row.goes_wrong(why, true));
        gauges(at.0, &self.lock());
    }

    /// Its queue can be used.
    pub(super) fn usable(&self, at: (&str, &str)) {
        self.change(at, |row| {
            if row.stuck {
                row.goes_well();
            }
        });
        gauges(at.0, &self.lock());
    }

    pub(super) fn waiting(&self, at: (&str, &str), count: u64) {
        self.change(at, |row| row.waiting = count);
        gauges(at.0, &self.lock());
    }

    fn change(&self, (broker, destination): (&str, &str), change: impl FnOnce(&mut Row)) {
        let key = (broker.to_owned(), destination.to_owned());
        if let Some(row) = self.lock().get_mut(&key) {
            change(row);
        }
    }

    pub(super) fn remove(&self, broker: &str, destination: Option<&str>) {
        let mut rows = self.lock();
        rows.retain(|(at, name), _| at != broker || destination.is_some_and(|one| one != name));
        gauges(broker, &rows);
    }
}

fn gauges(broker: &str, rows: &Rows) {
    let now = wall_ms();
    let mut all = CallbackGauges::default();
    for row in rows.values().filter(|row| row.broker == broker) {
        all.destinations += 1;
        all.failing += u64::from(row.state == "failing");
        all.waiting += row.waiting;
        all.oldest = all.oldest.max(row.age(now) as f64 / 1000.0);
    }
    telemetry::callbacks(broker, all);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_how_it_goes_and_never_a_path() {
        let tally = Callbacks::default();
        let at = ("b-1", "crm");
        tally.set(at, "https://crm.example/events?key=s3cret", false);
        tally.failed(at, "status 500");
        let row = tally.rows().remove(0);
        assert_eq!((row.state, row.failed), ("failing", 1));
        assert_eq!(row.to, "https://crm.example");
        tally.outcome(at, Outcome::Posted);
        let row = tally.rows().remove(0);
        assert_eq!(
            (row.state, row.posted, row.last_error),
            ("posting", 1, None)
        );
        tally.begun(at, wall_ms() - 5_000);
        tally.stuck(at, "its queue cannot be used");
        let row = tally.rows().remove(0);
        assert!(row.oldest_ms >= 5_000 && row.state == "failing");
        tally.outcome(at, Outcome::Expired);
        let row = tally.rows().remove(0);
        assert_eq!((row.dropped, row.oldest_ms), (1, 0));
        tally.remove("b-2", None);
        tally.remove("b-1", Some("other"));
        assert_eq!(tally.rows().len(), 1);
        tally.remove("b-1", None);
        assert_eq!(tally.rows(), []);
    }

    #[test]
    fn what_fails_fails_until_something_is_taken_or_the_queue_can_be_used() {
        let tally = Callbacks::default();
        let at = ("b-1", "crm");
        let set = || tally.set(at, "https://crm.example/", false);
        let state = || tally.rows().remove(0).state;
        set();
        tally.stuck(at, "its queue cannot be used");
        set();
        assert_eq!(state(), "failing");
        tally.usable(at);
        assert_eq!(
            (state(), tally.rows()[0].last_error.clone()),
            ("posting", None)
        );
        tally.failed(at, "status 500");
        tally.usable(at);
        set();
        assert_eq!(state(), "failing");
        tally.outcome(at, Outcome::Posted);
        set();
        assert_eq!(state(), "posting");
    }
}
