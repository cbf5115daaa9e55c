//! Real messages through the federation links, timed: what `tandem doctor` sends.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer};

use super::classify::Problem;
use super::connect::{self, Conn, Endpoint, Node, rpc, within};
use super::encode::short;
use super::{BrokerConfig, BrokerError};
use crate::model::brokers::not_one_cluster;
use crate::net::dial;

/// How long a probe may be under way.
const TRAVEL: Duration = Duration::from_secs(5);
/// A probe is sent again after this: a new binding takes a moment to reach the other broker.
const AGAIN: Duration = Duration::from_millis(200);
/// Probes expire by themselves, milliseconds.
const EXPIRY: &str = "5000";

/// One federated exchange in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    /// Exchange.
    pub exchange: String,
    /// Broker that the message was given to.
    pub from: String,
    /// Broker on which it was received.
    pub to: String,
    /// How long the message that arrived was under way, or why none did.
    pub result: Result<Duration, String>,
}

/// A connection, or why there is none.
type Opened = Result<Conn, String>;

/// An address of a broker that cannot be used beside the one that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// `host:port`.
    pub node: String,
    /// Why.
    pub why: String,
    /// It is reached, and another broker's.
    pub foreign: bool,
}

/// What trying all addresses of a broker has given.
struct Reached {
    opened: Opened,
    /// The address that is used, where there are several.
    node: Option<String>,
    /// Addresses beside it that cannot be used.
    wrong: Vec<Wrong>,
    /// Addresses in all.
    nodes: usize,
}

/// How a broker of the list was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach<'p> {
    /// Its label.
    pub label: &'p str,
    /// Why none of its addresses can be used.
    pub problem: Option<&'p str>,
    /// The address that is used, where several are configured.
    pub node: Option<&'p str>,
    /// Addresses beside it that cannot be used.
    pub wrong: &'p [Wrong],
    /// How many addresses are configured.
    pub nodes: usize,
}

/// Connections of the doctor.
pub struct Probes {
    brokers: Vec<(String, Reached)>,
}

impl Probes {
    /// Connects to every broker of the list; what cannot be reached is a result too.
    ///
    /// # Errors
    /// A URI or the file of authorities cannot be read.
    pub async fn open(config: &BrokerConfig) -> Result<Self, BrokerError> {
        let mut brokers = Vec::new();
        for endpoint in connect::endpoints(config)? {
            let reached = open_nodes(config, &endpoint).await;
            brokers.push((endpoint.label.clone(), reached));
        }
        Ok(Self { brokers })
    }

    /// Each broker: reached, or why not.
    pub fn brokers(&self) -> impl Iterator<Item = Reach<'_>> {
        self.brokers.iter().map(|(label, reached)| Reach {
            label,
            problem: reached.opened.as_ref().err().map(String::as_str),
            node: reached.node.as_deref(),
            wrong: &reached.wrong,
            nodes: reached.nodes,
        })
    }

    /// The brokers that are reached: label and connection.
    pub(super) fn reached(&self) -> impl Iterator<Item = (&str, &Conn)> {
        self.brokers.iter().filter_map(|(label, reached)| {
            let conn = reached.opened.as_ref().ok()?;
            Some((label.as_str(), conn))
        })
    }

    /// Sends a probe through these exchanges, between all brokers that are reached, both ways.
    /// `key` must be nobody's: the routing key of the probes.
    pub async fn cross(&self, exchanges: &[String], key: &str) -> Vec<Crossing> {
        let mut crossings = Vec::new();
        for (from, source) in &self.brokers {
            for (to, target) in self.brokers.iter().filter(|(to, _)| to != from) {
                let (Ok(source), Ok(target)) = (&source.opened, &target.opened) else {
                    continue;
                };
                for exchange in exchanges {
                    // A refusal closes the channel: each probe has one of its own.
                    let result = cross(source, target, exchange, key).await;
                    crossings.push(Crossing {
                        exchange: exchange.clone(),
                        from: from.clone(),
                        to: to.clone(),
                        result: result.map_err(|problem| problem.to_string()),
                    });
                }
            }
        }
        crossings
    }

    /// Ends the connections.
    pub async fn close(self) {
        for (_, reached) in self.brokers {
            if let Ok(conn) = reached.opened {
                conn.close().await;
            }
        }
    }
}

async fn open(config: &BrokerConfig, node: &Node) -> Result<Conn, Problem> {
    let conn = Conn::open(config, node, "doctor").await?;
    conn.channel().await?;
    Ok(conn)
}

/// The first node of a broker that can be used, and what is wrong with the others; without any,
/// why.
async fn open_nodes(config: &BrokerConfig, endpoint: &Endpoint) -> Reached {
    let nodes = endpoint.nodes();
    let each = nodes.iter().map(async |node| {
        let opened = within(config.timeout, open(config, node)).await;
        (
            node.label.clone(),
            opened.map_err(|problem| problem.to_string()),
        )
    });
    let mut conn: Option<(String, Conn)> = None;
    let (mut wrong, mut foreigners) = (Vec::new(), Vec::new());
    for (label, opened) in futures::future::join_all(each).await {
        match (opened, &conn) {
            (Ok(opened), None) => conn = Some((label, opened)),
            (Ok(spare), Some((first, chosen))) => {
                foreigners.extend(foreign(first, chosen, &spare).map(|why| (label, why)));
                spare.close().await;
            }
            (Err(why), _) => wrong.push((label, why)),
        }
    }
    match conn {
        Some((node, conn)) => Reached {
            opened: Ok(conn),
            node: (nodes.len() > 1).then_some(node),
            wrong: told(wrong, false).chain(told(foreigners, true)).collect(),
            nodes: nodes.len(),
        },
        None => Reached {
            opened: Err(dial::in_words(nodes.len() == 1, wrong)),
            node: None,
            wrong: Vec::new(),
            nodes: nodes.len(),
        },
    }
}

fn told(addresses: Vec<(String, String)>, foreign: bool) -> impl Iterator<Item = Wrong> {
    let each = addresses.into_iter();
    each.map(move |(node, why)| Wrong { node, why, foreign })
}

/// Why a node cannot stand beside another one in one entry: it is of another cluster.
fn foreign(first: &str, chosen: &Conn, other: &Conn) -> Option<String> {
    let [ours, theirs] = [chosen, other].map(|conn| conn.inner.greeting.cluster_name.as_str());
    not_one_cluster(first, ours, theirs)
}

async fn cross(
    source: &Conn,
    target: &Conn,
    exchange: &str,
    key: &str,
) -> Result<Duration, Problem> {
    let source = source.channel().await?;
    let channel = target.channel().await?;
    let mut consumer = listen(&channel, exchange, key).await?;
    let started = Instant::now();
    let mut number = 0_u32;
    let mut sent = Vec::new();
    while started.elapsed() < TRAVEL {
        sent.push(Instant::now());
        publish(&source, exchange, key, number).await?;
        number += 1;
        let arrived = tokio::time::timeout(AGAIN, consumer.next()).await;
        if let Ok(Some(Ok(delivery))) = arrived {
            let text = String::from_utf8_lossy(&delivery.data);
            let index: usize = text.parse().unwrap_or(usize::MAX);
            if let Some(sent) = sent.get(index) {
                return Ok(sent.elapsed());
            }
        }
    }
    Err(Problem::timeout(format!("{number} probes, none arrived")))
}

/// A queue of its own that ends with the connection.
async fn listen(channel: &Channel, exchange: &str, key: &str) -> Result<Consumer, Problem> {
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(100));
    let declare = channel.queue_declare(short(""), options, arguments);
    let queue = rpc("declare a queue", declare).await?.name().clone();
    let bind = channel.queue_bind(
        queue.clone(),
        short(exchange),
        short(key),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    rpc(&format!("bind to {exchange}"), bind).await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    let consume = channel.basic_consume(queue, short(""), options, FieldTable::default());
    rpc("consume", consume).await
}

async fn publish(channel: &Channel, exchange: &str, key: &str, number: u32) -> Result<(), Problem> {
    let properties = BasicProperties::default().with_expiration(short(EXPIRY));
    let body = number.to_string();
    let publish = channel.basic_publish(
        short(exchange),
        short(key),
        BasicPublishOptions::default(),
        body.as_bytes(),
        properties,
    );
    rpc(&format!("publish to {exchange}"), publish)
        .await
        .map(drop)
}
