//! Requests that are not sent while it is not certain that this instance still serves: those that
//! come up during the doubt after an own pause, and those that the shell held back because the
//! process had been away since they were decided on.

use crate::Engine;
use crate::api::ids::{CallId, JobId};
use crate::jobs::{Origin, State};
use crate::peer::{ForwardRefusal, PeerMessage};

impl Engine {
    /// The shell did not send it: as if it had never been decided on.
    pub(crate) fn withheld(&mut self, id: JobId, node: usize) {
        if let Some(work) = self.jobs.work_mut(id) {
            work.not_sent();
        }
        self.park(id, node);
        self.unpark();
    }

    /// Keeps a request back until it is known who serves.
    pub(crate) fn park(&mut self, id: JobId, node: usize) {
        if let Some(work) = self.jobs.work_mut(id) {
            work.call = CallId(0);
            self.jobs.parked.push((id, node));
        }
    }

    /// The doubt is over: what is still ours goes on, the rest is another's.
    pub(crate) fn unpark(&mut self) {
        if self.cluster.pause.is_open() {
            return;
        }
        for (id, node) in std::mem::take(&mut self.jobs.parked) {
            let Some((command, _)) = self.job_command(id) else {
                continue;
            };
            let state = self.jobs.state(id);
            let running = matches!(state, Some(State::Running(work)) if work.call == CallId(0));
            if !running {
                continue;
            }
            if self.placement().serves(&command) {
                if !self.reconsider(id) {
                    self.issue(id, node);
                }
                continue;
            }
            self.take_back_intent(id);
            self.leave_lane_with(id, &command, |engine| engine.hand_back(id));
        }
    }

    /// A command that was about to run is another's now.
    fn hand_back(&mut self, id: JobId) {
        match self.jobs.get(id).map(|job| job.origin.clone()) {
            Some(Origin::Delivery(_)) => self.hold(id),
            Some(Origin::Forwarded { peer, id: number }) => {
                let why = ForwardRefusal::NotOwner;
                self.give_up(id);
                self.say(Some(&peer), PeerMessage::ForwardRefused { id: number, why });
            }
            Some(Origin::Orphan) | None => self.give_up(id),
        }
    }
}
