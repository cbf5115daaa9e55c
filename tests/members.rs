//! Three instances of equal priority: first come, first served.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::sync::Arc;

use serde_json::Value;
use support::load::Load;
use support::{Desk, Pair, PairOptions, Shared, run, until};

const CALLERS: std::ops::Range<u32> = 1001..1006;
const OTHERS: std::ops::Range<u32> = 1006..1011;
const COUNT: usize = 10;

fn all() -> Vec<u32> {
    CALLERS.chain(OTHERS).collect()
}

/// gc-2 comes first, then gc-3, then gc-1.
async fn three(shared: &mut Shared) -> (Pair, Arc<Desk>) {
    let options = PairOptions {
        instances: 0,
        priorities: [110; 3],
        ..PairOptions::default()
    };
    let mut pair = shared.pair(options).await;
    pair.gc2.start();
    pair.gc2.becomes("leader").await;
    pair.gc3.start();
    pair.gc3.becomes("follower").await;
    pair.gc1.start();
    pair.gc1.becomes("follower").await;
    let desk = Arc::new(pair.desk("desk", 0).await);
    pair.sign_in(&desk, &all()).await;
    pair.owns(&pair.gc2, COUNT).await;
    (pair, desk)
}

/// Member list of an instance: (name, state).
fn members(list: &Value) -> Vec<(String, String)> {
    let entries = list.as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let mut members: Vec<_> = entries
        .iter()
        .map(|entry| (text(entry, "instance"), text(entry, "state")))
        .collect();
    members.sort();
    members
}

fn named(states: [(&str, &str); 3]) -> Vec<(String, String)> {
    let mut all = states.map(|(name, state)| (name.to_owned(), state.to_owned()));
    all.sort();
    all.to_vec()
}

/// Each of these tells that `leader` serves the group, and nobody else does.
async fn told(instances: &[&support::pair::Instance], leader: &str) {
    for instance in instances {
        let what = format!("{} tells that {leader} serves", instance.name);
        until(&what, async || {
            let groups = instance.json("/api/v1/groups").await;
            let leads = |entry: &&Value| entry["role"] == "leader";
            let list = groups[0]["members"].as_array().cloned().unwrap_or_default();
            let leaders: Vec<&Value> = list.iter().filter(leads).collect();
            leaders.len() == 1 && leaders[0]["instance"] == leader && groups[0]["leader"] == leader
        })
        .await;
    }
}

#[test]
fn mb1_first_come() {
    run(async |shared| {
        let (pair, desk) = three(shared).await;
        for instance in [&pair.gc1, &pair.gc2, &pair.gc3] {
            let wanted = named([("gc-1", "alive"), ("gc-2", "alive"), ("gc-3", "alive")]);
            until("a list of three", async || {
                members(&instance.json("/api/v1/members").await) == wanted
            })
            .await;
        }
        told(&[&pair.gc1, &pair.gc2, &pair.gc3], "gc-2").await;
        desk.served_by(1001, "gc-2").await;
        pair.one_subscription_each(&all()).await;
    });
}

#[test]
fn mb2_takeover_by_any() {
    run(async |shared| {
        let (mut pair, desk) = three(shared).await;
        let load = Load::start(desk.clone(), CALLERS.collect(), OTHERS.collect());
        load.more(20).await;
        pair.gc2.kill();
        load.more(40).await;
        // The one that came next.
        told(&[&pair.gc1, &pair.gc3], "gc-3").await;
        let account = load.finish(&desk).await;
        account.no_double_and_no_false_answer(&pair);
        // What the killed one had comes back to either of the two, and may be behind a newer state
        // change of the same agent by the time it is handed over: docs/guarantees.md.
        account.all_succeeded_or(&["IN_DOUBT"]);
        desk.served_by(1001, "gc-3").await;
        pair.owns(&pair.gc3, COUNT).await;
        pair.one_subscription_each(&all()).await;
    });
}

#[test]
fn mb3_returns_waits() {
    run(async |shared| {
        let (mut pair, desk) = three(shared).await;
        pair.gc2.kill();
        told(&[&pair.gc1, &pair.gc3], "gc-3").await;
        let load = Load::start(desk.clone(), CALLERS.collect(), OTHERS.collect());
        load.more(10).await;
        pair.gc2.start();
        pair.gc2.becomes("follower").await;
        told(&[&pair.gc1, &pair.gc2, &pair.gc3], "gc-3").await;
        load.more(40).await;
        let account = load.finish(&desk).await;
        account.no_double_and_no_false_answer(&pair);
        account.all_succeeded();
        account.all_answered_by("gc-3");
        pair.owns(&pair.gc3, COUNT).await;
        pair.one_subscription_each(&all()).await;
    });
}
