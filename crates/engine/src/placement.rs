//! Whose agent is it, which group does it belong to, and may it run here: questions on borrowed
//! state, which change nothing.
//!
//! An agent belongs to the group whose queue its Connect came through; its owner in
//! active-passive is the leader of that group, whichever queue a command of it comes from. In
//! active-active its owner is whom its session names, while that one is there.

use std::cmp::Reverse;

use crate::Engine;
use crate::api::config::{Config, Mode};
use crate::api::ids::{JobId, Now};
use crate::api::limits;
use crate::catalogue::Step;
use crate::cluster::members::{Liveness, Members};
use crate::jobs::{Jobs, LaneKey};
use crate::leadership::groups::Group;
use crate::model::{AgentId, InstanceId};
use crate::peer::{Role, SessionRecord, Wish};
use crate::state::session::Sessions;
use crate::wire::command::{Addressed, ClientCommand};

/// What the questions are asked of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement<'a> {
    pub(crate) cfg: &'a Config,
    pub(crate) now: Now,
    pub(crate) groups: &'a [Group],
    pub(crate) members: &'a Members,
    pub(crate) sessions: &'a Sessions,
    pub(crate) jobs: &'a Jobs,
    /// This process was away, and does not know yet what happened meanwhile.
    pub(crate) fenced: bool,
}

impl Engine {
    /// Questions about the present state.
    pub(crate) fn placement(&self) -> Placement<'_> {
        Placement {
            cfg: &self.cfg,
            now: self.now,
            groups: &self.groups,
            members: &self.members,
            sessions: &self.sessions,
            jobs: &self.jobs,
            fenced: self.cluster.pause.is_open(),
        }
    }
}

impl<'a> Placement<'a> {
    fn me(&self) -> &'a InstanceId {
        &self.cfg.instance
    }

    // ---- whose agent --------------------------------------------------------------------------

    /// Whether an agent is this instance's own.
    pub(crate) fn owns(&self, agent: &AgentId) -> bool {
        self.is_owned_by(agent, self.me())
    }

    /// Whether a living agent is another instance's, by its session.
    pub(crate) fn is_anothers(&self, agent: &AgentId) -> bool {
        let session = self.sessions.get(agent);
        session.is_some_and(|session| !session.owned_by(self.me()))
    }

    /// Whether an agent is an instance's, by its session.
    pub(crate) fn is_owned_by(&self, agent: &AgentId, owner: &InstanceId) -> bool {
        let session = self.sessions.get(agent);
        session.is_some_and(|session| session.owned_by(owner))
    }

    /// Whether this instance carries out this command now.
    pub(crate) fn serves(&self, command: &ClientCommand) -> bool {
        match &command.addressee {
            // Destinations are replicated: any instance answers for them.
            Addressed::Destination(_) => true,
            Addressed::Agent(_) => match self.owner_for(command) {
                Some(owner) => owner == *self.me(),
                None => false,
            },
        }
    }

    /// The owner of a command's agent: the instance that carries it out. `None` while nobody is
    /// known to lead.
    pub(crate) fn owner_for(&self, command: &ClientCommand) -> Option<InstanceId> {
        match (&command.addressee, self.cfg.mode) {
            (Addressed::Agent(agent), Mode::ActiveActive) => self.owner_of(agent),
            _ => self.passive_owner(command),
        }
    }

    /// Active-active: the owner of an agent.
    pub(crate) fn owner_of(&self, agent: &AgentId) -> Option<InstanceId> {
        let me = self.me();
        let owner = self
            .sessions
            .get(agent)
            .map_or(me, |session| &session.record.version.owner);
        if self.serves_agents(owner, agent) {
            Some(owner.clone())
        } else if self.leads_for_or_nobody_knows(agent) {
            Some(me.clone())
        } else {
            // Whoever does: it takes the agent.
            let index = self.group_of_agent(agent).unwrap_or(0);
            self.leader_of(&self.groups.get(index)?.name)
        }
    }

    /// Whether an instance may be serving this agent: it is there, and has not left the agent's
    /// group to others, for good or for as long as it has no downstream.
    pub(crate) fn serves_agents(&self, owner: &InstanceId, agent: &AgentId) -> bool {
        let index = self.group_of_agent(agent).unwrap_or(0);
        let Some(group) = self.groups.get(index) else {
            return false;
        };
        if owner == self.me() {
            return !stands_by(group.role);
        }
        self.members.get(owner).is_some_and(|peer| {
            let role = peer.group(&group.name).map(|state| state.role);
            peer.liveness.present() && !role.is_some_and(stands_by)
        })
    }

    /// Active-active: whether a known peer is gone, or has left a group to others.
    pub(crate) fn someone_stands_by(&self) -> bool {
        self.members.iter().any(|(_, peer)| {
            let mut groups = peer.heartbeat.groups.iter();
            !peer.liveness.present() || groups.any(|state| stands_by(state.role))
        })
    }

    /// The owner to hand a held command to, once there is evidence that it lives.
    pub(crate) fn owner_to_ask(
        &self,
        command: &ClientCommand,
        held_since: u64,
    ) -> Option<InstanceId> {
        let Addressed::Agent(_) = &command.addressee else {
            return None;
        };
        let owner = self
            .owner_for(command)
            .filter(|owner| *owner != *self.me())?;
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

    /// The living agents of an instance.
    pub(crate) fn owned_by(&self, owner: &InstanceId) -> Vec<AgentId> {
        self.sessions
            .iter()
            .filter(|session| session.live() && session.owned_by(owner))
            .map(|session| session.record.agent.clone())
            .collect()
    }

    /// Active-active: whether this instance is the one that takes an agent whose owner does not
    /// serve it. Of an agent whose group is not known here, that is said by the first group.
    pub(crate) fn takes(&self, agent: &AgentId) -> bool {
        match self.group_of_agent(agent) {
            Some(index) => self.leads(index) && self.first_of_the_living(index),
            None => self.leads_any() && self.first_of_the_living(0),
        }
    }

    /// Whether it is that for the agents of any group.
    pub(crate) fn takes_any(&self) -> bool {
        let mut groups = 0..self.groups.len();
        groups.any(|index| self.leads(index) && self.first_of_the_living(index))
    }

    fn leads(&self, index: usize) -> bool {
        let group = self.groups.get(index);
        group.is_some_and(|group| group.role.leads())
    }

    /// Whether an agent's commands are carried out here, as far as its group goes.
    pub(crate) fn leads_for_or_nobody_knows(&self, agent: &AgentId) -> bool {
        match self.group_of_agent(agent) {
            Some(index) => self.leads(index),
            None => self.leads_any(),
        }
    }

    /// Of those that serve a group and so may take its agents, the one that does: the highest
    /// priority, then the smallest id.
    fn first_of_the_living(&self, index: usize) -> bool {
        let Some(name) = self.groups.get(index).map(|group| &group.name) else {
            return false;
        };
        let me = (self.cfg.priority_of(index), Reverse(self.me()));
        self.members
            .present()
            .filter(|(_, peer)| peer.group(name).is_some_and(|group| group.role.leads()))
            .all(|(id, peer)| (peer.group(name).map_or(0, |g| g.priority), Reverse(id)) < me)
    }

    /// Whether this instance leads an agent's group.
    pub(crate) fn leads_for(&self, agent: &AgentId) -> bool {
        let group = self.group_of_agent(agent);
        group.is_some_and(|index| self.leads(index))
    }

    /// Whether this instance leads any group.
    pub(crate) fn leads_any(&self) -> bool {
        self.groups.iter().any(|group| group.role.leads())
    }

    // ---- which group --------------------------------------------------------------------------

    /// As a session record names a group: the first one has no name there.
    pub(crate) fn record_group(&self, index: usize) -> String {
        match index {
            0 => String::new(),
            _ => self
                .groups
                .get(index)
                .map_or_else(String::new, |g| g.name.clone()),
        }
    }

    /// Index of the group that a name stands for; `None`: only peers have it.
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        if name.is_empty() {
            return Some(0);
        }
        self.groups.iter().position(|group| group.name == name)
    }

    /// Index of the group of an agent that a session is known of.
    pub(crate) fn group_of_agent(&self, agent: &AgentId) -> Option<usize> {
        self.index_of(&self.sessions.get(agent)?.record.group)
    }

    /// Whether a session belongs to a group of ours.
    pub(crate) fn belongs(&self, record: &SessionRecord, index: usize) -> bool {
        self.index_of(&record.group) == Some(index)
    }

    /// The living agents of a group.
    pub(crate) fn agents_of(&self, index: usize) -> Vec<AgentId> {
        self.sessions
            .iter()
            .filter(|session| session.live() && self.belongs(&session.record, index))
            .map(|session| session.record.agent.clone())
            .collect()
    }

    /// Index of the group that decides who carries out a command: its agent's; for a Connect, and
    /// for agents of whom nothing is known, the one whose queue it came through.
    pub(crate) fn group_of(&self, command: &ClientCommand) -> usize {
        match &command.addressee {
            Addressed::Agent(agent) if !connects(command) => {
                self.group_of_agent(agent).unwrap_or(command.group)
            }
            _ => command.group,
        }
    }

    /// Active-passive: the leader of a command's group.
    pub(crate) fn passive_owner(&self, command: &ClientCommand) -> Option<InstanceId> {
        let index = self.group_of(command);
        let me = self.me();
        if let Some(peer) = self.foreign_owner(command) {
            return Some(peer);
        }
        let group = self.groups.get(index)?;
        if group.role.leads() || group.role == Role::Draining {
            if !self.failover_off(index) {
                return Some(me.clone());
            }
            // Several may serve then: each has the agents whose clients came to it.
            return Some(self.acquired_by(command).unwrap_or_else(|| me.clone()));
        }
        self.leader_of(&group.name)
    }

    /// The leader of an agent's group that this instance does not have.
    fn foreign_owner(&self, command: &ClientCommand) -> Option<InstanceId> {
        let Addressed::Agent(agent) = &command.addressee else {
            return None;
        };
        if connects(command) {
            return None;
        }
        let name = &self.sessions.get(agent)?.record.group;
        match self.index_of(name) {
            Some(_) => None,
            None => self.leader_of(name),
        }
    }

    /// The owner of a command's agent, where it serves the agent's group.
    fn acquired_by(&self, command: &ClientCommand) -> Option<InstanceId> {
        let Addressed::Agent(agent) = &command.addressee else {
            return None;
        };
        let record = &self.sessions.get(agent)?.record;
        let owner = &record.version.owner;
        let name = &self.groups.get(self.index_of(&record.group)?)?.name;
        let peer = self.members.get(owner)?;
        peer.leads(name).then(|| owner.clone())
    }

    /// Whether agents of a group may have connected at another instance that serves it beside this
    /// one.
    pub(crate) fn others_connect(&self, index: usize) -> bool {
        let several = self.cfg.mode == Mode::ActiveActive || self.failover_off(index);
        let group = self.groups.get(index).filter(|_| several);
        group.is_some_and(|group| self.leader_of(&group.name).is_some())
    }

    /// The peer that leads a group.
    pub(crate) fn leader_of(&self, name: &str) -> Option<InstanceId> {
        let mut leaders = self.members.present().filter(|(_, peer)| peer.leads(name));
        leaders.next().map(|(id, _)| id.clone())
    }

    /// Whether an operator has stopped the group on another instance and nobody is to take its
    /// agents over.
    pub(crate) fn failover_off(&self, index: usize) -> bool {
        self.stopped_elsewhere(index).is_some()
    }

    /// On which other instance.
    pub(crate) fn stopped_elsewhere(&self, index: usize) -> Option<&'a InstanceId> {
        match &self.groups.get(index)?.choice.as_ref()?.wish {
            Wish::FailoverOff { stopped } if *stopped != *self.me() => Some(stopped),
            _ => None,
        }
    }

    /// Whether an agent's client must connect again before its commands are carried out here: the
    /// agent is another's, and nobody takes it over.
    pub(crate) fn must_connect(&self, agent: &AgentId) -> bool {
        let Some(session) = self.sessions.get(agent) else {
            return true;
        };
        if session.owned_by(self.me()) {
            return false;
        }
        match self.index_of(&session.record.group) {
            Some(index) => self.failover_off(index),
            None => true,
        }
    }

    // ---- may it run here ----------------------------------------------------------------------

    /// Whether no command of a lane may be started now.
    pub(crate) fn paused(&self, key: &LaneKey) -> bool {
        let group = self
            .group_of_lane(key)
            .and_then(|index| self.groups.get(index));
        match group {
            Some(group) => self.fenced || waits(group.role),
            None => self.all_paused(),
        }
    }

    /// Whether nothing at all may be started now.
    pub(crate) fn all_paused(&self) -> bool {
        self.fenced || self.groups.iter().all(|group| waits(group.role))
    }

    fn group_of_lane(&self, key: &LaneKey) -> Option<usize> {
        let job = self.jobs.lanes.head(key).filter(|_| key.0)?;
        let command = self.jobs.get(job)?.command.as_ref()?;
        Some(self.group_of(command))
    }

    /// The commands of a group's agents that have been started and are not finished.
    pub(crate) fn started_in(&self, index: usize) -> impl Iterator<Item = JobId> + use<'a> {
        let this = *self;
        let busy = this.jobs.lanes.busy().filter(|key| key.0);
        busy.filter(move |key| this.group_of_lane(key) == Some(index))
            .filter_map(move |key| this.jobs.lanes.running(key))
    }

    /// How many these are.
    pub(crate) fn running_in(&self, index: usize) -> usize {
        self.started_in(index).count()
    }

    /// Whether a subscription is had for a lead of the agent's group that is to come.
    pub(crate) fn prepares(&self, agent: &AgentId) -> bool {
        self.group_of_agent(agent)
            .is_some_and(|index| self.groups[index].preparing.is_some())
    }
}

/// Another one is to serve.
pub(crate) fn stands_by(role: Role) -> bool {
    matches!(role, Role::Follower | Role::Disabled)
}

fn waits(role: Role) -> bool {
    matches!(role, Role::Joining | Role::Draining)
}

/// Whether a command binds its agent anew.
fn connects(command: &ClientCommand) -> bool {
    matches!(command.spec.step, Step::Connect)
}
