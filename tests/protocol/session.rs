//! Session and agent state.

use tandem::client::Message;

use crate::support::Shared;
use crate::talk::{Form, Talk, field, pair};

pub async fn session(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-session").await;
    talk.does("Hello#desk-session", &[]).await;
    let system = field(
        form,
        r#"{"type":"System","status":"IN_SERVICE"}"#,
        "System#IN_SERVICE",
    );
    talk.desk.event("System", |m| m.text == system).await;
    talk.forget();
    talk.does("Beat#desk-session", &[]).await;
    talk.desk.event("System", |m| m.text == system).await;
    let unknown = talk.ask("MakeReady#1001", &[]).await;
    assert_eq!(unknown.error_code(), "RE_LOGIN", "{}", unknown.text);
    talk.sign_in(&[1001]).await;
    if form == Form::Json {
        talk.desk
            .event("ConnectStatus", |m| m.field("status") == "ConnectSuccess")
            .await;
    }
    talk.sees_in_order(&[
        "1001 AgentInfo",
        "1001 State NOT_READY",
        "1001 DialogStatus",
    ])
    .await;
    talk.fails(
        "Login#1001",
        &["pw-1001", "70o1"],
        "REJECTED",
        "WRONG_EXTENSION",
    )
    .await;
    talk.does("MakeReady#1001", &[]).await;
    talk.sees("1001 State READY").await;
    talk.forget();
    talk.does("GetState#1001", &[]).await;
    talk.sees("1001 State READY").await;
    talk.does("MakeNotReady#1001", &[]).await;
    talk.sees("1001 State NOT_READY").await;
    talk.forget();
    talk.does("MakeNotReadyWithReason#1001", &["2"]).await;
    let label = |m: &Message| m.text.contains("Lunch");
    talk.desk.event("the reason", label).await;
    talk.fails(
        "logoutwithreason#1001",
        &[],
        "REJECTED",
        "MISSING_REASON_CODE",
    )
    .await;
    talk.forget();
    talk.does("refresh#1001", &[]).await;
    talk.sees_in_order(&["1001 State NOT_READY", "1001 DialogStatus"])
        .await;
    talk.does("logoutwithreason#1001", &["21"]).await;
    talk.sees("1001 State LOGOUT").await;
    // Signed out: Connect and Login again, then out without a reason, then by force.
    talk.forget();
    talk.sign_in(&[1001]).await;
    talk.does("Logout#1001", &[]).await;
    talk.sees("1001 State LOGOUT").await;
    talk.forget();
    talk.sign_in(&[1001]).await;
    talk.does("MakeReady#1001", &[]).await;
    talk.does("force_logout#1001", &[]).await;
    talk.sees("1001 State LOGOUT").await;
    assert_eq!(pair.state(1001), "LOGOUT");
}

/// The original's clients learn of a takeover and of an unknown client by events.
pub async fn takeover(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let old = Talk::open(pair, form, "desk-old").await;
    old.sign_in(&[1002]).await;
    let new = Talk::open(pair, form, "desk-new").await;
    old.does("Beat#desk-unknown", &[]).await;
    old.forget();
    new.does("Connect#1002", &["desk-new", "pw-1002"]).await;
    old.sees_in_order(&["1002 Error SESSION_INVALIDATED", "1002 State LOGOUT"])
        .await;
    new.does("Login#1002", &["pw-1002", "7002"]).await;
    new.sees("1002 DialogStatus").await;
    assert_eq!(pair.state(1002), "NOT_READY");
    let wrong = new.ask("Connect#1003", &["desk-new", "wrong"]).await;
    assert_eq!(wrong.error_code(), "SUBSCRIPTION_FAILED", "{}", wrong.text);
    new.sees("1003 Error SUBSCRIPTION_FAILED").await;
    let unknown = Talk::open(pair, form, "desk-beat").await;
    unknown.does("Beat#desk-beat", &[]).await;
    let reconnect = field(
        form,
        r#"{"type":"DESTINATION","destination":"desk-beat","status":"RECONNECT"}"#,
        "DESTINATION#desk-beat#RECONNECT",
    );
    unknown
        .desk
        .event("RECONNECT", |m| m.text == reconnect)
        .await;
}

pub async fn mobile(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-mobile").await;
    talk.does("Connect#1004", &["desk-mobile", "pw-1004"]).await;
    let number = "0041790001122";
    talk.does(
        "MobileAgentLogin#1004",
        &["pw-1004", "7004", number, "true"],
    )
    .await;
    talk.sees("1004 DialogStatus").await;
    let agent = pair.simulator.world().agent("1004").unwrap().clone();
    let mobile = agent.state.lock().unwrap().mobile.clone().unwrap();
    assert_eq!(
        (mobile.mode.as_str(), mobile.dial_number.as_str()),
        ("CALL_BY_CALL", number)
    );
    talk.does("GETAGENTEXTENSION#1004", &["1004"]).await;
    talk.desk
        .event("the extension", |m| {
            m.text.contains("agentExtension") && m.text.contains(number)
        })
        .await;
}
