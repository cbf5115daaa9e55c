//! Runs that broke something once, kept as plans: they are the same runs when the generator
//! changes. `SIM_PLANS=FILE scripts/simulate …` writes the plans of what breaks.

use crate::plan::Plan;
use crate::run;
use crate::world::World;

/// One plan a line.
const BROKE_ONCE: &str = include_str!("../data/simulation/broke_once.jsonl");

#[test]
fn what_broke_once_stays_mended() {
    // Other plans, while their cause is looked for.
    let others = std::env::var("SIM_REPLAY").ok();
    let others = others.map(|path| std::fs::read_to_string(path).expect("SIM_REPLAY is a file"));
    let plans: Vec<Plan> = (others.as_deref().unwrap_or(BROKE_ONCE).lines().enumerate())
        .map(|(index, line)| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("line {index}: {error}"))
        })
        .collect();
    assert!(
        others.is_some() || plans.len() >= 42,
        "{} plans",
        plans.len()
    );
    let mut broken = Vec::new();
    for plan in plans {
        let seed = plan.seed;
        let mut world = World::new(plan);
        if others.is_some() {
            world.trace = run::trace();
        }
        world.run();
        if !world.seen.violations.is_empty() {
            broken.push((seed, world.seen.violations));
        }
    }
    assert!(broken.is_empty(), "by seed: {broken:#?}");
}
