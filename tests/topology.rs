//! The topology on two real brokers: it is set once, federation moves commands, events and
//! replies both ways, late commands land in `tandem.expired`, and cut links heal.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use tandem::broker::guard;
use tandem::broker::proof::Prover;
use tandem::broker::topology::{self, Change, Topology, TopologyInput};
use tandem::cli::topology::{Action, Args, run as topology_command};
use tandem::engine::View;
use tandem::lab::{BrokerNetwork, RabbitNode, RabbitOptions};
use tokio::sync::{mpsc, watch};

/// Generous: only a failing test waits this long.
const LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);
const MAX_AGE: Duration = Duration::from_secs(2);

struct Client {
    // Closing the connection closes the channel.
    _connection: Connection,
    channel: Channel,
}

impl Client {
    async fn connect(uri: &str) -> Self {
        let connection = guard::connect(uri.parse().unwrap(), ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        Self {
            _connection: connection,
            channel,
        }
    }

    async fn publish(&self, exchange: &str, key: &str, body: &str) {
        self.channel
            .basic_publish(
                exchange.into(),
                key.into(),
                BasicPublishOptions::default(),
                body.as_bytes(),
                BasicProperties::default().with_delivery_mode(2),
            )
            .await
            .unwrap()
            .await
            .unwrap();
    }

    async fn consume(&self, queue: &str) -> Consumer {
        self.channel
            .basic_consume(
                queue.into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap()
    }

    /// A queue of this client's own, bound to an exchange.
    async fn subscribe(&self, exchange: &str, key: &str) -> Consumer {
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self
            .channel
            .queue_declare("".into(), options, FieldTable::default())
            .await
            .unwrap();
        self.channel
            .queue_bind(
                queue.name().clone(),
                exchange.into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        self.consume(queue.name().as_str()).await
    }
}

/// The body of the next message, acknowledged.
async fn next(consumer: &mut Consumer) -> String {
    let delivery = tokio::time::timeout(LIMIT, consumer.next())
        .await
        .expect("a message in time")
        .expect("the consumer lives")
        .unwrap();
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    String::from_utf8_lossy(&delivery.data).into_owned()
}

/// Publishes until the subscriber on the other broker has got a message: the binding has to
/// travel first, and what is published before is not routed.
async fn published_until_received(
    publisher: &Client,
    (exchange, key): (&str, &str),
    consumer: &mut Consumer,
) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        publisher.publish(exchange, key, "over the link").await;
        match tokio::time::timeout(POLL, consumer.next()).await {
            Ok(delivery) => {
                let delivery = delivery.unwrap().unwrap();
                assert_eq!(delivery.data, b"over the link");
                return;
            }
            Err(_) => assert!(
                tokio::time::Instant::now() < deadline,
                "{exchange}: nothing"
            ),
        }
    }
}

async fn until_links(plan: &Topology, running: bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let links = topology::links(plan).await.unwrap();
        if links.iter().all(|link| link.is_running() == running) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{links:#?}");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topology_federates_both_ways_and_heals() {
    let network = BrokerNetwork::start(2).await.unwrap();
    let input = network.topology_input("tandem", &["Connector1"], MAX_AGE);
    let plan = Topology::of(&input);

    what_the_plan_takes_for_granted_is_looked_at_first(&network, &input).await;

    applied_once_and_then_unchanged(&plan).await;

    let a = Client::connect(&network.nodes()[0].amqp_uri()).await;
    let b = Client::connect(&network.nodes()[1].amqp_uri()).await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        commands_move(from, to).await;
        for (exchange, key) in [
            ("tandem.events", "client-7"),
            ("tandem.replies", "answers"),
            ("tandem.control", "gc-1"),
        ] {
            let mut consumer = to.subscribe(exchange, key).await;
            published_until_received(from, (exchange, key), &mut consumer).await;
        }
    }
    late_commands_expire(&a).await;

    drift_is_found_and_mended(&network, &input).await;

    a_queue_of_another_kind_is_told_without_the_right_to_read_policies(&network, &input).await;

    the_command_line_sets_another_cluster(&network).await;

    network.cut_link().await;
    until_links(&plan, false).await;
    network.heal_link().await;
    until_links(&plan, true).await;
    commands_move(&a, &b).await;
}

/// One cluster in two entries, and quorum queues on a broker that is too old: nothing is set.
async fn what_the_plan_takes_for_granted_is_looked_at_first(
    network: &BrokerNetwork,
    input: &TopologyInput,
) {
    let words = |report: &topology::ApplyReport| {
        let steps = report
            .steps
            .iter()
            .map(|step| format!("{}: {}", step.kind, step.change));
        steps.collect::<Vec<_>>().join("\n")
    };
    let mut twice = input.clone();
    twice.brokers[1] = twice.brokers[0].clone();
    "other-node:5672".clone_into(&mut twice.brokers[1].label);
    let report = topology::apply(&Topology::of(&twice), None).await;
    let text = words(&report);
    assert!(!report.is_complete() && !report.changed(), "{report:#?}");
    assert!(
        text.contains("are one cluster") && text.contains("other-node:5672"),
        "{text}"
    );

    let api = network.nodes()[0].management().unwrap();
    let overview = api.get("overview").await.unwrap().unwrap();
    let version = overview["rabbitmq_version"].as_str().unwrap();
    let mut quorum = input.clone();
    quorum.queue_type = tandem::settings::QueueType::Quorum;
    if version.starts_with('3') {
        let report = topology::apply(&Topology::of(&quorum), None).await;
        assert!(!report.is_complete() && !report.changed(), "{report:#?}");
        assert!(words(&report).contains(version), "{}", words(&report));
        return;
    }
    quorum.cluster_name = "blueprint".to_owned();
    quorum.command_queues = vec!["Quorum1".to_owned()];
    let plan = Topology::of(&quorum);
    let report = topology::apply(&plan, Some(LIMIT)).await;
    assert!(report.is_complete(), "{report:#?}");
    let again = topology::apply(&plan, None).await;
    assert!(again.is_complete() && !again.changed(), "{again:#?}");
    assert_eq!(
        topology::missing(&plan.brokers[0]).await.unwrap(),
        Vec::new()
    );
    quorum.queue_type = tandem::settings::QueueType::Classic;
    let other = topology::missing(&Topology::of(&quorum).brokers[0])
        .await
        .unwrap();
    assert!(
        other
            .iter()
            .any(|found| found.object == "queue Quorum1" && found.cure.contains("shovel")),
        "{other:#?}"
    );
}

async fn applied_once_and_then_unchanged(plan: &Topology) {
    assert!(
        !topology::missing(&plan.brokers[0])
            .await
            .unwrap()
            .is_empty()
    );
    let first = topology::apply(plan, Some(LIMIT)).await;
    assert!(first.is_complete(), "{first:#?}");
    assert!(first.steps.iter().all(|s| s.change == Change::Created));
    assert_eq!(first.links.len(), 8, "four federated objects, two ways");

    let second = topology::apply(plan, Some(LIMIT)).await;
    assert!(second.is_complete() && !second.changed(), "{second:#?}");
    for broker in &plan.brokers {
        assert_eq!(topology::missing(broker).await.unwrap(), Vec::new());
    }
}

/// A changed setting, a deleted policy, and a foreign policy that wins.
async fn drift_is_found_and_mended(network: &BrokerNetwork, input: &TopologyInput) {
    let mut older = input.clone();
    older.command_max_age = MAX_AGE * 2;
    let older = Topology::of(&older);
    let findings = topology::missing(&older.brokers[0]).await.unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].problem.contains("4000"), "{findings:?}");

    let api = network.nodes()[0].management().unwrap();
    assert!(api.delete("policies/%2F/tandem.control").await.unwrap());
    let report = topology::apply(&older, Some(LIMIT)).await;
    assert!(report.is_complete(), "{report:#?}");
    let changed = |change: Change| -> Vec<&str> {
        let steps = report.steps.iter().filter(|s| s.change == change);
        steps.map(|s| s.name.as_str()).collect()
    };
    assert_eq!(changed(Change::Created), ["tandem.control"]);
    // On both brokers.
    assert_eq!(
        changed(Change::Updated),
        ["tandem.commands", "tandem.commands"]
    );
    let back = topology::apply(&Topology::of(input), Some(LIMIT)).await;
    assert!(back.is_complete() && back.changed(), "{back:#?}");

    let foreign = serde_json::json!({"pattern": "^tandem", "apply-to": "exchanges",
        "priority": 999, "definition": {"alternate-exchange": "amq.fanout"}});
    api.put("policies/%2F/foreign", &foreign).await.unwrap();
    let plan = Topology::of(input);
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let findings = topology::missing(&plan.brokers[0]).await.unwrap();
        if findings.len() == 3 {
            assert!(
                findings
                    .iter()
                    .all(|f| f.grave && f.object.ends_with("policy foreign"))
            );
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{findings:#?}");
        tokio::time::sleep(POLL).await;
    }
    assert!(api.delete("policies/%2F/foreign").await.unwrap());
    until_links(&plan, true).await;
}

/// What an instance shows among its warnings, where its user may not read policies.
async fn a_queue_of_another_kind_is_told_without_the_right_to_read_policies(
    network: &BrokerNetwork,
    input: &TopologyInput,
) {
    let api = network.nodes()[0].management().unwrap();
    let user = serde_json::json!({"password": "pw", "tags": "management"});
    api.put("users/watcher", &user).await.unwrap();
    let all = serde_json::json!({"configure": ".*", "write": ".*", "read": ".*"});
    api.put("permissions/%2F/watcher", &all).await.unwrap();
    let quorum = serde_json::json!({"durable": true, "auto_delete": false,
        "arguments": {"x-queue-type": "quorum"}});
    api.put("queues/%2F/Connector9", &quorum).await.unwrap();

    let mut watched = input.clone();
    watched.command_queues = vec!["Connector9".to_owned()];
    watched.brokers.truncate(1);
    watched.brokers[0].user = "watcher".to_owned();
    watched.brokers[0].password = "pw".to_owned();
    let plan = Topology::of(&watched);
    assert!(topology::missing(&plan.brokers[0]).await.is_err());
    let (prover, mut seen) = Prover::new(&watched, Default::default());
    let (_view, views) = watch::channel(Arc::new(View::default()));
    let (inputs, _inputs) = mpsc::channel(8);
    let run = tokio::spawn(prover.run(views, inputs));
    let told = seen.wait_for(|network| network.looks > 0);
    let told = tokio::time::timeout(LIMIT, told).await.unwrap().unwrap();
    let words = told.brokers[0].unplanned.clone().unwrap_or_default();
    drop(told);
    run.abort();
    assert!(
        words.contains("queue Connector9") && words.contains("quorum"),
        "{words}"
    );
    assert!(api.delete("queues/%2F/Connector9").await.unwrap());
    assert!(api.delete("users/watcher").await.unwrap());
}

/// `tandem topology` with a property file, beside the cluster that is there.
async fn the_command_line_sets_another_cluster(network: &BrokerNetwork) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("site-1.properties");
    let mut text = "mode=active-active\ncluster.name=blue\ncommand.queue=Blue1\n\
        control.key=6b1d9f3e07a84c52b6e8d4013f97ac25\n\
        downstream.url.1=http://127.0.0.1:1\n"
        .to_owned();
    for (n, node) in (1..).zip(network.nodes()) {
        let (port, management) = (node.amqp_port(), node.management_url());
        text += &format!("broker.url.{n}=127.0.0.1:{port}\n");
        text += &format!("broker.management-url.{n}={management}\n");
    }
    std::fs::write(&config, text).unwrap();
    let apply = Action::Apply {
        config: config.clone(),
        wait: true,
    };
    let print = Action::Print {
        config: config.clone(),
    };
    let missing = Action::Print {
        config: folder.path().join("none"),
    };
    for (action, code) in [(apply, 0), (print, 0), (missing, 64)] {
        let args = Args {
            action: action.clone(),
        };
        let exit = tokio::task::spawn_blocking(move || topology_command(args, true))
            .await
            .unwrap();
        assert_eq!(exit, ExitCode::from(code), "{action:?}");
    }
    let api = network.nodes()[1].management().unwrap();
    assert!(
        api.get("exchanges/%2F/blue.events")
            .await
            .unwrap()
            .is_some()
    );
    let settings = tandem::settings::load_from_process(&config)
        .unwrap()
        .settings;
    let plan = Topology::of(&topology::topology_input(&settings));
    let links = topology::links(&plan).await.unwrap();
    assert!(
        links.len() == 8 && links.iter().all(|l| l.is_running()),
        "{links:#?}"
    );
}

/// The consumer is on the other broker only, so the message has to cross.
async fn commands_move(from: &Client, to: &Client) {
    let mut consumer = to.consume("Connector1").await;
    from.publish("", "Connector1", "MakeReady#1001").await;
    assert_eq!(next(&mut consumer).await, "MakeReady#1001");
    let tag = consumer.tag();
    to.channel
        .basic_cancel(tag, lapin::options::BasicCancelOptions::default())
        .await
        .unwrap();
}

/// Nobody consumes commands now, so the broker itself expires them.
async fn late_commands_expire(client: &Client) {
    client.publish("", "Connector1", "too late").await;
    let mut expired = client.consume("tandem.expired").await;
    assert_eq!(next(&mut expired).await, "too late");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_keeps_its_data_and_ports() {
    let mut node = RabbitNode::start(RabbitOptions::named("lonely"))
        .await
        .unwrap();
    let (uri, pid) = (node.amqp_uri(), node.pid().unwrap());
    let client = Client::connect(&uri).await;
    client
        .channel
        .queue_declare(
            "kept".into(),
            QueueDeclareOptions::durable(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    client.publish("", "kept", "still here").await;

    node.kill();
    assert!(!node.is_running());
    assert!(
        guard::connect(uri.parse().unwrap(), ConnectionProperties::default())
            .await
            .is_err()
    );

    node.start_again().await.unwrap();
    assert_ne!(node.pid(), Some(pid));
    assert_eq!(node.amqp_uri(), uri);
    let client = Client::connect(&uri).await;
    let mut consumer = client.consume("kept").await;
    assert_eq!(next(&mut consumer).await, "still here");

    node.freeze();
    let short = Duration::from_secs(1);
    let frozen = tokio::time::timeout(short, node.management().unwrap().get("overview")).await;
    assert!(frozen.is_err(), "a frozen node does not answer");
    node.thaw();
    node.wait_ready(LIMIT).await.unwrap();

    let folder = node.folder().to_owned();
    node.stop().await;
    drop(node);
    assert!(!folder.exists());
}
