//! Brokers that talk to each other over amqps only: each judges the other's certificate and shows
//! its own; what `tandem topology` and `tandem doctor` say where that cannot work.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::certs::{Kind, Made, Maker};
use support::site::{downstream, tandem, tandem_until};
use support::{Site, run, wait_for};
use tandem::broker::topology::{self, Topology, TopologyInput};
use tandem::lab::rabbit::{SERVER_VARIABLE, installed_server};
use tandem::lab::{RabbitNode, RabbitOptions, ServerTls};
use tandem::simulator::Running;

const AUTHORITY: Kind = Kind {
    authority: true,
    expired: false,
};

/// Two brokers that demand certificates of this authority.
struct Bench {
    maker: Maker,
    authority: Made,
    own: Made,
    nodes: [RabbitNode; 2],
    versions: Vec<String>,
}

impl Bench {
    /// The second one is of this server script.
    async fn start(second: Option<PathBuf>) -> Self {
        let maker = Maker::new();
        let authority = maker.make(&["Site CA"], AUTHORITY, None);
        let server = maker.make(&["localhost"], Kind::default(), Some(&authority));
        let own = maker.make(&["broker"], Kind::default(), Some(&authority));
        let options = |name: &str, script: Option<PathBuf>| RabbitOptions {
            tls: Some(ServerTls {
                ca_file: authority.certificate.clone(),
                certificate_file: server.certificate.clone(),
                private_key_file: server.key.clone(),
                demand: true,
            }),
            server: script,
            ..RabbitOptions::named(name)
        };
        let (one, two) = tokio::join!(
            RabbitNode::start(options("site-1", None)),
            RabbitNode::start(options("site-2", second)),
        );
        let nodes = [one.unwrap(), two.unwrap()];
        let mut versions = Vec::new();
        for node in &nodes {
            let overview = node.management().unwrap().get("overview").await;
            let overview = overview.unwrap().unwrap();
            versions.push(overview["rabbitmq_version"].as_str().unwrap().to_owned());
        }
        println!("RabbitMQ {versions:?}");
        Self {
            maker,
            authority,
            own,
            nodes,
            versions,
        }
    }

    fn uri(&self, at: usize) -> String {
        format!(
            "amqps://guest:guest@localhost:{}",
            self.nodes[at].amqps_port()
        )
    }

    /// Keys of a site at home at broker 1; the federation's files as given.
    fn keys(
        &self,
        simulator: &Running,
        federation: &[(&'static str, &Path)],
    ) -> Vec<(&'static str, String)> {
        let node = &simulator.nodes[0];
        let mut keys = vec![
            ("broker.url.1", self.uri(0)),
            ("broker.url.2", self.uri(1)),
            ("broker.management-url.1", self.nodes[0].management_url()),
            ("broker.management-url.2", self.nodes[1].management_url()),
            ("broker.ca-file", text(&self.authority.certificate)),
            ("broker.certificate-file", text(&self.own.certificate)),
            ("broker.private-key-file", text(&self.own.key)),
            (
                "downstream.url.1",
                format!("http://{}/finesse/api", node.rest),
            ),
            ("downstream.address.1", "localhost".to_owned()),
            ("notify.port", node.xmpp.port().to_string()),
        ];
        keys.extend(federation.iter().map(|(key, file)| (*key, text(file))));
        keys
    }

    /// All three files, with this one of authorities.
    fn whole<'a>(&'a self, ca_file: &'a Path) -> [(&'static str, &'a Path); 3] {
        [
            ("federation.ca-file", ca_file),
            ("federation.certificate-file", &self.own.certificate),
            ("federation.private-key-file", &self.own.key),
        ]
    }

    /// Sets the topology and waits until broker 1 has words with this text for a link.
    async fn link_says(&self, input: &TopologyInput, part: &str) {
        let plan = Topology::of(input);
        let report = topology::apply(&plan, None).await;
        assert!(report.errors.is_empty(), "{report:?}");
        wait_for(&format!("a link that says {part:?}"), async || {
            let links = topology::links_of(&plan.brokers[0]).await.unwrap();
            let errors = links.iter().filter_map(|link| link.error.as_deref());
            let mut words = errors.filter_map(topology::explain);
            words
                .any(|words| words.problem.contains(part))
                .then_some(())
        })
        .await;
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn input(site: &Site) -> TopologyInput {
    let loaded = tandem::settings::load(&site.config, &|_| None).unwrap();
    topology::topology_input(&loaded.settings)
}

/// Links over amqps carry commands, replies and events both ways; a second `apply` has nothing to
/// do.
async fn serves(bench: &Bench) {
    let simulator = downstream(IpAddr::V4(Ipv4Addr::LOCALHOST), None).await;
    let ca_file = &bench.authority.certificate;
    let mut site = Site::new("gc-1", &bench.keys(&simulator, &bench.whole(ca_file)));
    let config = text(&site.config);
    let apply = ["topology", "apply", "--wait", "--config", &config];
    let (code, said) = tandem(&apply).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = tandem(&apply).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.trim_end().ends_with("nothing to do"), "{said}");
    let (_, plan) = tandem(&["topology", "print", "--config", &config]).await;
    for part in [
        "cacertfile=",
        "verify=verify_peer",
        "server_name_indication=localhost",
        "certfile=",
        "keyfile=",
    ] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    assert!(plan.contains("guest:***@"), "{plan}");
    links_are_secure(bench).await;

    site.start();
    site.becomes("leader").await;
    // A client of the other broker: command and reply cross the links.
    let (own, key) = (text(&bench.own.certificate), text(&bench.own.key));
    let (far, ca_file) = (bench.uri(1), text(ca_file));
    let files = [
        "--ca-file",
        &ca_file,
        "--certificate-file",
        &own,
        "--private-key-file",
        &key,
    ];
    let connect = ["send", "Connect#1001", "desk,pw-1001", "--broker", &far];
    tandem_until(0, &[&connect[..], &files].concat()).await;
    let doctor = tandem_until(0, &["doctor", "--config", &config]).await;
    assert!(doctor.contains("federation links run"), "{doctor}");
    assert!(!doctor.contains("whatever certificate"), "{doctor}");
}

/// Every connection between the brokers uses TLS.
async fn links_are_secure(bench: &Bench) {
    for node in &bench.nodes {
        let api = node.management().unwrap();
        let links = wait_for("the broker's list of connections", async || {
            let list = api.get("connections").await.ok().flatten()?;
            let list: Vec<Value> = list.as_array()?.clone();
            // The other half of a link is within the broker and has no socket.
            let outer = |one: &Value| one["protocol"].as_str() == Some("AMQP 0-9-1");
            let list: Vec<Value> = list.into_iter().filter(outer).collect();
            (list.len() >= 2).then_some(list)
        })
        .await;
        assert!(links.iter().all(|link| link["ssl"] == true), "{links:#?}");
    }
}

#[test]
fn brokers_judge_each_other_over_amqps() {
    run(async |_| {
        let bench = Bench::start(None).await;
        serves(&bench).await;
    });
}

/// Where the tests run on another server than the installed one, site 2 has that.
#[test]
fn brokers_of_two_versions_judge_each_other_over_amqps() {
    run(async |_| {
        let other = std::env::var_os(SERVER_VARIABLE).map(PathBuf::from);
        let installed = installed_server();
        let Some(second) = installed
            .ok()
            .filter(|path| other.is_some_and(|other| other != *path))
        else {
            eprintln!("NOT run: there is one RabbitMQ only (scripts/test --rabbitmq 4 has two)");
            return;
        };
        let bench = Bench::start(Some(second)).await;
        serves(&bench).await;
    });
}

#[test]
fn what_keeps_brokers_from_each_other_is_said_in_words() {
    run(async |_| {
        let bench = Bench::start(None).await;
        let before_4 = bench.versions[0].starts_with("3.");
        let simulator = downstream(IpAddr::V4(Ipv4Addr::LOCALHOST), None).await;
        let none = Site::new("gc-1", &bench.keys(&simulator, &[]));
        let part = match before_4 {
            // It judges nobody, and shows nothing.
            true => "demands a client certificate",
            false => "knows no authority",
        };
        bench.link_says(&input(&none), part).await;
        let (code, said) = tandem(&["doctor", "--config", &text(&none.config)]).await;
        assert_ne!(code, 0, "{said}");
        assert!(
            said.contains(part) && said.contains("federation."),
            "{said}"
        );
        assert_eq!(said.contains("whatever certificate"), before_4, "{said}");

        let stranger = bench.maker.make(&["Other CA"], AUTHORITY, None);
        for (ca_file, part) in [
            (stranger.certificate.as_path(), "no authority in the file"),
            (
                Path::new("/nonexistent/ca.pem"),
                "cannot read the file of authorities",
            ),
        ] {
            let site = Site::new("gc-1", &bench.keys(&simulator, &bench.whole(ca_file)));
            bench.link_says(&input(&site), part).await;
        }
        let alone = [("federation.ca-file", bench.authority.certificate.as_path())];
        let site = Site::new("gc-1", &bench.keys(&simulator, &alone));
        let good = input(&site);
        bench.link_says(&good, "demands a client certificate").await;
        // The wrong port, or the wrong scheme for it.
        let mut wrong = good.clone();
        let port = bench.nodes[1].amqp_port();
        wrong.brokers[1].amqp_uri = format!("amqps://guest:guest@localhost:{port}/%2f");
        bench.link_says(&wrong, "does not speak TLS").await;
        let port = bench.nodes[1].amqps_port();
        wrong.brokers[1].amqp_uri = format!("amqp://guest:guest@localhost:{port}/%2f");
        bench.link_says(&wrong, "speaks TLS, and").await;
    });
}
