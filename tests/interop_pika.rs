//! A client that nobody here wrote the library of: Python with pika, by the script of docs/clients.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::path::Path;

use support::{PairOptions, run, stock};
use tokio::process::Command;

/// The interpreters to try: Debian's has Debian's pika.
const PYTHONS: [&str; 2] = ["/usr/bin/python3", "python3"];

/// An interpreter that has pika.
async fn python() -> &'static str {
    for candidate in PYTHONS {
        let asked = Command::new(candidate).args(["-c", "import pika"]).output();
        if asked.await.is_ok_and(|output| output.status.success()) {
            return candidate;
        }
    }
    panic!("no Python with pika (Debian: python3-pika); run scripts/setup");
}

/// Runs a script to its end; what it printed.
async fn script(file: &str, words: &[&str]) -> String {
    let output = Command::new(python().await)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(file))
        .args(words)
        .kill_on_drop(true)
        .output()
        .await
        .expect("the script runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}

#[test]
fn python_pika_signs_an_agent_in_and_makes_a_call() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::default().instances(1)).await;
        let words = [
            ["--broker", &pair.brokers[0]],
            ["--queue", &pair.queue],
            ["--cluster", &pair.cluster],
            ["--agent", "1001"],
            ["--extension", "7001"],
            ["--call", "5550142"],
            ["--timeout", "30"],
            ["--seconds", "2"],
        ];
        let text = script("docs/clients/python_pika.py", words.as_flattened()).await;
        assert!(text.contains("NOT_READY"), "{text}");
        let kinds: Vec<_> = pair.effects(1001).iter().map(|e| e.kind).collect();
        assert_eq!(
            kinds.iter().filter(|kind| **kind == "MAKE_CALL").count(),
            1,
            "{kinds:?}"
        );
        assert!(kinds.contains(&"LOGIN"), "{kinds:?}");
    });
}

#[test]
fn python_pika_goes_on_at_the_next_broker() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients/python_pika.py");
        let mut client = Command::new(python().await);
        client.arg(sample).args(["--pause", "0.3"]);
        stock::moves_to_the_next_broker(&pair, client, "--").await;
    });
}

/// Outcome of a case of `pika_mistakes.py`, and the error code where there is one.
fn wanted(case: &str) -> (&'static [&'static str], Option<&'static str>) {
    let refused = &["REJECTED"][..];
    match case {
        "utf-16" | "utf-16 without mark" | "latin-1" | "deep" | "huge number" => {
            (refused, Some("PLEASE_RETRY"))
        }
        _ if case.starts_with("old ") || case.starts_with("past ") => {
            (&["EXPIRED"], Some("EXPIRED"))
        }
        _ => (&["OK", "ACCEPTED"], None),
    }
}

#[test]
fn what_a_client_sends_by_mistake_is_understood_or_answered() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        let words = [pair.brokers[0].as_str(), &pair.queue];
        let before = pair.gc1.status().await["groups"][0]["tag"].clone();
        let text = script("tests/data/clients/pika_mistakes.py", &words).await;
        let mut cases = 0;
        for line in text.lines() {
            let reply: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            let (outcomes, code) = wanted(reply["case"].as_str().unwrap_or_default());
            let outcome = reply["outcome"].as_str().unwrap_or_default();
            assert!(outcomes.contains(&outcome), "{reply}");
            assert_eq!(reply["code"].as_str(), code, "{reply}");
            cases += 1;
        }
        assert!(cases > 40, "{text}");
        let effects = |agent| pair.effects(agent);
        let called = |agent: u32| -> Vec<String> {
            let calls = effects(agent).into_iter().filter(|e| e.kind == "MAKE_CALL");
            calls.map(|call| call.detail.into()).collect()
        };
        // Nothing that was old was dialled, and of what was dialled every digit arrived.
        for (agent, number) in [
            (1001, "5550101"),
            (1002, "5550102"),
            (1003, "5550103"),
            (1004, "5550104"),
        ] {
            assert_eq!(called(agent), [number], "{agent}");
            assert!(effects(agent).iter().any(|e| e.kind == "LOGIN"), "{agent}");
        }
        assert_eq!(
            pair.gc1.status().await["groups"][0]["tag"],
            before,
            "the same consumer"
        );
    });
}
