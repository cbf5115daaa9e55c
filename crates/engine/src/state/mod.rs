//! Tables and small parts that every room may hold: sessions, timers, clocks, random numbers.

pub(crate) mod rng;
pub(crate) mod session;
mod sessions;
pub mod steady;
pub(crate) mod tally;
pub(crate) mod timer;
