//! What of the settings the engine needs, in its own units (milliseconds).

use crate::model::{HttpPermission, InstanceId};

use crate::api::ids::BootId;

/// How a pair works together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One serves, the others stand by.
    ActivePassive,
    /// Each serves what arrives at its own broker.
    ActiveActive,
}

impl Mode {
    /// The spelling of the property.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ActivePassive => "active-passive",
            Self::ActiveActive => "active-active",
        }
    }
}

/// Choice of brokers, and what the brokers' protocol wants of those who consume.
#[derive(Debug, Clone)]
pub struct BrokerPolicy {
    /// Labels (`host:port`) in order of preference.
    pub labels: Vec<String>,
    /// Keep a warm spare link to the next broker.
    pub spare: bool,
    /// Go back to the first when it is healthy again.
    pub priority_backup: bool,
    /// How long it must be healthy first.
    pub failback_hold: u64,
    /// First delay after a failure.
    pub reconnect_delay: u64,
    /// Longest delay.
    pub reconnect_delay_max: u64,
    /// Priority of a follower's consumers at another broker than the leader's: the one at which
    /// that broker still passes its commands on to the leader.
    pub far_follower: i32,
    /// Priority of a newcomer that may not be of this cluster: no higher than any that is
    /// configured, and not so low that its broker passes all commands on.
    pub stands_back: i32,
}

/// Failure detection.
#[derive(Debug, Clone, Copy)]
pub struct PeerTimers {
    /// Interval of heartbeats.
    pub heartbeat: u64,
    /// Silence after which a peer is suspected.
    pub suspect: u64,
    /// Silence after which it is lost.
    pub lost: u64,
}

impl PeerTimers {
    /// Silence at which a peer is declared lost: early enough that others serve by `lost`.
    #[must_use]
    pub fn silent(&self) -> u64 {
        self.lost - self.lost / crate::api::limits::LOST_EARLY
    }

    /// How long a word that we gave a peer keeps it from thinking us lost; shorter than `silent`.
    #[must_use]
    pub fn lease(&self) -> u64 {
        self.lost - self.lost / crate::api::limits::LEASE_MARGIN
    }
}

/// Reasons and habits for agents.
#[derive(Debug, Clone, Default)]
pub struct AgentPolicy {
    /// Reason id for forced not-ready.
    pub not_ready_reason: Option<String>,
    /// Reason id for forced logout.
    pub logout_reason: Option<String>,
    /// Reason id where a supervisor sets an agent not ready.
    pub supervisor_not_ready_reason: Option<String>,
    /// Reason id where a supervisor signs an agent out.
    pub supervisor_logout_reason: Option<String>,
    /// Pause between two publications of all agents' states; 0 for none.
    pub states_interval: u64,
    /// Set an agent ready right after sign-in.
    pub make_ready: bool,
}

/// A fault put into the engine on purpose, to show that the simulation finds it. Without the
/// feature `planted-faults` (and outside the crate's own tests) there is none to choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Planted {
    /// Which; `None` is an engine as it should be.
    #[cfg(any(test, feature = "planted-faults"))]
    pub fault: Option<PlantedFault>,
}

/// The faults that can be planted.
#[cfg(any(test, feature = "planted-faults"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedFault {
    /// What an earlier start or an earlier leadership was asked or told counts as if it were now.
    SkipEpochCheck,
    /// Of two accounts of a session the one with the later wall-clock time wins.
    MergeByClock,
    /// The old owner lets go of an agent before the new one has its subscription.
    UnsubscribeFirst,
}

#[cfg(any(test, feature = "planted-faults"))]
impl Planted {
    pub(crate) fn skips_epoch_check(self) -> bool {
        self.fault == Some(PlantedFault::SkipEpochCheck)
    }

    pub(crate) fn merges_by_clock(self) -> bool {
        self.fault == Some(PlantedFault::MergeByClock)
    }

    pub(crate) fn unsubscribes_first(self) -> bool {
        self.fault == Some(PlantedFault::UnsubscribeFirst)
    }
}

#[cfg(not(any(test, feature = "planted-faults")))]
impl Planted {
    pub(crate) const fn skips_epoch_check(self) -> bool {
        false
    }

    pub(crate) const fn merges_by_clock(self) -> bool {
        false
    }

    pub(crate) const fn unsubscribes_first(self) -> bool {
        false
    }
}

/// Configuration of the engine.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this is.
    pub instance: InstanceId,
    /// Site, shown everywhere.
    pub site: String,
    /// Product version.
    pub version: String,
    /// This start.
    pub boot: BootId,
    /// Wall-clock start, milliseconds.
    pub started: u64,
    /// Until when the process before this one had commands in work, by the wall clock, milliseconds.
    /// `None`: there was none, or it had finished all that it began.
    pub former: Option<u64>,
    /// Seed of the engine's random numbers (jitter only).
    pub seed: u64,
    /// Mode.
    pub mode: Mode,
    /// Names of the groups; the queues are the broker shell's business.
    pub groups: Vec<String>,
    /// First command queue of each group, for the status view.
    pub queues: Vec<String>,
    /// `consumer.priority`.
    pub priority: u8,
    /// `group.NAME.priority` of each group, in the order of `groups`; `None`, and none: as
    /// `priority`.
    pub group_priorities: Vec<Option<u8>>,
    /// Commands that may be in work at once: the prefetch.
    pub prefetch: usize,
    /// Brokers.
    pub brokers: BrokerPolicy,
    /// Peers.
    pub peers: PeerTimers,
    /// `broker.fence`: close a silent peer's broker connections.
    pub fence: bool,
    /// How long a returned higher-priority instance must be stable before it takes back.
    pub takeback_hold: u64,
    /// Subscriptions a second during takeover.
    pub takeover_rate: u64,
    /// Outcomes remembered for duplicates; at the bound the oldest is forgotten, and told.
    pub remembered: usize,
    /// Hosts of the downstream nodes, primary first.
    pub nodes: Vec<String>,
    /// Their base URLs, for the status.
    pub node_urls: Vec<String>,
    /// Notification sessions that this process has room for at a time.
    pub seats: usize,
    /// Interval of health probes.
    pub probe_interval: u64,
    /// Bound of one downstream request (the shell keeps it; the engine plans with it).
    pub request_timeout: u64,
    /// Return to the primary node when it is back.
    pub failback: bool,
    /// With a generic HTTP downstream: what `Call` commands may do. Agents' commands are for the
    /// other kind.
    pub http: Option<Vec<HttpPermission>>,
    /// Agents.
    pub agents: AgentPolicy,
    /// How commands are read (a forwarded one arrives as it came).
    pub parse: crate::wire::command::Defaults,
    /// `shutdown.grace`.
    pub shutdown_grace: u64,
    /// Address of the status page, for the peers' pages; empty where nobody told it.
    pub page: String,
    /// For tests of the simulation.
    pub planted: Planted,
}

impl Config {
    /// Consumer priority of a group.
    #[must_use]
    pub fn priority_of(&self, group: usize) -> u8 {
        let own = self.group_priorities.get(group).copied().flatten();
        own.unwrap_or(self.priority)
    }
}
