//! What the demo runs: two brokers, a downstream cluster, two instances from the shipped files.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::broker::topology::{self, Topology};
use crate::lab::folder::HeldFolder;
use crate::lab::janitor::Janitor;
use crate::lab::network::NetworkOptions;
use crate::lab::ports::lock_folder;
use crate::lab::{BrokerNetwork, LabError, ProcessSpec, ReservedPort, TandemProcess};
use crate::model::text::hex;
use crate::settings::{self, Settings};

use super::{AGENTS, SPARE_AGENTS};

/// The example configuration, as shipped.
const SITES: [(&str, &str); 2] = [
    (
        "site-1.properties",
        include_str!("../../../config/active-passive/site-1.properties"),
    ),
    (
        "site-2.properties",
        include_str!("../../../config/active-passive/site-2.properties"),
    ),
];
/// How long federation links may take to run.
const LINKS_LIMIT: Duration = Duration::from_secs(60);
/// How long the simulator and the instances may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Everything that runs. Dropping it ends and removes all of it, in this order.
#[derive(Debug)]
pub struct Stage {
    /// The two instances, `gc-1` first.
    pub instances: Vec<TandemProcess>,
    simulator: TandemProcess,
    /// The two brokers.
    pub network: BrokerNetwork,
    /// Their settings: the shipped files with this machine's addresses.
    pub settings: Vec<Settings>,
    /// Their property files, good for every command; logs and data are beside them.
    pub files: Vec<PathBuf>,
    ports: Ports,
    _folder: HeldFolder,
    // Last: it waits until everything is gone.
    _janitor: Janitor,
}

#[derive(Debug)]
struct Ports {
    admin: [ReservedPort; 2],
    rest: [ReservedPort; 2],
    /// One number on two loopback addresses: the setting holds for both nodes.
    notify: ReservedPort,
    control: ReservedPort,
}

impl Ports {
    fn take() -> Result<Self, LabError> {
        let port = ReservedPort::take;
        Ok(Self {
            admin: [port()?, port()?],
            rest: [port()?, port()?],
            notify: port()?,
            control: port()?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &ReservedPort> {
        self.admin
            .iter()
            .chain(&self.rest)
            .chain([&self.notify, &self.control])
    }
}

/// Host of downstream node `node` (from 0).
fn host(node: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, if node == 0 { 1 } else { 2 }).into()
}

impl Stage {
    /// Starts everything and waits until the pair serves. With `cuts_links` federation runs through
    /// relays that can be cut, and `tandem doctor` sees other addresses than the file's. `say` is
    /// told what happens.
    ///
    /// # Errors
    /// Something of the machine is not in order, or a process ended; what had started is ended.
    pub async fn set(cuts_links: bool, say: impl Fn(&str)) -> Result<Self, LabError> {
        let mut janitor = Janitor::start(&lock_folder())?;
        let folder = HeldFolder::new("tandem-demo-")?;
        janitor.add(folder.path())?;
        let ports = Ports::take()?;
        for port in ports.all() {
            janitor.add(port.lock_file())?;
        }
        say("starting two RabbitMQ nodes with management and federation");
        let mut nodes = NetworkOptions::sites(2);
        for node in &mut nodes.nodes {
            node.parent = Some(folder.path().to_owned());
        }
        let network = BrokerNetwork::start_with(nodes).await?;
        for file in network.nodes().iter().flat_map(|node| node.lock_files()) {
            janitor.add(file)?;
        }
        let program = std::env::current_exe().map_err(LabError::io("find this program"))?;
        let simulator = simulator(&program, folder.path(), &ports)?;
        let (files, environments) = configure(folder.path(), &network, &ports)?;
        let settings = read_settings(&files, &environments)?;
        say("applying the topology of config/active-passive/site-1.properties to both");
        apply_topology(&settings[0], cuts_links.then_some(&network)).await?;
        say("starting the downstream simulator and gc-1, gc-2");
        let instances = files
            .iter()
            .zip(environments)
            .map(|(file, env)| {
                TandemProcess::start(&program, file, env, &file.with_extension("log"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut stage = Self {
            instances,
            simulator,
            network,
            settings,
            files,
            ports,
            _folder: folder,
            _janitor: janitor,
        };
        stage.wait_until_serving().await?;
        Ok(stage)
    }

    /// Base URL of an instance's admin listener.
    pub fn admin_url(&self, instance: usize) -> String {
        format!("http://{}", self.ports.admin[instance].address())
    }

    /// Base URL of the simulator's control endpoints.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.ports.control.address())
    }

    /// REST base URLs of the simulated downstream nodes.
    pub fn downstream_urls(&self) -> [String; 2] {
        [0, 1].map(|node| rest_url(&self.ports, node))
    }

    async fn wait_until_serving(&mut self) -> Result<(), LabError> {
        let http = super::http()?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let control = format!("{}/agents", self.control_url());
            let simulated = super::get(&http, &control).await.is_some();
            let mut views = Vec::new();
            for instance in 0..self.instances.len() {
                let url = format!("{}/api/v1/status", self.admin_url(instance));
                views.push(super::get(&http, &url).await);
            }
            let attached = |view: &Option<serde_json::Value>| {
                let view = view.as_ref();
                view.and_then(|v| v.pointer("/groups/0/tag"))
                    .is_some_and(|tag| !tag.is_null())
            };
            let led = views.iter().flatten().any(super::leads);
            if simulated && led && views.iter().all(attached) {
                return Ok(());
            }
            for process in self.instances.iter_mut().chain([&mut self.simulator]) {
                process.must_run()?;
            }
            if Instant::now() >= deadline {
                let logs = self.instances.iter().map(TandemProcess::log_tail);
                return Err(LabError::Deadline {
                    what: format!(
                        "the pair serving; ends of its logs:\n{}",
                        logs.collect::<Vec<_>>().join("\n--\n")
                    ),
                    limit: START_LIMIT,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn rest_url(ports: &Ports, node: usize) -> String {
    let address = SocketAddr::new(host(node), ports.rest[node].number());
    format!("http://{address}/finesse/api")
}

/// One cluster of two nodes, so that both know the same agents and calls.
fn simulator(program: &Path, folder: &Path, ports: &Ports) -> Result<TandemProcess, LabError> {
    let mut args = vec!["simulate".to_owned(), "finesse".to_owned()];
    for node in 0..2 {
        for (flag, port) in [
            ("--listen", &ports.rest[node]),
            ("--xmpp-listen", &ports.notify),
        ] {
            args.push(flag.to_owned());
            args.push(SocketAddr::new(host(node), port.number()).to_string());
        }
    }
    args.extend([
        "--control-listen".to_owned(),
        ports.control.address().to_string(),
    ]);
    args.extend(["--agents".to_owned(), (AGENTS + SPARE_AGENTS).to_string()]);
    TandemProcess::start_spec(ProcessSpec {
        name: "tandem simulate finesse".to_owned(),
        program: program.to_owned(),
        args,
        env: BTreeMap::new(),
        log: folder.join("simulator.log"),
    })
}

type Environment = BTreeMap<String, String>;

/// Writes the shared key and the shipped files with what differs on this machine, so that they are
/// good for every command; says that once more as environment, so that a variable of whoever starts
/// it does not lead anywhere else.
fn configure(
    folder: &Path,
    network: &BrokerNetwork,
    ports: &Ports,
) -> Result<(Vec<PathBuf>, Vec<Environment>), LabError> {
    let key = folder.join("control.key");
    let mut secret = [0u8; 32];
    getrandom::fill(&mut secret)
        .map_err(|error| LabError::io("make a key")(std::io::Error::other(error.to_string())))?;
    std::fs::write(&key, hex(&secret)).map_err(LabError::io("write the key"))?;
    let mut files = Vec::new();
    let mut environments = Vec::new();
    for (site, (name, text)) in SITES.iter().enumerate() {
        let file = folder.join(name);
        let own = own_keys(folder, network, ports, &key, site);
        std::fs::write(&file, with_keys(text, &own))
            .map_err(LabError::io(format!("write {name}")))?;
        files.push(file);
        let variable = |(key, value): (String, String)| {
            let name = key.to_uppercase().replace(['.', '-'], "_");
            (format!("TANDEM_{name}"), value)
        };
        environments.push(own.into_iter().map(variable).collect());
    }
    Ok((files, environments))
}

/// What differs from the shipped file on this machine.
fn own_keys(
    folder: &Path,
    network: &BrokerNetwork,
    ports: &Ports,
    key: &Path,
    site: usize,
) -> BTreeMap<String, String> {
    let data = folder.join(format!("data-{}", site + 1));
    let mut own = vec![
        ("broker.username".to_owned(), "guest".to_owned()),
        ("control.key-file".to_owned(), key.display().to_string()),
        (
            "admin.listen".to_owned(),
            ports.admin[site].address().to_string(),
        ),
        ("notify.port".to_owned(), ports.notify.number().to_string()),
        ("notify.tls".to_owned(), "false".to_owned()),
        ("data.dir".to_owned(), data.display().to_string()),
    ];
    for (at, node) in network.nodes().iter().enumerate() {
        let n = at + 1;
        let amqp = format!("amqp://127.0.0.1:{}", node.amqp_port());
        let management = (format!("broker.management-url.{n}"), node.management_url());
        own.push((format!("broker.url.{n}"), amqp));
        own.push(management);
        own.push((format!("downstream.url.{n}"), rest_url(ports, at)));
        own.push((format!("downstream.address.{n}"), host(at).to_string()));
    }
    own.into_iter().collect()
}

/// A shipped file with these values: each where the file has that key, as its value or as an
/// example in a comment, else at the end. What is only for brokers with TLS is commented out.
fn with_keys(text: &str, own: &BTreeMap<String, String>) -> String {
    let mut left = own.clone();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let known = line.trim_start_matches('#').split_once('=');
        let value = known.and_then(|(key, _)| left.remove_entry(key));
        lines.push(match value {
            Some((key, value)) => format!("{key}={value}"),
            None if line.starts_with("federation.") => format!("#{line}"),
            None => line.to_owned(),
        });
    }
    lines.extend(
        left.into_iter()
            .map(|(key, value)| format!("{key}={value}")),
    );
    lines.push(String::new());
    lines.join("\n")
}

fn read_settings(
    files: &[PathBuf],
    environments: &[Environment],
) -> Result<Vec<Settings>, LabError> {
    let read = |(file, env): (&PathBuf, &Environment)| match settings::load(file, &|name| {
        env.get(name).cloned()
    }) {
        Ok(loaded) => Ok(loaded.settings),
        Err(findings) => Err(LabError::io(format!("{}", file.display()))(
            std::io::Error::other(findings.to_string()),
        )),
    };
    files.iter().zip(environments).map(read).collect()
}

/// What `tandem topology apply --wait` does.
async fn apply_topology(
    settings: &Settings,
    relays: Option<&BrokerNetwork>,
) -> Result<(), LabError> {
    let mut input = topology::topology_input(settings);
    if let Some(network) = relays {
        input.federation_uris = network.federation_uris();
    }
    let plan = Topology::of(&input);
    let report = topology::apply(&plan, Some(LINKS_LIMIT)).await;
    if report.is_complete() {
        return Ok(());
    }
    let errors = report
        .errors
        .iter()
        .map(|e| format!("{}: {}", e.broker, e.source));
    let links = report.links.iter().filter(|link| !link.is_running());
    let links =
        links.map(|link| format!("{}: link {} is {}", link.broker, link.object, link.status));
    Err(LabError::io("apply the topology")(std::io::Error::other(
        errors.chain(links).collect::<Vec<_>>().join("; "),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_it_writes_load_by_themselves_with_nothing_but_addresses_changed() {
        let folder = tempfile::tempdir().unwrap();
        let own: BTreeMap<String, String> = [
            ("broker.url.1", "amqp://127.0.0.1:20001"),
            ("broker.url.2", "amqp://127.0.0.1:20002"),
            ("broker.username", "guest"),
            ("broker.management-url.2", "http://127.0.0.1:20003"),
            ("downstream.address.1", "127.0.0.1"),
            ("notify.tls", "false"),
            ("data.dir", "/tmp/demo/data-1"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        for (site, (name, text)) in SITES.iter().enumerate() {
            let file = folder.path().join(name);
            let written = with_keys(text, &own);
            std::fs::write(&file, &written).unwrap();
            for (key, value) in &own {
                let line = format!("\n{key}={value}\n");
                assert_eq!(written.matches(&line).count(), 1, "{line}");
            }
            let loaded = settings::load(&file, &|_| None).unwrap();
            let warned = loaded.warnings.iter().map(ToString::to_string);
            let about_brokers =
                |text: &String| text.contains("federation") || text.contains("broker-");
            assert_eq!(warned.filter(about_brokers).count(), 0);
            assert_eq!(loaded.settings.instance.id, format!("gc-{}", site + 1));
            assert_eq!(loaded.settings.broker.urls.len(), 2);
            assert_eq!(loaded.settings.downstream.nodes[0].address, "127.0.0.1");
        }
    }
}
