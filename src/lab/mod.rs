//! A laboratory on this machine: real RabbitMQ nodes, real `tandem` processes, and TCP relays
//! that can be cut between them.
//!
//! ```text
//!   TandemProcess ──▶ RabbitNode 0 ──▶ Relay ──▶ RabbitNode 1 ◀── TandemProcess
//!                              ▲                     │
//!                              └────── Relay ◀───────┘        (federation links)
//! ```
//!
//! Everything listens on loopback only, on ports of its own, with its files in temporary
//! folders. Every process is in a process group of its own and ends when its handle is dropped,
//! or when the program that holds the handle dies, however it dies (see [`process`]).

pub mod cluster;
pub mod demo;
mod folder;
pub mod janitor;
pub mod network;
pub mod ports;
pub mod process;
pub mod rabbit;
pub mod relay;

pub use cluster::RabbitCluster;
pub use network::{BrokerNetwork, NetworkOptions};
pub use ports::ReservedPort;
pub use process::{ProcessSpec, TandemProcess};
pub use rabbit::{RabbitNode, RabbitOptions, ServerTls};
pub use relay::{Direction, Relay};

use std::path::PathBuf;
use std::time::Duration;

/// Why the laboratory could not do what it was asked. None of these is a finding about the
/// product: they say that the machine or the laboratory is not in order.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// No free port was found in the laboratory's range.
    #[error("no free port between {from} and {to} on 127.0.0.1")]
    NoFreePort {
        /// First port tried.
        from: u16,
        /// Last port tried.
        to: u16,
    },
    /// A program is not installed, or not where it was looked for.
    #[error("{program} not found; looked in {looked_in}; set {variable} to its path")]
    NotInstalled {
        /// What was looked for.
        program: &'static str,
        /// Where.
        looked_in: String,
        /// The environment variable that overrides the search.
        variable: &'static str,
    },
    /// A file or process operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The process ended although it should run.
    #[error("{name} ended ({status}); last lines of {log}:\n{tail}", log = log.display())]
    Ended {
        /// Which process.
        name: String,
        /// Its exit status.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The end of that file.
        tail: String,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {limit:?}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// The management API gave an answer that cannot be used.
    #[error(transparent)]
    Management(#[from] crate::broker::management::ManagementError),
}

impl LabError {
    /// Wraps an operating system error with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
