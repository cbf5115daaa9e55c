//! The running simulator, driven by a real HTTP client and the `tokio-xmpp` client.

use std::time::Duration;

mod calls;
mod nodes;

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

impl Rest {
    async fn put_user_if_up(&self, at: &NodeAddress, agent: &str, content: &str) -> bool {
        let path = format!("/finesse/api/User/{agent}");
        let body = format!("<User>{content}</User>");
        let answer = self.send(Method::PUT, at, agent, &path, &body).await;
        answer.is_ok_and(|(status, _)| status == 202)
    }
}
