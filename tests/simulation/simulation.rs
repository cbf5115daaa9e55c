//! Two and three engines, two federated brokers, a downstream and clients under a virtual clock
//! and seeded faults. A seed says everything: mode, number of instances, what goes wrong and
//! when. At the end all is healed and service is demanded.
//!
//! | file | invariant | promised in |
//! | --- | --- | --- |
//! | `invariants/i01_one_effect.rs` | at most one effect for an id that is not idempotent | README, *Effect* |
//! | `invariants/i02_terminal_outcome.rs` | every accepted command gets a terminal outcome | README, *Delivery* |
//! | `invariants/i03_same_outcome.rs` | one id, one definite outcome | README, *Effect* |
//! | `invariants/i04_reply_before_ack.rs` | no acknowledgement before the reply is confirmed | README, *Delivery* |
//! | `invariants/i05_order.rs` | an agent's commands in order | README, *Order* |
//! | `invariants/i06_one_owner.rs` | one owner, one subscription, equal tables; none let go too early | README, *Owner* |
//! | `invariants/i07_epochs.rs` | an epoch is never reused | README, *Restart* |
//! | `invariants/i08_secrets.rs` | no password where it can be read | docs/architecture.md |
//! | `invariants/i09_bounds.rs` | bounded memory, no hot loop | docs/architecture.md |
//! | `invariants/i10_service.rs` | once faults stop, everything is served | README, *Failover* |
//! | `invariants/i11_short_pauses.rs` | no takeover for a pause below 1.5 s | README, *Pauses* |
//! | `invariants/i12_hostile_input.rs` | hostile input gets a typed refusal | docs/architecture.md |
//! | `invariants/i13_sign_in.rs` | an accepted sign-in survives | README, *Restart* |
//! | `invariants/i14_true_answers.rs` | answers are true by the downstream's ledger | docs/guarantees.md |
//! | `invariants/i15_events.rs` | states told end with the platform's; epochs do not fall | README, *Owner* |
//! | `invariants/i16_sign_outs.rs` | who has signed out stays out | docs/commands.md |
//! | `invariants/i17_roles.rs` | one leader soon, few changes of role | README, *Failover* |
//!
//! `scripts/simulate` runs any number of seeds; `run.rs` lists the environment variables.

mod broker;
mod bursts;
mod clients;
mod corpus;
mod digest;
mod downstream;
mod extra;
mod faults;
mod instance;
mod invariants;
mod journal;
mod network;
mod plan;
mod planted;
mod platform;
mod rng;
mod run;
mod shells;
mod trace;
mod world;

use plan::{Choice, Plan};
use trace::Trace;
use world::World;

/// Seeds of the ordinary test run.
const SEEDS: u64 = 2_000;

#[test]
fn every_seed_keeps_the_invariants() {
    let (first, count) = run::range(1, SEEDS);
    let choice = run::choice();
    let tally = run::seeds(first, count, |seed| World::new(Plan::new(seed, choice)));
    println!(
        "{} seeds, {} steps, outcomes {:?}",
        tally.runs, tally.steps, tally.outcomes
    );
    run::demand(&tally);
}

/// Seeds of the run in harsh weather.
const HARSH_SEEDS: u64 = 1_000;

#[test]
fn harsh_weather_breaks_no_invariant() {
    let (first, count) = run::range(1, HARSH_SEEDS);
    let mut choice = run::choice();
    choice.harsh = true;
    let tally = run::seeds(first, count, |seed| World::new(Plan::new(seed, choice)));
    run::demand(&tally);
}

/// Seeds of the run with brokers that refuse.
const GREY_SEEDS: u64 = 500;

#[test]
fn brokers_that_refuse_break_no_invariant() {
    let (first, count) = run::range(1, GREY_SEEDS);
    let choice = run::choice();
    let tally = run::seeds(first, count, |seed| {
        World::new(Plan::new(seed, choice).with_grey_brokers())
    });
    run::demand(&tally);
}

#[test]
fn a_seed_always_tells_the_same_story() {
    for seed in [3, 11, 42] {
        let tell = || {
            let mut world = World::new(Plan::new(seed, Choice::default()));
            world.trace = Trace::Keep(Vec::new());
            world.run();
            match world.trace {
                Trace::Keep(lines) => lines,
                _ => Vec::new(),
            }
        };
        let first = tell();
        assert!(first.len() > 200, "seed {seed}: {} lines", first.len());
        assert!(first == tell(), "seed {seed} tells two stories");
    }
}
