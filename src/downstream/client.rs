//! The HTTP client of the platform's REST interface.

use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use reqwest::{Body, Client, Method, RequestBuilder, Response, redirect, retry};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::lease::Pass;
use crate::model::{
    Action, AgentId, ApiError, CallOutcome, HttpRequest, NodeHealth, Resource, Secret, Shortage,
    Trace,
};
use crate::net::http::Addresses;
use crate::net::{TlsClient, TlsError};

use super::guarded::Guarded;
use super::{classify, generic};
use crate::finesse::request;

/// Idle connections are given up before the platform's own keep-alive timeout (20 s and more)
/// ends them, so that few requests meet a dying connection.
const IDLE: Duration = Duration::from_secs(10);
/// Idle connections kept for each node: with fewer than there are requests at a time, every burst
/// would open connections anew.
pub const MAX_IDLE: usize = 256;
/// Lists of many thousand entries take longer: times the usual bound.
const LIST_PATIENCE: u32 = 5;
/// How long a request waits for its place among those under way. Less than a client's patience,
/// and than what a deadline of whole seconds is known by.
const PLACE_WAIT: Duration = Duration::from_secs(1);
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const REQUEST_ID: HeaderName = HeaderName::from_static("requestid");
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");
const XML: HeaderValue = HeaderValue::from_static("application/xml");
/// Without this header a server may compress as it likes (RFC 9110, section 12.5.3).
const PLAIN: HeaderValue = HeaderValue::from_static("identity");

/// One node of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// `https://host:8445/finesse/api`, without a trailing slash.
    pub base_url: String,
}

/// Settings of a [`FinesseClient`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The nodes; requests name them by index.
    pub nodes: Vec<NodeConfig>,
    /// Time for one request from start to the end of the answer. Two thirds of it are for the
    /// connection, so that a connect that hangs is still known as not sent.
    pub request_timeout: Duration,
    /// Whether it is the contact-centre platform, and not any HTTP service.
    pub platform: bool,
    /// Who reads what agents may not; with any HTTP service, whom all requests are sent as.
    pub admin: Option<(String, Secret)>,
    /// Certificates.
    pub tls: TlsClient,
    /// Requests at a time; a further one waits, see [`FinesseClient::call`]. As many connections
    /// may be idle besides.
    pub requests: usize,
}

/// What a request is known by.
#[derive(Debug, Clone, Copy)]
pub struct Marks<'a> {
    /// Value of the platform's `requestId`.
    pub request_id: &'a str,
    /// The trace that it belongs to.
    pub trace: Option<&'a Trace>,
}

impl<'a> From<&'a str> for Marks<'a> {
    /// Without a trace.
    fn from(request_id: &'a str) -> Self {
        Self {
            request_id,
            trace: None,
        }
    }
}

/// Why a client could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DownstreamError {
    /// TLS settings.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A base URL that is none.
    #[error("base URL {url}: {reason}")]
    BaseUrl {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP library refused the settings.
    #[error("HTTP client: {0}")]
    Http(#[from] reqwest::Error),
}

/// Runs actions on the platform's nodes. Cheap to share behind an `Arc`; no request is ever
/// repeated or redirected.
#[derive(Debug)]
pub struct FinesseClient {
    nodes: Vec<String>,
    platform: bool,
    admin: RwLock<Option<(String, Secret)>>,
    list_timeout: Duration,
    tls: TlsClient,
    addresses: Addresses,
    /// Places of requests under way. Probes need none: they are few, and say whether there is
    /// anybody at all.
    places: Semaphore,
    /// With a pool of idle connections: a request that meets a dying one is harmless to repeat.
    pooled: Client,
    /// A new connection for every request, so that "connect failed" and "sent" cannot be confused.
    fresh: Client,
}

impl FinesseClient {
    /// Builds the client; nothing is connected yet.
    ///
    /// # Errors
    /// Where a base URL or the CA file cannot be used.
    pub fn new(config: &Config) -> Result<Self, DownstreamError> {
        Self::resolving(config, Addresses::default())
    }

    fn resolving(config: &Config, addresses: Addresses) -> Result<Self, DownstreamError> {
        let nodes = config
            .nodes
            .iter()
            .map(|node| checked_base_url(&node.base_url))
            .collect::<Result<_, _>>()?;
        let tls = config.tls.config()?;
        let idle = (config.requests / config.nodes.len().max(1)).min(MAX_IDLE);
        let builder = || {
            Client::builder()
                .tls_backend_preconfigured(tls.as_ref().clone())
                .http1_only()
                .redirect(redirect::Policy::none())
                .retry(retry::never())
                .no_proxy()
                .dns_resolver(addresses.clone())
                .referer(false)
                .tcp_nodelay(true)
                .connect_timeout(config.request_timeout * 2 / 3)
                .timeout(config.request_timeout)
                .default_headers(HeaderMap::from_iter([
                    (ACCEPT, XML),
                    (ACCEPT_ENCODING, PLAIN),
                ]))
        };
        Ok(Self {
            nodes,
            platform: config.platform,
            admin: RwLock::new(config.admin.clone()),
            list_timeout: config.request_timeout * LIST_PATIENCE,
            tls: config.tls.clone(),
            addresses: addresses.clone(),
            places: Semaphore::new(config.requests.clamp(1, Semaphore::MAX_PERMITS)),
            pooled: builder()
                .pool_max_idle_per_host(idle)
                .pool_idle_timeout(IDLE)
                .build()?,
            fresh: builder().pool_max_idle_per_host(0).build()?,
        })
    }

    /// Runs `action` for `agent` on node number `node` and says what became of it. What only the
    /// administrator may ask is asked with his credentials, where there are any.
    ///
    /// The request id of `marks` is sent with changes only; the platform echoes it in the
    /// notification that tells their result. A request is withheld where `pass` is void; a change is looked at once
    /// more when the connection stands. With too many requests under way it waits a moment, and
    /// is not sent then.
    pub async fn call(
        &self,
        node: usize,
        agent: &AgentId,
        password: &Secret,
        marks: impl Into<Marks<'_>>,
        action: &Action,
        pass: &Pass,
    ) -> CallOutcome {
        let marks = marks.into();
        if !pass.holds() {
            return CallOutcome::Withheld;
        }
        let Some(base) = self.nodes.get(node) else {
            return CallOutcome::NotSent {
                timed_out: false,
                reason: format!("no downstream node {node}"),
            };
        };
        let _place = match self.place().await {
            Ok(place) => place,
            Err(shortage) => return CallOutcome::NoRoom(shortage),
        };
        // It may have waited for its place.
        if !pass.holds() {
            return CallOutcome::Withheld;
        }
        if let Action::Http(request) = action {
            return self.http(base, request, &marks, pass).await;
        }
        let request = match request::build(agent, action) {
            Ok(request) => request,
            Err(error) => return refused_here(&error.to_string()),
        };
        let client = if action.idempotent() {
            &self.pooled
        } else {
            &self.fresh
        };
        let method = request.method;
        let body = Bytes::from(request.body);
        let (body, withheld) = Guarded::new(body, !action.idempotent(), pass.clone());
        let admin = self.admin();
        let (user, password) = match &admin {
            Some((user, password)) if action.needs_admin() => (user.as_str(), password),
            _ => (agent.as_str(), password),
        };
        let mut call = client
            .request(method.clone(), format!("{base}{}", request.path))
            .basic_auth(user, Some(password.expose()));
        if action.reads_list() {
            call = call.timeout(self.list_timeout);
        }
        if method != Method::GET {
            call = call.header(CONTENT_TYPE, XML).body(Body::wrap(body));
            // A request id that is no header value is left out: the echo is best effort anyway.
            if let Ok(id) = HeaderValue::from_bytes(marks.request_id.as_bytes()) {
                call = call.header(REQUEST_ID, id);
            }
        }
        call = traced(call, marks.trace);
        match self.send(call).await {
            Ok(response) => classify::answered(&method, action, response).await,
            Err(_) if withheld.load(Ordering::Acquire) => CallOutcome::Withheld,
            Err(error) => classify::failed(&error, &self.tls),
        }
    }

    /// Other credentials of the administrator, for all requests from now on.
    pub fn set_admin(&self, admin: Option<(String, Secret)>) {
        *self.admin.write().unwrap_or_else(PoisonError::into_inner) = admin;
    }

    fn admin(&self) -> Option<(String, Secret)> {
        self.admin
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A place among the requests under way. A short wait: a burst passes, a downstream that hangs
    /// does not, and then the client had better know.
    async fn place(&self) -> Result<SemaphorePermit<'_>, Shortage> {
        let place = tokio::time::timeout(PLACE_WAIT, self.places.acquire()).await;
        // The semaphore is never closed.
        place.ok().and_then(Result::ok).ok_or_else(|| Shortage {
            of: Resource::Descriptors,
            reason: "all connections for downstream requests are in use".to_owned(),
        })
    }

    /// Sends a request of a `Call` command.
    async fn http(
        &self,
        base: &str,
        request: &HttpRequest,
        marks: &Marks<'_>,
        pass: &Pass,
    ) -> CallOutcome {
        let client = if request.idempotent {
            &self.pooled
        } else {
            &self.fresh
        };
        let data = Bytes::from(request.body.clone());
        let (body, withheld) = Guarded::new(data, !request.idempotent, pass.clone());
        let mut call = client
            .request(generic::method(request), format!("{base}{}", request.path))
            .query(&request.query);
        // What the command sets itself is meant, and not ours beside it.
        let own = |ours: &str| {
            let mut names = request.headers.iter().map(|(name, _)| name);
            names.any(|name| name.eq_ignore_ascii_case(ours))
        };
        if !own(ACCEPT.as_str()) {
            call = call.header(ACCEPT, ANYTHING);
        }
        for (name, value) in &request.headers {
            // An answer that came compressed could not be read.
            if !name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str()) {
                call = call.header(name, value);
            }
        }
        if !own(TRACEPARENT) {
            call = traced(call, marks.trace);
        }
        if let Some((user, password)) = self.admin() {
            call = call.basic_auth(user, Some(password.expose()));
        }
        let changes = matches!(request.method, "POST" | "PUT" | "PATCH");
        if request.body.is_empty() && changes && request.idempotent {
            // Some servers want a length. One that must not be repeated has none, see [`Guarded`].
            call = call.header(CONTENT_LENGTH, 0);
        } else if !request.body.is_empty() || changes {
            call = call.body(Body::wrap(body));
        }
        match self.send(call).await {
            Ok(response) => generic::answered(request, response).await,
            Err(_) if withheld.load(Ordering::Acquire) => CallOutcome::Withheld,
            Err(error) => classify::failed(&error, &self.tls),
        }
    }

    /// Sends a request; the address that answers is tried first from then on.
    async fn send(&self, call: RequestBuilder) -> reqwest::Result<Response> {
        let response = call.send().await?;
        self.addresses.note(&response);
        Ok(response)
    }

    /// Whether node number `node` accepts the administrator, with the request that costs it least.
    /// `None` where none is configured, or where the node cannot be asked.
    pub async fn accepts_admin(&self, node: usize) -> Option<bool> {
        let (user, password) = self.admin()?;
        let url = format!("{}/PhoneBooks", self.nodes.get(node)?);
        let call = self.fresh.get(url);
        let call = call.basic_auth(user, Some(password.expose()));
        let answer = call.timeout(self.list_timeout).send().await.ok()?;
        // Other refusals are not about the credentials: the secondary answers 403.
        match answer.status().as_u16() {
            401 => Some(false),
            200..=299 | 403 => Some(true),
            _ => None,
        }
    }

    /// Asks node number `node` for its health, over a new connection and without credentials.
    pub async fn probe(&self, node: usize) -> NodeHealth {
        let Some(base) = self.nodes.get(node) else {
            return NodeHealth::Unreachable {
                reason: format!("no downstream node {node}"),
            };
        };
        let url = if self.platform {
            format!("{base}/SystemInfo")
        } else {
            base.clone()
        };
        match self.send(self.fresh.get(url)).await {
            Ok(response) if !self.platform => generic::health(response.status()),
            Ok(response) => classify::health(response).await,
            Err(error) => classify::unhealthy(&error, &self.tls),
        }
    }
}

/// A request that belongs to a trace.
fn traced(mut call: RequestBuilder, trace: Option<&Trace>) -> RequestBuilder {
    if let Some(trace) = trace {
        call = call.header(TRACEPARENT, trace.parent());
        if let Some(state) = trace.state() {
            call = call.header(TRACESTATE, state);
        }
    }
    call
}

fn checked_base_url(text: &str) -> Result<String, DownstreamError> {
    // What stands before an `@` may be a password.
    let shown = text.rsplit('@').next().unwrap_or(text);
    let bad = |reason: &str| DownstreamError::BaseUrl {
        url: shown.to_owned(),
        reason: reason.to_owned(),
    };
    let url = reqwest::Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad("must be http or https with a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("must not have credentials"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("must not have a query or fragment"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// The platform would refuse it too; it is not asked, because the URL would name another object.
fn refused_here(message: &str) -> CallOutcome {
    CallOutcome::Refused {
        status: 400,
        error: ApiError {
            kind: "Invalid Input".to_owned(),
            message: message.to_owned(),
            data: String::new(),
        },
    }
}

#[cfg(test)]
mod tests;
