//! `tandem journal`: what a stopped instance's journal holds.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{exit, output};
use crate::engine::journal::Restored;
use crate::engine::peer::{IntentRecord, OutcomeRecord};
use crate::journal::{self, JournalError};
use crate::settings;

/// Arguments of `tandem journal`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The instance must be stopped: a running one keeps its journal to itself.
Exit codes: 0 done; 1 damaged, missing or in use; 64 usage or configuration")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print what it holds: calls that may have been made, and how others ended
    Show(Place),
    /// Check every page of the file
    Check(Place),
}

/// Where the journal is.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Place {
    /// Property file of the instance
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Its data folder (data.dir)
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

/// Runs it.
#[must_use]
pub fn run(args: &Args, json: bool) -> ExitCode {
    let (Verb::Show(place) | Verb::Check(place)) = &args.verb;
    let dir = match folder(place) {
        Ok(dir) => dir,
        Err(words) => {
            complain!("{words}");
            return ExitCode::from(exit::USAGE);
        }
    };
    let done = match &args.verb {
        Verb::Show(_) => show(&dir, json),
        Verb::Check(_) => check(&dir, json),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain!("tandem: {error}");
            ExitCode::from(exit::FAILED)
        }
    }
}

fn folder(place: &Place) -> Result<PathBuf, String> {
    match (&place.dir, &place.config) {
        (Some(dir), _) => Ok(dir.clone()),
        (None, Some(file)) => settings::load_from_process(file)
            .map(|loaded| loaded.settings.data_dir)
            .map_err(|findings| findings.to_string()),
        (None, None) => Err("--config or --dir is needed".to_owned()),
    }
}

fn check(dir: &Path, json: bool) -> Result<u8, JournalError> {
    let found = journal::check(dir)?;
    let text = if json {
        let value = json!({
            "open": found.open,
            "finished": found.finished,
            "members": found.members,
            "mended": found.mended,
        });
        format!("{value:#}\n")
    } else {
        let state = if found.mended {
            "was damaged and is mended: what was answered as written is there"
        } else {
            "whole"
        };
        format!(
            "{state}\n{} calls that may have been made, {} outcomes, {} other members\n",
            found.open, found.finished, found.members
        )
    };
    output::print(&text);
    Ok(exit::DONE)
}

fn show(dir: &Path, json: bool) -> Result<u8, JournalError> {
    let kept = journal::read(dir)?;
    if json {
        output::print(&format!("{:#}\n", as_json(&kept)));
        return Ok(exit::DONE);
    }
    let mut text = String::from(
        "UNTIL                     AGENT       COMMAND             BY         OUTCOME\n",
    );
    for (intent, outcome) in rows(&kept) {
        let until = until(intent, outcome);
        let agent = intent.map_or_else(
            || outcome.map_or("", |o| o.reply.id.as_str()),
            |i| i.agent.as_str(),
        );
        let command = intent.map_or_else(
            || outcome.map_or("", |o| o.reply.command.as_str()),
            |i| i.command.as_str(),
        );
        let by = intent.map_or_else(
            || outcome.map_or("", |o| o.reply.instance.as_str()),
            |i| i.by.as_str(),
        );
        let ended = outcome.map_or("may have been made", |o| o.reply.outcome.as_str());
        let until = output::iso(until);
        text += &format!("{until:<25} {agent:<11} {command:<19} {by:<10} {ended}\n");
    }
    for (member, heard) in &kept.members {
        text += &format!("member {member}, heard {}\n", output::iso(*heard));
    }
    output::print(&text);
    Ok(exit::DONE)
}

/// Intents with their outcomes, then outcomes of commands whose intent is not here.
fn rows(kept: &Restored) -> Vec<(Option<&IntentRecord>, Option<&OutcomeRecord>)> {
    let mut outcomes: std::collections::BTreeMap<_, _> = kept
        .outcomes
        .iter()
        .map(|outcome| (outcome.key, outcome))
        .collect();
    let mut rows: Vec<_> = (kept.intents.iter())
        .map(|intent| (Some(intent), outcomes.remove(&intent.key)))
        .collect();
    rows.extend(outcomes.into_values().map(|outcome| (None, Some(outcome))));
    rows
}

fn as_json(kept: &Restored) -> Value {
    let entries: Vec<Value> = rows(kept)
        .into_iter()
        .map(|(intent, outcome)| {
            json!({
                "agent": intent.map(|i| i.agent.as_str()),
                "command": intent.map(|i| i.command.as_str()),
                "by": intent.map(|i| i.by.as_str()),
                "madeMs": intent.map(|i| i.at),
                "made": intent.map(|i| output::iso(i.at)),
                "alone": intent.map(|i| i.alone),
                "reply": outcome.map(|o| &o.reply),
                "untilMs": until(intent, outcome),
                "until": output::iso(until(intent, outcome)),
            })
        })
        .collect();
    let members: Vec<Value> = (kept.members.iter())
        .map(|(id, heard)| json!({ "instance": id.as_str(), "heardMs": heard, "heard": output::iso(*heard) }))
        .collect();
    json!({
        "entries": entries, "members": members, "lostUntilMs": kept.lost_until,
        "lostUntil": (kept.lost_until > 0).then(|| output::iso(kept.lost_until)),
    })
}

/// How long it is remembered, milliseconds since the epoch.
fn until(intent: Option<&IntentRecord>, outcome: Option<&OutcomeRecord>) -> u64 {
    let outcome = outcome.map_or(0, |outcome| outcome.until);
    intent.map_or(0, |intent| intent.until).max(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_journal_is_shown_and_a_missing_or_open_one_said() {
        let dir = tempfile::tempdir().unwrap();
        let place = || Place {
            config: None,
            dir: Some(dir.path().to_owned()),
        };
        let runs = |verb| run(&Args { verb }, true);
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        let missing = runs(Verb::Show(place()));
        assert_eq!(format!("{missing:?}"), code(exit::FAILED));
        let open = journal::Journal::open(dir.path(), false, 1, Box::new(|_, _, _| {})).unwrap();
        let in_use = runs(Verb::Check(place()));
        assert_eq!(format!("{in_use:?}"), code(exit::FAILED));
        drop(open);
        for verb in [Verb::Show(place()), Verb::Check(place())] {
            assert_eq!(format!("{:?}", runs(verb)), code(exit::DONE));
        }
        let kept = Restored::default();
        assert_eq!(as_json(&kept)["entries"], json!([]));
        assert_eq!(as_json(&kept)["lostUntil"], Value::Null);
        let member = crate::model::InstanceId::new("gc-2").unwrap();
        let kept = Restored {
            members: std::iter::once((member, 1_700_000_000_000)).collect(),
            lost_until: 1_700_000_000_123,
            ..Restored::default()
        };
        let shown = as_json(&kept);
        assert_eq!(shown["members"][0]["heard"], "2023-11-14T22:13:20.000Z");
        assert_eq!(shown["lostUntil"], "2023-11-14T22:13:20.123Z");
    }
}
