//! Verbs: who gave which, why, and what came of it.

use std::net::IpAddr;

use super::{HistoryEntry, make};
use crate::engine::input::Verb;

/// Longest reason that a verb may be given with, in characters.
pub(crate) const REASON_MOST: usize = 300;

/// A verb that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) verb: Verb,
    /// Name of the token; `None` where none was needed.
    pub(crate) token: Option<String>,
    /// Who asked.
    pub(crate) from: IpAddr,
    /// Why, in the operator's words; empty where nothing was said.
    pub(crate) reason: String,
    /// The new state, or why it was refused.
    pub(crate) result: Result<String, String>,
}

impl Given {
    pub(super) fn entry(&self) -> HistoryEntry {
        let (what, about) = words(&self.verb);
        let to = match &self.result {
            Ok(state) => format!("{what}: {state}"),
            Err(why) => format!("{what} refused: {why}"),
        };
        HistoryEntry {
            token: self.token.clone(),
            address: Some(self.from.to_canonical().to_string()),
            ..make("operator", about, &to).reason(&self.reason)
        }
    }
}

/// The verb, and what it is about.
fn words(verb: &Verb) -> (&'static str, &str) {
    match verb {
        Verb::GroupStop(group) => ("group stop", group),
        Verb::GroupStart(group) => ("group start", group),
        Verb::FailoverStop(group) => ("failover stop", group),
        Verb::FailoverStart(group) => ("failover start", group),
        Verb::FailoverAuto(group) => ("failover auto", group),
        Verb::Switchover(to) => ("switchover", to),
        Verb::Forget(member) => ("forget", member),
        Verb::Drain => ("drain", "this instance"),
    }
}
