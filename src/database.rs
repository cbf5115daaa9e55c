//! A redb file that outlives failed writes.
//!
//! After a failed write or fsync its handle is never used again: the library refuses every later
//! operation on it, and the system may have thrown away what it could not write, and say nothing
//! the second time. The file is copied, the copy is checked, synced and takes its place; until that
//! has worked every use fails.

use std::fs;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError};

use crate::data_dir;

/// Pages kept in memory, bytes.
const CACHE: usize = 16 << 20;

/// Opens a redb file, or creates it.
pub(crate) type Opener = Box<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send>;

/// Opens files for this user only.
pub(crate) fn opener() -> Opener {
    Box::new(|path| {
        let file = data_dir::open_file(path)?;
        Database::builder().set_cache_size(CACHE).create_file(file)
    })
}

/// An open file.
pub(crate) struct DatabaseFile {
    path: PathBuf,
    /// `None` after a failure, until the file is replaced.
    db: Option<Database>,
    opener: Opener,
}

impl DatabaseFile {
    /// Of a file that is open.
    pub(crate) fn new(path: PathBuf, db: Database, opener: Opener) -> Self {
        Self {
            path,
            db: Some(db),
            opener,
        }
    }

    /// Which file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Works with the file, which is replaced first where it failed before. Whatever fails, the
    /// work itself or the replacement, the next use begins with a replacement.
    pub(crate) fn with<T>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        // Put back only where all went well.
        let db = match self.db.take() {
            Some(db) => db,
            None => self.replacement()?,
        };
        let done = work(&db)?;
        self.db = Some(db);
        Ok(done)
    }

    /// A copy of the file takes its place. Every byte of the copy is written and synced anew, so
    /// nothing depends on what the system made of the writes that failed.
    fn replacement(&self) -> Result<Database, redb::Error> {
        let fresh = self.path.with_extension("redb.new");
        let made = self.make_replacement(&fresh);
        if made.is_err() {
            // It is in the way of nothing but the room that is missing.
            let _ = fs::remove_file(&fresh);
        }
        made
    }

    fn make_replacement(&self, fresh: &Path) -> Result<Database, redb::Error> {
        fs::copy(&self.path, fresh)?;
        fs::File::open(fresh)?.sync_all()?;
        let mut db = (self.opener)(fresh)?;
        db.check_integrity()?;
        db.begin_write()?.commit()?;
        fs::rename(fresh, &self.path)?;
        if let Some(dir) = self.path.parent() {
            fs::File::open(dir)?.sync_all()?;
        }
        Ok(db)
    }
}

/// A table that was never written does not exist; that is no error.
pub(crate) fn if_written<T>(table: Result<T, redb::TableError>) -> Result<Option<T>, redb::Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Disks that fail, or hang, when told to.

    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};

    use redb::backends::FileBackend;
    use redb::{Database, DatabaseError, StorageBackend};

    use super::{Opener, Path};

    /// What becomes of a sync.
    type Sync = Arc<dyn Fn() -> std::io::Result<()> + Send + std::marker::Sync>;

    /// A file whose syncs go as they are told to.
    struct Flaky {
        inner: FileBackend,
        sync: Sync,
    }

    impl std::fmt::Debug for Flaky {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Flaky")
        }
    }

    impl StorageBackend for Flaky {
        fn len(&self) -> std::io::Result<u64> {
            self.inner.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.inner.read(offset, out)
        }
        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.inner.set_len(len)
        }
        fn sync_data(&self) -> std::io::Result<()> {
            (self.sync)()?;
            self.inner.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.inner.write(offset, data)
        }
    }

    /// Opens files that fail while `fails` is set, and counts how many it opened.
    pub(crate) fn flaky(fails: &Arc<AtomicBool>, opened: &Arc<AtomicUsize>) -> Opener {
        let (fails, opened) = (fails.clone(), opened.clone());
        let sync: Sync = Arc::new(move || match fails.load(Ordering::SeqCst) {
            true => Err(std::io::Error::from_raw_os_error(28)),
            false => Ok(()),
        });
        Box::new(move |path| {
            opened.fetch_add(1, Ordering::SeqCst);
            open(path, &sync)
        })
    }

    /// Dropping it lets a disk that hangs go on.
    pub(crate) type Hung = Sender<()>;

    /// Opens files whose syncs hang while `hangs` is set; says where one does.
    pub(crate) fn hanging(hangs: &Arc<AtomicBool>) -> (Opener, Hung, Receiver<()>) {
        let hangs = hangs.clone();
        let (disk, mended) = channel::<()>();
        let (tell, reached) = channel();
        let (mended, tell) = (Mutex::new(mended), Mutex::new(tell));
        let sync: Sync = Arc::new(move || {
            if hangs.load(Ordering::SeqCst) {
                let _ = tell.lock().unwrap().send(());
                // Ends when the other side is dropped.
                let _ = mended.lock().unwrap().recv();
            }
            Ok(())
        });
        (Box::new(move |path| open(path, &sync)), disk, reached)
    }

    fn open(path: &Path, sync: &Sync) -> Result<Database, DatabaseError> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| DatabaseError::Storage(error.into()))?;
        let inner = FileBackend::new(file)?;
        let sync = sync.clone();
        Database::builder().create_with_backend(Flaky { inner, sync })
    }
}
