//! A generic HTTP downstream: any answer is the answer.

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::model::text::without_mark;
use crate::model::{Answer, CallOutcome, HttpAnswer, HttpRequest, Json, NodeHealth};

use super::classify;

/// Deepest nesting of a JSON answer that is passed on as JSON.
const MAX_DEPTH: usize = 32;

/// Method of a request.
pub(super) fn method(request: &HttpRequest) -> Method {
    Method::from_bytes(request.method.as_bytes()).unwrap_or_default()
}

/// What an answer means: 2xx, 4xx and 304 (it is as the client has it) are answers. A redirect is
/// not followed and a 5xx may hide an effect: both leave open what became of the request, so that
/// only what is idempotent is tried again; what they say is passed on.
pub(super) async fn answered(request: &HttpRequest, response: Response) -> CallOutcome {
    let code = response.status();
    let status = code.as_u16();
    let answer = code.is_success() || code.is_client_error() || code == StatusCode::NOT_MODIFIED;
    if !answer {
        let reason = if code.is_redirection() {
            "a redirect, which is not followed".to_owned()
        } else {
            format!("HTTP {status}")
        };
        let body = read(response).await.unwrap_or_else(|_| Json::null());
        return CallOutcome::Unsettled {
            status,
            answer: Box::new(HttpAnswer { body }),
            reason,
        };
    }
    // What was asked for is this body; else the status says what became of it, and the body is only
    // lost.
    let body_is_all = request.method == "GET" && code.is_success();
    match read(response).await {
        Err((timed_out, reason)) if body_is_all => CallOutcome::Unknown {
            status: Some(status),
            timed_out,
            reason,
        },
        body => CallOutcome::Done {
            status,
            answer: Answer::Http(Box::new(HttpAnswer {
                body: body.unwrap_or_else(|_| Json::null()),
            })),
        },
    }
}

/// The body, or whether the time was up and why it cannot be read.
async fn read(response: Response) -> Result<Json, (bool, String)> {
    if let Some(reason) = classify::encoded(&response) {
        return Err((false, reason));
    }
    let json = response
        .headers()
        .get(reqwest::header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
    let bytes = classify::body_of(response).await?;
    Ok(shown(&bytes, json))
}

/// A body as the reply carries it.
fn shown(bytes: &[u8], json: bool) -> Json {
    if bytes.is_empty() {
        return Json::null();
    }
    std::str::from_utf8(bytes)
        .ok()
        .filter(|_| json)
        .and_then(|text| Json::read(without_mark(text), MAX_DEPTH))
        .unwrap_or_else(|| {
            let text = String::from_utf8_lossy(bytes);
            Value::from(without_mark(&text)).into()
        })
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
        let text = |text: &str| Json::from(Value::from(text));
        assert_eq!(shown(b"", true), Json::null());
        assert_eq!(shown(br#"{"a":1}"#, true).as_str(), r#"{"a":1}"#);
        assert_eq!(shown(br#"{"a":1}"#, false), text(r#"{"a":1}"#));
        assert_eq!(shown(b"{broken", true), text("{broken"));
        assert_eq!(shown(b"\xef\xbb\xbf[1]", true).as_str(), "[1]");
        assert_eq!(shown(b"\xef\xbb\xbfyes", false), text("yes"));
        assert_eq!(shown(b"\"\xff\"", true), text("\"\u{fffd}\""));
        let deep = "[".repeat(40) + &"]".repeat(40);
        assert_eq!(shown(deep.as_bytes(), true), text(&deep));
        let flat = "[".repeat(32) + &"]".repeat(32);
        assert_eq!(shown(flat.as_bytes(), true).as_str(), flat);
    }

    #[test]
    fn a_json_answer_keeps_its_digits_and_order() {
        let body = r#"{"z":12345678901234567890123,"a":1.10,"e":1e2}"#;
        assert_eq!(shown(body.as_bytes(), true).as_str(), body);
    }
}
