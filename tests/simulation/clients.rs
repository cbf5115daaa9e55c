//! Site-local clients: one agent each, one command at a time, each awaited and sent again.

use bytes::Bytes;
use tandem::wire::message::RawMessage;
use tandem::wire::reply::{Outcome, Reply};

use crate::world::{Ev, WALL, World};

/// What a client is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Connect,
    Login,
    Work,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    pub agent: String,
    pub site: usize,
    want: Want,
    number: u64,
    /// Command under way: kind, body, id, attempts.
    open: Option<(String, String, String, i64)>,
    pub done: u64,
    pub done_after_heal: u64,
}

/// How long a client waits before it sends again, milliseconds.
const RESEND_MS: u64 = 6_000;

impl Client {
    pub fn new(index: usize, site: usize) -> Self {
        Self {
            agent: format!("{}", 1001 + index),
            site,
            want: Want::Connect,
            number: 0,
            open: None,
            done: 0,
            done_after_heal: 0,
        }
    }

    pub fn idle(&self) -> bool {
        self.open.is_none()
    }
}

impl World {
    /// A client's turn: the next command, or the one under way again.
    pub fn client_turn(&mut self, index: usize, token: u64) {
        let stop = self.stopping;
        let random = self.random(100);
        let client = &mut self.clients[index];
        let attempt = match &mut client.open {
            Some((.., attempt)) if token == client.number => {
                *attempt += 1;
                *attempt
            }
            Some(_) => return,
            None if token != client.number || stop => return,
            None => {
                client.number += 1;
                let agent = &client.agent;
                let (name, body) = match client.want {
                    Want::Connect => ("Connect", format!("desk-{agent},pw")),
                    Want::Login => ("Login", format!("pw,{agent}")),
                    Want::Work => match random {
                        0..30 => ("MakeCall", "5000".to_owned()),
                        30..55 => ("MakeReady", String::new()),
                        55..80 => ("MakeNotReady", String::new()),
                        _ => ("GetState", String::new()),
                    },
                };
                let id = format!("{agent}:{}", client.number);
                client.open = Some((format!("{name}#{agent}"), body, id, 1));
                1
            }
        };
        let Some((kind, body, id, _)) = client.open.clone() else {
            return;
        };
        let (site, number) = (client.site, client.number);
        let again = if self.brokers[site].up {
            RESEND_MS
        } else {
            300
        };
        self.after(again, Ev::Client(index, number));
        if !self.brokers[site].up {
            if let Some((.., attempts)) = &mut self.clients[index].open {
                *attempts -= 1;
            }
            return;
        }
        self.trace(|| format!("client sends {kind} {id} attempt {attempt} at b{site}"));
        self.seen.accepted.insert(id.clone());
        self.brokers[site].queue.push_back(RawMessage {
            kind: Some(kind),
            body: Bytes::from(body),
            message_id: Some(id.clone()),
            correlation_id: Some(id),
            reply_to: Some(format!("client-{index}")),
            attempt: Some(attempt),
            timestamp: Some((WALL + self.now) / 1_000),
            ..RawMessage::default()
        });
        self.dispatch();
    }

    /// A reply reached its client's queue.
    pub fn client_reply(&mut self, index: usize, id: &str, reply: &Reply) {
        let retry = reply.retry_after_ms.is_some();
        if !retry {
            self.seen.outcome(id, reply.outcome.as_str());
        }
        let healed = self.now > self.healed_at;
        let wait = 20 + self.random(280);
        let client = &mut self.clients[index];
        let current = client.open.as_ref().is_some_and(|(.., open, _)| open == id);
        if !current {
            return;
        }
        if retry {
            let number = client.number;
            self.after(1_000, Ev::Client(index, number));
            return;
        }
        client.open = None;
        client.done += 1;
        let re_login = reply.error.as_ref().is_some_and(|e| e.code == "RE_LOGIN");
        let good = matches!(reply.outcome, Outcome::Ok | Outcome::Accepted);
        client.done_after_heal += u64::from(healed && good);
        client.want = match client.want {
            _ if re_login => Want::Connect,
            Want::Connect if good => Want::Login,
            Want::Login if good => Want::Work,
            same => same,
        };
        let number = client.number;
        self.after(wait, Ev::Client(index, number));
    }
}
