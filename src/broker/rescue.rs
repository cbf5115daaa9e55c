//! What the spare link does for its broker: takes away a message that no federation link can carry.
//!
//! A federation link fails on a message that names the same hop twice, gives it back, connects
//! again and is given it again, for ever; any client can send one. Where no instance consumes on
//! that broker, nobody else would take it, and the commands behind it wait. Such a queue is seen
//! to hold messages and, at most looks, no consumer. Then its first message is looked at: the
//! engine gets it where it is one of these, and dead-letters it; any other goes back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicGetOptions, BasicRejectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::time::{Instant, MissedTickBehavior};

use super::classify::{Class, Problem};
use super::connect::rpc;
use super::decode::raw_message;
use super::encode::short;
use super::link::Link;
use crate::clock::wall_ms;
use crate::engine::Input;
use crate::engine::ids::DeliveryId;
use crate::engine::input::{Delivery, Source};
use crate::wire::command::parse;

/// Pause between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// So many looks with messages and without a consumer, and none without messages between them.
const LOOKS: u32 = 4;
/// After a message that was none of these: its link is only away, and what is looked at counts as
/// delivered before.
const REST: Duration = Duration::from_secs(15);

/// What is known of a queue.
#[derive(Default)]
struct Watched {
    abandoned: u32,
    rest_until: Option<Instant>,
}

impl Watched {
    /// Notes a look; whether the first message is to be looked at.
    fn look(&mut self, messages: u32, consumers: u32, now: Instant) -> bool {
        match (messages, consumers) {
            (0, _) => self.abandoned = 0,
            (_, 0) => self.abandoned += 1,
            _ => {}
        }
        self.abandoned >= LOOKS && self.rest_until.is_none_or(|until| now >= until)
    }
}

/// Looks until the link ends.
pub(super) async fn run(link: Arc<Link>) -> String {
    let work = async {
        let groups = link.context.config.groups.iter().enumerate();
        let mut queues: Vec<(usize, &str, Watched)> = groups
            .flat_map(|(index, group)| group.queues.iter().map(move |queue| (index, queue)))
            .map(|(index, queue)| (index, queue.as_str(), Watched::default()))
            .collect();
        let mut channel: Option<Channel> = None;
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if link.serving.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            for (group, queue, watched) in &mut queues {
                match look(&link, &mut channel, *group, queue, watched).await {
                    Ok(()) => {}
                    Err(Failed::Look(problem)) => {
                        tracing::debug!(%problem, queue, "a queue was not looked at");
                        // With the channel goes what was taken from the queue on it.
                        channel = None;
                    }
                    // Nobody would settle what may have been taken: the link ends, and gives it back.
                    Err(Failed::Take(problem)) => return problem.to_string(),
                }
            }
        }
    };
    tokio::select! {
        reason = work => reason,
        () = link.cancel.cancelled() => "closed".to_owned(),
    }
}

enum Failed {
    /// On the channel of this task.
    Look(Problem),
    /// On the channel of all deliveries.
    Take(Problem),
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Look(problem)
    }
}

async fn look(
    link: &Link,
    channel: &mut Option<Channel>,
    group: usize,
    queue: &str,
    watched: &mut Watched,
) -> Result<(), Failed> {
    let open = match channel {
        Some(open) if open.status().connected() => open.clone(),
        _ => channel.insert(link.consume.channel().await?).clone(),
    };
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::durable()
    };
    let declare = open.queue_declare(short(queue), options, FieldTable::default());
    let seen = match rpc("look at a queue", declare).await {
        Ok(seen) => seen,
        Err(problem) if problem.class == Class::NotFound => {
            // The refusal has closed the channel.
            *channel = None;
            return Ok(());
        }
        Err(problem) => return Err(problem.into()),
    };
    if !watched.look(seen.message_count(), seen.consumer_count(), Instant::now()) {
        return Ok(());
    }
    watched.abandoned = 0;
    let taken = first_is_looped(&open, queue).await?
        && take(link, group, queue).await.map_err(Failed::Take)?;
    if !taken {
        watched.rest_until = Some(Instant::now() + REST);
    }
    Ok(())
}

/// Whether the first message names a hop twice. It goes back.
async fn first_is_looped(channel: &Channel, queue: &str) -> Result<bool, Problem> {
    let get = channel.basic_get(short(queue), BasicGetOptions { no_ack: false });
    let Some(message) = rpc("look at a message", get).await? else {
        return Ok(false);
    };
    let tag = message.delivery.delivery_tag;
    let looped = raw_message(message.delivery).looped;
    let back = BasicRejectOptions { requeue: true };
    rpc("give a message back", channel.basic_reject(tag, back)).await?;
    Ok(looped)
}

/// Takes the first message where no federation link can carry it.
async fn take(link: &Link, group: usize, queue: &str) -> Result<bool, Problem> {
    // The channel of all deliveries, so that the engine can settle it like any other.
    let get = link
        .commands
        .basic_get(short(queue), BasicGetOptions { no_ack: false });
    let Some(message) = rpc("look at a message", get).await? else {
        return Ok(false);
    };
    let delivery = message.delivery;
    let id = DeliveryId {
        link: link.epoch,
        tag: delivery.delivery_tag,
    };
    let raw = raw_message(delivery);
    if !raw.looped {
        let back = BasicRejectOptions { requeue: true };
        rpc(
            "give a message back",
            link.commands.basic_reject(id.tag, back),
        )
        .await?;
        return Ok(false);
    }
    tracing::warn!(
        queue,
        broker = %link.endpoint().label,
        "a message that no federation link can carry was taken away"
    );
    let command = parse(&raw, &link.context.config.parse, wall_ms());
    let input = Input::Delivery(Box::new(Delivery {
        id,
        source: Source::Commands { group },
        raw,
        command,
    }));
    Ok(link.context.tell(input).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_queue_that_is_abandoned_with_messages_is_opened() {
        let now = Instant::now();
        let mut watched = Watched::default();
        for _ in 0..20 {
            assert!(!watched.look(5, 1, now), "it is consumed");
            assert!(!watched.look(0, 0, now), "it is empty");
        }
        // A link that comes and goes does not count against it, nor for it.
        let looks = [(3, 0), (3, 1), (3, 0), (4, 0), (4, 1), (4, 0)];
        let opened = looks.map(|(messages, consumers)| watched.look(messages, consumers, now));
        assert_eq!(opened, [false, false, false, false, false, true]);
        watched.abandoned = 0;
        watched.rest_until = Some(now + REST);
        for _ in 0..9 {
            assert!(!watched.look(1, 0, now));
        }
        assert!(watched.look(1, 0, now + REST));
    }
}
