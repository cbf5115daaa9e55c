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

use crate::model::{AgentId, InstanceId};
use crate::wire::command::{Addressed, ClientCommand};

use super::command::Command;
use super::config::Mode;
use super::ids::LinkEpoch;
use super::members::{Change, Liveness};
use super::peer::{GroupState, PeerMessage, Role};
use super::timer::Timer;
use super::{Engine, Event, limits};

/// Priority of a follower on another broker than the leader: below a federation link's -1, so
/// that its broker's messages go to the leader (design fact: a link consumes at -1).
const FAR_FOLLOWER: i32 = -10;

/// How long a handover may take before it is given up, milliseconds.
const HANDOVER_MS: u64 = 15_000;

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
    generation: u64,
    /// The higher-priority follower's way back: since when it could lead.
    stable_since: Option<u64>,
    /// Subscriptions are being prepared for a claim.
    preparing: Option<u64>,
    /// A claim was sent.
    claimed: Option<(u64, u64)>,
    /// Whose claim this leader drains for, its term and until when.
    granting: Option<(InstanceId, u64, u64)>,
    /// Doubles when a takeback did not last.
    hold_factor: u64,
    led_since: Option<u64>,
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
    // ---- whose command ------------------------------------------------------------------------

    /// Whether this instance carries out this command now.
    pub(super) fn serves(&self, command: &ClientCommand) -> bool {
        match &command.addressee {
            // Destinations are replicated: any instance answers for them.
            Addressed::Destination(_) => true,
            Addressed::Agent(agent) => match self.owner_of(agent) {
                Some(owner) => owner == self.cfg.instance,
                None => false,
            },
        }
    }

    /// The owner of an agent: the instance that carries out its commands. `None` while nobody is
    /// known to lead.
    fn owner_of(&self, agent: &AgentId) -> Option<InstanceId> {
        let me = &self.cfg.instance;
        match self.cfg.mode {
            Mode::ActivePassive => {
                if self.leads_any() || self.groups.iter().any(|g| g.role == Role::Draining) {
                    return Some(me.clone());
                }
                self.leader_of_first_group()
            }
            Mode::ActiveActive => {
                let owner = self
                    .sessions
                    .get(agent)
                    .map_or(me, |session| &session.record.version.owner);
                let present = owner == me
                    || self
                        .members
                        .get(owner)
                        .is_some_and(|peer| peer.liveness.present());
                if present {
                    Some(owner.clone())
                } else if self.leads_any() {
                    Some(me.clone())
                } else {
                    None
                }
            }
        }
    }

    fn leader_of_first_group(&self) -> Option<InstanceId> {
        let name = &self.groups.first()?.name;
        let mut leaders = self.members.present().filter(|(_, peer)| peer.leads(name));
        leaders.next().map(|(id, _)| id.clone())
    }

    /// The owner to hand a held command to, once there is evidence that it lives.
    pub(super) fn owner_to_ask(
        &self,
        command: &ClientCommand,
        held_since: u64,
    ) -> Option<InstanceId> {
        let Addressed::Agent(agent) = &command.addressee else {
            return None;
        };
        let owner = self
            .owner_of(agent)
            .filter(|owner| *owner != self.cfg.instance)?;
        let peer = self.members.get(&owner)?;
        if peer.liveness != Liveness::Alive || peer.consumer_gone() {
            return None;
        }
        // A fresh count of its consumer is proof enough. Without a way to count, its heartbeats
        // after the command's arrival are.
        let fresh = peer.counted_within(self.now, limits::EVIDENCE_INTERVAL_MS + 50);
        let heard_since = peer.last_seen > held_since;
        (fresh || heard_since).then_some(owner)
    }

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
                self.say(Some(&peer), PeerMessage::Hello);
                self.beat();
            }
            Change::Suspect(peer) => self.events.push_back(Event::PeerSuspect { peer }),
            Change::Lost(peer, reason) => {
                self.events.push_back(Event::PeerLost {
                    peer: peer.clone(),
                    reason,
                });
                self.look_at_roles("peer-lost");
                self.take_from(&peer);
                self.release_held();
            }
        }
    }

    /// Active-active: the agents of a lost peer are ours (the first of the living, by priority
    /// and id, takes them).
    fn take_from(&mut self, lost: &InstanceId) {
        if self.cfg.mode != Mode::ActiveActive || !self.leads_any() {
            return;
        }
        let first = self.members.present().all(|(id, peer)| {
            let priority = peer.heartbeat.groups.first().map_or(0, |g| g.priority);
            (self.cfg.priority, std::cmp::Reverse(&self.cfg.instance))
                > (priority, std::cmp::Reverse(id))
        });
        if !first {
            return;
        }
        let agents: Vec<AgentId> = self
            .sessions
            .iter()
            .filter(|session| session.live() && session.record.version.owner == *lost)
            .map(|session| session.record.agent.clone())
            .collect();
        self.epoch += 1;
        self.take_over(agents, self.epoch, "peer-lost");
    }

    pub(super) fn look_at_roles(&mut self, reason: &'static str) {
        for group in 0..self.groups.len() {
            self.look_at_role(group, reason);
        }
        self.drive_handovers();
    }

    fn look_at_role(&mut self, index: usize, reason: &'static str) {
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
    fn may_leave_joining(&self) -> bool {
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

    fn passive_role(&self, index: usize) -> Role {
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

    fn own_rank(&self) -> (u8, std::cmp::Reverse<u64>, std::cmp::Reverse<InstanceId>) {
        (
            self.cfg.priority,
            std::cmp::Reverse(self.cfg.started),
            std::cmp::Reverse(self.cfg.instance.clone()),
        )
    }

    fn rank_of(
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

    fn eligible(&self, index: usize) -> bool {
        !self.groups[index].stopped && !self.draining && self.route.available()
    }

    fn other_eligible(&self, name: &str) -> bool {
        self.members
            .present()
            .any(|(_, peer)| peer.group(name).is_some_and(|state| state.eligible))
    }

    fn set_role(&mut self, index: usize, role: Role, reason: &'static str) {
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

    fn lead(&mut self, index: usize, now: u64, reason: &'static str) {
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
    fn step_down(&mut self) {
        if self.cfg.mode == Mode::ActivePassive && !self.leads_any() {
            for agent in self.sessions.ids() {
                self.disown(&agent);
            }
            self.hand_over_waiting();
        }
    }

    // ---- handover -----------------------------------------------------------------------------

    /// The way of a higher-priority follower back to the lead, and of a leader that gives way.
    fn drive_handovers(&mut self) {
        for index in 0..self.groups.len() {
            self.drive_takeback(index);
            self.drive_grant(index);
        }
    }

    /// Stable for the hold time → subscriptions → claim.
    fn drive_takeback(&mut self, index: usize) {
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
                let agents = self.sessions.ids();
                self.take(agents, "takeback");
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
    fn give_up_takeback(&mut self, index: usize) {
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
    fn drive_grant(&mut self, index: usize) {
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

    // ---- consumers ----------------------------------------------------------------------------

    /// Registers, moves or cancels the command consumers so that they fit role and broker.
    pub(super) fn refresh_consumers(&mut self) {
        let Some(link) = self.links.active() else {
            return;
        };
        // A second process of the same id must not consume: the first attachment waits for the
        // control queue, which only one can have.
        if self.joined_at.is_none() {
            return;
        }
        for index in 0..self.groups.len() {
            let wanted = self.wanted_priority(index);
            let group = &self.groups[index];
            match (wanted, &group.consumer) {
                (None, Some(_)) => {
                    self.groups[index].consumer = None;
                    self.out
                        .push_back(Command::StopConsuming { link, group: index });
                }
                (None, None) => {}
                (Some(priority), consumer) => {
                    let marker = format!(
                        "{}.{}.{}.",
                        self.cfg.instance,
                        group.name,
                        group.role.as_str()
                    );
                    let fits = consumer.as_ref().is_some_and(|consumer| {
                        consumer.link == link
                            && consumer.priority == priority
                            && consumer.tag.starts_with(&marker)
                    });
                    if !fits {
                        self.register(index, link, priority, &marker);
                    }
                }
            }
        }
    }

    fn register(&mut self, index: usize, link: LinkEpoch, priority: i32, marker: &str) {
        let group = &mut self.groups[index];
        group.generation += 1;
        let tag = format!("{marker}{}", group.generation);
        group.consumer = Some(Consumer {
            link,
            tag: tag.clone(),
            priority,
            confirmed: false,
        });
        self.out.push_back(Command::Consume {
            link,
            group: index,
            priority,
            tag,
        });
    }

    /// The `x-priority` to consume with; `None`: not to consume.
    fn wanted_priority(&self, index: usize) -> Option<i32> {
        let group = &self.groups[index];
        if self.draining || !self.route.available() {
            return None;
        }
        let own = i32::from(self.cfg.priority);
        match group.role {
            Role::Joining | Role::Disabled => None,
            Role::Leader | Role::LeaderSingleNode | Role::Draining => Some(own),
            Role::Follower => {
                let leader = self
                    .members
                    .present()
                    .find(|(_, peer)| peer.leads(&group.name));
                match leader {
                    Some((_, peer)) if self.on_my_broker(peer) => {
                        let theirs = peer.group(&group.name).map_or(0, |g| i32::from(g.priority));
                        Some(own.min(theirs - 1))
                    }
                    Some(_) => Some(FAR_FOLLOWER),
                    None => Some(own),
                }
            }
        }
    }

    /// Whether a peer is attached to the broker that serves us: by its consumer there, else by
    /// the label it reports.
    fn on_my_broker(&self, peer: &super::members::Peer) -> bool {
        let active = self.links.active();
        match peer.attached_on() {
            Some(link) => Some(link) == active,
            None => self
                .links
                .active_broker()
                .is_some_and(|broker| self.links.label(broker) == peer.heartbeat.broker),
        }
    }

    pub(super) fn on_consuming(&mut self, link: LinkEpoch, group: usize, tag: &str) {
        match self.groups.get_mut(group).and_then(|g| g.consumer.as_mut()) {
            Some(consumer) if consumer.link == link && consumer.tag == tag => {
                consumer.confirmed = true;
            }
            _ => self.stale("consumer"),
        }
    }

    pub(super) fn on_consumer_lost(
        &mut self,
        link: LinkEpoch,
        group: usize,
        tag: &str,
        reason: String,
    ) {
        let Some(entry) = self.groups.get_mut(group) else {
            return;
        };
        let current = entry
            .consumer
            .as_ref()
            .is_some_and(|consumer| consumer.link == link && consumer.tag == tag);
        if !current {
            self.stale("consumer");
            return;
        }
        entry.consumer = None;
        let name = entry.name.clone();
        self.events.push_back(Event::ConsumerLost {
            group: name,
            reason,
        });
        let wait = 200 + self.jitter(200);
        self.timers.set_by(Timer::Consumers, self.now.mono + wait);
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

    fn group_index(&self, name: &str) -> Result<usize, String> {
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
