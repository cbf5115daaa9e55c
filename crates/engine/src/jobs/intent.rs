//! The way of a non-idempotent command to its call, and of its outcome to its reply.
//!
//! ```text
//!   start ─▶ Doubting (may it have run?) ─▶ Intending ─▶ Running (call) ─▶ Recording ─▶ reply
//!              │ it may                        │ refused, no disk, lost ownership
//!              ▼                               ▼
//!            IN_DOUBT, or what is found out    REJECTED, or given to its owner
//! ```
//!
//! The call is made only when its intent is on disk here and at every member that is not lost,
//! this instance still owns the agent in the same epoch, the delivery is still its own, and every
//! member has shown lately that it hears us.

use crate::catalogue::Repeat;
use crate::downstream::http::shortened;
use crate::model::{AgentId, InstanceId};
use crate::wire::command::{Addressed, ClientCommand};
use crate::wire::reply::Outcome;

use crate::api::ids::JobId;
use crate::jobs::ledger::Key;
use crate::jobs::life::Stage;
use crate::jobs::work::Work;
use crate::jobs::{Answered, Evidence, State, Transition};
use crate::peer::{IntentRecord, IntentRefusal, OutcomeRecord};
use crate::state::timer::Timer;
use crate::{Engine, limits};

/// A command whose intent is on its way.
#[derive(Debug)]
pub(crate) struct Intending {
    pub work: Box<Work>,
    pub key: Key,
    /// The own epoch for the agent when the intent was made.
    pub epoch: u64,
    /// Whether it is on disk here.
    pub durable: bool,
    pub since: u64,
    pub sent_at: u64,
    /// A member knows another maker's intent.
    pub contested: bool,
}

impl Intending {
    /// An intent made at monotonic milliseconds `at`, on no disk yet.
    pub(crate) fn new(work: Box<Work>, key: Key, epoch: u64, at: u64) -> Self {
        Self {
            work,
            key,
            epoch,
            durable: false,
            since: at,
            sent_at: at,
            contested: false,
        }
    }
}

/// A command whose outcome is on its way.
#[derive(Debug)]
pub(crate) struct Recording {
    pub answered: Answered,
    pub key: Key,
    pub durable: bool,
    pub since: u64,
    pub sent_at: u64,
    /// A member is carrying the command out.
    pub contested: bool,
}

/// Code of a refusal because the journal cannot be written.
const NO_JOURNAL: &str = "JOURNAL_UNAVAILABLE";

impl Engine {
    /// Whether a command's call needs an intent: it must not run twice and can be told again.
    pub(crate) fn journaled(&self, id: JobId, command: &ClientCommand) -> bool {
        let keyed = self.jobs.get(id).is_some_and(|job| job.key.is_some());
        command.repeat != Repeat::Safe && keyed && matches!(command.addressee, Addressed::Agent(_))
    }

    fn epoch_of(&self, agent: &AgentId) -> u64 {
        let session = self.sessions.get(agent);
        session.map_or(0, |session| session.record.version.epoch)
    }

    /// Makes the intent of a command that is ready to run.
    pub(crate) fn intend(&mut self, id: JobId, work: Box<Work>, command: &ClientCommand) {
        let at = self.now.mono;
        self.make_intent(id, command, |key, epoch| {
            Evidence::Intended(Box::new(Intending::new(work, key, epoch, at)))
        });
    }

    /// Makes an intent in the agent's present epoch; `evidence` says what that is for the job.
    fn make_intent(
        &mut self,
        id: JobId,
        command: &ClientCommand,
        evidence: impl FnOnce(Key, u64) -> Evidence,
    ) {
        let (Some((key, body)), Addressed::Agent(agent)) = (
            self.jobs.get(id).and_then(|job| job.key),
            &command.addressee,
        ) else {
            return;
        };
        if self.book.is_full() {
            self.overloaded(id);
            self.leave_lane(id, command);
            return;
        }
        let epoch = self.epoch_of(agent);
        let now = self.now;
        let intent = IntentRecord {
            key,
            body,
            until: self.remembered_until(command),
            agent: agent.clone(),
            command: command.spec.name.to_owned(),
            epoch,
            by: self.cfg.instance.clone(),
            boot: self.cfg.boot,
            at: self.book.made_at(&key, now.wall),
            alone: self.misses_a_member(),
        };
        if self.step(id, evidence(key, epoch)).is_none() {
            // Nothing would ever take back what was written for it.
            self.leave_lane(id, command);
            return;
        }
        self.stage(
            id,
            Stage::Intended {
                alone: intent.alone,
            },
        );
        self.journal().write_intent(id, intent);
        self.timers
            .set_by(Timer::Journal, now.mono + limits::JOURNAL_RESEND_MS);
    }

    /// Until when an id is remembered, milliseconds since the epoch.
    fn remembered_until(&self, command: &ClientCommand) -> u64 {
        let retention = self.now.wall + limits::LEDGER_RETENTION_MS;
        command.deadline_ms.max(retention)
    }

    /// Whether a member that was ever heard is not there.
    fn misses_a_member(&self) -> bool {
        self.book.known_members().any(|id| {
            let peer = self.members.get(id);
            !peer.is_some_and(|peer| peer.liveness.present() && peer.heartbeat.journal)
        })
    }

    /// The word of the disk on an own intent.
    pub(crate) fn intent_written(&mut self, id: JobId, made: u64, failure: Option<&str>) {
        let Some(own) = self.jobs.intending_mut(id) else {
            return;
        };
        let key = own.key;
        // The word on one that was taken back says nothing of the one that was made since.
        if self
            .book
            .open_intent(&key)
            .is_some_and(|intent| intent.at != made)
        {
            return;
        }
        own.durable = true;
        match failure {
            None => {
                self.book.note_durable(&key);
                self.look_at_intent(id);
            }
            Some(_) => self.refuse_unjournaled(id, key),
        }
    }

    /// Without a journal nothing is called that must not be called twice.
    fn refuse_unjournaled(&mut self, id: JobId, key: Key) {
        self.journal().withdraw_intent(&key);
        let words =
            "the journal cannot be written, so the command was not started; try again later";
        let mut answered = Answered::error(Outcome::Rejected, NO_JOURNAL, words);
        answered.retry_after_ms = Some(limits::RETRY_AFTER_MS);
        self.refuse_in_lane(id, &answered);
    }

    /// Makes the call as soon as everything that it waits for has come.
    fn look_at_intent(&mut self, id: JobId) {
        let Some((command, _)) = self.job_command(id) else {
            return;
        };
        let Some(State::Intending(own)) = self.jobs.state(id) else {
            return;
        };
        let (key, epoch, durable, contested) = (own.key, own.epoch, own.durable, own.contested);
        let disputed = own.contested && self.now.mono >= own.since + limits::DOUBT_WAIT_MS;
        if !durable {
            return;
        }
        if self.finished_elsewhere(id) {
            self.journal().withdraw_intent(&key);
            self.answered_elsewhere(id);
            self.leave_lane(id, &command);
            return;
        }
        if disputed {
            self.in_doubt(id, "another instance may have started it");
            return;
        }
        if self.now.wall >= command.deadline_ms {
            if contested {
                // Its outcome comes, or the other maker takes its intent back.
                self.look_again_at_waiting();
                return;
            }
            // Nothing was called: what a member objects to counts as with any refusal.
            if let Some(job) = self.jobs.get_mut(id) {
                job.started = None;
            }
            self.finish(id, Self::expired());
            return;
        }
        let agent = match &command.addressee {
            Addressed::Agent(agent) => agent.clone(),
            Addressed::Destination(_) => return,
        };
        if !self.placement().serves(&command) {
            self.journal().withdraw_intent(&key);
            self.place_again(id, &command);
            return;
        }
        if self.epoch_of(&agent) != epoch {
            self.intend_again(id, key, &command);
            return;
        }
        if self.cluster.pause.is_open() || !self.may_call(&key) {
            self.look_again_at_waiting();
            return;
        }
        if !self.still_proven(id, &key) {
            self.abandon_own(id, key);
            return;
        }
        if self.misses_a_member() && self.note_alone(id, &key) {
            return;
        }
        self.make_call(id);
    }

    /// A member was lost while its word was awaited: that the call is made alone is durable
    /// before the call. `false`: it is so already.
    fn note_alone(&mut self, id: JobId, key: &Key) -> bool {
        let Some(intent) = self.book.note_alone(key) else {
            return false;
        };
        if let Some(own) = self.jobs.intending_mut(id) {
            own.durable = false;
        }
        self.journal().rewrite_intent(id, intent);
        true
    }

    /// Whether every member that is there has the intent, and has shown lately that it hears us.
    fn may_call(&self, key: &Key) -> bool {
        let Some(entry) = self.book.entry(key) else {
            return false;
        };
        let timers = self.peer_timers();
        let mut members = self.members.iter();
        members.all(|(id, peer)| {
            !peer.has_a_say(self.now, timers)
                || !peer.heartbeat.journal
                || (entry.acked.contains(id) && self.holds_lease(peer))
        })
    }

    fn make_call(&mut self, id: JobId) {
        let node = self.route.current();
        if self.step(id, Evidence::IntentHolds).is_some() {
            self.issue(id, node);
        }
    }

    /// The own intent of a job.
    fn own_intent(&self, id: JobId) -> Option<(Key, u64)> {
        let (key, _) = self.jobs.get(id)?.key?;
        let intent = self.book.open_intent(&key)?;
        let own = intent.by == self.cfg.instance && intent.boot == self.cfg.boot;
        own.then_some((key, intent.epoch))
    }

    /// A call that was held back is not made here: its intent is void.
    pub(crate) fn take_back_intent(&mut self, id: JobId) {
        if let Some((key, _)) = self.own_intent(id) {
            self.journal().withdraw_intent(&key);
        }
    }

    /// A call that was held back, because this process had been away, meets all its conditions
    /// anew. `false`: it has none.
    pub(crate) fn reconsider(&mut self, id: JobId) -> bool {
        let Some((key, epoch)) = self.own_intent(id) else {
            return false;
        };
        let at = self.now.mono;
        self.step(id, Evidence::HeldBack { key, epoch, at });
        self.look_at_intent(id);
        true
    }

    /// The agent is ours in a newer epoch: the members are asked anew.
    fn intend_again(&mut self, id: JobId, key: Key, command: &ClientCommand) {
        self.journal().withdraw_intent(&key);
        let at = self.now.mono;
        self.make_intent(id, command, |_, epoch| Evidence::IntendedAnew { epoch, at });
    }

    /// A command that was about to run is another's now.
    pub(crate) fn place_again(&mut self, id: JobId, command: &ClientCommand) {
        self.leave_lane_with(id, command, |engine| {
            if let Some(job) = engine.jobs.get_mut(id) {
                job.started = None;
            }
            engine.place(id, command);
        });
    }

    /// Its delivery is gone, and its call was not made: it comes again, to whomever.
    pub(crate) fn drop_unstarted(&mut self, id: JobId) {
        let Some((command, _)) = self.job_command(id) else {
            return;
        };
        if let Some(State::Intending(own)) = self.jobs.state(id) {
            let key = own.key;
            self.journal().withdraw_intent(&key);
        }
        self.leave_lane_with(id, &command, |engine| engine.give_up(id));
    }

    /// Whether it is certain, at the moment of the call, that nobody has started a command that may
    /// have been seen before: each member has acknowledged this intent, and so knew of none of its
    /// own, or is gone without having started it. A member may be lost since that was looked at.
    fn still_proven(&self, id: JobId, key: &Key) -> bool {
        let seen = self.jobs.get(id).is_some_and(|job| job.seen);
        if !seen && !self.may_have_missed(id) {
            return true;
        }
        let acked = self.book.entry(key).map(|entry| &entry.acked);
        let known = self.book.known_members();
        let mut others = known.filter(|id| !acked.is_some_and(|acked| acked.contains(*id)));
        others.all(|id| self.is_covered(id))
    }

    /// The proof is gone: nothing was called, and it is looked for anew.
    fn abandon_own(&mut self, id: JobId, key: Key) {
        self.journal().withdraw_intent(&key);
        self.abandon_intent(id);
    }

    /// Another maker's intent for the same command comes first.
    pub(crate) fn abandon_intent(&mut self, id: JobId) {
        let since = self.now.mono;
        if self.step(id, Evidence::MayHaveRun { since }).is_some() {
            self.look_again_at_waiting();
        }
    }

    pub(crate) fn intent_refused(&mut self, key: &Key, why: IntentRefusal) {
        let Some(id) = self.ledger.running(key) else {
            return;
        };
        match why {
            // Its outcome comes, or the other maker takes its intent back.
            IntentRefusal::Known => {
                if let Some(own) = self.jobs.intending_mut(id) {
                    own.contested = true;
                } else if let Some(own) = self.jobs.recording_mut(id) {
                    own.contested = true;
                }
            }
            // The newer epoch comes: the owner's records are on their way.
            IntentRefusal::Stale => {}
        }
    }

    // ---- outcomes -----------------------------------------------------------------------------

    /// Whether this outcome is to be durable before its reply: there is an intent, or whoever
    /// tries the command again may come to another one.
    pub(crate) fn records_outcome(&self, id: JobId, answered: &Answered) -> bool {
        let Some(job) = self.jobs.get(id) else {
            return false;
        };
        let Some((key, _)) = job
            .key
            .filter(|_| !matches!(job.state(), State::Recording(_)))
        else {
            return false;
        };
        let of_agent = (job.command.as_ref())
            .is_some_and(|command| matches!(command.addressee, Addressed::Agent(_)));
        let differs = of_agent && Self::may_differ(answered) && self.book.has_room_for_outcomes();
        differs || self.book.open_intent(&key).is_some()
    }

    pub(crate) fn record_outcome(&mut self, id: JobId, answered: Answered) {
        let Some((command, Some((key, body)))) = self.job_command(id) else {
            return;
        };
        let now = self.now;
        let record = self.outcome_record(&command, (key, body), &answered);
        let own = Recording {
            answered,
            key,
            durable: false,
            since: now.mono,
            sent_at: now.mono,
            contested: false,
        };
        self.step(id, Evidence::OutcomeMade(Box::new(own)));
        self.journal().write_outcome(Some(id), record);
        self.timers
            .set_by(Timer::Journal, now.mono + limits::JOURNAL_RESEND_MS);
    }

    /// The disk has the outcome, or cannot take it: what is done is done, and is told.
    pub(crate) fn outcome_written(&mut self, id: JobId) {
        if let Some(own) = self.jobs.recording_mut(id) {
            own.durable = true;
            self.look_at_record(id);
        }
    }

    /// Whether an outcome may be told now: on disk here, and known to every member that is there,
    /// or they have had their time. What came in meanwhile from others counts before anything is
    /// told.
    fn look_at_record(&mut self, id: JobId) {
        let Some(State::Recording(own)) = self.jobs.state(id) else {
            return;
        };
        let (key, since) = (own.key, own.since);
        let contested = own.contested && !self.jobs.started(id);
        if !own.durable {
            return;
        }
        if !self.jobs.started(id) && self.finished_elsewhere(id) {
            self.give_way_to_outcome(id, key);
            return;
        }
        if contested && self.now.mono < since + limits::DOUBT_WAIT_MS {
            self.look_again_at_waiting();
            return;
        }
        let members: Vec<InstanceId> = self.members.journaling();
        let entry = self.book.entry(&key);
        let told = entry.is_none_or(|entry| members.iter().all(|m| entry.acked.contains(m)));
        if !told {
            if self.now.mono < since + limits::OUTCOME_WAIT_MS {
                self.look_again_at_waiting();
                return;
            }
            self.owe_outcome(key);
        }
        if let Some(Transition::Recorded(mut own)) = self.step(id, Evidence::Known) {
            let recorded = own.answered.outcome;
            if contested {
                own.answered.outcome = Outcome::InDoubt;
            }
            let answered = self.agreed(id, own.answered);
            let answered = self.honest(id, answered);
            if answered.outcome != recorded {
                self.record_anew(id, &answered);
            }
            self.conclude(id, answered, true);
        }
    }

    /// Something has become known since an outcome was written: what the client hears is what is
    /// written here. The members have been told the other one, and would tell it back.
    fn record_anew(&mut self, id: JobId, answered: &Answered) {
        if let Some((command, Some(known))) = self.job_command(id) {
            let record = self.outcome_record(&command, known, answered);
            self.journal().keep_outcome(record);
        }
    }

    /// An outcome as the journal has it.
    fn outcome_record(
        &self,
        command: &ClientCommand,
        (key, body): (Key, [u8; 8]),
        answered: &Answered,
    ) -> OutcomeRecord {
        OutcomeRecord {
            key,
            body,
            until: self.remembered_until(command),
            reply: shortened(self.reply_to_command(command, answered)),
            resolved: false,
        }
    }

    /// Nothing was carried out here, and another instance has told what it did: that holds.
    fn give_way_to_outcome(&mut self, id: JobId, key: Key) {
        let Some((command, _)) = self.job_command(id) else {
            return;
        };
        if let Some(record) = self.ledger.record(&key) {
            self.journal().write_outcome(None, record);
        }
        self.answered_elsewhere(id);
        self.leave_lane(id, &command);
    }

    // ---- looking again ------------------------------------------------------------------------

    pub(crate) fn look_again_at_waiting(&mut self) {
        self.timers
            .set_by(Timer::Doubt, self.now.mono + limits::DOUBT_LOOK_MS);
    }

    /// Something changed: whatever waits for it is looked at.
    pub(crate) fn look_at_waiting(&mut self) {
        let waiting: Vec<JobId> = self.jobs.waiting().map(|(id, _)| id).collect();
        for id in waiting {
            match self.jobs.state(id) {
                Some(State::Intending(_)) => self.look_at_intent(id),
                Some(State::Recording(_)) => self.look_at_record(id),
                Some(State::Sharing(_)) => self.look_at_share(id),
                Some(State::Doubting { .. }) => self.look_at_doubt(id),
                // What was looked at before it has ended this one.
                _ => {}
            }
        }
    }
}
