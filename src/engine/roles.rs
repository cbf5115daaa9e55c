//! Who leads which group, and how this instance consumes.
//!
//! ```text
//!              heard the others                   claim granted, leader lost
//!   joining ───────────────────▶ follower ────────────────────────────────────▶ leader
//!      │                            ▲                                              │
//!      └──── nobody else is here ───┼──────────────────────────────────────────▶   │
//!                                   └─────────── draining ◀── claim of a higher ◀──┘
//! ```
//!
//! Active-passive: one leader a group. Active-active: every serving instance leads.

use crate::model::InstanceId;

use super::config::Mode;
use super::ids::LinkEpoch;
use super::members::Change;
use super::peer::{GroupState, PeerMessage, Role};
use super::{Engine, Event};

/// A registered consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Consumer {
    pub link: LinkEpoch,
    pub tag: String,
    pub priority: i32,
    pub confirmed: bool,
}

/// A group of command queues.
#[derive(Debug)]
pub(super) struct Group {
    pub name: String,
    pub role: Role,
    pub term: u64,
    pub stopped: bool,
    pub consumer: Option<Consumer>,
    pub(super) generation: u64,
    /// The higher-priority follower's way back: since when it could lead.
    pub(super) stable_since: Option<u64>,
    /// Subscriptions are being prepared for a claim.
    pub(super) preparing: Option<u64>,
    /// A claim was sent.
    pub(super) claimed: Option<(u64, u64)>,
    /// Whose claim this leader drains for, its term and until when.
    pub(super) granting: Option<(InstanceId, u64, u64)>,
    /// Doubles when a takeback did not last.
    pub(super) hold_factor: u64,
    pub(super) led_since: Option<u64>,
}

impl Group {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            role: Role::Joining,
            term: 0,
            stopped: false,
            consumer: None,
            generation: 0,
            stable_since: None,
            preparing: None,
            claimed: None,
            granting: None,
            hold_factor: 1,
            led_since: None,
        }
    }
}

impl Engine {
    pub(super) fn leads_any(&self) -> bool {
        self.groups.iter().any(|group| group.role.leads())
    }

    /// Whether no command of an agent may be started now.
    pub(super) fn paused(&self) -> bool {
        self.fenced_until.is_some()
            || self
                .groups
                .iter()
                .all(|group| matches!(group.role, Role::Joining | Role::Draining) && !self.draining)
    }

    // ---- members and roles --------------------------------------------------------------------

    pub(super) fn look_at_members(&mut self) {
        // Who cannot hear must not take silence for loss.
        if self.control_on.is_some() {
            let changes = self.members.tick(self.now, self.cfg.peers);
            for change in changes {
                self.member_changed(change);
            }
        }
        self.look_at_roles("peers");
        if let Some(until) = self.fenced_until
            && until <= self.now.mono
        {
            self.fenced_until = None;
            self.advance_all();
        }
    }

    pub(super) fn member_changed(&mut self, change: Change) {
        match change {
            Change::Up(peer) => {
                self.events.push_back(Event::PeerUp { peer: peer.clone() });
                self.journal_member_up(&peer);
                self.say(Some(&peer), PeerMessage::Hello);
                self.beat();
                self.refresh_consumers();
            }
            Change::Suspect(peer) => {
                self.events
                    .push_back(Event::PeerSuspect { peer: peer.clone() });
                self.refresh_consumers();
                self.fence(peer);
            }
            Change::Lost(peer, reason) => {
                self.events.push_back(Event::PeerLost {
                    peer: peer.clone(),
                    reason,
                });
                self.judge_lost(&peer, reason);
                self.journal_member_gone(&peer);
                self.look_at_roles("peer-lost");
                self.take_from(&peer, reason);
                self.release_held();
            }
        }
    }

    pub(super) fn look_at_roles(&mut self, reason: &'static str) {
        for group in 0..self.groups.len() {
            self.look_at_role(group, reason);
        }
        self.drive_handovers();
    }

    pub(super) fn look_at_role(&mut self, index: usize, reason: &'static str) {
        let group = &self.groups[index];
        match group.role {
            Role::Disabled => return,
            Role::Draining if group.granting.is_some() || self.draining => return,
            Role::Joining if !self.may_leave_joining() => return,
            _ => {}
        }
        let role = match self.cfg.mode {
            Mode::ActiveActive => Role::Leader,
            Mode::ActivePassive => self.passive_role(index),
        };
        self.set_role(index, role, reason);
    }

    /// A newcomer has listened long enough, and has what those who are there know.
    pub(super) fn may_leave_joining(&self) -> bool {
        let Some(joined) = self.joined_at else {
            return false;
        };
        let waited = self.now.mono.saturating_sub(joined);
        let mut peers = self.members.present().peekable();
        if peers.peek().is_none() {
            return waited >= self.cfg.peers.suspect;
        }
        let known = peers.all(|(_, peer)| peer.snapshot_done);
        (known && waited >= self.cfg.peers.heartbeat.min(1_000)) || waited >= 10_000
    }

    pub(super) fn passive_role(&self, index: usize) -> Role {
        let group = &self.groups[index];
        let name = &group.name;
        let mut leaders: Vec<_> = self
            .members
            .present()
            .filter(|(_, peer)| peer.leads(name))
            .collect();
        if group.role.leads() {
            // Two leaders: the higher priority stays, then who came first, then the smaller id.
            leaders.retain(|(id, peer)| {
                self.rank_of(id, peer.group(name), peer.heartbeat.started) > self.own_rank()
            });
            let eligible = self.eligible(index) || !self.other_eligible(name);
            return if leaders.is_empty() && eligible {
                group.role
            } else {
                Role::Follower
            };
        }
        if !leaders.is_empty() {
            return Role::Follower;
        }
        // At a common start the rank decides, though the others are still joining; but a newcomer
        // that takes long to join does not leave its peers without a leader.
        let patient = self
            .joined_at
            .is_some_and(|at| self.now.mono < at + self.cfg.peers.lost);
        let better = self.members.present().any(|(id, peer)| {
            peer.group(name)
                .is_some_and(|state| state.eligible || (patient && state.role == Role::Joining))
                && self.rank_of(id, peer.group(name), peer.heartbeat.started) > self.own_rank()
        });
        let alone = !self.other_eligible(name);
        if !better && (self.eligible(index) || alone) {
            Role::Leader
        } else {
            Role::Follower
        }
    }

    pub(super) fn own_rank(&self) -> (u8, std::cmp::Reverse<u64>, std::cmp::Reverse<InstanceId>) {
        (
            self.cfg.priority,
            std::cmp::Reverse(self.cfg.started),
            std::cmp::Reverse(self.cfg.instance.clone()),
        )
    }

    pub(super) fn rank_of(
        &self,
        id: &InstanceId,
        state: Option<&GroupState>,
        started: u64,
    ) -> (u8, std::cmp::Reverse<u64>, std::cmp::Reverse<InstanceId>) {
        (
            state.map_or(0, |state| state.priority),
            std::cmp::Reverse(started),
            std::cmp::Reverse(id.clone()),
        )
    }

    pub(super) fn eligible(&self, index: usize) -> bool {
        !self.groups[index].stopped && !self.draining && self.route.available()
    }

    pub(super) fn other_eligible(&self, name: &str) -> bool {
        self.members
            .present()
            .any(|(_, peer)| peer.group(name).is_some_and(|state| state.eligible))
    }

    pub(super) fn set_role(&mut self, index: usize, role: Role, reason: &'static str) {
        let from = self.groups[index].role;
        if from == role {
            return;
        }
        let now = self.now.mono;
        if !role.leads() {
            self.give_up_takeback(index);
        }
        let group = &mut self.groups[index];
        group.role = role;
        group.preparing = None;
        group.claimed = None;
        group.stable_since = None;
        self.events.push_back(Event::RoleChanged {
            group: self.groups[index].name.clone(),
            from,
            to: role,
            reason,
        });
        if role.leads() && !from.leads() {
            self.lead(index, now, reason);
        }
        // Also at the end of a drain: what waits must be handed over before anything starts.
        let served = from.leads() || from == Role::Draining;
        if served && !role.leads() && role != Role::Draining {
            self.groups[index].led_since = None;
            self.step_down();
        }
        self.refresh_consumers();
        self.beat();
        self.release_held();
        self.advance_all();
    }

    pub(super) fn lead(&mut self, index: usize, now: u64, reason: &'static str) {
        let seen = self
            .members
            .iter()
            .filter_map(|(_, peer)| peer.group(&self.groups[index].name))
            .map(|state| state.term)
            .max()
            .unwrap_or(0);
        let term = self.epoch.max(seen).max(self.groups[index].term) + 1;
        self.epoch = term;
        self.groups[index].term = term;
        self.groups[index].led_since = Some(now);
        if self.cfg.mode == Mode::ActivePassive {
            let agents = self.sessions.ids();
            self.take_over(agents, term, reason);
        } else {
            self.take_own(term, reason);
        }
        // The one that served before may have told its clients that there is no service.
        let name = &self.groups[index].name;
        let out = self.members.present().any(|(_, peer)| {
            peer.group(name)
                .is_some_and(|state| !state.eligible && state.role != Role::Joining)
        });
        if out && self.route.available() {
            self.tell_everyone();
        }
    }

    /// Not the leader any more: what waits is for the new one, subscriptions end once it has its
    /// own.
    pub(super) fn step_down(&mut self) {
        if self.cfg.mode == Mode::ActivePassive && !self.leads_any() {
            for agent in self.sessions.ids() {
                self.disown(&agent);
            }
            self.hand_over_waiting();
        }
    }

    // ---- verbs --------------------------------------------------------------------------------

    pub(super) fn stop_group(&mut self, name: &str) -> Result<String, String> {
        let index = self.group_index(name)?;
        if self.groups[index].stopped {
            return Err(format!("group {name} is stopped already"));
        }
        self.groups[index].stopped = true;
        self.set_role(index, Role::Disabled, "operator");
        Ok(Role::Disabled.as_str().to_owned())
    }

    pub(super) fn start_group(&mut self, name: &str) -> Result<String, String> {
        let index = self.group_index(name)?;
        if !self.groups[index].stopped {
            return Err(format!("group {name} is not stopped"));
        }
        self.groups[index].stopped = false;
        self.groups[index].role = Role::Follower;
        self.look_at_role(index, "operator");
        self.refresh_consumers();
        self.beat();
        Ok(self.groups[index].role.as_str().to_owned())
    }

    pub(super) fn group_index(&self, name: &str) -> Result<usize, String> {
        self.groups
            .iter()
            .position(|group| group.name == name)
            .ok_or_else(|| format!("there is no group {name}"))
    }

    /// Stops consuming; what is started is finished, what waits goes back or over.
    pub(super) fn drain(&mut self) {
        if self.draining {
            return;
        }
        self.draining = true;
        for index in 0..self.groups.len() {
            if self.groups[index].role.leads() {
                self.groups[index].role = Role::Draining;
            }
        }
        self.refresh_consumers();
        self.give_back_waiting();
        self.beat();
        self.send_delta();
    }

    /// Whether a drain has ended.
    pub(super) fn drained(&self) -> bool {
        self.draining && self.jobs.running() == 0
    }

    /// A drain that has ended: others may lead now.
    pub(super) fn end_drain(&mut self) {
        if !self.drained() {
            return;
        }
        for index in 0..self.groups.len() {
            if self.groups[index].role != Role::Disabled {
                self.groups[index].granting = None;
                self.set_role(index, Role::Disabled, "drained");
            }
        }
    }
}
