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

/// Tag of a group's consumer on its queue with this index: the first queue's is the group's own,
/// the others have a number behind it.
#[must_use]
pub fn queue_tag(tag: &str, index: usize) -> String {
    match index {
        0 => tag.to_owned(),
        index => format!("{tag}.{index}"),
    }
}

impl BrokerProof {
    /// Whether this broker lists a group's consumer on each of its queues, with its priority.
    /// `queues`: how many there are.
    #[must_use]
    pub fn lists(&self, tag: &str, priority: i32, queues: usize) -> Listed {
        if self.problem.is_some() {
            return Listed::Unknown;
        }
        let each = (0..queues.max(1)).map(|index| self.lists_one(tag, priority, index));
        let mut bad = each.filter(|listed| *listed != Listed::Yes);
        bad.next().unwrap_or(Listed::Yes)
    }

    fn lists_one(&self, tag: &str, priority: i32, index: usize) -> Listed {
        let tag = queue_tag(tag, index);
        let which = match index {
            0 => "it",
            _ => &tag,
        };
        match self.consumers.iter().find(|consumer| consumer.tag == tag) {
            None => Listed::No(format!("broker {} does not list {which}", self.broker)),
            Some(found) if found.priority == i64::from(priority) => Listed::Yes,
            Some(found) => Listed::No(format!(
                "broker {} lists {which} with priority {} instead of {priority}",
                self.broker, found.priority
            )),
        }
    }
}
