//! Method, path and body of each action.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use reqwest::Method;

use crate::model::{Action, AgentId, ReasonCategory};

/// All but the unreserved characters of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A request without its base URL.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// HTTP method.
    pub method: Method,
    /// Path and query below the base URL, with a leading slash.
    pub path: String,
    /// XML body, empty for reads.
    pub body: Vec<u8>,
}

/// An id that cannot be one path segment (empty, `.` or `..`: URL parsers resolve the dots even
/// when they are percent-encoded).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("illegal id")]
pub struct IllegalId;

/// One element of a body.
enum Node<'a> {
    Leaf(&'a str, &'a str),
    Inner(&'a str, Vec<Node<'a>>),
}

use Node::{Inner, Leaf};

/// Builds the request of `action`.
///
/// # Errors
/// Where an id of the action cannot be sent.
pub fn build(agent: &AgentId, action: &Action) -> Result<Request, IllegalId> {
    let (method, path, body) = match action {
        Action::SignIn { .. } | Action::SetState { .. } | Action::SetMemberState { .. } => {
            let (path, body) = change_user(agent, action);
            (Method::PUT, path, body)
        }
        Action::MakeCall { .. } | Action::Supervise { .. } => {
            let path = user_path(agent) + "/Dialogs";
            (Method::POST, path, new_dialog(action)?)
        }
        Action::OnDialog { dialog, .. }
        | Action::Dial { dialog, .. }
        | Action::CallData { dialog, .. }
        | Action::Campaign { dialog, .. } => (
            Method::PUT,
            object("Dialog", dialog)?,
            change_dialog(action),
        ),
        read => (Method::GET, read_path(agent, read)?, Vec::new()),
    };
    Ok(Request { method, path, body })
}

fn user_path(agent: &AgentId) -> String {
    format!("/User/{}", segment(agent.as_str()))
}

fn read_path(agent: &AgentId, action: &Action) -> Result<String, IllegalId> {
    let user = || user_path(agent);
    Ok(match action {
        Action::ReadDialogs => user() + "/Dialogs",
        Action::ReadDialog { dialog } => object("Dialog", dialog)?,
        Action::ReadReasons(category) => user() + reasons(*category),
        Action::ReadTeamReasons { team, category } => {
            object("TeamResource", team)? + reasons(*category)
        }
        Action::ReadMember { member } => user_path(member),
        Action::ReadUsers => "/Users".to_owned(),
        Action::ReadTeam { team } => object("Team", team)? + "?includeLoggedOutAgents=true",
        Action::ReadQueues => user() + "/Queues",
        Action::ReadPhoneBooks { team: None } => "/PhoneBooks".to_owned(),
        Action::ReadPhoneBooks { team: Some(team) } => object("Team", team)? + "/PhoneBooks",
        Action::ReadContacts { book } => object("PhoneBook", book)? + "/Contacts",
        // ReadUser; what changes something is built elsewhere.
        _ => user(),
    })
}

fn reasons(category: ReasonCategory) -> &'static str {
    match category {
        ReasonCategory::NotReady => "/ReasonCodes?category=NOT_READY",
        ReasonCategory::Logout => "/ReasonCodes?category=LOGOUT",
        ReasonCategory::WrapUp => "/WrapUpReasons",
    }
}

fn change_user(agent: &AgentId, action: &Action) -> (String, Vec<u8>) {
    let (whose, mut fields) = match action {
        Action::SignIn { extension, .. } => (
            agent,
            vec![Leaf("state", "LOGIN"), Leaf("extension", extension)],
        ),
        Action::SetState { state, .. } => (agent, vec![Leaf("state", state)]),
        Action::SetMemberState { member, state } => (member, vec![Leaf("state", state)]),
        _ => (agent, Vec::new()),
    };
    match action {
        Action::SignIn {
            mobile: Some(mobile),
            ..
        } => fields.push(Inner(
            "mobileAgent",
            vec![
                Leaf("mode", &mobile.mode),
                Leaf("dialNumber", &mobile.dial_number),
            ],
        )),
        Action::SetState {
            reason: Some(reason),
            ..
        } => fields.push(Leaf("reasonCodeId", reason)),
        _ => {}
    }
    (user_path(whose), xml("User", fields))
}

fn new_dialog(action: &Action) -> Result<Vec<u8>, IllegalId> {
    let call = |verb, from, to| {
        vec![
            Leaf("requestedAction", verb),
            Leaf("fromAddress", from),
            Leaf("toAddress", to),
        ]
    };
    match action {
        Action::MakeCall { from, to } => Ok(xml("Dialog", call("MAKE_CALL", from, to))),
        Action::Supervise {
            from,
            to,
            barge: None,
        } => Ok(xml("Dialog", call("SILENT_MONITOR", from, to))),
        Action::Supervise {
            from,
            to,
            barge: Some(dialog),
        } => {
            let uri = format!("/finesse/api{}", object("Dialog", dialog)?);
            let mut fields = call("BARGE_CALL", from, to);
            fields.push(Leaf("associatedDialogUri", &uri));
            Ok(xml("Dialog", fields))
        }
        _ => Ok(Vec::new()),
    }
}

fn change_dialog(action: &Action) -> Vec<u8> {
    let acts = |target, verb| {
        vec![
            Leaf("targetMediaAddress", target),
            Leaf("requestedAction", verb),
        ]
    };
    let fields = match action {
        Action::OnDialog { verb, target, .. } => acts(target, verb.requested_action()),
        Action::Dial {
            verb, target, to, ..
        } => {
            let mut fields = acts(target, verb.requested_action());
            fields.push(Leaf("toAddress", to));
            fields
        }
        Action::Campaign {
            verb,
            target,
            parameter: (name, value),
            ..
        } => {
            let mut fields = acts(target, verb.requested_action());
            let parameter = vec![Leaf("name", name), Leaf("value", value)];
            fields.push(Inner("actionParams", vec![Inner("ActionParam", parameter)]));
            fields
        }
        Action::CallData {
            target,
            variables,
            wrap_up,
            ..
        } => call_data(target.as_deref(), variables, wrap_up.as_deref()),
        _ => Vec::new(),
    };
    xml("Dialog", fields)
}

fn call_data<'a>(
    target: Option<&'a str>,
    variables: &'a [(String, String)],
    wrap_up: Option<&'a str>,
) -> Vec<Node<'a>> {
    let mut fields: Vec<Node<'_>> = target
        .map(|target| Leaf("targetMediaAddress", target))
        .into_iter()
        .collect();
    fields.push(Leaf("requestedAction", "UPDATE_CALL_DATA"));
    let mut media: Vec<Node<'_>> = wrap_up
        .map(|label| Leaf("wrapUpReason", label))
        .into_iter()
        .collect();
    if !variables.is_empty() {
        let variable = |(name, value): &'a (String, String)| {
            Inner(
                "CallVariable",
                vec![Leaf("name", name), Leaf("value", value)],
            )
        };
        media.push(Inner(
            "callvariables",
            variables.iter().map(variable).collect(),
        ));
    }
    fields.push(Inner("mediaProperties", media));
    fields
}

fn object(kind: &str, id: &str) -> Result<String, IllegalId> {
    if matches!(id, "" | "." | "..") {
        return Err(IllegalId);
    }
    Ok(format!("/{kind}/{}", segment(id)))
}

fn segment(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, SEGMENT).into()
}

/// A document; every value is escaped.
fn xml(root: &str, fields: Vec<Node<'_>>) -> Vec<u8> {
    let mut writer = Writer::new(Vec::with_capacity(160));
    // Writing into a Vec cannot fail; an error would leave an unusable body that is refused.
    let _ = write_node(&mut writer, &Inner(root, fields));
    writer.into_inner()
}

fn write_node(writer: &mut Writer<Vec<u8>>, node: &Node<'_>) -> std::io::Result<()> {
    let (Leaf(name, _) | Inner(name, _)) = node;
    writer.write_event(Event::Start(BytesStart::new(*name)))?;
    match node {
        Leaf(_, value) => writer.write_event(Event::Text(BytesText::new(value)))?,
        Inner(_, children) => {
            for child in children {
                write_node(writer, child)?;
            }
        }
    }
    writer.write_event(Event::End(BytesEnd::new(*name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CampaignVerb, DialVerb, DialogVerb, Mobile};

    fn built(action: &Action) -> (String, String) {
        let request = build(&AgentId::new("1205").unwrap(), action).unwrap();
        (
            format!("{} {}", request.method, request.path),
            String::from_utf8(request.body).unwrap(),
        )
    }

    #[test]
    fn changes_of_the_user() {
        assert_eq!(
            built(&Action::SignIn {
                extension: "5205".to_owned(),
                mobile: None,
            }),
            (
                "PUT /User/1205".to_owned(),
                "<User><state>LOGIN</state><extension>5205</extension></User>".to_owned()
            )
        );
        assert_eq!(
            built(&Action::SetState {
                state: "NOT_READY",
                reason: Some("14".to_owned())
            })
            .1,
            "<User><state>NOT_READY</state><reasonCodeId>14</reasonCodeId></User>"
        );
        assert_eq!(
            built(&Action::SetState {
                state: "READY",
                reason: None
            })
            .1,
            "<User><state>READY</state></User>"
        );
    }

    #[test]
    fn reads_have_no_body() {
        assert_eq!(
            built(&Action::ReadUser),
            ("GET /User/1205".to_owned(), String::new())
        );
        assert_eq!(built(&Action::ReadDialogs).0, "GET /User/1205/Dialogs");
        assert_eq!(
            built(&Action::ReadReasons(ReasonCategory::Logout)).0,
            "GET /User/1205/ReasonCodes?category=LOGOUT"
        );
        assert_eq!(
            built(&Action::ReadTeamReasons {
                team: "12".to_owned(),
                category: ReasonCategory::NotReady
            })
            .0,
            "GET /TeamResource/12/ReasonCodes?category=NOT_READY"
        );
        assert_eq!(
            built(&Action::ReadReasons(ReasonCategory::WrapUp)).0,
            "GET /User/1205/WrapUpReasons"
        );
    }

    #[test]
    fn every_other_change_has_the_platforms_form() {
        let mobile = Some(Mobile {
            mode: "CALL_BY_CALL".to_owned(),
            dial_number: "0041 79".to_owned(),
        });
        let own = || "5205".to_owned();
        let dialog = || "77".to_owned();
        for (action, line, body) in [
            (
                Action::SignIn {
                    extension: own(),
                    mobile,
                },
                "PUT /User/1205",
                "<User><state>LOGIN</state><extension>5205</extension><mobileAgent><mode>CALL_BY_CALL</mode>\
                 <dialNumber>0041 79</dialNumber></mobileAgent></User>",
            ),
            (
                Action::SetMemberState {
                    member: AgentId::new("1300").unwrap(),
                    state: "NOT_READY",
                },
                "PUT /User/1300",
                "<User><state>NOT_READY</state></User>",
            ),
            (
                Action::Dial {
                    dialog: dialog(),
                    verb: DialVerb::Consult,
                    target: own(),
                    to: "5300".to_owned(),
                },
                "PUT /Dialog/77",
                "<Dialog><targetMediaAddress>5205</targetMediaAddress><requestedAction>CONSULT_CALL</requestedAction>\
                 <toAddress>5300</toAddress></Dialog>",
            ),
            (
                Action::Dial {
                    dialog: dialog(),
                    verb: DialVerb::BlindTransfer,
                    target: own(),
                    to: "5300".to_owned(),
                },
                "PUT /Dialog/77",
                "<Dialog><targetMediaAddress>5205</targetMediaAddress><requestedAction>TRANSFER_SST</requestedAction>\
                 <toAddress>5300</toAddress></Dialog>",
            ),
            (
                Action::CallData {
                    dialog: dialog(),
                    target: Some(own()),
                    variables: vec![("callVariable3".to_owned(), "a<b".to_owned())],
                    wrap_up: None,
                },
                "PUT /Dialog/77",
                "<Dialog><targetMediaAddress>5205</targetMediaAddress><requestedAction>UPDATE_CALL_DATA</requestedAction>\
                 <mediaProperties><callvariables><CallVariable><name>callVariable3</name><value>a&lt;b</value></CallVariable>\
                 </callvariables></mediaProperties></Dialog>",
            ),
            (
                Action::CallData {
                    dialog: dialog(),
                    target: None,
                    variables: Vec::new(),
                    wrap_up: Some("Sold".to_owned()),
                },
                "PUT /Dialog/77",
                "<Dialog><requestedAction>UPDATE_CALL_DATA</requestedAction><mediaProperties>\
                 <wrapUpReason>Sold</wrapUpReason></mediaProperties></Dialog>",
            ),
            (
                Action::Campaign {
                    dialog: dialog(),
                    verb: CampaignVerb::Reclassify,
                    target: own(),
                    parameter: ("outboundClassification", "FAX".to_owned()),
                },
                "PUT /Dialog/77",
                "<Dialog><targetMediaAddress>5205</targetMediaAddress><requestedAction>RECLASSIFY</requestedAction>\
                 <actionParams><ActionParam><name>outboundClassification</name><value>FAX</value></ActionParam></actionParams></Dialog>",
            ),
            (
                Action::Supervise {
                    from: own(),
                    to: "5300".to_owned(),
                    barge: None,
                },
                "POST /User/1205/Dialogs",
                "<Dialog><requestedAction>SILENT_MONITOR</requestedAction><fromAddress>5205</fromAddress>\
                 <toAddress>5300</toAddress></Dialog>",
            ),
            (
                Action::Supervise {
                    from: own(),
                    to: "5300".to_owned(),
                    barge: Some("77".to_owned()),
                },
                "POST /User/1205/Dialogs",
                "<Dialog><requestedAction>BARGE_CALL</requestedAction><fromAddress>5205</fromAddress><toAddress>5300</toAddress>\
                 <associatedDialogUri>/finesse/api/Dialog/77</associatedDialogUri></Dialog>",
            ),
        ] {
            assert_eq!(built(&action), (line.to_owned(), body.to_owned()));
        }
    }

    #[test]
    fn lists_are_read_where_the_platform_has_them() {
        let team = || Some("3".to_owned());
        for (action, line) in [
            (Action::ReadUsers, "GET /Users"),
            (Action::ReadQueues, "GET /User/1205/Queues"),
            (
                Action::ReadTeam {
                    team: "3".to_owned(),
                },
                "GET /Team/3?includeLoggedOutAgents=true",
            ),
            (Action::ReadPhoneBooks { team: None }, "GET /PhoneBooks"),
            (
                Action::ReadPhoneBooks { team: team() },
                "GET /Team/3/PhoneBooks",
            ),
            (
                Action::ReadContacts {
                    book: "a/b".to_owned(),
                },
                "GET /PhoneBook/a%2Fb/Contacts",
            ),
            (
                Action::ReadMember {
                    member: AgentId::new("1300").unwrap(),
                },
                "GET /User/1300",
            ),
        ] {
            assert_eq!(built(&action).0, line);
        }
    }

    #[test]
    fn numbers_are_sent_as_given_and_escaped() {
        let call = Action::MakeCall {
            from: "5205".to_owned(),
            to: "+49*7#<x>&".to_owned(),
        };
        assert_eq!(
            built(&call),
            (
                "POST /User/1205/Dialogs".to_owned(),
                "<Dialog><requestedAction>MAKE_CALL</requestedAction><fromAddress>5205</fromAddress>\
                 <toAddress>+49*7#&lt;x&gt;&amp;</toAddress></Dialog>"
                    .to_owned()
            )
        );
    }

    #[test]
    fn ids_are_one_segment() {
        let drop = |dialog: &str| Action::OnDialog {
            dialog: dialog.to_owned(),
            verb: DialogVerb::Drop,
            target: "5205".to_owned(),
        };
        let (line, body) = built(&drop("a/../b?c"));
        assert_eq!(line, "PUT /Dialog/a%2F..%2Fb%3Fc");
        assert_eq!(
            body,
            "<Dialog><targetMediaAddress>5205</targetMediaAddress><requestedAction>DROP</requestedAction></Dialog>"
        );
        let agent = AgentId::new("ann@example.org").unwrap();
        let request = build(&agent, &Action::ReadUser).unwrap();
        assert_eq!(request.path, "/User/ann%40example.org");
        for dots in ["", ".", ".."] {
            assert_eq!(build(&agent, &drop(dots)), Err(IllegalId));
        }
    }
}
