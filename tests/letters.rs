//! `tandem deadletter` on real dead letters of a real broker.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;
use support::{PairOptions, Wire, run, until};

/// `tandem deadletter` with the words: its exit code, and what it says.
async fn deadletter(config: &str, words: &[&str]) -> (i32, String) {
    let all = [&["deadletter"], words, &["--config", config]].concat();
    support::site::tandem(&all).await
}

/// The dead letters, of which none shows a password.
async fn listed(config: &str) -> Vec<Value> {
    let (code, text) = deadletter(config, &["list", "--json"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("hunter2"));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn dead_letters_are_listed_shown_sent_again_and_thrown_away() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        let wire = Wire::open(&pair, 0).await;
        // One that the instance puts there itself, redacted; and one that can be sent again.
        let mystery = BasicProperties::default()
            .with_type("Nonsense#1001".into())
            .with_message_id("mystery".into());
        wire.publish(mystery, b"pw-hunter2").await;
        let mut headers = FieldTable::default();
        headers.insert("x-reason".into(), AMQPValue::LongString("test".into()));
        headers.insert("x-deadline".into(), AMQPValue::LongLongInt(1));
        let lost = BasicProperties::default()
            .with_type("MakeNotReadyWithReason#1001".into())
            .with_message_id("lost".into())
            .with_timestamp(1_700_000_000)
            .with_headers(headers);
        let queue = format!("{}.dead-letter", pair.cluster);
        wire.publish_to(&queue, lost, b"1").await;

        let config = pair.gc1.config.display().to_string();
        let tandem = async |words: &[&str]| deadletter(&config, words).await;
        let list = async || listed(&config).await;
        until("both are there", async || list().await.len() == 2).await;
        let found = list().await;
        let named = |id: &str| found.iter().find(|letter| letter["id"] == id).unwrap();
        let (mystery, lost) = (named("mystery"), named("lost"));
        assert_eq!(
            (&mystery["redacted"], &mystery["requeueable"]),
            (&true.into(), &false.into())
        );
        assert_eq!(
            (&lost["agent"], &lost["reason"], &lost["size"]),
            (&"1001".into(), &"test".into(), &1.into())
        );
        assert_eq!(lost["sent"], "2023-11-14T22:13:20.000Z");
        let (_, text) = tandem(&["list"]).await;
        assert!(
            text.contains("mystery") && text.contains("redacted"),
            "{text}"
        );
        let (code, text) = tandem(&["show", "lost"]).await;
        assert!(code == 0 && text.contains("\"body\": \"1\""), "{text}");
        assert!(!text.contains("hunter2"));

        // Nobody is asked here, so it must be said.
        let (code, text) = tandem(&["requeue", "lost"]).await;
        assert!(code == 64 && text.contains("--yes"), "{text}");
        let (code, text) = tandem(&["requeue", "nobody", "--yes"]).await;
        assert!(code == 1 && text.contains("no letter nobody"), "{text}");
        assert!(text.contains(lost["key"].as_str().unwrap()), "{text}");
        let (code, text) = tandem(&["requeue", "mystery", "--yes"]).await;
        assert!(code == 1 && text.contains("redacted"), "{text}");
        assert_eq!(list().await.len(), 2);
        let before = pair.effects(1001).len();
        let (code, text) = tandem(&["requeue", "lost", "--yes"]).await;
        assert_eq!(code, 0, "{text}");
        until("it was carried out", async || {
            pair.effects(1001).len() > before
        })
        .await;
        let key = mystery["key"].as_str().unwrap();
        let (code, text) = tandem(&["discard", key, "--yes", "--json"]).await;
        assert_eq!(code, 0, "{text}");
        until("none is left", async || list().await.is_empty()).await;
    });
}

/// What the instance itself put aside: the reason that can be left out does not bring it back, and
/// a command whose type stands in its body is known by name.
#[test]
fn a_letter_that_the_instance_made_is_sent_again_and_carried_out() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        let wire = Wire::open(&pair, 0).await;
        let now = std::time::SystemTime::now();
        let millis = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        let refused = |id: &str| {
            BasicProperties::default()
                .with_message_id(id.into())
                .with_timestamp(u64::try_from(millis.as_millis()).unwrap())
                .with_reply_to(format!("{}.control", pair.cluster).into())
        };
        let body = br#"{"type":"MakeNotReadyWithReason#1001","body":"1"}"#;
        wire.publish(refused("by-body"), body).await;
        let secret = br#"{"type":"Login#1001","body":"pw-hunter2,2001"}"#;
        wire.publish(refused("secret"), secret).await;

        let config = pair.gc1.config.display().to_string();
        let tandem = async |words: &[&str]| deadletter(&config, words).await;
        let list = async || listed(&config).await;
        until("both were put aside", async || list().await.len() == 2).await;
        let found = list().await;
        let named = |id: &str| found.iter().find(|letter| letter["id"] == id).unwrap();
        for (id, command, requeueable) in [
            ("by-body", "MakeNotReadyWithReason#1001", true),
            ("secret", "Login#1001", false),
        ] {
            let letter = named(id);
            assert_eq!(letter["command"], command);
            assert_eq!(letter["agent"], "1001");
            assert_eq!(letter["reason"], "reply_to_forbidden");
            assert_eq!(letter["requeueable"], requeueable, "{letter:#}");
            assert!(letter["ageSeconds"].as_u64().unwrap() < 600, "{letter:#}");
        }
        let before = pair.effects(1001).len();
        let (code, text) = tandem(&["requeue", "by-body", "--yes"]).await;
        assert_eq!(code, 0, "{text}");
        until("it was carried out", async || {
            pair.effects(1001).len() > before
        })
        .await;
        until("only the other one is left", async || {
            list().await.len() == 1
        })
        .await;
        let (code, text) = tandem(&["requeue", "secret", "--yes"]).await;
        assert!(code == 1 && text.contains("redacted"), "{text}");
    });
}
