//! The two-site demo: a pair under load loses its leader, then its broker.
//!
//! `stage` starts what runs, `load` is the clients, `drill` kills, `client::tally`
//! counts, `verdict` compares what clients were told with what the downstream did.

mod drill;
mod exercise;
mod load;
mod stage;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub use crate::client::tally::{Answer, Gap, Tally};
use crate::client::{Client, ClientOptions, Command};
use crate::lab::LabError;

pub use exercise::Drill;
use load::Load;
use stage::Stage;
use verdict::Judge;
pub use verdict::Verdict;

/// Agents of the load.
pub const AGENTS: usize = 50;
/// Further agents that the load leaves alone, for whoever tries a client of their own.
pub const SPARE_AGENTS: usize = 10;
/// How long the end waits for answers: commands live 30 s.
const LAST_ANSWERS: Duration = Duration::from_secs(40);
/// How long the end waits until every agent has one notification session.
const SETTLE: Duration = Duration::from_secs(10);
/// How long all agents may take to sign in.
const SIGN_IN_LIMIT: Duration = Duration::from_secs(60);
/// Sign-ins at once.
const SIGN_INS: usize = 10;
const HTTP_LIMIT: Duration = Duration::from_millis(800);
/// How long the ledger may take to be read at the beginning and at the end.
const LEDGER: Duration = Duration::from_secs(20);
/// How often roles and the ledger are read.
const LOOK: Duration = Duration::from_millis(500);

/// What is asked of the demo.
#[derive(Debug, Clone, Copy)]
pub struct DemoOptions {
    /// How long the load runs; until it is stopped where `None`.
    pub length: Option<Duration>,
    /// Lines of JSON.
    pub json: bool,
    /// Shows a line.
    pub print: Print,
}

/// Writes a text to whoever watches; `false` where that could not be done. A reader that went away
/// is no reason to stop.
pub type Print = fn(&str) -> bool;

/// Prints what happens.
#[derive(Debug, Clone, Copy)]
struct Out {
    json: bool,
    started: Instant,
    print: Print,
}

impl Out {
    fn say(self, text: &str) {
        let at = self.started.elapsed().as_secs_f64();
        if self.json {
            self.line(&json!({"at": (at * 1000.0) as u64, "said": text}).to_string());
        } else {
            self.line(&format!("[{at:6.2}] {text}"));
        }
    }

    fn line(self, text: &str) {
        let _ = (self.print)(&format!("{text}\n"));
    }
}

/// Who leads and where, as the instances say.
#[derive(Debug, Clone, Default)]
struct Seen {
    leader: String,
    broker: String,
}

/// Runs the demo until its time is over or `stop` is cancelled. Nothing of it is left then.
///
/// # Errors
/// The machine is not in order: a program is missing, a process ended, the pair did not serve.
pub async fn run(options: DemoOptions, stop: CancellationToken) -> Result<Verdict, LabError> {
    let out = Out {
        json: options.json,
        started: Instant::now(),
        print: options.print,
    };
    let set = Stage::set(false, |text| out.say(text));
    let mut stage = tokio::select! {
        stage = set => stage?,
        () = stop.cancelled() => {
            out.say("stopped before anything was served");
            return Ok(Verdict::default());
        }
    };
    announce(&stage, out);
    let plan = drill::Plan::of(options.length);
    let script = Script::Demo(options.length, plan);
    let result = play(&mut stage, script, out, &stop).await;
    out.say("ending everything");
    drop(stage);
    result
}

/// What happens to the pair under load.
#[derive(Debug, Clone, Copy)]
enum Script {
    /// Both kills, and the load for so long.
    Demo(Option<Duration>, drill::Plan),
    /// One drill.
    Drill(Drill),
}

/// A drill and what came of it: the verdict, or why there is none.
pub type Drilled = (Drill, Result<Verdict, String>);

/// Runs drills one after the other on a pair of its own, each under a load of its own, from the
/// same start. Nothing of it is left then; ends early, with what there is, when `stop` is
/// cancelled or when the pair does not come back after a drill.
///
/// # Errors
/// The machine is not in order, or the pair did not serve at all.
pub async fn drills(
    chosen: &[Drill],
    (json, print): (bool, Print),
    stop: CancellationToken,
) -> Result<Vec<Drilled>, LabError> {
    let out = Out {
        json,
        started: Instant::now(),
        print,
    };
    let mut results = Vec::new();
    let mut stage = tokio::select! {
        stage = Stage::set(true, |text| out.say(text)) => stage?,
        () = stop.cancelled() => return Ok(results),
    };
    tokio::select! {
        settled = exercise::settled(&stage) => settled?,
        () = stop.cancelled() => return Ok(results),
    }
    for drill in chosen {
        let verdict = play(&mut stage, Script::Drill(*drill), out, &stop).await;
        if stop.is_cancelled() {
            break;
        }
        let back = exercise::settled(&stage).await;
        let came_back = back.is_ok();
        let result = match (verdict, back) {
            (Ok(verdict), Ok(())) => Ok(verdict),
            (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
        };
        results.push((*drill, result));
        if !came_back {
            break;
        }
    }
    out.say("ending everything");
    drop(stage);
    Ok(results)
}

fn announce(stage: &Stage, out: Out) {
    for (at, settings) in stage.settings.iter().enumerate() {
        let (id, url) = (&settings.instance.id, stage.admin_url(at));
        out.say(&format!(
            "{id}: status page {url}/  API {url}/api/v1/status  metrics {url}/metrics"
        ));
    }
    for (at, node) in stage.network.nodes().iter().enumerate() {
        out.say(&format!(
            "broker {}: admin UI {} (login guest, guest)  AMQP 127.0.0.1:{}",
            at + 1,
            node.management_url(),
            node.amqp_port()
        ));
    }
    let [primary, secondary] = stage.downstream_urls();
    out.say(&format!(
        "downstream: {primary} and {secondary}  ledger {}/ledger",
        stage.control_url()
    ));
    let port = stage.network.nodes().first().map(|node| node.amqp_port());
    let (Some(file), Some(port)) = (stage.files.first(), port) else {
        return;
    };
    let file = file.display();
    out.say(&format!("property file of gc-1: {file}, its log beside it"));
    let program = std::env::current_exe();
    let program = program.map_or_else(|_| "tandem".into(), |path| path.display().to_string());
    for words in [
        format!("status --config {file}"),
        format!("history --watch --config {file}"),
        format!("doctor --config {file}"),
        format!("send 'GetState#1001' --broker 127.0.0.1:{port}"),
    ] {
        out.say(&format!("try: {program} {words}"));
    }
}

async fn play(
    stage: &mut Stage,
    script: Script,
    out: Out,
    stop: &CancellationToken,
) -> Result<Verdict, LabError> {
    let failed = |error: &dyn std::fmt::Display| {
        LabError::io("connect the load's client")(std::io::Error::other(error.to_string()))
    };
    let (client, inbox) = Client::connect(
        stage.network.uris_from(0),
        ClientOptions::new(load::DESTINATION),
    )
    .await
    .map_err(|error| failed(&error))?;
    let tally = Arc::new(Tally::default());
    let working = CancellationToken::new();
    // Ids of one drill are not those of another.
    let run = match script {
        Script::Demo(..) => format!("demo{}", std::process::id()),
        Script::Drill(drill) => format!("{}{}", drill.name(), std::process::id()),
    };
    let load = Load::new(
        client.clone(),
        Arc::clone(&tally),
        AGENTS,
        run,
        working.clone(),
    );
    let load = Arc::new(load);
    let receiver = Arc::clone(&load);
    let _receiving = Ends(tokio::spawn(async move {
        receiver.receive(inbox, |text| out.say(text)).await;
    }));
    let hello = Command::new(format!("Hello#{}", load::DESTINATION), "");
    client.send(hello).await.map_err(|error| failed(&error))?;
    sign_all_in(&load, out, stop).await?;

    let http = http()?;
    let ledger = format!("{}/ledger", stage.control_url());
    let judge = Arc::new(Mutex::new(Judge::default()));
    // What was before is not this script's.
    read_whole_ledger(&http, &ledger, &judge).await?;
    judge.lock().await.forget_calls();
    let seen = Arc::new(std::sync::Mutex::new(Seen::default()));
    let urls = [0, 1].map(|at| format!("{}/api/v1/status", stage.admin_url(at)));
    let shown = matches!(script, Script::Demo(..)).then_some(out);
    let _looking = Ends(tokio::spawn(look(
        http.clone(),
        urls,
        (Arc::clone(&seen), shown),
        (ledger.clone(), Arc::clone(&judge)),
    )));
    let _display = matches!(script, Script::Demo(..))
        .then(|| Ends(tokio::spawn(display(Arc::clone(&tally), seen, out))));
    let mut agents = JoinSet::new();
    for index in 0..AGENTS {
        let load = Arc::clone(&load);
        agents.spawn(async move { load.work(index).await });
    }
    let started = Instant::now();
    let gaps = match script {
        Script::Demo(_, plan) => drill::run(stage, plan, &tally, out, stop).await,
        Script::Drill(drill) => exercise::run(stage, drill, &tally, out, stop).await,
    };
    match script {
        Script::Demo(Some(length), _) => {
            let left = length.saturating_sub(started.elapsed());
            let _ = tokio::time::timeout(left, stop.cancelled()).await;
        }
        Script::Demo(None, _) => stop.cancelled().await,
        Script::Drill(_) => {}
    }
    out.say("the load ends; waiting until everything is answered");
    working.cancel();
    finish(&mut agents, &tally).await;
    let subscriptions = settle(&http, &stage.control_url()).await;
    read_whole_ledger(&http, &ledger, &judge).await?;
    let judge = judge.lock().await;
    let verdict = Verdict {
        totals: tally.totals(),
        doubled: judge.doubled(),
        not_made: judge.not_made(&load.calls_to_be_made()),
        events: load.events(),
        signed_in_again: load.signed_in_again(),
        subscriptions,
        kill_due: match script {
            Script::Demo(length, plan) => plan
                .kill_instance
                .is_some_and(|at| length.is_some() || started.elapsed() > at + plan.watched),
            Script::Drill(_) => !stop.is_cancelled(),
        },
        gaps: gaps?,
    };
    match script {
        Script::Demo(..) if out.json => out.line(&verdict.to_json().to_string()),
        Script::Demo(..) => out.line(&format!("\n{verdict}")),
        Script::Drill(_) => {}
    }
    Ok(verdict)
}

/// A task that ends with this value.
struct Ends(JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn sign_all_in(load: &Arc<Load>, out: Out, stop: &CancellationToken) -> Result<(), LabError> {
    out.say(&format!("signing {AGENTS} agents in"));
    let started = Instant::now();
    let all = async {
        let mut waiting = 0..AGENTS;
        let mut running = JoinSet::new();
        loop {
            while running.len() < SIGN_INS
                && let Some(index) = waiting.next()
            {
                let load = Arc::clone(load);
                running.spawn(async move { load.sign_in(index).await });
            }
            if running.join_next().await.is_none() {
                return;
            }
        }
    };
    tokio::select! {
        signed = tokio::time::timeout(SIGN_IN_LIMIT, all) => signed.map_err(|_| {
            LabError::Deadline {
                what: format!("sign-in of {AGENTS} agents"),
                limit: SIGN_IN_LIMIT,
            }
        })?,
        () = stop.cancelled() => {}
    }
    let took = started.elapsed().as_millis();
    out.say(&format!("{AGENTS} agents are signed in after {took} ms"));
    Ok(())
}

/// Waits until the agents have stopped and nothing is open, within bounds.
async fn finish(agents: &mut JoinSet<()>, tally: &Tally) {
    let all = async {
        while agents.join_next().await.is_some() {}
        while tally.open() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let _ = tokio::time::timeout(LAST_ANSWERS, all).await;
}

/// Waits until every agent has exactly one notification session, within bounds; says how many
/// agents have how many.
async fn settle(http: &reqwest::Client, control: &str) -> std::collections::BTreeMap<usize, usize> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let list = get(http, &format!("{control}/agents")).await;
        let mut counts = std::collections::BTreeMap::new();
        for agent in list
            .as_ref()
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            // In the order of their ids: the load's come first.
            .take(AGENTS)
        {
            let sessions = agent.get("sessions").and_then(Value::as_u64).unwrap_or(0);
            *counts.entry(sessions as usize).or_default() += 1;
        }
        if counts.get(&1) == Some(&AGENTS) || Instant::now() >= deadline {
            return counts;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(
    http: reqwest::Client,
    urls: [String; 2],
    (seen, shown): (Arc<std::sync::Mutex<Seen>>, Option<Out>),
    (ledger, judge): (String, Arc<Mutex<Judge>>),
) {
    let mut leader = String::new();
    loop {
        let [first, second] = &urls;
        let (first, second) = tokio::join!(get(&http, first), get(&http, second));
        let mut now = Seen::default();
        for view in [first, second].into_iter().flatten().filter(leads) {
            let text = |path| view.pointer(path).and_then(Value::as_str).unwrap_or("-");
            join(&mut now.leader, text("/instance"));
            join(&mut now.broker, text("/groups/0/broker"));
        }
        if let Some(out) = shown.filter(|_| !now.leader.is_empty() && now.leader != leader) {
            // Of the first one nobody takes the place.
            if !leader.is_empty() {
                out.say(&format!("{} leads now, before it {leader}", now.leader));
            }
            leader.clone_from(&now.leader);
        }
        *seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = now;
        read_ledger(&http, &ledger, &judge).await;
        tokio::time::sleep(LOOK).await;
    }
}

fn join(list: &mut String, more: &str) {
    if !list.is_empty() {
        list.push('+');
    }
    list.push_str(more);
}

/// Whether it could be read.
async fn read_ledger(http: &reqwest::Client, url: &str, judge: &Mutex<Judge>) -> bool {
    let mut judge = judge.lock().await;
    let url = format!("{url}?since={}", judge.since());
    let entries = get(http, &url).await;
    entries.as_ref().map(|entries| judge.add(entries)).is_some()
}

/// On a busy machine one question may go without an answer in time; the last must not.
async fn read_whole_ledger(
    http: &reqwest::Client,
    url: &str,
    judge: &Mutex<Judge>,
) -> Result<(), LabError> {
    let deadline = Instant::now() + LEDGER;
    while !read_ledger(http, url, judge).await {
        if Instant::now() >= deadline {
            return Err(LabError::Deadline {
                what: "the downstream's ledger".to_owned(),
                limit: LEDGER,
            });
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// One line each second.
async fn display(tally: Arc<Tally>, seen: Arc<std::sync::Mutex<Seen>>, out: Out) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    tally.second();
    loop {
        tick.tick().await;
        let second = tally.second();
        let seen = seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        let none = |text: String| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text
            }
        };
        let (leader, broker) = (none(seen.leader), none(seen.broker));
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        if out.json {
            let line = json!({"at": out.started.elapsed().as_millis() as u64,
                "commandsPerSecond": second.answered, "p50Ms": ms(second.p50),
                "p99Ms": ms(second.p99), "leader": leader, "broker": broker,
                "sent": second.sent, "answered": second.answered_total, "open": second.open});
            out.line(&line.to_string());
        } else {
            out.say(&format!(
                "{:4} commands/s  p50 {:7.1} ms  p99 {:7.1} ms  leader {leader} on {broker}  \
                 sent {} answered {} open {}",
                second.answered,
                ms(second.p50),
                ms(second.p99),
                second.sent,
                second.answered_total,
                second.open
            ));
        }
    }
}

/// Whether an instance's status says that it leads.
fn leads(view: &Value) -> bool {
    let role = view.pointer("/groups/0/role").and_then(Value::as_str);
    role.is_some_and(|role| role.starts_with("leader"))
}

fn http() -> Result<reqwest::Client, LabError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(HTTP_LIMIT)
        .no_proxy()
        .build()
        .map_err(|error| LabError::io("set HTTP up")(std::io::Error::other(error)))
}

/// A JSON answer; `None` where there is none.
async fn get(http: &reqwest::Client, url: &str) -> Option<Value> {
    let answer = http.get(url).send().await.ok()?;
    answer.error_for_status().ok()?.json().await.ok()
}
