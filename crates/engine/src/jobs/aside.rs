//! What something or somebody does not take: commands that a broker has put aside for another reason
//! than their deadline, and events that it refuses.

use crate::Engine;
use crate::Event;
use crate::agents::states::AGENT_STATES;
use crate::api::ids::{JobId, PublishId};
use crate::catalogue::ErrorCode;
use crate::jobs::Answered;
use crate::state::timer::Timer;
use crate::wire::command::ClientCommand;
use crate::wire::message::PutAside;
use crate::wire::reply::Outcome;

impl Engine {
    // ---- commands -----------------------------------------------------------------------------

    /// Why a command from the queue of expired ones is there, where that is not its deadline.
    pub(crate) fn put_aside(&self, id: JobId, command: &ClientCommand) -> Option<PutAside> {
        let job = self.jobs.get(id).filter(|job| job.expired)?;
        let aside = job.raw.put_aside.filter(|why| *why != PutAside::Expired);
        aside.filter(|_| self.now.wall < command.deadline_ms)
    }

    /// The answer to a command that was not started, for certain, and will not be.
    pub(crate) fn unstarted(&self, id: JobId, command: &ClientCommand) -> Answered {
        let why = match self.put_aside(id, command) {
            None | Some(PutAside::Expired) => return Self::expired(),
            Some(PutAside::Full) => "the command queue was full (maxlen)",
            Some(PutAside::GivenBack) => {
                "it was given back to the command queue too often (delivery_limit)"
            }
            Some(PutAside::Refused) => "a consumer of the command queue refused it (rejected)",
        };
        let words = format!("{why}: it was not started; send it again under a new message_id");
        Answered::error(Outcome::Rejected, ErrorCode::PleaseRetry.as_str(), &words)
    }

    // ---- events -------------------------------------------------------------------------------

    /// A broker refused an event (nack): one of the queues that are bound for it takes nothing,
    /// which says nothing about the others. It is tried again, under the same id, as the outbox
    /// says. A snapshot of an agent is not: the next one follows, and many clients hear it.
    pub(crate) fn event_refused(&mut self, id: PublishId) {
        if self.outbox.is_for(id, AGENT_STATES) {
            let sent = self.outbox.remove(id);
            if let Some(job) = sent.and_then(|sent| sent.job) {
                self.publish_settled(job);
            }
            return;
        }
        let jobs = self.outbox.event_refused(id, self.now.mono);
        self.settle_for(jobs);
        self.arm_refused();
    }

    /// Tries refused events again that are due, and gives up those whose time is over.
    pub(crate) fn retry_refused(&mut self) {
        for id in self.outbox.refused_due(self.now.mono) {
            let Some(sent) = self.outbox.remove(id) else {
                continue;
            };
            self.out.tell(Event::EventDropped);
            if let Some(job) = sent.job {
                self.publish_settled(job);
            }
        }
        self.arm_refused();
    }

    /// Commands do not wait for clients that take nothing: they would keep the prefetch.
    pub(crate) fn settle_for(&mut self, jobs: Vec<JobId>) {
        for job in jobs {
            self.publish_settled(job);
        }
    }

    pub(crate) fn arm_refused(&mut self) {
        if let Some(at) = self.outbox.refused_at() {
            self.timers.set_by(Timer::Outbox, at);
        }
    }
}
