//! A client that nobody here wrote the library of: Go with amqp091-go, by the sample of docs/clients.
//! Where there is no Go or no library (Debian: golang-go and golang-github-rabbitmq-amqp091-go-dev,
//! some 470 MB; `scripts/setup --all`), this says so and passes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::path::Path;

use support::{PairOptions, run, stock};
use tokio::process::Command;

/// Where Debian has libraries of Go.
const GOPATH: &str = "/usr/share/gocode";
const LIBRARY: &str = "/usr/share/gocode/src/github.com/rabbitmq/amqp091-go";

#[test]
fn go_signs_an_agent_in_and_goes_on_at_the_next_broker() {
    let compiler = std::process::Command::new("go").arg("version").output();
    if compiler.is_err() || !Path::new(LIBRARY).exists() {
        println!("NOT RUN: no go, or not {LIBRARY}; run scripts/setup --all");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("stock");
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients/stock_client.go");
    let built = std::process::Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(sample)
        .envs([("GO111MODULE", "off"), ("GOPATH", GOPATH)])
        .env("GOCACHE", folder.path().join("cache"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        let mut client = Command::new(&program);
        client.args(["-pause", "300ms"]);
        stock::moves_to_the_next_broker(&pair, client, "-").await;
    });
}
