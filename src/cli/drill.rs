//! `tandem drill`: what a failover costs, measured.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::client::{Admin, ClientError, Target};
use super::table::{Cell, plain, render, state};
use super::{demo, exit, output};
use crate::engine::View;
use crate::lab::demo::{Drill, Verdict, drills};

/// How long a handover on a running pair may take.
const HANDOVER: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Arguments of `tandem drill`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Without --live it starts a pair of its own on this machine (two brokers, two instances, a simulated
downstream, 50 agents), keeps it busy, and measures one fault after the other. With --live it does
to the pair behind --url only what loses nothing: it hands the lead over and back.

Exit codes: 0 nothing lost or doubled; 1 something was; 64 usage; 69 the instance cannot be reached")]
pub struct Args {
    /// Which drills; all of them without a name
    #[arg(value_name = "DRILL")]
    pub drills: Vec<Drill>,
    /// On the running pair behind --url: switchover and back
    #[arg(long, conflicts_with = "drills")]
    pub live: bool,
    /// Which instance, with --live.
    #[command(flatten)]
    pub target: Target,
}

/// Runs the drills and prints a table.
#[must_use]
pub fn run(args: &Args, json: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tandem drill: cannot start: {error}");
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let code = runtime.block_on(async {
        if args.live {
            return match live(&args.target).await {
                Ok(rows) => print(&rows, json),
                Err(error) => error.report(),
            };
        }
        let stop = CancellationToken::new();
        if let Err(error) = demo::stop_at_signals(stop.clone()) {
            eprintln!("tandem drill: signals: {error}");
        }
        let chosen = if args.drills.is_empty() {
            Drill::ALL.to_vec()
        } else {
            args.drills.clone()
        };
        match drills(&chosen, json, stop).await {
            Ok(results) => print(&results.iter().map(row).collect::<Vec<_>>(), json),
            Err(error) => {
                eprintln!("tandem drill: {error}");
                exit::FAILED
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ExitCode::from(code)
}

/// One line of the table.
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
}

fn row((drill, verdict): &(Drill, Verdict)) -> Row {
    let gap = verdict.gaps.first().and_then(|(_, gap)| *gap);
    let counts = verdict.counts();
    let in_doubt = counts[3];
    Row {
        drill: drill.name().to_owned(),
        first_new: gap.and_then(|gap| gap.first_new),
        silence: gap.map(|gap| gap.silence),
        worst: gap.map(|gap| gap.worst),
        counts: Some(counts),
        good: verdict.is_good() && (in_doubt == 0 || !drill.planned()),
    }
}

fn print(rows: &[Row], json: bool) -> u8 {
    let good = rows.iter().all(|row| row.good);
    output::print(&if json {
        let rows: Vec<Value> = rows.iter().map(row_json).collect();
        format!("{}\n", json!({"good": good, "drills": rows}))
    } else {
        table(rows, output::colours())
    });
    if good { exit::DONE } else { exit::FAILED }
}

fn row_json(row: &Row) -> Value {
    let ms = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
    let count = |at: usize| row.counts.map(|counts| counts[at]);
    json!({
        "drill": row.drill, "firstNewMs": ms(row.first_new), "silenceMs": ms(row.silence),
        "worstMs": ms(row.worst), "commands": count(0), "lost": count(1), "doubled": count(2),
        "inDoubt": count(3), "good": row.good,
    })
}

fn table(rows: &[Row], colours: bool) -> String {
    let seconds = |time: Option<Duration>| match time {
        Some(time) => plain(format!("{:.2}", time.as_secs_f64())),
        None => plain("-"),
    };
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
    render(&heads, &rows, colours)
}

// ---- on a running pair -------------------------------------------------------------------------

/// Hands the lead to a living peer and back to whoever had it.
async fn live(target: &Target) -> Result<Vec<Row>, ClientError> {
    let admin = Admin::new(target)?;
    let before: View = admin.get(&["status"]).await?;
    let refuse = |text: &str| ClientError::Refused(text.to_owned());
    if before.mode != "active-passive" {
        return Err(refuse("switchover drills are for active-passive pairs"));
    }
    let leader = leader(&before).ok_or_else(|| refuse("nobody leads now: nothing to hand over"))?;
    let ready = |id: &str| id != leader;
    let ids = before.peers.iter().filter(|peer| peer.state == "alive");
    let ids = ids.map(|peer| peer.instance.as_str());
    let other = ids
        .chain([before.instance.as_str()])
        .find(|id| ready(id))
        .ok_or_else(|| refuse("no other instance is alive: the drill would be an outage"))?
        .to_owned();
    let mut rows = Vec::new();
    for to in [other, leader] {
        let started = Instant::now();
        admin.post_to(&["switchover"], &[("to", &to)]).await?;
        let reached = loop {
            let view: View = admin.get(&["status"]).await?;
            if self::leader(&view).as_deref() == Some(to.as_str()) {
                break true;
            }
            if started.elapsed() > HANDOVER {
                break false;
            }
            tokio::time::sleep(POLL).await;
        };
        rows.push(Row {
            drill: format!("switchover to {to}"),
            first_new: reached.then(|| started.elapsed()),
            silence: None,
            worst: None,
            counts: None,
            good: reached,
        });
    }
    Ok(rows)
}

/// Who leads the first group, as this instance sees it.
fn leader(view: &View) -> Option<String> {
    let group = view.groups.first()?;
    if group.role.leads() {
        return Some(view.instance.clone());
    }
    let leads = |peer: &&crate::engine::view::PeerView| {
        let mut groups = peer.groups.iter();
        peer.state == "alive" && groups.any(|g| g.name == group.name && g.role.leads())
    };
    view.peers
        .iter()
        .find(leads)
        .map(|peer| peer.instance.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::view;
    use crate::engine::peer::Role;

    #[test]
    fn the_table_has_all_figures_and_fits() {
        let row = |drill: &str, good| Row {
            drill: drill.to_owned(),
            first_new: Some(Duration::from_millis(340)),
            silence: Some(Duration::from_millis(400)),
            worst: Some(Duration::from_millis(5_000)),
            counts: Some([1200, 0, 0, 3]),
            good,
        };
        let text = table(
            &[row("kill-leader", true), row("freeze-leader", false)],
            false,
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
        assert_eq!(print(&[row("a", true)], true), exit::DONE);
        assert_eq!(
            print(&[row("a", true), row("b", false)], true),
            exit::FAILED
        );
    }

    #[test]
    fn the_leader_is_found_here_or_at_a_peer_that_lives() {
        let mut view = view();
        assert_eq!(leader(&view).as_deref(), Some("gc-1"));
        view.groups[0].role = Role::Follower;
        assert_eq!(leader(&view), None);
        view.peers[0].groups[0].role = Role::Leader;
        assert_eq!(leader(&view).as_deref(), Some("gc-2"));
        view.peers[0].state = "lost".to_owned();
        assert_eq!(leader(&view), None);
    }
}
