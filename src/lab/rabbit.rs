//! One real RabbitMQ node (3.10 or later) with everything of its own: folder, ports, name,
//! cookie and port mapper (epmd). Its data survives [`RabbitNode::kill`] and
//! [`RabbitNode::stop`]; its ports stay the same over [`RabbitNode::start_again`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use super::folder::HeldFolder;
use super::process::{GuardedChild, POLL, ProcessSpec};
use super::{LabError, ReservedPort};
use crate::broker::management::{ManagementClient, ManagementError};

/// Environment variable with the path of the server script, where it is not found by itself.
pub const SERVER_VARIABLE: &str = "RABBITMQ_SERVER";
/// Bound of one start, generous because two cores may be shared with a compiler.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Bound of an orderly stop, after which the node is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const EPMD_LIMIT: Duration = Duration::from_secs(20);
/// Pause between two questions to a node that starts.
const READY_POLL: Duration = Duration::from_millis(100);
const USER: &str = "guest";
const PLUGINS: &str = "[rabbitmq_management,rabbitmq_federation,rabbitmq_federation_management].\n";

/// What may differ between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RabbitOptions {
    /// Used in node name and cluster name, `[a-z0-9-]`; other characters are dropped.
    pub name: String,
    /// Further lines for `rabbitmq.conf`.
    pub extra_config: String,
    /// Where its folder is made; the system's folder for temporary files where `None`.
    pub parent: Option<PathBuf>,
}

impl RabbitOptions {
    /// A node with this name and no special settings.
    pub fn named(name: &str) -> Self {
        Self {
            name: name
                .chars()
                .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
                .collect(),
            extra_config: String::new(),
            parent: None,
        }
    }
}

/// A RabbitMQ node as a child process. Dropping it kills it and deletes its files.
#[derive(Debug)]
pub struct RabbitNode {
    name: String,
    amqp: ReservedPort,
    management: ReservedPort,
    epmd: ReservedPort,
    distribution: ReservedPort,
    spec: ProcessSpec,
    epmd_spec: ProcessSpec,
    // Dropped in this order: server, port mapper, files.
    server: Option<GuardedChild>,
    epmd_process: Option<GuardedChild>,
    folder: HeldFolder,
}

impl RabbitNode {
    /// Starts a node and waits until it serves AMQP and the management API.
    ///
    /// # Errors
    /// RabbitMQ is not installed, did not start within two minutes, or ended.
    pub async fn start(options: RabbitOptions) -> Result<Self, LabError> {
        let mut node = Self::prepare(options)?;
        node.start_again().await?;
        Ok(node)
    }

    fn prepare(options: RabbitOptions) -> Result<Self, LabError> {
        let server = find_server()?;
        let prefix = "tandem-rabbit-";
        let folder = match &options.parent {
            Some(parent) => HeldFolder::new_in(parent, prefix)?,
            None => HeldFolder::new(prefix)?,
        };
        let (amqp, management) = (ReservedPort::take()?, ReservedPort::take()?);
        let (epmd, distribution) = (ReservedPort::take()?, ReservedPort::take()?);
        let name = if options.name.is_empty() {
            "rabbit".to_owned()
        } else {
            options.name
        };
        let path = folder.path();
        let config = config_text(&name, amqp.number(), management.number()) + &options.extra_config;
        for (file, text) in [
            ("rabbitmq.conf", config.as_str()),
            ("enabled_plugins", PLUGINS),
            // Empty, so that the machine's own /etc/rabbitmq is not read.
            ("env.conf", ""),
            ("advanced.config", "[].\n"),
        ] {
            std::fs::write(path.join(file), text)
                .map_err(LabError::io(format!("write {file} of the broker")))?;
        }
        let env = environment(path, &name, &epmd, &distribution);
        let spec = ProcessSpec {
            name: format!("RabbitMQ node {name}"),
            program: server,
            args: Vec::new(),
            env: env.clone(),
            log: path.join("console.log"),
        };
        let epmd_spec = ProcessSpec {
            name: format!("port mapper of {name}"),
            program: find_epmd(),
            args: ["-port", &epmd.number().to_string(), "-address", "127.0.0.1"]
                .map(str::to_owned)
                .to_vec(),
            env,
            log: path.join("epmd.log"),
        };
        Ok(Self {
            name,
            amqp,
            management,
            epmd,
            distribution,
            spec,
            epmd_spec,
            server: None,
            epmd_process: None,
            folder,
        })
    }

    /// The name given in the options.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Port of the AMQP listener on 127.0.0.1.
    pub fn amqp_port(&self) -> u16 {
        self.amqp.number()
    }

    /// AMQP URI of the default virtual host with the default user.
    pub fn amqp_uri(&self) -> String {
        format!("amqp://{USER}:{USER}@127.0.0.1:{}/%2f", self.amqp.number())
    }

    /// Base URL of the management API and admin UI; user and password `guest`.
    pub fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.management.number())
    }

    /// A client for its management API.
    ///
    /// # Errors
    /// The TLS provider could not be set up.
    pub fn management(&self) -> Result<ManagementClient, ManagementError> {
        ManagementClient::new(&self.management_url(), USER, USER)
    }

    /// Folder with its data, configuration and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Files whose locks reserve its ports.
    pub fn lock_files(&self) -> [&Path; 4] {
        let ports = [&self.amqp, &self.management, &self.epmd, &self.distribution];
        ports.map(ReservedPort::lock_file)
    }

    /// Process id of the server while it runs.
    pub fn pid(&mut self) -> Option<u32> {
        self.is_running()
            .then(|| self.server.as_ref().map(GuardedChild::pid))
            .flatten()
    }

    /// Whether the server process exists (a frozen one does).
    pub fn is_running(&mut self) -> bool {
        self.server.as_mut().is_some_and(|s| s.exited().is_none())
    }

    /// SIGKILL to the server and its helpers. Data and ports are kept.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    /// Orderly stop; killed where that takes longer than 30 s. Data and ports are kept.
    pub async fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.signal(Signal::SIGCONT);
            server.signal(Signal::SIGTERM);
            let _ = server.wait(STOP_LIMIT).await;
            server.kill();
        }
    }

    /// SIGSTOP: the node hangs, its sockets stay open.
    pub fn freeze(&mut self) {
        if let Some(server) = &mut self.server {
            server.signal(Signal::SIGSTOP);
        }
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        if let Some(server) = &mut self.server {
            server.signal(Signal::SIGCONT);
        }
    }

    /// Starts the node where it does not run, with the data and on the ports it had, and waits
    /// until it is ready.
    ///
    /// # Errors
    /// As [`RabbitNode::start`].
    pub async fn start_again(&mut self) -> Result<(), LabError> {
        self.launch().await?;
        self.wait_ready(START_LIMIT).await
    }

    /// Starts the process without waiting until it is ready.
    ///
    /// # Errors
    /// The port mapper or the server could not be started.
    pub async fn launch(&mut self) -> Result<(), LabError> {
        if self.is_running() {
            return Ok(());
        }
        self.server = None;
        self.start_epmd().await?;
        self.server = Some(self.spec.start()?);
        Ok(())
    }

    /// The node would start a port mapper that outlives it; so it gets one that does not.
    async fn start_epmd(&mut self) -> Result<(), LabError> {
        if let Some(process) = &mut self.epmd_process
            && process.exited().is_none()
        {
            return Ok(());
        }
        let mut process = self.epmd_spec.start()?;
        let deadline = Instant::now() + EPMD_LIMIT;
        while TcpStream::connect(self.epmd.address()).await.is_err() {
            check_alive(&mut process, &self.epmd_spec)?;
            if Instant::now() >= deadline {
                return Err(LabError::Deadline {
                    what: format!("start of {}", self.epmd_spec.name),
                    limit: EPMD_LIMIT,
                });
            }
            tokio::time::sleep(POLL).await;
        }
        self.epmd_process = Some(process);
        Ok(())
    }

    /// Waits until the node accepts AMQP connections and answers on the management API.
    ///
    /// # Errors
    /// [`LabError::Ended`] where the server ends or was not started, [`LabError::Deadline`]
    /// after `limit`.
    pub async fn wait_ready(&mut self, limit: Duration) -> Result<(), LabError> {
        let client = self.management()?;
        let deadline = Instant::now() + limit;
        loop {
            match &mut self.server {
                Some(server) => check_alive(server, &self.spec)?,
                None => {
                    return Err(LabError::Ended {
                        name: self.spec.name.clone(),
                        status: "not started".to_owned(),
                        log: self.spec.log.clone(),
                        tail: String::new(),
                    });
                }
            }
            // The management API listens before the AMQP port in some versions, after it in
            // others; aliveness alone does not say that users and permissions are loaded.
            if TcpStream::connect(self.amqp.address()).await.is_ok()
                && client.get("overview").await.is_ok_and(|o| o.is_some())
            {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(LabError::Deadline {
                    what: format!("readiness of {}", self.spec.name),
                    limit,
                });
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }
}

impl RabbitNode {
    /// Evaluates an Erlang expression within the node (`rabbitmqctl eval`); gives its result.
    /// For faults that no client can cause.
    ///
    /// # Errors
    /// The command line tool is not beside the server, or the expression failed.
    pub async fn evaluate(&self, expression: &str) -> Result<String, LabError> {
        let tool = self.spec.program.with_file_name("rabbitmqctl");
        let mut command = tokio::process::Command::new(tool);
        command.args(["eval", expression]).kill_on_drop(true);
        // The port is the server's own.
        let env = self
            .spec
            .env
            .iter()
            .filter(|(key, _)| *key != "RABBITMQ_DIST_PORT");
        let output = command.envs(env).output().await;
        let output = output.map_err(LabError::io("run rabbitmqctl"))?;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            said.push_str(&String::from_utf8_lossy(&output.stderr));
            return Err(LabError::io("rabbitmqctl eval")(std::io::Error::other(
                said,
            )));
        }
        Ok(said)
    }
}

fn check_alive(process: &mut GuardedChild, spec: &ProcessSpec) -> Result<(), LabError> {
    match process.exited() {
        None => Ok(()),
        Some(status) => Err(LabError::Ended {
            name: spec.name.clone(),
            status: status.to_string(),
            log: spec.log.clone(),
            tail: spec.log_tail(),
        }),
    }
}

/// A cluster name of its own for each broker: with the default one every binding change
/// resolves the host's name, and federation headers do not tell the brokers apart.
fn config_text(name: &str, amqp: u16, management: u16) -> String {
    format!(
        "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {management}\n\
         cluster_name = {name}\n\
         collect_statistics_interval = 1000\n\
         vm_memory_high_watermark.absolute = 512MB\n\
         disk_free_limit.absolute = 10MB\n\
         log.file.level = info\n"
    )
}

fn environment(
    folder: &Path,
    name: &str,
    epmd: &ReservedPort,
    distribution: &ReservedPort,
) -> BTreeMap<String, String> {
    let file = |name: &str| folder.join(name).display().to_string();
    [
        // The Erlang cookie is made there.
        ("HOME", folder.display().to_string()),
        // Makes the script become the server instead of staying its parent.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
        (
            "RABBITMQ_NODENAME",
            format!("tandem-{name}-{}@localhost", distribution.number()),
        ),
        ("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config")),
        ("RABBITMQ_CONF_ENV_FILE", file("env.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins")),
        ("RABBITMQ_MNESIA_BASE", file("data")),
        ("RABBITMQ_LOG_BASE", file("log")),
        ("RABBITMQ_PID_FILE", file("server.pid")),
        ("RABBITMQ_DIST_PORT", distribution.number().to_string()),
        ("ERL_EPMD_PORT", epmd.number().to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        (
            "ERL_AFLAGS",
            "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
        ),
        // One scheduler and few I/O threads: several nodes share a small machine.
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 1:1 +A 4".to_owned(),
        ),
        ("ERL_CRASH_DUMP_SECONDS", "0".to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The server script itself: the one on PATH in Debian insists on the user `rabbitmq`.
fn find_server() -> Result<PathBuf, LabError> {
    if let Some(path) = std::env::var_os(SERVER_VARIABLE) {
        return Ok(PathBuf::from(path));
    }
    let mut looked_in = vec![PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server")];
    looked_in.extend(versioned("/usr/lib/rabbitmq/lib"));
    // Where the generic package is usually unpacked.
    looked_in.extend(versioned("/opt"));
    looked_in.push(PathBuf::from("/opt/rabbitmq/sbin/rabbitmq-server"));
    looked_in
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .ok_or_else(|| LabError::NotInstalled {
            program: "rabbitmq-server",
            looked_in: looked_in
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
            variable: SERVER_VARIABLE,
        })
}

/// `<folder>/rabbitmq_server-*/sbin/rabbitmq-server`.
fn versioned(folder: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry
                .file_name()
                .to_str()?
                .starts_with("rabbitmq_server-")
                .then(|| entry.path().join("sbin/rabbitmq-server"))
        })
        .collect()
}

/// On PATH, or in Erlang's own folder.
fn find_epmd() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/lib/erlang/bin", "/usr/local/lib/erlang/bin"].map(PathBuf::from));
    folders
        .into_iter()
        .map(|folder| folder.join("epmd"))
        .find(|file| file.is_file())
        .unwrap_or_else(|| PathBuf::from("epmd"))
}
