//! Throughput, latency, CPU time and memory of one instance, beside a bare loop.
//!
//! ```text
//!   client (this process) ──▶ broker ──▶ tandem run  ──▶ simulator      odd rounds
//!                        ──▶        ──▶ bare loop   ──▶                 even rounds
//! ```
//!
//! Both connectors run all the time, one of them is idle. tandem also gets rounds of
//! non-idempotent commands, which are journaled. See `docs/benchmarks.md`.

mod bare;
mod errors;
mod load;
mod report;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use errors::Result;
use load::{Client, Command};
use report::{Round, Series};
use stage::{DESTINATION, Stage, agent, cpu_ms, resident_mb};

/// Agents that one connector serves.
const AGENTS: u64 = 500;
/// Agents of the memory step.
const MANY_AGENTS: u64 = 1_000;
/// Commands that may be unanswered.
const WINDOW: usize = 100;

/// `tandem run` beside a bare loop, under the same load.
#[derive(Debug, Parser)]
struct Args {
    /// The `tandem` program
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tandem"))]
    tandem: PathBuf,
    /// Rounds of each connector
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds of a round
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Seconds of load before a round is measured
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// The client also takes the events
    #[arg(long)]
    events: bool,
    /// Leave the memory step out
    #[arg(long)]
    no_memory: bool,
    /// Only one of: tandem, bare, journaled
    #[arg(long)]
    only: Option<String>,
    /// A short run that shows that everything works; its figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Given by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let words: Vec<String> = std::env::args().collect();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [_, "bare", broker, queue, base] => bare::run(broker, queue, base).await,
            _ => measure(Args::parse()).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(mut args: Args) -> Result<()> {
    if args.quick {
        (args.rounds, args.seconds, args.warm_up) = (1, 1.0, 0.5);
    }
    let stage = Stage::start(&args.tandem, 2 * AGENTS + MANY_AGENTS).await?;
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| only == name);
    let tandem = stage.tandem("tandem-1").await?;
    let took = stage.sign_in("tandem-1", 0..AGENTS).await?;
    eprintln!("{AGENTS} agents signed in through tandem in {took:.1?}");
    let bare = stage.bare("bare").await?;
    stage.sign_in_directly(AGENTS..2 * AGENTS).await?;
    eprintln!("tandem {} bare {}", tandem.pid(), bare.pid());
    let mut connectors = [
        Connector::new("tandem", "tandem-1", tandem.pid(), 0),
        Connector::new("bare", "bare", bare.pid(), AGENTS),
        Connector::journaled("tandem-1", tandem.pid()),
    ];
    for round in 0..args.rounds {
        for connector in connectors.iter_mut().filter(|c| wanted(c.series.name)) {
            let measured = connector.round(&stage, &args).await?;
            eprintln!("round {} {:7} {measured}", round + 1, connector.series.name);
            connector.series.rounds.push(measured);
        }
    }
    let after_load = resident_mb(tandem.pid())?;
    drop((tandem, bare));
    let [tandem, bare, journaled] = &connectors;
    report::print(&tandem.series, &bare.series);
    report::print_journaled(&journaled.series, &tandem.series);
    println!("memory after the load ({AGENTS} agents): {after_load:.1} MB");
    if !args.no_memory {
        memory(&stage).await?;
    }
    if args.quick {
        println!("quick run: the figures above mean nothing");
    }
    Ok(())
}

/// A fresh process, 1,000 agents signed in and subscribed, nothing else.
async fn memory(stage: &Stage) -> Result<()> {
    let tandem = stage.tandem("tandem-2").await?;
    let before = resident_mb(tandem.pid())?;
    let agents = 2 * AGENTS..2 * AGENTS + MANY_AGENTS;
    let took = stage.sign_in("tandem-2", agents).await?;
    // What the sign-ins left behind is still told and read for a moment.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = resident_mb(tandem.pid())?;
    println!(
        "memory: {before:.1} MB without agents, {after:.1} MB with {MANY_AGENTS} signed in and \
         subscribed; sign-in of all took {:.1} s",
        took.as_secs_f64()
    );
    Ok(())
}

struct Connector {
    series: Series,
    queue: &'static str,
    pid: u32,
    commands: Vec<Command>,
    wanted: &'static [&'static str],
    next: usize,
}

impl Connector {
    /// Non-idempotent commands through tandem: each is a request like the others, but durable
    /// before and after. The call to be held does not exist, so that nothing piles up.
    fn journaled(queue: &'static str, pid: u32) -> Self {
        let command = |n| Command {
            kind: format!("HoldCall#{}", agent(n)),
            body: "999999999".to_owned(),
        };
        Self {
            series: Series::new("journaled"),
            queue,
            pid,
            commands: (0..AGENTS).map(command).collect(),
            wanted: &["FAILED"],
            next: 0,
        }
    }

    fn new(name: &'static str, queue: &'static str, pid: u32, first: u64) -> Self {
        let command = |state: &str, n| Command {
            kind: format!("{state}#{}", agent(first + n)),
            body: String::new(),
        };
        let ready = (0..AGENTS).map(|n| command("MakeReady", n));
        let not_ready = (0..AGENTS).map(|n| command("MakeNotReady", n));
        Self {
            series: Series::new(name),
            queue,
            pid,
            commands: ready.chain(not_ready).collect(),
            wanted: &["OK", "ACCEPTED"],
            next: 0,
        }
    }

    async fn round(&mut self, stage: &Stage, args: &Args) -> Result<Round> {
        let uri = stage.broker.amqp_uri();
        let events = args.events.then_some(DESTINATION);
        let client = Client::open(&uri, self.queue, WINDOW, events, self.wanted).await?;
        let pids = [
            self.pid,
            stage.broker_pid,
            stage.simulator.pid(),
            std::process::id(),
        ];
        let cpu = || -> Result<Vec<f64>> { pids.iter().map(|pid| cpu_ms(*pid)).collect() };
        self.load(&client, args.warm_up).await?;
        client.take_latencies()?;
        let (before, answered, start) = (cpu()?, client.answered(), Instant::now());
        self.load(&client, args.seconds).await?;
        let took = start.elapsed().as_secs_f64();
        let latencies = client.take_latencies()?;
        let (after, commands) = (cpu()?, client.answered() - answered);
        client.settle().await?;
        let used = before.iter().zip(&after).map(|(from, to)| to - from);
        Round::new(took, commands, used.collect(), latencies)
    }

    /// Keeps the window full for so long.
    async fn load(&mut self, client: &Client, seconds: f64) -> Result<()> {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < end {
            client
                .send(&self.commands[self.next % self.commands.len()])
                .await?;
            self.next += 1;
        }
        Ok(())
    }
}
