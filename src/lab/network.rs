//! A broker network on this machine: brokers that start in parallel, each a node or a cluster of
//! several, and relays for each direction of each federation link, so that links can be cut while
//! clients stay connected.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;

use super::cluster::{RabbitCluster, several_addresses};
use super::relay::Relay;
use super::{LabError, RabbitNode, RabbitOptions};
use crate::broker::topology::{FederationTls, TopologyBroker, TopologyInput};

/// What a network consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOptions {
    /// One broker each, named here.
    pub nodes: Vec<RabbitOptions>,
    /// How many nodes each broker has, in the same order; one where nothing is said.
    pub sizes: Vec<usize>,
}

impl NetworkOptions {
    /// `count` nodes named `site-1`, `site-2`, …
    pub fn sites(count: usize) -> Self {
        Self {
            nodes: (1..=count)
                .map(|n| RabbitOptions::named(&format!("site-{n}")))
                .collect(),
            sizes: Vec::new(),
        }
    }

    /// The same with clusters of so many nodes.
    pub fn clusters(sizes: &[usize]) -> Self {
        Self {
            sizes: sizes.to_vec(),
            ..Self::sites(sizes.len())
        }
    }
}

/// Brokers and the relays between them. No topology is set yet: see
/// [`BrokerNetwork::topology_input`].
#[derive(Debug)]
pub struct BrokerNetwork {
    brokers: Vec<RabbitCluster>,
    /// Relays by which broker `.0` reaches its upstream `.1`, one for each node of that.
    relays: BTreeMap<(usize, usize), Vec<Relay>>,
}

impl BrokerNetwork {
    /// Starts `count` nodes and all relays between them.
    ///
    /// # Errors
    /// A node or relay could not be started; what had started is ended.
    pub async fn start(count: usize) -> Result<Self, LabError> {
        Self::start_with(NetworkOptions::sites(count)).await
    }

    /// Starts the nodes that the options name.
    ///
    /// # Errors
    /// As [`BrokerNetwork::start`].
    pub async fn start_with(options: NetworkOptions) -> Result<Self, LabError> {
        let sizes = options.sizes.into_iter().chain(std::iter::repeat(1));
        let starts = options.nodes.into_iter().zip(sizes);
        let starts = starts.map(|(node, size)| RabbitCluster::start(node, size));
        let brokers = try_join_all(starts).await?;
        let mut relays = BTreeMap::new();
        for from in 0..brokers.len() {
            for (to, upstream) in brokers.iter().enumerate() {
                if from != to {
                    relays.insert((from, to), upstream.relays().await?);
                }
            }
        }
        Ok(Self { brokers, relays })
    }

    /// All brokers, in order.
    pub fn brokers(&self) -> &[RabbitCluster] {
        &self.brokers
    }

    /// All brokers, to do something to their nodes.
    pub fn brokers_mut(&mut self) -> &mut [RabbitCluster] {
        &mut self.brokers
    }

    /// The first node of each broker, in order: all nodes where none is a cluster.
    pub fn nodes(&self) -> Vec<&RabbitNode> {
        self.brokers
            .iter()
            .flat_map(|b| b.nodes().first())
            .collect()
    }

    /// The first node of the broker with this index, to kill, freeze or start it again. `None`
    /// where there is none.
    pub fn node(&mut self, index: usize) -> Option<&mut RabbitNode> {
        self.brokers.get_mut(index)?.nodes_mut().first_mut()
    }

    /// The relay by which broker `from` reaches its upstream `to`, the first node of that.
    pub fn relay(&self, from: usize, to: usize) -> Option<&Relay> {
        self.relays.get(&(from, to))?.first()
    }

    /// Cuts all federation links, in both directions.
    pub async fn cut_link(&self) {
        for relay in self.relays.values().flatten() {
            relay.cut().await;
        }
    }

    /// All federation links stay connected and carry nothing any more.
    pub async fn black_hole_link(&self) {
        for relay in self.relays.values().flatten() {
            relay.black_hole(None).await;
        }
    }

    /// Heals all federation links.
    pub async fn heal_link(&self) {
        for relay in self.relays.values().flatten() {
            relay.heal().await;
        }
    }

    /// Cuts and heals all federation links as often as said, each time for as long as said.
    pub async fn flap_link(&self, times: u32, each: Duration) {
        for _ in 0..times {
            self.cut_link().await;
            tokio::time::sleep(each).await;
            self.heal_link().await;
            tokio::time::sleep(each).await;
        }
    }

    /// The AMQP URIs of all brokers, beginning with broker `first`: the broker list of a site.
    pub fn uris_from(&self, first: usize) -> Vec<String> {
        let count = self.brokers.len();
        (0..count)
            .map(|i| self.brokers[(first + i) % count].amqp_uri_from(0))
            .collect()
    }

    /// URIs of the links through the relays: entry `(a, b)` is how broker `a` reaches broker `b`.
    pub fn federation_uris(&self) -> BTreeMap<(usize, usize), String> {
        self.relays
            .iter()
            .map(|(&pair, relays)| (pair, several_addresses(relays.iter().map(Relay::address))))
            .collect()
    }

    /// What the topology of this network follows from, its links through the relays.
    pub fn topology_input(
        &self,
        cluster_name: &str,
        command_queues: &[&str],
        command_max_age: Duration,
    ) -> TopologyInput {
        let broker = |broker: &RabbitCluster| TopologyBroker {
            label: broker.label(),
            amqp_uri: broker.amqp_uri_from(0),
            management_url: broker.management_urls(),
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            tls: Default::default(),
        };
        TopologyInput {
            cluster_name: cluster_name.to_owned(),
            queue_type: Default::default(),
            command_queues: command_queues.iter().map(|q| (*q).to_owned()).collect(),
            hash: None,
            command_max_age,
            brokers: self.brokers.iter().map(broker).collect(),
            federation_uris: self.federation_uris(),
            federation_tls: FederationTls::default(),
        }
    }
}
