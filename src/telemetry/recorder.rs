//! The metrics recorder and its text form.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use metrics_process::Collector;

use super::names::{self, Kind, METRICS};
use crate::catalogue::commands;
use crate::wire::reply::Outcome;

/// How often samples are folded into the histograms where nobody asks for the metrics.
const UPKEEP: Duration = Duration::from_secs(5);

/// Outcomes, for the counters that exist from the start.
const OUTCOMES: [Outcome; 6] = [
    Outcome::Ok,
    Outcome::Accepted,
    Outcome::Rejected,
    Outcome::Failed,
    Outcome::Expired,
    Outcome::InDoubt,
];

/// Fixed words of one label, for the counters that exist from the start.
const WORDS: &[(&str, &str, &[&str])] = &[
    (
        names::DUPLICATES,
        "kind",
        &["running", "finished", "other_body"],
    ),
    (
        names::TAKEOVERS,
        "reason",
        &[
            "peer-lost",
            "peer-left",
            "preparing",
            "takeback",
            "downstream",
            "missing",
            "client-moved",
            "healed",
        ],
    ),
    (
        names::SUBSCRIPTIONS_LOST,
        "kind",
        &["refused", "unreachable", "lost", "conflict"],
    ),
    (
        names::PEER_LOST,
        "reason",
        &["silent", "consumer_gone", "goodbye"],
    ),
    (
        names::LOCAL_SHORTAGES,
        "of",
        &["descriptors", "ports", "memory", "threads"],
    ),
    (
        names::PEER_REJECTED,
        "reason",
        &["wrong_key", "replayed", "version", "malformed"],
    ),
];

/// Metrics whose labels are not known at the start: they come with their first value.
const LATER: &[&str] = &[
    names::ROLE_CHANGES,
    names::CONSUMERS_LOST,
    names::CONSUMER_PROOFS,
    names::FEDERATION_LINKS,
    names::BROKER_CONNECTED,
    names::BROKER_ATTACHED,
    names::BROKER_BLOCKED,
    names::BROKER_GARBLED,
    names::BROKER_WAY_LOST,
    names::CALLBACKS,
    names::CALLBACK_DESTINATIONS,
    names::CALLBACK_WAITING,
    names::CALLBACK_FAILING,
    names::CALLBACK_OLDEST,
    names::BROKER_FAILOVERS,
    names::DOWNSTREAM_UP,
    names::DOWNSTREAM_REQUESTS,
    names::DOWNSTREAM_REQUEST_DURATION,
    names::PEER_LEFT,
    names::PEER_UP,
    names::PEER_RTT,
    names::ROLE,
    names::DEAD_LETTERED,
    names::DESCRIPTORS,
    names::STALE,
];

/// The process's metrics.
#[derive(Clone)]
pub struct Telemetry {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Telemetry")
    }
}

/// The one installed recorder's handle: a process has one recorder for ever.
static INSTALLED: Mutex<Option<Telemetry>> = Mutex::new(None);

impl Telemetry {
    /// Installs the recorder for the process and registers every metric; later calls give the
    /// same one. It has no listener of its own: [`Telemetry::render`] is served by the admin
    /// listener.
    ///
    /// # Errors
    /// Where something else has installed a recorder.
    pub fn install() -> Result<Self, String> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(telemetry) = installed.as_ref() {
            return Ok(telemetry.clone());
        }
        let recorder = recorder().map_err(|error| error.to_string())?;
        let telemetry = Self {
            handle: recorder.handle(),
        };
        metrics::set_global_recorder(recorder)
            .map_err(|_| "another metrics recorder is installed".to_owned())?;
        register();
        let process = Collector::default();
        process.describe();
        process.collect();
        *installed = Some(telemetry.clone());
        Ok(telemetry)
    }

    /// A recorder that is not the process's, for tests.
    #[cfg(test)]
    pub(crate) fn local() -> (Self, PrometheusRecorder) {
        let recorder = recorder().unwrap();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, register);
        (Self { handle }, recorder)
    }

    /// All metrics in the Prometheus text format. Every name is there from the start, those
    /// without a value yet with their description only.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        for metric in METRICS {
            let head = format!("# TYPE {} ", metric.name);
            if !text.contains(&head) {
                let kind = match metric.kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram(_) => "histogram",
                };
                // Writing to a String cannot fail.
                let _ = write!(
                    text,
                    "# HELP {} {}\n{head}{kind}\n\n",
                    metric.name, metric.help
                );
            }
        }
        text
    }

    /// Keeps the histograms' buffers small, for ever; to be spawned beside the instance.
    pub async fn upkeep(self) {
        let mut interval = tokio::time::interval(UPKEEP);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.handle.run_upkeep();
            // With tens of thousands of open files it takes its time. What it panics with is
            // in the log.
            let _ = tokio::task::spawn_blocking(|| Collector::default().collect()).await;
        }
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            let name = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(name, buckets)?;
        }
    }
    Ok(builder.build_recorder())
}

/// Describes all metrics, and starts those whose labels are known at zero.
fn register() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => {
                metrics::describe_counter!(metric.name, metric.unit, metric.help);
            }
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram(_) => {
                metrics::describe_histogram!(metric.name, metric.unit, metric.help);
            }
        }
    }
    for spec in commands() {
        for outcome in OUTCOMES {
            metrics::counter!(names::COMMANDS, "command" => spec.name, "outcome" => outcome.as_str())
                .absolute(0);
        }
        let _ = metrics::histogram!(names::COMMAND_DURATION, "command" => spec.name);
    }
    for (name, label, words) in WORDS {
        for word in *words {
            metrics::counter!(*name, *label => *word).absolute(0);
        }
    }
    for ownership in ["owned", "foreign"] {
        metrics::gauge!(names::SESSIONS, "ownership" => ownership).set(0.0);
    }
    metrics::gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let labelled = |name: &str| {
        [
            names::COMMANDS,
            names::COMMAND_DURATION,
            names::SESSIONS,
            names::BUILD_INFO,
        ]
        .contains(&name)
            || LATER.contains(&name)
            || WORDS.iter().any(|(with, ..)| *with == name)
    };
    for metric in METRICS.iter().filter(|metric| !labelled(metric.name)) {
        match metric.kind {
            Kind::Counter => metrics::counter!(metric.name).absolute(0),
            Kind::Gauge => metrics::gauge!(metric.name).set(0.0),
            Kind::Histogram(_) => drop(metrics::histogram!(metric.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What users are promised.
    const PROMISED: &[(&str, &str)] = &[
        ("commands_total", "counter"),
        ("command_duration_seconds", "histogram"),
        ("command_queue_wait_seconds", "histogram"),
        ("inflight_commands", "gauge"),
        ("sessions", "gauge"),
        ("role", "gauge"),
        ("broker_connected", "gauge"),
        ("broker_failovers_total", "counter"),
        ("downstream_up", "gauge"),
        ("downstream_requests_total", "counter"),
        ("downstream_request_duration_seconds", "histogram"),
        ("downstream_failovers_total", "counter"),
        ("peer_up", "gauge"),
        ("peer_rtt_seconds", "histogram"),
        ("takeovers_total", "counter"),
        ("takeover_duration_seconds", "histogram"),
        ("duplicates_total", "counter"),
        ("in_doubt_total", "counter"),
        ("journal_fsync_seconds", "histogram"),
        ("dead_lettered_total", "counter"),
        ("replies_unroutable_total", "counter"),
        ("events_published_total", "counter"),
        ("build_info", "gauge"),
        ("commands_without_id_total", "counter"),
    ];

    #[test]
    fn every_promised_name_is_there_from_the_start_and_once() {
        let (telemetry, _recorder) = Telemetry::local();
        let text = telemetry.render();
        for (name, kind) in PROMISED {
            let head = format!("# TYPE tandem_{name} {kind}\n");
            assert_eq!(text.matches(&head).count(), 1, "{name}\n{text}");
        }
        for metric in METRICS {
            let head = format!("# TYPE {} ", metric.name);
            assert_eq!(text.matches(&head).count(), 1, "{}", metric.name);
        }
    }

    #[test]
    fn known_labels_start_at_zero() {
        let (telemetry, _recorder) = Telemetry::local();
        let text = telemetry.render();
        for line in [
            "tandem_commands_total{command=\"MakeReady\",outcome=\"IN_DOUBT\"} 0",
            "tandem_duplicates_total{kind=\"finished\"} 0",
            "tandem_sessions{ownership=\"foreign\"} 0",
            "tandem_in_doubt_total 0",
            "tandem_command_duration_seconds_count{command=\"MakeCall\"} 0",
            "tandem_journal_fsync_seconds_count 0",
            concat!(
                "tandem_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn names_have_the_prefix_and_base_units() {
        for metric in METRICS {
            assert!(metric.name.starts_with("tandem_"), "{}", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{}", metric.name);
            let seconds = metric.name.ends_with("_seconds");
            let histogram = matches!(metric.kind, Kind::Histogram(_));
            assert!(seconds || !histogram, "{}", metric.name);
            assert_eq!(
                seconds,
                metric.unit == metrics::Unit::Seconds,
                "{}",
                metric.name
            );
        }
    }
}
