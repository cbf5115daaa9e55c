//! Ways through a broker that are refused, and what follows: proofs, another broker, words.

use crate::api::command::BrokerCommand;
use crate::api::ids::LinkEpoch;
use crate::api::way::{Proof, Way, Weight};
use crate::brokers::fitness::Pass;
use crate::{Engine, Event};

impl Engine {
    // ---- ways through brokers -----------------------------------------------------------------

    /// Something sent on a way was refused: whether that holds is found out.
    pub(crate) fn on_barred(&mut self, link: LinkEpoch, way: Way, reason: &str) {
        let now = self.now.mono;
        match self.links.fitness(link) {
            Some(fitness) => fitness.refused(now, way, reason),
            None => return self.stale("refusal"),
        }
        if way == Way::ControlQueue {
            self.deaf_on(link);
        }
        self.outbox.release();
    }

    pub(crate) fn on_proved(&mut self, link: LinkEpoch, way: Way, proof: &Proof) {
        if !self.links.on_proved(self.now, link, way, proof) {
            self.stale("proof");
            return;
        }
        self.outbox.release();
        if *proof != Proof::Passed || self.links.active() != Some(link) {
            return;
        }
        match way {
            Way::Commands => self.refresh_consumers(),
            Way::ControlQueue if self.attached.control() != Some(link) => {
                self.out.push(BrokerCommand::AttachControl { link });
            }
            _ => {}
        }
    }

    /// A way was used, and works.
    pub(crate) fn way_works(&mut self, link: LinkEpoch, way: Way) {
        let now = self.now.mono;
        if let Some(fitness) = self.links.fitness(link) {
            fitness.works(now, way);
        }
    }

    /// A way cannot be had, for sure.
    pub(crate) fn way_lost(&mut self, link: LinkEpoch, way: Way, reason: &str) {
        let now = self.now.mono;
        if let Some(fitness) = self.links.fitness(link) {
            fitness.lose(now, way, reason);
        }
    }

    /// A proof: trying it again, where that harms nothing.
    pub(crate) fn find_out(&mut self, link: LinkEpoch, way: Way) {
        self.out.push(match way {
            Way::Expired => BrokerCommand::ConsumeExpired { link },
            Way::DeadLetters => BrokerCommand::DeclareDeadLetters { link },
            _ => BrokerCommand::Prove { link, way },
        });
    }

    /// Tells what was lost or works again, and does what follows for commands and roles.
    pub(crate) fn tell_ways(&mut self) {
        let changes = self.links.take_changes();
        if changes.is_empty() {
            return;
        }
        for (broker, change) in changes {
            if change.lost.is_some() && change.way.weight() == Weight::Vital {
                self.take_back_from(broker);
            }
            self.out.tell(Event::BrokerWay {
                broker: self.links.label(broker).to_owned(),
                way: change.way.as_str(),
                lost: change.lost.map(|reason| (change.way.words(), reason)),
            });
        }
        self.outbox.release();
        self.look_at_roles("broker");
        self.refresh_consumers();
        self.beat();
    }

    /// What was handed to a broker that does not serve waits for its answer no longer.
    fn take_back_from(&mut self, broker: usize) {
        if self.links.active_broker() == Some(broker) {
            return;
        }
        let mut ups = self.links.ups();
        let link = ups.find(|(_, at)| *at == broker).map(|(link, _)| link);
        drop(ups);
        if let Some(link) = link {
            self.outbox.take_back(link);
        }
    }

    /// Whether messages to the peers may be sent on a link: they are for the moment, and neither
    /// wait for an alarm to end nor for a right to come back.
    pub(crate) fn carries_peers(&self, link: LinkEpoch) -> bool {
        let broker = self.links.broker_of(link);
        broker.is_none_or(|broker| self.links.pass(broker, Way::Peers) == Pass::Open)
    }

    /// A sentence for each broker that lacks something.
    pub(crate) fn words_of_ways(&self) -> Vec<String> {
        let brokers = 0..self.links.len();
        let sentence = |broker: usize| {
            let problem = self.links.problem(broker);
            let (label, weight) = (self.links.label(broker), self.links.weight(broker));
            let serves = self.links.active_broker() == Some(broker);
            let up = self.links.ups().any(|(_, up)| up == broker);
            (up && !problem.is_empty()).then(|| match (serves, weight) {
                (true, Weight::Vital) if self.links.mute() => format!(
                    "broker {label}: {problem}; there is no other one: commands are not consumed \
                     until that is mended"
                ),
                (true, Weight::Vital | Weight::Grave) => {
                    format!("broker {label}: {problem}; there is no better one")
                }
                (false, Weight::Vital | Weight::Grave) => {
                    format!("broker {label} is not used: {problem}")
                }
                (_, Weight::Minor) => format!("broker {label}: {problem}"),
            })
        };
        brokers.filter_map(sentence).collect()
    }
}
