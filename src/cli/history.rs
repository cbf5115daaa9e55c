//! `tandem history`: what changed lately on an instance, and why.

use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::client::{Admin, ClientError, Target};
use super::context;
use super::output::Look;
use super::table::{plain, render, state};
use super::{block_on, exit, output, watch};
use crate::admin::{self, HistoryEntry};

/// How often `--watch` asks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `tandem history`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
The words under \"why\" are in docs/glossary.md.
Exit codes: 0 shown; 1 refused, or the files cannot be read; 64 usage; 69 the instance cannot be reached")]
pub struct Args {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// Show the last N changes [default: 30, with --since all]
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// Show what changed since then: 90s, 30m, 1h, 7d ago, or a time as 2026-11-30T08:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Read the files of a stopped instance: those in data.dir of --config
    #[arg(long, requires = "config", conflicts_with_all = ["watch", "url"])]
    pub offline: bool,
    /// Print JSON lines, one object a change, rather than the one list of --json
    #[arg(long)]
    pub lines: bool,
    /// Go on and print each further change until ctrl-c; with --json one line a change
    #[arg(long)]
    pub watch: bool,
}

/// So much earlier than the newest change it is asked for more.
const AGAIN: TimeDelta = TimeDelta::minutes(10);

/// Changes that are shown where nothing else is asked for.
const USUAL: usize = 30;

/// Prints the last changes, the newest at the end.
pub fn run(args: Args, json: bool) -> ExitCode {
    block_on(async move {
        let shown = match first(&args).await {
            Ok(shown) => shown,
            Err(error) => return error.report(),
        };
        match shown {
            (Some(admin), newest, shown) if args.watch => {
                watch(&admin, newest, shown, json || args.lines).await
            }
            (_, _, shown) => {
                output::print(&match args.lines {
                    true => lines(&shown, true),
                    false => whole(&shown, json),
                });
                exit::DONE
            }
        }
    })
}

/// Whom to ask for more; the newest change of all where changes are watched; and what is asked for,
/// the oldest first.
type First = (Option<Admin>, Option<HistoryEntry>, Vec<HistoryEntry>);

async fn first(args: &Args) -> Result<First, ClientError> {
    let since = args.since.as_deref();
    let from = since.map(|text| admin::since(text, Utc::now())).transpose();
    let from = from.map_err(|words| ClientError::Usage(format!("--since: {words}")))?;
    let most = (args.last).unwrap_or(if from.is_some() { usize::MAX } else { USUAL });
    let (admin, mut entries) = if args.offline {
        (None, kept(args)?)
    } else {
        let admin = Admin::new(&args.target)?;
        let entries = read(&admin, from.filter(|_| !args.watch)).await?;
        (Some(admin), entries)
    };
    let newest = entries.last().cloned();
    if let Some(from) = from {
        entries.retain(|entry| entry.touches(from));
    }
    entries.drain(..entries.len().saturating_sub(most));
    Ok((admin, newest, entries))
}

/// What the files of a stopped instance hold, the oldest first.
fn kept(args: &Args) -> Result<Vec<HistoryEntry>, ClientError> {
    let Some(config) = args.target.config.as_deref() else {
        return Err(ClientError::Usage("--offline needs --config".to_owned()));
    };
    let dir = context::load(config)?.data_dir;
    let (entries, _) = admin::read_history(&dir).map_err(|error| {
        ClientError::Refused(format!("the history in {}: {error}", dir.display()))
    })?;
    Ok(entries)
}

/// The oldest first.
async fn read(
    admin: &Admin,
    from: Option<DateTime<Utc>>,
) -> Result<Vec<HistoryEntry>, ClientError> {
    let mut entries: Vec<HistoryEntry> = match from {
        None => admin.get(&["history"]).await?,
        Some(from) => {
            let from = from.to_rfc3339_opts(SecondsFormat::Millis, true);
            admin.get_with(&["history"], &[("since", &from)]).await?
        }
    };
    entries.reverse();
    Ok(entries)
}

/// An instance that goes away is waited for.
async fn watch(
    admin: &Admin,
    newest: Option<HistoryEntry>,
    shown: Vec<HistoryEntry>,
    json: bool,
) -> u8 {
    // The newest that is there counts, shown or not: what comes behind it is new.
    let mut last = newest;
    let mut fresh = shown;
    let mut stopped = watch::stop();
    let mut open: Option<u64> = None;
    loop {
        open = fresh
            .iter()
            .rfind(|entry| goes_on(entry))
            .map_or(open, |entry| Some(entry.id));
        if !fresh.is_empty() && !output::print(&lines(&fresh, json)) {
            return exit::DONE;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut stopped => return exit::DONE,
        }
        // The instance's clock may have been set back since; the number decides.
        let from = last.as_ref().and_then(at).map(|at| at - AGAIN);
        let answer = tokio::select! {
            answer = read(admin, from) => answer,
            () = &mut stopped => return exit::DONE,
        };
        match answer {
            Ok(now) => {
                let after = last.as_ref().map_or(0, |entry| entry.id);
                fresh = now;
                let newest = fresh.last().filter(|entry| entry.id > after).cloned();
                let done = |entry: &HistoryEntry| open == Some(entry.id) && !goes_on(entry);
                fresh.retain(|entry| entry.id > after || done(entry));
                open = open.filter(|id| fresh.iter().all(|entry| entry.id != *id));
                last = newest.or(last);
            }
            Err(ClientError::Unreachable { .. }) => fresh.clear(),
            Err(error) => return error.report(),
        }
    }
}

/// Whether its row will change once more: it is shown then, too.
fn goes_on(entry: &HistoryEntry) -> bool {
    entry.kind == admin::TAKEOVER && entry.to == admin::STARTED
}

fn at(entry: &HistoryEntry) -> Option<DateTime<Utc>> {
    let at = DateTime::parse_from_rfc3339(&entry.at).ok()?;
    Some(at.to_utc())
}

fn whole(entries: &[HistoryEntry], json: bool) -> String {
    match (json, entries.is_empty()) {
        (true, _) => format!("{:#}\n", serde_json::json!(entries)),
        (false, true) => "nothing has changed\n".to_owned(),
        (false, false) => table(entries, output::look()),
    }
}

fn lines(entries: &[HistoryEntry], json: bool) -> String {
    if !json {
        return table(entries, output::look());
    }
    let lines = entries.iter().map(|entry| serde_json::json!(entry));
    lines.map(|line| format!("{line}\n")).collect()
}

fn table(entries: &[HistoryEntry], look: Look) -> String {
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            vec![
                plain(moment(&entry.at)),
                plain(&entry.kind),
                plain(&entry.subject),
                plain(entry.from.as_deref().unwrap_or("")),
                state(&entry.to),
                plain(why(entry)),
            ]
        })
        .collect();
    render(
        &["time (UTC)", "what", "which", "from", "to", "why"],
        &rows,
        look,
    )
}

/// The reason; of a verb with who gave it; of what repeats itself how often.
fn why(entry: &HistoryEntry) -> String {
    let mut parts: Vec<String> = entry.reason.iter().cloned().collect();
    if let Some(address) = &entry.address {
        let who = entry.token.as_deref().unwrap_or("no token");
        parts.push(format!("({who}, from {address})"));
    }
    if entry.count > 1 {
        let last = entry.last.as_deref().map(moment).unwrap_or_default();
        parts.push(format!("({} times, last {last})", entry.count));
    }
    parts.join(" ")
}

/// To the second: what `2026-11-21T17:02:43.012Z` tells people.
fn moment(at: &str) -> String {
    let short = at.get(..19).filter(|_| at.is_ascii() && at.ends_with('Z'));
    short.map_or_else(|| at.to_owned(), |short| format!("{short}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: &str) -> HistoryEntry {
        let row = serde_json::json!({"at": at, "kind": "role", "subject": "agents",
            "from": "follower", "to": "leader", "reason": "peer-lost"});
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_row_says_what_when_and_why() {
        let a = entry("1");
        let text = table(std::slice::from_ref(&a), Look::PAGE);
        assert!(
            text.contains("1           role  agents  follower  leader  peer-lost"),
            "{text}"
        );
        assert_eq!(moment("2026-11-21T17:02:43.012Z"), "2026-11-21T17:02:43Z");
    }

    #[test]
    fn a_row_says_who_and_how_often() {
        let mut row = entry("1");
        row.reason = Some("patch day".to_owned());
        row.address = Some("10.0.0.7".to_owned());
        assert_eq!(why(&row), "patch day (no token, from 10.0.0.7)");
        row.token = Some("ops".to_owned());
        row.count = 3;
        row.last = Some("2026-11-21T17:02:43.012Z".to_owned());
        let wanted = "patch day (ops, from 10.0.0.7) (3 times, last 2026-11-21T17:02:43Z)";
        assert_eq!(why(&row), wanted);
    }

    #[test]
    fn json_lines_are_an_object_a_line() {
        let text = lines(&[entry("1"), entry("2")], true);
        let read = |line: &str| serde_json::from_str::<HistoryEntry>(line).unwrap().at;
        assert_eq!(text.lines().map(read).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(lines(&[], true), "");
    }

    #[test]
    fn no_change_is_said() {
        assert!(whole(&[], false).contains("nothing"));
        assert_eq!(whole(&[], true), "[]\n");
    }
}
