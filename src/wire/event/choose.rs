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

/// The events for one dialog of a notification; `known_before` says whether the agent had the
/// call already. Empty where the platform's packet is only a forerunner of another.
#[must_use]
pub fn choose(
    dialog: &Dialog,
    verb: DialogsVerb,
    known_before: bool,
    viewer: &Viewer<'_>,
) -> Vec<ClientEvent> {
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
    let lasting = if consult(dialog, viewer.extension) {
        CallKind::Consult
    } else {
        CallKind::Inbound
    };
    if verb == DialogsVerb::Removed || dialog.ended() {
        let mut events = Vec::with_capacity(2);
        // The cause is told once, by the change to FAILED; the removal only ends the call.
        if verb != DialogsVerb::Removed
            && dialog.state == "FAILED"
            && let Some(cause) = cause(dialog, viewer.extension)
        {
            events.push(event(lasting, CallPhase::Failed { cause }));
        }
        events.push(event(lasting, CallPhase::Dropped));
        return events;
    }
    // The party has failed already, the call as a whole has not ended yet.
    let failed = dialog
        .participant(viewer.extension)
        .is_some_and(|own| own.state == "FAILED");
    if failed && let Some(cause) = cause(dialog, viewer.extension) {
        return vec![event(lasting, CallPhase::Failed { cause })];
    }
    if forerunner(dialog, verb, viewer.extension) {
        return Vec::new();
    }
    let new = verb == DialogsVerb::Added || !known_before;
    let alerting = dialog
        .participant(viewer.extension)
        .is_some_and(|own| own.state == "ALERTING");
    let call_type = dialog.call_type.as_str();
    let kind = if PREVIEW.contains(&call_type) && new {
        CallKind::NewOutboundPreview
    } else if CAMPAIGN.contains(&call_type) && alerting {
        CallKind::NewOutbound
    } else if new && alerting {
        CallKind::NewInbound
    } else {
        lasting
    };
    vec![event(kind, CallPhase::Live)]
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
