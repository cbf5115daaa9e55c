//! Between the status page and the heartbeat: how this instance stands, told to its peers, and how
//! a peer stands, shown here. The two sides keep types of their own (`tandem_wire::peer::standing`).

use serde::{Deserialize, Serialize};

use super::{BrokerView, ChoiceView, DownstreamView, GroupView};
use crate::peer::Standing;
use crate::peer::standing::{BrokerStanding, ChoiceStanding, GroupStanding, NodeStanding};
use crate::{Engine, limits};

/// How a peer stands, by its own account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StandingView {
    /// Address of its status page; empty where it does not know one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub page: String,
    /// Brokers as it sees them.
    pub brokers: Vec<BrokerView>,
    /// Downstream nodes as it sees them.
    pub downstreams: Vec<DownstreamView>,
    /// Its groups with their consumers.
    pub groups: Vec<GroupView>,
    /// Whether a downstream node is usable from there.
    pub in_service: bool,
    /// Commands in work.
    pub inflight: u64,
    /// Publications that wait.
    pub outbox: u64,
    /// Owned sessions with an established subscription.
    pub subscribed: u64,
    /// Commands that got their outcome there since its start.
    pub finished: u64,
}

impl Engine {
    /// What heartbeats tell the peers of the picture; `subscribed`: own subscriptions that stand.
    pub(crate) fn standing(&self, subscribed: u64) -> Standing {
        Standing {
            page: self.cfg.page.clone(),
            brokers: self.broker_views().into_iter().map(Into::into).collect(),
            downstreams: self
                .downstream_views()
                .into_iter()
                .map(Into::into)
                .collect(),
            groups: self.group_views().into_iter().map(Into::into).collect(),
            in_service: self.route.available(),
            inflight: self.jobs.len() as u64,
            outbox: self.outbox.len() as u64,
            subscribed,
            finished: self.jobs.finished(),
        }
    }
}

/// As much of a reason as a heartbeat has room for.
fn short(reason: &str) -> String {
    reason.chars().take(limits::STANDING_REASON_CHARS).collect()
}

impl From<BrokerView> for BrokerStanding {
    fn from(view: BrokerView) -> Self {
        Self {
            problem: short(&view.problem),
            url: view.url,
            state: view.state,
            attached: view.attached,
            preferred: view.preferred,
            garbled: view.garbled,
            unfit: view.unfit,
        }
    }
}

impl From<DownstreamView> for NodeStanding {
    fn from(view: DownstreamView) -> Self {
        Self {
            reason: view.reason.as_deref().map(short),
            // Older instances take this for a name.
            base: view.url,
            url: view.host,
            state: view.state,
            current: view.current,
        }
    }
}

impl From<GroupView> for GroupStanding {
    fn from(view: GroupView) -> Self {
        Self {
            name: view.name,
            role: view.role,
            queue: view.queue,
            priority: view.priority,
            tag: view.tag,
            broker: view.broker,
            consuming: view.consuming,
            term: view.term,
            leader: view.leader,
            reason: view.reason,
            choice: view.choice.map(|choice| ChoiceStanding {
                wish: choice.wish,
                instance: choice.instance,
                by: choice.by,
                at: choice.at,
            }),
        }
    }
}

impl From<&Standing> for StandingView {
    fn from(told: &Standing) -> Self {
        Self {
            page: told.page.clone(),
            brokers: told.brokers.iter().map(Into::into).collect(),
            downstreams: told.downstreams.iter().map(Into::into).collect(),
            groups: told.groups.iter().map(Into::into).collect(),
            in_service: told.in_service,
            inflight: told.inflight,
            outbox: told.outbox,
            subscribed: told.subscribed,
            finished: told.finished,
        }
    }
}

impl From<&BrokerStanding> for BrokerView {
    fn from(told: &BrokerStanding) -> Self {
        Self {
            url: told.url.clone(),
            state: told.state.clone(),
            node: String::new(),
            attached: told.attached,
            preferred: told.preferred,
            garbled: told.garbled,
            unfit: told.unfit,
            problem: told.problem.clone(),
        }
    }
}

impl From<&NodeStanding> for DownstreamView {
    fn from(told: &NodeStanding) -> Self {
        let base = Some(&told.base).filter(|base| !base.is_empty());
        Self {
            url: base.unwrap_or(&told.url).clone(),
            host: told.url.clone(),
            state: told.state.clone(),
            current: told.current,
            reason: told.reason.clone(),
        }
    }
}

impl From<&GroupStanding> for GroupView {
    fn from(told: &GroupStanding) -> Self {
        Self {
            name: told.name.clone(),
            role: told.role,
            queue: told.queue.clone(),
            priority: told.priority,
            tag: told.tag.clone(),
            broker: told.broker.clone(),
            consuming: told.consuming,
            term: told.term,
            leader: told.leader.clone(),
            reason: told.reason.clone(),
            choice: told.choice.as_ref().map(|choice| ChoiceView {
                wish: choice.wish.clone(),
                instance: choice.instance.clone(),
                by: choice.by.clone(),
                at: choice.at,
            }),
        }
    }
}
