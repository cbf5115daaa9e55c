//! Two and three engines, two federated brokers, a downstream and clients under a virtual clock
//! and a seeded list of faults; the invariants of the design are judged after every run.
//!
//! `SIM_FROM` and `SIM_SEEDS` choose the seeds (first and number); `SIM_TRACE=1` prints what
//! happened. A failure prints the command that repeats it.

#[path = "simulation/broker.rs"]
mod broker;
#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/clients.rs"]
mod clients;
#[path = "simulation/shells.rs"]
mod shells;
#[path = "simulation/world.rs"]
mod world;

use world::{Fault, World};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Runs seeds and fails with all that broke.
fn run(test: &str, first: u64, count: u64, make: impl Fn(u64) -> World) {
    let first = number("SIM_FROM", first);
    let count = number("SIM_SEEDS", count);
    let mut broken = Vec::new();
    for seed in first..first + count {
        let mut world = make(seed);
        world.run();
        if !world.seen.violations.is_empty() {
            let faults = &world.faults;
            let violations = world.seen.violations.join("\n    ");
            broken.push(format!(
                "seed {seed} ({faults:?}):\n    {violations}\n  repeat: SIM_TRACE=1 SIM_FROM={seed} SIM_SEEDS=1 cargo test --test simulation {test} -- --nocapture"
            ));
        }
    }
    assert!(
        broken.is_empty(),
        "{} of {count} seeds broke:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

#[test]
fn a_pair_without_faults_serves_everything_in_order() {
    run("a_pair_without_faults", 1, 3, |seed| {
        World::new(seed, 2, Vec::new())
    });
}

#[test]
fn a_pair_survives_faults() {
    run("a_pair_survives_faults", 1, 12, |seed| {
        World::new(seed, 2, Fault::some(seed, 2))
    });
}

#[test]
fn three_instances_survive_faults() {
    run("three_instances_survive_faults", 1, 6, |seed| {
        World::new(seed, 3, Fault::some(seed ^ 0x5555, 3))
    });
}

#[test]
fn a_short_pause_takes_nothing_over() {
    run("a_short_pause_takes_nothing_over", 1, 3, |seed| {
        let mut world = World::new(
            seed,
            2,
            vec![Fault::Pause {
                node: (seed % 2) as usize,
                at: 10_000 + seed * 37,
                millis: 1_450,
            }],
        );
        world.no_takeover = true;
        world
    });
}
