//! A node's temporary folder. It goes when its owner ends in order, and what a killed owner left
//! behind goes when the next folder is made: a lock on a file in it tells whether it is in use.

use std::fs::File;
use std::path::Path;

use tempfile::TempDir;

use super::LabError;

const LOCK: &str = "lock";

/// A temporary folder that this process holds.
#[derive(Debug)]
pub(super) struct HeldFolder {
    folder: TempDir,
    /// Closing it releases the lock.
    _lock: File,
}

impl HeldFolder {
    /// Makes `<temporary folder>/<prefix>…` and removes abandoned ones with the same prefix.
    pub(super) fn new(prefix: &str) -> Result<Self, LabError> {
        Self::new_in(&std::env::temp_dir(), prefix)
    }

    /// The same in a folder of the caller's.
    pub(super) fn new_in(parent: &Path, prefix: &str) -> Result<Self, LabError> {
        remove_abandoned(parent, prefix);
        let failed = || LabError::io(format!("create a folder in {}", parent.display()));
        let folder = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(parent)
            .map_err(failed())?;
        // Locked before it has the name that others look for.
        let early = folder.path().join("lock.new");
        let lock = File::create(&early).map_err(failed())?;
        lock.lock().map_err(failed())?;
        std::fs::rename(&early, folder.path().join(LOCK)).map_err(failed())?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Best effort: what cannot be removed stays.
fn remove_abandoned(parent: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let ours = entry
            .file_name()
            .to_str()
            .is_some_and(|n| n.starts_with(prefix));
        let Some(lock) = ours
            .then(|| File::open(entry.path().join(LOCK)).ok())
            .flatten()
        else {
            continue;
        };
        if lock.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abandoned_folders_go_and_held_or_foreign_ones_stay() {
        let parent = tempfile::tempdir().unwrap();
        let held = HeldFolder::new_in(parent.path(), "lab-").unwrap();
        let abandoned = parent.path().join("lab-old");
        let foreign = parent.path().join("lab-without-lock");
        for folder in [&abandoned, &foreign] {
            std::fs::create_dir(folder).unwrap();
        }
        File::create(abandoned.join(LOCK)).unwrap();

        let next = HeldFolder::new_in(parent.path(), "lab-").unwrap();
        assert!(held.path().exists() && next.path().exists() && foreign.exists());
        assert!(!abandoned.exists());
        let path = held.path().to_owned();
        drop(held);
        assert!(!path.exists());
    }
}
