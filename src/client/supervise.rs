//! Keeps the client connected: one link after the other, for ever, and on each the commands that
//! are not done with.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use lapin::Confirmation;
use lapin::Consumer;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::broker::guard;
use crate::retry::Delays;

use super::inbox::message;
use super::link::{ANSWER_LIMIT, Broker, Failure, Link, Setup};
use super::pending::{Pending, Request};
use super::{ClientError, Incoming};

/// Pause after a round through the list without success: short, because a client's person waits.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often waiting commands are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Copies on their way to their confirm.
const MAX_UNCONFIRMED: usize = 1000;

/// What the supervisor works with.
pub(super) struct Parts {
    pub(super) brokers: Vec<Broker>,
    pub(super) setup: Setup,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) inbox: mpsc::Sender<Incoming>,
    pub(super) broker: watch::Sender<Option<String>>,
    /// Told once: connected, or given up.
    pub(super) ready: oneshot::Sender<Result<(), ClientError>>,
}

struct Supervisor {
    brokers: Vec<Broker>,
    setup: Setup,
    requests: mpsc::Receiver<Request>,
    inbox: mpsc::Sender<Incoming>,
    broker: watch::Sender<Option<String>>,
    pending: Arc<Mutex<Pending>>,
    links: u64,
}

enum Ended {
    /// Nobody holds the client any more.
    Dropped,
    Lost(String),
}

/// Starts the task; it ends when the requests' senders are gone.
pub(super) fn start(parts: Parts) {
    let supervisor = Supervisor {
        brokers: parts.brokers,
        setup: parts.setup,
        requests: parts.requests,
        inbox: parts.inbox,
        broker: parts.broker,
        pending: Arc::default(),
        links: 0,
    };
    tokio::spawn(supervisor.run(parts.ready));
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervisor {
    async fn run(mut self, ready: oneshot::Sender<Result<(), ClientError>>) {
        let first = self.connect_first().await;
        let (mut at, mut link) = match first {
            Ok(connected) => {
                let _ = ready.send(Ok(()));
                connected
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        loop {
            let label = link.node.clone();
            self.links += 1;
            self.broker.send_replace(Some(label.clone()));
            self.tell(Incoming::Connected(label.clone())).await;
            let ended = self.serve(&mut link).await;
            self.broker.send_replace(None);
            match ended {
                Ended::Dropped => return link.close().await,
                Ended::Lost(reason) => {
                    tracing::debug!(broker = %label, %reason, "client connection lost");
                    let broker = label;
                    self.tell(Incoming::Disconnected { broker, reason }).await;
                }
            }
            drop(link);
            match self.reconnect(at).await {
                Some(connected) => (at, link) = connected,
                None => return,
            }
        }
    }

    /// In order of preference, until the limit.
    async fn connect_first(&mut self) -> Result<(usize, Link), ClientError> {
        let deadline = Instant::now() + self.setup.options.first_limit;
        let mut delays = Delays::new(PAUSE_FIRST, PAUSE_MAX);
        loop {
            let mut failures = Vec::new();
            for at in 0..self.brokers.len() {
                match Link::open(&self.brokers[at], &self.setup).await {
                    Ok(link) => return Ok((at, link)),
                    Err(failure) => failures.push((self.brokers[at].label.clone(), failure)),
                }
            }
            let pause = delays.next_delay();
            if Instant::now() + pause >= deadline {
                return Err(given_up(failures));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// For ever, in order of preference, the broker that was just lost last. `None` where nobody
    /// waits for it any more.
    async fn reconnect(&mut self, lost: usize) -> Option<(usize, Link)> {
        let mut order: Vec<usize> = (0..self.brokers.len()).filter(|at| *at != lost).collect();
        order.push(lost);
        let mut delays = Delays::new(PAUSE_FIRST, PAUSE_MAX);
        loop {
            for &at in &order {
                if let Ok(link) = Link::open(&self.brokers[at], &self.setup).await {
                    return Some((at, link));
                }
            }
            if self.requests.is_closed() && self.requests.is_empty() {
                return None;
            }
            delays.wait().await;
            // Only the first round avoids the broker that was lost.
            order.sort_unstable();
        }
    }

    async fn serve(&mut self, link: &mut Link) -> Ended {
        let Some(consumers) = link.consumers.take() else {
            return Ended::Lost("no consumers".to_owned());
        };
        let mut reader = Reader(tokio::spawn(read(
            consumers,
            Arc::clone(&self.pending),
            self.inbox.clone(),
        )));
        let mut confirms = FuturesUnordered::new();
        let again = lock(&self.pending).unconfirmed();
        let mut again: std::collections::VecDeque<u64> = again.into();
        let mut look = tokio::time::interval(LOOK);
        loop {
            let room = confirms.len() < MAX_UNCONFIRMED;
            let key = tokio::select! {
                ended = &mut reader.0 => {
                    return Ended::Lost(ended.unwrap_or_else(|error| error.to_string()));
                }
                Some(confirm) = confirms.next(), if !confirms.is_empty() => {
                    match confirm {
                        Ok(key) => lock(&self.pending).confirmed(key),
                        Err(reason) => return Ended::Lost(reason),
                    }
                    continue;
                }
                _ = look.tick() => {
                    again.extend(self.look());
                    continue;
                }
                Some(key) = async { again.pop_front() }, if room && !again.is_empty() => key,
                request = self.requests.recv(), if room && again.is_empty() => match request {
                    Some(request) => lock(&self.pending).add(request, Instant::now()),
                    None => return Ended::Dropped,
                },
            };
            let copy = lock(&self.pending).copy(key, self.links, Instant::now());
            let Some(copy) = copy else { continue };
            match link.publish(&self.setup, &copy).await {
                Ok(confirm) => confirms.push(async move { confirmed(key, confirm).await }),
                Err(Failure { reason, .. }) => return Ended::Lost(reason),
            }
        }
    }

    /// Commands to send again.
    fn look(&self) -> Vec<u64> {
        let options = &self.setup.options;
        let now = Instant::now();
        let mut pending = lock(&self.pending);
        pending.forget(options.give_up_after, now);
        pending.stale(self.links, options.resend_after, now)
    }

    /// Nobody need listen.
    async fn tell(&self, news: Incoming) {
        let _ = self.inbox.send(news).await;
    }
}

async fn confirmed(
    key: u64,
    confirm: impl Future<Output = lapin::Result<Confirmation>>,
) -> Result<u64, String> {
    match tokio::time::timeout(ANSWER_LIMIT, confirm).await {
        Ok(Ok(Confirmation::Ack(_) | Confirmation::NotRequested)) => Ok(key),
        Ok(Ok(Confirmation::Nack(_))) => Err("the broker refused a command".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no confirm within {ANSWER_LIMIT:?}")),
    }
}

fn given_up(failures: Vec<(String, Failure)>) -> ClientError {
    let refused = failures.iter().find(|(_, failure)| failure.refused);
    if let Some((broker, failure)) = refused {
        return ClientError::Refused {
            broker: broker.clone(),
            reason: failure.reason.clone(),
        };
    }
    let all = failures.iter();
    let texts: Vec<String> = all
        .map(|(broker, failure)| format!("{broker}: {}", failure.reason))
        .collect();
    ClientError::Unreachable(texts.join("; "))
}

/// The task that hands on what arrives, ended with its link.
struct Reader(JoinHandle<String>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hands on replies and events until a consumer ends; says why it did.
async fn read(
    (mut replies, mut events): (Consumer, Consumer),
    pending: Arc<Mutex<Pending>>,
    inbox: mpsc::Sender<Incoming>,
) -> String {
    loop {
        let (delivery, is_reply) = tokio::select! {
            delivery = replies.next() => (delivery, true),
            delivery = events.next() => (delivery, false),
        };
        let delivery: Delivery = match delivery {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => {
                guard::note(&error);
                return error.to_string();
            }
            None => return "the broker ended the consumer".to_owned(),
        };
        let message = message(&delivery);
        let news = if is_reply {
            if let Some(id) = &message.correlation_id {
                lock(&pending).answered(id);
            }
            Incoming::Reply(message)
        } else {
            Incoming::Event(message)
        };
        // Where nobody listens any more, the queue is emptied all the same.
        let _ = inbox.send(news).await;
        if let Err(error) = delivery.acker.ack(BasicAckOptions::default()).await {
            return error.to_string();
        }
    }
}
