//! Whether the user has the rights that an instance needs: asked of the broker itself, in ways that
//! change nothing.

use lapin::BasicProperties;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};

use super::classify::{Class, Problem};
use super::connect::{Conn, rpc};
use super::encode::short;
use super::probes::Probes;
use super::ways::{close, may_consume};

/// What an instance does with objects of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Exchanges that it publishes to; empty for the default one.
    pub written: Vec<String>,
    /// Queues that it consumes.
    pub read: Vec<String>,
    /// Begins the name of a queue that it makes for itself.
    pub made: String,
    /// The exchange that such a queue is bound to.
    pub bound_to: String,
}

/// Something that an instance would do and this user could not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Label of the broker.
    pub broker: String,
    /// What an instance would do.
    pub act: String,
    /// The broker's words, or that it said none.
    pub why: String,
    /// For want of a right; else it failed, or got no answer.
    pub refused: bool,
}

impl Probes {
    /// The rights that are missing, on every broker that is reached, and what failed otherwise. What
    /// does not exist, or is there with other properties, is not judged. `key` must be nobody's: the routing key of what is published.
    pub async fn denied(&self, needs: &Needs, key: &str) -> Vec<Denied> {
        let mut denied = Vec::new();
        for (broker, conn) in self.reached() {
            for (act, result) in try_all(conn, needs, key).await {
                if let Err(problem) = result
                    && !matches!(problem.class, Class::NotFound | Class::Precondition)
                {
                    denied.push(Denied {
                        broker: broker.to_owned(),
                        act,
                        refused: problem.class == Class::AccessRefused,
                        why: problem.text,
                    });
                }
            }
        }
        denied
    }
}

/// A refusal closes the channel: each act has one of its own.
async fn try_all(conn: &Conn, needs: &Needs, key: &str) -> Vec<(String, Result<(), Problem>)> {
    let mut tried = Vec::new();
    for exchange in &needs.written {
        let name = match exchange.as_str() {
            "" => "the default exchange",
            name => name,
        };
        tried.push((
            format!("publish to {name}"),
            write(conn, exchange, key).await,
        ));
    }
    for queue in &needs.read {
        tried.push((format!("consume {queue}"), may_consume(conn, queue).await));
    }
    let made = format!("{}.{key}", needs.made);
    let act = format!("make a queue {}.… bound to {}", needs.made, needs.bound_to);
    tried.push((act, make(conn, &made, &needs.bound_to, key).await));
    tried
}

/// A message that no queue gets.
async fn write(conn: &Conn, exchange: &str, key: &str) -> Result<(), Problem> {
    let channel = conn.channel().await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    rpc("ask for confirms", select).await?;
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    let publish = channel.basic_publish(short(exchange), short(key), options, b"", properties);
    let confirm = rpc("publish", publish).await?;
    rpc("publish", confirm).await?;
    close(channel).await;
    Ok(())
}

/// A queue that ends with the channel's connection, or here.
async fn make(conn: &Conn, queue: &str, exchange: &str, key: &str) -> Result<(), Problem> {
    let channel = conn.channel().await?;
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    let declare = channel.queue_declare(short(queue), options, arguments);
    rpc("declare", declare).await?;
    let options = QueueBindOptions::default();
    let nothing = FieldTable::default();
    let bind = channel.queue_bind(short(queue), short(exchange), short(key), options, nothing);
    let bound = rpc("bind", bind).await;
    if bound.is_ok() {
        let delete = channel.queue_delete(short(queue), Default::default());
        rpc("delete", delete).await?;
        close(channel).await;
    }
    bound
}
