//! Choice of the broker: the URL list with the meaning of a failover transport.
//!
//! ```text
//!            Dial                LinkUp                  chosen
//!   Down ───────────▶ Dialling ─────────▶ Up (spare) ─────────────▶ active
//!    ▲                    │                │                           │
//!    └────────────────────┴────────────────┴───────────────────────────┘
//!                         LinkDown (delay grows, with jitter, for ever)
//! ```
//!
//! One slot a broker. The active one serves; with `spare` a second one is kept up, so that moving
//! costs no connect. A broker that just failed comes last. With `priority_backup` the first is
//! kept dialled, and taken again once it was up for the hold time.
//!
//! A broker on which a [`Way`] is lost is left for one that lacks less, and is preferred again once
//! it was well for the hold time, which grows where it fails soon after each return.

use crate::api::config::BrokerPolicy;
use crate::api::ids::{LinkEpoch, Now};
use crate::api::limits;
use crate::api::way::{Proof, Way, Weight};
use crate::brokers::fitness::{Change, Fitness, Pass};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Down { retry_at: u64 },
    Dialling { link: LinkEpoch },
    Up { link: LinkEpoch, since: u64 },
}

/// What could not be read on the links to a broker.
#[derive(Debug, Clone)]
struct Garbled {
    problem: String,
    times: u32,
    /// Of the last time.
    at: u64,
    /// The link of the last time.
    link: LinkEpoch,
}

#[derive(Debug, Clone)]
struct Slot {
    state: State,
    failures: u32,
    /// When it last went down: the one that failed last is tried last.
    failed_at: u64,
    /// Which of the broker's nodes its link leads to, where it has several.
    node: String,
    /// Its name for itself or its cluster, as it said last.
    cluster: String,
    blocked: bool,
    garbled: Option<Garbled>,
    /// Its link was left, and is closed as soon as its deliveries are settled.
    leaving: bool,
    /// Why it went down last.
    reason: String,
    fitness: Fitness,
}

/// What the shell is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkStep {
    /// Open a link.
    Dial {
        /// Its number.
        link: LinkEpoch,
        /// Broker index.
        broker: usize,
    },
    /// Serve on this link from now on; the former one, if any, is still up and is to be left.
    Activate {
        /// Its number.
        link: LinkEpoch,
        /// Broker index.
        broker: usize,
        /// The link to leave once its deliveries are settled.
        leave: Option<LinkEpoch>,
    },
    /// Find out whether a way works.
    Prove {
        /// On which link.
        link: LinkEpoch,
        /// Which.
        way: Way,
    },
}

/// The links of this instance.
#[derive(Debug)]
pub struct Links {
    policy: BrokerPolicy,
    slots: Vec<Slot>,
    active: Option<usize>,
    next: u64,
    started: Option<u64>,
    rng: u64,
}

/// How long at start a less preferred broker waits for the first one's dial, milliseconds.
const START_GRACE_MS: u64 = 1_000;

impl Links {
    /// With all links down.
    #[must_use]
    pub fn new(policy: BrokerPolicy, seed: u64) -> Self {
        let slot = Slot {
            state: State::Down { retry_at: 0 },
            failures: 0,
            failed_at: 0,
            node: String::new(),
            cluster: String::new(),
            blocked: false,
            garbled: None,
            leaving: false,
            reason: String::new(),
            fitness: Fitness::default(),
        };
        Self {
            slots: vec![slot; policy.labels.len()],
            policy,
            active: None,
            next: 1,
            started: None,
            rng: seed | 1,
        }
    }

    /// The link that serves.
    #[must_use]
    pub fn active(&self) -> Option<LinkEpoch> {
        self.active.and_then(|broker| self.up(broker))
    }

    /// Index of the broker that serves.
    #[must_use]
    pub fn active_broker(&self) -> Option<usize> {
        self.active
    }

    /// All links that are up: (link, broker).
    pub fn ups(&self) -> impl Iterator<Item = (LinkEpoch, usize)> + '_ {
        (0..self.slots.len()).filter_map(|broker| self.up(broker).map(|link| (link, broker)))
    }

    /// Broker of a link.
    #[must_use]
    pub fn broker_of(&self, link: LinkEpoch) -> Option<usize> {
        self.slots.iter().position(|slot| match slot.state {
            State::Dialling { link: own } | State::Up { link: own, .. } => own == link,
            State::Down { .. } => false,
        })
    }

    /// Label of a broker.
    #[must_use]
    pub fn label(&self, broker: usize) -> &str {
        self.policy.labels.get(broker).map_or("", String::as_str)
    }

    /// Which of a broker's nodes its link leads to; empty without a link, and where it has one only.
    #[must_use]
    pub fn node(&self, broker: usize) -> &str {
        let slot = self.slots.get(broker);
        let up = slot.filter(|slot| matches!(slot.state, State::Up { .. }));
        up.map_or("", |slot| &slot.node)
    }

    /// Two brokers of the list that say they are one: their labels, and the name.
    #[must_use]
    pub fn one_cluster(&self) -> Option<(&str, &str, &str)> {
        let named = || self.slots.iter().enumerate();
        let named = || named().filter(|(_, slot)| !slot.cluster.is_empty());
        named().find_map(|(at, slot)| {
            let same =
                |(other, theirs): &(usize, &Slot)| *other > at && theirs.cluster == slot.cluster;
            let (other, _) = named().find(same)?;
            Some((self.label(at), self.label(other), slot.cluster.as_str()))
        })
    }

    /// Number of brokers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// `connected`, `dialling`, `down`, `blocked` or `unfit` for the status view.
    #[must_use]
    pub fn state_word(&self, broker: usize) -> &'static str {
        match self.slots.get(broker) {
            Some(slot) => match slot.state {
                State::Up { .. } if slot.blocked => "blocked",
                State::Up { .. } if slot.fitness.weight() > Weight::Minor => "unfit",
                State::Up { .. } => "connected",
                State::Dialling { .. } => "dialling",
                State::Down { .. } => "down",
            },
            None => "unknown",
        }
    }

    /// A link is open. `false`: it is not one of ours any more.
    pub fn on_up(&mut self, now: Now, link: LinkEpoch, node: String, cluster: String) -> bool {
        let Some(broker) = self.broker_of(link) else {
            return false;
        };
        let slot = &mut self.slots[broker];
        slot.state = State::Up {
            link,
            since: now.mono,
        };
        slot.node = node;
        slot.cluster = cluster;
        slot.blocked = false;
        slot.leaving = false;
        slot.fitness.on_up(now.mono);
        true
    }

    /// A link is gone. Returns the broker, and whether it was serving.
    pub fn on_down(&mut self, now: Now, link: LinkEpoch) -> Option<(usize, bool)> {
        let broker = self.broker_of(link)?;
        let stable = matches!(self.slots[broker].state, State::Up { since, .. }
            if now.mono.saturating_sub(since) > 10 * self.policy.reconnect_delay);
        let failures = if stable {
            0
        } else {
            self.slots[broker].failures
        };
        let delay = self.delay(failures).max(self.rest(broker, link));
        let slot = &mut self.slots[broker];
        slot.failures = failures.saturating_add(1);
        slot.failed_at = now.mono;
        slot.leaving = false;
        slot.fitness.on_down();
        slot.state = State::Down {
            retry_at: now.mono + delay,
        };
        let serving = self.active == Some(broker);
        if serving {
            slot.fitness.failed(now.mono);
            self.active = None;
        }
        Some((broker, serving))
    }

    /// What came on a link could not be read; it goes down next. Returns the broker, and how often
    /// that was so in a row.
    pub fn on_garbled(&mut self, now: Now, link: LinkEpoch, problem: &str) -> Option<(usize, u32)> {
        let broker = self.broker_of(link)?;
        let slot = &mut self.slots[broker];
        let known = slot.garbled.take().filter(|known| {
            known.problem == problem && now.mono <= known.at + limits::GARBLED_FORGET_MS
        });
        let times = known.map_or(0, |known| known.times).saturating_add(1);
        slot.garbled = Some(Garbled {
            problem: problem.to_owned(),
            times,
            at: now.mono,
            link,
        });
        Some((broker, times))
    }

    /// What could not be read of a broker lately, and how often in a row.
    #[must_use]
    pub fn garbled(&self, now: Now, broker: usize) -> Option<(&str, u32)> {
        let garbled = self.slots.get(broker)?.garbled.as_ref()?;
        let lately = now.mono <= garbled.at + limits::GARBLED_FORGET_MS;
        lately.then_some((garbled.problem.as_str(), garbled.times))
    }

    /// How long a broker rests after a link on which nothing could be read, milliseconds: the
    /// message that is to blame may still be there, and the other broker serves.
    fn rest(&self, broker: usize, link: LinkEpoch) -> u64 {
        let garbled = self.slots[broker].garbled.as_ref();
        let times = garbled.filter(|known| known.link == link);
        let Some(over) = times.and_then(|known| known.times.checked_sub(limits::GARBLED_TIMES))
        else {
            return 0;
        };
        let pause = limits::GARBLED_PAUSE_MS << over.min(8);
        pause.min(limits::GARBLED_PAUSE_MAX_MS)
    }

    /// Why a broker is not connected, for the status view.
    pub fn note_reason(&mut self, broker: usize, reason: String) {
        if let Some(slot) = self.slots.get_mut(broker) {
            slot.reason = reason;
        }
    }

    /// A link that was left is closed: the broker may be dialled again as the spare.
    pub fn on_closed(&mut self, now: Now, link: LinkEpoch) {
        if let Some(broker) = self.broker_of(link) {
            let slot = &mut self.slots[broker];
            slot.state = State::Down { retry_at: now.mono };
            slot.leaving = false;
            slot.fitness.on_down();
        }
    }

    /// The broker blocks publications, or takes them again.
    pub fn on_blocked(&mut self, now: Now, link: LinkEpoch, blocked: bool) -> Option<usize> {
        let broker = self.broker_of(link)?;
        let slot = &mut self.slots[broker];
        slot.blocked = blocked;
        slot.fitness.blocked(now.mono, blocked);
        Some(broker)
    }

    // ---- what brokers do for us ---------------------------------------------------------------

    /// What is known of the broker of a link; `None`: it is not one of ours any more.
    pub fn fitness(&mut self, link: LinkEpoch) -> Option<&mut Fitness> {
        let broker = self.broker_of(link)?;
        Some(&mut self.slots[broker].fitness)
    }

    /// A proof on a link has ended.
    pub fn on_proved(&mut self, now: Now, link: LinkEpoch, way: Way, proof: &Proof) -> bool {
        let known = self.fitness(link);
        known
            .map(|fitness| fitness.proved(now.mono, way, proof))
            .is_some()
    }

    /// Whether something may be sent to a broker on a way.
    #[must_use]
    pub fn pass(&self, broker: usize, way: Way) -> Pass {
        self.slots
            .get(broker)
            .map_or(Pass::Open, |slot| slot.fitness.pass(way))
    }

    /// What has changed since the last call, by broker.
    pub fn take_changes(&mut self) -> Vec<(usize, Change)> {
        let slots = self.slots.iter_mut().enumerate();
        slots
            .flat_map(|(broker, slot)| {
                let changes = slot.fitness.take_changes();
                changes.into_iter().map(move |change| (broker, change))
            })
            .collect()
    }

    /// What is to be done now. Call after every input; the steps must be carried out.
    pub fn steps(&mut self, now: Now) -> Vec<LinkStep> {
        let started = *self.started.get_or_insert(now.mono);
        let mut steps = self.proofs(now);
        if let Some(step) = self.choose(now, started) {
            steps.push(step);
        }
        for broker in self.wanted(now) {
            let link = LinkEpoch(self.next);
            self.next += 1;
            self.slots[broker].state = State::Dialling { link };
            steps.push(LinkStep::Dial { link, broker });
        }
        steps
    }

    /// When [`Self::steps`] is to be called again, if nothing else happens.
    #[must_use]
    pub fn next_at(&self, now: Now) -> Option<u64> {
        let live = (0..self.slots.len()).filter(|b| self.counts(*b)).count();
        let retries = self.slots.iter().enumerate().filter_map(|(broker, slot)| {
            let needed = live < self.target() || (broker == 0 && self.policy.priority_backup);
            match slot.state {
                State::Down { retry_at } if needed => Some(retry_at.max(now.mono + 1)),
                _ => None,
            }
        });
        let choice = self.started.and_then(|started| {
            let at = match self.active {
                // A link is up and waits for the first broker's dial.
                None if self.ups().next().is_some() => Some(started + START_GRACE_MS),
                None => None,
                // The first one, and from one that lacks something any that is better.
                Some(_) => self.better().filter_map(|b| self.rested_at(b)).min(),
            };
            at.filter(|at| *at > now.mono)
        });
        let up = |slot: &&Slot| matches!(slot.state, State::Up { .. });
        let proofs = self.slots.iter().filter(up);
        let proofs = proofs.filter_map(|slot| slot.fitness.next_at());
        let proofs = proofs.map(|at| at.max(now.mono + 1));
        retries.chain(choice).chain(proofs).min()
    }

    /// The proofs that are due.
    fn proofs(&mut self, now: Now) -> Vec<LinkStep> {
        let mut steps = Vec::new();
        for slot in &mut self.slots {
            if let State::Up { link, .. } = slot.state {
                let due = slot.fitness.due(now.mono).into_iter();
                steps.extend(due.map(|way| LinkStep::Prove { link, way }));
            }
        }
        steps
    }

    /// Brokers that can be taken into use. One that is being left is, where the one that it was left
    /// for turns out to be of no use.
    fn candidates(&self) -> impl Iterator<Item = usize> + '_ {
        let failed = self.active.is_some_and(|active| self.lacks_vital(active));
        let stays = move |broker: &usize| {
            !self.slots[*broker].leaving || (failed && !self.lacks_vital(*broker))
        };
        (0..self.slots.len()).filter(move |broker| self.up(*broker).is_some() && stays(broker))
    }

    /// Candidates that are to be preferred to the active broker, once they have rested: the first
    /// of the list, and from one that lacks something any that lacks less.
    fn better(&self) -> impl Iterator<Item = usize> + '_ {
        let active = self.active;
        let lacks = active.map_or(Weight::Minor, |active| self.weight(active));
        self.candidates().filter(move |broker| {
            let first = *broker == 0 && active > Some(0) && self.policy.priority_backup;
            let (weight, slot) = (self.weight(*broker), &self.slots[*broker]);
            // Nothing could be answered there for as long as that lasts.
            let waits = slot.blocked || slot.fitness.doubted();
            !waits && (weight < lacks || (first && weight <= lacks))
        })
    }

    /// From when on a broker that is up may be taken in place of the active one.
    fn rested_at(&self, broker: usize) -> Option<u64> {
        let fitness = &self.slots[broker].fitness;
        let active = self.active?;
        // At once: from one that takes no answers, and to one that did not fail itself.
        let urgent = self.lacks_vital(active);
        if urgent || (self.weight(active) > self.weight(broker) && fitness.fit_since() == 0) {
            return Some(0);
        }
        let well_since = self.up_since(broker)?.max(fitness.fit_since());
        Some(well_since + self.hold(fitness.hold(self.policy.failback_hold)))
    }

    fn up(&self, broker: usize) -> Option<LinkEpoch> {
        match self.slots.get(broker)?.state {
            State::Up { link, .. } => Some(link),
            _ => None,
        }
    }

    fn up_since(&self, broker: usize) -> Option<u64> {
        match self.slots.get(broker)?.state {
            State::Up { since, .. } => Some(since),
            _ => None,
        }
    }

    fn choose(&mut self, now: Now, started: u64) -> Option<LinkStep> {
        match self.active {
            None => {
                let candidates: Vec<usize> = self.candidates().collect();
                let order = self.by_preference();
                let order = order.into_iter().filter(|b| candidates.contains(b));
                // One that is blocked just now only where there is no other one.
                let broker = order.min_by_key(|b| (self.weight(*b), self.slots[*b].blocked))?;
                let waiting_for_first = broker != 0
                    && matches!(self.slots[0].state, State::Dialling { .. })
                    && self.slots[0].failed_at == 0
                    && now.mono < started + START_GRACE_MS;
                if waiting_for_first {
                    return None;
                }
                self.activate(now, broker, None)
            }
            Some(active) => {
                let rested = |b: &usize| self.rested_at(*b).is_some_and(|at| at <= now.mono);
                let better: Vec<usize> = self.better().filter(rested).collect();
                let least = better.iter().map(|b| self.weight(*b)).min()?;
                let broker = better.into_iter().find(|b| self.weight(*b) == least)?;
                let leave = self.up(active);
                self.slots[active].leaving = leave.is_some();
                self.activate(now, broker, leave)
            }
        }
    }

    fn activate(&mut self, now: Now, broker: usize, leave: Option<LinkEpoch>) -> Option<LinkStep> {
        let link = self.up(broker)?;
        self.active = Some(broker);
        self.slots[broker].leaving = false;
        self.slots[broker].fitness.used(now.mono);
        Some(LinkStep::Activate {
            link,
            broker,
            leave,
        })
    }

    /// The hold before going back, longer by up to a quarter so that two instances do not move
    /// at once.
    fn hold(&self, hold: u64) -> u64 {
        hold + self.rng % (hold / 4 + 1)
    }

    /// Broker indexes in the order in which they are to be used: the order of the list, those
    /// that failed lately behind the others.
    fn by_preference(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        order.sort_by_key(|broker| {
            let slot = &self.slots[*broker];
            (
                slot.failures > 0,
                slot.failed_at * u64::from(slot.failures > 0),
                *broker,
            )
        });
        order
    }

    /// Brokers to dial now.
    fn wanted(&self, now: Now) -> Vec<usize> {
        let order = self.by_preference();
        let due = |broker: usize| matches!(self.slots[broker].state, State::Down { retry_at } if retry_at <= now.mono);
        let mut wanted: Vec<usize> = Vec::new();
        let first = self.policy.priority_backup.then_some(0);
        let target = self.target();
        let mut count = (0..self.slots.len()).filter(|b| self.counts(*b)).count();
        for broker in first.into_iter().chain(order) {
            let needed = count < target || Some(broker) == first;
            if needed && due(broker) && !wanted.contains(&broker) {
                wanted.push(broker);
                count += 1;
            }
        }
        wanted
    }

    /// Whether it counts as one of the links that are wanted: one that lacks something is kept, and
    /// is no reserve.
    fn counts(&self, broker: usize) -> bool {
        let down = matches!(self.slots[broker].state, State::Down { .. });
        !down && self.weight(broker) == Weight::Minor
    }

    /// How many links are wanted.
    fn target(&self) -> usize {
        let unfit = |active| self.weight(active) > Weight::Minor;
        if self.policy.spare || self.active.is_none_or(unfit) {
            2
        } else {
            1
        }
    }

    fn delay(&mut self, failures: u32) -> u64 {
        let base = self.policy.reconnect_delay.max(1);
        let full = base
            .saturating_mul(1 << failures.min(16))
            .min(self.policy.reconnect_delay_max.max(base));
        self.rng = crate::state::rng::next(self.rng);
        full - self.rng % (full / 4 + 1)
    }
}

mod lacks;
#[cfg(test)]
mod tests;
