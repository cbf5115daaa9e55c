//! One fault after the other in front of a pair under load: what `tandem drill` runs.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Out;
use super::drill::Gaps;
use super::stage::Stage;
use crate::client::tally::Tally;
use crate::lab::LabError;

/// The load runs this long before the fault.
const BEFORE: Duration = Duration::from_secs(3);
/// The fault stays this long: longer than any failover may take.
const FAULT: Duration = Duration::from_secs(8);
/// The load goes on this long after the fault is mended.
const AFTER: Duration = Duration::from_secs(4);
/// What an operator's verb asks for is done within this time.
const DONE: Duration = Duration::from_secs(30);
/// The pair is as at the start again within this time.
const SETTLED: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);

/// A fault, or an operator's verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Drill {
    /// kill -9 of the leading instance
    KillLeader,
    /// The leading instance is frozen (SIGSTOP) and thawed again
    FreezeLeader,
    /// kill -9 of the following instance
    KillFollower,
    /// kill -9 of the broker that serves
    KillBroker,
    /// All federation links between the brokers are cut, and healed
    CutLinks,
    /// The group is stopped on the leading instance, and started again
    StopGroup,
    /// The leading instance is drained, ended and started again
    Drain,
    /// The lead is handed to the other instance and back
    Switchover,
}

impl Drill {
    /// All, in the order in which they are run.
    pub const ALL: [Self; 8] = [
        Self::KillLeader,
        Self::FreezeLeader,
        Self::KillFollower,
        Self::KillBroker,
        Self::CutLinks,
        Self::StopGroup,
        Self::Drain,
        Self::Switchover,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KillLeader => "kill-leader",
            Self::FreezeLeader => "freeze-leader",
            Self::KillFollower => "kill-follower",
            Self::KillBroker => "kill-broker",
            Self::CutLinks => "cut-links",
            Self::StopGroup => "stop-group",
            Self::Drain => "drain",
            Self::Switchover => "switchover",
        }
    }

    /// Whether the other instance must lead by the end of the fault.
    fn moves(self) -> bool {
        self.planned() || matches!(self, Self::KillLeader | Self::FreezeLeader)
    }

    /// Whether commands may come out in doubt: a fault of which nobody can know. What an operator
    /// plans leaves none.
    #[must_use]
    pub fn planned(self) -> bool {
        matches!(self, Self::StopGroup | Self::Drain | Self::Switchover)
    }
}

/// Waits for the pair, lets the load run, makes the fault, mends it.
pub(super) async fn run(
    stage: &mut Stage,
    drill: Drill,
    tally: &Tally,
    out: Out,
    stop: &CancellationToken,
) -> Result<Gaps, LabError> {
    let wait = async |time| tokio::time::timeout(time, stop.cancelled()).await.is_err();
    if !wait(BEFORE).await {
        return Ok(Gaps::new());
    }
    out.say(drill.name());
    tally.watch(Instant::now());
    strike(stage, drill).await?;
    let went_on = wait(FAULT).await;
    let moved = match drill.moves() && went_on {
        true => led_by_the_other(stage).await,
        false => Ok(()),
    };
    // Mended in any case: another drill may follow.
    mend(stage, drill).await?;
    moved?;
    if went_on {
        wait(AFTER).await;
    }
    Ok(vec![(drill.name().to_owned(), tally.gap(Instant::now()))])
}

async fn strike(stage: &mut Stage, drill: Drill) -> Result<(), LabError> {
    match drill {
        Drill::KillLeader => stage.instances[0].kill(),
        Drill::FreezeLeader => stage.instances[0].freeze(),
        Drill::KillFollower => stage.instances[1].kill(),
        Drill::KillBroker => {
            if let Some(broker) = stage.network.node(0) {
                broker.kill();
            }
        }
        Drill::CutLinks => stage.network.cut_link().await,
        Drill::StopGroup => post(stage, "groups/agents/stop").await?,
        Drill::Drain => post(stage, "drain").await?,
        Drill::Switchover => post(stage, "switchover?to=gc-2").await?,
    }
    Ok(())
}

async fn mend(stage: &mut Stage, drill: Drill) -> Result<(), LabError> {
    match drill {
        Drill::KillLeader => stage.instances[0].restart(),
        Drill::FreezeLeader => {
            stage.instances[0].thaw();
            Ok(())
        }
        Drill::KillFollower => stage.instances[1].restart(),
        Drill::KillBroker => match stage.network.node(0) {
            Some(broker) => broker.launch().await,
            None => Ok(()),
        },
        Drill::CutLinks => {
            stage.network.heal_link().await;
            Ok(())
        }
        Drill::StopGroup => post(stage, "groups/agents/start").await,
        Drill::Drain => {
            let instance = &mut stage.instances[0];
            instance.terminate();
            let deadline = Instant::now() + SETTLED;
            while instance.is_running() && Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
            }
            instance.restart()
        }
        // Where it never moved there is nothing to hand back; whether it came back is looked at
        // in the end.
        Drill::Switchover => {
            let _ = post(stage, "switchover?to=gc-1").await;
            Ok(())
        }
    }
}

async fn led_by_the_other(stage: &Stage) -> Result<(), LabError> {
    let http = super::http()?;
    let url = format!("{}/api/v1/status", stage.admin_url(1));
    let deadline = Instant::now() + DONE;
    loop {
        let view = super::get(&http, &url).await;
        if view.as_ref().is_some_and(super::leads) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(LabError::Deadline {
                what: "gc-2 leads".to_owned(),
                limit: DONE,
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A verb to gc-1.
async fn post(stage: &Stage, path: &str) -> Result<(), LabError> {
    let url = format!("{}/api/v1/{path}", stage.admin_url(0));
    let failed = |text: String| LabError::io(format!("POST {url}"))(std::io::Error::other(text));
    let answer = super::http()?.post(&url).timeout(FAULT).send().await;
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    if answer.status().is_success() {
        return Ok(());
    }
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    Err(failed(format!("{status} {body}")))
}

/// Waits until gc-1 leads on broker 1 and gc-2 follows there.
pub(super) async fn settled(stage: &Stage) -> Result<(), LabError> {
    let http = super::http()?;
    let nodes = stage.network.nodes();
    let port = nodes
        .first()
        .map_or_else(String::new, |node| format!(":{}", node.amqp_port()));
    let deadline = Instant::now() + SETTLED;
    loop {
        let mut right = true;
        for (at, role) in [(0, "leader"), (1, "follower")] {
            let url = format!("{}/api/v1/status", stage.admin_url(at));
            let view = super::get(&http, &url).await.unwrap_or_default();
            let word = |path| {
                view.pointer(path)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            right &= word("/groups/0/role") == role
                && word("/groups/0/broker").ends_with(&port)
                && word("/peers/0/state") == "alive";
        }
        if right {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(LabError::Deadline {
                what: "the pair as at the start: gc-1 leads, gc-2 follows, on broker 1".to_owned(),
                limit: SETTLED,
            });
        }
        tokio::time::sleep(POLL).await;
    }
}
