//! The transport below the XML stream, with limits that the XML library does not have.
//!
//! Stanzas become trees, so a peer that never ends an element or nests without end would cost
//! memory or stack without limit. The guard counts bytes and nesting as they arrive, before the
//! parser sees them.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Largest stanza in bytes; payloads of 256 KiB grow when they are escaped.
pub(super) const MAX_STANZA: usize = 512 * 1024;
/// Deepest nesting, the stream element included.
pub(super) const MAX_DEPTH: usize = 32;
/// Read buffer of a session; few stanzas are larger.
const BUFFER: usize = 4096;

/// A connection with or without TLS.
pub(super) enum Transport {
    /// No TLS.
    Plain(TcpStream),
    /// TLS; boxed, its state is large.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// A buffered transport that fails where the peer exceeds a limit.
pub(super) struct Guard {
    inner: BufReader<Transport>,
    /// Bytes at the start of the buffer that are already counted.
    counted: usize,
    scanner: Scanner,
    restart: AtomicBool,
}

impl Guard {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            inner: BufReader::with_capacity(BUFFER, transport),
            counted: 0,
            scanner: Scanner::default(),
            restart: AtomicBool::new(false),
        }
    }

    /// The next bytes begin a new stream document (after SASL).
    pub(super) fn restart(&self) {
        self.restart.store(true, Ordering::Relaxed);
    }

    /// The transport, where nothing was received beyond what was read. Anything more would be
    /// plain text that passes for protected text after STARTTLS.
    pub(super) fn into_transport(self) -> Option<Transport> {
        self.inner
            .buffer()
            .is_empty()
            .then(|| self.inner.into_inner())
    }
}

impl AsyncBufRead for Guard {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.restart.swap(false, Ordering::Relaxed) {
            this.scanner = Scanner::default();
        }
        let bytes = ready!(Pin::new(&mut this.inner).poll_fill_buf(cx))?;
        let fresh = bytes.get(this.counted..).unwrap_or_default();
        if !this.scanner.scan(fresh) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "stanza larger or deeper than allowed",
            )));
        }
        this.counted = bytes.len();
        Poll::Ready(Ok(bytes))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        this.counted = this.counted.saturating_sub(amount);
        Pin::new(&mut this.inner).consume(amount);
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..amount]);
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guard {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().inner.get_mut()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().inner.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().inner.get_mut()).poll_shutdown(cx)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After `<`.
    Open,
    /// In a tag; whether it is an end tag, and whether the last byte was a `/`.
    Tag { end: bool, slash: bool },
    /// In an attribute value with this quote.
    Quote { quote: u8, end: bool },
    /// In `<!…`: CDATA, the only form that the parser lets pass; how many `]` precede.
    Bang { brackets: u8 },
    /// In `<?…`.
    Instruction,
}

/// Follows nesting without judging well-formedness; that is the parser's task.
#[derive(Debug, Default)]
struct Scanner {
    state: State,
    depth: usize,
    /// Bytes since the last moment between two stanzas.
    size: usize,
}

impl Scanner {
    /// Whether the limits still hold after `bytes`.
    fn scan(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            // Most bytes are text, where nothing but `<` counts: one search instead of steps.
            if self.state == State::Text && byte != b'<' {
                let text = memchr::memchr(b'<', rest).unwrap_or(rest.len());
                self.size = if self.depth <= 1 { 0 } else { self.size + text };
                if self.size > MAX_STANZA {
                    return false;
                }
                rest = rest.get(text..).unwrap_or_default();
                continue;
            }
            rest = tail;
            self.step(byte);
            self.size += 1;
            if self.depth > MAX_DEPTH || self.size > MAX_STANZA {
                return false;
            }
            if self.depth <= 1 && self.state == State::Text {
                self.size = 0;
            }
        }
        true
    }

    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (State::Text, b'<') => State::Open,
            (State::Text, _) => State::Text,
            (State::Open, b'/') => State::Tag {
                end: true,
                slash: false,
            },
            (State::Open, b'!') => State::Bang { brackets: 0 },
            (State::Open, b'?') => State::Instruction,
            (State::Open, _) => State::Tag {
                end: false,
                slash: false,
            },
            (State::Tag { end, .. }, quote @ (b'"' | b'\'')) => State::Quote { quote, end },
            (State::Tag { end: true, .. }, b'>') => {
                self.depth = self.depth.saturating_sub(1);
                State::Text
            }
            (State::Tag { slash: true, .. }, b'>') => State::Text,
            (State::Tag { .. }, b'>') => {
                self.depth += 1;
                State::Text
            }
            (State::Tag { end, .. }, byte) => State::Tag {
                end,
                slash: byte == b'/',
            },
            (State::Quote { quote, end }, byte) if byte == quote => {
                State::Tag { end, slash: false }
            }
            (State::Bang { brackets: 2 }, b'>') | (State::Instruction, b'>') => State::Text,
            (State::Bang { brackets }, b']') => State::Bang {
                brackets: (brackets + 1).min(2),
            },
            (State::Bang { .. }, _) => State::Bang { brackets: 0 },
            (state @ (State::Quote { .. } | State::Instruction), _) => state,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream to='a>b' from=\"c\">";

    #[test]
    fn nesting_is_followed_through_quotes_cdata_and_empty_elements() {
        let mut scanner = Scanner::default();
        assert!(scanner.scan(HEADER.as_bytes()));
        assert_eq!(scanner.depth, 1);
        assert!(
            scanner.scan(b"<message to='/>'><a x=\"</a>\"/><b><![CDATA[</b></message>]]]></b><c/>")
        );
        assert_eq!(scanner.depth, 2);
        assert!(scanner.scan(b"</message> \n"));
        assert_eq!((scanner.depth, scanner.size), (1, 0));
    }

    #[test]
    fn deep_nesting_is_stopped() {
        let mut scanner = Scanner::default();
        assert!(scanner.scan(HEADER.as_bytes()));
        assert!(scanner.scan("<a>".repeat(MAX_DEPTH - 1).as_bytes()));
        assert!(!scanner.scan(b"<a>"));
    }

    #[test]
    fn many_stanzas_pass_and_an_endless_one_does_not() {
        let mut scanner = Scanner::default();
        assert!(scanner.scan(HEADER.as_bytes()));
        let stanza = format!("<message>{}</message>", "x".repeat(MAX_STANZA / 2));
        for _ in 0..5 {
            assert!(scanner.scan(stanza.as_bytes()));
        }
        assert!(!scanner.scan(format!("<message>{}", "x".repeat(MAX_STANZA)).as_bytes()));
    }

    #[test]
    fn an_endless_stream_header_is_stopped() {
        let mut scanner = Scanner::default();
        assert!(!scanner.scan(format!("<stream a='{}", "x".repeat(MAX_STANZA)).as_bytes()));
    }

    proptest! {
        #[test]
        fn chunking_makes_no_difference(
            text in "[<>/a'\"!\\[\\]? ]{0,80}",
            cut in 0usize..80,
        ) {
            let mut whole = Scanner::default();
            let mut parts = Scanner::default();
            whole.scan(text.as_bytes());
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            parts.scan(head);
            parts.scan(tail);
            prop_assert_eq!((whole.state, whole.depth), (parts.state, parts.depth));
        }
    }
}
