//! The client: a closed loop of commands, each answered by a reply.
//!
//! Commands are published without confirms on one connection, replies come without
//! acknowledgements on another; the time of sending travels in the correlation id, so that there
//! is no table to keep.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::sync::Semaphore;

use crate::errors::Result;

/// How long commands may stay unanswered before the run is given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Opens a connection with this name.
pub async fn connect(uri: &str, name: &str) -> Result<Connection> {
    let mut uri: AMQPUri = uri.parse()?;
    uri.query.heartbeat = Some(10);
    let properties =
        ConnectionProperties::default().with_connection_name(name.to_owned().into_bytes().into());
    Ok(tandem::broker::guard::connect(uri, properties).await?)
}

/// One command.
pub struct Command {
    /// `Name#address`.
    pub kind: String,
    /// Arguments.
    pub body: String,
}

#[derive(Default)]
struct Tally {
    /// Microseconds from sending to the reply, in the order of the replies.
    latencies: Vec<u32>,
    unwanted: u64,
    /// The first reply that was none of the expected ones.
    example: Option<String>,
}

struct Shared {
    start: Instant,
    sent: AtomicU64,
    answered: AtomicU64,
    tally: Mutex<Tally>,
    window: Semaphore,
}

impl Shared {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The client of one connector.
pub struct Client {
    shared: Arc<Shared>,
    commands: Channel,
    queue: String,
    replies: String,
    session: u64,
    _connections: (Connection, Connection),
}

impl Client {
    /// Connects; commands go to `queue`, of which `window` may be unanswered at a time. With
    /// `events` the client also takes the events of that destination. `wanted`: outcomes that are
    /// to come.
    pub async fn open(
        broker: &str,
        queue: &str,
        window: usize,
        events: Option<&str>,
        wanted: &'static [&'static str],
    ) -> Result<Self> {
        let publish = connect(broker, "bench/client/publish").await?;
        let consume = connect(broker, "bench/client/consume").await?;
        let commands = publish.create_channel().await?;
        let channel = consume.create_channel().await?;
        let replies = exclusive_queue(&channel).await?;
        let shared = Arc::new(Shared {
            start: Instant::now(),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            tally: Mutex::default(),
            window: Semaphore::new(window),
        });
        tokio::spawn(take_replies(
            Arc::clone(&shared),
            consumer(&channel, &replies).await?,
            wanted,
        ));
        if let Some(destination) = events {
            take_events(&channel, destination).await?;
        }
        Ok(Self {
            shared,
            commands,
            queue: queue.to_owned(),
            replies,
            session: u64::from(std::process::id()) << 32 | u64::from(fresh()),
            _connections: (publish, consume),
        })
    }

    /// Sends one command, once the window has room.
    pub async fn send(&self, command: &Command) -> Result<()> {
        self.send_as_of(command, None).await
    }

    /// Likewise; its latency counts from the time at which it was to be sent, where that is given.
    pub async fn send_as_of(&self, command: &Command, due: Option<Instant>) -> Result<()> {
        let permit = tokio::time::timeout(ANSWER_LIMIT, self.shared.window.acquire()).await??;
        // Given back by the reply.
        permit.forget();
        let number = self.shared.sent.fetch_add(1, Ordering::Relaxed);
        let due = due.unwrap_or_else(Instant::now);
        let micros = due.duration_since(self.shared.start).as_micros();
        let properties = BasicProperties::default()
            .with_type(command.kind.as_str().into())
            .with_message_id(format!("{:x}-{number:x}", self.session).into())
            .with_correlation_id(micros.to_string().into())
            .with_reply_to(self.replies.as_str().into())
            .with_delivery_mode(1);
        // No confirm was asked for: there is nothing to wait for.
        let confirm = self
            .commands
            .basic_publish(
                "".into(),
                self.queue.as_str().into(),
                BasicPublishOptions::default(),
                command.body.as_bytes(),
                properties,
            )
            .await?;
        drop(confirm);
        Ok(())
    }

    /// Waits until everything sent is answered.
    pub async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let (sent, answered) = (self.shared.sent.load(Ordering::Relaxed), self.answered());
            let Some(open) = sent.checked_sub(answered) else {
                let more = answered - sent;
                return Err(format!(
                    "{more} answers too many: commands were delivered again, as after a lost \
                     connection; measure on a calm machine"
                )
                .into());
            };
            if open == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{open} commands were never answered").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Commands answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Latencies in microseconds since the last call, in the order of the replies.
    ///
    /// # Errors
    /// Where a reply was none of those wanted: the figures would be of something else.
    pub fn take_latencies(&self) -> Result<Vec<u32>> {
        let mut tally = self.shared.tally();
        if let Some(example) = tally.example.take() {
            return Err(format!("{} replies like this one: {example}", tally.unwanted).into());
        }
        Ok(std::mem::take(&mut tally.latencies))
    }
}

/// A number that no other client of this process has.
fn fresh() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

async fn exclusive_queue(channel: &Channel) -> Result<String> {
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), options, FieldTable::default())
        .await?;
    Ok(queue.name().to_string())
}

async fn consumer(channel: &Channel, queue: &str) -> Result<lapin::Consumer> {
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    Ok(channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await?)
}

async fn take_replies(
    shared: Arc<Shared>,
    mut replies: lapin::Consumer,
    wanted: &'static [&'static str],
) {
    let wanted: Vec<String> = (wanted.iter())
        .map(|outcome| format!(r#""outcome":"{outcome}""#))
        .collect();
    while let Some(Ok(delivery)) = replies.next().await {
        let now = shared.start.elapsed().as_micros();
        let sent: u128 = delivery
            .properties
            .correlation_id()
            .as_ref()
            .and_then(|id| id.as_str().parse().ok())
            .unwrap_or(now);
        let latency = u32::try_from(now.saturating_sub(sent)).unwrap_or(u32::MAX);
        let text = String::from_utf8_lossy(&delivery.data);
        let wanted = wanted.iter().any(|outcome| text.contains(outcome));
        {
            let mut tally = shared.tally();
            tally.latencies.push(latency);
            if !wanted {
                tally.unwanted += 1;
                tally.example.get_or_insert_with(|| text.into_owned());
            }
        }
        shared.answered.fetch_add(1, Ordering::Relaxed);
        shared.window.add_permits(1);
    }
}

async fn take_events(channel: &Channel, destination: &str) -> Result<()> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let exchange = "tandem.events";
    channel
        .exchange_declare(
            exchange.into(),
            lapin::ExchangeKind::Topic,
            options,
            FieldTable::default(),
        )
        .await?;
    let queue = exclusive_queue(channel).await?;
    channel
        .queue_bind(
            queue.as_str().into(),
            exchange.into(),
            destination.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let mut events = consumer(channel, &queue).await?;
    tokio::spawn(async move { while events.next().await.is_some() {} });
    Ok(())
}
