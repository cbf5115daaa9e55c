//! What the notification service reports.

use super::{ApiError, Dialog, Shortage, User};

/// How a dialogs notification changes the agent's set of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialogsVerb {
    /// The agent gains a call.
    Added,
    /// A call that the agent has changed.
    Changed,
    /// A call leaves the agent.
    Removed,
}

/// Content of a notification, routed by its pubsub node and not by its `source`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateBody {
    /// The agent itself (`/finesse/api/User/{id}`). Boxed: the common case is `Dialogs`.
    User(Box<User>),
    /// The user was removed from the platform's configuration.
    UserDeleted,
    /// The agent's calls (`/finesse/api/User/{id}/Dialogs`).
    Dialogs {
        /// What happened to the set.
        verb: DialogsVerb,
        /// The calls, whole objects.
        dialogs: Vec<Dialog>,
    },
    /// An accepted request was refused later.
    Refused(ApiError),
    /// The platform's status may have changed: read it again.
    SystemInfo,
    /// The platform's application behind the notification service has gone or come back (the
    /// presence of its own user).
    Application {
        /// Whether it is there.
        available: bool,
    },
    /// Members of a team that a supervisor watches (`/finesse/api/Team/{id}/Users`).
    TeamMembers {
        /// Team id.
        team: String,
        /// The members whose state is reported, summaries.
        members: Vec<User>,
    },
    /// A node this connector does not read.
    Other,
}

/// One notification to one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Echo of the request that caused it; absent when unsolicited or not echoed.
    pub request_id: Option<String>,
    /// Pubsub item id, unique per notification where the service gives one.
    pub item_id: Option<String>,
    /// Content.
    pub body: UpdateBody,
}

/// Answer of one health probe of a downstream node (`GET SystemInfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeHealth {
    /// `IN_SERVICE`, with what a subscriber needs to know of this node.
    InService {
        /// `xmppDomain`.
        xmpp_domain: String,
        /// `xmppPubSubDomain`.
        pubsub_domain: String,
        /// `deploymentType`, e.g. `UCCE`.
        deployment: String,
    },
    /// Answers, but not in service.
    OutOfService {
        /// Why, for logs.
        reason: String,
    },
    /// Not asked: this machine lacks what it takes. Nothing is known of the node.
    NoRoom(Shortage),
    /// No usable answer.
    Unreachable {
        /// Why, for logs.
        reason: String,
    },
}
