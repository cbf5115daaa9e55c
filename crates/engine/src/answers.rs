//! Outcomes, replies, acknowledgements: a command's end.

use super::command::{BrokerCommand, Outbound, ReplyRoute};
use super::fitness::Way;
use super::ids::{JobId, LinkEpoch, PublishId};
use super::input::PublishOutcome;
use super::jobs::{Answered, Evidence, Origin};
use super::ledger::Known;
use super::life::Stage;
use super::outbox::Sent;
use super::peer::PeerMessage;
use super::timer::Timer;
use super::{Engine, Event, limits};
use crate::catalogue::{ErrorCode, Repeat, Step};
use crate::model::{AgentId, Cause, Destination};
use crate::wire::command::{Addressed, ClientCommand, Malformed, ReplyTo};
use crate::wire::event::ClientEvent;
use crate::wire::message::PutAside;
use crate::wire::reply::{Outcome, Reply, ReplyError};
use std::sync::Arc;

/// The way a reply takes first: to where its command was published.
fn first_way(reply_to: &ReplyTo, federated: bool) -> ReplyRoute {
    match reply_to {
        ReplyTo::Direct(name) => ReplyRoute::Direct(name.clone()),
        ReplyTo::Queue(name) if federated => ReplyRoute::Federated(name.clone()),
        ReplyTo::Queue(name) => ReplyRoute::Queue(name.clone()),
    }
}

impl Engine {
    // ---- outcomes -----------------------------------------------------------------------------

    /// A command has its outcome: whoever is to know of its agent's session first is told.
    pub(super) fn finish(&mut self, id: JobId, answered: Answered) {
        match self.to_share(id, &answered) {
            Some(agent) => self.share(id, agent, answered),
            None => self.finish_known(id, answered),
        }
    }

    /// Makes an outcome durable where that is due, then tells it.
    pub(super) fn finish_known(&mut self, id: JobId, answered: Answered) {
        let answered = self.agreed(id, answered);
        if self.records_outcome(id, &answered) {
            self.record_outcome(id, answered);
        } else {
            self.conclude(id, answered, false);
        }
    }

    /// Remembers the outcome, tells the client, lets the lane go on. `told`: the peers have it.
    pub(super) fn conclude(&mut self, id: JobId, answered: Answered, told: bool) {
        let Some((command, key)) = self.job_command(id) else {
            return;
        };
        let answered = self.agreed(id, answered);
        let answered = self.honest(id, answered);
        let reply = Arc::new(self.reply_to_command(&command, &answered));
        if let Some((key, _)) = key
            && let Some((record, early)) =
                self.ledger
                    .finish(self.kept, key, super::http::to_remember(&reply))
        {
            if !told {
                self.outcomes.push(record);
            }
            if early {
                self.events.push_back(Event::LedgerOverflow);
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
            self.answer_again(waiter, &reply);
        }
        self.settle(id);
        self.leave_lane(id, &command);
    }

    pub(super) fn reply_to_command(&self, command: &ClientCommand, answered: &Answered) -> Reply {
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

    pub(super) fn report(&mut self, id: JobId, command: &ClientCommand, answered: &Answered) {
        let outcome = answered.outcome;
        let code = answered.error.as_ref().map(|(code, _)| code.clone());
        let now = self.now.mono;
        let Some(job) = self.jobs.get(id) else {
            return;
        };
        let started = job.started.unwrap_or(now);
        let millis = now.saturating_sub(job.received);
        let tag = job.tag.clone();
        self.finished += 1;
        self.events.push_back(Event::CommandFinished {
            command: command.spec.name,
            tag: tag.clone(),
            outcome,
            code: code.clone(),
            downstream: answered.downstream.clone(),
            status: answered.status,
            request_id: job.request_id.clone(),
            millis,
            waited: started.saturating_sub(job.received),
            identified: command.identity.is_some(),
        });
        let stage = Stage::Finished {
            outcome,
            code,
            millis,
        };
        self.tell_stage(tag, stage);
    }

    /// The error event to the client, as clients without replies expect it.
    pub(super) fn tell_error(
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
        self.tell(&destination, event, cause, self.epoch, Some(id));
    }

    /// The destination that hears of this command: the one that the agent is to be bound to, that of
    /// the client that sent it (`reply_to`), or the agent's.
    pub(super) fn destination_of(&self, command: &ClientCommand) -> Option<Destination> {
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
    pub(super) fn send_reply(&mut self, id: JobId, command: &ClientCommand, reply: Arc<Reply>) {
        let Some(reply_to) = &command.reply_to else {
            return;
        };
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
        if to_itself {
            return;
        }
        let cause = command.cause();
        self.post_reply(id, reply_to, reply, cause);
    }

    /// Posts a reply. Its way is chosen for the broker that its command was consumed on.
    fn post_reply(&mut self, id: JobId, reply_to: &ReplyTo, reply: Arc<Reply>, cause: Cause) {
        let job = self.jobs.get(id);
        let federated = job.is_some_and(|job| job.raw.federated);
        let home = job.and_then(|job| job.home);
        let home = home.or(self.links.active_broker()).unwrap_or(0);
        let message = Outbound::Reply {
            route: first_way(reply_to, federated),
            reply,
            cause,
            message_id: self.message_id(),
        };
        let to = reply_to.as_str().to_owned();
        self.stage(id, Stage::Replied { to });
        self.post_from(message, Some(id), Some(home));
    }

    /// Whether `reply_to` is the address of a client that we know: such a client is told by events.
    pub(super) fn known_client(&self, command: &ClientCommand, reply_to: &ReplyTo) -> bool {
        if matches!(command.spec.step, Step::Hello | Step::Beat | Step::Connect) {
            return true;
        }
        Destination::new(reply_to.as_str())
            .is_ok_and(|destination| self.sessions.knows_destination(&destination))
    }

    /// Everything about this job is said; acknowledge as soon as the broker has it.
    pub(super) fn settle(&mut self, id: JobId) {
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
    pub(super) fn accept_again(&mut self, waiters: Vec<JobId>) {
        for waiter in waiters {
            self.accept(waiter);
        }
    }

    /// One of a job's publications is confirmed (or dropped for good).
    pub(super) fn publish_settled(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        job.unconfirmed = job.unconfirmed.saturating_sub(1);
        if job.is_settled() {
            self.done(id);
        }
    }

    pub(super) fn done(&mut self, id: JobId) {
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
                self.say(Some(&peer), PeerMessage::ForwardDone { id });
            }
            Origin::Orphan => {}
        }
        self.accept_again(job.waiters);
    }

    pub(super) fn answer_again(&mut self, id: JobId, reply: &Arc<Reply>) {
        if let Some((command, _)) = self.job_command(id) {
            self.send_reply(id, &command, reply.clone());
        }
        self.settle(id);
    }

    /// An answer that is not the command's outcome and so is not remembered.
    pub(super) fn answer_without_record(&mut self, id: JobId, outcome: Outcome, words: &str) {
        let Some((command, _)) = self.job_command(id) else {
            return;
        };
        let code = ErrorCode::PleaseRetry.as_str();
        let answered = Answered::error(outcome, code, words);
        let reply = Arc::new(self.reply_to_command(&command, &answered));
        self.report(id, &command, &answered);
        self.tell_error(id, &command, code, words);
        self.send_reply(id, &command, reply);
        self.settle(id);
    }

    pub(super) fn reject(&mut self, id: JobId, code: ErrorCode, message: &str) {
        let answered = Answered::error(Outcome::Rejected, code.as_str(), message);
        self.finish(id, answered);
    }

    pub(super) fn in_doubt(&mut self, id: JobId, why: &str) {
        self.events.push_back(Event::InDoubt);
        if let Some((command, Some((key, body)))) = self.job_command(id) {
            self.ledger.start(key, body, id, command.deadline_ms);
        }
        self.finish(id, Answered::error(Outcome::InDoubt, "IN_DOUBT", why));
    }

    pub(super) fn overloaded(&mut self, id: JobId) {
        let words = "too many commands wait; try again later";
        let code = ErrorCode::PleaseRetry.as_str();
        let mut answered = Answered::error(Outcome::Rejected, code, words);
        answered.retry_after_ms = Some(limits::RETRY_AFTER_MS);
        self.refuse_for_now(id, code, words, &answered);
    }

    /// Refused for now, not for good: the id may come again.
    pub(super) fn refuse_for_now(
        &mut self,
        id: JobId,
        code: &str,
        words: &str,
        answered: &Answered,
    ) {
        let Some((command, key)) = self.job_command(id) else {
            return;
        };
        if let Some((key, _)) = key {
            self.ledger.forget(&key);
        }
        let reply = Arc::new(self.reply_to_command(&command, answered));
        self.report(id, &command, answered);
        self.tell_error(id, &command, code, words);
        self.send_reply(id, &command, reply);
        self.settle(id);
    }

    pub(super) fn expired() -> Answered {
        let words = "its deadline passed before it was started";
        Answered::error(Outcome::Expired, "EXPIRED", words)
    }

    /// A command that the broker expired: answered from there, unless its outcome is known.
    pub(super) fn answer_expired(&mut self, id: JobId) {
        let Some((command, key)) = self.job_command(id) else {
            return;
        };
        if let Some(job) = self.jobs.get_mut(id) {
            job.expired = true;
            // Dead-lettering takes the mark of a redelivery away.
            let delivered = job.raw.put_aside.is_some_and(PutAside::was_delivered);
            job.seen |= delivered || command.repeat != Repeat::Safe;
        }
        match key.map(|(key, body)| self.ledger.look_up(&key, body)) {
            Some(Known::Finished(reply)) => self.answer_again(id, &reply),
            Some(Known::Running(first)) if self.jobs.get(first).is_some() => {
                self.wait_for(id, first);
            }
            Some(Known::OtherBody) => self.settle(id),
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
    pub(super) fn refuse(&mut self, id: JobId, malformed: &Malformed) {
        self.events.push_back(Event::DeadLettered {
            reason: malformed.reason,
            detail: malformed.detail.clone(),
        });
        self.stage(
            id,
            Stage::DeadLettered {
                reason: malformed.reason,
            },
        );
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
            self.tell(destination, event, cause, self.epoch, Some(id));
        }
        self.reply_to_malformed(id, malformed, known.as_ref());
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

    pub(super) fn reply_to_malformed(
        &mut self,
        id: JobId,
        malformed: &Malformed,
        known: Option<&Destination>,
    ) {
        let Some(reply_to) = &malformed.reply_to else {
            return;
        };
        let told = known.is_some_and(|own| {
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

    pub(super) fn wait_for(&mut self, id: JobId, first: JobId) {
        self.step(id, Evidence::SameIdInWork);
        if let Some(job) = self.jobs.get_mut(first) {
            job.waiters.push(id);
        }
    }

    // ---- publications -------------------------------------------------------------------------

    pub(super) fn on_published(&mut self, id: PublishId, outcome: PublishOutcome) {
        match outcome {
            PublishOutcome::Confirmed => {
                if let Some((sent, overtaken)) = self.outbox.confirmed(id) {
                    let lost = (0..overtaken).map(|_| Event::EventDropped);
                    self.events.extend(lost);
                    if let Some(job) = sent.job {
                        self.publish_settled(job);
                    }
                }
            }
            PublishOutcome::Returned => {
                if let Some(link) = self.outbox.unparked(id) {
                    // It is declared again, at once and then with growing pauses.
                    self.park_again(id, link, "it was deleted", limits::DECLARED_MS);
                } else if let Some(sent) = self.outbox.remove(id) {
                    self.reroute(sent);
                }
            }
            PublishOutcome::Refused => self.on_refused(id),
            PublishOutcome::Barred if self.outbox.far_reply(id) => {
                if let Some(sent) = self.outbox.remove(id) {
                    self.reroute(sent);
                }
            }
            PublishOutcome::Barred | PublishOutcome::Failed => {
                if outcome == PublishOutcome::Failed {
                    self.look_at_failures(id);
                }
                self.rest(id, limits::RETRY_REST_MS);
            }
        }
    }

    /// A broker refused a publication (nack).
    fn on_refused(&mut self, id: PublishId) {
        if self.outbox.is_event(id) {
            self.event_refused(id);
        } else if let Some(link) = self.outbox.unparked(id) {
            let reason = "it does not take what is put into it";
            self.park_again(id, link, reason, limits::REFUSED_DEAD_LETTER_MS);
        } else if self.outbox.refused(id) {
            self.rest(id, limits::RETRY_REST_MS);
        } else if let Some(sent) = self.outbox.remove(id) {
            self.refused_for_good(sent);
        }
    }

    /// It is published again after a rest.
    fn rest(&mut self, id: PublishId, millis: u64) {
        self.outbox.retry(id);
        self.timers.set_by(Timer::Outbox, self.now.mono + millis);
    }

    /// The queue of dead letters did not take one: it is looked at, and gets it again.
    fn park_again(&mut self, id: PublishId, link: LinkEpoch, reason: &str, millis: u64) {
        self.on_barred(link, Way::DeadLetters, reason);
        self.rest(id, millis);
    }

    /// Whatever it is that fails: a proof says whether it is the broker.
    fn look_at_failures(&mut self, id: PublishId) {
        if let Some((link, way)) = self.outbox.failed(id) {
            let reason = "publications are not confirmed, again and again";
            self.on_barred(link, way, reason);
        }
    }

    /// A client takes nothing: its reply goes to the dead letters.
    fn refused_for_good(&mut self, mut sent: Sent) {
        sent.first_way = false;
        sent.elsewhere = true;
        self.reroute(sent);
    }

    /// A reply found no queue: the other way, then the other brokers themselves, as the link that
    /// would carry it there may not be up yet; then the dead letters.
    pub(super) fn reroute(&mut self, sent: Sent) {
        let Sent {
            mut message,
            job,
            first_way,
            elsewhere,
        } = sent;
        let active = self.links.active_broker();
        let untried = |broker: &usize| !elsewhere && Some(*broker) != active;
        let untried = self.links.ups().map(|(_, broker)| broker).find(untried);
        if let Outbound::Reply {
            route,
            reply,
            cause,
            ..
        } = &message
        {
            match (route, untried) {
                (ReplyRoute::Queue(_) | ReplyRoute::Federated(_), _) if first_way => {
                    message.flip_route();
                    self.post(message, job);
                }
                (ReplyRoute::Queue(name) | ReplyRoute::Federated(name), Some(broker)) => {
                    let name = name.clone();
                    if let Outbound::Reply { route, .. } = &mut message {
                        *route = ReplyRoute::Queue(name);
                    }
                    if let Some(job) = job {
                        self.jobs.add_publish(job);
                    }
                    self.outbox.push_elsewhere(message, job, broker);
                }
                (
                    ReplyRoute::Queue(name)
                    | ReplyRoute::Federated(name)
                    | ReplyRoute::Direct(name),
                    _,
                ) => {
                    let client = Destination::new(name);
                    if client.is_ok_and(|client| self.sessions.knows_destination(&client)) {
                        // It was told by events.
                        if let Some(job) = job {
                            self.publish_settled(job);
                        }
                        return;
                    }
                    self.events.push_back(Event::ReplyUnroutable);
                    let parked = Outbound::ParkedReply {
                        reply_to: name.clone(),
                        reply: reply.clone(),
                        cause: cause.clone(),
                    };
                    self.post(parked, job);
                }
            }
        }
        if let Some(job) = job {
            self.publish_settled(job);
        }
    }
}
