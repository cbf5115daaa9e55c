//! Bounded, seeded fuzzing of everything that reads what others wrote.
//!
//! A few seconds a target as a test; by hand `scripts/fuzz --minutes 10`. A failure prints the
//! input's file and how to repeat it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tandem::fuzzing::{TARGETS, Target};

/// Longest input.
const MAX_LEN: usize = 4096;
/// Words that steer the mutations into the readers.
const WORDS: [&str; 31] = [
    "#",
    ",",
    "null",
    "<",
    ">",
    "</",
    "/>",
    "<!DOCTYPE a [",
    "<![CDATA[",
    "]]>",
    "&lt;",
    "&#0;",
    "&#x10ffff;",
    "&x;",
    "<!--",
    "{\"type\":\"",
    "\":\"",
    "[[[[",
    "}}",
    "\\u0000",
    "\\ud800",
    "\\ud83c\\udfe2",
    "%2e%2e",
    "%252e",
    "..;",
    "\u{feff}",
    "\u{e9}",
    "18446744073709551616",
    "-1",
    "${A:-",
    "kind",
];

/// xorshift64*: repeatable from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/fuzz")
        .join(target)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder(target))
        .expect("a corpus")
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut data = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(data.len() + 1);
        match random.below(7) {
            0 if at < data.len() => data[at] ^= 1 << random.below(8),
            1 if at < data.len() => data[at] = random.next() as u8,
            2 => {
                let end = (at + random.below(16)).min(data.len());
                data.drain(at..end);
            }
            3 => {
                let word = WORDS[random.below(WORDS.len())].bytes();
                data.splice(at..at, word);
            }
            4 => {
                let end = (at + random.below(64)).min(data.len());
                let copy = data[at..end].repeat(1 + random.below(4));
                data.splice(at..at, copy);
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            _ => data.truncate(at),
        }
    }
    data.truncate(MAX_LEN);
    data
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs one target; gives back how many inputs it took.
fn fuzz((name, target): Target, seed: u64, length: Duration) -> u64 {
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name}: no corpus");
    let mut random = Random(seed | 1);
    let begin = Instant::now();
    let mut count = 0;
    for data in &corpus {
        check(name, target, data, seed);
    }
    while begin.elapsed() < length {
        for _ in 0..50 {
            check(name, target, &mutate(&mut random, &corpus), seed);
            count += 1;
        }
    }
    count
}

fn check(name: &str, target: fn(&[u8]), data: &[u8], seed: u64) {
    if catch_unwind(|| target(data)).is_err() {
        let file = std::env::temp_dir().join(format!("tandem-fuzz-{name}-{seed:x}"));
        let _ = std::fs::write(&file, data);
        panic!(
            "{name} fails on {} ({} bytes); seed {seed}: move the file to {} and run \
             `cargo test --test fuzz`",
            file.display(),
            data.len(),
            folder(name).display()
        );
    }
}

#[test]
fn no_input_breaks_a_reader() {
    let seconds = setting("TANDEM_FUZZ_SECONDS").unwrap_or(3);
    // The same inputs every time as a test; others by hand.
    let seed = setting("TANDEM_FUZZ_SEED").unwrap_or(20_330_102);
    let only = std::env::var("TANDEM_FUZZ_TARGET").ok();
    for target in TARGETS {
        if only.as_deref().is_some_and(|only| only != target.0) {
            continue;
        }
        let count = fuzz(target, seed, Duration::from_secs(seconds));
        println!("{}: {count} inputs in {seconds} s, seed {seed}", target.0);
        assert!(count > 0);
    }
}
