//! The bare loop: what is left when every feature is taken away.
//!
//! Consume with prefetch, PUT to the downstream over kept-alive connections, publish the reply,
//! wait for its confirm, acknowledge. One task a command, so requests and confirms overlap. No
//! deadlines, no duplicate detection, no order for one agent, no session, no notification
//! service, no events, no metrics, no failover.
//!
//! With notification streams it is the *equal-work loop* (see [`crate::equal`]).

use std::sync::Arc;

use futures::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};

use crate::equal::Streams;
use crate::errors::Result;
use crate::load::connect;

const PREFETCH: u16 = 1000;

struct Bare {
    http: reqwest::Client,
    base: String,
    commands: Channel,
    replies: Channel,
}

/// Serves `queue` until the process is killed; `streams`: also holds the agents' notification
/// streams and publishes their events.
pub async fn run(broker: &str, queue: &str, base: &str, streams: Option<Streams>) -> Result<()> {
    let consume = connect(broker, "bench/bare/consume").await?;
    let publish = connect(broker, "bench/bare/publish").await?;
    let commands = consume.create_channel().await?;
    let replies = publish.create_channel().await?;
    replies
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    if let Some(streams) = streams {
        streams.open(&publish).await?;
    }
    commands
        .queue_declare(
            queue.into(),
            QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            },
            FieldTable::default(),
        )
        .await?;
    commands
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let mut deliveries = commands
        .basic_consume(
            queue.into(),
            "bare".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let bare = Arc::new(Bare {
        http: reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(1000)
            .build()?,
        base: base.to_owned(),
        commands,
        replies,
    });
    while let Some(delivery) = deliveries.next().await {
        let (bare, delivery) = (Arc::clone(&bare), delivery?);
        tokio::spawn(async move {
            if let Err(error) = bare.serve(delivery).await {
                eprintln!("bare loop: {error}");
            }
        });
    }
    Err("the consumer was cancelled".into())
}

impl Bare {
    async fn serve(&self, delivery: Delivery) -> Result<()> {
        let properties = &delivery.properties;
        let kind = properties.kind().as_ref().ok_or("no type")?.as_str();
        let (command, agent) = kind.split_once('#').ok_or("no address")?;
        let body = match command {
            "MakeReady" => "<User><state>READY</state></User>",
            "MakeNotReady" => "<User><state>NOT_READY</state></User>",
            other => return Err(format!("unknown command {other}").into()),
        };
        let response = self
            .http
            .put(format!("{}/User/{agent}", self.base))
            .basic_auth(agent, Some(format!("pw-{agent}")))
            .header(reqwest::header::CONTENT_TYPE, "application/xml")
            .body(body)
            .send()
            .await?;
        let status = response.status().as_u16();
        response.bytes().await?;
        let outcome = if status == 202 { "ACCEPTED" } else { "FAILED" };
        let reply = format!(
            r#"{{"type":"Reply","command":"{command}","id":"{agent}","outcome":"{outcome}","status":{status}}}"#
        );
        let to = properties.reply_to().clone().ok_or("no reply address")?;
        let mut answer = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2);
        if let Some(id) = properties.correlation_id() {
            answer = answer.with_correlation_id(id.clone());
        }
        let confirm = self
            .replies
            .basic_publish(
                "".into(),
                to,
                BasicPublishOptions::default(),
                reply.as_bytes(),
                answer,
            )
            .await?
            .await?;
        if !confirm.is_ack() {
            return Err("the reply was not confirmed".into());
        }
        self.commands
            .basic_ack(delivery.delivery_tag, BasicAckOptions::default())
            .await?;
        Ok(())
    }
}
