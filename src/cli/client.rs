//! A small client of an instance's admin API.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Url, redirect};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::exit;
use crate::engine::View;
use crate::model::Secret;
use crate::model::text::trimmed;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may take; the instance gives its engine five seconds.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest answer, bytes: all sessions of a full instance.
const LONGEST: usize = 64 * 1024 * 1024;
/// Longest token file, bytes.
const TOKEN_FILE: u64 = 64 * 1024;

/// Which instance, and as whom.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Admin address of the instance
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9601")]
    pub url: String,
    /// File that holds the bearer token (admin.token-file of the instance)
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

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

/// The client.
pub(super) struct Admin {
    client: reqwest::Client,
    base: Url,
    token: Option<Secret>,
}

impl Admin {
    /// Reads the target; nothing is sent yet.
    pub(super) fn new(target: &Target) -> Result<Self, ClientError> {
        let base = base(&target.url)?;
        let token = target.token_file.as_ref().map(read_token).transpose()?;
        // An error says that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::Internal(error.to_string()))?;
        Ok(Self {
            client,
            base,
            token,
        })
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

    fn asking(&self, query: &[(&str, &str)]) -> Self {
        let mut url = self.base.clone();
        url.query_pairs_mut().extend_pairs(query);
        Self {
            client: self.client.clone(),
            base: url,
            token: self.token.clone(),
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
            " (give it with --token-file)"
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
            innermost(error)
        };
        ClientError::Unreachable {
            url: self.base.to_string(),
            reason,
        }
    }

    fn stranger(&self) -> ClientError {
        ClientError::Unreachable {
            url: self.base.to_string(),
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

/// `host:port` is enough.
fn base(text: &str) -> Result<Url, ClientError> {
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let wrong = |why: &str| ClientError::Usage(format!("--url {text}: {why}"));
    let url = Url::parse(&full).map_err(|error| wrong(&error.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(wrong("only http and https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ClientError::Usage(
            "--url: no credentials there; use --token-file".to_owned(),
        ));
    }
    Ok(url)
}

fn read_token(file: &PathBuf) -> Result<Secret, ClientError> {
    use std::io::Read;
    let wrong = |why: String| ClientError::Usage(format!("--token-file {}: {why}", file.display()));
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(TOKEN_FILE).read_to_string(&mut text))
        .map_err(|error| wrong(error.to_string()))?;
    let token = trimmed(&text);
    let printable = token.bytes().all(|b| b.is_ascii_graphic());
    if token.is_empty() || !printable {
        return Err(wrong("holds no token".to_owned()));
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_scheme() {
        assert_eq!(
            base("127.0.0.1:9601").unwrap().as_str(),
            "http://127.0.0.1:9601/"
        );
        assert_eq!(base("https://a/x").unwrap().as_str(), "https://a/x");
        for bad in ["ftp://a", "http://", "http://me:secret@a"] {
            let error = base(bad).unwrap_err();
            assert_eq!(error.code(), exit::USAGE, "{bad}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_token_file_must_hold_a_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_path_buf();
        assert_eq!(read_token(&path).unwrap_err().code(), exit::USAGE);
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), Secret::new("s3cret"));
        std::fs::write(&path, "\u{feff}s3cret\r\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), Secret::new("s3cret"));
        std::fs::write(&path, "two words\n").unwrap();
        assert!(read_token(&path).is_err());
        let error = read_token(&path.join("none")).unwrap_err();
        assert!(error.to_string().contains("--token-file"), "{error}");
    }

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
            url: url.clone(),
            token_file: None,
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
