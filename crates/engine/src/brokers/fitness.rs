//! What a broker does for us, way by way.
//!
//! A link may stand and yet be of no use: the broker refuses what is published, or gives no
//! consumer. Which way it is decides what follows.
//!
//! ```text
//!            refused               refused again and again
//!   works ────────────▶ doubted ───────────────────────────▶ lost
//!     ▲                  │  ▲ │                                │
//!     │     passes       │  └─┘ proofs, with a growing pause   │ proof passes
//!     └──────────────────┴─────────────────────────────────────┘
//! ```
//!
//! Traffic only raises a doubt: a broker goes by what it knew of a user's rights when a channel was
//! opened, so of two channels one is refused what the other may. A proof is made on a channel of
//! its own, and says what holds now. What one client's queue refuses is no doubt at all.

use std::collections::BTreeMap;

use crate::api::way::{Proof, Way, Weight};

/// Whether something may be sent on a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Yes.
    Open,
    /// It is being found out.
    Doubted,
    /// No.
    Lost,
}

/// A way was lost, or works again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub way: Way,
    /// Why it is lost; `None`: it works again.
    pub lost: Option<String>,
}

/// Refusals in a row, none shown to be chance by a proof, at which a way is lost, and over how long
/// at least, milliseconds.
const REFUSALS: u32 = 3;
/// See [`REFUSALS`].
const REFUSED_MS: u64 = 500;
/// Refusals so far apart are not in a row, where a proof has passed since, milliseconds.
const APART_MS: u64 = 60_000;
/// First pause between two proofs, milliseconds; doubled each time.
const PROOF_MS: u64 = 200;
/// The longest one: so long after the broker was mended it may take to be noticed.
const PROOF_MAX_MS: u64 = 15_000;
/// When a question without an answer is asked again, milliseconds.
const UNKNOWN_MS: u64 = 1_000;
/// How often the ways for publications are proven without a doubt, milliseconds.
const LOOK_MS: u64 = 5_000;
/// How long publications may be blocked before commands should go elsewhere, milliseconds.
const BLOCKED_MS: u64 = 5_000;
/// A new connection has published something by then, and would be blocked, milliseconds.
const SETTLED_MS: u64 = 2_000;
/// A broker that fails again within this time after it was taken into use is held off for longer,
/// milliseconds.
const RELAPSE_MS: u64 = 60_000;
/// Doublings of the hold at most.
const RELAPSES: u32 = 8;
/// The longest hold, milliseconds, unless the configured one is longer.
const HOLD_MAX_MS: u64 = 300_000;

#[derive(Debug, Clone)]
struct Trouble {
    reason: String,
    refusals: u32,
    since: u64,
    refused_at: u64,
    lost: bool,
    /// A proof has passed since the last refusal.
    proven: bool,
    /// A proof is under way.
    asked: bool,
    /// When the next one is due.
    proof_at: u64,
    pause: u64,
}

/// What one broker does for us.
#[derive(Debug, Clone, Default)]
pub struct Fitness {
    troubles: BTreeMap<Way, Trouble>,
    /// When all ways for publications are proven again; `None` without a link.
    look_at: Option<u64>,
    blocked: bool,
    /// When it was taken into use last.
    used_at: Option<u64>,
    /// How often it failed soon after that, in a row.
    relapses: u32,
    /// Since when nothing of weight is lost any more.
    fit_since: u64,
    changes: Vec<Change>,
}

impl Fitness {
    // ---- what happens -------------------------------------------------------------------------

    /// Something sent on a way was refused.
    pub fn refused(&mut self, now: u64, way: Way, reason: &str) {
        let tried_again = self.troubles.get(&way).is_none_or(|known| known.proven);
        if tried_again {
            self.count(now, way, reason);
        }
        if let (Way::DeadLetters, Some(trouble)) = (way, self.troubles.get_mut(&way))
            && trouble.refusals == 1
        {
            // Most likely it was deleted, and only needs to be declared.
            trouble.proof_at = now;
        }
    }

    /// A way cannot be had, for sure.
    pub fn lose(&mut self, now: u64, way: Way, reason: &str) {
        self.count(now, way, reason);
        self.give_up(now, way);
    }

    /// A proof has ended.
    pub fn proved(&mut self, now: u64, way: Way, proof: &Proof) {
        let blocked = self.blocked && way != Way::Publishing;
        match proof {
            Proof::Passed => self.passed(now, way),
            Proof::Refused { reason } if !blocked => self.count(now, way, reason),
            // A blocked connection answers nothing.
            Proof::Refused { .. } | Proof::Unknown => {
                if let Some(trouble) = self.troubles.get_mut(&way) {
                    trouble.asked = false;
                    trouble.proof_at = now + UNKNOWN_MS;
                }
            }
        }
    }

    /// A way was used, and works.
    pub fn works(&mut self, now: u64, way: Way) {
        let Some(trouble) = self.troubles.remove(&way) else {
            return;
        };
        if trouble.lost && !trouble.proven {
            self.changes.push(Change { way, lost: None });
            self.recovered(now);
        }
    }

    /// The broker stopped taking publications, or takes them again.
    pub fn blocked(&mut self, now: u64, blocked: bool) {
        self.blocked = blocked;
        if !blocked {
            self.works(now, Way::Publishing);
            return;
        }
        let reason = "the broker has an alarm (memory or disk)".to_owned();
        self.troubles
            .entry(Way::Publishing)
            .or_insert_with(|| Trouble::new(now, reason, BLOCKED_MS));
    }

    /// A link to it is open.
    pub fn on_up(&mut self, now: u64) {
        self.look_at = Some(now);
        self.blocked = false;
        for (way, trouble) in &mut self.troubles {
            // These are asked for on every new link as it is.
            trouble.asked = *way == Way::Expired;
            trouble.proof_at = match way {
                Way::Publishing => now + SETTLED_MS,
                _ => trouble.proof_at.min(now),
            };
        }
    }

    /// Its link is gone. Questions on it are not answered any more.
    pub fn on_down(&mut self) {
        self.look_at = None;
        self.blocked = false;
        for trouble in self.troubles.values_mut() {
            trouble.asked = false;
        }
    }

    /// It is taken into use.
    pub fn used(&mut self, now: u64) {
        self.used_at = Some(now);
    }

    /// It failed while it was in use.
    pub fn failed(&mut self, now: u64) {
        let Some(used) = self.used_at.take() else {
            return;
        };
        let soon = now < used + RELAPSE_MS;
        self.relapses = if soon { self.relapses + 1 } else { 1 };
    }

    /// The ways that are to be proven now. Call when a link is up.
    pub fn due(&mut self, now: u64) -> Vec<Way> {
        let mut ways = Vec::new();
        if self.look_at.is_some_and(|at| at <= now) && !self.blocked {
            self.look_at = Some(now + LOOK_MS);
            let known = |way: &Way| self.troubles.contains_key(way);
            ways.extend(Way::PUBLISHING.into_iter().filter(|way| !known(way)));
        }
        for (way, trouble) in &mut self.troubles {
            let due = !trouble.asked && !trouble.proven && trouble.proof_at <= now;
            if due && *way != Way::Publishing && !self.blocked {
                trouble.asked = true;
                ways.push(*way);
            }
        }
        self.look_at_alarm(now);
        ways
    }

    /// When [`Self::due`] is to be called again.
    #[must_use]
    pub fn next_at(&self) -> Option<u64> {
        let look = self.look_at?;
        let alarm = |way: &Way| *way == Way::Publishing;
        let proofs = self.troubles.iter().filter(|(way, trouble)| {
            if alarm(way) {
                return !(self.blocked && trouble.lost);
            }
            !trouble.asked && !trouble.proven && !self.blocked
        });
        let proofs = proofs.map(|(_, trouble)| trouble.proof_at);
        let look = (!self.blocked).then_some(look);
        proofs.chain(look).min()
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    // ---- how it is ----------------------------------------------------------------------------

    /// Whether something may be sent on a way.
    #[must_use]
    pub fn pass(&self, way: Way) -> Pass {
        if self.blocked && Way::PUBLISHING.contains(&way) {
            // It would wait in the connection.
            return Pass::Doubted;
        }
        match self.troubles.get(&way) {
            Some(trouble) if trouble.proven => Pass::Open,
            Some(trouble) if trouble.lost => Pass::Lost,
            Some(_) => Pass::Doubted,
            None => Pass::Open,
        }
    }

    /// The worst of what is lost; [`Weight::Minor`] where nothing is, or nothing of weight.
    #[must_use]
    pub fn weight(&self) -> Weight {
        let lost = self.lost().map(|(way, _)| way.weight());
        lost.max().unwrap_or(Weight::Minor)
    }

    /// Whether something of weight is being found out.
    #[must_use]
    pub fn doubted(&self) -> bool {
        let doubts = |(way, trouble): (&Way, &Trouble)| {
            let open = !trouble.lost && !trouble.proven;
            open && *way != Way::Publishing && way.weight() > Weight::Minor
        };
        self.troubles.iter().any(doubts)
    }

    /// Commands that are taken there could not be answered.
    #[must_use]
    pub fn mute(&self) -> bool {
        self.lost().any(|(way, _)| way.mutes())
    }

    /// What is lost, with the reason.
    pub fn lost(&self) -> impl Iterator<Item = (Way, &str)> {
        self.troubles
            .iter()
            .filter(|(_, trouble)| trouble.lost && !trouble.proven)
            .map(|(way, trouble)| (*way, trouble.reason.as_str()))
    }

    /// How long it must be well before it is preferred again, given the configured hold.
    #[must_use]
    pub fn hold(&self, configured: u64) -> u64 {
        let doubled = configured << self.relapses.saturating_sub(1).min(RELAPSES);
        doubled.min(HOLD_MAX_MS.max(configured))
    }

    /// Since when it is well.
    #[must_use]
    pub fn fit_since(&self) -> u64 {
        self.fit_since
    }

    // ---- within -------------------------------------------------------------------------------

    fn count(&mut self, now: u64, way: Way, reason: &str) {
        let over =
            |known: &Trouble| known.proven && !known.lost && now >= known.refused_at + APART_MS;
        if self.troubles.get(&way).is_some_and(over) {
            self.troubles.remove(&way);
        }
        let trouble = self
            .troubles
            .entry(way)
            .and_modify(|known| known.pause = (2 * known.pause).min(PROOF_MAX_MS))
            .or_insert_with(|| Trouble::new(now, String::new(), PROOF_MS));
        trouble.refusals = trouble.refusals.saturating_add(1);
        trouble.refused_at = now;
        reason.clone_into(&mut trouble.reason);
        trouble.asked = false;
        let was_proven = std::mem::take(&mut trouble.proven);
        trouble.proof_at = now + trouble.pause;
        let again = trouble.refusals >= REFUSALS && now >= trouble.since + REFUSED_MS;
        let minor = way.weight() == Weight::Minor;
        if trouble.lost && was_proven {
            // It was thought to work.
            self.tell_lost(now, way);
        } else if !trouble.lost && (again || minor) {
            self.give_up(now, way);
        }
    }

    fn give_up(&mut self, now: u64, way: Way) {
        if let Some(trouble) = self.troubles.get_mut(&way)
            && !trouble.lost
        {
            trouble.lost = true;
            self.tell_lost(now, way);
        }
    }

    fn tell_lost(&mut self, now: u64, way: Way) {
        let reason = self.troubles.get(&way).map(|known| known.reason.clone());
        self.changes.push(Change { way, lost: reason });
        if way.weight() > Weight::Minor {
            self.failed(now);
        }
    }

    fn passed(&mut self, now: u64, way: Way) {
        if !way.shown_by_use() {
            self.works(now, way);
            return;
        }
        let Some(trouble) = self.troubles.get_mut(&way) else {
            return;
        };
        trouble.proven = true;
        trouble.asked = false;
        if trouble.lost {
            self.changes.push(Change { way, lost: None });
            self.recovered(now);
        }
    }

    fn recovered(&mut self, now: u64) {
        if self.weight() == Weight::Minor {
            self.fit_since = now;
        }
    }

    /// An alarm that lasts is a lost way; one of a link that is gone is over unless it shows on the
    /// new one.
    fn look_at_alarm(&mut self, now: u64) {
        let due = |trouble: &Trouble| trouble.proof_at <= now;
        if !self.troubles.get(&Way::Publishing).is_some_and(due) {
            return;
        }
        if self.blocked {
            self.give_up(now, Way::Publishing);
        } else {
            self.works(now, Way::Publishing);
        }
    }
}

impl Trouble {
    fn new(now: u64, reason: String, pause: u64) -> Self {
        Self {
            reason,
            refusals: 0,
            since: now,
            refused_at: now,
            lost: false,
            proven: false,
            asked: false,
            proof_at: now + pause,
            pause,
        }
    }
}

#[cfg(test)]
mod tests;
