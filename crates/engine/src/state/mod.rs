//! Tables and small parts that every room may hold: sessions, timers, clocks, random numbers.

pub(crate) mod rng;
pub(crate) mod session;
pub mod steady;
pub(crate) mod timer;
