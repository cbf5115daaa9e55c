//! The journal in `data.dir`: intents and outcomes of non-idempotent commands, durable before the
//! call and before the reply.
//!
//! One redb file of its own, one thread that writes it. All writes that have gathered go into one
//! transaction, which is on disk when it is answered. After a failed write or fsync a copy takes
//! the file's place (`database`); until that has worked every write is answered with its failure,
//! and the engine starts nothing that must not run twice.
//!
//! Nothing in it is secret: ids, names and digests, no arguments and no answers' bodies.

mod file;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::database;
use crate::engine::command::JournalWrite;
use crate::engine::ids::JournalId;
use crate::engine::journal::Restored;
use crate::watchdog::vital;

pub use file::Summary;

/// Name of the file in `data.dir`.
pub const FILE: &str = "journal.redb";

/// Writes that may wait; the next one is answered as failed. The engine has far fewer under way.
const QUEUE: usize = 8_192;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it open.
    #[error("the journal {path} is in use by another process: is that instance running?")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// It is not there.
    #[error("there is no journal {path}")]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// It is damaged, or cannot be read or written.
    #[error(
        "the journal {path} cannot be used: {reason}. It tells which calls may have been made: \
         free or mend the disk, or start once with --accept-journal-loss, which moves the file \
         away; commands that may have been seen before are then answered IN_DOUBT for ten minutes"
    )]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Why a write was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// `QUEUE` wait.
    #[error("too many writes wait")]
    Full,
    /// Its thread has ended.
    #[error("the journal has ended")]
    Ended,
}

/// What is told of a batch of writes: which, why not, and how long it took.
pub type Told = Box<dyn Fn(Vec<JournalId>, Option<String>, Duration) + Send>;

/// An open journal. Dropping it ends its thread once everything that waits is written.
#[derive(Debug)]
pub struct Journal {
    queue: Option<SyncSender<(JournalId, JournalWrite)>>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens or creates the journal of a data folder and starts its thread; `told` is called on
    /// it for every batch. With `accept_loss` a file that cannot be used is moved away.
    ///
    /// # Errors
    /// [`JournalError`]; nothing was changed then.
    pub fn open(
        dir: &Path,
        accept_loss: bool,
        now_wall: u64,
        told: Told,
    ) -> Result<(Self, Restored), JournalError> {
        Self::with(dir, accept_loss, now_wall, told, database::opener())
    }

    fn with(
        dir: &Path,
        accept_loss: bool,
        now_wall: u64,
        told: Told,
        opener: database::Opener,
    ) -> Result<(Self, Restored), JournalError> {
        let (file, restored) = file::File::open(dir, accept_loss, now_wall, opener)?;
        let (queue, waiting) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || vital("journal", || writer::run(file, &waiting, &told)))
            .map_err(|error| JournalError::Unusable {
                path: dir.join(FILE),
                reason: error.to_string(),
            })?;
        let journal = Self {
            queue: Some(queue),
            thread: Some(thread),
        };
        Ok((journal, restored))
    }

    /// Hands a write to the thread; never blocks.
    ///
    /// # Errors
    /// Why it will not be written.
    pub fn submit(&self, id: JournalId, write: JournalWrite) -> Result<(), NotTaken> {
        let Some(queue) = &self.queue else {
            return Err(NotTaken::Ended);
        };
        queue.try_send((id, write)).map_err(|error| match error {
            TrySendError::Full(_) => NotTaken::Full,
            TrySendError::Disconnected(_) => NotTaken::Ended,
        })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was told when it happened.
            let _ = thread.join();
        }
    }
}

/// Reads the journal of a stopped instance.
///
/// # Errors
/// [`JournalError`], also where an instance has it open.
pub fn read(dir: &Path) -> Result<Restored, JournalError> {
    file::read(&dir.join(FILE))
}

/// Checks every page of the journal of a stopped instance and says what is in it.
///
/// # Errors
/// [`JournalError`], also where an instance has it open.
pub fn check(dir: &Path) -> Result<Summary, JournalError> {
    file::check(&dir.join(FILE))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
