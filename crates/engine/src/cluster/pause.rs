//! This process was away (a frozen machine, a suspended process): others may have taken over since.
//! Nothing is started before a peer has answered, or was listened for.

use crate::Engine;
use crate::state::timer::Timer;

/// The doubt after an own pause.
#[derive(Debug, Default)]
pub(crate) struct OwnPause {
    /// No start of a command before this time or a peer's sign of life, monotonic milliseconds.
    until: Option<u64>,
    /// It was away for so long that another one may lead: it consumes no commands either.
    stands_aside: bool,
    /// The pause is over once a peer echoes this heartbeat, or a later one.
    seq: u64,
}

impl OwnPause {
    /// Whether it is not known yet what happened meanwhile.
    pub(crate) fn is_open(&self) -> bool {
        self.until.is_some()
    }

    /// When it has been listened for long enough, monotonic milliseconds.
    pub(crate) fn until(&self) -> Option<u64> {
        self.until
    }

    /// Whether no commands are to be consumed.
    pub(crate) fn stands_aside(&self) -> bool {
        self.stands_aside
    }

    /// Another one may lead by now.
    pub(crate) fn stand_aside(&mut self) {
        self.stands_aside = true;
    }

    /// Whether a peer that echoes this heartbeat tells how things are after the pause.
    pub(crate) fn is_answered_by(&self, seq: u64) -> bool {
        seq >= self.seq
    }

    fn begin(&mut self, until: u64, seq: u64) {
        self.until = Some(until);
        self.seq = seq;
    }

    fn end(&mut self) {
        self.until = None;
        self.stands_aside = false;
    }
}

impl Engine {
    /// Nothing is started before a peer has answered, or was listened for.
    pub(crate) fn fence_until_heard(&mut self, now: u64) {
        let until = now + self.cfg.peers.suspect;
        let seq = self.cluster.replication.next_seq();
        self.cluster.pause.begin(until, seq);
        self.timers.set(Timer::Heartbeat, now);
        self.timers.set_by(Timer::Members, until);
        if self.cluster.pause.stands_aside() {
            self.refresh_consumers();
        }
    }

    /// What happened during the pause is known, as far as somebody is there to tell.
    pub(crate) fn unfence(&mut self) {
        self.cluster.pause.end();
        self.refresh_consumers();
        self.advance_all();
    }
}
