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
            Addressed::Agent(_) => match self.owner_for(command) {
                Some(owner) => owner == self.cfg.instance,
                None => false,
            },
        }
    }

    /// The owner of a command's agent: the instance that carries it out. `None` while nobody is
    /// known to lead.
    pub(super) fn owner_for(&self, command: &ClientCommand) -> Option<InstanceId> {
        match (&command.addressee, self.cfg.mode) {
            (Addressed::Agent(agent), Mode::ActiveActive) => self.owner_of(agent),
            _ => self.passive_owner(command),
        }
    }

    /// Active-active: the owner of an agent.
    pub(super) fn owner_of(&self, agent: &AgentId) -> Option<InstanceId> {
        let me = &self.cfg.instance;
        let owner = self
            .sessions
            .get(agent)
            .map_or(me, |session| &session.record.version.owner);
        if self.serves_agents(owner, agent) {
            Some(owner.clone())
        } else if self.leads_any() {
            Some(me.clone())
        } else {
            None
        }
    }

    /// Whether an instance may be serving this agent: it is there, and the agent's group is not
    /// stopped on it.
    pub(super) fn serves_agents(&self, owner: &InstanceId, agent: &AgentId) -> bool {
        let index = self.group_of_agent(agent).unwrap_or(0);
        let Some(group) = self.groups.get(index) else {
            return false;
        };
        if *owner == self.cfg.instance {
            return group.role != Role::Disabled;
        }
        self.members.get(owner).is_some_and(|peer| {
            let role = peer.group(&group.name).map(|state| state.role);
            peer.liveness.present() && role != Some(Role::Disabled)
        })
    }

    /// The owner to hand a held command to, once there is evidence that it lives.
    pub(super) fn owner_to_ask(
        &self,
        command: &ClientCommand,
        held_since: u64,
    ) -> Option<InstanceId> {
        let Addressed::Agent(_) = &command.addressee else {
            return None;
        };
        let owner = self
            .owner_for(command)
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

    /// Active-active: takes the agents of all peers that are gone, or have left an agent's group.
    pub(super) fn take_from_absent(&mut self) {
        if self.cfg.mode != Mode::ActiveActive {
            return;
        }
        let peers: Vec<InstanceId> = self.members.iter().map(|(id, _)| id.clone()).collect();
        for peer in peers {
            self.take_from(&peer);
        }
    }

    /// Active-active: the agents of a lost peer, and those whose group is stopped on it, are ours
    /// (the first of the living, by priority and id, takes them).
    pub(super) fn take_from(&mut self, lost: &InstanceId) {
        if self.cfg.mode != Mode::ActiveActive || !self.leads_any() {
            return;
        }
        let serving = |peer: &&super::members::Peer| {
            let mut groups = peer.heartbeat.groups.iter();
            groups.any(|group| group.role != Role::Disabled)
        };
        let first = self
            .members
            .present()
            .filter(|(_, peer)| serving(peer))
            .all(|(id, peer)| {
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
            .filter(|agent| !self.serves_agents(lost, agent))
            .filter(|agent| {
                // Where failover is off, they wait for their clients.
                let index = self.group_of_agent(agent);
                index.is_some_and(|index| self.stopped_elsewhere(index) != Some(lost))
            })
            .collect();
        if !agents.is_empty()
            && let Some(epoch) = self.next_epoch()
        {
            self.take_over(agents, epoch, "peer-lost");
        }
    }
}
