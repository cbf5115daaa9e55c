//! Constant load under random faults, and the history judged at the end: every command has one
//! kind of definite outcome, no call was made twice, each answer is true, each agent's changes took
//! effect in order, and everything is served again after healing. `scripts/nemesis` runs it for as
//! long as asked for.
//!
//! `NEMESIS_SECONDS` (120) and `NEMESIS_SEED` (1) choose length and faults.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::pair::is_state;
use support::{Desk, Pair, PairOptions, Shared, run, until};
use tandem::client::Command;
use tandem::lab::Direction;
use tandem::simulator::faults::{Fault, Match};

const AGENTS: std::ops::Range<u32> = 1001..1013;
/// A command without any answer after this is lost; its deadline is 30 s.
const LOST: Duration = Duration::from_secs(120);
/// A client that hears nothing sends again.
const RESEND: Duration = Duration::from_secs(6);
/// Between two commands of one agent.
const PAUSE: Duration = Duration::from_millis(60);

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Numbers that only depend on the seed.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// A command of the history.
#[derive(Debug, Clone)]
struct Sent {
    id: String,
    kind: &'static str,
    agent: u32,
    /// Answered in the time of [`LOST`].
    answered: bool,
}

/// An agent's first call at the platform.
type Calls = Arc<dyn Fn(u32) -> Option<String> + Send + Sync>;

/// One agent's client: one command after another, each awaited, now and then sent twice.
async fn work(
    desk: Arc<Desk>,
    calls: Calls,
    agent: u32,
    stop: Arc<AtomicBool>,
    mut dice: Dice,
) -> Vec<Sent> {
    let mut history = Vec::new();
    for round in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let call = calls(agent);
        let (kind, body) = match (round % 3, call) {
            (0, Some(dialog)) => ("ReleaseCall", dialog),
            (0, None) => ("MakeCall", format!("555{agent}{round}")),
            (1, _) => ("MakeNotReady", String::new()),
            _ => ("MakeReady", String::new()),
        };
        let id = format!("{agent}:{round}");
        let answered = send_until_answered(&desk, kind, agent, &body, &id, &mut dice).await;
        history.push(Sent {
            id,
            kind,
            agent,
            answered,
        });
        tokio::time::sleep(PAUSE).await;
    }
    history
}

async fn send_until_answered(
    desk: &Desk,
    kind: &str,
    agent: u32,
    body: &str,
    id: &str,
    dice: &mut Dice,
) -> bool {
    let begin = Instant::now();
    let mut attempt = 1;
    while begin.elapsed() < LOST {
        // Now and then a client is impatient and sends twice.
        let copies = if dice.below(8) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            let mut command = Command::new(format!("{kind}#{agent}"), body).with_id(id);
            command.attempt = attempt;
            desk.send_command(command).await;
            attempt += 1;
        }
        let sent = Instant::now();
        while sent.elapsed() < RESEND {
            if !desk.replies_to(id).is_empty() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }
    false
}

/// One fault, and its end.
async fn harm(shared: &mut Shared, pair: &mut Pair, dice: &mut Dice) -> String {
    let side = dice.below(2) as usize;
    let what = dice.below(15);
    let told = match what {
        0 | 1 => {
            pair.instance(side).kill();
            tokio::time::sleep(dice.millis(200, 5_000)).await;
            pair.instance(side).start();
            format!("gc-{} killed", side + 1)
        }
        2 => {
            let process = pair.instance(side).process.as_mut().expect("it runs");
            process.freeze();
            tokio::time::sleep(dice.millis(300, 8_000)).await;
            let process = pair.instance(side).process.as_mut().expect("it runs");
            process.thaw();
            format!("gc-{} frozen", side + 1)
        }
        3 => {
            shared.broker(side).kill();
            tokio::time::sleep(dice.millis(500, 6_000)).await;
            shared.network().await;
            format!("broker {} killed", side + 1)
        }
        4..=7 => harm_link(shared, dice, what).await,
        8 => {
            let path = format!("queues/%2f/{}", pair.queue);
            let deleted = pair.manage(side).delete(&path).await;
            format!("queue deleted at broker {}: {}", side + 1, deleted.is_ok())
        }
        9 => {
            let pause = dice.millis(300, 5_000);
            let broker = shared.broker(side);
            let alarmed = broker.evaluate(&watermark("0.000001")).await;
            tokio::time::sleep(pause).await;
            let calm = broker.evaluate(&watermark("{absolute, \"512MB\"}")).await;
            calm.expect("the alarm is over");
            format!("memory alarm at broker {}: {}", side + 1, alarmed.is_ok())
        }
        10 => {
            let cancel = CANCEL.replace("QUEUE", &pair.queue);
            let cancelled = shared.broker(side).evaluate(&cancel).await;
            let done = cancelled.is_ok_and(|said| said.contains("ok"));
            format!("consumers cancelled at broker {}: {done}", side + 1)
        }
        11 => {
            let closed = close_connections(pair, side).await;
            format!("{closed} connections closed at broker {}", side + 1)
        }
        _ => {
            let (name, fault) = downstream_fault(dice);
            pair.fault_everywhere(&fault);
            tokio::time::sleep(dice.millis(300, 3_000)).await;
            pair.heal();
            format!("downstream {name}")
        }
    };
    tokio::time::sleep(dice.millis(500, 4_000)).await;
    told
}

/// Above this share of the machine's memory the broker blocks whoever publishes.
fn watermark(to: &str) -> String {
    format!("vm_memory_monitor:set_vm_memory_high_watermark({to}).")
}

/// Takes all consumers of the command queue from it, as a fault of the broker would: nobody is told.
const CANCEL: &str = "\
    {ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"QUEUE\">>)), \
    [gen_server2:call(amqqueue:get_pid(Q), {basic_cancel, element(1, C), element(2, C), \
        undefined, <<\"nemesis\">>}, infinity) \
     || C <- rabbit_amqqueue:consumers(Q), binary:match(element(2, C), <<\"gc-\">>) =:= {0, 3}].";

/// Closes the instances' connections through the management API, as an operator might.
async fn close_connections(pair: &Pair, side: usize) -> usize {
    let manage = pair.manage(side);
    let all = manage.get("connections").await.ok().flatten();
    let all = all.as_ref().and_then(|all| all.as_array().cloned());
    let mut closed = 0;
    for connection in all.unwrap_or_default() {
        let ours = connection["client_properties"]["connection_name"].as_str();
        let (Some(name), Some(ours)) = (connection["name"].as_str(), ours) else {
            continue;
        };
        if ours.starts_with("tandem/gc-") {
            let name = name.replace(' ', "%20").replace('>', "%3E");
            let path = format!("connections/{name}");
            closed += usize::from(manage.delete(&path).await.is_ok());
        }
    }
    closed
}

async fn harm_link(shared: &mut Shared, dice: &mut Dice, what: u64) -> String {
    let pause = dice.millis(500, 7_000);
    let way = dice.below(2) as usize;
    let network = shared.network().await;
    match what {
        4 => network.cut_link().await,
        5 => network.black_hole_link().await,
        6 => {
            let relay = network.relay(way, 1 - way).expect("a relay");
            relay.black_hole(Some(Direction::ToTarget)).await;
        }
        _ => network.flap_link(4, Duration::from_millis(300)).await,
    }
    tokio::time::sleep(pause).await;
    network.heal_link().await;
    let names = ["cut", "black hole", "black hole one way", "flapping"];
    format!("link {}", names[what as usize - 4])
}

fn downstream_fault(dice: &mut Dice) -> (&'static str, Fault) {
    let matching = Match::default();
    let fault = Fault {
        matching,
        ..Fault::default()
    };
    match dice.below(6) {
        0 => (
            "slow",
            Fault {
                delay_ms: 2_500,
                ..fault
            },
        ),
        1 => (
            "500",
            Fault {
                status: Some(500),
                ..fault
            },
        ),
        2 => (
            "503",
            Fault {
                status: Some(503),
                ..fault
            },
        ),
        3 => (
            "reset after the effect",
            Fault {
                drop_after_accept: true,
                ..fault
            },
        ),
        4 => (
            "reset before the effect",
            Fault {
                drop_before_accept: true,
                ..fault
            },
        ),
        _ => (
            "garbage",
            Fault {
                garbage: true,
                ..fault
            },
        ),
    }
}

/// Whether an answer only means "not now".
fn for_now(reply: &tandem::client::Message) -> bool {
    reply.field("outcome") == "REJECTED" && !reply.json["retryAfterMs"].is_null()
}

/// Everything that is wrong with the history.
fn judge(pair: &Pair, desk: &Desk, history: &[Sent]) -> (Vec<String>, BTreeMap<String, usize>) {
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let effects = pair.simulator.ledger().entries(None, 0);
    let mut made: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &effects {
        *made.entry(&entry.request_id).or_default() += 1;
    }
    for sent in history {
        let replies = desk.replies_to(&sent.id);
        let definite: BTreeSet<&str> = replies
            .iter()
            .filter(|reply| !for_now(reply))
            .map(|reply| reply.field("outcome"))
            .filter(|outcome| *outcome != "IN_DOUBT")
            .collect();
        if !sent.answered {
            wrong.push(format!("{} {} was never answered", sent.kind, sent.id));
        }
        if definite.len() > 1 {
            wrong.push(format!("{} {} got {definite:?}", sent.kind, sent.id));
        }
        let outcome = definite.first().copied();
        let shown = outcome.unwrap_or("IN_DOUBT or not now");
        *counts.entry(format!("{} {shown}", sent.kind)).or_default() += 1;
        let effects = made.get(sent.id.as_str()).copied().unwrap_or(0);
        let once = matches!(sent.kind, "MakeCall" | "ReleaseCall");
        let right = match outcome {
            Some("ACCEPTED") => effects >= 1,
            Some(_) => effects == 0 || !once,
            None => true,
        };
        if (once && effects > 1) || !right {
            let text: Vec<&str> = replies.iter().map(|reply| reply.text.as_str()).collect();
            wrong.push(format!(
                "{} {}: {effects} effects, {text:?}",
                sent.kind, sent.id
            ));
        }
    }
    wrong.extend(out_of_order(&effects, desk));
    (wrong, counts)
}

/// An agent's command that took effect for the first time after a later one, although its client
/// knew its outcome before it sent that. One that was in doubt may have been under way still (a
/// platform that is slower than the request's time), and one that was told "not now" may have been
/// sent twice.
fn out_of_order(effects: &[tandem::simulator::ledger::Entry], desk: &Desk) -> Vec<String> {
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for entry in effects {
        let parts = entry.request_id.split_once(':');
        let Some((agent, round)) =
            parts.and_then(|(a, r)| Some((a.parse().ok()?, r.parse().ok()?)))
        else {
            continue;
        };
        let last = newest.entry(agent).or_default();
        if seen.insert(entry.request_id.clone()) && round < *last {
            let replies = desk.replies_to(&entry.request_id);
            let known = |reply: &tandem::client::Message| {
                reply.field("outcome") != "IN_DOUBT" && !for_now(reply)
            };
            if replies.first().is_none_or(known) {
                let text: Vec<&str> = replies.iter().map(|reply| reply.text.as_str()).collect();
                wrong.push(format!(
                    "{}: after round {last}, {text:?}",
                    entry.request_id
                ));
            }
        }
        *last = (*last).max(round);
    }
    wrong
}

#[test]
fn history_holds_under_faults() {
    let (seconds, seed) = (number("NEMESIS_SECONDS", 120), number("NEMESIS_SEED", 1));
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default()).await;
        let desk = Arc::new(pair.desk("desk", 0).await);
        let agents: Vec<u32> = AGENTS.collect();
        pair.sign_in(&desk, &agents).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut dice = Dice::new(seed);
        let world = pair.simulator.world().clone();
        let calls: Calls = Arc::new(move |agent| {
            let known = world.agent(&agent.to_string()).expect("a known agent");
            let state = known.state.lock().expect("no panic in the simulator");
            state.dialogs.first().map(ToString::to_string)
        });
        let tasks: Vec<_> = (agents.iter())
            .map(|agent| {
                let dice = Dice::new(seed ^ u64::from(*agent) << 20);
                let calls = calls.clone();
                tokio::spawn(work(desk.clone(), calls, *agent, stop.clone(), dice))
            })
            .collect();
        let begin = Instant::now();
        let mut harms = 0;
        while begin.elapsed() < Duration::from_secs(seconds) {
            let at = begin.elapsed().as_secs_f32();
            let told = harm(shared, &mut pair, &mut dice).await;
            println!("{at:>7.1} s  {told}");
            harms += 1;
        }
        shared.network().await;
        pair.heal();
        pair.repair(shared).await;
        pair.gc1.becomes("leader").await;
        stop.store(true, Ordering::Relaxed);
        let mut history = Vec::new();
        for task in tasks {
            history.extend(task.await.expect("no client fails"));
        }
        idle(&pair).await;
        served_again(&pair, &desk, &agents).await;
        let (wrong, counts) = judge(&pair, &desk, &history);
        report(&history, &desk, &counts);
        audit(&pair, harms).await;
        assert!(
            wrong.is_empty(),
            "seed {seed}: {} things are wrong:\n{}\nrepeat: scripts/nemesis --minutes {} --seed {seed}",
            wrong.len(),
            wrong.join("\n"),
            seconds.div_ceil(60)
        );
    });
}

/// Rows of an instance's history that one fault, its repair included, may make: what breaks, who
/// takes over, and each once more on the way back.
const ROWS: usize = 12;

/// Says how many rows the instances' histories have, of which kinds, and that these are
/// transitions: so many a fault at most, however long it lasts.
async fn audit(pair: &Pair, harms: usize) {
    for instance in [&pair.gc1, &pair.gc2] {
        let rows = instance.json("/api/v1/history").await;
        let rows = rows.as_array().expect("a list");
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for row in rows {
            *kinds
                .entry(row["kind"].as_str().unwrap_or("?"))
                .or_default() += 1;
        }
        println!("history: {} rows of {harms} faults: {kinds:?}", rows.len());
        assert!(rows.len() <= ROWS * (harms + 2), "{} rows", rows.len());
    }
}

async fn idle(pair: &Pair) {
    until("nothing is in work any more", async || {
        let mut left = 0;
        for instance in [&pair.gc1, &pair.gc2] {
            left += instance.status().await["inflight"].as_u64().unwrap_or(1);
        }
        left == 0
    })
    .await;
}

/// Every agent's command is carried out, by one owner with one subscription.
async fn served_again(pair: &Pair, desk: &Desk, agents: &[u32]) {
    for agent in agents {
        let reply = desk.ask(format!("GetState#{agent}"), "").await;
        assert_eq!(reply.field("outcome"), "OK", "{}", reply.text);
        desk.event("a state", |m| {
            is_state(m, *agent, "READY") || is_state(m, *agent, "NOT_READY")
        })
        .await;
    }
    pair.one_subscription_each(agents).await;
}

fn report(history: &[Sent], desk: &Desk, counts: &BTreeMap<String, usize>) {
    let calls = history.iter().filter(|sent| sent.kind.ends_with("Call"));
    let doubtful = |sent: &&Sent| {
        let replies = desk.replies_to(&sent.id);
        replies
            .iter()
            .any(|reply| reply.field("outcome") == "IN_DOUBT")
    };
    let (all, doubt) = (calls.clone().count(), calls.filter(doubtful).count());
    let agents: BTreeSet<u32> = history.iter().map(|sent| sent.agent).collect();
    println!(
        "{} commands of {} agents: {counts:?}",
        history.len(),
        agents.len()
    );
    let share = 100.0 * doubt as f64 / all.max(1) as f64;
    println!("non-idempotent: {all}, of these IN_DOUBT at first: {doubt} ({share:.1} %)");
}
