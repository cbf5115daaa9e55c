//! A client that nobody here wrote the library of: Python with pika, by the script of docs/clients.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::path::Path;

use support::{PairOptions, run};
use tokio::process::Command;

/// The interpreters to try: Debian's has Debian's pika.
const PYTHONS: [&str; 2] = ["/usr/bin/python3", "python3"];

#[test]
fn python_pika_signs_an_agent_in_and_makes_a_call() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::default().instances(1)).await;
        let mut python = None;
        for candidate in PYTHONS {
            let asked = Command::new(candidate).args(["-c", "import pika"]).output();
            if asked.await.is_ok_and(|output| output.status.success()) {
                python = Some(candidate);
                break;
            }
        }
        let python = python.expect("Python with pika (Debian: python3-pika); run scripts/setup");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients/python_pika.py");
        let output = Command::new(python)
            .arg(script)
            .args(["--broker", &pair.brokers[0]])
            .args(["--queue", &pair.queue])
            .args(["--cluster", &pair.cluster])
            .args([
                "--agent",
                "1001",
                "--extension",
                "7001",
                "--call",
                "5550142",
            ])
            .args(["--timeout", "30", "--seconds", "2"])
            .kill_on_drop(true)
            .output()
            .await
            .expect("the script runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}\n{errors}");
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
