//! Which event a dialog notification becomes (connector reference, section 4.1).

use super::{CallEvent, CallKind, CallPhase, ClientEvent};
use crate::model::{AgentId, Dialog, DialogsVerb};

/// Through whose eyes a call is seen.
#[derive(Debug, Clone, Copy)]
pub struct Viewer<'a> {
    /// The agent.
    pub agent: &'a AgentId,
    /// The agent's full name; empty where not known yet.
    pub name: &'a str,
    /// The agent's own extension.
    pub extension: &'a str,
}

/// Call types of calls that are offered for preview.
const PREVIEW: [&str; 4] = [
    "OUTBOUND_PREVIEW",
    "OUTBOUND_DIRECT_PREVIEW",
    "OUTBOUND_CALLBACK_PREVIEW",
    "OUTBOUND_PERSONAL_CALLBACK_PREVIEW",
];

/// Call types of calls that a campaign dialled.
const CAMPAIGN: [&str; 3] = [
    "OUTBOUND",
    "OUTBOUND_CALLBACK",
    "OUTBOUND_PERSONAL_CALLBACK",
];

/// The call type of a supervisor's monitoring, on both sides of it.
const MONITOR: &str = "SUPERVISOR_MONITOR";

/// The events for one dialog of a notification; `known` is the call as the agent had it before,
/// by which what was told already is not told again. Empty where nothing is to be told: the
/// platform's packet is only a forerunner of another, or repeats a failure.
#[must_use]
pub fn choose(
    dialog: &Dialog,
    verb: DialogsVerb,
    known: Option<&Dialog>,
    viewer: &Viewer<'_>,
) -> Vec<ClientEvent> {
    let dialog = &with_type(dialog, known);
    let event = |kind, phase| {
        ClientEvent::Call(Box::new(CallEvent {
            agent: viewer.agent.clone(),
            name: viewer.name.to_owned(),
            extension: viewer.extension.to_owned(),
            kind,
            phase,
            dialog: dialog.clone(),
        }))
    };
    let over = verb == DialogsVerb::Removed || dialog.ended();
    let consulting =
        consult(dialog, viewer.extension) || still_consult(dialog, over, known, viewer.extension);
    let lasting = match consulting {
        true => CallKind::Consult,
        false => CallKind::Inbound,
    };
    let cause_told = known.is_some_and(|known| failure(known, viewer.extension).is_some());
    if over {
        let mut events = Vec::with_capacity(2);
        // The cause is told once, by the change to FAILED; the removal only ends the call.
        if verb != DialogsVerb::Removed
            && dialog.state == "FAILED"
            && !cause_told
            && let Some(cause) = cause(dialog, viewer.extension)
        {
            events.push(event(lasting, CallPhase::Failed { cause }));
        }
        events.push(event(lasting, CallPhase::Dropped));
        return events;
    }
    // The party has failed already, the call as a whole has not ended yet.
    if let Some(cause) = failure(dialog, viewer.extension) {
        return match cause_told {
            true => Vec::new(),
            false => vec![event(lasting, CallPhase::Failed { cause })],
        };
    }
    if forerunner(dialog, verb, viewer.extension) {
        return Vec::new();
    }
    let kinds = match announcement(dialog, verb, known, viewer.extension) {
        // Who is monitored has that call at once: there is no time in which it alerts.
        Some(CallKind::NewInbound) if !alerts(dialog, viewer.extension) => {
            vec![CallKind::NewInbound, lasting]
        }
        Some(kind) => vec![kind],
        None => vec![lasting],
    };
    kinds
        .into_iter()
        .map(|kind| event(kind, CallPhase::Live))
        .collect()
}

/// The call as it is to be remembered behind a notification, so that the next one is told as the
/// same kind of call.
#[must_use]
pub fn continued(dialog: &Dialog, known: Option<&Dialog>, extension: &str) -> Dialog {
    let mut dialog = with_type(dialog, known);
    if let Some(known) = known
        && !consult(&dialog, extension)
        && still_consult(&dialog, dialog.ended(), Some(known), extension)
    {
        dialog.call_type.clone_from(&known.call_type);
        dialog
            .associated_dialog_id
            .clone_from(&known.associated_dialog_id);
    }
    dialog
}

/// With the type that was known, where a notification has none: after a failover the platform
/// publishes open calls without.
fn with_type(dialog: &Dialog, known: Option<&Dialog>) -> Dialog {
    let mut dialog = dialog.clone();
    if let Some(known) = known
        && dialog.call_type.is_empty()
    {
        dialog.call_type.clone_from(&known.call_type);
    }
    dialog
}

/// Whether a call that the client knows as a consultation goes on, or ends, as one: whatever its
/// type says, until it is merged into the main call.
fn still_consult(dialog: &Dialog, over: bool, known: Option<&Dialog>, extension: &str) -> bool {
    let merged = matches!(dialog.call_type.as_str(), "CONFERENCE" | "TRANSFER");
    let was = known.is_some_and(|known| consult(known, extension) && !known.ended());
    was && (over || !merged)
}

/// How a call is announced that the client was not told of yet.
fn announcement(
    dialog: &Dialog,
    verb: DialogsVerb,
    known: Option<&Dialog>,
    extension: &str,
) -> Option<CallKind> {
    let call_type = dialog.call_type.as_str();
    let alerting = alerts(dialog, extension);
    // What is known may have ended, or have been the forerunner of this.
    let new = known.is_none_or(|known| {
        (verb == DialogsVerb::Added && known.ended())
            || (call_type != known.call_type && forerunner(known, DialogsVerb::Added, extension))
    });
    let dialled = CAMPAIGN.contains(&call_type);
    let told_of = known.is_some_and(|known| {
        CAMPAIGN.contains(&known.call_type.as_str()) && alerts(known, extension)
    });
    let monitored = call_type == MONITOR
        && dialog.from_address != extension
        && own_state(dialog, extension) == "ACTIVE";
    if PREVIEW.contains(&call_type) && new {
        Some(CallKind::NewOutboundPreview)
    } else if dialled {
        (alerting && (new || !told_of)).then_some(CallKind::NewOutbound)
    } else {
        (new && (alerting || monitored)).then_some(CallKind::NewInbound)
    }
}

fn own_state<'a>(dialog: &'a Dialog, extension: &str) -> &'a str {
    let own = dialog.participant(extension);
    own.map_or("", |own| own.state.as_str())
}

fn alerts(dialog: &Dialog, extension: &str) -> bool {
    own_state(dialog, extension) == "ALERTING"
}

/// The cause, where the agent's own party has failed.
fn failure(dialog: &Dialog, extension: &str) -> Option<String> {
    let failed = own_state(dialog, extension) == "FAILED";
    failed.then(|| cause(dialog, extension)).flatten()
}

fn consult(dialog: &Dialog, extension: &str) -> bool {
    let originator = !extension.is_empty()
        && dialog.from_address == extension
        && matches!(dialog.call_type.as_str(), "OUT" | "AGENT_INSIDE");
    // Who is consulted has a call like any other.
    let asked = !extension.is_empty() && dialog.to_address == extension;
    (dialog.call_type == "CONSULT" && !asked)
        || (originator && !dialog.associated_dialog_id.is_empty())
}

/// A campaign call is announced by a first packet of type `OTHER_IN` that is not complete: the
/// campaign's variables are there, or the calling party is not.
fn forerunner(dialog: &Dialog, verb: DialogsVerb, extension: &str) -> bool {
    let campaign = dialog
        .call_variables
        .iter()
        .any(|(name, value)| name.starts_with("BA") && !value.is_empty());
    let incomplete = dialog.from_address.is_empty() || dialog.participant(extension).is_none();
    verb == DialogsVerb::Added && dialog.call_type == "OTHER_IN" && (campaign || incomplete)
}

/// Why a call failed: the other parties' cause goes before one's own.
fn cause(dialog: &Dialog, extension: &str) -> Option<String> {
    let caused = |own: bool| {
        dialog.participants.iter().find(move |party| {
            (party.media_address == extension) == own && !party.state_cause.is_empty()
        })
    };
    caused(false)
        .or_else(|| caused(true))
        .map(|party| party.state_cause.clone())
}
