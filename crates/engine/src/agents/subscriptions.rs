//! Subscriptions: had, kept, moved and given up; takeover in batches; what comes due for an agent.

use std::collections::{BTreeSet, VecDeque};

use crate::catalogue::ErrorCode;
use crate::model::{AgentId, Cause};
use crate::placement::stands_by;
use crate::wire::event::ClientEvent;

use crate::api::command::NotifyCommand;
use crate::api::ids::SubscriptionEpoch;
use crate::api::input::Notice;
use crate::state::session::{Session, Subscription};
use crate::state::timer::Timer;
use crate::{Engine, Event, limits};

/// Interval of the takeover's batches, milliseconds.
const BATCH_MS: u64 = 50;

/// How much longer a signed-out agent's session stays while a command of it runs or waits,
/// milliseconds.
const LINGER_AGAIN_MS: u64 = 1_000;

/// Subscriptions to be had, at a bounded rate.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    queue: VecDeque<AgentId>,
    queued: BTreeSet<AgentId>,
    /// Agents whose subscription is awaited for the report.
    pending: BTreeSet<AgentId>,
    started: u64,
    agents: usize,
    reason: &'static str,
    /// When the next batch may be had, monotonic milliseconds.
    next_at: u64,
}

impl Takeover {
    pub(crate) fn push(&mut self, agent: &AgentId, first: bool) {
        if self.queued.insert(agent.clone()) {
            if first {
                self.queue.push_front(agent.clone());
            } else {
                self.queue.push_back(agent.clone());
            }
        }
    }

    fn pop(&mut self) -> Option<AgentId> {
        let agent = self.queue.pop_front()?;
        self.queued.remove(&agent);
        Some(agent)
    }

    /// How many subscriptions are to be had or awaited.
    pub(crate) fn awaited(&self) -> usize {
        self.queue.len() + self.pending.len()
    }

    /// Whether everything asked for is subscribed.
    pub(crate) fn idle(&self) -> bool {
        self.queue.is_empty() && self.pending.is_empty()
    }
}

impl Engine {
    // ---- subscriptions ------------------------------------------------------------------------

    pub(crate) fn on_notice(
        &mut self,
        agent: &AgentId,
        subscription: SubscriptionEpoch,
        notice: Notice,
    ) {
        let Some(session) = self.sessions.get_mut(agent) else {
            self.stale("subscription");
            return;
        };
        let connecting = session
            .connecting
            .as_ref()
            .is_some_and(|pending| pending.epoch == subscription);
        if connecting {
            self.on_connect_notice(agent, notice);
            return;
        }
        if session.subscription.epoch() != Some(subscription) {
            self.stale("subscription");
            return;
        }
        match notice {
            Notice::Up => self.subscribed(agent),
            Notice::Update(update) => self.on_update(agent, update),
            Notice::Refused { reason } => self.subscription_refused(agent, reason),
            Notice::Unreachable { reason } => {
                self.subscription_lost(agent, "unreachable", reason);
            }
            Notice::NoRoom(shortage) => self.wait_for_room(agent, shortage),
            Notice::Lost { reason, conflict } => {
                let kind = if conflict { "conflict" } else { "lost" };
                self.subscription_lost(agent, kind, reason);
            }
        }
    }

    pub(crate) fn on_connect_notice(&mut self, agent: &AgentId, notice: Notice) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        match notice {
            Notice::Up => {
                if let Some(pending) = session.connecting.take() {
                    let node = pending.node;
                    self.connect_succeeded(agent, pending);
                    // The instance has moved meanwhile.
                    if node != self.route.current() {
                        self.take(vec![agent.clone()], "downstream");
                    }
                }
            }
            Notice::Refused { reason } => {
                self.connect_failed(agent, ErrorCode::SubscriptionFailed, &reason);
            }
            Notice::NoRoom(shortage) => self.connect_without_room(agent, shortage),
            Notice::Unreachable { reason } | Notice::Lost { reason, .. } => {
                if !self.connect_elsewhere(agent) {
                    self.connect_failed(agent, ErrorCode::UnableToSubscribe, &reason);
                }
            }
            Notice::Update(_) => {}
        }
    }

    /// Tries the other node, once: the one that the instance has moved to meanwhile, or the
    /// instance moves with it. `false`: there is none.
    fn connect_elsewhere(&mut self, agent: &AgentId) -> bool {
        // Also one that is not there yet, but for its Connect.
        let session = self.sessions.get_mut(agent);
        let pending = session.and_then(|session| session.connecting.as_ref());
        let Some((tried, node)) = pending.map(|pending| (pending.tried, pending.node)) else {
            return false;
        };
        if tried >= 2 {
            return false;
        }
        let Some(other) = self.route.other(node) else {
            return false;
        };
        if node == self.route.current() {
            let changes = self.route.prefer_other(self.now);
            self.apply_route(changes);
        }
        // The instance has just moved, and stays: this one alone tries the other.
        let node = match self.route.current() {
            current if current == node => other,
            current => current,
        };
        if !self.route.usable(node) {
            return false;
        }
        let epoch = self.next_subscription();
        let session = self.sessions.get_mut(agent);
        if let Some(pending) = session.and_then(|session| session.connecting.as_mut()) {
            pending.epoch = epoch;
            pending.asked = false;
        }
        self.try_connect(agent, node);
        true
    }

    pub(crate) fn subscribe(&mut self, agent: &AgentId) {
        let node = self.route.current();
        let Some(domain) = self.route.domain(node).map(str::to_owned) else {
            self.wait_to_subscribe(agent, 250, 0);
            return;
        };
        let known = self.sessions.get(agent).map(|s| s.subscription.epoch());
        if known == Some(None) && !self.has_seat() {
            self.wait_for_room(agent, self.no_seat());
            return;
        }
        let epoch = self.next_subscription();
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let tries = match session.subscription {
            Subscription::Waiting { tries, .. } | Subscription::Starting { tries, .. } => tries,
            _ => 0,
        };
        let former = session.subscription.epoch();
        session.subscription = Subscription::Starting { epoch, tries, node };
        let password = session.record.password.clone();
        if let Some(former) = former {
            self.unsubscribe(agent, former);
        }
        self.out.push(NotifyCommand::Subscribe {
            agent: agent.clone(),
            subscription: epoch,
            node,
            domain,
            password,
        });
    }

    pub(crate) fn unsubscribe(&mut self, agent: &AgentId, subscription: SubscriptionEpoch) {
        self.out.push(NotifyCommand::Unsubscribe {
            agent: agent.clone(),
            subscription,
        });
    }

    pub(crate) fn subscribed(&mut self, agent: &AgentId) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let owned = session.owned_by(&self.cfg.instance);
        if let Subscription::Starting { epoch, node, .. } = session.subscription {
            session.subscription = Subscription::Up { epoch, node };
            self.note_node(agent, node);
        }
        self.takeover_done(agent);
        if owned {
            self.watch_again(agent);
            self.sync(agent, false, Cause::default(), self.now.mono);
        } else {
            self.claim_agent(agent);
        }
    }

    /// The password of a session that worked is refused now: only its client can mend that.
    pub(crate) fn subscription_refused(&mut self, agent: &AgentId, reason: String) {
        self.subscription_event(agent, "refused", reason.clone());
        if let Some(session) = self.sessions.get_mut(agent) {
            session.subscription = Subscription::None;
            session.refused = true;
        }
        self.takeover_done(agent);
        let event = ClientEvent::Error {
            agent: Some(agent.clone()),
            code: ErrorCode::SubscriptionFailed.as_str().to_owned(),
            message: reason,
        };
        self.tell_agent(agent, event, Cause::default());
    }

    pub(crate) fn subscription_lost(
        &mut self,
        agent: &AgentId,
        kind: &'static str,
        reason: String,
    ) {
        self.subscription_event(agent, kind, reason);
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let node = match session.subscription {
            Subscription::Up { node, .. } | Subscription::Starting { node, .. } => node,
            _ => self.route.current(),
        };
        let tries = match session.subscription {
            Subscription::Starting { tries, .. } => tries + 1,
            _ => 0,
        };
        if tries >= limits::SUBSCRIBE_TRIES && node == self.route.current() {
            self.wait_to_subscribe(agent, 1_000, 0);
            let changes = self.route.prefer_other(self.now);
            self.apply_route(changes);
            return;
        }
        let wait = match tries {
            0 => 100,
            1 => 1_000,
            2 => 2_000,
            _ => 5_000,
        };
        let wait = wait + self.jitter(wait / 2);
        self.wait_to_subscribe(agent, wait, tries);
    }

    pub(crate) fn wait_to_subscribe(&mut self, agent: &AgentId, wait: u64, tries: u32) {
        let not_before = self.now.mono + wait;
        if let Some(session) = self.sessions.get_mut(agent) {
            session.subscription = Subscription::Waiting { not_before, tries };
            self.timers.set_by(Timer::Agent(agent.clone()), not_before);
        }
    }

    pub(crate) fn subscription_event(
        &mut self,
        agent: &AgentId,
        kind: &'static str,
        reason: String,
    ) {
        self.out.tell(Event::SubscriptionLost {
            kind,
            agent: agent.to_string(),
            reason,
        });
    }

    /// Another node is in use: every own subscription moves there, at the takeover's rate.
    pub(crate) fn move_subscriptions(&mut self) {
        let node = self.route.current();
        self.take_own_where(|subscription| {
            !matches!(subscription,
                Subscription::Up { node: at, .. } | Subscription::Starting { node: at, .. } if *at == node)
        });
    }

    /// The downstream is back: what it did meanwhile is read of every own agent.
    pub(crate) fn read_everyone(&mut self) {
        let node = self.route.current();
        self.take_own_where(|subscription| {
            !matches!(subscription, Subscription::Starting { node: at, .. } if *at == node)
        });
    }

    fn take_own_where(&mut self, wanted: impl Fn(&Subscription) -> bool) {
        let own = |session: &&Session| {
            session.live() && session.owned_by(&self.cfg.instance) && wanted(&session.subscription)
        };
        let sessions = self.sessions.iter().filter(own);
        let agents = sessions.map(|session| session.record.agent.clone());
        // Who stands by has no subscriptions, though the agents may still be called its own.
        let agents = agents.filter(|agent| self.placement().leads_for(agent));
        let agents = agents.collect();
        self.take(agents, "downstream");
    }

    /// The node's domain is known now: Connects that waited for it go on.
    pub(crate) fn domain_learned(&mut self) {
        let waiting: Vec<AgentId> = self
            .sessions
            .iter()
            .filter(|session| {
                session.connecting.is_some()
                    || matches!(session.subscription, Subscription::Waiting { .. })
            })
            .map(|session| session.record.agent.clone())
            .collect();
        for agent in waiting {
            self.timers.set_by(Timer::Agent(agent), self.now.mono);
        }
    }

    // ---- takeover -----------------------------------------------------------------------------

    /// Makes sessions this instance's own, and has their subscriptions in batches.
    pub(crate) fn take_over(&mut self, agents: Vec<AgentId>, epoch: u64, reason: &'static str) {
        for agent in &agents {
            self.own(agent, epoch);
        }
        self.send_delta();
        self.take(agents, reason);
    }

    /// Has subscriptions in batches, agents with waiting commands first.
    pub(crate) fn take(&mut self, agents: Vec<AgentId>, reason: &'static str) {
        if agents.is_empty() {
            return;
        }
        if self.agents.takeover.pending.is_empty() {
            self.agents.takeover.started = self.now.mono;
            self.agents.takeover.agents = 0;
            self.agents.takeover.reason = reason;
        }
        let known = &self.agents.takeover.pending;
        let more = agents
            .iter()
            .filter(|agent| !known.contains(*agent))
            .count();
        self.agents.takeover.agents += more;
        if more > 0 {
            self.out.tell(Event::TakeoverStarted {
                reason,
                agents: self.agents.takeover.agents,
            });
        }
        for agent in agents {
            let first = self.jobs.lanes.has(&agent);
            self.agents.takeover.push(&agent, first);
            self.agents.takeover.pending.insert(agent);
        }
        self.takeover_soon();
    }

    /// The next batch: at once, where none was had just now.
    pub(crate) fn takeover_soon(&mut self) {
        let at = self.agents.takeover.next_at.max(self.now.mono);
        self.timers.set_by(Timer::Takeover, at);
    }

    /// A subscription that was lost is had again. Where a platform has ended those of all agents,
    /// they do not all sign in at one time.
    fn subscribe_in_turn(&mut self, agent: &AgentId) {
        let first = self.jobs.lanes.has(agent);
        self.agents.takeover.push(agent, first);
        self.takeover_soon();
    }

    pub(crate) fn takeover_step(&mut self) {
        self.agents.takeover.next_at = self.now.mono + BATCH_MS;
        let batch = (self.cfg.takeover_rate * BATCH_MS / 1_000).max(1);
        for _ in 0..batch {
            let Some(agent) = self.agents.takeover.pop() else {
                return;
            };
            let node = self.route.current();
            // A Connect under way has its own: two would end each other.
            let session = self.sessions.get(&agent);
            let session = session.filter(|session| session.connecting.is_none());
            let wanted = session.map(|session| {
                let there = matches!(session.subscription,
                    Subscription::Up { node: at, .. } if at == node);
                (there, session.owned_by(&self.cfg.instance))
            });
            match wanted {
                Some((false, owned))
                    if owned || self.placement().prepares(&agent) || self.fetches(&agent) =>
                {
                    self.subscribe(&agent);
                }
                Some((false, _)) => self.takeover_done(&agent),
                Some((true, owned)) => {
                    self.takeover_done(&agent);
                    if owned {
                        self.watch_again(&agent);
                        self.sync(&agent, false, Cause::default(), self.now.mono);
                    } else {
                        self.claim_agent(&agent);
                    }
                }
                None => self.takeover_done(&agent),
            }
        }
        if !self.agents.takeover.queue.is_empty() {
            self.takeover_soon();
        }
    }

    pub(crate) fn takeover_done(&mut self, agent: &AgentId) {
        let takeover = &mut self.agents.takeover;
        if takeover.pending.remove(agent) && takeover.pending.is_empty() {
            self.out.tell(Event::TakeoverFinished {
                reason: self.agents.takeover.reason,
                agents: self.agents.takeover.agents,
                millis: self.now.mono.saturating_sub(self.agents.takeover.started),
            });
        }
    }

    /// Another instance owns this agent now. Its client is served there; the subscription is kept
    /// for a moment, until the new owner has its own.
    pub(crate) fn disown(&mut self, agent: &AgentId) {
        let linger = if self.cfg.planted.unsubscribes_first() {
            0
        } else {
            limits::HANDED_OVER_LINGER_MS
        };
        let until = self.now.mono + linger;
        self.end_move(agent);
        if let Some(session) = self.sessions.get_mut(agent) {
            session.dialogs.clear();
            session.expected.clear();
            session.settling = None;
            session.sync = None;
            session.linger_until = Some(until);
            self.timers.set(Timer::Agent(agent.clone()), until);
        }
    }

    /// Subscriptions and owners agree, however they came apart: an account of a session may make
    /// this instance its owner, or end that, by other ways than a takeover or a grant.
    pub(crate) fn mend_subscriptions(&mut self) {
        let me = self.cfg.instance.clone();
        // Most times without a look at each of them.
        if self.sessions.tally(&me).at_rest == self.sessions.number() as u64 {
            return;
        }
        let (mut missing, mut left) = (Vec::new(), Vec::new());
        for session in self.sessions.iter() {
            let still = session.linger_until.is_none() && session.connecting.is_none();
            if !still || session.moving.is_some() {
                continue;
            }
            // It was due, and a Connect was in its way, which has failed since.
            let missed = matches!(session.subscription,
                Subscription::Waiting { not_before, .. } if not_before < self.now.mono);
            let held = session.subscription != Subscription::None;
            let agent = &session.record.agent;
            let own = session.live() && session.owned_by(&me);
            if own && (!held || missed) && !session.refused {
                missing.push(agent.clone());
            } else if !own && held {
                left.push(agent.clone());
            }
        }
        missing.retain(|agent| {
            self.placement().leads_for(agent) && !self.agents.takeover.queued.contains(agent)
        });
        self.take(missing, "missing");
        for agent in left {
            if !self.placement().prepares(&agent) {
                self.disown(&agent);
            }
        }
    }

    // ---- what comes due -----------------------------------------------------------------------

    /// Connect, move, linger, subscription or read of an agent may be due: one timer serves all.
    pub(crate) fn agent_due(&mut self, agent: &AgentId) {
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let waiting_connect = session
            .connecting
            .as_ref()
            .is_some_and(|pending| !pending.asked);
        if waiting_connect {
            if self.connect_expired(agent) {
                return;
            }
            let node = self.route.current();
            self.try_connect(agent, node);
        }
        // Before the linger, which goes on for as long as commands wait: they may wait for the move.
        self.drive_move(agent);
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        if session.linger_until.is_some_and(|until| until <= now) {
            self.let_go(agent);
            return;
        }
        let linger = session.linger_until;
        let due = session.sync.as_ref().and_then(|sync| sync.due);
        let resubscribe = match session.subscription {
            Subscription::Waiting { not_before, .. } => Some(not_before),
            _ => None,
        };
        let owned = session.owned_by(&self.cfg.instance);
        if resubscribe.is_some_and(|at| at <= now) {
            if owned || self.placement().prepares(agent) || self.fetches(agent) {
                self.subscribe_in_turn(agent);
            } else if let Some(session) = self.sessions.get_mut(agent) {
                // Its new owner has its own.
                session.subscription = Subscription::None;
                self.takeover_done(agent);
            }
        }
        if due.is_some_and(|at| at <= now) {
            self.read_agent(agent);
        }
        let next = [linger, due, resubscribe];
        if let Some(at) = next.into_iter().flatten().filter(|at| *at > now).min() {
            self.timers.set_by(Timer::Agent(agent.clone()), at);
        }
    }

    /// The linger is over: no subscription any more; a signed-out agent's session ends.
    pub(crate) fn let_go(&mut self, agent: &AgentId) {
        let group = self
            .placement()
            .group_of_agent(agent)
            .and_then(|index| self.groups.get(index));
        let aside = group.is_some_and(|group| stands_by(group.role));
        let busy = self.jobs.lanes.has(agent);
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let owned = session.owned_by(&self.cfg.instance);
        let ended = owned && !session.record.signed_in && session.connecting.is_none();
        // A sign-in may be on its way: no longer than commands have until their deadlines.
        if ended && busy && session.live() {
            let until = self.now.mono + LINGER_AGAIN_MS;
            session.linger_until = Some(until);
            self.timers.set_by(Timer::Agent(agent.clone()), until);
            return;
        }
        session.linger_until = None;
        let subscription = session.subscription.epoch();
        session.subscription = Subscription::None;
        session.sync = None;
        // Whose group is stopped here, or served by another, is only put aside.
        if ended && !aside {
            session.buried_until = Some(self.now.mono + limits::TOMBSTONE_MS);
            self.sessions.change(agent, |record| {
                record.tombstone = true;
                record.user = None;
            });
            self.end_move(agent);
        }
        if let Some(subscription) = subscription {
            self.unsubscribe(agent, subscription);
        }
        self.takeover_done(agent);
    }
}
