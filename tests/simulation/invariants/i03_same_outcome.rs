//! I3: one command id never gets two different definite outcomes; `IN_DOUBT` may stand beside
//! one. A refusal for now, with advice when to try again, is no outcome.
//!
//! Not judged: a failure told on one side of a cut (or that the agent is not known there, also beside
//! a frozen instance that has begun the command), and what the other side told meanwhile; likewise
//! that a copy of a command that may be repeated expired there, while the other side carried out a
//! resend. Two that cannot talk cannot agree. Nor a failure (or expiry, likewise)
//! that was told by an instance that ended before any other was there again.

use std::collections::BTreeMap;

use tandem_model::catalogue::{self, Repeat};
use tandem_wire::reply::{Outcome, Reply};

use crate::plan::{Fault, Kind, Plan};

/// Definite outcomes by command id, with who told them first and when.
#[derive(Debug, Default)]
pub struct Told {
    by_id: BTreeMap<String, Vec<(Outcome, String)>>,
    cut: bool,
    frozen: bool,
    /// Each instance ends at some time.
    all_end: bool,
}

impl Told {
    pub fn new(plan: &Plan) -> Self {
        let ends = |fault: &Fault, which: usize| match fault.kind {
            Kind::Crash { node } | Kind::CrashAt { node, .. } | Kind::Shutdown { node } => {
                node == which
            }
            Kind::CrashAll => true,
            _ => false,
        };
        Self {
            by_id: BTreeMap::new(),
            cut: plan.cuts(),
            frozen: plan
                .faults
                .iter()
                .any(|f| matches!(f.kind, Kind::Pause { .. })),
            all_end: (0..plan.nodes).all(|node| plan.faults.iter().any(|f| ends(f, node))),
        }
    }

    pub fn told(&mut self, id: &str, reply: &Reply, who: &str, at: u64) -> Option<String> {
        if reply.outcome == Outcome::InDoubt || reply.retry_after_ms.is_some() {
            return None;
        }
        let unknown = reply.error.as_ref().is_some_and(|e| e.code == "RE_LOGIN");
        let failed = reply.outcome == Outcome::Failed;
        let lapsed = reply.outcome == Outcome::Expired && may_be_repeated(reply);
        let apart = self.cut && (failed || unknown || lapsed) || self.frozen && unknown;
        if apart || self.all_end && (failed || lapsed) {
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

fn may_be_repeated(reply: &Reply) -> bool {
    catalogue::find(&reply.command).is_some_and(|spec| spec.repeat == Repeat::Safe)
}
