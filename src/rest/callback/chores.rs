//! What a keeper has done beside its work. None of it may end it, nor keep it waiting.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};

use super::Callbacks;
use super::objects::{Objects, Registration};
use crate::broker::cut::CutConnection;
use crate::rest::connection::{Broker, Dial};

/// Bound of one answer of the broker's.
const ANSWER: Duration = Duration::from_secs(5);

/// Counts the events that wait in these queues of destinations. One that cannot be counted now (its
/// queue was deleted, say) keeps its last number.
pub(super) async fn count(
    connection: Arc<CutConnection>,
    broker: String,
    queues: Vec<(String, ShortString)>,
    tally: Callbacks,
) {
    // A channel of its own: the broker closes it where there is no such queue.
    let mut channel = None;
    for (destination, queue) in queues {
        let length = length(&connection, &mut channel, queue);
        match tokio::time::timeout(ANSWER, length).await {
            Ok(Ok(length)) => tally.waiting((&broker, &destination), length),
            Ok(Err(error)) => {
                tracing::debug!(%broker, %destination, %error, "callback: not counted");
                channel = None;
            }
            Err(_) => return,
        }
        if !connection.status().connected() {
            return;
        }
    }
    if let Some(channel) = channel {
        let close = channel.close(200, "OK".into());
        let _ = tokio::time::timeout(ANSWER, close).await;
    }
}

async fn length(
    connection: &Connection,
    channel: &mut Option<Channel>,
    queue: ShortString,
) -> lapin::Result<u64> {
    let passive = QueueDeclareOptions {
        passive: true,
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let open = match channel.take() {
        Some(open) => open,
        None => connection.create_channel().await?,
    };
    let asked = open
        .queue_declare(queue, passive, FieldTable::default())
        .await?;
    *channel = Some(open);
    Ok(u64::from(asked.message_count()))
}

/// Publishes registrations again. They come by a connection of their own: in an alarm the broker
/// reads nothing more from one that publishes, acknowledgements included.
pub(super) async fn renew(broker: Broker, dial: Dial, objects: Objects, again: Vec<Registration>) {
    let published = async {
        let connection = broker.open(&dial, "callback renewals").await?;
        let published = publish(&connection, &objects, &again).await;
        let close = connection.close(200, "OK".into());
        let _ = tokio::time::timeout(ANSWER, close).await;
        published
    };
    if let Err(why) = published.await {
        let broker = &broker.label;
        tracing::warn!(%broker, why, "callbacks: registrations were not published; it is tried again");
    }
}

async fn publish(
    connection: &Connection,
    objects: &Objects,
    again: &[Registration],
) -> Result<(), String> {
    let opened = async {
        let channel = connection.create_channel().await?;
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await?;
        Ok::<_, lapin::Error>(channel)
    };
    let opened = tokio::time::timeout(ANSWER, opened).await;
    let opened = opened.map_err(|_| "no channel in time".to_owned())?;
    let channel = opened.map_err(|error| error.to_string())?;
    for registration in again {
        let publish = objects.publish(&channel, registration);
        let published = tokio::time::timeout(ANSWER, publish).await;
        published.map_err(|_| "no confirm in time".to_owned())??;
    }
    Ok(())
}
