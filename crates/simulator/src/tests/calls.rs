//! States and calls, seen through both interfaces.

use super::*;

#[tokio::test]
async fn ready_is_accepted_first_and_reported_by_notification() {
    let rest = Rest::new();
    let running = start(Config::loopback(1, 2)).await.unwrap();
    let node = running.nodes[0].clone();
    let mut events = Notified::sign_in(&running, 1, "1001", "gc-1").await;
    rest.login(&node, "1001", 7001).await;
    let update = events.next().await;
    assert_eq!(update.line(), "user PUT NOT_READY");
    assert_eq!(update.request_id, "r-1001");
    assert_eq!(
        rest.put_user(&node, "1001", "<state>READY</state>").await,
        202
    );
    assert_eq!(events.next().await.line(), "user PUT READY");
    let kinds: Vec<_> = running
        .ledger()
        .entries(Some("1001"), 0)
        .iter()
        .map(|e| e.kind)
        .collect();
    assert_eq!(kinds, ["LOGIN", "READY"]);
    assert_eq!(
        rest.put_user(&node, "1001", "<state>LOGOUT</state>").await,
        400
    );
    running.stop().await;
}

#[tokio::test]
async fn two_agents_call_in_the_documented_order() {
    let rest = Rest::new();
    let running = start(Config::loopback(1, 2)).await.unwrap();
    let node = running.nodes[0].clone();
    let mut a = Notified::sign_in(&running, 1, "1001", "gc-1").await;
    let mut b = Notified::sign_in(&running, 1, "1002", "gc-1").await;
    rest.login(&node, "1001", 7001).await;
    rest.login(&node, "1002", 7002).await;
    rest.put_user(&node, "1002", "<state>READY</state>").await;
    a.lines(1).await;
    b.lines(2).await;
    assert_eq!(rest.call(&node, "1001", 7001, "7002").await, 202);
    assert_eq!(
        a.lines(3).await,
        [
            "dialog POST INITIATING",
            "dialog PUT INITIATED",
            "dialog PUT ALERTING"
        ]
    );
    assert_eq!(
        b.lines(2).await,
        ["dialog POST ALERTING", "user PUT RESERVED"]
    );
    assert_eq!(rest.act(&node, "1002", 7002, "ANSWER").await, 202);
    assert_eq!(a.lines(2).await, ["dialog PUT ACTIVE", "user PUT TALKING"]);
    assert_eq!(b.lines(2).await, ["dialog PUT ACTIVE", "user PUT TALKING"]);
    assert_eq!(rest.act(&node, "1001", 7001, "HOLD").await, 202);
    assert_eq!(a.lines(2).await, ["dialog PUT ACTIVE", "user PUT HOLD"]);
    assert_eq!(b.lines(1).await, ["dialog PUT ACTIVE"]);
    assert_eq!(rest.act(&node, "1001", 7001, "HOLD").await, 202);
    let refused = a.next().await;
    assert!(refused.data.child("apiErrors").is_some(), "{refused:?}");
    assert_eq!(rest.act(&node, "1001", 7001, "DROP").await, 202);
    let end = ["dialog PUT DROPPED", "dialog DELETE DROPPED"];
    assert_eq!(a.lines(3).await, [end[0], end[1], "user PUT NOT_READY"]);
    assert_eq!(b.lines(3).await, [end[0], end[1], "user PUT READY"]);
    let kinds: Vec<_> = running
        .ledger()
        .entries(None, 3)
        .iter()
        .map(|e| e.kind)
        .collect();
    assert_eq!(kinds, ["MAKE_CALL", "ANSWER", "HOLD", "DROP"]);
    running.stop().await;
}

#[tokio::test]
async fn outside_numbers_answer_and_bad_ones_fail() {
    let rest = Rest::new();
    let mut config = Config::loopback(1, 1);
    config.answer_delay = Duration::from_millis(5);
    let running = start(config).await.unwrap();
    let node = running.nodes[0].clone();
    let mut a = Notified::sign_in(&running, 1, "1001", "gc-1").await;
    rest.login(&node, "1001", 7001).await;
    a.lines(1).await;
    assert_eq!(rest.call(&node, "1001", 7001, "7001").await, 400);
    assert_eq!(rest.call(&node, "1001", 7001, "0612223344").await, 202);
    assert_eq!(
        a.lines(5).await[3..],
        ["dialog PUT ACTIVE", "user PUT TALKING"]
    );
    rest.act(&node, "1001", 7001, "DROP").await;
    a.lines(3).await;
    assert_eq!(rest.call(&node, "1001", 7001, "99912").await, 202);
    assert_eq!(a.lines(3).await[2], "dialog PUT FAILED");
    running.stop().await;
}

#[tokio::test]
async fn a_call_from_outside_is_offered_answered_and_transferred() {
    let rest = Rest::new();
    let running = start(Config::loopback(1, 2)).await.unwrap();
    let node = running.nodes[0].clone();
    let mut a = Notified::sign_in(&running, 1, "1001", "gc-1").await;
    let mut b = Notified::sign_in(&running, 1, "1002", "gc-1").await;
    for (agent, extension) in [("1001", 7001), ("1002", 7002)] {
        rest.login(&node, agent, extension).await;
        rest.put_user(&node, agent, "<state>READY</state>").await;
    }
    a.lines(2).await;
    b.lines(2).await;
    let call = r#"{"to":"7001","from":"0612223344"}"#;
    let placed = control(&running, Method::POST, "/calls", call).await;
    let id = placed["dialogId"].as_u64().unwrap();
    assert_eq!(
        a.lines(2).await,
        ["dialog POST ALERTING", "user PUT RESERVED"]
    );
    rest.act(&node, "1001", 7001, "ANSWER").await;
    assert_eq!(a.lines(2).await, ["dialog PUT ACTIVE", "user PUT TALKING"]);
    let consult = "<Dialog><requestedAction>CONSULT_CALL</requestedAction><toAddress>7002</toAddress>\
                   <targetMediaAddress>7001</targetMediaAddress></Dialog>";
    let path = format!("/finesse/api/Dialog/{id}");
    let sent = rest.send(Method::PUT, &node, "1001", &path, consult).await;
    assert_eq!(sent.unwrap().0, 202);
    let seen = a.lines(5).await;
    assert_eq!(seen[..2], ["dialog PUT ACTIVE", "user PUT HOLD"]);
    assert_eq!(
        seen[2..4],
        ["dialog POST INITIATING", "dialog PUT INITIATED"]
    );
    b.lines(2).await;
    rest.act(&node, "1002", 7002, "ANSWER").await;
    // The consult call is active, the held one offers the transfer.
    assert_eq!(a.lines(3).await.last().unwrap(), "user PUT TALKING");
    b.lines(2).await;
    assert_eq!(rest.act(&node, "1001", 7001, "TRANSFER").await, 202);
    let left = a.lines(3).await;
    assert_eq!(left[..2], ["dialog DELETE ACTIVE", "dialog DELETE DROPPED"]);
    assert_eq!(left[2], "user PUT READY");
    assert_eq!(
        b.lines(2).await,
        ["dialog DELETE DROPPED", "dialog POST ACTIVE"]
    );
    let agents = control(&running, Method::GET, "/agents", "").await;
    assert_eq!(agents[0]["dialogs"], serde_json::json!([]));
    assert_eq!(agents[1]["dialogs"], serde_json::json!([id]));
    running.stop().await;
}

/// A world with three agents signed in and ready, and a call of the first to the second.
async fn talking(rest: &Rest, deployment: Deployment) -> (Running, NodeAddress) {
    let mut config = Config::loopback(1, 3);
    config.deployment = deployment;
    let running = start(config).await.unwrap();
    let node = running.nodes[0].clone();
    for (agent, extension) in [("1001", 7001), ("1002", 7002), ("1003", 7003)] {
        rest.login(&node, agent, extension).await;
    }
    assert_eq!(rest.call(&node, "1001", 7001, "7002").await, 202);
    assert_eq!(rest.act(&node, "1002", 7002, "ANSWER").await, 202);
    (running, node)
}

async fn act_on(rest: &Rest, running: &Running, agent: &str, device: u32, act: &str, to: &str) {
    let dialogs = super::lock(&running.world().agent(agent).unwrap().state)
        .dialogs
        .clone();
    let body = format!(
        "<Dialog><targetMediaAddress>{device}</targetMediaAddress><toAddress>{to}</toAddress>\
         <requestedAction>{act}</requestedAction></Dialog>"
    );
    let path = format!("/finesse/api/Dialog/{}", dialogs[0]);
    let sent = rest
        .send(Method::PUT, &running.nodes[0], agent, &path, &body)
        .await;
    assert_eq!(sent.unwrap().0, 202);
}

fn states(running: &Running) -> Vec<&'static str> {
    let agents = running.world().agents().iter();
    agents.map(|agent| agent.current().name()).collect()
}

#[tokio::test]
async fn a_blind_transfer_rings_the_third_and_frees_the_first() {
    let rest = Rest::new();
    let (running, _node) = talking(&rest, Deployment::Ucce).await;
    act_on(&rest, &running, "1001", 7001, "TRANSFER_SST", "99911").await;
    assert_eq!(states(&running), ["TALKING", "TALKING", "NOT_READY"]);
    act_on(&rest, &running, "1001", 7001, "TRANSFER_SST", "7003").await;
    act_on(&rest, &running, "1003", 7003, "ANSWER", "").await;
    assert_eq!(states(&running), ["NOT_READY", "TALKING", "TALKING"]);
    let kinds: Vec<_> = running
        .ledger()
        .entries(None, 4)
        .iter()
        .map(|e| e.kind)
        .collect();
    // The refused transfer left no entry.
    assert_eq!(kinds, ["ANSWER", "TRANSFER_SST", "ANSWER"]);
    running.stop().await;
}

#[tokio::test]
async fn a_conference_survives_one_leaver_and_uccx_has_no_hold_state() {
    let rest = Rest::new();
    let (running, node) = talking(&rest, Deployment::Uccx).await;
    act_on(&rest, &running, "1001", 7001, "CONSULT_CALL", "7003").await;
    assert_eq!(states(&running), ["TALKING", "TALKING", "NOT_READY"]);
    act_on(&rest, &running, "1003", 7003, "ANSWER", "").await;
    act_on(&rest, &running, "1001", 7001, "CONFERENCE", "").await;
    let list = "/finesse/api/User/1003/Dialogs";
    let (_, dialogs) = rest
        .send(Method::GET, &node, "1003", list, "")
        .await
        .unwrap();
    let dialog = xml::parse(&dialogs).unwrap().children[0].clone();
    assert_eq!(dialog.child("participants").unwrap().children.len(), 3);
    assert_ne!(dialog.child("secondaryId").unwrap().text, "");
    act_on(&rest, &running, "1001", 7001, "DROP", "").await;
    assert_eq!(states(&running), ["NOT_READY", "TALKING", "TALKING"]);
    act_on(&rest, &running, "1002", 7002, "DROP", "").await;
    assert_eq!(states(&running), ["NOT_READY", "NOT_READY", "NOT_READY"]);
    running.stop().await;
}
