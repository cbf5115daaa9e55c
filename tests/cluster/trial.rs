//! A pair between a cluster of three nodes and a broker of one, the blows it gets, and what clients
//! of either site see of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;
use tandem::lab::rabbit::server_version;
use tandem::lab::{BrokerNetwork, NetworkOptions};
use tandem::model::brokers::{KHEPRI_SINCE, at_least};

use crate::support::load::{Account, Load};
use crate::support::site::tandem_until;
use crate::support::{Crew, Desk, Pair, PairOptions, Shared, Watch, silence, until, wait_for};

/// Agents who make a call each, some for every blow; and those whose state changes.
pub const CREW: Crew = Crew::new(140, 20, 0);
/// Those of them whose client is at site 1.
const NEAR: usize = 10;
/// Calls in one blow at each site: the first half before it.
const CALLERS: usize = 10;
/// Bounds of a first answer that only a failure passes, on a machine that is short of CPU: one
/// node of three is lost, and a whole site. What it takes is in docs/benchmarks.md.
pub const NODE_LIMIT: Duration = Duration::from_secs(10);
pub const SITE_LIMIT: Duration = Duration::from_secs(20);
/// The longest that clients of site 2 may be without an answer where site 1 has lost its majority: what
/// is aimed at, also on a machine that is short of CPU.
pub const PROMPT: Duration = Duration::from_secs(5);
/// A first answer that is worth a look into the log.
const SLOW: Duration = Duration::from_secs(1);
/// Nodes of site 1.
pub const NODES: usize = 3;
/// Commands after each blow: two seconds' worth.
const AFTER: usize = 80;
const BEFORE: usize = 20;
/// How long a node is cut off.
const CUT: Duration = Duration::from_secs(5);

/// What one blow did, as a client and the operator see it.
#[derive(Debug)]
pub struct Row {
    what: String,
    /// Clients of site 1, and of site 2 only.
    near: Service,
    far: Service,
    commands: usize,
    lost: usize,
    doubled: usize,
    in_doubt: usize,
    dropped: f64,
    /// Changes of role, and of the broker that serves.
    roles: usize,
    moves: usize,
    lost_links: usize,
    second_leaders: Vec<String>,
}

/// What the clients of a site waited.
#[derive(Debug)]
struct Service {
    first: Option<Duration>,
    gap: Duration,
    /// The longest that a single command waited.
    wait: Duration,
}

impl Service {
    fn of(account: &Account, struck: Instant) -> Self {
        Self {
            first: account.first_answer(struck),
            gap: account.longest_gap(),
            wait: account
                .longest_wait()
                .map_or(Duration::ZERO, |(wait, _)| wait),
        }
    }

    fn text(&self) -> String {
        let first = self.first.map_or(0, |first| first.as_millis());
        format!("{first} | {}", self.gap.as_millis())
    }

    /// Worth a look into the log.
    fn is_slow(&self) -> bool {
        self.first.is_none_or(|first| first > SLOW) || self.gap > SLOW || self.wait > SITE_LIMIT
    }
}

impl Row {
    fn print(&self) {
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {}, {} |",
            self.what,
            self.near.text(),
            self.far.text(),
            self.commands,
            self.lost,
            self.doubled,
            self.in_doubt,
            self.dropped,
            self.second_leaders.len(),
            self.roles,
            self.moves,
            self.lost_links,
            self.near.wait.as_millis(),
            self.far.wait.as_millis()
        );
    }

    /// Nothing is lost, doubled or dropped, nobody leads beside another, and the first answer came
    /// in time.
    pub fn is_good(&self, limit: Duration) {
        self.is_kept();
        assert!(self.second_leaders.is_empty(), "{self:#?}");
        for site in [&self.near, &self.far] {
            assert!(site.first.is_some_and(|first| first <= limit), "{self:#?}");
        }
    }

    /// Clients of site 2 are answered again within this, and never wait longer for any answer.
    pub fn is_prompt_at_site_2(&self, limit: Duration) {
        assert!(
            self.far.first.is_some_and(|first| first <= limit),
            "{self:#?}"
        );
        assert!(self.far.gap <= limit, "{self:#?}");
    }

    /// Nothing is lost, doubled or dropped.
    pub fn is_kept(&self) {
        assert_eq!((self.lost, self.doubled), (0, 0), "{self:#?}");
        assert!(self.dropped == 0.0, "{self:#?}");
    }
}

const HEADING: &str = "| setup, blow | site 1: first answer | longest gap | site 2: first answer | \
                       longest gap | commands | lost | doubled | in doubt | events dropped | \
                       second leader | roles | moves | links lost | longest wait of a command, each site |";

/// Whether the server is one that this file is about; says so where it is not.
pub async fn has_clusters() -> bool {
    let version = server_version().await.expect("a server");
    let new = !version.starts_with("3.");
    if !new {
        eprintln!("NOT run: RabbitMQ {version} is before 4.0 (scripts/test --rabbitmq 4)");
    }
    new
}

/// Whether the agent's client is at site 1: every other ten callers, and the first of the others.
fn is_near(agent: u32) -> bool {
    match agent.checked_sub(CREW.others.start) {
        Some(at) => (at as usize) < NEAR,
        None => ((agent - CREW.callers.start) as usize / CALLERS).is_multiple_of(2),
    }
}

/// A client at the cluster whose first node is this one.
pub async fn desk_at(shared: &Shared, pair: &Pair, name: &str, node: usize) -> Arc<Desk> {
    let brokers = shared.brokers().brokers();
    let uris = vec![brokers[0].amqp_uri_from(node), brokers[1].amqp_uri_from(0)];
    Arc::new(Desk::open(uris, &pair.cluster, &pair.queue, name).await)
}

/// Setup of a test and what is measured of it.
pub struct Trial<'s> {
    pub shared: &'s mut Shared,
    pub pair: Pair,
    name: &'static str,
    callers: std::vec::IntoIter<u32>,
    desks: usize,
}

impl<'s> Trial<'s> {
    /// Three nodes are site 1, one is site 2. `None` where the server knows no such clusters.
    pub async fn start(
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
        let all = CREW.all();
        let (near, far): (Vec<u32>, Vec<u32>) = all.iter().partition(|agent| is_near(**agent));
        let desk = desk_at(shared, &pair, "desk", 0).await;
        pair.sign_in(&desk, &near).await;
        let desk = pair.desk_at("far-desk", 1).await;
        desk.greet().await;
        pair.sign_in(&desk, &far).await;
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
    pub async fn blow(
        &mut self,
        what: &str,
        client_at: usize,
        blow: impl AsyncFnOnce(&mut BrokerNetwork),
    ) -> Row {
        let pair = &self.pair;
        self.desks += 1;
        let (near, far) = (
            format!("near-{}", self.desks),
            format!("far-{}", self.desks),
        );
        let near = desk_at(self.shared, pair, &near, client_at).await;
        let far = Arc::new(pair.desk_at(&far, 1).await);
        let before = (lost_links(pair), flaps_of(pair), events_dropped(pair).await);
        let watch = self.watch();
        let others: Vec<u32> = CREW.others.clone().collect();
        let loads = [(&near, &others[..NEAR]), (&far, &others[NEAR..])].map(|(desk, others)| {
            let callers = self.callers.by_ref().take(CALLERS).collect();
            Load::start(desk.clone(), callers, others.to_vec())
        });
        join_all(loads.iter().map(|load| load.more(BEFORE))).await;
        let struck = Instant::now();
        blow(self.shared.network_as_it_is()).await;
        join_all(loads.iter().map(|load| load.more(AFTER))).await;
        let [to_near, to_far] = loads;
        let (near, far) = tokio::join!(to_near.finish(&near), to_far.finish(&far));
        // What was under way may come back after a newer command of its agent.
        near.all_succeeded_or(&["IN_DOUBT"]);
        far.all_succeeded_or(&["IN_DOUBT"]);
        let flapped = flaps_of(pair);
        self.mended().await;
        let pair = &self.pair;
        let seen = watch.end().await;
        assert!(
            seen.looks > 0 && (seen.listed > 0 || pair.is_active()),
            "{seen:?}"
        );
        let both = [&near, &far];
        let of_both = |of: &dyn Fn(&Account) -> usize| both.iter().map(|one| of(one)).sum();
        let row = Row {
            what: format!("{}, {what}", self.name),
            near: Service::of(&near, struck),
            far: Service::of(&far, struck),
            commands: of_both(&Account::len),
            lost: of_both(&|account| lost(account, pair)),
            doubled: of_both(&|account| doubled(account, pair)),
            in_doubt: of_both(&Account::in_doubt),
            dropped: events_dropped(pair).await - before.2,
            roles: flapped.0 - before.1.0,
            moves: flapped.1 - before.1.1,
            lost_links: lost_links(pair) - before.0,
            second_leaders: match pair.is_active() {
                // There both lead; that none serves the other's agents is looked at by their number.
                true => Vec::new(),
                false => seen.second_leaders,
            },
        };
        row.print();
        for (site, account) in [(&row.near, &near), (&row.far, &far)] {
            if site.is_slow() {
                silence::tell(pair, self.shared.brokers(), account);
                if let Some((wait, sent)) = account.longest_wait() {
                    let after = sent.saturating_duration_since(struck);
                    println!(
                        "the command that waited longest, {wait:?}, was sent {after:?} after the blow"
                    );
                }
            }
        }
        pair.one_subscription_each(&CREW.all()).await;
        row
    }

    /// Ends the instances; the brokers do nothing for them any more.
    pub async fn end(self) {
        for at in 0..self.shared.brokers().brokers().len() {
            let api = self.pair.manage(at);
            for policy in ["commands", "events", "control", "kept"] {
                let path = format!("policies/%2f/{}.{policy}", self.pair.cluster);
                api.delete(&path).await.expect("a policy is deleted");
            }
        }
    }

    fn watch(&self) -> Watch {
        let brokers = self.shared.brokers().brokers().iter();
        let nodes = brokers.flat_map(|broker| broker.nodes());
        let urls: Vec<String> = nodes.map(|node| node.management_url()).collect();
        Watch::start(&self.pair, &urls)
    }

    /// All nodes run and know each other, and both instances are where they were at first.
    pub async fn mended(&mut self) {
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
    pub async fn head(&self) -> usize {
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
    pub async fn each_node(&mut self, limit: Duration) {
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

    pub async fn kill(&mut self, what: &str, node: usize) -> Row {
        let kill = async |network: &mut BrokerNetwork| {
            network.brokers_mut()[0].nodes_mut()[node].kill();
        };
        self.blow(what, (node + 1) % NODES, kill).await
    }

    /// A node that the others cannot reach for a while; the client at it.
    pub async fn cut_off(&mut self) -> Row {
        let cut = async |network: &mut BrokerNetwork| {
            let cluster = &network.brokers()[0];
            cluster.partition(&[0]).await.expect("a node is cut off");
            tokio::time::sleep(CUT).await;
            cluster.heal_partition().await.expect("it is back");
        };
        self.blow("node 1 cut off from the others for 5 s", 0, cut)
            .await
    }

    /// Two of three, the client at the last: the other site serves, and whoever asks is told why.
    pub async fn two_nodes(&mut self) {
        let config = self.pair.gc1.config.display().to_string();
        let mut said = String::new();
        // From 4.3 on the node that is left neither pauses nor closes anything.
        let version = server_version().await.expect("a server");
        let goes_on = at_least(&version, KHEPRI_SINCE);
        let code = if goes_on { 1 } else { 69 };
        let two = async |network: &mut BrokerNetwork| {
            for node in &mut network.brokers_mut()[0].nodes_mut()[..2] {
                node.kill();
            }
            said = tandem_until(code, &["check", "--online", &config]).await;
        };
        let row = self.blow("two nodes killed", 2, two).await;
        row.is_good(SITE_LIMIT);
        row.is_prompt_at_site_2(PROMPT);
        for node in self.shared.brokers().brokers()[0].nodes() {
            let place = node.place().to_string();
            assert!(said.contains(&place), "{place}: {said}");
        }
        let gone = if goes_on { "of 3 members run" } else { "GONE" };
        assert!(said.contains(gone) && said.contains("majority"), "{said}");
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

pub fn lost_links(pair: &Pair) -> usize {
    pair.gc1.lost_links() + pair.gc2.lost_links()
}

/// How often a member has changed its role, and the broker that serves it.
pub fn flaps_of(pair: &Pair) -> (usize, usize) {
    let logs = [&pair.gc1, &pair.gc2].map(|one| one.log_text());
    let of = |words: &str| {
        let counts = logs.iter().map(|log| log.matches(words).count());
        counts.sum()
    };
    (of("role changed"), of("served by another broker"))
}

pub async fn events_dropped(pair: &Pair) -> f64 {
    pair.gc1.events_dropped().await + pair.gc2.events_dropped().await
}
