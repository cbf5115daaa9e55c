//! SIGHUP and the verbs on a running pair: keys and passwords change under live connections, and
//! an operator's choice is taken back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use support::pair::{Instance, SUPERVISOR, accepted};
use support::{PairOptions, run, until};
use tandem::lab::ReservedPort;

/// Changes lines of an instance's file and sends SIGHUP; waits until it says that it is done.
async fn reload(instance: &mut Instance, lines: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(&instance.config).unwrap();
    for (key, value) in lines {
        let kept = text
            .lines()
            .filter(|line| !line.starts_with(&format!("{key}=")));
        text = kept.fold(String::new(), |all, line| all + line + "\n");
        if !value.is_empty() {
            text += &format!("{key}={value}\n");
        }
    }
    std::fs::write(&instance.config, text).unwrap();
    let done = "SIGHUP: the file was read again";
    let before = instance.log_text().matches(done).count();
    instance.process.as_mut().unwrap().hang_up();
    until("the file was read again", async || {
        instance.log_text().matches(done).count() > before
    })
    .await;
}

#[test]
fn control_keys_are_rotated_on_live_connections_and_nobody_is_lost() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default()).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        let old = pair.gc1.config.with_file_name("key").display().to_string();
        let new = pair.gc1.config.with_file_name("key.new");
        std::fs::write(&new, "n".repeat(64)).unwrap();
        let new = new.display().to_string();
        // Both learn the new one before anybody speaks it.
        for index in 0..2 {
            let lines = [("control.previous-key-file", new.as_str())];
            reload(pair.instance(index), &lines).await;
        }
        for index in 0..2 {
            let lines = [
                ("control.key-file", new.as_str()),
                ("control.previous-key-file", old.as_str()),
            ];
            reload(pair.instance(index), &lines).await;
        }
        for index in 0..2 {
            reload(pair.instance(index), &[("control.previous-key-file", "")]).await;
        }
        // A handover in order needs every kind of word between them.
        let (status, body) = pair.gc1.post("/api/v1/switchover?to=gc-2").await;
        assert_eq!(status, 202, "{body}");
        pair.gc2.becomes("leader").await;
        desk.expect("MakeReady#1001", "", "ACCEPTED").await;
        for instance in [&pair.gc1, &pair.gc2] {
            let log = instance.log_text();
            for word in ["peer lost", "auth-failed", "wrong_key"] {
                assert!(!log.contains(word), "{}: {word}\n{log}", instance.name);
            }
        }
        let told = pair.gc1.get("/api/v1/history").await.unwrap();
        assert!(told.contains("control keys"), "{told}");
        // Sealed under the new key: a restart opens them.
        pair.gc1.kill();
        pair.gc1.start();
        until("gc-1 knows the agent", async || {
            pair.gc1.status().await["sessions"]["total"] == 1
        })
        .await;
    });
}

#[test]
fn a_new_downstream_password_counts_for_the_next_request() {
    run(async |shared| {
        let options = PairOptions::default()
            .instances(1)
            .set("downstream.admin-user", "admin")
            .set("downstream.admin-password", "wrong");
        let mut pair = shared.pair(options).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[SUPERVISOR, 1001]).await;
        let asks = format!("getteamuserstate#{SUPERVISOR}");
        let id = desk.send(asks.clone(), "1001".to_owned()).await;
        let reply = desk.reply(&id).await;
        assert!(!accepted(reply.field("outcome")), "{}", reply.text);
        reload(&mut pair.gc1, &[("downstream.admin-password", "admin")]).await;
        let id = desk.send(asks, "1001".to_owned()).await;
        let reply = desk.reply(&id).await;
        assert!(accepted(reply.field("outcome")), "{}", reply.text);
    });
}

#[test]
fn the_entrance_asks_for_the_new_token_and_posts_with_it() {
    run(async |shared| {
        let port = ReservedPort::take().unwrap();
        let options = PairOptions::default()
            .instances(1)
            .set("rest.listen", &port.address().to_string())
            .set("rest.token", "entrance-token-of-old");
        let mut pair = shared.pair(options).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/gc/command", port.address());
        let status = async |token: &str| {
            let request = http.post(&url).bearer_auth(token);
            let body = r#"{"data":{"type":"Hello#desk","body":""}}"#;
            request.body(body).send().await.unwrap().status().as_u16()
        };
        let (old, new) = ("entrance-token-of-old", "entrance-token-of-new");
        assert_eq!((status(old).await, status(new).await), (202, 401));
        reload(&mut pair.gc1, &[("rest.token", new)]).await;
        assert_eq!((status(old).await, status(new).await), (401, 202));
        let log = pair.gc1.log_text();
        assert!(log.contains("HTTP entrance's tokens"), "{log}");
        // It is not opened by a line that is gone.
        reload(&mut pair.gc1, &[("rest.token", "")]).await;
        assert_eq!((status("").await, status(new).await), (401, 202));
        let log = pair.gc1.log_text();
        let waits =
            |line: &str| line.contains("a restart is needed") && line.contains("rest.token");
        assert!(log.lines().any(waits), "{log}");
    });
}

#[test]
fn a_choice_is_taken_back_and_the_answer_comes_when_the_status_shows_it() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        for _ in 0..4 {
            let (status, body) = pair.gc2.post("/api/v1/failover/agents/start").await;
            assert_eq!(status, 202, "{body}");
            let choice = &pair.gc2.status().await["groups"][0]["choice"];
            assert_eq!(choice["wish"], "leader", "{choice}");
            pair.gc2.becomes("leader").await;
            // Asked of the other one, which has learnt the choice.
            until("gc-1 knows the choice", async || {
                pair.gc1.status().await["groups"][0]["choice"]["wish"] == "leader"
            })
            .await;
            let (status, body) = pair.gc1.post("/api/v1/failover/agents/auto").await;
            assert_eq!(status, 202, "{body}");
            let choice = &pair.gc1.status().await["groups"][0]["choice"];
            assert_eq!(choice["wish"], "priority", "{choice}");
            pair.gc1.becomes("leader").await;
            pair.gc2.becomes("follower").await;
        }
        let (status, body) = pair.gc1.post("/api/v1/failover/agents/auto").await;
        assert_eq!(status, 409, "{body}");
        assert!(
            body["error"].as_str().unwrap().contains("priority decides"),
            "{body}"
        );
    });
}
