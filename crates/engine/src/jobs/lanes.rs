//! Lanes: one an agent (or destination). Its commands run one after another, lanes in parallel.
//! A lane goes on when a command comes into it, when the one that ran leaves it
//! ([`Engine::leave_lane`]), and when what had closed it is over.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::api::ids::JobId;
use crate::model::AgentId;
use crate::wire::command::{Addressed, ClientCommand};
use crate::{Engine, limits};

use super::Evidence;

/// A lane's key: the address behind `#`, agents and destinations apart.
pub(crate) type LaneKey = (bool, Arc<str>);

pub(crate) fn agent_lane(agent: &AgentId) -> LaneKey {
    (true, agent.as_str().into())
}

fn lane_key(command: &ClientCommand) -> LaneKey {
    let agent = matches!(command.addressee, Addressed::Agent(_));
    (agent, command.addressee.as_str().into())
}

/// Never both without one that runs and without any that waits.
#[derive(Debug, Default)]
struct Lane {
    running: Option<JobId>,
    queue: VecDeque<JobId>,
}

/// All lanes that are not empty.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    map: BTreeMap<LaneKey, Lane>,
    /// Those that are being gone through: one or two.
    going: Vec<LaneKey>,
}

impl Lanes {
    fn keys(&self) -> Vec<LaneKey> {
        self.map.keys().cloned().collect()
    }

    /// At the end of its lane. `false`: that one is full, and the job not one that `must` go in.
    fn push(&mut self, id: JobId, key: &LaneKey, must: bool) -> bool {
        let lane = self.map.entry(key.clone()).or_default();
        let room = must || lane.queue.len() < limits::LANE_DEPTH;
        if room {
            lane.queue.push_back(id);
        }
        room
    }

    /// Starts the next one of a lane in which none runs.
    fn start_next(&mut self, key: &LaneKey) -> Option<JobId> {
        let lane = self.map.get_mut(key)?;
        if lane.running.is_some() {
            return None;
        }
        lane.running = lane.queue.pop_front();
        if lane.running.is_none() {
            self.map.remove(key);
            return None;
        }
        lane.running
    }

    /// Takes a job out of its lane; returns whether it was running there.
    fn take_out(&mut self, id: JobId, key: &LaneKey) -> bool {
        let Some(lane) = self.map.get_mut(key) else {
            return false;
        };
        let was_running = lane.running == Some(id);
        if was_running {
            lane.running = None;
        } else {
            lane.queue.retain(|queued| *queued != id);
        }
        if lane.running.is_none() && lane.queue.is_empty() {
            self.map.remove(key);
        }
        was_running
    }

    /// The job that runs in a lane.
    pub(crate) fn running(&self, key: &LaneKey) -> Option<JobId> {
        self.map.get(key)?.running
    }

    /// The job that runs in a lane, or the next one.
    pub(crate) fn head(&self, key: &LaneKey) -> Option<JobId> {
        let lane = self.map.get(key)?;
        lane.running.or(lane.queue.front().copied())
    }

    /// Whether an agent's lane has any.
    pub(crate) fn has(&self, agent: &AgentId) -> bool {
        self.map.contains_key(&agent_lane(agent))
    }

    /// Lanes in which one runs.
    pub(crate) fn busy(&self) -> impl Iterator<Item = &LaneKey> {
        let busy = self.map.iter().filter(|(_, lane)| lane.running.is_some());
        busy.map(|(key, _)| key)
    }

    /// The jobs that wait for their turn, by lane.
    pub(crate) fn queued(&self) -> impl Iterator<Item = (&LaneKey, JobId)> {
        self.map
            .iter()
            .flat_map(|(key, lane)| lane.queue.iter().map(move |id| (key, *id)))
    }
}

impl Engine {
    /// Its agent is ours: into its lane.
    pub(crate) fn enqueue(&mut self, id: JobId, command: &ClientCommand) {
        let key = lane_key(command);
        let must = self.may_have_run(id);
        if !self.jobs.lanes.push(id, &key, must) {
            self.overloaded(id);
            return;
        }
        if self.step(id, Evidence::Ours).is_none() {
            self.jobs.lanes.take_out(id, &key);
        }
        self.advance_lane(&key);
    }

    /// A job leaves its lane, which goes on.
    pub(crate) fn leave_lane(&mut self, id: JobId, command: &ClientCommand) {
        self.leave_lane_with(id, command, |_| {});
    }

    /// The same, with what is to be done with the job before the next one starts.
    pub(crate) fn leave_lane_with(
        &mut self,
        id: JobId,
        command: &ClientCommand,
        first: impl FnOnce(&mut Self),
    ) {
        let key = lane_key(command);
        let was_running = self.jobs.lanes.take_out(id, &key);
        first(self);
        if was_running {
            self.advance_lane(&key);
        }
    }

    /// What had closed an agent's lane is over.
    pub(crate) fn open_lane(&mut self, agent: &AgentId) {
        self.advance_lane(&agent_lane(agent));
    }

    /// All lanes may go on: service is back, a role was taken, a pause is over.
    pub(crate) fn advance_all(&mut self) {
        for key in self.jobs.lanes.keys() {
            self.advance_lane(&key);
        }
        self.unpark();
    }

    /// Starts the lane's next command, if it may, and where that one finishes at once the one after
    /// it. A command that leaves the lane meanwhile needs nothing more: else as many calls would
    /// stand in one another as commands wait.
    fn advance_lane(&mut self, key: &LaneKey) {
        if self.jobs.lanes.going.contains(key) {
            return;
        }
        self.jobs.lanes.going.push(key.clone());
        self.go_through(key);
        self.jobs.lanes.going.pop();
    }

    fn go_through(&mut self, key: &LaneKey) {
        loop {
            let closed = key.0 && (!self.route.available() || self.yields(&key.1));
            if closed || self.placement().paused(key) {
                return;
            }
            let Some(id) = self.jobs.lanes.start_next(key) else {
                return;
            };
            self.start_job(id);
            if self.jobs.get(id).is_none() {
                // Nothing ever leaves the lane for a job that is not there.
                self.jobs.lanes.take_out(id, key);
            } else if self.jobs.lanes.running(key) == Some(id) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
