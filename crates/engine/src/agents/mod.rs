//! Agents: who owns them, their subscriptions and what those tell, Connect, the way of an agent from
//! one instance to another, and the platform's rules.

mod connect;
pub(crate) mod correlation;
mod moving;
mod notices;
pub(crate) mod ownership;
mod platform;
mod reading;
pub(crate) mod states;
pub(crate) mod subscriptions;
mod supervise;

use std::collections::BTreeSet;
use std::sync::Arc;

/// What this room knows beside the sessions.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    pub(crate) takeover: subscriptions::Takeover,
    pub(crate) echoes: correlation::Echoes,
    pub(crate) states: states::Round,
    /// Agents that are being given away: those whose session says so.
    pub(crate) yielding: BTreeSet<Arc<str>>,
    /// Since when no member that is known was away, monotonic milliseconds.
    pub(crate) all_here_since: u64,
}
