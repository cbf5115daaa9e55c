//! From what HTTP reports to what it means for the command.
//!
//! | seen | meaning |
//! | --- | --- |
//! | no connection for want of descriptors, ports, memory or threads here | no room: nothing is known of the node |
//! | no connection, DNS or TLS failure | not sent: another node may be tried |
//! | 4xx, 501 | refused: nobody executed it |
//! | 2xx | done; an answer to a read that cannot be understood is unknown |
//! | 503 | out of service, not executed: another node may be tried |
//! | timeout after sending, reset, truncated answer, other 5xx, 3xx, anything else | unknown |

use std::error::Error as _;

use reqwest::header::CONTENT_ENCODING;
use reqwest::{Method, Response, StatusCode};

use crate::model::{Action, Answer, CallOutcome, NodeHealth, Shortage};
use crate::net::TlsClient;
use crate::net::shortage;

use crate::finesse::xml::{MAX_BYTES, MAX_LIST_BYTES};
use crate::finesse::{self, api_error, system_info};

/// Longest reason, in bytes.
const MAX_REASON: usize = 300;

/// Why a body was not read to its end.
enum BodyError {
    TooLarge(usize),
    Http(reqwest::Error),
}

impl BodyError {
    fn reason(&self) -> String {
        match self {
            Self::TooLarge(most) => format!("answer of more than {most} bytes"),
            Self::Http(error) => describe(error),
        }
    }

    fn timed_out(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_timeout())
    }
}

/// What became of a request that got no HTTP status.
pub(super) fn failed(error: &reqwest::Error, tls: &TlsClient) -> CallOutcome {
    if let Some(shortage) = shortage(error) {
        return CallOutcome::NoRoom(shortage);
    }
    let (reason, timed_out) = (why(error, tls), error.is_timeout());
    if error.is_connect() || error.is_builder() {
        CallOutcome::NotSent { timed_out, reason }
    } else {
        CallOutcome::Unknown {
            status: None,
            timed_out,
            reason,
        }
    }
}

/// What this machine lacked for the connection. Later errors say nothing about what was sent.
fn shortage(error: &reqwest::Error) -> Option<Shortage> {
    error.is_connect().then(|| shortage::among(error)).flatten()
}

/// Health of a node whose status could not be asked for.
pub(super) fn unhealthy(error: &reqwest::Error, tls: &TlsClient) -> NodeHealth {
    match shortage(error) {
        Some(shortage) => NodeHealth::NoRoom(shortage),
        None => NodeHealth::Unreachable {
            reason: why(error, tls),
        },
    }
}

/// What an answer means; reads as much of the body as that takes.
pub(super) async fn answered(method: &Method, action: &Action, response: Response) -> CallOutcome {
    let code = response.status();
    let status = code.as_u16();
    if code.is_success() {
        // The result of a change comes as a notification: its body says nothing.
        if method != Method::GET {
            return CallOutcome::Done {
                status,
                answer: Answer::Empty,
            };
        }
        return read_answer(status, action, response).await;
    }
    // 501: this deployment does not have the feature.
    if code.is_client_error() || code == StatusCode::NOT_IMPLEMENTED {
        // The refusal stands even where its explanation is lost.
        let error = body(response)
            .await
            .map_or_else(|_| Default::default(), |body| api_error::document(&body));
        return CallOutcome::Refused { status, error };
    }
    if code == StatusCode::SERVICE_UNAVAILABLE {
        return CallOutcome::OutOfService {
            reason: out_of_service(response).await,
        };
    }
    let reason = unexpected(response, code).await;
    CallOutcome::Unknown {
        status: Some(status),
        timed_out: false,
        reason,
    }
}

async fn read_answer(status: u16, action: &Action, response: Response) -> CallOutcome {
    let most = if action.reads_list() {
        MAX_LIST_BYTES
    } else {
        MAX_BYTES
    };
    if let Some(reason) = encoded(&response) {
        return CallOutcome::Unknown {
            status: Some(status),
            timed_out: false,
            reason,
        };
    }
    let (timed_out, reason) = match bounded(response, most).await {
        Ok(body) => match finesse::answer(action, &body) {
            Ok(answer) => return CallOutcome::Done { status, answer },
            Err(error) => (false, format!("unreadable answer: {error}")),
        },
        Err(error) => (error.timed_out(), error.reason()),
    };
    CallOutcome::Unknown {
        status: Some(status),
        timed_out,
        reason,
    }
}

/// Why the body cannot be read, where it is compressed although that was not asked for.
pub(super) fn encoded(response: &Response) -> Option<String> {
    let coding = response.headers().get(CONTENT_ENCODING)?.to_str().ok();
    let coding = coding.unwrap_or("unknown").trim();
    if coding.is_empty() || coding.eq_ignore_ascii_case("identity") {
        return None;
    }
    let words = format!("answer in content coding {coding}, which was not asked for");
    Some(shortened(words))
}

/// Health from the answer of `GET SystemInfo`.
pub(super) async fn health(response: Response) -> NodeHealth {
    let code = response.status();
    if code == StatusCode::SERVICE_UNAVAILABLE {
        return NodeHealth::OutOfService {
            reason: out_of_service(response).await,
        };
    }
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let reason = if code.is_success() {
        match body(response).await {
            Ok(body) => match system_info::document(&body) {
                Ok(health) => return with_domains(health, &host),
                Err(error) => format!("unreadable SystemInfo: {error}"),
            },
            Err(error) => error.reason(),
        }
    } else {
        unexpected(response, code).await
    };
    NodeHealth::Unreachable { reason }
}

/// A node that does not tell its domains: it is its own, as on a platform of one node.
fn with_domains(mut health: NodeHealth, host: &str) -> NodeHealth {
    if let NodeHealth::InService {
        xmpp_domain,
        pubsub_domain,
        ..
    } = &mut health
    {
        if xmpp_domain.is_empty() {
            host.clone_into(xmpp_domain);
        }
        if pubsub_domain.is_empty() {
            *pubsub_domain = format!("pubsub.{xmpp_domain}");
        }
    }
    health
}

async fn out_of_service(response: Response) -> String {
    explained("HTTP 503", response).await
}

async fn unexpected(response: Response, code: StatusCode) -> String {
    if code.is_redirection() {
        return format!("HTTP {}: a redirect, wrong base URL?", code.as_u16());
    }
    if code == StatusCode::NOT_FOUND {
        return "HTTP 404: wrong base URL?".to_owned();
    }
    explained(&format!("HTTP {}", code.as_u16()), response).await
}

async fn explained(status: &str, response: Response) -> String {
    let error = body(response)
        .await
        .map_or_else(|_| Default::default(), |body| api_error::document(&body));
    let words: Vec<&str> = [status, &error.kind, &error.message]
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect();
    shortened(words.join(": "))
}

/// The body, at most [`MAX_BYTES`]; whoever sends more loses the connection.
async fn body(response: Response) -> Result<Vec<u8>, BodyError> {
    bounded(response, MAX_BYTES).await
}

/// As [`body`], with the reason in words: whether the time was up, and why.
pub(super) async fn body_of(response: Response) -> Result<Vec<u8>, (bool, String)> {
    body(response)
        .await
        .map_err(|error| (error.timed_out(), error.reason()))
}

async fn bounded(mut response: Response, most: usize) -> Result<Vec<u8>, BodyError> {
    let announced = response.content_length().unwrap_or(0);
    if announced > most as u64 {
        return Err(BodyError::TooLarge(most));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Http)? {
        if bytes.len() + chunk.len() > most {
            return Err(BodyError::TooLarge(most));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Why a request failed, in words that name the certificate where it is about one.
pub(super) fn why(error: &reqwest::Error, tls: &TlsClient) -> String {
    match tls.explain(error) {
        Some(words) => shortened(format!("TLS failed: {words}")),
        None => describe(error),
    }
}

/// The innermost cause, without the URL (it names the agent).
fn describe(error: &reqwest::Error) -> String {
    let kind = if error.is_connect() && error.is_timeout() {
        "connect timed out"
    } else if error.is_connect() {
        "connect failed"
    } else if error.is_timeout() {
        "timed out"
    } else if error.is_body() || error.is_decode() {
        "answer broken off"
    } else {
        "request failed"
    };
    let mut innermost = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        innermost = cause.to_string();
        source = cause.source();
    }
    if innermost.is_empty() || innermost == "operation timed out" {
        return kind.to_owned();
    }
    shortened(format!("{kind}: {innermost}"))
}

fn shortened(mut text: String) -> String {
    let end = text.floor_char_boundary(MAX_REASON);
    text.truncate(end);
    text
}
