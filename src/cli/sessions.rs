//! `tandem sessions`: who owns which agent.

use std::process::ExitCode;

use serde_json::Value;

use super::client::{Admin, ClientError, Target};
use super::output::Look;
use super::table::{plain, render};
use super::{block_on, exit, output, watch};
use crate::engine::View;
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
    /// Only with this text in agent, extension or destination
    #[arg(long, value_name = "TEXT")]
    pub find: Option<String>,
    /// Only those of this owner
    #[arg(long, value_name = "INSTANCE")]
    pub owner: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub limit: Option<u64>,
    /// Refresh each second until ctrl-c; with --json one line a second
    #[arg(long)]
    pub watch: bool,
}

/// Lists the agent sessions that the instance knows, by agent.
pub fn run(args: Args, json: bool) -> ExitCode {
    block_on(async move {
        let admin = match Admin::new(&args.target) {
            Ok(admin) => admin,
            Err(error) => return error.report(),
        };
        if args.watch {
            return watch::each_second(json, async || shown(&admin, &args, json).await).await;
        }
        match shown(&admin, &args, json).await {
            Ok(text) => {
                output::print(&text);
                exit::DONE
            }
            Err(error) => error.report(),
        }
    })
}

async fn shown(admin: &Admin, args: &Args, json: bool) -> Result<String, ClientError> {
    let limit = args.limit.map(|limit| limit.to_string());
    let query = [
        ("q", args.find.as_deref()),
        ("owner", args.owner.as_deref()),
        ("limit", limit.as_deref()),
    ];
    let given = query
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    let query: Vec<(&str, &str)> = given.collect();
    let raw: Value = admin.get_with(&["sessions"], &query).await?;
    if let Some(owner) = args.owner.as_deref()
        && raw.as_array().is_some_and(Vec::is_empty)
    {
        known(&admin.status().await?, owner)?;
    }
    if json {
        return Ok(format!("{raw:#}\n"));
    }
    let sessions: Vec<SessionView> = serde_json::from_value(raw).map_err(|error| {
        ClientError::Refused(format!("the list of sessions is not understood: {error}"))
    })?;
    let text = text(&sessions, output::look());
    Ok(match output::look().height.filter(|_| args.watch) {
        Some(height) => top(&text, height),
        None => text,
    })
}

/// Whether there is such an instance: nobody's sessions are none, and that is said otherwise.
fn known(view: &View, owner: &str) -> Result<(), ClientError> {
    let peers = view.peers.iter().map(|peer| peer.instance.as_str());
    let all: Vec<&str> = std::iter::once(view.instance.as_str())
        .chain(peers)
        .collect();
    match all.contains(&owner) {
        true => Ok(()),
        false => Err(ClientError::Refused(format!(
            "--owner: there is no instance {owner}; known: {}",
            all.join(", ")
        ))),
    }
}

/// As much of it as can be seen at once.
fn top(text: &str, height: usize) -> String {
    let lines = text.lines().count();
    // The last lines are for the note and the cursor.
    let room = height.saturating_sub(2).max(2);
    if lines <= room {
        return text.to_owned();
    }
    let seen: String = text.split_inclusive('\n').take(room - 1).collect();
    format!("{seen}… and {} more (--find, --owner)\n", lines + 1 - room)
}

fn text(sessions: &[SessionView], look: Look) -> String {
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
    render(&heads, &rows, look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_there_is_not_is_said_with_those_that_there_are() {
        let view = crate::testing::view();
        assert!(known(&view, "gc-2").is_ok());
        let said = known(&view, "gc-9").unwrap_err();
        assert_eq!(said.code(), exit::FAILED);
        assert!(said.to_string().ends_with("known: gc-1, gc-2"), "{said}");
    }

    #[test]
    fn one_line_an_agent() {
        assert_eq!(text(&[], Look::PAGE), "no agent sessions\n");
        let session = SessionView {
            agent: "1001".to_owned(),
            owner: "gc-2".to_owned(),
            epoch: 4,
            destination: "desk-1".to_owned(),
            extension: None,
            state: "NOT_READY".to_owned(),
            subscribed: false,
        };
        let text = text(&[session], Look::PAGE);
        assert_eq!(text.lines().count(), 2);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["1001", "gc-2", "NOT_READY", "-", "desk-1", "4"]);
    }

    #[test]
    fn a_screen_shows_its_part_and_says_how_much_is_left() {
        let text: String = (0..50).map(|n| format!("line {n}\n")).collect();
        let seen = top(&text, 24);
        assert_eq!(seen.lines().count(), 22);
        assert!(
            seen.ends_with("line 20\n… and 29 more (--find, --owner)\n"),
            "{seen}"
        );
        assert_eq!(top(&text, 60), text);
    }
}
