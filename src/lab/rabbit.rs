//! One real RabbitMQ node (3.10 or later) with everything of its own: folder, ports, name,
//! cookie and port mapper (epmd; those of a cluster share the last three). Its data survives [`RabbitNode::kill`] and
//! [`RabbitNode::stop`]; its ports stay the same over [`RabbitNode::start_again`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::net::TcpStream;

mod mapper;
mod setup;

pub(super) use mapper::PortMapper;
pub use setup::{SERVER_VARIABLE, ServerTls, installed_server, server_version};

use super::folder::HeldFolder;
use super::process::{GuardedChild, ProcessSpec};
use super::{LabError, ReservedPort};
use crate::broker::management::{ManagementClient, ManagementError};

/// Bound of one start, generous because two cores may be shared with a compiler.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Bound of an orderly stop, after which the node is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two questions to a node that starts.
const READY_POLL: Duration = Duration::from_millis(100);
const USER: &str = "guest";

/// What may differ between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RabbitOptions {
    /// Used in node name and cluster name, `[a-z0-9-]`; other characters are dropped.
    pub name: String,
    /// Further lines for `rabbitmq.conf`.
    pub extra_config: String,
    /// Where its folder is made; the system's folder for temporary files where `None`.
    pub parent: Option<PathBuf>,
    /// Loopback address that it listens on, and no other.
    pub ip: IpAddr,
    /// It listens with TLS too.
    pub tls: Option<ServerTls>,
    /// Path of its server script; the usual one where `None`, see [`SERVER_VARIABLE`].
    pub server: Option<PathBuf>,
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
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            tls: None,
            server: None,
        }
    }

    /// The same, on the IPv6 loopback address only.
    #[must_use]
    pub fn on_ipv6(self) -> Self {
        Self {
            ip: IpAddr::V6(Ipv6Addr::LOCALHOST),
            ..self
        }
    }
}

/// A RabbitMQ node as a child process. Dropping it kills it and deletes its files.
#[derive(Debug)]
pub struct RabbitNode {
    name: String,
    ip: IpAddr,
    amqp: ReservedPort,
    management: ReservedPort,
    /// AMQP and management with TLS; reserved in any case.
    amqps: ReservedPort,
    secure_management: ReservedPort,
    distribution: ReservedPort,
    spec: ProcessSpec,
    // Dropped in this order: server, port mapper, files.
    server: Option<GuardedChild>,
    mapper: Arc<PortMapper>,
    folder: HeldFolder,
}

impl RabbitNode {
    /// Starts a node and waits until it serves AMQP and the management API.
    ///
    /// # Errors
    /// RabbitMQ is not installed, did not start within two minutes, or ended.
    pub async fn start(options: RabbitOptions) -> Result<Self, LabError> {
        let mut node = Self::prepare(options, &Arc::new(PortMapper::reserve()?))?;
        node.start_again().await?;
        Ok(node)
    }

    /// A node that does not run yet.
    pub(super) fn prepare(
        options: RabbitOptions,
        mapper: &Arc<PortMapper>,
    ) -> Result<Self, LabError> {
        let server = options.server.clone().map_or_else(setup::find_server, Ok)?;
        let prefix = "tandem-rabbit-";
        let folder = match &options.parent {
            Some(parent) => HeldFolder::new_in(parent, prefix)?,
            None => HeldFolder::new(prefix)?,
        };
        let (amqp, management) = (ReservedPort::take()?, ReservedPort::take()?);
        let (amqps, secure_management) = (ReservedPort::take()?, ReservedPort::take()?);
        let distribution = ReservedPort::take()?;
        let name = if options.name.is_empty() {
            "rabbit".to_owned()
        } else {
            options.name
        };
        let path = folder.path();
        let mut config = setup::config(&name, options.ip, amqp.number(), management.number());
        if let Some(tls) = &options.tls {
            let ports = (amqps.number(), secure_management.number());
            config += &setup::tls(tls, options.ip, ports);
        }
        config += &options.extra_config;
        let plugins = setup::plugins(options.tls.is_some());
        for (file, text) in [
            ("rabbitmq.conf", config.as_str()),
            (setup::PLUGINS_FILE, plugins.as_str()),
            // Empty, so that the machine's own /etc/rabbitmq is not read.
            ("env.conf", ""),
            ("advanced.config", "[].\n"),
        ] {
            std::fs::write(path.join(file), text)
                .map_err(LabError::io(format!("write {file} of the broker")))?;
        }
        let env = setup::environment(path, &name, mapper.port(), &distribution);
        let spec = ProcessSpec {
            name: format!("RabbitMQ node {name}"),
            program: server,
            args: Vec::new(),
            env,
            log: path.join("console.log"),
        };
        Ok(Self {
            name,
            ip: options.ip,
            amqp,
            management,
            amqps,
            secure_management,
            distribution,
            spec,
            server: None,
            mapper: Arc::clone(mapper),
            folder,
        })
    }

    /// Its name among Erlang nodes.
    pub fn erlang_name(&self) -> String {
        self.spec.env[setup::NODE_NAME].clone()
    }

    /// Makes it form a cluster with the nodes of these names, itself among them, when it starts
    /// for the first time.
    pub(super) fn found_with(&self, names: &[String]) -> Result<(), LabError> {
        let failed = || LabError::io("write the broker's configuration");
        let file = self.folder().join("rabbitmq.conf");
        let mut config = std::fs::read_to_string(&file).map_err(failed())?;
        config += &setup::cluster(names);
        std::fs::write(&file, config).map_err(failed())?;
        setup::write_cookie(&self.folder().join(".erlang.cookie")).map_err(failed())
    }

    /// The name given in the options.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Port of the AMQP listener on its address.
    pub fn amqp_port(&self) -> u16 {
        self.amqp.number()
    }

    /// Port of the AMQP listener with TLS, where it has one.
    pub fn amqps_port(&self) -> u16 {
        self.amqps.number()
    }

    /// Port of the management API with TLS, where it has one.
    pub fn secure_management_port(&self) -> u16 {
        self.secure_management.number()
    }

    /// `address:port` of the AMQP listener.
    pub fn place(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.amqp.number())
    }

    /// AMQP URI of the default virtual host with the default user.
    pub fn amqp_uri(&self) -> String {
        format!("amqp://{USER}:{USER}@{}/%2f", self.place())
    }

    /// Base URL of the management API and admin UI; user and password `guest`.
    pub fn management_url(&self) -> String {
        let place = SocketAddr::new(self.ip, self.management.number());
        format!("http://{place}")
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
    pub fn lock_files(&self) -> [&Path; 6] {
        let ports = [
            &self.amqp,
            &self.management,
            &self.amqps,
            &self.secure_management,
            self.mapper.port(),
            &self.distribution,
        ];
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
        let server = &self.spec.program;
        self.mapper.ensure(server, self.folder.path()).await?;
        // Erlang's database makes its folder where the node stands, until it is told another.
        self.server = Some(self.spec.start_in(Some(self.folder.path()))?);
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
            if TcpStream::connect(self.place()).await.is_ok()
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
        command.current_dir(self.folder.path());
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

impl RabbitNode {
    /// Enables a plug-in for good, as `rabbitmq-plugins enable` does: that command is not beside
    /// every server.
    ///
    /// # Errors
    /// Its file of plug-ins cannot be written, or the node does not take it.
    pub async fn enable(&self, plugin: &str) -> Result<(), LabError> {
        let failed = || LabError::io("write the file of plug-ins");
        let file = self.folder().join(setup::PLUGINS_FILE);
        let text = std::fs::read_to_string(&file).map_err(failed())?;
        if text.contains(plugin) {
            return Ok(());
        }
        let more = text.replacen('[', &format!("[{plugin},"), 1);
        std::fs::write(&file, more).map_err(failed())?;
        let name = file.display().to_string().replace('"', "");
        self.evaluate(&format!("rabbit_plugins:ensure(\"{name}\")."))
            .await
            .map(drop)
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
