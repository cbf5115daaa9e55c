//! Elements other than messages: their names and texts in one flat list, and what they say.
//!
//! They are few and small. Of one that is not (a roster of thousands) the first elements are kept.

use super::names::{Ns, Scope};
use super::stanza::{Features, Incoming, Iq, IqKind, Payload, Presence, SaslStep};
use super::text::{attribute, name, unescaped_text};
use super::xml::{Fault, Span, Token};

/// Elements that are kept of one stanza.
const MAX_NODES: usize = 128;
/// Longest name of a condition; RFC 6120 has none of more than 25.
const MAX_CONDITION: usize = 40;

/// Depth of the content of a stanza.
const CONTENT: usize = 2;

/// An element.
#[derive(Debug)]
struct Node {
    /// 0 for the stanza itself.
    level: usize,
    ns: Ns,
    /// Name without prefix.
    local: Span,
    /// The first text right inside of it, and whether it is CDATA.
    text: Option<(Span, bool)>,
}

/// The elements of a stanza, in its order.
#[derive(Debug)]
pub(super) struct Outline {
    /// Tag of the stanza.
    root: Span,
    nodes: Vec<Node>,
}

impl Outline {
    /// An element that begins with `tag`.
    pub(super) fn new(tag: Span, ns: Ns, unit: &[u8]) -> Self {
        let mut outline = Self {
            root: tag,
            nodes: Vec::new(),
        };
        outline.push(0, ns, tag, unit);
        outline
    }

    fn push(&mut self, level: usize, ns: Ns, tag: Span, unit: &[u8]) {
        if self.nodes.len() < MAX_NODES {
            let local = tag.local_name(unit);
            self.nodes.push(Node {
                level,
                ns,
                local,
                text: None,
            });
        }
    }

    /// Takes a token of its content; `depth` is that after the token.
    pub(super) fn take(
        &mut self,
        token: Token,
        depth: usize,
        scope: &mut Scope,
        unit: &[u8],
    ) -> Result<(), Fault> {
        match token {
            Token::Open { tag, empty, .. } => {
                let inside = depth + usize::from(empty);
                let bytes = tag.of(unit);
                let (ns, _) = scope.enter(inside, name(bytes).unwrap_or_default(), bytes)?;
                self.push(inside - CONTENT, ns, tag, unit);
                scope.leave(depth);
            }
            Token::Close(_) => scope.leave(depth),
            Token::Text(text) => self.text(depth - CONTENT, (text, false)),
            Token::Cdata(text) => self.text(depth - CONTENT, (text, true)),
        }
        Ok(())
    }

    fn text(&mut self, level: usize, text: (Span, bool)) {
        // The list may have no room for the element that this is in.
        if self.nodes.len() < MAX_NODES
            && let Some(node) = self.nodes.iter_mut().rfind(|node| node.level == level)
        {
            node.text.get_or_insert(text);
        }
    }

    /// What it says.
    pub(super) fn read(&self, unit: &[u8]) -> Incoming {
        Elements {
            nodes: &self.nodes,
            tag: self.root.of(unit),
            unit,
        }
        .read()
        .unwrap_or(Incoming::Other)
    }
}

/// An outline with the bytes that it is about.
struct Elements<'a> {
    nodes: &'a [Node],
    tag: &'a [u8],
    unit: &'a [u8],
}

impl<'a> Elements<'a> {
    /// Nothing where it is not as its specification wants it.
    fn read(&self) -> Option<Incoming> {
        let root = self.nodes.first()?;
        Some(match (root.ns, root.local.of(self.unit)) {
            (Ns::Client, b"iq") => Incoming::Iq(self.iq()?),
            (Ns::Client, b"presence") => Incoming::Presence(self.presence()?),
            (Ns::Streams, b"features") => Incoming::Features(self.features()),
            (Ns::Streams, b"error") => Incoming::StreamError(self.condition(Ns::StreamErrors, 1)),
            (Ns::Tls, b"proceed") => Incoming::StartTls(true),
            (Ns::Tls, b"failure") => Incoming::StartTls(false),
            (Ns::Sasl, b"challenge") => Incoming::Sasl(SaslStep::Challenge(self.text(root)?)),
            (Ns::Sasl, b"success") => Incoming::Sasl(SaslStep::Success(self.text(root)?)),
            (Ns::Sasl, b"failure") => {
                Incoming::Sasl(SaslStep::Failure(self.condition(Ns::Sasl, 1)))
            }
            _ => return None,
        })
    }

    fn attribute(&self, name: &str) -> Option<String> {
        unescaped_text(attribute(self.tag, name)?).ok()
    }

    /// The trimmed text of an element; empty where it has none.
    fn text(&self, node: &Node) -> Option<String> {
        let text = match node.text {
            None => return Some(String::new()),
            Some((text, true)) => String::from_utf8(text.of(self.unit).to_vec()).ok()?,
            Some((text, false)) => unescaped_text(text.of(self.unit)).ok()?,
        };
        let trimmed = text.trim();
        Some(match trimmed.len() == text.len() {
            true => text,
            false => trimmed.to_owned(),
        })
    }

    fn find(&self, level: usize, ns: Ns, local: &str) -> Option<&'a Node> {
        self.nodes.iter().find(|node| {
            node.level == level && node.ns == ns && node.local.of(self.unit) == local.as_bytes()
        })
    }

    /// Name of the condition of an error; the text beside it is the peer's and may be anything.
    fn condition(&self, ns: Ns, level: usize) -> Option<String> {
        let mut names = self
            .nodes
            .iter()
            .filter(|node| node.level == level && node.ns == ns)
            .map(|node| node.local.of(self.unit));
        let name = names.find(|name| *name != b"text")?;
        let plain = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'-';
        let sound = name.len() <= MAX_CONDITION && name.iter().all(plain);
        sound.then(|| String::from_utf8_lossy(name).into_owned())
    }

    fn features(&self) -> Features {
        let mechanisms = self
            .nodes
            .iter()
            .filter(|node| node.level == 2 && node.ns == Ns::Sasl)
            .filter(|node| node.local.of(self.unit) == b"mechanism")
            .filter_map(|node| self.text(node))
            .collect();
        let optional = self.find(2, Ns::Session, "optional").is_some();
        Features {
            starttls: self.find(1, Ns::Tls, "starttls").is_some(),
            mechanisms,
            wants_session: self.find(1, Ns::Session, "session").is_some() && !optional,
        }
    }

    fn iq(&self) -> Option<Iq> {
        let kind = match attribute(self.tag, "type")? {
            b"get" => IqKind::Get,
            b"set" => IqKind::Set,
            b"result" => IqKind::Result,
            b"error" => IqKind::Error,
            _ => return None,
        };
        Some(Iq {
            kind,
            id: self.attribute("id")?,
            from: self.attribute("from"),
            payload: self.payload(kind),
        })
    }

    fn payload(&self, kind: IqKind) -> Payload {
        if kind == IqKind::Error {
            return Payload::Error(self.condition(Ns::StanzaErrors, 2));
        }
        let Some(first) = self.nodes.get(1) else {
            return Payload::None;
        };
        match (first.ns, first.local.of(self.unit)) {
            (Ns::Ping, b"ping") => Payload::Ping,
            (Ns::Roster, b"query") => Payload::Roster,
            (Ns::Bind, b"bind") => {
                let jid = self.find(2, Ns::Bind, "jid");
                Payload::Bind(jid.and_then(|jid| self.text(jid)).unwrap_or_default())
            }
            _ => Payload::Other,
        }
    }

    fn presence(&self) -> Option<Presence> {
        let available = match attribute(self.tag, "type") {
            None => Some(true),
            Some(b"unavailable") => Some(false),
            Some(_) => None,
        };
        Some(Presence {
            from: self.attribute("from")?,
            available,
        })
    }
}
