//! `tandem simulate finesse`: runs the downstream simulator in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::exit::{INTERNAL, USAGE};
use crate::files::properties::MAX_FILE_BYTES;
use crate::files::read_bounded;
use crate::model::text::duration;
use crate::simulator::config::{default_domain, deployment};
use crate::simulator::{Config, Deployment, Error, NodeConfig, Running, TlsConfig, start};

/// Arguments of `tandem simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A Cisco Finesse cluster: REST, notification service, effect ledger, fault switches
    Finesse(Box<Finesse>),
}

/// Flags win over the file.
#[derive(Debug, clap::Args)]
struct Finesse {
    /// Property file with simulator.* keys
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// REST address of a node; give it twice for a cluster
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// Notification service address of a node, as often as --listen
    #[arg(long, value_name = "ADDR")]
    xmpp_listen: Vec<SocketAddr>,
    /// XMPP domain of a node, in the same order
    #[arg(long, value_name = "NAME")]
    domain: Vec<String>,
    /// Extra listener for the control endpoints only
    #[arg(long, value_name = "ADDR")]
    control_listen: Option<SocketAddr>,
    /// Numbered agents
    #[arg(long, value_name = "N")]
    agents: Option<u32>,
    /// Id of the first numbered agent
    #[arg(long, value_name = "ID")]
    first_agent: Option<u64>,
    /// Extension of the first numbered agent
    #[arg(long, value_name = "EXT")]
    extension_base: Option<u64>,
    /// Password of the numbered agents; {id} is replaced
    #[arg(long, value_name = "PATTERN")]
    password: Option<String>,
    /// ucce or uccx
    #[arg(long, value_parser = deployment)]
    deployment: Option<Deployment>,
    /// Outside numbers answer after this
    #[arg(long, value_parser = duration, value_name = "TIME")]
    answer_delay: Option<Duration>,
    /// Pause between an accepted change of an agent's state and its effect
    #[arg(long, value_parser = duration, value_name = "TIME")]
    effect_delay: Option<Duration>,
    /// Pause between a request and its notification
    #[arg(long, value_parser = duration, value_name = "TIME")]
    event_delay: Option<Duration>,
    /// Agents without notification session are forced out after this; 0 never
    #[arg(long, value_parser = duration, value_name = "TIME")]
    forced_logout_after: Option<Duration>,
    /// Wrong passwords that block a user; 0 never
    #[arg(long, value_name = "N")]
    lockout_after: Option<u32>,
    /// Certificate chain (PEM) of the notification service
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the notification service
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// STARTTLS instead of TLS from the first byte
    #[arg(long)]
    starttls: bool,
}

/// Runs until ctrl-c or SIGTERM. With `json` the addresses are printed as one JSON line.
pub fn run(args: Args, json: bool) -> ExitCode {
    let What::Finesse(args) = args.what;
    let config = match configure(&args) {
        Ok(config) => config,
        Err(errors) => {
            for error in errors {
                complain!("{error}");
            }
            return ExitCode::from(USAGE);
        }
    };
    // It holds a connection an agent, too. What this is short of shows when it is missing.
    let _ = crate::descriptors::raise();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("cannot start: {error}");
            return ExitCode::from(INTERNAL);
        }
    };
    runtime.block_on(serve(config, json))
}

async fn serve(config: Config, json: bool) -> ExitCode {
    let running = match start(config).await {
        Ok(running) => running,
        Err(error) => {
            complain!("{error}");
            return ExitCode::from(match error {
                Error::Config(_) | Error::Tls(_) => USAGE,
                Error::Io(_) => 1,
            });
        }
    };
    announce(&running, json);
    let ended = wait_for_signal().await;
    running.stop().await;
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain!("signals: {error}");
            ExitCode::from(INTERNAL)
        }
    }
}

async fn wait_for_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => Ok(()),
        pressed = tokio::signal::ctrl_c() => pressed,
    }
}

fn announce(running: &Running, json: bool) {
    if json {
        let line = serde_json::json!({ "nodes": running.nodes, "control": running.control });
        super::output::print(&format!("{line}\n"));
        return;
    }
    for (at, node) in running.nodes.iter().enumerate() {
        super::output::print(&format!(
            "node {}: http://{}/finesse/api  xmpp {}  domain {}\n",
            at + 1,
            node.rest,
            node.xmpp,
            node.domain
        ));
    }
    if let Some(control) = running.control {
        super::output::print(&format!("control: http://{control}\n"));
    }
}

fn configure(args: &Finesse) -> Result<Config, Vec<String>> {
    let mut config = match &args.config {
        None => Config {
            control: None,
            ..Config::loopback(0, 10)
        },
        Some(path) => {
            let file = read_bounded(path, MAX_FILE_BYTES)
                .map_err(|e| vec![format!("{}: {e}", path.display())])?;
            Config::from_properties(&file).map_err(|errors| {
                let name = |error: String| format!("{}: {error}", path.display());
                errors.into_iter().map(name).collect::<Vec<_>>()
            })?
        }
    };
    if args.listen.len() != args.xmpp_listen.len() || args.listen.len() > 2 {
        return Err(vec![
            "give --listen and --xmpp-listen equally often, at most twice".to_owned(),
        ]);
    }
    if !args.listen.is_empty() {
        let pairs = args.listen.iter().zip(&args.xmpp_listen).enumerate();
        config.nodes = pairs
            .map(|(at, (rest, xmpp))| NodeConfig {
                rest: *rest,
                xmpp: *xmpp,
                domain: default_domain(at + 1),
            })
            .collect();
    }
    if config.nodes.is_empty() {
        return Err(vec![
            "no node: give --config, or --listen and --xmpp-listen".to_owned(),
        ]);
    }
    for (node, domain) in config.nodes.iter_mut().zip(&args.domain) {
        node.domain.clone_from(domain);
    }
    override_with(&mut config, args);
    Ok(config)
}

fn override_with(config: &mut Config, args: &Finesse) {
    fn set<T: Clone>(target: &mut T, value: Option<&T>) {
        if let Some(value) = value {
            target.clone_from(value);
        }
    }
    set(&mut config.agents.count, args.agents.as_ref());
    set(&mut config.agents.first_id, args.first_agent.as_ref());
    set(
        &mut config.agents.extension_base,
        args.extension_base.as_ref(),
    );
    set(&mut config.agents.password, args.password.as_ref());
    set(&mut config.deployment, args.deployment.as_ref());
    set(&mut config.answer_delay, args.answer_delay.as_ref());
    set(&mut config.effect_delay, args.effect_delay.as_ref());
    set(&mut config.event_delay, args.event_delay.as_ref());
    set(
        &mut config.forced_logout_after,
        args.forced_logout_after.as_ref(),
    );
    set(&mut config.lockout_after, args.lockout_after.as_ref());
    if args.control_listen.is_some() {
        config.control = args.control_listen;
    }
    if let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) {
        config.tls = Some(TlsConfig {
            cert: cert.clone(),
            key: key.clone(),
            direct: !args.starttls,
        });
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn finesse(flags: &[&str]) -> Finesse {
        let line = ["simulate", "finesse"].iter().chain(flags);
        let What::Finesse(finesse) = Cli::parse_from(line).args.what;
        *finesse
    }

    #[test]
    fn flags_describe_two_nodes() {
        let args = finesse(&[
            "--listen",
            "127.0.0.1:1",
            "--xmpp-listen",
            "127.0.0.1:2",
            "--listen",
            "127.0.0.1:3",
            "--xmpp-listen",
            "127.0.0.1:4",
            "--agents",
            "1000",
            "--deployment",
            "uccx",
            "--forced-logout-after",
            "2s",
        ]);
        let config = configure(&args).unwrap();
        assert_eq!(config.nodes.len(), 2);
        assert_eq!(config.agents.count, 1000);
        assert_eq!(config.deployment, Deployment::Uccx);
        assert_eq!(config.forced_logout_after, Duration::from_secs(2));
    }

    #[test]
    fn a_file_with_unknown_keys_is_a_usage_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "simulator.agentz = 1\n").unwrap();
        let path = file.path().to_str().unwrap();
        let errors = configure(&finesse(&["--config", path])).unwrap_err();
        assert!(errors[0].contains("simulator.agentz"), "{errors:?}");
        let line = ["simulate", "finesse", "--config", path];
        assert_eq!(
            run(Cli::parse_from(line).args, false),
            ExitCode::from(USAGE)
        );
    }
}
