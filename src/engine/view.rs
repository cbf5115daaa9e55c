//! What an operator sees: a picture of the engine, made on demand.

use serde::{Deserialize, Serialize};

use super::peer::{Role, Standing};
use super::route::NodeState;
use super::session::Session;
use super::{Engine, limits};

/// `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Instance id.
    pub instance: String,
    /// Site.
    pub site: String,
    /// Cluster name.
    #[serde(default)]
    pub cluster: String,
    /// `active-passive` or `active-active`.
    pub mode: String,
    /// Product version.
    pub version: String,
    /// Groups.
    pub groups: Vec<GroupView>,
    /// Brokers in order of preference.
    pub brokers: Vec<BrokerView>,
    /// Downstream nodes, primary first.
    pub downstreams: Vec<DownstreamView>,
    /// Peers.
    pub peers: Vec<PeerView>,
    /// Agent sessions.
    pub sessions: SessionsView,
    /// Commands in work.
    pub inflight: u64,
    /// Publications that wait for a broker or its confirm.
    pub outbox: u64,
    /// Whether a downstream node is usable.
    pub in_service: bool,
    /// Whether the own control queue is consumed: peers can be heard.
    pub attached: bool,
    /// Commands that got their outcome here since the start.
    #[serde(default)]
    pub finished: u64,
    /// Warnings for the operator, one sentence each.
    pub warnings: Vec<String>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupView {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// First command queue.
    pub queue: String,
    /// `x-priority` it consumes with; `null` where it does not consume.
    pub priority: Option<i32>,
    /// Consumer tag.
    pub tag: Option<String>,
    /// Broker it consumes on.
    pub broker: Option<String>,
    /// Whether the broker confirmed the consumer.
    pub consuming: bool,
    /// Leadership term.
    pub term: u64,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerView {
    /// `host:port`.
    pub url: String,
    /// `connected`, `dialling`, `blocked`, `down`.
    pub state: String,
    /// Whether this one serves.
    pub attached: bool,
    /// Whether it is the first of the list.
    pub preferred: bool,
}

/// A downstream node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownstreamView {
    /// Host.
    pub url: String,
    /// `unknown`, `up`, `down`.
    pub state: String,
    /// Whether requests go there.
    pub current: bool,
    /// Why it is down.
    pub reason: Option<String>,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// Instance id.
    pub instance: String,
    /// Site.
    pub site: String,
    /// `alive`, `suspect`, `lost`, `left`, `auth-failed`.
    pub state: String,
    /// Milliseconds since it was heard.
    pub last_seen_ms: u64,
    /// Sessions it owns, by its own account.
    pub owned: u64,
    /// Broker it is attached to, by its own account.
    pub broker: String,
    /// Version.
    pub version: String,
    /// Roles, by its own account.
    pub groups: Vec<PeerGroupView>,
    /// Round trip, milliseconds.
    pub rtt_ms: Option<u64>,
    /// How it stands, by its own account.
    #[serde(default)]
    pub standing: Standing,
}

/// A peer's role in a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerGroupView {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Configured priority.
    pub priority: u8,
}

/// Counts of agent sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsView {
    /// Known.
    pub total: u64,
    /// Owned by this instance.
    pub owned: u64,
    /// Owned, with an established subscription.
    pub subscribed: u64,
}

/// One agent session, without credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Agent.
    pub agent: String,
    /// Owner.
    pub owner: String,
    /// Epoch.
    pub epoch: u64,
    /// Client destination.
    pub destination: String,
    /// Extension.
    pub extension: Option<String>,
    /// Last known state.
    pub state: String,
    /// Whether this instance holds an established subscription.
    pub subscribed: bool,
}

impl Engine {
    /// The picture.
    #[must_use]
    pub fn view(&self) -> View {
        let (total, owned) = self.sessions.count(&self.cfg.instance);
        View {
            instance: self.cfg.instance.to_string(),
            site: self.cfg.site.clone(),
            cluster: self.cfg.parse.cluster_name.clone(),
            mode: self.cfg.mode.as_str().to_owned(),
            version: self.cfg.version.clone(),
            groups: self.group_views(),
            brokers: self.broker_views(),
            downstreams: self.downstream_views(),
            peers: self.peer_views(),
            sessions: SessionsView {
                total: total as u64,
                owned: owned as u64,
                subscribed: self.count_subscribed(),
            },
            inflight: self.jobs.len() as u64,
            outbox: self.outbox.len() as u64,
            in_service: self.route.available(),
            attached: self.control_on.is_some(),
            finished: self.finished,
            warnings: self.warnings(),
        }
    }

    fn count_subscribed(&self) -> u64 {
        let live = self.sessions.iter().filter(|session| session.live());
        live.filter(|session| session.subscription.is_up()).count() as u64
    }

    /// What heartbeats tell the peers of this picture.
    pub(super) fn standing(&self) -> Standing {
        let mut downstreams = self.downstream_views();
        for node in &mut downstreams {
            if let Some(reason) = &mut node.reason {
                *reason = reason.chars().take(limits::STANDING_REASON_CHARS).collect();
            }
        }
        Standing {
            brokers: self.broker_views(),
            downstreams,
            groups: self.group_views(),
            in_service: self.route.available(),
            inflight: self.jobs.len() as u64,
            outbox: self.outbox.len() as u64,
            subscribed: self.count_subscribed(),
            finished: self.finished,
        }
    }

    fn group_views(&self) -> Vec<GroupView> {
        self.groups
            .iter()
            .enumerate()
            .map(|(index, group)| {
                let consumer = group.consumer.as_ref();
                GroupView {
                    name: group.name.clone(),
                    role: group.role,
                    queue: self.cfg.queues.get(index).cloned().unwrap_or_default(),
                    priority: consumer.map(|c| c.priority),
                    tag: consumer.map(|c| c.tag.clone()),
                    broker: consumer
                        .and_then(|c| self.links.broker_of(c.link))
                        .map(|broker| self.links.label(broker).to_owned()),
                    consuming: consumer.is_some_and(|c| c.confirmed),
                    term: group.term,
                }
            })
            .collect()
    }

    fn broker_views(&self) -> Vec<BrokerView> {
        (0..self.links.len())
            .map(|broker| BrokerView {
                url: self.links.label(broker).to_owned(),
                state: self.links.state_word(broker).to_owned(),
                attached: self.links.active_broker() == Some(broker),
                preferred: broker == 0,
            })
            .collect()
    }

    fn downstream_views(&self) -> Vec<DownstreamView> {
        self.route
            .nodes()
            .iter()
            .enumerate()
            .map(|(index, node)| {
                let (state, reason) = match &node.state {
                    NodeState::Unknown => ("unknown", None),
                    NodeState::Up => ("up", None),
                    NodeState::Down { reason } => ("down", Some(reason.clone())),
                };
                DownstreamView {
                    url: node.host.clone(),
                    state: state.to_owned(),
                    current: index == self.route.current(),
                    reason,
                }
            })
            .collect()
    }

    fn peer_views(&self) -> Vec<PeerView> {
        self.members
            .iter()
            .map(|(id, peer)| PeerView {
                instance: id.to_string(),
                site: peer.heartbeat.site.clone(),
                state: peer.liveness.as_str().to_owned(),
                last_seen_ms: self.now.mono.saturating_sub(peer.last_seen),
                owned: peer.heartbeat.owned,
                broker: peer.heartbeat.broker.clone(),
                version: peer.heartbeat.version.clone(),
                groups: peer
                    .heartbeat
                    .groups
                    .iter()
                    .map(|group| PeerGroupView {
                        name: group.name.clone(),
                        role: group.role,
                        priority: group.priority,
                    })
                    .collect(),
                rtt_ms: peer.round_trip,
                standing: peer.heartbeat.standing.clone(),
            })
            .collect()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.links.active().is_none() {
            warnings.push("no broker is connected: commands wait in the brokers".to_owned());
        }
        if !self.route.available() {
            warnings.push("no downstream is in service: not consuming".to_owned());
        }
        for (id, peer) in self.members.iter() {
            if !peer.liveness.present() {
                warnings.push(format!("peer {id} is {}", peer.liveness.as_str()));
            }
        }
        warnings
    }

    /// All sessions, by agent.
    #[must_use]
    pub fn session_views(&self) -> Vec<SessionView> {
        self.session_page(&SessionQuery::default()).sessions
    }

    /// The sessions that a question is about, by agent. Only what is shown is copied.
    #[must_use]
    pub fn session_page(&self, query: &SessionQuery) -> SessionPage {
        let search = query.search.to_ascii_lowercase();
        let mut found: Vec<&Session> = self
            .sessions
            .iter()
            .filter(|session| session.live() && query.fits(session, &search))
            .collect();
        found.sort_by(|a, b| a.record.agent.cmp(&b.record.agent));
        let matching = found.len();
        let page = found.into_iter().skip(query.offset);
        SessionPage {
            matching,
            sessions: page
                .take(query.limit.unwrap_or(usize::MAX))
                .map(SessionView::of)
                .collect(),
        }
    }
}

impl SessionView {
    fn of(session: &Session) -> Self {
        let user = session.record.user.as_ref();
        Self {
            agent: session.record.agent.to_string(),
            owner: session.record.version.owner.to_string(),
            epoch: session.record.version.epoch,
            destination: session.record.destination.to_string(),
            extension: session.record.extension.clone(),
            state: user.map(|user| user.state.clone()).unwrap_or_default(),
            subscribed: session.subscription.is_up(),
        }
    }
}

/// Which sessions, and which part of the list; the default asks for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionQuery {
    /// Part of agent, extension or destination, in any letter case; empty: all.
    pub search: String,
    /// Owner; `None`: any.
    pub owner: Option<String>,
    /// How many to pass over.
    pub offset: usize,
    /// How many to show at most; `None`: all.
    pub limit: Option<usize>,
}

impl SessionQuery {
    fn fits(&self, session: &Session, search: &str) -> bool {
        let record = &session.record;
        if let Some(owner) = &self.owner
            && record.version.owner.as_str() != owner
        {
            return false;
        }
        let has = |text: &str| text.to_ascii_lowercase().contains(search);
        search.is_empty()
            || has(record.agent.as_str())
            || record.extension.as_deref().is_some_and(has)
            || has(record.destination.as_str())
    }
}

/// A part of the list of sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionPage {
    /// How many fit the question, shown or not.
    pub matching: usize,
    /// The part.
    pub sessions: Vec<SessionView>,
}
