//! I5: one agent's commands run in the order in which its client sent them, where the brokers
//! themselves do not reorder.

use std::collections::BTreeMap;

use crate::plan::Plan;

/// Effects in their order.
#[derive(Debug, Default)]
pub struct Order {
    /// Newest command number that had an effect, by agent.
    newest: BTreeMap<String, u64>,
    /// Effects of an older command after a newer one of the same agent.
    reordered: Vec<String>,
}

/// The number in a command id `<agent>:<number>`.
fn number_of(id: &str) -> Option<(&str, u64)> {
    let (agent, number) = id.split_once(':')?;
    Some((agent, number.parse().ok()?))
}

impl Order {
    pub fn change(&mut self, who: &str, id: &str, at: u64) {
        let Some((agent, number)) = number_of(id) else {
            return;
        };
        let newest = self.newest.entry(agent.to_owned()).or_default();
        if number < *newest {
            let text = format!("I5: {id} after {newest} by {who}@{at}");
            self.reordered.push(text);
        }
        *newest = (*newest).max(number);
    }

    pub fn judge(&mut self, plan: &Plan) -> Vec<String> {
        if plan.keeps_order() {
            std::mem::take(&mut self.reordered)
        } else {
            Vec::new()
        }
    }
}
