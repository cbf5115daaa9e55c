//! The downstream simulator: a Cisco Finesse cluster that never calls anybody.
//!
//! One process plays one or two nodes with a shared telephony state. A node is a REST listener
//! (`rest`) and a notification service (`xmpp`); both act on the [`world`]: agents
//! ([`agent`]), calls (`call`, `telephony`) and the [`ledger`] of accepted effects. `faults`
//! makes a node fail, `control` is how a test or a person drives it.

pub mod agent;
mod call;
mod campaign;
pub mod config;
mod control;
mod dialog_requests;
pub mod faults;
pub mod ledger;
mod lists;
mod net;
pub mod reasons;
mod rest;
mod state_requests;
mod supervision;
mod telephony;
pub mod world;
mod xml;
mod xmpp;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use base64::Engine as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use tandem_files::read_pem;

pub use config::{AgentSpec, Agents, Config, Deployment, NodeConfig, TlsConfig};
pub use faults::NodeFaults;
pub use ledger::Ledger;
use world::World;

/// Why the simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// A listener could not be opened.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Certificate or key cannot be used.
    #[error("TLS of the notification service: {0}")]
    Tls(String),
}

/// Where one node really listens.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NodeAddress {
    /// REST and control.
    pub rest: SocketAddr,
    /// Notification service.
    pub xmpp: SocketAddr,
    /// Its XMPP domain.
    pub domain: String,
}

/// A running simulator; dropping it ends it without waiting.
#[derive(Debug)]
pub struct Running {
    /// The nodes, primary first.
    pub nodes: Vec<NodeAddress>,
    /// The control listener, if one was configured.
    pub control: Option<SocketAddr>,
    world: Arc<World>,
    tasks: JoinSet<()>,
}

impl Running {
    /// The effects accepted so far.
    pub fn ledger(&self) -> &Ledger {
        &self.world.ledger
    }

    /// The fault switches, one set a node, primary first.
    pub fn faults(&self) -> &[NodeFaults] {
        &self.world.faults
    }

    /// Agents, calls and everything else.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Closes all listeners and connections and waits until they are closed (at most 5 s).
    pub async fn stop(mut self) {
        self.world.stop.cancel();
        let mut tasks = std::mem::take(&mut self.tasks);
        let all = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.world.stop.cancel();
    }
}

/// Opens all listeners and serves until stopped.
///
/// # Errors
/// The configuration names no node or more than two, or an agent twice; an address is taken; the
/// certificate cannot be read.
pub async fn start(mut config: Config) -> Result<Running, Error> {
    check(&config)?;
    let tls = config.tls.as_ref().map(acceptor).transpose()?;
    let mut listeners = Vec::new();
    for node in &mut config.nodes {
        let (rest, xmpp) = (net::listen(node.rest)?, net::listen(node.xmpp)?);
        (node.rest, node.xmpp) = (rest.local_addr()?, xmpp.local_addr()?);
        listeners.push((rest, xmpp));
    }
    let control = config.control.map(net::listen).transpose()?;
    let nodes = config
        .nodes
        .iter()
        .map(|node| NodeAddress {
            rest: node.rest,
            xmpp: node.xmpp,
            domain: node.domain.clone(),
        })
        .collect();
    let world = Arc::new(World::new(config));
    let mut tasks = JoinSet::new();
    let address = control.as_ref().map(|c| c.local_addr()).transpose()?;
    if let Some(listener) = control {
        let never = tokio::sync::watch::Sender::new(false);
        let (router, stop) = (control::router(world.clone()), world.stop.clone());
        tasks.spawn(async move {
            // The sender lives as long as the gate, so that the gate never sees it close.
            net::gate(
                listener,
                never.subscribe(),
                stop,
                |_| {},
                |listener, open| serve(listener, open, router.clone()),
            )
            .await;
            drop(never);
        });
    }
    for (at, (rest, xmpp)) in listeners.into_iter().enumerate() {
        node(&mut tasks, &world, at + 1, rest, xmpp, tls.clone());
    }
    Ok(Running {
        nodes,
        control: address,
        world,
        tasks,
    })
}

fn check(config: &Config) -> Result<(), Error> {
    if config.nodes.is_empty() || config.nodes.len() > 2 {
        return Err(Error::Config("one or two nodes, please".to_owned()));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    for node in &config.nodes {
        if node.domain.is_empty() || !node.domain.bytes().all(legal) {
            return Err(Error::Config(format!("not a domain: {}", node.domain)));
        }
    }
    let mut ids: Vec<String> = config
        .agents
        .list()
        .into_iter()
        .map(|agent| agent.id.to_ascii_lowercase())
        .collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(Error::Config(format!("agent {} is given twice", twice[0]))),
        None => Ok(()),
    }
}

fn acceptor(tls: &TlsConfig) -> Result<TlsAcceptor, Error> {
    let bad = |e: &dyn std::fmt::Display| Error::Tls(e.to_string());
    let read =
        |path: &Path| read_pem(path).map_err(|e| Error::Tls(format!("{}: {e}", path.display())));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(&tls.cert)?)
        .collect::<Result<_, _>>()
        .map_err(|e| bad(&e))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&tls.key)?).map_err(|e| bad(&e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| bad(&e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(
    inner: tokio::net::TcpListener,
    open: tokio_util::sync::CancellationToken,
    router: Router,
) {
    let listener = net::CutListener { inner, open };
    let service = router.into_make_service_with_connect_info::<net::Cut>();
    // Serving ends only when this future is dropped.
    let _ = axum::serve(listener, service).await;
}

fn node(
    tasks: &mut JoinSet<()>,
    world: &Arc<World>,
    number: usize,
    rest: tokio::net::TcpListener,
    xmpp: tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
) {
    let faults = world.node_faults(number);
    let handlers = Arc::new(rest::Node {
        world: world.clone(),
        number,
    });
    let router = Router::new()
        .fallback(rest::handle)
        .with_state(handlers)
        .merge(control::router(world.clone()));
    let (closed, stop, shared) = (faults.watch_refuse(), world.stop.clone(), world.clone());
    tasks.spawn(async move {
        let changed = |_: bool| {
            let up = shared.node_faults(number).application_is_up();
            shared.publish_presence(number, up);
        };
        net::gate(rest, closed, stop, changed, |listener, open| {
            serve(listener, open, router.clone())
        })
        .await;
    });
    let service = xmpp::Service {
        world: world.clone(),
        node: number,
        tls,
    };
    let (closed, stop) = (faults.watch_xmpp_down(), world.stop.clone());
    tasks.spawn(async move {
        net::gate(
            xmpp,
            closed,
            stop,
            |_| {},
            |listener, open| service.clone().accept(listener, open),
        )
        .await;
    });
    let (mut status, mut gone) = (faults.watch_service(), faults.watch_application());
    let shared = world.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                changed = status.changed() => match changed {
                    Ok(()) => shared.publish_system(number),
                    Err(_) => return,
                },
                changed = gone.changed() => match changed {
                    Ok(()) => {
                        let up = shared.node_faults(number).application_is_up();
                        shared.publish_presence(number, up);
                    }
                    Err(_) => return,
                },
            }
        }
    });
}

/// Locks, also after a panic elsewhere: the data is plain values, each change small.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// `YYYY-MM-DDThh:mm:ss.SSSZ`; empty for 0.
fn timestamp(ms: i64) -> String {
    match chrono::DateTime::from_timestamp_millis(ms) {
        Some(time) if ms != 0 => time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        _ => String::new(),
    }
}

fn basic(id: &str, password: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{password}"));
    format!("Basic {encoded}")
}

fn team_name(team: u32) -> String {
    format!("Team {team}")
}
