//! I12: what is no command gets a typed refusal and is kept for people, once at least; a good
//! command never ends there. (A panic would end the run.)

use std::collections::{BTreeMap, BTreeSet};

/// Messages with the dead letters, and why.
#[derive(Debug, Default)]
pub struct Hostile(BTreeMap<String, &'static str>);

impl Hostile {
    pub fn dead_lettered(&mut self, id: &str, reason: &'static str) -> Option<String> {
        self.0.insert(id.to_owned(), reason);
        let good = !is_hostile(id);
        good.then(|| format!("I12: the good command {id} became a dead letter: {reason}"))
    }

    pub fn judge(&self, accepted: &BTreeSet<String>) -> Vec<String> {
        let hostile = accepted.iter().filter(|id| is_hostile(id));
        hostile
            .filter(|id| self.0.get(*id).is_none_or(|reason| reason.is_empty()))
            .map(|id| format!("I12: {id} was not refused"))
            .collect()
    }
}

fn is_hostile(id: &str) -> bool {
    id.starts_with("hostile:")
}
