//! What an instance tells about itself: log lines and metrics.
//!
//! ```text
//!   engine::Event ──▶ emit() ──▶ one log line (stderr, by a thread) and one metric, with the same bounded labels
//!   engine::View  ──▶ gauges() ──▶ gauges
//!   shells        ──▶ downstream_request() ──▶ counter and histogram
//!                                   Telemetry::render() ──▶ GET /metrics
//! ```
//!
//! Labels are bounded: names from the configuration, peers (the engine tracks at most
//! [`crate::engine::limits::PEERS`]) and fixed words. Agents, ids and free text stand in log
//! lines only.

mod emit;
mod gauges;
mod last;
mod log;
pub mod names;
mod recorder;
mod repeats;
mod stderr;
mod tally;

pub use emit::{Labels, emit};
pub use gauges::{CallbackGauges, callbacks, consumer_proof, descriptors, gauges, network};
pub use last::last_lines;
pub use log::{LogError, flush, init, set_level, upkeep};
pub use recorder::Telemetry;
pub use tally::{
    callback, callback_failed, downstream_request, journal_write, local_shortage,
    notification_unreadable,
};
