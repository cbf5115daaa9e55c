//! What the simulator plays: nodes, agents, timings; read from properties or built in code.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tandem_files::properties::{self, Entry, SyntaxError};
use tandem_model::text::duration;

/// Which contact-centre product stands behind the API; it changes the state rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deployment {
    /// Unified CCE: HOLD state, sign-out from NOT_READY only.
    #[default]
    Ucce,
    /// Unified CCX: no HOLD state, sign-out from READY too.
    Uccx,
}

impl Deployment {
    /// `UCCE` or `UCCX`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ucce => "UCCE",
            Self::Uccx => "UCCX",
        }
    }
}

/// One Finesse server of the simulated cluster. Port 0 picks a free port.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// REST listener.
    pub rest: SocketAddr,
    /// Notification service listener (XMPP over TCP).
    pub xmpp: SocketAddr,
    /// The node's `xmppDomain`; its pubsub domain is `pubsub.` before it.
    pub domain: String,
}

/// TLS of the notification service.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// PEM file with the certificate chain.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// `true`: TLS from the first byte (port 5223); `false`: offered as STARTTLS.
    pub direct: bool,
}

/// One agent given in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSpec {
    /// Agent id, also the Basic user.
    pub id: String,
    /// Password.
    pub password: String,
    /// The agent's usual extension.
    pub extension: String,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// Team id.
    pub team: u32,
    /// Whether the agent supervises that team.
    pub supervisor: bool,
}

/// The agents: `count` numbered ones and any given in full.
#[derive(Debug, Clone)]
pub struct Agents {
    /// How many numbered agents.
    pub count: u32,
    /// Id of the first one; the others count up.
    pub first_id: u64,
    /// Extension of the first one; the others count up.
    pub extension_base: u64,
    /// Password of the numbered ones; `{id}` is replaced.
    pub password: String,
    /// Agents given in full, beside the numbered ones.
    pub explicit: Vec<AgentSpec>,
}

impl Agents {
    /// All agents in order, numbered ones first.
    pub fn list(&self) -> Vec<AgentSpec> {
        let numbered = (0..u64::from(self.count)).map(|n| {
            let id = (self.first_id.saturating_add(n)).to_string();
            AgentSpec {
                password: self.password.replace("{id}", &id),
                extension: self.extension_base.saturating_add(n).to_string(),
                first_name: "Agent".to_owned(),
                last_name: id.clone(),
                team: 1,
                supervisor: false,
                id,
            }
        });
        numbered.chain(self.explicit.iter().cloned()).collect()
    }
}

/// Everything the simulator needs to start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Nodes of the cluster: primary first, one or two.
    pub nodes: Vec<NodeConfig>,
    /// Listener that only has the control endpoints and stays open under every fault.
    pub control: Option<SocketAddr>,
    /// The agents.
    pub agents: Agents,
    /// Product played.
    pub deployment: Deployment,
    /// Basic user and password that may read every user.
    pub admin: (String, String),
    /// TLS of the notification service; `None` is plain TCP.
    pub tls: Option<TlsConfig>,
    /// An outside number answers by itself after this.
    pub answer_delay: Duration,
    /// Pause between an accepted change of an agent's state, sign-in included, and its effect.
    pub effect_delay: Duration,
    /// Pause between an accepted request and its notification.
    pub event_delay: Duration,
    /// An offered call that is not answered is taken away after this; zero never.
    pub ring_timeout: Duration,
    /// Length of wrap-up (WORK, WORK_READY).
    pub wrap_up: Duration,
    /// A signed-in agent without any notification session is forced out after this; zero never.
    pub forced_logout_after: Duration,
    /// Numbers that start with one of these are bad destinations.
    pub bad_destinations: Vec<String>,
    /// Wrong passwords in a row that block a user; zero never blocks.
    pub lockout_after: u32,
    /// How long a user stays blocked.
    pub lockout_for: Duration,
    /// Entries the ledger keeps; the oldest go first.
    pub ledger_limit: usize,
    /// Stanzas waiting for one notification session; a session that falls further behind is closed.
    pub session_queue: usize,
}

impl Config {
    /// A cluster of `nodes` nodes on free loopback ports with `agents` agents 1001, 1002, …
    /// (extensions 7001, 7002, …, password `pw-<id>`) and a control listener.
    pub fn loopback(nodes: usize, agents: u32) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            nodes: (1..=nodes)
                .map(|n| NodeConfig {
                    rest: free,
                    xmpp: free,
                    domain: default_domain(n),
                })
                .collect(),
            control: Some(free),
            agents: Agents {
                count: agents,
                first_id: 1001,
                extension_base: 7001,
                password: "pw-{id}".to_owned(),
                explicit: Vec::new(),
            },
            deployment: Deployment::Ucce,
            admin: ("admin".to_owned(), "admin".to_owned()),
            tls: None,
            answer_delay: Duration::from_millis(500),
            effect_delay: Duration::ZERO,
            event_delay: Duration::ZERO,
            ring_timeout: Duration::from_secs(30),
            wrap_up: Duration::from_secs(30),
            forced_logout_after: Duration::from_secs(60),
            bad_destinations: vec!["999".to_owned()],
            lockout_after: 5,
            lockout_for: Duration::from_secs(300),
            ledger_limit: 1_000_000,
            session_queue: 1024,
        }
    }

    /// Reads a file of Java properties in UTF-8 (`simulator.*` keys, see `docs/simulator.md`).
    ///
    /// # Errors
    /// All problems at once, one line each.
    pub fn from_properties(file: &[u8]) -> Result<Self, Vec<String>> {
        let mut config = Self::loopback(0, 10);
        config.control = None;
        let (entries, unreadable) = properties::parse(file);
        let words = |e: &SyntaxError| format!("line {}: {}", e.line, e.message);
        let mut errors: Vec<String> = unreadable.iter().map(words).collect();
        let mut nodes: BTreeMap<u8, [Option<String>; 3]> = BTreeMap::new();
        let mut tls: [Option<String>; 3] = Default::default();
        for Entry { line, key, value } in &entries {
            let short = key.strip_prefix("simulator.").unwrap_or("");
            if let Err(why) = config.set(short, value, &mut nodes, &mut tls) {
                errors.push(format!("line {line}: {key} = {}: {why}", value.as_str()));
            }
        }
        for (n, [rest, xmpp, domain]) in nodes {
            match (parse_addr(rest), parse_addr(xmpp)) {
                (Ok(rest), Ok(xmpp)) => config.nodes.push(NodeConfig {
                    rest,
                    xmpp,
                    domain: domain.unwrap_or_else(|| default_domain(usize::from(n))),
                }),
                _ => errors.push(format!(
                    "node {n}: simulator.listen.{n} and simulator.xmpp-listen.{n} must both be host:port"
                )),
            }
        }
        config.tls = match tls {
            [None, None, _] => None,
            [Some(cert), Some(key), mode] => Some(TlsConfig {
                cert: cert.into(),
                key: key.into(),
                direct: mode.as_deref() != Some("starttls"),
            }),
            _ => {
                errors.push("simulator.tls.cert and simulator.tls.key go together".to_owned());
                None
            }
        };
        if errors.is_empty() {
            Ok(config)
        } else {
            Err(errors)
        }
    }

    fn set(
        &mut self,
        key: &str,
        value: &str,
        nodes: &mut BTreeMap<u8, [Option<String>; 3]>,
        tls: &mut [Option<String>; 3],
    ) -> Result<(), String> {
        if let Some((name, n)) = key.rsplit_once('.') {
            let slot = match name {
                "listen" => Some(0),
                "xmpp-listen" => Some(1),
                "domain" => Some(2),
                _ => None,
            };
            if let Some(slot) = slot {
                let n: u8 = n
                    .parse()
                    .ok()
                    .filter(|n| (1..=2).contains(n))
                    .ok_or("nodes are 1 and 2")?;
                nodes.entry(n).or_default()[slot] = Some(value.to_owned());
                return Ok(());
            }
            if name == "agent" {
                self.agents.explicit.push(agent(value)?);
                return Ok(());
            }
        }
        match key {
            "control-listen" => self.control = Some(value.parse().map_err(|_| "not host:port")?),
            "deployment" => self.deployment = deployment(value)?,
            "agents.count" => self.agents.count = number(value)?,
            "agents.first-id" => self.agents.first_id = number(value)?,
            "agents.extension-base" => self.agents.extension_base = number(value)?,
            "agents.password" => self.agents.password = value.to_owned(),
            "admin-user" => self.admin.0 = value.to_owned(),
            "admin-password" => self.admin.1 = value.to_owned(),
            "tls.cert" => tls[0] = Some(value.to_owned()),
            "tls.key" => tls[1] = Some(value.to_owned()),
            "tls.mode" if matches!(value, "direct" | "starttls") => {
                tls[2] = Some(value.to_owned());
            }
            "tls.mode" => return Err("direct or starttls".to_owned()),
            "answer-delay" => self.answer_delay = duration(value)?,
            "effect-delay" => self.effect_delay = duration(value)?,
            "event-delay" => self.event_delay = duration(value)?,
            "ring-timeout" => self.ring_timeout = duration(value)?,
            "wrap-up" => self.wrap_up = duration(value)?,
            "forced-logout-after" => self.forced_logout_after = duration(value)?,
            "bad-destinations" => {
                self.bad_destinations = value
                    .split(',')
                    .map(|prefix| prefix.trim().to_owned())
                    .filter(|prefix| !prefix.is_empty())
                    .collect();
            }
            "lockout-after" => self.lockout_after = number(value)?,
            "lockout-for" => self.lockout_for = duration(value)?,
            "ledger-limit" => self.ledger_limit = number(value)?,
            "session-queue" => self.session_queue = number::<usize>(value)?.clamp(16, 1 << 20),
            _ => return Err("unknown key".to_owned()),
        }
        Ok(())
    }
}

/// `finesse-<n>.test`: what a node is called when nobody says otherwise.
pub fn default_domain(node: usize) -> String {
    format!("finesse-{node}.test")
}

/// Parses `UCCE` or `UCCX` in any letter case.
///
/// # Errors
/// The allowed values.
pub fn deployment(value: &str) -> Result<Deployment, String> {
    match value.to_ascii_uppercase().as_str() {
        "UCCE" => Ok(Deployment::Ucce),
        "UCCX" => Ok(Deployment::Uccx),
        _ => Err("ucce or uccx".to_owned()),
    }
}

fn parse_addr(value: Option<String>) -> Result<SocketAddr, ()> {
    value.ok_or(())?.parse().map_err(|_| ())
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| "not a number".to_owned())
}

/// `id,password,extension,first,last,team[,supervisor]`
fn agent(value: &str) -> Result<AgentSpec, String> {
    let fields: Vec<&str> = value.split(',').map(str::trim).collect();
    let supervisor = match fields.get(6) {
        None => false,
        Some(&"supervisor") => true,
        Some(_) => return Err("the seventh field is `supervisor` or absent".to_owned()),
    };
    match fields.as_slice() {
        [id, password, extension, first, last, team, ..] if fields.len() <= 7 && !id.is_empty() => {
            Ok(AgentSpec {
                id: (*id).to_owned(),
                password: (*password).to_owned(),
                extension: (*extension).to_owned(),
                first_name: (*first).to_owned(),
                last_name: (*last).to_owned(),
                team: number(team)?,
                supervisor,
            })
        }
        _ => Err("id,password,extension,first,last,team[,supervisor]".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_describe_a_cluster() {
        let config = Config::from_properties(
            "simulator.listen.1=127.0.0.1:8445\nsimulator.xmpp-listen.1=127.0.0.1:5222\n\
             simulator.listen.2=127.0.0.1:8446\nsimulator.xmpp-listen.2=127.0.0.1:5232\n\
             simulator.deployment=UCCX\nsimulator.agents.count=3\nsimulator.answer-delay=20ms\n\
             simulator.agent.1=41001, secret, 7900, Ilan, Roth, 12, supervisor\n"
                .as_bytes(),
        )
        .unwrap();
        assert_eq!(config.nodes.len(), 2);
        assert_eq!(config.nodes[1].domain, "finesse-2.test");
        assert_eq!(config.deployment, Deployment::Uccx);
        assert_eq!(config.answer_delay, Duration::from_millis(20));
        let agents = config.agents.list();
        assert_eq!(agents.len(), 4);
        assert_eq!(agents[2].id, "1003");
        assert_eq!(agents[2].password, "pw-1003");
        assert!(agents[3].supervisor);
    }

    #[test]
    fn every_error_is_reported() {
        let errors = Config::from_properties(
            b"simulator.agents.cuont=3\nsimulator.answer-delay=5\nother=1\nsimulator.listen.1=x\nx=\\ud83c\n",
        )
        .unwrap_err();
        assert_eq!(errors.len(), 5, "{errors:?}");
        assert!(errors[0].starts_with("line 5: "), "{errors:?}");
    }

    #[test]
    fn names_are_utf_8() {
        let read = |text: &str| Config::from_properties(text.as_bytes());
        let file = "\u{feff}simulator.agent.1=7, p\u{e4}ss, 7900, Zo\u{eb}, M\u{fc}\\u00dfig \\uD83C\\uDFE2, 1\r\n";
        let config = read(file).unwrap();
        let agent = &config.agents.explicit[0];
        assert_eq!(agent.password, "p\u{e4}ss");
        assert_eq!(
            (agent.first_name.as_str(), agent.last_name.as_str()),
            ("Zo\u{eb}", "M\u{fc}\u{df}ig \u{1f3e2}")
        );
        let errors =
            Config::from_properties(b"simulator.agent.1=7,p,7900,Zo\xeb,M,1\n").unwrap_err();
        assert!(
            errors[0].contains("line 1: the file is not UTF-8"),
            "{errors:?}"
        );
    }
}
