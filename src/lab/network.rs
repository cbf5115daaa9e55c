//! A broker network on this machine: nodes that start in parallel, and a relay for each
//! direction of each federation link, so that links can be cut while clients stay connected.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::try_join_all;

use super::relay::Relay;
use super::{LabError, RabbitNode, RabbitOptions};
use crate::broker::topology::{TopologyBroker, TopologyInput};

/// What a network consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOptions {
    /// One node each, named here.
    pub nodes: Vec<RabbitOptions>,
}

impl NetworkOptions {
    /// `count` nodes named `site-1`, `site-2`, …
    pub fn sites(count: usize) -> Self {
        Self {
            nodes: (1..=count)
                .map(|n| RabbitOptions::named(&format!("site-{n}")))
                .collect(),
        }
    }
}

/// Nodes and the relays between them. No topology is set yet: see
/// [`BrokerNetwork::topology_input`].
#[derive(Debug)]
pub struct BrokerNetwork {
    nodes: Vec<RabbitNode>,
    /// Relay by which node `.0` reaches its upstream `.1`.
    relays: BTreeMap<(usize, usize), Relay>,
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
        let nodes = try_join_all(options.nodes.into_iter().map(RabbitNode::start)).await?;
        let mut relays = BTreeMap::new();
        for from in 0..nodes.len() {
            for (to, upstream) in nodes.iter().enumerate() {
                if from != to {
                    let target = SocketAddr::from(([127, 0, 0, 1], upstream.amqp_port()));
                    relays.insert((from, to), Relay::start(target).await?);
                }
            }
        }
        Ok(Self { nodes, relays })
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> &[RabbitNode] {
        &self.nodes
    }

    /// The node with this index, to kill, freeze or start it again. `None` where there is none.
    pub fn node(&mut self, index: usize) -> Option<&mut RabbitNode> {
        self.nodes.get_mut(index)
    }

    /// The relay by which node `from` reaches its upstream `to`.
    pub fn relay(&self, from: usize, to: usize) -> Option<&Relay> {
        self.relays.get(&(from, to))
    }

    /// Cuts all federation links, in both directions.
    pub async fn cut_link(&self) {
        for relay in self.relays.values() {
            relay.cut().await;
        }
    }

    /// All federation links stay connected and carry nothing any more.
    pub async fn black_hole_link(&self) {
        for relay in self.relays.values() {
            relay.black_hole(None).await;
        }
    }

    /// Heals all federation links.
    pub async fn heal_link(&self) {
        for relay in self.relays.values() {
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

    /// The AMQP URIs of all nodes, beginning with node `first`: the broker list of a site.
    pub fn uris_from(&self, first: usize) -> Vec<String> {
        let count = self.nodes.len();
        (0..count)
            .map(|i| self.nodes[(first + i) % count].amqp_uri())
            .collect()
    }

    /// URIs of the links through the relays: entry `(a, b)` is how broker `a` reaches broker `b`.
    pub fn federation_uris(&self) -> BTreeMap<(usize, usize), String> {
        self.relays
            .iter()
            .map(|(&pair, relay)| (pair, format!("amqp://guest:guest@{}/%2f", relay.address())))
            .collect()
    }

    /// What the topology of this network follows from, its links through the relays.
    pub fn topology_input(
        &self,
        cluster_name: &str,
        command_queues: &[&str],
        command_max_age: Duration,
    ) -> TopologyInput {
        let broker = |node: &RabbitNode| TopologyBroker {
            // As the configuration of an instance names it.
            label: format!("127.0.0.1:{}", node.amqp_port()),
            amqp_uri: node.amqp_uri(),
            management_url: node.management_url(),
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            tls: Default::default(),
        };
        TopologyInput {
            cluster_name: cluster_name.to_owned(),
            queue_type: Default::default(),
            command_queues: command_queues.iter().map(|q| (*q).to_owned()).collect(),
            command_max_age,
            brokers: self.nodes.iter().map(broker).collect(),
            federation_uris: self.federation_uris(),
        }
    }
}
