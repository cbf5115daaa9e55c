//! The notification service: one XMPP session an agent.
//!
//! [`subscribe`] starts one task that logs in once and then reports what the service says, until
//! the session ends. It never connects a second time: whether, when and where to try again is the
//! engine's decision, which is told apart by [`Happening`]: refused credentials (do not loop), an
//! unreachable service, no room for a connection on this machine, a session that was lost.
//!
//! The client is our own, of what the platform's service needs and no more:
//!
//! | specification | what of it | where |
//! | --- | --- | --- |
//! | RFC 6120 section 4 | stream header, features, stream errors, end of stream, white space keepalives | `stream`, `stanza` |
//! | section 5 | STARTTLS; beside it TLS from the first byte (XEP-0368 without its DNS) | `login`, `connect` |
//! | section 6, RFC 4616, 5802, 7677 | SASL PLAIN, SCRAM-SHA-1, SCRAM-SHA-256 | `sasl` |
//! | section 7 | resource binding | `login` |
//! | section 8 | iq requests answered or declined, stanza errors | `session` |
//! | section 11 | the subset of XML that a stream may use, with bounds | `xml`, `text`, `names` |
//! | RFC 3921 section 3 | session request, where the service demands it | `session` |
//! | RFC 6121 sections 2 to 4 | roster request, presence, the application's presence and a subscription to it | `session`, `application` |
//! | XEP-0060 | event notifications, subscribe and unsubscribe | `message`, `session` |
//! | XEP-0199 | pings in both directions | `session` |
//!
//! Bytes are read once: the pass that cuts the stream into stanzas (`xml`) also finds a
//! notification's payload in it (`message`). Not there, for the platform has none of it: stream
//! management, compression, DNS service records, channel binding.

mod application;
mod connect;
mod login;
mod message;
mod names;
mod orders;
mod outline;
mod sasl;
mod session;
pub mod shell;
mod stanza;
mod stream;
mod text;
mod xml;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What a session reports. `Refused`, `Unreachable`, `NoRoom` and `Lost` are terminal: exactly one of them ends
/// a session that was not closed by its owner, and nothing follows it.
pub use crate::engine::input::Notice as Happening;
use crate::model::{AgentId, Secret};
use crate::net::TlsClient;

use orders::{Order, Orders};

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
    orders: Arc<Orders>,
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
        !self.closed.is_cancelled() && self.orders.push(order)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.close();
    }
}

/// For fuzzing: `stanzas` as what follows a service's stream header, in one piece and byte by byte.
///
/// # Panics
/// Where the two are not read alike.
pub(crate) fn read_stream(stanzas: &[u8]) {
    let header = format!(
        "<?xml version='1.0'?><s:stream xmlns='{}' xmlns:s='{}'>",
        names::CLIENT,
        names::STREAMS
    );
    let stream = [header.as_bytes(), stanzas].concat();
    let whole = stanza::read_all(std::iter::once(&stream[..]));
    let bytes = stanza::read_all(stream.chunks(1));
    assert_eq!(whole, bytes);
}

/// Opens a session in a new task. All its happenings carry `epoch`. A full `sink` slows the
/// session down, which slows the service down; nothing is dropped.
///
/// Must be called within a tokio runtime.
pub fn subscribe(spec: Spec, epoch: u64, sink: Sink) -> Subscription {
    let (closed, orders) = (CancellationToken::new(), Arc::new(Orders::default()));
    let (end, taken) = (closed.clone(), Arc::clone(&orders));
    tokio::spawn(async move {
        let run = session::run(&spec, epoch, &sink, &end, &taken);
        if AssertUnwindSafe(run).catch_unwind().await.is_err() {
            let lost = Happening::Lost {
                conflict: false,
                reason: "an error in this program".to_owned(),
            };
            tokio::select! {
                () = end.cancelled() => {}
                _ = sink.send((spec.agent.clone(), epoch, lost)) => {}
            }
        }
    });
    Subscription { closed, orders }
}

#[cfg(test)]
mod tests;
