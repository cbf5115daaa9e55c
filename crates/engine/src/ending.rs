//! The end of this process: a shutdown in order, a drain, or a refusal to start.

use crate::Engine;
use crate::api::command::LifeCommand;
use crate::limits;
use crate::peer::PeerMessage;
use crate::state::timer::Timer;

/// How far the end is.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// The end was ordered; when it is not waited for any longer, monotonic milliseconds.
    shutdown: Option<u64>,
    /// All groups are being left, or were.
    draining: bool,
    exited: bool,
}

impl Ending {
    pub(crate) fn shutdown(&self) -> Option<u64> {
        self.shutdown
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    /// An operator has all groups left.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// An operator wants a group served here again.
    pub(crate) fn drain_no_more(&mut self) {
        self.draining = false;
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.exited
    }

    /// Nothing is done any more.
    pub(crate) fn exited(&mut self) {
        self.exited = true;
    }
}

impl Engine {
    pub(crate) fn on_shutdown(&mut self) {
        if self.ending.shutdown.is_some() {
            return;
        }
        let until = self.now.mono + self.cfg.shutdown_grace;
        self.ending.shutdown = Some(until);
        self.timers.set(Timer::Grace, until);
        // Half of the grace for a handover in order, the other half to finish without one. That
        // it is under way needs no answer.
        let wait = (self.cfg.shutdown_grace / 2).min(limits::HANDOVER_WAIT_MS);
        let _ = self.drain(wait, "shutdown");
    }

    pub(crate) fn grace_over(&mut self) {
        if self.ending.shutdown.is_some() {
            self.exit();
        }
    }

    /// Ends when everything started is finished and confirmed, and what is to survive is on disk.
    pub(crate) fn check_shutdown(&mut self) {
        let idle = self.jobs.is_empty() && self.outbox.is_done() && self.drained();
        if self.ending.shutdown.is_some() && idle && self.kept_all() {
            self.exit();
        }
    }

    fn exit(&mut self) {
        if self.ending.exited {
            return;
        }
        self.say(None, PeerMessage::Goodbye);
        self.out.push(LifeCommand::Exit);
        self.ending.exited = true;
    }
}
