//! How this instance consumes: consumers that fit role and broker.

use crate::model::InstanceId;

use crate::api::command::BrokerCommand;
use crate::api::ids::LinkEpoch;
use crate::api::way::Way;
use crate::brokers::fitness::Pass;
use crate::cluster::members::Liveness;
use crate::leadership::groups::Consumer;
use crate::peer::Role;
use crate::state::timer::Timer;
use crate::{Engine, Event, limits};

impl Engine {
    // ---- consumers ----------------------------------------------------------------------------

    /// Registers, moves or cancels the command consumers so that they fit role and broker.
    pub(crate) fn refresh_consumers(&mut self) {
        let Some(link) = self.links.active() else {
            return;
        };
        // A second process of the same id must not consume: the first attachment waits for the
        // control queue, which only one can have.
        if self.attached.joined_at().is_none() {
            return;
        }
        // Where a consumer was refused, asking again may cost the link: a proof comes first.
        let may_ask = self
            .links
            .active_broker()
            .is_some_and(|broker| self.links.pass(broker, Way::Commands) == Pass::Open);
        for index in 0..self.groups.len() {
            let wanted = self.wanted_priority(index);
            let group = &self.groups[index];
            match (wanted, &group.consumer) {
                (None, _) => {
                    if self.groups.stop_consumer(index) {
                        let group = index;
                        self.out.push(BrokerCommand::StopConsuming { link, group });
                    }
                    self.stop_left(index);
                }
                (Some(priority), consumer) => {
                    let marker = format!(
                        "{}.{}.{}.",
                        self.cfg.instance,
                        group.name,
                        group.role.as_str()
                    );
                    let fits = consumer.as_ref().is_some_and(|consumer| {
                        consumer.link == link
                            && consumer.priority == priority
                            && consumer.tag.starts_with(&marker)
                    });
                    let changed = consumer.is_some();
                    if !fits && changed {
                        // What is consumed on a link that is being left does not fit either.
                        self.stop_left(index);
                    }
                    if !fits && may_ask {
                        self.register(index, link, priority, &marker);
                    }
                }
            }
        }
    }

    pub(crate) fn register(&mut self, index: usize, link: LinkEpoch, priority: i32, marker: &str) {
        let now = self.now.mono;
        let tag = (self.groups).ask_consumer(index, (link, priority), marker, now);
        let patience = self.now.mono + limits::CONSUMER_PATIENCE_MS;
        self.timers.set_by(Timer::Consumers, patience);
        self.out.push(BrokerCommand::Consume {
            link,
            group: index,
            priority,
            tag,
        });
    }

    /// The priority to consume with; `None`: not to consume.
    pub(crate) fn wanted_priority(&self, index: usize) -> Option<i32> {
        let group = &self.groups[index];
        let closing = group.leaving.is_some_and(|leaving| leaving.closing);
        if closing
            || self.cluster.pause.stands_aside()
            || !self.route.available()
            || self.links.mute()
        {
            return None;
        }
        let own = i32::from(self.cfg.priority_of(index));
        match group.role {
            Role::Joining | Role::Disabled => None,
            _ if self.stands_back() => Some(self.cfg.brokers.stands_back),
            Role::Leader | Role::LeaderSingleNode | Role::Draining => {
                Some(own.max(self.above_the_silent(&group.name)))
            }
            Role::Follower => {
                let leader = self
                    .members
                    .present()
                    .find(|(_, peer)| peer.leads(&group.name));
                match leader {
                    Some((_, peer)) if self.on_my_broker(peer) => {
                        let theirs = peer.group(&group.name).map_or(0, |g| i32::from(g.priority));
                        match peer.liveness {
                            // It may be frozen, and would be given all new commands. They are held
                            // here until it is heard again or lost.
                            Liveness::Suspect => Some(theirs + 1),
                            _ => Some(own.min(theirs - 1)),
                        }
                    }
                    Some(_) => Some(self.cfg.brokers.far_follower),
                    None => Some(own),
                }
            }
        }
    }

    /// Above every lost peer that has a consumer on our broker still: the priority of a frozen
    /// process goes on to count there. 0 where there is none.
    fn above_the_silent(&self, name: &str) -> i32 {
        self.members
            .iter()
            .filter(|(_, peer)| peer.liveness == Liveness::Lost && peer.lingers())
            .filter(|(_, peer)| self.on_my_broker(peer))
            .filter_map(|(_, peer)| peer.group(name))
            .map(|group| i32::from(group.priority) + 1)
            .max()
            .unwrap_or(0)
    }

    /// A peer is silent: where that is wanted, its connections are closed at every broker that we
    /// reach, so that what it was given goes to another at once.
    pub(crate) fn fence(&mut self, peer: InstanceId) {
        let leads = self.groups.iter().any(|group| {
            self.members
                .get(&peer)
                .is_some_and(|p| p.leads(&group.name))
        });
        // Who was away itself must not judge.
        if !self.cfg.fence || !leads || self.cluster.pause.is_open() || !self.attached.hears() {
            return;
        }
        let brokers: Vec<usize> = self.links.ups().map(|(_, broker)| broker).collect();
        for broker in brokers {
            self.out.push(BrokerCommand::Fence {
                broker,
                peer: peer.clone(),
            });
        }
    }

    pub(crate) fn on_fenced(
        &mut self,
        broker: usize,
        peer: InstanceId,
        closed: Result<u32, String>,
    ) {
        let broker = self.links.label(broker).to_owned();
        self.out.tell(Event::Fenced {
            peer,
            broker,
            closed,
        });
        // Its consumers are gone now: that is counted sooner.
        self.timers.set_by(Timer::Evidence, self.now.mono);
    }

    /// Whether a peer is attached to the broker that serves us: by its consumer there, else by
    /// the label it reports.
    pub(crate) fn on_my_broker(&self, peer: &crate::cluster::members::Peer) -> bool {
        let active = self.links.active();
        match peer.attached_on() {
            Some(link) => Some(link) == active,
            None => self
                .links
                .active_broker()
                .is_some_and(|broker| self.links.label(broker) == peer.heartbeat.broker),
        }
    }

    pub(crate) fn on_consuming(&mut self, link: LinkEpoch, group: usize, tag: &str) {
        if self.groups.confirm_consumer(group, link, tag) {
            self.consumes_now();
            self.stop_left(group);
            self.way_works(link, Way::Commands);
        } else {
            self.stale("consumer");
        }
    }

    /// A broker that does not give a consumer in its time is left for one that does. Here it is
    /// waited for still.
    pub(crate) fn consumers_due(&mut self) {
        let asked = |consumer: &Consumer| (consumer.asked_at, consumer.link);
        let open = self.groups.iter().filter_map(|group| {
            let consumer = group.consumer.as_ref().filter(|c| !c.confirmed);
            consumer.map(asked)
        });
        let Some((asked_at, link)) = open.min() else {
            return;
        };
        let due = asked_at + limits::CONSUMER_PATIENCE_MS;
        if self.now.mono < due {
            self.timers.set_by(Timer::Consumers, due);
            return;
        }
        let seconds = limits::CONSUMER_PATIENCE_MS / 1_000;
        let reason = format!("no answer within {seconds} s");
        self.way_lost(link, Way::Commands, &reason);
    }

    /// The shell still has the former consumer and cancels it once the new one stands, so that
    /// what it was given stays valid.
    pub(crate) fn on_consumer_unlisted(&mut self, tag: &str, reason: String) {
        let known = self.groups.iter().enumerate().find_map(|(index, group)| {
            let consumer = group.consumer.as_ref()?;
            (consumer.tag == tag && consumer.confirmed).then_some((index, consumer.link))
        });
        match known {
            Some((group, link)) => self.on_consumer_lost(link, group, tag, reason),
            None => self.stale("consumer"),
        }
    }

    pub(crate) fn on_consumer_lost(
        &mut self,
        link: LinkEpoch,
        group: usize,
        tag: &str,
        reason: String,
    ) {
        let Some(name) = self.groups.get(group).map(|group| group.name.clone()) else {
            return;
        };
        if !self.groups.lose_consumer(group, link, tag) {
            self.stale("consumer");
            return;
        }
        // It is asked for again when a proof has passed.
        self.on_barred(link, Way::Commands, &reason);
        self.out.tell(Event::ConsumerLost {
            group: name,
            reason,
        });
    }
}
