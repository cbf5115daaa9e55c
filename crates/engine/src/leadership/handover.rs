//! Taking the lead, and giving it away, without a command failing.
//!
//! ```text
//!   follower: it is my turn ─▶ hold ─▶ subscriptions ─▶ Claim ──▶  leader: draining
//!   leader   ◀──────────────────────────────────────── Grant ◀──  what had been started is finished
//! ```
//!
//! While the leader drains nothing is started. So a command that takes long does not hold the others
//! up: the leader goes on for as long as that one runs, and grants a later claim.
//!
//! It is a follower's turn when its rank is above the leader's (after a hold), when an operator
//! has chosen it, or when the leader wants to leave the group (both at once).

use crate::api::config::Mode;
use crate::api::ids::JobId;
use crate::leadership::groups::HeldUp;
use crate::model::InstanceId;
use crate::peer::{PeerMessage, Role};
use crate::state::timer::Timer;
use crate::{Engine, limits};

/// How long a handover may take before it is given up, milliseconds.
const HANDOVER_MS: u64 = 15_000;

/// How long a leader drains for a claim before it goes on, milliseconds; doubled each time that this
/// was too short, up to [`HANDOVER_MS`].
const DRAIN_MS: u64 = 500;

/// After so long it begins with the short time again, milliseconds.
const HELD_UP_MS: u64 = 60_000;

/// Label of a lead that came by rank, from one that gave it away.
pub(crate) const TAKEBACK: &str = "takeback";

/// A group on its way out of this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaving {
    /// Label for the role change at the end.
    pub why: &'static str,
    /// How long a claimant is waited for, monotonic milliseconds.
    pub until: u64,
    /// Nobody is waited for: what is started is finished, and that is the end.
    pub closing: bool,
}

impl Engine {
    // ---- handover -----------------------------------------------------------------------------

    /// The way of a follower to the lead, of a leader that gives way, and of a group that is left.
    pub(crate) fn drive_handovers(&mut self) {
        for index in 0..self.groups.len() {
            self.drive_takeback(index);
            self.drive_grant(index);
            self.drive_leaving(index);
        }
    }

    /// The leader that this follower is to take the place of, and whether that has no time to lose.
    fn to_replace(&self, index: usize) -> Option<(InstanceId, bool)> {
        let name = &self.groups[index].name;
        let (leader, peer) = self.members.present().find(|(_, peer)| peer.leads(name))?;
        let state = peer.group(name);
        if !self.eligible(index) || !self.attached.hears() || self.placement().failover_off(index) {
            return None;
        }
        let leaving = state.is_some_and(|state| state.leaving);
        let first = || {
            !self.members.present().any(|(id, other)| {
                id != leader
                    && other.group(name).is_some_and(|state| state.eligible)
                    && self.rank_of(index, id, other) > self.own_rank(index)
            })
        };
        let above = self.own_rank(index) > self.rank_of(index, leader, peer);
        let turn = above || (leaving && first());
        turn.then(|| (leader.clone(), leaving || self.groups[index].at_once))
    }

    /// Stable for the hold time → subscriptions → claim.
    pub(crate) fn drive_takeback(&mut self, index: usize) {
        if self.cfg.mode != Mode::ActivePassive || self.groups[index].role != Role::Follower {
            return;
        }
        let now = self.now.mono;
        let name = self.groups[index].name.clone();
        let Some((leader, at_once)) = self.to_replace(index) else {
            self.groups.edit(index).stable_since = None;
            // Without a leader in sight the prepared subscriptions may be needed at once.
            if self.placement().leader_of(&name).is_some() || !self.eligible(index) {
                self.give_up_takeback(index);
            }
            return;
        };
        let hold = match at_once {
            true => 0,
            false => self.cfg.takeback_hold * self.groups[index].hold_factor,
        };
        let since = *self.groups.edit(index).stable_since.get_or_insert(now);
        if now < since + hold {
            self.timers.set_by(Timer::Members, since + hold);
            return;
        }
        match (self.groups[index].preparing, self.groups[index].claimed) {
            (None, _) => {
                self.groups.edit(index).preparing = Some(now);
                if !self.cfg.planted.unsubscribes_first() {
                    let agents = self.placement().agents_of(index);
                    self.take(agents, "preparing");
                }
                self.timers.set_by(Timer::Members, now + 50);
            }
            (Some(started), None) => {
                let prepared = self.agents.takeover.idle() || now >= started + HANDOVER_MS;
                if prepared && self.epoch_ready() {
                    let term = self.keeping.epoch() + 1;
                    self.groups.edit(index).claimed = Some((term, now));
                    self.say(Some(&leader), PeerMessage::Claim { group: name, term });
                    self.timers.set_by(Timer::Members, now + limits::RESEND_MS);
                } else {
                    self.timers.set_by(Timer::Members, now + 50);
                }
            }
            (Some(_), Some((term, sent))) => {
                if now >= sent + limits::RESEND_MS {
                    self.groups.edit(index).claimed = Some((term, now));
                    self.say(Some(&leader), PeerMessage::Claim { group: name, term });
                }
                self.timers.set_by(Timer::Members, now + limits::RESEND_MS);
            }
        }
    }

    /// The way back is barred: what was prepared for it is let go.
    pub(crate) fn give_up_takeback(&mut self, index: usize) {
        let group = self.groups.edit(index);
        group.claimed = None;
        if group.preparing.take().is_some() {
            for agent in self.placement().agents_of(index) {
                self.disown(&agent);
            }
        }
    }

    /// A member that is ready to lead asks for the group. The leader stops starting and grants once
    /// what runs has ended; who has granted already says it again, as the grant may be lost.
    pub(crate) fn on_claim(&mut self, from: &InstanceId, name: &str, term: u64) {
        let Some(index) = self.groups.iter().position(|group| group.name == name) else {
            return;
        };
        // Nothing is left to who is not there: it is not heard, or its claim was late.
        let peer = self.members.get(from);
        if !peer.is_some_and(|peer| peer.liveness.present()) {
            return;
        }
        let third = self
            .placement()
            .leader_of(name)
            .filter(|leader| leader != from);
        let closing = self.groups[index]
            .leaving
            .is_some_and(|leaving| leaving.closing);
        match self.groups[index].role {
            role if role.leads() => {
                let Some(drain) = self.drain_for(index) else {
                    return;
                };
                let until = self.now.mono + drain;
                self.groups.edit(index).granting = Some((from.clone(), term, until));
                self.set_role(index, Role::Draining, "claim");
                self.drive_grant(index);
            }
            // It leaves without a claimant just now; this one comes in time.
            Role::Draining if closing && self.groups[index].granting.is_none() => {
                let until = self.now.mono + HANDOVER_MS;
                self.groups.edit(index).granting = Some((from.clone(), term, until));
                self.drive_grant(index);
            }
            // The grant was lost: say it again. Where another one leads it was not this one's to give.
            Role::Follower | Role::Disabled if third.is_none() => {
                let group = name.to_owned();
                self.say(Some(from), PeerMessage::Grant { group, term });
            }
            _ => {}
        }
    }

    /// How long to drain for a claim. `None`: what held the last drain up still runs, so that this
    /// one would be for nothing.
    fn drain_for(&mut self, index: usize) -> Option<u64> {
        let held_up = &self.groups[index].held_up;
        let held = |id: JobId| held_up.by.contains(&id);
        if self.placement().started_in(index).any(held) {
            return None;
        }
        let lately = self.now.mono < held_up.at + HELD_UP_MS;
        let times = if lately { held_up.times.min(8) } else { 0 };
        let group = self.groups.edit(index);
        group.held_up.by.clear();
        group.held_up.times = times;
        Some((DRAIN_MS << times).min(HANDOVER_MS))
    }

    /// What was started did not end in time: others have waited for it for long enough.
    fn note_held_up(&mut self, index: usize) {
        let by = self.placement().started_in(index).collect();
        let (now, group) = (self.now.mono, self.groups.edit(index));
        group.held_up.times += 1;
        group.held_up.by = by;
        group.held_up.at = now;
    }

    /// What was started is finished: the group is the claimant's.
    pub(crate) fn drive_grant(&mut self, index: usize) {
        let Some((to, term, until)) = self.groups[index].granting.clone() else {
            return;
        };
        let now = self.now.mono;
        let alive = self
            .members
            .get(&to)
            .is_some_and(|peer| peer.liveness.present());
        let closing = self.groups[index]
            .leaving
            .is_some_and(|leaving| leaving.closing);
        if !alive || now >= until {
            self.groups.edit(index).granting = None;
            if closing {
                return;
            }
            if alive {
                self.note_held_up(index);
            }
            self.lead_on(index, "claim-failed");
            return;
        }
        if self.placement().running_in(index) > 0 {
            self.timers.set_by(Timer::Members, now + 10);
            return;
        }
        let group = self.groups.edit(index);
        group.granting = None;
        group.held_up = HeldUp::default();
        group.term = group.term.max(term);
        self.keeping.see_epoch(term);
        self.send_delta();
        let group = self.groups[index].name.clone();
        // Believe the claimant before its next heartbeat says so, or we would lead again.
        self.members.believe_role(&to, &group, Role::Leader);
        match self.groups.edit(index).leaving.take() {
            Some(leaving) => self.set_role(index, Role::Disabled, leaving.why),
            None => self.set_role(index, Role::Follower, "granted"),
        }
        self.say(Some(&to), PeerMessage::Grant { group, term });
    }

    pub(crate) fn on_grant(&mut self, from: &InstanceId, name: &str, term: u64) {
        let Some(index) = self.groups.iter().position(|group| group.name == name) else {
            return;
        };
        let asked = self.groups[index]
            .claimed
            .is_some_and(|(own, _)| own == term);
        if !asked {
            self.stale("grant");
            return;
        }
        self.keeping.see_epoch(term.saturating_sub(1));
        // Asked again, it is granted again.
        if !self.epoch_ready() {
            self.keep();
            return;
        }
        self.members.believe_role(from, name, Role::Follower);
        let role = self.leading_role(index);
        let reason = self.reason_of_claim(index);
        self.set_role(index, role, reason);
    }

    /// Why this instance has asked for a group.
    pub(crate) fn reason_of_claim(&self, index: usize) -> &'static str {
        match self.chosen(index, &self.cfg.instance) {
            true => "chosen",
            false => TAKEBACK,
        }
    }

    // ---- leaving ------------------------------------------------------------------------------

    /// This instance is to serve a group no more. A leader waits `wait` milliseconds for one that
    /// takes the group over in order; without `wait`, or without anyone, it closes at once.
    pub(crate) fn leave_group(&mut self, index: usize, why: &'static str, wait: Option<u64>) {
        if self.groups[index].role == Role::Disabled {
            return;
        }
        let me = self.cfg.instance.clone();
        self.end_choice_of(index, &me);
        let group = &self.groups[index];
        let serves = group.role.leads() || group.granting.is_some();
        let someone = serves
            && self.cfg.mode == Mode::ActivePassive
            && self.attached.hears()
            && self.other_eligible(&group.name);
        let wait = wait.filter(|_| someone);
        // A lead that is given up because somebody wants that has lasted for long enough.
        if self.groups.edit(index).took_back.take().is_some() {
            self.groups.edit(index).unkept = true;
        }
        self.groups.edit(index).leaving = Some(Leaving {
            why,
            until: self.now.mono + wait.unwrap_or(0),
            closing: wait.is_none(),
        });
        match wait {
            Some(wait) => {
                self.timers.set_by(Timer::Members, self.now.mono + wait);
                self.beat();
            }
            None => self.close_group(index),
        }
    }

    fn drive_leaving(&mut self, index: usize) {
        let Some(leaving) = self.groups[index].leaving else {
            return;
        };
        if self.groups[index].granting.is_some() {
            return;
        }
        let nobody = !self.other_eligible(&self.groups[index].name);
        if !leaving.closing && (nobody || self.now.mono >= leaving.until) {
            self.close_group(index);
        } else if leaving.closing && self.placement().running_in(index) == 0 {
            self.groups.edit(index).leaving = None;
            self.set_role(index, Role::Disabled, leaving.why);
            // What arrived after the consumer was cancelled.
            self.give_back_waiting(index);
        }
    }

    /// Stops consuming; what is started is finished, what waits goes back to its queue.
    fn close_group(&mut self, index: usize) {
        let Some(leaving) = &mut self.groups.edit(index).leaving else {
            return;
        };
        leaving.closing = true;
        let why = leaving.why;
        self.groups.edit(index).granting = None;
        let role = match self.groups[index].role {
            role if role.leads() => Role::Draining,
            Role::Draining => Role::Draining,
            _ => Role::Disabled,
        };
        if role == Role::Disabled {
            self.groups.edit(index).leaving = None;
        }
        self.set_role(index, role, why);
        self.refresh_consumers();
        self.give_back_waiting(index);
        self.send_delta();
        self.drive_leaving(index);
    }

    /// All groups are left; the instance stays up.
    pub(crate) fn drain(&mut self, wait: u64, why: &'static str) -> Result<String, String> {
        if self.drained() {
            return Ok("drained".to_owned());
        }
        self.ending.drain();
        for index in 0..self.groups.len() {
            self.leave_group(index, why, Some(wait));
        }
        Ok("draining".to_owned())
    }

    /// Whether nobody misses the subscriptions that are held here: others have taken the agents, and
    /// had the time to have their own; or there is nobody to take them. (Active-passive: who claims
    /// a group has them before.)
    fn agents_are_served(&self) -> bool {
        if self.cfg.mode == Mode::ActivePassive {
            return true;
        }
        let someone = self.groups.iter().any(|group| {
            let leads = |(_, peer): (_, &crate::cluster::members::Peer)| peer.leads(&group.name);
            self.members.present().any(leads)
        });
        let held = |session: &crate::state::session::Session| {
            session.live() && session.subscription.epoch().is_some()
        };
        !self.attached.hears() || !someone || !self.sessions.iter().any(held)
    }

    /// Whether a drain has ended.
    pub(crate) fn drained(&self) -> bool {
        let out = self.groups.iter().all(|group| group.role == Role::Disabled);
        self.ending.is_draining() && out && self.jobs.running() == 0 && self.agents_are_served()
    }
}
