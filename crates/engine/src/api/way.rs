//! What a broker has to do for us, way by way, and what a proof of one says. What is made of it
//! stands in `brokers::fitness`.

use serde::{Deserialize, Serialize};

/// Something that a broker has to do for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Way {
    /// It gives us consumers of the command queues.
    Commands,
    /// It takes replies for its own clients, and dead letters.
    Replies,
    /// It takes events.
    Events,
    /// It takes publications at all: no alarm blocks them.
    Publishing,
    /// It takes replies for clients of the other brokers.
    FarReplies,
    /// It takes messages to the peers.
    Peers,
    /// It gives us the own control queue.
    ControlQueue,
    /// It gives us expired commands.
    Expired,
    /// It has a queue of dead letters.
    DeadLetters,
}

/// What it means that a way is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Shown and tried again; the broker serves.
    Minor,
    /// Another broker is better.
    Grave,
    /// Another broker is better, whatever else it lacks.
    Vital,
}

impl Way {
    /// Those that are proven from time to time, without a doubt.
    pub const PUBLISHING: [Self; 4] = [Self::Replies, Self::Events, Self::FarReplies, Self::Peers];

    /// Bounded label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Replies => "replies",
            Self::Events => "events",
            Self::Publishing => "publishing",
            Self::FarReplies => "far-replies",
            Self::Peers => "peers",
            Self::ControlQueue => "control-queue",
            Self::Expired => "expired",
            Self::DeadLetters => "dead-letters",
        }
    }

    /// What does not work, for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Commands => "commands cannot be consumed",
            Self::Replies => "replies cannot be published",
            Self::Events => "events cannot be published",
            Self::Publishing => "publications are blocked",
            Self::FarReplies => "replies to clients of the other brokers cannot be published",
            Self::Peers => "messages to the peers cannot be published",
            Self::ControlQueue => "the own control queue cannot be consumed",
            Self::Expired => "expired commands cannot be consumed",
            Self::DeadLetters => "the queue of dead letters is not there",
        }
    }

    /// What it means that it is lost.
    #[must_use]
    pub fn weight(self) -> Weight {
        match self {
            Self::Commands | Self::Replies | Self::Events | Self::Publishing => Weight::Vital,
            Self::FarReplies | Self::Peers | Self::ControlQueue => Weight::Grave,
            Self::Expired | Self::DeadLetters => Weight::Minor,
        }
    }

    /// Commands that are taken could not be answered.
    pub(crate) fn mutes(self) -> bool {
        matches!(self, Self::Replies | Self::Events | Self::Publishing)
    }

    /// A passed proof shows that it may be tried again, not that it works.
    pub(crate) fn shown_by_use(self) -> bool {
        matches!(self, Self::Commands | Self::ControlQueue)
    }
}

/// How a proof ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The way works.
    Passed,
    /// The broker refused, or did not answer in time.
    Refused {
        /// Why, in the broker's words, without credentials.
        reason: String,
    },
    /// Nothing can be said: the link was about to end.
    Unknown,
}
