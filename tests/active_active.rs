//! Each of two instances serves its own site's clients. Instances, brokers and the link between the
//! sites break under load; agents stay where they are until their client goes elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::sync::Arc;

use support::load::Load;
use support::pair::is_state;
use support::{Desk, Pair, PairOptions, Shared, run, until};

/// Agents of a client at broker 1, and of one at broker 2.
const FIRST: std::ops::Range<u32> = 1001..1011;
const SECOND: std::ops::Range<u32> = 1011..1021;
/// At each.
const COUNT: usize = 10;

fn all() -> Vec<u32> {
    FIRST.chain(SECOND).collect()
}

/// A settled pair with signed-in agents of a client at each broker.
async fn settled(shared: &mut Shared, options: PairOptions) -> (Pair, Arc<Desk>, Arc<Desk>) {
    let pair = shared.pair(options).await;
    let first = Arc::new(pair.desk("c1", 0).await);
    let second = Arc::new(pair.desk("c2", 1).await);
    pair.sign_in(&first, &FIRST.collect::<Vec<_>>()).await;
    pair.sign_in(&second, &SECOND.collect::<Vec<_>>()).await;
    pair.owns(&pair.gc1, COUNT).await;
    pair.owns(&pair.gc2, COUNT).await;
    (pair, first, second)
}

/// Half of the agents call, the others change their state.
fn load(desk: &Arc<Desk>, agents: std::ops::Range<u32>) -> Load {
    let middle = agents.start + 5;
    Load::start(
        desk.clone(),
        (agents.start..middle).collect(),
        (middle..agents.end).collect(),
    )
}

/// Both instances tell the same owner of every agent; gives how many each owns.
async fn agree(pair: &Pair) {
    until("both name the same owners", async || {
        let owners = |list: serde_json::Value| -> Vec<(String, String)> {
            let entries = list.as_array().cloned().unwrap_or_default();
            let text = |entry: &serde_json::Value, name: &str| {
                entry[name].as_str().unwrap_or_default().to_owned()
            };
            let all = entries.iter();
            all.map(|entry| (text(entry, "agent"), text(entry, "owner")))
                .collect()
        };
        let one = owners(pair.gc1.json("/api/v1/sessions").await);
        let other = owners(pair.gc2.json("/api/v1/sessions").await);
        !one.is_empty() && one == other
    })
    .await;
}

#[test]
fn aa0_both_serve() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::active_active()).await;
        let (first, second) = (pair.desk("c1", 0).await, pair.desk("c2", 1).await);
        pair.sign_in(&first, &[1001, 1002]).await;
        pair.sign_in(&second, &[1003, 1004]).await;
        for (desk, agent, instance, node) in [
            (&first, 1001, "gc-1", 1),
            (&second, 1003, "gc-2", 2),
            (&first, 1002, "gc-1", 1),
            (&second, 1004, "gc-2", 2),
        ] {
            let reply = desk
                .expect(&format!("MakeReady#{agent}"), "", "ACCEPTED")
                .await;
            assert_eq!(reply.field("instance"), instance, "{}", reply.text);
            assert_eq!(pair.subscribed_at(agent), Some(node));
            desk.event("READY", |m| is_state(m, agent, "READY")).await;
        }
        pair.owns(&pair.gc1, 2).await;
        pair.owns(&pair.gc2, 2).await;
    });
}

#[test]
fn aa6_gc1_down() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::active_active()).await;
        let (first, second) = (pair.desk("c1", 0).await, pair.desk("c2", 1).await);
        pair.sign_in(&first, &[1001, 1002]).await;
        pair.sign_in(&second, &[1003]).await;
        pair.gc1.kill();
        // From broker 1 over federation to gc-2, and back.
        let reply = first.expect("MakeReady#1001", "", "ACCEPTED").await;
        assert_eq!(reply.field("instance"), "gc-2", "{}", reply.text);
        first.event("READY", |m| is_state(m, 1001, "READY")).await;
        assert!(pair.brokers[0].contains(&first.client.broker().unwrap()));
        pair.owns(&pair.gc2, 3).await;
        pair.one_subscription_each(&[1001, 1002, 1003]).await;
    });
}

#[test]
fn aa7_gc2_down() {
    run(async |shared| {
        let (mut pair, first, second) = settled(shared, PairOptions::active_active()).await;
        let load = load(&second, SECOND);
        load.more(20).await;
        pair.gc2.kill();
        load.more(40).await;
        // From broker 2 over federation to gc-1, and back.
        let account = load.finish(&second).await;
        account.no_double_and_no_false_answer(&pair);
        account.all_succeeded_or_in_doubt();
        assert!(pair.brokers[1].contains(&second.client.broker().unwrap()));
        second.served_by(SECOND.start, "gc-1").await;
        first.served_by(FIRST.start, "gc-1").await;
        pair.owns(&pair.gc1, 2 * COUNT).await;
        pair.one_subscription_each(&all()).await;
    });
}

#[test]
fn aa1_broker1_down() {
    run(async |shared| {
        let (pair, first, second) = settled(shared, PairOptions::active_active()).await;
        let (one, other) = (load(&first, FIRST), load(&second, SECOND));
        one.more(20).await;
        shared.broker(0).kill();
        pair.attaches(&pair.gc1, 1).await;
        one.more(40).await;
        other.more(1).await;
        let (one, other) = (one.finish(&first).await, other.finish(&second).await);
        // gc-1 has the higher priority and receives everything there; each serves its own.
        for (account, instance) in [(&one, "gc-1"), (&other, "gc-2")] {
            account.no_double_and_no_false_answer(&pair);
            account.all_succeeded_or_in_doubt();
            account.all_answered_by(instance);
        }
        pair.owns(&pair.gc1, COUNT).await;
        pair.owns(&pair.gc2, COUNT).await;
        pair.one_subscription_each(&all()).await;
        agree(&pair).await;
    });
}

/// Broker 1 and gc-1 are killed under load, and gc-2 serves all.
async fn left_alone(shared: &mut Shared) -> (Pair, Arc<Desk>, Arc<Desk>) {
    let (mut pair, first, second) = settled(shared, PairOptions::active_active()).await;
    let load = load(&first, FIRST);
    load.more(20).await;
    shared.broker(0).kill();
    pair.gc1.kill();
    load.more(40).await;
    let account = load.finish(&first).await;
    account.no_double_and_no_false_answer(&pair);
    account.all_succeeded_or_in_doubt();
    pair.owns(&pair.gc2, 2 * COUNT).await;
    pair.one_subscription_each(&all()).await;
    (pair, first, second)
}

#[test]
fn aa2_broker1_and_gc1_down() {
    run(async |shared| {
        let (_pair, first, second) = left_alone(shared).await;
        first.served_by(FIRST.start, "gc-2").await;
        second.served_by(SECOND.start, "gc-2").await;
    });
}

#[test]
fn aa3_gc1_restores() {
    run(async |shared| {
        let (mut pair, first, _second) = left_alone(shared).await;
        shared.network().await;
        pair.gc1.start();
        pair.gc1.becomes("leader").await;
        pair.attaches(&pair.gc1, 0).await;
        // The client is at broker 2 still, and its agents stay.
        for agent in FIRST {
            first.served_by(agent, "gc-2").await;
        }
        pair.owns(&pair.gc2, 2 * COUNT).await;
        drop(first);
        let moved = Arc::new(pair.desk("c1", 0).await);
        // Other calls than before: each agent has one already.
        let load = Load::start(moved.clone(), Vec::new(), FIRST.collect());
        load.more(40).await;
        pair.owns(&pair.gc1, COUNT).await;
        let account = load.finish(&moved).await;
        account.all_succeeded();
        moved.served_by(FIRST.start, "gc-1").await;
        pair.owns(&pair.gc2, COUNT).await;
        pair.one_subscription_each(&all()).await;
        agree(&pair).await;
    });
}

#[test]
fn aa4_link_cut() {
    run(async |shared| {
        let options = PairOptions {
            sites: true,
            ..PairOptions::active_active()
        };
        let (pair, first, second) = settled(shared, options).await;
        let (one, other) = (load(&first, FIRST), load(&second, SECOND));
        one.more(20).await;
        pair.cut().await;
        shared.brokers().cut_link().await;
        for (instance, peer) in [(&pair.gc1, "gc-2"), (&pair.gc2, "gc-1")] {
            let what = format!("{} loses {peer}", instance.name);
            until(&what, async || instance.sees(peer).await == "lost").await;
        }
        one.more(40).await;
        first.served_by(FIRST.start, "gc-1").await;
        second.served_by(SECOND.start, "gc-2").await;
        pair.mend().await;
        shared.brokers().heal_link().await;
        for (instance, peer) in [(&pair.gc1, "gc-2"), (&pair.gc2, "gc-1")] {
            let what = format!("{} hears {peer}", instance.name);
            until(&what, async || instance.sees(peer).await == "alive").await;
        }
        one.more(20).await;
        let (one, other) = (one.finish(&first).await, other.finish(&second).await);
        for (account, instance) in [(&one, "gc-1"), (&other, "gc-2")] {
            account.no_double_and_no_false_answer(&pair);
            account.all_succeeded();
            account.all_answered_by(instance);
        }
        pair.owns(&pair.gc1, COUNT).await;
        pair.owns(&pair.gc2, COUNT).await;
        pair.one_subscription_each(&all()).await;
        agree(&pair).await;
    });
}

#[test]
fn aa5_broker1_restores_gc1_and_broker2_down() {
    run(async |shared| {
        let (mut pair, first, second) = settled(shared, PairOptions::active_active()).await;
        pair.gc1.kill();
        shared.broker(1).kill();
        shared.broker(0).kill();
        until("gc-2 has no broker", async || {
            pair.gc2.attached().await.is_none()
        })
        .await;
        let load = load(&first, FIRST);
        shared.broker(0).start_again().await.expect("broker 1");
        pair.attaches(&pair.gc2, 0).await;
        load.more(40).await;
        let account = load.finish(&first).await;
        account.no_double_and_no_false_answer(&pair);
        account.all_succeeded_or_in_doubt();
        account.all_answered_by("gc-2");
        second.served_by(SECOND.start, "gc-2").await;
        pair.owns(&pair.gc2, 2 * COUNT).await;
        pair.one_subscription_each(&all()).await;
    });
}
