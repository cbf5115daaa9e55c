//! Composition root: builds the shells from the settings, starts and stops them in order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::admin::{self, AdminRequest, AdminState, History, Pulse};
use crate::at_work::AtWork;
use crate::broker::proof::Prover;
use crate::broker::{self, Broker, BrokerError};
use crate::clock::Clock;
use crate::descriptors::{self, Limit, Shares};
use crate::downstream::{DownstreamError, FinesseClient};
use crate::driver::{Driver, Ended, Shells};
use crate::engine::ids::BootId;
use crate::engine::journal::Restored;
use crate::engine::{Config, Engine, Input, View};
use crate::journal::{Journal, JournalError};
use crate::lease::Lease;
use crate::model::IdError;
use crate::net::TlsError;
use crate::notify::shell::NotifyShell;
use crate::record::Record;
use crate::rest;
use crate::settings::{Loaded, Settings};
use crate::store::Store;
use crate::supervisor::Supervisor;
use crate::telemetry::{self, Telemetry};
use crate::watchdog::{self, Watchdog, vital_task};

mod configure;
mod entrance;
mod reload;
mod signals;
mod start;

pub(crate) use configure::doctor_config;
use configure::{
    broker_config, control_keys, downstream_config, engine_config, lease_limit, notify_config,
};
use reload::{Parts, Reloader};
use signals::Signals;

/// Inputs on their way to the engine. Deliveries are bounded by the prefetch besides.
const INPUTS: usize = 8_192;

/// Operators' requests that may wait.
const ASKS: usize = 64;

/// Least and most time for the end of a process whose work is done.
const ENDING_LEAST: Duration = Duration::from_millis(250);
const ENDING_MOST: Duration = Duration::from_secs(3);

/// Why an instance could not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The settings ask for something that cannot be.
    #[error("{0}")]
    Settings(String),
    /// The broker shell.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The downstream shell.
    #[error(transparent)]
    Downstream(#[from] DownstreamError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The admin listener, or the data folder.
    #[error("{0}")]
    Io(String),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Something that lives already stands against it.
    #[error("{0}")]
    Refused(String),
    /// An error in this program.
    #[error("{0}")]
    Internal(String),
    /// An id.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// What is asked of one start, not of the site.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A journal that cannot be used is moved away.
    pub accept_journal_loss: bool,
}

/// Runs one instance until it is told to stop; a first signal drains, a second one ends at once.
///
/// # Errors
/// Where it cannot start; nothing runs then.
pub async fn run(mut loaded: Loaded, options: Options) -> Result<(), AppError> {
    let signals = Signals::listen()?;
    let settings = &mut loaded.settings;
    start::tell(settings, &loaded.path);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if settings.broker.randomize {
        let seed = random().map_err(AppError::Io)?;
        shuffle(
            &mut settings.broker.urls,
            settings.broker.priority_backup,
            seed,
        );
    }
    let settings = settings.clone();
    let limit = descriptors::raise().map_err(|error| AppError::Io(error.to_string()))?;
    let shares = limit.shares(settings.broker.urls.len());
    let metrics = Telemetry::install().map_err(AppError::Io)?;
    let listener = admin::bind(settings.admin.listen)
        .await
        .map_err(|error| AppError::Io(error.to_string()))?;
    let callbacks = rest::Callbacks::default();
    let entrance = entrance::open(&settings, callbacks.clone()).await?;
    prepare_data_dir(&settings.data_dir)?;
    // Every broker's management API is asked; one that says nothing takes its time.
    tokio::select! {
        alone = refuse_without_key(&settings) => alone?,
        () = signals.ending.cancelled() => {
            tracing::info!("stopping: nothing was started yet");
            return Ok(());
        }
    }
    let boot = BootId(random().map_err(AppError::Io)?);
    let (at_work, former) = AtWork::open(&settings.data_dir);
    let mut config = engine_config(&settings, boot, shares.sessions)?;
    config.former = former;
    let (results, inputs) = mpsc::channel(INPUTS);
    let (ask, asks) = mpsc::channel::<AdminRequest>(ASKS);
    let clock = Clock::new();
    let (journal, journaled) = open_journal(&settings, options, clock, &results)?;
    let shells = build_shells(
        &settings,
        &config,
        (boot, shares),
        &results,
        (journal, at_work),
    )?;
    let hosts = config.nodes.iter().map(|host| Arc::from(host.as_str()));
    let hosts: Vec<Arc<str>> = hosts.collect();
    let mut engine = Engine::new(config.clone());
    restore(&mut engine, &shells.store, limit, shares)?;
    tracing::info!(
        intents = journaled.intents.len(),
        outcomes = journaled.outcomes.len(),
        "journal kept from before"
    );
    engine.restore_journal(clock.now(), journaled);
    let (view, views) = watch::channel(Arc::new(engine.view()));
    let history = History::open(&settings.data_dir);
    history.instance(
        &settings.instance.id,
        "started",
        &format!("version {}", crate::VERSION),
    );
    let kept = history.clone();
    let pulse = Pulse::default();
    let tell = teller(
        &settings,
        history.clone(),
        pulse.clone(),
        shells.record.clone(),
    );
    let queues = (settings.groups.iter()).map(|group| (group.name.clone(), group.queues.len()));
    let input = broker::topology::topology_input(&settings);
    let (prover, network) = Prover::new(&input, queues.collect());
    let rules = admin::Rules::of(&settings.admin);
    let parts = Parts::new(
        rules.clone(),
        &shells.broker,
        prover.renewal(),
        Arc::clone(&shells.downstream),
        Arc::clone(&shells.store),
        history.clone(),
        entrance.as_ref().map(|(_, rest)| rest.renewal()),
    );
    let reloader = Reloader::new(loaded, config, boot, parts);
    let watchdog = shells.watchdog.clone();
    let driver = Driver::new(
        engine,
        clock,
        shells,
        hosts,
        (results.clone(), inputs),
        asks,
        view,
        tell,
    );
    let stop = tokio_util::sync::CancellationToken::new();
    let rendered = metrics.clone();
    let state = AdminState {
        watchdog: watchdog.clone(),
        view: views.clone(),
        ask,
        metrics: Arc::new(move || rendered.render()),
        connections: shares.admin,
        rules,
        tls: settings.admin.tls.clone(),
        history,
        pulse: pulse.clone(),
        network,
        callbacks: entrance
            .as_ref()
            .and_then(|(_, rest)| rest.posts().then_some(callbacks)),
    };
    let served = admin::serve(listener, state, stop.clone().cancelled_owned());
    let served = tokio::spawn(async {
        if let Err(error) = served.await {
            tracing::error!(%error, "the admin API is not served");
        }
    });
    let proofs = vital_task("proofs", prover.run(views.clone(), results.clone()));
    let proofs = tokio::spawn(proofs);
    let beating = tokio::spawn(pulse.keep());
    let entrance = entrance.map(|(listener, rest)| {
        let served = rest::serve(listener, rest, stop.clone());
        tokio::spawn(vital_task("HTTP entrance", served))
    });
    let told = Supervisor::from_environment().map(|it| tokio::spawn(it.keep(views.clone())));
    let gauges = tokio::spawn(keep_gauges(views));
    let counted = tokio::spawn(descriptors::watch(limit));
    let upkeep = tokio::spawn(metrics.upkeep());
    let log = tokio::spawn(telemetry::upkeep());
    signals.serve(results, reloader);
    watchdog
        .watch(watchdog::LIMIT, watchdog::end)
        .map_err(|error| AppError::Io(format!("no thread for the watchdog: {error}")))?;
    // On a worker, not on the thread that waits here: every input would wake that one up.
    let (shells, ended) = tokio::spawn(driver.run())
        .await
        .map_err(|error| AppError::Internal(format!("the driver failed: {error}")))?;
    let deadline = Instant::now() + closing(settings.shutdown_grace);
    let why = match &ended {
        Ended::Done => "everything started is finished",
        Ended::Late => "the time to end in is over, and not everything is finished",
        Ended::Refused(reason) => reason,
    };
    kept.instance(&settings.instance.id, "stopped", why);
    if ended == Ended::Done {
        tracing::info!("stopping: everything started is finished");
    }
    shells.notify.close();
    let _ = timeout_at(deadline, shells.broker.close()).await;
    if ended == Ended::Done {
        let _ = timeout_at(deadline, shells.at_work.done()).await;
    }
    stop.cancel();
    if let Some(told) = told {
        told.abort();
    }
    proofs.abort();
    beating.abort();
    gauges.abort();
    counted.abort();
    upkeep.abort();
    log.abort();
    // They end by themselves; a stuck connection or disk does not hold the process.
    let listeners = async {
        let _ = served.await;
        if let Some(entrance) = entrance {
            let _ = entrance.await;
        }
    };
    let _ = timeout_at(deadline, listeners).await;
    let history = tokio::task::spawn_blocking(move || kept.close());
    let _ = timeout_at(deadline, history).await;
    close_journal(shells.journal, deadline).await;
    match ended {
        Ended::Done | Ended::Late => Ok(()),
        Ended::Refused(reason) => Err(AppError::Refused(reason)),
    }
}

/// Ends the journal's thread, which writes what waits first. A disk that hangs is not waited for
/// beyond the deadline: what is not written was never told as written.
async fn close_journal(journal: Journal, deadline: Instant) {
    let close = tokio::task::spawn_blocking(move || drop(journal));
    if timeout_at(deadline, close).await.is_err() {
        tracing::warn!("the journal's disk does not answer: it is not waited for");
    }
}

/// How long it takes to end once everything is finished: connections are closed, and the rest is
/// cut. A part of `shutdown.grace`, which the engine does without. A process cannot end in no time.
fn ending(grace: Duration) -> Duration {
    (grace / 4).clamp(ENDING_LEAST, ENDING_MOST)
}

/// The part of it for closing in order.
fn closing(grace: Duration) -> Duration {
    ending(grace) * 2 / 3
}

/// The part of it for what goes on in other threads then.
pub(crate) fn cutting(grace: Duration) -> Duration {
    ending(grace) / 3
}

/// Puts back what the store kept.
fn restore(
    engine: &mut Engine,
    store: &Store,
    limit: Limit,
    shares: Shares,
) -> Result<(), AppError> {
    let kept = store
        .load()
        .map_err(|error| AppError::Io(error.to_string()))?;
    if kept.unreadable > 0 {
        tracing::warn!(
            sessions = kept.unreadable,
            "kept sessions cannot be opened: sealed under another control.key or local.key?"
        );
    }
    tracing::info!(sessions = kept.sessions.len(), "sessions kept from before");
    tell_room(limit, shares, kept.sessions.len());
    engine.restore(kept.sessions, kept.destinations, kept.epoch);
    engine.restore_groups(kept.groups);
    Ok(())
}

/// Whether the agents that are known find room.
fn tell_room(limit: Limit, shares: Shares, known: usize) {
    let (soft, hard) = (limit.soft, limit.hard);
    let agents = shares.sessions;
    if agents == 0 || agents < known {
        tracing::warn!(
            soft,
            hard,
            agents,
            known,
            "the limit of open files is too low for the agents that are known: raise it \
             (LimitNOFILE, ulimit -Hn)"
        );
    } else {
        tracing::info!(
            soft,
            hard,
            agents,
            "room for the agents' notification sessions"
        );
    }
}

fn teller(
    settings: &Settings,
    history: History,
    pulse: Pulse,
    record: Record,
) -> Box<dyn Fn(&crate::engine::Event) + Send + Sync> {
    let labels = telemetry::Labels {
        instance: settings.instance.id.clone(),
    };
    Box::new(move |event| {
        telemetry::emit(event, &labels);
        history.record(event);
        pulse.record(event);
        record.record(event);
    })
}

async fn keep_gauges(mut views: watch::Receiver<Arc<View>>) {
    while views.changed().await.is_ok() {
        let view = views.borrow_and_update().clone();
        telemetry::gauges(&view);
    }
}

/// Without a key an instance runs alone: it refuses to start beside others. Only the management
/// API lists queues; where it cannot be asked, peers that are heard are still told apart by their
/// seals.
async fn refuse_without_key(settings: &Settings) -> Result<(), AppError> {
    if settings.control.key.is_some() {
        return Ok(());
    }
    tracing::warn!("no control.key: this instance runs alone, without a peer");
    let own = format!("{}.control.{}", settings.cluster_name, settings.instance.id);
    let prefix = format!("{}.control.", settings.cluster_name);
    // Behind a dot: one on a node of a cluster. No instance id has dots.
    let is_own = |name: &str| {
        let rest = name.strip_prefix(&own);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    for url in &settings.broker.urls {
        let vhost = broker::topology::vhost_of(&url.amqp);
        let queues = broker::management::queue_names(&url.management, &vhost).await;
        let other = match queues {
            Ok(names) => names
                .into_iter()
                .find(|name| name.starts_with(&prefix) && !is_own(name)),
            Err(error) => {
                tracing::warn!(broker = url.label, %error, "cannot look for peers' control queues");
                None
            }
        };
        if let Some(other) = other {
            return Err(AppError::Settings(format!(
                "control.key is not set, but broker {} has the control queue {other} of another \
                 instance; give all instances the same control.key-file (at least 32 bytes), or \
                 delete that queue if its instance is gone for good",
                url.label
            )));
        }
    }
    Ok(())
}

fn prepare_data_dir(dir: &Path) -> Result<(), AppError> {
    crate::data_dir::prepare(dir).map_err(|error| {
        AppError::Io(format!(
            "data.dir {} cannot be used: {error}; create it or set data.dir to a folder that this \
             user may write",
            dir.display()
        ))
    })
}

/// The journal tells the engine from its own thread. Where the engine's queue is full that thread
/// waits, and writes gather for the next transaction.
fn open_journal(
    settings: &Settings,
    options: Options,
    clock: Clock,
    results: &mpsc::Sender<Input>,
) -> Result<(Journal, Restored), AppError> {
    let results = results.clone();
    let told = Box::new(move |ids, failure: Option<String>, took: Duration| {
        if failure.is_none() {
            telemetry::journal_write(took.as_secs_f64());
        }
        // The receiver is only gone when the process ends.
        let _ = results.blocking_send(Input::Journaled { ids, failure });
    });
    let accept = options.accept_journal_loss;
    Ok(Journal::open(
        &settings.data_dir,
        accept,
        clock.now().wall,
        told,
    )?)
}

fn random() -> Result<u64, String> {
    getrandom::u64().map_err(|error| format!("no random numbers from the system: {error}"))
}

/// `broker.randomize`: shuffles the list. With priority backup URL 1 stays first: it is where the
/// instance would return to anyhow.
fn shuffle<T>(list: &mut [T], first_stays: bool, mut seed: u64) {
    let from = usize::from(first_stays).min(list.len());
    let rest = &mut list[from..];
    for end in (1..rest.len()).rev() {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let pick = (seed >> 33) as usize % (end + 1);
        rest.swap(end, pick);
    }
}

fn build_shells(
    settings: &Settings,
    config: &Config,
    (boot, shares): (BootId, Shares),
    results: &mpsc::Sender<Input>,
    (journal, at_work): (Journal, AtWork),
) -> Result<Shells, AppError> {
    let downstream = FinesseClient::new(&downstream_config(settings, shares.requests))?;
    let broker = Broker::start(broker_config(settings, config, boot), results.clone())?;
    let notify = NotifyShell::start(notify_config(settings)?, results.clone());
    let keys = control_keys(settings, config, boot);
    let store =
        Store::open(&settings.data_dir, keys).map_err(|error| AppError::Io(error.to_string()))?;
    let lease = Lease::start(lease_limit(settings)).map_err(|e| AppError::Io(e.to_string()))?;
    Ok(Shells {
        record: Record::new(&settings.instance.id),
        lease,
        broker,
        downstream: Arc::new(downstream),
        notify,
        journal,
        watchdog: Watchdog::new(),
        store: Arc::new(store),
        at_work,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_hangs_does_not_hold_up_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, disk) = crate::journal::testing::on_a_hung_disk(dir.path());
        let begun = Instant::now();
        let close = tokio::spawn(close_journal(journal, begun + Duration::from_millis(200)));
        let closed = tokio::time::timeout(Duration::from_secs(30), close).await;
        // Else the runtime of this test would wait for it.
        drop(disk);
        assert!(closed.is_ok());
        assert!(
            begun.elapsed() >= Duration::from_millis(200),
            "it was closed"
        );
    }

    #[test]
    fn work_and_end_share_the_grace() {
        for (grace, work) in [
            (0, 0),
            (500, 250),
            (4_000, 3_000),
            (10_000, 7_500),
            (60_000, 57_000),
        ] {
            let grace = Duration::from_millis(grace);
            let work = Duration::from_millis(work);
            assert_eq!(configure::work_grace(grace), work);
            let parts = closing(grace) + cutting(grace);
            assert!(
                parts <= grace.saturating_sub(work).max(ENDING_LEAST),
                "{grace:?}"
            );
        }
    }

    #[test]
    fn a_shuffled_list_keeps_its_members_and_with_priority_backup_its_first() {
        let mut seen_other_first = false;
        for seed in 0..50 {
            let mut list = ["a", "b", "c", "d"];
            shuffle(&mut list, true, seed);
            assert_eq!(list[0], "a");
            let mut free = ["a", "b", "c", "d"];
            shuffle(&mut free, false, seed);
            seen_other_first |= free[0] != "a";
            for mut list in [list, free] {
                list.sort_unstable();
                assert_eq!(list, ["a", "b", "c", "d"]);
            }
        }
        assert!(seen_other_first);
        shuffle::<u8>(&mut [], true, 1);
    }
}
