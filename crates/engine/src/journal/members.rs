//! What members are told: records as they come, and what they missed.

use std::collections::BTreeSet;

use crate::api::command::JournalWrite;
use crate::jobs::ledger::Key;
use crate::model::InstanceId;
use crate::peer::{IntentRecord, OutcomeRecord, PeerMessage};
use crate::state::timer::Timer;
use crate::{Engine, limits};

use super::book::{Entry, Outgoing, Owed, Pending};

impl Engine {
    /// A member was heard, for the first time or again: it is owed what it has not acknowledged.
    pub(crate) fn journal_member_up(&mut self, id: &InstanceId) {
        self.note_heard(id);
        let boot = self.members.get(id).map(|peer| peer.boot);
        if boot.is_some_and(|boot| self.book.note_boot(id, boot)) {
            self.book.lost_unkept(id);
        }
        self.book.out.remove(id);
        let missing = |(key, entry): (&Key, &Entry)| (!entry.acked.contains(id)).then_some(*key);
        let keys = self.book.entries.iter().filter_map(missing).collect();
        let owed = Owed {
            keys,
            ..Owed::default()
        };
        self.book.owed.insert(id.clone(), owed);
        self.book.tell_withdrawn(id);
        self.tell_owed();
    }

    /// This instance can be heard again: what it said meanwhile was lost.
    pub(crate) fn journal_heard_again(&mut self) {
        for member in self.members.journaling() {
            self.book.tell_withdrawn(&member);
        }
    }

    /// A member is there; the disk knows that to the hour.
    fn note_heard(&mut self, id: &InstanceId) {
        let now = self.retention.now();
        if self.book.note_heard(id, now) {
            let write = JournalWrite::Member(id.clone(), now.wall);
            let pending = Pending::Member(id.clone());
            self.journal().write(write, pending);
        }
    }

    /// Forgets what is past its time: commands, and members that were silent for too long. Who is
    /// there is not silent, however long ago it came.
    pub(crate) fn sweep_journal(&mut self) {
        let present: Vec<InstanceId> = self.members.present().map(|(id, _)| id.clone()).collect();
        for id in &present {
            self.note_heard(id);
        }
        let now = self.retention.now();
        self.book.sweep(now);
        for id in self.book.long_silent(now) {
            self.forget_for_good(id);
        }
    }

    /// A member's silence is no cause of doubt any more; here and on disk.
    fn forget_for_good(&mut self, id: InstanceId) {
        self.book.forget_member(&id);
        self.members.forget(&id);
        // Heard at no time at all.
        self.journal()
            .write(JournalWrite::Member(id, 0), Pending::Other);
        self.look_at_waiting();
    }

    /// Who is known besides this one, for whoever has named somebody else.
    fn others(&self) -> String {
        let heard = self.members.iter().map(|(id, _)| id);
        let others: BTreeSet<&str> = (heard.chain(self.book.known_members()))
            .map(InstanceId::as_str)
            .collect();
        match others.is_empty() {
            true => String::new(),
            false => format!("; known: {}", Vec::from_iter(others).join(", ")),
        }
    }

    /// An operator says that a member is gone for good, so that its silence is no cause of doubt any
    /// more. What it may have called before is over once nobody remembers a command that long.
    pub(crate) fn forget_member(&mut self, name: &str) -> Result<String, String> {
        let unknown = || format!("no instance {name} is known here{}", self.others());
        let id = InstanceId::new(name).map_err(|_| unknown())?;
        if id == self.cfg.instance {
            return Err(format!("{name} is this instance itself"));
        }
        let peer = self.members.get(&id);
        if peer.is_none() && !self.book.knows_member(&id) {
            return Err(unknown());
        }
        if peer.is_some_and(|peer| peer.liveness.present()) {
            return Err(format!("{name} is there"));
        }
        // Of one that was never heard in this life of the process, only that much is known.
        let heard = peer.map_or(self.attached.joined_at(), |peer| Some(peer.last_seen));
        let silent = heard.map_or(0, |heard| self.now.mono.saturating_sub(heard));
        if silent < limits::LEDGER_RETENTION_MS {
            let minutes = limits::LEDGER_RETENTION_MS / 60_000;
            return Err(format!(
                "{name} was heard, or this instance started, less than {minutes} minutes ago: \
                 what it may have called can still come back"
            ));
        }
        self.forget_for_good(id);
        Ok("forgotten".to_owned())
    }

    pub(crate) fn journal_member_gone(&mut self, id: &InstanceId) {
        self.note_heard(id);
        self.book.out.remove(id);
        self.book.owed.remove(id);
        self.look_at_waiting();
    }

    /// Tells members what they missed, one message at a time.
    pub(super) fn tell_owed(&mut self) {
        let now = self.now.mono;
        let present = self.members.journaling();
        for member in present {
            let Some(owed) = self.book.owed.get_mut(&member) else {
                continue;
            };
            if owed.keys.is_empty() {
                continue;
            }
            let again_at = owed.sent_at + limits::JOURNAL_RESEND_MS;
            if !owed.under_way.is_empty() && now < again_at {
                // The timer may have been needed earlier for something else.
                self.timers.set_by(Timer::Journal, again_at);
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
                withdrawn_made: Vec::new(),
                history: true,
            };
            self.say(Some(&member), message);
            self.timers
                .set_by(Timer::Journal, now + limits::JOURNAL_RESEND_MS);
        }
    }

    pub(super) fn owe(&mut self, member: &InstanceId, key: Key) {
        if let Some(owed) = self.book.owed.get_mut(member) {
            owed.keys.insert(key);
        }
    }

    /// Sends what is gathered: at once where nothing was sent just now.
    pub(crate) fn flush_journal(&mut self) {
        if let Some(at) = self.book.tell_again_at() {
            self.timers.set_by(Timer::Journal, at);
        }
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

    /// Sends a member what has come together for it, in parts of bounded size, and the
    /// acknowledgements behind it.
    fn send_journal(&mut self, member: &InstanceId, out: Outgoing) {
        let intents: Vec<IntentRecord> = (out.intents.iter())
            .filter_map(|key| self.book.open_intent(key).cloned())
            .collect();
        let outcomes: Vec<OutcomeRecord> = (out.outcomes.iter())
            .filter_map(|key| self.book.entries.get(key)?.outcome.clone())
            .collect();
        // What was made anew meanwhile is the same to a member: it holds an intent of ours.
        let open = |(key, _): &(Key, u64)| !out.intents.contains(key);
        let (withdrawn, made): (Vec<Key>, Vec<u64>) =
            out.withdrawn.into_iter().filter(open).unzip();
        let most = intents.len().max(outcomes.len()).max(withdrawn.len());
        let part = limits::JOURNAL_RECORDS;
        for from in (0..most).step_by(part) {
            let message = PeerMessage::Journal {
                intents: intents.iter().skip(from).take(part).cloned().collect(),
                outcomes: outcomes.iter().skip(from).take(part).cloned().collect(),
                withdrawn: withdrawn.iter().skip(from).take(part).copied().collect(),
                withdrawn_made: made.iter().skip(from).take(part).copied().collect(),
                history: false,
            };
            self.say(Some(member), message);
        }
        let (acked, made): (Vec<Key>, Vec<u64>) = out.acked_intents.into_iter().unzip();
        let outcomes: Vec<Key> = out.acked_outcomes.into_iter().collect();
        let most = acked.len().max(outcomes.len()).max(out.refused.len());
        for from in (0..most).step_by(part) {
            let intents: Vec<Key> = acked.iter().skip(from).take(part).copied().collect();
            let outcomes: Vec<Key> = outcomes.iter().skip(from).take(part).copied().collect();
            let told = intents.iter().chain(&outcomes);
            let message = PeerMessage::JournalAck {
                made: made.iter().skip(from).take(part).copied().collect(),
                // In the message that acknowledges them: they are taken as one word.
                unkept: told
                    .filter(|key| out.unkept.contains(*key))
                    .copied()
                    .collect(),
                intents,
                outcomes,
                refused: out.refused.iter().skip(from).take(part).cloned().collect(),
            };
            self.say(Some(member), message);
        }
    }

    /// Sends again what is not acknowledged.
    pub(crate) fn journal_due(&mut self) {
        let now = self.now.mono;
        let members = self.members.journaling();
        let mut again = false;
        for job in self.jobs.waiting_mut() {
            let (key, sent_at, outcome) = if let Some(own) = job.intending_mut() {
                (own.key, &mut own.sent_at, false)
            } else if let Some(own) = job.recording_mut() {
                (own.key, &mut own.sent_at, true)
            } else {
                continue;
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
        self.book.tell_taken_back(now, &members);
        if again {
            self.timers
                .set_by(Timer::Journal, now + limits::JOURNAL_RESEND_MS);
        }
    }
}
