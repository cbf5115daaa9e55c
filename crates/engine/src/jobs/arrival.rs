//! A command arrives: is it known, whose is it, and when its turn has come, what does it start?

use std::sync::Arc;

use crate::catalogue::{ErrorCode, Repeat, Step};
use crate::model::{AgentId, Cause, Destination};
use crate::wire::command::{Addressed, ClientCommand, Malformed};
use crate::wire::event::ClientEvent;
use crate::wire::message::RawMessage;
use crate::wire::reply::Outcome;

use crate::api::ids::{JobId, LinkEpoch};
use crate::api::input::{Delivery, Source};
use crate::jobs::ledger::{self, Key, Known};
use crate::jobs::life::{Stage, Tag};
use crate::jobs::{Answered, Evidence, Job, Origin, Transition};
use crate::state::timer::Timer;
use crate::{Engine, Event, limits};

/// The agent whose state a command changes. What it asks of a call is not undone by a state.
fn changed_agent(command: &ClientCommand) -> Option<&AgentId> {
    let spec = command.spec;
    if spec.repeat == Repeat::Unsafe || spec.args.iter().any(|arg| arg.name == "dialogId") {
        return None;
    }
    match (&command.addressee, command.spec.step) {
        (Addressed::Agent(agent), Step::SignIn(_) | Step::Request(_) | Step::Sequence(_)) => {
            Some(agent)
        }
        _ => None,
    }
}

impl Engine {
    // ---- arrival ------------------------------------------------------------------------------

    pub(crate) fn on_delivery(&mut self, mut delivery: Delivery) {
        if let (Ok(command), Source::Commands { group }) = (&mut delivery.command, delivery.source)
        {
            command.group = group;
        }
        let id = self.new_job(
            Origin::Delivery(delivery.id),
            Arc::new(delivery.raw),
            delivery.command,
        );
        let (Ok(job) | Err((job, _))) = &id;
        self.received(*job, delivery.id.link, delivery.source);
        match id {
            Ok(id) if delivery.source == Source::Expired => self.answer_expired(id),
            Ok(id) => {
                self.hear_client(id);
                self.accept(id);
            }
            Err((id, malformed)) => self.refuse(id, &malformed),
        }
    }

    fn received(&mut self, id: JobId, link: LinkEpoch, source: Source) {
        let Some(job) = self.jobs.get(id) else {
            return;
        };
        let broker = self.links.broker_of(link);
        let group = match source {
            Source::Commands { group } => self.groups.get(group).map(|group| group.name.clone()),
            Source::Expired => Some("expired".to_owned()),
        };
        let stage = Stage::Received {
            broker: broker.map_or_else(String::new, |broker| self.links.label(broker).to_owned()),
            queue: group.unwrap_or_default(),
            redelivered: job.raw.maybe_seen(),
            relayed: job.raw.relayed,
        };
        self.stage(id, stage);
    }

    pub(crate) fn new_job(
        &mut self,
        origin: Origin,
        raw: Arc<RawMessage>,
        command: Result<ClientCommand, Box<Malformed>>,
    ) -> Result<JobId, (JobId, Box<Malformed>)> {
        let id = JobId(self.number());
        let (command, malformed) = match command {
            Ok(command) => (Some(Arc::new(command)), None),
            Err(malformed) => (None, Some(malformed)),
        };
        let tag = Arc::new(Tag::of(&raw, command.as_deref(), malformed.as_deref()));
        let home = match &origin {
            Origin::Delivery(delivery) => self.links.broker_of(delivery.link),
            _ => self.links.active_broker(),
        };
        let job = Job::arrived(origin, raw, tag, command, home, self.now.mono);
        self.jobs.insert(id, job);
        match malformed {
            None => Ok(id),
            Some(malformed) => Err((id, malformed)),
        }
    }

    /// Looks up what is known of the command, then finds out whose it is.
    pub(crate) fn accept(&mut self, id: JobId) {
        let Some((command, key)) = self.job_command(id) else {
            return;
        };
        if self.jobs.get(id).is_some_and(|job| job.expired) {
            self.answer_expired(id);
            return;
        }
        if let Some((key, body)) = key {
            match self.known(&key, body) {
                Known::No => {}
                Known::OtherBody => {
                    self.refuse_other_body(id);
                    return;
                }
                Known::Finished(reply) => {
                    self.duplicate(id, "finished");
                    if !self.reads_again(&command, &reply) {
                        self.answer_again(id, &reply);
                        return;
                    }
                    self.ledger.forget(&key);
                    if let Some(job) = self.jobs.get_mut(id) {
                        job.again = true;
                    }
                }
                Known::Running(first) if self.jobs.get(first).is_none() => {
                    self.ledger.forget(&key);
                }
                Known::Running(first) => {
                    self.duplicate(id, "running");
                    // Its holder may be the one that this first one waits for.
                    if self.jobs.is_forward(id) && self.jobs.waits_elsewhere(first) {
                        self.send_back(id);
                    } else {
                        self.wait_for(id, first);
                    }
                    return;
                }
            }
        }
        if let Some((key, body)) = key {
            self.ledger.start(key, body, id, command.deadline_ms);
        }
        // What may have run is looked at where it is to run.
        if self.now.wall >= command.deadline_ms && !self.must_prove(id, &command) {
            self.expire(id, &command);
            return;
        }
        self.place(id, &command);
    }

    /// The id is another command's: what became of that one is no answer to this.
    pub(crate) fn refuse_other_body(&mut self, id: JobId) {
        self.duplicate(id, "other_body");
        let words = "the same message_id came before with another body";
        self.answer_without_record(id, Outcome::Rejected, words);
    }

    /// What is known of an id. The journal remembers outcomes of calls when too many others have
    /// pushed them out of the ledger.
    pub(crate) fn known(&self, key: &Key, body: [u8; 8]) -> Known {
        let now = self.retention.now();
        let known = self.ledger.look_up(now, key, body);
        let Known::No = known else {
            return known;
        };
        let entry = self
            .book
            .entry(key)
            .and_then(|entry| entry.outcome.as_ref());
        match entry.filter(|outcome| outcome.until > now.wall) {
            None => Known::No,
            Some(outcome) if outcome.body != body => Known::OtherBody,
            Some(outcome) => Known::Finished(Arc::new(outcome.reply.clone())),
        }
    }

    /// Answers a command that waits with the outcome that a peer has told since.
    pub(crate) fn answered_elsewhere(&mut self, id: JobId) -> bool {
        let Some((key, body)) = self.jobs.get(id).and_then(|job| job.key) else {
            return false;
        };
        let Known::Finished(reply) = self.known(&key, body) else {
            return false;
        };
        self.answer_again(id, &reply);
        true
    }

    /// Into the own lane, or held for its owner. What a peer handed to us is never held: it goes
    /// back to its holder, or two instances would wait for each other.
    pub(crate) fn place(&mut self, id: JobId, command: &ClientCommand) {
        if self.placement().serves(command) && !self.may_be_told_of(id, command) {
            self.enqueue(id, command);
        } else if self.jobs.is_forward(id) {
            if let Some((key, _)) = self.jobs.get(id).and_then(|job| job.key) {
                self.ledger.forget(&key);
            }
            self.send_back(id);
        } else {
            self.hold(id);
        }
    }

    /// Whether the agent of a command is not known here, and may be before long: its Connect may
    /// have gone to another one that serves, just before.
    pub(crate) fn may_be_told_of(&self, id: JobId, command: &ClientCommand) -> bool {
        let Addressed::Agent(agent) = &command.addressee else {
            return false;
        };
        let job = self.jobs.get(id);
        let young = job.is_some_and(|job| self.now.mono < job.received + limits::UNKNOWN_WAIT_MS);
        young
            && !self.jobs.is_forward(id)
            && !matches!(command.spec.step, Step::Connect | Step::Http)
            && self.sessions.get(agent).is_none()
            && !self.jobs.lanes.has(agent)
            && self.placement().others_connect(command.group)
            && self.as_supervisor(agent, command).is_none()
    }

    pub(crate) fn hold(&mut self, id: JobId) {
        let full = self.jobs.held_count() >= (self.cfg.prefetch / 2).max(1);
        if full && !self.may_have_run(id) {
            self.overloaded(id);
            return;
        }
        let since = self.now.mono;
        if self.step(id, Evidence::NotOurs { since }).is_none() {
            return;
        }
        self.stage(id, Stage::Held);
        self.jobs.hold(id);
        // Its owner may hold one of these, and would wait for this one, which waits for it.
        for waiter in self.jobs.take_forwarded_waiters(id) {
            self.send_back(waiter);
        }
        self.timers.set_by(Timer::Evidence, self.now.mono);
        self.release_held();
    }

    pub(crate) fn start_job(&mut self, id: JobId) {
        let Some((command, _)) = self.job_command(id) else {
            return;
        };
        if self.answered_elsewhere(id) {
            self.leave_lane(id, &command);
            return;
        }
        if self.must_prove(id, &command) {
            self.prove(id);
        } else {
            self.start_new(id, &command);
        }
    }

    /// Starts a command of which it is certain that nobody has started it.
    pub(crate) fn start_new(&mut self, id: JobId, command: &ClientCommand) {
        let expired = self.jobs.get(id).is_some_and(|job| job.expired);
        if expired || self.now.wall >= command.deadline_ms {
            self.finish(id, self.unstarted(id, command));
            return;
        }
        if self.overtaken(id, command) {
            self.in_doubt(id, "a newer command of its agent was carried out before");
            return;
        }
        let now = self.now.mono;
        if let Some(job) = self.jobs.get_mut(id) {
            job.started = Some(now);
        }
        self.adopt(command);
        match (&command.addressee, command.spec.step) {
            (Addressed::Destination(destination), Step::Hello) => self.hello(id, destination),
            (Addressed::Destination(destination), Step::Beat) => self.beat_of(id, destination),
            (Addressed::Agent(agent), Step::Connect) => self.connect(id, agent, command),
            (Addressed::Agent(agent), _) => self.start_work(id, agent, command),
            (Addressed::Destination(_), _) => {
                self.reject(
                    id,
                    ErrorCode::PleaseRetry,
                    "this command addresses an agent",
                );
            }
        }
    }

    /// Whether this state change may have been seen before, and a newer one of its agent was
    /// carried out: to run it would undo that. Clients' clocks tell in whole seconds, and
    /// only where they are given.
    pub(crate) fn overtaken(&self, id: JobId, command: &ClientCommand) -> bool {
        let job = self.jobs.get(id);
        let seen = job.is_some_and(|job| job.seen);
        let Some(agent) = changed_agent(command).filter(|_| seen) else {
            return false;
        };
        let session = self.sessions.get(agent);
        let newest = session.and_then(|it| it.record.newest_change.max(it.newest_known));
        let sent = job.and_then(|job| job.raw.sent_ms(self.now.wall));
        let sent = sent.map(|ms| ms / 1_000);
        sent.zip(newest).is_some_and(|(sent, newest)| sent < newest)
    }

    /// Remembers when a state change that was carried out had been sent.
    pub(crate) fn note_change(&mut self, id: JobId, command: &ClientCommand, outcome: Outcome) {
        // A request that may be repeated may have had its effect although it failed.
        let effect = !matches!(outcome, Outcome::Rejected | Outcome::Expired);
        let job = self.jobs.get(id).filter(|job| job.started.is_some());
        let sent = job.and_then(|job| job.raw.sent_ms(self.now.wall));
        let (Some(sent), Some(agent), true) = (sent, changed_agent(command), effect) else {
            return;
        };
        // A client's clock that is far ahead must not bar what is sent later.
        let sent = sent.min(self.now.wall + limits::CLIENT_AHEAD_MS) / 1_000;
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        // Only the owner writes the record; whoever owns the agent next is to know, also after a restart.
        if !session.owned_by(&self.cfg.instance) {
            session.newest_known = session.newest_known.max(Some(sent));
        } else if session.record.newest_change < Some(sent) {
            self.sessions
                .change(agent, |record| record.newest_change = Some(sent));
        }
    }

    // ---- clients ------------------------------------------------------------------------------

    pub(crate) fn hello(&mut self, id: JobId, destination: &Destination) {
        self.sessions.learn_destination(destination, true);
        self.tell_status(id, destination);
    }

    pub(crate) fn beat_of(&mut self, id: JobId, destination: &Destination) {
        if self.sessions.knows_destination(destination) {
            self.tell_status(id, destination);
            return;
        }
        let event = ClientEvent::DestinationReconnect {
            destination: destination.clone(),
        };
        let cause = self.cause(id);
        self.tell(destination, event, cause, self.keeping.epoch(), Some(id));
        self.finish(id, Answered::ok(Outcome::Ok, None, None));
    }

    pub(crate) fn tell_status(&mut self, id: JobId, destination: &Destination) {
        let event = ClientEvent::System(self.system_status());
        let cause = self.cause(id);
        self.tell(destination, event, cause, self.keeping.epoch(), Some(id));
        self.finish(id, Answered::ok(Outcome::Ok, None, None));
    }

    // ---- small --------------------------------------------------------------------------------

    /// What has become known of a job. `None`: there is no such job, or that cannot be; a mistake
    /// of this program is told, and the job stays what it is.
    pub(crate) fn step(&mut self, id: JobId, evidence: Evidence) -> Option<Transition> {
        match self.jobs.step(id, evidence)? {
            Ok(transition) => Some(transition),
            Err(refused) => {
                self.out.tell(Event::ImpossibleStep {
                    state: refused.state,
                    evidence: refused.evidence,
                });
                None
            }
        }
    }

    #[allow(clippy::type_complexity)]
    pub(crate) fn job_command(
        &self,
        id: JobId,
    ) -> Option<(Arc<ClientCommand>, Option<(ledger::Key, [u8; 8])>)> {
        let job = self.jobs.get(id)?;
        Some((job.command.clone()?, job.key))
    }

    /// What goes with all that a command causes.
    pub(crate) fn cause(&self, id: JobId) -> Cause {
        let command = self.jobs.get(id).and_then(|job| job.command.as_ref());
        command.map(|command| command.cause()).unwrap_or_default()
    }

    fn duplicate(&mut self, id: JobId, kind: &'static str) {
        self.stage(id, Stage::Duplicate { kind });
        let tag = self.jobs.get(id).map(|job| job.tag.clone());
        let tag = tag.unwrap_or_default();
        self.out.tell(Event::Duplicate { tag, kind });
    }
}
