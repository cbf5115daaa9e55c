//! Active-active: an agent follows its client from one living instance to another.
//!
//! ```text
//!   claimant                                        owner
//!     client's command arrives at its own broker
//!     ├─ Forward ──────────────────────────────────▶ runs it as before
//!     └─ subscribes; up ── ClaimAgent ─────────────▶ starts nothing more of this agent
//!                                                    what runs is finished
//!        owns it in the next epoch ◀── GrantAgent ── hands back what waits, lets go
//! ```
//!
//! No command waits for a move, and there is no moment without a subscription. Where both are
//! attached to one broker, arrival there proves nothing and no agent moves.

use crate::model::{AgentId, Cause, InstanceId};
use crate::wire::command::{Addressed, ClientCommand};

use crate::agents::ownership::STILL_MS;
use crate::api::config::Mode;
use crate::api::ids::JobId;
use crate::jobs::{Origin, agent_lane};
use crate::peer::{PeerMessage, SessionRecord, Version};
use crate::state::session::Move;
use crate::state::timer::Timer;
use crate::{Engine, Event, limits};

/// How long a move may take before it is given up, milliseconds.
const MOVE_MS: u64 = 10_000;

/// An owner that heard the client itself this lately keeps the agent, milliseconds.
const FRESH_MS: u64 = 1_000;

impl Engine {
    /// A command came in. Where it shows that the agent's client is at our broker, that is noted.
    pub(crate) fn hear_client(&mut self, id: JobId) {
        if self.cfg.mode != Mode::ActiveActive {
            return;
        }
        let Some((command, _)) = self.job_command(id) else {
            return;
        };
        let Addressed::Agent(agent) = &command.addressee else {
            return;
        };
        let near = self.published_here(id);
        let shared = self
            .members
            .present()
            .any(|(_, peer)| self.on_my_broker(peer));
        if !near || shared {
            return;
        }
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        session.heard_at = Some(now);
        let own = session.owned_by(&self.cfg.instance);
        if own && session.record.version.rank < Version::LOCAL {
            self.sessions
                .change(agent, |record| record.version.rank += Version::LOCAL);
        }
    }

    /// Whether a command was published at the broker in use: not one that was delivered by the
    /// broker used before, and waits still.
    fn published_here(&self, id: JobId) -> bool {
        self.jobs.get(id).is_some_and(|job| {
            let here = match &job.origin {
                Origin::Delivery(delivery) => Some(delivery.link) == self.links.active(),
                Origin::Forwarded { .. } => true,
                Origin::Orphan => false,
            };
            here && !job.raw.relayed
        })
    }

    /// A command of another owner's agent was handed on. If it shows that the client is here now,
    /// the agent is to follow.
    pub(crate) fn follow_client(&mut self, id: JobId, command: &ClientCommand, owner: &InstanceId) {
        let Addressed::Agent(agent) = &command.addressee else {
            return;
        };
        if self.cfg.mode != Mode::ActiveActive
            || !self.placement().leads_any()
            || self.ending.is_draining()
        {
            return;
        }
        let near = self.published_here(id) && !self.jobs.is_forward(id);
        let since = self.jobs.get(id).map_or(0, |job| job.received);
        if !near || !self.attached_elsewhere(owner, since) {
            return;
        }
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        if session.moving.is_some() || now < session.still_until {
            return;
        }
        session.moving = Some(Move::Preparing {
            until: now + MOVE_MS,
        });
        session.linger_until = None;
        self.agents.takeover.push(agent, true);
        self.takeover_soon();
        self.timers
            .set_by(Timer::Agent(agent.clone()), now + MOVE_MS);
    }

    /// Whether a peer is known to be attached to another broker than ours: by a fresh count of its
    /// consumer there; where that broker is out of our reach, by its own word since.
    fn attached_elsewhere(&self, id: &InstanceId, since: u64) -> bool {
        let Some(peer) = self.members.get(id) else {
            return false;
        };
        match peer.attached_on() {
            Some(link) => {
                Some(link) != self.links.active()
                    && peer.counted_within(self.now, limits::EVIDENCE_INTERVAL_MS + 50)
            }
            None => peer.last_seen > since + self.cfg.peers.heartbeat && !self.on_my_broker(peer),
        }
    }

    /// Whether a subscription of an agent that is not ours yet is wanted.
    pub(crate) fn fetches(&self, agent: &AgentId) -> bool {
        self.sessions.get(agent).is_some_and(|session| {
            matches!(
                session.moving,
                Some(Move::Preparing { .. } | Move::Claimed { .. })
            )
        })
    }

    /// Whether nothing more of this agent may be started here.
    pub(crate) fn yields(&self, agent: &str) -> bool {
        self.agents.yielding.contains(agent)
    }

    /// A move is over, or is not to be. What it had closed goes on.
    pub(crate) fn end_move(&mut self, agent: &AgentId) {
        if let Some(session) = self.sessions.get_mut(agent) {
            session.moving = None;
        }
        if self.agents.yielding.remove(agent.as_str()) {
            // Not in the middle of what ended it.
            self.timers
                .set_by(Timer::Agent(agent.clone()), self.now.mono);
        }
    }

    /// The subscription stands: the owner is asked.
    pub(crate) fn claim_agent(&mut self, agent: &AgentId) {
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let until = match session.moving {
            Some(Move::Preparing { until } | Move::Claimed { until, .. }) => until,
            _ => return,
        };
        let again = now + limits::RESEND_MS;
        session.moving = Some(Move::Claimed { until, again });
        let owner = session.record.version.owner.clone();
        self.timers.set_by(Timer::Agent(agent.clone()), again);
        let agent = agent.clone();
        self.say(Some(&owner), PeerMessage::ClaimAgent { agent });
    }

    /// A move's next step is due, or it has taken too long.
    pub(crate) fn drive_move(&mut self, agent: &AgentId) {
        let now = self.now.mono;
        let moving = self.sessions.get(agent).and_then(|s| s.moving.clone());
        match moving {
            None if self.placement().owns(agent) => self.open_lane(agent),
            None => {}
            Some(Move::Yielding { to, until }) => self.try_yield(agent, &to, until),
            Some(Move::Preparing { until } | Move::Claimed { until, .. }) if until <= now => {
                self.give_up_move(agent);
            }
            Some(Move::Preparing { until }) => {
                self.timers.set_by(Timer::Agent(agent.clone()), until);
            }
            Some(Move::Claimed { again, .. }) if again <= now => self.claim_agent(agent),
            Some(Move::Claimed { again, .. }) => {
                self.timers.set_by(Timer::Agent(agent.clone()), again);
            }
        }
    }

    /// The agent stays with its owner; what was prepared is let go.
    fn give_up_move(&mut self, agent: &AgentId) {
        let still = self.now.mono + STILL_MS;
        self.end_move(agent);
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        session.still_until = still;
        if !session.owned_by(&self.cfg.instance) {
            self.disown(agent);
        }
    }

    // ---- the owner's side ---------------------------------------------------------------------

    /// A living member asks for an agent, as its client is there. Given once nothing of it runs;
    /// refused where the client was heard here just now, or the agent has only just come.
    pub(crate) fn on_claim_agent(&mut self, from: &InstanceId, agent: &AgentId) {
        let now = self.now.mono;
        let me = self.cfg.instance.clone();
        let session = self.sessions.get_mut(agent).filter(|s| s.live());
        let Some(session) = session else {
            let agent = agent.clone();
            return self.say(Some(from), PeerMessage::RefuseAgent { agent });
        };
        if session.owned_by(from) {
            // The grant was lost: say it again.
            let record = SessionRecord::clone(&session.record);
            return self.say(Some(from), PeerMessage::GrantAgent { record });
        }
        if matches!(&session.moving, Some(Move::Yielding { to, .. }) if to == from) {
            return;
        }
        let heard = session.heard_at.is_some_and(|at| now < at + FRESH_MS);
        let stays = heard || now < session.still_until || session.moving.is_some();
        if !session.owned_by(&me) || stays {
            let agent = agent.clone();
            return self.say(Some(from), PeerMessage::RefuseAgent { agent });
        }
        let until = now + MOVE_MS;
        session.moving = Some(Move::Yielding {
            to: from.clone(),
            until,
        });
        self.agents.yielding.insert(agent.as_str().into());
        self.try_yield(agent, from, until);
    }

    /// Gives the agent away as soon as nothing of it runs.
    fn try_yield(&mut self, agent: &AgentId, to: &InstanceId, until: u64) {
        let now = self.now.mono;
        let present = self
            .members
            .get(to)
            .is_some_and(|peer| peer.liveness.present());
        let mine = self.placement().owns(agent);
        let lane = agent_lane(agent);
        if !present || !mine || now >= until {
            self.end_move(agent);
            self.open_lane(agent);
            return;
        }
        if self.jobs.lanes.running(&lane).is_some() {
            self.timers.set_by(Timer::Agent(agent.clone()), now + 10);
            return;
        }
        let Some(epoch) = self.next_epoch() else {
            self.timers.set_by(Timer::Agent(agent.clone()), now + 10);
            return;
        };
        let priority = self.members.get(to).map_or(0, |peer| {
            peer.heartbeat.groups.first().map_or(0, |g| g.priority)
        });
        let version = Version {
            epoch,
            rank: u16::from(priority),
            owner: to.clone(),
            counter: 0,
        };
        let Some(record) = self.sessions.give(agent, version) else {
            self.end_move(agent);
            return;
        };
        self.disown(agent);
        // Before the grant: what is handed back takes its place before what comes after it.
        self.hand_over_waiting();
        self.say(Some(to), PeerMessage::GrantAgent { record });
        self.release_held();
    }

    // ---- the claimant's side ------------------------------------------------------------------

    /// The agent is ours. Also where we had given the move up: its former owner serves it no more.
    pub(crate) fn on_grant_agent(&mut self, from: &InstanceId, record: SessionRecord) {
        let (agent, epoch) = (record.agent.clone(), record.version.epoch);
        if record.version.owner != self.cfg.instance {
            return;
        }
        self.keeping.see_epoch(epoch);
        if self.sessions.merge(record).is_none() {
            self.stale("grant");
            return;
        }
        self.own(&agent, epoch);
        self.out.tell(Event::AgentMoved {
            agent: agent.to_string(),
            from: from.clone(),
        });
        let up = self
            .sessions
            .get(&agent)
            .is_some_and(|session| session.subscription.is_up());
        if up {
            self.watch_again(&agent);
            self.sync(&agent, false, Cause::default(), self.now.mono);
        } else {
            self.take(vec![agent], "client-moved");
        }
        self.release_held();
    }

    pub(crate) fn on_refuse_agent(&mut self, from: &InstanceId, agent: &AgentId) {
        let asked = self.placement().is_owned_by(agent, from);
        if asked && self.fetches(agent) {
            self.give_up_move(agent);
        }
    }
}
