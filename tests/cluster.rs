//! A site whose broker is a cluster of three RabbitMQ nodes: each of them is killed in turn, the
//! whole cluster too, under 40 commands a second. Nothing is lost, no call is made twice; what a
//! client waits is measured and printed as a table.
//!
//! Wants RabbitMQ 4.0 or later: scripts/test --rabbitmq 4 --test cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::load::Load;
use support::pair::Instance;
use support::{Crew, Desk, Pair, PairOptions, Shared, run, until};
use tandem::lab::rabbit::server_version;
use tandem::lab::{BrokerNetwork, NetworkOptions};

/// Agents who make a call each, some for every blow; and those whose state changes.
const CREW: Crew = Crew::new(140, 10, 0);
/// Calls in one blow: the first half before it.
const CALLERS: usize = 20;
/// Bounds of a first answer that only a failure passes, on a machine that is short of CPU: one
/// node of three is lost, and a whole site.
const NODE_LIMIT: Duration = Duration::from_secs(15);
const SITE_LIMIT: Duration = Duration::from_secs(30);
/// Nodes of site 1.
const NODES: usize = 3;
/// Commands after each blow: three seconds' worth.
const AFTER: usize = 120;
const BEFORE: usize = 40;

/// How long a node is cut off.
const CUT: Duration = Duration::from_secs(5);

/// What one blow did, as a client and the operator see it.
#[derive(Debug)]
struct Row {
    what: String,
    first: Option<Duration>,
    gap: Duration,
    commands: usize,
    in_doubt: usize,
    lost_links: usize,
    dropped: f64,
}

impl Row {
    fn print(&self) {
        println!(
            "| {} | {} ms | {} ms | {} | {} | {} | {} |",
            self.what,
            self.first.map_or(0, |first| first.as_millis()),
            self.gap.as_millis(),
            self.commands,
            self.in_doubt,
            self.dropped,
            self.lost_links
        );
    }
}

fn heading() {
    println!(
        "| setup, blow | first answer | longest gap | commands | in doubt | events dropped | links lost |"
    );
}

/// Whether the server is one that this file is about; says so where it is not.
async fn has_clusters() -> bool {
    let version = server_version().await.expect("a server");
    let new = !version.starts_with("3.");
    if !new {
        eprintln!("NOT run: RabbitMQ {version} is before 4.0 (scripts/test --rabbitmq 4)");
    }
    new
}

/// Three nodes are site 1, one is site 2.
async fn network(shared: &mut Shared) {
    shared
        .network_with(NetworkOptions::clusters(&[NODES, 1]))
        .await;
}

/// A pair at home at the cluster, and a client that prefers this node of it.
async fn settled(shared: &mut Shared, options: PairOptions) -> Pair {
    network(shared).await;
    shared.pair(options).await
}

/// A client at the cluster whose first node is this one.
async fn desk_at(shared: &Shared, pair: &Pair, name: &str, node: usize) -> Arc<Desk> {
    let brokers = shared.brokers().brokers();
    let uris = vec![brokers[0].amqp_uri_from(node), brokers[1].amqp_uri_from(0)];
    Arc::new(Desk::open(uris, &pair.cluster, &pair.queue, name).await)
}

/// Setup of a test and what is measured of it.
struct Trial<'s> {
    shared: &'s mut Shared,
    pair: Pair,
    name: &'static str,
    callers: std::vec::IntoIter<u32>,
}

impl<'s> Trial<'s> {
    async fn start(shared: &'s mut Shared, name: &'static str, options: PairOptions) -> Self {
        let options = PairOptions {
            agents: u32::try_from(CREW.count()).unwrap(),
            ..options
        };
        let pair = settled(shared, options).await;
        let desk = desk_at(shared, &pair, "desk", 0).await;
        pair.sign_in(&desk, &CREW.all()).await;
        heading();
        let callers: Vec<u32> = CREW.callers.clone().collect();
        Self {
            shared,
            pair,
            name,
            callers: callers.into_iter(),
        }
    }

    /// Does something to the brokers under load, watches, and mends everything again. The client
    /// begins at this node of the cluster.
    async fn blow(
        &mut self,
        what: &str,
        client_at: usize,
        blow: impl AsyncFnOnce(&mut BrokerNetwork),
    ) -> Row {
        let pair = &self.pair;
        let name = format!("desk-{}", self.callers.len());
        let desk = desk_at(self.shared, pair, &name, client_at).await;
        let (links, dropped) = (lost_links(pair), events_dropped(pair).await);
        let callers = self.callers.by_ref().take(CALLERS).collect();
        let load = Load::start(desk.clone(), callers, CREW.others.clone().collect());
        load.more(BEFORE).await;
        let struck = Instant::now();
        blow(self.shared.network_as_it_is()).await;
        load.more(AFTER).await;
        let account = load.finish(&desk).await;
        account.no_double_and_no_false_answer(pair);
        account.all_succeeded_or_in_doubt();
        let row = Row {
            what: format!("{}, {what}", self.name),
            first: account.first_answer(struck),
            gap: account.longest_gap(),
            commands: account.len(),
            in_doubt: account.in_doubt(),
            lost_links: lost_links(pair) - links,
            dropped: events_dropped(pair).await - dropped,
        };
        row.print();
        self.mended().await;
        row
    }

    /// All nodes run and know each other, and both instances are where they were at first.
    async fn mended(&mut self) {
        self.shared.network().await;
        let cluster = &self.shared.brokers().brokers()[0];
        for node in cluster.nodes() {
            let api = node.management().unwrap();
            until("a whole cluster", async || {
                let nodes = api.get("nodes").await.ok().flatten().unwrap_or_default();
                let all = nodes.as_array().cloned().unwrap_or_default();
                let whole = |one: &serde_json::Value| {
                    one["running"] == true && one["partitions"].as_array().is_none_or(Vec::is_empty)
                };
                all.len() == NODES && all.iter().all(whole)
            })
            .await;
        }
        self.pair.attaches(&self.pair.gc1, 0).await;
        self.pair.gc1.becomes("leader").await;
        let at = usize::from(self.pair.is_active());
        self.pair.attaches(&self.pair.gc2, at).await;
    }

    /// Each node is killed in turn, the client at another one, and at last that of the client.
    async fn each_node(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        for node in 0..NODES {
            let what = format!("node {} killed", node + 1);
            let kill = async |network: &mut BrokerNetwork| {
                network.brokers_mut()[0].nodes_mut()[node].kill();
            };
            rows.push(self.blow(&what, (node + 1) % NODES, kill).await);
        }
        rows
    }
}

fn lost_links(pair: &Pair) -> usize {
    pair.gc1.lost_links() + pair.gc2.lost_links()
}

async fn events_dropped(pair: &Pair) -> f64 {
    dropped_by(&pair.gc1).await + dropped_by(&pair.gc2).await
}

async fn dropped_by(instance: &Instance) -> f64 {
    let text = instance.get("/metrics").await.unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("tandem_events_dropped_total"));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// With quorum queues one node of three is no loss: nobody goes to the other site.
#[test]
fn a_quorum_queue_serves_whichever_node_is_killed() {
    run(async |shared| {
        if !has_clusters().await {
            return;
        }
        let options = PairOptions::default().set("queue.type", "quorum");
        let mut trial = Trial::start(shared, "quorum", options).await;
        for row in trial.each_node().await {
            assert!(
                row.first.is_some_and(|first| first <= NODE_LIMIT),
                "{row:?}"
            );
        }
        whole_cluster(&mut trial).await;
    });
}

/// A node that the others cannot reach, and an operator's rolling restart.
#[test]
#[ignore = "takes two minutes: scripts/test --rabbitmq 4 --test cluster -- --include-ignored"]
fn a_cut_in_the_cluster_and_a_rolling_restart_are_served_through() {
    run(async |shared| {
        if !has_clusters().await {
            return;
        }
        let options = PairOptions::default().set("queue.type", "quorum");
        let mut trial = Trial::start(shared, "quorum", options).await;
        let cut = async |network: &mut BrokerNetwork| {
            let cluster = &network.brokers()[0];
            cluster.partition(&[0]).await.expect("a node is cut off");
            tokio::time::sleep(CUT).await;
            cluster.heal_partition().await.expect("it is back");
        };
        let upgrade = async |network: &mut BrokerNetwork| {
            for node in network.brokers_mut()[0].nodes_mut() {
                node.stop().await;
                node.start_again().await.expect("it starts again");
            }
        };
        for row in [
            trial
                .blow("node 1 cut off from the others for 5 s", 0, cut)
                .await,
            trial
                .blow("all restarted, one after another", 1, upgrade)
                .await,
        ] {
            assert!(
                row.first.is_some_and(|first| first <= NODE_LIMIT),
                "{row:?}"
            );
        }
    });
}

/// A classic queue is gone with its node: the other site's serves.
#[test]
#[ignore = "takes minutes: scripts/test --rabbitmq 4 --test cluster -- --include-ignored"]
fn with_classic_queues_the_other_site_serves_where_the_queues_node_is_killed() {
    run(async |shared| {
        if !has_clusters().await {
            return;
        }
        let mut trial = Trial::start(shared, "classic", PairOptions::default()).await;
        for row in trial.each_node().await {
            assert!(
                row.first.is_some_and(|first| first <= SITE_LIMIT),
                "{row:?}"
            );
        }
        whole_cluster(&mut trial).await;
    });
}

#[test]
#[ignore = "takes minutes: scripts/test --rabbitmq 4 --test cluster -- --include-ignored"]
fn active_active_with_a_cluster_serves_whichever_node_is_killed() {
    run(async |shared| {
        if !has_clusters().await {
            return;
        }
        let options = PairOptions::active_active().set("queue.type", "quorum");
        let mut trial = Trial::start(shared, "active-active, quorum", options).await;
        for row in trial.each_node().await {
            assert!(
                row.first.is_some_and(|first| first <= NODE_LIMIT),
                "{row:?}"
            );
        }
    });
}

/// Two of three, then all three: the other site serves.
async fn whole_cluster(trial: &mut Trial<'_>) {
    let two = async |network: &mut BrokerNetwork| {
        for node in &mut network.brokers_mut()[0].nodes_mut()[..2] {
            node.kill();
        }
    };
    let all = async |network: &mut BrokerNetwork| network.brokers_mut()[0].kill();
    for row in [
        trial.blow("two nodes killed", 2, two).await,
        trial.blow("all nodes killed", 0, all).await,
    ] {
        assert!(
            row.first.is_some_and(|first| first <= SITE_LIMIT),
            "{row:?}"
        );
    }
}
