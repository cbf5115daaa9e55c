//! Publications that wait for a broker or for its confirm.
//!
//! What was on a link that went down is published again on the next one, under the same message
//! id. Peer messages are not: they are for the moment. What a broker would refuse is kept, in
//! order, until it takes it or another one serves.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::command::Outbound;
use crate::api::ids::{JobId, LinkEpoch, PublishId};
use crate::api::limits;
use crate::api::way::Way;
use crate::brokers::fitness::Pass;
use crate::brokers::link::Links;
use crate::model::Destination;

#[derive(Debug)]
struct Entry {
    message: Outbound,
    job: Option<JobId>,
    /// The link it was handed to; `None` while it waits.
    on: Option<LinkEpoch>,
    /// Under which number, until that is answered.
    number: Option<PublishId>,
    /// For a reply on its first way: the broker for which that way was chosen.
    home: Option<usize>,
    /// For a reply that both ways have failed on: the broker whose queue of that name is tried.
    elsewhere: Option<usize>,
    /// How often a broker has refused it.
    refused: u8,
    /// How often it failed on a living link since its way was looked at.
    failed: u8,
    /// An event that a client's queue refused, or that waits behind such a one: since when,
    /// milliseconds.
    refused_since: Option<u64>,
    /// It goes out although its client's queue refuses: to find out whether it still does.
    probing: bool,
    /// It was handed to a link before.
    sent: bool,
}

/// Events for one client that a broker refuses, because a queue of that client's takes nothing.
///
/// The first is tried again, and for that moment the others wait behind it: they come in order. A
/// client may have another queue, which takes everything: so after a few tries the others go out
/// when they come, once, and from then on the newest is tried. What it has overtaken is given up
/// when it is taken: it would only mislead.
#[derive(Debug, Default)]
struct Refusal {
    events: BTreeSet<PublishId>,
    tries: u8,
    /// When one is tried again; `u64::MAX` while it is on its way.
    at: u64,
    /// The one that is tried.
    probe: Option<PublishId>,
}

impl Refusal {
    /// Nobody waits for it any more.
    fn is_long(&self) -> bool {
        self.tries >= limits::REFUSED_WAITS
    }
}

/// How a message can go out now.
enum WayOut {
    On(LinkEpoch),
    /// Not yet.
    Wait,
    /// Not this way; a reply may have another one.
    Never,
}

impl Entry {
    /// A reply may change its way here.
    fn way_out(&mut self, ways: &Ways<'_>) -> WayOut {
        if self.message.ours() {
            return ways.for_people().map_or(WayOut::Wait, WayOut::On);
        }
        let (_, active) = ways.active;
        if let Some(home) = self.home.filter(|home| *home != active) {
            // One that lacks something vital may answer nothing at all.
            let fit = Some(home).filter(|home| !ways.links.lacks_vital(*home));
            if let Some(there) = fit.and_then(|home| ways.open_to(home, self.message.way())) {
                return WayOut::On(there);
            }
            self.message.flip_route();
            self.home = Some(active);
        }
        let elsewhere = self.elsewhere.filter(|at| ways.link_to(*at).is_some());
        let (broker, way) = (elsewhere.unwrap_or(active), self.message.way());
        let others = elsewhere.is_some() || way == Way::FarReplies;
        match ways.links.pass(broker, way) {
            Pass::Open => ways.link_to(broker).map_or(WayOut::Wait, WayOut::On),
            Pass::Lost if others => WayOut::Never,
            Pass::Lost | Pass::Doubted => WayOut::Wait,
        }
    }
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

/// Where messages can go now.
#[derive(Debug)]
pub struct Ways<'a> {
    /// The link that serves, and its broker.
    pub active: (LinkEpoch, usize),
    /// All links that are up.
    pub ups: &'a [(LinkEpoch, usize)],
    /// What their brokers take.
    pub links: &'a Links,
}

impl Ways<'_> {
    fn link_to(&self, broker: usize) -> Option<LinkEpoch> {
        let to = |(_, at): &&(LinkEpoch, usize)| *at == broker;
        self.ups.iter().find(to).map(|(link, _)| *link)
    }

    /// A link to a broker that takes what goes this way.
    fn open_to(&self, broker: usize, way: Way) -> Option<LinkEpoch> {
        let link = self.link_to(broker)?;
        (self.links.pass(broker, way) == Pass::Open).then_some(link)
    }

    /// A broker that keeps dead letters: the serving one, else any.
    fn for_people(&self) -> Option<LinkEpoch> {
        let open = |broker: usize| {
            let kept = self.links.pass(broker, Way::DeadLetters) == Pass::Open;
            self.open_to(broker, Way::Replies).filter(|_| kept)
        };
        let (_, active) = self.active;
        open(active).or_else(|| self.ups.iter().find_map(|(_, broker)| open(*broker)))
    }
}

/// What became of the messages that waited.
#[derive(Debug, Default)]
pub struct Flushed {
    /// To be published, in order.
    pub out: Vec<(PublishId, LinkEpoch, Outbound)>,
    /// Replies whose way is lost, and that have another one.
    pub no_way: Vec<PublishId>,
    /// Commands that do not wait for an event any more.
    pub settled: Vec<JobId>,
}

/// The outbox.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: BTreeMap<PublishId, Entry>,
    /// What links were handed and have not answered yet, by number: each time another one, so that
    /// what is heard late of a link that was left is not taken for the word of the next one.
    under_way: BTreeMap<PublishId, PublishId>,
    waiting: BTreeSet<PublishId>,
    /// Failed on a living link: they rest before they wait again.
    resting: BTreeSet<PublishId>,
    /// Clients of whom an event rests, and the first of these: later ones wait behind it.
    rests: BTreeMap<Destination, PublishId>,
    /// Would be refused now.
    held: BTreeSet<PublishId>,
    /// By client.
    refusals: BTreeMap<Destination, Refusal>,
    /// The link that served at the last hand-over.
    served: Option<LinkEpoch>,
    /// Another one served before, and may not have confirmed all events yet.
    moved: bool,
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
                number: None,
                home,
                elsewhere: None,
                refused: 0,
                failed: 0,
                refused_since: None,
                sent: false,
                probing: false,
            },
        );
        if self.events <= limits::OUTBOX_EVENTS {
            return None;
        }
        // One that is taken nowhere does not displace another client's.
        let refusals = self.refusals.values();
        let refused = refusals.max_by_key(|refusal| refusal.events.len());
        let refused = refused.and_then(|refusal| refusal.events.first().copied());
        let oldest = || {
            let mut entries = self.entries.iter();
            let event = entries.find(|(_, entry)| matches!(entry.message, Outbound::Event { .. }));
            event.map(|(id, _)| *id)
        };
        let victim = refused.or_else(oldest)?;
        self.remove(victim).map(|sent| sent.job)
    }

    /// Hands waiting messages to links, in order: to the active one on its broker, and a reply to
    /// the broker where its command was consumed, as far as there is a link that takes it. What
    /// would be refused is held until [`Self::release`].
    pub fn flush(&mut self, ways: &Ways<'_>) -> Flushed {
        let mut flushed = Flushed::default();
        let behind = self.clients_elsewhere(ways.active.0);
        for id in std::mem::take(&mut self.waiting) {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            if let Outbound::Event { to, .. } = &entry.message
                && self.rests.get(to).is_some_and(|first| *first < id)
            {
                self.resting.insert(id);
                continue;
            }
            if let Outbound::Event { to, .. } = &entry.message
                && behind.contains(to)
            {
                self.held.insert(id);
                continue;
            }
            if let Outbound::Event { to, .. } = &entry.message
                && !entry.probing
                && let Some(refusal) = self.refusals.get_mut(to)
            {
                if !refusal.is_long() {
                    refusal.events.insert(id);
                    continue;
                }
                flushed.settled.extend(entry.job.take());
            }
            match entry.way_out(ways) {
                WayOut::On(link) => {
                    entry.probing = false;
                    entry.sent = true;
                    entry.on = Some(link);
                    self.next += 1;
                    let number = PublishId(self.next);
                    entry.number = Some(number);
                    self.under_way.insert(number, id);
                    flushed.out.push((number, link, entry.message.clone()));
                }
                WayOut::Never => flushed.no_way.push(id),
                WayOut::Wait => {
                    self.held.insert(id);
                }
            }
        }
        flushed
    }

    /// Clients of whom an event is on a link that does not serve any more: what comes for them waits
    /// for its confirm, or for the end of that link, as it would overtake the event otherwise.
    fn clients_elsewhere(&mut self, serves: LinkEpoch) -> BTreeSet<Destination> {
        self.moved |= self.served.replace(serves).is_some_and(|it| it != serves);
        if !self.moved {
            return BTreeSet::new();
        }
        let left = self.entries.values().filter_map(|entry| {
            let left = entry.on.is_some_and(|on| on != serves);
            match &entry.message {
                Outbound::Event { to, .. } if left => Some(to.clone()),
                _ => None,
            }
        });
        let left: BTreeSet<Destination> = left.collect();
        self.moved = !left.is_empty();
        left
    }

    /// Something has changed about links or what brokers take: what was held is looked at again.
    pub fn release(&mut self) {
        self.waiting.append(&mut self.held);
    }

    /// What was handed to a link waits again: its broker may never answer.
    pub fn take_back(&mut self, link: LinkEpoch) {
        self.forgive_all();
        for (id, entry) in &mut self.entries {
            if entry.on == Some(link) {
                entry.on = None;
                if let Some(number) = entry.number.take() {
                    self.under_way.remove(&number);
                }
                self.waiting.insert(*id);
            }
        }
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

    /// A link has answered: the message that it is about, where it is still the one that has it.
    pub fn answered(&mut self, number: PublishId) -> Option<PublishId> {
        let id = self.under_way.remove(&number)?;
        self.entries.get_mut(&id)?.number = None;
        Some(id)
    }

    /// Removes a message that a broker has taken; what waited behind it for the same client goes out.
    /// Also tells how many events were given up, which it had overtaken.
    pub fn confirmed(&mut self, id: PublishId) -> Option<(Sent, usize)> {
        let sent = self.remove(id)?;
        let Outbound::Event { to, .. } = &sent.message else {
            return Some((sent, 0));
        };
        if self.moved {
            self.release();
        }
        let Some(mut refusal) = self.refusals.remove(to) else {
            return Some((sent, 0));
        };
        let mut overtaken = 0;
        if refusal.is_long() {
            let later = refusal.events.split_off(&id);
            overtaken = refusal.events.len();
            for older in std::mem::replace(&mut refusal.events, later) {
                let _ = self.remove(older);
            }
        }
        self.waiting.append(&mut refusal.events);
        Some((sent, overtaken))
    }

    /// Removes a message: to be sent another way, or dropped.
    pub fn remove(&mut self, id: PublishId) -> Option<Sent> {
        self.waiting.remove(&id);
        self.resting.remove(&id);
        self.held.remove(&id);
        let entry = self.entries.remove(&id)?;
        if let Some(number) = entry.number {
            self.under_way.remove(&number);
        }
        if let Outbound::Event { to, .. } = &entry.message
            && let Some(refusal) = self.refusals.get_mut(to)
            && refusal.events.remove(&id)
        {
            if entry.on.is_some() || entry.probing {
                // What was to show whether the queue takes something is gone: the next one does.
                refusal.at = 0;
            }
            if refusal.events.is_empty() {
                self.refusals.remove(to);
            }
        }
        self.events -= usize::from(matches!(entry.message, Outbound::Event { .. }));
        Some(Sent {
            message: entry.message,
            job: entry.job,
            first_way: entry.home.is_some(),
            elsewhere: entry.elsewhere.is_some(),
        })
    }

    /// A publication failed: it waits again after a rest, or for the next link. What comes for the
    /// same client meanwhile does not overtake it.
    pub fn retry(&mut self, id: PublishId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.on = None;
            if let Outbound::Event { to, .. } = &entry.message {
                if let Some(refusal) = self.refusals.get_mut(to) {
                    // No word about the client's queue: it is asked again.
                    refusal.at = 0;
                }
                let first = self.rests.entry(to.clone()).or_insert(id);
                *first = id.min(*first);
            }
            self.resting.insert(id);
        }
    }

    /// A publication has failed: the link and the way that should be looked at, where it did so
    /// again and again.
    pub fn failed(&mut self, id: PublishId) -> Option<(LinkEpoch, Way)> {
        let entry = self.entries.get_mut(&id)?;
        entry.failed += 1;
        if entry.failed < limits::FAILURES {
            return None;
        }
        entry.failed = 0;
        Some((entry.on?, entry.message.way()))
    }

    /// Whether it is a reply that another way may take.
    #[must_use]
    pub fn far_reply(&self, id: PublishId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.message.way() == Way::FarReplies)
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

    // ---- events that are refused --------------------------------------------------------------

    /// Whether it is an event.
    #[must_use]
    pub fn is_event(&self, id: PublishId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| matches!(entry.message, Outbound::Event { .. }))
    }

    /// Whether it is an event with this address.
    #[must_use]
    pub fn is_for(&self, id: PublishId, address: &str) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(
            |entry| matches!(&entry.message, Outbound::Event { to, .. } if to.as_str() == address),
        )
    }

    /// A broker refused an event. Gives back the commands that do not wait for it any more.
    pub fn event_refused(&mut self, id: PublishId, now: u64) -> Vec<JobId> {
        let Some(entry) = self.entries.get_mut(&id) else {
            return Vec::new();
        };
        let Outbound::Event { to, .. } = &entry.message else {
            return Vec::new();
        };
        entry.on = None;
        entry.refused_since.get_or_insert(now);
        let refusal = self.refusals.entry(to.clone()).or_default();
        let waited = !refusal.is_long();
        // Others were under way with the first: they are one refusal.
        if refusal.events.is_empty() || refusal.probe == Some(id) {
            refusal.probe = None;
            let doubled = limits::REFUSED_PAUSE_MS << refusal.tries.min(16);
            refusal.at = now + doubled.min(limits::REFUSED_PAUSE_MAX_MS);
            refusal.tries = refusal.tries.saturating_add(1);
        }
        refusal.events.insert(id);
        if !waited {
            return entry.job.take().into_iter().collect();
        }
        if !refusal.is_long() {
            return Vec::new();
        }
        // From now on nobody waits: those that were not sent yet go out.
        let mut jobs = Vec::new();
        for id in std::mem::take(&mut refusal.events) {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            jobs.extend(entry.job.take());
            match entry.sent {
                true => refusal.events.insert(id),
                false => self.waiting.insert(id),
            };
        }
        jobs
    }

    /// Lets one of each client's refused events go out that is due. Gives back those that are
    /// to be given up.
    pub fn refused_due(&mut self, now: u64) -> Vec<PublishId> {
        let mut over = Vec::new();
        for refusal in self.refusals.values_mut() {
            if refusal.at > now {
                continue;
            }
            let too_many = refusal.events.len().saturating_sub(limits::REFUSED_EVENTS);
            let mut kept = Vec::new();
            for (at, id) in refusal.events.iter().enumerate() {
                let Some(entry) = self.entries.get_mut(id) else {
                    continue;
                };
                let since = *entry.refused_since.get_or_insert(now);
                match at < too_many || now >= since + limits::REFUSED_EVENT_MS {
                    true => over.push(*id),
                    false => kept.push(*id),
                }
            }
            let probe = match refusal.is_long() {
                true => kept.last(),
                false => kept.first(),
            };
            if let Some(probe) = probe
                && let Some(entry) = self.entries.get_mut(probe)
            {
                entry.probing = true;
                self.waiting.insert(*probe);
                (refusal.at, refusal.probe) = (u64::MAX, Some(*probe));
            }
        }
        over
    }

    /// When [`Self::refused_due`] is to be called again.
    #[must_use]
    pub fn refused_at(&self) -> Option<u64> {
        let times = self.refusals.values().map(|refusal| refusal.at);
        times.filter(|at| *at < u64::MAX).min()
    }

    /// Another link: what was refused is tried there.
    fn forgive_all(&mut self) {
        let all = std::mem::take(&mut self.refusals).into_values();
        for id in all.flat_map(|refusal| refusal.events) {
            if self
                .entries
                .get(&id)
                .is_some_and(|entry| entry.on.is_none())
            {
                self.waiting.insert(id);
            }
        }
    }

    /// Whether nothing is left but what clients do not take.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let given_time = |refusal: &&Refusal| refusal.is_long();
        let refused = self.refusals.values().filter(given_time);
        refused.map(|refusal| refusal.events.len()).sum::<usize>() == self.entries.len()
    }

    /// The rest is over.
    pub fn rested(&mut self) {
        self.rests.clear();
        self.waiting.append(&mut self.resting);
    }

    /// A link is gone: what was on it waits again.
    pub fn on_link_down(&mut self, link: LinkEpoch) {
        self.rested();
        self.release();
        self.take_back(link);
    }

    /// Number of messages kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether something waits for a link.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}
