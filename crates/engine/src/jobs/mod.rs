//! The life of one command, from its delivery to its acknowledgement.
//!
//! ```text
//!  delivery ─▶ known id? ──yes──▶ same reply again ───────────────────────────────┐
//!     │ no                                                                        │
//!     ▼                                                                           │
//!  own agent? ─no─▶ Held ─▶ Forwarded ─(owner done)───────────────────────────────┤
//!     │ yes          │ ▲        │ owner lost                                      │
//!     ▼              ▼ └────────┘                                                 ▼
//!  Queued (lane of the agent) ─▶ Running ─▶ outcome ─▶ Settling ─(confirmed)─▶ acknowledged
//! ```
//!
//! A non-idempotent command has its intent made durable before it runs, and its outcome before it
//! is told: see `intent`; and where it may have run before: `doubt`.
//!
//! One lane an agent (or destination): its commands run one after another, lanes in parallel.
//!
//! `job` knows how far a command is and what may follow, `table` holds all of them, `lanes` says
//! whose turn it is.

mod answered;
mod answers;
mod arrival;
mod aside;
pub(crate) mod doubt;
mod held;
pub(crate) mod intent;
mod job;
mod lanes;
mod later;
pub(crate) mod ledger;
pub mod life;
mod lists;
mod outcomes;
mod sequence;
mod shared;
pub(crate) mod sharing;
mod table;
mod withheld;
pub(crate) mod work;

pub(crate) use answered::Answered;
pub(crate) use job::{Evidence, Job, Origin, State, Transition};
pub(crate) use lanes::{LaneKey, agent_lane};
pub(crate) use table::Jobs;
