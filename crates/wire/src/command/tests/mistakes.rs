//! What clients send by mistake and is understood all the same, or refused with the right word.

use super::*;

const MARK: &str = "\u{feff}";

fn password(message: &RawMessage) -> String {
    let command = ok(message);
    command.args.get("password").unwrap_or_default().to_owned()
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_password() {
    let object = r#"{"password":"s3cret","extension":"2001"}"#;
    for body in ["s3cret,2001", object] {
        let marked = format!("{MARK}{body}");
        for message in [
            raw("Login#1001", &marked),
            json("Login#1001", &marked),
            json("Login#1001", &format!("{MARK}{marked}")),
            raw(&format!("{MARK}Login # {MARK}1001{MARK}"), &marked),
        ] {
            assert_eq!(password(&message), "s3cret", "{message:?}");
            assert_eq!(ok(&message).addressee.as_str(), "1001");
            let plain = raw("Login#1001", body);
            assert_eq!(ok(&message).body_hash, ok(&plain).body_hash);
        }
    }
    let envelopes = [
        r#"{"type":"Login#1001","body":"s3cret,2001"}"#.to_owned(),
        format!(r#"{{"data":{{"type":"{MARK}Login#1001","body":"{MARK}s3cret,2001"}}}}"#),
        format!(r#"{{"type":"Login#1001","body":{object}}}"#),
    ];
    for envelope in envelopes {
        for message in [raw("", &envelope), json(MARK, &format!("{MARK}{envelope}"))] {
            assert_eq!(password(&message), "s3cret", "{message:?}");
        }
    }
}

#[test]
fn a_mark_alone_is_an_empty_body() {
    for message in [raw("MakeReady#1001", MARK), json("MakeReady#1001", MARK)] {
        assert_eq!(ok(&message).spec.name, "MakeReady");
    }
    assert_eq!(bad(&raw("", MARK)).reason, "no_type");
    assert_eq!(bad(&raw(MARK, "")).reason, "no_type");
}

#[test]
fn a_plain_body_that_calls_itself_json_is_the_text_that_it_is() {
    for (kind, body, args) in [
        ("MakeReady#1001", "", vec![]),
        ("MakeReady#1001", " \r\n", vec![]),
        ("MakeReady#1001", "null", vec![]),
        ("MakeReady#1001", r#""""#, vec![]),
        ("MakeReady#1001", r#""null""#, vec![]),
        ("AnswerCall#1001", "77", vec!["77"]),
        ("AnswerCall#1001", " 77\n", vec!["77"]),
        ("AnswerCall#1001", r#""77""#, vec!["77"]),
        ("AnswerCall#1001", r#" "<77>," "#, vec!["77"]),
        ("MakeCall#1001", "0041445550142", vec!["0041445550142"]),
        (
            "MakeCall#1001",
            "12345678901234567890123",
            vec!["12345678901234567890123"],
        ),
        ("MakeCall#1001", r#""+41 44""#, vec!["+41 44"]),
        ("Login#1001", "s3cret,2001", vec!["s3cret", "2001"]),
        ("Login#1001", r#""s3cret,2001""#, vec!["s3cret", "2001"]),
        ("Login#1001", r#""p\"w,2001""#, vec!["p\"w", "2001"]),
    ] {
        let command = ok(&json(kind, body));
        assert_eq!(all_args(&command), args, "{kind} {body}");
    }
}

#[test]
fn a_word_of_a_library_in_type_does_not_hide_an_envelope() {
    for word in ["TextMessage", " application/json ", "jms-map-message"] {
        for body in [
            r#"{"type":"Login#1001","body":"s3cret,2001"}"#,
            r#"{"data":{"type":"login # 1001","body":{"password":"s3cret","extension":"2001"}}}"#,
        ] {
            for message in [raw(word, body), json(word, body)] {
                assert_eq!(password(&message), "s3cret", "{message:?}");
                assert_eq!(ok(&message).addressee.as_str(), "1001");
                assert_ne!(redacted_body(&message), message.body.to_vec());
            }
        }
        let hello = raw(word, r#"{"type":"Hello#desk"}"#);
        assert_eq!(ok(&hello).addressee.as_str(), "desk");
        // The answer names what stands there, as where there is no envelope.
        for body in ["Hello#desk", r#"{"type":"Fly#1"}"#, r#"{"type":1}"#, "{"] {
            let refused = bad(&raw(word, body));
            assert_eq!(refused.reason, "unknown_command", "{body}");
            assert_eq!(refused.command.as_deref(), Some(word.trim()));
        }
        let nameless = bad(&raw(word, r#"{"type":"MakeReady"}"#));
        assert_eq!(nameless.reason, "bad_id");
    }
    // What is written as a command is one, and so is a command's name.
    let body = r#"{"type":"Hello#desk"}"#;
    assert_eq!(bad(&raw("Fly#1001", body)).reason, "unknown_command");
    assert_eq!(bad(&raw("MakeReady", body)).reason, "bad_id");
}

#[test]
fn plain_values_in_an_envelope_are_the_texts_that_they_are() {
    for (body, dialog) in [
        ("77", "77"),
        (r#""77""#, "77"),
        ("12345678901234567890123", "12345678901234567890123"),
    ] {
        let envelope = format!(r#"{{"type":"AnswerCall#1001","body":{body}}}"#);
        assert_eq!(all_args(&ok(&raw("", &envelope))), [dialog]);
    }
    for (body, reason) in [
        ("null", "missing_argument"),
        ("[77]", "wrong_type"),
        ("1e999", "bad_json"),
    ] {
        let envelope = format!(r#"{{"type":"AnswerCall#1001","body":{body}}}"#);
        assert_eq!(bad(&raw("", &envelope)).reason, reason, "{body}");
    }
}

#[test]
fn a_whole_object_is_one_whatever_the_message_says_of_it() {
    let object = r#"{"password":"s3cret","extension":2001}"#;
    let twice = serde_json::Value::from(object).to_string();
    let envelope = format!(r#"{{"type":"Login#1001","body":{twice}}}"#);
    let text = RawMessage {
        content_type: Some("text/plain".into()),
        ..raw("Login#1001", object)
    };
    for message in [
        raw("Login#1001", object),
        text,
        json("Login#1001", &twice),
        raw("", &envelope),
    ] {
        assert_eq!(all_args(&ok(&message)), ["s3cret", "2001"], "{message:?}");
    }
    // Names that it does not have are no password.
    let surplus = raw("Login#1001", r#"{"user":"1001","pass":"s3cret"}"#);
    assert_eq!(bad(&surplus).reason, "surplus_arguments");
    // What is none may begin like one.
    let braces = raw("Login#1001", "{s3cret},2001");
    assert_eq!(all_args(&ok(&braces)), ["{s3cret}", "2001"]);
    for broken in ["{s3cret},2001", r#""s3cret",2001"#, "[]", r#""\ud800""#] {
        let fault = bad(&json("Login#1001", broken));
        assert_eq!(fault.reason, "bad_json", "{broken}");
        assert!(!fault.detail.contains("s3cret"), "{fault:?}");
    }
}

#[test]
fn generic_commands_take_marked_bodies_too() {
    let object = r#"{"method":"GET","path":"/v1/items","query":{"n":1.10}}"#;
    let twice = serde_json::Value::from(format!("{MARK}{object}")).to_string();
    for message in [
        raw("Call#order:42", &format!("{MARK}{object}")),
        json("Call#order:42", &format!("{MARK}{object}")),
        json("Call#order:42", &twice),
        raw(
            "",
            &format!(r#"{MARK}{{"type":"Call#order:42","body":{object}}}"#),
        ),
        raw("", &format!(r#"{{"type":"Call#order:42","body":{twice}}}"#)),
    ] {
        let command = ok(&message);
        assert_eq!(
            command.args.get("query"),
            Some(r#"{"n":1.10}"#),
            "{message:?}"
        );
        assert!(http_call::parse(&command.args).is_ok());
    }
    for body in ["", "7", r#""GET""#] {
        assert_eq!(
            bad(&json("Call#order:42", body)).reason,
            "bad_json",
            "{body}"
        );
    }
}

#[test]
fn other_encodings_are_refused_with_a_word() {
    let utf16 = |text: &str, mark: &[u8]| {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        [mark, &units.collect::<Vec<_>>()].concat()
    };
    let object = r#"{"password":"s3cret","extension":"2001"}"#;
    for (body, words) in [
        (utf16("s3cret,2001", b"\xff\xfe"), "UTF-16"),
        (utf16("s3cret,2001", b""), "UTF-16"),
        (utf16(object, b""), "UTF-16"),
        (b"\xfe\xff\0s".to_vec(), "UTF-16"),
        (b"\0s\x003".to_vec(), "UTF-16"),
        (b"p\xe4ss,2001".to_vec(), "not UTF-8"),
        (b"\xed\xa0\x80,2001".to_vec(), "not UTF-8"),
    ] {
        for kind in ["Login#1001", ""] {
            for content in [None, Some("application/json; charset=utf-16")] {
                let message = RawMessage {
                    body: Bytes::from(body.clone()),
                    content_type: content.map(str::to_owned),
                    ..raw(kind, "")
                };
                let fault = bad(&message);
                assert_eq!(fault.reason, "not_utf8", "{message:?}");
                assert!(fault.detail.contains(words), "{fault:?}");
                assert!(redacted_body(&message).starts_with(br#"{"redacted":true"#));
            }
        }
    }
}

#[test]
fn a_name_that_stands_twice_counts_as_the_last_one() {
    let twice = r#"{"password":"old","extension":"2001","password":"s3cret"}"#;
    assert_eq!(password(&raw("Login#1001", twice)), "s3cret");
    let alias = r#"{"extension":"1","Extension":"2","password":"x"}"#;
    assert_eq!(bad(&json("Login#1001", alias)).reason, "surplus_arguments");
}

#[test]
fn numbers_that_nobody_can_dial_are_refused() {
    for number in ["1e999", "12345678901234567890123", "1.5", "-1e2"] {
        let body = format!(r#"{{"dialogId":{number}}}"#);
        let reason = bad(&json("AnswerCall#1001", &body)).reason;
        assert!(
            matches!(reason, "wrong_type" | "bad_json"),
            "{number} {reason}"
        );
    }
}

#[test]
fn empty_and_blank_properties_are_none() {
    for blank in ["", " ", "\u{a0}", MARK] {
        let message = RawMessage {
            message_id: Some(blank.into()),
            correlation_id: Some(blank.into()),
            reply_to: Some(blank.into()),
            content_type: Some(blank.into()),
            attempt: Some(1),
            ..raw("MakeReady#1001", "")
        };
        let command = ok(&message);
        assert_eq!(command.identity, None, "{blank:?}");
        assert_eq!(command.correlation_id, None, "{blank:?}");
        assert_eq!(command.reply_to, None, "{blank:?}");
    }
    // Blanks are a part of a queue's name.
    let message = RawMessage {
        reply_to: Some(" a queue ".into()),
        ..raw("MakeReady#1001", "")
    };
    let reply_to = ok(&message).reply_to.unwrap();
    assert_eq!(reply_to.as_str(), " a queue ");
}

#[test]
fn a_timestamp_in_finer_units_sets_the_same_deadline() {
    let old = NOW - 600_000;
    for unit in [1, 1000, 1_000_000] {
        let at = |ms: u64, expiration| {
            let message = RawMessage {
                timestamp: Some(ms * unit),
                expiration,
                ..raw("MakeCall#1001", "5550142")
            };
            ok(&message).deadline_ms
        };
        assert_eq!(at(old, None), old + 30_000, "{unit}");
        assert_eq!(at(old, Some(700_000)), NOW + 100_000, "{unit}");
        assert_eq!(at(NOW, None), NOW + 30_000, "{unit}");
    }
}

#[test]
fn a_time_that_cannot_be_sets_no_far_deadline() {
    let at = |timestamp: u64, expiration| {
        let message = RawMessage {
            timestamp: Some(timestamp),
            expiration,
            ..raw("MakeCall#1001", "5550142")
        };
        ok(&message).deadline_ms
    };
    // Not set, as libraries say it.
    assert_eq!(at(0, None), NOW + 30_000);
    assert_eq!(at(0, Some(1000)), NOW + 1000);
    // A clock that is ahead by days or for ever.
    for days in [2, 400, 30_000] {
        let ahead = NOW / 1000 + days * 86_400;
        assert_eq!(at(ahead, None), NOW + 30_000, "{days}");
        assert_eq!(at(ahead, Some(5000)), NOW + 5000, "{days}");
    }
    for ahead in [NOW + 2 * 86_400_000, u64::MAX] {
        assert_eq!(at(ahead, None), NOW + 30_000, "{ahead}");
    }
    // One that is ahead by less is believed, as the own one may be behind.
    assert_eq!(at(NOW / 1000 + 60, None), NOW + 91_000);
    // A clock that was never set.
    assert_eq!(at(1, None), 32_000);
}
