//! I1: at most one effect for the id of a command that is not idempotent.

use std::collections::BTreeMap;

/// Effects by command id.
#[derive(Debug, Default)]
pub struct Effects(BTreeMap<String, Vec<String>>);

impl Effects {
    pub fn effect(&mut self, who: &str, id: &str, at: u64) -> Option<String> {
        let effects = self.0.entry(id.to_owned()).or_default();
        effects.push(format!("{who}@{at}"));
        (effects.len() > 1).then(|| format!("I1: {id} had {} effects: {effects:?}", effects.len()))
    }
}
