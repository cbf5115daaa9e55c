//! I7: an epoch is never reused: an instance does not lead twice in one term over a restart, and
//! one version of a session never stands for two contents.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tandem_engine::peer::{PeerMessage, SessionRecord};

use crate::instance::name_of;

/// Terms and versions that were told.
#[derive(Debug, Default)]
pub struct Epochs {
    /// Start of the instance that led, by instance and term.
    terms: BTreeMap<(usize, u64), u64>,
    /// Content by owner, agent, epoch and counter.
    versions: BTreeMap<(usize, String, u64, u64), u64>,
}

impl Epochs {
    pub fn said(&mut self, node: usize, boot: u64, message: &PeerMessage) -> Option<String> {
        match message {
            PeerMessage::Heartbeat(heartbeat) => {
                let leading = heartbeat.groups.iter().filter(|group| group.role.leads());
                leading
                    .filter_map(|group| {
                        // Told once: from then on it is the newer start's.
                        let first = self.terms.insert((node, group.term), boot);
                        let (who, term) = (name_of(node), group.term);
                        first
                            .is_some_and(|first| first != boot)
                            .then(|| format!("I7: {who} leads again in term {term}"))
                    })
                    .next()
            }
            PeerMessage::Snapshot { sessions, .. } | PeerMessage::Delta { sessions, .. } => {
                let own = name_of(node);
                let mut owned = sessions.iter().filter(|r| r.version.owner == own);
                owned.find_map(|record| self.record(node, record))
            }
            _ => None,
        }
    }

    fn record(&mut self, node: usize, record: &SessionRecord) -> Option<String> {
        let version = &record.version;
        let key = (
            node,
            record.agent.to_string(),
            version.epoch,
            version.counter,
        );
        let content = content_of(record);
        let first = *self.versions.entry(key).or_insert(content);
        (first != content).then(|| {
            let agent = &record.agent;
            format!("I7: version {version:?} of agent {agent} stands for two contents")
        })
    }
}

fn content_of(record: &SessionRecord) -> u64 {
    let mut hash = DefaultHasher::new();
    record.destination.as_str().hash(&mut hash);
    record.extension.hash(&mut hash);
    record.password.expose().hash(&mut hash);
    (record.signed_in, record.tombstone).hash(&mut hash);
    record.user.as_ref().map(|user| &user.state).hash(&mut hash);
    hash.finish()
}
