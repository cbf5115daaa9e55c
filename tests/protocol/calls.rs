//! Calls: consultation, transfers, conference, wrap-up.

use tandem::client::Message;

use crate::support::{Shared, until};
use crate::talk::{Form, Talk, dialog_of, field, in_call, pair, short};

pub async fn calls(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-calls").await;
    talk.sign_in(&[1005, 1006]).await;
    let dialog = in_call(&talk, 1005, 1006).await;
    talk.sees_in_order(&[
        "1005 InboundCall INITIATING",
        "1005 InboundCall INITIATED",
        "1005 InboundCall ALERTING",
        "1005 InboundCall ACTIVE",
    ])
    .await;
    talk.sees("1005 State TALKING").await;
    talk.does("HoldCall#1005", &[&dialog]).await;
    talk.sees("1005 InboundCall HELD").await;
    talk.sees("1005 State HOLD").await;
    talk.does("GetDialogState#1005", &[&dialog]).await;
    talk.sees("1005 DialogState HELD").await;
    talk.forget();
    talk.does("getdialogstatecontrols#1005", &[&dialog]).await;
    let controls = |m: &Message| m.text.contains("DialogState") && m.text.contains(&dialog);
    talk.desk.event("the state with its kind", controls).await;
    talk.does("getDialogParticipants#1005", &[&dialog]).await;
    talk.desk
        .event("the parties", |m| {
            let both = m.text.contains("7005") && m.text.contains("7006");
            m.text.contains("ConferenceParticipants") && both
        })
        .await;
    talk.does("RetrieveCall#1005", &[&dialog]).await;
    talk.sees("1005 InboundCall ACTIVE").await;
    talk.forget();
    talk.does(
        "update_call_variable#1005",
        &[&dialog, "callVariable1=gold|callVariable2=a=b"],
    )
    .await;
    let variables = field(
        form,
        r#"{"callVariable1":"gold"},{"callVariable2":"a=b"}"#,
        "callVariable1=gold|callVariable2=a=b",
    );
    talk.desk
        .event("the variables", |m| m.text.contains(variables))
        .await;
    talk.fails(
        "update_call_variable#1005",
        &[&dialog, "gold"],
        "REJECTED",
        "INVALID_CALL_DATA",
    )
    .await;
    talk.fails("HoldCall#1005", &[], "REJECTED", "MISSING_DIALOG_ID")
        .await;
    talk.fails("MakeCall#1005", &[], "REJECTED", "MISSING_NUMBER")
        .await;
    talk.fails("ReleaseCall#1005", &["424242"], "FAILED", "NO_DIALOG_ID")
        .await;
    talk.fails(
        "ZOOMPauseRecording#1005",
        &[],
        "REJECTED",
        "NOT_IMPLEMENTED",
    )
    .await;
    talk.fails(
        "ZOOMResumeRecording#1006",
        &[],
        "REJECTED",
        "NOT_IMPLEMENTED",
    )
    .await;
    talk.does("ReleaseCall#1005", &[&dialog]).await;
    for agent in [1005, 1006] {
        talk.sees(&format!("{agent} InboundCall DROPPED")).await;
        talk.sees(&format!("{agent} State NOT_READY")).await;
        // Told once, by the change or by the removal.
        assert_eq!(talk.count(&format!("{agent} InboundCall DROPPED")), 1);
    }
    talk.forget();
    talk.does("MakeCall#1005", &["99912"]).await;
    talk.sees("1005 InboundCall FAILED").await;
    talk.sees("1005 InboundCall DROPPED").await;
    let failed = talk.desk.events();
    let cause = |m: &&Message| form == Form::Json || m.text.contains("#BAD_DESTINATION#");
    assert!(
        failed
            .iter()
            .filter(|m| short(m) == "1005 InboundCall FAILED")
            .all(|m| cause(&m))
    );
}

/// Consultation, then its three ends: transfer, conference, release.
pub async fn consult(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-consult").await;
    talk.sign_in(&[1007, 1008, 1009]).await;
    let main = in_call(&talk, 1007, 1008).await;
    let leg = consult_call(&talk, &main).await;
    talk.forget();
    talk.does("TransferCall#1007", &["7009", &main]).await;
    talk.sees("1007 InboundCall DROPPED").await;
    talk.sees("1007 ConsultCall DROPPED").await;
    talk.sees("1007 State NOT_READY").await;
    talk.sees_in_order(&["1009 InboundCall DROPPED", "1009 InboundCall ACTIVE"])
        .await;
    talk.does("ReleaseCall#1009", &[&main]).await;
    talk.sees("1008 InboundCall DROPPED").await;

    let main = in_call(&talk, 1007, 1008).await;
    let second = consult_call(&talk, &main).await;
    assert_ne!(second, leg);
    talk.forget();
    talk.does("Conferencecall#1007", &["7009", &main]).await;
    let three = |m: &Message| {
        let parties = [7007, 7008, 7009]
            .iter()
            .all(|n| m.text.contains(&n.to_string()));
        short(m) == "1007 InboundCall ACTIVE" && parties
    };
    talk.desk.event("three parties", three).await;
    talk.sees("1007 ConsultCall DROPPED").await;
    // Taken, and refused later: nobody of that number is in the call.
    talk.does("dropparticipant#1007", &["7099", &main]).await;
    talk.sees("1007 Error CF_INVALID_OBJECT_STATE").await;
    talk.does("ReleaseCall#1008", &[&main]).await;
    talk.sees("1008 InboundCall DROPPED").await;
    talk.does("ReleaseCall#1009", &[&main]).await;
    talk.sees("1007 InboundCall DROPPED").await;

    let main = in_call(&talk, 1007, 1008).await;
    let third = consult_call(&talk, &main).await;
    talk.forget();
    talk.does("ReleaseCall#1007", &[&third]).await;
    talk.sees("1007 ConsultCall DROPPED").await;
    talk.does("GetDialogState#1007", &[&main]).await;
    talk.sees("1007 DialogState HELD").await;
    talk.does("RetrieveCall#1007", &[&main]).await;
    talk.sees("1007 InboundCall ACTIVE").await;
    talk.does("ReleaseCall#1007", &[&main]).await;
    talk.sees("1008 InboundCall DROPPED").await;
}

/// 1007 consults 1009 about a call; the consultation's dialog.
pub async fn consult_call(talk: &Talk, main: &str) -> String {
    talk.forget();
    talk.does("ConsultCall#1007", &["7009", main]).await;
    talk.sees("1007 InboundCall HELD").await;
    let offered = talk.sees("1009 NewInboundCall").await;
    let leg = dialog_of(&offered);
    assert_ne!(leg, main);
    talk.does("AnswerCall#1009", &[&leg]).await;
    talk.sees_in_order(&[
        "1007 InboundCall HELD",
        "1007 ConsultCall INITIATING",
        "1007 ConsultCall INITIATED",
        "1007 ConsultCall ALERTING",
        "1007 ConsultCall ACTIVE",
    ])
    .await;
    talk.sees("1009 InboundCall ACTIVE").await;
    leg
}

pub async fn blind_transfer(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-blind").await;
    talk.sign_in(&[1010, 1011, 1012]).await;
    let dialog = in_call(&talk, 1010, 1011).await;
    talk.forget();
    talk.does("Transfer_sst#1010", &["7012", &dialog]).await;
    talk.sees("1010 InboundCall DROPPED").await;
    talk.sees("1010 State NOT_READY").await;
    talk.sees("1012 NewInboundCall").await;
    talk.does("AnswerCall#1012", &[&dialog]).await;
    talk.sees("1012 InboundCall ACTIVE").await;
    talk.does("ReleaseCall#1012", &[&dialog]).await;
    talk.sees("1011 InboundCall DROPPED").await;
}

pub async fn wrap_up(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-wrap-up").await;
    talk.sign_in(&[1013, 1014]).await;
    let dialog = in_call(&talk, 1013, 1014).await;
    talk.forget();
    talk.does("MakeWorkReady#1013", &[]).await;
    let pending = field(
        form,
        r#""pendingState":"WORK_READY""#,
        "#TALKING###WORK_READY#",
    );
    talk.desk
        .event("the pending state", |m| m.text.contains(pending))
        .await;
    talk.does("MakeWorkNotReady#1014", &[]).await;
    talk.does("ReleaseCall#1013", &[&dialog]).await;
    talk.sees("1013 State WORK_READY").await;
    talk.sees("1014 State WORK").await;
    talk.sees("1013 InboundCall DROPPED").await;
    talk.does("wrapupreasoncode#1013", &[]).await;
    talk.sees("1013 ReasonCodes").await;
    talk.does("wrapup#1013", &["Question, answered", &dialog])
        .await;
    {
        let calls = pair.simulator.world().calls.lock().unwrap();
        let call = calls
            .map
            .get(&dialog.parse().unwrap())
            .expect("kept for wrap-up");
        assert_eq!(call.wrap_up, "Question, answered");
    }
    talk.forget();
    talk.does("MakeReady#1013", &[]).await;
    talk.sees("1013 State READY").await;
    talk.does("MakeNotReadyWithReason#1014", &["2"]).await;
    talk.sees("1014 State NOT_READY").await;
    until("the call is gone", async || {
        !pair
            .simulator
            .world()
            .calls
            .lock()
            .unwrap()
            .map
            .contains_key(&dialog.parse().unwrap())
    })
    .await;
    talk.fails("wrapup#1013", &["Sold", &dialog], "FAILED", "NO_DIALOG_ID")
        .await;
}
