//! From a pubsub message to updates.

use xmpp_parsers::message::Message;
use xmpp_parsers::minidom::Element;

use crate::downstream::finesse::update;
use crate::downstream::finesse::xml::XmlError;
use crate::model::{Update, UpdateBody};

/// Calls `each` for every update in `message`, in order; nodes that are not read are left out,
/// notifications that cannot be read are passed on as their error.
pub(super) fn updates(message: &Message) -> Vec<Result<Update, XmlError>> {
    // Services have no local part; a message from a user of the same server proves nothing.
    let from_service = message
        .from
        .as_ref()
        .is_none_or(|from| from.node().is_none());
    if !from_service {
        return Vec::new();
    }
    let items = message
        .payloads
        .iter()
        .filter(|payload| named(payload, "event"))
        .flat_map(Element::children)
        .filter(|child| named(child, "items"));
    let mut out = Vec::new();
    for items in items {
        let node = items.attr("node").unwrap_or("");
        for item in items.children().filter(|child| named(child, "item")) {
            let update = update::parse(node, item.attr("id"), payload(item).as_bytes());
            if !matches!(
                update,
                Ok(Update {
                    body: UpdateBody::Other,
                    ..
                })
            ) {
                out.push(update);
            }
        }
    }
    out
}

/// The XML of the update: text inside `notification` (escaped or CDATA), or a child element, or
/// the item's own child.
fn payload(item: &Element) -> String {
    let Some(child) = item.children().next() else {
        return item.text();
    };
    if named(child, "update") {
        return String::from(child);
    }
    match child.children().next() {
        Some(update) => String::from(update),
        None => child.text(),
    }
}

fn named(element: &Element, name: &str) -> bool {
    element.name().eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DialogsVerb;

    fn message(from: &str, body: &str) -> Message {
        let xml = format!(
            "<message xmlns='jabber:client' from='{from}' id='x'>\
             <event xmlns='http://jabber.org/protocol/pubsub#event'>{body}</event>\
             <headers xmlns='http://jabber.org/protocol/shim'/></message>"
        );
        Message::try_from(xml.parse::<Element>().unwrap()).unwrap()
    }

    fn bodies(from: &str, body: &str) -> Vec<UpdateBody> {
        updates(&message(from, body))
            .into_iter()
            .map(|update| update.unwrap().body)
            .collect()
    }

    const NOTE: &str = "<notification xmlns='http://jabber.org/protocol/pubsub' type='html'>";
    const UPDATE: &str =
        "<Update><data><user><state>READY</state></user></data><event>put</event></Update>";

    fn user_items(payload: &str) -> String {
        format!(
            "<items node='/finesse/api/User/1205'><item id='i1'>{NOTE}{payload}</notification></item></items>"
        )
    }

    #[test]
    fn text_cdata_and_child_are_the_same() {
        let escaped = quick_xml::escape::escape(UPDATE).into_owned();
        for payload in [escaped, format!("<![CDATA[{UPDATE}]]>"), UPDATE.to_owned()] {
            let bodies = bodies("pubsub.d.example", &user_items(&payload));
            assert!(
                matches!(&bodies[..], [UpdateBody::User(user)] if user.state == "READY"),
                "{payload}: {bodies:?}"
            );
        }
    }

    #[test]
    fn several_items_keep_their_order() {
        let item = |event: &str| {
            format!(
                "<item>{NOTE}&lt;Update&gt;&lt;event&gt;{event}&lt;/event&gt;&lt;data&gt;&lt;dialogs/&gt;&lt;/data&gt;&lt;/Update&gt;</notification></item>"
            )
        };
        let body = format!(
            "<items node='/finesse/api/User/1205/Dialogs'>{}{}</items>",
            item("POST"),
            item("DELETE")
        );
        let verbs: Vec<_> = bodies("pubsub.d.example", &body)
            .into_iter()
            .map(|body| match body {
                UpdateBody::Dialogs { verb, .. } => verb,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(verbs, [DialogsVerb::Added, DialogsVerb::Removed]);
    }

    #[test]
    fn users_cannot_forge_notifications() {
        let forged = user_items(UPDATE);
        assert_eq!(bodies("mallory@d.example/x", &forged), []);
    }

    #[test]
    fn unreadable_notifications_are_told_and_foreign_nodes_are_not() {
        let broken = updates(&message("pubsub.d.example", &user_items("no xml")));
        assert!(matches!(&broken[..], [Err(_)]));
        let foreign = "<items node='/finesse/api/Queue/7'><item id='1'/></items>";
        assert_eq!(bodies("pubsub.d.example", foreign), []);
    }
}
