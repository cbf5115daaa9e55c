//! Everything the connector can experience.

use crate::model::{AgentId, CallOutcome, InstanceId, NodeHealth, Shortage, Update};
use crate::wire::command::{ClientCommand, Malformed};
use crate::wire::message::RawMessage;

use crate::api::ids::{
    BootId, CallId, DeliveryId, JournalId, LinkEpoch, PublishId, SubscriptionEpoch, VerbId,
};
use crate::api::way::{Proof, Way};
use crate::peer::PeerMessage;
use crate::peer::TraceRow;

/// Where a delivery was consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A command queue of the group with this index.
    Commands {
        /// Index into the configured groups.
        group: usize,
    },
    /// The queue of commands that the broker expired.
    Expired,
}

/// A message from a queue, already read (or found unreadable) by the wire module.
#[derive(Debug)]
pub struct Delivery {
    /// Its number, for the acknowledgement.
    pub id: DeliveryId,
    /// Where from.
    pub source: Source,
    /// As it came.
    pub raw: RawMessage,
    /// As it was understood.
    pub command: Result<ClientCommand, Box<Malformed>>,
}

/// What the broker said to a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The broker has it (or, without confirmation, it was written).
    Confirmed,
    /// No queue took it.
    Untaken,
    /// Refused by a negative confirm: a queue that it was for is full and says so.
    Refused,
    /// Refused for good: no right to write there, or nothing there to write to. [`Input::Barred`]
    /// says so before, and why.
    Barred,
    /// Not taken: channel or connection gone, time up.
    Failed,
}

/// A change in a notification subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Established.
    Up,
    /// The service refused the credentials; trying again with the same ones is of no use.
    Refused {
        /// Why, without secrets.
        reason: String,
    },
    /// The service could not be reached.
    Unreachable {
        /// Why.
        reason: String,
    },
    /// Not tried: this machine lacks what it takes. Nothing is known of the service.
    NoRoom(Shortage),
    /// Was up and is gone.
    Lost {
        /// Why.
        reason: String,
        /// Another session with the same resource ended it.
        conflict: bool,
    },
    /// A notification.
    Update(Update),
}

impl Notice {
    /// Whether nothing follows it: the session, or the attempt at one, is over.
    #[must_use]
    pub fn ends(&self) -> bool {
        match self {
            Self::Up | Self::Update(_) => false,
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::NoRoom(_)
            | Self::Lost { .. } => true,
        }
    }
}

/// An operator's verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Stop a group on this instance; another one takes over.
    GroupStop(String),
    /// Start it again.
    GroupStart(String),
    /// Stop a group on this instance and switch its failover off: nobody takes over.
    FailoverStop(String),
    /// This instance leads the group from now on, whatever the priorities.
    FailoverStart(String),
    /// An operator's choice for the group ends: priority decides again.
    FailoverAuto(String),
    /// Hand every group over to this instance, which keeps it whatever the priorities.
    Switchover(String),
    /// A member that is gone for good is no cause of doubt any more.
    Forget(String),
    /// Finish what is started, hand over, stop consuming, stay up.
    Drain,
}

/// Everything the connector can experience.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "an input is moved into the engine once and never stored"
)]
pub enum Input {
    /// Time has passed; nothing else happened.
    Tick,

    /// A dialled link is open, and what commands are taken from is there.
    LinkUp {
        /// Which.
        link: LinkEpoch,
        /// Which of the broker's nodes it leads to, `host:port`; empty where it has one address.
        node: String,
        /// The broker's name for itself or its cluster; empty where it says none.
        cluster: String,
    },
    /// A link could not be opened, or is gone with all its deliveries.
    LinkDown {
        /// Which.
        link: LinkEpoch,
        /// Why, without credentials.
        reason: String,
    },
    /// What came on a link could not be read, by its shell's reader or the guard before it. `LinkDown`
    /// follows.
    LinkGarbled {
        /// Which.
        link: LinkEpoch,
        /// What was wrong; the same words for the same cause.
        problem: String,
    },
    /// The own control queue is consumed on this link; peer messages can arrive.
    ControlAttached {
        /// Which link.
        link: LinkEpoch,
    },
    /// Another process consumes the own control queue and keeps it: it has the same instance id.
    IdInUse {
        /// On which link.
        link: LinkEpoch,
    },
    /// The broker stopped (or resumed) taking publications.
    LinkBlocked {
        /// Which link.
        link: LinkEpoch,
        /// Whether it is blocked now.
        blocked: bool,
    },
    /// A command consumer is registered.
    Consuming {
        /// On which link.
        link: LinkEpoch,
        /// Group index.
        group: usize,
        /// Consumer tag.
        tag: String,
    },
    /// A command consumer ended without our asking, or could not be registered.
    ConsumerLost {
        /// On which link.
        link: LinkEpoch,
        /// Group index.
        group: usize,
        /// Consumer tag.
        tag: String,
        /// Why.
        reason: String,
    },
    /// The broker's own list does not have a command consumer that was confirmed, or has it with
    /// another priority: it is to be registered anew.
    ConsumerUnlisted {
        /// Consumer tag.
        tag: String,
        /// What the list says.
        reason: String,
    },
    /// A message from a queue. Boxed: it is far larger than every other input.
    Delivery(Box<Delivery>),
    /// The broker's word on a publication.
    Published {
        /// Which.
        publish: PublishId,
        /// What it said.
        outcome: PublishOutcome,
    },
    /// A broker refused something that it must do for us. What one client's queue refuses is not
    /// told here.
    Barred {
        /// On which link.
        link: LinkEpoch,
        /// What.
        way: Way,
        /// Why, in the broker's words, without credentials.
        reason: String,
    },
    /// The answer to [`crate::api::command::BrokerCommand::Prove`], `ConsumeExpired` or `DeclareDeadLetters`.
    Proved {
        /// On which link.
        link: LinkEpoch,
        /// What.
        way: Way,
        /// How it ended.
        proof: Proof,
    },

    /// A downstream request ended.
    CallDone {
        /// Which.
        call: CallId,
        /// How.
        outcome: CallOutcome,
    },
    /// A health probe of a downstream node ended.
    Probed {
        /// Index of the node.
        node: usize,
        /// What it said.
        health: NodeHealth,
    },
    /// Something about a subscription.
    Notice {
        /// Whose.
        agent: AgentId,
        /// Which attempt.
        subscription: SubscriptionEpoch,
        /// What.
        notice: Notice,
    },

    /// An authentic message of a peer.
    Peer {
        /// Sender.
        from: InstanceId,
        /// Sender's start.
        boot: BootId,
        /// Content.
        message: PeerMessage,
    },
    /// A peer message that could not be authenticated, or was replayed.
    PeerRejected {
        /// Who it claims to be from.
        claimed: Option<InstanceId>,
        /// Bounded label: `wrong_key`, `replayed`, `version`, `malformed`.
        reason: &'static str,
    },
    /// A message of the own control queue whose properties cannot be read. It is acknowledged.
    Unreadable(Box<RawMessage>),
    /// Consumers of a peer's control queue, as the broker of a link counts them.
    PeerConsumers {
        /// The link it was asked on.
        link: LinkEpoch,
        /// Whose queue.
        peer: InstanceId,
        /// The count; 0 where the queue does not exist.
        count: u32,
    },
    /// A broker was asked to close a peer's connections.
    Fenced {
        /// Index of the broker.
        broker: usize,
        /// Whose.
        peer: InstanceId,
        /// How many were closed; or why none.
        closed: Result<u32, String>,
    },

    /// The store has (or could not take) what [`crate::api::command::StoreCommand::Keep`] gave it.
    Kept {
        /// Why not; `None`: it is on disk.
        failure: Option<String>,
    },
    /// The journal has (or could not take) writes.
    Journaled {
        /// Which.
        ids: Vec<JournalId>,
        /// Why not, in words; `None`: they are on disk.
        failure: Option<String>,
    },
    /// Somebody wants to know what happened to a command.
    TraceWanted {
        /// Number, for the answers.
        number: u64,
        /// Its command or correlation id.
        id: String,
    },
    /// What this instance knows of a command that a member asked for.
    TraceTold {
        /// Who asked.
        to: InstanceId,
        /// The asker's number.
        number: u64,
        /// What is known.
        rows: Vec<TraceRow>,
    },
    /// An operator's verb.
    Operator {
        /// Number, for the answer.
        id: VerbId,
        /// What.
        verb: Verb,
    },
    /// The process is asked to end: drain, then [`crate::api::command::LifeCommand::Exit`].
    Shutdown,
}
