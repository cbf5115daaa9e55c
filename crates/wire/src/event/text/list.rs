//! Lists and notes as fields joined by `#`.

use std::fmt::Display;

use chrono::TimeZone;

use super::super::list::{dial_number, nothing_found};
use super::super::{List, ListEvent, Note};
use super::{Line, local, shown_state};
use crate::model::{Contact, Dialog, PhoneBook, Queue, User};

impl Line {
    /// Adds a field of several named values, `name:value,…`.
    fn named(self, values: &[(&str, &str)]) -> Self {
        let parts: Vec<String> = values
            .iter()
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        self.value(&parts.join(","))
    }
}

pub(super) fn note(agent: &str, note: &Note) -> Line {
    let line = Line::new(agent);
    match note {
        Note::Callback(text) => line.word("CallBack").value(text),
        Note::Reclassified(value) => line.word("RECLASSIFY").value(value),
        Note::StatusBar(text) => line.word("Control").word("PrintStatusBar").value(text),
        Note::ParticipantDropped(extension) => line
            .word("Control")
            .word("PrintStatusBar")
            .value(&format!("participant {extension} dropped")),
    }
}

pub(super) fn render<Z: TimeZone>(event: &ListEvent, zone: &Z) -> Line
where
    Z::Offset: Display,
{
    let line = Line::new(event.agent.as_str());
    if let Some((title, words)) = nothing_found(&event.list) {
        return line.word(title).word(words);
    }
    match &event.list {
        List::Agents(users) => {
            let list: Vec<String> = users.iter().map(agent).collect();
            line.word("AgentsList").value(&list.join("|"))
        }
        List::TeamUsers(users) => users.iter().fold(line.word("TeamUsersList"), |line, user| {
            member(line, user, zone)
        }),
        List::TeamMember(user) => line
            .word("TeamMemberStateChanged")
            .value(&user.team.id)
            .value(&user.state),
        List::Queues(queues) => queues.iter().fold(line.word("QueueList"), queue),
        List::PhoneBooks(books) => books.iter().fold(line.word("Phonebooks"), book),
        List::TeamPhoneBooks(books) => books.iter().fold(line.word("TeamPhoneBooks"), book),
        List::Contacts(contacts) => contacts
            .iter()
            .fold(line.word("PhonebookContacts"), contact),
        List::SkillGroups(names) => names
            .iter()
            .fold(line.word("skillGroup"), |line, name| line.value(name)),
        List::Supervisors(users) => users.iter().fold(line.word("supervisors"), supervisor),
        List::AgentExtension(user) => line
            .word("agentExtension")
            .named(&[("port", &user.extension), ("dialNumber", dial_number(user))]),
        List::Participants(dialog) => {
            let list: Vec<&str> = dialog
                .participants
                .iter()
                .map(|party| party.media_address.as_str())
                .collect();
            line.word("ConferenceParticipants").value(&list.join(","))
        }
        List::DialogControls { dialog, extension } => line
            .word(kind(dialog))
            .word("DialogState")
            .value(shown_state(dialog, extension))
            .value(&dialog.id)
            .value(&event.name),
    }
}

fn kind(dialog: &Dialog) -> &'static str {
    if dialog.call_type == "CONSULT" {
        "ConsultCall"
    } else {
        "InboundCall"
    }
}

fn agent(user: &User) -> String {
    format!(
        "LoginId={},Name={},Extension={},State={},Team={}",
        user.login_id,
        user.full_name(),
        user.extension,
        user.state,
        user.team.name
    )
}

fn member<Z: TimeZone>(line: Line, user: &User, zone: &Z) -> Line
where
    Z::Offset: Display,
{
    line.named(&[
        ("FirstName", &user.first_name),
        ("LastName", &user.last_name),
        ("Extension", &user.extension),
        ("LoginID", &user.login_id),
        ("State", &user.state),
        ("PendingState", &user.pending_state),
        ("MediaType", &user.media_type),
        ("StateChangeTime", &local(&user.state_change_time, zone)),
        ("Label", &user.reason_label),
    ])
}

fn queue(line: Line, queue: &Queue) -> Line {
    line.named(&[
        ("QueueName", &queue.name),
        ("AgentsNotReady", &queue.agents_not_ready),
        ("AgentsReady", &queue.agents_ready),
        ("AgentsTalkingInbound", &queue.agents_talking_inbound),
        ("AgentsTalkingInternal", &queue.agents_talking_internal),
        ("AgentsTalkingOutbound", &queue.agents_talking_outbound),
        ("AgentsWrapUpNotReady", &queue.agents_wrap_up_not_ready),
        ("AgentsWrapUpReady", &queue.agents_wrap_up_ready),
        ("CallsInQueue", &queue.calls_in_queue),
        (
            "StartTimeOfLongestCallInQueue",
            &queue.start_time_of_longest_call,
        ),
    ])
}

fn book(line: Line, book: &PhoneBook) -> Line {
    line.named(&[("name", &book.name), ("type", &book.kind), ("id", &book.id)])
}

fn contact(line: Line, contact: &Contact) -> Line {
    line.named(&[
        ("description", &contact.description),
        ("firstName", &contact.first_name),
        ("lastName", &contact.last_name),
        ("phoneNumber", &contact.phone_number),
        ("id", &contact.id),
    ])
}

fn supervisor(line: Line, user: &User) -> Line {
    line.named(&[
        ("Name", &user.full_name()),
        ("Id", &user.login_id),
        ("Extension", &user.extension),
        ("State", &user.state),
    ])
}
