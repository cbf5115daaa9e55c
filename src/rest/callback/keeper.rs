//! Holds the registry of one broker, where no other instance does, and keeps a worker for each of
//! its destinations.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::chores;
use super::home::{CLOCKS, Home, News, Stuck, news, put_right};
use super::objects::Registration;
use super::warned::Warned;
use super::worker::{Order, Worker};
use super::{DESTINATIONS, Shared};
use crate::broker::cut::CutConnection;
use crate::broker::guard;
use crate::clock::wall_ms;
use crate::rest::connection::{Broker, Dial};

/// Registrations that the broker may hand out at once: those held, those that stand by, and news of
/// each.
const PREFETCH: u16 = 4 * DESTINATIONS as u16 + 64;
/// Longest registration, bytes: a destination's name and an address.
const MAX_REGISTRATION: usize = 64 << 10;
/// Pause before the next attempt at a broker, or of a worker that ended in order.
const PAUSE: Duration = Duration::from_secs(1);
/// Bound of one answer of the broker's.
const ANSWER: Duration = Duration::from_secs(5);
/// How often registrations are published again: other brokers hear of them that were away, and
/// the broker does not take one for forgotten that is held for long.
const RENEWAL: Duration = Duration::from_secs(60);
/// The first renewal comes this soon.
const FIRST_RENEWAL: Duration = Duration::from_secs(2);
/// How often waiting events are counted.
const COUNTING: Duration = Duration::from_secs(5);
/// A client that took nothing and said nothing for so long is forgotten, milliseconds.
const FORGOTTEN: u64 = 24 * 3_600_000;
/// Destinations that may leave at once; beyond it one goes without what still waits for it, which
/// stays in its queue.
const LEAVING: usize = DESTINATIONS;
/// Destinations of other brokers that stand by; further ones come only with their client's next
/// Hello.
const STANDING_BY: usize = DESTINATIONS;
/// One that stands by is forgotten after so long without a word though its broker is there,
/// milliseconds: longer than a link may be cut before a broker is lost, and before the broker takes
/// what is held for forgotten (half an hour).
const UNHEARD: u64 = 20 * 60_000;
/// How often it is looked whether a broker is lost.
const LOOKING: Duration = Duration::from_secs(1);
/// How long what is being posted may take at the end.
const STOPPING: Duration = Duration::from_millis(800);

/// At one broker.
pub(super) struct Keeper {
    broker: Broker,
    dial: Dial,
    shared: Arc<Shared>,
}

/// One connection's worth of it.
struct Session<'a> {
    keeper: &'a Keeper,
    connection: Arc<CutConnection>,
    registry: Channel,
    homes: HashMap<String, Home>,
    workers: JoinSet<(String, Result<(), String>)>,
    /// One at most, as below: what goes wrong with either is no reason to begin anew.
    counting: JoinSet<()>,
    renewing: JoinSet<()>,
    moving: JoinSet<()>,
    crowded: Warned,
    failing: Warned,
    stop: CancellationToken,
}

impl Keeper {
    pub(super) fn new(broker: Broker, dial: Dial, shared: Arc<Shared>) -> Self {
        Self {
            broker,
            dial,
            shared,
        }
    }

    /// Until it is told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        let label = &self.broker.label;
        let mut said = String::new();
        while !stop.is_cancelled() {
            let (held, ended) = self.hold(&stop).await;
            // Another outage is another line, whatever its reason.
            if held {
                said.clear();
            }
            self.shared.lost(label);
            self.shared.tally.remove(label, None);
            if let Err(why) = ended
                && why != said
            {
                tracing::warn!(broker = %label, why, "callbacks: nothing is posted from this broker");
                said = why;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Whether it was there for a time, and why it ended.
    async fn hold(&self, stop: &CancellationToken) -> (bool, Result<(), String>) {
        let opened = tokio::select! {
            () = stop.cancelled() => return (false, Ok(())),
            opened = Session::open(self, stop) => opened,
        };
        let (mut session, consumer) = match opened {
            Ok(opened) => opened,
            Err(why) => return (false, Err(why)),
        };
        self.shared.found(&self.broker.label);
        let ended = session.go_on(consumer).await;
        session.end().await;
        (true, ended)
    }
}

impl<'a> Session<'a> {
    async fn open(
        keeper: &'a Keeper,
        stop: &CancellationToken,
    ) -> Result<(Self, Consumer), String> {
        let connection = keeper.broker.open(&keeper.dial, "callbacks").await?;
        let objects = &keeper.shared.objects;
        let declared = objects.declare_registry((&*connection, &keeper.broker.label));
        let declared = tokio::time::timeout(ANSWER, declared).await;
        declared.unwrap_or_else(|_| Err("no answer in time".to_owned()))?;
        let begun = async {
            let registry = connection.create_channel().await?;
            let qos = BasicQosOptions::default();
            registry.basic_qos(PREFETCH, qos).await?;
            let tag = format!("{}.callbacks", keeper.dial.instance);
            let consume = registry.basic_consume(
                objects.registry(),
                ShortString::from(tag),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            let consumer = consume.await?;
            Ok::<_, lapin::Error>((registry, consumer))
        };
        match tokio::time::timeout(ANSWER, begun).await {
            Ok(Ok((registry, consumer))) => {
                let session = Session {
                    keeper,
                    connection: Arc::new(connection),
                    registry,
                    homes: HashMap::new(),
                    workers: JoinSet::new(),
                    counting: JoinSet::new(),
                    renewing: JoinSet::new(),
                    moving: JoinSet::new(),
                    crowded: Warned::default(),
                    failing: Warned::default(),
                    stop: stop.child_token(),
                };
                Ok((session, consumer))
            }
            Ok(Err(error)) => {
                guard::note(&error);
                Err(error.to_string())
            }
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    async fn go_on(&mut self, mut consumer: Consumer) -> Result<(), String> {
        let begin = Instant::now() + FIRST_RENEWAL;
        let mut renewal = tokio::time::interval_at(begin, RENEWAL);
        let mut counting = tokio::time::interval(COUNTING);
        let mut looking = tokio::time::interval(LOOKING);
        for every in [&mut renewal, &mut counting, &mut looking] {
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                next = consumer.next() => match next {
                    Some(Ok(delivery)) => self.heard(delivery).await?,
                    Some(Err(error)) => return Err(error.to_string()),
                    None => return Err("the broker has ended the consumer".to_owned()),
                },
                Some(ended) = self.workers.join_next() => self.ended(ended).await?,
                _ = renewal.tick() => self.renew().await?,
                _ = counting.tick() => self.count(),
                _ = looking.tick() => self.take_over().await?,
            }
        }
    }

    /// A registration: of this broker's, or one that federation brought.
    async fn heard(&mut self, delivery: Delivery) -> Result<(), String> {
        let objects = &self.keeper.shared.objects;
        // Anybody may put something into a queue by its name; only instances may write there.
        let ours = delivery.exchange == objects.exchange();
        let data = Some(&delivery.data).filter(|data| ours && data.len() <= MAX_REGISTRATION);
        let read = data.and_then(|data| serde_json::from_slice::<Registration>(data).ok());
        let Some(registration) = read else {
            tracing::warn!("callbacks: a message that is no registration was dropped");
            return self.ack(delivery.delivery_tag).await;
        };
        let headers = delivery.properties.headers().as_ref();
        let far = headers.is_some_and(|table| table.inner().contains_key("x-received-from"));
        let tag = delivery.delivery_tag;
        let known = self.homes.get(&registration.destination);
        let right = (!far).then(|| put_right(known, &registration, wall_ms()));
        let registration = match right.flatten() {
            Some(right) => {
                tracing::warn!(destination = %right.destination, "callback: registered anew; the clock was ahead when it was registered before, or is behind now");
                self.say(right.clone());
                right
            }
            None => registration,
        };
        match news(
            self.homes.get(&registration.destination),
            &registration,
            far,
        ) {
            News::Old => self.ack(tag).await,
            News::Settles => self.settle_in(registration, tag).await,
            News::StandsBy => {
                let anew = delivery.redelivered;
                self.stand_by(registration, tag, anew).await
            }
            News::Goes => self.hold_on(&registration, tag).await,
            News::Changes => self.change(registration, tag, far).await,
        }
    }

    /// Tells the other brokers at once what was put right here. Where something is being told already,
    /// that comes with the next renewal.
    fn say(&mut self, registration: Registration) {
        while self.renewing.try_join_next().is_some() {}
        if self.renewing.is_empty() {
            let (broker, dial) = (self.keeper.broker.clone(), self.keeper.dial.clone());
            let objects = self.keeper.shared.objects.clone();
            let said = vec![registration.at_home(&broker.label)];
            self.renewing
                .spawn(chores::renew(broker, dial, objects, said));
        }
    }

    async fn ack(&self, tag: u64) -> Result<(), String> {
        let ack = self.registry.basic_ack(tag, BasicAckOptions::default());
        ack.await.map_err(|error| error.to_string())
    }

    async fn settle_in(&mut self, registration: Registration, tag: u64) -> Result<(), String> {
        if self
            .keeper
            .shared
            .objects
            .queue(&registration.destination)
            .is_none()
        {
            return self.ack(tag).await;
        }
        self.make_room().await?;
        self.begin(registration, tag, false);
        Ok(())
    }

    /// Collects the events of a destination of another broker, a little while each.
    async fn stand_by(
        &mut self,
        registration: Registration,
        tag: u64,
        anew: bool,
    ) -> Result<(), String> {
        let queue = self.keeper.shared.objects.queue(&registration.destination);
        let standing = self.homes.values().filter(|home| home.stands_by()).count();
        if queue.is_none() || standing >= STANDING_BY {
            return self.ack(tag).await;
        }
        let destination = registration.destination.clone();
        self.begin(registration, tag, true);
        if let Some(home) = self.homes.get_mut(&destination).filter(|_| anew) {
            home.told = None;
        }
        Ok(())
    }

    fn begin(&mut self, registration: Registration, tag: u64, standby: bool) {
        let destination = registration.destination.clone();
        let (order, _) = watch::channel(Order {
            standby,
            ..Order::to(&registration.url)
        });
        let home = Home {
            registration,
            tag: Some(tag),
            order,
            taken: Arc::default(),
            heard: wall_ms(),
            told: Some(wall_ms()),
            stuck: None,
        };
        self.homes.insert(destination.clone(), home);
        self.work(&destination, Duration::ZERO);
    }

    /// A destination that stands by was renewed at its home: the newest message is held, else the
    /// broker took the old one for forgotten.
    async fn hold_on(&mut self, registration: &Registration, tag: u64) -> Result<(), String> {
        let mut before = Some(tag);
        if let Some(home) = self.homes.get_mut(&registration.destination) {
            before = home.tag.replace(tag);
            home.hears(wall_ms());
            home.registration.seen = registration.seen;
        }
        match before {
            Some(tag) => self.ack(tag).await,
            None => Ok(()),
        }
    }

    /// Brings here what stands by and whose broker is lost, and forgets what nobody speaks of.
    async fn take_over(&mut self) -> Result<(), String> {
        let now = wall_ms();
        while self.moving.try_join_next().is_some() {}
        let shared = &self.keeper.shared;
        let (mut moved, mut unheard) = (Vec::new(), Vec::new());
        for (destination, home) in self.homes.iter().filter(|(_, home)| home.stands_by()) {
            match shared.lost_since(&home.registration.home) {
                Some(since) if home.is_lost(since, now) => {
                    moved.push(home.moved(&self.keeper.broker.label, since));
                }
                None if now.saturating_sub(home.heard) > UNHEARD => {
                    unheard.push(destination.clone());
                }
                _ => {}
            }
        }
        for destination in unheard {
            self.leave(&destination).await?;
        }
        if !moved.is_empty() && self.moving.is_empty() {
            let (broker, dial) = (self.keeper.broker.clone(), self.keeper.dial.clone());
            let (label, count) = (&broker.label, moved.len());
            tracing::info!(broker = %label, destinations = count, "callbacks: their broker is lost, they are posted from this one now");
            let objects = shared.objects.clone();
            self.moving
                .spawn(chores::renew(broker, dial, objects, moved));
        }
        Ok(())
    }

    /// Lets those go that were silent longest, until one more may be held.
    async fn make_room(&mut self) -> Result<(), String> {
        loop {
            let held = self.homes.iter().filter(|(_, home)| home.is_held());
            if held.clone().count() < DESTINATIONS {
                return Ok(());
            }
            let Some((oldest, _)) = held.min_by_key(|(_, home)| home.seen()) else {
                return Ok(());
            };
            let oldest = oldest.clone();
            if self.crowded.is_due() {
                let broker = &self.keeper.broker.label;
                tracing::warn!(%broker, destination = %oldest, limit = DESTINATIONS, "callbacks: too many destinations, those that were silent longest are let go");
            }
            self.leave(&oldest).await?;
        }
    }

    /// Whether one that leaves may take its time.
    fn may_drain(&self) -> bool {
        let leaving = |home: &&Home| home.order.borrow().leaving;
        self.homes.values().filter(leaving).count() < LEAVING
    }

    /// Newer word of a destination that is known.
    async fn change(
        &mut self,
        registration: Registration,
        tag: u64,
        far: bool,
    ) -> Result<(), String> {
        let known = self.homes.get(&registration.destination);
        if !far && known.is_some_and(|home| !home.is_held()) {
            self.make_room().await?;
        }
        let drain = !far || self.may_drain();
        let keeper = self.keeper;
        let Some(home) = self.homes.get_mut(&registration.destination) else {
            return Ok(());
        };
        let at = (
            keeper.broker.label.as_str(),
            registration.destination.as_str(),
        );
        // What stood by goes on to, at its new home as at its old one.
        let stood_by = home.stands_by();
        if stood_by && far {
            home.order
                .send_modify(|order| order.url.clone_from(&registration.url));
            home.registration = registration;
            home.hears(wall_ms());
            return match home.tag.replace(tag) {
                Some(tag) => self.ack(tag).await,
                None => Ok(()),
            };
        }
        let lost = keeper.shared.lost_since(&home.registration.home);
        let lost = lost.map(|since| home.lost_at(since).saturating_sub(CLOCKS));
        // Where a clock was ahead events are older than what is said of the move.
        let moved = registration.at.min(wall_ms());
        let from = stood_by.then_some(lost.map_or(moved, |lost| lost.min(moved)));
        let order = Order {
            leaving: far,
            drain,
            since: far.then_some(moved),
            from: from.or(home.order.borrow().from),
            ..Order::to(&registration.url)
        };
        if *home.order.borrow() != order {
            keeper.shared.tally.set(at, &registration.url, far);
            home.order.send_replace(order);
        } else if home.stuck.is_some() {
            // Its queue may have been mended meanwhile: it is not waited for the next attempt.
            home.order.send_modify(|_| ());
        }
        let before = match far {
            true => [home.tag.take(), Some(tag)],
            false => [home.tag.replace(tag), None],
        };
        home.registration = registration;
        for tag in before.into_iter().flatten() {
            self.ack(tag).await?;
        }
        Ok(())
    }

    /// Lets a destination go.
    async fn leave(&mut self, destination: &str) -> Result<(), String> {
        let drain = self.may_drain();
        let Some(home) = self.homes.get_mut(destination) else {
            return Ok(());
        };
        home.order.send_modify(|order| {
            order.leaving = true;
            order.drain = drain && !order.standby;
        });
        match home.tag.take() {
            Some(tag) => self.ack(tag).await,
            None => Ok(()),
        }
    }

    /// Starts the worker of a destination.
    fn work(&mut self, destination: &str, after: Duration) {
        let keeper = self.keeper;
        let (Some(home), Some(queue)) = (
            self.homes.get(destination),
            keeper.shared.objects.queue(destination),
        ) else {
            return;
        };
        let order = home.order.borrow().clone();
        if !order.standby {
            let at = (keeper.broker.label.as_str(), destination);
            keeper.shared.tally.set(at, &order.url, order.leaving);
        }
        let worker = Worker {
            shared: Arc::clone(&keeper.shared),
            connection: Arc::clone(&self.connection),
            broker: keeper.broker.label.clone(),
            destination: destination.to_owned(),
            queue,
            order: home.order.subscribe(),
            taken: Arc::clone(&home.taken),
            stop: self.stop.clone(),
        };
        let name = destination.to_owned();
        let mut order = home.order.subscribe();
        self.workers.spawn(async move {
            tokio::select! {
                () = worker.stop.cancelled() => {}
                // Where nobody is left to tell it anything, it waits no longer.
                _ = order.changed() => {}
                () = tokio::time::sleep(after) => {}
            }
            (name, worker.run().await)
        });
    }

    async fn ended(
        &mut self,
        ended: Result<(String, Result<(), String>), tokio::task::JoinError>,
    ) -> Result<(), String> {
        // A panic: with a new connection everything begins anew.
        let (destination, done) = ended.map_err(|error| error.to_string())?;
        if !self.connection.status().connected() {
            return Err("the connection is lost".to_owned());
        }
        let left = self.homes.get(&destination);
        let left = left.is_none_or(|home| home.tag.is_none() && home.order.borrow().leaving);
        match done {
            Ok(()) if left => {
                self.homes.remove(&destination);
                let label = &self.keeper.broker.label;
                self.keeper.shared.tally.remove(label, Some(&destination));
            }
            Ok(()) => self.work(&destination, PAUSE),
            Err(why) => {
                let label = &self.keeper.broker.label;
                self.keeper.shared.tally.stuck((label, &destination), &why);
                if self.failing.is_due() {
                    let broker = &self.keeper.broker.label;
                    tracing::warn!(%broker, %destination, why, "callback: its queue is taken up again; others of this broker are not told of for a minute");
                }
                let pause = self.homes.get_mut(&destination).map_or(PAUSE, |home| {
                    let stuck = Stuck::after(home.stuck.as_ref(), &why, Instant::now());
                    home.stuck.insert(stuck).pause
                });
                self.work(&destination, pause);
            }
        }
        Ok(())
    }

    /// Publishes again what is held, and forgets who is silent.
    async fn renew(&mut self) -> Result<(), String> {
        let now = wall_ms();
        let held = self.homes.iter().filter(|(_, home)| home.is_held());
        let held: Vec<(String, u64)> = held
            .map(|(name, home)| (name.clone(), home.seen()))
            .collect();
        let mut again = Vec::with_capacity(held.len());
        for (destination, seen) in held {
            if now.saturating_sub(seen) > FORGOTTEN {
                tracing::info!(%destination, "callback: forgotten, nothing was heard for a day");
                self.leave(&destination).await?;
            } else if let Some(home) = self.homes.get(&destination) {
                let registration = home.registration.clone();
                let registration = registration.at_home(&self.keeper.broker.label);
                again.push(Registration {
                    seen,
                    said: false,
                    ..registration
                });
            }
        }
        while self.renewing.try_join_next().is_some() {}
        if !again.is_empty() && self.renewing.is_empty() {
            let keeper = self.keeper;
            let (broker, dial) = (keeper.broker.clone(), keeper.dial.clone());
            let objects = keeper.shared.objects.clone();
            self.renewing
                .spawn(chores::renew(broker, dial, objects, again));
        }
        Ok(())
    }

    fn count(&mut self) {
        while self.counting.try_join_next().is_some() {}
        if !self.counting.is_empty() {
            return;
        }
        let shared = &self.keeper.shared;
        let queue = |name: &String| Some((name.clone(), shared.objects.queue(name)?));
        let told = self.homes.iter().filter(|(_, home)| !home.stands_by());
        let queues = told.filter_map(|(name, _)| queue(name)).collect();
        let connection = Arc::clone(&self.connection);
        let (tally, broker) = (shared.tally.clone(), self.keeper.broker.label.clone());
        self.counting
            .spawn(chores::count(connection, broker, queues, tally));
    }

    /// What is being posted may end; then the connection goes, and with it all that is held.
    async fn end(mut self) {
        self.stop.cancel();
        let all = async { while self.workers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOPPING, all).await;
        self.workers.abort_all();
        let close = self.connection.close(200, "OK".into());
        let _ = tokio::time::timeout(STOPPING, close).await;
    }
}
