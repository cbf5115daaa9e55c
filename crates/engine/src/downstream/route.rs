//! Choice of the downstream node.

use crate::api::ids::Now;
use crate::api::limits;
use crate::model::NodeHealth;

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// Not heard of yet: used until something speaks against it.
    Unknown,
    /// In service.
    Up,
    /// Not usable.
    Down {
        /// Why.
        reason: String,
    },
}

/// One node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Host, for people and metrics.
    pub host: String,
    /// Usable or not.
    pub state: NodeState,
    /// XMPP domain, once known.
    pub domain: Option<String>,
    /// Domain of its pubsub service, once known.
    pub pubsub: Option<String>,
    /// Unanswered probes in a row.
    pub misses: u32,
    /// Since when the application behind its notification service has gone, monotonic
    /// milliseconds.
    pub gone: Option<u64>,
    /// How often it went since it was last heard to be there.
    pub went: u32,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteChange {
    /// A node became usable or unusable.
    Node {
        /// Index.
        node: usize,
        /// Usable.
        up: bool,
        /// Why not.
        reason: String,
    },
    /// Another node is current.
    Moved {
        /// From.
        from: usize,
        /// To.
        to: usize,
    },
    /// No node is usable any more (`false`), or one is again (`true`).
    Service(bool),
}

/// The nodes and which of them is used.
#[derive(Debug)]
pub struct Route {
    nodes: Vec<Node>,
    current: usize,
    failback: bool,
    available: bool,
    /// The notification service is no reason to move before that, monotonic milliseconds.
    stays_until: u64,
    /// How long the last such move was to last.
    stay: u64,
    /// The first node was left for its notifications: no return before that, monotonic
    /// milliseconds.
    back_at: u64,
    /// How long the last such absence was to last.
    absence: u64,
}

fn gone() -> NodeState {
    NodeState::Down {
        reason: "the application behind the notification service has gone".to_owned(),
    }
}

/// Probes that must miss in a row before an unreachable node counts as down.
const MISSES: u32 = 2;

impl Route {
    /// With nothing known.
    #[must_use]
    pub fn new(hosts: &[String], failback: bool) -> Self {
        Self {
            nodes: hosts
                .iter()
                .map(|host| Node {
                    host: host.clone(),
                    state: NodeState::Unknown,
                    domain: None,
                    pubsub: None,
                    misses: 0,
                    gone: None,
                    went: 0,
                })
                .collect(),
            current: 0,
            failback,
            available: true,
            stays_until: 0,
            stay: 0,
            back_at: 0,
            absence: 0,
        }
    }

    /// The node in use.
    #[must_use]
    pub fn current(&self) -> usize {
        self.current
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether any node is usable.
    #[must_use]
    pub fn available(&self) -> bool {
        self.available
    }

    /// Host of a node.
    #[must_use]
    pub fn host(&self, node: usize) -> &str {
        self.nodes.get(node).map_or("", |node| node.host.as_str())
    }

    /// XMPP domain of a node, where it is known.
    #[must_use]
    pub fn domain(&self, node: usize) -> Option<&str> {
        self.nodes.get(node)?.domain.as_deref()
    }

    /// Domain of a node's pubsub service, where it is known.
    #[must_use]
    pub fn pubsub(&self, node: usize) -> Option<&str> {
        self.nodes.get(node)?.pubsub.as_deref()
    }

    /// Another usable node than this one.
    #[must_use]
    pub fn other(&self, than: usize) -> Option<usize> {
        (0..self.nodes.len()).find(|node| *node != than && self.usable(*node))
    }

    /// Whether nothing speaks against a node.
    #[must_use]
    pub fn usable(&self, node: usize) -> bool {
        let known = self.nodes.get(node);
        known.is_some_and(|node| !matches!(node.state, NodeState::Down { .. }))
    }

    /// Since when a node's application is known to have gone.
    #[must_use]
    pub fn application_gone(&self, node: usize) -> Option<u64> {
        self.nodes.get(node)?.gone
    }

    /// The application behind a node's notification service has gone or come back. With it gone the
    /// node is not usable; after its return the next probe tells.
    pub fn on_application(&mut self, now: Now, node: usize, available: bool) -> Vec<RouteChange> {
        let Some(entry) = self.nodes.get_mut(node) else {
            return Vec::new();
        };
        if available {
            entry.gone = None;
            entry.went = 0;
            return Vec::new();
        }
        if entry.gone.replace(now.mono).is_none() {
            entry.went = entry.went.saturating_add(1);
        }
        self.set(now, node, gone())
    }

    /// Nobody hears of a node's application any more: after a while its status decides again, a
    /// longer one each time that this was wrong.
    pub fn forget_application(&mut self, now: Now, node: usize) {
        let Some(entry) = self.nodes.get_mut(node) else {
            return;
        };
        let doublings = entry.went.saturating_sub(1).min(8);
        let hold = (limits::PRESENCE_HOLD_MS << doublings).min(limits::PRESENCE_HOLD_MAX_MS);
        if entry
            .gone
            .is_some_and(|since| now.mono.saturating_sub(since) >= hold)
        {
            entry.gone = None;
        }
    }

    /// A probe ended. The second value asks for another probe at once.
    pub fn on_probe(
        &mut self,
        now: Now,
        node: usize,
        health: NodeHealth,
    ) -> (Vec<RouteChange>, bool) {
        let Some(entry) = self.nodes.get_mut(node) else {
            return (Vec::new(), false);
        };
        match health {
            NodeHealth::InService {
                xmpp_domain,
                pubsub_domain,
                ..
            } => {
                entry.misses = 0;
                entry.pubsub = Some(pubsub_domain);
                entry.domain = Some(xmpp_domain);
                let state = match entry.gone {
                    Some(_) => gone(),
                    None => NodeState::Up,
                };
                (self.set(now, node, state), false)
            }
            NodeHealth::OutOfService { reason } => {
                entry.misses = 0;
                (self.set(now, node, NodeState::Down { reason }), false)
            }
            // Not asked: what was known stands.
            NodeHealth::NoRoom(_) => (Vec::new(), false),
            NodeHealth::Unreachable { reason } => {
                entry.misses = entry.misses.saturating_add(1);
                if entry.misses < MISSES {
                    return (Vec::new(), true);
                }
                (self.set(now, node, NodeState::Down { reason }), false)
            }
        }
    }

    /// A request showed that a node cannot serve.
    pub fn on_failure(&mut self, now: Now, node: usize, reason: String) -> Vec<RouteChange> {
        if node >= self.nodes.len() {
            return Vec::new();
        }
        self.set(now, node, NodeState::Down { reason })
    }

    /// The notification service of the current node cannot be had, REST or not: use the other.
    /// Every agent goes with it. So where that did not help, as with both services gone or with one
    /// agent whose session neither gives, the next such move waits, longer each time.
    pub fn prefer_other(&mut self, now: Now) -> Vec<RouteChange> {
        if now.mono < self.stays_until {
            return Vec::new();
        }
        let Some(to) = self.other(self.current) else {
            return Vec::new();
        };
        let again = now.mono < self.stays_until + self.stay;
        self.stay = match again {
            true => (self.stay * 2).min(limits::NODE_STAY_MAX_MS),
            false => limits::NODE_STAY_MS,
        };
        self.stays_until = now.mono + self.stay;
        if self.current == 0 {
            self.stay_away(now);
        }
        let from = std::mem::replace(&mut self.current, to);
        vec![RouteChange::Moved { from, to }]
    }

    /// The first node is left though its status is good: that says nothing of its notifications, and
    /// is no reason to return. Only time is, more of it each time that the return did not last.
    fn stay_away(&mut self, now: Now) {
        let again = now.mono < self.back_at + self.absence;
        self.absence = match again {
            true => (self.absence * 2).min(limits::NODE_ABSENCE_MAX_MS),
            false => limits::NODE_ABSENCE_MS,
        };
        self.back_at = now.mono + self.absence;
    }

    /// Whether the first node is to be used again in place of another one.
    fn goes_back(&self, now: Now) -> bool {
        let rested = now.mono >= self.stays_until.max(self.back_at);
        self.failback && rested && self.current != 0 && self.nodes[0].state == NodeState::Up
    }

    /// A node's state is known anew. Returns what follows: the node's change, service that begins
    /// or ends, and a move to another node; stays where it is as long as that node serves.
    fn set(&mut self, now: Now, node: usize, state: NodeState) -> Vec<RouteChange> {
        let mut changes = Vec::new();
        let word = |state: &NodeState| match state {
            NodeState::Unknown => 0,
            NodeState::Up => 1,
            NodeState::Down { .. } => 2,
        };
        if word(&self.nodes[node].state) != word(&state) {
            let reason = match &state {
                NodeState::Down { reason } => reason.clone(),
                _ => String::new(),
            };
            changes.push(RouteChange::Node {
                node,
                up: state == NodeState::Up,
                reason,
            });
        }
        self.nodes[node].state = state;
        let best = if self.goes_back(now) {
            Some(0)
        } else if self.usable(self.current) {
            Some(self.current)
        } else {
            self.other(self.current)
        };
        if self.available != best.is_some() {
            self.available = best.is_some();
            changes.push(RouteChange::Service(self.available));
        }
        if let Some(to) = best
            && to != self.current
        {
            let from = std::mem::replace(&mut self.current, to);
            changes.push(RouteChange::Moved { from, to });
        }
        changes
    }
}

#[cfg(test)]
mod tests;
