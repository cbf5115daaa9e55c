//! Two instances as one: one of them, or a broker, is killed under load. Nothing is lost, no call
//! is made twice, and after it each agent has one owner and one subscription.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::collections::HashMap;

use support::pair::is_state;
use support::{Crew, PairOptions, run, until};

const CREW: Crew = Crew::new(15, 10, 0);

#[test]
fn ap7_gc1_down() {
    run(async |shared| {
        let (mut pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        let load = CREW.load(&desk);
        load.more(30).await;
        pair.gc1.kill();
        load.more(60).await;
        pair.gc2.becomes("leader").await;
        let account = load.finish(&desk).await;
        assert!(account.len() >= 90);
        account.no_double_and_no_false_answer(&pair);
        account.all_succeeded_or_in_doubt();
        CREW.served_by(&pair, &pair.gc2).await;
        desk.served_by(1001, "gc-2").await;
    });
}

#[test]
fn ap4_gc1_restores() {
    run(async |shared| {
        let (mut pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        pair.gc1.kill();
        pair.gc2.becomes("leader").await;
        pair.owns(&pair.gc2, CREW.count()).await;
        let load = CREW.load(&desk);
        load.more(10).await;
        pair.gc1.start();
        pair.gc1.becomes("leader").await;
        pair.gc2.becomes("follower").await;
        load.more(20).await;
        let account = load.finish(&desk).await;
        account.no_double_and_no_false_answer(&pair);
        account.all_succeeded();
        CREW.served_by(&pair, &pair.gc1).await;
        desk.served_by(1001, "gc-1").await;
    });
}

#[test]
fn js5_both_restart() {
    run(async |shared| {
        let (mut pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        let load = CREW.load(&desk);
        load.more(20).await;
        pair.gc1.kill();
        pair.gc2.kill();
        pair.gc1.start();
        pair.gc2.start();
        pair.gc1.becomes("leader").await;
        load.more(30).await;
        let account = load.finish(&desk).await;
        account.no_double_and_no_false_answer(&pair);
        // No agent is asked to sign in again: that would be a REJECTED with RE_LOGIN.
        account.all_succeeded_or_in_doubt();
        CREW.served_by(&pair, &pair.gc1).await;
    });
}

#[test]
fn ap8_gc2_down() {
    run(async |shared| {
        let (mut pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        let before = pair.gc1.status().await["groups"][0]["tag"].clone();
        let load = CREW.load(&desk);
        load.more(20).await;
        pair.gc2.kill();
        load.more(60).await;
        let account = load.finish(&desk).await;
        account.no_double_and_no_false_answer(&pair);
        account.all_succeeded();
        until("gc-1 knows that its peer is lost", async || {
            let status = pair.gc1.status().await;
            let peers = status["peers"].as_array().cloned().unwrap_or_default();
            peers.iter().all(|peer| peer["state"] != "alive")
        })
        .await;
        let status = pair.gc1.status().await;
        assert_eq!(status["groups"][0]["tag"], before, "the same role");
        CREW.served_by(&pair, &pair.gc1).await;
    });
}

#[test]
fn ap1_broker1_down() {
    run(async |shared| {
        let (pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        let load = CREW.load(&desk);
        load.more(20).await;
        shared.broker(0).kill();
        pair.attaches(&pair.gc1, 1).await;
        pair.attaches(&pair.gc2, 1).await;
        load.more(40).await;
        assert_eq!(pair.gc1.role().await, "leader");
        assert_eq!(pair.gc2.role().await, "follower");
        let account = load.finish(&desk).await;
        account.no_double_and_no_false_answer(&pair);
        account.all_answered_by("gc-1");
        desk.served_by(1001, "gc-1").await;
        // Broker 1 returns, and both go back to it.
        shared.network().await;
        pair.attaches(&pair.gc1, 0).await;
        pair.attaches(&pair.gc2, 0).await;
        pair.gc1.becomes("leader").await;
        CREW.served_by(&pair, &pair.gc1).await;
        // The client is still at broker 2, which is federated.
        desk.served_by(1002, "gc-1").await;
    });
}

#[test]
fn ap3_broker1_and_gc1_down() {
    run(async |shared| {
        let (mut pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        let load = CREW.load(&desk);
        load.more(20).await;
        shared.broker(0).kill();
        pair.gc1.kill();
        pair.gc2.becomes("leader-single-node").await;
        load.more(40).await;
        let account = load.finish(&desk).await;
        account.no_double_and_no_false_answer(&pair);
        pair.attaches(&pair.gc2, 1).await;
        CREW.served_by(&pair, &pair.gc2).await;
        desk.served_by(1001, "gc-2").await;
        // State and calls are read anew and published under the new owner's epoch.
        let agent = CREW.others.start;
        desk.event("the state by gc-2", |m| {
            m.app_id.as_deref() == Some("gc-2")
                && m.field("agentId") == agent.to_string()
                && m.field("type") == "State"
        })
        .await;
    });
}

#[test]
fn js4_events_until_confirmed() {
    run(async |shared| {
        let (pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        // A queue that is bound at broker 2 all the time: a client that is on its way there from
        // broker 1 has none for a moment, and an event without a queue is nobody's.
        let watcher = pair.desk("desk", 1).await;
        let mut sent = Vec::new();
        for agent in CREW.others {
            sent.push(desk.send(format!("MakeReady#{agent}"), "").await);
        }
        shared.broker(0).kill();
        // What happens at the downstream while no broker listens to gc-1.
        let world = pair.simulator.world();
        for agent in CREW.callers.take(5) {
            let to = support::pair::extension(agent).to_string();
            world.inbound("0612", &to, Vec::new()).expect("a call");
        }
        for id in &sent {
            desk.reply(id).await;
        }
        for agent in CREW.others {
            watcher
                .event("READY", |m| is_state(m, agent, "READY"))
                .await;
        }
        for agent in CREW.callers.take(5) {
            watcher
                .event("the offered call", |m| {
                    m.field("type") == "NewInboundCall" && m.field("agentId") == agent.to_string()
                })
                .await;
        }
        // An event whose confirm died with broker 1, but which its federation had passed on
        // already, comes once more under the same id. No event comes under a second id.
        let mut by_id = HashMap::new();
        for event in watcher.events() {
            let id = event.message_id.expect("an id");
            let first = by_id.entry(id).or_insert_with(|| event.text.clone());
            assert_eq!(*first, event.text, "another event under the same id");
        }
        for agent in CREW.callers.take(5) {
            let agent = format!("\"agentId\":\"{agent}\"");
            let offered = |text: &&String| text.contains("NewInboundCall") && text.contains(&agent);
            assert_eq!(by_id.values().filter(offered).count(), 1, "{agent}");
        }
    });
}

#[test]
fn ap2_broker2_and_gc1_down() {
    run(async |shared| {
        let (mut pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        let load = CREW.load(&desk);
        load.more(20).await;
        shared.broker(1).kill();
        pair.gc1.kill();
        load.more(40).await;
        pair.gc2.leads().await;
        let account = load.finish(&desk).await;
        account.no_double_and_no_false_answer(&pair);
        account.all_succeeded_or_in_doubt();
        pair.attaches(&pair.gc2, 0).await;
        CREW.served_by(&pair, &pair.gc2).await;
        desk.served_by(1001, "gc-2").await;
    });
}

#[test]
fn ap6_broker1_restores_gc1_down() {
    run(async |shared| {
        let (mut pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        pair.gc1.kill();
        shared.broker(0).kill();
        pair.gc2.leads().await;
        pair.attaches(&pair.gc2, 1).await;
        let load = CREW.load(&desk);
        load.more(20).await;
        shared.broker(0).start_again().await.expect("broker 1");
        // Its first broker: it goes there, and the client stays at broker 2.
        pair.attaches(&pair.gc2, 0).await;
        load.more(40).await;
        let account = load.finish(&desk).await;
        account.no_double_and_no_false_answer(&pair);
        account.all_succeeded_or_in_doubt();
        account.all_answered_by("gc-2");
        assert!(pair.brokers[1].contains(&desk.client.broker().unwrap()));
        CREW.served_by(&pair, &pair.gc2).await;
    });
}
