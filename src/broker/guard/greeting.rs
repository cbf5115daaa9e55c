//! What a broker says of itself when a connection begins. The library keeps it to itself.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use amq_protocol::protocol::{AMQPClass, connection};
use lapin::types::{AMQPValue, FieldTable};

/// `connection.start`.
pub(super) const START: (u16, u16) = (10, 10);
/// Characters that are kept of each word.
const MAX_WORD: usize = 255;

/// A broker's own words; each is empty where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Greeting {
    /// Version of the server.
    pub version: String,
    /// Name of the cluster that it is a node of.
    pub cluster_name: String,
}

impl Greeting {
    /// From a whole frame; `None` where that is none that begins a connection.
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        let (_, frame) = parse_frame(frame).ok()?;
        let AMQPFrame::Method(_, AMQPClass::Connection(connection::AMQPMethod::Start(start))) =
            frame
        else {
            return None;
        };
        Some(Self {
            version: word(&start.server_properties, "version"),
            cluster_name: word(&start.server_properties, "cluster_name"),
        })
    }
}

fn word(properties: &FieldTable, name: &str) -> String {
    let text = match properties.inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        Some(AMQPValue::ShortString(text)) => text.to_string(),
        _ => String::new(),
    };
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(MAX_WORD).collect()
}
