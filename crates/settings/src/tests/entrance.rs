//! The HTTP entrance: where it listens.

use super::*;

const TOKEN: &str = "rest.token=f3a9c1d27b604e8895d1\n";

#[test]
fn the_originals_entrance_without_a_token_is_this_machines_only() {
    let enabled = "COMMUNICATION_FORMAT=REST\n";
    for (text, env, listen) in [
        ("SPRING_PORT=8113\n", vec![], "127.0.0.1:8113"),
        (enabled, vec![], "127.0.0.1:8112"),
        (
            "COMMUNICATION_FORMAT=rest\nspring_port=8113\n",
            vec![],
            "127.0.0.1:8113",
        ),
        (
            "SPRING_PORT=8113\nrest.enabled=true\n",
            vec![],
            "127.0.0.1:8113",
        ),
        ("", vec![("TANDEM_SPRING_PORT", "8113")], "127.0.0.1:8113"),
    ] {
        let loaded = load_with(&format!("{LEAST}{text}"), &env).unwrap();
        let rest = loaded.settings.rest.clone().unwrap();
        assert_eq!(rest.listen.to_string(), listen, "{text}");
        assert_eq!(origin(&loaded, "rest.listen"), (listen, "derived"));
        let told = |w: &&Finding| w.message.contains("listens on this machine only");
        assert_eq!(loaded.warnings.iter().filter(told).count(), 1, "{text}");
        // With a token, or where somebody else asks for one, to everybody.
        for more in [TOKEN, "rest.open=true\n"] {
            let loaded = load_with(&format!("{LEAST}{text}{more}"), &env).unwrap();
            let all = listen.replace("127.0.0.1", "0.0.0.0");
            assert_eq!(loaded.settings.rest.unwrap().listen.to_string(), all);
        }
    }
    let own = good(&format!("{enabled}rest.listen=127.0.0.1:9000\n"));
    assert_eq!(own.settings.rest.unwrap().listen.port(), 9000);
    // What is written with this product's own names is meant.
    for text in [
        "rest.enabled=true\n",
        "rest.listen=0.0.0.0:8112\nCOMMUNICATION_FORMAT=REST\n",
    ] {
        let error = one_error(text);
        assert!(error.contains("anybody could send commands"), "{error}");
    }
}

#[test]
fn a_token_that_cannot_stand_in_a_header_is_refused() {
    let listen = "rest.listen=127.0.0.1:8112\n";
    let allow = "rest.callback.allow.1=https://crm.example/\n";
    for key in ["rest.token", "rest.callback.token"] {
        for token in ["gehäim-f3a9c1d27b604e8895d1", "f3a9c1d27b60\u{7f}4e8895d1"] {
            let error = one_error(&format!("{listen}{allow}{key}={token}\n"));
            assert!(error.contains(key) && error.contains("header"), "{error}");
            assert!(!error.contains(token), "{error}");
        }
        good(&format!("{listen}{allow}{key}=f3a9 c1d2~7b604e8895d1\n"));
    }
}
