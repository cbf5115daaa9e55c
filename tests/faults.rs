//! The downstream, the brokers or the machine fail: what is tried again, what is in doubt, who is
//! told, and how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::process::Command as Process;
use std::time::Duration;

use support::pair::is_state;
use support::{Desk, Pair, PairOptions, run, until};
use tandem::client::{Command, Message};
use tandem::simulator::faults::{Fault, Match};

fn hits(action: &str) -> Fault {
    Fault {
        matching: Match {
            action: Some(action.to_owned()),
            ..Match::default()
        },
        ..Fault::default()
    }
}

fn status(action: &str, status: u16) -> Fault {
    Fault {
        status: Some(status),
        ..hits(action)
    }
}

/// The next request of this kind only.
fn once(fault: Fault) -> Fault {
    Fault {
        count: Some(1),
        ..fault
    }
}

fn is_system(message: &Message, status: &str) -> bool {
    message.field("type") == "System" && message.field("status") == status
}

/// A lone gc-1 with signed-in agents.
async fn alone(shared: &mut support::Shared, agents: &[u32]) -> (Pair, Desk) {
    let pair = shared.pair(PairOptions::default().instances(1)).await;
    let desk = pair.desk("desk", 0).await;
    pair.sign_in(&desk, agents).await;
    (pair, desk)
}

async fn current(pair: &Pair) -> Vec<bool> {
    let status = pair.gc1.status().await;
    let nodes = status["downstreams"].as_array().cloned();
    let nodes = nodes.into_iter().flatten();
    nodes.map(|node| node["current"] == true).collect()
}

#[test]
fn an_idempotent_command_is_tried_again_and_ends_with_the_refusal_where_it_stays() {
    run(async |shared| {
        let (pair, desk) = alone(shared, &[1001]).await;
        let again = [
            once(status("READY", 500)),
            once(Fault {
                drop_before_accept: true,
                ..hits("READY")
            }),
            once(Fault {
                hang: true,
                ..hits("READY")
            }),
            once(status("READY", 503)),
        ];
        for fault in again {
            desk.expect("MakeNotReady#1001", "", "ACCEPTED").await;
            pair.fault(1, fault.clone());
            let id = desk.send("MakeReady#1001", "").await;
            let reply = desk.reply(&id).await;
            assert_eq!(
                reply.field("outcome"),
                "ACCEPTED",
                "{fault:?}: {}",
                reply.text
            );
            assert_eq!(pair.effects_of("READY", &id), 1, "{fault:?}");
            pair.heal();
        }
        // A read whose answer is nonsense is read again.
        let garbage = Fault {
            garbage: true,
            count: Some(1),
            matching: Match {
                method: Some("GET".to_owned()),
                path: Some("/User/1001".to_owned()),
                action: None,
            },
            ..Fault::default()
        };
        pair.fault(1, garbage);
        desk.expect("GetState#1001", "", "OK").await;

        for (code, error) in [(401, "Unauthorized"), (404, "CF_OBJECT_NOT_KNOWN")] {
            pair.fault_everywhere(&status("NOT_READY", code));
            let reply = desk.expect("MakeNotReady#1001", "", "FAILED").await;
            assert_eq!(reply.json["status"], code);
            assert_eq!(reply.error_code(), error, "{}", reply.text);
            pair.heal();
        }
        pair.fault_everywhere(&status("NOT_READY", 500));
        desk.expect("MakeNotReady#1001", "", "FAILED").await;
        pair.heal();
        desk.expect("MakeNotReady#1001", "", "ACCEPTED").await;
    });
}

#[test]
fn a_call_that_may_have_been_made_is_in_doubt_and_never_made_again() {
    run(async |shared| {
        let agents: Vec<u32> = (1001..1008).collect();
        let (pair, desk) = alone(shared, &agents).await;
        let cases = [
            (status("MAKE_CALL", 500), "IN_DOUBT", 0),
            (
                Fault {
                    drop_after_accept: true,
                    ..hits("MAKE_CALL")
                },
                "IN_DOUBT",
                1,
            ),
            (
                Fault {
                    drop_before_accept: true,
                    ..hits("MAKE_CALL")
                },
                "IN_DOUBT",
                0,
            ),
            (
                Fault {
                    hang: true,
                    ..hits("MAKE_CALL")
                },
                "IN_DOUBT",
                0,
            ),
            (status("MAKE_CALL", 400), "FAILED", 0),
            // Out of service means not executed: the other node may be asked.
            (status("MAKE_CALL", 503), "ACCEPTED", 1),
            // A change's answer has nothing to say but its status.
            (
                Fault {
                    garbage: true,
                    ..hits("MAKE_CALL")
                },
                "ACCEPTED",
                1,
            ),
        ];
        for (agent, (fault, outcome, effects)) in agents.iter().zip(cases) {
            pair.fault(1, once(fault.clone()));
            let kind = format!("MakeCall#{agent}");
            let id = desk.send(kind.clone(), format!("555{agent}")).await;
            let reply = desk.reply(&id).await;
            assert_eq!(reply.field("outcome"), outcome, "{fault:?}: {}", reply.text);
            pair.heal();
            // The same id again gets the same answer.
            let mut again = Command::new(kind, format!("555{agent}")).with_id(id.clone());
            again.attempt = 2;
            desk.send_command(again).await;
            until("a second answer", async || desk.replies_to(&id).len() == 2).await;
            let second = &desk.replies_to(&id)[1];
            assert_eq!(
                second.field("outcome"),
                outcome,
                "{fault:?}: {}",
                second.text
            );
            assert_eq!(pair.effects_of("MAKE_CALL", &id), effects, "{fault:?}");
        }
    });
}

#[test]
fn ds5_slow_primary() {
    run(async |shared| {
        let (pair, desk) = alone(shared, &[1001, 1002, 1003]).await;
        let slow = |action: &str| Fault {
            delay_ms: 3_500,
            ..hits(action)
        };
        pair.fault_everywhere(&once(slow("MAKE_CALL")));
        pair.fault(1, once(slow("READY")));
        let call = desk.send("MakeCall#1001", "5551001").await;
        let ready = desk.send("MakeReady#1002", "").await;
        // Another agent does not wait behind them.
        desk.expect("MakeNotReadyWithReason#1003", "2", "ACCEPTED")
            .await;
        assert!(desk.replies_to(&call).is_empty());
        assert_eq!(desk.reply(&call).await.field("outcome"), "IN_DOUBT");
        assert_eq!(desk.reply(&ready).await.field("outcome"), "ACCEPTED");
        assert!(pair.effects_of("MAKE_CALL", &call) <= 1);
        assert_eq!(pair.state(1002), "READY");
    });
}

async fn moves_to_the_secondary(pair: &Pair, desk: &Desk) {
    desk.clear_events();
    desk.expect("MakeReady#1001", "", "ACCEPTED").await;
    until("subscribed at the secondary", async || {
        [1001, 1002]
            .iter()
            .all(|agent| pair.subscribed_at(*agent) == Some(2))
    })
    .await;
    pair.one_subscription_each(&[1001, 1002]).await;
    desk.event("READY", |m| is_state(m, 1001, "READY")).await;
    let reply = desk.expect("MakeReady#1002", "", "ACCEPTED").await;
    assert!(
        reply.field("downstream").starts_with("127.0.0.2"),
        "{}",
        reply.text
    );
    desk.event("READY", |m| is_state(m, 1002, "READY")).await;
    // The status is a picture that is made anew at short intervals.
    until("the secondary is current", async || {
        current(pair).await == [false, true]
    })
    .await;
    let told = desk.events();
    assert!(!told.iter().any(|m| is_system(m, "OUT_OF_SERVICE")));
    // The primary is back: nothing moves.
    pair.heal();
    until("the primary is up", async || {
        pair.gc1.status().await["downstreams"][0]["state"] == "up"
    })
    .await;
    desk.expect("MakeNotReady#1002", "", "ACCEPTED").await;
    assert_eq!(current(pair).await, [false, true]);
    assert_eq!(pair.subscribed_at(1002), Some(2));
}

#[test]
fn ds1_primary_down() {
    run(async |shared| {
        let (pair, desk) = alone(shared, &[1001, 1002]).await;
        assert_eq!(pair.subscribed_at(1001), Some(1));
        pair.node_down(1);
        moves_to_the_secondary(&pair, &desk).await;
    });
}

#[test]
fn ds2_primary_out_of_service() {
    run(async |shared| {
        let (pair, desk) = alone(shared, &[1001, 1002]).await;
        pair.fault(
            1,
            Fault {
                out_of_service: true,
                ..Fault::default()
            },
        );
        moves_to_the_secondary(&pair, &desk).await;
    });
}

#[test]
fn ds3_both_down_for_one_instance_and_the_peer_leads() {
    run(async |shared| {
        let options = PairOptions {
            relays: true,
            ..PairOptions::default()
        };
        let pair = shared.pair(options).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        for relay in &pair.relays {
            relay.cut().await;
        }
        pair.gc2.becomes("leader").await;
        pair.owns(&pair.gc2, 1).await;
        let reply = desk.expect("MakeReady#1001", "", "ACCEPTED").await;
        assert_eq!(reply.field("instance"), "gc-2");
        desk.event("READY", |m| is_state(m, 1001, "READY")).await;
        pair.one_subscription_each(&[1001]).await;
        for relay in &pair.relays {
            relay.heal().await;
        }
        pair.gc1.becomes("leader").await;
        pair.gc2.becomes("follower").await;
        let reply = desk.expect("MakeNotReady#1001", "", "ACCEPTED").await;
        assert_eq!(reply.field("instance"), "gc-1");
        pair.one_subscription_each(&[1001]).await;
    });
}

#[test]
fn ds3_both_down() {
    run(async |shared| {
        let (pair, desk) = alone(shared, &[1001]).await;
        desk.expect("Hello#desk", "", "OK").await;
        desk.clear_events();
        pair.fault_everywhere(&Fault {
            refuse: true,
            ..Fault::default()
        });
        desk.event("OUT_OF_SERVICE", |m| is_system(m, "OUT_OF_SERVICE"))
            .await;
        until("no consumer", async || pair.consumers(0).await.is_empty()).await;
        let waiting = desk.send("MakeReady#1001", "").await;
        pair.heal();
        desk.event("IN_SERVICE", |m| is_system(m, "IN_SERVICE"))
            .await;
        let reply = desk.reply(&waiting).await;
        assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
        desk.event("READY", |m| is_state(m, 1001, "READY")).await;
        pair.one_subscription_each(&[1001]).await;
    });
}

#[test]
fn ds4_notification_lost() {
    run(async |shared| {
        let (pair, desk) = alone(shared, &[1001]).await;
        pair.fault_everywhere(&Fault {
            xmpp_down: true,
            ..Fault::default()
        });
        until("no subscription", async || pair.sessions(1001) == 0).await;
        desk.clear_events();
        // Commands go on; the event of this one is missed.
        desk.expect("MakeReady#1001", "", "ACCEPTED").await;
        pair.heal();
        pair.one_subscription_each(&[1001]).await;
        desk.event("the missed state", |m| is_state(m, 1001, "READY"))
            .await;

        // Only the primary's notifications are gone, its REST lives: the secondary's serve.
        pair.fault(
            1,
            Fault {
                xmpp_down: true,
                ..Fault::default()
            },
        );
        until("subscribed at the secondary", async || {
            pair.subscribed_at(1001) == Some(2)
        })
        .await;
        desk.expect("MakeNotReady#1001", "", "ACCEPTED").await;
        desk.event("NOT_READY", |m| is_state(m, 1001, "NOT_READY"))
            .await;
    });
}

/// How often it has noticed that a broker is not there.
async fn dialled_in_vain(pair: &Pair) -> usize {
    let history = pair.gc1.json("/api/v1/history").await;
    let list = history.as_array().cloned().unwrap_or_default();
    let down = |entry: &&serde_json::Value| entry["kind"] == "broker" && entry["to"] == "down";
    // One that stays down is one row with a count.
    let downs = list.iter().filter(down);
    let count = downs
        .map(|entry| entry["count"].as_u64().unwrap_or(1))
        .sum::<u64>();
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Ends the brokers, and the downstream for everyone.
fn everything_down(shared: &mut support::Shared, pair: &Pair) {
    for broker in [0, 1] {
        shared.broker(broker).kill();
    }
    pair.node_down(1);
    pair.node_down(2);
}

/// Waits until the pauses between its tries are as long as they get.
async fn tries_for_long(pair: &mut Pair) {
    let before = dialled_in_vain(pair).await;
    until("it has tried again and again", async || {
        dialled_in_vain(pair).await >= before + 16
    })
    .await;
    assert!(pair.gc1.process.as_mut().unwrap().is_running());
}

#[test]
fn js2_reconnect_forever() {
    run(async |shared| {
        let options = PairOptions::default()
            .instances(0)
            .set("broker.reconnect-delay-max", "1s");
        let mut pair = shared.pair(options).await;
        everything_down(shared, &pair);
        pair.gc1.start();
        until("it says that no broker is there", async || {
            let status = pair.gc1.status().await;
            let all = status["brokers"].as_array().cloned().unwrap_or_default();
            all.len() == 2 && all.iter().all(|b| b["state"] != "connected")
        })
        .await;
        let port = pair.brokers[0].rsplit(':').next().unwrap().to_owned();
        let port = port.split('/').next().unwrap().to_owned();
        until("the log names the broker", async || {
            pair.gc1.log_text().contains(&port)
        })
        .await;
        tries_for_long(&mut pair).await;
        // The downstream first, the brokers last.
        pair.heal();
        until("it sees the downstream", async || {
            let status = pair.gc1.status().await;
            status["downstreams"][0]["state"] == "up"
        })
        .await;
        shared.network().await;
        pair.gc1.leads().await;
        let desk = pair.desk("desk", 0).await;
        desk.greet().await;
        pair.sign_in(&desk, &[1001, 1002]).await;

        // Everything again, and the brokers first.
        everything_down(shared, &pair);
        until("it notices", async || {
            pair.gc1.status().await["attached"] == false
        })
        .await;
        tries_for_long(&mut pair).await;
        shared.network().await;
        // What the downstream had no way to tell is read and published afterwards.
        let world = pair.simulator.world();
        desk.clear_events();
        let call = world.inbound("0612", "7001", Vec::new()).expect("a call");
        let call = call.to_string();
        let waiting = desk.send("GetState#1001", "").await;
        pair.heal();
        let reply = desk.reply(&waiting).await;
        assert_eq!(reply.field("outcome"), "OK", "{}", reply.text);
        desk.event("the offered call", |m| {
            m.field("type") == "DialogStatus" && m.text.contains(&call)
        })
        .await;
        pair.one_subscription_each(&[1001, 1002]).await;
        // Its peer comes last of all.
        pair.gc2.start();
        pair.gc2.becomes("follower").await;
        pair.gc1.becomes("leader").await;
        desk.expect("MakeCall#1002", "5551002", "ACCEPTED").await;
    });
}

/// One instance and two nodes of the downstream: a deployment without redundancy.
#[test]
fn ds6_simplex() {
    run(async |shared| {
        let (mut pair, desk) = alone(shared, &[1001, 1002]).await;
        assert_eq!(current(&pair).await, [true, false]);
        assert!(pair.gc1.get("/readyz").await.is_some(), "ready");
        let call = desk.expect("MakeCall#1001", "5551001", "ACCEPTED").await;
        let id = call.correlation_id.clone().unwrap();
        assert_eq!(pair.effects_of("MAKE_CALL", &id), 1);
        // It starts again: its agents need not sign in, and it knows what it has done.
        pair.gc1.kill();
        pair.gc1.start();
        desk.expect("MakeReady#1002", "", "ACCEPTED").await;
        desk.event("READY", |m| is_state(m, 1002, "READY")).await;
        let mut again = Command::new("MakeCall#1001", "5551001").with_id(id.clone());
        again.attempt = 2;
        desk.send_command(again).await;
        until("the same answer", async || desk.replies_to(&id).len() == 2).await;
        assert_eq!(desk.replies_to(&id)[1].field("outcome"), "ACCEPTED");
        assert_eq!(pair.effects_of("MAKE_CALL", &id), 1);
        pair.one_subscription_each(&[1001, 1002]).await;
        // The other node serves when the first is gone.
        pair.node_down(1);
        let reply = desk.expect("MakeNotReady#1002", "", "ACCEPTED").await;
        let downstream = reply.field("downstream");
        assert!(downstream.starts_with("127.0.0.2"), "{}", reply.text);
        desk.event("NOT_READY", |m| is_state(m, 1002, "NOT_READY"))
            .await;
        until("subscribed at the secondary", async || {
            pair.subscribed_at(1001) == Some(2) && pair.subscribed_at(1002) == Some(2)
        })
        .await;
    });
}

#[test]
fn a_taken_port_ends_the_start_with_a_message_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let config = folder.path().join("site.properties");
    let data = folder.path().join("data").display().to_string();
    let text = format!(
        "instance.id=gc-1\nbroker.url.1=127.0.0.1:1\n\
         downstream.url.1=http://127.0.0.1:1/finesse/api\n\
         control.key={}\ndata.dir={data}\nadmin.listen={taken}\n",
        "k".repeat(64)
    );
    std::fs::write(&config, text).unwrap();
    let output = run_with(&config);
    assert_eq!(output.0, Some(1), "{}", output.1);
    let named = output.1.contains("admin.listen") && output.1.contains(&taken.to_string());
    assert!(named, "{}", output.1);
}

#[test]
fn a_property_file_that_cannot_be_used_ends_the_start_with_64() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere.properties");
    let output = run_with(&missing);
    assert_eq!(output.0, Some(64), "{}", output.1);
    assert!(output.1.contains("nowhere.properties"), "{}", output.1);

    let wrong = folder.path().join("wrong.properties");
    std::fs::write(&wrong, "mode=sideways\nbroker.pasword=x\n").unwrap();
    let output = run_with(&wrong);
    assert_eq!(output.0, Some(64), "{}", output.1);
    // All findings at once.
    for part in [
        "sideways",
        "active-active",
        "broker.pasword",
        "broker.password",
        "wrong.properties",
    ] {
        assert!(output.1.contains(part), "{part}: {}", output.1);
    }
}

/// Exit code and what it said, of a start that must end by itself.
fn run_with(config: &std::path::Path) -> (Option<i32>, String) {
    let mut child = Process::new(env!("CARGO_BIN_EXE_tandem"))
        .args(["run", "--config"])
        .arg(config)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + support::LIMIT;
    while child.try_wait().unwrap().is_none() {
        if std::time::Instant::now() >= deadline {
            child.kill().unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said += &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}
