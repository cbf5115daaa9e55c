//! The broker permissions of docs/security.md: enough for a pair and its clients, and no more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::json;
use support::pair::is_state;
use support::raw::{RawClient, poisons};
use support::{Desk, Pair, PairOptions, Wire, run, until};
use tandem::broker::guard;
use tandem::broker::topology::{self, Topology};

const PAGE: &str = include_str!("../docs/security.md");

/// Configure, write and read of a user, from the handbook's table, for this cluster.
fn patterns(who: &str, pair: &Pair) -> [String; 3] {
    let row = PAGE
        .lines()
        .find(|line| line.starts_with(&format!("| {who} | `^")));
    // A bar within the table is escaped.
    let cells: Vec<&str> = row.unwrap().split('`').skip(1).step_by(2).collect();
    let [configure, write, read] = cells[..] else {
        panic!("{cells:?}");
    };
    [configure, write, read].map(|pattern| {
        let pattern = pattern.replace("\\|", "|");
        pattern
            .replace("tandem", &pair.cluster)
            .replace("Connector1", &pair.queue)
    })
}

async fn user(pair: &Pair, name: &str, who: &str, tags: &str) {
    let [configure, write, read] = patterns(who, pair);
    let rights = json!({"configure": configure, "write": write, "read": read});
    for broker in 0..2 {
        let api = pair.manage(broker);
        let user = json!({"password": "pw", "tags": tags});
        api.put(&format!("users/{name}"), &user).await.unwrap();
        api.put(&format!("permissions/%2f/{name}"), &rights)
            .await
            .unwrap();
    }
}

fn uris(pair: &Pair, name: &str) -> Vec<String> {
    let login = format!("{name}:pw");
    pair.brokers
        .iter()
        .map(|uri| uri.replacen("guest:guest", &login, 1))
        .collect()
}

/// The pair's file with its brokers' user replaced.
fn log_in_as(pair: &mut Pair, name: &str) {
    for index in 0..2 {
        let config = pair.instance(index).config.clone();
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(
            &config,
            text.replace("guest:guest@", &format!("{name}:pw@")),
        )
        .unwrap();
    }
}

/// A refusal closes the channel, so each attempt has one of its own.
async fn channel(connection: &Connection) -> Channel {
    connection.create_channel().await.unwrap()
}

fn refused<T>(what: &str, result: lapin::Result<T>) {
    let error = result
        .err()
        .unwrap_or_else(|| panic!("{what}: was allowed"));
    let text = format!("{error:?}").to_uppercase();
    assert!(
        text.contains("ACCESS_REFUSED") || text.contains("ACCESSREFUSED"),
        "{what}: {text}"
    );
}

/// Publishing has no answer of its own: with confirms the channel's end is seen.
async fn publish(connection: &Connection, exchange: &str, key: &str) -> lapin::Result<()> {
    let channel = channel(connection).await;
    channel.confirm_select(Default::default()).await?;
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, b"x", properties);
    confirm.await?.await.map(drop)
}

#[test]
fn the_handbooks_permissions_are_enough_and_no_more() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default().instances(0)).await;
        let (instance, client) = (
            format!("{}-gc", pair.cluster),
            format!("{}-client", pair.cluster),
        );
        user(&pair, &instance, "instances", "monitoring,policymaker").await;
        user(&pair, &client, "clients", "").await;
        // The links log in as the instances do.
        let network = shared.network().await;
        let mut input = network.topology_input(
            &pair.cluster,
            &[&pair.queue],
            std::time::Duration::from_secs(30),
        );
        for uri in input.federation_uris.values_mut() {
            *uri = uri.replace("guest:guest", &format!("{instance}:pw"));
        }
        let report = topology::apply(&Topology::of(&input), Some(support::LIMIT)).await;
        assert!(report.is_complete(), "{report:?}");
        log_in_as(&mut pair, &instance);
        pair.gc1.start();
        pair.gc2.start();
        pair.gc1.becomes("leader").await;
        pair.gc2.becomes("follower").await;

        doctor_is_content(&pair).await;
        what_nobody_can_read_is_kept(&pair, &client).await;
        it_serves(&mut pair, &client).await;
        a_client_may_no_more(&pair, &client).await;
        an_instance_may_no_more(&pair, &instance).await;
        for instance in [&pair.gc1, &pair.gc2] {
            let log = instance.log_text();
            let refused = log
                .lines()
                .find(|line| line.to_lowercase().contains("access"));
            assert!(refused.is_none(), "{refused:?}");
        }
    });
}

/// Sign-in, call, events; from the other site; and over a failover.
async fn it_serves(pair: &mut Pair, client: &str) {
    let mut far = uris(pair, client);
    let near = Desk::open(far.clone(), &pair.cluster, &pair.queue, "near").await;
    far.rotate_left(1);
    let far = Desk::open(far, &pair.cluster, &pair.queue, "far").await;
    pair.sign_in(&near, &[1001]).await;
    pair.sign_in(&far, &[1002]).await;
    for (desk, agent) in [(&near, 1001), (&far, 1002)] {
        desk.expect(&format!("MakeReady#{agent}"), "", "ACCEPTED")
            .await;
        desk.event("ready", |event| is_state(event, agent, "READY"))
            .await;
        desk.expect(&format!("MakeCall#{agent}"), "0555123", "ACCEPTED")
            .await;
        desk.event("the call", |event| {
            event.field("type") == "InboundCall" || event.field("type") == "DialogStatus"
        })
        .await;
    }
    until("the broker's list is compared", async || {
        let text = pair.gc1.get("/metrics").await.unwrap_or_default();
        text.contains("tandem_consumer_proofs_total{group=\"agents\",result=\"listed\"}")
    })
    .await;
    pair.gc1.kill();
    pair.gc2.leads().await;
    near.expect("GetState#1001", "", "OK").await;
    far.expect("GetState#1002", "", "OK").await;
}

/// A client of least rights reaches every queue by its name: no link is lost for it.
async fn what_nobody_can_read_is_kept(pair: &Pair, client: &str) {
    let mut raw = RawClient::open(&uris(pair, client)[0]).await;
    let mut wire = Wire::open(pair, 0).await;
    for queue in ["expired", "control.gc-1", "control.gc-2", ""] {
        let queue = match queue {
            "" => pair.queue.clone(),
            own => format!("{}.{own}", pair.cluster),
        };
        for (id, flags, properties) in poisons(&queue) {
            raw.publish(("", queue.as_bytes()), flags, &properties)
                .await;
            let letter = wire.dead_letter(&id).await;
            assert_eq!(letter.reason, "unreadable_properties", "{id}");
        }
    }
    for instance in [&pair.gc1, &pair.gc2] {
        assert_eq!(instance.lost_links(), 0, "{}", instance.name);
    }
}

/// With the instances' own user, as `tandem doctor` logs in.
async fn doctor_is_content(pair: &Pair) {
    until("doctor finds nothing", async || {
        let config = pair.gc1.config.display().to_string();
        let words = ["doctor", "--config", &config].map(str::to_owned);
        let (code, text) = support::pair::tandem(words.to_vec()).await;
        assert!(!text.contains("refused"), "{text}");
        code == 0 && text.contains("4 federation links run")
    })
    .await;
}

async fn a_client_may_no_more(pair: &Pair, client: &str) {
    let uri = uris(pair, client).remove(0);
    let connection = guard::connect(uri.parse().unwrap(), ConnectionProperties::default())
        .await
        .unwrap();
    let cluster = &pair.cluster;
    for queue in [
        &pair.queue,
        &format!("{cluster}.control.gc-1"),
        &format!("{cluster}.dead-letter"),
    ] {
        let channel = channel(&connection).await;
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            options,
            FieldTable::default(),
        );
        refused(&format!("consume {queue}"), consume.await);
    }
    for name in ["events", "replies", "control"] {
        let exchange = format!("{cluster}.{name}");
        refused(
            &format!("publish to {exchange}"),
            publish(&connection, &exchange, "near").await,
        );
    }
    publish(&connection, "", "nobodys-queue").await.unwrap();
    let own = channel(&connection).await;
    let queue = "events.of-a-test";
    let declare = own.queue_declare(
        queue.into(),
        QueueDeclareOptions::default(),
        FieldTable::default(),
    );
    declare.await.unwrap();
    let bind = async |exchange: String| {
        let channel = channel(&connection).await;
        let options = QueueBindOptions::default();
        let bind = channel.queue_bind(
            queue.into(),
            exchange.into(),
            "x".into(),
            options,
            FieldTable::default(),
        );
        bind.await
    };
    bind(format!("{cluster}.events")).await.unwrap();
    refused(
        "hear the instances",
        bind(format!("{cluster}.control")).await,
    );
    own.queue_delete(queue.into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    let delete = channel(&connection).await;
    let command_queue = pair.queue.as_str().into();
    refused(
        "delete the command queue",
        delete
            .queue_delete(command_queue, QueueDeleteOptions::default())
            .await,
    );
    let delete = channel(&connection).await;
    let events = format!("{cluster}.events").into();
    refused(
        "delete an exchange",
        delete
            .exchange_delete(events, ExchangeDeleteOptions::default())
            .await,
    );
}

async fn an_instance_may_no_more(pair: &Pair, instance: &str) {
    let uri = uris(pair, instance).remove(0);
    let connection = guard::connect(uri.parse().unwrap(), ConnectionProperties::default())
        .await
        .unwrap();
    let foreign = "anothers-queue";
    let declare = channel(&connection).await;
    let options = QueueDeclareOptions::default();
    let declared = declare
        .queue_declare(foreign.into(), options, FieldTable::default())
        .await;
    refused("declare a foreign queue", declared);
    let api = pair.manage(0);
    api.put(&format!("queues/%2f/{foreign}"), &json!({"durable": true}))
        .await
        .unwrap();
    let channel = channel(&connection).await;
    let options = BasicConsumeOptions::default();
    let consume = channel.basic_consume(foreign.into(), "".into(), options, FieldTable::default());
    refused("consume a foreign queue", consume.await);
    refused(
        "publish elsewhere",
        publish(&connection, "amq.topic", "x").await,
    );
    assert!(api.delete(&format!("queues/%2f/{foreign}")).await.unwrap());
}
