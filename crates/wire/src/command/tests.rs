mod call;
mod malformed;
mod mistakes;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::catalogue::commands;

const NOW: u64 = 1_900_000_000_000;

fn defaults() -> Defaults {
    Defaults {
        max_age_ms: 30_000,
        cluster_name: "tandem".into(),
        generate_traces: false,
        command_queues: vec!["Connector1".into()],
    }
}

fn raw(kind: &str, body: &str) -> RawMessage {
    RawMessage {
        kind: Some(kind.to_owned()).filter(|kind| !kind.is_empty()),
        body: Bytes::copy_from_slice(body.as_bytes()),
        ..RawMessage::default()
    }
}

fn json(kind: &str, body: &str) -> RawMessage {
    RawMessage {
        content_type: Some("application/json; charset=utf-8".into()),
        ..raw(kind, body)
    }
}

fn ok(raw: &RawMessage) -> ClientCommand {
    parse(raw, &defaults(), NOW).unwrap_or_else(|fault| panic!("{raw:?}: {fault:?}"))
}

fn bad(raw: &RawMessage) -> Malformed {
    match parse(raw, &defaults(), NOW) {
        Err(fault) => *fault,
        Ok(command) => panic!("{raw:?} was read as {:?}", command.spec),
    }
}

fn all_args(command: &ClientCommand) -> Vec<&str> {
    let args = command.spec.args.iter();
    args.map(|arg| command.args.get(arg.name).unwrap_or_default())
        .collect()
}

#[test]
fn every_way_to_write_a_command() {
    for (message, name, id, args) in [
        (raw("MakeReady#1001", ""), "MakeReady", "1001", vec![]),
        (raw("makeREADY#1001", "null"), "MakeReady", "1001", vec![]),
        (raw("MakeReady#1001", " NULL "), "MakeReady", "1001", vec![]),
        (raw(" MakeReady # 1001 ", ""), "MakeReady", "1001", vec![]),
        (raw("MakeReady###1001", ""), "MakeReady", "1001", vec![]),
        (raw("MakeReady# #1001", ""), "MakeReady", "1001", vec![]),
        (json("MakeReady#1001", "{}"), "MakeReady", "1001", vec![]),
        (json("MakeReady#1001", " "), "MakeReady", "1001", vec![]),
        (json("MakeReady#1001", "null"), "MakeReady", "1001", vec![]),
        (raw("HELLO#desk-1", ""), "Hello", "desk-1", vec![]),
        (
            raw("Connect#1001", "desk-1,s3cret"),
            "Connect",
            "1001",
            vec!["desk-1", "s3cret", ""],
        ),
        (
            raw("Connect#1001", " desk-1 , <s3cret> ,<SSO>"),
            "Connect",
            "1001",
            vec!["desk-1", "s3cret", "SSO"],
        ),
        // A password takes the commas that no other argument needs.
        (
            raw("Login#1001", "p,a,ss,2001"),
            "Login",
            "1001",
            vec!["p,a,ss", "2001"],
        ),
        (
            raw("Login#1001", "s3cret,2001,"),
            "Login",
            "1001",
            vec!["s3cret", "2001"],
        ),
        (
            raw("Connect#1001", "desk-1,p,ss"),
            "Connect",
            "1001",
            vec!["desk-1", "p,ss", ""],
        ),
        (
            raw("Connect#1001", "desk-1,p,ss,<sso>"),
            "Connect",
            "1001",
            vec!["desk-1", "p,ss", "sso"],
        ),
        (
            raw("Connect#1001", "desk-1,s3cret,"),
            "Connect",
            "1001",
            vec!["desk-1", "s3cret", ""],
        ),
        (
            raw("MobileAgentLogin#1001", "p,q,2001,0699,false"),
            "MobileAgentLogin",
            "1001",
            vec!["p,q", "2001", "0699", "false"],
        ),
        (
            raw("wrapup#1001", "Sold, twice,77,"),
            "wrapup",
            "1001",
            vec!["Sold, twice", "77"],
        ),
        (
            raw("TransferCall#1001", ",77"),
            "TransferCall",
            "1001",
            vec!["", "77"],
        ),
        // The names that the original's documents print.
        (
            json("Connect#1001", r#"{"dest":"d","password":"x","SSO":true}"#),
            "Connect",
            "1001",
            vec!["d", "x", "true"],
        ),
        (
            json("MakeNotReadyWithReason#1001", r#"{"reason_id":9}"#),
            "MakeNotReadyWithReason",
            "1001",
            vec!["9"],
        ),
        (
            json("ConsultCall#1001", r#"{"number":"7011","dialog":"77"}"#),
            "ConsultCall",
            "1001",
            vec!["7011", "77"],
        ),
        (
            json(
                "MobileAgentLogin#1001",
                r#"{"password":"x","extension":"2001","dialNumber":"0699","connection_mode":true}"#,
            ),
            "MobileAgentLogin",
            "1001",
            vec!["x", "2001", "0699", "true"],
        ),
        (
            json(
                "dropparticipant#1001",
                r#"{"participant extension":"7","dialog_id":"77"}"#,
            ),
            "dropparticipant",
            "1001",
            vec!["7", "77"],
        ),
        (
            json("getteamusers#1001", r#"{"teamId":12,"subscribe":true}"#),
            "getteamusers",
            "1001",
            vec!["12", "true"],
        ),
        (
            raw("ReterieveCall#1001", "< 77 >"),
            "RetrieveCall",
            "1001",
            vec!["77"],
        ),
        (
            raw("AnswerCall#1001", "77,"),
            "AnswerCall",
            "1001",
            vec!["77"],
        ),
        (
            json("AnswerCall#1001", r#"{"DIALOGID":77}"#),
            "AnswerCall",
            "1001",
            vec!["77"],
        ),
        (
            json("MakeCall#1001", r#"{"number":"+41,<5>"}"#),
            "MakeCall",
            "1001",
            vec!["+41,<5>"],
        ),
        (
            json(
                "Connect#1001",
                r#"{"destination":"d","password":" x ","mode":null}"#,
            ),
            "Connect",
            "1001",
            vec!["d", " x ", ""],
        ),
        (
            raw("", r#"{"type":"Login#1001","body":"s3cret,2001"}"#),
            "Login",
            "1001",
            vec!["s3cret", "2001"],
        ),
        (
            raw(
                "",
                r#" {"data":{"type":"Login#1001","body":{"password":"p,q","extension":2001},"sessionUrl":"x"}}"#,
            ),
            "Login",
            "1001",
            vec!["p,q", "2001"],
        ),
        (
            json("", r#"{"type":"Hello#desk-1","body":"null"}"#),
            "Hello",
            "desk-1",
            vec![],
        ),
        (
            raw(" ", r#"{"type":"Beat#desk-1"}"#),
            "Beat",
            "desk-1",
            vec![],
        ),
        (
            raw("", r#"{"type":"MakeReady#1001","body":{}}"#),
            "MakeReady",
            "1001",
            vec![],
        ),
    ] {
        let command = ok(&message);
        assert_eq!(command.spec.name, name, "{message:?}");
        assert_eq!(command.addressee.as_str(), id, "{message:?}");
        assert_eq!(all_args(&command), args, "{message:?}");
    }
}

#[test]
fn a_brace_inside_a_text_is_no_depth() {
    let body = format!(r#"{{"number":"{}\"{}"}}"#, "{".repeat(50), "[".repeat(50));
    assert_eq!(ok(&json("MakeCall#1", &body)).spec.name, "MakeCall");
}

#[test]
fn reply_addresses() {
    let with = |reply_to: &str, relayed| RawMessage {
        reply_to: Some(reply_to.to_owned()),
        relayed,
        ..raw("MakeReady#1001", "")
    };
    for (name, relayed, want) in [
        ("", true, None),
        ("answers", true, Some(ReplyTo::Queue("answers".into()))),
        ("amq.gen-x", false, Some(ReplyTo::Queue("amq.gen-x".into()))),
        ("tandem", false, Some(ReplyTo::Queue("tandem".into()))),
        ("tandem2.x", false, Some(ReplyTo::Queue("tandem2.x".into()))),
        (
            "amq.rabbitmq.reply-to.a.b",
            false,
            Some(ReplyTo::Direct("amq.rabbitmq.reply-to.a.b".into())),
        ),
    ] {
        assert_eq!(ok(&with(name, relayed)).reply_to, want, "{name}");
    }
    let long = "q".repeat(256);
    for (name, relayed) in [
        ("Connector1", false),
        ("tandem.events", false),
        ("tandem.control.gc-1", false),
        ("amq.rabbitmq.reply-to", false),
        ("amq.rabbitmq.reply-to.", false),
        ("amq.rabbitmq.reply-to.a.b", true),
        ("a\nb", false),
        (long.as_str(), false),
    ] {
        let fault = bad(&with(name, relayed));
        assert_eq!(fault.reason, "reply_to_forbidden", "{name}");
        assert_eq!(fault.reply_to, None, "{name}");
        assert_eq!(fault.agent, AgentId::new("1001").ok(), "{name}");
    }
}

#[test]
fn deadlines() {
    let base = raw("MakeReady#1001", "");
    let seconds = NOW / 1000;
    for (deadline, timestamp, expiration, want) in [
        (None, None, None, NOW + 30_000),
        (None, None, Some(5_000), NOW + 5_000),
        (None, None, Some(900_000), NOW + 30_000),
        (None, Some(seconds), None, NOW + 31_000),
        (None, Some(seconds), Some(60_000), NOW + 61_000),
        (None, Some(seconds), Some(0), NOW + 1_000),
        (Some(7), Some(seconds), Some(60_000), 7),
        (Some(-7), None, None, 0),
        (Some(i64::MAX), None, None, NOW + MAX_DEADLINE_AHEAD_MS),
        (
            None,
            Some(seconds),
            Some(u64::MAX),
            NOW + MAX_DEADLINE_AHEAD_MS,
        ),
        (None, Some(u64::MAX), Some(u64::MAX), NOW + 30_000),
    ] {
        let message = RawMessage {
            deadline,
            timestamp,
            expiration,
            ..base.clone()
        };
        assert_eq!(ok(&message).deadline_ms, want, "{message:?}");
    }
}

#[test]
fn correlation_is_an_identity_only_beside_an_attempt() {
    let mut message = RawMessage {
        correlation_id: Some("c".into()),
        ..raw("MakeReady#1001", "")
    };
    assert_eq!(ok(&message).identity, None);
    message.attempt = Some(1);
    assert_eq!(ok(&message).identity.as_deref(), Some("c"));
    assert!(!ok(&message).maybe_seen);
    message.message_id = Some("m".into());
    message.attempt = Some(2);
    let command = ok(&message);
    assert_eq!(command.identity.as_deref(), Some("m"));
    assert!(command.maybe_seen);
    assert_eq!(command.correlation_id.as_deref(), Some("c"));
}

#[test]
fn the_hash_tells_commands_apart_and_forms_alike() {
    let hash = |raw: &RawMessage| ok(raw).body_hash;
    let call = hash(&raw("AnswerCall#1001", "77"));
    assert_eq!(call, hash(&raw("answercall# 1001", " <77> ")));
    assert_eq!(call, hash(&json("AnswerCall#1001", r#"{"dialogId":77}"#)));
    assert_ne!(call, hash(&raw("AnswerCall#1001", "78")));
    assert_ne!(call, hash(&raw("AnswerCall#1002", "77")));
    assert_ne!(call, hash(&raw("HoldCall#1001", "77")));
    assert_ne!(
        hash(&raw("Login#1001", "ab,1")),
        hash(&raw("Login#1001", "a,b1"))
    );
}

#[test]
fn what_stands_in_the_body_of_hello_and_beat_does_not_matter() {
    let mut binary = raw("Beat#desk-1", "");
    binary.body = Bytes::from_static(&[0xff, 0]);
    for message in [
        raw("Hello#desk-1", "hello there, s3cret"),
        raw("BEAT#desk-1", "1,2"),
        raw("Hello#desk-1", "a\u{0}"),
        json("Hello#desk-1", r#"{"x":1}"#),
        json("Hello#desk-1", "[1"),
        raw("", r#"{"type":"Beat#desk-1","body":"padding"}"#),
        raw("", r#"{"data":{"type":"Hello#desk-1","body":[7]}}"#),
        binary,
    ] {
        let command = ok(&message);
        assert_eq!(command.addressee.as_str(), "desk-1", "{message:?}");
        let bare = ok(&raw(&format!("{}#desk-1", command.spec.name), ""));
        assert_eq!(command.body_hash, bare.body_hash);
        // Nobody knows what it is: operators are not shown it.
        assert_ne!(redacted_body(&message), message.body.to_vec());
    }
    assert_eq!(bad(&raw("Hello#a\tb", "x")).reason, "bad_id");
    let long = "x".repeat(MAX_BODY + 1);
    assert_eq!(bad(&raw("Hello#desk-1", &long)).reason, "oversized");
    assert_eq!(bad(&raw("MakeReady#1001", "x")).reason, "surplus_arguments");
}

#[test]
fn bodies_with_credentials_or_without_sense_are_redacted() {
    let shown = |raw: &RawMessage| redacted_body(raw) == raw.body.to_vec();
    assert!(shown(&raw("AnswerCall#1001", "77")));
    assert!(shown(&raw("", r#"{"type":"AnswerCall#1001","body":"77"}"#)));
    assert!(shown(&raw("MakeReady#1001", "")));
    for message in [
        raw("Login#1001", "s3cret,2001"),
        raw("LOGIN#1001", "s3cret"),
        raw("", r#"{"type":"Connect#1001","body":"d,s3cret"}"#),
        raw("", r#"{"type":"Connect#1001","body":"d,s3cret""#),
        raw("Lgoin#1001", "s3cret,2001"),
        raw("MakeReady#1001", "s3cret"),
        raw("", "s3cret"),
    ] {
        let body = String::from_utf8(redacted_body(&message)).unwrap();
        assert!(!body.contains("s3cret"), "{body}");
        let length = format!(r#"{{"redacted":true,"length":{},"#, message.body.len());
        assert!(body.starts_with(&length), "{body}");
    }
    assert_eq!(
        String::from_utf8(redacted_body(&raw("Nope#1", "abc"))).unwrap(),
        r#"{"redacted":true,"length":3,"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#
    );
}

#[test]
fn what_keeps_a_command_from_being_run_hides_its_body_only_where_that_is_secret() {
    let shown = |raw: &RawMessage| redacted_body(raw) == raw.body.to_vec();
    let looped = |raw: RawMessage| RawMessage {
        looped: true,
        reply_to: Some("tandem.control".into()),
        ..raw
    };
    assert!(shown(&looped(raw("MakeCall#1001", "5551"))));
    assert!(shown(&looped(raw(
        "",
        r#"{"type":"MakeCall#1001","body":"5551"}"#
    ))));
    assert!(!shown(&looped(raw("Login#1001", "s3cret,2001"))));
    assert!(!shown(&looped(raw(
        "",
        r#"{"type":"Login#1001","body":"s3cret,1"}"#
    ))));
    assert!(!shown(&looped(raw("MakeReady#1001", "s3cret"))));
    // Of a request, what the connector would not send may be a credential.
    let call = r#"{"method":"GET","path":"/a","headers":{"X-A":"1"}}"#;
    assert!(shown(&looped(json("Call#k", call))));
    let call = r#"{"method":"GET","path":"/a","headers":{"Authorization":"s3cret"}}"#;
    assert!(!shown(&looped(json("Call#k", call))));
}

#[test]
fn the_command_of_a_body_is_named_where_the_type_does_not_say_it() {
    let named = |kind: &str, body: &str| named_command(&raw(kind, body));
    let login = r#"{"type":"login#1001","body":"s3cret"}"#;
    assert_eq!(named("", login).as_deref(), Some("Login#1001"));
    assert_eq!(named("TextMessage", login).as_deref(), Some("Login#1001"));
    assert_eq!(named("Login#1001", "s3cret,1"), None);
    assert_eq!(named("Beat#desk", login), None);
    assert_eq!(named("", r#"{"type":"s3cret#1001"}"#), None);
    assert_eq!(named("", "s3cret"), None);
}

fn any_raw() -> impl Strategy<Value = RawMessage> {
    let names: Vec<&'static str> = commands().map(|spec| spec.name).collect();
    let kind = prop_oneof![
        Just(None),
        any::<String>().prop_map(Some),
        (prop::sample::select(names), "[ #]{0,2}[0-9a-z.,]{0,6}")
            .prop_map(|(name, id)| Some(format!("{name}#{id}"))),
    ];
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[a-z0-9,<> #]{0,30}".prop_map(String::into_bytes),
        r#"[\{\}\[\]",:a-z0-9 ]{0,40}"#.prop_map(String::into_bytes),
        "[A-Za-z]{3,8}#[0-9]{1,4}".prop_map(|kind| {
            format!(r#"{{"data":{{"type":"{kind}","body":"s3cret,1"}}}}"#).into_bytes()
        }),
    ];
    let texts = prop::collection::vec(prop::option::of(any::<String>()), 3);
    let json = prop::option::of(prop_oneof![
        Just("application/json".to_owned()),
        any::<String>()
    ]);
    let numbers = (
        any::<Option<u64>>(),
        any::<Option<u64>>(),
        any::<Option<i64>>(),
        any::<Option<i64>>(),
    );
    (kind, body, texts, json, numbers, any::<bool>()).prop_map(
        |(kind, body, mut texts, content_type, numbers, relayed)| RawMessage {
            kind,
            body: Bytes::from(body),
            content_type,
            message_id: texts.pop().flatten(),
            correlation_id: texts.pop().flatten(),
            reply_to: texts.pop().flatten(),
            timestamp: numbers.0,
            expiration: numbers.1,
            deadline: numbers.2,
            attempt: numbers.3,
            relayed,
            ..RawMessage::default()
        },
    )
}

proptest! {
    /// Whatever arrives is understood or refused with bounded words, and never shown where it
    /// was refused.
    #[test]
    fn anything_may_arrive(raw in any_raw()) {
        match parse(&raw, &defaults(), NOW) {
            Ok(command) => {
                prop_assert!(command.deadline_ms <= NOW + MAX_DEADLINE_AHEAD_MS);
                for arg in command.spec.args {
                    prop_assert!(arg.missing.is_none() || command.args.get(arg.name).is_some());
                }
            }
            Err(fault) => {
                prop_assert!(fault.id.chars().count() <= MAX_ECHO);
                prop_assert!(!fault.detail.contains("s3cret"));
                if fault.reason != "reply_to_forbidden" {
                    let redacted = redacted_body(&raw).starts_with(br#"{"redacted":true"#);
                    prop_assert!(redacted);
                }
            }
        }
    }

    /// The text form and the object form of the same arguments are the same command.
    #[test]
    fn forms_agree(
        index in 0..commands().count(),
        values in prop::collection::vec("[a-zA-Z0-9+*._-]{1,12}", 6),
    ) {
        let spec = commands().nth(index).unwrap();
        prop_assume!(!spec.args.iter().any(|arg| arg.json));
        let kind = format!("{}#1001", spec.name);
        let values: Vec<String> = spec
            .args
            .iter()
            .zip(values)
            .map(|(arg, value)| arg.only.map_or(value, str::to_owned))
            .collect();
        let values = &values[..];
        let object: serde_json::Map<_, _> = spec
            .args
            .iter()
            .zip(values)
            .map(|(arg, value)| (arg.name.to_owned(), value.clone().into()))
            .collect();
        let object = serde_json::Value::Object(object);
        let envelope = serde_json::json!({"data": {"type": kind, "body": object}});
        let text = raw(&kind, &values.join(","));
        // `null` is the one value that the text form cannot say, and `*` is in no destination.
        prop_assume!(!values.iter().any(|value| value.eq_ignore_ascii_case("null") || value.contains('*')));
        let hashes = [text, json(&kind, &object.to_string()), raw("", &envelope.to_string())]
            .map(|message| ok(&message).body_hash);
        prop_assert_eq!(hashes[0], hashes[1]);
        prop_assert_eq!(hashes[0], hashes[2]);
    }
}
