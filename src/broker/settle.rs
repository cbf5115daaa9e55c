//! Acknowledging and giving back deliveries.

use std::sync::Arc;

use futures::FutureExt as _;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use tokio::sync::mpsc;

use super::link::{Link, Settle};
use super::second::is_marked;

const BATCH: usize = 1024;

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
                    if !is_marked(settle.tag) {
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
