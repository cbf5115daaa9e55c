//! Two instances, their configuration and what they act on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tandem::broker::topology::{self, Topology};
use tandem::lab::{BrokerNetwork, RabbitCluster, Relay, ReservedPort, TandemProcess};
use tandem::model::brokers::QueueType;
use tandem::simulator::faults::Fault;
use tandem::simulator::ledger::Entry;
use tandem::simulator::{self, AgentSpec, Deployment, Running};
use tempfile::TempDir;

use super::{Desk, LIMIT, cluster_name, until, wait_for};
use crate::support::desk::SentCommand;

/// Time for federation links to come up.
const LINKS: Duration = Duration::from_secs(60);
const MAX_AGE: Duration = Duration::from_secs(30);
/// The supervisor of team 1, where all others are.
pub const SUPERVISOR: u32 = 9001;
/// First agent of the simulator.
pub const FIRST_AGENT: u32 = 1001;

/// How a pair differs from the usual.
#[derive(Debug, Clone)]
pub struct PairOptions {
    /// `active-passive` or `active-active`.
    pub mode: &'static str,
    /// Agents 1001, 1002, …
    pub agents: u32,
    /// Instances to start, of two, and to wait for until they serve.
    pub instances: usize,
    /// Keys of both files that differ.
    pub settings: BTreeMap<String, String>,
    /// gc-1 reaches the downstream's REST through relays that can be cut.
    pub relays: bool,
    /// `consumer.priority` of gc-1, gc-2 and gc-3.
    pub priorities: [u8; 3],
    /// Each instance reaches the other site's broker through a relay that can be cut.
    pub sites: bool,
    /// Keys of one file, by index of the instance.
    pub own: [BTreeMap<String, String>; 3],
    /// Command queues beside the usual one; `{cluster}` stands for the cluster's name, here and in
    /// the values of `settings` and `own`.
    pub queues: Vec<&'static str>,
    /// Product played.
    pub deployment: Deployment,
    /// How the simulator differs from the usual.
    pub simulator: fn(&mut simulator::Config),
}

impl Default for PairOptions {
    fn default() -> Self {
        Self {
            mode: "active-passive",
            agents: 40,
            instances: 2,
            settings: BTreeMap::new(),
            relays: false,
            priorities: [127, 100, 100],
            sites: false,
            own: Default::default(),
            queues: Vec::new(),
            deployment: Deployment::Ucce,
            simulator: |_| {},
        }
    }
}

impl PairOptions {
    /// Active-active, else as usual.
    #[must_use]
    pub fn active_active() -> Self {
        Self {
            mode: "active-active",
            ..Self::default()
        }
    }

    /// With one more key.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With one more key in one file.
    #[must_use]
    pub fn set_own(mut self, index: usize, key: &str, value: &str) -> Self {
        self.own[index].insert(key.to_owned(), value.to_owned());
        self
    }

    /// With so many instances.
    #[must_use]
    pub fn instances(mut self, instances: usize) -> Self {
        self.instances = instances;
        self
    }
}

/// One `tandem run`.
#[derive(Debug)]
pub struct Instance {
    /// `gc-1`, …
    pub name: &'static str,
    /// Its process; `None` where it was never started.
    pub process: Option<TandemProcess>,
    /// Property file.
    pub config: PathBuf,
    /// stdout and stderr.
    pub log: PathBuf,
    admin: ReservedPort,
    http: reqwest::Client,
}

impl Instance {
    /// Starts the process, also again.
    pub fn start(&mut self) {
        if let Some(process) = &mut self.process {
            return process.restart().expect("the instance starts again");
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_tandem"));
        let env = BTreeMap::new();
        let process = TandemProcess::start(binary, &self.config, env, &self.log);
        self.process = Some(process.expect("the instance starts"));
    }

    /// `POST` of an operator's verb; status and body.
    pub async fn post(&self, path: &str) -> (u16, Value) {
        let url = format!("http://{}{path}", self.admin.address());
        // A verb is answered when it is on disk, which a busy machine takes its time for.
        let answer = self.http.post(url).timeout(LIMIT).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// Drains it as an operator would, ends the process once nothing is in work, and waits until
    /// it has ended.
    pub async fn drain_and_end(&mut self) {
        let (status, body) = self.post("/api/v1/drain").await;
        assert_eq!(status, 202, "{body}");
        until("the drain has ended", async || {
            let status = self.status().await;
            status["groups"][0]["role"] == "disabled" && status["inflight"] == 0
        })
        .await;
        let process = self.process.as_mut().expect("it was started");
        process.terminate();
        until("the process has ended", async || !process.is_running()).await;
    }

    /// Starts it anew, with these environment variables.
    pub fn start_with(&mut self, env: &[(&str, &str)]) {
        self.kill();
        let binary = Path::new(env!("CARGO_BIN_EXE_tandem"));
        let pairs = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let process = TandemProcess::start(binary, &self.config, pairs.collect(), &self.log);
        self.process = Some(process.expect("the instance starts"));
    }

    /// Starts it anew, in a shell that did this before: `ulimit -Sn 64`.
    pub fn start_after(&mut self, shell: &str, env: &[(&str, &str)]) {
        use std::os::unix::fs::PermissionsExt as _;
        self.kill();
        let script = self.config.with_extension("sh");
        let binary = env!("CARGO_BIN_EXE_tandem");
        let text = format!("#!/bin/sh\nset -e\n{shell}\nexec '{binary}' \"$@\"\n");
        std::fs::write(&script, text).expect("a script");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&script, mode).expect("its mode");
        let pairs = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let process = TandemProcess::start(&script, &self.config, pairs.collect(), &self.log);
        self.process = Some(process.expect("the instance starts"));
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    /// SIGSTOP.
    pub fn freeze(&mut self) {
        if let Some(process) = &mut self.process {
            process.freeze();
        }
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        if let Some(process) = &mut self.process {
            process.thaw();
        }
    }

    /// A JSON document of the admin listener; `Null` where it does not answer.
    pub async fn json(&self, path: &str) -> Value {
        let text = self.get(path).await.unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The broker that it is attached to, `host:port`.
    pub async fn attached(&self) -> Option<String> {
        let status = self.status().await;
        let brokers = status["brokers"].as_array()?;
        let broker = brokers.iter().find(|broker| broker["attached"] == true)?;
        broker["url"].as_str().map(str::to_owned)
    }

    /// State of a peer as it sees it: `alive`, `lost`, …; empty where it knows none.
    pub async fn sees(&self, peer: &str) -> String {
        let status = self.status().await;
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        let entry = peers.iter().find(|entry| entry["instance"] == peer);
        entry
            .and_then(|entry| entry["state"].as_str())
            .unwrap_or_default()
            .to_owned()
    }

    /// A document of the admin listener.
    pub async fn get(&self, path: &str) -> Option<String> {
        let url = format!("http://{}{path}", self.admin.address());
        let answer = self.http.get(url).send().await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }

    /// `GET /api/v1/status`; `Null` where it does not answer.
    pub async fn status(&self) -> Value {
        let text = self.get("/api/v1/status").await.unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Role in group `agents`; empty where it does not answer.
    pub async fn role(&self) -> String {
        let status = self.status().await;
        status["groups"][0]["role"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Role in a group, by the group's index.
    pub async fn role_in(&self, group: usize) -> String {
        let status = self.status().await;
        let role = status["groups"][group]["role"].as_str();
        role.unwrap_or_default().to_owned()
    }

    /// Agents that it owns, and of these with a subscription.
    pub async fn owned(&self) -> (u64, u64) {
        let sessions = &self.status().await["sessions"];
        let count = |name: &str| sessions[name].as_u64().unwrap_or_default();
        (count("owned"), count("subscribed"))
    }

    /// Waits for a role.
    pub async fn becomes(&self, role: &str) {
        let what = format!("{} becomes {role}", self.name);
        until(&what, async || self.role().await == role).await;
    }

    /// Waits until it leads, whether its peer is known to be gone or only silent.
    pub async fn leads(&self) {
        let what = format!("{} leads", self.name);
        until(&what, async || self.role().await.starts_with("leader")).await;
    }

    /// Where its status is asked for, by whom.
    pub fn pages(&self) -> (reqwest::Client, String) {
        let url = format!("http://{}/api/v1/status", self.admin.address());
        (self.http.clone(), url)
    }

    /// Everything it has said.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How often its log says that a link to a broker was lost, or could not be had; at most five
    /// times a minute for one reason.
    pub fn lost_links(&self) -> usize {
        self.log_text().matches("broker not connected").count()
    }

    /// Events that it has dropped since it started.
    pub async fn events_dropped(&self) -> f64 {
        let text = self.get("/metrics").await.unwrap_or_default();
        let lines = text.lines();
        let lines = lines.filter(|line| line.starts_with("tandem_events_dropped_total"));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    /// Address of the admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }
}

/// Lines of its log that an instance leaves behind where the test fails.
const LAST_WORDS: usize = 80;

impl Drop for Instance {
    fn drop(&mut self) {
        let log = self.log_text();
        if std::thread::panicking() && !log.is_empty() {
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
            eprintln!("the last of {}:\n{}", self.name, last.join("\n"));
        }
    }
}

/// The instances with their simulator. Dropping it ends everything.
#[derive(Debug)]
pub struct Pair {
    /// `cluster.name`.
    pub cluster: String,
    /// Command queue.
    pub queue: String,
    /// `gc-1`, at home at broker 1.
    pub gc1: Instance,
    /// `gc-2`.
    pub gc2: Instance,
    /// `gc-3`, started where three are asked for; at home at broker 1.
    pub gc3: Instance,
    /// The downstream.
    pub simulator: Running,
    /// AMQP URIs of the brokers.
    pub brokers: Vec<String>,
    /// Base URLs of their management API.
    pub management: Vec<String>,
    /// gc-1's way to the downstream's REST, one a node, where asked for.
    pub relays: Vec<Relay>,
    /// gc-1's way to broker 2 and gc-2's to broker 1, where asked for.
    pub sites: Vec<Relay>,
    agents: u32,
    active: bool,
    folder: TempDir,
    _xmpp: ReservedPort,
}

impl Pair {
    /// Sets the topology and starts simulator and instances.
    pub async fn start(network: &BrokerNetwork, options: PairOptions) -> Self {
        let cluster = cluster_name();
        let queue = format!("Connector-{cluster}");
        let named = |text: &str| text.replace("{cluster}", &cluster);
        let more: Vec<String> = options.queues.iter().map(|name| named(name)).collect();
        let queues: Vec<&str> = std::iter::once(queue.as_str())
            .chain(more.iter().map(String::as_str))
            .collect();
        let mut input = network.topology_input(&cluster, &queues, MAX_AGE);
        if options
            .settings
            .get("queue.type")
            .is_some_and(|it| it == "quorum")
        {
            input.queue_type = QueueType::Quorum;
        }
        let report = topology::apply(&Topology::of(&input), Some(LINKS)).await;
        assert!(report.is_complete(), "{report:?}");
        let (simulator, xmpp) = start_simulator(&options).await;
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("key"), "k".repeat(64)).expect("a key file");
        let mut pair = Self {
            queue,
            gc1: instance("gc-1", folder.path()),
            gc2: instance("gc-2", folder.path()),
            gc3: instance("gc-3", folder.path()),
            simulator,
            brokers: network.uris_from(0),
            management: network
                .brokers()
                .iter()
                .map(RabbitCluster::management_urls)
                .collect(),
            agents: options.agents,
            active: options.mode == "active-active",
            relays: Vec::new(),
            sites: Vec::new(),
            cluster,
            folder,
            _xmpp: xmpp,
        };
        if options.relays {
            for node in &pair.simulator.nodes {
                pair.relays
                    .push(Relay::start(node.rest).await.expect("a relay"));
            }
        }
        if options.sites {
            for other in [1, 0] {
                let port = network.nodes()[other].amqp_port();
                let target = SocketAddr::from(([127, 0, 0, 1], port));
                pair.sites
                    .push(Relay::start(target).await.expect("a relay"));
            }
        }
        for index in 0..3 {
            let text = pair.properties(index, &options);
            std::fs::write(&pair.instance(index).config, text).expect("a property file");
        }
        for index in 0..options.instances {
            pair.instance(index).start();
        }
        pair.wait_ready(options.instances, options.mode).await;
        pair
    }

    async fn wait_ready(&mut self, instances: usize, mode: &str) {
        for index in 0..instances {
            let instance = self.instance(index);
            let what = format!("{} serves", instance.name);
            until(&what, async || {
                let status = instance.status().await;
                status["inService"] == true && status["groups"][0]["consuming"] == true
            })
            .await;
        }
        if instances == 2 {
            let second = if mode == "active-active" {
                "leader"
            } else {
                "follower"
            };
            self.gc1.becomes("leader").await;
            self.gc2.becomes(second).await;
        }
    }

    /// The management API of a broker (0 or 1).
    pub fn manage(&self, broker: usize) -> tandem::broker::management::ManagementClient {
        management(&self.management[broker])
    }

    /// Sets the topology again, after a test has deleted some of it.
    pub async fn repair(&self, shared: &mut super::Shared) {
        let network = shared.network().await;
        let input = network.topology_input(&self.cluster, &[&self.queue], MAX_AGE);
        let report = topology::apply(&Topology::of(&input), Some(LINKS)).await;
        assert!(report.is_complete(), "{report:?}");
    }

    /// Whether both instances serve.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// gc-1 (0) or gc-2.
    pub fn instance(&mut self, index: usize) -> &mut Instance {
        match index {
            0 => &mut self.gc1,
            1 => &mut self.gc2,
            _ => &mut self.gc3,
        }
    }

    /// A third instance, `gc-3`, with gc-2's settings and this priority. Not started yet.
    pub fn third(&self, priority: u8) -> Instance {
        let third = instance("gc-3", self.folder.path());
        let text = std::fs::read_to_string(&self.gc2.config).expect("gc-2's file");
        let changes = BTreeMap::from([
            ("instance.id", "gc-3".to_owned()),
            ("instance.site", "site-3".to_owned()),
            ("consumer.priority", priority.to_string()),
            ("admin.listen", third.admin().to_string()),
            (
                "data.dir",
                self.folder.path().join("data-gc-3").display().to_string(),
            ),
        ]);
        let text = text.lines().fold(String::new(), |mut text, line| {
            let key = line.split('=').next().unwrap_or_default();
            let _ = match changes.get(key) {
                Some(value) => writeln!(text, "{key}={value}"),
                None => writeln!(text, "{line}"),
            };
            text
        });
        std::fs::write(&third.config, text).expect("a property file");
        third
    }

    /// The property file of an instance.
    fn properties(&self, index: usize, options: &PairOptions) -> String {
        let own = [&self.gc1, &self.gc2, &self.gc3][index];
        let active = options.mode == "active-active";
        // In active-active each site lists its own broker and downstream first.
        let order = if active && index == 1 { [1, 0] } else { [0, 1] };
        let mut keys: BTreeMap<String, String> = BTreeMap::new();
        let mut put = |key: &str, value: String| keys.insert(key.to_owned(), value);
        put("instance.id", own.name.to_owned());
        put("instance.site", format!("site-{}", index + 1));
        put("cluster.name", self.cluster.clone());
        put("mode", options.mode.to_owned());
        put("command.queue", self.queue.clone());
        for (n, at) in order.into_iter().enumerate() {
            let uri = match self.sites.get(index).filter(|_| at != index.min(1)) {
                Some(relay) => format!("amqp://guest:guest@{}/%2f", relay.address()),
                None => self.brokers[at].clone(),
            };
            put(&format!("broker.url.{}", n + 1), uri);
            let management = self.management[at].clone();
            put(&format!("broker.management-url.{}", n + 1), management);
            let node = &self.simulator.nodes[at];
            let relay = self.relays.get(at).filter(|_| index == 0);
            let rest = relay.map_or(node.rest, Relay::address);
            let url = format!("http://{rest}/finesse/api");
            put(&format!("downstream.url.{}", n + 1), url);
            let host = node.xmpp.ip().to_string();
            put(&format!("downstream.address.{}", n + 1), host);
        }
        let priority = options.priorities[index];
        put("consumer.priority", priority.to_string());
        let notify = self.simulator.nodes[0].xmpp.port();
        put("notify.port", notify.to_string());
        put("notify.tls", "false".to_owned());
        let file = |name: String| self.folder.path().join(name).display().to_string();
        put("control.key-file", file("key".to_owned()));
        put("data.dir", file(format!("data-{}", own.name)));
        put("admin.listen", own.admin().to_string());
        for (key, value) in [
            ("agent.not-ready-reason", "1"),
            ("agent.logout-reason", "21"),
            ("broker.failback-hold", "1s"),
            ("downstream.probe-interval", "500ms"),
            ("downstream.request-timeout", "2s"),
            ("takeback.hold", "2s"),
            ("log.level", "info"),
        ] {
            put(key, value.to_owned());
        }
        for (key, value) in options
            .settings
            .iter()
            .chain(options.own.get(index).into_iter().flatten())
        {
            keys.insert(key.clone(), value.replace("{cluster}", &self.cluster));
        }
        keys.iter().fold(String::new(), |mut text, (key, value)| {
            let _ = writeln!(text, "{key}={value}");
            text
        })
    }

    /// Waits until an instance is attached to broker 1 (0) or 2, where it reaches that directly.
    pub async fn attaches(&self, instance: &Instance, broker: usize) {
        let what = format!("{} attaches to broker {}", instance.name, broker + 1);
        until(&what, async || {
            let url = instance.attached().await;
            // A cluster's addresses may be listed in another order.
            url.is_some_and(|url| url.split(',').all(|one| self.brokers[broker].contains(one)))
        })
        .await;
    }

    /// A client that prefers broker 1 (0) or 2.
    pub async fn desk(&self, destination: &str, first: usize) -> Desk {
        let mut uris = self.brokers.clone();
        uris.rotate_left(first);
        Desk::open(uris, &self.cluster, &self.queue, destination).await
    }

    /// A client of another command queue.
    pub async fn desk_of(&self, queue: &str, destination: &str, first: usize) -> Desk {
        let mut uris = self.brokers.clone();
        uris.rotate_left(first);
        Desk::open(uris, &self.cluster, queue, destination).await
    }

    /// A client that knows the broker of its own site only: 1 (0) or 2.
    pub async fn desk_at(&self, destination: &str, broker: usize) -> Desk {
        let uris = vec![self.brokers[broker].clone()];
        Desk::open(uris, &self.cluster, &self.queue, destination).await
    }

    /// Cuts all traffic between the instances and the other site's broker.
    pub async fn cut(&self) {
        for relay in &self.sites {
            relay.cut().await;
        }
    }

    /// Ends that.
    pub async fn mend(&self) {
        for relay in &self.sites {
            relay.heal().await;
        }
    }

    /// Runs `tandem` on an instance: exit code and what it printed.
    pub async fn tandem(&self, instance: &Instance, words: &[&str]) -> (i32, String) {
        let url = format!("http://{}", instance.admin());
        let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        all.extend(["--url".to_owned(), url]);
        tandem(all).await
    }

    /// Connects and signs in agents, and waits until each has its subscription.
    pub async fn sign_in(&self, desk: &Desk, agents: &[u32]) {
        let mut connects = Vec::new();
        for agent in agents {
            let body = format!("{},pw-{agent}", desk.destination);
            connects.push(desk.send(format!("Connect#{agent}"), body).await);
        }
        for id in &connects {
            let reply = desk.reply(id).await;
            assert!(accepted(reply.field("outcome")), "Connect: {}", reply.text);
        }
        let mut logins: Vec<SentCommand> = Vec::new();
        for agent in agents {
            let body = format!("pw-{agent},{}", extension(*agent));
            logins.push(desk.send(format!("Login#{agent}"), body).await);
        }
        for id in &logins {
            let reply = desk.reply(id).await;
            assert!(accepted(reply.field("outcome")), "Login: {}", reply.text);
        }
        for agent in agents {
            let signed_in = |m: &tandem::client::Message| {
                is_state(m, *agent, "NOT_READY") || is_state(m, *agent, "READY")
            };
            desk.event("the signed-in state", signed_in).await;
            until("one subscription", async || self.sessions(*agent) == 1).await;
        }
    }

    /// Notification sessions of an agent.
    pub fn sessions(&self, agent: u32) -> usize {
        let world = self.simulator.world();
        let agent = world.agent(&agent.to_string()).expect("a known agent");
        let sessions = agent.sessions.lock().expect("no panic in the simulator");
        sessions.len()
    }

    /// Node that an agent's notifications come from; `None` without a subscription.
    pub fn subscribed_at(&self, agent: u32) -> Option<usize> {
        let world = self.simulator.world();
        let agent = world.agent(&agent.to_string()).expect("a known agent");
        let sessions = agent.sessions.lock().expect("no panic in the simulator");
        sessions.first().map(|session| session.node)
    }

    /// Makes a node (1 or 2) of the downstream fail.
    pub fn fault(&self, node: usize, fault: Fault) {
        let faults = self.simulator.world().node_faults(node);
        faults.add(fault).expect("a fault that makes sense");
    }

    /// A node that is gone, its notifications too.
    pub fn node_down(&self, node: usize) {
        let refuse = Fault {
            refuse: true,
            ..Fault::default()
        };
        let xmpp_down = Fault {
            xmpp_down: true,
            ..Fault::default()
        };
        self.fault(node, refuse);
        self.fault(node, xmpp_down);
    }

    /// Makes both nodes fail.
    pub fn fault_everywhere(&self, fault: &Fault) {
        for node in [1, 2] {
            self.fault(node, fault.clone());
        }
    }

    /// Ends all faults.
    pub fn heal(&self) {
        for faults in self.simulator.faults() {
            faults.clear(None);
        }
    }

    /// State of an agent at the downstream.
    pub fn state(&self, agent: u32) -> &'static str {
        let world = self.simulator.world();
        let agent = world.agent(&agent.to_string()).expect("a known agent");
        let state = agent.state.lock().expect("no panic in the simulator");
        state.state.name()
    }

    /// Effects on an agent, in order.
    pub fn effects(&self, agent: u32) -> Vec<Entry> {
        self.simulator.ledger().entries(Some(&agent.to_string()), 0)
    }

    /// How many effects of a kind a command had.
    pub fn effects_of(&self, kind: &str, id: &str) -> usize {
        let all = self.simulator.ledger().entries(None, 0);
        all.iter()
            .filter(|entry| entry.kind == kind && &*entry.request_id == id)
            .count()
    }

    /// Waits until every agent of the list has exactly one subscription.
    pub async fn one_subscription_each(&self, agents: &[u32]) {
        until("one subscription an agent", async || {
            agents.iter().all(|agent| self.sessions(*agent) == 1)
        })
        .await;
    }

    /// Consumers of the command queue on a broker: tags of instances, without federation links.
    pub async fn consumers(&self, broker: usize) -> Vec<String> {
        let client = management(&self.management[broker]);
        let consumers = client.get("consumers/%2f").await.ok().flatten();
        let list = consumers.as_ref().and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter(|consumer| consumer["queue"]["name"] == self.queue.as_str())
            .filter_map(|consumer| consumer["consumer_tag"].as_str())
            .filter(|tag| tag.starts_with("gc-"))
            .map(str::to_owned)
            .collect()
    }

    /// All agents of the simulator.
    pub fn agents(&self) -> Vec<u32> {
        (FIRST_AGENT..FIRST_AGENT + self.agents).collect()
    }

    /// Waits until an instance owns so many agents, all subscribed.
    pub async fn owns(&self, instance: &Instance, count: usize) {
        let count = count as u64;
        wait_for(
            &format!("{} owns {count} agents", instance.name),
            async || (instance.owned().await == (count, count)).then_some(()),
        )
        .await;
    }
}

/// Runs the program to its end: exit code, and what it printed on both outputs.
pub async fn tandem(words: Vec<String>) -> (i32, String) {
    let run = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.args(words).output().expect("the program runs")
    });
    let output = run.await.expect("it has ended");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

/// A client of the management API.
pub fn management(base: &str) -> tandem::broker::management::ManagementClient {
    tandem::broker::management::ManagementClient::new(base, "guest", "guest")
        .expect("a management client")
}

/// The extension of a numbered agent.
pub fn extension(agent: u32) -> u32 {
    agent + 6000
}

/// The downstream took it, or it is done.
pub fn accepted(outcome: &str) -> bool {
    matches!(outcome, "OK" | "ACCEPTED")
}

/// A `State` event of an agent, JSON form.
pub fn is_state(message: &tandem::client::Message, agent: u32, state: &str) -> bool {
    message.field("type") == "State"
        && message.field("agentId") == agent.to_string()
        && message.field("state") == state
}

fn instance(name: &'static str, folder: &Path) -> Instance {
    Instance {
        name,
        process: None,
        config: folder.join(format!("{name}.properties")),
        log: folder.join(format!("{name}.log")),
        admin: ReservedPort::take().expect("a port"),
        http: reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .build()
            .expect("an HTTP client"),
    }
}

fn supervisor() -> AgentSpec {
    AgentSpec {
        id: SUPERVISOR.to_string(),
        password: format!("pw-{SUPERVISOR}"),
        extension: extension(SUPERVISOR).to_string(),
        first_name: "Sue".to_owned(),
        last_name: "Pervisor".to_owned(),
        team: 1,
        supervisor: true,
    }
}

/// An instance has one `notify.port` for both nodes, so they differ by address.
async fn start_simulator(options: &PairOptions) -> (Running, ReservedPort) {
    let mut config = simulator::Config::loopback(2, options.agents);
    config.agents.explicit = vec![supervisor()];
    config.deployment = options.deployment;
    config.answer_delay = Duration::from_millis(100);
    config.forced_logout_after = Duration::ZERO;
    (options.simulator)(&mut config);
    let port = ReservedPort::take().expect("a port");
    for (at, node) in config.nodes.iter_mut().enumerate() {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + at as u8));
        node.xmpp = SocketAddr::new(ip, port.number());
        node.rest = SocketAddr::new(ip, 0);
    }
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        match simulator::start(config.clone()).await {
            Ok(running) => return (running, port),
            Err(error) if tokio::time::Instant::now() >= deadline => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
