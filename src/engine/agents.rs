//! Agents: Connect, subscriptions, reading an agent anew, takeover in batches.

use std::collections::{BTreeSet, VecDeque};

use crate::catalogue::ErrorCode;
use crate::model::{Action, AgentId, Answer, CallOutcome, Destination, Dialog, Secret};
use crate::wire::command::ClientCommand;
use crate::wire::event::{ClientEvent, Viewer, choose};
use crate::wire::reply::Outcome;

use super::command::{Call, Command};
use super::ids::{CallId, JobId, SubscriptionEpoch};
use super::input::Notice;
use super::jobs::{Answered, State};
use super::peer::{SessionRecord, Version};
use super::session::{PendingConnect, Session, Subscription, Sync};
use super::timer::Timer;
use super::{CallFor, Engine, Event, limits};

/// Interval of the takeover's batches, milliseconds.
const BATCH_MS: u64 = 50;

/// Delay before a read that failed is tried again, milliseconds.
const SYNC_RETRY_MS: u64 = 2_000;

/// Subscriptions to be had, at a bounded rate.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    queue: VecDeque<AgentId>,
    queued: BTreeSet<AgentId>,
    /// Agents whose subscription is awaited for the report.
    pending: BTreeSet<AgentId>,
    started: u64,
    agents: usize,
    reason: &'static str,
}

impl Takeover {
    fn push(&mut self, agent: &AgentId, first: bool) {
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

    /// Whether everything asked for is subscribed.
    pub(super) fn idle(&self) -> bool {
        self.queue.is_empty() && self.pending.is_empty()
    }
}

impl Engine {
    // ---- Connect ------------------------------------------------------------------------------

    /// Binds an agent to a destination. The credentials are proven by the notification service
    /// before anything changes: a wrong password does not end a session that works.
    pub(super) fn connect(&mut self, id: JobId, agent: &AgentId, command: &ClientCommand) {
        let Some(destination) = command
            .args
            .get("destination")
            .and_then(|text| Destination::new(text).ok())
        else {
            self.reject(id, ErrorCode::PleaseRetry, "the destination cannot be read");
            return;
        };
        let Some(password) = crate::catalogue::password(&command.args).cloned() else {
            self.reject(id, ErrorCode::MissingPassword, "the password is missing");
            return;
        };
        if let Some(session) = self.sessions.get(agent) {
            let same = session.record.destination == destination
                && session.record.password == password
                && session.subscription.is_up();
            if same {
                if let Some(session) = self.sessions.get_mut(agent) {
                    session.linger_until = None;
                }
                self.connected(id, agent, &destination);
                return;
            }
        } else if !self.sessions.has_room() {
            self.reject(id, ErrorCode::PleaseRetry, "no room for another agent");
            return;
        }
        let epoch = self.next_subscription();
        let pending = PendingConnect {
            job: id,
            destination: destination.clone(),
            password,
            epoch,
            tried: 0,
        };
        if self.sessions.get(agent).is_none() {
            self.new_session(agent, &destination, pending.password.clone());
        }
        if let Some(session) = self.sessions.get_mut(agent) {
            session.connecting = Some(pending);
        }
        if let Some(job) = self.jobs.get_mut(id) {
            job.state = State::Connecting;
        }
        let node = self.route.current();
        self.try_connect(agent, node);
    }

    /// A session that is not told to anyone until its credentials are proven: tombstone state.
    fn new_session(&mut self, agent: &AgentId, destination: &Destination, password: Secret) {
        let former = self
            .sessions
            .get_mut(agent)
            .map(|s| (s.record.version.epoch, s.subscription.epoch()));
        // An ended session may still hold its subscription for a moment.
        if let Some((_, Some(subscription))) = former {
            self.unsubscribe(agent, subscription);
        }
        self.sessions.remove(agent);
        let epoch = self.epoch.max(former.map_or(0, |(epoch, _)| epoch)) + 1;
        self.epoch = epoch;
        self.sessions.insert(Session::new(SessionRecord {
            agent: agent.clone(),
            version: Version {
                epoch,
                owner: self.cfg.instance.clone(),
                counter: 1,
            },
            destination: destination.clone(),
            extension: None,
            password,
            signed_in: false,
            user: None,
            tombstone: true,
        }));
        if let Some(session) = self.sessions.get_mut(agent) {
            session.buried_until = Some(self.now.mono + limits::TOMBSTONE_MS);
        }
    }

    fn try_connect(&mut self, agent: &AgentId, node: usize) {
        let Some(domain) = self.route.domain(node).map(str::to_owned) else {
            // Not probed yet; the probe's answer brings us back here.
            self.timers
                .set_by(Timer::Agent(agent.clone()), self.now.mono + 250);
            return;
        };
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let Some(pending) = &mut session.connecting else {
            return;
        };
        pending.tried += 1;
        let (epoch, password) = (pending.epoch, pending.password.clone());
        self.out.push_back(Command::Subscribe {
            agent: agent.clone(),
            subscription: epoch,
            node,
            domain,
            password,
        });
    }

    /// The credentials are good and the subscription stands.
    fn connect_succeeded(&mut self, agent: &AgentId, pending: PendingConnect, node: usize) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let former = session.subscription.epoch();
        let was_alive = session.live();
        session.subscription = Subscription::Up {
            epoch: pending.epoch,
            node,
        };
        session.record.password = pending.password;
        session.record.tombstone = false;
        session.buried_until = None;
        session.linger_until = None;
        if let Some(subscription) = former {
            self.unsubscribe(agent, subscription);
        }
        let epoch = self
            .sessions
            .get(agent)
            .map_or(0, |s| s.record.version.epoch);
        let old = self.sessions.rebind(agent, &pending.destination);
        self.sessions.touch(agent);
        if let Some(old) = old.filter(|_| was_alive) {
            let error = ClientEvent::Error {
                agent: Some(agent.clone()),
                code: ErrorCode::SessionInvalidated.as_str().to_owned(),
                message: "the agent connected from another client".to_owned(),
            };
            self.tell(&old, error, None, epoch, Some(pending.job));
            let logout = ClientEvent::LogoutState {
                agent: agent.clone(),
            };
            self.tell(&old, logout, None, epoch, Some(pending.job));
        }
        self.takeover_done(agent);
        self.connected(pending.job, agent, &pending.destination);
    }

    fn connected(&mut self, id: JobId, agent: &AgentId, destination: &Destination) {
        self.sessions.learn_destination(destination, true);
        let epoch = self
            .sessions
            .get(agent)
            .map_or(0, |s| s.record.version.epoch);
        let correlation = self.correlation(id);
        let event = ClientEvent::ConnectStatus;
        self.tell(destination, event, correlation, epoch, Some(id));
        self.finish(id, Answered::ok(Outcome::Ok, None, None));
    }

    /// Ends a Connect that could not be tried at all before its deadline.
    fn connect_expired(&mut self, agent: &AgentId) -> bool {
        let wall = self.now.wall;
        let Some(session) = self.sessions.get_mut(agent) else {
            return false;
        };
        let late = session.connecting.take_if(|pending| {
            let command = self.jobs.get(pending.job).and_then(|j| j.command.as_ref());
            command.is_none_or(|command| command.deadline_ms <= wall)
        });
        match late {
            Some(pending) => {
                self.finish(pending.job, Self::expired());
                true
            }
            None => false,
        }
    }

    fn connect_failed(&mut self, agent: &AgentId, code: ErrorCode, reason: &str) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let Some(pending) = session.connecting.take() else {
            return;
        };
        let host = self.route.host(self.route.current()).to_owned();
        let mut answered = Answered::error(Outcome::Failed, code.as_str(), reason);
        answered.downstream = Some(host);
        self.finish(pending.job, answered);
    }

    // ---- subscriptions ------------------------------------------------------------------------

    pub(super) fn on_notice(
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
            Notice::Lost { reason, conflict } => {
                let kind = if conflict { "conflict" } else { "lost" };
                self.subscription_lost(agent, kind, reason);
            }
        }
    }

    fn on_connect_notice(&mut self, agent: &AgentId, notice: Notice) {
        let node = self.route.current();
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        match notice {
            Notice::Up => {
                if let Some(pending) = session.connecting.take() {
                    self.connect_succeeded(agent, pending, node);
                }
            }
            Notice::Refused { reason } => {
                self.connect_failed(agent, ErrorCode::SubscriptionFailed, &reason);
            }
            Notice::Unreachable { reason } | Notice::Lost { reason, .. } => {
                let tried = session.connecting.as_ref().map_or(0, |p| p.tried);
                let other = self.route.other(node).filter(|_| tried < 2);
                match other {
                    Some(_) => {
                        let changes = self.route.prefer_other();
                        self.apply_route(changes);
                        let epoch = self.next_subscription();
                        if let Some(pending) = self
                            .sessions
                            .get_mut(agent)
                            .and_then(|session| session.connecting.as_mut())
                        {
                            pending.epoch = epoch;
                        }
                        let node = self.route.current();
                        self.try_connect(agent, node);
                    }
                    None => self.connect_failed(agent, ErrorCode::UnableToSubscribe, &reason),
                }
            }
            Notice::Update(_) => {}
        }
    }

    fn subscribe(&mut self, agent: &AgentId) {
        let node = self.route.current();
        let Some(domain) = self.route.domain(node).map(str::to_owned) else {
            self.wait_to_subscribe(agent, 250, 0);
            return;
        };
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
        self.out.push_back(Command::Subscribe {
            agent: agent.clone(),
            subscription: epoch,
            node,
            domain,
            password,
        });
    }

    fn unsubscribe(&mut self, agent: &AgentId, subscription: SubscriptionEpoch) {
        self.out.push_back(Command::Unsubscribe {
            agent: agent.clone(),
            subscription,
        });
    }

    fn subscribed(&mut self, agent: &AgentId) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        if let Subscription::Starting { epoch, node, .. } = session.subscription {
            session.subscription = Subscription::Up { epoch, node };
        }
        let owned = session.record.version.owner == self.cfg.instance;
        self.takeover_done(agent);
        if owned {
            self.sync(agent, false, None, self.now.mono);
        }
    }

    /// The password of a session that worked is refused now: only its client can mend that.
    fn subscription_refused(&mut self, agent: &AgentId, reason: String) {
        self.subscription_event(agent, "refused", reason.clone());
        if let Some(session) = self.sessions.get_mut(agent) {
            session.subscription = Subscription::None;
        }
        self.takeover_done(agent);
        let event = ClientEvent::Error {
            agent: Some(agent.clone()),
            code: ErrorCode::SubscriptionFailed.as_str().to_owned(),
            message: reason,
        };
        self.tell_agent(agent, event, None);
    }

    fn subscription_lost(&mut self, agent: &AgentId, kind: &'static str, reason: String) {
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
            let changes = self.route.prefer_other();
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

    fn wait_to_subscribe(&mut self, agent: &AgentId, wait: u64, tries: u32) {
        let not_before = self.now.mono + wait;
        if let Some(session) = self.sessions.get_mut(agent) {
            session.subscription = Subscription::Waiting { not_before, tries };
            self.timers.set_by(Timer::Agent(agent.clone()), not_before);
        }
    }

    fn subscription_event(&mut self, agent: &AgentId, kind: &'static str, reason: String) {
        self.events.push_back(Event::SubscriptionLost {
            kind,
            agent: agent.to_string(),
            reason,
        });
    }

    /// Another node is in use: every own subscription moves there, at the takeover's rate.
    pub(super) fn move_subscriptions(&mut self) {
        let node = self.route.current();
        let movable: Vec<AgentId> = self
            .sessions
            .iter()
            .filter(|session| {
                session.live()
                    && session.record.version.owner == self.cfg.instance
                    && !matches!(session.subscription,
                        Subscription::Up { node: at, .. } | Subscription::Starting { node: at, .. } if at == node)
            })
            .map(|session| session.record.agent.clone())
            .collect();
        self.take(movable, "downstream");
    }

    /// The node's domain is known now: Connects that waited for it go on.
    pub(super) fn domain_learned(&mut self) {
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
    pub(super) fn take_over(&mut self, agents: Vec<AgentId>, epoch: u64, reason: &'static str) {
        for agent in &agents {
            self.sessions.own(agent, &self.cfg.instance, epoch);
            if let Some(session) = self.sessions.get_mut(agent) {
                session.linger_until = None;
            }
        }
        self.send_delta();
        self.take(agents, reason);
    }

    /// Has subscriptions in batches, agents with waiting commands first.
    pub(super) fn take(&mut self, agents: Vec<AgentId>, reason: &'static str) {
        if agents.is_empty() {
            return;
        }
        if self.takeover.idle() {
            self.takeover.started = self.now.mono;
            self.takeover.agents = 0;
            self.takeover.reason = reason;
        }
        self.takeover.agents += agents.len();
        self.events.push_back(Event::TakeoverStarted {
            reason,
            agents: agents.len(),
        });
        for agent in agents {
            let first = self.jobs.waiting_for(agent.as_str());
            self.takeover.push(&agent, first);
            self.takeover.pending.insert(agent);
        }
        self.timers.set_by(Timer::Takeover, self.now.mono);
    }

    pub(super) fn takeover_step(&mut self) {
        let batch = (self.cfg.takeover_rate * BATCH_MS / 1_000).max(1);
        for _ in 0..batch {
            let Some(agent) = self.takeover.pop() else {
                return;
            };
            let node = self.route.current();
            let wanted = self.sessions.get(&agent).map(|session| {
                let there = matches!(session.subscription,
                    Subscription::Up { node: at, .. } if at == node);
                (there, session.record.version.owner == self.cfg.instance)
            });
            match wanted {
                Some((false, owned)) if owned || self.prepares() => self.subscribe(&agent),
                Some((false, _)) => self.takeover_done(&agent),
                Some((true, owned)) => {
                    self.takeover_done(&agent);
                    if owned {
                        self.sync(&agent, false, None, self.now.mono);
                    }
                }
                None => self.takeover_done(&agent),
            }
        }
        if !self.takeover.queue.is_empty() {
            self.timers.set(Timer::Takeover, self.now.mono + BATCH_MS);
        }
    }

    fn takeover_done(&mut self, agent: &AgentId) {
        if self.takeover.pending.remove(agent) && self.takeover.idle() {
            self.events.push_back(Event::TakeoverFinished {
                reason: self.takeover.reason,
                agents: self.takeover.agents,
                millis: self.now.mono.saturating_sub(self.takeover.started),
            });
        }
    }

    /// Another instance owns this agent now. Its client is served there; the subscription is kept
    /// for a moment, until the new owner has its own.
    pub(super) fn disown(&mut self, agent: &AgentId) {
        let until = self.now.mono + 2_000;
        if let Some(session) = self.sessions.get_mut(agent) {
            session.dialogs.clear();
            session.expected.clear();
            session.sync = None;
            session.linger_until = Some(until);
            self.timers.set(Timer::Agent(agent.clone()), until);
        }
    }

    // ---- what comes due -----------------------------------------------------------------------

    pub(super) fn agent_due(&mut self, agent: &AgentId) {
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let waiting_connect = session
            .connecting
            .as_ref()
            .is_some_and(|pending| pending.tried == 0);
        if waiting_connect {
            if self.connect_expired(agent) {
                return;
            }
            let node = self.route.current();
            self.try_connect(agent, node);
        }
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
        let owned = session.record.version.owner == self.cfg.instance;
        if resubscribe.is_some_and(|at| at <= now) {
            if owned || self.prepares() {
                self.subscribe(agent);
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
    fn let_go(&mut self, agent: &AgentId) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        session.linger_until = None;
        let subscription = session.subscription.epoch();
        session.subscription = Subscription::None;
        session.sync = None;
        let owned = session.record.version.owner == self.cfg.instance;
        if owned && !session.record.signed_in && session.connecting.is_none() {
            session.record.tombstone = true;
            session.record.user = None;
            session.buried_until = Some(self.now.mono + limits::TOMBSTONE_MS);
            self.sessions.touch(agent);
        }
        if let Some(subscription) = subscription {
            self.unsubscribe(agent, subscription);
        }
        self.takeover_done(agent);
    }

    // ---- sign-in, sign-out, reading anew ------------------------------------------------------

    /// A sign-in was accepted: keep what it proved, then read the agent.
    pub(super) fn signed_in(
        &mut self,
        agent: &AgentId,
        extension: &str,
        password: Secret,
        correlation_id: Option<String>,
    ) {
        let mut due = self.now.mono + limits::SIGN_IN_SETTLE_MS;
        if let Some(session) = self.sessions.get_mut(agent) {
            session.record.extension = Some(extension.to_owned());
            session.record.password = password;
            session.record.signed_in = true;
            session.linger_until = None;
            // What comes from now on is told: by its request id, or as the state it leads to.
            for known in &mut session.expected {
                if known.state == Some("LOGIN") {
                    known.state = Some("NOT_READY");
                }
            }
            if std::mem::take(&mut session.sign_in_seen) {
                due = self.now.mono;
            }
            self.sessions.touch(agent);
        }
        self.sync(agent, true, correlation_id, due);
    }

    /// A forced sign-out was accepted: the subscription ends with the notification of it.
    pub(super) fn signing_out(&mut self, agent: &AgentId) {
        let now = self.now.mono;
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let out = session.record.user.as_ref().is_some_and(|u| !u.signed_in());
        // Short enough to mark "close at once"; it closes without a notification, too.
        session.linger_until = Some(if out {
            now
        } else {
            now + limits::FORCED_OUT_MS
        });
        session.record.signed_in = false;
        self.sessions.touch(agent);
        self.timers.set_by(
            Timer::Agent(agent.clone()),
            now + if out { 0 } else { limits::FORCED_OUT_MS },
        );
    }

    /// Reads an agent anew at `due` and publishes what was read.
    pub(super) fn sync(
        &mut self,
        agent: &AgentId,
        sign_in: bool,
        correlation_id: Option<String>,
        due: u64,
    ) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let known = session.sync.take().unwrap_or_default();
        session.sync = Some(Sync {
            due: Some(due),
            sign_in: sign_in || known.sign_in,
            correlation_id: correlation_id.or(known.correlation_id),
            call: None,
            user: None,
            tries: 0,
        });
        self.timers.set_by(Timer::Agent(agent.clone()), due);
    }

    /// A notification during a sign-in: no need to wait longer. A read that is under way is begun
    /// again, as it may show what was before.
    pub(super) fn sync_now(&mut self, agent: &AgentId) {
        self.read_agent(agent);
    }

    /// A sign-out was accepted: should its notification be lost, the agent is not signed in again.
    pub(super) fn asked_out(&mut self, agent: &AgentId) {
        if let Some(session) = self.sessions.get_mut(agent)
            && session.record.signed_in
        {
            session.record.signed_in = false;
            self.sessions.touch(agent);
        }
    }

    fn read_agent(&mut self, agent: &AgentId) {
        if let Some(session) = self.sessions.get_mut(agent)
            && let Some(sync) = &mut session.sync
        {
            sync.due = None;
            sync.user = None;
            self.sync_call(agent, Action::ReadUser);
        }
    }

    fn sync_call(&mut self, agent: &AgentId, action: Action) {
        let call = self.background_call(agent, action, CallFor::Sync(agent.clone()));
        if let Some(session) = self.sessions.get_mut(agent)
            && let Some(sync) = &mut session.sync
        {
            sync.call = call;
        }
    }

    fn background_call(
        &mut self,
        agent: &AgentId,
        action: Action,
        purpose: CallFor,
    ) -> Option<CallId> {
        let node = self.route.current();
        let password = self.sessions.get(agent)?.record.password.clone();
        let id = CallId(self.number());
        let request_id = self.message_id();
        self.calls.insert(id, (purpose, node));
        self.out.push_back(Command::Call(Box::new(Call {
            id,
            node,
            agent: agent.clone(),
            password,
            request_id,
            action,
        })));
        Some(id)
    }

    pub(super) fn sync_answered(&mut self, agent: &AgentId, call: CallId, outcome: CallOutcome) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let Some(sync) = session.sync.as_mut().filter(|s| s.call == Some(call)) else {
            self.stale("read");
            return;
        };
        match outcome {
            CallOutcome::Done {
                answer: Answer::User(user),
                ..
            } => {
                sync.user = Some(user);
                self.sync_call(agent, Action::ReadDialogs);
            }
            CallOutcome::Done {
                answer: Answer::Dialogs(dialogs),
                ..
            } => self.sync_done(agent, dialogs),
            CallOutcome::Refused { .. } => session.sync = None,
            _ => {
                sync.tries += 1;
                sync.call = None;
                if sync.tries > 5 {
                    session.sync = None;
                    return;
                }
                let due = self.now.mono + SYNC_RETRY_MS;
                sync.due = Some(due);
                self.timers.set_by(Timer::Agent(agent.clone()), due);
            }
        }
    }

    fn sync_done(&mut self, agent: &AgentId, dialogs: Vec<Dialog>) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let Some(sync) = session.sync.take() else {
            return;
        };
        let Some(user) = sync.user else {
            return;
        };
        let asked_in = session.record.signed_in;
        let extension = session.record.extension.clone();
        if !user.signed_in() && asked_in {
            self.sign_in_again(agent, extension);
            if !sync.sign_in {
                return;
            }
        }
        self.publish_read(agent, &user, dialogs, sync.sign_in, sync.correlation_id);
        let make_ready = sync.sign_in && self.cfg.agents.make_ready && user.state == "NOT_READY";
        if make_ready {
            let action = Action::SetState {
                state: "READY",
                reason: None,
            };
            self.background_call(agent, action, CallFor::Habit(agent.clone()));
        }
    }

    /// This node does not know the agent as signed in: sign it in with what is known.
    fn sign_in_again(&mut self, agent: &AgentId, extension: Option<String>) {
        match extension {
            Some(extension) => {
                let action = Action::SignIn { extension };
                self.background_call(agent, action, CallFor::Habit(agent.clone()));
            }
            None => {
                let event = ClientEvent::ReLogin {
                    agent: agent.clone(),
                };
                self.tell_agent(agent, event, None);
            }
        }
    }

    pub(super) fn habit_answered(&mut self, agent: &AgentId, outcome: CallOutcome) {
        if let CallOutcome::Refused { status, error } = outcome {
            let (code, message) = crate::wire::errors::code_of(&error, status);
            let event = ClientEvent::Error {
                agent: Some(agent.clone()),
                code,
                message,
            };
            self.tell_agent(agent, event, None);
        }
    }

    fn publish_read(
        &mut self,
        agent: &AgentId,
        user: &crate::model::User,
        dialogs: Vec<Dialog>,
        sign_in: bool,
        correlation: Option<String>,
    ) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        if session.record.extension.is_none() && !user.extension.is_empty() && user.signed_in() {
            session.record.extension = Some(user.extension.clone());
        }
        let extension = session.record.extension.clone().unwrap_or_default();
        let ended: Vec<Dialog> = session
            .dialogs
            .iter()
            .filter(|known| !dialogs.iter().any(|dialog| dialog.id == known.id))
            .cloned()
            .collect();
        session.dialogs.clone_from(&dialogs);
        self.keep_user(agent, user.clone());
        let name = user.full_name();
        if sign_in {
            let info = ClientEvent::AgentInfo {
                agent: agent.clone(),
                user: Box::new(user.clone()),
            };
            self.tell_agent(agent, info, correlation.clone());
            if user.supervisor {
                let teams = ClientEvent::TeamInfo {
                    agent: agent.clone(),
                    name: name.clone(),
                    teams: user.teams.clone(),
                };
                self.tell_agent(agent, teams, correlation.clone());
            }
        }
        let state = ClientEvent::State {
            agent: agent.clone(),
            user: Box::new(user.clone()),
        };
        self.tell_agent(agent, state, correlation.clone());
        // What was known and is not there any more has ended unseen.
        let viewer = Viewer {
            agent,
            name: &name,
            extension: &extension,
        };
        for dialog in ended {
            for event in choose(&dialog, crate::model::DialogsVerb::Removed, true, &viewer) {
                self.tell_agent(agent, event, None);
            }
        }
        let status = ClientEvent::DialogStatus {
            agent: agent.clone(),
            extension,
            dialogs,
        };
        self.tell_agent(agent, status, correlation);
    }
}
