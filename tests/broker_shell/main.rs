//! The broker shell against a real broker: what the engine would see and cause.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod broker_of_its_own;
mod held;
mod rig;
mod unanswered;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lapin::BasicProperties;
use lapin::options::{
    BasicPublishOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use rig::*;
use serde_json::Value;
use tandem::engine::Input;
use tandem::engine::command::{BrokerCommand, Outbound, ReplyRoute};
use tandem::engine::ids::{BootId, LinkEpoch, PublishId};
use tandem::engine::input::PublishOutcome;
use tandem::engine::peer::PeerMessage;
use tandem::engine::way::{Proof, Way};
use tandem::lab::{RabbitCluster, RabbitNode, RabbitOptions};
use tandem::wire::message::RawMessage;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

/// An address for direct replies that no broker has given.
const FORGED: &str = "amq.rabbitmq.reply-to.x.y";

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_events_and_replies_out() {
    let node = node("shell").await;
    let client = Client::connect(&node).await;
    let mut shell = Shell::start(config(&node, "gc-1", 1));
    shell.dial(LINK).await.unwrap();

    consuming_changes_priority_without_a_gap(&node, &client, &mut shell).await;
    publications_are_confirmed_or_returned(&client, &mut shell).await;
    deleted_objects_for_replies_are_made_again(&client, &mut shell).await;
    a_direct_reply_cannot_harm_the_link(&client, &mut shell).await;
    a_deleted_queue_is_a_lost_consumer_and_comes_back(&client, &mut shell).await;

    shell.execute(BrokerCommand::CloseLink { link: LINK });
    let rest = shell.rest().await;
    assert!(rest.is_empty(), "after an orderly end: {rest:?}");
    assert_eq!(client.waiting("Connector1").await, 0, "acknowledged");
    shell.broker.close().await;
}

async fn consuming_changes_priority_without_a_gap(
    node: &RabbitNode,
    client: &Client,
    shell: &mut Shell,
) {
    shell.consume(100, "gc-1.agents.follower.1").await;
    let first = consumers(node, "Connector1", 1).await;
    assert_eq!(first, [("gc-1.agents.follower.1".to_owned(), 100)]);
    client.send("Connector1", "Hello#crm-1", "").await;
    let held = shell.delivery().await;
    assert_eq!(held.command.as_ref().unwrap().spec.name, "Hello");
    assert_eq!(held.raw.message_id.as_deref(), Some("m-1"));

    shell.consume(127, "gc-1.agents.leader.2").await;
    let expected = ("gc-1.agents.leader.2".to_owned(), 127);
    let current = managed(node, "consumers/%2F", |all| {
        let all = all.as_array()?;
        let one = |queue: &str| {
            let mut found = all.iter().filter(|one| one["queue"]["name"] == queue);
            let first = found.next()?;
            let tag = first["consumer_tag"].as_str()?.to_owned();
            let only = found.next().is_none() && tag.contains("leader");
            only.then_some((tag, first["arguments"]["x-priority"].as_i64()?))
        };
        Some((one("Connector1")?, one("Connector2")?))
    })
    .await;
    assert_eq!(current.0, expected);
    assert_eq!(current.1.0, "gc-1.agents.leader.2.1");

    // Given to the cancelled consumer, settled after it.
    shell.execute(BrokerCommand::Requeue(held.id));
    let again = shell.delivery().await;
    assert!(again.raw.redelivered);
    shell.execute(BrokerCommand::Ack(again.id));
    client.send("Connector2", "nonsense", "x").await;
    let malformed = shell.delivery().await;
    assert!(malformed.command.is_err());
    shell.execute(BrokerCommand::Ack(malformed.id));
    let shown = managed(node, "connections", |all| {
        let shown: BTreeSet<String> = all
            .as_array()?
            .iter()
            .map(|one| &one["client_properties"])
            .filter_map(|said| {
                let word = |name: &str| said[name].as_str();
                Some(format!(
                    "{} {} {} {} {}: {}",
                    word("connection_name")?,
                    word("product")?,
                    word("version")?,
                    word("site")?,
                    word("purpose")?,
                    word("role")?,
                ))
            })
            .collect();
        (shown.len() == 2).then_some(shown)
    })
    .await;
    let expected = ["consume", "publish"].map(|purpose| {
        format!("tandem/gc-1/{purpose} tandem 0.0.1 site-1 {purpose}: active-passive priority 10")
    });
    assert_eq!(shown, expected.into());
}

async fn publications_are_confirmed_or_returned(client: &Client, shell: &mut Shell) {
    let (inbox, mut messages) = client.inbox().await;
    client
        .channel
        .queue_bind(
            inbox.clone().into(),
            "tandem.events".into(),
            "crm-1".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    assert_eq!(
        shell.publish(1, event("e-1")).await,
        PublishOutcome::Confirmed
    );
    let got = next(&mut messages).await;
    assert_eq!(
        got.properties.message_id().as_ref().unwrap().as_str(),
        "e-1"
    );

    // Many at once, every third to nowhere: each answer belongs to its own message.
    for id in 100..400 {
        let queue = if id % 3 == 0 {
            "nobody".to_owned()
        } else {
            inbox.clone()
        };
        shell.execute(BrokerCommand::Publish {
            id: PublishId(id),
            link: LINK,
            message: reply(ReplyRoute::Near(queue)),
        });
    }
    for _ in 100..400 {
        let (id, outcome) = shell
            .wait("published", |input| match input {
                Input::Published { publish, outcome } => Some((publish.0, outcome)),
                _ => None,
            })
            .await;
        let expected = if id % 3 == 0 {
            PublishOutcome::Untaken
        } else {
            PublishOutcome::Confirmed
        };
        assert_eq!(outcome, expected, "publication {id}");
    }
    for _ in 0..200 {
        assert_eq!(next(&mut messages).await.routing_key.as_str(), inbox);
    }
    let federated = reply(ReplyRoute::Far("nobody".into()));
    assert_eq!(shell.publish(2, federated).await, PublishOutcome::Untaken);
    let letter = Outbound::DeadLetter {
        raw: Arc::new(RawMessage::default()),
        reason: "no_type",
        detail: "the message names no command".into(),
    };
    assert_eq!(shell.publish(3, letter).await, PublishOutcome::Confirmed);
    assert_eq!(client.waiting("tandem.dead-letter").await, 1);
}

/// As the engine does: what failed is published again. Number 530 goes to nobody.
async fn published_until_told(shell: &mut Shell, inbox: &str) {
    let mut open: BTreeSet<u64> = (500..560).collect();
    let mut again: Vec<u64> = open.iter().copied().collect();
    while !open.is_empty() {
        for id in again.drain(..) {
            let route = match id {
                530 => ReplyRoute::Far("nobody".into()),
                _ => ReplyRoute::Near(inbox.to_owned()),
            };
            shell.execute(BrokerCommand::Publish {
                id: PublishId(id),
                link: LINK,
                message: reply_named(route, &format!("r-{id}")),
            });
        }
        let (id, outcome) = shell
            .wait("published", |input| match input {
                Input::Published { publish, outcome } => Some((publish.0, outcome)),
                Input::LinkDown { reason, .. } => panic!("the link is down: {reason}"),
                _ => None,
            })
            .await;
        match outcome {
            PublishOutcome::Failed => again.push(id),
            PublishOutcome::Untaken => assert!(id == 530 && open.remove(&id), "{id}"),
            PublishOutcome::Confirmed => assert!(id != 530 && open.remove(&id), "{id}"),
            PublishOutcome::Refused | PublishOutcome::Barred => {
                panic!("publication {id} was refused")
            }
        }
    }
}

/// The channel closes over it, and with it all replies of the same group.
async fn deleted_objects_for_replies_are_made_again(client: &Client, shell: &mut Shell) {
    client
        .channel
        .exchange_delete("tandem.replies".into(), ExchangeDeleteOptions::default())
        .await
        .unwrap();
    client
        .channel
        .queue_delete("tandem.dead-letter".into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    let (inbox, mut messages) = client.inbox().await;
    timeout(LIMIT, published_until_told(shell, &inbox))
        .await
        .expect("all are confirmed or returned");
    let mut heard = BTreeSet::new();
    while heard.len() < 59 {
        let message = next(&mut messages).await;
        heard.insert(
            message
                .properties
                .message_id()
                .as_ref()
                .unwrap()
                .to_string(),
        );
    }
    let parked = Outbound::ParkedReply {
        reply_to: "nobody".into(),
        reply: Arc::new(ok()),
        cause: tandem::model::Cause {
            correlation_id: None,
            trace: None,
        },
    };
    assert_eq!(
        shell.publish(6, parked.clone()).await,
        PublishOutcome::Untaken
    );
    shell.execute(BrokerCommand::DeclareDeadLetters { link: LINK });
    let proof = shell.proof(Way::DeadLetters).await;
    assert_eq!(proof, Proof::Passed);
    assert_eq!(shell.publish(7, parked).await, PublishOutcome::Confirmed);
    assert_eq!(client.waiting("tandem.dead-letter").await, 1);
}

/// A command of a client that wants its reply directly: where to.
async fn asked_directly(client: &Client, shell: &mut Shell) -> String {
    let properties = BasicProperties::default()
        .with_type("Hello#crm-1".into())
        .with_reply_to("amq.rabbitmq.reply-to".into());
    client
        .channel
        .basic_publish(
            "".into(),
            "Connector1".into(),
            BasicPublishOptions::default(),
            b"",
            properties,
        )
        .await
        .unwrap()
        .await
        .unwrap();
    let command = shell.delivery().await;
    let address = command.raw.reply_to.clone().unwrap();
    shell.execute(BrokerCommand::Ack(command.id));
    address
}

async fn a_direct_reply_cannot_harm_the_link(client: &Client, shell: &mut Shell) {
    // A forged address closes the connection that publishes to it.
    let forged = reply(ReplyRoute::Direct(FORGED.into()));
    assert_eq!(shell.publish(4, forged).await, PublishOutcome::Untaken);
    assert_eq!(
        shell.publish(5, event("e-2")).await,
        PublishOutcome::Confirmed
    );

    let mut answers = client.consume("amq.rabbitmq.reply-to").await;
    let address = asked_directly(client, shell).await;
    let honest = reply(ReplyRoute::Direct(address));
    assert_eq!(shell.publish(10, honest).await, PublishOutcome::Confirmed);
    let answer = timeout(LIMIT, answers.next()).await.unwrap().unwrap();
    let reply: Value = serde_json::from_slice(&answer.unwrap().data).unwrap();
    assert_eq!(reply["outcome"], "OK");
}

/// What is behind a forged address on the connection that it costs is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn forged_addresses_cost_no_honest_client_its_reply() {
    /// Of each kind.
    const REPLIES: u64 = 75;
    /// Between two pairs: fifty replies a second.
    const PAUSE: Duration = Duration::from_millis(40);
    let node = node("forged-direct").await;
    let client = Client::connect(&node).await;
    let mut shell = Shell::start(config(&node, "gc-1", 1));
    shell.dial(LINK).await.unwrap();
    shell.consume(1, "gc-1.agents.leader.1").await;
    let mut answers = client.consume("amq.rabbitmq.reply-to").await;
    let address = asked_directly(&client, &mut shell).await;
    let name = |id: u64| format!("r-{id}");
    for id in 1..=2 * REPLIES {
        let honest = id % 2 == 0;
        let to = match honest {
            true => address.clone(),
            false => FORGED.to_owned(),
        };
        shell.execute(BrokerCommand::Publish {
            id: PublishId(id),
            link: LINK,
            message: reply_named(ReplyRoute::Direct(to), &name(id)),
        });
        // Right behind the forged one.
        if honest {
            tokio::time::sleep(PAUSE).await;
        }
    }
    let mut told = BTreeMap::new();
    while told.len() < 2 * REPLIES as usize {
        let next = shell.wait("outcome", |input| match input {
            Input::Published { publish, outcome } => Some((publish.0, outcome)),
            _ => None,
        });
        let (id, outcome) = next.await;
        assert_eq!(told.insert(id, outcome), None, "told twice: {id}");
    }
    for (id, outcome) in &told {
        let right = match id % 2 == 0 {
            true => PublishOutcome::Confirmed,
            false => PublishOutcome::Untaken,
        };
        assert_eq!(*outcome, right, "{id}: {told:?}");
    }
    let mut missing: BTreeSet<String> = (1..=REPLIES).map(|n| name(2 * n)).collect();
    while !missing.is_empty() {
        let answer = timeout(LIMIT, answers.next()).await;
        let answer = answer.unwrap_or_else(|_| panic!("{missing:?}"));
        let id = answer.unwrap().unwrap().properties.message_id().clone();
        // One that was suspected may come twice, as every reply may.
        missing.remove(id.unwrap().as_str());
    }
    shell.broker.close().await;
}

async fn a_deleted_queue_is_a_lost_consumer_and_comes_back(client: &Client, shell: &mut Shell) {
    client
        .channel
        .queue_delete("Connector2".into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    let lost = shell
        .wait("lost", |input| match input {
            Input::ConsumerLost { tag, .. } => Some(tag),
            _ => None,
        })
        .await;
    assert_eq!(lost, "gc-1.agents.leader.2");
    shell.consume(127, "gc-1.agents.leader.3").await;
    client.send("Connector2", "Hello#crm-1", "").await;
    let delivery = shell.delivery().await;
    assert!(!delivery.raw.redelivered);
    shell.execute(BrokerCommand::Ack(delivery.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_meet_and_one_id_is_used_once() {
    let node = node("peers").await;
    let mut one = Shell::start(config(&node, "gc-1", 1));
    let mut two = Shell::start(config(&node, "gc-2", 2));
    for shell in [&mut one, &mut two] {
        shell.dial(LINK).await.unwrap();
        shell.execute(BrokerCommand::AttachControl { link: LINK });
        shell
            .wait("attached", |input| {
                matches!(input, Input::ControlAttached { .. }).then_some(())
            })
            .await;
    }
    let hello = Outbound::Peer {
        to: None,
        message: Box::new(PeerMessage::Hello),
    };
    assert_eq!(one.publish(1, hello).await, PublishOutcome::Confirmed);
    let heard = two
        .wait("peer", |input| match input {
            Input::Peer {
                from,
                boot,
                message,
            } => Some((from, boot, message)),
            _ => None,
        })
        .await;
    assert_eq!(heard, (instance("gc-1"), BootId(1), PeerMessage::Hello));
    for (peer, expected) in [("gc-2", 1), ("gc-9", 0), ("gc-2", 1)] {
        one.execute(BrokerCommand::CountPeerConsumers {
            link: LINK,
            peer: instance(peer),
        });
        let count = one
            .wait("count", |input| match input {
                Input::PeerConsumers { count, .. } => Some(count),
                _ => None,
            })
            .await;
        assert_eq!(count, expected, "{peer}");
    }

    let mut second = Shell::start(config(&node, "gc-1", 3));
    second.dial(LINK).await.unwrap();
    second.execute(BrokerCommand::AttachControl { link: LINK });
    let reason = second.link_down().await;
    assert!(reason.contains("another process uses the instance id gc-1"));
    let rest = one.rest().await;
    let own = |input: &Input| matches!(input, Input::Peer { .. } | Input::LinkDown { .. });
    assert!(
        !rest.iter().any(own),
        "the first one is undisturbed: {rest:?}"
    );
    for shell in [one, two, second] {
        shell.broker.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_is_one_link_down_and_can_be_dialled_again() {
    let mut node = node("killed").await;
    // An operator's own settings are kept.
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(5000));
    Client::connect(&node)
        .await
        .channel
        .queue_declare(
            "Connector2".into(),
            QueueDeclareOptions::durable(),
            arguments,
        )
        .await
        .unwrap();
    let mut shell = Shell::start(config(&node, "gc-1", 1));
    shell.dial(LINK).await.unwrap();
    shell.execute(BrokerCommand::AttachControl { link: LINK });
    shell.execute(BrokerCommand::ConsumeExpired { link: LINK });
    shell.consume(127, "gc-1.agents.leader.1").await;

    node.kill();
    let reason = shell.link_down().await;
    assert!(!reason.contains("guest"), "{reason}");
    let again = shell.rest().await;
    let down = |input: &Input| matches!(input, Input::LinkDown { .. });
    assert!(!again.iter().any(down), "{again:?}");
    let late = shell.publish(1, event("e-1")).await;
    assert_eq!(late, PublishOutcome::Failed);
    assert!(shell.dial(LinkEpoch(2)).await.is_err());

    node.start_again().await.unwrap();
    shell.dial(LinkEpoch(3)).await.unwrap();
    let outcome = shell.publish_on(LinkEpoch(3), 2, event("e-2")).await;
    assert_eq!(outcome, PublishOutcome::Confirmed);

    node.freeze();
    let reason = shell.link_down().await;
    node.thaw();
    assert!(reason.contains("lost"), "{reason}");
    shell.broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_short_of_memory_blocks_the_link_and_does_not_end_it() {
    let mut options = RabbitOptions::named("blocked");
    options.extra_config = "vm_memory_high_watermark.absolute = 1MB\n".into();
    let node = RabbitNode::start(options).await.unwrap();
    let mut shell = Shell::start(config(&node, "gc-1", 1));
    shell.dial(LINK).await.unwrap();
    shell.execute(BrokerCommand::Publish {
        id: PublishId(1),
        link: LINK,
        message: event("e-1"),
    });
    shell
        .wait("blocked", |input| {
            matches!(input, Input::LinkBlocked { blocked: true, .. }).then_some(())
        })
        .await;
    shell.consume(127, "gc-1.agents.leader.1").await;
    let rest = shell.rest().await;
    let down = |input: &Input| matches!(input, Input::LinkDown { .. });
    assert!(!rest.iter().any(down), "{rest:?}");
    shell.broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_told_without_the_password() {
    let node = node("refused").await;
    let mut config = config(&node, "gc-1", 1);
    config.brokers[0].uri = node.amqp_uri().replace(":guest@", ":planted-Passw0rd@");
    let mut shell = Shell::start(config);
    let reason = shell.dial(LINK).await.unwrap_err();
    assert!(reason.contains("ACCESS_REFUSED"), "{reason}");
    assert!(!reason.contains("planted-Passw0rd"), "{reason}");
    shell.broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_never_answers_is_given_up_and_its_sockets_are_closed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("amqp://guest:guest@{}/%2f", listener.local_addr().unwrap());
    let mut config = config_for(uri, "gc-1", 1);
    config.timeout = Duration::from_secs(1);
    let mut shell = Shell::start(config);
    let silent = tokio::spawn(async move {
        let mut open = Vec::new();
        for _ in 0..2 {
            open.push(listener.accept().await.unwrap().0);
        }
        for mut stream in open {
            let mut greeting = Vec::new();
            // Ends when the other side has closed.
            stream.read_to_end(&mut greeting).await.unwrap();
            assert!(greeting.starts_with(b"AMQP"));
        }
    });
    let reason = shell.dial(LINK).await.unwrap_err();
    assert!(reason.contains("not open within"), "{reason}");
    timeout(LIMIT, silent).await.unwrap().unwrap();
    shell.broker.close().await;
}
