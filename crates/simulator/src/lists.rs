//! Queues, phone books and contacts of the simulated configuration.

use super::xml::leaf;

struct Book {
    id: u32,
    name: &'static str,
    /// Only this team's; else everybody's.
    team: Option<u32>,
    contacts: &'static [(u32, &'static str, &'static str, &'static str, &'static str)],
}

const BOOKS: [Book; 3] = [
    Book {
        id: 4,
        name: "Branches",
        team: None,
        contacts: &[
            (77, "Front", "Desk", "4100", "Basel"),
            (78, "Night", "Desk #2", "4101", "Bern"),
        ],
    },
    Book {
        id: 5,
        name: "Partners",
        team: Some(1),
        contacts: &[(79, "Ines", "Vogt", "0612223344", "Broker")],
    },
    Book {
        id: 6,
        name: "Empty",
        team: Some(2),
        contacts: &[],
    },
];

const QUEUES: [(u32, &str, u32); 2] = [(5117, "Claims_Queue", 3), (5118, "Sales_Queue", 0)];

/// `<PhoneBooks>`: everybody's books, or those of a team.
pub(super) fn phone_books(team: Option<u32>) -> String {
    let mut out = String::from("<PhoneBooks>");
    for book in BOOKS.iter().filter(|book| book.team == team) {
        out.push_str("<PhoneBook>");
        let uri = format!("/finesse/api/PhoneBook/{}", book.id);
        leaf(&mut out, "uri", &uri);
        leaf(&mut out, "name", book.name);
        let kind = if book.team.is_some() {
            "TEAM"
        } else {
            "GLOBAL"
        };
        leaf(&mut out, "type", kind);
        leaf(&mut out, "contacts", &format!("{uri}/Contacts"));
        out.push_str("</PhoneBook>");
    }
    out.push_str("</PhoneBooks>");
    out
}

/// `<Contacts>` of a book; `None` where there is no such book.
pub(super) fn contacts(book: &str) -> Option<String> {
    let book = BOOKS.iter().find(|known| known.id.to_string() == book)?;
    let mut out = String::from("<Contacts>");
    for (id, first, last, number, description) in book.contacts {
        out.push_str("<Contact>");
        let uri = format!("/finesse/api/PhoneBook/{}/Contact/{id}", book.id);
        leaf(&mut out, "uri", &uri);
        leaf(&mut out, "firstName", first);
        leaf(&mut out, "lastName", last);
        leaf(&mut out, "phoneNumber", number);
        leaf(&mut out, "description", description);
        out.push_str("</Contact>");
    }
    out.push_str("</Contacts>");
    Some(out)
}

/// `<Queues>` with their statistics.
pub(super) fn queues() -> String {
    let mut out = String::from("<Queues>");
    for (id, name, waiting) in QUEUES {
        out.push_str("<Queue>");
        leaf(&mut out, "uri", &format!("/finesse/api/Queue/{id}"));
        leaf(&mut out, "name", name);
        out.push_str("<statistics>");
        leaf(&mut out, "callsInQueue", &waiting.to_string());
        let since = if waiting > 0 {
            "2031-04-09T08:19:40Z"
        } else {
            ""
        };
        leaf(&mut out, "startTimeOfLongestCallInQueue", since);
        for (name, value) in [
            ("agentsReady", "2"),
            ("agentsNotReady", "4"),
            ("agentsTalkingInbound", "6"),
            ("agentsTalkingOutbound", "0"),
            ("agentsTalkingInternal", "1"),
            ("agentsWrapUpReady", "-1"),
            ("agentsWrapUpNotReady", "-1"),
        ] {
            leaf(&mut out, name, value);
        }
        out.push_str("</statistics></Queue>");
    }
    out.push_str("</Queues>");
    out
}
