//! The own control queue: one exclusive consumer, so that a second process with the same instance
//! id is noticed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::time::Instant;

use super::classify::{Class, Problem};
use super::connect::rpc;
use super::consume::register;
use super::declare::Declarer;
use super::decode::raw_message;
use super::encode::short;
use super::guard::mark_of;
use super::link::Link;
use super::looped::{self, Loop};
use super::{lock, probe, ways};
use crate::engine::Input;
use crate::engine::ids::BootId;
use crate::engine::peer::PeerMessage;

/// Peer messages taken from the broker and not acknowledged: bounds what waits in memory.
const PREFETCH: u16 = 1024;
/// Acknowledged at the latest after so many, or after the pause.
const ACK_EVERY: u32 = 128;
const ACK_PAUSE: Duration = Duration::from_millis(100);
/// How long a queue on another node may take to say whether it is consumed.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// Between two looks at the bindings.
const BIND_AGAIN: Duration = Duration::from_secs(3);
/// Pause before a queue that was deleted is declared again.
const AGAIN: Duration = Duration::from_millis(500);

/// How the attachment ended.
pub(super) enum End {
    /// With the link.
    Lost(Problem),
    /// The broker does not give the queue; the link stands.
    Refused(Problem),
}

/// The control queue is consumed here, on this node.
pub(super) async fn tell_attached(link: &Link) {
    let node = link.endpoint().node_label(link.node);
    node.clone_into(&mut lock(&link.context.control_node));
    let attached = Input::ControlAttached { link: link.epoch };
    link.context.tell(attached).await;
}

/// Attaches and hands on peer messages; a queue that was deleted is declared again.
pub(super) async fn run(link: Arc<Link>) -> End {
    loop {
        let (channel, consumer) = match attach(&link).await {
            Ok(attached) => attached,
            Err(problem) if refused(&problem) => return End::Refused(problem),
            Err(problem) => return End::Lost(problem),
        };
        link.attached.store(true, Ordering::Relaxed);
        tell_attached(&link).await;
        let seen = Loop::default();
        let ended = tokio::select! {
            ended = receive(&link, &channel, consumer, &seen) => ended,
            wedged = looped::watch(&link, &seen) => Some(wedged),
            () = keep_bound(&link) => None,
        };
        link.attached.store(false, Ordering::Relaxed);
        if let Some(problem) = ended {
            return End::Lost(problem);
        }
        tracing::warn!(
            link = link.epoch.0,
            "the control queue was deleted and is declared again"
        );
        // With the consumer of the queue that was, where the broker did not say that it is gone.
        ways::close(channel).await;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Tries for two heartbeats: so long the broker may need to notice that a former process is gone.
async fn attach(link: &Link) -> Result<(Channel, Consumer), Problem> {
    let config = &link.context.config;
    let heartbeat = config.heartbeat.max(Duration::from_secs(1));
    // A broker looks at heartbeats at intervals, hence a little more.
    let deadline = Instant::now() + 2 * heartbeat + heartbeat / 2;
    loop {
        match try_attach(link).await {
            Err(problem) if problem.class == Class::AccessRefused && in_use(&problem) => {
                if Instant::now() >= deadline {
                    link.context.tell(Input::IdInUse { link: link.epoch }).await;
                    let text = format!(
                        "another process uses the instance id {}: its control queue is in exclusive use",
                        config.instance
                    );
                    return Err(Problem::new(Class::AccessRefused, text));
                }
                tokio::time::sleep(heartbeat / 4).await;
            }
            result => return result,
        }
    }
}

/// By the broker, in words or by silence; another process that has the queue is something else.
fn refused(problem: &Problem) -> bool {
    match problem.class {
        Class::AccessRefused => !in_use(problem),
        Class::NotFound | Class::Precondition | Class::Timeout => true,
        Class::Unreachable
        | Class::Outstanding
        | Class::Protocol
        | Class::Garbled
        | Class::NoRoom(_)
        | Class::Local => false,
    }
}

/// As opposed to a missing permission, which no waiting mends.
fn in_use(problem: &Problem) -> bool {
    problem.text.contains("exclusive")
}

/// A second process of the same id may have attached to another node of the broker. A node that does
/// not answer in time is passed over: heartbeats tell of a second process too.
async fn elsewhere(link: &Link) -> Result<(), Problem> {
    let here = link.control_queue().name;
    let nodes = link.endpoint().nodes().iter();
    let others = nodes.map(|node| link.control_queue_on(&node.label).name);
    let others: Vec<String> = match link.endpoint().nodes().len() {
        1 => Vec::new(),
        _ => others.filter(|name| *name != here).collect(),
    };
    let counts = others.iter().map(async |name| {
        let mut channel = None;
        let counted = probe::consumers_of(link, &mut channel, name);
        tokio::time::timeout(LOOK_LIMIT, counted).await
    });
    let counts = futures::future::join_all(counts).await;
    let used = counts
        .into_iter()
        .flatten()
        .flatten()
        .any(|count| count > 0);
    match used {
        false => Ok(()),
        true => Err(Problem::new(
            Class::AccessRefused,
            "a control queue on another node of the broker is in exclusive use",
        )),
    }
}

async fn try_attach(link: &Link) -> Result<(Channel, Consumer), Problem> {
    let context = &link.context;
    let instance = &context.config.instance;
    let spec = link.control_queue();
    let queue = short(&spec.name);
    elsewhere(link).await?;
    let mut declarer = Declarer::new(&link.context, &link.consume);
    let declared = declarer.queue(&spec).await;
    declarer.finish().await;
    declared?;
    let channel = link.consume.channel().await?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::durable()
    };
    let found = channel.queue_declare(queue.clone(), passive, FieldTable::default());
    let found = rpc("look at the control queue", found).await?;
    // Before the purge, which would take the other process's messages.
    if found.consumer_count() > 0 {
        return Err(Problem::new(
            Class::AccessRefused,
            "the control queue is in exclusive use",
        ));
    }
    bind(link, &channel).await?;
    let purge = channel.queue_purge(queue.clone(), QueuePurgeOptions::default());
    rpc("purge the control queue", purge).await?;
    let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
    rpc("set the prefetch", qos).await?;
    let options = BasicConsumeOptions {
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    let tag = format!("{instance}.control");
    let consumer = register(&channel, &spec.name, &tag, (options, FieldTable::default())).await?;
    Ok((channel, consumer))
}

/// Binds the own control queue to the exchange of peer messages; what is bound already stays so.
async fn bind(link: &Link, channel: &Channel) -> Result<(), Problem> {
    let context = &link.context;
    let queue = short(&link.control_queue().name);
    let exchange = short(&context.object("control"));
    for key in [context.config.instance.as_str(), "all"] {
        let bind = channel.queue_bind(
            queue.clone(),
            exchange.clone(),
            short(key),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        rpc("bind the control queue", bind).await?;
    }
    Ok(())
}

/// Nobody is told when a binding or the exchange is deleted, and the queue stays: peers would not be
/// heard any more. So both are seen to, again and again. Returns where the queue itself is gone, of
/// which the consumer is told as a rule, and not always.
async fn keep_bound(link: &Link) {
    loop {
        tokio::time::sleep(BIND_AGAIN).await;
        let again = async {
            match bind_on_its_own(link).await {
                Err(problem) if problem.class == Class::NotFound => {
                    super::declare::exchanges(&link.context, &link.publish).await;
                    bind_on_its_own(link).await
                }
                result => result,
            }
        };
        match again.await {
            Err(problem) if is_no_queue(&problem) => return,
            // What is lost with the link, or refused, shows elsewhere.
            Err(problem) => {
                tracing::debug!(link = link.epoch.0, %problem, "the control queue is not bound again");
            }
            Ok(()) => {}
        }
    }
}

/// As opposed to one that is on a node that is down, and to a missing exchange.
fn is_no_queue(problem: &Problem) -> bool {
    problem.class == Class::NotFound && problem.text.contains("no queue '")
}

/// A refusal closes its channel.
async fn bind_on_its_own(link: &Link) -> Result<(), Problem> {
    let channel = link.consume.channel().await?;
    bind(link, &channel).await?;
    ways::close(channel).await;
    Ok(())
}

/// Hands on messages until the consumer ends; `None` where the queue was deleted.
async fn receive(
    link: &Link,
    channel: &Channel,
    mut consumer: Consumer,
    seen: &Loop,
) -> Option<Problem> {
    let mut pause = tokio::time::interval(ACK_PAUSE);
    let (mut waiting, mut last) = (0_u32, 0);
    loop {
        let due = tokio::select! {
            next = consumer.next() => match next {
                Some(Ok(delivery)) => {
                    waiting += 1;
                    last = delivery.delivery_tag;
                    let probe = seen.delivered(&delivery.properties);
                    if marked(&delivery) {
                        let raw = Box::new(raw_message(delivery));
                        link.context.tell(Input::Unreadable(raw)).await;
                    } else if !probe {
                        hand_on(link, &delivery.data).await;
                    }
                    waiting >= ACK_EVERY
                }
                Some(Err(error)) => {
                    let problem = Problem::from(error);
                    link.noticed(&problem);
                    return Some(problem);
                }
                None if channel.status().connected() => return None,
                None => return Some(Problem::new(Class::Protocol, "the control channel was closed")),
            },
            _ = pause.tick() => waiting > 0,
        };
        if due {
            // This channel has one consumer that settles in order: all up to here are done.
            let _ = channel
                .basic_ack(last, BasicAckOptions { multiple: true })
                .now_or_never();
            waiting = 0;
        }
    }
}

/// Whether the properties of a message could not be read.
fn marked(delivery: &Delivery) -> bool {
    let headers = delivery.properties.headers().as_ref();
    headers.is_some_and(|headers| mark_of(headers).is_some())
}

async fn hand_on(link: &Link, sealed: &[u8]) {
    let context = &link.context;
    let opened = lock(&context.opener).open(sealed);
    let input = match opened {
        Ok((from, boot, message)) => {
            if let PeerMessage::Heartbeat(heartbeat) = &message {
                context.told_node(&from, &heartbeat.control_node);
            }
            let keys = &context.config.control;
            if from == *keys.instance() && boot == BootId(keys.boot()) {
                // Own messages come back with the key `all`.
                return;
            }
            Input::Peer {
                from,
                boot,
                message,
            }
        }
        // Federation brings what it had kept for us once more when a broker is changed.
        Err(rejected)
            if rejected.reason == "replayed"
                && rejected.claimed.as_ref() == Some(context.config.control.instance()) =>
        {
            return;
        }
        Err(rejected) => Input::PeerRejected {
            claimed: rejected.claimed,
            reason: rejected.reason,
        },
    };
    context.tell(input).await;
}
