//! Bursts: a client sends several commands in one go and awaits all of them; some have no id.

use bytes::Bytes;
use tandem_wire::message::RawMessage;
use tandem_wire::reply::Reply;

use crate::world::{Ev, WALL, World};

/// How a command without an id is called here, by the only thing that tells it: the correlation id.
pub const ANONYMOUS: &str = "anonymous:";

/// Numbers that anonymous calls go to; each call has its own.
const NUMBERS: u64 = 7_000_000;

/// The name of an anonymous command by the number that it calls.
pub fn anonymous(number: &str) -> Option<String> {
    let own = number.parse().is_ok_and(|number: u64| number >= NUMBERS);
    own.then(|| format!("{ANONYMOUS}{number}"))
}

impl World {
    /// A client begins a burst, as soon as it has nothing under way.
    pub fn burst(&mut self, index: usize) {
        let burst = self.plan.extra.bursts[index];
        if self.stopping() {
            return;
        }
        let client = &self.clients[burst.client];
        if !client.works() || !self.brokers[client.site].up {
            self.after(200, Ev::Burst(index));
            return;
        }
        for _ in 0..burst.count {
            let random = self.other_rng.below(100);
            let nameless = burst.nameless && self.other_rng.one_in(3);
            let client = &mut self.clients[burst.client];
            client.number += 1;
            let mut open = client.next_command(random, false, self.now);
            if nameless {
                let number = NUMBERS + 10_000 * burst.client as u64 + client.number;
                open.id = format!("{ANONYMOUS}{number}");
                if open.kind.starts_with("MakeCall") {
                    open.body = number.to_string();
                }
            }
            let id = open.id.clone();
            client.several.insert(id.clone(), open);
            self.send_of_burst(burst.client, &id);
        }
    }

    /// Sends one of a burst, or sends it again.
    pub fn send_of_burst(&mut self, index: usize, id: &str) {
        let client = &mut self.clients[index];
        let (site, resend, reply_to) = (client.site, client.resend, client.reply_to());
        let Some(open) = client.several.get_mut(id) else {
            return;
        };
        let again = Ev::Again(index, id.to_owned());
        if !self.brokers[site].up {
            self.after(250, again);
            return;
        }
        open.attempts += 1;
        let raw = RawMessage {
            kind: Some(open.kind.clone()),
            body: Bytes::from(open.body.clone()),
            message_id: (!id.starts_with(ANONYMOUS)).then(|| id.to_owned()),
            correlation_id: Some(id.to_owned()),
            reply_to: Some(reply_to),
            attempt: Some(open.attempts),
            timestamp: Some((WALL + self.now) / 1_000),
            ..RawMessage::default()
        };
        self.trace.say(self.now, || {
            format!(
                "burst of {:?} {id} attempt {:?} at b{site}",
                raw.kind, raw.attempt
            )
        });
        self.after(resend, again);
        self.seen.accepted(id, self.now);
        self.enqueue(site, raw);
    }

    /// A reply to one of a burst; `false`: it is to none.
    pub fn reply_to_burst(&mut self, index: usize, id: &str, reply: &Reply) -> bool {
        let client = &mut self.clients[index];
        if !client.several.contains_key(id) {
            return false;
        }
        if reply.retry_after_ms.is_some() {
            let again = Ev::Again(index, id.to_owned());
            self.after(1_000, again);
            return true;
        }
        client.several.remove(id);
        client.heard(reply, self.plan.extra.states);
        if client.several.is_empty() {
            let next = Ev::Client(index, client.number);
            self.after(100, next);
        }
        true
    }
}
