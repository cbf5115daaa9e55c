//! I5: one agent's commands run in the order in which its client sent them, where the brokers
//! themselves do not reorder. Not judged: what was sent or delivered again. And where no cut parts
//! those who know, no state change is undone by an older one.

use std::collections::{BTreeMap, BTreeSet};

use crate::bursts::ANONYMOUS;
use crate::plan::Plan;

/// Effects in their order.
#[derive(Debug, Default)]
pub struct Order {
    /// Newest command number that had an effect and was sent once, by agent.
    newest: BTreeMap<String, u64>,
    /// Effects of an older command after a newer one of the same agent.
    reordered: Vec<String>,
    again: BTreeSet<String>,
    /// Newest command number that set a state, by agent.
    states: BTreeMap<String, u64>,
    /// Seconds in which the first and the last copy of a command were sent.
    sent: BTreeMap<String, (u64, u64)>,
    /// Older state changes that were carried out after a newer one.
    undone: Vec<String>,
}

/// The number in a command id `<agent>:<number>`.
fn number_of(id: &str) -> Option<(&str, u64)> {
    let (agent, number) = id.split_once(':').filter(|_| !id.starts_with(ANONYMOUS))?;
    Some((agent, number.parse().ok()?))
}

impl Order {
    /// A copy of it was delivered that may be the second one.
    pub fn sent_again(&mut self, id: &str) {
        self.again.insert(id.to_owned());
    }

    pub fn change(&mut self, who: &str, id: &str, at: u64) {
        let Some((agent, number)) = number_of(id) else {
            return;
        };
        if self.again.contains(id) {
            return;
        }
        let newest = self.newest.entry(agent.to_owned()).or_default();
        if number < *newest {
            let text = format!("I5: {id} after {newest} by {who}@{at}");
            self.reordered.push(text);
        }
        *newest = (*newest).max(number);
    }

    /// A client sent a copy of it.
    pub fn sent(&mut self, id: &str, at: u64) {
        let second = at / 1_000;
        let times = self.sent.entry(id.to_owned()).or_insert((second, second));
        times.1 = second;
    }

    /// Clients' clocks tell in whole seconds.
    fn is_older(&self, id: &str, newest: &str) -> bool {
        let (one, other) = (self.sent.get(id), self.sent.get(newest));
        one.zip(other).is_some_and(|(one, other)| one.1 < other.0)
    }

    pub fn state_set(&mut self, who: &str, id: &str, at: u64) {
        let Some((agent, number)) = number_of(id) else {
            return;
        };
        let newest = self.states.get(agent).copied().unwrap_or_default();
        if number < newest && self.is_older(id, &format!("{agent}:{newest}")) {
            let text = format!("I5: the change {newest} is undone by {id} by {who}@{at}");
            self.undone.push(text);
        }
        self.states.insert(agent.to_owned(), newest.max(number));
    }

    pub fn judge(&mut self, plan: &Plan) -> Vec<String> {
        let mut bad = Vec::new();
        if plan.keeps_order() {
            bad.append(&mut self.reordered);
        }
        if plan.keeps_changes() {
            bad.append(&mut self.undone);
        }
        bad
    }
}
