//! Consumers of a link: command queues, expired commands, the own control queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::classify::{Class, Problem};
use super::connect::rpc;
use super::control;
use super::declare::{Declarer, queue_spec};
use super::decode::translated;
use super::encode::short;
use super::link::{Link, Op};
use super::second::Marker;
use super::ways::close;
use crate::clock::wall_ms;
use crate::engine::Input;
use crate::engine::ids::DeliveryId;
use crate::engine::input::{Delivery, Source};
use crate::engine::way::Way;
use crate::network::queue_tag;
use crate::wire::command::parse;

/// A consuming task that has ended.
enum Ended {
    /// A consumer of a group's queue, with the tag the engine knows it by.
    Commands {
        group: usize,
        tag: String,
        problem: Option<Problem>,
    },
    /// The consumer of expired commands.
    Expired(Option<Problem>),
    /// The own control queue.
    Control(control::End),
    /// Something that was asked for beside the consumers is done.
    Nothing,
}

struct Consumers {
    link: Arc<Link>,
    /// The tag that consumes for a group.
    active: HashMap<usize, String>,
    expired: bool,
    attached: bool,
    tasks: JoinSet<Ended>,
}

/// Does what changes consumption until the link ends; says why it ended.
pub(super) async fn run(link: Arc<Link>, mut ops: mpsc::Receiver<Op>) -> String {
    let mut consumers = Consumers {
        link: Arc::clone(&link),
        active: HashMap::new(),
        expired: false,
        attached: false,
        tasks: JoinSet::new(),
    };
    let work = async {
        loop {
            let failed = tokio::select! {
                Some(ended) = consumers.tasks.join_next() => match ended {
                    Ok(ended) => consumers.ended(ended).await,
                    Err(error) => Some(Problem::new(Class::Local, error.to_string())),
                },
                op = ops.recv() => match op {
                    Some(op) => consumers.apply(op).await,
                    None => std::future::pending().await,
                },
            };
            if let Some(problem) = failed {
                return problem.to_string();
            }
        }
    };
    tokio::select! {
        reason = work => reason,
        () = link.cancel.cancelled() => "closed".to_owned(),
    }
}

impl Consumers {
    /// A problem here ends the link.
    async fn apply(&mut self, op: Op) -> Option<Problem> {
        match op {
            Op::AttachControl => {
                if !self.attached {
                    self.attached = true;
                    self.link.serving.store(true, Ordering::Relaxed);
                    let link = Arc::clone(&self.link);
                    self.tasks
                        .spawn(async move { Ended::Control(control::run(link).await) });
                } else if self.link.attached.load(Ordering::Relaxed) {
                    // A link that was being left and is taken again: it is consumed there still.
                    control::tell_attached(&self.link).await;
                }
                None
            }
            Op::Consume {
                group,
                priority,
                tag,
            } => self.consume(group, priority, tag).await,
            Op::Stop { group } => match self.active.remove(&group) {
                Some(tag) => self.cancel(group, &tag).await.err(),
                None => None,
            },
            Op::DeclareDeadLetters => {
                let link = Arc::clone(&self.link);
                self.tasks.spawn(async move {
                    let queue = link.context.object("dead-letter");
                    let declared = declare(&link, &queue).await;
                    link.proved(Way::DeadLetters, declared).await;
                    Ended::Nothing
                });
                None
            }
            Op::ConsumeExpired if self.expired => {
                self.link.proved(Way::Expired, Ok(())).await;
                None
            }
            Op::ConsumeExpired => {
                self.expired = true;
                let link = Arc::clone(&self.link);
                // Beside the command consumers: its queue may be where it hangs.
                self.tasks
                    .spawn(async move { Ended::Expired(consume_expired(&link).await) });
                None
            }
        }
    }

    /// Registers the new consumers first: there is no moment without one.
    async fn consume(&mut self, group: usize, priority: i32, tag: String) -> Option<Problem> {
        if self.active.get(&group) == Some(&tag) {
            // The same tag twice would close the whole connection.
            return None;
        }
        self.link.registering.store(true, Ordering::Relaxed);
        let registered = self.register_all(group, priority, &tag).await;
        if let Err(problem) = &registered
            && problem.class == Class::Outstanding
        {
            return registered.err();
        }
        let former = self.told(group, tag, registered).await;
        self.link.registering.store(false, Ordering::Relaxed);
        self.cancel(group, &former?).await.err()
    }

    /// Tells how a registration ended; gives back the tag of the former consumer.
    async fn told(
        &mut self,
        group: usize,
        tag: String,
        registered: Result<Vec<Consumer>, Problem>,
    ) -> Option<String> {
        match registered {
            Ok(consumers) => {
                let link = self.link.epoch;
                let input = Input::Consuming {
                    link,
                    group,
                    tag: tag.clone(),
                };
                self.link.context.tell(input).await;
                for (index, consumer) in consumers.into_iter().enumerate() {
                    self.spawn_commands((group, index), &tag, consumer);
                }
                self.active.insert(group, tag)
            }
            Err(problem) => {
                self.lost(group, tag, problem).await;
                None
            }
        }
    }

    /// Registers a consumer on every queue of the group, or on none.
    async fn register_all(
        &mut self,
        group: usize,
        priority: i32,
        tag: &str,
    ) -> Result<Vec<Consumer>, Problem> {
        let queues = self.queues(group);
        if queues.is_empty() {
            return Err(Problem::new(Class::Local, "no such group"));
        }
        let mut declarer = Declarer::new(&self.link.context, &self.link.consume);
        for queue in &queues {
            // A consumer on a queue that is missing would close the channel of all consumers.
            let spec = queue_spec(&self.link.context, queue);
            declarer.queue(&spec).await?;
        }
        declarer.finish().await;
        let mut arguments = FieldTable::default();
        arguments.insert("x-priority".into(), AMQPValue::LongInt(priority));
        let mut consumers = Vec::new();
        for (index, queue) in queues.iter().enumerate() {
            let channel = &self.link.commands;
            let full = queue_tag(tag, index);
            let how = (BasicConsumeOptions::default(), arguments.clone());
            match register(channel, queue, &full, how).await {
                Ok(consumer) => consumers.push(consumer),
                // The link ends, and what these were given goes back.
                Err(problem) if problem.class == Class::Outstanding => return Err(problem),
                Err(problem) => {
                    // What these were given already is handed on, not kept back.
                    for (index, consumer) in consumers.into_iter().enumerate() {
                        let full = consumer.tag().to_string();
                        self.spawn_commands((group, index), tag, consumer);
                        // Where the refusal has closed the channel, they are gone with it.
                        let _ = self.cancel_one(&full).await;
                    }
                    return Err(problem);
                }
            }
        }
        Ok(consumers)
    }

    fn queues(&self, group: usize) -> Vec<String> {
        let groups = &self.link.context.config.groups;
        groups
            .get(group)
            .map(|group| group.queues.clone())
            .unwrap_or_default()
    }

    /// Of a group's queue with this index.
    fn spawn_commands(&mut self, (group, index): (usize, usize), tag: &str, consumer: Consumer) {
        let (link, tag) = (Arc::clone(&self.link), tag.to_owned());
        let source = Source::Commands { group };
        // The usual queue needs no name.
        let mut queues = self.queues(group);
        let queue =
            ((group, index) != (0, 0) && index < queues.len()).then(|| queues.swap_remove(index));
        self.tasks.spawn(async move {
            let marker = Marker::default();
            let problem = deliver(&link, consumer, (source, queue.as_deref()), marker).await;
            Ended::Commands {
                group,
                tag,
                problem,
            }
        });
    }

    /// Cancels a tag's consumers. Their tasks go on until they have handed on what they were given.
    async fn cancel(&self, group: usize, tag: &str) -> Result<(), Problem> {
        for index in 0..self.queues(group).len() {
            self.cancel_one(&queue_tag(tag, index)).await?;
        }
        Ok(())
    }

    async fn cancel_one(&self, full_tag: &str) -> Result<(), Problem> {
        let cancel = self
            .link
            .commands
            .basic_cancel(short(full_tag), BasicCancelOptions::default());
        rpc("cancel a consumer", cancel).await
    }

    /// A problem here ends the link.
    async fn ended(&mut self, ended: Ended) -> Option<Problem> {
        match ended {
            Ended::Commands {
                group,
                tag,
                problem,
            } => {
                if problem.is_some() {
                    return problem;
                }
                if self.active.get(&group) == Some(&tag) && self.usable() {
                    self.active.remove(&group);
                    if let Err(problem) = self.cancel(group, &tag).await {
                        return Some(problem);
                    }
                    let said = "the broker cancelled the consumer: its queue was deleted";
                    self.lost(group, tag, Problem::new(Class::NotFound, said))
                        .await;
                }
                None
            }
            Ended::Expired(problem) => {
                self.expired = false;
                let said = || Problem::new(Class::NotFound, "the queue was deleted");
                let problem = problem.unwrap_or_else(said);
                self.link.proved(Way::Expired, Err(problem)).await;
                None
            }
            Ended::Control(control::End::Lost(problem)) => Some(problem),
            Ended::Control(control::End::Refused(problem)) => {
                self.attached = false;
                self.link.barred(Way::ControlQueue, &problem).await;
                None
            }
            Ended::Nothing => None,
        }
    }

    /// Where the channel is closed, the link's own watch tells.
    fn usable(&self) -> bool {
        self.link.commands.status().connected()
    }

    async fn lost(&self, group: usize, tag: String, problem: Problem) {
        let input = Input::ConsumerLost {
            link: self.link.epoch,
            group,
            tag,
            reason: problem.text,
        };
        self.link.context.tell(input).await;
    }
}

/// Registers a consumer. Where the answer does not come in time the request is not taken back: the
/// broker may register it yet, and what that one would be given nobody would settle. So the
/// problem is then [`Class::Outstanding`]: the channel has to end, or the link.
pub(super) async fn register(
    channel: &Channel,
    queue: &str,
    tag: &str,
    (options, arguments): (BasicConsumeOptions, FieldTable),
) -> Result<Consumer, Problem> {
    let consume = channel.basic_consume(short(queue), short(tag), options, arguments);
    let registered = rpc(&format!("consume {queue}"), consume).await;
    registered.map_err(|problem| match problem.class {
        Class::Timeout => Problem::new(Class::Outstanding, problem.text),
        _ => problem,
    })
}

async fn declare(link: &Link, queue: &str) -> Result<(), Problem> {
    let mut declarer = Declarer::new(&link.context, &link.consume);
    let declared = declarer.queue(&queue_spec(&link.context, queue)).await;
    declarer.finish().await;
    declared
}

/// Consumes expired commands until the consumer ends or fails; `None`: the broker cancelled it.
async fn consume_expired(link: &Link) -> Option<Problem> {
    let config = &link.context.config;
    let queue = link.context.object("expired");
    let registered = async {
        declare(link, &queue).await?;
        let channel = link.consume.channel().await?;
        let qos = channel.basic_qos(config.prefetch, BasicQosOptions::default());
        rpc("set the prefetch", qos).await?;
        let marker = link.expired.replace(channel.clone());
        let tag = format!("{}.expired", config.instance);
        let how = (BasicConsumeOptions::default(), FieldTable::default());
        match register(&channel, &queue, &tag, how).await {
            Ok(consumer) => Ok((consumer, marker)),
            Err(problem) => {
                if problem.class == Class::Outstanding {
                    // The channel has no other consumer: the broker ends one that it registers yet
                    // together with it, and what that was given goes back.
                    close(channel).await;
                }
                Err(problem)
            }
        }
    };
    match registered.await {
        Ok((consumer, marker)) => {
            link.proved(Way::Expired, Ok(())).await;
            deliver(link, consumer, (Source::Expired, None), marker).await
        }
        Err(problem) => Some(problem),
    }
}

/// Hands on what a consumer is given, until it is cancelled or fails. `queue`: which command queue
/// it is, where that is to be told.
async fn deliver(
    link: &Link,
    mut consumer: Consumer,
    (source, queue): (Source, Option<&str>),
    marker: Marker,
) -> Option<Problem> {
    let context = &link.context;
    while let Some(next) = consumer.next().await {
        let delivery = match next {
            Ok(delivery) => delivery,
            Err(error) => {
                let problem = Problem::from(error);
                link.noticed(&problem);
                return Some(problem);
            }
        };
        let id = DeliveryId {
            link: link.epoch,
            tag: marker.mark(delivery.delivery_tag),
        };
        let mut raw = translated(delivery).await;
        if let Source::Commands { .. } = source {
            raw.queue = queue.map(str::to_owned);
        }
        let command = parse(&raw, &context.config.parse, wall_ms());
        let input = Input::Delivery(Box::new(Delivery {
            id,
            source,
            raw,
            command,
        }));
        if !context.tell(input).await {
            break;
        }
    }
    None
}
