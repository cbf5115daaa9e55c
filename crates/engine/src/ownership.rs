//! Who owns which agent, and so carries out its commands.

use std::cmp::Reverse;

use crate::model::{AgentId, InstanceId};
use crate::wire::command::{Addressed, ClientCommand};

use super::config::Mode;
use super::members::Liveness;
use super::peer::{Role, Version};
use super::{Engine, limits};

/// How long an agent stays where it came to, milliseconds: a client that speaks at two brokers
/// does not make its agent wander.
pub(super) const STILL_MS: u64 = 5_000;

/// How long the last word of a client at the own broker counts, milliseconds.
const LOCAL_MS: u64 = 30_000;

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

    // ---- taking agents ------------------------------------------------------------------------

    /// Makes an agent this instance's own, in `epoch`.
    pub(super) fn own(&mut self, agent: &AgentId, epoch: u64) {
        let heard = self.sessions.get(agent).and_then(|s| s.heard_at);
        let local = self.cfg.mode == Mode::ActiveActive
            && heard.is_some_and(|at| self.now.mono.saturating_sub(at) <= LOCAL_MS);
        let rank = u16::from(self.cfg.priority) + if local { Version::LOCAL } else { 0 };
        let me = self.cfg.instance.clone();
        self.sessions.own(agent, &me, epoch, rank);
        if let Some(session) = self.sessions.get_mut(agent) {
            session.linger_until = None;
            session.moving = None;
            session.still_until = self.now.mono + STILL_MS;
        }
    }

    /// Active-active: takes the agents of all peers that are gone, or have left an agent's group.
    pub(super) fn take_from_absent(&mut self) {
        if self.cfg.mode != Mode::ActiveActive {
            return;
        }
        let peers: Vec<InstanceId> = self.members.iter().map(|(id, _)| id.clone()).collect();
        for peer in peers {
            self.take_from(&peer, "absent");
        }
    }

    /// Active-active: the agents of a lost peer, and those whose group is stopped on it, are ours
    /// (the first of the living, by priority and id, takes them).
    pub(super) fn take_from(&mut self, lost: &InstanceId, reason: &'static str) {
        if self.cfg.mode != Mode::ActiveActive || !self.leads_any() {
            return;
        }
        // Silence may be a cut link, and the other side does the same now. Who hears the client
        // at its own broker says so in the same epoch, and keeps the agent when they meet again.
        let cut = reason == "silent";
        if !self.first_of_the_living() {
            return;
        }
        let mut agents = self.owned_by(lost);
        // Where failover is off, they wait for their clients.
        agents.retain(|agent| !self.serves_agents(lost, agent) && !self.must_connect(agent));
        if agents.is_empty() && !cut {
            return;
        }
        let Some(epoch) = self.next_epoch() else {
            return;
        };
        if cut {
            for agent in self.owned_by(&self.cfg.instance) {
                let local = self
                    .sessions
                    .get(&agent)
                    .is_some_and(|session| session.record.version.rank >= Version::LOCAL);
                if local {
                    self.own_again(&agent, epoch);
                }
            }
        }
        self.take_over(agents, epoch, "peer-lost");
    }

    /// An own agent in a new epoch: nothing else changes.
    fn own_again(&mut self, agent: &AgentId, epoch: u64) {
        let me = self.cfg.instance.clone();
        let rank = u16::from(self.cfg.priority) + Version::LOCAL;
        self.sessions.own(agent, &me, epoch, rank);
    }

    /// Active-active: this instance serves now. Its own agents, as they were kept on disk, have
    /// no subscription yet, and its count of versions was not kept: hence a new epoch. Those of
    /// an owner that is not there have no subscription anywhere.
    pub(super) fn take_own(&mut self, epoch: u64, reason: &'static str) {
        let me = self.cfg.instance.clone();
        let mine = self.owned_by(&me);
        self.take_over(mine, epoch, reason);
        if self.first_of_the_living() {
            let stray = |owner: &InstanceId| {
                *owner != me
                    && !self
                        .members
                        .get(owner)
                        .is_some_and(|peer| peer.liveness.present())
            };
            let strays = self
                .sessions
                .iter()
                .filter(|session| session.live() && stray(&session.record.version.owner))
                .map(|session| session.record.agent.clone())
                .filter(|agent| !self.must_connect(agent))
                .collect();
            self.take_over(strays, epoch, reason);
        }
    }

    /// Active-active: a command of an agent whose owner is gone is about to run here.
    pub(super) fn adopt(&mut self, command: &ClientCommand) {
        let Addressed::Agent(agent) = &command.addressee else {
            return;
        };
        let stray = self.cfg.mode == Mode::ActiveActive
            && self
                .sessions
                .get(agent)
                .is_some_and(|session| session.record.version.owner != self.cfg.instance);
        if stray
            && !self.must_connect(agent)
            && let Some(epoch) = self.next_epoch()
        {
            self.take_over(vec![agent.clone()], epoch, "claimed");
        }
    }

    /// A peer is heard again that was silent: what it had of our agents is told by snapshots, and
    /// what happened meanwhile is read anew.
    pub(super) fn healed(&mut self) {
        if self.cfg.mode == Mode::ActiveActive && self.leads_any() {
            let mine = self.owned_by(&self.cfg.instance);
            self.take(mine, "healed");
        }
    }

    fn owned_by(&self, owner: &InstanceId) -> Vec<AgentId> {
        self.sessions
            .iter()
            .filter(|session| session.live() && session.record.version.owner == *owner)
            .map(|session| session.record.agent.clone())
            .collect()
    }

    /// Of those that may take agents, the one that does: the highest priority, then the smallest
    /// id. Who does not serve takes none.
    fn first_of_the_living(&self) -> bool {
        let Some(name) = self.groups.first().map(|group| &group.name) else {
            return false;
        };
        let me = (self.cfg.priority, Reverse(&self.cfg.instance));
        self.members
            .present()
            .filter(|(_, peer)| peer.group(name).is_some_and(|group| group.role.leads()))
            .all(|(id, peer)| (peer.group(name).map_or(0, |g| g.priority), Reverse(id)) < me)
    }
}
