//! Brokers, a simulated downstream, instances.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tandem::broker::topology::{self, Topology};
use tandem::client::{Client, ClientOptions, Command, Incoming};
use tandem::lab::{BrokerNetwork, ProcessSpec, Relay, ReservedPort, TandemProcess};

use crate::Result;

/// Command queue.
pub const QUEUE: &str = "Connector1";
/// Key that the instances share.
pub const KEY: &str = "0123456789abcdef0123456789abcdef";
const FIRST_AGENT: u64 = 1001;
const LIMIT: Duration = Duration::from_secs(120);
/// Sign-ins under way at a time.
const WINDOW: usize = 50;

/// What differs between measures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Mode active-active, each instance at its own broker.
    pub active: bool,
    /// `broker.fence`.
    pub fence: bool,
    /// `takeover.rate`.
    pub rate: u32,
    /// Agents that the downstream knows.
    pub agents: u64,
}

/// One instance.
pub struct Instance {
    /// `gc-1` or `gc-2`.
    pub name: &'static str,
    /// Its process; `None` before its first start.
    pub process: Option<TandemProcess>,
    /// Its `data.dir`.
    pub data: PathBuf,
    config: PathBuf,
    log: PathBuf,
    admin: ReservedPort,
    http: reqwest::Client,
}

/// Everything, with two instances that are not started yet. Dropping it ends all.
pub struct Stage {
    /// The instances.
    pub instances: [Instance; 2],
    /// The brokers.
    pub network: BrokerNetwork,
    /// Ways of gc-1 to broker 2 and of gc-2 to broker 1.
    pub ways: Vec<Relay>,
    binary: PathBuf,
    _simulator: TandemProcess,
    _ports: [ReservedPort; 2],
    _folder: tempfile::TempDir,
}

/// Number `n` of the downstream's agents.
pub fn agent(n: u64) -> u64 {
    FIRST_AGENT + n
}

impl Stage {
    /// Starts brokers and downstream, and writes the instances' files.
    pub async fn set(binary: &Path, options: Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let network = BrokerNetwork::start(2).await?;
        let input = network.topology_input("tandem", &[QUEUE], Duration::from_secs(60));
        let report = topology::apply(&Topology::of(&input), Some(LIMIT)).await;
        if !report.is_complete() {
            return Err(format!("no topology: {report:?}").into());
        }
        let ports = [ReservedPort::take()?, ReservedPort::take()?];
        let mut ways = Vec::new();
        for broker in [1, 0] {
            let target = SocketAddr::from(([127, 0, 0, 1], network.nodes()[broker].amqp_port()));
            ways.push(Relay::start(target).await?);
        }
        let args = format!(
            "simulate finesse --listen {} --xmpp-listen {} --agents {} --forced-logout-after 0s",
            ports[0].address(),
            ports[1].address(),
            options.agents
        );
        let simulator = TandemProcess::start_spec(ProcessSpec {
            name: "tandem simulate finesse".to_owned(),
            program: binary.to_owned(),
            args: args.split_whitespace().map(str::to_owned).collect(),
            env: BTreeMap::new(),
            log: folder.path().join("simulator.log"),
        })?;
        let stage = Self {
            instances: [
                instance("gc-1", folder.path())?,
                instance("gc-2", folder.path())?,
            ],
            network,
            ways,
            binary: binary.to_owned(),
            _simulator: simulator,
            _ports: ports,
            _folder: folder,
        };
        for index in 0..2 {
            std::fs::write(
                &stage.instances[index].config,
                stage.properties(index, options),
            )?;
        }
        Ok(stage)
    }

    fn properties(&self, index: usize, options: Options) -> String {
        let own = &self.instances[index];
        let [rest, xmpp] = &self._ports;
        // The way to the other site's broker can be cut; equal priorities: whoever leads stays.
        let brokers = [0, 1].map(|broker| match broker == index {
            true => self.network.nodes()[broker].amqp_uri(),
            false => format!("amqp://guest:guest@{}/%2f", self.ways[index].address()),
        });
        let order = if options.active && index == 1 {
            [1, 0]
        } else {
            [0, 1]
        };
        let urls: String = order
            .iter()
            .enumerate()
            .map(|(n, at)| {
                let management = self.network.nodes()[*at].management_url();
                format!(
                    "broker.url.{0}={1}\nbroker.management-url.{0}={management}\n",
                    n + 1,
                    brokers[*at]
                )
            })
            .collect();
        let mode = if options.active {
            "active-active"
        } else {
            "active-passive"
        };
        format!(
            "instance.id={}\nmode={mode}\n{urls}consumer.priority=110\ncontrol.key={KEY}\n\
             broker.fence={}\nbroker.failback-hold=1s\ntakeover.rate={}\n\
             downstream.url.1=http://{}/finesse/api\ndownstream.address.1=127.0.0.1\n\
             notify.port={}\nnotify.tls=false\ndata.dir={}\nadmin.listen={}\nlog.level=info\n",
            own.name,
            options.fence,
            options.rate.max(1),
            rest.address(),
            xmpp.number(),
            own.data.display(),
            own.admin.address(),
        )
    }

    /// Starts an instance, also again, and waits until it has a role.
    pub async fn start(&mut self, index: usize) -> Result<()> {
        self.spawn(index)?;
        let instance = &self.instances[index];
        until("an instance serves or follows", async || {
            let role = instance.role().await;
            role == "leader" || role == "follower"
        })
        .await
    }

    /// Starts an instance, also again.
    pub fn spawn(&mut self, index: usize) -> Result<()> {
        let instance = &mut self.instances[index];
        match &mut instance.process {
            Some(process) => process.restart()?,
            None => {
                instance.process = Some(TandemProcess::start(
                    &self.binary,
                    &instance.config,
                    BTreeMap::new(),
                    &instance.log,
                )?);
            }
        }
        Ok(())
    }

    /// The process of an instance.
    pub fn process(&mut self, index: usize) -> Result<&mut TandemProcess> {
        let process = self.instances[index].process.as_mut();
        process.ok_or_else(|| "the instance was never started".into())
    }

    /// Index of the one that leads alone, where the other follows.
    pub async fn leader(&self) -> Result<usize> {
        let [one, other] = &self.instances;
        wait("one leads and one follows", async || {
            match (one.role().await.as_str(), other.role().await.as_str()) {
                ("leader", "follower") => Some(0),
                ("follower", "leader") => Some(1),
                _ => None,
            }
        })
        .await
    }

    /// URIs of the brokers, this one first.
    pub fn uris(&self, first: usize) -> Vec<String> {
        self.network.uris_from(first)
    }

    /// Signs agents in from a client at a broker, and waits until all are subscribed.
    pub async fn sign_in(&self, broker: usize, agents: std::ops::Range<u64>) -> Result<()> {
        let mut options = ClientOptions::new(format!("bench-{broker}"));
        options.queue = QUEUE.to_owned();
        let (client, mut inbox) = Client::connect(self.uris(broker), options).await?;
        for part in agents.collect::<Vec<_>>().chunks(WINDOW) {
            for step in 0..2 {
                for n in part {
                    let id = agent(*n);
                    let command = match step {
                        0 => (format!("Connect#{id}"), format!("bench-{broker},pw-{id}")),
                        _ => (format!("Login#{id}"), format!("pw-{id},{}", id + 6000)),
                    };
                    client.send(Command::new(command.0, command.1)).await?;
                }
                let mut open = part.len();
                while open > 0 {
                    let next = tokio::time::timeout(LIMIT, inbox.next()).await?;
                    match next.ok_or("the client ended")? {
                        Incoming::Reply(reply) => {
                            let outcome = reply.field("outcome");
                            if !matches!(outcome, "OK" | "ACCEPTED") {
                                return Err(format!("sign-in: {}", reply.text).into());
                            }
                            open -= 1;
                        }
                        _ => continue,
                    }
                }
            }
        }
        Ok(())
    }
}

impl Instance {
    /// `GET` of a JSON document; `Null` where it does not answer.
    pub async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.admin.address());
        let text = match self.http.get(url).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => return Value::Null,
        };
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// `POST` that must be taken.
    pub async fn post(&self, path: &str) -> Result<()> {
        let url = format!("http://{}{path}", self.admin.address());
        let answer = self.http.post(url).send().await?;
        if answer.status().as_u16() != 202 {
            return Err(format!("{path}: {}", answer.text().await?).into());
        }
        Ok(())
    }

    /// Role in group `agents`.
    pub async fn role(&self) -> String {
        let status = self.get("/api/v1/status").await;
        let role = status["groups"][0]["role"].as_str();
        role.unwrap_or_default().to_owned()
    }

    /// Sessions: total, owned, subscribed.
    pub async fn sessions(&self) -> [u64; 3] {
        let status = self.get("/api/v1/status").await;
        ["total", "owned", "subscribed"]
            .map(|name| status["sessions"][name].as_u64().unwrap_or_default())
    }

    /// State of the peer as it sees it.
    pub async fn peer(&self) -> String {
        let status = self.get("/api/v1/status").await;
        let state = status["peers"][0]["state"].as_str();
        state.unwrap_or_default().to_owned()
    }

    /// (agent, owner) of all sessions.
    pub async fn owners(&self) -> Vec<(String, String)> {
        let list = self.get("/api/v1/sessions").await;
        let entries = list.as_array().cloned().unwrap_or_default();
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let all = entries.iter();
        all.map(|entry| (text(entry, "agent"), text(entry, "owner")))
            .collect()
    }
}

fn instance(name: &'static str, folder: &Path) -> Result<Instance> {
    Ok(Instance {
        name,
        process: None,
        data: folder.join(name),
        config: folder.join(format!("{name}.properties")),
        log: folder.join(format!("{name}.log")),
        admin: ReservedPort::take()?,
        http: reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2))
            .build()?,
    })
}

/// Looks every 5 ms until there is something to see.
pub async fn wait<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(seen) = look().await {
            return Ok(seen);
        }
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {LIMIT:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// [`wait`] for a yes.
pub async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) -> Result<()> {
    wait(what, async || look().await.then_some(())).await
}
