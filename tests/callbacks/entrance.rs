//! Commands through the HTTP entrance, and what is known of the events that are posted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tandem::lab::ReservedPort;

use crate::support::callback::CallbackServer;
use crate::support::pair::extension;
use crate::support::{Desk, Pair, PairOptions, until};

const TOKEN: &str = "entrance-token";
/// As `openssl rand -hex 32` makes one.
pub const SIGN_KEY: &str = "6b0f3fdbb0a1d7c4a3f6c2d9e1b8475566778899aabbccddeeff001122334455";
pub const BACK: &str = "callback-token";

pub fn ports(count: usize) -> Vec<ReservedPort> {
    (0..count).map(|_| ReservedPort::take().unwrap()).collect()
}

/// Instances whose entrances listen at these ports and post to this server.
pub fn posting(ports: &[ReservedPort], server: &CallbackServer) -> PairOptions {
    let mut options = PairOptions::default()
        .instances(ports.len())
        .set("rest.token", TOKEN)
        .set("rest.callback.allow.1", &format!("{}/event", server.url()))
        .set("rest.callback.token", BACK)
        .set("rest.callback.timeout", "500ms");
    for (index, port) in ports.iter().enumerate() {
        options = options.set_own(index, "rest.listen", &port.address().to_string());
    }
    options
}

/// One attempt with curl, as a client's script would: status and body, or nothing.
pub async fn curl(
    port: &ReservedPort,
    id: &str,
    attempt: usize,
    body: &Value,
) -> Option<(u16, Value)> {
    let output = tokio::process::Command::new("curl")
        .args(["-s", "-m", "15", "-w", "\n%{http_code}"])
        .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
        .args(["-H", "Content-Type: application/json"])
        .args(["-H", &format!("Idempotency-Key: {id}")])
        .args(["-H", &format!("X-Correlation-Id: {id}")])
        .args(["-H", &format!("X-Attempt: {attempt}")])
        .args(["-d", &body.to_string()])
        .arg(format!("http://{}/gc/command", port.address()))
        .kill_on_drop(true)
        .output()
        .await
        .expect("curl runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n')?;
    let status: u16 = status.parse().unwrap();
    if status == 0 {
        return None;
    }
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    super::document::must_fit(status, &body);
    Some((status, body))
}

/// A command until an entrance has taken it, always under one id.
pub async fn deliver(ports: &[ReservedPort], id: &str, kind: &str, body: &str) {
    let body = json!({"data": {"type": kind, "body": body, "sessionUrl": "s"}});
    for attempt in 1..200 {
        let port = &ports[(attempt - 1) % ports.len()];
        if let Some((202, _)) = curl(port, id, attempt, &body).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody took {id}");
}

/// Hello by curl that names the callback.
pub async fn hello(port: &ReservedPort, id: &str, server: &CallbackServer) {
    let body = json!({"data": {"type": "Hello#crm", "body": "null", "sessionUrl": "s",
        "callbackFqdn": server.url(), "callbackEndpoint": "/event/crm"}});
    let taken = curl(port, id, 1, &body).await.unwrap();
    assert_eq!((taken.0, &taken.1["callback"]), (202, &json!("registered")));
    until("the answer to Hello is posted", async || {
        let requests = server.requests();
        let mut requests = requests.iter().filter(|request| request.taken);
        requests.any(|request| request.header("x-correlation-id") == id)
    })
    .await;
}

pub async fn sign_in(ports: &[ReservedPort], pair: &Pair, agents: &[u32]) {
    for agent in agents {
        let (connect, login) = (format!("c-{agent}"), format!("l-{agent}"));
        let (kind, body) = (format!("Connect#{agent}"), format!("crm,pw-{agent}"));
        deliver(ports, &connect, &kind, &body).await;
        let body = format!("pw-{agent},{}", extension(*agent));
        deliver(ports, &login, &format!("Login#{agent}"), &body).await;
    }
    for agent in agents {
        until("it is signed in", async || {
            pair.state(*agent) == "NOT_READY" && pair.sessions(*agent) == 1
        })
        .await;
    }
}

/// What the exchange gave to another client of the same destination.
pub fn heard(desk: &Desk) -> Vec<String> {
    let events = desk.events();
    events
        .iter()
        .map(|event| event.message_id.clone().unwrap())
        .collect()
}

/// Everything that the exchange gave was posted and taken; ids that were taken more than once.
pub async fn all_posted(server: &CallbackServer, desk: &Desk) -> Vec<String> {
    until("every event is posted", async || {
        let taken: BTreeSet<String> = server.taken().into_iter().collect();
        heard(desk).iter().all(|id| taken.contains(id))
    })
    .await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for id in server.taken() {
        *counts.entry(id).or_default() += 1;
    }
    counts.retain(|_, count| *count > 1);
    counts.into_keys().collect()
}

/// Ready and not ready in turn, `count` times, each when the one before has its effect.
pub async fn changes(ports: &[ReservedPort], pair: &Pair, name: &str, count: usize) {
    for index in 0..count {
        let (kind, state) = match index % 2 {
            0 => ("MakeReady#1001", "READY"),
            _ => ("MakeNotReady#1001", "NOT_READY"),
        };
        deliver(ports, &format!("{name}-{index}"), kind, "").await;
        until("it has its effect", async || pair.state(1001) == state).await;
    }
}

pub async fn rows(pair: &Pair) -> Vec<Value> {
    let status = pair.gc1.status().await;
    status["callbacks"].as_array().cloned().unwrap_or_default()
}

/// Rows of a destination, of both instances.
async fn all_rows(pair: &Pair) -> Vec<Value> {
    let mut all = Vec::new();
    for instance in [&pair.gc1, &pair.gc2] {
        let status = instance.status().await;
        all.extend(status["callbacks"].as_array().cloned().unwrap_or_default());
    }
    all
}

/// Whether all callbacks of both instances are at this broker, and there are any.
pub async fn all_at(pair: &Pair, broker: &str) -> bool {
    let rows = all_rows(pair).await;
    let at = |row: &Value| broker.contains(row["broker"].as_str().unwrap());
    !rows.is_empty() && rows.iter().all(at)
}

/// Hello of this destination: status and answer.
pub async fn hello_of(
    port: &ReservedPort,
    destination: &str,
    server: &CallbackServer,
) -> Option<(u16, Value)> {
    let body = json!({"data": {"type": format!("Hello#{destination}"), "body": "null",
        "sessionUrl": "s", "callbackFqdn": server.url(), "callbackEndpoint": "/event"}});
    let id = format!("h-{destination}");
    curl(port, &id, 1, &body).await
}

pub async fn posted_to(server: &CallbackServer, destination: &str) {
    until("an event is posted", async || {
        let requests = server.requests();
        let mut to = requests.iter().map(|one| one.header("x-destination"));
        to.any(|one| one == destination)
    })
    .await;
}
