//! Two instances, their configuration and what they act on.

mod downstream;
mod files;
mod instance;
mod options;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tandem::broker::topology::{self, Topology};
use tandem::lab::{BrokerNetwork, RabbitCluster, Relay, ReservedPort};
use tandem::model::brokers::QueueType;
use tandem::simulator::Running;
use tempfile::TempDir;

use super::{Desk, cluster_name, until, wait_for};
use crate::support::desk::SentCommand;

use downstream::start_simulator;
pub use instance::Instance;
pub use options::PairOptions;

/// Time for federation links to come up.
const LINKS: Duration = Duration::from_secs(60);
const MAX_AGE: Duration = Duration::from_secs(30);
/// The supervisor of team 1, where all others are.
pub const SUPERVISOR: u32 = 9001;
/// First agent of the simulator.
pub const FIRST_AGENT: u32 = 1001;

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
            gc1: Instance::new("gc-1", folder.path()),
            gc2: Instance::new("gc-2", folder.path()),
            gc3: Instance::new("gc-3", folder.path()),
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
