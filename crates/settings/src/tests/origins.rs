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
fn a_group_may_be_given_in_the_environment_alone_and_in_part() {
    let groups = |text: &str, env: &[(&str, &str)]| {
        let loaded = load_with(&format!("{LEAST}{text}"), env);
        let loaded = loaded.unwrap_or_else(|findings| panic!("{findings}"));
        let groups = loaded.settings.groups.into_iter().skip(1);
        let of = |group: Group| (group.name, group.queues.concat(), group.priority);
        groups.map(of).collect::<Vec<_>>()
    };
    let named = |name: &str, queue: &str, priority| (name.to_owned(), queue.to_owned(), priority);
    let priority = ("TANDEM_GROUP_SALES_PRIORITY", "50");
    let queues = ("TANDEM_GROUP_SALES_QUEUES", "S");
    let in_file = "group.sales.queues=F\n";
    for (text, env, wanted) in [
        (in_file, vec![priority], named("sales", "F", Some(50))),
        ("", vec![queues], named("sales", "S", None)),
        ("", vec![queues, priority], named("sales", "S", Some(50))),
        (
            "group.sales.priority=9\n",
            vec![queues],
            named("sales", "S", Some(9)),
        ),
        // Its name in the file cannot be used, and is named there all the same.
        (
            "group.sales.queues=a,,b\n",
            vec![queues],
            named("sales", "S", None),
        ),
        (
            "",
            vec![("TANDEM_GROUP_NIGHT_SHIFT_2_QUEUES", "N")],
            named("night-shift-2", "N", None),
        ),
    ] {
        assert_eq!(groups(text, &env), [wanted], "{text}{env:?}");
    }
    let said = load_with(LEAST, &[priority]).unwrap_err().to_string();
    assert!(said.contains("there is no group sales"), "{said}");
    assert_eq!(groups("", &[("TANDEM_GROUP_AGENTS_QUEUES", "S")]), []);
    assert_eq!(groups("", &[("TANDEM_GROUP_SALES_QUEUES", "")]), []);
}

#[test]
fn what_is_wrong_in_the_file_is_no_error_where_a_variable_wins() {
    let password = ("TANDEM_BROKER_PASSWORD", "s3cret");
    let key = ("TANDEM_CONTROL_KEY", KEY);
    for (text, variable, words) in [
        ("broker.password=${PW}", password, "PW is not set"),
        (
            "broker.password-file=/missing/pw",
            password,
            "cannot be read",
        ),
        (
            "broker.password=a\nbroker.password=b",
            password,
            "already given",
        ),
        ("control.key-file=/missing/key", key, "cannot be read"),
        ("control.key=short", key, "32 bytes"),
        ("peer.lost=4", ("TANDEM_PEER_LOST", "4s"), "needs a unit"),
        (
            "broker.url.2=/",
            ("TANDEM_BROKER_URL_2", "b2"),
            "broker.url.2",
        ),
        (
            "ActiveMq_Timeout=x",
            ("TANDEM_BROKER_TIMEOUT", "4s"),
            "not a value",
        ),
    ] {
        let text = format!("{LEAST}{text}\n");
        let loaded = load_with(&text, &[variable]);
        let loaded = loaded.unwrap_or_else(|findings| panic!("{text}{findings}"));
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        let wins = format!("not used: {} wins", variable.0);
        let told = |said: &&String| said.contains(words) && said.contains(&wins);
        assert_eq!(warnings.iter().filter(told).count(), 1, "{warnings:#?}");
        assert!(!format!("{warnings:?}").contains("s3cret"));
        // Not where it has nothing to say, or is wrong as well.
        let empty = load_with(&text, &[(variable.0, " ")]).unwrap_err();
        assert!(empty.to_string().contains(words), "{empty}");
    }
    let bad = [("TANDEM_PEER_LOST", "5")];
    let both = load_with(&format!("{LEAST}peer.lost=4\n"), &bad).unwrap_err();
    assert_eq!(both.errors().count(), 2, "{both}");
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
