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

#[test]
fn what_is_set_for_an_entrance_that_is_not_there_is_told() {
    let told = |text: &str| -> Vec<String> {
        let loaded = good(text);
        let unused = |w: &&Finding| w.message.contains("it is not used");
        let all = loaded.warnings.iter().filter(unused);
        all.map(|warning| warning.to_string()).collect()
    };
    let callback = "rest.callback.sign-key=f3a9c1d27b604e8895d1f3a9c1d27b604e8895d1\n";
    let without = told(&format!(
        "{TOKEN}{callback}rest.callback.allow.1=https://crm.example/\n"
    ));
    assert_eq!(without.len(), 3, "{without:?}");
    assert!(
        without.iter().all(|text| text.contains("rest.listen")),
        "{without:?}"
    );
    let listen = "rest.listen=127.0.0.1:8112\n";
    let nowhere = told(&format!("{listen}{callback}rest.callback.timeout=3s\n"));
    assert_eq!(nowhere.len(), 2, "{nowhere:?}");
    assert!(nowhere[0].contains("rest.callback.allow.1"), "{nowhere:?}");
    // Switched off by its own key, or by the original's names: that is meant.
    for text in [
        format!("rest.enabled=false\n{TOKEN}{callback}"),
        format!("{listen}FRONT_END_EVENT_SEND_REST_API=https://crm.example/\n{callback}"),
        "AOP_CALLBACK=/events\n".to_owned(),
    ] {
        assert_eq!(told(&text), [""; 0], "{text}");
    }
    let error = one_error(&format!("{listen}rest.callback.allow.1=crm\n{callback}"));
    assert!(!error.contains("not used"), "{error}");
}

#[test]
fn two_listeners_at_one_address_are_refused() {
    for (rest, admin) in [
        ("127.0.0.1:9601", "127.0.0.1:9601"),
        ("0.0.0.0:8112", "127.0.0.1:8112"),
        ("127.0.0.1:8112", "0.0.0.0:8112"),
    ] {
        let text = format!("{TOKEN}rest.listen={rest}\nadmin.listen={admin}\n");
        let error = one_error(&text);
        assert!(
            error.contains("rest.listen") && error.contains(admin),
            "{error}"
        );
    }
    for admin in ["127.0.0.2:8112", "127.0.0.1:8113"] {
        good(&format!(
            "{TOKEN}rest.listen=127.0.0.1:8112\nadmin.listen={admin}\n"
        ));
    }
    // Any free port.
    good(&format!(
        "{TOKEN}rest.listen=127.0.0.1:0\nadmin.listen=127.0.0.1:0\n"
    ));
}

#[test]
fn an_admin_token_that_nobody_can_send_is_told() {
    for token in ["gehäim-f3a9c1d27b604e8895d1", "f3a9 c1d27b604e8895d1"] {
        let loaded = good(&format!("admin.token={token}\n"));
        let told = loaded.warnings.iter().map(ToString::to_string);
        let told: Vec<String> = told
            .filter(|text| text.contains("nobody can send it"))
            .collect();
        assert_eq!(told.len(), 1, "{token}");
        assert!(
            told[0].contains("admin.token") && !told[0].contains(token),
            "{told:?}"
        );
    }
}
