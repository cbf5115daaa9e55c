//! The XML of a stream in tokens, out of bytes that come in pieces.
//!
//! RFC 6120 section 11.1 forbids comments, processing instructions, DTDs and all entities but the
//! five that XML predefines. What is left is small: tags, text, CDATA, and one declaration at the
//! start. The end of a token is searched for (`memchr`) from where the last search stopped, so that
//! no byte is looked at twice, however the network cuts the stream.
//!
//! Structure is judged here and ends the stream: nesting, names, limits. What text and attribute
//! values mean is judged by [`unescape`] where somebody reads them.

use std::borrow::Cow;

use memchr::{memchr, memchr3, memmem};

use crate::downstream::finesse::xml::{XmlError, resolve};

/// Largest stanza in bytes; payloads of 256 KiB grow when they are escaped.
pub(super) const MAX_STANZA: usize = 512 * 1024;
/// Deepest nesting, the stream element included.
pub(super) const MAX_DEPTH: usize = 32;
/// Longest reference: `&#x10FFFF;` and a few leading zeros.
const MAX_REFERENCE: usize = 16;

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
        let text = Span::new(self.at, end);
        self.take(end);
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

/// The name at the start of a tag.
pub(super) fn name(tag: &[u8]) -> Option<&[u8]> {
    let end = tag.iter().position(u8::is_ascii_whitespace);
    let name = tag.get(..end.unwrap_or(tag.len()))?;
    let (first, rest) = name.split_first()?;
    let starts = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':' | 0x80..);
    let goes_on = |byte: &u8| starts(byte) || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    (starts(first) && rest.iter().all(goes_on)).then_some(name)
}

/// Prefix and local part of a name; the prefix is empty where there is none.
pub(super) fn split_name(name: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b':', name) {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (b"", name),
    }
}

/// Attributes of a tag (without brackets): names and values as they were sent.
pub(super) fn attributes(tag: &[u8]) -> Attributes<'_> {
    let name = name(tag).map_or(0, <[u8]>::len);
    Attributes(tag.get(name..).unwrap_or_default())
}

/// See [`attributes`].
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.0).trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        let mut one = || {
            let equals = memchr(b'=', rest)?;
            let label = rest[..equals].trim_ascii_end();
            if name(label)?.len() != label.len() {
                return None;
            }
            let (quote, value) = rest[equals + 1..].trim_ascii_start().split_first()?;
            if !matches!(quote, b'"' | b'\'') {
                return None;
            }
            let end = memchr(*quote, value)?;
            self.0 = &value[end + 1..];
            Some((label, &value[..end]))
        };
        Some(one().ok_or(Fault::Malformed))
    }
}

/// An attribute without prefix as it was sent; none as well where the tag is malformed before it.
pub(super) fn attribute<'a>(tag: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    attributes(tag)
        .map_while(Result::ok)
        .find(|(label, _)| *label == wanted.as_bytes())
        .map(|(_, value)| value)
}

/// The text behind `raw`: its references resolved. Only the five entities of XML and characters are
/// known.
pub(super) fn unescape(raw: &[u8]) -> Result<Cow<'_, [u8]>, XmlError> {
    let Some(first) = memchr(b'&', raw) else {
        return Ok(Cow::Borrowed(raw));
    };
    let mut out = Vec::with_capacity(raw.len());
    let (mut text, mut rest) = raw.split_at(first);
    loop {
        out.extend_from_slice(text);
        if rest.is_empty() {
            return Ok(Cow::Owned(out));
        }
        rest = reference(rest, &mut out)?;
        (text, rest) = rest.split_at(memchr(b'&', rest).unwrap_or(rest.len()));
    }
}

/// Appends what the reference at the start of `raw` stands for; returns what follows it.
fn reference<'a>(raw: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], XmlError> {
    // Nearly all that there are.
    if let Some(rest) = raw.strip_prefix(b"&lt;") {
        out.push(b'<');
        return Ok(rest);
    }
    if let Some(rest) = raw.strip_prefix(b"&gt;") {
        out.push(b'>');
        return Ok(rest);
    }
    let head = raw.get(..MAX_REFERENCE.min(raw.len())).unwrap_or_default();
    let end = memchr(b';', head).ok_or(XmlError::Entity)?;
    let name = std::str::from_utf8(&raw[1..end]).map_err(|_| XmlError::Entity)?;
    let mut utf8 = [0; 4];
    let character = resolve(name)?.encode_utf8(&mut utf8);
    out.extend_from_slice(character.as_bytes());
    Ok(&raw[end + 1..])
}

/// The text behind `raw` as a string.
pub(super) fn unescaped_text(raw: &[u8]) -> Result<String, XmlError> {
    String::from_utf8(unescape(raw)?.into_owned()).map_err(|_| XmlError::Encoding)
}

/// Appends `text` as it may stand in text and attribute values. Characters that XML does not have
/// (section 2.2) would end the stream; they become U+FFFD.
pub(super) fn escape_into(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push(character),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(character),
        }
    }
}

/// [`escape_into`] a string of its own.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The tokens of a text that comes in pieces of `size` bytes, as they would be printed.
    fn tokens(text: &str, size: usize) -> Result<Vec<String>, Fault> {
        let (mut lexer, mut seen) = (Lexer::default(), Vec::new());
        for end in (size..text.len()).step_by(size).chain([text.len()]) {
            let unit = &text.as_bytes()[..end];
            while let Some(token) = lexer.next(unit)? {
                let text = |span: Span| String::from_utf8_lossy(span.of(unit)).into_owned();
                let depth = lexer.depth();
                seen.push(match token {
                    Token::Open {
                        tag, empty: false, ..
                    } => format!("{depth} <{}>", text(tag)),
                    Token::Open { tag, .. } => format!("{depth} <{}/>", text(tag)),
                    Token::Close(whole) => format!("{depth} {}", text(whole)),
                    Token::Text(span) => format!("{depth} {:?}", text(span)),
                    Token::Cdata(span) => format!("{depth} cdata {:?}", text(span)),
                });
            }
        }
        Ok(seen)
    }

    #[test]
    fn quotes_cdata_and_empty_elements_are_told_apart() {
        let text = "<?xml version='1.0'?><s to='a>b' from=\"c'/>\"><m x='/'><b><![CDATA[</b>]] ]>]]]></b>\
                    <c /> &lt; </m ></s>";
        let expected = [
            "1 <s to='a>b' from=\"c'/>\">",
            "2 <m x='/'>",
            "3 <b>",
            "3 cdata \"</b>]] ]>]\"",
            "2 </b>",
            "2 <c />",
            "2 \" &lt; \"",
            "1 </m >",
            "0 </s>",
        ];
        for size in 1..text.len() {
            assert_eq!(tokens(text, size).unwrap(), expected, "pieces of {size}");
        }
    }

    #[test]
    fn what_a_stream_must_not_hold_is_refused_as_soon_as_it_shows() {
        for (text, fault) in [
            ("<s><m><!--", Fault::Restricted),
            ("<s><m><!D", Fault::Restricted),
            ("<!DOCTYPE a [<!ENTITY", Fault::Restricted),
            ("<s><![CDATA[", Fault::Restricted),
            ("<s><?", Fault::Restricted),
            ("<?php", Fault::Restricted),
            (" <?xml version='1.0'?>", Fault::Restricted),
            (
                "<?xml version='1.0'?><?xml version='1.0'?>",
                Fault::Restricted,
            ),
            ("</s>", Fault::Malformed),
            ("<s><a></b>", Fault::Malformed),
            ("<s></t>", Fault::Malformed),
            ("<s><a b='<'>", Fault::Malformed),
            ("<s><a <b>", Fault::Malformed),
            ("<s><1>", Fault::Malformed),
            ("<s>< a>", Fault::Malformed),
            ("<s><>", Fault::Malformed),
            ("<s><a/b>", Fault::Malformed),
        ] {
            for size in 1..=text.len() {
                assert_eq!(tokens(text, size), Err(fault), "{text} in pieces of {size}");
            }
        }
    }

    #[test]
    fn deep_nesting_is_stopped() {
        let deep = |n: usize| tokens(&"<a>".repeat(n), 7);
        assert_eq!(deep(MAX_DEPTH).unwrap().len(), MAX_DEPTH);
        assert_eq!(deep(MAX_DEPTH + 1), Err(Fault::Limit));
    }

    #[test]
    fn nothing_without_end_is_waited_for() {
        let much = "x".repeat(MAX_STANZA);
        for text in [
            format!("<s a='{much}"),
            format!("<s{much}"),
            format!("<s><m>{much}"),
            format!("<s><m>{much}<a>"),
            format!("<s><m><![CDATA[{much}"),
            format!("<s><m></m{much}"),
            format!("<?xml {much}"),
        ] {
            assert_eq!(tokens(&text, 16_000), Err(Fault::Limit), "{}", &text[..16]);
        }
    }

    #[test]
    fn attributes_are_found_and_bad_ones_end_the_search() {
        let tag = b"a x='1'  y = \"2'\" z:w='3' v='&lt;'";
        let get = |name| attribute(tag, name).map(|value| unescaped_text(value).unwrap());
        assert_eq!(get("x").as_deref(), Some("1"));
        assert_eq!(get("y").as_deref(), Some("2'"));
        assert_eq!(get("v").as_deref(), Some("<"));
        assert_eq!((get("w"), get("a")), (None, None));
        for tag in [
            "a x",
            "a x=",
            "a x=1",
            "a x='1",
            "a ='1'",
            "a x y='1'",
            "a 'b'='1'",
        ] {
            let all: Vec<_> = attributes(tag.as_bytes()).collect();
            assert_eq!(all, [Err(Fault::Malformed)], "{tag}");
            assert_eq!(attribute(tag.as_bytes(), "y"), None, "{tag}");
        }
    }

    #[test]
    fn only_the_five_entities_and_characters_are_known() {
        let text = |raw: &str| unescaped_text(raw.as_bytes());
        assert_eq!(
            text("a&lt;&gt;&amp;&apos;&quot;&#65;&#x20AC;b").unwrap(),
            "a<>&'\"A\u{20ac}b"
        );
        assert_eq!(text("&amp;lt;").unwrap(), "&lt;");
        for raw in [
            "&",
            "&;",
            "&lt",
            "&nbsp;",
            "&#0;",
            "&#xD800;",
            "&#x110000;",
            "&verylongentityname;",
            "&#+65;",
        ] {
            assert_eq!(text(raw), Err(XmlError::Entity), "{raw}");
        }
        assert_eq!(unescaped_text(b"\xe9&lt;"), Err(XmlError::Encoding));
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(text in "(<[a-c]{1,2}( x=['\"][>/ ]['\"])?/?>|</[a-c]{1,2}>|<!\\[CDATA\\[|\\]\\]>|[<>/a'\"!\\[\\]? ]){0,30}") {
            // The text may stand in a stream or before one.
            for text in [text.clone(), format!("<s><m>{text}")] {
                let whole = tokens(&text, text.len().max(1));
                for size in 1..=text.len() {
                    // Text between stanzas is handed on as it comes; a fault may be found earlier.
                    let parts = tokens(&text, size);
                    prop_assert_eq!(parts.as_ref().err(), whole.as_ref().err());
                    if !text.starts_with(' ') && text.starts_with("<s><m>") && !text.contains("</") {
                        prop_assert_eq!(&parts, &whole);
                    }
                }
            }
        }

        #[test]
        fn escaped_text_survives(text in "[ -~äß€\u{1}\t]{0,64}") {
            let expected = text.replace('\u{1}', "\u{fffd}");
            prop_assert_eq!(unescaped_text(escaped(&text).as_bytes()).unwrap(), expected);
        }
    }
}
