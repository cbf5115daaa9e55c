//! Answers to list commands, and words for people.

use crate::model::{AgentId, Contact, Dialog, PhoneBook, Queue, User};

/// What a list command brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum List {
    /// Agents who are signed in.
    Agents(Vec<User>),
    /// Members of a team.
    TeamUsers(Vec<User>),
    /// One member, asked for by its supervisor.
    TeamMember(Box<User>),
    /// Queues with their statistics (UCCE).
    Queues(Vec<Queue>),
    /// Phone books that the agent may use; may be empty.
    PhoneBooks(Vec<PhoneBook>),
    /// Phone books of one team; may be empty.
    TeamPhoneBooks(Vec<PhoneBook>),
    /// Contacts of a phone book; may be empty.
    Contacts(Vec<Contact>),
    /// Names of skill groups.
    SkillGroups(Vec<String>),
    /// Users with the role Supervisor.
    Supervisors(Vec<User>),
    /// Where an agent can be called.
    AgentExtension(Box<User>),
    /// Parties of a call.
    Participants(Box<Dialog>),
    /// State of a call, with its kind.
    DialogControls {
        /// The call.
        dialog: Box<Dialog>,
        /// The asking agent's own extension.
        extension: String,
    },
}

/// The answer to a list command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEvent {
    /// Who asked.
    pub agent: AgentId,
    /// The asking agent's full name.
    pub name: String,
    /// The answer.
    pub list: List,
}

/// Words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A callback was scheduled, updated or canceled.
    Callback(String),
    /// A campaign call was classified anew.
    Reclassified(String),
    /// A text for the status bar.
    StatusBar(String),
    /// This participant was taken out of a call.
    ParticipantDropped(String),
}

/// The title of an answer that holds nothing, and words for it.
pub(super) fn nothing_found(list: &List) -> Option<(&'static str, &'static str)> {
    match list {
        List::PhoneBooks(books) if books.is_empty() => Some(("Phonebooks", "NoPhoneBookFound")),
        List::TeamPhoneBooks(books) if books.is_empty() => {
            Some(("TeamPhoneBooks", "NoTeamPhoneBookFound"))
        }
        List::Contacts(contacts) if contacts.is_empty() => {
            Some(("PhonebookContacts", "NoContactFound"))
        }
        _ => None,
    }
}

/// The phone of an agent: a mobile agent's number, else the extension.
pub(super) fn dial_number(user: &User) -> &str {
    let mobile = user.mobile.as_ref();
    mobile.map_or(user.extension.as_str(), |mobile| {
        mobile.dial_number.as_str()
    })
}
