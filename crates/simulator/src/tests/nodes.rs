//! Sign-in, sessions, faults and the control endpoints.

use super::*;

#[tokio::test]
async fn credentials_decide_before_anything_else() {
    let rest = Rest::new();
    let running = start(Config::loopback(1, 2)).await.unwrap();
    let node = running.nodes[0].clone();
    let get = |path: &'static str| rest.send(Method::GET, &node, "1001", path, "");
    let (status, body) = get("/finesse/api/User/1002").await.unwrap();
    assert_eq!(status, 401);
    assert!(
        body.contains("Invalid Authorization User Specified"),
        "{body}"
    );
    assert_eq!(get("/finesse/api/Nothing").await.unwrap().0, 404);
    assert_eq!(get("/finesse/api/Dialog/77").await.unwrap().0, 404);
    let bare = rest
        .http
        .get(format!("http://{}/finesse/api/User/1001", node.rest));
    assert_eq!(bare.send().await.unwrap().status(), 401);
    let info = rest
        .http
        .get(format!("http://{}/finesse/api/SystemInfo", node.rest));
    let info = info.send().await.unwrap().text().await.unwrap();
    assert_eq!(
        xml::parse(&info).unwrap().child("status").unwrap().text,
        "IN_SERVICE"
    );
    running.stop().await;
}

#[tokio::test]
async fn both_nodes_tell_and_one_session_a_resource_survives() {
    let rest = Rest::new();
    let running = start(Config::loopback(2, 1)).await.unwrap();
    let mut first = Notified::sign_in(&running, 1, "1001", "gc-1").await;
    let mut second = Notified::sign_in(&running, 2, "1001", "gc-1").await;
    rest.login(&running.nodes[1].clone(), "1001", 7001).await;
    assert_eq!(first.next().await.line(), "user PUT NOT_READY");
    assert_eq!(second.next().await.line(), "user PUT NOT_READY");
    let sessions = control(&running, Method::GET, "/subscriptions", "").await;
    assert_eq!(sessions.as_array().unwrap().len(), 2);
    // The same resource again on node 1, by hand: the older stream ends with `conflict`.
    let mut old = raw_login(&running, 1, "1001", "cGxhaW4").await;
    let _new = raw_login(&running, 1, "1001", "cGxhaW4").await;
    let mut rest_of_it = String::new();
    let read = tokio::io::AsyncReadExt::read_to_string(&mut old, &mut rest_of_it);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    assert!(rest_of_it.contains("<conflict "), "{rest_of_it}");
    running.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_not_authorized() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let running = start(Config::loopback(1, 1)).await.unwrap();
    let mut tcp = tokio::net::TcpStream::connect(running.nodes[0].xmpp)
        .await
        .unwrap();
    let plain = base64::engine::general_purpose::STANDARD.encode("\u{0}1001\u{0}wrong");
    let say = format!("<stream:stream xmlns:stream='s'><auth mechanism='PLAIN'>{plain}</auth>");
    tcp.write_all(say.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("<not-authorized/>") {
        let read = tokio::time::timeout(SOON, tcp.read_buf(&mut heard)).await;
        assert_ne!(read.unwrap().unwrap(), 0);
    }
    running.stop().await;
}

#[tokio::test]
async fn request_faults_answer_drop_or_spoil() {
    let rest = Rest::new();
    let running = start(Config::loopback(1, 1)).await.unwrap();
    let node = running.nodes[0].clone();
    rest.login(&node, "1001", 7001).await;
    let fault = |json: &str| {
        let fault = serde_json::from_str(json).unwrap();
        running.faults()[0].add(fault).unwrap()
    };
    fault(r#"{"status":500,"count":1}"#);
    assert_eq!(
        rest.put_user(&node, "1001", "<state>READY</state>").await,
        500
    );
    assert_eq!(running.ledger().total(), 1);
    let path = "/finesse/api/User/1001";
    let ready = "<User><state>READY</state></User>";
    fault(r#"{"dropBeforeAccept":true,"count":1}"#);
    assert!(
        rest.send(Method::PUT, &node, "1001", path, ready)
            .await
            .is_err()
    );
    let before = running.ledger().total();
    fault(r#"{"dropAfterAccept":true,"count":1}"#);
    assert!(
        rest.send(Method::PUT, &node, "1001", path, ready)
            .await
            .is_err()
    );
    assert_eq!((before, running.ledger().total()), (1, 2));
    fault(r#"{"garbage":true,"count":1}"#);
    let (status, body) = rest
        .send(Method::GET, &node, "1001", path, "")
        .await
        .unwrap();
    assert_eq!(status, 200);
    assert!(xml::parse(&body).is_err());
    fault(r#"{"outOfService":true}"#);
    assert_eq!(
        rest.put_user(&node, "1001", "<state>NOT_READY</state>")
            .await,
        503
    );
    running.faults()[0].clear(None);
    assert_eq!(
        rest.put_user(&node, "1001", "<state>NOT_READY</state>")
            .await,
        202
    );
    fault(r#"{"hang":true,"count":1}"#);
    let hung = rest.send(Method::GET, &node, "1001", path, "");
    assert!(
        tokio::time::timeout(Duration::from_millis(200), hung)
            .await
            .is_err()
    );
    running.stop().await;
}

#[tokio::test]
async fn a_refusing_node_comes_back_on_its_port() {
    let rest = Rest::new();
    let running = start(Config::loopback(2, 1)).await.unwrap();
    let nodes = running.nodes.clone();
    rest.login(&nodes[0], "1001", 7001).await;
    control(
        &running,
        Method::POST,
        "/faults",
        r#"{"node":1,"refuse":true,"xmppDown":true}"#,
    )
    .await;
    let path = "/finesse/api/SystemInfo";
    until("node 1 refuses", async || {
        rest.send(Method::GET, &nodes[0], "1001", path, "")
            .await
            .is_err_and(|e| e.is_connect())
    })
    .await;
    until("its notification service too", async || {
        tokio::net::TcpStream::connect(nodes[0].xmpp).await.is_err()
    })
    .await;
    // The other node knows the same agents.
    assert_eq!(
        rest.put_user(&nodes[1], "1001", "<state>READY</state>")
            .await,
        202
    );
    control(&running, Method::DELETE, "/faults", "").await;
    until("node 1 serves again", async || {
        rest.put_user_if_up(&nodes[0], "1001", "<state>NOT_READY</state>")
            .await
    })
    .await;
    let faults = control(&running, Method::GET, "/faults", "").await;
    assert_eq!(faults, serde_json::json!([]));
    let ledger = control(&running, Method::GET, "/ledger?agent=1001&since=1", "").await;
    assert_eq!(ledger[0]["node"], 2);
    assert_eq!(ledger[0]["requestId"], "r-1001");
    running.stop().await;
}

#[tokio::test]
async fn swallowed_notifications_are_gone_and_service_changes_are_told() {
    let rest = Rest::new();
    let running = start(Config::loopback(1, 1)).await.unwrap();
    let node = running.nodes[0].clone();
    let mut a = Notified::sign_in(&running, 1, "1001", "gc-1").await;
    let add = |json: &str| running.faults()[0].add(serde_json::from_str(json).unwrap());
    add(r#"{"notificationLoss":true,"count":1}"#).unwrap();
    rest.login(&node, "1001", 7001).await;
    rest.put_user(&node, "1001", "<state>READY</state>").await;
    assert_eq!(a.next().await.line(), "user PUT READY");
    add(r#"{"outOfService":true}"#).unwrap();
    let update = a.next().await;
    assert_eq!(update.node, "/finesse/api/SystemInfo");
    let info = update.data.child("systemInfo").unwrap();
    assert_eq!(info.child("status").unwrap().text, "OUT_OF_SERVICE");
    running.stop().await;
}

#[tokio::test]
async fn an_agent_without_session_is_forced_out() {
    let rest = Rest::new();
    let mut config = Config::loopback(1, 1);
    config.forced_logout_after = Duration::from_millis(50);
    let running = start(config).await.unwrap();
    let node = running.nodes[0].clone();
    let a = raw_login(&running, 1, "1001", "gc-1").await;
    rest.login(&node, "1001", 7001).await;
    drop(a);
    let agent = running.world().agent("1001").unwrap().clone();
    until("the agent is out", async || {
        agent.current() == super::agent::State::Logout
    })
    .await;
    let last = running.ledger().entries(None, 1);
    assert_eq!((last[0].kind, &*last[0].detail), ("FORCED_LOGOUT", "255"));
    running.stop().await;
}

#[tokio::test]
async fn a_supervisor_follows_his_team() {
    let rest = Rest::new();
    let mut config = Config::loopback(1, 1);
    config.agents.explicit.push(AgentSpec {
        id: "2001".to_owned(),
        password: "pw-2001".to_owned(),
        extension: "7900".to_owned(),
        first_name: "Ilan".to_owned(),
        last_name: "Roth".to_owned(),
        team: 1,
        supervisor: true,
    });
    let running = start(config).await.unwrap();
    let node = running.nodes[0].clone();
    let mut boss = Notified::sign_in(&running, 1, "2001", "gc-1").await;
    let iq = format!(
        "<iq xmlns='jabber:client' type='set' id='s1' to='pubsub.{0}'>\
         <pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <subscribe node='/finesse/api/Team/1/Users' jid='2001@{0}/gc-1'/></pubsub></iq>",
        node.domain
    );
    boss.say(&iq).await;
    let agents = running.world().clone();
    until("subscribed", async || agents.team_watch_count() == 1).await;
    rest.login(&node, "1001", 7001).await;
    let update = boss.next().await;
    assert_eq!(update.node, "/finesse/api/Team/1/Users");
    assert_eq!(update.state(), "NOT_READY");
    let path = "/finesse/api/User/1001";
    let out = "<User><state>LOGOUT</state></User>";
    let sent = rest
        .send(Method::PUT, &node, "2001", path, out)
        .await
        .unwrap();
    assert_eq!(sent.0, 202);
    assert_eq!(boss.next().await.state(), "LOGOUT");
    running.stop().await;
}
