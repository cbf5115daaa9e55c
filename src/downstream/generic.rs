//! A generic HTTP downstream: any answer is the answer.

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::model::{Answer, CallOutcome, HttpAnswer, HttpRequest, NodeHealth};

use super::classify;

/// Deepest nesting of a JSON answer that is passed on as JSON.
const MAX_DEPTH: usize = 32;

/// Method of a request.
pub(super) fn method(request: &HttpRequest) -> Method {
    Method::from_bytes(request.method.as_bytes()).unwrap_or_default()
}

/// What an answer means: 2xx and 4xx are answers. A redirect is not followed and a 5xx may hide an
/// effect: both are unknown, so that only what is idempotent is tried again.
pub(super) async fn answered(request: &HttpRequest, response: Response) -> CallOutcome {
    let code = response.status();
    let status = code.as_u16();
    if !code.is_success() && !code.is_client_error() {
        let reason = if code.is_redirection() {
            "a redirect, which is not followed".to_owned()
        } else {
            format!("HTTP {status}")
        };
        return CallOutcome::Unknown {
            status: Some(status),
            timed_out: false,
            reason,
        };
    }
    // What was asked for is this body, or it is done and the body is only lost.
    if let Some(reason) = classify::encoded(&response) {
        return match request.method {
            "GET" => CallOutcome::Unknown {
                status: Some(status),
                timed_out: false,
                reason,
            },
            _ => CallOutcome::Done {
                status,
                answer: Answer::Http(Box::new(HttpAnswer { body: Value::Null })),
            },
        };
    }
    let json = response
        .headers()
        .get(reqwest::header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
    match classify::body_of(response).await {
        Ok(bytes) => CallOutcome::Done {
            status,
            answer: Answer::Http(Box::new(HttpAnswer {
                body: shown(&bytes, json),
            })),
        },
        Err((timed_out, reason)) => CallOutcome::Unknown {
            status: Some(status),
            timed_out,
            reason,
        },
    }
}

/// A body as the reply carries it.
fn shown(bytes: &[u8], json: bool) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    if json
        && let Ok(value) = serde_json::from_slice::<Value>(bytes)
        && depth(&value, MAX_DEPTH)
    {
        return value;
    }
    Value::String(String::from_utf8_lossy(bytes).into_owned())
}

/// Whether a value nests no deeper than this.
fn depth(value: &Value, left: usize) -> bool {
    match value {
        Value::Array(items) => left > 0 && items.iter().all(|item| depth(item, left - 1)),
        Value::Object(items) => left > 0 && items.values().all(|item| depth(item, left - 1)),
        _ => true,
    }
}

/// A node that answers anything but a 5xx is in service.
pub(super) fn health(code: StatusCode) -> NodeHealth {
    if code.is_server_error() {
        return NodeHealth::OutOfService {
            reason: format!("HTTP {}", code.as_u16()),
        };
    }
    NodeHealth::InService {
        xmpp_domain: String::new(),
        pubsub_domain: String::new(),
        deployment: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_json_where_they_are_and_texts_elsewhere() {
        assert_eq!(shown(b"", true), Value::Null);
        assert_eq!(shown(br#"{"a":1}"#, true), serde_json::json!({"a": 1}));
        assert_eq!(shown(br#"{"a":1}"#, false), Value::from(r#"{"a":1}"#));
        assert_eq!(shown(b"{broken", true), Value::from("{broken"));
        let deep = "[".repeat(40) + &"]".repeat(40);
        assert_eq!(shown(deep.as_bytes(), true), Value::from(deep));
        let flat = "[".repeat(32) + &"]".repeat(32);
        assert!(shown(flat.as_bytes(), true).is_array());
    }
}
