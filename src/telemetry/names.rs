//! Every metric: name, kind, unit, meaning.

use metrics::Unit;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution, with the upper bounds of its buckets in the metric's unit.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Unit.
    pub unit: Unit,
    /// What it says.
    pub help: &'static str,
}

/// From one downstream request on the spot to the longest wait that a deadline allows.
const COMMAND_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Up to `downstream.request-timeout`, with room.
const REQUEST_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0,
];
/// Round trips between sites.
const RTT_SECONDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0];
/// Takeovers: a second is good, a minute is an incident.
const TAKEOVER_SECONDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0];
/// Disks.
const FSYNC_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5];

macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:expr, $unit:ident, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: &str = concat!("tandem_", $name);
        )*

        /// All metrics.
        pub static METRICS: &[Metric] = &[
            $(Metric { name: $constant, kind: $kind, unit: Unit::$unit, help: $help },)*
        ];
    };
}

use Kind::{Counter, Gauge, Histogram};

metrics_table! {
    COMMANDS = "commands_total", Counter, Count, "Commands that got their outcome, by command and outcome.";
    COMMANDS_WITHOUT_ID = "commands_without_id_total", Counter, Count, "Commands without an identity: a repeated delivery of them cannot be told from a new command.";
    COMMAND_DURATION = "command_duration_seconds", Histogram(COMMAND_SECONDS), Seconds, "From delivery to outcome, by command.";
    COMMAND_QUEUE_WAIT = "command_queue_wait_seconds", Histogram(COMMAND_SECONDS), Seconds, "From delivery to start.";
    INFLIGHT_COMMANDS = "inflight_commands", Gauge, Count, "Commands in work, waiting ones included.";
    OUTBOX = "outbox_messages", Gauge, Count, "Publications that wait for a broker or its confirm.";
    SESSIONS = "sessions", Gauge, Count, "Agent sessions that are known, by ownership: owned by this instance, or foreign.";
    SESSIONS_SUBSCRIBED = "sessions_subscribed", Gauge, Count, "Owned agent sessions with an established notification subscription.";
    ROLE = "role", Gauge, Count, "1 for the role that this instance has in a group, 0 for the others.";
    ROLE_CHANGES = "role_changes_total", Counter, Count, "Changes of role, by group and new role.";
    CONSUMERS_LOST = "consumers_lost_total", Counter, Count, "Command consumers that ended without our asking, by group.";
    CONSUMER_PROOFS = "consumer_proofs_total", Counter, Count, "Comparisons of a command consumer with the broker's own list, by group and result: listed, missing, or unknown where the management API cannot be asked.";
    FEDERATION_LINKS = "federation_links", Gauge, Count, "Federation links of a broker, by state: running or down.";
    BROKER_CONNECTED = "broker_connected", Gauge, Count, "1 while a broker is connected.";
    BROKER_ATTACHED = "broker_attached", Gauge, Count, "1 for the broker that serves this instance.";
    BROKER_BLOCKED = "broker_blocked", Gauge, Count, "1 while a broker refuses publications (memory or disk alarm).";
    BROKER_GARBLED = "broker_garbled", Gauge, Count, "Links to a broker lost in a row because what it sent could not be read; 0 where that is over.";
    BROKER_WAY_LOST = "broker_way_lost", Gauge, Count, "1 while something that a broker has to do for an instance does not work, by way: commands, replies, events, publishing, far-replies, peers, control-queue, expired, dead-letters.";
    BROKER_FAILOVERS = "broker_failovers_total", Counter, Count, "Moves of service to a broker; from is `none` where no link was left to move from.";
    CALLBACKS = "callbacks_total", Counter, Count, "Events for HTTP callbacks that are done with, by outcome: posted, refused by the client, expired, or repeated where a copy was left out.";
    CALLBACK_FAILURES = "callback_failures_total", Counter, Count, "Attempts to post an event that failed and are repeated.";
    CALLBACK_DESTINATIONS = "callback_destinations", Gauge, Count, "Destinations whose events this instance posts, by the broker where they wait.";
    CALLBACK_WAITING = "callback_waiting_events", Gauge, Count, "Events that wait to be posted by this instance, by broker.";
    CALLBACK_FAILING = "callback_failing_destinations", Gauge, Count, "Destinations whose events are not taken now, by broker: the client refuses or does not answer, or the queue cannot be used.";
    CALLBACK_OLDEST = "callback_oldest_event_seconds", Gauge, Seconds, "Age of the oldest event that is being posted, by broker; 0 where none is.";
    IN_SERVICE = "in_service", Gauge, Count, "1 while a downstream node is usable.";
    DOWNSTREAM_UP = "downstream_up", Gauge, Count, "1 while a downstream node is usable, by node.";
    DOWNSTREAM_REQUESTS = "downstream_requests_total", Counter, Count, "Downstream requests, by node and class of the answer (`error`: none came).";
    DOWNSTREAM_REQUEST_DURATION = "downstream_request_duration_seconds", Histogram(REQUEST_SECONDS), Seconds, "Downstream requests from sending to answer, by node.";
    DOWNSTREAM_FAILOVERS = "downstream_failovers_total", Counter, Count, "Moves of requests and subscriptions to another downstream node.";
    SUBSCRIPTIONS_LOST = "subscriptions_lost_total", Counter, Count, "Notification subscriptions that could not be had or were lost, by kind.";
    NOTIFICATIONS_UNREADABLE = "notifications_unreadable_total", Counter, Count, "Notifications of the platform that could not be read: what they told is lost.";
    PEER_UP = "peer_up", Gauge, Count, "1 while a peer is heard.";
    PEER_LEFT = "peer_left", Gauge, Count, "1 while a peer is away that said goodbye: a planned stop.";
    PEER_LOST = "peer_lost_total", Counter, Count, "Peers that were lost, by reason.";
    PEER_REJECTED = "peer_rejected_total", Counter, Count, "Peer messages that were not authentic or not understood, by reason.";
    PEER_RTT = "peer_rtt_seconds", Histogram(RTT_SECONDS), Seconds, "Round trip of heartbeats, by peer.";
    TAKEOVERS = "takeovers_total", Counter, Count, "Takeovers of agent sessions that were started, by reason.";
    TAKEOVER_DURATION = "takeover_duration_seconds", Histogram(TAKEOVER_SECONDS), Seconds, "From the start of a takeover until every session has its subscription.";
    DUPLICATES = "duplicates_total", Counter, Count, "Deliveries of commands that were known already, by kind.";
    IN_DOUBT = "in_doubt_total", Counter, Count, "Commands answered IN_DOUBT.";
    RESOLVED = "resolved_total", Counter, Count, "Commands answered IN_DOUBT that were found out later.";
    DOUBLE_EFFECTS = "double_effects_total", Counter, Count, "Commands for which two instances told different definite outcomes; should stay 0.";
    LOG_LINES_DROPPED = "log_lines_dropped_total", Counter, Count, "Lines of the log that were dropped: standard error was not read.";
    JOURNAL_FAILURES = "journal_failures_total", Counter, Count, "Times the journal stopped taking writes.";
    JOURNAL_FSYNC = "journal_fsync_seconds", Histogram(FSYNC_SECONDS), Seconds, "Time to make a journal write durable.";
    DEAD_LETTERED = "dead_lettered_total", Counter, Count, "Messages put into the dead letters, by reason.";
    REPLIES_UNROUTABLE = "replies_unroutable_total", Counter, Count, "Replies that found no queue.";
    EVENTS_PUBLISHED = "events_published_total", Counter, Count, "Events handed to the broker.";
    EVENTS_DROPPED = "events_dropped_total", Counter, Count, "Events dropped: too many waited for a broker, or their client's queue refused them.";
    STALE = "stale_total", Counter, Count, "Late answers that were ignored, by what they were about.";
    LEDGER_OVERFLOWS = "ledger_overflows_total", Counter, Count, "Outcomes forgotten early because too many are remembered.";
    OWN_PAUSES = "own_pauses_total", Counter, Count, "Times this process was stopped or starved.";
    LOCAL_SHORTAGES = "local_shortages_total", Counter, Count, "Times that something was not done because this machine had none left of what it takes, by what: descriptors, ports, memory, threads.";
    DESCRIPTORS = "descriptors", Gauge, Count, "Open files and sockets of this process, by state: open, or limit (what it may have open).";
    BUILD_INFO = "build_info", Gauge, Count, "Always 1; the labels say which build runs.";
}
