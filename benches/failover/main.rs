//! How long failovers take: two instances, two real federated brokers, a simulated downstream, a
//! client that sends all the time; something breaks, and a clock runs. See `docs/benchmarks.md`.

mod measures;
mod probe;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Whatever went wrong: the figures would mean nothing.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Times of failovers: least, median, greatest of so many runs.
#[derive(Debug, Parser)]
struct Args {
    /// The `tandem` program
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tandem"))]
    tandem: PathBuf,
    /// Runs of each measure
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Only measures whose name begins with this: kill, stop, fenced, broker, cut, switchover,
    /// takeover, snapshot
    #[arg(long, default_value = "")]
    only: String,
    /// Given by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// One measure.
struct Series {
    what: &'static str,
    aim: Duration,
    times: Vec<Duration>,
}

impl Series {
    fn new(what: &'static str, aim_ms: u64) -> Self {
        Self {
            what,
            aim: Duration::from_millis(aim_ms),
            times: Vec::new(),
        }
    }

    fn print(&mut self) {
        self.times.sort();
        let (Some(least), Some(most)) = (self.times.first(), self.times.last()) else {
            return;
        };
        let middle = self.times[self.times.len() / 2];
        let met = if *most <= self.aim { "met" } else { "NOT met" };
        println!(
            "{:58} {:6.2} {:6.2} {:6.2}   {:5.1} {met}",
            self.what,
            least.as_secs_f64(),
            middle.as_secs_f64(),
            most.as_secs_f64(),
            self.aim.as_secs_f64()
        );
    }
}

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(measure(&args)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: &Args) -> Result<()> {
    let wanted = |name: &str| name.starts_with(&args.only);
    let mut all: Vec<Series> = Vec::new();
    if wanted("kill") {
        all.push(measures::kill(args).await?);
    }
    if wanted("stop") {
        all.extend(measures::stop(args, false).await?);
    }
    if wanted("fenced") {
        all.extend(measures::stop(args, true).await?);
    }
    if wanted("broker") {
        all.push(measures::broker(args).await?);
    }
    if wanted("cut") {
        all.push(measures::cut(args).await?);
    }
    if wanted("switchover") {
        all.push(measures::switchover(args).await?);
    }
    if wanted("takeover") {
        all.push(measures::takeover(args).await?);
    }
    if wanted("snapshot") {
        all.push(measures::snapshot(args).await?);
    }
    println!(
        "{:58} {:>6} {:>6} {:>6}   {:>5}",
        "seconds", "min", "median", "max", "aim"
    );
    for series in &mut all {
        series.print();
    }
    Ok(())
}
