//! Messages: pubsub events (XEP-0060 section 12.17 calls them event notifications), read straight
//! into the updates that they carry, for they are most of what arrives.
//!
//! An item's payload stays where it lies among the received bytes until the item ends; then the
//! update is read from it. Names inside a message are compared without namespace and letter case.

use std::borrow::Cow;

use crate::finesse::update;
use crate::finesse::xml::XmlError;
use crate::model::{Update, UpdateBody};

use super::text::{attribute, name, split_name, unescape, unescaped_text};
use super::xml::{Span, Token};

/// An update, or why a notification could not be read.
pub(super) type Notification = Result<Update, XmlError>;

/// Reads a message, token by token.
#[derive(Debug)]
pub(super) struct Message {
    /// Whether a service sent it.
    trusted: bool,
    place: Place,
    /// Depth outside of an element that nobody reads.
    skipped: Option<usize>,
    /// Tags of the current `items` and `item`.
    items: Span,
    item: Span,
    /// The item has a child; that one is its payload.
    has_child: bool,
    /// The notification has a child; that one is the payload.
    has_update: bool,
    /// The child element that is the payload: where it begins, and the depth outside of it.
    child: Option<(Span, usize)>,
    payload: Payload,
    updates: Vec<Notification>,
}

/// The element whose content comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Message,
    Event,
    Items,
    Item,
    Notification,
}

/// The XML of an update: text inside `notification` (escaped or CDATA), or a child element of it,
/// or the item's own child.
#[derive(Debug, Default)]
enum Payload {
    #[default]
    None,
    /// Text with references.
    Escaped(Span),
    /// As it lies there.
    Plain(Span),
    /// Put together from several pieces.
    Joined(Result<Vec<u8>, XmlError>),
}

impl Payload {
    fn bytes<'a>(&'a self, unit: &'a [u8]) -> Result<Cow<'a, [u8]>, XmlError> {
        match self {
            Self::None => Ok(Cow::Borrowed(b"")),
            Self::Escaped(text) => unescape(text.of(unit)),
            Self::Plain(text) => Ok(Cow::Borrowed(text.of(unit))),
            Self::Joined(text) => text.as_ref().map_err(Clone::clone).map(Cow::from),
        }
    }

    /// Appends another piece of text.
    fn push(&mut self, piece: Self, unit: &[u8]) {
        if let Self::Escaped(text) = piece
            && text.of(unit).trim_ascii().is_empty()
            && matches!(self, Self::None)
        {
            return;
        }
        *self = match std::mem::take(self) {
            Self::None => piece,
            former => {
                let mut joined = match former {
                    Self::Joined(joined) => joined,
                    former => former.bytes(unit).map(Cow::into_owned),
                };
                if let Ok(text) = &mut joined {
                    match piece.bytes(unit) {
                        Ok(more) => text.extend_from_slice(&more),
                        Err(error) => joined = Err(error),
                    }
                }
                Self::Joined(joined)
            }
        };
    }
}

/// Whether a service sent what comes from this address. Services have no local part; a message from
/// a user of the same server proves nothing. Without an address it is from the server itself.
fn is_from_service(tag: &[u8]) -> bool {
    let Some(from) = attribute(tag, "from") else {
        return true;
    };
    let from = unescape(from).unwrap_or_default();
    let bare = from.split(|byte| *byte == b'/').next().unwrap_or_default();
    !bare.is_empty() && !bare.contains(&b'@')
}

impl Message {
    /// A message that begins with `tag`.
    pub(super) fn new(tag: &[u8]) -> Self {
        Self {
            trusted: is_from_service(tag),
            place: Place::Message,
            skipped: None,
            items: Span::default(),
            item: Span::default(),
            has_child: false,
            has_update: false,
            child: None,
            payload: Payload::None,
            updates: Vec::new(),
        }
    }

    /// What it carried, in its order; nodes that are not read are left out.
    pub(super) fn into_updates(self) -> Vec<Notification> {
        self.updates
    }

    /// Takes a token of its content; `depth` is that after the token.
    pub(super) fn take(&mut self, token: Token, depth: usize, unit: &[u8]) {
        if !self.trusted {
            return;
        }
        let is_text = matches!(token, Token::Text(_) | Token::Cdata(_));
        if is_text && (self.skipped.is_some() || self.child.is_some() || !self.is_payload()) {
            return;
        }
        match token {
            Token::Text(text) => self.payload.push(Payload::Escaped(text), unit),
            Token::Cdata(text) => self.payload.push(Payload::Plain(text), unit),
            Token::Open { whole, tag, empty } => {
                if self.skipped.is_none() && self.child.is_none() {
                    let outside = if empty { depth } else { depth - 1 };
                    self.open(whole, tag, outside, unit);
                }
                if empty {
                    self.close(whole, depth, unit);
                }
            }
            Token::Close(whole) => self.close(whole, depth, unit),
        }
    }

    /// Whether text here belongs to the payload.
    fn is_payload(&self) -> bool {
        match self.place {
            Place::Item => !self.has_child,
            Place::Notification => !self.has_update,
            Place::Message | Place::Event | Place::Items => false,
        }
    }

    fn open(&mut self, whole: Span, tag: Span, outside: usize, unit: &[u8]) {
        let local = split_name(name(tag.of(unit)).unwrap_or_default()).1;
        let named = |wanted: &str| local.eq_ignore_ascii_case(wanted.as_bytes());
        match self.place {
            Place::Message if named("event") => self.place = Place::Event,
            Place::Event if named("items") => (self.place, self.items) = (Place::Items, tag),
            Place::Items if named("item") => {
                (self.place, self.item) = (Place::Item, tag);
                (self.has_child, self.has_update) = (false, false);
            }
            Place::Item if !self.has_child => {
                self.has_child = true;
                self.payload = Payload::None;
                if named("update") {
                    self.child = Some((whole, outside));
                } else {
                    self.place = Place::Notification;
                }
            }
            Place::Notification if !self.has_update => {
                self.has_update = true;
                self.child = Some((whole, outside));
            }
            _ => self.skipped = Some(outside),
        }
    }

    /// An element ends that leaves `depth`.
    fn close(&mut self, whole: Span, depth: usize, unit: &[u8]) {
        if let Some((begin, outside)) = self.child {
            if outside == depth {
                self.payload = Payload::Plain(begin.to(whole));
                self.child = None;
            }
            return;
        }
        if let Some(outside) = self.skipped {
            if outside == depth {
                self.skipped = None;
            }
            return;
        }
        self.place = match self.place {
            Place::Message | Place::Event => Place::Message,
            Place::Items => Place::Event,
            Place::Item => {
                self.item_ends(unit);
                Place::Items
            }
            Place::Notification => Place::Item,
        };
    }

    fn item_ends(&mut self, unit: &[u8]) {
        let payload = std::mem::take(&mut self.payload);
        match self.update(&payload, unit) {
            Ok(Update {
                body: UpdateBody::Other,
                ..
            }) => {}
            update => self.updates.push(update),
        }
    }

    fn update(&self, payload: &Payload, unit: &[u8]) -> Notification {
        let text = |tag: Span, name| {
            attribute(tag.of(unit), name)
                .map(unescaped_text)
                .transpose()
        };
        let node = text(self.items, "node")?.unwrap_or_default();
        let id = text(self.item, "id")?;
        update::parse_with(&node, id.as_deref(), || payload.bytes(unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DialogsVerb;
    use crate::notify::stanza::{Incoming, read_all};
    use crate::notify::text::escaped;

    const HEADER: &str =
        "<s:stream xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams'>";

    fn updates(from: &str, body: &str) -> Vec<Notification> {
        let xml = format!(
            "{HEADER}<message from='{from}' id='x'>\
             <event xmlns='http://jabber.org/protocol/pubsub#event'>{body}</event>\
             <headers xmlns='http://jabber.org/protocol/shim'/></message>"
        );
        match read_all(std::iter::once(xml.as_bytes())) {
            (all, None) => match &all[..] {
                [Incoming::Opened, Incoming::Message(updates)] => updates.clone(),
                other => panic!("{other:?}"),
            },
            (_, fault) => panic!("{fault:?}"),
        }
    }

    fn bodies(from: &str, body: &str) -> Vec<UpdateBody> {
        updates(from, body)
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
        let escaped = escaped(UPDATE);
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
        let broken = updates("pubsub.d.example", &user_items("no xml"));
        assert!(matches!(&broken[..], [Err(_)]));
        let foreign = "<items node='/finesse/api/Queue/7'><item id='1'/></items>";
        assert_eq!(bodies("pubsub.d.example", foreign), []);
    }
}
