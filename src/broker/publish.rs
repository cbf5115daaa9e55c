//! Publishing with confirms, pipelined.
//!
//! What is published as mandatory has a channel to itself while it waits for its confirm: the
//! library hands a returned message to whichever confirm comes next on the channel, so that with
//! two in flight nobody could tell which one was returned.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use tokio::sync::mpsc;

use super::classify::Problem;
use super::connect::rpc;
use super::encode::{Encoded, Message, encode};
use super::link::{Link, Publication, fail_all};
use super::{RPC_LIMIT, direct};
use crate::engine::ids::PublishId;
use crate::engine::input::PublishOutcome;

/// Publications on their way at once.
const MAX_IN_FLIGHT: usize = 4096;
/// Channels for mandatory messages, opened at need.
const MANDATORY_CHANNELS: usize = 64;
/// Mandatory messages that wait for a channel; beyond that nothing more is taken on.
const MAX_WAITING: usize = 1024;
const BATCH: usize = 256;
/// How long an orderly end waits for confirms.
const LAST_CONFIRMS: Duration = Duration::from_secs(1);

/// A publication that has ended.
struct Done {
    id: PublishId,
    outcome: PublishOutcome,
    /// A mandatory message gives its channel back; without one where it must not be used again.
    slot: Option<Option<Channel>>,
}

type InFlight = Pin<Box<dyn Future<Output = Done> + Send>>;

struct Publisher {
    link: Arc<Link>,
    in_flight: FuturesUnordered<InFlight>,
    free: Vec<Option<Channel>>,
    waiting: VecDeque<(PublishId, Message)>,
    direct: direct::Sender,
}

/// Publishes until the link ends; what is then unanswered is answered as failed.
pub(super) async fn run(link: Arc<Link>, mut publications: mpsc::Receiver<Publication>) -> String {
    let (direct, direct_task) = direct::start(Arc::clone(&link));
    let mut publisher = Publisher {
        link: Arc::clone(&link),
        in_flight: FuturesUnordered::new(),
        free: (0..MANDATORY_CHANNELS).map(|_| None).collect(),
        waiting: VecDeque::new(),
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
                for publication in batch.drain(..) {
                    publisher.start(publication).await;
                }
            }
        }
    }
    link.cancel.cancelled().await;
    publisher.finish().await;
    fail_all(&link.context, publications).await;
    direct_task.end().await;
    "closed".to_owned()
}

impl Publisher {
    fn has_room(&self) -> bool {
        self.in_flight.len() < MAX_IN_FLIGHT && self.waiting.len() < MAX_WAITING
    }

    async fn start(&mut self, Publication { id, message }: Publication) {
        match encode(&self.link.context, message) {
            Ok(Encoded::Confirmed(messages)) => {
                let mandatory = messages.len() == 1 && messages[0].mandatory;
                if mandatory {
                    self.waiting.extend(messages.into_iter().map(|m| (id, m)));
                    self.start_mandatory();
                } else {
                    let link = Arc::clone(&self.link);
                    self.launch(Box::pin(publish_all(link, id, messages)));
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

    fn start_mandatory(&mut self) {
        while !self.waiting.is_empty() {
            let Some(channel) = self.free.pop() else {
                return;
            };
            if let Some((id, message)) = self.waiting.pop_front() {
                let link = Arc::clone(&self.link);
                self.launch(Box::pin(publish_mandatory(link, channel, id, message)));
            }
        }
    }

    /// The first poll hands the frames to the library, in the order of the calls; the set would
    /// poll in any order.
    fn launch(&mut self, mut publication: InFlight) {
        match (&mut publication).now_or_never() {
            Some(done) => self.in_flight.push(Box::pin(std::future::ready(done))),
            None => self.in_flight.push(publication),
        }
    }

    async fn done(&mut self, done: Done) {
        if let Some(channel) = done.slot {
            self.free.push(channel);
            self.start_mandatory();
        }
        tell(&self.link, done.id, done.outcome).await;
    }

    /// Waits a little for confirms where the broker still answers.
    async fn finish(&mut self) {
        for (id, _) in std::mem::take(&mut self.waiting) {
            tell(&self.link, id, PublishOutcome::Failed).await;
        }
        let limit = tokio::time::sleep(LAST_CONFIRMS);
        tokio::pin!(limit);
        // Where the link is lost, the confirms end with an error at once; past the limit
        // `given_up` makes the rest end, so that every publication is answered.
        let mut expired = false;
        while !self.in_flight.is_empty() {
            tokio::select! {
                Some(done) = self.in_flight.next() => tell(&self.link, done.id, done.outcome).await,
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

/// Messages of one publication, none of them mandatory; confirmed when all are.
async fn publish_all(link: Arc<Link>, id: PublishId, messages: Vec<Message>) -> Done {
    let all = messages
        .into_iter()
        .map(|message| confirmed(&link, &link.confirms, message));
    let outcomes = join_all(all).await;
    let outcome = if outcomes.iter().all(|o| *o == PublishOutcome::Confirmed) {
        PublishOutcome::Confirmed
    } else {
        PublishOutcome::Failed
    };
    Done {
        id,
        outcome,
        slot: None,
    }
}

async fn publish_mandatory(
    link: Arc<Link>,
    channel: Option<Channel>,
    id: PublishId,
    message: Message,
) -> Done {
    let channel = match channel {
        Some(channel) if channel.status().connected() => Ok(channel),
        _ => confirm_channel(&link).await,
    };
    let (outcome, channel) = match channel {
        Ok(channel) => (confirmed(&link, &channel, message).await, Some(channel)),
        Err(problem) => {
            tracing::warn!(%problem, "a message was not published");
            (PublishOutcome::Failed, None)
        }
    };
    // A late confirm or return would be taken for the next message's.
    let channel = channel.filter(|_| outcome != PublishOutcome::Failed);
    Done {
        id,
        outcome,
        slot: Some(channel),
    }
}

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

/// Publishes one message and waits for the broker's word on it.
async fn confirmed(link: &Link, channel: &Channel, message: Message) -> PublishOutcome {
    let options = BasicPublishOptions {
        mandatory: message.mandatory,
        ..BasicPublishOptions::default()
    };
    let publish = async {
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
    };
    let mut publish = std::pin::pin!(publish);
    loop {
        let answer = tokio::select! {
            // First, so that the first poll writes.
            biased;
            answer = tokio::time::timeout(RPC_LIMIT, &mut publish) => answer,
            () = link.given_up.cancelled() => return PublishOutcome::Failed,
        };
        return match answer {
            Ok(Ok(Confirmation::Ack(None) | Confirmation::NotRequested)) => {
                PublishOutcome::Confirmed
            }
            Ok(Ok(Confirmation::Ack(Some(_)))) => PublishOutcome::Returned,
            Ok(Ok(Confirmation::Nack(_)) | Err(_)) => PublishOutcome::Failed,
            // A blocked connection has not written it yet: that is no answer that is missing.
            Err(_) if link.blocked.load(Ordering::Relaxed) => continue,
            Err(_) => PublishOutcome::Failed,
        };
    }
}
