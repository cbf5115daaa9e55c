//! Figures and how they are printed.

use std::fmt;

use crate::errors::Result;

/// One measured round.
pub struct Round {
    /// Commands answered a second.
    pub rate: f64,
    /// Milliseconds from sending to the reply: median and 99th percentile.
    pub p50: f64,
    /// See `p50`.
    pub p99: f64,
    /// Milliseconds of CPU time a command: connector, broker, simulator, client.
    pub cpu: [f64; 4],
}

impl Round {
    /// From the raw figures: seconds, commands, CPU milliseconds of the four, microseconds.
    pub fn new(
        seconds: f64,
        commands: u64,
        cpu: Vec<f64>,
        mut latencies: Vec<u32>,
    ) -> Result<Self> {
        if commands == 0 || latencies.is_empty() {
            return Err("nothing was answered in a whole round".into());
        }
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            f64::from(latencies[index.min(latencies.len() - 1)]) / 1e3
        };
        let each = |index: usize| cpu.get(index).copied().unwrap_or(f64::NAN) / commands as f64;
        Ok(Self {
            rate: commands as f64 / seconds,
            p50: at(0.5),
            p99: at(0.99),
            cpu: [each(0), each(1), each(2), each(3)],
        })
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [own, broker, simulator, client] = self.cpu;
        write!(
            f,
            "{:8.0} commands/s  p50 {:6.2} ms  p99 {:6.2} ms  CPU ms/command {own:.4} (broker \
             {broker:.4}, simulator {simulator:.4}, client {client:.4})",
            self.rate, self.p50, self.p99
        )
    }
}

/// All rounds of one connector.
pub struct Series {
    /// Its name.
    pub name: &'static str,
    /// Its rounds.
    pub rounds: Vec<Round>,
}

impl Series {
    /// No rounds yet.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            rounds: Vec::new(),
        }
    }

    /// Commands answered a second, the median of all rounds.
    pub fn median_rate(&self) -> f64 {
        self.spread(|round| round.rate)[1]
    }

    /// Least, median and greatest of a figure.
    fn spread(&self, figure: impl Fn(&Round) -> f64) -> [f64; 3] {
        let mut all: Vec<f64> = self.rounds.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        let middle = match all.len() {
            0 => return [f64::NAN; 3],
            count if count % 2 == 1 => all[count / 2],
            count => f64::midpoint(all[count / 2 - 1], all[count / 2]),
        };
        [all[0], middle, all[all.len() - 1]]
    }
}

type Figure = (&'static str, usize, fn(&Round) -> f64);

const FIGURES: [Figure; 7] = [
    ("commands/s", 0, |round| round.rate),
    ("p50 latency, ms", 2, |round| round.p50),
    ("p99 latency, ms", 2, |round| round.p99),
    ("CPU ms/command", 4, |round| round.cpu[0]),
    ("  of the broker", 4, |round| round.cpu[1]),
    ("  of the simulator", 4, |round| round.cpu[2]),
    ("  of the client", 4, |round| round.cpu[3]),
];

/// Least, median, greatest of every figure, and tandem to the others by the medians.
pub fn print(tandem: &Series, equal: &Series, bare: &Series) {
    println!(
        "{:20} {:>30} {:>30} {:>30} {:>8} {:>8}",
        "(min median max)", "tandem", "equal-work loop", "bare loop", "to equal", "to bare"
    );
    for (name, digits, figure) in FIGURES {
        let all = [tandem, equal, bare].map(|series| series.spread(figure));
        let text = |values: [f64; 3]| values.map(|value| format!("{value:9.digits$}")).join(" ");
        let [ours, equal, bare] = all;
        println!(
            "{name:20} {:>30} {:>30} {:>30} {:8.2} {:8.2}",
            text(ours),
            text(equal),
            text(bare),
            ours[1] / equal[1],
            ours[1] / bare[1]
        );
    }
}

/// Latency at half of tandem's greatest rate, each command sent when it is due.
pub fn print_half(rate: f64, tandem: &Series, equal: &Series) {
    if tandem.rounds.is_empty() {
        return;
    }
    let p99 = |series: &Series| series.spread(|round| round.p99)[1];
    let p50 = |series: &Series| series.spread(|round| round.p50)[1];
    println!(
        "at {rate:.0} commands/s      p50 {:.2} ms (equal-work loop {:.2}), p99 {:.2} ms ({:.2}): {:.2}",
        p50(tandem),
        p50(equal),
        p99(tandem),
        p99(equal),
        p99(tandem) / p99(equal)
    );
}

/// All rounds of all series.
pub fn json(all: &[&Series]) -> serde_json::Value {
    let round = |round: &Round| {
        serde_json::json!({
            "commands_per_second": round.rate,
            "p50_ms": round.p50,
            "p99_ms": round.p99,
            "cpu_ms_per_command": {
                "connector": round.cpu[0],
                "broker": round.cpu[1],
                "simulator": round.cpu[2],
                "client": round.cpu[3],
            },
        })
    };
    let series = all.iter().filter(|series| !series.rounds.is_empty());
    let series = series.map(|series| {
        let rounds: Vec<_> = series.rounds.iter().map(round).collect();
        serde_json::json!({ "connector": series.name, "rounds": rounds })
    });
    serde_json::json!({ "series": series.collect::<Vec<_>>() })
}

/// Journaled commands beside the others, of the same process in the same run.
pub fn print_journaled(journaled: &Series, tandem: &Series) {
    let rates = |series: &Series| series.spread(|round| round.rate);
    let (ours, plain) = (rates(journaled), rates(tandem));
    let latency = journaled.spread(|round| round.p50)[1];
    println!(
        "journaled commands   {:.0} {:.0} {:.0} commands/s (min median max), p50 {latency:.2} ms: \
         {:.2} of the others",
        ours[0],
        ours[1],
        ours[2],
        ours[1] / plain[1]
    );
}
