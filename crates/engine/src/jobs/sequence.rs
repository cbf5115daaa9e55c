//! A forced sign-out is two requests, and the platform takes the second one only once the first has
//! had its effect: it answers 202 before (platform reference, sections 1.1 and 3.4).

use crate::model::{Action, AgentId};

use crate::api::ids::JobId;
use crate::jobs::agent_lane;
use crate::jobs::work::Kind;
use crate::state::timer::Timer;
use crate::{Engine, limits};

/// What the platform answers where the state before does not allow the next one.
const INVALID_STATE: &str = "CF_INVALID_OBJECT_STATE";

/// Between two steps.
#[derive(Debug)]
pub(crate) struct Pause {
    /// The next step is tried again until then, monotonic milliseconds.
    until: u64,
    /// Nothing is under way.
    waiting: bool,
}

impl Engine {
    /// A step was accepted. Returns whether its effect is waited for before the next one.
    pub(crate) fn await_step(&mut self, id: JobId, done: &Action) -> bool {
        let now = self.now.mono;
        let Some(work) = self.jobs.work_mut(id) else {
            return false;
        };
        let (Kind::Sequence, Action::SetState { state, .. }) = (work.kind, done) else {
            return false;
        };
        let known = self.sessions.get(work.agent());
        let user = known.and_then(|session| session.record.user.as_deref());
        let there = user.is_some_and(|user| user.state == *state);
        work.pause = Some(Pause {
            until: now + limits::STEP_PATIENCE_MS,
            waiting: !there,
        });
        if !there {
            self.timers
                .set(Timer::Step(id), now + limits::STEP_EFFECT_MS);
        }
        !there
    }

    /// A step was refused. Returns whether it is tried again, as the one before may not have had
    /// its effect.
    pub(crate) fn step_again(&mut self, id: JobId, code: &str) -> bool {
        let now = self.now.mono;
        let Some(work) = self.jobs.work_mut(id) else {
            return false;
        };
        let Some(pause) = work.pause.as_mut().filter(|pause| now < pause.until) else {
            return false;
        };
        if code != INVALID_STATE {
            return false;
        }
        pause.waiting = true;
        work.begin_anew();
        self.timers
            .set(Timer::Step(id), now + limits::STEP_AGAIN_MS);
        true
    }

    /// The agent was seen in a state: what waited for it goes on.
    pub(crate) fn step_seen(&mut self, agent: &AgentId, state: &str) {
        if state != "NOT_READY" {
            return;
        }
        let lane = agent_lane(agent);
        let running = self.jobs.lanes.running(&lane);
        if let Some(id) = running {
            self.step_due(id);
        }
    }

    /// The next step goes out.
    pub(crate) fn step_due(&mut self, id: JobId) {
        let Some(work) = self.jobs.work_mut(id) else {
            return;
        };
        let Some(pause) = work.pause.as_mut().filter(|pause| pause.waiting) else {
            return;
        };
        pause.waiting = false;
        self.timers.stop(&Timer::Step(id));
        let node = self.route.current();
        self.issue(id, node);
    }
}
