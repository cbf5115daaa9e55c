//! An instance dies at every point of a call's life, in both ways of going on: the same instance
//! starts again (its peer may not lead), or the peer takes over. The simulator's ledger says how
//! often the call was made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use support::{Desk, LIMIT, Pair, PairOptions, Shared, run, until};
use tandem::simulator::faults::{Fault, Match};

/// What goes on after the crash.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    SameRestarts,
    PeerTakesOver,
}
use Then::{PeerTakesOver, SameRestarts};

/// The hold doubles each time that a lead ends soon, and outlives a restart: here it always does.
const HOLD: (&str, &str) = ("TANDEM_TAKEBACK_HOLD", "200ms");

/// Agents, one a test.
const AGENTS: std::ops::Range<u32> = 1001..1019;

fn all() -> Vec<u32> {
    AGENTS.collect()
}

struct Bench<'a> {
    pair: &'a mut Pair,
    desk: Desk,
}

/// The pair that all these tests use in turn, both up, gc-1 leading and about to die at `point`.
async fn about_to_die<'a>(shared: &'a mut Shared, point: &str, then: Then) -> Bench<'a> {
    let options = PairOptions {
        agents: 20,
        ..PairOptions::default()
    };
    let pair = shared.standing(options).await;
    pair.heal();
    let desk = pair.desk("desk", 0).await;
    if pair.sessions(AGENTS.start) == 0 {
        pair.sign_in(&desk, &all()).await;
    }
    pair.gc1.start_with(&[("TANDEM_FAILPOINT", point), HOLD]);
    pair.gc1.becomes("leader").await;
    pair.gc2.becomes("follower").await;
    pair.owns(&pair.gc1, AGENTS.len()).await;
    if then == SameRestarts {
        pair.gc2.post("/api/v1/groups/agents/stop").await;
        pair.gc2.becomes("disabled").await;
    }
    settled(pair).await;
    Bench { pair, desk }
}

/// Both have told each other everything, and have heard so.
async fn settled(pair: &Pair) {
    for instance in [&pair.gc1, &pair.gc2] {
        let what = format!("{} sees its peer", instance.name);
        until(&what, async || {
            instance.status().await["peers"][0]["state"] == "alive"
        })
        .await;
    }
    // Two heartbeats.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
}

async fn dies(pair: &mut Pair) {
    let process = pair.gc1.process.as_mut().expect("it was started");
    let status = process.wait(LIMIT).await.expect("it dies at its point");
    assert!(!status.success());
}

/// One call through a crash: its outcome and how often it was made.
async fn crash(shared: &mut Shared, point: &str, then: Then, agent: u32) -> (String, usize) {
    let bench = about_to_die(shared, point, then).await;
    let id = bench
        .desk
        .send(format!("MakeCall#{agent}"), format!("555{agent}"))
        .await;
    dies(bench.pair).await;
    if then == SameRestarts {
        bench.pair.gc1.start_with(&[HOLD]);
    }
    let reply = bench.desk.reply(&id).await;
    let outcome = reply.field("outcome").to_owned();
    let by = match then {
        SameRestarts => "gc-1",
        PeerTakesOver => "gc-2",
    };
    if point != "outcome-here" && point != "outcome-both" && point != "confirmed" {
        assert_eq!(reply.field("instance"), by, "{}", reply.text);
    }
    let effects = bench.pair.effects_of("MAKE_CALL", &id);
    end(bench, then, &id, &outcome).await;
    (outcome, effects)
}

/// Everything is as before; every reply to the command said the same.
async fn end(bench: Bench<'_>, then: Then, id: &str, outcome: &str) {
    let Bench { pair, desk } = bench;
    if then == SameRestarts {
        pair.gc2.post("/api/v1/groups/agents/start").await;
    }
    until("nothing is in work any more", async || {
        let mut left = 0;
        for instance in [&pair.gc1, &pair.gc2] {
            left += instance.status().await["inflight"].as_u64().unwrap_or(0);
        }
        left == 0
    })
    .await;
    for reply in desk.replies_to(id) {
        assert_eq!(reply.field("outcome"), outcome, "{}", reply.text);
    }
}

/// Makes a test of a row and column: outcome, and how often the call was made.
macro_rules! rows {
    ($($name:ident: $point:literal, $then:expr, $agent:literal => $outcome:literal, $effects:literal;)*) => {
        $(
            #[test]
            fn $name() {
                run(async |shared| {
                    let seen = crash(shared, $point, $then, $agent).await;
                    assert_eq!(seen, ($outcome.to_owned(), $effects));
                });
            }
        )*
    };
}

rows! {
    delivered_then_the_same_restarts: "delivered", SameRestarts, 1001 => "ACCEPTED", 1;
    delivered_then_the_peer_takes_over: "delivered", PeerTakesOver, 1002 => "ACCEPTED", 1;
    intent_here_then_the_same_restarts: "intent-here", SameRestarts, 1003 => "IN_DOUBT", 0;
    intent_here_then_the_peer_takes_over: "intent-here", PeerTakesOver, 1004 => "ACCEPTED", 1;
    intent_on_both_then_the_same_restarts: "intent-both", SameRestarts, 1005 => "IN_DOUBT", 0;
    intent_on_both_then_the_peer_takes_over: "intent-both", PeerTakesOver, 1006 => "IN_DOUBT", 0;
    answered_then_the_same_restarts: "answered", SameRestarts, 1007 => "ACCEPTED", 1;
    answered_then_the_peer_takes_over: "answered", PeerTakesOver, 1008 => "ACCEPTED", 1;
    outcome_here_then_the_same_restarts: "outcome-here", SameRestarts, 1009 => "ACCEPTED", 1;
    outcome_on_both_then_the_same_restarts: "outcome-both", SameRestarts, 1010 => "ACCEPTED", 1;
    outcome_on_both_then_the_peer_takes_over: "outcome-both", PeerTakesOver, 1011 => "ACCEPTED", 1;
    confirmed_then_the_same_restarts: "confirmed", SameRestarts, 1012 => "ACCEPTED", 1;
    confirmed_then_the_peer_takes_over: "confirmed", PeerTakesOver, 1013 => "ACCEPTED", 1;
}

/// The platform makes the call and its answer is lost.
fn answer_lost() -> Fault {
    Fault {
        matching: Match {
            method: Some("POST".into()),
            ..Match::default()
        },
        count: Some(1),
        drop_after_accept: true,
        ..Fault::default()
    }
}

async fn sent(shared: &mut Shared, then: Then, agent: u32) {
    let bench = about_to_die(shared, "sent", then).await;
    bench.pair.fault_everywhere(&answer_lost());
    let id = bench
        .desk
        .send(format!("MakeCall#{agent}"), format!("555{agent}"))
        .await;
    dies(bench.pair).await;
    bench.pair.heal();
    if then == SameRestarts {
        bench.pair.gc1.start_with(&[HOLD]);
    }
    let reply = bench.desk.reply(&id).await;
    // The call is found at the platform.
    assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
    assert_eq!(bench.pair.effects_of("MAKE_CALL", &id), 1);
    end(bench, then, &id, "ACCEPTED").await;
}

#[test]
fn sent_then_the_same_restarts() {
    run(async |shared| sent(shared, SameRestarts, 1014).await);
}

#[test]
fn sent_then_the_peer_takes_over() {
    run(async |shared| sent(shared, PeerTakesOver, 1015).await);
}

/// Nobody but the dead one knows, and the platform cannot be asked: in doubt, and resolved once
/// when the two meet again.
#[test]
fn outcome_here_then_the_peer_takes_over() {
    run(async |shared| {
        let agent = 1016;
        let bench = about_to_die(shared, "outcome-here", PeerTakesOver).await;
        bench.pair.fault_everywhere(&Fault {
            matching: Match {
                method: Some("GET".into()),
                path: Some(format!("User/{agent}/Dialogs")),
                ..Match::default()
            },
            status: Some(500),
            ..Fault::default()
        });
        let id = bench
            .desk
            .send(format!("MakeCall#{agent}"), format!("555{agent}"))
            .await;
        dies(bench.pair).await;
        let reply = bench.desk.reply(&id).await;
        assert_eq!(reply.field("outcome"), "IN_DOUBT", "{}", reply.text);
        bench.pair.gc1.start_with(&[HOLD]);
        let resolved =
            |m: &tandem::client::Message| m.field("type") == "Resolved" && m.field("id") == id;
        let event = bench.desk.event("Resolved", resolved).await;
        assert_eq!(event.field("outcome"), "ACCEPTED", "{}", event.text);
        assert_eq!(bench.pair.effects_of("MAKE_CALL", &id), 1);
        bench.pair.heal();
        bench.pair.gc1.becomes("leader").await;
        let events = bench.desk.events();
        assert_eq!(events.iter().filter(|m| resolved(m)).count(), 1);
    });
}

/// The process lives and its driver stands still: it ends itself, and the peer serves.
#[test]
fn a_driver_that_stands_still_gives_way() {
    run(async |shared| {
        let Bench { pair, desk } = about_to_die(shared, "stall", PeerTakesOver).await;
        let id = desk.send("MakeCall#1017", "5551017").await;
        let process = pair.gc1.process.as_mut().expect("it was started");
        let status = process.wait(LIMIT).await.expect("its watchdog ends it");
        assert_eq!(status.code(), Some(70));
        let reply = desk.reply(&id).await;
        assert_eq!(reply.field("instance"), "gc-2", "{}", reply.text);
        let effects = pair.effects_of("MAKE_CALL", &id);
        let right = match reply.field("outcome") {
            "ACCEPTED" => effects == 1,
            "IN_DOUBT" => effects == 0,
            _ => false,
        };
        assert!(right, "{effects} calls, {}", reply.text);
        pair.gc1.start_with(&[HOLD]);
        pair.gc1.becomes("leader").await;
    });
}

/// An error in the program during a request: nobody knows what became of it, and the agent's next
/// command is carried out as ever.
#[test]
fn a_panic_in_a_request_costs_that_request_alone() {
    run(async |shared| {
        let Bench { pair, desk } = about_to_die(shared, "panic-call", PeerTakesOver).await;
        let reply = desk.send("MakeCall#1018", "5551018").await;
        let reply = desk.reply(&reply).await;
        // The platform, which is asked, knows of no call.
        assert_eq!(reply.field("outcome"), "IN_DOUBT", "{}", reply.text);
        desk.expect("MakeCall#1018", "5551018", "ACCEPTED").await;
        assert_eq!(pair.gc1.role().await, "leader");
        assert!(pair.gc1.log_text().contains("an error in this program"));
        pair.gc1.start_with(&[HOLD]);
        pair.gc1.becomes("leader").await;
    });
}

/// An error in the program in an agent's session: it is lost, and there is another one.
#[test]
fn a_panic_in_a_session_is_a_session_that_was_lost() {
    run(async |shared| {
        let options = PairOptions::default().instances(1);
        let mut pair = shared.pair(options).await;
        pair.gc1
            .start_with(&[("TANDEM_FAILPOINT", "panic-session"), HOLD]);
        pair.gc1.leads().await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        pair.owns(&pair.gc1, 1).await;
        assert!(pair.gc1.log_text().contains("failpoint panic-session"));
        pair.one_subscription_each(&[1001]).await;
    });
}

/// Without its journal an instance must not seem to serve.
#[test]
fn a_panic_in_the_journal_ends_the_process() {
    run(async |shared| {
        let options = PairOptions::default().instances(1);
        let mut pair = shared.pair(options).await;
        pair.gc1
            .start_with(&[("TANDEM_FAILPOINT", "panic-journal"), HOLD]);
        pair.gc1.leads().await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        let id = desk.send("MakeCall#1001", "5551001").await;
        let process = pair.gc1.process.as_mut().expect("it was started");
        let status = process.wait(LIMIT).await.expect("it ends itself");
        assert_eq!(status.code(), Some(70));
        assert!(pair.gc1.log_text().contains("failpoint panic-journal"));
        pair.gc1.start_with(&[HOLD]);
        pair.gc1.leads().await;
        let reply = desk.reply(&id).await;
        assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
        assert_eq!(pair.effects_of("MAKE_CALL", &id), 1);
    });
}

/// gc-2 is down while gc-1 makes calls and dies during one; when it returns it is told what became
/// of them, and answers for them when gc-1 is gone.
#[test]
fn js3_status_change_kept() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default()).await;
        let desk = pair.desk("desk", 0).await;
        let agents = [1001, 1002, 1003];
        pair.sign_in(&desk, &agents).await;
        pair.gc2.kill();
        until("gc-1 knows that it is alone", async || {
            pair.gc1.sees("gc-2").await == "lost"
        })
        .await;
        let mut made = Vec::new();
        for agent in [1001, 1002] {
            let kind = format!("MakeCall#{agent}");
            let reply = desk.expect(&kind, &format!("555{agent}"), "ACCEPTED").await;
            made.push((agent, reply.correlation_id.expect("an id")));
        }
        // The intent of this one is on disk, its outcome is not.
        pair.gc1
            .start_with(&[("TANDEM_FAILPOINT", "answered"), HOLD]);
        pair.gc1.leads().await;
        pair.owns(&pair.gc1, agents.len()).await;
        let id = desk.send("MakeCall#1003", "5551003").await;
        dies(&mut pair).await;
        pair.gc1.start_with(&[HOLD]);
        let reply = desk.reply(&id).await;
        assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
        made.push((1003, id));

        pair.gc2.start();
        pair.gc1.becomes("leader").await;
        pair.gc2.becomes("follower").await;
        settled(&pair).await;
        pair.gc1.kill();
        pair.gc2.leads().await;
        for (agent, id) in made {
            let before = desk.replies_to(&id).len();
            let kind = format!("MakeCall#{agent}");
            let mut again = tandem::client::Command::new(kind, format!("555{agent}"));
            again.id = Some(id.clone());
            again.attempt = 2;
            desk.send_command(again).await;
            until("another answer", async || {
                desk.replies_to(&id).len() > before
            })
            .await;
            let reply = desk.replies_to(&id).pop().expect("just seen");
            assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
            // Told, not found out anew: the reply is the one that gc-1 made.
            assert_eq!(reply.field("instance"), "gc-1", "{}", reply.text);
            assert_eq!(pair.effects_of("MAKE_CALL", &id), 1);
        }
        pair.owns(&pair.gc2, agents.len()).await;
        pair.one_subscription_each(&agents).await;
    });
}
