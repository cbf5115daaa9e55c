//! The events of one destination: one after another, each until it is taken or given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::objects::explained;
use super::post::Posted;
use super::tally::Outcome;
use crate::broker::guard;
use crate::clock::wall_ms;

/// Pause after a first failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How far the clocks of two instances may be apart, milliseconds: an event that is so much younger
/// than a move was made after it.
const CLOCKS: u64 = 1000;
/// What left its home is drained once nothing came for so long.
const DRAINED: Duration = Duration::from_secs(10);
/// A look from time to time, where there is nothing else to do.
const IDLE: Duration = Duration::from_secs(600);

/// What a worker is told; the last word counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) url: String,
    /// Another broker is the destination's home: post what is left, take nothing new.
    pub(super) leaving: bool,
    /// Where it leaves: whether what is left is posted. Else it stays in the queue.
    pub(super) drain: bool,
    /// Since when it is, milliseconds since the epoch: later events wait there.
    pub(super) since: Option<u64>,
}

impl Order {
    /// Whether nothing is posted any more.
    fn ends_at_once(&self) -> bool {
        self.leaving && !self.drain
    }

    /// Whether the new home has this event for certain, by when it was made.
    fn has_elsewhere(&self, made: u64) -> bool {
        let since = self.since.filter(|_| self.leaving);
        since.is_some_and(|since| made > since.saturating_add(CLOCKS))
    }
}

/// Posts the events of one destination.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) broker: String,
    pub(super) destination: String,
    pub(super) queue: ShortString,
    pub(super) order: watch::Receiver<Order>,
    /// When the client last took something, milliseconds since the epoch.
    pub(super) taken: Arc<AtomicU64>,
    pub(super) stop: CancellationToken,
}

/// Why an event is not dealt with.
enum Interrupted {
    Stopped,
    /// The destination is let go, and nothing is posted any more.
    LetGo,
    /// The broker has ended the consumer.
    Ended,
    Broker(lapin::Error),
}

impl From<lapin::Error> for Interrupted {
    fn from(error: lapin::Error) -> Self {
        Self::Broker(error)
    }
}

impl Worker {
    /// Until it is told to stop, or has left; an error is the broker's.
    pub(super) async fn run(mut self, channel: Channel) -> Result<(), String> {
        let mut ended = self.work(&channel).await;
        if matches!(ended, Err(Interrupted::LetGo)) {
            ended = self.bind(&channel, false).await.map_err(Into::into);
        }
        match ended {
            Ok(()) | Err(Interrupted::Stopped | Interrupted::LetGo) => Ok(()),
            Err(Interrupted::Ended) => Err("the broker has ended the consumer".to_owned()),
            Err(Interrupted::Broker(error)) => {
                guard::note(&error);
                Err(explained(&error))
            }
        }
    }

    fn at(&self) -> (&str, &str) {
        (&self.broker, &self.destination)
    }

    async fn work(&mut self, channel: &Channel) -> Result<(), Interrupted> {
        let mut consumer = self.consume(channel).await?;
        let mut bound = true;
        loop {
            let order = self.order.borrow_and_update().clone();
            if order.ends_at_once() {
                return Err(Interrupted::LetGo);
            }
            let leaving = order.leaving;
            if leaving == bound {
                self.bind(channel, !leaving).await?;
                bound = !leaving;
            }
            let idle = if leaving { DRAINED } else { IDLE };
            let told = self.order.has_changed().is_ok();
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                // Where nobody is left to tell it anything, its last order stands.
                _ = self.order.changed(), if told => {}
                () = tokio::time::sleep(idle) => if leaving {
                    return Ok(());
                },
                next = consumer.next() => match next {
                    Some(event) => self.deal_with(channel, event?).await?,
                    // Somebody has deleted the queue: begin anew.
                    None => return Err(Interrupted::Ended),
                },
            }
        }
    }

    async fn consume(&self, channel: &Channel) -> lapin::Result<Consumer> {
        let objects = &self.shared.objects;
        let (destination, queue) = (&self.destination, self.queue.clone());
        objects
            .declare_queue(channel, destination, queue.clone())
            .await?;
        channel.basic_qos(1, BasicQosOptions::default()).await?;
        let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
        let consume = channel.basic_consume(queue, tag, options, FieldTable::default());
        consume.await
    }

    async fn bind(&self, channel: &Channel, bound: bool) -> lapin::Result<()> {
        let (objects, queue) = (&self.shared.objects, self.queue.clone());
        if bound {
            return objects
                .declare_queue(channel, &self.destination, queue)
                .await;
        }
        let key = ShortString::from(self.destination.as_str());
        let unbind = channel.queue_unbind(queue, objects.exchange(), key, FieldTable::default());
        unbind.await
    }

    async fn deal_with(&mut self, channel: &Channel, event: Delivery) -> Result<(), Interrupted> {
        // Anybody may put something into a queue by its name; only instances may write events.
        let ours = event.exchange == self.shared.objects.exchange();
        let id = event.properties.message_id().as_ref();
        let id = id.map(ToString::to_string);
        let known = id
            .as_deref()
            .is_some_and(|id| self.shared.knows(&self.destination, id));
        if !ours {
            tracing::warn!(queue = %self.queue, "a message that is no event was put into a callback's queue: dropped");
        } else if known {
            self.shared.tally.outcome(self.at(), Outcome::Repeated);
        } else {
            let outcome = self.settle(channel, &event).await?;
            self.shared.tally.outcome(self.at(), outcome);
            if let Some(id) = &id {
                self.shared.note(&self.destination, id);
            }
        }
        event.acker.ack(BasicAckOptions::default()).await?;
        Ok(())
    }

    /// Posts it until it is taken, refused or too old.
    async fn settle(
        &mut self,
        channel: &Channel,
        event: &Delivery,
    ) -> Result<Outcome, Interrupted> {
        let came = wall_ms();
        let made =
            (*event.properties.timestamp()).map_or(came, |seconds| seconds.saturating_mul(1000));
        let limit = u64::try_from(self.shared.max_age.as_millis()).unwrap_or(u64::MAX);
        let (mut pause, mut failures) = (FIRST_PAUSE, 0_u32);
        loop {
            if wall_ms().saturating_sub(made) > limit {
                tracing::warn!(destination = %self.destination, failures, "callback: an event was given up, it is older than rest.callback.max-age");
                return Ok(Outcome::Expired);
            }
            let order = self.order.borrow_and_update().clone();
            if order.ends_at_once() {
                return Err(Interrupted::LetGo);
            }
            // After the loss of its broker everything since comes by federation once more.
            if order.has_elsewhere(made) {
                return Ok(Outcome::Repeated);
            }
            let url = order.url;
            match self
                .shared
                .poster
                .post(&url, &self.destination, event)
                .await
            {
                Posted::Taken => {
                    self.taken.store(wall_ms(), Ordering::Relaxed);
                    if failures > 0 {
                        tracing::info!(destination = %self.destination, failures, "callback: events are taken again");
                    }
                    return Ok(Outcome::Posted);
                }
                Posted::Refused(why) => {
                    tracing::warn!(destination = %self.destination, why, "callback: an event was refused and is dropped");
                    return Ok(Outcome::Refused);
                }
                Posted::Failed(why) => {
                    if failures == 0 {
                        tracing::warn!(destination = %self.destination, why, "callback: an event was not taken; it is tried again");
                    }
                    failures = failures.saturating_add(1);
                    self.shared.tally.failed(self.at(), &why);
                }
            }
            let told = self.order.has_changed().is_ok();
            tokio::select! {
                () = self.stop.cancelled() => return Err(Interrupted::Stopped),
                // It may be another URL.
                _ = self.order.changed(), if told => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            // Without the connection it is not ours any more.
            if !channel.status().connected() {
                return Err(Interrupted::Stopped);
            }
        }
    }
}
