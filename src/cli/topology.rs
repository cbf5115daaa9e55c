//! `tandem topology print|apply`: the broker objects that a configuration needs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::broker::management::ManagementError;
use crate::broker::topology::{self, ApplyReport, Topology, TopologyError, TopologyInput};

/// How long `--wait` waits for the federation links.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Exit codes of the contract, section 2.
const EXIT_FAILED: u8 = 1;
const EXIT_UNREACHABLE: u8 = 69;
const EXIT_INTERNAL: u8 = 70;

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
    /// Print the queues, exchanges, policies and federation upstreams that are needed
    Print {
        /// Property file of one site
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Set them on every broker of the list through the management API
    Apply {
        /// Property file of one site
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
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

/// Does what is asked for a configuration that is already understood.
pub fn execute(action: &Action, input: &TopologyInput) -> ExitCode {
    let plan = Topology::of(input);
    match *action {
        Action::Print { json: true, .. } => {
            println!("{:#}", plan.to_json());
            ExitCode::SUCCESS
        }
        Action::Print { json: false, .. } => {
            print!("{}", plan.to_text());
            ExitCode::SUCCESS
        }
        Action::Apply { json, wait, .. } => apply(&plan, json, wait),
    }
}

fn apply(plan: &Topology, json: bool, wait: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tandem topology: cannot start: {error}");
            return ExitCode::from(EXIT_INTERNAL);
        }
    };
    let result = runtime.block_on(topology::apply(plan, wait.then_some(WAIT_LIMIT)));
    match result {
        Ok(report) => {
            if json {
                println!("{:#}", report_json(&report));
            } else {
                print!("{}", report_text(&report));
            }
            if report.is_complete() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(EXIT_FAILED)
            }
        }
        Err(error) => {
            eprintln!("tandem topology: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &TopologyError) -> u8 {
    match error.source {
        ManagementError::Unreachable { .. } => EXIT_UNREACHABLE,
        ManagementError::Client(_) => EXIT_INTERNAL,
        _ => EXIT_FAILED,
    }
}

fn report_text(report: &ApplyReport) -> String {
    let mut lines: Vec<String> = report
        .steps
        .iter()
        .map(|s| format!("{}: {} {}: {}", s.broker, s.kind, s.name, s.change))
        .collect();
    for link in &report.links {
        let why = link.error.as_deref().unwrap_or_default();
        lines.push(format!(
            "{}: link {} from {}: {} {why}",
            link.broker, link.object, link.upstream, link.status
        ));
    }
    lines.push(if report.is_complete() {
        if report.changed() {
            "done"
        } else {
            "nothing to do"
        }
        .to_owned()
    } else {
        "NOT complete: see CONFLICT and links that do not run".to_owned()
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
    json!({
        "complete": report.is_complete(),
        "changed": report.changed(),
        "steps": steps,
        "links": links,
    })
}
