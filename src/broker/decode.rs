//! From the library's delivery to a message as the wire module reads it.

use std::collections::HashSet;

use bytes::Bytes;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use sha2::{Digest, Sha256};

use super::guard::mark_of;
use crate::model::Trace;
use crate::model::text::trimmed;
use crate::wire::command::MAX_BODY;
use crate::wire::message::{Cut, LEAST_MILLIS, PutAside, RawMessage, epoch_ms};

/// Bodies from this size on take a moment to be hashed, bytes.
const LARGE: usize = 1 << 20;

/// As [`raw_message`]. Anybody may send a body of many megabytes: its hash is not waited for on the
/// thread that all else runs on.
pub(super) async fn translated(delivery: Delivery) -> RawMessage {
    if delivery.data.len() < LARGE {
        return raw_message(delivery);
    }
    match tokio::task::spawn_blocking(move || raw_message(delivery)).await {
        Ok(raw) => raw,
        // A panic goes on where it would have been; the runtime ends only with the process.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

/// Translates a delivery. Of a body that is too large only so much is kept that it is seen to be,
/// and the length and hash of the whole for the dead letters.
pub(super) fn raw_message(delivery: Delivery) -> RawMessage {
    let Delivery {
        redelivered,
        properties,
        data,
        ..
    } = delivery;
    let cut = (data.len() > MAX_BODY).then(|| Cut {
        length: data.len(),
        sha256: Sha256::digest(&data).into(),
    });
    // Copied, so that the whole is given back now: its dead letter may wait long for a broker.
    let body = match cut {
        Some(_) => Bytes::copy_from_slice(&data[..=MAX_BODY]),
        None => Bytes::from(data),
    };
    let none = FieldTable::default();
    let headers = properties.headers().as_ref().unwrap_or(&none);
    let hops = header(headers, "x-received-from");
    RawMessage {
        kind: kind(text(properties.kind()), header(headers, "JMSType")),
        body,
        content_type: text(properties.content_type()),
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        timestamp: *properties.timestamp(),
        expiration: text(properties.expiration()).and_then(|ms| trimmed(&ms).parse().ok()),
        deadline: header(headers, "x-deadline").and_then(deadline),
        attempt: header(headers, "x-attempt").and_then(attempt),
        trace: trace(headers),
        redelivered,
        relayed: hops.is_some(),
        redelivered_upstream: hops.is_some_and(any_hop_redelivered),
        visit_count: header(headers, "visit-count").and_then(as_number),
        put_aside: put_aside(headers),
        looped: hops.is_some_and(any_hop_twice),
        cut,
        unreadable: mark_of(headers),
        group: None,
        queue: put_aside_by(headers),
    }
}

fn text(value: &Option<ShortString>) -> Option<String> {
    value.as_ref().map(ToString::to_string)
}

/// Headers `traceparent` and `tracestate`.
fn trace(headers: &FieldTable) -> Option<Trace> {
    let parent = header(headers, "traceparent").and_then(as_text)?;
    let state = header(headers, "tracestate").and_then(as_text);
    Trace::read(&parent, state.as_deref())
}

/// What names the command: the property `type`, and the header where that holds no command.
///
/// Some libraries set a `type` of their own (`TextMessage`), or an empty one, and their users
/// cannot; only a text with `#` is a command.
fn kind(property: Option<String>, header: Option<&AMQPValue>) -> Option<String> {
    let property = property.filter(|kind| !trimmed(kind).is_empty());
    if property.as_ref().is_some_and(|kind| kind.contains('#')) {
        return property;
    }
    let header = header.and_then(as_text);
    match property {
        Some(_) => header.filter(|kind| kind.contains('#')).or(property),
        None => header,
    }
}

fn header<'a>(headers: &'a FieldTable, name: &str) -> Option<&'a AMQPValue> {
    headers.inner().get(name)
}

/// A text in any of AMQP's types that can carry one; clients differ.
fn as_text(value: &AMQPValue) -> Option<String> {
    let bytes = match value {
        AMQPValue::LongString(text) => text.as_bytes(),
        AMQPValue::ByteArray(bytes) => bytes.as_slice(),
        AMQPValue::ShortString(text) => return Some(text.to_string()),
        _ => return None,
    };
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// A number in any of AMQP's integer types, or in figures; clients differ.
fn as_number(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(n) => Some((*n).into()),
        AMQPValue::ShortShortUInt(n) => Some((*n).into()),
        AMQPValue::ShortInt(n) => Some((*n).into()),
        AMQPValue::ShortUInt(n) => Some((*n).into()),
        AMQPValue::LongInt(n) => Some((*n).into()),
        AMQPValue::LongUInt(n) => Some((*n).into()),
        AMQPValue::LongLongInt(n) => Some(*n),
        AMQPValue::Timestamp(n) => i64::try_from(*n).ok(),
        // Some clients have no integers; a cast of a float saturates and gives 0 for NaN.
        AMQPValue::Float(n) => Some(*n as i64),
        AMQPValue::Double(n) => Some(*n as i64),
        AMQPValue::DecimalValue(n) => 10_i64
            .checked_pow(n.scale.into())
            .map(|unit| i64::from(n.value) / unit),
        _ => figures(trimmed(&as_text(value)?)),
    }
}

/// A whole number in figures, or one that a client without integers has printed.
fn figures(text: &str) -> Option<i64> {
    let float = || text.parse().ok().filter(|n: &f64| n.is_finite());
    text.parse().ok().or_else(|| float().map(|n| n as i64))
}

/// Header `x-deadline`, milliseconds since the epoch. What AMQP calls a timestamp counts seconds,
/// and is taken by its size as the property `timestamp` is. A number counts milliseconds; one that
/// is much too large for them would be no deadline at all, so it counts what is finer.
fn deadline(value: &AMQPValue) -> Option<i64> {
    let at = match value {
        AMQPValue::Timestamp(at) => epoch_ms(*at),
        value => match u64::try_from(as_number(value)?) {
            Ok(at) if at < LEAST_MILLIS => at,
            Ok(at) => epoch_ms(at),
            Err(_) => 0,
        },
    };
    // A time of milliseconds that no i64 holds lies beyond all that is a deadline.
    Some(i64::try_from(at).unwrap_or(i64::MAX))
}

/// Which attempt a client says this is. One that cannot be read says that it is not the first;
/// nothing, also as a text, says nothing.
fn attempt(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::Void => None,
        AMQPValue::Boolean(again) => Some(1 + i64::from(*again)),
        value if as_text(value).is_some_and(|text| trimmed(&text).is_empty()) => None,
        value => Some(as_number(value).unwrap_or(2)),
    }
}

/// Why the broker has put a message aside: by its newest reason, as another broker may have put it
/// aside before.
fn put_aside(headers: &FieldTable) -> Option<PutAside> {
    let names = ["x-last-death-reason", "reason", "x-first-death-reason"];
    PutAside::read(&newest_death(headers, names)?)
}

/// The queue from which it was put aside last.
fn put_aside_by(headers: &FieldTable) -> Option<String> {
    newest_death(
        headers,
        ["x-last-death-queue", "queue", "x-first-death-queue"],
    )
}

/// What the broker says of the last time that it put a message aside: by a header of later brokers;
/// by a field of the newest entry of `x-death`; else that of the first time.
fn newest_death(headers: &FieldTable, [last, field, first]: [&str; 3]) -> Option<String> {
    let newest = || match header(headers, "x-death")? {
        AMQPValue::FieldArray(deaths) => match deaths.as_slice().first()? {
            AMQPValue::FieldTable(death) => as_text(header(death, field)?),
            _ => None,
        },
        _ => None,
    };
    let word = |name: &str| header(headers, name).and_then(as_text);
    word(last).or_else(newest).or_else(|| word(first))
}

/// The flag of the broker before is lost over federation; only this header keeps it.
fn any_hop_redelivered(hops: &AMQPValue) -> bool {
    let AMQPValue::FieldArray(hops) = hops else {
        return false;
    };
    hops.as_slice().iter().any(|hop| match hop {
        AMQPValue::FieldTable(hop) => {
            matches!(header(hop, "redelivered"), Some(AMQPValue::Boolean(true)))
        }
        _ => false,
    })
}

/// What a federation link knows a hop again by.
const HOP_NAMES: [&str; 4] = ["uri", "virtual_host", "queue", "exchange"];

/// Two hops that a federation link takes for the same.
fn any_hop_twice(hops: &AMQPValue) -> bool {
    let AMQPValue::FieldArray(hops) = hops else {
        return false;
    };
    let mut seen = HashSet::new();
    hops.as_slice().iter().any(|hop| match hop {
        AMQPValue::FieldTable(hop) => {
            let named = HOP_NAMES.map(|name| header(hop, name).and_then(as_text));
            named.iter().any(Option::is_some) && !seen.insert(named)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::types::FieldArray;

    use super::*;
    use crate::wire::command::redacted_body;

    fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in entries {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    fn read(properties: BasicProperties, body: &[u8]) -> RawMessage {
        let mut delivery = Delivery::mock(1, "".into(), "Connector1".into(), false, body.to_vec());
        delivery.properties = properties;
        raw_message(delivery)
    }

    fn long(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.as_bytes().into())
    }

    #[test]
    fn properties_and_headers_are_read() {
        let headers = table(&[
            ("JMSType", long("Hello#crm")),
            ("x-deadline", AMQPValue::LongLongInt(1_700_000_000_000)),
            ("x-attempt", AMQPValue::ShortShortUInt(2)),
            ("visit-count", long(" 3 ")),
        ]);
        let raw = read(
            BasicProperties::default()
                .with_headers(headers)
                .with_message_id("m-1".into())
                .with_expiration("2500".into())
                .with_timestamp(1_700_000_000),
            b"body",
        );
        assert_eq!(raw.kind.as_deref(), Some("Hello#crm"));
        assert_eq!(raw.deadline, Some(1_700_000_000_000));
        assert_eq!((raw.attempt, raw.visit_count), (Some(2), Some(3)));
        assert_eq!(raw.expiration, Some(2500));
        assert_eq!(raw.timestamp, Some(1_700_000_000));
        assert_eq!(raw.message_id.as_deref(), Some("m-1"));
        assert_eq!(&raw.body[..], b"body");
        assert!(!raw.relayed);
    }

    #[test]
    fn of_a_body_that_is_cut_no_more_is_kept_than_its_beginning() {
        let raw = read(BasicProperties::default(), &vec![7; 100 * MAX_BODY]);
        assert_eq!(raw.cut.as_ref().map(|cut| cut.length), Some(100 * MAX_BODY));
        let body = raw.body.try_into_mut().unwrap();
        assert_eq!(body.len(), MAX_BODY + 1);
        assert!(body.capacity() < 2 * MAX_BODY, "{}", body.capacity());
    }

    #[test]
    fn the_type_property_wins_over_the_header() {
        let headers = table(&[("JMSType", long("Beat#crm"))]);
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_type("Hello#crm".into());
        assert_eq!(read(properties, b"").kind.as_deref(), Some("Hello#crm"));
    }

    #[test]
    fn the_header_names_the_command_where_the_type_property_names_none() {
        let kind = |property: Option<&str>, header: Option<AMQPValue>| {
            let headers = header.map(|value| table(&[("JMSType", value)]));
            let mut properties = BasicProperties::default();
            if let Some(headers) = headers {
                properties = properties.with_headers(headers);
            }
            if let Some(property) = property {
                properties = properties.with_type(property.into());
            }
            read(properties, b"").kind
        };
        let named = Some("GetState#1013".to_owned());
        let short = AMQPValue::ShortString("GetState#1013".into());
        let bytes = AMQPValue::ByteArray(b"GetState#1013".as_slice().into());
        for property in [None, Some(""), Some("  "), Some("TextMessage")] {
            for header in [long("GetState#1013"), short.clone(), bytes.clone()] {
                assert_eq!(kind(property, Some(header)), named, "{property:?}");
            }
        }
        // Neither holds a command: what the client set is what it is told about.
        let text = Some("TextMessage".to_owned());
        assert_eq!(kind(Some("TextMessage"), Some(long("other"))), text);
        assert_eq!(kind(Some("TextMessage"), None), text);
        assert_eq!(kind(Some(" "), None), None);
        assert_eq!(
            kind(Some("Hello#"), Some(long("GetState#1"))).as_deref(),
            Some("Hello#")
        );
    }

    #[test]
    fn one_flagged_hop_is_enough() {
        let hop = |flag| AMQPValue::FieldTable(table(&[("redelivered", AMQPValue::Boolean(flag))]));
        let with_hops = |hops: Vec<AMQPValue>| {
            let hops = AMQPValue::FieldArray(FieldArray::from(hops));
            let headers = table(&[("x-received-from", hops)]);
            read(BasicProperties::default().with_headers(headers), b"")
        };
        let flagged = with_hops(vec![hop(false), hop(true)]);
        assert!(flagged.relayed && flagged.redelivered_upstream && flagged.maybe_seen());
        let clean = with_hops(vec![hop(false)]);
        assert!(clean.relayed && !clean.maybe_seen());
    }

    #[test]
    fn the_same_hop_twice_is_a_loop_and_two_hops_are_none() {
        let hop = |uri: &str, visited: bool| {
            let entries = [
                ("uri", long(uri)),
                ("queue", long("Connector1")),
                ("redelivered", AMQPValue::Boolean(visited)),
            ];
            AMQPValue::FieldTable(table(&entries))
        };
        let looped = |hops: Vec<AMQPValue>| {
            let hops = AMQPValue::FieldArray(FieldArray::from(hops));
            let headers = table(&[("x-received-from", hops)]);
            read(BasicProperties::default().with_headers(headers), b"").looped
        };
        assert!(looped(vec![hop("amqp://a", false), hop("amqp://a", true)]));
        assert!(!looped(vec![
            hop("amqp://a", false),
            hop("amqp://b", false)
        ]));
        let nameless = || AMQPValue::FieldTable(FieldTable::default());
        assert!(!looped(vec![nameless(), nameless()]));
    }

    fn with(name: &str, value: AMQPValue) -> RawMessage {
        let headers = table(&[(name, value)]);
        read(BasicProperties::default().with_headers(headers), b"")
    }

    fn short(text: &str) -> AMQPValue {
        AMQPValue::ShortString(text.into())
    }

    fn bytes(text: &str) -> AMQPValue {
        AMQPValue::ByteArray(text.as_bytes().into())
    }

    #[test]
    fn the_queue_that_put_it_aside_last_is_told() {
        let death = |queue: &str| AMQPValue::FieldTable(table(&[("queue", long(queue))]));
        let deaths = FieldArray::from(vec![death("Batch"), death("waiting-room")]);
        let deaths = AMQPValue::FieldArray(deaths);
        let first = ("x-first-death-queue", long("waiting-room"));
        let queue = |entries: &[(&str, AMQPValue)]| {
            let properties = BasicProperties::default().with_headers(table(entries));
            read(properties, b"").queue
        };
        let newest = [first.clone(), ("x-death", deaths)];
        assert_eq!(queue(&newest).as_deref(), Some("Batch"));
        assert_eq!(queue(&[first]).as_deref(), Some("waiting-room"));
        let last = [("x-last-death-queue", long("Batch"))];
        assert_eq!(queue(&last).as_deref(), Some("Batch"));
        assert_eq!(queue(&[]), None);
    }

    #[test]
    fn a_deadline_is_read_of_every_type() {
        const AT: i64 = 1_900_000_000_000;
        let seconds = AMQPValue::Timestamp(1_900_000_000);
        for value in [
            AMQPValue::LongLongInt(AT),
            AMQPValue::LongLongInt(AT * 1000),
            AMQPValue::LongLongInt(AT * 1_000_000),
            AMQPValue::Double(1.9e12),
            long("1900000000000"),
            long("\u{feff} 1900000000000\r\n"),
            long("1.9e12"),
            short("1900000000000"),
            bytes("1900000000000"),
            seconds,
            AMQPValue::Timestamp(1_900_000_000_000),
            AMQPValue::Timestamp(1_900_000_000_000_000),
        ] {
            assert_eq!(
                with("x-deadline", value.clone()).deadline,
                Some(AT),
                "{value:?}"
            );
        }
        // Long past, in all that has no room for more.
        let decimal = lapin::types::DecimalValue {
            scale: 1,
            value: 70,
        };
        for value in [
            AMQPValue::ShortShortInt(7),
            AMQPValue::ShortShortUInt(7),
            AMQPValue::ShortInt(7),
            AMQPValue::ShortUInt(7),
            AMQPValue::LongInt(7),
            AMQPValue::LongUInt(7),
            AMQPValue::LongLongInt(7),
            AMQPValue::Float(7.9),
            AMQPValue::DecimalValue(decimal),
            long("7"),
        ] {
            assert_eq!(
                with("x-deadline", value.clone()).deadline,
                Some(7),
                "{value:?}"
            );
        }
        assert_eq!(
            with("x-deadline", AMQPValue::LongLongInt(i64::MIN)).deadline,
            Some(0)
        );
        for never in [
            AMQPValue::LongLongInt(i64::MAX),
            AMQPValue::Timestamp(u64::MAX),
            AMQPValue::Double(f64::INFINITY),
        ] {
            let far = with("x-deadline", never.clone()).deadline;
            assert!(far.is_some_and(|far| far > AT), "{never:?} {far:?}");
        }
        for none in [
            long(""),
            long("soon"),
            long("NaN"),
            AMQPValue::Void,
            AMQPValue::Boolean(true),
        ] {
            assert_eq!(with("x-deadline", none.clone()).deadline, None, "{none:?}");
        }
    }

    #[test]
    fn an_attempt_is_read_of_every_type() {
        for (value, attempt) in [
            (AMQPValue::ShortShortInt(1), Some(1)),
            (AMQPValue::ShortShortUInt(3), Some(3)),
            (AMQPValue::ShortInt(1), Some(1)),
            (AMQPValue::ShortUInt(3), Some(3)),
            (AMQPValue::LongInt(1), Some(1)),
            (AMQPValue::LongUInt(3), Some(3)),
            (AMQPValue::LongLongInt(1), Some(1)),
            (AMQPValue::Double(1.0), Some(1)),
            (AMQPValue::Boolean(false), Some(1)),
            (AMQPValue::Boolean(true), Some(2)),
            (long("1"), Some(1)),
            (long(" 3\u{a0}"), Some(3)),
            (long("1.0"), Some(1)),
            (short("1"), Some(1)),
            (bytes("3"), Some(3)),
            (bytes("3rd"), Some(2)),
            (AMQPValue::FieldTable(FieldTable::default()), Some(2)),
            (long(""), None),
            (bytes("\u{feff} "), None),
            (AMQPValue::Void, None),
        ] {
            assert_eq!(
                with("x-attempt", value.clone()).attempt,
                attempt,
                "{value:?}"
            );
        }
    }

    #[test]
    fn an_expiration_that_is_no_number_is_none() {
        let expiration = |text: &str| {
            read(BasicProperties::default().with_expiration(text.into()), b"").expiration
        };
        assert_eq!(expiration(" 2500 "), Some(2500));
        assert_eq!(expiration("0"), Some(0));
        for none in ["", "-1", "soon", "2.5", "18446744073709551616"] {
            assert_eq!(expiration(none), None, "{none}");
        }
    }

    #[test]
    fn a_type_of_a_mark_only_names_nothing() {
        let headers = table(&[("JMSType", long("\u{feff}Hello#crm"))]);
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_type("\u{feff} ".into());
        let kind = read(properties, b"").kind;
        assert_eq!(kind.as_deref(), Some("\u{feff}Hello#crm"));
    }

    #[test]
    fn hostile_headers_are_ignored() {
        let headers = table(&[
            ("x-deadline", AMQPValue::FieldTable(FieldTable::default())),
            ("x-attempt", long("many")),
            ("x-received-from", long("nowhere")),
            ("JMSType", AMQPValue::LongString(vec![0xff_u8, 0xfe].into())),
        ]);
        let raw = read(BasicProperties::default().with_headers(headers), b"");
        assert_eq!((raw.deadline, raw.attempt, raw.kind), (None, Some(2), None));
        assert!(raw.relayed && !raw.redelivered_upstream);
    }

    #[test]
    fn a_huge_body_is_cut_where_it_is_seen_to_be_too_large() {
        let body = vec![b'x'; 3 * MAX_BODY];
        let raw = read(BasicProperties::default(), &body);
        assert_eq!(raw.body.len(), MAX_BODY + 1);
        let letter = redacted_body(&raw);
        let letter: serde_json::Value = serde_json::from_slice(&letter).unwrap();
        let hash = Sha256::digest(&body);
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(letter["length"], 3 * MAX_BODY);
        assert_eq!(letter["sha256"], hash);
        let largest = read(BasicProperties::default(), &body[..MAX_BODY]);
        assert_eq!((largest.cut, largest.body.len()), (None, MAX_BODY));
    }
}
