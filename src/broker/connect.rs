//! Opening a link's connection: nodes, name, properties, heartbeat.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Channel, ConnectionProperties};

use super::classify::{Class, Problem};
use super::cut::{self, CutConnection, How, NotOpened};
use super::{BrokerConfig, BrokerError, CLOSE_LIMIT, RPC_LIMIT};
use crate::net::{TlsClient, amqp, dial};

/// A broker of the list, ready to be dialled.
pub(super) struct Endpoint {
    /// Its nodes, at least one.
    nodes: Vec<Node>,
    /// The node to begin with: the one that was used last, or the one behind it where it failed.
    first: AtomicUsize,
    pub(super) label: String,
}

/// One address of a broker.
pub(super) struct Node {
    uri: AMQPUri,
    tls: TlsClient,
    /// `host:port`.
    pub(super) label: String,
}

impl Endpoint {
    /// Its nodes.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Opens something on the first node that gives it. Says which that is.
    pub(super) async fn open<'e, T, A>(
        &'e self,
        open: impl Fn(&'e Node) -> A,
    ) -> Result<(usize, T), Problem>
    where
        A: Future<Output = Result<T, Problem>>,
    {
        let (count, first) = (self.nodes.len(), self.first.load(Ordering::Relaxed));
        let node = |step: usize| (first + step) % count;
        let short = |problem: &Problem| matches!(problem.class, Class::NoRoom(_));
        let attempt = |step: usize| open(&self.nodes[node(step)]);
        match dial::in_turn(count, dial::NODE_DELAY, attempt, short).await {
            Ok((step, opened)) => {
                self.first.store(node(step), Ordering::Relaxed);
                Ok((node(step), opened))
            }
            Err(failures) => {
                let named = failures.into_iter();
                let named = named.map(|(step, why)| (self.nodes[node(step)].label.as_str(), why));
                Err(told(named.collect(), count))
            }
        }
    }

    /// A node was of no use: the next attempt begins with the one behind it.
    pub(super) fn pass_by(&self, node: usize) {
        let next = (node + 1) % self.nodes.len();
        let order = Ordering::Relaxed;
        // Unless another one was found meanwhile.
        let _ = self.first.compare_exchange(node, next, order, order);
    }

    /// The name of a node, where there are several.
    pub(super) fn node_label(&self, node: usize) -> &str {
        match self.nodes.get(node) {
            Some(node) if self.nodes.len() > 1 => &node.label,
            _ => "",
        }
    }
}

/// One problem for all nodes; that of a lone node as it is. What a node has answered says more than
/// that another one did not.
fn told(failures: Vec<(&str, Problem)>, nodes: usize) -> Problem {
    let silent = |problem: &Problem| matches!(problem.class, Class::Unreachable | Class::Timeout);
    let class = |want: &dyn Fn(&Problem) -> bool| {
        let mut problems = failures.iter().map(|(_, problem)| problem);
        problems.find(|problem| want(problem)).map(|one| one.class)
    };
    let worst = class(&|problem| matches!(problem.class, Class::NoRoom(_)));
    let class = worst
        .or_else(|| class(&|problem| !silent(problem)))
        .or_else(|| class(&|_| true))
        .unwrap_or(Class::Unreachable);
    let each = failures.into_iter();
    let each = each.map(|(label, problem)| (label, problem.text));
    Problem::new(class, dial::in_words(nodes == 1, each))
}

impl From<NotOpened> for Problem {
    fn from(not: NotOpened) -> Self {
        match not.reason {
            // Whatever was read there was no broker's.
            Some(text) => Self::new(Class::Unreachable, text),
            None => not.error.into(),
        }
    }
}

/// Reads the broker list.
pub(super) fn endpoints(config: &BrokerConfig) -> Result<Vec<Endpoint>, BrokerError> {
    config.tls.config()?;
    let heartbeat = u16::try_from(config.heartbeat.as_secs())
        .unwrap_or(u16::MAX)
        .max(1);
    let mut endpoints = Vec::new();
    for broker in &config.brokers {
        let uris = amqp::uris(&broker.uri).map_err(|reason| BrokerError::Uri {
            label: broker.label.clone(),
            reason,
        })?;
        let nodes = uris.into_iter().map(|mut uri| {
            // Else the broker's own value counts, which is 60 s by default.
            uri.query.heartbeat = Some(heartbeat);
            Node {
                label: amqp::label(&uri),
                uri,
                tls: config.tls.clone(),
            }
        });
        endpoints.push(Endpoint {
            nodes: nodes.collect(),
            first: AtomicUsize::new(0),
            label: broker.label.clone(),
        });
    }
    Ok(endpoints)
}

/// An open connection; dropping it cuts it.
pub(super) struct Conn {
    pub(super) inner: CutConnection,
}

impl Conn {
    /// Opens a connection that the broker shows as `tandem/<instance>/<purpose>`. Unbounded in
    /// time: the caller bounds it, and dropping the future cuts what was begun.
    pub(super) async fn open(
        config: &BrokerConfig,
        node: &Node,
        purpose: &str,
    ) -> Result<Self, Problem> {
        let how = How {
            tls: node.tls.clone(),
            limit: config.timeout,
            heartbeat: config.heartbeat,
        };
        match cut::open(&node.uri, &how, properties(config, purpose)).await {
            Ok(inner) => Ok(Self { inner }),
            Err(not) => Err(Problem::from(not).while_doing(format!("connect ({purpose})"))),
        }
    }

    pub(super) fn alive(&self) -> bool {
        self.inner.status().connected()
    }

    pub(super) async fn channel(&self) -> Result<Channel, Problem> {
        rpc("open a channel", self.inner.create_channel()).await
    }

    /// An orderly end, in bounded time.
    pub(super) async fn close(&self) {
        if self.alive() {
            let close = self.inner.close(200, "OK".into());
            let _ = tokio::time::timeout(CLOSE_LIMIT, close).await;
        }
    }
}

/// Bounds an exchange with the broker.
pub(super) async fn rpc<T>(
    what: &str,
    exchange: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(RPC_LIMIT, exchange).await {
        Ok(result) => result.map_err(|error| Problem::from(error).while_doing(what)),
        Err(_) => Err(Problem::timeout(what)),
    }
}

/// Bounds one connect-and-open.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let text = format!("not open within {limit:?}");
        Err(Problem::new(Class::Timeout, text))
    })
}

/// Who a connection says that it belongs to.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// `instance.id`.
    pub instance: String,
    /// This program's version.
    pub version: String,
    /// `cluster.name`.
    pub cluster: String,
    /// `instance.site`.
    pub site: String,
    /// Mode and priority, in words.
    pub role: String,
}

impl Identity {
    /// Of a connection for this purpose.
    pub(crate) fn properties(&self, purpose: &str) -> ConnectionProperties {
        let name = format!("tandem/{}/{purpose}", self.instance);
        let text = |value: &str| value.to_owned().into_bytes().into();
        ConnectionProperties::default()
            .with_connection_name(text(&name))
            .with_client_property("product".into(), text("tandem"))
            .with_client_property("version".into(), text(&self.version))
            .with_client_property("cluster".into(), text(&self.cluster))
            .with_client_property("site".into(), text(&self.site))
            .with_client_property("role".into(), text(&self.role))
            .with_client_property("purpose".into(), text(purpose))
    }
}

fn properties(config: &BrokerConfig, purpose: &str) -> ConnectionProperties {
    config.identity().properties(purpose)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::lock;
    use super::*;
    use crate::model::Resource;

    fn endpoint(labels: &[&str]) -> Endpoint {
        let node = |label: &&str| Node {
            uri: amqp::uri(label).unwrap(),
            tls: TlsClient::default(),
            label: (*label).to_owned(),
        };
        Endpoint {
            nodes: labels.iter().map(node).collect(),
            first: AtomicUsize::new(0),
            label: labels.join(","),
        }
    }

    #[tokio::test]
    async fn nodes_are_tried_in_turn_and_the_one_that_served_comes_first() {
        let broker = endpoint(&["a:1", "b:1", "c:1"]);
        let only = async |wanted: &'static str| {
            let tried = Mutex::new(Vec::new());
            let opened = broker
                .open(|node| {
                    lock(&tried).push(node.label.clone());
                    let good = node.label == wanted;
                    async move {
                        let gone = Problem::new(Class::Unreachable, "gone");
                        if good { Ok(()) } else { Err(gone) }
                    }
                })
                .await;
            (opened.map(|(node, ())| node), lock(&tried).clone())
        };
        let (opened, tried) = only("b:1").await;
        assert_eq!((opened, tried.len()), (Ok(1), 2));
        assert_eq!(only("b:1").await.1, ["b:1"]);
        // It failed later: the next one is asked first, and that it did so before is no reason.
        broker.pass_by(1);
        broker.pass_by(1);
        assert_eq!(only("b:1").await.1, ["c:1", "a:1", "b:1"]);
        let (none, _) = only("x").await;
        let problem = none.unwrap_err();
        assert_eq!(problem.class, Class::Unreachable);
        for label in ["a:1: gone", "b:1: gone", "c:1: gone"] {
            assert!(problem.text.contains(label), "{problem}");
        }
    }

    #[tokio::test]
    async fn a_node_that_says_nothing_is_passed_by() {
        let broker = endpoint(&["a:1", "b:1"]);
        let opened = broker.open(|node| {
            let silent = node.label == "a:1";
            async move {
                if silent {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        assert_eq!(opened.await.map(|(node, ())| node), Ok(1));
    }

    #[test]
    fn what_a_node_says_outweighs_silence_and_a_shortage_all_else() {
        let silent = || ("a:1", Problem::new(Class::Unreachable, "gone"));
        let refused = || ("b:1", Problem::new(Class::AccessRefused, "no"));
        let short = (
            "c:1",
            Problem::new(Class::NoRoom(Resource::Descriptors), "none"),
        );
        let both = told(vec![silent(), refused()], 2);
        assert_eq!(both.class, Class::AccessRefused);
        assert_eq!(both.text, "a:1: gone; b:1: no");
        assert_eq!(told(vec![silent()], 1).text, "gone");
        let all = told(vec![silent(), refused(), short], 3);
        assert_eq!(all.class, Class::NoRoom(Resource::Descriptors));
    }
}
