//! The downstream platform over HTTP: one request in, one classified outcome out.
//!
//! [`FinesseClient::call`] runs an [`Action`](crate::model::Action) and says what became of it in
//! the terms of [`CallOutcome`](crate::model::CallOutcome): done, refused, not sent, out of
//! service, or unknown. It never retries, never follows a redirect and never picks another node;
//! those decisions belong to the engine.

mod classify;
mod client;
mod generic;
mod guarded;

pub use client::{Config, DownstreamError, FinesseClient, MAX_IDLE, Marks, NodeConfig};
