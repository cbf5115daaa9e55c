//! Two brokers whose command queues are federated both ways (design facts F1 to F4, F6, F7).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tandem_engine::ids::LinkEpoch;
use tandem_engine::way::Way;
use tandem_wire::message::RawMessage;

/// A client connection of an instance: (instance, start, link).
pub type Conn = (usize, u64, LinkEpoch);

/// The queue of commands, or of those that expired in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    Commands,
    Expired,
}

/// A message in a queue.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub raw: RawMessage,
    /// F7: counted anew on each broker.
    pub expires_at: u64,
}

/// A command consumer.
#[derive(Debug)]
pub struct Consumer {
    pub conn: Conn,
    pub priority: i32,
}

/// One broker.
#[derive(Debug, Default)]
pub struct Broker {
    pub up: bool,
    pub commands: VecDeque<Waiting>,
    pub expired: VecDeque<Waiting>,
    pub conns: Vec<Conn>,
    /// What it refuses to the instances' user.
    pub refuses: BTreeSet<Way>,
    /// Consumers of control queues: one an instance.
    pub control: Vec<Conn>,
    pub consumers: Vec<Consumer>,
    /// Consumers of the queue of expired commands.
    pub undertakers: Vec<Conn>,
    /// Delivered and not acknowledged, by connection and tag; they outlive a consumer's cancel.
    unacked: BTreeMap<(Conn, u64), (Queue, Waiting)>,
    next_tag: u64,
    /// Counts kills: what was on the way to an earlier life is lost.
    pub life: u64,
}

/// What a message goes to next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Consumer(Conn),
    Federation,
}

impl Broker {
    fn load(&self, conn: Conn) -> usize {
        self.unacked.range((conn, 0)..=(conn, u64::MAX)).count()
    }

    /// F1: whether this broker's federation link draws from the other one.
    pub fn draws(&self) -> bool {
        self.up && self.commands.is_empty() && self.consumers.iter().any(|c| c.priority >= 0)
    }

    /// Who gets the next message: the highest priority with room (F3), the other broker's link
    /// at -1.
    pub fn next(&self, prefetch: usize, other_draws: bool) -> Option<Next> {
        let local = self
            .consumers
            .iter()
            .filter(|c| self.load(c.conn) < prefetch)
            .max_by_key(|c| c.priority);
        match local {
            Some(c) if c.priority >= -1 || !other_draws => Some(Next::Consumer(c.conn)),
            _ if other_draws => Some(Next::Federation),
            _ => None,
        }
    }

    /// A message becomes a delivery; returns its tag.
    pub fn hand_out(&mut self, conn: Conn, queue: Queue, waiting: Waiting) -> u64 {
        self.next_tag += 1;
        self.unacked.insert((conn, self.next_tag), (queue, waiting));
        self.next_tag
    }

    pub fn settle(&mut self, conn: Conn, tag: u64) {
        self.unacked.remove(&(conn, tag));
    }

    pub fn give_back(&mut self, conn: Conn, tag: u64) {
        if let Some((queue, waiting)) = self.unacked.remove(&(conn, tag)) {
            self.requeue(queue, waiting);
        }
    }

    /// F7: what waited too long at the head goes to the queue of expired commands.
    pub fn expire(&mut self, now: u64) {
        while self
            .commands
            .front()
            .is_some_and(|head| head.expires_at <= now)
        {
            if let Some(mut dead) = self.commands.pop_front() {
                dead.raw.redelivered = false;
                dead.expires_at = u64::MAX;
                self.expired.push_back(dead);
            }
        }
    }

    /// A connection is gone: its deliveries come again, first and flagged.
    pub fn drop_conn(&mut self, conn: Conn) {
        self.conns.retain(|c| *c != conn);
        self.control.retain(|c| *c != conn);
        self.undertakers.retain(|c| *c != conn);
        self.consumers.retain(|c| c.conn != conn);
        let keys: Vec<(Conn, u64)> = self
            .unacked
            .range((conn, 0)..=(conn, u64::MAX))
            .map(|(key, _)| *key)
            .collect();
        for (conn, tag) in keys.into_iter().rev() {
            self.give_back(conn, tag);
        }
    }

    pub fn requeue(&mut self, queue: Queue, mut waiting: Waiting) {
        waiting.raw.redelivered = true;
        match queue {
            Queue::Commands => self.commands.push_front(waiting),
            Queue::Expired => self.expired.push_front(waiting),
        }
    }

    /// F6: after a kill all messages are flagged, delivered before or not.
    pub fn kill(&mut self) -> Vec<Conn> {
        self.up = false;
        self.life += 1;
        let conns = self.conns.clone();
        for conn in &conns {
            self.drop_conn(*conn);
        }
        for waiting in self.commands.iter_mut().chain(&mut self.expired) {
            waiting.raw.redelivered = true;
        }
        conns
    }

    /// Deliveries that an instance holds.
    pub fn held_by(&self, node: usize) -> usize {
        self.unacked
            .keys()
            .filter(|(conn, _)| conn.0 == node)
            .count()
    }
}
