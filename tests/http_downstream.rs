//! A generic HTTP downstream behind the connector: `Call` commands to a small server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use support::{Desk, LIMIT, Pair, PairOptions, run, until};
use tandem::client::{Command, Message};
use tokio::task::JoinHandle;

/// One request as a server saw it.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A server that says who it is, and misbehaves on request.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(name: &'static str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let state = (name, seen.clone());
        let router = Router::new().fallback(answer).with_state(state);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            address,
            seen,
            task,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/base", self.address)
    }

    /// Requests below the base, without health probes.
    fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        let calls = seen.iter().filter(|seen| !seen.line.ends_with("/base"));
        calls.cloned().collect()
    }

    fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

async fn answer(
    State((name, seen)): State<(&'static str, Arc<Mutex<Vec<Seen>>>)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20)
        .await
        .unwrap_or_default();
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.to_string(), value)
    });
    let path = parts.uri.path().to_owned();
    seen.lock().unwrap().push(Seen {
        line: format!("{} {}", parts.method, parts.uri),
        headers: headers.collect(),
        body: text(&body),
    });
    let word = path.rsplit('/').next().unwrap_or_default();
    match word {
        "missing" => (StatusCode::NOT_FOUND, axum::Json(json!({"why": "gone"}))).into_response(),
        "moved" => {
            let to = [(header::LOCATION, "/base/v1/items")];
            (StatusCode::FOUND, to).into_response()
        }
        "broken" => {
            let why = axum::Json(json!({"why": "broken"}));
            (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
        }
        "hugely-missing" => (StatusCode::NOT_FOUND, "x".repeat(300 * 1024)).into_response(),
        "never" => std::future::pending().await,
        "huge" => "x".repeat(300 * 1024).into_response(),
        "text" => "plain".into_response(),
        "digits" => ([(header::CONTENT_TYPE, "application/json")], DIGITS).into_response(),
        "closing" => ([(header::CONNECTION, "close")], "bye").into_response(),
        "chunked" => {
            let parts = ["one ", "two ", "three"].map(Ok::<_, std::io::Error>);
            Body::from_stream(futures::stream::iter(parts)).into_response()
        }
        _ => axum::Json(json!({"server": name, "got": text(&body)})).into_response(),
    }
}

/// JSON that a reader loses something of.
const DIGITS: &str = r#"{"z":12345678901234567890123,"a":1.10,"e":1e2}"#;

struct Stage {
    pair: Pair,
    desk: Desk,
    servers: [Server; 2],
}

async fn stage(shared: &mut support::Shared, destination: &str) -> Stage {
    let servers = [Server::start("one").await, Server::start("two").await];
    let options = PairOptions::default()
        .instances(1)
        .set("downstream.kind", "http")
        .set("downstream.url.1", &servers[0].url())
        .set("downstream.url.2", &servers[1].url())
        .set("downstream.request-timeout", "1s")
        .set("downstream.admin-user", "service")
        .set("downstream.admin-password", "s3cret")
        .set("downstream.allow.1", "GET /v1")
        .set("downstream.allow.2", "PUT /v1/items")
        .set("downstream.allow.3", "POST /v1/items");
    let pair = shared.pair(options).await;
    let desk = pair.desk(destination, 0).await;
    Stage {
        pair,
        desk,
        servers,
    }
}

impl Stage {
    async fn send(&self, key: &str, call: &Value) -> String {
        let mut command = Command::new(format!("Call#{key}"), call.to_string());
        command.json = true;
        self.desk.send_command(command).await
    }

    async fn call(&self, call: Value) -> Message {
        let id = self.send("key-1", &call).await;
        self.desk.reply(&id).await
    }

    async fn refused(&self, call: Value, code: &str) {
        let reply = self.call(call).await;
        assert_eq!(reply.field("outcome"), "REJECTED", "{}", reply.text);
        assert_eq!(reply.error_code(), code, "{}", reply.text);
    }
}

#[test]
fn calls_are_carried_out_and_answered() {
    run(async |shared| {
        let stage = stage(shared, "desk-http").await;
        let hello = stage.desk.ask("Hello#desk-http", "").await;
        assert_eq!(hello.field("outcome"), "OK", "{}", hello.text);
        let reply = stage
            .call(json!({"method": "GET", "path": "/v1//x/../items", "query": {"a b": "c&d", "n": 1}, "headers": {"x-trace": "t-1"}}))
            .await;
        assert_eq!(reply.field("outcome"), "OK", "{}", reply.text);
        assert_eq!(
            (&reply.json["status"], &reply.json["body"]["server"]),
            (&json!(200), &json!("one"))
        );
        let seen = stage.servers[0].seen().remove(0);
        assert_eq!(seen.line, "GET /base/v1/items?a+b=c%26d&n=1");
        assert_eq!(seen.header("x-trace"), Some("t-1"));
        assert_eq!(
            seen.header("authorization"),
            Some("Basic c2VydmljZTpzM2NyZXQ=")
        );

        let reply = stage
            .call(json!({"method": "POST", "path": "/v1/items", "body": {"name": "x"}}))
            .await;
        assert_eq!(reply.json["body"]["got"], r#"{"name":"x"}"#);
        let seen = stage.servers[0].seen().pop().unwrap();
        assert_eq!(seen.header("content-type"), Some("application/json"));
        assert_eq!(seen.body, r#"{"name":"x"}"#);

        // As it is written, there and back, and with a key that is no agent's id.
        let call = format!(
            r#"{{"method":"POST","path":"/v1/items/digits","query":{{"t":["a","b"],"n":null}},"body":{DIGITS}}}"#
        );
        let reply = stage.desk.ask("Call#order:42/\u{fc} b", call).await;
        assert_eq!(reply.json["id"], "order:42/\u{fc} b", "{}", reply.text);
        assert!(
            reply.text.contains(&format!(r#""body":{DIGITS}"#)),
            "{}",
            reply.text
        );
        let seen = stage.servers[0].seen().pop().unwrap();
        assert_eq!(seen.line, "POST /base/v1/items/digits?t=a&t=b");
        assert_eq!(seen.body, DIGITS);

        let missing = stage
            .call(json!({"method": "GET", "path": "/v1/missing"}))
            .await;
        assert_eq!(missing.field("outcome"), "FAILED", "{}", missing.text);
        assert_eq!(missing.error_code(), "HTTP_404");
        assert_eq!(missing.json["body"]["why"], "gone");
        for (word, body) in [
            ("text", "plain"),
            ("chunked", "one two three"),
            ("closing", "bye"),
            ("closing", "bye"),
        ] {
            let reply = stage
                .call(json!({"method": "GET", "path": format!("/v1/{word}")}))
                .await;
            assert_eq!(reply.json["body"], body, "{}", reply.text);
        }
        assert!(stage.servers[1].seen().is_empty());
        assert_eq!(stage.pair.gc1.role().await, "leader");
    });
}

#[test]
fn what_is_not_allowed_never_leaves() {
    run(async |shared| {
        let stage = stage(shared, "desk-allow").await;
        let get = |path: &str| json!({"method": "GET", "path": path});
        for path in ["/", "/v2", "/v1/../admin", "/v1/%2e%2e/admin", "/v11"] {
            stage.refused(get(path), "NOT_ALLOWED").await;
        }
        for path in [
            "/v1/%252e%252e/admin",
            "/v1/..;/admin",
            "/v1/a%2fb",
            "/../v1",
            "v1",
            "/v1?x=1",
            "/v1/a%00",
        ] {
            stage.refused(get(path), "PLEASE_RETRY").await;
        }
        stage
            .refused(
                json!({"method": "DELETE", "path": "/v1/items"}),
                "NOT_ALLOWED",
            )
            .await;
        stage
            .refused(
                json!({"method": "TRACE", "path": "/v1/items"}),
                "PLEASE_RETRY",
            )
            .await;
        for name in [
            "Host",
            "Authorization",
            "Cookie",
            "Transfer-Encoding",
            "Connection",
        ] {
            let call = json!({"method": "GET", "path": "/v1/items", "headers": {name: "x"}});
            stage.refused(call, "PLEASE_RETRY").await;
        }
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        let call = json!({"method": "POST", "path": "/v1/items", "body": deep});
        stage.refused(call, "PLEASE_RETRY").await;
        let ready = stage.desk.ask("MakeReady#1001", "").await;
        assert_eq!(ready.error_code(), "NOT_IMPLEMENTED", "{}", ready.text);
        let connect = stage.desk.ask("Connect#1001", "desk-allow,pw").await;
        assert_eq!(connect.error_code(), "NOT_IMPLEMENTED", "{}", connect.text);
        for server in &stage.servers {
            assert_eq!(server.lines(), Vec::<String>::new());
        }
    });
}

#[test]
fn one_keys_calls_run_in_order_and_doubt_is_never_repeated() {
    run(async |shared| {
        let stage = stage(shared, "desk-order").await;
        let mut sent = Vec::new();
        for n in 0..60 {
            let call = json!({"method": "PUT", "path": "/v1/items/a", "body": n});
            sent.push(stage.send("key-a", &call).await);
        }
        for id in &sent {
            assert_eq!(stage.desk.reply(id).await.field("outcome"), "OK");
        }
        let bodies: Vec<String> = stage.servers[0]
            .seen()
            .into_iter()
            .map(|s| s.body)
            .collect();
        let wanted: Vec<String> = (0..60).map(|n| n.to_string()).collect();
        assert_eq!(bodies, wanted);

        // Sent and never answered: in doubt, and never sent again, there or elsewhere.
        let doubt = stage
            .call(json!({"method": "POST", "path": "/v1/items/never"}))
            .await;
        assert_eq!(doubt.field("outcome"), "IN_DOUBT", "{}", doubt.text);
        let broken = stage
            .call(json!({"method": "POST", "path": "/v1/items/broken"}))
            .await;
        assert_eq!(broken.field("outcome"), "IN_DOUBT", "{}", broken.text);
        assert_eq!(broken.json["status"], 500);
        assert_eq!(broken.json["body"]["why"], "broken");
        // Idempotent by the command's own word: asked again at the other node.
        let word = json!({"method": "POST", "path": "/v1/items/broken", "idempotent": true});
        let broken = stage.call(word).await;
        assert_eq!(broken.field("outcome"), "FAILED", "{}", broken.text);
        assert_eq!(broken.error_code(), "HTTP_500");
        assert_eq!(broken.json["body"]["why"], "broken");
        // The status says what became of it, whatever there is of the body.
        for (method, word, outcome, status) in [
            ("POST", "items/huge", "OK", 200),
            ("POST", "items/hugely-missing", "FAILED", 404),
            ("GET", "hugely-missing", "FAILED", 404),
        ] {
            let reply = stage
                .call(json!({"method": method, "path": format!("/v1/{word}")}))
                .await;
            assert_eq!(reply.field("outcome"), outcome, "{}", reply.text);
            assert_eq!(reply.json["status"], status, "{}", reply.text);
            assert!(reply.json["body"].is_null(), "{}", reply.text);
        }
        for (path, why) in [("/v1/moved", "redirect"), ("/v1/huge", "bytes")] {
            let reply = stage.call(json!({"method": "GET", "path": path})).await;
            assert_eq!(reply.field("outcome"), "FAILED", "{}", reply.text);
            assert!(reply.text.contains(why), "{}", reply.text);
        }
        let count =
            |server: &Server, line: &str| server.lines().iter().filter(|l| *l == line).count();
        let all = |line: &str| stage.servers.iter().map(|s| count(s, line)).sum::<usize>();
        assert_eq!(all("POST /base/v1/items/never"), 1);
        assert_eq!(all("POST /base/v1/items/broken"), 3);
        assert_eq!(all("GET /base/v1/items"), 0, "a redirect was followed");

        // The primary goes: nothing was sent there, so the secondary may be asked, also for a POST.
        stage.servers[0].task.abort();
        until("the secondary answers", async || {
            let reply = stage
                .call(json!({"method": "POST", "path": "/v1/items"}))
                .await;
            reply.json["body"]["server"] == "two"
        })
        .await;
        let again = tokio::time::timeout(
            LIMIT,
            stage.call(json!({"method": "GET", "path": "/v1/items"})),
        )
        .await;
        assert_eq!(again.unwrap().json["body"]["server"], "two");
        stage.servers[1].seen.lock().unwrap().clear();
    });
}
