//! Opening a connection: name, properties, heartbeat, socket options, TLS, and a way to cut it.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use socket2::{Socket, TcpKeepalive};

use super::classify::{Class, Problem};
use super::{BrokerConfig, BrokerError, CLOSE_LIMIT, RPC_LIMIT, guard, lock};
use crate::net::{TlsClient, amqp};

/// A broker of the list, ready to be dialled.
#[derive(Clone)]
pub(super) struct Endpoint {
    uri: AMQPUri,
    tls: TlsClient,
    pub(super) label: String,
}

impl Endpoint {
    /// Why no connection could be opened, with what the library's own words leave out.
    async fn problem(&self, error: lapin::Error) -> Problem {
        match amqp::reason(&self.uri, &self.tls, &error).await {
            // Whatever was read there was no broker's.
            Some(text) => Problem::new(Class::Unreachable, text),
            None => error.into(),
        }
    }
}

/// Reads the broker list.
pub(super) fn endpoints(config: &BrokerConfig) -> Result<Vec<Endpoint>, BrokerError> {
    config.tls.config()?;
    let heartbeat = u16::try_from(config.heartbeat.as_secs())
        .unwrap_or(u16::MAX)
        .max(1);
    let mut endpoints = Vec::new();
    for broker in &config.brokers {
        let mut uri = amqp::uri(&broker.uri).map_err(|reason| BrokerError::Uri {
            label: broker.label.clone(),
            reason,
        })?;
        // Else the broker's own value counts, which is 60 s by default.
        uri.query.heartbeat = Some(heartbeat);
        endpoints.push(Endpoint {
            uri,
            tls: config.tls.clone(),
            label: broker.label.clone(),
        });
    }
    Ok(endpoints)
}

/// Cuts the socket when it is dropped. The library's own thread lives as long as its socket: with
/// a broker that hangs that would be for ever.
#[derive(Default)]
struct Cutter {
    socket: Option<Socket>,
    cut: bool,
}

struct CutOnDrop(Arc<Mutex<Cutter>>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        let mut cutter = lock(&self.0);
        cutter.cut = true;
        if let Some(socket) = cutter.socket.take() {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Remembers the socket to be cut; an error where that was asked for while it was connecting.
fn remember(cutter: &Mutex<Cutter>, socket: Socket) -> std::io::Result<()> {
    let mut cutter = lock(cutter);
    if cutter.cut {
        return Err(std::io::ErrorKind::ConnectionAborted.into());
    }
    cutter.socket = Some(socket);
    Ok(())
}

/// An open connection; dropping it cuts it.
pub(super) struct Conn {
    pub(super) inner: Connection,
    // After `inner`, which would say goodbye first.
    _cut: CutOnDrop,
}

impl Conn {
    /// Opens a connection that the broker shows as `tandem/<instance>/<purpose>`. Unbounded in
    /// time: the caller bounds it, and dropping the future cuts what was begun.
    pub(super) async fn open(
        config: &BrokerConfig,
        endpoint: &Endpoint,
        purpose: &str,
    ) -> Result<Self, Problem> {
        let cutter = Arc::<Mutex<Cutter>>::default();
        let cut = CutOnDrop(Arc::clone(&cutter));
        let limit = config.timeout;
        let tls = endpoint.tls.clone();
        let silence = 2 * config.heartbeat.max(Duration::from_secs(1));
        let connect = async move |uri: AMQPUri, runtime: async_rs::TokioRuntime| {
            let connect = amqp::connect(&uri, &tls, &runtime, |socket| {
                set_options(&socket, silence);
                remember(&cutter, socket.try_clone()?)
            });
            // In a thread of the library's, that outlives the caller.
            let stream = tokio::time::timeout(limit, connect).await;
            Ok(stream.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?)
        };
        let properties = properties(config, purpose);
        let opened = guard::open(endpoint.uri.clone(), properties, connect);
        match opened.await {
            Ok(inner) => Ok(Self { inner, _cut: cut }),
            Err(error) => Err(endpoint
                .problem(error)
                .await
                .while_doing(format!("connect ({purpose})"))),
        }
    }

    pub(super) fn alive(&self) -> bool {
        self.inner.status().connected()
    }

    pub(super) async fn channel(&self) -> Result<Channel, Problem> {
        rpc("open a channel", self.inner.create_channel()).await
    }

    /// An orderly end, in bounded time.
    pub(super) async fn close(&self) {
        if self.alive() {
            let close = self.inner.close(200, "OK".into());
            let _ = tokio::time::timeout(CLOSE_LIMIT, close).await;
        }
    }
}

/// Bounds an exchange with the broker.
pub(super) async fn rpc<T>(
    what: &str,
    exchange: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(RPC_LIMIT, exchange).await {
        Ok(result) => result.map_err(|error| Problem::from(error).while_doing(what)),
        Err(_) => Err(Problem::timeout(what)),
    }
}

/// Bounds one connect-and-open.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let text = format!("not open within {limit:?}");
        Err(Problem::new(Class::Timeout, text))
    })
}

/// A half-open connection is noticed by unacknowledged data too, not by heartbeats alone. Options
/// that the system lacks are done without.
fn set_options(socket: &Socket, silence: Duration) {
    let keepalive = TcpKeepalive::new()
        .with_time(silence)
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(silence));
}

fn properties(config: &BrokerConfig, purpose: &str) -> ConnectionProperties {
    let name = format!("tandem/{}/{purpose}", config.instance);
    let text = |value: &str| value.to_owned().into_bytes().into();
    ConnectionProperties::default()
        .with_connection_name(text(&name))
        .with_client_property("product".into(), text("tandem"))
        .with_client_property("version".into(), text(&config.version))
        .with_client_property("cluster".into(), text(&config.cluster_name))
        .with_client_property("site".into(), text(&config.site))
        .with_client_property("role".into(), text(&config.role))
        .with_client_property("purpose".into(), text(purpose))
}
