//! Events as JSON objects (connector reference, section 4). Field order is the order on the wire.

mod list;

use std::fmt::Display;

use chrono::TimeZone;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::time::local;
use super::{
    CallEvent, CallKind, CallPhase, ClientEvent, SystemStatus, shown_reason, shown_state, start_of,
};
use crate::model::{Dialog, Participant, ReasonCategory, ReasonCode, Team, User};

/// The message body; `None` where the form does not have the event.
pub(super) fn render<Z: TimeZone>(event: &ClientEvent, zone: &Z) -> Option<Vec<u8>>
where
    Z::Offset: Display,
{
    Some(match event {
        ClientEvent::System(SystemStatus::InService) => status("System", "IN_SERVICE"),
        ClientEvent::System(SystemStatus::OutOfService) => status("System", "OUT_OF_SERVICE"),
        ClientEvent::DestinationReconnect { destination } => bytes(&Reconnect {
            r#type: "DESTINATION",
            destination: destination.as_str(),
            status: "RECONNECT",
        }),
        ClientEvent::ConnectStatus => status("ConnectStatus", "ConnectSuccess"),
        ClientEvent::Error {
            agent,
            code,
            message,
        } => bytes(&Error {
            r#type: "Error",
            agent_id: agent.as_ref().map(|agent| agent.as_str()),
            error_type: code,
            error_message: message,
        }),
        ClientEvent::AgentInfo { agent, user } => bytes(&agent_info(agent.as_str(), user)),
        ClientEvent::State { agent, user } => bytes(&state(agent.as_str(), user, zone)),
        ClientEvent::ReLogin { agent } => bytes(&State::bare(agent.as_str(), "RE_LOGIN", "")),
        ClientEvent::LogoutState { agent } => bytes(&State::bare(agent.as_str(), "LOGOUT", "-1")),
        ClientEvent::Call(call) => self::call(call, zone),
        ClientEvent::DialogState {
            agent,
            dialog,
            state,
            ..
        } => dialog_state(agent.as_str(), dialog, state),
        ClientEvent::DialogStatus {
            agent,
            extension,
            dialogs,
        } => dialog_status(agent.as_str(), extension, dialogs, zone),
        ClientEvent::ReasonCodes {
            agent,
            category,
            reasons,
            ..
        } => bytes(&reason_codes(agent.as_str(), *category, reasons)),
        ClientEvent::TeamInfo { .. } => return None,
        ClientEvent::MemberState { agent, user } => list::member_state(agent.as_str(), user, zone),
        ClientEvent::List(event) => list::render(event, zone),
        ClientEvent::Note { agent, note } => list::note(agent.as_str(), note),
        ClientEvent::Resolved {
            agent,
            command,
            id,
            outcome,
        } => bytes(&Resolved {
            r#type: "Resolved",
            command,
            id,
            outcome: outcome.as_str(),
            agent_id: agent.as_str(),
        }),
    })
}

fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(320);
    // Writing to memory cannot fail, and all keys are texts.
    if serde_json::to_writer(&mut out, value).is_err() {
        out.clear();
    }
    out
}

#[derive(Serialize)]
struct Status {
    r#type: &'static str,
    status: &'static str,
}

fn status(r#type: &'static str, status: &'static str) -> Vec<u8> {
    bytes(&Status { r#type, status })
}

/// The reference has only the text form of this event; this is the same fields.
#[derive(Serialize)]
struct Reconnect<'a> {
    r#type: &'static str,
    destination: &'a str,
    status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Error<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
    error_type: &'a str,
    error_message: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentInfo<'a> {
    r#type: &'static str,
    first_name: &'a str,
    last_name: &'a str,
    supervisor: bool,
    wrap_up_on_incoming: &'a str,
    total_number_of_teams: String,
    teams: Vec<TeamOut<'a>>,
    team: TeamOut<'a>,
    agent_id: &'a str,
}

#[derive(Serialize)]
struct TeamOut<'a> {
    id: &'a str,
    name: &'a str,
}

impl<'a> From<&'a Team> for TeamOut<'a> {
    fn from(team: &'a Team) -> Self {
        Self {
            id: &team.id,
            name: &team.name,
        }
    }
}

fn agent_info<'a>(agent: &'a str, user: &'a User) -> AgentInfo<'a> {
    let teams: &[Team] = if user.supervisor { &user.teams } else { &[] };
    AgentInfo {
        r#type: "AgentInfo",
        first_name: &user.first_name,
        last_name: &user.last_name,
        supervisor: user.supervisor,
        wrap_up_on_incoming: &user.wrap_up_on_incoming,
        total_number_of_teams: if user.supervisor {
            teams.len().to_string()
        } else {
            String::new()
        },
        teams: teams.iter().map(TeamOut::from).collect(),
        team: TeamOut::from(&user.team),
        agent_id: agent,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    r#type: &'static str,
    agent_id: &'a str,
    state: &'a str,
    reason_code: &'a str,
    /// Part of the format, never used.
    state_change_time_string: &'static str,
    pending_state: &'a str,
    state_change_time: String,
    full_name: String,
    extension: &'a str,
    label: &'a str,
    /// The member, where it is told to a supervisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    team_agent_id: Option<&'a str>,
}

impl<'a> State<'a> {
    fn bare(agent: &'a str, state: &'a str, reason: &'a str) -> Self {
        State {
            r#type: "State",
            agent_id: agent,
            state,
            reason_code: reason,
            state_change_time_string: "",
            pending_state: "",
            state_change_time: String::new(),
            full_name: String::new(),
            extension: "",
            label: "",
            team_agent_id: None,
        }
    }
}

fn state<'a, Z: TimeZone>(agent: &'a str, user: &'a User, zone: &Z) -> State<'a>
where
    Z::Offset: Display,
{
    State {
        pending_state: &user.pending_state,
        state_change_time: local(&user.state_change_time, zone),
        full_name: user.full_name(),
        extension: &user.extension,
        label: &user.reason_label,
        ..State::bare(agent, &user.state, shown_reason(user))
    }
}

/// `callVariables`: an array of objects with one key each.
struct Variables<'a>(&'a Dialog);

impl Serialize for Variables<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let list = super::variables(self.0);
        let mut out = serializer.serialize_seq(Some(list.len()))?;
        for (name, value) in list {
            out.serialize_element(&Single(name, value))?;
        }
        out.end()
    }
}

struct Single<'a>(&'a str, &'a str);

impl Serialize for Single<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, self.1)?;
        map.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PartyOut<'a> {
    media_address: &'a str,
    state: &'a str,
    address_type: &'a str,
    state_cause: &'a str,
    state_change_time: String,
}

fn parties<'a, Z: TimeZone>(parties: &'a [Participant], zone: &Z) -> Vec<PartyOut<'a>>
where
    Z::Offset: Display,
{
    parties
        .iter()
        .map(|party| PartyOut {
            media_address: &party.media_address,
            state: &party.state,
            address_type: &party.media_address_type,
            state_cause: &party.state_cause,
            state_change_time: local(&party.state_change_time, zone),
        })
        .collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewCall<'a> {
    r#type: &'static str,
    dialog_id: &'a str,
    from_address: &'a str,
    call_variables: Variables<'a>,
    participants: Vec<PartyOut<'a>>,
    call_type: &'a str,
    queue_name: &'a str,
    agent_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inbound<'a> {
    r#type: &'static str,
    dialog_id: &'a str,
    state: &'a str,
    start_time: String,
    associated_dialog_id: Option<&'a str>,
    from_address: &'a str,
    call_variables: Variables<'a>,
    participants: Vec<PartyOut<'a>>,
    call_type: &'a str,
    queue_name: &'a str,
    agent_id: &'a str,
}

/// The end of a call has an order of its own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dropped<'a> {
    r#type: &'static str,
    dialog_id: &'a str,
    associated_dialog_id: Option<&'a str>,
    state: &'static str,
    call_type: &'a str,
    queue_name: &'a str,
    participants: Vec<PartyOut<'a>>,
    agent_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Consult<'a> {
    r#type: &'static str,
    state: &'a str,
    /// The id of the consultation itself, despite the name.
    ass_dialog_id: &'a str,
    from_address: &'a str,
    to_address: &'a str,
    start_time: String,
    call_variables: Variables<'a>,
    participants: Vec<PartyOut<'a>>,
    call_type: &'a str,
    queue_name: &'a str,
    agent_id: &'a str,
}

fn associated(dialog: &Dialog) -> Option<&str> {
    Some(dialog.associated_dialog_id.as_str()).filter(|id| !id.is_empty())
}

fn call<Z: TimeZone>(call: &CallEvent, zone: &Z) -> Vec<u8>
where
    Z::Offset: Display,
{
    let agent = call.agent.as_str();
    let dialog = &call.dialog;
    let new = |name| NewCall {
        r#type: name,
        dialog_id: &dialog.id,
        from_address: &dialog.from_address,
        call_variables: Variables(dialog),
        participants: parties(&dialog.participants, zone),
        call_type: &dialog.call_type,
        queue_name: &dialog.queue_name,
        agent_id: agent,
    };
    let state = match &call.phase {
        CallPhase::Live => shown_state(dialog, &call.extension),
        CallPhase::Failed { .. } => "FAILED",
        CallPhase::Dropped => "DROPPED",
    };
    match (call.kind, &call.phase) {
        (CallKind::Consult, _) => bytes(&Consult {
            r#type: "ConsultCall",
            state,
            ass_dialog_id: &dialog.id,
            from_address: &dialog.from_address,
            to_address: &dialog.to_address,
            start_time: local(start_of(dialog, &call.extension), zone),
            call_variables: Variables(dialog),
            participants: parties(&dialog.participants, zone),
            call_type: &dialog.call_type,
            queue_name: &dialog.queue_name,
            agent_id: agent,
        }),
        (_, CallPhase::Dropped) => bytes(&Dropped {
            r#type: "InboundCall",
            dialog_id: &dialog.id,
            associated_dialog_id: associated(dialog),
            state: "DROPPED",
            call_type: &dialog.call_type,
            queue_name: &dialog.queue_name,
            participants: parties(&dialog.participants, zone),
            agent_id: agent,
        }),
        (CallKind::NewInbound, CallPhase::Live) => bytes(&new("NewInboundCall")),
        (CallKind::NewOutbound, CallPhase::Live) => bytes(&new("NewOutboundCall")),
        (CallKind::NewOutboundPreview, CallPhase::Live) => bytes(&new("NewOutboundPreviewCall")),
        (_, CallPhase::Live | CallPhase::Failed { .. }) => bytes(&Inbound {
            state,
            ..inbound(agent, &call.extension, dialog, zone)
        }),
    }
}

fn inbound<'a, Z: TimeZone>(
    agent: &'a str,
    extension: &str,
    dialog: &'a Dialog,
    zone: &Z,
) -> Inbound<'a>
where
    Z::Offset: Display,
{
    Inbound {
        r#type: "InboundCall",
        dialog_id: &dialog.id,
        state: shown_state(dialog, extension),
        start_time: local(start_of(dialog, extension), zone),
        associated_dialog_id: associated(dialog),
        from_address: &dialog.from_address,
        call_variables: Variables(dialog),
        participants: parties(&dialog.participants, zone),
        call_type: &dialog.call_type,
        queue_name: &dialog.queue_name,
        agent_id: agent,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DialogState<'a> {
    r#type: &'static str,
    dialog_id: &'a str,
    state: &'a str,
    agent_id: &'a str,
}

fn dialog_state(agent: &str, dialog: &str, state: &str) -> Vec<u8> {
    bytes(&DialogState {
        r#type: "DialogState",
        dialog_id: dialog,
        state,
        agent_id: agent,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DialogStatus<'a> {
    r#type: &'static str,
    agent_id: &'a str,
    dialogs: Vec<Inbound<'a>>,
}

fn dialog_status<Z: TimeZone>(agent: &str, extension: &str, list: &[Dialog], zone: &Z) -> Vec<u8>
where
    Z::Offset: Display,
{
    let inbound = |dialog| inbound(agent, extension, dialog, zone);
    bytes(&DialogStatus {
        r#type: "DialogStatus",
        agent_id: agent,
        dialogs: list.iter().map(inbound).collect(),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReasonCodes<'a> {
    r#type: &'static str,
    category: &'static str,
    reason_codes: Vec<Reason<'a>>,
    agent_id: &'a str,
}

#[derive(Serialize)]
struct Reason<'a> {
    code: &'a str,
    label: &'a str,
}

fn reason_codes<'a>(
    agent: &'a str,
    category: ReasonCategory,
    reasons: &'a [ReasonCode],
) -> ReasonCodes<'a> {
    ReasonCodes {
        r#type: "ReasonCodes",
        category: match category {
            ReasonCategory::NotReady => "NOT_READY",
            ReasonCategory::Logout => "LOGOUT",
            ReasonCategory::WrapUp => "WrapUp",
        },
        reason_codes: reasons
            .iter()
            .map(|reason| Reason {
                code: &reason.id,
                label: &reason.label,
            })
            .collect(),
        agent_id: agent,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resolved<'a> {
    r#type: &'static str,
    command: &'a str,
    id: &'a str,
    outcome: &'static str,
    agent_id: &'a str,
}
