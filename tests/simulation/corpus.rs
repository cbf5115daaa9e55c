//! Runs that broke something once, kept as plans: they are the same runs when the generator
//! changes. `SIM_PLANS=FILE scripts/simulate …` writes the plans of what breaks.

use crate::plan::Plan;
use crate::world::World;

/// One plan a line.
const BROKE_ONCE: &str = include_str!("../data/simulation/broke_once.jsonl");

#[test]
fn what_broke_once_stays_mended() {
    let plans: Vec<Plan> = (BROKE_ONCE.lines().enumerate())
        .map(|(index, line)| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("line {index}: {error}"))
        })
        .collect();
    assert!(plans.len() >= 42, "{} plans", plans.len());
    let mut broken = Vec::new();
    for plan in plans {
        let seed = plan.seed;
        let mut world = World::new(plan);
        world.run();
        if !world.seen.violations.is_empty() {
            broken.push((seed, world.seen.violations));
        }
    }
    assert!(broken.is_empty(), "by seed: {broken:#?}");
}
