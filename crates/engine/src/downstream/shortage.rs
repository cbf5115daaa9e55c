//! This machine is short of something: descriptors, ports, memory, threads.
//!
//! That is no news about a downstream node, a notification service or a broker: no node is called
//! down, nothing moves, consuming goes on. Agents that have their session are served; a new one is
//! refused for now and told when to come again; one whose session was lost waits for room.

use crate::catalogue::ErrorCode;
use crate::model::{AgentId, Resource, Shortage};

use crate::api::ids::JobId;
use crate::state::session::{Session, Subscription};
use crate::{Engine, Event, limits};

/// What is known of shortages.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// The last one, and when.
    last: Option<(u64, Shortage)>,
}

impl Room {
    fn recent(&self, now: u64) -> Option<&Shortage> {
        let (at, shortage) = self.last.as_ref()?;
        (now < at + limits::SHORTAGE_SHOWN_MS).then_some(shortage)
    }
}

/// Whether a session holds a connection to the notification service, or is having one made.
fn holds(session: &Session) -> bool {
    let connecting = session.connecting.as_ref();
    session.subscription.epoch().is_some() || connecting.is_some_and(|pending| pending.tried > 0)
}

impl Engine {
    // ---- room for notification sessions -------------------------------------------------------

    /// Whether one more notification session fits.
    pub(crate) fn has_seat(&self) -> bool {
        let seats = self.cfg.seats;
        self.sessions.number() < seats || self.sessions.iter().filter(|s| holds(s)).count() < seats
    }

    /// Whether a Connect of this agent finds room. Those that were served and wait for their
    /// session come before those that are new.
    pub(crate) fn admits(&self, agent: &AgentId) -> bool {
        let seats = self.cfg.seats;
        if self.sessions.number() < seats {
            return true;
        }
        match self.sessions.get(agent).map(|session| session.subscription) {
            Some(Subscription::Up { .. } | Subscription::Starting { .. }) => true,
            Some(Subscription::Waiting { .. }) => self.has_seat(),
            Some(Subscription::None) | None => {
                let me = &self.cfg.instance;
                let waits = |session: &Session| {
                    session.live()
                        && session.owned_by(me)
                        && matches!(session.subscription, Subscription::Waiting { .. })
                };
                let wanted = self.sessions.iter().filter(|s| holds(s) || waits(s));
                wanted.count() < seats
            }
        }
    }

    /// All seats are taken.
    pub(crate) fn no_seat(&self) -> Shortage {
        let seats = self.cfg.seats;
        Shortage {
            of: Resource::Descriptors,
            reason: format!("the limit of open files leaves room for {seats} agents"),
        }
    }

    // ---- what to do about it ------------------------------------------------------------------

    /// Remembers and tells it.
    pub(crate) fn short(&mut self, shortage: Shortage) {
        self.out.tell(Event::Shortage {
            of: shortage.of.as_str(),
            reason: shortage.reason.clone(),
            began: self.room.recent(self.now.mono).is_none(),
        });
        self.room.last = Some((self.now.mono, shortage));
    }

    /// A command that could not be started for want of room: it may come again.
    pub(crate) fn refuse_for_room(&mut self, id: JobId, shortage: Shortage) {
        if self.job_command(id).is_none() {
            return;
        }
        let words = format!("{shortage}; try again later");
        self.short(shortage);
        self.refuse_till_later(id, &words);
    }

    /// A request of a running command could not be sent. Where others of the same command were,
    /// it cannot be refused as if nothing had happened.
    pub(crate) fn request_without_room(&mut self, id: JobId, node: usize, shortage: Shortage) {
        let Some(work) = self.jobs.work_mut(id) else {
            return;
        };
        let begun = work.begun();
        let (agent, request_id) = work.agent_and_request();
        self.unexpect(&agent, &request_id);
        if begun {
            let words = shortage.to_string();
            self.short(shortage);
            self.fail(id, node, None, ErrorCode::PleaseRetry.as_str(), &words);
            return;
        }
        self.take_back_intent(id);
        self.refuse_for_room(id, shortage);
    }

    /// The Connect that waits for its session is refused.
    pub(crate) fn connect_without_room(&mut self, agent: &AgentId, shortage: Shortage) {
        let session = self.sessions.get_mut(agent);
        if let Some(pending) = session.and_then(|session| session.connecting.take()) {
            self.forget_unproven(agent);
            self.refuse_for_room(pending.job, shortage);
        }
    }

    /// An agent that is served, or taken over, has no session for now.
    pub(crate) fn wait_for_room(&mut self, agent: &AgentId, shortage: Shortage) {
        self.short(shortage);
        let wait = limits::NO_ROOM_RETRY_MS;
        let wait = wait + self.jitter(wait / 2);
        self.wait_to_subscribe(agent, wait, 0);
        // What could be had of the takeover is had.
        self.takeover_done(agent);
    }

    /// What an operator has to know of it.
    pub(crate) fn room_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let seats = self.cfg.seats;
        if self.sessions.number() > seats {
            let known = self.sessions.count(&self.cfg.instance).total;
            if known > seats as u64 {
                warnings.push(format!(
                    "the limit of open files leaves room for the notification sessions of {seats} \
                     agents, {known} are known: raise it (LimitNOFILE, ulimit -Hn) and restart"
                ));
            }
        }
        if let Some(shortage) = self.room.recent(self.now.mono) {
            warnings.push(format!(
                "{shortage}; who is served goes on, new agents are told to come again"
            ));
        }
        warnings
    }
}
