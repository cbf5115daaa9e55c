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
#[error("illegal call id")]
pub struct IllegalId;

/// Builds the request of `action`.
///
/// # Errors
/// Where a call id of the action cannot be sent.
pub fn build(agent: &AgentId, action: &Action) -> Result<Request, IllegalId> {
    let user = || format!("/User/{}", segment(agent.as_str()));
    let (method, path, body) = match action {
        Action::SignIn { extension } => (
            Method::PUT,
            user(),
            xml("User", &[("state", "LOGIN"), ("extension", extension)]),
        ),
        Action::SetState { state, reason } => {
            let mut fields = vec![("state", *state)];
            fields.extend(reason.as_deref().map(|id| ("reasonCodeId", id)));
            (Method::PUT, user(), xml("User", &fields))
        }
        Action::ReadUser => (Method::GET, user(), Vec::new()),
        Action::ReadDialogs => (Method::GET, user() + "/Dialogs", Vec::new()),
        Action::ReadDialog { dialog } => (Method::GET, dialog_path(dialog)?, Vec::new()),
        Action::ReadReasons(category) => {
            let list = match category {
                ReasonCategory::NotReady => "/ReasonCodes?category=NOT_READY",
                ReasonCategory::Logout => "/ReasonCodes?category=LOGOUT",
                ReasonCategory::WrapUp => "/WrapUpReasons",
            };
            (Method::GET, user() + list, Vec::new())
        }
        Action::MakeCall { from, to } => (
            Method::POST,
            user() + "/Dialogs",
            xml(
                "Dialog",
                &[
                    ("requestedAction", "MAKE_CALL"),
                    ("fromAddress", from),
                    ("toAddress", to),
                ],
            ),
        ),
        Action::OnDialog {
            dialog,
            verb,
            target,
        } => (
            Method::PUT,
            dialog_path(dialog)?,
            xml(
                "Dialog",
                &[
                    ("targetMediaAddress", target),
                    ("requestedAction", verb.requested_action()),
                ],
            ),
        ),
    };
    Ok(Request { method, path, body })
}

fn dialog_path(id: &str) -> Result<String, IllegalId> {
    if matches!(id, "" | "." | "..") {
        return Err(IllegalId);
    }
    Ok(format!("/Dialog/{}", segment(id)))
}

fn segment(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, SEGMENT).into()
}

/// One flat element; every value is escaped.
fn xml(root: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::with_capacity(160));
    // Writing into a Vec cannot fail; an error would leave an unusable body that is refused.
    let _ = write_fields(&mut writer, root, fields);
    writer.into_inner()
}

fn write_fields(
    writer: &mut Writer<Vec<u8>>,
    root: &str,
    fields: &[(&str, &str)],
) -> std::io::Result<()> {
    writer.write_event(Event::Start(BytesStart::new(root)))?;
    for (name, value) in fields {
        writer.write_event(Event::Start(BytesStart::new(*name)))?;
        writer.write_event(Event::Text(BytesText::new(value)))?;
        writer.write_event(Event::End(BytesEnd::new(*name)))?;
    }
    writer.write_event(Event::End(BytesEnd::new(root)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DialogVerb;

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
                extension: "5205".to_owned()
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
            built(&Action::ReadReasons(ReasonCategory::WrapUp)).0,
            "GET /User/1205/WrapUpReasons"
        );
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
