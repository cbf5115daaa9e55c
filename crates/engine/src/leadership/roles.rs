//! Who leads which group, by rank.
//!
//! ```text
//!              heard the others                   claim granted, leader lost
//!   joining ───────────────────▶ follower ────────────────────────────────────▶ leader
//!      │                            ▲                                              │
//!      └──── nobody else is here ───┼──────────────────────────────────────────▶   │
//!                                   └─────────── draining ◀── claim of a higher ◀──┘
//! ```
//!
//! Active-passive: one leader a group. Active-active: every instance leads that can serve; one that
//! cannot (no downstream, brokers of no use) is a follower while another one can.

use std::cmp::Reverse;

use crate::model::InstanceId;

use crate::api::config::Mode;
use crate::api::ids::LinkEpoch;
use crate::cluster::members::{Change, Peer};
use crate::leadership::handover::TAKEBACK;
use crate::peer::{PeerMessage, Role};
use crate::state::timer::Timer;
use crate::{Engine, Event, limits};

/// Orders the members that may lead a group: the greatest does.
pub(crate) type Rank = (bool, u8, Reverse<u64>, Reverse<InstanceId>);

/// Longest time that a newcomer waits to hear those who are there and what they know, milliseconds.
const JOIN_MAX_MS: u64 = 10_000;

impl Engine {
    // ---- members and roles --------------------------------------------------------------------

    pub(crate) fn look_at_members(&mut self) {
        let everywhere = self.links_to_all();
        let timers = self.peer_timers();
        self.watch_brokers(everywhere.is_some());
        // Who cannot hear must not take silence for loss.
        if self.attached.hears() {
            let changes = (self.members).tick(self.now, timers, everywhere.as_deref());
            // Before anyone takes over: not every kill is an alarm.
            self.members.prove(everywhere.as_deref());
            for change in changes {
                self.member_changed(change);
            }
            if let Some(at) = self.members.next_change(timers) {
                self.timers.set_by(Timer::Members, at);
            }
        }
        self.look_at_roles("peers");
        // Only who can hear has listened.
        if self.attached.hears()
            && let Some(until) = self.cluster.pause.until()
            && until <= self.now.mono
        {
            self.unfence();
        }
    }

    /// A link to every broker of the list; `None` where one of them is not reached.
    pub(crate) fn links_to_all(&self) -> Option<Vec<LinkEpoch>> {
        let link_to = |broker| {
            let mut ups = self.links.ups();
            ups.find(|(_, to)| *to == broker).map(|(link, _)| link)
        };
        (0..self.links.len()).map(link_to).collect()
    }

    /// A member has come, fell silent or is gone: who is told, who is to be asked, and who leads
    /// now.
    pub(crate) fn member_changed(&mut self, change: Change) {
        match change {
            Change::Up(peer) => {
                self.out.tell(Event::PeerUp { peer: peer.clone() });
                self.journal_member_up(&peer);
                // It may not know that it was not heard: it does not ask.
                if let Some(boot) = self.members.get(&peer).map(|known| known.boot) {
                    self.greet(&peer, boot);
                }
                self.say(Some(&peer), PeerMessage::Hello);
                self.beat();
                self.refresh_consumers();
            }
            Change::Suspect(peer) => {
                self.out.tell(Event::PeerSuspect { peer: peer.clone() });
                self.refresh_consumers();
                self.fence(peer);
            }
            Change::Lost(peer, reason) => {
                self.out.tell(Event::PeerLost {
                    peer: peer.clone(),
                    reason,
                });
                self.judge_lost(&peer, reason);
                self.journal_member_gone(&peer);
                let left = reason == crate::cluster::members::GOODBYE;
                self.look_at_roles(if left { "peer-left" } else { "peer-lost" });
                self.take_from(&peer, reason);
                // Those of one that was lost before, when this one was there to take them.
                self.take_from_absent();
                self.release_held();
            }
        }
    }

    pub(crate) fn look_at_roles(&mut self, reason: &'static str) {
        self.answer_expired_from_now();
        for group in 0..self.groups.len() {
            self.look_at_role(group, reason);
        }
        self.drive_handovers();
    }

    pub(crate) fn look_at_role(&mut self, index: usize, reason: &'static str) {
        let group = &self.groups[index];
        let closing = group.leaving.is_some_and(|leaving| leaving.closing);
        match group.role {
            Role::Disabled => return,
            Role::Draining if group.granting.is_some() || closing => return,
            Role::Joining if !self.may_leave_joining() => return,
            _ => {}
        }
        let leads = match self.cfg.mode {
            Mode::ActiveActive => self.leads_beside_others(index),
            Mode::ActivePassive => self.should_lead(index),
        };
        let role = match leads {
            true => self.leading_role(index),
            false => Role::Follower,
        };
        let reason = match role {
            Role::LeaderSingleNode => self.no_successor(index).map_or(reason, |(label, _)| label),
            _ if reason == "peers" => self.told_by_peers(index, role),
            _ => reason,
        };
        self.set_role(index, role, reason);
    }

    /// What it means that the peers' words change the own role.
    fn told_by_peers(&self, index: usize, role: Role) -> &'static str {
        let group = &self.groups[index];
        match (group.role.leads(), role.leads()) {
            // The former leader's heartbeat came before its grant, and says the same.
            (false, true) if group.claimed.is_some() => self.reason_of_claim(index),
            (true, false) => "outranked",
            _ if group.role == Role::Joining => match self.members.present().next() {
                Some(_) => "joined",
                None => "alone",
            },
            _ => "peers",
        }
    }

    /// A newcomer has listened long enough, and has what those who are there know.
    pub(crate) fn may_leave_joining(&self) -> bool {
        let Some(joined) = self.attached.joined_at() else {
            return false;
        };
        if self.has_twin() {
            return false;
        }
        let waited = self.now.mono.saturating_sub(joined);
        let mut peers = self.members.present().peekable();
        if peers.peek().is_none() {
            // One that is there is heard soon; what we would take over is its own.
            let there = self
                .cluster
                .replication
                .unheard_at()
                .is_some_and(|at| self.now.mono < at + 2 * limits::EVIDENCE_INTERVAL_MS + 100);
            return waited >= self.cfg.peers.suspect && (!there || waited >= JOIN_MAX_MS);
        }
        let known = peers.all(|(_, peer)| peer.snapshot_done);
        (known && waited >= self.cfg.peers.heartbeat.min(1_000)) || waited >= JOIN_MAX_MS
    }

    /// Active-active: whether this instance leads a group beside the others. Where it cannot serve
    /// and another one can, that one takes its agents; where nobody can, all stay.
    fn leads_beside_others(&self, index: usize) -> bool {
        let group = &self.groups[index];
        let stays = group.leaving.is_some() || self.eligible(index);
        stays || !self.other_eligible(&group.name)
    }

    /// Active-passive: whether this instance is the leader of a group.
    fn should_lead(&self, index: usize) -> bool {
        let group = &self.groups[index];
        let name = &group.name;
        if let Some(stopped) = self.placement().stopped_elsewhere(index) {
            // Everyone else serves, once it has finished.
            return !self
                .members
                .get(stopped)
                .is_some_and(|peer| peer.leads(name));
        }
        let mut leaders: Vec<_> = self
            .members
            .present()
            .filter(|(_, peer)| peer.leads(name))
            .collect();
        if group.role.leads() {
            // Two leaders: an operator's choice stays, then the later term, then the higher rank.
            // One that was frozen finds itself deposed that way, and takes back in order.
            let own = self.own_rank(index);
            let own = (own.0, group.term, own);
            leaders.retain(|(id, peer)| {
                let rank = self.rank_of(index, id, peer);
                let term = peer.group(name).map_or(0, |state| state.term);
                (rank.0, term, rank) > own
            });
            let stays = group.leaving.is_some() || self.eligible(index);
            return leaders.is_empty() && (stays || !self.other_eligible(name));
        }
        if !leaders.is_empty() {
            return false;
        }
        // At a common start the rank decides, though the others are still joining; but a newcomer
        // that takes long to join does not leave its peers without a leader.
        let patient = self
            .attached
            .joined_at()
            .is_some_and(|at| self.now.mono < at + self.cfg.peers.lost);
        let better = self.members.present().any(|(id, peer)| {
            peer.group(name)
                .is_some_and(|state| state.eligible || (patient && state.role == Role::Joining))
                && self.rank_of(index, id, peer) > self.own_rank(index)
        });
        let alone = !self.other_eligible(name);
        !better && (self.eligible(index) || alone)
    }

    /// How a leader is called: `leader-single-node` where nobody could take over, or where another
    /// one may be serving too.
    pub(crate) fn leading_role(&self, index: usize) -> Role {
        match self.no_successor(index) {
            Some(_) => Role::LeaderSingleNode,
            None => Role::Leader,
        }
    }

    /// Why nobody can take a group over from this instance: a bounded label, and words.
    pub(crate) fn no_successor(&self, index: usize) -> Option<(&'static str, String)> {
        let group = &self.groups[index];
        if let Some(stopped) = self.placement().stopped_elsewhere(index) {
            let words = format!(
                "failover of group {} is off, stopped on {stopped}",
                group.name
            );
            return Some(("failover-off", words));
        }
        let mut present = self.members.present().peekable();
        if present.peek().is_some() && present.all(|(_, peer)| peer.group(&group.name).is_none()) {
            return Some(("group-names", self.unmatched(index).join("; ")));
        }
        // A leader gives the proof a moment: it should not change its name for every restart.
        let patience = match group.role {
            Role::Leader => limits::PROOF_MS,
            _ => 0,
        };
        if let Some(stranger) = self.stranger() {
            return Some(("auth-failed", Self::words_of_stranger(stranger)));
        }
        let doubtful = self.members.doubtful(self.now, patience)?;
        let words = format!(
            "{doubtful} is not heard, and not every broker can be asked whether it is gone: it \
             may be serving too"
        );
        Some(("peer-unreachable", words))
    }

    /// A sentence for each peer that has no group of this name.
    pub(crate) fn unmatched(&self, index: usize) -> Vec<String> {
        let name = &self.groups[index].name;
        let others = self
            .members
            .present()
            .filter(|(_, peer)| peer.group(name).is_none());
        let sentence = |(id, peer): (&InstanceId, &Peer)| {
            let theirs: Vec<&str> = peer
                .heartbeat
                .groups
                .iter()
                .map(|g| g.name.as_str())
                .collect();
            format!(
                "group {name} of {} has no counterpart on {id}, whose groups are {}: give them the \
                 same names in both property files",
                self.cfg.instance,
                theirs.join(", ")
            )
        };
        others.map(sentence).collect()
    }

    /// The greater leads: chosen by an operator, then priority, then first come, then id.
    pub(crate) fn own_rank(&self, index: usize) -> Rank {
        let me = &self.cfg.instance;
        (
            self.chosen(index, me),
            self.cfg.priority_of(index),
            Reverse(self.cfg.started),
            Reverse(me.clone()),
        )
    }

    pub(crate) fn rank_of(&self, index: usize, id: &InstanceId, peer: &Peer) -> Rank {
        let state = peer.group(&self.groups[index].name);
        (
            self.chosen(index, id),
            state.map_or(0, |state| state.priority),
            Reverse(peer.heartbeat.started),
            Reverse(id.clone()),
        )
    }

    /// Whether this instance may lead a group.
    pub(crate) fn eligible(&self, index: usize) -> bool {
        let group = &self.groups[index];
        let out = group.stopped || group.role == Role::Disabled || group.leaving.is_some();
        // A lead needs an epoch; who leads has its own.
        let epoch = group.role.leads() || !self.lacks_epochs();
        !out && epoch && self.route.available() && !self.links.stuck()
    }

    pub(crate) fn other_eligible(&self, name: &str) -> bool {
        self.members
            .present()
            .any(|(_, peer)| peer.group(name).is_some_and(|state| state.eligible))
    }

    pub(crate) fn set_role(&mut self, index: usize, role: Role, reason: &'static str) {
        let from = self.groups[index].role;
        // A lead needs an epoch; when one is there, roles are looked at again.
        if from == role || (role.leads() && !from.leads() && !self.epoch_ready()) {
            return;
        }
        let now = self.now.mono;
        if !role.leads() || self.placement().failover_off(index) {
            self.give_up_takeback(index);
        }
        self.change_role(index, role, reason);
        if role.leads() && !from.leads() {
            if reason == TAKEBACK {
                let group = self.groups.edit(index);
                group.took_back = Some(now);
                group.unkept = true;
            }
            self.lead(index, reason);
        }
        // Also at the end of a drain: what waits must be handed over before anything starts.
        let served = from.leads() || from == Role::Draining;
        if served && !role.leads() && role != Role::Draining {
            self.note_lead_lost(index, now, from);
            self.step_down(index);
        }
        self.role_changed(index);
    }

    /// A drain has led to nothing: this instance leads on with all that it has, in the same term.
    pub(crate) fn lead_on(&mut self, index: usize, reason: &'static str) {
        self.change_role(index, self.leading_role(index), reason);
        self.role_changed(index);
        // Others may have come to another view meanwhile.
        self.look_at_role(index, reason);
    }

    fn change_role(&mut self, index: usize, role: Role, reason: &'static str) {
        let group = self.groups.edit(index);
        let from = std::mem::replace(&mut group.role, role);
        group.preparing = None;
        group.claimed = None;
        group.stable_since = None;
        self.out.tell(Event::RoleChanged {
            group: self.groups[index].name.clone(),
            from,
            to: role,
            reason,
        });
        if role == Role::LeaderSingleNode {
            self.tell_alone(index);
        }
    }

    /// What follows of a change of role, whatever that is.
    fn role_changed(&mut self, index: usize) {
        self.end_choice_of_the_lost(index);
        self.refresh_consumers();
        self.beat();
        self.release_held();
        self.advance_all();
    }

    /// A takeback that did not last, and not because somebody wanted that: the next one takes
    /// longer.
    fn note_lead_lost(&mut self, index: usize, now: u64, from: Role) {
        let wanted = from == Role::Draining || self.groups[index].leaving.is_some();
        let group = self.groups.edit(index);
        let Some(since) = group.took_back.take() else {
            return;
        };
        group.unkept = true;
        if now.saturating_sub(since) >= limits::STEADY_LEAD_MS {
            group.hold_factor = 1;
        } else if !wanted && !group.stopped {
            group.hold_longer();
        }
    }

    /// A takeback that has lasted: the next one need not wait for longer.
    pub(crate) fn note_steady_leads(&mut self) {
        let now = self.now.mono;
        for index in 0..self.groups.len() {
            let since = self.groups[index].took_back;
            if since.is_some_and(|since| now >= since + limits::STEADY_LEAD_MS) {
                let group = self.groups.edit(index);
                group.took_back = None;
                group.hold_factor = 1;
                group.unkept = true;
            }
        }
    }

    fn tell_alone(&mut self, index: usize) {
        let Some((reason, detail)) = self.no_successor(index) else {
            return;
        };
        self.out.tell(Event::Alone {
            group: self.groups[index].name.clone(),
            reason,
            detail,
        });
    }

    /// This instance leads the group now: in a new epoch, above all that were seen, with all agents
    /// of the group, or its own alone where that is the mode or failover is off.
    pub(crate) fn lead(&mut self, index: usize, reason: &'static str) {
        let seen = self
            .members
            .iter()
            .filter_map(|(_, peer)| peer.group(&self.groups[index].name))
            .map(|state| state.term)
            .max()
            .unwrap_or(0);
        self.keeping.see_epoch(seen.max(self.groups[index].term));
        // `set_role` has made sure that there is one.
        let term = self.next_epoch().unwrap_or(self.keeping.epoch());
        let group = self.groups.edit(index);
        group.term = term;
        group.at_once = false;
        if self.cfg.mode == Mode::ActivePassive {
            let mut agents = self.placement().agents_of(index);
            // Without failover only the own agents are served on, as after a restart.
            if self.placement().failover_off(index) {
                let me = &self.cfg.instance;
                agents.retain(|agent| {
                    let session = self.sessions.get(agent);
                    session.is_some_and(|session| session.owned_by(me))
                });
            }
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
    pub(crate) fn step_down(&mut self, index: usize) {
        for agent in self.placement().agents_of(index) {
            self.disown(&agent);
        }
        self.hand_over_waiting();
    }
}
