//! Everything that leaves for a broker goes through here.

use std::sync::Arc;

use crate::api::command::{BrokerCommand, Outbound};
use crate::api::ids::{self, LinkEpoch, SubscriptionEpoch};
use crate::brokers::outbox::Ways;
use crate::cluster::members::Peer;
use crate::model::{Cause, Destination};
use crate::wire::event::ClientEvent;
use crate::{Engine, Event, peer};

impl Engine {
    // ---- publishing ---------------------------------------------------------------------------

    /// Publishes an event to one client.
    pub(crate) fn tell(
        &mut self,
        to: &Destination,
        event: ClientEvent,
        cause: Cause,
        epoch: u64,
        job: Option<ids::JobId>,
    ) {
        let message_id = self.message_id();
        self.out.tell(Event::EventPublished);
        // Nobody else takes events.
        let is_client = self.sessions.knows_destination(to);
        if let Some(job) = job.and_then(|job| self.jobs.get_mut(job))
            && is_client
            && job.raw.reply_to.as_deref() == Some(to.as_str())
        {
            job.asker_told = true;
        }
        self.post(
            Outbound::Event {
                to: to.clone(),
                event: Arc::new(event),
                cause,
                epoch,
                message_id,
            },
            job,
        );
    }

    /// Hands a message to the outbox; it is published as soon as there is a link.
    pub(crate) fn post(&mut self, message: Outbound, job: Option<ids::JobId>) {
        self.post_from(message, job, None);
    }

    pub(crate) fn post_from(
        &mut self,
        message: Outbound,
        job: Option<ids::JobId>,
        home: Option<usize>,
    ) {
        if let Some(job) = job {
            self.jobs.add_publish(job);
        }
        if let Some(dropped) = self.outbox.push(message, job, home) {
            self.out.tell(Event::EventDropped);
            self.arm_refused();
            if let Some(job) = dropped {
                self.publish_settled(job);
            }
        }
    }

    /// Says something to one peer, or to all; not kept if there is no link.
    ///
    /// It goes where the peers' control queues are consumed, as far as we reach that broker, and
    /// so does not depend on the brokers' passing it on. A heartbeat goes every way there is.
    pub(crate) fn say(
        &mut self,
        to: Option<&crate::model::InstanceId>,
        message: peer::PeerMessage,
    ) {
        let Some(own) = self.attached.control() else {
            return;
        };
        let mut ways: Vec<LinkEpoch> = match (&message, to) {
            (peer::PeerMessage::Heartbeat(_) | peer::PeerMessage::Hello, _) => {
                self.links.ups().map(|(link, _)| link).collect()
            }
            (_, Some(to)) => self.ways_to(self.members.get(to), own),
            (_, None) => {
                let peers = self.members.present();
                peers
                    .flat_map(|(_, peer)| self.ways_to(Some(peer), own))
                    .collect()
            }
        };
        ways.sort();
        ways.dedup();
        if ways.is_empty() {
            ways.push(own);
        }
        ways.retain(|link| self.carries_peers(*link));
        if ways.is_empty() {
            // The other brokers pass it on.
            let ups = self.links.ups().map(|(link, _)| link);
            ways.extend(ups.filter(|link| self.carries_peers(*link)));
        }
        for link in ways {
            let id = self.outbox.number();
            self.out.push(BrokerCommand::Publish {
                id,
                link,
                message: Outbound::Peer {
                    to: to.cloned(),
                    message: Box::new(message.clone()),
                },
            });
        }
    }

    /// The link on which a peer is attached, where it is up. Where it is not known, every link:
    /// what the brokers pass on may not arrive. Where it is out of reach, the own one.
    fn ways_to(&self, peer: Option<&Peer>, own: LinkEpoch) -> Vec<LinkEpoch> {
        let ups = || self.links.ups().map(|(link, _)| link);
        match peer.and_then(Peer::attached_on) {
            Some(link) if ups().any(|up| up == link) => vec![link],
            Some(_) => vec![own],
            None => ups().collect(),
        }
    }

    pub(crate) fn flush_outbox(&mut self) {
        if !self.outbox.has_waiting() {
            return;
        }
        let (Some(link), Some(broker)) = (self.links.active(), self.links.active_broker()) else {
            return;
        };
        let ups: Vec<(LinkEpoch, usize)> = self.links.ups().collect();
        // A reply that goes another way waits again; each has a few ways.
        while self.outbox.has_waiting() {
            let ways = Ways {
                active: (link, broker),
                ups: &ups,
                links: &self.links,
            };
            let flushed = self.outbox.flush(&ways);
            for (id, link, message) in flushed.out {
                self.out.push(BrokerCommand::Publish { id, link, message });
            }
            self.settle_for(flushed.settled);
            for id in flushed.no_way {
                if let Some(sent) = self.outbox.remove(id) {
                    self.reroute(sent);
                }
            }
        }
    }

    pub(crate) fn message_id(&mut self) -> String {
        let number = self.number();
        format!("{}-{:x}-{number:x}", self.cfg.instance, self.cfg.boot.0)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.numbers.fresh()
    }

    pub(crate) fn next_subscription(&mut self) -> SubscriptionEpoch {
        SubscriptionEpoch(self.number())
    }

    pub(crate) fn jitter(&mut self, bound: u64) -> u64 {
        self.numbers.jitter(bound)
    }

    pub(crate) fn stale(&mut self, what: &'static str) {
        self.out.tell(Event::Stale { what });
    }
}
