//! The history as an audit: who did what, why, and what changed; over restarts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use serde_json::Value;
use support::pair::{Instance, tandem};
use support::{PairOptions, run, until};

/// The rows of an instance, the newest first.
async fn rows(instance: &Instance) -> Vec<Value> {
    let rows = instance.json("/api/v1/history").await;
    rows.as_array().cloned().unwrap_or_default()
}

fn of<'a>(rows: &'a [Value], kind: &str, subject: &str) -> Vec<&'a Value> {
    let fits = |row: &&Value| row["kind"] == kind && row["subject"] == subject;
    rows.iter().filter(fits).collect()
}

fn words<'a>(rows: &[&'a Value]) -> Vec<&'a str> {
    rows.iter().filter_map(|row| row["to"].as_str()).collect()
}

#[test]
fn verbs_and_changes_are_told_after_a_restart_and_a_goodbye_is_no_loss() {
    run(async |shared| {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "a-long-secret-token").unwrap();
        let token = token.display().to_string();
        let options = PairOptions::default().set("admin.token-file", &token);
        let mut pair = shared.pair(options).await;
        // A verb from the command line, with its reason.
        let (code, said) = pair
            .tandem(
                &pair.gc1,
                &[
                    "switchover",
                    "--to",
                    "gc-2",
                    "--wait",
                    "--reason",
                    "patch day",
                    "--token-file",
                    &token,
                ],
            )
            .await;
        assert_eq!(code, 0, "{said}");
        let before = rows(&pair.gc1).await;
        let verbs = of(&before, "operator", "gc-2");
        assert_eq!(verbs.len(), 1, "{before:#?}");
        assert_eq!(verbs[0]["token"], "admin.token");
        assert_eq!(verbs[0]["address"], "127.0.0.1");
        assert_eq!(verbs[0]["reason"], "patch day");
        let to = verbs[0]["to"].as_str().unwrap();
        assert!(to.starts_with("switchover: "), "{to}");
        // What is refused is told as well.
        let refused = pair
            .tandem(
                &pair.gc1,
                &["switchover", "--to", "gc-9", "--token-file", &token],
            )
            .await;
        assert_eq!(refused.0, 1, "{}", refused.1);
        let now = rows(&pair.gc1).await;
        let to = words(&of(&now, "operator", "gc-9")).join("");
        assert!(to.starts_with("switchover refused: "), "{to}");
        // An operator is a person: what happens by itself has other words.
        assert!(of(&rows(&pair.gc2).await, "operator", "agents").is_empty());

        // A planned stop.
        pair.gc2.becomes("leader").await;
        let process = pair.gc2.process.as_mut().unwrap();
        process.terminate();
        until("gc-2 has ended", async || !process.is_running()).await;
        pair.gc1.becomes("leader").await;
        until("gc-2 is known to have left", async || {
            pair.gc1.sees("gc-2").await == "left"
        })
        .await;
        // Longer than it takes to find a consumer gone.
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        let now = rows(&pair.gc1).await;
        let seen = words(&of(&now, "peer", "gc-2"));
        assert_eq!(seen, ["left", "alive"], "{now:#?}");
        assert!(!pair.gc1.log_text().contains("peer lost"));
        let metrics = pair.gc1.get("/metrics").await.unwrap();
        assert!(
            metrics.contains("tandem_peer_left{peer=\"gc-2\"} 1"),
            "{metrics}"
        );

        // kill -9, and a line that was torn by it.
        pair.gc1.kill();
        let text = std::fs::read_to_string(&pair.gc1.config).unwrap();
        let dir = text
            .lines()
            .find_map(|line| line.strip_prefix("data.dir="))
            .unwrap();
        let file = std::path::Path::new(dir).join("history.jsonl");
        let mut kept = std::fs::read(&file).unwrap();
        kept.truncate(kept.len() - 9);
        std::fs::write(&file, kept).unwrap();
        let config = pair.gc1.config.display().to_string();
        let asked = ["history", "--offline", "--since", "1h", "--config", &config];
        let offline = tandem(asked.map(str::to_owned).to_vec()).await;
        assert!(
            offline
                .1
                .contains("patch day (admin.token, from 127.0.0.1)"),
            "{config}: {}",
            offline.1
        );
        pair.gc1.start();
        pair.gc1.becomes("leader").await;
        let after = rows(&pair.gc1).await;
        assert_eq!(of(&after, "operator", "gc-2").len(), 1);
        assert_eq!(
            words(&of(&after, "instance", "gc-1")),
            ["started", "started"]
        );
        let since = pair.gc1.json("/api/v1/history?since=1h").await;
        assert_eq!(since.as_array().unwrap().len(), after.len());
        let at = after[0]["at"].as_str().unwrap();
        let since = pair.gc1.json(&format!("/api/v1/history?since={at}")).await;
        assert!(since.as_array().unwrap().len() < after.len(), "{since:#}");
        assert!(pair.gc1.get("/api/v1/history?since=soon").await.is_none());
    });
}

#[test]
fn a_broker_that_is_down_is_one_row_with_a_count() {
    run(async |shared| {
        let options = PairOptions {
            sites: true,
            instances: 1,
            ..PairOptions::default()
        };
        let pair = shared.pair(options).await;
        pair.sites[0].cut().await;
        until("it was tried several times", async || {
            let rows = rows(&pair.gc1).await;
            let downs = rows
                .iter()
                .filter(|row| row["kind"] == "broker" && row["to"] == "down");
            let downs: Vec<&Value> = downs.collect();
            assert!(downs.len() <= 1, "{downs:#?}");
            downs
                .first()
                .is_some_and(|row| row["count"].as_u64().unwrap_or(1) >= 3)
        })
        .await;
    });
}
