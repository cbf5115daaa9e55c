//! One instance: its engine, its process and its disk.

use std::collections::{BTreeMap, BTreeSet};

use tandem_engine::command::{Keep, KeptGroup};
use tandem_engine::config::{AgentPolicy, BrokerPolicy, Config, Mode, PeerTimers};
use tandem_engine::ids::{BootId, LinkEpoch, PublishId, VerbId};
use tandem_engine::input::{PublishOutcome, Verb};
use tandem_engine::peer::SessionRecord;
use tandem_engine::{Engine, Event, Input};
use tandem_model::{Destination, InstanceId};

use crate::broker::Conn;
use crate::downstream::Held;
use crate::journal::JournalDisk;
use crate::plan::Point;
use crate::trace::Trace;
use crate::world::{Ev, REQUEST_TIMEOUT_MS, WALL, World};

/// The number of the verb that starts a group again.
pub const START: VerbId = VerbId(1);
/// How often a disk that hangs is looked at, milliseconds.
pub const HANGS_MS: u64 = 50;
/// The number of all others.
pub const OTHER: VerbId = VerbId(2);

/// An instance.
#[derive(Default)]
pub struct Node {
    pub engine: Option<Engine>,
    pub boot: u64,
    pub frozen: bool,
    /// Inputs that came while it was frozen.
    pub waiting: Vec<Input>,
    pub links: BTreeMap<LinkEpoch, usize>,
    /// Command ids of the deliveries it holds, and the step of the run at which each came.
    pub tags: BTreeMap<(LinkEpoch, u64), (String, u64)>,
    /// What it published as an answer: to which command, and whether for good.
    pub answers: BTreeMap<PublishId, (String, bool)>,
    /// Subscriptions asked for and not ended.
    /// By which node of the downstream each is to be.
    pub wanted: BTreeMap<Held, usize>,
    /// Those that stand.
    pub subscriptions: BTreeSet<Held>,
    /// What its store keeps over a crash.
    pub disk: Disk,
    /// What its journal keeps.
    pub journal: JournalDisk,
    /// Where it is to be killed, and whether before or after that.
    pub trap: Option<(Point, bool)>,
    /// Until when the process before had commands in work.
    pub former: Option<u64>,
    /// When it is started again after an end in order.
    pub up_again: u64,
    /// An operator waits for its group to be started.
    pub to_start: bool,
    ticks: (u64, u32),
}

/// The store of one instance.
#[derive(Default)]
pub struct Disk {
    sessions: BTreeMap<String, SessionRecord>,
    destinations: BTreeSet<Destination>,
    epoch: u64,
    groups: BTreeMap<String, KeptGroup>,
    /// Takes nothing.
    pub fails: bool,
    /// Says nothing.
    pub hangs: bool,
    /// Being written: a crash makes it or loses it.
    writing: Option<Keep>,
}

impl Disk {
    fn keep(&mut self, keep: Keep) {
        for (agent, record) in keep.sessions {
            match record {
                Some(record) => self.sessions.insert(agent.to_string(), record),
                None => self.sessions.remove(agent.as_str()),
            };
        }
        self.destinations.extend(keep.destinations);
        let gone = |one: &Destination| keep.forgotten.contains(one);
        self.destinations.retain(|one| !gone(one));
        self.epoch = keep.epoch;
        let groups = keep.groups.into_iter();
        self.groups
            .extend(groups.map(|group| (group.name.clone(), group)));
    }
}

pub fn name_of(node: usize) -> InstanceId {
    InstanceId::new(&format!("gc-{}", node + 1)).expect("a valid name")
}

impl World {
    fn config(&self, node: usize, boot: u64) -> Config {
        let labels = ["b0", "b1"];
        Config {
            instance: name_of(node),
            site: format!("site-{}", node % 2),
            version: "1".into(),
            boot: BootId(boot),
            started: WALL + self.now,
            former: self.nodes[node].former,
            seed: boot | 1,
            mode: self.plan.mode,
            groups: vec!["agents".into()],
            queues: vec!["Connector1".into()],
            priority: match self.plan.mode {
                Mode::ActivePassive => [127, 100, 90][node],
                Mode::ActiveActive => 127,
            },
            group_priorities: Vec::new(),
            prefetch: self.plan.extra.prefetch(),
            brokers: BrokerPolicy {
                labels: vec![labels[node % 2].to_owned(), labels[1 - node % 2].to_owned()],
                spare: true,
                priority_backup: true,
                failback_hold: 1_000,
                reconnect_delay: 100,
                reconnect_delay_max: 1_000,
                far_follower: -10,
                stands_back: 0,
            },
            peers: PeerTimers {
                heartbeat: 500,
                suspect: 1_500,
                lost: 3_000,
            },
            fence: false,
            takeback_hold: 2_000,
            takeover_rate: 200,
            remembered: 500_000,
            nodes: vec!["f0".into(), "f1".into()],
            node_urls: Vec::new(),
            seats: usize::MAX,
            probe_interval: 1_000,
            request_timeout: REQUEST_TIMEOUT_MS,
            failback: self.plan.extra.failback,
            http: None,
            agents: AgentPolicy::default(),
            parse: self.defaults.clone(),
            shutdown_grace: 3_000,
            page: String::new(),
            planted: self.planted,
        }
    }

    pub fn start(&mut self, node: usize) {
        if self.nodes[node].engine.is_some() {
            return;
        }
        let boot = self.rng.below(1 << 40);
        let mut engine = Engine::new(self.config(node, boot));
        let disk = &self.nodes[node].disk;
        engine.restore(
            disk.sessions.values().cloned().collect(),
            disk.destinations.iter().cloned().collect(),
            disk.epoch,
        );
        engine.restore_groups(disk.groups.values().cloned().collect());
        engine.restore_journal(self.clock(node), self.nodes[node].journal.restored());
        engine.start(self.clock(node));
        self.nodes[node].engine = Some(engine);
        self.nodes[node].boot = boot;
        self.drain(node);
    }

    /// The process is gone; brokers notice at once where they can.
    pub fn crash(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        for broker in 0..2 {
            let found = if self.reaches(node, broker) {
                10
            } else {
                4_000 + self.rng.below(1_500)
            };
            let conns: Vec<Conn> = self.brokers[broker].conns.clone();
            for conn in conns.into_iter().filter(|c| c.0 == node && c.1 == boot) {
                self.after(found, Ev::BrokerDrops(broker, conn));
            }
        }
        let wrong = self.seen.roles.ended(name_of(node).as_str(), self.now);
        self.seen.violations.extend(wrong);
        let made = self.rng.one_in(2);
        let entry = &mut self.nodes[node];
        let busy = entry.engine.as_ref().is_some_and(Engine::in_work);
        entry.former = busy.then_some(WALL + self.now);
        if let Some(keep) = entry.disk.writing.take().filter(|_| made) {
            entry.disk.keep(keep);
        }
        entry.journal.crash(made);
        entry.engine = None;
        entry.frozen = false;
        entry.trap = None;
        entry.waiting.clear();
        entry.links.clear();
        entry.tags.clear();
        entry.answers.clear();
        entry.wanted.clear();
        entry.subscriptions.clear();
    }

    // ---- disk ---------------------------------------------------------------------------------

    pub fn write(&mut self, node: usize, keep: Keep) {
        let boot = self.nodes[node].boot;
        self.nodes[node].disk.writing = Some(keep);
        let wait = 1 + self.rng.below(6);
        self.after(wait, Ev::Written(node, boot));
    }

    pub fn written(&mut self, node: usize, boot: u64) {
        let entry = &mut self.nodes[node];
        if entry.boot != boot {
            return;
        }
        if entry.disk.hangs {
            self.after(HANGS_MS, Ev::Written(node, boot));
            return;
        }
        let Some(keep) = entry.disk.writing.take() else {
            return;
        };
        let failure = entry.disk.fails.then(|| "disk full".to_owned());
        if failure.is_none() {
            entry.disk.keep(keep);
        }
        self.input(node, boot, Input::Kept { failure });
    }

    // ---- inputs -------------------------------------------------------------------------------

    /// When an instance wants to be woken.
    pub fn due(&self, node: usize) -> Option<u64> {
        let entry = &self.nodes[node];
        let engine = entry.engine.as_ref().filter(|_| !entry.frozen)?;
        engine.poll_timeout().map(|at| at.max(self.now))
    }

    pub fn tick(&mut self, node: usize) {
        let second = self.now / 1_000;
        let entry = &mut self.nodes[node];
        entry.ticks = if entry.ticks.0 == second {
            (second, entry.ticks.1 + 1)
        } else {
            (second, 1)
        };
        if entry.ticks.1 == 400 {
            let who = name_of(node);
            self.seen
                .violate(format!("I9: {who} has a hot loop of timers"));
        }
        let boot = entry.boot;
        self.input(node, boot, Input::Tick);
    }

    pub fn input(&mut self, node: usize, boot: u64, input: Input) {
        let now = self.clock(node);
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
        if let Input::Published {
            publish,
            outcome: PublishOutcome::Confirmed,
        } = &input
            && let Some((id, definite)) = entry.answers.remove(publish)
        {
            self.seen.confirmed(&id, definite, self.steps);
        }
        let minute = matches!(self.trace, Trace::Minute);
        let heard = minute.then(|| format!("gc-{} <- {input:?}", node + 1));
        engine.handle(now, input);
        if let Some(heard) = heard {
            self.trace.say(self.now, || heard);
        }
        self.drain(node);
    }

    /// An operator's verb. `START` is asked for again until it is done.
    pub fn order(&mut self, node: usize, id: VerbId, verb: Verb) {
        let boot = self.nodes[node].boot;
        self.input(node, boot, Input::Operator { id, verb });
    }

    /// The answer to a verb.
    pub fn answered(&mut self, node: usize, id: VerbId, result: &Result<String, String>) {
        let done = match result {
            Ok(_) => true,
            Err(reason) => reason.contains("not stopped"),
        };
        if id == START && done {
            self.nodes[node].to_start = false;
        }
    }

    /// The instance goes on after a pause: what waited for it comes in one go.
    pub fn thaw(&mut self, node: usize) {
        self.nodes[node].frozen = false;
        let boot = self.nodes[node].boot;
        for input in std::mem::take(&mut self.nodes[node].waiting) {
            self.input(node, boot, input);
        }
    }

    fn drain(&mut self, node: usize) {
        while let Some(engine) = &mut self.nodes[node].engine {
            let Some(command) = engine.poll_command() else {
                break;
            };
            if matches!(self.trace, Trace::Minute) {
                self.trace
                    .say(self.now, || format!("gc-{} -> {command:?}", node + 1));
            }
            if let Some(digest) = &mut self.digest {
                digest.command(self.now, node, &command);
            }
            self.carry_out(node, command);
        }
        while let Some(engine) = &mut self.nodes[node].engine {
            let Some(event) = engine.poll_event() else {
                break;
            };
            if let Some(digest) = &mut self.digest {
                digest.event(self.now, node, &event);
            }
            self.observe(node, &event);
        }
    }

    fn observe(&mut self, node: usize, event: &Event) {
        let told = matches!(
            event,
            Event::RoleChanged { .. }
                | Event::PeerUp { .. }
                | Event::PeerLost { .. }
                | Event::OwnPause { .. }
                | Event::Service { .. }
                | Event::TakeoverStarted { .. }
        );
        if told {
            self.trace
                .say(self.now, || format!("{} {event:?}", name_of(node)));
        }
        let who = name_of(node);
        self.seen.happened(who.as_str(), event, self.now);
    }
}
