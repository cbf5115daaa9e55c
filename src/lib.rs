//! tandem: a paired-site broker connector.
//!
//! ```text
//!                  Input (delivery, confirm, call result, notification, peer message, time, operator verb)
//!    shells  ─────────────────────────────────────────────▶  engine (pure)
//!    broker · downstream · notify · admin                       decides
//!    ◀─────────────────────────────────────────────────────  Command (publish, ack, call, subscribe, …) + Event (logs, metrics)
//! ```
//!
//! Read [`engine`], then `engine::input` and `engine::command`: they tell everything the
//! connector can experience and do. [`driver`] is the only place where the engine meets I/O.

// They panic where they cannot write: `cli::output` does not, and remembers it.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod admin;
pub mod app;
mod at_work;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod contracts;
mod data_dir;
mod database;
pub mod descriptors;
pub mod doctor;
pub mod downstream;
pub mod driver;
#[cfg(feature = "failpoints")]
pub mod failpoints;
mod finesse;
#[doc(hidden)]
pub mod fuzzing;
pub mod journal;
#[cfg(feature = "lab")]
pub mod lab;
pub mod lease;
mod listener;
pub mod network;
pub mod notify;
mod openapi;
pub mod record;
pub mod renewed;
pub mod rest;
pub mod retry;
mod serve;
pub mod store;
pub mod supervisor;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod watchdog;

pub use tandem_engine as engine;
use tandem_files as files;
pub use tandem_model as model;
pub use tandem_model::catalogue;
pub use tandem_net as net;
pub use tandem_settings as settings;
#[cfg(feature = "lab")]
pub use tandem_simulator as simulator;
pub use tandem_wire as wire;

/// Product version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
