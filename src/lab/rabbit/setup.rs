//! What a node is started with: its configuration, its environment, its programs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::super::{LabError, ReservedPort};

/// Environment variable with the path of the server script, where it is not found by itself.
pub const SERVER_VARIABLE: &str = "RABBITMQ_SERVER";
const PLUGINS: &str = "rabbitmq_management,rabbitmq_federation,rabbitmq_federation_management";
/// Name of the file of plug-ins.
pub(super) const PLUGINS_FILE: &str = "enabled_plugins";
/// Lets clients log in by certificate.
const TLS_PLUGIN: &str = ",rabbitmq_auth_mechanism_ssl";

/// The file of plug-ins.
pub(super) fn plugins(tls: bool) -> String {
    let more = if tls { TLS_PLUGIN } else { "" };
    format!("[{PLUGINS}{more}].\n")
}

/// TLS of a node: PEM files, and what clients must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Authorities of clients.
    pub ca_file: PathBuf,
    /// Its own certificate.
    pub certificate_file: PathBuf,
    /// Key of that.
    pub private_key_file: PathBuf,
    /// Whoever shows no certificate of these authorities is refused.
    pub demand: bool,
}

/// A cluster name of its own for each broker: with the default one every binding change
/// resolves the host's name, and federation headers do not tell the brokers apart.
pub(super) fn config(name: &str, ip: IpAddr, amqp: u16, management: u16) -> String {
    // Without brackets for IPv6, too.
    format!(
        "listeners.tcp.1 = {ip}:{amqp}\n\
         management.tcp.ip = {ip}\n\
         management.tcp.port = {management}\n\
         cluster_name = {name}\n\
         collect_statistics_interval = 1000\n\
         vm_memory_high_watermark.absolute = 512MB\n\
         disk_free_limit.absolute = 10MB\n\
         log.file.level = info\n"
    )
}

/// What makes it listen with TLS too.
pub(super) fn tls(tls: &ServerTls, ip: IpAddr, (amqps, management): (u16, u16)) -> String {
    use std::fmt::Write as _;
    let verify = if tls.demand {
        "verify_peer"
    } else {
        "verify_none"
    };
    let mut text = format!(
        "listeners.ssl.1 = {ip}:{amqps}\n\
         management.ssl.ip = {ip}\n\
         management.ssl.port = {management}\n\
         auth_mechanisms.1 = PLAIN\n\
         auth_mechanisms.2 = EXTERNAL\n\
         ssl_cert_login_from = common_name\n"
    );
    for prefix in ["ssl_options", "management.ssl"] {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{prefix}.cacertfile = {}\n{prefix}.certfile = {}\n{prefix}.keyfile = {}\n\
             {prefix}.verify = {verify}\n{prefix}.fail_if_no_peer_cert = {}\n",
            tls.ca_file.display(),
            tls.certificate_file.display(),
            tls.private_key_file.display(),
            tls.demand
        );
    }
    text
}

/// What makes it found a cluster with the nodes of these names, or join it. A minority stops
/// serving, as RabbitMQ advises for three nodes; what comes later in the file counts.
pub(super) fn cluster(names: &[String]) -> String {
    use std::fmt::Write as _;
    let mut text = "\ncluster_formation.peer_discovery_backend = classic_config\n\
                    cluster_partition_handling = pause_minority\n"
        .to_owned();
    for (n, name) in (1..).zip(names) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "cluster_formation.classic_config.nodes.{n} = {name}");
    }
    text
}

/// The secret of a cluster's nodes: a fixed one, since they listen on loopback only and other
/// clusters have port mappers of their own.
pub(super) fn write_cookie(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(file, "tandem-laboratory")?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))
}

/// Environment variable with the name among Erlang nodes.
pub(super) const NODE_NAME: &str = "RABBITMQ_NODENAME";

/// Everything of its own.
pub(super) fn environment(
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
            NODE_NAME,
            format!("tandem-{name}-{}@localhost", distribution.number()),
        ),
        ("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config")),
        ("RABBITMQ_CONF_ENV_FILE", file("env.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", file(PLUGINS_FILE)),
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
pub(super) fn find_server() -> Result<PathBuf, LabError> {
    match std::env::var_os(SERVER_VARIABLE) {
        // Nodes have working directories of their own.
        Some(path) => std::path::absolute(path).map_err(LabError::io("find the server script")),
        None => installed_server(),
    }
}

/// The server that is installed on this machine, whatever the variable [`SERVER_VARIABLE`] says.
///
/// # Errors
/// [`LabError::NotInstalled`].
pub fn installed_server() -> Result<PathBuf, LabError> {
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

/// Version of the server that nodes are started with, as `4.0.5`.
///
/// # Errors
/// There is none, or its command line tool does not say.
pub async fn server_version() -> Result<String, LabError> {
    let tool = find_server()?.with_file_name("rabbitmqctl");
    let mut command = tokio::process::Command::new(&tool);
    command.current_dir(std::env::temp_dir());
    let output = command.arg("version").kill_on_drop(true).output().await;
    let output = output.map_err(LabError::io(format!("run {}", tool.display())))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.lines().map(str::trim);
    let mut version = version.filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    version.next().map(str::to_owned).ok_or_else(|| {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        LabError::io(format!("{} version", tool.display()))(std::io::Error::other(words))
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

/// Beside the server where that comes with an Erlang of its own, on PATH, or in Erlang's folder.
pub(super) fn find_epmd(server: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = server.parent().map(Path::to_owned).into_iter().collect();
    folders.extend(std::env::split_paths(&path));
    folders.extend(["/usr/lib/erlang/bin", "/usr/local/lib/erlang/bin"].map(PathBuf::from));
    folders
        .into_iter()
        .map(|folder| folder.join("epmd"))
        .find(|file| file.is_file())
        .unwrap_or_else(|| PathBuf::from("epmd"))
}
