//! Publishing with confirms, pipelined in groups.
//!
//! What waits is published together and told together: one task, one timer, and confirms that
//! the broker can put into one frame.
//!
//! A refusal (no right, no exchange) closes the channel it comes on. So what goes to one exchange
//! has a channel to itself, unless it is mandatory; there the broker's words say which messages of
//! the group it was about.
//!
//! What is published as mandatory has a channel to itself as long as its group is unconfirmed:
//! the library hands a returned message to whichever confirm comes next on the channel. A return
//! comes before the confirm of its own message, so once a whole group is confirmed all its
//! returns are there, on some confirm of the group, and are told apart by their message ids.

mod refusals;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::sync::mpsc;

use super::classify::Problem;
use super::connect::rpc;
use super::encode::{Encoded, Message, encode};
use super::link::{Link, Publication, fail_all};
use super::{RPC_LIMIT, direct};
use crate::engine::ids::PublishId;
use crate::engine::input::PublishOutcome;
use refusals::{Target, refused};

/// Publications on their way at once.
const MAX_IN_FLIGHT: usize = 4096;
/// Channels for mandatory messages, opened at need.
const MANDATORY_CHANNELS: usize = 16;
/// Messages of one mandatory group.
const MAX_GROUP: usize = 64;
/// Mandatory messages that wait for a channel; beyond that nothing more is taken on.
const MAX_WAITING: usize = 1024;
const BATCH: usize = 256;
/// Publications encoded before other tasks are let through.
const TAKEN_AT_ONCE: usize = 32;
/// How long an orderly end waits for confirms.
const LAST_CONFIRMS: Duration = Duration::from_secs(1);

/// A message of a publication.
type Entry = (PublishId, Message);

/// A group that has ended.
struct Done {
    outcomes: Outcomes,
    gives: Gives,
}

/// What the end of a group leaves behind.
enum Gives {
    Nothing,
    /// A mandatory group its channel; none where it must not be used again.
    Slot(Option<Channel>),
    /// A channel for what goes to an exchange; none where there was none to be had.
    Lane(String, Option<Channel>),
}

/// What goes to one exchange and is not mandatory.
#[derive(Default)]
struct Lane {
    channel: Option<Channel>,
    opening: bool,
    /// To be published as one group.
    next: Vec<Entry>,
}

type InFlight = Pin<Box<dyn Future<Output = Done> + Send>>;
type Confirming = Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>;

struct Publisher {
    link: Arc<Link>,
    in_flight: FuturesUnordered<InFlight>,
    /// Messages in those groups.
    open: usize,
    free: Vec<Option<Channel>>,
    /// Mandatory messages without a channel yet.
    waiting: VecDeque<Entry>,
    /// Other messages, by exchange.
    lanes: BTreeMap<String, Lane>,
    direct: direct::Sender,
}

/// Publishes until the link ends; what is then unanswered is answered as failed.
pub(super) async fn run(link: Arc<Link>, mut publications: mpsc::Receiver<Publication>) -> String {
    let (direct, direct_task) = direct::start(Arc::clone(&link));
    let mut publisher = Publisher {
        link: Arc::clone(&link),
        in_flight: FuturesUnordered::new(),
        open: 0,
        free: (0..MANDATORY_CHANNELS).map(|_| None).collect(),
        waiting: VecDeque::new(),
        lanes: BTreeMap::new(),
        direct,
    };
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let room = publisher.has_room();
        tokio::select! {
            () = link.cancel.cancelled() => break,
            Some(done) = publisher.in_flight.next() => publisher.done(done).await,
            count = publications.recv_many(&mut batch, BATCH), if room => {
                if count == 0 {
                    break;
                }
                for (at, publication) in batch.drain(..).enumerate() {
                    publisher.take(publication).await;
                    // Large ones, of a snapshot, take a millisecond to be sealed.
                    if at % TAKEN_AT_ONCE == TAKEN_AT_ONCE - 1 {
                        tokio::task::yield_now().await;
                    }
                }
                publisher.start();
            }
        }
    }
    link.cancel.cancelled().await;
    if link.is_wanted_down() {
        publisher.take_queued(&mut publications).await;
    }
    publisher.finish().await;
    fail_all(&link.context, publications).await;
    direct_task.end().await;
    "closed".to_owned()
}

impl Publisher {
    fn has_room(&self) -> bool {
        let next: usize = self.lanes.values().map(|lane| lane.next.len()).sum();
        self.open < MAX_IN_FLIGHT && self.waiting.len() + next < MAX_WAITING
    }

    async fn take(&mut self, Publication { id, message }: Publication) {
        match encode(&self.link.context, message) {
            Ok(Encoded::Confirmed(messages)) if messages.is_empty() => {
                tell(&self.link, id, PublishOutcome::Confirmed).await;
            }
            Ok(Encoded::Confirmed(messages)) => {
                let mandatory = messages.len() == 1 && messages[0].mandatory;
                let entries = messages.into_iter().map(|message| (id, message));
                if mandatory {
                    self.waiting.extend(entries);
                    return;
                }
                for entry in entries {
                    let exchange = entry.1.exchange.as_str();
                    match self.lanes.get_mut(exchange) {
                        Some(lane) => lane.next.push(entry),
                        None => {
                            let mut lane = Lane::default();
                            let exchange = exchange.to_owned();
                            lane.next.push(entry);
                            self.lanes.insert(exchange, lane);
                        }
                    }
                }
            }
            Ok(Encoded::Direct(message)) => {
                if !self.direct.send(id, *message) {
                    tell(&self.link, id, PublishOutcome::Failed).await;
                }
            }
            Err(error) => {
                tracing::error!(%error, "a peer message was not sent");
                tell(&self.link, id, PublishOutcome::Failed).await;
            }
        }
    }

    /// Takes what was queued before the end was asked for, an instance's goodbye in particular.
    async fn take_queued(&mut self, publications: &mut mpsc::Receiver<Publication>) {
        while self.has_room()
            && let Ok(publication) = publications.try_recv()
        {
            self.take(publication).await;
        }
        self.start();
    }

    fn start(&mut self) {
        let names: Vec<String> = self.lanes.keys().cloned().collect();
        for name in names {
            self.start_lane(&name);
        }
        self.start_mandatory();
    }

    /// One channel at a time, and nothing overtakes what waits for it.
    fn start_lane(&mut self, name: &str) {
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        if lane.next.is_empty() || lane.opening {
            return;
        }
        let link = Arc::clone(&self.link);
        match lane
            .channel
            .clone()
            .filter(|open| open.status().connected())
        {
            Some(channel) => {
                let group = std::mem::take(&mut lane.next);
                let messages = group.len();
                self.launch(messages, Box::pin(publish_plain(link, channel, group)));
            }
            None => {
                lane.opening = true;
                self.in_flight
                    .push(Box::pin(open_lane(link, name.to_owned())));
            }
        }
    }

    /// Its channel is there, or what waits for it has failed.
    async fn lane_opened(&mut self, name: &str, channel: Option<Channel>) {
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        lane.opening = false;
        lane.channel = channel;
        if lane.channel.is_none() {
            let failed = std::mem::take(&mut lane.next);
            let failed = failed
                .into_iter()
                .map(|(id, _)| (id, PublishOutcome::Failed));
            tell_all(&self.link, failed.collect()).await;
        }
        self.start_lane(name);
    }

    fn start_mandatory(&mut self) {
        while !self.waiting.is_empty() {
            let Some(channel) = self.free.pop() else {
                return;
            };
            let group = next_group(&mut self.waiting);
            let link = Arc::clone(&self.link);
            self.launch(
                group.len(),
                Box::pin(publish_mandatory(link, channel, group)),
            );
        }
    }

    /// The first poll hands the frames to the library, in the order of the calls; the set would
    /// poll in any order.
    fn launch(&mut self, messages: usize, mut group: InFlight) {
        self.open += messages;
        match (&mut group).now_or_never() {
            Some(done) => self.in_flight.push(Box::pin(std::future::ready(done))),
            None => self.in_flight.push(group),
        }
    }

    async fn done(&mut self, done: Done) {
        self.open = self.open.saturating_sub(done.outcomes.len());
        tell_all(&self.link, done.outcomes).await;
        match done.gives {
            Gives::Nothing => {}
            Gives::Slot(channel) => {
                self.free.push(channel);
                self.start_mandatory();
            }
            Gives::Lane(name, channel) => self.lane_opened(&name, channel).await,
        }
    }

    /// Waits a little for confirms where the broker still answers.
    async fn finish(&mut self) {
        if !self.link.publish.alive() {
            self.link.given_up.cancel();
        }
        let lanes = self.lanes.values_mut();
        let next: Vec<Entry> = lanes.flat_map(|lane| lane.next.drain(..)).collect();
        let waiting = std::mem::take(&mut self.waiting).into_iter().chain(next);
        let failed = waiting.map(|(id, _)| (id, PublishOutcome::Failed));
        tell_all(&self.link, failed.collect()).await;
        let limit = tokio::time::sleep(LAST_CONFIRMS);
        tokio::pin!(limit);
        // Where the link is lost, the confirms end with an error at once; past the limit
        // `given_up` makes the rest end, so that every publication is answered.
        let mut expired = false;
        while !self.in_flight.is_empty() {
            tokio::select! {
                Some(done) = self.in_flight.next() => tell_all(&self.link, done.outcomes).await,
                () = &mut limit, if !expired => {
                    expired = true;
                    self.link.given_up.cancel();
                }
            }
        }
    }
}

async fn tell(link: &Link, id: PublishId, outcome: PublishOutcome) {
    link.context.published(id, outcome).await;
}

/// Tells every publication once: the messages of one stand together, and it is confirmed when all
/// of them are.
async fn tell_all(link: &Link, outcomes: Outcomes) {
    for messages in outcomes.chunk_by(|one, other| one.0 == other.0) {
        let worst = messages
            .iter()
            .find(|(_, outcome)| *outcome != PublishOutcome::Confirmed)
            .unwrap_or(&messages[0]);
        tell(link, worst.0, worst.1).await;
    }
}

/// The messages that may share a channel: told apart by their message ids. One without an id, or
/// with an id that is there already, is not told apart.
fn next_group(waiting: &mut VecDeque<Entry>) -> Vec<Entry> {
    let mut group: Vec<Entry> = Vec::with_capacity(waiting.len().min(MAX_GROUP));
    while group.len() < MAX_GROUP
        && let Some(entry) = waiting.pop_front()
    {
        let id = message_id(&entry);
        let apart = id.is_some() && group.iter().all(|other| message_id(other) != id);
        if !group.is_empty() && !apart {
            waiting.push_front(entry);
            break;
        }
        group.push(entry);
        if !apart {
            break;
        }
    }
    group
}

fn message_id((_, message): &Entry) -> Option<&ShortString> {
    message.properties.message_id().as_ref()
}

async fn open_lane(link: Arc<Link>, name: String) -> Done {
    let way = link.context.way_of(&name);
    let channel = match confirm_channel(&link).await {
        Ok(channel) => Some(channel),
        Err(problem) => {
            link.barred(way, &problem).await;
            None
        }
    };
    Done {
        outcomes: Vec::new(),
        gives: Gives::Lane(name, channel),
    }
}

/// Messages to one exchange of which none is mandatory, on the channel that all such groups share.
async fn publish_plain(link: Arc<Link>, channel: Channel, group: Vec<Entry>) -> Done {
    let targets: Vec<Target> = group.iter().map(Target::of).collect();
    let (ids, answers) = publish_group(&link, &channel, group).await;
    let each = ids.into_iter().zip(&answers);
    let mut outcomes = each
        .map(|((id, _), answer)| (id, outcome_of(answer, false)))
        .collect();
    refused(&link, &answers, &targets, &mut outcomes).await;
    Done {
        outcomes,
        gives: Gives::Nothing,
    }
}

async fn publish_mandatory(link: Arc<Link>, channel: Option<Channel>, group: Vec<Entry>) -> Done {
    let targets: Vec<Target> = group.iter().map(Target::of).collect();
    let channel = match channel {
        Some(channel) if channel.status().connected() => Ok(channel),
        _ => confirm_channel(&link).await,
    };
    let channel = match channel {
        Ok(channel) => channel,
        Err(problem) => {
            tracing::debug!(%problem, messages = group.len(), "messages were not published");
            let exchange = targets
                .first()
                .map_or("", |target| target.exchange.as_str());
            link.barred(link.context.way_of(exchange), &problem).await;
            let failed = |(id, _)| (id, PublishOutcome::Failed);
            return Done {
                outcomes: group.into_iter().map(failed).collect(),
                gives: Gives::Slot(None),
            };
        }
    };
    let (ids, answers) = publish_group(&link, &channel, group).await;
    let mut outcomes = judge(ids, &answers);
    let answered = |(_, outcome): &(_, PublishOutcome)| *outcome != PublishOutcome::Failed;
    // A late confirm or return would be taken for the next group's.
    let channel = Some(channel).filter(|_| outcomes.iter().all(answered));
    refused(&link, &answers, &targets, &mut outcomes).await;
    Done {
        outcomes,
        gives: Gives::Slot(channel),
    }
}

type Outcomes = Vec<(PublishId, PublishOutcome)>;
type Answer = Option<lapin::Result<Confirmation>>;
type Id = (PublishId, Option<ShortString>);

/// What became of the messages of a mandatory group. An unanswered one has failed. A return is
/// known by the time its own message's confirm is there.
fn judge(ids: Vec<Id>, answers: &[Answer]) -> Vec<(PublishId, PublishOutcome)> {
    let alone = ids.len() == 1;
    let returned: Vec<Option<&ShortString>> = answers
        .iter()
        .filter_map(|answer| match answer {
            Some(Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message)))) => {
                Some(message.properties.message_id().as_ref())
            }
            _ => None,
        })
        .collect();
    let outcome = |((id, name), answer): (Id, &Answer)| {
        let back = returned
            .iter()
            .any(|other| alone || *other == name.as_ref());
        (id, outcome_of(answer, back))
    };
    ids.into_iter().zip(answers).map(outcome).collect()
}

fn outcome_of(answer: &Answer, returned: bool) -> PublishOutcome {
    match answer {
        Some(Ok(Confirmation::Nack(_))) => PublishOutcome::Refused,
        Some(Ok(Confirmation::Ack(_) | Confirmation::NotRequested)) if returned => {
            PublishOutcome::Untaken
        }
        Some(Ok(Confirmation::Ack(_) | Confirmation::NotRequested)) => PublishOutcome::Confirmed,
        Some(Err(_)) | None => PublishOutcome::Failed,
    }
}

/// A channel that confirms.
async fn confirm_channel(link: &Link) -> Result<Channel, Problem> {
    let open = async {
        let channel = link.publish.channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        rpc("ask for confirms", select).await?;
        Ok(channel)
    };
    tokio::select! {
        opened = open => opened,
        () = link.given_up.cancelled() => Err(Problem::timeout("open a channel")),
    }
}

/// Publishes messages in order and waits for the broker's word on each; `None` where there was
/// none in time.
async fn publish_group(
    link: &Link,
    channel: &Channel,
    group: Vec<Entry>,
) -> (Vec<Id>, Vec<Answer>) {
    let mut ids = Vec::with_capacity(group.len());
    let mut answers: Vec<Answer> = Vec::with_capacity(group.len());
    let mut confirming: Vec<Confirming> = Vec::with_capacity(group.len());
    for entry in group {
        let name = message_id(&entry).cloned();
        ids.push((entry.0, name));
        let mut publishing: Confirming = Box::pin(publish(channel.clone(), entry.1));
        // The first poll hands over the frames: all are on their way before one is waited for.
        answers.push((&mut publishing).now_or_never());
        confirming.push(publishing);
    }
    let open = |answer: &Answer| answer.is_none();
    while answers.iter().any(open) {
        let all = async {
            for (answer, confirming) in answers.iter_mut().zip(&mut confirming) {
                if answer.is_none() {
                    *answer = Some(confirming.await);
                }
            }
        };
        let timed_out = tokio::select! {
            // First, so that the first poll is of the messages.
            biased;
            () = all => return (ids, answers),
            () = link.given_up.cancelled() => false,
            () = tokio::time::sleep(RPC_LIMIT) => true,
        };
        // A blocked connection has not written it yet: that is no answer that is missing.
        if timed_out && link.blocked.load(Ordering::Relaxed) {
            continue;
        }
        // What is there by now counts, returns in particular.
        for (answer, confirming) in answers.iter_mut().zip(&mut confirming) {
            if answer.is_none() {
                *answer = confirming.now_or_never();
            }
        }
        break;
    }
    (ids, answers)
}

async fn publish(channel: Channel, message: Message) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions {
        mandatory: message.mandatory,
        ..BasicPublishOptions::default()
    };
    let Message {
        exchange,
        key,
        properties,
        body,
        ..
    } = message;
    channel
        .basic_publish(exchange, key, options, &body, properties)
        .await?
        .await
}

#[cfg(test)]
mod tests;
