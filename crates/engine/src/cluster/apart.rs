//! What this instance may have missed while others could not see it.
//!
//! Others take an instance for gone where no broker has a consumer of its control queue. They may
//! then carry out what a client sends again, though its first message waits for that instance
//! still. So who was unseen for a while (a start, a lost link, a pause) takes commands that were
//! sent before it was back for ones that may have been seen, until every member that it knows has
//! told it everything.

use std::collections::BTreeMap;

use crate::catalogue::Repeat;
use crate::model::InstanceId;

use crate::api::config::PeerTimers;
use crate::api::ids::{BootId, JobId, LinkEpoch, Now};
use crate::cluster::members::Peer;
use crate::{Engine, limits};

/// When this instance was back.
#[derive(Debug, Clone, Copy)]
struct Back {
    at: Now,
    /// The first own heartbeat after that.
    seq: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Apart {
    /// The last sign that the own control queue was consumed, monotonic milliseconds.
    heard: u64,
    /// The process was away since: what it hears may have waited for it.
    paused: bool,
    back: Option<Back>,
    /// Since when commands are consumed after that, monotonic milliseconds.
    consuming: Option<u64>,
    /// When it was away lately, monotonic milliseconds.
    pauses: Vec<u64>,
    /// The end of the last pause in which others may have served.
    thawed: Option<Now>,
    /// Which start of each member was known before such a pause.
    boots: BTreeMap<InstanceId, BootId>,
    /// Since when a broker of the list is out of reach, monotonic milliseconds.
    unwatched: Option<u64>,
    /// When each broker answered a question for consumers last, monotonic milliseconds: a link
    /// that is cut is known to be only later.
    answered: BTreeMap<usize, u64>,
}

impl Engine {
    /// Something came over a link.
    pub(crate) fn heard_on(&mut self, link: Option<LinkEpoch>) {
        if link.is_none() || link == self.attached.control() {
            self.cluster.apart.heard = self.now.mono;
        }
    }

    /// This process was away.
    pub(crate) fn was_away(&mut self) {
        self.cluster.apart.paused = true;
        let now = self.now.mono;
        self.cluster
            .apart
            .pauses
            .retain(|at| now < at + limits::STARVED_MS);
        self.cluster.apart.pauses.truncate(limits::STARVED_PAUSES);
        self.cluster.apart.pauses.push(now);
    }

    /// This process was away for so long that others may have served. Who starts anew before it
    /// has told us has forgotten how commands that may be repeated ended.
    pub(crate) fn note_thaw(&mut self, now: Now) {
        let before = self.cluster.apart.thawed.replace(now);
        if before.is_none_or(|at| now.mono > at.mono + limits::RELAYED_BACKLOG_MS) {
            self.cluster.apart.boots.clear();
        }
        for (id, peer) in self.members.present() {
            let known = self.cluster.apart.boots.entry(id.clone());
            known.or_insert(peer.boot);
        }
    }

    /// The timers by which peers are lost. On a machine that has been short of time again and again
    /// lately the brokers and the peers are slow, too: they are given twice the time.
    pub(crate) fn peer_timers(&self) -> PeerTimers {
        let lately = |at: &&u64| self.now.mono < **at + limits::STARVED_MS;
        let starved =
            self.cluster.apart.pauses.iter().filter(lately).count() >= limits::STARVED_PAUSES;
        let timers = self.cfg.peers;
        match starved {
            true => PeerTimers {
                lost: 2 * timers.lost,
                ..timers
            },
            false => timers,
        }
    }

    /// The own control queue is consumed (again).
    pub(crate) fn back_in_sight(&mut self) {
        let unseen = self.now.mono.saturating_sub(self.cluster.apart.heard);
        let first = self.cluster.apart.back.is_none();
        if first || self.cluster.apart.paused || unseen >= limits::UNHEARD_MS {
            self.cluster.apart.back = Some(Back {
                at: self.now,
                seq: self.cluster.replication.next_seq(),
            });
            self.cluster.apart.consuming = None;
            self.members.heard_again(self.now.mono, self.cfg.peers);
        }
        self.cluster.apart.paused = false;
        self.cluster.apart.heard = self.now.mono;
    }

    /// A consumer of commands stands.
    pub(crate) fn consumes_now(&mut self) {
        self.cluster.apart.consuming.get_or_insert(self.now.mono);
    }

    /// Whether an own heartbeat was sent since this instance was in sight without a gap.
    pub(crate) fn since_back(&self, seq: u64) -> bool {
        self.cluster.apart.back.is_some_and(|back| seq >= back.seq)
    }

    /// A member's heartbeat answers ours of that number, and says that it owes us nothing.
    pub(crate) fn note_synced(&mut self, from: &InstanceId, echoed: u64) {
        if self.since_back(echoed) {
            self.members.note_synced(from, &self.cfg.instance);
        }
    }

    /// Whether another instance may have carried out a resend of this command while this one was
    /// out of sight.
    pub(crate) fn may_have_missed(&self, id: JobId) -> bool {
        // Who keeps no journal never had a proof to act on.
        let told = |peer: &Peer| peer.synced || !peer.heartbeat.journal;
        let behind = |id: &InstanceId| !self.members.get(id).is_some_and(told);
        let Some(Back { at, .. }) = self.cluster.apart.back else {
            return false;
        };
        self.book.known_members().any(behind)
            && self.sent_before(id, at, self.cluster.apart.consuming)
    }

    /// Whether another instance may have told another outcome of this command, which may be
    /// repeated, while this one was away, and knows no more of it.
    pub(crate) fn may_be_forgotten(&self, id: JobId) -> bool {
        let command = self.jobs.get(id).and_then(|job| job.command.as_ref());
        let Some(at) = self.cluster.apart.thawed else {
            return false;
        };
        let repeatable = command.is_some_and(|command| command.repeat == Repeat::Safe);
        let same = |id: &InstanceId, boot: BootId| {
            (self.members.get(id)).is_some_and(|peer| peer.boot == boot)
        };
        let mut before = self.cluster.apart.boots.iter();
        repeatable
            && before.any(|(id, boot)| !same(id, *boot))
            && self.sent_before(id, at, Some(at.mono))
    }

    /// Whether the command was sent before that time, as far as can be told. `consuming`: since
    /// when commands are consumed, monotonic milliseconds.
    fn sent_before(&self, id: JobId, at: Now, consuming: Option<u64>) -> bool {
        let Some(job) = self.jobs.get(id) else {
            return false;
        };
        match job.raw.sent_ms(self.now.wall) {
            // In whole seconds, rounded down, as brokers have them. A resend comes a second after its first message at the
            // soonest, and the others act on absence as of now: what is left is for wrong clocks.
            Some(sent) => sent / 1_000 * 1_000 <= at.wall,
            // What waited in the queue comes at once, what waited at the other broker once the
            // brokers are connected.
            None => {
                let rest = match job.raw.relayed {
                    true => limits::RELAYED_BACKLOG_MS,
                    false => limits::BACKLOG_MS,
                };
                let since = consuming.unwrap_or(job.received);
                job.received < since + rest
            }
        }
    }

    /// A broker has answered.
    pub(crate) fn note_count(&mut self, link: LinkEpoch) {
        if let Some(broker) = self.links.broker_of(link) {
            self.cluster.apart.answered.insert(broker, self.now.mono);
        }
    }

    /// A link is lost: since the broker's last answer a lost peer may have been there, as a cut is
    /// noticed late.
    pub(crate) fn note_link_lost(&mut self, broker: usize) {
        let now = self.now.mono;
        let answered = self.cluster.apart.answered.get(&broker);
        if answered.is_none_or(|at| now >= at + limits::UNWATCHED_MS) {
            self.members.unwatched();
        }
    }

    /// A lost peer may come back, serve and go again at a broker that is out of reach.
    /// `all`: each broker of the list is reached.
    pub(crate) fn watch_brokers(&mut self, all: bool) {
        let now = self.now.mono;
        let since = match all {
            true => self.cluster.apart.unwatched.take(),
            false => Some(*self.cluster.apart.unwatched.get_or_insert(now)),
        };
        self.members.note_blind(since.filter(|_| !all));
        if since.is_some_and(|since| now >= since + limits::UNWATCHED_MS) {
            self.members.unwatched();
        }
    }
}
