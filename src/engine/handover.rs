//! Taking the lead back, and giving it away, without a command failing.

use super::config::Mode;
use super::peer::{PeerMessage, Role};
use super::timer::Timer;
use super::{Engine, limits};
use crate::model::{AgentId, InstanceId};

/// How long a handover may take before it is given up, milliseconds.
const HANDOVER_MS: u64 = 15_000;

impl Engine {
    // ---- handover -----------------------------------------------------------------------------

    /// The way of a higher-priority follower back to the lead, and of a leader that gives way.
    pub(super) fn drive_handovers(&mut self) {
        for index in 0..self.groups.len() {
            self.drive_takeback(index);
            self.drive_grant(index);
        }
    }

    /// Stable for the hold time → subscriptions → claim.
    pub(super) fn drive_takeback(&mut self, index: usize) {
        if self.cfg.mode != Mode::ActivePassive || self.groups[index].role != Role::Follower {
            return;
        }
        let now = self.now.mono;
        let name = self.groups[index].name.clone();
        let leader = self
            .members
            .present()
            .find(|(_, peer)| peer.leads(&name))
            .map(|(id, peer)| (id.clone(), peer.group(&name).map_or(0, |g| g.priority)));
        let wanted = leader
            .as_ref()
            .filter(|(_, priority)| *priority < self.cfg.priority)
            .filter(|_| self.eligible(index) && self.control_on.is_some());
        let Some((leader, _)) = wanted.cloned() else {
            self.groups[index].stable_since = None;
            // Without a leader in sight the prepared subscriptions may be needed at once.
            let barred = leader.is_some_and(|(_, priority)| priority >= self.cfg.priority);
            if barred || !self.eligible(index) {
                self.give_up_takeback(index);
            }
            return;
        };
        let hold = self.cfg.takeback_hold * self.groups[index].hold_factor;
        let since = *self.groups[index].stable_since.get_or_insert(now);
        if now < since + hold {
            self.timers.set_by(Timer::Members, since + hold);
            return;
        }
        match (self.groups[index].preparing, self.groups[index].claimed) {
            (None, _) => {
                self.groups[index].preparing = Some(now);
                if !self.cfg.planted.unsubscribes_first() {
                    let agents = self.sessions.ids();
                    self.take(agents, "takeback");
                }
                self.timers.set_by(Timer::Members, now + 50);
            }
            (Some(started), None) => {
                if self.takeover.idle() || now >= started + HANDOVER_MS {
                    let term = self.epoch + 1;
                    self.groups[index].claimed = Some((term, now));
                    self.say(Some(&leader), PeerMessage::Claim { group: name, term });
                    self.timers.set_by(Timer::Members, now + limits::RESEND_MS);
                } else {
                    self.timers.set_by(Timer::Members, now + 50);
                }
            }
            (Some(_), Some((term, sent))) => {
                if now >= sent + limits::RESEND_MS {
                    self.groups[index].claimed = Some((term, now));
                    self.say(Some(&leader), PeerMessage::Claim { group: name, term });
                }
                self.timers.set_by(Timer::Members, now + limits::RESEND_MS);
            }
        }
    }

    /// Whether subscriptions are had for a lead that is to come.
    pub(super) fn prepares(&self) -> bool {
        self.groups.iter().any(|group| group.preparing.is_some())
    }

    /// The way back is barred: what was prepared for it is let go.
    pub(super) fn give_up_takeback(&mut self, index: usize) {
        let group = &mut self.groups[index];
        group.claimed = None;
        if group.preparing.take().is_some() && !self.leads_any() {
            for agent in self.sessions.ids() {
                self.disown(&agent);
            }
        }
    }

    /// Active-passive: the leader owns every agent, also those that a healed peer brings under
    /// its own name, whatever their epoch.
    pub(super) fn own_strays(&mut self) {
        let leads = self.groups.first().is_some_and(|group| group.role.leads());
        if self.cfg.mode != Mode::ActivePassive || !leads || self.leader_of_first_group().is_some()
        {
            return;
        }
        let strays: Vec<AgentId> = self
            .sessions
            .iter()
            .filter(|session| session.live() && session.record.version.owner != self.cfg.instance)
            .map(|session| session.record.agent.clone())
            .collect();
        if !strays.is_empty() {
            self.epoch += 1;
            self.take_over(strays, self.epoch, "healed");
        }
    }

    pub(super) fn on_claim(&mut self, from: &InstanceId, name: &str, term: u64) {
        let Some(index) = self.groups.iter().position(|group| group.name == name) else {
            return;
        };
        match self.groups[index].role {
            role if role.leads() => {
                let until = self.now.mono + HANDOVER_MS;
                self.groups[index].granting = Some((from.clone(), term, until));
                self.set_role(index, Role::Draining, "claim");
                self.drive_grant(index);
            }
            // The grant was lost: say it again.
            Role::Follower => {
                let group = name.to_owned();
                self.say(Some(from), PeerMessage::Grant { group, term });
            }
            _ => {}
        }
    }

    /// What was started is finished: the group is the claimant's.
    pub(super) fn drive_grant(&mut self, index: usize) {
        let Some((to, term, until)) = self.groups[index].granting.clone() else {
            return;
        };
        let now = self.now.mono;
        let alive = self
            .members
            .get(&to)
            .is_some_and(|peer| peer.liveness.present());
        if !alive || now >= until {
            self.groups[index].granting = None;
            self.set_role(index, Role::Follower, "claim-failed");
            self.look_at_role(index, "claim-failed");
            return;
        }
        if self.jobs.running() > 0 {
            self.timers.set_by(Timer::Members, now + 10);
            return;
        }
        self.groups[index].granting = None;
        self.groups[index].term = self.groups[index].term.max(term);
        self.epoch = self.epoch.max(term);
        self.send_delta();
        let group = self.groups[index].name.clone();
        // Believe the claimant before its next heartbeat says so, or we would lead again.
        if let Some(peer) = self.members.get_mut(&to)
            && let Some(state) = peer.heartbeat.groups.iter_mut().find(|g| g.name == group)
        {
            state.role = Role::Leader;
        }
        self.set_role(index, Role::Follower, "granted");
        self.say(Some(&to), PeerMessage::Grant { group, term });
    }

    pub(super) fn on_grant(&mut self, from: &InstanceId, name: &str, term: u64) {
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
        if let Some(peer) = self.members.get_mut(from)
            && let Some(state) = peer.heartbeat.groups.iter_mut().find(|g| g.name == name)
        {
            state.role = Role::Follower;
        }
        self.epoch = self.epoch.max(term.saturating_sub(1));
        self.set_role(index, Role::Leader, "takeback");
    }
}
