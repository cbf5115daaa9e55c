//! One link: two connections, their channels, the tasks on them, and exactly one end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use lapin::options::BasicQosOptions;
use lapin::{Channel, Event};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::classify::{Class, Problem};
use super::connect::{Conn, Endpoint, rpc, within};
use super::{CLOSE_LIMIT, Context, consume, declare, probe, publish, rescue, settle, ways};
use crate::engine::Input;
use crate::engine::command::Outbound;
use crate::engine::fitness::Way;
use crate::engine::ids::{LinkEpoch, PublishId};
use crate::engine::input::PublishOutcome;
use crate::model::InstanceId;

/// Operations waiting on a link. More means that the link does not work: it is ended.
const MAX_OPS: usize = 256;
/// Acknowledgements waiting; the engine holds at most prefetch deliveries a queue. More: ended.
const MAX_SETTLES: usize = 65_536;
/// Publications waiting beside those in flight. More: answered as failed.
const MAX_PUBLICATIONS: usize = 16_384;
/// Questions for a peer's consumers waiting. More: not answered.
const MAX_COUNTS: usize = 16;
/// Proofs waiting: one a way at most.
const MAX_PROOFS: usize = 16;
/// How often the state of connections and channels is looked at, beside the library's own news.
const WATCH: Duration = Duration::from_millis(50);
/// How long the tasks of a link may take to end.
const JOIN_LIMIT: Duration = Duration::from_secs(5);

/// What changes consumption on a link.
#[derive(Debug)]
pub(super) enum Op {
    AttachControl,
    Consume {
        group: usize,
        priority: i32,
        tag: String,
    },
    Stop {
        group: usize,
    },
    ConsumeExpired,
    DeclareDeadLetters,
}

/// An answer to a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settle {
    pub(super) tag: u64,
    pub(super) requeue: bool,
}

impl Settle {
    pub(super) fn ack(tag: u64) -> Self {
        Self {
            tag,
            requeue: false,
        }
    }

    pub(super) fn requeue(tag: u64) -> Self {
        Self { tag, requeue: true }
    }
}

/// A message to publish.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) id: PublishId,
    pub(super) message: Outbound,
}

/// How a link is ended.
#[derive(Clone, Default)]
pub(super) struct Control {
    cancel: CancellationToken,
    /// Asked for by the engine: its end is not reported.
    wanted: Arc<AtomicBool>,
}

/// The engine's end of a link.
pub(super) struct LinkHandle {
    ops: mpsc::Sender<Op>,
    settles: mpsc::Sender<Settle>,
    publications: mpsc::Sender<Publication>,
    counts: mpsc::Sender<InstanceId>,
    proofs: mpsc::Sender<Way>,
    control: Control,
}

/// The link's end.
pub(super) struct LinkQueues {
    ops: mpsc::Receiver<Op>,
    settles: mpsc::Receiver<Settle>,
    publications: mpsc::Receiver<Publication>,
    counts: mpsc::Receiver<InstanceId>,
    proofs: mpsc::Receiver<Way>,
}

/// Both ends of a new link.
pub(super) fn channels() -> (LinkHandle, LinkQueues) {
    let (ops, ops_out) = mpsc::channel(MAX_OPS);
    let (settles, settles_out) = mpsc::channel(MAX_SETTLES);
    let (publications, publications_out) = mpsc::channel(MAX_PUBLICATIONS);
    let (counts, counts_out) = mpsc::channel(MAX_COUNTS);
    let (proofs, proofs_out) = mpsc::channel(MAX_PROOFS);
    let handle = LinkHandle {
        ops,
        settles,
        publications,
        counts,
        proofs,
        control: Control::default(),
    };
    let queues = LinkQueues {
        ops: ops_out,
        settles: settles_out,
        publications: publications_out,
        counts: counts_out,
        proofs: proofs_out,
    };
    (handle, queues)
}

impl LinkHandle {
    pub(super) fn control(&self) -> Control {
        self.control.clone()
    }

    pub(super) fn close(&self) {
        self.control.wanted.store(true, Ordering::Relaxed);
        self.control.cancel.cancel();
    }

    pub(super) fn operate(&self, op: Op) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.ops.try_send(op) {
            self.control.cancel.cancel();
        }
    }

    pub(super) fn settle(&self, settle: Settle) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.settles.try_send(settle) {
            self.control.cancel.cancel();
        }
    }

    /// False where the link does not take it.
    pub(super) fn publish(&self, publication: Publication) -> bool {
        self.publications.try_send(publication).is_ok()
    }

    pub(super) fn count(&self, peer: InstanceId) {
        let _ = self.counts.try_send(peer);
    }

    pub(super) fn prove(&self, way: Way) {
        let _ = self.proofs.try_send(way);
    }
}

/// What could not be had when a link was opened, and is no reason not to use it.
type Lacks = Vec<(Way, Problem)>;

/// An open link, shared by its tasks.
pub(super) struct Link {
    pub(super) context: Arc<Context>,
    pub(super) epoch: LinkEpoch,
    pub(super) broker: usize,
    pub(super) consume: Conn,
    pub(super) publish: Conn,
    /// Consumers of the command queues.
    pub(super) commands: Channel,
    /// The consumer of expired commands, whose refusal must not end the one of the commands.
    pub(super) expired: settle::Second,
    /// The broker takes no publications at the moment.
    pub(super) blocked: AtomicBool,
    /// A consumer is being registered, and its end is told before that of the channel it costs.
    pub(super) registering: AtomicBool,
    /// Its control queue is consumed.
    pub(super) attached: AtomicBool,
    /// It serves, or did: a spare one only looks after its broker.
    pub(super) serving: AtomicBool,
    /// The link is ending.
    pub(super) cancel: CancellationToken,
    /// Nothing is waited for any more.
    pub(super) given_up: CancellationToken,
    /// What could not be read of what the broker sent.
    garbled: OnceLock<String>,
}

impl Link {
    /// Its broker as it was dialled, or would be now.
    pub(super) fn endpoint(&self) -> Endpoint {
        self.context.endpoints()[self.broker].clone()
    }

    async fn open(
        context: Arc<Context>,
        epoch: LinkEpoch,
        broker: usize,
        cancel: CancellationToken,
    ) -> Result<(Self, Lacks), Problem> {
        let config = &context.config;
        let endpoints = context.endpoints();
        let endpoint = endpoints
            .get(broker)
            .ok_or_else(|| Problem::new(Class::Local, "no such broker in the list"))?;
        let (consume, publish) = tokio::try_join!(
            Conn::open(config, endpoint, "consume"),
            Conn::open(config, endpoint, "publish"),
        )?;
        declare::command_queues(&context, &consume).await?;
        let lacks = declare::exchanges(&context, &consume).await;
        let commands = consume.channel().await?;
        let qos = commands.basic_qos(config.prefetch, BasicQosOptions::default());
        rpc("set the prefetch", qos).await?;
        let link = Self {
            context,
            epoch,
            broker,
            consume,
            publish,
            commands,
            expired: settle::Second::default(),
            blocked: AtomicBool::new(false),
            registering: AtomicBool::new(false),
            attached: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            cancel,
            given_up: CancellationToken::new(),
            garbled: OnceLock::new(),
        };
        Ok((link, lacks))
    }

    /// Remembers a problem of the connection that is more than a connection that is gone.
    pub(super) fn noticed(&self, problem: &Problem) {
        if problem.class == Class::Garbled {
            // The first word stands: what follows is caused by it.
            let _ = self.garbled.set(problem.text.clone());
        }
    }

    /// The library's news that came before the end and were not looked at yet.
    fn last_news(&self, mut events: impl Stream<Item = Event> + Unpin) {
        while let Some(Some(event)) = events.next().now_or_never() {
            if let Event::Error(error) = event {
                self.noticed(&error.into());
            }
        }
    }

    /// Waits until something essential is gone, and says what.
    async fn watch(self: Arc<Self>) -> String {
        let mut publish_events = std::pin::pin!(self.publish.inner.events_listener());
        let mut consume_events = std::pin::pin!(self.consume.inner.events_listener());
        let mut tick = tokio::time::interval(WATCH);
        let mut said: Option<Problem> = None;
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => {
                    self.last_news(publish_events);
                    self.last_news(consume_events);
                    return "closed".to_owned();
                }
                event = publish_events.next() => self.note(event, &mut said).await,
                event = consume_events.next() => self.note(event, &mut said).await,
                _ = tick.tick() => {}
            }
            if let Some(lost) = self.lost() {
                return match said {
                    Some(problem) => format!("{lost}: {problem}"),
                    None => lost.to_owned(),
                };
            }
        }
    }

    async fn note(&self, event: Option<Event>, said: &mut Option<Problem>) {
        let blocked = match event {
            // Errors of short-lived channels come here too; what counts is what is still open.
            Some(Event::Error(error)) => {
                let problem = Problem::from(error);
                self.noticed(&problem);
                *said = Some(problem);
                return;
            }
            Some(Event::ConnectionBlocked(_)) => true,
            Some(Event::ConnectionUnblocked) => false,
            Some(_) => return,
            // The library dropped the connection; the next look sees it. Not a busy loop.
            None => return tokio::time::sleep(WATCH).await,
        };
        if self.blocked.swap(blocked, Ordering::Relaxed) != blocked {
            let link = self.epoch;
            self.context
                .tell(Input::LinkBlocked { link, blocked })
                .await;
        }
    }

    /// What essential part of it is gone.
    pub(super) fn lost(&self) -> Option<&'static str> {
        if !self.consume.alive() {
            Some("the connection that consumes is lost")
        } else if !self.publish.alive() {
            Some("the connection that publishes is lost")
        } else if !self.commands.status().connected() && !self.registering.load(Ordering::Relaxed) {
            Some("the command channel was closed")
        } else {
            None
        }
    }
}

/// Runs a link from dialling to its one end.
pub(super) async fn run(
    context: Arc<Context>,
    epoch: LinkEpoch,
    broker: usize,
    queues: LinkQueues,
    control: Control,
) {
    let cancel = control.cancel.child_token();
    let limit = context.config.timeout;
    let opened = tokio::select! {
        opened = within(limit, Link::open(Arc::clone(&context), epoch, broker, cancel.clone())) => opened,
        () = cancel.cancelled() => Err(Problem::new(Class::Local, "closed while it was opened")),
    };
    let (reason, garbled) = match opened {
        Ok((link, lacks)) => {
            let link = Arc::new(link);
            let reason = serve(Arc::clone(&link), lacks, queues, &control).await;
            (reason, link.garbled.get().cloned())
        }
        Err(problem) => {
            fail_all(&context, queues.publications).await;
            if let Class::NoRoom(of) = problem.class {
                crate::telemetry::local_shortage(of);
            }
            let garbled = (problem.class == Class::Garbled).then(|| problem.text.clone());
            (problem.to_string(), garbled)
        }
    };
    let endpoints = context.endpoints();
    let label = endpoints.get(broker).map_or("?", |e| &e.label);
    if control.wanted.load(Ordering::Relaxed) {
        tracing::debug!(broker = label, link = epoch.0, "link closed");
        return;
    }
    // The engine tells it, once.
    tracing::debug!(broker = label, link = epoch.0, %reason, "link down");
    let link = epoch;
    if let Some(problem) = garbled {
        context.tell(Input::LinkGarbled { link, problem }).await;
    }
    context.tell(Input::LinkDown { link, reason }).await;
}

/// Serves an open link until it ends; says why it ended.
async fn serve(link: Arc<Link>, lacks: Lacks, queues: LinkQueues, control: &Control) -> String {
    let epoch = link.epoch;
    tracing::debug!(broker = %link.endpoint().label, link = epoch.0, "link up");
    link.context.tell(Input::LinkUp { link: epoch }).await;
    for (way, problem) in lacks {
        link.barred(way, &problem).await;
    }
    let mut tasks: JoinSet<String> = JoinSet::new();
    tasks.spawn(Arc::clone(&link).watch());
    tasks.spawn(consume::run(Arc::clone(&link), queues.ops));
    tasks.spawn(settle::run(Arc::clone(&link), queues.settles));
    tasks.spawn(publish::run(Arc::clone(&link), queues.publications));
    tasks.spawn(probe::run(Arc::clone(&link), queues.counts));
    tasks.spawn(rescue::run(Arc::clone(&link)));
    tasks.spawn(ways::run(Arc::clone(&link), queues.proofs));
    tasks.spawn(declare::others(Arc::clone(&link)));
    let first = tasks.join_next().await;
    // The token of the handle too: a queue that was too full ends the link that way.
    let overloaded = control.cancel.is_cancelled() && !control.wanted.load(Ordering::Relaxed);
    link.cancel.cancel();
    let rest = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(JOIN_LIMIT, rest).await;
    drop(tasks);
    let closing = Arc::clone(&link);
    // Not waited for where the link is lost: the engine is to know at once.
    let close = tokio::spawn(async move {
        tokio::join!(closing.consume.close(), closing.publish.close());
    });
    if control.wanted.load(Ordering::Relaxed) {
        let _ = tokio::time::timeout(2 * CLOSE_LIMIT, close).await;
    }
    match first {
        _ if overloaded => "too many commands are waiting on this link".to_owned(),
        Some(Ok(reason)) => reason,
        Some(Err(_)) | None => "a task of the link failed".to_owned(),
    }
}

/// Answers what can no longer be published.
pub(super) async fn fail_all(context: &Context, mut publications: mpsc::Receiver<Publication>) {
    publications.close();
    while let Some(publication) = publications.recv().await {
        context
            .published(publication.id, PublishOutcome::Failed)
            .await;
    }
}
