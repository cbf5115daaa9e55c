//! The `User` object.

use crate::model::{Mobile, Team, User};

use super::last_segment;
use super::xml::{Xml, XmlError};

/// Most teams that are read of a supervisor.
const MAX_TEAMS: usize = 1000;

/// Reads the answer of `GET User/{id}`.
///
/// # Errors
/// Where `body` is no acceptable XML with the root `User`.
pub fn document(body: &[u8]) -> Result<User, XmlError> {
    element(&mut Xml::open_as(body, "user")?)
}

/// Reads the rest of a `User` element, in answers and notifications.
///
/// # Errors
/// Where the XML is not acceptable.
pub fn element(xml: &mut Xml<'_>) -> Result<User, XmlError> {
    let mut user = User::default();
    let mut uri = String::new();
    let mut nested_reason = String::new();
    xml.children(|xml, tag| {
        let field = match tag.name() {
            "loginid" => &mut user.login_id,
            "loginname" => &mut user.login_name,
            "firstname" => &mut user.first_name,
            "lastname" => &mut user.last_name,
            "extension" => &mut user.extension,
            "state" => &mut user.state,
            "pendingstate" => &mut user.pending_state,
            "reasoncodeid" => &mut user.reason_code_id,
            "statechangetime" => &mut user.state_change_time,
            "teamid" => &mut user.team.id,
            "teamname" => &mut user.team.name,
            "mediatype" => &mut user.media_type,
            "uri" => &mut uri,
            "reasoncode" => return reason(xml, &mut nested_reason, &mut user),
            "roles" => return roles(xml, &mut user.supervisor),
            "settings" => return settings(xml, &mut user.wrap_up_on_incoming),
            "teams" => return teams(xml, &mut user.teams),
            "mobileagent" => return mobile(xml, &mut user.mobile),
            _ => return xml.skip(),
        };
        xml.text_into(field)
    })?;
    user.state.make_ascii_uppercase();
    user.pending_state.make_ascii_uppercase();
    if user.reason_code_id.is_empty() {
        user.reason_code_id = nested_reason;
    }
    if user.login_id.is_empty() {
        user.login_id = last_segment(&uri).to_owned();
    }
    Ok(user)
}

fn reason(xml: &mut Xml<'_>, id: &mut String, user: &mut User) -> Result<(), XmlError> {
    let mut uri = String::new();
    xml.children(|xml, tag| match tag.name() {
        "id" => xml.text_into(id),
        "code" => xml.text_into(&mut user.reason_code),
        "label" => xml.text_into(&mut user.reason_label),
        "uri" => xml.text_into(&mut uri),
        _ => xml.skip(),
    })?;
    if id.is_empty() {
        last_segment(&uri).clone_into(id);
    }
    Ok(())
}

fn roles(xml: &mut Xml<'_>, supervisor: &mut bool) -> Result<(), XmlError> {
    xml.children(|xml, tag| {
        if tag.name() != "role" {
            return xml.skip();
        }
        *supervisor |= xml.text()?.eq_ignore_ascii_case("supervisor");
        Ok(())
    })
}

fn settings(xml: &mut Xml<'_>, wrap_up: &mut String) -> Result<(), XmlError> {
    xml.children(|xml, tag| match tag.name() {
        "wrapuponincoming" => xml.text_into(wrap_up),
        _ => xml.skip(),
    })
}

fn mobile(xml: &mut Xml<'_>, mobile: &mut Option<Mobile>) -> Result<(), XmlError> {
    let mut read = Mobile::default();
    xml.children(|xml, tag| match tag.name() {
        "mode" => xml.text_into(&mut read.mode),
        "dialnumber" => xml.text_into(&mut read.dial_number),
        _ => xml.skip(),
    })?;
    *mobile = Some(read).filter(|read| !read.mode.is_empty());
    Ok(())
}

fn teams(xml: &mut Xml<'_>, teams: &mut Vec<Team>) -> Result<(), XmlError> {
    xml.children(|xml, tag| {
        if tag.name() != "team" || teams.len() >= MAX_TEAMS {
            return xml.skip();
        }
        let mut team = Team::default();
        let mut uri = String::new();
        xml.children(|xml, tag| match tag.name() {
            "id" => xml.text_into(&mut team.id),
            "name" => xml.text_into(&mut team.name),
            "uri" => xml.text_into(&mut uri),
            _ => xml.skip(),
        })?;
        if team.id.is_empty() {
            team.id = last_segment(&uri).to_owned();
        }
        teams.push(team);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<User>
  <dialogs>/finesse/api/User/1205/Dialogs</dialogs>
  <extension>5205</extension>
  <firstName>Ada &amp; Co</firstName>
  <lastName>Lund</lastName>
  <loginId>1205</loginId>
  <loginName>alund</loginName>
  <mediaType>1</mediaType>
  <mobileAgent><mode>CALL_BY_CALL</mode><state>IGNORED</state></mobileAgent>
  <pendingState/>
  <reasonCodeId>14</reasonCodeId>
  <ReasonCode><category>NOT_READY</category><code>71</code><id>14</id><label>Lunch</label></ReasonCode>
  <roles><role>Agent</role><role>Supervisor</role></roles>
  <settings><wrapUpOnIncoming>OPTIONAL</wrapUpOnIncoming></settings>
  <state>not_ready</state>
  <stateChangeTime>2033-01-02T03:04:05.678Z</stateChangeTime>
  <teamId>3</teamId><teamName>Billing</teamName>
  <teams><Team><id>3</id><name>Billing</name></Team><Team><uri>/finesse/api/Team/4/</uri><name>Sales</name></Team></teams>
  <uri>/finesse/api/User/1205</uri>
</User>";

    #[test]
    fn a_full_user_is_read() {
        let user = document(FULL.as_bytes()).unwrap();
        assert_eq!(user.login_id, "1205");
        assert_eq!(user.full_name(), "Ada & Co Lund");
        assert_eq!(user.extension, "5205");
        assert_eq!(user.state, "NOT_READY");
        assert_eq!(user.pending_state, "");
        assert_eq!(user.reason_code_id, "14");
        assert_eq!(user.reason_label, "Lunch");
        assert!(user.supervisor);
        assert_eq!(user.wrap_up_on_incoming, "OPTIONAL");
        assert_eq!(user.team.name, "Billing");
        assert_eq!(user.teams.len(), 2);
        assert_eq!(user.teams[1].id, "4");
        assert_eq!(user.media_type, "1");
        assert_eq!(user.mobile.unwrap().mode, "CALL_BY_CALL");
    }

    #[test]
    fn a_summary_takes_ids_from_where_they_are() {
        let user = document(
            b"<user><state>READY</state><reasonCode><uri>ReasonCode/9</uri></reasonCode>\
              <uri>/finesse/api/User/1300/</uri></user>",
        )
        .unwrap();
        assert_eq!(user.login_id, "1300");
        assert_eq!(user.reason_code_id, "9");
        assert!(!user.supervisor);
    }

    #[test]
    fn another_object_is_no_user() {
        assert_eq!(document(b"<Dialogs/>"), Err(XmlError::Root("user")));
    }
}
