//! Groups of command queues: which one an agent and a command belong to, and who leads it.
//!
//! An agent belongs to the group whose queue its Connect came through; its owner in
//! active-passive is the leader of that group, whichever queue a command of it comes from.

use crate::catalogue::Step;
use crate::model::{AgentId, InstanceId};
use crate::wire::command::{Addressed, ClientCommand};

use super::Engine;
use super::config::Mode;
use super::jobs::LaneKey;
use super::peer::{Role, SessionRecord, Wish};

impl Engine {
    /// As a session record names a group: the first one has no name there.
    pub(super) fn record_group(&self, index: usize) -> String {
        match index {
            0 => String::new(),
            _ => self
                .groups
                .get(index)
                .map_or_else(String::new, |g| g.name.clone()),
        }
    }

    /// Index of the group that a name stands for; `None`: only peers have it.
    pub(super) fn index_of(&self, name: &str) -> Option<usize> {
        if name.is_empty() {
            return Some(0);
        }
        self.groups.iter().position(|group| group.name == name)
    }

    /// Index of the group of an agent that a session is known of.
    pub(super) fn group_of_agent(&self, agent: &AgentId) -> Option<usize> {
        self.index_of(&self.sessions.get(agent)?.record.group)
    }

    /// Whether a session belongs to a group of ours.
    pub(super) fn belongs(&self, record: &SessionRecord, index: usize) -> bool {
        self.index_of(&record.group) == Some(index)
    }

    /// The living agents of a group.
    pub(super) fn agents_of(&self, index: usize) -> Vec<AgentId> {
        self.sessions
            .iter()
            .filter(|session| session.live() && self.belongs(&session.record, index))
            .map(|session| session.record.agent.clone())
            .collect()
    }

    /// Index of the group that decides who carries out a command: its agent's; for a Connect, and
    /// for agents of whom nothing is known, the one whose queue it came through.
    pub(super) fn group_of(&self, command: &ClientCommand) -> usize {
        match &command.addressee {
            Addressed::Agent(agent) if !connects(command) => {
                self.group_of_agent(agent).unwrap_or(command.group)
            }
            _ => command.group,
        }
    }

    /// Active-passive: the leader of a command's group.
    pub(super) fn passive_owner(&self, command: &ClientCommand) -> Option<InstanceId> {
        let index = self.group_of(command);
        let me = &self.cfg.instance;
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

    /// The peer that leads a group.
    pub(super) fn leader_of(&self, name: &str) -> Option<InstanceId> {
        let mut leaders = self.members.present().filter(|(_, peer)| peer.leads(name));
        leaders.next().map(|(id, _)| id.clone())
    }

    /// Whether an operator has stopped the group on another instance and nobody is to take its
    /// agents over.
    pub(super) fn failover_off(&self, index: usize) -> bool {
        self.stopped_elsewhere(index).is_some()
    }

    pub(super) fn stopped_elsewhere(&self, index: usize) -> Option<&InstanceId> {
        match &self.groups.get(index)?.choice.as_ref()?.wish {
            Wish::FailoverOff { stopped } if *stopped != self.cfg.instance => Some(stopped),
            _ => None,
        }
    }

    /// Whether an agent's client must connect again before its commands are carried out here: the
    /// agent is another's, and nobody takes it over.
    pub(super) fn must_connect(&self, agent: &AgentId) -> bool {
        let Some(session) = self.sessions.get(agent) else {
            return true;
        };
        if session.record.version.owner == self.cfg.instance {
            return false;
        }
        match self.index_of(&session.record.group) {
            Some(index) => self.failover_off(index),
            None => true,
        }
    }

    /// Whether no command of a lane may be started now.
    pub(super) fn paused(&self, key: &LaneKey) -> bool {
        let group = self
            .group_of_lane(key)
            .and_then(|index| self.groups.get(index));
        match group {
            Some(group) => self.fenced_until.is_some() || waits(group.role),
            None => self.all_paused(),
        }
    }

    /// Whether nothing at all may be started now.
    pub(super) fn all_paused(&self) -> bool {
        self.fenced_until.is_some() || self.groups.iter().all(|group| waits(group.role))
    }

    fn group_of_lane(&self, key: &LaneKey) -> Option<usize> {
        let lane = self.jobs.lanes.get(key).filter(|_| key.0)?;
        let job = lane.running.or(lane.queue.front().copied())?;
        let command = self.jobs.get(job)?.command.as_ref()?;
        Some(self.group_of(command))
    }

    /// How many commands of a group's agents have been started and not finished.
    pub(super) fn running_in(&self, index: usize) -> usize {
        let running = self
            .jobs
            .lanes
            .iter()
            .filter(|(key, lane)| key.0 && lane.running.is_some());
        running
            .filter(|(key, _)| self.group_of_lane(key) == Some(index))
            .count()
    }

    /// Whether a subscription is had for a lead of the agent's group that is to come.
    pub(super) fn prepares(&self, agent: &AgentId) -> bool {
        self.group_of_agent(agent)
            .is_some_and(|index| self.groups[index].preparing.is_some())
    }

    /// Active-passive: the leader owns every agent of its group, also those that a healed peer
    /// brings under its own name, whatever their epoch.
    pub(super) fn own_strays(&mut self) {
        if self.cfg.mode != Mode::ActivePassive {
            return;
        }
        for index in 0..self.groups.len() {
            let group = &self.groups[index];
            // Who is about to take the lead takes them all at once.
            let promised = match group.choice.as_ref().map(|choice| &choice.wish) {
                Some(Wish::Leader { instance }) => self
                    .members
                    .get(instance)
                    .is_some_and(|peer| peer.liveness.present()),
                _ => false,
            };
            let alone = group.role.leads() && self.leader_of(&group.name).is_none();
            if !alone || promised || self.failover_off(index) {
                continue;
            }
            let me = &self.cfg.instance;
            let strays: Vec<AgentId> = self
                .sessions
                .iter()
                .filter(|session| session.record.version.owner != *me && session.live())
                .filter(|session| self.belongs(&session.record, index))
                .map(|session| session.record.agent.clone())
                .collect();
            if !strays.is_empty()
                && let Some(epoch) = self.next_epoch()
            {
                self.take_over(strays, epoch, "healed");
            }
        }
    }
}

fn waits(role: Role) -> bool {
    matches!(role, Role::Joining | Role::Draining)
}

/// Whether a command binds its agent anew.
fn connects(command: &ClientCommand) -> bool {
    matches!(command.spec.step, Step::Connect)
}
