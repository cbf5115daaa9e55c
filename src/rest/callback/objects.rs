//! What callbacks have at a broker: the registry of who is called where, and one queue a
//! destination.

use lapin::options::{BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use serde::{Deserialize, Serialize};

use crate::clock::wall_ms;
use crate::model::brokers::QueueType;

/// Key of registrations on the events exchange: no destination can be called so, as `|` stands in
/// none.
const KEY: &str = "callbacks|registered";
const PERSISTENT: u8 = 2;
/// Longest name of a queue, bytes.
const MAX_NAME: usize = 255;
/// Events that wait for one destination; beyond it the broker drops the oldest.
pub(super) const QUEUE_LENGTH: i32 = 10_000;
/// The same in bytes.
const QUEUE_BYTES: i32 = 64 * 1024 * 1024;
/// A queue that nobody takes from goes after this, milliseconds: both instances were away so long.
const QUEUE_EXPIRES: i32 = 6 * 3_600_000;
/// Registrations that wait while no instance is there; the oldest go first.
const REGISTRY_LENGTH: i32 = 10_000;
/// How often a message of a quorum queue may come back. What is held is returned with every
/// connection that is lost, and must not be dropped for it.
const RETURNS: i32 = 1_000_000;

/// That the events of a destination go to a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::rest) struct Registration {
    pub(super) destination: String,
    pub(super) url: String,
    /// When the client said so, milliseconds since the epoch: the later one counts.
    pub(super) at: u64,
    /// When it, or an event that it took, was last heard of.
    pub(super) seen: u64,
}

impl Registration {
    pub(in crate::rest) fn new(destination: &str, url: String, now: u64) -> Self {
        Self {
            destination: destination.to_owned(),
            url,
            at: now,
            seen: now,
        }
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

/// An error of a declaration in words, and what can be done where there is a queue of that name.
pub(super) fn explained(error: &lapin::Error) -> String {
    let words = error.to_string();
    match words.contains("PRECONDITION_FAILED") {
        true => format!(
            "{words}: it exists with other properties (of another queue.type, or made by hand); \
             delete it and it is made anew, without what waits in it"
        ),
        false => words,
    }
}

/// The names of one cluster's objects, and how its queues are declared.
#[derive(Debug, Clone)]
pub struct Objects {
    /// `cluster.name`.
    pub cluster: String,
    /// `queue.type`: on a cluster of brokers the registry must not be on one node.
    pub queue_type: QueueType,
}

impl Objects {
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

    async fn declare(
        &self,
        channel: &Channel,
        (queue, key): (ShortString, &str),
        numbers: &[(&str, i32)],
    ) -> lapin::Result<()> {
        let durable = QueueDeclareOptions::durable();
        let arguments = self.arguments(numbers);
        channel
            .queue_declare(queue.clone(), durable, arguments)
            .await?;
        let bind = QueueBindOptions::default();
        // A destination is 200 bytes at most.
        let key = ShortString::from(key);
        let bound = channel.queue_bind(queue, self.exchange(), key, bind, FieldTable::default());
        bound.await
    }

    pub(super) async fn declare_registry(&self, channel: &Channel) -> lapin::Result<()> {
        let bounds = [("x-max-length", REGISTRY_LENGTH)];
        self.declare(channel, (self.registry(), KEY), &bounds).await
    }

    pub(super) async fn declare_queue(
        &self,
        channel: &Channel,
        destination: &str,
        queue: ShortString,
    ) -> lapin::Result<()> {
        let bounds = [
            ("x-max-length", QUEUE_LENGTH),
            ("x-max-length-bytes", QUEUE_BYTES),
            ("x-expires", QUEUE_EXPIRES),
        ];
        self.declare(channel, (queue, destination), &bounds).await
    }

    /// Makes everything that a registration needs, then publishes it; done once the broker has it.
    ///
    /// # Errors
    /// In words; the channel may be closed.
    pub(in crate::rest) async fn register(
        &self,
        channel: &Channel,
        registration: &Registration,
    ) -> Result<(), String> {
        let destination = registration.destination.as_str();
        let words = |error: lapin::Error| explained(&error);
        let queue = self.queue(destination);
        let queue = queue.ok_or("the destination's name is too long for a queue's")?;
        self.declare_registry(channel).await.map_err(words)?;
        self.declare_queue(channel, destination, queue)
            .await
            .map_err(words)?;
        // From now on its events wait here: what other brokers are told as the time of the move.
        let now = wall_ms();
        let registration = Registration {
            at: now,
            seen: now,
            ..registration.clone()
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
