//! `tandem demo`: the two-site demo on this machine.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{exit, output};
use crate::lab::demo::{self, DemoOptions};

/// A second signal ends the program as the signal itself would; guards clean up after it.
const EXIT_SIGNAL: i32 = 130;

/// Arguments of `tandem demo`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Args {
    /// End after this many seconds of load; from 10 on the leader is killed in them, from 20 on a
    /// broker as well. Without it, at ctrl-c
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
}

/// Runs the demo. Exit 0 where nothing was lost or doubled and the gap after the kill of the
/// leader was measured, else 1.
#[must_use]
pub fn run(args: &Args, json: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("tandem demo: cannot start: {error}");
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let options = DemoOptions {
        length: args.seconds.map(Duration::from_secs),
        json,
        print: output::print,
    };
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        if let Err(error) = stop_at_signals(stop.clone()) {
            complain!("tandem demo: signals: {error}");
        }
        demo::run(options, stop).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    if result.is_ok() && !json {
        output::print(&next(std::env::current_exe().ok().as_deref()));
    }
    match result {
        Ok(verdict) if verdict.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(exit::FAILED),
        Err(error) => {
            complain!("tandem demo: {error}");
            ExitCode::from(exit::FAILED)
        }
    }
}

/// What to try after the demo, and why.
const NEXT: [(&str, &str); 3] = [
    (
        "demo",
        "without an end: look at the pages that it prints, kill what you like",
    ),
    (
        "drill kill-leader drain",
        "failovers measured, on a pair of its own",
    ),
    ("commands", "what clients can send"),
];

/// The same, with the program as it can be called from anywhere.
fn next(program: Option<&Path>) -> String {
    let program = program.map_or_else(|| "tandem".into(), |path| path.display().to_string());
    let line = |(words, why): &(&str, &str)| format!("  {program} {words:<25}# {why}\n");
    let lines: String = NEXT.iter().map(line).collect();
    format!("\ntry next:\n{lines}")
}

pub(in crate::cli) fn stop_at_signals(stop: CancellationToken) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(EXIT_SIGNAL);
            }
            stop.cancel();
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_to_try_next_are_three_commands() {
        let text = next(Some(Path::new("/opt/tandem")));
        let lines = text.lines().filter_map(|line| line.strip_prefix("  /opt/"));
        let commands: Vec<Vec<&str>> = lines
            .map(|line| line.split('#').next().unwrap_or_default())
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(commands.len(), 3, "{text}");
        for words in commands {
            let read = super::super::Cli::try_parse_from(&words);
            assert!(read.is_ok(), "{words:?}: {:?}", read.err());
        }
    }

    #[test]
    fn a_run_may_be_short_and_lasts_a_second_at_least() {
        let read = |words: &[&str]| Cli::try_parse_from(["demo"].iter().chain(words));
        assert_eq!(read(&["--seconds", "40"]).unwrap().args.seconds, Some(40));
        assert_eq!(read(&[]).unwrap().args.seconds, None);
        assert_eq!(read(&["--seconds", "1"]).unwrap().args.seconds, Some(1));
        assert!(read(&["--seconds", "0"]).is_err());
    }
}
