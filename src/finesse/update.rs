//! `Update`: the payload of a notification, routed by the pubsub node it came from.

use std::borrow::Cow;

use crate::model::{ApiError, Dialog, DialogsVerb, Update, UpdateBody, User};

use super::xml::{Xml, XmlError};
use super::{api_error, dialog, user};

/// Most members that are read of one team notification.
const MAX_MEMBERS: usize = 2000;

/// What a pubsub node is about.
enum Node<'n> {
    User,
    Dialogs,
    SystemInfo,
    Team(&'n str),
    Other,
}

impl<'n> Node<'n> {
    fn parse(node: &'n str) -> Self {
        let mut parts = node.split('/').filter(|part| !part.is_empty());
        let mut word = |expected: &str| {
            parts
                .next()
                .is_some_and(|part| part.eq_ignore_ascii_case(expected))
        };
        if !word("finesse") || !word("api") {
            return Self::Other;
        }
        let rest: Vec<&str> = parts.take(5).collect();
        match rest.as_slice() {
            [user, _] if user.eq_ignore_ascii_case("user") => Self::User,
            [user, _, dialogs]
                if user.eq_ignore_ascii_case("user") && dialogs.eq_ignore_ascii_case("dialogs") =>
            {
                Self::Dialogs
            }
            [info] if info.eq_ignore_ascii_case("systeminfo") => Self::SystemInfo,
            [team, id, users]
                if team.eq_ignore_ascii_case("team") && users.eq_ignore_ascii_case("users") =>
            {
                Self::Team(id)
            }
            _ => Self::Other,
        }
    }
}

/// Everything an envelope can hold, before the node decides what counts.
#[derive(Default)]
struct Envelope {
    event: String,
    request_id: String,
    users: Vec<User>,
    dialogs: Option<Vec<Dialog>>,
    refused: Option<ApiError>,
}

/// Reads one notification.
///
/// # Errors
/// Where `payload` is no acceptable XML with the root `Update`. Nodes that this connector does
/// not read, and `SystemInfo` (a trigger only), never fail.
pub fn parse(node: &str, item_id: Option<&str>, payload: &[u8]) -> Result<Update, XmlError> {
    parse_with(node, item_id, || Ok(Cow::Borrowed(payload)))
}

/// As [`parse`]; the payload is asked for only where the node is read.
///
/// # Errors
/// As [`parse`], and those of `payload`.
pub fn parse_with<'p>(
    node: &str,
    item_id: Option<&str>,
    payload: impl FnOnce() -> Result<Cow<'p, [u8]>, XmlError>,
) -> Result<Update, XmlError> {
    let item_id = item_id.filter(|id| !id.is_empty()).map(str::to_owned);
    let node = Node::parse(node);
    let simple = match node {
        Node::SystemInfo => Some(UpdateBody::SystemInfo),
        Node::Other => Some(UpdateBody::Other),
        _ => None,
    };
    if let Some(body) = simple {
        return Ok(Update {
            request_id: None,
            item_id,
            body,
        });
    }
    let mut envelope = envelope(&payload()?)?;
    let request_id = Some(std::mem::take(&mut envelope.request_id)).filter(|id| !id.is_empty());
    Ok(Update {
        request_id,
        item_id,
        body: body(&node, envelope),
    })
}

fn body(node: &Node<'_>, mut envelope: Envelope) -> UpdateBody {
    if let Some(error) = envelope.refused {
        return UpdateBody::Refused(error);
    }
    let deleted = envelope.event.eq_ignore_ascii_case("DELETE");
    match node {
        Node::User if deleted => UpdateBody::UserDeleted,
        Node::User => match envelope.users.pop() {
            Some(user) => UpdateBody::User(Box::new(user)),
            None => UpdateBody::Other,
        },
        Node::Dialogs => match envelope.dialogs {
            Some(dialogs) => UpdateBody::Dialogs {
                verb: if deleted {
                    DialogsVerb::Removed
                } else if envelope.event.eq_ignore_ascii_case("POST") {
                    DialogsVerb::Added
                } else {
                    DialogsVerb::Changed
                },
                dialogs,
            },
            None => UpdateBody::Other,
        },
        Node::Team(team) => UpdateBody::TeamMembers {
            team: (*team).to_owned(),
            members: envelope.users,
        },
        Node::SystemInfo => UpdateBody::SystemInfo,
        Node::Other => UpdateBody::Other,
    }
}

fn envelope(payload: &[u8]) -> Result<Envelope, XmlError> {
    let mut xml = Xml::open_as(payload, "update")?;
    let mut envelope = Envelope::default();
    xml.children(|xml, tag| match tag.name() {
        "event" => xml.text_into(&mut envelope.event),
        "requestid" => xml.text_into(&mut envelope.request_id),
        "data" => data(xml, &mut envelope),
        _ => xml.skip(),
    })?;
    Ok(envelope)
}

fn data(xml: &mut Xml<'_>, envelope: &mut Envelope) -> Result<(), XmlError> {
    xml.children(|xml, tag| {
        match tag.name() {
            "user" => envelope.users.push(user::element(xml)?),
            "dialog" => envelope
                .dialogs
                .get_or_insert_default()
                .push(dialog::element(xml)?),
            "dialogs" => envelope
                .dialogs
                .get_or_insert_default()
                .extend(dialog::list(xml)?),
            "apierrors" => envelope.refused = Some(api_error::element(xml)?),
            "team" => team(xml, &mut envelope.users)?,
            _ => xml.skip()?,
        }
        Ok(())
    })
}

fn team(xml: &mut Xml<'_>, members: &mut Vec<User>) -> Result<(), XmlError> {
    xml.children(|xml, tag| {
        if tag.name() != "users" {
            return xml.skip();
        }
        xml.children(|xml, tag| {
            if tag.name() != "user" || members.len() >= MAX_MEMBERS {
                return xml.skip();
            }
            members.push(user::element(xml)?);
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "/finesse/api/User/1205";
    const DIALOGS: &str = "/finesse/api/User/1205/Dialogs";

    fn body_of(node: &str, payload: &str) -> UpdateBody {
        parse(node, None, payload.as_bytes()).unwrap().body
    }

    #[test]
    fn a_user_update_echoes_its_request() {
        let update = parse(
            USER,
            Some("i-9"),
            b"<Update><data><user><loginId>1205</loginId><state>READY</state></user></data>\
              <event>PUT</event><requestId>q-1</requestId><source>/finesse/api/User/alund</source></Update>",
        )
        .unwrap();
        assert_eq!(update.request_id.as_deref(), Some("q-1"));
        assert_eq!(update.item_id.as_deref(), Some("i-9"));
        assert!(matches!(update.body, UpdateBody::User(user) if user.state == "READY"));
    }

    #[test]
    fn the_event_decides_what_happens_to_the_calls() {
        for (event, expected) in [
            ("POST", DialogsVerb::Added),
            ("put", DialogsVerb::Changed),
            ("delete", DialogsVerb::Removed),
        ] {
            let payload = format!(
                "<update><event>{event}</event><requestId/><data><Dialogs><dialog><id>5</id></dialog></Dialogs></data></update>"
            );
            let update = parse(DIALOGS, Some(""), payload.as_bytes()).unwrap();
            assert_eq!((update.request_id, update.item_id), (None, None));
            let UpdateBody::Dialogs { verb, dialogs } = update.body else {
                panic!("no dialogs");
            };
            assert_eq!((verb, dialogs[0].id.as_str()), (expected, "5"));
        }
    }

    #[test]
    fn a_single_dialog_is_a_change() {
        let body = body_of(
            DIALOGS,
            "<Update><data><dialog><id>5</id><state>ACTIVE</state></dialog></data><event>PUT</event></Update>",
        );
        assert!(
            matches!(body, UpdateBody::Dialogs { verb: DialogsVerb::Changed, dialogs } if dialogs.len() == 1)
        );
    }

    #[test]
    fn a_late_refusal_is_found_on_both_nodes() {
        let payload = "<Update><data><apiErrors><apiError><errorMessage>CF_RESOURCE_BUSY</errorMessage></apiError>\
            </apiErrors></data><event>PUT</event><requestId>q-2</requestId></Update>";
        for node in [USER, DIALOGS] {
            assert!(
                matches!(body_of(node, payload), UpdateBody::Refused(error) if error.message == "CF_RESOURCE_BUSY")
            );
        }
    }

    #[test]
    fn a_removed_user_has_no_data() {
        assert_eq!(
            body_of(USER, "<Update><event>DELETE</event><requestId/></Update>"),
            UpdateBody::UserDeleted
        );
    }

    #[test]
    fn both_team_forms_are_members() {
        let one = "<Update><data><user><loginId>1301</loginId><state>TALKING</state></user></data><event>PUT</event></Update>";
        let all = "<Update><data><team><id>3</id><users><User><loginId>1301</loginId></User>\
            <User><loginId>1302</loginId></User></users></team></data><event>put</event></Update>";
        for (payload, count) in [(one, 1), (all, 2)] {
            let UpdateBody::TeamMembers { team, members } =
                body_of("/finesse/api/Team/3/Users", payload)
            else {
                panic!("no team");
            };
            assert_eq!((team.as_str(), members.len()), ("3", count));
            assert_eq!(members[0].login_id, "1301");
        }
    }

    #[test]
    fn triggers_and_unknown_nodes_are_not_parsed() {
        assert_eq!(
            body_of("/finesse/api/SystemInfo", "garbage"),
            UpdateBody::SystemInfo
        );
        assert_eq!(
            body_of("/finesse/api/User/1205/Dialogs/Media", "garbage"),
            UpdateBody::Other
        );
        assert_eq!(body_of("/else/where", ""), UpdateBody::Other);
        assert!(parse(USER, None, b"garbage").is_err());
    }

    proptest::proptest! {
        #[test]
        fn hostile_payloads_never_panic(payload in "(<[a-zA-Z:]{0,9}/?>|</[a-zA-Z]{0,6}>|&[#a-z0-9]{0,4};|<!|[ -~]){0,40}") {
            let wrapped = format!("<Update><data>{payload}</data></Update>");
            for node in [USER, DIALOGS, "/finesse/api/Team/3/Users"] {
                let _ = parse(node, None, wrapped.as_bytes());
                let _ = parse(node, None, payload.as_bytes());
            }
        }
    }
}
