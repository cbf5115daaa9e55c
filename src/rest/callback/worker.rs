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
use super::home::{CLOCKS, SILENT};
use super::post::Posted;
use super::tally::Outcome;
use crate::broker::cut::CutConnection;
use crate::broker::guard;
use crate::clock::wall_ms;

/// Pause after a first failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// So long an event is kept that another broker's worker posts, milliseconds: longer than it takes to
/// find that broker lost.
const KEPT: u64 = SILENT + 10_000;
/// An event may have been made so much later than it says, milliseconds: it carries whole seconds.
const SECOND: u64 = 1000;
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
    /// It is at home at another broker: events are kept for a while, in case that is lost.
    pub(super) standby: bool,
    /// It came from a lost broker: earlier events wait there, milliseconds since the epoch.
    pub(super) from: Option<u64>,
}

impl Order {
    /// Post everything there.
    pub(super) fn to(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            leaving: false,
            drain: true,
            since: None,
            standby: false,
            from: None,
        }
    }

    /// Whether another broker has posted this event, or will when it is back.
    fn is_others(&self, made: u64, now: u64) -> bool {
        let earlier = self
            .from
            .is_some_and(|from| made.saturating_add(CLOCKS + SECOND) < from);
        earlier || (self.standby && now.saturating_sub(made) >= KEPT)
    }

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
    pub(super) connection: Arc<CutConnection>,
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
    /// Its queue cannot be used: why, in words.
    Queue(String),
}

impl From<lapin::Error> for Interrupted {
    fn from(error: lapin::Error) -> Self {
        Self::Broker(error)
    }
}

impl Worker {
    /// Until it is told to stop, or has left; an error is the broker's.
    pub(super) async fn run(mut self) -> Result<(), String> {
        let channel = self.connection.create_channel().await;
        let channel = channel.map_err(|error| error.to_string())?;
        let mut ended = self.work(&channel).await;
        if matches!(ended, Err(Interrupted::LetGo)) {
            ended = self.bind(&channel, false).await;
        }
        match ended {
            Ok(()) | Err(Interrupted::Stopped | Interrupted::LetGo) => Ok(()),
            Err(Interrupted::Ended) => Err("the broker has ended the consumer".to_owned()),
            Err(Interrupted::Broker(error)) => {
                guard::note(&error);
                Err(error.to_string())
            }
            Err(Interrupted::Queue(why)) => Err(why),
        }
    }

    fn at(&self) -> (&str, &str) {
        (&self.broker, &self.destination)
    }

    async fn work(&mut self, channel: &Channel) -> Result<(), Interrupted> {
        let mut consumer = self.consume(channel).await?;
        self.shared.tally.usable(self.at());
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

    async fn consume(&self, channel: &Channel) -> Result<Consumer, Interrupted> {
        self.bind(channel, true).await?;
        channel.basic_qos(1, BasicQosOptions::default()).await?;
        let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
        let queue = self.queue.clone();
        let consume = channel.basic_consume(queue, tag, options, FieldTable::default());
        Ok(consume.await?)
    }

    async fn bind(&self, channel: &Channel, bound: bool) -> Result<(), Interrupted> {
        let (objects, queue) = (&self.shared.objects, self.queue.clone());
        if bound {
            let at = (&**self.connection, self.broker.as_str());
            let declared = objects.declare_queue(at, &self.destination, queue).await;
            return declared.map_err(Interrupted::Queue);
        }
        let key = ShortString::from(self.destination.as_str());
        let unbind = channel.queue_unbind(queue, objects.exchange(), key, FieldTable::default());
        Ok(unbind.await?)
    }

    async fn deal_with(&mut self, channel: &Channel, event: Delivery) -> Result<(), Interrupted> {
        // Anybody may put something into a queue by its name; only instances may write events.
        let ours = event.exchange == self.shared.objects.exchange();
        let id = event.properties.message_id().as_ref();
        let id = id.map(ToString::to_string);
        let standby = self.order.borrow().standby;
        let known = id
            .as_deref()
            .is_some_and(|id| self.shared.knows(&self.destination, id));
        if !ours {
            tracing::warn!(queue = %self.queue, "a message that is no event was put into a callback's queue: dropped");
        } else if known && standby {
            // By this very process, at the other broker: as it should be.
        } else if known {
            self.shared.tally.outcome(self.at(), Outcome::Repeated);
        } else {
            let settled = self.settle(channel, &event).await;
            if settled.is_err() {
                self.shared.tally.put_back(self.at());
            }
            if let Some(outcome) = settled? {
                self.shared.tally.outcome(self.at(), outcome);
                if let Some(id) = &id {
                    self.shared.note(&self.destination, id);
                }
            }
        }
        event.acker.ack(BasicAckOptions::default()).await?;
        Ok(())
    }

    /// Posts it until it is taken, refused or too old; `None`: it is another broker's.
    async fn settle(
        &mut self,
        channel: &Channel,
        event: &Delivery,
    ) -> Result<Option<Outcome>, Interrupted> {
        let came = wall_ms();
        let made =
            (*event.properties.timestamp()).map_or(came, |seconds| seconds.saturating_mul(1000));
        let limit = u64::try_from(self.shared.max_age.as_millis()).unwrap_or(u64::MAX);
        let (mut pause, mut failures) = (FIRST_PAUSE, 0_u32);
        loop {
            let order = self.order.borrow_and_update().clone();
            if order.ends_at_once() {
                return Err(Interrupted::LetGo);
            }
            let now = wall_ms();
            if order.is_others(made, now) {
                return Ok(None);
            }
            if order.standby {
                self.wait(made.saturating_add(KEPT).saturating_sub(now))
                    .await?;
                continue;
            }
            self.shared.tally.begun(self.at(), made);
            if now.saturating_sub(made) > limit {
                tracing::warn!(destination = %self.destination, failures, "callback: an event was given up, it is older than rest.callback.max-age");
                return Ok(Some(Outcome::Expired));
            }
            // After the loss of its broker everything since comes by federation once more.
            if order.has_elsewhere(made) {
                return Ok(Some(Outcome::Repeated));
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
                    return Ok(Some(Outcome::Posted));
                }
                Posted::Refused(why) => {
                    tracing::warn!(destination = %self.destination, why, "callback: an event was refused and is dropped");
                    return Ok(Some(Outcome::Refused));
                }
                Posted::Failed(why) => {
                    if failures == 0 {
                        tracing::warn!(destination = %self.destination, why, "callback: an event was not taken; it is tried again");
                    }
                    failures = failures.saturating_add(1);
                    self.shared.tally.failed(self.at(), &why);
                }
            }
            let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            self.wait(millis).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
            // Without the connection it is not ours any more.
            if !channel.status().connected() {
                return Err(Interrupted::Stopped);
            }
        }
    }

    /// So many milliseconds, or until it is told something: it may be another URL.
    async fn wait(&mut self, millis: u64) -> Result<(), Interrupted> {
        let told = self.order.has_changed().is_ok();
        tokio::select! {
            () = self.stop.cancelled() => Err(Interrupted::Stopped),
            _ = self.order.changed(), if told => Ok(()),
            () = tokio::time::sleep(Duration::from_millis(millis)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_in_the_second_of_the_move_is_posted_at_the_new_home() {
        let order = Order {
            from: Some(100_900),
            ..Order::to("")
        };
        // By a clock that is a second behind, and told in whole seconds.
        assert!(!order.is_others(99_000, 101_000));
        assert!(order.is_others(98_000, 101_000));
    }

    #[test]
    fn what_stands_by_is_kept_until_the_silence_of_its_broker_is_noticed() {
        let order = Order {
            standby: true,
            ..Order::to("")
        };
        assert!(!order.is_others(0, SILENT + 5_000) && order.is_others(0, KEPT));
    }
}
