//! What is said of brokers in more than one place.

use serde::{Deserialize, Serialize};

/// Kind of the command, expired and dead-letter queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    /// On one node of the broker.
    #[default]
    Classic,
    /// Replicated between the nodes of a cluster.
    Quorum,
}

/// First release of RabbitMQ whose federation moves the messages of quorum queues as it should.
const QUORUM_SINCE: u32 = 4;

impl QueueType {
    /// As declarations have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }

    /// Why a broker of this version cannot have such queues; `None` where it can, or says no
    /// version that can be read.
    #[must_use]
    pub fn problem_on(self, version: &str) -> Option<String> {
        let major: u32 = version.split('.').next()?.trim().parse().ok()?;
        (self == Self::Quorum && major < QUORUM_SINCE).then(|| {
            format!(
                "queue.type is quorum and this is RabbitMQ {version}: before {QUORUM_SINCE}.0 \
                 federation sends the messages of quorum queues to and fro between the brokers; \
                 upgrade it, or set queue.type=classic"
            )
        })
    }
}

/// First release of RabbitMQ that keeps what a lost node's consumers held, for the case that they come
/// back, and whose nodes neither pause nor close connections where their cluster has lost its
/// majority: its metadata are in Khepri, always.
pub const KHEPRI_SINCE: (u32, u32) = (4, 3);

/// Whether a broker's version is this one or a later one; `false` where it cannot be read.
#[must_use]
pub fn at_least(version: &str, (major, minor): (u32, u32)) -> bool {
    let mut parts = version.trim().split(['.', '-', '+']);
    let mut number = || parts.next()?.parse::<u32>().ok();
    // One that says no minor release says too little.
    let read = number().and_then(|first| Some((first, number()?)));
    read.is_some_and(|read| read >= (major, minor))
}

/// What spreads agents over the command queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashBy {
    /// The routing key, which clients set to the agent's id.
    RoutingKey,
    /// The header [`HASH_HEADER`].
    Header,
}

/// Header by which [`HashBy::Header`] tells agents apart.
pub const HASH_HEADER: &str = "x-agent";

/// Type of an exchange that spreads messages by a hash.
pub const HASH_TYPE: &str = "x-consistent-hash";

/// What to do where a broker does not know [`HASH_TYPE`].
pub const HASH_CURE: &str = "on each of its nodes run `rabbitmq-plugins enable \
     rabbitmq_consistent_hash_exchange` (a part of RabbitMQ), or set command.hash-exchange=off";

/// What to do where a broker has no such virtual host.
pub const VHOST_CURE: &str = "make it and give the user rights there (`rabbitmqctl add_vhost NAME`, \
     `rabbitmqctl set_permissions -p NAME …`), or correct broker.vhost or the path of broker.url.N";

impl HashBy {
    /// As the property file has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoutingKey => "routing-key",
            Self::Header => "header",
        }
    }
}

/// That two entries of the broker list answer with one cluster name.
#[must_use]
pub fn one_cluster(one: &str, other: &str, name: &str) -> String {
    format!("brokers {one} and {other} are one cluster: both say that they are {name:?}")
}

/// That an address stands in one entry with another one whose cluster is not its own; `None` where it
/// is, or one of them does not say. Names as they say them.
#[must_use]
pub fn not_one_cluster(first: &str, name: &str, other: &str) -> Option<String> {
    let two = !name.is_empty() && !other.is_empty() && name != other;
    two.then(|| format!("it belongs to another cluster, {other:?}, and {first} to {name:?}"))
}

/// What to do about that.
pub const NOT_ONE_CLUSTER_CURE: &str = "the addresses of one entry are nodes of one cluster: give a broker of \
     its own an entry of its own, broker.url.2";

/// What to do about [`one_cluster`].
pub const ONE_CLUSTER_CURE: &str = "a cluster is one broker: list the addresses of its nodes in one entry, \
     broker.url.1=host-a:5672,host-b:5672; where they are brokers of their own, give each its own \
     cluster_name in rabbitmq.conf";

/// How to get from one type of a queue to the other.
pub const OTHER_TYPE_CURE: &str = "a queue keeps its type: leave queue.type as the queue is, or stop the instances, \
     move what waits in it to another queue with a shovel or let it be served first, delete it and \
     run `tandem topology apply` (docs/operations.md, \"Changing the type of the queues\")";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for new in [
            "4.3.6",
            "4.3.0-rc.1",
            "4.10.0",
            "4.3",
            "5.0.1",
            " 4.3.6 ",
            "10.0.0",
        ] {
            assert!(at_least(new, KHEPRI_SINCE), "{new}");
        }
        for old in [
            "4.2.9", "3.10.8", "3.13.7", "4.0.5", "4", "4.x", "v4.3.6", "?", "", ".", "-4.3",
        ] {
            assert!(!at_least(old, KHEPRI_SINCE), "{old}");
        }
    }

    #[test]
    fn quorum_queues_want_a_broker_that_federates_them() {
        for old in ["3.10.8", "3.13.7"] {
            let problem = QueueType::Quorum.problem_on(old).unwrap();
            assert!(problem.contains(old) && problem.contains("queue.type=classic"));
            assert_eq!(QueueType::Classic.problem_on(old), None);
        }
        for fine in ["4.0.5", "4.3.6", "", "?"] {
            assert_eq!(QueueType::Quorum.problem_on(fine), None, "{fine}");
        }
    }
}
