//! Admin HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::input::Verb;
use crate::engine::view::SessionView;
use crate::engine::{Event, View};
use crate::model::Secret;

/// Asked of the driver.
#[derive(Debug)]
pub enum AdminRequest {
    /// Sessions.
    Sessions(oneshot::Sender<Vec<SessionView>>),
    /// A verb.
    Verb(Verb, oneshot::Sender<Result<String, String>>),
}

/// History.
#[derive(Debug, Default)]
pub struct History;
impl History {
    /// Records.
    pub fn record(&mut self, _event: &Event) {}
}

/// State.
#[derive(Clone)]
pub struct AdminState {
    view: watch::Receiver<Arc<View>>,
    _ask: mpsc::Sender<AdminRequest>,
}
impl AdminState {
    /// New.
    pub fn new(
        view: watch::Receiver<Arc<View>>,
        ask: mpsc::Sender<AdminRequest>,
        _metrics: (),
        _token: Option<Secret>,
        _history: Arc<Mutex<History>>,
    ) -> Self {
        Self { view, _ask: ask }
    }
}

/// Bind.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(addr)
        .await
        .map_err(|e| format!("admin.listen {addr}: {e}"))
}

/// Serve.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = axum::Router::new()
        .route(
            "/api/v1/status",
            axum::routing::get(
                |axum::extract::State(s): axum::extract::State<AdminState>| async move {
                    let v = s.view.borrow().clone();
                    axum::Json(v.as_ref().clone())
                },
            ),
        )
        .with_state(state);
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown)
        .await
}
