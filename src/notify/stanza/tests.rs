//! What sessions see of streams, whole and in pieces.

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
    // As they are in front of a stream, where the one before has left them.
    let stream = format!(" \n{HEADER}");
    assert_eq!(
        read_all(stream.as_bytes().chunks(1)),
        (vec![Incoming::Opened], None)
    );
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
        let text = super::super::text::escaped(text);
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
        payload.prop_map(move |text| note(user, &super::super::text::escaped(&update(&text)))),
        payload.prop_map(move |text| note(user, &format!("<![CDATA[{}]]>", update(&text)))),
        payload.prop_map(move |text| note(user, &update(&text))),
        payload.prop_map(move |text| note(user, &super::super::text::escaped(&text))),
        Just(note("/finesse/api/SystemInfo", "")),
        Just("<presence from='finesse@d/x'><priority>0</priority></presence>".to_owned()),
        Just("<iq type='get' id='1' from='d'><ping xmlns='urn:xmpp:ping'/></iq>".to_owned()),
        Just(
            "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
                .to_owned()
        ),
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
