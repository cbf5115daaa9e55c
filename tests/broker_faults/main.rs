//! What brokers, links, clients, disks and clocks do wrong, each on real parts. Nothing is lost, no
//! call is made twice, and everything is as before when it is over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod disk;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use disk::start_on_a_small_disk;
use futures::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use support::load::Load;
use support::pair::is_state;
use support::wire::{command, with_header};
use support::{Crew, Desk, LIMIT, Pair, PairOptions, Wire, run, until, wait_for};
use tandem::broker::guard;
use tandem::lab::{Direction, Relay, ReservedPort, TandemProcess};
use tandem::simulator::faults::{Fault, Match};

const CREW: Crew = Crew::new(10, 6, 1);

/// The load goes on and ends well, and gc-1 leads and owns everything.
async fn unharmed(pair: &Pair, desk: &Desk, load: Load) {
    load.more(20).await;
    let account = load.finish(desk).await;
    account.no_double_and_no_false_answer(pair);
    account.all_succeeded_or_in_doubt();
    as_before(pair, desk).await;
}

async fn as_before(pair: &Pair, desk: &Desk) {
    pair.gc1.becomes("leader").await;
    pair.gc2.becomes("follower").await;
    CREW.served_by(pair, &pair.gc1).await;
    desk.served_by(CREW.others.start, "gc-1").await;
}

/// The next request of a kind takes this long.
fn slow(action: &str, delay_ms: u64) -> Fault {
    Fault {
        matching: Match {
            action: Some(action.to_owned()),
            ..Match::default()
        },
        count: Some(1),
        delay_ms,
        ..Fault::default()
    }
}

/// Shorter than an instance stays with a broker that blocks, and longer than it takes to declare a
/// silent peer lost.
const SHORT_ALARM: Duration = Duration::from_millis(3_300);

#[test]
fn a_memory_alarm_blocks_a_broker_and_nothing_is_lost() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        let desk = Arc::new(pair.desk("desk", 0).await);
        // It sends nothing while the broker blocks. A client that does goes to the other broker after
        // some seconds, and what is told meanwhile waits in the queue that it has left.
        let ear = pair.desk_at("ear", 0).await;
        let senders: Vec<u32> = (CREW.callers.start..CREW.others.end).collect();
        pair.sign_in(&desk, &senders).await;
        pair.sign_in(&ear, &[CREW.quiet.start]).await;
        pair.owns(&pair.gc1, CREW.count()).await;
        let load = CREW.load(&desk);
        load.more(20).await;
        shared.alarm(&pair, true).await;
        tokio::time::sleep(SHORT_ALARM).await;
        shared.alarm(&pair, false).await;
        load.more(20).await;
        // So long that both leave.
        shared.alarm(&pair, true).await;
        // What happens meanwhile is told afterwards.
        let world = pair.simulator.world();
        let extension = support::pair::extension(CREW.quiet.start).to_string();
        world
            .inbound("0612", &extension, Vec::new())
            .expect("a call");
        for instance in [&pair.gc1, &pair.gc2] {
            pair.attaches(instance, 1).await;
        }
        shared.alarm(&pair, false).await;
        ear.event("the offered call", |m| m.field("type") == "NewInboundCall")
            .await;
        for instance in [&pair.gc1, &pair.gc2] {
            pair.attaches(instance, 0).await;
        }
        unharmed(&pair, &desk, load).await;
    });
}

#[test]
fn a_deleted_command_queue_comes_back_and_what_was_under_way_ends_once() {
    run(async |shared| {
        let (pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        pair.fault_everywhere(&slow("MAKE_CALL", 1_500));
        pair.fault_everywhere(&slow("READY", 1_500));
        let call = desk
            .send(format!("MakeCall#{}", CREW.quiet.start), "5551017")
            .await;
        let ready = desk.send("MakeReady#1011", "").await;
        until("both are under way", async || {
            pair.gc1.status().await["inflight"] == 2
        })
        .await;
        let path = format!("queues/%2f/{}", pair.queue);
        pair.manage(0).delete(&path).await.unwrap();
        // Both are told by the broker (basic.cancel), declare the queue and consume again.
        until("both consume again", async || {
            pair.consumers(0).await.len() == 2
        })
        .await;
        for (id, kind) in [(&call, "MAKE_CALL"), (&ready, "READY")] {
            let reply = desk.reply(id).await;
            assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
            assert_eq!(pair.effects_of(kind, id), 1);
        }
        pair.heal();
        let history = pair.gc1.get("/api/v1/history").await.unwrap();
        assert!(history.contains("consumer"), "{history}");
        pair.repair(shared).await;
        unharmed(&pair, &desk, CREW.load(&desk)).await;
    });
}

#[test]
fn an_acknowledgement_too_late_for_the_broker_closes_the_channel_and_nothing_runs_twice() {
    run(async |shared| {
        let set = |timeout: u32, tick: u32| {
            format!(
                "application:set_env(rabbit, consumer_timeout, {timeout}), \
                 application:set_env(rabbit, channel_tick_interval, {tick})."
            )
        };
        shared.network().await;
        // For channels that are opened from now on.
        shared.broker(0).evaluate(&set(1_500, 300)).await.unwrap();
        let options = PairOptions::default()
            .instances(1)
            .set("downstream.request-timeout", "9s");
        let pair = shared.pair(options).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001, 1011]).await;
        pair.fault_everywhere(&slow("MAKE_CALL", 4_000));
        pair.fault_everywhere(&slow("READY", 4_000));
        let call = desk.send("MakeCall#1001", "5551001").await;
        let ready = desk.send("MakeReady#1011", "").await;
        until("the broker closes the channel", async || {
            let log = pair.gc1.log_text();
            log.contains("broker not connected") && log.contains("PRECONDITION_FAILED - delivery")
        })
        .await;
        for id in [&call, &ready] {
            let reply = desk.reply(id).await;
            assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
        }
        for (id, kind) in [(&call, "MAKE_CALL"), (&ready, "READY")] {
            assert_eq!(pair.effects_of(kind, id), 1, "{kind}");
        }
        pair.heal();
        desk.expect("MakeNotReady#1011", "", "ACCEPTED").await;
        let back = set(1_800_000, 60_000);
        shared.broker(0).evaluate(&back).await.unwrap();
        until("nothing is in work any more", async || {
            pair.gc1.status().await["inflight"] == 0
        })
        .await;
        for id in [&call, &ready] {
            for reply in desk.replies_to(id) {
                assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
            }
        }
    });
}

/// gc-1's connections to its broker stay open and carry nothing, in one direction or both: it goes
/// to the other broker, or gc-2 serves.
#[test]
fn a_half_open_way_to_the_broker_is_left() {
    run(async |shared| {
        let port = shared.network().await.nodes()[0].amqp_port();
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let relay = Relay::start(target).await.unwrap();
        let uri = format!("amqp://guest:guest@{}/%2f", relay.address());
        let options = PairOptions::default().set_own(0, "broker.url.1", &uri);
        let (pair, desk) = CREW.settled(shared, options).await;
        let mut callers = CREW.callers.collect::<Vec<u32>>();
        for only in [None, Some(Direction::ToTarget), Some(Direction::FromTarget)] {
            let some = callers.split_off(callers.len() - 3);
            let load = Load::start(desk.clone(), some, CREW.others.collect());
            load.more(15).await;
            relay.black_hole(only).await;
            until("gc-1 has left it", async || {
                pair.gc1.status().await["brokers"][0]["attached"] == false
            })
            .await;
            load.more(40).await;
            relay.heal().await;
            let account = load.finish(&desk).await;
            account.no_double_and_no_false_answer(&pair);
            // What was stuck may come back after a newer command of its agent.
            account.all_succeeded_or(&["IN_DOUBT"]);
            until("gc-1 is back", async || {
                pair.gc1.status().await["brokers"][0]["attached"] == true
            })
            .await;
            as_before(&pair, &desk).await;
        }
    });
}

/// The brokers' links stay open and carry nothing, one way or both, or come and go.
#[test]
fn a_link_that_is_a_black_hole_or_flaps_loses_nothing() {
    run(async |shared| {
        let (pair, near) = CREW.settled(shared, PairOptions::default()).await;
        let far = Arc::new(pair.desk("far", 1).await);
        let theirs: Vec<u32> = (1021..1031).collect();
        pair.sign_in(&far, &theirs).await;
        let loads = |from: usize| {
            let (callers, others) = theirs.split_at(6);
            let mine: Vec<u32> = CREW.callers.collect();
            let part = from * 2..from * 2 + 2;
            [
                Load::start(
                    near.clone(),
                    mine[part.clone()].to_vec(),
                    CREW.others.collect(),
                ),
                Load::start(far.clone(), callers[part].to_vec(), others.to_vec()),
            ]
        };
        for round in 0..3 {
            let loads = loads(round);
            for load in &loads {
                load.more(10).await;
            }
            let network = shared.network().await;
            match round {
                0 => network.black_hole_link().await,
                1 => {
                    let relay = network.relay(0, 1).expect("a relay");
                    relay.black_hole(Some(Direction::FromTarget)).await;
                }
                _ => {
                    network.flap_link(4, Duration::from_millis(300)).await;
                }
            }
            for load in &loads {
                load.more(40).await;
            }
            assert_eq!(pair.gc1.role().await, "leader");
            shared.network().await;
            let [one, other] = loads;
            for (load, desk) in [(one, &near), (other, &far)] {
                let account = load.finish(desk).await;
                account.no_double_and_no_false_answer(&pair);
                account.all_succeeded_or_in_doubt();
            }
        }
        pair.gc2.becomes("follower").await;
        pair.owns(&pair.gc1, CREW.count() + theirs.len()).await;
        pair.one_subscription_each(&[CREW.all(), theirs].concat())
            .await;
    });
}

async fn channel(pair: &Pair, broker: usize) -> (Connection, Channel) {
    let properties = ConnectionProperties::default();
    let connection = guard::connect(pair.brokers[broker].parse().unwrap(), properties).await;
    let connection = connection.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

/// A client that consumes nothing, from a queue that refuses what is too much.
#[test]
fn a_client_that_takes_nothing_keeps_nobody_waiting() {
    run(async |shared| {
        let (pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        let stuck = pair.desk("stuck", 0).await;
        pair.sign_in(&stuck, &[1021]).await;
        let (_connection, channel) = channel(&pair, 0).await;
        let queue = format!("full-{}", pair.cluster);
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
        let refuse = AMQPValue::LongString("reject-publish".into());
        arguments.insert("x-overflow".into(), refuse);
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(queue.as_str().into(), options, arguments);
        declared.await.unwrap();
        let events = format!("{}.events", pair.cluster);
        let bound = channel.queue_bind(
            queue.as_str().into(),
            events.as_str().into(),
            "stuck".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.unwrap();
        let mut wire = Wire::open(&pair, 0).await;
        let ids: Vec<String> = (0..20).map(|n| format!("stuck-{n}")).collect();
        for id in &ids {
            let asks = command("GetState#1021", id).with_reply_to(queue.as_str().into());
            wire.publish(asks, b"").await;
        }
        // Another client's commands go on, the agent's own too.
        for agent in CREW.others {
            let kind = format!("MakeReady#{agent}");
            desk.expect(&kind, "", "ACCEPTED").await;
        }
        stuck.expect("MakeReady#1021", "", "ACCEPTED").await;
        stuck.event("READY", |m| is_state(m, 1021, "READY")).await;
        until("nothing is in work any more", async || {
            pair.gc1.status().await["inflight"] == 0
        })
        .await;
        // What its queue refused is kept for it.
        let last = ids.last().unwrap();
        let parked = wire.dead_letter(last).await;
        assert_eq!(parked.reason, "unroutable-reply");
        assert_eq!(parked.json()["outcome"], "OK");
        until("the command queue is empty", async || {
            let path = format!("queues/%2f/{}", pair.queue);
            let queue = pair.manage(0).get(&path).await.ok().flatten();
            queue.is_some_and(|queue| queue["messages"] == 0)
        })
        .await;
    });
}

/// The hop that a federation link writes when it brings a command from broker 2 to broker 1.
async fn hop(pair: &Pair, wire: &Wire) -> AMQPValue {
    let (_connection, channel) = channel(pair, 0).await;
    let consumer = channel.basic_consume(
        pair.queue.as_str().into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut consumer = consumer.await.unwrap();
    wire.publish(command("Hello#nobody", "first"), b"").await;
    let next = tokio::time::timeout(LIMIT, consumer.next()).await;
    let delivery = next.expect("it crosses").unwrap().unwrap();
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    let headers = delivery.properties.headers().clone().unwrap_or_default();
    match headers.inner().get("x-received-from") {
        Some(AMQPValue::FieldArray(hops)) => hops.as_slice()[0].clone(),
        other => panic!("no hops: {other:?}"),
    }
}

/// The federation link that should carry it fails on it again and again.
#[test]
fn a_message_that_no_federation_link_can_carry_is_taken_away() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default().instances(0)).await;
        let far = Wire::open(&pair, 1).await;
        let hop = hop(&pair, &far).await;
        pair.gc1.start();
        pair.gc1.becomes("leader").await;
        pair.gc2.start();
        pair.gc2.becomes("follower").await;
        let desk = pair.desk("desk", 1).await;
        pair.sign_in(&desk, &[1001]).await;

        let hops = FieldArray::from(vec![hop.clone(), hop]);
        let poison = with_header(
            command("MakeReady#1001", "poison"),
            "x-received-from",
            AMQPValue::FieldArray(hops),
        );
        far.publish(poison, b"").await;
        // What stands behind it is served.
        desk.expect("MakeReady#1001", "", "ACCEPTED").await;
        let mut near = Wire::open(&pair, 0).await;
        let letter = near.dead_letter("poison").await;
        assert_eq!(letter.reason, "federation_loop");
        assert_eq!(pair.effects_of("READY", "poison"), 0);
        let said = "a message that no federation link can carry was taken away";
        assert!(
            pair.gc1.log_text().contains(said) || pair.gc2.log_text().contains(said),
            "{}",
            pair.gc1.log_text()
        );
        let metrics = [
            pair.gc1.get("/metrics").await,
            pair.gc2.get("/metrics").await,
        ];
        let counted = "tandem_dead_lettered_total{reason=\"federation_loop\"} 1";
        assert!(metrics.iter().flatten().any(|text| text.contains(counted)));
        desk.expect("MakeNotReady#1001", "", "ACCEPTED").await;
    });
}

#[test]
fn a_second_process_of_the_same_id_refuses_and_the_first_goes_on() {
    run(async |shared| {
        let (pair, desk) = CREW.settled(shared, PairOptions::default()).await;
        let load = CREW.load(&desk);
        load.more(20).await;
        let tag = pair.gc1.status().await["groups"][0]["tag"].clone();
        let folder = tempfile::tempdir().unwrap();
        let admin = ReservedPort::take().unwrap();
        let text = std::fs::read_to_string(&pair.gc1.config).unwrap();
        let text: String = text
            .lines()
            .map(|line| match line.split('=').next().unwrap() {
                "admin.listen" => format!("admin.listen={}\n", admin.address()),
                "data.dir" => format!("data.dir={}\n", folder.path().join("data").display()),
                _ => format!("{line}\n"),
            })
            .collect();
        let config = folder.path().join("twin.properties");
        std::fs::write(&config, text).unwrap();
        let log = folder.path().join("twin.log");
        let binary = Path::new(env!("CARGO_BIN_EXE_tandem"));
        let mut twin = TandemProcess::start(binary, &config, BTreeMap::new(), &log).unwrap();
        let status = twin.wait(LIMIT).await.expect("it refuses");
        assert!(!status.success());
        let said = std::fs::read_to_string(&log).unwrap();
        let why = "another process runs under the instance id gc-1";
        assert!(said.contains(why), "{said}");
        assert_eq!(
            pair.gc1.status().await["groups"][0]["tag"],
            tag,
            "undisturbed"
        );
        load.more(20).await;
        let account = load.finish(&desk).await;
        account.no_double_and_no_false_answer(&pair);
        account.all_succeeded();
        account.all_answered_by("gc-1");
        as_before(&pair, &desk).await;
    });
}

#[test]
fn a_full_disk_refuses_calls_before_they_are_made_and_room_brings_them_back() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default().instances(0)).await;
        if !start_on_a_small_disk(&mut pair).await {
            eprintln!("NOT TESTED: this machine allows no mount namespace (unshare -rm)");
            return;
        }
        pair.gc1.leads().await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001, 1002, 1003]).await;
        desk.expect("MakeCall#1001", "5551001", "ACCEPTED").await;

        // The folder as the process sees it.
        let pid = pair.gc1.process.as_ref().unwrap().pid();
        let data = pair.gc1.config.with_file_name("data-gc-1");
        let filler = format!("/proc/{pid}/root{}/filler", data.display());
        let full = std::fs::write(&filler, vec![0; 16 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        // What the journal's file has room for still fits.
        let refused = wait_for("a refused call", async || {
            let reply = desk.ask("MakeCall#1002", "5551002").await;
            (reply.error_code() == "JOURNAL_UNAVAILABLE").then_some(reply)
        })
        .await;
        assert_eq!(refused.field("outcome"), "REJECTED", "{}", refused.text);
        assert!(refused.json["retryAfterMs"].is_u64(), "{}", refused.text);
        let id = refused.correlation_id.clone().unwrap();
        assert_eq!(pair.effects_of("MAKE_CALL", &id), 0);
        // Idempotent commands need no journal.
        desk.expect("MakeReady#1003", "", "ACCEPTED").await;
        // What an operator decides is not kept either, and that is said.
        let twice = async || {
            let mut answers = String::new();
            for verb in ["stop", "start"] {
                let (_, answer) = pair
                    .gc1
                    .post(&format!("/api/v1/groups/agents/{verb}"))
                    .await;
                answers += &answer.to_string();
            }
            answers
        };
        until("a verb that is not kept", async || {
            twice().await.contains("it could not be written")
        })
        .await;

        std::fs::remove_file(&filler).unwrap();
        until("verbs that are kept", async || {
            !twice().await.contains("error")
        })
        .await;
        pair.gc1.leads().await;
        let taken = wait_for("a call again", async || {
            let reply = desk.ask("MakeCall#1003", "5551003").await;
            (reply.field("outcome") == "ACCEPTED").then_some(reply)
        })
        .await;
        let id = taken.correlation_id.clone().unwrap();
        assert_eq!(pair.effects_of("MAKE_CALL", &id), 1);
        assert!(pair.gc1.process.as_mut().unwrap().is_running());
    });
}

#[cfg(feature = "failpoints")]
#[test]
fn a_clock_that_jumps_makes_nothing_known_forgotten() {
    const HOUR: i64 = 3_600_000;
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default().instances(0)).await;
        let clock = pair.gc1.config.with_file_name("clock");
        let clock_file = clock.display().to_string();
        pair.gc1.start_with(&[("TANDEM_CLOCK_FILE", &clock_file)]);
        pair.gc1.leads().await;
        pair.gc2.start();
        pair.gc2.becomes("follower").await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &CREW.all()).await;
        let call = async |agent: u32, ahead: i64| {
            let far = std::time::SystemTime::now() + Duration::from_secs(3 * 3_600);
            let mut command =
                tandem::client::Command::new(format!("MakeCall#{agent}"), format!("555{agent}"));
            command.deadline = (ahead > 0).then_some(far);
            let id = desk.send_command(command).await;
            let reply = desk.reply(&id).await;
            (id, reply)
        };
        let mut made = Vec::new();
        for (agent, offset) in CREW.callers.zip([0, HOUR, -HOUR, 0]) {
            std::fs::write(&clock, offset.to_string()).unwrap();
            if offset > 0 {
                // By this clock every command is late: refused, not made.
                let late = desk.expect("MakeCall#1010", "5551010", "EXPIRED").await;
                let id = late.correlation_id.clone().unwrap();
                assert_eq!(pair.effects_of("MAKE_CALL", &id), 0);
            }
            let (id, reply) = call(agent, offset).await;
            assert_eq!(
                reply.field("outcome"),
                "ACCEPTED",
                "{offset}: {}",
                reply.text
            );
            made.push((agent, id));
            // Old entries are looked for once a second.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            assert_eq!(pair.gc1.role().await, "leader");
            assert_eq!(pair.gc1.sees("gc-2").await, "alive");
            assert_eq!(pair.gc2.sees("gc-1").await, "alive");
        }
        let again = async |pair: &Pair, attempt: u32| {
            for (agent, id) in &made {
                let before = desk.replies_to(id).len();
                let kind = format!("MakeCall#{agent}");
                let mut command =
                    tandem::client::Command::new(kind, format!("555{agent}")).with_id(id.clone());
                command.attempt = attempt;
                desk.send_command(command).await;
                until("another answer", async || {
                    desk.replies_to(id).len() > before
                })
                .await;
                for reply in desk.replies_to(id) {
                    assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
                }
                assert_eq!(pair.effects_of("MAKE_CALL", id), 1, "{agent}");
            }
        };
        again(&pair, 2).await;
        // The same from disk, without the peer.
        pair.gc2.kill();
        pair.gc1.start_with(&[]);
        pair.gc1.leads().await;
        again(&pair, 3).await;
    });
}
