//! A small client of an instance's admin API.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::context::Place;
pub use super::context::Target;
use super::exit;
use crate::engine::View;
use crate::model::Secret;
use crate::net::{TlsClient, TlsError};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may take; the instance gives its engine five seconds.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest answer, bytes: all sessions of a full instance.
const LONGEST: usize = 64 * 1024 * 1024;
/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The command line or a file that it names.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers there, or nobody that we know.
    #[error("the admin API at {url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    /// The instance says no.
    #[error("{0}")]
    Refused(String),
    /// Something of ours.
    #[error("cannot start the HTTP client: {0}")]
    Internal(String),
}

impl ClientError {
    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Unreachable { .. } => exit::UNREACHABLE,
            Self::Refused(_) => exit::FAILED,
            Self::Internal(_) => exit::INTERNAL,
        }
    }

    /// Says it on stderr; gives the exit code.
    pub(super) fn report(&self) -> u8 {
        complain!("tandem: {self}");
        self.code()
    }
}

/// Why a verb is given.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Why {
    /// Why: kept in the instance's history, with who asks
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// The client.
pub(super) struct Admin {
    client: reqwest::Client,
    base: Url,
    token: Option<Secret>,
    tls: TlsClient,
}

impl Admin {
    /// Reads the target; nothing is sent yet.
    pub(super) fn new(target: &Target) -> Result<Self, ClientError> {
        Self::at(target.place()?)
    }

    /// A client of one place; nothing is sent yet.
    pub(super) fn at(place: Place) -> Result<Self, ClientError> {
        let usage = |error: TlsError| ClientError::Usage(error.to_string());
        let tls = place.tls.config().map_err(usage)?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.as_ref().clone())
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")));
        if let (Some(host), Some(at)) = (place.url.host_str(), place.at) {
            builder = builder.resolve(host, at);
        }
        let client = builder
            .build()
            .map_err(|error| ClientError::Internal(error.to_string()))?;
        Ok(Self {
            client,
            base: place.url,
            token: place.token,
            tls: place.tls,
        })
    }

    /// Whether it shows a token.
    #[cfg(test)]
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Where it asks.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// Reads.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ClientError> {
        self.call(Method::GET, path, None).await
    }

    /// Reads, with a question behind the path.
    pub(super) async fn get_with<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        self.asking(query).call(Method::GET, path, None).await
    }

    /// The instance's status as it comes.
    pub(super) async fn raw_status(&self) -> Result<Value, ClientError> {
        let raw: Value = self.get(&["status"]).await?;
        match raw["instance"].as_str() {
            Some(_) => Ok(raw),
            None => Err(self.stranger()),
        }
    }

    /// The instance's status.
    pub(super) async fn status(&self) -> Result<View, ClientError> {
        understood(self.raw_status().await?)
    }

    /// One of the health paths: whether it is good, and its line.
    pub(super) async fn health(&self, path: &str) -> Result<(bool, String), ClientError> {
        let (status, text) = self.text(path).await?;
        let good = match status {
            StatusCode::OK => true,
            StatusCode::SERVICE_UNAVAILABLE => false,
            _ => return Err(self.stranger()),
        };
        let refusal = serde_json::from_str::<Value>(&text).ok();
        let why = refusal.as_ref().and_then(|body| body["error"].as_str());
        let line = why.unwrap_or_else(|| text.trim_end());
        Ok((good, line.chars().filter(|c| !c.is_control()).collect()))
    }

    /// The metrics as they come.
    pub(super) async fn metrics(&self) -> Result<String, ClientError> {
        self.text("metrics").await.map(|(_, text)| text)
    }

    /// What stands outside of the API, and wants no token.
    async fn text(&self, path: &str) -> Result<(StatusCode, String), ClientError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(path);
        }
        let response = self.client.get(url).send().await;
        let response = response.map_err(|error| self.lost(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Changes; the answer holds the new state.
    pub(super) async fn post(&self, path: &[&str]) -> Result<Value, ClientError> {
        self.call(Method::POST, path, None).await
    }

    /// Changes, with arguments.
    pub(super) async fn post_json(
        &self,
        path: &[&str],
        body: &Value,
    ) -> Result<Value, ClientError> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Changes, with a question behind the path.
    pub(super) async fn post_to(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, ClientError> {
        self.asking(query).call(Method::POST, path, None).await
    }

    /// The same, giving this reason.
    pub(super) fn because(self, why: &Why) -> Self {
        match &why.reason {
            Some(reason) => self.asking(&[("reason", reason)]),
            None => self,
        }
    }

    fn asking(&self, query: &[(&str, &str)]) -> Self {
        let mut url = self.base.clone();
        url.query_pairs_mut().extend_pairs(query);
        Self {
            client: self.client.clone(),
            base: url,
            token: self.token.clone(),
            tls: self.tls.clone(),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        let reads = method == Method::GET;
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| self.stranger());
        }
        // Every instance has what is read; another server may say no in the same form.
        if reads && status.as_u16() == 404 {
            return Err(self.stranger());
        }
        let said = serde_json::from_slice::<Value>(&body)
            .ok()
            .and_then(|body| body["error"].as_str().map(str::to_owned))
            .ok_or_else(|| self.stranger())?;
        let hint = if status.as_u16() == 401 && self.token.is_none() {
            " (give it with --token-file, TANDEM_TOKEN_FILE or --config)"
        } else {
            ""
        };
        let said: String = said.chars().filter(|c| !c.is_control()).collect();
        Err(ClientError::Refused(format!("{said}{hint}")))
    }

    async fn body(&self, mut response: reqwest::Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.lost(&error))? {
            if body.len() + part.len() > LONGEST {
                return Err(self.stranger());
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    fn lost(&self, error: &reqwest::Error) -> ClientError {
        let reason = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            self.tls.explain(error).unwrap_or_else(|| innermost(error))
        };
        ClientError::Unreachable {
            url: self.shown(),
            reason,
        }
    }

    /// Where it asks, without what it asks.
    fn shown(&self) -> String {
        let mut url = self.base.clone();
        url.set_query(None);
        url.to_string()
    }

    fn stranger(&self) -> ClientError {
        ClientError::Unreachable {
            url: self.shown(),
            reason: "what answers there is not tandem".to_owned(),
        }
    }
}

/// A status of this version or one near it.
pub(super) fn understood(raw: Value) -> Result<View, ClientError> {
    let version = raw["version"].as_str().unwrap_or("unknown").to_owned();
    serde_json::from_value(raw).map_err(|error| {
        let ours = crate::VERSION;
        ClientError::Refused(format!(
            "the status of version {version} is not understood by {ours} ({error}); --json shows it"
        ))
    })
}

/// The cause at the bottom says it best: `Connection refused`.
fn innermost(error: &reqwest::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_versions_status_is_read_as_far_as_it_goes() {
        let later = serde_json::json!({"instance": "gc-1", "version": "9.0.0", "moon": "full",
            "groups": [{"name": "agents", "role": "leader", "tide": 3}], "sessions": {}});
        let view = understood(later).unwrap();
        assert_eq!((view.groups.len(), view.peers.len()), (1, 0));
        let strange = serde_json::json!({"instance": "gc-1", "version": "9.0.0",
            "groups": [{"role": "emperor"}]});
        let error = understood(strange).unwrap_err();
        assert_eq!(error.code(), exit::FAILED);
        let text = error.to_string();
        assert!(text.contains("9.0.0") && text.contains("emperor"), "{text}");
    }

    #[tokio::test]
    async fn nobody_there_is_69_in_a_sentence() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = free.local_addr().unwrap().to_string();
        drop(free);
        let target = Target {
            url: Some(url.clone()),
            ..Target::default()
        };
        let error = Admin::new(&target)
            .unwrap()
            .get::<Value>(&["status"])
            .await
            .unwrap_err();
        assert_eq!(error.code(), exit::UNREACHABLE);
        let text = error.to_string();
        assert!(text.contains(&url) && text.contains("refused"), "{text}");
    }
}
