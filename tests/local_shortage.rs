//! A machine that has no descriptors left: who is served goes on, new agents are told when to come
//! again, and neither the downstream nor a broker is blamed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::pair::{accepted, extension};
use support::{Desk, Pair, PairOptions, run, until};

/// Value of a line of `/metrics`; 0 where there is none.
async fn metric(pair: &Pair, line: &str) -> f64 {
    let text = pair.gc1.get("/metrics").await.unwrap_or_default();
    let found = text.lines().find_map(|l| l.strip_prefix(line));
    found.map_or(0.0, |value| value.trim().parse().unwrap())
}

fn out_of_service(desk: &Desk) -> bool {
    let told = desk.events();
    told.iter()
        .any(|event| event.text.contains("OUT_OF_SERVICE"))
}

/// Neither now nor before was anybody said to have failed.
async fn nobody_else_was_blamed(pair: &Pair, desk: &Desk) {
    assert!(!out_of_service(desk));
    let status = pair.gc1.status().await;
    assert_eq!(status["inService"], true, "{status:#}");
    assert_eq!(status["groups"][0]["consuming"], true, "{status:#}");
    let history = pair.gc1.json("/api/v1/history").await;
    let blamed = history.as_array().unwrap().iter().find(|entry| {
        let down = entry["kind"] == "downstream" && entry["to"] != "up";
        down || (entry["kind"] == "service" && entry["to"] == "out of service")
    });
    assert_eq!(blamed, None, "{history:#}");
}

fn warnings(status: &Value) -> String {
    let list = status["warnings"].as_array().cloned().unwrap_or_default();
    let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    words.join("\n")
}

/// Connects all of them at once: who was served, and who was told to come again.
async fn connect_all(desk: &Desk, agents: &[u32]) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let mut sent = Vec::new();
    for agent in agents {
        let body = format!("{},pw-{agent}", desk.destination);
        sent.push((*agent, desk.send(format!("Connect#{agent}"), body).await));
    }
    let (mut served, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for (agent, id) in sent {
        let reply = desk.reply(&id).await;
        if accepted(reply.field("outcome")) {
            served.insert(agent);
            continue;
        }
        assert_eq!(reply.field("outcome"), "REJECTED", "{}", reply.text);
        let body: Value = serde_json::from_str(&reply.text).unwrap();
        assert!(body["retryAfterMs"].as_u64() > Some(0), "{}", reply.text);
        refused.insert(agent);
    }
    (served, refused)
}

async fn all_are_ready(desk: &Desk, agents: &BTreeSet<u32>) {
    for command in ["MakeReady", "MakeNotReady"] {
        let mut sent = Vec::new();
        for agent in agents {
            sent.push(desk.send(format!("{command}#{agent}"), "").await);
        }
        for id in sent {
            let reply = desk.reply(&id).await;
            assert!(
                accepted(reply.field("outcome")),
                "{command}: {}",
                reply.text
            );
        }
    }
}

#[test]
fn with_more_agents_than_descriptors_those_that_fit_are_served() {
    run(async |shared| {
        let options = PairOptions {
            agents: 300,
            ..PairOptions::default().instances(0)
        };
        let mut pair = shared.pair(options).await;
        // The soft limit alone would not even do for the brokers.
        pair.gc1.start_after("ulimit -Sn 64; ulimit -Hn 200", &[]);
        pair.gc1.leads().await;
        until("the limit was raised", async || {
            metric(&pair, "tandem_descriptors{state=\"limit\"}").await == 200.0
        })
        .await;
        let desk = pair.desk("desk", 0).await;
        let (served, refused) = connect_all(&desk, &pair.agents()).await;
        assert!(served.len() >= 60, "{}", served.len());
        assert!(refused.len() >= 100, "{}", refused.len());
        for agent in &served {
            let body = format!("pw-{agent},{}", extension(*agent));
            desk.expect(&format!("Login#{agent}"), &body, "ACCEPTED")
                .await;
        }
        all_are_ready(&desk, &served).await;
        // They come again and again; nobody who is served notices.
        let many: Vec<u32> = refused.iter().copied().collect();
        let (more, still) = connect_all(&desk, &many).await;
        assert!(more.is_empty(), "{more:?}");
        assert_eq!(still, refused);
        all_are_ready(&desk, &served).await;
        pair.owns(&pair.gc1, served.len()).await;
        nobody_else_was_blamed(&pair, &desk).await;
        let open = metric(&pair, "tandem_descriptors{state=\"open\"}").await;
        assert!(open < 200.0, "{open}");
        let status = pair.gc1.status().await;
        let warned = warnings(&status);
        assert!(warned.contains("no descriptors left"), "{warned}");

        // Seats that are given up are for the next ones.
        for agent in served.iter().take(10) {
            desk.expect(&format!("force_logout#{agent}"), "", "ACCEPTED")
                .await;
        }
        let waiting: Vec<u32> = refused.iter().copied().take(10).collect();
        until("the next ones are served", async || {
            connect_all(&desk, &waiting).await.1.is_empty()
        })
        .await;

        // And with room for all, all are.
        pair.gc1.start_after("ulimit -Sn 64; ulimit -Hn 2000", &[]);
        pair.gc1.leads().await;
        until("everybody is served", async || {
            connect_all(&desk, &pair.agents()).await.1.is_empty()
        })
        .await;
    });
}

/// What the process may open from now on.
fn limit(pair: &mut Pair, soft: &str) {
    let pid = pair.gc1.process.as_ref().unwrap().pid().to_string();
    let set = std::process::Command::new("prlimit")
        .args(["--pid", &pid, &format!("--nofile={soft}:")])
        .status();
    assert!(set.unwrap().success());
}

#[test]
fn nothing_that_needs_a_descriptor_is_blamed_on_others() {
    run(async |shared| {
        let options = PairOptions {
            agents: 20,
            ..PairOptions::default().instances(1)
        };
        let mut pair = shared.pair(options).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001, 1002]).await;
        pair.owns(&pair.gc1, 2).await;
        // Not one more, whatever it is for.
        limit(&mut pair, "3");
        let (served, refused) = connect_all(&desk, &[1005, 1006, 1007]).await;
        assert!(served.is_empty() && refused.len() == 3);
        let call = desk.send("MakeCall#1001", "5551001").await;
        let reply = desk.reply(&call).await;
        assert_eq!(reply.field("outcome"), "REJECTED", "{}", reply.text);
        assert!(reply.text.contains("retryAfterMs"), "{}", reply.text);
        assert_eq!(pair.effects_of("MAKE_CALL", &call), 0);
        // A broker that is lost, and cannot be dialled again for want of a socket.
        shared.broker(1).kill();
        until("probes and dials have failed", async || {
            let log = pair.gc1.log_text();
            let dial = |line: &&str| line.contains("broker not connected") && no_descriptor(line);
            let probe = |line: &&str| line.contains("lacks what it takes") && no_descriptor(line);
            log.lines().any(|l| dial(&l)) && log.lines().filter(probe).count() >= 5
        })
        .await;
        limit(&mut pair, "1024");
        shared.broker(1).start_again().await.unwrap();
        let again = desk.ask("MakeCall#1001", "5551001").await;
        assert_eq!(again.field("outcome"), "ACCEPTED", "{}", again.text);
        let waiting = [1005, 1006, 1007];
        until("the others are served", async || {
            connect_all(&desk, &waiting).await.1.is_empty()
        })
        .await;
        nobody_else_was_blamed(&pair, &desk).await;
        let short = metric(&pair, "tandem_local_shortages_total{of=\"descriptors\"}").await;
        assert!(short >= 5.0, "{short}");
        let history = pair.gc1.json("/api/v1/history").await.to_string();
        assert!(history.contains("no descriptors left"), "{history}");
    });
}

fn no_descriptor(line: &str) -> bool {
    line.contains("Too many open files")
}
