//! Supervisors: watching a team, acting on a member; and what is told once a command was taken.

use crate::catalogue::{After, Step, Subject, Who};
use crate::model::{Action, AgentId, Cause, Destination, Secret, User};
use crate::wire::command::{ClientCommand, ReplyTo};
use crate::wire::event::{ClientEvent, Note};

use crate::api::command::NotifyCommand;
use crate::api::ids::JobId;
use crate::state::session::Subscription;
use crate::{Engine, limits};

impl Engine {
    /// What follows a command's acceptance, beside the platform's own notifications.
    pub(crate) fn after_acceptance(&mut self, id: JobId, agent: &AgentId, command: &ClientCommand) {
        let args = &command.args;
        let notes = match command.spec.after {
            After::Nothing => return,
            After::WatchTeam => {
                let wanted = args
                    .get("subscribe")
                    .is_some_and(|word| word.eq_ignore_ascii_case("true"));
                if let Some(team) = args.get("teamId").filter(|_| wanted) {
                    self.watch_team(agent, team);
                }
                return;
            }
            After::Callback(text) => vec![
                Note::Callback(text.to_owned()),
                Note::StatusBar(text.to_owned()),
            ],
            After::Reclassify => {
                let value = args.get("value").unwrap_or_default().to_owned();
                vec![Note::Reclassified(value)]
            }
            After::ParticipantDropped => {
                let extension = args.get("extension").unwrap_or_default().to_owned();
                vec![Note::ParticipantDropped(extension)]
            }
        };
        for note in notes {
            let event = ClientEvent::Note {
                agent: agent.clone(),
                note,
            };
            self.tell_asker(id, agent, command, event);
        }
    }

    // ---- watching a team ----------------------------------------------------------------------

    pub(crate) fn watch_team(&mut self, agent: &AgentId, team: &str) {
        let Some(session) = self.sessions.get_mut(agent) else {
            return;
        };
        let watched = &session.record.watched;
        if !watched.iter().any(|known| known == team) {
            if watched.len() >= limits::WATCHED_TEAMS {
                return;
            }
            self.change_session(agent, |record| record.watched.push(team.to_owned()));
        }
        self.order_watch(agent, team.to_owned());
    }

    /// A new subscription knows nothing of what the former one watched.
    pub(crate) fn watch_again(&mut self, agent: &AgentId) {
        let teams = self
            .sessions
            .get(agent)
            .map(|session| session.record.watched.clone())
            .unwrap_or_default();
        for team in teams {
            self.order_watch(agent, team);
        }
    }

    fn order_watch(&mut self, agent: &AgentId, team: String) {
        let Some(session) = self.sessions.get(agent) else {
            return;
        };
        // Where it is not up, it is ordered when it is.
        let Subscription::Up { epoch, node } = session.subscription else {
            return;
        };
        if let Some(domain) = self.route.pubsub(node) {
            self.out.push(NotifyCommand::WatchTeam {
                agent: agent.clone(),
                subscription: epoch,
                pubsub_domain: domain.to_owned(),
                team,
            });
        }
    }

    /// States of a watched team's members, told to their supervisor.
    pub(crate) fn on_members(&mut self, agent: &AgentId, team: &str, members: Vec<User>) {
        let watched = self.sessions.get(agent).is_some_and(|session| {
            let teams = &session.record.watched;
            teams.iter().any(|known| known == team)
        });
        if !watched {
            self.stale("team notification");
            return;
        }
        for mut user in members {
            if user.team.id.is_empty() {
                team.clone_into(&mut user.team.id);
            }
            let event = ClientEvent::MemberState {
                agent: agent.clone(),
                user: Box::new(user),
            };
            self.tell_agent(agent, event, Cause::default());
        }
    }

    // ---- acting on a member -------------------------------------------------------------------

    /// A supervisor's command for an agent without a session here is asked with the supervisor's
    /// own credentials, and without a reason, which the platform refuses there. Who sends a
    /// command is known by its `reply_to` only: the client must be that of one supervisor.
    pub(crate) fn as_supervisor(
        &self,
        member: &AgentId,
        command: &ClientCommand,
    ) -> Option<(AgentId, Secret, Action)> {
        if command.spec.who != Who::Both {
            return None;
        }
        let Some(ReplyTo::Queue(name)) = &command.reply_to else {
            return None;
        };
        let client = Destination::new(name).ok()?;
        let state = match command.spec.step {
            Step::Request(plan) => match plan(&Subject::default(), &command.args).ok()? {
                Action::SetState { state, .. } => state,
                _ => return None,
            },
            _ => return None,
        };
        let mut supervisors = self.sessions.iter().filter(|session| {
            let user = session.record.user.as_deref();
            session.live()
                && session.record.signed_in
                && session.record.destination == client
                && session.owned_by(&self.cfg.instance)
                && user.is_some_and(|user| user.supervisor)
        });
        let only = supervisors.next()?;
        if supervisors.next().is_some() {
            return None;
        }
        let action = Action::SetMemberState {
            member: member.clone(),
            state,
        };
        Some((
            only.record.agent.clone(),
            only.record.password.clone(),
            action,
        ))
    }
}
