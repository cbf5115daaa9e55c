//! `tandem sessions`: who owns which agent.

use std::process::ExitCode;

use super::client::{Admin, ClientError, Target};
use super::table::{plain, render};
use super::{block_on, exit, output};
use crate::engine::view::SessionView;

/// Arguments of `tandem sessions`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit codes: 0 shown; 1 refused; 64 usage; 69 the instance cannot be reached"
)]
pub struct Args {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
}

/// Lists all agent sessions that the instance knows, by agent.
pub fn run(args: Args, json: bool) -> ExitCode {
    block_on(async move {
        match read(&args.target).await {
            Ok(sessions) => {
                output::print(&if json {
                    format!("{:#}\n", serde_json::json!(sessions))
                } else {
                    text(&sessions, output::colours())
                });
                exit::DONE
            }
            Err(error) => error.report(),
        }
    })
}

async fn read(target: &Target) -> Result<Vec<SessionView>, ClientError> {
    Admin::new(target)?.get(&["sessions"]).await
}

fn text(sessions: &[SessionView], colours: bool) -> String {
    if sessions.is_empty() {
        return "no agent sessions\n".to_owned();
    }
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| {
            vec![
                plain(&session.agent),
                plain(&session.owner),
                plain(if session.subscribed { "yes" } else { "" }),
                plain(&session.state),
                plain(session.extension.as_deref().unwrap_or("-")),
                plain(&session.destination),
                plain(session.epoch),
            ]
        })
        .collect();
    let heads = [
        "agent",
        "owner",
        "subscribed here",
        "state",
        "extension",
        "destination",
        "epoch",
    ];
    render(&heads, &rows, colours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_agent() {
        assert_eq!(text(&[], false), "no agent sessions\n");
        let session = SessionView {
            agent: "1001".to_owned(),
            owner: "gc-2".to_owned(),
            epoch: 4,
            destination: "desk-1".to_owned(),
            extension: None,
            state: "NOT_READY".to_owned(),
            subscribed: false,
        };
        let text = text(&[session], false);
        assert_eq!(text.lines().count(), 2);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["1001", "gc-2", "NOT_READY", "-", "desk-1", "4"]);
    }
}
