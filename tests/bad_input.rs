//! Input that is wrong, hostile or repeated: each gets its answer, nothing is lost, nothing
//! loops, no credential shows, and the instance goes on serving.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::time::Duration;

use lapin::BasicProperties;
use serde_json::Value;
use support::pair::{is_state, management};
use support::wire::{command, with_header};
use support::{Desk, Pair, PairOptions, Wire, run, until, wait_for};
use tandem::client::Command;

/// Open connections of the instances, by name.
async fn connections(pair: &Pair) -> Vec<String> {
    let mut names = Vec::new();
    for base in &pair.management {
        let list = management(base).get("connections").await.ok().flatten();
        let list = list.as_ref().and_then(Value::as_array).cloned();
        let name = |c: &Value| {
            let name = c["client_properties"]["connection_name"].as_str();
            name.filter(|name| name.starts_with("tandem/gc-"))
                .map(str::to_owned)
        };
        names.extend(list.into_iter().flatten().filter_map(|c| name(&c)));
    }
    names.sort();
    names
}

/// Nothing is left in the command queue, on both brokers: neither waiting nor in a loop.
async fn queue_is_empty(pair: &Pair) {
    until("an empty command queue", async || {
        let mut left = 0;
        for base in &pair.management {
            let path = format!("queues/%2f/{}", pair.queue);
            match management(base).get(&path).await {
                Ok(Some(queue)) => left += queue["messages"].as_u64().unwrap_or(0),
                _ => return false,
            }
        }
        left == 0
    })
    .await;
}

async fn still_serves(desk: &Desk, agent: u32) {
    desk.expect(&format!("GetState#{agent}"), "", "OK").await;
}

/// What a wrong message must lead to.
struct Case {
    name: &'static str,
    properties: BasicProperties,
    body: Vec<u8>,
    reason: &'static str,
    code: &'static str,
}

fn case(
    name: &'static str,
    properties: BasicProperties,
    body: &[u8],
    (reason, code): (&'static str, &'static str),
) -> Case {
    Case {
        name,
        properties,
        body: body.to_vec(),
        reason,
        code,
    }
}

fn untyped(id: &str) -> BasicProperties {
    BasicProperties::default()
        .with_message_id(id.into())
        .with_correlation_id(id.into())
}

fn json(properties: BasicProperties) -> BasicProperties {
    properties.with_content_type("application/json".into())
}

fn cases() -> Vec<Case> {
    let retry = |reason| (reason, "PLEASE_RETRY");
    let long = "9".repeat(200);
    let deep = "[".repeat(40) + &"]".repeat(40);
    let missing = |code| ("missing_argument", code);
    let plain = |name, kind: &str, body: &str, wanted| {
        case(name, command(kind, name), body.as_bytes(), wanted)
    };
    vec![
        plain("unknown", "Dance#1001", "now", retry("unknown_command")),
        plain("no-number", "MakeCall#1001", "", missing("MISSING_NUMBER")),
        plain(
            "no-dialog",
            "HoldCall#1001",
            "",
            missing("MISSING_DIALOG_ID"),
        ),
        plain(
            "no-reason",
            "logoutwithreason#1001",
            "null",
            missing("MISSING_REASON_CODE"),
        ),
        plain(
            "surplus",
            "MakeReady#1001",
            "a,b",
            retry("surplus_arguments"),
        ),
        plain("no-id", "MakeReady", "", retry("bad_id")),
        plain("id-with-path", "MakeReady#../1002", "", retry("bad_id")),
        plain(
            "id-too-long",
            &format!("MakeReady#{long}"),
            "",
            retry("bad_id"),
        ),
        plain("no-type", "", "no type at all", retry("no_type")),
        case(
            "oversized",
            command("MakeCall#1001", "oversized"),
            &vec![b'5'; 1024 * 1024],
            retry("oversized"),
        ),
        case(
            "not-utf8",
            command("MakeCall#1001", "not-utf8"),
            &[0xff, 0xfe, 0x00],
            retry("not_utf8"),
        ),
        case(
            "broken-json",
            json(command("MakeCall#1001", "broken-json")),
            br#"{"number":"#,
            retry("bad_json"),
        ),
        case(
            "deep-json",
            json(command("MakeCall#1001", "deep-json")),
            deep.as_bytes(),
            retry("json_too_deep"),
        ),
        case(
            "wrong-type",
            json(command("MakeCall#1001", "wrong-type")),
            br#"{"number":["555"]}"#,
            retry("wrong_type"),
        ),
        case(
            "envelope",
            json(untyped("envelope")),
            br#"{"type":7,"body":"x"}"#,
            retry("wrong_type"),
        ),
    ]
}

#[test]
fn what_cannot_be_understood_is_answered_and_kept_with_its_reason() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-bad", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        let mut wire = Wire::open(pair, 0).await;
        let queue = wire.exclusive_queue().await;
        let before = pair.effects(1001).len();
        for case in cases() {
            let properties = case.properties.with_reply_to(queue.as_str().into());
            wire.publish(properties, &case.body).await;
            let reply = wire.next(&queue).await;
            assert_eq!(reply.correlation_id, case.name);
            let reply = reply.json();
            assert_eq!(reply["outcome"], "REJECTED", "{}: {reply}", case.name);
            assert_eq!(reply["error"]["code"], case.code, "{}: {reply}", case.name);
            let letter = wire.dead_letter(case.name).await;
            assert_eq!(letter.reason, case.reason, "{}", case.name);
            assert!(letter.body.len() <= 64 * 1024, "{}", case.name);
        }
        assert_eq!(pair.effects(1001).len(), before, "no effect of any");
        assert_eq!(wire.other_dead_letters().await.len(), 0, "one letter each");
        queue_is_empty(pair).await;
        still_serves(&desk, 1001).await;
    });
}

#[test]
fn without_reply_address_the_agents_client_is_told_and_the_message_is_kept() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-silent", 0).await;
        pair.sign_in(&desk, &[1002]).await;
        let mut wire = Wire::open(pair, 0).await;
        wire.publish(command("MakeCall#1002", "silent-1"), b"")
            .await;
        let told = desk
            .event("the error", |m| m.field("errorType") == "MISSING_NUMBER")
            .await;
        assert_eq!(told.correlation_id.as_deref(), Some("silent-1"));
        assert_eq!(
            wire.dead_letter("silent-1").await.reason,
            "missing_argument"
        );
        // Of nobody's agent there is no address at all.
        wire.publish(command("Dance#4711", "silent-2"), b"").await;
        assert_eq!(wire.dead_letter("silent-2").await.reason, "unknown_command");
        // A message with nothing in it.
        wire.publish(untyped("silent-3"), b"").await;
        assert_eq!(wire.dead_letter("silent-3").await.reason, "no_type");
        queue_is_empty(pair).await;
        still_serves(&desk, 1002).await;
    });
}

#[test]
fn a_forged_reply_address_costs_no_connection() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-forged", 0).await;
        pair.sign_in(&desk, &[1003]).await;
        let mut wire = Wire::open(pair, 0).await;
        // Without the connection for direct replies, which may be lost without harm.
        let lasting = async |pair: &Pair| {
            let all = connections(pair).await;
            all.into_iter()
                .filter(|name| !name.contains("direct"))
                .collect::<Vec<_>>()
        };
        // Two instances, each with a link to both brokers, each link with two connections: the
        // management API shows them with a delay.
        let before = wait_for("the management API shows all connections", async || {
            let names = lasting(pair).await;
            (names.len() == 8).then_some(names)
        })
        .await;
        let tag = pair.gc1.status().await["groups"][0]["tag"].clone();
        for n in 0..5 {
            let forged = command("MakeReady#1003", &format!("forged-{n}"))
                .with_reply_to("amq.rabbitmq.reply-to.x.y".into());
            wire.publish(forged, b"").await;
        }
        desk.event("READY", |m| is_state(m, 1003, "READY")).await;
        still_serves(&desk, 1003).await;
        queue_is_empty(pair).await;
        // They are kept for people, not sent again and again.
        for n in 0..5 {
            let letter = wire.dead_letter(&format!("forged-{n}")).await;
            assert_eq!(letter.reason, "unroutable-reply");
        }
        assert_eq!(lasting(pair).await, before);
        let status = pair.gc1.status().await;
        assert_eq!(status["groups"][0]["tag"], tag, "the same consumer");
    });
}

#[test]
fn replies_to_the_connectors_own_objects_are_refused() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-loop", 0).await;
        pair.sign_in(&desk, &[1004]).await;
        let mut wire = Wire::open(pair, 0).await;
        let own = |name: &str| format!("{}.{name}", pair.cluster);
        let forbidden = [
            pair.queue.clone(),
            own("dead-letter"),
            own("expired"),
            own("control.gc-1"),
        ];
        for (n, name) in forbidden.iter().enumerate() {
            let id = format!("loop-{n}");
            let loops = command("MakeReady#1004", &id).with_reply_to(name.as_str().into());
            wire.publish(loops, b"").await;
            let letter = wire.dead_letter(&id).await;
            assert_eq!(letter.reason, "reply_to_forbidden", "{name}");
        }
        queue_is_empty(pair).await;
        assert_eq!(pair.state(1004), "NOT_READY", "none was executed");
        assert_eq!(wire.other_dead_letters().await.len(), 0);
        still_serves(&desk, 1004).await;
    });
}

#[test]
fn an_unknown_agent_must_sign_in_again() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-unknown", 0).await;
        desk.expect("Hello#desk-unknown", "", "OK").await;
        let reply = desk.expect("MakeReady#1030", "", "REJECTED").await;
        assert_eq!(reply.error_code(), "RE_LOGIN");
        // Where no session names a destination, the reply address may be one.
        let wire = Wire::open(pair, 0).await;
        let asks = command("MakeReady#1030", "who").with_reply_to("desk-unknown".into());
        wire.publish(asks, b"").await;
        desk.event("RE_LOGIN", |m| is_state(m, 1030, "RE_LOGIN"))
            .await;
    });
}

#[test]
fn a_wrong_password_is_refused_and_the_right_one_works_after_it() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-wrong", 0).await;
        let reply = desk.ask("Connect#1005", "desk-wrong,not-it").await;
        let outcome = reply.field("outcome");
        assert!(matches!(outcome, "FAILED" | "REJECTED"), "{}", reply.text);
        desk.event("SUBSCRIPTION_FAILED", |m| {
            matches!(m.field("errorType"), "SUBSCRIPTION_FAILED" | "Unauthorized")
        })
        .await;
        assert_eq!(pair.sessions(1005), 0);
        pair.sign_in(&desk, &[1005]).await;
    });
}

#[test]
fn a_repeated_id_has_one_effect_and_one_outcome_and_never_another_body() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-twice", 0).await;
        pair.sign_in(&desk, &[1006]).await;
        let call = || Command::new("MakeCall#1006", "5551006").with_id("twice");
        desk.send_command(call()).await;
        desk.reply("twice").await;
        for attempt in 2..5 {
            let mut again = call();
            again.attempt = attempt;
            desk.send_command(again).await;
        }
        let wire = Wire::open(pair, 0).await;
        let queue = wire.exclusive_queue().await;
        // In the other form of writing it is the same body.
        let same = json(command("makecall#1006", "twice")).with_reply_to(queue.as_str().into());
        wire.publish(same, br#"{"number":"5551006"}"#).await;
        assert_eq!(wire.next(&queue).await.json()["outcome"], "ACCEPTED");
        until("four replies", async || desk.replies_to("twice").len() == 4).await;
        for reply in desk.replies_to("twice") {
            assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
        }
        let other = command("MakeCall#1006", "twice").with_reply_to(queue.as_str().into());
        wire.publish(other, b"5559999").await;
        let refused = wire.next(&queue).await.json();
        assert_eq!(refused["outcome"], "REJECTED", "{refused}");
        let calls = pair.effects(1006);
        assert_eq!(calls.iter().filter(|e| e.kind == "MAKE_CALL").count(), 1);
    });
}

#[test]
fn an_unsafe_command_that_was_sent_before_runs_once_and_without_an_id_not_at_all() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-doubt", 0).await;
        pair.sign_in(&desk, &[1007]).await;
        let wire = Wire::open(pair, 0).await;
        let queue = wire.exclusive_queue().await;
        let again = |properties: BasicProperties| {
            let attempt = lapin::types::AMQPValue::LongInt(2);
            with_header(properties, "x-attempt", attempt).with_reply_to(queue.as_str().into())
        };
        // Both instances were up all the time and neither has seen this id: it never ran.
        for _ in 0..2 {
            let call = again(command("MakeCall#1007", "again-1"));
            wire.publish(call, b"5551").await;
            assert_eq!(wire.next(&queue).await.json()["outcome"], "ACCEPTED");
        }
        assert_eq!(pair.effects_of("MAKE_CALL", "again-1"), 1);
        let nameless = BasicProperties::default().with_type("MakeCall#1007".into());
        wire.publish(again(nameless), b"5552").await;
        assert_eq!(wire.next(&queue).await.json()["outcome"], "IN_DOUBT");
        let calls = pair.effects(1007);
        assert_eq!(calls.iter().filter(|e| e.kind == "MAKE_CALL").count(), 1);
        wire.publish(again(command("MakeReady#1007", "again-2")), b"")
            .await;
        assert_eq!(wire.next(&queue).await.json()["outcome"], "ACCEPTED");
    });
}

#[test]
fn a_planted_password_shows_nowhere() {
    const PLANTED: &str = "hunter2-planted";
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-secret", 0).await;
        pair.sign_in(&desk, &[1008]).await;
        let mut wire = Wire::open(pair, 0).await;
        // Wrong in ways that put the whole message among the dead letters.
        let login = json(command("Login#1008", "secret-1"));
        let text = format!(r#"{{"password":"{PLANTED}","extension":["7008"]}}"#);
        wire.publish(login, text.as_bytes()).await;
        let text = PLANTED.to_owned();
        wire.publish(command("Login#1008", "secret-2"), text.as_bytes())
            .await;
        let text = format!("no|such destination!,{PLANTED}");
        wire.publish(command("Connect#1008", "secret-3"), text.as_bytes())
            .await;
        let text = format!(r#"{{"type":"Login#1008","body":"{PLANTED},x"#);
        wire.publish(json(untyped("secret-4")), text.as_bytes())
            .await;
        let forbidden = command("Login#1008", "secret-5").with_reply_to(pair.queue.clone().into());
        let text = format!("{PLANTED},7008");
        wire.publish(forbidden, text.as_bytes()).await;
        // Refused by the downstream.
        let reply = desk.ask("Login#1008", text).await;
        assert_ne!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
        for n in 1..=5 {
            let letter = wire.dead_letter(&format!("secret-{n}")).await;
            let body = String::from_utf8_lossy(&letter.body).into_owned();
            assert!(!body.contains(PLANTED), "{n}: {body}");
            assert!(
                !letter.properties.contains(PLANTED),
                "{}",
                letter.properties
            );
            assert_eq!(letter.json()["redacted"], true, "{n}: {body}");
            assert!(letter.json()["length"].as_u64() > Some(0), "{n}: {body}");
        }
        for event in desk.events() {
            assert!(!event.text.contains(PLANTED), "{}", event.text);
        }
        // Let the second thread of the log and the exporter catch up.
        tokio::time::sleep(Duration::from_millis(200)).await;
        for instance in [&pair.gc1, &pair.gc2] {
            let log = instance.log_text();
            assert!(!log.is_empty());
            for secret in [PLANTED, "pw-1008"] {
                assert!(!log.contains(secret), "log of {}", instance.name);
                for path in ["/metrics", "/api/v1/status", "/api/v1/sessions"] {
                    let shown = instance.get(path).await.expect(path);
                    assert!(!shown.contains(secret), "{path} of {}", instance.name);
                }
            }
        }
        desk.expect("Login#1008", "pw-1008,7008", "ACCEPTED").await;
    });
}
