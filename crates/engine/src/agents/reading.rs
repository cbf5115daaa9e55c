//! Sign-in, sign-out, and reading an agent anew.

use crate::api::command::{Call, DownstreamCommand};
use crate::api::ids::CallId;
use crate::downstream::calls::CallFor;
use crate::model::{
    Action, AgentId, Answer, CallOutcome, Cause, Dialog, Mobile, Secret, Trace, User,
};
use crate::state::session::{Session, Settling, Subscription, Sync};
use crate::state::timer::Timer;
use crate::wire::event::{ClientEvent, Viewer, choose, continued};
use crate::{Engine, limits};
use std::sync::Arc;

/// Delay before a read that failed is tried again, milliseconds. After a few tries it doubles each
/// time, up to the longest one: reads go on for as long as the
/// agent is ours and has a subscription.
const SYNC_RETRY_MS: u64 = 2_000;
/// See [`SYNC_RETRY_MS`].
const SYNC_RETRY_MAX_MS: u64 = 30_000;
/// How many tries are a few.
const SYNC_TRIES: u32 = 5;

/// The delay after so many failures in a row.
fn retry_pause(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(SYNC_TRIES).min(8);
    (SYNC_RETRY_MS << doublings).min(SYNC_RETRY_MAX_MS)
}

/// What was read, but for what notifications have told while it was on its way: a stream of them
/// neither undoes itself nor puts the read off.
fn newest(
    session: &Session,
    sync: &Sync,
    read: User,
    mut calls: Vec<Dialog>,
) -> (User, Vec<Dialog>) {
    let mut user = read;
    if let Some(told) = session.record.user.as_deref().filter(|_| sync.newer_user) {
        let read = std::mem::replace(&mut user, told.clone());
        user.complete_with(&read);
    }
    let newer = |call: &Dialog| sync.newer_calls.contains(&call.id);
    calls.retain(|call| !newer(call));
    calls.extend(session.dialogs.iter().filter(|call| newer(call)).cloned());
    (user, calls)
}

impl Engine {
    // ---- sign-in, sign-out, reading anew ------------------------------------------------------

    /// A sign-in was accepted: keep what it proved, then read the agent.
    pub(crate) fn signed_in(
        &mut self,
        agent: &AgentId,
        extension: &str,
        password: Secret,
        cause: Cause,
    ) {
        let mut due = self.now.mono + limits::SIGN_IN_SETTLE_MS;
        let mut missing = false;
        self.change_session(agent, |record| {
            record.extension = Some(extension.to_owned());
            record.password = password;
            record.signed_in = true;
        });
        if let Some(session) = self.sessions.get_mut(agent) {
            if session.owned_by(&self.cfg.instance) {
                session.linger_until = None;
                // Credentials that were refused before have been replaced or are good again.
                session.refused = false;
                missing = session.subscription == Subscription::None;
            }
            // What comes from now on is told: by its request id, or as the state it leads to.
            for known in &mut session.expected {
                if known.state == Some("LOGIN") {
                    known.state = Some("NOT_READY");
                }
            }
            if std::mem::take(&mut session.sign_in_seen) {
                due = self.now.mono;
            }
        }
        if missing && self.placement().leads_for(agent) {
            self.take(vec![agent.clone()], "missing");
        }
        self.sign_in_began(agent);
        self.sync(agent, true, cause, due);
    }

    /// A sign-in was accepted; its effect comes later. Its owner waits for that.
    pub(crate) fn sign_in_began(&mut self, agent: &AgentId) {
        if !self.placement().owns(agent) {
            return;
        }
        let settling = Settling {
            since: self.now.mono,
            node: self.route.current(),
            reads: 0,
        };
        if let Some(session) = self.sessions.get_mut(agent) {
            session.settling = Some(settling);
        }
    }

    /// The platform shows the agent signed in. Where it was out, its session does not end any more,
    /// wherever it was signed in.
    pub(crate) fn shown_signed_in(&mut self, agent: &AgentId) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let user = session.record.user.as_ref();
        if user.is_none_or(|user| user.signed_in()) {
            return;
        }
        session.linger_until = None;
        if session.settling.is_some() && !session.record.signed_in {
            self.sessions
                .change(agent, |record| record.signed_in = true);
        }
    }

    /// Nothing more is expected of a sign-in.
    pub(crate) fn sign_in_over(&mut self, agent: &AgentId) -> Option<Settling> {
        self.sessions.get_mut(agent)?.settling.take()
    }

    /// An agent was read as signed out though its sign-in was accepted a while ago. Returns when it
    /// is to be read again; not where the node has changed, as the new one may not know of it.
    fn read_again_at(&mut self, agent: &AgentId) -> Option<u64> {
        let (now, node) = (self.now.mono, self.route.current());
        let settling = self.sessions.get_mut(agent)?.settling.as_mut()?;
        if settling.node != node || now >= settling.since + limits::SIGN_IN_PATIENCE_MS {
            return None;
        }
        settling.reads += 1;
        let pause = limits::SIGN_IN_SETTLE_MS << settling.reads.min(8);
        Some(now + pause.min(limits::SIGN_IN_READ_MAX_MS))
    }

    /// What a sign-in is tried with: told and kept where it is accepted ([`Self::signed_in`]).
    pub(crate) fn keep_mobile(&mut self, agent: &AgentId, mobile: Option<Mobile>) {
        self.sessions.amend(agent, |record| record.mobile = mobile);
    }

    /// A forced sign-out was accepted: the subscription ends with the notification of it.
    pub(crate) fn signing_out(&mut self, agent: &AgentId) {
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let out = session.record.user.as_ref().is_some_and(|u| !u.signed_in());
        // Short enough to mark "close at once"; it closes without a notification, too.
        session.linger_until = Some(if out {
            now
        } else {
            now + limits::FORCED_OUT_MS
        });
        session.settling = None;
        self.change_session(agent, |record| record.signed_in = false);
        self.timers.set_by(
            Timer::Agent(agent.clone()),
            now + if out { 0 } else { limits::FORCED_OUT_MS },
        );
    }

    /// Reads an agent anew at `due` and publishes what was read: its owner alone does, as its
    /// clients are told in the owner's epoch.
    pub(crate) fn sync(&mut self, agent: &AgentId, sign_in: bool, cause: Cause, due: u64) {
        if !self.placement().owns(agent) {
            return;
        }
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let known = session.sync.take().unwrap_or_default();
        session.sync = Some(Sync {
            due: Some(due),
            sign_in: sign_in || known.sign_in,
            cause: cause.or(known.cause),
            ..Sync::default()
        });
        self.timers.set_by(Timer::Agent(agent.clone()), due);
    }

    /// A notification during a sign-in: no need to wait longer.
    pub(crate) fn sync_now(&mut self, agent: &AgentId) {
        let session = self.sessions.get(agent);
        let sync = session.and_then(|session| session.sync.as_ref());
        if sync.is_some_and(|sync| sync.call.is_none()) {
            self.read_agent(agent);
        }
    }

    /// A sign-out was accepted: should its notification be lost, the agent is not signed in again.
    pub(crate) fn asked_out(&mut self, agent: &AgentId) {
        self.sign_in_over(agent);
        let session = self.sessions.get_mut(agent);
        if session.is_some_and(|session| session.record.signed_in) {
            self.change_session(agent, |record| record.signed_in = false);
        }
    }

    pub(crate) fn read_agent(&mut self, agent: &AgentId) {
        if let Some(session) = self.sessions.get_mut(agent)
            && let Some(sync) = &mut session.sync
        {
            sync.due = None;
            sync.user = None;
            sync.newer_user = false;
            sync.newer_calls.clear();
            self.sync_call(agent, Action::ReadUser);
        }
    }

    pub(crate) fn sync_call(&mut self, agent: &AgentId, action: Action) {
        let call = self.background_call(agent, action, CallFor::Sync(agent.clone()));
        if let Some(session) = self.sessions.get_mut(agent)
            && let Some(sync) = &mut session.sync
        {
            sync.call = call;
        }
    }

    pub(crate) fn background_call(
        &mut self,
        agent: &AgentId,
        action: Action,
        purpose: CallFor,
    ) -> Option<CallId> {
        let node = self.route.current();
        let password = self.sessions.get(agent)?.record.password.clone();
        let id = CallId(self.number());
        let request_id = self.message_id();
        let trace = self.trace_of(&purpose);
        self.calls.left(id, purpose, node);
        self.out.push(DownstreamCommand::Call(Box::new(Call {
            id,
            node,
            agent: agent.clone(),
            password,
            request_id,
            trace,
            action,
        })));
        Some(id)
    }

    /// The trace of the command that a request is for.
    fn trace_of(&self, purpose: &CallFor) -> Option<Arc<Trace>> {
        match purpose {
            CallFor::Job(id) | CallFor::Ask(id, _) => self.cause(*id).trace,
            CallFor::Sync(agent) => {
                let sync = self.sessions.get(agent)?.sync.as_ref()?;
                sync.cause.trace.clone()
            }
            CallFor::Later(key, _) => self.jobs.doubts.trace(key),
            CallFor::Habit(_) | CallFor::Again(_) => None,
        }
    }

    /// An answer of a read: the user first, then the calls.
    pub(crate) fn sync_answered(&mut self, agent: &AgentId, call: CallId, outcome: CallOutcome) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let Some(sync) = session.sync.as_mut().filter(|s| s.call == Some(call)) else {
            self.stale("read");
            return;
        };
        match outcome {
            CallOutcome::Done {
                answer: Answer::User(user),
                ..
            } => {
                sync.user = Some(user);
                // The calls are asked for now.
                sync.newer_calls.clear();
                self.sync_call(agent, Action::ReadDialogs);
            }
            CallOutcome::Done {
                answer: Answer::Dialogs(dialogs),
                ..
            } => self.sync_done(agent, dialogs),
            CallOutcome::Refused { .. } => match &sync.user {
                // The platform tells the agent and not its calls: nothing new is known of those.
                Some(user) => {
                    let known = match user.signed_in() {
                        true => session.dialogs.clone(),
                        false => Vec::new(),
                    };
                    self.sync_done(agent, known);
                }
                None => session.sync = None,
            },
            CallOutcome::NoRoom(shortage) => {
                sync.call = None;
                let due = self.now.mono + limits::NO_ROOM_RETRY_MS;
                sync.due = Some(due);
                self.timers.set_by(Timer::Agent(agent.clone()), due);
                self.short(shortage);
            }
            _ => self.read_failed(agent),
        }
    }

    /// A read has brought nothing. Nobody else would ever find out what was missed: it is tried again,
    /// unless nobody is told of this agent here.
    fn read_failed(&mut self, agent: &AgentId) {
        let owned = self.placement().owns(agent);
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let subscribed = session.subscription != Subscription::None;
        let Some(sync) = &mut session.sync else {
            return;
        };
        sync.tries = sync.tries.saturating_add(1);
        sync.call = None;
        let (tries, few) = (sync.tries, sync.tries <= SYNC_TRIES);
        let told_here = owned && subscribed;
        if !few && !told_here {
            session.sync = None;
            return;
        }
        let pause = retry_pause(tries);
        // Not those of all agents at one time, again and again.
        let spread = if few { 0 } else { self.jitter(pause / 4) };
        let due = self.now.mono + pause + spread;
        if let Some(session) = self.sessions.get_mut(agent)
            && let Some(sync) = &mut session.sync
        {
            sync.due = Some(due);
        }
        self.timers.set_by(Timer::Agent(agent.clone()), due);
    }

    /// Whether an agent that is read as signed out must have signed out where its former owner had it:
    /// at the very node that knew it. One that this instance has seen signed in was put out by the
    /// platform, and another node may never have known it.
    fn signed_out_before(&self, agent: &AgentId) -> bool {
        let here = self.route.host(self.route.current());
        let session = self.sessions.get(agent);
        session.is_some_and(|it| !it.seen_in && it.record.node.as_deref() == Some(here))
    }

    /// User and calls are read: decides what it means where the agent is not signed in although it
    /// should be (to be read again, signed in again, or taken for signed out), and publishes the
    /// rest.
    pub(crate) fn sync_done(&mut self, agent: &AgentId, dialogs: Vec<Dialog>) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let Some(mut sync) = session.sync.take() else {
            return;
        };
        let Some(user) = sync.user.take() else {
            return;
        };
        let (user, dialogs) = newest(session, &sync, *user, dialogs);
        let asked_in = session.record.signed_in;
        let extension = session.record.extension.clone();
        let missed = !user.signed_in() && asked_in;
        if missed && let Some(due) = self.read_again_at(agent) {
            self.sync(agent, sync.sign_in, sync.cause, due);
            return;
        }
        if user.signed_in() {
            self.shown_signed_in(agent);
        }
        let settling = self.sign_in_over(agent);
        if missed {
            // This node does not know the agent as signed in.
            let node = self.route.current();
            let had_no_effect = settling.is_some_and(|known| known.node == node);
            let went = had_no_effect || self.signed_out_before(agent);
            let again = !went && self.sign_in_again(agent, extension);
            if again && !sync.sign_in {
                return;
            }
            if !again {
                self.asked_out(agent);
            }
        }
        if !user.signed_in() {
            self.linger_from_now(agent);
        }
        self.publish_read(agent, &user, dialogs, sync.sign_in, sync.cause);
        let make_ready = sync.sign_in && self.cfg.agents.make_ready && user.state == "NOT_READY";
        if make_ready {
            let action = Action::SetState {
                state: "READY",
                reason: None,
            };
            self.background_call(agent, action, CallFor::Habit(agent.clone()));
        }
    }

    pub(crate) fn habit_answered(&mut self, agent: &AgentId, outcome: CallOutcome) {
        if let CallOutcome::Refused { status, error } = outcome {
            let (code, message) = crate::wire::errors::code_of(&error, status);
            let event = ClientEvent::Error {
                agent: Some(agent.clone()),
                code,
                message,
            };
            self.tell_agent(agent, event, Cause::default());
        }
    }

    /// An agent that signed in at the platform's own desktop has its extension from there.
    fn learn_extension(&mut self, agent: &AgentId, user: &User) {
        let owned = self.placement().owns(agent);
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let known = session.record.extension.is_some() || user.extension.is_empty();
        if owned && !known && user.signed_in() {
            let extension = Some(user.extension.clone());
            self.sessions
                .change(agent, |record| record.extension = extension);
        }
    }

    /// Tells an agent's client what was read as if it had heard nothing: who the agent is (after a
    /// sign-in), the state, the ends of calls that are not there any more, and the calls.
    pub(crate) fn publish_read(
        &mut self,
        agent: &AgentId,
        user: &User,
        dialogs: Vec<Dialog>,
        sign_in: bool,
        cause: Cause,
    ) {
        self.learn_extension(agent, user);
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let extension = session.record.extension.clone().unwrap_or_default();
        let ended: Vec<Dialog> = session
            .dialogs
            .iter()
            .filter(|known| !known.ended() && !dialogs.iter().any(|dialog| dialog.id == known.id))
            .cloned()
            .collect();
        let kept = |dialog: &Dialog| {
            let known = session.dialogs.iter().find(|known| known.id == dialog.id);
            continued(dialog, known, &extension)
        };
        session.dialogs = dialogs.iter().map(kept).collect();
        self.keep_user(agent, user.clone());
        let name = user.full_name();
        if sign_in {
            let info = ClientEvent::AgentInfo {
                agent: agent.clone(),
                user: Box::new(user.clone()),
            };
            self.tell_agent(agent, info, cause.clone());
            if user.supervisor {
                let teams = ClientEvent::TeamInfo {
                    agent: agent.clone(),
                    name: name.clone(),
                    teams: user.teams.clone(),
                };
                self.tell_agent(agent, teams, cause.clone());
            }
        }
        let state = ClientEvent::State {
            agent: agent.clone(),
            user: Box::new(user.clone()),
        };
        self.tell_agent(agent, state, cause.clone());
        // What was known and is not there any more has ended unseen.
        let viewer = Viewer {
            agent,
            name: &name,
            extension: &extension,
        };
        for dialog in ended {
            let verb = crate::model::DialogsVerb::Removed;
            for event in choose(&dialog, verb, Some(&dialog), &viewer) {
                self.tell_agent(agent, event, Cause::default());
            }
        }
        let status = ClientEvent::DialogStatus {
            agent: agent.clone(),
            extension,
            dialogs,
        };
        self.tell_agent(agent, status, cause);
    }
}
