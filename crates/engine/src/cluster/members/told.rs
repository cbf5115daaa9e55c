//! What is noted of a peer beside its life: what it has told, what it has heard of us, what it can
//! have done. Nothing else changes a peer from outside of this room.

use crate::api::ids::BootId;
use crate::api::limits;
use crate::model::InstanceId;
use crate::peer::Role;

use super::Members;

impl Members {
    /// A part of its snapshot arrived.
    pub(crate) fn note_snapshot_part(&mut self, id: &InstanceId, part: u32, parts: u32) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.snapshot_parts.insert(part.min(parts));
            peer.snapshot_done |= peer.snapshot_parts.len() >= parts as usize;
        }
    }

    /// How long a heartbeat took to it and back, milliseconds.
    pub(crate) fn note_round_trip(&mut self, id: &InstanceId, millis: u64) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.round_trip = Some(millis);
        }
    }

    /// It heard the own heartbeat that was sent at monotonic milliseconds `sent`; this start of it
    /// alone.
    pub(crate) fn note_heard_us(&mut self, id: &InstanceId, boot: BootId, sent: u64) {
        if let Some(peer) = self.peers.get_mut(id)
            && peer.boot == boot
        {
            peer.echoed_at = peer.echoed_at.max(Some(sent));
        }
    }

    /// It has told `me` all that it did while it could not hear us, where its heartbeat says so.
    pub(crate) fn note_synced(&mut self, id: &InstanceId, me: &InstanceId) {
        if let Some(peer) = self.peers.get_mut(id)
            && peer.heartbeat.settled.contains(me)
        {
            peer.synced = true;
        }
    }

    /// It is lost: whether it cannot have made a call without our word.
    pub(crate) fn note_covered(&mut self, id: &InstanceId, covered: bool) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.covered = covered;
        }
    }

    /// Compares its table with ours, by digest. Returns whether it has been another one for so
    /// long that a snapshot is due.
    pub(crate) fn differs(&mut self, id: &InstanceId, own: u64) -> bool {
        let Some(peer) = self.peers.get_mut(id) else {
            return false;
        };
        if peer.heartbeat.digest == 0 || peer.heartbeat.digest == own {
            peer.differs = 0;
            return false;
        }
        peer.differs += 1;
        let due = peer.differs >= limits::DIFFERING_BEATS;
        if due {
            peer.differs = 0;
        }
        due
    }

    /// It has, or has no more, the lead of a group, before its next heartbeat says so.
    pub(crate) fn believe_role(&mut self, id: &InstanceId, group: &str, role: Role) {
        let peer = self.peers.get_mut(id);
        let groups = peer.map(|peer| &mut peer.heartbeat.groups);
        let state = groups.and_then(|groups| groups.iter_mut().find(|g| g.name == group));
        if let Some(state) = state {
            state.role = role;
        }
    }
}
