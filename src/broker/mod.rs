//! Broker shell: RabbitMQ through AMQP 0-9-1.
//!
//! The engine decides, this module does: [`Broker::execute`] takes commands, what happens comes
//! back as inputs. AMQP words stay in here.
//!
//! ```text
//! Broker ─ one task a link (link.rs, run.rs)
//!   ├─ connection tandem/<instance>/consume        connect.rs, declare.rs
//!   │    ├─ command channel: consumers, acknowledgements   consume.rs, settle.rs, decode.rs
//!   │    ├─ control channel: own control queue             control.rs, looped.rs
//!   │    ├─ probe channel: consumers of a peer's queue     probe.rs
//!   │    └─ on the spare: what blocks a federation link    rescue.rs
//!   ├─ connection tandem/<instance>/publish        publish.rs, encode.rs
//!   ├─ short-lived channels of both                ways.rs, declare.rs, majority.rs
//!   └─ connection tandem/<instance>/direct-reply   direct.rs, opened at need; may die
//! ```
//!
//! Publishing and consuming have a connection each, because a blocked connection writes nothing,
//! acknowledgements included.

mod classify;
mod connect;
mod consume;
mod control;
pub(crate) mod cut;
mod declare;
mod decode;
mod direct;
mod encode;
pub mod fence;
pub mod guard;
mod link;
mod looped;
mod majority;
pub mod management;
mod probe;
pub mod probes;
pub mod proof;
mod publish;
mod rescue;
pub mod rights;
mod run;
mod second;
mod settle;
pub mod topology;
mod ways;

pub use classify::{Class, Problem};

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::engine::Input;
use crate::engine::command::BrokerCommand;
use crate::engine::ids::{LinkEpoch, PublishId};
use crate::engine::input::PublishOutcome;
use crate::model::InstanceId;
use crate::model::brokers::QueueType;
use crate::net::address::MAX_LISTED;
use crate::net::{TlsClient, TlsError};
use crate::settings::ManagementUrl;
use crate::wire::command::Defaults;
use crate::wire::control::{Keys, Opener, Sealer};
use crate::wire::event::Format;

use connect::Endpoint;
use link::{LinkHandle, Op, Publication, Settle};

/// `x-priority` of a follower's consumers at another broker than the leader's. A federation link
/// consumes at -1 (measured): below it, what is published at the follower's broker goes over the
/// link to the leader, and to the follower only where nobody takes it from there.
pub const FAR_FOLLOWER: i32 = -10;
/// `x-priority` of a newcomer that may have the wrong key. None that is configured is lower; and
/// federation fetches messages for consumers of 0 and more only, so that they do not lie at the
/// other broker where the newcomer is alone.
pub const STANDS_BACK: i32 = 0;

/// Bound of one exchange with the broker (a declare, a confirm); lapin has none of its own.
const RPC_LIMIT: Duration = Duration::from_secs(10);
/// Refusals that are told once; further ones are not told.
const MAX_NOTED: usize = 256;
/// Peers whose nodes are remembered.
const MAX_PEERS: usize = 64;
/// Longest address of a node that is remembered, in bytes.
const MAX_NODE_NAME: usize = 200;
/// Bound of an orderly end of one link.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// A group of command queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// Name.
    pub name: String,
    /// Its queues.
    pub queues: Vec<String>,
}

/// A broker of the list.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// AMQP URI with credentials.
    pub uri: String,
    /// `host:port`, for logs.
    pub label: String,
    /// Its management API, for `broker.fence`; `None` where that is off.
    pub management: Option<ManagementUrl>,
}

impl std::fmt::Debug for BrokerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.label)
    }
}

/// What the shell needs to know.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// `instance.id`.
    pub instance: InstanceId,
    /// `instance.site`, shown at the broker.
    pub site: String,
    /// What it is set up to be, shown at the broker: mode and priority. Which part it has in a
    /// group changes while connections stand, and is in the consumer's tag.
    pub role: String,
    /// Product version, shown at the broker.
    pub version: String,
    /// `cluster.name`: prefix of all objects but the command queues.
    pub cluster_name: String,
    /// Type of the command, expired and dead-letter queues.
    pub queue_type: QueueType,
    /// Groups; commands name them by index.
    pub groups: Vec<GroupConfig>,
    /// Brokers; commands name them by index.
    pub brokers: Vec<BrokerAddress>,
    /// `broker.timeout`: bound of one connect-and-open.
    pub timeout: Duration,
    /// `broker.heartbeat`: whole seconds, at least one; the broker may ask for less.
    pub heartbeat: Duration,
    /// `broker.probe-interval`: pause between two loop probes.
    pub probe_interval: Duration,
    /// `broker.probe-count`: so many without an answer, and the broker counts as wedged.
    pub probe_count: u32,
    /// `consumer.prefetch`: unacknowledged deliveries a consumer.
    pub prefetch: u16,
    /// Certificates, for amqps and the management API.
    pub tls: TlsClient,
    /// `message.format`.
    pub format: Format,
    /// What bears on reading commands.
    pub parse: Defaults,
    /// Keys for peer messages.
    pub control: Keys,
}

/// Why the shell could not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A broker's URI cannot be read. Its text is not repeated: it may hold a password.
    #[error("the URI of broker {label} cannot be read: {reason}")]
    Uri {
        /// Which.
        label: String,
        /// Why.
        reason: &'static str,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What all links share.
struct Context {
    config: BrokerConfig,
    /// As the newest property file has them; for connections that are opened from now on.
    endpoints: RwLock<Arc<Vec<Endpoint>>>,
    /// The same of their management APIs.
    managements: RwLock<Vec<Option<ManagementUrl>>>,
    inputs: mpsc::Sender<Input>,
    sealer: Mutex<Sealer>,
    opener: Mutex<Opener>,
    /// Refusals that were told.
    noted: Mutex<BTreeSet<String>>,
    /// The node on which the own control queue is consumed, where its name says so.
    control_node: Mutex<String>,
    /// The same of peers, as they told; the newest last.
    peers_nodes: Mutex<HashMap<InstanceId, Vec<String>>>,
}

impl Context {
    /// Hands an input to the engine; waits while it is busy. False where it is gone.
    async fn tell(&self, input: Input) -> bool {
        self.inputs.send(input).await.is_ok()
    }

    async fn published(&self, publish: PublishId, outcome: PublishOutcome) {
        self.tell(Input::Published { publish, outcome }).await;
    }

    /// A peer told on which node its control queue is.
    fn told_node(&self, peer: &InstanceId, node: &str) {
        let long = node.len() > MAX_NODE_NAME;
        let mut known = lock(&self.peers_nodes);
        if node.is_empty() || long || known.len() >= MAX_PEERS && !known.contains_key(peer) {
            return;
        }
        let nodes = known.entry(peer.clone()).or_default();
        if nodes.last().is_some_and(|last| last == node) {
            return;
        }
        nodes.retain(|known| known != node);
        if nodes.len() >= MAX_LISTED {
            nodes.remove(0);
        }
        nodes.push(node.to_owned());
    }

    /// The nodes on which a peer's control queue may be, the likeliest first: where it told last,
    /// where it told before, and those of a broker. One without a name for a broker of one node.
    fn nodes_of(&self, peer: &InstanceId, broker: usize) -> Vec<String> {
        let endpoints = self.endpoints();
        let told = lock(&self.peers_nodes).get(peer).cloned();
        let here = |node: &String| {
            let of = |endpoint: &Endpoint| endpoint.nodes().iter().any(|one| one.label == *node);
            // One that is in nobody's list may be anywhere.
            let known = endpoints.iter().position(of);
            known.is_none_or(|at| at == broker)
        };
        let mut nodes: Vec<String> = told.unwrap_or_default();
        nodes.retain(here);
        nodes.reverse();
        match endpoints.get(broker).map(Endpoint::nodes) {
            Some(own) if own.len() > 1 => {
                let others = own.iter().map(|node| node.label.clone());
                let others: Vec<String> = others.filter(|one| !nodes.contains(one)).collect();
                nodes.extend(others);
            }
            _ => {}
        }
        // A version that knows no nodes, or a list that names one address only.
        nodes.push(String::new());
        nodes
    }

    /// Whether something is told for the first time: brokers say the same at each connection.
    fn note(&self, text: &str) -> bool {
        let mut noted = lock(&self.noted);
        noted.len() < MAX_NOTED && noted.insert(text.to_owned())
    }

    /// Whether an object belongs to the cluster itself: a command queue may not be named so.
    fn is_ours(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.config.cluster_name);
        rest.is_some_and(|rest| rest.starts_with('.'))
    }

    /// The brokers as they are dialled now.
    fn endpoints(&self) -> Arc<Vec<Endpoint>> {
        Arc::clone(&read(&self.endpoints))
    }

    /// A broker's management API as it is asked now.
    fn management(&self, broker: usize) -> Option<ManagementUrl> {
        read(&self.managements).get(broker)?.clone()
    }

    /// Name of a cluster object.
    fn object(&self, name: &str) -> String {
        format!("{}.{name}", self.config.cluster_name)
    }
}

/// A lock whose data stay sound whatever happened to an earlier holder.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn managements(config: &BrokerConfig) -> Vec<Option<ManagementUrl>> {
    let brokers = config.brokers.iter();
    brokers.map(|broker| broker.management.clone()).collect()
}

/// Gives a running shell other credentials and keys.
pub struct Renewal(Arc<Context>);

impl Renewal {
    /// Users and passwords for connections that are opened from now on, and for the management
    /// APIs; the brokers are the same, in the same order.
    ///
    /// # Errors
    /// [`BrokerError`] where an address cannot be used; nothing changes then.
    pub fn credentials(&self, config: &BrokerConfig) -> Result<(), BrokerError> {
        let endpoints = Arc::new(connect::endpoints(config)?);
        *write(&self.0.endpoints) = endpoints;
        *write(&self.0.managements) = managements(config);
        Ok(())
    }

    /// Keys for peer messages, for all messages from now on.
    pub fn keys(&self, keys: &Keys) {
        // The other side first: what is sealed from now on must be opened by ourselves too.
        lock(&self.0.opener).rekey(keys.clone());
        lock(&self.0.sealer).rekey(keys.clone());
    }
}

fn write<T>(slot: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    slot.write().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(slot: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    slot.read().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Links {
    open: HashMap<LinkEpoch, LinkHandle>,
    tasks: JoinSet<LinkEpoch>,
}

/// The broker shell.
pub struct Broker {
    context: Arc<Context>,
    links: Mutex<Links>,
    runtime: Handle,
}

impl Broker {
    /// Starts without any link; must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BrokerError`] where the configuration cannot be used.
    pub fn start(config: BrokerConfig, inputs: mpsc::Sender<Input>) -> Result<Self, BrokerError> {
        let endpoints = connect::endpoints(&config)?;
        let context = Context {
            sealer: Mutex::new(Sealer::new(config.control.clone())),
            opener: Mutex::new(Opener::new(config.control.clone())),
            managements: RwLock::new(managements(&config)),
            config,
            endpoints: RwLock::new(Arc::new(endpoints)),
            inputs,
            noted: Mutex::default(),
            control_node: Mutex::default(),
            peers_nodes: Mutex::default(),
        };
        Ok(Self {
            context: Arc::new(context),
            links: Mutex::default(),
            runtime: Handle::current(),
        })
    }

    /// What can be told to the running shell.
    #[must_use]
    pub fn renewal(&self) -> Renewal {
        Renewal(Arc::clone(&self.context))
    }

    /// Does what the engine decided; never blocks.
    ///
    /// What does not fit into a link's bounded queues: a publication is answered as failed, a
    /// question for a peer's consumers is not answered, anything else ends the link. What is
    /// unanswered when a link ends is answered as failed before its `LinkDown`, unless the engine
    /// itself takes so long that the link's tasks are cut: `LinkDown` has the last word.
    pub fn execute(&self, command: BrokerCommand) {
        match command {
            BrokerCommand::Dial { link, broker } => self.dial(link, broker),
            BrokerCommand::CloseLink { link } => {
                if let Some(handle) = lock(&self.links).open.get(&link) {
                    handle.close();
                }
            }
            BrokerCommand::AttachControl { link } => self.operate(link, Op::AttachControl),
            BrokerCommand::Consume {
                link,
                group,
                priority,
                tag,
            } => self.operate(
                link,
                Op::Consume {
                    group,
                    priority,
                    tag,
                },
            ),
            BrokerCommand::StopConsuming { link, group } => self.operate(link, Op::Stop { group }),
            BrokerCommand::Prove { link, way } => {
                if let Some(handle) = lock(&self.links).open.get(&link) {
                    handle.prove(way);
                }
            }
            BrokerCommand::ConsumeExpired { link } => self.operate(link, Op::ConsumeExpired),
            BrokerCommand::DeclareDeadLetters { link } => {
                self.operate(link, Op::DeclareDeadLetters)
            }
            BrokerCommand::Publish { id, link, message } => {
                let publication = Publication { id, message };
                let sent = lock(&self.links)
                    .open
                    .get(&link)
                    .is_some_and(|handle| handle.publish(publication));
                if !sent {
                    self.failed(id);
                }
            }
            BrokerCommand::Ack(id) => self.settle(id.link, Settle::ack(id.tag)),
            BrokerCommand::Requeue(id) => self.settle(id.link, Settle::requeue(id.tag)),
            BrokerCommand::CountPeerConsumers { link, peer } => {
                if let Some(handle) = lock(&self.links).open.get(&link) {
                    handle.count(peer);
                }
            }
            BrokerCommand::Fence { broker, peer } => self.fence(broker, peer),
        }
    }

    /// Closes all links; what they held goes back to the brokers.
    pub async fn close(self) {
        let links = self
            .links
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        for handle in links.open.values() {
            handle.close();
        }
        let mut tasks = links.tasks;
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(2 * CLOSE_LIMIT, all).await.is_err() {
            tracing::warn!("a broker link did not end in time and is cut");
        }
    }

    fn dial(&self, epoch: LinkEpoch, broker: usize) {
        let (handle, queues) = link::channels();
        let context = Arc::clone(&self.context);
        let mut links = lock(&self.links);
        while let Some(ended) = links.tasks.try_join_next() {
            if let Ok(epoch) = ended {
                links.open.remove(&epoch);
            }
        }
        let control = handle.control();
        links.open.insert(epoch, handle);
        let task = async move {
            let told = Arc::clone(&context);
            let run = run::run(context, epoch, broker, queues, control);
            // Without a word of its end the broker would never be dialled again.
            if AssertUnwindSafe(run).catch_unwind().await.is_err() {
                let reason = "an error in this program".to_owned();
                told.tell(Input::LinkDown {
                    link: epoch,
                    reason,
                })
                .await;
            }
            epoch
        };
        links.tasks.spawn_on(task, &self.runtime);
    }

    fn fence(&self, broker: usize, peer: InstanceId) {
        let context = Arc::clone(&self.context);
        // At most one a peer and broker each time a peer falls silent; bounded in time.
        self.runtime.spawn(async move {
            let closed = fence::close_connections(&context, broker, &peer).await;
            context
                .tell(Input::Fenced {
                    broker,
                    peer,
                    closed,
                })
                .await;
        });
    }

    fn operate(&self, link: LinkEpoch, op: Op) {
        if let Some(handle) = lock(&self.links).open.get(&link) {
            handle.operate(op);
        }
    }

    fn settle(&self, link: LinkEpoch, settle: Settle) {
        if let Some(handle) = lock(&self.links).open.get(&link) {
            handle.settle(settle);
        }
    }

    /// Answers a publication that no link took, without waiting for the engine.
    fn failed(&self, publish: PublishId) {
        let input = Input::Published {
            publish,
            outcome: PublishOutcome::Failed,
        };
        if let Err(mpsc::error::TrySendError::Full(input)) = self.context.inputs.try_send(input) {
            let inputs = self.context.inputs.clone();
            // As many as the engine has publications open, and they wait for nothing else.
            self.runtime.spawn(async move {
                let _ = inputs.send(input).await;
            });
        }
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("links", &lock(&self.links).open.len())
            .finish_non_exhaustive()
    }
}
