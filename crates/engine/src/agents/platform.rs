//! Rules of the platform that no single answer shows (platform reference, sections 3.3, 4, 8.6,
//! 10 and 11): when a node is usable, what its own sign-outs mean, what is asked elsewhere.

use crate::downstream::calls::CallFor;
use crate::model::{Action, AgentId, CallOutcome, Cause, User};
use crate::wire::event::ClientEvent;

use crate::api::ids::JobId;
use crate::state::timer::Timer;
use crate::{Engine, limits};

/// Code of the reason with which the platform signs out who has no notification session.
const FORCED_OUT: &str = "255";

impl Engine {
    // ---- the application behind the notification service --------------------------------------

    /// The presence of the platform's own user, as one of its agents' sessions saw it: without it
    /// the node is not usable, whatever its status says. Never hearing of it means nothing.
    pub(crate) fn on_application(&mut self, agent: &AgentId, available: bool) {
        let session = self.sessions.get(agent);
        let Some(node) = session.and_then(|session| session.subscription.node()) else {
            return;
        };
        let changes = self.route.on_application(self.now, node, available);
        if available {
            self.timers.set_by(Timer::Probe(node), self.now.mono + 50);
        }
        self.apply_route(changes);
    }

    /// Presence is heard by the sessions of a node only: once there are none, its status decides.
    pub(crate) fn forget_application(&mut self, node: usize) {
        if self.route.application_gone(node).is_none() {
            return;
        }
        let heard = self
            .sessions
            .iter()
            .any(|session| session.subscription.node() == Some(node));
        if !heard {
            self.route.forget_application(self.now, node);
        }
    }

    // ---- sign-outs that nobody asked for ------------------------------------------------------

    /// Whether a sign-out is the platform's own doing: it signs out who had no notification
    /// session for a minute, and at once who has moved to its other node. Such an agent still
    /// works and is signed in again. What comes of a request, of whoever that is, somebody asked for:
    /// in a cut the other side may have the agent, too.
    pub(crate) fn forced_out(&self, agent: &AgentId, request: Option<&str>, user: &User) -> bool {
        let now = self.now.mono;
        let Some(session) = self.sessions.get(agent) else {
            return false;
        };
        let record = &session.record;
        let was_in = record.signed_in
            && record.extension.is_some()
            && record.user.as_ref().is_some_and(|user| user.signed_in());
        let asked = session.linger_until.is_some()
            || session
                .expected
                .iter()
                .any(|known| known.state == Some("LOGOUT") && known.fresh(now));
        let no_reason =
            user.reason_code.is_empty() && matches!(user.reason_code_id.as_str(), "" | "-1");
        let no_reason = no_reason && request.is_none();
        let forced = user.reason_code == FORCED_OUT || (no_reason && now < session.moved_until);
        user.state == "LOGOUT" && was_in && !asked && forced && now >= session.again_after
    }

    /// Signs an agent in again that is to be signed in. Returns whether that is being done: not
    /// where it was done a moment ago and did not last.
    pub(crate) fn sign_in_again(&mut self, agent: &AgentId, extension: Option<String>) -> bool {
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(agent) else {
            return false;
        };
        let Some(extension) = extension else {
            let event = ClientEvent::ReLogin {
                agent: agent.clone(),
            };
            self.tell_agent(agent, event, Cause::default());
            return true;
        };
        if now < session.again_after {
            return false;
        }
        session.again_after = now + limits::SIGN_IN_AGAIN_MS;
        let mobile = session.record.mobile.clone();
        let action = Action::SignIn { extension, mobile };
        self.background_call(agent, action, CallFor::Again(agent.clone()));
        true
    }

    /// What became of that: the agent is read and told about, however it ended.
    pub(crate) fn signed_in_again(&mut self, agent: &AgentId, outcome: CallOutcome) {
        if !self.placement().owns(agent) {
            self.stale("sign-in");
            return;
        }
        let wait = match &outcome {
            CallOutcome::Done { .. } => limits::SIGN_IN_SETTLE_MS,
            CallOutcome::Refused { .. } => 0,
            _ => limits::SIGN_IN_AGAIN_MS,
        };
        let refused = matches!(outcome, CallOutcome::Refused { .. });
        if matches!(outcome, CallOutcome::Done { .. }) {
            self.sign_in_began(agent);
        }
        self.habit_answered(agent, outcome);
        if refused {
            // Only its client can mend that.
            self.asked_out(agent);
        }
        self.sync(agent, false, Cause::default(), self.now.mono + wait);
    }

    /// A subscription stands. Where the one before was at another node, that node may yet sign the
    /// agent out, as it has gone from there.
    pub(crate) fn note_node(&mut self, agent: &AgentId, node: usize) {
        let until = self.now.mono + limits::MOVED_MS;
        if let Some(session) = self.sessions.get_mut(agent) {
            let before = session.last_node.replace(node);
            if before.is_some_and(|before| before != node) {
                session.moved_until = until;
            }
        }
    }

    // ---- what is asked elsewhere --------------------------------------------------------------

    /// A read was refused where another one may be answered: the secondary node answers 403 to
    /// what only the primary serves; releases without an agent's own lists have the team's.
    /// Returns whether that one is under way.
    pub(crate) fn ask_otherwise(&mut self, id: JobId, node: usize, status: u16) -> bool {
        const PRIMARY: usize = 0;
        let primary_is_up = self.route.usable(PRIMARY);
        let Some(work) = self.jobs.work_mut(id) else {
            return false;
        };
        match (status, work.action()) {
            (403, Some(action)) if action.needs_admin() && node != PRIMARY && primary_is_up => {
                self.issue(id, PRIMARY);
                true
            }
            (404 | 501, Some(Action::ReadReasons(category))) => {
                let category = *category;
                let session = self.sessions.get(work.agent());
                let user = session.and_then(|session| session.record.user.as_ref());
                let Some(team) = user
                    .map(|user| user.team.id.clone())
                    .filter(|id| !id.is_empty())
                else {
                    return false;
                };
                work.instead(Action::ReadTeamReasons { team, category });
                self.issue(id, node);
                true
            }
            _ => false,
        }
    }
}
