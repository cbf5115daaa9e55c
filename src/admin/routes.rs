//! Routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::extract::{Asked, Named};
use super::guard::{Access, Caller, Needs, Refusal};
use super::health::{self, Wanted};
use super::history::{self, Given, REASON_MOST};
use super::{AdminRequest, AdminState, api, live, page, times};
use crate::engine::View;
use crate::engine::input::Verb;
use crate::engine::peer::Role;
use crate::listener::From;
use crate::watchdog;

/// How long the engine may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Largest request body, bytes; the calls need a line at most.
const BODY: usize = 16 * 1024;
/// How long a request body may take.
const BODY_TIME: Duration = Duration::from_secs(5);
/// Of the sessions.
pub(super) const SESSIONS: &str = "/api/v1/sessions";
/// Of the log's last lines.
pub(super) const LOG: &str = "/api/v1/log";
/// Of a command's life.
pub(super) const TRACE: &str = "/api/v1/trace";

/// All routes: those of the table ([`api`]) and the page. Those for machines that probe (`/livez`
/// and the like) have no rules; for the others see [`super::guard`].
pub(super) fn router(state: AdminState, access: Access) -> Router {
    let guarded = Router::new()
        .merge(page::router())
        .merge(api::router(api::guarded()))
        .layer(axum::Extension(live::Streams::default()))
        .layer(middleware::from_fn_with_state(Arc::new(access), guard));
    Router::new()
        .merge(api::router(api::open()))
        .merge(guarded)
        .fallback(async || error(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            error(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        .layer(middleware::map_response(common_headers))
        .with_state(state)
}

/// Nothing that is no page may load or show anything. No `strict-transport-security`: it would be
/// for every port of the host, the broker's management page among them.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

/// On every answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

async fn common_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(NO_PAGE));
    response
}

/// What is read without any token: the page without what it shows, the metrics, the document.
const OPEN: [&str; 7] = [
    "/",
    "/pair.js",
    "/status.js",
    "/status.css",
    "/glossary.json",
    "/metrics",
    "/openapi.json",
];

async fn guard(
    State(access): State<Arc<Access>>,
    ConnectInfo(from): ConnectInfo<From>,
    mut request: Request,
    next: Next,
) -> Response {
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let needs = match (reads, request.uri().path()) {
        (false, _) => Needs::Change,
        (true, SESSIONS | TRACE | LOG) => Needs::Private,
        (true, path) if OPEN.contains(&path) => Needs::Nothing,
        (true, _) => Needs::Read,
    };
    match access.check(request.headers(), needs, from.0) {
        Ok(caller) if needs == Needs::Change => match reason(request.uri()) {
            Ok(reason) => request.extensions_mut().insert(Caller { reason, ..caller }),
            Err(words) => return error(StatusCode::BAD_REQUEST, &words),
        },
        Ok(caller) => request.extensions_mut().insert(caller),
        Err(refusal) => return refused(&refusal),
    };
    if reads {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BODY)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Ok(Err(_)) => error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
        Err(_) => error(StatusCode::REQUEST_TIMEOUT, "the body did not arrive"),
    }
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}

/// `?reason=`: why a verb is given.
fn reason(uri: &Uri) -> Result<String, String> {
    let given =
        axum::extract::Query::<Reason>::try_from_uri(uri).map_err(|error| error.body_text())?;
    if given.reason.chars().count() > REASON_MOST {
        return Err(format!("reason: at most {REASON_MOST} characters"));
    }
    Ok(given.0.reason)
}

fn refused(refusal: &Refusal) -> Response {
    let mut response = error(refusal.status, &refusal.words);
    if let Some(retry) = refusal.retry {
        let seconds = HeaderValue::from(retry.as_secs() + 1);
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}

pub(super) fn error(status: StatusCode, words: &str) -> Response {
    let mut response = (status, Json(json!({ "error": words }))).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let bearer = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    }
    response
}

// ---- health ------------------------------------------------------------------------------------

fn line(answer: Result<String, String>) -> Response {
    match answer {
        Ok(text) => (StatusCode::OK, text + "\n").into_response(),
        Err(text) => error(StatusCode::SERVICE_UNAVAILABLE, &text),
    }
}

impl AdminState {
    /// What the engine knows, with what the brokers' own lists warn of.
    pub(super) fn current(&self) -> Arc<View> {
        let view = Arc::clone(&self.view.borrow());
        let network = self.network.borrow();
        let brokers = network.brokers.iter();
        let unplanned: Vec<String> = brokers.filter_map(|b| b.unplanned.clone()).collect();
        if unplanned.is_empty() {
            return view;
        }
        let mut view = View::clone(&view);
        view.warnings.extend(unplanned);
        Arc::new(view)
    }

    /// Whether the driver is there: it holds the other ends.
    pub(super) fn alive(&self) -> Result<(), String> {
        if self.ask.is_closed() || self.view.has_changed().is_err() {
            return Err("the engine has ended".to_owned());
        }
        let silent = self.watchdog.silent();
        if silent >= watchdog::SLOW {
            let seconds = silent.as_secs();
            return Err(format!("the engine has stood still for {seconds} s"));
        }
        Ok(())
    }
}

pub(super) async fn livez(State(state): State<AdminState>) -> Response {
    line(state.alive().map(|()| "alive".to_owned()))
}

pub(super) async fn readyz(State(state): State<AdminState>) -> Response {
    line(
        state
            .alive()
            .and_then(|()| health::readiness(&state.current())),
    )
}

#[derive(Deserialize)]
pub(super) struct GroupQuery {
    #[serde(default = "default_group")]
    group: String,
}

fn default_group() -> String {
    "agents".to_owned()
}

pub(super) async fn leader(State(state): State<AdminState>, query: Asked<GroupQuery>) -> Response {
    role(&state, &query.0.group, Wanted::Leader)
}

pub(super) async fn follower(
    State(state): State<AdminState>,
    query: Asked<GroupQuery>,
) -> Response {
    role(&state, &query.0.group, Wanted::Follower)
}

fn role(state: &AdminState, group: &str, asked: Wanted) -> Response {
    let view = state.current();
    line(
        state
            .alive()
            .and_then(|()| health::has_role(&view, group, asked)),
    )
}

// ---- reading -----------------------------------------------------------------------------------

pub(super) async fn openapi() -> Response {
    Json(api::openapi()).into_response()
}

pub(super) async fn metrics(State(state): State<AdminState>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], (state.metrics)()).into_response()
}

pub(super) async fn status(State(state): State<AdminState>) -> Response {
    Json(state.told()).into_response()
}

pub(super) async fn groups(State(state): State<AdminState>) -> Response {
    let view = state.current();
    let groups: Vec<Value> = view
        .groups
        .iter()
        .map(|group| {
            let own = json!({ "instance": view.instance, "role": group.role });
            let peers = view.peers.iter().filter(|peer| peer.present());
            let peers = peers.filter_map(|peer| {
                let theirs = peer.groups.iter().find(|g| g.name == group.name)?;
                Some(json!({ "instance": peer.instance, "role": theirs.role }))
            });
            let members: Vec<Value> = std::iter::once(own).chain(peers).collect();
            let mut group = json!(group);
            group["leader"] = only_leader(&members);
            group["members"] = json!(members);
            times::add(&mut group);
            group
        })
        .collect();
    Json(groups).into_response()
}

/// The one member that serves; `null` where none does, or several do.
fn only_leader(members: &[Value]) -> Value {
    let serves = |member: &&Value| {
        let role = member["role"].as_str();
        role == Some(Role::Leader.as_str()) || role == Some(Role::LeaderSingleNode.as_str())
    };
    let mut leaders = members.iter().filter(serves);
    match (leaders.next(), leaders.next()) {
        (Some(one), None) => one["instance"].clone(),
        _ => Value::Null,
    }
}

#[derive(Deserialize)]
pub(super) struct HistoryQuery {
    since: Option<String>,
}

/// The newest first; `?since=1h` or a time: from then on.
pub(super) async fn history(
    State(state): State<AdminState>,
    Asked(query): Asked<HistoryQuery>,
) -> Response {
    let Some(text) = &query.since else {
        return Json(state.history.entries()).into_response();
    };
    match history::since(text, Utc::now()) {
        Ok(from) => Json(state.history.since(from)).into_response(),
        Err(words) => error(StatusCode::BAD_REQUEST, &format!("since: {words}")),
    }
}

/// The last lines of the log, the oldest first.
pub(super) async fn log() -> Response {
    Json(crate::telemetry::last_lines()).into_response()
}

pub(super) async fn network(State(state): State<AdminState>) -> Response {
    Json(state.network.borrow().as_ref()).into_response()
}

pub(super) async fn members(State(state): State<AdminState>) -> Response {
    let view = state.current();
    let roles: Vec<Value> = view
        .groups
        .iter()
        .map(|group| json!({"name": group.name, "role": group.role}))
        .collect();
    let broker = view.brokers.iter().find(|broker| broker.attached);
    let own = json!({
        "instance": view.instance, "self": true, "site": view.site, "state": "alive",
        "lastSeenMs": 0, "owned": view.sessions.owned, "version": view.version, "started": view.started,
        "broker": broker.map_or("", |broker| broker.url.as_str()), "groups": roles, "rttMs": null,
    });
    let peers = view.peers.iter().map(|peer| {
        let mut peer = json!(peer);
        peer["self"] = json!(false);
        peer
    });
    let mut all: Value = std::iter::once(own).chain(peers).collect();
    times::add(&mut all);
    Json(all).into_response()
}

// ---- verbs -------------------------------------------------------------------------------------

/// A verb for the group that the path names.
pub(super) fn group_verb(verb: fn(String) -> Verb) -> MethodRouter<AdminState> {
    post(
        move |State(state): State<AdminState>, who: Who, Named(name): Named| async move {
            for_group(&state, &who, name, verb).await
        },
    )
}

async fn for_group(
    state: &AdminState,
    who: &Who,
    name: String,
    verb: fn(String) -> Verb,
) -> Response {
    let view = state.current();
    if !view.groups.iter().any(|group| group.name == name) {
        let known: Vec<&str> = view
            .groups
            .iter()
            .map(|group| group.name.as_str())
            .collect();
        let words = format!("there is no such group; known: {}", known.join(", "));
        return error(StatusCode::NOT_FOUND, &words);
    }
    let mut response = json!({ "group": name });
    match run(state, who, verb(name)).await {
        Ok(new) => {
            response["state"] = json!(new);
            (StatusCode::ACCEPTED, Json(response)).into_response()
        }
        Err(response) => response,
    }
}

#[derive(Deserialize, Default)]
pub(super) struct Target {
    #[serde(default)]
    to: String,
}

/// `?to=gc-2`, or the same in a JSON body.
pub(super) async fn switchover(
    State(state): State<AdminState>,
    who: Who,
    query: Asked<Target>,
    body: axum::body::Bytes,
) -> Response {
    let given = match body.is_empty() {
        true => Ok(Target::default()),
        false => serde_json::from_slice::<Target>(&body),
    };
    let to = match (query.0.to, given) {
        (to, Ok(_)) if !to.is_empty() => to,
        (_, Ok(target)) if !target.to.is_empty() => target.to,
        _ => {
            let words = "say where to: {\"to\":\"gc-2\"} or ?to=gc-2";
            return error(StatusCode::BAD_REQUEST, words);
        }
    };
    match run(&state, &who, Verb::Switchover(to.clone())).await {
        Ok(new) => {
            let body = json!({ "to": to, "state": new });
            (StatusCode::ACCEPTED, Json(body)).into_response()
        }
        Err(response) => response,
    }
}

pub(super) async fn forget(
    State(state): State<AdminState>,
    who: Who,
    Named(name): Named,
) -> Response {
    match run(&state, &who, Verb::Forget(name.clone())).await {
        Ok(new) => {
            let body = json!({ "instance": name, "state": new });
            (StatusCode::ACCEPTED, Json(body)).into_response()
        }
        Err(response) => response,
    }
}

pub(super) async fn drain(State(state): State<AdminState>, who: Who) -> Response {
    match run(&state, &who, Verb::Drain).await {
        Ok(new) => (StatusCode::ACCEPTED, Json(json!({ "state": new }))).into_response(),
        Err(response) => response,
    }
}

/// Who gives a verb; [`guard`] has put it there.
type Who = axum::Extension<Caller>;

/// Carries a verb out and writes it down, whether or not its giver waits for the answer.
async fn run(state: &AdminState, who: &Who, verb: Verb) -> Result<String, Response> {
    let (state, who) = (state.clone(), who.0.clone());
    let done = tokio::spawn(async move { carry_out(&state, &who, verb).await });
    match done.await {
        Ok(answer) => answer,
        Err(_) => {
            let words = "the verb's answer was lost";
            Err(error(StatusCode::INTERNAL_SERVER_ERROR, words))
        }
    }
}

async fn carry_out(state: &AdminState, who: &Caller, verb: Verb) -> Result<String, Response> {
    let token = who.token.as_deref().unwrap_or("none");
    let reason = who.reason.as_str();
    tracing::info!(?verb, token, from = %who.from, reason, "admin: operator");
    let given = verb.clone();
    let answer = ask(state, |answer| AdminRequest::Verb(verb, answer)).await;
    let result = match &answer {
        Ok(result) => result.clone(),
        Err(_) => Err("not answered in time: it may be done still".to_owned()),
    };
    state.history.verb(&Given {
        verb: given,
        token: who.token.clone(),
        from: who.from,
        reason: who.reason.clone(),
        result,
    });
    answer?.map_err(|reason| error(StatusCode::CONFLICT, &reason))
}

/// Asks the engine, within [`ANSWER`].
pub(super) async fn ask<T>(
    state: &AdminState,
    request: impl FnOnce(oneshot::Sender<T>) -> AdminRequest,
) -> Result<T, Response> {
    let (answer, answered) = oneshot::channel();
    let request = request(answer);
    let asked = async {
        state.ask.send(request).await.ok()?;
        answered.await.ok()
    };
    let unavailable = |words| error(StatusCode::SERVICE_UNAVAILABLE, words);
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(unavailable("the engine has ended")),
        Err(_) => Err(unavailable("the engine did not answer in time")),
    }
}
