//! What a running instance says, and to whom: its log, its supervisor, `tandem doctor` right after
//! a change.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::pair::{Instance, tandem};
use support::{Desk, LIMIT, Pair, PairOptions, run, until};
use tandem::lab::TandemProcess;
use tandem::simulator::faults::{Fault, Match};

/// How often it has noticed that a broker is not there, as far as it remembers.
async fn dialled_in_vain(instance: &Instance) -> usize {
    let history = instance.json("/api/v1/history").await;
    let list = history.as_array().cloned().unwrap_or_default();
    let down = |entry: &&serde_json::Value| entry["kind"] == "broker" && entry["to"] == "down";
    // One that stays down is one row with a count.
    let downs = list.iter().filter(down);
    let count = downs
        .map(|entry| entry["count"].as_u64().unwrap_or(1))
        .sum::<u64>();
    usize::try_from(count).unwrap_or(usize::MAX)
}

async fn ends(pair: &mut Pair) {
    let process = pair.gc1.process.as_mut().unwrap();
    process.terminate();
    until("the process has ended", async || !process.is_running()).await;
}

/// A call that the platform does not answer is under way.
async fn a_call_hangs(pair: &Pair, desk: &Desk) {
    let hang = Fault {
        matching: Match {
            action: Some("MAKE_CALL".to_owned()),
            ..Match::default()
        },
        hang: true,
        ..Fault::default()
    };
    pair.fault_everywhere(&hang);
    desk.send("MakeCall#1001", "5551001").await;
    until("the call is under way", async || {
        pair.gc1.status().await["inflight"] == 1
    })
    .await;
}

#[test]
fn a_broker_that_is_down_fills_no_disk_and_a_clean_stop_is_no_error() {
    run(async |shared| {
        let options = PairOptions::default()
            .instances(1)
            .set("broker.reconnect-delay-max", "100ms");
        let mut pair = shared.pair(options).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        shared.broker(1).kill();
        until("the loss is noticed", async || {
            dialled_in_vain(&pair.gc1).await > 0
        })
        .await;
        let before = pair.gc1.log_text().len();
        until("it is dialled again and again", async || {
            dialled_in_vain(&pair.gc1).await >= 150
        })
        .await;
        // A line of 200 bytes each time, and some more: 30 KB.
        let written = pair.gc1.log_text().len() - before;
        assert!(written < 6_000, "{written} bytes");
        desk.expect("MakeReady#1001", "", "ACCEPTED").await;
        shared.broker(1).start_again().await.unwrap();
        pair.gc1.leads().await;
        let before = pair.gc1.log_text().len();
        ends(&mut pair).await;
        let log = pair.gc1.log_text();
        let last = &log[before..];
        assert!(!last.contains("ERROR"), "{last}");
        assert!(!last.contains("lapin"), "{last}");
        // What was not written is counted.
        let held: u64 = log.lines().filter_map(repeated).sum();
        assert!(held >= 130, "{held} in\n{log}");
    });
}

fn repeated(line: &str) -> Option<u64> {
    let (line, count) = line.split_once("(repeated ")?;
    assert!(line.contains("broker not connected"), "{line}");
    count.split(' ').next()?.parse().ok()
}

#[test]
fn a_stop_takes_no_longer_than_its_grace_though_a_call_never_ends() {
    const GRACE: Duration = Duration::from_secs(4);
    run(async |shared| {
        let options = PairOptions::default()
            .instances(1)
            .set("shutdown.grace", "4s")
            .set("downstream.request-timeout", "60s");
        let mut pair = shared.pair(options).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        a_call_hangs(&pair, &desk).await;
        let process = pair.gc1.process.as_mut().unwrap();
        let begun = Instant::now();
        process.terminate();
        let status = process.wait(LIMIT).await.unwrap();
        let took = begun.elapsed();
        assert!(status.success(), "{status}");
        assert!(took < GRACE, "{took:?}");
    });
}

/// The supervisor's end of the socket: all that was said to it.
fn supervisor(path: &std::path::Path) -> Arc<Mutex<Vec<String>>> {
    let socket = UnixDatagram::bind(path).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let said = Arc::clone(&heard);
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            said.lock().unwrap().push(text);
        }
    });
    heard
}

#[test]
fn one_voice_speaks_to_the_supervisor() {
    run(async |shared| {
        let options = PairOptions::default().instances(1);
        let mut pair = shared.pair(options).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = supervisor(&path);
        let path = path.display().to_string();
        let env = [
            ("NOTIFY_SOCKET", path.as_str()),
            ("WATCHDOG_USEC", "300000"),
        ];
        pair.gc1.start_with(&env);
        pair.gc1.leads().await;
        let count = |word: &str| {
            let heard = heard.lock().unwrap();
            heard.iter().filter(|text| text.contains(word)).count()
        };
        until("the watchdog is fed", async || count("WATCHDOG=1") >= 20).await;
        ends(&mut pair).await;
        until("it says that it stops", async || count("STOPPING=1") > 0).await;
        for once in ["READY=1", "STOPPING=1"] {
            assert_eq!(count(once), 1, "{once}: {:?}", heard.lock().unwrap());
        }
        // Each word of life comes with what the driver has just shown.
        assert_eq!(count("WATCHDOG=1"), count("STATUS=agents "));
    });
}

async fn both_consume(pair: &Pair) {
    until("both consume", async || {
        let both = [pair.gc1.status().await, pair.gc2.status().await];
        let consumes = |status: &serde_json::Value| status["groups"][0]["consuming"] == true;
        both.iter().all(consumes)
    })
    .await;
}

async fn is_well(pair: &Pair, when: &str) {
    let config = pair.gc1.config.display().to_string();
    let words = ["doctor", "--config", &config];
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    let (code, said) = tandem(words).await;
    assert_eq!(code, 0, "{when}: {said}");
}

#[test]
fn the_doctor_does_not_trust_lists_that_are_older_than_the_change() {
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default()).await;
        is_well(&pair, "after the start").await;
        for round in 0..2 {
            // New consumers under new tags.
            let (status, body) = pair.gc1.post("/api/v1/groups/agents/stop").await;
            assert_eq!(status, 202, "{body}");
            pair.gc2.leads().await;
            let (status, body) = pair.gc1.post("/api/v1/groups/agents/start").await;
            assert_eq!(status, 202, "{body}");
            both_consume(&pair).await;
            is_well(&pair, &format!("after change {round}")).await;
        }
        // Commands that waited, and that the broker's list has waiting for a while yet.
        let desk = pair.desk("desk", 0).await;
        pair.gc1.kill();
        pair.gc2.kill();
        for _ in 0..5 {
            desk.send("Beat#desk", "").await;
        }
        let path = format!("queues/%2f/{}", pair.queue);
        until("the list says that they wait", async || {
            let queue = pair.manage(0).get(&path).await.ok().flatten();
            let queue = queue.unwrap_or_default();
            queue["messages_ready"].as_u64() > Some(0) && queue["consumers"] == 0
        })
        .await;
        pair.gc1.start();
        pair.gc2.start();
        both_consume(&pair).await;
        is_well(&pair, "after the restart").await;
    });
}

/// Standard error is a pipe that nobody reads, standard output with it.
fn unread(pair: &mut Pair, folder: &std::path::Path) {
    let pipe = folder.join("unread").display().to_string();
    // Open in both directions, so that writing waits and does not fail.
    let shell = format!("rm -f '{pipe}'\nmkfifo '{pipe}'\nexec 2<>'{pipe}' >&2");
    pair.gc1.start_after(&shell, &[]);
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    /// More than twice what a pipe takes.
    const FULL: usize = 150_000;
    run(async |shared| {
        let options = PairOptions::default()
            .instances(1)
            .set(
                "log.level",
                "trace,lapin=trace,hyper=trace,hyper_util=trace",
            )
            .set("shutdown.grace", "60s")
            .set("downstream.request-timeout", "60s");
        let mut pair = shared.pair(options).await;
        let folder = tempfile::tempdir().unwrap();
        for signals in [1, 2] {
            unread(&mut pair, folder.path());
            pair.gc1.leads().await;
            let desk = pair.desk(&format!("desk-{signals}"), 0).await;
            pair.sign_in(&desk, &[1001]).await;
            until("the pipe is full", async || {
                desk.expect("GetState#1001", "", "OK").await;
                pair.gc1.get("/livez").await.unwrap();
                let said = pair.gc1.get("/api/v1/log").await.unwrap();
                said.len() > FULL
            })
            .await;
            // It serves all the same.
            desk.expect("GetState#1001", "", "OK").await;
            if signals == 2 {
                a_call_hangs(&pair, &desk).await;
            }
            let process = pair.gc1.process.as_mut().unwrap();
            let begun = Instant::now();
            process.terminate();
            if signals == 2 {
                until("the second signal ends it", async || {
                    process.terminate();
                    !process.is_running()
                })
                .await;
                let took = begun.elapsed();
                assert!(took < Duration::from_secs(30), "{took:?}");
            }
            let status = process.wait(LIMIT).await.unwrap();
            assert_eq!(status.code(), Some(0), "{signals}: {status}");
        }
    });
}

/// Signals are heard from the first moment on, long before the start is done.
#[tokio::test]
async fn signals_that_come_while_it_starts_are_heard() {
    let folder = tempfile::tempdir().unwrap();
    // Whether there is another instance: the broker's list of queues says it, some time.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [config, log] = ["site.properties", "log"].map(|name| folder.path().join(name));
    let text = format!(
        "instance.id=gc-1\nbroker.url.1=127.0.0.1:1\nbroker.management-url.1=http://{}\n\
         downstream.url.1=http://127.0.0.1:1/finesse/api\n\
         data.dir={}\nadmin.listen=127.0.0.1:0\n",
        silent.local_addr().unwrap(),
        folder.path().join("data").display()
    );
    std::fs::write(&config, text).unwrap();
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_tandem"));
    let mut process = TandemProcess::start(binary, &config, Default::default(), &log).unwrap();
    let asked = tokio::time::timeout(LIMIT, silent.accept()).await;
    let _asked = asked.unwrap().unwrap();
    process.hang_up();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(process.is_running(), "{}", process.log_tail());
    }
    process.terminate();
    let status = process.wait(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("stopping: nothing was started yet"), "{said}");
}
