//! The transport below the AMQP library, which lets nothing through that the library cannot read.
//!
//! The library ends the connection on a short string that is not UTF-8, overflows its stack on
//! tables that nest deeply, and takes memory for frames of any size that a broker offers. A
//! client can write the first two into a message; brokers pass them on, again and again. The guard
//! looks at each frame before the library does.
//!
//! ```text
//!   broker ──▶ TCP, TLS ──▶ Guard (screen.rs) ──▶ library
//!                            ├─ content header: can be read (scan.rs)? Else another in its place,
//!                            │  with a mark (mend.rs), so that the engine dead-letters the message
//!                            ├─ method: short strings made UTF-8, frame size bounded (methods.rs)
//!                            └─ body, heartbeat: passed on as they come
//! ```
//!
//! Every AMQP connection of this program is opened here: [`open`] and [`connect`].

pub(crate) mod fuzz;
mod greeting;
mod kit;
mod mend;
mod methods;
mod scan;
mod screen;

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use amq_protocol::frame::parse_frame;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures::io::{AsyncRead, AsyncWrite, IoSlice};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};

use crate::net::{TlsClient, amqp};
use crate::wire::message::Unreadable;

pub use greeting::Greeting;
pub use scan::{MARK, MAX_DEPTH};
pub use screen::BadFrame;
use screen::{Finding, Screen};

/// Largest frame that is agreed on, bytes: what RabbitMQ offers by default. The library keeps 64
/// times as much for each connection.
pub const FRAME_MAX: u32 = 128 * 1024;
/// The least that is agreed on, bytes: the library asks for no less, and what replaces a content
/// header fits into it.
pub const FRAME_MIN: u32 = 8 * 1024;
/// Read buffer of a connection.
const BUFFER: usize = 16 * 1024;

/// A connection to a broker, with or without TLS.
pub type Transport = amqp::Stream;

/// Whether the library failed on what the guard let through. From then on it is asked first, for
/// every method and content header: what it cannot read is then left out whatever the cause.
static DISTRUSTED: AtomicBool = AtomicBool::new(false);

/// Opens an AMQP connection over a transport that `dial` makes. No larger frames are agreed on
/// than [`FRAME_MAX`], nor than the URI's `frame_max` (which is at least [`FRAME_MIN`]). Must be
/// called within a tokio runtime.
///
/// # Errors
/// Those of `dial` and of the library.
pub async fn open(
    uri: AMQPUri,
    properties: ConnectionProperties,
    dial: impl AsyncFn(AMQPUri) -> lapin::Result<Transport> + Send + Sync + 'static,
) -> lapin::Result<Connection> {
    open_heard(uri, properties, dial, Heard::default()).await
}

/// Where the broker's greeting is put.
pub type Heard = Arc<OnceLock<Greeting>>;

/// The same, with what the broker says of itself.
///
/// # Errors
/// As [`open`].
#[expect(clippy::disallowed_methods, reason = "this is the guarded way")]
pub async fn open_heard(
    mut uri: AMQPUri,
    properties: ConnectionProperties,
    dial: impl AsyncFn(AMQPUri) -> lapin::Result<Transport> + Send + Sync + 'static,
    heard: Heard,
) -> lapin::Result<Connection> {
    let asked = uri.query.frame_max.filter(|asked| *asked > 0);
    let ceiling = asked.map_or(FRAME_MAX, |asked| asked.clamp(FRAME_MIN, FRAME_MAX));
    uri.query.frame_max = Some(ceiling);
    let tokio = Tokio::current();
    let guarded = RuntimeParts::new(tokio.clone(), kit::Guarded(tokio));
    let connect = async move |uri, _| {
        let transport = dial(uri).await?;
        let mut guard = Guard::new(transport, ceiling);
        guard.heard = Arc::clone(&heard);
        Ok(AsyncTcpStream::Plain(guard))
    };
    Connection::connector(uri, Runtime::new(guarded), connect, properties).await
}

/// Opens an AMQP connection, guarded, that trusts the system's authorities and goes on until its
/// socket does: what tests and benchmarks use in the place of a client.
///
/// # Errors
/// Those of the library.
pub async fn connect(uri: AMQPUri, properties: ConnectionProperties) -> lapin::Result<Connection> {
    let dial =
        async |uri: AMQPUri| Ok(amqp::connect(&uri, &TlsClient::default(), |_| Ok(())).await?);
    open(uri, properties, dial).await
}

/// What the guard says of a message whose properties could not be read.
pub fn mark_of(headers: &FieldTable) -> Option<Unreadable> {
    let AMQPValue::LongString(mark) = headers.inner().get(scan::MARK)? else {
        return None;
    };
    let mark = String::from_utf8_lossy(mark.as_bytes());
    let (detail, evidence) = mark.split_once('\n').unwrap_or((&mark, ""));
    Some(Unreadable {
        detail: detail.to_owned(),
        evidence: evidence.to_owned(),
    })
}

/// Whether a connection ended because what the broker sent could not be read: the library's error,
/// or the guard's own.
pub fn is_garbled(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ParsingError(_) => true,
        ErrorKind::IOError(error) => error.get_ref().is_some_and(|inner| inner.is::<BadFrame>()),
        _ => false,
    }
}

/// Takes note of an error that ended a connection: where the library could not read what the
/// guard let through, it is asked first from now on.
pub fn note(error: &lapin::Error) {
    if matches!(error.kind(), ErrorKind::ParsingError(_))
        && !DISTRUSTED.swap(true, Ordering::Relaxed)
    {
        tracing::error!(
            %error,
            "the AMQP library could not read what a broker sent; it is asked first from now on"
        );
    }
}

/// Whether the library can read a frame; only asked once it has failed.
fn library_reads(frame: &[u8]) -> bool {
    !DISTRUSTED.load(Ordering::Relaxed) || parse_frame(frame).is_ok()
}

/// A transport that hands on only what the library can read.
pub struct Guard<S> {
    inner: S,
    screen: Screen,
    heard: Heard,
    buffer: Box<[u8]>,
    /// The part of the buffer that was received and not yet looked at.
    from: usize,
    to: usize,
}

impl<S> Guard<S> {
    /// Guards a connection on which no frame is larger than `ceiling` bytes.
    pub fn new(inner: S, ceiling: u32) -> Self {
        let ceiling = usize::try_from(ceiling).unwrap_or(usize::MAX);
        let screen = Screen::new(ceiling, library_reads);
        #[cfg(feature = "failpoints")]
        let screen = match crate::failpoints::blind_guard() {
            true => screen.blind(),
            false => screen,
        };
        Self {
            inner,
            screen,
            heard: Heard::default(),
            buffer: vec![0; BUFFER].into(),
            from: 0,
            to: 0,
        }
    }
}

impl<S> std::fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

fn tell(finding: &Finding) {
    match finding {
        // Who consumes it tells more.
        Finding::Replaced(flaw) => tracing::debug!(flaw, "a message cannot be read"),
        Finding::LeftOut(class, method) => {
            tracing::warn!(
                class,
                method,
                "the broker sends a method that cannot be read"
            );
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        output: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if output.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            let input = &this.buffer[this.from..this.to];
            let (taken, given) = this
                .screen
                .run(input, output)
                .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
            this.from += taken;
            if let Some(greeting) = this.screen.greeting() {
                let _ = this.heard.set(greeting);
            }
            let finding = this.screen.finding();
            if let Some(finding) = &finding {
                tell(finding);
            }
            if given > 0 {
                return Poll::Ready(Ok(given));
            }
            if finding.is_some() {
                continue;
            }
            // Nothing given although there is room: what was received is used up.
            let inner = Pin::new(&mut this.inner);
            let count = ready!(inner.poll_read(cx, &mut this.buffer))?;
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            (this.from, this.to) = (0, count);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, parts)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
