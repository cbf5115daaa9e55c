//! Connect: an agent is bound to a client, its credentials proven first.

use crate::Engine;
use crate::api::command::NotifyCommand;
use crate::api::ids::JobId;
use crate::catalogue::ErrorCode;
use crate::jobs::{Answered, Evidence};
use crate::model::{AgentId, Cause, Destination};
use crate::peer::{SessionRecord, Version};
use crate::state::session::{PendingConnect, Session, Subscription};
use crate::state::timer::Timer;
use crate::wire::command::ClientCommand;
use crate::wire::event::ClientEvent;
use crate::wire::reply::Outcome;

/// Why a Connect has to come again.
const NO_STORE: &str = "the store is not ready; try again later";

impl Engine {
    // ---- Connect ------------------------------------------------------------------------------

    /// Binds an agent to a destination. The credentials are proven by the notification service
    /// before anything changes: a wrong password does not end a session that works.
    pub(crate) fn connect(&mut self, id: JobId, agent: &AgentId, command: &ClientCommand) {
        if self.cfg.http.is_some() {
            let words = "downstream.kind is http: there are no agents, only Call";
            self.reject(id, ErrorCode::NotImplemented, words);
            return;
        }
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
            let same = session.owned_by(&self.cfg.instance)
                && session.record.group == self.placement().record_group(command.group)
                && session.record.destination == destination
                && session.record.password == password
                && session.subscription.is_up();
            if same {
                if let Some(session) = self.sessions.get_mut(agent) {
                    session.linger_until = None;
                }
                self.connected(id, &destination);
                return;
            }
        } else if !self.sessions.has_room() {
            self.refuse_till_later(id, "no room for another agent; try again later");
            return;
        }
        if !self.admits(agent) {
            self.refuse_for_room(id, self.no_seat());
            return;
        }
        if !self.epoch_ready() {
            self.refuse_till_later(id, NO_STORE);
            return;
        }
        let epoch = self.next_subscription();
        let pending = PendingConnect {
            job: id,
            destination: destination.clone(),
            password,
            epoch,
            tried: 0,
            node: self.route.current(),
            asked: false,
            group: self.placement().record_group(command.group),
        };
        if self.sessions.get(agent).is_none() {
            self.new_session(agent, &pending);
        }
        if let Some(session) = self.sessions.get_mut(agent) {
            session.connecting = Some(pending);
        }
        self.step(id, Evidence::CredentialsAsked);
        let node = self.route.current();
        self.try_connect(agent, node);
    }

    /// A place for the agent's first Connect. It has no epoch of its own before the credentials are
    /// proven: whatever is told of the agent meanwhile, elsewhere, is newer. Where an ended session
    /// is remembered, that one stays what it is.
    fn new_session(&mut self, agent: &AgentId, pending: &PendingConnect) {
        if self.sessions.get_mut(agent).is_some() {
            return;
        }
        self.sessions.insert(Session::new(SessionRecord {
            agent: agent.clone(),
            version: Version {
                epoch: 0,
                rank: 0,
                owner: self.cfg.instance.clone(),
                counter: 0,
            },
            destination: pending.destination.clone(),
            extension: None,
            password: pending.password.clone(),
            mobile: None,
            watched: Vec::new(),
            signed_in: false,
            user: None,
            tombstone: true,
            group: pending.group.clone(),
            newest_change: None,
            node: None,
        }));
    }

    /// A Connect had no effect: where nothing was known of the agent before it, nothing is again.
    pub(crate) fn forget_unproven(&mut self, agent: &AgentId) {
        let session = self.sessions.get_mut(agent);
        if session.is_some_and(|session| !session.told()) {
            self.sessions.remove(agent);
        }
    }

    pub(crate) fn try_connect(&mut self, agent: &AgentId, node: usize) {
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
        pending.node = node;
        pending.asked = true;
        let (epoch, password) = (pending.epoch, pending.password.clone());
        self.out.push(NotifyCommand::Subscribe {
            agent: agent.clone(),
            subscription: epoch,
            node,
            domain,
            password,
        });
    }

    /// The credentials are good and the subscription stands.
    pub(crate) fn connect_succeeded(&mut self, agent: &AgentId, pending: PendingConnect) {
        let node = pending.node;
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let was_alive = session.live();
        let former = session.subscription.epoch();
        let was_up = session.subscription.is_up();
        let epoch = session.record.version.epoch;
        // A new session, or an agent of another owner, whose client has come here.
        let acquired = !was_alive || !session.owned_by(&self.cfg.instance);
        let epoch_of_own = acquired.then(|| self.next_epoch()).flatten();
        if acquired && epoch_of_own.is_none() {
            self.unsubscribe(agent, pending.epoch);
            self.forget_unproven(agent);
            self.refuse_till_later(pending.job, NO_STORE);
            return;
        }
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        if !was_alive {
            session.begin_anew();
        }
        session.subscription = Subscription::Up {
            epoch: pending.epoch,
            node,
        };
        session.refused = false;
        session.buried_until = None;
        session.linger_until = None;
        // Who comes back signed out waits for a sign-in, however long that takes.
        let user = session.record.user.as_ref();
        let out = !session.record.signed_in && !user.is_some_and(|user| user.signed_in());
        let proven = |record: &mut SessionRecord| {
            record.password = pending.password;
            record.group = pending.group;
            record.tombstone = false;
            if out {
                record.extension = None;
            }
        };
        if let Some(subscription) = former {
            self.unsubscribe(agent, subscription);
        }
        let old = self.sessions.rebind(agent, &pending.destination);
        match epoch_of_own {
            Some(epoch) => {
                self.sessions.amend(agent, proven);
                self.own(agent, epoch);
            }
            None => {
                self.sessions.change(agent, proven);
            }
        }
        if let Some(old) = old.filter(|_| was_alive) {
            self.tell_replaced(agent, &old, epoch, pending.job);
        }
        self.takeover_done(agent);
        self.note_node(agent, node);
        self.watch_again(agent);
        // Nobody here has seen what the agent did meanwhile.
        if was_alive && (acquired || !was_up) {
            self.sync(agent, false, Cause::default(), self.now.mono);
        }
        self.connected(pending.job, &pending.destination);
    }

    /// The client that an agent was bound to before, in that session's epoch.
    fn tell_replaced(&mut self, agent: &AgentId, old: &Destination, epoch: u64, job: JobId) {
        let error = ClientEvent::Error {
            agent: Some(agent.clone()),
            code: ErrorCode::SessionInvalidated.as_str().to_owned(),
            message: "the agent connected from another client".to_owned(),
        };
        self.tell(old, error, Cause::default(), epoch, Some(job));
        let logout = ClientEvent::LogoutState {
            agent: agent.clone(),
        };
        self.tell(old, logout, Cause::default(), epoch, Some(job));
    }

    /// The client is told once the session is known to all.
    pub(crate) fn connected(&mut self, id: JobId, destination: &Destination) {
        self.sessions.learn_destination(destination, true);
        self.finish(id, Answered::ok(Outcome::Ok, None, None));
    }

    /// Ends a Connect that could not be tried at all before its deadline.
    pub(crate) fn connect_expired(&mut self, agent: &AgentId) -> bool {
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
                self.forget_unproven(agent);
                self.finish(pending.job, Self::expired());
                true
            }
            None => false,
        }
    }

    pub(crate) fn connect_failed(&mut self, agent: &AgentId, code: ErrorCode, reason: &str) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let Some(pending) = session.connecting.take() else {
            return;
        };
        self.forget_unproven(agent);
        let host = self.route.host(self.route.current()).to_owned();
        let mut answered = Answered::error(Outcome::Failed, code.as_str(), reason);
        answered.downstream = Some(host);
        self.finish(pending.job, answered);
    }
}
