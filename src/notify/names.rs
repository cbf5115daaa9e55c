//! Namespaces: the ones that a session knows, and what prefixes stand for.

use super::text::{attributes, split_name};
use super::xml::Fault;

/// Declarations that may be in force at once.
const MAX_DECLARATIONS: usize = 64;

/// Of stream elements.
pub(super) const STREAMS: &str = "http://etherx.jabber.org/streams";
/// Of stanzas.
pub(super) const CLIENT: &str = "jabber:client";
/// Of STARTTLS.
pub(super) const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// Of SASL.
pub(super) const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// Of resource binding.
pub(super) const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// Of the session that RFC 3921 knew.
pub(super) const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
/// Of the conditions of stream errors.
pub(super) const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// Of the conditions of stanza errors.
pub(super) const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// Of the roster.
pub(super) const ROSTER: &str = "jabber:iq:roster";
/// XEP-0199.
pub(super) const PING: &str = "urn:xmpp:ping";
/// XEP-0060, requests.
pub(super) const PUBSUB: &str = "http://jabber.org/protocol/pubsub";

/// A namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Ns {
    Streams,
    Client,
    Tls,
    Sasl,
    Bind,
    Session,
    StreamErrors,
    StanzaErrors,
    Roster,
    Ping,
    /// None, or one that nobody here reads.
    #[default]
    Other,
}

const KNOWN: [(&str, Ns); 10] = [
    (STREAMS, Ns::Streams),
    (CLIENT, Ns::Client),
    (TLS, Ns::Tls),
    (SASL, Ns::Sasl),
    (BIND, Ns::Bind),
    (SESSION, Ns::Session),
    (STREAM_ERRORS, Ns::StreamErrors),
    (STANZA_ERRORS, Ns::StanzaErrors),
    (ROSTER, Ns::Roster),
    (PING, Ns::Ping),
];

impl Ns {
    fn of(uri: &[u8]) -> Self {
        let known = KNOWN.iter().find(|(name, _)| name.as_bytes() == uri);
        known.map_or(Self::Other, |(_, ns)| *ns)
    }
}

/// One declaration in force.
#[derive(Debug)]
struct Declaration {
    /// Depth of the element that has it.
    depth: usize,
    prefix: Box<[u8]>,
    ns: Ns,
}

/// The declarations in force.
#[derive(Debug, Default)]
pub(super) struct Scope {
    declarations: Vec<Declaration>,
}

impl Scope {
    /// Takes the declarations of an element at `depth`; returns the element's namespace and local
    /// name.
    pub(super) fn enter<'t>(
        &mut self,
        depth: usize,
        name: &'t [u8],
        tag: &[u8],
    ) -> Result<(Ns, &'t [u8]), Fault> {
        for attribute in attributes(tag) {
            let (label, uri) = attribute?;
            let prefix = match split_name(label) {
                (b"", b"xmlns") => &[][..],
                (b"xmlns", prefix) => prefix,
                _ => continue,
            };
            if self.declarations.len() >= MAX_DECLARATIONS {
                return Err(Fault::Limit);
            }
            self.declarations.push(Declaration {
                depth,
                prefix: prefix.into(),
                ns: Ns::of(uri),
            });
        }
        let (prefix, local) = split_name(name);
        let innermost = self.declarations.iter().rev();
        let declared = innermost.into_iter().find(|one| *one.prefix == *prefix);
        Ok((declared.map_or(Ns::Other, |one| one.ns), local))
    }

    /// Forgets the declarations of elements deeper than `depth`.
    pub(super) fn leave(&mut self, depth: usize) {
        while self
            .declarations
            .last()
            .is_some_and(|one| one.depth > depth)
        {
            self.declarations.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter<'t>(scope: &mut Scope, depth: usize, tag: &'t str) -> (Ns, &'t str) {
        let name = super::super::text::name(tag.as_bytes()).unwrap();
        let (ns, local) = scope.enter(depth, name, tag.as_bytes()).unwrap();
        (ns, std::str::from_utf8(local).unwrap())
    }

    #[test]
    fn a_prefix_means_what_the_nearest_element_says() {
        let mut scope = Scope::default();
        let header = format!("s:stream xmlns='{CLIENT}' xmlns:s=\"{STREAMS}\"");
        assert_eq!(enter(&mut scope, 1, &header), (Ns::Streams, "stream"));
        assert_eq!(enter(&mut scope, 2, "iq id='1'"), (Ns::Client, "iq"));
        assert_eq!(enter(&mut scope, 3, "x xmlns='y'"), (Ns::Other, "x"));
        assert_eq!(enter(&mut scope, 4, "z"), (Ns::Other, "z"));
        let own = format!("s:ping xmlns:s='{PING}'");
        assert_eq!(enter(&mut scope, 4, &own), (Ns::Ping, "ping"));
        scope.leave(1);
        assert_eq!(enter(&mut scope, 2, "s:error"), (Ns::Streams, "error"));
        assert_eq!(enter(&mut scope, 2, "presence"), (Ns::Client, "presence"));
        assert_eq!(enter(&mut scope, 2, "t:presence"), (Ns::Other, "presence"));
    }

    #[test]
    fn declarations_have_a_bound() {
        let mut scope = Scope::default();
        let many: String = (0..=MAX_DECLARATIONS)
            .map(|n| format!(" xmlns:a{n}='u'"))
            .collect();
        assert_eq!(
            scope.enter(1, b"a", format!("a{many}").as_bytes()),
            Err(Fault::Limit)
        );
    }
}
