//! Addresses of every kind: a pair on IPv6 alone, and names of which an address does not answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use support::hole::BlackHole;
use support::site::{Hosts, downstream, tandem, tandem_until};
use support::{Desk, Site, run, until};
use tandem::lab::{BrokerNetwork, NetworkOptions, RabbitNode, RabbitOptions};

const LOOPBACK: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

async fn brokers() -> BrokerNetwork {
    let nodes = ["six-1", "six-2"].map(|name| RabbitOptions::named(name).on_ipv6());
    let options = NetworkOptions {
        nodes: nodes.to_vec(),
        sizes: Vec::new(),
    };
    BrokerNetwork::start_with(options).await.unwrap()
}

/// The property file's keys: brokers by literal, credentials apart.
fn keys(
    network: &BrokerNetwork,
    priority: u8,
    rest: &str,
    notify: u16,
) -> Vec<(&'static str, String)> {
    let broker = |at: usize| format!("[::1]:{}", network.nodes()[at].amqp_port());
    vec![
        ("broker.url.1", broker(0)),
        ("broker.url.2", format!("amqp://{}", broker(1))),
        (
            "broker.management-url.1",
            network.nodes()[0].management_url(),
        ),
        (
            "broker.management-url.2",
            network.nodes()[1].management_url(),
        ),
        ("consumer.priority", priority.to_string()),
        ("downstream.url.1", format!("http://{rest}/finesse/api")),
        ("notify.port", notify.to_string()),
    ]
}

/// Every name has two addresses, and on the first of them every port swallows connections.
#[test]
fn an_instance_serves_through_names_whose_first_address_is_silent() {
    run(async |_| {
        let Some(hosts) = Hosts::new("127.0.0.1 two.test\n127.0.0.2 two.test\n") else {
            return;
        };
        let second = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let options = RabbitOptions {
            ip: second,
            ..RabbitOptions::named("second")
        };
        let broker = RabbitNode::start(options).await.unwrap();
        let simulator = downstream(second, None).await;
        let node = &simulator.nodes[0];
        let management = broker.management_url().replace("127.0.0.2", "two.test");
        let management_port = management.rsplit(':').next().unwrap().parse().unwrap();
        let mut silent = Vec::new();
        for port in [
            broker.amqp_port(),
            management_port,
            node.rest.port(),
            node.xmpp.port(),
        ] {
            let first = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            silent.push(BlackHole::at(first).await);
        }
        let keys = [
            ("broker.url.1", format!("two.test:{}", broker.amqp_port())),
            ("broker.management-url.1", management),
            ("broker.timeout", "5s".to_owned()),
            (
                "downstream.url.1",
                format!("http://two.test:{}/finesse/api", node.rest.port()),
            ),
            ("notify.port", node.xmpp.port().to_string()),
        ];
        let mut site = Site::new("gc-1", &keys);
        site.start_with_hosts(&hosts);
        site.becomes("leader").await;
        let desk = Desk::open(vec![broker.amqp_uri()], "tandem", "Connector1", "desk").await;
        signs_in(&desk, "gc-1").await;
        let url = format!("two.test:{}", broker.amqp_port());
        let (code, text) = hosts
            .tandem(&["send", "GetState#1001", "--broker", &url])
            .await;
        assert_eq!(code, 0, "{text}");
    });
}

#[test]
fn a_pair_lives_on_ipv6_alone() {
    run(async |_| {
        let network = brokers().await;
        let simulator = downstream(LOOPBACK, None).await;
        let node = &simulator.nodes[0];
        let (rest, notify) = (node.rest.to_string(), node.xmpp.port());
        let mut gc1 = Site::new("gc-1", &keys(&network, 127, &rest, notify));
        let mut gc2 = Site::new("gc-2", &keys(&network, 100, &rest, notify));
        let config = gc1.config.display().to_string();

        let (code, text) = tandem(&["check", &config, &gc2.config.display().to_string()]).await;
        assert_eq!(code, 0, "{text}");
        // Each broker reaches the other by its literal too.
        let (code, text) = tandem(&["topology", "apply", "--wait", "--config", &config]).await;
        assert_eq!(code, 0, "{text}");
        gc1.start();
        gc2.start();
        gc1.becomes("leader").await;
        gc2.becomes("follower").await;

        serves(&network, "gc-1").await;
        let broker = format!("[::1]:{}", network.nodes()[1].amqp_port());
        // Across the link, by the command line.
        let sent = [
            "send",
            "Hello#desk-1",
            "--broker",
            &broker,
            "--timeout",
            "30s",
        ];
        let text = tandem_until(0, &sent).await;
        assert!(text.contains(&format!("connected to {broker}")), "{text}");
        if let Some(hosts) = Hosts::new("::1 six.test\n") {
            let broker = broker.replace("[::1]", "six.test");
            let sent = [
                "send",
                "Hello#desk-1",
                "--broker",
                &broker,
                "--timeout",
                "30s",
            ];
            let (code, text) = hosts.tandem(&sent).await;
            assert_eq!(code, 0, "{text}");
        }
        let text = tandem_until(0, &["doctor", "--config", &config]).await;
        assert!(!text.contains("BAD") && !text.contains("GONE"), "{text}");

        gc1.kill();
        until("gc-2 leads", async || {
            let status = gc2.status().await;
            let role = status["groups"][0]["role"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            role.starts_with("leader") && status["groups"][0]["consuming"] == true
        })
        .await;
        serves(&network, "gc-2").await;
    });
}

async fn serves(network: &BrokerNetwork, who: &str) {
    let uris = network.uris_from(0);
    let desk = Desk::open(uris, "tandem", "Connector1", &format!("desk-{who}")).await;
    signs_in(&desk, who).await;
}

/// Sign-in, and its notification.
async fn signs_in(desk: &Desk, who: &str) {
    let body = format!("{},pw-1001", desk.destination);
    desk.expect("Connect#1001", &body, "OK").await;
    let reply = desk.ask("Login#1001", "pw-1001,7001").await;
    assert!(
        support::pair::accepted(reply.field("outcome")),
        "{}",
        reply.text
    );
    assert_eq!(reply.field("instance"), who, "{}", reply.text);
    desk.event("the signed-in state", |event| {
        event.field("type") == "State" && event.field("agentId") == "1001"
    })
    .await;
}
