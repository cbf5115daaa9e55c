//! A client without manners: publishes any message as it is, and reads queues.

use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;

use super::{Pair, wait_for};

/// A message taken from a queue.
#[derive(Debug, Clone)]
pub struct Letter {
    /// `message_id`.
    pub message_id: String,
    /// `correlation_id`.
    pub correlation_id: String,
    /// `type`.
    pub kind: String,
    /// All properties and headers as text, to look for what must not be there.
    pub properties: String,
    /// Header `x-reason`.
    pub reason: String,
    /// Header `x-original-queue`.
    pub queue: String,
    /// Body.
    pub body: Vec<u8>,
}

impl Letter {
    /// The body as JSON; `Null` where it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A connection to one broker.
pub struct Wire {
    _connection: Connection,
    channel: Channel,
    queue: String,
    dead_letters: String,
    /// What was taken from the dead letters and not asked for yet.
    taken: Vec<Letter>,
}

impl Wire {
    /// Connects to broker 1 (0) or 2 of a pair.
    pub async fn open(pair: &Pair, broker: usize) -> Self {
        Self::open_at(pair, &pair.brokers[broker]).await
    }

    /// Connects to this address.
    pub async fn open_at(pair: &Pair, uri: &str) -> Self {
        Self::of(uri, &pair.queue, &pair.cluster).await
    }

    /// Connects to a broker for a command queue of a cluster.
    pub async fn of(uri: &str, queue: &str, cluster: &str) -> Self {
        let properties = ConnectionProperties::default();
        let uri = uri.parse().expect("a URI");
        let connection = tandem::broker::guard::connect(uri, properties).await;
        let connection = connection.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        confirms.await.expect("confirms");
        Self {
            _connection: connection,
            channel,
            queue: queue.to_owned(),
            dead_letters: format!("{cluster}.dead-letter"),
            taken: Vec::new(),
        }
    }

    /// Puts a message into the command queue.
    pub async fn publish(&self, properties: BasicProperties, body: &[u8]) {
        self.publish_to(&self.queue, properties, body).await;
    }

    /// Puts a message into a queue.
    pub async fn publish_to(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions::default();
        let sent = self
            .channel
            .basic_publish("".into(), queue.into(), options, body, properties);
        let confirm = sent.await.expect("the broker takes it");
        assert!(confirm.await.expect("a confirm").is_ack());
    }

    /// Publishes through an exchange, from which a queue must get it.
    pub async fn publish_through(
        &self,
        (exchange, key): (&str, &str),
        properties: BasicProperties,
        body: &[u8],
    ) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let sent =
            (self.channel).basic_publish(exchange.into(), key.into(), options, body, properties);
        let confirm = sent.await.expect("the broker takes it");
        let confirm = confirm.await.expect("a confirm");
        assert_eq!(confirm, lapin::Confirmation::Ack(None), "{exchange} {key}");
    }

    /// A queue of this connection alone.
    pub async fn exclusive_queue(&self) -> String {
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self
            .channel
            .queue_declare("".into(), options, FieldTable::default());
        queue.await.expect("a queue").name().to_string()
    }

    /// Takes the next message of a queue, where there is one.
    pub async fn take(&self, queue: &str) -> Option<Letter> {
        let options = BasicGetOptions { no_ack: true };
        let got = self.channel.basic_get(queue.into(), options).await;
        got.expect("the queue exists").as_ref().map(letter)
    }

    /// Waits for the next message of a queue.
    pub async fn next(&self, queue: &str) -> Letter {
        wait_for(&format!("a message in {queue}"), async || {
            self.take(queue).await
        })
        .await
    }

    /// Waits for the dead letter of a message, by `message_id` or `correlation_id`.
    pub async fn dead_letter(&mut self, id: &str) -> Letter {
        let queue = self.dead_letters.clone();
        let mut taken = std::mem::take(&mut self.taken);
        let (channel, what) = (&*self, format!("the dead letter of {id}"));
        let found = wait_for(&what, async || {
            while let Some(letter) = channel.take(&queue).await {
                taken.push(letter);
            }
            let mine = |letter: &Letter| letter.message_id == id || letter.correlation_id == id;
            let at = taken.iter().position(mine)?;
            Some(taken.remove(at))
        })
        .await;
        self.taken = taken;
        found
    }

    /// Dead letters that are there and were not asked for.
    pub async fn other_dead_letters(&mut self) -> Vec<Letter> {
        while let Some(letter) = self.take(&self.dead_letters).await {
            self.taken.push(letter);
        }
        std::mem::take(&mut self.taken)
    }
}

fn letter(got: &BasicGetMessage) -> Letter {
    let properties = &got.delivery.properties;
    let text = |value: &Option<lapin::types::ShortString>| {
        value.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    let headers = properties.headers().clone().unwrap_or_default();
    let header = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        _ => String::new(),
    };
    Letter {
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        kind: text(properties.kind()),
        properties: format!("{properties:?}"),
        reason: header("x-reason"),
        queue: header("x-original-queue"),
        body: got.delivery.data.clone(),
    }
}

/// Properties of a command with an id.
pub fn command(kind: &str, id: &str) -> BasicProperties {
    BasicProperties::default()
        .with_type(kind.into())
        .with_message_id(id.into())
        .with_correlation_id(id.into())
        .with_delivery_mode(2)
}

/// The same with a header.
pub fn with_header(properties: BasicProperties, name: &str, value: AMQPValue) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(name.into(), value);
    properties.with_headers(headers)
}
