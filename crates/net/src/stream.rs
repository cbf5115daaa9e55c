//! A connection of ours with or without TLS, for tokio and for libraries that do not know tokio.
//!
//! The AMQP library has TLS of its own, which brings a reader of PKCS#12 files and 20 crates more;
//! here all connections have one TLS client ([`super::TlsClient`]), and its words.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::IoSlice;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection of ours to somebody.
pub enum Transport {
    /// No TLS.
    Plain(TcpStream),
    /// TLS; boxed, its state is large.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Whether others on the way cannot read it.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl From<TcpStream> for Transport {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl From<TlsStream<TcpStream>> for Transport {
    fn from(tls: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(tls))
    }
}

/// Asks whichever it is.
macro_rules! whichever {
    ($transport:expr, $trait:ident, $ask:ident, $cx:expr $(, $given:expr)*) => {
        match $transport.get_mut() {
            Transport::Plain(tcp) => tokio::io::$trait::$ask(Pin::new(tcp), $cx $(, $given)*),
            Transport::Tls(tls) => tokio::io::$trait::$ask(Pin::new(tls), $cx $(, $given)*),
        }
    };
}

impl tokio::io::AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        whichever!(self, AsyncRead, poll_read, cx, buffer)
    }
}

impl tokio::io::AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        whichever!(self, AsyncWrite, poll_write, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        whichever!(self, AsyncWrite, poll_write_vectored, cx, parts)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        whichever!(self, AsyncWrite, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        whichever!(self, AsyncWrite, poll_shutdown, cx)
    }
}

/// The same for libraries that do not know tokio.
pub struct Stream(Transport);

impl<T: Into<Transport>> From<T> for Stream {
    fn from(transport: T) -> Self {
        Self(transport.into())
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0.is_protected() {
            false => "Stream(plain)",
            true => "Stream(TLS)",
        })
    }
}

impl futures::io::AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let transport = Pin::new(&mut self.0);
        ready!(tokio::io::AsyncRead::poll_read(transport, cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl futures::io::AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        tokio::io::AsyncWrite::poll_write(Pin::new(&mut self.0), cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        tokio::io::AsyncWrite::poll_write_vectored(Pin::new(&mut self.0), cx, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_flush(Pin::new(&mut self.0), cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut self.0), cx)
    }
}
