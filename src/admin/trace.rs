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
use super::{AdminRequest, AdminState, times};
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
    /// How far back this instance's record reaches, milliseconds since the epoch.
    since: Option<u64>,
}

impl Life {
    fn hear(&mut self, told: Told) {
        match told {
            Told::Asked(members) => self.silent = Some(members),
            Told::Own(rows, since) => {
                self.own = true;
                self.since = since;
                self.steps.extend(rows);
            }
            Told::Rows(from, rows) => {
                self.answered.push(from);
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

/// The steps of all commands with this command or correlation id, or of this trace, in the order of their times; the
/// instances' clocks may differ.
pub(super) async fn trace(State(state): State<AdminState>, query: Asked<Question>) -> Response {
    let id = query.0.id;
    if id.is_empty() || id.chars().count() > TRACE_ID {
        let words = "say which command: ?id=… with its message_id, correlation_id or trace id";
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
    let view = state.current();
    let mut members = vec![view.instance.clone()];
    members.extend(life.answered.iter().map(ToString::to_string));
    let silent = life.silent.unwrap_or_default();
    // Those that cannot be heard: what they did is not told, and that is said.
    let is_asked = |id: &str| members.iter().any(|one| one == id) || is_among(&silent, id);
    let not_asked: Vec<&str> = (view.peers.iter())
        .map(|peer| peer.instance.as_str())
        .filter(|id| !is_asked(id))
        .collect();
    let mut body = json!({
        "id": id,
        "answered": members,
        "silent": silent,
        "notAsked": not_asked,
        "since": life.since.map(times::iso),
        "steps": life.steps,
    });
    times::add(&mut body);
    Json(body).into_response()
}

fn is_among(silent: &[InstanceId], id: &str) -> bool {
    silent.iter().any(|member| member.as_str() == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_whole_when_this_instance_and_all_members_have_answered_in_any_order() {
        let member = InstanceId::new("gc-2").unwrap();
        let mut life = Life::default();
        life.hear(Told::Rows(member.clone(), Vec::new()));
        assert!(!life.is_whole());
        life.hear(Told::Asked(vec![member]));
        assert!(!life.is_whole());
        life.hear(Told::Own(Vec::new(), Some(7)));
        assert!(life.is_whole());
    }
}
