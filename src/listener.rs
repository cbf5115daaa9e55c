//! What HTTP listeners share: one that cannot be exhausted (connections are counted, idle ones are
//! closed), and the token that comes with a request.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::model::Secret;

/// A connection on which nothing is received, and nothing sent, for this long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Pause after a failed accept (out of descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Bound of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The listener.
pub(crate) struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
    /// Handshakes under way: as many as there are permits at most.
    shaking: JoinSet<Option<(Connection, SocketAddr)>>,
}

impl Limited {
    /// With so many connections at once; further ones wait in the system's backlog.
    pub(crate) fn new(listener: TcpListener, connections: usize, tls: Option<TlsAcceptor>) -> Self {
        Self {
            listener,
            permits: Arc::new(Semaphore::new(connections)),
            tls,
            shaking: JoinSet::new(),
        }
    }

    /// A new connection; the first one whose handshake is done where there is TLS.
    async fn next(&mut self) -> io::Result<(Connection, SocketAddr)> {
        loop {
            // The semaphore is never closed: `None` cannot come.
            let permit = async |permits: &Arc<Semaphore>, listener: &TcpListener| {
                let permit = Arc::clone(permits).acquire_owned().await.ok();
                listener
                    .accept()
                    .await
                    .map(|(stream, from)| (stream, from, permit))
            };
            tokio::select! {
                Some(shaken) = self.shaking.join_next() => {
                    if let Ok(Some(connected)) = shaken {
                        return Ok(connected);
                    }
                }
                accepted = permit(&self.permits, &self.listener) => {
                    let (stream, from, permit) = accepted?;
                    match self.tls.clone() {
                        None => return Ok((Connection::new(Stream::Plain(stream), permit), from)),
                        Some(tls) => {
                            self.shaking.spawn(shake(tls, stream, from, permit));
                        }
                    }
                }
            }
        }
    }
}

/// A handshake, bounded in time. Who fails it gets the library's alert, and is not told of above
/// debug: port scanners and load balancers do it all day.
async fn shake(
    tls: TlsAcceptor,
    stream: TcpStream,
    from: SocketAddr,
    permit: Option<OwnedSemaphorePermit>,
) -> Option<(Connection, SocketAddr)> {
    let problem = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let stream = Stream::Tls(Box::new(stream));
            return Some((Connection::new(stream, permit), from));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "not done in time".to_owned(),
    };
    tracing::debug!(%from, problem, "TLS handshake");
    None
}

impl axum::serve::Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.next().await {
                Ok(connected) => return connected,
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct From(pub(crate) IpAddr);

/// With TLS or without.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection with its place among the allowed ones.
pub(crate) struct Connection {
    stream: Stream,
    idle: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn new(stream: Stream, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            stream,
            idle: Box::pin(tokio::time::sleep(IDLE)),
            _permit: permit,
        }
    }
}

/// Both kinds are used alike.
macro_rules! on_stream {
    ($stream:expr, $method:ident $(, $argument:expr)*) => {
        match $stream {
            Stream::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = on_stream!(&mut self.stream, poll_read, cx, buf) {
            self.idle.as_mut().reset(Instant::now() + IDLE);
            return Poll::Ready(result);
        }
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = on_stream!(&mut self.stream, poll_write, cx, data);
        // An answer that goes on for as long as somebody reads it, as the page's, is not idle.
        if matches!(written, Poll::Ready(Ok(count)) if count > 0) {
            self.idle.as_mut().reset(Instant::now() + IDLE);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(&mut self.stream, poll_flush, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(&mut self.stream, poll_shutdown, cx)
    }
}

/// The bearer token that comes with a request. Secrets compare in constant time.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, given) = value.split_once(' ')?;
    let token = || Secret::new(given.trim());
    scheme.eq_ignore_ascii_case("bearer").then(token)
}
