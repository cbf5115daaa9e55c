//! The dead letters of one broker: read without taking them away, sent again, or thrown away.
//!
//! Letters are got without being acknowledged: what is neither sent again nor thrown away goes
//! back to its place when the connection ends, whatever ends it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ConnectionProperties};
use sha2::{Digest as _, Sha256};

use super::link::{ANSWER_LIMIT, Broker, Failure, brokers, connect_any, short};
use super::{ClientError, ClientOptions};
use crate::broker::cut::CutConnection;
use crate::model::text::hex;
use crate::wire::command::REPLY_TO_FORBIDDEN;
use crate::wire::message::epoch_ms;

/// Most letters that are read of one broker.
pub const MAX_LETTERS: usize = 10_000;
/// Characters of a letter's key.
const KEY: usize = 12;
const PERSISTENT: u8 = 2;
/// Headers that a command may keep; the others tell why it is a dead letter.
const KEPT: &[&str] = &["traceparent", "tracestate"];

/// Headers that name the queue it came from: the connector's own, and those of brokers that put a
/// message aside by themselves.
const QUEUES: [&str; 3] = [
    "x-original-queue",
    "x-last-death-queue",
    "x-first-death-queue",
];

/// One dead letter.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Made from its content: the same at every look.
    pub key: String,
    /// `message_id`.
    pub id: Option<String>,
    /// `type`: `Command#agent`.
    pub kind: Option<String>,
    /// `correlation_id`.
    pub correlation: Option<String>,
    /// Header `x-reason`.
    pub reason: String,
    /// Command and agent where its body says them and its type does not (header `x-command`).
    pub command: Option<String>,
    /// Its `reply_to`, or header `x-original-reply-to`.
    pub reply_to: Option<String>,
    /// Its `timestamp` in milliseconds since the epoch, whatever unit its client counts in: when
    /// its client sent it.
    pub sent_ms: Option<u64>,
    /// The command queue that it says it came from.
    pub queue: Option<String>,
    /// Headers as text.
    pub headers: BTreeMap<String, String>,
    /// `content_type`.
    pub content_type: Option<String>,
    /// Body.
    pub body: Vec<u8>,
    tag: u64,
}

impl Letter {
    /// What it would do: `Command#agent`, or the type that it has.
    #[must_use]
    pub fn what(&self) -> Option<&str> {
        self.command.as_deref().or(self.kind.as_deref())
    }

    /// Whom its command is for.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        self.what()?.split_once('#').map(|(_, id)| id)
    }

    /// Whether length and hash stand in place of its body.
    #[must_use]
    pub fn redacted(&self) -> bool {
        let json = serde_json::from_slice::<serde_json::Value>(&self.body);
        json.is_ok_and(|body| body["redacted"] == true && body["sha256"].is_string())
    }

    /// Whether it goes by that name: its key, or its message id.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.key == name || self.id.as_deref() == Some(name)
    }

    /// Why it cannot be sent again.
    #[must_use]
    pub fn stuck(&self) -> Option<&'static str> {
        if self.redacted() {
            return Some(
                "its body was redacted (it could not be read, or has a password): only its client can \
                 send it again",
            );
        }
        match self.what() {
            Some(kind) if kind.contains('#') => None,
            _ => Some("it is no command: nothing says what it would do"),
        }
    }
}

/// The dead letters of one broker.
pub struct Letters {
    connection: CutConnection,
    channel: Channel,
    /// Its `host:port`.
    pub broker: String,
    queue: String,
}

impl Letters {
    /// Connects to each broker of the list and looks for its dead letters; one result a broker.
    ///
    /// # Errors
    /// A URL cannot be read, or the certificates cannot be used.
    pub async fn open(
        uris: &[String],
        options: &ClientOptions,
    ) -> Result<Vec<Result<Self, ClientError>>, ClientError> {
        options.tls.config()?;
        let mut opened = Vec::new();
        for broker in brokers(uris, options)? {
            let open = tokio::time::timeout(options.first_limit, Self::one(&broker, options));
            let open = open.await.unwrap_or_else(|_| {
                let reason = "not open in time".to_owned();
                Err(Failure {
                    refused: false,
                    reason,
                })
            });
            opened.push(open.map_err(|failure| failed(&broker.label, failure)));
        }
        Ok(opened)
    }

    async fn one(broker: &Broker, options: &ClientOptions) -> Result<Self, Failure> {
        let properties = ConnectionProperties::default()
            .with_connection_name(b"tandem-deadletter".to_vec().into())
            .with_client_property("product".into(), b"tandem deadletter".to_vec().into());
        let connection = connect_any(broker, options, properties).await?;
        let channel = connection.create_channel().await?;
        let queue = format!("{}.dead-letter", options.cluster);
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(short(&queue), passive, FieldTable::default())
            .await?;
        let select = ConfirmSelectOptions::default();
        channel.confirm_select(select).await?;
        Ok(Self {
            connection,
            channel,
            broker: broker.label.clone(),
            queue,
        })
    }

    /// The letters, oldest first, at most [`MAX_LETTERS`]; to be called once. Whether there are
    /// more of them than that.
    ///
    /// # Errors
    /// The broker is lost.
    pub async fn read(&self) -> Result<(Vec<Letter>, bool), ClientError> {
        let next = async || {
            let get = self
                .channel
                .basic_get(short(&self.queue), BasicGetOptions::default());
            let got = self.bounded(get).await?;
            Ok(got.map(|got| letter(&got.delivery)))
        };
        gather(MAX_LETTERS, next).await
    }

    /// Throws a letter away.
    ///
    /// # Errors
    /// The broker is lost: the letter may still be there.
    pub async fn discard(&self, letter: &Letter) -> Result<(), ClientError> {
        let ack = self
            .channel
            .basic_ack(letter.tag, BasicAckOptions::default());
        self.bounded(ack).await
    }

    /// Sends a letter's command again, with this time left for it, and takes the letter away once
    /// the broker has confirmed that. Same id: what was done lately is answered, not done again.
    ///
    /// # Errors
    /// It is no command, or the broker did not take it: the letter stays.
    pub async fn requeue(
        &self,
        letter: &Letter,
        queue: &str,
        time: Duration,
    ) -> Result<(), ClientError> {
        let refused = |reason: String| ClientError::Refused {
            broker: self.broker.clone(),
            reason,
        };
        if let Some(why) = letter.stuck() {
            return Err(refused(format!("{}: {why}", letter.key)));
        }
        let mandatory = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let publish = self.channel.basic_publish(
            ShortString::default(),
            short(queue),
            mandatory,
            &letter.body,
            again(letter, time),
        );
        let confirm = self.bounded(publish).await?;
        match self.bounded(confirm).await? {
            Confirmation::Ack(None) => self.discard(letter).await,
            Confirmation::Ack(Some(_)) => Err(refused(format!("there is no queue {queue}"))),
            _ => Err(refused("the broker did not take it".to_owned())),
        }
    }

    /// An orderly end: what is left goes back to its place.
    pub async fn close(self) {
        let end = self.connection.close(200, "OK".into());
        let _ = tokio::time::timeout(ANSWER_LIMIT, end).await;
    }

    async fn bounded<T>(
        &self,
        work: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(ANSWER_LIMIT, work).await {
            Ok(done) => done.map_err(|error| failed(&self.broker, error.into())),
            Err(_) => {
                let reason = format!("no answer within {ANSWER_LIMIT:?}");
                let broker = self.broker.clone();
                Err(ClientError::Away { broker, reason })
            }
        }
    }
}

/// So many at most, and whether one more was there.
async fn gather<T>(
    most: usize,
    next: impl AsyncFn() -> Result<Option<T>, ClientError>,
) -> Result<(Vec<T>, bool), ClientError> {
    let mut found = Vec::new();
    while let Some(one) = next().await? {
        if found.len() == most {
            return Ok((found, true));
        }
        found.push(one);
    }
    Ok((found, false))
}

fn failed(broker: &str, failure: Failure) -> ClientError {
    let broker = broker.to_owned();
    let reason = failure.reason;
    match failure.refused {
        true => ClientError::Refused { broker, reason },
        false => ClientError::Away { broker, reason },
    }
}

fn letter(delivery: &lapin::message::Delivery) -> Letter {
    let properties = &delivery.properties;
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    let headers: BTreeMap<String, String> = properties
        .headers()
        .iter()
        .flat_map(|table| table.inner())
        .map(|(name, value)| (name.to_string(), shown(value)))
        .collect();
    let typed = text(properties.kind()).or_else(|| headers.get("JMSType").cloned());
    let (id, kind) = (text(properties.message_id()), typed);
    let sent = *properties.timestamp();
    let mut hash = Sha256::new();
    for part in [&id, &kind, &text(properties.correlation_id())] {
        hash.update(part.as_deref().unwrap_or_default().as_bytes());
        hash.update([0]);
    }
    hash.update(sent.unwrap_or_default().to_be_bytes());
    hash.update(&delivery.data);
    let hash = hex(&hash.finalize());
    let first = |names: &[&str]| names.iter().find_map(|name| headers.get(*name)).cloned();
    let reason = first(&["x-reason", "x-first-death-reason"]);
    let queue = first(&QUEUES);
    let reply_to = text(properties.reply_to()).or_else(|| first(&["x-original-reply-to"]));
    Letter {
        key: hash[..KEY].to_owned(),
        id,
        kind,
        correlation: text(properties.correlation_id()),
        reason: reason.unwrap_or_default(),
        command: headers.get("x-command").cloned(),
        reply_to,
        sent_ms: sent.filter(|at| *at > 0).map(epoch_ms),
        queue,
        headers,
        content_type: text(properties.content_type()),
        body: delivery.data.to_vec(),
        tag: delivery.delivery_tag,
    }
}

fn shown(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::Timestamp(seconds) => seconds.to_string(),
        other => format!("{other:?}"),
    }
}

/// The command's properties as its client would send it again.
fn again(letter: &Letter, time: Duration) -> BasicProperties {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let deadline = i64::try_from(now.saturating_add(time).as_millis()).unwrap_or(i64::MAX);
    let number = |name: &str| letter.headers.get(name)?.parse::<i64>().ok();
    let attempt = number("x-attempt").unwrap_or(1).saturating_add(1);
    let mut headers = FieldTable::default();
    headers.insert("x-deadline".into(), AMQPValue::LongLongInt(deadline));
    headers.insert("x-attempt".into(), AMQPValue::LongLongInt(attempt.max(2)));
    for name in KEPT {
        if let Some(value) = letter.headers.get(*name) {
            headers.insert(
                (*name).into(),
                AMQPValue::LongString(value.as_bytes().into()),
            );
        }
    }
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now.as_secs())
        .with_headers(headers);
    if let Some(kind) = &letter.kind {
        properties = properties.with_type(short(kind));
    }
    if let Some(id) = &letter.id {
        properties = properties.with_message_id(short(id));
    }
    if let Some(id) = &letter.correlation {
        properties = properties.with_correlation_id(short(id));
    }
    if let Some(kind) = &letter.content_type {
        properties = properties.with_content_type(short(kind));
    }
    // One that may not be answered would bring it back here.
    let answered = letter.reply_to.as_ref();
    if let Some(address) = answered.filter(|_| letter.reason != REPLY_TO_FORBIDDEN) {
        properties = properties.with_reply_to(short(address));
    }
    properties
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn what_lies_behind_the_bound_is_known_to_be_there() {
        for (there, found, more) in [(0, 0, false), (3, 3, false), (4, 3, true), (9, 3, true)] {
            let left = Cell::new(there);
            let next = async || {
                let one = left.get();
                left.set(one.max(1) - 1);
                Ok((one > 0).then_some(one))
            };
            let (letters, behind) = gather(3, next).await.unwrap();
            assert_eq!((letters.len(), behind), (found, more), "{there}");
        }
    }
}
