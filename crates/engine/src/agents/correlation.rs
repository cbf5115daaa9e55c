//! Which command a notification answers.
//!
//! The platform may echo a request's id in the notification that the request causes, and leaves it
//! empty in those that nobody here caused (platform reference, section 1). Once a node has echoed one,
//! its empty ids are believed. Before that a notification belongs to the oldest request of the last
//! seconds that could have caused it: that set this very state, acted on this very call, or began a
//! call from the own device. A refusal belongs to the newest.

use std::collections::BTreeSet;

use crate::model::{Action, AgentId, Cause, Dialog};

use crate::state::session::Session;
use crate::{Engine, limits};

/// What a notification is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// The agent, in this state.
    State(&'a str),
    /// A call; whether it was known before.
    Call(&'a Dialog, bool),
    /// A request that was accepted and is refused now.
    Refusal,
}

/// Nodes that echo request ids: in what they say of agents (`false`) and of calls (`true`).
#[derive(Debug, Default)]
pub(crate) struct Echoes(BTreeSet<(usize, bool)>);

/// A request whose notification is awaited, for the correlation id.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// `requestId` of the request.
    pub request_id: String,
    /// What goes with the events of the command.
    pub cause: Cause,
    /// State that the request sets, if it sets one.
    pub state: Option<&'static str>,
    /// The call that it acts on.
    pub acts_on: Option<String>,
    /// Whether it begins a call.
    pub dials: bool,
    /// The call that it began.
    pub begun: Option<String>,
    /// When it was sent, monotonic milliseconds.
    pub sent_at: u64,
}

impl Expectation {
    /// `None`: no notification is caused.
    fn new(action: &Action, request_id: &str, cause: Cause, sent_at: u64) -> Option<Self> {
        let (state, call, dials) = match action {
            Action::SetState { state, .. } => (Some(*state), None, false),
            Action::SignIn { .. } => (Some("LOGIN"), None, false),
            Action::MakeCall { .. } => (None, None, true),
            Action::Supervise { barge, .. } => (None, barge.as_ref(), true),
            Action::Dial { dialog, .. } => (None, Some(dialog), true),
            Action::OnDialog { dialog, .. }
            | Action::CallData { dialog, .. }
            | Action::Campaign { dialog, .. } => (None, Some(dialog), false),
            _ => return None,
        };
        Some(Self {
            request_id: request_id.to_owned(),
            cause,
            state,
            acts_on: call.cloned(),
            dials,
            begun: None,
            sent_at,
        })
    }

    /// Whether it is the same request, sent once more.
    fn repeats(&self, other: &Self) -> bool {
        self.request_id == other.request_id
            && (self.state, &self.acts_on, self.dials) == (other.state, &other.acts_on, other.dials)
    }

    /// Whether a notification without an id may still be its own.
    #[must_use]
    pub fn fresh(&self, now: u64) -> bool {
        now < self.sent_at + limits::CORRELATION_MS
    }

    /// Whether it can have caused this.
    fn fits(&self, subject: Subject<'_>, extension: &str) -> bool {
        match subject {
            Subject::State(state) => self.state == Some(state),
            Subject::Call(dialog, known_before) => {
                let begins = self.dials && !known_before && dialog.from_address == extension;
                let known = [&self.acts_on, &self.begun];
                (begins && self.begun.is_none())
                    || known.iter().any(|call| call.as_ref() == Some(&dialog.id))
            }
            Subject::Refusal => true,
        }
    }

    /// Whether nothing more is awaited after this notification. A call that was begun brings
    /// several until it stands.
    fn is_done(&self, subject: Subject<'_>) -> bool {
        match subject {
            Subject::Call(dialog, _) if self.dials => {
                self.begun.as_ref() == Some(&dialog.id)
                    && (dialog.state == "ACTIVE" || dialog.ended())
            }
            _ => true,
        }
    }
}

impl Engine {
    /// Notes that a notification will come, before the request leaves: it may be the quicker one.
    pub(crate) fn expect(
        &mut self,
        agent: &AgentId,
        action: &Action,
        request_id: &str,
        cause: Cause,
    ) {
        let now = self.now.mono;
        let (Some(expected), Some(session)) = (
            Expectation::new(action, request_id, cause, now),
            self.sessions.get_mut(agent),
        ) else {
            return;
        };
        forget_old(session, now);
        // One notification will come.
        session.expected.retain(|known| !known.repeats(&expected));
        if session.expected.len() >= limits::EXPECTED_PER_AGENT {
            session.expected.remove(0);
        }
        session.expected.push(expected);
    }

    /// A request was refused at once: nothing will come of it.
    pub(crate) fn unexpect(&mut self, agent: &AgentId, request_id: &str) {
        if let Some(session) = self.sessions.get_mut(agent) {
            session
                .expected
                .retain(|known| known.request_id != request_id);
        }
    }

    /// What goes with the notification's events: nothing where no command caused it.
    pub(crate) fn correlate(
        &mut self,
        agent: &AgentId,
        request: Option<&str>,
        subject: Subject<'_>,
    ) -> Cause {
        let found = self.caused_by(agent, request, subject);
        found.unwrap_or_default()
    }

    /// The command that a notification answers: by the request id where the platform gives it back;
    /// by what is expected where it does not, unless this node is known to give ids back, as then
    /// it was nobody's.
    fn caused_by(
        &mut self,
        agent: &AgentId,
        request: Option<&str>,
        subject: Subject<'_>,
    ) -> Option<Cause> {
        let now = self.now.mono;
        let session = self.sessions.get_mut(agent)?;
        forget_old(session, now);
        let calls = matches!(subject, Subject::Call(..));
        let refusal = matches!(subject, Subject::Refusal);
        let place = session.subscription.node().map(|node| (node, calls));
        if let Some(request) = request.filter(|text| !text.is_empty()) {
            let mut known = session.expected.iter();
            let found = known.find(|known| known.request_id == request)?;
            // That refusals have them says nothing of the rest.
            if !refusal {
                self.agents.echoes.0.extend(place);
            }
            return Some(found.cause.clone());
        }
        if !refusal && place.is_some_and(|place| self.agents.echoes.0.contains(&place)) {
            return None;
        }
        let extension = session.record.extension.as_deref().unwrap_or_default();
        let fits = |known: &Expectation| known.fresh(now) && known.fits(subject, extension);
        let index = if refusal {
            session.expected.iter().rposition(fits)?
        } else {
            session.expected.iter().position(fits)?
        };
        let known = &mut session.expected[index];
        let cause = known.cause.clone();
        if let Subject::Call(dialog, false) = subject
            && known.dials
        {
            known.begun.get_or_insert_with(|| dialog.id.clone());
        }
        if known.is_done(subject) {
            session.expected.remove(index);
        }
        Some(cause)
    }
}

fn forget_old(session: &mut Session, now: u64) {
    session
        .expected
        .retain(|known| now < known.sent_at + limits::ECHO_MS);
}
