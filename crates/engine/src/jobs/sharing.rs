//! Replies to what creates, moves or ends a session leave once the session is known: on disk here
//! and at every member that is there. Whoever was told that an agent is connected or signed in is
//! served on, whatever dies next.
//!
//! ```text
//!   Connect, sign-in, sign-out done ─▶ Sharing ─┬─▶ disk here ───┬─▶ reply
//!                                               └─▶ members ─────┘   (after 1 s without them)
//! ```

use std::collections::BTreeSet;

use crate::catalogue::Step;
use crate::model::{AgentId, Cause, InstanceId};
use crate::wire::command::{Addressed, ClientCommand};
use crate::wire::event::ClientEvent;
use crate::wire::reply::Outcome;

use crate::api::ids::JobId;
use crate::jobs::{Answered, Evidence, State, Transition};
use crate::peer::{PeerMessage, SessionRecord};
use crate::{Engine, limits};

/// A command whose session is on its way to the disk and the members.
#[derive(Debug)]
pub(crate) struct Sharing {
    answered: Answered,
    agent: AgentId,
    since: u64,
    sent_at: u64,
    /// Members that know the session.
    told: BTreeSet<InstanceId>,
}

/// Whether a command that is carried out creates, moves or ends its agent's session.
fn moves_session(command: &ClientCommand) -> bool {
    match command.spec.step {
        Step::Connect | Step::SignIn(_) | Step::Sequence(_) => true,
        _ => matches!(command.spec.name, "Logout" | "logoutwithreason"),
    }
}

impl Engine {
    /// The agent whose session the others are to know before this answer leaves.
    pub(crate) fn to_share(&self, id: JobId, answered: &Answered) -> Option<AgentId> {
        let job = self.jobs.get(id)?;
        let command = job.command.as_ref()?;
        let done = matches!(answered.outcome, Outcome::Ok | Outcome::Accepted);
        let shared = matches!(job.state(), State::Sharing(_) | State::Recording(_));
        match &command.addressee {
            Addressed::Agent(agent) if done && !shared && moves_session(command) => {
                self.sessions.get(agent).map(|_| agent.clone())
            }
            _ => None,
        }
    }

    pub(crate) fn share(&mut self, id: JobId, agent: AgentId, answered: Answered) {
        let now = self.now.mono;
        let own = Sharing {
            answered,
            agent: agent.clone(),
            since: now,
            sent_at: now,
            told: BTreeSet::new(),
        };
        if self
            .step(id, Evidence::SessionMoved(Box::new(own)))
            .is_none()
        {
            return;
        }
        self.tell_session(id, &agent);
        self.keep();
        self.look_at_share(id);
    }

    fn tell_session(&mut self, id: JobId, agent: &AgentId) {
        let Some(record) = self
            .sessions
            .get(agent)
            .map(|s| SessionRecord::clone(&s.record))
        else {
            return;
        };
        if self.sharing_members().next().is_some() {
            let message = PeerMessage::Share {
                number: id.0,
                sessions: vec![record],
            };
            self.say(None, message);
        }
    }

    /// Members that are there and say what they know.
    fn sharing_members(&self) -> impl Iterator<Item = &InstanceId> {
        let present = self.members.present();
        let shares = present.filter(|(_, peer)| peer.heartbeat.shares);
        shares.map(|(id, _)| id)
    }

    /// Tells the outcome as soon as everybody who is to know the session knows it.
    pub(crate) fn look_at_share(&mut self, id: JobId) {
        let Some(State::Sharing(own)) = self.jobs.state(id) else {
            return;
        };
        let now = self.now.mono;
        let kept = self.is_kept(&own.agent);
        let known = self.sharing_members().all(|id| own.told.contains(id));
        if (!kept || !known) && now < own.since + limits::OUTCOME_WAIT_MS {
            if !known && now >= own.sent_at + limits::JOURNAL_RESEND_MS {
                let agent = own.agent.clone();
                self.tell_session(id, &agent);
                if let Some(own) = self.jobs.sharing_mut(id) {
                    own.sent_at = now;
                }
            }
            self.look_again_at_waiting();
            return;
        }
        if let Some(Transition::Shared(own)) = self.step(id, Evidence::Known) {
            self.shared(id, &own.agent, own.answered);
        }
    }

    fn shared(&mut self, id: JobId, agent: &AgentId, answered: Answered) {
        let connects = self
            .job_command(id)
            .is_some_and(|(command, _)| matches!(command.spec.step, Step::Connect));
        if connects && let Some(record) = self.sessions.get(agent).map(|s| &s.record) {
            let (to, epoch) = (record.destination.clone(), record.version.epoch);
            let cause = self.cause(id);
            self.tell(&to, ClientEvent::ConnectStatus, cause, epoch, Some(id));
        }
        self.finish_known(id, answered);
    }

    // ---- members ------------------------------------------------------------------------------

    /// A peer waits until these are known here.
    pub(crate) fn on_share(
        &mut self,
        from: &InstanceId,
        number: u64,
        sessions: Vec<SessionRecord>,
    ) {
        for session in &sessions {
            self.sessions.learn_destination(&session.destination, false);
        }
        self.learn(sessions);
        self.say(Some(from), PeerMessage::Shared { number });
    }

    pub(crate) fn on_shared(&mut self, from: &InstanceId, number: u64) {
        let id = JobId(number);
        if let Some(own) = self.jobs.sharing_mut(id) {
            own.told.insert(from.clone());
            self.look_at_share(id);
        }
    }

    /// What was carried out here changes an agent's session. Only its owner writes it: where that
    /// is another instance by now, that one is told.
    pub(crate) fn change_session(
        &mut self,
        agent: &AgentId,
        change: impl FnOnce(&mut SessionRecord),
    ) {
        if self.placement().owns(agent) {
            self.sessions.change(agent, change);
            return;
        }
        self.sessions.amend(agent, change);
        let Some(session) = self.sessions.get(agent) else {
            return;
        };
        let record = SessionRecord::clone(&session.record);
        let owner = record.version.owner.clone();
        self.say(Some(&owner), PeerMessage::SessionChanged { record });
    }

    /// The former owner of an agent has finished something that it had begun.
    pub(crate) fn on_session_changed(&mut self, record: SessionRecord) {
        let agent = record.agent.clone();
        let me = self.cfg.instance.clone();
        let session = self.sessions.get_mut(&agent);
        let Some(session) = session.filter(|s| s.live() && s.owned_by(&me)) else {
            self.stale("session");
            return;
        };
        session.refused &= session.record.password == record.password;
        if record.signed_in {
            session.linger_until = None;
        }
        self.sessions.change(&agent, |own| {
            own.extension = record.extension;
            own.password = record.password;
            own.mobile = record.mobile;
            own.signed_in = record.signed_in;
        });
        let mut due = self.now.mono;
        if record.signed_in {
            self.sign_in_began(&agent);
            due += limits::SIGN_IN_SETTLE_MS;
        }
        for team in &record.watched {
            self.watch_team(&agent, team);
        }
        self.sync(&agent, record.signed_in, Cause::default(), due);
    }
}
