//! Lists and notes as JSON objects.

use std::fmt::Display;

use chrono::TimeZone;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::super::list::{dial_number, nothing_found};
use super::super::{List, ListEvent, Note};
use super::{PartyOut, State, bytes, dialog_state, local, parties, shown_state, state};
use crate::model::{Contact, PhoneBook, Queue, User};

/// `State` of a member: `agentId` is the supervisor.
pub(super) fn member_state<Z: TimeZone>(supervisor: &str, user: &User, zone: &Z) -> Vec<u8>
where
    Z::Offset: Display,
{
    bytes(&State {
        team_agent_id: Some(&user.login_id),
        ..state(supervisor, user, zone)
    })
}

pub(super) fn note(agent: &str, note: &Note) -> Vec<u8> {
    let titled = |kind, title, data| {
        bytes(&Titled {
            r#type: kind,
            title,
            data,
            agent_id: agent,
        })
    };
    match note {
        Note::Callback(text) => titled("callback", "CallBack", text.as_str()),
        Note::Reclassified(value) => titled("CALLBACK", "RECLASSIFY", value.as_str()),
        Note::StatusBar(message) => bytes(&StatusBar {
            r#type: "Control",
            location: "statusbar",
            message,
            agent_id: agent,
        }),
        Note::ParticipantDropped(extension) => bytes(&ParticipantDropped {
            r#type: "Control",
            participant_dropped: extension,
            agent_id: agent,
        }),
    }
}

pub(super) fn render<Z: TimeZone>(event: &ListEvent, zone: &Z) -> Vec<u8>
where
    Z::Offset: Display,
{
    let agent = event.agent.as_str();
    if let Some((title, data)) = nothing_found(&event.list) {
        return bytes(&Titled {
            r#type: "no_data_found",
            title,
            data,
            agent_id: agent,
        });
    }
    match &event.list {
        List::Agents(users) => bytes(&Users {
            r#type: "Agents",
            users: users.iter().map(Agent::from).collect::<Vec<_>>(),
            agent_id: agent,
        }),
        List::TeamUsers(users) => bytes(&Users {
            r#type: "TeamAgents",
            users: users
                .iter()
                .map(|user| member(user, zone))
                .collect::<Vec<_>>(),
            agent_id: agent,
        }),
        List::TeamMember(user) => member_state(agent, user, zone),
        // The reference has this one inside an array.
        List::Queues(queues) => bytes(&[QueueStats {
            r#type: "QueueStats",
            queue: queues.iter().map(QueueOut::from).collect(),
            agent_id: agent,
        }]),
        List::PhoneBooks(books) => phone_books("PhoneBook", books, agent),
        List::TeamPhoneBooks(books) => phone_books("TeamPhoneBook", books, agent),
        List::Contacts(contacts) => bytes(&Contacts {
            r#type: "phoneBookContacts",
            contact: contacts.iter().map(ContactOut::from).collect(),
            agent_id: agent,
        }),
        List::SkillGroups(names) => bytes(&SkillGroups {
            r#type: "skillGroup",
            skill_groups: Skills(names),
            agent_id: agent,
        }),
        List::Supervisors(users) => bytes(&Supervisors {
            r#type: "supervisors",
            supervisor_list: users.iter().map(SupervisorOut::from).collect(),
            agent_id: agent,
        }),
        List::AgentExtension(user) => bytes(&AgentExtension {
            r#type: "agentExtension",
            port: number(&user.extension),
            dial_number: number(dial_number(user)),
        }),
        List::Participants(dialog) => bytes(&Participants {
            r#type: "ConferenceParticipants",
            dialog_id: &dialog.id,
            participants: parties(&dialog.participants, zone),
            agent_id: agent,
        }),
        List::DialogControls { dialog, extension } => {
            dialog_state(agent, &dialog.id, shown_state(dialog, extension))
        }
    }
}

/// A number where it is one that keeps its digits, else the text.
fn number(text: &str) -> serde_json::Value {
    match text.parse::<u64>() {
        Ok(number) if number.to_string() == text => number.into(),
        _ => text.into(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Titled<'a> {
    r#type: &'static str,
    title: &'a str,
    data: &'a str,
    agent_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusBar<'a> {
    r#type: &'static str,
    location: &'static str,
    message: &'a str,
    agent_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ParticipantDropped<'a> {
    r#type: &'static str,
    participant_dropped: &'a str,
    agent_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Users<'a, T> {
    r#type: &'static str,
    users: Vec<T>,
    agent_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Agent<'a> {
    first_name: &'a str,
    last_name: &'a str,
    extension: &'a str,
}

impl<'a> From<&'a User> for Agent<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            first_name: &user.first_name,
            last_name: &user.last_name,
            extension: &user.extension,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Member<'a> {
    first_name: &'a str,
    last_name: &'a str,
    extension: &'a str,
    login_id: &'a str,
    state: &'a str,
    pending_state: &'a str,
    media_type: &'a str,
    state_change_time: String,
    label: &'a str,
}

fn member<'a, Z: TimeZone>(user: &'a User, zone: &Z) -> Member<'a>
where
    Z::Offset: Display,
{
    Member {
        first_name: &user.first_name,
        last_name: &user.last_name,
        extension: &user.extension,
        login_id: &user.login_id,
        state: &user.state,
        pending_state: &user.pending_state,
        media_type: &user.media_type,
        state_change_time: local(&user.state_change_time, zone),
        label: &user.reason_label,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueStats<'a> {
    r#type: &'static str,
    queue: Vec<QueueOut<'a>>,
    agent_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueOut<'a> {
    queue_name: &'a str,
    agents_not_ready: &'a str,
    agents_ready: &'a str,
    agents_talking_inbound: &'a str,
    agents_talking_internal: &'a str,
    agents_talking_outbound: &'a str,
    agents_wrap_up_not_ready: &'a str,
    agents_wrap_up_ready: &'a str,
    calls_in_queue: &'a str,
    /// In UTC, as the platform has it: the reference's sample does not turn it.
    start_time_of_longest_call_in_queue: &'a str,
}

impl<'a> From<&'a Queue> for QueueOut<'a> {
    fn from(queue: &'a Queue) -> Self {
        Self {
            queue_name: &queue.name,
            agents_not_ready: &queue.agents_not_ready,
            agents_ready: &queue.agents_ready,
            agents_talking_inbound: &queue.agents_talking_inbound,
            agents_talking_internal: &queue.agents_talking_internal,
            agents_talking_outbound: &queue.agents_talking_outbound,
            agents_wrap_up_not_ready: &queue.agents_wrap_up_not_ready,
            agents_wrap_up_ready: &queue.agents_wrap_up_ready,
            calls_in_queue: &queue.calls_in_queue,
            start_time_of_longest_call_in_queue: &queue.start_time_of_longest_call,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhoneBooks<'a> {
    r#type: &'static str,
    phone_book: Vec<BookOut<'a>>,
    agent_id: &'a str,
}

#[derive(Serialize)]
struct BookOut<'a> {
    name: &'a str,
    r#type: &'a str,
    id: &'a str,
}

fn phone_books(kind: &'static str, books: &[PhoneBook], agent: &str) -> Vec<u8> {
    bytes(&PhoneBooks {
        r#type: kind,
        phone_book: books
            .iter()
            .map(|book| BookOut {
                name: &book.name,
                r#type: &book.kind,
                id: &book.id,
            })
            .collect(),
        agent_id: agent,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Contacts<'a> {
    r#type: &'static str,
    contact: Vec<ContactOut<'a>>,
    agent_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContactOut<'a> {
    description: &'a str,
    first_name: &'a str,
    last_name: &'a str,
    phone_number: &'a str,
    id: &'a str,
}

impl<'a> From<&'a Contact> for ContactOut<'a> {
    fn from(contact: &'a Contact) -> Self {
        Self {
            description: &contact.description,
            first_name: &contact.first_name,
            last_name: &contact.last_name,
            phone_number: &contact.phone_number,
            id: &contact.id,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SkillGroups<'a> {
    r#type: &'static str,
    skill_groups: Skills<'a>,
    agent_id: &'a str,
}

/// `{"skill_1": name, …}`
struct Skills<'a>(&'a [String]);

impl Serialize for Skills<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (index, name) in self.0.iter().enumerate() {
            map.serialize_entry(&format!("skill_{}", index + 1), name)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Supervisors<'a> {
    r#type: &'static str,
    supervisor_list: Vec<SupervisorOut<'a>>,
    agent_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SupervisorOut<'a> {
    supervisor_name: String,
    supervisor_id: &'a str,
    supervisor_extension: &'a str,
    supervisor_state: &'a str,
}

impl<'a> From<&'a User> for SupervisorOut<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            supervisor_name: user.full_name(),
            supervisor_id: &user.login_id,
            supervisor_extension: &user.extension,
            supervisor_state: &user.state,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentExtension {
    r#type: &'static str,
    port: serde_json::Value,
    dial_number: serde_json::Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Participants<'a> {
    r#type: &'static str,
    dialog_id: &'a str,
    participants: Vec<PartyOut<'a>>,
    agent_id: &'a str,
}
