//! One broker of a network: a RabbitMQ node that stands alone, or several that are one cluster.
//! The nodes of a cluster share name, cookie and port mapper; each can be killed, frozen and
//! started again, and any of them cut off from the others while clients still reach all.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};

use super::rabbit::{PortMapper, RabbitNode, RabbitOptions};
use super::{LabError, Relay};

/// What a node that refuses another one takes for their cookie: something else than the other
/// does, or they would agree again.
const WRONG_COOKIE: &str = "list_to_atom(\"not-the-cookie-of-\" ++ atom_to_list(node()))";

/// The nodes of one broker. Dropping it kills them and deletes their files.
#[derive(Debug)]
pub struct RabbitCluster {
    nodes: Vec<RabbitNode>,
}

/// How long one boot of a node may take before it is made again.
const BOOT_LIMIT: Duration = Duration::from_secs(50);
/// So often a boot is made again.
const BOOTS: usize = 3;

/// Starts a node as a service manager would: again where it ends. In RabbitMQ 4.0 the federation
/// plugin's supervisor, which the nodes share, fails or hangs now and then where one of them boots
/// while another one does.
async fn boot(node: &mut RabbitNode) -> Result<(), LabError> {
    for _ in 0..BOOTS {
        node.launch().await?;
        if node.wait_ready(BOOT_LIMIT).await.is_ok() {
            return Ok(());
        }
        node.kill();
    }
    node.start_again().await
}

impl RabbitCluster {
    /// Starts so many nodes with these options, at least one, and waits until each serves AMQP
    /// and the management API and knows all others.
    ///
    /// # Errors
    /// As [`RabbitNode::start`].
    pub async fn start(options: RabbitOptions, count: usize) -> Result<Self, LabError> {
        if count <= 1 {
            let nodes = vec![RabbitNode::start(options).await?];
            return Ok(Self { nodes });
        }
        let mapper = Arc::new(PortMapper::reserve()?);
        let mut nodes = (0..count)
            .map(|_| RabbitNode::prepare(options.clone(), &mapper))
            .collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = nodes.iter().map(RabbitNode::erlang_name).collect();
        for node in &nodes {
            node.found_with(&names)?;
        }
        try_join_all(nodes.iter_mut().map(RabbitNode::start_again)).await?;
        Ok(Self { nodes })
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> &[RabbitNode] {
        &self.nodes
    }

    /// All nodes, to kill, freeze or start them again.
    pub fn nodes_mut(&mut self) -> &mut [RabbitNode] {
        &mut self.nodes
    }

    /// AMQP URI with the addresses of all nodes, beginning with node `first`.
    pub fn amqp_uri_from(&self, first: usize) -> String {
        let places =
            (0..self.nodes.len()).map(|n| self.nodes[(first + n) % self.nodes.len()].place());
        several_addresses(places)
    }

    /// Base URLs of the management APIs of all nodes, with commas between them.
    pub fn management_urls(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(RabbitNode::management_url).collect();
        urls.join(",")
    }

    /// `host:port` of all AMQP listeners, with commas between them, in the alphabet's order: as an
    /// instance's configuration names the broker.
    pub fn label(&self) -> String {
        let mut places: Vec<String> = self.nodes.iter().map(|n| n.place().to_string()).collect();
        places.sort();
        places.join(",")
    }

    /// A relay to each node.
    pub(super) async fn relays(&self) -> Result<Vec<Relay>, LabError> {
        try_join_all(self.nodes.iter().map(|node| Relay::start(node.place()))).await
    }

    /// Starts all nodes again that do not run, at the same time: none of a cluster gets ready
    /// before those that it waits for. A boot that fails or hangs is made again.
    ///
    /// # Errors
    /// As [`RabbitNode::start`].
    pub async fn start_again(&mut self) -> Result<(), LabError> {
        try_join_all(self.nodes.iter_mut().map(boot)).await?;
        Ok(())
    }

    /// Kills all nodes at the same time.
    pub fn kill(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
    }

    /// Cuts the nodes of these indexes off from the others: each side refuses the other, as
    /// behind a firewall that rejects. Clients still reach every node.
    ///
    /// # Errors
    /// A node does not run.
    pub async fn partition(&self, island: &[usize]) -> Result<(), LabError> {
        self.between(island, |other| {
            format!(
                "erlang:set_cookie('{other}', {WRONG_COOKIE}), erlang:disconnect_node('{other}')"
            )
        })
        .await
    }

    /// Ends what [`RabbitCluster::partition`] did. Whether the nodes join again by themselves is
    /// a matter of `cluster_partition_handling`.
    ///
    /// # Errors
    /// A node does not run.
    pub async fn heal_partition(&self) -> Result<(), LabError> {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.between(&all, |other| {
            format!("erlang:set_cookie('{other}', erlang:get_cookie())")
        })
        .await
    }

    /// Says something about every node across the line to every node; both sides at once. Nodes
    /// that are all in the island are all across.
    async fn between(
        &self,
        island: &[usize],
        words: impl Fn(&str) -> String,
    ) -> Result<(), LabError> {
        let whole = island.len() == self.nodes.len();
        let across =
            |a: usize, b: usize| a != b && (whole || island.contains(&a) != island.contains(&b));
        let told = self.nodes.iter().enumerate().map(|(at, node)| {
            let others = (0..self.nodes.len()).filter(|other| across(at, *other));
            let said: Vec<String> = others
                .map(|other| words(&self.nodes[other].erlang_name()))
                .collect();
            async move {
                match said.is_empty() {
                    true => Ok(()),
                    false => node
                        .evaluate(&format!("{}.", said.join(", ")))
                        .await
                        .map(drop),
                }
            }
        });
        join_all(told).await.into_iter().collect()
    }
}

/// One AMQP URI with several addresses.
pub(super) fn several_addresses(places: impl Iterator<Item = std::net::SocketAddr>) -> String {
    let places: Vec<String> = places.map(|place| place.to_string()).collect();
    format!("amqp://guest:guest@{}/%2f", places.join(","))
}
