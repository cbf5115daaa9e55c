//! I1: at most one effect for the id of a command that is not idempotent.

use std::collections::BTreeMap;

/// What the downstream was made to do, by command id.
#[derive(Debug, Default)]
pub struct Effects {
    /// By commands that are not to be repeated.
    once: BTreeMap<String, Vec<String>>,
    /// How often, by others.
    others: BTreeMap<String, u32>,
}

impl Effects {
    pub fn effect(&mut self, who: &str, id: &str, at: u64) -> Option<String> {
        let effects = self.once.entry(id.to_owned()).or_default();
        effects.push(format!("{who}@{at}"));
        (effects.len() > 1).then(|| format!("I1: {id} had {} effects: {effects:?}", effects.len()))
    }

    /// Of a command that may be repeated.
    pub fn repeatable(&mut self, id: &str) {
        *self.others.entry(id.to_owned()).or_default() += 1;
    }

    /// How many there were of a command.
    pub fn count(&self, id: &str) -> usize {
        let others = self.others.get(id).copied().unwrap_or_default();
        self.once.get(id).map_or(0, Vec::len) + others as usize
    }
}
