//! The running simulator, driven by a real HTTP client and the `tokio-xmpp` client.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use tokio_xmpp::connect::{DnsConfig, TcpServerConnector};
use tokio_xmpp::jid::Jid;
use tokio_xmpp::xmlstream::Timeouts;
use tokio_xmpp::{Client, Event, Stanza};

use super::xml::{self, Elem};
use super::*;

const SOON: Duration = Duration::from_secs(20);

/// One agent's notification client.
struct Notified {
    client: Client,
}

/// One Update: node, event, requestId and the payload.
#[derive(Debug)]
struct Update {
    node: String,
    event: String,
    request_id: String,
    data: Elem,
}

impl Update {
    /// State of the user or dialog inside.
    fn state(&self) -> String {
        fn find(elem: &Elem) -> Option<String> {
            let own = elem.child("state").map(|state| state.text.clone());
            own.or_else(|| elem.children.iter().find_map(find))
        }
        find(&self.data).unwrap_or_default()
    }

    fn line(&self) -> String {
        let what = if self.node.ends_with("Dialogs") {
            "dialog"
        } else {
            "user"
        };
        format!("{what} {} {}", self.event, self.state())
    }
}

impl Notified {
    async fn sign_in(running: &Running, node: usize, agent: &str, resource: &str) -> Self {
        let at = &running.nodes[node - 1];
        let jid: Jid = format!("{agent}@{}/{resource}", at.domain).parse().unwrap();
        let client = Client::new_with_connector(
            jid,
            format!("pw-{agent}"),
            TcpServerConnector::from(DnsConfig::addr(&at.xmpp.to_string())),
            Timeouts::default(),
        );
        let mut own = Self { client };
        own.online().await;
        own
    }

    /// Waits until bound, sends presence and waits until the server knows it.
    async fn online(&mut self) {
        let wait = async {
            while let Some(event) = self.client.next().await {
                if matches!(event, Event::Online { .. }) {
                    break;
                }
            }
            let presence = tokio_xmpp::parsers::presence::Presence::available();
            self.client.send_stanza(presence.into()).await.unwrap();
            while let Some(event) = self.client.next().await {
                if matches!(event, Event::Stanza(Stanza::Presence(_))) {
                    break;
                }
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("online");
    }

    async fn next(&mut self) -> Update {
        tokio::time::timeout(SOON, self.any())
            .await
            .expect("an update")
    }

    async fn any(&mut self) -> Update {
        loop {
            let event = self.client.next().await.expect("the client lives");
            let Event::Stanza(Stanza::Message(message)) = event else {
                continue;
            };
            for payload in &message.payloads {
                let Some(items) = payload.children().find(|child| child.name() == "items") else {
                    continue;
                };
                let notification = items.children().next().unwrap().children().next().unwrap();
                let update = xml::parse(&notification.text()).unwrap();
                let text = |name: &str| update.child(name).unwrap().text.clone();
                return Update {
                    node: items.attr("node").unwrap().to_owned(),
                    event: text("event"),
                    request_id: text("requestId"),
                    data: update.child("data").unwrap().clone(),
                };
            }
        }
    }

    async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(self.next().await.line());
        }
        lines
    }
}

struct Rest {
    http: reqwest::Client,
}

impl Rest {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http }
    }

    async fn send(
        &self,
        method: Method,
        at: &NodeAddress,
        agent: &str,
        path: &str,
        body: &str,
    ) -> Result<(StatusCode, String), reqwest::Error> {
        let url = format!("http://{}{path}", at.rest);
        let answer = self
            .http
            .request(method, url)
            .basic_auth(agent, Some(format!("pw-{agent}")))
            .header("requestId", format!("r-{agent}"))
            .header("content-type", "application/xml")
            .body(body.to_owned())
            .send()
            .await?;
        Ok((answer.status(), answer.text().await?))
    }

    async fn put_user(&self, at: &NodeAddress, agent: &str, content: &str) -> StatusCode {
        let path = format!("/finesse/api/User/{agent}");
        let body = format!("<User>{content}</User>");
        let answer = self.send(Method::PUT, at, agent, &path, &body).await;
        answer.unwrap().0
    }

    async fn login(&self, at: &NodeAddress, agent: &str, extension: u32) {
        let content = format!("<state>LOGIN</state><extension>{extension}</extension>");
        assert_eq!(
            self.put_user(at, agent, &content).await,
            StatusCode::ACCEPTED
        );
    }

    async fn call(&self, at: &NodeAddress, agent: &str, from: u32, to: &str) -> StatusCode {
        let path = format!("/finesse/api/User/{agent}/Dialogs");
        let body = format!(
            "<Dialog><requestedAction>MAKE_CALL</requestedAction>\
             <fromAddress>{from}</fromAddress><toAddress>{to}</toAddress></Dialog>"
        );
        self.send(Method::POST, at, agent, &path, &body)
            .await
            .unwrap()
            .0
    }

    async fn act(&self, at: &NodeAddress, agent: &str, device: u32, act: &str) -> StatusCode {
        let list = format!("/finesse/api/User/{agent}/Dialogs");
        let (_, dialogs) = self.send(Method::GET, at, agent, &list, "").await.unwrap();
        let dialogs = xml::parse(&dialogs).unwrap();
        let id = dialogs.children[0].child("id").unwrap().text.clone();
        let body = format!(
            "<Dialog><targetMediaAddress>{device}</targetMediaAddress>\
             <requestedAction>{act}</requestedAction></Dialog>"
        );
        let path = format!("/finesse/api/Dialog/{id}");
        self.send(Method::PUT, at, agent, &path, &body)
            .await
            .unwrap()
            .0
    }
}

async fn control(running: &Running, method: Method, path: &str, body: &str) -> serde_json::Value {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}{path}", running.control.unwrap());
    let answer = http
        .request(method, url)
        .body(body.to_owned())
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{path} {}", answer.status());
    serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

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
    let mut old = raw_login(&running, 1, "cGxhaW4").await;
    let _new = raw_login(&running, 1, "cGxhaW4").await;
    let mut rest_of_it = String::new();
    let read = tokio::io::AsyncReadExt::read_to_string(&mut old, &mut rest_of_it);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    assert!(rest_of_it.contains("<conflict "), "{rest_of_it}");
    running.stop().await;
}

async fn raw_login(running: &Running, node: usize, resource: &str) -> tokio::net::TcpStream {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut tcp = tokio::net::TcpStream::connect(running.nodes[node - 1].xmpp)
        .await
        .unwrap();
    let plain = base64::engine::general_purpose::STANDARD.encode("\u{0}1001\u{0}pw-1001");
    let steps = [
        (
            "<stream:stream xmlns:stream='s'>".to_owned(),
            "</stream:features>",
        ),
        (
            format!("<auth mechanism='PLAIN'>{plain}</auth>"),
            "<success",
        ),
        (
            "<stream:stream xmlns:stream='s'>".to_owned(),
            "</stream:features>",
        ),
        (
            format!("<iq type='set' id='b'><bind><resource>{resource}</resource></bind></iq>"),
            "</jid>",
        ),
    ];
    for (say, expect) in steps {
        tcp.write_all(say.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains(expect) {
            let read = tokio::time::timeout(SOON, tcp.read_buf(&mut heard)).await;
            assert_ne!(read.unwrap().unwrap(), 0, "closed before {expect}");
        }
    }
    tcp
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

impl Rest {
    async fn put_user_if_up(&self, at: &NodeAddress, agent: &str, content: &str) -> bool {
        let path = format!("/finesse/api/User/{agent}");
        let body = format!("<User>{content}</User>");
        let answer = self.send(Method::PUT, at, agent, &path, &body).await;
        answer.is_ok_and(|(status, _)| status == 202)
    }
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
    let a = raw_login(&running, 1, "gc-1").await;
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
    let iq: tokio_xmpp::minidom::Element = iq.parse().unwrap();
    let iq = tokio_xmpp::parsers::iq::Iq::try_from(iq).unwrap();
    boss.client.send_stanza(iq.into()).await.unwrap();
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
