//! The verdict: what the downstream really did, against what the clients were told.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde_json::{Value, json};

use crate::client::tally::{Gap, Totals};

/// Calls remembered by their command's id; the oldest half goes beyond that.
const MAX_CALLS: usize = 200_000;

/// Counts the calls in the simulator's ledger by the id of the command that made them.
#[derive(Debug, Default)]
pub struct Judge {
    since: u64,
    calls: HashMap<String, (u64, u32)>,
}

impl Judge {
    /// Number of the last entry read: `GET /ledger?since=` takes it.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Adds the next entries.
    pub fn add(&mut self, entries: &Value) {
        for entry in entries.as_array().into_iter().flatten() {
            let sequence = entry.get("seq").and_then(Value::as_u64).unwrap_or_default();
            if sequence <= self.since {
                continue;
            }
            self.since = sequence;
            let text = |name| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            if text("kind") == "MAKE_CALL" {
                let call = self.calls.entry(text("requestId").to_owned());
                call.or_insert((sequence, 0)).1 += 1;
            }
        }
        if self.calls.len() > MAX_CALLS {
            let middle = self.since / 2;
            self.calls.retain(|_, (first, _)| *first > middle);
        }
    }

    /// Forgets the calls so far, not where the ledger was read to.
    pub fn forget_calls(&mut self) {
        self.calls.clear();
    }

    /// Commands whose call was made more than once.
    pub fn doubled(&self) -> Vec<String> {
        let more = self.calls.iter().filter(|(_, (_, count))| *count > 1);
        let mut ids: Vec<String> = more
            .map(|(id, (_, count))| format!("{id}: {count} calls"))
            .collect();
        ids.sort();
        ids
    }

    /// Those of `accepted` whose call was never made.
    pub fn not_made(&self, accepted: &[String]) -> Vec<String> {
        let missing = accepted.iter().filter(|id| !self.calls.contains_key(*id));
        missing.cloned().collect()
    }
}

/// Everything that the verdict says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Sums of the load.
    pub totals: Totals,
    /// Calls made more than once.
    pub doubled: Vec<String>,
    /// Calls that were answered as accepted and never made.
    pub not_made: Vec<String>,
    /// Events received.
    pub events: u64,
    /// How often an agent was asked to sign in again.
    pub signed_in_again: u64,
    /// Notification sessions by agent count: how many agents have so many.
    pub subscriptions: BTreeMap<usize, usize>,
    /// What each kill did, in order: what was killed, and the gap where it was measured.
    pub gaps: Vec<(String, Option<Gap>)>,
    /// The kill of the leader was part of this run.
    pub kill_due: bool,
}

impl Verdict {
    /// Nothing lost, nothing doubled, the gap measured where it was due.
    pub fn is_good(&self) -> bool {
        self.lost() == 0 && self.twice() == 0 && self.gap_known()
    }

    /// Commands sent, lost, doubled, in doubt.
    pub fn counts(&self) -> [u64; 4] {
        [
            self.totals.sent,
            self.lost() as u64,
            self.twice() as u64,
            self.in_doubt(),
        ]
    }

    fn lost(&self) -> usize {
        self.totals.open.len() + self.not_made.len()
    }

    fn twice(&self) -> usize {
        self.doubled.len() + self.totals.contradicted.len()
    }

    fn gap_known(&self) -> bool {
        let first = self.gaps.first().and_then(|(_, gap)| *gap);
        !self.kill_due || first.is_some_and(|gap| gap.first_new.is_some())
    }

    fn in_doubt(&self) -> u64 {
        self.totals
            .outcomes
            .get("IN_DOUBT")
            .copied()
            .unwrap_or_default()
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        let gaps: Vec<Value> = self
            .gaps
            .iter()
            .map(|(what, gap)| {
                json!({"killed": what,
                       "silenceMs": gap.map(|g| millis(g.silence)),
                       "firstNewMs": gap.and_then(|g| g.first_new).map(millis),
                       "worstMs": gap.map(|g| millis(g.worst))})
            })
            .collect();
        json!({
            "sent": self.totals.sent, "answered": self.totals.answered,
            "lost": self.lost(), "doubled": self.twice(), "inDoubt": self.in_doubt(),
            "outcomes": self.totals.outcomes, "refusals": self.totals.refusals,
            "unanswered": self.totals.open, "notMade": self.not_made,
            "calledTwice": self.doubled, "contradicted": self.totals.contradicted,
            "repeatedReplies": self.totals.repeated, "events": self.events,
            "signedInAgain": self.signed_in_again,
            "worstMs": millis(self.totals.worst), "silenceMs": millis(self.totals.silence),
            "subscriptions": self.subscriptions, "gaps": gaps, "good": self.is_good(),
        })
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = &self.totals;
        writeln!(f, "commands sent      {}", totals.sent)?;
        writeln!(f, "commands answered  {}", totals.answered)?;
        writeln!(f, "lost               {}", self.lost())?;
        writeln!(f, "doubled            {}", self.twice())?;
        writeln!(f, "in doubt           {}", self.in_doubt())?;
        for (outcome, count) in &totals.outcomes {
            writeln!(f, "  {outcome:<16} {count}")?;
        }
        for (what, count) in &totals.refusals {
            writeln!(f, "  not done: {what}: {count}")?;
        }
        writeln!(f, "events received    {}", self.events)?;
        writeln!(f, "asked to sign in again  {}", self.signed_in_again)?;
        writeln!(f, "replies repeated after a resend  {}", totals.repeated)?;
        writeln!(f, "longest wait of a command  {} ms", millis(totals.worst))?;
        writeln!(
            f,
            "longest time without any command done  {} ms",
            millis(totals.silence)
        )?;
        for (what, gap) in &self.gaps {
            match gap {
                Some(gap) => writeln!(f, "{what} killed: {}", show_gap(gap))?,
                None => writeln!(f, "{what} killed: gap not measured")?,
            }
        }
        for (sessions, agents) in &self.subscriptions {
            writeln!(
                f,
                "agents with {sessions} notification session(s)  {agents}"
            )?;
        }
        let details = [
            ("never answered", &totals.open),
            ("accepted, call never made", &self.not_made),
            ("called more than once", &self.doubled),
            ("two different outcomes", &totals.contradicted),
        ];
        for (what, ids) in details {
            for id in ids.iter().take(20) {
                writeln!(f, "  {what}: {id}")?;
            }
        }
        if !self.gap_known() {
            writeln!(f, "NOT measured: the gap after the leader was killed")?;
        }
        let word = if self.is_good() { "GOOD" } else { "BAD" };
        write!(
            f,
            "verdict            {word}: {} lost, {} doubled",
            self.lost(),
            self.twice()
        )
    }
}

/// One gap in words.
pub fn show_gap(gap: &Gap) -> String {
    let first = match gap.first_new {
        Some(first) => format!("{} ms", millis(first)),
        None => "never".to_owned(),
    };
    format!(
        "no command done for {} ms; first answer to a command sent after the kill: {first}; \
         longest wait {} ms",
        millis(gap.silence),
        millis(gap.worst)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(sequence: u64, kind: &str, id: &str) -> Value {
        json!({"seq": sequence, "kind": kind, "requestId": id})
    }

    #[test]
    fn only_calls_count_and_pages_may_overlap() {
        let mut judge = Judge::default();
        judge.add(&json!([
            entry(1, "READY", "a"),
            entry(2, "READY", "a"),
            entry(3, "MAKE_CALL", "b")
        ]));
        judge.add(&json!([
            entry(3, "MAKE_CALL", "b"),
            entry(4, "MAKE_CALL", "c")
        ]));
        assert!(judge.doubled().is_empty());
        judge.add(&json!([entry(5, "MAKE_CALL", "b")]));
        assert_eq!(judge.since(), 5);
        assert_eq!(judge.doubled(), ["b: 2 calls"]);
        let accepted = ["b", "d"].map(str::to_owned);
        assert_eq!(judge.not_made(&accepted), ["d"]);
    }

    #[test]
    fn lost_doubled_or_no_gap_is_bad() {
        let good = Verdict::default();
        assert!(good.is_good());
        let mut lost = Verdict::default();
        lost.totals.open.push("GetState x".to_owned());
        let mut twice = Verdict::default();
        twice.doubled.push("b: 2 calls".to_owned());
        let mut differs = Verdict::default();
        differs.totals.contradicted.push("x".to_owned());
        let mut due = Verdict {
            kill_due: true,
            ..Verdict::default()
        };
        for bad in [&lost, &twice, &differs, &due] {
            assert!(!bad.is_good(), "{bad}");
            assert!(bad.to_string().contains("BAD"));
        }
        let gap = Gap {
            silence: Duration::from_millis(300),
            first_new: Some(Duration::from_millis(250)),
            worst: Duration::from_millis(310),
        };
        due.gaps.push(("gc-1".to_owned(), Some(gap)));
        assert!(due.is_good());
        assert!(
            due.to_string()
                .contains("first answer to a command sent after the kill: 250 ms")
        );
    }
}
