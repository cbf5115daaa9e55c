//! `tandem demo`: the two-site demo on this machine.

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
    /// End after this many seconds of load, both kills included; without it, at ctrl-c
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(20..=86_400))]
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
    match result {
        Ok(verdict) if verdict.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(exit::FAILED),
        Err(error) => {
            complain!("tandem demo: {error}");
            ExitCode::from(exit::FAILED)
        }
    }
}

pub(super) fn stop_at_signals(stop: CancellationToken) -> std::io::Result<()> {
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
    fn a_run_too_short_for_both_kills_is_refused() {
        let read = |words: &[&str]| Cli::try_parse_from(["demo"].iter().chain(words));
        assert_eq!(read(&["--seconds", "40"]).unwrap().args.seconds, Some(40));
        assert_eq!(read(&[]).unwrap().args.seconds, None);
        assert!(read(&["--seconds", "5"]).is_err());
    }
}
