//! The formats' own tools, by `scripts/contracts`. Where they cannot be fetched it is said aloud.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::support::{PairOptions, run};

/// What the script ends with where the tools cannot be had.
const CANNOT: i32 = 75;
const TOKEN: &str = "contracts-token";

/// Runs the script; what it said.
async fn script(words: &[&str]) -> Option<String> {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/contracts"))
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("the script runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.code() == Some(CANNOT) {
        eprintln!("=== NOT RUN: {text}");
        return None;
    }
    assert!(output.status.success(), "{text}");
    Some(text)
}

#[test]
fn the_formats_own_tools_take_the_documents() {
    run(async |_| {
        if let Some(text) = script(&[]).await {
            assert!(text.contains("golden events fit"), "{text}");
            println!("{text}");
        }
    });
}

#[test]
fn schemathesis_finds_a_running_instance_as_its_document_says() {
    run(async |shared| {
        let options = PairOptions::default().instances(1);
        let pair = shared.pair(options.set("admin.token", TOKEN)).await;
        let url = format!("http://{}", pair.gc1.admin());
        let words = [
            "--probe",
            &url,
            "--token",
            TOKEN,
            "--max-examples",
            "25",
            "--seed",
            "1",
            "--no-color",
        ];
        if let Some(text) = script(&words).await {
            println!("{text}");
        }
        let status = pair.gc1.status().await;
        assert_eq!(status["instance"], "gc-1", "it goes on");
    });
}
