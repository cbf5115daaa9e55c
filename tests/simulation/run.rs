//! Runs many seeds on all processors and tells how to repeat what broke.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `SIM_FROM`, `SIM_SEEDS` | first seed and number of seeds |
//! | `SIM_HARSH` | 1: harsh weather, in which clients sign out and send many at once, parts of the downstream fail, somebody is away for long |
//! | `SIM_MODE`, `SIM_NODES` | `active-passive` or `active-active`; 2 or 3; else drawn |
//! | `SIM_THREADS` | threads, 2 unless set |
//! | `SIM_PLANS` | a file to which the plans of what broke are added, one a line: for `corpus.rs` |
//! | `SIM_REPLAY` | a file of such plans, which `corpus::what_broke_once_stays_mended` runs instead of its own |
//! | `SIM_DIGEST` | `1`: prints a digest of all that the engines ordered and told |
//! | `SIM_TRACE` | `1`: prints what happens (one thread); `2`: also what each engine gets and orders |

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tandem_engine::config::Mode;

use crate::digest::Digest;
use crate::plan::{Choice, Plan};
use crate::trace::Trace;
use crate::world::World;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value != "0")
}

/// What the environment fixes.
pub fn choice() -> Choice {
    let mode = match std::env::var("SIM_MODE").as_deref() {
        Ok("active-passive") => Some(Mode::ActivePassive),
        Ok("active-active") => Some(Mode::ActiveActive),
        _ => None,
    };
    let nodes = number("SIM_NODES").map(|nodes| (nodes as usize).clamp(2, 3));
    let harsh = number("SIM_HARSH").is_some_and(|on| on > 0);
    Choice { mode, nodes, harsh }
}

/// A seed that broke something.
#[derive(Debug)]
pub struct Broken {
    pub plan: Plan,
    pub violations: Vec<String>,
}

impl Broken {
    fn tell(&self) -> String {
        let Plan {
            seed,
            mode,
            nodes,
            faults,
            ..
        } = &self.plan;
        let mut violations = self.violations.clone();
        violations.dedup();
        let violations = violations.join("\n    ");
        let fixed = choice();
        let mut repeat = format!("scripts/simulate --trace --from {seed} --seeds 1");
        if self.plan.is_harsh() {
            repeat.push_str(" --harsh");
        }
        if fixed.mode.is_some() {
            repeat.push_str(&format!(" --mode {}", mode.as_str()));
        }
        if fixed.nodes.is_some() {
            repeat.push_str(&format!(" --nodes {nodes}"));
        }
        format!(
            "seed {seed} ({}, {nodes} instances, {faults:?}):\n    {violations}\n  repeat: {repeat}",
            mode.as_str()
        )
    }
}

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub runs: u64,
    pub steps: u64,
    pub outcomes: BTreeMap<&'static str, u64>,
    pub broken: Vec<Broken>,
    /// By seed, where they are asked for.
    digests: BTreeMap<u64, Digest>,
}

impl Tally {
    fn add(&mut self, world: World) {
        self.runs += 1;
        self.steps += world.steps;
        for (outcome, count) in &world.seen.outcomes {
            *self.outcomes.entry(outcome).or_default() += u64::from(*count);
        }
        if let Some(digest) = world.digest {
            self.digests.insert(world.plan.seed, digest);
        }
        if !world.seen.violations.is_empty() {
            self.broken.push(Broken {
                violations: world.seen.violations,
                plan: world.plan,
            });
        }
    }
}

/// The account of a run that the environment asks for.
pub fn trace() -> Trace {
    match std::env::var("SIM_TRACE").as_deref() {
        Err(_) | Ok("0") => Trace::Off,
        Ok("2") => Trace::Minute,
        Ok(_) => Trace::Print,
    }
}

/// Runs `count` seeds from `first`; `make` makes the world of each.
pub fn seeds(first: u64, count: u64, make: impl Fn(u64) -> World + Sync) -> Tally {
    let tracing = is_set("SIM_TRACE");
    let digesting = is_set("SIM_DIGEST");
    let threads = if tracing {
        1
    } else {
        number("SIM_THREADS").unwrap_or(2).clamp(1, 64)
    };
    let next = AtomicU64::new(first);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let mut world = make(seed);
                    world.digest = digesting.then(Digest::default);
                    if tracing {
                        world.trace = trace();
                        let plan = &world.plan;
                        println!("{plan:#?}");
                    }
                    world.run();
                    tally.lock().unwrap().add(world);
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap();
    tally.broken.sort_by_key(|broken| broken.plan.seed);
    print_digests(&tally.digests);
    if let Ok(path) = std::env::var("SIM_PLANS") {
        write_plans(&path, &tally.broken);
    }
    tally
}

/// Seeds of one line.
const DIGESTED: usize = 1_000;

fn print_digests(digests: &BTreeMap<u64, Digest>) {
    let all: Vec<_> = digests.iter().collect();
    let mut total = Digest::default();
    for part in all.chunks(DIGESTED) {
        let mut of_part = Digest::default();
        for (_, digest) in part {
            of_part.add(**digest);
            total.add(**digest);
        }
        if let (Some((first, _)), Some((last, _))) = (part.first(), part.last()) {
            println!("seeds {first} to {last}: digest {of_part}");
        }
    }
    if !all.is_empty() {
        println!("{} seeds: digest {total}", all.len());
    }
}

fn write_plans(path: &str, broken: &[Broken]) {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("SIM_PLANS names a file that can be written");
    for broken in broken {
        let line = serde_json::to_string(&broken.plan).expect("a plan is JSON");
        writeln!(file, "{line}").expect("SIM_PLANS can be written");
    }
}

/// Most broken seeds that are told in full.
const TOLD: usize = 40;

/// Fails with what broke.
pub fn demand(tally: &Tally) {
    let broken: Vec<String> = tally.broken.iter().take(TOLD).map(Broken::tell).collect();
    let all: Vec<u64> = tally.broken.iter().map(|b| b.plan.seed).collect();
    assert!(
        broken.is_empty(),
        "{} of {} seeds broke: {all:?}\n{}",
        all.len(),
        tally.runs,
        broken.join("\n")
    );
}

/// Number of seeds and the first one: from the environment, else as given.
pub fn range(first: u64, count: u64) -> (u64, u64) {
    let first = number("SIM_FROM").unwrap_or(first);
    (first, number("SIM_SEEDS").unwrap_or(count))
}
