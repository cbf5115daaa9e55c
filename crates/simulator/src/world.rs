//! The telephony state all nodes share, and how changes reach the notification sessions.
//!
//! Lock order: calls, then one agent's state, then that agent's sessions. Requests about an agent's
//! state take no lock that another agent's request takes, the ledger's short one excepted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::agent::{Agent, AgentState, State};
use super::call::Call;
use super::config::{Config, Deployment};
use super::faults::NodeFaults;
use super::ledger::Ledger;
use super::lock;
use super::reasons;
use super::xml::{escape, leaf};
use super::xmpp::Outgoing;

/// Who asked for a change, through which node, with which `requestId`.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Node 1 or 2.
    pub node: usize,
    /// The agent the request acts for.
    pub agent: &'a Arc<Agent>,
    /// Header `requestId`; empty when absent.
    pub request_id: &'a str,
    /// Header `traceparent`; empty when absent.
    pub traceparent: &'a str,
}

impl Caller<'_> {
    /// What the ledger keeps of the request.
    pub fn marks(&self) -> (&str, &str) {
        (self.request_id, self.traceparent)
    }

    /// The id to put into a notification for that agent: only who caused it gets it.
    pub fn id_for(caller: Option<Caller<'_>>, agent: &Agent) -> String {
        caller
            .filter(|caller| caller.agent.id == agent.id)
            .map(|caller| caller.request_id.to_owned())
            .unwrap_or_default()
    }
}

/// A refusal at once: HTTP status and the three texts of the ApiError.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// `ErrorType`.
    pub kind: &'static str,
    /// `ErrorMessage`.
    pub message: String,
    /// `ErrorData`.
    pub data: String,
}

impl Refused {
    /// A refusal with these texts.
    pub fn new(status: u16, kind: &'static str, message: &str, data: &str) -> Self {
        Self {
            status,
            kind,
            message: message.to_owned(),
            data: data.to_owned(),
        }
    }

    /// 400 Invalid Input.
    pub fn input(message: &str, data: &str) -> Self {
        Self::new(400, "Invalid Input", message, data)
    }

    /// 400 Parameter Missing.
    pub fn missing(name: &str) -> Self {
        Self::new(
            400,
            "Parameter Missing",
            &format!("{name} is missing"),
            name,
        )
    }

    /// 400 Invalid State.
    pub fn state(data: &str) -> Self {
        Self::new(400, "Invalid State", "not allowed in this state", data)
    }

    /// The `<ApiErrors>` body.
    pub fn body(&self) -> String {
        let mut out = String::from("<ApiErrors><ApiError>");
        leaf(&mut out, "ErrorType", self.kind);
        leaf(&mut out, "ErrorMessage", &self.message);
        leaf(&mut out, "ErrorData", &self.data);
        out.push_str("</ApiError></ApiErrors>");
        out
    }
}

/// One explicit subscription to a team's node; stored on the node it was made on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamWatch {
    /// Node 1 or 2.
    pub node: usize,
    /// Team id.
    pub team: u32,
    /// Subscriber.
    pub agent: Arc<str>,
    /// His resource; empty for a bare JID.
    pub resource: String,
}

/// Most team subscriptions kept.
const MAX_TEAM_WATCHES: usize = 10_000;

/// The calls in progress.
#[derive(Debug, Default)]
pub struct Calls {
    /// By dialog id.
    pub map: HashMap<u64, Call>,
    next: u64,
}

impl Calls {
    /// A fresh dialog id.
    pub fn fresh_id(&mut self) -> u64 {
        self.next += 1;
        30_000_000 + self.next
    }
}

/// Everything the nodes share.
#[derive(Debug)]
pub struct World {
    /// What is played.
    pub config: Config,
    agents: HashMap<String, Arc<Agent>>,
    order: Vec<Arc<Agent>>,
    /// Signed-in devices by extension.
    pub devices: RwLock<HashMap<String, Arc<Agent>>>,
    /// Calls in progress.
    pub calls: Mutex<Calls>,
    /// Accepted effects.
    pub ledger: Ledger,
    /// Fault switches, one set a node.
    pub faults: Vec<NodeFaults>,
    /// Ends every task of the simulator.
    pub stop: CancellationToken,
    team_watches: Mutex<Vec<TeamWatch>>,
    teams_watched: AtomicBool,
    item: AtomicU64,
}

impl World {
    /// A cluster at rest: everybody signed out, no calls.
    pub fn new(config: Config) -> Self {
        let order: Vec<Arc<Agent>> = config
            .agents
            .list()
            .into_iter()
            .map(|spec| Arc::new(Agent::new(spec)))
            .collect();
        Self {
            agents: order
                .iter()
                .map(|agent| (agent.id.to_ascii_lowercase(), agent.clone()))
                .collect(),
            order,
            devices: RwLock::default(),
            calls: Mutex::default(),
            ledger: Ledger::new(config.ledger_limit),
            faults: config.nodes.iter().map(|_| NodeFaults::default()).collect(),
            stop: CancellationToken::new(),
            team_watches: Mutex::default(),
            teams_watched: AtomicBool::new(false),
            item: AtomicU64::new(1),
            config,
        }
    }

    /// The agent of that id, in any letter case.
    pub fn agent(&self, id: &str) -> Option<&Arc<Agent>> {
        match self.agents.get(id) {
            None => self.agents.get(&id.to_ascii_lowercase()),
            found => found,
        }
    }

    /// All agents in configuration order.
    pub fn agents(&self) -> &[Arc<Agent>] {
        &self.order
    }

    /// The product played.
    pub fn deployment(&self) -> Deployment {
        self.config.deployment
    }

    /// The faults of node 1 or 2.
    pub fn node_faults(&self, node: usize) -> &NodeFaults {
        // Node numbers are given out by `start`, one a set of faults.
        &self.faults[node - 1]
    }

    /// The agent signed in on that extension.
    pub fn device(&self, extension: &str) -> Option<Arc<Agent>> {
        let devices = self.devices.read().unwrap_or_else(|e| e.into_inner());
        devices.get(extension).cloned()
    }

    /// A number nobody has: sessions, streams.
    pub fn fresh_serial(&self) -> u64 {
        self.item.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes a right or wrong password under the configured lockout; `true` lets the user in.
    pub fn admit(&self, agent: &Agent, right: bool) -> bool {
        let block = i64::try_from(self.config.lockout_for.as_millis()).unwrap_or(i64::MAX);
        agent.admit(right, self.config.lockout_after, block)
    }

    /// Runs `then` after `delay`, unless the simulator stops first.
    pub fn later(
        self: &Arc<Self>,
        delay: Duration,
        then: impl FnOnce(&Arc<World>) + Send + 'static,
    ) {
        let world = self.clone();
        // Without a runtime (it is shutting down) there is no later.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            tokio::select! {
                () = world.stop.cancelled() => {}
                () = tokio::time::sleep(delay) => then(&world),
            }
        });
    }

    /// Publishes the agent's User object; call with his state locked.
    pub fn publish_user(&self, agent: &Agent, state: &AgentState, request_id: &str) {
        if agent.session_count.load(Ordering::Acquire) > 0 {
            let mut update = String::with_capacity(1024);
            update.push_str("<Update><data>");
            agent.write_user(&mut update, "user", state);
            let source = format!("/finesse/api/User/{}", agent.id);
            finish(&mut update, "PUT", request_id, &source);
            self.push(agent, &source, &update);
        }
        if self.teams_watched.load(Ordering::Acquire) {
            self.publish_team(agent, state);
        }
    }

    /// Publishes an event of the agent's Dialogs node; `data` is the content of `<data>`.
    pub fn publish_dialogs(
        &self,
        agent: &Agent,
        data: &str,
        event: &str,
        request_id: &str,
        source: &str,
    ) {
        let mut update = String::with_capacity(data.len() + 256);
        update.push_str("<Update><data>");
        update.push_str(data);
        finish(&mut update, event, request_id, source);
        let node = format!("/finesse/api/User/{}/Dialogs", agent.id);
        self.push(agent, &node, &update);
    }

    /// Publishes a CTI refusal on `node` (the User or the Dialogs node).
    pub fn publish_error(&self, caller: Caller<'_>, node: &str, source: &str, error: [&str; 3]) {
        let mut update = String::from("<Update><data><apiErrors><apiError>");
        leaf(&mut update, "errorData", error[0]);
        leaf(&mut update, "errorMessage", error[1]);
        leaf(&mut update, "errorType", error[2]);
        update.push_str("</apiError></apiErrors>");
        finish(&mut update, "PUT", caller.request_id, source);
        self.push(caller.agent, node, &update);
    }

    /// Publishes the node's SystemInfo to all its sessions.
    pub fn publish_system(&self, node: usize) {
        let out = self.node_faults(node).out_of_service();
        let mut update = String::from("<Update><data><systemInfo>");
        leaf(&mut update, "status", service(out).0);
        leaf(&mut update, "statusReason", service(out).1);
        leaf(&mut update, "uri", SYSTEM_INFO);
        update.push_str("</systemInfo>");
        finish(&mut update, "PUT", "", SYSTEM_INFO);
        for agent in &self.order {
            self.push_where(agent, SYSTEM_INFO, &update, |n, _| n == node);
        }
    }

    /// Sends every session of a node the presence of the `finesse` user.
    pub fn publish_presence(&self, node: usize, available: bool) {
        for agent in &self.order {
            for session in lock(&agent.sessions).iter().filter(|s| s.node == node) {
                let domain = &self.config.nodes[node - 1].domain;
                let jid = session.jid(&agent.id, domain);
                session.push(Outgoing::now(finesse_presence(domain, &jid, available)));
            }
        }
    }

    fn publish_team(&self, agent: &Agent, state: &AgentState) {
        let team = agent.spec.team;
        let watches: Vec<TeamWatch> = lock(&self.team_watches)
            .iter()
            .filter(|watch| watch.team == team)
            .cloned()
            .collect();
        if watches.is_empty() {
            return;
        }
        let mut update = String::from("<Update><data>");
        agent.write_summary(&mut update, "user", "ReasonCode", state);
        finish(
            &mut update,
            "PUT",
            "",
            &format!("/finesse/api/User/{}", agent.id),
        );
        let node = format!("/finesse/api/Team/{team}/Users");
        for watch in watches {
            if let Some(watcher) = self.agent(&watch.agent) {
                self.push_where(watcher, &node, &update, |n, resource| {
                    n == watch.node && (watch.resource.is_empty() || watch.resource == resource)
                });
            }
        }
    }

    /// Stores a team subscription; `false` when there are too many.
    pub fn watch_team(&self, watch: TeamWatch) -> bool {
        let mut watches = lock(&self.team_watches);
        if !watches.contains(&watch) {
            if watches.len() >= MAX_TEAM_WATCHES {
                return false;
            }
            watches.push(watch);
        }
        self.teams_watched.store(true, Ordering::Release);
        true
    }

    /// Removes a team subscription; `false` when there was none.
    pub fn unwatch_team(&self, watch: &TeamWatch) -> bool {
        let mut watches = lock(&self.team_watches);
        let before = watches.len();
        watches.retain(|other| other != watch);
        self.teams_watched
            .store(!watches.is_empty(), Ordering::Release);
        watches.len() < before
    }

    /// Team subscriptions stored.
    pub fn team_watch_count(&self) -> usize {
        lock(&self.team_watches).len()
    }

    fn push(&self, agent: &Agent, node: &str, update: &str) {
        self.push_where(agent, node, update, |_, _| true);
    }

    fn push_where(
        &self,
        agent: &Agent,
        node: &str,
        update: &str,
        wanted: impl Fn(usize, &str) -> bool,
    ) {
        if agent.session_count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut escaped = String::new();
        let item = self.item.fetch_add(1, Ordering::Relaxed);
        for session in lock(&agent.sessions).iter() {
            if !session.available
                || !wanted(session.node, &session.resource)
                || self.node_faults(session.node).swallow()
            {
                continue;
            }
            if escaped.is_empty() {
                escaped.reserve(update.len() * 2);
                escape(&mut escaped, update);
            }
            let domain = &self.config.nodes[session.node - 1].domain;
            let user = super::xmpp::jid_escape(&agent.id);
            let stanza = format!(
                "<message from='pubsub.{domain}' to='{user}@{domain}' id='{node}__{user}@{domain}__{item:x}'>\
                 <event xmlns='http://jabber.org/protocol/pubsub#event'><items node='{node}'><item id='{item:x}'>\
                 <notification xmlns='http://jabber.org/protocol/pubsub'>{escaped}</notification>\
                 </item></items></event></message>"
            );
            session.push(Outgoing::after(stanza, self.config.event_delay));
        }
    }

    /// Starts the forced sign-out clock of an agent whose last session is gone (section 10.4).
    pub fn sessions_gone(self: &Arc<Self>, agent: &Arc<Agent>) {
        let wait = self.config.forced_logout_after;
        if wait.is_zero() || agent.current() == State::Logout || self.stop.is_cancelled() {
            return;
        }
        let epoch = agent.session_epoch.load(Ordering::Acquire);
        let agent = agent.clone();
        self.later(wait, move |world| {
            if agent.session_epoch.load(Ordering::Acquire) != epoch
                || agent.session_count.load(Ordering::Acquire) > 0
            {
                return;
            }
            let mut state = lock(&agent.state);
            if state.state != State::Logout {
                let reason = reasons::system(255, "LOGOUT", "System Failure");
                world.sign_out(&agent, &mut state, Some(reason));
                world
                    .ledger
                    .record(0, &agent.id, "FORCED_LOGOUT", ("", ""), "255");
                world.publish_user(&agent, &state, "");
            }
        });
    }

    /// Signs an agent out; the caller publishes.
    pub fn sign_out(&self, agent: &Agent, state: &mut AgentState, reason: Option<reasons::Reason>) {
        let mut devices = self.devices.write().unwrap_or_else(|e| e.into_inner());
        if devices
            .get(&state.extension)
            .is_some_and(|owner| owner.id == agent.id)
        {
            devices.remove(&state.extension);
        }
        drop(devices);
        state.pending = None;
        state.mobile = None;
        state.extension.clear();
        state.rest(State::Logout, reason);
    }
}

/// The automatic node every session follows.
pub const SYSTEM_INFO: &str = "/finesse/api/SystemInfo";

/// Status and reason of a node.
pub fn service(out: bool) -> (&'static str, &'static str) {
    if out {
        ("OUT_OF_SERVICE", "CTI connection lost")
    } else {
        ("IN_SERVICE", "")
    }
}

/// The presence stanza of the `finesse` user.
pub fn finesse_presence(domain: &str, to: &str, available: bool) -> String {
    let kind = if available { "" } else { " type='unavailable'" };
    format!("<presence from='finesse@{domain}/desktop' to='{to}'{kind}/>")
}

fn finish(update: &mut String, event: &str, request_id: &str, source: &str) {
    update.push_str("</data>");
    leaf(update, "event", event);
    leaf(update, "requestId", request_id);
    leaf(update, "source", source);
    update.push_str("</Update>");
}
