//! Events to clients: what they mean, apart from how they are written.

mod choose;
mod json;
mod list;
mod text;
mod time;

pub use choose::{Viewer, choose, continued};
pub use list::{List, ListEvent, Note};

use chrono::{Local, TimeZone};

use crate::model::{AgentId, Destination, Dialog, ReasonCategory, ReasonCode, Team, User};
use crate::reply::Outcome;

/// How events are written (`message.format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object a message.
    #[default]
    Json,
    /// Fields joined by `#`.
    Default,
    /// The same, with call variables as values only, as an older guide of the original has them.
    Values,
}

/// Health of the connector's downstream side as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemStatus {
    /// Commands can be carried out.
    InService,
    /// They cannot.
    OutOfService,
}

/// Which family of call event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// A call alerts.
    NewInbound,
    /// A campaign call alerts.
    NewOutbound,
    /// A campaign call is offered for preview.
    NewOutboundPreview,
    /// A call changed.
    Inbound,
    /// A consultation changed.
    Consult,
}

/// In what form a call event is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallPhase {
    /// With the call's state.
    Live,
    /// The call failed for this cause, e.g. `BUSY`.
    Failed {
        /// The participant's `stateCause`.
        cause: String,
    },
    /// The call is over for this agent.
    Dropped,
}

/// A call event for one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallEvent {
    /// The agent.
    pub agent: AgentId,
    /// The agent's full name.
    pub name: String,
    /// The agent's own extension, which tells its own participant.
    pub extension: String,
    /// Family.
    pub kind: CallKind,
    /// Form.
    pub phase: CallPhase,
    /// The call.
    pub dialog: Dialog,
}

/// Something a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// Answer to `Hello` and `Beat`; also sent on change.
    System(SystemStatus),
    /// The client must connect and sign in every agent on its list.
    DestinationReconnect {
        /// The client.
        destination: Destination,
    },
    /// The agent is connected. Not told in the text form.
    ConnectStatus,
    /// Something went wrong.
    Error {
        /// Whom it is about, where that is known.
        agent: Option<AgentId>,
        /// A code of the reference, section 5.
        code: String,
        /// For a person.
        message: String,
    },
    /// Who the agent is, once a session.
    AgentInfo {
        /// The agent.
        agent: AgentId,
        /// As the platform shows it.
        user: Box<User>,
    },
    /// The agent's state.
    State {
        /// The agent.
        agent: AgentId,
        /// As the platform shows it.
        user: Box<User>,
    },
    /// The agent is unknown here: connect and sign in again.
    ReLogin {
        /// The agent.
        agent: AgentId,
    },
    /// State `LOGOUT` for a destination that lost the agent to another; the agent itself may well
    /// stay signed in.
    LogoutState {
        /// The agent.
        agent: AgentId,
    },
    /// A call event.
    Call(Box<CallEvent>),
    /// Answer to `GetDialogState`.
    DialogState {
        /// The agent.
        agent: AgentId,
        /// The agent's full name.
        name: String,
        /// Call id.
        dialog: String,
        /// Dialog state, `HELD` where the own participant is, or `NOT_FOUND`.
        state: String,
    },
    /// All calls of the agent.
    DialogStatus {
        /// The agent.
        agent: AgentId,
        /// The agent's own extension.
        extension: String,
        /// Its calls; may be empty.
        dialogs: Vec<Dialog>,
    },
    /// A list of reasons.
    ReasonCodes {
        /// The agent.
        agent: AgentId,
        /// The agent's full name.
        name: String,
        /// Which list.
        category: ReasonCategory,
        /// The reasons.
        reasons: Vec<ReasonCode>,
    },
    /// The teams of a supervisor: two messages in the text form, none in JSON, where `AgentInfo`
    /// carries them.
    TeamInfo {
        /// The supervisor.
        agent: AgentId,
        /// The supervisor's full name.
        name: String,
        /// The teams.
        teams: Vec<Team>,
    },
    /// The state of a team's member, told to its supervisor.
    MemberState {
        /// The supervisor.
        agent: AgentId,
        /// The member.
        user: Box<User>,
    },
    /// The answer to a list command.
    List(Box<ListEvent>),
    /// Words for the agent's status bar or a message box.
    Note {
        /// The agent.
        agent: AgentId,
        /// What.
        note: Note,
    },
    /// A command that was in doubt was found out.
    Resolved {
        /// The agent.
        agent: AgentId,
        /// Command name.
        command: String,
        /// The command's id as the client gave it.
        id: String,
        /// What became of it.
        outcome: Outcome,
    },
}

impl ClientEvent {
    /// The answer to a list command.
    #[must_use]
    pub fn list(agent: &AgentId, name: &str, list: List) -> Self {
        Self::List(Box::new(ListEvent {
            agent: agent.clone(),
            name: name.to_owned(),
            list,
        }))
    }

    /// `DialogState` of a call that was found.
    #[must_use]
    pub fn dialog_state(viewer: &Viewer<'_>, dialog: &Dialog) -> Self {
        Self::DialogState {
            agent: viewer.agent.clone(),
            name: viewer.name.to_owned(),
            dialog: dialog.id.clone(),
            state: shown_state(dialog, viewer.extension).to_owned(),
        }
    }

    /// `DialogState` of a call that the platform does not know.
    #[must_use]
    pub fn dialog_not_found(viewer: &Viewer<'_>, dialog: &str) -> Self {
        Self::DialogState {
            agent: viewer.agent.clone(),
            name: viewer.name.to_owned(),
            dialog: dialog.to_owned(),
            state: "NOT_FOUND".to_owned(),
        }
    }
}

/// The dialog's state, but `HELD` where the agent itself holds it: the platform leaves the dialog
/// `ACTIVE` then.
fn shown_state<'a>(dialog: &'a Dialog, extension: &str) -> &'a str {
    match dialog.participant(extension) {
        Some(own) if own.state == "HELD" && !dialog.ended() => "HELD",
        _ => &dialog.state,
    }
}

/// Call variables in the clients' order: `callVariable1` to `callVariable10`, then the others as
/// the platform has them, and always last `ani`, the calling number.
fn variables(dialog: &Dialog) -> Vec<(&str, &str)> {
    let mut list: Vec<(&str, &str)> = dialog
        .call_variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| *name != "ani")
        .collect();
    // A stable sort leaves the others in their order.
    list.sort_by_key(|(name, _)| {
        name.strip_prefix("callVariable")
            .and_then(|number| number.parse().ok())
            .unwrap_or(u32::MAX)
    });
    let given = dialog.call_variables.iter().find(|(name, _)| name == "ani");
    let ani = given.map_or(dialog.from_address.as_str(), |(_, value)| value);
    list.push(("ani", ani));
    list
}

/// When the agent's part of the call began, in the platform's words; empty where unknown.
fn start_of<'a>(dialog: &'a Dialog, extension: &str) -> &'a str {
    let own = dialog.participant(extension);
    own.into_iter()
        .chain(&dialog.participants)
        .map(|party| party.start_time.as_str())
        .find(|time| !time.is_empty())
        .unwrap_or_default()
}

/// Reason id as clients know it: `-1` for sign-out and not-ready without one, else empty.
fn shown_reason(user: &User) -> &str {
    match (user.reason_code_id.as_str(), user.state.as_str()) {
        ("" | "-1", "LOGOUT" | "NOT_READY") => "-1",
        ("" | "-1", _) => "",
        (id, _) => id,
    }
}

/// Writes an event; times are told in the host's zone. One event is one message, but for the
/// text form of [`ClientEvent::TeamInfo`] (two), and where a form does not have the event (none).
#[must_use]
pub fn render(event: &ClientEvent, format: Format) -> Vec<Vec<u8>> {
    render_in(event, format, &Local)
}

/// [`render`] in a given time zone.
fn render_in<Z: TimeZone>(event: &ClientEvent, format: Format, zone: &Z) -> Vec<Vec<u8>>
where
    Z::Offset: std::fmt::Display,
{
    match format {
        Format::Json => json::render(event, zone).into_iter().collect(),
        Format::Default | Format::Values => text::render(event, zone, format == Format::Default)
            .into_iter()
            .map(String::into_bytes)
            .collect(),
    }
}

#[cfg(test)]
mod tests;
