//! What passes between brokers: peer messages, federated commands, replies.

use tandem_engine::Input;
use tandem_engine::ids::BootId;
use tandem_engine::peer::PeerMessage;
use tandem_model::InstanceId;
use tandem_wire::message::RawMessage;
use tandem_wire::reply::Reply;

use crate::broker::{Conn, Next, Queue, Waiting};
use crate::instance::name_of;
use crate::world::{Ev, MAX_AGE_MS, World};

/// How long a federation link waits before it connects again.
const RECONNECT_MS: u64 = 1_000;

/// The state of the ways between the sites.
#[derive(Debug, Default)]
pub struct Network {
    /// Nothing passes.
    pub cut: bool,
    /// Federation from this broker to the other stands still.
    pub one_way: [bool; 2],
    pub lossy: bool,
    pub slow: bool,
    /// Counts cuts of federation: what was on the way comes again.
    pub life: u64,
    /// When the newest message over each link arrives.
    pub arrives_at: [u64; 2],
    /// When its links have connected again.
    pub joined_at: u64,
}

impl Network {
    /// Federation's links were cut.
    pub fn tear(&mut self) {
        self.life += 1;
    }

    /// They connect again.
    pub fn mend(&mut self, now: u64) {
        self.joined_at = now + RECONNECT_MS;
    }
}

impl World {
    /// Whether an instance can talk to a broker.
    pub fn reaches(&self, node: usize, broker: usize) -> bool {
        self.brokers[broker].up && (!self.net.cut || node % 2 == broker)
    }

    /// Whether messages cross from one broker to the other.
    pub fn crosses(&self, from: usize) -> bool {
        !self.net.cut
            && !self.net.one_way[from]
            && self.now >= self.net.joined_at
            && self.brokers.iter().all(|broker| broker.up)
    }

    // ---- peer messages ------------------------------------------------------------------------

    pub fn say(
        &mut self,
        broker: usize,
        node: usize,
        to: Option<InstanceId>,
        message: Box<PeerMessage>,
    ) {
        let boot = self.nodes[node].boot;
        self.seen.said(node, boot, &message, &mut self.trace);
        let (mut copies, mut spread) = (1, 1);
        if self.net.lossy {
            copies = self.rng.pick(&[0, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
            spread = 300;
        }
        if self.net.slow {
            spread += 400;
        }
        for _ in 0..copies {
            let near = 1 + self.rng.below(spread);
            let hop = Ev::PeerHop(broker, node, boot, to.clone(), message.clone());
            self.after(near, hop);
            if self.crosses(broker) {
                let far = 2 + self.rng.below(3 * spread);
                let hop = Ev::PeerHop(1 - broker, node, boot, to.clone(), message.clone());
                self.after(far, hop);
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

    // ---- commands -----------------------------------------------------------------------------

    /// A client's message is in a broker's command queue.
    pub fn enqueue(&mut self, broker: usize, raw: RawMessage) {
        let expires_at = self.now + MAX_AGE_MS;
        self.brokers[broker]
            .commands
            .push_back(Waiting { raw, expires_at });
        self.after(MAX_AGE_MS, Ev::Expiry);
        self.dispatch();
    }

    /// Everything that the brokers can hand out now.
    pub fn dispatch(&mut self) {
        let prefetch = self.plan.extra.prefetch();
        for broker in 0..2 {
            if !self.brokers[broker].up {
                continue;
            }
            self.brokers[broker].expire(self.now);
            while !self.brokers[broker].commands.is_empty() {
                let draws = self.crosses(broker) && self.brokers[1 - broker].draws();
                let Some(next) = self.brokers[broker].next(prefetch, draws) else {
                    break;
                };
                let Some(waiting) = self.brokers[broker].commands.pop_front() else {
                    break;
                };
                match next {
                    Next::Consumer(conn) => self.deliver(broker, conn, Queue::Commands, waiting),
                    Next::Federation => self.send_over(broker, waiting.raw),
                }
            }
            while let Some(conn) = self.brokers[broker].undertakers.first().copied()
                && let Some(dead) = self.brokers[broker].expired.pop_front()
            {
                self.deliver(broker, conn, Queue::Expired, dead);
            }
        }
    }

    fn send_over(&mut self, broker: usize, raw: RawMessage) {
        let life = self.net.life;
        let target_life = self.brokers[1 - broker].life;
        let mut wait = 2 + self.rng.below(3);
        if !self.plan.extra.bursts.is_empty() {
            // A link keeps the order.
            let last = &mut self.net.arrives_at[broker];
            *last = (*last).max(self.now + wait);
            wait = *last - self.now;
        }
        self.after(wait, Ev::Hop(1 - broker, life, target_life, Box::new(raw)));
    }

    /// F6: a link that is cut sends again; now and then the first copy had arrived. F7: the time
    /// to live is counted anew.
    pub fn hop(&mut self, to: usize, life: u64, target_life: u64, raw: RawMessage) {
        let expires_at = self.now + MAX_AGE_MS;
        self.after(MAX_AGE_MS, Ev::Expiry);
        let cut = life != self.net.life || target_life != self.brokers[to].life;
        if cut {
            let raw = raw.clone();
            self.brokers[1 - to].requeue(Queue::Commands, Waiting { raw, expires_at });
            if self.rng.below(3) != 0 || !self.brokers[to].up {
                return;
            }
        }
        let mut over = raw;
        over.relayed = true;
        over.redelivered_upstream |= over.redelivered;
        over.redelivered = false;
        let waiting = Waiting {
            raw: over,
            expires_at,
        };
        self.brokers[to].commands.push_back(waiting);
    }

    // ---- replies ------------------------------------------------------------------------------

    pub fn reply_arrives(&mut self, at: usize, client: usize, id: &str, reply: &Reply) {
        let site = self.clients[client].site;
        let there = at == site && self.brokers[site].up;
        if there || (at != site && self.crosses(at)) {
            self.client_reply(client, id, reply);
        } else {
            let again = Ev::Reply(at, client, id.to_owned(), Box::new(reply.clone()));
            self.after(250, again);
        }
    }
}
