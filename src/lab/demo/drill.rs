//! The two kills: the leading instance, then the broker it serves on.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Out;
use super::stage::Stage;
use super::verdict::show_gap;
use crate::client::tally::{Gap, Tally};
use crate::lab::LabError;

/// From this length on both kills fit in, with time between them.
const FOR_BOTH: Duration = Duration::from_secs(20);
/// From this length on the kill of the leader fits in.
const FOR_ONE: Duration = Duration::from_secs(10);

/// When what happens, from the start of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// gc-1 is killed; `None`: the run is too short.
    pub kill_instance: Option<Duration>,
    /// It is started again this long after.
    pub instance_away: Duration,
    /// Broker 1 is killed; `None`: the run is too short.
    pub kill_broker: Option<Duration>,
    /// It is started again this long after.
    pub broker_away: Duration,
    /// How long after a kill the service is watched.
    pub watched: Duration,
}

impl Plan {
    /// A plan for a run of this length. Between the kills there is time for gc-1 to come back and
    /// to lead again, where the run is long enough.
    pub fn of(length: Option<Duration>) -> Self {
        let length = length.unwrap_or(Duration::from_secs(60));
        let both = length >= FOR_BOTH;
        // Without a second kill there is more time for the first.
        let watched = length.mul_f64(if both { 0.12 } else { 0.5 });
        Self {
            kill_instance: (length >= FOR_ONE).then(|| length.mul_f64(0.15)),
            instance_away: length.mul_f64(0.05),
            kill_broker: both.then(|| length.mul_f64(0.65)),
            broker_away: length.mul_f64(0.10),
            watched: watched.min(Duration::from_secs(8)),
        }
    }
}

/// What was killed, and the gap where it could be measured.
pub type Gaps = Vec<(String, Option<Gap>)>;

/// Carries out the plan; ends early, with what was measured, when `stop` says so.
pub async fn run(
    stage: &mut Stage,
    plan: Plan,
    tally: &Tally,
    out: Out,
    stop: &CancellationToken,
) -> Result<Gaps, LabError> {
    let mut gaps = Gaps::new();
    let started = Instant::now();
    let until = async |at: Duration| {
        let left = at.saturating_sub(started.elapsed());
        tokio::time::timeout(left, stop.cancelled()).await.is_err()
    };
    let Some(kill_instance) = plan.kill_instance else {
        out.say("too short for a kill: load only");
        return Ok(gaps);
    };
    if !until(kill_instance).await {
        return Ok(gaps);
    }
    out.say("KILL -9 gc-1, the leading instance");
    stage.instances[0].kill();
    // From here on it is gone, so that what is sent now is another's to answer.
    tally.watch(Instant::now());
    let (back, watched) = (plan.instance_away, plan.watched);
    let went_on = until(kill_instance + back.min(watched)).await;
    out.say("gc-1 is started again");
    stage.instances[0].restart()?;
    let went_on = went_on && until(kill_instance + watched).await;
    note(&mut gaps, "gc-1", tally, out);
    let Some(kill_broker) = plan.kill_broker.filter(|_| went_on) else {
        return Ok(gaps);
    };
    if !until(kill_broker).await {
        return Ok(gaps);
    }
    out.say("KILL -9 broker 1");
    if let Some(broker) = stage.network.node(0) {
        broker.kill();
    }
    tally.watch(Instant::now());
    let (back, watched) = (plan.broker_away, plan.watched);
    let went_on = until(kill_broker + back.min(watched)).await;
    out.say("broker 1 is started again");
    if let Some(broker) = stage.network.node(0) {
        broker.launch().await?;
    }
    if went_on {
        until(kill_broker + watched).await;
    }
    note(&mut gaps, "broker 1", tally, out);
    Ok(gaps)
}

fn note(gaps: &mut Gaps, what: &str, tally: &Tally, out: Out) {
    let gap = tally.gap(Instant::now());
    if let Some(gap) = &gap {
        out.say(&format!("{what} killed: {}", show_gap(gap)));
    }
    gaps.push((what.to_owned(), gap));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kills_and_what_is_watched_fit_into_the_run() {
        for seconds in [20, 40, 600] {
            let length = Duration::from_secs(seconds);
            let plan = Plan::of(Some(length));
            let kill_instance = plan.kill_instance.unwrap();
            let kill_broker = plan.kill_broker.unwrap();
            assert!(kill_instance + plan.watched < kill_broker);
            assert!(kill_instance + plan.instance_away < kill_broker);
            assert!(kill_broker + plan.watched < length);
            assert!(kill_broker + plan.broker_away < length);
        }
        assert!(Plan::of(None).kill_broker.is_some());
    }

    #[test]
    fn a_short_run_goes_without_the_kills_that_do_not_fit() {
        for seconds in [10, 15, 19] {
            let length = Duration::from_secs(seconds);
            let plan = Plan::of(Some(length));
            let kill_instance = plan.kill_instance.unwrap();
            // A takeover takes two seconds and more on a slow machine.
            assert!(plan.watched >= Duration::from_secs(5));
            assert!(kill_instance + plan.watched < length);
            assert_eq!(plan.kill_broker, None);
        }
        for seconds in [1, 9] {
            let plan = Plan::of(Some(Duration::from_secs(seconds)));
            assert_eq!((plan.kill_instance, plan.kill_broker), (None, None));
        }
    }
}
