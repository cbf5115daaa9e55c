//! What the shells of an instance would do, on the model's brokers and downstream.

use tandem_engine::Input;
use tandem_engine::command::{
    BrokerCommand, Command, DownstreamCommand, LifeCommand, NotifyCommand, Outbound, ReplyRoute,
    StoreCommand,
};
use tandem_engine::ids::{DeliveryId, LinkEpoch, PublishId};
use tandem_engine::input::{Delivery, PublishOutcome, Source};
use tandem_engine::way::{Proof, Way};
use tandem_wire::command::parse;

use crate::broker::{Conn, Consumer, Queue, Waiting};
use crate::instance::name_of;
use crate::plan::Point;
use crate::world::{Ev, World};

/// How often a newcomer tries to attach while its control queue is in use, and for how long.
const ATTACH_AGAIN_MS: u64 = 500;
const ATTACH_TRIES: u32 = 10;

impl World {
    /// The broker of a link that both sides still hold.
    pub fn live(&self, node: usize, link: LinkEpoch) -> Option<(usize, Conn)> {
        let conn = (node, self.nodes[node].boot, link);
        let broker = *self.nodes[node].links.get(&link)?;
        let whole = !self.broken.contains(&conn);
        (whole && self.reaches(node, broker) && self.brokers[broker].conns.contains(&conn))
            .then_some((broker, conn))
    }

    /// Carries out a command of an instance; kills the instance there where the plan says so.
    pub fn carry_out(&mut self, node: usize, command: Command) {
        let trap = self.nodes[node]
            .trap
            .take_if(|(point, _)| point_of(&command) == Some(*point));
        if let Some((point, before)) = trap {
            self.trace.say(self.now, || {
                let when = if before { "before" } else { "after" };
                format!("{} dies {when} {point:?}", name_of(node))
            });
            if !before {
                self.execute(node, command);
            }
            self.crash(node);
            return;
        }
        self.execute(node, command);
    }

    fn execute(&mut self, node: usize, command: Command) {
        let boot = self.nodes[node].boot;
        match command {
            Command::Broker(BrokerCommand::Dial { link, broker }) => {
                // The first of each list is the own site's.
                let broker = (node + broker) % 2;
                let wait = 3 + self.rng.below(10);
                self.after(wait, Ev::Dialled(node, boot, link, broker));
            }
            Command::Broker(BrokerCommand::AttachControl { link }) => {
                self.attach(node, boot, link, 0)
            }
            Command::Broker(BrokerCommand::CloseLink { link }) => {
                if let Some(broker) = self.nodes[node].links.remove(&link) {
                    self.brokers[broker].drop_conn((node, boot, link));
                }
            }
            Command::Broker(BrokerCommand::Consume {
                link,
                group,
                priority,
                tag,
            }) => self.consume(node, link, group, priority, tag),
            Command::Broker(BrokerCommand::StopConsuming { link, .. }) => {
                if let Some((broker, conn)) = self.live(node, link) {
                    self.brokers[broker].consumers.retain(|c| c.conn != conn);
                }
            }
            Command::Broker(BrokerCommand::Prove { link, way }) => self.prove(node, link, way),
            // Nobody deletes it here.
            Command::Broker(BrokerCommand::DeclareDeadLetters { link }) => {
                self.prove(node, link, Way::DeadLetters)
            }
            Command::Broker(BrokerCommand::ConsumeExpired { link }) => {
                if let Some((broker, conn)) = self.live(node, link)
                    && !self.brokers[broker].undertakers.contains(&conn)
                {
                    self.brokers[broker].undertakers.push(conn);
                }
                self.prove(node, link, Way::Expired);
            }
            Command::Broker(BrokerCommand::Publish { id, link, message }) => {
                self.publish(node, id, link, message)
            }
            Command::Broker(BrokerCommand::Ack(delivery)) => self.ack(node, delivery),
            Command::Broker(BrokerCommand::Requeue(delivery)) => {
                self.nodes[node].tags.remove(&delivery_key(delivery));
                if let Some((broker, conn)) = self.live(node, delivery.link) {
                    self.brokers[broker].give_back(conn, delivery.tag);
                }
            }
            Command::Broker(BrokerCommand::CountPeerConsumers { link, peer }) => {
                if let Some((broker, _)) = self.live(node, link) {
                    let control = &self.brokers[broker].control;
                    let count = control.iter().filter(|c| name_of(c.0) == peer).count() as u32;
                    self.input_after(1, node, boot, Input::PeerConsumers { link, peer, count });
                }
            }
            Command::Downstream(DownstreamCommand::Call(call)) => self.call(node, call),
            Command::Downstream(DownstreamCommand::Probe { node: target }) => {
                self.probe(node, target)
            }
            Command::Notify(NotifyCommand::Subscribe {
                agent,
                subscription,
                node: target,
                ..
            }) => {
                let wanted = (agent.to_string(), subscription.0);
                self.trace
                    .say(self.now, || format!("{} subscribes {agent}", name_of(node)));
                self.nodes[node].wanted.insert(wanted, target);
                self.subscribe(node, target, agent, subscription);
            }
            Command::Notify(NotifyCommand::Unsubscribe {
                agent,
                subscription,
            }) => {
                self.trace.say(self.now, || {
                    format!("{} unsubscribes {agent}", name_of(node))
                });
                self.unsubscribe(node, &agent, subscription);
            }
            Command::Store(StoreCommand::Keep(keep)) => self.write(node, *keep),
            Command::Store(StoreCommand::Journal { id, write }) => self.journal(node, id, *write),
            Command::Life(LifeCommand::VerbDone { id, result }) => {
                self.trace
                    .say(self.now, || format!("{} {result:?}", name_of(node)));
                self.answered(node, id, &result);
            }
            Command::Life(LifeCommand::Exit) => {
                self.trace
                    .say(self.now, || format!("{} ends", name_of(node)));
                self.crash(node);
                let up = self.nodes[node].up_again;
                self.after(up.saturating_sub(self.now).max(100), Ev::Start(node));
            }
            Command::Life(LifeCommand::Refuse(reason)) => {
                self.trace
                    .say(self.now, || format!("{} refuses: {reason}", name_of(node)));
                self.crash(node);
                self.after(1_000, Ev::Start(node));
            }
            // Fencing is off (`broker.fence`), and no command of these clients watches a team.
            Command::Notify(NotifyCommand::WatchTeam { .. })
            | Command::Broker(BrokerCommand::Fence { .. }) => {}
            // Nobody asks what happened to a command.
            Command::Life(
                LifeCommand::TellTrace { .. }
                | LifeCommand::TraceAsked { .. }
                | LifeCommand::Traced { .. },
            ) => {}
        }
    }

    /// Exclusive: while an earlier start's connection is not found dead, it is tried again.
    pub fn attach(&mut self, node: usize, boot: u64, link: LinkEpoch, tries: u32) {
        if self.nodes[node].boot != boot {
            return;
        }
        let Some((broker, conn)) = self.live(node, link) else {
            return;
        };
        let control = &mut self.brokers[broker].control;
        if control.contains(&conn) {
            // Consumed there still.
            self.input_after(1, node, boot, Input::ControlAttached { link });
        } else if !control.iter().any(|other| other.0 == node) {
            control.push(conn);
            self.input_after(2, node, boot, Input::ControlAttached { link });
        } else if tries < ATTACH_TRIES {
            let again = Ev::Attach(node, boot, link, tries + 1);
            self.after(ATTACH_AGAIN_MS, again);
        } else {
            self.input_after(1, node, boot, Input::IdInUse { link });
            self.brokers[broker].drop_conn(conn);
            self.nodes[node].links.remove(&link);
            let reason = "in use".to_owned();
            self.input_after(2, node, boot, Input::LinkDown { link, reason });
        }
    }

    fn consume(&mut self, node: usize, link: LinkEpoch, group: usize, priority: i32, tag: String) {
        let Some((broker, conn)) = self.live(node, link) else {
            return;
        };
        if let Some(reason) = self.refusal(broker, Way::Commands) {
            let boot = self.nodes[node].boot;
            let lost = Input::ConsumerLost {
                link,
                group,
                tag,
                reason,
            };
            self.input_after(1, node, boot, lost);
            return;
        }
        let consumers = &mut self.brokers[broker].consumers;
        consumers.retain(|c| c.conn != conn);
        consumers.push(Consumer { conn, priority });
        self.trace.say(self.now, || {
            format!(
                "{} consumes at b{broker} as {tag} {priority}",
                name_of(node)
            )
        });
        let boot = self.nodes[node].boot;
        self.input_after(1, node, boot, Input::Consuming { link, group, tag });
    }

    /// Whether a broker refuses a way to an instance's user.
    fn refusal(&self, broker: usize, way: Way) -> Option<String> {
        let refused = self.brokers[broker].refuses.contains(&way);
        refused.then(|| format!("b{broker} refuses {}", way.as_str()))
    }

    /// Answers what was asked about a way.
    fn prove(&mut self, node: usize, link: LinkEpoch, way: Way) {
        let Some((broker, _)) = self.live(node, link) else {
            return;
        };
        let proof = match self.refusal(broker, way) {
            Some(reason) => Proof::Refused { reason },
            None => Proof::Passed,
        };
        let boot = self.nodes[node].boot;
        self.input_after(2, node, boot, Input::Proved { link, way, proof });
    }

    pub fn dialled(&mut self, node: usize, boot: u64, link: LinkEpoch, broker: usize) {
        if self.nodes[node].boot != boot || self.nodes[node].engine.is_none() {
            return;
        }
        if self.reaches(node, broker) {
            self.nodes[node].links.insert(link, broker);
            self.brokers[broker].conns.push((node, boot, link));
            self.input(
                node,
                boot,
                Input::LinkUp {
                    link,
                    node: String::new(),
                    cluster: String::new(),
                },
            );
        } else {
            let reason = "unreachable".to_owned();
            self.input(node, boot, Input::LinkDown { link, reason });
        }
    }

    pub fn link_dies(&mut self, node: usize, boot: u64, link: LinkEpoch) {
        if self.nodes[node].boot != boot || self.live(node, link).is_some() {
            return;
        }
        if let Some(broker) = self.nodes[node].links.remove(&link) {
            let reason = "connection lost".to_owned();
            if self.reaches(node, broker) {
                self.brokers[broker].drop_conn((node, boot, link));
            }
            self.input(node, boot, Input::LinkDown { link, reason });
        }
    }

    fn ack(&mut self, node: usize, delivery: DeliveryId) {
        let id = self.nodes[node].tags.remove(&delivery_key(delivery));
        if let Some((id, handed_out)) = id {
            let who = name_of(node);
            self.seen.acked(&id, handed_out, who.as_str(), self.now);
        }
        if let Some((broker, conn)) = self.live(node, delivery.link) {
            self.brokers[broker].settle(conn, delivery.tag);
        }
    }

    fn publish(&mut self, node: usize, id: PublishId, link: LinkEpoch, message: Outbound) {
        let Some((broker, _)) = self.live(node, link) else {
            return;
        };
        let boot = self.nodes[node].boot;
        let way = way_of(&message);
        if let Some(reason) = self.refusal(broker, way) {
            let publish = id;
            let outcome = PublishOutcome::Barred;
            self.input_after(1, node, boot, Input::Barred { link, way, reason });
            self.input_after(1, node, boot, Input::Published { publish, outcome });
            return;
        }
        let mut outcome = PublishOutcome::Confirmed;
        if let Some(answer) = answer_in(&message) {
            self.nodes[node].answers.insert(id, answer);
        }
        match message {
            Outbound::Peer { to, message } => {
                self.say(broker, node, to, message);
                return;
            }
            Outbound::Reply {
                route,
                reply,
                cause,
                ..
            } => {
                let (name, federated) = match route {
                    ReplyRoute::Near(name) | ReplyRoute::Direct(name) => (name, false),
                    ReplyRoute::Far(name) => (name, true),
                };
                let id = cause.correlation_id.unwrap_or_default();
                let client = self.clients.iter().position(|c| c.reply_to() == name);
                match client {
                    Some(client) if self.clients[client].site == broker || federated => {
                        self.trace.say(self.now, || {
                            format!("{} replies {:?} to {id}", name_of(node), reply.outcome)
                        });
                        self.seen
                            .told(&id, &reply, name_of(node).as_str(), self.now);
                        let reply = Box::new((*reply).clone());
                        self.after(1, Ev::Reply(broker, client, id, reply));
                    }
                    // Nobody reads a hostile client's replies.
                    None if federated => self.seen.parked(&id),
                    _ => outcome = PublishOutcome::Untaken,
                }
            }
            Outbound::ParkedReply { cause, .. } => {
                self.seen.parked(&cause.correlation_id.unwrap_or_default());
            }
            Outbound::DeadLetter { raw, reason, .. } => {
                let id = raw.message_id.clone().unwrap_or_default();
                self.seen.dead_lettered(&id, reason);
            }
            Outbound::Event {
                event,
                message_id,
                epoch,
                ..
            } => {
                let who = (name_of(node), boot);
                let who = (who.0.as_str(), who.1);
                self.seen.event(&event, &message_id, who, epoch, self.now);
            }
        }
        if self.net.lossy && self.rng.one_in(20) {
            outcome = PublishOutcome::Failed;
        }
        let wait = 1 + self.rng.below(2);
        let publish = id;
        self.input_after(wait, node, boot, Input::Published { publish, outcome });
    }

    pub fn deliver(&mut self, broker: usize, conn: Conn, queue: Queue, waiting: Waiting) {
        let raw = waiting.raw.clone();
        let tag = self.brokers[broker].hand_out(conn, queue, waiting);
        let (node, boot, link) = conn;
        if let Some(id) = &raw.correlation_id
            && self.nodes[node].boot == boot
        {
            let again = raw.redelivered || raw.redelivered_upstream;
            if again || raw.attempt.is_some_and(|attempt| attempt > 1) {
                self.seen.sent_again(id);
            }
            let handed_out = (id.clone(), self.steps);
            self.nodes[node].tags.insert((link, tag), handed_out);
        }
        if !self.reaches(node, broker) || self.broken.contains(&conn) {
            return;
        }
        let command = parse(&raw, &self.defaults, self.wall(node));
        let source = match queue {
            Queue::Commands => Source::Commands { group: 0 },
            Queue::Expired => Source::Expired,
        };
        let delivery = Delivery {
            id: DeliveryId { link, tag },
            source,
            raw,
            command,
        };
        self.input_after(1, node, boot, Input::Delivery(Box::new(delivery)));
    }
}

/// What a broker has to do for a message.
fn way_of(message: &Outbound) -> Way {
    match message {
        Outbound::Event { .. } => Way::Events,
        Outbound::Reply {
            route: ReplyRoute::Far(_),
            ..
        } => Way::FarReplies,
        Outbound::Peer { .. } => Way::Peers,
        _ => Way::Replies,
    }
}

/// The command that a publication answers, and whether for good.
fn answer_in(message: &Outbound) -> Option<(String, bool)> {
    match message {
        Outbound::Reply { reply, cause, .. } | Outbound::ParkedReply { reply, cause, .. } => {
            let id = cause.correlation_id.clone()?;
            Some((id, reply.retry_after_ms.is_none()))
        }
        Outbound::DeadLetter { raw, .. } => Some((raw.correlation_id.clone()?, true)),
        Outbound::Event { .. } | Outbound::Peer { .. } => None,
    }
}

fn delivery_key(delivery: DeliveryId) -> (LinkEpoch, u64) {
    (delivery.link, delivery.tag)
}

fn point_of(command: &Command) -> Option<Point> {
    use tandem_engine::peer::PeerMessage;
    match command {
        Command::Downstream(DownstreamCommand::Call(_)) => Some(Point::Call),
        Command::Broker(BrokerCommand::Ack(_)) => Some(Point::Ack),
        Command::Store(StoreCommand::Keep(_)) => Some(Point::Keep),
        Command::Notify(NotifyCommand::Subscribe { .. }) => Some(Point::Subscribe),
        Command::Broker(BrokerCommand::Publish { message, .. }) => match message {
            Outbound::Reply { .. } => Some(Point::Reply),
            Outbound::Peer { message, .. } => match message.as_ref() {
                PeerMessage::Forward { .. } => Some(Point::Forward),
                PeerMessage::Grant { .. } => Some(Point::Grant),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}
