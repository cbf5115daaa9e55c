//! `AgentStates`: at an interval the states of all agents, each published by its owner.

use std::collections::VecDeque;

use crate::model::{AgentId, Cause, Destination};
use crate::wire::event::ClientEvent;

use crate::state::timer::Timer;
use crate::{Engine, limits};

/// Whom the snapshots are for.
pub(crate) const AGENT_STATES: &str = "AgentStates";

/// A publication under way.
#[derive(Debug, Default)]
pub(crate) struct Round {
    left: VecDeque<AgentId>,
    /// When the next round begins.
    next: u64,
}

impl Engine {
    /// Publishes the next part of the agents' states: a whole round at once would hold up what
    /// clients wait for.
    pub(crate) fn publish_states(&mut self) {
        let now = self.now.mono;
        if self.agents.states.left.is_empty() {
            self.agents.states.next = now + self.cfg.agents.states_interval;
            if self.may_publish_states() {
                self.agents.states.left = self.own_signed_in();
            }
        }
        if let Ok(to) = Destination::new(AGENT_STATES) {
            for _ in 0..limits::STATES_BATCH {
                let Some(agent) = self.agents.states.left.pop_front() else {
                    break;
                };
                self.publish_state(&to, &agent);
            }
        }
        let due = if self.agents.states.left.is_empty() {
            self.agents.states.next
        } else {
            now + limits::STATES_PAUSE_MS
        };
        self.timers.set(Timer::States, due.max(now + 1));
    }

    /// A snapshot is for the moment: without a broker or downstream there is none to be had, and
    /// it never adds to a backlog.
    fn may_publish_states(&self) -> bool {
        self.links.active().is_some()
            && self.route.available()
            && !self.placement().all_paused()
            && self.outbox.len() < limits::STATES_BACKLOG
    }

    fn own_signed_in(&self) -> VecDeque<AgentId> {
        self.sessions
            .iter()
            .filter(|session| {
                session.live()
                    && session.owned_by(&self.cfg.instance)
                    && session.record.user.as_ref().is_some_and(|u| u.signed_in())
            })
            .map(|session| session.record.agent.clone())
            .collect()
    }

    fn publish_state(&mut self, to: &Destination, agent: &AgentId) {
        let Some(session) = self.sessions.get(agent) else {
            return;
        };
        let owned = session.owned_by(&self.cfg.instance);
        let (Some(user), true) = (session.record.user.clone(), owned) else {
            return;
        };
        let epoch = session.record.version.epoch;
        let event = ClientEvent::State {
            agent: agent.clone(),
            user,
        };
        self.tell(to, event, Cause::default(), epoch, None);
    }
}
