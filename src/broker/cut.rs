//! Opening a connection of which nothing stays once nobody wants it: its socket notices a silent
//! other side, and is cut when the connection, or the attempt to open it, is dropped.
//!
//! The library's own thread lives as long as its socket: with a broker that hangs, that takes the
//! connection and says nothing, or that reads nothing more in an alarm, that would be for ever.

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use socket2::Socket;

use super::guard::Greeting;
use super::{guard, lock};
use crate::net::{TlsClient, amqp, options};

/// How a broker is reached.
#[derive(Clone)]
pub(crate) struct How {
    /// Certificates.
    pub(crate) tls: TlsClient,
    /// Bound of connecting, TLS included: the library's thread may outlive the caller by as much.
    pub(crate) limit: Duration,
    /// AMQP heartbeat. The other side may be silent twice as long.
    pub(crate) heartbeat: Duration,
}

/// Why a connection could not be opened.
pub(crate) struct NotOpened {
    /// The library's error.
    pub(crate) error: lapin::Error,
    /// In words, where the library's do not say it.
    pub(crate) reason: Option<String>,
}

/// An open connection; dropping it cuts it.
pub(crate) struct CutConnection {
    inner: Connection,
    /// What the broker says of itself.
    pub(crate) greeting: Greeting,
    // After `inner`, which would say goodbye first.
    _cut: CutOnDrop,
}

impl Deref for CutConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.inner
    }
}

/// Opens a connection. Unbounded in time: the caller bounds it, and dropping the future cuts what
/// was begun.
///
/// # Errors
/// The broker cannot be reached, or refuses.
pub(crate) async fn open(
    uri: &AMQPUri,
    how: &How,
    properties: ConnectionProperties,
) -> Result<CutConnection, NotOpened> {
    let cutter = Arc::<Mutex<Cutter>>::default();
    let cut = CutOnDrop(Arc::clone(&cutter));
    let (limit, tls) = (how.limit, how.tls.clone());
    let silence = 2 * how.heartbeat.max(Duration::from_secs(1));
    let connect = async move |uri: AMQPUri| {
        let connect = amqp::connect(&uri, &tls, |socket| {
            options::long_lived(&socket, silence);
            remember(&cutter, socket.try_clone()?)
        });
        // In a thread of the library's, that outlives the caller.
        let stream = tokio::time::timeout(limit, connect).await;
        Ok(stream.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?)
    };
    let heard = guard::Heard::default();
    let opened = guard::open_heard(uri.clone(), properties, connect, Arc::clone(&heard));
    match opened.await {
        Ok(inner) => Ok(CutConnection {
            inner,
            greeting: heard.get().cloned().unwrap_or_default(),
            _cut: cut,
        }),
        Err(error) => {
            let reason = amqp::reason(uri, &how.tls, &error).await;
            Err(NotOpened { error, reason })
        }
    }
}

/// Cuts the socket when it is dropped.
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
