//! The table of dialog events.

use super::*;

/// Family of each event, in the order of the reference's table.
fn kinds(dialog: &Dialog, verb: DialogsVerb, known: bool) -> Vec<CallKind> {
    let agent = agent();
    families(choose_where(dialog, verb, known, &viewer(&agent)))
}

/// The same, where it is known what the call was before.
fn kinds_after(dialog: &Dialog, verb: DialogsVerb, known: &Dialog) -> Vec<CallKind> {
    let agent = agent();
    families(choose(dialog, verb, Some(known), &viewer(&agent)))
}

fn families(events: Vec<ClientEvent>) -> Vec<CallKind> {
    events
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
    let told = only(choose_where(
        &dialog,
        DialogsVerb::Changed,
        true,
        &viewer(&agent),
    ));
    assert_eq!(
        strings(&told, Format::Default),
        ["1001#InboundCall#FAILED#DialogID:900#BAD_DESTINATION#Mira Lund"]
    );
    assert!(json(&told)[0].contains(r#""state":"FAILED""#));
}

#[test]
fn who_is_monitored_has_the_call_announced_and_active_at_once() {
    let agent = agent();
    let passive = dialog("ACTIVE", "SUPERVISOR_MONITOR", "ACTIVE");
    let told = choose(&passive, DialogsVerb::Added, None, &viewer(&agent));
    let words: Vec<String> = told
        .iter()
        .flat_map(|event| strings(event, Format::Default))
        .map(|text| text.split("#0612").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        words,
        [
            "1001#NewInboundCall",
            "1001#InboundCall#ACTIVE#DialogID:900"
        ]
    );
    assert_eq!(
        kinds_after(&passive, DialogsVerb::Added, &passive),
        [CallKind::Inbound]
    );
    let alerting = dialog("ALERTING", "SUPERVISOR_MONITOR", "ALERTING");
    assert_eq!(
        kinds_after(&passive, DialogsVerb::Changed, &alerting),
        [CallKind::Inbound]
    );
    // The supervisor's own side of it is a call that it makes.
    let mut own = passive;
    own.from_address = "2001".into();
    assert_eq!(kinds(&own, DialogsVerb::Added, false), [CallKind::Inbound]);
}

#[test]
fn a_call_is_announced_once() {
    use CallKind::{Inbound, NewInbound, NewOutbound, NewOutboundPreview};
    use DialogsVerb::{Added, Changed};
    let call = |call_type: &str, own: &str| dialog("ALERTING", call_type, own);
    let offered = call("ACD_IN", "ALERTING");
    let dialled = call("OUTBOUND", "ALERTING");
    let preview = call("OUTBOUND_PREVIEW", "ACTIVE");
    let mut forerunner = call("OTHER_IN", "ALERTING");
    forerunner
        .call_variables
        .push(("BACampaign".into(), "spring".into()));
    let mut ended = offered.clone();
    ended.state = "DROPPED".into();
    for (known, verb, dialog, want) in [
        (&offered, Added, &offered, Inbound),
        (&preview, Added, &preview, Inbound),
        (&dialled, Added, &dialled, Inbound),
        (&dialled, Changed, &dialled, Inbound),
        (
            &call("OUTBOUND", "INITIATED"),
            Changed,
            &dialled,
            NewOutbound,
        ),
        (&forerunner, Changed, &dialled, NewOutbound),
        (&forerunner, Changed, &preview, NewOutboundPreview),
        (&forerunner, Changed, &call("", "ALERTING"), Inbound),
        (&ended, Added, &offered, NewInbound),
    ] {
        assert_eq!(
            kinds_after(dialog, verb, known),
            [want],
            "{} after {} {}",
            dialog.call_type,
            known.call_type,
            known.state
        );
    }
}

#[test]
fn a_cause_that_was_told_is_not_told_again() {
    let agent = agent();
    let texts = |dialog: &Dialog, known: &Dialog| -> Vec<String> {
        choose(dialog, DialogsVerb::Changed, Some(known), &viewer(&agent))
            .iter()
            .flat_map(|event| strings(event, Format::Default))
            .map(|text| text.split("#DialogID").next().unwrap().to_owned())
            .collect()
    };
    let ringing = dialog("INITIATED", "OUT", "INITIATED");
    let mut failing = dialog("INITIATED", "OUT", "FAILED");
    let without_cause = failing.clone();
    failing.participants[1].state_cause = "BUSY".into();
    let mut failed = failing.clone();
    failed.state = "FAILED".into();
    let cause = "1001#InboundCall#FAILED";
    let drop = "1001#InboundCall#DROP";
    assert_eq!(texts(&failing, &ringing), [cause]);
    assert_eq!(texts(&failing, &failing), [""; 0]);
    assert_eq!(texts(&failed, &failing), [drop]);
    assert_eq!(texts(&failed, &ringing), [cause, drop]);
    assert_eq!(texts(&failed, &without_cause), [cause, drop]);
}

#[test]
fn a_consultation_stays_one_whatever_type_follows() {
    use CallKind::{Consult, Inbound};
    use DialogsVerb::{Changed, Removed};
    let consult = dialog("ACTIVE", "CONSULT", "ACTIVE");
    let typed = |call_type: &str| dialog("ACTIVE", call_type, "ACTIVE");
    let mut known = consult.clone();
    // Also through several changes.
    for call_type in ["", "OUT", "", "AGENT_INSIDE"] {
        let dialog = typed(call_type);
        assert_eq!(
            kinds_after(&dialog, Changed, &known),
            [Consult],
            "{call_type}"
        );
        known = continued(&dialog, Some(&known), "2001");
    }
    assert_eq!(kinds_after(&typed(""), Removed, &known), [Consult]);
    assert_eq!(kinds_after(&typed("TRANSFER"), Removed, &known), [Consult]);
    let merged = typed("CONFERENCE");
    assert_eq!(kinds_after(&merged, Changed, &known), [Inbound]);
    known = continued(&merged, Some(&known), "2001");
    assert_eq!(kinds_after(&merged, Changed, &known), [Inbound]);

    let agent = agent();
    let event = only(choose(&typed(""), Changed, Some(&consult), &viewer(&agent)));
    assert!(json(&event)[0].contains(r#""callType":"CONSULT""#));
}
