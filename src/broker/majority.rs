//! Whether the broker's nodes are a majority of their cluster.
//!
//! Up to RabbitMQ 4.2 the nodes that are left pause and close their connections (`pause_minority`).
//! From 4.3 on they go on: they take connections, declare what exists and refuse what they always
//! refused, and give neither consumers nor commands. Only what changes the cluster's metadata shows
//! that: it gets no answer for 30 s, and then the connection is closed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::types::FieldTable;

use super::classify::Problem;
use super::connect::rpc;
use super::encode::short;
use super::link::Link;
use super::ways;
use crate::engine::way::Way;
use crate::model::brokers::{KHEPRI_SINCE, QueueType, at_least};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long the answer may take. A healthy cluster has it within milliseconds; one that loses the node
/// that leads its metadata, once another one does.
const LIMIT: Duration = Duration::from_secs(1);
/// A key that nothing is bound with.
const KEY: &str = "tandem.majority";

/// Whether the broker could lose its majority unseen. Before 4.3 the question may wait for a node
/// that only stands still, while the others serve.
fn matters(link: &Link) -> bool {
    let version = &link.consume.inner.greeting.version;
    link.context.config.queue_type == QueueType::Quorum && at_least(version, KHEPRI_SINCE)
}

/// Looks again and again until the link ends. What gets no answer is a doubt only; what becomes of it
/// the proofs show.
pub(super) async fn run(link: Arc<Link>) -> String {
    let looks = async {
        match matters(&link) {
            true => watch(&link).await,
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        never = looks => match never {},
        () = link.cancel.cancelled() => "closed".to_owned(),
    }
}

async fn watch(link: &Link) -> Infallible {
    let mut channel = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let mut asked = std::pin::pin!(ask(link, &mut channel));
        if tokio::time::timeout(LIMIT, &mut asked).await.is_err() {
            link.barred(Way::Commands, &silence()).await;
            // It has the question, and would have to give up each.
            asked.await;
        }
    }
}

/// That the broker serves commands at all, as far as its majority goes.
pub(super) async fn prove(link: &Link) -> Result<(), Problem> {
    if !matters(link) {
        return Ok(());
    }
    let mut channel = None;
    let asked = tokio::time::timeout(LIMIT, ask(link, &mut channel)).await;
    asked.map_err(|_| silence())?;
    if let Some(channel) = channel {
        ways::close(channel).await;
    }
    Ok(())
}

fn silence() -> Problem {
    Problem::timeout("what needs a majority of its cluster's nodes; start the other nodes")
}

/// Takes away a binding that is not there. That changes nothing, and all the same the nodes have to
/// agree on it. What the broker says to it is no matter.
async fn ask(link: &Link, channel: &mut Option<Channel>) {
    let open = match channel.take() {
        Some(open) if open.status().connected() => open,
        _ => match link.consume.channel().await {
            Ok(open) => open,
            // The link's own watch tells.
            Err(_) => return,
        },
    };
    let unbind = open.queue_unbind(
        short(&link.control_queue().name),
        short(&link.context.object("control")),
        KEY.into(),
        FieldTable::default(),
    );
    if rpc("ask for a majority", unbind).await.is_ok() {
        *channel = Some(open);
    }
}
