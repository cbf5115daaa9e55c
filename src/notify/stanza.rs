//! What comes over the stream, as a session wants it, read in the same pass that cuts the stream
//! into stanzas.

use super::message::{Message, Notification};
use super::names::{Ns, Scope};
use super::outline::Outline;
use super::xml::{Fault, Lexer, Token, name};

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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::UpdateBody;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream from='d.example' id='s1' version='1.0' \
        xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

    fn read(stanzas: &str) -> Vec<Incoming> {
        let stream = format!("{HEADER}{stanzas}");
        let (mut all, fault) = read_all(std::iter::once(stream.as_bytes()));
        assert_eq!(fault, None, "{stanzas}");
        assert_eq!(all.remove(0), Incoming::Opened);
        all
    }

    fn one(stanza: &str) -> Incoming {
        let mut all = read(stanza);
        assert_eq!(all.len(), 1, "{stanza}");
        all.remove(0)
    }

    fn fault(stream: &str) -> Option<Fault> {
        read_all(std::iter::once(stream.as_bytes())).1
    }

    #[test]
    fn features_say_what_the_service_wants() {
        let features = one(
            "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
             <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism>\
             <mechanism> SCRAM-SHA-1\n</mechanism></mechanisms><mechanism>X</mechanism>\
             <session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></stream:features>",
        );
        let mechanisms = vec!["PLAIN".to_owned(), "SCRAM-SHA-1".to_owned()];
        let expected = Features {
            starttls: true,
            mechanisms,
            wants_session: true,
        };
        assert_eq!(features, Incoming::Features(expected));
        let optional = one(
            "<stream:features><session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>\
             <starttls/></stream:features>",
        );
        assert_eq!(optional, Incoming::Features(Features::default()));
    }

    #[test]
    fn conditions_are_named_and_what_is_no_name_is_not() {
        let error = |content: &str| one(&format!("<stream:error>{content}</stream:error>"));
        let ns = "xmlns='urn:ietf:params:xml:ns:xmpp-streams'";
        let condition = |name: &str| Incoming::StreamError(Some(name.to_owned()));
        assert_eq!(
            error(&format!("<text {ns}>t</text><conflict {ns}/>")),
            condition("conflict")
        );
        assert_eq!(error(&format!("<new-one {ns}/>")), condition("new-one"));
        let long = format!("<{} {ns}/>", "x".repeat(41));
        for content in ["", "<conflict/>", &format!("<Con.flict {ns}/>"), &long] {
            assert_eq!(error(content), Incoming::StreamError(None), "{content}");
        }
    }

    #[test]
    fn requests_and_answers_are_told_apart() {
        let iq = |stanza: &str| match one(stanza) {
            Incoming::Iq(iq) => (iq.kind, iq.payload),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            iq("<iq type='get' id='1' from='d'><ping xmlns='urn:xmpp:ping'/></iq>"),
            (IqKind::Get, Payload::Ping)
        );
        assert_eq!(
            iq(
                "<iq type='result' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>a&amp;@b/c</jid></bind></iq>"
            ),
            (IqKind::Result, Payload::Bind("a&@b/c".to_owned()))
        );
        assert_eq!(
            iq(
                "<iq type='error' id='1'><ping xmlns='urn:xmpp:ping'/><error type='cancel'><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>no</text><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            ),
            (IqKind::Error, Payload::Error(Some("conflict".to_owned())))
        );
        assert_eq!(
            iq("<iq type='result' id='1'/>"),
            (IqKind::Result, Payload::None)
        );
        for stanza in [
            "<iq type='strange' id='1'/>",
            "<iq type='get'/>",
            "<iq type='get' id='&x;'/>",
            "<iq xmlns='else' type='get' id='1'/>",
            "<presence/>",
            "<else/>",
        ] {
            assert_eq!(one(stanza), Incoming::Other, "{stanza}");
        }
    }

    #[test]
    fn a_prefix_does_as_well_as_a_default_namespace() {
        let stream = "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns:c='jabber:client'>\
            <c:presence from='a@b/c' type='unavailable'/><presence from='a'/></s:stream>";
        let (all, fault) = read_all(std::iter::once(stream.as_bytes()));
        let presence = Presence {
            from: "a@b/c".to_owned(),
            available: Some(false),
        };
        let expected = [
            Incoming::Opened,
            Incoming::Presence(presence),
            Incoming::Other,
            Incoming::Closed,
        ];
        assert_eq!((&all[..], fault), (&expected[..], None));
    }

    #[test]
    fn keepalives_between_stanzas_are_nothing() {
        assert_eq!(read(" \n "), []);
        assert_eq!(read(" <a/> \n <b/> "), [Incoming::Other, Incoming::Other]);
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        for stream in [
            "HTTP/1.1 400 Bad Request",
            "<html>",
            "<stream:stream>",
            "<stream xmlns='jabber:client'>",
            "<stream xmlns='http://etherx.jabber.org/streams'/>",
        ] {
            assert_eq!(fault(stream), Some(Fault::Malformed), "{stream}");
        }
        for stanzas in ["text", "<a></b>", "</b>", "<a x></a>"] {
            let stream = format!("{HEADER}{stanzas}");
            assert_eq!(fault(&stream), Some(Fault::Malformed), "{stanzas}");
        }
    }

    #[test]
    fn an_outline_of_much_is_small() {
        let roster = "<item jid='a@b'/>".repeat(20_000);
        let iq = format!(
            "<iq type='result' id='roster'><query xmlns='jabber:iq:roster'>{roster}</query></iq>"
        );
        assert!(matches!(
            one(&iq),
            Incoming::Iq(Iq {
                payload: Payload::Roster,
                ..
            })
        ));
        // Text behind the last element that is kept belongs to none of them.
        let many = "<mechanism/>".repeat(200);
        let features = format!(
            "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{many}\
             <mechanism>PLAIN</mechanism></mechanisms></stream:features>"
        );
        assert!(
            matches!(one(&features), Incoming::Features(Features { mechanisms, .. })
            if mechanisms.iter().all(String::is_empty))
        );
    }

    /// What a session may see.
    fn stanza() -> impl Strategy<Value = String> {
        let payload = "[a-z <>&'\"äß€\\]]{0,24}";
        let update = |text: &str| {
            let text = super::super::xml::escaped(text);
            format!("<Update><data><user><loginName>{text}</loginName></user></data></Update>")
        };
        let note = |node: &str, content: &str| {
            format!(
                "<message from='pubsub.d' to=\"1@d/r\"><event xmlns='http://jabber.org/protocol/pubsub#event'>\
                 <items node='{node}'><item id='a&amp;b'><notification type='>'>{content}</notification></item>\
                 </items></event></message>"
            )
        };
        let user = "/finesse/api/User/1";
        prop_oneof![
            payload.prop_map(move |text| note(user, &super::super::xml::escaped(&update(&text)))),
            payload.prop_map(move |text| note(user, &format!("<![CDATA[{}]]>", update(&text)))),
            payload.prop_map(move |text| note(user, &update(&text))),
            payload.prop_map(move |text| note(user, &super::super::xml::escaped(&text))),
            Just(note("/finesse/api/SystemInfo", "")),
            Just("<presence from='finesse@d/x'><priority>0</priority></presence>".to_owned()),
            Just("<iq type='get' id='1' from='d'><ping xmlns='urn:xmpp:ping'/></iq>".to_owned()),
            Just("<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>".to_owned()),
            Just(" \n".to_owned()),
            Just("<a b='>'/>".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn stanzas_may_be_split_at_every_byte(
            stanzas in proptest::collection::vec(stanza(), 1..5),
        ) {
            let stream = format!("{HEADER}{}</stream:stream>", stanzas.concat());
            let whole = read_all(std::iter::once(stream.as_bytes()));
            prop_assert_eq!(whole.1, None);
            prop_assert_eq!(whole.0.last(), Some(&Incoming::Closed));
            for at in 1..stream.len() {
                let (head, tail) = stream.as_bytes().split_at(at);
                prop_assert_eq!(&read_all([head, tail].into_iter()), &whole);
            }
            for size in [1, 2, 3, 7] {
                prop_assert_eq!(&read_all(stream.as_bytes().chunks(size)), &whole);
            }
        }

        #[test]
        fn any_markup_is_read_alike_in_pieces(text in "(<[a-c:]{1,3}>|</[a-c]{1,2}>|<message|xmlns='|<event>|<items>|<item>|&[a-z#0-9]{0,4};|[ -~]){0,60}") {
            super::super::read_stream(text.as_bytes());
        }
    }

    #[test]
    fn names_that_were_split_are_whole_again() {
        let state = "<message from='pubsub.d'><event><items node='/finesse/api/User/1'><item><notification>\
            &lt;Update&gt;&lt;data&gt;&lt;user&gt;&lt;firstName&gt;J\u{f6}rg &amp;amp; Co&lt;/firstName&gt;&lt;/user&gt;\
            &lt;/data&gt;&lt;/Update&gt;</notification></item></items></event></message>";
        let stream = format!("{HEADER}{state}");
        let (all, _) = read_all(stream.as_bytes().chunks(1));
        let [Incoming::Opened, Incoming::Message(updates)] = &all[..] else {
            panic!("{all:?}");
        };
        assert!(matches!(&updates[..], [Ok(update)]
            if matches!(&update.body, UpdateBody::User(user) if user.first_name == "J\u{f6}rg & Co")));
    }
}
