//! What the status page lives on: one stream of server-sent events, and pages of the sessions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::response::sse::{Event as Message, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::extract::Asked;
use super::routes::{ask, error};
use super::{AdminRequest, AdminState, times};
use crate::clock::wall_ms;
use crate::engine::view::SessionQuery;

/// How often the page is told how things stand.
const BEAT: Duration = Duration::from_millis(500);
/// Streams at once; a browser too many is told so and may read the status by itself.
pub(super) const STREAMS: usize = 32;
/// Changes in one message.
const CHANGES: usize = 100;
/// Longest page of sessions.
const PAGE: usize = 1_000;
/// Longest text to search for, in characters.
pub(super) const SEARCH_CHARS: usize = 150;

/// Who may have a stream.
#[derive(Clone)]
pub(super) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS)))
    }
}

/// One browser's stream.
struct Feed {
    state: AdminState,
    beat: Interval,
    _permit: OwnedSemaphorePermit,
}

/// Each half second one message: the status, the last seconds' figures, the last changes and
/// what the brokers' management says.
pub(super) async fn events(
    State(state): State<AdminState>,
    axum::Extension(streams): axum::Extension<Streams>,
) -> Response {
    let Ok(permit) = streams.0.try_acquire_owned() else {
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many status pages are open",
        );
    };
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Sse::new(stream(Feed {
        state,
        beat,
        _permit: permit,
    }))
    .into_response()
}

fn stream(feed: Feed) -> impl Stream<Item = Result<Message, Infallible>> {
    futures::stream::unfold(feed, async |mut feed| {
        feed.beat.tick().await;
        // The page must not go on showing a picture that nobody paints any more.
        feed.state.alive().ok()?;
        let message = Message::default().data(feed.state.now().to_string());
        Some((Ok(message), feed))
    })
}

impl AdminState {
    /// The engine's picture of itself, and what is done with HTTP callbacks where there are any.
    pub(super) fn told(&self) -> serde_json::Value {
        let mut status = json!(self.current().as_ref());
        if let Some(callbacks) = &self.callbacks {
            status["callbacks"] = json!(callbacks.rows());
        }
        times::add(&mut status);
        status
    }

    /// All that the page shows but the sessions.
    fn now(&self) -> serde_json::Value {
        let changes = self.history.newest(CHANGES);
        json!({
            "now": wall_ms(),
            "status": self.told(),
            "pulse": self.pulse.seconds(),
            "history": changes,
            "network": self.network.borrow().as_ref(),
            "needsToken": self.rules.any(),
        })
    }
}

/// Question for a part of the sessions.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SessionsAsked {
    /// Part of agent, extension or destination.
    q: String,
    owner: Option<String>,
    offset: u32,
    limit: Option<u32>,
}

fn whole(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A list of sessions; the header `x-total-count` says how many fit the question.
pub(super) async fn sessions(
    State(state): State<AdminState>,
    Asked(asked): Asked<SessionsAsked>,
) -> Response {
    if asked.q.chars().count() > SEARCH_CHARS {
        return error(StatusCode::BAD_REQUEST, "q is too long");
    }
    let query = SessionQuery {
        search: asked.q,
        owner: asked.owner.filter(|owner| !owner.is_empty()),
        offset: whole(asked.offset),
        limit: asked.limit.map(|limit| whole(limit).min(PAGE)),
    };
    match ask(&state, |answer| AdminRequest::Sessions(query, answer)).await {
        Ok(page) => {
            let total = HeaderValue::from(page.matching);
            ([("x-total-count", total)], Json(page.sessions)).into_response()
        }
        Err(response) => response,
    }
}
