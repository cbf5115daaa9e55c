//! What callbacks have at a broker: the registry of who is called where, and one queue a
//! destination.

use lapin::options::{BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use serde::{Deserialize, Serialize};

use super::existing::{self, Difference, Known};
use crate::broker::guard;
use crate::clock::wall_ms;
use crate::model::brokers::QueueType;

/// Key of registrations on the events exchange: no destination can be called so, as `|` stands in
/// none.
const KEY: &str = "callbacks|registered";
const PERSISTENT: u8 = 2;
/// Longest name of a queue, bytes.
const MAX_NAME: usize = 255;
/// Events that wait for one destination; beyond it the broker drops the oldest.
const QUEUE_LENGTH: i32 = 10_000;
/// The same in bytes.
const QUEUE_BYTES: i32 = 64 * 1024 * 1024;
/// A queue that nobody takes from goes after this, milliseconds: both instances were away so long.
const QUEUE_EXPIRES: i32 = 6 * 3_600_000;
/// Registrations that wait while no instance is there; the oldest go first.
const REGISTRY_LENGTH: i32 = 10_000;
/// How often a message of a quorum queue may come back. What is held is returned with every
/// connection that is lost, and must not be dropped for it.
const RETURNS: i32 = 1_000_000;
const REGISTRY_BOUNDS: [(&str, i32); 1] = [("x-max-length", REGISTRY_LENGTH)];
const QUEUE_BOUNDS: [(&str, i32); 3] = [
    ("x-max-length", QUEUE_LENGTH),
    ("x-max-length-bytes", QUEUE_BYTES),
    ("x-expires", QUEUE_EXPIRES),
];

/// That the events of a destination go to a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::rest) struct Registration {
    pub(super) destination: String,
    pub(super) url: String,
    /// When the client said so, milliseconds since the epoch: the later one counts.
    pub(super) at: u64,
    /// When it, or an event that it took, was last heard of.
    pub(super) seen: u64,
    /// What the broker is called where its events wait; empty in those of an instance of before.
    #[serde(default)]
    pub(super) home: String,
    /// It is the client's own word, not what a keeper says again of it.
    #[serde(default)]
    pub(super) said: bool,
}

impl Registration {
    pub(in crate::rest) fn new(destination: &str, url: String, now: u64) -> Self {
        Self {
            destination: destination.to_owned(),
            url,
            at: now,
            seen: now,
            home: String::new(),
            said: false,
        }
    }

    /// The same, at this broker.
    pub(super) fn at_home(self, broker: &str) -> Self {
        let home = broker.to_owned();
        Self { home, ..self }
    }

    #[cfg(test)]
    pub(in crate::rest) fn is(&self, destination: &str, url: &str) -> bool {
        self.destination == destination && self.url == url
    }

    /// Which of two of one destination counts; the URL only makes it one for everybody.
    pub(super) fn rank(&self) -> (u64, &str) {
        (self.at, &self.url)
    }
}

/// An error of the library's in words.
fn said(error: lapin::Error) -> String {
    guard::note(&error);
    error.to_string()
}

/// The names of one cluster's objects, and how its queues are declared.
#[derive(Debug, Clone)]
pub struct Objects {
    cluster: String,
    queue_type: QueueType,
    odd: Known,
}

/// A queue, its key on the events exchange, and what bounds it.
struct Queue<'a> {
    name: ShortString,
    key: &'a str,
    bounds: &'static [(&'static str, i32)],
}

impl Objects {
    /// Those of `cluster.name`. Its queues are of `queue.type`: on a cluster of brokers the registry
    /// must not be on one node.
    #[must_use]
    pub fn new(cluster: &str, queue_type: QueueType) -> Self {
        Self {
            cluster: cluster.to_owned(),
            queue_type,
            odd: Known::default(),
        }
    }

    pub(super) fn exchange(&self) -> ShortString {
        // A cluster's name is 64 characters at most.
        ShortString::from(format!("{}.events", self.cluster))
    }

    pub(super) fn registry(&self) -> ShortString {
        ShortString::from(format!("{}.callbacks", self.cluster))
    }

    /// The queue of a destination; `None` where it would be longer than a name may be.
    pub(super) fn queue(&self, destination: &str) -> Option<ShortString> {
        let name = format!("{}.callback.{destination}", self.cluster);
        (name.len() <= MAX_NAME).then(|| ShortString::from(name))
    }

    /// A durable queue of which one consumer at a time gets messages; the next one gets all that
    /// was not acknowledged, in its old order.
    fn arguments(&self, numbers: &[(&str, i32)]) -> FieldTable {
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString(self.queue_type.as_str().into());
        arguments.insert("x-queue-type".into(), kind);
        let one = AMQPValue::Boolean(true);
        arguments.insert("x-single-active-consumer".into(), one);
        for (name, number) in numbers {
            arguments.insert((*name).into(), AMQPValue::LongInt(*number));
        }
        if self.queue_type == QueueType::Quorum {
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(RETURNS));
        }
        arguments
    }

    /// Makes a queue and binds it, or binds one that exists with other properties and serves: that
    /// is told once in a while. On a channel of its own, as a refusal closes it.
    ///
    /// # Errors
    /// In words that say what to do about a queue that does not serve.
    async fn declare(
        &self,
        (connection, broker): (&Connection, &str),
        queue: &Queue<'_>,
    ) -> Result<(), String> {
        let name = &queue.name;
        if self.odd.has(broker, name) {
            match self.bind(connection, queue, true).await {
                Ok(()) => return Ok(()),
                // Deleted, as was advised: it is made anew.
                Err(_) => self.odd.forget(broker, name),
            }
        }
        match self.bind(connection, queue, false).await {
            Ok(()) => return Ok(()),
            Err(error) if existing::refusal(&error).is_some() => {}
            Err(error) => return Err(said(error)),
        }
        let arguments = self.arguments(queue.bounds);
        let differences = existing::examine(connection, name, arguments).await?;
        if !differences.is_empty() {
            let differences = existing::listed(&differences);
            tracing::warn!(broker, queue = %name, differences, "callbacks: a queue exists with other properties; it serves, and is used as it is");
            self.odd.note(broker, name);
        }
        self.bind(connection, queue, true).await.map_err(said)
    }

    /// `as_it_is`: a queue that exists, whatever its properties.
    async fn bind(
        &self,
        connection: &Connection,
        queue: &Queue<'_>,
        as_it_is: bool,
    ) -> lapin::Result<()> {
        let options = QueueDeclareOptions {
            passive: as_it_is,
            ..QueueDeclareOptions::durable()
        };
        let channel = connection.create_channel().await?;
        let (name, arguments) = (queue.name.clone(), self.arguments(queue.bounds));
        channel.queue_declare(name, options, arguments).await?;
        let bind = QueueBindOptions::default();
        // A destination is 200 bytes at most.
        let (name, key) = (queue.name.clone(), ShortString::from(queue.key));
        let bound = channel.queue_bind(name, self.exchange(), key, bind, FieldTable::default());
        bound.await?;
        channel.close(200, "OK".into()).await
    }

    fn of_registry(&self) -> Queue<'static> {
        Queue {
            name: self.registry(),
            key: KEY,
            bounds: &REGISTRY_BOUNDS,
        }
    }

    pub(super) async fn declare_registry(&self, at: (&Connection, &str)) -> Result<(), String> {
        self.declare(at, &self.of_registry()).await
    }

    pub(super) async fn declare_queue(
        &self,
        at: (&Connection, &str),
        destination: &str,
        name: ShortString,
    ) -> Result<(), String> {
        let (key, bounds) = (destination, &QUEUE_BOUNDS);
        self.declare(at, &Queue { name, key, bounds }).await
    }

    /// How a queue as the management API lists it differs from one that would be made; `None` where
    /// it is none of callbacks.
    pub(crate) fn compared(&self, live: &serde_json::Value) -> Option<Vec<Difference>> {
        let name = live["name"].as_str()?;
        let bounds: &[(&str, i32)] = match name.strip_prefix(&format!("{}.callback", self.cluster))
        {
            Some("s") => &REGISTRY_BOUNDS,
            Some(rest) if rest.starts_with('.') => &QUEUE_BOUNDS,
            _ => return None,
        };
        Some(existing::compared(&self.arguments(bounds), live))
    }

    /// Makes everything that a registration needs, then publishes it; done once the broker has it.
    ///
    /// # Errors
    /// In words; the channel may be closed.
    pub(in crate::rest) async fn register(
        &self,
        at: (&Connection, &str),
        channel: &Channel,
        registration: &Registration,
    ) -> Result<(), String> {
        let destination = registration.destination.as_str();
        let queue = self.queue(destination);
        let queue = queue.ok_or("the destination's name is too long for a queue's")?;
        self.declare_registry(at).await?;
        self.declare_queue(at, destination, queue).await?;
        // From now on its events wait here: what other brokers are told as the time of the move.
        let now = wall_ms();
        let registration = Registration {
            at: now,
            seen: now,
            said: true,
            ..registration.clone().at_home(at.1)
        };
        self.publish(channel, &registration).await
    }

    /// Publishes a registration, to this broker's registry and by federation to the others'.
    pub(super) async fn publish(
        &self,
        channel: &Channel,
        registration: &Registration,
    ) -> Result<(), String> {
        let words = |error: lapin::Error| error.to_string();
        let body = serde_json::to_vec(registration).map_err(|error| error.to_string())?;
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT);
        let key = ShortString::from(KEY);
        let sent = channel.basic_publish(self.exchange(), key, options, &body, properties);
        match sent.await.map_err(words)?.await.map_err(words)? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err("there is no registry".to_owned()),
            _ => Err("the broker refuses the registration".to_owned()),
        }
    }
}
