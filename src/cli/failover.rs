//! `tandem failover stop|start|auto`: who leads a group, whatever the priorities.

use std::process::ExitCode;

use super::group::Which;

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
    /// End an operator's choice, whichever it was: priority decides again, and failover is on
    Auto(Which),
}

/// Gives the verb and prints the group's new state.
pub fn run(args: Args, json: bool) -> ExitCode {
    let (verb, which) = match args.action {
        Action::Stop(which) => ("stop", which),
        Action::Start(which) => ("start", which),
        Action::Auto(which) => ("auto", which),
    };
    which.give("failover", verb, json)
}
