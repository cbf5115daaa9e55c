//! What happened to a command: its trace goes with all that it causes, and `tandem trace` tells its
//! life, also where it moved from one instance to the other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use lapin::types::AMQPValue;
use serde_json::Value;
use support::wire::{Wire, command, with_header};
use support::{PairOptions, run, until};
use tandem::client::Command;
use tandem::simulator::faults::{Fault, Match};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.as_bytes().into())
}

#[test]
fn a_trace_reaches_the_request_the_reply_and_the_event_and_a_malformed_one_nothing() {
    run(async |shared| {
        let options = PairOptions::default()
            .instances(1)
            .set("log.level", "debug");
        let pair = shared.pair(options).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        let wire = Wire::open(&pair, 0).await;
        let queue = wire.exclusive_queue().await;
        for (kind, id, parent, wanted) in [
            ("MakeReady#1001", "t-1", PARENT, PARENT),
            ("MakeNotReady#1001", "t-2", "00-nonsense\r\nx: y", ""),
        ] {
            let sent = command(kind, id).with_reply_to(queue.as_str().into());
            let sent = sent.with_correlation_id(format!("c-{id}").into());
            let sent = with_header(sent, "traceparent", text(parent));
            let sent = with_header(sent, "tracestate", text("vendor=1"));
            desk.clear_events();
            wire.publish(sent, b"").await;
            let reply = wire.next(&queue).await;
            let given = |letter: Option<&Value>| {
                let text = letter.and_then(Value::as_str);
                text.unwrap_or_default().to_owned()
            };
            assert_eq!(reply.json()["outcome"], "ACCEPTED", "{id}");
            let traced = !wanted.is_empty();
            // The library prints long texts as numbers.
            let numbers = format!("{:?}", wanted.as_bytes());
            let all = &reply.properties;
            assert!(!traced || all.contains(&numbers), "{id}: {all}");
            assert_eq!(all.contains("tracestate"), traced, "{id}: {all}");
            let effects = pair.effects(1001);
            let made = effects.iter().find(|entry| &*entry.request_id == id);
            assert_eq!(&*made.unwrap().traceparent, wanted, "{id}");
            let caused = desk
                .event("the state that it set", |event| {
                    event.correlation_id.as_deref() == Some(&format!("c-{id}"))
                })
                .await;
            assert_eq!(given(caused.headers.get("traceparent")), wanted, "{id}");
        }
        // The line of its end says by what others know it.
        let log = pair.gc1.log_text();
        let line = log
            .lines()
            .find(|line| line.contains("command finished") && line.contains("t-1"))
            .unwrap();
        for part in [
            "1001",
            "c-t-1",
            "ACCEPTED",
            "202",
            "downstream",
            "request_id",
            TRACE,
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        // What an agent signed in with stands nowhere, at any level.
        assert!(!log.contains("pw-1001"), "a password in the log");
        let (code, told) = pair.tandem(&pair.gc1, &["trace", "t-1"]).await;
        assert_eq!(code, 0, "{told}");
        assert!(
            told.contains(TRACE) && told.contains("acknowledged"),
            "{told}"
        );
        let (code, told) = pair.tandem(&pair.gc1, &["trace", "no-such-id"]).await;
        assert_eq!(code, 1, "{told}");
    });
}

#[test]
fn the_life_of_a_command_that_moved_while_its_instance_was_killed_is_told_by_the_other_one() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default()).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        pair.gc1.leads().await;
        let hangs = Fault {
            hang: true,
            matching: Match {
                action: Some("MAKE_CALL".to_owned()),
                ..Match::default()
            },
            ..Fault::default()
        };
        pair.fault_everywhere(&hangs);
        let sent = Command::new("MakeCall#1001", "5550142").with_id("moved-1");
        let id = desk.send_command(sent).await;
        until(
            "the call is under way and the other one knows its intent",
            async || {
                let life = pair.gc2.get("/api/v1/trace?id=moved-1").await;
                life.is_some_and(|life| {
                    life.contains("calling") && life.contains("journal of gc-2")
                })
            },
        )
        .await;
        pair.gc1.kill();
        pair.heal();
        let reply = desk.reply(&id).await;
        assert_eq!(reply.field("instance"), "gc-2", "{}", reply.text);
        let (code, told) = pair
            .tandem(&pair.gc2, &["trace", "moved-1", "--json"])
            .await;
        assert_eq!(code, 0, "{told}");
        let life: Value = serde_json::from_str(&told).unwrap();
        let stages: Vec<(String, String)> = life["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| {
                let text = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
                (text("instance"), text("stage"))
            })
            .collect();
        let has = |instance: &str, stage: &str| {
            let wanted = (instance.to_owned(), stage.to_owned());
            stages.contains(&wanted)
        };
        // Of the one that is gone its intent is left; the rest is the other one's.
        assert!(has("gc-1", "journal-intent"), "{told}");
        for stage in ["received", "doubted", "finished", "acknowledged"] {
            assert!(has("gc-2", stage), "{stage}: {told}");
        }
        let place = |stage: &str| stages.iter().position(|(_, known)| known == stage);
        assert!(place("journal-intent") < place("received"), "{told}");
        let outcome = reply.field("outcome");
        assert!(told.contains(outcome), "{outcome}: {told}");
        let (_, told) = pair.tandem(&pair.gc2, &["trace", "moved-1"]).await;
        println!("{told}");
    });
}
