//! `tandem deadletter`: what could not be understood, answered or delivered.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::table::{plain, render};
use super::{block_on, context, exit, output};
use crate::client::letters::{Letter, Letters, MAX_LETTERS};
use crate::client::{ClientError, ClientOptions};
use crate::clock::wall_ms;
use crate::model::text::duration;
use crate::settings::Settings;

/// Arguments of `tandem deadletter`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
The letters of every broker of the file. A letter is named by its key or its message id, as `list`
shows them. A body that could not be read, or that has a password, is kept as its length and hash:
only its client can send that command again. A reply_to that was refused is left out.
Of each broker the oldest 10,000 are looked at; whether there are more is said.
Exit codes: 0 done; 1 no such letter, not done, or letters left with --all; 64 usage or configuration; 69 no broker reachable")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
    /// Property file of a site: its brokers, their user and certificates, cluster.name
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// What `tandem deadletter` does.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Action {
    /// Which there are: reason, age, agent, size
    List,
    /// One with its headers and body
    Show(One),
    /// Send commands again, with a new deadline and the same id, and take their letters away
    Requeue {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// Time that each has to be started
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
        max_age: Duration,
        /// Command queue [default: the one that the letter came from, else command.queue]
        #[arg(long, value_name = "NAME")]
        queue: Option<String>,
    },
    /// Throw letters away
    Discard {
        /// Which.
        #[command(flatten)]
        which: Which,
    },
}

impl Action {
    /// Whether no letter is to be left.
    fn wants_all(&self) -> bool {
        match self {
            Self::List | Self::Show(_) => false,
            Self::Requeue { which, .. } | Self::Discard { which } => which.all,
        }
    }
}

/// One letter.
#[derive(Debug, Clone, clap::Args)]
pub struct One {
    /// Key or message id
    #[arg(value_name = "LETTER")]
    pub letter: String,
}

/// Some letters, or all.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// Keys or message ids
    #[arg(value_name = "LETTER", required_unless_present = "all")]
    pub letters: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "letters")]
    pub all: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

impl Which {
    fn holds(&self, letter: &Letter) -> bool {
        self.all || self.letters.iter().any(|name| letter.is(name))
    }
}

/// Runs it.
#[must_use]
pub fn run(args: &Args, json: bool) -> ExitCode {
    let Some(file) = &args.config else {
        complain!("tandem deadletter: --config FILE is needed: it names the brokers");
        return ExitCode::from(exit::USAGE);
    };
    let settings = match context::load(file) {
        Ok(settings) => settings,
        Err(error) => return ExitCode::from(error.report()),
    };
    block_on(async move {
        let mut options = ClientOptions::new("deadletter");
        options.cluster.clone_from(&settings.cluster_name);
        options.tls = settings.broker.tls.clone();
        let brokers = context::brokers(&settings);
        let opened = match Letters::open(&brokers, &options).await {
            Ok(opened) => opened,
            Err(error) => return failed(&error),
        };
        let mut boxes = Vec::new();
        let mut worst = exit::DONE;
        let mut behind = false;
        for letters in opened {
            match letters {
                Ok(letters) => match letters.read().await {
                    Ok((found, more)) => {
                        if more {
                            complain!("tandem deadletter: {}", only(&letters.broker));
                            behind = true;
                        }
                        boxes.push((letters, found));
                    }
                    Err(error) => worst = failed(&error),
                },
                Err(error) => worst = failed(&error),
            }
        }
        let code = match boxes.is_empty() {
            true => worst,
            false => done(&args.action, &boxes, &settings, json).await,
        };
        for (letters, _) in boxes {
            letters.close().await;
        }
        let code = match args.action.wants_all() && behind && code == exit::DONE {
            true => exit::FAILED,
            false => code,
        };
        // What one broker has is told although another one is down; the code says so.
        if code == exit::DONE { worst } else { code }
    })
}

/// What is said where there are more letters than are read.
fn only(broker: &str) -> String {
    format!(
        "broker {broker} has more than {MAX_LETTERS} dead letters: only the oldest {MAX_LETTERS} are \
         looked at; say it again for those behind them, once these are gone"
    )
}

fn failed(error: &ClientError) -> u8 {
    complain!("tandem deadletter: {error}");
    exit::of_client(error)
}

type Box = (Letters, Vec<Letter>);

async fn done(action: &Action, boxes: &[Box], settings: &Settings, json: bool) -> u8 {
    match action {
        Action::List => list(boxes, json),
        Action::Show(one) => show(&one.letter, boxes, json),
        Action::Requeue {
            which,
            max_age,
            queue,
        } => {
            let send = async |letters: &Letters, letter: &Letter| {
                let to = queue_for(letter, queue.as_deref(), settings);
                let refused = |reason| ClientError::Refused {
                    broker: letters.broker.clone(),
                    reason,
                };
                letters
                    .requeue(letter, to.map_err(refused)?, *max_age)
                    .await
            };
            change(boxes, which, "sent again", json, send).await
        }
        Action::Discard { which } => {
            let throw = async |letters: &Letters, letter: &Letter| letters.discard(letter).await;
            change(boxes, which, "thrown away", json, throw).await
        }
    }
}

/// Where a letter is sent again. Whoever may put letters there can write any name into one: only a
/// group's queue is believed.
fn queue_for<'a>(
    letter: &Letter,
    given: Option<&'a str>,
    settings: &'a Settings,
) -> Result<&'a str, String> {
    if let Some(queue) = given {
        return Ok(queue);
    }
    let Some(from) = &letter.queue else {
        return Ok(context::command_queue(settings).unwrap_or_default());
    };
    let mut known = settings.groups.iter().flat_map(|group| &group.queues);
    let found = known.find(|queue| *queue == from).map(String::as_str);
    found.ok_or_else(|| {
        format!("it says that it came from queue {from:?}, which is no group's in this file: say --queue NAME")
    })
}

/// How old it is by its client's clock, seconds.
fn age(letter: &Letter) -> Option<u64> {
    let now = wall_ms();
    letter.sent_ms.map(|at| now.saturating_sub(at) / 1_000)
}

fn as_json(broker: &str, letter: &Letter) -> Value {
    json!({
        "key": letter.key, "id": letter.id, "type": letter.kind, "command": letter.what(), "agent": letter.agent(),
        "reason": letter.reason, "queue": letter.queue, "broker": broker, "size": letter.body.len(),
        "sent": letter.sent_ms.map(output::iso), "ageSeconds": age(letter),
        "redacted": letter.redacted(), "requeueable": letter.stuck().is_none(),
    })
}

/// Every letter, with the dead letters of its broker.
fn all(boxes: &[Box]) -> impl Iterator<Item = (&Letters, &Letter)> {
    let each = boxes.iter();
    each.flat_map(|(letters, found)| found.iter().map(move |letter| (letters, letter)))
}

fn list(boxes: &[Box], json: bool) -> u8 {
    if json {
        let rows: Vec<Value> = all(boxes)
            .map(|(letters, letter)| as_json(&letters.broker, letter))
            .collect();
        output::print(&format!("{:#}\n", json!(rows)));
        return exit::DONE;
    }
    let rows: Vec<_> = all(boxes)
        .map(|(letters, letter)| {
            let age = age(letter).map(|seconds| format!("{seconds} s"));
            vec![
                plain(&letter.key),
                plain(letter.what().unwrap_or("-")),
                plain(&letter.reason),
                plain(age.unwrap_or_else(|| "-".to_owned())),
                plain(letter.agent().unwrap_or("-")),
                plain(letter.body.len()),
                plain(if letter.redacted() { "redacted" } else { "" }),
                plain(&letters.broker),
                plain(letter.id.as_deref().unwrap_or("-")),
            ]
        })
        .collect();
    let heads = [
        "key",
        "command",
        "reason",
        "age",
        "agent",
        "bytes",
        "body",
        "broker",
        "message id",
    ];
    output::print(&match rows.is_empty() {
        true => "no dead letters\n".to_owned(),
        false => render(&heads, &rows, output::look()),
    });
    exit::DONE
}

fn show(name: &str, boxes: &[Box], json: bool) -> u8 {
    let Some((letters, letter)) = all(boxes).find(|(_, letter)| letter.is(name)) else {
        return unknown(name, boxes);
    };
    let body = String::from_utf8_lossy(&letter.body);
    let mut value = as_json(&letters.broker, letter);
    value["headers"] = json!(letter.headers);
    value["correlationId"] = json!(letter.correlation);
    value["contentType"] = json!(letter.content_type);
    value["body"] = json!(body);
    output::print(&format!("{value:#}\n"));
    if !json && let Some(why) = letter.stuck() {
        complain!("it cannot be sent again: {why}");
    }
    exit::DONE
}

/// Letters that are named where one is named that is not there.
const NAMED: usize = 10;

fn unknown(name: &str, boxes: &[Box]) -> u8 {
    let keys: Vec<&str> = all(boxes).map(|(_, letter)| letter.key.as_str()).collect();
    complain!(
        "tandem deadletter: there is no letter {name}; {}",
        known(&keys)
    );
    exit::FAILED
}

fn known(keys: &[&str]) -> String {
    let named = keys[..keys.len().min(NAMED)].join(", ");
    match keys.len() {
        0 => "there is none at all".to_owned(),
        count if count <= NAMED => format!("known: {named}"),
        count => format!(
            "known: {named} and {} more; `tandem deadletter list` shows all",
            count - NAMED
        ),
    }
}

/// Asks, then does it with each letter that is meant.
async fn change(
    boxes: &[Box],
    which: &Which,
    word: &str,
    json: bool,
    work: impl AsyncFn(&Letters, &Letter) -> Result<(), ClientError>,
) -> u8 {
    let meant: Vec<(&Letters, &Letter)> = all(boxes)
        .filter(|(_, letter)| which.holds(letter))
        .collect();
    let is_there = |name: &&String| meant.iter().any(|(_, letter)| letter.is(name));
    if let Some(name) = which.letters.iter().find(|name| !is_there(name)) {
        return unknown(name, boxes);
    }
    if !which.yes && !meant.is_empty() {
        match agreed(format!("{} to be {word}", meant.len())).await {
            Some(true) => {}
            Some(false) => return exit::FAILED,
            None => return exit::USAGE,
        }
    }
    let mut rows = Vec::new();
    for (letters, letter) in &meant {
        let result = work(letters, letter).await;
        rows.push((
            letter.key.clone(),
            result.err().map(|error| error.to_string()),
        ));
    }
    let failed = rows.iter().filter(|(_, error)| error.is_some()).count();
    if json {
        let rows = rows
            .iter()
            .map(|(key, error)| json!({"key": key, "done": error.is_none(), "error": error}));
        output::print(&format!("{:#}\n", json!(rows.collect::<Vec<_>>())));
    } else {
        for (key, error) in &rows {
            match error {
                None => output::print(&format!("{key}: {word}\n")),
                Some(error) => output::print(&format!("{key}: not {word}: {error}\n")),
            };
        }
        output::print(&format!("{} {word}, {failed} not\n", rows.len() - failed));
    }
    if failed == 0 {
        exit::DONE
    } else {
        exit::FAILED
    }
}

/// Whether somebody at a terminal says yes; `None`: nobody is there. The connection, which holds the
/// letters, is kept alive meanwhile.
async fn agreed(what: String) -> Option<bool> {
    if !std::io::stdin().is_terminal() {
        complain!("tandem deadletter: {what}: say --yes");
        return None;
    }
    let _ = write!(std::io::stderr(), "{what}. Go on? [y/N] ");
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = answer.await.ok()?.unwrap_or_default();
    Some(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_no_letter_is_told_some_that_there_are() {
        assert_eq!(known(&[]), "there is none at all");
        assert_eq!(known(&["a", "b"]), "known: a, b");
        let many = known(&["k"; 14]);
        assert!(
            many.contains("k, k and 4 more; `tandem deadletter list`"),
            "{many}"
        );
    }
}
