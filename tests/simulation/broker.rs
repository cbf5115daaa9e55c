//! Two brokers whose command queues are federated both ways (design facts F1 to F4, F6, F7).

use std::collections::{BTreeMap, VecDeque};

use tandem::engine::ids::LinkEpoch;
use tandem::wire::message::RawMessage;

/// A client connection of an instance: (instance, start, link).
pub type Conn = (usize, u64, LinkEpoch);

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
    pub queue: VecDeque<RawMessage>,
    pub conns: Vec<Conn>,
    pub control: Vec<Conn>,
    pub consumers: Vec<Consumer>,
    /// Delivered and not acknowledged, by connection and tag; they outlive a consumer's cancel.
    pub unacked: BTreeMap<(Conn, u64), RawMessage>,
    pub next_tag: u64,
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
        self.up && self.queue.is_empty() && self.consumers.iter().any(|c| c.priority >= 0)
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

    /// A connection is gone: its deliveries come again, first and flagged.
    pub fn drop_conn(&mut self, conn: Conn) {
        self.conns.retain(|c| *c != conn);
        self.control.retain(|c| *c != conn);
        self.consumers.retain(|c| c.conn != conn);
        let keys: Vec<(Conn, u64)> = self
            .unacked
            .range((conn, 0)..=(conn, u64::MAX))
            .map(|(key, _)| *key)
            .collect();
        for key in keys.into_iter().rev() {
            if let Some(raw) = self.unacked.remove(&key) {
                self.requeue(raw);
            }
        }
    }

    pub fn requeue(&mut self, mut raw: RawMessage) {
        raw.redelivered = true;
        self.queue.push_front(raw);
    }

    /// F6: after a kill all messages are flagged, delivered before or not.
    pub fn kill(&mut self) -> Vec<Conn> {
        self.up = false;
        self.life += 1;
        let conns = self.conns.clone();
        for conn in &conns {
            self.drop_conn(*conn);
        }
        for raw in &mut self.queue {
            raw.redelivered = true;
        }
        conns
    }
}
