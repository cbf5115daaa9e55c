//! One connection to one broker: queues declared and bound, confirms on, consumers running.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    ExchangeKind,
};

use super::pending::Copy;
use super::{ClientError, ClientOptions, QUEUE_EXPIRES, QUEUE_LENGTH};
use crate::broker::cut::{self, CutConnection, How};
use crate::broker::guard;
use crate::model::text::hex;
use crate::net::{amqp, dial};

/// Bound of one publication's way into the socket, and of its confirm.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Messages delivered ahead of [`super::Inbox::next`].
const PREFETCH: u16 = 500;
/// How long the event queue of an earlier connection may take to be declared.
const QUEUE_LIMIT: Duration = Duration::from_secs(1);
/// Longest text of AMQP's short strings, in bytes.
const MAX_SHORT: usize = 255;
const PERSISTENT: u8 = 2;

/// A broker of the list.
#[derive(Clone)]
pub(super) struct Broker {
    /// One an address, at least one: a cluster has several.
    uris: Vec<AMQPUri>,
    pub(super) label: String,
}

/// What is set up on every broker.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) options: ClientOptions,
    pub(super) event_queue: String,
}

/// Why a connection could not be made.
#[derive(Debug)]
pub(super) struct Failure {
    /// The broker answered.
    pub(super) refused: bool,
    pub(super) reason: String,
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        guard::note(&error);
        match error.kind() {
            ErrorKind::ProtocolError(said) => Self {
                refused: true,
                reason: said.get_message().to_string(),
            },
            _ => Self {
                refused: false,
                reason: error.to_string(),
            },
        }
    }
}

/// Reads the broker list.
pub(super) fn brokers(
    uris: &[String],
    options: &ClientOptions,
) -> Result<Vec<Broker>, ClientError> {
    let heartbeat = options.heartbeat.as_secs();
    let read = |(at, text): (usize, &String)| {
        let position = at + 1;
        let mut uris = amqp::uris(text).map_err(|reason| ClientError::Url { position, reason })?;
        for uri in &mut uris {
            uri.query.heartbeat = Some(u16::try_from(heartbeat).unwrap_or(60).max(1));
            if options.tls.has_certificate() && amqp::names_nobody(text) {
                amqp::be_who_the_certificate_says(uri);
            }
        }
        let labels: Vec<String> = uris.iter().map(amqp::label).collect();
        let label = labels.join(",");
        Ok(Broker { uris, label })
    };
    if uris.is_empty() {
        return Err(ClientError::Unreachable("the list is empty".to_owned()));
    }
    uris.iter().enumerate().map(read).collect()
}

/// A name that nobody else has.
pub(super) fn unique(prefix: &str) -> String {
    let mut bytes = [0u8; 12];
    if getrandom::fill(&mut bytes).is_err() {
        // Without a random source the clock and the process tell clients apart.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        bytes[..8].copy_from_slice(&(now.as_nanos() as u64).to_be_bytes());
        bytes[8..].copy_from_slice(&std::process::id().to_be_bytes());
    }
    format!("{prefix}{}", hex(&bytes))
}

/// An open connection, cut where it is dropped without an orderly end. The consumers are taken out
/// by their reader.
pub(super) struct Link {
    /// The address that it leads to, `host:port`.
    pub(super) node: String,
    connection: CutConnection,
    channel: Channel,
    /// A name for this connection only. A reply queue that the client left behind on a broker
    /// that it lost would else swallow replies which a connector on that broker gives to commands
    /// from here.
    reply_queue: String,
    /// Usually that of the setup.
    event_queue: String,
    pub(super) consumers: Option<(Consumer, Consumer)>,
}

impl Link {
    /// On the first address that gives all of it.
    pub(super) async fn open(broker: &Broker, setup: &Setup) -> Result<Self, Failure> {
        let limit = setup.options.connect_limit;
        let open = on_any(broker, |at| Self::open_unbounded(&broker.uris[at], setup));
        tokio::time::timeout(limit, open).await.unwrap_or_else(|_| {
            Err(Failure {
                refused: false,
                reason: format!("not open within {limit:?}"),
            })
        })
    }

    async fn open_unbounded(uri: &AMQPUri, setup: &Setup) -> Result<Self, Failure> {
        let name = format!("tandem-client/{}", setup.options.destination);
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into_bytes().into())
            .with_client_property("product".into(), b"tandem client".to_vec().into());
        let connection = connect(uri, &setup.options, properties).await?;
        declare_exchanges(&connection, &setup.options.cluster).await?;
        let channel = connection.create_channel().await?;
        // Without the queue, commands would vanish although the broker confirms them.
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = short(&setup.options.queue);
        channel
            .queue_declare(queue, passive, FieldTable::default())
            .await?;
        let select = ConfirmSelectOptions::default();
        channel.confirm_select(select).await?;
        let reply_queue = unique("reply.");
        let event_queue = event_queue(&connection, setup).await?;
        let consumers = consume(&connection, setup, (&reply_queue, &event_queue)).await?;
        Ok(Self {
            node: amqp::label(uri),
            connection,
            channel,
            reply_queue,
            event_queue,
            consumers: Some(consumers),
        })
    }

    /// Hands one copy of a command to the broker; the confirm is waited for separately.
    pub(super) async fn publish(
        &self,
        setup: &Setup,
        copy: &Copy,
    ) -> Result<impl Future<Output = lapin::Result<Confirmation>> + use<>, Failure> {
        let publish = self.channel.basic_publish(
            ShortString::default(),
            short(&setup.options.queue),
            BasicPublishOptions::default(),
            copy.command.body.as_bytes(),
            properties(&self.reply_queue, copy),
        );
        match tokio::time::timeout(ANSWER_LIMIT, publish).await {
            Ok(confirm) => Ok(confirm?),
            Err(_) => Err(Failure {
                refused: false,
                reason: format!("the broker took nothing for {ANSWER_LIMIT:?}"),
            }),
        }
    }

    /// An orderly end: the queues go too.
    pub(super) async fn close(self) {
        let end = async {
            for queue in [&self.reply_queue, &self.event_queue] {
                let options = QueueDeleteOptions::default();
                let _ = self.channel.queue_delete(short(queue), options).await;
            }
            let _ = self.connection.close(200, "OK".into()).await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), end).await;
    }
}

/// On the first address of a broker that gives it; bounded by the caller.
async fn on_any<T, A>(broker: &Broker, attempt: impl Fn(usize) -> A) -> Result<T, Failure>
where
    A: Future<Output = Result<T, Failure>>,
{
    let count = broker.uris.len();
    let failures = match dial::in_turn(count, dial::NODE_DELAY, attempt, |_| false).await {
        Ok((_, opened)) => return Ok(opened),
        Err(failures) => failures,
    };
    let refused = failures.iter().any(|(_, failure)| failure.refused);
    let each = failures.into_iter();
    let each = each.map(|(at, failure)| (amqp::label(&broker.uris[at]), failure.reason));
    Err(Failure {
        refused,
        reason: dial::in_words(count == 1, each),
    })
}

/// A connection alone; bounded by the caller.
pub(super) async fn connect_any(
    broker: &Broker,
    options: &ClientOptions,
    properties: ConnectionProperties,
) -> Result<CutConnection, Failure> {
    on_any(broker, |at| {
        connect(&broker.uris[at], options, properties.clone())
    })
    .await
}

/// Bounded by the caller; dropping the future cuts what was begun.
async fn connect(
    uri: &AMQPUri,
    options: &ClientOptions,
    properties: ConnectionProperties,
) -> Result<CutConnection, Failure> {
    let how = How {
        tls: options.tls.clone(),
        limit: options.connect_limit,
        heartbeat: options.heartbeat,
    };
    let opened = cut::open(uri, &how, properties).await;
    opened.map_err(|not| {
        let failure = Failure::from(not.error);
        match not.reason {
            Some(reason) => Failure { reason, ..failure },
            None => failure,
        }
    })
}

/// A client may be there before any connector. Where it may not declare, it takes what is there.
async fn declare_exchanges(connection: &Connection, cluster: &str) -> Result<(), Failure> {
    for (name, kind) in [
        ("events", ExchangeKind::Topic),
        ("replies", ExchangeKind::Direct),
    ] {
        // A refusal closes the channel.
        let channel = connection.create_channel().await?;
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let exchange = short(&format!("{cluster}.{name}"));
        let declare = channel.exchange_declare(exchange, kind, options, FieldTable::default());
        match declare.await {
            Ok(()) => {
                let _ = channel.close(200, "OK".into()).await;
            }
            Err(error) if matches!(error.kind(), ErrorKind::ProtocolError(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The client's event queue, which keeps its name so that what came meanwhile is still there. In a
/// cluster it may be on a node that is down, and then hangs or is refused: another one takes its
/// place.
async fn event_queue(connection: &Connection, setup: &Setup) -> Result<String, lapin::Error> {
    let channel = connection.create_channel().await?;
    let durable = QueueDeclareOptions::durable();
    let declare = channel.queue_declare(short(&setup.event_queue), durable, bounds());
    match tokio::time::timeout(QUEUE_LIMIT, declare).await {
        Ok(Ok(_)) => {
            let _ = channel.close(200, "OK".into()).await;
            return Ok(setup.event_queue.clone());
        }
        Ok(Err(error)) if !matches!(error.kind(), ErrorKind::ProtocolError(_)) => {
            return Err(error);
        }
        Ok(Err(_)) | Err(_) => {}
    }
    let other = unique("events.");
    let channel = connection.create_channel().await?;
    let declare = channel.queue_declare(short(&other), durable, bounds());
    declare.await?;
    let _ = channel.close(200, "OK".into()).await;
    Ok(other)
}

/// Declares and binds both queues and consumes them, replies first.
async fn consume(
    connection: &Connection,
    setup: &Setup,
    (reply_queue, event_queue): (&str, &str),
) -> Result<(Consumer, Consumer), lapin::Error> {
    let options = &setup.options;
    let channel = connection.create_channel().await?;
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let exchange = |name| format!("{}.{name}", options.cluster);
    let (replies, events) = (exchange("replies"), exchange("events"));
    let mut bindings = vec![
        (reply_queue, replies, reply_queue),
        (event_queue, events.clone(), options.destination.as_str()),
    ];
    if options.agent_states {
        bindings.push((event_queue, events, "AgentStates"));
    }
    let durable = QueueDeclareOptions::durable();
    let declare = channel.queue_declare(short(reply_queue), durable, bounds());
    declare.await?;
    for (queue, exchange, key) in bindings {
        let bind = QueueBindOptions::default();
        channel
            .queue_bind(
                short(queue),
                short(&exchange),
                short(key),
                bind,
                FieldTable::default(),
            )
            .await?;
    }
    let start = |queue: &str| {
        let tag = ShortString::default();
        let options = BasicConsumeOptions::default();
        channel.basic_consume(short(queue), tag, options, FieldTable::default())
    };
    Ok((start(reply_queue).await?, start(event_queue).await?))
}

fn bounds() -> FieldTable {
    let millis = i32::try_from(QUEUE_EXPIRES.as_millis()).unwrap_or(i32::MAX);
    let length = i32::try_from(QUEUE_LENGTH).unwrap_or(i32::MAX);
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    arguments.insert("x-queue-type".into(), text("classic"));
    arguments.insert("x-expires".into(), AMQPValue::LongInt(millis));
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(length));
    arguments
}

fn properties(reply_queue: &str, copy: &Copy) -> BasicProperties {
    let command = &copy.command;
    let mut headers = FieldTable::default();
    let attempt = i32::try_from(copy.attempt).unwrap_or(i32::MAX);
    headers.insert("x-attempt".into(), AMQPValue::LongInt(attempt));
    if let Some(deadline) = command.deadline {
        let since = deadline.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        headers.insert("x-deadline".into(), AMQPValue::LongLongInt(millis));
    }
    let content = if command.json {
        "application/json"
    } else {
        "text/plain"
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let properties = BasicProperties::default()
        .with_type(short(&command.kind))
        .with_message_id(short(&copy.id))
        .with_correlation_id(short(&copy.id))
        .with_content_type(content.into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now.as_secs())
        .with_headers(headers);
    if command.reply {
        properties.with_reply_to(short(reply_queue))
    } else {
        properties
    }
}

/// A short string, cut where it would not fit.
pub(super) fn short(text: &str) -> ShortString {
    let mut end = text.len().min(MAX_SHORT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortString::from(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_or_without_scheme_and_errors_name_the_place() {
        let list = ["127.0.0.1:5673", "amqp://u:p@host/%2f", "[::1]:5674"].map(str::to_owned);
        let options = ClientOptions::new("d");
        let brokers = brokers(&list, &options).unwrap();
        let labels: Vec<_> = brokers.iter().map(|b| b.label.as_str()).collect();
        assert_eq!(labels, ["127.0.0.1:5673", "host:5672", "[::1]:5674"]);
        assert_eq!(brokers[2].uris[0].authority.host, "::1");
        assert_eq!(brokers[0].uris[0].query.heartbeat, Some(2));
        let wrong = ["host:1", "http://x"].map(str::to_owned);
        let error = super::brokers(&wrong, &options).err().unwrap();
        assert!(
            matches!(error, ClientError::Url { position: 2, .. }),
            "{error:?}"
        );
    }

    #[test]
    fn a_copy_carries_id_attempt_deadline_and_reply_address() {
        let mut command = super::super::Command::new("MakeReady#1001", "");
        command.deadline = Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
        let copy = Copy {
            command,
            id: "c-1".to_owned(),
            attempt: 2,
        };
        let properties = properties("reply.x", &copy);
        assert_eq!(
            properties.kind().as_ref().unwrap().as_str(),
            "MakeReady#1001"
        );
        assert_eq!(properties.message_id(), properties.correlation_id());
        assert_eq!(properties.reply_to().as_ref().unwrap().as_str(), "reply.x");
        let headers = properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers.get("x-attempt"), Some(&AMQPValue::LongInt(2)));
        assert_eq!(
            headers.get("x-deadline"),
            Some(&AMQPValue::LongLongInt(1_700_000_000_123))
        );
    }

    #[test]
    fn unique_names_differ_and_long_texts_are_cut_at_a_character() {
        assert_ne!(unique("c-"), unique("c-"));
        assert_eq!(short(&"é".repeat(200)).as_str().len(), 254);
    }

    #[tokio::test]
    async fn a_broker_that_says_nothing_is_given_up_and_its_socket_is_closed() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = ClientOptions::new("d");
        options.connect_limit = Duration::from_millis(300);
        let list = [silent.local_addr().unwrap().to_string()];
        let broker = brokers(&list, &options).unwrap().remove(0);
        let event_queue = unique("events.");
        let setup = Setup {
            options,
            event_queue,
        };
        let ended = tokio::spawn(async move {
            let (mut stream, _) = silent.accept().await.unwrap();
            let mut greeting = Vec::new();
            // Ends when the other side has closed.
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut greeting).await;
            greeting
        });
        let failure = Link::open(&broker, &setup).await.err().unwrap();
        assert!(!failure.refused, "{failure:?}");
        let greeting = tokio::time::timeout(Duration::from_secs(30), ended).await;
        assert!(greeting.unwrap().unwrap().starts_with(b"AMQP"));
    }
}
