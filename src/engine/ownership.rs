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

    /// Whether this instance is an agent's owner by the last account.
    pub(super) fn owns(&self, agent: &AgentId) -> bool {
        let session = self.sessions.get(agent);
        session.is_some_and(|session| session.record.version.owner == self.cfg.instance)
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

    /// Active-active: the agents of a lost peer are ours (the first of the living, by priority
    /// and id, takes them).
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
        self.epoch += 1;
        let epoch = self.epoch;
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
        let agents = self.owned_by(lost);
        self.take_over(agents, epoch, "peer-lost");
    }

    /// An own agent in a new epoch: nothing else changes.
    fn own_again(&mut self, agent: &AgentId, epoch: u64) {
        let me = self.cfg.instance.clone();
        let rank = u16::from(self.cfg.priority) + Version::LOCAL;
        self.sessions.own(agent, &me, epoch, rank);
    }

    /// Active-active: this instance serves now. Its own agents, as they were kept on disk, have
    /// no subscription yet; those of an owner that is not there have none anywhere.
    pub(super) fn take_own(&mut self, epoch: u64, reason: &'static str) {
        let me = self.cfg.instance.clone();
        let mine = self.owned_by(&me);
        self.take(mine, reason);
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
        if stray {
            self.epoch += 1;
            self.take_over(vec![agent.clone()], self.epoch, "claimed");
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
