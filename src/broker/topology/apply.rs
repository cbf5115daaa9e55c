//! Sets a plan on live brokers and compares it with them. Nothing is ever deleted: an object
//! that exists with other properties is reported as a conflict, with what to do about it.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{BrokerPlan, ExchangeSpec, QueueSpec, Topology};
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
    /// The links at the end of the wait; empty where nobody waited.
    pub links: Vec<LinkState>,
}

impl ApplyReport {
    /// Everything is as planned now, and every link that was waited for runs.
    pub fn is_complete(&self) -> bool {
        self.steps
            .iter()
            .all(|step| !matches!(step.change, Change::Conflict(_)))
            && self.links.iter().all(LinkState::is_running)
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

/// Which broker could not be worked with. Brokers before it in the list may have been changed;
/// doing it again is harmless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("broker {broker}: {source}")]
pub struct TopologyError {
    /// Label of the broker.
    pub broker: String,
    /// What happened.
    pub source: ManagementError,
}

/// How a live object compares with its plan.
enum Live {
    Absent,
    Same,
    /// Another value, which can be replaced.
    Stale(String),
    /// Properties that are fixed once declared.
    Fixed(String),
}

/// One planned object in the terms of the management API.
struct Object<'a> {
    kind: &'static str,
    name: &'a str,
    path: String,
    body: Value,
    compare: fn(&Value, &Value) -> Live,
}

/// One broker with its client.
struct Target<'a> {
    plan: &'a BrokerPlan,
    client: ManagementClient,
}

impl<'a> Target<'a> {
    fn all(topology: &'a Topology) -> Result<Vec<Self>, TopologyError> {
        topology.brokers.iter().map(Self::new).collect()
    }

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

    async fn links(&self) -> Result<Vec<LinkState>, TopologyError> {
        let path = format!("federation-links/{}", segment(&self.plan.vhost));
        let live = match self.client.get(&path).await {
            Ok(live) => live.unwrap_or(Value::Null),
            // One wedged link makes the whole list fail with 500; links that start do, too.
            Err(ManagementError::Refused {
                status: 500,
                reason,
                ..
            }) => return Ok(self.states(|_, _| ("unknown", Some(reason.clone())))),
            Err(source) => return Err(self.error(source)),
        };
        let live = live.as_array().map_or(&[][..], Vec::as_slice);
        Ok(self.states(|object, upstream| {
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
        }))
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
/// Doing it twice changes nothing the second time.
///
/// # Errors
/// The first broker that cannot be reached or refuses. Conflicts and links that do not run are
/// not errors: see [`ApplyReport::is_complete`].
pub async fn apply(
    topology: &Topology,
    wait: Option<Duration>,
) -> Result<ApplyReport, TopologyError> {
    let targets = Target::all(topology)?;
    let mut steps = Vec::new();
    // All objects everywhere before any policy: a link whose upstream exchange does not exist
    // yet fails and waits before it tries again.
    for target in &targets {
        for object in declared(target.plan) {
            steps.push(target.set(&object).await?);
        }
    }
    for target in &targets {
        for object in settings(target.plan) {
            steps.push(target.set(&object).await?);
        }
    }
    let links = match wait {
        Some(limit) => wait_for_links(&targets, limit).await?,
        None => Vec::new(),
    };
    Ok(ApplyReport { steps, links })
}

async fn wait_for_links(
    targets: &[Target<'_>],
    limit: Duration,
) -> Result<Vec<LinkState>, TopologyError> {
    let deadline = Instant::now() + limit;
    loop {
        let states = all_links(targets).await?;
        if states.iter().all(LinkState::is_running) || Instant::now() >= deadline {
            return Ok(states);
        }
        tokio::time::sleep(LINK_POLL).await;
    }
}

async fn all_links(targets: &[Target<'_>]) -> Result<Vec<LinkState>, TopologyError> {
    let mut states = Vec::new();
    for target in targets {
        states.extend(target.links().await?);
    }
    Ok(states)
}

/// The state of every planned federation link now.
///
/// # Errors
/// The first broker that cannot be reached or refuses.
pub async fn links(topology: &Topology) -> Result<Vec<LinkState>, TopologyError> {
    all_links(&Target::all(topology)?).await
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
    for (kind, name, policy) in governed(plan) {
        let path = format!("{kind}s/{}/{}", segment(&plan.vhost), segment(&name));
        let live = target.client.get(&path).await;
        let Some(live) = live.map_err(|e| target.error(e))? else {
            continue;
        };
        // Just after a change the broker may not know yet: absent says nothing here.
        if let Some(other) = live["policy"].as_str().filter(|p| *p != policy) {
            found(
                format!("{kind} {name}"),
                format!("obeys policy {other} instead of {policy}"),
                "give that policy a lower priority or a narrower pattern",
            );
        }
    }
    Ok(findings)
}

/// (`queue` or `exchange`, its name, the policy that must win on it).
fn governed(plan: &BrokerPlan) -> Vec<(&'static str, String, &str)> {
    let mut out = Vec::new();
    for policy in &plan.policies {
        let pattern = policy.value["pattern"].as_str().unwrap_or_default();
        let queues = policy.value["apply-to"] == "queues";
        let names: Vec<&String> = if queues {
            plan.queues.iter().map(|q| &q.name).collect()
        } else {
            plan.exchanges.iter().map(|e| &e.name).collect()
        };
        for name in names {
            let exact = super::escape(name);
            let inner = pattern.trim_start_matches("^(").trim_end_matches(")$");
            if inner.split('|').any(|alternative| alternative == exact) {
                let kind = if queues { "queue" } else { "exchange" };
                out.push((kind, name.clone(), policy.name.as_str()));
            }
        }
    }
    out
}

/// Exchanges and queues.
fn declared(plan: &BrokerPlan) -> Vec<Object<'_>> {
    let vhost = segment(&plan.vhost);
    let mut objects = Vec::new();
    for ExchangeSpec { name, kind } in &plan.exchanges {
        objects.push(Object {
            kind: "exchange",
            name,
            path: format!("exchanges/{vhost}/{}", segment(name)),
            body: json!({"type": kind, "durable": true, "auto_delete": false, "internal": false, "arguments": {}}),
            compare: compare_declared,
        });
    }
    for QueueSpec { name, arguments } in &plan.queues {
        objects.push(Object {
            kind: "queue",
            name,
            path: format!("queues/{vhost}/{}", segment(name)),
            body: json!({"durable": true, "auto_delete": false, "arguments": arguments}),
            compare: compare_declared,
        });
    }
    objects
}

/// Upstreams, sets and policies, in the order in which they refer to each other.
fn settings(plan: &BrokerPlan) -> Vec<Object<'_>> {
    let vhost = segment(&plan.vhost);
    let parameters = [
        (
            "federation upstream",
            "federation-upstream",
            &plan.upstreams,
        ),
        (
            "federation upstream set",
            "federation-upstream-set",
            &plan.upstream_sets,
        ),
    ];
    let mut objects = Vec::new();
    for (kind, component, list) in parameters {
        for setting in list {
            objects.push(Object {
                kind,
                name: &setting.name,
                path: format!("parameters/{component}/{vhost}/{}", segment(&setting.name)),
                body: json!({"value": setting.value}),
                compare: compare_parameter,
            });
        }
    }
    for policy in &plan.policies {
        objects.push(Object {
            kind: "policy",
            name: &policy.name,
            path: format!("policies/{vhost}/{}", segment(&policy.name)),
            body: policy.value.clone(),
            compare: compare_policy,
        });
    }
    objects
}

/// Type, durability and arguments: fixed once declared. A queue declared without
/// `x-queue-type` is the same as a classic one.
fn compare_declared(plan: &Value, live: &Value) -> Live {
    for key in ["type", "durable", "auto_delete", "internal"] {
        let Some(wanted) = plan.get(key) else {
            continue;
        };
        if live.get(key) != Some(wanted) {
            return Live::Fixed(differs(key, wanted, live.get(key)));
        }
    }
    let empty = Map::new();
    let arguments = |value: &'_ Value| -> Map<String, Value> {
        let mut map = value["arguments"].as_object().unwrap_or(&empty).clone();
        // The default type: live["type"] tells what the queue really is.
        map.remove("x-queue-type");
        map
    };
    let is_queue = plan["arguments"].get("x-queue-type").is_some();
    if is_queue && live.get("type").is_some_and(|t| t != "classic") {
        let classic = json!("classic");
        return Live::Fixed(differs("queue type", &classic, live.get("type")));
    }
    let (wanted, found) = (arguments(plan), arguments(live));
    if wanted == found {
        return Live::Same;
    }
    Live::Fixed(differs(
        "arguments",
        &Value::Object(wanted),
        Some(&Value::Object(found)),
    ))
}

/// The value may hold a password, so only the names of what differs are told.
fn compare_parameter(plan: &Value, live: &Value) -> Live {
    let (wanted, found) = (&plan["value"], &live["value"]);
    if wanted == found {
        return Live::Same;
    }
    let names: Vec<&str> = match (wanted.as_object(), found.as_object()) {
        (Some(wanted), Some(found)) => wanted
            .keys()
            .chain(found.keys().filter(|key| !wanted.contains_key(*key)))
            .filter(|key| wanted.get(*key) != found.get(*key))
            .map(String::as_str)
            .collect(),
        _ => vec!["its members"],
    };
    Live::Stale(format!("differs in {}", names.join(", ")))
}

fn compare_policy(plan: &Value, live: &Value) -> Live {
    for key in ["pattern", "apply-to", "priority", "definition"] {
        if plan[key] != live[key] {
            return Live::Stale(differs(key, &plan[key], live.get(key)));
        }
    }
    Live::Same
}

fn differs(what: &str, wanted: &Value, found: Option<&Value>) -> String {
    let found = found.unwrap_or(&Value::Null);
    format!("{what} is {found}, should be {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(live: Live) -> bool {
        matches!(live, Live::Same)
    }

    #[test]
    fn a_queue_without_explicit_type_is_classic_and_another_type_is_a_conflict() {
        let plan = json!({"durable": true, "auto_delete": false,
                          "arguments": {"x-queue-type": "classic"}});
        let plain = json!({"type": "classic", "durable": true, "auto_delete": false,
                           "arguments": {}, "messages": 3});
        assert!(same(compare_declared(&plan, &plain)));
        let quorum = json!({"type": "quorum", "durable": true, "auto_delete": false,
                            "arguments": {"x-queue-type": "quorum"}});
        assert!(
            matches!(compare_declared(&plan, &quorum), Live::Fixed(why) if why.contains("quorum"))
        );
        let bounded = json!({"type": "classic", "durable": true, "auto_delete": false,
                             "arguments": {"x-max-length": 5}});
        assert!(matches!(compare_declared(&plan, &bounded), Live::Fixed(_)));
    }

    #[test]
    fn an_exchange_of_another_type_is_a_conflict() {
        let plan = json!({"type": "topic", "durable": true, "auto_delete": false,
                          "internal": false, "arguments": {}});
        assert!(same(compare_declared(&plan, &plan)));
        let mut live = plan.clone();
        live["type"] = json!("fanout");
        assert!(matches!(compare_declared(&plan, &live), Live::Fixed(_)));
    }

    #[test]
    fn a_changed_parameter_names_the_key_and_not_the_value() {
        let plan = json!({"value": {"uri": "amqp://u:secret@h", "max-hops": 1}});
        let live = json!({"value": {"uri": "amqp://u:old@h", "max-hops": 1, "expires": 5}});
        let Live::Stale(why) = compare_parameter(&plan, &live) else {
            panic!("not stale");
        };
        assert!(why.contains("uri") && why.contains("expires"), "{why}");
        assert!(
            !why.contains("max-hops") && !why.contains("secret"),
            "{why}"
        );
    }
}
