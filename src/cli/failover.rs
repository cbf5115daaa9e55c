//! `tandem failover stop|start`: who leads a group, whatever the priorities.

use std::process::ExitCode;

use super::client::{Admin, ClientError, Target};
use super::group::Which;
use super::{block_on, exit, output};

/// Arguments of `tandem failover`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
The choice survives restarts and holds until the next failover, switchover, group stop or drain
of the instance that leads by it, or until that instance is lost.
Exit codes: 0 done; 1 refused, with the reason; 64 usage; 69 the instance cannot be reached")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What `tandem failover` does.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Action {
    /// Stop the group on this instance and switch its failover off: nobody takes its agents over;
    /// the others receive all commands, and an agent once its client connects again
    Stop(Which),
    /// Make this instance the leader, whatever the priorities; the others follow
    Start(Which),
}

/// Gives the verb and prints the group's new state.
pub fn run(args: Args, json: bool) -> ExitCode {
    let (verb, which) = match args.action {
        Action::Stop(which) => ("stop", which),
        Action::Start(which) => ("start", which),
    };
    block_on(async move {
        match post(&which, verb).await {
            Ok(answer) => {
                let state = answer["state"].as_str().unwrap_or("changed");
                output::print(&match json {
                    true => format!("{answer:#}\n"),
                    false => format!("{}: {state}\n", which.group),
                });
                exit::DONE
            }
            Err(error) => error.report(),
        }
    })
}

async fn post(which: &Which, verb: &str) -> Result<serde_json::Value, ClientError> {
    let target: &Target = &which.target;
    Admin::new(target)?
        .post(&["failover", which.checked()?, verb])
        .await
}
