//! What a link is: two connections, their channels, and the queues of what it is to do. `run.rs`
//! opens it and runs its tasks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use lapin::Channel;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::classify::{Class, Problem};
use super::connect::{Conn, Endpoint, Node};
use super::second::Second;
use super::topology::{self, QueueSpec};
use crate::engine::command::Outbound;
use crate::engine::ids::{LinkEpoch, PublishId};
use crate::engine::input::PublishOutcome;
use crate::engine::way::Way;
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
    pub(super) cancel: CancellationToken,
    /// Asked for by the engine: its end is not reported.
    pub(super) wanted: Arc<AtomicBool>,
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
    pub(super) ops: mpsc::Receiver<Op>,
    pub(super) settles: mpsc::Receiver<Settle>,
    pub(super) publications: mpsc::Receiver<Publication>,
    pub(super) counts: mpsc::Receiver<InstanceId>,
    pub(super) proofs: mpsc::Receiver<Way>,
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

/// An open link, shared by its tasks.
pub(super) struct Link {
    pub(super) context: Arc<Context>,
    /// The brokers as they were when this one was dialled.
    pub(super) endpoints: Arc<Vec<Endpoint>>,
    pub(super) epoch: LinkEpoch,
    pub(super) broker: usize,
    /// The node of the broker to which both connections lead.
    pub(super) node: usize,
    pub(super) consume: Conn,
    pub(super) publish: Conn,
    /// Consumers of the command queues.
    pub(super) commands: Channel,
    /// The consumer of expired commands, whose refusal must not end the one of the commands.
    pub(super) expired: Second,
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
    /// The engine asked for its end.
    pub(super) wanted: Arc<AtomicBool>,
    /// Nothing is waited for any more.
    pub(super) given_up: CancellationToken,
    /// What could not be read of what the broker sent.
    pub(super) garbled: OnceLock<String>,
}

impl Link {
    /// Its broker, as it was dialled.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoints[self.broker]
    }

    /// The own control queue on it.
    pub(super) fn control_queue(&self) -> QueueSpec {
        self.control_queue_on(self.endpoint().node_label(self.node))
    }

    /// The own control queue on a node of its broker.
    pub(super) fn control_queue_on(&self, node: &str) -> QueueSpec {
        let config = &self.context.config;
        topology::control_queue(&config.cluster_name, config.instance.as_str(), node)
    }

    /// The node of the broker to which it leads.
    pub(super) fn node(&self) -> &Node {
        &self.endpoint().nodes()[self.node]
    }

    /// Remembers a problem of the connection that is more than a connection that is gone.
    pub(super) fn noticed(&self, problem: &Problem) {
        if problem.class == Class::Garbled {
            // The first word stands: what follows is caused by it.
            let _ = self.garbled.set(problem.text.clone());
        }
    }

    /// Whether the engine asked for its end: then there is time for an orderly one. Otherwise the
    /// engine waits for the news.
    pub(super) fn is_wanted_down(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
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

/// Answers what can no longer be published.
pub(super) async fn fail_all(context: &Context, mut publications: mpsc::Receiver<Publication>) {
    publications.close();
    while let Some(publication) = publications.recv().await {
        context
            .published(publication.id, PublishOutcome::Failed)
            .await;
    }
}
