//! The downstream as a whole: health, the node in use, service and its absence.

use crate::model::{CallOutcome, Cause, Destination, NodeHealth};
use crate::wire::event::{ClientEvent, SystemStatus};

use crate::api::command::DownstreamCommand;
use crate::downstream::route::RouteChange;
use crate::state::timer::Timer;
use crate::{Engine, Event};

impl Engine {
    pub(crate) fn probe(&mut self, node: usize) {
        self.out.push(DownstreamCommand::Probe { node });
        // Set again by the answer; this is the net under it.
        let next = self.now.mono + self.cfg.probe_interval + self.cfg.request_timeout;
        self.timers.set(Timer::Probe(node), next);
    }

    pub(crate) fn on_probed(&mut self, node: usize, health: NodeHealth) {
        if let NodeHealth::NoRoom(shortage) = health {
            self.short(shortage);
            let next = self.now.mono + self.cfg.probe_interval.min(1_000);
            self.timers.set(Timer::Probe(node), next);
            return;
        }
        self.forget_application(node);
        let knew_domain = self.route.domain(node).is_some();
        let (changes, again) = self.route.on_probe(self.now, node, health);
        let wait = if again { 200 } else { self.cfg.probe_interval };
        self.timers.set(Timer::Probe(node), self.now.mono + wait);
        self.apply_route(changes);
        if !knew_domain && self.route.domain(node).is_some() {
            self.domain_learned();
        }
    }

    /// A request told something about its node.
    pub(crate) fn learn_of_node(&mut self, node: usize, outcome: &CallOutcome) {
        let reason = match outcome {
            CallOutcome::NotSent { reason, .. } | CallOutcome::OutOfService { reason } => reason,
            // A shortage here says nothing about a node.
            CallOutcome::NoRoom(_)
            | CallOutcome::Withheld
            | CallOutcome::Done { .. }
            | CallOutcome::Refused { .. }
            | CallOutcome::Unknown { .. }
            | CallOutcome::Unsettled { .. } => return,
        };
        let changes = self.route.on_failure(self.now, node, reason.clone());
        if !changes.is_empty() {
            self.timers.set_by(
                Timer::Probe(node),
                self.now.mono + self.cfg.probe_interval.min(1_000),
            );
        }
        self.apply_route(changes);
    }

    pub(crate) fn apply_route(&mut self, changes: Vec<RouteChange>) {
        for change in changes {
            match change {
                RouteChange::Node { node, up, reason } => {
                    let node = self.route.host(node).to_owned();
                    self.out.tell(Event::DownstreamState { node, up, reason });
                }
                RouteChange::Moved { from, to } => {
                    self.out.tell(Event::DownstreamFailover {
                        from: self.route.host(from).to_owned(),
                        to: self.route.host(to).to_owned(),
                    });
                    self.move_subscriptions();
                }
                RouteChange::Service(available) => self.service_changed(available),
            }
        }
    }

    /// Both nodes are gone, or one is back: clients are told, consuming stops or goes on.
    fn service_changed(&mut self, available: bool) {
        self.out.tell(Event::Service { available });
        self.beat();
        self.look_at_roles("downstream");
        if self.placement().leads_any() || self.members.present().next().is_none() {
            self.tell_everyone();
        }
        self.refresh_consumers();
        if available {
            self.read_everyone();
            self.advance_all();
        }
    }

    pub(crate) fn tell_everyone(&mut self) {
        let status = self.system_status();
        let mut everyone: Vec<Destination> = self.sessions.destinations().cloned().collect();
        everyone.extend(
            self.sessions
                .iter()
                .filter(|session| session.live())
                .map(|session| session.record.destination.clone()),
        );
        everyone.sort();
        everyone.dedup();
        for destination in everyone {
            self.tell(
                &destination,
                ClientEvent::System(status),
                Cause::default(),
                self.keeping.epoch(),
                None,
            );
        }
    }

    pub(crate) fn system_status(&self) -> SystemStatus {
        if self.route.available() {
            SystemStatus::InService
        } else {
            SystemStatus::OutOfService
        }
    }
}
