//! I11: nobody is taken for lost, and no role changes, for a pause below 1.5 s; still less
//! without any.

use tandem_engine::Event;

use crate::plan::Plan;

/// What is judged, and from when on.
#[derive(Debug, Default)]
pub struct Pauses {
    from: Option<u64>,
}

/// By then roles are given.
const STARTED_MS: u64 = 4_000;

impl Pauses {
    pub fn new(plan: &Plan) -> Self {
        let from = plan.only_short_pauses().then_some(STARTED_MS);
        Self { from }
    }

    pub fn happened(&self, who: &str, event: &Event, at: u64) -> Option<String> {
        let wrong = matches!(event, Event::PeerLost { .. } | Event::RoleChanged { .. });
        let judged = wrong && self.from.is_some_and(|from| at >= from);
        judged.then(|| format!("I11: {event:?} at {who}@{at}"))
    }
}
