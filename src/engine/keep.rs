//! What must survive a restart of both instances: sessions, destinations, the epoch.
//!
//! One write at a time; what changes meanwhile goes into the next one. Agents' states are not
//! kept: they are read anew.

use crate::model::Destination;

use super::command::{Command, Keep};
use super::peer::SessionRecord;
use super::timer::Timer;
use super::{Engine, Event, limits};

impl Engine {
    /// Puts back what the store kept. Before [`Engine::start`].
    pub fn restore(
        &mut self,
        sessions: Vec<SessionRecord>,
        destinations: Vec<Destination>,
        epoch: u64,
    ) {
        let seen = sessions.iter().map(|record| record.version.epoch).max();
        self.epoch = self.epoch.max(epoch).max(seen.unwrap_or(0));
        self.sessions.restore(sessions, destinations);
    }

    pub(super) fn keep(&mut self) {
        if self.keeping.is_some() || !self.sessions.has_unkept() {
            return;
        }
        let (sessions, destinations) = self.sessions.take_unkept(limits::KEEP_RECORDS);
        let keep = Keep {
            sessions,
            destinations,
            epoch: self.epoch,
        };
        self.keeping = Some(keep.clone());
        self.out.push_back(Command::Keep(Box::new(keep)));
    }

    pub(super) fn on_kept(&mut self, failure: Option<String>) {
        let Some(keep) = self.keeping.take() else {
            self.stale("store");
            return;
        };
        match failure {
            None => self.keep(),
            Some(reason) => {
                self.events.push_back(Event::NotKept { reason });
                let agents = keep.sessions.into_iter().map(|(agent, _)| agent).collect();
                self.sessions.keep_later(agents, keep.destinations);
                let at = self.now.mono + limits::KEEP_RETRY_MS;
                self.timers.set(Timer::Keep, at);
            }
        }
    }
}
