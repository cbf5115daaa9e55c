//! Acknowledging and giving back deliveries.
//!
//! Expired commands have a channel of their own, as a broker that refuses them closes it. Their
//! tags are marked, with the number of their channel, so that one tag of a link names one delivery.

use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use tokio::sync::mpsc;

use super::link::{Link, Settle};
use super::lock;

const BATCH: usize = 1024;

/// Marks the tags of the second channel.
const MARK: u64 = 1 << 63;
/// Where the number of that channel stands, and how many numbers there are.
const NUMBER_SHIFT: u32 = 48;
const NUMBERS: u64 = 1 << 15;

/// The channel of expired commands; a new one after each refusal.
#[derive(Default)]
pub(super) struct Second(Mutex<(u64, Option<Channel>)>);

impl Second {
    /// Takes a new channel; gives back what marks its tags.
    pub(super) fn replace(&self, channel: Channel) -> Marker {
        let mut second = lock(&self.0);
        second.0 = (second.0 + 1) % NUMBERS;
        second.1 = Some(channel);
        Marker(MARK | (second.0 << NUMBER_SHIFT))
    }

    /// The channel that a marked tag is of, and its tag there. What was delivered on an earlier
    /// channel went back to its queue with that.
    fn find(&self, tag: u64) -> Option<(Channel, u64)> {
        let second = lock(&self.0);
        let (number, own) = unmarked(tag);
        let channel = second.1.clone().filter(|_| number == second.0)?;
        Some((channel, own))
    }
}

/// Marks tags; the default one leaves them as they are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marker(u64);

impl Marker {
    pub(super) fn mark(self, tag: u64) -> u64 {
        self.0 | tag
    }
}

/// Number of the channel, and tag on it.
fn unmarked(tag: u64) -> (u64, u64) {
    let number = (tag & !MARK) >> NUMBER_SHIFT;
    (number, tag & ((1 << NUMBER_SHIFT) - 1))
}

/// Settles until the link ends; what is waiting then is still written.
pub(super) async fn run(link: Arc<Link>, mut settles: mpsc::Receiver<Settle>) -> String {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            count = settles.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    // The engine has dropped the link's handle.
                    link.cancel.cancelled().await;
                    return "closed".to_owned();
                }
                for settle in batch.drain(..) {
                    if settle.tag & MARK == 0 {
                        write(&link.commands, settle);
                    } else if let Some((channel, tag)) = link.expired.find(settle.tag) {
                        write(&channel, Settle { tag, ..settle });
                    }
                }
            }
            () = link.cancel.cancelled() => return "closed".to_owned(),
        }
    }
}

/// The first poll puts the frame into the library's queue, and there is no answer to wait for:
/// where the channel is gone, the broker delivers again. The queue is bounded by the prefetch.
fn write(channel: &Channel, settle: Settle) {
    let _ = if settle.requeue {
        let options = BasicRejectOptions { requeue: true };
        channel.basic_reject(settle.tag, options).now_or_never()
    } else {
        let options = BasicAckOptions::default();
        channel.basic_ack(settle.tag, options).now_or_never()
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_tag_keeps_channel_and_tag_apart() {
        let marker = Marker(MARK | (7 << NUMBER_SHIFT));
        let tag = marker.mark(12_345);
        assert_ne!(tag & MARK, 0);
        assert_eq!(unmarked(tag), (7, 12_345));
        assert_eq!(Marker::default().mark(9), 9);
    }
}
