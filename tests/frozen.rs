//! What hangs instead of dying: a leader that is stopped (SIGSTOP), and a broker that is. Their
//! sockets stay open, and for seconds nothing tells them from ones that are slow.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use support::{Crew, PairOptions, Shared, run, until};

const CREW: Crew = Crew::new(10, 10, 0);

/// The leader is stopped under load, the follower serves all, the leader goes on and learns that
/// it is none. What it was given and what it was about to send has one effect at most.
async fn frozen_leader(shared: &mut Shared, options: PairOptions) {
    // It must not take back while the test looks.
    let options = options.set("takeback.hold", "1m");
    let (mut pair, desk) = CREW.settled(shared, options).await;
    let load = CREW.load(&desk);
    load.more(20).await;
    pair.gc1.freeze();
    // Some of these are given to the frozen one.
    load.more(20).await;
    pair.gc2.leads().await;
    // While it is frozen: these did not wait for it.
    desk.served_by(CREW.others.start, "gc-2").await;
    load.more(40).await;
    pair.gc1.thaw();
    pair.gc1.becomes("follower").await;
    load.more(20).await;
    let account = load.finish(&desk).await;
    account.no_double_and_no_false_answer(&pair);
    // What was given to the frozen one comes again after newer changes of the same agent: it may
    // have run, and is not repeated.
    account.all_succeeded_or(&["IN_DOUBT"]);
    for (id, (kind, ..)) in &account.outcomes {
        let effects = pair.effects_of("MAKE_CALL", id);
        assert!(effects <= 1, "{kind}: {effects} calls");
    }
    CREW.served_by(&pair, &pair.gc2).await;
    desk.served_by(CREW.callers.start, "gc-2").await;
}

#[test]
fn js1_failover_3s() {
    run(async |shared| frozen_leader(shared, PairOptions::default()).await);
}

#[test]
fn js1_failover_3s_with_fence() {
    run(async |shared| {
        let options = PairOptions::default().set("broker.fence", "true");
        frozen_leader(shared, options).await;
    });
}

#[test]
fn a_wedged_broker_is_left_for_the_next() {
    run(async |shared| {
        let (pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        shared.broker(0).freeze();
        for instance in [&pair.gc1, &pair.gc2] {
            pair.attaches(instance, 1).await;
        }
        // Found by the probe, not by a heartbeat of the protocol.
        until("the log says why", async || {
            pair.gc1.log_text().contains("the broker is wedged")
        })
        .await;
        // The roles settle: on the way from one broker to the other a peer may be silent for long.
        let other = pair.desk("other", 1).await;
        until("gc-1 leads alone", async || {
            pair.gc1.role().await == "leader" && pair.gc2.role().await == "follower"
        })
        .await;
        other.served_by(CREW.others.start, "gc-1").await;
        shared.broker(0).thaw();
        for instance in [&pair.gc1, &pair.gc2] {
            pair.attaches(instance, 0).await;
        }
        until("gc-1 leads alone", async || {
            pair.gc1.role().await == "leader" && pair.gc2.role().await == "follower"
        })
        .await;
        pair.owns(&pair.gc1, CREW.count()).await;
        desk.served_by(CREW.others.start, "gc-1").await;
        pair.one_subscription_each(&CREW.all()).await;
    });
}
