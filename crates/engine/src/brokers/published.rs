//! What became of a publication: confirmed, returned, refused; and the other ways that a reply may
//! take.

use crate::api::command::{Outbound, ReplyRoute};
use crate::api::ids::{JobId, LinkEpoch, PublishId};
use crate::api::input::PublishOutcome;
use crate::api::way::Way;
use crate::brokers::outbox::Sent;
use crate::model::Destination;
use crate::state::timer::Timer;
use crate::{Engine, Event, limits};

impl Engine {
    /// What a broker said to a publication: the job behind it goes on, or it takes another way, or
    /// rests and is tried again.
    pub(crate) fn on_published(&mut self, number: PublishId, outcome: PublishOutcome) {
        // Of what is not kept, or was taken back from that link, nothing is to be learnt.
        let Some(id) = self.outbox.answered(number) else {
            return;
        };
        match outcome {
            PublishOutcome::Confirmed => {
                if let Some((sent, overtaken)) = self.outbox.confirmed(id) {
                    for _ in 0..overtaken {
                        self.out.tell(Event::EventDropped);
                    }
                    if let Some(job) = sent.job {
                        self.publish_settled(job);
                    }
                }
            }
            PublishOutcome::Untaken => {
                if let Some(link) = self.outbox.unparked(id) {
                    // It is declared again, at once and then with growing pauses.
                    self.park_again(id, link, "it was deleted", limits::DECLARED_MS);
                } else if let Some(sent) = self.outbox.remove(id) {
                    self.reroute(sent);
                }
            }
            // The queue in which it is kept for the other brokers may be on a node that is down: that says nothing
            // about the client's.
            PublishOutcome::Refused | PublishOutcome::Barred if self.outbox.far_reply(id) => {
                if let Some(sent) = self.outbox.remove(id) {
                    self.reroute(sent);
                }
            }
            PublishOutcome::Refused => self.on_refused(id),
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

    /// Whether an event of the command has said to the address of its reply what became of it.
    fn told_by_event(&self, job: Option<JobId>) -> bool {
        let job = job.and_then(|job| self.jobs.get(job));
        job.is_some_and(|job| job.asker_told)
    }

    /// Whether a reply's address is the destination of a client that is known.
    fn is_client(&self, reply_to: &str) -> bool {
        Destination::new(reply_to).is_ok_and(|it| self.sessions.knows_destination(&it))
    }

    /// A reply found no queue: the other way, then the other brokers themselves, as the link that
    /// would carry it there may not be up yet; then the dead letters.
    pub(crate) fn reroute(&mut self, sent: Sent) {
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
                (ReplyRoute::Near(_) | ReplyRoute::Far(_), _) if first_way => {
                    message.flip_route();
                    self.post(message, job);
                }
                (ReplyRoute::Near(name) | ReplyRoute::Far(name), Some(broker)) => {
                    let name = name.clone();
                    if let Outbound::Reply { route, .. } = &mut message {
                        *route = ReplyRoute::Near(name);
                    }
                    if let Some(job) = job {
                        self.jobs.add_publish(job);
                    }
                    self.outbox.push_elsewhere(message, job, broker);
                }
                (ReplyRoute::Near(name) | ReplyRoute::Far(name) | ReplyRoute::Direct(name), _) => {
                    self.out.tell(Event::ReplyUnroutable);
                    let parked = Outbound::ParkedReply {
                        reply_to: name.clone(),
                        reply: reply.clone(),
                        cause: cause.clone(),
                    };
                    // Clients name themselves, and are told by events: that needs no letter.
                    if !self.told_by_event(job) && !self.is_client(name) {
                        self.post(parked, job);
                    }
                }
            }
        }
        if let Some(job) = job {
            self.publish_settled(job);
        }
    }
}
