//! Answers of reads become events to the client that asked.

use crate::model::{AgentId, Answer, PhoneBook, User};
use crate::wire::command::ClientCommand;
use crate::wire::event::{ClientEvent, List, Viewer};

use crate::Engine;
use crate::api::ids::JobId;

impl Engine {
    /// Publishes what a query brought, one event an answer; the phone books of several reads are
    /// one list.
    pub(crate) fn publish_answers(
        &mut self,
        id: JobId,
        agent: &AgentId,
        command: &ClientCommand,
        answers: Vec<Answer>,
    ) {
        let mut read: Option<Box<User>> = None;
        for answer in one_list(answers) {
            let Some(session) = self.sessions.get(agent) else {
                return;
            };
            if let Answer::User(user) = &answer {
                read = Some(user.clone());
            }
            let name = session.name();
            let extension = session.record.extension.clone().unwrap_or_default();
            let viewer = Viewer {
                agent,
                name: &name,
                extension: &extension,
            };
            if let Some(event) = event_of(&viewer, command, answer) {
                self.tell_asker(id, agent, command, event);
            }
        }
        if let Some(user) = read {
            self.keep_user(agent, *user);
        }
    }

    /// An event to the client that sent a command, that the command is settled with.
    pub(crate) fn tell_asker(
        &mut self,
        id: JobId,
        agent: &AgentId,
        command: &ClientCommand,
        event: ClientEvent,
    ) {
        let Some(session) = self.sessions.get(agent) else {
            return;
        };
        let to = self.destination_of(command);
        let to = to.unwrap_or_else(|| session.record.destination.clone());
        let epoch = session.record.version.epoch;
        let correlation = command.cause();
        self.tell(&to, event, correlation, epoch, Some(id));
    }

    pub(crate) fn tell_dialog_not_found(&mut self, id: JobId, agent: &AgentId, dialog: &str) {
        let Some(session) = self.sessions.get(agent) else {
            return;
        };
        let name = session.name();
        let viewer = Viewer {
            agent,
            name: &name,
            extension: "",
        };
        let event = ClientEvent::dialog_not_found(&viewer, dialog);
        if let Some((command, _)) = self.job_command(id) {
            self.tell_asker(id, agent, &command, event);
        }
    }
}

/// Phone books of several reads in one answer, each book once.
fn one_list(answers: Vec<Answer>) -> Vec<Answer> {
    let mut books: Option<Vec<PhoneBook>> = None;
    let mut rest = Vec::with_capacity(answers.len());
    for answer in answers {
        match answer {
            Answer::PhoneBooks(more) => {
                let all = books.get_or_insert_default();
                for book in more {
                    if !all.contains(&book) {
                        all.push(book);
                    }
                }
            }
            answer => rest.push(answer),
        }
    }
    rest.extend(books.map(Answer::PhoneBooks));
    rest
}

/// The event that a query is answered with: by what was read, and by the command's name where one
/// list serves several.
fn event_of(viewer: &Viewer<'_>, command: &ClientCommand, answer: Answer) -> Option<ClientEvent> {
    let agent = viewer.agent.clone();
    let name = command.spec.name;
    let list = match answer {
        Answer::User(user) => return Some(ClientEvent::State { agent, user }),
        Answer::Dialogs(dialogs) => {
            return Some(ClientEvent::DialogStatus {
                agent,
                extension: viewer.extension.to_owned(),
                dialogs,
            });
        }
        Answer::Reasons(category, reasons) => {
            return Some(ClientEvent::ReasonCodes {
                agent,
                name: viewer.name.to_owned(),
                category,
                reasons,
            });
        }
        Answer::Dialog(dialog) => match name {
            "getDialogParticipants" => List::Participants(dialog),
            "getdialogstatecontrols" => List::DialogControls {
                dialog,
                extension: viewer.extension.to_owned(),
            },
            _ => return Some(ClientEvent::dialog_state(viewer, &dialog)),
        },
        Answer::Users(mut users) if name == "GETSUPERVISOR" => {
            users.retain(|user| user.supervisor);
            List::Supervisors(users)
        }
        Answer::Users(mut users) => {
            users.retain(User::signed_in);
            List::Agents(users)
        }
        Answer::TeamUsers(_, users) => List::TeamUsers(users),
        Answer::Member(user) if name == "GETAGENTEXTENSION" => List::AgentExtension(user),
        Answer::Member(user) => List::TeamMember(user),
        Answer::Queues(queues) if name == "GETSKILLGROUP" => {
            // The range was checked before the list was read.
            let (first, count) = crate::catalogue::skill_range(&command.args).unwrap_or_default();
            let names = queues.into_iter().map(|queue| queue.name);
            List::SkillGroups(names.skip(first).take(count).collect())
        }
        Answer::Queues(queues) => List::Queues(queues),
        Answer::PhoneBooks(books) if name == "GetTeamPhonebooks" => List::TeamPhoneBooks(books),
        Answer::PhoneBooks(books) => List::PhoneBooks(books),
        Answer::Contacts(contacts) => List::Contacts(contacts),
        Answer::Http(_) | Answer::Empty => return None,
    };
    Some(ClientEvent::list(viewer.agent, viewer.name, list))
}
