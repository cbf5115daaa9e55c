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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::model::InstanceId;
use crate::wire::reply::Outcome;

use super::command::{Command, JournalWrite};
use super::ids::{BootId, JobId, JournalId, Now};
use super::jobs::State;
use super::ledger::{Key, Known};
use super::peer::{IntentRecord, IntentRefusal, OutcomeRecord, PeerMessage};
use super::timer::Timer;
use super::{Engine, Event, limits};

/// What is known of one journaled command.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub intent: Option<IntentRecord>,
    pub outcome: Option<OutcomeRecord>,
    /// Members that have the newest of the two.
    pub acked: BTreeSet<InstanceId>,
    /// Whether the intent is on disk here.
    pub durable: bool,
}

impl Entry {
    fn until(&self) -> u64 {
        let intent = self.intent.as_ref().map_or(0, |intent| intent.until);
        let outcome = self.outcome.as_ref().map_or(0, |outcome| outcome.until);
        intent.max(outcome)
    }
}

/// What a write to the disk was for.
#[derive(Debug)]
enum Pending {
    OwnIntent(JobId),
    OwnOutcome(JobId),
    /// A member's record: it is told when it is durable.
    Foreign {
        from: InstanceId,
        key: Key,
        outcome: bool,
    },
    Other,
}

/// Records on their way to one member.
#[derive(Debug, Default)]
struct Outgoing {
    intents: BTreeSet<Key>,
    outcomes: BTreeSet<Key>,
    withdrawn: BTreeSet<Key>,
    acked_intents: BTreeSet<Key>,
    acked_outcomes: BTreeSet<Key>,
    refused: Vec<(Key, IntentRefusal)>,
}

/// What a member that was away has not been told yet.
#[derive(Debug, Default)]
struct Owed {
    keys: BTreeSet<Key>,
    under_way: BTreeSet<Key>,
    sent_at: u64,
}

/// What the journal had kept.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Intents, also of commands that have an outcome.
    pub intents: Vec<IntentRecord>,
    /// Outcomes.
    pub outcomes: Vec<OutcomeRecord>,
    /// Members, and when each was heard last (milliseconds since the epoch).
    pub members: Vec<(InstanceId, u64)>,
    /// A journal was lost: until then (milliseconds since the epoch) it proves nothing that an id
    /// is not in it.
    pub lost_until: u64,
}

/// The journal as the engine knows it.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) entries: BTreeMap<Key, Entry>,
    by_age: BTreeSet<(u64, Key)>,
    writes: BTreeMap<JournalId, Pending>,
    next_write: u64,
    failing: bool,
    /// Members that were ever heard.
    pub(super) members: BTreeMap<InstanceId, u64>,
    pub(super) lost_until: u64,
    out: BTreeMap<InstanceId, Outgoing>,
    owed: BTreeMap<InstanceId, Owed>,
    flushed_at: u64,
    /// Own heartbeats and when they were sent, the latest last.
    beats: VecDeque<(u64, u64)>,
    /// Jobs that wait for evidence, acknowledgements or the disk.
    pub(super) waiting: BTreeSet<JobId>,
}

impl Book {
    /// The intent of a command whose outcome nobody has told.
    pub(super) fn open_intent(&self, key: &Key) -> Option<&IntentRecord> {
        let entry = self.entries.get(key)?;
        entry.intent.as_ref().filter(|_| entry.outcome.is_none())
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= limits::JOURNAL_ENTRIES
    }

    /// Changes an entry, which is made where it is missing.
    fn change(&mut self, key: Key, f: impl FnOnce(&mut Entry)) {
        let entry = self.entries.entry(key).or_default();
        let before = entry.until();
        f(entry);
        let after = entry.until();
        self.by_age.remove(&(before, key));
        self.by_age.insert((after, key));
        while self.entries.len() > limits::JOURNAL_ENTRIES {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                return;
            };
            self.entries.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_age.remove(&(entry.until(), *key));
        }
        for owed in self.owed.values_mut() {
            owed.keys.remove(key);
            owed.under_way.remove(key);
        }
    }

    /// Forgets what is past its time.
    pub(super) fn sweep(&mut self, now: Now) {
        while let Some((until, key)) = self.by_age.first().copied() {
            if until > now.wall {
                break;
            }
            self.by_age.pop_first();
            self.remove(&key);
        }
        let forget = now.wall.saturating_sub(limits::MEMBER_FORGET_MS);
        self.members.retain(|_, heard| *heard >= forget);
    }

    pub(super) fn note_beat(&mut self, seq: u64, at: u64) {
        if self.beats.len() >= 32 {
            self.beats.pop_front();
        }
        self.beats.push_back((seq, at));
    }

    /// When an own heartbeat was sent.
    pub(super) fn beat_sent(&self, seq: u64) -> Option<u64> {
        let found = self.beats.iter().find(|(known, _)| *known == seq);
        found.map(|(_, at)| *at)
    }

    fn has_outgoing(&self) -> bool {
        !self.out.is_empty()
    }

    /// Members that have everything.
    pub(super) fn is_settled(&self, member: &InstanceId) -> bool {
        self.owed
            .get(member)
            .is_none_or(|owed| owed.keys.is_empty())
    }
}

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
        self.out.push_back(Command::Journal { id, write });
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
                Some(Pending::OwnIntent(job)) => self.intent_written(job, failure),
                Some(Pending::OwnOutcome(job)) => self.outcome_written(job),
                // A member whose disk fails still remembers: after a crash of both, the maker's
                // disk has the intent, and this one never takes an unknown id of a member that it
                // cannot ask for unmade.
                Some(Pending::Foreign { from, key, outcome }) => {
                    if let Some(entry) = self.book.entries.get_mut(&key) {
                        entry.durable = true;
                    }
                    let out = self.book.out.entry(from).or_default();
                    if outcome {
                        out.acked_outcomes.insert(key);
                    } else {
                        out.acked_intents.insert(key);
                    }
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
        self.write(JournalWrite::Intent(intent), Pending::OwnIntent(id));
    }

    /// The same intent again, with more in it; the members have what they need.
    pub(super) fn rewrite_intent(&mut self, id: JobId, intent: IntentRecord) {
        self.write(JournalWrite::Intent(intent), Pending::OwnIntent(id));
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

    // ---- members ------------------------------------------------------------------------------

    /// A member was heard, for the first time or again: it is owed what it has not acknowledged.
    pub(super) fn journal_member_up(&mut self, id: &InstanceId) {
        let known = self.book.members.insert(id.clone(), self.now.wall);
        // Heard within the hour: the disk need not know it better.
        if known.is_none_or(|heard| heard + 3_600_000 < self.now.wall) {
            let write = JournalWrite::Member(id.clone(), self.now.wall);
            self.write(write, Pending::Other);
        }
        self.book.out.remove(id);
        let missing = |(key, entry): (&Key, &Entry)| (!entry.acked.contains(id)).then_some(*key);
        let keys = self.book.entries.iter().filter_map(missing).collect();
        let owed = Owed {
            keys,
            ..Owed::default()
        };
        self.book.owed.insert(id.clone(), owed);
        self.tell_owed();
    }

    /// An operator says that a member is gone for good, so that its silence is no cause of doubt any
    /// more. What it may have called before is over once nobody remembers a command that long.
    pub(super) fn forget_member(&mut self, name: &str) -> Result<String, String> {
        let unknown = || format!("no instance {name} is known here");
        let id = InstanceId::new(name).map_err(|_| unknown())?;
        if id == self.cfg.instance {
            return Err(format!("{name} is this instance itself"));
        }
        let peer = self.members.get(&id);
        if peer.is_none() && !self.book.members.contains_key(&id) {
            return Err(unknown());
        }
        if peer.is_some_and(|peer| peer.liveness.present()) {
            return Err(format!("{name} is there"));
        }
        // Of one that was never heard in this life of the process, only that much is known.
        let heard = peer.map_or(self.joined_at, |peer| Some(peer.last_seen));
        let silent = heard.map_or(0, |heard| self.now.mono.saturating_sub(heard));
        if silent < limits::LEDGER_RETENTION_MS {
            let minutes = limits::LEDGER_RETENTION_MS / 60_000;
            return Err(format!(
                "{name} was heard, or this instance started, less than {minutes} minutes ago: \
                 what it may have called can still come back"
            ));
        }
        self.book.members.remove(&id);
        self.members.forget(&id);
        // Heard at no time at all.
        self.write(JournalWrite::Member(id, 0), Pending::Other);
        self.look_at_waiting();
        Ok("forgotten".to_owned())
    }

    pub(super) fn journal_member_gone(&mut self, id: &InstanceId) {
        self.book.members.insert(id.clone(), self.now.wall);
        self.book.out.remove(id);
        self.book.owed.remove(id);
        self.look_at_waiting();
    }

    /// Tells members what they missed, one message at a time.
    fn tell_owed(&mut self) {
        let now = self.now.mono;
        let present = self.journal_members();
        for member in present {
            let Some(owed) = self.book.owed.get_mut(&member) else {
                continue;
            };
            let late = now >= owed.sent_at + limits::JOURNAL_RESEND_MS;
            if owed.keys.is_empty() || (!owed.under_way.is_empty() && !late) {
                continue;
            }
            let next = owed.keys.iter().take(limits::JOURNAL_RECORDS).copied();
            owed.under_way = next.collect();
            owed.sent_at = now;
            let keys = owed.under_way.clone();
            let records = |of: fn(&Entry) -> bool| {
                let known = keys.iter().filter_map(|key| self.book.entries.get(key));
                known.filter(move |entry| of(entry)).cloned()
            };
            let intents = records(|entry| entry.outcome.is_none())
                .filter_map(|entry| entry.intent)
                .collect();
            let outcomes = records(|_| true)
                .filter_map(|entry| entry.outcome)
                .collect();
            let message = PeerMessage::Journal {
                intents,
                outcomes,
                withdrawn: Vec::new(),
                history: true,
            };
            self.say(Some(&member), message);
            self.timers
                .set_by(Timer::Journal, now + limits::JOURNAL_RESEND_MS);
        }
    }

    fn owe(&mut self, member: &InstanceId, key: Key) {
        if let Some(owed) = self.book.owed.get_mut(member) {
            owed.keys.insert(key);
        }
    }

    /// Sends what is gathered: at once where nothing was sent just now.
    pub(super) fn flush_journal(&mut self) {
        if !self.book.has_outgoing() {
            return;
        }
        let due = self.book.flushed_at + limits::JOURNAL_GATHER_MS;
        if self.now.mono < due {
            self.timers.set_by(Timer::Journal, due);
            return;
        }
        self.book.flushed_at = self.now.mono;
        for (member, out) in std::mem::take(&mut self.book.out) {
            self.send_journal(&member, out);
        }
    }

    fn send_journal(&mut self, member: &InstanceId, out: Outgoing) {
        let intents: Vec<IntentRecord> = (out.intents.iter())
            .filter_map(|key| self.book.open_intent(key).cloned())
            .collect();
        let outcomes: Vec<OutcomeRecord> = (out.outcomes.iter())
            .filter_map(|key| self.book.entries.get(key)?.outcome.clone())
            .collect();
        let withdrawn: Vec<Key> = out.withdrawn.into_iter().collect();
        let most = intents.len().max(outcomes.len()).max(withdrawn.len());
        let part = limits::JOURNAL_RECORDS;
        for from in (0..most).step_by(part) {
            let message = PeerMessage::Journal {
                intents: intents.iter().skip(from).take(part).cloned().collect(),
                outcomes: outcomes.iter().skip(from).take(part).cloned().collect(),
                withdrawn: withdrawn.iter().skip(from).take(part).copied().collect(),
                history: false,
            };
            self.say(Some(member), message);
        }
        let acks = !out.acked_intents.is_empty() || !out.acked_outcomes.is_empty();
        if acks || !out.refused.is_empty() {
            let message = PeerMessage::JournalAck {
                intents: out.acked_intents.into_iter().collect(),
                outcomes: out.acked_outcomes.into_iter().collect(),
                refused: out.refused,
            };
            self.say(Some(member), message);
        }
    }

    /// Sends again what is not acknowledged.
    pub(super) fn journal_due(&mut self) {
        let now = self.now.mono;
        let members = self.journal_members();
        let mut again = false;
        for id in self.book.waiting.clone() {
            let Some(job) = self.jobs.get_mut(id) else {
                continue;
            };
            let (key, sent_at, outcome) = match &mut job.state {
                State::Intending(own) => (own.key, &mut own.sent_at, false),
                State::Recording(own) => (own.key, &mut own.sent_at, true),
                _ => continue,
            };
            again = true;
            if now < *sent_at + limits::JOURNAL_RESEND_MS {
                continue;
            }
            *sent_at = now;
            let Some(entry) = self.book.entries.get(&key) else {
                continue;
            };
            for member in members.iter().filter(|id| !entry.acked.contains(*id)) {
                let out = self.book.out.entry(member.clone()).or_default();
                if outcome {
                    out.outcomes.insert(key);
                } else {
                    out.intents.insert(key);
                }
            }
        }
        self.tell_owed();
        if again {
            self.timers
                .set_by(Timer::Journal, now + limits::JOURNAL_RESEND_MS);
        }
    }

    // ---- what members say ---------------------------------------------------------------------

    pub(super) fn on_journal(
        &mut self,
        from: &InstanceId,
        intents: Vec<IntentRecord>,
        outcomes: Vec<OutcomeRecord>,
        withdrawn: Vec<Key>,
        history: bool,
    ) {
        for intent in intents {
            self.on_intent(from, intent, history);
        }
        for outcome in outcomes {
            self.on_outcome(from, outcome);
        }
        for key in withdrawn {
            let by = self.book.open_intent(&key).map(|intent| intent.by.clone());
            if by.as_ref() == Some(from) {
                self.book.remove(&key);
                self.write(JournalWrite::Withdraw(key), Pending::Other);
            }
        }
        self.look_at_waiting();
    }

    fn on_intent(&mut self, from: &InstanceId, intent: IntentRecord, history: bool) {
        let key = intent.key;
        if intent.until <= self.kept.wall {
            self.ack_intent(from, key);
            return;
        }
        if let Known::Finished(_) | Known::OtherBody = self.ledger.look_up(&key, intent.body) {
            // The outcome is told in its place.
            self.tell_outcome(from, key);
            self.refuse_intent(from, key, IntentRefusal::Known);
            return;
        }
        if let Some(known) = self.book.open_intent(&key).cloned() {
            if (&known.by, known.boot) == (&intent.by, intent.boot) {
                if self.book.entries.get(&key).is_some_and(|e| e.durable) {
                    self.ack_intent(from, key);
                }
                return;
            }
            if !self.gives_way(&known, &intent) {
                self.refuse_intent(from, key, IntentRefusal::Known);
                return;
            }
        }
        let newer = self
            .sessions
            .get(&intent.agent)
            .is_some_and(|session| session.record.version.epoch > intent.epoch);
        if newer && !history {
            self.refuse_intent(from, key, IntentRefusal::Stale);
            return;
        }
        let record = intent.clone();
        let maker = from.clone();
        self.book.change(key, |entry| {
            *entry = Entry {
                intent: Some(record),
                ..Entry::default()
            };
            entry.acked.insert(maker);
        });
        let from = from.clone();
        let pending = Pending::Foreign {
            from,
            key,
            outcome: false,
        };
        self.write(JournalWrite::Intent(intent), pending);
    }

    /// Two makers want one command: whether the one that is known here gives way to the other.
    fn gives_way(&mut self, known: &IntentRecord, other: &IntentRecord) -> bool {
        let key = known.key;
        if known.by != self.cfg.instance {
            // The same maker after a restart knows what it did before. A lost one did not get
            // this member's word in vain: who comes after it has weighed that.
            let alive = self.is_working(&known.by, known.boot);
            return known.by == other.by || !alive;
        }
        let job = self.job_of(&key);
        let calls = job.is_some_and(|id| {
            let state = self.jobs.get(id).map(|job| &job.state);
            !matches!(state, Some(State::Intending(_)))
        });
        let outranked = (other.epoch, &other.by) > (known.epoch, &known.by);
        if known.boot != self.cfg.boot || job.is_none() || calls || !outranked {
            return false;
        }
        if let Some(job) = job {
            self.abandon_intent(job);
        }
        true
    }

    /// Whether that start of an instance may still be at work.
    pub(super) fn is_working(&self, id: &InstanceId, boot: BootId) -> bool {
        self.members
            .get(id)
            .is_some_and(|peer| peer.liveness.present() && peer.boot == boot)
    }

    fn job_of(&self, key: &Key) -> Option<JobId> {
        self.ledger.running(key)
    }

    fn ack_intent(&mut self, to: &InstanceId, key: Key) {
        let out = self.book.out.entry(to.clone()).or_default();
        out.acked_intents.insert(key);
    }

    fn refuse_intent(&mut self, to: &InstanceId, key: Key, why: IntentRefusal) {
        let out = self.book.out.entry(to.clone()).or_default();
        out.refused.push((key, why));
    }

    /// Tells a member an outcome that may never have been journaled here.
    fn tell_outcome(&mut self, to: &InstanceId, key: Key) {
        if let Some(record) = self.ledger.record(&key) {
            self.book.change(key, |entry| {
                entry.outcome.get_or_insert(record);
            });
            let out = self.book.out.entry(to.clone()).or_default();
            out.outcomes.insert(key);
        }
    }

    fn on_outcome(&mut self, from: &InstanceId, outcome: OutcomeRecord) {
        let key = outcome.key;
        if outcome.until <= self.kept.wall {
            let out = self.book.out.entry(from.clone()).or_default();
            out.acked_outcomes.insert(key);
            return;
        }
        // What is being carried out here ends with an outcome of its own.
        let started = |id: JobId| self.jobs.started(id) && self.jobs.get(id).is_some();
        if self.ledger.running(&key).is_some_and(started) {
            let out = self.book.out.entry(from.clone()).or_default();
            out.acked_outcomes.insert(key);
            return;
        }
        self.compare_outcomes(&outcome);
        let jobs = &self.jobs;
        self.ledger
            .learn(self.kept, outcome.clone(), |job| jobs.started(job));
        let ours = match self.ledger.look_up(&key, outcome.body) {
            Known::Finished(reply) => reply,
            _ => Arc::new(outcome.reply.clone()),
        };
        let same = ours.outcome == outcome.reply.outcome;
        let in_doubt = outcome.reply.outcome == Outcome::InDoubt;
        let kept = OutcomeRecord {
            reply: ours.as_ref().clone(),
            ..outcome
        };
        let write = JournalWrite::Outcome(kept.clone());
        self.book.change(key, |entry| {
            entry.outcome = Some(kept);
            entry.acked.clear();
            if same {
                entry.acked.insert(from.clone());
            }
        });
        // Who is in doubt is told. Two definite outcomes both stand: told to each other, they
        // would go back and forth for as long as they are remembered.
        if in_doubt && !same {
            self.owe(from, key);
            self.tell_owed();
        }
        let pending = Pending::Foreign {
            from: from.clone(),
            key,
            outcome: true,
        };
        self.write(write, pending);
    }

    pub(super) fn on_journal_ack(
        &mut self,
        from: &InstanceId,
        intents: &[Key],
        outcomes: &[Key],
        refused: &[(Key, IntentRefusal)],
    ) {
        let with_outcome = |entry: &Entry| entry.outcome.is_some();
        for (keys, finished) in [(intents, false), (outcomes, true)] {
            for key in keys {
                if let Some(entry) = self.book.entries.get_mut(key)
                    && with_outcome(entry) == finished
                {
                    entry.acked.insert(from.clone());
                }
            }
        }
        let all = intents.iter().chain(outcomes);
        let told = all.chain(refused.iter().map(|(key, _)| key));
        let mut settled = false;
        if let Some(owed) = self.book.owed.get_mut(from) {
            let had = !owed.keys.is_empty();
            for key in told {
                if owed.under_way.remove(key) {
                    owed.keys.remove(key);
                }
            }
            settled = had && owed.keys.is_empty();
        }
        for (key, why) in refused {
            self.intent_refused(key, *why);
        }
        self.tell_owed();
        if settled {
            // Others wait for it.
            self.beat();
        }
        self.look_at_waiting();
    }

    /// A reply that has waited long enough for the members: they get its outcome when they can.
    pub(super) fn owe_outcome(&mut self, key: Key) {
        let members = self.journal_members();
        let entry = self.book.entries.get(&key);
        let late: Vec<InstanceId> = members
            .into_iter()
            .filter(|id| entry.is_some_and(|entry| !entry.acked.contains(id)))
            .collect();
        for member in late {
            self.owe(&member, key);
        }
        self.tell_owed();
    }
}
