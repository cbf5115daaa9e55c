//! Bytes that AMQP allows, or that a client can write all the same, and that the AMQP library
//! cannot read: they cost no link, no process and nobody else's time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::pair::{Instance, management};
use support::raw::{Frame, Meddle, Meddler, RawClient, poisons};
use support::{Desk, LIMIT, Pair, PairOptions, Wire, run, until, wait_for};

/// Other clients' commands wait no longer than this.
const WORST_WAIT: Duration = Duration::from_secs(1);
/// Memory that an instance may take more than before, KiB.
const MORE_MEMORY: u64 = 40 * 1024;

/// Lasting connections of the instances: purpose and ports.
async fn connections(pair: &Pair) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for base in &pair.management {
        let list = management(base).get("connections").await.ok().flatten();
        let list = list.as_ref().and_then(Value::as_array).cloned();
        for connection in list.into_iter().flatten() {
            let name = connection["client_properties"]["connection_name"].as_str();
            let name = name.unwrap_or_default();
            if name.starts_with("tandem/gc-") && !name.contains("direct") {
                all.insert(format!("{name} {}", connection["name"]));
            }
        }
    }
    all
}

/// Both instances' links to both brokers, two connections each: the broker's list lags behind.
async fn all_connections(pair: &Pair) -> BTreeSet<String> {
    wait_for("all connections are listed", async || {
        let all = connections(pair).await;
        (all.len() == 8).then_some(all)
    })
    .await
}

/// A figure of /proc/…/status, KiB.
fn memory(instance: &Instance, what: &str) -> u64 {
    let pid = instance.process.as_ref().expect("it runs").pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let figure = line.and_then(|line| line.split_whitespace().next());
    figure.and_then(|figure| figure.parse().ok()).expect(what)
}

fn pids(pair: &Pair) -> Vec<u32> {
    let instances = [&pair.gc1, &pair.gc2];
    let pid = |instance: &&Instance| instance.process.as_ref().map(|process| process.pid());
    instances.iter().filter_map(pid).collect()
}

/// Asks for a state again and again until it is dropped; remembers the longest wait.
struct Asking {
    worst: Arc<Mutex<Duration>>,
    count: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Asking {
    fn start(desk: Arc<Desk>, agent: u32) -> Self {
        let worst = Arc::new(Mutex::new(Duration::ZERO));
        let count = Arc::new(AtomicUsize::new(0));
        let (longest, counted) = (worst.clone(), count.clone());
        let task = tokio::spawn(async move {
            loop {
                let begin = Instant::now();
                let id = desk.send(format!("GetState#{agent}"), "").await;
                while desk.replies_to(&id).is_empty() {
                    assert!(begin.elapsed() < LIMIT, "{id} is not answered");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let reply = &desk.replies_to(&id)[0];
                assert_eq!(reply.field("outcome"), "OK", "{}", reply.text);
                let mut longest = longest.lock().unwrap();
                *longest = longest.max(begin.elapsed());
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { worst, count, task }
    }

    /// At least so many were answered; gives back the longest wait.
    fn end(self, least: usize) -> Duration {
        assert!(!self.task.is_finished(), "a command was not answered");
        self.task.abort();
        let count = self.count.load(Ordering::Relaxed);
        assert!(count >= least, "{count} commands were answered");
        *self.worst.lock().unwrap()
    }
}

/// Each poison into each of these queues of a broker, and each one among the dead letters with its
/// reason: at broker 1, where the instances are attached.
async fn poison(pair: &Pair, broker: usize, queues: &[String]) {
    let mut raw = RawClient::open(&pair.brokers[broker]).await;
    let mut wire = Wire::open(pair, 0).await;
    for queue in queues {
        for (id, flags, properties) in poisons(&format!("{queue}-{broker}")) {
            raw.publish(("", queue.as_bytes()), flags, &properties)
                .await;
            let letter = wire.dead_letter(&id).await;
            assert_eq!(letter.reason, "unreadable_properties", "{id}");
            assert!(letter.properties.contains("x-evidence"), "{id}");
            assert!(!letter.properties.contains("x-tandem-unreadable"), "{id}");
        }
    }
}

/// Nobody lost a link or began anew, nothing waits, and memory has not grown.
async fn unharmed(pair: &Pair, before: &BTreeSet<String>, processes: &[u32], memory_before: u64) {
    assert_eq!(pids(pair), processes);
    assert_eq!(&all_connections(pair).await, before);
    for instance in [&pair.gc1, &pair.gc2] {
        assert_eq!(instance.lost_links(), 0, "{}", instance.name);
        let metrics = instance.get("/metrics").await.unwrap_or_default();
        let garbled =
            |line: &&str| line.starts_with("tandem_broker_garbled{") && !line.ends_with("} 0");
        assert_eq!(metrics.lines().find(garbled), None);
    }
    let now = memory(&pair.gc1, "VmRSS:");
    assert!(now < memory_before + MORE_MEMORY, "{memory_before} {now}");
    until("empty queues", async || {
        let mut left = 0;
        for base in &pair.management {
            for queue in [pair.queue.clone(), format!("{}.expired", pair.cluster)] {
                match management(base).get(&format!("queues/%2f/{queue}")).await {
                    Ok(Some(queue)) => left += queue["messages"].as_u64().unwrap_or(0),
                    _ => return false,
                }
            }
        }
        left == 0
    })
    .await;
}

#[test]
fn hb1_poison() {
    run(async |shared| {
        let pair = shared.pair(PairOptions::default()).await;
        let desk = Arc::new(pair.desk("desk-poison", 0).await);
        pair.sign_in(&desk, &[1001, 1002]).await;
        let (before, processes) = (all_connections(&pair).await, pids(&pair));
        let memory_before = memory(&pair.gc1, "VmRSS:");
        let asking = Asking::start(desk.clone(), 1002);
        let own = |name: &str| format!("{}.{name}", pair.cluster);
        // The control queue of each instance is consumed where it is attached.
        let queues = [
            pair.queue.clone(),
            own("expired"),
            own("control.gc-1"),
            own("control.gc-2"),
        ];
        poison(&pair, 0, &queues).await;
        // At the other broker: what is on the command queue there comes over federation.
        poison(&pair, 1, &queues[..2]).await;
        let mut raw = RawClient::open(&pair.brokers[1]).await;
        // Routing keys are a client's text too.
        for key in [&b"\xff\xfe"[..], b"desk-poison"] {
            let events = own("events");
            let (_, flags, properties) = poisons("event").remove(0);
            raw.publish((&events, key), flags, &properties).await;
        }
        let told = desk.event("what cannot be read", |event| event.unreadable.is_some());
        let told = told.await;
        assert_eq!(told.message_id.as_deref(), Some("event-correlation"));
        let worst = asking.end(100);
        println!("worst wait of the others: {worst:?}");
        assert!(worst < WORST_WAIT, "{worst:?}");
        unharmed(&pair, &before, &processes, memory_before).await;
        desk.expect("MakeReady#1001", "", "ACCEPTED").await;
    });
}

/// The library fails on something that the guard does not know: each process loses what it heard
/// it on once, asks the library first from then on, and serves.
#[cfg(feature = "failpoints")]
#[test]
fn what_the_guard_does_not_know_costs_a_link_once() {
    use support::raw::no_texts;
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default()).await;
        for index in 0..2 {
            let blind = [("TANDEM_FAILPOINT", "blind-guard")];
            pair.instance(index).start_with(&blind);
        }
        pair.gc1.becomes("leader").await;
        pair.gc2.becomes("follower").await;
        let desk = Arc::new(pair.desk("desk-blind", 0).await);
        pair.sign_in(&desk, &[1001]).await;
        let asking = Asking::start(desk.clone(), 1001);
        let mut wire = Wire::open(&pair, 0).await;
        let mut far = Wire::open(&pair, 1).await;
        let own = |name: &str| format!("{}.{name}", pair.cluster);
        for (n, queue) in [pair.queue.clone(), own("expired"), pair.queue.clone()]
            .iter()
            .enumerate()
        {
            let mut raw = RawClient::open(&pair.brokers[n % 2]).await;
            let mut missing = BTreeSet::new();
            for (id, flags, properties) in no_texts(&format!("{queue}-{n}")) {
                raw.publish(("", queue.as_bytes()), flags, &properties)
                    .await;
                missing.insert(id);
            }
            // Without its properties it is known by its body alone; at the broker that served then.
            let mut count = 0;
            until("all dead letters", async || {
                for wire in [&mut wire, &mut far] {
                    let letters = wire.other_dead_letters().await;
                    let reasons = letters.iter().map(|letter| letter.reason.as_str());
                    count += reasons.filter(|r| *r == "unreadable_properties").count();
                }
                count >= missing.len()
            })
            .await;
        }
        let lost = [&pair.gc1, &pair.gc2].map(Instance::lost_links);
        println!("links lost: {lost:?}");
        assert!(lost.iter().all(|lost| *lost <= 2), "{lost:?} links lost");
        assert!(lost.iter().any(|lost| *lost > 0), "the guard was not blind");
        let worst = asking.end(20);
        println!("worst wait of the others: {worst:?}");
        pair.gc1.becomes("leader").await;
        desk.expect("MakeReady#1001", "", "ACCEPTED").await;
    });
}

/// `connection.tune` with another frame size.
fn offering(frame_max: u32) -> Meddle {
    Arc::new(move |mut frame: Frame| {
        if frame.is(10, 30) {
            frame.payload[6..10].copy_from_slice(&frame_max.to_be_bytes());
        }
        Ok(frame)
    })
}

/// Remembers the frame sizes that `connection.tune-ok` asks for.
fn asking_for(seen: Arc<Mutex<Vec<u32>>>) -> Meddle {
    Arc::new(move |frame: Frame| {
        if frame.is(10, 31) {
            let asked = frame.payload[6..10].try_into().unwrap();
            seen.lock().unwrap().push(u32::from_be_bytes(asked));
        }
        Ok(frame)
    })
}

#[test]
fn a_broker_that_offers_frames_of_any_size_costs_no_memory() {
    run(async |shared| {
        let broker = shared.network().await.uris_from(0).remove(0);
        for offered in [0, 128 * 1024 * 1024, u32::MAX] {
            let seen = Arc::<Mutex<Vec<u32>>>::default();
            let meddler =
                Meddler::start(&broker, offering(offered), asking_for(seen.clone())).await;
            let options =
                PairOptions::default()
                    .instances(1)
                    .set_own(0, "broker.url.1", &meddler.uri());
            let pair = shared.pair(options).await;
            let desk = Desk::open(vec![meddler.uri()], &pair.cluster, &pair.queue, "desk").await;
            pair.sign_in(&desk, &[1001]).await;
            desk.expect("MakeReady#1001", "", "ACCEPTED").await;
            let most = memory(&pair.gc1, "VmHWM:");
            println!("{offered} offered: at most {most} KiB");
            assert!(most < 150 * 1024, "{offered} offered: {most} KiB");
            let seen = seen.lock().unwrap();
            assert!(seen.len() >= 3, "{seen:?}");
            assert!(seen.iter().all(|asked| *asked == 128 * 1024), "{seen:?}");
        }
    });
}

/// While `on`, what is no frame comes in the place of every delivered command.
fn garbling(on: Arc<AtomicBool>, queue: Arc<Mutex<String>>) -> Meddle {
    Arc::new(move |frame: Frame| {
        let queue = queue.lock().unwrap();
        let names = |name: &str| {
            let mut parts = frame.payload.windows(name.len());
            !name.is_empty() && parts.any(|part| part == name.as_bytes())
        };
        if on.load(Ordering::Relaxed) && frame.is(60, 60) && names(&queue) {
            return Err(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
        }
        Ok(frame)
    })
}

#[test]
fn a_link_on_which_nothing_can_be_read_is_left_and_the_other_broker_serves() {
    run(async |shared| {
        let broker = shared.network().await.uris_from(0).remove(0);
        let (on, queue) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let unseen = asking_for(Arc::default());
        let meddler = Meddler::start(&broker, garbling(on.clone(), Arc::clone(&queue)), unseen);
        let meddler = meddler.await;
        let options = PairOptions::default().set_own(0, "broker.url.1", &meddler.uri());
        let pair = shared.pair(options).await;
        queue.lock().unwrap().clone_from(&pair.queue);
        let desk = Arc::new(pair.desk("desk-garbled", 0).await);
        pair.sign_in(&desk, &[1001]).await;
        on.store(true, Ordering::Relaxed);
        let asking = Asking::start(desk.clone(), 1001);
        until("the broker is told of", async || {
            let status = pair.gc1.status().await;
            let warnings = status["warnings"].to_string();
            warnings.contains("could not be read 3 times in a row")
        })
        .await;
        let metrics = pair.gc1.get("/metrics").await.unwrap_or_default();
        let gauge = format!("tandem_broker_garbled{{broker=\"{}\"}} ", meddler.address);
        let times = metrics.lines().find_map(|line| line.strip_prefix(&gauge));
        assert!(
            times.is_some_and(|times| times.parse::<u32>().unwrap() >= 3),
            "{metrics}"
        );
        // The other way works, and the peer was not drawn into it.
        pair.attaches(&pair.gc1, 1).await;
        desk.expect("GetState#1001", "", "OK").await;
        assert!(!pair.gc2.log_text().contains("could not be read"));
        on.store(false, Ordering::Relaxed);
        until("gc-1 is back at broker 1", async || {
            pair.gc1.attached().await == Some(meddler.address.to_string())
        })
        .await;
        asking.end(20);
        pair.gc1.becomes("leader").await;
        desk.expect("MakeReady#1001", "", "ACCEPTED").await;
    });
}
