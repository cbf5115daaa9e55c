//! What stands in tags and texts: names, attributes, references.

use std::borrow::Cow;

use memchr::memchr;

use crate::finesse::xml::{XmlError, resolve};

use super::xml::Fault;

/// Longest reference: `&#x10FFFF;` and a few leading zeros.
const MAX_REFERENCE: usize = 16;

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
        fn escaped_text_survives(text in "[ -~äß€\u{1}\t]{0,64}") {
            let expected = text.replace('\u{1}', "\u{fffd}");
            prop_assert_eq!(unescaped_text(escaped(&text).as_bytes()).unwrap(), expected);
        }
    }
}
