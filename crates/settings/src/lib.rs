//! Property files to typed settings.
//!
//! ```text
//! bytes ─ properties ─▶ entries ─ schema, alias, value ─▶ candidates ─ source (file < environment) ─▶ validate ─▶ Settings
//! ```
//!
//! [`load`] reports everything that is wrong at once; [`check_pair`] compares several files of one
//! cluster. [`schema::SCHEMA`] is the one table of every key.

mod alias;
mod finding;
mod pair;
pub mod schema;

mod source;
mod tokens;
mod url;
mod validate;
mod validate_admin;
mod validate_broker;
mod validate_defaults;
mod validate_downstream;
mod validate_groups;
mod validate_rest;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

pub use finding::{Finding, Findings, Severity, shown};
pub use pair::check_pair;
pub use source::Env;
pub use tandem_model::brokers::{HashBy, QueueType};
pub use tandem_model::{REDACTED, Secret};
use tandem_net::{TlsClient, TlsServer};
pub use tokens::{Token, TokenRole, is_name as is_token_name};

/// Everything an instance is told from outside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who and where.
    pub instance: Instance,
    /// Instances of one name are peers; broker objects begin with it.
    pub cluster_name: String,
    /// Who serves while all are up.
    pub mode: Mode,
    /// The broker list and how to behave on it.
    pub broker: Broker,
    /// Type of the command, expired and dead-letter queues.
    pub queue_type: QueueType,
    /// Groups of command queues; the first is `agents`.
    pub groups: Vec<Group>,
    /// The exchange that spreads agents over the groups' queues; `None`: there is none.
    pub hash_exchange: Option<HashBy>,
    /// A command without its own deadline is not started later than this after its timestamp.
    pub command_max_age: Duration,
    /// The command consumer.
    pub consumer: Consumer,
    /// Failure detection between instances.
    pub peer: Peer,
    /// How long a returned instance of higher priority must be stable before it takes back.
    pub takeback_hold: Duration,
    /// Notification sign-ins a second during takeover.
    pub takeover_rate: u32,
    /// Outcomes of commands remembered for duplicates, at most.
    pub remembered: usize,
    /// Where commands go.
    pub downstream: Downstream,
    /// Defaults for agents.
    pub agent: Agent,
    /// The notification service.
    pub notify: Notify,
    /// Form of events.
    pub message_format: MessageFormat,
    /// Sealing of peer messages.
    pub control: Control,
    /// Folder of journal, epochs, sealed sessions, group states.
    pub data_dir: PathBuf,
    /// Status page, API, health, metrics.
    pub admin: Admin,
    /// The HTTP entrance for commands; `None`: there is none.
    pub rest: Option<Rest>,
    /// A command without a trace gets one.
    pub trace_generate: bool,
    /// How long a stop may take.
    pub shutdown_grace: Duration,
    /// Logging.
    pub log: Log,
}

/// Who and where an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Unique in the cluster, `[a-z0-9-]{1,32}`.
    pub id: String,
    /// Shown everywhere.
    pub site: String,
}

/// Who serves while all instances are up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The live instance of the highest priority.
    ActivePassive,
    /// Every instance, what arrives at its own broker.
    ActiveActive,
}

impl Mode {
    /// The spelling of the property.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ActivePassive => "active-passive",
            Self::ActiveActive => "active-active",
        }
    }
}

/// The broker list and how to behave on it.
#[derive(Debug, Clone)]
pub struct Broker {
    /// In order of preference; at least one.
    pub urls: Vec<BrokerUrl>,
    /// Shuffle the list.
    pub randomize: bool,
    /// Return to the first broker when it is healthy again.
    pub priority_backup: bool,
    /// How long it must be healthy first.
    pub failback_hold: Duration,
    /// Keep a warm spare connection to the next broker.
    pub backup: bool,
    /// Bound of one connect-and-open.
    pub timeout: Duration,
    /// First pause between rounds through the list.
    pub reconnect_delay: Duration,
    /// Longest such pause, not below the first.
    pub reconnect_delay_max: Duration,
    /// Pause between two loop probes.
    pub probe_interval: Duration,
    /// Loop probes in a row without an answer after which the broker counts as wedged.
    pub probe_count: u32,
    /// AMQP heartbeat, whole seconds.
    pub heartbeat: Duration,
    /// Close a frozen peer's connection through the management API.
    pub fence: bool,
    /// Certificates for amqps and https management URLs.
    pub tls: TlsClient,
    /// Certificates that the brokers use among themselves.
    pub federation: FederationFiles,
}

/// Files on the brokers' machines, for their amqps links to each other. Nothing here is read by
/// an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FederationFiles {
    /// Authorities by which a broker judges the others.
    pub ca_file: Option<String>,
    /// The certificate that a broker shows the others, and its key: both or neither, and only
    /// with authorities.
    pub certificate: Option<(String, String)>,
}

/// One broker.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// `amqp(s)://user:password@host:port/vhost`, percent-encoded, a secret; or
    /// `amqps://host:port/vhost?auth_mechanism=external`, where the certificate is the login. Of a
    /// cluster all its nodes, with commas between their `host:port`.
    pub amqp: String,
    /// `host:port`, safe to show; of a cluster all of them, sorted, with commas between them.
    pub label: String,
    /// Its management API.
    pub management: ManagementUrl,
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerUrl")
            .field("amqp", &finding::redact_url(&self.amqp))
            .field("label", &self.label)
            .field("management", &self.management)
            .finish()
    }
}

/// A broker's management API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagementUrl {
    /// Base URL without credentials and without a slash at the end; of a cluster one a node, with
    /// commas between them.
    pub url: String,
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
    /// Certificates.
    pub tls: TlsClient,
}

/// A named set of command queues that is started, stopped and failed over as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Name, `[a-z0-9-]{1,32}`.
    pub name: String,
    /// Queues, at least one.
    pub queues: Vec<String>,
    /// Consumer priority, 0 to 127; `None`: that of the instance.
    pub priority: Option<u8>,
    /// Share of each of its queues in what the hash exchange spreads, 0 to 100.
    pub hash_weight: u32,
}

/// The command consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumer {
    /// 0 to 127.
    pub priority: u8,
    /// Commands handed out before acknowledgement, at least 1.
    pub prefetch: u16,
}

/// Failure detection between instances; heartbeat < suspect < lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Pause between heartbeats.
    pub heartbeat: Duration,
    /// Silence after which a peer is suspected.
    pub suspect: Duration,
    /// Silence after which it is lost.
    pub lost: Duration,
}

/// Where commands go.
#[derive(Debug, Clone)]
pub struct Downstream {
    /// Finesse or any HTTP service.
    pub kind: DownstreamKind,
    /// Primary and, where given, secondary.
    pub nodes: Vec<Node>,
    /// Bound of one request.
    pub request_timeout: Duration,
    /// Pause between health probes.
    pub probe_interval: Duration,
    /// Administrator for lists that agents may not read.
    pub admin: Option<Credentials>,
    /// Return to the primary when it is back.
    pub failback: bool,
    /// Certificates for https.
    pub tls: TlsClient,
    /// Check certificates, those of the notification service included.
    pub tls_verify: bool,
    /// What `Call` commands may do, with `DownstreamKind::Http`.
    pub allow: Vec<AllowRule>,
}

/// Kind of downstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownstreamKind {
    /// Agent commands to Cisco Finesse.
    Finesse,
    /// `Call` commands to any HTTP service.
    Http,
}

/// One downstream node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Base URL without a slash at the end.
    pub url: String,
    /// Host for health and notification connections, an IPv6 address without brackets.
    pub address: String,
}

/// User and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password.
    pub password: Secret,
}

/// One permission of the generic HTTP downstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowRule {
    /// Method.
    pub method: http::Method,
    /// Normalised path prefix, begins with `/`.
    pub path_prefix: String,
}

/// Defaults for agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Pause between `AgentStates` snapshots.
    pub states_interval: Duration,
    /// Reason id for a forced NOT_READY.
    pub not_ready_reason: Option<String>,
    /// Reason id for a forced LOGOUT.
    pub logout_reason: Option<String>,
    /// Reason id when a supervisor makes an agent not ready.
    pub supervisor_not_ready_reason: Option<String>,
    /// Reason id when a supervisor signs an agent out.
    pub supervisor_logout_reason: Option<String>,
    /// Make an agent READY right after `Login`.
    pub make_ready: bool,
}

/// The notification service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// Port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: NotifyTls,
    /// Bound of one sign-in.
    pub connect_timeout: Duration,
    /// Pause between pings.
    pub ping_interval: Duration,
    /// Certificates; those of the downstream where nothing else is set.
    pub tls_client: TlsClient,
}

/// How notification connections are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyTls {
    /// TLS from the first byte.
    Direct,
    /// Plain, with STARTTLS where the server offers or demands it.
    Opportunistic,
}

/// Form of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageFormat {
    /// JSON objects.
    Json,
    /// The original's `#` form.
    Default,
    /// The same, with call variables as values only.
    DefaultValues,
}

/// Sealing of peer messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Shared secret, at least 32 bytes.
    pub key: Option<Secret>,
    /// The key before, while keys are rotated.
    pub previous_key: Option<Secret>,
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Bearer token for all calls.
    pub token: Option<Secret>,
    /// Named tokens, each for what its role says.
    pub tokens: Vec<Token>,
    /// Off loopback too nobody needs a token to read, agents aside.
    pub open_reads: bool,
    /// Address of the status page as people reach it; empty where it is not known.
    pub page: String,
    /// Certificate; plain HTTP without.
    pub tls: Option<TlsServer>,
}

/// The HTTP entrance for commands.
#[derive(Debug, Clone)]
pub struct Rest {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Bearer token for every command; `None`: none is asked for.
    pub token: Option<Secret>,
    /// Certificate; plain HTTP without.
    pub tls: Option<TlsServer>,
    /// How events are posted; `None`: they are not.
    pub callback: Option<RestCallback>,
}

/// How events are posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestCallback {
    /// URLs below which a client may have its events posted.
    pub allow: Vec<String>,
    /// Where they go for clients that name no place.
    pub url: Option<String>,
    /// Path of those that name none.
    pub path: Option<String>,
    /// Bearer token of every request.
    pub token: Option<Secret>,
    /// Key by which every request is signed.
    pub sign_key: Option<Secret>,
    /// Bound of one request.
    pub timeout: Duration,
    /// Older events are dropped.
    pub max_age: Duration,
    /// Certificates.
    pub tls: TlsClient,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Form of lines.
    pub format: LogFormat,
    /// A level, or a list as `info,tandem::broker=debug`.
    pub level: String,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// One line of the effective configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The key, in full.
    pub key: String,
    /// Its value, secrets redacted; empty where it is not set.
    pub value: String,
    /// Where it comes from: `site-1.properties:12`, `environment TANDEM_MODE`, `default`, …
    pub origin: String,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The file.
    pub path: PathBuf,
    /// The settings.
    pub settings: Settings,
    /// What somebody should look at; never an error.
    pub warnings: Vec<Finding>,
    /// Every key with value and origin, in the order of [`schema::SCHEMA`].
    pub effective: Vec<Effective>,
}

/// Reads one property file, with environment variables over it.
///
/// # Errors
/// All findings, at least one of them an error: file unreadable, lines that cannot be read, unknown
/// keys, bad or contradictory values. Nothing in them shows a secret.
pub fn load(path: &Path, env: Env<'_>) -> Result<Loaded, Findings> {
    load_named(path, env, &[])
}

/// [`load`] with the names of the environment's variables: a group may be given by them alone.
///
/// # Errors
/// As [`load`].
pub fn load_named(path: &Path, env: Env<'_>, variables: &[String]) -> Result<Loaded, Findings> {
    let mut findings = Findings::default();
    let given = source::read(path, env, variables, &mut findings);
    let unreadable = given.values.is_empty() && findings.errors().any(|f| f.key.is_none());
    if unreadable {
        return Err(findings);
    }
    let (settings, effective) = validate::assemble(path, &given, &mut findings);
    findings.sort();
    match settings {
        Some(settings) if !findings.has_errors() => Ok(Loaded {
            path: path.to_path_buf(),
            settings,
            warnings: findings.0,
            effective,
        }),
        _ => Err(findings),
    }
}

/// [`load`] with this process's environment.
///
/// # Errors
/// As [`load`].
pub fn load_from_process(path: &Path) -> Result<Loaded, Findings> {
    let mut loaded = load_named(path, &|name| std::env::var(name).ok(), &variables())?;
    loaded.warnings.extend(unknown_variables());
    Ok(loaded)
}

/// Names of this process's variables.
#[must_use]
pub fn variables() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.collect()
}

/// Warnings for variables of this process that look like keys and are none; one for all those that
/// Kubernetes makes for Services.
#[must_use]
pub fn unknown_variables() -> Vec<Finding> {
    let text = |text: std::ffi::OsString| text.into_string().ok();
    let given = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
    source::unknown_variables(given)
}

#[cfg(test)]
mod tests;
