//! The HTTP entrance: commands over HTTP are put on the queue, refusals say why, and a kill of the
//! leader loses nothing and doubles nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

#[path = "contracts/entrance.rs"]
mod document;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::certs::{Kind, Made, Maker};
use support::{Desk, Pair, PairOptions, run, until};
use tandem::lab::ReservedPort;

const TOKEN: &str = "entrance-token";

/// A pair whose instances listen at these ports, with the token.
fn listening(ports: &[ReservedPort], options: PairOptions) -> PairOptions {
    let mut options = options.set("rest.token", TOKEN);
    for (index, port) in ports.iter().enumerate() {
        let address = port.address().to_string();
        options = options.set_own(index, "rest.listen", &address);
    }
    options
}

fn ports(count: usize) -> Vec<ReservedPort> {
    (0..count).map(|_| ReservedPort::take().unwrap()).collect()
}

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    builder.timeout(Duration::from_secs(20)).build().unwrap()
}

fn envelope(kind: &str, body: &str) -> Value {
    json!({"data": {"type": kind, "body": body, "sessionUrl": "https://crm.example/s/1"}})
}

/// Posts as any HTTP client would; status and body, or nothing where nobody answers.
async fn post(
    http: &reqwest::Client,
    port: &ReservedPort,
    headers: &[(&str, &str)],
    body: String,
) -> Option<(u16, Value)> {
    let url = format!("http://{}/gc/command", port.address());
    let mut request = http.post(url).body(body);
    let given: BTreeMap<&str, &str> = [
        ("content-type", "application/json"),
        ("authorization", "Bearer entrance-token"),
    ]
    .into_iter()
    .chain(headers.iter().copied())
    .collect();
    for (name, value) in given {
        request = request.header(name, value);
    }
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.json().await.ok()?;
    document::must_fit(status, &body);
    Some((status, body))
}

#[test]
fn a_command_is_taken_with_its_id_and_runs_once_and_refusals_say_why() {
    run(async |shared| {
        let ports = ports(1);
        let options = listening(&ports, PairOptions::default().instances(1));
        let pair = shared.pair(options).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        let http = client();
        let send = async |headers: &[(&str, &str)], body: String| {
            post(&http, &ports[0], headers, body).await.unwrap()
        };
        let ready = envelope("MakeReady#1001", "").to_string();

        const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = [("idempotency-key", "r-1"), ("traceparent", PARENT)];
        for _ in 0..2 {
            let (status, body) = send(&headers, ready.clone()).await;
            assert_eq!((status, &body["id"]), (202, &json!("r-1")), "{body}");
        }
        until("it has its effect", async || {
            pair.effects_of("READY", "r-1") == 1
        })
        .await;
        let made = pair.effects(1001);
        let made = made.iter().find(|entry| &*entry.request_id == "r-1");
        assert_eq!(&*made.unwrap().traceparent, PARENT);

        // The client's events come as everybody's do; that they are not posted is said.
        let hello = json!({"data": {"type": "Hello#crm", "body": "null", "sessionUrl": "s",
            "callbackFqdn": "https://crm.example", "callbackEndpoint": "/event"}});
        let crm = pair.desk("crm", 0).await;
        crm.clear_events();
        let (status, body) = send(&[("x-correlation-id", "h-1")], hello.to_string()).await;
        assert_eq!(
            (status, &body["callback"]),
            (202, &json!("ignored")),
            "{body}"
        );
        crm.event("in service", |event| {
            event.field("type") == "System" && event.correlation_id.as_deref() == Some("h-1")
        })
        .await;

        for (headers, body, wanted) in [
            (vec![("authorization", "Bearer wrong")], ready.clone(), 401),
            (vec![("authorization", "Basic eDp5")], ready.clone(), 401),
            (vec![("origin", "http://evil.example")], ready.clone(), 403),
            (
                vec![("origin", "null"), ("content-type", "text/plain")],
                ready.clone(),
                403,
            ),
            (vec![], "{".to_owned(), 400),
            (vec![], envelope("Fly#1001", "").to_string(), 400),
            (vec![("x-attempt", "x")], ready.clone(), 400),
            (
                vec![],
                envelope("Hello#crm", &"x".repeat(70_000)).to_string(),
                413,
            ),
        ] {
            let (status, body) = send(&headers, body).await;
            assert_eq!(status, wanted, "{headers:?} {body}");
            assert!(body["error"].is_string(), "{body}");
        }
        // As `curl -d` and many a library send it.
        let form = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("idempotency-key", "r-2"),
        ];
        let (status, body) = send(&form, ready.clone()).await;
        assert_eq!((status, &body["id"]), (202, &json!("r-2")), "{body}");
        until("it has its effect, too", async || {
            pair.effects_of("READY", "r-2") == 1
        })
        .await;
        let url = format!("http://{}/gc/command", ports[0].address());
        assert_eq!(http.get(url).send().await.unwrap().status(), 405);
        assert_eq!(pair.effects_of("READY", "r-1"), 1);
    });
}

/// One command until an entrance has taken it: at the first that answers, always under one id.
async fn deliver(http: &reqwest::Client, ports: &[ReservedPort], agent: u32) -> String {
    let id = format!("call-{agent}");
    let body = envelope(&format!("MakeCall#{agent}"), "5550142").to_string();
    for attempt in 1..200 {
        let count = attempt.to_string();
        let headers = [
            ("idempotency-key", id.as_str()),
            ("x-correlation-id", id.as_str()),
            ("x-attempt", count.as_str()),
        ];
        let port = &ports[(attempt - 1) % ports.len()];
        if let Some((202, _)) = post(http, port, &headers, body.clone()).await {
            return id;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody took {id}");
}

/// Whether the client was told by an event that the command was not, or may not have been, done.
fn told_of(desk: &Desk, id: &str) -> bool {
    desk.events()
        .iter()
        .any(|event| event.field("type") == "Error" && event.correlation_id.as_deref() == Some(id))
}

fn effects(pair: &Pair, id: &str) -> usize {
    pair.effects_of("MAKE_CALL", id)
}

#[test]
fn a_kill_of_the_leader_under_load_loses_nothing_and_doubles_nothing() {
    run(async |shared| {
        let ports = ports(2);
        let options = listening(&ports, PairOptions::default());
        let mut pair = shared.pair(options).await;
        let desk = pair.desk("desk", 0).await;
        let agents: Vec<u32> = (1001..1021).collect();
        pair.sign_in(&desk, &agents).await;
        pair.gc1.leads().await;
        let http = client();
        let mut taken = Vec::new();
        for (index, agent) in agents.iter().enumerate() {
            // In the middle of it, with the next ones on their way.
            if index == 8 {
                let next = agents[8..12]
                    .iter()
                    .map(|agent| deliver(&http, &ports, *agent));
                let next = futures::future::join_all(next);
                let kill = async {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    pair.gc1.kill();
                };
                let (ids, ()) = tokio::join!(next, kill);
                taken.extend(ids);
            }
            if !(8..12).contains(&index) {
                taken.push(deliver(&http, &ports, *agent).await);
            }
        }
        assert_eq!(taken.len(), agents.len());
        for id in &taken {
            let what = format!("{id} was carried out, or its client was told");
            until(&what, async || effects(&pair, id) > 0 || told_of(&desk, id)).await;
        }
        for id in &taken {
            assert!(effects(&pair, id) <= 1, "{id} twice");
        }
        let done = taken.iter().filter(|id| effects(&pair, id) == 1).count();
        assert!(done >= 16, "{done} of {}", taken.len());
    });
}

#[test]
fn in_a_memory_alarm_commands_take_the_other_broker_at_once() {
    run(async |shared| {
        let ports = ports(2);
        let pair = shared.pair(listening(&ports, PairOptions::default())).await;
        let desk = pair.desk("desk", 1).await;
        pair.sign_in(&desk, &[1001]).await;
        let http = client();
        let send = async |id: &str| {
            let ready = envelope("MakeReady#1001", "").to_string();
            let begun = Instant::now();
            let answer = post(&http, &ports[0], &[("idempotency-key", id)], ready).await;
            assert_eq!(answer.unwrap().0, 202, "{id}");
            begun.elapsed()
        };
        send("before").await;
        shared.alarm(&pair, true).await;
        let mut late = Vec::new();
        for index in 0..12 {
            let took = send(&format!("alarm-{index}")).await;
            if took > Duration::from_secs(3) {
                late.push(took);
            }
        }
        let connections = pair.manage(0).get("connections").await.unwrap().unwrap();
        let own = |one: &&Value| one["user_provided_name"] == "tandem/gc-1/rest";
        let own = connections.as_array().unwrap().iter().filter(own).count();
        shared.alarm(&pair, false).await;
        // One may have been on its way.
        assert!(late.len() <= 1, "{late:?}");
        assert_eq!(own, 1, "connections");
        for index in 0..12 {
            let id = format!("alarm-{index}");
            let what = format!("{id} was carried out, or its client was told");
            until(&what, async || {
                pair.effects_of("READY", &id) > 0 || told_of(&desk, &id)
            })
            .await;
            assert!(pair.effects_of("READY", &id) <= 1, "{id} twice");
        }
    });
}

/// A command by curl over TLS, trusting this authority: HTTP status, 0 where there is none.
async fn curl(port: &ReservedPort, scheme: &str, authority: &Made, id: &str) -> u16 {
    let output = tokio::process::Command::new("curl")
        .args(["-s", "-m", "15", "-o", "/dev/null", "-w", "%{http_code}"])
        .arg("--cacert")
        .arg(&authority.certificate)
        .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
        .args(["-H", "Content-Type: application/json"])
        .args(["-H", &format!("Idempotency-Key: {id}")])
        .args(["-d", &envelope("MakeReady#1001", "").to_string()])
        .arg(format!("{scheme}://{}/gc/command", port.address()))
        .kill_on_drop(true)
        .output()
        .await
        .expect("curl runs");
    String::from_utf8(output.stdout).unwrap().parse().unwrap()
}

#[test]
fn a_foreign_client_sends_over_tls_and_a_renewed_certificate_is_taken_at_sighup() {
    run(async |shared| {
        let ports = ports(1);
        let maker = Maker::new();
        let authority = || {
            let kind = Kind {
                authority: true,
                ..Kind::default()
            };
            maker.make(&["Site CA"], kind, None)
        };
        let (first, second) = (authority(), authority());
        let (certificate, key) = (maker.path("rest.pem"), maker.path("rest.key"));
        let put = |authority: &Made| {
            let made = maker.make(&["127.0.0.1"], Kind::default(), Some(authority));
            std::fs::copy(&made.certificate, &certificate).unwrap();
            std::fs::copy(&made.key, &key).unwrap();
        };
        put(&first);
        let options = listening(&ports, PairOptions::default().instances(1))
            .set("rest.certificate-file", &certificate.display().to_string())
            .set("rest.private-key-file", &key.display().to_string());
        let mut pair = shared.pair(options).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        assert_eq!(curl(&ports[0], "https", &first, "t-1").await, 202);
        until("it has its effect", async || {
            pair.effects_of("READY", "t-1") == 1
        })
        .await;
        assert_eq!(curl(&ports[0], "https", &second, "t-2").await, 0);
        assert_eq!(curl(&ports[0], "http", &first, "t-3").await, 0);
        put(&second);
        assert_eq!(curl(&ports[0], "https", &first, "t-4").await, 202);
        pair.gc1.process.as_mut().unwrap().hang_up();
        until("the new one is shown", async || {
            curl(&ports[0], "https", &second, "t-5").await == 202
        })
        .await;
        assert_eq!(curl(&ports[0], "https", &first, "t-6").await, 0);
    });
}
