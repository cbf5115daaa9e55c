//! Throughput, latency, CPU time and memory of one instance, beside a bare loop and an equal-work
//! loop.
//!
//! ```text
//!   client (this process) ──▶ broker ──▶ tandem run       ──▶ simulator   rounds in turn
//!                        ──▶        ──▶ equal-work loop  ──▶
//!                        ──▶        ──▶ bare loop        ──▶
//! ```
//!
//! All connectors run all the time, all but one are idle. tandem also gets rounds of
//! non-idempotent commands, which are journaled. See `docs/benchmarks.md`.

mod bare;
mod equal;
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

/// How long the signed-in agents of the memory step are left alone.
const IDLE: Duration = Duration::from_secs(10);
/// Commands that may be unanswered.
const WINDOW: usize = 100;
/// The same where they are sent at a rate: who falls behind is not waited for before that.
const OPEN_WINDOW: usize = 20_000;

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
    /// Agents of each connector
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    agents: u64,
    /// Sends so many commands a second whatever comes back, and counts latency from the time at
    /// which each was to be sent; 0 keeps 100 commands unanswered instead
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// A second instance, which follows and gets all outcomes
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    peers: u8,
    /// Writes all figures into this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Leaves out the rounds at half of tandem's rate
    #[arg(long)]
    no_half: bool,
    /// The client also takes the events
    #[arg(long)]
    events: bool,
    /// Agents of the memory step, which also measures their sign-in and the cost of leaving them
    /// alone
    #[arg(long, default_value_t = 1_000)]
    many: u64,
    /// Leave the memory step out
    #[arg(long)]
    no_memory: bool,
    /// Only one of: tandem, equal, bare, journaled
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
            [_, "bare", broker, queue, base] => bare::run(broker, queue, base, None).await,
            [_, "bare", broker, queue, base, address, first, after] => {
                let streams = equal::Streams::parse(address, first, after)?;
                bare::run(broker, queue, base, Some(streams)).await
            }
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
    let agents = args.agents;
    let stage = Stage::start(&args.tandem, 3 * agents + args.many, args.peers > 0).await?;
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| only == name);
    let tandem = stage.tandem("tandem-1").await?;
    let peer = match args.peers {
        0 => None,
        _ => Some(stage.peer("tandem-1").await?),
    };
    let took = stage.sign_in("tandem-1", 0..agents).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before_load = resident_mb(tandem.pid())?;
    eprintln!("{agents} agents signed in through tandem in {took:.1?}");
    let equal = stage.bare("equal", Some(agents..2 * agents)).await?;
    let bare = stage.bare("bare", None).await?;
    stage.sign_in_directly(agents..3 * agents).await?;
    let pids = (tandem.pid(), equal.pid(), bare.pid());
    eprintln!("tandem {} equal {} bare {}", pids.0, pids.1, pids.2);
    let mut connectors = [
        Connector::new("tandem", "tandem-1", pids.0, 0..agents),
        Connector::new("equal", "equal", pids.1, agents..2 * agents),
        Connector::new("bare", "bare", pids.2, 2 * agents..3 * agents),
        Connector::journaled("tandem-1", pids.0, agents),
    ];
    for round in 0..args.rounds {
        for connector in connectors.iter_mut().filter(|c| wanted(c.series.name)) {
            let measured = connector.round(&stage, &args, args.rate).await?;
            eprintln!("round {} {:9} {measured}", round + 1, connector.series.name);
            connector.series.rounds.push(measured);
        }
    }
    let half = connectors[0].series.median_rate() / 2.0;
    if args.only.is_none() && !args.no_half && args.rate == 0.0 {
        for _ in 0..args.rounds {
            for connector in &mut connectors[..2] {
                let measured = connector.round(&stage, &args, half).await?;
                eprintln!("half    {:9} {measured}", connector.series.name);
                connector.half.rounds.push(measured);
            }
        }
    }
    let after_load = resident_mb(tandem.pid())?;
    drop((tandem, peer, equal, bare));
    let [tandem, equal, bare, journaled] = &connectors;
    report::print(&tandem.series, &equal.series, &bare.series);
    report::print_journaled(&journaled.series, &tandem.series);
    report::print_half(half, &tandem.half, &equal.half);
    let sent: usize = [tandem, journaled].iter().map(|c| c.next).sum();
    println!(
        "memory before and after the load ({agents} agents, {sent} commands, all remembered): \
         {before_load:.1} MB, {after_load:.1} MB: {:.0} bytes a command",
        (after_load - before_load) * 1e6 / sent.max(1) as f64
    );
    let mut all: Vec<&Series> = connectors.iter().map(|c| &c.series).collect();
    all.extend(connectors.iter().map(|c| &c.half));
    let mut figures = report::json(&all);
    figures["agents"] = agents.into();
    figures["peers"] = args.peers.into();
    figures["memory_before_load_mb"] = before_load.into();
    figures["memory_after_load_mb"] = after_load.into();
    figures["commands_through_tandem"] = sent.into();
    if !args.no_memory {
        let step = memory(&stage, 3 * agents, args.many).await?;
        figures["memory_empty_mb"] = step.before_mb.into();
        figures["many_agents"] = args.many.into();
        figures["memory_many_agents_mb"] = step.after_mb.into();
        figures["sign_in_many_agents_seconds"] = step.sign_in_seconds.into();
        figures["idle_cpu_ms_a_second"] = step.idle_ms_a_second.into();
    }
    if args.quick {
        println!("quick run: the figures above mean nothing");
    }
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{figures:#}\n"))?;
    }
    Ok(())
}

/// What the memory step measured.
struct Step {
    before_mb: f64,
    after_mb: f64,
    sign_in_seconds: f64,
    idle_ms_a_second: f64,
}

/// A fresh process, its agents signed in and subscribed, nothing else.
async fn memory(stage: &Stage, first: u64, many: u64) -> Result<Step> {
    let tandem = stage.tandem("tandem-2").await?;
    let before_mb = resident_mb(tandem.pid())?;
    let took = stage.sign_in("tandem-2", first..first + many).await?;
    // What the sign-ins left behind is still told and read for a moment.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after_mb = resident_mb(tandem.pid())?;
    let (cpu, since) = (cpu_ms(tandem.pid())?, Instant::now());
    tokio::time::sleep(IDLE).await;
    let idle_ms_a_second = (cpu_ms(tandem.pid())? - cpu) / since.elapsed().as_secs_f64();
    let sign_in_seconds = took.as_secs_f64();
    println!(
        "memory: {before_mb:.1} MB without agents, {after_mb:.1} MB with {many} signed in and \
         subscribed; sign-in of all took {sign_in_seconds:.1} s; left alone they cost \
         {idle_ms_a_second:.0} ms CPU a second"
    );
    Ok(Step {
        before_mb,
        after_mb,
        sign_in_seconds,
        idle_ms_a_second,
    })
}

struct Connector {
    series: Series,
    /// At half of tandem's rate.
    half: Series,
    queue: &'static str,
    pid: u32,
    commands: Vec<Command>,
    wanted: &'static [&'static str],
    next: usize,
}

impl Connector {
    /// Non-idempotent commands through tandem: each is a request like the others, but durable
    /// before and after. The call to be held does not exist, so that nothing piles up.
    fn journaled(queue: &'static str, pid: u32, agents: u64) -> Self {
        let command = |n| Command {
            kind: format!("HoldCall#{}", agent(n)),
            body: "999999999".to_owned(),
        };
        Self {
            series: Series::new("journaled"),
            half: Series::new("journaled, half"),
            queue,
            pid,
            commands: (0..agents).map(command).collect(),
            wanted: &["FAILED"],
            next: 0,
        }
    }

    fn new(
        name: &'static str,
        queue: &'static str,
        pid: u32,
        agents: std::ops::Range<u64>,
    ) -> Self {
        let command = |state: &str, n| Command {
            kind: format!("{state}#{}", agent(n)),
            body: String::new(),
        };
        let ready = agents.clone().map(|n| command("MakeReady", n));
        let not_ready = agents.map(|n| command("MakeNotReady", n));
        Self {
            series: Series::new(name),
            half: Series::new(name),
            queue,
            pid,
            commands: ready.chain(not_ready).collect(),
            wanted: &["OK", "ACCEPTED"],
            next: 0,
        }
    }

    /// `rate`: commands a second; 0 keeps the window full.
    async fn round(&mut self, stage: &Stage, args: &Args, rate: f64) -> Result<Round> {
        let uri = stage.broker.amqp_uri();
        let events = args.events.then_some(DESTINATION);
        let window = if rate > 0.0 { OPEN_WINDOW } else { WINDOW };
        let client = Client::open(&uri, self.queue, window, events, self.wanted).await?;
        let pids = [
            self.pid,
            stage.broker_pid,
            stage.simulator.pid(),
            std::process::id(),
        ];
        let cpu = || -> Result<Vec<f64>> { pids.iter().map(|pid| cpu_ms(*pid)).collect() };
        self.load(&client, args.warm_up, rate).await?;
        client.take_latencies()?;
        let (before, answered, start) = (cpu()?, client.answered(), Instant::now());
        self.load(&client, args.seconds, rate).await?;
        let took = start.elapsed().as_secs_f64();
        let latencies = client.take_latencies()?;
        let (after, commands) = (cpu()?, client.answered() - answered);
        client.settle().await?;
        let used = before.iter().zip(&after).map(|(from, to)| to - from);
        Round::new(took, commands, used.collect(), latencies)
    }

    /// Keeps the window full for so long, or sends at that rate.
    async fn load(&mut self, client: &Client, seconds: f64, rate: f64) -> Result<()> {
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(seconds);
        let mut sent: u32 = 0;
        while Instant::now() < end {
            let command = &self.commands[self.next % self.commands.len()];
            let due = (rate > 0.0).then(|| start + Duration::from_secs_f64(f64::from(sent) / rate));
            if let Some(due) = due {
                tokio::time::sleep_until(due.into()).await;
            }
            client.send_as_of(command, due).await?;
            self.next += 1;
            sent += 1;
        }
        Ok(())
    }
}
