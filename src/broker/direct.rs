//! Direct reply-to, on a connection of its own: a forged or foreign address closes the connection
//! that publishes to it.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Event};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::RPC_LIMIT;
use super::classify::{Class, Problem};
use super::connect::{Conn, within};
use super::encode::Message;
use super::link::Link;
use crate::engine::fitness::Way;
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

/// The connection while it is open.
struct Open {
    conn: Conn,
    channel: Channel,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

/// What the broker has against what was published; nothing without a connection.
async fn refusal(open: &mut Option<Open>) -> Option<Problem> {
    match open {
        Some(open) => match open.events.next().await {
            Some(Event::Error(error)) => Some(error.into()),
            Some(_) => None,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn run(link: Arc<Link>, mut waiting: mpsc::Receiver<(PublishId, Message)>) {
    let mut open: Option<Open> = None;
    loop {
        let next = tokio::select! {
            () = link.cancel.cancelled() => break,
            problem = refusal(&mut open) => {
                // A missing right; a forged address is told otherwise. What was refused is lost:
                // nobody can say whether a direct reply arrives.
                if let Some(problem) = problem.filter(|p| p.class == Class::AccessRefused) {
                    link.barred(Way::Replies, &problem).await;
                }
                continue;
            }
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
                tracing::debug!(%problem, "a direct reply was not sent");
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
    if let Some(open) = open {
        let close = tokio::spawn(async move { open.conn.close().await });
        // Where the link is lost the engine is to know at once.
        if link.is_wanted_down() {
            let _ = close.await;
        }
    }
}

async fn send(link: &Link, open: &mut Option<Open>, message: Message) -> Result<(), Problem> {
    let usable = open
        .take()
        .filter(|open| open.conn.alive() && open.channel.status().connected());
    let usable = match usable {
        Some(usable) => usable,
        None => connect(link).await?,
    };
    let options = BasicPublishOptions::default();
    let publish = usable.channel.basic_publish(
        message.exchange,
        message.key,
        options,
        &message.body,
        message.properties,
    );
    tokio::time::timeout(RPC_LIMIT, publish)
        .await
        .map_err(|_| Problem::timeout("publish"))??;
    *open = Some(usable);
    Ok(())
}

async fn connect(link: &Link) -> Result<Open, Problem> {
    let config = &link.context.config;
    within(config.timeout, async {
        let conn = Conn::open(config, link.node(), "direct-reply").await?;
        let channel = conn.channel().await?;
        let events = Box::pin(conn.inner.events_listener());
        Ok(Open {
            conn,
            channel,
            events,
        })
    })
    .await
}
