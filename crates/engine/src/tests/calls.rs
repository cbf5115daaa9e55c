//! Calls as a client is told of them, by what the session knows of each.

use super::support::*;
use crate::model::{Dialog, DialogsVerb, Participant};
use crate::wire::event::{CallKind, CallPhase, ClientEvent};

fn call(call_type: &str, state: &str, own: &str, cause: &str) -> Dialog {
    Dialog {
        id: "900".into(),
        from_address: "0612".into(),
        to_address: "8800".into(),
        state: state.into(),
        call_type: call_type.into(),
        participants: vec![Participant {
            media_address: "2001".into(),
            state: own.into(),
            state_cause: cause.into(),
            ..Participant::default()
        }],
        ..Dialog::default()
    }
}

/// With a subscription that notifications can come on.
fn connected() -> Rig {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.advance(1_000);
    rig
}

/// What the client is told of calls by one notification.
fn told(rig: &mut Rig, verb: DialogsVerb, dialog: Dialog) -> Vec<(CallKind, CallPhase)> {
    let before = rig.told("other").len();
    rig.notify_dialog("1001", verb, dialog);
    let events = rig.told("other").into_iter().skip(before);
    let calls = events.filter_map(|event| match event {
        ClientEvent::Call(call) => Some((call.kind, call.phase)),
        _ => None,
    });
    calls.collect()
}

#[test]
fn a_call_that_is_published_again_is_not_announced_again() {
    use DialogsVerb::{Added, Changed, Removed};
    let mut rig = connected();
    for (call_type, announced) in [
        ("ACD_IN", CallKind::NewInbound),
        ("OUTBOUND", CallKind::NewOutbound),
    ] {
        let alerting = call(call_type, "ALERTING", "ALERTING", "");
        for (verb, want) in [
            (Added, announced),
            (Added, CallKind::Inbound),
            (Changed, CallKind::Inbound),
        ] {
            let calls = told(&mut rig, verb, alerting.clone());
            assert_eq!(calls, [(want, CallPhase::Live)], "{call_type}");
        }
        told(&mut rig, Removed, alerting);
    }
}

#[test]
fn a_failure_is_told_once_and_then_the_end() {
    let mut rig = connected();
    let failed = CallPhase::Failed {
        cause: "BUSY".into(),
    };
    for (state, own, cause, want) in [
        ("INITIATED", "INITIATED", "", Some(CallPhase::Live)),
        ("INITIATED", "FAILED", "BUSY", Some(failed)),
        ("INITIATED", "FAILED", "BUSY", None),
        ("FAILED", "FAILED", "BUSY", Some(CallPhase::Dropped)),
        ("DROPPED", "DROPPED", "", None),
    ] {
        let calls = told(
            &mut rig,
            DialogsVerb::Changed,
            call("OUT", state, own, cause),
        );
        let want: Vec<_> = want
            .map(|phase| (CallKind::Inbound, phase))
            .into_iter()
            .collect();
        assert_eq!(calls, want, "{state} {own}");
    }
}

#[test]
fn a_consultation_without_a_type_is_one_to_its_end() {
    let mut rig = connected();
    for call_type in ["CONSULT", "", "", "OUT", ""] {
        let calls = told(
            &mut rig,
            DialogsVerb::Changed,
            call(call_type, "ACTIVE", "ACTIVE", ""),
        );
        assert_eq!(calls, [(CallKind::Consult, CallPhase::Live)], "{call_type}");
    }
    let calls = told(
        &mut rig,
        DialogsVerb::Removed,
        call("", "ACTIVE", "ACTIVE", ""),
    );
    assert_eq!(calls, [(CallKind::Consult, CallPhase::Dropped)]);
}
