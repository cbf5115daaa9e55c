//! What was sent and what came back: totals, latencies, silences.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How long an answered command is remembered, to notice a second, different answer. Also how
/// long a connector remembers command ids.
const REMEMBER: Duration = Duration::from_secs(600);

/// One command's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `OK`, `ACCEPTED`, …
    pub outcome: String,
    /// `error.code`; empty where there is none.
    pub code: String,
}

impl Answer {
    /// It did what was asked.
    pub fn is_service(&self) -> bool {
        matches!(self.outcome.as_str(), "OK" | "ACCEPTED")
    }
}

/// One second of the summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Second {
    /// Commands answered in it.
    pub answered: usize,
    /// Half were answered within this.
    pub p50: Duration,
    /// All but one in a hundred were.
    pub p99: Duration,
    /// Sent since the beginning.
    pub sent: u64,
    /// Answered since the beginning.
    pub answered_total: u64,
    /// Waiting for their answer.
    pub open: usize,
}

/// What a kill did to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Longest time without any command done, from the kill on.
    pub silence: Duration,
    /// From the kill to the first answer to a command that was sent after it.
    pub first_new: Option<Duration>,
    /// Longest wait of a command that was answered since the kill.
    pub worst: Duration,
}

/// The sums at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Commands sent.
    pub sent: u64,
    /// Commands answered.
    pub answered: u64,
    /// Commands without answer.
    pub open: Vec<String>,
    /// By outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// By command, outcome and error code, where the outcome is neither OK nor ACCEPTED.
    pub refusals: BTreeMap<String, u64>,
    /// Ids that got two different definite outcomes.
    pub contradicted: Vec<String>,
    /// Replies that came again with the same outcome, which is harmless.
    pub repeated: u64,
    /// Longest wait of a command.
    pub worst: Duration,
    /// Longest time without any command done.
    pub silence: Duration,
}

#[derive(Debug)]
struct Open {
    command: &'static str,
    sent: Instant,
    told: oneshot::Sender<Answer>,
}

#[derive(Debug)]
struct Watch {
    from: Instant,
    last: Instant,
    gap: Gap,
}

#[derive(Debug, Default)]
struct Inner {
    totals: Totals,
    open: HashMap<String, Open>,
    /// Answered ones, oldest first, and their outcome.
    done: VecDeque<(Instant, String)>,
    outcomes: HashMap<String, String>,
    accepted_calls: HashSet<String>,
    second: Vec<Duration>,
    last_service: Option<Instant>,
    watch: Option<Watch>,
}

/// Shared by the agents, the inbox and the display.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Inner>);

impl Tally {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command goes out.
    pub fn sent(&self, id: &str, command: &'static str, now: Instant) -> oneshot::Receiver<Answer> {
        let (told, answer) = oneshot::channel();
        let mut inner = self.inner();
        inner.totals.sent += 1;
        let open = Open {
            command,
            sent: now,
            told,
        };
        inner.open.insert(id.to_owned(), open);
        answer
    }

    /// A reply arrived.
    pub fn answered(&self, id: &str, answer: Answer, now: Instant) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let Some(open) = inner.open.remove(id) else {
            return inner.again(id, &answer);
        };
        let waited = now.saturating_duration_since(open.sent);
        let totals = &mut inner.totals;
        totals.answered += 1;
        totals.worst = totals.worst.max(waited);
        *totals.outcomes.entry(answer.outcome.clone()).or_default() += 1;
        if answer.is_service() {
            inner.served(open.sent, waited, now);
        } else {
            let what = format!("{} {} {}", open.command, answer.outcome, answer.code);
            *totals
                .refusals
                .entry(what.trim_end().to_owned())
                .or_default() += 1;
        }
        if open.command == "MakeCall" && answer.is_service() {
            inner.accepted_calls.insert(id.to_owned());
        }
        inner.second.push(waited);
        inner.done.push_back((now, id.to_owned()));
        inner.outcomes.insert(id.to_owned(), answer.outcome.clone());
        inner.forget(now);
        let _ = open.told.send(answer);
    }

    /// Takes the last second's figures.
    pub fn second(&self) -> Second {
        let mut inner = self.inner();
        let mut waits = std::mem::take(&mut inner.second);
        waits.sort_unstable();
        let at = |percent: usize| {
            let index = (waits.len() * percent).div_ceil(100).saturating_sub(1);
            waits.get(index).copied().unwrap_or_default()
        };
        Second {
            answered: waits.len(),
            p50: at(50),
            p99: at(99),
            sent: inner.totals.sent,
            answered_total: inner.totals.answered,
            open: inner.open.len(),
        }
    }

    /// Starts to measure what a kill at `from` does.
    pub fn watch(&self, from: Instant) {
        self.inner().watch = Some(Watch {
            from,
            last: from,
            gap: Gap {
                silence: Duration::ZERO,
                first_new: None,
                worst: Duration::ZERO,
            },
        });
    }

    /// Ends the measurement.
    pub fn gap(&self, now: Instant) -> Option<Gap> {
        let watch = self.inner().watch.take()?;
        let mut gap = watch.gap;
        gap.silence = gap.silence.max(now.saturating_duration_since(watch.last));
        Some(gap)
    }

    /// Commands that wait for their answer.
    pub fn open(&self) -> usize {
        self.inner().open.len()
    }

    /// The sums so far.
    pub fn totals(&self) -> Totals {
        let inner = self.inner();
        let mut totals = inner.totals.clone();
        totals.open = inner
            .open
            .iter()
            .map(|(id, open)| format!("{} {id}", open.command))
            .collect();
        totals.open.sort();
        totals
    }

    /// Ids of the calls that were answered as accepted in the last ten minutes.
    pub fn accepted_calls(&self) -> Vec<String> {
        self.inner().accepted_calls.iter().cloned().collect()
    }
}

impl Inner {
    fn served(&mut self, sent: Instant, waited: Duration, now: Instant) {
        let last = self.last_service.replace(now).unwrap_or(now);
        let silence = now.saturating_duration_since(last);
        self.totals.silence = self.totals.silence.max(silence);
        if let Some(watch) = &mut self.watch {
            let silence = now.saturating_duration_since(watch.last);
            watch.gap.silence = watch.gap.silence.max(silence);
            watch.gap.worst = watch.gap.worst.max(waited);
            watch.last = now;
            if sent > watch.from && watch.gap.first_new.is_none() {
                watch.gap.first_new = Some(now.saturating_duration_since(watch.from));
            }
        }
    }

    /// An `IN_DOUBT` may stand beside one definite outcome; two definite ones may not differ.
    fn again(&mut self, id: &str, answer: &Answer) {
        let Some(before) = self.outcomes.get_mut(id) else {
            return;
        };
        if *before == answer.outcome {
            self.totals.repeated += 1;
        } else if before == "IN_DOUBT" {
            before.clone_from(&answer.outcome);
        } else if answer.outcome != "IN_DOUBT" {
            let both = format!("{id}: {before}, then {}", answer.outcome);
            self.totals.contradicted.push(both);
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, _)) = self.done.front()
            && now.saturating_duration_since(*at) > REMEMBER
        {
            if let Some((_, id)) = self.done.pop_front() {
                self.outcomes.remove(&id);
                self.accepted_calls.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn answer(outcome: &str) -> Answer {
        Answer {
            outcome: outcome.to_owned(),
            code: String::new(),
        }
    }

    #[test]
    fn a_gap_counts_from_the_kill_and_only_what_was_done() {
        let (tally, start) = (Tally::default(), Instant::now());
        let _old = tally.sent("old", "GetState", start);
        tally.watch(start + 10 * MS);
        let _new = tally.sent("new", "GetState", start + 20 * MS);
        tally.answered("old", answer("OK"), start + 110 * MS);
        let _refused = tally.sent("refused", "GetState", start + 115 * MS);
        tally.answered("refused", answer("REJECTED"), start + 120 * MS);
        tally.answered("new", answer("ACCEPTED"), start + 510 * MS);
        let gap = tally.gap(start + 520 * MS).unwrap();
        assert_eq!(gap.silence, 400 * MS);
        assert_eq!(gap.first_new, Some(500 * MS));
        assert_eq!(gap.worst, 490 * MS);
        assert_eq!(tally.gap(start), None);
    }

    #[test]
    fn two_different_definite_outcomes_are_a_contradiction() {
        let (tally, now) = (Tally::default(), Instant::now());
        for id in ["same", "doubt", "two"] {
            let _answer = tally.sent(id, "MakeCall", now);
        }
        tally.answered("same", answer("ACCEPTED"), now);
        tally.answered("same", answer("ACCEPTED"), now);
        tally.answered("doubt", answer("IN_DOUBT"), now);
        tally.answered("doubt", answer("ACCEPTED"), now);
        tally.answered("doubt", answer("FAILED"), now);
        tally.answered("two", answer("FAILED"), now);
        tally.answered("two", answer("ACCEPTED"), now);
        let totals = tally.totals();
        assert_eq!(totals.repeated, 1);
        assert_eq!(
            totals.contradicted,
            ["doubt: ACCEPTED, then FAILED", "two: FAILED, then ACCEPTED"]
        );
        assert_eq!((totals.sent, totals.answered), (3, 3));
        assert_eq!(tally.accepted_calls(), ["same"]);
    }

    #[test]
    fn a_second_has_percentiles_and_starts_afresh() {
        let (tally, now) = (Tally::default(), Instant::now());
        for n in 1..=100 {
            let id = n.to_string();
            let _answer = tally.sent(&id, "GetState", now);
            tally.answered(&id, answer("OK"), now + n * MS);
        }
        let second = tally.second();
        assert_eq!(
            (second.answered, second.p50, second.p99),
            (100, 50 * MS, 99 * MS)
        );
        assert_eq!(tally.second().answered, 0);
    }

    #[test]
    fn what_is_not_answered_stays_open() {
        let (tally, now) = (Tally::default(), Instant::now());
        let _answer = tally.sent("x", "MakeCall", now);
        assert_eq!(tally.totals().open, ["MakeCall x"]);
        assert_eq!(tally.open(), 1);
    }
}
