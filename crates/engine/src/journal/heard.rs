//! What members say of intents and outcomes.

use std::sync::Arc;

use crate::Engine;
use crate::api::command::JournalWrite;
use crate::api::ids::{BootId, JobId};
use crate::jobs::State;
use crate::jobs::ledger::{Key, Known};
use crate::model::InstanceId;
use crate::peer::{IntentRecord, IntentRefusal, OutcomeRecord};
use crate::wire::reply::Outcome;

use super::book::{Entry, Pending};

/// Whether it says that a command was never started.
fn refuses(outcome: &OutcomeRecord) -> bool {
    matches!(outcome.reply.outcome, Outcome::Expired | Outcome::Rejected)
}

impl Engine {
    /// What a member has written or taken back. Of what was owed since it was away (`history`) the
    /// times stand as they are, and there is nothing to object to: it is over.
    pub(crate) fn on_journal(
        &mut self,
        from: &InstanceId,
        intents: Vec<IntentRecord>,
        outcomes: Vec<OutcomeRecord>,
        (withdrawn, made): (Vec<Key>, Vec<u64>),
        history: bool,
    ) {
        // What is taken back and made anew in one message is there afterwards.
        for (at, key) in withdrawn.into_iter().enumerate() {
            let meant = |intent: &IntentRecord| {
                intent.by == *from && made.get(at).is_none_or(|made| intent.at <= *made)
            };
            if self.book.open_intent(&key).is_some_and(meant) {
                self.book.remove(&key);
                self.journal()
                    .write(JournalWrite::Withdraw(key), Pending::Other);
            }
        }
        for mut intent in intents {
            if !history {
                intent.until = self.until_here(intent.until);
            }
            self.on_intent(from, intent, history);
        }
        for mut outcome in outcomes {
            if !history {
                outcome.until = self.until_here(outcome.until);
            }
            if history || !self.objects(from, &outcome) {
                self.on_outcome(from, outcome);
            }
        }
        self.look_at_waiting();
    }

    /// A member is about to carry a command out and asks whether it may. Refused where the command
    /// is known to be finished, is begun by another, or is that of an owner in an older epoch; else
    /// it is written here before the answer leaves.
    fn on_intent(&mut self, from: &InstanceId, intent: IntentRecord, history: bool) {
        let key = intent.key;
        if intent.until <= self.retention.now().wall {
            self.journal().ack_intent(from, key, intent.at, true);
            return;
        }
        if let Known::Finished(_) | Known::OtherBody = self.known(&key, intent.body) {
            // The outcome is told in its place.
            self.tell_outcome(from, key);
            self.journal()
                .refuse_intent(from, key, IntentRefusal::Known);
            return;
        }
        if let Some(known) = self.book.open_intent(&key).cloned() {
            if (&known.by, known.boot) == (&intent.by, intent.boot) {
                self.ack_again(from, intent);
                return;
            }
            if !self.gives_way(&known, &intent) {
                self.journal()
                    .refuse_intent(from, key, IntentRefusal::Known);
                return;
            }
        }
        let newer = self
            .sessions
            .get(&intent.agent)
            .is_some_and(|session| session.record.version.epoch > intent.epoch);
        if newer && !history {
            self.journal()
                .refuse_intent(from, key, IntentRefusal::Stale);
            return;
        }
        let record = intent.clone();
        let maker = from.clone();
        self.book.change(key, |entry| {
            *entry = Entry {
                intent: Some(record),
                ..Entry::default()
            };
            entry.note_acked(&maker, true);
        });
        let from = from.clone();
        let made = intent.at;
        let pending = Pending::ForeignIntent { from, key, made };
        self.journal().write(JournalWrite::Intent(intent), pending);
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
        let calls = job.is_some_and(|id| !matches!(self.jobs.state(id), Some(State::Intending(_))));
        let outranked = (other.epoch, &other.by) > (known.epoch, &known.by);
        if known.boot != self.cfg.boot || job.is_none() || calls || !outranked {
            return false;
        }
        // The others hold ours, and would refuse them the other one for it.
        self.journal().withdraw_intent(&key);
        if let Some(job) = job {
            self.abandon_intent(job);
        }
        true
    }

    /// An intent that is known here is told again: its acknowledgement was lost, or the disk here
    /// has not taken it.
    fn ack_again(&mut self, from: &InstanceId, told: IntentRecord) {
        let (key, made) = (told.key, told.at);
        let Some(entry) = self.book.entry(&key) else {
            return;
        };
        // One that was taken back and made anew is the same but for when it was made, and only the
        // word on the newest counts.
        let anew = (entry.intent.as_ref()).is_some_and(|known| known.at < told.at);
        if entry.unkept || (entry.durable && anew) {
            let record = told.clone();
            self.book.change(key, |entry| {
                entry.unkept = false;
                entry.durable = false;
                entry.intent = Some(record);
            });
            let from = from.clone();
            let pending = Pending::ForeignIntent { from, key, made };
            self.journal().write(JournalWrite::Intent(told), pending);
        } else if entry.durable {
            self.journal().ack_intent(from, key, made, true);
        }
        // Else it is asked for again when the disk has it.
    }

    /// Whether that start of an instance may still be at work.
    pub(crate) fn is_working(&self, id: &InstanceId, boot: BootId) -> bool {
        self.members
            .get(id)
            .is_some_and(|peer| peer.liveness.present() && peer.boot == boot)
    }

    fn job_of(&self, key: &Key) -> Option<JobId> {
        self.ledger.running(key)
    }

    /// An intent that a member told (its own, or what this one had missed) is on disk: the member is
    /// told so, unless the intent was taken back meanwhile.
    pub(super) fn foreign_intent_written(
        &mut self,
        from: &InstanceId,
        key: Key,
        made: u64,
        kept: bool,
    ) {
        let Some(entry) = self.book.entries.get_mut(&key) else {
            return;
        };
        if entry
            .intent
            .as_ref()
            .is_some_and(|intent| intent.at == made)
        {
            entry.durable = true;
            entry.unkept = !kept;
            self.journal().ack_intent(from, key, made, kept);
        }
    }

    /// Tells a member an outcome that may never have been journaled here.
    fn tell_outcome(&mut self, to: &InstanceId, key: Key) {
        let record = self.ledger.record(&key);
        let kept = |entry: &Entry| entry.outcome.is_some();
        if record.is_some() || self.book.entry(&key).is_some_and(kept) {
            if let Some(record) = record {
                self.book.change(key, |entry| {
                    entry.outcome.get_or_insert(record);
                });
            }
            let out = self.book.out.entry(to.clone()).or_default();
            out.outcomes.insert(key);
        }
    }

    /// A member is about to say that a command was never started, and it was carried out here: that
    /// is told in its place.
    fn objects(&mut self, from: &InstanceId, outcome: &OutcomeRecord) -> bool {
        let refusal = refuses(outcome);
        let known = self.known(&outcome.key, outcome.body);
        let other = matches!(&known, Known::Finished(ours) if ours.outcome != outcome.reply.outcome
            && ours.outcome != Outcome::InDoubt);
        if refusal && other {
            self.tell_outcome(from, outcome.key);
            self.journal()
                .refuse_intent(from, outcome.key, IntentRefusal::Known);
        }
        refusal && other
    }

    /// A member tells how a command ended. What is known here already stands, as it may have been
    /// told; who is in doubt is told what is certain. Written before it is acknowledged.
    fn on_outcome(&mut self, from: &InstanceId, outcome: OutcomeRecord) {
        let key = outcome.key;
        if outcome.until <= self.retention.now().wall {
            self.journal().ack_outcome(from, key, true);
            return;
        }
        // What is being carried out here ends with an outcome of its own.
        let started = |id: &JobId| self.jobs.started(*id) && self.jobs.get(*id).is_some();
        if let Some(id) = self.ledger.running(&key).filter(started) {
            // A refusal has not been told yet: it gives way to what is done here.
            if !refuses(&outcome) {
                self.compare_outcomes(&outcome);
                self.note_told(id, &outcome);
            }
            let out = self.book.out.entry(from.clone()).or_default();
            out.acked_outcomes.insert(key);
            // Who was about to refuse it is to wait for that.
            out.refused.push((key, IntentRefusal::Known));
            return;
        }
        self.compare_outcomes(&outcome);
        let jobs = &self.jobs;
        self.ledger
            .learn(self.retention.now(), outcome.clone(), |job| {
                jobs.started(job)
            });
        // Of the ledger alone: it has just learned it, and the book is what is to be changed.
        let now = self.retention.now();
        let ours = match self.ledger.look_up(now, &key, outcome.body) {
            Known::Finished(reply) => reply,
            _ => Arc::new(outcome.reply.clone()),
        };
        let same = ours.outcome == outcome.reply.outcome;
        let in_doubt = outcome.reply.outcome == Outcome::InDoubt;
        let kept = OutcomeRecord {
            reply: ours.as_ref().clone(),
            resolved: outcome.resolved || self.ledger.is_resolved(&key),
            ..outcome
        };
        let write = JournalWrite::Outcome(kept.clone());
        self.book.change(key, |entry| {
            entry.outcome = Some(kept);
            entry.nobody_has();
            if same {
                entry.note_acked(from, true);
            }
        });
        // Who is in doubt is told. Two definite outcomes both stand: told to each other, they
        // would go back and forth for as long as they are remembered.
        if in_doubt && !same {
            self.owe(from, key);
            self.tell_owed();
        }
        let pending = Pending::ForeignOutcome {
            from: from.clone(),
            key,
        };
        self.journal().write(write, pending);
    }

    /// A member has (or refuses) what it was told. Jobs that waited for it go on, and what was owed
    /// to it since it was away is less by as much.
    pub(crate) fn on_journal_ack(
        &mut self,
        from: &InstanceId,
        (intents, made): (&[Key], &[u64]),
        (outcomes, unkept): (&[Key], &[Key]),
        refused: &[(Key, IntentRefusal)],
    ) {
        for (at, key) in intents.iter().enumerate() {
            let entry = self.book.entries.get_mut(key);
            let Some(entry) = entry.filter(|entry| entry.outcome.is_none()) else {
                continue;
            };
            // The word on one that was taken back says nothing of the one that was made since.
            let ours = entry.intent.as_ref().map(|intent| intent.at);
            if made.get(at).is_none_or(|made| Some(*made) == ours) {
                entry.note_acked(from, !unkept.contains(key));
            }
        }
        for key in outcomes {
            let entry = self.book.entries.get_mut(key);
            if let Some(entry) = entry.filter(|entry| entry.outcome.is_some()) {
                entry.note_acked(from, !unkept.contains(key));
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
    pub(crate) fn owe_outcome(&mut self, key: Key) {
        let members = self.members.journaling();
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
