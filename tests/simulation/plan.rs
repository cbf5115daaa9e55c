//! What a seed means: mode, number of instances, what goes wrong and when. Everything that goes
//! wrong ends; then the run goes on long enough to demand service again.

use serde::{Deserialize, Serialize};
use tandem_engine::config::Mode;
use tandem_engine::way::Way;

use crate::extra::{Extra, Service};
use crate::rng::Rng;

/// Faults begin after this, milliseconds: by then every client works.
const CALM_MS: u64 = 4_500;
/// The latest begin of a fault.
const LAST_BEGIN_MS: u64 = 10_000;
/// The longest fault.
const LONGEST_MS: u64 = 6_500;
/// From the last fault's end to the last new command.
const WORK_AFTER_MS: u64 = 11_000;
/// From then to the judgement: what was begun ends.
const REST_MS: u64 = 4_500;

/// A point of a command's life at which an instance is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Point {
    Call,
    Reply,
    Ack,
    Keep,
    Forward,
    Grant,
    Subscribe,
}

/// How the downstream misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// Nothing listens.
    Down,
    /// It answers 503.
    OutOfService,
    /// One answer in six is lost; the request may have been carried out.
    Vague,
    /// It refuses one request in three.
    Refusing,
    /// It takes its time: for some requests more than they have.
    Slow,
    /// One call in three reaches it only when its time is up.
    Late,
}

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Killed; started again at the end.
    Crash { node: usize },
    /// Killed right before or after it does something for the first time.
    CrashAt {
        node: usize,
        point: Point,
        before: bool,
    },
    /// All are killed at once.
    CrashAll,
    /// Asked to end in order; started again at the end.
    Shutdown { node: usize },
    /// Stopped and continued.
    Pause { node: usize },
    /// A broker is killed and comes back with its messages.
    BrokerKill { broker: usize },
    /// An instance loses its connections to one broker, and may connect again at once.
    LinksLost { node: usize, broker: usize },
    /// Nothing passes between the sites.
    Cut,
    /// Federation from one broker to the other stands still.
    OneWay { from: usize },
    /// Peer messages are lost, doubled and overtaken, publications fail.
    Lossy,
    /// Peer messages take long.
    Slow,
    /// The downstream misbehaves, for one instance or for all.
    Downstream {
        node: Option<usize>,
        trouble: Trouble,
    },
    /// One service of one downstream node misbehaves, for one instance or for all.
    Part {
        node: Option<usize>,
        target: usize,
        service: Service,
        trouble: Trouble,
    },
    /// The store of an instance takes nothing.
    Disk { node: usize },
    /// The store of an instance says nothing until the end.
    DiskHangs { node: usize },
    /// An operator stops a group on an instance, and starts it at the end.
    GroupStop { node: usize },
    /// An operator stops a group on an instance so that nobody takes over, and makes that
    /// instance leader at the end.
    FailoverStop { node: usize },
    /// A broker refuses a way to the instances: their user has lost a right there. Not drawn.
    Grey { broker: usize, way: Way },
    /// An operator hands everything to an instance.
    Switchover { to: usize },
}

/// When, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub at: u64,
    pub millis: u64,
    pub kind: Kind,
}

/// A client goes to the other broker.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Move {
    pub client: usize,
    pub at: u64,
}

/// What may be fixed from outside instead of being drawn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice {
    pub mode: Option<Mode>,
    pub nodes: Option<usize>,
    /// Clients sign out and send many at once, parts of the downstream fail, somebody is away for long.
    pub harsh: bool,
}

/// A run. As JSON it stays the same run when the generator changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub seed: u64,
    #[serde(with = "mode")]
    pub mode: Mode,
    pub nodes: usize,
    pub clients: usize,
    pub faults: Vec<Fault>,
    pub moves: Vec<Move>,
    /// When a hostile client sends something.
    pub hostile: Vec<u64>,
    /// Offset of each instance's wall clock, milliseconds.
    pub skew: Vec<i64>,
    pub healed_at: u64,
    pub stop_at: u64,
    pub end_at: u64,
    /// What plans of before do not have.
    #[serde(default)]
    pub extra: Extra,
}

/// When an operator gives a verb again that failed, milliseconds.
pub const ASKED_AGAIN_MS: u64 = 700;

impl Plan {
    pub fn new(seed: u64, choice: Choice) -> Self {
        let mut rng = Rng::new(seed);
        let passive = rng.below(5) < 3;
        let three = rng.one_in(4);
        let mode = choice.mode.unwrap_or(if passive {
            Mode::ActivePassive
        } else {
            Mode::ActiveActive
        });
        let nodes = choice.nodes.unwrap_or(if three { 3 } else { 2 });
        let faults = match rng.below(16) {
            0 => Vec::new(),
            1 => short_pauses(&mut rng, nodes),
            2 | 3 => vec![handover(&mut rng, nodes, mode)],
            4 | 5 => moved_in_a_cut(&mut rng, nodes, mode),
            6 | 7 => overlapping(&mut rng, nodes, mode),
            _ => (0..rng.between(1, 5))
                .map(|_| fault(&mut rng, nodes, mode))
                .collect(),
        };
        let clients = 4;
        let moves = match rng.below(6) {
            0 | 1 => (0..rng.between(1, 4))
                .map(|_| Move {
                    client: rng.index(clients),
                    at: rng.between(CALM_MS, LAST_BEGIN_MS + 3_000),
                })
                .collect(),
            // Right after a fault: what is under way is sent again on the other side.
            2 | 3 if !faults.is_empty() => (0..rng.between(2, 5))
                .map(|_| Move {
                    client: rng.index(clients),
                    at: faults[rng.index(faults.len())].at + rng.between(50, 3_000),
                })
                .collect(),
            _ => Vec::new(),
        };
        let hostile = (0..rng.below(4))
            .map(|_| rng.between(2_000, LAST_BEGIN_MS))
            .collect();
        let skew = (0..nodes).map(|_| rng.below(501) as i64 - 250).collect();
        let plan = Self::of(seed, mode, nodes, faults).with(clients, moves, hostile, skew);
        plan.with_extra(choice.harsh)
    }

    /// A run with given faults, and nothing else that is drawn.
    pub fn of(seed: u64, mode: Mode, nodes: usize, faults: Vec<Fault>) -> Self {
        let ends = faults.iter().map(|fault| fault.at + fault.millis);
        let healed_at = ends.max().unwrap_or(CALM_MS);
        Self {
            seed,
            mode,
            nodes,
            clients: 4,
            faults,
            moves: Vec::new(),
            hostile: Vec::new(),
            skew: vec![0; nodes],
            healed_at,
            stop_at: healed_at + WORK_AFTER_MS,
            end_at: healed_at + WORK_AFTER_MS + REST_MS,
            extra: Extra::default(),
        }
    }

    /// The same, and a broker or two that refuse the instances something.
    pub fn with_grey_brokers(mut self) -> Self {
        let mut rng = Rng::new(self.seed ^ 0x6E7);
        for _ in 0..rng.between(1, 3) {
            let way = rng.pick(&[
                Way::Replies,
                Way::Replies,
                Way::Events,
                Way::FarReplies,
                Way::Peers,
                Way::Commands,
                Way::Expired,
            ]);
            let broker = rng.index(2);
            let fault = Fault {
                at: rng.between(CALM_MS, LAST_BEGIN_MS),
                millis: rng.between(1_000, LONGEST_MS),
                kind: Kind::Grey { broker, way },
            };
            self.healed_at = self.healed_at.max(fault.at + fault.millis);
            self.faults.push(fault);
        }
        let idle = self.end_at - self.stop_at - REST_MS;
        self.ends(idle)
    }

    /// The end that follows from when all is healed, and some time more to be idle.
    pub fn ends(mut self, idle: u64) -> Self {
        self.stop_at = self.healed_at + WORK_AFTER_MS;
        self.end_at = self.stop_at + REST_MS + idle;
        self
    }

    fn with(mut self, clients: usize, moves: Vec<Move>, hostile: Vec<u64>, skew: Vec<i64>) -> Self {
        (self.clients, self.moves) = (clients, moves);
        (self.hostile, self.skew) = (hostile, skew);
        self
    }

    /// Nothing but pauses below the suspect time: nobody may be taken for lost.
    pub fn only_short_pauses(&self) -> bool {
        self.faults
            .iter()
            .all(|fault| matches!(fault.kind, Kind::Pause { .. }) && fault.millis < 1_500)
    }

    /// At most one handover, and all else is well: an agent is never without a subscription
    /// because somebody let go too early.
    pub fn one_handover(&self) -> bool {
        let planned = |fault: &Fault| {
            matches!(
                fault.kind,
                Kind::Crash { .. }
                    | Kind::Shutdown { .. }
                    | Kind::GroupStop { .. }
                    | Kind::Switchover { .. }
            )
        };
        self.faults.len() <= 1 && self.faults.iter().all(planned)
    }

    /// An operator has chosen who leads.
    pub fn chosen(&self) -> bool {
        let choices = |fault: &Fault| {
            matches!(
                fault.kind,
                Kind::Switchover { .. } | Kind::FailoverStop { .. }
            )
        };
        self.faults.iter().any(choices)
    }

    /// The node's group was started again while its disk failed, and it ended before it could keep
    /// that or its operator, who was told so, asked again: it comes back with the group stopped.
    pub fn start_not_kept(&self, node: usize) -> bool {
        let end = |fault: &Fault| fault.at + fault.millis;
        let of = |wanted: fn(&Kind, usize) -> bool| {
            let faults = self.faults.iter();
            faults.filter(move |fault| wanted(&fault.kind, node))
        };
        let disk = |kind: &Kind, node| matches!(kind, Kind::Disk { node: at } | Kind::DiskHangs { node: at } if *at == node);
        let stop = |kind: &Kind, node| matches!(kind, Kind::GroupStop { node: at } if *at == node);
        let ends = |kind: &Kind, node| match kind {
            Kind::Crash { node: at } | Kind::CrashAt { node: at, .. } => *at == node,
            Kind::Shutdown { node: at } => *at == node,
            kind => matches!(kind, Kind::CrashAll),
        };
        // A crash at a point may come at any time of its fault.
        let may_end = |fault: &Fault, from: u64, to: u64| match fault.kind {
            Kind::CrashAt { .. } => fault.at <= to && from <= end(fault),
            _ => (from..=to).contains(&fault.at),
        };
        of(disk).any(|disk| {
            let started = of(stop)
                .map(end)
                .find(|at| (disk.at..=end(disk)).contains(at));
            let kept = end(disk) + ASKED_AGAIN_MS;
            started.is_some_and(|at| of(ends).any(|fault| may_end(fault, at, kept)))
        })
    }

    /// The sites are cut off from each other, one way at least.
    pub fn cuts(&self) -> bool {
        let cut = |fault: &Fault| matches!(fault.kind, Kind::Cut | Kind::OneWay { .. });
        self.faults.iter().any(cut)
    }

    /// One that took over in a cut may have ended before anybody knew its epoch, and after it had told
    /// an event in it: the owner on the other side goes on in a lower one.
    pub fn may_lose_an_epoch(&self) -> bool {
        let ends = |fault: &Fault| {
            matches!(
                fault.kind,
                Kind::Crash { .. } | Kind::CrashAt { .. } | Kind::CrashAll
            )
        };
        self.cuts() && self.faults.iter().any(ends)
    }

    /// A client sends a state change after the answer to the one before, and nothing keeps an
    /// instance from knowing of both: the older one is not carried out after the newer one.
    pub fn keeps_changes(&self) -> bool {
        // Each is away once, so that nobody may be there who knows.
        let away = |node: usize| {
            let ends = |fault: &Fault| match fault.kind {
                Kind::Crash { node: at } | Kind::CrashAt { node: at, .. } => at == node,
                Kind::Shutdown { node: at } | Kind::Pause { node: at } => at == node,
                _ => false,
            };
            self.faults.iter().any(ends)
        };
        let known = !(0..self.nodes).all(away);
        // One that goes on carries out what it was given before, unless it was away for long.
        let frozen = |fault: &Fault| matches!(fault.kind, Kind::Pause { .. });
        let there = !self.cuts() && !self.faults.iter().any(frozen);
        known && there && self.extra.bursts.is_empty()
    }

    /// Two instances may both have an agent, and cannot talk; and the platform's node, or the other
    /// one of active-active, may not know of an agent that it has signed out: the side that does not
    /// hear of a sign-out may undo it.
    pub fn hears_of_sign_outs(&self) -> bool {
        let apart = |fault: &Fault| match fault.kind {
            Kind::Cut | Kind::OneWay { .. } | Kind::Pause { .. } => true,
            Kind::BrokerKill { .. } | Kind::LinksLost { .. } => self.mode == Mode::ActiveActive,
            _ => false,
        };
        let trouble =
            |fault: &Fault| matches!(fault.kind, Kind::Downstream { .. } | Kind::Part { .. });
        let nodes = self.mode == Mode::ActiveActive || self.faults.iter().any(trouble);
        !(nodes && self.faults.iter().any(apart))
    }

    /// Nothing takes a delivery from the instance that works on it: the brokers do not reorder.
    pub fn keeps_order(&self) -> bool {
        let harmless = |fault: &Fault| {
            let in_time =
                matches!(fault.kind, Kind::Part { trouble, .. } if trouble != Trouble::Late);
            in_time
                || matches!(
                    fault.kind,
                    Kind::Downstream { .. }
                        | Kind::Lossy
                        | Kind::Slow
                        | Kind::Disk { .. }
                        | Kind::DiskHangs { .. }
                )
        };
        // Of many at once two brokers hand out some each, where both are consumed from.
        // And peer messages that take long, or are lost, overtake each other.
        let mixed = |fault: &Fault| matches!(fault.kind, Kind::Lossy | Kind::Slow);
        let passive = self.mode == Mode::ActivePassive;
        let one_way = self.extra.bursts.is_empty() || passive && !self.faults.iter().any(mixed);
        self.faults.iter().all(harmless) && self.moves.is_empty() && one_way
    }
}

fn handover(rng: &mut Rng, nodes: usize, mode: Mode) -> Fault {
    let node = rng.index(nodes);
    let kind = match rng.below(4) {
        0 => Kind::Crash { node },
        1 => Kind::Shutdown { node },
        2 if mode == Mode::ActivePassive => Kind::Switchover { to: node },
        _ => Kind::GroupStop { node },
    };
    Fault {
        at: rng.between(CALM_MS, LAST_BEGIN_MS),
        millis: rng.between(1_000, LONGEST_MS),
        kind,
    }
}

/// The sites are cut within two seconds of a move from one broker to another.
fn moved_in_a_cut(rng: &mut Rng, nodes: usize, mode: Mode) -> Vec<Fault> {
    let at = rng.between(CALM_MS, LAST_BEGIN_MS);
    let millis = rng.between(100, 2_500);
    let (node, broker) = (rng.index(nodes), rng.index(2));
    let moved = match rng.below(3) {
        0 => Kind::LinksLost { node, broker },
        _ => Kind::BrokerKill { broker },
    };
    // Away at its begin, back a hold after its end.
    let around = if rng.one_in(2) {
        at
    } else {
        at + millis + 1_000
    };
    let cut = Fault {
        at: (around + rng.below(2_000)).saturating_sub(1_000),
        millis: rng.between(500, LONGEST_MS),
        kind: match rng.below(4) {
            0 => Kind::OneWay { from: broker },
            _ => Kind::Cut,
        },
    };
    let mut faults = vec![
        Fault {
            at,
            millis,
            kind: moved,
        },
        cut,
    ];
    if rng.one_in(2) {
        faults.push(fault(rng, nodes, mode));
    }
    faults
}

/// Three faults that begin within a second and a half and last a while.
fn overlapping(rng: &mut Rng, nodes: usize, mode: Mode) -> Vec<Fault> {
    let first = rng.between(CALM_MS, LAST_BEGIN_MS);
    (0..3)
        .map(|_| Fault {
            at: first + rng.below(1_500),
            millis: rng.between(1_500, LONGEST_MS),
            ..fault(rng, nodes, mode)
        })
        .collect()
}

fn short_pauses(rng: &mut Rng, nodes: usize) -> Vec<Fault> {
    let node = rng.index(nodes);
    let mut at = CALM_MS;
    (0..rng.between(1, 4))
        .map(|_| {
            at += rng.between(1_600, 2_500);
            Fault {
                at,
                millis: rng.between(200, 1_450),
                kind: Kind::Pause { node },
            }
        })
        .collect()
}

fn fault(rng: &mut Rng, nodes: usize, mode: Mode) -> Fault {
    let at = rng.between(CALM_MS, LAST_BEGIN_MS);
    let short = rng.one_in(2);
    let millis = if short {
        rng.between(100, 2_000)
    } else {
        rng.between(1_000, LONGEST_MS)
    };
    let node = rng.index(nodes);
    let broker = rng.index(2);
    let kind = match rng.below(24) {
        0 | 1 => Kind::Crash { node },
        2..=4 => Kind::CrashAt {
            node,
            point: rng.pick(&[
                Point::Call,
                Point::Reply,
                Point::Ack,
                Point::Keep,
                Point::Forward,
                Point::Grant,
                Point::Subscribe,
            ]),
            before: rng.one_in(2),
        },
        5 => Kind::CrashAll,
        6 => Kind::Shutdown { node },
        7..=9 => Kind::Pause { node },
        10 | 11 => Kind::BrokerKill { broker },
        12 => Kind::LinksLost { node, broker },
        13 | 14 => Kind::Cut,
        15 => Kind::OneWay { from: broker },
        16 => Kind::Lossy,
        17 => Kind::Slow,
        18 | 19 => Kind::Downstream {
            node: rng.one_in(2).then_some(node),
            trouble: rng.pick(&[Trouble::Down, Trouble::OutOfService, Trouble::Vague]),
        },
        20 => Kind::Disk { node },
        21 if mode == Mode::ActivePassive => Kind::Switchover { to: node },
        22 if mode == Mode::ActivePassive => Kind::FailoverStop { node },
        _ => Kind::GroupStop { node },
    };
    Fault { at, millis, kind }
}

/// A mode as the settings spell it.
mod mode {
    use serde::{Deserialize, Deserializer, Serializer};
    use tandem_engine::config::Mode;

    pub fn serialize<S: Serializer>(mode: &Mode, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(mode.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Mode, D::Error> {
        let word = String::deserialize(input)?;
        [Mode::ActivePassive, Mode::ActiveActive]
            .into_iter()
            .find(|mode| mode.as_str() == word)
            .ok_or_else(|| serde::de::Error::custom("no mode"))
    }
}
