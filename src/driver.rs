//! The only place where the engine meets I/O: one input, apply, drain all commands, arm one timer.
//!
//! Nothing here waits for a shell: commands go out without blocking, results come back as inputs.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

use crate::admin::AdminRequest;
use crate::at_work::AtWork;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::downstream::{FinesseClient, Marks};
use crate::engine::command::{Call, DownstreamCommand, Keep, LifeCommand, StoreCommand};
use crate::engine::ids::{JournalId, Now, VerbId};
use crate::engine::input::Verb;
use crate::engine::limits::TRACE_ROWS;
use crate::engine::{Command, Engine, Event, Input, View};
use crate::journal::{Journal, NotTaken};
use crate::lease::{Lease, Pass};
use crate::model::{CallOutcome, NodeHealth};
use crate::notify::shell::NotifyShell;
use crate::record::{Record, Traces};
use crate::store::Store;
use crate::watchdog::Watchdog;

/// Inputs taken in one go, between two looks at operators and the clock.
const BATCH: usize = 256;

/// Shortest time between two views for the status page and metrics.
const VIEW_INTERVAL: Duration = Duration::from_millis(50);

/// What is said of a request whose task has panicked. The panic itself is in the log.
const PANIC: &str = "an error in this program";

/// The shells that the driver hands commands to.
pub struct Shells {
    /// RabbitMQ.
    pub broker: Broker,
    /// REST.
    pub downstream: Arc<FinesseClient>,
    /// XMPP.
    pub notify: NotifyShell,
    /// Intents and outcomes.
    pub journal: Journal,
    /// Who looks whether the driver goes on.
    pub watchdog: Watchdog,
    /// Whether this process has been away.
    pub lease: Arc<Lease>,
    /// Disk.
    pub store: Arc<Store>,
    /// The latest steps of commands.
    pub record: Record,
    /// The note that commands are in work.
    pub at_work: AtWork,
}

/// Why the driver stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Everything started is finished.
    Done,
    /// It was to end, and the time for that was over before everything was finished.
    Late,
    /// This instance must not run.
    Refused(String),
}

/// Runs the engine.
pub struct Driver {
    engine: Engine,
    clock: Clock,
    shells: Shells,
    hosts: Vec<Arc<str>>,
    inputs: mpsc::Receiver<Input>,
    results: mpsc::Sender<Input>,
    asks: mpsc::Receiver<AdminRequest>,
    verbs: HashMap<VerbId, oneshot::Sender<Result<String, String>>>,
    next_verb: u64,
    traces: Traces,
    view: watch::Sender<Arc<View>>,
    tell: Box<dyn Fn(&Event) + Send + Sync>,
    /// From before the input that is being worked on.
    pass: Pass,
}

impl Driver {
    /// A driver at rest. `results` is a sender of the channel whose receiver is `inputs`; `tell`
    /// is called for every happening.
    #[must_use]
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        engine: Engine,
        clock: Clock,
        shells: Shells,
        hosts: Vec<Arc<str>>,
        (results, inputs): (mpsc::Sender<Input>, mpsc::Receiver<Input>),
        asks: mpsc::Receiver<AdminRequest>,
        view: watch::Sender<Arc<View>>,
        tell: Box<dyn Fn(&Event) + Send + Sync>,
    ) -> Self {
        Self {
            pass: shells.lease.pass(),
            engine,
            clock,
            shells,
            hosts,
            inputs,
            results,
            asks,
            verbs: HashMap::new(),
            next_verb: 0,
            traces: Traces::default(),
            view,
            tell,
        }
    }

    /// Runs until the engine says that the process may end.
    pub async fn run(mut self) -> (Shells, Ended) {
        self.apply(Engine::start);
        let mut batch = Vec::with_capacity(BATCH);
        let mut shown = tokio::time::interval(VIEW_INTERVAL);
        shown.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ended = self.drain();
        while ended.is_none() {
            let due = self
                .engine
                .poll_timeout()
                .unwrap_or_else(|| self.clock.now().mono + 1_000);
            self.shells.watchdog.beat();
            tokio::select! {
                taken = self.inputs.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                }
                Some(ask) = self.asks.recv() => self.answer(ask),
                _ = shown.tick() => {
                    self.view.send_replace(Arc::new(self.engine.view()));
                }
                () = sleep_until(self.clock.instant(due)) => {
                    self.apply(|engine, now| engine.handle(now, Input::Tick));
                }
            }
            let full = batch.len() == BATCH;
            for input in batch.drain(..) {
                #[cfg(feature = "failpoints")]
                crate::failpoints::on_input(&input);
                self.apply(|engine, now| engine.handle(now, input));
                ended = self.drain();
                if ended.is_some() {
                    break;
                }
            }
            if ended.is_none() {
                ended = self.drain();
            }
            self.shells.at_work.note(self.engine.in_work());
            // There is more, and what was decided is to be written meanwhile: heartbeats, too.
            if full {
                tokio::task::yield_now().await;
            }
        }
        self.shells.watchdog.done();
        self.view.send_replace(Arc::new(self.engine.view()));
        let ended = match ended.unwrap_or(Ended::Done) {
            Ended::Done if self.engine.in_work() => Ended::Late,
            ended => ended,
        };
        (self.shells, ended)
    }

    /// Lets the engine work on one input. What it decides is void if the process was away since
    /// the time that it was told.
    fn apply(&mut self, work: impl FnOnce(&mut Engine, Now)) {
        self.pass = self.shells.lease.pass();
        work(&mut self.engine, self.clock.now());
        self.shells.watchdog.beat();
    }

    /// Takes all commands and happenings; says where the engine is done.
    fn drain(&mut self) -> Option<Ended> {
        let shells = &self.shells;
        let mut ended = None;
        while let Some(command) = self.engine.poll_command() {
            #[cfg(feature = "failpoints")]
            if !crate::failpoints::on_command(&command) {
                continue;
            }
            match command {
                Command::Broker(command) => shells.broker.execute(command),
                Command::Downstream(DownstreamCommand::Call(call)) => {
                    spawn_call(shells, &self.hosts, &self.results, *call, self.pass.clone());
                }
                Command::Downstream(DownstreamCommand::Probe { node }) => {
                    spawn_probe(shells, &self.results, node)
                }
                Command::Notify(command) => shells.notify.execute(command),
                Command::Life(LifeCommand::VerbDone { id, result }) => {
                    if let Some(asker) = self.verbs.remove(&id) {
                        // Who asks for the status after the answer sees what the verb did.
                        self.view.send_replace(Arc::new(self.engine.view()));
                        // An operator who went away needs no answer.
                        let _ = asker.send(result);
                    }
                }
                Command::Life(LifeCommand::TellTrace {
                    to,
                    number,
                    id,
                    journal,
                }) => {
                    let mut rows = shells.record.of(&id);
                    rows.extend(journal);
                    rows.truncate(TRACE_ROWS);
                    match to {
                        // A queue that is full has more to do than this.
                        Some(to) => {
                            let told = Input::TraceTold { to, number, rows };
                            let _ = self.results.try_send(told);
                        }
                        None => self.traces.own(number, rows, shells.record.since()),
                    }
                }
                Command::Life(LifeCommand::TraceAsked { number, members }) => {
                    self.traces.asked(number, members)
                }
                Command::Life(LifeCommand::Traced { from, number, rows }) => {
                    self.traces.told(number, from, rows);
                }
                Command::Store(StoreCommand::Keep(keep)) => {
                    spawn_keep(shells, &self.results, *keep)
                }
                Command::Store(StoreCommand::Journal { id, write }) => {
                    if let Err(why) = shells.journal.submit(id, *write) {
                        not_journaled(&self.results, id, why);
                    }
                }
                Command::Life(LifeCommand::Exit) => ended = Some(Ended::Done),
                Command::Life(LifeCommand::Refuse(reason)) => ended = Some(Ended::Refused(reason)),
            }
        }
        while let Some(event) = self.engine.poll_event() {
            (self.tell)(&event);
        }
        ended
    }

    fn answer(&mut self, ask: AdminRequest) {
        match ask {
            AdminRequest::Sessions(query, asker) => {
                let _ = asker.send(self.engine.session_page(&query));
            }
            AdminRequest::Verb(verb, asker) => self.verb(verb, asker),
            AdminRequest::Trace(id, asker) => {
                if let Some(number) = self.traces.begin(asker) {
                    self.apply(|engine, now| {
                        engine.handle(now, Input::TraceWanted { number, id });
                    });
                }
            }
        }
    }

    fn verb(&mut self, verb: Verb, asker: oneshot::Sender<Result<String, String>>) {
        self.next_verb += 1;
        let id = VerbId(self.next_verb);
        self.verbs.insert(id, asker);
        self.apply(|engine, now| engine.handle(now, Input::Operator { id, verb }));
    }
}

/// One downstream request: its answer is an input, always.
fn spawn_call(
    shells: &Shells,
    hosts: &[Arc<str>],
    results: &mpsc::Sender<Input>,
    call: Call,
    pass: Pass,
) {
    let client = shells.downstream.clone();
    let results = results.clone();
    let host = hosts.get(call.node).cloned();
    tokio::spawn(async move {
        let started = Instant::now();
        let request = client.call(
            call.node,
            &call.agent,
            &call.password,
            Marks {
                request_id: &call.request_id,
                trace: call.trace.as_deref(),
            },
            &call.action,
            &pass,
        );
        #[cfg(feature = "failpoints")]
        let request = crate::failpoints::around_call(&call, request);
        // Without an answer of any kind the agent's commands would wait for ever.
        let request = AssertUnwindSafe(request).catch_unwind();
        let outcome = request.await.unwrap_or_else(|_| CallOutcome::Unknown {
            status: None,
            timed_out: false,
            reason: PANIC.to_owned(),
        });
        if let Some(host) = host {
            let seconds = started.elapsed().as_secs_f64();
            crate::telemetry::downstream_request(&host, status_class(&outcome), seconds);
        }
        let call = call.id;
        // The receiver is only gone when the process ends.
        let _ = results.send(Input::CallDone { call, outcome }).await;
    });
}

/// One write to the store, off the runtime's threads. The engine gives the next one after this.
fn spawn_keep(shells: &Shells, results: &mpsc::Sender<Input>, keep: Keep) {
    let store = shells.store.clone();
    let results = results.clone();
    tokio::spawn(async move {
        let failure = tokio::task::spawn_blocking(move || store.keep(&keep).err())
            .await
            .unwrap_or_else(|error| Some(error.to_string()));
        let _ = results.send(Input::Kept { failure }).await;
    });
}

/// The journal did not take a write: said as the journal would say it.
fn not_journaled(results: &mpsc::Sender<Input>, id: JournalId, why: NotTaken) {
    let results = results.clone();
    let failure = Some(why.to_string());
    tokio::spawn(async move {
        let ids = vec![id];
        let _ = results.send(Input::Journaled { ids, failure }).await;
    });
}

fn spawn_probe(shells: &Shells, results: &mpsc::Sender<Input>, node: usize) {
    let client = shells.downstream.clone();
    let results = results.clone();
    tokio::spawn(async move {
        let probe = AssertUnwindSafe(client.probe(node)).catch_unwind();
        let health = probe.await.unwrap_or_else(|_| NodeHealth::Unreachable {
            reason: PANIC.to_owned(),
        });
        let _ = results.send(Input::Probed { node, health }).await;
    });
}

/// Metric label of a request's end.
fn status_class(outcome: &CallOutcome) -> &'static str {
    let status = match outcome {
        CallOutcome::Done { status, .. }
        | CallOutcome::Refused { status, .. }
        | CallOutcome::Unsettled { status, .. } => Some(*status),
        CallOutcome::OutOfService { .. } => Some(503),
        CallOutcome::Unknown { status, .. } => *status,
        CallOutcome::NotSent { .. } | CallOutcome::NoRoom(_) | CallOutcome::Withheld => None,
    };
    match status.map(|status| status / 100) {
        Some(1) => "1xx",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(5) => "5xx",
        _ => "error",
    }
}
