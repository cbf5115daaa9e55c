//! The XML of a stream in tokens, out of bytes that come in pieces.
//!
//! RFC 6120 section 11.1 forbids comments, processing instructions, DTDs and all entities but the
//! five that XML predefines. What is left is small: tags, text, CDATA, and one declaration at the
//! start. The end of a token is searched for (`memchr`) from where the last search stopped, so that
//! no byte is looked at twice, however the network cuts the stream.
//!
//! Structure is judged here and ends the stream: nesting, names, limits. What text and attribute
//! values mean is judged by [`unescape`](super::text::unescape) where somebody reads them.

use memchr::{memchr, memchr3, memmem};

use super::text::{name, split_name};

/// Largest stanza in bytes; payloads of 256 KiB grow when they are escaped.
pub(super) const MAX_STANZA: usize = 512 * 1024;
/// Deepest nesting, the stream element included.
pub(super) const MAX_DEPTH: usize = 32;

const CDATA: &[u8] = b"<![CDATA[";
const CDATA_END: &[u8] = b"]]>";
const DECLARATION: &[u8] = b"<?xml";
const DECLARATION_END: &[u8] = b"?>";

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// [`MAX_STANZA`] or [`MAX_DEPTH`].
    #[error("stanza larger or deeper than allowed")]
    Limit,
    /// A comment, an instruction, a DOCTYPE.
    #[error("XML that no stream may hold: comment, instruction or DOCTYPE")]
    Restricted,
    /// No XML, or no stream.
    #[error("not well-formed XML")]
    Malformed,
}

/// A part of a unit, by offsets from its start: the bytes move in memory while more arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    at: u32,
    end: u32,
}

impl Span {
    /// Units are bounded by [`MAX_STANZA`] and what one read brings, far below 4 GiB.
    pub(super) fn new(at: usize, end: usize) -> Self {
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            at: short(at),
            end: short(end),
        }
    }

    /// From the start of this to the end of `last`.
    pub(super) fn to(self, last: Self) -> Self {
        Self {
            at: self.at,
            end: last.end,
        }
    }

    /// The bytes that it stands for.
    pub(super) fn of(self, unit: &[u8]) -> &[u8] {
        unit.get(self.at as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// The name of this tag without its prefix.
    pub(super) fn local_name(self, unit: &[u8]) -> Self {
        let name = name(self.of(unit)).unwrap_or_default();
        let local = split_name(name).1;
        let end = self.at as usize + name.len();
        Self::new(end - local.len(), end)
    }
}

/// One token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// `<name attributes>`, or with a slash at its end.
    Open {
        /// All of it, brackets included.
        whole: Span,
        /// Without brackets and slash.
        tag: Span,
        /// Whether it has no content; no `Close` follows then.
        empty: bool,
    },
    /// `</name>`, of the element that was opened last.
    Close(Span),
    /// Text as it was sent, references not resolved.
    Text(Span),
    /// Content of a CDATA section.
    Cdata(Span),
}

/// Finds tokens and follows nesting.
///
/// It works on units: the stream's header, a stanza, or the white space between two. Offsets count
/// from the start of the unit; [`Lexer::end_unit`] begins the next one.
#[derive(Debug, Default)]
pub(super) struct Lexer {
    /// Where the next token begins.
    at: usize,
    /// Up to where its end was searched in vain.
    searched: usize,
    /// The quote in which the search stopped.
    quote: Option<u8>,
    /// Open elements, the stream included.
    depth: usize,
    /// Their names, those outside of this unit aside.
    open: [Span; MAX_DEPTH],
    /// Name of the stream element.
    root: Box<[u8]>,
    /// Whether anything was read: no declaration can follow.
    begun: bool,
}

impl Lexer {
    /// Elements that are open.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Ends the unit; returns its length.
    pub(super) fn end_unit(&mut self) -> usize {
        (self.searched, self.quote) = (0, None);
        std::mem::take(&mut self.at)
    }

    /// The next token of `unit`, or none until more bytes are there. `unit` is to hold everything
    /// since the start of the unit.
    pub(super) fn next(&mut self, unit: &[u8]) -> Result<Option<Token>, Fault> {
        let token = self.find(unit)?;
        let length = if token.is_some() { self.at } else { unit.len() };
        if length > MAX_STANZA || self.depth > MAX_DEPTH {
            return Err(Fault::Limit);
        }
        Ok(token)
    }

    fn find(&mut self, unit: &[u8]) -> Result<Option<Token>, Fault> {
        if !self.begun && unit.get(self.at..).unwrap_or_default().starts_with(b"<?") {
            self.declaration(unit)?;
        }
        let mut rest = unit.get(self.at..).unwrap_or_default().iter();
        match (rest.next(), rest.next()) {
            (None, _) => Ok(None),
            (Some(b'<'), None) => Ok(None),
            (Some(b'<'), Some(b'/')) => self.close(unit),
            (Some(b'<'), Some(b'!')) => self.cdata(unit),
            // The declaration at the start may not be complete yet.
            (Some(b'<'), Some(b'?')) if self.begun => Err(Fault::Restricted),
            (Some(b'<'), Some(b'?')) => Ok(None),
            (Some(b'<'), Some(_)) => self.open(unit),
            (Some(_), _) => Ok(self.text(unit)),
        }
    }

    /// Takes the token that ends before `end`.
    fn take(&mut self, end: usize) {
        self.at = end;
        (self.searched, self.quote) = (end, None);
        self.begun = true;
    }

    /// Where the part of the token that was not searched begins, `known` bytes of it being known.
    fn from(&self, known: usize) -> usize {
        self.searched.max(self.at + known)
    }

    fn declaration(&mut self, unit: &[u8]) -> Result<(), Fault> {
        let token = unit.get(self.at..).unwrap_or_default();
        let head = DECLARATION.len().min(token.len());
        if token[..head] != DECLARATION[..head] {
            return Err(Fault::Restricted);
        }
        if let Some(end) = memmem::find(token, DECLARATION_END) {
            self.take(self.at + end + DECLARATION_END.len());
        }
        Ok(())
    }

    fn text(&mut self, unit: &[u8]) -> Option<Token> {
        let from = self.from(0);
        let end = match memchr(b'<', unit.get(from..).unwrap_or_default()) {
            Some(at) => from + at,
            // Between stanzas nothing is waited for: keepalives must not pile up.
            None if self.depth <= 1 => unit.len(),
            None => {
                self.searched = unit.len();
                return None;
            }
        };
        let (text, begun) = (Span::new(self.at, end), self.begun || self.depth > 0);
        self.take(end);
        // White space of the stream before may stand in front of a declaration.
        self.begun = begun;
        Some(Token::Text(text))
    }

    fn cdata(&mut self, unit: &[u8]) -> Result<Option<Token>, Fault> {
        let token = unit.get(self.at..).unwrap_or_default();
        let head = CDATA.len().min(token.len());
        if self.depth <= 1 || token[..head] != CDATA[..head] {
            return Err(Fault::Restricted);
        }
        // The end may have come in pieces.
        let from = self
            .from(CDATA.len())
            .saturating_sub(CDATA_END.len() - 1)
            .max(self.at + CDATA.len());
        let Some(found) = memmem::find(unit.get(from..).unwrap_or_default(), CDATA_END) else {
            self.searched = unit.len();
            return Ok(None);
        };
        let text = Span::new(self.at + CDATA.len(), from + found);
        self.take(from + found + CDATA_END.len());
        Ok(Some(Token::Cdata(text)))
    }

    fn open(&mut self, unit: &[u8]) -> Result<Option<Token>, Fault> {
        let Some(end) = self.tag_end(unit) else {
            return Ok(None);
        };
        let start = self.at + 1;
        let inner = unit.get(start..end).unwrap_or_default();
        let empty = inner.ends_with(b"/");
        let inner = inner.strip_suffix(b"/").unwrap_or(inner);
        let name = name(inner).ok_or(Fault::Malformed)?;
        if memchr(b'<', inner).is_some() {
            return Err(Fault::Malformed);
        }
        if !empty {
            if self.depth == 0 {
                self.root = name.into();
            }
            let slot = self.open.get_mut(self.depth).ok_or(Fault::Limit)?;
            *slot = Span::new(start, start + name.len());
            self.depth += 1;
        }
        let token = Token::Open {
            whole: Span::new(self.at, end + 1),
            tag: Span::new(start, start + inner.len()),
            empty,
        };
        self.take(end + 1);
        Ok(Some(token))
    }

    /// The `>` of a start tag, which may stand in attribute values as well.
    fn tag_end(&mut self, unit: &[u8]) -> Option<usize> {
        let mut from = self.from(1);
        while let Some(rest) = unit.get(from..) {
            let found = match self.quote {
                Some(quote) => memchr(quote, rest),
                None => memchr3(b'>', b'"', b'\'', rest),
            };
            let Some(found) = found else { break };
            let byte = rest[found];
            from += found + 1;
            match self.quote {
                Some(_) => self.quote = None,
                None if byte == b'>' => return Some(from - 1),
                None => self.quote = Some(byte),
            }
        }
        self.searched = unit.len();
        None
    }

    fn close(&mut self, unit: &[u8]) -> Result<Option<Token>, Fault> {
        let from = self.from(2);
        let Some(found) = memchr(b'>', unit.get(from..).unwrap_or_default()) else {
            self.searched = unit.len();
            return Ok(None);
        };
        let end = from + found;
        let name = unit
            .get(self.at + 2..end)
            .unwrap_or_default()
            .trim_ascii_end();
        self.depth = self.depth.checked_sub(1).ok_or(Fault::Malformed)?;
        let expected = match self.open.get(self.depth) {
            Some(span) if self.depth > 0 => span.of(unit),
            _ => &self.root,
        };
        if name != expected {
            return Err(Fault::Malformed);
        }
        let token = Span::new(self.at, end + 1);
        self.take(end + 1);
        Ok(Some(Token::Close(token)))
    }
}

#[cfg(test)]
mod tests;
