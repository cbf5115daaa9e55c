//! What is broken, and when the clock stops.

use std::time::{Duration, Instant};

use tandem::engine::command::Keep;
use tandem::engine::ids::BootId;
use tandem::engine::peer::{SessionRecord, Version};
use tandem::model::{AgentId, Destination, InstanceId, Secret};
use tandem::store::Store;
use tandem::wire::control::Keys;

use crate::probe::Probe;
use crate::stage::{self, KEY, Options, QUEUE, Stage, until, wait};
use crate::{Args, Result, Series};

/// Agents where their number does not matter.
const FEW: u64 = 20;
/// Commands sent within this time after a stop were mostly given to the stopped one.
const DELIVERED: Duration = Duration::from_secs(1);
/// Rest between runs, for what the last one left behind.
const REST: Duration = Duration::from_secs(2);

/// A pair with a few agents of a client at broker 1, and the client's commands.
async fn pair(args: &Args, options: Options) -> Result<(Stage, Probe)> {
    let mut stage = Stage::set(&args.tandem, options).await?;
    stage.start(0).await?;
    stage.start(1).await?;
    stage.sign_in(0, 0..FEW).await?;
    let agents = (0..FEW).map(stage::agent).collect();
    let probe = Probe::start(stage.uris(0), QUEUE, agents).await?;
    Ok((stage, probe))
}

fn few() -> Options {
    Options {
        rate: 200,
        agents: FEW,
        ..Options::default()
    }
}

/// Leader killed: to the first answer.
pub async fn kill(args: &Args) -> Result<Series> {
    let mut series = Series::new("leader kill -9: first answer", 1_000);
    let (mut stage, probe) = pair(args, few()).await?;
    for _ in 0..args.runs {
        let leader = stage.leader().await?;
        tokio::time::sleep(REST).await;
        let since = Instant::now();
        stage.process(leader)?.kill();
        series.times.push(probe.first_answer(since).await?);
        stage.start(leader).await?;
    }
    Ok(series)
}

/// Leader stopped: to the first answer, and to the last of those that were given to it.
pub async fn stop(args: &Args, fence: bool) -> Result<Vec<Series>> {
    let (mut new, mut delivered) = match fence {
        false => (
            Series::new("leader SIGSTOP: first answer", 3_000),
            Series::new("leader SIGSTOP: all that were delivered to it", 6_000),
        ),
        true => (
            Series::new("leader SIGSTOP, fenced: first answer", 3_000),
            Series::new("leader SIGSTOP, fenced: all that were delivered", 3_000),
        ),
    };
    let (mut stage, probe) = pair(args, Options { fence, ..few() }).await?;
    for _ in 0..args.runs {
        let leader = stage.leader().await?;
        tokio::time::sleep(REST).await;
        let since = Instant::now();
        stage.process(leader)?.freeze();
        new.times.push(probe.first_answer(since).await?);
        delivered
            .times
            .push(probe.all_answers(since, DELIVERED).await?);
        stage.process(leader)?.thaw();
    }
    Ok(vec![new, delivered])
}

/// The broker of instances and client killed: to the first answer through the other.
pub async fn broker(args: &Args) -> Result<Series> {
    let mut series = Series::new("broker killed: first answer", 1_000);
    let (mut stage, probe) = pair(args, few()).await?;
    drop(probe);
    for _ in 0..args.runs {
        stage.leader().await?;
        let agents = (0..FEW).map(stage::agent).collect();
        let probe = Probe::start(stage.uris(0), QUEUE, agents).await?;
        tokio::time::sleep(REST).await;
        let since = Instant::now();
        stage.network.node(0).ok_or("no broker")?.kill();
        series.times.push(probe.first_answer(since).await?);
        stage
            .network
            .node(0)
            .ok_or("no broker")?
            .start_again()
            .await?;
        let first = stage.network.nodes()[0].amqp_port().to_string();
        let instance = &stage.instances[0];
        until("gc-1 is back at broker 1", async || {
            let status = instance.get("/api/v1/status").await;
            let brokers = status["brokers"].as_array().cloned().unwrap_or_default();
            brokers.iter().any(|broker| {
                let url = broker["url"].as_str().unwrap_or_default();
                url.ends_with(&first) && broker["attached"] == true
            })
        })
        .await?;
    }
    Ok(series)
}

/// The sites cut from each other until each has lost the other, then joined: until every agent
/// has one owner and one subscription again.
pub async fn cut(args: &Args) -> Result<Series> {
    const AGENTS: u64 = 200;
    let mut series = Series::new("link cut and healed, 200 agents: one owner each", 5_000);
    let options = Options {
        active: true,
        rate: 1_000,
        agents: AGENTS,
        ..Options::default()
    };
    let mut stage = Stage::set(&args.tandem, options).await?;
    stage.start(0).await?;
    stage.start(1).await?;
    stage.sign_in(0, 0..AGENTS / 2).await?;
    stage.sign_in(1, AGENTS / 2..AGENTS).await?;
    for _ in 0..args.runs {
        tokio::time::sleep(REST).await;
        stage.network.cut_link().await;
        for way in &stage.ways {
            way.cut().await;
        }
        for instance in &stage.instances {
            until("the other is lost", async || {
                instance.peer().await == "lost"
            })
            .await?;
            until("it serves all", async || {
                instance.sessions().await == [AGENTS; 3]
            })
            .await?;
        }
        let since = Instant::now();
        stage.network.heal_link().await;
        for way in &stage.ways {
            way.heal().await;
        }
        let [one, other] = &stage.instances;
        until("one owner and one subscription an agent", async || {
            let (first, second) = (one.sessions().await, other.sessions().await);
            let whole = first[1] + second[1] == AGENTS && first[2] + second[2] == AGENTS;
            whole && one.owners().await == other.owners().await
        })
        .await?;
        series.times.push(since.elapsed());
    }
    Ok(series)
}

/// The lead handed over under load: the worst time to an answer; none may fail.
pub async fn switchover(args: &Args) -> Result<Series> {
    let mut series = Series::new("planned switchover under load: worst answer", 1_000);
    let (stage, probe) = pair(args, few()).await?;
    for _ in 0..args.runs {
        let leader = stage.leader().await?;
        tokio::time::sleep(REST).await;
        let to = stage.instances[1 - leader].name;
        let since = Instant::now();
        let path = format!("/api/v1/switchover?to={to}");
        stage.instances[leader].post(&path).await?;
        wait("the other leads", async || {
            (stage.leader().await.ok()? == 1 - leader).then_some(())
        })
        .await?;
        let took = since.elapsed() + Duration::from_secs(1);
        series.times.push(probe.worst(since, took).await?);
    }
    Ok(series)
}

/// Leader of 1,000 agents killed: until the other has all subscriptions.
pub async fn takeover(args: &Args) -> Result<Series> {
    const AGENTS: u64 = 1_000;
    let what = "takeover of 1,000 agents (takeover.rate=1000): all subscribed";
    let mut series = Series::new(what, 5_000);
    let options = Options {
        rate: 1_000,
        agents: AGENTS,
        ..Options::default()
    };
    let mut stage = Stage::set(&args.tandem, options).await?;
    stage.start(0).await?;
    stage.start(1).await?;
    stage.sign_in(0, 0..AGENTS).await?;
    for _ in 0..args.runs {
        let leader = stage.leader().await?;
        tokio::time::sleep(REST).await;
        let since = Instant::now();
        stage.process(leader)?.kill();
        let other = &stage.instances[1 - leader];
        until("all are subscribed", async || {
            other.sessions().await == [AGENTS; 3]
        })
        .await?;
        series.times.push(since.elapsed());
        stage.start(leader).await?;
    }
    Ok(series)
}

/// An instance joins one that has 10,000 sessions: from its control queue to the whole table.
pub async fn snapshot(args: &Args) -> Result<Series> {
    const SESSIONS: u64 = 10_000;
    let mut series = Series::new("snapshot of 10,000 sessions to a joining instance", 3_000);
    let options = Options {
        // The sessions are on disk only: they are not to be signed in at the downstream.
        rate: 1,
        agents: FEW,
        ..Options::default()
    };
    let mut stage = Stage::set(&args.tandem, options).await?;
    fill(&stage.instances[0].data, SESSIONS)?;
    stage.start(0).await?;
    for _ in 0..args.runs {
        let _ = std::fs::remove_dir_all(&stage.instances[1].data);
        let since = Instant::now();
        stage.spawn(1)?;
        let joining = &stage.instances[1];
        until("it knows all", async || {
            joining.sessions().await[0] == SESSIONS
        })
        .await?;
        series.times.push(since.elapsed());
        stage.process(1)?.kill();
        tokio::time::sleep(REST).await;
    }
    Ok(series)
}

/// Sessions as an instance would have kept them.
fn fill(data: &std::path::Path, count: u64) -> Result<()> {
    std::fs::create_dir_all(data)?;
    let me = InstanceId::new("gc-1")?;
    let key = Secret::new(KEY);
    let keys = Keys::new(Some(&key), None, "tandem", me.clone(), BootId(1));
    let store = Store::open(data, keys)?;
    let record = |n: u64| -> Result<(AgentId, Option<SessionRecord>)> {
        let agent = AgentId::new(&format!("agent-{n}"))?;
        let record = SessionRecord {
            agent: agent.clone(),
            version: Version {
                epoch: 5,
                rank: 0,
                owner: me.clone(),
                counter: n,
            },
            destination: Destination::new("bench")?,
            extension: Some((20_000 + n).to_string()),
            password: Secret::new(format!("pw-{n}")),
            mobile: None,
            watched: Vec::new(),
            group: "agents".to_owned(),
            signed_in: true,
            user: None,
            tombstone: false,
            newest_change: None,
            node: None,
        };
        Ok((agent, Some(record)))
    };
    let keep = Keep {
        sessions: (0..count).map(record).collect::<Result<_>>()?,
        destinations: vec![Destination::new("bench")?],
        epoch: 6,
        ..Keep::default()
    };
    store.keep(&keep)?;
    Ok(())
}
