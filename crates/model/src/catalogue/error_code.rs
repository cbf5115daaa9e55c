//! Error codes that clients know (reference, section 5).

/// An error code of the connector itself; the platform's own constants are passed on as texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// Bad credentials at Connect.
    SubscriptionFailed,
    /// No connection to the notification service.
    UnableToSubscribe,
    /// Another destination took the agent.
    SessionInvalidated,
    /// Login without extension.
    MissingExtension,
    /// Extension with letters.
    WrongExtension,
    /// Login without password.
    MissingPassword,
    /// The state change needs a reason.
    MissingReasonCode,
    /// A call command without dialog id.
    MissingDialogId,
    /// MakeCall without number.
    MissingNumber,
    /// The dialog is not known.
    NoDialogId,
    /// Incomplete call variable.
    InvalidCallData,
    /// Bad parameters, I/O error, timeout, overload.
    PleaseRetry,
    /// No answer from the downstream.
    Down,
    /// The downstream could not be connected.
    NotReachable,
    /// The agent is not known here: Connect and Login again.
    ReLogin,
    /// The command needs a system that this connector does not ask.
    NotImplemented,
    /// The request is not on the allow-list.
    NotAllowed,
}

impl ErrorCode {
    /// All.
    pub const ALL: [Self; 17] = [
        Self::SubscriptionFailed,
        Self::UnableToSubscribe,
        Self::SessionInvalidated,
        Self::MissingExtension,
        Self::WrongExtension,
        Self::MissingPassword,
        Self::MissingReasonCode,
        Self::MissingDialogId,
        Self::MissingNumber,
        Self::NoDialogId,
        Self::InvalidCallData,
        Self::PleaseRetry,
        Self::Down,
        Self::NotReachable,
        Self::ReLogin,
        Self::NotImplemented,
        Self::NotAllowed,
    ];

    /// The code on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SubscriptionFailed => "SUBSCRIPTION_FAILED",
            Self::UnableToSubscribe => "UNABLE_TO_SUBSCRIBE_TO_FINESSE",
            Self::SessionInvalidated => "SESSION_INVALIDATED",
            Self::MissingExtension => "MISSING_EXTENSION",
            Self::WrongExtension => "WRONG_EXTENSION",
            Self::MissingPassword => "MISSING_PASSWORD",
            Self::MissingReasonCode => "MISSING_REASON_CODE",
            Self::MissingDialogId => "MISSING_DIALOG_ID",
            Self::MissingNumber => "MISSING_NUMBER",
            Self::NoDialogId => "NO_DIALOG_ID",
            Self::InvalidCallData => "INVALID_CALL_DATA",
            Self::PleaseRetry => "PLEASE_RETRY",
            Self::Down => "DOWN",
            Self::NotReachable => "NOT_REACHABLE",
            Self::ReLogin => "RE_LOGIN",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::NotAllowed => "NOT_ALLOWED",
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
