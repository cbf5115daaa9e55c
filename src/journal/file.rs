//! The file: tables and transactions.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};
use serde::de::DeserializeOwned;

use crate::database::{DatabaseFile, Opener, if_written};
use crate::engine::command::JournalWrite;
use crate::engine::journal::Restored;
use crate::engine::limits;
use crate::engine::peer::{IntentRecord, OutcomeRecord};
use crate::model::InstanceId;

use super::{FILE, JournalError};

const INTENTS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("intents");
const OUTCOMES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("outcomes");
/// (remembered until, key): what is to be forgotten, the first first.
const AGES: TableDefinition<'_, (u64, [u8; 16]), ()> = TableDefinition::new("ages");
const MEMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("members");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const LOST_UNTIL: &str = "lost_until";

/// Entries forgotten in one transaction.
const PURGE: usize = 1_000;
/// Entries on disk; beyond it the first to be forgotten go early. More than the engine holds.
const MOST: u64 = 2 * limits::JOURNAL_ENTRIES as u64;
/// A file larger than this is made smaller when it is opened, bytes.
const COMPACT: u64 = 32 << 20;

/// What a journal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Intents without an outcome: calls that may have been made.
    pub open: usize,
    /// Outcomes.
    pub finished: usize,
    /// Members that are known.
    pub members: usize,
    /// Whether the file was found damaged and mended.
    pub mended: bool,
}

/// The open file.
pub(super) struct File(DatabaseFile);

impl File {
    pub(super) fn open(
        dir: &Path,
        accept_loss: bool,
        now_wall: u64,
        opener: Opener,
    ) -> Result<(Self, Restored), JournalError> {
        let path = dir.join(FILE);
        let (db, restored) = match open_and_read(&path, &opener, COMPACT) {
            Err(JournalError::Unusable { reason, .. }) if accept_loss => {
                let aside = dir.join(format!("journal.lost-{now_wall}"));
                fs::rename(&path, &aside).map_err(|error| unusable(&path, &error))?;
                tracing::warn!(
                    reason,
                    moved_to = %aside.display(),
                    "the journal cannot be used; its loss is accepted"
                );
                let db = opener(&path).map_err(|error| of_open(&path, &error))?;
                let lost_until = now_wall + limits::LEDGER_RETENTION_MS;
                note_loss(&db, lost_until).map_err(|error| unusable(&path, &error))?;
                let restored = Restored {
                    lost_until,
                    ..Restored::default()
                };
                (db, restored)
            }
            other => other?,
        };
        Ok((Self(DatabaseFile::new(path, db, opener)), restored))
    }

    /// Makes all writes durable in one transaction: all or nothing.
    pub(super) fn write(&mut self, writes: &[&JournalWrite], now_wall: u64) -> Result<(), String> {
        let result = self.0.with(|db| commit(db, writes, now_wall));
        result.map_err(|error| error.to_string())
    }
}

/// Opens the file, makes one of more than `compact` bytes smaller where that can be done, and reads
/// it.
pub(super) fn open_and_read(
    path: &Path,
    opener: &Opener,
    compact: u64,
) -> Result<(Database, Restored), JournalError> {
    let mut db = opener(path).map_err(|error| of_open(path, &error))?;
    let large = fs::metadata(path).is_ok_and(|meta| meta.len() > compact);
    if large && let Err(error) = db.compact() {
        // A full disk: what is kept is there all the same. Of a handle that has failed nothing more
        // can be had.
        tracing::warn!(%error, file = %path.display(), "the journal could not be made smaller");
        drop(db);
        db = opener(path).map_err(|error| of_open(path, &error))?;
    }
    let restored = load(&db).map_err(|error| unusable(path, &error))?;
    Ok((db, restored))
}

pub(super) fn read(path: &Path) -> Result<Restored, JournalError> {
    load(&existing(path)?).map_err(|error| unusable(path, &error))
}

pub(super) fn check(path: &Path) -> Result<Summary, JournalError> {
    let mut db = existing(path)?;
    let whole = db
        .check_integrity()
        .map_err(|error| unusable(path, &error))?;
    let restored = load(&db).map_err(|error| unusable(path, &error))?;
    let outcomes: HashSet<_> = restored.outcomes.iter().map(|o| o.key).collect();
    let finished = |intent: &&IntentRecord| outcomes.contains(&intent.key);
    Ok(Summary {
        open: restored.intents.len() - restored.intents.iter().filter(finished).count(),
        finished: restored.outcomes.len(),
        members: restored.members.len(),
        mended: !whole,
    })
}

fn existing(path: &Path) -> Result<Database, JournalError> {
    if !path.exists() {
        return Err(JournalError::Missing {
            path: path.to_owned(),
        });
    }
    Database::open(path).map_err(|error| of_open(path, &error))
}

fn of_open(path: &Path, error: &DatabaseError) -> JournalError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => JournalError::InUse {
            path: path.to_owned(),
        },
        error => unusable(path, error),
    }
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> JournalError {
    JournalError::Unusable {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn note_loss(db: &Database, until: u64) -> Result<(), redb::Error> {
    let change = db.begin_write()?;
    change.open_table(NUMBERS)?.insert(LOST_UNTIL, until)?;
    change.commit()?;
    Ok(())
}

fn commit(db: &Database, writes: &[&JournalWrite], now_wall: u64) -> Result<(), redb::Error> {
    let change = db.begin_write()?;
    {
        let mut tables = Tables::open(&change)?;
        for write in writes {
            tables.apply(write)?;
        }
        tables.purge(now_wall)?;
    }
    change.commit()?;
    Ok(())
}

/// The tables of one transaction, each opened once.
struct Tables<'change> {
    intents: Table<'change, [u8; 16], &'static [u8]>,
    outcomes: Table<'change, [u8; 16], &'static [u8]>,
    ages: Table<'change, (u64, [u8; 16]), ()>,
    members: Table<'change, &'static str, u64>,
}

impl<'change> Tables<'change> {
    fn open(change: &'change WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            intents: change.open_table(INTENTS)?,
            outcomes: change.open_table(OUTCOMES)?,
            ages: change.open_table(AGES)?,
            members: change.open_table(MEMBERS)?,
        })
    }

    fn apply(&mut self, write: &JournalWrite) -> Result<(), redb::Error> {
        match write {
            JournalWrite::Intent(intent) => {
                let bytes = encode(intent)?;
                self.intents.insert(intent.key, bytes.as_slice())?;
                // A withdrawn or lost maker's outcome says nothing of a new intent.
                self.outcomes.remove(intent.key)?;
                self.ages.insert((intent.until, intent.key), ())?;
            }
            JournalWrite::Outcome(outcome) => {
                let mut kept = outcome.clone();
                // It may hold anything that a platform says.
                kept.reply.body = None;
                let bytes = encode(&kept)?;
                self.outcomes.insert(outcome.key, bytes.as_slice())?;
                self.ages.insert((outcome.until, outcome.key), ())?;
            }
            JournalWrite::Withdraw(key) => {
                self.intents.remove(key)?;
            }
            JournalWrite::Member(id, heard) => {
                match heard {
                    // Forgotten.
                    0 => self.members.remove(id.as_str())?,
                    heard => self.members.insert(id.as_str(), *heard)?,
                };
            }
        }
        Ok(())
    }

    /// Forgets what is past its time, and what is too much.
    fn purge(&mut self, now_wall: u64) -> Result<(), redb::Error> {
        let Self {
            intents,
            outcomes,
            ages,
            ..
        } = self;
        let over = ages.len()?.saturating_sub(MOST);
        let mut gone = Vec::new();
        for entry in ages.iter()? {
            let (until, key) = entry?.0.value();
            let early = (gone.len() as u64) < over;
            if gone.len() >= PURGE || (until > now_wall && !early) {
                break;
            }
            gone.push((until, key));
        }
        if gone.is_empty() {
            return Ok(());
        }
        for (until, key) in gone {
            ages.remove((until, key))?;
            // A later entry stands for what was made to last longer.
            let old =
                |bytes: &[u8], of: fn(&[u8]) -> Option<u64>| of(bytes).is_none_or(|u| u <= until);
            let intent: fn(&[u8]) -> Option<u64> =
                |bytes| Some(decode::<IntentRecord>(bytes)?.until);
            let outcome: fn(&[u8]) -> Option<u64> =
                |bytes| Some(decode::<OutcomeRecord>(bytes)?.until);
            if intents
                .get(key)?
                .is_some_and(|kept| old(kept.value(), intent))
            {
                intents.remove(key)?;
            }
            if outcomes
                .get(key)?
                .is_some_and(|kept| old(kept.value(), outcome))
            {
                outcomes.remove(key)?;
            }
        }
        Ok(())
    }
}

fn load(db: &Database) -> Result<Restored, redb::Error> {
    let tables = db.begin_read()?;
    let mut restored = Restored {
        intents: records(&tables, INTENTS)?,
        outcomes: records(&tables, OUTCOMES)?,
        ..Restored::default()
    };
    if let Some(table) = if_written(tables.open_table(MEMBERS))? {
        for entry in table.iter()? {
            let (id, heard) = entry?;
            if let Ok(id) = InstanceId::new(id.value()) {
                restored.members.push((id, heard.value()));
            }
        }
    }
    if let Some(table) = if_written(tables.open_table(NUMBERS))? {
        restored.lost_until = table.get(LOST_UNTIL)?.map_or(0, |until| until.value());
    }
    Ok(restored)
}

fn records<T: DeserializeOwned>(
    tables: &ReadTransaction,
    definition: TableDefinition<'_, [u8; 16], &'static [u8]>,
) -> Result<Vec<T>, redb::Error> {
    let mut found = Vec::new();
    if let Some(table) = if_written(tables.open_table(definition))? {
        for entry in table.iter()? {
            let (_, bytes) = entry?;
            // What a later version wrote and this one cannot read would be a forgotten call.
            let record = serde_json::from_slice(bytes.value())
                .map_err(|error| redb::Error::Corrupted(format!("a record: {error}")))?;
            found.push(record);
        }
    }
    Ok(found)
}

fn encode<T: serde::Serialize>(record: &T) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(record).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}
