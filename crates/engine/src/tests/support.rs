//! One engine driven by hand, with a world around it that answers unless told otherwise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::command::{
    BrokerCommand, Call, Command, DownstreamCommand, JournalWrite, Keep, LifeCommand,
    NotifyCommand, Outbound, ReplyRoute, StoreCommand,
};
use crate::config::{AgentPolicy, BrokerPolicy, Config, Mode, PeerTimers, Planted};
use crate::fitness::{Proof, Way};
use crate::ids::{BootId, CallId, DeliveryId, JournalId, LinkEpoch, Now, PublishId};
use crate::input::{Delivery, Input, Notice, PublishOutcome, Source};
use crate::model::{
    Action, AgentId, Answer, ApiError, CallOutcome, Destination, InstanceId, NodeHealth, Resource,
    Secret, Shortage, Trace, Update, UpdateBody, User,
};
use crate::peer::{GroupState, Heartbeat, PeerMessage, Role, TraceRow};
use crate::wire::command::{Defaults, parse};
use crate::wire::event::ClientEvent;
use crate::wire::message::RawMessage;
use crate::wire::reply::{Outcome, Reply};
use crate::{Engine, Event};

/// Wall-clock time at monotonic 0, milliseconds.
pub const WALL: u64 = 1_700_000_000_000;

/// What a broker says to what it refuses.
pub const REFUSAL: &str = "ACCESS_REFUSED - so said the test";

pub fn instance(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

pub fn agent(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

pub fn destination(name: &str) -> Destination {
    Destination::new(name).unwrap()
}

pub fn config() -> Config {
    Config {
        instance: instance("gc-1"),
        site: "site-1".into(),
        version: "1".into(),
        boot: BootId(11),
        started: WALL,
        seed: 7,
        mode: Mode::ActivePassive,
        groups: vec!["agents".into()],
        queues: vec!["Connector1".into()],
        priority: 127,
        group_priorities: Vec::new(),
        prefetch: 100,
        brokers: BrokerPolicy {
            labels: vec!["b0".into(), "b1".into()],
            spare: true,
            priority_backup: true,
            failback_hold: 5_000,
            reconnect_delay: 100,
            reconnect_delay_max: 5_000,
        },
        peers: PeerTimers {
            heartbeat: 500,
            suspect: 1_500,
            lost: 3_000,
        },
        fence: false,
        takeback_hold: 10_000,
        takeover_rate: 200,
        nodes: vec!["f0".into(), "f1".into()],
        seats: usize::MAX,
        probe_interval: 5_000,
        request_timeout: 3_000,
        failback: false,
        http: None,
        agents: AgentPolicy::default(),
        parse: Defaults {
            max_age_ms: 30_000,
            cluster_name: "tandem".into(),
            generate_traces: false,
            command_queues: vec!["Connector1".into()],
        },
        shutdown_grace: 10_000,
        planted: Planted::default(),
    }
}

pub fn in_service() -> NodeHealth {
    NodeHealth::InService {
        xmpp_domain: "d".into(),
        pubsub_domain: "pubsub.d".into(),
        deployment: "UCCE".into(),
    }
}

pub fn unreachable() -> NodeHealth {
    NodeHealth::Unreachable {
        reason: "no route".into(),
    }
}

pub fn user(name: &str, state: &str) -> User {
    User {
        login_id: name.into(),
        extension: "2001".into(),
        state: state.into(),
        ..User::default()
    }
}

pub fn done() -> CallOutcome {
    CallOutcome::Done {
        status: 202,
        answer: Answer::Empty,
    }
}

pub fn not_sent() -> CallOutcome {
    CallOutcome::NotSent {
        timed_out: false,
        reason: "refused".into(),
    }
}

pub fn no_descriptors() -> Shortage {
    Shortage {
        of: Resource::Descriptors,
        reason: "Too many open files (os error 24)".into(),
    }
}

pub fn no_room() -> CallOutcome {
    CallOutcome::NoRoom(no_descriptors())
}

pub fn timed_out() -> CallOutcome {
    CallOutcome::Unknown {
        status: None,
        timed_out: true,
        reason: "time is up".into(),
    }
}

pub fn refused(status: u16) -> CallOutcome {
    CallOutcome::Refused {
        status,
        error: ApiError::default(),
    }
}

/// A command as a client sends it.
pub fn message(kind: &str, body: &str, id: &str) -> RawMessage {
    RawMessage {
        kind: Some(kind.into()),
        body: Bytes::copy_from_slice(body.as_bytes()),
        message_id: Some(id.into()).filter(|id: &String| !id.is_empty()),
        correlation_id: Some(format!("corr-{id}")),
        reply_to: Some("replies-of-client".into()),
        ..RawMessage::default()
    }
}

/// What the world does with publications other than peer messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    Confirms,
    Holds,
    Returns,
    Fails,
    /// Refuses what is for clients.
    ClientsAreFull,
    /// Refuses events.
    EventsAreRefused,
    /// Refuses events with this address.
    Refuses(&'static str),
    /// Has lost the queue of dead letters, until it is declared again.
    NoDeadLetters,
}

/// What the notification service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notifications {
    Up,
    Refuses,
    Unreachable,
    NoRoom,
    Silent,
}

pub struct Rig {
    pub engine: Engine,
    pub config: Config,
    pub mono: u64,
    pub broker: Broker,
    pub notifications: Notifications,
    /// Whether calls are answered at once (with `answers`, then with success).
    pub answers_calls: bool,
    pub answers: VecDeque<CallOutcome>,
    pub nodes: Vec<NodeHealth>,
    pub dials: bool,
    pub silent_probes: bool,
    pub refuses_links: bool,
    /// Consumers of peers' control queues, where they are answered for.
    pub counts: BTreeMap<InstanceId, u32>,
    /// The broker that peers' control queues are consumed on; `None`: on any.
    pub peers_at: Option<usize>,
    /// A broker that answers no question: the link to it is cut, which nobody knows yet.
    pub mute: Option<usize>,
    pub users: BTreeMap<AgentId, User>,

    /// What brokers refuse, by index.
    pub refused: BTreeSet<(usize, Way)>,
    /// Brokers that do not answer to a consumer.
    pub slow_consumers: BTreeSet<usize>,
    /// Publications that were refused.
    pub barred: usize,
    /// Proofs asked for.
    pub proofs: Vec<(LinkEpoch, Way)>,

    pub links: Vec<(LinkEpoch, usize)>,
    pub consumers: BTreeMap<(LinkEpoch, usize), (i32, String)>,
    pub acks: Vec<DeliveryId>,
    pub requeued: Vec<DeliveryId>,
    pub published: Vec<(PublishId, LinkEpoch, Outbound)>,
    pub held: Vec<PublishId>,
    pub said: Vec<(Option<InstanceId>, PeerMessage)>,
    pub calls: Vec<Call>,
    pub open_calls: Vec<CallId>,
    pub subscribed: Vec<(AgentId, crate::ids::SubscriptionEpoch, usize)>,
    /// The newest subscription of each agent.
    newest: BTreeMap<AgentId, crate::ids::SubscriptionEpoch>,
    pub watched: Vec<(AgentId, String)>,
    pub unsubscribed: Vec<(AgentId, crate::ids::SubscriptionEpoch)>,
    pub events: Vec<Event>,
    pub verbs: Vec<Result<String, String>>,
    pub trace_tells: Vec<(Option<InstanceId>, u64, String, Vec<TraceRow>)>,
    pub traced: Vec<(InstanceId, u64, Vec<TraceRow>)>,
    pub fences: Vec<(usize, InstanceId)>,
    /// Links on which expired commands are consumed.
    pub undertakers: Vec<LinkEpoch>,
    pub exited: bool,
    /// What the store has.
    pub kept: Keep,
    pub store_fails: bool,
    /// What was handed to the journal.
    pub journal: Vec<(JournalId, JournalWrite)>,
    pub journal_answers: bool,
    pub journal_failure: Option<String>,
    next_tag: u64,
    /// The link of the last peer message.
    said_on: Option<LinkEpoch>,
}

impl Rig {
    pub fn new(config: Config) -> Self {
        Self {
            engine: Engine::new(config.clone()),
            config,
            mono: 1_000,
            broker: Broker::Confirms,
            notifications: Notifications::Up,
            answers_calls: true,
            answers: VecDeque::new(),
            nodes: vec![in_service(), in_service()],
            dials: true,
            silent_probes: false,
            refuses_links: false,
            counts: BTreeMap::new(),
            peers_at: None,
            mute: None,
            users: BTreeMap::new(),
            refused: BTreeSet::new(),
            slow_consumers: BTreeSet::new(),
            barred: 0,
            proofs: Vec::new(),
            links: Vec::new(),
            consumers: BTreeMap::new(),
            acks: Vec::new(),
            requeued: Vec::new(),
            published: Vec::new(),
            held: Vec::new(),
            said: Vec::new(),
            calls: Vec::new(),
            open_calls: Vec::new(),
            subscribed: Vec::new(),
            newest: BTreeMap::new(),
            watched: Vec::new(),
            unsubscribed: Vec::new(),
            events: Vec::new(),
            verbs: Vec::new(),
            trace_tells: Vec::new(),
            traced: Vec::new(),
            fences: Vec::new(),
            undertakers: Vec::new(),
            exited: false,
            kept: Keep::default(),
            store_fails: false,
            journal: Vec::new(),
            journal_answers: true,
            journal_failure: None,
            next_tag: 0,
            said_on: None,
        }
    }

    /// Started and leading, alone.
    pub fn leader() -> Self {
        let mut rig = Self::new(config());
        rig.start();
        rig.advance(2_000);
        assert_eq!(rig.role(), Role::Leader);
        rig
    }

    /// Started with what a store kept, and leading.
    pub fn restored(kept: Keep) -> Self {
        let mut rig = Self::new(config());
        let records = kept.sessions.into_iter().filter_map(|(_, record)| record);
        rig.engine
            .restore(records.collect(), kept.destinations, kept.epoch);
        rig.engine.restore_groups(kept.groups);
        rig.start();
        rig.advance(2_000);
        rig
    }

    /// Leading, with a signed-in agent `1001` bound to client `desk`.
    pub fn with_agent() -> Self {
        let mut rig = Self::leader();
        rig.sign_in("1001", "desk");
        rig
    }

    pub fn sign_in(&mut self, name: &str, desk: &str) {
        self.users.insert(agent(name), user(name, "NOT_READY"));
        let connect = format!("{desk},pw");
        self.send(
            &format!("Connect#{name}"),
            &connect,
            &format!("connect-{name}"),
        );
        self.send(
            &format!("Login#{name}"),
            "pw,2001",
            &format!("login-{name}"),
        );
        self.advance(1_500);
        self.forget();
    }

    /// Forgets what was recorded so far.
    pub fn forget(&mut self) {
        self.acks.clear();
        self.requeued.clear();
        self.published.clear();
        self.said.clear();
        self.calls.clear();
        self.journal.clear();
        self.events.clear();
        self.subscribed.clear();
        self.unsubscribed.clear();
    }

    /// Forgets what was published.
    pub fn forget_published(&mut self) {
        self.published.clear();
    }

    pub fn forget_unsubscribed(&mut self) {
        self.unsubscribed.clear();
    }

    pub fn now(&self) -> Now {
        Now {
            mono: self.mono,
            wall: WALL + self.mono,
        }
    }

    pub fn start(&mut self) {
        let now = self.now();
        self.engine.start(now);
        self.pump();
    }

    pub fn role(&self) -> Role {
        self.engine.view().groups[0].role
    }

    /// One input, and all that follows from it at the same time.
    pub fn input(&mut self, input: Input) {
        let now = self.now();
        self.engine.handle(now, input);
        self.pump();
    }

    /// Lets time pass; fails where the engine would keep its driver busy.
    pub fn advance(&mut self, millis: u64) {
        let end = self.mono + millis;
        let mut ticks = 0;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.mono = self.mono.max(at);
            self.input(Input::Tick);
            ticks += 1;
            assert!(
                ticks <= millis / 4 + 50,
                "{ticks} timers in {millis} ms: a hot loop"
            );
        }
        self.mono = end;
    }

    /// Time passes without the engine noticing: the process is stopped.
    pub fn freeze(&mut self, millis: u64) {
        self.mono += millis;
    }

    /// A link is gone with its deliveries and consumers.
    pub fn lose(&mut self, link: LinkEpoch) {
        self.links.retain(|(known, _)| *known != link);
        self.consumers.retain(|(on, _), _| *on != link);
        self.held.clear();
        self.input(Input::LinkDown {
            link,
            reason: "gone".into(),
        });
    }

    pub fn active(&self) -> LinkEpoch {
        let view = self.engine.view();
        let broker = view.brokers.iter().position(|b| b.attached).unwrap();
        self.links
            .iter()
            .rev()
            .find(|(_, b)| *b == broker)
            .unwrap()
            .0
    }

    // ---- commands -----------------------------------------------------------------------------

    pub fn deliver(&mut self, raw: RawMessage) -> DeliveryId {
        let link = self.active();
        self.deliver_on(link, Source::Commands { group: 0 }, raw)
    }

    pub fn deliver_on(&mut self, link: LinkEpoch, source: Source, raw: RawMessage) -> DeliveryId {
        self.next_tag += 1;
        let id = DeliveryId {
            link,
            tag: self.next_tag,
        };
        let command = parse(&raw, &self.config.parse, self.now().wall);
        self.input(Input::Delivery(Box::new(Delivery {
            id,
            source,
            raw,
            command,
        })));
        id
    }

    pub fn send(&mut self, kind: &str, body: &str, id: &str) -> DeliveryId {
        self.deliver(message(kind, body, id))
    }

    // ---- peers --------------------------------------------------------------------------------

    pub fn heartbeat(&self, seq: u64, role: Role, priority: u8) -> Heartbeat {
        Heartbeat {
            seq,
            site: "site-2".into(),
            version: "1".into(),
            mode: self.config.mode.as_str().into(),
            started: WALL + 1,
            groups: vec![GroupState {
                name: "agents".into(),
                role,
                priority,
                term: 0,
                eligible: true,
                leaving: false,
                choice: None,
            }],
            broker: "b0".into(),
            owned: 0,
            total: 0,
            digest: 0,
            echo: Vec::new(),
            journal: false,
            shares: false,
            settled: Vec::new(),
            standing: Default::default(),
            control_node: String::new(),
        }
    }

    pub fn peer(&mut self, name: &str, message: PeerMessage) {
        self.peer_boot(name, 22, message);
    }

    pub fn peer_boot(&mut self, name: &str, boot: u64, message: PeerMessage) {
        self.input(Input::Peer {
            from: instance(name),
            boot: BootId(boot),
            message,
        });
    }

    /// Number of its own last heartbeat.
    pub fn own_seq(&self) -> u64 {
        let beat = self.said.iter().rev().find_map(|(_, m)| match m {
            PeerMessage::Heartbeat(beat) => Some(beat.seq),
            _ => None,
        });
        beat.unwrap()
    }

    pub fn peer_beat(&mut self, seq: u64, role: Role, priority: u8) {
        let heartbeat = self.heartbeat(seq, role, priority);
        self.peer("gc-2", PeerMessage::Heartbeat(heartbeat));
    }

    /// The leading peer is heard, and what is held has time to go there.
    pub fn hear(&mut self, seq: &mut u64) {
        self.advance(60);
        *seq += 1;
        self.peer_beat(*seq, Role::Leader, 127);
        self.advance(60);
    }

    /// The peer's empty snapshot.
    pub fn peer_snapshot(&mut self) {
        self.peer(
            "gc-2",
            PeerMessage::Snapshot {
                part: 0,
                parts: 1,
                sessions: Vec::new(),
                destinations: Vec::new(),
            },
        );
    }

    /// `millis` with a peer that beats every 250 ms.
    pub fn advance_with_peer(&mut self, millis: u64, seq: &mut u64, role: Role, priority: u8) {
        for _ in 0..millis / 250 {
            self.advance(250);
            *seq += 1;
            self.peer_beat(*seq, role, priority);
        }
    }

    /// A follower of `gc-2`, which leads with a higher priority.
    pub fn follower(seq: &mut u64) -> Self {
        let mut config = config();
        config.priority = 100;
        let mut rig = Self::new(config);
        rig.start();
        *seq += 1;
        rig.peer_beat(*seq, Role::Leader, 127);
        rig.peer_snapshot();
        rig.advance_with_peer(2_000, seq, Role::Leader, 127);
        assert_eq!(rig.role(), Role::Follower);
        rig.forget();
        rig
    }

    pub fn forwards(&self) -> Vec<(InstanceId, u64, RawMessage)> {
        self.said
            .iter()
            .filter_map(|(to, message)| match message {
                PeerMessage::Forward { id, raw } => Some((to.clone()?, *id, raw.clone())),
                _ => None,
            })
            .collect()
    }

    // ---- what came out ------------------------------------------------------------------------

    pub fn replies(&self) -> Vec<(ReplyRoute, Reply)> {
        self.published
            .iter()
            .filter_map(|(.., message)| match message {
                Outbound::Reply { route, reply, .. } => {
                    Some((route.clone(), reply.as_ref().clone()))
                }
                _ => None,
            })
            .collect()
    }

    pub fn outcomes(&self) -> Vec<Outcome> {
        self.replies().iter().map(|(_, r)| r.outcome).collect()
    }

    /// Traces of the events to a client.
    pub fn told_traces(&self, to: &str) -> Vec<Option<String>> {
        let parent = |trace: &Arc<Trace>| trace.parent().to_owned();
        self.published
            .iter()
            .filter_map(|(_, _, message)| match message {
                Outbound::Event { to: t, cause, .. } if t.as_str() == to => {
                    Some(cause.trace.as_ref().map(parent))
                }
                _ => None,
            })
            .collect()
    }

    pub fn told(&self, to: &str) -> Vec<ClientEvent> {
        self.published
            .iter()
            .filter_map(|(.., message)| match message {
                Outbound::Event {
                    to: desk, event, ..
                } if desk.as_str() == to => Some(event.as_ref().clone()),
                _ => None,
            })
            .collect()
    }

    pub fn dead_letters(&self) -> Vec<&'static str> {
        self.published
            .iter()
            .filter_map(|(.., message)| match message {
                Outbound::DeadLetter { reason, .. } => Some(*reason),
                _ => None,
            })
            .collect()
    }

    pub fn actions(&self) -> Vec<Action> {
        self.calls.iter().map(|call| call.action.clone()).collect()
    }

    /// Answers the oldest open call.
    pub fn answer(&mut self, outcome: CallOutcome) {
        let call = self.open_calls.remove(0);
        self.input(Input::CallDone { call, outcome });
    }

    pub fn confirm_all(&mut self) {
        for publish in std::mem::take(&mut self.held) {
            self.input(Input::Published {
                publish,
                outcome: PublishOutcome::Confirmed,
            });
        }
    }

    pub fn notify(&mut self, name: &str, notice: Notice) {
        let subscription = self.newest[&agent(name)];
        self.input(Input::Notice {
            agent: agent(name),
            subscription,
            notice,
        });
    }

    /// The notification of a state, on the newest subscription of the agent.
    pub fn notify_state(&mut self, name: &str, state: &str, request_id: Option<&str>) {
        self.notify(
            name,
            Notice::Update(Update {
                request_id: request_id.map(str::to_owned),
                item_id: None,
                body: UpdateBody::User(Box::new(user(name, state))),
            }),
        );
    }

    // ---- the world ----------------------------------------------------------------------------

    fn pump(&mut self) {
        let mut inputs: VecDeque<Input> = VecDeque::new();
        let mut rounds = 0;
        loop {
            while let Some(command) = self.engine.poll_command() {
                self.carry_out(command, &mut inputs);
            }
            while let Some(event) = self.engine.poll_event() {
                self.events.push(event);
            }
            let Some(input) = inputs.pop_front() else {
                return;
            };
            rounds += 1;
            assert!(rounds < 20_000, "the engine and the world never rest");
            let now = self.now();
            self.engine.handle(now, input);
        }
    }

    fn keep(&mut self, keep: Keep) -> Input {
        if self.store_fails {
            let failure = Some("disk full".into());
            return Input::Kept { failure };
        }
        for (agent, record) in keep.sessions {
            self.kept.sessions.retain(|(known, _)| *known != agent);
            self.kept.sessions.push((agent, record));
        }
        self.kept.destinations.extend(keep.destinations);
        self.kept.epoch = keep.epoch;
        for group in keep.groups {
            self.kept.groups.retain(|known| known.name != group.name);
            self.kept.groups.push(group);
        }
        Input::Kept { failure: None }
    }

    fn carry_out(&mut self, command: Command, inputs: &mut VecDeque<Input>) {
        match command {
            Command::Broker(BrokerCommand::Dial { link, .. }) if self.refuses_links => {
                inputs.push_back(Input::LinkDown {
                    link,
                    reason: "refused".into(),
                });
            }
            Command::Broker(BrokerCommand::Dial { link, broker }) if self.dials => {
                self.links.push((link, broker));
                inputs.push_back(Input::LinkUp {
                    link,
                    node: String::new(),
                    cluster: String::new(),
                });
            }
            Command::Broker(BrokerCommand::Fence { broker, peer }) => {
                self.fences.push((broker, peer))
            }
            Command::Broker(BrokerCommand::Dial { .. }) => {}
            Command::Broker(BrokerCommand::Prove { link, way }) => {
                self.proofs.push((link, way));
                let proof = self.proof(link, way);
                inputs.push_back(Input::Proved { link, way, proof });
            }
            Command::Broker(BrokerCommand::ConsumeExpired { link }) => {
                let way = Way::Expired;
                let proof = self.proof(link, way);
                if proof == Proof::Passed {
                    self.undertakers.push(link);
                }
                inputs.push_back(Input::Proved { link, way, proof });
            }
            Command::Broker(BrokerCommand::DeclareDeadLetters { link }) => {
                let way = Way::DeadLetters;
                let proof = self.proof(link, way);
                if proof == Proof::Passed && self.broker == Broker::NoDeadLetters {
                    self.broker = Broker::Confirms;
                }
                inputs.push_back(Input::Proved { link, way, proof });
            }
            Command::Broker(BrokerCommand::AttachControl { link }) => {
                match self.refusal(link, Way::ControlQueue) {
                    Some(refused) => inputs.push_back(refused),
                    None => inputs.push_back(Input::ControlAttached { link }),
                }
            }
            Command::Broker(BrokerCommand::CloseLink { link }) => {
                self.links.retain(|(known, _)| *known != link)
            }
            Command::Broker(BrokerCommand::Consume {
                link,
                group,
                priority,
                tag,
            }) => {
                if self.refuses(link, Way::Commands) {
                    inputs.push_back(Input::ConsumerLost {
                        link,
                        group,
                        tag,
                        reason: REFUSAL.into(),
                    });
                } else if !self.slow_consumers.contains(&self.broker_of(link)) {
                    self.consumers
                        .insert((link, group), (priority, tag.clone()));
                    inputs.push_back(Input::Consuming { link, group, tag });
                }
            }
            Command::Broker(BrokerCommand::StopConsuming { link, group }) => {
                self.consumers.remove(&(link, group));
            }
            Command::Broker(BrokerCommand::Publish { id, link, message }) => {
                self.publish(id, link, message, inputs)
            }
            Command::Broker(BrokerCommand::Ack(id)) => self.acks.push(id),
            Command::Broker(BrokerCommand::Requeue(id)) => self.requeued.push(id),
            Command::Broker(BrokerCommand::CountPeerConsumers { link, peer }) => {
                let near = self.links.iter().find(|(known, _)| *known == link);
                let away = self
                    .peers_at
                    .is_some_and(|at| near.is_none_or(|(_, b)| *b != at));
                let mute = near.is_some_and(|(_, broker)| self.mute == Some(*broker));
                let known = self.counts.get(&peer).copied();
                if let Some(count) = known.filter(|_| !mute) {
                    let count = if away { 0 } else { count };
                    inputs.push_back(Input::PeerConsumers { link, peer, count });
                }
            }
            Command::Downstream(DownstreamCommand::Call(call)) => self.call(*call, inputs),
            Command::Downstream(DownstreamCommand::Probe { .. }) if self.silent_probes => {}
            Command::Downstream(DownstreamCommand::Probe { node }) => {
                inputs.push_back(Input::Probed {
                    node,
                    health: self.nodes[node].clone(),
                })
            }
            Command::Notify(NotifyCommand::Subscribe {
                agent,
                subscription,
                node,
                ..
            }) => {
                self.subscribed.push((agent.clone(), subscription, node));
                self.newest.insert(agent.clone(), subscription);
                let reason = "so said the test".to_owned();
                let notice = match self.notifications {
                    Notifications::Up => Notice::Up,
                    Notifications::Refuses => Notice::Refused { reason },
                    Notifications::Unreachable => Notice::Unreachable { reason },
                    Notifications::NoRoom => Notice::NoRoom(no_descriptors()),
                    Notifications::Silent => return,
                };
                inputs.push_back(Input::Notice {
                    agent,
                    subscription,
                    notice,
                });
            }
            Command::Notify(NotifyCommand::Unsubscribe {
                agent,
                subscription,
            }) => self.unsubscribed.push((agent, subscription)),
            Command::Notify(NotifyCommand::WatchTeam { agent, team, .. }) => {
                self.watched.push((agent, team))
            }
            Command::Life(LifeCommand::VerbDone { result, .. }) => self.verbs.push(result),
            Command::Store(StoreCommand::Keep(keep)) => inputs.push_back(self.keep(*keep)),
            Command::Store(StoreCommand::Journal { id, write }) => {
                self.journal.push((id, *write));
                if self.journal_answers {
                    let ids = vec![id];
                    let failure = self.journal_failure.clone();
                    inputs.push_back(Input::Journaled { ids, failure });
                }
            }
            Command::Life(LifeCommand::TellTrace {
                to,
                number,
                id,
                journal,
            }) => {
                self.trace_tells.push((to, number, id, journal));
            }
            Command::Life(LifeCommand::TraceAsked { .. }) => {}
            Command::Life(LifeCommand::Traced { from, number, rows }) => {
                self.traced.push((from, number, rows));
            }
            Command::Life(LifeCommand::Exit) | Command::Life(LifeCommand::Refuse(_)) => {
                self.exited = true
            }
        }
    }

    fn publish(
        &mut self,
        id: PublishId,
        link: LinkEpoch,
        message: Outbound,
        inputs: &mut VecDeque<Input>,
    ) {
        if let Outbound::Peer { to, message } = message {
            // The same on another link is said once.
            let said = (to, *message);
            if self.said_on < Some(link) && self.said.last() == Some(&said) {
                self.said.pop();
            }
            self.said_on = Some(link);
            self.said.push(said);
            let outcome = match self.refusal(link, Way::Peers) {
                Some(refused) => {
                    self.said.pop();
                    inputs.push_back(refused);
                    PublishOutcome::Barred
                }
                None => PublishOutcome::Confirmed,
            };
            inputs.push_back(Input::Published {
                publish: id,
                outcome,
            });
            return;
        }
        let way = message.way();
        let mandatory = matches!(
            message,
            Outbound::Reply {
                route: ReplyRoute::Queue(_) | ReplyRoute::Federated(_),
                ..
            }
        );
        let for_people = matches!(
            message,
            Outbound::DeadLetter { .. } | Outbound::ParkedReply { .. }
        );
        let for_client = matches!(message, Outbound::Reply { .. } | Outbound::Event { .. });
        let event_to = match &message {
            Outbound::Event { to, .. } => Some(to.clone()),
            _ => None,
        };
        if let Some(refused) = self.refusal(link, way) {
            self.barred += 1;
            inputs.push_back(refused);
            inputs.push_back(Input::Published {
                publish: id,
                outcome: PublishOutcome::Barred,
            });
            return;
        }
        self.published.push((id, link, message));
        let outcome = match self.broker {
            Broker::Holds => {
                self.held.push(id);
                return;
            }
            Broker::Returns if mandatory => PublishOutcome::Returned,
            Broker::Fails => PublishOutcome::Failed,
            Broker::ClientsAreFull if for_client => PublishOutcome::Refused,
            Broker::EventsAreRefused if event_to.is_some() => PublishOutcome::Refused,
            Broker::Refuses(client) if event_to.is_some_and(|to| to.as_str() == client) => {
                PublishOutcome::Refused
            }
            Broker::NoDeadLetters if for_people => PublishOutcome::Returned,
            Broker::Confirms
            | Broker::Returns
            | Broker::ClientsAreFull
            | Broker::EventsAreRefused
            | Broker::Refuses(_)
            | Broker::NoDeadLetters => PublishOutcome::Confirmed,
        };
        inputs.push_back(Input::Published {
            publish: id,
            outcome,
        });
    }

    pub fn broker_of(&self, link: LinkEpoch) -> usize {
        let known = self.links.iter().find(|(known, _)| *known == link);
        known.map_or(usize::MAX, |(_, broker)| *broker)
    }

    fn refuses(&self, link: LinkEpoch, way: Way) -> bool {
        self.refused.contains(&(self.broker_of(link), way))
    }

    fn refusal(&self, link: LinkEpoch, way: Way) -> Option<Input> {
        let reason = REFUSAL.to_owned();
        let refused = self.refuses(link, way);
        refused.then_some(Input::Barred { link, way, reason })
    }

    fn proof(&self, link: LinkEpoch, way: Way) -> Proof {
        match self.refuses(link, way) {
            true => Proof::Refused {
                reason: REFUSAL.into(),
            },
            false => Proof::Passed,
        }
    }

    fn call(&mut self, call: Call, inputs: &mut VecDeque<Input>) {
        let id = call.id;
        let outcome = self.answers_calls.then(|| self.outcome_of(&call));
        self.calls.push(call);
        match outcome {
            Some(outcome) => inputs.push_back(Input::CallDone { call: id, outcome }),
            None => self.open_calls.push(id),
        }
    }

    fn outcome_of(&mut self, call: &Call) -> CallOutcome {
        if let Some(outcome) = self.answers.pop_front() {
            return outcome;
        }
        let answer = match &call.action {
            Action::ReadUser => Answer::User(Box::new(
                self.users
                    .get(&call.agent)
                    .cloned()
                    .unwrap_or_else(|| user(call.agent.as_str(), "LOGOUT")),
            )),
            Action::ReadDialogs => Answer::Dialogs(Vec::new()),
            _ => return done(),
        };
        CallOutcome::Done {
            status: 200,
            answer,
        }
    }

    /// What a peer would know of an agent.
    pub fn record(name: &str, owner: &str, epoch: u64) -> crate::peer::SessionRecord {
        crate::peer::SessionRecord {
            agent: agent(name),
            version: crate::peer::Version {
                epoch,
                rank: 0,
                owner: instance(owner),
                counter: 1,
            },
            destination: destination("desk"),
            extension: Some("2001".into()),
            password: Secret::new("pw"),
            mobile: None,
            watched: Vec::new(),
            signed_in: true,
            user: None,
            tombstone: false,
            group: String::new(),
        }
    }
}
