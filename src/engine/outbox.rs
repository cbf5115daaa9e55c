//! Publications that wait for a broker or for its confirm.
//!
//! What was on a link that went down is published again on the next one, under the same message
//! id. Peer messages are not: they are for the moment.

use std::collections::{BTreeMap, BTreeSet};

use super::command::Outbound;
use super::ids::{JobId, LinkEpoch, PublishId};
use super::limits;

#[derive(Debug)]
struct Entry {
    message: Outbound,
    job: Option<JobId>,
    /// The link it was handed to; `None` while it waits.
    on: Option<LinkEpoch>,
    /// For a reply on its first way: the broker for which that way was chosen.
    home: Option<usize>,
    /// For a reply that both ways have failed on: the broker whose queue of that name is tried.
    elsewhere: Option<usize>,
    /// How often a broker has refused it.
    refused: u8,
}

/// A message that left the outbox.
#[derive(Debug)]
pub struct Sent {
    /// The message.
    pub message: Outbound,
    /// The command that it belongs to.
    pub job: Option<JobId>,
    /// A reply that has another way left.
    pub first_way: bool,
    /// A reply that another broker did not take either.
    pub elsewhere: bool,
}

/// The outbox.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: BTreeMap<PublishId, Entry>,
    waiting: BTreeSet<PublishId>,
    /// Failed on a living link: they rest before they wait again.
    resting: BTreeSet<PublishId>,
    events: usize,
    next: u64,
}

impl Outbox {
    /// Takes a message. Returns the job of an event that had to be dropped for it, as
    /// `Some(job)`, where the bound was reached.
    ///
    /// `home` is the broker that a reply's command was consumed on: on another broker the reply
    /// takes the other way first. `None` leaves the way as it is.
    pub fn push(
        &mut self,
        message: Outbound,
        job: Option<JobId>,
        home: Option<usize>,
    ) -> Option<Option<JobId>> {
        self.next += 1;
        let id = PublishId(self.next);
        let event = matches!(message, Outbound::Event { .. });
        self.events += usize::from(event);
        self.waiting.insert(id);
        self.entries.insert(
            id,
            Entry {
                message,
                job,
                on: None,
                home,
                elsewhere: None,
                refused: 0,
            },
        );
        if self.events <= limits::OUTBOX_EVENTS {
            return None;
        }
        let oldest = self
            .entries
            .iter()
            .find(|(_, entry)| matches!(entry.message, Outbound::Event { .. }))
            .map(|(id, _)| *id)?;
        self.remove(oldest).map(|sent| sent.job)
    }

    /// Hands waiting messages to links, in order: to the active one on its broker, and a reply to
    /// the broker where its command was consumed, as far as `link_to` has a link there.
    pub fn flush(
        &mut self,
        active: (LinkEpoch, usize),
        link_to: impl Fn(usize) -> Option<LinkEpoch>,
    ) -> Vec<(PublishId, LinkEpoch, Outbound)> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut out = Vec::with_capacity(waiting.len());
        for id in waiting {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            let (mut link, broker) = active;
            if let Some(home) = entry.home.filter(|home| *home != broker) {
                match link_to(home) {
                    Some(there) => link = there,
                    None => {
                        entry.message.flip_route();
                        entry.home = Some(broker);
                    }
                }
            }
            if let Some(there) = entry.elsewhere.and_then(&link_to) {
                link = there;
            }
            entry.on = Some(link);
            out.push((id, link, entry.message.clone()));
        }
        out
    }

    /// Takes a reply for which a queue is looked for on another broker.
    pub fn push_elsewhere(&mut self, message: Outbound, job: Option<JobId>, broker: usize) {
        // A reply displaces no event.
        let _ = self.push(message, job, None);
        if let Some(entry) = self.entries.get_mut(&PublishId(self.next)) {
            entry.elsewhere = Some(broker);
        }
    }

    /// A number for a message that is not kept (peer messages).
    pub fn number(&mut self) -> PublishId {
        self.next += 1;
        PublishId(self.next)
    }

    /// Removes a message: confirmed, or to be sent another way.
    pub fn remove(&mut self, id: PublishId) -> Option<Sent> {
        self.waiting.remove(&id);
        self.resting.remove(&id);
        let entry = self.entries.remove(&id)?;
        self.events -= usize::from(matches!(entry.message, Outbound::Event { .. }));
        Some(Sent {
            message: entry.message,
            job: entry.job,
            first_way: entry.home.is_some(),
            elsewhere: entry.elsewhere.is_some(),
        })
    }

    /// A publication failed: it waits again after a rest, or for the next link.
    pub fn retry(&mut self, id: PublishId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.on = None;
            self.resting.insert(id);
        }
    }

    /// The link on which a message for the queue of dead letters is; `None` for other messages.
    #[must_use]
    pub fn unparked(&self, id: PublishId) -> Option<LinkEpoch> {
        let entry = self.entries.get(&id).filter(|entry| entry.message.ours())?;
        entry.on
    }

    /// A broker would not take it: whether it is to be tried once more.
    pub fn refused(&mut self, id: PublishId) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return true;
        };
        entry.refused = entry.refused.saturating_add(1);
        // What is put into our own queues is not given up.
        entry.message.ours() || entry.refused <= limits::REFUSALS
    }

    /// The rest is over.
    pub fn rested(&mut self) {
        self.waiting.append(&mut self.resting);
    }

    /// A link is gone: what was on it waits again.
    pub fn on_link_down(&mut self, link: LinkEpoch) {
        self.rested();
        for (id, entry) in &mut self.entries {
            if entry.on == Some(link) {
                entry.on = None;
                self.waiting.insert(*id);
            }
        }
    }

    /// Number of messages kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether something waits for a link.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}
