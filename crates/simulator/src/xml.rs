//! The little XML the simulator needs: escaping, a leaf walker for request bodies and a small tree
//! for stanzas.

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesRef, BytesStart, Event};

/// Deepest nesting accepted from a client, in elements.
const MAX_DEPTH: usize = 32;

/// The text was not well-formed XML (or nested deeper than 32 elements).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not well-formed XML")]
pub struct BadXml;

/// Appends `text` to `out` with the five reserved characters escaped.
///
/// Characters that XML 1.0 forbids are left out, so that the result is always well-formed.
pub fn escape(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| {
        matches!(c, '<' | '>' | '&' | '"' | '\'') || (c < ' ' && !matches!(c, '\t' | '\n' | '\r'))
    }) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'<' => out.push_str("&lt;"),
            b'>' => out.push_str("&gt;"),
            b'&' => out.push_str("&amp;"),
            b'"' => out.push_str("&quot;"),
            b'\'' => out.push_str("&apos;"),
            _ => {}
        }
        // Every character searched for is one byte long.
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

/// Appends `<name>text</name>` with the text escaped.
pub fn leaf(out: &mut String, name: &str, text: &str) {
    out.push('<');
    out.push_str(name);
    out.push('>');
    escape(out, text);
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// One element of a stanza: names without prefix, attributes as sent, text of all direct children.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Elem {
    /// Local name.
    pub name: String,
    /// Attributes (local names, `xmlns` included), unescaped.
    pub attrs: Vec<(String, String)>,
    /// Child elements in order.
    pub children: Vec<Elem>,
    /// Text directly inside, unescaped.
    pub text: String,
}

impl Elem {
    /// The attribute's value.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attrs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first child of that local name.
    pub fn child(&self, name: &str) -> Option<&Elem> {
        self.children.iter().find(|child| child.name == name)
    }
}

fn reference(out: &mut String, entity: &BytesRef<'_>) -> Result<(), BadXml> {
    if let Some(c) = entity.resolve_char_ref().map_err(|_| BadXml)? {
        out.push(c);
        return Ok(());
    }
    let name: &str = entity;
    out.push_str(quick_xml::escape::resolve_predefined_entity(name).ok_or(BadXml)?);
    Ok(())
}

fn open(start: &BytesStart<'_>) -> Result<Elem, BadXml> {
    let mut elem = Elem {
        name: start.local_name().into_inner().to_owned(),
        ..Elem::default()
    };
    for attr in start.attributes() {
        let attr = attr.map_err(|_| BadXml)?;
        let value = attr
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|_| BadXml)?;
        let name = attr.key.local_name().into_inner().to_owned();
        elem.attrs.push((name, value.into_owned()));
    }
    Ok(elem)
}

/// Parses one element. Prefixes that are declared outside of it are fine.
pub fn parse(text: &str) -> Result<Elem, BadXml> {
    let mut reader = Reader::from_str(text);
    let mut stack: Vec<Elem> = Vec::new();
    let mut done: Option<Elem> = None;
    loop {
        let closed = match reader.read_event().map_err(|_| BadXml)? {
            Event::Start(start) if stack.len() < MAX_DEPTH => {
                stack.push(open(&start)?);
                None
            }
            Event::Start(_) => return Err(BadXml),
            Event::Empty(start) => Some(open(&start)?),
            Event::End(_) => Some(stack.pop().ok_or(BadXml)?),
            Event::Text(text) => {
                if let Some(top) = stack.last_mut() {
                    top.text.push_str(&text.xml10_content());
                }
                None
            }
            Event::CData(text) => {
                if let Some(top) = stack.last_mut() {
                    top.text.push_str(&text.xml10_content());
                }
                None
            }
            Event::GeneralRef(entity) => {
                let top = stack.last_mut().ok_or(BadXml)?;
                reference(&mut top.text, &entity)?;
                None
            }
            Event::DocType(_) => return Err(BadXml),
            Event::Eof => break,
            _ => None,
        };
        if let Some(elem) = closed {
            match stack.last_mut() {
                Some(parent) => parent.children.push(elem),
                None if done.is_none() => done = Some(elem),
                None => return Err(BadXml),
            }
        }
    }
    if stack.is_empty() {
        done.ok_or(BadXml)
    } else {
        Err(BadXml)
    }
}

/// Walks `text` and calls `visit(parent, name, text)` for every element without children, in
/// document order. Names come without prefix; the root's parent is empty.
pub fn leaves(text: &str, mut visit: impl FnMut(&str, &str, &str)) -> Result<(), BadXml> {
    let mut reader = Reader::from_str(text);
    let mut path: Vec<String> = Vec::with_capacity(4);
    let mut value = String::new();
    let mut is_leaf = false;
    let mut roots = 0_u32;
    loop {
        match reader.read_event().map_err(|_| BadXml)? {
            Event::Start(start) => {
                if path.len() >= MAX_DEPTH {
                    return Err(BadXml);
                }
                roots += u32::from(path.is_empty());
                path.push(start.local_name().into_inner().to_owned());
                value.clear();
                is_leaf = true;
            }
            Event::Empty(start) => {
                roots += u32::from(path.is_empty());
                let parent = path.last().map_or("", String::as_str);
                visit(parent, start.local_name().into_inner(), "");
                is_leaf = false;
            }
            Event::End(_) => {
                let name = path.pop().ok_or(BadXml)?;
                if is_leaf {
                    visit(path.last().map_or("", String::as_str), &name, value.trim());
                }
                is_leaf = false;
            }
            Event::Text(text) if is_leaf => value.push_str(&text.xml10_content()),
            Event::CData(text) if is_leaf => value.push_str(&text.xml10_content()),
            Event::GeneralRef(entity) => reference(&mut value, &entity)?,
            Event::DocType(_) => return Err(BadXml),
            Event::Eof => break,
            _ => {}
        }
    }
    if path.is_empty() && roots == 1 {
        Ok(())
    } else {
        Err(BadXml)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_visited_in_order_with_their_parent() {
        let body = "<?xml version='1.0'?><User><state>READY</state><mobileAgent><mode>A&amp;B</mode></mobileAgent><x/></User>";
        let mut seen = Vec::new();
        leaves(body, |p, n, t| seen.push(format!("{p}/{n}={t}"))).unwrap();
        assert_eq!(
            seen,
            ["User/state=READY", "mobileAgent/mode=A&B", "User/x="]
        );
    }

    #[test]
    fn broken_or_hostile_bodies_are_refused() {
        for body in [
            "",
            "hello",
            "<User><state>READY</User>",
            "<User>",
            "<a/><b/>",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
            "<a>&unknown;</a>",
        ] {
            assert_eq!(leaves(body, |_, _, _| {}), Err(BadXml), "{body}");
        }
        assert_eq!(leaves(&"<a>".repeat(100), |_, _, _| {}), Err(BadXml));
    }

    #[test]
    fn a_stanza_becomes_a_tree() {
        let elem = parse("<iq type='set' id='a&quot;b'><p:bind xmlns:p='u'><resource>gc-1</resource></p:bind></iq>").unwrap();
        assert_eq!(elem.attr("id"), Some("a\"b"));
        let bind = elem.child("bind").unwrap();
        assert_eq!(bind.child("resource").unwrap().text, "gc-1");
        assert_eq!(parse("<a><b></a>"), Err(BadXml));
    }

    #[test]
    fn escaping_survives_a_round_trip() {
        let mut out = String::new();
        leaf(&mut out, "a", "1 < 2 & \"x\" 'ö' \u{1}>");
        assert_eq!(parse(&out).unwrap().text, "1 < 2 & \"x\" 'ö' >");
    }
}
