//! `tandem drain`: takes an instance out of service without losing anything.

use std::process::ExitCode;

use super::client::{Admin, ClientError, Target};
use super::{block_on, exit, output};

/// Arguments of `tandem drain`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
The instance stays up; `tandem status` shows when nothing is in work any more.
Exit codes: 0 draining; 1 refused; 64 usage; 69 the instance cannot be reached")]
pub struct Args {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
}

/// Starts the drain and prints the new state.
pub fn run(args: Args, json: bool) -> ExitCode {
    block_on(async move {
        match post(&args.target).await {
            Ok(answer) if json => {
                output::print(&format!("{answer:#}\n"));
                exit::DONE
            }
            Ok(answer) => {
                let state = answer["state"].as_str().unwrap_or("draining");
                output::print(&format!("{state}\n"));
                exit::DONE
            }
            Err(error) => error.report(),
        }
    })
}

async fn post(target: &Target) -> Result<serde_json::Value, ClientError> {
    Admin::new(target)?.post(&["drain"]).await
}
