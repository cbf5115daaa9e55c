//! Cuts the byte stream of an XMPP client into stream headers and whole stanzas.

use super::super::xml::{Elem, parse};

/// Largest stanza (or header) a client may send, bytes.
const MAX_STANZA: usize = 64 * 1024;

/// One piece of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// `<stream:stream …>`.
    Open,
    /// A complete child of the stream.
    Stanza(Elem),
    /// `</stream:stream>`.
    Close,
}

/// Why the stream must end, as the stream error's condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamError(pub &'static str);

const BAD: StreamError = StreamError("not-well-formed");

/// Incremental cutter: feed `buffer`, ask `next`.
#[derive(Debug, Default)]
pub struct Framer {
    /// Bytes read and not yet consumed.
    pub buffer: Vec<u8>,
    scanned: usize,
    tag: Option<usize>,
    quote: Option<u8>,
    stanza: usize,
    depth: usize,
}

impl Framer {
    /// A new stream starts on the same connection (after SASL or STARTTLS).
    pub fn restart(&mut self) {
        let scanned = self.scanned;
        *self = Self {
            buffer: self.buffer.split_off(scanned.min(self.buffer.len())),
            ..Self::default()
        };
    }

    /// The next complete piece, or `None` until more bytes are there.
    ///
    /// # Errors
    /// The stream error to close with.
    pub fn next(&mut self) -> Result<Option<Frame>, StreamError> {
        while self.scanned < self.buffer.len() {
            let byte = self.buffer[self.scanned];
            self.scanned += 1;
            let Some(start) = self.tag else {
                if byte == b'<' {
                    self.tag = Some(self.scanned - 1);
                    if self.depth == 1 {
                        self.stanza = self.scanned - 1;
                    }
                } else if self.depth <= 1 && !byte.is_ascii_whitespace() {
                    return Err(BAD);
                }
                continue;
            };
            match (self.quote, byte) {
                (Some(quote), _) if quote == byte => self.quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => self.quote = Some(byte),
                (None, b'<') => return Err(BAD),
                (None, b'>') => {
                    self.tag = None;
                    if let Some(frame) = self.tag_done(start)? {
                        return Ok(Some(frame));
                    }
                }
                _ => {}
            }
        }
        if self.depth <= 1 && self.tag.is_none() {
            // Only white space is left: keep-alives must not pile up.
            self.consume();
        }
        if self.buffer.len() > MAX_STANZA {
            return Err(StreamError("policy-violation"));
        }
        Ok(None)
    }

    fn consume(&mut self) {
        self.buffer.drain(..self.scanned);
        self.scanned = 0;
    }

    fn tag_done(&mut self, start: usize) -> Result<Option<Frame>, StreamError> {
        let tag = &self.buffer[start..self.scanned];
        match tag.get(1) {
            Some(b'?') if self.depth == 0 => {
                self.consume();
                return Ok(None);
            }
            // Comments, processing instructions and DTDs are forbidden in streams (RFC 6120, 11.1).
            Some(b'!' | b'?') => return Err(StreamError("restricted-xml")),
            _ => {}
        }
        let closing = tag.get(1) == Some(&b'/');
        let empty = tag.ends_with(b"/>");
        if closing {
            self.depth = self.depth.checked_sub(1).ok_or(BAD)?;
        } else if !empty {
            self.depth += 1;
        }
        match (closing, empty, self.depth) {
            (true, _, 0) => {
                self.consume();
                Ok(Some(Frame::Close))
            }
            (false, false, 1) => {
                let is_stream = tag.starts_with(b"<stream:stream") || tag.starts_with(b"<stream ");
                self.consume();
                if is_stream {
                    Ok(Some(Frame::Open))
                } else {
                    Err(StreamError("bad-format"))
                }
            }
            (_, _, 0) => Err(StreamError("bad-format")),
            (true, _, 1) | (false, true, 1) => {
                let text = std::str::from_utf8(&self.buffer[self.stanza..self.scanned]);
                let elem = parse(text.map_err(|_| BAD)?).map_err(|_| BAD)?;
                self.consume();
                Ok(Some(Frame::Stanza(elem)))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "<?xml version='1.0'?><stream:stream to='a>b' xmlns='jabber:client'> \n\
                        <iq id='1'><ping xmlns='urn:xmpp:ping'/></iq><presence/></stream:stream>";

    fn names(framer: &mut Framer, out: &mut Vec<String>) {
        while let Some(frame) = framer.next().unwrap() {
            out.push(match frame {
                Frame::Open => "open".to_owned(),
                Frame::Stanza(elem) => elem.name,
                Frame::Close => "close".to_owned(),
            });
        }
    }

    #[test]
    fn any_split_of_the_bytes_gives_the_same_frames() {
        for size in [1, 7, 1000] {
            let mut framer = Framer::default();
            let mut seen = Vec::new();
            for chunk in TEXT.as_bytes().chunks(size) {
                framer.buffer.extend_from_slice(chunk);
                names(&mut framer, &mut seen);
            }
            assert_eq!(seen, ["open", "iq", "presence", "close"], "size {size}");
            assert!(framer.buffer.is_empty());
        }
    }

    #[test]
    fn hostile_streams_are_refused() {
        for text in [
            "hello",
            "<a/>",
            "<stream:stream><!-- x --></stream:stream>",
            "<stream:stream><a></b></a>",
            "<stream:stream><a <b/>",
        ] {
            let mut framer = Framer::default();
            framer.buffer.extend_from_slice(text.as_bytes());
            let end = loop {
                match framer.next() {
                    Ok(Some(_)) => {}
                    other => break other,
                }
            };
            assert!(end.is_err(), "{text}");
        }
        let mut framer = Framer::default();
        framer.buffer.extend_from_slice(b"<stream:stream><a>");
        assert_eq!(framer.next(), Ok(Some(Frame::Open)));
        framer
            .buffer
            .extend(std::iter::repeat_n(b'x', MAX_STANZA + 1));
        assert_eq!(framer.next(), Err(StreamError("policy-violation")));
    }

    #[test]
    fn white_space_does_not_pile_up() {
        let mut framer = Framer::default();
        framer.buffer.extend_from_slice(b"<stream:stream>");
        assert_eq!(framer.next(), Ok(Some(Frame::Open)));
        framer.buffer.extend_from_slice(b"   \n ");
        assert_eq!(framer.next(), Ok(None));
        assert!(framer.buffer.is_empty());
    }
}
