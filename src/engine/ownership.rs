//! Who owns which agent, and so carries out its commands.

use crate::model::{AgentId, InstanceId};
use crate::wire::command::{Addressed, ClientCommand};

use super::config::Mode;
use super::members::Liveness;
use super::peer::Role;
use super::{Engine, limits};

impl Engine {
    // ---- whose command ------------------------------------------------------------------------

    /// Whether this instance carries out this command now.
    pub(super) fn serves(&self, command: &ClientCommand) -> bool {
        match &command.addressee {
            // Destinations are replicated: any instance answers for them.
            Addressed::Destination(_) => true,
            Addressed::Agent(agent) => match self.owner_of(agent) {
                Some(owner) => owner == self.cfg.instance,
                None => false,
            },
        }
    }

    /// The owner of an agent: the instance that carries out its commands. `None` while nobody is
    /// known to lead.
    pub(super) fn owner_of(&self, agent: &AgentId) -> Option<InstanceId> {
        let me = &self.cfg.instance;
        match self.cfg.mode {
            Mode::ActivePassive => {
                if self.leads_any() || self.groups.iter().any(|g| g.role == Role::Draining) {
                    return Some(me.clone());
                }
                self.leader_of_first_group()
            }
            Mode::ActiveActive => {
                let owner = self
                    .sessions
                    .get(agent)
                    .map_or(me, |session| &session.record.version.owner);
                let present = owner == me
                    || self
                        .members
                        .get(owner)
                        .is_some_and(|peer| peer.liveness.present());
                if present {
                    Some(owner.clone())
                } else if self.leads_any() {
                    Some(me.clone())
                } else {
                    None
                }
            }
        }
    }

    pub(super) fn leader_of_first_group(&self) -> Option<InstanceId> {
        let name = &self.groups.first()?.name;
        let mut leaders = self.members.present().filter(|(_, peer)| peer.leads(name));
        leaders.next().map(|(id, _)| id.clone())
    }

    /// The owner to hand a held command to, once there is evidence that it lives.
    pub(super) fn owner_to_ask(
        &self,
        command: &ClientCommand,
        held_since: u64,
    ) -> Option<InstanceId> {
        let Addressed::Agent(agent) = &command.addressee else {
            return None;
        };
        let owner = self
            .owner_of(agent)
            .filter(|owner| *owner != self.cfg.instance)?;
        let peer = self.members.get(&owner)?;
        if peer.liveness != Liveness::Alive || peer.consumer_gone() {
            return None;
        }
        // A fresh count of its consumer is proof enough. Without a way to count, its heartbeats
        // after the command's arrival are.
        let fresh = peer.counted_within(self.now, limits::EVIDENCE_INTERVAL_MS + 50);
        let heard_since = peer.last_seen > held_since;
        (fresh || heard_since).then_some(owner)
    }

    /// Active-active: the agents of a lost peer are ours (the first of the living, by priority
    /// and id, takes them).
    pub(super) fn take_from(&mut self, lost: &InstanceId) {
        if self.cfg.mode != Mode::ActiveActive || !self.leads_any() {
            return;
        }
        let first = self.members.present().all(|(id, peer)| {
            let priority = peer.heartbeat.groups.first().map_or(0, |g| g.priority);
            (self.cfg.priority, std::cmp::Reverse(&self.cfg.instance))
                > (priority, std::cmp::Reverse(id))
        });
        if !first {
            return;
        }
        let agents: Vec<AgentId> = self
            .sessions
            .iter()
            .filter(|session| session.live() && session.record.version.owner == *lost)
            .map(|session| session.record.agent.clone())
            .collect();
        self.epoch += 1;
        self.take_over(agents, self.epoch, "peer-lost");
    }
}
