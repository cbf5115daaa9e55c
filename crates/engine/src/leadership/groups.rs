//! The groups of command queues, as this instance stands to each. Only this room changes them, but for
//! their consumers and what is kept of them on disk.

use std::ops::Deref;

use crate::api::command::KeptGroup;
use crate::api::ids::{JobId, LinkEpoch};
use crate::api::limits;
use crate::leadership::handover::Leaving;
use crate::model::InstanceId;
use crate::peer::{Choice, Role};

/// A registered consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub link: LinkEpoch,
    pub tag: String,
    pub priority: i32,
    pub confirmed: bool,
    /// When it was asked for, monotonic milliseconds.
    pub asked_at: u64,
}

/// What became of drains for a claim since one was granted.
#[derive(Debug, Default)]
pub(crate) struct HeldUp {
    /// The commands that did not end in time the last time.
    pub by: Vec<JobId>,
    /// How often that was so in a row.
    pub times: u32,
    /// When the last time was, monotonic milliseconds.
    pub at: u64,
}

/// A group of command queues.
#[derive(Debug)]
pub(crate) struct Group {
    pub name: String,
    pub role: Role,
    pub term: u64,
    /// An operator has stopped it on this instance; kept on disk.
    pub stopped: bool,
    /// What operators decided for all members; kept on disk.
    pub choice: Option<Choice>,
    /// It was stopped so before failover was switched off here, which stops it, too; kept on disk.
    pub(crate) stopped_first: bool,
    /// The store lacks what is kept on disk.
    pub(crate) unkept: bool,
    /// On its way out.
    pub(crate) leaving: Option<Leaving>,
    /// An operator has chosen this instance: no hold.
    pub(crate) at_once: bool,
    pub consumer: Option<Consumer>,
    /// One was lost, and the one before it may still be there: the shell gives it up only for a new
    /// one, or when it is told to.
    former: bool,
    pub(crate) generation: u64,
    /// The higher-priority follower's way back: since when it could lead.
    pub(crate) stable_since: Option<u64>,
    /// Subscriptions are being prepared for a claim.
    pub(crate) preparing: Option<u64>,
    /// A claim was sent.
    pub(crate) claimed: Option<(u64, u64)>,
    /// Whose claim this leader drains for, its term and until when.
    pub(crate) granting: Option<(InstanceId, u64, u64)>,
    /// Drains for a claim that led to nothing.
    pub(crate) held_up: HeldUp,
    /// Doubles when a takeback did not last; kept on disk.
    pub(crate) hold_factor: u64,
    /// When the lead was taken back, monotonic milliseconds.
    pub(crate) took_back: Option<u64>,
}

impl Group {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            role: Role::Joining,
            term: 0,
            stopped: false,
            choice: None,
            stopped_first: false,
            unkept: false,
            leaving: None,
            at_once: false,
            consumer: None,
            former: false,
            generation: 0,
            stable_since: None,
            preparing: None,
            claimed: None,
            granting: None,
            held_up: HeldUp::default(),
            hold_factor: 1,
            took_back: None,
        }
    }

    /// A takeback that did not last.
    pub(in crate::leadership) fn hold_longer(&mut self) {
        self.hold_factor = self.longer_hold();
    }

    fn longer_hold(&self) -> u64 {
        (self.hold_factor * 2).min(limits::HOLD_FACTOR)
    }

    /// What the store is to have. A process that ends soon after a takeback does not tell that it
    /// did not last: so that is written before.
    fn to_keep(&self) -> KeptGroup {
        KeptGroup {
            name: self.name.clone(),
            stopped: self.stopped,
            choice: self.choice.clone(),
            hold_factor: match self.took_back {
                Some(_) => self.longer_hold(),
                None => self.hold_factor,
            },
            stopped_first: self.stopped_first,
        }
    }
}

/// All groups, as configured; read like a slice.
#[derive(Debug)]
pub(crate) struct Groups(Vec<Group>);

impl Deref for Groups {
    type Target = [Group];

    fn deref(&self) -> &[Group] {
        &self.0
    }
}

impl Groups {
    pub(crate) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| Group::new(name)).collect())
    }

    /// One, to change. `index` is one of them.
    pub(in crate::leadership) fn edit(&mut self, index: usize) -> &mut Group {
        &mut self.0[index]
    }

    // ---- consumers ----------------------------------------------------------------------------

    /// A consumer is asked for; returns its tag: the marker and a number of its own.
    pub(crate) fn ask_consumer(
        &mut self,
        index: usize,
        (link, priority): (LinkEpoch, i32),
        marker: &str,
        now: u64,
    ) -> String {
        let group = &mut self.0[index];
        group.generation += 1;
        let tag = format!("{marker}{}", group.generation);
        group.consumer = Some(Consumer {
            link,
            tag: tag.clone(),
            priority,
            confirmed: false,
            asked_at: now,
        });
        tag
    }

    /// The broker gave it. `false`: another one is asked for by now.
    pub(crate) fn confirm_consumer(&mut self, index: usize, link: LinkEpoch, tag: &str) -> bool {
        let consumer = self.0.get_mut(index).and_then(|g| g.consumer.as_mut());
        match consumer {
            Some(consumer) if consumer.link == link && consumer.tag == tag => {
                consumer.confirmed = true;
                self.0[index].former = false;
                true
            }
            _ => false,
        }
    }

    /// It is lost. `false`: another one is asked for by now.
    pub(crate) fn lose_consumer(&mut self, index: usize, link: LinkEpoch, tag: &str) -> bool {
        let Some(group) = self.0.get_mut(index) else {
            return false;
        };
        let known = group.consumer.as_ref();
        let current = known.is_some_and(|known| known.link == link && known.tag == tag);
        if current {
            group.consumer = None;
            group.former = true;
        }
        current
    }

    /// All are given back. `false`: there is none.
    pub(crate) fn stop_consumer(&mut self, index: usize) -> bool {
        let group = &mut self.0[index];
        let former = std::mem::take(&mut group.former);
        group.consumer.take().is_some() || former
    }

    /// The broker has a consumer of before, which nothing more is known of.
    pub(crate) fn note_former(&mut self, index: usize) {
        if let Some(group) = self.0.get_mut(index) {
            group.former = true;
        }
    }

    /// The link of all consumers is gone, or is left.
    pub(crate) fn forget_consumers(&mut self) {
        for group in &mut self.0 {
            group.consumer = None;
            group.former = false;
        }
    }

    /// This process was away: that is no delay of the broker's.
    pub(crate) fn forgive_consumers(&mut self, late: u64) {
        for group in &mut self.0 {
            if let Some(consumer) = &mut group.consumer {
                consumer.asked_at += late;
            }
        }
    }

    // ---- on disk ------------------------------------------------------------------------------

    /// What the store had kept.
    pub(crate) fn restore(&mut self, kept: KeptGroup) {
        if let Some(group) = self.0.iter_mut().find(|g| g.name == kept.name) {
            group.choice = kept.choice;
            group.stopped = kept.stopped;
            group.stopped_first = kept.stopped_first;
            group.hold_factor = kept.hold_factor.clamp(1, limits::HOLD_FACTOR);
            if kept.stopped {
                group.role = Role::Disabled;
            }
        }
    }

    /// What the store lacks.
    pub(crate) fn take_unkept(&mut self) -> Vec<KeptGroup> {
        let changed = self.0.iter_mut().filter(|group| group.unkept);
        let kept = changed.map(|group| {
            group.unkept = false;
            group.to_keep()
        });
        kept.collect()
    }

    /// The store could not take it.
    pub(crate) fn keep_later(&mut self, name: &str) {
        if let Some(group) = self.0.iter_mut().find(|group| group.name == name) {
            group.unkept = true;
        }
    }
}
