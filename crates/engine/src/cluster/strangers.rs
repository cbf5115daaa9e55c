//! Instances that claim to be of this cluster and speak under another key.
//!
//! They cannot be heard, and nothing that they say is believed. But two instances that cannot hear
//! each other both lead, so operators are told, and a newcomer that never had a peer stands back: it is
//! the likelier one to have the wrong key. One that has led before serves on.

use std::collections::BTreeMap;

use crate::model::InstanceId;

use crate::{Engine, limits};

/// Claimed ids, and when each was heard last, monotonic milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    heard: BTreeMap<InstanceId, u64>,
    /// The first was heard when this instance was new.
    as_newcomer: bool,
}

impl Strangers {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&InstanceId, u64)> {
        self.heard.iter().map(|(id, heard)| (id, *heard))
    }
}

impl Engine {
    /// A message under another key.
    pub(crate) fn hear_stranger(&mut self, claimed: &InstanceId) {
        let known = self.members.get(claimed);
        if *claimed == self.cfg.instance || known.is_some_and(|peer| peer.liveness.present()) {
            return;
        }
        let full = self.cluster.strangers.heard.len() >= limits::STRANGERS;
        if full && !self.cluster.strangers.heard.contains_key(claimed) {
            return;
        }
        if self.cluster.strangers.heard.is_empty() {
            let new_until = self.attached.joined_at().map(|at| at + self.cfg.peers.lost);
            self.cluster.strangers.as_newcomer =
                new_until.is_none_or(|until| self.now.mono < until);
        }
        let before = self
            .cluster
            .strangers
            .heard
            .insert(claimed.clone(), self.now.mono);
        if before.is_none() {
            self.look_at_roles("auth-failed");
            self.refresh_consumers();
        }
    }

    /// Forgets who is not heard any more, or speaks under our key now.
    pub(crate) fn forget_strangers(&mut self) {
        let before = self.cluster.strangers.heard.len();
        let oldest = self.now.mono.saturating_sub(limits::STRANGER_MS);
        let members = &self.members;
        self.cluster.strangers.heard.retain(|id, heard| {
            let present = members.get(id).is_some_and(|peer| peer.liveness.present());
            *heard >= oldest && !present
        });
        if self.cluster.strangers.heard.len() != before {
            self.look_at_roles("peers");
            self.refresh_consumers();
        }
    }

    /// The first of them, where there is one.
    pub(crate) fn stranger(&self) -> Option<&InstanceId> {
        self.cluster.strangers.heard.keys().next()
    }

    /// Whether commands are left to others: somebody has had another key since this instance came,
    /// and no member ever had ours.
    pub(crate) fn stands_back(&self) -> bool {
        let strange =
            !self.cluster.strangers.heard.is_empty() && self.cluster.strangers.as_newcomer;
        strange && self.book.known_members().next().is_none()
    }

    /// What an operator is told of one.
    pub(crate) fn words_of_stranger(id: &InstanceId) -> String {
        format!(
            "{id} speaks under another control.key and cannot be heard: both may be serving; give \
             all instances the same key"
        )
    }
}
