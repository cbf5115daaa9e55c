//! What an operator sees: a picture of the engine, made on demand.

mod rest;
mod standing;

pub use standing::StandingView;

use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::api::way::Weight;
use crate::cluster::members::Liveness;
use crate::downstream::route::NodeState;
use crate::model::brokers;
use crate::peer::{Choice, Role, Wish};
use crate::state::session::Session;

/// `GET /api/v1/status`. A field that another version does not have is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct View {
    /// Instance id.
    pub instance: String,
    /// Site.
    pub site: String,
    /// Cluster name.
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
    /// When the process started, milliseconds since the epoch by its own clock.
    pub started: u64,
    /// Address of its status page; empty where nobody told it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub page: String,
    /// Whether a downstream node is usable.
    pub in_service: bool,
    /// Whether the own control queue is consumed: peers can be heard.
    pub attached: bool,
    /// `draining` or `drained`, where an operator or the end of the process asked for it.
    pub drain: Option<String>,
    /// Commands that got their outcome here since the start.
    pub finished: u64,
    /// Warnings for the operator, one sentence each.
    pub warnings: Vec<String>,
}

/// A group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupView {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// First command queue.
    pub queue: String,
    /// Priority it consumes with; `null` where it does not consume.
    pub priority: Option<i32>,
    /// Consumer tag.
    pub tag: Option<String>,
    /// Broker it consumes on.
    pub broker: Option<String>,
    /// Whether the broker confirmed the consumer.
    pub consuming: bool,
    /// Leadership term.
    pub term: u64,
    /// Instance that leads, as far as this one knows; `null` while nobody does.
    pub leader: Option<String>,
    /// Why the role is what it is, where there is more to say than priority and state.
    pub reason: String,
    /// What operators decided last.
    pub choice: Option<ChoiceView>,
}

/// An operator's choice about a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChoiceView {
    /// `leader`, `failover-off`, `priority` (no choice stands any more), `unknown`.
    pub wish: String,
    /// The instance that leads, or on which the group is stopped.
    pub instance: Option<String>,
    /// The instance that the verb was given to.
    pub by: String,
    /// When, milliseconds since the epoch.
    pub at: u64,
}

/// A broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerView {
    /// `host:port`.
    pub url: String,
    /// `connected`, `dialling`, `blocked`, `unfit`, `down`.
    pub state: String,
    /// Which of its nodes the connection leads to, where several addresses are configured for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Whether this one serves.
    pub attached: bool,
    /// Whether it is the first of the list.
    pub preferred: bool,
    /// Links to it that were lost in a row because what it sent could not be read.
    #[serde(skip_serializing_if = "none")]
    pub garbled: u32,
    /// Something is lost there without which commands are not served well: another broker is used
    /// where there is one.
    pub unfit: bool,
    /// What it lacks, or why it is not connected; empty where nothing is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn none(count: &u32) -> bool {
    *count == 0
}

/// A downstream node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DownstreamView {
    /// Base URL.
    pub url: String,
    /// Host, with its port where the URL has one: as in metrics and replies.
    pub host: String,
    /// `unknown`, `up`, `down`.
    pub state: String,
    /// Whether requests go there.
    pub current: bool,
    /// Why it is down.
    pub reason: Option<String>,
}

/// A peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
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
    /// When it started, milliseconds since the epoch by its own clock; 0 where it is not known.
    pub started: u64,
    /// Roles, by its own account.
    pub groups: Vec<PeerGroupView>,
    /// Round trip, milliseconds.
    pub rtt_ms: Option<u64>,
    /// How it stands, by its own account.
    pub standing: StandingView,
}

impl PeerView {
    /// Whether it may be serving: not lost, not gone.
    #[must_use]
    pub fn present(&self) -> bool {
        self.state == Liveness::Alive.as_str() || self.state == Liveness::Suspect.as_str()
    }
}

/// A peer's role in a group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
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
#[serde(rename_all = "camelCase", default)]
pub struct SessionsView {
    /// Known.
    pub total: u64,
    /// Owned by this instance.
    pub owned: u64,
    /// Owned, with an established subscription.
    pub subscribed: u64,
}

/// One agent session, without credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
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

/// The warning of an instance that can take no lead, as its store takes nothing.
pub const NO_EPOCHS: &str = "the store cannot be written: no group can be led from here";

fn choice_view(choice: &Choice) -> ChoiceView {
    let (wish, instance) = match &choice.wish {
        Wish::Priority => ("priority", None),
        Wish::Leader { instance } => ("leader", Some(instance)),
        Wish::FailoverOff { stopped } => ("failover-off", Some(stopped)),
        Wish::Unknown => ("unknown", None),
    };
    ChoiceView {
        wish: wish.to_owned(),
        instance: instance.map(ToString::to_string),
        by: choice.by.to_string(),
        at: choice.at,
    }
}

impl Engine {
    /// The picture.
    #[must_use]
    pub fn view(&self) -> View {
        let sessions = self.sessions.count(&self.cfg.instance);
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
                total: sessions.total,
                owned: sessions.owned,
                subscribed: sessions.subscribed,
            },
            inflight: self.jobs.len() as u64,
            outbox: self.outbox.len() as u64,
            started: self.cfg.started,
            page: self.cfg.page.clone(),
            in_service: self.route.available(),
            attached: self.attached.hears(),
            drain: self.ending.is_draining().then(|| {
                let word = if self.drained() {
                    "drained"
                } else {
                    "draining"
                };
                word.to_owned()
            }),
            finished: self.jobs.finished(),
            warnings: self.warnings(),
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
                    leader: if group.role.leads() {
                        Some(self.cfg.instance.to_string())
                    } else {
                        self.placement()
                            .leader_of(&group.name)
                            .map(|leader| leader.to_string())
                    },
                    reason: self.role_reason(index),
                    choice: group.choice.as_ref().map(choice_view),
                }
            })
            .collect()
    }

    /// An operator's part in the role, and why a leader has no successor.
    fn role_reason(&self, index: usize) -> String {
        let group = &self.groups[index];
        let mut reasons = Vec::new();
        if group.leaving.is_some() {
            reasons.push("handing over".to_owned());
        }
        if group.stopped {
            reasons.push("stopped here by operator".to_owned());
        }
        if let Some(choice) = group.choice.as_ref().filter(|c| c.wish != Wish::Priority) {
            reasons.push(format!("{choice} at {}", choice.time()));
        }
        if group.role == Role::LeaderSingleNode
            && let Some((_, words)) = self.no_successor(index)
        {
            reasons.push(words);
        }
        reasons.join("; ")
    }

    fn broker_views(&self) -> Vec<BrokerView> {
        (0..self.links.len())
            .map(|broker| BrokerView {
                url: self.links.label(broker).to_owned(),
                state: self.links.state_word(broker).to_owned(),
                node: self.links.node(broker).to_owned(),
                attached: self.links.active_broker() == Some(broker),
                preferred: broker == 0,
                garbled: self
                    .links
                    .garbled(self.now, broker)
                    .map_or(0, |(_, times)| times),
                unfit: self.links.weight(broker) > Weight::Minor,
                problem: self.links.problem(broker),
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
                let url = self.cfg.node_urls.get(index);
                DownstreamView {
                    url: url.unwrap_or(&node.host).clone(),
                    host: node.host.clone(),
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
                started: peer.heartbeat.started,
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
                standing: (&peer.heartbeat.standing).into(),
            })
            .chain(self.stranger_views())
            .collect()
    }

    /// Who speaks under another key, and never spoke under ours.
    fn stranger_views(&self) -> impl Iterator<Item = PeerView> {
        let unknown = self.cluster.strangers.iter();
        let unknown = unknown.filter(|(id, _)| self.members.get(id).is_none());
        unknown.map(|(id, heard)| PeerView {
            instance: id.to_string(),
            state: Liveness::AuthFailed.as_str().to_owned(),
            last_seen_ms: self.now.mono.saturating_sub(heard),
            ..PeerView::default()
        })
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.links.active().is_none() {
            warnings.push("no broker is connected: commands wait in the brokers".to_owned());
        }
        warnings.extend(self.words_of_ways());
        if let Some((one, other, name)) = self.links.one_cluster() {
            let problem = brokers::one_cluster(one, other, name);
            warnings.push(format!("{problem}; {}", brokers::ONE_CLUSTER_CURE));
        }
        if !self.route.available() {
            warnings.push("no downstream is in service: not consuming".to_owned());
        }
        if self.lacks_epochs() {
            warnings.push(NO_EPOCHS.to_owned());
        }
        warnings.extend(self.room_warnings());
        for index in 0..self.groups.len() {
            warnings.extend(self.unmatched(index));
            if self.groups[index].role == Role::LeaderSingleNode
                && let Some((label, words)) = self.no_successor(index)
                && !matches!(label, "group-names" | "auth-failed")
            {
                warnings.push(words);
            }
        }
        warnings.extend(self.garbled_warnings());
        let strangers = self.cluster.strangers.iter();
        warnings.extend(strangers.map(|(id, _)| Self::words_of_stranger(id)));
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
