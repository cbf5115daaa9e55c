//! A broker message as the connector sees it, before it is understood.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::command::MAX_DEADLINE_AHEAD_MS;
use crate::model::Trace;

/// What a delivery carried, protocol words already translated by the broker shell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RawMessage {
    /// Property `type`, or header `JMSType` where the property is absent.
    pub kind: Option<String>,
    /// Body; in Base64 where the message is serialised.
    #[serde(with = "base64_bytes")]
    pub body: Bytes,
    /// Property `content_type`.
    pub content_type: Option<String>,
    /// Property `message_id`.
    pub message_id: Option<String>,
    /// Property `correlation_id`.
    pub correlation_id: Option<String>,
    /// Property `reply_to`.
    pub reply_to: Option<String>,
    /// Property `timestamp`, as it was given: see [`RawMessage::sent_ms`].
    pub timestamp: Option<u64>,
    /// Property `expiration`, milliseconds, where it is a number.
    pub expiration: Option<u64>,
    /// Header `x-deadline`, milliseconds since the epoch.
    pub deadline: Option<i64>,
    /// Header `x-attempt`.
    pub attempt: Option<i64>,
    /// Headers `traceparent` and `tracestate`, where they are well-formed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// Delivered before by this broker.
    pub redelivered: bool,
    /// Another broker passed it on (RabbitMQ's federation: header `x-received-from` present). Named
    /// `federated` between instances, as it was always.
    #[serde(rename = "federated")]
    pub relayed: bool,
    /// A hop before had it redelivered (any `x-received-from[].redelivered`).
    pub redelivered_upstream: bool,
    /// Header `visit-count`, where a link moved it more than once.
    pub visit_count: Option<i64>,
    /// Two of its hops (`x-received-from`) are the same one. Federation never makes this, and its
    /// links fail on it for ever.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub looped: bool,
    /// Where only the beginning of the body is kept: what the whole one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// Where its properties could not all be read: why. Such a message is never handed on.
    #[serde(skip)]
    pub unreadable: Option<Unreadable>,
    /// Why a broker put it aside last; only of what comes from where it puts things.
    #[serde(skip)]
    pub put_aside: Option<PutAside>,
    /// Handed over by a peer: name of the group whose queue it came through there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The command queue that it came from, where that is not the first one of the first group: most
    /// have one queue, and need no name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
}

/// Why a broker has put a message aside (dead-lettered it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutAside {
    /// Its time was over.
    Expired,
    /// Its queue was full.
    Full,
    /// It was given back too often.
    GivenBack,
    /// Somebody refused it.
    Refused,
}

impl PutAside {
    /// From the broker's word; `None` for one that is not known.
    #[must_use]
    pub fn read(word: &str) -> Option<Self> {
        Some(match word {
            "expired" => Self::Expired,
            "maxlen" => Self::Full,
            "delivery_limit" => Self::GivenBack,
            "rejected" => Self::Refused,
            _ => return None,
        })
    }

    /// Whether somebody was given it before.
    #[must_use]
    pub fn was_delivered(self) -> bool {
        matches!(self, Self::GivenBack | Self::Refused)
    }
}

/// Why the properties of a message could not be read. What could be read of them is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// For people; nothing of what the client wrote.
    pub detail: String,
    /// The first bytes that could not be read, in hexadecimal figures; at most 64 bytes.
    pub evidence: String,
}

/// A body of which only the beginning is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Bytes of the whole body.
    pub length: usize,
    /// SHA-256 of the whole body.
    pub sha256: [u8; 32],
}

/// Times below this are taken for seconds since the epoch, those from it on for milliseconds.
pub const LEAST_MILLIS: u64 = 100_000_000_000;
/// From here on they are microseconds, and a thousand times further on nanoseconds.
const LEAST_MICROS: u64 = 1000 * LEAST_MILLIS;

/// Milliseconds since the epoch of a time whose unit nobody said. AMQP counts seconds, many clients
/// count milliseconds, a few finer ones: the four cannot be confused between the years 1973 and
/// 5138.
#[must_use]
pub fn epoch_ms(time: u64) -> u64 {
    if time < LEAST_MILLIS {
        time * 1000
    } else if time < LEAST_MICROS {
        time
    } else if time < 1000 * LEAST_MICROS {
        time / 1000
    } else {
        time / 1_000_000
    }
}

impl RawMessage {
    /// When the client says that it was sent, milliseconds since the epoch; where it counts whole
    /// seconds, up to one too early. `None` also where that says nothing: zero is what libraries
    /// send for a time that nobody set, and no clock is ahead of this one (`now_ms`) by more than a
    /// day. A smaller difference is believed, because this one may be the wrong one.
    #[must_use]
    pub fn sent_ms(&self, now_ms: u64) -> Option<u64> {
        let latest = now_ms.saturating_add(MAX_DEADLINE_AHEAD_MS);
        let given = self.timestamp.filter(|time| *time > 0).map(epoch_ms);
        given.filter(|sent| *sent <= latest)
    }

    /// Whether the client counts whole seconds, as AMQP has it.
    #[must_use]
    pub fn in_seconds(&self) -> bool {
        self.timestamp.is_some_and(|time| time < LEAST_MILLIS)
    }

    /// Whether any connector may have seen this message before (design: `maybe_seen`).
    #[must_use]
    pub fn maybe_seen(&self) -> bool {
        self.redelivered
            || self.redelivered_upstream
            || self.attempt.is_some_and(|n| n > 1)
            || self.visit_count.is_some_and(|n| n > 1)
    }
}

/// Bytes as Base64 text.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(input)?;
        STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|_| de::Error::custom("not Base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_time_tells_its_unit() {
        let sent = |timestamp| {
            RawMessage {
                timestamp: Some(timestamp),
                ..RawMessage::default()
            }
            .sent_ms(1_900_000_000_000)
        };
        for time in [
            1_900_000_000,
            1_900_000_000_000,
            1_900_000_000_000_000,
            1_900_000_000_000_000_000,
        ] {
            assert_eq!(sent(time), Some(1_900_000_000_000), "{time}");
        }
        assert_eq!(sent(0), None);
        assert_eq!(sent(1), Some(1000));
        assert_eq!(sent(1_900_086_400), Some(1_900_086_400_000));
        assert_eq!(sent(1_900_086_401), None);
        assert_eq!(sent(u64::MAX), None);
        assert_eq!(epoch_ms(LEAST_MILLIS - 1), 99_999_999_999_000);
        assert_eq!(epoch_ms(LEAST_MILLIS), LEAST_MILLIS);
        assert_eq!(epoch_ms(u64::MAX), u64::MAX / 1_000_000);
    }

    #[test]
    fn any_body_survives_json() {
        let raw = RawMessage {
            body: Bytes::from_static(&[0, 0xff, b'"', b'\n']),
            attempt: Some(2),
            ..RawMessage::default()
        };
        let json = serde_json::to_string(&raw).unwrap();
        assert_eq!(serde_json::from_str::<RawMessage>(&json).unwrap(), raw);
        assert!(serde_json::from_str::<RawMessage>(r#"{"body":"%"}"#).is_err());
    }
}
