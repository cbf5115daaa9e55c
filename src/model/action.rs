//! What the connector asks of the downstream platform, and what it can learn.

use super::{Dialog, User};

/// A request of one call-control action on an existing dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialogVerb {
    /// Answer an alerting call.
    Answer,
    /// Put an active call on hold.
    Hold,
    /// Take a held call back.
    Retrieve,
    /// Leave the call.
    Drop,
}

impl DialogVerb {
    /// The platform's `requestedAction`.
    #[must_use]
    pub fn requested_action(self) -> &'static str {
        match self {
            Self::Answer => "ANSWER",
            Self::Hold => "HOLD",
            Self::Retrieve => "RETRIEVE",
            Self::Drop => "DROP",
        }
    }
}

/// Which list of reason codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasonCategory {
    /// Reasons for not being ready.
    NotReady,
    /// Reasons for signing out.
    Logout,
    /// Wrap-up reasons (labels without codes).
    WrapUp,
}

/// One reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReasonCode {
    /// Database id: the last segment of its `uri`.
    pub id: String,
    /// Label.
    pub label: String,
}

/// One downstream request, always for one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `PUT User/{id}` with `LOGIN`.
    SignIn {
        /// Device to sign in on.
        extension: String,
    },
    /// `PUT User/{id}` with a state.
    SetState {
        /// `READY`, `NOT_READY`, `LOGOUT`, `WORK`, `WORK_READY`.
        state: &'static str,
        /// Database id of the reason.
        reason: Option<String>,
    },
    /// `GET User/{id}`.
    ReadUser,
    /// `GET User/{id}/Dialogs`.
    ReadDialogs,
    /// `GET Dialog/{id}`.
    ReadDialog {
        /// Call id.
        dialog: String,
    },
    /// `GET User/{id}/ReasonCodes?category=` or `…/WrapUpReasons`.
    ReadReasons(ReasonCategory),
    /// `POST User/{id}/Dialogs` with `MAKE_CALL`.
    MakeCall {
        /// Own extension.
        from: String,
        /// Number to call, sent as given.
        to: String,
    },
    /// `PUT Dialog/{id}`.
    OnDialog {
        /// Call id.
        dialog: String,
        /// What to do.
        verb: DialogVerb,
        /// Own extension (`targetMediaAddress`).
        target: String,
    },
}

impl Action {
    /// Whether running it twice does no harm, so that its request may be retried and sent to
    /// the other node after a doubt (connector reference, "Repeat").
    #[must_use]
    pub fn idempotent(&self) -> bool {
        match self {
            Self::SetState { state, .. } => *state != "LOGOUT",
            Self::MakeCall { .. } | Self::OnDialog { .. } => false,
            _ => true,
        }
    }

    /// Short name for metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SignIn { .. } => "sign_in",
            Self::SetState { .. } => "set_state",
            Self::ReadUser => "read_user",
            Self::ReadDialogs => "read_dialogs",
            Self::ReadDialog { .. } => "read_dialog",
            Self::ReadReasons(_) => "read_reasons",
            Self::MakeCall { .. } => "make_call",
            Self::OnDialog { .. } => "on_dialog",
        }
    }
}

/// A refusal in the platform's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiError {
    /// `ErrorType`, e.g. `Invalid State`.
    pub kind: String,
    /// `ErrorMessage`, often a constant such as `CF_RESOURCE_BUSY`.
    pub message: String,
    /// `ErrorData`.
    pub data: String,
}

/// Content of a successful answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: the result comes as a notification.
    Empty,
    /// Answer of [`Action::ReadUser`].
    User(Box<User>),
    /// Answer of [`Action::ReadDialogs`].
    Dialogs(Vec<Dialog>),
    /// Answer of [`Action::ReadDialog`].
    Dialog(Box<Dialog>),
    /// Answer of [`Action::ReadReasons`].
    Reasons(ReasonCategory, Vec<ReasonCode>),
}

/// What became of one downstream request, classified so that the engine need not know HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallOutcome {
    /// 2xx.
    Done {
        /// HTTP status.
        status: u16,
        /// Parsed body.
        answer: Answer,
    },
    /// 4xx: executed by nobody, the platform said why.
    Refused {
        /// HTTP status.
        status: u16,
        /// Its error; empty fields where the body was no `ApiErrors`.
        error: ApiError,
    },
    /// The request never left: connect, DNS or TLS failure. Another node may be tried.
    NotSent {
        /// Whether the connect timed out (as opposed to refused or failed).
        timed_out: bool,
        /// Why, without secrets.
        reason: String,
    },
    /// The shell did not send it: this process had been away since it was decided on. Nothing is
    /// known of the node.
    Withheld,
    /// 503: the platform is out of service and did not execute it. Another node may be tried.
    OutOfService {
        /// Why.
        reason: String,
    },
    /// It may or may not have been executed: timeout after sending, reset, truncated or
    /// unreadable answer, other 5xx, unexpected status.
    Unknown {
        /// HTTP status, if there was one.
        status: Option<u16>,
        /// Whether the time was up.
        timed_out: bool,
        /// Why, without secrets.
        reason: String,
    },
}
