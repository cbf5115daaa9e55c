//! `tandem history`: what changed lately on an instance, and why.

use std::process::ExitCode;
use std::time::Duration;

use super::client::{Admin, ClientError, Target};
use super::output::Look;
use super::table::{plain, render, state};
use super::{block_on, exit, output};
use crate::admin::HistoryEntry;

/// How often `--watch` asks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `tandem history`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Exit codes: 0 shown; 64 usage; 69 the instance cannot be reached")]
pub struct Args {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// Show the last N changes
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub last: usize,
    /// Go on and print each further change until ctrl-c; with --json one line a change
    #[arg(long)]
    pub watch: bool,
}

/// Prints the last changes, the newest at the end.
pub fn run(args: Args, json: bool) -> ExitCode {
    block_on(async move {
        let admin = match Admin::new(&args.target) {
            Ok(admin) => admin,
            Err(error) => return error.report(),
        };
        let shown = match read(&admin, args.last).await {
            Ok(entries) => entries,
            Err(error) => return error.report(),
        };
        if !args.watch {
            output::print(&whole(&shown, json));
            return exit::DONE;
        }
        watch(&admin, shown, json).await
    })
}

/// The oldest first.
async fn read(admin: &Admin, last: usize) -> Result<Vec<HistoryEntry>, ClientError> {
    let mut entries: Vec<HistoryEntry> = admin.get(&["history"]).await?;
    entries.truncate(last);
    entries.reverse();
    Ok(entries)
}

/// An instance that goes away is waited for.
async fn watch(admin: &Admin, mut shown: Vec<HistoryEntry>, json: bool) -> u8 {
    let mut fresh = shown.clone();
    loop {
        if !fresh.is_empty() && !output::print(&lines(&fresh, json)) {
            return exit::DONE;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = tokio::signal::ctrl_c() => return exit::DONE,
        }
        match read(admin, usize::MAX).await {
            Ok(now) => {
                fresh = news(&shown, &now).to_vec();
                shown = now;
            }
            Err(ClientError::Unreachable { .. }) => fresh.clear(),
            Err(error) => return error.report(),
        }
    }
}

/// What stands behind the last change that was shown. After a restart everything is new.
fn news<'a>(shown: &[HistoryEntry], now: &'a [HistoryEntry]) -> &'a [HistoryEntry] {
    let last = shown.last();
    let at = now.iter().rposition(|entry| Some(entry) == last);
    &now[at.map_or(0, |at| at + 1)..]
}

fn whole(entries: &[HistoryEntry], json: bool) -> String {
    match (json, entries.is_empty()) {
        (true, _) => format!("{:#}\n", serde_json::json!(entries)),
        (false, true) => "nothing has changed since the start\n".to_owned(),
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
                plain(entry.reason.as_deref().unwrap_or("")),
            ]
        })
        .collect();
    render(
        &["time (UTC)", "what", "which", "from", "to", "why"],
        &rows,
        look,
    )
}

/// Month to second: what `2026-11-21T17:02:43.012Z` tells people about a list of some minutes.
fn moment(at: &str) -> String {
    let short = at.get(5..19).filter(|_| at.is_ascii());
    short.map_or_else(|| at.to_owned(), |short| short.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: &str) -> HistoryEntry {
        HistoryEntry {
            at: at.to_owned(),
            kind: "role".to_owned(),
            subject: "agents".to_owned(),
            from: Some("follower".to_owned()),
            to: "leader".to_owned(),
            reason: Some("peer-lost".to_owned()),
        }
    }

    #[test]
    fn a_line_a_change_and_only_new_ones_again() {
        let (a, b, c) = (entry("1"), entry("2"), entry("3"));
        let text = table(std::slice::from_ref(&a), Look::PAGE);
        assert!(
            text.contains("1           role  agents  follower  leader  peer-lost"),
            "{text}"
        );
        assert_eq!(moment("2026-11-21T17:02:43.012Z"), "11-21 17:02:43");
        let shown = [a.clone(), b.clone()];
        assert_eq!(
            news(&shown, &[b.clone(), c.clone()]),
            std::slice::from_ref(&c)
        );
        assert_eq!(news(&shown, &[a, b]), []);
        let only = std::slice::from_ref(&c);
        assert_eq!(news(&shown, only), only);
        assert_eq!(news(&[], only), only);
    }

    #[test]
    fn no_change_is_said() {
        assert!(whole(&[], false).contains("nothing"));
        assert_eq!(whole(&[], true), "[]\n");
    }
}
