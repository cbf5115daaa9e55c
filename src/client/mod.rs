//! A small client: sends commands, receives replies and events, survives the loss of its broker.
//!
//! Its event queue has a unique name and is declared and bound again on every broker that the
//! client connects to; it is durable and expires by itself ([`QUEUE_EXPIRES`]), so that what
//! arrives while the connection is away is still there after a reconnect to the same broker. Each
//! connection has a reply queue of its own. A reply that went to an earlier one is asked for
//! again: the command is sent once more under the same `message_id` with a higher `x-attempt`,
//! which a connector answers from what it remembers.

mod inbox;
pub mod letters;
mod link;
mod pending;
mod supervise;
pub mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::net::{TlsClient, TlsError};
pub use inbox::Inbox;
use pending::Request;

/// Commands of one client that wait for their confirm or reply; beyond that
/// [`Client::send`] waits.
pub const MAX_OUTSTANDING: usize = 10_000;
/// Replies and events waiting for [`Inbox::next`]; beyond that they stay on the broker.
pub const INBOX: usize = 4096;
/// An unused reply or event queue is deleted by the broker after this.
pub const QUEUE_EXPIRES: Duration = Duration::from_secs(60);
/// Messages in a reply or event queue; the oldest are dropped.
pub const QUEUE_LENGTH: u32 = 100_000;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The client's own address: events for it carry this routing key.
    pub destination: String,
    /// `cluster.name` of the connectors.
    pub cluster: String,
    /// Queue that commands go to.
    pub queue: String,
    /// AMQP heartbeat, whole seconds.
    pub heartbeat: Duration,
    /// Receive the `AgentStates` snapshots too.
    pub agent_states: bool,
    /// Bound of one connect-and-open.
    pub connect_limit: Duration,
    /// How long [`Client::connect`] goes on trying before it gives up. Once connected, a client
    /// reconnects for ever.
    pub first_limit: Duration,
    /// A command whose reply is outstanding this long after the connection it went over was lost
    /// is sent again; after ten times as long, where that connection stands.
    pub resend_after: Duration,
    /// A command without reply is forgotten after this.
    pub give_up_after: Duration,
    /// Certificates, for amqps. With a certificate of its own, a client whose URL has no user is
    /// who the certificate says (SASL EXTERNAL).
    pub tls: TlsClient,
}

impl ClientOptions {
    /// Options with the contract's names and this destination.
    pub fn new(destination: impl Into<String>) -> Self {
        Self {
            destination: destination.into(),
            cluster: "tandem".to_owned(),
            queue: "Connector1".to_owned(),
            heartbeat: Duration::from_secs(2),
            agent_states: false,
            connect_limit: Duration::from_secs(3),
            first_limit: Duration::from_secs(10),
            resend_after: Duration::from_secs(1),
            give_up_after: Duration::from_secs(90),
            tls: TlsClient::default(),
        }
    }
}

/// One command.
#[derive(Debug, Clone)]
pub struct Command {
    /// `Command#<agent or destination>`: property `type`.
    pub kind: String,
    /// Arguments.
    pub body: String,
    /// The body is a JSON object of named arguments.
    pub json: bool,
    /// `message_id` and `correlation_id`; a fresh one where `None`.
    pub id: Option<String>,
    /// Header `x-deadline`.
    pub deadline: Option<SystemTime>,
    /// Header `x-attempt` of the first copy.
    pub attempt: u32,
    /// Ask for a reply.
    pub reply: bool,
}

impl Command {
    /// A command with text arguments and a reply.
    pub fn new(kind: impl Into<String>, body: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            body: body.into(),
            json: false,
            id: None,
            deadline: None,
            attempt: 1,
            reply: true,
        }
    }

    /// The same with this id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }
}

/// A reply or event as it arrived.
#[derive(Debug, Clone)]
pub struct Message {
    /// Id of the command that caused it.
    pub correlation_id: Option<String>,
    /// Its own id.
    pub message_id: Option<String>,
    /// Instance that sent it.
    pub app_id: Option<String>,
    /// Routing key it was published with.
    pub routing_key: String,
    /// Why not all of its properties could be read, where that is so: no connector sends such.
    pub unreadable: Option<String>,
    /// Headers with text or whole numbers.
    pub headers: BTreeMap<String, Value>,
    /// The body as text; what is not UTF-8 is replaced.
    pub text: String,
    /// The body as JSON; `Null` where it is not JSON.
    pub json: Value,
    /// When it arrived.
    pub received: Instant,
}

impl Message {
    /// A text field of the JSON body; empty where absent.
    pub fn field(&self, name: &str) -> &str {
        self.json
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// `error.code` of a reply; empty where there is none.
    pub fn error_code(&self) -> &str {
        self.json
            .pointer("/error/code")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// What a client receives.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// A terminal answer. The same one may come twice after a resend.
    Reply(Message),
    /// An event.
    Event(Message),
    /// The client is connected to this broker (`host:port`).
    Connected(String),
    /// The connection to this broker was lost.
    Disconnected {
        /// `host:port`.
        broker: String,
        /// Why, without credentials.
        reason: String,
    },
}

/// Why a client could not be made or a command not be sent.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A broker URL cannot be read.
    #[error("broker URL {position} cannot be used: {reason}")]
    Url {
        /// Place in the list, from 1.
        position: usize,
        /// Why.
        reason: &'static str,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No broker of the list could be reached in time.
    #[error("no broker reachable: {0}")]
    Unreachable(String),
    /// One broker of several cannot be reached, or does not answer.
    #[error("broker {broker} cannot be used: {reason}")]
    Away {
        /// `host:port`.
        broker: String,
        /// Why.
        reason: String,
    },
    /// A broker is there but refuses or lacks what the client needs.
    #[error("{broker}: {reason}")]
    Refused {
        /// `host:port`.
        broker: String,
        /// The broker's words.
        reason: String,
    },
    /// The client has ended.
    #[error("the client is closed")]
    Closed,
}

/// A connected client. Clones share the connection; it ends with the last clone.
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    broker: watch::Receiver<Option<String>>,
}

impl Client {
    /// Connects to the first broker of the list that serves, and keeps itself connected to one
    /// until the last clone of the client is dropped. Text without scheme is taken as `host:port`.
    ///
    /// # Errors
    /// A URL or a certificate that cannot be read; no broker usable within `first_limit`.
    pub async fn connect(
        uris: Vec<String>,
        options: ClientOptions,
    ) -> Result<(Self, Inbox), ClientError> {
        options.tls.config()?;
        let brokers = link::brokers(&uris, &options)?;
        let (requests, incoming_requests) = mpsc::channel(64);
        let (inbox, received) = mpsc::channel(INBOX);
        let (broker_is, broker) = watch::channel(None);
        let (ready, first) = oneshot::channel();
        let setup = link::Setup {
            options,
            event_queue: link::unique("events."),
        };
        supervise::start(supervise::Parts {
            brokers,
            setup,
            requests: incoming_requests,
            inbox,
            broker: broker_is,
            ready,
        });
        first.await.map_err(|_| ClientError::Closed)??;
        let client = Self {
            requests,
            room: Arc::new(Semaphore::new(MAX_OUTSTANDING)),
            broker,
        };
        Ok((client, Inbox::new(received)))
    }

    /// Sends a command and waits until a broker has confirmed it, over as many reconnects as that
    /// takes. Gives back the command's id.
    ///
    /// # Errors
    /// [`ClientError::Closed`] where the client has ended.
    pub async fn send(&self, command: Command) -> Result<String, ClientError> {
        let id = command.id.clone().unwrap_or_else(|| link::unique("c-"));
        let room = Arc::clone(&self.room)
            .acquire_owned()
            .await
            .map_err(|_| ClientError::Closed)?;
        let (confirmed, confirm) = oneshot::channel();
        let request = Request::new(command, id.clone(), confirmed, room);
        let sent = self.requests.send(request).await;
        sent.map_err(|_| ClientError::Closed)?;
        confirm.await.map_err(|_| ClientError::Closed)?;
        Ok(id)
    }

    /// `host:port` of the broker that the client is connected to now.
    pub fn broker(&self) -> Option<String> {
        self.broker.borrow().clone()
    }
}
