//! What was said while nobody was served.

use std::time::{Duration, Instant};

use tandem::lab::{BrokerNetwork, RabbitNode};

use super::Pair;
use super::load::Account;

/// How much before and after a silence is told.
const AROUND: Duration = Duration::from_secs(2);

/// Prints what instances and brokers wrote into their logs around the longest silence.
pub fn tell(pair: &Pair, network: &BrokerNetwork, account: &Account) {
    let Some((from, to)) = account.longest_silence() else {
        return;
    };
    println!("no answer from {} to {}:", clock(from), clock(to));
    let (from, to) = (clock(from - AROUND), clock(to + AROUND));
    for instance in [&pair.gc1, &pair.gc2] {
        tell_lines(instance.name, &instance.log_text(), (&from, &to));
    }
    for node in network.brokers().iter().flat_map(|broker| broker.nodes()) {
        tell_lines(&node.place().to_string(), &said_by(node), (&from, &to));
    }
}

/// A moment as logs write it, UTC, to the millisecond.
fn clock(at: Instant) -> String {
    let (now, here) = (chrono::Utc::now(), Instant::now());
    let at = match at.checked_duration_since(here) {
        Some(ahead) => now + ahead,
        None => now - (here - at),
    };
    at.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// The lines of that time.
fn tell_lines(name: &str, log: &str, (from, to): (&str, &str)) {
    for line in log.lines() {
        let time = line.get(..from.len()).unwrap_or_default().replace('T', " ");
        if time.starts_with("20") && from <= time.as_str() && time.as_str() <= to {
            println!("{name}: {line}");
        }
    }
}

/// Everything that a node has written into its logs.
fn said_by(node: &RabbitNode) -> String {
    let files = std::fs::read_dir(node.folder().join("log"));
    let files = files.into_iter().flatten().flatten();
    let texts = files.map(|file| std::fs::read(file.path()).unwrap_or_default());
    texts
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .collect()
}
