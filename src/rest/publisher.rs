//! Puts commands on the command queue: the first broker of the list that takes them, a confirm for
//! each, and mandatory, so that a queue that is missing is noticed.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Confirmation};
use tokio::sync::OwnedSemaphorePermit;

use super::callback::Objects;
use super::connection::{BadConfig, Broker, Dial};
use super::request::{Asked, Callback};
use super::way::{Lease, Way};
use crate::broker::guard;
use crate::net::TlsClient;
use crate::renewed::Renewed;

/// Bound of one publication with its confirm.
const CONFIRM: Duration = Duration::from_secs(5);
const PERSISTENT: u8 = 2;

/// Where commands are put.
#[derive(Clone)]
pub struct PublisherConfig {
    /// `instance.id`, shown at the broker.
    pub instance: String,
    /// AMQP URIs with credentials, and what they are called; in order of preference.
    pub brokers: Renewed<Vec<(String, String)>>,
    /// The command queue.
    pub queue: String,
    /// AMQP heartbeat, whole seconds.
    pub heartbeat: Duration,
    /// Bound of one connect-and-open.
    pub timeout: Duration,
    /// Certificates.
    pub tls: TlsClient,
    /// What callbacks need at a broker, where there are any.
    pub callbacks: Option<Objects>,
}

impl PublisherConfig {
    pub(super) fn dial(&self) -> Dial {
        Dial {
            instance: self.instance.clone(),
            timeout: self.timeout,
            tls: self.tls.clone(),
        }
    }
}

impl std::fmt::Debug for PublisherConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URIs hold passwords.
        f.debug_struct("PublisherConfig")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// Why a command is not confirmed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It is on no queue.
    #[error("not taken: {0}")]
    NotTaken(String),
    /// It is on no queue, as its events could not be posted: in words that say what to do.
    #[error("not taken: callback: {0}")]
    Callback(String),
    /// It may be on one.
    #[error("unknown: {0}")]
    Unknown(String),
}

impl Failure {
    /// Whether it may be on a queue, in a word.
    pub(super) fn taken(&self) -> &'static str {
        match self {
            Self::NotTaken(_) | Self::Callback(_) => "no",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Publishes commands: one way a broker.
pub(super) struct Publisher {
    config: PublisherConfig,
    ways: Vec<Arc<Way>>,
}

impl Publisher {
    pub(super) fn new(config: PublisherConfig) -> Result<Self, BadConfig> {
        config.tls.config()?;
        let way = |broker| Way::new(broker, config.dial());
        let brokers = Broker::all(&config.brokers, config.heartbeat)?;
        Ok(Self {
            ways: brokers.into_iter().map(way).collect(),
            config,
        })
    }

    /// As `publish`, and to its end whoever still waits for it: a client that hangs up must not keep
    /// the others from learning that a broker cannot be reached. `place` is given back at the end.
    pub(super) async fn publish_to_the_end(
        self: &Arc<Self>,
        asked: Asked,
        place: OwnedSemaphorePermit,
    ) -> Result<(), Failure> {
        let publisher = Arc::clone(self);
        let publishing = tokio::spawn(async move {
            let _place = place;
            publisher.publish(asked).await
        });
        let published = publishing.await;
        published.unwrap_or_else(|error| Err(Failure::Unknown(error.to_string())))
    }

    /// Puts a command on the queue of the first broker that takes it. After one that may have taken
    /// it the next gets it as a further attempt of the same id, which is never run twice.
    async fn publish(&self, mut asked: Asked) -> Result<(), Failure> {
        let mut failure = Failure::NotTaken("no broker is configured".to_owned());
        for way in &self.ways {
            let label = &way.broker.label;
            match self.publish_at(way, &asked).await {
                Ok(()) => return Ok(()),
                // What was unknown before stays so; and what can be mended is said before what
                // another broker says, which may just be down.
                Err(Failure::NotTaken(reason)) => {
                    if matches!(failure, Failure::NotTaken(_)) {
                        failure = Failure::NotTaken(format!("{label}: {reason}"));
                    }
                }
                Err(Failure::Callback(reason)) => {
                    if !matches!(failure, Failure::Unknown(_)) {
                        failure = Failure::Callback(format!("{label}: {reason}"));
                    }
                }
                Err(Failure::Unknown(reason)) => {
                    asked.attempt = asked.attempt.max(1).saturating_add(1);
                    failure = Failure::Unknown(format!("{label}: {reason}"));
                }
            }
        }
        Err(failure)
    }

    async fn publish_at(&self, way: &Arc<Way>, asked: &Asked) -> Result<(), Failure> {
        let lease = way.lease().await.map_err(Failure::NotTaken)?;
        self.register(way, &lease, asked).await?;
        let publish = async {
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let queue = ShortString::from(self.config.queue.as_str());
            let confirm = lease.channel().basic_publish(
                ShortString::default(),
                queue,
                options,
                &asked.body,
                properties(asked, &self.config.instance),
            );
            confirm.await?.await
        };
        match tokio::time::timeout(CONFIRM, publish).await {
            Ok(Ok(confirmation)) => {
                lease.answered();
                self.meant_by(&confirmation)
            }
            Ok(Err(error)) => {
                guard::note(&error);
                Err(Failure::Unknown(error.to_string()))
            }
            Err(_) => {
                let why = "no confirm in time";
                lease.gave_nothing(why);
                Err(Failure::Unknown(why.to_owned()))
            }
        }
    }

    fn meant_by(&self, confirmation: &Confirmation) -> Result<(), Failure> {
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => {
                let words = format!("there is no queue {}", self.config.queue);
                Err(Failure::NotTaken(words))
            }
            // A broker says that it answers for nothing, not that it kept nothing: of a queue on
            // several nodes some may have it.
            _ => Err(Failure::Unknown("the broker refuses it".to_owned())),
        }
    }

    /// Before the command, so that the events it causes are posted, too, from the first on.
    async fn register(&self, way: &Way, lease: &Lease, asked: &Asked) -> Result<(), Failure> {
        let (Some(objects), Callback::At(registration)) = (&self.config.callbacks, &asked.callback)
        else {
            return Ok(());
        };
        let at = (&**lease.connection(), way.broker.label.as_str());
        let register = objects.register(at, lease.channel(), registration);
        match tokio::time::timeout(CONFIRM, register).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(Failure::Callback(why)),
            Err(_) => Err(Failure::NotTaken("callback: not in time".to_owned())),
        }
    }

    /// An orderly end, in bounded time.
    pub(super) async fn close(&self) {
        let ways = self.ways.iter().map(|way| way.close());
        futures::future::join_all(ways).await;
    }
}

fn properties(asked: &Asked, instance: &str) -> BasicProperties {
    let text = |text: &str| AMQPValue::LongString(text.as_bytes().into());
    let mut headers = FieldTable::default();
    headers.insert("x-attempt".into(), AMQPValue::LongLongInt(asked.attempt));
    if let Some(deadline) = asked.deadline {
        headers.insert("x-deadline".into(), AMQPValue::LongLongInt(deadline));
    }
    if let Some(trace) = &asked.trace {
        headers.insert("traceparent".into(), text(trace.parent()));
        if let Some(state) = trace.state() {
            headers.insert("tracestate".into(), text(state));
        }
    }
    // Ids are bounded where they are read; an instance's id is 32 characters at most.
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(ShortString::from(asked.id.as_str()))
        .with_timestamp(asked.timestamp)
        .with_app_id(ShortString::from(instance))
        .with_headers(headers);
    match &asked.correlation_id {
        Some(id) => properties.with_correlation_id(ShortString::from(id.as_str())),
        None => properties,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::super::fake_broker::{FakeBroker, Manner};
    use super::*;

    /// What a silent broker costs who waits for it.
    const PATIENCE: Duration = Duration::from_secs(10);
    const LIMIT: Duration = Duration::from_secs(60);

    fn publisher(brokers: &[&str]) -> Publisher {
        within(Duration::from_millis(300), brokers)
    }

    fn within(timeout: Duration, brokers: &[&str]) -> Publisher {
        let brokers = brokers
            .iter()
            .map(|uri| ((*uri).to_owned(), (*uri).to_owned()));
        Publisher::new(PublisherConfig {
            instance: "gc-1".to_owned(),
            brokers: Renewed::new(brokers.collect()),
            queue: "Connector1".to_owned(),
            heartbeat: Duration::from_secs(2),
            timeout,
            tls: TlsClient::default(),
            callbacks: None,
        })
        .unwrap()
    }

    fn asked() -> Asked {
        Asked {
            id: "a".to_owned(),
            correlation_id: None,
            attempt: 1,
            deadline: None,
            timestamp: 0,
            trace: None,
            body: bytes::Bytes::new(),
            callback: Callback::None,
        }
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_does_not_keep_a_silent_broker_from_being_found_out() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let publisher = Arc::new(publisher(&[&address]));
        let room = Arc::new(tokio::sync::Semaphore::new(1));
        let place = Arc::clone(&room).try_acquire_owned().unwrap();
        let client = publisher.publish_to_the_end(asked(), place);
        let waited = tokio::time::timeout(Duration::from_millis(20), client).await;
        assert!(waited.is_err());
        // The place is free once the attempt has ended.
        let ended = tokio::time::timeout(Duration::from_secs(20), room.acquire()).await;
        drop(ended.unwrap().unwrap());
        assert!(publisher.ways[0].has_failed());
    }

    #[tokio::test]
    async fn where_no_broker_is_reached_nothing_was_taken_and_many_do_not_wait_in_turn() {
        // A port that nobody listens on, and one that never answers.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = (silent.local_addr().unwrap().to_string(), silent);
        let publisher = within(Duration::from_secs(1), &["127.0.0.1:1", &silent.0]);
        let begun = Instant::now();
        let all = (0..20).map(|_| publisher.publish(asked()));
        for ended in futures::future::join_all(all).await {
            assert_eq!(ended.unwrap_err().taken(), "no");
        }
        // In turn it would be twenty times the second.
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(15), "{took:?}");
    }

    fn to(brokers: &[&FakeBroker]) -> Publisher {
        let addresses: Vec<String> = brokers.iter().map(|broker| broker.address()).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        within(PATIENCE, &addresses)
    }

    /// Publishes until it is so.
    async fn until(publisher: &Publisher, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < LIMIT, "{what}");
            let _ = publisher.publish(asked()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A broker of that manner, one that confirms, and what publishes to the first that takes it.
    async fn two(manner: Manner) -> (FakeBroker, FakeBroker, Publisher) {
        let (first, second) = (
            FakeBroker::start(manner).await,
            FakeBroker::start(Manner::Confirms).await,
        );
        let publisher = to(&[&first, &second]);
        (first, second, publisher)
    }

    /// One command went to it, and the connection outlives what it was in.
    async fn its_connection_is_used_again(broker: &FakeBroker, publisher: &Publisher) {
        let seen = broker.seen();
        assert_eq!((seen.attempts.len(), seen.connections), (1, 1));
        broker.set(Manner::Confirms);
        until(publisher, "it is used again", || {
            broker.seen().attempts.len() > 1
        })
        .await;
        assert_eq!(broker.seen().connections, 1);
    }

    async fn at_once(publisher: &Publisher) {
        let begun = Instant::now();
        publisher.publish(asked()).await.unwrap();
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_broker_that_confirms_nothing_is_left_for_the_next_one_and_tried_by_one_at_a_time() {
        let (first, second, publisher) = two(Manner::Confirms).await;
        publisher.publish(asked()).await.unwrap();
        first.set(Manner::SaysNothing);
        let all = (0..5).map(|_| publisher.publish(asked()));
        for ended in futures::future::join_all(all).await {
            ended.unwrap();
        }
        assert_eq!(second.seen().attempts, [2; 5]);
        for _ in 0..20 {
            at_once(&publisher).await;
        }
        assert_eq!(second.seen().attempts[5..], [1; 20]);
        // It is tried again by one, who waits in vain; the others do not.
        let tried = first.seen().attempts.len();
        let begun = Instant::now();
        while first.seen().attempts.len() == tried {
            assert!(begun.elapsed() < LIMIT);
            let all = (0..5).map(|_| publisher.publish(asked()));
            futures::future::join_all(all).await;
        }
        let seen = first.seen();
        assert_eq!((seen.attempts.len(), seen.connections), (tried + 1, 2));
        first.set(Manner::Confirms);
        until(&publisher, "it is used again", || {
            first.seen().attempts.len() > tried + 2
        })
        .await;
        let seen = first.seen();
        // What hung was cut, although the broker did not end it.
        assert!(seen.connections <= 3 && seen.open == 1, "{seen:?}");
    }

    #[tokio::test]
    async fn in_an_alarm_of_a_broker_the_next_one_is_taken_at_once_and_no_connection_is_opened() {
        let (first, second, publisher) = two(Manner::IsInAlarm).await;
        for _ in 0..20 {
            at_once(&publisher).await;
        }
        assert_eq!(second.seen().attempts, [1; 19]);
        its_connection_is_used_again(&first, &publisher).await;
    }

    #[tokio::test]
    async fn in_an_alarm_that_keeps_a_confirm_back_one_command_waits_and_one_connection_stands() {
        let (first, second, publisher) = two(Manner::HoldsBack).await;
        publisher.publish(asked()).await.unwrap();
        assert_eq!(second.seen().attempts, [2]);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            at_once(&publisher).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        its_connection_is_used_again(&first, &publisher).await;
    }

    #[tokio::test]
    async fn what_a_broker_refuses_it_may_have_kept() {
        let (_first, second, publisher) = two(Manner::Refuses).await;
        publisher.publish(asked()).await.unwrap();
        assert_eq!(second.seen().attempts, [2]);
        second.set(Manner::Refuses);
        let refused = publisher.publish(asked()).await.unwrap_err();
        assert_eq!(refused.taken(), "unknown");
    }

    #[tokio::test]
    async fn a_broker_that_takes_connections_and_says_nothing_delays_the_first_and_is_let_go() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let (told, mut ended) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = silent.accept().await {
                let told = told.clone();
                tokio::spawn(async move {
                    let mut all = Vec::new();
                    // Ends when the other side has closed.
                    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all).await;
                    let _ = told.try_send(all);
                });
            }
        });
        let second = FakeBroker::start(Manner::Confirms).await;
        let second_address = second.address();
        let timeout = Duration::from_secs(3);
        let publisher = within(timeout, &[&address, &second_address]);
        publisher.publish(asked()).await.unwrap();
        let begun = Instant::now();
        // It is dialled twice meanwhile.
        while begun.elapsed() < Duration::from_secs(9) {
            at_once(&publisher).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..2 {
            let greeting = tokio::time::timeout(LIMIT, ended.recv()).await;
            assert!(greeting.unwrap().unwrap().starts_with(b"AMQP"));
        }
        let attempts = second.seen().attempts;
        assert!(attempts.iter().all(|attempt| *attempt == 1));
    }

    #[tokio::test]
    async fn a_broker_that_ends_connections_is_not_dialled_by_everybody_who_comes() {
        let (first, second) = (
            FakeBroker::start(Manner::Leaves).await,
            FakeBroker::start(Manner::Confirms).await,
        );
        let publisher = to(&[&first, &second]);
        until(&publisher, "many were taken", || {
            second.seen().attempts.len() > 50
        })
        .await;
        assert!(first.seen().connections < 5, "{:?}", first.seen());
    }
}
