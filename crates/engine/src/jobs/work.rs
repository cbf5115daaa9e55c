//! A command's downstream requests, one after another.

use std::collections::VecDeque;

use crate::catalogue::{ErrorCode, Step, Subject};
use crate::model::{Action, AgentId, Answer, ApiError, CallOutcome, Secret};
use crate::wire::command::{Addressed, ClientCommand};
use crate::wire::errors::code_of;
use crate::wire::reply::Outcome;

use crate::Engine;
use crate::api::command::{Call, DownstreamCommand};
use crate::api::ids::{CallId, JobId};
use crate::downstream::calls::CallFor;
use crate::jobs::life::Stage;
use crate::jobs::{Answered, Evidence};

/// What the requests are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    SignIn,
    Request,
    /// All but the last may be refused.
    Sequence,
    /// None may be refused.
    Requests,
    /// Whatever is answered is the answer.
    Http,
    Query,
}

/// Requests of a running command.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) kind: Kind,
    agent: AgentId,
    /// The one under way first.
    actions: VecDeque<Action>,
    password: Secret,
    answers: Vec<Answer>,
    pub(crate) call: CallId,
    /// When the one under way left, monotonic milliseconds.
    sent_at: u64,
    /// Tries of the request under way.
    tries: u32,
    /// Nodes that cannot have executed it.
    refused_by: Vec<usize>,
    request_id: String,
    /// Between two steps of a sequence.
    pub(crate) pause: Option<crate::jobs::sequence::Pause>,
}

impl Work {
    /// The request under way.
    pub(crate) fn action(&self) -> Option<&Action> {
        self.actions.front()
    }

    /// Whose credentials the requests carry.
    pub(crate) fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// Another request takes the place of the one under way.
    pub(crate) fn instead(&mut self, action: Action) {
        if let Some(front) = self.actions.front_mut() {
            *front = action;
            self.tries = 0;
        }
    }

    /// The request at the front is to be sent once more, as if for the first time.
    pub(crate) fn begin_anew(&mut self) {
        self.tries = 0;
        self.refused_by.clear();
    }

    /// Whether a request of the same command was carried out before the one under way.
    pub(crate) fn begun(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whose request is under way, and by which id it would be known.
    pub(crate) fn agent_and_request(&self) -> (AgentId, String) {
        (self.agent.clone(), self.request_id.clone())
    }

    /// The request under way was not sent.
    pub(crate) fn not_sent(&mut self) {
        self.tries = self.tries.saturating_sub(1);
    }
}

/// Tries of one idempotent request.
const TRIES: u32 = 2;

/// Longest command id that is used as the platform's `requestId`.
const REQUEST_ID_MAX: usize = 100;

impl Engine {
    /// The agent's turn has come: plans the requests of a command, by its row of the catalogue and
    /// what is known of the agent, and begins with the first; or rejects what cannot be planned.
    pub(crate) fn start_work(&mut self, id: JobId, agent: &AgentId, command: &ClientCommand) {
        match command.spec.step {
            Step::Unsupported(reason) => {
                self.reject(id, ErrorCode::NotImplemented, reason);
                return;
            }
            Step::Http => {
                match crate::downstream::http::plan(self.cfg.http.as_deref(), command) {
                    Ok(action) => {
                        let work = (Kind::Http, vec![action]);
                        self.begin(id, agent, work, Secret::new(""), command);
                    }
                    Err((code, words)) => self.reject(id, code, &words),
                }
                return;
            }
            _ if self.cfg.http.is_some() => {
                let words = "downstream.kind is http: there are no agents, only Call";
                self.reject(id, ErrorCode::NotImplemented, words);
                return;
            }
            _ => {}
        }
        let known = self.sessions.get(agent);
        let Some(session) = known.filter(|_| !self.placement().must_connect(agent)) else {
            match self.as_supervisor(agent, command) {
                Some((who, password, action)) => {
                    let work = (Kind::Request, vec![action]);
                    self.begin(id, &who, work, password, command);
                }
                None => self.reject(id, ErrorCode::ReLogin, "the agent is not known here"),
            }
            return;
        };
        let policy = &self.cfg.agents;
        let user = session.record.user.as_deref();
        let subject = Subject {
            team: user.map(|user| user.team.id.as_str()),
            extension: session.record.extension.as_deref(),
            not_ready_reason: policy.not_ready_reason.as_deref(),
            logout_reason: policy.logout_reason.as_deref(),
            supervisor_not_ready_reason: policy.supervisor_not_ready_reason.as_deref(),
            supervisor_logout_reason: policy.supervisor_logout_reason.as_deref(),
        };
        let args = &command.args;
        let planned = match command.spec.step {
            Step::SignIn(plan) => plan(&subject, args).map(|a| (Kind::SignIn, vec![a])),
            Step::Request(plan) => plan(&subject, args).map(|a| (Kind::Request, vec![a])),
            Step::Sequence(plan) => plan(&subject, args).map(|a| (Kind::Sequence, a)),
            Step::Requests(plan) => plan(&subject, args).map(|a| (Kind::Requests, a)),
            Step::Query(plan) => plan(&subject, args).map(|a| (Kind::Query, a)),
            Step::Hello | Step::Beat | Step::Connect | Step::Http | Step::Unsupported(_) => {
                Err(ErrorCode::PleaseRetry)
            }
        };
        let planned = match planned {
            Ok(planned) => planned,
            Err(code) => {
                self.reject(id, code, "the command lacks what it needs");
                return;
            }
        };
        let password = match (planned.0, crate::catalogue::password(args)) {
            (Kind::SignIn, Some(given)) => given.clone(),
            _ => session.record.password.clone(),
        };
        self.begin(id, agent, planned, password, command);
    }

    /// Starts the first of the planned requests.
    fn begin(
        &mut self,
        id: JobId,
        agent: &AgentId,
        (kind, actions): (Kind, Vec<Action>),
        password: Secret,
        command: &ClientCommand,
    ) {
        let request_id = self.request_id(id, command);
        let work = Work {
            kind,
            agent: agent.clone(),
            actions: actions.into(),
            password,
            answers: Vec::new(),
            call: CallId(0),
            sent_at: 0,
            tries: 0,
            refused_by: Vec::new(),
            request_id,
            pause: None,
        };
        if self.journaled(id, command) {
            self.intend(id, Box::new(work), command);
            return;
        }
        if self.step(id, Evidence::Planned(Box::new(work))).is_none() {
            self.leave_lane(id, command);
            return;
        }
        let node = self.route.current();
        self.issue(id, node);
    }

    /// The command's own id where it can stand in a header, so that the platform's ledger and the
    /// client's speak of the same thing.
    fn request_id(&mut self, _id: JobId, command: &ClientCommand) -> String {
        match &command.identity {
            Some(id)
                if !id.is_empty()
                    && id.len() <= REQUEST_ID_MAX
                    && id.bytes().all(|b| b.is_ascii_graphic()) =>
            {
                id.clone()
            }
            _ => self.message_id(),
        }
    }

    /// Sends the request at the front.
    pub(crate) fn issue(&mut self, id: JobId, node: usize) {
        if self.cluster.pause.is_open() {
            self.park(id, node);
            return;
        }
        let (call, now) = (CallId(self.number()), self.now.mono);
        let cause = self.cause(id);
        let Some(work) = self.jobs.work_mut(id) else {
            return;
        };
        let Some(action) = work.actions.front().cloned() else {
            return;
        };
        work.call = call;
        work.sent_at = now;
        work.tries += 1;
        let (agent, password) = (work.agent.clone(), work.password.clone());
        let request_id = work.request_id.clone();
        self.expect(&agent, &action, &request_id, cause.clone());
        self.calls.left(call, CallFor::Job(id), node);
        if let Some(job) = self.jobs.get_mut(id) {
            job.request_id = Some(request_id.clone());
        }
        let host = self.route.host(node).to_owned();
        self.stage(
            id,
            Stage::Calling {
                node: host,
                request_id: request_id.clone(),
            },
        );
        self.out.push(DownstreamCommand::Call(Box::new(Call {
            id: call,
            node,
            agent,
            password,
            request_id,
            trace: cause.trace,
            action,
        })));
    }

    pub(crate) fn on_call_done(&mut self, call: CallId, outcome: CallOutcome) {
        let Some((purpose, node)) = self.calls.answered(call) else {
            self.stale("call");
            return;
        };
        self.learn_of_node(node, &outcome);
        match purpose {
            CallFor::Job(id) => self.job_answered(id, call, node, outcome),
            CallFor::Sync(agent) => self.sync_answered(&agent, call, outcome),
            CallFor::Habit(agent) => self.habit_answered(&agent, outcome),
            CallFor::Again(agent) => self.signed_in_again(&agent, outcome),
            CallFor::Ask(id, proof) => self.asked(id, call, &proof, &outcome, node),
            CallFor::Later(key, proof) => self.asked_later(key, &proof, &outcome, node),
        }
    }

    /// The answer to the request under way: the next one, the other node, or the end of the
    /// command, according to whether it was carried out, was not (and so may go elsewhere), or may
    /// have been.
    fn job_answered(&mut self, id: JobId, call: CallId, node: usize, outcome: CallOutcome) {
        let Some(work) = self.jobs.work_mut(id) else {
            self.stale("call");
            return;
        };
        if work.call != call {
            self.stale("call");
            return;
        }
        let millis = self.now.mono.saturating_sub(work.sent_at);
        let host = self.route.host(node).to_owned();
        self.stage(id, Stage::called(host, &outcome, millis));
        let Some(work) = self.jobs.work_mut(id) else {
            return;
        };
        match outcome {
            CallOutcome::Done { status, answer } => {
                work.answers.push(answer);
                self.next_action(id, node, status, true);
            }
            CallOutcome::Refused { status, error } => self.refused(id, node, status, &error),
            CallOutcome::NotSent { timed_out, reason } => {
                let code = if timed_out {
                    ErrorCode::NotReachable
                } else {
                    ErrorCode::Down
                };
                self.elsewhere(id, node, code, &reason);
            }
            CallOutcome::NoRoom(shortage) => self.request_without_room(id, node, shortage),
            CallOutcome::Withheld => self.withheld(id, node),
            CallOutcome::OutOfService { reason } => {
                self.elsewhere(id, node, ErrorCode::Down, &reason);
            }
            CallOutcome::Unknown {
                status,
                timed_out,
                reason,
            } => {
                let code = if timed_out || status.is_some() {
                    ErrorCode::PleaseRetry
                } else {
                    ErrorCode::Down
                };
                let mut answered = Answered::error(Outcome::Failed, code.as_str(), reason);
                answered.status = status;
                self.unknown(id, node, answered);
            }
            CallOutcome::Unsettled {
                status,
                answer,
                reason,
            } => {
                let answered = crate::downstream::http::unsettled(status, *answer, reason);
                self.unknown(id, node, answered);
            }
        }
    }

    /// The request at the front is done, or was refused and may be: the next one, or the end.
    fn next_action(&mut self, id: JobId, node: usize, status: u16, accepted: bool) {
        let Some(work) = self.jobs.work_mut(id) else {
            return;
        };
        let done = work.actions.pop_front();
        work.begin_anew();
        let signs_out = matches!(&done, Some(Action::SetState { state, .. }) if *state == "LOGOUT");
        let (last, agent) = (work.actions.is_empty(), work.agent.clone());
        if let Some(Action::SignIn { mobile, .. }) = &done {
            self.keep_mobile(&agent, mobile.clone());
        }
        if signs_out {
            self.asked_out(&agent);
        }
        if last {
            self.complete(id, node, status);
            return;
        }
        let waits = accepted && done.is_some_and(|done| self.await_step(id, &done));
        if !waits {
            self.issue(id, node);
        }
    }

    fn refused(&mut self, id: JobId, node: usize, status: u16, error: &ApiError) {
        if self.ask_otherwise(id, node, status) {
            return;
        }
        let Some(work) = self.jobs.work_mut(id) else {
            return;
        };
        if work.kind == Kind::Sequence && work.actions.len() > 1 {
            self.next_action(id, node, status, false);
            return;
        }
        if let (404, Some(Action::ReadDialog { dialog })) = (status, work.actions.front()) {
            let (agent, dialog) = (work.agent.clone(), dialog.clone());
            self.tell_dialog_not_found(id, &agent, &dialog);
            let host = Some(self.route.host(node).to_owned());
            self.finish(id, Answered::ok(Outcome::Ok, Some(status), host));
            return;
        }
        let (agent, request_id) = (work.agent.clone(), work.request_id.clone());
        let (code, message) = code_of(error, status);
        if self.step_again(id, &code) {
            return;
        }
        self.unexpect(&agent, &request_id);
        self.fail(id, node, Some(status), &code, &message);
    }

    pub(crate) fn fail(
        &mut self,
        id: JobId,
        node: usize,
        status: Option<u16>,
        code: &str,
        message: &str,
    ) {
        let mut answered = Answered::error(Outcome::Failed, code, message);
        answered.status = status;
        answered.downstream = Some(self.route.host(node).to_owned());
        self.finish(id, answered);
    }

    /// The node did not execute it: another one may.
    fn elsewhere(&mut self, id: JobId, node: usize, code: ErrorCode, reason: &str) {
        let Some(work) = self.jobs.work_mut(id) else {
            return;
        };
        work.refused_by.push(node);
        let tried = work.refused_by.clone();
        let next = self.route.other(node).filter(|next| !tried.contains(next));
        match next {
            Some(next) => self.issue(id, next),
            None => self.fail(id, node, None, code.as_str(), reason),
        }
    }

    /// It may have been executed: an idempotent request is sent again, another is in doubt. So is one of
    /// an agent that has another owner since, who may have done a newer one.
    /// `answered`: what there is to say where it is not sent again.
    fn unknown(&mut self, id: JobId, node: usize, mut answered: Answered) {
        self.timers
            .set_by(crate::state::timer::Timer::Probe(node), self.now.mono);
        let wall = self.now.wall;
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        let deadline = job
            .command
            .as_ref()
            .map_or(0, |command| command.deadline_ms);
        let Some(work) = job.work_mut() else {
            return;
        };
        let idempotent = work.actions.front().is_some_and(Action::idempotent);
        let tries = work.tries;
        answered.downstream = Some(self.route.host(node).to_owned());
        if !idempotent || !self.still_ours(id) {
            let doubt = Outcome::InDoubt;
            answered.outcome = doubt;
            if let Some((code, _)) = &mut answered.error {
                doubt.as_str().clone_into(code);
            }
            self.finish(id, answered);
            return;
        }
        if tries < TRIES && wall < deadline {
            let next = self.route.other(node).unwrap_or(node);
            self.issue(id, next);
            return;
        }
        self.finish(id, answered);
    }

    /// Whether a command that was begun here would be begun here now.
    fn still_ours(&self, id: JobId) -> bool {
        let command = self.jobs.get(id).and_then(|job| job.command.as_deref());
        let placement = self.placement();
        command.is_some_and(|command| {
            let taken = match &command.addressee {
                Addressed::Agent(agent) => placement.is_anothers(agent),
                Addressed::Destination(_) => false,
            };
            placement.serves(command) && !taken
        })
    }

    /// All requests are done.
    fn complete(&mut self, id: JobId, node: usize, status: u16) {
        let Some((command, _)) = self.job_command(id) else {
            return;
        };
        let Some(work) = self.jobs.work_mut(id) else {
            return;
        };
        let (kind, agent) = (work.kind, work.agent.clone());
        let answers = std::mem::take(&mut work.answers);
        let password = work.password.clone();
        let host = Some(self.route.host(node).to_owned());
        match kind {
            Kind::SignIn => {
                let extension = command.args.get("extension").unwrap_or_default();
                self.signed_in(&agent, extension, password, command.cause());
                self.finish(id, Answered::ok(Outcome::Accepted, Some(status), host));
            }
            Kind::Request | Kind::Requests => {
                self.after_acceptance(id, &agent, &command);
                self.finish(id, Answered::ok(Outcome::Accepted, Some(status), host));
            }
            Kind::Sequence => {
                self.signing_out(&agent);
                self.finish(id, Answered::ok(Outcome::Accepted, Some(status), host));
            }
            Kind::Http => {
                let host = self.route.host(node).to_owned();
                self.finish(id, crate::downstream::http::answered(status, answers, host));
            }
            Kind::Query => {
                self.publish_answers(id, &agent, &command, answers);
                self.after_acceptance(id, &agent, &command);
                self.finish(id, Answered::ok(Outcome::Ok, Some(status), host));
            }
        }
    }
}
