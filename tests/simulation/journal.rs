//! The journal's disk of one instance: what gathers while a write is under way goes into the next.

use std::collections::BTreeMap;

use tandem_engine::Input;
use tandem_engine::command::JournalWrite;
use tandem_engine::ids::JournalId;
use tandem_engine::journal::Restored;
use tandem_engine::peer::{IntentRecord, OutcomeRecord};
use tandem_model::InstanceId;

use crate::instance::HANGS_MS;
use crate::world::{Ev, World};

/// What is on disk, and what is on its way there.
#[derive(Default)]
pub struct JournalDisk {
    intents: BTreeMap<[u8; 16], IntentRecord>,
    outcomes: BTreeMap<[u8; 16], OutcomeRecord>,
    members: BTreeMap<InstanceId, u64>,
    /// Being written: a crash makes all of it or loses all of it.
    writing: Vec<(JournalId, JournalWrite)>,
    gathered: Vec<(JournalId, JournalWrite)>,
}

impl JournalDisk {
    fn apply(&mut self, write: JournalWrite) {
        match write {
            JournalWrite::Intent(intent) => {
                self.outcomes.remove(&intent.key);
                self.intents.insert(intent.key, intent);
            }
            JournalWrite::Outcome(outcome) => {
                self.outcomes.insert(outcome.key, outcome);
            }
            JournalWrite::Withdraw(key) => {
                self.intents.remove(&key);
            }
            JournalWrite::Member(id, heard) => {
                self.members.insert(id, heard);
            }
        }
    }

    /// The process is gone.
    pub fn crash(&mut self, made: bool) {
        self.gathered.clear();
        for (_, write) in std::mem::take(&mut self.writing) {
            if made {
                self.apply(write);
            }
        }
    }

    pub fn restored(&self) -> Restored {
        Restored {
            intents: self.intents.values().cloned().collect(),
            outcomes: self.outcomes.values().cloned().collect(),
            members: self.members.clone().into_iter().collect(),
            lost_until: 0,
        }
    }
}

impl World {
    pub fn journal(&mut self, node: usize, id: JournalId, write: JournalWrite) {
        let disk = &mut self.nodes[node].journal;
        disk.gathered.push((id, write));
        if disk.writing.is_empty() {
            self.write_journal(node);
        }
    }

    fn write_journal(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        let disk = &mut self.nodes[node].journal;
        disk.writing = std::mem::take(&mut disk.gathered);
        if !disk.writing.is_empty() {
            let wait = 1 + self.rng.below(6);
            self.after(wait, Ev::Journaled(node, boot));
        }
    }

    pub fn journaled(&mut self, node: usize, boot: u64) {
        let entry = &mut self.nodes[node];
        if entry.boot != boot || entry.journal.writing.is_empty() {
            return;
        }
        if entry.disk.hangs {
            self.after(HANGS_MS, Ev::Journaled(node, boot));
            return;
        }
        let failure = entry.disk.fails.then(|| "disk full".to_owned());
        let mut ids = Vec::new();
        for (id, write) in std::mem::take(&mut entry.journal.writing) {
            ids.push(id);
            if failure.is_none() {
                entry.journal.apply(write);
            }
        }
        self.write_journal(node);
        self.input(node, boot, Input::Journaled { ids, failure });
    }
}
