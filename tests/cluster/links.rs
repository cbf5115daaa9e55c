//! What federation itself does where a node of a cluster goes, without instances: how long what is
//! published at the other site waits when the node that leads the command queue and runs its link
//! is stopped, drained and stopped, or killed. Measures, and judges nothing but losses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tandem::broker::guard;
use tandem::broker::topology::{self, Topology};
use tandem::lab::{BrokerNetwork, NetworkOptions};
use tandem::model::brokers::QueueType;
use tokio::task::JoinHandle;

use crate::support::pair::management;
use crate::support::{Shared, until, wait_for};
use crate::trial::{NODES, has_clusters};

const QUEUE: &str = "Measured";
/// Time for federation links to come up, and for a message to live.
const LINKS: Duration = Duration::from_secs(60);
const MAX_AGE: Duration = Duration::from_secs(600);
/// Commands before a blow.
const BEFORE: Duration = Duration::from_secs(1);

/// How the node goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// SIGTERM, as a service manager stops it.
    Stopped,
    /// `rabbitmq-upgrade drain` before that.
    Drained,
    /// SIGKILL.
    Killed,
}

/// A cluster and a broker that federate one queue; a consumer at the cluster.
pub struct Links<'s> {
    network: &'s mut BrokerNetwork,
    arrived: Arc<Mutex<BTreeMap<usize, Instant>>>,
    published: usize,
}

impl<'s> Links<'s> {
    /// `None` where the server knows no such clusters.
    pub async fn start(shared: &'s mut Shared) -> Option<Self> {
        if !has_clusters().await {
            return None;
        }
        let options = NetworkOptions::clusters(&[NODES, 1]);
        let network = shared.network_with(options).await;
        let mut input = network.topology_input("links", &[QUEUE], MAX_AGE);
        input.queue_type = QueueType::Quorum;
        let report = topology::apply(&Topology::of(&input), Some(LINKS)).await;
        assert!(report.is_complete(), "{report:?}");
        Some(Self {
            network,
            arrived: Arc::default(),
            published: 0,
        })
    }

    /// The node that runs the queue's link.
    async fn link_node(&self) -> usize {
        let nodes = self.network.brokers()[0].nodes();
        let api = management(&self.network.brokers()[0].management_urls());
        wait_for("the queue's link runs", async || {
            let links = api.get("federation-links").await.ok().flatten()?;
            let mut links = links.as_array()?.iter();
            let link = links.find(|link| link["queue"] == QUEUE && link["status"] == "running")?;
            let name = link["node"].as_str()?;
            nodes.iter().position(|node| node.erlang_name() == name)
        })
        .await
    }

    /// Makes a node lead the queue.
    async fn lead_by(&self, at: usize) {
        let nodes = self.network.brokers()[0].nodes();
        let name = nodes[at].erlang_name();
        let lookup = format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{QUEUE}\">>))"
        );
        let words = format!("{lookup}, rabbit_quorum_queue:transfer_leadership(Q, '{name}').");
        let api = management(&self.network.brokers()[0].management_urls());
        until("the node leads the queue", async || {
            let queue = api.get(&format!("queues/%2f/{QUEUE}")).await;
            let queue = queue.ok().flatten().unwrap_or_default();
            if queue["leader"] == name.as_str() {
                return true;
            }
            let _ = nodes[at].evaluate(&words).await;
            false
        })
        .await;
    }

    async fn consume(&self, at: usize) -> (Connection, JoinHandle<()>) {
        let uri = self.network.brokers()[0].nodes()[at].amqp_uri();
        let (connection, channel) = connect(&uri).await;
        let consumer = channel.basic_consume(
            QUEUE.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer = consumer.await.expect("a consumer");
        let arrived = self.arrived.clone();
        let task = tokio::spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                let text = String::from_utf8_lossy(&delivery.data).into_owned();
                let number = text.parse().expect("a number");
                arrived
                    .lock()
                    .unwrap()
                    .entry(number)
                    .or_insert_with(Instant::now);
                let _ = delivery.acker.ack(BasicAckOptions::default()).await;
            }
        });
        (connection, task)
    }

    /// The node with link and leader goes, comes back `away` later; a message every `pause`. Tells how
    /// long the message waited that waited longest, and whether the node had to be back for it.
    pub async fn blow(&mut self, way: Way, pause: Duration, away: Duration) -> Waited {
        let at = self.link_node().await;
        self.lead_by(at).await;
        let (connection, consumer) = self.consume((at + 1) % NODES).await;
        let first = self.published;
        let uri = self.network.brokers()[1].nodes()[0].amqp_uri();
        let publisher = tokio::spawn(publish(uri, first, pause));
        until("messages arrive", async || {
            self.arrived.lock().unwrap().contains_key(&first)
        })
        .await;
        tokio::time::sleep(BEFORE).await;
        let node = &mut self.network.brokers_mut()[0].nodes_mut()[at];
        let struck = Instant::now();
        match way {
            Way::Stopped => node.stop().await,
            Way::Drained => {
                let drained = node.evaluate("rabbit_maintenance:drain().").await;
                drained.expect("it is drained");
                node.stop().await;
            }
            Way::Killed => node.kill(),
        }
        let gone = struck.elapsed();
        tokio::time::sleep(away).await;
        let back = Instant::now();
        node.start_again().await.expect("it starts again");
        tokio::time::sleep(pause * 2).await;
        publisher.abort();
        let sent = match publisher.await {
            Ok(never) => never,
            Err(_) => SENT.lock().unwrap().clone(),
        };
        self.published = sent.keys().last().map_or(first, |last| last + 1);
        let confirmed: Vec<usize> = sent.keys().copied().collect();
        until("all have arrived", async || {
            let arrived = self.arrived.lock().unwrap();
            confirmed.iter().all(|number| arrived.contains_key(number))
        })
        .await;
        let arrived = self.arrived.lock().unwrap().clone();
        consumer.abort();
        let _ = connection.close(0, "".into()).await;
        let waits = sent.iter().map(|(number, sent)| {
            let came = arrived[number];
            (came.saturating_duration_since(*sent), came)
        });
        let (longest, came) = waits.max().expect("messages");
        Waited {
            gone,
            longest,
            messages: sent.len(),
            after_return: came > back,
        }
    }
}

/// What one blow cost.
#[derive(Debug)]
pub struct Waited {
    pub gone: Duration,
    pub longest: Duration,
    pub messages: usize,
    pub after_return: bool,
}

static SENT: Mutex<BTreeMap<usize, Instant>> = Mutex::new(BTreeMap::new());

async fn connect(uri: &str) -> (Connection, Channel) {
    let properties = ConnectionProperties::default();
    let connection = guard::connect(uri.parse().unwrap(), properties).await;
    let connection = connection.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

/// Publishes numbers, and notes when each was confirmed, until it is ended.
async fn publish(uri: String, first: usize, pause: Duration) -> BTreeMap<usize, Instant> {
    SENT.lock().unwrap().clear();
    let (_connection, channel) = connect(&uri).await;
    let confirm = channel.confirm_select(ConfirmSelectOptions::default());
    confirm.await.expect("confirms");
    for number in first.. {
        let text = number.to_string();
        let sent = Instant::now();
        let confirm = channel.basic_publish(
            "".into(),
            QUEUE.into(),
            BasicPublishOptions::default(),
            text.as_bytes(),
            BasicProperties::default(),
        );
        let confirm = confirm.await.expect("it is sent").await;
        confirm.expect("it is confirmed");
        SENT.lock().unwrap().insert(number, sent);
        tokio::time::sleep(pause).await;
    }
    BTreeMap::new()
}
