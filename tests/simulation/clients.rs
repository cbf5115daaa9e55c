//! Clients: one agent each, one command at a time, each awaited and sent again; and a hostile
//! one, whose messages are no commands.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem_wire::message::RawMessage;
use tandem_wire::reply::{Outcome, Reply};

use crate::invariants::PLANTED_SECRET;
use crate::world::{Ev, WALL, World};

/// What a client is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Connect,
    Login,
    Work,
    /// Signed out for good.
    Nothing,
}

/// A command under way.
#[derive(Debug, Clone)]
pub struct Open {
    pub kind: String,
    pub body: String,
    pub id: String,
    pub attempts: i64,
    first_sent: u64,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    pub agent: String,
    pub site: usize,
    want: Want,
    pub number: u64,
    open: Option<Open>,
    /// A burst under way.
    pub several: BTreeMap<String, Open>,
    /// Good outcomes of commands that were sent when all was well again.
    pub served: u64,
    /// Others of such commands.
    pub refused: Vec<String>,
    /// Since when its agent is signed out: by its last command, which was accepted.
    pub out_since: Option<u64>,
    /// How long it waits before it sends again, milliseconds.
    pub resend: u64,
}

/// From this number of a hundred on a client signs out, where clients do.
const SIGN_OUT_FROM: u64 = 94;

/// After the last fault it takes so long until every command is to be served, milliseconds.
const SETTLED_MS: u64 = 7_500;

impl Client {
    pub fn new(index: usize, site: usize) -> Self {
        Self {
            agent: format!("{}", 1001 + index),
            site,
            want: Want::Connect,
            number: 0,
            open: None,
            several: BTreeMap::new(),
            served: 0,
            refused: Vec::new(),
            out_since: None,
            resend: 2_200 + 900 * index as u64,
        }
    }

    pub fn idle(&self) -> bool {
        self.open.is_none() && self.several.is_empty()
    }

    /// It is signed in, as far as it knows, and has nothing under way.
    pub fn works(&self) -> bool {
        self.idle() && self.want == Want::Work
    }

    /// A reply to one of a burst.
    pub fn heard(&mut self, reply: &Reply, states: bool) {
        let unknown = reply.error.as_ref().is_some_and(|e| e.code == "RE_LOGIN");
        if unknown || states && reply.outcome == Outcome::Failed {
            self.want = Want::Connect;
        }
    }

    pub fn reply_to(&self) -> String {
        format!("client-{}", self.agent)
    }
}

impl World {
    /// A client's turn: the next command, or the one under way again.
    pub fn client_turn(&mut self, index: usize, token: u64) {
        let random = self.rng.below(100);
        let (now, stopping) = (self.now, self.stopping());
        let habits = &self.plan.extra;
        let sign_out = habits.sign_outs.then_some(SIGN_OUT_FROM);
        let mut from = sign_out.unwrap_or(u64::MAX);
        if let Some((begin, end)) = habits.calm {
            if (begin..end).contains(&now) && self.clients[index].open.is_none() {
                self.after(end - now, Ev::Client(index, token));
                return;
            }
            if self.leaves_before(index, begin) {
                from = 0;
            }
        }
        let client = &mut self.clients[index];
        match &client.open {
            Some(_) if token == client.number => {}
            None if token == client.number
                && client.idle()
                && !stopping
                && client.want != Want::Nothing =>
            {
                client.number += 1;
                let leaves = random >= from;
                client.open = Some(client.next_command(random, leaves, now));
            }
            _ => return,
        }
        let (site, number, resend) = (client.site, client.number, client.resend);
        if !self.brokers[site].up {
            self.after(250, Ev::Client(index, number));
            return;
        }
        self.after(resend, Ev::Client(index, number));
        let reply_to = self.clients[index].reply_to();
        self.clients[index].out_since = None;
        let Some(open) = &mut self.clients[index].open else {
            return;
        };
        open.attempts += 1;
        let Open {
            kind, id, attempts, ..
        } = open.clone();
        let raw = RawMessage {
            kind: Some(kind.clone()),
            body: Bytes::from(open.body.clone()),
            message_id: Some(id.clone()),
            correlation_id: Some(id.clone()),
            reply_to: Some(reply_to),
            attempt: Some(attempts),
            timestamp: Some((WALL + now) / 1_000),
            ..RawMessage::default()
        };
        self.trace.say(now, || {
            format!("client sends {kind} {id} attempt {attempts} at b{site}")
        });
        self.seen.accepted(&id, self.now);
        self.enqueue(site, raw);
    }

    /// A reply reached its client's queue.
    pub fn client_reply(&mut self, index: usize, id: &str, reply: &Reply) {
        if self.reply_to_burst(index, id, reply) {
            return;
        }
        let settled = self.plan.healed_at + SETTLED_MS;
        let wait = 60 + self.rng.below(500);
        let client = &mut self.clients[index];
        let number = client.number;
        let Some(open) = client.open.take_if(|open| open.id == id) else {
            return;
        };
        if reply.retry_after_ms.is_some() {
            client.open = Some(open);
            self.after(1_000, Ev::Client(index, number));
            return;
        }
        let good = matches!(reply.outcome, Outcome::Ok | Outcome::Accepted);
        if open.first_sent > settled {
            if good {
                client.served += 1;
            } else {
                client.refused.push(format!("{id} {:?}", reply.outcome));
            }
        }
        let signed_out = good && open.kind.starts_with("Logout#");
        let for_good = signed_out
            && match self.plan.extra.calm {
                Some((begin, _)) => self.leaves_before(index, begin),
                None => self.other_rng.one_in(3),
            };
        let client = &mut self.clients[index];
        if signed_out {
            client.out_since = Some(self.now);
        }
        let re_login = reply.error.as_ref().is_some_and(|e| e.code == "RE_LOGIN");
        // It may be signed out at the platform: as a person would see.
        let works = client.want == Want::Work;
        let lost = self.plan.extra.states && works && reply.outcome == Outcome::Failed;
        let perhaps_out = reply.outcome == Outcome::InDoubt && open.kind.starts_with("Logout#");
        client.want = match client.want {
            _ if re_login || lost || perhaps_out => Want::Connect,
            _ if for_good => Want::Nothing,
            _ if signed_out => Want::Connect,
            Want::Connect if good => Want::Login,
            Want::Login if good => Want::Work,
            same => same,
        };
        self.after(wait, Ev::Client(index, number));
    }

    /// Whether a client is to sign out for good now, before all are calm.
    fn leaves_before(&self, index: usize, calm: u64) -> bool {
        let going = self
            .plan
            .faults
            .first()
            .is_some_and(|away| self.now > away.at);
        index.is_multiple_of(2) && going && self.now < calm
    }

    /// A client goes to the other broker, with what it has under way.
    pub fn client_moves(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.site = 1 - client.site;
        let (agent, site) = (client.agent.clone(), client.site);
        self.trace
            .say(self.now, || format!("client of {agent} moves to b{site}"));
    }

    /// A message that is no command: it is refused and kept for people, and harms nobody.
    pub fn hostile(&mut self, number: u64) {
        let broker = self.rng.index(2);
        if !self.brokers[broker].up {
            self.after(500, Ev::Hostile(number));
            return;
        }
        let good = || Some("MakeReady#1001".to_owned());
        let text = |text: &'static str| Some(text.to_owned());
        let mut raw = RawMessage {
            reply_to: text("somewhere"),
            ..RawMessage::default()
        };
        match self.rng.below(8) {
            0 => raw.body = Bytes::from_static(b"\xff\x00 no text"),
            1 => raw.kind = text("Teleport#1001"),
            2 => raw.kind = text("MakeCall"),
            3 => raw.kind = text("MakeReady#../../etc"),
            4 => (raw.kind, raw.reply_to) = (good(), text("Connector1")),
            5 => (raw.kind, raw.reply_to) = (good(), text("tandem.control.gc-1")),
            6 => (raw.kind, raw.body) = (good(), Bytes::from(vec![b'x'; 64 * 1024 + 1])),
            _ => {
                raw.kind = text("Login#1001");
                raw.content_type = text("application/json");
                raw.body = Bytes::from(format!("{{\"password\":\"{PLANTED_SECRET}\""));
            }
        }
        let id = format!("hostile:{number}");
        raw.message_id = Some(id.clone());
        raw.correlation_id = Some(id.clone());
        self.seen.accepted(&id, self.now);
        self.enqueue(broker, raw);
    }
}

impl Client {
    pub fn next_command(&self, random: u64, leaves: bool, now: u64) -> Open {
        let agent = &self.agent;
        let (name, body) = match self.want {
            Want::Connect => ("Connect", format!("desk-{agent},{PLANTED_SECRET}")),
            Want::Login => ("Login", format!("{PLANTED_SECRET},{agent}")),
            Want::Work | Want::Nothing => match random {
                _ if leaves => ("Logout", String::new()),
                0..35 => ("MakeCall", "5000".to_owned()),
                35..60 => ("MakeReady", String::new()),
                60..85 => ("MakeNotReady", String::new()),
                _ => ("GetState", String::new()),
            },
        };
        Open {
            kind: format!("{name}#{agent}"),
            body,
            id: format!("{agent}:{}", self.number),
            attempts: 0,
            first_sent: now,
        }
    }
}
