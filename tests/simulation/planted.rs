//! Faults put into the engine on purpose: the simulation finds each within a bounded number of
//! seeds, and the engine without it passes the seed that found it.

use tandem_engine::config::{Planted, PlantedFault};

use crate::plan::{Choice, Plan};
use crate::world::World;

/// Seeds within which each fault is found.
const SEEDS: u64 = 400;

/// What a seed breaks with a planted fault.
fn violations(seed: u64, fault: Option<PlantedFault>) -> Vec<String> {
    let mut world = World::new(Plan::new(seed, Choice::default()));
    world.planted = Planted { fault };
    world.run();
    world.seen.violations
}

/// Finds the first seed at which one of these invariants is broken.
fn finds(fault: PlantedFault, invariants: &[&str]) {
    let broken = (1..=SEEDS).find_map(|seed| {
        let mut all = violations(seed, Some(fault)).into_iter();
        let told = all.find(|text| invariants.iter().any(|name| text.starts_with(name)))?;
        Some((seed, told))
    });
    let Some((seed, told)) = broken else {
        panic!("{fault:?} is not found within {SEEDS} seeds");
    };
    println!("{fault:?} is found by seed {seed}: {told}");
    let clean = violations(seed, None);
    assert!(clean.is_empty(), "without it seed {seed} breaks: {clean:?}");
}

#[test]
fn an_epoch_check_that_is_skipped_is_found() {
    finds(PlantedFault::SkipEpochCheck, &["I1:", "I6:", "I7:"]);
}

#[test]
fn a_merge_by_clock_is_found() {
    finds(PlantedFault::MergeByClock, &["I6: tables", "I6: agent"]);
}

#[test]
fn letting_go_before_the_other_has_its_own_is_found() {
    finds(PlantedFault::UnsubscribeFirst, &["I6: gc-"]);
}
