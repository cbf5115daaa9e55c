//! What one file may not say, and what it is warned of.

use super::*;

#[test]
fn short_keys_and_lone_halves_are_refused() {
    assert!(one_error("control.key=short\n").contains("it has 5 bytes, at least 32 are needed"));
    assert!(one_error(&format!("control.previous-key={KEY}\n")).contains("control.key is missing"));
    assert!(one_error("ADMIN_ID=a\n").contains("downstream.admin-password is missing"));
    assert!(
        one_error("downstream.admin-password=a\n").contains("downstream.admin-user is missing")
    );
}

#[test]
fn contradictions_between_keys_are_errors() {
    assert!(one_error("peer.suspect=500ms\n").contains("heartbeat < suspect < lost"));
    assert!(one_error("peer.lost=1s\n").contains("peer.lost must be longer"));
    assert!(one_error("broker.reconnect-delay=10s\n").contains("below broker.reconnect-delay"));
    assert!(one_error("broker.url.2=localhost:5672\n").contains("in the list already"));
    assert!(
        one_error("broker.management-url.2=http://localhost:15672\n").contains("no broker.url.2")
    );
    assert!(
        one_error("group.night.queues=Connector1\n").contains("belongs to group agents already")
    );
    assert!(one_error("group.night.priority=5\n").contains("there is no group night"));
    assert!(one_error("command.queue=tandem.control\n").contains("this cluster's own objects"));
    assert!(one_error("broker.ca-file=none.pem\n").contains("none.pem cannot be read"));
    assert!(
        one_error("downstream.url.2=https://me:pw@h/finesse/api\n")
            .contains("credentials do not belong")
    );
    assert_eq!(good("peer.heartbeat=1s\n").warnings.len(), 1);
}

#[test]
fn required_keys_are_named_when_missing() {
    let findings = load_with("instance.id=gc-1\n", &[]).unwrap_err();
    let keys: Vec<_> = findings.errors().filter_map(|f| f.key.as_deref()).collect();
    assert_eq!(keys, ["broker.url.1", "downstream.url.1"]);
    let findings = load_with("broker.url.1=h:61616\nFinesse_1=nonsense\n", &[]).unwrap_err();
    assert_eq!(findings.errors().count(), 2, "{findings}");
}

#[test]
fn downstream_url_and_address_complete_each_other() {
    let base = "instance.id=a\nbroker.url.1=localhost\n";
    let nodes = |text: &str| {
        load_with(&format!("{base}{text}"), &[])
            .unwrap()
            .settings
            .downstream
            .nodes
    };
    let derived =
        nodes("Finesse_1=\nSERVER_ADDRESS_1=fin-1\nFinesse_2=https://fin-2:8445/finesse/api/\n");
    assert_eq!(
        derived[0],
        Node {
            url: "https://fin-1:8445/finesse/api".into(),
            address: "fin-1".into()
        }
    );
    assert_eq!(
        derived[1],
        Node {
            url: "https://fin-2:8445/finesse/api".into(),
            address: "fin-2".into()
        }
    );
    assert_eq!(
        nodes("downstream.address.1=::1\n")[0],
        Node {
            url: "https://[::1]:8445/finesse/api".into(),
            address: "::1".into()
        }
    );
    let short = nodes("downstream.url.1=http://localhost:8080\n");
    assert_eq!(short[0].url, "http://localhost:8080/finesse/api");
    let error = load_with(
        &format!("{base}downstream.kind=http\ndownstream.address.1=h\n"),
        &[],
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("downstream.url.1 must be given too"),
        "{error}"
    );
    let error = load_with(
        &format!("{base}downstream.url.2=https://h/finesse/api\n"),
        &[],
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("no primary"), "{error}");
}

#[test]
fn plain_connections_to_other_machines_are_warned_of() {
    let loaded = good(
        "broker.url.2=far:5672\ndownstream.url.2=http://far/finesse/api\nbroker.management-url.2=http://far:15672\nnotify.tls=false\nByPass_SSL=true\nadmin.listen=0.0.0.0:1\n",
    );
    let keys: Vec<_> = loaded
        .warnings
        .iter()
        .filter_map(|w| w.key.as_deref())
        .collect();
    assert_eq!(
        keys,
        [
            "broker.url.2",
            "downstream.url.2",
            "broker.management-url.2",
            "notify.tls",
            "ByPass_SSL",
            "admin.listen"
        ]
    );
    assert_eq!(
        good("broker.url.2=amqps://far\n").settings.broker.urls[1]
            .management
            .url,
        "https://far:15672"
    );
}

#[test]
fn the_addresses_of_a_cluster_are_one_broker() {
    let loaded = good("broker.url.2=amqps://far-a,far-b:5673/v\n");
    let broker = &loaded.settings.broker.urls[1];
    assert_eq!(broker.label, "far-a:5671,far-b:5673");
    assert_eq!(
        broker.management.url,
        "https://far-a:15672,https://far-b:15672"
    );
    let given = "broker.url.2=amqps://far-a,far-b\nbroker.management-url.2=https://me:pw@far-a:15671,far-b:15671\n";
    let management = good(given).settings.broker.urls[1].management.clone();
    assert_eq!(management.url, "https://far-a:15671,https://far-b:15671");
    assert_eq!(management.username, "me");
    let twice = one_error("broker.url.2=far:1,far:2\nbroker.url.3=other,far:2\n");
    assert!(
        twice.contains("broker.url.3") && twice.contains("far:2 is in the list"),
        "{twice}"
    );
    let wrong = one_error("broker.url.2=amqp://me:secret@far:1,far:x\n");
    assert!(wrong.contains("address 2 of 2, far:x"), "{wrong}");
    assert!(!wrong.contains("secret"), "{wrong}");
}

#[test]
fn links_that_judge_nobody_are_warned_of() {
    let warned = |more: &str| {
        let all = good(more).warnings;
        let all = all.iter().map(ToString::to_string);
        all.filter(|said| said.contains("name no file of authorities"))
            .collect::<Vec<_>>()
    };
    let two = "broker.url.2=amqps://127.0.0.2\n";
    let said = warned(two);
    assert_eq!(said.len(), 1, "{said:?}");
    for part in ["broker.url.2", "4.0 does not connect", "federation.ca-file"] {
        assert!(said[0].contains(part), "{part}: {said:?}");
    }
    let judged = format!("{two}federation.ca-file=/etc/rabbitmq/ca.pem\n");
    assert_eq!(warned(&judged), [""; 0]);
    // No links, or none of TLS.
    for none in ["", "broker.url.2=127.0.0.2\n"] {
        assert_eq!(warned(none), [""; 0]);
    }
}

#[test]
fn brokers_with_one_management_api_are_warned_of() {
    let second = |more: &str| {
        good(&format!("broker.url.2=localhost:5673\n{more}"))
            .warnings
            .iter()
            .filter_map(|w| w.key.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(second(""), ["broker.management-url.2"]);
    let own = "broker.management-url.2=http://localhost:15673\n";
    assert_eq!(second(own), Vec::<String>::new());
}

#[test]
fn generic_http_downstream() {
    let loaded =
        good("downstream.kind=http\ndownstream.allow.2=POST /b\ndownstream.allow.1=GET /a\n");
    let rules: Vec<_> = loaded
        .settings
        .downstream
        .allow
        .iter()
        .map(|r| (r.method.as_str(), r.path_prefix.as_str()))
        .collect();
    assert_eq!(rules, [("GET", "/a"), ("POST", "/b")]);
    assert_eq!(
        good("downstream.kind=http\n").warnings[0].key.as_deref(),
        Some("downstream.allow.1")
    );
}

#[test]
fn unreadable_files_are_one_clear_error() {
    let files = Files::new();
    let missing = load(&files.0.path().join("none"), &|_| None)
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("the file cannot be read") && !missing.contains('\n'),
        "{missing}"
    );
    let folder = load(files.0.path(), &|_| None).unwrap_err().to_string();
    assert!(folder.contains("folder"), "{folder}");
    let latin = load(&files.write("l", b"instance.site=Z\xfcrich\n"), &|_| None)
        .unwrap_err()
        .to_string();
    assert!(
        latin.contains("not UTF-8") && latin.contains(":1:"),
        "{latin}"
    );
}

#[test]
fn defaults_and_examples_do_not_go_into_production_unseen() {
    let said = |text: &str| -> Vec<String> {
        let loaded = load_with(&format!("instance.id=gc-1\n{text}"), &[]);
        let loaded = loaded.unwrap_or_else(|e| panic!("{e}"));
        let warnings = loaded.warnings.iter();
        let of_login = |w: &&Finding| !w.message.starts_with("plain ");
        warnings
            .filter(of_login)
            .map(|w| format!("{}: {}", w.key.clone().unwrap_or_default(), w.message))
            .collect()
    };
    let node = "downstream.url.1=https://finesse/finesse/api\n";
    let far = format!(
        "broker.url.1=amqps://far\nbroker.url.2=amqps://farther\nfederation.ca-file=/etc/rabbitmq/ca.pem\n{node}"
    );
    for (text, wanted) in [
        (far.clone(), vec!["broker.username: guest is the default"]),
        (
            format!("{far}broker.username=tandem\n"),
            vec!["broker.username: the password of user tandem is guest's, the default"],
        ),
        (
            format!("{far}broker.username=tandem\nbroker.password=tandem\n"),
            vec!["broker.username: the password of user tandem is its name"],
        ),
        (
            format!("{far}broker.username=tandem\nbroker.password=change-me\n"),
            vec!["broker.username: the password of user tandem is an example's"],
        ),
        (
            format!("{far}broker.username=tandem\nbroker.password=9d1f6a0b7be8\n"),
            vec![],
        ),
        (
            format!("broker.url.1=amqp://ops:ops@localhost\n{node}"),
            vec!["broker.url.1: the password of user ops is its name"],
        ),
        (format!("broker.url.1=localhost\n{node}"), vec![]),
        (
            format!("broker.url.1=localhost\n{node}broker.username=tandem\n"),
            vec!["broker.username: the password of user tandem is guest's, the default"],
        ),
        (
            format!(
                "broker.url.1=localhost\n{node}control.key=change-me-change-me-change-me-change-me\n"
            ),
            vec!["control.key: it can be guessed"],
        ),
        (
            format!("broker.url.1=localhost\n{node}admin.token=s3cret\n"),
            vec!["admin.token: it can be guessed"],
        ),
        (
            format!(
                "broker.url.1=localhost\n{node}rest.listen=127.0.0.1:8112\nrest.token=my-secret-token\n"
            ),
            vec!["rest.token: it can be guessed"],
        ),
    ] {
        let said = said(&text);
        assert_eq!(said.len(), wanted.len(), "{text}\n{said:#?}");
        for (said, wanted) in said.iter().zip(&wanted) {
            assert!(said.starts_with(wanted), "{text}\n{said}");
            assert!(
                !said.contains("change-me") && !said.contains("s3cret"),
                "{said}"
            );
        }
    }
}
