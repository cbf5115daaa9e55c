//! The notification service: one XMPP session an agent.
//!
//! [`subscribe`] starts one task that logs in once and then reports what the service says, until
//! the session ends. It never connects a second time: whether, when and where to try again is the
//! engine's decision, which is told apart by [`Happening`]: refused credentials (do not loop), an
//! unreachable service, no room for a connection on this machine, a session that was lost.
//!
//! The XML stream and its stanzas are those of `tokio-xmpp` and `xmpp-parsers`; the login is done
//! here, because the library's own client neither reports a failed login nor leaves reconnecting
//! to its user.

mod event;
mod guard;
mod login;
mod session;
pub mod shell;
mod stanza;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What a session reports. `Refused`, `Unreachable`, `NoRoom` and `Lost` are terminal: exactly one of them ends
/// a session that was not closed by its owner, and nothing follows it.
pub use crate::engine::input::Notice as Happening;
use crate::model::{AgentId, Secret};
use crate::net::TlsClient;

/// Orders that a session has not yet taken.
const MAX_ORDERS: usize = 64;

/// How the connection is protected. The settings are shared by all sessions.
#[derive(Debug, Clone)]
pub enum Tls {
    /// TLS from the first byte (port 5223).
    Direct(TlsClient),
    /// STARTTLS where the service offers it, else none (port 5222).
    StartTlsIfOffered(TlsClient),
}

/// One session to be opened.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Whose notifications.
    pub agent: AgentId,
    /// Of the agent.
    pub password: Secret,
    /// Name or address to connect to, an IPv6 address without brackets; the certificate must be
    /// issued for it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The node's `xmppDomain`.
    pub domain: String,
    /// Protection of the connection.
    pub tls: Tls,
    /// XMPP resource, e.g. `tandem-<instance>`; `desktop` is the platform's own.
    pub resource: String,
    /// Time from connect until the session is up.
    pub connect_timeout: Duration,
    /// Time between keepalive pings; two that stay unanswered end the session.
    pub ping_interval: Duration,
}

/// Where sessions report: agent, the epoch given to [`subscribe`], happening.
pub type Sink = mpsc::Sender<(AgentId, u64, Happening)>;

/// A running session. Dropping it closes the session politely (presence unavailable, end of
/// stream) in the background; nothing is reported after that.
#[derive(Debug)]
pub struct Subscription {
    closed: CancellationToken,
    orders: mpsc::Sender<Order>,
}

impl Subscription {
    /// Ends the session. Further calls do nothing.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Subscribes the session to the members of a team (supervisors only), once it is up.
    /// `pubsub_domain` is the node's `xmppPubSubDomain`. Returns whether the order was taken: not
    /// where the session is over or 64 orders wait.
    pub fn watch_team(&self, pubsub_domain: &str, team: &str) -> bool {
        let order = Order {
            pubsub_domain: pubsub_domain.into(),
            team: team.into(),
        };
        !self.closed.is_cancelled() && self.orders.try_send(order).is_ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.close();
    }
}

/// The updates in a stanza of the notification service.
pub(crate) fn updates_of(stanza: &[u8]) -> usize {
    match xso::from_bytes(stanza) {
        Ok(stanza::Incoming::Message(message)) => event::updates(&message).len(),
        _ => 0,
    }
}

/// "Watch this team."
#[derive(Debug)]
struct Order {
    pubsub_domain: Box<str>,
    team: Box<str>,
}

/// Opens a session in a new task. All its happenings carry `epoch`. A full `sink` slows the
/// session down, which slows the service down; nothing is dropped.
///
/// Must be called within a tokio runtime.
pub fn subscribe(spec: Spec, epoch: u64, sink: Sink) -> Subscription {
    let closed = CancellationToken::new();
    let (orders, taken) = mpsc::channel(MAX_ORDERS);
    tokio::spawn(session::run(spec, epoch, sink, closed.clone(), taken));
    Subscription { closed, orders }
}

#[cfg(test)]
mod tests;
