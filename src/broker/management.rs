//! A small client for RabbitMQ's management HTTP API: JSON in and out, bounded in time and size.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::net::{TlsClient, dial};
use crate::settings::ManagementUrl;

/// Bound of one request, connecting included; of a PUT see below.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bound of a PUT: a changed policy is carried through all queues before the answer comes, and a
/// federation link is dialled.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer that is read. Lists are asked for with few columns and stay far below it.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// How much of an error's reason is kept, in characters.
const MAX_REASON_CHARS: usize = 300;
/// Everything but unreserved characters (RFC 3986, section 2.3) is escaped.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One path segment of the API, for example a virtual host: `/` becomes `%2F`.
pub fn segment(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

/// Why a request to the management API failed. The state of the broker did not change, except
/// that after [`ManagementError::Unreachable`] a changing request may have been executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagementError {
    /// No connection, no answer in time, or the answer broke off.
    #[error("management API {url} unreachable: {reason}")]
    Unreachable {
        /// Base URL.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The user or password is wrong, or the user lacks a tag or permission.
    #[error("management API {url} refuses the user ({status})")]
    Unauthorized {
        /// Base URL.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// Any other answer that is not a success.
    #[error("management API {url} answered {status} to {path}: {reason}")]
    Refused {
        /// Base URL.
        url: String,
        /// Path below `/api/`.
        path: String,
        /// HTTP status.
        status: u16,
        /// The broker's words, shortened.
        reason: String,
    },
    /// The answer is too large or not JSON.
    #[error("management API {url}: answer to {path} cannot be used: {reason}")]
    BadAnswer {
        /// Base URL.
        url: String,
        /// Path below `/api/`.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP client could not be built.
    #[error("HTTP client: {0}")]
    Client(String),
}

/// A client for one broker's API. Cloning shares its connections.
#[derive(Clone)]
pub struct ManagementClient {
    /// Of a cluster one a node; never empty.
    bases: Arc<Vec<String>>,
    /// The one that answered last.
    current: Arc<AtomicUsize>,
    user: String,
    password: String,
    tls: TlsClient,
    http: reqwest::Client,
}

impl fmt::Debug for ManagementClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagementClient")
            .field("bases", &self.bases)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl ManagementClient {
    /// A client for `base` (`http://host:15672`, without `/api`) that trusts the system's
    /// authorities. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ManagementError::Client`] where TLS cannot be set up.
    pub fn new(base: &str, user: &str, password: &str) -> Result<Self, ManagementError> {
        Self::with_tls(base, user, password, &TlsClient::default())
    }

    /// A client for a configured broker.
    ///
    /// # Errors
    /// [`ManagementError::Client`] where its certificates cannot be used.
    pub fn of(management: &ManagementUrl) -> Result<Self, ManagementError> {
        let password = management.password.expose();
        let (url, user) = (&management.url, &management.username);
        Self::with_tls(url, user, password, &management.tls)
    }

    /// A client for `base` that trusts, and identifies itself, as `tls` says. Of a cluster `base`
    /// is one URL a node, with commas between them: they are tried in turn.
    ///
    /// # Errors
    /// [`ManagementError::Client`] where the certificates cannot be used.
    pub fn with_tls(
        base: &str,
        user: &str,
        password: &str,
        tls: &TlsClient,
    ) -> Result<Self, ManagementError> {
        let config = tls
            .config()
            .map_err(|error| ManagementError::Client(error.to_string()))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config.as_ref().clone())
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| ManagementError::Client(error.to_string()))?;
        Ok(Self {
            bases: Arc::new(
                base.split(',')
                    .map(|one| one.trim_end_matches('/').to_owned())
                    .collect(),
            ),
            current: Arc::default(),
            user: user.to_owned(),
            password: password.to_owned(),
            tls: tls.clone(),
            http,
        })
    }

    /// One client a node.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        self.bases.iter().map(|base| Self {
            bases: Arc::new(vec![base.clone()]),
            current: Arc::default(),
            ..self.clone()
        })
    }

    /// Base URL of the one that answered last, for messages.
    pub fn base(&self) -> &str {
        let at = self.current.load(Ordering::Relaxed);
        self.bases.get(at).map_or("", String::as_str)
    }

    /// GET `/api/<path>`; `None` where it does not exist (404).
    ///
    /// # Errors
    /// See [`ManagementError`].
    pub async fn get(&self, path: &str) -> Result<Option<Value>, ManagementError> {
        let response = self.send(Method::GET, path, None).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let body = self.success_body(path, response).await?;
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| self.bad_answer(path, error.to_string()))
    }

    /// The broker's clock, in whole seconds; `None` where it does not say.
    ///
    /// # Errors
    /// See [`ManagementError`].
    pub async fn clock(&self) -> Result<Option<SystemTime>, ManagementError> {
        let path = "overview?columns=node";
        let response = self.send(Method::GET, path, None).await?;
        let date = response.headers().get(reqwest::header::DATE);
        let date = date.and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| chrono::DateTime::parse_from_rfc2822(date).ok());
        Ok(date.map(SystemTime::from))
    }

    /// PUT `/api/<path>`: create or replace.
    ///
    /// # Errors
    /// See [`ManagementError`].
    pub async fn put(&self, path: &str, body: &Value) -> Result<(), ManagementError> {
        let response = self.send(Method::PUT, path, Some(body)).await?;
        self.success_body(path, response).await.map(drop)
    }

    /// POST `/api/<path>`; gives the answer, `null` where it is empty.
    ///
    /// # Errors
    /// See [`ManagementError`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ManagementError> {
        let response = self.send(Method::POST, path, Some(body)).await?;
        let bytes = self.success_body(path, response).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| self.bad_answer(path, error.to_string()))
    }

    /// DELETE `/api/<path>`; whether it existed.
    ///
    /// # Errors
    /// See [`ManagementError`].
    pub async fn delete(&self, path: &str) -> Result<bool, ManagementError> {
        let response = self.send(Method::DELETE, path, None).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        self.success_body(path, response).await.map(|_| true)
    }

    /// Asks the one that answered last, and where it cannot be reached the others.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, ManagementError> {
        let first = self.current.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for step in 0..self.bases.len() {
            let at = (first + step) % self.bases.len();
            match self.send_to(&self.bases[at], &method, path, body).await {
                Ok(response) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => {
                    // What may have been done must not be done twice.
                    let over = method == Method::POST && !error.is_connect();
                    failures.push((self.bases[at].as_str(), self.cause(&error)));
                    if over {
                        break;
                    }
                }
            }
        }
        Err(unreachable(failures))
    }

    async fn send_to(
        &self,
        base: &str,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, reqwest::Error> {
        let limit = if *method == Method::PUT {
            PUT_TIMEOUT
        } else {
            REQUEST_TIMEOUT
        };
        let mut request = self
            .http
            .request(method.clone(), format!("{base}/api/{path}"))
            .timeout(limit)
            .basic_auth(&self.user, Some(&self.password));
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await
    }

    async fn success_body(
        &self,
        path: &str,
        mut response: Response,
    ) -> Result<Vec<u8>, ManagementError> {
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| {
            let reason = self.cause(&e);
            unreachable(vec![(self.base(), reason)])
        })? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(self.bad_answer(path, format!("more than {MAX_BODY_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(ManagementError::Unauthorized {
                url: self.base().to_owned(),
                status: status.as_u16(),
            });
        }
        Err(ManagementError::Refused {
            url: self.base().to_owned(),
            path: path.to_owned(),
            status: status.as_u16(),
            reason: reason(&body),
        })
    }

    fn cause(&self, error: &reqwest::Error) -> String {
        // reqwest's own text names the URL, which is in the message already; the cause tells more.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let words = self.tls.explain(error);
        words.unwrap_or_else(|| cause.to_string())
    }

    fn bad_answer(&self, path: &str, reason: String) -> ManagementError {
        ManagementError::BadAnswer {
            url: self.base().to_owned(),
            path: path.to_owned(),
            reason,
        }
    }
}

/// Where nobody answered: each with its reason.
fn unreachable(failures: Vec<(&str, String)>) -> ManagementError {
    let urls: Vec<&str> = failures.iter().map(|(url, _)| *url).collect();
    ManagementError::Unreachable {
        url: urls.join(","),
        reason: dial::in_words(urls.len() == 1, failures),
    }
}

/// The broker's reason: `{"error": …, "reason": …}` or plain text.
fn reason(body: &[u8]) -> String {
    let text = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|value| Some(value.get("reason")?.as_str()?.to_owned()))
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.chars().take(MAX_REASON_CHARS).collect()
}

/// Names of all queues of a virtual host.
///
/// # Errors
/// [`ManagementError`] where the API cannot be asked.
pub async fn queue_names(
    management: &ManagementUrl,
    vhost: &str,
) -> Result<Vec<String>, ManagementError> {
    let client = ManagementClient::of(management)?;
    let path = format!("queues/{}?columns=name", segment(vhost));
    let queues = client.get(&path).await?.unwrap_or(Value::Null);
    let names = queues.as_array().into_iter().flatten();
    Ok(names
        .filter_map(|queue| queue["name"].as_str().map(str::to_owned))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers one request with fixed bytes.
    async fn server(answer: Vec<u8>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer).await;
        });
        format!("http://{address}/")
    }

    async fn ask(answer: &str) -> Result<Option<Value>, ManagementError> {
        let base = server(answer.as_bytes().to_vec()).await;
        let client = ManagementClient::new(&base, "u", "secret-word").unwrap();
        client.get("overview").await
    }

    #[tokio::test]
    async fn answers_are_told_apart() {
        let ok = ask("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}").await;
        assert_eq!(ok.unwrap().unwrap()["a"], 1);
        let none = ask("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(none, Ok(None));
        let user = ask("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(
            user,
            Err(ManagementError::Unauthorized { status: 401, .. })
        ));
        let refused =
            ask("HTTP/1.1 400 Bad\r\ncontent-length: 17\r\n\r\n{\"reason\":\"cold\"}").await;
        let Err(ManagementError::Refused { status, reason, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((status, reason.as_str()), (400, "cold"));
        let broken = ask("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{{{").await;
        assert!(matches!(broken, Err(ManagementError::BadAnswer { .. })));
    }

    #[tokio::test]
    async fn an_endless_answer_is_refused_and_no_listener_is_unreachable() {
        let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n".to_vec();
        answer.resize(9_000_100, b' ');
        let base = server(answer).await;
        let client = ManagementClient::new(&base, "u", "p").unwrap();
        let result = client.get("queues").await;
        assert!(matches!(result, Err(ManagementError::BadAnswer { .. })));
        let client = ManagementClient::new("http://127.0.0.1:1", "u", "p").unwrap();
        let result = client.get("queues").await;
        assert!(matches!(result, Err(ManagementError::Unreachable { .. })));
    }

    #[tokio::test]
    async fn the_nodes_of_a_cluster_are_asked_in_turn() {
        let up = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()).await;
        let base = format!("http://127.0.0.1:1,{up}");
        let client = ManagementClient::new(&base, "u", "p").unwrap();
        assert!(client.get("overview").await.unwrap().is_some());
        assert_eq!(client.base(), up.trim_end_matches('/'));
        let dead = ManagementClient::new("http://127.0.0.1:1,http://127.0.0.1:2", "u", "p");
        let error = dead.unwrap().get("overview").await.unwrap_err().to_string();
        for part in ["http://127.0.0.1:1: ", "http://127.0.0.1:2: "] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn names_become_one_segment_and_the_password_is_not_shown() {
        assert_eq!(segment("/"), "%2F");
        assert_eq!(segment("a b/../c?"), "a%20b%2F..%2Fc%3F");
        let client = ManagementClient::new("http://h", "u", "secret-word").unwrap();
        assert!(!format!("{client:?}").contains("secret-word"));
    }
}
