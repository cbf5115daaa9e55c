//! What the brokers lack, and what that means for the links.

use super::{Links, State};
use crate::api::ids::LinkEpoch;
use crate::api::way::Weight;

impl Links {
    /// The serving broker lacks something vital, and no better one is connected: nothing can be
    /// served from here.
    #[must_use]
    pub fn stuck(&self) -> bool {
        let vital = |broker: usize| self.lacks_vital(broker);
        self.active.is_some_and(vital) && self.candidates().all(vital)
    }

    /// The same, and commands that are taken could not be answered.
    #[must_use]
    pub fn mute(&self) -> bool {
        let mute = |broker: usize| self.slots[broker].fitness.mute();
        self.stuck() && self.active.is_some_and(mute)
    }

    /// The serving broker lacks something vital; that of this link, which was left, does not (any
    /// more).
    #[must_use]
    pub fn is_way_out(&self, link: LinkEpoch) -> bool {
        let vital = |broker: usize| self.lacks_vital(broker);
        self.active.is_some_and(vital) && self.broker_of(link).is_some_and(|broker| !vital(broker))
    }

    /// The worst of what a broker lacks.
    #[must_use]
    pub fn weight(&self, broker: usize) -> Weight {
        let slot = self.slots.get(broker);
        slot.map_or(Weight::Minor, |slot| slot.fitness.weight())
    }

    /// Whether what a broker lacks keeps commands from being served there.
    #[must_use]
    pub fn lacks_vital(&self, broker: usize) -> bool {
        self.weight(broker) == Weight::Vital
    }

    /// What is wrong with a broker, for people; empty where nothing is.
    #[must_use]
    pub fn problem(&self, broker: usize) -> String {
        let Some(slot) = self.slots.get(broker) else {
            return String::new();
        };
        let mut problems: Vec<String> = Vec::new();
        if !matches!(slot.state, State::Up { .. }) && !slot.reason.is_empty() {
            problems.push(slot.reason.clone());
        }
        let lost = slot.fitness.lost();
        problems.extend(lost.map(|(way, reason)| format!("{}: {reason}", way.words())));
        problems.join("; ")
    }
}
