//! Events as fields joined by `#` (connector reference, section 3).

mod list;

use std::borrow::Cow;
use std::fmt::{Display, Write};

use chrono::TimeZone;

use super::time::local;
use super::{
    CallEvent, CallKind, CallPhase, ClientEvent, SystemStatus, shown_reason, shown_state, start_of,
};
use crate::errors::in_text;
use crate::model::{Dialog, ReasonCategory, ReasonCode, Team, User};

/// What stands for a literal `#` in a value: its code in binary. The sources describe the token
/// without printing it, so it is written in this one place.
const HASH_TOKEN: &str = "00100011";

/// A value as a field.
fn escape(value: &str) -> Cow<'_, str> {
    if value.contains('#') {
        Cow::Owned(value.replace('#', HASH_TOKEN))
    } else {
        Cow::Borrowed(value)
    }
}

/// Fields in the making.
struct Line(String);

impl Line {
    /// Begins with the addressee.
    fn new(addressee: &str) -> Self {
        let mut line = String::with_capacity(160);
        line.push_str(addressee);
        Self(line)
    }

    /// Adds a field of our own words.
    fn word(mut self, word: &str) -> Self {
        self.0.push('#');
        self.0.push_str(word);
        self
    }

    /// Adds a field with a value from outside.
    fn value(self, value: &str) -> Self {
        let value = escape(value);
        self.word(&value)
    }

    /// Adds a field that is marked with its name, e.g. `CallType:ACD_IN`.
    fn marked(mut self, mark: &str, value: &str) -> Self {
        // Writing to a text cannot fail.
        let _ = write!(self.0, "#{mark}:{}", escape(value));
        self
    }

    fn one(self) -> Vec<String> {
        vec![self.0]
    }
}

/// The message bodies; none where the form does not have the event. `named`: call variables carry
/// their names.
pub(super) fn render<Z: TimeZone>(event: &ClientEvent, zone: &Z, named: bool) -> Vec<String>
where
    Z::Offset: Display,
{
    match event {
        ClientEvent::System(status) => Line::new("System")
            .word(match status {
                SystemStatus::InService => "IN_SERVICE",
                SystemStatus::OutOfService => "OUT_OF_SERVICE",
            })
            .one(),
        ClientEvent::DestinationReconnect { destination } => Line::new("DESTINATION")
            .word(destination.as_str())
            .word("RECONNECT")
            .one(),
        ClientEvent::ConnectStatus => Vec::new(),
        ClientEvent::Error {
            agent,
            code,
            message,
        } => {
            let addressee = agent.as_ref().map_or("System", |agent| agent.as_str());
            let code = in_text(code, message);
            Line::new(addressee).word("Error").value(code).one()
        }
        ClientEvent::AgentInfo { agent, user } => agent_info(agent.as_str(), user),
        ClientEvent::State { agent, user } => state(agent.as_str(), user, zone),
        ClientEvent::ReLogin { agent } => Line::new(agent.as_str())
            .word("State")
            .word("RE_LOGIN")
            .one(),
        ClientEvent::LogoutState { agent } => {
            let user = User {
                state: "LOGOUT".to_owned(),
                ..User::default()
            };
            state(agent.as_str(), &user, zone)
        }
        ClientEvent::Call(call) => self::call(call, zone, named),
        ClientEvent::DialogState {
            agent,
            name,
            dialog,
            state,
        } => Line::new(agent.as_str())
            .word("DialogState")
            .value(state)
            .value(dialog)
            .value(name)
            .one(),
        ClientEvent::DialogStatus {
            agent,
            extension,
            dialogs,
        } => dialog_status(agent.as_str(), extension, dialogs, named),
        ClientEvent::ReasonCodes {
            agent,
            name,
            category,
            reasons,
        } => reason_codes(agent.as_str(), name, *category, reasons),
        ClientEvent::TeamInfo { agent, name, teams } => team_info(agent.as_str(), name, teams),
        ClientEvent::MemberState { agent, user } => {
            state_of(agent.as_str(), &user.login_id, user, zone)
        }
        ClientEvent::List(event) => list::render(event, zone).one(),
        ClientEvent::Note { agent, note } => list::note(agent.as_str(), note).one(),
        ClientEvent::Resolved {
            agent,
            command,
            id,
            outcome,
        } => Line::new(agent.as_str())
            .word("Resolved")
            .word(command)
            .value(id)
            .word(outcome.as_str())
            .one(),
    }
}

fn agent_info(agent: &str, user: &User) -> Vec<String> {
    let line = Line::new(agent)
        .word("AgentInfo")
        .value(&user.first_name)
        .value(&user.last_name)
        .word(if user.supervisor { "True" } else { "False" })
        .value(&user.wrap_up_on_incoming);
    let line = if user.supervisor {
        let teams: Vec<String> = user
            .teams
            .iter()
            .map(|team| format!("{},{}", team.id, team.name))
            .collect();
        line.marked("TotalNumberOfTeams", &teams.len().to_string())
            .value(&teams.join("|"))
    } else {
        line
    };
    line.value(&user.team.id)
        .value(&user.full_name())
        .value(&user.login_name)
        .one()
}

fn state<Z: TimeZone>(agent: &str, user: &User, zone: &Z) -> Vec<String>
where
    Z::Offset: Display,
{
    state_of(agent, agent, user, zone)
}

/// The state of `agent`, told to itself or to a supervisor.
fn state_of<Z: TimeZone>(told: &str, agent: &str, user: &User, zone: &Z) -> Vec<String>
where
    Z::Offset: Display,
{
    let name = user.full_name();
    Line::new(told)
        .word("State")
        .value(&user.state)
        .value(shown_reason(user))
        // `stateChangeTimeString` is part of the format and never used.
        .word("")
        .value(&user.pending_state)
        .value(&local(&user.state_change_time, zone))
        .value(&name)
        .word(agent)
        .value(&user.extension)
        .value(&user.reason_label)
        .value(&name)
        .value(&user.login_name)
        .one()
}

/// `ani=<calling number>|callVariable1=<value>|…`, or without names `<calling number>,<value>,…`.
fn call_variables(dialog: &Dialog, named: bool) -> String {
    let mut list = super::variables(dialog);
    // The calling number, last in JSON, stands first here.
    list.rotate_right(1);
    if !named {
        let values: Vec<&str> = list.into_iter().map(|(_, value)| value).collect();
        return values.join(",");
    }
    let mut out = String::with_capacity(64);
    for (index, (name, value)) in list.iter().enumerate() {
        if index > 0 {
            out.push('|');
        }
        let _ = write!(out, "{name}={value}");
    }
    out
}

/// `<address>,<state>|…`: the sources name the field without its inner form.
fn participants(dialog: &Dialog) -> String {
    let list: Vec<String> = dialog
        .participants
        .iter()
        .map(|party| format!("{},{}", party.media_address, party.state))
        .collect();
    list.join("|")
}

fn call<Z: TimeZone>(call: &CallEvent, zone: &Z, named: bool) -> Vec<String>
where
    Z::Offset: Display,
{
    let dialog = &call.dialog;
    let line = Line::new(call.agent.as_str());
    let variables = call_variables(dialog, named);
    let start = || local(start_of(dialog, &call.extension), zone);
    match (call.kind, &call.phase) {
        (CallKind::Consult, CallPhase::Failed { cause }) => line
            .word("ConsultCall")
            .word("FAILED")
            .marked("AssDialogID", &dialog.id)
            .value(cause)
            .value(&call.name)
            .one(),
        (CallKind::Consult, phase) => line
            .word("ConsultCall")
            .value(call_state(call, phase))
            .marked("AssDialogID", &dialog.id)
            .value(&dialog.from_address)
            .value(&variables)
            .value(&call.name)
            .one(),
        (_, CallPhase::Failed { cause }) => line
            .word("InboundCall")
            .word("FAILED")
            .marked("DialogID", &dialog.id)
            .value(cause)
            .value(&call.name)
            .one(),
        (CallKind::NewInbound, CallPhase::Live) => line
            .word("NewInboundCall")
            .value(&dialog.from_address)
            .value(&variables)
            .marked("DialogID", &dialog.id)
            .marked("CallType", &dialog.call_type)
            .value(&start())
            .one(),
        (CallKind::NewOutbound, CallPhase::Live) => line
            .word("NewOutboundCall")
            .value(&dialog.from_address)
            .value(&variables)
            .marked("DialogID", &dialog.id)
            .one(),
        (CallKind::NewOutboundPreview, CallPhase::Live) => line
            .word("NewOutboundPreviewCall")
            .value(&dialog.from_address)
            .value(&variables)
            .marked("DialogID", &dialog.id)
            .marked("CallType", &dialog.call_type)
            .one(),
        (_, phase) => line
            .word("InboundCall")
            .value(call_state(call, phase))
            .marked("DialogID", &dialog.id)
            .value(&dialog.from_address)
            .value(&variables)
            .value(&start())
            .marked("CallType", &dialog.call_type)
            .marked("ParticipantsCount", &dialog.participants.len().to_string())
            .marked("participants", &participants(dialog))
            .one(),
    }
}

/// The state word of call events: `HOLD` and `DROP` where JSON has `HELD` and `DROPPED`.
fn call_state<'a>(call: &'a CallEvent, phase: &CallPhase) -> &'a str {
    if *phase == CallPhase::Dropped {
        return "DROP";
    }
    match shown_state(&call.dialog, &call.extension) {
        "HELD" => "HOLD",
        state => state,
    }
}

/// One call and the one that is associated with it; the form has no room for more.
fn dialog_status(agent: &str, extension: &str, dialogs: &[Dialog], named: bool) -> Vec<String> {
    let line = Line::new(agent).word("DialogStatus");
    let Some(main) = dialogs
        .iter()
        .find(|dialog| dialog.call_type != "CONSULT")
        .or_else(|| dialogs.first())
    else {
        return line.word("").word("").word("").one();
    };
    let others = || dialogs.iter().filter(|dialog| dialog.id != main.id);
    let associated = others()
        .find(|dialog| dialog.id == main.associated_dialog_id)
        .or_else(|| others().next());
    [Some(main), associated]
        .into_iter()
        .fold(line, |line, dialog| match dialog {
            Some(dialog) => line
                .value(&dialog.id)
                .value(shown_state(dialog, extension))
                .value(&dialog.from_address)
                .value(&call_variables(dialog, named)),
            None => line.word("").word("").word("").word(""),
        })
        .one()
}

fn reason_codes(
    agent: &str,
    name: &str,
    category: ReasonCategory,
    reasons: &[ReasonCode],
) -> Vec<String> {
    let ids: Vec<&str> = reasons.iter().map(|reason| reason.id.as_str()).collect();
    let labels: Vec<&str> = reasons.iter().map(|reason| reason.label.as_str()).collect();
    Line::new(agent)
        .word("ReasonCodes")
        .word(match category {
            ReasonCategory::NotReady => "Category:NOT_READY",
            ReasonCategory::Logout => "Category:LOGOUT",
            ReasonCategory::WrapUp => "Category:Wrap_Up",
        })
        .value(&ids.join(","))
        .marked("Labels", &labels.join(","))
        .value(name)
        .one()
}

fn team_info(agent: &str, name: &str, teams: &[Team]) -> Vec<String> {
    let list = |kind, key, field: fn(&Team) -> &str| {
        let values: Vec<&str> = teams.iter().map(field).collect();
        Line::new(agent)
            .word(kind)
            .word(key)
            .value(&values.join(","))
            .value(name)
            .0
    };
    vec![
        list("TeamInfoIDs", "TeamID", |team| &team.id),
        list("TeamInfoNames", "TeamName", |team| &team.name),
    ]
}
