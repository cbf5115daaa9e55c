//! `tandem check --online`: what is wrong with the brokers is said before an instance runs there, with
//! the cure, and nothing is changed by asking.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, ConnectionProperties};
use serde_json::{Value, json};
use support::site::{tandem, tandem_until};
use support::{Shared, Site, run, until};
use tandem::broker::guard;
use tandem::lab::RabbitNode;

/// What differs from a site that is in order.
type Keys<'a> = &'a [(&'static str, String)];

/// A property file for both brokers, with objects of the test's own.
async fn site(shared: &mut Shared, name: &str, keys: Keys<'_>) -> Site {
    let network = shared.network().await;
    let nodes = network.nodes();
    let mut all = vec![
        ("broker.url.1", nodes[0].amqp_uri()),
        ("broker.url.2", nodes[1].amqp_uri()),
        ("broker.management-url.1", nodes[0].management_url()),
        ("broker.management-url.2", nodes[1].management_url()),
        (
            "downstream.url.1",
            "http://127.0.0.1:1/finesse/api".to_owned(),
        ),
        ("cluster.name", name.to_owned()),
        ("command.queue", queue_of(name)),
    ];
    for (key, value) in keys {
        all.retain(|(known, _)| known != key);
        all.push((key, value.clone()));
    }
    Site::new("gc-1", &all)
}

fn queue_of(name: &str) -> String {
    format!("queue-{name}")
}

/// Exit code and what is said of the brokers.
async fn asked(site: &Site) -> (i32, String) {
    let config = site.config.display().to_string();
    let (code, said) = tandem(&["check", "--online", &config]).await;
    println!("{code}: {said}");
    let (_, brokers) = said.split_once("\nbrokers of ").unwrap_or(("", &said));
    (code, brokers.to_owned())
}

async fn applied(site: &Site) {
    let config = site.config.display().to_string();
    tandem_until(0, &["topology", "apply", "--wait", "--config", &config]).await;
}

fn version_of(overview: &Value) -> String {
    overview["rabbitmq_version"].as_str().unwrap().to_owned()
}

/// Everything that a broker has, its numbers aside.
async fn objects(node: &RabbitNode) -> Value {
    let all = node.management().unwrap().get("definitions").await;
    let mut all = all.unwrap().unwrap();
    all.as_object_mut().unwrap().remove("users");
    // What federation makes for itself comes and goes while its links connect.
    for kind in ["exchanges", "queues", "bindings"] {
        let own = |one: &Value| {
            let names = ["name", "source", "destination"].map(|name| one[name].as_str());
            let mut names = names.into_iter().flatten();
            names.any(|name| name.starts_with("federation: "))
        };
        all[kind].as_array_mut().unwrap().retain(|one| !own(one));
    }
    all
}

#[test]
fn brokers_in_order_are_told_so_and_stay_as_they_are() {
    run(async |shared| {
        let site = site(shared, "whole", &[]).await;
        let (code, said) = asked(&site).await;
        assert_eq!(code, 1, "{said}");
        for part in [
            "queue queue-whole: does not exist",
            "`tandem topology apply`",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        applied(&site).await;
        let before = objects(shared.network().await.nodes()[0]).await;
        let (code, said) = asked(&site).await;
        assert_eq!(code, 0, "{said}");
        for part in [
            "user accepted",
            "are as planned",
            "links run",
            "the user may consume",
        ] {
            assert_eq!(said.matches(part).count(), 2, "{part}: {said}");
        }
        assert_eq!(objects(shared.network().await.nodes()[0]).await, before);

        let config = site.config.display().to_string();
        let (code, said) = tandem(&["check", "--online", "--json", &config]).await;
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((code, &said["ok"]), (0, &json!(true)));
        assert_eq!(said["online"][0]["worst"], "good", "{said:#}");
        // A file with errors is mended first.
        let wrong = Site::new("gc-1", &[("mode", "x".to_owned())]);
        let (code, said) = asked(&wrong).await;
        assert_eq!(code, 64, "{said}");
        assert!(!said.contains("AMQP"), "{said}");
    });
}

#[test]
fn rights_that_an_instance_lacks_are_named_one_by_one() {
    run(async |shared| {
        applied(&site(shared, "limited", &[]).await).await;
        let mut uris = Vec::new();
        for node in shared.network().await.nodes() {
            let api = node.management().unwrap();
            let user = json!({"password": "pw", "tags": "policymaker,monitoring"});
            api.put("users/limited", &user).await.unwrap();
            let rights = json!({"configure": "^x$", "write": r"^(limited\.events|amq\.default)$", "read": "^x$"});
            api.put("permissions/%2f/limited", &rights).await.unwrap();
            uris.push(node.amqp_uri().replace("guest:guest", "limited:pw"));
        }
        let keys = [
            ("broker.url.1", uris[0].clone()),
            ("broker.url.2", uris[1].clone()),
        ];
        let limited = site(shared, "limited", &keys).await;
        let (code, said) = asked(&limited).await;
        assert_eq!(code, 1, "{said}");
        for part in [
            "may not publish to limited.replies",
            "may not publish to limited.control",
            "may not consume queue-limited",
            "may not consume limited.expired",
            "may not make a queue limited.control.gc-1.…",
        ] {
            let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words.matches(part).count(), 2, "{part}: {said}");
        }
        assert!(!said.contains("publish to limited.events"), "{said}");
        assert!(!said.contains("publish to the default"), "{said}");
        assert!(said.contains("docs/security.md"), "{said}");
        let wrong = uris[0].replace("limited:pw", "limited:wrong");
        let keys = [("broker.url.1", wrong)];
        let (code, said) = asked(&site(shared, "limited", &keys).await).await;
        assert_eq!(code, 69, "{said}");
        assert!(said.contains("ACCESS_REFUSED"), "{said}");
    });
}

/// One cluster in two entries; an address that is wrong beside one that is right, of AMQP and of the
/// management API; a broker that is down.
#[test]
fn what_the_broker_list_gets_wrong_is_said_with_the_cure() {
    run(async |shared| {
        applied(&site(shared, "listed", &[]).await).await;
        let network = shared.network().await;
        let (amqp, api) = (
            network.nodes()[0].amqp_uri(),
            network.nodes()[0].management_url(),
        );
        let twice = [
            ("broker.url.2", amqp.replace("127.0.0.1", "localhost")),
            (
                "broker.management-url.2",
                api.replace("127.0.0.1", "localhost"),
            ),
        ];
        let (code, said) = asked(&site(shared, "listed", &twice).await).await;
        assert_eq!(code, 1, "{said}");
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("are one cluster"), "{said}");
        assert!(
            words.contains("broker.url.1=host-a:5672,host-b:5672"),
            "{said}"
        );

        // Nobody listens there.
        let dead = "127.0.0.1:1";
        let one_wrong = [
            (
                "broker.url.1",
                amqp.replace("/%2f", &format!(",{dead}/%2f")),
            ),
            ("broker.management-url.1", format!("http://{dead},{api}")),
        ];
        let (code, said) = asked(&site(shared, "listed", &one_wrong).await).await;
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let part = format!("its address {dead} cannot be used");
        assert!(
            words.contains(&part) && words.contains("leave out its address"),
            "{said}"
        );
        assert!(words.contains("management API: RabbitMQ"), "{said}");
        // Upstreams and names follow from the addresses: they are another plan, which is said.
        assert!(
            code == 0 || words.contains("topology apply"),
            "{code}: {said}"
        );

        // A broker of its own among the addresses of the first.
        let nodes = shared.brokers().nodes();
        let (other, other_api) = (nodes[1].place(), nodes[1].management_url());
        let mixed = [
            (
                "broker.url.1",
                amqp.replace("/%2f", &format!(",{other}/%2f")),
            ),
            ("broker.management-url.1", format!("{api},{other_api}")),
            ("broker.url.2", format!("amqp://guest:guest@{dead}/%2f")),
            ("broker.management-url.2", format!("http://{dead}")),
        ];
        let mixed = site(shared, "listed", &mixed).await;
        let (_, said) = asked(&mixed).await;
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let cure = "give a broker of its own an entry of its own";
        for wanted in ["it belongs to another cluster", cure] {
            assert!(words.contains(wanted), "{wanted}: {said}");
        }
        let config = mixed.config.display().to_string();
        let (code, said) = tandem(&["topology", "apply", "--config", &config]).await;
        assert_ne!(code, 0, "{said}");
        assert!(said.contains("it belongs to another cluster"), "{said}");
        assert!(
            !said.contains("created") && !said.contains("updated"),
            "{said}"
        );

        // Said once, and not as all that is missing there; and not before something is set.
        let elsewhere = [("broker.url.1", amqp.replace("/%2f", "/nowhere"))];
        let elsewhere = site(shared, "listed", &elsewhere).await;
        let (code, said) = asked(&elsewhere).await;
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_ne!(code, 0, "{said}");
        for wanted in ["there is no virtual host nowhere", "rabbitmqctl add_vhost"] {
            assert!(words.contains(wanted), "{wanted}: {said}");
        }
        assert!(
            !words.contains("exchange listed.events: does not exist"),
            "{said}"
        );

        shared.network_as_it_is().node(1).unwrap().kill();
        let site = site_as_it_is(shared);
        let (code, said) = asked(&site).await;
        assert_eq!(code, 69, "{said}");
        let (gone, cure) = ("GONE", "start the broker, open its port");
        assert!(said.contains(gone) && said.contains(cure), "{said}");
        shared.network().await;
    });
}

/// Of brokers of which one is down.
fn site_as_it_is(shared: &Shared) -> Site {
    let nodes = shared.brokers().nodes();
    let keys = [
        ("broker.url.1", nodes[0].amqp_uri()),
        ("broker.url.2", nodes[1].amqp_uri()),
        ("broker.management-url.1", nodes[0].management_url()),
        ("broker.management-url.2", nodes[1].management_url()),
        (
            "downstream.url.1",
            "http://127.0.0.1:1/finesse/api".to_owned(),
        ),
    ];
    Site::new("gc-1", &keys)
}

/// Quorum asked of 3.10; on 4.0 quorum where a classic queue with messages in it is.
#[test]
fn a_queue_type_that_cannot_be_is_refused_and_messages_stay() {
    run(async |shared| {
        applied(&site(shared, "typed", &[]).await).await;
        let quorum = [("queue.type", "quorum".to_owned())];
        let quorum = site(shared, "typed", &quorum).await;
        let node = shared.network().await.nodes()[0];
        let api = node.management().unwrap();
        let version = version_of(&api.get("overview").await.unwrap().unwrap());
        fill(&node.amqp_uri()).await;
        let waiting = async || {
            let queue = api.get("queues/%2f/queue-typed").await.unwrap().unwrap();
            queue["messages"].as_u64()
        };
        until("the messages are counted", async || {
            waiting().await == Some(FILL)
        })
        .await;

        let (code, said) = asked(&quorum).await;
        assert_eq!(code, 1, "{said}");
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let config = quorum.config.display().to_string();
        let before = objects(node).await;
        let (code, applied) = tandem(&["topology", "apply", "--config", &config]).await;
        assert_ne!(code, 0, "{applied}");
        assert_eq!(objects(node).await, before, "nothing is set by halves");
        if version.starts_with("3.") {
            let part = format!("queue.type is quorum and this is RabbitMQ {version}");
            assert!(
                words.contains(&part) && applied.contains(&part),
                "{said} {applied}"
            );
            assert!(words.contains("set queue.type=classic"), "{said}");
        } else {
            let part = "queue queue-typed: ";
            assert!(words.contains(part), "{said}");
            assert!(words.contains("a queue keeps its type"), "{said}");
            assert!(words.contains("with a shovel"), "{said}");
            assert!(applied.contains("queue-typed"), "{applied}");
        }
        assert_eq!(waiting().await, Some(FILL));
        api.delete("queues/%2f/queue-typed/contents").await.unwrap();
    });
}

/// Messages put into the command queue.
const FILL: u64 = 3;

async fn fill(uri: &str) {
    let properties = ConnectionProperties::default();
    let connection = guard::connect(uri.parse().unwrap(), properties)
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    select.await.unwrap();
    for _ in 0..FILL {
        let options = BasicPublishOptions::default();
        let kept = BasicProperties::default().with_delivery_mode(2);
        let publish = channel.basic_publish("".into(), "queue-typed".into(), options, b"x", kept);
        publish.await.unwrap().await.unwrap();
    }
}
