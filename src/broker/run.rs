//! Runs a link: opens it, starts the tasks on it, and tells its one end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use lapin::Event;
use lapin::options::BasicQosOptions;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::classify::{Class, Problem};
use super::connect::{Conn, rpc, within};
use super::link::{Control, Link, LinkQueues, fail_all};
use super::second::Second;
use super::{
    CLOSE_LIMIT, Context, consume, declare, majority, probe, publish, rescue, settle, ways,
};
use crate::engine::Input;
use crate::engine::ids::LinkEpoch;
use crate::engine::way::Way;

/// How often the state of connections and channels is looked at, beside the library's own news.
const WATCH: Duration = Duration::from_millis(50);
/// How long the tasks of a link may take to end.
const JOIN_LIMIT: Duration = Duration::from_secs(5);

/// What could not be had when a link was opened, and is no reason not to use it.
type Lacks = Vec<(Way, Problem)>;

/// Runs a link from dialling to its one end.
pub(super) async fn run(
    context: Arc<Context>,
    epoch: LinkEpoch,
    broker: usize,
    queues: LinkQueues,
    control: Control,
) {
    // Of its own: the end of a link is not that of its handle.
    let cancel = control.cancel.child_token();
    let own = Control {
        cancel: cancel.clone(),
        wanted: Arc::clone(&control.wanted),
    };
    let limit = context.config.timeout;
    let opened = tokio::select! {
        opened = within(limit, open(Arc::clone(&context), epoch, broker, own)) => opened,
        () = cancel.cancelled() => Err(Problem::new(Class::Local, "closed while it was opened")),
    };
    let (reason, garbled) = match opened {
        Ok((link, lacks)) => {
            let link = Arc::new(link);
            let reason = serve(Arc::clone(&link), lacks, queues, &control).await;
            if !control.wanted.load(Ordering::Relaxed) {
                link.endpoint().pass_by(link.node);
            }
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
    let up = Input::LinkUp {
        link: epoch,
        node: link.endpoint().node_label(link.node).to_owned(),
        cluster: link.consume.inner.greeting.cluster_name.clone(),
    };
    link.context.tell(up).await;
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
    tasks.spawn(majority::run(Arc::clone(&link)));
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

/// Opens both connections and has what a link cannot be without.
async fn open(
    context: Arc<Context>,
    epoch: LinkEpoch,
    broker: usize,
    control: Control,
) -> Result<(Link, Lacks), Problem> {
    let config = &context.config;
    let endpoints = context.endpoints();
    let endpoint = endpoints
        .get(broker)
        .ok_or_else(|| Problem::new(Class::Local, "no such broker in the list"))?;
    let (node, (consume, publish)) = endpoint
        .open(async |node| {
            tokio::try_join!(
                Conn::open(config, node, "consume"),
                Conn::open(config, node, "publish"),
            )
        })
        .await?;
    let declared = match config
        .queue_type
        .problem_on(&consume.inner.greeting.version)
    {
        Some(why) => Err(Problem::new(Class::Precondition, why)),
        None => declare::command_queues(&context, &consume).await,
    };
    if declared.is_err() {
        endpoint.pass_by(node);
    }
    declared?;
    let lacks = declare::exchanges(&context, &consume).await;
    let commands = consume.channel().await?;
    let qos = commands.basic_qos(config.prefetch, BasicQosOptions::default());
    rpc("set the prefetch", qos).await?;
    let link = Link {
        context,
        endpoints: Arc::clone(&endpoints),
        epoch,
        broker,
        node,
        consume,
        publish,
        commands,
        expired: Second::default(),
        blocked: AtomicBool::new(false),
        registering: AtomicBool::new(false),
        attached: AtomicBool::new(false),
        serving: AtomicBool::new(false),
        cancel: control.cancel,
        wanted: control.wanted,
        given_up: CancellationToken::new(),
        garbled: OnceLock::new(),
    };
    Ok((link, lacks))
}

impl Link {
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
}
