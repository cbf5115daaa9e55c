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

/// Consumers of a peer's control queue on this broker. Where it has several nodes there may be a
/// queue on each: that it is consumed on none of them is known only where all can be asked.
async fn count(
    link: &Link,
    channel: &mut Option<Channel>,
    peer: &InstanceId,
) -> Result<u32, Problem> {
    let context = &link.context;
    for node in context.nodes_of(peer, link.broker) {
        let cluster = &context.config.cluster_name;
        let name = topology::control_queue(cluster, peer.as_str(), &node).name;
        let count = consumers_of(link, channel, &name).await?;
        if count > 0 {
            return Ok(count);
        }
    }
    Ok(0)
}

/// Consumers of a queue; none of one that does not exist.
pub(super) async fn consumers_of(
    link: &Link,
    channel: &mut Option<Channel>,
    name: &str,
) -> Result<u32, Problem> {
    let open = match channel.take() {
        Some(open) if open.status().connected() => open,
        _ => link.consume.channel().await?,
    };
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::durable()
    };
    let declare = open.queue_declare(short(name), options, FieldTable::default());
    match rpc("count consumers", declare).await {
        Ok(queue) => {
            *channel = Some(open);
            Ok(queue.consumer_count())
        }
        // The refusal has closed the channel.
        Err(problem) if problem.class == Class::NotFound && !on_a_dead_node(&problem) => Ok(0),
        Err(problem) => Err(problem),
    }
}

/// The queue exists, and nobody knows who consumes it: `home node '…' of durable queue '…' is down
/// or inaccessible`.
fn on_a_dead_node(problem: &Problem) -> bool {
    problem.text.contains("down or inaccessible")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_on_a_node_that_is_down_is_no_queue_without_consumers() {
        let problem = |text: &str| Problem::new(Class::NotFound, text);
        let down =
            "NOT_FOUND - home node 'a@b' of durable queue 'q' in vhost '/' is down or inaccessible";
        assert!(on_a_dead_node(&problem(down)));
        assert!(!on_a_dead_node(&problem(
            "NOT_FOUND - no queue 'q' in vhost '/'"
        )));
    }
}
