//! Brokers: which link serves, how this instance is attached to it and consumes, what a broker
//! lacks, and what waits for a confirm.

pub(crate) mod attach;
mod consumers;
pub(crate) mod fitness;
mod garbled;
pub(crate) mod link;
pub(crate) mod outbox;
mod published;
mod publishing;
mod ways;
