//! I15: what a client is told of its agent's state ends with what the platform has, whatever older
//! owners still say; and an instance's epoch for an agent never falls.

use std::collections::BTreeMap;

use tandem_wire::event::ClientEvent;

use crate::world::World;

/// States told.
#[derive(Debug, Default)]
pub struct Events {
    /// Newest epoch by instance, its start and agent.
    epochs: BTreeMap<(String, u64, String), u64>,
    /// By agent: the newest epoch, and the state told last in it.
    last: BTreeMap<String, (u64, String)>,
}

impl Events {
    pub fn published(
        &mut self,
        (who, boot): (&str, u64),
        event: &ClientEvent,
        epoch: u64,
        at: u64,
    ) -> Option<String> {
        let ClientEvent::State { agent, user } = event else {
            return None;
        };
        let agent = agent.to_string();
        let told = self.last.entry(agent.clone()).or_default();
        if epoch >= told.0 {
            *told = (epoch, user.state.clone());
        }
        let newest = self
            .epochs
            .entry((who.to_owned(), boot, agent.clone()))
            .or_default();
        let before = std::mem::replace(newest, epoch.max(*newest));
        let falls = epoch < before;
        falls
            .then(|| format!("I15: {who}@{at} tells agent {agent} in epoch {epoch} after {before}"))
    }

    pub fn judge(&self, world: &World) -> Vec<String> {
        if !world.plan.extra.states || world.plan.may_lose_an_epoch() {
            return Vec::new();
        }
        let agents = world.clients.iter().map(|client| client.agent.as_str());
        let wrong = agents.filter_map(|agent| {
            let (state, told) = (world.platform.state(agent), self.last.get(agent));
            let same = told.is_some_and(|(_, told)| told == state);
            (!same).then(|| format!("I15: agent {agent} is {state} and was told {told:?} last"))
        });
        wrong.collect()
    }
}

#[test]
fn an_epoch_that_falls_is_found() {
    let state = ClientEvent::State {
        agent: tandem_model::AgentId::new("1001").unwrap(),
        user: Box::default(),
    };
    let mut events = Events::default();
    assert!(events.published(("gc-1", 1), &state, 5, 0).is_none());
    assert!(events.published(("gc-2", 1), &state, 4, 0).is_none());
    assert!(events.published(("gc-1", 2), &state, 4, 0).is_none());
    assert!(events.published(("gc-1", 1), &state, 4, 0).is_some());
}
