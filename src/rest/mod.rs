//! The HTTP entrance for commands (`rest.listen`): `POST /gc/command` puts a command on the command
//! queue and answers once a broker has confirmed it.
//!
//! It is a client of the brokers like any other: the queue stays the only way in, and whichever
//! instance consumes it runs the command. It knows nothing of the engine, and works on every
//! instance, whatever its role.

mod callback;
mod connection;
#[cfg(test)]
mod fake_broker;
mod openapi;
mod publisher;
mod renewal;
mod request;
mod way;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::listener::{Limited, bearer};
use crate::model::Secret;
use crate::net::TlsServer;
use crate::renewed::Renewed;
use crate::serve;
use crate::wire::command::{Defaults, MAX_BODY};
use publisher::{Failure, Publisher};

pub use callback::{Addresses, Allowed, CallbackConfig, CallbackRow, Callbacks, Objects};
pub(crate) use callback::{CURE as QUEUE_CURE, Difference, listed};
pub(crate) use openapi::document as openapi;
pub use publisher::PublisherConfig;
pub use renewal::Renewal;

/// Requests in work at once; a further one is answered 503.
const IN_WORK: usize = 64;
/// Connections at once, so many that there is one to say 503 on; further ones wait in the system's
/// backlog.
const CONNECTIONS: usize = 4 * IN_WORK;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(5);
/// When a client may try again that was refused for want of room or of a broker, seconds.
const TRY_AGAIN: HeaderValue = HeaderValue::from_static("1");
/// How long open requests may take to end when the entrance is closed.
const CLOSING: Duration = Duration::from_secs(1);

/// What the entrance is told.
#[derive(Debug, Clone)]
pub struct RestConfig {
    /// Bearer token; `None`: none is asked for.
    pub token: Renewed<Option<Secret>>,
    /// Certificate; plain HTTP without.
    pub tls: Option<TlsServer>,
    /// How commands are read.
    pub defaults: Defaults,
    /// Where they are put.
    pub publisher: PublisherConfig,
    /// How events are posted; `None`: they are not.
    pub callbacks: Option<CallbackConfig>,
}

struct Entrance {
    token: Renewed<Option<Secret>>,
    defaults: Defaults,
    publisher: Arc<Publisher>,
    addresses: Option<Addresses>,
    room: Arc<Semaphore>,
}

/// Opens the listener.
///
/// # Errors
/// With the address, and in words where the port is taken.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::AddrInUse => format!("port in use: {addr} (rest.listen)"),
            _ => format!("cannot listen on {addr} (rest.listen): {error}"),
        };
        io::Error::new(error.kind(), text)
    })
}

/// An entrance that can be served: everything is read that can be wrong.
pub struct Ready {
    entrance: Entrance,
    tls: Option<TlsAcceptor>,
    posting: Option<callback::Posting>,
    renewal: Renewal,
}

impl Ready {
    /// What is done with callbacks is told to `told`.
    ///
    /// # Errors
    /// A broker URL, certificate or token that cannot be used, the listener's certificate included.
    pub fn new(config: RestConfig, told: Callbacks) -> io::Result<Self> {
        let renewal = Renewal::of(&config);
        let tls = config.tls.as_ref().map(TlsServer::acceptor).transpose();
        let tls = tls.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let posting = config.callbacks.as_ref().map(|callbacks| {
            callback::Posting::new(callbacks, &config.publisher, told).map_err(io::Error::other)
        });
        let entrance = Entrance {
            token: config.token,
            defaults: config.defaults,
            publisher: Arc::new(Publisher::new(config.publisher).map_err(io::Error::other)?),
            addresses: config.callbacks.map(|callbacks| callbacks.addresses),
            room: Arc::new(Semaphore::new(IN_WORK)),
        };
        Ok(Self {
            entrance,
            tls,
            posting: posting.transpose()?,
            renewal,
        })
    }

    /// What SIGHUP renews of it.
    #[must_use]
    pub fn renewal(&self) -> Renewal {
        self.renewal.clone()
    }

    /// Whether it posts events.
    #[must_use]
    pub fn posts(&self) -> bool {
        self.posting.is_some()
    }
}

/// Serves until `shutdown` is cancelled, then gives open requests a second to end.
pub async fn serve(listener: TcpListener, ready: Ready, shutdown: CancellationToken) {
    let posting = ready.posting;
    let posting = posting.map(|posting| tokio::spawn(posting.run(shutdown.clone())));
    let publisher = Arc::clone(&ready.entrance.publisher);
    let app = Router::new()
        .route("/gc/command", post(command))
        .route("/openapi.json", get(async || Json(openapi())))
        .fallback(async || refused(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            refused(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        .with_state(Arc::new(ready.entrance));
    let listener = Limited::new(listener, CONNECTIONS, ready.tls);
    serve::serve(listener, |_| app.clone(), shutdown, CLOSING).await;
    publisher.close().await;
    if let Some(posting) = posting {
        // It has been told as well, and bounds its own end; a panic in it has been logged.
        let _ = posting.await;
    }
}

async fn command(State(entrance): State<Arc<Entrance>>, request: Request<Body>) -> Response {
    if let Err((status, words)) = entrance.admits(request.headers()) {
        return refused(status, words);
    }
    let Ok(place) = Arc::clone(&entrance.room).try_acquire_owned() else {
        let words = "too many commands at once; try again";
        return refused(StatusCode::SERVICE_UNAVAILABLE, words);
    };
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY);
    let body = match tokio::time::timeout(BODY_TIME, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let words = "the body is larger than 64 KiB, or was cut short";
            return refused(StatusCode::PAYLOAD_TOO_LARGE, words);
        }
        Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the body did not arrive"),
    };
    let asked = match request::read(
        &parts.headers,
        body,
        &entrance.defaults,
        entrance.addresses.as_ref(),
    ) {
        Ok(asked) => asked,
        Err(unreadable) => return refused(unreadable.status, &unreadable.words),
    };
    let (id, callback) = (asked.id.clone(), asked.callback.clone());
    let published = entrance.publisher.publish_to_the_end(asked, place);
    match published.await {
        Ok(()) => {
            let mut taken = json!({ "id": id });
            if let Some(word) = callback.word() {
                taken["callback"] = json!(word);
            }
            (StatusCode::ACCEPTED, Json(taken)).into_response()
        }
        Err(failure) => unavailable(&id, &failure),
    }
}

impl Entrance {
    /// A browser that is made to call this from a page always says where the page is from.
    fn admits(&self, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        if headers.contains_key(ORIGIN) {
            let words = "calls from web pages are refused";
            return Err((StatusCode::FORBIDDEN, words));
        }
        let token = self.token.get();
        let Some(token) = token.as_ref() else {
            return Ok(());
        };
        match bearer(headers) {
            Some(given) if given == *token => Ok(()),
            Some(_) => Err((StatusCode::UNAUTHORIZED, "wrong token")),
            None => Err((StatusCode::UNAUTHORIZED, "a bearer token is needed")),
        }
    }
}

fn answer(status: StatusCode, body: Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, TRY_AGAIN);
    }
    response
}

fn refused(status: StatusCode, words: &str) -> Response {
    answer(status, json!({ "error": words }))
}

/// Whether it was taken is said, too: what may be on the queue must keep its id.
fn unavailable(id: &str, failure: &Failure) -> Response {
    tracing::warn!(reason = %failure, "HTTP entrance: a command was not confirmed");
    let words = match failure {
        Failure::NotTaken(_) => "no broker takes it: nothing was done; send it again".to_owned(),
        Failure::Callback(why) => {
            format!("its callback cannot be kept: nothing was done; {why}")
        }
        Failure::Unknown(_) => {
            "no broker confirmed it, and it may have been taken: send it again under the same id, \
             with a higher X-Attempt"
                .to_owned()
        }
    };
    let body = json!({ "error": words, "id": id, "taken": failure.taken() });
    answer(StatusCode::SERVICE_UNAVAILABLE, body)
}
