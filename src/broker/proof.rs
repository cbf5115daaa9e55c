//! Proof that the consumers are what this instance believes: every few seconds the brokers'
//! management API is asked who consumes the command queues, with which tag and priority, and how
//! the federation links stand.
//!
//! A consumer that the serving broker does not list, or lists with another priority, at three looks
//! in a row, is registered anew ([`Input::ConsumerUnlisted`]). An API that cannot be asked proves
//! nothing and changes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::lock;
use super::management::{ManagementError, segment};
use super::topology::{self, BrokerPlan, LinkState, Topology, TopologyInput};
use crate::engine::{Input, View};
use crate::network::{BrokerProof, Listed, Network, Registered};

/// Pause between two looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Looks in a row that must miss a consumer before it counts as missing. A broker's list is behind
/// by its `collect_statistics_interval`: 5 s unless it says otherwise.
const MISSES: u32 = 3;
/// The same after registering anew has been in vain, doubled each time, up to this: a broker whose
/// list is further behind must not make an instance register for ever.
const MISSES_MAX: u32 = 24;
/// Every how many looks policies and upstreams are compared with the plan: once a minute.
const COMPARED_EVERY: u64 = 12;
/// Differences that are named.
const NAMED: usize = 3;
/// Consumers of one queue that are shown.
const CONSUMERS: usize = 100;

/// Asks the management APIs; one a process.
#[derive(Debug)]
pub struct Prover {
    topology: Arc<Mutex<Arc<Topology>>>,
    queues: Vec<String>,
    /// How many queues a group has, by its name.
    groups: BTreeMap<String, usize>,
    network: watch::Sender<Arc<Network>>,
    looks: u64,
    /// By consumer tag.
    misses: BTreeMap<String, u32>,
    /// Misses that it takes, by group, where it is not [`MISSES`].
    patience: BTreeMap<String, u32>,
}

impl Prover {
    /// A prover and what it publishes. Nothing is asked yet. `groups`: how many queues each has.
    #[must_use]
    pub fn new(
        input: &TopologyInput,
        groups: BTreeMap<String, usize>,
    ) -> (Self, watch::Receiver<Arc<Network>>) {
        let (network, seen) = watch::channel(Arc::new(Network::default()));
        let prover = Self {
            topology: Arc::new(Mutex::new(Arc::new(Topology::of(input)))),
            queues: input.command_queues.clone(),
            groups,
            network,
            looks: 0,
            misses: BTreeMap::new(),
            patience: BTreeMap::new(),
        };
        (prover, seen)
    }

    /// Gives the running prover other credentials for the same brokers.
    pub fn renewal(&self) -> impl Fn(&TopologyInput) + Send + Sync + use<> {
        let topology = Arc::clone(&self.topology);
        move |input| {
            let new = Arc::new(Topology::of(input));
            *lock(&topology) = new;
        }
    }

    /// Looks again and again, as long as the engine is there.
    pub async fn run(mut self, views: watch::Receiver<Arc<View>>, inputs: mpsc::Sender<Input>) {
        while !inputs.is_closed() {
            tokio::time::sleep(INTERVAL).await;
            let network = self.look().await;
            let view = Arc::clone(&views.borrow());
            for (tag, reason) in self.missing(&view, &network) {
                let input = Input::ConsumerUnlisted { tag, reason };
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
            crate::telemetry::network(&network);
            self.network.send_replace(Arc::new(network));
        }
    }

    async fn look(&mut self) -> Network {
        let compared = self.looks.is_multiple_of(COMPARED_EVERY);
        self.looks += 1;
        let mut brokers = Vec::new();
        let topology = Arc::clone(&lock(&self.topology));
        for (at, plan) in topology.brokers.iter().enumerate() {
            let letters = format!("{}.dead-letter", topology.cluster_name);
            let mut proof = ask(plan, &self.queues).await;
            if proof.problem.is_none() {
                proof.dead_letters = depth(plan, &letters).await;
            }
            let known = self.known_unplanned(at);
            let look = compared || known.is_some();
            proof.unplanned = match look && proof.problem.is_none() {
                true => unplanned(plan).await,
                false => known.clone(),
            };
            if proof.unplanned != known {
                match &proof.unplanned {
                    Some(words) => tracing::warn!("{words}"),
                    None => tracing::info!(broker = proof.broker, "policies are as planned"),
                }
            }
            brokers.push(proof);
        }
        Network {
            brokers,
            looks: self.looks,
        }
    }

    /// What was unplanned on a broker at the last look.
    fn known_unplanned(&self, broker: usize) -> Option<String> {
        let network = self.network.borrow();
        network.brokers.get(broker)?.unplanned.clone()
    }

    /// Confirmed consumers that their broker has missed often enough, each with the reason.
    fn missing(&mut self, view: &View, network: &Network) -> Vec<(String, String)> {
        let mut misses = BTreeMap::new();
        let mut missing = Vec::new();
        for group in &view.groups {
            let (Some(tag), Some(priority), Some(broker)) =
                (&group.tag, group.priority, &group.broker)
            else {
                continue;
            };
            let proof = network.brokers.iter().find(|proof| proof.broker == *broker);
            let Some(proof) = proof.filter(|_| group.consuming) else {
                continue;
            };
            let queues = self.groups.get(&group.name).copied().unwrap_or(1);
            let listed = proof.lists(tag, priority, queues);
            crate::telemetry::consumer_proof(&group.name, listed.word());
            if listed == Listed::Yes {
                self.patience.remove(&group.name);
            }
            let Listed::No(reason) = listed else {
                continue;
            };
            let count = self.misses.get(tag).copied().unwrap_or_default() + 1;
            let patience = self.patience.get(&group.name).copied().unwrap_or(MISSES);
            if count >= patience {
                let more = (2 * patience).min(MISSES_MAX);
                self.patience.insert(group.name.clone(), more);
                missing.push((tag.clone(), reason));
            } else {
                misses.insert(tag.clone(), count);
            }
        }
        self.misses = misses;
        missing
    }
}

/// One look at one broker.
pub async fn ask(plan: &BrokerPlan, queues: &[String]) -> BrokerProof {
    let mut proof = BrokerProof {
        broker: plan.broker.label.clone(),
        page: first_address(&plan.broker.management_url),
        links_planned: plan.links.len(),
        ..BrokerProof::default()
    };
    match consumers(plan, queues).await {
        Ok((consumers, queued)) => {
            proof.consumers = consumers;
            proof.queued = Some(queued);
        }
        Err(error) => {
            proof.problem = Some(error.to_string());
            return proof;
        }
    }
    let links = topology::links_of(plan).await.unwrap_or_default();
    proof.links_running = links.iter().filter(|link| link.is_running()).count();
    let down = links.iter().filter(|link| !link.is_running());
    proof.links_down = down.map(link_words).collect();
    proof
}

/// What is missing on a broker, and what to do about it.
async fn unplanned(plan: &BrokerPlan) -> Option<String> {
    let found = match topology::missing(plan).await {
        Ok(found) => found,
        // Policies are for users with more rights; queues and exchanges are for all.
        Err(_) => topology::undeclared(plan).await.ok()?,
    };
    // Brokers may reach each other by other addresses than the instances do; whether the links run
    // is looked at by itself.
    let address = |finding: &topology::Finding| {
        finding.object.starts_with("federation upstream") && finding.problem == "differs in uri"
    };
    let grave = found
        .iter()
        .filter(|finding| finding.grave && !address(finding));
    let grave: Vec<_> = grave.collect();
    let first = grave.first()?;
    let named = grave.iter().take(NAMED);
    let named: Vec<String> = named
        .map(|finding| format!("{} {}", finding.object, finding.problem))
        .collect();
    let more = match grave.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let words = format!(
        "broker {} is not set up as planned: {}{more}; {}, `tandem doctor` tells all",
        first.broker,
        named.join(", "),
        first.cure
    );
    Some(words.chars().take(500).collect())
}

fn link_words(link: &LinkState) -> String {
    let why = link.error.as_deref().unwrap_or_default();
    let words = format!(
        "{} from {}: {} {why}",
        link.object, link.upstream, link.status
    );
    words.trim_end().chars().take(200).collect()
}

async fn consumers(
    plan: &BrokerPlan,
    queues: &[String],
) -> Result<(Vec<Registered>, u64), ManagementError> {
    let broker = &plan.broker;
    let client = broker.client()?;
    let mut all = Vec::new();
    let mut queued = 0;
    for queue in queues {
        let path = format!("queues/{}/{}", segment(&plan.vhost), segment(queue));
        // A queue that does not exist has no consumers.
        let live = client.get(&path).await?.unwrap_or_default();
        all.extend(registered(queue, &live));
        queued += live["messages"].as_u64().unwrap_or_default();
    }
    Ok((all, queued))
}

/// Messages in a queue; `None` where nobody tells.
async fn depth(plan: &BrokerPlan, queue: &str) -> Option<u64> {
    let client = plan.broker.client().ok()?;
    let path = format!("queues/{}/{}", segment(&plan.vhost), segment(queue));
    client.get(&path).await.ok()??["messages"].as_u64()
}

/// Where people go: of a cluster to its first node.
fn first_address(list: &str) -> String {
    list.split(',').next().unwrap_or_default().trim().to_owned()
}

/// Consumers of a queue from the management API's description of it.
fn registered(queue: &str, live: &Value) -> Vec<Registered> {
    let list = live["consumer_details"].as_array();
    let list = list.map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter(|consumer| {
            let tag = consumer["consumer_tag"].as_str().unwrap_or_default();
            !tag.starts_with("federation-link-")
        })
        .take(CONSUMERS)
        .map(|consumer| Registered {
            queue: queue.to_owned(),
            tag: consumer["consumer_tag"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            priority: consumer["arguments"]["x-priority"].as_i64().unwrap_or(0),
            prefetch: consumer["prefetch_count"].as_u64(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::view;
    use serde_json::json;

    const TAG: &str = "gc-1.agents.leader.1";

    fn prover() -> Prover {
        prover_of(BTreeMap::new())
    }

    fn prover_of(groups: BTreeMap<String, usize>) -> Prover {
        let input = TopologyInput {
            cluster_name: "tandem".to_owned(),
            queue_type: Default::default(),
            command_queues: vec!["Connector1".to_owned()],
            hash: None,
            command_max_age: Duration::from_secs(30),
            brokers: Vec::new(),
            federation_uris: BTreeMap::new(),
            federation_tls: Default::default(),
        };
        Prover::new(&input, groups).0
    }

    fn network(list: Value, problem: Option<&str>) -> Network {
        let queue = json!({ "consumer_details": list });
        Network {
            brokers: vec![BrokerProof {
                broker: "127.0.0.1:5672".to_owned(),
                problem: problem.map(str::to_owned),
                consumers: registered("Connector1", &queue),
                ..BrokerProof::default()
            }],
            looks: 1,
        }
    }

    fn entry(tag: &str, priority: i64) -> Value {
        json!({"consumer_tag": tag, "arguments": {"x-priority": priority}, "prefetch_count": 1000})
    }

    /// Looks until a consumer is called missing.
    fn looks(prover: &mut Prover, network: &Network) -> usize {
        let mut looks = 1;
        while prover.missing(&view(), network).is_empty() {
            looks += 1;
            assert!(looks < 100);
        }
        looks
    }

    #[test]
    fn registering_in_vain_becomes_rare() {
        let mut prover = prover();
        let none = network(json!([]), None);
        let counts: Vec<usize> = (0..6).map(|_| looks(&mut prover, &none)).collect();
        assert_eq!(counts, [3, 6, 12, 24, 24, 24]);
        let good = network(json!([entry(TAG, 127)]), None);
        assert!(prover.missing(&view(), &good).is_empty());
        assert_eq!(looks(&mut prover, &none), 3);
    }

    #[test]
    fn a_consumer_is_missed_only_the_third_time() {
        let mut prover = prover();
        let none = network(
            json!([entry("federation-link-x", -1), entry("gc-9.x", 1)]),
            None,
        );
        assert!(prover.missing(&view(), &none).is_empty());
        assert!(prover.missing(&view(), &none).is_empty());
        let missing = prover.missing(&view(), &none);
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].0, TAG);
        assert!(missing[0].1.contains("does not list it"), "{missing:?}");
        // It starts anew after that.
        assert!(prover.missing(&view(), &none).is_empty());
    }

    #[test]
    fn a_consumer_of_a_further_queue_is_missed_too() {
        let mut prover = prover_of(BTreeMap::from([("agents".to_owned(), 2)]));
        let [first, second] = [TAG.to_owned(), format!("{TAG}.1")];
        for (list, said) in [
            (
                json!([entry(&first, 127)]),
                "does not list gc-1.agents.leader.1.1",
            ),
            (
                json!([entry(&first, 127), entry(&second, 3)]),
                "lists gc-1.agents.leader.1.1 with priority 3",
            ),
        ] {
            let found = network(list, None);
            let looks = (0..MISSES_MAX).map(|_| prover.missing(&view(), &found));
            let missing: Vec<_> = looks.flatten().collect();
            assert_eq!(missing[0].0, TAG, "all of it is registered anew");
            assert!(missing[0].1.contains(said), "{missing:?}");
        }
        let good = network(json!([entry(&second, 127), entry(&first, 127)]), None);
        for _ in 0..2 * MISSES_MAX {
            assert!(prover.missing(&view(), &good).is_empty());
        }
    }

    #[test]
    fn one_good_look_between_two_bad_ones_is_enough() {
        let mut prover = prover();
        let none = network(json!([]), None);
        let good = network(json!([entry(TAG, 127)]), None);
        for _ in 0..3 {
            assert!(prover.missing(&view(), &none).is_empty());
            assert!(prover.missing(&view(), &good).is_empty());
        }
    }

    #[test]
    fn another_priority_counts_and_an_api_that_is_down_does_not() {
        let mut prover = prover();
        let other = network(json!([entry(TAG, 100)]), None);
        prover.missing(&view(), &other);
        prover.missing(&view(), &other);
        let missing = prover.missing(&view(), &other);
        assert!(
            missing[0].1.contains("priority 100 instead of 127"),
            "{missing:?}"
        );
        let down = network(json!([]), Some("unreachable"));
        for _ in 0..4 {
            assert!(prover.missing(&view(), &down).is_empty());
        }
    }
}
