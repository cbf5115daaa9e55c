//! Brokers with several addresses, queues of both types, and what a broker puts aside.

use std::collections::BTreeMap;

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicRejectOptions, QueueDeclareOptions,
};
use serde_json::json;
use tandem::model::brokers::QueueType;
use tandem::wire::message::PutAside;

use super::*;

/// Several addresses, of which the first refuses and the second says nothing; and the broker's name.
#[tokio::test(flavor = "multi_thread")]
async fn the_addresses_of_a_broker_are_tried_in_turn() {
    let node = node("several").await;
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = refusing.local_addr().unwrap();
    drop(refusing);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let quiet = silent.local_addr().unwrap();
    let real = format!("127.0.0.1:{}", node.amqp_port());
    let uri = format!("amqp://guest:guest@{closed},{quiet},{real}/%2f");
    let mut shell = Shell::start(config_for(uri, "gc-1", 1));
    shell.execute(BrokerCommand::Dial {
        link: LINK,
        broker: 0,
    });
    let (used, cluster) = shell
        .wait("link", |input| match input {
            Input::LinkUp { node, cluster, .. } => Some(Ok((node, cluster))),
            Input::LinkDown { reason, .. } => Some(Err(reason)),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(used, real);
    let name = managed(&node, "cluster-name", |said| {
        Some(said["name"].as_str()?.to_owned())
    });
    assert_eq!(cluster, name.await);
    shell.broker.close().await;

    let uri = format!("amqp://guest:guest@{closed},127.0.0.1:1/%2f");
    let mut shell = Shell::start(config_for(uri, "gc-1", 2));
    let why = shell.dial(LINK).await.unwrap_err();
    assert!(why.contains(&closed.to_string()), "{why}");
    assert!(why.contains("127.0.0.1:1: "), "{why}");
    shell.broker.close().await;
}

async fn major(node: &RabbitNode) -> u32 {
    managed(node, "overview", |said| {
        let version = said["rabbitmq_version"].as_str()?;
        version.split('.').next()?.parse().ok()
    })
    .await
}

/// Before 4.0 they are refused with the reason; from there on they serve.
#[tokio::test(flavor = "multi_thread")]
async fn quorum_queues_are_had_where_federation_can_carry_them() {
    let node = node("quorum").await;
    let mut config = config(&node, "gc-1", 1);
    config.queue_type = QueueType::Quorum;
    let mut shell = Shell::start(config);
    let opened = shell.dial(LINK).await;
    if major(&node).await < 4 {
        let why = opened.unwrap_err();
        assert!(
            why.contains("queue.type is quorum and this is RabbitMQ 3."),
            "{why}"
        );
        let queues = managed(&node, "queues/%2F", |all| all.as_array().map(Vec::len));
        assert_eq!(queues.await, 0, "nothing was declared");
    } else {
        opened.unwrap();
        shell.consume(127, "gc-1.agents.leader.1").await;
        let client = Client::connect(&node).await;
        client.send("Connector1", "Hello#crm-1", "").await;
        let held = shell.delivery().await;
        shell.execute(BrokerCommand::Ack(held.id));
        let kinds = managed(&node, "queues/%2F", |all| {
            let all = all.as_array()?.iter();
            let kind = |queue: &Value| {
                Some((
                    queue["name"].as_str()?.to_owned(),
                    queue["type"].as_str()?.to_owned(),
                ))
            };
            let kinds: BTreeMap<String, String> = all.filter_map(kind).collect();
            kinds.contains_key("tandem.dead-letter").then_some(kinds)
        })
        .await;
        for queue in ["Connector1", "tandem.expired", "tandem.dead-letter"] {
            assert_eq!(kinds[queue], "quorum", "{kinds:?}");
        }
    }
    shell.broker.close().await;
}

/// A command queue that exists with the other type is a finding, not half a link.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_queue_of_the_other_type_is_told_with_the_way_to_move() {
    let node = node("other-type").await;
    let api = node.management().unwrap();
    let quorum = json!({"durable": true, "auto_delete": false,
        "arguments": {"x-queue-type": "quorum"}});
    api.put("queues/%2F/Connector1", &quorum).await.unwrap();
    // The dead letters may be of any type.
    let bounded = json!({"durable": true, "auto_delete": false,
        "arguments": {"x-queue-type": "quorum", "x-max-length": 10}});
    api.put("queues/%2F/tandem.expired", &bounded)
        .await
        .unwrap();
    let mut shell = Shell::start(config(&node, "gc-1", 1));
    let why = shell.dial(LINK).await.unwrap_err();
    for part in [
        "queue Connector1 exists with the type quorum, queue.type is classic",
        "leave queue.type as the queue is",
        "shovel",
    ] {
        assert!(why.contains(part), "{why}");
    }
    assert!(api.delete("queues/%2F/Connector1").await.unwrap());
    shell.dial(LinkEpoch(2)).await.unwrap();
    let link = LinkEpoch(2);
    shell.execute(BrokerCommand::ConsumeExpired { link });
    assert_eq!(shell.proof(Way::Expired).await, Proof::Passed);
    shell.broker.close().await;
}

/// The broker's reasons, from the broker.
#[tokio::test(flavor = "multi_thread")]
async fn why_a_command_was_put_aside_is_read() {
    let node = node("aside").await;
    let client = Client::connect(&node).await;
    let mut shell = Shell::start(config(&node, "gc-1", 1));
    shell.dial(LINK).await.unwrap();
    shell.execute(BrokerCommand::ConsumeExpired { link: LINK });
    assert_eq!(shell.proof(Way::Expired).await, Proof::Passed);
    let queue = async |name: &str, key: &str, value: i32| {
        let mut arguments = FieldTable::default();
        let text = |text: &str| AMQPValue::LongString(text.into());
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text("tandem.expired"));
        if !key.is_empty() {
            arguments.insert(key.into(), AMQPValue::LongInt(value));
        }
        let options = QueueDeclareOptions::durable();
        let declare = client
            .channel
            .queue_declare(name.into(), options, arguments);
        declare.await.unwrap();
    };
    let mut told = async || shell.delivery().await.raw.put_aside;

    queue("small", "x-max-length", 1).await;
    client.send("small", "MakeReady#1001", "").await;
    client.send("small", "MakeReady#1001", "").await;
    assert_eq!(told().await, Some(PutAside::Full));

    queue("short", "x-message-ttl", 10).await;
    client.send("short", "MakeReady#1001", "").await;
    assert_eq!(told().await, Some(PutAside::Expired));

    queue("unwanted", "", 0).await;
    client.send("unwanted", "MakeReady#1001", "").await;
    let options = BasicConsumeOptions::default();
    let consume =
        client
            .channel
            .basic_consume("unwanted".into(), "".into(), options, FieldTable::default());
    let mut consumer = consume.await.unwrap();
    let first = consumer.next().await.unwrap().unwrap();
    first
        .reject(BasicRejectOptions { requeue: false })
        .await
        .unwrap();
    assert_eq!(told().await, Some(PutAside::Refused));

    // What a client wrote there itself says nothing.
    let properties = BasicProperties::default().with_type("MakeReady#1001".into());
    let publish = client.channel.basic_publish(
        "".into(),
        "tandem.expired".into(),
        BasicPublishOptions::default(),
        b"",
        properties,
    );
    publish.await.unwrap();
    assert_eq!(told().await, None);
    shell.broker.close().await;
}

pub async fn attach(shell: &mut Shell, link: LinkEpoch) -> Result<(), String> {
    shell.execute(BrokerCommand::AttachControl { link });
    shell
        .wait("attached", |input| match input {
            Input::ControlAttached { link: on } if on == link => Some(Ok(())),
            Input::Barred {
                way: Way::ControlQueue,
                reason,
                ..
            } => Some(Err(reason)),
            Input::LinkDown { reason, .. } => Some(Err(reason)),
            Input::IdInUse { .. } => Some(Err("the id is in use".to_owned())),
            _ => None,
        })
        .await
}

async fn counted(shell: &mut Shell, link: LinkEpoch, peer: &str) -> Option<u32> {
    let peer = instance(peer);
    let count = async {
        loop {
            shell.execute(BrokerCommand::CountPeerConsumers {
                link,
                peer: peer.clone(),
            });
            let count = shell.wait("count", |input| match input {
                Input::PeerConsumers { count, .. } => Some(count),
                _ => None,
            });
            if let Ok(count) = timeout(Duration::from_secs(2), count).await {
                return count;
            }
        }
    };
    timeout(Duration::from_secs(15), count).await.ok()
}

/// Three nodes (of two one alone would be a minority); the commands are on the second, the instance is
/// connected to the first.
#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_a_node_costs_neither_link_nor_control_queue_for_long() {
    let options = RabbitOptions::named("cluster");
    let mut cluster = RabbitCluster::start(options, 3).await.unwrap();
    let second = &cluster.nodes()[1];
    let api = second.management().unwrap();
    let overview = api.get("overview").await.unwrap().unwrap();
    for queue in ["Connector1", "Connector2"] {
        let classic = json!({"durable": true, "auto_delete": false,
            "node": overview["node"], "arguments": {"x-queue-type": "classic"}});
        api.put(&format!("queues/%2F/{queue}"), &classic)
            .await
            .unwrap();
    }
    let mut shell = Shell::start(config_for(cluster.amqp_uri_from(0), "gc-1", 1));
    shell.dial(LINK).await.unwrap();
    attach(&mut shell, LINK).await.unwrap();
    let name = format!(
        "tandem.control.gc-1.127.0.0.1:{}",
        cluster.nodes()[0].amqp_port()
    );
    managed(second, "queues/%2F?columns=name", |all| {
        let mut all = all.as_array()?.iter();
        all.find(|queue| queue["name"] == name.as_str()).map(drop)
    })
    .await;

    // A peer counts it from the other node, and a second process is found there.
    let mut peer = Shell::start(config_for(cluster.amqp_uri_from(1), "gc-2", 1));
    peer.dial(LINK).await.unwrap();
    assert_eq!(counted(&mut peer, LINK, "gc-1").await, Some(1));
    assert_eq!(counted(&mut peer, LINK, "gc-9").await, Some(0));
    let mut twin = Shell::start(config_for(cluster.amqp_uri_from(1), "gc-1", 2));
    twin.dial(LINK).await.unwrap();
    let refused = attach(&mut twin, LINK).await;
    assert_eq!(refused, Err("the id is in use".to_owned()));
    twin.broker.close().await;

    cluster.nodes_mut()[0].kill();
    shell.link_down().await;
    let begun = std::time::Instant::now();
    let mut link = 2;
    // Just after a death the survivors may not know it yet.
    while shell.dial(LinkEpoch(link)).await.is_err() {
        link += 1;
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    attach(&mut shell, LinkEpoch(link)).await.unwrap();
    println!("attached again after {:?}", begun.elapsed());
    assert_eq!(counted(&mut peer, LINK, "gc-1").await, Some(1));
    // Whether nobody consumes the one on the node that is down, nobody knows.
    shell.broker.close().await;
    peer.broker.close().await;
}

/// Somebody deletes the exchange of peer messages, or the bindings of a control queue: the queue
/// stays, and nobody is told.
#[tokio::test(flavor = "multi_thread")]
async fn bindings_of_the_control_queue_that_are_deleted_come_back() {
    let node = node("bindings").await;
    let mut shell = Shell::start(config(&node, "gc-1", 1));
    shell.dial(LINK).await.unwrap();
    attach(&mut shell, LINK).await.unwrap();
    let bound = async || {
        managed(&node, "bindings/%2F", |all| {
            let all = all.as_array()?.iter();
            let ours = all.filter(|binding| binding["source"] == "tandem.control");
            let keys: Vec<&str> = ours
                .filter_map(|binding| binding["routing_key"].as_str())
                .collect();
            let both = keys.contains(&"gc-1") && keys.contains(&"all");
            both.then_some(())
        })
        .await;
    };
    bound().await;
    let client = Client::connect(&node).await;
    let gone = client
        .channel
        .exchange_delete("tandem.control".into(), ExchangeDeleteOptions::default());
    gone.await.unwrap();
    bound().await;
    let queue = managed(&node, "bindings/%2F", |all| {
        let mut all = all.as_array()?.iter();
        let ours = all.find(|binding| binding["source"] == "tandem.control")?;
        Some(ours["destination"].as_str()?.to_owned())
    })
    .await;
    let unbound = client.channel.queue_unbind(
        queue.into(),
        "tandem.control".into(),
        "all".into(),
        lapin::types::FieldTable::default(),
    );
    unbound.await.unwrap();
    bound().await;
    shell.broker.close().await;
}
