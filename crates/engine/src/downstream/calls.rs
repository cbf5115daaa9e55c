//! Downstream requests that are under way, and what each is for.

use std::collections::HashMap;

use crate::api::ids::{CallId, JobId};
use crate::jobs::{doubt, ledger};
use crate::model::AgentId;

/// What a downstream request is for.
#[derive(Debug, Clone)]
pub(crate) enum CallFor {
    /// A step of a command.
    Job(JobId),
    /// Reading an agent anew.
    Sync(AgentId),
    /// Making an agent ready after its sign-in.
    Habit(AgentId),
    /// Signing an agent in again on a node that does not know it, or that signed it out itself.
    Again(AgentId),
    /// Finding out whether a command was carried out before.
    Ask(JobId, doubt::Proof),
    /// The same, after it was answered in doubt.
    Later(ledger::Key, doubt::Proof),
}

/// Requests under way; at most one a lane, and one a session or doubt.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    map: HashMap<CallId, (CallFor, usize)>,
}

impl Calls {
    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// A request leaves for a node.
    pub(crate) fn left(&mut self, call: CallId, purpose: CallFor, node: usize) {
        self.map.insert(call, (purpose, node));
    }

    /// Its answer is here: what it was for, and at which node. `None`: it is late.
    pub(crate) fn answered(&mut self, call: CallId) -> Option<(CallFor, usize)> {
        self.map.remove(&call)
    }
}
