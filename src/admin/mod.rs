//! The admin HTTP listener: health, status, metrics, verbs and the status page.
//!
//! It knows the engine by three things only: the [`View`] that the driver publishes, a channel
//! for what must be asked, and the [`History`] that the driver feeds. Nothing here can block the
//! engine: the channel is bounded and every question has a time limit.

mod api;
mod extract;
mod guard;
mod health;
mod history;
mod live;
mod page;
mod pulse;
mod routes;
mod shapes;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod throttle;
mod times;
mod trace;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ConnectInfo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use guard::Rules;
pub(crate) use health::readiness;
pub use history::{History, HistoryEntry};
pub(crate) use history::{STARTED, TAKEOVER, read as read_history, since};
pub use pulse::{Pulse, Second};
pub(crate) use times::iso;
pub use times::with_times;

use crate::engine::View;
use crate::engine::input::Verb;
use crate::engine::view::{SessionPage, SessionQuery};
use crate::listener::{From, Limited};
use crate::net::TlsServer;
use crate::network::Network;
use crate::record::Told;
use crate::rest::Callbacks;
use crate::serve;
use crate::watchdog::Watchdog;

/// How long open connections may take to end when the listener is shut down.
const CLOSING: Duration = Duration::from_secs(1);

/// Renders the metrics in the Prometheus text format.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// What only the engine can answer.
#[derive(Debug)]
pub enum AdminRequest {
    /// Agent sessions, all or a part.
    Sessions(SessionQuery, oneshot::Sender<SessionPage>),
    /// An operator's verb; the answer is the new state, or why not.
    Verb(Verb, oneshot::Sender<Result<String, String>>),
    /// What happened to a command, by its command or correlation id; answered in parts. Where the
    /// other end is dropped at once, there are too many questions.
    Trace(String, mpsc::Sender<Told>),
}

/// What the listener serves from.
#[derive(Clone)]
pub struct AdminState {
    /// Whether the driver goes on.
    pub watchdog: Watchdog,
    /// The engine's picture of itself, as last published.
    pub view: watch::Receiver<Arc<View>>,
    /// Questions and verbs for the engine.
    pub ask: mpsc::Sender<AdminRequest>,
    /// `GET /metrics`.
    pub metrics: Render,
    /// Connections at once; further ones wait in the system's backlog.
    pub connections: usize,
    /// Who may ask what. Without any token changing calls are taken on a loopback listener only.
    pub rules: Rules,
    /// Certificate; plain HTTP without.
    pub tls: Option<TlsServer>,
    /// `GET /api/v1/history`.
    pub history: History,
    /// Throughput and latency of the last seconds.
    pub pulse: Pulse,
    /// What the brokers' management says of consumers and links.
    pub network: watch::Receiver<Arc<Network>>,
    /// What is done with HTTP callbacks, where there are any.
    pub callbacks: Option<Callbacks>,
}

/// Opens the admin listener.
///
/// # Errors
/// With the address, and in words where the port is taken.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::AddrInUse => format!("port in use: {addr} (admin.listen)"),
            io::ErrorKind::AddrNotAvailable => {
                format!("not an address of this machine: {addr} (admin.listen)")
            }
            _ => format!("cannot listen on {addr} (admin.listen): {error}"),
        };
        io::Error::new(error.kind(), text)
    })
}

/// The OpenAPI document of the listener, served at `/openapi.json`.
#[must_use]
pub fn openapi() -> serde_json::Value {
    api::openapi().clone()
}

/// Serves until `shutdown` resolves, then gives open connections a second to end.
///
/// # Errors
/// Where the listener's own address cannot be read, or the certificate cannot be used.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let tls = state.tls.as_ref().map(TlsServer::acceptor).transpose();
    let tls = tls.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let address = listener.local_addr()?;
    let access = guard::Access::of(address, tls.is_some(), state.rules.clone());
    let listener = Limited::new(listener, state.connections, tls);
    let app = routes::router(state, access);
    let of = |from: SocketAddr| {
        let from = ConnectInfo(From(from.ip()));
        app.clone().layer(Extension(from))
    };
    let stop = CancellationToken::new();
    let end = async {
        shutdown.await;
        stop.cancel();
    };
    tokio::join!(serve::serve(listener, of, stop.clone(), CLOSING), end);
    Ok(())
}
