//! The receiving end, and the translation of what a broker delivers.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::Stream;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{Incoming, Message};
use crate::broker::guard;

/// What the client has received, in the order of arrival.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Incoming>);

impl Inbox {
    pub(super) fn new(receiver: mpsc::Receiver<Incoming>) -> Self {
        Self(receiver)
    }

    /// The next message; `None` once the client has ended.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.0.recv().await
    }
}

impl Stream for Inbox {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.0.poll_recv(context)
    }
}

pub(super) fn message(delivery: &Delivery) -> Message {
    let properties = &delivery.properties;
    let none = FieldTable::default();
    let headers = properties.headers().as_ref().unwrap_or(&none);
    Message {
        correlation_id: text(properties.correlation_id()),
        message_id: text(properties.message_id()),
        app_id: text(properties.app_id()),
        routing_key: delivery.routing_key.to_string(),
        unreadable: guard::mark_of(headers).map(|why| why.detail),
        headers: simple(headers),
        text: String::from_utf8_lossy(&delivery.data).into_owned(),
        json: serde_json::from_slice(&delivery.data).unwrap_or(Value::Null),
        received: Instant::now(),
    }
}

fn text(value: &Option<ShortString>) -> Option<String> {
    value.as_ref().map(ToString::to_string)
}

/// Texts and whole numbers; the rest (lists of hops) is of no use to a client.
fn simple(headers: &FieldTable) -> BTreeMap<String, Value> {
    let value = |value: &AMQPValue| {
        Some(match value {
            AMQPValue::LongString(text) => {
                Value::from(String::from_utf8_lossy(text.as_bytes()).into_owned())
            }
            AMQPValue::ShortString(text) => Value::from(text.to_string()),
            AMQPValue::ShortShortInt(n) => Value::from(*n),
            AMQPValue::ShortShortUInt(n) => Value::from(*n),
            AMQPValue::ShortInt(n) => Value::from(*n),
            AMQPValue::ShortUInt(n) => Value::from(*n),
            AMQPValue::LongInt(n) => Value::from(*n),
            AMQPValue::LongUInt(n) => Value::from(*n),
            AMQPValue::LongLongInt(n) => Value::from(*n),
            AMQPValue::Boolean(yes) => Value::from(*yes),
            _ => return None,
        })
    };
    let all = headers.inner().iter();
    let all = all.filter(|(name, _)| name.as_str() != guard::MARK);
    all.filter_map(|(name, given)| Some((name.to_string(), value(given)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_stay_and_lists_go() {
        let mut headers = FieldTable::default();
        headers.insert("x-epoch".into(), AMQPValue::LongLongInt(7));
        headers.insert("x-why".into(), AMQPValue::LongString("late".into()));
        headers.insert(
            "x-received-from".into(),
            AMQPValue::FieldTable(FieldTable::default()),
        );
        let mark = AMQPValue::LongString("why\n00".into());
        headers.insert(guard::MARK.into(), mark);
        let why = guard::mark_of(&headers).expect("it is the guard's");
        assert_eq!((why.detail.as_str(), why.evidence.as_str()), ("why", "00"));
        let simple = simple(&headers);
        assert_eq!(simple.get("x-epoch"), Some(&Value::from(7)));
        assert_eq!(simple.get("x-why"), Some(&Value::from("late")));
        assert_eq!(simple.len(), 2);
    }
}
