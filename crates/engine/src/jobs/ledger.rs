//! What became of commands: a late duplicate is answered, not run.
//!
//! Keyed by (addressee, command, id). Bounded in number and age; an entry of a command that is
//! still running is never forgotten.
//!
//! Millions are remembered, so an entry is of fixed size: what replies have in common (all of one
//! agent's, all that ended alike) is kept once, in `shared`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::model::Json;
use crate::wire::command::ClientCommand;
use crate::wire::reply::{Outcome, Reply};

use super::shared::Shared;
use crate::api::ids::{JobId, Now};
use crate::api::limits;
use crate::peer::OutcomeRecord;

/// Digest of (addressee, command, id).
pub type Key = [u8; 16];

/// Stands for an error's words that are not remembered.
const FORGOTTEN_WORDS: &str = "as it was answered before";

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

/// A command that is being worked on.
#[derive(Debug)]
struct Running {
    body: [u8; 8],
    deadline: u64,
    job: JobId,
}

/// A finished command: 24 bytes.
#[derive(Debug, Clone, Copy)]
struct Entry {
    body: [u8; 8],
    until: u64,
    /// In `Ledger::ends`.
    end: u32,
    /// In `Ledger::addressees`.
    addressee: u32,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    running: HashMap<Key, Running>,
    finished: HashMap<Key, Entry>,
    /// Finished ones that are forgotten ten minutes later, in that order.
    short: VecDeque<(u64, Key)>,
    /// Those that are remembered for longer, for a late deadline.
    long: BTreeSet<(u64, Key)>,
    /// The newest, whatever their time.
    recent: VecDeque<Key>,
    /// How commands ended: a reply without addressee and body.
    ends: Shared<Reply>,
    addressees: Shared<String>,
    /// Bodies of the replies that have one.
    bodies: HashMap<Key, Json>,
    /// Those that were in doubt and whose clients have been told since.
    resolved: BTreeSet<Key>,
    bound: usize,
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
    record.until.min(now.wall + limits::REMEMBERED_MOST_MS)
}

impl Ledger {
    /// An empty ledger of at most `bound` finished entries.
    #[must_use]
    pub fn with_bound(bound: usize) -> Self {
        Self {
            running: HashMap::new(),
            finished: HashMap::new(),
            short: VecDeque::new(),
            long: BTreeSet::new(),
            recent: VecDeque::new(),
            ends: Shared::default(),
            addressees: Shared::default(),
            bodies: HashMap::new(),
            resolved: BTreeSet::new(),
            bound,
        }
    }

    /// What is known of an id. What is older than the promise is not: clients may count their
    /// commands anew.
    #[must_use]
    pub fn look_up(&self, now: Now, key: &Key, body: [u8; 8]) -> Known {
        if let Some(running) = self.running.get(key) {
            return match running.body == body {
                true => Known::Running(running.job),
                false => Known::OtherBody,
            };
        }
        let entry = self.finished.get(key);
        match entry.filter(|entry| entry.until > now.wall) {
            None => Known::No,
            Some(entry) if entry.body != body => Known::OtherBody,
            Some(entry) => match self.reply(key, entry) {
                Some(reply) => Known::Finished(Arc::new(reply)),
                None => Known::No,
            },
        }
    }

    /// The job that works on it.
    #[must_use]
    pub fn running(&self, key: &Key) -> Option<JobId> {
        self.running.get(key).map(|running| running.job)
    }

    /// Its outcome, as it is told to peers.
    #[must_use]
    pub fn record(&self, key: &Key) -> Option<OutcomeRecord> {
        let entry = self.finished.get(key)?;
        Some(OutcomeRecord {
            key: *key,
            body: entry.body,
            until: entry.until,
            reply: self.reply(key, entry)?,
            resolved: self.resolved.contains(key),
        })
    }

    fn reply(&self, key: &Key, entry: &Entry) -> Option<Reply> {
        let mut reply = self.ends.get(entry.end)?.clone();
        reply.id.clone_from(self.addressees.get(entry.addressee)?);
        reply.body = self.bodies.get(key).cloned();
        Some(reply)
    }

    /// What was in doubt is known.
    pub fn resolve(&mut self, key: &Key, reply: &Reply) {
        if let Some(entry) = self.finished.get(key).copied() {
            self.put(*key, entry.body, entry.until, reply);
        }
    }

    /// The client of what was in doubt has been told what became of it.
    pub fn note_resolved(&mut self, key: &Key) {
        if self.finished.contains_key(key) {
            self.resolved.insert(*key);
        }
    }

    /// Whether it has been told.
    #[must_use]
    pub fn is_resolved(&self, key: &Key) -> bool {
        self.resolved.contains(key)
    }

    /// A command is being worked on.
    pub fn start(&mut self, key: Key, body: [u8; 8], job: JobId, deadline: u64) {
        self.remove(&key);
        self.running.insert(
            key,
            Running {
                body,
                deadline,
                job,
            },
        );
    }

    /// A command that was being worked on was given up without an outcome: its delivery went back.
    pub fn forget(&mut self, key: &Key) {
        self.running.remove(key);
    }

    /// A command is finished. Returns the record for the peers, and for how long outcomes are
    /// remembered, milliseconds, where an older one had to be forgotten early.
    ///
    /// `now` has the time to forget by, `wall` what the wall clock says: where that was set forward,
    /// the former follows it later.
    pub fn finish(
        &mut self,
        now: Now,
        wall: u64,
        key: Key,
        reply: &Reply,
    ) -> Option<(OutcomeRecord, Option<u64>)> {
        let (body, until) = match self.running.remove(&key) {
            Some(running) => (running.body, running.deadline),
            None => {
                let entry = self.finished.get(&key)?;
                (entry.body, entry.until)
            }
        };
        let until = until.max(now.wall.max(wall) + limits::LEDGER_RETENTION_MS);
        self.put(key, body, until, reply);
        self.queue(now, key);
        let reply = reply.clone();
        let record = OutcomeRecord {
            key,
            body,
            until,
            reply,
            resolved: false,
        };
        Some((record, self.trim(now)))
    }

    /// At most `max` of the newest outcomes, the newest first: what a peer may not have heard.
    #[must_use]
    pub fn newest(&self, now: Now, max: usize) -> Vec<OutcomeRecord> {
        let keys = self.recent.iter().rev().take(max);
        let known = keys.filter_map(|key| self.record(key));
        known.filter(|record| record.until > now.wall).collect()
    }

    /// A peer's outcome. A definite outcome is never replaced, nor is a command that was started
    /// here; one that only waits (`started` says so) is answered with it.
    pub fn learn(&mut self, now: Now, record: OutcomeRecord, started: impl Fn(JobId) -> bool) {
        if record.until <= now.wall {
            return;
        }
        if let Some(running) = self.running.get(&record.key) {
            if running.body != record.body || started(running.job) {
                return;
            }
            self.running.remove(&record.key);
        } else if let Some(known) = self.finished.get(&record.key)
            && known.until > now.wall
        {
            return self.join(now, &record);
        }
        let until = until(now, &record);
        self.put(record.key, record.body, until, &record.reply);
        if record.resolved {
            self.note_resolved(&record.key);
        }
        self.queue(now, record.key);
        self.trim(now);
    }

    /// Another account of a command that is known: a definite outcome takes the place of one in
    /// doubt, else the first stands. A client may have been told it.
    fn join(&mut self, now: Now, record: &OutcomeRecord) {
        let Some(entry) = self.finished.get_mut(&record.key) else {
            return;
        };
        if entry.body != record.body {
            return;
        }
        entry.until = entry.until.max(until(now, record));
        let entry = *entry;
        let known = self.ends.get(entry.end).map(|end| end.outcome);
        if known == Some(Outcome::InDoubt) && record.reply.outcome != Outcome::InDoubt {
            self.put(record.key, entry.body, entry.until, &record.reply);
        }
        if record.resolved {
            self.note_resolved(&record.key);
        }
    }

    fn put(&mut self, key: Key, body: [u8; 8], until: u64, reply: &Reply) {
        let end = self.ends.take(&self.end_of(reply));
        let addressee = self.addressees.take(&reply.id);
        self.remove(&key);
        if let Some(text) = &reply.body
            && self.bodies.len() < limits::LEDGER_BODIES
        {
            self.bodies.insert(key, text.clone());
        }
        let entry = Entry {
            body,
            until,
            end,
            addressee,
        };
        self.finished.insert(key, entry);
    }

    /// Notes when an outcome is to be forgotten.
    fn queue(&mut self, now: Now, key: Key) {
        let until = self.finished.get(&key).map_or(0, |entry| entry.until);
        if until > now.wall + limits::LEDGER_RETENTION_MS {
            self.long.insert((until, key));
        } else {
            self.short.push_back((until, key));
        }
        if self.recent.len() >= limits::OUTCOMES_TOLD_AGAIN {
            self.recent.pop_front();
        }
        self.recent.push_back(key);
    }

    /// What other replies may have in common with this one. Words that no other has are not worth
    /// their memory where there are many of them.
    fn end_of(&self, reply: &Reply) -> Reply {
        let mut error = reply.error.clone();
        if self.ends.len() >= limits::LEDGER_ENDS
            && let Some(error) = &mut error
        {
            FORGOTTEN_WORDS.clone_into(&mut error.message);
        }
        Reply {
            id: String::new(),
            body: None,
            error,
            command: reply.command.clone(),
            outcome: reply.outcome,
            status: reply.status,
            instance: reply.instance.clone(),
            downstream: reply.downstream.clone(),
            retry_after_ms: reply.retry_after_ms,
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.finished.remove(key) {
            self.ends.release(entry.end);
            self.addressees.release(entry.addressee);
            // Few have one: most look-ups would be for nothing.
            if !self.bodies.is_empty() {
                self.bodies.remove(key);
            }
            if !self.resolved.is_empty() {
                self.resolved.remove(key);
            }
        }
    }

    /// Number of different ends and of different addressees.
    #[cfg(test)]
    pub(crate) fn shared(&self) -> (usize, usize) {
        (self.ends.len(), self.addressees.len())
    }

    /// Number of entries, those of running commands included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.running.len() + self.finished.len()
    }

    /// Forgets what is old; returns for how long outcomes are remembered, milliseconds, where
    /// something young had to go.
    fn trim(&mut self, now: Now) -> Option<u64> {
        while let Some((until, key)) = self.short.front().copied()
            && until <= now.wall
        {
            self.short.pop_front();
            self.forget_old(now, until, key);
        }
        while let Some((until, key)) = self.long.first().copied()
            && until <= now.wall
        {
            self.long.pop_first();
            self.forget_old(now, until, key);
        }
        let mut shrunk = None;
        while self.finished.len() > self.bound {
            // Late deadlines do not take more than half of the room from the others.
            let late = 2 * self.long.len() > self.bound || self.short.is_empty();
            let gone = match late {
                true => self.long.pop_last(),
                false => self.short.pop_front(),
            };
            let Some((until, key)) = gone else {
                break;
            };
            let left = until.saturating_sub(now.wall);
            let kept = limits::LEDGER_RETENTION_MS.saturating_sub(left);
            if self.finished.contains_key(&key) {
                shrunk = Some(shrunk.map_or(kept, |least: u64| least.min(kept)));
            }
            self.remove(&key);
        }
        shrunk
    }

    /// An entry's time has come, unless it was given more since.
    fn forget_old(&mut self, now: Now, queued: u64, key: Key) {
        match self.finished.get(&key).map(|entry| entry.until) {
            Some(until) if until <= now.wall => self.remove(&key),
            Some(until) if until > queued => {
                self.long.insert((until, key));
            }
            _ => {}
        }
    }
}
