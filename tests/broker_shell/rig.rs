//! The shell under test, a client that is independent of it, and the broker's own view.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery as Message;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use serde_json::Value;
use tandem::broker::{Broker, BrokerAddress, BrokerConfig, GroupConfig, guard};
use tandem::engine::Input;
use tandem::engine::command::{BrokerCommand, Outbound, ReplyRoute};
use tandem::engine::ids::{BootId, LinkEpoch, PublishId};
use tandem::engine::input::{Delivery, PublishOutcome};
use tandem::engine::way::{Proof, Way};
use tandem::lab::{RabbitNode, RabbitOptions};
use tandem::model::{Destination, InstanceId, Secret};
use tandem::wire::command::Defaults;
use tandem::wire::control::Keys;
use tandem::wire::event::{ClientEvent, Format, SystemStatus};
use tandem::wire::reply::{Outcome, Reply};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Generous: only a failing test waits this long.
pub const LIMIT: Duration = Duration::from_secs(90);
/// How long nothing further may come.
pub const QUIET: Duration = Duration::from_secs(2);
pub const LINK: LinkEpoch = LinkEpoch(1);

pub fn instance(text: &str) -> InstanceId {
    InstanceId::new(text).unwrap()
}

pub fn config(node: &RabbitNode, id: &str, boot: u64) -> BrokerConfig {
    config_for(node.amqp_uri(), id, boot)
}

pub fn config_for(uri: String, id: &str, boot: u64) -> BrokerConfig {
    let key = Secret::new("k".repeat(32));
    let queues = vec!["Connector1".to_owned(), "Connector2".to_owned()];
    BrokerConfig {
        instance: instance(id),
        site: "site-1".into(),
        role: "active-passive priority 10".into(),
        version: "0.0.1".into(),
        cluster_name: "tandem".into(),
        queue_type: Default::default(),
        groups: vec![GroupConfig {
            name: "agents".into(),
            queues: queues.clone(),
        }],
        brokers: vec![BrokerAddress {
            management: None,
            uri,
            label: "broker-1".into(),
        }],
        timeout: Duration::from_secs(20),
        heartbeat: Duration::from_secs(1),
        probe_interval: Duration::from_millis(500),
        probe_count: 3,
        prefetch: 100,
        tls: Default::default(),
        format: Format::Json,
        parse: Defaults {
            max_age_ms: 30_000,
            cluster_name: "tandem".into(),
            generate_traces: false,
            command_queues: queues,
        },
        control: Keys::new(Some(&key), None, "tandem", instance(id), BootId(boot)),
    }
}

pub struct Shell {
    pub broker: Broker,
    pub inputs: mpsc::Receiver<Input>,
}

impl Shell {
    pub fn start(config: BrokerConfig) -> Self {
        let (sender, inputs) = mpsc::channel(1024);
        let broker = Broker::start(config, sender).unwrap();
        Self { broker, inputs }
    }

    pub fn execute(&self, command: BrokerCommand) {
        self.broker.execute(command);
    }

    /// The first input that `pick` takes; others are passed over.
    pub async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(Input) -> Option<T>) -> T {
        let found = async {
            loop {
                let input = self.inputs.recv().await.unwrap();
                println!("{what}: {input:?}");
                if let Some(found) = pick(input) {
                    return found;
                }
            }
        };
        timeout(LIMIT, found)
            .await
            .unwrap_or_else(|_| panic!("did not come: {what}"))
    }

    pub async fn dial(&mut self, link: LinkEpoch) -> Result<(), String> {
        self.execute(BrokerCommand::Dial { link, broker: 0 });
        self.wait("link", |input| match input {
            Input::LinkUp { link: up, .. } if up == link => Some(Ok(())),
            Input::LinkDown { link: down, reason } if down == link => Some(Err(reason)),
            _ => None,
        })
        .await
    }

    pub async fn consume(&mut self, priority: i32, tag: &str) {
        self.execute(BrokerCommand::Consume {
            link: LINK,
            group: 0,
            priority,
            tag: tag.into(),
        });
        self.wait("consuming", |input| match input {
            Input::Consuming { tag: now, .. } if now == tag => Some(()),
            _ => None,
        })
        .await;
    }

    pub async fn delivery(&mut self) -> Box<Delivery> {
        self.wait("delivery", |input| match input {
            Input::Delivery(delivery) => Some(delivery),
            _ => None,
        })
        .await
    }

    pub async fn publish(&mut self, id: u64, message: Outbound) -> PublishOutcome {
        self.publish_on(LINK, id, message).await
    }

    pub async fn publish_on(
        &mut self,
        link: LinkEpoch,
        id: u64,
        message: Outbound,
    ) -> PublishOutcome {
        let id = PublishId(id);
        self.execute(BrokerCommand::Publish { id, link, message });
        self.wait("published", |input| match input {
            Input::Published { publish, outcome } if publish == id => Some(outcome),
            _ => None,
        })
        .await
    }

    /// How the next proof of a way ends.
    pub async fn proof(&mut self, wanted: Way) -> Proof {
        self.wait("proof", |input| match input {
            Input::Proved { way, proof, .. } if way == wanted => Some(proof),
            _ => None,
        })
        .await
    }

    pub async fn link_down(&mut self) -> String {
        self.wait("link down", |input| match input {
            Input::LinkDown { reason, .. } => Some(reason),
            _ => None,
        })
        .await
    }

    /// Everything that comes until it is quiet.
    pub async fn rest(&mut self) -> Vec<Input> {
        let mut rest = Vec::new();
        while let Ok(Some(input)) = timeout(QUIET, self.inputs.recv()).await {
            rest.push(input);
        }
        rest
    }
}

/// A client, independent of the shell.
pub struct Client {
    _connection: Connection,
    pub channel: Channel,
}

impl Client {
    pub async fn connect(node: &RabbitNode) -> Self {
        let connection = guard::connect(
            node.amqp_uri().parse().unwrap(),
            ConnectionProperties::default(),
        )
        .await
        .unwrap();
        let channel = connection.create_channel().await.unwrap();
        Self {
            _connection: connection,
            channel,
        }
    }

    pub async fn send(&self, queue: &str, kind: &str, body: &str) {
        let properties = BasicProperties::default()
            .with_type(kind.into())
            .with_message_id("m-1".into());
        self.channel
            .basic_publish(
                "".into(),
                queue.into(),
                BasicPublishOptions::default(),
                body.as_bytes(),
                properties,
            )
            .await
            .unwrap()
            .await
            .unwrap();
    }

    /// An exclusive queue of the broker's naming, consumed.
    pub async fn inbox(&self) -> (String, Consumer) {
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self
            .channel
            .queue_declare("".into(), options, FieldTable::default())
            .await
            .unwrap();
        let consumer = self.consume(queue.name().as_str()).await;
        (queue.name().to_string(), consumer)
    }

    pub async fn consume(&self, queue: &str) -> Consumer {
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        self.channel
            .basic_consume(queue.into(), "".into(), options, FieldTable::default())
            .await
            .unwrap()
    }

    pub async fn waiting(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::durable()
        };
        self.channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .unwrap()
            .message_count()
    }
}

pub async fn next(consumer: &mut Consumer) -> Message {
    timeout(LIMIT, consumer.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
}

pub fn event(message_id: &str) -> Outbound {
    Outbound::Event {
        to: Destination::new("crm-1").unwrap(),
        event: Arc::new(ClientEvent::System(SystemStatus::InService)),
        cause: tandem::model::Cause {
            correlation_id: None,
            trace: None,
        },
        epoch: 3,
        message_id: message_id.into(),
    }
}

pub fn reply(route: ReplyRoute) -> Outbound {
    reply_named(route, "r-1")
}

pub fn reply_named(route: ReplyRoute, message_id: &str) -> Outbound {
    Outbound::Reply {
        route,
        reply: Arc::new(ok()),
        cause: tandem::model::Cause {
            correlation_id: Some("c-1".into()),
            trace: None,
        },
        message_id: message_id.into(),
    }
}

pub fn ok() -> Reply {
    Reply {
        command: "Hello".into(),
        id: "crm-1".into(),
        outcome: Outcome::Ok,
        status: None,
        instance: "gc-1".into(),
        downstream: None,
        error: None,
        retry_after_ms: None,
        body: None,
    }
}

/// Asks the management API until `pick` finds something in its answer; statistics lag.
pub async fn managed<T>(node: &RabbitNode, path: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
    let api = node.management().unwrap();
    let found = async {
        loop {
            if let Ok(Some(answer)) = api.get(path).await
                && let Some(found) = pick(&answer)
            {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(LIMIT, found).await.expect("the broker's own view")
}

/// (tag, priority) of all consumers of the command queue, once there are `count`.
pub async fn consumers(node: &RabbitNode, queue: &str, count: usize) -> Vec<(String, i64)> {
    managed(node, "consumers/%2F", |all| {
        let found: Vec<(String, i64)> = all
            .as_array()?
            .iter()
            .filter(|one| one["queue"]["name"] == queue)
            .map(|one| {
                let tag = one["consumer_tag"].as_str().unwrap_or_default().to_owned();
                (tag, one["arguments"]["x-priority"].as_i64().unwrap_or(0))
            })
            .collect();
        (found.len() == count).then_some(found)
    })
    .await
}

pub async fn node(name: &str) -> RabbitNode {
    RabbitNode::start(RabbitOptions::named(name)).await.unwrap()
}
