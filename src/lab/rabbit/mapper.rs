//! The port mapper (epmd) by which Erlang nodes find each other: one for each node that stands
//! alone, one for all nodes of a cluster. A node would start one that outlives it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::super::process::{GuardedChild, POLL, ProcessSpec};
use super::super::{LabError, ReservedPort};
use super::setup;

/// Bound of its start.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A port mapper as a child process, on a port of its own. Dropping it ends it.
#[derive(Debug)]
pub(in crate::lab) struct PortMapper {
    port: ReservedPort,
    process: Mutex<Option<GuardedChild>>,
}

impl PortMapper {
    /// One that does not run yet.
    pub(in crate::lab) fn reserve() -> Result<Self, LabError> {
        Ok(Self {
            port: ReservedPort::take()?,
            process: Mutex::new(None),
        })
    }

    pub(super) fn port(&self) -> &ReservedPort {
        &self.port
    }

    /// Starts it where it does not run, for the node of this server script, and waits until it
    /// listens. Its output goes into `folder`.
    pub(super) async fn ensure(&self, server: &Path, folder: &Path) -> Result<(), LabError> {
        let mut held = self.process.lock().await;
        if held.as_mut().is_some_and(|p| p.exited().is_none()) {
            return Ok(());
        }
        let spec = self.spec(server, folder);
        let mut process = spec.start_in(Some(folder))?;
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(self.port.address()).await.is_err() {
            super::check_alive(&mut process, &spec)?;
            if Instant::now() >= deadline {
                return Err(LabError::Deadline {
                    what: format!("start of the {}", spec.name),
                    limit: START_LIMIT,
                });
            }
            tokio::time::sleep(POLL).await;
        }
        *held = Some(process);
        Ok(())
    }

    fn spec(&self, server: &Path, folder: &Path) -> ProcessSpec {
        let port = self.port.number();
        ProcessSpec {
            name: format!("port mapper on {port}"),
            program: setup::find_epmd(server),
            args: ["-port", &port.to_string(), "-address", "127.0.0.1"]
                .map(str::to_owned)
                .to_vec(),
            env: BTreeMap::from([("HOME".to_owned(), folder.display().to_string())]),
            log: folder.join("epmd.log"),
        }
    }
}
