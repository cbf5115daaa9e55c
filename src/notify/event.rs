//! From a pubsub message to updates.

use crate::downstream::finesse::update;
use crate::downstream::finesse::xml::XmlError;
use crate::model::{Update, UpdateBody};

use super::stanza::Message;

/// Every update in `message`, in order; nodes that are not read are left out, notifications that
/// cannot be read are passed on as their error.
pub(super) fn updates(message: &Message) -> Vec<Result<Update, XmlError>> {
    if !message.is_from_service() {
        return Vec::new();
    }
    let other = |update: &Update| matches!(update.body, UpdateBody::Other);
    message
        .items
        .iter()
        .map(|item| update::parse(&item.node, item.id.as_deref(), item.payload.as_bytes()))
        .filter(|update| !update.as_ref().is_ok_and(other))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DialogsVerb;
    use crate::notify::stanza::Incoming;

    fn message(from: &str, body: &str) -> Message {
        let xml = format!(
            "<message xmlns='jabber:client' from='{from}' id='x'>\
             <event xmlns='http://jabber.org/protocol/pubsub#event'>{body}</event>\
             <headers xmlns='http://jabber.org/protocol/shim'/></message>"
        );
        match xso::from_bytes(xml.as_bytes()).unwrap() {
            Incoming::Message(message) => message,
            other => panic!("{other:?}"),
        }
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
    fn what_stands_around_the_payload_is_passed_over() {
        let around = format!(
            "<x><item><y/></item></x>\n<items node='/finesse/api/User/1205'>\n <z>9</z>\n \
             <item id='i1'>\n {NOTE}\n {UPDATE} and <b>more</b></notification> <c>8</c></item>\n \
             <item id='i2'>{UPDATE}</item>\n</items> 7"
        );
        let ready =
            |update: &UpdateBody| matches!(update, UpdateBody::User(user) if user.state == "READY");
        let bodies = bodies("pubsub.d.example", &around);
        assert!(bodies.len() == 2 && bodies.iter().all(ready), "{bodies:?}");
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
        for sender in ["mallory@d.example/x", "not an@address@", ""] {
            assert_eq!(bodies(sender, &forged), [], "{sender}");
        }
    }

    #[test]
    fn unreadable_notifications_are_told_and_foreign_nodes_are_not() {
        let broken = updates(&message("pubsub.d.example", &user_items("no xml")));
        assert!(matches!(&broken[..], [Err(_)]));
        let foreign = "<items node='/finesse/api/Queue/7'><item id='1'/></items>";
        assert_eq!(bodies("pubsub.d.example", foreign), []);
    }
}
