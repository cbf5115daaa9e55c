//! Candidates to settings: defaults, derived values, and the checks between keys.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::finding::{Finding, Findings, shown};
use super::schema::{self, Default_, SCHEMA};
use super::secret::{REDACTED, Secret};
use super::source::{Candidate, Given, Origin, beside};
use super::url::BrokerAddress;
use super::value::{self, Value, bare, duration_text, is_loopback};
use super::{
    Admin, Agent, AllowRule, Broker, BrokerUrl, Consumer, Control, Credentials, Downstream, DownstreamKind, Effective,
    Group, Instance, Log, LogFormat, ManagementUrl, MessageFormat, Mode, Node, Notify, NotifyTls, Peer, Settings,
};

/// Builds settings; `None` only where something that cannot be done without is missing or wrong,
/// and then `findings` says so.
pub(super) fn assemble(path: &Path, given: &Given, findings: &mut Findings) -> (Option<Settings>, Vec<Effective>) {
    let mut v = Validator { path, given, findings, derived: Vec::new() };
    let instance = v.instance();
    let cluster_name = v.text("cluster.name");
    let broker = v.broker();
    let groups = v.groups(&cluster_name);
    let peer = v.peer();
    let downstream = v.downstream();
    let notify = v.notify(&downstream);
    let settings = Settings {
        cluster_name,
        mode: if v.text("mode") == "active-active" { Mode::ActiveActive } else { Mode::ActivePassive },
        groups,
        command_max_age: v.duration("command.max-age"),
        consumer: Consumer {
            priority: u8::try_from(v.int("consumer.priority")).unwrap_or(u8::MAX),
            prefetch: u16::try_from(v.int("consumer.prefetch")).unwrap_or(u16::MAX),
        },
        peer,
        takeback_hold: v.duration("takeback.hold"),
        takeover_rate: u32::try_from(v.int("takeover.rate")).unwrap_or(u32::MAX),
        agent: v.agent(),
        notify,
        message_format: if v.text("message.format") == "json" { MessageFormat::Json } else { MessageFormat::Default },
        control: v.control(),
        data_dir: v.data_dir(&instance.id),
        admin: v.admin(),
        shutdown_grace: v.duration("shutdown.grace"),
        log: Log {
            format: if v.text("log.format") == "json" { LogFormat::Json } else { LogFormat::Text },
            level: v.text("log.level"),
        },
        instance,
        broker,
        downstream,
    };
    let usable = !settings.broker.urls.is_empty() && !settings.downstream.nodes.is_empty();
    let effective = v.effective();
    (usable.then_some(settings), effective)
}

struct Validator<'a> {
    path: &'a Path,
    given: &'a Given,
    findings: &'a mut Findings,
    /// Values that were computed: full name, value as it may be shown.
    derived: Vec<(String, String)>,
}

/// Access to single values.
impl Validator<'_> {
    fn candidate(&self, name: &str) -> Option<&Candidate> {
        self.given.values.get(name)
    }

    fn failed(&self, name: &str) -> bool {
        self.given.failed.iter().any(|failed| failed == name)
    }

    /// The given value, else the table's default.
    fn value(&self, name: &str) -> Option<Value> {
        if let Some(candidate) = self.candidate(name) {
            return Some(candidate.value.clone());
        }
        let key = SCHEMA.iter().find(|key| key.name == name)?;
        match key.default {
            Default_::Is(text) => value::parse(key.kind, text).ok(),
            _ => None,
        }
    }

    fn text_opt(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    // The table gives every key that the next four read a default of the right type; a unit test
    // loads a file that sets none of them.
    fn text(&self, name: &str) -> String {
        self.text_opt(name).unwrap_or_default()
    }

    fn bool(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Bool(true)))
    }

    fn int(&self, name: &str) -> u64 {
        match self.value(name) {
            Some(Value::Int(number)) => number,
            _ => 0,
        }
    }

    fn duration(&self, name: &str) -> Duration {
        match self.value(name) {
            Some(Value::Duration(duration)) => duration,
            _ => Duration::ZERO,
        }
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        match self.value(name) {
            Some(Value::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    /// A file that must be readable; relative ones start at the property file's folder.
    fn file(&mut self, name: &str) -> Option<PathBuf> {
        let candidate = self.given.values.get(name)?;
        let Value::Text(text) = &candidate.value else { return None };
        let path = match &candidate.origin {
            Origin::File(file, _) => beside(file, text),
            Origin::Env(_) => PathBuf::from(text),
        };
        if let Err(e) = std::fs::File::open(&path) {
            let message = format!("{} cannot be read: {e}", path.display());
            self.about(name, Finding::error(message).allowed("a readable PEM file"));
        }
        Some(path)
    }

    /// Reports about a key, where it was given if it was given.
    fn about(&mut self, name: &str, finding: Finding) {
        let finding = match self.given.values.get(name) {
            Some(candidate) => candidate.locate(finding),
            None => finding.at(self.path, None).key(name),
        };
        self.findings.push(finding);
    }

    fn derive(&mut self, name: &str, value: &str) {
        self.derived.push((name.to_owned(), shown(value)));
    }
}

/// The parts.
impl Validator<'_> {
    fn instance(&mut self) -> Instance {
        let id = self.text_opt("instance.id").unwrap_or_else(|| {
            let host = hostname::get().unwrap_or_default();
            let id = id_from_host(&host.to_string_lossy());
            self.derive("instance.id", &id);
            id
        });
        let site = self.text_opt("instance.site").unwrap_or_else(|| {
            self.derive("instance.site", &id);
            id.clone()
        });
        Instance { id, site }
    }

    fn broker(&mut self) -> Broker {
        let urls = self.broker_urls();
        let (first, max) = (self.duration("broker.reconnect-delay"), self.duration("broker.reconnect-delay-max"));
        if first > max {
            let message = format!("it is below broker.reconnect-delay, {}", text(first));
            self.about("broker.reconnect-delay-max", Finding::error(message).allowed("broker.reconnect-delay or longer"));
        }
        Broker {
            urls,
            randomize: self.bool("broker.randomize"),
            priority_backup: self.bool("broker.priority-backup"),
            failback_hold: self.duration("broker.failback-hold"),
            backup: self.bool("broker.backup"),
            timeout: self.duration("broker.timeout"),
            reconnect_delay: first,
            reconnect_delay_max: max,
            heartbeat: self.duration("broker.heartbeat"),
            fence: self.bool("broker.fence"),
            ca_file: self.file("broker.ca-file"),
        }
    }

    fn broker_urls(&mut self) -> Vec<BrokerUrl> {
        let mut urls: Vec<BrokerUrl> = Vec::new();
        let mut tried = false;
        for n in 1..=schema::MAX_BROKERS {
            let (name, management) = (format!("broker.url.{n}"), format!("broker.management-url.{n}"));
            tried |= self.failed(&name);
            let Some(Value::Broker(address)) = self.value(&name) else {
                if self.candidate(&management).is_some() && !self.failed(&name) {
                    self.about(&management, Finding::error(format!("there is no {name} that it belongs to")));
                }
                continue;
            };
            let label = address.label();
            if urls.iter().any(|other| other.label == label) {
                self.about(&name, Finding::error("this broker is in the list already").allowed("each broker once"));
                continue;
            }
            if !address.tls && !is_loopback(&address.host) {
                self.about(&name, Finding::warning("plain AMQP to another machine: agents' passwords can be read on the way; use amqps://"));
            }
            urls.push(self.broker_url(&address, &management));
        }
        if urls.is_empty() && !tried {
            self.about("broker.url.1", Finding::error("no broker is given").allowed("host:port, amqp://… or amqps://…"));
        }
        urls
    }

    fn broker_url(&mut self, address: &BrokerAddress, management: &str) -> BrokerUrl {
        let default_user = self.text("broker.username");
        let default_password = self.secret("broker.password").unwrap_or_else(|| Secret::new(""));
        let amqp = address.uri(&default_user, &default_password, &self.text("broker.vhost"));
        let mut username = address.user.clone().unwrap_or(default_user);
        let mut password = address.password.clone().unwrap_or(default_password);
        let url = match self.value(management) {
            Some(Value::Http(http)) => {
                if !http.tls && !is_loopback(&http.host) {
                    self.about(management, Finding::warning("plain http to another machine: the broker's password can be read on the way; use https://"));
                }
                username = http.user.unwrap_or(username);
                password = http.password.unwrap_or(password);
                http.url
            }
            _ => {
                let scheme = if address.tls { "https" } else { "http" };
                let url = format!("{scheme}://{}:15672", address.host);
                self.derive(management, &url);
                url
            }
        };
        BrokerUrl { amqp, label: address.label(), management: ManagementUrl { url, username, password } }
    }

    fn groups(&mut self, cluster: &str) -> Vec<Group> {
        let mut groups = vec![Group { name: "agents".into(), queues: vec![self.text("command.queue")] }];
        let mut keys = vec!["command.queue".to_owned()];
        for (key, candidate) in &self.given.values {
            if let (Some(name), Value::Queues(queues)) = (group_name(key), &candidate.value) {
                groups.push(Group { name: name.to_owned(), queues: queues.clone() });
                keys.push(key.clone());
            }
        }
        let own = format!("{cluster}.");
        for (at, key) in keys.iter().enumerate() {
            for queue in &groups[at].queues {
                if queue.starts_with(&own) {
                    let message = format!("queue {queue} has a name that this cluster's own objects use");
                    self.about(key, Finding::error(message).allowed(format!("no name that begins with {own}")));
                }
                if let Some(other) = groups[..at].iter().find(|group| group.queues.contains(queue)) {
                    let message = format!("queue {queue} belongs to group {} already", other.name);
                    self.about(key, Finding::error(message).allowed("each queue in one group"));
                }
            }
        }
        groups
    }

    fn peer(&mut self) -> Peer {
        let peer = Peer {
            heartbeat: self.duration("peer.heartbeat"),
            suspect: self.duration("peer.suspect"),
            lost: self.duration("peer.lost"),
        };
        let values = format!(
            "peer.heartbeat = {}, peer.suspect = {}, peer.lost = {}",
            text(peer.heartbeat), text(peer.suspect), text(peer.lost)
        );
        if peer.suspect <= peer.heartbeat {
            let finding = Finding::error(format!("peer.suspect must be longer than peer.heartbeat; now {values}"));
            self.about("peer.suspect", finding.allowed("heartbeat < suspect < lost"));
        } else if peer.suspect < 2 * peer.heartbeat {
            let finding = Finding::warning(format!("one late heartbeat makes a peer suspected; now {values}"));
            self.about("peer.suspect", finding.allowed("best three times peer.heartbeat"));
        }
        if peer.lost <= peer.suspect {
            let finding = Finding::error(format!("peer.lost must be longer than peer.suspect; now {values}"));
            self.about("peer.lost", finding.allowed("heartbeat < suspect < lost"));
        }
        peer
    }

    fn downstream(&mut self) -> Downstream {
        let kind = if self.text("downstream.kind") == "http" { DownstreamKind::Http } else { DownstreamKind::Finesse };
        let nodes = self.nodes(kind);
        let allow = self.allow(kind);
        let tls_verify = self.bool("downstream.tls-verify");
        if !tls_verify {
            let message = "certificates are not checked: anybody on the way can read agents' passwords; give downstream.ca-file instead";
            self.about("downstream.tls-verify", Finding::warning(message));
        }
        Downstream {
            kind,
            nodes,
            request_timeout: self.duration("downstream.request-timeout"),
            probe_interval: self.duration("downstream.probe-interval"),
            admin: self.downstream_admin(),
            failback: self.bool("downstream.failback"),
            ca_file: self.file("downstream.ca-file"),
            tls_verify,
            allow,
        }
    }

    fn nodes(&mut self, kind: DownstreamKind) -> Vec<Node> {
        let mut nodes: Vec<Node> = Vec::new();
        let mut tried = false;
        for n in 1..=schema::MAX_NODES {
            let (url_key, address_key) = (format!("downstream.url.{n}"), format!("downstream.address.{n}"));
            let bad = self.failed(&url_key) || self.failed(&address_key);
            let address = self.text_opt(&address_key);
            let node = match (self.value(&url_key), address) {
                (Some(Value::Http(_)), address) => Some(self.node(&url_key, &address_key, address, kind)),
                (_, Some(address)) if !bad && kind == DownstreamKind::Finesse => {
                    let host = if bare(&address).contains(':') { format!("[{}]", bare(&address)) } else { address.clone() };
                    let url = format!("https://{host}:8445/finesse/api");
                    self.derive(&url_key, &url);
                    Some(Node { url, address: bare(&address).to_owned() })
                }
                (_, Some(_)) if !bad => {
                    self.about(&address_key, Finding::error(format!("with downstream.kind = http, {url_key} must be given too")));
                    None
                }
                _ => None,
            };
            if n > 1 && node.is_some() && nodes.is_empty() && !tried {
                self.about(&url_key, Finding::error("there is a secondary downstream but no primary").allowed("downstream.url.1 first"));
            }
            tried |= bad || node.is_some();
            nodes.extend(node);
        }
        if nodes.is_empty() && !tried {
            let finding = Finding::error("no downstream is given");
            self.about("downstream.url.1", finding.allowed("http://… or https://…; with finesse downstream.address.1 is enough"));
        }
        nodes
    }

    fn node(&mut self, url_key: &str, address_key: &str, address: Option<String>, kind: DownstreamKind) -> Node {
        let Some(Value::Http(http)) = self.value(url_key) else {
            return Node { url: String::new(), address: String::new() };
        };
        if http.user.is_some() || http.password.is_some() {
            self.about(url_key, Finding::error("credentials do not belong into this URL").allowed("downstream.admin-user and downstream.admin-password"));
        }
        if !http.tls && !is_loopback(&http.host) {
            self.about(url_key, Finding::warning("plain http to another machine: agents' passwords can be read on the way; use https://"));
        }
        if kind == DownstreamKind::Finesse && http.path.is_empty() {
            self.about(url_key, Finding::warning("it has no path; a Finesse base URL ends with /finesse/api"));
        }
        let address = address.unwrap_or_else(|| {
            self.derive(address_key, &http.host);
            http.host.clone()
        });
        Node { url: http.url, address: bare(&address).to_owned() }
    }

    fn allow(&mut self, kind: DownstreamKind) -> Vec<AllowRule> {
        let mut rules = Vec::new();
        for n in 1..=schema::MAX_ALLOW {
            let key = format!("downstream.allow.{n}");
            if let Some(Value::Allow(rule)) = self.value(&key) {
                if kind == DownstreamKind::Finesse {
                    self.about(&key, Finding::warning("it has no effect with downstream.kind = finesse"));
                }
                rules.push(rule);
            }
        }
        if kind == DownstreamKind::Http && rules.is_empty() {
            self.about("downstream.allow.1", Finding::warning("no rule is given, so that every Call command is refused"));
        }
        rules
    }

    fn downstream_admin(&mut self) -> Option<Credentials> {
        let (user_key, password_key) = ("downstream.admin-user", "downstream.admin-password");
        match (self.text_opt(user_key), self.secret(password_key)) {
            (Some(user), Some(password)) => Some(Credentials { user, password }),
            (Some(_), None) if !self.failed(password_key) => {
                self.about(user_key, Finding::error("downstream.admin-password is missing").allowed("both or neither"));
                None
            }
            (None, Some(_)) if !self.failed(user_key) => {
                self.about(password_key, Finding::error("downstream.admin-user is missing").allowed("both or neither"));
                None
            }
            _ => None,
        }
    }

    fn agent(&self) -> Agent {
        Agent {
            states_interval: self.duration("agent.states-interval"),
            not_ready_reason: self.text_opt("agent.not-ready-reason"),
            logout_reason: self.text_opt("agent.logout-reason"),
            supervisor_not_ready_reason: self.text_opt("agent.supervisor-not-ready-reason"),
            supervisor_logout_reason: self.text_opt("agent.supervisor-logout-reason"),
            make_ready: self.bool("agent.make-ready"),
        }
    }

    fn notify(&mut self, downstream: &Downstream) -> Notify {
        let tls = if self.bool("notify.tls") { NotifyTls::Direct } else { NotifyTls::Opportunistic };
        let far = downstream.nodes.iter().any(|node| !is_loopback(&node.address));
        if tls == NotifyTls::Opportunistic && far && downstream.kind == DownstreamKind::Finesse {
            let message = "notification connections to another machine begin plain: without STARTTLS agents' passwords can be read on the way";
            self.about("notify.tls", Finding::warning(message));
        }
        let ca_file = self.file("notify.ca-file").or_else(|| downstream.ca_file.clone());
        if let (None, Some(path)) = (self.candidate("notify.ca-file"), &ca_file) {
            let path = path.display().to_string();
            self.derive("notify.ca-file", &path);
        }
        Notify {
            port: u16::try_from(self.int("notify.port")).unwrap_or(u16::MAX),
            tls,
            connect_timeout: self.duration("notify.connect-timeout"),
            ping_interval: self.duration("notify.ping-interval"),
            ca_file,
        }
    }

    fn control(&mut self) -> Control {
        let control = Control { key: self.secret("control.key"), previous_key: self.secret("control.previous-key") };
        match (&control.key, &control.previous_key) {
            (None, Some(_)) if !self.failed("control.key") => {
                self.about("control.previous-key", Finding::error("control.key is missing").allowed("control.key, with or without control.previous-key"));
            }
            (Some(key), Some(previous)) if key == previous => {
                self.about("control.previous-key", Finding::warning("it is the same as control.key"));
            }
            _ => {}
        }
        control
    }

    fn data_dir(&mut self, id: &str) -> PathBuf {
        let text = self.text_opt("data.dir").unwrap_or_else(|| {
            let text = format!("./data/{id}");
            self.derive("data.dir", &text);
            text
        });
        PathBuf::from(text)
    }

    fn admin(&mut self) -> Admin {
        let listen = match self.value("admin.listen") {
            Some(Value::Listen(listen)) => listen,
            _ => SocketAddr::from(([127, 0, 0, 1], 9601)),
        };
        let token = self.secret("admin.token");
        if token.is_none() && !listen.ip().is_loopback() && !self.failed("admin.token") {
            self.about("admin.listen", Finding::warning("it is not loopback and there is no admin.token: every changing call will be refused"));
        }
        Admin { listen, token }
    }

    /// Every key with its value and origin, in the table's order.
    fn effective(&self) -> Vec<Effective> {
        let mut lines = Vec::new();
        for key in SCHEMA {
            let mut given: Vec<&Candidate> = self.given.values.values().filter(|c| c.key.name == key.name).collect();
            let number = |name: &str| name.rsplit('.').next().and_then(|n| n.parse::<u16>().ok());
            given.sort_by_key(|c| (number(&c.name), c.name.clone()));
            let mut own: Vec<Effective> = given
                .iter()
                .map(|c| Effective { key: c.name.clone(), value: c.shown.clone(), origin: c.origin_text() })
                .collect();
            let derived = self.derived.iter().filter(|(name, _)| belongs(name, key));
            own.extend(derived.map(|(name, value)| Effective {
                key: name.clone(),
                value: value.clone(),
                origin: "derived".into(),
            }));
            own.sort_by_key(|line| number(&line.key));
            let indexed = key.max_index > 0 || key.name.contains("NAME");
            if own.is_empty() && !indexed {
                let (value, origin) = match key.default {
                    Default_::Is(_) if key.kind.is_secret() => (REDACTED, "default"),
                    Default_::Is(text) => (text, "default"),
                    _ => ("", "not set"),
                };
                own.push(Effective { key: key.name.into(), value: value.into(), origin: origin.into() });
            }
            lines.extend(own);
        }
        lines
    }
}

fn belongs(name: &str, key: &schema::Key) -> bool {
    if key.max_index == 0 {
        return name == key.name;
    }
    let stem = key.name.trim_end_matches('N');
    name.strip_prefix(stem).is_some_and(|rest| rest.parse::<u16>().is_ok())
}

fn group_name(key: &str) -> Option<&str> {
    key.strip_prefix("group.")?.strip_suffix(".queues")
}

fn text(duration: Duration) -> String {
    duration_text(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A host name as an instance id: up to the first dot, lower case, other characters as dashes, at
/// most 32 characters; `tandem` where nothing is left.
fn id_from_host(host: &str) -> String {
    let first = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let clean: String = first.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).take(32).collect();
    match clean.trim_matches('-') {
        "" => "tandem".into(),
        id => id.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_become_ids() {
        assert_eq!(id_from_host("GC_Host-1.site.example"), "gc-host-1");
        assert_eq!(id_from_host("Zürich"), "z-rich");
        assert_eq!(id_from_host(""), "tandem");
        assert_eq!(id_from_host("..."), "tandem");
        assert_eq!(id_from_host(&"a".repeat(60)).len(), 32);
    }
}
