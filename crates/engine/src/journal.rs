//! Intents and outcomes of non-idempotent commands: what is known, what is on its way to the disk
//! and to the members.
//!
//! ```text
//!   own command ─▶ intent ─┬─▶ disk here ───────────────┐
//!                          └─▶ members ─▶ their disks ──┴─▶ call ─▶ outcome ─┬─▶ disk here ─┐
//!                                                                             └─▶ members ───┴─▶ reply
//! ```
//!
//! A member that was away is told what it missed (`owed`); until it has that, its heartbeats'
//! counterpart does not list it as settled, and nobody concludes anything from its silence.

use super::Engine;
use super::Event;
use super::command::{JournalWrite, StoreCommand};
use super::ids::{JobId, JournalId, Now};
use super::ledger::Key;
use super::peer::{IntentRecord, OutcomeRecord};
use crate::model::InstanceId;

mod book;
mod heard;
mod members;

pub(super) use book::Book;
pub use book::Restored;
use book::{Entry, Pending};

impl Engine {
    /// Puts back what the journal kept. Before [`Engine::start`].
    pub fn restore_journal(&mut self, now: Now, kept: Restored) {
        self.book.lost_until = kept.lost_until;
        let heard = kept.members.into_iter().filter(|(_, heard)| *heard > 0);
        self.book.members = heard.collect();
        self.book.members.remove(&self.cfg.instance);
        for intent in kept.intents {
            if intent.until > now.wall {
                self.book.change(intent.key, |entry| {
                    entry.durable = true;
                    entry.intent = Some(intent);
                });
            }
        }
        for outcome in kept.outcomes {
            if outcome.until > now.wall {
                let record = outcome.clone();
                self.book
                    .change(outcome.key, |entry| entry.outcome = Some(outcome));
                self.ledger.learn(now, record, |_| false);
            }
        }
    }

    /// Members that must have an intent before its call: those that are there and keep a journal.
    pub(super) fn journal_members(&self) -> Vec<InstanceId> {
        self.members
            .present()
            .filter(|(_, peer)| peer.heartbeat.journal)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Members to which this one owes nothing.
    pub(super) fn settled(&self) -> Vec<InstanceId> {
        let members = self.journal_members().into_iter();
        members.filter(|id| self.book.is_settled(id)).collect()
    }

    // ---- the disk -----------------------------------------------------------------------------

    fn write(&mut self, write: JournalWrite, pending: Pending) {
        self.book.next_write += 1;
        let id = JournalId(self.book.next_write);
        self.book.writes.insert(id, pending);
        let write = Box::new(write);
        self.out.push(StoreCommand::Journal { id, write });
    }

    pub(super) fn on_journaled(&mut self, ids: &[JournalId], failure: Option<&str>) {
        if let Some(reason) = failure
            && !self.book.failing
        {
            let reason = reason.to_owned();
            self.events.push_back(Event::NotJournaled { reason });
        }
        self.book.failing = failure.is_some();
        for id in ids {
            match self.book.writes.remove(id) {
                None => self.stale("journal"),
                Some(Pending::Other) => {}
                Some(Pending::OwnIntent(job, made)) => self.intent_written(job, made, failure),
                Some(Pending::OwnOutcome(job)) => self.outcome_written(job),
                // A member whose disk fails still remembers: after a crash of both, the maker's
                // disk has the intent, and this one never takes an unknown id of a member that it
                // cannot ask for unmade.
                Some(Pending::ForeignOutcome { from, key }) => {
                    if let Some(entry) = self.book.entries.get_mut(&key) {
                        entry.durable = true;
                    }
                    let out = self.book.out.entry(from).or_default();
                    out.acked_outcomes.insert(key);
                }
                Some(Pending::ForeignIntent { from, key, made }) => {
                    self.foreign_intent_written(&from, key, made);
                }
            }
        }
    }

    pub(super) fn write_intent(&mut self, id: JobId, intent: IntentRecord) {
        let key = intent.key;
        let record = intent.clone();
        self.book.change(key, |entry| {
            *entry = Entry {
                intent: Some(record),
                ..Entry::default()
            };
        });
        for member in self.journal_members() {
            self.book.out.entry(member).or_default().intents.insert(key);
        }
        let made = intent.at;
        self.write(JournalWrite::Intent(intent), Pending::OwnIntent(id, made));
    }

    /// The same intent again, with more in it; the members have what they need.
    pub(super) fn rewrite_intent(&mut self, id: JobId, intent: IntentRecord) {
        let made = intent.at;
        self.write(JournalWrite::Intent(intent), Pending::OwnIntent(id, made));
    }

    /// `id`: the job whose reply waits for it.
    pub(super) fn write_outcome(&mut self, id: Option<JobId>, outcome: OutcomeRecord) {
        let key = outcome.key;
        let record = outcome.clone();
        self.book.change(key, |entry| {
            entry.acked.clear();
            entry.outcome = Some(record);
        });
        for member in self.journal_members() {
            let out = self.book.out.entry(member).or_default();
            out.outcomes.insert(key);
        }
        let pending = id.map_or(Pending::Other, Pending::OwnOutcome);
        self.write(JournalWrite::Outcome(outcome), pending);
    }

    /// The call was not made and will not be.
    pub(super) fn withdraw_intent(&mut self, key: &Key) {
        self.book.remove(key);
        for member in self.journal_members() {
            let out = self.book.out.entry(member).or_default();
            out.intents.remove(key);
            out.withdrawn.insert(*key);
        }
        self.write(JournalWrite::Withdraw(*key), Pending::Other);
    }
}
