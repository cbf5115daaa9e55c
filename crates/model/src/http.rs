//! A request to a generic HTTP downstream.

use super::Json;

/// One request below the base URL, checked and normalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET`, `HEAD`, `PUT`, `DELETE`, `POST` or `PATCH`.
    pub method: &'static str,
    /// Normalised path, percent-encoded, begins with `/`.
    pub path: String,
    /// Query, neither encoded.
    pub query: Vec<(String, String)>,
    /// Headers that a command may set.
    pub headers: Vec<(String, String)>,
    /// Body; empty for none.
    pub body: String,
    /// Whether a second execution does no harm.
    pub idempotent: bool,
}

/// One permission: a method below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpPermission {
    /// Method.
    pub method: String,
    /// Normalised path prefix, percent-encoded; matched by whole segments.
    pub prefix: String,
}

impl HttpPermission {
    /// Whether it covers a request.
    #[must_use]
    pub fn covers(&self, request: &HttpRequest) -> bool {
        let prefix = self.prefix.trim_end_matches('/');
        self.method == request.method
            && request
                .path
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What a generic HTTP downstream answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// JSON as it was written where the answer was JSON, else its text; null where there was none.
    pub body: Json,
}
