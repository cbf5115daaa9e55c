//! The loop probe: a message to the own control queue and back, to tell a broker that is wedged
//! (its connections stay open, nothing moves) from one that has nothing to say.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::classify::{Class, Problem};
use super::connect::rpc;
use super::encode::short;
use super::link::Link;
use crate::engine::way::Way;

/// Which part of the interval a look may come late; later, this process was short of CPU itself, and
/// a message of its own that it did not hear says nothing.
const LATE_PART: u32 = 4;
/// `type` of a probe.
pub(super) const KIND: &str = "tandem-loop-probe";

/// What the consumer of the control queue tells the probe.
#[derive(Debug, Default)]
pub(super) struct Loop {
    arrived: AtomicU64,
    news: Notify,
}

impl Loop {
    /// Something was delivered from the control queue; whether it was a probe.
    pub(super) fn delivered(&self, properties: &BasicProperties) -> bool {
        self.arrived.fetch_add(1, Ordering::Release);
        self.news.notify_waiters();
        properties
            .kind()
            .as_ref()
            .is_some_and(|kind| kind.as_str() == KIND)
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Acquire)
    }

    async fn more_than(&self, count: u64) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // Registered before the look, or an arrival between the two would be missed.
            news.as_mut().enable();
            if self.arrived() > count {
                return;
            }
            news.await;
        }
    }
}

/// Probes until the broker does not answer; says so. Suspended while the connection is blocked.
pub(super) async fn watch(link: &Link, seen: &Loop) -> Problem {
    let interval = link.context.config.probe_interval;
    let count = link.context.config.probe_count;
    let mut channel: Option<Channel> = None;
    let mut misses = 0;
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = tick.tick().await;
        if link.blocked.load(Ordering::Relaxed) {
            misses = 0;
            continue;
        }
        let begin = Instant::now();
        let starved =
            |since: Instant, span: Duration| since.elapsed() > span + interval / LATE_PART;
        let late = starved(due, Duration::ZERO);
        let before = seen.arrived();
        let probed = tokio::time::timeout(interval, probe(link, seen, &mut channel)).await;
        let blocked = link.blocked.load(Ordering::Relaxed);
        misses = match probed {
            Ok(Ok(())) => 0,
            _ if blocked => 0,
            // It is slow, but not wedged: something was delivered.
            Err(_) if seen.arrived() > before => 0,
            // This process was away, or starved, and not the broker: that proves nothing.
            Err(_) if late || starved(begin, interval) => 0,
            Err(_) => misses + 1,
            // A channel or connection that is lost shows elsewhere; a refusal is no silence.
            Ok(Err(problem)) => {
                tracing::debug!(link = link.epoch.0, %problem, "a loop probe was not sent");
                if problem.class == Class::AccessRefused {
                    link.barred(Way::Replies, &problem).await;
                }
                channel = None;
                0
            }
        };
        if misses >= count {
            let text = format!(
                "the broker is wedged: {count} messages of its own did not come back to this \
                 instance, and nothing else was delivered on its control queue"
            );
            return Problem::new(Class::Timeout, text);
        }
    }
}

/// Published, confirmed, and something was consumed since: both ways work.
async fn probe(link: &Link, seen: &Loop, channel: &mut Option<Channel>) -> Result<(), Problem> {
    let open = match channel {
        Some(open) if open.status().connected() => open.clone(),
        _ => {
            let open = link.publish.channel().await?;
            let select = open.confirm_select(ConfirmSelectOptions::default());
            rpc("ask for confirms", select).await?;
            channel.insert(open).clone()
        }
    };
    let queue = link.control_queue();
    let before = seen.arrived();
    let properties = BasicProperties::default()
        .with_type(KIND.into())
        .with_delivery_mode(1);
    let publish = open.basic_publish(
        "".into(),
        short(&queue.name),
        BasicPublishOptions::default(),
        b"",
        properties,
    );
    let confirm = rpc("send a loop probe", publish).await?;
    match rpc("confirm a loop probe", confirm).await? {
        Confirmation::Ack(_) => {}
        _ => return Err(Problem::new(Class::Protocol, "a loop probe was refused")),
    }
    seen.more_than(before).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn any_delivery_counts_and_only_a_probe_is_one() {
        let seen = Loop::default();
        assert!(!seen.delivered(&BasicProperties::default()));
        seen.more_than(0).await;
        let waits = tokio::time::timeout(Duration::from_millis(50), seen.more_than(1));
        assert!(waits.await.is_err());
        let probe = BasicProperties::default().with_type(KIND.into());
        let (came, was_probe) = tokio::join!(
            tokio::time::timeout(Duration::from_secs(20), seen.more_than(1)),
            async { seen.delivered(&probe) }
        );
        assert!(came.is_ok() && was_probe);
    }
}
