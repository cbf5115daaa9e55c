//! The one terminal answer to a command (contract, section 4.3).

use serde::{Deserialize as _, Serialize};
use serde_json::value::RawValue;

use crate::model::Json;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    /// Done, nothing more to come.
    Ok,
    /// The downstream took it; its result arrives as an event.
    Accepted,
    /// Not executed.
    Rejected,
    /// The downstream refused it.
    Failed,
    /// Its deadline passed before it was started.
    Expired,
    /// It may or may not have been executed.
    InDoubt,
}

impl Outcome {
    /// All.
    pub const ALL: [Self; 6] = [
        Self::Ok,
        Self::Accepted,
        Self::Rejected,
        Self::Failed,
        Self::Expired,
        Self::InDoubt,
    ];

    /// The word on the wire; also a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Accepted => "ACCEPTED",
            Self::Rejected => "REJECTED",
            Self::Failed => "FAILED",
            Self::Expired => "EXPIRED",
            Self::InDoubt => "IN_DOUBT",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
pub struct ReplyError {
    /// Code of the connector or of the platform.
    pub code: String,
    /// Words for a person; without secrets.
    pub message: String,
}

/// A reply. As it is serialised it goes to peers and into the journal; [`Reply::to_json`] is what
/// clients get.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
pub struct Reply {
    /// Command name in the spelling of the catalogue, or as the client wrote an unknown one.
    pub command: String,
    /// The text behind `#`: agent or destination.
    pub id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// HTTP status of the downstream, where there was one.
    pub status: Option<u16>,
    /// Instance that answers.
    pub instance: String,
    /// Host of the downstream that was asked, where one was.
    pub downstream: Option<String>,
    /// Why it was not done.
    pub error: Option<ReplyError>,
    /// When to try again, milliseconds; only on overload.
    #[serde(
        rename = "retryAfterMs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub retry_after_ms: Option<u64>,
    /// Answer of a generic HTTP downstream. To peers as a text that holds the JSON: only so its
    /// numbers keep their digits in all forms of serde.
    #[serde(
        rename = "bodyText",
        alias = "body",
        default,
        deserialize_with = "body",
        skip_serializing_if = "Option::is_none"
    )]
    pub body: Option<Json>,
}

/// A body as its text, or as former versions wrote it to peers and disk: as a value under `body`.
fn body<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Json>, D::Error> {
    Ok(match Option::<serde_json::Value>::deserialize(from)? {
        None => None,
        Some(serde_json::Value::String(text)) => {
            let written = Json::read(&text, usize::MAX);
            Some(written.unwrap_or_else(|| serde_json::Value::String(text).into()))
        }
        Some(value) => Some(value.into()),
    })
}

/// A reply as clients get it, in the order of its fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    r#type: &'static str,
    command: &'a str,
    id: &'a str,
    outcome: Outcome,
    status: Option<u16>,
    instance: &'a str,
    downstream: Option<&'a str>,
    error: Option<&'a ReplyError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
}

impl Reply {
    /// The message body. Every key up to `error` is always present, `null` where it has no value.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let body = self.body.as_ref();
        let message = Message {
            r#type: "Reply",
            command: &self.command,
            id: &self.id,
            outcome: self.outcome,
            status: self.status,
            instance: &self.instance,
            downstream: self.downstream.as_deref(),
            error: self.error.as_ref(),
            retry_after_ms: self.retry_after_ms,
            // Cannot fail: only JSON is ever put there.
            body: body.and_then(|body| serde_json::from_str(body.as_str()).ok()),
        };
        // Cannot fail: there are no map keys and no non-finite numbers.
        serde_json::to_vec(&message).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Reply {
        Reply {
            command: "MakeCall".into(),
            id: "1001".into(),
            outcome: Outcome::Accepted,
            status: Some(202),
            instance: "gc-1".into(),
            downstream: Some("finesse-1.example".into()),
            error: None,
            retry_after_ms: None,
            body: None,
        }
    }

    fn text(reply: &Reply) -> String {
        String::from_utf8(reply.to_json()).unwrap()
    }

    #[test]
    fn the_shape_is_the_contracts() {
        assert_eq!(
            text(&sample()),
            r#"{"type":"Reply","command":"MakeCall","id":"1001","outcome":"ACCEPTED","status":202,"instance":"gc-1","downstream":"finesse-1.example","error":null}"#
        );
    }

    #[test]
    fn absent_values_are_null_and_extras_come_last() {
        let reply = Reply {
            outcome: Outcome::Rejected,
            status: None,
            downstream: None,
            error: Some(ReplyError {
                code: "PLEASE_RETRY".into(),
                message: "too many commands".into(),
            }),
            retry_after_ms: Some(250),
            body: Json::read("[1.10]", 1),
            ..sample()
        };
        assert_eq!(
            text(&reply),
            r#"{"type":"Reply","command":"MakeCall","id":"1001","outcome":"REJECTED","status":null,"instance":"gc-1","downstream":null,"error":{"code":"PLEASE_RETRY","message":"too many commands"},"retryAfterMs":250,"body":[1.10]}"#
        );
        // What peers and the journal remember is the same answer.
        let kept: Reply = serde_json::from_slice(&serde_json::to_vec(&reply).unwrap()).unwrap();
        assert_eq!(kept, reply);
    }

    #[test]
    fn the_word_and_the_serialised_form_agree() {
        for outcome in Outcome::ALL {
            assert_eq!(
                serde_json::to_value(outcome).unwrap(),
                serde_json::Value::from(outcome.as_str())
            );
        }
    }

    #[test]
    fn a_body_of_a_former_version_is_read_as_well() {
        let read = |body: &str| {
            let head = r#""command":"Call","id":"k","outcome":"OK","status":200,"instance":"gc-1""#;
            let text = format!(r#"{{{head},"downstream":null,"error":null{body}}}"#);
            let reply: Reply = serde_json::from_str(&text).unwrap();
            reply.body.map(|body| body.as_str().to_owned())
        };
        assert_eq!(read(""), None);
        assert_eq!(read(r#","body":{"a":1}"#).as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(
            read(r#","body":"so it is""#).as_deref(),
            Some(r#""so it is""#)
        );
        assert_eq!(
            read(r#","bodyText":"{\"a\":1.10}""#).as_deref(),
            Some(r#"{"a":1.10}"#)
        );
    }
}
