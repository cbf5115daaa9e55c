//! A client that nobody here wrote the library of: Node with amqplib, by the script of docs/clients.
//! No distribution packages amqplib, and a test uses no network: where TANDEM_NODE_MODULES does not
//! name a folder into which `npm install amqplib` was run, this says so and passes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::path::{Path, PathBuf};

use support::{PairOptions, run, stock};
use tokio::process::Command;

#[test]
fn node_amqplib_signs_an_agent_in_and_makes_a_call() {
    let Some(folder) = std::env::var_os("TANDEM_NODE_MODULES").map(PathBuf::from) else {
        println!("not run: TANDEM_NODE_MODULES names no folder with amqplib in node_modules");
        return;
    };
    assert!(folder.join("node_modules/amqplib").exists(), "{folder:?}");
    run(async |shared| {
        let pair = shared.pair(PairOptions::default().instances(1)).await;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients/node_amqplib.mjs");
        let output = Command::new("node")
            .arg(script)
            .current_dir(&folder)
            .args(["--broker", &pair.brokers[0]])
            .args(["--queue", &pair.queue])
            .args(["--cluster", &pair.cluster])
            .args(["--agent", "1001", "--extension", "7001"])
            .args(["--call", "5550142", "--timeout", "30", "--seconds", "2"])
            .kill_on_drop(true)
            .output()
            .await
            .expect("node runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}\n{errors}");
        assert!(text.contains("NOT_READY"), "{text}");
        let kinds: Vec<_> = pair.effects(1001).iter().map(|e| e.kind).collect();
        let calls = kinds.iter().filter(|kind| **kind == "MAKE_CALL").count();
        assert_eq!(calls, 1, "{kinds:?}");
        assert!(kinds.contains(&"LOGIN"), "{kinds:?}");
    });
}

#[test]
fn node_amqplib_goes_on_at_the_next_broker() {
    let Some(folder) = std::env::var_os("TANDEM_NODE_MODULES").map(PathBuf::from) else {
        println!("NOT RUN: TANDEM_NODE_MODULES names no folder with amqplib in node_modules");
        return;
    };
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients/node_amqplib.mjs");
        let mut client = Command::new("node");
        client.arg(sample).args(["--pause", "300"]);
        client.current_dir(&folder);
        stock::moves_to_the_next_broker(&pair, client, "--").await;
    });
}
