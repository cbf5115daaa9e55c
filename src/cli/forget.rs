//! `tandem forget INSTANCE`: a member that is gone for good.

use std::process::ExitCode;

use super::client::{Admin, ClientError, Target, Why};
use super::{block_on, exit, output};

/// Arguments of `tandem forget`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
A lost instance may be alive and alone, so for seven days a non-idempotent command that may have
been seen before is IN_DOUBT. Say that it is dead, to each instance that remains, at the earliest
ten minutes after it was lost. Be sure: what it had called unheard would be called again.
Exit codes: 0 done; 1 refused, with the reason; 64 usage; 69 the instance cannot be reached")]
pub struct Args {
    /// Instance that will not come back
    #[arg(value_name = "INSTANCE")]
    pub name: String,
    /// Which instance to tell.
    #[command(flatten)]
    pub target: Target,
    /// Why.
    #[command(flatten)]
    pub why: Why,
}

/// Gives the verb and prints what became of it.
pub fn run(args: Args, json: bool) -> ExitCode {
    block_on(async move {
        match forget(&args).await {
            Ok(answer) => {
                let state = answer["state"].as_str().unwrap_or("done");
                output::print(&match json {
                    true => format!("{answer:#}\n"),
                    false => format!("{}: {state}\n", args.name),
                });
                exit::DONE
            }
            Err(error) => error.report(),
        }
    })
}

async fn forget(args: &Args) -> Result<serde_json::Value, ClientError> {
    if crate::model::InstanceId::new(&args.name).is_err() {
        return Err(ClientError::Usage(
            "INSTANCE: not an instance's id".to_owned(),
        ));
    }
    Admin::new(&args.target)?
        .because(&args.why)
        .post(&["members", &args.name, "forget"])
        .await
}
