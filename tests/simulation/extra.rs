//! What came to the simulation later: a plan of before has none of it and stays the same run.

use serde::{Deserialize, Serialize};

use crate::plan::{Fault, Kind, Plan, Trouble};
use crate::rng::Rng;
use crate::world::PREFETCH;

/// Habits of platform and clients. Drawn by numbers of its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    /// The platform shows the calls that were made, while they last.
    pub calls: bool,
    /// The platform has states, and tells of their changes.
    pub states: bool,
    /// Clients sign out now and then, some for good.
    pub sign_outs: bool,
    /// Instances return to the primary downstream node.
    pub failback: bool,
    /// From then to then clients begin nothing; before that every other one signs out for good.
    pub calm: Option<(u64, u64)>,
    /// Commands sent in one go.
    pub bursts: Vec<Burst>,
    /// How many deliveries an instance holds at most; 0 is the usual number.
    pub prefetch: usize,
}

/// Several commands of a client in one go.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Burst {
    pub client: usize,
    pub at: u64,
    pub count: u64,
    /// Some have no id.
    pub nameless: bool,
}

/// Which service of a downstream node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    Rest,
    Notifications,
}

/// Clients of every run.
const CLIENTS: usize = 4;

/// One run of so many is a long one.
const LONG_ONES: u64 = 96;
/// Somebody is away for so long, milliseconds: longer than ended sessions are remembered.
const AWAY_MS: u64 = 640_000;
/// Clients go on for so long when somebody has gone, and begin again so long before its return.
const STILL_MS: u64 = 8_000;
/// Idle at the end, in some runs: the subscriptions of those who signed out end meanwhile.
const IDLE_MS: u64 = 36_000;

impl Extra {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xE87A);
        let calls = !rng.one_in(4);
        let sign_outs = rng.one_in(4);
        Self {
            calls,
            states: sign_outs || !rng.one_in(4),
            sign_outs,
            failback: rng.one_in(2),
            calm: None,
            bursts: bursts(&mut rng),
            prefetch: rng.pick(&[0, 0, 0, 6, 10]),
        }
    }

    pub fn prefetch(&self) -> usize {
        match self.prefetch {
            0 => PREFETCH,
            count => count,
        }
    }
}

fn bursts(rng: &mut Rng) -> Vec<Burst> {
    if !rng.one_in(4) {
        return Vec::new();
    }
    let nameless = rng.one_in(2);
    let burst = |_| Burst {
        client: rng.index(CLIENTS),
        at: rng.between(4_000, 12_000),
        count: rng.between(5, 31),
        nameless,
    };
    (0..2).map(burst).collect()
}

impl Plan {
    /// Whether it has what only harsh weather has.
    pub fn is_harsh(&self) -> bool {
        let harsh =
            |fault: &Fault| matches!(fault.kind, Kind::Part { .. } | Kind::DiskHangs { .. });
        let Extra {
            sign_outs,
            bursts,
            prefetch,
            ..
        } = &self.extra;
        *sign_outs || !bursts.is_empty() || *prefetch > 0 || self.faults.iter().any(harsh)
    }

    /// The same with what is drawn for [`Extra`]; in harsh weather with clients that sign out or send
    /// many at once, troubles of parts of the downstream, and long absences.
    pub fn with_extra(mut self, harsh: bool) -> Self {
        self.extra = Extra::new(self.seed);
        if !harsh {
            self.extra.sign_outs = false;
            self.extra.bursts.clear();
            self.extra.prefetch = 0;
            return self.ends(0);
        }
        let mut rng = Rng::new(self.seed ^ 0xFA27);
        if rng.one_in(LONG_ONES) {
            return self.long(&mut rng);
        }
        if rng.one_in(5) {
            for _ in 0..rng.between(1, 3) {
                let fault = part(&mut rng, self.nodes);
                self.healed_at = self.healed_at.max(fault.at + fault.millis);
                self.faults.push(fault);
            }
        }
        if rng.one_in(24) {
            let (at, millis) = (rng.between(4_500, 10_000), rng.between(500, 6_500));
            let node = rng.index(self.nodes);
            let kind = Kind::DiskHangs { node };
            self.faults.push(Fault { at, millis, kind });
            self.healed_at = self.healed_at.max(at + millis);
        }
        let idle = self.extra.sign_outs && rng.one_in(6);
        self.ends(if idle { IDLE_MS } else { 0 })
    }

    /// Somebody is away for longer than ended sessions and outcomes are remembered.
    fn long(mut self, rng: &mut Rng) -> Self {
        let node = rng.index(self.nodes);
        let fault = Fault {
            at: rng.between(4_500, 6_000),
            millis: AWAY_MS,
            kind: match rng.below(4) {
                0 | 1 => Kind::Crash { node },
                2 => Kind::Pause { node },
                _ => Kind::Cut,
            },
        };
        let back = fault.at + fault.millis;
        self.extra.calm = Some((fault.at + STILL_MS, back - STILL_MS));
        self.extra.states = true;
        self.extra.sign_outs = true;
        (self.faults, self.healed_at) = (vec![fault], back);
        self.moves.clear();
        self.hostile.clear();
        self.ends(IDLE_MS)
    }
}

/// Something is wrong with one service of one node of the downstream.
fn part(rng: &mut Rng, nodes: usize) -> Fault {
    let service = rng.pick(&[Service::Rest, Service::Rest, Service::Notifications]);
    let trouble = match service {
        Service::Rest => rng.pick(&[
            Trouble::Down,
            Trouble::OutOfService,
            Trouble::Vague,
            Trouble::Refusing,
            Trouble::Slow,
            Trouble::Late,
        ]),
        Service::Notifications => rng.pick(&[Trouble::Down, Trouble::Down, Trouble::Slow]),
    };
    Fault {
        at: rng.between(3_000, 10_000),
        millis: rng.between(500, 6_500),
        kind: Kind::Part {
            node: rng.one_in(2).then(|| rng.index(nodes)),
            target: rng.index(2),
            service,
            trouble,
        },
    }
}
