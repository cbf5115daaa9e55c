//! `tandem drain`: takes an instance out of service without losing anything.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Admin, ClientError, Target, Why};
use super::{block_on, exit, output};
use crate::engine::View;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `tandem drain`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
The instance finishes what it has started, hands its agents over, stops consuming and stays up.
`tandem group start` or a restart brings it back.
Exit codes: 0 drained, or begun with --no-wait; 1 refused, or not drained within --limit; 64 usage;
69 the instance cannot be reached")]
pub struct Args {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// Why.
    #[command(flatten)]
    pub why: Why,
    /// Return at once; `tandem status` shows when it is drained
    #[arg(long)]
    pub no_wait: bool,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub limit: u64,
}

/// Starts the drain, waits for its end and prints the state.
pub fn run(args: Args, json: bool) -> ExitCode {
    block_on(async move {
        match drain(&args).await {
            Ok((answer, done)) => {
                let state = answer["state"].as_str().unwrap_or("draining");
                output::print(&match json {
                    true => format!("{answer:#}\n"),
                    false => format!("{state}\n"),
                });
                if done { exit::DONE } else { exit::FAILED }
            }
            Err(error) => error.report(),
        }
    })
}

async fn drain(args: &Args) -> Result<(Value, bool), ClientError> {
    let admin = Admin::new(&args.target)?.because(&args.why);
    let mut answer = admin.post(&["drain"]).await?;
    if args.no_wait {
        return Ok((answer, true));
    }
    let waited = tokio::time::timeout(Duration::from_secs(args.limit), async {
        let mut seen = false;
        loop {
            let view: View = admin.status().await?;
            match view.drain.as_deref() {
                Some("drained") => return Ok::<_, ClientError>(true),
                Some(_) => seen = true,
                // The picture is a moment old; later it means that a group was started again.
                None if seen => return Ok(false),
                None => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    let done = match waited.await {
        Ok(seen) => seen?,
        Err(_) => false,
    };
    if done {
        answer["state"] = json!("drained");
    }
    Ok((answer, done))
}
