//! The table of dialog events.

use super::*;

/// Family of each event, in the order of the reference's table.
fn kinds(dialog: &Dialog, verb: DialogsVerb, known: bool) -> Vec<CallKind> {
    let agent = agent();
    choose(dialog, verb, known, &viewer(&agent))
        .into_iter()
        .map(|event| match event {
            ClientEvent::Call(call) => call.kind,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn the_table_of_dialog_events() {
    use CallKind::{Consult, Inbound, NewInbound, NewOutbound, NewOutboundPreview};
    use DialogsVerb::{Added, Changed};
    for (call_type, own, verb, known, want) in [
        ("PREROUTE_ACD_IN", "ALERTING", Added, false, NewInbound),
        ("PREROUTE_ACD_IN", "ALERTING", Changed, false, NewInbound),
        ("PREROUTE_ACD_IN", "ALERTING", Changed, true, Inbound),
        ("PREROUTE_ACD_IN", "ACTIVE", Added, false, Inbound),
        ("OTHER_IN", "ACTIVE", Changed, true, Inbound),
        ("SUPERVISOR_MONITOR", "ALERTING", Added, false, NewInbound),
        ("SUPERVISOR_MONITOR", "ACTIVE", Changed, true, Inbound),
        (
            "OUTBOUND_PREVIEW",
            "ACTIVE",
            Added,
            false,
            NewOutboundPreview,
        ),
        ("OUTBOUND_PREVIEW", "ACCEPTED", Changed, true, Inbound),
        (
            "OUTBOUND_PERSONAL_CALLBACK_PREVIEW",
            "ALERTING",
            Added,
            false,
            NewOutboundPreview,
        ),
        ("OUTBOUND_CALLBACK", "ALERTING", Changed, true, NewOutbound),
        ("OUTBOUND", "ACTIVE", Changed, true, Inbound),
        ("CONSULT", "INITIATING", Added, false, Consult),
        ("CONSULT", "ALERTING", Added, false, NewInbound),
        ("CONSULT_OFFERED", "ACTIVE", Changed, true, Inbound),
        ("", "ACTIVE", Changed, true, Inbound),
    ] {
        let mut dialog = dialog("ACTIVE", call_type, own);
        dialog.call_variables.clear();
        assert_eq!(
            kinds(&dialog, verb, known),
            [want],
            "{call_type} {own} {verb:?} {known}"
        );
    }
}

#[test]
fn an_own_call_with_an_associated_one_is_a_consultation() {
    let mut dialog = dialog("INITIATED", "AGENT_INSIDE", "INITIATED");
    dialog.from_address = "2001".into();
    assert_eq!(
        kinds(&dialog, DialogsVerb::Added, false),
        [CallKind::Inbound]
    );
    dialog.associated_dialog_id = "899".into();
    assert_eq!(
        kinds(&dialog, DialogsVerb::Added, false),
        [CallKind::Consult]
    );
    dialog.from_address = "2002".into();
    assert_eq!(
        kinds(&dialog, DialogsVerb::Added, false),
        [CallKind::Inbound]
    );
}

#[test]
fn the_forerunner_of_a_campaign_call_is_not_told() {
    let whole = dialog("ALERTING", "OTHER_IN", "ALERTING");
    assert_eq!(
        kinds(&whole, DialogsVerb::Added, false),
        [CallKind::NewInbound]
    );
    let mut campaign = whole.clone();
    campaign
        .call_variables
        .push(("BACampaign".into(), "spring".into()));
    assert_eq!(kinds(&campaign, DialogsVerb::Added, false), []);
    let mut incomplete = whole;
    incomplete.from_address.clear();
    assert_eq!(kinds(&incomplete, DialogsVerb::Added, false), []);
    incomplete.state = "DROPPED".into();
    assert_eq!(
        kinds(&incomplete, DialogsVerb::Changed, true),
        [CallKind::Inbound]
    );
}

#[test]
fn a_party_that_failed_is_told_with_its_cause_before_the_call_ends() {
    let agent = agent();
    let mut dialog = dialog("INITIATED", "OUT", "FAILED");
    dialog.participants[1].state_cause = "BAD_DESTINATION".into();
    let told = only(choose(&dialog, DialogsVerb::Changed, true, &viewer(&agent)));
    assert_eq!(
        strings(&told, Format::Default),
        ["1001#InboundCall#FAILED#DialogID:900#BAD_DESTINATION#Mira Lund"]
    );
    assert!(json(&told)[0].contains(r#""state":"FAILED""#));
}
