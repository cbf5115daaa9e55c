//! Brokers that stand and do not do what is asked of them: rights taken away, objects that cannot
//! be made, an alarm that lasts. The other broker serves, or the instance says that it does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::load::Load;
use support::pair::Instance;
use support::wire::command;
use support::{Crew, Desk, Pair, PairOptions, Shared, Wire, run, until, wait_for};

const CREW: Crew = Crew::new(10, 6, 1);
/// From the first refusal to service by the other broker. Promised are 10 s; the machine may be
/// busy.
const BOUND: Duration = Duration::from_secs(20);

/// What a user may be denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    Configure,
    Write,
    Read,
}

/// The instances' user.
fn user(pair: &Pair) -> String {
    format!("{}-gc", pair.cluster)
}

/// Gives the instances' user all rights on a broker, but for one on one object.
async fn deny(pair: &Pair, broker: usize, denied: &[(Right, &str)]) {
    let pattern = |right: Right| {
        let objects = denied.iter().filter(|(kind, _)| *kind == right);
        let objects = objects.map(|(_, object)| object.replace('.', "\\."));
        match objects.collect::<Vec<String>>() {
            none if none.is_empty() => ".*".to_owned(),
            objects => format!("^(?!({})$).*", objects.join("|")),
        }
    };
    let rights = json!({
        "configure": pattern(Right::Configure),
        "write": pattern(Right::Write),
        "read": pattern(Right::Read),
    });
    let path = format!("permissions/%2f/{}", user(pair));
    pair.manage(broker).put(&path, &rights).await.unwrap();
}

/// The instances log in as a user of their own, whose rights are then changed. Not started.
async fn pair(shared: &mut Shared, options: PairOptions) -> Pair {
    let mut pair = shared.pair(options.instances(0)).await;
    for broker in 0..2 {
        let new = json!({"password": "pw", "tags": "management"});
        let path = format!("users/{}", user(&pair));
        pair.manage(broker).put(&path, &new).await.unwrap();
        deny(&pair, broker, &[]).await;
    }
    let login = format!("{}:pw@", user(&pair));
    for index in 0..2 {
        let config = pair.instance(index).config.clone();
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("guest:guest@", &login)).unwrap();
    }
    pair
}

async fn started(pair: &mut Pair) {
    pair.gc1.start();
    pair.gc2.start();
    pair.gc1.becomes("leader").await;
    pair.gc2.becomes("follower").await;
    pair.attaches(&pair.gc1, 0).await;
}

/// Closes the connections of the instances' user at a broker: they are opened anew.
async fn close_connections(pair: &Pair, broker: usize) {
    let api = pair.manage(broker);
    let closed = wait_for("connections to close", async || {
        let all = api.get("connections").await.ok().flatten()?;
        let ours = all.as_array()?.iter().filter(|c| c["user"] == user(pair));
        let names: Vec<String> = ours
            .filter_map(|c| c["name"].as_str().map(str::to_owned))
            .collect();
        (names.len() >= 4).then_some(names)
    })
    .await;
    for name in closed {
        let name = name.replace(' ', "%20").replace('>', "%3E");
        // One of them may be gone by now.
        let _ = api.delete(&format!("connections/{name}")).await;
    }
}

/// Status and line of `/readyz`.
async fn ready(instance: &Instance) -> (u16, String) {
    let url = format!("http://{}/readyz", instance.admin());
    match reqwest::get(url).await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            (status, answer.text().await.unwrap_or_default())
        }
        Err(error) => (0, error.to_string()),
    }
}

/// `host:port` of a broker, as metrics name it.
fn label(pair: &Pair, broker: usize) -> String {
    let uri = &pair.brokers[broker];
    let (_, rest) = uri.split_once('@').unwrap();
    rest.split('/').next().unwrap().to_owned()
}

async fn way_is_lost(pair: &Pair, way: &str) -> bool {
    let text = pair.gc1.get("/metrics").await.unwrap_or_default();
    let broker = label(pair, 0);
    let line = format!("tandem_broker_way_lost{{broker=\"{broker}\",way=\"{way}\"}} 1");
    text.lines().any(|known| known == line)
}

/// Broker 1 as an instance shows it.
async fn first_broker(instance: &Instance) -> Value {
    instance.status().await["brokers"][0].clone()
}

async fn failovers(instance: &Instance) -> u64 {
    let text = instance.get("/metrics").await.unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("tandem_broker_failovers_total{"));
    let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

async fn answers(desk: &Desk, agent: u32) {
    desk.expect(&format!("GetState#{agent}"), "", "OK").await;
}

/// gf1: under load from both sites.
#[test]
fn gf1_no_write() {
    run(async |shared| {
        let mut pair = pair(shared, PairOptions::default()).await;
        started(&mut pair).await;
        let near = Arc::new(pair.desk("near", 0).await);
        let far = Arc::new(pair.desk("far", 1).await);
        pair.sign_in(&near, &CREW.all()).await;
        let theirs: Vec<u32> = (1021..1031).collect();
        pair.sign_in(&far, &theirs).await;
        let (callers, others) = theirs.split_at(4);
        let loads = [
            (CREW.load(&near), &near),
            (
                Load::start(far.clone(), callers.to_vec(), others.to_vec()),
                &far,
            ),
        ];
        for (load, _) in &loads {
            load.more(20).await;
        }
        let (moves, size) = (failovers(&pair.gc1).await, pair.gc1.log_text().len());
        let begin = Instant::now();
        deny(&pair, 0, &[(Right::Write, "amq.default")]).await;
        pair.attaches(&pair.gc1, 1).await;
        println!("served by broker 2 after {:?}", begin.elapsed());
        assert!(begin.elapsed() < BOUND);
        assert!(way_is_lost(&pair, "replies").await);
        until("the status says why", async || {
            let told = first_broker(&pair.gc1).await["problem"].to_string();
            told.contains("ACCESS_REFUSED")
        })
        .await;
        assert_eq!(ready(&pair.gc1).await.0, 200);
        let before: Vec<usize> = loads.iter().map(|(_, desk)| desk.answered()).collect();
        for ((load, desk), before) in loads.iter().zip(before) {
            load.more(80).await;
            until("its answers go on", async || desk.answered() > before + 60).await;
        }
        // Long enough for several returns, were there any.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(failovers(&pair.gc1).await, moves + 1, "it does not flap");
        let grown = pair.gc1.log_text().len() - size;
        assert!(grown < 20_000, "{grown} bytes of log");
        deny(&pair, 0, &[]).await;
        pair.attaches(&pair.gc1, 0).await;
        assert!(!way_is_lost(&pair, "replies").await);
        for (load, desk) in loads {
            load.more(20).await;
            let account = load.finish(desk).await;
            account.no_double_and_no_false_answer(&pair);
            // What the broker that is left gives back comes behind newer changes of the same agent.
            account.all_succeeded_or(&["IN_DOUBT"]);
        }
        assert_eq!(failovers(&pair.gc1).await, moves + 2);
        assert_eq!(pair.gc1.role().await, "leader");
        pair.owns(&pair.gc1, CREW.count() + theirs.len()).await;
    });
}

/// What makes a broker refuse, beside the right that is missing.
#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    /// A right that counts when a consumer is registered.
    Reconnect,
    DeleteQueue(&'static str),
    DeleteExchange(&'static str),
}

/// Rights that are taken, what has to follow, and a word of the reason.
type Kind = (&'static [(Right, &'static str)], Then, &'static str);

/// Each right on each object that a broker needs for service: `{c}` is the cluster, `{q}` its
/// command queue.
const KINDS: [Kind; 11] = [
    (&[(Right::Write, "amq.default")], Then::Nothing, "replies"),
    (&[(Right::Write, "{c}.events")], Then::Nothing, "events"),
    (
        &[(Right::Write, "{c}.replies")],
        Then::Nothing,
        "far-replies",
    ),
    (&[(Right::Write, "{c}.control")], Then::Nothing, "peers"),
    (&[(Right::Read, "{q}")], Then::Reconnect, "commands"),
    (
        &[(Right::Configure, "{q}")],
        Then::DeleteQueue("{q}"),
        "commands",
    ),
    (
        &[(Right::Read, "{c}.control.gc-1")],
        Then::Reconnect,
        "control-queue",
    ),
    (
        &[(Right::Write, "{c}.control.gc-1")],
        Then::Reconnect,
        "control-queue",
    ),
    (
        &[(Right::Read, "{c}.control")],
        Then::Reconnect,
        "control-queue",
    ),
    (
        &[(Right::Configure, "{c}.control.gc-1")],
        Then::DeleteQueue("{c}.control.gc-1"),
        "control-queue",
    ),
    (
        &[(Right::Configure, "{c}.events")],
        Then::DeleteExchange("{c}.events"),
        "events",
    ),
];

#[test]
fn whatever_right_is_missing_on_one_broker_the_other_serves() {
    run(async |shared| {
        // The hold doubles with each return that did not last; here one follows the other.
        let options = PairOptions::default().set("broker.failback-hold", "50ms");
        let mut pair = pair(shared, options).await;
        started(&mut pair).await;
        let near = pair.desk("near", 0).await;
        let far = pair.desk("far", 1).await;
        pair.sign_in(&near, &[1001]).await;
        pair.sign_in(&far, &[1002]).await;
        for (denied, then, way) in KINDS {
            println!("{denied:?} {then:?}");
            let named = |text: &str| {
                text.replace("{c}", &pair.cluster)
                    .replace("{q}", &pair.queue)
            };
            let denied: Vec<(Right, String)> = denied.iter().map(|(r, o)| (*r, named(o))).collect();
            let denied: Vec<(Right, &str)> = denied.iter().map(|(r, o)| (*r, o.as_str())).collect();
            let begin = Instant::now();
            deny(&pair, 0, &denied).await;
            let api = pair.manage(0);
            match then {
                Then::Nothing => {}
                Then::Reconnect => close_connections(&pair, 0).await,
                Then::DeleteQueue(name) => {
                    api.delete(&format!("queues/%2f/{}", named(name)))
                        .await
                        .unwrap();
                }
                Then::DeleteExchange(name) => {
                    api.delete(&format!("exchanges/%2f/{}", named(name)))
                        .await
                        .unwrap();
                }
            }
            until("it is shown", async || way_is_lost(&pair, way).await).await;
            pair.attaches(&pair.gc1, 1).await;
            println!("  served by broker 2 after {:?}", begin.elapsed());
            assert!(begin.elapsed() < BOUND);
            until("the status says so", async || {
                first_broker(&pair.gc1).await["unfit"] == true
            })
            .await;
            // Federation makes a deleted command queue anew; what is sent before that is nowhere.
            let queue = format!("queues/%2f/{}", pair.queue);
            until("commands can be sent", async || {
                api.get(&queue).await.is_ok_and(|found| found.is_some())
            })
            .await;
            answers(&near, 1001).await;
            answers(&far, 1002).await;
            until("it is ready", async || ready(&pair.gc1).await.0 == 200).await;
            deny(&pair, 0, &[]).await;
            pair.attaches(&pair.gc1, 0).await;
            until("nothing is wrong", async || {
                let shown = first_broker(&pair.gc1).await;
                shown["unfit"].is_null() || shown["unfit"] == false
            })
            .await;
            until("it consumes", async || {
                pair.gc1.status().await["groups"][0]["consuming"] == true
            })
            .await;
            pair.gc1.becomes("leader").await;
            answers(&near, 1001).await;
            answers(&far, 1002).await;
        }
        pair.repair(shared).await;
    });
}

/// With one broker in the list there is nowhere to go.
#[test]
fn without_another_broker_it_is_not_ready_consumes_nothing_and_comes_back_by_itself() {
    run(async |shared| {
        let mut pair = pair(shared, PairOptions::default()).await;
        let text = std::fs::read_to_string(&pair.gc1.config).unwrap();
        let one = text.lines().filter(|line| {
            !line.starts_with("broker.url.2") && !line.starts_with("broker.management-url.2")
        });
        let one: Vec<&str> = one.collect();
        std::fs::write(&pair.gc1.config, one.join("\n")).unwrap();
        pair.gc1.start();
        pair.gc1.leads().await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        for (object, words) in [("amq.default", "replies"), ("{c}.events", "events")] {
            let object = object.replace("{c}", &pair.cluster);
            deny(&pair, 0, &[(Right::Write, &object)]).await;
            let line = wait_for("it is not ready", async || {
                let (status, line) = ready(&pair.gc1).await;
                (status == 503).then_some(line)
            })
            .await;
            assert!(line.contains(words), "{line}");
            assert!(line.contains("ACCESS_REFUSED"), "{line}");
            until("it consumes nothing", async || {
                pair.consumers(0).await.is_empty()
            })
            .await;
            let size = pair.gc1.log_text().len();
            let asked = desk.send("GetState#1001", "").await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let grown = pair.gc1.log_text().len() - size;
            assert!(grown < 8_000, "{grown} bytes of log");
            deny(&pair, 0, &[]).await;
            let reply = desk.reply(&asked).await;
            assert_eq!(reply.field("outcome"), "OK", "{}", reply.text);
            until("it is ready", async || ready(&pair.gc1).await.0 == 200).await;
        }
        pair.gc1.kill();
    });
}

/// Expired commands and dead letters are no reason to leave a broker.
#[test]
fn what_is_not_essential_is_shown_and_moves_nothing() {
    run(async |shared| {
        let mut pair = pair(shared, PairOptions::default()).await;
        let named = |name: &str| format!("{}.{name}", pair.cluster);
        let (expired, letters) = (named("expired"), named("dead-letter"));
        deny(
            &pair,
            0,
            &[(Right::Read, &expired), (Right::Configure, &letters)],
        )
        .await;
        let path = format!("queues/%2f/{letters}");
        pair.manage(0).delete(&path).await.unwrap();
        started(&mut pair).await;
        let near = pair.desk("near", 0).await;
        pair.sign_in(&near, &[1001]).await;
        until("it is shown", async || way_is_lost(&pair, "expired").await).await;
        // Nothing keeps it here, so the other broker does.
        let mut wire = Wire::open(&pair, 1).await;
        let here = Wire::open(&pair, 0).await;
        here.publish(command("Nonsense#1001", "odd-1"), b"").await;
        let letter = wire.dead_letter("odd-1").await;
        assert_eq!(letter.kind, "Nonsense#1001");
        until("it is shown", async || {
            way_is_lost(&pair, "dead-letters").await
        })
        .await;
        let moves = failovers(&pair.gc1).await;
        let size = pair.gc1.log_text().len();
        tokio::time::sleep(Duration::from_secs(8)).await;
        answers(&near, 1001).await;
        assert_eq!(failovers(&pair.gc1).await, moves);
        let grown = pair.gc1.log_text().len() - size;
        assert!(grown < 8_000, "{grown} bytes of log");
        let shown = first_broker(&pair.gc1).await;
        assert_eq!(shown["attached"], true, "{shown}");
        assert_eq!(ready(&pair.gc1).await.0, 200);
        deny(&pair, 0, &[]).await;
        until("all is had", async || {
            first_broker(&pair.gc1).await["problem"].is_null()
        })
        .await;
        assert_eq!(failovers(&pair.gc1).await, moves);
    });
}

/// Commands are still delivered by a broker that takes no answers.
#[test]
fn an_alarm_that_lasts_moves_the_service_and_a_later_end_brings_it_back() {
    run(async |shared| {
        let (pair, near) = CREW.settled(shared, PairOptions::default()).await;
        let far = Arc::new(pair.desk("far", 1).await);
        let theirs: Vec<u32> = (1021..1031).collect();
        pair.sign_in(&far, &theirs).await;
        let (callers, others) = theirs.split_at(4);
        let load = Load::start(far.clone(), callers.to_vec(), others.to_vec());
        load.more(20).await;
        let set = |to: &str| format!("vm_memory_monitor:set_vm_memory_high_watermark({to}).");
        let broker = shared.broker(0);
        broker.evaluate(&set("0.000001")).await.unwrap();
        pair.attaches(&pair.gc1, 1).await;
        assert!(way_is_lost(&pair, "publishing").await);
        let before = far.answered();
        until("clients of the other broker are served", async || {
            far.answered() > before + 60
        })
        .await;
        assert_eq!(ready(&pair.gc1).await.0, 200);
        let broker = shared.broker(0);
        broker
            .evaluate(&set("{absolute, \"512MB\"}"))
            .await
            .unwrap();
        pair.attaches(&pair.gc1, 0).await;
        load.more(20).await;
        let account = load.finish(&far).await;
        account.no_double_and_no_false_answer(&pair);
        account.all_succeeded_or_in_doubt();
        answers(&near, CREW.quiet.start).await;
        pair.gc1.becomes("leader").await;
        pair.owns(&pair.gc1, CREW.count() + theirs.len()).await;
    });
}
