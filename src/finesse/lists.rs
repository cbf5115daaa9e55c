//! Lists beside reasons and dialogs: users, a team, queues, phone books, contacts.

use crate::model::{Contact, PhoneBook, Queue, Team, User};

use super::xml::{Tag, Xml, XmlError};
use super::{last_segment, user};

/// Most users read of `Users` or a team.
const MAX_USERS: usize = 20_000;
/// Most queues, phone books read.
const MAX_QUEUES: usize = 2_000;
/// Most contacts read: the platform's own bound of one book.
const MAX_CONTACTS: usize = 6_000;

/// Reads the answer of `GET Users`.
///
/// # Errors
/// Where `body` is no acceptable XML with the root `Users`.
pub fn users(body: &[u8]) -> Result<Vec<User>, XmlError> {
    members(&mut Xml::open_list(body, "users")?)
}

/// Reads the answer of `GET Team/{id}`.
///
/// # Errors
/// Where `body` is no acceptable XML with the root `Team`.
pub fn team(body: &[u8]) -> Result<(Team, Vec<User>), XmlError> {
    let mut xml = Xml::open_list(body, "team")?;
    let (mut team, mut uri, mut all) = (Team::default(), String::new(), Vec::new());
    xml.children(|xml, tag| match tag.name() {
        "id" => xml.text_into(&mut team.id),
        "name" => xml.text_into(&mut team.name),
        "uri" => xml.text_into(&mut uri),
        "users" => {
            all = members(xml)?;
            Ok(())
        }
        _ => xml.skip(),
    })?;
    if team.id.is_empty() {
        last_segment(&uri).clone_into(&mut team.id);
    }
    Ok((team, all))
}

fn members(xml: &mut Xml<'_>) -> Result<Vec<User>, XmlError> {
    items(xml, "user", MAX_USERS, |xml, _| user::element(xml))
}

/// Reads the answer of `GET User/{id}/Queues`.
///
/// # Errors
/// Where `body` is no acceptable XML with the root `Queues`.
pub fn queues(body: &[u8]) -> Result<Vec<Queue>, XmlError> {
    let mut xml = Xml::open_list(body, "queues")?;
    items(&mut xml, "queue", MAX_QUEUES, |xml, _| {
        let mut queue = Queue::default();
        xml.children(|xml, tag| match tag.name() {
            "name" => xml.text_into(&mut queue.name),
            "statistics" => statistics(xml, &mut queue),
            _ => xml.skip(),
        })?;
        Ok(queue)
    })
}

fn statistics(xml: &mut Xml<'_>, queue: &mut Queue) -> Result<(), XmlError> {
    xml.children(|xml, tag| {
        let field = match tag.name() {
            "agentsnotready" => &mut queue.agents_not_ready,
            "agentsready" => &mut queue.agents_ready,
            "agentstalkinginbound" => &mut queue.agents_talking_inbound,
            "agentstalkinginternal" => &mut queue.agents_talking_internal,
            "agentstalkingoutbound" => &mut queue.agents_talking_outbound,
            "agentswrapupnotready" => &mut queue.agents_wrap_up_not_ready,
            "agentswrapupready" => &mut queue.agents_wrap_up_ready,
            "callsinqueue" => &mut queue.calls_in_queue,
            "starttimeoflongestcallinqueue" => &mut queue.start_time_of_longest_call,
            _ => return xml.skip(),
        };
        xml.text_into(field)
    })
}

/// Reads the answer of `GET PhoneBooks` and `GET Team/{id}/PhoneBooks`.
///
/// # Errors
/// Where `body` is no acceptable XML with the root `PhoneBooks`.
pub fn phone_books(body: &[u8]) -> Result<Vec<PhoneBook>, XmlError> {
    let mut xml = Xml::open_list(body, "phonebooks")?;
    items(&mut xml, "phonebook", MAX_QUEUES, |xml, _| {
        let (mut book, mut uri) = (PhoneBook::default(), String::new());
        xml.children(|xml, tag| match tag.name() {
            "id" => xml.text_into(&mut book.id),
            "name" => xml.text_into(&mut book.name),
            "type" => xml.text_into(&mut book.kind),
            "uri" => xml.text_into(&mut uri),
            _ => xml.skip(),
        })?;
        if book.id.is_empty() {
            last_segment(&uri).clone_into(&mut book.id);
        }
        Ok(book)
    })
}

/// Reads the answer of `GET PhoneBook/{id}/Contacts`.
///
/// # Errors
/// Where `body` is no acceptable XML with the root `Contacts`.
pub fn contacts(body: &[u8]) -> Result<Vec<Contact>, XmlError> {
    let mut xml = Xml::open_list(body, "contacts")?;
    items(&mut xml, "contact", MAX_CONTACTS, |xml, _| {
        let (mut contact, mut uri) = (Contact::default(), String::new());
        xml.children(|xml, tag| {
            let field = match tag.name() {
                "id" => &mut contact.id,
                "firstname" => &mut contact.first_name,
                "lastname" => &mut contact.last_name,
                "phonenumber" => &mut contact.phone_number,
                "description" => &mut contact.description,
                "uri" => &mut uri,
                _ => return xml.skip(),
            };
            xml.text_into(field)
        })?;
        if contact.id.is_empty() {
            last_segment(&uri).clone_into(&mut contact.id);
        }
        Ok(contact)
    })
}

/// All children of that name, at most `max`.
fn items<T>(
    xml: &mut Xml<'_>,
    name: &str,
    max: usize,
    mut read: impl FnMut(&mut Xml<'_>, &Tag) -> Result<T, XmlError>,
) -> Result<Vec<T>, XmlError> {
    let mut list = Vec::new();
    xml.children(|xml, tag| {
        if tag.name() != name || list.len() >= max {
            return xml.skip();
        }
        list.push(read(xml, &tag)?);
        Ok(())
    })?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_team_with_its_users() {
        let body = b"<Team><uri>/finesse/api/Team/3</uri><name>Billing</name><users><User><loginId>1301</loginId>\
            <state>READY</state><reasonCode><id>9</id><label>Lunch</label></reasonCode></User><User><uri>/finesse/api/User/1302/</uri>\
            </User></users></Team>";
        let (team, users) = team(body).unwrap();
        assert_eq!((team.id.as_str(), team.name.as_str()), ("3", "Billing"));
        assert_eq!(users.len(), 2);
        assert_eq!(users[0].reason_label, "Lunch");
        assert_eq!(users[1].login_id, "1302");
    }

    #[test]
    fn queues_carry_their_statistics() {
        let body = b"<Queues><Queue><uri>/finesse/api/Queue/5</uri><name>Q</name><statistics><callsInQueue>3</callsInQueue>\
            <agentsWrapUpReady>-1</agentsWrapUpReady><startTimeOfLongestCallInQueue>2031-04-09T08:19:40Z</startTimeOfLongestCallInQueue>\
            </statistics></Queue><Queue/></Queues>";
        let queues = queues(body).unwrap();
        assert_eq!(queues.len(), 2);
        assert_eq!(queues[0].name, "Q");
        assert_eq!(queues[0].calls_in_queue, "3");
        assert_eq!(queues[0].agents_wrap_up_ready, "-1");
        assert_eq!(queues[0].start_time_of_longest_call, "2031-04-09T08:19:40Z");
    }

    #[test]
    fn books_and_contacts_take_their_id_from_the_uri() {
        let books = b"<PhoneBooks><PhoneBook><uri>/finesse/api/PhoneBook/4</uri><name>Branches</name><type>GLOBAL</type>\
            <contacts>/finesse/api/PhoneBook/4/Contacts</contacts></PhoneBook></PhoneBooks>";
        assert_eq!(
            phone_books(books).unwrap(),
            [PhoneBook {
                id: "4".into(),
                name: "Branches".into(),
                kind: "GLOBAL".into()
            }]
        );
        let list = b"<Contacts><Contact><uri>/finesse/api/PhoneBook/4/Contact/77</uri><firstName>Front</firstName>\
            <lastName>Desk</lastName><phoneNumber>4100</phoneNumber><description>Basel</description></Contact></Contacts>";
        let contact = contacts(list).unwrap().remove(0);
        assert_eq!(
            (contact.id.as_str(), contact.phone_number.as_str()),
            ("77", "4100")
        );
        assert_eq!(contact.description, "Basel");
        assert!(contacts(b"<PhoneBooks/>").is_err());
    }
}
