//! What the engine knows of the journal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::api::ids::{BootId, JobId, JournalId, Now};
use crate::api::limits;
use crate::jobs::ledger::Key;
use crate::model::{AgentId, InstanceId};
use crate::peer::{IntentRecord, IntentRefusal, OutcomeRecord};
use crate::wire::reply::Outcome;

/// The command that calls a number.
const CALL: &str = "MakeCall";

/// What is known of one journaled command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub intent: Option<IntentRecord>,
    pub outcome: Option<OutcomeRecord>,
    /// Members that have the newest of the two.
    pub acked: BTreeSet<InstanceId>,
    /// Those of them that have it in memory only: their disks did not take it.
    pub(super) unkept_by: BTreeSet<InstanceId>,
    /// The disk here did not take it, though it is `durable`: it is written again when it is told
    /// again.
    pub(super) unkept: bool,
    /// Whether the intent is on disk here.
    pub durable: bool,
}

impl Entry {
    /// A member has it. `kept`: on its disk.
    pub(super) fn note_acked(&mut self, member: &InstanceId, kept: bool) {
        self.acked.insert(member.clone());
        if kept {
            self.unkept_by.remove(member);
        } else {
            self.unkept_by.insert(member.clone());
        }
    }

    /// There is something newer, which nobody has.
    pub(super) fn nobody_has(&mut self) {
        self.acked.clear();
        self.unkept_by.clear();
    }

    fn until(&self) -> u64 {
        let intent = self.intent.as_ref().map_or(0, |intent| intent.until);
        let outcome = self.outcome.as_ref().map_or(0, |outcome| outcome.until);
        intent.max(outcome)
    }

    /// The agent whose call to a number this is.
    fn caller(&self) -> Option<AgentId> {
        match (&self.intent, &self.outcome) {
            (Some(intent), _) => (intent.command == CALL).then(|| intent.agent.clone()),
            // Members that were away are told no more of what is over.
            (None, Some(outcome)) if outcome.reply.command == CALL => {
                AgentId::new(&outcome.reply.id).ok()
            }
            _ => None,
        }
    }

    /// Whether the platform may have begun this call at that time (milliseconds since the epoch, by
    /// its clock) or later. One that is in doubt may come to it at any time.
    fn may_have_called_since(&self, time: u64) -> bool {
        // At the latest: an intent may be made long before its call.
        let made = |outcome: &OutcomeRecord| {
            let told = outcome.until.saturating_sub(limits::LEDGER_RETENTION_MS);
            told + limits::CLOCKS_APART_MS
        };
        match &self.outcome {
            None => true,
            Some(outcome) => match outcome.reply.outcome {
                Outcome::InDoubt => true,
                Outcome::Ok | Outcome::Accepted => made(outcome) >= time,
                Outcome::Rejected | Outcome::Failed | Outcome::Expired => false,
            },
        }
    }
}

/// A member that was ever heard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// When last, or when this process started if that is later, monotonic milliseconds. By the
    /// wall clock, time in which this process was not there would count as the member's silence.
    pub(super) at: u64,
    /// When last according to the disk, milliseconds since the epoch.
    on_disk: u64,
    /// Which of its starts.
    pub(super) boot: Option<BootId>,
}

/// What a write to the disk was for.
#[derive(Debug)]
pub(super) enum Pending {
    /// The job, and when the intent was made.
    OwnIntent(JobId, u64),
    OwnOutcome(JobId),
    /// An intent that a member told, and when it was made: it is told when it is durable.
    ForeignIntent {
        from: InstanceId,
        key: Key,
        made: u64,
    },
    /// A member's outcome: likewise.
    ForeignOutcome {
        from: InstanceId,
        key: Key,
    },
    /// When a member was heard.
    Member(InstanceId),
    Other,
}

/// Records on their way to one member.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) intents: BTreeSet<Key>,
    pub(super) outcomes: BTreeSet<Key>,
    /// With when they were made.
    pub(super) withdrawn: BTreeMap<Key, u64>,
    /// With when they were made.
    pub(super) acked_intents: BTreeMap<Key, u64>,
    pub(super) acked_outcomes: BTreeSet<Key>,
    /// Those of both that the disk did not take.
    pub(super) unkept: BTreeSet<Key>,
    pub(super) refused: Vec<(Key, IntentRefusal)>,
}

impl Outgoing {
    /// Whether the disk has what is acknowledged: the last word counts.
    pub(super) fn note_kept(&mut self, key: Key, kept: bool) {
        if kept {
            self.unkept.remove(&key);
        } else {
            self.unkept.insert(key);
        }
    }
}

/// What a member that was away has not been told yet.
#[derive(Debug, Default)]
pub(super) struct Owed {
    pub(super) keys: BTreeSet<Key>,
    pub(super) under_way: BTreeSet<Key>,
    pub(super) sent_at: u64,
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

/// An own intent that was taken back.
#[derive(Debug, Clone, Copy)]
struct TakenBack {
    /// A member that has not heard so remembers it until then, milliseconds since the epoch.
    until: u64,
    /// When it was made.
    made: u64,
}

/// The journal as the engine knows it.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(super) entries: BTreeMap<Key, Entry>,
    by_age: BTreeSet<(u64, Key)>,
    /// The entries that are calls of an agent to a number.
    calls: BTreeSet<(AgentId, Key)>,
    /// With when they were handed to the disk, monotonic milliseconds.
    pub(super) writes: BTreeMap<JournalId, (Pending, u64)>,
    pub(super) next_write: u64,
    pub(super) failing: bool,
    /// Members that were ever heard.
    members: BTreeMap<InstanceId, Heard>,
    pub(super) lost_until: u64,
    pub(super) out: BTreeMap<InstanceId, Outgoing>,
    pub(super) owed: BTreeMap<InstanceId, Owed>,
    /// Own intents that were taken back.
    withdrawn: BTreeMap<Key, TakenBack>,
    /// Those of them that are told again, when, and after how many times; the next one first.
    again: BTreeSet<(u64, Key, u32)>,
    pub(super) flushed_at: u64,
    /// Own heartbeats and when they were sent, the latest last.
    beats: VecDeque<(u64, u64)>,
}

impl Book {
    /// This process was away: the disk's word may wait for it.
    pub(crate) fn forgive(&mut self, pause: u64, now: u64) {
        for (_, at) in self.writes.values_mut() {
            *at = at.saturating_add(pause).min(now);
        }
    }

    /// The intent of a command whose outcome nobody has told.
    pub(crate) fn open_intent(&self, key: &Key) -> Option<&IntentRecord> {
        let entry = self.entries.get(key)?;
        entry.intent.as_ref().filter(|_| entry.outcome.is_none())
    }

    /// What is known of a journaled command.
    pub(crate) fn entry(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Whether a call that the platform has of an agent, made at that time (milliseconds since the
    /// epoch) or later, may be that of another command than `key`.
    pub(crate) fn may_be_anothers(&self, agent: &AgentId, key: &Key, not_before: u64) -> bool {
        let all = (agent.clone(), [u8::MIN; 16])..=(agent.clone(), [u8::MAX; 16]);
        let others = self.calls.range(all).filter(|(_, other)| other != key);
        let mut others = others.filter_map(|(_, other)| self.entries.get(other));
        others.any(|entry| entry.may_have_called_since(not_before))
    }

    /// All that is known.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// Members that were ever heard.
    pub(crate) fn known_members(&self) -> impl Iterator<Item = &InstanceId> {
        self.members.keys()
    }

    pub(super) fn knows_member(&self, id: &InstanceId) -> bool {
        self.members.contains_key(id)
    }

    /// A member of before. However long ago it was heard: nobody was here to hear it since.
    pub(super) fn restore_member(&mut self, id: InstanceId, on_disk: u64, now: Now) {
        let heard = Heard {
            at: now.mono,
            on_disk,
            boot: None,
        };
        self.members.insert(id, heard);
        self.bound_members();
    }

    /// A member is there. `true`: the disk is to know that.
    pub(super) fn note_heard(&mut self, id: &InstanceId, now: Now) -> bool {
        let heard = self.members.entry(id.clone()).or_insert(Heard {
            at: 0,
            on_disk: 0,
            boot: None,
        });
        heard.at = now.mono;
        let stale = now.wall.abs_diff(heard.on_disk) > limits::MEMBER_NOTED_MS;
        if stale {
            heard.on_disk = now.wall;
        }
        self.bound_members();
        stale
    }

    /// The disk did not take that a member is there.
    pub(super) fn member_unkept(&mut self, id: &InstanceId) {
        if let Some(heard) = self.members.get_mut(id) {
            heard.on_disk = 0;
        }
    }

    /// A member speaks. `true`: in another start than before.
    pub(super) fn note_boot(&mut self, id: &InstanceId, boot: BootId) -> bool {
        let heard = self.members.get_mut(id);
        heard.is_some_and(|heard| heard.boot.replace(boot).is_some_and(|known| known != boot))
    }

    pub(super) fn forget_member(&mut self, id: &InstanceId) {
        self.members.remove(id);
    }

    /// Members that have been silent for as long as anybody waits for them.
    pub(super) fn long_silent(&self, now: Now) -> Vec<InstanceId> {
        let silent = |heard: &Heard| now.mono.saturating_sub(heard.at) > limits::MEMBER_FORGET_MS;
        let members = self.members.iter().filter(|(_, heard)| silent(heard));
        members.map(|(id, _)| id.clone()).collect()
    }

    /// Names that came and went while no process was here for long enough to forget them.
    fn bound_members(&mut self) {
        while self.members.len() > limits::KNOWN_MEMBERS {
            let oldest = (self.members.iter()).min_by_key(|(_, heard)| (heard.at, heard.on_disk));
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.members.remove(&oldest);
        }
    }

    /// A journal was lost: until then (milliseconds since the epoch) it proves nothing that an id
    /// is not in it.
    pub(crate) fn lost_until(&self) -> u64 {
        self.lost_until
    }

    /// The intent is on disk here.
    pub(crate) fn note_durable(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.durable = true;
        }
    }

    /// The call of an intent is to be made alone. `None`: that was known.
    pub(crate) fn note_alone(&mut self, key: &Key) -> Option<IntentRecord> {
        let intent = self.entries.get_mut(key)?.intent.as_mut()?;
        if intent.alone {
            return None;
        }
        intent.alone = true;
        Some(intent.clone())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= limits::JOURNAL_ENTRIES
    }

    /// Whether there is room for the outcome of a command that has no intent.
    pub(crate) fn has_room_for_outcomes(&self) -> bool {
        self.entries.len() < limits::JOURNAL_OUTCOMES
    }

    // ---- taken back -------------------------------------------------------------------------------

    /// An own intent is taken back: nobody acknowledges that, so it is told again whenever what was
    /// said before may have been lost.
    /// `now`: monotonic milliseconds. Says when it had been made.
    pub(super) fn take_back(&mut self, key: &Key, now: u64) -> u64 {
        let entry = self.entries.get(key);
        let made = entry.and_then(|entry| Some(entry.intent.as_ref()?.at));
        let made = made.unwrap_or(0);
        if let Some(until) = entry.map(Entry::until) {
            self.withdrawn.insert(*key, TakenBack { until, made });
            self.again
                .insert((now + limits::JOURNAL_RESEND_MS, *key, 1));
        }
        if self.withdrawn.len() > limits::WITHDRAWN {
            let first = self.withdrawn.iter().min_by_key(|(_, taken)| taken.until);
            if let Some(first) = first.map(|(key, _)| *key) {
                self.withdrawn.remove(&first);
            }
        }
        // Those that are due last have been told the most.
        if self.again.len() > limits::WITHDRAWN {
            self.again.pop_last();
        }
        self.remove(key);
        made
    }

    /// It is made anew.
    pub(super) fn make_anew(&mut self, key: &Key) {
        self.withdrawn.remove(key);
    }

    /// When the intent of a command can be made, milliseconds since the epoch: later than one that
    /// was taken back, so that it is not taken for that one.
    pub(crate) fn made_at(&self, key: &Key, now_wall: u64) -> u64 {
        let taken = self.withdrawn.get(key);
        taken.map_or(now_wall, |taken| now_wall.max(taken.made.saturating_add(1)))
    }

    /// When what was taken back is told again, monotonic milliseconds.
    pub(super) fn tell_again_at(&self) -> Option<u64> {
        self.again.first().map(|(at, ..)| *at)
    }

    /// Tells again what was taken back, with growing pauses: nobody acknowledges it, and a message
    /// may be lost although nothing else is.
    pub(super) fn tell_taken_back(&mut self, now: u64, members: &[InstanceId]) {
        while let Some((at, key, times)) = self.again.first().copied() {
            if at > now {
                return;
            }
            self.again.pop_first();
            let Some(taken) = self.withdrawn.get(&key) else {
                continue;
            };
            for member in members {
                let out = self.out.entry(member.clone()).or_default();
                out.withdrawn.insert(key, taken.made);
            }
            if times < limits::WITHDRAWN_TIMES {
                let next = now + (limits::JOURNAL_RESEND_MS << times);
                self.again.insert((next, key, times + 1));
            }
        }
    }

    /// A member may not have heard what was taken back: it is told again.
    pub(super) fn tell_withdrawn(&mut self, member: &InstanceId) {
        if !self.withdrawn.is_empty() {
            let out = self.out.entry(member.clone()).or_default();
            let taken = self.withdrawn.iter();
            out.withdrawn
                .extend(taken.map(|(key, taken)| (*key, taken.made)));
        }
    }

    /// Changes an entry, which is made where it is missing.
    pub(super) fn change(&mut self, key: Key, f: impl FnOnce(&mut Entry)) {
        let entry = self.entries.entry(key).or_default();
        let (before, caller) = (entry.until(), entry.caller());
        f(entry);
        let (after, calls) = (entry.until(), entry.caller());
        self.by_age.remove(&(before, key));
        self.by_age.insert((after, key));
        if caller != calls {
            caller.map(|agent| self.calls.remove(&(agent, key)));
            calls.map(|agent| self.calls.insert((agent, key)));
        }
        while self.entries.len() > limits::JOURNAL_ENTRIES {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                return;
            };
            self.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_age.remove(&(entry.until(), *key));
            entry
                .caller()
                .map(|agent| self.calls.remove(&(agent, *key)));
        }
        // What is not there cannot be told, and nobody would ever acknowledge it.
        for owed in self.owed.values_mut() {
            owed.keys.remove(key);
            owed.under_way.remove(key);
        }
    }

    /// Forgets what is past its time.
    pub(super) fn sweep(&mut self, now: Now) {
        self.withdrawn.retain(|_, taken| taken.until > now.wall);
        while let Some((until, key)) = self.by_age.first().copied() {
            if until > now.wall {
                break;
            }
            self.by_age.pop_first();
            self.remove(&key);
        }
    }

    /// A member has started anew: what it had in memory only is gone.
    pub(super) fn lost_unkept(&mut self, member: &InstanceId) {
        for entry in self.entries.values_mut() {
            if entry.unkept_by.remove(member) {
                entry.acked.remove(member);
            }
        }
    }

    pub(crate) fn note_beat(&mut self, seq: u64, at: u64) {
        if self.beats.len() >= 32 {
            self.beats.pop_front();
        }
        self.beats.push_back((seq, at));
    }

    /// When an own heartbeat was sent.
    pub(crate) fn beat_sent(&self, seq: u64) -> Option<u64> {
        let found = self.beats.iter().find(|(known, _)| *known == seq);
        found.map(|(_, at)| *at)
    }

    pub(super) fn has_outgoing(&self) -> bool {
        !self.out.is_empty()
    }

    /// How many entries members are still to be told.
    pub(crate) fn owed_len(&self) -> usize {
        self.owed.values().map(|owed| owed.keys.len()).sum()
    }

    /// Members that have everything.
    pub(crate) fn is_settled(&self, member: &InstanceId) -> bool {
        self.owed
            .get(member)
            .is_none_or(|owed| owed.keys.is_empty())
    }
}

#[cfg(test)]
mod tests;
