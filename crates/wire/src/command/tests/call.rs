//! Commands to a generic HTTP downstream.

use super::*;

const GET: &str = r#"{"method":"GET","path":"/v1/items"}"#;

#[test]
fn a_key_is_any_text_without_control_characters() {
    let long = "k".repeat(255);
    for key in [
        "1001", "order:42", "cust/7", "a b", "\u{fc}", "a#b,c|*", "..", &long,
    ] {
        let command = ok(&raw(&format!("Call# {key} "), GET));
        assert_eq!(command.addressee.as_str(), key);
        assert!(matches!(command.addressee, Addressed::Agent(_)), "{key}");
        let enveloped = format!(r#"{{"type":"Call#{key}","body":{GET}}}"#);
        assert_eq!(ok(&raw("", &enveloped)).addressee.as_str(), key);
    }
    let rule = "key must be 1 to 255 bytes without control characters";
    for key in [
        "",
        "a\u{7}b",
        "a\u{85}b",
        &"\u{fc}".repeat(128),
        &"k".repeat(256),
    ] {
        let refused = bad(&raw(&format!("Call#{key}"), GET));
        assert_eq!(
            (refused.reason, refused.detail.as_str()),
            ("bad_id", rule),
            "{key}"
        );
        assert_eq!(refused.agent, None);
    }
    // A key whose arguments are wrong is still the command's address.
    let refused = bad(&raw("Call#order:42", "{}"));
    assert_eq!(refused.agent.map(String::from).as_deref(), Some("order:42"));
    // All other commands are for agents.
    let refused = bad(&raw("GetState#order:42", ""));
    assert!(
        refused.detail.starts_with("agent id must be"),
        "{}",
        refused.detail
    );
}

const DIGITS: &str = r#"{"z":12345678901234567890123,"a":1.10, "e":1e2}"#;

fn post(body: &str) -> String {
    format!(r#"{{"method":"POST","path":"/x","query":{{"v":1.10,"a":1}},"body":{body}}}"#)
}

#[test]
fn a_body_keeps_its_digits_and_order_in_every_form() {
    let object = post(DIGITS);
    let text = serde_json::Value::from(object.as_str()).to_string();
    for message in [
        raw("Call#k", &object),
        json("Call#k", &object),
        raw("", &format!(r#"{{"type":"Call#k","body":{object}}}"#)),
        raw(
            "",
            &format!(r#"{{"data":{{"body":{object},"type":"Call#k"}}}}"#),
        ),
        raw("", &format!(r#"{{"type":"Call#k","body":{text}}}"#)),
    ] {
        let command = ok(&message);
        let request = http_call::parse(&command.args).unwrap();
        assert_eq!(request.body, DIGITS, "{message:?}");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(request.query, [pair("v", "1.10"), pair("a", "1")]);
    }
}

#[test]
fn the_hash_is_of_what_is_said_and_not_of_how() {
    let hash = |body: &str| ok(&raw("Call#k", &post(body))).body_hash;
    let written_otherwise = r#"{"a":1.10,"e":1e2,"z":12345678901234567890123}"#;
    assert_eq!(hash(DIGITS), hash(written_otherwise));
    let other = written_otherwise.replace("123}", "124}");
    assert_ne!(hash(DIGITS), hash(&other), "digits that no double holds");
}
