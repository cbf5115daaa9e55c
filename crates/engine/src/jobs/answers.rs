//! Outcomes, replies, acknowledgements: a command's end.

use crate::api::command::{BrokerCommand, Outbound, ReplyRoute};
use crate::api::ids::JobId;
use crate::catalogue::{self, ErrorCode, Repeat, Step};
use crate::jobs::ledger::Known;
use crate::jobs::life::Stage;
use crate::jobs::{Answered, Evidence, Origin};
use crate::model::{AgentId, Cause, Destination};
use crate::peer::PeerMessage;
use crate::wire::command::{Addressed, ClientCommand, Malformed, ReplyTo};
use crate::wire::event::ClientEvent;
use crate::wire::message::PutAside;
use crate::wire::reply::{Outcome, Reply, ReplyError};
use crate::{Engine, Event, limits};
use std::sync::Arc;

/// The way a reply takes first: to where its command was published.
fn first_way(reply_to: &ReplyTo, relayed: bool) -> ReplyRoute {
    match reply_to {
        ReplyTo::Direct(name) => ReplyRoute::Direct(name.clone()),
        ReplyTo::Queue(name) if relayed => ReplyRoute::Far(name.clone()),
        ReplyTo::Queue(name) => ReplyRoute::Near(name.clone()),
    }
}

impl Engine {
    // ---- outcomes -----------------------------------------------------------------------------

    /// A command has its outcome: whoever is to know of its agent's session first is told.
    pub(crate) fn finish(&mut self, id: JobId, answered: Answered) {
        match self.to_share(id, &answered) {
            Some(agent) => self.share(id, agent, answered),
            None => self.finish_known(id, answered),
        }
    }

    /// Makes an outcome durable where that is due, then tells it.
    pub(crate) fn finish_known(&mut self, id: JobId, answered: Answered) {
        let again = self.jobs.get(id).is_some_and(|job| job.again);
        if again && answered.outcome != Outcome::Ok {
            // The outcome of its id is that of the first time.
            self.refuse_in_lane(id, &answered);
            return;
        }
        let answered = self.agreed(id, answered);
        // Before anybody is told: what is written and told to the members is what the client hears.
        let answered = self.of_a_former_owner(id, answered);
        let answered = self.honest(id, answered);
        if self.records_outcome(id, &answered) {
            self.record_outcome(id, answered);
        } else {
            self.conclude(id, answered, false);
        }
    }

    /// Remembers the outcome, which is the final one, tells the client, lets the lane go on. `told`:
    /// the peers have it.
    pub(crate) fn conclude(&mut self, id: JobId, answered: Answered, told: bool) {
        let Some((command, key)) = self.job_command(id) else {
            return;
        };
        let reply = Arc::new(self.reply_to_command(&command, &answered));
        if let Some((key, _)) = key
            && let Some((record, shrunk)) = self.ledger.finish(
                self.retention.now(),
                self.now.wall,
                key,
                &crate::downstream::http::to_remember(&reply),
            )
        {
            if !told {
                self.cluster.replication.tell_outcome(record);
            }
            if let Some(for_ms) = shrunk {
                self.out.tell(Event::LedgerOverflow { for_ms });
            }
            if Self::may_differ(&answered) {
                self.send_delta();
            }
        }
        if answered.outcome == Outcome::InDoubt {
            self.remember_doubt(id, &command);
        }
        self.note_change(id, &command, answered.outcome);
        self.report(id, &command, &answered);
        if let Some((code, message)) = &answered.error {
            self.tell_error(id, &command, code, message);
        }
        let waiters = self
            .jobs
            .get_mut(id)
            .map(|job| std::mem::take(&mut job.waiters))
            .unwrap_or_default();
        // An orphan's client is answered through the redelivery, where that has come already.
        let orphan = self
            .jobs
            .get(id)
            .is_some_and(|job| job.origin == Origin::Orphan);
        if !orphan || waiters.is_empty() {
            self.send_reply(id, &command, reply.clone());
        }
        for waiter in waiters {
            // Its error event has just been told.
            self.reply_again(waiter, &reply);
            self.settle(waiter);
        }
        self.settle(id);
        self.leave_lane(id, &command);
    }

    pub(crate) fn reply_to_command(&self, command: &ClientCommand, answered: &Answered) -> Reply {
        Reply {
            command: command.spec.name.to_owned(),
            id: command.addressee.as_str().to_owned(),
            outcome: answered.outcome,
            status: answered.status,
            instance: self.cfg.instance.to_string(),
            downstream: answered.downstream.clone(),
            error: answered.error.as_ref().map(|(code, message)| ReplyError {
                code: code.clone(),
                message: message.clone(),
            }),
            retry_after_ms: answered.retry_after_ms,
            body: answered.body.clone(),
        }
    }

    /// Tells that a command has its outcome: the line of the log, its numbers, its trace.
    pub(crate) fn report(&mut self, id: JobId, command: &ClientCommand, answered: &Answered) {
        let known = (command.spec.name, command.identity.is_some());
        self.report_as(id, known, answered);
    }

    /// [`Engine::report`] of a command of which only the catalogue's name is certain, and whether
    /// its client gave it an id.
    fn report_as(
        &mut self,
        id: JobId,
        (command, identified): (&'static str, bool),
        answered: &Answered,
    ) {
        let outcome = answered.outcome;
        let code = answered.error.as_ref().map(|(code, _)| code.clone());
        let now = self.now.mono;
        let Some(job) = self.jobs.get(id) else {
            return;
        };
        let started = job.started.unwrap_or(now);
        let millis = now.saturating_sub(job.received);
        let tag = job.tag.clone();
        self.out.tell(Event::CommandFinished {
            command,
            tag: tag.clone(),
            outcome,
            code: code.clone(),
            downstream: answered.downstream.clone(),
            status: answered.status,
            request_id: job.request_id.clone(),
            millis,
            waited: started.saturating_sub(job.received),
            identified,
        });
        if outcome == Outcome::InDoubt {
            self.out.tell(Event::InDoubt { tag: tag.clone() });
        }
        self.jobs.count_finished();
        let stage = Stage::Finished {
            outcome,
            code,
            millis,
        };
        self.tell_stage(tag, stage);
    }

    /// The error event to the client, as clients without replies expect it.
    pub(crate) fn tell_error(
        &mut self,
        id: JobId,
        command: &ClientCommand,
        code: &str,
        message: &str,
    ) {
        let Some(destination) = self.destination_of(command) else {
            return;
        };
        let agent = match &command.addressee {
            Addressed::Agent(agent) => Some(agent.clone()),
            Addressed::Destination(_) => None,
        };
        let event = match (&agent, code == ErrorCode::ReLogin.as_str()) {
            (Some(agent), true) => ClientEvent::ReLogin {
                agent: agent.clone(),
            },
            _ => ClientEvent::Error {
                agent,
                code: code.to_owned(),
                message: message.to_owned(),
            },
        };
        let cause = command.cause();
        let epoch = match &command.addressee {
            Addressed::Agent(agent) => self.epoch_told(Some(agent)),
            Addressed::Destination(_) => self.epoch_told(None),
        };
        self.tell(&destination, event, cause, epoch, Some(id));
    }

    /// The epoch of an agent's owner, as all events about the agent carry it: clients drop what
    /// carries a lower one than they have seen. Where there is no session there are no others.
    fn epoch_told(&self, agent: Option<&AgentId>) -> u64 {
        let session = agent.and_then(|agent| self.sessions.get(agent));
        session.map_or_else(
            || self.keeping.epoch(),
            |session| session.record.version.epoch,
        )
    }

    /// The destination that hears of this command: the one that the agent is to be bound to, that of
    /// the client that sent it (`reply_to`), or the agent's.
    pub(crate) fn destination_of(&self, command: &ClientCommand) -> Option<Destination> {
        match &command.addressee {
            Addressed::Destination(destination) => Some(destination.clone()),
            Addressed::Agent(agent) => {
                let named = command.args.get("destination");
                let wanted = named.and_then(|text| Destination::new(text).ok());
                wanted.or_else(|| self.asker(Some(agent), command.reply_to.as_ref()))
            }
        }
    }

    /// Who hears of a command to an agent: the client that `reply_to` names, where that one is known,
    /// or the agent's own; of an agent without one, whoever `reply_to` names.
    fn asker(&self, agent: Option<&AgentId>, reply_to: Option<&ReplyTo>) -> Option<Destination> {
        let named = match reply_to {
            Some(ReplyTo::Queue(name)) => Destination::new(name).ok(),
            _ => None,
        };
        let sender = named
            .as_ref()
            .filter(|name| self.sessions.knows_destination(name));
        let own = || Some(&self.sessions.get(agent?)?.record.destination);
        sender.or_else(own).cloned().or(named)
    }

    /// Sends the terminal reply, where one is asked for.
    pub(crate) fn send_reply(&mut self, id: JobId, command: &ClientCommand, reply: Arc<Reply>) {
        if let Some(reply_to) = self.wanted_reply(command) {
            self.post_reply(id, reply_to, reply, command.cause());
        }
    }

    /// Where a command's reply goes to, where one is asked for.
    fn wanted_reply<'a>(&self, command: &'a ClientCommand) -> Option<&'a ReplyTo> {
        let reply_to = command.reply_to.as_ref()?;
        // A client of the agent is told by events alone. That of another agent may have a queue of
        // its destination's name, and is told by events, too.
        let own = match &command.addressee {
            Addressed::Agent(agent) if command.args.get("destination").is_none() => {
                self.sessions.get(agent).map(|s| &s.record.destination)
            }
            _ => None,
        };
        let own = own.cloned().or_else(|| self.destination_of(command));
        let to_itself = own.is_some_and(|own| own.as_str() == reply_to.as_str())
            && self.known_client(command, reply_to);
        (!to_itself).then_some(reply_to)
    }

    /// Posts a reply. Its way is chosen for the broker that its command was consumed on.
    fn post_reply(&mut self, id: JobId, reply_to: &ReplyTo, reply: Arc<Reply>, cause: Cause) {
        let job = self.jobs.get(id);
        let relayed = job.is_some_and(|job| job.raw.relayed);
        let home = job.and_then(|job| job.home);
        let home = home.or(self.links.active_broker()).unwrap_or(0);
        let message = Outbound::Reply {
            route: first_way(reply_to, relayed),
            reply,
            cause,
            message_id: self.message_id(),
        };
        let to = reply_to.as_str().to_owned();
        self.stage(id, Stage::Replied { to });
        self.post_from(message, Some(id), Some(home));
    }

    /// Whether `reply_to` is the address of a client that we know: such a client is told by events.
    pub(crate) fn known_client(&self, command: &ClientCommand, reply_to: &ReplyTo) -> bool {
        if matches!(command.spec.step, Step::Hello | Step::Beat | Step::Connect) {
            return true;
        }
        Destination::new(reply_to.as_str())
            .is_ok_and(|destination| self.sessions.knows_destination(&destination))
    }

    /// Everything about this job is said; acknowledge as soon as the broker has it.
    pub(crate) fn settle(&mut self, id: JobId) {
        self.step(id, Evidence::Said);
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        let waiters = std::mem::take(&mut job.waiters);
        if job.unconfirmed == 0 {
            self.done(id);
        }
        self.accept_again(waiters);
    }

    /// Jobs that waited for one that is over: its outcome is known now, or they take its place.
    pub(crate) fn accept_again(&mut self, waiters: Vec<JobId>) {
        for waiter in waiters {
            self.accept(waiter);
        }
    }

    /// One of a job's publications is confirmed (or dropped for good).
    pub(crate) fn publish_settled(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        job.unconfirmed = job.unconfirmed.saturating_sub(1);
        if job.is_settled() {
            self.done(id);
        }
    }

    pub(crate) fn done(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(id) else {
            return;
        };
        match job.origin {
            Origin::Delivery(delivery) => {
                self.tell_stage(job.tag, Stage::Acknowledged);
                self.out.push(BrokerCommand::Ack(delivery));
            }
            Origin::Forwarded { peer, id } => {
                self.tell_stage(job.tag, Stage::ToldHolder { to: peer.clone() });
                self.jobs.note_over(&peer, id);
                self.say(Some(&peer), PeerMessage::ForwardDone { id });
            }
            Origin::Orphan => {}
        }
        self.accept_again(job.waiters);
    }

    /// A command whose outcome is known. Whoever is told by events alone is told its error by one:
    /// that of the first time may never have left.
    pub(crate) fn answer_again(&mut self, id: JobId, reply: &Arc<Reply>) {
        self.reply_again(id, reply);
        if let Some((command, _)) = self.job_command(id)
            && let Some(error) = &reply.error
            && self.wanted_reply(&command).is_none()
        {
            self.tell_error(id, &command, &error.code, &error.message);
        }
        self.settle(id);
    }

    fn reply_again(&mut self, id: JobId, reply: &Arc<Reply>) {
        if let Some((command, _)) = self.job_command(id) {
            self.send_reply(id, &command, reply.clone());
        }
    }

    /// Whether a command that was carried out before is carried out again: it only reads, and its
    /// answer is not in the reply that is remembered (it was an event, or too long).
    pub(crate) fn reads_again(&self, command: &ClientCommand, reply: &Reply) -> bool {
        let late = self.now.wall >= command.deadline_ms;
        if late || reply.outcome != Outcome::Ok || command.repeat != Repeat::Safe {
            return false;
        }
        match command.spec.step {
            Step::Hello | Step::Beat | Step::Query(_) => self.wanted_reply(command).is_none(),
            Step::Http => {
                let method = command.args.get("method").unwrap_or_default();
                reply.body.is_none() && method.eq_ignore_ascii_case("GET")
            }
            _ => false,
        }
    }

    /// An answer that is not the command's outcome and so is not remembered.
    pub(crate) fn answer_without_record(&mut self, id: JobId, outcome: Outcome, words: &str) {
        let Some((command, _)) = self.job_command(id) else {
            return;
        };
        let code = ErrorCode::PleaseRetry.as_str();
        self.only_tell(id, &command, &Answered::error(outcome, code, words));
    }

    pub(crate) fn reject(&mut self, id: JobId, code: ErrorCode, message: &str) {
        let answered = Answered::error(Outcome::Rejected, code.as_str(), message);
        self.finish(id, answered);
    }

    pub(crate) fn in_doubt(&mut self, id: JobId, why: &str) {
        if let Some((command, Some((key, body)))) = self.job_command(id) {
            self.ledger.start(key, body, id, command.deadline_ms);
        }
        self.finish(id, Answered::error(Outcome::InDoubt, "IN_DOUBT", why));
    }

    pub(crate) fn overloaded(&mut self, id: JobId) {
        let words = "too many commands wait; try again later";
        let code = ErrorCode::PleaseRetry.as_str();
        let mut answered = Answered::error(Outcome::Rejected, code, words);
        answered.retry_after_ms = Some(limits::RETRY_AFTER_MS);
        self.refuse_for_now(id, &answered);
    }

    /// Refused for now, not for good: the id may come again.
    pub(crate) fn refuse_for_now(&mut self, id: JobId, answered: &Answered) {
        let Some((command, key)) = self.job_command(id) else {
            return;
        };
        if let Some((key, _)) = key {
            self.ledger.forget(&key);
        }
        self.only_tell(id, &command, answered);
    }

    /// What cannot be done on this machine just now, and may be done elsewhere or later.
    pub(crate) fn refuse_till_later(&mut self, id: JobId, words: &str) {
        let code = ErrorCode::PleaseRetry.as_str();
        let mut answered = Answered::error(Outcome::Rejected, code, words);
        answered.retry_after_ms = Some(limits::NO_ROOM_RETRY_MS);
        self.refuse_in_lane(id, &answered);
    }

    /// The same of one whose turn it was: its lane goes on.
    pub(crate) fn refuse_in_lane(&mut self, id: JobId, answered: &Answered) {
        // Whoever wants no answer is done with it at once.
        let known = self.job_command(id);
        self.refuse_for_now(id, answered);
        if let Some((command, _)) = known {
            self.leave_lane(id, &command);
        }
    }

    /// Tells the client and is done with it.
    fn only_tell(&mut self, id: JobId, command: &ClientCommand, answered: &Answered) {
        let reply = Arc::new(self.reply_to_command(command, answered));
        self.report(id, command, answered);
        if let Some((code, message)) = &answered.error {
            self.tell_error(id, command, code, message);
        }
        self.send_reply(id, command, reply);
        self.settle(id);
    }

    pub(crate) fn expired() -> Answered {
        let words = "its deadline passed before it was started";
        Answered::error(Outcome::Expired, "EXPIRED", words)
    }

    /// A command that the broker expired: answered from there, unless its outcome is known.
    pub(crate) fn answer_expired(&mut self, id: JobId) {
        let Some((command, key)) = self.job_command(id) else {
            return;
        };
        if let Some(job) = self.jobs.get_mut(id) {
            job.expired = true;
            // Dead-lettering takes the mark of a redelivery away.
            let delivered = job.raw.put_aside.is_some_and(PutAside::was_delivered);
            job.seen |= delivered || command.repeat != Repeat::Safe;
        }
        match key.map(|(key, body)| self.known(&key, body)) {
            Some(Known::Finished(reply)) => self.answer_again(id, &reply),
            Some(Known::Running(first)) if self.jobs.get(first).is_some() => {
                self.wait_for(id, first);
            }
            Some(Known::OtherBody) => self.refuse_other_body(id),
            Some(Known::Running(_) | Known::No) | None => {
                let Some((command, key)) = self.job_command(id) else {
                    return;
                };
                if let Some((key, body)) = key {
                    self.ledger.start(key, body, id, command.deadline_ms);
                }
                self.expire(id, &command);
            }
        }
    }

    /// A message that is no command: answered where an address is known, and kept for people.
    pub(crate) fn refuse(&mut self, id: JobId, malformed: &Malformed) {
        let tag = self.jobs.get(id).map(|job| job.tag.clone());
        self.out.tell(Event::DeadLettered {
            tag: tag.unwrap_or_default(),
            reason: malformed.reason,
            detail: malformed.detail.clone(),
        });
        self.stage(
            id,
            Stage::DeadLettered {
                reason: malformed.reason,
            },
        );
        self.report_malformed(id, malformed);
        let known = (malformed.destination.clone())
            .or_else(|| self.asker(malformed.agent.as_ref(), malformed.reply_to.as_ref()));
        let code = malformed.code.as_str();
        if let Some(destination) = &known {
            let event = ClientEvent::Error {
                agent: malformed.agent.clone(),
                code: code.to_owned(),
                message: malformed.detail.clone(),
            };
            let cause = malformed.cause();
            let epoch = self.epoch_told(malformed.agent.as_ref());
            self.tell(destination, event, cause, epoch, Some(id));
        }
        self.reply_to_malformed(id, malformed);
        if let Some(raw) = self.jobs.get(id).map(|job| job.raw.clone()) {
            self.post(
                Outbound::DeadLetter {
                    raw,
                    reason: malformed.reason,
                    detail: malformed.detail.clone(),
                },
                Some(id),
            );
        }
        self.settle(id);
    }

    /// What was understood by its name is told like any other command that has its outcome.
    fn report_malformed(&mut self, id: JobId, malformed: &Malformed) {
        let name = malformed.command.as_deref().unwrap_or_default();
        let Some(spec) = catalogue::find(name) else {
            return;
        };
        let code = malformed.code.as_str();
        let answered = Answered::error(Outcome::Rejected, code, malformed.detail.clone());
        self.report_as(id, (spec.name, malformed.identity.is_some()), &answered);
    }

    /// As a command that was understood is answered: not where its own client is told by events.
    fn reply_to_malformed(&mut self, id: JobId, malformed: &Malformed) {
        let Some(reply_to) = &malformed.reply_to else {
            return;
        };
        let session = malformed
            .agent
            .as_ref()
            .and_then(|it| self.sessions.get(it));
        let own = session.map(|session| &session.record.destination);
        let told = own.or(malformed.destination.as_ref()).is_some_and(|own| {
            own.as_str() == reply_to.as_str() && self.sessions.knows_destination(own)
        });
        if told {
            return;
        }
        let reply = Arc::new(Reply {
            command: malformed.command.clone().unwrap_or_default(),
            id: malformed.id.clone(),
            outcome: Outcome::Rejected,
            status: None,
            instance: self.cfg.instance.to_string(),
            downstream: None,
            error: Some(ReplyError {
                code: malformed.code.as_str().to_owned(),
                message: malformed.detail.clone(),
            }),
            retry_after_ms: None,
            body: None,
        });
        let cause = malformed.cause();
        self.post_reply(id, reply_to, reply, cause);
    }

    pub(crate) fn wait_for(&mut self, id: JobId, first: JobId) {
        if self.step(id, Evidence::SameIdInWork).is_none() {
            return;
        }
        if let Some(job) = self.jobs.get_mut(first) {
            job.waiters.push(id);
        }
    }
}
