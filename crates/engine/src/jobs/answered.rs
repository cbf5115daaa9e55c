//! An answer in the making.

use crate::model::Json;
use crate::wire::reply::{Outcome, Reply};

/// An answer in the making.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub outcome: Outcome,
    pub status: Option<u16>,
    pub downstream: Option<String>,
    pub error: Option<(String, String)>,
    pub retry_after_ms: Option<u64>,
    /// Answer of a generic HTTP downstream.
    pub body: Option<Json>,
}

impl Answered {
    pub(crate) fn ok(outcome: Outcome, status: Option<u16>, downstream: Option<String>) -> Self {
        Self {
            outcome,
            status,
            downstream,
            error: None,
            retry_after_ms: None,
            body: None,
        }
    }

    /// What another instance has told.
    pub(crate) fn told(reply: &Reply) -> Self {
        let error = reply.error.as_ref();
        Self {
            outcome: reply.outcome,
            status: reply.status,
            downstream: reply.downstream.clone(),
            error: error.map(|error| (error.code.clone(), error.message.clone())),
            retry_after_ms: reply.retry_after_ms,
            body: reply.body.clone(),
        }
    }

    pub(crate) fn error(outcome: Outcome, code: &str, message: impl Into<String>) -> Self {
        Self {
            outcome,
            status: None,
            downstream: None,
            error: Some((code.to_owned(), message.into())),
            retry_after_ms: None,
            body: None,
        }
    }
}
