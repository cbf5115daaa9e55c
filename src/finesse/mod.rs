//! The platform's XML objects, one file a resource.
//!
//! Reading is tolerant where the platform varies (spelling, order, unknown elements, missing for
//! empty) and strict where safety asks for it (no DOCTYPE, no entities but the predefined ones,
//! bounded size and depth). Writing always escapes.

pub mod api_error;
pub mod dialog;
pub mod lists;
pub mod reasons;
pub mod request;
pub mod system_info;
pub mod update;
pub mod user;
pub mod xml;

use crate::model::{Action, Answer};

use xml::XmlError;

/// Reads the body of a successful answer to `action`.
///
/// # Errors
/// Where the action expects an object and `body` is not that object in acceptable XML.
pub fn answer(action: &Action, body: &[u8]) -> Result<Answer, XmlError> {
    match action {
        Action::ReadUser => Ok(Answer::User(Box::new(user::document(body)?))),
        Action::ReadDialogs => Ok(Answer::Dialogs(dialog::list_document(body)?)),
        Action::ReadDialog { .. } => Ok(Answer::Dialog(Box::new(dialog::document(body)?))),
        Action::ReadReasons(category) | Action::ReadTeamReasons { category, .. } => {
            Ok(Answer::Reasons(*category, reasons::document(body)?))
        }
        Action::ReadMember { .. } => Ok(Answer::Member(Box::new(user::document(body)?))),
        Action::ReadUsers => Ok(Answer::Users(lists::users(body)?)),
        Action::ReadTeam { .. } => {
            let (team, users) = lists::team(body)?;
            Ok(Answer::TeamUsers(team, users))
        }
        Action::ReadQueues => Ok(Answer::Queues(lists::queues(body)?)),
        Action::ReadPhoneBooks { .. } => Ok(Answer::PhoneBooks(lists::phone_books(body)?)),
        Action::ReadContacts { .. } => Ok(Answer::Contacts(lists::contacts(body)?)),
        Action::SignIn { .. }
        | Action::SetState { .. }
        | Action::SetMemberState { .. }
        | Action::MakeCall { .. }
        | Action::OnDialog { .. }
        | Action::Dial { .. }
        | Action::CallData { .. }
        | Action::Campaign { .. }
        | Action::Supervise { .. }
        | Action::Http(_) => Ok(Answer::Empty),
    }
}

/// Last non-empty segment of a `uri`; samples show them with and without leading and trailing
/// slashes.
fn last_segment(uri: &str) -> &str {
    uri.rsplit('/')
        .find(|segment| !segment.is_empty())
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::last_segment;

    #[test]
    fn the_last_segment_ignores_trailing_slashes() {
        assert_eq!(last_segment("/finesse/api/ReasonCode/14"), "14");
        assert_eq!(last_segment("finesse/api/ReasonCode/14/"), "14");
        assert_eq!(last_segment(""), "");
    }
}
