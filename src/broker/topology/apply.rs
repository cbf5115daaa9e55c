//! Sets a plan on live brokers and compares it with them. Nothing is ever deleted: an object
//! that exists with other properties is reported as a conflict, with what to do about it.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::compare::{Live, Object, declared, settings};
use super::{BrokerPlan, Topology};
use crate::broker::management::{ManagementClient, ManagementError, segment};

/// Pause between two looks at the links.
const LINK_POLL: Duration = Duration::from_millis(250);

/// What `apply` did with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It did not exist.
    Created,
    /// It existed with another value.
    Updated,
    /// It was as planned.
    Unchanged,
    /// It exists with properties that cannot be changed; nothing was done.
    Conflict(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("created"),
            Self::Updated => f.write_str("updated"),
            Self::Unchanged => f.write_str("unchanged"),
            Self::Conflict(why) => write!(f, "CONFLICT: {why}"),
        }
    }
}

/// One object on one broker and what was done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Label of the broker.
    pub broker: String,
    /// `exchange`, `queue`, `federation upstream`, `federation upstream set`, `policy`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What was done.
    pub change: Change,
}

/// One federation link as seen by the broker that pulls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// Label of the broker that pulls.
    pub broker: String,
    /// Federated exchange or queue.
    pub object: String,
    /// Name of the upstream.
    pub upstream: String,
    /// `running`, `starting`, `error`, … as the broker says; `absent` where it says nothing.
    pub status: String,
    /// The broker's reason, where it gives one.
    pub error: Option<String>,
}

impl LinkState {
    /// Whether messages flow.
    pub fn is_running(&self) -> bool {
        self.status == "running"
    }
}

/// What [`apply`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyReport {
    /// All objects of all brokers.
    pub steps: Vec<Step>,
    /// Brokers that could not be reached or refused; they lack what `steps` does not name.
    pub errors: Vec<TopologyError>,
    /// The links at the end of the wait; empty where nobody waited.
    pub links: Vec<LinkState>,
}

impl ApplyReport {
    /// Everything is as planned now, and every link that was waited for runs.
    pub fn is_complete(&self) -> bool {
        self.errors.is_empty()
            && self
                .steps
                .iter()
                .all(|step| !matches!(step.change, Change::Conflict(_)))
            && self.links.iter().all(LinkState::is_running)
    }

    /// Keeps the errors and gives back the rest.
    fn usable<T>(&mut self, results: impl IntoIterator<Item = Result<T, TopologyError>>) -> Vec<T> {
        let mut usable = Vec::new();
        for result in results {
            match result {
                Ok(target) => usable.push(target),
                Err(error) => self.errors.push(error),
            }
        }
        usable
    }

    /// Whether a broker was changed.
    pub fn changed(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step.change, Change::Created | Change::Updated))
    }
}

/// Something on a live broker that is not as planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Label of the broker.
    pub broker: String,
    /// Kind and name of the object.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// How to mend it.
    pub cure: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}; {}",
            self.broker, self.object, self.problem, self.cure
        )
    }
}

/// Which broker could not be worked with. A part of its objects may have been set; doing it
/// again is harmless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("broker {broker}: {source}")]
pub struct TopologyError {
    /// Label of the broker.
    pub broker: String,
    /// What happened.
    pub source: ManagementError,
}

/// One broker with its client.
struct Target<'a> {
    plan: &'a BrokerPlan,
    client: ManagementClient,
}

impl<'a> Target<'a> {
    fn new(plan: &'a BrokerPlan) -> Result<Self, TopologyError> {
        let broker = &plan.broker;
        ManagementClient::new(&broker.management_url, &broker.user, &broker.password)
            .map(|client| Self { plan, client })
            .map_err(|source| TopologyError {
                broker: broker.label.clone(),
                source,
            })
    }

    fn error(&self, source: ManagementError) -> TopologyError {
        TopologyError {
            broker: self.plan.broker.label.clone(),
            source,
        }
    }

    async fn live(&self, object: &Object<'_>) -> Result<Live, TopologyError> {
        let live = self.client.get(&object.path).await;
        Ok(match live.map_err(|e| self.error(e))? {
            None => Live::Absent,
            Some(live) => (object.compare)(&object.body, &live),
        })
    }

    async fn set_all(
        &self,
        objects: Vec<Object<'_>>,
        steps: &mut Vec<Step>,
    ) -> Result<(), TopologyError> {
        for object in objects {
            steps.push(self.set(&object).await?);
        }
        Ok(())
    }

    async fn set(&self, object: &Object<'_>) -> Result<Step, TopologyError> {
        let change = match self.live(object).await? {
            Live::Same => Change::Unchanged,
            Live::Fixed(why) => Change::Conflict(why),
            Live::Absent => Change::Created,
            Live::Stale(_) => Change::Updated,
        };
        if matches!(change, Change::Created | Change::Updated) {
            let put = self.client.put(&object.path, &object.body).await;
            put.map_err(|e| self.error(e))?;
        }
        Ok(Step {
            broker: self.plan.broker.label.clone(),
            kind: object.kind,
            name: object.name.to_owned(),
            change,
        })
    }

    async fn links(&self) -> Vec<LinkState> {
        let path = format!("federation-links/{}", segment(&self.plan.vhost));
        let live = match self.client.get(&path).await {
            Ok(Some(live)) => live,
            Ok(None) => {
                let why = "plugin rabbitmq_federation_management is not enabled".to_owned();
                return self.states(|_, _| ("unknown", Some(why.clone())));
            }
            // One wedged link makes the whole list fail with 500, and so do links that start.
            Err(error) => return self.states(|_, _| ("unknown", Some(error.to_string()))),
        };
        let live = live.as_array().map_or(&[][..], Vec::as_slice);
        self.states(|object, upstream| {
            // After a lost connection a broker lists the old attempt beside the new for a while.
            let attempts: Vec<&Value> = live
                .iter()
                .filter(|link| link["upstream"] == upstream)
                .filter(|link| link["exchange"] == object || link["queue"] == object)
                .collect();
            let best = attempts
                .iter()
                .find(|link| link["status"] == "running")
                .or(attempts.first());
            match best {
                None => ("absent", None),
                Some(link) => (
                    link["status"].as_str().unwrap_or("unknown"),
                    link.get("error").map(|e| match e.as_str() {
                        Some(text) => text.to_owned(),
                        None => e.to_string(),
                    }),
                ),
            }
        })
    }

    /// The state of each planned link.
    fn states<'v>(
        &self,
        state: impl Fn(&str, &str) -> (&'v str, Option<String>),
    ) -> Vec<LinkState> {
        let links = self.plan.links.iter();
        links
            .map(|(object, upstream)| {
                let (status, error) = state(object, upstream);
                LinkState {
                    broker: self.plan.broker.label.clone(),
                    object: object.clone(),
                    upstream: upstream.clone(),
                    status: status.to_owned(),
                    error,
                }
            })
            .collect()
    }
}

/// Sets the plan on every broker; with `wait` also waits, at most that long, until all links run.
/// Doing it twice changes nothing the second time. A broker that cannot be worked with does not
/// keep the others from getting theirs: see [`ApplyReport::errors`].
pub async fn apply(topology: &Topology, wait: Option<Duration>) -> ApplyReport {
    let mut report = ApplyReport {
        steps: Vec::new(),
        errors: Vec::new(),
        links: Vec::new(),
    };
    let mut targets = report.usable(topology.brokers.iter().map(Target::new));
    // All objects everywhere before any policy: a link whose upstream exchange does not exist
    // yet fails and waits before it tries again.
    for objects in [declared, settings] {
        let mut results = Vec::new();
        for target in targets {
            let result = target
                .set_all(objects(target.plan), &mut report.steps)
                .await;
            results.push(result.map(|()| target));
        }
        targets = report.usable(results);
    }
    if let Some(limit) = wait {
        // Without one of the brokers not all links can run.
        let limit = if report.errors.is_empty() {
            limit
        } else {
            Duration::ZERO
        };
        report.links = wait_for_links(&targets, limit).await;
    }
    report
}

async fn wait_for_links(targets: &[Target<'_>], limit: Duration) -> Vec<LinkState> {
    let deadline = Instant::now() + limit;
    loop {
        let states = all_links(targets).await;
        if states.iter().all(LinkState::is_running) || Instant::now() >= deadline {
            return states;
        }
        tokio::time::sleep(LINK_POLL).await;
    }
}

async fn all_links(targets: &[Target<'_>]) -> Vec<LinkState> {
    let mut states = Vec::new();
    for target in targets {
        states.extend(target.links().await);
    }
    states
}

/// The state of every planned federation link now; `unknown` with the reason where a broker
/// cannot be asked.
///
/// # Errors
/// The HTTP client could not be built.
pub async fn links(topology: &Topology) -> Result<Vec<LinkState>, TopologyError> {
    let targets: Vec<Target<'_>> = topology
        .brokers
        .iter()
        .map(Target::new)
        .collect::<Result<_, _>>()?;
    Ok(all_links(&targets).await)
}

/// The state of the federation links that one broker pulls with.
///
/// # Errors
/// The HTTP client could not be built.
pub async fn links_of(plan: &BrokerPlan) -> Result<Vec<LinkState>, TopologyError> {
    Ok(Target::new(plan)?.links().await)
}

/// What is not as planned on one broker of the plan, links aside (see [`links`]). Empty where
/// all is well.
///
/// # Errors
/// The broker cannot be reached or refuses.
pub async fn missing(plan: &BrokerPlan) -> Result<Vec<Finding>, TopologyError> {
    let target = Target::new(plan)?;
    let mut findings = Vec::new();
    let mut found = |object: String, problem: String, cure: &str| {
        findings.push(Finding {
            broker: plan.broker.label.clone(),
            object,
            problem,
            cure: cure.to_owned(),
        });
    };
    const APPLY: &str = "run `tandem topology apply`";
    for object in declared(plan).into_iter().chain(settings(plan)) {
        let name = format!("{} {}", object.kind, object.name);
        match target.live(&object).await? {
            Live::Same => {}
            Live::Absent => found(name, "does not exist".to_owned(), APPLY),
            Live::Stale(why) => found(name, why, APPLY),
            Live::Fixed(why) => found(name, why, "delete it, then run `tandem topology apply`"),
        }
    }
    let governed = plan.policies.iter().flat_map(|policy| {
        let objects = policy.objects.iter();
        objects.map(move |object| (policy.applies_to, object, policy.name.as_str()))
    });
    for (kind, name, policy) in governed {
        let path = format!("{kind}/{}/{}", segment(&plan.vhost), segment(name));
        let live = target.client.get(&path).await;
        let Some(live) = live.map_err(|e| target.error(e))? else {
            continue;
        };
        // Just after a change the broker may not know yet: absent says nothing here.
        if let Some(other) = live["policy"].as_str().filter(|p| *p != policy) {
            found(
                format!("{} {name}", kind.trim_end_matches('s')),
                format!("obeys policy {other} instead of {policy}"),
                "give that policy a lower priority or a narrower pattern",
            );
        }
    }
    Ok(findings)
}
