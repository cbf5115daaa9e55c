//! `tandem group stop|start`: one group of command queues on one instance.

use std::process::ExitCode;

use super::client::{Admin, ClientError, Target, Why};
use super::{block_on, exit, output};

/// Arguments of `tandem group`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Exit codes: 0 done; 1 refused, with the reason; 64 usage; 69 the instance cannot be reached")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What `tandem group` does.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Action {
    /// Stop the group on this instance; where it leads, it hands over to the follower. It stays
    /// stopped until it is started again, also over a restart
    Stop(Which),
    /// Start it again
    Start(Which),
}

/// Which group of which instance.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// Name of the group
    #[arg(value_name = "NAME")]
    pub group: String,
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// Why.
    #[command(flatten)]
    pub why: Why,
}

/// Stops or starts the group and prints its new role.
pub fn run(args: Args, json: bool) -> ExitCode {
    let (verb, which) = match args.action {
        Action::Stop(which) => ("stop", which),
        Action::Start(which) => ("start", which),
    };
    which.give("groups", verb, json)
}

impl Which {
    /// The name, where it can stand in a path.
    fn checked(&self) -> Result<&str, ClientError> {
        if self.group.is_empty() || [".", ".."].contains(&self.group.as_str()) {
            return Err(ClientError::Usage("NAME: not a group's name".to_owned()));
        }
        Ok(&self.group)
    }

    /// Posts `<kind>/<group>/<verb>` and prints the group's new state.
    pub(super) fn give(self, kind: &str, verb: &str, json: bool) -> ExitCode {
        block_on(async move {
            match self.post(kind, verb).await {
                Ok(answer) if json => {
                    output::print(&format!("{answer:#}\n"));
                    exit::DONE
                }
                Ok(answer) => {
                    let state = answer["state"].as_str().unwrap_or("changed");
                    output::print(&format!("{}: {state}\n", self.group));
                    exit::DONE
                }
                Err(error) => error.report(),
            }
        })
    }

    async fn post(&self, kind: &str, verb: &str) -> Result<serde_json::Value, ClientError> {
        Admin::new(&self.target)?
            .because(&self.why)
            .post(&[kind, self.checked()?, verb])
            .await
    }
}
