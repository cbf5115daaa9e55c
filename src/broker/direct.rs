//! Direct reply-to, on a connection of its own: a forged or foreign address closes the connection
//! that publishes to it.

use std::sync::Arc;

use lapin::Channel;
use lapin::options::BasicPublishOptions;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::RPC_LIMIT;
use super::classify::Problem;
use super::connect::{Conn, within};
use super::encode::Message;
use super::link::Link;
use crate::engine::ids::PublishId;
use crate::engine::input::PublishOutcome;

/// Replies waiting; more are answered as failed.
const MAX_WAITING: usize = 1024;

/// Where direct replies go.
pub(super) struct Sender(mpsc::Sender<(PublishId, Message)>);

impl Sender {
    /// False where there is no room.
    pub(super) fn send(&self, id: PublishId, message: Message) -> bool {
        self.0.try_send((id, message)).is_ok()
    }
}

/// The task that writes them; ends with the link.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) async fn end(self) {
        let _ = self.0.await;
    }
}

/// Starts the task; it connects when there is something to send.
pub(super) fn start(link: Arc<Link>) -> (Sender, Task) {
    let (sender, waiting) = mpsc::channel(MAX_WAITING);
    (Sender(sender), Task(tokio::spawn(run(link, waiting))))
}

async fn run(link: Arc<Link>, mut waiting: mpsc::Receiver<(PublishId, Message)>) {
    let mut open: Option<(Conn, Channel)> = None;
    loop {
        let next = tokio::select! {
            () = link.cancel.cancelled() => break,
            next = waiting.recv() => next,
        };
        let Some((id, message)) = next else { break };
        let sent = tokio::select! {
            () = link.cancel.cancelled() => Err(Problem::timeout("closed")),
            sent = send(&link, &mut open, message) => sent,
        };
        let outcome = match sent {
            Ok(()) => PublishOutcome::Confirmed,
            Err(problem) => {
                tracing::warn!(%problem, "a direct reply was not sent");
                open = None;
                PublishOutcome::Failed
            }
        };
        link.context.published(id, outcome).await;
    }
    waiting.close();
    while let Some((id, _)) = waiting.recv().await {
        link.context.published(id, PublishOutcome::Failed).await;
    }
    if let Some((conn, _)) = open {
        conn.close().await;
    }
}

async fn send(
    link: &Link,
    open: &mut Option<(Conn, Channel)>,
    message: Message,
) -> Result<(), Problem> {
    let usable = open
        .take()
        .filter(|(conn, channel)| conn.alive() && channel.status().connected());
    let (conn, channel) = match usable {
        Some(usable) => usable,
        None => connect(link).await?,
    };
    let options = BasicPublishOptions::default();
    let publish = channel.basic_publish(
        message.exchange,
        message.key,
        options,
        &message.body,
        message.properties,
    );
    tokio::time::timeout(RPC_LIMIT, publish)
        .await
        .map_err(|_| Problem::timeout("publish"))??;
    *open = Some((conn, channel));
    Ok(())
}

async fn connect(link: &Link) -> Result<(Conn, Channel), Problem> {
    let config = &link.context.config;
    within(config.timeout, async {
        let conn = Conn::open(config, link.endpoint(), "direct-reply").await?;
        let channel = conn.channel().await?;
        Ok((conn, channel))
    })
    .await
}
