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

use crate::api::command::{JournalWrite, Output, StoreCommand};
use crate::api::ids::{JobId, JournalId, Now};
use crate::cluster::members::Members;
use crate::durable::keep::late_words;
use crate::jobs::ledger::Key;
use crate::model::InstanceId;
use crate::peer::{IntentRecord, IntentRefusal, OutcomeRecord};
use crate::{Engine, Event, limits};

mod book;
mod heard;
mod members;

pub(crate) use book::Book;
pub use book::Restored;
use book::{Entry, Pending};

impl Engine {
    /// Puts back what the journal kept. Before [`Engine::start`].
    pub fn restore_journal(&mut self, now: Now, kept: Restored) {
        // However wrong the clock was when it was lost.
        let longest = now.wall + limits::LEDGER_RETENTION_MS;
        self.book.lost_until = kept.lost_until.min(longest);
        for (id, heard) in kept.members {
            if heard > 0 && id != self.cfg.instance {
                self.book.restore_member(id, heard, now);
            }
        }
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

    /// Members to which this one owes nothing.
    pub(crate) fn settled(&self) -> Vec<InstanceId> {
        let members = self.members.journaling().into_iter();
        members.filter(|id| self.book.is_settled(id)).collect()
    }

    // ---- the disk -----------------------------------------------------------------------------

    pub(crate) fn on_journaled(&mut self, ids: &[JournalId], failure: Option<&str>) {
        if let Some(reason) = failure
            && !self.book.failing
        {
            let reason = reason.to_owned();
            self.out.tell(Event::NotJournaled { reason });
        }
        self.book.failing = failure.is_some();
        for id in ids {
            match self.book.writes.remove(id).map(|(pending, _)| pending) {
                None => self.stale("journal"),
                Some(Pending::Other) => {}
                Some(Pending::Member(id)) if failure.is_some() => self.book.member_unkept(&id),
                Some(Pending::Member(_)) => {}
                Some(Pending::OwnIntent(job, made)) => self.intent_written(job, made, failure),
                Some(Pending::OwnOutcome(job)) => self.outcome_written(job),
                // A member whose disk fails still remembers: after a crash of both, the maker's
                // disk has the intent, and this one never takes an unknown id of a member that it
                // cannot ask for unmade. After its own crash it is told again: so it says that.
                Some(Pending::ForeignOutcome { from, key }) => {
                    self.book.note_durable(&key);
                    self.journal().ack_outcome(&from, key, failure.is_none());
                }
                Some(Pending::ForeignIntent { from, key, made }) => {
                    self.foreign_intent_written(&from, key, made, failure.is_none());
                }
            }
        }
    }

    /// A disk that hangs is one that fails: nothing waits for its word for longer, here or at the
    /// members. What it takes later is known as not taken, and told again where that matters.
    pub(crate) fn look_at_disk(&mut self) {
        if self.cluster.pause.is_open() {
            return;
        }
        let since = self.now.mono.saturating_sub(limits::DISK_WAIT_MS);
        let writes = self.book.writes.iter();
        let late = writes.take_while(|(_, (_, at))| *at <= since && since > 0);
        let late: Vec<JournalId> = late.map(|(id, _)| *id).collect();
        if !late.is_empty() {
            let words = late_words();
            self.on_journaled(&late, Some(&words));
            self.look_at_waiting();
        }
    }
}

/// What a record may change: the book, and what goes out of it to the disk and the members.
pub(crate) struct Journal<'a> {
    book: &'a mut Book,
    members: &'a Members,
    out: &'a mut Output,
    /// Monotonic milliseconds.
    now: u64,
}

impl Engine {
    pub(crate) fn journal(&mut self) -> Journal<'_> {
        Journal {
            book: &mut self.book,
            members: &self.members,
            out: &mut self.out,
            now: self.now.mono,
        }
    }
}

impl Journal<'_> {
    fn write(&mut self, write: JournalWrite, pending: Pending) {
        self.book.next_write += 1;
        let id = JournalId(self.book.next_write);
        self.book.writes.insert(id, (pending, self.now));
        let write = Box::new(write);
        self.out.push(StoreCommand::Journal { id, write });
    }

    pub(crate) fn write_intent(&mut self, id: JobId, intent: IntentRecord) {
        let key = intent.key;
        let record = intent.clone();
        self.book.make_anew(&key);
        self.book.change(key, |entry| {
            *entry = Entry {
                intent: Some(record),
                ..Entry::default()
            };
        });
        for member in self.members.journaling() {
            self.book.out.entry(member).or_default().intents.insert(key);
        }
        let made = intent.at;
        self.write(JournalWrite::Intent(intent), Pending::OwnIntent(id, made));
    }

    /// The same intent again, with more in it; the members have what they need.
    pub(crate) fn rewrite_intent(&mut self, id: JobId, intent: IntentRecord) {
        let made = intent.at;
        self.write(JournalWrite::Intent(intent), Pending::OwnIntent(id, made));
    }

    /// `id`: the job whose reply waits for it.
    pub(crate) fn write_outcome(&mut self, id: Option<JobId>, outcome: OutcomeRecord) {
        let key = outcome.key;
        let record = outcome.clone();
        self.book.change(key, |entry| {
            entry.nobody_has();
            entry.outcome = Some(record);
        });
        for member in self.members.journaling() {
            let out = self.book.out.entry(member).or_default();
            out.outcomes.insert(key);
        }
        let pending = id.map_or(Pending::Other, Pending::OwnOutcome);
        self.write(JournalWrite::Outcome(outcome), pending);
    }

    /// An outcome for this disk alone.
    pub(crate) fn keep_outcome(&mut self, outcome: OutcomeRecord) {
        let record = outcome.clone();
        self.book
            .change(outcome.key, |entry| entry.outcome = Some(record));
        self.write(JournalWrite::Outcome(outcome), Pending::Other);
    }

    /// The call was not made and will not be.
    pub(crate) fn withdraw_intent(&mut self, key: &Key) {
        let made = self.book.take_back(key, self.now);
        for member in self.members.journaling() {
            let out = self.book.out.entry(member).or_default();
            out.intents.remove(key);
            out.withdrawn.insert(*key, made);
        }
        self.write(JournalWrite::Withdraw(*key), Pending::Other);
    }

    /// A member is told that its intent is known here. `kept`: on disk.
    fn ack_intent(&mut self, to: &InstanceId, key: Key, made: u64, kept: bool) {
        let out = self.book.out.entry(to.clone()).or_default();
        out.acked_intents.insert(key, made);
        out.note_kept(key, kept);
    }

    /// Likewise of an outcome.
    fn ack_outcome(&mut self, to: &InstanceId, key: Key, kept: bool) {
        let out = self.book.out.entry(to.clone()).or_default();
        out.acked_outcomes.insert(key);
        out.note_kept(key, kept);
    }

    /// A member is told that its intent is not taken.
    fn refuse_intent(&mut self, to: &InstanceId, key: Key, why: IntentRefusal) {
        let out = self.book.out.entry(to.clone()).or_default();
        out.refused.push((key, why));
    }
}
