//! `tandem trace`: what happened to a command, told by all members.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Admin, ClientError, Target};
use super::output::Look;
use super::table::{plain, render};
use super::{block_on, exit, output};
use crate::engine::peer::TraceRow;

/// Arguments of `tandem trace`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit codes: 0 shown; 1 nothing is known of it; 64 usage; 69 the instance cannot be reached\n\n\
The instance asks all members that it can hear. Each tells what it did with the command in the last\n\
minutes (received, forwarded, intent, call, answer, reply) and what its journal holds. Steps of an\n\
instance that was restarted are gone; its journal is not."
)]
pub struct Args {
    /// `message_id` of the command, its `correlation_id`, or its trace id (W3C, 32 figures)
    #[arg(value_name = "ID")]
    pub id: String,
    /// Which instance is asked first.
    #[command(flatten)]
    pub target: Target,
}

/// The answer of the admin API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Life {
    answered: Vec<String>,
    silent: Vec<String>,
    /// Members that are not there; another version does not say it.
    #[serde(default)]
    not_asked: Vec<String>,
    /// How far back the record of the instance asked reaches.
    #[serde(default)]
    since: Option<String>,
    steps: Vec<TraceRow>,
}

/// Prints the life of a command, step by step.
pub fn run(args: Args, json: bool) -> ExitCode {
    block_on(async move {
        match life(&args).await {
            Ok((raw, life)) => {
                output::print(&if json {
                    format!("{raw:#}\n")
                } else {
                    text(&args.id, &life, output::look())
                });
                match life.steps.is_empty() {
                    true => exit::FAILED,
                    false => exit::DONE,
                }
            }
            Err(error) => error.report(),
        }
    })
}

async fn life(args: &Args) -> Result<(Value, Life), ClientError> {
    let admin = Admin::new(&args.target)?;
    let query = [("id", args.id.as_str())];
    let raw: Value = admin.get_with(&["trace"], &query).await?;
    let life = serde_json::from_value(raw.clone()).map_err(|error| {
        ClientError::Refused(format!("the life of a command is not understood: {error}"))
    })?;
    Ok((raw, life))
}

fn text(id: &str, life: &Life, look: Look) -> String {
    let who = life.answered.join(", ");
    let named = |words: &str, members: &[String]| match members.is_empty() {
        true => String::new(),
        false => format!("; {words} {}", members.join(", ")),
    };
    let silent = named("no answer of", &life.silent) + &named("not asked:", &life.not_asked);
    let mut text = String::new();
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for step in &life.steps {
        let which = (step.command.as_str(), step.addressee.as_str());
        if !shown.contains(&which) {
            let trace = step.trace_id.as_ref().map(|id| format!(", trace {id}"));
            let trace = trace.unwrap_or_default();
            text += &format!("{}#{}{trace}\n", clean(which.0), clean(which.1));
            shown.push(which);
        }
    }
    if life.steps.is_empty() {
        let since = life.since.as_deref().unwrap_or("now");
        return format!(
            "nothing is known of {} (asked: {who}{silent})\nthe record here reaches back to {}; \
             what was before is in the journal at most\n",
            clean(id),
            clean(since)
        );
    }
    let rows: Vec<_> = life
        .steps
        .iter()
        .map(|step| {
            vec![
                plain(step.at.map_or_else(String::new, output::iso)),
                plain(&step.instance),
                plain(&step.stage),
                plain(&step.detail),
            ]
        })
        .collect();
    text += &render(&["time (UTC)", "instance", "step", ""], &rows, look);
    text + &format!("told by {who}{silent}\n")
}

/// What a client wrote must not drive a terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_a_line_a_step_and_says_who_was_silent() {
        let step = |instance: &str, word: &str, detail: &str| TraceRow {
            at: Some(1_700_000_000_123),
            instance: instance.to_owned(),
            command: "MakeCall".to_owned(),
            addressee: "1001".to_owned(),
            command_id: Some("c-1".to_owned()),
            correlation_id: None,
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
            stage: word.to_owned(),
            detail: detail.to_owned(),
        };
        let mut life = Life {
            answered: vec!["gc-2".to_owned()],
            silent: vec!["gc-1".to_owned()],
            not_asked: vec!["gc-3".to_owned()],
            since: Some("2023-11-14T22:10:00.000Z".to_owned()),
            steps: vec![
                step("gc-1", "journal-intent", "gc-1 may make the call"),
                step("gc-2", "received", "broker b:5672\u{1b}[2J"),
            ],
        };
        let text = text("c-1", &life, Look::PAGE);
        for part in [
            "MakeCall#1001, trace 4bf92f3577b34da6a3ce929d0e0e4736\n",
            "2023-11-14T22:13:20.123Z  gc-1      journal-intent  gc-1 may make the call",
            "told by gc-2; no answer of gc-1; not asked: gc-3\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        life.steps.clear();
        let nothing = super::text("c-1", &life, Look::PAGE);
        assert!(nothing.starts_with("nothing is known of c-1"), "{nothing}");
        assert!(
            nothing.contains("back to 2023-11-14T22:10:00.000Z"),
            "{nothing}"
        );
    }
}
