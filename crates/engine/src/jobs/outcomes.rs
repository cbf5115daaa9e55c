//! Outcomes as others hear of them: one id never gets two definite ones.

use std::sync::Arc;

use crate::api::ids::JobId;
use crate::catalogue::ErrorCode;
use crate::jobs::{Answered, Job};
use crate::model::InstanceId;
use crate::wire::reply::Outcome;
use crate::{Engine, limits};

use crate::peer::{OutcomeRecord, PeerMessage};

impl Engine {
    /// What may have been carried out before, by somebody whose answer is not known here (also by
    /// an owner to whom it was handed and who is gone), is not said to have failed: that somebody
    /// may have said otherwise. Likewise after a pause, in
    /// which another one may have taken over (and have started anew since). The reason is kept.
    pub(crate) fn honest(&self, id: JobId, mut answered: Answered) -> Answered {
        let seen = |job: &Job| job.seen && !job.proven;
        let others_may_know = self.jobs.get(id).is_some_and(seen)
            || self.cluster.pause.is_open()
            || self.may_be_forgotten(id);
        if others_may_know && Self::may_differ(&answered) {
            answered.outcome = Outcome::InDoubt;
        }
        answered
    }

    /// A failure of a command that was started here and whose agent has another owner since: that
    /// one may have carried out what the client sent again. Not where an own intent is open: then
    /// nobody else does. The reason is kept.
    pub(crate) fn of_a_former_owner(&self, id: JobId, mut answered: Answered) -> Answered {
        let job = self.jobs.get(id).filter(|job| job.begun());
        let command = job.and_then(|job| job.command.as_ref());
        let others = command.is_some_and(|command| !self.placement().serves(command));
        let key = job.and_then(|job| job.key);
        let intent = key.and_then(|(key, _)| self.book.open_intent(&key));
        let own = intent.is_some_and(|intent| intent.boot == self.cfg.boot);
        if others && !own && Self::may_differ(&answered) {
            answered.outcome = Outcome::InDoubt;
        }
        answered
    }

    /// A peer tells an outcome. A command that is being carried out here, too (an instance that was
    /// frozen may have it begun), will end with it.
    pub(crate) fn hear_outcome(&mut self, mut outcome: OutcomeRecord) {
        // It may be told again, and is then not as new as it would be as a first word.
        let now = self.retention.now().wall;
        if outcome.until <= now {
            outcome.until = self.until_here(outcome.until);
        }
        self.compare_outcomes(&outcome);
        if let Some(id) = self.ledger.running(&outcome.key) {
            self.note_told(id, &outcome);
        }
        let jobs = &self.jobs;
        self.ledger
            .learn(self.retention.now(), outcome, |job| jobs.started(job));
    }

    /// Until when what a member has just told is remembered here. Its clock may be behind ours by
    /// more than it is remembered for.
    pub(crate) fn until_here(&self, until: u64) -> u64 {
        let now = self.retention.now().wall;
        let promised = now + limits::LEDGER_RETENTION_MS;
        match until < promised - limits::CLOCKS_APART_MS {
            true => promised,
            false => until.min(now + limits::REMEMBERED_MOST_MS),
        }
    }

    /// Another instance has told an outcome of a command that is in work here.
    pub(crate) fn note_told(&mut self, id: JobId, outcome: &OutcomeRecord) {
        let definite = outcome.reply.outcome != Outcome::InDoubt;
        if let Some(job) = self.jobs.get_mut(id).filter(|_| definite)
            && job.key == Some((outcome.key, outcome.body))
        {
            job.told = Some(Arc::new(outcome.reply.clone()));
        }
    }

    /// One id, one definite outcome: where another instance has told one, it is told here, too. An
    /// effect that another one had said would not come is in doubt.
    pub(crate) fn agreed(&self, id: JobId, mut answered: Answered) -> Answered {
        let told = self.jobs.get(id).and_then(|job| job.told.as_ref());
        match told {
            Some(told) if told.outcome != answered.outcome => {
                if Self::may_differ(&answered) {
                    return Answered::told(told);
                }
                answered.outcome = Outcome::InDoubt;
                answered
            }
            _ => answered,
        }
    }

    /// Whether another instance might come to another outcome. The peers are to know such a one
    /// before its client does: if this instance is lost right after, another one would try the
    /// command again and perhaps succeed.
    pub(crate) fn may_differ(answered: &Answered) -> bool {
        match answered.outcome {
            Outcome::Failed | Outcome::Expired => true,
            // Other refusals follow from the command alone, whoever reads it.
            Outcome::Rejected => answered
                .error
                .as_ref()
                .is_some_and(|(code, _)| code == ErrorCode::ReLogin.as_str()),
            Outcome::Ok | Outcome::Accepted | Outcome::InDoubt => false,
        }
    }

    /// Tells a peer that was away, or has started anew, the newest outcomes.
    pub(crate) fn tell_outcomes_again(&mut self, to: &InstanceId) {
        let all = self
            .ledger
            .newest(self.retention.now(), limits::OUTCOMES_TOLD_AGAIN);
        for outcomes in all.chunks(limits::DELTA_RECORDS) {
            let message = PeerMessage::Delta {
                sessions: Vec::new(),
                destinations: Vec::new(),
                outcomes: outcomes.to_vec(),
            };
            self.say(Some(to), message);
        }
    }
}
