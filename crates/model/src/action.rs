//! What the connector asks of the downstream platform, and what it can learn.

use super::{
    AgentId, Contact, Dialog, HttpAnswer, HttpRequest, Mobile, PhoneBook, Queue, Shortage, Team,
    User,
};

/// A request of one call-control action on an existing dialog that needs no more than a device.
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
    /// Join the parties of the held main call and of the consultation, and leave.
    Transfer,
    /// Join the parties of the held main call and of the consultation, and stay.
    Conference,
    /// Take a participant out; the device is the participant's.
    DropParticipant,
    /// Take an offered preview call.
    Accept,
    /// Refuse an offered preview call; it is offered again later.
    Reject,
    /// Refuse an offered preview call for good.
    Close,
    /// Forget a scheduled callback.
    CancelCallback,
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
            Self::Transfer => "TRANSFER",
            Self::Conference => "CONFERENCE",
            Self::DropParticipant => "PARTICIPANT_DROP",
            Self::Accept => "ACCEPT",
            Self::Reject => "REJECT",
            Self::Close => "CLOSE",
            Self::CancelCallback => "CANCEL_SCHEDULED_CALLBACK",
        }
    }
}

/// A request on an existing dialog that calls somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialVerb {
    /// Hold the call and call somebody else.
    Consult,
    /// Hand the call over without asking first (blind transfer).
    BlindTransfer,
}

impl DialVerb {
    /// The platform's `requestedAction`.
    #[must_use]
    pub fn requested_action(self) -> &'static str {
        match self {
            Self::Consult => "CONSULT_CALL",
            Self::BlindTransfer => "TRANSFER_SST",
        }
    }
}

/// A request on a campaign call with named parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CampaignVerb {
    /// Set time or number of a callback.
    ScheduleCallback,
    /// Say what answered.
    Reclassify,
}

impl CampaignVerb {
    /// The platform's `requestedAction`.
    #[must_use]
    pub fn requested_action(self) -> &'static str {
        match self {
            Self::ScheduleCallback => "UPDATE_SCHEDULED_CALLBACK",
            Self::Reclassify => "RECLASSIFY",
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
        /// The phone of a mobile agent.
        mobile: Option<Mobile>,
    },
    /// `PUT User/{id}` with a state.
    SetState {
        /// `READY`, `NOT_READY`, `LOGOUT`, `WORK`, `WORK_READY`.
        state: &'static str,
        /// Database id of the reason.
        reason: Option<String>,
    },
    /// `PUT User/{member}` by a supervisor: the platform refuses a reason there and gives its own.
    SetMemberState {
        /// Whose state.
        member: AgentId,
        /// `READY`, `NOT_READY`, `LOGOUT`.
        state: &'static str,
    },
    /// `GET User/{id}`.
    ReadUser,
    /// `GET User/{member}` as administrator.
    ReadMember {
        /// Whom.
        member: AgentId,
    },
    /// `GET Users` as administrator.
    ReadUsers,
    /// `GET Team/{id}`.
    ReadTeam {
        /// Team id.
        team: String,
    },
    /// `GET User/{id}/Queues`.
    ReadQueues,
    /// `GET PhoneBooks` or `GET Team/{id}/PhoneBooks` as administrator.
    ReadPhoneBooks {
        /// Only this team's.
        team: Option<String>,
    },
    /// `GET PhoneBook/{id}/Contacts` as administrator.
    ReadContacts {
        /// Phone book id.
        book: String,
    },
    /// `GET User/{id}/Dialogs`.
    ReadDialogs,
    /// `GET Dialog/{id}`.
    ReadDialog {
        /// Call id.
        dialog: String,
    },
    /// `GET User/{id}/ReasonCodes?category=` or `…/WrapUpReasons`.
    ReadReasons(ReasonCategory),
    /// `GET TeamResource/{team}/ReasonCodes?category=` or `…/WrapUpReasons`: the newer form, with
    /// the same answer.
    ReadTeamReasons {
        /// The agent's team.
        team: String,
        /// Which list.
        category: ReasonCategory,
    },
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
        /// Device that it is about (`targetMediaAddress`): the agent's own but for
        /// [`DialogVerb::DropParticipant`].
        target: String,
    },
    /// `PUT Dialog/{id}` with a number.
    Dial {
        /// Call id.
        dialog: String,
        /// What to do.
        verb: DialVerb,
        /// Own extension.
        target: String,
        /// Number, sent as given.
        to: String,
    },
    /// `PUT Dialog/{id}` with `UPDATE_CALL_DATA`.
    CallData {
        /// Call id.
        dialog: String,
        /// Own extension, where known.
        target: Option<String>,
        /// Variables to set, names as given.
        variables: Vec<(String, String)>,
        /// Label of the wrap-up reason.
        wrap_up: Option<String>,
    },
    /// `PUT Dialog/{id}` of a campaign call.
    Campaign {
        /// Call id.
        dialog: String,
        /// What to do.
        verb: CampaignVerb,
        /// Own extension.
        target: String,
        /// `ActionParam` name and value.
        parameter: (&'static str, String),
    },
    /// `POST User/{id}/Dialogs` with `SILENT_MONITOR`, or `BARGE_CALL` where already monitoring.
    Supervise {
        /// Own extension.
        from: String,
        /// The agent's extension.
        to: String,
        /// The monitor call that becomes a full participation.
        barge: Option<String>,
    },
    /// A request to a generic HTTP downstream.
    Http(Box<HttpRequest>),
}

impl Action {
    /// Whether running it twice does no harm, so that its request may be retried and sent to
    /// the other node after a doubt (connector reference, "Repeat").
    #[must_use]
    pub fn idempotent(&self) -> bool {
        match self {
            Self::SetState { state, .. } | Self::SetMemberState { state, .. } => *state != "LOGOUT",
            Self::MakeCall { .. }
            | Self::OnDialog { .. }
            | Self::Dial { .. }
            | Self::Supervise { .. } => false,
            Self::Http(request) => request.idempotent,
            _ => true,
        }
    }

    /// Whether only the platform's administrator may ask this.
    #[must_use]
    pub fn needs_admin(&self) -> bool {
        matches!(
            self,
            Self::ReadMember { .. }
                | Self::ReadUsers
                | Self::ReadPhoneBooks { .. }
                | Self::ReadContacts { .. }
        )
    }

    /// Whether the answer is a list that may be long: it is given more room and more time.
    #[must_use]
    pub fn reads_list(&self) -> bool {
        matches!(
            self,
            Self::ReadUsers
                | Self::ReadTeam { .. }
                | Self::ReadQueues
                | Self::ReadPhoneBooks { .. }
                | Self::ReadContacts { .. }
        )
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
            Self::ReadReasons(_) | Self::ReadTeamReasons { .. } => "read_reasons",
            Self::MakeCall { .. } => "make_call",
            Self::OnDialog { .. } => "on_dialog",
            Self::SetMemberState { .. } => "set_member_state",
            Self::ReadMember { .. } => "read_member",
            Self::ReadUsers => "read_users",
            Self::ReadTeam { .. } => "read_team",
            Self::ReadQueues => "read_queues",
            Self::ReadPhoneBooks { .. } => "read_phone_books",
            Self::ReadContacts { .. } => "read_contacts",
            Self::Dial { .. } => "dial",
            Self::CallData { .. } => "call_data",
            Self::Campaign { .. } => "campaign",
            Self::Supervise { .. } => "supervise",
            Self::Http(_) => "http",
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
    /// Answer of [`Action::ReadReasons`] and [`Action::ReadTeamReasons`].
    Reasons(ReasonCategory, Vec<ReasonCode>),
    /// Answer of [`Action::ReadUsers`].
    Users(Vec<User>),
    /// Answer of [`Action::ReadTeam`].
    TeamUsers(Team, Vec<User>),
    /// Answer of [`Action::ReadMember`].
    Member(Box<User>),
    /// Answer of [`Action::ReadQueues`].
    Queues(Vec<Queue>),
    /// Answer of [`Action::ReadPhoneBooks`].
    PhoneBooks(Vec<PhoneBook>),
    /// Answer of [`Action::Http`], whatever its status.
    Http(Box<HttpAnswer>),
    /// Answer of [`Action::ReadContacts`].
    Contacts(Vec<Contact>),
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
    /// The request never left: this machine lacks what it takes. Nothing is known of the node, and
    /// another one would fare no better.
    NoRoom(Shortage),
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
    /// A generic HTTP downstream answered what leaves open whether it was executed: 5xx, a redirect.
    Unsettled {
        /// HTTP status.
        status: u16,
        /// What it said.
        answer: Box<HttpAnswer>,
        /// Why it says nothing, without secrets.
        reason: String,
    },
}
