//! An agent: who he is, his state machine (reference section 3) and the User object.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::config::{AgentSpec, Deployment};
use super::lock;
use super::reasons::{self, Reason};
use super::xml::leaf;
use super::xmpp::Session;

/// Agent states as reported; LOGIN is a verb only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Signed out.
    Logout,
    /// Signed in, takes no calls.
    NotReady,
    /// Waits for a call.
    Ready,
    /// A call is offered.
    Reserved,
    /// A campaign dials for him.
    ReservedOutbound,
    /// A campaign call is offered for preview.
    ReservedOutboundPreview,
    /// On a call.
    Talking,
    /// His only call is held (UCCE).
    Hold,
    /// Wrap-up that ends in NOT_READY.
    Work,
    /// Wrap-up that ends in READY.
    WorkReady,
}

impl State {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logout => "LOGOUT",
            Self::NotReady => "NOT_READY",
            Self::Ready => "READY",
            Self::Reserved => "RESERVED",
            Self::ReservedOutbound => "RESERVED_OUTBOUND",
            Self::ReservedOutboundPreview => "RESERVED_OUTBOUND_PREVIEW",
            Self::Talking => "TALKING",
            Self::Hold => "HOLD",
            Self::Work => "WORK",
            Self::WorkReady => "WORK_READY",
        }
    }
}

/// What a request may ask of an agent's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Sign in.
    Login,
    /// Sign out.
    Logout,
    /// Become ready.
    Ready,
    /// Become not ready, or change the reason.
    NotReady,
    /// Wrap-up after this call, then NOT_READY.
    Work,
    /// Wrap-up after this call, then READY.
    WorkReady,
}

impl Verb {
    /// Parses the request's `state`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "LOGIN" => Self::Login,
            "LOGOUT" => Self::Logout,
            "READY" => Self::Ready,
            "NOT_READY" => Self::NotReady,
            "WORK" => Self::Work,
            "WORK_READY" => Self::WorkReady,
            _ => return None,
        })
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "LOGIN",
            Self::Logout => "LOGOUT",
            Self::Ready => "READY",
            Self::NotReady => "NOT_READY",
            Self::Work => "WORK",
            Self::WorkReady => "WORK_READY",
        }
    }
}

/// What an allowed request leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The new state.
    To(State),
    /// Entered when the call ends.
    Pending(State),
    /// Accepted, nothing changes.
    Same,
    /// Accepted, refused later by CTI as 265 CF_INVALID_AGENT_WORKMODE.
    WorkmodeRefused,
}

/// The transition table of section 3.4; `None` is 400 Invalid State.
pub fn transition(
    deployment: Deployment,
    from: State,
    pending: Option<State>,
    verb: Verb,
    by_supervisor: bool,
) -> Option<Step> {
    use State::{
        Hold, Logout, NotReady, Ready, Reserved, ReservedOutbound, ReservedOutboundPreview,
        Talking, Work, WorkReady,
    };
    let uccx = deployment == Deployment::Uccx;
    Some(match (verb, from) {
        (Verb::Login, Logout) => Step::To(NotReady),
        (Verb::Login, _) => Step::Same,
        (_, Logout) => return None,
        (Verb::Logout, NotReady) => Step::To(Logout),
        (Verb::Logout, Ready) if uccx => Step::To(Logout),
        (Verb::Logout, _) if by_supervisor => Step::To(Logout),
        (Verb::Logout, _) => return None,
        (Verb::Ready, Ready) => Step::Same,
        (Verb::Ready, NotReady | Work | WorkReady) => Step::To(Ready),
        (Verb::Ready, Talking | Hold) => Step::Pending(Ready),
        (Verb::NotReady, NotReady | Ready | Work | WorkReady) => Step::To(NotReady),
        (Verb::NotReady, Talking | Hold) if uccx && pending == Some(NotReady) => {
            Step::WorkmodeRefused
        }
        (Verb::NotReady, Talking | Hold) => Step::Pending(NotReady),
        (Verb::Ready, ReservedOutboundPreview) => Step::Pending(Ready),
        (Verb::NotReady, ReservedOutboundPreview) => Step::Pending(NotReady),
        (Verb::Ready | Verb::NotReady, Reserved | ReservedOutbound) => return None,
        (Verb::Work, Talking | Hold) => Step::Pending(Work),
        (Verb::WorkReady, Talking | Hold) => Step::Pending(WorkReady),
        (Verb::Work | Verb::WorkReady, _) => return None,
    })
}

/// A mobile agent's phone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mobile {
    /// `CALL_BY_CALL` or `NAILED_CONNECTION`.
    pub mode: String,
    /// The phone's number.
    pub dial_number: String,
}

/// What changes about an agent. Locked after the calls and before the sessions.
#[derive(Debug)]
pub struct AgentState {
    /// Reported state.
    pub state: State,
    /// State to return to when the last call ends.
    pub base: State,
    /// Reason to return to with `base`.
    pub base_reason: Option<Reason>,
    /// Asked for during a call, entered at its end.
    pub pending: Option<State>,
    /// Reason of the state.
    pub reason: Option<Reason>,
    /// Extension signed in on.
    pub extension: String,
    /// When the state changed, milliseconds since the epoch; 0 never.
    pub changed: i64,
    /// Ids of his calls, oldest first.
    pub dialogs: Vec<u64>,
    /// Set while signed in as a mobile agent.
    pub mobile: Option<Mobile>,
    /// Counts state changes: a wrap-up timer of an older count is void.
    pub version: u64,
}

impl AgentState {
    /// Enters a state now.
    pub fn enter(&mut self, state: State, reason: Option<Reason>) {
        self.state = state;
        self.reason = reason;
        self.changed = super::now_ms();
        self.version += 1;
    }

    /// Enters a state now that calls return to.
    pub fn rest(&mut self, state: State, reason: Option<Reason>) {
        self.base = state;
        self.base_reason = reason;
        self.enter(state, reason);
    }
}

/// One agent.
#[derive(Debug)]
pub struct Agent {
    /// Agent id.
    pub id: Arc<str>,
    /// Configuration.
    pub spec: AgentSpec,
    /// The `Authorization` header a right request carries.
    pub basic: String,
    /// Changing part.
    pub state: Mutex<AgentState>,
    /// Notification sessions on all nodes; at most one a resource and node.
    pub sessions: Mutex<Vec<Session>>,
    /// Length of `sessions`, readable without the lock.
    pub session_count: AtomicUsize,
    /// Counts sessions opened: a forced sign-out of an older count is void.
    pub session_epoch: AtomicU64,
    failures: AtomicU32,
    blocked_until: AtomicI64,
}

impl Agent {
    /// A signed-out agent.
    pub fn new(spec: AgentSpec) -> Self {
        let state = AgentState {
            state: State::Logout,
            base: State::Logout,
            base_reason: None,
            pending: None,
            reason: None,
            extension: String::new(),
            changed: 0,
            dialogs: Vec::new(),
            mobile: None,
            version: 0,
        };
        Self {
            id: spec.id.as_str().into(),
            basic: super::basic(&spec.id, &spec.password),
            spec,
            state: Mutex::new(state),
            sessions: Mutex::default(),
            session_count: AtomicUsize::new(0),
            session_epoch: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            blocked_until: AtomicI64::new(0),
        }
    }

    /// Notes a right or wrong password; `true` lets the request in. `after` wrong ones in a row
    /// block the user for `for_ms` milliseconds, also with the right password.
    pub fn admit(&self, right: bool, after: u32, for_ms: i64) -> bool {
        let until = self.blocked_until.load(Ordering::Relaxed);
        if until != 0 {
            if super::now_ms() < until {
                return false;
            }
            self.blocked_until.store(0, Ordering::Relaxed);
        }
        if right {
            if self.failures.load(Ordering::Relaxed) != 0 {
                self.failures.store(0, Ordering::Relaxed);
            }
            return true;
        }
        let failed = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if after > 0 && failed >= after {
            self.failures.store(0, Ordering::Relaxed);
            let until = super::now_ms().saturating_add(for_ms);
            self.blocked_until.store(until, Ordering::Relaxed);
        }
        false
    }

    /// Appends the User object; `tag` is `User` or `user`.
    pub fn write_user(&self, out: &mut String, tag: &str, state: &AgentState) {
        self.open_user(out, tag, state);
        let spec = &self.spec;
        leaf(out, "loginName", &spec.id);
        leaf(out, "mediaType", "1");
        if let Some(mobile) = &state.mobile {
            out.push_str("<mobileAgent>");
            leaf(out, "mode", &mobile.mode);
            leaf(out, "dialNumber", &mobile.dial_number);
            out.push_str("</mobileAgent>");
        }
        match state.reason {
            Some(reason) => {
                leaf(out, "reasonCodeId", &reason.id.to_string());
                reasons::write(out, "ReasonCode", reason, true);
            }
            None => leaf(out, "reasonCodeId", "-1"),
        }
        out.push_str("<roles><role>Agent</role>");
        if spec.supervisor {
            out.push_str("<role>Supervisor</role>");
        }
        out.push_str(
            "</roles><settings><wrapUpOnIncoming>OPTIONAL</wrapUpOnIncoming>\
             <wrapUpOnOutgoing>OPTIONAL</wrapUpOnOutgoing></settings>",
        );
        let team = spec.team.to_string();
        leaf(out, "teamId", &team);
        leaf(out, "teamName", &super::team_name(spec.team));
        if spec.supervisor {
            out.push_str("<teams><Team>");
            leaf(out, "id", &team);
            leaf(out, "name", &super::team_name(spec.team));
            leaf(out, "uri", &format!("/finesse/api/Team/{team}"));
            out.push_str("</Team></teams>");
        }
        self.close_user(out, tag, state);
    }

    /// Appends the shorter User of team lists and team notifications.
    pub fn write_summary(&self, out: &mut String, tag: &str, reason: &str, state: &AgentState) {
        self.open_user(out, tag, state);
        if let Some(code) = state.reason {
            reasons::write(out, reason, code, true);
        }
        self.close_user(out, tag, state);
    }

    fn open_user(&self, out: &mut String, tag: &str, state: &AgentState) {
        out.push('<');
        out.push_str(tag);
        out.push('>');
        leaf(
            out,
            "dialogs",
            &format!("/finesse/api/User/{}/Dialogs", self.id),
        );
        let extension = if state.extension.is_empty() {
            &self.spec.extension
        } else {
            &state.extension
        };
        leaf(out, "extension", extension);
        leaf(out, "firstName", &self.spec.first_name);
        leaf(out, "lastName", &self.spec.last_name);
        leaf(out, "loginId", &self.id);
        leaf(out, "pendingState", state.pending.map_or("", State::name));
    }

    fn close_user(&self, out: &mut String, tag: &str, state: &AgentState) {
        leaf(out, "state", state.state.name());
        leaf(out, "stateChangeTime", &super::timestamp(state.changed));
        leaf(out, "uri", &format!("/finesse/api/User/{}", self.id));
        out.push_str("</");
        out.push_str(tag);
        out.push('>');
    }

    /// The reported state now.
    pub fn current(&self) -> State {
        lock(&self.state).state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Hold, Logout, NotReady, Ready, Reserved, Talking, Work};

    fn ucce(from: State, verb: Verb) -> Option<Step> {
        transition(Deployment::Ucce, from, None, verb, false)
    }

    #[test]
    fn ucce_signs_out_from_not_ready_only() {
        assert_eq!(ucce(NotReady, Verb::Logout), Some(Step::To(Logout)));
        assert_eq!(ucce(Ready, Verb::Logout), None);
        assert_eq!(ucce(Logout, Verb::Logout), None);
        assert_eq!(
            transition(Deployment::Uccx, Ready, None, Verb::Logout, false),
            Some(Step::To(Logout))
        );
        assert_eq!(
            transition(Deployment::Ucce, Talking, None, Verb::Logout, true),
            Some(Step::To(Logout))
        );
    }

    #[test]
    fn states_asked_for_in_a_call_are_pending() {
        assert_eq!(ucce(Talking, Verb::NotReady), Some(Step::Pending(NotReady)));
        assert_eq!(ucce(Hold, Verb::Work), Some(Step::Pending(Work)));
        assert_eq!(ucce(Ready, Verb::Work), None);
        assert_eq!(ucce(Reserved, Verb::NotReady), None);
        assert_eq!(
            transition(
                Deployment::Uccx,
                Talking,
                Some(NotReady),
                Verb::NotReady,
                false
            ),
            Some(Step::WorkmodeRefused)
        );
    }

    #[test]
    fn signing_in_again_keeps_the_state() {
        assert_eq!(ucce(Logout, Verb::Login), Some(Step::To(NotReady)));
        assert_eq!(ucce(Ready, Verb::Login), Some(Step::Same));
        assert_eq!(ucce(Logout, Verb::Ready), None);
    }

    #[test]
    fn five_wrong_passwords_block_for_a_while() {
        let agent = Agent::new(
            super::super::config::Config::loopback(1, 1)
                .agents
                .list()
                .remove(0),
        );
        for _ in 0..4 {
            assert!(!agent.admit(false, 5, 60_000));
        }
        assert!(agent.admit(true, 5, 60_000));
        for _ in 0..5 {
            assert!(!agent.admit(false, 5, 60_000));
        }
        assert!(!agent.admit(true, 5, 60_000));
    }
}
