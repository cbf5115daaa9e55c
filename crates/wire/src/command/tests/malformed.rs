//! What is no command: for which reason, and what an answer needs of it.

use super::*;
use crate::message::Unreadable;

#[test]
fn every_way_to_be_malformed() {
    let deep = format!(r#"{{"dialogId":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
    let long = "x".repeat(MAX_BODY + 1);
    let long_id = format!("MakeReady#{}", "9".repeat(5000));
    for (message, reason, code) in [
        (raw("", ""), "no_type", ErrorCode::PleaseRetry),
        (raw("", "MakeReady#1001"), "no_type", ErrorCode::PleaseRetry),
        (
            raw("", r#"{"body":"x"}"#),
            "no_type",
            ErrorCode::PleaseRetry,
        ),
        (
            raw("", r#"{"type":7}"#),
            "wrong_type",
            ErrorCode::PleaseRetry,
        ),
        (raw("", r#"{"type":"#), "bad_json", ErrorCode::PleaseRetry),
        (raw("#1001", ""), "no_type", ErrorCode::PleaseRetry),
        (
            raw("Fly#1001", ""),
            "unknown_command",
            ErrorCode::PleaseRetry,
        ),
        (raw("MakeReady", ""), "bad_id", ErrorCode::PleaseRetry),
        (raw("MakeReady#", ""), "bad_id", ErrorCode::PleaseRetry),
        (raw("MakeReady#../x", ""), "bad_id", ErrorCode::PleaseRetry),
        (raw("MakeReady#1 2", ""), "bad_id", ErrorCode::PleaseRetry),
        (raw("Hello#a,b", ""), "bad_id", ErrorCode::PleaseRetry),
        (raw(&long_id, ""), "bad_id", ErrorCode::PleaseRetry),
        (
            raw("MakeReady#1", "x"),
            "surplus_arguments",
            ErrorCode::PleaseRetry,
        ),
        (
            raw("AnswerCall#1", "7,8"),
            "surplus_arguments",
            ErrorCode::PleaseRetry,
        ),
        (
            raw("AnswerCall#1", ""),
            "missing_argument",
            ErrorCode::MissingDialogId,
        ),
        (
            raw("AnswerCall#1", "<>"),
            "missing_argument",
            ErrorCode::MissingDialogId,
        ),
        (
            raw("MakeCall#1", "null"),
            "missing_argument",
            ErrorCode::MissingNumber,
        ),
        (
            raw("Login#1", ",2001"),
            "missing_argument",
            ErrorCode::MissingPassword,
        ),
        (
            raw("Login#1", "p"),
            "missing_argument",
            ErrorCode::MissingExtension,
        ),
        (
            raw("logoutwithreason#1", " "),
            "missing_argument",
            ErrorCode::MissingReasonCode,
        ),
        (
            raw("Connect#1", "a\tb,p"),
            "bad_destination",
            ErrorCode::PleaseRetry,
        ),
        (
            json("AnswerCall#1", "{}"),
            "missing_argument",
            ErrorCode::MissingDialogId,
        ),
        (
            json("AnswerCall#1", "{"),
            "bad_json",
            ErrorCode::PleaseRetry,
        ),
        (
            json("AnswerCall#1", "[7]"),
            "bad_json",
            ErrorCode::PleaseRetry,
        ),
        (
            json("AnswerCall#1", &deep),
            "json_too_deep",
            ErrorCode::PleaseRetry,
        ),
        (
            json("AnswerCall#1", r#"{"dialogId":[true]}"#),
            "wrong_type",
            ErrorCode::PleaseRetry,
        ),
        (
            raw("Login#1", "s3cret,"),
            "missing_argument",
            ErrorCode::MissingExtension,
        ),
        (
            raw("Login#1", ",2001"),
            "missing_argument",
            ErrorCode::MissingPassword,
        ),
        (
            json("AnswerCall#1", r#"{"dialogId":1.5}"#),
            "wrong_type",
            ErrorCode::PleaseRetry,
        ),
        (
            json("AnswerCall#1", r#"{"dialogId":"7","x":1}"#),
            "surplus_arguments",
            ErrorCode::PleaseRetry,
        ),
        (
            json("AnswerCall#1", r#"{"dialogId":"7","dialog":"8"}"#),
            "surplus_arguments",
            ErrorCode::PleaseRetry,
        ),
        (
            raw("", r#"{"type":"AnswerCall#1","body":[7]}"#),
            "wrong_type",
            ErrorCode::PleaseRetry,
        ),
        (
            raw("MakeCall#1", "55\u{0}5"),
            "bad_character",
            ErrorCode::PleaseRetry,
        ),
        (
            json("MakeCall#1", r#"{"number":"5\ufffe5"}"#),
            "bad_character",
            ErrorCode::PleaseRetry,
        ),
        (
            raw("MakeCall#1", &long),
            "oversized",
            ErrorCode::PleaseRetry,
        ),
    ] {
        let fault = bad(&message);
        assert_eq!((fault.reason, fault.code), (reason, code), "{fault:?}");
    }
    let binary = RawMessage {
        body: Bytes::from_static(b"\xff\xfe"),
        ..raw("MakeCall#1", "")
    };
    assert_eq!(bad(&binary).reason, "not_utf8");
}

#[test]
fn what_has_unreadable_properties_is_no_command_whatever_else_it_says() {
    for kind in ["MakeCall#1001", "Hello#desk", "", "Dance#1"] {
        let message = RawMessage {
            unreadable: Some(Unreadable {
                detail: "property correlation_id is not UTF-8".into(),
                evidence: "02ffff".into(),
            }),
            reply_to: Some("answers".into()),
            ..raw(kind, "5551")
        };
        let fault = bad(&message);
        assert_eq!(fault.reason, UNREADABLE, "{kind}");
        assert!(fault.detail.contains("correlation_id"), "{fault:?}");
        assert!(fault.reply_to.is_some(), "it can be answered");
        // Nothing is wrong with the body of a command that is known: it can be sent again.
        let shown = redacted_body(&message) == message.body;
        assert_eq!(shown, kind == "MakeCall#1001", "{kind}");
        let login = RawMessage {
            kind: Some("Login#1001".into()),
            body: Bytes::from_static(b"s3cret,2001"),
            ..message
        };
        assert!(redacted_body(&login).starts_with(b"{\"redacted\":true"));
    }
}

#[test]
fn a_fault_keeps_what_an_answer_needs() {
    let message = RawMessage {
        message_id: Some("m-1".into()),
        correlation_id: Some("c-1".into()),
        reply_to: Some("answers".into()),
        ..raw("answercall#1001", "")
    };
    assert_eq!(
        bad(&message),
        Malformed {
            reason: "missing_argument",
            detail: "argument dialogId is missing".into(),
            agent: AgentId::new("1001").ok(),
            destination: None,
            command: Some("AnswerCall".into()),
            id: "1001".into(),
            reply_to: Some(ReplyTo::Queue("answers".into())),
            correlation_id: Some("c-1".into()),
            trace: None,
            code: ErrorCode::MissingDialogId,
            identity: Some("m-1".into()),
        }
    );
    let hello = bad(&raw("Hello#desk-1", &"x".repeat(MAX_BODY + 1)));
    assert_eq!(hello.destination, Destination::new("desk-1").ok());
    assert_eq!(hello.agent, None);
    let unknown = bad(&raw(&format!("{}#1001", "é".repeat(999)), ""));
    assert_eq!(unknown.command.map(|name| name.chars().count()), Some(200));
    assert_eq!(unknown.agent, AgentId::new("1001").ok());
    let oversized = bad(&raw("Login#1001", &"p".repeat(MAX_BODY + 1)));
    assert_eq!(oversized.command.as_deref(), Some("Login"));
}
