//! Links to brokers as they come and go, and what that means for everything else.

use crate::api::command::{BrokerCommand, LifeCommand};
use crate::api::ids::{BootId, LinkEpoch};
use crate::api::way::Way;
use crate::brokers::fitness::Pass;
use crate::brokers::link::LinkStep;
use crate::model::brokers::one_cluster;
use crate::peer::Heartbeat;
use crate::state::timer::Timer;
use crate::{Engine, Event, limits, peer};

/// Another process under the own id.
#[derive(Debug)]
pub(crate) struct Twin {
    boot: BootId,
    /// Greatest heartbeat number heard.
    seq: u64,
    /// First heard, monotonic milliseconds.
    since: u64,
    /// Last heard.
    heard: u64,
    beats: u32,
}

/// A link that is being left.
#[derive(Debug)]
struct Left {
    link: LinkEpoch,
    /// Monotonic milliseconds.
    since: u64,
    /// Groups whose commands are consumed on it until the new link gives them.
    groups: Vec<usize>,
}

/// How this instance is attached to the brokers.
#[derive(Debug, Default)]
pub(crate) struct Attachment {
    /// The link on which the own control queue is consumed.
    control_on: Option<LinkEpoch>,
    /// Links that are left as soon as their deliveries are settled.
    leaving: Vec<Left>,
    /// The broker that served last.
    last_broker: Option<usize>,
    /// Since when no peer can be heard: the own control queue is not consumed.
    deaf_since: Option<u64>,
    /// When the control queue was consumed first.
    joined_at: Option<u64>,
    /// Whether expired commands are answered. Not before what the others know is known here: one
    /// that they carried out would be said to have expired.
    answers_expired: bool,
    /// An earlier process under the own id that is heard.
    twin: Option<Twin>,
}

impl Attachment {
    /// The link on which the own control queue is consumed.
    pub(crate) fn control(&self) -> Option<LinkEpoch> {
        self.control_on
    }

    /// Whether peers can be heard.
    pub(crate) fn hears(&self) -> bool {
        self.control_on.is_some()
    }

    /// Since when this instance listens, monotonic milliseconds.
    pub(crate) fn joined_at(&self) -> Option<u64> {
        self.joined_at
    }

    /// This process was away: a newcomer has not listened meanwhile.
    pub(crate) fn forgive(&mut self, late: u64, now: u64) {
        self.joined_at = self.joined_at.map(|at| (at + late).min(now));
    }
}

impl Engine {
    // ---- links --------------------------------------------------------------------------------

    pub(crate) fn look_at_links(&mut self) {
        if self.links.active_broker().is_none() {
            // Nothing serves: what is left of a former link is not waited for.
            self.close_left(u64::MAX);
        }
        for step in self.links.steps(self.now) {
            match step {
                LinkStep::Dial { link, broker } => {
                    self.out.push(BrokerCommand::Dial { link, broker });
                }
                LinkStep::Activate {
                    link,
                    broker,
                    leave,
                } => self.activate(link, broker, leave),
                LinkStep::Prove { link, way } => self.find_out(link, way),
            }
        }
        self.tell_ways();
        let left = self.attached.leaving.iter();
        let left = left.map(|left| left.since + limits::LEAVING_MS).min();
        match self.links.next_at(self.now).into_iter().chain(left).min() {
            Some(at) => self.timers.set(Timer::Links, at),
            None => self.timers.stop(&Timer::Links),
        }
    }

    /// Another link serves from now on. The control queue is attached there first; the one that is
    /// left goes on giving commands until the new one does.
    pub(crate) fn activate(&mut self, link: LinkEpoch, broker: usize, leave: Option<LinkEpoch>) {
        let leaving = std::mem::take(&mut self.attached.leaving);
        let (again, leaving): (Vec<_>, Vec<_>) =
            leaving.into_iter().partition(|left| left.link == link);
        self.attached.leaving = leaving;
        let former = self.attached.last_broker.replace(broker);
        if let Some(former) = former.filter(|former| *former != broker) {
            self.out.tell(Event::BrokerFailover {
                from: self.links.label(former).to_owned(),
                to: self.links.label(broker).to_owned(),
            });
        }
        if let Some(old) = leave {
            self.attached.leaving.push(Left {
                link: old,
                since: self.now.mono,
                groups: (0..self.groups.len()).collect(),
            });
            if former.is_some_and(|former| self.links.lacks_vital(former)) {
                (0..self.groups.len()).for_each(|group| self.stop_left(group));
                // Its broker may never answer.
                self.outbox.take_back(old);
            }
        }
        self.outbox.release();
        self.out.push(BrokerCommand::AttachControl { link });
        self.groups.forget_consumers();
        // On one that was being left and is taken again they are still there.
        for group in again.iter().flat_map(|left| &left.groups) {
            self.groups.note_former(*group);
        }
        self.refresh_consumers();
    }

    pub(crate) fn on_link_up(&mut self, link: LinkEpoch, node: String, cluster: String) {
        let known = self.links.one_cluster().is_some();
        if !self.links.on_up(self.now, link, node, cluster) {
            self.stale("link");
            self.out.push(BrokerCommand::CloseLink { link });
            return;
        }
        self.tell_link(link, true, String::new());
        if let Some((one, other, name)) = self.links.one_cluster().filter(|_| !known) {
            let problem = one_cluster(one, other, name);
            self.out.tell(Event::OneCluster { problem });
        }
        if self.attached.answers_expired {
            self.out.push(BrokerCommand::ConsumeExpired { link });
        }
        self.timers.set_by(Timer::Evidence, self.now.mono);
    }

    /// Once it has joined, on all links: what expires on the spare one's broker may be nobody
    /// else's to answer.
    pub(crate) fn answer_expired_from_now(&mut self) {
        if self.attached.answers_expired || !self.may_leave_joining() {
            return;
        }
        self.attached.answers_expired = true;
        for (link, _) in self.links.ups() {
            self.out.push(BrokerCommand::ConsumeExpired { link });
        }
    }

    pub(crate) fn on_link_down(&mut self, link: LinkEpoch, reason: String) {
        self.attached.leaving.retain(|left| left.link != link);
        let label = self.links.broker_of(link);
        let Some((_, serving)) = self.links.on_down(self.now, link) else {
            self.stale("link");
            return;
        };
        if let Some(broker) = label {
            self.note_link_lost(broker);
            self.links.note_reason(broker, reason.clone());
            self.out.tell(Event::BrokerLink {
                broker: self.links.label(broker).to_owned(),
                up: false,
                reason,
            });
        }
        self.deaf_on(link);
        self.members.on_link_down(link);
        self.outbox.on_link_down(link);
        self.drop_deliveries(link);
        if serving {
            self.groups.forget_consumers();
        }
    }

    pub(crate) fn on_control_attached(&mut self, link: LinkEpoch) {
        if self.links.active() != Some(link) {
            self.stale("control");
            return;
        }
        self.attached.control_on = Some(link);
        self.way_works(link, Way::ControlQueue);
        if let Some(since) = self.attached.deaf_since.take() {
            let deaf = self.now.mono.saturating_sub(since);
            self.members.forgive(deaf, self.now.mono);
        }
        self.journal_heard_again();
        self.back_in_sight();
        if self.cluster.pause.is_open() {
            self.fence_until_heard(self.now.mono);
        }
        if self.attached.joined_at.is_none() {
            self.attached.joined_at = Some(self.now.mono);
            self.cluster.replication.asked(self.now.mono);
            self.timers
                .set_by(Timer::Members, self.now.mono + self.cfg.peers.suspect);
            self.say(None, peer::PeerMessage::Hello);
        }
        self.beat();
        self.refresh_consumers();
    }

    /// A newcomer refuses to start under an id that lives already. One that has served before
    /// (a pause, a broker that was slow to notice) only loses its link and tries again.
    pub(crate) fn on_id_in_use(&mut self, link: LinkEpoch) {
        if self.attached.joined_at.is_some() || self.links.active() != Some(link) {
            return;
        }
        self.refuse_id();
    }

    /// A heartbeat under the own id. An earlier life's last ones may still be on their way; from a
    /// process that lives they go on. It was there first: this one ends. The exclusive consumer
    /// shows it sooner, but only where both are attached to one broker.
    pub(crate) fn on_twin(&mut self, boot: BootId, heartbeat: &Heartbeat) {
        let now = self.now.mono;
        // Who has said more has lived longer; a clock may have been wrong when a process started.
        let (theirs, ours) = (heartbeat.seq, self.cluster.replication.seq());
        let first = match theirs.abs_diff(ours) > limits::TWIN_APART {
            true => theirs > ours,
            false => (heartbeat.started, boot) < (self.cfg.started, self.cfg.boot),
        };
        if boot == self.cfg.boot || !first {
            return;
        }
        let known = self.attached.twin.take().filter(|twin| twin.boot == boot);
        let mut twin = known.unwrap_or(Twin {
            boot,
            seq: 0,
            since: now,
            heard: now,
            beats: 0,
        });
        if heartbeat.seq > twin.seq {
            twin.seq = heartbeat.seq;
            twin.heard = now;
            twin.beats += 1;
        }
        let lives = twin.beats >= limits::TWIN_BEATS && now >= twin.since + limits::TWIN_MS;
        self.attached.twin = Some(twin);
        if lives {
            self.refuse_id();
        }
    }

    /// Whether another process under the own id was heard lately.
    pub(crate) fn has_twin(&self) -> bool {
        let heard = self.attached.twin.as_ref().map(|twin| twin.heard);
        heard.is_some_and(|heard| self.now.mono < heard + limits::TWIN_MS)
    }

    fn refuse_id(&mut self) {
        self.ending.exited();
        self.out.push(LifeCommand::Refuse(format!(
            "another process runs under the instance id {}; give every instance its own \
             instance.id, or stop the other one",
            self.cfg.instance
        )));
    }

    pub(crate) fn on_link_blocked(&mut self, link: LinkEpoch, blocked: bool) {
        if let Some(broker) = self.links.on_blocked(self.now, link, blocked) {
            self.outbox.release();
            self.out.tell(Event::BrokerBlocked {
                broker: self.links.label(broker).to_owned(),
                blocked,
            });
        }
    }

    /// A link is gone: where the control queue was consumed on it, no peer is heard any more.
    pub(crate) fn deaf_on(&mut self, link: LinkEpoch) {
        if self.attached.control_on == Some(link) {
            self.attached.control_on = None;
            self.attached.deaf_since = Some(self.now.mono);
        }
    }

    pub(crate) fn tell_link(&mut self, link: LinkEpoch, up: bool, reason: String) {
        if let Some(broker) = self.links.broker_of(link) {
            self.out.tell(Event::BrokerLink {
                broker: self.links.label(broker).to_owned(),
                up,
                reason,
            });
        }
    }

    /// Closes links that were left, once nothing delivered on them is unsettled, or after a while;
    /// at once where nothing can be settled on the serving broker and that one takes answers again.
    /// The broker is dialled again as the spare.
    pub(crate) fn leave_links(&mut self) {
        self.close_left(self.now.mono);
    }

    /// A group's commands are not consumed any more on links that are being left.
    pub(crate) fn stop_left(&mut self, group: usize) {
        for left in &mut self.attached.leaving {
            let before = left.groups.len();
            left.groups.retain(|consumed| *consumed != group);
            if left.groups.len() < before {
                let link = left.link;
                self.out.push(BrokerCommand::StopConsuming { link, group });
            }
        }
    }

    /// Whether a link that is being left has nothing to do any more. Where peers look for this
    /// instance there is a consumer of its control queue at any time, or they would take it for
    /// gone: so the new link has one first, unless its broker gives none.
    fn has_settled(&self, left: &Left) -> bool {
        let active = self.links.active_broker();
        let way = Way::ControlQueue;
        let refused = active.is_some_and(|broker| self.links.pass(broker, way) != Pass::Open);
        let heard = self.attached.control_on != Some(left.link) || refused;
        heard && left.groups.is_empty() && !self.jobs.any_on(left.link)
    }

    /// Closes those that are settled, or whose time is over at `now`.
    fn close_left(&mut self, now: u64) {
        let over = |left: &Left| left.since.saturating_add(limits::LEAVING_MS) <= now;
        let left = self.attached.leaving.iter();
        let done = left.filter(|left| {
            over(left) || self.has_settled(left) || self.links.is_way_out(left.link)
        });
        let done: Vec<LinkEpoch> = done.map(|left| left.link).collect();
        for link in done {
            self.attached.leaving.retain(|left| left.link != link);
            self.out.push(BrokerCommand::CloseLink { link });
            self.deaf_on(link);
            self.members.on_link_down(link);
            self.outbox.on_link_down(link);
            self.drop_deliveries(link);
            self.links.on_closed(self.now, link);
        }
    }
}
