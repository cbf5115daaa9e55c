//! What became of commands: a late duplicate is answered, not run.
//!
//! Keyed by (addressee, command, id). Bounded in number and age; an entry of a command that is
//! still running is never forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::wire::command::ClientCommand;
use crate::wire::reply::{Outcome, Reply};

use crate::api::ids::{JobId, Now};
use crate::api::limits;
use crate::peer::OutcomeRecord;

/// Digest of (addressee, command, id).
pub type Key = [u8; 16];

/// What is known of a command id.
#[derive(Debug, Clone)]
pub enum Known {
    /// Never seen here.
    No,
    /// Being worked on.
    Running(JobId),
    /// Finished, with this reply.
    Finished(Arc<Reply>),
    /// The same id came with another body.
    OtherBody,
}

#[derive(Debug)]
enum State {
    Running(JobId),
    Finished(Arc<Reply>),
}

#[derive(Debug)]
struct Entry {
    body: [u8; 8],
    until: u64,
    state: State,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    entries: HashMap<Key, Entry>,
    /// Finished entries in the order in which they were finished.
    order: VecDeque<Key>,
    bound: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::with_bound(limits::LEDGER_ENTRIES)
    }
}

/// Key and short body digest of a command, where it has an id.
#[must_use]
pub fn key_of(command: &ClientCommand) -> Option<(Key, [u8; 8])> {
    let identity = command.identity.as_deref()?;
    let key = digest(command.addressee.as_str(), command.spec.name, identity);
    let mut body = [0; 8];
    body.copy_from_slice(&command.body_hash[..8]);
    Some((key, body))
}

/// The key of a command with this id.
#[must_use]
pub fn digest(addressee: &str, command: &str, id: &str) -> Key {
    let mut hash = Sha256::new();
    for part in [addressee, command, id] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut key = Key::default();
    key.copy_from_slice(&digest[..16]);
    key
}

/// How long a peer's outcome is remembered: its clock may be wrong.
fn until(now: Now, record: &OutcomeRecord) -> u64 {
    record.until.min(now.wall + 25 * 60 * 60 * 1000)
}

impl Ledger {
    /// An empty ledger of at most `bound` finished entries.
    #[must_use]
    pub fn with_bound(bound: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            bound,
        }
    }

    /// What is known of an id.
    #[must_use]
    pub fn look_up(&self, key: &Key, body: [u8; 8]) -> Known {
        match self.entries.get(key) {
            None => Known::No,
            Some(entry) if entry.body != body => Known::OtherBody,
            Some(entry) => match &entry.state {
                State::Running(job) => Known::Running(*job),
                State::Finished(reply) => Known::Finished(reply.clone()),
            },
        }
    }

    /// The job that works on it.
    #[must_use]
    pub fn running(&self, key: &Key) -> Option<JobId> {
        match self.entries.get(key)?.state {
            State::Running(job) => Some(job),
            State::Finished(_) => None,
        }
    }

    /// Its outcome, as it is told to peers.
    #[must_use]
    pub fn record(&self, key: &Key) -> Option<OutcomeRecord> {
        let entry = self.entries.get(key)?;
        match &entry.state {
            State::Running(_) => None,
            State::Finished(reply) => Some(OutcomeRecord {
                key: *key,
                body: entry.body,
                until: entry.until,
                reply: reply.as_ref().clone(),
            }),
        }
    }

    /// What was in doubt is known.
    pub fn resolve(&mut self, key: &Key, reply: Arc<Reply>) {
        if let Some(entry) = self.entries.get_mut(key)
            && matches!(entry.state, State::Finished(_))
        {
            entry.state = State::Finished(reply);
        }
    }

    /// A command is being worked on.
    pub fn start(&mut self, key: Key, body: [u8; 8], job: JobId, deadline: u64) {
        self.entries.insert(
            key,
            Entry {
                body,
                until: deadline,
                state: State::Running(job),
            },
        );
    }

    /// A command that was being worked on was given up without an outcome: its delivery went back.
    pub fn forget(&mut self, key: &Key) {
        if matches!(
            self.entries.get(key),
            Some(Entry {
                state: State::Running(_),
                ..
            })
        ) {
            self.entries.remove(key);
        }
    }

    /// A command is finished. Returns the record for the peers, and whether an older one had to
    /// be forgotten early.
    pub fn finish(
        &mut self,
        now: Now,
        key: Key,
        reply: Arc<Reply>,
    ) -> Option<(OutcomeRecord, bool)> {
        let entry = self.entries.get_mut(&key)?;
        entry.until = entry.until.max(now.wall + limits::LEDGER_RETENTION_MS);
        entry.state = State::Finished(reply.clone());
        let record = OutcomeRecord {
            key,
            body: entry.body,
            until: entry.until,
            reply: reply.as_ref().clone(),
        };
        self.order.push_back(key);
        let overflow = self.trim(now);
        Some((record, overflow))
    }

    /// At most `max` of the newest outcomes, the newest first: what a peer may not have heard.
    #[must_use]
    pub fn newest(&self, now: Now, max: usize) -> Vec<OutcomeRecord> {
        let keys = self.order.iter().rev().take(max);
        keys.filter_map(|key| {
            let entry = self.entries.get(key)?;
            let State::Finished(reply) = &entry.state else {
                return None;
            };
            (entry.until > now.wall).then(|| OutcomeRecord {
                key: *key,
                body: entry.body,
                until: entry.until,
                reply: reply.as_ref().clone(),
            })
        })
        .collect()
    }

    /// A peer's outcome. A definite outcome is never replaced, nor is a command that was started
    /// here; one that only waits (`started` says so) is answered with it.
    pub fn learn(&mut self, now: Now, record: OutcomeRecord, started: impl Fn(JobId) -> bool) {
        if record.until <= now.wall {
            return;
        }
        match self.entries.get(&record.key) {
            None => {}
            Some(Entry {
                state: State::Running(job),
                body,
                ..
            }) if *body == record.body && !started(*job) => {}
            Some(_) => return self.join(now, record),
        }
        self.entries.insert(
            record.key,
            Entry {
                body: record.body,
                until: until(now, &record),
                state: State::Finished(Arc::new(record.reply)),
            },
        );
        self.order.push_back(record.key);
        self.trim(now);
    }

    /// Another account of a command that is known: a definite outcome takes the place of one in
    /// doubt, else the first stands. A client may have been told it.
    fn join(&mut self, now: Now, record: OutcomeRecord) {
        let Some(entry) = self.entries.get_mut(&record.key) else {
            return;
        };
        let State::Finished(known) = &entry.state else {
            return;
        };
        if entry.body != record.body {
            return;
        }
        entry.until = entry.until.max(until(now, &record));
        if known.outcome == Outcome::InDoubt && record.reply.outcome != Outcome::InDoubt {
            entry.state = State::Finished(Arc::new(record.reply));
        }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets what is old; returns whether something young had to go.
    fn trim(&mut self, now: Now) -> bool {
        let mut early = false;
        while let Some(key) = self.order.front().copied() {
            let expired = self
                .entries
                .get(&key)
                .is_none_or(|entry| entry.until <= now.wall);
            let over = self.order.len() > self.bound;
            if !expired && !over {
                break;
            }
            early |= !expired;
            self.order.pop_front();
            self.entries.remove(&key);
        }
        early
    }
}
