//! The main job, end to end: commands from the queue, effects at the downstream, events and
//! replies back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::types::AMQPValue;
use support::pair::{extension, is_state};
use support::wire::{command, with_header};
use support::{Desk, PairOptions, Wire, run, until, wait_for};
use tandem::client::{Command, Message};

/// Every event and reply says which command caused it, and who sent it.
fn caused_by(message: &Message, id: &str) {
    assert_eq!(
        message.correlation_id.as_deref(),
        Some(id),
        "{}",
        message.text
    );
    assert!(message.message_id.is_some(), "{}", message.text);
    assert_eq!(message.app_id.as_deref(), Some("gc-1"));
}

fn call_event(message: &Message, kind: &str, agent: u32, state: &str) -> bool {
    message.field("type") == kind
        && message.field("agentId") == agent.to_string()
        && (state.is_empty() || message.field("state") == state)
}

#[test]
fn sign_in_ready_and_sign_out_with_reasons_and_correlation_ids() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-sign-in", 0).await;
        let hello = desk.send("Hello#desk-sign-in", "").await;
        let system = desk
            .event("IN_SERVICE", |m| {
                m.field("type") == "System" && m.field("status") == "IN_SERVICE"
            })
            .await;
        caused_by(&system, &hello);
        pair.sign_in(&desk, &[1001]).await;
        for kind in ["ConnectStatus", "AgentInfo", "DialogStatus"] {
            desk.event(kind, |m| m.field("type") == kind).await;
        }
        let ready = desk.send("MakeReady#1001", "").await;
        let reply = desk.reply(&ready).await;
        assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
        assert_eq!(reply.json["status"], 202);
        assert_eq!(reply.field("instance"), "gc-1");
        caused_by(&reply, &ready);
        let state = desk.event("READY", |m| is_state(m, 1001, "READY")).await;
        caused_by(&state, &ready);
        assert!(state.headers["x-epoch"].as_i64() > Some(0));
        assert_eq!(pair.state(1001), "READY");

        let reasons = desk.send("reasoncodenotready#1001", "").await;
        let list = desk
            .event("reasons", |m| m.field("type") == "ReasonCodes")
            .await;
        caused_by(&list, &reasons);
        assert!(
            list.text.contains(r#"{"code":"2","label":"Lunch"}"#),
            "{}",
            list.text
        );
        desk.expect("MakeNotReadyWithReason#1001", "2", "ACCEPTED")
            .await;
        desk.event("the reason", |m| {
            is_state(m, 1001, "NOT_READY") && m.field("label") == "Lunch"
        })
        .await;
        desk.expect("logoutwithreason#1001", "21", "ACCEPTED").await;
        desk.event("LOGOUT", |m| is_state(m, 1001, "LOGOUT")).await;
        let late = desk.ask("MakeReady#1001", "").await;
        assert_ne!(late.field("outcome"), "ACCEPTED", "{}", late.text);
        assert_eq!(pair.state(1001), "LOGOUT");
    });
}

#[test]
fn a_call_between_two_agents_is_answered_held_retrieved_and_released() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-call", 0).await;
        pair.sign_in(&desk, &[1002, 1003]).await;
        let call = desk
            .send("MakeCall#1002", extension(1003).to_string())
            .await;
        let offered = desk
            .event("the offer", |m| call_event(m, "NewInboundCall", 1003, ""))
            .await;
        assert_eq!(pair.effects_of("MAKE_CALL", &call), 1);
        let dialog = offered.field("dialogId").to_owned();
        desk.expect("AnswerCall#1003", &dialog, "ACCEPTED").await;
        for agent in [1002, 1003] {
            desk.event("ACTIVE", |m| call_event(m, "InboundCall", agent, "ACTIVE"))
                .await;
            desk.event("TALKING", |m| is_state(m, agent, "TALKING"))
                .await;
        }
        desk.expect("HoldCall#1002", &dialog, "ACCEPTED").await;
        desk.event("HELD", |m| call_event(m, "InboundCall", 1002, "HELD"))
            .await;
        desk.expect("getdialogstate#1002", &dialog, "OK").await;
        desk.event("DialogState", |m| {
            call_event(m, "DialogState", 1002, "HELD")
        })
        .await;
        desk.clear_events();
        desk.expect("RetrieveCall#1002", &dialog, "ACCEPTED").await;
        desk.event("ACTIVE", |m| call_event(m, "InboundCall", 1002, "ACTIVE"))
            .await;
        desk.expect("ReleaseCall#1003", &dialog, "ACCEPTED").await;
        for agent in [1002, 1003] {
            desk.event("DROPPED", |m| {
                call_event(m, "InboundCall", agent, "DROPPED")
            })
            .await;
        }
        desk.expect("GetDialogState#1002", "424242", "OK").await;
        desk.event("NOT_FOUND", |m| {
            call_event(m, "DialogState", 1002, "NOT_FOUND")
        })
        .await;
        let kinds: Vec<_> = pair.effects(1002).iter().map(|e| e.kind).collect();
        assert_eq!(kinds, ["LOGIN", "MAKE_CALL", "HOLD", "RETRIEVE"]);
        let kinds: Vec<_> = pair.effects(1003).iter().map(|e| e.kind).collect();
        assert_eq!(kinds, ["LOGIN", "ANSWER", "DROP"]);
    });
}

#[test]
fn force_logout_signs_out_from_ready() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-force", 0).await;
        pair.sign_in(&desk, &[1004]).await;
        desk.expect("MakeReady#1004", "", "ACCEPTED").await;
        desk.expect("force_logout#1004", "", "ACCEPTED").await;
        desk.event("LOGOUT", |m| is_state(m, 1004, "LOGOUT")).await;
        assert_eq!(pair.state(1004), "LOGOUT");
        until("no subscription", async || pair.sessions(1004) == 0).await;
    });
}

#[test]
fn the_default_event_format_has_hash_signs() {
    run(async |shared| {
        let options = PairOptions::default()
            .instances(1)
            .set("message.format", "default");
        let pair = shared.pair(options).await;
        let desk = pair.desk("desk-text", 0).await;
        desk.expect("Hello#desk-text", "", "OK").await;
        desk.event("IN_SERVICE", |m| m.text == "System#IN_SERVICE")
            .await;
        desk.expect("Connect#1001", "desk-text,pw-1001", "OK").await;
        desk.expect("Login#1001", "pw-1001,7001", "ACCEPTED").await;
        desk.event("state", |m| m.text.starts_with("1001#State#NOT_READY#"))
            .await;
        desk.event("no call", |m| m.text == "1001#DialogStatus###")
            .await;
        let id = desk.send("MakeReady#1001", "").await;
        assert_eq!(desk.reply(&id).await.field("outcome"), "ACCEPTED");
        let ready = desk
            .event("READY", |m| m.text.starts_with("1001#State#READY#"))
            .await;
        caused_by(&ready, &id);
        desk.expect("ReleaseCall#1001", "424242", "FAILED").await;
        desk.event("the error", |m| m.text == "1001#Error#NO_DIALOG_ID")
            .await;
    });
}

#[test]
fn a_reply_goes_where_it_is_asked_for_and_not_to_the_destination() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-reply", 0).await;
        pair.sign_in(&desk, &[1005]).await;
        let mut wire = Wire::open(pair, 0).await;

        // The client's own address: an event tells it, no reply does.
        let own = command("MakeReady#1005", "to-own").with_reply_to("desk-reply".into());
        wire.publish(own, b"").await;
        let told = desk.event("READY", |m| is_state(m, 1005, "READY")).await;
        assert_eq!(told.correlation_id.as_deref(), Some("to-own"));

        // A queue that only its own connection may read.
        let queue = wire.exclusive_queue().await;
        let mine = command("MakeNotReady#1005", "to-queue").with_reply_to(queue.as_str().into());
        wire.publish(mine, b"").await;
        let reply = wire.next(&queue).await;
        assert_eq!(reply.correlation_id, "to-queue");
        assert_eq!(reply.kind, "Reply");
        let json = reply.json();
        assert_eq!(json["command"], "MakeNotReady");
        assert_eq!(json["id"], "1005");
        assert_eq!(json["outcome"], "ACCEPTED");
        assert_eq!(json["error"], serde_json::Value::Null);

        // Nowhere on either broker: parked, not lost.
        let lost = command("GetState#1005", "to-nowhere").with_reply_to("no-such-queue".into());
        wire.publish(lost, b"").await;
        let parked = wire.dead_letter("to-nowhere").await;
        assert_eq!(parked.reason, "unroutable-reply");
        assert_eq!(parked.json()["outcome"], "OK");

        assert_eq!(wire.other_dead_letters().await.len(), 0);
        assert!(desk.replies_to("to-own").is_empty());
    });
}

#[test]
fn a_client_of_the_other_broker_gets_reply_and_events_through_federation() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-far", 1).await;
        pair.sign_in(&desk, &[1006]).await;
        assert!(pair.brokers[1].contains(&desk.client.broker().unwrap()));
        let reply = desk.expect("MakeReady#1006", "", "ACCEPTED").await;
        assert_eq!(reply.field("instance"), "gc-1");
        desk.event("READY", |m| is_state(m, 1006, "READY")).await;
        assert_eq!(pair.gc2.role().await, "follower");
    });
}

#[test]
fn json_arguments_an_envelope_and_the_type_in_a_header_are_understood() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-json", 0).await;
        pair.sign_in(&desk, &[1007, 1008, 1009]).await;
        let wire = Wire::open(pair, 0).await;
        let queue = wire.exclusive_queue().await;
        let outcome = async |properties: BasicProperties, body: &str| {
            let properties = properties.with_reply_to(queue.as_str().into());
            wire.publish(properties, body.as_bytes()).await;
            wire.next(&queue).await.json()["outcome"].clone()
        };
        let json = |p: BasicProperties| p.with_content_type("application/json".into());

        let named = json(command("makecall#1007", "json-1"));
        assert_eq!(outcome(named, r#"{"number":"5551007"}"#).await, "ACCEPTED");
        assert_eq!(pair.effects_of("MAKE_CALL", "json-1"), 1);

        let untyped = || {
            BasicProperties::default()
                .with_message_id("json-2".into())
                .with_correlation_id("json-2".into())
        };
        let body = r#"{"data":{"type":"MakeCall#1008","body":"5551008"}}"#;
        assert_eq!(outcome(untyped(), body).await, "ACCEPTED");
        let dialled = pair.effects(1008);
        assert_eq!(&*dialled.last().unwrap().detail, "5551008");

        let kind = AMQPValue::LongString("MakeReady # 1009".into());
        let jms = with_header(untyped().with_message_id("json-3".into()), "JMSType", kind);
        assert_eq!(outcome(jms, "null").await, "ACCEPTED");
        assert_eq!(pair.state(1009), "READY");
    });
}

#[test]
fn two_hundred_commands_of_five_agents_take_effect_in_order() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-order", 0).await;
        let agents: Vec<u32> = (1010..1015).collect();
        pair.sign_in(&desk, &agents).await;
        let mut sent: Vec<(u32, String, &str)> = Vec::new();
        for round in 0..40 {
            for agent in &agents {
                let (verb, kind) = match round % 2 {
                    0 => ("MakeReady", "READY"),
                    _ => ("MakeNotReady", "NOT_READY"),
                };
                let id = desk.send(format!("{verb}#{agent}"), "").await;
                sent.push((*agent, id, kind));
            }
        }
        for (_, id, _) in &sent {
            let reply = desk.reply(id).await;
            assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
        }
        for agent in agents {
            let wanted: Vec<(String, String)> = sent
                .iter()
                .filter(|(whose, ..)| *whose == agent)
                .map(|(_, id, kind)| (id.clone(), (*kind).to_owned()))
                .collect();
            let effects = pair.effects(agent);
            let done: Vec<(String, String)> = effects[1..]
                .iter()
                .map(|entry| (entry.request_id.to_string(), entry.kind.to_owned()))
                .collect();
            assert_eq!(done, wanted, "agent {agent}");
        }
    });
}

#[test]
fn a_command_past_its_deadline_is_not_started() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-deadline", 0).await;
        pair.sign_in(&desk, &[1016]).await;
        let mut late = Command::new("MakeCall#1016", "5551");
        late.deadline = Some(SystemTime::now() - Duration::from_secs(1));
        let id = desk.send_command(late).await;
        let reply = desk.reply(&id).await;
        assert_eq!(reply.field("outcome"), "EXPIRED", "{}", reply.text);
        let mut timely = Command::new("MakeReady#1016", "");
        timely.deadline = Some(SystemTime::now() + Duration::from_secs(30));
        let timely = desk.send_command(timely).await;
        assert_eq!(desk.reply(&timely).await.field("outcome"), "ACCEPTED");
        assert_eq!(pair.effects_of("MAKE_CALL", &id), 0);

        // Seconds only: what they may have lost is given back, but five minutes ago is too late.
        let wire = Wire::open(pair, 0).await;
        let queue = wire.exclusive_queue().await;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let old = command("MakeCall#1016", "old-1")
            .with_timestamp(now - 300)
            .with_reply_to(queue.as_str().into());
        wire.publish(old, b"5551").await;
        assert_eq!(wire.next(&queue).await.json()["outcome"], "EXPIRED");
        assert_eq!(pair.effects_of("MAKE_CALL", "old-1"), 0);
    });
}

#[test]
fn what_expires_in_the_queue_is_answered_expired() {
    run(async |shared| {
        // Nobody consumes yet, so the broker itself expires the command.
        let mut pair = shared.pair(PairOptions::default().instances(0)).await;
        let wire = Wire::open(&pair, 0).await;
        let queue = wire.exclusive_queue().await;
        let brief = command("MakeCall#1001", "brief")
            .with_expiration("300".into())
            .with_reply_to(queue.as_str().into());
        wire.publish(brief, b"5551").await;
        let expired = format!("queues/%2f/{}.expired", pair.cluster);
        let management = support::pair::management(&pair.management[0]);
        let commands = format!("queues/%2f/{}", pair.queue);
        wait_for("the broker expires it", async || {
            let count = async |path: &str| {
                let queue = management.get(path).await.ok()??;
                queue["messages"].as_u64()
            };
            (count(&expired).await? == 1 && count(&commands).await? == 0).then_some(())
        })
        .await;
        pair.gc1.start();
        let reply = wire.next(&queue).await;
        assert_eq!(reply.correlation_id, "brief");
        assert_eq!(reply.json()["outcome"], "EXPIRED");
        assert_eq!(pair.simulator.ledger().total(), 0);
    });
}

/// Copies of a command that was carried out come to lie among the expired ones, as after a broker
/// that was away, while an instance starts that does not know yet what the other one does.
#[test]
fn a_newcomer_calls_nothing_expired_that_another_one_carried_out() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default().instances(1)).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1011]).await;
        let wire = Wire::open(&pair, 0).await;
        let queue = wire.exclusive_queue().await;
        let done = || command("MakeReady#1011", "done").with_reply_to(queue.as_str().into());
        wire.publish(done(), b"").await;
        assert_eq!(wire.next(&queue).await.json()["outcome"], "ACCEPTED");
        let expired = format!("{}.expired", pair.cluster);
        let mut copies = 0;
        pair.gc2.start();
        until("gc-2 follows", async || {
            for _ in 0..40 {
                wire.publish_to(&expired, done(), b"").await;
                copies += 1;
            }
            pair.gc2.role().await == "follower"
        })
        .await;
        for _ in 0..copies {
            let reply = wire.next(&queue).await.json();
            assert_eq!(reply["outcome"], "ACCEPTED", "{reply}");
        }
    });
}

#[test]
fn another_client_takes_an_agent_over_and_the_old_one_is_told() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let first: Desk = pair.desk("desk-old", 0).await;
        pair.sign_in(&first, &[1017]).await;
        let second = pair.desk("desk-new", 0).await;
        second
            .expect("Connect#1017", "desk-new,pw-1017", "OK")
            .await;
        let told = |m: &Message| m.field("errorType") == "SESSION_INVALIDATED";
        first.event("SESSION_INVALIDATED", told).await;
        first.event("LOGOUT", |m| is_state(m, 1017, "LOGOUT")).await;
        second.expect("MakeReady#1017", "", "ACCEPTED").await;
        second.event("READY", |m| is_state(m, 1017, "READY")).await;
        assert!(!first.events().iter().any(|m| is_state(m, 1017, "READY")));
        pair.one_subscription_each(&[1017]).await;
    });
}

#[test]
fn beat_tells_known_clients_the_service_and_others_to_connect_again() {
    run(async |shared| {
        let pair = shared.standing(PairOptions::default()).await;
        let desk = pair.desk("desk-beat", 0).await;
        desk.expect("Beat#desk-beat", "", "OK").await;
        desk.event("RECONNECT", |m| m.field("status") == "RECONNECT")
            .await;
        desk.expect("Hello#desk-beat", "", "OK").await;
        desk.clear_events();
        desk.expect("Beat#desk-beat", "", "OK").await;
        desk.event("IN_SERVICE", |m| m.field("status") == "IN_SERVICE")
            .await;
    });
}
