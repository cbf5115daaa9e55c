//! What instances say to each other. Sealed by [`crate::control`] and carried by the broker shell; every
//! message is authentic when it arrives here.

mod choice;
pub mod standing;

pub use choice::{Choice, Wish};
pub use standing::Standing;

use serde::{Deserialize, Serialize};

use crate::message::RawMessage;
use crate::model::{AgentId, BootId, Destination, InstanceId, Mobile, Secret, User};

/// Role of an instance in a group; one spelling everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Learning what its peers know; does not consume.
    #[default]
    Joining,
    /// Serves.
    Leader,
    /// Stands by.
    Follower,
    /// Stopped by an operator.
    Disabled,
    /// Serves; the peer cannot take over.
    LeaderSingleNode,
    /// Finishing what is started before it stops serving.
    Draining,
}

impl Role {
    /// All, for metrics.
    pub const ALL: [Self; 6] = [
        Self::Joining,
        Self::Leader,
        Self::Follower,
        Self::Disabled,
        Self::LeaderSingleNode,
        Self::Draining,
    ];

    /// The spelling used in the API, metrics and consumer tags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Disabled => "disabled",
            Self::LeaderSingleNode => "leader-single-node",
            Self::Draining => "draining",
        }
    }

    /// Whether an instance of this role serves commands.
    #[must_use]
    pub fn leads(self) -> bool {
        matches!(self, Self::Leader | Self::LeaderSingleNode)
    }
}

/// Orders two accounts of one session: the greater wins, field by field from the top.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Fencing epoch of the owner.
    pub epoch: u64,
    /// Decides between two owners of one epoch, after a cut between the sites: [`Self::LOCAL`]
    /// where the owner hears the agent's client at its own broker, plus its consumer priority.
    /// Never falls within an epoch.
    #[serde(default)]
    pub rank: u16,
    /// Who wrote it.
    pub owner: InstanceId,
    /// Writes of that owner in that epoch.
    pub counter: u64,
}

impl Version {
    /// The owner hears the agent's client at its own broker.
    pub const LOCAL: u16 = 256;
}

/// An agent session as it travels between instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Whose.
    pub agent: AgentId,
    /// Version; only the owner writes.
    pub version: Version,
    /// Client destination the agent is bound to.
    pub destination: Destination,
    /// Extension of the last sign-in.
    pub extension: Option<String>,
    /// The agent's password: sealed a second time ([`crate::control`]).
    #[serde(with = "exposed")]
    pub password: Secret,
    /// The phone of a mobile agent; the other node does not know it after a failover.
    #[serde(default)]
    pub mobile: Option<Mobile>,
    /// Teams whose members this supervisor watches: the platform's subscriptions do not carry over
    /// to another node.
    #[serde(default)]
    pub watched: Vec<String>,
    /// Whether the agent asked to be signed in.
    pub signed_in: bool,
    /// Last known state.
    pub user: Option<Box<User>>,
    /// Ended: kept for a while so that an older account does not bring it back.
    pub tombstone: bool,
    /// Name of the group whose queue its Connect came through; empty is the first group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// When the newest state change that was carried out had been sent, seconds since the epoch:
    /// an older one that comes again must not undo it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_change: Option<u64>,
    /// Host of the downstream node at which its owner saw the agent signed in last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl SessionRecord {
    /// About as many bytes as it takes in a message, on the high side.
    #[must_use]
    pub fn weight(&self) -> usize {
        // Names of fields, quotes, and the short texts.
        const REST: usize = 1_000;
        const TEAM: usize = 32;
        let user = self.user.as_deref();
        let teams = user.map_or(0, |user| {
            let teams = user.teams.iter();
            teams
                .map(|team| TEAM + team.id.len() + team.name.len())
                .sum()
        });
        let watched: usize = self.watched.iter().map(|team| TEAM + team.len()).sum();
        REST + self.destination.as_str().len() + teams + watched
    }

    /// Whether two accounts differ in nothing that must survive a restart: state is read anew.
    #[must_use]
    pub fn same_but_state(&self, other: &Self) -> bool {
        (
            &self.agent,
            &self.destination,
            &self.extension,
            &self.password,
            &self.group,
            &self.mobile,
            &self.watched,
            &self.node,
            &self.newest_change,
        ) == (
            &other.agent,
            &other.destination,
            &other.extension,
            &other.password,
            &other.group,
            &other.mobile,
            &other.watched,
            &other.node,
            &other.newest_change,
        ) && (self.signed_in, self.tombstone) == (other.signed_in, other.tombstone)
            && (self.version.epoch, &self.version.owner)
                == (other.version.epoch, &other.version.owner)
    }
}

/// An outcome, so that a late duplicate is answered and not run by whoever receives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    /// Digest of (addressee, command, id).
    pub key: [u8; 16],
    /// Digest of the body.
    pub body: [u8; 8],
    /// Remembered until then, milliseconds since the epoch.
    pub until: u64,
    /// The reply's content, as JSON.
    pub reply: crate::reply::Reply,
    /// It was in doubt, and its client has been told what became of it since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resolved: bool,
}

/// A non-idempotent call may be made for this command: durable at its maker and acknowledged by
/// every member before the call. It holds no arguments and so no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentRecord {
    /// Digest of (addressee, command, id).
    pub key: [u8; 16],
    /// Digest of the body.
    pub body: [u8; 8],
    /// Remembered until then, milliseconds since the epoch.
    pub until: u64,
    /// Whose command: an agent, or the key of a generic HTTP command.
    #[serde(deserialize_with = "AgentId::deserialize_key")]
    pub agent: AgentId,
    /// Its name.
    pub command: String,
    /// The maker's epoch for the agent.
    pub epoch: u64,
    /// Who makes the call.
    pub by: InstanceId,
    /// The maker's start.
    pub boot: BootId,
    /// When, milliseconds since the epoch by the maker's clock.
    pub at: u64,
    /// A known member was lost: the call is made without its word.
    #[serde(default)]
    pub alone: bool,
}

/// Why a member does not acknowledge an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentRefusal {
    /// Its own epoch for the agent is newer: the sender is not the owner any more.
    Stale,
    /// It knows an intent of another maker for this id.
    Known,
}

/// A group as its member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Name.
    pub name: String,
    /// The member's role.
    pub role: Role,
    /// Its configured consumer priority.
    pub priority: u8,
    /// Highest leadership term it knows of.
    pub term: u64,
    /// Whether it may lead: not joining, not stopped, not draining, a downstream in reach.
    pub eligible: bool,
    /// It leads and wants to give the group away, in order, to whoever claims it.
    #[serde(default)]
    pub leaving: bool,
    /// What operators decided last, as far as the member knows.
    #[serde(default)]
    pub choice: Option<Choice>,
}

/// Sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts up within a boot.
    pub seq: u64,
    /// Site.
    pub site: String,
    /// Product version.
    pub version: String,
    /// `active-passive` or `active-active`.
    pub mode: String,
    /// Wall-clock start of the process, milliseconds: "first come".
    pub started: u64,
    /// Until when its process before this one had commands in work, milliseconds since the epoch; 0:
    /// there was none, or it had finished all that it began.
    #[serde(default)]
    pub former: u64,
    /// Groups.
    pub groups: Vec<GroupState>,
    /// Label of the broker it is attached to.
    pub broker: String,
    /// Sessions it owns.
    pub owned: u64,
    /// Sessions it knows.
    pub total: u64,
    /// Digest of its table of sessions; 0 from a version that sends none, or another one under the
    /// former name `digest`.
    #[serde(default, rename = "table_digest")]
    pub digest: u64,
    /// The last heartbeats it received: (peer, boot, seq, milliseconds ago).
    pub echo: Vec<(InstanceId, BootId, u64, u64)>,
    /// Whether it keeps a journal and acknowledges intents.
    #[serde(default)]
    pub journal: bool,
    /// Whether it says which sessions it knows.
    #[serde(default)]
    pub shares: bool,
    /// Members that have everything of its journal.
    #[serde(default)]
    pub settled: Vec<InstanceId>,
    /// How it stands; empty from a version that sends none.
    #[serde(default)]
    pub standing: Standing,
    /// Node of its broker on which its control queue is, where the queue's name says so. The broker
    /// shell fills it in, and reads it where it counts consumers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub control_node: String,
}

/// One step, as it is told to whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceRow {
    /// When, milliseconds since the epoch; `None` where that is not kept.
    pub at: Option<u64>,
    /// Who did it.
    pub instance: String,
    /// Command.
    pub command: String,
    /// Agent or destination.
    pub addressee: String,
    /// Command id.
    pub command_id: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// Trace id.
    pub trace_id: Option<String>,
    /// One of a fixed set of words.
    pub stage: String,
    /// More, for people.
    pub detail: String,
}

/// Why a forwarded command was not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardRefusal {
    /// The receiver does not own that agent.
    NotOwner,
    /// It has no room.
    Busy,
}

/// A message between instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PeerMessage {
    /// Sign of life.
    Heartbeat(Heartbeat),
    /// A newcomer asks for what the others know.
    Hello,
    /// Everything the sender knows, in parts.
    Snapshot {
        /// Part number from 0.
        part: u32,
        /// Number of parts.
        parts: u32,
        /// Sessions, tombstones included.
        sessions: Vec<SessionRecord>,
        /// Destinations that said Hello.
        destinations: Vec<Destination>,
    },
    /// What changed.
    Delta {
        /// Sessions, tombstones included.
        sessions: Vec<SessionRecord>,
        /// New destinations.
        destinations: Vec<Destination>,
        /// Outcomes.
        outcomes: Vec<OutcomeRecord>,
    },
    /// Sessions that the receiver is to know before a client is told of them.
    Share {
        /// The sender's number of it.
        number: u64,
        /// As in [`Self::Delta`].
        sessions: Vec<SessionRecord>,
    },
    /// The sender knows these sessions.
    Shared {
        /// The receiver's number of it.
        number: u64,
    },
    /// What the sender had begun when it owned this agent has changed the session: the receiver,
    /// who owns it now, is to write that.
    SessionChanged {
        /// The session as the sender knows it.
        record: SessionRecord,
    },
    /// Intents and outcomes of non-idempotent commands; acknowledged once they are durable.
    Journal {
        /// Calls that are about to be made, or may have been made.
        intents: Vec<IntentRecord>,
        /// How such commands ended.
        outcomes: Vec<OutcomeRecord>,
        /// Intents whose call was not made and will not be.
        withdrawn: Vec<[u8; 16]>,
        /// When each of those was made (`IntentRecord::at`), in the same order: one that was made
        /// anew since is not meant. Empty from versions that do not tell it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        withdrawn_made: Vec<u64>,
        /// Told because the receiver was away: nothing is decided on it.
        #[serde(default)]
        history: bool,
    },
    /// The answer to [`Self::Journal`].
    JournalAck {
        /// Intents that are durable.
        intents: Vec<[u8; 16]>,
        /// When each of them was made (`IntentRecord::at`), in the same order: one that was taken
        /// back and made anew has the same key. Empty from versions that do not tell it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        made: Vec<u64>,
        /// Outcomes that are durable.
        outcomes: Vec<[u8; 16]>,
        /// Those of both that the sender's disk did not take: it forgets them when it ends. Not told
        /// by earlier versions.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unkept: Vec<[u8; 16]>,
        /// Intents that are not acknowledged.
        refused: Vec<([u8; 16], IntentRefusal)>,
    },
    /// A higher-priority member wants to lead a group.
    Claim {
        /// Group.
        group: String,
        /// Term it would lead in.
        term: u64,
    },
    /// The leader has finished what it had started and gives the group away.
    Grant {
        /// Group.
        group: String,
        /// Term of the claim.
        term: u64,
    },
    /// Active-active: the agent's client is at the sender's broker now, and the sender has the
    /// subscription already.
    ClaimAgent {
        /// Whose.
        agent: AgentId,
    },
    /// The owner has finished what it had started; the agent is the receiver's, in the record's
    /// epoch.
    GrantAgent {
        /// The session as the former owner leaves it.
        record: SessionRecord,
    },
    /// The agent stays where it is, for now.
    RefuseAgent {
        /// Whose.
        agent: AgentId,
    },
    /// A command handed to the owner; the sender holds the delivery.
    Forward {
        /// The sender's number of it.
        id: u64,
        /// As it came.
        raw: RawMessage,
    },
    /// A forwarded command is finished: its reply is confirmed.
    ForwardDone {
        /// The sender's number of it.
        id: u64,
    },
    /// A forwarded command was not run.
    ForwardRefused {
        /// The sender's number of it.
        id: u64,
        /// Why.
        why: ForwardRefusal,
    },
    /// The sender withdraws a forwarded command: its delivery is gone.
    ForwardWithdrawn {
        /// The sender's number of it.
        id: u64,
    },
    /// What does the receiver know of a command? For people: nothing is decided on it.
    TraceAsk {
        /// The sender's number of it.
        number: u64,
        /// Command or correlation id.
        id: String,
    },
    /// The answer to [`Self::TraceAsk`].
    TraceAnswer {
        /// The receiver's number of it.
        number: u64,
        /// What is known.
        rows: Vec<TraceRow>,
    },
    /// The sender is leaving in order.
    Goodbye,
    /// A kind that this version does not know; ignored.
    #[serde(other)]
    Unknown,
}

impl PeerMessage {
    /// Passes every secret in the message through `f` ([`crate::control`] seals and opens them).
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn map_secrets<E>(
        &mut self,
        mut f: impl FnMut(&Secret) -> Result<Secret, E>,
    ) -> Result<(), E> {
        if let Self::Snapshot { sessions, .. }
        | Self::Delta { sessions, .. }
        | Self::Share { sessions, .. } = self
        {
            for session in sessions {
                session.password = f(&session.password)?;
            }
        }
        if let Self::GrantAgent { record } | Self::SessionChanged { record } = self {
            record.password = f(&record.password)?;
        }
        Ok(())
    }

    /// Name for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Heartbeat(_) => "heartbeat",
            Self::Hello => "hello",
            Self::Snapshot { .. } => "snapshot",
            Self::Delta { .. } => "delta",
            Self::Share { .. } => "share",
            Self::Shared { .. } => "shared",
            Self::SessionChanged { .. } => "session_changed",
            Self::Journal { .. } => "journal",
            Self::JournalAck { .. } => "journal_ack",
            Self::Claim { .. } => "claim",
            Self::Grant { .. } => "grant",
            Self::ClaimAgent { .. } => "claim_agent",
            Self::GrantAgent { .. } => "grant_agent",
            Self::RefuseAgent { .. } => "refuse_agent",
            Self::Forward { .. } => "forward",
            Self::ForwardDone { .. } => "forward_done",
            Self::ForwardRefused { .. } => "forward_refused",
            Self::ForwardWithdrawn { .. } => "forward_withdrawn",
            Self::TraceAsk { .. } => "trace_ask",
            Self::TraceAnswer { .. } => "trace_answer",
            Self::Goodbye => "goodbye",
            Self::Unknown => "unknown",
        }
    }
}

/// Serialises a secret as it stands: only for messages that are sealed as a whole, with the
/// secret itself sealed before (see [`PeerMessage::map_secrets`]).
mod exposed {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::Secret;

    pub fn serialize<S: Serializer>(secret: &Secret, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(secret.expose())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Secret, D::Error> {
        String::deserialize(input).map(Secret::new)
    }
}
