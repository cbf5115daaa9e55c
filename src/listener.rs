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
    idle: Duration,
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
            idle: IDLE,
            shaking: JoinSet::new(),
        }
    }

    /// A new connection; the first one whose handshake is done where there is TLS.
    async fn next(&mut self) -> io::Result<(Connection, SocketAddr)> {
        let idle = self.idle;
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
                        None => {
                            let stream = Stream::Plain(stream);
                            return Ok((Connection::new(stream, permit, idle), from));
                        }
                        Some(tls) => {
                            self.shaking.spawn(shake(tls, stream, from, permit, idle));
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
    idle: Duration,
) -> Option<(Connection, SocketAddr)> {
    let problem = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let stream = Stream::Tls(Box::new(stream));
            return Some((Connection::new(stream, permit, idle), from));
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
    /// How long nothing may move.
    limit: Duration,
    idle: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn new(stream: Stream, permit: Option<OwnedSemaphorePermit>, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            idle: Box::pin(tokio::time::sleep(limit)),
            _permit: permit,
        }
    }

    /// Something has moved.
    fn moved(&mut self) {
        let until = Instant::now() + self.limit;
        self.idle.as_mut().reset(until);
    }

    /// What has to wait does so until the connection was idle for too long. Reading and writing
    /// alike: nothing is read while a client does not take its answers.
    fn or_idle<T>(
        &mut self,
        cx: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if done.is_pending() {
            ready!(self.idle.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        done
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
        let read = on_stream!(&mut self.stream, poll_read, cx, buf);
        if read.is_ready() {
            self.moved();
        }
        self.or_idle(cx, read)
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
            self.moved();
        }
        self.or_idle(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = on_stream!(&mut self.stream, poll_flush, cx);
        self.or_idle(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = on_stream!(&mut self.stream, poll_shutdown, cx);
        self.or_idle(cx, shut)
    }
}

/// The bearer token that comes with a request. Secrets compare in constant time.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, given) = value.split_once(' ')?;
    let token = || Secret::new(given.trim());
    scheme.eq_ignore_ascii_case("bearer").then(token)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use socket2::{Domain, Socket, Type};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    async fn served(connections: usize, idle: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut limited = Limited::new(listener, connections, None);
        limited.idle = idle;
        let answer = get(async || "x".repeat(4_096));
        let router = Router::new().route("/", answer);
        tokio::spawn(async move { axum::serve(limited, router).await });
        address
    }

    /// With room for few bytes that it has not read.
    async fn narrow(address: SocketAddr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(&address.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        TcpStream::from_std(socket.into()).unwrap()
    }

    #[tokio::test]
    async fn who_asks_and_never_reads_loses_its_place() {
        let address = served(1, Duration::from_millis(500)).await;
        let mut greedy = narrow(address).await;
        let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let requests = request.repeat(5_000);
        let asked = greedy.write_all(&requests);
        // It is not taken whole: that is what the answers wait for.
        let _ = tokio::time::timeout(Duration::from_millis(100), asked).await;
        // The one place is another's in the end, though the first never went away.
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(request).await.unwrap();
        let mut answer = [0; 12];
        let read = tokio::time::timeout(PATIENCE, other.read_exact(&mut answer));
        read.await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        drop(greedy);
    }
}
