//! A site whose broker is a cluster of three RabbitMQ nodes: each of them is killed in turn, the
//! whole cluster too, under 40 commands a second. Nothing is lost, no call is made twice, no event is
//! dropped, never do two members lead; what a client waits is measured and printed as a table.
//!
//! Wants RabbitMQ 4.0 or later: scripts/test --rabbitmq 4 --test cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod links;
mod trial;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, ConnectionProperties};
use links::{Links, Way};
use support::wire::command;
use support::{Desk, Pair, PairOptions, Shared, Wire, run, until};
use tandem::broker::guard;
use tandem::lab::BrokerNetwork;
use trial::{
    CREW, NODE_LIMIT, NODES, SITE_LIMIT, Trial, desk_at, events_dropped, flaps_of, lost_links,
};

fn quorum() -> PairOptions {
    PairOptions::default().set("queue.type", "quorum")
}

/// With quorum queues one node of three is no loss: who was connected to it is served by way of the
/// other site until it has another node. Two are one: the other site serves.
#[test]
fn a_quorum_queue_serves_whichever_node_is_killed() {
    run(async |shared| {
        let Some(mut trial) = Trial::start(shared, "quorum", quorum()).await else {
            return;
        };
        trial.each_node(NODE_LIMIT).await;
        trial.two_nodes().await;
    });
}

/// A classic queue on this node, and a channel there.
async fn queue_on(shared: &Shared, node: usize, name: &str) -> Channel {
    let uri = shared.brokers().brokers()[0].nodes()[node].amqp_uri();
    let properties = ConnectionProperties::default();
    let connection = guard::connect(uri.parse().unwrap(), properties).await;
    let channel = connection.unwrap().create_channel().await.unwrap();
    let options = QueueDeclareOptions::durable();
    let declared = channel.queue_declare(name.into(), options, FieldTable::default());
    declared.await.unwrap();
    channel
}

/// A queue on this node that hears what this client hears, as a wallboard's would.
async fn board(shared: &Shared, pair: &Pair, node: usize, key: &str) {
    let name = format!("board-{}", pair.cluster);
    let channel = queue_on(shared, node, &name).await;
    let events = format!("{}.events", pair.cluster);
    let bound = channel.queue_bind(
        name.as_str().into(),
        events.as_str().into(),
        key.into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.unwrap();
}

/// From 4.0 on a broker refuses an event where one of the queues that are bound for it is on a node
/// that is down, though the others have got it.
#[test]
fn a_clients_queue_on_a_dead_node_costs_nobody_else_an_event() {
    run(async |shared| {
        let Some(mut trial) = Trial::start(shared, "quorum", quorum()).await else {
            return;
        };
        // Not where the client is, nor, most likely, the instances.
        let dead = 2;
        let (ours, theirs) = (CREW.others.start, CREW.others.end - 1);
        let desk = desk_at(trial.shared, &trial.pair, "beside-board", 0).await;
        let other = desk_at(trial.shared, &trial.pair, "without-board", 0).await;
        for (desk, agent) in [(&desk, ours), (&other, theirs)] {
            trial.pair.sign_in(desk, &[agent]).await;
            desk.expect(&format!("MakeNotReady#{agent}"), "", "ACCEPTED")
                .await;
        }
        board(trial.shared, &trial.pair, dead, "beside-board").await;
        trial.shared.network_as_it_is().brokers_mut()[0].nodes_mut()[dead].kill();
        trial.pair.gc1.leads().await;
        let dropped = events_dropped(&trial.pair).await;
        for desk in [&desk, &other] {
            desk.clear_events();
        }
        for round in 0..CHANGES {
            let verb = ["MakeReady", "MakeNotReady"][round % 2];
            for (desk, agent) in [(&desk, ours), (&other, theirs)] {
                desk.expect(&format!("{verb}#{agent}"), "", "ACCEPTED")
                    .await;
            }
        }
        for desk in [&desk, &other] {
            let name = &desk.destination;
            until(&format!("all events at {name}"), async || {
                told(desk).len() >= CHANGES
            })
            .await;
        }
        let most = |desk: &Desk| told(desk).into_values().max().unwrap_or_default();
        println!(
            "a queue on a dead node: {CHANGES} events each, the same one at most {} times, for another \
             client {} times, {} given up",
            most(&desk),
            most(&other),
            events_dropped(&trial.pair).await - dropped
        );
        assert!(most(&desk) <= REPEATS, "{:?}", told(&desk));
        assert_eq!(most(&other), 1, "{:?}", told(&other));
        assert!(events_dropped(&trial.pair).await - dropped <= 0.0);
        trial.mended().await;
    });
}

/// A client whose reply queue is on a node that is down: from 4.0 on the broker does not say that there
/// is no such queue, it refuses each reply. That client's replies end among the dead letters; nobody
/// else waits for them, and nothing moves.
#[test]
fn replies_for_a_queue_on_a_dead_node_cost_nobody_else_an_answer() {
    run(async |shared| {
        let Some(mut trial) = Trial::start(shared, "quorum", quorum()).await else {
            return;
        };
        let dead = 2;
        let desk = desk_at(trial.shared, &trial.pair, "beside-gone", 0).await;
        let gone = format!("gone-{}", trial.pair.cluster);
        drop(queue_on(trial.shared, dead, &gone).await);
        let uri = trial.shared.brokers().brokers()[0].nodes()[0].amqp_uri();
        let mut wire = Wire::open_at(&trial.pair, &uri).await;
        trial.shared.network_as_it_is().brokers_mut()[0].nodes_mut()[dead].kill();
        // Who was connected to it has moved, and is back.
        desk.expect(&format!("GetState#{}", CREW.others.start), "", "OK")
            .await;
        trial.pair.attaches(&trial.pair.gc1, 0).await;
        trial.pair.gc1.becomes("leader").await;
        let pair = &trial.pair;
        let before = (flaps_of(pair), lost_links(pair));
        let callers: Vec<u32> = CREW.callers.clone().take(CALLS).collect();
        let mut worst = Duration::ZERO;
        for caller in &callers {
            let (kind, id) = (format!("MakeCall#{caller}"), format!("gone-{caller}"));
            let call = command(&kind, &id).with_reply_to(gone.as_str().into());
            wire.publish(call, format!("555{caller}").as_bytes()).await;
            let begin = Instant::now();
            desk.expect(&format!("GetState#{}", CREW.others.start), "", "OK")
                .await;
            worst = worst.max(begin.elapsed());
        }
        for caller in &callers {
            let letter = wire.dead_letter(&format!("gone-{caller}")).await;
            assert_eq!(letter.reason, "unroutable-reply");
            assert_eq!(letter.json()["outcome"], "ACCEPTED");
            assert_eq!(pair.effects_of("MAKE_CALL", &format!("gone-{caller}")), 1);
        }
        until("all is settled", async || {
            pair.gc1.status().await["inflight"] == 0
        })
        .await;
        println!(
            "{CALLS} replies for a queue on a dead node: another client waited {worst:?} at most"
        );
        assert!(worst < OTHERS_WAIT, "{worst:?}");
        assert_eq!((flaps_of(pair), lost_links(pair)), before);
        assert_eq!(wire.other_dead_letters().await.len(), 0);
        trial.mended().await;
    });
}

/// Commands of a client that cannot be answered, and how long another one may wait meanwhile on a
/// machine that is short of CPU.
const CALLS: usize = 20;
const OTHERS_WAIT: Duration = Duration::from_secs(3);

/// Changes of state, an event each; and how often one may come.
const CHANGES: usize = 40;
const REPEATS: usize = 8;

/// State events by message id, and how often each came.
fn told(desk: &Desk) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for event in desk.events() {
        if event.field("type") == "State" {
            *count
                .entry(event.message_id.unwrap_or_default())
                .or_default() += 1;
        }
    }
    count
}

/// A node that the others cannot reach, an operator's rolling restart, and all nodes at once.
#[test]
fn a_cut_in_the_cluster_and_a_rolling_restart_are_served_through() {
    run(async |shared| {
        let Some(mut trial) = Trial::start(shared, "quorum", quorum()).await else {
            return;
        };
        trial.cut_off().await.is_good(NODE_LIMIT);
        let row = trial
            .blow("all restarted, one after another", 1, restart_all)
            .await;
        row.is_good(NODE_LIMIT);
        let all = async |network: &mut BrokerNetwork| network.brokers_mut()[0].kill();
        let row = trial.blow("all nodes killed", 0, all).await;
        row.is_good(SITE_LIMIT);
    });
}

/// A classic queue is gone with its node: the other site's serves. Other nodes are no loss.
#[test]
fn with_classic_queues_the_other_site_serves_where_the_queues_node_is_killed() {
    run(async |shared| {
        let Some(mut trial) = Trial::start(shared, "classic", PairOptions::default()).await else {
            return;
        };
        let head = trial.head().await;
        let next = (head + 1) % NODES;
        for (what, node) in [
            ("the queue's node killed, the instances on it", head),
            // No connection is lost; what is asked for the queue is not answered for a minute.
            ("the queue's node killed, the instances on another", head),
            ("another node killed", next),
        ] {
            trial.kill(what, node).await.is_good(SITE_LIMIT);
        }
    });
}

#[test]
fn active_active_with_a_cluster_serves_whichever_node_is_killed() {
    run(async |shared| {
        let options = PairOptions::active_active().set("queue.type", "quorum");
        let Some(mut trial) = Trial::start(shared, "active-active, quorum", options).await else {
            return;
        };
        trial.each_node(NODE_LIMIT).await;
        trial.cut_off().await.is_good(NODE_LIMIT);
        trial.two_nodes().await;
    });
}

/// How often all nodes are restarted one after another where that is measured, and how long the
/// instances stay at the other broker meanwhile: not worth a word, and as shipped.
const ROUNDS: usize = 4;
const HOLDS: [&str; 2] = ["1s", "5s"];

/// What a rolling restart costs clients of each site: prints a table, fails for nothing but losses.
#[test]
#[ignore = "measures for a quarter of an hour"]
fn rolling_restarts_measured() {
    run(async |shared| {
        for round in 0..ROUNDS * HOLDS.len() {
            // Instances anew: who has moved often stays away for longer.
            let hold = HOLDS[round % HOLDS.len()];
            let options = quorum().set("broker.failback-hold", hold);
            let Some(mut trial) = Trial::start(shared, "quorum", options).await else {
                return;
            };
            let head = trial.head().await + 1;
            let what = format!("all restarted, the head on node {head}, hold {hold}");
            let row = trial.blow(&what, 1, restart_all).await;
            row.is_kept();
            trial.end().await;
        }
    });
}

/// As an operator restarts a cluster.
async fn restart_all(network: &mut BrokerNetwork) {
    for node in network.brokers_mut()[0].nodes_mut() {
        node.stop().await;
        node.start_again().await.expect("it starts again");
    }
}

/// What federation alone costs where the node that leads the command queue and runs its link goes.
#[test]
#[ignore = "measures for a quarter of an hour"]
fn links_measured() {
    run(async |shared| {
        let Some(mut links) = Links::start(shared).await else {
            return;
        };
        println!(
            "| the node is | messages a second | away for | gone after | longest wait | after its return | messages |"
        );
        for _ in 0..BLOWS {
            for (way, rate, away) in [
                (Way::Stopped, 40, 14),
                (Way::Drained, 40, 2),
                (Way::Stopped, 1, 20),
                (Way::Killed, 40, 2),
            ] {
                let pause = Duration::from_secs(1) / rate;
                let waited = links.blow(way, pause, Duration::from_secs(away)).await;
                println!(
                    "| {way:?} | {rate} | {away} s | {:?} | {:?} | {} | {} |",
                    waited.gone, waited.longest, waited.after_return, waited.messages
                );
            }
        }
    });
}

const BLOWS: usize = 8;
