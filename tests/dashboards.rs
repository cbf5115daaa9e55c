//! Dashboard and alert rules ask for nothing that telemetry does not have: metric names, labels
//! and roles.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tandem::engine::peer::Role;
use tandem::engine::{Event, View};
use tandem::model::InstanceId;
use tandem::telemetry::names::{Kind, METRICS};
use tandem::telemetry::{self, Labels, Telemetry};
use tandem::wire::reply::Outcome;

const DASHBOARDS: [&str; 3] = [
    include_str!("../dashboards/tandem-pair.json"),
    include_str!("../dashboards/tandem-instance.json"),
    include_str!("../dashboards/tandem-downstream.json"),
];
const ALERTS: &str = include_str!("../dashboards/alerts.yaml");
const PAGE: &str = include_str!("../docs/metrics.md");

/// Labels that the scrape configuration adds.
const TARGET_LABELS: [&str; 5] = ["cluster", "instance", "job", "mode", "site"];

/// Metrics that are not made here: RabbitMQ's, and those of every process.
const OTHERS: [&str; 2] = ["rabbitmq_detailed_", "process_"];

/// Words before a parenthesis that holds labels.
const GROUPINGS: [&str; 2] = ["by", "without"];

/// The metric that a sample belongs to: only histograms have suffixes.
fn metric_of(sample: &str) -> Option<&'static str> {
    METRICS.iter().find_map(|metric| {
        let rest = sample.strip_prefix(metric.name)?;
        let suffixes: &[&str] = match metric.kind {
            Kind::Histogram(_) => &["_bucket", "_sum", "_count"],
            Kind::Counter | Kind::Gauge => &[""],
        };
        suffixes.contains(&rest).then_some(metric.name)
    })
}

/// The samples that a text names, each with the rest of the text behind it.
fn samples(text: &str) -> Vec<(&str, &str)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices("tandem_")
        .filter(|(at, _)| !text[..*at].ends_with(word))
        .map(|(at, _)| {
            let text = &text[at..];
            text.split_at(text.find(|c| !word(c)).unwrap_or(text.len()))
        })
        .collect()
}

/// `label` and value of each matcher between braces.
fn matchers(behind: &str) -> Vec<(&str, &str)> {
    let Some(inside) = behind.strip_prefix('{').and_then(|t| t.split_once('}')) else {
        return Vec::new();
    };
    let parts = inside.0.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(|part| {
            let end = part.find(['=', '!']).expect("a matcher has an operator");
            let value = part[end..].trim_matches(['=', '!', '~', '"']);
            (part[..end].trim(), value)
        })
        .collect()
}

/// Labels that an expression groups by.
fn groupings(expr: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in expr.match_indices('(') {
        let before = expr[..at].trim_end();
        let word = before.rsplit([' ', '(', ')']).next().unwrap_or_default();
        if GROUPINGS.contains(&word) {
            let inside = expr[at + 1..].split(')').next().unwrap_or_default();
            found.extend(inside.split(',').map(str::trim));
        }
    }
    found
}

/// Labels of a template: `{{label}}` in Grafana, `{{ $labels.label }}` in Prometheus.
fn placeholders(text: &str) -> Vec<&str> {
    text.split("{{")
        .skip(1)
        .filter_map(|rest| rest.split_once("}}"))
        .map(|(inside, _)| inside.trim())
        .filter(|inside| !inside.starts_with("$value"))
        // Where the handbook is: no label of a series.
        .filter(|inside| !["with $externalLabels.runbooks", ".", "end"].contains(inside))
        .map(|inside| inside.strip_prefix("$labels.").unwrap_or(inside))
        .collect()
}

/// All that can happen, once, and a picture of an instance that has everything.
fn happenings() -> (Vec<Event>, View) {
    let peer = InstanceId::new("gc-2").unwrap();
    let broker = || "broker-1:5672".to_owned();
    let node = || "finesse-1".to_owned();
    let group = || "agents".to_owned();
    let events = vec![
        Event::CommandFinished {
            command: "MakeReady",
            tag: std::sync::Arc::default(),
            outcome: Outcome::Accepted,
            code: None,
            downstream: None,
            status: None,
            request_id: None,
            millis: 5,
            waited: 1,
            identified: true,
        },
        Event::DeadLettered {
            tag: std::sync::Arc::default(),
            reason: "malformed",
            detail: String::new(),
        },
        Event::BrokerFailover {
            from: String::new(),
            to: broker(),
        },
        Event::BrokerWay {
            broker: broker(),
            way: "replies",
            lost: Some(("replies cannot be published", String::new())),
        },
        Event::ConsumerLost {
            group: group(),
            reason: String::new(),
        },
        Event::RoleChanged {
            group: group(),
            from: Role::Joining,
            to: Role::Leader,
            reason: "priority",
        },
        Event::PeerRoundTrip { peer, millis: 2 },
        Event::Shortage {
            of: "descriptors",
            reason: String::new(),
            began: true,
        },
        Event::Stale { what: "answer" },
    ];
    let view = json!({
        "instance": "gc-1", "site": "site-1", "cluster": "tandem", "mode": "active-passive",
        "version": "0.1.0",
        "groups": [{
            "name": group(), "role": "leader", "queue": "Connector1", "priority": 127,
            "tag": null, "broker": broker(), "consuming": true, "term": 1,
        }],
        "brokers": [{
            "url": broker(), "state": "connected", "attached": true, "preferred": true,
        }],
        "downstreams": [{"url": node(), "state": "up", "current": true, "reason": null}],
        "peers": [{
            "instance": "gc-2", "site": "site-2", "state": "alive", "lastSeenMs": 1, "owned": 0,
            "broker": broker(), "version": "0.1.0", "groups": [], "rttMs": 2,
        }],
        "sessions": {"total": 1, "owned": 1, "subscribed": 1},
        "inflight": 0, "outbox": 0, "inService": true, "attached": true, "warnings": [],
    });
    (events, serde_json::from_value(view).unwrap())
}

/// The labels that each metric really has, read from what is served to Prometheus.
fn real_labels() -> BTreeMap<&'static str, BTreeSet<String>> {
    let telemetry = Telemetry::install().unwrap();
    let labels = Labels {
        instance: "gc-1".to_owned(),
    };
    let (events, view) = happenings();
    for event in &events {
        telemetry::emit(event, &labels);
    }
    telemetry::gauges(&view);
    telemetry::downstream_request("finesse-1", "2xx", 0.01);
    telemetry::consumer_proof("agents", "listed");
    telemetry::descriptors(Some(60), 200);
    telemetry::callbacks("broker-1:5672", telemetry::CallbackGauges::default());
    telemetry::callback("posted");
    telemetry::callback_failed();
    let network = json!({"brokers": [{"broker": "broker-1:5672", "linksPlanned": 8}]});
    telemetry::network(&serde_json::from_value(network).unwrap());
    let text = telemetry.render();
    let mut all: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        for (sample, behind) in samples(line) {
            let metric = metric_of(sample).unwrap_or_else(|| panic!("{sample} is served"));
            let names = matchers(behind).into_iter().map(|(name, _)| name);
            all.entry(metric)
                .or_default()
                .extend(names.map(str::to_owned));
        }
    }
    all
}

/// Everything wrong with one expression and the templates beside it.
fn wrong(expr: &str, templates: &str) -> Vec<String> {
    let real = real_labels();
    let mut wrong = Vec::new();
    let mut known: BTreeSet<String> = TARGET_LABELS.map(str::to_owned).into();
    for (sample, behind) in samples(expr) {
        let Some(metric) = metric_of(sample) else {
            wrong.push(format!("{sample} is no metric"));
            continue;
        };
        let labels = real.get(metric).cloned().unwrap_or_default();
        for (label, value) in matchers(behind) {
            if !labels.contains(label) && !TARGET_LABELS.contains(&label) {
                wrong.push(format!("{metric} has no label {label}"));
            }
            let is_role = |word| Role::ALL.iter().any(|role| role.as_str() == word);
            if label == "role" && !value.split('|').all(is_role) {
                wrong.push(format!("{value} is no role"));
            }
        }
        known.extend(labels);
    }
    for label in groupings(expr).into_iter().chain(placeholders(templates)) {
        if !known.contains(label) {
            wrong.push(format!("nothing has the label {label}"));
        }
    }
    wrong
}

/// The value of `key:` in lines of YAML: on its line, or the deeper block behind it.
fn yaml_value(lines: &[&str], key: &str) -> Option<String> {
    let at = lines
        .iter()
        .position(|line| line.trim_start().starts_with(&format!("{key}:")))?;
    let depth = |line: &str| line.len() - line.trim_start().len();
    let (_, first) = lines[at].split_once(':')?;
    if !first.trim().is_empty() && !first.trim().starts_with('|') {
        return Some(first.trim().to_owned());
    }
    let block = lines[at + 1..]
        .iter()
        .take_while(|line| depth(line) > depth(lines[at]));
    Some(block.map(|line| line.trim()).collect::<Vec<_>>().join(" "))
}

/// Name and lines of each alert.
fn alerts() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut alerts: Vec<(&str, Vec<&str>)> = Vec::new();
    let no_comment = |line: &&str| !line.trim_start().starts_with('#');
    for line in ALERTS.lines().filter(no_comment) {
        if let Some((_, name)) = line.split_once("- alert: ") {
            alerts.push((name.trim(), Vec::new()));
        } else if let Some((_, lines)) = alerts.last_mut() {
            lines.push(line);
        }
    }
    alerts
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row").collect()
}

#[test]
fn every_panel_asks_for_what_is_there() {
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{title} asks for nothing");
            for target in targets {
                let expr = target["expr"].as_str().unwrap();
                if OTHERS.iter().any(|other| expr.contains(other)) {
                    continue;
                }
                assert!(!samples(expr).is_empty(), "{title}: {expr}");
                let found = wrong(expr, target["legendFormat"].as_str().unwrap());
                assert!(found.is_empty(), "{title}: {found:?} in {expr}");
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let query = variable["query"]["query"].as_str().unwrap_or_default();
            assert_eq!(wrong(query, ""), [""; 0], "{query}");
        }
    }
}

fn dashboards() -> Vec<Value> {
    let all = DASHBOARDS.iter();
    all.map(|text| serde_json::from_str(text).unwrap())
        .collect()
}

/// A raw counter only rises: nobody sees in it what happens now.
#[test]
fn counters_are_shown_as_rates_and_each_panel_has_one_unit() {
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            let mut seconds = BTreeSet::new();
            for target in panel["targets"].as_array().unwrap() {
                let expr = target["expr"].as_str().unwrap();
                let rated = expr.contains("rate(") || expr.contains("increase(");
                assert!(rated || !expr.contains("_total"), "{title}: {expr}");
                seconds.insert(expr.contains("_seconds") && !expr.contains("cpu_seconds"));
            }
            assert_eq!(seconds.len(), 1, "{title}: two units");
        }
        let annotations = dashboard["annotations"]["list"].as_array().unwrap();
        assert_eq!(annotations.len(), 2);
        for annotation in annotations {
            let templates = format!("{} {}", annotation["titleFormat"], annotation["textFormat"]);
            let found = wrong(annotation["expr"].as_str().unwrap(), &templates);
            assert!(found.is_empty(), "{found:?}");
        }
        assert_eq!(dashboard["links"][0]["tags"][0], "tandem");
    }
}

#[test]
fn ids_of_panels_and_dashboards_are_unique() {
    let mut uids = BTreeSet::new();
    for dashboard in dashboards() {
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()));
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len());
    }
}

/// The tool itself reads the rules and runs their tests. Without it this says so.
#[test]
fn promtool_finds_nothing_wrong() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards");
    for args in [
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts.test.yaml"],
    ] {
        let run = std::process::Command::new("promtool")
            .args(args)
            .current_dir(folder)
            .output();
        let Ok(output) = run else {
            eprintln!("NOT RUN: no promtool here; `scripts/setup --all` installs it");
            return;
        };
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&said)
        );
    }
}

#[test]
fn every_alert_asks_for_what_is_there() {
    let alerts = alerts();
    assert!(alerts.len() > 10, "{alerts:?}");
    for (name, lines) in &alerts {
        let expr = yaml_value(lines, "expr").unwrap_or_default();
        let is_up = expr.starts_with("up{");
        assert!(is_up || !samples(&expr).is_empty(), "{name}: {expr}");
        let annotations = yaml_value(lines, "annotations").unwrap_or_default();
        assert!(annotations.contains("summary: "), "{name}: {annotations}");
        assert!(annotations.contains("action: "), "{name}: {annotations}");
        let severity = yaml_value(lines, "labels").unwrap_or_default();
        let severities = ["{ severity: critical }", "{ severity: warning }"];
        assert!(severities.contains(&severity.as_str()), "{name}");
        // What an operator is sent to look at counts too.
        let found = [
            wrong(&expr, &annotations),
            samples(&annotations)
                .into_iter()
                .filter(|(name, _)| METRICS.iter().all(|metric| metric.name != *name))
                .map(|(name, _)| format!("{name} is no metric"))
                .collect(),
        ]
        .concat();
        assert!(found.is_empty(), "{name}: {found:?} in {expr}");
    }
    let names: BTreeSet<_> = alerts.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), alerts.len(), "two alerts of one name");
}

/// Each metric has its row in the handbook, with its labels and the alerts that ask for it.
#[test]
fn the_handbook_has_every_metric_as_it_is() {
    let real = real_labels();
    let rows: Vec<Vec<&str>> = PAGE
        .lines()
        .filter(|line| line.starts_with("| `tandem_"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    for metric in METRICS {
        let name = format!("`{}`", metric.name);
        let row = rows.iter().find(|row| row[0] == name);
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let wanted = format!(
            "docs/metrics.md lacks: | {name} | {kind} | | {} | |",
            metric.help
        );
        let row = row.unwrap_or_else(|| panic!("{wanted}"));
        assert_eq!((row[1], row[3]), (kind, metric.help), "{wanted}");
        for label in real.get(metric.name).into_iter().flatten() {
            let own = TARGET_LABELS.contains(&label.as_str()) || label == "le";
            assert!(
                own || row[2].contains(&format!("`{label}`")),
                "{name}: {label}"
            );
        }
        for (alert, lines) in alerts() {
            let expr = yaml_value(&lines, "expr").unwrap_or_default();
            let asks = samples(&expr)
                .into_iter()
                .any(|(sample, _)| metric_of(sample) == Some(metric.name));
            let link = format!("[{alert}](troubleshooting.md#{})", alert.to_lowercase());
            assert_eq!(row[4].contains(&link), asks, "{name}: {alert}");
        }
    }
    assert_eq!(
        rows.len(),
        METRICS.len(),
        "rows of metrics that do not exist"
    );
}

#[test]
fn mistakes_are_found() {
    for (expr, legend, what) in [
        ("tandem_commands", "", "tandem_commands is no metric"),
        (
            "rate(tandem_commands_total_bucket[5m])",
            "",
            "tandem_commands_total_bucket is no metric",
        ),
        (
            "tandem_command_duration_seconds",
            "",
            "tandem_command_duration_seconds is no metric",
        ),
        (
            "tandem_peer_up{broker=\"a\"}",
            "",
            "tandem_peer_up has no label broker",
        ),
        (
            "tandem_role{role=~\"leader|boss\"}",
            "",
            "leader|boss is no role",
        ),
        (
            "sum by (instance, queue) (tandem_sessions)",
            "",
            "nothing has the label queue",
        ),
        (
            "tandem_sessions",
            "{{instance}} {{owner}}",
            "nothing has the label owner",
        ),
    ] {
        assert_eq!(wrong(expr, legend), [what], "{expr}");
    }
    let good = "histogram_quantile(0.9, sum by (le, command) \
                (rate(tandem_command_duration_seconds_bucket{command=\"Login\"}[1m])))";
    assert_eq!(wrong(good, "{{command}}"), [""; 0]);
}
