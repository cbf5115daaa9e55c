//! Stock clients with a list of brokers: run against a pair, and cut off from the first broker in
//! the middle of their work.

use std::process::Stdio;

use tandem::lab::Relay;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::Pair;

/// Signs agent 1001 in at broker 1 by way of a relay, which is cut once the sign-in is answered; the
/// client must go on at broker 2. What it printed.
pub async fn moves_to_the_next_broker(pair: &Pair, mut client: Command, dash: &str) -> String {
    let bare = |uri: &str| uri.rsplit('@').next().unwrap_or(uri).to_owned();
    let first = bare(&pair.brokers[0]);
    let first = first.split('/').next().unwrap();
    let relay = Relay::start(first.parse().unwrap()).await.unwrap();
    let through = relay.address().to_string();
    let brokers = [
        pair.brokers[0].replace(first, &through),
        pair.brokers[1].clone(),
    ];
    let words = [
        ("broker", brokers.join(",")),
        ("queue", pair.queue.clone()),
        ("cluster", pair.cluster.clone()),
        ("agent", "1001".to_owned()),
        ("extension", "7001".to_owned()),
        ("call", "5550142".to_owned()),
        ("seconds", "2".to_owned()),
    ];
    for (name, value) in words {
        client.arg(format!("{dash}{name}")).arg(value);
    }
    let mut running = client
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the client runs");
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut text = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.starts_with("reply ") && line.contains("\"Login\"") {
            relay.cut().await;
        }
        text.push_str(&line);
        text.push('\n');
    }
    let output = running.wait_with_output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let connected = text.matches("connected to ").count();
    assert!(connected >= 2, "it did not change brokers: {text}");
    assert!(text.contains("NOT_READY"), "{text}");
    let effects = pair.effects(1001);
    let count = |kind: &str| effects.iter().filter(|entry| entry.kind == kind).count();
    assert_eq!((count("LOGIN"), count("MAKE_CALL")), (1, 1), "{text}");
    text
}
