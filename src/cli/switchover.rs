//! `tandem switchover --to INSTANCE`: a planned handover, without losing anything.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Admin, ClientError, Target, Why};
use super::{block_on, exit, output};
use crate::engine::View;

/// How long `--wait` waits at most.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `tandem switchover`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
May be asked of any instance of the pair. The new leader stays leader whatever the priorities,
until the next verb or until it is lost. Only in active-passive: in active-active all lead.
Exit codes: 0 done, or begun without --wait; 1 refused, or not within the time; 64 usage;
69 the instance cannot be reached")]
pub struct Args {
    /// Instance that is to lead every group
    #[arg(long, value_name = "INSTANCE")]
    pub to: String,
    /// Wait until it leads, at most a minute
    #[arg(long)]
    pub wait: bool,
    /// Which instance to ask.
    #[command(flatten)]
    pub target: Target,
    /// Why.
    #[command(flatten)]
    pub why: Why,
}

/// Gives the verb; with `--wait` follows it to its end.
pub fn run(args: Args, json: bool) -> ExitCode {
    block_on(async move {
        match switch(&args).await {
            Ok((answer, done)) => {
                let state = answer["state"].as_str().unwrap_or("begun");
                output::print(&match json {
                    true => format!("{answer:#}\n"),
                    false => format!("{}: {state}\n", args.to),
                });
                if done { exit::DONE } else { exit::FAILED }
            }
            Err(error) => error.report(),
        }
    })
}

async fn switch(args: &Args) -> Result<(Value, bool), ClientError> {
    let admin = Admin::new(&args.target)?.because(&args.why);
    let mut answer = admin
        .post_json(&["switchover"], &json!({ "to": args.to }))
        .await?;
    if !args.wait {
        return Ok((answer, true));
    }
    let waited = tokio::time::timeout(LIMIT, async {
        loop {
            let view: View = admin.status().await?;
            if leads(&view, &args.to) {
                return Ok::<(), ClientError>(());
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    let done = match waited.await {
        Ok(seen) => seen.map(|()| true)?,
        Err(_) => false,
    };
    answer["state"] = json!(if done {
        "leader"
    } else {
        "not within a minute"
    });
    Ok((answer, done))
}

/// Whether an instance leads all groups that this picture shows, and nobody else any.
fn leads(view: &View, to: &str) -> bool {
    view.groups
        .iter()
        .all(|group| group.leader.as_deref() == Some(to))
}
