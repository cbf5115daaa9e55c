//! Commands of other owners' agents: held, forwarded, taken back; and deliveries whose link is gone.

use crate::api::command::BrokerCommand;
use crate::api::ids::{BootId, JobId, LinkEpoch};
use crate::jobs::ledger::{Known, key_of};
use crate::jobs::life::Stage;
use crate::jobs::{Evidence, Job, Origin, State};
use crate::model::InstanceId;
use crate::peer::{ForwardRefusal, PeerMessage, Role};
use crate::state::timer::Timer;
use crate::wire::command::ClientCommand;
use crate::wire::message::RawMessage;
use crate::{Engine, limits};
use std::sync::Arc;

impl Engine {
    // ---- held, forwarded ----------------------------------------------------------------------

    /// Looks at held and forwarded commands again: whose are they now?
    pub(crate) fn release_held(&mut self) {
        let held = self.jobs.take_held();
        for id in held {
            let Some((command, _)) = self.job_command(id) else {
                continue;
            };
            if !self.owner_may_have_it(id) && (self.answered_elsewhere(id) || !self.recall(id)) {
                continue;
            }
            let ours = self.placement().serves(&command) && !self.may_be_told_of(id, &command);
            if ours && !self.owner_may_have_it(id) {
                self.release(id, &command);
            } else if self.still_waits(id, &command) {
                self.jobs.hold(id);
            }
        }
        if self.jobs.held_count() > 0 {
            self.timers.set_by(Timer::Held, self.now.mono + 50);
        }
    }

    /// The command is ours now.
    pub(crate) fn release(&mut self, id: JobId, command: &ClientCommand) {
        self.enqueue(id, command);
    }

    /// What was handed to an owner that is gone (or has started anew) may have been run there.
    /// `false`: it waits no longer.
    pub(crate) fn recall(&mut self, id: JobId) -> bool {
        let since = self.now.mono;
        let Some(job) = self.jobs.get_mut(id) else {
            return false;
        };
        if !matches!(job.state(), State::Forwarded { .. }) {
            return true;
        }
        job.seen = true;
        self.step(id, Evidence::CameBack { since });
        true
    }

    /// A forwarded command stays with a living owner until that owner answers.
    pub(crate) fn owner_may_have_it(&self, id: JobId) -> bool {
        match self.jobs.state(id) {
            Some(State::Forwarded { to, boot, .. }) => self.members.get(to).is_some_and(|peer| {
                let same = peer.boot == *boot || self.cfg.planted.skips_epoch_check();
                peer.liveness.present() && same
            }),
            _ => false,
        }
    }

    /// Forwards, forwards again, or expires a held command. `false`: it waits no longer.
    pub(crate) fn still_waits(&mut self, id: JobId, command: &ClientCommand) -> bool {
        let (since, forwarded) = match self.jobs.state(id) {
            Some(State::Held { since }) => (*since, None),
            Some(State::Forwarded { to, sent_at, .. }) => (*sent_at, Some(to.clone())),
            _ => return false,
        };
        let now = self.now;
        match forwarded {
            None if now.wall >= command.deadline_ms => {
                self.expire(id, command);
                return false;
            }
            None => {
                if let Some(owner) = self.placement().owner_to_ask(command, since) {
                    self.forward(id, owner.clone());
                    self.follow_client(id, command, &owner);
                }
            }
            Some(owner) => {
                let present = self
                    .members
                    .get(&owner)
                    .is_some_and(|peer| peer.liveness.present());
                let long_ago = command
                    .deadline_ms
                    .saturating_add(limits::FORWARD_PATIENCE_MS);
                if present && now.wall >= long_ago {
                    // It says nothing of this one: perhaps it can never hear of it.
                    self.recall(id);
                    self.expire(id, command);
                    return false;
                }
                if present && now.mono >= since + limits::RESEND_MS {
                    self.forward(id, owner);
                }
            }
        }
        true
    }

    /// Hands a command to the agent's owner. The delivery stays unacknowledged here until the owner
    /// has finished, so that it is served by somebody if the owner is lost.
    pub(crate) fn forward(&mut self, id: JobId, owner: InstanceId) {
        let Some(boot) = self.members.get(&owner).map(|peer| peer.boot) else {
            return;
        };
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        let mut raw = job.raw.as_ref().clone();
        // One that was made here goes with it.
        raw.trace = (job.command.as_ref())
            .and_then(|command| command.trace.as_deref().cloned())
            .or(raw.trace);
        raw.group = job
            .command
            .as_ref()
            .and_then(|command| self.groups.get(command.group))
            .map(|group| group.name.clone());
        // By its id the owner would know it again; without one it must be told.
        let again = matches!(job.state(), State::Forwarded { .. });
        // Also where it comes back: the answer to what was sent before may be lost.
        job.seen |= again && job.key.is_none();
        raw.redelivered |= job.seen;
        let handed = Evidence::HandedOver {
            to: owner.clone(),
            boot,
            at: self.now.mono,
        };
        self.step(id, handed);
        if !again {
            self.stage(id, Stage::Forwarded { to: owner.clone() });
        }
        self.say(Some(&owner), PeerMessage::Forward { id: id.0, raw });
    }

    /// A peer hands us a command of an agent that we own.
    pub(crate) fn on_forward(&mut self, peer: &InstanceId, id: u64, raw: RawMessage) {
        if self.jobs.forwarded(peer, id).is_some() {
            return;
        }
        // A copy that came by another way, or the answer was lost. Without an id nothing else would
        // know it again.
        if self.jobs.is_over(peer, id) {
            self.say(Some(peer), PeerMessage::ForwardDone { id });
            return;
        }
        let mut parsed = crate::wire::command::parse(&raw, &self.cfg.parse, self.now.wall);
        if let (Ok(command), Some(name)) = (&mut parsed, &raw.group) {
            command.group = self.placement().index_of(name).unwrap_or(0);
        }
        // One that was run here before the agent went elsewhere is answered here, too.
        let known = parsed.as_ref().is_ok_and(|command| self.knows(command));
        let ours = parsed
            .as_ref()
            .is_ok_and(|command| self.placement().serves(command));
        if !ours && !known {
            let why = ForwardRefusal::NotOwner;
            self.say(Some(peer), PeerMessage::ForwardRefused { id, why });
            return;
        }
        if !known && self.jobs.len() >= 2 * self.cfg.prefetch {
            let why = ForwardRefusal::Busy;
            self.say(Some(peer), PeerMessage::ForwardRefused { id, why });
            return;
        }
        let origin = Origin::Forwarded {
            peer: peer.clone(),
            id,
        };
        let job = self.new_job(origin, Arc::new(raw), parsed);
        let (Ok(id) | Err((id, _))) = &job;
        let (id, by) = (*id, peer.clone());
        self.stage(id, Stage::HandedOver { by });
        match job {
            Ok(job) => self.accept(job),
            Err((job, malformed)) => self.refuse(job, &malformed),
        }
    }

    /// Whether a command id was seen here.
    fn knows(&self, command: &ClientCommand) -> bool {
        key_of(command).is_some_and(|(key, body)| {
            !matches!(self.known(&key, body), Known::No) || self.book.open_intent(&key).is_some()
        })
    }

    pub(crate) fn on_forward_done(&mut self, from: &InstanceId, id: u64) {
        let id = JobId(id);
        let state = self.jobs.state(id);
        let forwarded = matches!(state, Some(State::Forwarded { to, .. }) if to == from);
        if !forwarded {
            self.stale("forward");
            return;
        }
        self.stage(id, Stage::AnsweredBy { by: from.clone() });
        self.jobs.unhold(id);
        if let Some((key, _)) = self.jobs.get(id).and_then(|job| job.key) {
            self.ledger.forget(&key);
        }
        // What waited for it is asked for again: the answers are the owner's to give.
        self.settle(id);
    }

    /// The word of an earlier start of the owner says nothing of what its later one has.
    pub(crate) fn on_forward_refused(
        &mut self,
        (from, start): (&InstanceId, BootId),
        id: u64,
        why: ForwardRefusal,
    ) {
        let id = JobId(id);
        let now = self.now.mono;
        let asked = matches!(self.jobs.state(id),
            Some(State::Forwarded { to, boot, .. }) if (to, *boot) == (from, start));
        if !asked {
            return;
        }
        // Where it may have run it is not refused, but waits for room.
        let waits = why == ForwardRefusal::Busy && self.may_have_run(id);
        if why == ForwardRefusal::NotOwner || waits {
            self.step(id, Evidence::CameBack { since: now });
        }
        self.stage(id, Stage::GivenBack { by: from.clone() });
        match why {
            ForwardRefusal::NotOwner => {
                self.timers.set_by(Timer::Held, now + 50);
            }
            ForwardRefusal::Busy if waits => {
                self.timers.set_by(Timer::Held, now + limits::RESEND_MS);
            }
            ForwardRefusal::Busy => {
                self.jobs.unhold(id);
                self.overloaded(id);
            }
        }
    }

    /// The holder's delivery is gone: what has not been started is dropped.
    pub(crate) fn on_forward_withdrawn(&mut self, peer: &InstanceId, id: u64) {
        self.jobs.note_over(peer, id);
        if let Some(job) = self.jobs.forwarded(peer, id) {
            self.orphan(job);
        }
    }

    /// Our leadership went to another: what has not been started is held for the new leader.
    pub(crate) fn hand_over_waiting(&mut self) {
        let queued = self.jobs.lanes.queued().filter(|(key, _)| key.0);
        let mut waiting: Vec<JobId> = queued.map(|(_, id)| id).collect();
        waiting.sort();
        for id in waiting {
            let Some((command, _)) = self.job_command(id) else {
                continue;
            };
            if self.placement().serves(&command) {
                continue;
            }
            self.leave_lane(id, &command);
            let origin = self.jobs.get(id).map(|job| job.origin.clone());
            if let Some(Origin::Forwarded { peer, id: number }) = origin {
                let why = ForwardRefusal::NotOwner;
                self.give_up(id);
                self.say(Some(&peer), PeerMessage::ForwardRefused { id: number, why });
            } else {
                self.hold(id);
            }
        }
    }

    /// Hands a peer's command back: it was not run here.
    pub(crate) fn send_back(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(id) else {
            return;
        };
        if let Origin::Forwarded { peer, id } = job.origin {
            let why = ForwardRefusal::NotOwner;
            self.say(Some(&peer), PeerMessage::ForwardRefused { id, why });
        }
        self.accept_again(job.waiters);
    }

    /// A group is left: what waits goes back to its queue, for another instance.
    pub(crate) fn give_back_waiting(&mut self, group: usize) {
        for id in self.jobs.ids_where(Job::waits_unstarted) {
            let Some((command, _)) = self.job_command(id) else {
                continue;
            };
            if self.placement().group_of(&command) != group {
                continue;
            }
            self.leave_lane(id, &command);
            self.jobs.unhold(id);
            match self.jobs.get(id).map(|job| job.origin.clone()) {
                Some(Origin::Delivery(delivery)) => {
                    self.stage(id, Stage::Requeued);
                    self.out.push(BrokerCommand::Requeue(delivery));
                }
                Some(Origin::Forwarded { peer, id }) => {
                    let why = ForwardRefusal::NotOwner;
                    self.say(Some(&peer), PeerMessage::ForwardRefused { id, why });
                }
                _ => {}
            }
            self.give_up(id);
        }
    }

    /// A group that is stopped here, and that nobody leads: what arrived late waits in its queue.
    pub(crate) fn return_strays(&mut self) {
        for index in 0..self.groups.len() {
            let group = &self.groups[index];
            if group.role == Role::Disabled && self.placement().leader_of(&group.name).is_none() {
                self.give_back_waiting(index);
            }
        }
    }

    // ---- lost deliveries ----------------------------------------------------------------------

    /// A link is gone: its deliveries come again. What was not started is dropped here; what was
    /// started goes on, and the redelivery meets its outcome.
    pub(crate) fn drop_deliveries(&mut self, link: LinkEpoch) {
        let came = |job: &Job| matches!(&job.origin, Origin::Delivery(d) if d.link == link);
        let lost = self.jobs.ids_where(came);
        // Duplicates first, or they would take the place of what is dropped with them.
        let (waiting, others): (Vec<JobId>, Vec<JobId>) = lost.into_iter().partition(|id| {
            let job = self.jobs.get(*id);
            job.is_some_and(|job| matches!(job.state(), State::Duplicate))
        });
        for id in waiting.into_iter().chain(others) {
            self.orphan(id);
        }
    }

    /// The delivery of a job is gone with its link: the broker gives the command to somebody again.
    /// What has begun is finished without it, what has not is forgotten.
    pub(crate) fn orphan(&mut self, id: JobId) {
        self.stage(id, Stage::DeliveryLost);
        let Some(job) = self.jobs.get(id) else {
            return;
        };
        match job.state() {
            State::Doubting { .. } | State::Intending(_) => self.drop_unstarted(id),
            State::Running(_)
            | State::Connecting
            | State::Sharing(_)
            | State::Recording(_)
            | State::Concluding
            | State::Settling => self.jobs.orphan(id),
            State::Forwarded { to, .. } => {
                let to = to.clone();
                self.jobs.unhold(id);
                self.say(Some(&to), PeerMessage::ForwardWithdrawn { id: id.0 });
                self.give_up(id);
            }
            State::Arrived | State::Held { .. } => {
                self.jobs.unhold(id);
                self.give_up(id);
            }
            State::Queued => {
                if let Some((command, _)) = self.job_command(id) {
                    self.leave_lane(id, &command);
                }
                self.give_up(id);
            }
            State::Duplicate => {
                self.jobs.wait_no_longer(id);
                self.jobs.remove(id);
            }
        }
    }

    /// Forgets a job that was never started; those that waited for it take its place.
    pub(crate) fn give_up(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(id) else {
            return;
        };
        if let Some((key, _)) = job.key {
            self.ledger.forget(&key);
        }
        self.accept_again(job.waiters);
    }

    /// Commands that wait behind a closed door (no service, a drain) still meet their deadline.
    pub(crate) fn expire_waiting(&mut self) {
        let wall = self.now.wall;
        let late: Vec<JobId> = self
            .jobs
            .lanes
            .queued()
            .map(|(_, id)| id)
            .filter(|id| {
                self.jobs
                    .get(*id)
                    .and_then(|job| job.command.as_ref())
                    .is_some_and(|command| command.deadline_ms <= wall)
            })
            .collect();
        for id in late {
            if let Some((command, _)) = self.job_command(id) {
                self.leave_lane(id, &command);
                if !self.answered_elsewhere(id) {
                    self.expire(id, &command);
                }
            }
        }
        if self.jobs.held_count() > 0 {
            self.release_held();
        }
    }
}
