//! What comes over the stream, as the sessions want it. Messages are read straight into the items
//! that they carry, for they are most of what arrives; everything else is the library's.

use tokio_xmpp::xmlstream::{FallibleStreamElement, StreamElementError, XmppStreamElement};
use xmpp_parsers::jid::Jid;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::minidom::rxml::{AttrMap, Event, Namespace, QName};
use xmpp_parsers::ns;
use xso::error::{Error, FromEventsError};
use xso::{Context, FromEventsBuilder, FromXml};

/// An element of the stream.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on its way from the parser to whoever reads it"
)]
pub(super) enum Incoming {
    /// A message.
    Message(Message),
    /// Anything else.
    Element(XmppStreamElement),
    /// Anything else, not as its schema wants it.
    Invalid(StreamElementError),
}

/// A message with its pubsub items; those that share a node are neighbours.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// Address of its sender, where it has one.
    pub(super) from: Option<String>,
    /// In the order of the message.
    pub(super) items: Vec<Item>,
}

impl Message {
    /// Whether a service sent it. Services have no local part; a message from a user of the same
    /// server proves nothing.
    pub(super) fn is_from_service(&self) -> bool {
        self.from
            .as_deref()
            .is_none_or(|from| Jid::new(from).is_ok_and(|from| from.node().is_none()))
    }
}

/// One item of an event.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// Node that it was published to.
    pub(super) node: String,
    /// Its id, where it has one.
    pub(super) id: Option<String>,
    /// The XML of the update: text inside `notification` (escaped or CDATA), or a child element of
    /// it, or the item's own child.
    pub(super) payload: String,
}

impl FromXml for Incoming {
    type Builder = Builder;

    fn from_events(
        name: QName,
        mut attrs: AttrMap,
        context: &Context<'_>,
    ) -> Result<Self::Builder, FromEventsError> {
        if name.0 == ns::JABBER_CLIENT && name.1 == "message" {
            let mut reader = Reader::default();
            reader.message.from = attrs.remove(&Namespace::NONE, "from");
            return Ok(Builder::Message(Box::new(reader)));
        }
        let builder = FallibleStreamElement::from_events(name, attrs, context)?;
        Ok(Builder::Other(Box::new(builder)))
    }
}

/// Reads one element. Boxed: the library moves a builder with every event.
pub(super) enum Builder {
    Message(Box<Reader>),
    Other(Box<<FallibleStreamElement as FromXml>::Builder>),
}

impl FromEventsBuilder for Builder {
    type Output = Incoming;

    fn feed(&mut self, event: Event, context: &Context<'_>) -> Result<Option<Incoming>, Error> {
        Ok(match self {
            Self::Message(reader) => reader.feed(event, context)?.map(Incoming::Message),
            Self::Other(builder) => builder.feed(event, context)?.map(|other| match other {
                FallibleStreamElement::Ok(element) => Incoming::Element(element),
                FallibleStreamElement::Err(error) => Incoming::Invalid(error),
            }),
        })
    }
}

type Tree = <Element as FromXml>::Builder;

/// Reads a message.
#[derive(Default)]
pub(super) struct Reader {
    message: Message,
    place: Place,
    /// Depth inside an element that nobody reads.
    skipped: usize,
    node: String,
    item: Item,
    /// The item has a child; that one is its payload.
    has_child: bool,
    /// The notification has a child; that one is the payload.
    has_update: bool,
    /// The child element that is being read as XML.
    tree: Option<Tree>,
}

/// The element whose content comes next.
#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    Message,
    Event,
    Items,
    Item,
    Notification,
}

impl Reader {
    fn feed(&mut self, event: Event, context: &Context<'_>) -> Result<Option<Message>, Error> {
        if let Some(tree) = &mut self.tree {
            if let Some(element) = tree.feed(event, context)? {
                self.item.payload = String::from(&element);
                self.tree = None;
            }
            return Ok(None);
        }
        match event {
            Event::StartElement(..) if self.skipped > 0 => self.skipped += 1,
            Event::EndElement(_) if self.skipped > 0 => self.skipped -= 1,
            Event::StartElement(_, name, attrs) => self.open(name, attrs, context)?,
            Event::EndElement(_) => return Ok(self.close()),
            Event::Text(_, text) if self.skipped == 0 && self.is_payload() => {
                self.item.payload.push_str(&text);
            }
            Event::Text(..) | Event::XmlDeclaration(..) => {}
        }
        Ok(None)
    }

    /// Whether text here belongs to the payload.
    fn is_payload(&self) -> bool {
        match self.place {
            Place::Item => !self.has_child,
            Place::Notification => !self.has_update,
            Place::Message | Place::Event | Place::Items => false,
        }
    }

    fn open(
        &mut self,
        name: QName,
        mut attrs: AttrMap,
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let named = |wanted: &str| name.1.eq_ignore_ascii_case(wanted);
        match self.place {
            Place::Message if named("event") => self.place = Place::Event,
            Place::Event if named("items") => {
                self.place = Place::Items;
                self.node = attrs.remove(&Namespace::NONE, "node").unwrap_or_default();
            }
            Place::Items if named("item") => {
                self.place = Place::Item;
                (self.has_child, self.has_update) = (false, false);
                self.item = Item {
                    node: self.node.clone(),
                    id: attrs.remove(&Namespace::NONE, "id"),
                    payload: String::new(),
                };
            }
            Place::Item if !self.has_child => {
                self.has_child = true;
                self.item.payload.clear();
                if named("update") {
                    self.tree = Some(tree(name, attrs, context)?);
                } else {
                    self.place = Place::Notification;
                }
            }
            Place::Notification if !self.has_update => {
                self.has_update = true;
                self.tree = Some(tree(name, attrs, context)?);
            }
            _ => self.skipped = 1,
        }
        Ok(())
    }

    /// The message, at its end.
    fn close(&mut self) -> Option<Message> {
        self.place = match self.place {
            Place::Message => return Some(std::mem::take(&mut self.message)),
            Place::Event => Place::Message,
            Place::Items => Place::Event,
            Place::Item => {
                self.message.items.push(std::mem::take(&mut self.item));
                Place::Items
            }
            Place::Notification => Place::Item,
        };
        None
    }
}

fn tree(name: QName, attrs: AttrMap, context: &Context<'_>) -> Result<Tree, Error> {
    Element::from_events(name, attrs, context).map_err(|error| match error {
        FromEventsError::Invalid(error) => error,
        FromEventsError::Mismatch { .. } => Error::TypeMismatch,
    })
}
