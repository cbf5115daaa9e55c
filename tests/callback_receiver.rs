//! The receiver of signed events that `docs/clients` has in Python, by itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use ring::hmac;
use support::receiver::Receiver;
use support::until;

const SIGN_KEY: &str = "6b0f3fdbb0a1d7c4a3f6c2d9e1b8475566778899aabbccddeeff001122334455";

/// A request that somebody has kept: as signed then, whatever stands in its headers.
#[tokio::test]
async fn a_receiver_in_python_refuses_what_was_signed_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{SIGN_KEY}\n")).unwrap();
    let receiver = Receiver::start(&file).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let body = r#"{"type":"State"}"#;
    let send = async |id: &str, signature: &str| {
        let request = http.post(&receiver.url).body(body);
        let request = request.header("Idempotency-Key", id);
        let answer = request.header("X-Tandem-Signature", signature).send().await;
        answer.unwrap().status().as_u16()
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, SIGN_KEY.as_bytes());
    let signed = |at: u64| {
        let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
        let hex: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("t={at},v1={hex}")
    };
    let fresh = signed(now);
    assert_eq!(send("e-1", &fresh).await, 204);
    // The same event again is answered as before, and not dealt with once more.
    assert_eq!(send("e-1", &fresh).await, 204);
    assert_eq!(send("e-2", &fresh).await, 401, "under another id");
    for old in [now - 301, now - 86_400, now + 400] {
        assert_eq!(send("e-3", &signed(old)).await, 401, "{old}");
    }
    let moved = fresh.replace(&format!("t={now}"), &format!("t={}", now + 1));
    assert_eq!(
        send("e-4", &moved).await,
        401,
        "another time than was signed"
    );
    assert_eq!(send("e-5", &signed(now + 1)).await, 204);
    until("all is told", async || receiver.said("") == 8).await;
    let told = ["taken ", "again ", "refused "].map(|word| receiver.said(word));
    assert_eq!(told, [2, 1, 5], "{:?}", receiver.lines);
    drop(receiver.process);
}
