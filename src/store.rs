//! The store in `data.dir`: sessions, destinations and the epoch survive a restart.
//!
//! One redb file; every session is sealed under `control.key`. Without a key nothing is kept, as
//! nothing could be sealed.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::engine::command::Keep;
use crate::engine::peer::SessionRecord;
use crate::model::Destination;
use crate::wire::control::Keys;

const SESSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sessions");
const DESTINATIONS: TableDefinition<'_, &str, ()> = TableDefinition::new("destinations");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const EPOCH: &str = "epoch";
const PURPOSE: &str = "session";

/// Destinations that are kept; the engine itself knows no more.
const MAX_DESTINATIONS: usize = crate::engine::limits::DESTINATIONS;

/// Why the store cannot be used. Nothing was changed on disk.
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
}

/// What was kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// Sessions.
    pub sessions: Vec<SessionRecord>,
    /// Client destinations.
    pub destinations: Vec<Destination>,
    /// Highest fencing epoch seen.
    pub epoch: u64,
    /// Sessions that could not be opened: sealed under another key, or damaged.
    pub unreadable: usize,
}

/// An open store.
pub struct Store {
    db: Database,
    path: PathBuf,
    keys: Keys,
}

impl Store {
    /// Opens or creates the store of a data folder.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be used.
    pub fn open(dir: &Path, keys: Keys) -> Result<Self, StoreError> {
        let path = dir.join("sessions.redb");
        let db = Database::create(&path).map_err(|error| StoreError::File {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        Ok(Self { db, path, keys })
    }

    /// Everything kept.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn load(&self) -> Result<Kept, StoreError> {
        self.read().map_err(|error| self.failed(&error))
    }

    fn read(&self) -> Result<Kept, redb::Error> {
        let mut kept = Kept::default();
        let tables = self.db.begin_read()?;
        if let Some(table) = existing(tables.open_table(SESSIONS))? {
            for entry in table.iter()? {
                let (_, sealed) = entry?;
                match self.open_record(sealed.value()) {
                    Some(record) => kept.sessions.push(record),
                    None => kept.unreadable += 1,
                }
            }
        }
        if let Some(table) = existing(tables.open_table(DESTINATIONS))? {
            for entry in table.iter()?.take(MAX_DESTINATIONS) {
                let (name, ()) = {
                    let (name, unit) = entry?;
                    (name.value().to_owned(), unit.value())
                };
                kept.destinations.extend(Destination::new(&name).ok());
            }
        }
        if let Some(table) = existing(tables.open_table(NUMBERS))? {
            kept.epoch = table.get(EPOCH)?.map_or(0, |epoch| epoch.value());
        }
        Ok(kept)
    }

    /// Makes changes durable: they are on disk when this returns.
    ///
    /// # Errors
    /// In words; nothing of the changes is kept then.
    pub fn keep(&self, changes: &Keep) -> Result<(), String> {
        let mut sealed = Vec::with_capacity(changes.sessions.len());
        for (agent, record) in &changes.sessions {
            let bytes = record.as_ref().map(|record| self.seal_record(record));
            sealed.push((agent, bytes.transpose()?));
        }
        self.write(changes, &sealed)
            .map_err(|error| self.failed(&error).to_string())
    }

    fn write(
        &self,
        changes: &Keep,
        sealed: &[(&crate::model::AgentId, Option<Vec<u8>>)],
    ) -> Result<(), redb::Error> {
        let tables = self.db.begin_write()?;
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
            let mut table = tables.open_table(NUMBERS)?;
            table.insert(EPOCH, changes.epoch)?;
        }
        tables.commit()?;
        Ok(())
    }

    fn seal_record(&self, record: &SessionRecord) -> Result<Vec<u8>, String> {
        let plain =
            zeroize::Zeroizing::new(serde_json::to_vec(record).map_err(|error| error.to_string())?);
        self.keys
            .seal_bytes(PURPOSE, &plain)
            .map_err(|error| error.to_string())
    }

    fn open_record(&self, sealed: &[u8]) -> Option<SessionRecord> {
        let plain = self.keys.open_bytes(PURPOSE, sealed)?;
        serde_json::from_slice(&plain).ok()
    }

    fn failed(&self, error: &redb::Error) -> StoreError {
        StoreError::File {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }
}

/// A table that was never written does not exist; that is no error.
fn existing<T>(table: Result<T, redb::TableError>) -> Result<Option<T>, redb::Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::BootId;
    use crate::engine::peer::Version;
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
        }
    }

    fn change(agents: &[&str]) -> Keep {
        Keep {
            sessions: agents
                .iter()
                .map(|agent| (AgentId::new(agent).unwrap(), Some(record(agent))))
                .collect(),
            destinations: vec![Destination::new("desk").unwrap()],
            epoch: 9,
        }
    }

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn what_was_kept_is_there_after_reopening_and_sealed_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), keys(KEY)).unwrap();
        assert_eq!(store.load().unwrap().epoch, 0);
        store.keep(&change(&["1001", "1002"])).unwrap();
        let gone = Keep {
            sessions: vec![(AgentId::new("1002").unwrap(), None)],
            destinations: Vec::new(),
            epoch: 10,
        };
        store.keep(&gone).unwrap();
        drop(store);
        let bytes = std::fs::read(dir.path().join("sessions.redb")).unwrap();
        let planted = b"planted-secret";
        assert!(!bytes.windows(planted.len()).any(|part| part == planted));
        let kept = Store::open(dir.path(), keys(KEY)).unwrap().load().unwrap();
        assert_eq!(kept.sessions, [record("1001")]);
        assert_eq!(kept.destinations.len(), 1);
        assert_eq!((kept.epoch, kept.unreadable), (10, 0));
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
