//! An XML stream over a connection.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::login::End;
use super::names::{CLIENT, STREAMS};
use super::stanza::{Features, Incoming, Reader};
use super::text::escaped;
use super::xml::MAX_STANZA;

/// Bytes read in one go.
const CHUNK: usize = 16 * 1024;
/// What a buffer may keep beyond what is in it.
const SPARE: usize = 4 * CHUNK;

/// A stream; all of it is one document in each direction.
///
/// Bytes are kept only while a stanza is incomplete or not yet asked for: a stream on which nothing
/// comes holds no buffer.
pub(super) struct Stream<T> {
    io: T,
    buffer: Vec<u8>,
    /// Bytes of it that are done with.
    done: usize,
    reader: Reader,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    /// A stream that is not open yet.
    pub(super) fn new(io: T) -> Self {
        Self {
            io,
            buffer: Vec::new(),
            done: 0,
            reader: Reader::default(),
        }
    }

    /// Opens the stream and waits for what the service offers.
    pub(super) async fn open(&mut self, domain: &str) -> Result<Features, End> {
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='{CLIENT}' xmlns:stream='{STREAMS}' \
             to='{}' version='1.0'>",
            escaped(domain)
        );
        self.send(&header).await?;
        match (self.next().await?, self.next().await?) {
            (Incoming::Opened, Incoming::Features(features)) => Ok(features),
            _ => Err(End::Broken("service offers no stream features".to_owned())),
        }
    }

    /// Forgets the stream: after SASL both sides begin a new one on the same connection.
    pub(super) fn restart(&mut self) {
        self.reader = Reader::default();
    }

    /// The connection, where nothing was received beyond what was read. Anything more would be
    /// plain text that passes for protected text after STARTTLS.
    pub(super) fn into_inner(self) -> Option<T> {
        (self.done == self.buffer.len()).then_some(self.io)
    }

    /// The connection.
    pub(super) fn io(&self) -> &T {
        &self.io
    }

    /// Writes stanzas.
    pub(super) async fn send(&mut self, xml: &str) -> Result<(), End> {
        self.io.write_all(xml.as_bytes()).await?;
        Ok(self.io.flush().await?)
    }

    /// Ends our half of the stream.
    pub(super) async fn close(&mut self) -> Result<(), End> {
        self.io.write_all(b"</stream:stream>").await?;
        Ok(self.io.shutdown().await?)
    }

    /// The next stanza; an end of the stream, wanted or not, is an error. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Result<Incoming, End> {
        match poll_fn(|cx| self.poll_next(cx)).await? {
            Incoming::Closed => Err(End::Broken("service closed the stream".to_owned())),
            Incoming::StreamError(condition) => Err(End::Error(condition)),
            incoming => Ok(incoming),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, End>> {
        loop {
            if let Some(incoming) = self.read()? {
                return Poll::Ready(Ok(incoming));
            }
            // On the stack: nothing is held while nothing comes.
            let mut chunk = [const { MaybeUninit::uninit() }; CHUNK];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                let end = End::Broken("service closed the connection".to_owned());
                return Poll::Ready(Err(end));
            }
            self.buffer.extend_from_slice(chunk.filled());
        }
    }

    /// The next stanza of what is there.
    fn read(&mut self) -> Result<Option<Incoming>, End> {
        let (done, incoming) = self
            .reader
            .next(self.buffer.get(self.done..).unwrap_or_default())?;
        self.done += done;
        debug_assert!(self.buffer.len() - self.done <= MAX_STANZA + CHUNK);
        if self.done == self.buffer.len() {
            (self.buffer, self.done) = (Vec::new(), 0);
        } else if incoming.is_none() && self.done > 0 {
            self.buffer.drain(..std::mem::take(&mut self.done));
            self.buffer.shrink_to(self.buffer.len() + SPARE);
        }
        Ok(incoming)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_holds_bytes_only_while_a_stanza_is_incomplete() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut stream = Stream::new(ours);
        let header = format!("<stream:stream xmlns='{CLIENT}' xmlns:stream='{STREAMS}'>");
        theirs.write_all(header.as_bytes()).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), Incoming::Opened);
        assert_eq!(stream.buffer.capacity(), 0);
        let large = format!("<message>{}</message>", "x".repeat(MAX_STANZA - 64));
        theirs.write_all(large.as_bytes()).await.unwrap();
        theirs.write_all(b"<presence from='a'").await.unwrap();
        assert_eq!(stream.next().await.unwrap(), Incoming::Message(Vec::new()));
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        assert!(stream.poll_next(cx).is_pending());
        assert!(stream.buffer.capacity() <= SPARE + 64);
        theirs.write_all(b"/> ").await.unwrap();
        assert!(matches!(stream.next().await, Ok(Incoming::Presence(_))));
        assert!(stream.poll_next(cx).is_pending());
        assert_eq!(stream.buffer.capacity(), 0);
    }
}
