//! How a member stands, in its heartbeat. The status page has types of its own, so that it can
//! change without the protocol.

use serde::{Deserialize, Serialize};

use super::Role;

/// How a member stands, for whoever looks at the pair from another instance. It is shown and
/// never acted upon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Standing {
    /// Address of its status page; empty where it does not know one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub page: String,
    /// Brokers as it sees them.
    pub brokers: Vec<BrokerStanding>,
    /// Downstream nodes as it sees them.
    pub downstreams: Vec<NodeStanding>,
    /// Its groups with their consumers.
    pub groups: Vec<GroupStanding>,
    /// Whether a downstream node is usable from there.
    pub in_service: bool,
    /// Commands in work.
    pub inflight: u64,
    /// Publications that wait.
    pub outbox: u64,
    /// Owned sessions with an established subscription.
    pub subscribed: u64,
    /// Commands that got their outcome there since its start.
    pub finished: u64,
}

/// A broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerStanding {
    /// `host:port`.
    pub url: String,
    /// `connected`, `dialling`, `blocked`, `unfit`, `down`.
    pub state: String,
    /// Whether this one serves.
    pub attached: bool,
    /// Whether it is the first of the list.
    pub preferred: bool,
    /// Links to it that were lost in a row because what it sent could not be read.
    #[serde(skip_serializing_if = "none")]
    pub garbled: u32,
    /// Something is lost there without which commands are not served well.
    pub unfit: bool,
    /// What it lacks, or why it is not connected; empty where nothing is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn none(count: &u32) -> bool {
    *count == 0
}

/// A downstream node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStanding {
    /// Host.
    pub url: String,
    /// Base URL; empty where an older instance tells it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// `unknown`, `up`, `down`.
    pub state: String,
    /// Whether requests go there.
    pub current: bool,
    /// Why it is down.
    pub reason: Option<String>,
}

/// A group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupStanding {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// First command queue.
    pub queue: String,
    /// `x-priority` it consumes with; `null` where it does not consume.
    pub priority: Option<i32>,
    /// Consumer tag.
    pub tag: Option<String>,
    /// Broker it consumes on.
    pub broker: Option<String>,
    /// Whether the broker confirmed the consumer.
    pub consuming: bool,
    /// Leadership term.
    pub term: u64,
    /// Instance that leads, as far as the member knows; `null` while nobody does.
    pub leader: Option<String>,
    /// Why the role is what it is, where there is more to say than priority and state.
    pub reason: String,
    /// What operators decided last.
    pub choice: Option<ChoiceStanding>,
}

/// An operator's choice about a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ChoiceStanding {
    /// `leader`, `failover-off`, `priority` (no choice stands any more), `unknown`.
    pub wish: String,
    /// The instance that leads, or on which the group is stopped.
    pub instance: Option<String>,
    /// The instance that the verb was given to.
    pub by: String,
    /// When, milliseconds since the epoch.
    pub at: u64,
}
