//! The ways that publications and consumers take through a broker: which exchange is which way, whom
//! a refusal is about, and proofs.
//!
//! A proof has a channel of its own: a broker goes by the rights that its user had when a channel
//! used them first. Nothing is published where somebody could see it: what is put to an exchange is
//! rolled back, and the message to the default exchange goes to the own control queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::classify::{Class, Problem};
use super::connect::{Conn, rpc};
use super::declare::Declarer;
use super::encode::short;
use super::link::Link;
use super::{Context, looped, majority};
use crate::engine::Input;
use crate::engine::way::{Proof, Way};

/// Routing key of what is rolled back.
const KEY: &str = "tandem.proof";
/// How often a proof is begun whose channel was closed between two of its steps: the library says why
/// only to what waits for an answer then, and a reason is what a proof is for.
const TRIES: usize = 4;
/// How long a proof's message to the own control queue waits for a consumer, milliseconds.
const EXPIRATION_MS: &str = "1000";

impl Context {
    /// The way of what is published to an exchange.
    pub(super) fn way_of(&self, exchange: &str) -> Way {
        let name = exchange.strip_prefix(&self.config.cluster_name);
        match name {
            Some(".events") => Way::Events,
            Some(".replies") => Way::FarReplies,
            Some(".control") => Way::Peers,
            _ => Way::Replies,
        }
    }

    fn exchange_of(&self, way: Way) -> Option<String> {
        match way {
            Way::Events => Some(self.object("events")),
            Way::FarReplies => Some(self.object("replies")),
            Way::Peers => Some(self.object("control")),
            _ => None,
        }
    }
}

impl Link {
    /// Tells that the broker refuses a way; not where the link is ending anyhow.
    pub(super) async fn barred(&self, way: Way, problem: &Problem) {
        if self.lost().is_some() || self.cancel.is_cancelled() {
            return;
        }
        let (link, reason) = (self.epoch, problem.to_string());
        let input = Input::Barred { link, way, reason };
        self.context.tell(input).await;
    }

    /// Tells how the question for a way ended.
    pub(super) async fn proved(&self, way: Way, result: Result<(), Problem>) {
        let proof = match result {
            Ok(()) => Proof::Passed,
            Err(_) if self.lost().is_some() || self.cancel.is_cancelled() => Proof::Unknown,
            Err(problem) => Proof::Refused {
                reason: problem.to_string(),
            },
        };
        let link = self.epoch;
        self.context.tell(Input::Proved { link, way, proof }).await;
    }
}

/// Which of these exchanges a refused publication was for, by the broker's words; `None` where they
/// name none of them.
pub(super) fn blamed<'a>(text: &str, exchanges: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut exchanges = exchanges;
    exchanges.find(|name| {
        let shown = if name.is_empty() { "amq.default" } else { name };
        text.contains(&format!("exchange '{shown}'"))
    })
}

/// The routing key that topic permissions refused: that is one client's address, not the exchange.
pub(super) fn refused_topic(problem: &Problem) -> Option<&str> {
    let (_, rest) = problem.text.split_once("access to topic '")?;
    let (key, _) = rest.split_once("' in exchange")?;
    (problem.class == Class::AccessRefused).then_some(key)
}

/// Proves ways until the link ends; the engine has one question a way at most.
pub(super) async fn run(link: Arc<Link>, mut ways: mpsc::Receiver<Way>) -> String {
    let mut proofs = JoinSet::new();
    loop {
        tokio::select! {
            () = link.cancel.cancelled() => return "closed".to_owned(),
            Some(_) = proofs.join_next() => {}
            way = ways.recv() => {
                let Some(way) = way else {
                    link.cancel.cancelled().await;
                    return "closed".to_owned();
                };
                let link = Arc::clone(&link);
                proofs.spawn(async move {
                    let proof = tokio::time::timeout(limit_of(way), prove(&link, way)).await;
                    let silent = |_| Err(Problem::timeout(way.words()));
                    link.proved(way, proof.unwrap_or_else(silent)).await;
                });
            }
        }
    }
}

/// From 4.0 on a broker answers nothing, for a minute, where the node of a classic queue is dead. Twice
/// this long commands wait until another broker is asked for them.
const COMMANDS_LIMIT: Duration = Duration::from_millis(1_500);
/// Other ways end by the limits of their steps, see [`rpc`].
const WAY_LIMIT: Duration = Duration::from_secs(60);

fn limit_of(way: Way) -> Duration {
    match way {
        Way::Commands => COMMANDS_LIMIT,
        _ => WAY_LIMIT,
    }
}

async fn prove(link: &Link, way: Way) -> Result<(), Problem> {
    match way {
        Way::Commands => commands(link).await,
        Way::ControlQueue => control_queue(link).await,
        Way::Replies => default_exchange(link).await,
        Way::Events | Way::FarReplies | Way::Peers => match link.context.exchange_of(way) {
            Some(exchange) => exchange_of_ours(link, &exchange).await,
            None => Ok(()),
        },
        // Found out otherwise.
        Way::Publishing | Way::Expired | Way::DeadLetters => Ok(()),
    }
}

/// The whole way: published, routed to a queue of ours, confirmed.
async fn default_exchange(link: &Link) -> Result<(), Problem> {
    let channel = link.publish.channel().await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    rpc("ask for confirms", select).await?;
    let queue = link.control_queue();
    let properties = BasicProperties::default()
        .with_type(looped::KIND.into())
        .with_delivery_mode(1)
        .with_expiration(EXPIRATION_MS.into());
    let (key, options) = (short(&queue.name), BasicPublishOptions::default());
    let publish = channel.basic_publish("".into(), key, options, b"", properties);
    let confirm = rpc("publish", publish).await?;
    let confirmed = rpc("publish", confirm).await?;
    close(channel).await;
    match confirmed {
        Confirmation::Ack(_) | Confirmation::NotRequested => Ok(()),
        Confirmation::Nack(_) => Err(Problem::new(Class::Protocol, "a probe was refused")),
    }
}

/// One that was deleted while the right to declare it was missing is declared once it is there again.
async fn exchange_of_ours(link: &Link, exchange: &str) -> Result<(), Problem> {
    match rolled_back(link, exchange).await {
        Err(problem) if problem.class == Class::NotFound => {
            super::declare::exchanges(&link.context, &link.publish).await;
            rolled_back(link, exchange).await
        }
        result => result,
    }
}

/// Rights and existence are looked at when a message is taken, not when its transaction ends.
async fn rolled_back(link: &Link, exchange: &str) -> Result<(), Problem> {
    for _ in 1..TRIES {
        match roll_back_once(link, exchange).await {
            Err(problem) if problem.class == Class::Local => {}
            result => return result,
        }
    }
    roll_back_once(link, exchange).await
}

async fn roll_back_once(link: &Link, exchange: &str) -> Result<(), Problem> {
    let channel = link.publish.channel().await?;
    rpc("begin a transaction", channel.tx_select()).await?;
    let publish = channel.basic_publish(
        short(exchange),
        KEY.into(),
        BasicPublishOptions::default(),
        b"",
        BasicProperties::default(),
    );
    // One after the other: what is written to a channel that the broker has closed meanwhile would
    // end the whole connection.
    drop(rpc("publish", publish).await?);
    match rpc("publish", channel.tx_rollback()).await {
        // The exchange's own right is looked at before.
        Err(problem) if refused_topic(&problem).is_some() => Ok(()),
        Err(problem) => Err(problem),
        Ok(()) => {
            close(channel).await;
            Ok(())
        }
    }
}

async fn commands(link: &Link) -> Result<(), Problem> {
    majority::prove(link).await?;
    let groups = &link.context.config.groups;
    for queue in groups.iter().flat_map(|group| &group.queues) {
        let spec = super::declare::queue_spec(&link.context, queue);
        let mut declarer = Declarer::new(&link.context, &link.consume);
        declarer.queue(&spec).await?;
        declarer.finish().await;
        may_consume(&link.consume, queue).await?;
    }
    Ok(())
}

/// A consumer with an argument that cannot be: refused for want of rights or of a queue, else for
/// that. A real one might be given a message, which would then count as seen.
pub(super) async fn may_consume(conn: &Conn, queue: &str) -> Result<(), Problem> {
    let channel = conn.channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongString("none".into()));
    let options = BasicConsumeOptions::default();
    let consume = channel.basic_consume(short(queue), "proof".into(), options, arguments);
    match rpc(&format!("consume {queue}"), consume).await {
        Err(problem) if problem.class == Class::Precondition => {}
        Err(problem) => return Err(problem),
        // Not as the broker should: it goes with its channel.
        Ok(_) => close(channel).await,
    }
    Ok(())
}

/// All that attaching needs, the consumer aside: peers would count it. Purging wants the same right
/// as consuming, and on this broker nothing of ours waits in it.
async fn control_queue(link: &Link) -> Result<(), Problem> {
    let context = &link.context;
    let instance = &context.config.instance;
    let spec = link.control_queue();
    let mut declarer = Declarer::new(&link.context, &link.consume);
    declarer.queue(&spec).await?;
    declarer.finish().await;
    let channel = link.consume.channel().await?;
    let queue = short(&spec.name);
    let bind = channel.queue_bind(
        queue.clone(),
        short(&context.object("control")),
        short(instance.as_str()),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    rpc("bind the control queue", bind).await?;
    if link.attached.load(Ordering::Relaxed) {
        close(channel).await;
        return Ok(());
    }
    let purge = channel.queue_purge(queue, QueuePurgeOptions::default());
    rpc("purge the control queue", purge).await?;
    close(channel).await;
    Ok(())
}

pub(super) async fn close(channel: lapin::Channel) {
    let _ = rpc("close a channel", channel.close(200, "OK".into())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_about_the_exchange_that_it_names() {
        let names = || ["", "tandem.replies", "tandem.events"].into_iter();
        let text = |name: &str| {
            format!(
                "ACCESS_REFUSED - access to exchange '{name}' in vhost '/' refused for user 'u'"
            )
        };
        assert_eq!(blamed(&text("amq.default"), names()), Some(""));
        let missing = "NOT_FOUND - no exchange 'tandem.replies' in vhost '/'";
        assert_eq!(blamed(missing, names()), Some("tandem.replies"));
        assert_eq!(blamed(&text("tandem.event"), names()), None);
        assert_eq!(blamed("ACCESS_REFUSED", names()), None);
    }

    #[test]
    fn topic_permissions_are_about_one_client() {
        let text = "ACCESS_REFUSED - access to topic 'crm-1' in exchange 'tandem.events' in vhost \
                    '/' refused for user 'u'";
        let problem = Problem::new(Class::AccessRefused, text);
        assert_eq!(refused_topic(&problem), Some("crm-1"));
        let other = Problem::new(Class::AccessRefused, "access to exchange 'x' refused");
        assert_eq!(refused_topic(&other), None);
    }
}
