//! I3: one command id never gets two different definite outcomes; `IN_DOUBT` may stand beside
//! one. A refusal for now, with advice when to try again, is no outcome.
//!
//! Not judged: a failure told on one side of a cut, and what the other side told meanwhile. Two
//! that cannot talk cannot agree. Nor, where all instances were killed at once, a failure or an
//! expiry: outcomes of idempotent commands are in memory, so one that was told in the moment
//! before may be found anew (`docs/guarantees.md`).

use std::collections::BTreeMap;

use tandem::wire::reply::{Outcome, Reply};

use crate::plan::{Fault, Kind, Plan};

/// Definite outcomes by command id, with who told them first and when.
#[derive(Debug, Default)]
pub struct Told {
    by_id: BTreeMap<String, Vec<(Outcome, String)>>,
    cut: bool,
    killed: bool,
}

impl Told {
    pub fn new(plan: &Plan) -> Self {
        let cut = |fault: &Fault| matches!(fault.kind, Kind::Cut | Kind::OneWay { .. });
        let killed = |fault: &Fault| matches!(fault.kind, Kind::CrashAll);
        Self {
            by_id: BTreeMap::new(),
            cut: plan.faults.iter().any(cut),
            killed: plan.faults.iter().any(killed),
        }
    }

    pub fn told(&mut self, id: &str, reply: &Reply, who: &str, at: u64) -> Option<String> {
        if reply.outcome == Outcome::InDoubt || reply.retry_after_ms.is_some() {
            return None;
        }
        let failed = reply.outcome == Outcome::Failed;
        if failed && (self.cut || self.killed) || reply.outcome == Outcome::Expired && self.killed {
            return None;
        }
        let known = self.by_id.entry(id.to_owned()).or_default();
        if known.iter().any(|(outcome, _)| *outcome == reply.outcome) {
            return None;
        }
        let code = reply.error.as_ref().map_or("", |error| error.code.as_str());
        known.push((reply.outcome, format!("{code} by {who}@{at}")));
        (known.len() > 1).then(|| format!("I3: {id} got {known:?}"))
    }
}
