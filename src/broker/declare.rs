//! Declaring broker objects, as the topology module lists them.

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use serde_json::{Map, Value};

use super::Context;
use super::classify::{Class, Problem};
use super::connect::{Conn, rpc};
use super::encode::short;
use super::topology::{self, ExchangeSpec, QueueSpec};

/// Declares objects one after another. A refusal closes the channel it came on, so another one is
/// opened then.
pub(super) struct Declarer<'a> {
    conn: &'a Conn,
    channel: Option<Channel>,
}

impl<'a> Declarer<'a> {
    pub(super) fn new(conn: &'a Conn) -> Self {
        Self {
            conn,
            channel: None,
        }
    }

    async fn channel(&mut self) -> Result<Channel, Problem> {
        match &self.channel {
            Some(channel) if channel.status().connected() => Ok(channel.clone()),
            _ => {
                let channel = self.conn.channel().await?;
                self.channel = Some(channel.clone());
                Ok(channel)
            }
        }
    }

    /// Declares a queue, or finds it where it exists with other arguments or may not be declared.
    pub(super) async fn queue(&mut self, spec: &QueueSpec) -> Result<(), Problem> {
        let options = QueueDeclareOptions::durable();
        match self.try_queue(spec, options).await {
            Err(refused) if is_refusal(&refused) => {
                let passive = QueueDeclareOptions {
                    passive: true,
                    ..options
                };
                self.try_queue(spec, passive).await?;
                tracing::warn!(queue = %spec.name, reason = %refused,
                    "the queue exists with other settings and is used as it is");
                Ok(())
            }
            result => result,
        }
    }

    async fn try_queue(
        &mut self,
        spec: &QueueSpec,
        options: QueueDeclareOptions,
    ) -> Result<(), Problem> {
        let channel = self.channel().await?;
        let arguments = table(&spec.arguments);
        let declare = channel.queue_declare(short(&spec.name), options, arguments);
        rpc(&format!("declare queue {}", spec.name), declare).await?;
        Ok(())
    }

    async fn exchange(&mut self, spec: &ExchangeSpec) -> Result<(), Problem> {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        match self.try_exchange(spec, options).await {
            Err(refused) if is_refusal(&refused) => {
                let passive = ExchangeDeclareOptions {
                    passive: true,
                    ..options
                };
                self.try_exchange(spec, passive).await?;
                tracing::warn!(exchange = %spec.name, reason = %refused,
                    "the exchange exists with other settings and is used as it is");
                Ok(())
            }
            result => result,
        }
    }

    async fn try_exchange(
        &mut self,
        spec: &ExchangeSpec,
        options: ExchangeDeclareOptions,
    ) -> Result<(), Problem> {
        let channel = self.channel().await?;
        let kind = match spec.kind {
            "topic" => ExchangeKind::Topic,
            _ => ExchangeKind::Direct,
        };
        let declare =
            channel.exchange_declare(short(&spec.name), kind, options, FieldTable::default());
        rpc(&format!("declare exchange {}", spec.name), declare).await
    }

    /// Closes the channel used, in an orderly way.
    pub(super) async fn finish(self) {
        if let Some(channel) = self.channel
            && channel.status().connected()
        {
            let close = channel.close(200, "OK".into());
            let _ = rpc("close a channel", close).await;
        }
    }
}

/// Declares everything that an instance needs on a broker. Its own control queue is declared on
/// the spare broker too, so that peers who count its consumers there find a queue: a missing one
/// would be a channel error in the broker's log four times a second.
pub(super) async fn all(context: &Context, conn: &Conn) -> Result<(), Problem> {
    let config = &context.config;
    let command_queues: Vec<String> = config
        .groups
        .iter()
        .flat_map(|group| group.queues.iter().cloned())
        .collect();
    let mut declarer = Declarer::new(conn);
    for exchange in topology::exchanges(&config.cluster_name) {
        declarer.exchange(&exchange).await?;
    }
    for queue in topology::queues(&config.cluster_name, &command_queues) {
        declarer.queue(&queue).await?;
    }
    let own = topology::control_queue(&config.cluster_name, config.instance.as_str());
    declarer.queue(&own).await?;
    declarer.finish().await;
    Ok(())
}

/// The declaration of one queue that every instance declares.
pub(super) fn queue_spec(context: &Context, name: &str) -> QueueSpec {
    let cluster = &context.config.cluster_name;
    let own = topology::queues(cluster, &[])
        .into_iter()
        .find(|spec| spec.name == name);
    own.unwrap_or_else(|| {
        let mut specs = topology::queues(cluster, &[name.to_owned()]);
        // The command queues come first.
        specs.swap_remove(0)
    })
}

/// Whether the object may be there all the same.
fn is_refusal(problem: &Problem) -> bool {
    matches!(problem.class, Class::Precondition | Class::AccessRefused)
}

/// Declare arguments as AMQP has them.
fn table(arguments: &Map<String, Value>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Value::String(text) => AMQPValue::LongString(text.as_bytes().into()),
            Value::Bool(flag) => AMQPValue::Boolean(*flag),
            Value::Number(number) => match number.as_i64() {
                Some(number) => AMQPValue::LongLongInt(number),
                None => continue,
            },
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        table.insert(short(name), value);
    }
    table
}
