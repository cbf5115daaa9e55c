//! Counting the consumers of a peer's control queue: evidence whether the peer lives.

use std::sync::Arc;

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::sync::mpsc;

use super::classify::{Class, Problem};
use super::connect::rpc;
use super::encode::short;
use super::link::Link;
use super::topology;
use crate::engine::Input;
use crate::model::InstanceId;

/// Answers questions until the link ends. A question that fails is not answered.
pub(super) async fn run(link: Arc<Link>, mut peers: mpsc::Receiver<InstanceId>) -> String {
    let mut channel: Option<Channel> = None;
    loop {
        let peer = tokio::select! {
            () = link.cancel.cancelled() => return "closed".to_owned(),
            peer = peers.recv() => peer,
        };
        let Some(peer) = peer else {
            link.cancel.cancelled().await;
            return "closed".to_owned();
        };
        let counted = tokio::select! {
            () = link.cancel.cancelled() => return "closed".to_owned(),
            counted = count(&link, &mut channel, &peer) => counted,
        };
        match counted {
            Ok(count) => {
                let link_epoch = link.epoch;
                let input = Input::PeerConsumers {
                    link: link_epoch,
                    peer,
                    count,
                };
                link.context.tell(input).await;
            }
            Err(problem) => tracing::debug!(%peer, %problem, "consumers of a peer not counted"),
        }
    }
}

async fn count(
    link: &Link,
    channel: &mut Option<Channel>,
    peer: &InstanceId,
) -> Result<u32, Problem> {
    let open = match channel.take() {
        Some(open) if open.status().connected() => open,
        _ => link.consume.channel().await?,
    };
    let spec = topology::control_queue(&link.context.config.cluster_name, peer.as_str());
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::durable()
    };
    let declare = open.queue_declare(short(&spec.name), options, FieldTable::default());
    match rpc("count consumers", declare).await {
        Ok(queue) => {
            *channel = Some(open);
            Ok(queue.consumer_count())
        }
        // The refusal has closed the channel.
        Err(problem) if problem.class == Class::NotFound => Ok(0),
        Err(problem) => Err(problem),
    }
}
