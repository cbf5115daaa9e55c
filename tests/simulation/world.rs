//! Virtual time, faults, the network, and what is judged at the end.

use std::collections::{BTreeMap, BTreeSet};

use tandem::engine::command::{JournalWrite, Keep};
use tandem::engine::config::{AgentPolicy, BrokerPolicy, Config, Mode, PeerTimers};
use tandem::engine::ids::{BootId, LinkEpoch, Now};
use tandem::engine::journal::Restored;
use tandem::engine::peer::{IntentRecord, OutcomeRecord, PeerMessage, Role, SessionRecord};
use tandem::engine::{Engine, Event, Input};
use tandem::model::{Destination, InstanceId};
use tandem::wire::command::Defaults;
use tandem::wire::message::RawMessage;
use tandem::wire::reply::Reply;

use crate::broker::{Broker, Conn};
use crate::checks::Seen;
use crate::clients::Client;

pub const WALL: u64 = 1_700_000_000_000;
/// Faults begin after this, milliseconds.
const CALM_MS: u64 = 8_000;
/// Faults have ended by then.
const HEALED_MS: u64 = 45_000;
/// No new commands from then on.
const STOP_MS: u64 = 85_000;
const END_MS: u64 = 100_000;
pub const PREFETCH: usize = 20;

/// Something that goes wrong, and ends.
#[derive(Debug, Clone)]
pub enum Fault {
    Crash { node: usize, at: u64, millis: u64 },
    Pause { node: usize, at: u64, millis: u64 },
    Broker { broker: usize, at: u64, millis: u64 },
    Cut { at: u64, millis: u64 },
    OneWay { from: usize, at: u64, millis: u64 },
    Downstream { at: u64, millis: u64 },
    Lossy { at: u64, millis: u64 },
}

impl Fault {
    /// One to four faults.
    pub fn some(seed: u64, nodes: usize) -> Vec<Self> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut random = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % bound
        };
        (0..=random(4))
            .map(|_| {
                let at = CALM_MS + random(22_000);
                let millis = [100 + random(1_900), 1_000 + random(9_000)][random(2) as usize];
                let node = random(nodes as u64) as usize;
                match random(8) {
                    0 | 1 => Self::Crash { node, at, millis },
                    2 => Self::Pause { node, at, millis },
                    3 => Self::Broker {
                        broker: node % 2,
                        at,
                        millis,
                    },
                    4 => Self::Cut { at, millis },
                    5 => Self::OneWay {
                        from: node % 2,
                        at,
                        millis,
                    },
                    6 => Self::Downstream { at, millis },
                    _ => Self::Lossy { at, millis },
                }
            })
            .collect()
    }
}

/// Something that happens at a time.
#[derive(Debug)]
pub enum Ev {
    Start(usize),
    Input(usize, u64, Box<Input>),
    Timer(usize, u64),
    Client(usize, u64),
    /// A connection is found dead by its broker.
    BrokerDrops(usize, Conn),
    /// A link is found dead by its instance, where the way is still cut.
    LinkDies(usize, u64, LinkEpoch),
    Dialled(usize, u64, LinkEpoch, usize),
    Hop(usize, u64, u64, Box<RawMessage>),
    PeerHop(usize, usize, u64, Option<InstanceId>, Box<PeerMessage>),
    Reply(usize, usize, String, Box<Reply>),
    Effect(usize, u64, Box<tandem::engine::command::Call>),
    Begin(Fault),
    End(Fault),
}

/// An instance.
pub struct Node {
    pub engine: Option<Engine>,
    pub boot: u64,
    pub frozen: bool,
    pub waiting: Vec<Input>,
    pub armed: u64,
    pub links: BTreeMap<LinkEpoch, usize>,
    pub tags: BTreeMap<(LinkEpoch, u64), String>,
    pub subscriptions: BTreeSet<(String, u64)>,
    /// What its store keeps over a crash.
    pub disk: Disk,
    ticks: (u64, u32),
}

/// The store of one instance: a write is durable at once, or not at all.
#[derive(Default)]
pub struct Disk {
    pub sessions: BTreeMap<String, SessionRecord>,
    pub destinations: BTreeSet<Destination>,
    pub epoch: u64,
    intents: BTreeMap<[u8; 16], IntentRecord>,
    outcomes: BTreeMap<[u8; 16], OutcomeRecord>,
    members: BTreeMap<InstanceId, u64>,
}

impl Disk {
    pub fn journal(&mut self, write: JournalWrite) {
        match write {
            JournalWrite::Intent(intent) => {
                self.outcomes.remove(&intent.key);
                self.intents.insert(intent.key, intent);
            }
            JournalWrite::Outcome(outcome) => {
                self.outcomes.insert(outcome.key, outcome);
            }
            JournalWrite::Withdraw(key) => {
                self.intents.remove(&key);
            }
            JournalWrite::Member(id, heard) => {
                self.members.insert(id, heard);
            }
        }
    }

    fn restored(&self) -> Restored {
        Restored {
            intents: self.intents.values().cloned().collect(),
            outcomes: self.outcomes.values().cloned().collect(),
            members: self.members.clone().into_iter().collect(),
            lost_until: 0,
        }
    }

    pub fn keep(&mut self, keep: Keep) {
        for (agent, record) in keep.sessions {
            match record {
                Some(record) => self.sessions.insert(agent.to_string(), record),
                None => self.sessions.remove(agent.as_str()),
            };
        }
        self.destinations.extend(keep.destinations);
        self.epoch = keep.epoch;
    }
}

pub struct World {
    pub now: u64,
    pub faults: Vec<Fault>,
    pub nodes: Vec<Node>,
    pub brokers: [Broker; 2],
    pub clients: Vec<Client>,
    pub seen: Seen,
    pub cut: bool,
    /// Federation from this broker to the other does not work.
    pub deaf: [bool; 2],
    /// Connections that a cut has broken, whether their ends know it or not.
    pub broken: BTreeSet<Conn>,
    /// Counts cuts of federation: what was on the way comes again.
    pub federation_life: u64,
    pub downstream_down: bool,
    pub lossy: bool,
    pub stopping: bool,
    pub healed_at: u64,
    pub no_takeover: bool,
    queue: BTreeMap<(u64, u64), Ev>,
    sequence: u64,
    rng: u64,
    tracing: bool,
}

pub fn name_of(node: usize) -> InstanceId {
    InstanceId::new(&format!("gc-{}", node + 1)).expect("a valid name")
}

impl World {
    pub fn new(seed: u64, nodes: usize, faults: Vec<Fault>) -> Self {
        let mut world = Self {
            now: 0,
            nodes: (0..nodes)
                .map(|_| Node {
                    engine: None,
                    boot: 0,
                    frozen: false,
                    waiting: Vec::new(),
                    armed: 0,
                    links: BTreeMap::new(),
                    tags: BTreeMap::new(),
                    subscriptions: BTreeSet::new(),
                    disk: Disk::default(),
                    ticks: (0, 0),
                })
                .collect(),
            brokers: [Broker::default(), Broker::default()],
            clients: (0..5).map(|n| Client::new(n, n % 2)).collect(),
            seen: Seen::default(),
            cut: false,
            deaf: [false; 2],
            broken: BTreeSet::new(),
            federation_life: 0,
            downstream_down: false,
            lossy: false,
            stopping: false,
            healed_at: HEALED_MS,
            no_takeover: false,
            queue: BTreeMap::new(),
            sequence: 0,
            rng: seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1,
            tracing: std::env::var("SIM_TRACE").is_ok(),
            faults: faults.clone(),
        };
        for broker in &mut world.brokers {
            broker.up = true;
        }
        for node in 0..nodes {
            let at = world.random(1_000);
            world.after(at, Ev::Start(node));
        }
        for client in 0..world.clients.len() {
            let at = 3_000 + world.random(500);
            world.after(at, Ev::Client(client, 0));
        }
        for fault in faults {
            let (at, millis) = match &fault {
                Fault::Crash { at, millis, .. }
                | Fault::Pause { at, millis, .. }
                | Fault::Broker { at, millis, .. }
                | Fault::Cut { at, millis }
                | Fault::OneWay { at, millis, .. }
                | Fault::Downstream { at, millis }
                | Fault::Lossy { at, millis } => (*at, *millis),
            };
            world.after(at, Ev::Begin(fault.clone()));
            world.after(at + millis, Ev::End(fault));
        }
        world
    }

    pub fn random(&mut self, bound: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (self.rng >> 11) % bound
    }

    pub fn trace(&self, text: impl FnOnce() -> String) {
        if self.tracing {
            println!("{:>6} {}", self.now, text());
        }
    }

    pub fn after(&mut self, millis: u64, event: Ev) {
        self.sequence += 1;
        self.queue.insert((self.now + millis, self.sequence), event);
    }

    pub fn input_after(&mut self, millis: u64, node: usize, boot: u64, input: Input) {
        self.after(millis, Ev::Input(node, boot, Box::new(input)));
    }

    pub fn clock(&self) -> Now {
        Now {
            mono: self.now,
            wall: WALL + self.now,
        }
    }

    /// Whether an instance can talk to a broker.
    pub fn reaches(&self, node: usize, broker: usize) -> bool {
        self.brokers[broker].up && (!self.cut || node % 2 == broker)
    }

    /// Whether messages cross from one broker to the other.
    pub fn crosses(&self, from: usize) -> bool {
        !self.cut && !self.deaf[from] && self.brokers.iter().all(|broker| broker.up)
    }

    pub fn run(&mut self) {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at > END_MS {
                break;
            }
            self.now = at;
            self.stopping = at > STOP_MS;
            self.happen(event);
            self.dispatch();
            if self.seen.violations.len() > 20 {
                return;
            }
        }
        self.judge();
    }

    fn happen(&mut self, event: Ev) {
        match event {
            Ev::Start(node) => self.start(node),
            Ev::Input(node, boot, input) => self.input(node, boot, *input),
            Ev::Timer(node, boot) => {
                let due = self.nodes[node]
                    .engine
                    .as_ref()
                    .and_then(Engine::poll_timeout)
                    .is_some_and(|at| at <= self.now);
                if due && !self.nodes[node].frozen {
                    self.input(node, boot, Input::Tick);
                }
            }
            Ev::Client(client, token) => self.client_turn(client, token),
            Ev::BrokerDrops(broker, conn) => self.brokers[broker].drop_conn(conn),
            Ev::LinkDies(node, boot, link) => self.link_dies(node, boot, link),
            Ev::Dialled(node, boot, link, broker) => self.dialled(node, boot, link, broker),
            Ev::Hop(to, life, broker_life, raw) => self.hop(to, life, broker_life, *raw),
            Ev::PeerHop(broker, from, boot, to, message) => {
                self.peer_arrives(broker, from, boot, to.as_ref(), &message);
            }
            Ev::Reply(from, client, id, reply) => self.reply_arrives(from, client, &id, &reply),
            Ev::Effect(node, boot, call) => self.effect(node, boot, &call),
            Ev::Begin(fault) => self.begin(&fault),
            Ev::End(fault) => self.end(&fault),
        }
    }

    fn begin(&mut self, fault: &Fault) {
        self.trace(|| format!("BEGIN {fault:?}"));
        match *fault {
            Fault::Crash { node, .. } => self.crash(node),
            Fault::Pause { node, millis, .. } => {
                self.nodes[node].frozen = true;
                let boot = self.nodes[node].boot;
                let links: Vec<_> = self.nodes[node].links.clone().into_iter().collect();
                // F4: the broker's heartbeat check finds it later.
                let found = 4_200 + self.random(1_500);
                if millis > found {
                    for (link, broker) in links {
                        self.after(found, Ev::BrokerDrops(broker, (node, boot, link)));
                        self.input_after(
                            found,
                            node,
                            boot,
                            Input::LinkDown {
                                link,
                                reason: "missed heartbeats".into(),
                            },
                        );
                    }
                }
            }
            Fault::Broker { broker, .. } => {
                self.federation_life += 1;
                for (node, boot, link) in self.brokers[broker].kill() {
                    self.after(5, Ev::LinkDies(node, boot, link));
                }
            }
            Fault::Cut { .. } => {
                self.cut = true;
                self.federation_life += 1;
                for node in 0..self.nodes.len() {
                    let far = 1 - node % 2;
                    let boot = self.nodes[node].boot;
                    let links: Vec<LinkEpoch> = self.nodes[node]
                        .links
                        .iter()
                        .filter(|(_, broker)| **broker == far)
                        .map(|(link, _)| *link)
                        .collect();
                    for link in links {
                        self.broken.insert((node, boot, link));
                        let found = 2_000 + self.random(2_000);
                        self.after(found, Ev::LinkDies(node, boot, link));
                        let found = 4_000 + self.random(1_500);
                        self.after(found, Ev::BrokerDrops(far, (node, boot, link)));
                    }
                }
            }
            Fault::OneWay { from, .. } => {
                self.deaf[from] = true;
                self.federation_life += 1;
            }
            Fault::Downstream { .. } => self.downstream_down = true,
            Fault::Lossy { .. } => self.lossy = true,
        }
    }

    fn end(&mut self, fault: &Fault) {
        self.trace(|| format!("END {fault:?}"));
        match *fault {
            Fault::Crash { node, .. } => {
                if self.nodes[node].engine.is_none() {
                    self.start(node);
                }
            }
            Fault::Pause { node, .. } => {
                self.nodes[node].frozen = false;
                let boot = self.nodes[node].boot;
                for input in std::mem::take(&mut self.nodes[node].waiting) {
                    self.input(node, boot, input);
                }
                self.arm(node);
            }
            Fault::Broker { broker, .. } => self.brokers[broker].up = true,
            Fault::Cut { .. } => self.cut = false,
            Fault::OneWay { from, .. } => self.deaf[from] = false,
            Fault::Downstream { .. } => self.downstream_down = false,
            Fault::Lossy { .. } => self.lossy = false,
        }
    }

    fn crash(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        for broker in 0..2 {
            let conns: Vec<Conn> = self.brokers[broker].conns.clone();
            for conn in conns.into_iter().filter(|c| c.0 == node && c.1 == boot) {
                self.after(10, Ev::BrokerDrops(broker, conn));
            }
        }
        let entry = &mut self.nodes[node];
        entry.engine = None;
        entry.frozen = false;
        entry.waiting.clear();
        entry.links.clear();
        entry.tags.clear();
        entry.subscriptions.clear();
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].engine.is_some() {
            return;
        }
        let boot = self.random(1 << 40);
        let labels = ["b0", "b1"];
        let config = Config {
            instance: name_of(node),
            site: format!("site-{}", node % 2),
            version: "1".into(),
            boot: BootId(boot),
            started: WALL + self.now,
            seed: boot | 1,
            mode: Mode::ActivePassive,
            groups: vec!["agents".into()],
            queues: vec!["Connector1".into()],
            priority: [127, 100, 90][node],
            prefetch: PREFETCH,
            brokers: BrokerPolicy {
                labels: vec![labels[node % 2].to_owned(), labels[1 - node % 2].to_owned()],
                spare: true,
                priority_backup: true,
                failback_hold: 2_000,
                reconnect_delay: 100,
                reconnect_delay_max: 2_000,
            },
            peers: PeerTimers {
                heartbeat: 500,
                suspect: 1_500,
                lost: 3_000,
            },
            takeback_hold: 4_000,
            takeover_rate: 200,
            nodes: vec!["f0".into(), "f1".into()],
            probe_interval: 1_000,
            request_timeout: 1_000,
            failback: false,
            agents: AgentPolicy::default(),
            parse: Defaults {
                max_age_ms: 30_000,
                cluster_name: "tandem".into(),
                command_queues: vec!["Connector1".into()],
            },
            shutdown_grace: 5_000,
        };
        let mut engine = Engine::new(config);
        let disk = &self.nodes[node].disk;
        engine.restore(
            disk.sessions.values().cloned().collect(),
            disk.destinations.iter().cloned().collect(),
            disk.epoch,
        );
        engine.restore_journal(self.clock(), disk.restored());
        engine.start(self.clock());
        self.nodes[node].engine = Some(engine);
        self.nodes[node].boot = boot;
        self.drain(node);
    }

    pub fn input(&mut self, node: usize, boot: u64, input: Input) {
        let now = self.clock();
        let entry = &mut self.nodes[node];
        if entry.boot != boot {
            return;
        }
        if entry.frozen {
            entry.waiting.push(input);
            return;
        }
        let Some(engine) = &mut entry.engine else {
            return;
        };
        if matches!(input, Input::Tick) {
            let second = now.mono / 1_000;
            entry.ticks = if entry.ticks.0 == second {
                (second, entry.ticks.1 + 1)
            } else {
                (second, 1)
            };
            if entry.ticks.1 == 400 {
                let text = format!("I9: {} has a hot loop of timers", name_of(node));
                self.seen.violations.push(text);
            }
        }
        engine.handle(now, input);
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        loop {
            let Some(engine) = &mut self.nodes[node].engine else {
                return;
            };
            let Some(command) = engine.poll_command() else {
                break;
            };
            self.carry_out(node, command);
        }
        while let Some(event) = self.nodes[node]
            .engine
            .as_mut()
            .and_then(Engine::poll_event)
        {
            self.observe(node, &event);
        }
        self.arm(node);
    }

    fn observe(&mut self, node: usize, event: &Event) {
        match event {
            Event::RoleChanged { .. } | Event::PeerUp { .. } | Event::OwnPause { .. } => {
                self.trace(|| format!("{} {event:?}", name_of(node)));
            }
            Event::PeerLost { .. } => {
                self.trace(|| format!("{} {event:?}", name_of(node)));
                if self.no_takeover {
                    let text = format!("I11: {event:?} at {} at {}", name_of(node), self.now);
                    self.seen.violations.push(text);
                }
            }
            _ => {}
        }
    }

    fn arm(&mut self, node: usize) {
        let entry = &mut self.nodes[node];
        let Some(at) = entry.engine.as_ref().and_then(Engine::poll_timeout) else {
            return;
        };
        let at = at.max(self.now);
        if entry.armed != at || at == self.now {
            entry.armed = at;
            let boot = entry.boot;
            self.after(at - self.now, Ev::Timer(node, boot));
        }
    }

    fn judge(&mut self) {
        let mut bad = Vec::new();
        let unanswered = self.seen.unanswered();
        if !unanswered.is_empty() {
            bad.push(format!("I2: without an answer: {unanswered:?}"));
        }
        let views: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|node| node.engine.as_ref().map(Engine::view))
            .collect();
        let roles: Vec<Role> = views.iter().map(|view| view.groups[0].role).collect();
        if roles[0] != Role::Leader || roles[1..].iter().any(|role| *role != Role::Follower) {
            bad.push(format!("I6: roles {roles:?}"));
        }
        for view in &views {
            if view.inflight != 0 || view.outbox != 0 {
                bad.push(format!(
                    "I9: {} has {} commands and {} publications left",
                    view.instance, view.inflight, view.outbox
                ));
            }
        }
        for client in &self.clients {
            if !client.idle() || client.done_after_heal < 20 {
                bad.push(format!("I10: after healing {client:?}"));
            }
            let holders: Vec<usize> = (0..self.nodes.len())
                .flat_map(|node| {
                    let held = &self.nodes[node].subscriptions;
                    let count = held.iter().filter(move |(agent, _)| *agent == client.agent);
                    count.map(move |_| node)
                })
                .collect();
            if holders != [0] {
                bad.push(format!(
                    "I6: agent {} subscribed by {holders:?}",
                    client.agent
                ));
            }
        }
        let mut tables = self
            .nodes
            .iter()
            .filter_map(|node| node.engine.as_ref().map(Engine::session_views))
            .map(|views| {
                let row = |view: &tandem::engine::view::SessionView| {
                    (view.agent.clone(), view.owner.clone(), view.epoch)
                };
                views.iter().map(row).collect::<Vec<_>>()
            });
        if let Some(first) = tables.next()
            && let Some(other) = tables.find(|table| *table != first)
        {
            bad.push(format!("I6: tables differ: {first:?} and {other:?}"));
        }
        let harmless = |fault: &Fault| {
            matches!(
                fault,
                Fault::Downstream { .. } | Fault::Lossy { .. } | Fault::OneWay { .. }
            )
        };
        if self.faults.iter().all(harmless) {
            bad.extend(self.seen.reordered.iter().map(|text| format!("I5: {text}")));
        }
        for (broker, entry) in self.brokers.iter().enumerate() {
            if !entry.queue.is_empty() {
                bad.push(format!(
                    "I10: {} commands left on b{broker}",
                    entry.queue.len()
                ));
            }
        }
        self.trace(|| format!("outcomes {:?}", self.seen.outcome_counts));
        self.seen.violations.extend(bad);
    }
}
