//! A note in `data.dir` that commands are in work: it stays where the process ends in the middle of
//! them. What a later process finds put aside by the broker, and sent before that, may have been
//! carried out by this one: dead-lettering takes the mark of a redelivery away.
//!
//! Nobody waits for the disk here, and nothing is forced to it: the death of the process is what the
//! note is to outlive, not that of the machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::clock::wall_ms;
use crate::data_dir;

/// Name of the file in `data.dir`.
const FILE: &str = "at-work";

/// How often the note is renewed while there is work, and for how long it outlives that.
const RENEWAL: Duration = Duration::from_secs(1);

/// The note.
#[derive(Debug)]
pub struct AtWork {
    path: PathBuf,
    /// Written, and when.
    since: Option<Instant>,
    /// A write or removal is under way: one at a time.
    writing: Arc<AtomicBool>,
}

impl AtWork {
    /// The note of this process, and until when the one before had work: milliseconds since the
    /// epoch.
    #[must_use]
    pub fn open(dir: &Path) -> (Self, Option<u64>) {
        let path = dir.join(FILE);
        let former = former(&path);
        let note = Self {
            path,
            since: None,
            writing: Arc::default(),
        };
        (note, former)
    }

    /// Whether there is work now; to be called whenever that may have changed, and once a second.
    pub fn note(&mut self, busy: bool) {
        let old = self.since.is_none_or(|at| at.elapsed() >= RENEWAL);
        match (busy, self.since) {
            (true, _) if old => self.write(true),
            (false, Some(_)) if old => self.write(false),
            _ => {}
        }
    }

    fn write(&mut self, busy: bool) {
        if self.writing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.since = busy.then(Instant::now);
        let (path, writing) = (self.path.clone(), Arc::clone(&self.writing));
        tokio::task::spawn_blocking(move || {
            // Where the disk takes nothing, the journal and the store say so.
            if let Err(error) = keep(&path, busy) {
                tracing::debug!(%error, "no note that commands are in work");
            }
            writing.store(false, Ordering::Release);
        });
    }

    /// Everything that was begun is finished. How long a disk may take for that is the caller's to
    /// bound.
    pub async fn done(self) {
        while self.writing.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = tokio::task::spawn_blocking(move || keep(&self.path, false)).await;
    }
}

/// What the file says; one that cannot be read was last written then.
fn former(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.trim().parse().ok().or_else(|| {
        let written = std::fs::metadata(path).and_then(|file| file.modified());
        let since = written.ok()?.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    })
}

fn keep(path: &Path, busy: bool) -> std::io::Result<()> {
    use std::io::Write as _;
    if busy {
        let mut file = data_dir::open_file(path)?;
        // Over what is there: it is never empty.
        let text = wall_ms().to_string();
        file.write_all(text.as_bytes())?;
        return file.set_len(text.len() as u64);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written(note: &AtWork) {
        while note.writing.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn the_note_outlives_a_process_that_ends_in_the_middle_of_its_work() {
        let dir = tempfile::tempdir().unwrap();
        let (mut note, former) = AtWork::open(dir.path());
        assert_eq!(former, None);
        note.note(false);
        let before = wall_ms();
        note.note(true);
        written(&note).await;
        drop(note);
        let (mut note, former) = AtWork::open(dir.path());
        assert!((before..=wall_ms()).contains(&former.unwrap()));
        // Still there until there is other word.
        note.note(false);
        written(&note).await;
        assert_eq!(AtWork::open(dir.path()).1, former);
        note.note(true);
        written(&note).await;
        note.since = Instant::now().checked_sub(RENEWAL);
        note.note(false);
        written(&note).await;
        assert_eq!(AtWork::open(dir.path()).1, None);
        std::fs::write(dir.path().join(FILE), "").unwrap();
        let emptied = AtWork::open(dir.path()).1.unwrap();
        assert!(emptied + 2_000 >= before, "{emptied}");
        note.note(true);
        written(&note).await;
        note.done().await;
        assert_eq!(AtWork::open(dir.path()).1, None);
    }
}
