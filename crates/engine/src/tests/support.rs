//! One engine driven by hand, with a world around it that answers unless told otherwise.

mod fixtures;
mod world;

pub use fixtures::*;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::api::command::{
    BrokerCommand, Call, Command, DownstreamCommand, JournalWrite, Keep, LifeCommand,
    NotifyCommand, Outbound, ReplyRoute, StoreCommand,
};
use crate::api::config::{AgentPolicy, BrokerPolicy, Config, Mode, PeerTimers, Planted};
use crate::api::ids::{BootId, CallId, DeliveryId, JournalId, LinkEpoch, Now, PublishId};
use crate::api::input::{Delivery, Input, Notice, PublishOutcome, Source};
use crate::api::way::{Proof, Way};
use crate::model::{
    Action, AgentId, Answer, ApiError, CallOutcome, Destination, Dialog, DialogsVerb, InstanceId,
    NodeHealth, Resource, Secret, Shortage, Trace, Update, UpdateBody, User,
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

/// What the world does with publications other than peer messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    Confirms,
    Holds,
    Returns,
    Fails,
    /// Refuses what is for clients.
    ClientsAreFull,
    /// Refuses replies for clients of other brokers.
    FarRepliesAreRefused,
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
    /// The own control queue is not given, nor refused.
    pub slow_control: bool,
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
    pub subscribed: Vec<(AgentId, crate::api::ids::SubscriptionEpoch, usize)>,
    /// The newest subscription of each agent.
    newest: BTreeMap<AgentId, crate::api::ids::SubscriptionEpoch>,
    pub watched: Vec<(AgentId, String)>,
    pub unsubscribed: Vec<(AgentId, crate::api::ids::SubscriptionEpoch)>,
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
    pub store_hangs: bool,
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
            slow_control: false,
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
            store_hangs: false,
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
            former: 0,
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

    /// Number of its own last heartbeat; 0 where it sent none.
    pub fn own_seq(&self) -> u64 {
        let beat = self.said.iter().rev().find_map(|(_, m)| match m {
            PeerMessage::Heartbeat(beat) => Some(beat.seq),
            _ => None,
        });
        beat.unwrap_or(0)
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
        self.peer_snapshot_of(Vec::new());
    }

    /// The peer's snapshot in one part.
    pub fn peer_snapshot_of(&mut self, sessions: Vec<crate::peer::SessionRecord>) {
        self.peer(
            "gc-2",
            PeerMessage::Snapshot {
                part: 0,
                parts: 1,
                sessions,
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
        let body = UpdateBody::User(Box::new(user(name, state)));
        self.notify_update(name, body, request_id);
    }

    /// The notification of an agent as the platform shows it, likewise.
    pub fn notify_user(&mut self, name: &str, user: User) {
        self.notify_update(name, UpdateBody::User(Box::new(user)), None);
    }

    /// The notification of a call, likewise.
    pub fn notify_dialog(&mut self, name: &str, verb: DialogsVerb, dialog: Dialog) {
        let dialogs = vec![dialog];
        self.notify_update(name, UpdateBody::Dialogs { verb, dialogs }, None);
    }

    /// The notification of anything, likewise.
    pub fn notify_update(&mut self, name: &str, body: UpdateBody, request_id: Option<&str>) {
        let update = Update {
            request_id: request_id.map(str::to_owned),
            item_id: None,
            body,
        };
        self.notify(name, Notice::Update(update));
    }
}
