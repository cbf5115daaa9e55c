//! A connection with or without TLS, as libraries want it that do not know tokio.
//!
//! The AMQP library has TLS of its own, which brings a reader of PKCS#12 files and 20 crates more;
//! here all connections have one TLS client ([`super::TlsClient`]), and its words.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite, IoSlice};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection of ours to somebody.
pub struct Stream(Kind);

enum Kind {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self(Kind::Plain(tcp))
    }
}

impl From<TlsStream<TcpStream>> for Stream {
    fn from(tls: TlsStream<TcpStream>) -> Self {
        Self(Kind::Tls(Box::new(tls)))
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::Plain(_) => "Stream(plain)",
            Kind::Tls(_) => "Stream(TLS)",
        })
    }
}

/// Asks whichever it is, by tokio's traits.
macro_rules! whichever {
    ($stream:expr, $trait:ident, $ask:ident, $cx:expr $(, $given:expr)*) => {
        match &mut $stream.get_mut().0 {
            Kind::Plain(tcp) => tokio::io::$trait::$ask(Pin::new(tcp), $cx $(, $given)*),
            Kind::Tls(tls) => tokio::io::$trait::$ask(Pin::new(tls), $cx $(, $given)*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(whichever!(self, AsyncRead, poll_read, cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Stream {
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

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        whichever!(self, AsyncWrite, poll_shutdown, cx)
    }
}
