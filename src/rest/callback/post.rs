//! One event, one request.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::types::AMQPValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use reqwest::{Client, StatusCode, Url, redirect, retry};

use super::names::Names;
use super::sign::{self, Signer};
use super::{Addresses, CallbackConfig};
use crate::model::Secret;
use crate::renewed::Renewed;
use crate::rest::connection::BadConfig;

/// Of an answer so much is read that the connection can be used again, bytes.
const MAX_ANSWER: u64 = 16 * 1024;
/// What is encoded of a text that cannot stand in a header as it is, besides letters beyond ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
/// How long a connection may be idle that is used again.
const IDLE: Duration = Duration::from_secs(10);

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Posted {
    /// 2xx: the client has it.
    Taken,
    /// The client will never take it (4xx).
    Refused(String),
    /// Nobody there, no answer, 5xx, a redirect, not on this instance's list: to be tried again.
    Failed(String),
}

/// Posts events.
#[derive(Debug, Clone)]
pub(super) struct Poster {
    http: Client,
    token: Renewed<Option<Secret>>,
    sign_key: Renewed<Option<Secret>>,
    addresses: Addresses,
}

impl Poster {
    pub(super) fn new(config: &CallbackConfig) -> Result<Self, BadConfig> {
        let tls = config.tls.config()?;
        let http = Client::builder()
            .tls_backend_preconfigured(tls.as_ref().clone())
            .http1_only()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .tcp_nodelay(true)
            // What is left is for connecting and the answer.
            .dns_resolver(Names::new(config.timeout / 2))
            .pool_idle_timeout(IDLE)
            .connect_timeout(config.timeout)
            .timeout(config.timeout)
            .build()
            .map_err(|error| BadConfig::Http(error.to_string()))?;
        if let Some(token) = config.token.get().as_ref() {
            bearer_header(token)?;
        }
        Ok(Self {
            http,
            token: config.token.clone(),
            sign_key: config.sign_key.clone(),
            addresses: config.addresses.clone(),
        })
    }

    /// Posts one event and waits for the answer, which the client's configuration bounds.
    pub(super) async fn post(&self, url: &str, destination: &str, event: &Delivery) -> Posted {
        // Whoever registered it may have had another list.
        let url = match Url::parse(url) {
            Ok(url) if self.addresses.allows(&url) => url,
            // The other instance's may have it, and this one's soon.
            _ => return Posted::Failed("not on rest.callback.allow here".to_owned()),
        };
        let mut headers = headers(destination, event);
        // One that cannot stand there has been refused before.
        if let Some(Ok(token)) = self.token.get().as_ref().as_ref().map(bearer_header) {
            headers.insert(AUTHORIZATION, token);
        }
        let key = self.sign_key.get();
        let signer = key.as_ref().as_ref().map(Signer::new);
        if let Some(signature) = signer.and_then(|signer| signer.now(&event.data)) {
            headers.insert(sign::HEADER, signature);
        }
        let request = self.http.post(url).headers(headers);
        match request.body(event.data.clone()).send().await {
            Ok(mut answer) => {
                let status = answer.status();
                let posted = judged(status);
                if answer.content_length().unwrap_or(0) <= MAX_ANSWER {
                    let mut read = 0;
                    while let Ok(Some(part)) = answer.chunk().await {
                        read += part.len() as u64;
                        if read > MAX_ANSWER {
                            break;
                        }
                    }
                }
                posted
            }
            Err(error) => Posted::Failed(reason(&error)),
        }
    }
}

/// How a token stands in a request.
///
/// # Errors
/// It cannot.
pub(in crate::rest) fn bearer_header(token: &Secret) -> Result<HeaderValue, BadConfig> {
    let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
    let mut value = value
        .map_err(|_| BadConfig::Http("rest.callback.token cannot stand in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn judged(status: StatusCode) -> Posted {
    match status {
        _ if status.is_success() => Posted::Taken,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Posted::Failed(format!("status {}", status.as_u16()))
        }
        // A token or a route that is missing is mended sooner than an event is forgotten.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            Posted::Failed(format!("status {}", status.as_u16()))
        }
        _ if status.is_client_error() => Posted::Refused(format!("status {}", status.as_u16())),
        _ if status.is_redirection() => Posted::Failed(format!(
            "status {}: redirects are not followed",
            status.as_u16()
        )),
        _ => Posted::Failed(format!("status {}", status.as_u16())),
    }
}

/// Without the URL, which a client has written.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// As it is where that is printable ASCII, else percent-encoded: a destination may have any letters.
fn header_value(text: &str) -> Option<HeaderValue> {
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match printable {
        true => HeaderValue::from_str(text).ok(),
        false => {
            let encoded = utf8_percent_encode(text, ENCODED).to_string();
            HeaderValue::from_str(&encoded).ok()
        }
    }
}

/// What stands in the message's properties.
fn headers(destination: &str, event: &Delivery) -> HeaderMap {
    let properties = &event.properties;
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static("tandem"));
    let mut put = |name: HeaderName, text: Option<&str>| {
        if let Some(value) = text.and_then(header_value) {
            headers.insert(name, value);
        }
    };
    let text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(ToString::to_string);
    let kind = text(properties.content_type()).unwrap_or_else(|| "text/plain".to_owned());
    put(CONTENT_TYPE, Some(&kind));
    let name = HeaderName::from_static;
    put(name("x-destination"), Some(destination));
    put(
        name("idempotency-key"),
        text(properties.message_id()).as_deref(),
    );
    put(
        name("x-correlation-id"),
        text(properties.correlation_id()).as_deref(),
    );
    put(name("x-instance"), text(properties.app_id()).as_deref());
    let table = properties.headers().as_ref();
    for (header, of) in [
        (name("x-epoch"), "x-epoch"),
        (name("traceparent"), "traceparent"),
        (name("tracestate"), "tracestate"),
    ] {
        let value = match table.and_then(|table| table.inner().get(of)) {
            Some(AMQPValue::LongLongInt(number)) => Some(number.to_string()),
            Some(AMQPValue::LongString(text)) => {
                Some(String::from_utf8_lossy(text.as_bytes()).into_owned())
            }
            _ => None,
        };
        put(header, value.as_deref());
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_any_letters_percent_encoded() {
        for (text, value) in [
            ("crm 50%", "crm 50%"),
            ("büro 50%", "b%C3%BCro 50%25"),
            ("a\nb", "a%0Ab"),
        ] {
            assert_eq!(header_value(text).unwrap(), value);
        }
    }

    #[tokio::test]
    async fn what_is_not_on_this_instances_list_is_tried_again() {
        let addresses = Addresses::new(Vec::new(), None, None);
        let tls = crate::net::TlsClient::default().config().unwrap();
        let http = Client::builder().tls_backend_preconfigured(tls.as_ref().clone());
        let poster = Poster {
            http: http.build().unwrap(),
            token: Renewed::new(None),
            sign_key: Renewed::new(None),
            addresses,
        };
        let exchange = lapin::types::ShortString::from("e");
        let event = Delivery::mock(1, exchange, "crm".into(), false, Vec::new());
        let posted = poster.post("https://crm.example/", "crm", &event).await;
        assert!(matches!(posted, Posted::Failed(_)), "{posted:?}");
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
        let judged = |status| judged(StatusCode::from_u16(status).unwrap());
        assert_eq!(judged(204), Posted::Taken);
        for status in [301, 307, 401, 404, 408, 429, 500, 503] {
            assert!(matches!(judged(status), Posted::Failed(_)), "{status}");
        }
        for status in [400, 410, 413, 415, 422] {
            assert!(matches!(judged(status), Posted::Refused(_)), "{status}");
        }
    }
}
