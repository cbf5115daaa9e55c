//! I8: the clients' password appears in nothing that is logged or told. Looked for in one run of
//! eight, as it means to write everything out.

use std::fmt::Debug;

use tandem_engine::Event;
use tandem_wire::event::ClientEvent;
use tandem_wire::reply::Reply;

use crate::plan::Plan;

/// The password of every agent.
pub const PLANTED_SECRET: &str = "planted-Passw0rd";

/// Whether it is looked for.
#[derive(Debug, Default)]
pub struct Secrets {
    wanted: bool,
}

impl Secrets {
    pub fn new(plan: &Plan) -> Self {
        let wanted = plan.seed.is_multiple_of(8);
        Self { wanted }
    }

    pub fn reply(&self, reply: &Reply) -> Option<String> {
        self.look("a reply", reply)
    }

    pub fn event(&self, event: &ClientEvent) -> Option<String> {
        self.look("an event", event)
    }

    pub fn happened(&self, event: &Event) -> Option<String> {
        self.look("a log line", event)
    }

    fn look(&self, place: &str, thing: &impl Debug) -> Option<String> {
        let found = self.wanted && format!("{thing:?}").contains(PLANTED_SECRET);
        found.then(|| format!("I8: the password is in {place}"))
    }
}
