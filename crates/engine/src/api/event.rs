//! Happenings: one variant a happening, from which telemetry makes the log line and the metric.

use std::sync::Arc;

use crate::model::InstanceId;
use crate::wire::reply::Outcome;

use crate::jobs::life::{Stage, Tag};
use crate::peer::Role;

/// Something worth a log line or a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A command got its outcome.
    CommandFinished {
        /// Catalogue name.
        command: &'static str,
        /// By what it is known.
        tag: Arc<Tag>,
        /// Outcome.
        outcome: Outcome,
        /// Why it was not done: `error.code`.
        code: Option<String>,
        /// Host of the downstream that was asked, where one was.
        downstream: Option<String>,
        /// Its HTTP status.
        status: Option<u16>,
        /// Id of the last request.
        request_id: Option<String>,
        /// From delivery to outcome, milliseconds.
        millis: u64,
        /// From delivery to start, milliseconds.
        waited: u64,
        /// Whether the client gave it an id.
        identified: bool,
    },
    /// A stage in the life of a command that has an id.
    Stage {
        /// Which command.
        tag: Arc<Tag>,
        /// What.
        stage: Stage,
    },
    /// A message went to the dead letters.
    DeadLettered {
        /// By what it is known.
        tag: Arc<Tag>,
        /// Bounded label.
        reason: &'static str,
        /// For people.
        detail: String,
    },
    /// A command was answered `IN_DOUBT`.
    InDoubt {
        /// Which one.
        tag: Arc<Tag>,
    },
    /// A delivery of a command that was known already.
    Duplicate {
        /// Which one.
        tag: Arc<Tag>,
        /// Bounded label: `running`, `finished`, `other_body`.
        kind: &'static str,
    },
    /// The attachment to a broker changed.
    BrokerLink {
        /// Label of the broker.
        broker: String,
        /// Whether a link to it is up.
        up: bool,
        /// Why it is not.
        reason: String,
    },
    /// A link was lost because what the broker sent could not be read.
    LinkGarbled {
        /// Label of the broker.
        broker: String,
        /// What was wrong.
        problem: String,
        /// How often in a row, with the same words.
        times: u32,
    },
    /// Service moved to another broker.
    BrokerFailover {
        /// From, empty at start.
        from: String,
        /// To.
        to: String,
    },
    /// A broker blocks publications (memory or disk alarm), or takes them again.
    BrokerBlocked {
        /// Label.
        broker: String,
        /// Whether it blocks.
        blocked: bool,
    },
    /// A way through a broker was lost, or works again.
    BrokerWay {
        /// Label.
        broker: String,
        /// Bounded label of the way.
        way: &'static str,
        /// What does not work, in words, and why; `None`: it works again.
        lost: Option<(&'static str, String)>,
    },
    /// Two brokers of the list turn out to be one.
    OneCluster {
        /// Which, in words.
        problem: String,
    },
    /// A command consumer ended without our asking.
    ConsumerLost {
        /// Queue group.
        group: String,
        /// Why.
        reason: String,
    },
    /// The role in a group changed.
    RoleChanged {
        /// Group.
        group: String,
        /// Before.
        from: Role,
        /// After.
        to: Role,
        /// Why.
        reason: &'static str,
    },
    /// An operator's word about a group.
    Operator {
        /// Group.
        group: String,
        /// What, in words.
        what: String,
    },
    /// This instance serves a group, and nobody could take over, or another one may serve too.
    Alone {
        /// Group.
        group: String,
        /// Bounded label: `failover-off`, `group-names`, `auth-failed`, `peer-unreachable`.
        reason: &'static str,
        /// In words.
        detail: String,
    },
    /// Sessions of a lost or released peer are being taken.
    TakeoverStarted {
        /// Why.
        reason: &'static str,
        /// How many, those of a takeover that goes on included.
        agents: usize,
    },
    /// All of them have their subscription.
    TakeoverFinished {
        /// Why.
        reason: &'static str,
        /// How many.
        agents: usize,
        /// How long, milliseconds.
        millis: u64,
    },
    /// An agent followed its client: another instance granted it.
    AgentMoved {
        /// Agent.
        agent: String,
        /// Who owned it.
        from: InstanceId,
    },
    /// A peer was heard, for the first time or again.
    PeerUp {
        /// Who.
        peer: InstanceId,
    },
    /// A peer is not heard.
    PeerSuspect {
        /// Who.
        peer: InstanceId,
    },
    /// Connections of a silent peer were closed at a broker, or could not be.
    Fenced {
        /// Who.
        peer: InstanceId,
        /// Label of the broker.
        broker: String,
        /// How many; or why not.
        closed: Result<u32, String>,
    },
    /// A peer is lost.
    PeerLost {
        /// Who.
        peer: InstanceId,
        /// Why we think so.
        reason: &'static str,
    },
    /// A peer's messages are not authentic.
    PeerRejected {
        /// Who it claims to be.
        peer: Option<InstanceId>,
        /// Bounded label.
        reason: &'static str,
    },
    /// Round trip of a heartbeat.
    PeerRoundTrip {
        /// Who.
        peer: InstanceId,
        /// Milliseconds.
        millis: u64,
    },
    /// A downstream node's state changed.
    DownstreamState {
        /// Host.
        node: String,
        /// Whether it is usable.
        up: bool,
        /// Why it is not.
        reason: String,
    },
    /// Requests and subscriptions moved to the other node.
    DownstreamFailover {
        /// From.
        from: String,
        /// To.
        to: String,
    },
    /// No downstream node is usable: clients are told and consuming stops; or one is again.
    Service {
        /// Whether in service.
        available: bool,
    },
    /// A subscription could not be had or was lost.
    SubscriptionLost {
        /// Bounded label: `refused`, `unreachable`, `lost`, `conflict`.
        kind: &'static str,
        /// Agent.
        agent: String,
        /// Why.
        reason: String,
    },
    /// This machine lacks what something takes: nobody else is to blame.
    Shortage {
        /// Bounded label: `descriptors`, `ports`, `memory`, `threads`.
        of: &'static str,
        /// What the system said.
        reason: String,
        /// Whether it is the first one after a while.
        began: bool,
    },
    /// An event was handed to the broker.
    EventPublished,
    /// An event was dropped: too many wait for a broker, or its client's queue refuses it.
    EventDropped,
    /// A reply found no queue.
    ReplyUnroutable,
    /// Sessions could not be made durable; it is tried again.
    NotKept {
        /// Why.
        reason: String,
    },
    /// The journal could not take a write; non-idempotent commands are refused until it can.
    NotJournaled {
        /// Why.
        reason: String,
    },
    /// A command that was answered `IN_DOUBT` was found out.
    Resolved {
        /// What became of it.
        outcome: Outcome,
    },
    /// Two instances tell different definite outcomes of one command.
    DoubleEffect {
        /// Catalogue name.
        command: String,
        /// Agent or destination.
        agent: String,
        /// Each outcome and by whom it is told: this instance's first.
        outcomes: [String; 2],
    },
    /// Something became known of a command that cannot be, as far as it was: a mistake of this
    /// program, which changed nothing.
    ImpossibleStep {
        /// How far the command was.
        state: &'static str,
        /// What became known.
        evidence: &'static str,
    },
    /// A late answer was ignored.
    Stale {
        /// Of what.
        what: &'static str,
    },
    /// An outcome was forgotten early because too many are remembered.
    LedgerOverflow {
        /// For how long outcomes are remembered now, milliseconds.
        for_ms: u64,
    },
    /// This process was stopped or starved and doubts what it knows.
    OwnPause {
        /// Milliseconds.
        millis: u64,
    },
}
