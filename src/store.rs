//! The store in `data.dir`: sessions, destinations, epochs and group states survive a restart.
//!
//! One redb file; every session is sealed under `control.key`, or, where none is configured, under
//! a random key of this folder's own. Sessions sealed under that one can still be read when a
//! `control.key` is configured later. After a failed write the file is replaced by a copy
//! (`database`), so that room on the disk brings the store back.

mod local_key;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::database::{self, DatabaseFile, Opener, if_written};
use crate::engine::command::{Keep, KeptGroup};
use crate::engine::peer::SessionRecord;
use crate::model::Destination;
use crate::wire::control::Keys;

const SESSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sessions");
const DESTINATIONS: TableDefinition<'_, &str, ()> = TableDefinition::new("destinations");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Group name to [`KeptGroup`] as JSON: it holds no secret.
const GROUPS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("groups");
const EPOCH: &str = "epoch";
const PURPOSE: &str = "session";

/// Destinations that are kept; the engine itself knows no more.
const MAX_DESTINATIONS: usize = crate::engine::limits::DESTINATIONS;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or read.
    #[error(
        "the store {path} cannot be used: {reason}; is another process using it, or is the disk \
         full or damaged? Moving the file away starts without the agents it holds"
    )]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The folder's own key is there but cannot be used, or cannot be made.
    #[error(
        "the store's key {path} cannot be used: {reason}. Put a copy of it back, or move it away, \
         which starts without the agents sealed under it"
    )]
    LocalKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What was kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// Sessions.
    pub sessions: Vec<SessionRecord>,
    /// Client destinations.
    pub destinations: Vec<Destination>,
    /// No fencing epoch above this one was ever used.
    pub epoch: u64,
    /// What operators decided.
    pub groups: Vec<KeptGroup>,
    /// Sessions that could not be opened: sealed under another key, or damaged.
    pub unreadable: usize,
}

/// An open store.
pub struct Store {
    file: Mutex<DatabaseFile>,
    keys: RwLock<Ring>,
}

/// Keys of what is kept.
#[derive(Clone)]
struct Ring {
    /// What is kept is sealed under these.
    keys: Keys,
    /// From a time without a `control.key`: only to read.
    before: Option<Keys>,
    /// Those of a change that failed: only to read, as some of it may be on disk.
    tried: Option<Keys>,
}

impl Store {
    /// Opens or creates the store of a data folder. Keys without a `control.key` are exchanged for
    /// those of the folder's own key, which is made where there is none.
    ///
    /// # Errors
    /// [`StoreError`] where a file cannot be used.
    pub fn open(dir: &Path, keys: Keys) -> Result<Self, StoreError> {
        Self::open_with(dir, keys, database::opener())
    }

    fn open_with(dir: &Path, keys: Keys, opener: Opener) -> Result<Self, StoreError> {
        let path = dir.join("sessions.redb");
        let db = opener(&path).map_err(|error| failed(&path, &error))?;
        let (keys, before) = if keys.keyed() {
            let before = local_key::read(dir)?.map(|key| keys.with_key(&key));
            (keys, before)
        } else {
            (keys.with_key(&local_key::read_or_make(dir)?), None)
        };
        Ok(Self {
            file: Mutex::new(DatabaseFile::new(path, db, opener)),
            keys: RwLock::new(Ring {
                keys,
                before,
                tried: None,
            }),
        })
    }

    /// Seals everything kept under other keys, which come from a `control.key` as those before
    /// did. What cannot be opened stays as it is.
    ///
    /// # Errors
    /// In words; keys are as they were then, and what is kept can be read.
    pub fn rekey(&self, keys: &Keys) -> Result<(), String> {
        // Held to the end: nothing is written under the old keys meanwhile.
        let mut ring = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let new = Ring {
            keys: keys.clone(),
            before: ring.before.clone(),
            tried: None,
        };
        match self.with(|db| reseal(db, &ring, &new)) {
            Ok(()) => {
                *ring = new;
                Ok(())
            }
            Err(error) => {
                ring.tried = Some(new.keys);
                Err(error.to_string())
            }
        }
    }

    fn ring(&self) -> RwLockReadGuard<'_, Ring> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything kept.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn load(&self) -> Result<Kept, StoreError> {
        let ring = self.ring();
        self.with(|db| read(db, &ring))
    }

    /// Makes changes durable: they are on disk when this returns.
    ///
    /// # Errors
    /// In words. Whether the changes are on disk is not known then: all or none of them are.
    pub fn keep(&self, changes: &Keep) -> Result<(), String> {
        // Held until it is written, see `rekey`.
        let ring = self.ring();
        let mut sealed = Vec::with_capacity(changes.sessions.len());
        for (agent, record) in &changes.sessions {
            let bytes = record.as_ref().map(|record| ring.seal(record));
            sealed.push((agent, bytes.transpose()?));
        }
        let groups = changes.groups.iter().map(|group| {
            let json = serde_json::to_vec(group).map_err(|error| error.to_string())?;
            Ok((group.name.as_str(), json))
        });
        let groups: Vec<(&str, Vec<u8>)> = groups.collect::<Result<_, String>>()?;
        self.with(|db| write(db, changes, &sealed, &groups))
            .map_err(|error| error.to_string())
    }

    /// Works with the file. After a failure the next use replaces it (`database`).
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let done = file.with(work);
        done.map_err(|error| failed(file.path(), &error))
    }
}

fn failed(path: &Path, error: &dyn std::error::Error) -> StoreError {
    StoreError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn read(db: &Database, ring: &Ring) -> Result<Kept, redb::Error> {
    let mut kept = Kept::default();
    let tables = db.begin_read()?;
    if let Some(table) = if_written(tables.open_table(SESSIONS))? {
        for entry in table.iter()? {
            let (_, sealed) = entry?;
            match ring.open(sealed.value()) {
                Some(record) => kept.sessions.push(record),
                None => kept.unreadable += 1,
            }
        }
    }
    if let Some(table) = if_written(tables.open_table(DESTINATIONS))? {
        for entry in table.iter()?.take(MAX_DESTINATIONS) {
            let (name, ()) = {
                let (name, unit) = entry?;
                (name.value().to_owned(), unit.value())
            };
            kept.destinations.extend(Destination::new(&name).ok());
        }
    }
    if let Some(table) = if_written(tables.open_table(NUMBERS))? {
        kept.epoch = table.get(EPOCH)?.map_or(0, |epoch| epoch.value());
    }
    if let Some(table) = if_written(tables.open_table(GROUPS))? {
        for entry in table.iter()? {
            let (_, json) = entry?;
            match serde_json::from_slice(json.value()) {
                Ok(group) => kept.groups.push(group),
                Err(_) => kept.unreadable += 1,
            }
        }
    }
    Ok(kept)
}

fn write(
    db: &Database,
    changes: &Keep,
    sealed: &[(&crate::model::AgentId, Option<Vec<u8>>)],
    groups: &[(&str, Vec<u8>)],
) -> Result<(), redb::Error> {
    let tables = db.begin_write()?;
    {
        let mut table = tables.open_table(SESSIONS)?;
        for (agent, bytes) in sealed {
            match bytes {
                Some(bytes) => table.insert(agent.as_str(), bytes.as_slice())?,
                None => table.remove(agent.as_str())?,
            };
        }
        let mut table = tables.open_table(DESTINATIONS)?;
        for destination in &changes.destinations {
            table.insert(destination.as_str(), ())?;
        }
        for destination in &changes.forgotten {
            table.remove(destination.as_str())?;
        }
        let mut table = tables.open_table(NUMBERS)?;
        table.insert(EPOCH, changes.epoch)?;
        let mut table = tables.open_table(GROUPS)?;
        for (name, json) in groups {
            table.insert(*name, json.as_slice())?;
        }
    }
    tables.commit()?;
    Ok(())
}

fn reseal(db: &Database, old: &Ring, new: &Ring) -> Result<(), redb::Error> {
    let tables = db.begin_write()?;
    {
        let mut table = tables.open_table(SESSIONS)?;
        let mut fresh = Vec::new();
        for entry in table.iter()? {
            let (agent, sealed) = entry?;
            let record = old.open(sealed.value());
            let again = record.and_then(|record| new.seal(&record).ok());
            fresh.extend(again.map(|bytes| (agent.value().to_owned(), bytes)));
        }
        for (agent, bytes) in fresh {
            table.insert(agent.as_str(), bytes.as_slice())?;
        }
    }
    tables.commit()?;
    Ok(())
}

impl Ring {
    fn seal(&self, record: &SessionRecord) -> Result<Vec<u8>, String> {
        let plain =
            zeroize::Zeroizing::new(serde_json::to_vec(record).map_err(|error| error.to_string())?);
        self.keys
            .seal_bytes(PURPOSE, &plain)
            .map_err(|error| error.to_string())
    }

    fn open(&self, sealed: &[u8]) -> Option<SessionRecord> {
        let mut keys = [Some(&self.keys), self.tried.as_ref(), self.before.as_ref()]
            .into_iter()
            .flatten();
        let plain = keys.find_map(|keys| keys.open_bytes(PURPOSE, sealed))?;
        serde_json::from_slice(&plain).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::database::testing::flaky;
    use crate::engine::ids::BootId;
    use crate::engine::peer::{Choice, Version, Wish};
    use crate::model::{AgentId, InstanceId, Secret};

    fn keys(key: &str) -> Keys {
        let instance = InstanceId::new("gc-1").unwrap();
        Keys::new(Some(&Secret::new(key)), None, "tandem", instance, BootId(1))
    }

    fn record(agent: &str) -> SessionRecord {
        SessionRecord {
            agent: AgentId::new(agent).unwrap(),
            version: Version {
                epoch: 7,
                rank: 0,
                owner: InstanceId::new("gc-1").unwrap(),
                counter: 1,
            },
            destination: Destination::new("desk").unwrap(),
            extension: Some("7001".into()),
            password: Secret::new("planted-secret"),
            mobile: None,
            watched: Vec::new(),
            signed_in: true,
            user: None,
            tombstone: false,
            group: String::new(),
            newest_change: None,
            node: None,
        }
    }

    fn stopped() -> KeptGroup {
        let gc2 = InstanceId::new("gc-2").unwrap();
        KeptGroup {
            name: "agents".into(),
            stopped: true,
            choice: Some(Choice {
                counter: 4,
                by: gc2.clone(),
                at: 1,
                wish: Wish::Leader { instance: gc2 },
            }),
            hold_factor: 4,
            stopped_first: true,
        }
    }

    fn change(agents: &[&str]) -> Keep {
        Keep {
            sessions: agents
                .iter()
                .map(|agent| (AgentId::new(agent).unwrap(), Some(record(agent))))
                .collect(),
            destinations: vec![
                Destination::new("desk").unwrap(),
                Destination::new("old").unwrap(),
            ],
            forgotten: Vec::new(),
            epoch: 9,
            groups: vec![stopped()],
        }
    }

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn under_another_key_everything_is_sealed_anew() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), keys(KEY)).unwrap();
        store.keep(&change(&["1001", "1002"])).unwrap();
        let other = "fedcba9876543210fedcba9876543210";
        store.rekey(&keys(other)).unwrap();
        store.keep(&change(&["1003"])).unwrap();
        drop(store);
        let kept = |key| {
            let kept = Store::open(dir.path(), keys(key)).unwrap().load().unwrap();
            (kept.sessions.len(), kept.unreadable)
        };
        assert_eq!(kept(other), (3, 0));
        assert_eq!(kept(KEY), (0, 3));
    }

    #[test]
    fn what_was_kept_is_there_after_reopening_and_sealed_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), keys(KEY)).unwrap();
        assert_eq!(store.load().unwrap().epoch, 0);
        store.keep(&change(&["1001", "1002"])).unwrap();
        let gone = Keep {
            sessions: vec![(AgentId::new("1002").unwrap(), None)],
            destinations: Vec::new(),
            forgotten: vec![Destination::new("old").unwrap()],
            epoch: 10,
            groups: Vec::new(),
        };
        store.keep(&gone).unwrap();
        drop(store);
        let bytes = std::fs::read(dir.path().join("sessions.redb")).unwrap();
        let planted = b"planted-secret";
        assert!(!bytes.windows(planted.len()).any(|part| part == planted));
        let kept = Store::open(dir.path(), keys(KEY)).unwrap().load().unwrap();
        assert_eq!(kept.sessions, [record("1001")]);
        assert_eq!(kept.destinations, [Destination::new("desk").unwrap()]);
        assert_eq!(kept.groups, [stopped()]);
        assert_eq!((kept.epoch, kept.unreadable), (10, 0));
    }

    #[test]
    fn a_full_disk_fails_writes_and_keys_and_room_brings_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let (fails, opened) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let disk = flaky(&fails, &opened);
        let store = Store::open_with(dir.path(), keys(KEY), disk).unwrap();
        store.keep(&change(&["1001"])).unwrap();
        let other = |n: u8| char::from(b'a' + n).to_string().repeat(32);
        for n in 0..3 {
            fails.store(true, Ordering::SeqCst);
            assert!(store.keep(&change(&["1002"])).is_err());
            assert!(store.keep(&change(&["1002"])).is_err(), "nor a copy");
            assert!(store.rekey(&keys(&other(n))).is_err());
            fails.store(false, Ordering::SeqCst);
            store.keep(&change(&["1003"])).unwrap();
        }
        // First with the handle that works, then with a copy that may hold any of both.
        fails.store(true, Ordering::SeqCst);
        assert!(store.rekey(&keys(&other(7))).is_err());
        fails.store(false, Ordering::SeqCst);
        store.rekey(&keys(&other(8))).unwrap();
        drop(store);
        let kept = Store::open(dir.path(), keys(&other(8))).unwrap();
        let kept = kept.load().unwrap();
        let agents: Vec<&str> = kept.sessions.iter().map(|s| s.agent.as_str()).collect();
        assert!(agents.contains(&"1001") && agents.contains(&"1003"));
        assert_eq!((kept.epoch, kept.unreadable), (9, 0));
    }

    #[test]
    fn another_key_opens_nothing_and_says_how_many() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), keys(KEY)).unwrap();
        store.keep(&change(&["1001"])).unwrap();
        drop(store);
        let other = keys("another-key-another-key-another-key");
        let kept = Store::open(dir.path(), other).unwrap().load().unwrap();
        assert_eq!((kept.sessions.len(), kept.unreadable), (0, 1));
    }

    fn no_key() -> Keys {
        let instance = InstanceId::new("gc-1").unwrap();
        Keys::new(None, None, "tandem", instance, BootId(1))
    }

    #[test]
    fn without_a_control_key_all_is_kept_under_a_key_of_the_folder_and_read_under_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), no_key()).unwrap();
        store.keep(&change(&["1001", "1002"])).unwrap();
        drop(store);
        let bytes = std::fs::read(dir.path().join("sessions.redb")).unwrap();
        let planted = b"planted-secret";
        assert!(!bytes.windows(planted.len()).any(|part| part == planted));
        for name in ["local.key", "sessions.redb"] {
            let file = std::fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
        }
        let both = [record("1001"), record("1002")];
        let kept = Store::open(dir.path(), no_key()).unwrap().load().unwrap();
        assert_eq!(kept.sessions, both);
        assert_eq!(kept.destinations.len(), 2);
        assert_eq!(kept.groups, [stopped()]);
        assert_eq!((kept.epoch, kept.unreadable), (9, 0));
        let store = Store::open(dir.path(), keys(KEY)).unwrap();
        assert_eq!(store.load().unwrap().sessions, both);
        store.keep(&change(&["1001"])).unwrap();
        drop(store);
        // From here on it is the control key that counts, for what was written since.
        std::fs::remove_file(dir.path().join("local.key")).unwrap();
        let kept = Store::open(dir.path(), keys(KEY)).unwrap().load().unwrap();
        assert_eq!(kept.sessions, [record("1001")]);
        assert_eq!((kept.epoch, kept.unreadable), (9, 1));
        assert_eq!(kept.groups, [stopped()]);
    }

    #[test]
    fn a_folders_own_key_that_is_not_whole_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("local.key");
        drop(Store::open(dir.path(), no_key()).unwrap());
        let whole = std::fs::read_to_string(&path).unwrap();
        for cut in ["", &whole[..10]] {
            std::fs::write(&path, cut).unwrap();
            for keys in [no_key(), keys(KEY)] {
                let error = Store::open(dir.path(), keys).err().unwrap().to_string();
                assert!(error.contains("local.key cannot be used"), "{error}");
                assert!(cut.is_empty() || !error.contains(cut), "{error}");
            }
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(Store::open(dir.path(), no_key()).is_ok());
    }

    #[test]
    fn a_file_that_is_no_store_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sessions.redb"), "not a store at all").unwrap();
        let error = Store::open(dir.path(), keys(KEY))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("sessions.redb"), "{error}");
    }
}
