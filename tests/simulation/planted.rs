//! Faults put into the engine on purpose: the simulation finds each, and the engine without them
//! passes the same seeds.

use tandem::engine::config::{Planted, PlantedFault};

use crate::plan::{Choice, Plan};
use crate::run::{self, Tally};
use crate::world::World;

/// Seeds within which each fault is found.
const SEEDS: u64 = 60;

fn runs(fault: Option<PlantedFault>) -> Tally {
    run::seeds(1, SEEDS, |seed| {
        let mut world = World::new(Plan::new(seed, Choice::default()));
        world.planted = Planted { fault };
        world
    })
}

/// The invariants that were broken, e.g. `I1`.
fn broken(tally: &Tally) -> Vec<String> {
    let all = tally.broken.iter().flat_map(|broken| &broken.violations);
    let mut names: Vec<String> = all
        .filter_map(|text| Some(text.split_once(':')?.0.to_owned()))
        .collect();
    names.sort();
    names.dedup();
    names
}

fn finds(fault: PlantedFault, invariant: &str) {
    let planted = runs(Some(fault));
    let names = broken(&planted);
    println!(
        "{fault:?}: {} of {SEEDS} seeds broke {names:?}",
        planted.broken.len()
    );
    assert!(
        names.iter().any(|name| name == invariant),
        "{fault:?} is not found: {names:?}"
    );
    run::demand(&runs(None));
}

#[test]
fn an_epoch_check_that_is_skipped_is_found() {
    finds(PlantedFault::SkipEpochCheck, "I1");
}

#[test]
fn a_merge_by_clock_is_found() {
    finds(PlantedFault::MergeByClock, "I6");
}

#[test]
fn letting_go_before_the_other_has_its_own_is_found() {
    finds(PlantedFault::UnsubscribeFirst, "I6");
}
