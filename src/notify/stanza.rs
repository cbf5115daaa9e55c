//! What comes over the stream, as a session wants it, read in the same pass that cuts the stream
//! into stanzas.

use super::message::{Message, Notification};
use super::names::{Ns, Scope};
use super::outline::Outline;
use super::text::name;
use super::xml::{Fault, Lexer, Token};

/// Something that came over the stream.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// The service opened the stream.
    Opened,
    /// The service closed the stream.
    Closed,
    /// What the service offers.
    Features(Features),
    /// Whether the TLS handshake may begin.
    StartTls(bool),
    /// A step of the authentication.
    Sasl(SaslStep),
    /// A message with these updates, in order; most have one, foreign ones none.
    Message(Vec<Notification>),
    /// An iq stanza.
    Iq(Iq),
    /// A presence stanza.
    Presence(Presence),
    /// The service ends the stream with this condition, where it names one.
    StreamError(Option<String>),
    /// Anything else, and what is not as its specification wants it.
    Other,
}

/// Stream features (RFC 6120 section 4.3.2).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) starttls: bool,
    /// Names of SASL mechanisms.
    pub(super) mechanisms: Vec<String>,
    /// Whether a session request must follow (RFC 3921).
    pub(super) wants_session: bool,
}

/// What the service says during SASL (RFC 6120 section 6.4).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SaslStep {
    /// With base64 data.
    Challenge(String),
    /// With base64 data, where the mechanism has some left.
    Success(String),
    /// With this condition, where it names one.
    Failure(Option<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IqKind {
    Get,
    Set,
    Result,
    Error,
}

/// An iq stanza (RFC 6120 section 8.2.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Iq {
    pub(super) kind: IqKind,
    pub(super) id: String,
    pub(super) from: Option<String>,
    pub(super) payload: Payload,
}

/// The payload of an iq stanza.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Payload {
    None,
    Ping,
    Roster,
    /// The address that the service bound.
    Bind(String),
    /// Condition of a stanza error, where it names one.
    Error(Option<String>),
    Other,
}

/// A presence stanza with a sender.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Presence {
    pub(super) from: String,
    /// Nothing where it is about a subscription or an error.
    pub(super) available: Option<bool>,
}

/// Reads one stream.
#[derive(Debug, Default)]
pub(super) struct Reader {
    lexer: Lexer,
    scope: Scope,
    element: Option<Element>,
}

/// The child of the stream that is being read.
#[derive(Debug)]
enum Element {
    /// Boxed: between stanzas there is none.
    Message(Box<Message>),
    Other(Outline),
}

/// Where a token leaves the reader.
enum Step {
    /// Inside of a unit.
    Within,
    /// At its end.
    End(Option<Incoming>),
}

impl Reader {
    /// Reads on in `bytes`, which begin where the last call said that it had read to. Returns the
    /// number of bytes that are done with, and the next stanza where it is complete.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<(usize, Option<Incoming>), Fault> {
        let mut done = 0;
        loop {
            let unit = bytes.get(done..).unwrap_or_default();
            let Some(token) = self.lexer.next(unit)? else {
                return Ok((done, None));
            };
            if let Step::End(incoming) = self.take(token, unit)? {
                done += self.lexer.end_unit();
                if incoming.is_some() {
                    return Ok((done, incoming));
                }
            }
        }
    }

    fn take(&mut self, token: Token, unit: &[u8]) -> Result<Step, Fault> {
        let depth = self.lexer.depth();
        let Some(element) = &mut self.element else {
            return self.begin(token, depth, unit);
        };
        if depth > 1 {
            match element {
                Element::Message(message) => message.take(token, depth, unit),
                Element::Other(outline) => outline.take(token, depth, &mut self.scope, unit)?,
            }
            return Ok(Step::Within);
        }
        Ok(self.end(unit))
    }

    /// Between stanzas.
    fn begin(&mut self, token: Token, depth: usize, unit: &[u8]) -> Result<Step, Fault> {
        let (tag, empty) = match token {
            Token::Open { tag, empty, .. } => (tag, empty),
            Token::Close(_) => return Ok(Step::End(Some(Incoming::Closed))),
            Token::Text(text) if text.of(unit).trim_ascii().is_empty() => {
                return Ok(Step::End(None));
            }
            Token::Text(_) | Token::Cdata(_) => return Err(Fault::Malformed),
        };
        let bytes = tag.of(unit);
        let inside = depth + usize::from(empty);
        let full = name(bytes).unwrap_or_default();
        let (ns, local) = self.scope.enter(inside, full, bytes)?;
        if inside == 1 {
            let is_stream = (ns, local) == (Ns::Streams, b"stream") && !empty;
            let opened = Step::End(Some(Incoming::Opened));
            return is_stream.then_some(opened).ok_or(Fault::Malformed);
        }
        self.element = Some(match (ns, local) {
            (Ns::Client, b"message") => Element::Message(Box::new(Message::new(bytes))),
            _ => Element::Other(Outline::new(tag, ns, unit)),
        });
        Ok(if empty { self.end(unit) } else { Step::Within })
    }

    fn end(&mut self, unit: &[u8]) -> Step {
        self.scope.leave(1);
        Step::End(self.element.take().map(|element| match element {
            Element::Message(message) => Incoming::Message(message.into_updates()),
            Element::Other(outline) => outline.read(unit),
        }))
    }
}

/// What a stream says that comes in these pieces, and whether it can be read to its end.
pub(super) fn read_all<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Incoming>, Option<Fault>) {
    let (mut reader, mut buffer, mut all) = (Reader::default(), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match reader.next(&buffer) {
                Ok((done, incoming)) => {
                    buffer.drain(..done);
                    match incoming {
                        Some(incoming) => all.push(incoming),
                        None => break,
                    }
                }
                Err(fault) => return (all, Some(fault)),
            }
        }
    }
    (all, None)
}

#[cfg(test)]
mod tests;
