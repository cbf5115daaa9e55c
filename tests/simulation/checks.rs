//! What must hold, and what was seen.

use std::collections::{BTreeMap, BTreeSet};

/// Everything that the invariants are judged by.
#[derive(Debug, Default)]
pub struct Seen {
    /// Effects of calls, by command id.
    pub effects: BTreeMap<String, Vec<String>>,
    /// Outcomes told for a command id.
    pub outcomes: BTreeMap<String, BTreeSet<&'static str>>,
    /// Command ids with a confirmed or parked reply.
    pub replied: BTreeSet<String>,
    /// Command ids that a broker took.
    pub accepted: BTreeSet<String>,
    /// Newest command number that had an effect, by agent.
    pub newest: BTreeMap<String, u64>,
    /// Effects of an older command after a newer one of the same agent.
    pub reordered: Vec<String>,
    pub violations: Vec<String>,
    pub outcome_counts: BTreeMap<&'static str, u32>,
}

/// The number in a command id `<agent>:<number>`.
pub fn number_of(id: &str) -> Option<(&str, u64)> {
    let (agent, number) = id.split_once(':')?;
    Some((agent, number.parse().ok()?))
}

impl Seen {
    pub fn effect(&mut self, node: &str, id: &str, at: u64) {
        let effects = self.effects.entry(id.to_owned()).or_default();
        effects.push(format!("{node}@{at}"));
        if effects.len() > 1 {
            let text = format!("I1: {id} had {} effects: {effects:?}", effects.len());
            self.violations.push(text);
        }
    }

    /// A state change was carried out.
    pub fn change(&mut self, node: &str, id: &str, at: u64) {
        let Some((agent, number)) = number_of(id) else {
            return;
        };
        let newest = self.newest.entry(agent.to_owned()).or_default();
        if number < *newest {
            self.reordered
                .push(format!("{id} after {newest} by {node}@{at}"));
        }
        *newest = (*newest).max(number);
    }

    pub fn outcome(&mut self, id: &str, outcome: &'static str) {
        *self.outcome_counts.entry(outcome).or_default() += 1;
        let outcomes = self.outcomes.entry(id.to_owned()).or_default();
        outcomes.insert(outcome);
        let definite = outcomes.iter().filter(|o| **o != "IN_DOUBT").count();
        if definite > 1 {
            let text = format!("I3: {id} got {outcomes:?}");
            self.violations.push(text);
        }
    }

    /// I4: an acknowledgement before the reply is confirmed or parked.
    pub fn acked(&mut self, id: &str, by: &str, at: u64) {
        if !self.replied.contains(id) {
            self.violations.push(format!(
                "I4: {id} acknowledged by {by}@{at} without a reply"
            ));
        }
    }

    pub fn unanswered(&self) -> Vec<&String> {
        self.accepted.difference(&self.replied).collect()
    }
}
