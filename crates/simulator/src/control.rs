//! The control endpoints: ledger, faults, calls, agents, subscriptions (JSON).

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::faults::Fault;
use super::lock;
use super::world::World;

/// The control endpoints as a router.
pub fn router(world: Arc<World>) -> Router {
    Router::new()
        .route("/ledger", get(ledger).delete(clear_ledger))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/calls", get(calls).post(add_call))
        .route("/calls/{id}", delete(end_call))
        .route("/agents", get(agents))
        .route("/subscriptions", get(subscriptions))
        .with_state(world)
}

#[derive(Deserialize)]
struct LedgerQuery {
    agent: Option<String>,
    #[serde(default)]
    since: u64,
}

async fn ledger(State(world): State<Arc<World>>, Query(query): Query<LedgerQuery>) -> Response {
    Json(world.ledger.entries(query.agent.as_deref(), query.since)).into_response()
}

async fn clear_ledger(State(world): State<Arc<World>>) -> StatusCode {
    world.ledger.clear();
    StatusCode::NO_CONTENT
}

async fn faults(State(world): State<Arc<World>>) -> Json<Vec<Fault>> {
    let mut all = Vec::new();
    for (at, node) in world.faults.iter().enumerate() {
        all.extend(node.list().into_iter().map(|mut fault| {
            fault.node = Some(at + 1);
            fault
        }));
    }
    Json(all)
}

fn bad(message: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": message }))).into_response()
}

async fn add_fault(State(world): State<Arc<World>>, body: String) -> Response {
    let fault: Fault = match serde_json::from_str(&body) {
        Ok(fault) => fault,
        Err(error) => return bad(&error.to_string()),
    };
    let count = world.faults.len();
    let nodes = match fault.node {
        None => 1..=count,
        Some(node) if (1..=count).contains(&node) => node..=node,
        Some(_) => return bad("no such node"),
    };
    let mut ids = Vec::new();
    for node in nodes {
        match world.node_faults(node).add(fault.clone()) {
            Ok(id) => ids.push(json!({ "node": node, "id": id })),
            Err(why) => return bad(why),
        }
    }
    (StatusCode::CREATED, Json(json!(ids))).into_response()
}

#[derive(Deserialize)]
struct FaultQuery {
    node: Option<usize>,
    id: Option<u64>,
}

async fn clear_faults(
    State(world): State<Arc<World>>,
    Query(query): Query<FaultQuery>,
) -> StatusCode {
    for (at, node) in world.faults.iter().enumerate() {
        if query.node.is_none_or(|wanted| wanted == at + 1) {
            node.clear(query.id);
        }
    }
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct NewCall {
    to: String,
    from: String,
    #[serde(default)]
    variables: std::collections::BTreeMap<String, String>,
    /// `preview` or `progressive`: a campaign's call.
    campaign: Option<String>,
}

async fn add_call(State(world): State<Arc<World>>, body: String) -> Response {
    let call: NewCall = match serde_json::from_str(&body) {
        Ok(call) => call,
        Err(error) => return bad(&error.to_string()),
    };
    let placed = match call.campaign.as_deref() {
        Some("preview") => world.offer_preview(&call.from, &call.to),
        Some("progressive") => world.dialed(&call.from, &call.to),
        Some(_) => return bad("campaign is preview or progressive"),
        None => world.inbound(&call.from, &call.to, call.variables.into_iter().collect()),
    };
    match placed {
        Ok(id) => (StatusCode::CREATED, Json(json!({ "dialogId": id }))).into_response(),
        Err(why) => (StatusCode::CONFLICT, Json(json!({ "error": why }))).into_response(),
    }
}

async fn end_call(State(world): State<Arc<World>>, Path(id): Path<u64>) -> StatusCode {
    if world.hang_up(id) {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}

async fn calls(State(world): State<Arc<World>>) -> Response {
    let calls = lock(&world.calls);
    let list: Vec<_> = calls
        .map
        .values()
        .map(|call| {
            let parties: Vec<_> = call
                .parties
                .iter()
                .map(|party| {
                    json!({ "address": party.address, "state": party.state.name(),
                            "agent": party.agent.as_ref().map(|agent| &*agent.id) })
                })
                .collect();
            json!({ "dialogId": call.id, "from": call.from, "to": call.to,
                    "state": call.state().name(), "participants": parties })
        })
        .collect();
    Json(list).into_response()
}

async fn agents(State(world): State<Arc<World>>) -> Response {
    let list: Vec<_> = world
        .agents()
        .iter()
        .map(|agent| {
            let state = lock(&agent.state);
            json!({ "id": &*agent.id, "state": state.state.name(),
                    "pendingState": state.pending.map(super::agent::State::name),
                    "extension": state.extension,
                    "reasonCode": state.reason.map(|reason| reason.code),
                    "dialogs": state.dialogs,
                    "sessions": lock(&agent.sessions).len() })
        })
        .collect();
    Json(list).into_response()
}

async fn subscriptions(State(world): State<Arc<World>>) -> Response {
    let mut list = Vec::new();
    for agent in world.agents() {
        for session in lock(&agent.sessions).iter() {
            list.push(json!({ "agent": &*agent.id, "node": session.node,
                              "resource": session.resource, "available": session.available }));
        }
    }
    Json(list).into_response()
}
