//! The client library on two real brokers, with a stand-in for the connector that answers what it
//! is told to.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tandem::broker::guard;
use tandem::client::{Client, ClientError, ClientOptions, Command, Inbox, Incoming, Message};
use tandem::lab::BrokerNetwork;
use tokio::sync::mpsc;

const QUEUE: &str = "Connector1";
const LIMIT: Duration = Duration::from_secs(90);

/// Takes commands on one broker, tells of each, and answers while `answering` is set.
struct StandIn {
    seen: mpsc::Receiver<(String, i64)>,
    answering: Arc<AtomicBool>,
    connection: Connection,
}

impl StandIn {
    async fn start(uri: &str) -> Self {
        let connection = guard::connect(uri.parse().unwrap(), ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let durable = QueueDeclareOptions::durable();
        channel
            .queue_declare(QUEUE.into(), durable, FieldTable::default())
            .await
            .unwrap();
        let mut consumer = channel
            .basic_consume(
                QUEUE.into(),
                "stand-in".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        let (told, seen) = mpsc::channel(100);
        let answering = Arc::new(AtomicBool::new(true));
        let answers = Arc::clone(&answering);
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                let given = &delivery.properties;
                let id = given.message_id().as_ref().unwrap().to_string();
                let headers = given.headers().as_ref().unwrap().inner();
                let attempt = match headers.get("x-attempt") {
                    Some(AMQPValue::LongInt(n)) => i64::from(*n),
                    other => panic!("x-attempt {other:?}"),
                };
                let _ = told.send((id, attempt)).await;
                if answers.load(Ordering::Relaxed) {
                    let properties = BasicProperties::default()
                        .with_correlation_id(given.correlation_id().clone().unwrap());
                    let reply_to = given.reply_to().clone().unwrap();
                    let body = br#"{"type":"Reply","outcome":"OK"}"#;
                    let options = BasicPublishOptions::default();
                    channel
                        .basic_publish("".into(), reply_to, options, body, properties)
                        .await
                        .unwrap();
                }
                let _ = delivery.acker.ack(BasicAckOptions::default()).await;
            }
        });
        Self {
            seen,
            answering,
            connection,
        }
    }

    async fn seen(&mut self) -> (String, i64) {
        let seen = tokio::time::timeout(LIMIT, self.seen.recv()).await;
        seen.expect("a command in time").expect("a command")
    }

    /// Sends an event to a destination.
    async fn event(&self, destination: &str, body: &str) {
        let channel = self.connection.create_channel().await.unwrap();
        channel
            .basic_publish(
                "tandem.events".into(),
                destination.into(),
                BasicPublishOptions::default(),
                body.as_bytes(),
                BasicProperties::default(),
            )
            .await
            .unwrap()
            .await
            .unwrap();
    }
}

async fn next(inbox: &mut Inbox) -> Incoming {
    let news = tokio::time::timeout(LIMIT, inbox.next()).await;
    news.expect("something in time").expect("something")
}

async fn reply_to(inbox: &mut Inbox, id: &str) -> Message {
    loop {
        if let Incoming::Reply(reply) = next(inbox).await
            && reply.correlation_id.as_deref() == Some(id)
        {
            return reply;
        }
    }
}

async fn event(inbox: &mut Inbox) -> Message {
    loop {
        if let Incoming::Event(event) = next(inbox).await {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_and_events_arrive_and_outlive_the_broker() {
    let mut network = BrokerNetwork::start(2).await.unwrap();
    let uris = network.uris_from(0);
    let mut first = StandIn::start(&uris[0]).await;
    let mut second = StandIn::start(&uris[1]).await;
    let (client, mut inbox) = Client::connect(uris.clone(), ClientOptions::new("desk"))
        .await
        .unwrap();

    let sent = client.send(Command::new("Hello#desk", "")).await.unwrap();
    assert_eq!(first.seen().await, (sent.clone(), 1));
    assert_eq!(reply_to(&mut inbox, &sent).await.field("outcome"), "OK");
    first.event("desk", r#"{"type":"System"}"#).await;
    let got = event(&mut inbox).await;
    assert_eq!(
        (got.field("type"), got.routing_key.as_str()),
        ("System", "desk")
    );

    // Confirmed, never answered, and then the broker is gone.
    first.answering.store(false, Ordering::Relaxed);
    let waiting = Command::new("MakeReady#1001", "").with_id("w-1");
    client.send(waiting).await.unwrap();
    assert_eq!(first.seen().await, ("w-1".to_owned(), 1));
    network.node(0).unwrap().kill();

    // The same id reaches the other broker as a resend, and new commands go there too.
    assert_eq!(second.seen().await, ("w-1".to_owned(), 2));
    assert_eq!(reply_to(&mut inbox, "w-1").await.field("outcome"), "OK");
    let sent = client.send(Command::new("Hello#desk", "")).await.unwrap();
    assert_eq!(reply_to(&mut inbox, &sent).await.field("outcome"), "OK");
    second.event("desk", r#"{"type":"State"}"#).await;
    assert_eq!(event(&mut inbox).await.field("type"), "State");
    assert!(client.broker().unwrap().ends_with(&port(&network, 1)));
}

fn port(network: &BrokerNetwork, node: usize) -> String {
    network.nodes()[node].amqp_port().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sent_while_no_broker_serves_goes_out_when_one_does() {
    let mut network = BrokerNetwork::start(1).await.unwrap();
    let uris = network.uris_from(0);
    let stand_in = StandIn::start(&uris[0]).await;
    let (client, mut inbox) = Client::connect(uris.clone(), ClientOptions::new("desk"))
        .await
        .unwrap();
    network.node(0).unwrap().kill();
    let sending = tokio::spawn({
        let client = client.clone();
        async move {
            client
                .send(Command::new("Hello#desk", "").with_id("x"))
                .await
        }
    });
    while client.broker().is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(stand_in);
    network.node(0).unwrap().start_again().await.unwrap();
    let _answering = StandIn::start(&uris[0]).await;
    assert_eq!(sending.await.unwrap().unwrap(), "x");
    assert_eq!(reply_to(&mut inbox, "x").await.field("outcome"), "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_the_command_queue_is_refused_and_a_good_end_leaves_no_queue() {
    let network = BrokerNetwork::start(1).await.unwrap();
    let uris = network.uris_from(0);
    let mut options = ClientOptions::new("desk");
    options.first_limit = Duration::from_millis(100);
    let error = Client::connect(uris.clone(), options).await.err().unwrap();
    assert!(
        matches!(&error, ClientError::Refused { reason, .. } if reason.contains(QUEUE)),
        "{error}"
    );

    let _stand_in = StandIn::start(&uris[0]).await;
    let (client, mut inbox) = Client::connect(uris, ClientOptions::new("desk"))
        .await
        .unwrap();
    drop(client);
    let end = async { while inbox.next().await.is_some() {} };
    tokio::time::timeout(LIMIT, end).await.unwrap();
    let management = network.nodes()[0].management().unwrap();
    for _ in 0..600 {
        let queues = management.get("queues").await.unwrap().unwrap_or_default();
        let names = queues.as_array().unwrap().iter();
        let names: Vec<_> = names.filter_map(|queue| queue["name"].as_str()).collect();
        if names == [QUEUE] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the client's queues are still there");
}
