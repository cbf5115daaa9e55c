//! The running simulator, driven by a real HTTP client and, over its notification service, by hand.

use std::time::Duration;

mod calls;
mod nodes;

use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::xml::{self, Elem};
use super::*;

const SOON: Duration = Duration::from_secs(20);

/// One agent's notification client.
struct Notified {
    tcp: TcpStream,
    heard: String,
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
        let mut own = Self {
            tcp: raw_login(running, node, agent, resource).await,
            heard: String::new(),
        };
        own.say("<presence/>").await;
        // The application's presence comes back: the service knows ours.
        tokio::time::timeout(SOON, own.until("<presence", "/>"))
            .await
            .expect("online");
        own
    }

    async fn say(&mut self, stanza: &str) {
        self.tcp.write_all(stanza.as_bytes()).await.unwrap();
    }

    /// The next stanza that begins and ends like this; others are passed over.
    async fn until(&mut self, begin: &str, end: &str) -> String {
        loop {
            let found = self.heard.find(begin).and_then(|from| {
                let length = self.heard[from..].find(end)?;
                Some((from, from + length + end.len()))
            });
            if let Some((from, to)) = found {
                let stanza = self.heard[from..to].to_owned();
                self.heard.drain(..to);
                return stanza;
            }
            let mut chunk = [0; 4096];
            let n = self.tcp.read(&mut chunk).await.unwrap();
            assert_ne!(n, 0, "the service lives");
            self.heard
                .push_str(std::str::from_utf8(&chunk[..n]).unwrap());
        }
    }

    async fn next(&mut self) -> Update {
        tokio::time::timeout(SOON, self.any())
            .await
            .expect("an update")
    }

    async fn any(&mut self) -> Update {
        let message = xml::parse(&self.until("<message", "</message>").await).unwrap();
        let items = message.child("event").unwrap().child("items").unwrap();
        let notification = items.child("item").unwrap().child("notification").unwrap();
        let update = xml::parse(&notification.text).unwrap();
        let text = |name: &str| update.child(name).unwrap().text.clone();
        Update {
            node: items.attr("node").unwrap().to_owned(),
            event: text("event"),
            request_id: text("requestId"),
            data: update.child("data").unwrap().clone(),
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

async fn raw_login(running: &Running, node: usize, agent: &str, resource: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(running.nodes[node - 1].xmpp)
        .await
        .unwrap();
    let plain = format!("\u{0}{agent}\u{0}pw-{agent}");
    let plain = base64::engine::general_purpose::STANDARD.encode(plain);
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
