//! Declaring broker objects, as the topology module lists them.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use serde_json::{Map, Value};

use super::Context;
use super::classify::{Class, Problem};
use super::connect::{Conn, rpc};
use super::encode::short;
use super::link::Link;
use super::topology::{self, ExchangeSpec, QueueSpec};
use crate::engine::way::Way;
use crate::model::brokers::OTHER_TYPE_CURE;

/// How long an exchange may take: without it a link stands, and it is tried again.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(3);

/// Declares objects one after another. A refusal closes the channel it came on, so another one is
/// opened then.
pub(super) struct Declarer<'a> {
    context: &'a Context,
    conn: &'a Conn,
    channel: Option<Channel>,
}

impl<'a> Declarer<'a> {
    pub(super) fn new(context: &'a Context, conn: &'a Conn) -> Self {
        Self {
            context,
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
        let refused = match self.try_queue(spec, options).await {
            Err(refused) if is_refusal(&refused) => refused,
            result => return result,
        };
        if !self.context.is_ours(&spec.name)
            && let Some(found) = other_type(spec, &refused)
        {
            return Err(Problem::new(
                Class::Precondition,
                format!(
                    "queue {} exists with the type {found}, queue.type is {}: {OTHER_TYPE_CURE}",
                    spec.name,
                    self.context.config.queue_type.as_str()
                ),
            ));
        }
        let passive = QueueDeclareOptions {
            passive: true,
            ..options
        };
        self.try_queue(spec, passive).await?;
        if self.context.note(&refused.text) {
            tracing::warn!(queue = %spec.name, reason = %refused,
                "the queue exists with other settings and is used as it is");
        }
        Ok(())
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
                if self.context.note(&refused.text) {
                    tracing::warn!(exchange = %spec.name, reason = %refused,
                        "the exchange exists with other settings and is used as it is");
                }
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

/// Declares the command queues: without them a broker is of no use.
pub(super) async fn command_queues(context: &Context, conn: &Conn) -> Result<(), Problem> {
    let mut declarer = Declarer::new(context, conn);
    let groups = context.config.groups.iter();
    for queue in groups.flat_map(|group| &group.queues) {
        declarer.queue(&queue_spec(context, queue)).await?;
    }
    declarer.finish().await;
    Ok(())
}

/// Declares the exchanges; which of them are not to be had.
pub(super) async fn exchanges(context: &Context, conn: &Conn) -> Vec<(Way, Problem)> {
    let exchanges = topology::exchanges(&context.config.cluster_name);
    let each = exchanges.iter().map(async |exchange| {
        let mut declarer = Declarer::new(context, conn);
        let declared = tokio::time::timeout(EXCHANGE_LIMIT, declarer.exchange(exchange)).await;
        let late = |_| {
            Err(Problem::timeout(format!(
                "declare exchange {}",
                exchange.name
            )))
        };
        match declared.unwrap_or_else(late) {
            Ok(()) => {
                declarer.finish().await;
                None
            }
            Err(problem) => Some((context.way_of(&exchange.name), problem)),
        }
    });
    let lacks = futures::future::join_all(each).await;
    lacks.into_iter().flatten().collect()
}

/// Declares the other queues beside the service: one that hangs or is refused holds nothing up. The
/// own control queue is declared on the spare broker too, so that peers who count its consumers
/// there find a queue: a missing one would be a channel error in the broker's log four times a
/// second.
pub(super) async fn others(link: Arc<Link>) -> String {
    let config = &link.context.config;
    let mut specs = topology::queues(&config.cluster_name, &[], config.queue_type);
    let control = link.control_queue();
    specs.push(control.clone());
    let each = specs.iter().map(async |spec| {
        let mut declarer = Declarer::new(&link.context, &link.consume);
        // Who needs it declares it again, and tells.
        if let Err(problem) = declarer.queue(spec).await {
            tracing::debug!(queue = %spec.name, %problem, "a queue is not to be had");
        }
        declarer.finish().await;
    });
    let keep = async {
        futures::future::join_all(each).await;
        loop {
            // It is not consumed on the spare broker, and would expire there.
            tokio::time::sleep(topology::CONTROL_QUEUE_EXPIRES / 3).await;
            let mut declarer = Declarer::new(&link.context, &link.consume);
            let _ = declarer.queue(&control).await;
            declarer.finish().await;
        }
    };
    tokio::select! {
        () = keep => {}
        () = link.cancel.cancelled() => {}
    }
    "closed".to_owned()
}

/// The declaration of one queue that every instance declares.
pub(super) fn queue_spec(context: &Context, name: &str) -> QueueSpec {
    let (cluster, kind) = (&context.config.cluster_name, context.config.queue_type);
    let own = topology::queues(cluster, &[], kind)
        .into_iter()
        .find(|spec| spec.name == name);
    own.unwrap_or_else(|| {
        let mut specs = topology::queues(cluster, &[name.to_owned()], kind);
        // The command queues come first.
        specs.swap_remove(0)
    })
}

/// The type that a queue has, where that is not the one that was asked for: by the broker's words
/// (`inequivalent arg 'x-queue-type' …: received the value 'quorum' … but current is the value
/// 'classic' …`). One that was declared without a type is classic.
fn other_type(spec: &QueueSpec, refused: &Problem) -> Option<String> {
    if refused.class != Class::Precondition {
        return None;
    }
    let (_, rest) = refused.text.split_once("inequivalent arg 'x-queue-type'")?;
    let (_, found) = rest.split_once("but current is ")?;
    let found = match found.split_once('\'') {
        Some((_, quoted)) => quoted.split('\'').next().unwrap_or_default(),
        None => "classic",
    };
    let wanted = spec.arguments.get(topology::TYPE);
    (wanted.and_then(Value::as_str) != Some(found)).then(|| found.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::brokers::QueueType;

    #[test]
    fn a_queue_of_the_other_type_is_known_by_the_brokers_words() {
        let spec = |kind| topology::queues("t", &["q".to_owned()], kind).swap_remove(0);
        let words = |argument: &str, received: &str, current: &str| {
            let text = format!(
                "PRECONDITION_FAILED - inequivalent arg '{argument}' for queue 'q' in vhost '/': \
                 received the value '{received}' of type 'longstr' but current is {current}"
            );
            Problem::new(Class::Precondition, text)
        };
        let (classic, quorum) = (spec(QueueType::Classic), spec(QueueType::Quorum));
        let as_quorum = words(
            "x-queue-type",
            "classic",
            "the value 'quorum' of type 'longstr'",
        );
        assert_eq!(other_type(&classic, &as_quorum).as_deref(), Some("quorum"));
        let as_classic = words(
            "x-queue-type",
            "quorum",
            "the value 'classic' of type 'longstr'",
        );
        assert_eq!(other_type(&quorum, &as_classic).as_deref(), Some("classic"));
        // Declared without a type: by an older client, where that means classic.
        let untyped = words("x-queue-type", "classic", "none");
        assert_eq!(other_type(&classic, &untyped), None);
        assert_eq!(other_type(&quorum, &untyped).as_deref(), Some("classic"));
        let bound = words("x-max-length", "1", "none");
        assert_eq!(other_type(&quorum, &bound), None);
    }
}
