//! Outbound campaigns.

use crate::support::{Shared, until};
use crate::talk::{Form, Talk, dialog_of, pair};

pub async fn outbound(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-outbound").await;
    talk.sign_in(&[1021]).await;
    talk.does("MakeReady#1021", &[]).await;
    talk.sees("1021 State READY").await;
    let world = pair.simulator.world().clone();
    for (command, word) in [
        ("RejectOutboundPreview", "REJECT"),
        ("CloseOutboundPreview", "CLOSE"),
    ] {
        talk.forget();
        let offer = world.offer_preview("0612", "7021").unwrap().to_string();
        talk.sees("1021 NewOutboundPreviewCall").await;
        talk.sees("1021 State RESERVED_OUTBOUND_PREVIEW").await;
        talk.fails(
            &format!("{command}#1021"),
            &[&offer, "ACCEPT"],
            "REJECTED",
            "PLEASE_RETRY",
        )
        .await;
        talk.does(&format!("{command}#1021"), &[&offer, word]).await;
        talk.sees("1021 InboundCall DROPPED").await;
        talk.sees("1021 State READY").await;
    }
    talk.forget();
    let offer = world.offer_preview("0612", "7021").unwrap().to_string();
    talk.sees("1021 NewOutboundPreviewCall").await;
    talk.does("AcceptOutboundPreview#1021", &[&offer, "ACCEPT"])
        .await;
    talk.sees_in_order(&[
        "1021 InboundCall ACCEPTED",
        "1021 InboundCall DROPPED",
        "1021 InboundCall INITIATING",
        "1021 InboundCall INITIATED",
        "1021 InboundCall ACTIVE",
    ])
    .await;
    let active = talk.sees("1021 InboundCall ACTIVE").await;
    let call = dialog_of(&active);
    assert_ne!(call, offer);
    let when = "2031-04-09T15:30";
    for command in ["SHCEDULECALLBACK", "UPDATECALLBACK"] {
        talk.forget();
        talk.does(&format!("{command}#1021"), &["7021", &call, when, "0699"])
            .await;
        talk.sees("1021 CallBack").await;
        talk.sees("1021 Control").await;
        let calls = world.calls.lock().unwrap();
        let kept = calls.map[&call.parse::<u64>().unwrap()].callback.clone();
        assert_eq!(kept, Some((when.to_owned(), "0699".to_owned())));
    }
    talk.forget();
    talk.does("CANCELSHCEDULECALLBACK#1021", &["7021", &call])
        .await;
    talk.sees("1021 CallBack").await;
    let kept = world.calls.lock().unwrap().map[&call.parse::<u64>().unwrap()]
        .callback
        .clone();
    assert_eq!(kept, None);
    talk.does("RECLASSIFYCALL#1021", &["7021", &call, "FAX"])
        .await;
    talk.sees("1021 RECLASSIFY").await;
    let calls = world.calls.lock().unwrap().map[&call.parse::<u64>().unwrap()]
        .classification
        .clone();
    assert_eq!(calls, "FAX");
    talk.does("ReleaseCall#1021", &[&call]).await;
    talk.sees("1021 InboundCall DROPPED").await;
    // The dialer's own call: its first, incomplete packet is not told.
    talk.does("MakeReady#1021", &[]).await;
    until("ready again", async || pair.state(1021) == "READY").await;
    talk.forget();
    let dialed = world.dialed("0613", "7021").unwrap().to_string();
    talk.sees("1021 NewOutboundCall").await;
    talk.sees("1021 State RESERVED_OUTBOUND").await;
    talk.does("AnswerCall#1021", &[&dialed]).await;
    talk.sees("1021 InboundCall ACTIVE").await;
    assert_eq!(talk.count("1021 NewInboundCall"), 0);
    talk.does("ReleaseCall#1021", &[&dialed]).await;
    talk.sees("1021 InboundCall DROPPED").await;
}
