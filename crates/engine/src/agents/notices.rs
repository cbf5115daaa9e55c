//! Notifications of the platform become events to clients.

use crate::model::{AgentId, ApiError, Cause, Dialog, DialogsVerb, Update, UpdateBody, User};
use crate::wire::errors::code_of;
use crate::wire::event::{ClientEvent, Viewer, choose};

use crate::agents::correlation::Subject;
use crate::state::timer::Timer;
use crate::{Engine, limits};

impl Engine {
    pub(crate) fn on_update(&mut self, agent: &AgentId, update: Update) {
        let owned = self.placement().owns(agent);
        if !owned {
            self.stale("notification");
            return;
        }
        let request = update.request_id.as_deref();
        match update.body {
            UpdateBody::User(user) => self.on_user(agent, request, *user),
            UpdateBody::Dialogs { verb, dialogs } => {
                for dialog in dialogs {
                    self.on_dialog(agent, verb, &dialog, request);
                }
            }
            UpdateBody::Refused(error) => self.on_refusal(agent, request, &error),
            UpdateBody::SystemInfo => {
                let node = self.route.current();
                self.timers.set_by(Timer::Probe(node), self.now.mono + 50);
            }
            UpdateBody::Application { available } => self.on_application(agent, available),
            UpdateBody::TeamMembers { team, members } => self.on_members(agent, &team, members),
            UpdateBody::UserDeleted | UpdateBody::Other => {}
        }
    }

    /// The platform tells an agent's state. During a sign-in it is kept for the read that follows,
    /// which tells who the agent is first; a sign-out that nobody asked for is undone where the
    /// platform forced it.
    fn on_user(&mut self, agent: &AgentId, request: Option<&str>, user: User) {
        if user.state_unknown() {
            return;
        }
        if self.forced_out(agent, request, &user) {
            let session = self.sessions.get(agent);
            let extension = session.and_then(|session| session.record.extension.clone());
            self.sign_in_again(agent, extension);
            return;
        }
        self.step_seen(agent, &user.state);
        let signed_in = user.signed_in();
        if !signed_in && self.still_out(agent) {
            return;
        }
        let session = self.sessions.get(agent);
        let read_due = session
            .and_then(|session| session.sync.as_ref())
            .is_some_and(|sync| sync.sign_in);
        if signed_in {
            self.shown_signed_in(agent);
        }
        // What is read next may lag behind this.
        if signed_in && !read_due {
            self.sign_in_over(agent);
        }
        let session = self.sessions.get(agent);
        let now = self.now.mono;
        let early = !read_due && session.is_some_and(|session| session.signing_in(now, request));
        let cause = self.correlate(agent, request, Subject::State(&user.state));
        let user = self.keep_user(agent, user);
        if let Some(session) = self.sessions.get_mut(agent) {
            session.outdates_user();
        }
        // After a sign-in the state is told behind who the agent is, once both are read.
        if signed_in && read_due {
            self.sync_now(agent);
            return;
        }
        if signed_in && early {
            if let Some(session) = self.sessions.get_mut(agent) {
                session.sign_in_seen = true;
            }
            return;
        }
        self.tell_agent(
            agent,
            ClientEvent::State {
                agent: agent.clone(),
                user: Box::new(user),
            },
            cause,
        );
        if !signed_in {
            self.agent_signed_out(agent);
        }
    }

    /// Whether a sign-in is awaited of an agent that was not signed in: that it is not yet is no
    /// news.
    fn still_out(&self, agent: &AgentId) -> bool {
        self.sessions.get(agent).is_some_and(|session| {
            let user = session.record.user.as_ref();
            session.settling.is_some() && !user.is_some_and(|user| user.signed_in())
        })
    }

    /// The platform tells a change of a call: kept, and told as the events that fit what was known
    /// of it before, its end once.
    fn on_dialog(
        &mut self,
        agent: &AgentId,
        verb: DialogsVerb,
        dialog: &Dialog,
        request: Option<&str>,
    ) {
        if !dialog.media_type.is_empty() && !dialog.media_type.eq_ignore_ascii_case("voice") {
            return;
        }
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        // A removal may carry less than was known.
        let mut dialogs = session.dialogs.iter();
        let known = dialogs.find(|known| known.id == dialog.id).cloned();
        let shown = match (verb, &known) {
            (DialogsVerb::Removed, Some(known)) if dialog.participants.is_empty() => Dialog {
                state: dialog.state.clone(),
                ..known.clone()
            },
            _ => dialog.clone(),
        };
        let known_before = known.is_some();
        // Its end is told once: by the change to DROPPED or FAILED, or by the removal.
        let told = known.as_ref().is_some_and(Dialog::ended)
            && (verb == DialogsVerb::Removed || dialog.ended());
        if verb == DialogsVerb::Removed {
            session.dialogs.retain(|known| known.id != dialog.id);
        } else {
            session.keep_dialog(dialog);
        }
        session.outdates_call(&dialog.id);
        let name = session.name();
        let extension = session.record.extension.clone().unwrap_or_default();
        let viewer = Viewer {
            agent,
            name: &name,
            extension: &extension,
        };
        let events = match told {
            true => Vec::new(),
            false => choose(&shown, verb, known.as_ref(), &viewer),
        };
        let cause = self.correlate(agent, request, Subject::Call(&shown, known_before));
        for event in events {
            self.tell_agent(agent, event, cause.clone());
        }
    }

    /// A request was accepted and refused later.
    fn on_refusal(&mut self, agent: &AgentId, request: Option<&str>, error: &ApiError) {
        let cause = self.correlate(agent, request, Subject::Refusal);
        let (code, message) = code_of(error, 202);
        // A sign-out that was refused: the agent is to stay signed in.
        if let Some(session) = self.sessions.get_mut(agent)
            && session.linger_until.is_none()
            && session.record.extension.is_some()
            && session
                .record
                .user
                .as_ref()
                .is_some_and(|user| user.signed_in())
            && !session.record.signed_in
        {
            self.sessions
                .change(agent, |record| record.signed_in = true);
        }
        if let Some(session) = self.sessions.get_mut(agent)
            && session.sync.as_ref().is_some_and(|sync| sync.sign_in)
        {
            session.sync = None;
        }
        // A sign-in that was refused: only its client can mend that.
        if self.still_out(agent) {
            self.sign_in_over(agent);
            self.asked_out(agent);
        }
        self.tell_agent(
            agent,
            ClientEvent::Error {
                agent: Some(agent.clone()),
                code,
                message,
            },
            cause,
        );
    }

    /// An event to the client of an agent.
    pub(crate) fn tell_agent(&mut self, agent: &AgentId, event: ClientEvent, cause: Cause) {
        let Some(session) = self.sessions.get(agent) else {
            return;
        };
        let to = session.record.destination.clone();
        let epoch = session.record.version.epoch;
        self.tell(&to, event, cause, epoch, None);
    }

    /// Keeps what was told or read of an agent, and tells the peers. Returns it with what it left
    /// out and was known before.
    pub(crate) fn keep_user(&mut self, agent: &AgentId, mut user: User) -> User {
        if user.signed_in() {
            self.note_signed_in(agent);
        }
        let Some(session) = self.sessions.get_mut(agent) else {
            return user;
        };
        let known = session.record.user.as_deref();
        if let Some(known) = known {
            user.complete_with(known);
        }
        if known != Some(&user) {
            let user = Some(Box::new(user.clone()));
            self.sessions
                .change_state(agent, |record| record.user = user);
        }
        user
    }

    /// An agent is seen signed in here, and at which node, for who owns it next.
    fn note_signed_in(&mut self, agent: &AgentId) {
        let here = self.route.host(self.route.current());
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        if !session.owned_by(&self.cfg.instance) {
            return;
        }
        session.seen_in = true;
        if session.record.node.as_deref() != Some(here) {
            let here = Some(here.to_owned());
            self.sessions.change(agent, |record| record.node = here);
        }
    }

    /// An agent is read as signed out, and nobody has counted its time since: its owner is a new
    /// one. One that was never signed in waits for its first sign-in.
    pub(crate) fn linger_from_now(&mut self, agent: &AgentId) {
        if !self.placement().owns(agent) {
            return;
        }
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let was_in = session.record.extension.is_some() && !session.record.signed_in;
        if was_in && session.linger_until.is_none() && session.connecting.is_none() {
            let until = self.now.mono + limits::LOGOUT_LINGER_MS;
            session.linger_until = Some(until);
            self.timers.set_by(Timer::Agent(agent.clone()), until);
        }
    }

    /// A signed-out agent's subscription is kept for a while: the next sign-in is quick.
    fn agent_signed_out(&mut self, agent: &AgentId) {
        let until = self.now.mono + limits::LOGOUT_LINGER_MS;
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        session.dialogs.clear();
        // The end of what was before a sign-in that was accepted since: that one holds.
        if session.settling.is_some() && session.record.signed_in {
            return;
        }
        // After a forced sign-out it ends at once.
        let closing = session
            .linger_until
            .is_some_and(|at| at <= self.now.mono + limits::FORCED_OUT_MS);
        let until = if closing { self.now.mono } else { until };
        session.linger_until = Some(until);
        if session.record.signed_in {
            self.sessions
                .change(agent, |record| record.signed_in = false);
        }
        self.timers.set_by(Timer::Agent(agent.clone()), until);
    }
}
