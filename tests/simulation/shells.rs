//! What the shells of an instance would do, on the model's brokers and downstream.

use tandem::engine::Input;
use tandem::engine::command::{Call, Command, Outbound, ReplyRoute};
use tandem::engine::ids::{BootId, DeliveryId, LinkEpoch, PublishId};
use tandem::engine::input::{Delivery, Notice, PublishOutcome, Source};
use tandem::engine::peer::PeerMessage;
use tandem::model::{Action, Answer, CallOutcome, InstanceId, NodeHealth, User};
use tandem::wire::command::{Defaults, parse};
use tandem::wire::message::RawMessage;
use tandem::wire::reply::Reply;

use crate::broker::{Conn, Consumer, Next};
use crate::world::{Ev, PREFETCH, WALL, World, name_of};

impl World {
    /// The broker of a link that both sides still hold.
    fn live(&self, node: usize, link: LinkEpoch) -> Option<(usize, Conn)> {
        let conn = (node, self.nodes[node].boot, link);
        let broker = *self.nodes[node].links.get(&link)?;
        let whole = !self.broken.contains(&conn);
        (whole && self.reaches(node, broker) && self.brokers[broker].conns.contains(&conn))
            .then_some((broker, conn))
    }

    pub fn carry_out(&mut self, node: usize, command: Command) {
        let boot = self.nodes[node].boot;
        match command {
            Command::Dial { link, broker } => {
                // The first of each list is the own site's.
                let broker = (node + broker) % 2;
                let wait = 3 + self.random(10);
                self.after(wait, Ev::Dialled(node, boot, link, broker));
            }
            Command::AttachControl { link } => {
                if let Some((broker, conn)) = self.live(node, link) {
                    self.brokers[broker].control.push(conn);
                    self.input_after(2, node, boot, Input::ControlAttached { link });
                }
            }
            Command::CloseLink { link } => {
                if let Some(broker) = self.nodes[node].links.remove(&link) {
                    self.brokers[broker].drop_conn((node, boot, link));
                }
            }
            Command::Consume {
                link,
                group,
                priority,
                tag,
            } => {
                if let Some((broker, conn)) = self.live(node, link) {
                    let consumers = &mut self.brokers[broker].consumers;
                    consumers.retain(|c| c.conn != conn);
                    consumers.push(Consumer { conn, priority });
                    self.trace(|| {
                        format!(
                            "{} consumes at b{broker} as {tag} {priority}",
                            name_of(node)
                        )
                    });
                    self.input_after(1, node, boot, Input::Consuming { link, group, tag });
                }
            }
            Command::StopConsuming { link, .. } => {
                if let Some((broker, conn)) = self.live(node, link) {
                    self.brokers[broker].consumers.retain(|c| c.conn != conn);
                }
            }
            Command::Publish { id, link, message } => self.publish(node, id, link, message),
            Command::Ack(delivery) => self.ack(node, delivery),
            Command::Requeue(delivery) => {
                if let Some((broker, conn)) = self.live(node, delivery.link)
                    && let Some(raw) = self.brokers[broker].unacked.remove(&(conn, delivery.tag))
                {
                    self.brokers[broker].requeue(raw);
                }
            }
            Command::CountPeerConsumers { link, peer } => {
                if let Some((broker, _)) = self.live(node, link) {
                    let control = &self.brokers[broker].control;
                    let count = control.iter().filter(|c| name_of(c.0) == peer).count() as u32;
                    self.input_after(1, node, boot, Input::PeerConsumers { link, peer, count });
                }
            }
            Command::Call(call) => {
                let wait = 1 + self.random(30);
                self.after(wait, Ev::Effect(node, boot, call));
            }
            Command::Probe { node: target } => {
                let health = if self.downstream_down {
                    NodeHealth::Unreachable {
                        reason: "down".into(),
                    }
                } else {
                    NodeHealth::InService {
                        xmpp_domain: "d".into(),
                        pubsub_domain: "p".into(),
                        deployment: "UCCE".into(),
                    }
                };
                self.input_after(
                    3,
                    node,
                    boot,
                    Input::Probed {
                        node: target,
                        health,
                    },
                );
            }
            Command::Subscribe {
                agent,
                subscription,
                ..
            } => {
                let notice = if self.downstream_down {
                    Notice::Unreachable {
                        reason: "down".into(),
                    }
                } else {
                    let held = (agent.to_string(), subscription.0);
                    self.nodes[node].subscriptions.insert(held);
                    Notice::Up
                };
                let wait = 5 + self.random(20);
                self.input_after(
                    wait,
                    node,
                    boot,
                    Input::Notice {
                        agent,
                        subscription,
                        notice,
                    },
                );
            }
            Command::Unsubscribe {
                agent,
                subscription,
            } => {
                let held = (agent.to_string(), subscription.0);
                self.nodes[node].subscriptions.remove(&held);
            }
            Command::Keep(keep) => {
                self.nodes[node].disk.keep(*keep);
                self.input_after(1, node, boot, Input::Kept { failure: None });
            }
            Command::Journal { id, write } => {
                self.nodes[node].disk.journal(*write);
                let wait = 1 + self.random(4);
                let ids = vec![id];
                let failure = None;
                self.input_after(wait, node, boot, Input::Journaled { ids, failure });
            }
            Command::ConsumeExpired { .. }
            | Command::VerbDone { .. }
            | Command::Exit
            | Command::Refuse(_) => {}
        }
    }

    pub fn dialled(&mut self, node: usize, boot: u64, link: LinkEpoch, broker: usize) {
        if self.nodes[node].boot != boot || self.nodes[node].engine.is_none() {
            return;
        }
        if self.reaches(node, broker) {
            self.nodes[node].links.insert(link, broker);
            self.brokers[broker].conns.push((node, boot, link));
            self.input(node, boot, Input::LinkUp { link });
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
        let id = self.nodes[node].tags.remove(&(delivery.link, delivery.tag));
        if let Some(id) = id {
            let now = self.now;
            self.seen.acked(&id, name_of(node).as_str(), now);
        }
        if let Some((broker, conn)) = self.live(node, delivery.link) {
            self.brokers[broker].unacked.remove(&(conn, delivery.tag));
        }
    }

    fn publish(&mut self, node: usize, id: PublishId, link: LinkEpoch, message: Outbound) {
        let Some((broker, _)) = self.live(node, link) else {
            return;
        };
        let boot = self.nodes[node].boot;
        let mut outcome = PublishOutcome::Confirmed;
        match message {
            Outbound::Peer { to, message } => {
                self.say(broker, node, to, message);
                return;
            }
            Outbound::Reply {
                route,
                reply,
                correlation_id,
                ..
            } => {
                let (name, federated) = match route {
                    ReplyRoute::Queue(name) => (name, false),
                    ReplyRoute::Federated(name) => (name, true),
                    ReplyRoute::Direct(name) => (name, false),
                };
                let client: usize = name
                    .strip_prefix("client-")
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(0);
                let id = correlation_id.unwrap_or_default();
                if self.clients[client].site == broker || federated {
                    self.trace(|| format!("{} replies {:?} to {id}", name_of(node), reply.outcome));
                    self.seen.replied.insert(id.clone());
                    self.after(1, Ev::Reply(broker, client, id, Box::new((*reply).clone())));
                } else {
                    outcome = PublishOutcome::Returned;
                }
            }
            Outbound::ParkedReply { correlation_id, .. } => {
                self.seen.replied.insert(correlation_id.unwrap_or_default());
            }
            Outbound::DeadLetter { reason, .. } => {
                let text = format!("a good command became a dead letter: {reason}");
                self.seen.violations.push(text);
            }
            Outbound::Event { .. } => {}
        }
        if self.lossy && self.random(20) == 0 {
            outcome = PublishOutcome::Failed;
        }
        let wait = 1 + self.random(2);
        self.input_after(
            wait,
            node,
            boot,
            Input::Published {
                publish: id,
                outcome,
            },
        );
    }

    fn say(
        &mut self,
        broker: usize,
        node: usize,
        to: Option<InstanceId>,
        message: Box<PeerMessage>,
    ) {
        let boot = self.nodes[node].boot;
        let mut copies = 1;
        let mut spread = 1;
        if self.lossy {
            copies = [0, 1, 1, 1, 1, 1, 1, 1, 1, 2][self.random(10) as usize];
            spread = 300;
        }
        for _ in 0..copies {
            let near = 1 + self.random(spread);
            self.after(
                near,
                Ev::PeerHop(broker, node, boot, to.clone(), message.clone()),
            );
            if self.crosses(broker) {
                let far = 2 + self.random(3 * spread);
                self.after(
                    far,
                    Ev::PeerHop(1 - broker, node, boot, to.clone(), message.clone()),
                );
            }
        }
    }

    /// A peer message is at a broker: to every control queue that is consumed there.
    pub fn peer_arrives(
        &mut self,
        broker: usize,
        from: usize,
        boot: u64,
        to: Option<&InstanceId>,
        message: &PeerMessage,
    ) {
        let targets: Vec<Conn> = self.brokers[broker].control.clone();
        for (node, its_boot, link) in targets {
            let meant = to.is_none_or(|to| *to == name_of(node)) && node != from;
            if meant && (self.nodes[node].frozen || self.live(node, link).is_some()) {
                let input = Input::Peer {
                    from: name_of(from),
                    boot: BootId(boot),
                    message: message.clone(),
                };
                self.input(node, its_boot, input);
            }
        }
    }

    pub fn reply_arrives(&mut self, at: usize, client: usize, id: &str, reply: &Reply) {
        let site = self.clients[client].site;
        let there = at == site && self.brokers[site].up;
        if there || (at != site && self.crosses(at)) {
            self.client_reply(client, id, reply);
        } else {
            self.after(
                500,
                Ev::Reply(at, client, id.to_owned(), Box::new(reply.clone())),
            );
        }
    }

    /// Everything that the brokers can hand out now.
    pub fn dispatch(&mut self) {
        for broker in 0..2 {
            while self.brokers[broker].up && !self.brokers[broker].queue.is_empty() {
                let draws = self.crosses(broker) && self.brokers[1 - broker].draws();
                let next = self.brokers[broker].next(PREFETCH, draws);
                let Some(raw) = next
                    .as_ref()
                    .and_then(|_| self.brokers[broker].queue.pop_front())
                else {
                    break;
                };
                match next {
                    Some(Next::Consumer(conn)) => self.deliver(broker, conn, raw),
                    _ => self.send_over(broker, raw),
                }
            }
        }
    }

    fn send_over(&mut self, broker: usize, raw: RawMessage) {
        let life = self.federation_life;
        let target_life = self.brokers[1 - broker].life;
        let wait = 2 + self.random(3);
        self.after(wait, Ev::Hop(1 - broker, life, target_life, Box::new(raw)));
    }

    /// F6: a link that is cut sends again; now and then the first copy had arrived.
    pub fn hop(&mut self, to: usize, life: u64, target_life: u64, raw: RawMessage) {
        let cut = life != self.federation_life || target_life != self.brokers[to].life;
        if cut {
            self.brokers[1 - to].requeue(raw.clone());
            if self.random(3) != 0 || !self.brokers[to].up {
                return;
            }
        }
        let mut over = raw;
        over.federated = true;
        over.redelivered_upstream |= over.redelivered;
        over.redelivered = false;
        self.brokers[to].queue.push_back(over);
    }

    fn deliver(&mut self, broker: usize, conn: Conn, raw: RawMessage) {
        let entry = &mut self.brokers[broker];
        entry.next_tag += 1;
        let tag = entry.next_tag;
        entry.unacked.insert((conn, tag), raw.clone());
        let (node, boot, link) = conn;
        if let Some(id) = &raw.message_id
            && self.nodes[node].boot == boot
        {
            self.nodes[node].tags.insert((link, tag), id.clone());
        }
        if !self.reaches(node, broker) || self.broken.contains(&conn) {
            return;
        }
        let defaults = Defaults {
            max_age_ms: 30_000,
            cluster_name: "tandem".into(),
            command_queues: vec!["Connector1".into()],
        };
        let command = parse(&raw, &defaults, WALL + self.now);
        let delivery = Delivery {
            id: DeliveryId { link, tag },
            source: Source::Commands { group: 0 },
            raw,
            command,
        };
        self.input_after(1, node, boot, Input::Delivery(Box::new(delivery)));
    }

    /// A request is at the downstream.
    pub fn effect(&mut self, node: usize, boot: u64, call: &Call) {
        let who = name_of(node);
        let outcome = if self.downstream_down {
            CallOutcome::NotSent {
                timed_out: false,
                reason: "down".into(),
            }
        } else {
            let mut answer = Answer::Empty;
            match &call.action {
                Action::MakeCall { .. } => {
                    self.trace(|| format!("{who} EFFECT {}", call.request_id));
                    let now = self.now;
                    self.seen.effect(who.as_str(), &call.request_id, now);
                    self.seen.change(who.as_str(), &call.request_id, now);
                }
                Action::SetState { .. } => {
                    let now = self.now;
                    self.seen.change(who.as_str(), &call.request_id, now);
                }
                Action::ReadUser => {
                    answer = Answer::User(Box::new(User {
                        login_id: call.agent.to_string(),
                        state: "NOT_READY".into(),
                        extension: call.agent.to_string(),
                        ..User::default()
                    }));
                }
                Action::ReadDialogs => answer = Answer::Dialogs(Vec::new()),
                _ => {}
            }
            if self.lossy && self.random(10) == 0 {
                CallOutcome::Unknown {
                    status: None,
                    timed_out: true,
                    reason: "lost".into(),
                }
            } else {
                CallOutcome::Done {
                    status: 202,
                    answer,
                }
            }
        };
        let wait = 1 + self.random(20);
        let call = call.id;
        self.input_after(wait, node, boot, Input::CallDone { call, outcome });
    }
}
