//! A client that nobody here wrote the library of: Java with RabbitMQ's client, by the sample of
//! docs/clients. Where there is no JDK or no library (Debian: default-jdk-headless and
//! librabbitmq-client-java, some 260 MB; `scripts/setup --all`), this says so and passes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::path::Path;

use support::{PairOptions, run, stock};
use tokio::process::Command;

/// Debian's places.
const JARS: [&str; 2] = [
    "/usr/share/java/amqp-client.jar",
    "/usr/share/java/slf4j-api.jar",
];

#[test]
fn java_signs_an_agent_in_and_goes_on_at_the_next_broker() {
    let jars = JARS.iter().all(|jar| Path::new(jar).exists());
    let compiler = std::process::Command::new("javac").arg("-version").output();
    if !jars || compiler.is_err() {
        println!("NOT RUN: no javac, or not {JARS:?}; run scripts/setup --all");
        return;
    }
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients/StockClient.java");
        let mut client = Command::new("java");
        client.arg("-cp").arg(JARS.join(":")).arg(sample);
        client.args(["--pause", "300"]);
        stock::moves_to_the_next_broker(&pair, client, "--").await;
    });
}
