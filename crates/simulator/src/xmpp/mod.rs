//! The notification service: XMPP over TCP, server side (reference section 8).
//!
//! One task a connection; a session is registered with its agent at bind and gets events as soon
//! as it has sent presence. Pushing never waits: a session whose queue is full is closed.

mod framer;
mod login;
mod session;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use login::Service;

/// One stanza on its way to a client.
#[derive(Debug)]
pub struct Outgoing {
    due: Option<Instant>,
    text: String,
}

impl Outgoing {
    /// To be written at once.
    pub fn now(text: String) -> Self {
        Self { due: None, text }
    }

    /// To be written after `delay`.
    pub fn after(text: String, delay: Duration) -> Self {
        let due = (!delay.is_zero()).then(|| Instant::now() + delay);
        Self { due, text }
    }
}

/// A bound connection of an agent.
#[derive(Debug)]
pub struct Session {
    /// Node 1 or 2.
    pub node: usize,
    /// Resource of the full JID.
    pub resource: String,
    /// Whether presence was sent: only then are events delivered.
    pub available: bool,
    serial: u64,
    queue: mpsc::Sender<Outgoing>,
    end: CancellationToken,
    why: Arc<OnceLock<&'static str>>,
}

impl Session {
    /// Queues a stanza; closes the session when its queue is full.
    pub fn push(&self, stanza: Outgoing) {
        if self.queue.try_send(stanza).is_err() {
            self.close("resource-constraint");
        }
    }

    /// Closes the connection with that stream error.
    pub fn close(&self, condition: &'static str) {
        // The first reason stands.
        let _ = self.why.set(condition);
        self.end.cancel();
    }

    /// The full JID.
    pub fn jid(&self, agent: &str, domain: &str) -> String {
        format!("{}@{domain}/{}", jid_escape(agent), escaped(&self.resource))
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    super::xml::escape(&mut out, text);
    out
}

/// Pairs of XEP-0106, the backslash last so that escaping stays reversible.
const JID_ESCAPES: [(&str, &str); 10] = [
    (" ", "\\20"),
    ("\"", "\\22"),
    ("&", "\\26"),
    ("'", "\\27"),
    ("/", "\\2f"),
    (":", "\\3a"),
    ("<", "\\3c"),
    (">", "\\3e"),
    ("@", "\\40"),
    ("\\", "\\5c"),
];

/// An agent id as the local part of a JID: lower case, XEP-0106 escapes.
pub fn jid_escape(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for c in id.chars() {
        match JID_ESCAPES.iter().find(|(plain, _)| plain.starts_with(c)) {
            Some((_, code)) => out.push_str(code),
            None => out.extend(c.to_lowercase()),
        }
    }
    out
}

/// The agent id behind the local part of a JID.
fn jid_unescape(local: &str) -> String {
    let mut out = local.to_owned();
    for (plain, code) in JID_ESCAPES {
        out = out.replace(code, plain);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_the_jid() {
        assert_eq!(jid_escape("Nora.Keel@x y"), "nora.keel\\40x\\20y");
        assert_eq!(jid_unescape("nora.keel\\40x\\20y"), "nora.keel@x y");
    }

    #[tokio::test]
    async fn a_full_queue_closes_the_session() {
        let (queue, _rx) = mpsc::channel(1);
        let session = Session {
            node: 1,
            resource: "r".to_owned(),
            available: true,
            serial: 1,
            queue,
            end: CancellationToken::new(),
            why: Arc::default(),
        };
        session.push(Outgoing::now(String::new()));
        assert!(!session.end.is_cancelled());
        session.push(Outgoing::now(String::new()));
        assert!(session.end.is_cancelled());
        session.close("conflict");
        assert_eq!(session.why.get(), Some(&"resource-constraint"));
    }
}
