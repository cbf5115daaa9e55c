//! Everything the connector can do.
//!
//! Ordering is in the engine, not in the commands: what must wait for something else is only
//! emitted once that has happened (an acknowledgement after the confirm of its reply, a start after
//! the claim was granted, a non-idempotent call after its intent is durable here and at every
//! member). What was emitted a shell carries out in the order in which it came.

use crate::api::event::Event;
use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Action, AgentId, Cause, Destination, InstanceId, Secret, Trace};
use crate::wire::event::ClientEvent;
use crate::wire::message::RawMessage;
use crate::wire::reply::Reply;

use crate::api::ids::{
    CallId, DeliveryId, JournalId, LinkEpoch, PublishId, SubscriptionEpoch, VerbId,
};
use crate::api::way::Way;
use crate::peer::TraceRow;
use crate::peer::{Choice, IntentRecord, OutcomeRecord, PeerMessage, SessionRecord};

/// Way of a reply to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyRoute {
    /// The queue of that name at this broker. Told where there is none.
    Near(String),
    /// The queue of that name at whichever broker it is. Told where this one knows of none.
    Far(String),
    /// The client's own connection at this broker, by an address that is good for it alone: on a
    /// connection of its own, and nobody tells whether it arrived.
    Direct(String),
}

/// A message to publish.
#[derive(Debug, Clone)]
pub enum Outbound {
    /// To a client destination, at whichever brokers it listens.
    Event {
        /// Whose.
        to: Destination,
        /// Content.
        event: Arc<ClientEvent>,
        /// Correlation and trace of the command that caused it.
        cause: Cause,
        /// The owner's epoch for the agent.
        epoch: u64,
        /// Unique id; the same when it is published again after a lost link.
        message_id: String,
    },
    /// The terminal answer to a command.
    Reply {
        /// Way.
        route: ReplyRoute,
        /// Content.
        reply: Arc<Reply>,
        /// Correlation and trace of the command.
        cause: Cause,
        /// Unique id.
        message_id: String,
    },
    /// Something that could not be understood, answered or delivered.
    DeadLetter {
        /// The message it is about; its body is redacted by the wire module.
        raw: Arc<RawMessage>,
        /// Bounded label of why.
        reason: &'static str,
        /// More, for people; without secrets.
        detail: String,
    },
    /// A reply that no queue took, parked with the dead letters.
    ParkedReply {
        /// Whom it was for.
        reply_to: String,
        /// Content.
        reply: Arc<Reply>,
        /// Correlation and trace of the command.
        cause: Cause,
    },
    /// To one peer, or to all.
    Peer {
        /// `None` is all.
        to: Option<InstanceId>,
        /// Content.
        message: Box<PeerMessage>,
    },
}

impl Outbound {
    /// What the broker has to do for it.
    pub(crate) fn way(&self) -> Way {
        match self {
            Self::Event { .. } => Way::Events,
            Self::Reply {
                route: ReplyRoute::Far(_),
                ..
            } => Way::FarReplies,
            Self::Reply { .. } | Self::DeadLetter { .. } | Self::ParkedReply { .. } => Way::Replies,
            Self::Peer { .. } => Way::Peers,
        }
    }

    /// Whether it goes into the queue of dead letters.
    pub(crate) fn ours(&self) -> bool {
        matches!(self, Self::DeadLetter { .. } | Self::ParkedReply { .. })
    }

    /// A reply takes the other way: its queue here, or wherever it is.
    pub(crate) fn flip_route(&mut self) {
        if let Self::Reply { route, .. } = self {
            *route = match std::mem::replace(route, ReplyRoute::Direct(String::new())) {
                ReplyRoute::Near(name) => ReplyRoute::Far(name),
                ReplyRoute::Far(name) => ReplyRoute::Near(name),
                direct @ ReplyRoute::Direct(_) => direct,
            };
        }
    }
}

/// A downstream request.
#[derive(Debug, Clone)]
pub struct Call {
    /// Number.
    pub id: CallId,
    /// Index of the node.
    pub node: usize,
    /// Whose request, and with whose credentials.
    pub agent: AgentId,
    /// The agent's password.
    pub password: Secret,
    /// Value of the platform's `requestId`.
    pub request_id: String,
    /// The trace of the command that it is for.
    pub trace: Option<Arc<Trace>>,
    /// What.
    pub action: Action,
}

/// What must survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// Changed sessions; `None`: gone.
    pub sessions: Vec<(AgentId, Option<SessionRecord>)>,
    /// New client destinations.
    pub destinations: Vec<Destination>,
    /// Client destinations that are to be forgotten.
    pub forgotten: Vec<Destination>,
    /// No fencing epoch above this one is used before it is durable.
    pub epoch: u64,
    /// Changed groups.
    pub groups: Vec<KeptGroup>,
}

/// What operators decided about a group, on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptGroup {
    /// Name.
    pub name: String,
    /// Whether it is stopped on this instance.
    pub stopped: bool,
    /// What holds for all members.
    pub choice: Option<Choice>,
    /// As many times `takeback.hold` passes before the lead is taken back: more than 1 where that
    /// did not last, or where it was taken back just now and nobody knows yet whether it lasts.
    #[serde(default = "once")]
    pub hold_factor: u64,
    /// It was stopped here before failover was switched off here.
    #[serde(default)]
    pub stopped_first: bool,
}

fn once() -> u64 {
    1
}

/// One change of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalWrite {
    /// A non-idempotent call may be made.
    Intent(IntentRecord),
    /// How a command with an intent ended.
    Outcome(OutcomeRecord),
    /// The call was not made and will not be.
    Withdraw([u8; 16]),
    /// A member was heard, at that time (milliseconds since the epoch): what it may have done
    /// counts, also after a restart.
    Member(InstanceId, u64),
}

/// Everything the connector can do, by whose work it is.
#[derive(Debug)]
pub enum Command {
    /// Brokers: links, consumers, deliveries, publications.
    Broker(BrokerCommand),
    /// Requests to the downstream.
    Downstream(DownstreamCommand),
    /// Subscriptions to the downstream's notifications.
    Notify(NotifyCommand),
    /// What survives a restart.
    Store(StoreCommand),
    /// Operators and the end of the process.
    Life(LifeCommand),
}

/// What is on its way out, in order: commands, and what is told.
#[derive(Debug, Default)]
pub(crate) struct Output {
    orders: VecDeque<Command>,
    events: VecDeque<Event>,
}

impl Output {
    pub(crate) fn push(&mut self, order: impl Into<Command>) {
        self.orders.push_back(order.into());
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn next(&mut self) -> Option<Command> {
        self.orders.pop_front()
    }

    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

macro_rules! by_whose_work {
    ($($work:ident($of:ty)),*) => {
        $(impl From<$of> for Command {
            fn from(order: $of) -> Self {
                Self::$work(order)
            }
        })*
    };
}

by_whose_work!(
    Broker(BrokerCommand),
    Downstream(DownstreamCommand),
    Notify(NotifyCommand),
    Store(StoreCommand),
    Life(LifeCommand)
);

/// What the broker shell does.
#[derive(Debug)]
pub enum BrokerCommand {
    /// Open a link: two connections, channels with confirms, own objects declared. Answered by
    /// `LinkUp` or `LinkDown`, within the broker time-out.
    Dial {
        /// Number of the new link.
        link: LinkEpoch,
        /// Index into the broker list.
        broker: usize,
    },
    /// Consume the own control queue on this link (exclusively, purged first). Answered by
    /// `ControlAttached`, `Barred` or `LinkDown`.
    AttachControl {
        /// Which link.
        link: LinkEpoch,
    },
    /// Close a link; its deliveries go back to the broker.
    CloseLink {
        /// Which.
        link: LinkEpoch,
    },
    /// Register a consumer for a group's queues, then cancel the group's former one on the link:
    /// there is no moment without a consumer. Answered by `Consuming` or `ConsumerLost`.
    Consume {
        /// On which link.
        link: LinkEpoch,
        /// Group index.
        group: usize,
        /// Among all consumers at this broker: the highest that has room is given the next one.
        priority: i32,
        /// Consumer tag.
        tag: String,
    },
    /// Cancel a group's consumer on a link.
    StopConsuming {
        /// On which link.
        link: LinkEpoch,
        /// Group index.
        group: usize,
    },
    /// Find out whether a way through a broker works, on a channel of its own and without leaving
    /// a trace. Answered by `Proved`, unless the link ends.
    Prove {
        /// On which link.
        link: LinkEpoch,
        /// Which way.
        way: Way,
    },
    /// Consume the queue of expired commands on a link, for as long as it lives. Answered by
    /// `Proved`; where it ends, by `Barred`.
    ConsumeExpired {
        /// On which link.
        link: LinkEpoch,
    },
    /// Declare the queue of dead letters again: it was deleted. Answered by `Proved`.
    DeclareDeadLetters {
        /// On which link.
        link: LinkEpoch,
    },
    /// Publish. Answered by `Published`.
    Publish {
        /// Number.
        id: PublishId,
        /// On which link.
        link: LinkEpoch,
        /// What.
        message: Outbound,
    },
    /// Acknowledge a delivery.
    Ack(DeliveryId),
    /// Give a delivery back to its queue.
    Requeue(DeliveryId),
    /// Ask the broker of a link how many consumers a peer's control queue has. Answered by
    /// `PeerConsumers`, or not at all.
    CountPeerConsumers {
        /// On which link.
        link: LinkEpoch,
        /// Whose queue.
        peer: InstanceId,
    },
    /// Close a peer's connections at a broker, through its management API: the peer is silent and
    /// may be frozen with deliveries in its hands. Answered by `Fenced`.
    Fence {
        /// Index of the broker.
        broker: usize,
        /// Whose.
        peer: InstanceId,
    },
}

/// What the downstream shell does.
#[derive(Debug)]
pub enum DownstreamCommand {
    /// Send a downstream request. Answered by `CallDone`, always. Boxed for its size.
    Call(Box<Call>),
    /// Probe a downstream node. Answered by `Probed`.
    Probe {
        /// Index of the node.
        node: usize,
    },
}

/// What the notification shell does.
#[derive(Debug)]
pub enum NotifyCommand {
    /// Hold a notification subscription. Answered by notices.
    Subscribe {
        /// Whose.
        agent: AgentId,
        /// Number of the attempt.
        subscription: SubscriptionEpoch,
        /// Index of the node.
        node: usize,
        /// XMPP domain of that node.
        domain: String,
        /// The agent's password.
        password: Secret,
    },
    /// Watch the members of a team through a subscription, which is up.
    WatchTeam {
        /// The supervisor.
        agent: AgentId,
        /// Which subscription.
        subscription: SubscriptionEpoch,
        /// Domain of the node's pubsub service.
        pubsub_domain: String,
        /// Team id.
        team: String,
    },
    /// End a subscription.
    Unsubscribe {
        /// Whose.
        agent: AgentId,
        /// Which.
        subscription: SubscriptionEpoch,
    },
}

/// What store and journal do.
#[derive(Debug)]
pub enum StoreCommand {
    /// Make sessions and destinations durable, sealed. One at a time: answered by `Kept`.
    Keep(Box<Keep>),
    /// Make a change of the journal durable. Answered by `Journaled`, always.
    Journal {
        /// Number.
        id: JournalId,
        /// What.
        write: Box<JournalWrite>,
    },
}

/// What the driver does itself.
#[derive(Debug)]
pub enum LifeCommand {
    /// Say what is known of a command: to a member (by `TraceTold`), or to whoever asked here.
    TellTrace {
        /// The member; `None`: it was asked here.
        to: Option<InstanceId>,
        /// The asker's number.
        number: u64,
        /// Command or correlation id.
        id: String,
        /// What the journal holds of it.
        journal: Vec<TraceRow>,
    },
    /// These members were asked for it.
    TraceAsked {
        /// Number.
        number: u64,
        /// Who.
        members: Vec<InstanceId>,
    },
    /// A member's answer.
    Traced {
        /// Who.
        from: InstanceId,
        /// Number.
        number: u64,
        /// What it knows.
        rows: Vec<TraceRow>,
    },
    /// Answer an operator's verb.
    VerbDone {
        /// Which.
        id: VerbId,
        /// What to say: the new state, or why not.
        result: Result<String, String>,
    },
    /// Everything is handed over: the process may end.
    Exit,
    /// This instance must not run: the process ends with this reason.
    Refuse(String),
}
