//! The one table of every key: names, aliases, types, defaults, units and help.
//!
//! Everything else reads this table: the loader, the check command, the nearest-key suggestion and
//! the test that compares `docs/configuration.md` with it.

use super::alias::{self, Ignored, Translate};
use Default_::{Computed, Is, NotSet, Required};
use Kind::*;
use Translate::{LogLevelNames, Millis, Not, OnAllAddresses, RestFormat, Same, Seconds};

/// Most brokers in one list.
pub const MAX_BROKERS: u16 = 16;
/// Primary and secondary.
pub const MAX_NODES: u16 = 2;
/// Most `rest.callback.allow.N` entries.
pub const MAX_CALLBACKS: u16 = 64;
/// Most `downstream.allow.N` rules.
pub const MAX_ALLOW: u16 = 64;
/// Largest share of a queue: the broker keeps so many entries for it.
pub const MAX_WEIGHT: u64 = 100;

/// What a key's value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, in any letter case.
    Bool,
    /// A whole number between two bounds, both allowed.
    Int(u64, u64),
    /// A duration with a unit, between two bounds in milliseconds, both allowed.
    Duration(u64, u64),
    /// As `Duration`, but only whole seconds (the protocol's own unit).
    WholeSeconds(u64, u64),
    /// One of these words, in any letter case.
    OneOf(&'static [&'static str]),
    /// Matches `[a-z0-9-]{1,32}`.
    Id,
    /// Matches `[A-Za-z0-9_-]{1,64}`.
    ClusterName,
    /// Up to 64 characters, none of them a control character.
    Label,
    /// Any text without control characters.
    Text,
    /// A secret of at least this many bytes.
    Secret(usize),
    /// A broker: `host:port`, `amqp://…`, `amqps://…`.
    BrokerUrl,
    /// An `http` or `https` URL.
    HttpUrl,
    /// The same, or several of one service.
    HttpUrls,
    /// A host name or address.
    Host,
    /// A file or folder.
    Path,
    /// A file on the machines of the brokers.
    FarPath,
    /// `address:port` to listen at.
    Listen,
    /// A queue's name.
    Queue,
    /// Queue names with commas between them.
    Queues,
    /// `METHOD /path/prefix`.
    Allow,
    /// A reason's id in the downstream.
    ReasonId,
    /// A log level, or `target=level` pairs.
    LogLevel,
}

impl Kind {
    /// What is allowed, for error messages and the documentation.
    pub fn allowed(self) -> String {
        match self {
            Bool => "true or false".into(),
            Int(min, max) => format!("a whole number, {min} to {max}"),
            Duration(min, max) => format!(
                "a whole number with a unit (500ms, 10s, 2m, 1h), {} to {}",
                super::value::duration_text(min),
                super::value::duration_text(max)
            ),
            WholeSeconds(min, max) => format!(
                "whole seconds with a unit (2s, 1m), {} to {}",
                super::value::duration_text(min),
                super::value::duration_text(max)
            ),
            OneOf(words) => words.join(" or "),
            Id => "[a-z0-9-]{1,32}".into(),
            ClusterName => "[A-Za-z0-9_-]{1,64}".into(),
            Label => "1 to 64 characters, no control characters".into(),
            Text => "text without control characters".into(),
            Secret(0) => "text".into(),
            Secret(bytes) => format!("text of at least {bytes} bytes"),
            BrokerUrl => "host:port, amqp://[user:password@]host[:5672][/vhost] or amqps://…[:5671]; a cluster's nodes with commas between them: host-a:5672,host-b:5672".into(),
            HttpUrls => "http://host[:port][/path] or https://host[:port][/path]; several with commas between them".into(),
            HttpUrl => "http://host[:port][/path] or https://host[:port][/path]".into(),
            Host => "a host name or an IP address".into(),
            Path => "a path".into(),
            FarPath => "an absolute path on every broker's machine".into(),
            Listen => "address:port, as 127.0.0.1:9601 or [::1]:9601".into(),
            Queue => "1 to 255 bytes; not amq.…, not <cluster.name>.…, no comma".into(),
            Queues => "queue names with commas between them".into(),
            Allow => "METHOD /path/prefix with GET, HEAD, PUT, DELETE, POST or PATCH; no .., %, //, ? or #".into(),
            ReasonId => "a whole number, 0 to 2147483647".into(),
            LogLevel => "off, error, warn, info, debug or trace; or a list as info,tandem::broker=debug".into(),
        }
    }

    /// Whether values of this kind are redacted wherever they are shown.
    pub fn is_secret(self) -> bool {
        matches!(self, Secret(_))
    }
}

/// What a key has when nobody sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default_ {
    /// This value, in the key's own spelling.
    Is(&'static str),
    /// Nothing.
    NotSet,
    /// Computed from other keys; the text says how.
    Computed(&'static str),
    /// It must be set; the text says when.
    Required(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Name; a last part `N` stands for a number from 1, `NAME` for a group's name.
    pub name: &'static str,
    /// The original's names for it, with how their values are translated.
    pub aliases: &'static [(&'static str, Translate)],
    /// Type and bounds.
    pub kind: Kind,
    /// Default.
    pub default: Default_,
    /// Largest `N`; 0 where the name has none.
    pub max_index: u16,
    /// What it means and how to choose it.
    pub help: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: Default_, help: &'static str) -> Key {
    Key {
        name,
        aliases: &[],
        kind,
        default,
        max_index: 0,
        help,
    }
}

impl Key {
    const fn alias(mut self, aliases: &'static [(&'static str, Translate)]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn upto(mut self, max: u16) -> Self {
        self.max_index = max;
        self
    }
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Every key, in the order in which it is documented and shown.
pub static SCHEMA: &[Key] = &[
    key("instance.id", Id, Computed("host name"),
        "Unique in the cluster: the name of this instance in consumer tags, queues, replies and the status page. Default: the host name up to the first dot, in lower case, other characters as dashes."),
    key("instance.site", Label, Computed("instance.id"), "Where the instance runs; shown everywhere."),
    key("cluster.name", ClusterName, Is("tandem"),
        "Instances of one name are peers; broker objects begin with it. The same in all files of a cluster."),
    key("mode", OneOf(&["active-passive", "active-active"]), Is("active-passive"),
        "active-passive: the live instance with the highest consumer.priority leads. active-active: every instance serves what arrives at its own broker. The same in all files of a cluster."),
    key("broker.url.N", BrokerUrl, Required("at least broker.url.1"),
        "Brokers in order of preference. Active-passive: the same order in all files. Active-active: the own site's broker first. One entry a broker: a cluster is one broker and lists the addresses of its nodes, 16 at most, which are tried in turn. Default port 5672, with amqps 5671.")
        .alias(&[("ActiveMq_URL_N", Same), ("ACTIVEMQN", Same)]).upto(MAX_BROKERS),
    key("broker.username", Text, Is("guest"), "User name for brokers whose URL has none. RabbitMQ lets guest in from loopback only."),
    key("broker.password", Secret(0), Is("guest"), "Password for brokers whose URL has none."),
    key("broker.vhost", Text, Is("/"), "Virtual host for brokers whose URL has none."),
    key("broker.management-url.N", HttpUrls, Computed("the broker's host, port 15672; https for amqps"),
        "Management API of broker N, for `tandem topology`, `tandem doctor` and broker.fence. Credentials are the broker's unless the URL has its own. Of a cluster those of several nodes, tried in turn. RabbitMQ's usual management port with TLS is 15671.").upto(MAX_BROKERS),
    key("broker.randomize", Bool, Is("false"), "Shuffle the list. Leave it off for a pair: the order carries meaning.").alias(&[("RANDOMIZE", Same)]),
    key("broker.priority-backup", Bool, Is("true"), "Return to broker 1 when it is healthy again.").alias(&[("PRIORITY_BACKUP", Same)]),
    key("broker.failback-hold", Duration(0, HOUR), Is("5s"), "How long the preferred broker must be healthy before the return. Longer than a broker's restart takes to settle."),
    key("broker.backup", Bool, Is("true"), "Keep a warm spare connection to the next broker: failover in about a second, and a second path for heartbeats."),
    key("broker.timeout", Duration(100, 5 * MINUTE), Is("10s"), "Bound of one connect-and-open, TLS and login included.")
        .alias(&[("ActiveMq_Timeout", Millis), ("ACTIVEMQ_TIMEOUT", Millis)]),
    key("broker.reconnect-delay", Duration(10, MINUTE), Is("100ms"), "First pause between rounds through the list; grows exponentially with jitter, for ever."),
    key("broker.reconnect-delay-max", Duration(10, 10 * MINUTE), Is("5s"), "Longest such pause; not below broker.reconnect-delay."),
    key("broker.heartbeat", WholeSeconds(SECOND, MINUTE), Is("2s"), "AMQP heartbeat. A frozen process keeps its messages for two to three of these."),
    key("broker.probe-interval", Duration(100, MINUTE), Is("500ms"), "Pause between two messages that an instance sends itself over the broker in use, to tell a broker that is wedged from one that has nothing to say."),
    key("broker.probe-count", Int(2, 1_000), Is("3"), "So many of these in a row without an answer, and without anything else that the broker did meanwhile: the next broker is used. More on machines that are short of CPU."),
    key("broker.fence", Bool, Is("false"), "Close a frozen peer's broker connection through the management API; needs a user with the tag `administrator` and a reachable management URL."),
    key("broker.ca-file", Path, NotSet, "PEM file of private certificate authorities for amqps and https management URLs, used beside the system's. A broker whose own certificate is in the file, exactly as it shows it, is trusted whoever signed it; host name and validity are checked all the same."),
    key("broker.certificate-file", Path, NotSet, "PEM file of the client certificate for brokers and management APIs that demand one, followed by those that lead to its authority; together with broker.private-key-file. Where neither broker.username nor the URL names a user, the certificate is the login too (SASL EXTERNAL)."),
    key("broker.private-key-file", Path, NotSet, "PEM file of the key of broker.certificate-file: PKCS#8, PKCS#1 or SEC1, not encrypted, readable for this user only."),
    key("federation.ca-file", FarPath, NotSet, "PEM file ON THE BROKERS' machines with the authorities by which brokers judge each other where their URL is amqps: `tandem topology apply` puts it into the upstreams' URIs with verify=verify_peer. RabbitMQ 4.0 connects with no amqps link without it, 3.10 judges nothing without it. The same in all files of a cluster."),
    key("federation.certificate-file", FarPath, NotSet, "PEM file ON THE BROKERS' machines of the client certificate that a broker shows the others' amqps port; together with federation.private-key-file and federation.ca-file. The same in all files of a cluster."),
    key("federation.private-key-file", FarPath, NotSet, "PEM file ON THE BROKERS' machines of the key of federation.certificate-file, readable for RabbitMQ's user. The same in all files of a cluster."),
    key("queue.type", OneOf(&["classic", "quorum"]), Is("classic"),
        "Type of the command, expired and dead-letter queues. quorum: replicated between the nodes of a cluster, so that a lost node stops nothing; needs RabbitMQ 4.0 or later on every broker. A queue keeps the type it was declared with. The same in all files of a cluster."),
    key("command.queue", Queue, Is("Connector1"), "The command queue of group `agents`. The same in all files of a cluster."),
    key("group.NAME.queues", Queues, NotSet, "A further group and its command queues, started, stopped and failed over as one. NAME is [a-z0-9-]{1,32}, not `agents`."),
    key("group.NAME.priority", Int(0, 127), NotSet, "Consumer priority of that group; without it consumer.priority. Two instances can so lead a group each and stand in for each other."),
    key("command.hash-exchange", OneOf(&["off", "routing-key", "header"]), Is("off"),
        "An exchange, `tandem.commands` where cluster.name is tandem, made by `tandem topology apply`, which spreads agents over the command queues of all groups: all commands of one agent go to one queue. Told apart by the routing key, which clients then set to the agent's id, or by the header `x-agent`. Needs RabbitMQ's plug-in rabbitmq_consistent_hash_exchange on every broker; see docs/tuning.md. The same in all files of a cluster."),
    key("command.hash-weight", Int(0, MAX_WEIGHT), Is("1"), "Share of command.queue in that, against the others' weights; 0: no agent is sent there. The same in all files of a cluster."),
    key("group.NAME.hash-weight", Int(0, MAX_WEIGHT), NotSet, "The same for each queue of that group; without it 1."),
    key("command.max-age", Duration(SECOND, 24 * HOUR), Is("30s"),
        "A command without its own deadline is not started later than this after its timestamp; also the command queue's message TTL. A little longer than clients wait. The same in all files of a cluster."),
    key("command.remembered", Int(1_000, 50_000_000), Is("3000000"),
        "Outcomes of commands that are remembered, so that a command sent again is answered and not run again. The promise is ten minutes; 3,000,000 are 5,000 commands a second for so long, at 80 to 120 bytes each. When there are more the oldest are forgotten early, with a warning."),
    key("consumer.priority", Int(0, 127), Is("127"), "Consumer priority. Active-passive: highest leads, so give the second site a lower one (100).").alias(&[("GRC_CONSUMER_PRIORITY", Same)]),
    key("consumer.prefetch", Int(1, 65_535), Is("1000"), "Commands that the broker hands out before acknowledgement. Higher only with very slow downstreams: what is handed out to a frozen instance waits with it.")
        .alias(&[("PREFETCH_SIZE", Same), ("PREFECT_SIZE", Same)]),
    key("peer.heartbeat", Duration(20, MINUTE), Is("500ms"), "Pause between heartbeats to peers. The same in all files of a cluster."),
    key("peer.suspect", Duration(40, 5 * MINUTE), Is("1500ms"), "Silence after which a peer is suspected; longer than peer.heartbeat, best three of them. Pauses shorter than this cause no takeover."),
    key("peer.lost", Duration(60, 10 * MINUTE), Is("3s"), "Silence after which a peer is lost and taken over; longer than peer.suspect."),
    key("takeback.hold", Duration(0, HOUR), Is("10s"), "Active-passive: how long a returned instance of higher priority must be stable before it takes back; doubles when it flaps."),
    key("takeover.rate", Int(1, 100_000), Is("200"), "Notification sign-ins a second during takeover. As many as the downstream bears; it logs agents out after 60 s without one."),
    key("downstream.kind", OneOf(&["finesse", "http"]), Is("finesse"), "finesse: agent commands. http: `Call` commands to any HTTP service."),
    key("downstream.url.N", HttpUrl, Required("at least downstream.url.1, or with finesse downstream.address.1"),
        "Primary (1) and secondary (2) base URL. A blank one is derived from downstream.address.N as https://ADDRESS:8445/finesse/api. Active-active: the own site's first.")
        .alias(&[("Finesse_N", Same)]).upto(MAX_NODES),
    key("downstream.address.N", Host, Computed("host of downstream.url.N"), "Host for health and notification connections.")
        .alias(&[("SERVER_ADDRESS_N", Same)]).upto(MAX_NODES),
    key("downstream.request-timeout", Duration(50, 5 * MINUTE), Is("3s"), "Bound of one request. A call that runs into it may have been executed, so not too short.").alias(&[("FINESSE_REQUEST_TIMEOUT", Millis)]),
    key("downstream.probe-interval", Duration(100, 10 * MINUTE), Is("5s"), "Pause between health probes.").alias(&[("FINESSE_HEARTBEAT_SLEEP", Seconds)]),
    key("downstream.admin-user", Text, NotSet, "Administrator for lists that agents may not read; together with downstream.admin-password.").alias(&[("ADMIN_ID", Same)]),
    key("downstream.admin-password", Secret(0), NotSet, "Password of downstream.admin-user.").alias(&[("ADMIN_PASSWORD", Same)]),
    key("downstream.failback", Bool, Is("false"), "Return to the primary downstream when it is back. Each change signs every agent in again."),
    key("downstream.ca-file", Path, NotSet, "PEM file of private certificate authorities for https, used beside the system's. A node whose own certificate is in the file, exactly as it shows it, is trusted whoever signed it; host name and validity are checked all the same."),
    key("downstream.certificate-file", Path, NotSet, "PEM file of the client certificate for a downstream that demands one, its notification service included; together with downstream.private-key-file."),
    key("downstream.private-key-file", Path, NotSet, "PEM file of the key of downstream.certificate-file: PKCS#8, PKCS#1 or SEC1, not encrypted, readable for this user only."),
    key("downstream.tls-verify", Bool, Is("true"), "Check certificates of the downstream, its notification service included. false lets anybody in between read agents' passwords: give downstream.ca-file instead.").alias(&[("ByPass_SSL", Not)]),
    key("downstream.allow.N", Allow, NotSet, "downstream.kind = http: what `Call` commands may do; nothing else is allowed.").upto(MAX_ALLOW),
    key("agent.states-interval", Duration(100, HOUR), Is("5s"), "Pause between `AgentStates` snapshots.").alias(&[("AGENT_STATES_PUBLISHER_DURATION", Millis)]),
    key("agent.not-ready-reason", ReasonId, NotSet, "Reason id for a forced NOT_READY; it must exist in the downstream.").alias(&[("DEFAULT_NOT_READY_REASON", Same)]),
    key("agent.logout-reason", ReasonId, NotSet, "Reason id for a forced LOGOUT; with a wrong one the agent stays signed in.").alias(&[("DEFAULT_LOGOUT_REASON", Same)]),
    key("agent.supervisor-not-ready-reason", ReasonId, NotSet, "Reason id when a supervisor makes an agent not ready.")
        .alias(&[("Supervisor_initiated_NotReadyReasonCode", Same), ("SUPERVISOR_INITIATED_NOTRAADYREASONCODE", Same)]),
    key("agent.supervisor-logout-reason", ReasonId, NotSet, "Reason id when a supervisor signs an agent out.").alias(&[("Supervisor_initiated_LogOutReasonCode", Same)]),
    key("agent.make-ready", Bool, Is("false"), "Make an agent READY right after `Login`. The original's 3.x default was true.").alias(&[("MAKE_AGENT_READY", Same)]),
    key("notify.port", Int(1, 65_535), Is("5223"), "Port of the notification service (XMPP over TCP)."),
    key("notify.tls", Bool, Is("true"), "true: TLS from the first byte. false: plain, with STARTTLS where the server offers it."),
    key("notify.connect-timeout", Duration(100, 5 * MINUTE), Is("10s"), "Bound of one agent's sign-in to the notification service.").alias(&[("AGENT_XMPP_SUBS_TIME", Millis)]),
    key("notify.ping-interval", Duration(500, 10 * MINUTE), Is("3s"), "Pause between pings on a notification connection.").alias(&[("XMPP_PING_INTERVAL", Seconds)]),
    key("notify.ca-file", Path, Computed("downstream.ca-file"), "PEM file of private certificate authorities for the notification service, used beside the system's and in place of downstream.ca-file."),
    key("message.format", OneOf(&["json", "default", "default-values"]), Is("json"), "Form of events: json, or default (the # form); default-values has call variables there without their names. The same in all files of a cluster.").alias(&[("MESSAGE_FORMAT", Same)]),
    key("control.key", Secret(32), NotSet, "Shared secret that seals peer messages: the same in all files of a cluster, for example from `openssl rand -hex 32`. Only a single instance works without."),
    key("control.previous-key", Secret(32), NotSet, "The key before, accepted while keys are rotated."),
    key("data.dir", Path, Computed("./data/<instance.id>"), "Journal, epochs, sealed sessions, group states. On a local disk; one folder an instance. A relative path starts at the working directory."),
    key("admin.listen", Listen, Is("127.0.0.1:9601"), "HTTP: status page, API, health, metrics."),
    key("admin.token", Secret(0), NotSet, "Bearer token for every call that wants one (see docs/security.md). Without it and without admin.tokens-file such calls are refused unless the listener is loopback."),
    key("admin.tokens-file", Path, NotSet, "Named tokens with a role, `read` or `operate`, one line each: NAME ROLE sha256:HASH. `tandem token` makes token and line. Used beside admin.token, which is good for everything."),
    key("admin.open-reads", Bool, Is("false"), "true: off loopback too nobody needs a token to read, agents and verbs aside. Health (/livez, /readyz, /leader, /follower) and /metrics are open in any case."),
    key("admin.page-url", HttpUrl, Computed("admin.listen, where that is one address"), "Address of the status page as people reach it. The peers' pages link to it."),
    key("admin.certificate-file", Path, NotSet, "PEM file of the certificate that the admin listener shows, followed by those that lead to its authority; together with admin.private-key-file. The listener then speaks https only."),
    key("admin.private-key-file", Path, NotSet, "PEM file of the key of admin.certificate-file: PKCS#8, PKCS#1 or SEC1, not encrypted, readable for this user only."),
    key("rest.listen", Listen, NotSet, "HTTP entrance for commands (`POST /gc/command`). Without it there is none, unless rest.enabled says so. Off loopback rest.token-file is needed. The original's port number means all addresses; without a token this machine only, with a warning.").alias(&[("SPRING_PORT", OnAllAddresses)]),
    key("rest.enabled", Bool, Computed("true where rest.listen is set"), "Whether there is an HTTP entrance. true without rest.listen: at the original's port, 0.0.0.0:8112; by the original's name and without a token 127.0.0.1:8112.").alias(&[("COMMUNICATION_FORMAT", RestFormat)]),
    key("rest.token", Secret(0), NotSet, "Bearer token for every command of the HTTP entrance."),
    key("rest.open", Bool, Is("false"), "Take commands off loopback without a token. Only behind something that asks for one."),
    key("rest.certificate-file", Path, NotSet, "PEM file of the certificate that the HTTP entrance shows, followed by those that lead to its authority; together with rest.private-key-file. The entrance then speaks https only."),
    key("rest.private-key-file", Path, NotSet, "PEM file of the key of rest.certificate-file: PKCS#8, PKCS#1 or SEC1, not encrypted, readable for this user only."),
    key("rest.callback.allow.N", HttpUrl, NotSet, "Where events may be posted: scheme, host and port of a callback must be those of an entry, and its path must begin with the entry's. Nothing else is called, addresses of private networks included. Without an entry and without rest.callback.url callbacks are ignored. The same in all files of a cluster.").upto(MAX_CALLBACKS),
    key("rest.callback.url", HttpUrl, NotSet, "Where the events of destinations go whose Hello or Connect came through the HTTP entrance and names no callback; allowed by itself.").alias(&[("FRONT_END_EVENT_SEND_REST_API", Same), ("PEP_BASE_PATH", Same)]),
    key("rest.callback.path", Text, NotSet, "Path that is added to a callback that names none, rest.callback.url included.").alias(&[("AOP_CALLBACK", Same)]),
    key("rest.callback.token", Secret(0), NotSet, "Bearer token of every posted event."),
    key("rest.callback.sign-key", Secret(32), NotSet, "Key by which every posted event is signed (header X-Tandem-Signature, see docs/http-entrance.md), for example from `openssl rand -hex 32`. The same in all files of a cluster."),
    key("rest.callback.ca-file", Path, NotSet, "PEM file of private certificate authorities for https callbacks, used beside the system's."),
    key("rest.callback.timeout", Duration(100, MINUTE), Is("5s"), "Bound of one posted event, its answer included."),
    key("rest.callback.max-age", Duration(10_000, HOUR), Is("5m"), "An event that is not taken is posted again until it is older than this, and then dropped. Clocks of the instances must agree."),
    key("trace.generate", Bool, Is("false"), "Give a command that comes without a `traceparent` a trace of its own, made from its id. The same in all files of a cluster."),
    key("shutdown.grace", Duration(0, 10 * MINUTE), Is("10s"), "How long a stop may take; shorter than the service manager's patience."),
    key("log.format", OneOf(&["text", "json"]), Is("text"), "Form of log lines."),
    key("log.level", LogLevel, Is("info"), "How much is logged.").alias(&[("LOGLEVEL", LogLevelNames)]),
];

/// What a name in a file or the environment turns out to be.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// A key of the table.
    Known {
        /// The key.
        key: &'static Key,
        /// Its full name, with number or group name filled in.
        name: String,
        /// How the value is translated.
        translate: Translate,
        /// Whether the value is the name of a file that holds it (`<key>-file`).
        from_file: bool,
    },
    /// A key of the original without meaning here.
    Ignored(&'static Ignored),
    /// A key with a number or name that is not possible; what is allowed.
    BadIndex(String),
    /// Nothing known.
    Unknown,
}

/// Finds a name, in any letter case.
pub fn find(name: &str) -> Lookup {
    let lower = name.to_ascii_lowercase();
    let mut bad = None;
    for key in SCHEMA {
        let names = std::iter::once((key.name, Same)).chain(key.aliases.iter().copied());
        for (pattern, translate) in names {
            let index = match matches(pattern, &lower, key) {
                Match::Yes(index) => index,
                Match::BadIndex(allowed) => {
                    bad = Some(allowed);
                    continue;
                }
                Match::No => continue,
            };
            let name = key.name.replace("NAME", &index);
            let name = if key.max_index > 0 {
                name.replace(".N", &format!(".{index}"))
            } else {
                name
            };
            return Lookup::Known {
                key,
                name,
                translate,
                from_file: false,
            };
        }
        if key.kind.is_secret() && lower.strip_suffix("-file") == Some(key.name) {
            let name = key.name.to_owned();
            return Lookup::Known {
                key,
                name,
                translate: Same,
                from_file: true,
            };
        }
    }
    if let Some(ignored) = alias::ignored(&lower) {
        return Lookup::Ignored(ignored);
    }
    bad.map_or(Lookup::Unknown, Lookup::BadIndex)
}

enum Match {
    Yes(String),
    BadIndex(String),
    No,
}

fn matches(pattern: &str, lower: &str, key: &Key) -> Match {
    if key.max_index > 0 {
        let stem = pattern
            .strip_suffix('N')
            .unwrap_or(pattern)
            .to_ascii_lowercase();
        let Some(number) = lower.strip_prefix(&stem) else {
            return Match::No;
        };
        return match number.parse::<u16>() {
            Ok(n) if (1..=key.max_index).contains(&n) && number == n.to_string() => {
                Match::Yes(number.to_owned())
            }
            Err(_) if !number.bytes().all(|b| b.is_ascii_digit()) => Match::No,
            _ => Match::BadIndex(format!("{pattern} with N from 1 to {}", key.max_index)),
        };
    }
    if let Some((before, after)) = pattern.split_once("NAME") {
        let group = lower
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after));
        return match group {
            None => Match::No,
            Some(group) if is_group(group) => Match::Yes(group.to_owned()),
            Some(_) => Match::BadIndex(group_allowed(pattern)),
        };
    }
    if pattern.eq_ignore_ascii_case(lower) {
        Match::Yes(String::new())
    } else {
        Match::No
    }
}

/// Whether a further group may have this name.
pub fn is_group(name: &str) -> bool {
    super::value::is_id(name) && name != "agents"
}

/// What a group's name in a key may be, in words.
pub fn group_allowed(pattern: &str) -> String {
    format!(
        "{pattern} with NAME as [a-z0-9-]{{1,32}}, not `agents` (it has command.queue, command.hash-weight and consumer.priority)"
    )
}

/// The group that a full name is a key of.
pub fn group_of(name: &str) -> Option<String> {
    let keys = SCHEMA.iter().filter(|key| key.name.contains("NAME"));
    let mut groups = keys.filter_map(|key| {
        let (before, after) = key.name.split_once("NAME")?;
        let group = name.strip_prefix(before)?.strip_suffix(after)?;
        is_group(group).then(|| group.to_owned())
    });
    groups.next()
}

/// Slips from one name to another: letters wrong, missing, surplus or swapped. `None` where they
/// are more than a third of the letters: a suggestion would confuse more than it helps.
fn slips(name: &str, candidate: &str) -> Option<usize> {
    let (given, known) = (name.chars().count(), candidate.chars().count());
    let near = |slips: usize| slips * 3 <= given.max(known);
    // At least as many as the lengths differ by: a very long name is not looked at further.
    let slips = near(given.abs_diff(known)).then(|| strsim::osa_distance(name, candidate))?;
    near(slips).then_some(slips)
}

/// The known name that looks most like `name`, if any is near it.
pub fn nearest(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let digits: String = lower
        .chars()
        .rev()
        .take_while(char::is_ascii_digit)
        .collect();
    let number: String = if digits.is_empty() {
        "1".into()
    } else {
        digits.chars().rev().collect()
    };
    let own = SCHEMA.iter().flat_map(|key| {
        let file = key.kind.is_secret().then(|| format!("{}-file", key.name));
        let indexed = key.max_index > 0;
        let fill = |pattern: &str| match pattern.strip_suffix('N') {
            Some(stem) if indexed => format!("{stem}{number}"),
            _ => pattern.to_owned(),
        };
        let names: Vec<String> = std::iter::once(key.name)
            .chain(key.aliases.iter().map(|(a, _)| *a))
            .map(fill)
            .collect();
        names.into_iter().chain(file)
    });
    own.chain(alias::IGNORED.iter().map(|i| i.name.to_owned()))
        .filter_map(|candidate| {
            let slips = slips(&lower, &candidate.to_ascii_lowercase())?;
            Some((slips, candidate))
        })
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> String {
        match find(name) {
            Lookup::Known { name, .. } => name,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn names_aliases_and_numbers_are_found_in_any_case() {
        assert_eq!(known("Broker.URL.2"), "broker.url.2");
        assert_eq!(known("ActiveMq_URL_1"), "broker.url.1");
        assert_eq!(known("ACTIVEMQ2"), "broker.url.2");
        assert_eq!(known("activemq_timeout"), "broker.timeout");
        assert_eq!(known("finesse_2"), "downstream.url.2");
        assert_eq!(
            known("FINESSE_REQUEST_TIMEOUT"),
            "downstream.request-timeout"
        );
        assert_eq!(
            known("group.night-shift.queues"),
            "group.night-shift.queues"
        );
        assert_eq!(known("control.key-file"), "control.key");
    }

    #[test]
    fn impossible_numbers_and_group_names_say_what_is_allowed() {
        for name in [
            "broker.url.0",
            "broker.url.17",
            "broker.url.01",
            "Finesse_3",
            "downstream.url.99999",
            "group.agents.queues",
            "group.agents.priority",
            "group.agents.hash-weight",
            "group.A_B.queues",
        ] {
            assert!(matches!(find(name), Lookup::BadIndex(_)), "{name}");
        }
    }

    #[test]
    fn every_name_is_unambiguous() {
        let mut seen = std::collections::BTreeSet::new();
        let ignored = alias::IGNORED
            .iter()
            .map(|i| vec![i.name.to_ascii_lowercase()]);
        let keys = SCHEMA.iter().map(|key| {
            let names = std::iter::once(key.name).chain(key.aliases.iter().map(|a| a.0));
            // 3.x and 4.x spellings may differ in letter case only.
            let mut names: Vec<_> = names.map(str::to_ascii_lowercase).collect();
            names.sort();
            names.dedup();
            names
        });
        for name in keys.chain(ignored).flatten() {
            assert!(seen.insert(name.clone()), "{name} twice");
        }
    }

    #[test]
    fn suggestions_are_near() {
        assert_eq!(
            nearest("broker.pasword").as_deref(),
            Some("broker.password")
        );
        assert_eq!(nearest("broker.ulr.2").as_deref(), Some("broker.url.2"));
        assert_eq!(
            nearest("GRC_CONSUMER_PRIORTY").as_deref(),
            Some("GRC_CONSUMER_PRIORITY")
        );
        assert_eq!(
            nearest("broker.usrname").as_deref(),
            Some("broker.username")
        );
        assert_eq!(
            nearest("comand.max_age").as_deref(),
            Some("command.max-age")
        );
        for strange in ["qqq", "foo", "a", "", "reason", "agent", "foo.bar", "color"] {
            assert_eq!(nearest(strange), None, "{strange}");
        }
    }
}
