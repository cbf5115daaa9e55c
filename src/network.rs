//! What the brokers say of their consumers and federation links, as the admin API shows it and
//! metrics count it. `broker::proof` asks them.

use serde::{Deserialize, Serialize};

/// What the brokers say, one entry a broker in the order of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Brokers.
    pub brokers: Vec<BrokerProof>,
    /// Looks so far.
    pub looks: u64,
}

/// One broker's word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerProof {
    /// `host:port`.
    pub broker: String,
    /// Address of its management page, without user or password; of a cluster the first node's.
    pub page: String,
    /// Messages in the command queues: waiting, or handed out and not acknowledged.
    pub queued: Option<u64>,
    /// Messages in the dead letters.
    pub dead_letters: Option<u64>,
    /// Why its management API could not be asked; `null` where it answered.
    pub problem: Option<String>,
    /// Consumers of the command queues, federation links aside.
    pub consumers: Vec<Registered>,
    /// Federation links that run.
    pub links_running: usize,
    /// Federation links that should run.
    pub links_planned: usize,
    /// Links that do not run: name and state.
    pub links_down: Vec<String>,
    /// What queues, exchanges, policies and upstreams lack or have otherwise than planned, in one
    /// sentence; `null` where they are as planned, or nobody could look.
    pub unplanned: Option<String>,
}

/// A consumer as its broker lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Registered {
    /// Command queue.
    pub queue: String,
    /// Consumer tag.
    pub tag: String,
    /// `x-priority`; 0 where it has none.
    pub priority: i64,
    /// Prefetch of its channel or consumer.
    pub prefetch: Option<u64>,
}

/// How a consumer stands in a broker's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// As it should be.
    Yes,
    /// Not as it should be: why.
    No(String),
    /// Nobody can say.
    Unknown,
}

impl Listed {
    /// Label of the metric.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Yes => "listed",
            Self::No(_) => "missing",
            Self::Unknown => "unknown",
        }
    }
}

impl BrokerProof {
    /// Whether this broker lists a consumer with its priority.
    #[must_use]
    pub fn lists(&self, tag: &str, priority: i32) -> Listed {
        if self.problem.is_some() {
            return Listed::Unknown;
        }
        match self.consumers.iter().find(|consumer| consumer.tag == tag) {
            None => Listed::No(format!("broker {} does not list it", self.broker)),
            Some(found) if found.priority == i64::from(priority) => Listed::Yes,
            Some(found) => Listed::No(format!(
                "broker {} lists it with priority {} instead of {priority}",
                self.broker, found.priority
            )),
        }
    }
}
