//! Who owns which agent, and so carries out its commands.

use crate::model::{AgentId, InstanceId};
use crate::wire::command::{Addressed, ClientCommand};

use crate::Engine;
use crate::api::config::Mode;
use crate::peer::{SessionRecord, Version, Wish};

/// How long an agent stays where it came to, milliseconds: a client that speaks at two brokers
/// does not make its agent wander.
pub(crate) const STILL_MS: u64 = 5_000;

/// How long the last word of a client at the own broker counts, milliseconds.
const LOCAL_MS: u64 = 30_000;

impl Engine {
    // ---- taking agents ------------------------------------------------------------------------

    /// Makes an agent this instance's own, in `epoch`.
    pub(crate) fn own(&mut self, agent: &AgentId, epoch: u64) {
        let heard = self.sessions.get(agent).and_then(|s| s.heard_at);
        let local = self.cfg.mode == Mode::ActiveActive
            && heard.is_some_and(|at| self.now.mono.saturating_sub(at) <= LOCAL_MS);
        let rank = u16::from(self.cfg.priority) + if local { Version::LOCAL } else { 0 };
        let me = self.cfg.instance.clone();
        self.sessions.own(agent, &me, epoch, rank);
        self.end_move(agent);
        if let Some(session) = self.sessions.get_mut(agent) {
            session.linger_until = None;
            session.still_until = self.now.mono + STILL_MS;
        }
    }

    /// Active-active: takes the agents of all peers that are gone, or have left an agent's group to
    /// others.
    pub(crate) fn take_from_absent(&mut self) {
        if self.cfg.mode != Mode::ActiveActive {
            return;
        }
        // Asked again and again: most times without a look at each of them.
        let all_own = self.sessions.tally(&self.cfg.instance).all_own();
        if all_own || !self.placement().someone_stands_by() {
            return;
        }
        let peers: Vec<InstanceId> = self.members.iter().map(|(id, _)| id.clone()).collect();
        for peer in peers {
            self.take_from(&peer, "absent");
        }
    }

    /// Active-active: the agents of a lost peer, and those whose group is stopped on it, are ours
    /// (the first of the living, by priority and id, takes them).
    pub(crate) fn take_from(&mut self, lost: &InstanceId, reason: &'static str) {
        if self.cfg.mode != Mode::ActiveActive || !self.placement().leads_any() {
            return;
        }
        // Silence may be a cut link, and the other side does the same now. Who hears the client
        // at its own broker says so in the same epoch, and keeps the agent when they meet again.
        let cut = reason == "silent";
        let placement = self.placement();
        if !placement.takes_any() {
            return;
        }
        let mut agents = placement.owned_by(lost);
        // Where failover is off, they wait for their clients.
        agents.retain(|agent| {
            let left = !placement.serves_agents(lost, agent) && !placement.must_connect(agent);
            left && placement.takes(agent)
        });
        if agents.is_empty() && !cut {
            return;
        }
        let Some(epoch) = self.next_epoch() else {
            return;
        };
        if cut {
            for agent in self.placement().owned_by(&self.cfg.instance) {
                let local = self
                    .sessions
                    .get(&agent)
                    .is_some_and(|session| session.record.version.rank >= Version::LOCAL);
                if local {
                    self.own_again(&agent, epoch);
                }
            }
        }
        self.take_over(agents, epoch, "peer-lost");
    }

    /// An own agent in a new epoch: nothing else changes.
    fn own_again(&mut self, agent: &AgentId, epoch: u64) {
        let me = self.cfg.instance.clone();
        let rank = u16::from(self.cfg.priority) + Version::LOCAL;
        self.sessions.own(agent, &me, epoch, rank);
    }

    /// Active-active: this instance serves now. Its own agents, as they were kept on disk, have
    /// no subscription yet, and its count of versions was not kept: hence a new epoch. Those of
    /// an owner that is not there, or does not serve them, have no subscription anywhere.
    pub(crate) fn take_own(&mut self, epoch: u64, reason: &'static str) {
        let me = self.cfg.instance.clone();
        let mut mine = self.placement().owned_by(&me);
        mine.retain(|agent| self.placement().leads_for_or_nobody_knows(agent));
        self.take_over(mine, epoch, reason);
        let placement = self.placement();
        if placement.takes_any() {
            let stray = |record: &SessionRecord| {
                let owner = &record.version.owner;
                *owner != me && !placement.serves_agents(owner, &record.agent)
            };
            let strays = self
                .sessions
                .iter()
                .filter(|session| session.live() && stray(&session.record))
                .map(|session| session.record.agent.clone())
                .filter(|agent| !placement.must_connect(agent) && placement.takes(agent))
                .collect();
            self.take_over(strays, epoch, reason);
        }
    }

    /// Active-active: a command of an agent whose owner is gone is about to run here.
    pub(crate) fn adopt(&mut self, command: &ClientCommand) {
        let Addressed::Agent(agent) = &command.addressee else {
            return;
        };
        let stray = self.cfg.mode == Mode::ActiveActive && self.placement().is_anothers(agent);
        if stray
            && !self.placement().must_connect(agent)
            && let Some(epoch) = self.next_epoch()
        {
            self.take_over(vec![agent.clone()], epoch, "claimed");
        }
    }

    /// A peer is heard again that was silent: what it had of our agents is told by snapshots, and
    /// what happened meanwhile is read anew.
    pub(crate) fn healed(&mut self) {
        if self.cfg.mode == Mode::ActiveActive && self.placement().leads_any() {
            let mut mine = self.placement().owned_by(&self.cfg.instance);
            mine.retain(|agent| self.placement().leads_for_or_nobody_knows(agent));
            self.take(mine, "healed");
        }
    }

    /// Active-passive: the leader owns every agent of its group, also those that a healed peer
    /// brings under its own name, whatever their epoch.
    pub(crate) fn own_strays(&mut self) {
        if self.cfg.mode != Mode::ActivePassive {
            return;
        }
        // Asked at every heartbeat: most times without a look at each of them.
        if self.sessions.tally(&self.cfg.instance).all_own() {
            return;
        }
        for index in 0..self.groups.len() {
            let group = &self.groups[index];
            // Who is about to take the lead takes them all at once.
            let promised = match group.choice.as_ref().map(|choice| &choice.wish) {
                Some(Wish::Leader { instance }) => self.members.get(instance).is_some_and(|peer| {
                    let state = peer.group(&group.name);
                    peer.liveness.present() && state.is_some_and(|state| state.eligible)
                }),
                _ => false,
            };
            let alone = group.role.leads() && self.placement().leader_of(&group.name).is_none();
            if !alone || promised || self.placement().failover_off(index) {
                continue;
            }
            let me = &self.cfg.instance;
            let strays: Vec<AgentId> = self
                .sessions
                .iter()
                .filter(|session| !session.owned_by(me) && session.live())
                .filter(|session| self.placement().belongs(&session.record, index))
                .map(|session| session.record.agent.clone())
                .collect();
            if !strays.is_empty()
                && let Some(epoch) = self.next_epoch()
            {
                self.take_over(strays, epoch, "healed");
            }
        }
    }
}
