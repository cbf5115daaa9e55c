//! The program as operators run it, and what it printed.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support;

/// Runs the program.
pub async fn tandem(args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.args(args).kill_on_drop(true);
    command.output().await.expect("the program runs")
}

pub async fn doctor(config: &Path) -> (Option<i32>, Value) {
    let config = config.display().to_string();
    let output = tandem(&["doctor", "--json", "--config", &config]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&text);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (
        output.status.code(),
        report.unwrap_or_else(|_| panic!("{text}{said}")),
    )
}

/// Findings of a verdict, as `part: seen`, each with its cure.
pub fn findings(report: &Value, verdict: &str) -> Vec<String> {
    let all = report["findings"].as_array().unwrap().iter();
    all.filter(|finding| finding["verdict"] == verdict)
        .inspect(|finding| {
            let mended = verdict == "good" || !finding["cure"].as_str().unwrap().is_empty();
            assert!(mended, "no cure: {finding}");
        })
        .map(|finding| {
            let word = |key: &str| finding[key].as_str().unwrap().to_owned();
            format!("{}: {}", word("part"), word("seen"))
        })
        .collect()
}

/// The last JSON document that a command printed.
pub fn table(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = text
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok());
    last.unwrap_or_else(|| panic!("{text}{said}"))
}

/// The first two lines of a command that goes on for ever.
pub async fn watched(args: &[&str]) -> [Value; 2] {
    use tokio::io::AsyncBufReadExt as _;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tandem"));
    command
        .args(args)
        .kill_on_drop(true)
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(support::LIMIT, lines.next_line()).await;
        serde_json::from_str(&line.unwrap().unwrap().unwrap()).unwrap()
    };
    [next().await, next().await]
}

/// Whether one of them has all these parts.
pub fn has(found: &[String], parts: &[&str]) -> bool {
    let fits = |one: &&String| parts.iter().all(|part| one.contains(part));
    found.iter().any(|one| fits(&one))
}
