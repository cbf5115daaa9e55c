//! What goes wrong, carried out.

use tandem_engine::Input;
use tandem_engine::ids::LinkEpoch;
use tandem_engine::input::Verb;

use crate::broker::Conn;
use crate::extra::Service;
use crate::instance::{OTHER, START, name_of};
use crate::plan::{ASKED_AGAIN_MS, Fault, Kind, Trouble};
use crate::world::{Ev, World};

const GROUP: &str = "agents";

impl World {
    pub fn begin(&mut self, fault: &Fault) {
        self.trace.say(self.now, || format!("BEGIN {fault:?}"));
        match fault.kind {
            Kind::Crash { node } => self.crash(node),
            Kind::CrashAt {
                node,
                point,
                before,
            } => self.nodes[node].trap = Some((point, before)),
            Kind::CrashAll => (0..self.nodes.len()).for_each(|node| self.crash(node)),
            Kind::Shutdown { node } => {
                self.nodes[node].up_again = fault.at + fault.millis;
                let boot = self.nodes[node].boot;
                self.input(node, boot, Input::Shutdown);
            }
            Kind::Pause { node } => self.freeze(node, fault.millis),
            Kind::BrokerKill { broker } => {
                self.net.tear();
                for (node, boot, link) in self.brokers[broker].kill() {
                    self.after(5, Ev::LinkDies(node, boot, link));
                }
            }
            Kind::LinksLost { node, broker } => {
                for conn in self.conns_of(node, broker) {
                    self.brokers[broker].drop_conn(conn);
                    self.after(2, Ev::LinkDies(conn.0, conn.1, conn.2));
                }
            }
            Kind::Cut => self.cut(),
            Kind::OneWay { from } => {
                self.net.one_way[from] = true;
                self.net.tear();
            }
            Kind::Lossy => self.net.lossy = true,
            Kind::Slow => self.net.slow = true,
            Kind::Downstream { node, trouble } => self.disturb(node, Some(trouble)),
            Kind::Part {
                node,
                target,
                service,
                trouble,
            } => self.disturb_part(node, (target, service), Some(trouble)),
            Kind::Disk { node } => self.nodes[node].disk.fails = true,
            Kind::DiskHangs { node } => self.nodes[node].disk.hangs = true,
            Kind::GroupStop { node } => self.order(node, OTHER, Verb::GroupStop(GROUP.into())),
            Kind::FailoverStop { node } => {
                self.order(node, OTHER, Verb::FailoverStop(GROUP.into()))
            }
            Kind::Grey { broker, way } => {
                self.brokers[broker].refuses.insert(way);
            }
            Kind::Switchover { to } => {
                let asked = self.rng.index(self.nodes.len());
                self.order(asked, OTHER, Verb::Switchover(name_of(to).to_string()));
            }
        }
    }

    pub fn end(&mut self, fault: &Fault) {
        self.trace.say(self.now, || format!("END {fault:?}"));
        match fault.kind {
            Kind::Crash { node } => self.start(node),
            Kind::CrashAt { node, .. } => {
                self.nodes[node].trap = None;
                self.start(node);
            }
            Kind::CrashAll => (0..self.nodes.len()).for_each(|node| self.start(node)),
            Kind::Shutdown { .. } | Kind::LinksLost { .. } => {}
            Kind::Pause { node } => self.thaw(node),
            Kind::BrokerKill { broker } => {
                self.brokers[broker].up = true;
                self.net.mend(self.now);
            }
            Kind::Cut => {
                self.net.cut = false;
                self.net.mend(self.now);
            }
            Kind::OneWay { from } => {
                self.net.one_way[from] = false;
                self.net.mend(self.now);
            }
            Kind::Lossy => self.net.lossy = false,
            Kind::Slow => self.net.slow = false,
            Kind::Downstream { node, .. } => self.disturb(node, None),
            Kind::Part {
                node,
                target,
                service,
                ..
            } => self.disturb_part(node, (target, service), None),
            Kind::Disk { node } => self.nodes[node].disk.fails = false,
            Kind::DiskHangs { node } => self.nodes[node].disk.hangs = false,
            Kind::GroupStop { node } => self.want_group(node, false),
            Kind::FailoverStop { node } => self.want_group(node, true),
            Kind::Grey { broker, way } => {
                self.brokers[broker].refuses.remove(&way);
            }
            Kind::Switchover { .. } => {}
        }
    }

    fn want_group(&mut self, node: usize, failover: bool) {
        self.nodes[node].to_start = true;
        self.start_group(node, failover);
    }

    /// An operator tries until an instance says that it is done.
    pub fn start_group(&mut self, node: usize, failover: bool) {
        if !self.nodes[node].to_start {
            return;
        }
        self.after(ASKED_AGAIN_MS, Ev::StartGroup(node, failover));
        let verb = if failover {
            Verb::FailoverStart
        } else {
            Verb::GroupStart
        };
        if self.nodes[node].engine.is_some() && !self.nodes[node].frozen {
            self.order(node, START, verb(GROUP.into()));
        }
    }

    fn conns_of(&self, node: usize, broker: usize) -> Vec<Conn> {
        let conns = self.brokers[broker].conns.iter().copied();
        conns.filter(|conn| conn.0 == node).collect()
    }

    /// F4: the broker's heartbeat check finds a frozen client later.
    fn freeze(&mut self, node: usize, millis: u64) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        self.nodes[node].frozen = true;
        let boot = self.nodes[node].boot;
        let found = 4_200 + self.rng.below(1_500);
        if millis <= found {
            return;
        }
        let links: Vec<_> = self.nodes[node].links.clone().into_iter().collect();
        for (link, broker) in links {
            self.after(found, Ev::BrokerDrops(broker, (node, boot, link)));
            let reason = "missed heartbeats".to_owned();
            self.input_after(found, node, boot, Input::LinkDown { link, reason });
        }
    }

    /// Connections across the cut are broken; both ends find out on their own.
    fn cut(&mut self) {
        self.net.cut = true;
        self.net.tear();
        for node in 0..self.nodes.len() {
            let far = 1 - node % 2;
            let boot = self.nodes[node].boot;
            let links: Vec<LinkEpoch> = self.nodes[node]
                .links
                .iter()
                .filter(|(_, broker)| **broker == far)
                .map(|(link, _)| *link)
                .collect();
            for link in links {
                self.broken.insert((node, boot, link));
                let found = 2_000 + self.rng.below(2_000);
                self.after(found, Ev::LinkDies(node, boot, link));
                let found = 4_000 + self.rng.below(1_500);
                self.after(found, Ev::BrokerDrops(far, (node, boot, link)));
            }
        }
    }

    fn disturb(&mut self, node: Option<usize>, trouble: Option<Trouble>) {
        for index in 0..self.nodes.len() {
            if node.is_some_and(|node| node != index) {
                continue;
            }
            self.trouble[index] = [[trouble; 2]; 2];
            if matches!(trouble, Some(Trouble::Down | Trouble::OutOfService)) {
                (0..2).for_each(|target| self.lose_subscriptions(index, target));
            }
        }
    }

    fn disturb_part(
        &mut self,
        node: Option<usize>,
        (target, service): (usize, Service),
        trouble: Option<Trouble>,
    ) {
        for index in 0..self.nodes.len() {
            if node.is_some_and(|node| node != index) {
                continue;
            }
            self.trouble[index][target][service as usize] = trouble;
            if (service, trouble) == (Service::Notifications, Some(Trouble::Down)) {
                self.lose_subscriptions(index, target);
            }
        }
    }
}
