//! Where values come from: environment, variables, secret files.

use super::*;

#[test]
fn the_environment_wins_over_the_file() {
    let env = [
        ("TANDEM_PEER_LOST", "4s"),
        ("TANDEM_ACTIVEMQ_TIMEOUT", "7000"),
        ("TANDEM_BROKER_URL_2", "other:5673"),
        ("TANDEM_GROUP_NIGHT_QUEUES", "N2"),
        ("TANDEM_LOG_LEVEL", ""),
    ];
    let loaded = load_with(
        &format!("{LEAST}peer.lost=5s\nbroker.timeout=1s\ngroup.night.queues=N1\nlog.level=warn\n"),
        &env,
    )
    .unwrap();
    let s = &loaded.settings;
    assert_eq!(
        (s.peer.lost, s.broker.timeout),
        (Duration::from_secs(4), Duration::from_secs(7))
    );
    assert_eq!(s.broker.urls[1].label, "other:5673");
    assert_eq!(
        (s.groups[1].queues[0].as_str(), s.log.level.as_str()),
        ("N2", "warn")
    );
    assert_eq!(
        origin(&loaded, "peer.lost"),
        ("4s", "environment TANDEM_PEER_LOST")
    );
    assert_eq!(origin(&loaded, "log.level"), ("warn", "site.properties:7"));
    assert_eq!(origin(&loaded, "peer.suspect"), ("1500ms", "default"));
    let error = load_with(LEAST, &[("TANDEM_PEER_LOST", "4")])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("TANDEM_PEER_LOST = 4: a duration needs a unit"),
        "{error}"
    );
}

#[test]
fn every_plain_key_can_be_set_by_its_variable() {
    for key in SCHEMA
        .iter()
        .filter(|key| key.max_index == 0 && !key.name.contains("NAME"))
    {
        let variable = format!(
            "TANDEM_{}",
            key.name.to_uppercase().replace(['.', '-'], "_")
        );
        let result = load_with(LEAST, &[(&variable, "\u{1}")]);
        let known = match result {
            Ok(loaded) => origin(&loaded, key.name).1.contains(&variable),
            Err(findings) => findings
                .errors()
                .all(|f| f.key.as_deref() == Some(&variable)),
        };
        assert!(known, "{variable}");
    }
}

#[test]
fn variables_in_values() {
    let text = "instance.site=${SITE:-here}\nbroker.password=${PW}\n";
    let loaded = load_with(&format!("{LEAST}{text}"), &[("PW", "p@s/s")]).unwrap();
    assert_eq!(loaded.settings.instance.site, "here");
    assert!(loaded.settings.broker.urls[0].amqp.contains("p%40s%2Fs"));
    let error = one_error("broker.password=${PW}\n");
    assert!(
        error.contains("environment variable PW is not set"),
        "{error}"
    );
}

#[test]
fn a_secrets_file_is_the_same_secret_whatever_wrote_it() {
    let files = Files::new();
    let path = files.write(
        "a.properties",
        format!("{LEAST}broker.password-file=secret\n"),
    );
    let read = |bytes: &[u8]| {
        files.write("secret", bytes);
        load(&path, &|_| None)
    };
    let secret = |bytes: &[u8]| {
        let loaded = read(bytes).unwrap_or_else(|findings| panic!("{findings}"));
        let blank = |w: &&Finding| w.message.contains("begins or ends with a blank");
        let blanks = loaded.warnings.iter().filter(blank).count();
        let url = loaded.settings.broker.urls[0].amqp.clone();
        (
            url["amqp://guest:".len()..url.find('@').unwrap()].to_owned(),
            blanks,
        )
    };
    for bytes in [
        b"s3cret".as_slice(),
        b"s3cret\n",
        b"s3cret\r\n\r\n",
        b"\xef\xbb\xbfs3cret\r",
        b"\xef\xbb\xbf\xef\xbb\xbfs3cret\r\n",
    ] {
        assert_eq!(secret(bytes), ("s3cret".to_owned(), 0), "{bytes:?}");
    }
    assert_eq!(secret(b"a\r\nb\r\n"), secret(b"a\nb\n"));
    // A blank may be meant.
    assert_eq!(secret(b"s3cret \n"), ("s3cret%20".to_owned(), 1));
    assert_eq!(secret(b"\xc2\xa0s3cret"), ("%C2%A0s3cret".to_owned(), 1));
    for (bytes, words) in [
        (b"".as_slice(), "is empty"),
        (b" \r\n", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"s\xfccret", "not UTF-8"),
        (b"\xff\xfes\x003\0", "UTF-16"),
        (b"s\x003\0\n\0", "UTF-16"),
    ] {
        let said = read(bytes).unwrap_err().to_string();
        assert!(said.contains(words), "{bytes:?} {said}");
        assert!(!said.contains("s3"), "{said}");
    }
}

#[test]
fn secrets_come_from_files_and_show_nowhere() {
    let files = Files::new();
    files.write("key", format!("{KEY}\n"));
    let path = files.write("a.properties", format!("{LEAST}control.key-file=key\nbroker.password=hunter2\nadmin.token=tok-tok\ndownstream.admin-user=a\ndownstream.admin-password=adm-pw\n"));
    let loaded = load(&path, &|_| None).unwrap();
    assert_eq!(
        loaded.settings.control.key.as_ref().map(Secret::expose),
        Some(KEY)
    );
    let everything = format!("{loaded:?}");
    for secret in [KEY, "hunter2", "tok-tok", "adm-pw"] {
        assert!(!everything.contains(secret), "{secret}");
    }
    assert_eq!(
        origin(&loaded, "control.key"),
        ("[redacted]", "a.properties:4")
    );

    let both = files.write(
        "b.properties",
        format!("{LEAST}control.key-file=key\ncontrol.key=another-key-another-key-another-key\n"),
    );
    assert!(
        load(&both, &|_| None)
            .unwrap_err()
            .to_string()
            .contains("control.key-file is the same key")
    );
    let missing = files.write("c.properties", format!("{LEAST}control.key-file=none\n"));
    assert!(
        load(&missing, &|_| None)
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
    let variable = files.0.path().join("key").display().to_string();
    let env = move |name: &str| (name == "TANDEM_CONTROL_KEY_FILE").then(|| variable.clone());
    assert!(
        load(&files.write("d.properties", LEAST), &env)
            .unwrap()
            .settings
            .control
            .key
            .is_some()
    );
}
