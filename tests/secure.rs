//! A broker that lets in only who shows a certificate of its authority: AMQP, management API,
//! the command line; and what is said where a certificate is not believed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use support::certs::{Kind, Made, Maker};
use support::site::{downstream, tandem, tandem_until};
use support::{Site, run, wait_for};
use tandem::lab::{RabbitNode, RabbitOptions, ServerTls};
use tandem::simulator::Running;
use tandem::simulator::config::TlsConfig;

const AUTHORITY: Kind = Kind {
    authority: true,
    expired: false,
};
const EXPIRED: Kind = Kind {
    authority: false,
    expired: true,
};

/// A broker that demands certificates, and the user that one of them is.
struct Bench {
    maker: Maker,
    authority: Made,
    own: Made,
    node: RabbitNode,
}

impl Bench {
    async fn start() -> Self {
        let maker = Maker::new();
        let authority = maker.make(&["Site CA"], AUTHORITY, None);
        let server = maker.make(&["localhost"], Kind::default(), Some(&authority));
        let own = maker.make(&["tandem-gc"], Kind::default(), Some(&authority));
        let tls = ServerTls {
            ca_file: authority.certificate.clone(),
            certificate_file: server.certificate.clone(),
            private_key_file: server.key.clone(),
            demand: true,
        };
        let options = RabbitOptions {
            tls: Some(tls),
            ..RabbitOptions::named("secure")
        };
        let node = RabbitNode::start(options).await.unwrap();
        let api = node.management().unwrap();
        let user = json!({"password": "pw", "tags": "administrator"});
        api.put("users/tandem-gc", &user).await.unwrap();
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        api.put("permissions/%2f/tandem-gc", &all).await.unwrap();
        Self {
            maker,
            authority,
            own,
            node,
        }
    }

    fn amqps(&self, login: &str) -> String {
        format!("amqps://{login}localhost:{}", self.node.amqps_port())
    }

    /// Keys of a site whose certificate is its login.
    fn keys(&self, downstream: &Running) -> Vec<(&'static str, String)> {
        let management = self.node.secure_management_port();
        let node = &downstream.nodes[0];
        vec![
            ("broker.url.1", self.amqps("")),
            (
                "broker.management-url.1",
                format!("https://tandem-gc:pw@localhost:{management}"),
            ),
            (
                "broker.ca-file",
                self.authority.certificate.display().to_string(),
            ),
            (
                "broker.certificate-file",
                self.own.certificate.display().to_string(),
            ),
            (
                "broker.private-key-file",
                self.own.key.display().to_string(),
            ),
            (
                "downstream.url.1",
                format!("http://{}/finesse/api", node.rest),
            ),
            ("downstream.address.1", "localhost".to_owned()),
            ("notify.port", node.xmpp.port().to_string()),
        ]
    }

    /// What `tandem send` says that cannot connect.
    async fn refused(&self, broker: &str, options: &[&str]) -> String {
        let words = ["send", "Hello#desk", "--timeout", "3s", "--broker", broker];
        let (code, text) = tandem(&[&words, options].concat()).await;
        println!("{broker}: {text}");
        assert!(code == 69 || code == 1, "{code}: {text}");
        text
    }
}

fn path(of: &std::path::Path) -> String {
    of.display().to_string()
}

#[test]
fn an_instance_with_its_certificate_serves_where_nobody_else_gets_in() {
    run(async |_| {
        let bench = Bench::start().await;
        // As `openssl req -x509` makes it: an authority's, trusted because it is in the file.
        let notify = bench.maker.make(&["localhost"], AUTHORITY, None);
        let tls = TlsConfig {
            cert: notify.certificate.clone(),
            key: notify.key.clone(),
            direct: true,
        };
        let simulator = downstream(IpAddr::V4(Ipv4Addr::LOCALHOST), Some(tls)).await;
        let mut keys = bench.keys(&simulator);
        keys.push(("notify.tls", "true".to_owned()));
        keys.push(("notify.ca-file", path(&notify.certificate)));
        let mut site = Site::new("gc-1", &keys);
        let config = path(&site.config);
        let (code, text) = tandem(&["check", &config]).await;
        assert_eq!(code, 0, "{text}");
        let (code, text) = tandem(&["topology", "apply", "--config", &config]).await;
        assert_eq!(code, 0, "{text}");
        site.start();
        site.becomes("leader").await;
        logged_in_by_certificate(&bench).await;

        let connect = ["send", "Connect#1001", "desk,pw-1001", "--config", &config];
        tandem_until(0, &connect).await;
        let login = ["send", "Login#1001", "pw-1001,7001", "--config", &config];
        tandem_until(0, &login).await;
        // The notification service's certificate is believed: the agent has its session.
        wait_for("a subscription", async || {
            let status = site.status().await;
            (status["sessions"]["subscribed"] == 1).then_some(())
        })
        .await;
        let (authority, own, key) = (
            path(&bench.authority.certificate),
            path(&bench.own.certificate),
            path(&bench.own.key),
        );
        let broker = bench.amqps("");
        let (code, text) = tandem(&[
            "send",
            "GetState#1001",
            "--broker",
            &broker,
            "--ca-file",
            &authority,
            "--certificate-file",
            &own,
            "--private-key-file",
            &key,
        ])
        .await;
        assert_eq!(code, 0, "{text}");
        let text = tandem_until(0, &["doctor", "--config", &config]).await;
        assert!(text.contains("its certificate trusted"), "{text}");
    });
}

/// Both connections of the instance, as the broker lists them.
async fn logged_in_by_certificate(bench: &Bench) {
    let api = bench.node.management().unwrap();
    let seen = wait_for("the broker's list of connections", async || {
        let list = api.get("connections").await.ok().flatten()?;
        let list: Vec<Value> = list.as_array()?.clone();
        (list.len() >= 2).then_some(list)
    })
    .await;
    for connection in seen {
        assert_eq!(connection["user"], "tandem-gc", "{connection}");
        assert_eq!(connection["auth_mechanism"], "EXTERNAL", "{connection}");
        assert_eq!(connection["ssl"], true, "{connection}");
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_said() {
    run(async |_| {
        let bench = Bench::start().await;
        let authority = path(&bench.authority.certificate);
        let login = bench.amqps("tandem-gc:pw@");
        let ca = ["--ca-file", &authority];
        let text = bench.refused(&login, &[]).await;
        assert!(
            text.contains("CN=localhost was issued by CN=Site CA"),
            "{text}"
        );
        assert!(text.contains("--ca-file"), "{text}");
        let text = bench.refused(&login, &ca).await;
        assert!(
            text.contains("demand") && text.contains("--certificate-file"),
            "{text}"
        );
        let by_address = login.replace("localhost", "127.0.0.1");
        let text = bench.refused(&by_address, &ca).await;
        assert!(
            text.contains("is not for 127.0.0.1, but for localhost"),
            "{text}"
        );

        let stranger = bench.maker.make(&["Other CA"], AUTHORITY, None);
        let foreign = bench
            .maker
            .make(&["tandem-gc"], Kind::default(), Some(&stranger));
        let old = bench
            .maker
            .make(&["tandem-gc"], EXPIRED, Some(&bench.authority));
        for made in [foreign, old] {
            let (own, key) = (path(&made.certificate), path(&made.key));
            let shown = ["--certificate-file", &own, "--private-key-file", &key];
            let text = bench
                .refused(&bench.amqps(""), &[&ca[..], &shown[..]].concat())
                .await;
            assert!(text.contains("our certificate CN=tandem-gc"), "{text}");
        }
        // A certificate of the right authority, and nobody's.
        let nobody = bench
            .maker
            .make(&["nobody"], Kind::default(), Some(&bench.authority));
        let (own, key) = (path(&nobody.certificate), path(&nobody.key));
        let shown = ["--certificate-file", &own, "--private-key-file", &key];
        let text = bench
            .refused(&bench.amqps(""), &[&ca[..], &shown[..]].concat())
            .await;
        assert!(text.contains("ACCESS_REFUSED"), "{text}");

        // A file of authorities adds to the system's, which is what the variable stands for here.
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tandem"));
        let other = path(&stranger.certificate);
        let (own, key) = (path(&bench.own.certificate), path(&bench.own.key));
        command
            .env("SSL_CERT_FILE", &authority)
            .args(["send", "Hello#desk", "--timeout", "3s"])
            .args(["--broker", &bench.amqps(""), "--ca-file", &other])
            .args(["--certificate-file", &own, "--private-key-file", &key]);
        let output = command.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("NOT_FOUND - no queue"), "{text}");

        let plain = format!("amqps://localhost:{}", bench.node.amqp_port());
        let text = bench.refused(&plain, &ca).await;
        assert!(text.contains("does not speak TLS"), "{text}");
        let secure = format!("amqp://localhost:{}", bench.node.amqps_port());
        let text = bench.refused(&secure, &[]).await;
        assert!(
            text.contains("speaks TLS") && text.contains("amqps://"),
            "{text}"
        );
    });
}
