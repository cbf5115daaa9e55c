//! The API in one table: what is routed is what `/openapi.json` says. The status page's three
//! files ([`super::page`]) are no API and stand beside it.

use std::sync::LazyLock;

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use serde_json::{Value, json};

use super::history::REASON_MOST;
use super::{AdminState, live, routes, shapes, trace};
use crate::engine::input::Verb;
use crate::engine::limits::TRACE_ID;
use crate::openapi::shape::{count, list, refers, text};
use crate::openapi::{Asks, Operation, document};

/// One route: what is said of it, and who carries it out.
pub(super) struct Route {
    operation: Operation,
    handler: MethodRouter<AdminState>,
}

/// Puts the routes into one router.
pub(super) fn router(routes: Vec<Route>) -> Router<AdminState> {
    routes.into_iter().fold(Router::new(), |router, route| {
        router.route(route.operation.path, route.handler)
    })
}

/// The document.
pub(super) fn openapi() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        let routes: Vec<Route> = open().into_iter().chain(guarded()).collect();
        let about = "One instance of tandem: health for load balancers, what it knows, verbs for operators. Every refusal (4xx, 5xx) is JSON; 404 and 405 answer other paths and methods. On a loopback listener reads want no token. docs/operations.md, docs/security.md.";
        let operations = routes.iter().map(|route| &route.operation);
        document("tandem admin API", about, operations, shapes::definitions())
    });
    &DOCUMENT
}

/// Wants a token where the listener does.
fn asks(operation: Operation, asks: Asks) -> Operation {
    let often = "Too many wrong tokens from this address; Retry-After says how long.";
    operation.asks(asks).refuses(429, often)
}

fn reads(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    handler: MethodRouter<AdminState>,
) -> Route {
    Route {
        operation: Operation::new("get", path, id, summary),
        handler,
    }
}

impl Route {
    fn with(mut self, more: impl FnOnce(Operation) -> Operation) -> Self {
        self.operation = more(self.operation);
        self
    }

    /// Answers this, and no token is wanted on loopback.
    fn shows(self, shape: Value, about: &str) -> Self {
        self.with(|o| asks(o, Asks::MaybeToken).json(200, shape, about))
    }
}

/// Those for machines that probe: no rules.
pub(super) fn open() -> Vec<Route> {
    let line = |operation: Operation, no: &str| {
        let yes = "Yes, with one line for people.";
        operation
            .answers(200, "text/plain", text(), yes)
            .refuses(503, no)
    };
    let group = |operation: Operation| {
        let about = "Group of command queues; agents where it is left out.";
        operation
            .query("group", text(), about)
            .refuses(400, "The question cannot be read.")
    };
    vec![
        reads(
            "/livez",
            "getLivez",
            "Whether the process lives",
            get(routes::livez),
        )
        .with(|o| line(o, "It stands still.")),
        reads(
            "/readyz",
            "getReadyz",
            "Whether it serves or can take over",
            get(routes::readyz),
        )
        .with(|o| line(o, "It does not, and why.")),
        reads(
            "/leader",
            "getLeader",
            "Whether it leads a group",
            get(routes::leader),
        )
        .with(|o| line(group(o), "It does not.")),
        reads(
            "/follower",
            "getFollower",
            "Whether it stands by for a group",
            get(routes::follower),
        )
        .with(|o| line(group(o), "It does not.")),
    ]
}

/// The others: [`super::guard`] looks at who asks.
pub(super) fn guarded() -> Vec<Route> {
    let mut all = shown();
    all.extend(asked());
    all.extend(verbs());
    all
}

fn shown() -> Vec<Route> {
    let times = json!({ "type": "string", "anyOf": [
        { "format": "date-time" }, { "format": "date" }, { "pattern": "^[0-9]{1,4}[smhd]$" },
    ] });
    let since = |o: Operation| {
        asks(o, Asks::MaybeToken)
            .query(
                "since",
                times,
                "From then on: a time (RFC 3339) or how long ago, as 1h.",
            )
            .json(200, list(refers("HistoryEntry")), "The newest first.")
            .refuses(400, "The time cannot be read.")
    };
    let metrics = |o: Operation| {
        o.asks(Asks::Nothing)
            .answers(200, "text/plain", text(), "Prometheus's text format.")
            .refuses(403, "Refused: a foreign Host.")
    };
    let document = |o: Operation| {
        o.asks(Asks::Nothing)
            .json(200, json!({ "type": "object" }), "OpenAPI 3.1.")
            .refuses(403, "Refused: a foreign Host.")
    };
    vec![
        reads(
            "/openapi.json",
            "getOpenApi",
            "This document",
            get(routes::openapi),
        )
        .with(document),
        reads("/metrics", "getMetrics", "Metrics", get(routes::metrics)).with(metrics),
        reads(
            "/api/v1/status",
            "getStatus",
            "How the instance stands",
            get(routes::status),
        )
        .shows(refers("Status"), "Its picture of itself."),
        reads(
            "/api/v1/members",
            "getMembers",
            "The instances of the cluster",
            get(routes::members),
        )
        .shows(list(refers("Member")), "This one first."),
        reads(
            "/api/v1/groups",
            "getGroups",
            "Groups and who leads them",
            get(routes::groups),
        )
        .shows(list(refers("LedGroup")), "Groups of command queues."),
        reads(
            "/api/v1/network",
            "getNetwork",
            "Consumers and links, as the brokers list them",
            get(routes::network),
        )
        .shows(refers("Network"), "The brokers' word."),
        reads(
            "/api/v1/history",
            "getHistory",
            "What changed lately",
            get(routes::history),
        )
        .with(since),
    ]
}

fn asked() -> Vec<Route> {
    let total =
        json!({ "description": "How many fit the question, shown or not.", "schema": count() });
    let sessions = json!({
        "description": "By agent.", "headers": { "x-total-count": total },
        "content": { "application/json": { "schema": list(refers("Session")) } },
    });
    let search = json!({ "type": "string", "maxLength": live::SEARCH_CHARS });
    let number = || json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
    let page = |o: Operation| {
        asks(o, Asks::MaybeToken)
            .query("q", search, "Part of agent, extension or destination.")
            .query("owner", text(), "Instance that owns the agent; empty: any.")
            .query("offset", number(), "How many to pass over.")
            .query("limit", number(), "How many to show; at most 1000 are.")
            .answer(200, sessions)
            .refuses(400, "The question cannot be read.")
            .refuses(503, "The engine does not answer.")
    };
    let id = json!({ "type": "string", "minLength": 1, "maxLength": TRACE_ID });
    let id = json!({ "name": "id", "in": "query", "required": true, "schema": id, "description": "message_id or correlation_id." });
    let life = |o: Operation| {
        asks(o, Asks::MaybeToken)
            .parameter(id)
            .json(
                200,
                refers("Life"),
                "Its steps, told by all members; none where nobody knows it.",
            )
            .refuses(400, "No id, or too long a one.")
            .refuses(503, "The engine does not answer, or too many ask.")
    };
    let stream = |o: Operation| {
        let about = "Server-sent events, one each half second: data is JSON as the schema Live.";
        asks(o, Asks::MaybeToken)
            .answers(200, "text/event-stream", text(), about)
            .refuses(503, "Too many streams are open.")
    };
    vec![
        reads(
            routes::SESSIONS,
            "getSessions",
            "Agent sessions",
            get(live::sessions),
        )
        .with(page),
        reads(
            routes::TRACE,
            "getTrace",
            "What happened to a command",
            get(trace::trace),
        )
        .with(life),
        reads(
            routes::LOG,
            "getLog",
            "The last lines of the log",
            get(routes::log),
        )
        .shows(list(text()), "The oldest first."),
        reads(
            "/api/v1/events",
            "getEvents",
            "All that the status page shows, as a stream",
            get(live::events),
        )
        .with(stream),
    ]
}

fn verb(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    handler: MethodRouter<AdminState>,
) -> Route {
    let operation = asks(Operation::new("post", path, id, summary), Asks::Token)
        .query(
            "reason",
            json!({ "type": "string", "maxLength": REASON_MOST }),
            "Why; it stands in the history.",
        )
        .json(202, refers("Done"), "Taken.")
        .refuses(400, "A part of it cannot be read.")
        .refuses(408, "The body did not arrive in time.")
        .refuses(409, "It cannot be done as things stand.")
        .refuses(413, "The body is too large.")
        .refuses(503, "The engine does not answer.");
    Route { operation, handler }
}

fn verbs() -> Vec<Route> {
    let name = json!({ "type": "string", "minLength": 1 });
    let of_group = |path, id, summary, verb_of| {
        verb(path, id, summary, routes::group_verb(verb_of)).with(|o| {
            o.in_path("name", name.clone(), "Group of command queues.")
                .refuses(404, "There is no such group.")
        })
    };
    let target = |o: Operation| {
        o.query("to", text(), "In place of the body.")
            .body(true, refers("Target"))
    };
    let forgotten = |o: Operation| o.in_path("name", name.clone(), "Instance.");
    vec![
        of_group(
            "/api/v1/groups/{name}/stop",
            "stopGroup",
            "Stops a group here",
            Verb::GroupStop,
        ),
        of_group(
            "/api/v1/groups/{name}/start",
            "startGroup",
            "Starts a group here",
            Verb::GroupStart,
        ),
        of_group(
            "/api/v1/failover/{name}/stop",
            "stopFailover",
            "Stops a group here and keeps others from taking over",
            Verb::FailoverStop,
        ),
        of_group(
            "/api/v1/failover/{name}/start",
            "startFailover",
            "Makes this instance the leader",
            Verb::FailoverStart,
        ),
        of_group(
            "/api/v1/failover/{name}/auto",
            "autoFailover",
            "Takes operators' choices back",
            Verb::FailoverAuto,
        ),
        verb(
            "/api/v1/switchover",
            "switchover",
            "Hands the lead over",
            post(routes::switchover),
        )
        .with(target),
        verb(
            "/api/v1/members/{name}/forget",
            "forgetMember",
            "Says that a lost instance is gone for good",
            post(routes::forget),
        )
        .with(forgotten),
        verb(
            "/api/v1/drain",
            "drain",
            "Finishes what is started and stops consuming",
            post(routes::drain),
        ),
    ]
}
