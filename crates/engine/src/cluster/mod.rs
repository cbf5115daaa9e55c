//! The members: who lives, what they tell each other, what was missed while apart, and who speaks
//! under another key.

mod apart;
pub mod members;
mod pause;
mod replication;
mod strangers;

/// What this room knows beside the members themselves.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) replication: replication::Replication,
    pub(crate) apart: apart::Apart,
    pub(crate) pause: pause::OwnPause,
    pub(crate) strangers: strangers::Strangers,
}
