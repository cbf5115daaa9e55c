//! Numbers that tie an asynchronous result to what asked for it. A result that carries an old
//! number is counted and ignored.

use serde::{Deserialize, Serialize};

pub use crate::model::BootId;

/// Point in time, given to the engine with every input; it has no clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds on a clock that never jumps, from an arbitrary start.
    pub mono: u64,
    /// Milliseconds since the epoch: only for deadlines that clients set and for messages.
    pub wall: u64,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        pub struct $name(pub u64);
    };
}

number!(
    /// One attachment to a broker (two connections); never reused in a process.
    LinkEpoch
);
number!(
    /// One message handed to the broker shell for publication.
    PublishId
);
number!(
    /// One downstream request.
    CallId
);
number!(
    /// One notification subscription attempt.
    SubscriptionEpoch
);
number!(
    /// One command being worked on.
    JobId
);
number!(
    /// One write to the journal.
    JournalId
);
number!(
    /// One operator request.
    VerbId
);

/// A delivery, valid only on the link that brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryId {
    /// The link.
    pub link: LinkEpoch,
    /// The broker's delivery tag on that link's command channel.
    pub tag: u64,
}
