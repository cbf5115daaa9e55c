//! I3: one command id never gets two different definite outcomes; `IN_DOUBT` may stand beside
//! one. A refusal for now, with advice when to try again, is no outcome.

use std::collections::BTreeMap;

use tandem::wire::reply::{Outcome, Reply};

/// Definite outcomes by command id, with who told them first and when.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<String, Vec<(Outcome, String)>>);

impl Told {
    pub fn told(&mut self, id: &str, reply: &Reply, who: &str, at: u64) -> Option<String> {
        if reply.outcome == Outcome::InDoubt || reply.retry_after_ms.is_some() {
            return None;
        }
        let known = self.0.entry(id.to_owned()).or_default();
        if known.iter().any(|(outcome, _)| *outcome == reply.outcome) {
            return None;
        }
        let code = reply.error.as_ref().map_or("", |error| error.code.as_str());
        known.push((reply.outcome, format!("{code} by {who}@{at}")));
        (known.len() > 1).then(|| format!("I3: {id} got {known:?}"))
    }
}
