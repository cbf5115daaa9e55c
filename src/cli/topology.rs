//! `tandem topology print|apply`: the broker objects that a configuration needs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::exit;
use crate::broker::management::ManagementError;
use crate::broker::topology::{self, ApplyReport, Topology, TopologyError, TopologyInput};
use crate::settings;

/// How long `--wait` waits for the federation links.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Arguments of `tandem topology`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What `tandem topology` does.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Action {
    /// Print the queues, exchanges, bindings, policies and federation upstreams that are needed
    Print {
        /// Property file of one site
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Set them on every broker of the list through the management API
    Apply {
        /// Property file of one site
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Wait, at most one minute, until all federation links run
        #[arg(long)]
        wait: bool,
    },
}

impl Action {
    /// The property file.
    pub fn config(&self) -> &PathBuf {
        match self {
            Self::Print { config, .. } | Self::Apply { config, .. } => config,
        }
    }
}

/// Reads the configuration and does what is asked. Exit 64 where it cannot be used, with all
/// that is wrong on stderr; 69 where a broker cannot be reached.
pub fn run(args: Args, json: bool) -> ExitCode {
    match settings::load_from_process(args.action.config()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                complain!("{warning}");
            }
            execute(
                &args.action,
                &topology::topology_input(&loaded.settings),
                json,
            )
        }
        Err(findings) => {
            for finding in &findings.0 {
                complain!("{finding}");
            }
            ExitCode::from(exit::USAGE)
        }
    }
}

/// Does what is asked for a configuration that is already understood.
pub fn execute(action: &Action, input: &TopologyInput, json: bool) -> ExitCode {
    let plan = Topology::of(input);
    match *action {
        Action::Print { .. } if json => {
            super::output::print(&format!("{:#}\n", plan.to_json()));
            ExitCode::SUCCESS
        }
        Action::Print { .. } => {
            super::output::print(&plan.to_text());
            ExitCode::SUCCESS
        }
        Action::Apply { wait, .. } => apply(&plan, json, wait),
    }
}

fn apply(plan: &Topology, json: bool, wait: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("tandem topology: cannot start: {error}");
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let report = runtime.block_on(topology::apply(plan, wait.then_some(WAIT_LIMIT)));
    if json {
        super::output::print(&format!("{:#}\n", report_json(&report)));
    } else {
        super::output::print(&report_text(&report));
    }
    for error in &report.errors {
        complain!("tandem topology: {error}");
    }
    ExitCode::from(exit_code(&report))
}

fn exit_code(report: &ApplyReport) -> u8 {
    let unreachable = |e: &TopologyError| matches!(e.source, ManagementError::Unreachable { .. });
    if report.errors.iter().any(unreachable) {
        exit::UNREACHABLE
    } else if report.is_complete() {
        exit::DONE
    } else {
        exit::FAILED
    }
}

fn report_text(report: &ApplyReport) -> String {
    let mut lines: Vec<String> = report
        .steps
        .iter()
        .map(|s| match s.kind {
            "broker" => format!("{}: {}", s.broker, s.change),
            kind => format!("{}: {kind} {}: {}", s.broker, s.name, s.change),
        })
        .collect();
    for link in &report.links {
        let why = link.error.as_deref().unwrap_or_default();
        lines.push(format!(
            "{}: link {} from {}: {} {why}",
            link.broker, link.object, link.upstream, link.status
        ));
        if let Some(words) = topology::explain(why) {
            lines.push(format!("    that is: {}; {}", words.problem, words.cure));
        }
    }
    lines.push(if report.is_complete() {
        if report.changed() {
            "done"
        } else {
            "nothing to do"
        }
        .to_owned()
    } else {
        "NOT complete: see conflicts, unreachable brokers and links that do not run".to_owned()
    });
    lines
        .iter()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn report_json(report: &ApplyReport) -> serde_json::Value {
    let steps: Vec<_> = report
        .steps
        .iter()
        .map(|s| {
            json!({"broker": s.broker, "kind": s.kind, "name": s.name,
                   "change": s.change.to_string()})
        })
        .collect();
    let links: Vec<_> = report
        .links
        .iter()
        .map(|l| {
            json!({"broker": l.broker, "object": l.object, "upstream": l.upstream,
                   "status": l.status, "error": l.error})
        })
        .collect();
    let errors: Vec<_> = report
        .errors
        .iter()
        .map(|e| json!({"broker": e.broker, "error": e.source.to_string()}))
        .collect();
    json!({
        "errors": errors,
        "complete": report.is_complete(),
        "changed": report.changed(),
        "steps": steps,
        "links": links,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::broker::topology::TopologyBroker;

    /// One broker that nobody serves.
    fn input() -> TopologyInput {
        TopologyInput {
            cluster_name: "tandem".to_owned(),
            queue_type: Default::default(),
            command_queues: vec!["Connector1".to_owned()],
            hash: None,
            command_max_age: Duration::from_secs(30),
            brokers: vec![TopologyBroker {
                label: "gone".to_owned(),
                amqp_uri: "amqp://127.0.0.1:1".to_owned(),
                management_url: "http://127.0.0.1:1".to_owned(),
                user: "guest".to_owned(),
                password: "guest".to_owned(),
                tls: Default::default(),
            }],
            federation_uris: BTreeMap::new(),
            federation_tls: Default::default(),
        }
    }

    #[tokio::test]
    async fn a_broker_that_is_not_there_is_69_and_named() {
        let report = topology::apply(&Topology::of(&input()), None).await;
        assert_eq!(exit_code(&report), 69);
        assert_eq!(report.errors[0].broker, "gone");
        assert!(report_text(&report).contains("NOT complete"));
        assert_eq!(report_json(&report)["complete"], false);
    }

    #[test]
    fn a_conflict_is_1_and_nothing_to_do_is_0() {
        let mut report = ApplyReport {
            steps: vec![topology::Step {
                broker: "a".to_owned(),
                kind: "queue",
                name: "q".to_owned(),
                change: topology::Change::Unchanged,
            }],
            errors: Vec::new(),
            links: Vec::new(),
        };
        assert_eq!(exit_code(&report), 0);
        assert!(report_text(&report).ends_with("nothing to do\n"));
        report.steps[0].change = topology::Change::Conflict("type".to_owned());
        assert_eq!(exit_code(&report), 1);
    }
}
