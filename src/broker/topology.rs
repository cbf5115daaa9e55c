//! The broker objects that a configuration needs: what they are ([`Topology`]), how they are
//! set and compared with a live broker ([`apply`], [`missing`]).
//!
//! What an instance needs to run (exchanges, queues and their bounds) is given by declare
//! arguments, so that an instance can declare it itself and every queue is bounded from its first
//! message on. What belongs to the consumers' side (federation, time to live, dead-lettering of
//! commands) is given by policies, which an operator can change without deleting a queue. A queue
//! obeys one policy only, therefore the command queues' policy holds all three.

mod apply;
mod compare;
mod examine;
mod fitting;
mod from_settings;
mod hash;
mod print;
mod uri;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::management::{ManagementClient, ManagementError};
use crate::model::brokers::{KHEPRI_SINCE, QueueType, at_least};
use crate::net::TlsClient;
use crate::net::address::each_address;

pub use apply::{
    ApplyReport, Change, LinkState, Step, TopologyError, UNKNOWN, apply, links, links_of,
};
pub use examine::{Finding, missing, undeclared};
pub use fitting::vhost_problem;
pub use from_settings::topology_input;
pub use hash::{HashInput, hash_problem};
pub use uri::{unjudged, vhost_of};
pub use words::{Words, explain};

/// Hops of a federated message: one is enough in a full mesh, and more would make loops.
const MAX_HOPS: u32 = 1;
/// Messages under way on a link.
const LINK_PREFETCH: u32 = 1000;
/// Seconds before a lost link connects again (the broker's default is 5). A link whose node of a
/// cluster is gone is not connected to the next one before. Sooner, a site that is away would cost
/// the other's log more lines than it is worth.
const RECONNECT_SECONDS: f64 = 0.5;
/// How long an event or reply waits for a link that is down: as long as a command's identity is
/// remembered. Older ones mislead more than they help.
const EVENT_TTL: Duration = Duration::from_secs(600);
/// A link's queue for events is deleted when its link has been away this long.
const EVENT_LINK_EXPIRES: Duration = Duration::from_secs(24 * 3600);
/// Peer messages older than this say nothing about now: a lost peer is noticed in 3 s.
const CONTROL_TTL: Duration = Duration::from_secs(5);
/// A link's queue for peer messages is deleted when its link has been away this long.
const CONTROL_LINK_EXPIRES: Duration = Duration::from_secs(60);
/// Above the 0 that operators' catch-all policies usually have.
const POLICY_PRIORITY: i32 = 100;
/// Bounds of `<cluster>.dead-letter`; the oldest is dropped.
const DEAD_LETTER_MAX_LENGTH: u32 = 10_000;
const DEAD_LETTER_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bound of `<cluster>.expired`; the oldest is dropped, whose client has waited longest.
const EXPIRED_MAX_LENGTH: u32 = 100_000;
/// Bound of an instance's control queue; the oldest is dropped, a resync mends the gap.
const CONTROL_MAX_LENGTH: u32 = 20_000;

/// Argument that says of which type a queue is.
pub(super) const TYPE: &str = "x-queue-type";

/// A control queue that belongs to one node of a broker is deleted when it was not used this long.
pub(super) const CONTROL_QUEUE_EXPIRES: Duration = Duration::from_secs(600);

/// How long a quorum queue of RabbitMQ 4.3 keeps what a lost node's consumers held for them,
/// milliseconds; 10 s unless somebody says otherwise, and clients wait meanwhile. Earlier versions
/// give it on at once, and refuse a policy with this key.
const DISCONNECTED_TIMEOUT_MS: u64 = 500;
/// See [`DISCONNECTED_TIMEOUT_MS`].
const DISCONNECTED_TIMEOUT: &str = "consumer-disconnected-timeout";

/// What kind of messages a federation upstream carries.
const MAIN: &str = "main";
const CONTROL: &str = "control";
/// What a policy of queues applies to.
const QUEUES: &str = "queues";
/// None: what a policy is for is not federated.
const LOCAL: &str = "";

/// One broker of the network.
#[derive(Clone, PartialEq, Eq)]
pub struct TopologyBroker {
    /// Short name, unique in the list; part of upstream names. Usually `host:port`.
    pub label: String,
    /// AMQP URI by which the OTHER brokers reach it, with the addresses of all nodes of a cluster.
    /// User and password are added where it has none; its path is the virtual host.
    pub amqp_uri: String,
    /// Base URL of its management API; of a cluster one a node, with commas between them.
    pub management_url: String,
    /// User of AMQP and management API.
    pub user: String,
    /// That user's password.
    pub password: String,
    /// Certificates of the management API.
    pub tls: TlsClient,
}

impl TopologyBroker {
    /// A client for its management API.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn client(&self) -> Result<ManagementClient, ManagementError> {
        ManagementClient::with_tls(&self.management_url, &self.user, &self.password, &self.tls)
    }
}

impl fmt::Debug for TopologyBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopologyBroker")
            .field("label", &self.label)
            .field("amqp_uri", &uri::redacted(&self.amqp_uri))
            .field("management_url", &self.management_url)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What the topology follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyInput {
    /// `cluster.name`: the prefix of all objects but the command queues.
    pub cluster_name: String,
    /// Type of the command, expired and dead-letter queues.
    pub queue_type: QueueType,
    /// Command queues of all groups.
    pub command_queues: Vec<String>,
    /// What spreads agents over the command queues, where something is to.
    pub hash: Option<HashInput>,
    /// `command.max-age`: the command queues' message TTL.
    pub command_max_age: Duration,
    /// All brokers, in order of preference.
    pub brokers: Vec<TopologyBroker>,
    /// URI by which broker `.0` reaches its upstream broker `.1` (indexes into `brokers`), where
    /// that is not the upstream's own `amqp_uri`.
    pub federation_uris: BTreeMap<(usize, usize), String>,
    /// How the brokers judge each other on amqps links.
    pub federation_tls: FederationTls,
}

/// Files on the brokers' machines that the URIs of amqps upstreams name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FederationTls {
    /// Authorities. Without them the URIs say nothing about certificates, and what a broker does
    /// then is a matter of its version: 3.10 believes any, 4.0 refuses to connect.
    pub ca_file: Option<String>,
    /// The certificate to show and its key.
    pub certificate: Option<(String, String)>,
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeSpec {
    /// Name.
    pub name: String,
    /// `topic`, `direct` or `x-consistent-hash`.
    pub kind: &'static str,
    /// Declare arguments.
    pub arguments: Map<String, Value>,
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// Name.
    pub name: String,
    /// Declare arguments (`x-queue-type`, bounds).
    pub arguments: Map<String, Value>,
}

impl QueueSpec {
    fn new(kind: QueueType, name: String, bounds: Value) -> Self {
        let mut arguments = Map::new();
        arguments.insert(TYPE.to_owned(), json!(kind.as_str()));
        if let Value::Object(bounds) = bounds {
            arguments.extend(bounds);
        }
        Self { name, arguments }
    }
}

/// Exchanges that every instance of the cluster declares.
pub fn exchanges(cluster: &str) -> Vec<ExchangeSpec> {
    [
        ("events", "topic"),
        ("replies", "direct"),
        ("control", "topic"),
    ]
    .into_iter()
    .map(|(name, kind)| ExchangeSpec {
        name: format!("{cluster}.{name}"),
        kind,
        arguments: Map::new(),
    })
    .collect()
}

/// Queues that every instance of the cluster declares: the command queues,
/// `<cluster>.expired` and `<cluster>.dead-letter`.
pub fn queues(cluster: &str, command_queues: &[String], kind: QueueType) -> Vec<QueueSpec> {
    let mut specs: Vec<QueueSpec> = command_queues
        .iter()
        .map(|name| QueueSpec::new(kind, name.clone(), Value::Null))
        .collect();
    specs.push(QueueSpec::new(
        kind,
        format!("{cluster}.expired"),
        json!({"x-max-length": EXPIRED_MAX_LENGTH, "x-overflow": "drop-head"}),
    ));
    specs.push(QueueSpec::new(
        kind,
        format!("{cluster}.dead-letter"),
        json!({
            "x-max-length": DEAD_LETTER_MAX_LENGTH,
            "x-message-ttl": millis(DEAD_LETTER_TTL),
            "x-overflow": "drop-head",
        }),
    ));
    specs
}

/// The control queue of one instance, which that instance declares itself and binds to
/// `<cluster>.control` with its id and `all`.
///
/// On a broker of several nodes there is one a node (`node` is its address): it is where the
/// instance's connection leads, and so is lost with that connection and not before. Those that are
/// not used any more go by themselves.
pub fn control_queue(cluster: &str, instance_id: &str, node: &str) -> QueueSpec {
    let mut bounds = json!({
        "x-max-length": CONTROL_MAX_LENGTH,
        "x-message-ttl": millis(CONTROL_TTL),
        "x-overflow": "drop-head",
    });
    let mut name = format!("{cluster}.control.{instance_id}");
    if !node.is_empty() {
        name = format!("{name}.{node}");
        bounds["x-expires"] = json!(millis(CONTROL_QUEUE_EXPIRES));
    }
    QueueSpec::new(QueueType::Classic, name, bounds)
}

/// A queue that an exchange sends messages to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingSpec {
    /// Both as people are told.
    pub name: String,
    /// The exchange.
    pub exchange: String,
    /// The queue.
    pub queue: String,
    /// Routing key.
    pub key: String,
}

/// A named runtime parameter with its value, as the management API takes it.
#[derive(Clone, PartialEq)]
pub struct Setting {
    /// Name.
    pub name: String,
    /// The whole value.
    pub value: Value,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting")
            .field("name", &self.name)
            .field("value", &uri::redacted_value(&self.value))
            .finish()
    }
}

/// A policy on exactly named objects.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySpec {
    /// Name.
    pub name: String,
    /// `queues` or `exchanges`.
    pub applies_to: &'static str,
    /// Names of the objects that must obey it.
    pub objects: Vec<String>,
    /// The whole value, as the management API takes it.
    pub value: Value,
    /// What its definition holds besides where the broker is RabbitMQ 4.3 or later.
    pub since_4_3: Map<String, Value>,
}

/// Everything that one broker needs.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerPlan {
    /// The broker.
    pub broker: TopologyBroker,
    /// Its virtual host.
    pub vhost: String,
    /// Exchanges.
    pub exchanges: Vec<ExchangeSpec>,
    /// Queues.
    pub queues: Vec<QueueSpec>,
    /// What the exchange that spreads agents sends messages to, if there is one; nothing else may
    /// be bound to it.
    pub bindings: Vec<BindingSpec>,
    /// Parameters `federation-upstream`.
    pub upstreams: Vec<Setting>,
    /// Parameters `federation-upstream-set`.
    pub upstream_sets: Vec<Setting>,
    /// Policies.
    pub policies: Vec<PolicySpec>,
    /// (object, upstream name) of every federation link that must run here.
    pub links: Vec<(String, String)>,
}

/// The plan for all brokers.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// `cluster.name`.
    pub cluster_name: String,
    /// Type of the command, expired and dead-letter queues.
    pub queue_type: QueueType,
    /// One plan a broker, in the order of the input.
    pub brokers: Vec<BrokerPlan>,
}

impl Topology {
    /// Works out what every broker needs.
    pub fn of(input: &TopologyInput) -> Self {
        let brokers = (0..input.brokers.len())
            .map(|index| BrokerPlan::of(input, index))
            .collect();
        Self {
            cluster_name: input.cluster_name.clone(),
            queue_type: input.queue_type,
            brokers,
        }
    }
}

impl BrokerPlan {
    /// Whether what it needs depends on its version.
    pub(super) fn depends_on_version(&self) -> bool {
        self.policies.iter().any(|one| !one.since_4_3.is_empty())
    }

    /// The plan for a broker of this version.
    #[must_use]
    pub fn on(&self, version: &str) -> Self {
        let mut plan = self.clone();
        for policy in &mut plan.policies {
            let later = std::mem::take(&mut policy.since_4_3);
            if let Value::Object(definition) = &mut policy.value["definition"]
                && at_least(version, KHEPRI_SINCE)
            {
                definition.extend(later);
            }
        }
        plan
    }

    fn of(input: &TopologyInput, index: usize) -> Self {
        let cluster = &input.cluster_name;
        let broker = input.brokers[index].clone();
        let mut exchanges = exchanges(cluster);
        exchanges.extend(input.hash.as_ref().map(|hash| hash.exchange(cluster)));
        let others: Vec<usize> = (0..input.brokers.len()).filter(|&i| i != index).collect();
        let mut upstreams = Vec::new();
        let mut upstream_sets = Vec::new();
        let mut links = Vec::new();
        for kind in [MAIN, CONTROL] {
            let names: Vec<String> = others
                .iter()
                .map(|&i| upstream_name(cluster, kind, &input.brokers[i].label))
                .collect();
            for (&upstream, name) in others.iter().zip(&names) {
                upstreams.push(Setting {
                    name: name.clone(),
                    value: upstream_value(kind, upstream_uris(input, index, upstream)),
                });
            }
            if !names.is_empty() {
                upstream_sets.push(Setting {
                    name: set_name(cluster, kind),
                    value: names.iter().map(|n| json!({"upstream": n})).collect(),
                });
            }
            for name in names {
                let objects = federated(input, kind);
                links.extend(objects.into_iter().map(|object| (object, name.clone())));
            }
        }
        Self {
            vhost: vhost_of(&broker.amqp_uri),
            policies: policies(input, !others.is_empty()),
            queues: queues(cluster, &input.command_queues, input.queue_type),
            bindings: input
                .hash
                .as_ref()
                .map_or_else(Vec::new, |hash| hash.bindings(cluster)),
            exchanges,
            upstreams,
            upstream_sets,
            links,
            broker,
        }
    }
}

/// Names of the objects that the upstreams of a kind feed.
fn federated(input: &TopologyInput, kind: &str) -> Vec<String> {
    let cluster = &input.cluster_name;
    if kind == CONTROL {
        return vec![format!("{cluster}.control")];
    }
    let mut names = input.command_queues.clone();
    names.extend([format!("{cluster}.events"), format!("{cluster}.replies")]);
    names
}

fn upstream_name(cluster: &str, kind: &str, label: &str) -> String {
    format!("{cluster}.{kind}.{label}")
}

fn set_name(cluster: &str, kind: &str) -> String {
    format!("{cluster}.{kind}")
}

/// Of a cluster one URI a node: the link takes another one where a node is lost.
fn upstream_uris(input: &TopologyInput, from: usize, to: usize) -> Value {
    let upstream = &input.brokers[to];
    let base = input
        .federation_uris
        .get(&(from, to))
        .unwrap_or(&upstream.amqp_uri);
    let each = each_address(base);
    let mut uris = each.iter().map(|one| {
        let uri = uri::for_federation(one, &upstream.user, &upstream.password);
        uri::with_tls(&uri, &input.federation_tls)
    });
    match each.len() {
        1 => uris.next().into(),
        _ => uris.collect(),
    }
}

/// TTL and expiry bound the queue that a link of an exchange keeps at the upstream broker; links
/// of queues ignore them.
fn upstream_value(kind: &str, uri: Value) -> Value {
    let (ttl, expires) = if kind == CONTROL {
        (CONTROL_TTL, CONTROL_LINK_EXPIRES)
    } else {
        (EVENT_TTL, EVENT_LINK_EXPIRES)
    };
    json!({
        "uri": uri,
        "ack-mode": "on-confirm",
        "max-hops": MAX_HOPS,
        "prefetch-count": LINK_PREFETCH,
        "reconnect-delay": RECONNECT_SECONDS,
        "trust-user-id": false,
        "message-ttl": millis(ttl),
        "expires": millis(expires),
    })
}

fn policies(input: &TopologyInput, federate: bool) -> Vec<PolicySpec> {
    let cluster = &input.cluster_name;
    let quorum = input.queue_type == QueueType::Quorum;
    let policy = |name: &str, applies_to, objects: Vec<String>, mut definition: Value, kind| {
        if federate && kind != LOCAL {
            definition["federation-upstream-set"] = json!(set_name(cluster, kind));
        }
        let value = json!({
            "pattern": exact_pattern(&objects),
            "apply-to": applies_to,
            "priority": POLICY_PRIORITY,
            "definition": definition,
        });
        let mut since_4_3 = Map::new();
        if quorum && applies_to == QUEUES {
            since_4_3.insert(
                DISCONNECTED_TIMEOUT.to_owned(),
                json!(DISCONNECTED_TIMEOUT_MS),
            );
        }
        PolicySpec {
            name: format!("{cluster}.{name}"),
            applies_to,
            objects,
            value,
            since_4_3,
        }
    };
    // The default exchange with the queue's name as key: a federated message has lost its
    // original key by then, and the queue needs no binding.
    let mut commands = json!({
        "message-ttl": millis(input.command_max_age),
        "dead-letter-exchange": "",
        "dead-letter-routing-key": format!("{cluster}.expired"),
    });
    if quorum {
        // A command that instances held when they were lost is not given up for that. What expires
        // is kept until the queue of expired commands has it, which wants the third.
        commands["delivery-limit"] = json!(-1);
        commands["dead-letter-strategy"] = json!("at-least-once");
        commands["overflow"] = json!("reject-publish");
    }
    let mut policies = Vec::new();
    if quorum {
        let kept = vec![
            format!("{cluster}.expired"),
            format!("{cluster}.dead-letter"),
        ];
        let unlimited = json!({"delivery-limit": -1});
        policies.push(policy("kept", QUEUES, kept, unlimited, LOCAL));
    }
    if !input.command_queues.is_empty() {
        let queues = input.command_queues.clone();
        policies.push(policy("commands", QUEUES, queues, commands, MAIN));
    }
    // A policy must not be empty; with one broker the exchanges need none.
    if federate {
        let shared = vec![format!("{cluster}.events"), format!("{cluster}.replies")];
        policies.push(policy("events", "exchanges", shared, json!({}), MAIN));
        let control = vec![format!("{cluster}.control")];
        policies.push(policy("control", "exchanges", control, json!({}), CONTROL));
    }
    policies
}

/// A regular expression that matches these names and no others.
fn exact_pattern(names: &[String]) -> String {
    let escaped: Vec<String> = names.iter().map(|name| escape(name)).collect();
    format!("^({})$", escaped.join("|"))
}

fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_punctuation() && c != '_' && c != '-' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
