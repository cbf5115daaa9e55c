//! The one terminal answer to a command (contract, section 4.3).

use serde::Serialize;
use serde_json::Value;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct ReplyError {
    /// Code of the connector or of the platform.
    pub code: String,
    /// Words for a person; without secrets.
    pub message: String,
}

/// A reply. Field order is the order on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
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
    /// Answer of a generic HTTP downstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

#[derive(Serialize)]
struct Tagged<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    reply: &'a Reply,
}

impl Reply {
    /// The message body. Every key up to `error` is always present, `null` where it has no value.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let tagged = Tagged {
            r#type: "Reply",
            reply: self,
        };
        // Cannot fail: all map keys are texts and a `Value` holds no non-finite number.
        serde_json::to_vec(&tagged).unwrap_or_default()
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
            body: Some(serde_json::json!([1])),
            ..sample()
        };
        assert_eq!(
            text(&reply),
            r#"{"type":"Reply","command":"MakeCall","id":"1001","outcome":"REJECTED","status":null,"instance":"gc-1","downstream":null,"error":{"code":"PLEASE_RETRY","message":"too many commands"},"retryAfterMs":250,"body":[1]}"#
        );
    }

    #[test]
    fn the_word_and_the_serialised_form_agree() {
        for outcome in [
            Outcome::Ok,
            Outcome::Accepted,
            Outcome::Rejected,
            Outcome::Failed,
            Outcome::Expired,
            Outcome::InDoubt,
        ] {
            assert_eq!(
                serde_json::to_value(outcome).unwrap(),
                Value::from(outcome.as_str())
            );
        }
    }
}
