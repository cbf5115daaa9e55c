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

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, ConnectionProperties};
use serde_json::Value;
use support::load::{Account, Load};
use support::site::tandem_until;
use support::wire::command;
use support::{Crew, Desk, Pair, PairOptions, Shared, Watch, Wire, run, silence, until, wait_for};
use tandem::broker::guard;
use tandem::lab::rabbit::server_version;
use tandem::lab::{BrokerNetwork, NetworkOptions};

/// Agents who make a call each, some for every blow; and those whose state changes.
const CREW: Crew = Crew::new(70, 10, 0);
/// Calls in one blow: the first half before it.
const CALLERS: usize = 10;
/// Bounds of a first answer that only a failure passes, on a machine that is short of CPU: one
/// node of three is lost, and a whole site. What it takes is in docs/benchmarks.md.
const NODE_LIMIT: Duration = Duration::from_secs(10);
const SITE_LIMIT: Duration = Duration::from_secs(20);
/// A first answer that is worth a look into the log.
const SLOW: Duration = Duration::from_secs(1);
/// Nodes of site 1.
const NODES: usize = 3;
/// Commands after each blow: two seconds' worth.
const AFTER: usize = 80;
const BEFORE: usize = 20;
/// How long a node is cut off.
const CUT: Duration = Duration::from_secs(5);

/// What one blow did, as a client and the operator see it.
#[derive(Debug)]
struct Row {
    what: String,
    first: Option<Duration>,
    gap: Duration,
    commands: usize,
    lost: usize,
    doubled: usize,
    in_doubt: usize,
    dropped: f64,
    /// Changes of role, and of the broker that serves.
    flaps: usize,
    lost_links: usize,
    second_leaders: Vec<String>,
}

impl Row {
    fn print(&self) {
        println!(
            "| {} | {} ms | {} ms | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.what,
            self.first.map_or(0, |first| first.as_millis()),
            self.gap.as_millis(),
            self.commands,
            self.lost,
            self.doubled,
            self.in_doubt,
            self.dropped,
            self.second_leaders.len(),
            self.flaps,
            self.lost_links
        );
    }

    /// Nothing is lost, doubled or dropped, nobody leads beside another, and the first answer came
    /// in time.
    fn is_good(&self, limit: Duration) {
        self.is_served(limit);
        assert!(self.second_leaders.is_empty(), "{self:#?}");
    }

    /// The same where a member that moves between brokers may be taken for gone, for a moment: what
    /// must not be done twice is safe then, too.
    fn is_served(&self, limit: Duration) {
        assert_eq!((self.lost, self.doubled), (0, 0), "{self:#?}");
        assert!(self.dropped == 0.0, "{self:#?}");
        assert!(self.first.is_some_and(|first| first <= limit), "{self:#?}");
    }
}

const HEADING: &str = "| setup, blow | first answer | longest gap | commands | lost | doubled | \
                       in doubt | events dropped | second leader | flaps | links lost |";

/// Whether the server is one that this file is about; says so where it is not.
async fn has_clusters() -> bool {
    let version = server_version().await.expect("a server");
    let new = !version.starts_with("3.");
    if !new {
        eprintln!("NOT run: RabbitMQ {version} is before 4.0 (scripts/test --rabbitmq 4)");
    }
    new
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
    desks: usize,
}

impl<'s> Trial<'s> {
    /// Three nodes are site 1, one is site 2. `None` where the server knows no such clusters.
    async fn start(
        shared: &'s mut Shared,
        name: &'static str,
        options: PairOptions,
    ) -> Option<Self> {
        if !has_clusters().await {
            return None;
        }
        let options = PairOptions {
            agents: u32::try_from(CREW.count()).unwrap(),
            ..options
        };
        let options = options.set("log.level", "info,tandem::broker=debug");
        let network = NetworkOptions::clusters(&[NODES, 1]);
        shared.network_with(network).await;
        let pair = shared.pair(options).await;
        let desk = desk_at(shared, &pair, "desk", 0).await;
        pair.sign_in(&desk, &CREW.all()).await;
        println!("{HEADING}");
        let callers: Vec<u32> = CREW.callers.clone().collect();
        Some(Self {
            shared,
            pair,
            name,
            callers: callers.into_iter(),
            desks: 0,
        })
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
        self.desks += 1;
        let name = format!("desk-{}", self.desks);
        let desk = desk_at(self.shared, pair, &name, client_at).await;
        let (links, flaps, dropped) =
            (lost_links(pair), flaps_of(pair), events_dropped(pair).await);
        let watch = self.watch();
        let callers = self.callers.by_ref().take(CALLERS).collect();
        let load = Load::start(desk.clone(), callers, CREW.others.clone().collect());
        load.more(BEFORE).await;
        let struck = Instant::now();
        blow(self.shared.network_as_it_is()).await;
        load.more(AFTER).await;
        let account = load.finish(&desk).await;
        // What was under way may come back after a newer command of its agent.
        account.all_succeeded_or(&["IN_DOUBT"]);
        let flapped = flaps_of(pair) - flaps;
        self.mended().await;
        let pair = &self.pair;
        let seen = watch.end().await;
        assert!(
            seen.looks > 0 && (seen.listed > 0 || pair.is_active()),
            "{seen:?}"
        );
        let row = Row {
            what: format!("{}, {what}", self.name),
            first: account.first_answer(struck),
            gap: account.longest_gap(),
            commands: account.len(),
            lost: lost(&account, pair),
            doubled: doubled(&account, pair),
            in_doubt: account.in_doubt(),
            dropped: events_dropped(pair).await - dropped,
            flaps: flapped,
            lost_links: lost_links(pair) - links,
            second_leaders: match pair.is_active() {
                // There both lead; that none serves the other's agents is looked at by their number.
                true => Vec::new(),
                false => seen.second_leaders,
            },
        };
        row.print();
        if row.first.is_none_or(|first| first > SLOW) || row.gap > SLOW {
            silence::tell(pair, self.shared.brokers(), &account);
        }
        pair.one_subscription_each(&CREW.all()).await;
        row
    }

    fn watch(&self) -> Watch {
        let brokers = self.shared.brokers().brokers().iter();
        let nodes = brokers.flat_map(|broker| broker.nodes());
        let urls: Vec<String> = nodes.map(|node| node.management_url()).collect();
        Watch::start(&self.pair, &urls)
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
                let whole = |one: &Value| {
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

    /// The node of the cluster that leads the command queue (quorum) or has it (classic).
    async fn head(&self) -> usize {
        let path = format!("queues/%2f/{}", self.pair.queue);
        let nodes = self.shared.brokers().brokers()[0].nodes();
        wait_for("the queue's node", async || {
            let queue = self.pair.manage(0).get(&path).await.ok().flatten()?;
            let name = queue["leader"].as_str().or(queue["node"].as_str())?;
            nodes.iter().position(|node| node.erlang_name() == name)
        })
        .await
    }

    /// That node is killed, then each of the others; the client at another one.
    async fn each_node(&mut self, limit: Duration) {
        let first = self.head().await;
        for step in 0..NODES {
            let node = (first + step) % NODES;
            let heads = self.head().await == node;
            let what = match heads {
                true => format!("node {} killed, the queue's head", node + 1),
                false => format!("node {} killed", node + 1),
            };
            self.kill(&what, node).await.is_good(limit);
        }
    }

    async fn kill(&mut self, what: &str, node: usize) -> Row {
        let kill = async |network: &mut BrokerNetwork| {
            network.brokers_mut()[0].nodes_mut()[node].kill();
        };
        self.blow(what, (node + 1) % NODES, kill).await
    }

    /// Two of three, the client at the last: the other site serves, and whoever asks is told why.
    async fn two_nodes(&mut self) {
        let config = self.pair.gc1.config.display().to_string();
        let mut said = String::new();
        let two = async |network: &mut BrokerNetwork| {
            for node in &mut network.brokers_mut()[0].nodes_mut()[..2] {
                node.kill();
            }
            said = tandem_until(69, &["check", "--online", &config]).await;
        };
        let row = self.blow("two nodes killed", 2, two).await;
        row.is_good(SITE_LIMIT);
        for node in self.shared.brokers().brokers()[0].nodes() {
            let place = node.place().to_string();
            assert!(said.contains(&place), "{place}: {said}");
        }
        assert!(said.contains("GONE") && said.contains("majority"), "{said}");
    }
}

/// Commands that were taken and did nothing.
fn lost(account: &Account, pair: &Pair) -> usize {
    let calls = account.outcomes.iter();
    let calls = calls
        .filter(|(_, (kind, outcome, _))| kind.starts_with("MakeCall") && outcome == "ACCEPTED");
    calls
        .filter(|(id, _)| pair.effects_of("MAKE_CALL", id) == 0)
        .count()
}

/// Calls that were made twice.
fn doubled(account: &Account, pair: &Pair) -> usize {
    let ids = account.outcomes.keys();
    ids.filter(|id| pair.effects_of("MAKE_CALL", id) > 1)
        .count()
}

fn lost_links(pair: &Pair) -> usize {
    pair.gc1.lost_links() + pair.gc2.lost_links()
}

/// How often a member has changed its role, or the broker that serves it.
fn flaps_of(pair: &Pair) -> usize {
    let logs = [&pair.gc1, &pair.gc2].map(|one| one.log_text());
    let of = |words: &str| {
        logs.iter()
            .map(|log| log.matches(words).count())
            .sum::<usize>()
    };
    of("role changed") + of("served by another broker")
}

async fn events_dropped(pair: &Pair) -> f64 {
    pair.gc1.events_dropped().await + pair.gc2.events_dropped().await
}

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
        let cut = async |network: &mut BrokerNetwork| {
            let cluster = &network.brokers()[0];
            cluster.partition(&[0]).await.expect("a node is cut off");
            tokio::time::sleep(CUT).await;
            cluster.heal_partition().await.expect("it is back");
        };
        let row = trial
            .blow("node 1 cut off from the others for 5 s", 0, cut)
            .await;
        row.is_good(NODE_LIMIT);
        let upgrade = async |network: &mut BrokerNetwork| {
            for node in network.brokers_mut()[0].nodes_mut() {
                node.stop().await;
                node.start_again().await.expect("it starts again");
            }
        };
        let row = trial
            .blow("all restarted, one after another", 1, upgrade)
            .await;
        row.is_served(NODE_LIMIT);
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
        trial.two_nodes().await;
    });
}
