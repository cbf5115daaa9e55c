//! `GET /api/v1/trace?id=…`: what happened to a command, told by all members.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::extract::Asked;
use super::routes::error;
use super::{AdminRequest, AdminState};
use crate::engine::limits::TRACE_ID;
use crate::engine::peer::TraceRow;
use crate::model::InstanceId;
use crate::record::Told;

/// How long members may take to answer: they are asked over the brokers.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers that may wait: one a member, with room.
const ANSWERS: usize = 64;

#[derive(Deserialize)]
pub(super) struct Question {
    #[serde(default)]
    id: String,
}

/// What has been told so far.
#[derive(Default)]
struct Life {
    steps: Vec<TraceRow>,
    /// Members that have not answered; `None`: it is not known yet who is asked.
    silent: Option<Vec<InstanceId>>,
    answered: Vec<InstanceId>,
    own: bool,
}

impl Life {
    fn hear(&mut self, told: Told) {
        match told {
            Told::Asked(members) => self.silent = Some(members),
            Told::Rows(from, rows) => {
                self.own |= from.is_none();
                self.answered.extend(from);
                self.steps.extend(rows);
            }
        }
        if let Some(silent) = &mut self.silent {
            silent.retain(|member| !self.answered.contains(member));
        }
    }

    fn is_whole(&self) -> bool {
        self.own && self.silent.as_ref().is_some_and(Vec::is_empty)
    }
}

/// The steps of all commands with this command or correlation id, in the order of their times; the
/// instances' clocks may differ.
pub(super) async fn trace(State(state): State<AdminState>, query: Asked<Question>) -> Response {
    let id = query.0.id;
    if id.is_empty() || id.chars().count() > TRACE_ID {
        let words = "say which command: ?id=… with its message_id or correlation_id";
        return error(StatusCode::BAD_REQUEST, words);
    }
    if id.len() > TRACE_ID {
        // In so many bytes no message has an id: there is nobody to ask.
        return told(&state, &id, Life::default());
    }
    let (asker, mut answers) = mpsc::channel(ANSWERS);
    let request = AdminRequest::Trace(id.clone(), asker);
    if state.ask.send(request).await.is_err() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "the engine has ended");
    }
    let mut life = Life::default();
    let waited = tokio::time::timeout(PATIENCE, async {
        while !life.is_whole()
            && let Some(told) = answers.recv().await
        {
            life.hear(told);
        }
    });
    let in_time = waited.await.is_ok();
    if !life.own {
        let words = match in_time {
            true => "too many questions at once; try again",
            false => "the engine did not answer in time",
        };
        return error(StatusCode::SERVICE_UNAVAILABLE, words);
    }
    told(&state, &id, life)
}

fn told(state: &AdminState, id: &str, mut life: Life) -> Response {
    // Without a time is what only the journal knows: the end.
    life.steps.sort_by_key(|step| step.at.unwrap_or(u64::MAX));
    let own = state.current().instance.clone();
    let mut members = vec![own];
    members.extend(life.answered.iter().map(ToString::to_string));
    let silent = life.silent.unwrap_or_default();
    Json(json!({
        "id": id,
        "answered": members,
        "silent": silent,
        "steps": life.steps,
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_whole_when_this_instance_and_all_members_have_answered_in_any_order() {
        let member = InstanceId::new("gc-2").unwrap();
        let mut life = Life::default();
        life.hear(Told::Rows(Some(member.clone()), Vec::new()));
        assert!(!life.is_whole());
        life.hear(Told::Asked(vec![member]));
        assert!(!life.is_whole());
        life.hear(Told::Rows(None, Vec::new()));
        assert!(life.is_whole());
    }
}
