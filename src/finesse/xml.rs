//! A small pull reader for hostile or sloppy XML.
//!
//! ```text
//! let (mut xml, root) = Xml::open(text)?;
//! xml.children(|xml, tag| match tag.name() { "id" => { id = xml.text()?; Ok(()) }, _ => xml.skip() })?;
//! ```
//! Element names come without prefix and in lower case. After an element has started, exactly one
//! of [`Xml::children`], [`Xml::text`] and [`Xml::skip`] consumes it.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Largest document that is read, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;
/// Largest list document (all users, a phone book of 6000 contacts), in bytes.
pub const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;
/// Deepest nesting of elements that is read.
pub const MAX_DEPTH: usize = 32;
/// Longer names than this belong to no element we know.
const MAX_NAME: usize = 40;

/// Why a document was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// More than [`MAX_BYTES`], or [`MAX_LIST_BYTES`] of a list.
    #[error("document too large")]
    TooLarge,
    /// More than [`MAX_DEPTH`] nested elements.
    #[error("elements nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// A DOCTYPE declaration, which no answer of the platform has.
    #[error("DOCTYPE is not accepted")]
    Doctype,
    /// An entity other than the five predefined ones, or an illegal character reference.
    #[error("unknown entity or character reference")]
    Entity,
    /// Bytes that are no UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// Not well-formed, truncated or empty.
    #[error("not well-formed XML")]
    Malformed,
    /// Well-formed, but another object than the expected one.
    #[error("unexpected root element, {0} expected")]
    Root(&'static str),
}

/// Local name of an element in lower case; empty for names longer than any known one.
#[derive(Debug, Clone, Copy)]
pub struct Tag {
    bytes: [u8; MAX_NAME],
    len: usize,
}

impl Tag {
    fn new(local: &str) -> Self {
        let mut bytes = [0; MAX_NAME];
        let len = if local.len() <= MAX_NAME {
            local.len()
        } else {
            0
        };
        bytes[..len].copy_from_slice(&local.as_bytes()[..len]);
        bytes[..len].make_ascii_lowercase();
        Self { bytes, len }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

/// Reader positioned inside one document.
pub struct Xml<'a> {
    reader: Reader<&'a [u8]>,
    depth: usize,
}

impl<'a> Xml<'a> {
    /// Starts reading; returns the reader inside the root element, and the root's name.
    ///
    /// # Errors
    /// See [`XmlError`].
    pub fn open(bytes: &'a [u8]) -> Result<(Self, Tag), XmlError> {
        Self::open_within(bytes, MAX_BYTES)
    }

    fn open_within(bytes: &'a [u8], most: usize) -> Result<(Self, Tag), XmlError> {
        if bytes.len() > most {
            return Err(XmlError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| XmlError::Encoding)?;
        let text = text.trim_start_matches('\u{feff}').trim_ascii_start();
        let mut reader = Reader::from_str(text);
        let config = reader.config_mut();
        config.expand_empty_elements = true;
        config.check_end_names = true;
        let mut xml = Self { reader, depth: 0 };
        loop {
            match xml.next()? {
                Event::Start(start) => {
                    let tag = Tag::new(local_name(&start));
                    return Ok((xml, tag));
                }
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
                Event::Text(blank) if blank.trim_ascii().is_empty() => {}
                _ => return Err(XmlError::Malformed),
            }
        }
    }

    /// As [`Xml::open`] for a document that must have the root `root` (lower case).
    ///
    /// # Errors
    /// See [`XmlError`].
    pub fn open_as(bytes: &'a [u8], root: &'static str) -> Result<Self, XmlError> {
        let (xml, tag) = Self::open(bytes)?;
        if tag.name() == root {
            Ok(xml)
        } else {
            Err(XmlError::Root(root))
        }
    }

    /// As [`Xml::open_as`] for a list, which may have [`MAX_LIST_BYTES`].
    ///
    /// # Errors
    /// See [`XmlError`].
    pub fn open_list(bytes: &'a [u8], root: &'static str) -> Result<Self, XmlError> {
        let (xml, tag) = Self::open_within(bytes, MAX_LIST_BYTES)?;
        if tag.name() == root {
            Ok(xml)
        } else {
            Err(XmlError::Root(root))
        }
    }

    /// Calls `each` for every child of the current element and leaves the element.
    /// `each` must consume the child.
    ///
    /// # Errors
    /// See [`XmlError`], and those of `each`.
    pub fn children(
        &mut self,
        mut each: impl FnMut(&mut Self, Tag) -> Result<(), XmlError>,
    ) -> Result<(), XmlError> {
        loop {
            match self.next()? {
                Event::Start(start) => {
                    let tag = Tag::new(local_name(&start));
                    each(self, tag)?;
                }
                Event::End(_) => return Ok(()),
                Event::Eof => return Err(XmlError::Malformed),
                _ => {}
            }
        }
    }

    /// The trimmed text of the current element, and leaves it. Children are passed over.
    ///
    /// # Errors
    /// See [`XmlError`].
    pub fn text(&mut self) -> Result<String, XmlError> {
        let mut out = String::new();
        loop {
            match self.next()? {
                Event::Text(text) => out.push_str(&text),
                Event::CData(text) => out.push_str(&text),
                Event::GeneralRef(reference) => out.push(resolve(&reference)?),
                Event::Start(_) => self.skip()?,
                Event::End(_) => break,
                Event::Eof => return Err(XmlError::Malformed),
                _ => {}
            }
        }
        let trimmed = out.trim();
        if trimmed.len() == out.len() {
            Ok(out)
        } else {
            Ok(trimmed.to_owned())
        }
    }

    /// Reads the text of the current element into `target`.
    ///
    /// # Errors
    /// See [`XmlError`].
    pub fn text_into(&mut self, target: &mut String) -> Result<(), XmlError> {
        *target = self.text()?;
        Ok(())
    }

    /// Leaves the current element unread.
    ///
    /// # Errors
    /// See [`XmlError`].
    pub fn skip(&mut self) -> Result<(), XmlError> {
        let outside = self.depth.saturating_sub(1);
        while self.depth > outside {
            if matches!(self.next()?, Event::Eof) {
                return Err(XmlError::Malformed);
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Event<'a>, XmlError> {
        let event = self.reader.read_event().map_err(|_| XmlError::Malformed)?;
        match &event {
            Event::Start(_) => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(XmlError::TooDeep);
                }
            }
            Event::End(_) => self.depth = self.depth.saturating_sub(1),
            Event::DocType(_) => return Err(XmlError::Doctype),
            Event::GeneralRef(reference) => {
                resolve(reference)?;
            }
            _ => {}
        }
        Ok(event)
    }
}

fn local_name<'e>(start: &'e quick_xml::events::BytesStart<'_>) -> &'e str {
    let name: &str = start;
    let name = name
        .split(|c: char| c.is_ascii_whitespace() || c == '/')
        .next()
        .unwrap_or("");
    name.rsplit(':').next().unwrap_or("")
}

/// The character that `&name;` stands for: one of the five of XML, or a character reference.
pub(crate) fn resolve(name: &str) -> Result<char, XmlError> {
    match name {
        "amp" => return Ok('&'),
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "quot" => return Ok('"'),
        "apos" => return Ok('\''),
        _ => {}
    }
    let digits = name.strip_prefix('#').ok_or(XmlError::Entity)?;
    let number = match digits.strip_prefix('x') {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    let character = number
        .ok()
        // What Rust reads as a number and XML does not.
        .filter(|_| !digits.contains('+'))
        .and_then(char::from_u32)
        .ok_or(XmlError::Entity)?;
    // XML 1.0 section 2.2: of the C0 controls only these are characters.
    let legal = character >= ' ' || matches!(character, '\t' | '\n' | '\r');
    if legal && !matches!(character, '\u{fffe}' | '\u{ffff}') {
        Ok(character)
    } else {
        Err(XmlError::Entity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(document: &str) -> Result<String, XmlError> {
        let (mut xml, _) = Xml::open(document.as_bytes())?;
        xml.text()
    }

    #[test]
    fn names_lose_prefix_and_case() {
        let (_, tag) =
            Xml::open(b"<?xml version='1.0'?>\n<!-- x --><f:SystemInfo a='1'/>").unwrap();
        assert_eq!(tag.name(), "systeminfo");
    }

    #[test]
    fn text_joins_references_and_cdata() {
        assert_eq!(
            text_of("<a> x &lt;&#65;&#x42;<![CDATA[<&>]]>\n</a>").unwrap(),
            "x <AB<&>"
        );
    }

    #[test]
    fn doctype_and_foreign_entities_are_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b 'bbbb'>]><a>&b;</a>";
        assert_eq!(text_of(bomb), Err(XmlError::Doctype));
        assert_eq!(text_of("<a>&b;</a>"), Err(XmlError::Entity));
        assert_eq!(text_of("<a><c>&b;</c></a>"), Err(XmlError::Entity));
        for number in ["#0", "#xD800", "#+65", "#x+41", "#", "#x"] {
            let text = format!("<a>&{number};</a>");
            assert_eq!(text_of(&text), Err(XmlError::Entity), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
        assert_eq!(text_of(&deep(MAX_DEPTH)).unwrap(), "");
        assert_eq!(text_of(&deep(MAX_DEPTH + 1)), Err(XmlError::TooDeep));
    }

    #[test]
    fn size_is_bounded() {
        let large = format!("<a>{}</a>", "x".repeat(MAX_BYTES));
        assert_eq!(text_of(&large), Err(XmlError::TooLarge));
    }

    #[test]
    fn truncated_and_mismatched_documents_are_malformed() {
        for document in ["", "  ", "<a>", "<a><b></a>", "<a", "text", "{\"a\":1}"] {
            assert_eq!(text_of(document), Err(XmlError::Malformed), "{document}");
        }
    }

    #[test]
    fn other_encodings_are_refused() {
        assert!(matches!(Xml::open(b"<a>\xe9</a>"), Err(XmlError::Encoding)));
    }

    proptest! {
        #[test]
        fn escaped_text_survives(text in "[ -~äß€]{0,64}") {
            let escaped = quick_xml::escape::escape(text.as_str());
            prop_assert_eq!(text_of(&format!("<a>{escaped}</a>")).unwrap(), text.trim());
        }

        #[test]
        fn arbitrary_markup_never_panics(text in "[<>/&;!\\[\\]a-c\"'=?# -]{0,128}") {
            let _ = text_of(&text);
        }
    }
}
