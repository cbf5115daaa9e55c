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
