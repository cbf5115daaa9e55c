//! Files of certificates and keys, and who a certificate makes of an instance.

use super::*;
use tandem_test_kit::certs::{Kind, Maker, text};

const AUTHORITY: Kind = Kind {
    authority: true,
    expired: false,
};

/// `key=path` lines.
fn lines(all: &[(&str, &Path)]) -> String {
    let line = |(key, path): &(&str, &Path)| format!("{key}={}\n", path.display());
    all.iter().map(line).collect()
}

#[test]
fn every_ca_file_is_looked_into() {
    let maker = Maker::new();
    let authority = maker.make(&["Site CA"], AUTHORITY, None);
    let empty = maker.file("empty.pem", "nothing here\n");
    for key in ["broker.ca-file", "downstream.ca-file", "notify.ca-file"] {
        let message = one_error(&lines(&[(key, &empty)]));
        assert!(message.contains(key), "{message}");
        assert!(
            message.contains("empty.pem") && message.contains("no certificate"),
            "{message}"
        );
        let marked = format!("\u{feff}{}", text(&authority.certificate));
        let marked = maker.file("marked.pem", marked);
        good(&lines(&[(key, &marked)]));
    }
}

#[test]
fn a_certificate_comes_with_its_key() {
    let maker = Maker::new();
    let own = maker.make(&["tandem"], Kind::default(), None);
    let other = maker.make(&["other"], Kind::default(), None);
    for scope in ["broker", "downstream"] {
        let (certificate, key) = (
            format!("{scope}.certificate-file"),
            format!("{scope}.private-key-file"),
        );
        let message = one_error(&lines(&[(&certificate, &own.certificate)]));
        assert!(message.contains(&format!("{key} is missing")), "{message}");
        let message = one_error(&lines(&[(&key, &own.key)]));
        assert!(
            message.contains(&format!("{certificate} is missing")),
            "{message}"
        );
        let pair = [(&*certificate, &*own.certificate), (&*key, &*other.key)];
        let message = one_error(&lines(&pair));
        assert!(
            message.contains("does not belong to CN=tandem"),
            "{message}"
        );
        let good = good(&lines(&[
            (&certificate, &own.certificate),
            (&key, &own.key),
        ]));
        let settings = good.settings;
        let tls = match scope {
            "broker" => [settings.broker.tls.clone(), settings.broker.tls],
            _ => [settings.downstream.tls, settings.notify.tls_client],
        };
        assert!(tls.iter().all(tandem_net::TlsClient::has_certificate));
        assert_eq!(good.warnings, []);
    }
    let text = format!(
        "broker.certificate-file={}\nbroker.private-key-file=none.key\n",
        own.certificate.display()
    );
    assert!(one_error(&text).contains("none.key cannot be read"));
}

#[test]
fn the_entrance_off_loopback_wants_a_certificate_or_is_warned_of() {
    let maker = Maker::new();
    let own = maker.make(&["tandem"], Kind::default(), None);
    let base = "rest.listen=0.0.0.0:8112\nrest.token=f3a9c1d27b604e8895d1\n";
    let plain = good(base);
    assert!(plain.settings.rest.unwrap().tls.is_none());
    let warnings = plain.warnings.iter().map(ToString::to_string);
    let warned = warnings.collect::<Vec<_>>().join("\n");
    assert!(warned.contains("set rest.certificate-file"), "{warned}");
    let certificate = ("rest.certificate-file", &*own.certificate);
    let key = ("rest.private-key-file", &*own.key);
    let secure = good(&format!("{base}{}", lines(&[certificate, key])));
    assert!(secure.settings.rest.unwrap().tls.is_some());
    assert_eq!(secure.warnings, []);
    let message = one_error(&format!("{base}{}", lines(&[certificate])));
    assert!(
        message.contains("rest.private-key-file is missing"),
        "{message}"
    );
}

#[test]
fn a_certificate_that_has_expired_is_warned_of() {
    let maker = Maker::new();
    let old = Kind {
        expired: true,
        ..AUTHORITY
    };
    let old = maker.make(&["Old CA"], old, None);
    let loaded = good(&lines(&[("broker.ca-file", &old.certificate)]));
    let [warning] = &loaded.warnings[..] else {
        panic!("{:?}", loaded.warnings);
    };
    let message = warning.to_string();
    assert!(
        message.contains("CN=Old CA in it expired on 2021-01-01"),
        "{message}"
    );
}

#[test]
fn a_certificate_is_the_login_where_nobody_else_is_named() {
    let maker = Maker::new();
    let own = maker.make(&["tandem"], Kind::default(), None);
    let pair = lines(&[
        ("broker.certificate-file", &own.certificate),
        ("broker.private-key-file", &own.key),
    ]);
    let url = |text: &str| {
        let text = format!("{pair}{text}");
        let least = LEAST.replace("broker.url.1=localhost\n", "");
        let loaded = load_with(&format!("{least}{text}"), &[]).unwrap_or_else(|e| panic!("{e}"));
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        (loaded.settings.broker.urls[0].amqp.clone(), warnings)
    };
    let (amqp, warnings) = url("broker.url.1=amqps://localhost/v\n");
    assert_eq!(amqp, "amqps://localhost:5671/v?auth_mechanism=external");
    assert_eq!(warnings, [""; 0]);
    for named in [
        "broker.url.1=amqps://me:pw@localhost\n",
        "broker.url.1=amqps://localhost\nbroker.username=me\n",
        // A plain connection shows no certificate.
        "broker.url.1=amqp://localhost\n",
    ] {
        let (amqp, _) = url(named);
        assert!(
            !amqp.contains("external") && amqp.contains('@'),
            "{named}{amqp}"
        );
    }
    let (_, warnings) = url("broker.url.1=amqps://far.example\n");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("management API does not take"),
        "{warnings:?}"
    );
    let login = "broker.management-url.1=https://me:pw@far.example:15671\n";
    let (_, warnings) = url(&format!("broker.url.1=amqps://far.example\n{login}"));
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn derived_addresses_keep_their_brackets() {
    let text = "instance.id=gc-1\nbroker.url.1=[::1]:5673\ndownstream.address.1=[::1]\n\
        downstream.url.2=https://[fd00::2]:8445/finesse/api\n";
    let settings = load_with(text, &[]).unwrap().settings;
    let broker = &settings.broker.urls[0];
    assert_eq!(broker.label, "[::1]:5673");
    assert_eq!(broker.management.url, "http://[::1]:15672");
    let nodes = &settings.downstream.nodes;
    assert_eq!(nodes[0].url, "https://[::1]:8445/finesse/api");
    assert_eq!(nodes[0].address, "::1");
    assert_eq!(nodes[1].address, "fd00::2");
    for zoned in [
        "broker.url.2=[fe80::1%eth0]:5672\n",
        "broker.management-url.1=http://[fe80::1%25eth0]:15672\n",
        "downstream.address.1=fe80::1%eth0\n",
        "downstream.url.2=https://[fe80::1%eth0]/x\n",
    ] {
        let message = one_error(zoned);
        assert!(message.contains("link-local"), "{zoned}{message}");
    }
}
