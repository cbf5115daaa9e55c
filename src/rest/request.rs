//! A request: what of it is a command, and what the message on the queue carries.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde_json::Value;

use super::callback::{Addresses, Registration};
use crate::model::Trace;
use crate::model::catalogue::Step;
use crate::wire::command::{Addressed, ClientCommand, Defaults, parse};
use crate::wire::message::RawMessage;

/// Longest id that a client may give, bytes: what an AMQP short string holds.
const MAX_ID: usize = 255;

/// A command that can be put on the queue.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Its `message_id`.
    pub(super) id: String,
    /// `correlation_id`.
    pub(super) correlation_id: Option<String>,
    /// Header `x-attempt`.
    pub(super) attempt: i64,
    /// Header `x-deadline`.
    pub(super) deadline: Option<i64>,
    /// When it came, seconds since the epoch.
    pub(super) timestamp: u64,
    /// Its trace.
    pub(super) trace: Option<Trace>,
    /// The envelope, as it came.
    pub(super) body: Bytes,
    /// Where its client's events are to be posted.
    pub(super) callback: Callback,
}

/// What a request says of a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Callback {
    /// Nothing.
    None,
    /// It names one, and there are no callbacks here, or not for such a command.
    Ignored,
    /// The events of a destination go there.
    At(Registration),
}

/// Answer to a callback that is kept.
pub(super) const REGISTERED: &str = "registered";
/// Answer to a callback that is not.
pub(super) const IGNORED: &str = "ignored";

impl Callback {
    /// What the answer says of it.
    pub(super) fn word(&self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Ignored => Some(IGNORED),
            Self::At(_) => Some(REGISTERED),
        }
    }
}

/// Why it is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) status: StatusCode,
    /// For people; nothing of what the body holds.
    pub(super) words: String,
}

fn bad(words: impl Into<String>) -> Unreadable {
    Unreadable {
        status: StatusCode::BAD_REQUEST,
        words: words.into(),
    }
}

/// Reads a request as the connector itself will read the message: what its Content-Type says does
/// not matter, as many clients call JSON a form, or say nothing.
pub(super) fn read(
    headers: &HeaderMap,
    body: Bytes,
    defaults: &Defaults,
    addresses: Option<&Addresses>,
) -> Result<Asked, Unreadable> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let number = |name: &str| match headers.get(name) {
        None => Ok(None),
        Some(_) => match text(name).and_then(|text| text.trim().parse::<i64>().ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(bad(format!("{name} is no whole number"))),
        },
    };
    let mut asked = Asked {
        id: match id(headers, "idempotency-key")? {
            Some(id) => id,
            None => fresh_id()?,
        },
        correlation_id: id(headers, "x-correlation-id")?,
        attempt: number("x-attempt")?.unwrap_or(1),
        deadline: number("x-deadline")?,
        timestamp: now.as_secs(),
        trace: text("traceparent").and_then(|parent| Trace::read(parent, text("tracestate"))),
        callback: Callback::None,
        body,
    };
    let raw = RawMessage {
        body: asked.body.clone(),
        content_type: Some("application/json".to_owned()),
        message_id: Some(asked.id.clone()),
        ..RawMessage::default()
    };
    match parse(&raw, defaults, millis) {
        Ok(command) => {
            asked.callback = callback(&asked.body, &command, addresses, millis)?;
            Ok(asked)
        }
        Err(malformed) => Err(bad(format!("{}: {}", malformed.reason, malformed.detail))),
    }
}

fn id(headers: &HeaderMap, name: &str) -> Result<Option<String>, Unreadable> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    let graphic = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > MAX_ID || !graphic {
        return Err(bad(format!(
            "{name} must be 1 to {MAX_ID} printable ASCII characters without blanks"
        )));
    }
    Ok(Some(text.to_owned()))
}

fn fresh_id() -> Result<String, Unreadable> {
    let mut bytes = [0_u8; 12];
    getrandom::fill(&mut bytes).map_err(|_| Unreadable {
        status: StatusCode::SERVICE_UNAVAILABLE,
        words: "no random numbers from the system: give an Idempotency-Key".to_owned(),
    })?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("rest-{hex}"))
}

/// The envelope's own fields for it, and whose events are meant.
fn callback(
    body: &[u8],
    command: &ClientCommand,
    addresses: Option<&Addresses>,
    now: u64,
) -> Result<Callback, Unreadable> {
    // What is no envelope has been refused before.
    let envelope: Value = serde_json::from_slice(body).unwrap_or_default();
    let named = |name: &str| match envelope["data"][name].as_str().map(str::trim) {
        Some(text) if !text.eq_ignore_ascii_case("null") => text.to_owned(),
        _ => String::new(),
    };
    let (host, endpoint) = (named("callbackFqdn"), named("callbackEndpoint"));
    let names_one = !host.is_empty() || !endpoint.is_empty();
    let destination = match (&command.addressee, &command.spec.step) {
        (Addressed::Destination(destination), Step::Hello) => Some(destination.as_str()),
        (_, Step::Connect) => command.args.get("destination"),
        _ => None,
    };
    let (Some(destination), Some(addresses)) = (destination, addresses) else {
        return Ok(match names_one {
            true => Callback::Ignored,
            false => Callback::None,
        });
    };
    match addresses.resolve(&host, &endpoint).map_err(bad)? {
        Some(url) => Ok(Callback::At(Registration::new(destination, url, now))),
        None => Ok(Callback::None),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_TYPE;

    use super::super::callback::Allowed;
    use super::*;

    const HELLO: &str = r#"{"data":{"type":"Hello#crm","body":"null","sessionUrl":"https://crm.example/s/1","callbackFqdn":"https://crm.example","callbackEndpoint":"/event"}}"#;

    fn ask(headers: &[(&'static str, &str)], body: &str) -> Result<Asked, Unreadable> {
        let mut map = HeaderMap::new();
        map.insert(
            CONTENT_TYPE,
            "application/json; charset=utf-8".parse().unwrap(),
        );
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let defaults = Defaults {
            max_age_ms: 30_000,
            ..Defaults::default()
        };
        read(&map, Bytes::from(body.to_owned()), &defaults, None)
    }

    #[test]
    fn the_originals_envelope_is_read_and_goes_on_as_it_came() {
        let asked = ask(&[], HELLO).unwrap();
        assert_eq!(&asked.body[..], HELLO.as_bytes());
        assert!(asked.id.starts_with("rest-") && asked.callback == Callback::Ignored);
        assert_ne!(asked.id, ask(&[], HELLO).unwrap().id);
        assert_eq!((asked.attempt, asked.deadline), (1, None));
    }

    #[test]
    fn headers_give_id_correlation_attempt_deadline_and_trace() {
        const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let body = r#"{"data":{"type":"MakeReady#1001","body":""}}"#;
        let headers = [
            ("idempotency-key", "crm-17"),
            ("x-correlation-id", "c-17"),
            ("x-attempt", "2"),
            ("x-deadline", "1900000000000"),
            ("traceparent", PARENT),
        ];
        let asked = ask(&headers, body).unwrap();
        assert_eq!(asked.id, "crm-17");
        assert_eq!(asked.correlation_id.as_deref(), Some("c-17"));
        assert_eq!(
            (asked.attempt, asked.deadline),
            (2, Some(1_900_000_000_000))
        );
        assert_eq!(asked.trace.unwrap().parent(), PARENT);
        assert_eq!(asked.callback, Callback::None);
        let malformed = ask(&[("traceparent", "00-x")], body).unwrap();
        assert_eq!(malformed.trace, None);
    }

    #[test]
    fn hello_and_connect_name_a_callback_and_nothing_else_does() {
        let allow = Allowed::read("https://crm.example/event").unwrap();
        let base = Some("http://10.0.0.5:8113/all".to_owned());
        let addresses = Addresses::new(vec![allow], base, None);
        let defaults = Defaults::default();
        let ask = |kind: &str, body: &str, host: &str| {
            let body = serde_json::json!({"data": {"type": kind, "body": body,
                "callbackFqdn": host, "callbackEndpoint": "/event"}});
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
            let body = Bytes::from(body.to_string());
            read(&headers, body, &defaults, Some(&addresses)).map(|asked| asked.callback)
        };
        let is_at = |asked: Result<Callback, Unreadable>, destination: &str, url: &str| matches!(asked, Ok(Callback::At(registration)) if registration.is(destination, url));
        let crm = "https://crm.example";
        let url = "https://crm.example/event";
        assert!(is_at(ask("Hello#desk", "null", crm), "desk", url));
        assert!(is_at(ask("Connect#1001", "desk,pw", crm), "desk", url));
        let all = "http://10.0.0.5:8113/all/event";
        assert!(is_at(ask("hello#desk", "", "null"), "desk", all));
        assert_eq!(ask("Beat#desk", "", crm), Ok(Callback::Ignored));
        assert_eq!(ask("MakeReady#1001", "", crm), Ok(Callback::Ignored));
        let refused = ask("Hello#desk", "", "https://evil.example").unwrap_err();
        assert_eq!(refused.status, 400);
        assert!(!refused.words.contains("evil"), "{}", refused.words);
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_not_quoted() {
        let body = r#"{"data":{"type":"MakeReady#1001","body":""}}"#;
        for (headers, body, part) in [
            (vec![], "", "no_type"),
            (vec![], "{\"data\":{", "bad_json"),
            (vec![], r#"{"data":{"body":"s3cret"}}"#, "no_type"),
            (vec![], r#"{"data":{"type":"Fly#1001"}}"#, "unknown_command"),
            (
                vec![],
                r#"{"data":{"type":"Login#1001","body":"s3cret"}}"#,
                "missing",
            ),
            (vec![("idempotency-key", "a b")], body, "idempotency-key"),
            (vec![("x-attempt", "twice")], body, "x-attempt"),
        ] {
            let error = ask(&headers, body).unwrap_err();
            assert_eq!(error.status, 400, "{body}");
            assert!(error.words.contains(part), "{body}: {}", error.words);
            assert!(!error.words.contains("s3cret"), "{}", error.words);
        }
    }

    #[test]
    fn a_body_is_json_whatever_it_is_called() {
        for kind in [
            "application/x-www-form-urlencoded",
            "text/plain;charset=UTF-8",
            "application/vnd.api+json",
            "no type at all",
            "",
        ] {
            assert_eq!(
                &ask(&[("content-type", kind)], HELLO).unwrap().body[..],
                HELLO.as_bytes()
            );
            let form = "type=MakeReady%231001";
            let refused = ask(&[("content-type", kind)], form).unwrap_err();
            assert_eq!(refused.status, 400, "{kind}");
        }
        let body = Bytes::from(HELLO);
        assert!(read(&HeaderMap::new(), body, &Defaults::default(), None).is_ok());
    }
}
