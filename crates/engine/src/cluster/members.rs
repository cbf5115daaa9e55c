//! Peers: who is there, and how we know.
//!
//! Two kinds of evidence: heartbeats, and the number of consumers that a broker counts on the
//! peer's control queue. The count is only believed on the broker where the peer was last seen
//! attached: a peer that changes its broker has no consumer anywhere for a moment.
//!
//! Evidence decides who serves, and may be wrong: a peer that changes its broker in the moment in
//! which the sites are cut looks as if it were dead. Proof decides whether something that must not
//! be done twice may be done: no consumer on any broker of the list, at one time, since the peer was
//! heard last ([`Peer::nowhere`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::model::InstanceId;

use crate::api::config::PeerTimers;
use crate::api::ids::{BootId, LinkEpoch, Now};
use crate::api::limits;
use crate::peer::{GroupState, Heartbeat, Role};

mod told;

/// Counts in a row at one broker that found no consumer of a peer's control queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Zeros {
    /// When the first and the last of them were answered, monotonic milliseconds.
    first: u64,
    last: u64,
}

/// What we think of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Heard within the suspect time.
    Alive,
    /// Silent for the suspect time.
    Suspect,
    /// Gone.
    Lost,
    /// It said goodbye.
    Left,
    /// Its messages are not authentic: not lost, but not to be talked to.
    AuthFailed,
}

impl Liveness {
    /// Spelling in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Lost => "lost",
            Self::Left => "left",
            Self::AuthFailed => "auth-failed",
        }
    }

    /// Whether it may still be serving.
    #[must_use]
    pub fn present(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// A peer.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its current start.
    pub boot: BootId,
    /// Earlier starts, the latest last: what is still on its way from them says nothing.
    former: Vec<BootId>,
    /// What we think of it.
    pub liveness: Liveness,
    /// Last authentic sign of life, monotonic milliseconds.
    pub last_seen: u64,
    /// Last heartbeat's content.
    pub heartbeat: Heartbeat,
    /// Round trip, milliseconds, where measured.
    pub round_trip: Option<u64>,
    /// Whether its snapshot is complete.
    pub snapshot_done: bool,
    /// Parts of its snapshot that arrived.
    pub snapshot_parts: BTreeSet<u32>,
    /// When the newest own heartbeat that it heard was sent, monotonic milliseconds.
    pub echoed_at: Option<u64>,
    /// It was lost, and until then cannot have made a call without our word.
    pub covered: bool,
    /// It has told everything that it did while it could not hear us, and heard us since.
    pub synced: bool,
    /// Heartbeats in a row whose table differs from ours.
    pub differs: u32,
    /// The link on whose broker its control queue had a consumer last.
    seen_on: Option<LinkEpoch>,
    zero_counts: u32,
    /// Since its last sign of life, by link: that no consumer of its control queue was found.
    zeros: BTreeMap<LinkEpoch, Zeros>,
    /// When it was lost, monotonic milliseconds.
    lost_at: u64,
    /// It was lost because its consumer was gone.
    by_count: bool,
    /// Until then its consumers' absence is no evidence: it was taken for gone by that, and lived.
    /// Monotonic milliseconds.
    counts_from: u64,
    /// It is gone for sure: it said goodbye, or no broker has a consumer of its control queue.
    gone: bool,
    /// When its consumer was counted last, monotonic milliseconds.
    counted_at: u64,
}

impl Peer {
    /// Its account of a group.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&GroupState> {
        self.heartbeat
            .groups
            .iter()
            .find(|group| group.name == name)
    }

    /// What of its account of the groups bears on the roles of others.
    #[must_use]
    pub fn standing(&self) -> Vec<(Role, bool, bool)> {
        let groups = self.heartbeat.groups.iter();
        groups
            .map(|group| (group.role, group.eligible, group.leaving))
            .collect()
    }

    /// Whether it leads a group and may still be serving; a leader that drains still finishes
    /// what it has started.
    #[must_use]
    pub fn leads(&self, name: &str) -> bool {
        self.liveness.present()
            && self
                .group(name)
                .is_some_and(|group| group.role.leads() || group.role == Role::Draining)
    }

    /// The link on whose broker it is attached, as far as we can see.
    #[must_use]
    pub fn attached_on(&self) -> Option<LinkEpoch> {
        self.seen_on
    }

    /// Whether its consumer was counted within the last `age` milliseconds.
    #[must_use]
    pub fn counted_within(&self, now: Now, age: u64) -> bool {
        self.zero_counts == 0
            && self.seen_on.is_some()
            && now.mono.saturating_sub(self.counted_at) <= age
    }

    /// Lost, but not gone for sure.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        self.liveness == Liveness::Lost && !self.gone
    }

    /// Whether it has left, or is not there and was not for long.
    fn is_over(&self, now: Now) -> bool {
        let long = now.mono >= self.last_seen + limits::PEER_KEPT_MS;
        self.liveness == Liveness::Left || (!self.liveness.present() && long)
    }

    /// Whether it has, as far as we know, a consumer on a broker still: a frozen process keeps its
    /// until the broker misses its heartbeats.
    #[must_use]
    pub fn lingers(&self) -> bool {
        self.seen_on.is_some() && self.zero_counts == 0
    }

    /// Whether the last count on its broker found its consumer gone.
    #[must_use]
    pub fn consumer_gone(&self) -> bool {
        self.zero_counts > 0
    }

    /// Whether it had no consumer anywhere since it was heard last: `links` is one link to each
    /// broker of the list, each of which counted none twice, and at one time all of them, as a
    /// peer that moves has its new consumer before it gives up the former one. `since`: each
    /// was asked after that time, monotonic milliseconds.
    #[must_use]
    pub fn nowhere(&self, links: &[LinkEpoch], since: u64) -> bool {
        let counts: Option<Vec<Zeros>> = (links.iter())
            .map(|link| self.zeros.get(link).copied())
            .collect();
        let Some(counts) = counts else {
            return false;
        };
        let first = counts.iter().map(|zeros| zeros.first).max();
        let last = counts.iter().map(|zeros| zeros.last).min();
        let (Some(first), Some(last)) = (first, last) else {
            return false;
        };
        first < last && last >= since
    }

    /// Whether the brokers' counts say that it is gone. `blind`: whether a broker is out of reach to
    /// which it may be on its way.
    fn counted_out(&self, links: Option<&[LinkEpoch]>, now: Now, blind: bool) -> bool {
        now.mono >= self.counts_from
            && self.zero_counts >= 2
            && links.map_or(!blind, |links| self.nowhere(links, 0))
    }

    /// Whether nothing that must not be done twice may be done without its word: it is there, or
    /// may be, for as long as it may hear us.
    #[must_use]
    pub fn has_a_say(&self, now: Now, timers: PeerTimers) -> bool {
        let hears = now.mono < self.last_seen + timers.silent();
        self.liveness.present() || (self.may_serve() && hears)
    }
}

/// Why a peer is gone that said so itself.
pub const GOODBYE: &str = "goodbye";

/// A change that others must know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Heard for the first time, or again, or after a restart.
    Up(InstanceId),
    /// Silent.
    Suspect(InstanceId),
    /// Gone; with the reason's bounded label.
    Lost(InstanceId, &'static str),
}

/// The peers of this instance.
#[derive(Debug, Default)]
pub struct Members {
    peers: BTreeMap<InstanceId, Peer>,
    /// Since when a broker of the list is out of reach, monotonic milliseconds.
    blind_since: Option<u64>,
}

impl Members {
    /// All peers.
    pub fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Peer)> {
        self.peers.iter()
    }

    /// One peer.
    #[must_use]
    pub fn get(&self, id: &InstanceId) -> Option<&Peer> {
        self.peers.get(id)
    }

    /// Takes a peer from the list; it comes back with its next heartbeat.
    pub fn forget(&mut self, id: &InstanceId) {
        self.peers.remove(id);
    }

    /// Peers that may be serving.
    pub fn present(&self) -> impl Iterator<Item = (&InstanceId, &Peer)> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.liveness.present())
    }

    /// Those that must have an intent before its call: they are there and keep a journal.
    pub fn journaling(&self) -> Vec<InstanceId> {
        self.present()
            .filter(|(_, peer)| peer.heartbeat.journal)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Whether there is a place for another peer; where names come and go, that of the one that is
    /// gone for longest. What it may have done is the book's to remember.
    fn has_place(&mut self, now: Now) -> bool {
        if self.peers.len() < limits::PEERS {
            return true;
        }
        let gone = (self.peers.iter())
            .filter(|(_, peer)| peer.is_over(now))
            .min_by_key(|(_, peer)| peer.last_seen)
            .map(|(id, _)| id.clone());
        gone.is_some_and(|id| self.peers.remove(&id).is_some())
    }

    /// A sign of life.
    pub fn on_heartbeat(
        &mut self,
        now: Now,
        from: &InstanceId,
        boot: BootId,
        heartbeat: Heartbeat,
    ) -> Option<Change> {
        if !self.peers.contains_key(from) && !self.has_place(now) {
            return None;
        }
        let fresh = |former: Vec<BootId>| Peer {
            boot,
            former,
            liveness: Liveness::Lost,
            last_seen: now.mono,
            heartbeat: heartbeat.clone(),
            round_trip: None,
            snapshot_done: false,
            snapshot_parts: BTreeSet::new(),
            echoed_at: None,
            covered: false,
            synced: false,
            differs: 0,
            seen_on: None,
            zero_counts: 0,
            zeros: BTreeMap::new(),
            lost_at: 0,
            by_count: false,
            counts_from: 0,
            gone: false,
            counted_at: 0,
        };
        let known = self.peers.contains_key(from);
        let peer = self
            .peers
            .entry(from.clone())
            .or_insert_with(|| fresh(Vec::new()));
        // A copy that came another way is none either: it may have waited there.
        let late = known && peer.boot == boot && heartbeat.seq <= peer.heartbeat.seq;
        // What an earlier start sent may arrive after the later one was heard. A clock that was
        // set back meanwhile is believed once the later one is silent.
        let there = peer.liveness.present();
        let started = peer.heartbeat.started;
        let earlier = peer.boot != boot && there && heartbeat.started < started;
        // One that was taken for an earlier start is believed when the other one is gone, and it
        // is the later, or goes on for longer than messages take.
        let patient = now.mono < peer.lost_at + limits::FORMER_HEARD_MS;
        let former = peer.boot != boot
            && peer.former.contains(&boot)
            && (there || heartbeat.started <= started && patient);
        // Another process under the id of one that lives, by way of another broker, where nothing
        // refuses its control queue: the first goes on. At the same broker that one's has ended.
        let second = peer.boot != boot
            && peer.liveness == Liveness::Alive
            && heartbeat.broker != peer.heartbeat.broker;
        // The last word of a start is its goodbye: what comes behind it was on its way before.
        let ended = peer.boot == boot && peer.liveness == Liveness::Left;
        if late || earlier || former || second || ended {
            return None;
        }
        let restarted = peer.boot != boot;
        if restarted {
            let mut former = std::mem::take(&mut peer.former);
            if former.len() >= limits::FORMER_BOOTS {
                former.remove(0);
            }
            former.push(peer.boot);
            // It is the one that is there now.
            former.retain(|earlier| *earlier != boot);
            *peer = fresh(former);
        }
        let changed = restarted || peer.liveness != Liveness::Alive;
        if peer.liveness == Liveness::Lost && peer.by_count {
            peer.counts_from = now.mono + limits::COUNTS_DISTRUSTED_MS;
        }
        peer.liveness = Liveness::Alive;
        peer.gone = false;
        peer.zeros.clear();
        peer.last_seen = now.mono;
        peer.heartbeat = heartbeat;
        changed.then(|| Change::Up(from.clone()))
    }

    /// A count of the consumers of a peer's control queue.
    pub fn on_consumers(&mut self, link: LinkEpoch, id: &InstanceId, count: u32, now: u64) {
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        if count > 0 {
            peer.zeros.clear();
            // While it moves it has one at both: it is where it was until that one is gone.
            let elsewhere = peer.seen_on.is_some_and(|at| at != link) && peer.zero_counts == 0;
            if elsewhere && now < peer.counted_at + limits::MOVING_COUNT_MS {
                return;
            }
            peer.seen_on = Some(link);
            peer.zero_counts = 0;
            peer.counted_at = now;
            return;
        }
        let first = Zeros {
            first: now,
            last: now,
        };
        peer.zeros.entry(link).or_insert(first).last = now;
        if peer.seen_on == Some(link) {
            peer.zero_counts = peer.zero_counts.saturating_add(1);
        }
    }

    /// A link is gone: what was seen on it proves nothing any more.
    pub fn on_link_down(&mut self, link: LinkEpoch) {
        for peer in self.peers.values_mut() {
            peer.zeros.remove(&link);
            if peer.seen_on == Some(link) {
                peer.seen_on = None;
                peer.zero_counts = 0;
            }
        }
    }

    /// A message that claims to be a peer's is not authentic.
    pub fn on_rejected(&mut self, id: &InstanceId) {
        if let Some(peer) = self.peers.get_mut(id)
            && !peer.liveness.present()
        {
            peer.liveness = Liveness::AuthFailed;
        }
    }

    /// A peer said goodbye.
    pub fn on_goodbye(&mut self, now: Now, id: &InstanceId, boot: BootId) -> Option<Change> {
        let peer = self.peers.get_mut(id)?;
        // That of an earlier start may come after the later one was heard.
        if !peer.liveness.present() || peer.boot != boot {
            return None;
        }
        peer.liveness = Liveness::Left;
        peer.lost_at = now.mono;
        peer.gone = true;
        peer.zeros.clear();
        for group in &mut peer.heartbeat.groups {
            group.role = Role::Disabled;
        }
        Some(Change::Lost(id.clone(), GOODBYE))
    }

    /// This process was away: its silence is not the peers' silence.
    pub fn forgive(&mut self, pause: u64, now: u64) {
        for peer in self.peers.values_mut() {
            peer.last_seen = peer.last_seen.saturating_add(pause).min(now);
        }
    }

    /// This instance could not be heard for a while, and can hear again: others may have gone on
    /// without it. None of them is lost by silence before it was listened to for a while, nor is
    /// what any of them told before enough.
    pub fn heard_again(&mut self, now: u64, timers: PeerTimers) {
        let least = (now + limits::LISTEN_MS).saturating_sub(timers.silent());
        for peer in self.peers.values_mut() {
            peer.last_seen = peer.last_seen.max(least).min(now);
            peer.synced = false;
            peer.echoed_at = None;
        }
    }

    /// Looks for proof that lost peers are gone: `links` is one link to each broker of the list.
    /// Where a broker is not reached there is none, as the peer may be attached to that one.
    pub fn prove(&mut self, links: Option<&[LinkEpoch]>) {
        let Some(links) = links else {
            return;
        };
        for peer in self.peers.values_mut() {
            if peer.liveness == Liveness::Lost && !peer.gone {
                peer.gone = peer.nowhere(links, 0);
            }
        }
    }

    /// A broker was out of reach for so long that a lost peer may have come and gone there.
    pub fn unwatched(&mut self) {
        let absent = |peer: &&mut Peer| !peer.liveness.present();
        for peer in self.peers.values_mut().filter(absent) {
            peer.covered = false;
        }
    }

    /// Since when a broker of the list is out of reach, monotonic milliseconds; `None`: all are
    /// reached.
    pub fn note_blind(&mut self, since: Option<u64>) {
        self.blind_since = since;
    }

    /// A peer that was lost `patience` milliseconds ago and may be serving still.
    #[must_use]
    pub fn doubtful(&self, now: Now, patience: u64) -> Option<&InstanceId> {
        let mut peers = self.peers.iter().filter(|(_, peer)| {
            peer.may_serve() && now.mono.saturating_sub(peer.lost_at) >= patience
        });
        peers.next().map(|(id, _)| id)
    }

    /// When silence alone next makes a difference, monotonic milliseconds.
    #[must_use]
    pub fn next_change(&self, timers: PeerTimers) -> Option<u64> {
        let peers = self.peers.values().filter(|peer| peer.liveness.present());
        let changes = peers.map(|peer| match peer.liveness {
            Liveness::Alive => peer.last_seen + timers.suspect,
            _ => peer.last_seen + timers.silent(),
        });
        changes.min()
    }

    /// This process was starved: what it counted meanwhile may be of different times.
    pub fn doubt_counts(&mut self) {
        for peer in self.peers.values_mut() {
            peer.zero_counts = 0;
            peer.zeros.clear();
        }
    }

    /// Time passes. `links`: one to each broker of the list, where all are reached; a peer that
    /// has moved is on one of them. Where one is not, the broker on which it was seen last counts,
    /// but not at once: one that restarts is out of reach for a moment, and brokers that restart are
    /// when peers move.
    pub fn tick(
        &mut self,
        now: Now,
        timers: PeerTimers,
        links: Option<&[LinkEpoch]>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let blind = |since: u64| now.mono < since + timers.lost;
        let blind = self.blind_since.is_some_and(blind);
        for (id, peer) in &mut self.peers {
            if !peer.liveness.present() {
                continue;
            }
            let silent = now.mono.saturating_sub(peer.last_seen);
            let reason = if silent >= timers.silent() {
                Some("silent")
            } else if peer.counted_out(links, now, blind) && silent >= limits::EVIDENCE_LOST_MS {
                Some("consumer_gone")
            } else {
                None
            };
            if let Some(reason) = reason {
                peer.liveness = Liveness::Lost;
                peer.by_count = reason == "consumer_gone";
                peer.lost_at = now.mono;
                changes.push(Change::Lost(id.clone(), reason));
            } else if silent >= timers.suspect && peer.liveness == Liveness::Alive {
                peer.liveness = Liveness::Suspect;
                changes.push(Change::Suspect(id.clone()));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests;
