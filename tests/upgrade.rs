//! Upgrades under load, as docs/upgrade.md describes them: no command is lost, failed, doubled or
//! in doubt.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::load::Load;
use support::{Desk, Pair, PairOptions, run, until};
use tokio::task::JoinHandle;

/// Agents that make one call each, and agents that change their state.
const CALLERS: std::ops::Range<u32> = 1001..1016;
const OTHERS: std::ops::Range<u32> = 1016..1026;
/// All of them.
const COUNT: usize = 25;
/// Asked for its state again and again: how long each answer takes.
const ASKED: u32 = 1026;

/// Asks without a pause, one question after the other.
struct Asker {
    stop: Arc<AtomicBool>,
    /// What is being done to the pair.
    step: Arc<Mutex<&'static str>>,
    task: JoinHandle<Asked>,
}

/// Answers, and the longest wait for one while each step was done, in the order of the steps.
#[derive(Default)]
struct Asked {
    count: usize,
    worst: Vec<(&'static str, Duration)>,
}

impl Asked {
    fn answered(&mut self, step: &'static str, took: Duration) {
        self.count += 1;
        match self.worst.last_mut() {
            Some((last, worst)) if *last == step => *worst = took.max(*worst),
            _ => self.worst.push((step, took)),
        }
    }
}

impl Asker {
    fn start(desk: Arc<Desk>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // A thread of its own: waiting for replies is not for any thread to go on with.
        let runtime = tokio::runtime::Handle::current();
        let step = Arc::new(Mutex::new("before"));
        let now = step.clone();
        let asking = async move |desk: Arc<Desk>| {
            let mut asked = Asked::default();
            while !stopped.load(Ordering::Relaxed) {
                let (begin, step) = (Instant::now(), *now.lock().unwrap());
                desk.expect(&format!("GetState#{ASKED}"), "", "OK").await;
                asked.answered(step, begin.elapsed());
            }
            asked
        };
        let task = tokio::task::spawn_blocking(move || runtime.block_on(asking(desk)));
        Self { stop, step, task }
    }

    fn step(&self, step: &'static str) {
        *self.step.lock().unwrap() = step;
    }

    async fn finish(self) -> Asked {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every question was answered OK")
    }
}

async fn owned_by_leader(pair: &Pair, leader: &support::pair::Instance) {
    leader.becomes("leader").await;
    pair.owns(leader, COUNT + 1).await;
}

#[test]
fn up1_rolling() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default()).await;
        let desk = Arc::new(pair.desk("desk", 0).await);
        let all: Vec<u32> = (CALLERS.start..=ASKED).collect();
        pair.sign_in(&desk, &all).await;
        let mut third = pair.third(110);
        let load = Load::start(desk.clone(), CALLERS.collect(), OTHERS.collect());
        let asker = Asker::start(desk.clone());
        load.more(20).await;
        // The third joins and waits.
        asker.step("third joins");
        third.start();
        third.becomes("follower").await;
        load.more(20).await;
        // gc-1: the third takes over, then gives back to the restarted one.
        asker.step("gc-1 is drained");
        pair.gc1.drain_and_end().await;
        owned_by_leader(&pair, &third).await;
        load.more(20).await;
        asker.step("gc-1 comes back");
        pair.gc1.start();
        owned_by_leader(&pair, &pair.gc1).await;
        third.becomes("follower").await;
        // gc-2 only waits meanwhile.
        asker.step("gc-2 is drained and comes back");
        pair.gc2.drain_and_end().await;
        load.more(10).await;
        pair.gc2.start();
        pair.gc2.becomes("follower").await;
        // The third leaves.
        asker.step("third leaves");
        third.drain_and_end().await;
        load.more(20).await;
        let asked = asker.finish().await;
        let account = load.finish(&desk).await;
        let worst = asked.worst.iter().map(|(_, took)| took.as_millis()).max();
        println!(
            "up1: {} commands and {} questions, longest answer {} ms; longest while each step, ms: {:?}",
            account.len(),
            asked.count,
            worst.unwrap_or_default(),
            asked
                .worst
                .iter()
                .map(|(step, took)| (*step, took.as_millis()))
                .collect::<Vec<_>>()
        );
        account.no_double_and_no_false_answer(&pair);
        account.all_succeeded();
        owned_by_leader(&pair, &pair.gc1).await;
        pair.one_subscription_each(&all).await;
    });
}

#[test]
fn up3_half_capacity() {
    run(async |shared| {
        let options = PairOptions {
            mode: "active-active",
            ..PairOptions::default()
        };
        let mut pair = shared.pair(options).await;
        let (first, second) = (pair.desk("c1", 0).await, pair.desk("c2", 1).await);
        let (first, second) = (Arc::new(first), Arc::new(second));
        let (mine, theirs): (Vec<u32>, Vec<u32>) = (1001..1027).partition(|agent| *agent < 1014);
        pair.sign_in(&first, &mine).await;
        pair.sign_in(&second, &theirs).await;
        let load = |desk: &Arc<Desk>, agents: &[u32]| {
            let (callers, others) = agents.split_at(5);
            Load::start(desk.clone(), callers.to_vec(), others.to_vec())
        };
        let (one, two) = (load(&first, &mine), load(&second, &theirs));
        one.more(30).await;
        two.more(30).await;
        pair.gc1.kill();
        // gc-2 has the load of both sites.
        one.more(80).await;
        two.more(80).await;
        for (load, desk) in [(one, &first), (two, &second)] {
            let account = load.finish(desk).await;
            account.no_double_and_no_false_answer(&pair);
            account.all_succeeded_or_in_doubt();
        }
        pair.owns(&pair.gc2, 26).await;
        for management in &pair.management {
            let client = support::pair::management(management);
            until("the command queue is empty", async || {
                let path = format!("queues/%2f/{}", pair.queue);
                let queue = client.get(&path).await.ok().flatten().unwrap_or_default();
                queue["messages"] == 0
            })
            .await;
        }
    });
}
