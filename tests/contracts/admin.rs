//! The admin API: its OpenAPI document against what instances really answer.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tandem::admin::{HistoryEntry, Second, with_times};
use tandem::contracts::Contract;
use tandem::engine::peer::{Role, TraceRow};
use tandem::engine::view::{
    BrokerView, ChoiceView, DownstreamView, GroupView, PeerGroupView, PeerView, SessionView,
    SessionsView, StandingView, View,
};
use tandem::network::{BrokerProof, Network, Registered};
use tandem::rest::CallbackRow;

use crate::schema::Judge;
use crate::support::{Pair, PairOptions, run, until};

fn text() -> String {
    "x".to_owned()
}

fn group() -> GroupView {
    GroupView {
        name: text(),
        role: Role::Leader,
        queue: text(),
        priority: Some(127),
        tag: Some(text()),
        broker: Some(text()),
        consuming: true,
        term: 1,
        leader: Some(text()),
        reason: text(),
        choice: Some(ChoiceView {
            wish: "leader".to_owned(),
            instance: Some(text()),
            by: text(),
            at: 1,
        }),
    }
}

fn broker() -> BrokerView {
    BrokerView {
        url: text(),
        state: text(),
        node: text(),
        attached: true,
        preferred: true,
        garbled: 1,
        unfit: true,
        problem: text(),
    }
}

fn downstream() -> DownstreamView {
    DownstreamView {
        url: text(),
        host: text(),
        state: "down".to_owned(),
        current: true,
        reason: Some(text()),
    }
}

fn peer() -> PeerView {
    PeerView {
        instance: text(),
        site: text(),
        state: text(),
        last_seen_ms: 1,
        owned: 1,
        broker: text(),
        version: text(),
        started: 1,
        groups: vec![PeerGroupView {
            name: text(),
            role: Role::Follower,
            priority: 1,
        }],
        rtt_ms: Some(1),
        standing: StandingView {
            page: text(),
            brokers: vec![broker()],
            downstreams: vec![downstream()],
            groups: vec![group()],
            in_service: true,
            inflight: 1,
            outbox: 1,
            subscribed: 1,
            finished: 1,
        },
    }
}

/// Everything set: a member that is new does not compile here before it is named.
fn view() -> View {
    View {
        instance: text(),
        site: text(),
        cluster: text(),
        mode: "active-passive".to_owned(),
        version: text(),
        groups: vec![group()],
        brokers: vec![broker()],
        downstreams: vec![downstream()],
        peers: vec![peer()],
        sessions: SessionsView {
            total: 1,
            owned: 1,
            subscribed: 1,
        },
        inflight: 1,
        outbox: 1,
        started: 1,
        page: text(),
        in_service: true,
        attached: true,
        drain: Some(text()),
        finished: 1,
        warnings: vec![text()],
    }
}

fn network() -> Network {
    Network {
        brokers: vec![BrokerProof {
            broker: text(),
            page: text(),
            queued: Some(1),
            dead_letters: Some(1),
            problem: Some(text()),
            consumers: vec![Registered {
                queue: text(),
                tag: text(),
                priority: 1,
                prefetch: Some(1),
            }],
            links_running: 1,
            links_planned: 1,
            links_down: vec![text()],
            unplanned: Some(text()),
        }],
        looks: 1,
    }
}

fn callback() -> CallbackRow {
    CallbackRow {
        destination: text(),
        broker: text(),
        to: text(),
        state: "posting",
        waiting: 1,
        posted: 1,
        failed: 1,
        dropped: 1,
        oldest_ms: 1,
        last_error: Some(text()),
        made: Some(1),
        stuck: false,
    }
}

/// A full value of each type, by the name of its schema.
fn full() -> Vec<(&'static str, Value)> {
    let session = SessionView {
        agent: text(),
        owner: text(),
        epoch: 1,
        destination: text(),
        extension: Some(text()),
        state: text(),
        subscribed: true,
    };
    let entry = HistoryEntry {
        id: 1,
        count: 2,
        last: Some(text()),
        token: Some(text()),
        address: Some(text()),
        at: text(),
        kind: text(),
        subject: text(),
        from: Some(text()),
        to: text(),
        reason: Some(text()),
    };
    let row = TraceRow {
        at: Some(1),
        instance: text(),
        command: text(),
        addressee: text(),
        command_id: Some(text()),
        correlation_id: Some(text()),
        trace_id: Some(text()),
        stage: text(),
        detail: text(),
    };
    let second = Second {
        done: 1,
        not_done: 1,
        p50_ms: Some(1),
        p99_ms: Some(1),
    };
    let mut status = with_times(json!(view()));
    status["callbacks"] = json!([callback()]);
    let live = json!({ "now": 1, "status": status, "pulse": [second], "history": [entry], "network": network(), "needsToken": true });
    let life = json!({ "id": "x", "answered": ["x"], "silent": ["x"], "notAsked": ["x"], "since": "x", "steps": [row] });
    vec![
        ("Status", status),
        ("Callback", json!(callback())),
        ("Group", with_times(json!(group()))),
        ("Broker", json!(broker())),
        ("Downstream", json!(downstream())),
        ("Peer", with_times(json!(peer()))),
        ("Standing", json!(peer().standing)),
        ("Session", json!(session)),
        ("HistoryEntry", json!(entry)),
        ("Network", json!(network())),
        ("Life", with_times(life)),
        ("Live", live),
    ]
}

#[test]
fn every_member_that_is_shown_stands_in_its_schema_and_the_other_way_round() {
    let document = Contract::Openapi.document();
    for (name, value) in full() {
        let pointer = format!("/components/schemas/{name}");
        Judge::strict(&document).must_fit(&pointer, &value);
        let members = |value: &Value| -> BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let named = document.pointer(&format!("{pointer}/properties")).unwrap();
        assert_eq!(members(named), members(&value), "{name}: schema and type");
        // A member of another version may be absent or more, `null` where it may be.
        let empty = json!(View::default());
        if name == "Status" {
            let mut problems =
                Judge::strict(&document).problems(document.pointer(&pointer).unwrap(), &empty);
            problems.retain(|problem| !problem.starts_with("/mode"));
            assert_eq!(problems, Vec::<String>::new());
        }
    }
}

/// Every GET of the document that answers JSON, with a question where it wants one.
fn reads(document: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let answer = &operations["get"]["responses"]["200"]["content"]["application/json"];
        let Some(shape) = answer.get("schema") else {
            continue;
        };
        let path = match path.as_str() {
            "/api/v1/trace" => "/api/v1/trace?id=c-1",
            other => other,
        };
        all.push((path.to_owned(), shape.clone()));
    }
    all
}

async fn answers_fit(document: &Value, pair: &Pair) {
    for instance in [&pair.gc1, &pair.gc2] {
        for (path, shape) in reads(document) {
            let answer = instance.json(&path).await;
            assert!(!answer.is_null(), "{path}");
            let problems = Judge::strict(document).problems(&shape, &answer);
            assert!(problems.is_empty(), "{path}: {problems:#?}\n{answer:#}");
        }
    }
}

#[test]
fn what_instances_answer_fits_the_document_that_they_serve() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default()).await;
        let served = pair.gc1.json("/openapi.json").await;
        assert_eq!(served, Contract::Openapi.document());
        let desk = pair.desk("contracts", 0).await;
        pair.sign_in(&desk, &[1001, 1002]).await;
        answers_fit(&served, &pair).await;
        let done = "/components/schemas/Done";
        for (path, wanted) in [
            ("/api/v1/groups/agents/stop", 202),
            ("/api/v1/groups/agents/start", 202),
            ("/api/v1/groups/nope/stop", 404),
            ("/api/v1/members/gc-2/forget", 409),
            ("/api/v1/switchover?to=gc-9", 409),
            ("/api/v1/switchover", 400),
        ] {
            let (status, body) = pair.gc1.post(path).await;
            assert_eq!(status, wanted, "{path}: {body}");
            let schema = if status == 202 {
                done
            } else {
                "/components/schemas/Error"
            };
            Judge::strict(&served).must_fit(schema, &body);
        }
        answers_fit(&served, &pair).await;
        // With a peer that is gone.
        pair.gc2.kill();
        pair.gc1.leads().await;
        until("the peer is lost", async || {
            pair.gc1.sees("gc-2").await == "lost"
        })
        .await;
        pair.gc2.start();
        until("the peer is back", async || {
            pair.gc1.sees("gc-2").await == "alive"
        })
        .await;
        answers_fit(&served, &pair).await;
    });
}

#[test]
fn every_refusal_of_a_question_is_json() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let document = Contract::Openapi.document();
        for (method, path, wanted) in [
            ("GET", "/leader?group=nope", 503),
            ("GET", "/leader?group=%FF&group=a", 400),
            ("GET", "/api/v1/sessions?offset=-1", 400),
            ("GET", "/api/v1/sessions?limit=many", 400),
            ("GET", "/api/v1/sessions?limit=673535534841234849792", 400),
            ("GET", "/api/v1/trace", 400),
            ("GET", "/api/v1/trace?id=a&id=b", 400),
            ("POST", "/api/v1/groups/%FF/stop", 400),
            ("POST", "/api/v1/members/%FF/forget", 400),
            ("GET", "/nope", 404),
            ("DELETE", "/api/v1/status", 405),
        ] {
            let url = format!("http://{}{path}", pair.gc1.admin());
            let answer = http
                .request(method.parse().unwrap(), url)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status().as_u16(), wanted, "{method} {path}");
            assert_eq!(
                answer.headers()["content-type"],
                "application/json",
                "{method} {path}"
            );
            let body = answer.json().await.unwrap();
            Judge::strict(&document).must_fit("/components/schemas/Error", &body);
        }
    });
}
