//! Instances that claim to be of this cluster and speak under another key.
//!
//! They cannot be heard, and nothing that they say is believed. But two instances that cannot hear
//! each other both lead, so operators are told, and one that never had a peer stands back: it is the
//! likelier one to have the wrong key.

use std::collections::BTreeMap;

use crate::model::InstanceId;

use super::{Engine, limits};

/// Claimed ids, and when each was heard last, monotonic milliseconds.
#[derive(Debug, Default)]
pub(super) struct Strangers(BTreeMap<InstanceId, u64>);

impl Strangers {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&InstanceId, u64)> {
        self.0.iter().map(|(id, heard)| (id, *heard))
    }
}

impl Engine {
    /// A message under another key.
    pub(super) fn hear_stranger(&mut self, claimed: &InstanceId) {
        let known = self.members.get(claimed);
        if *claimed == self.cfg.instance || known.is_some_and(|peer| peer.liveness.present()) {
            return;
        }
        let full = self.strangers.0.len() >= limits::STRANGERS;
        if full && !self.strangers.0.contains_key(claimed) {
            return;
        }
        let new = self.strangers.0.insert(claimed.clone(), self.now.mono);
        if new.is_none() {
            self.look_at_roles("auth-failed");
            self.refresh_consumers();
        }
    }

    /// Forgets who is not heard any more, or speaks under our key now.
    pub(super) fn forget_strangers(&mut self) {
        let before = self.strangers.0.len();
        let oldest = self.now.mono.saturating_sub(limits::STRANGER_MS);
        let members = &self.members;
        self.strangers.0.retain(|id, heard| {
            let present = members.get(id).is_some_and(|peer| peer.liveness.present());
            *heard >= oldest && !present
        });
        if self.strangers.0.len() != before {
            self.look_at_roles("peers");
            self.refresh_consumers();
        }
    }

    /// The first of them, where there is one.
    pub(super) fn stranger(&self) -> Option<&InstanceId> {
        self.strangers.0.keys().next()
    }

    /// Whether others are to be served first: somebody has another key, and no member ever had ours.
    pub(super) fn stands_back(&self) -> bool {
        self.stranger().is_some() && self.book.members.is_empty()
    }

    /// What an operator is told of one.
    pub(super) fn words_of_stranger(id: &InstanceId) -> String {
        format!(
            "{id} speaks under another control.key and cannot be heard: both may be serving; give \
             all instances the same key"
        )
    }
}
