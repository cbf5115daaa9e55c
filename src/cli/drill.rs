//! `tandem drill`: what a failover costs, measured.

mod live;
#[cfg(feature = "lab")]
mod pair;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Target;
use super::context;
use super::output::Look;
use super::table::{Cell, plain, render, state};
use super::{exit, output};
#[cfg(feature = "lab")]
use crate::lab::demo::Drill;
use crate::settings::Settings;

/// Arguments of `tandem drill`.
#[derive(Debug, Clone, clap::Args)]
#[cfg_attr(
    not(feature = "lab"),
    command(after_help = "\
This program was built without its laboratory: there is --live alone. It does to the pair behind
--url only what loses nothing: it hands the lead over and back and, with the instance's property
file, puts it off its broker once, so that it goes on over the spare connection. Commands that
change nothing measure it.

Exit codes: 0 nothing lost or doubled; 1 something was; 64 usage; 69 the instance cannot be reached")
)]
#[cfg_attr(
    feature = "lab",
    command(after_help = "\
Without --live it starts a pair of its own on this machine (two brokers, two instances, a simulated
downstream, 50 agents), keeps it busy, and measures one fault after the other. With --live it does
to the pair behind --url only what loses nothing: it hands the lead over and back and, with the
instance's property file, puts it off its broker once, so that it goes on over the spare connection.
Commands that change nothing measure it.

Exit codes: 0 nothing lost or doubled; 1 something was; 64 usage; 69 the instance cannot be reached")
)]
pub struct Args {
    /// Which drills; all of them without a name
    #[cfg(feature = "lab")]
    #[arg(value_name = "DRILL")]
    pub drills: Vec<Drill>,
    /// On the running pair behind --url: switchover and back, spare broker
    #[cfg_attr(feature = "lab", arg(long, conflicts_with = "drills"))]
    #[cfg_attr(not(feature = "lab"), arg(long, required = true))]
    pub live: bool,
    /// Which instance, with --live; its property file tells the brokers' addresses and user.
    #[command(flatten)]
    pub target: Target,
}

/// Runs the drills and prints a table.
#[must_use]
pub fn run(args: &Args, json: bool) -> ExitCode {
    if !args.live && args.target.config.is_some() {
        complain!("tandem drill: --config goes with --live");
        return ExitCode::from(exit::USAGE);
    }
    let settings = match args.target.config.as_deref().map(context::load).transpose() {
        Ok(settings) => settings,
        Err(error) => return ExitCode::from(error.report()),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("tandem drill: cannot start: {error}");
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let code = runtime.block_on(drilled(args, settings.as_ref(), json));
    runtime.shutdown_timeout(Duration::from_secs(1));
    ExitCode::from(code)
}

async fn drilled(args: &Args, settings: Option<&Settings>, json: bool) -> u8 {
    #[cfg(feature = "lab")]
    if !args.live {
        return match pair::run(&args.drills, json).await {
            Ok(rows) => print(&rows, json),
            Err(error) => {
                complain!("tandem drill: {error}");
                exit::FAILED
            }
        };
    }
    match live::run(&args.target, settings).await {
        Ok(rows) => print(&rows, json),
        Err(error) => error.report(),
    }
}

/// One line of the table.
#[derive(Debug, Default)]
struct Row {
    drill: String,
    /// From the fault to the first answer to a command sent after it.
    first_new: Option<Duration>,
    /// Longest time without any command done.
    silence: Option<Duration>,
    /// Longest wait of a command.
    worst: Option<Duration>,
    /// Commands, lost, doubled, in doubt; `None` where no load was ours.
    counts: Option<[u64; 4]>,
    good: bool,
    /// Why it could not be carried out to its end.
    why: Option<String>,
}

fn print(rows: &[Row], json: bool) -> u8 {
    let good = rows.iter().all(|row| row.good);
    output::print(&if json {
        let rows: Vec<Value> = rows.iter().map(row_json).collect();
        format!("{}\n", json!({"good": good, "drills": rows}))
    } else {
        table(rows, output::look())
    });
    if good { exit::DONE } else { exit::FAILED }
}

fn row_json(row: &Row) -> Value {
    let ms = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
    let count = |at: usize| row.counts.map(|counts| counts[at]);
    json!({
        "drill": row.drill, "firstNewMs": ms(row.first_new), "silenceMs": ms(row.silence),
        "worstMs": ms(row.worst), "commands": count(0), "lost": count(1), "doubled": count(2),
        "inDoubt": count(3), "good": row.good, "why": row.why,
    })
}

fn table(rows: &[Row], look: Look) -> String {
    let seconds = |time: Option<Duration>| match time {
        Some(time) => plain(format!("{:.2}", time.as_secs_f64())),
        None => plain("-"),
    };
    let notes: String = rows
        .iter()
        .filter_map(|row| Some(format!("{}: {}\n", row.drill, row.why.as_ref()?)))
        .collect();
    let rows: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            let count = |at: usize| match row.counts {
                Some(counts) => plain(counts[at]),
                None => plain("-"),
            };
            vec![
                plain(&row.drill),
                seconds(row.first_new),
                seconds(row.silence),
                seconds(row.worst),
                count(0),
                count(1),
                count(2),
                count(3),
                state(if row.good { "up" } else { "down" }).named(if row.good {
                    "good"
                } else {
                    "BAD"
                }),
            ]
        })
        .collect();
    let heads = [
        "drill",
        "first s",
        "silence s",
        "worst s",
        "commands",
        "lost",
        "doubled",
        "in doubt",
        "verdict",
    ];
    render(&heads, &rows, look) + &notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_all_figures_and_fits() {
        let row = |drill: &str, good| Row {
            drill: drill.to_owned(),
            first_new: Some(Duration::from_millis(340)),
            silence: Some(Duration::from_millis(400)),
            worst: Some(Duration::from_millis(5_000)),
            counts: Some([1200, 0, 0, 3]),
            good,
            why: (!good).then(|| "gc-2 never led".to_owned()),
        };
        let text = table(
            &[row("kill-leader", true), row("freeze-leader", false)],
            Look::PAGE,
        );
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            words,
            [
                "kill-leader",
                "0.34",
                "0.40",
                "5.00",
                "1200",
                "0",
                "0",
                "3",
                "good"
            ]
        );
        assert!(text.contains("BAD"), "{text}");
        assert!(text.ends_with("freeze-leader: gc-2 never led\n"), "{text}");
        assert_eq!(print(&[row("a", true)], true), exit::DONE);
        assert_eq!(
            print(&[row("a", true), row("b", false)], true),
            exit::FAILED
        );
    }
}
