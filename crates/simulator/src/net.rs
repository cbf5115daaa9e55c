//! Listeners that can be closed and opened again, and connections that can be cut.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Pending connections the system keeps for a listener.
const BACKLOG: u32 = 4096;

fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// Opens a listener.
///
/// # Errors
/// The system's, with the address in the text.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    bind(addr)
        .and_then(|socket| socket.listen(BACKLOG))
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}")))
}

/// Serves `listener` while `closed` is false; while it is true, connections are cut and new ones
/// refused. The port stays ours: it is bound without listening. Ends at `stop`.
pub async fn gate<F, Fut>(
    listener: TcpListener,
    mut closed: watch::Receiver<bool>,
    stop: CancellationToken,
    mut changed: impl FnMut(bool),
    mut serve: F,
) where
    F: FnMut(TcpListener, CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let Ok(addr) = listener.local_addr() else {
        return;
    };
    let mut next = Some(listener);
    loop {
        let Some(listener) = next.take() else {
            return;
        };
        let open = stop.child_token();
        // Dropping `serve` closes the listener, the token the connections.
        tokio::select! {
            () = stop.cancelled() => return,
            () = serve(listener, open.clone()) => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
        open.cancel();
        changed(true);
        let Some(held) = hold(addr, &stop).await else {
            return;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = closed.wait_for(|closed| !*closed) => {}
        }
        next = held.listen(BACKLOG).ok();
        changed(false);
    }
}

async fn hold(addr: SocketAddr, stop: &CancellationToken) -> Option<TcpSocket> {
    while !stop.is_cancelled() {
        if let Ok(socket) = bind(addr) {
            return Some(socket);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

/// A handle that cuts one HTTP connection without an answer.
#[derive(Debug, Clone, Default)]
pub struct Cut(Arc<AtomicBool>);

impl Cut {
    /// The next write fails, so the client sees the connection close.
    pub fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A listener whose connections end with a token and carry a [`Cut`].
pub struct CutListener {
    /// The system's listener.
    pub inner: TcpListener,
    /// Ends all connections.
    pub open: CancellationToken,
}

impl Listener for CutListener {
    type Io = CutStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (CutStream, SocketAddr) {
        let (stream, addr) = Listener::accept(&mut self.inner).await;
        let _ = stream.set_nodelay(true);
        let stream = CutStream {
            stream,
            cut: Cut::default(),
            open: Box::pin(self.open.clone().cancelled_owned()),
        };
        (stream, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// One connection of a [`CutListener`].
pub struct CutStream {
    stream: TcpStream,
    cut: Cut,
    open: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connected<IncomingStream<'_, CutListener>> for Cut {
    fn connect_info(stream: IncomingStream<'_, CutListener>) -> Self {
        stream.io().cut.clone()
    }
}

fn aborted() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionAborted)
}

impl AsyncRead for CutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.open.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(aborted()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CutStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.cut.0.load(Ordering::Acquire) {
            return Poll::Ready(Err(aborted()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.cut.0.load(Ordering::Acquire) {
            return Poll::Ready(Err(aborted()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
