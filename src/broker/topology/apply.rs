//! Sets a plan on live brokers and compares it with them. Nothing is ever deleted: an object
//! that exists with other properties is reported as a conflict, with what to do about it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::compare::{EXCHANGE, Live, Object, Verb, declared, settings};
use super::examine::{FIXED_CURE, Place, matched};
use super::{BrokerPlan, Topology, fitting, hash, uri};
use crate::broker::management::{ManagementClient, ManagementError, segment};
use crate::model::brokers::OTHER_TYPE_CURE;

/// State of a link that the broker cannot be asked for.
pub const UNKNOWN: &str = "unknown";
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
    /// `broker`, `exchange`, `queue`, `binding`, `federation upstream`, `federation upstream set`, `policy`.
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
pub(super) struct Target<'a> {
    pub(super) plan: Cow<'a, BrokerPlan>,
    client: ManagementClient,
}

impl<'a> Target<'a> {
    pub(super) fn new(plan: &'a BrokerPlan) -> Result<Self, TopologyError> {
        let broker = &plan.broker;
        broker
            .client()
            .map(|client| Self {
                plan: Cow::Borrowed(plan),
                client,
            })
            .map_err(|source| TopologyError {
                broker: broker.label.clone(),
                source,
            })
    }

    /// The same with the plan for the version that the broker has: what is set must not be refused
    /// by it, nor a part of it be missed where it would be taken.
    pub(super) async fn fitted(mut self) -> Result<Self, TopologyError> {
        if self.plan.depends_on_version() {
            let overview = self.get("overview").await?.unwrap_or_default();
            let version = overview["rabbitmq_version"].as_str().unwrap_or_default();
            self.plan = Cow::Owned(self.plan.on(version));
        }
        Ok(self)
    }

    fn error(&self, source: ManagementError) -> TopologyError {
        TopologyError {
            broker: self.plan.broker.label.clone(),
            source,
        }
    }

    /// A document of the management API; `None` where there is none.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Value>, TopologyError> {
        self.client.get(path).await.map_err(|e| self.error(e))
    }

    /// Which cluster each node of the list says it is of, by its URL; those that are not reached are
    /// left out.
    pub(super) async fn cluster_names(&self) -> Vec<(String, String)> {
        let mut names = Vec::new();
        for node in self.client.each() {
            let overview = node.get("overview").await.ok().flatten();
            let name = overview
                .as_ref()
                .and_then(|all| all["cluster_name"].as_str());
            names.extend(name.map(|name| (node.base().to_owned(), name.to_owned())));
        }
        names
    }

    pub(super) async fn live(&self, object: &Object<'_>) -> Result<Live, TopologyError> {
        Ok(match self.get(&object.path).await? {
            None => Live::Absent,
            Some(live) => (object.compare)(&object.body, &live),
        })
    }

    async fn set_all(
        &self,
        objects: Vec<Object<'_>>,
        steps: &mut Vec<Step>,
    ) -> Result<(), TopologyError> {
        // Another's exchange: a queue bound to it would get who knows what.
        let mut foreign = BTreeSet::new();
        for object in objects {
            if object
                .from
                .is_some_and(|exchange| foreign.contains(exchange))
            {
                continue;
            }
            let step = self.set(&object).await?;
            if object.kind == EXCHANGE && matches!(step.change, Change::Conflict(_)) {
                foreign.insert(object.name);
            }
            steps.push(step);
        }
        Ok(())
    }

    async fn set(&self, object: &Object<'_>) -> Result<Step, TopologyError> {
        let change = match self.live(object).await? {
            Live::Same => Change::Unchanged,
            Live::Fixed(why) => Change::Conflict(format!("{why}; {FIXED_CURE}")),
            Live::OtherType(why) => Change::Conflict(format!("{why}; {OTHER_TYPE_CURE}")),
            Live::Absent => Change::Created,
            Live::Stale(_) => Change::Updated,
        };
        if matches!(change, Change::Created | Change::Updated) {
            let (path, body) = (&object.path, &object.body);
            let set = match object.verb {
                Verb::Put => self.client.put(path, body).await,
                Verb::Post => self.client.post(path, body).await.map(drop),
            };
            set.map_err(|e| self.error(e))?;
        }
        Ok(Step {
            broker: self.plan.broker.label.clone(),
            kind: object.kind,
            name: object.name.to_owned(),
            change,
        })
    }

    /// What gets messages that it should not get.
    async fn look_for_strays(&self, steps: &mut Vec<Step>) -> Result<(), TopologyError> {
        for (name, why) in hash::strays(self).await? {
            steps.push(Step {
                broker: self.plan.broker.label.clone(),
                kind: "binding",
                name,
                change: Change::Conflict(format!("{why}; {}", hash::STRAY_CURE)),
            });
        }
        Ok(())
    }

    async fn links(&self) -> Vec<LinkState> {
        let path = format!("federation-links/{}", segment(&self.plan.vhost));
        match self.client.get(&path).await {
            Ok(Some(live)) => link_states(&self.plan, live.as_array().map_or(&[], Vec::as_slice)),
            Ok(None) => self.unknown_links("plugin rabbitmq_federation_management is not enabled"),
            // One wedged link makes the whole list fail with 500, and so do links that start.
            Err(error) => self.unknown_links(&error.to_string()),
        }
    }

    fn unknown_links(&self, why: &str) -> Vec<LinkState> {
        let links = self.plan.links.iter();
        links
            .map(|(object, upstream)| LinkState {
                broker: self.plan.broker.label.clone(),
                object: object.clone(),
                upstream: upstream.clone(),
                status: UNKNOWN.to_owned(),
                error: Some(why.to_owned()),
            })
            .collect()
    }
}

/// The state of each planned link, from the management API's list. A link stands for a planned
/// one by what it connects; its upstream may bear any name.
fn link_states(plan: &BrokerPlan, live: &[Value]) -> Vec<LinkState> {
    let mut states = Vec::new();
    let objects: BTreeSet<&String> = plan.links.iter().map(|(object, _)| object).collect();
    let own = uri::addresses_of(&plan.broker.amqp_uri);
    for object in objects {
        let wanted = plan.links.iter().filter(|(name, _)| name == object);
        let wanted: Vec<Place> = wanted
            .map(|(_, upstream)| planned(plan, upstream))
            .collect();
        let carries = |link: &&Value| link["exchange"] == **object || link["queue"] == **object;
        // After a lost connection a broker lists the old attempt beside the new for a while.
        let mut there: Vec<(Place, &Value)> = Vec::new();
        for link in live.iter().filter(carries) {
            let place = Place::of(link["upstream"].as_str().unwrap_or_default(), link);
            match there.iter_mut().find(|(one, _)| *one == place) {
                Some((_, kept)) if kept["status"] != "running" => *kept = link,
                Some(_) => {}
                None => there.push((place, link)),
            }
        }
        // One that runs goes before one that does not.
        there.sort_by_key(|(_, link)| link["status"] != "running");
        let places: Vec<Place> = there.iter().map(|(place, _)| place.clone()).collect();
        for (wanted, found) in wanted.iter().zip(matched(&wanted, &places, &own)) {
            let link = found.map(|at| there[at].1);
            let status = link.map_or(Some("absent"), |link| link["status"].as_str());
            let error = link.and_then(|link| link.get("error"));
            states.push(LinkState {
                broker: plan.broker.label.clone(),
                object: object.clone(),
                upstream: found.map_or_else(|| wanted.name.clone(), |at| places[at].name.clone()),
                status: status.unwrap_or(UNKNOWN).to_owned(),
                error: error.map(|e| e.as_str().map_or_else(|| e.to_string(), str::to_owned)),
            });
        }
    }
    states
}

fn planned(plan: &BrokerPlan, upstream: &str) -> Place {
    let setting = plan.upstreams.iter().find(|one| one.name == upstream);
    let value = setting.map_or(&Value::Null, |setting| &setting.value);
    Place::of(upstream, value)
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
    let targets = report.usable(topology.brokers.iter().map(Target::new));
    let unfit = fitting::conflicts(&targets, topology.queue_type).await;
    if !unfit.is_empty() {
        // Half a network that federates with itself is worse than none.
        report.steps = unfit;
        return report;
    }
    let mut fitted = Vec::new();
    for target in targets {
        fitted.push(target.fitted().await);
    }
    let mut targets = report.usable(fitted);
    // All objects everywhere before any policy: a link whose upstream exchange does not exist
    // yet fails and waits before it tries again.
    for objects in [declared, settings] {
        let mut results = Vec::new();
        for target in targets {
            let result = target
                .set_all(objects(&target.plan), &mut report.steps)
                .await;
            results.push(result.map(|()| target));
        }
        targets = report.usable(results);
    }
    let mut results = Vec::new();
    for target in targets {
        let result = target.look_for_strays(&mut report.steps).await;
        results.push(result.map(|()| target));
    }
    let targets = report.usable(results);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{TopologyBroker, TopologyInput};
    use super::*;

    #[test]
    fn a_link_counts_by_what_it_connects() {
        let broker = |n: u32| TopologyBroker {
            label: format!("site-{n}"),
            amqp_uri: format!("amqp://host-{n}:5672"),
            management_url: String::new(),
            user: "u".to_owned(),
            password: "p".to_owned(),
            tls: Default::default(),
        };
        let plan = Topology::of(&TopologyInput {
            cluster_name: "t".to_owned(),
            queue_type: Default::default(),
            command_queues: vec!["q".to_owned()],
            hash: None,
            command_max_age: Duration::from_secs(30),
            brokers: vec![broker(1), broker(2)],
            federation_uris: std::collections::BTreeMap::new(),
            federation_tls: Default::default(),
        });
        let link = |kind: &str, object: &str, upstream: &str, host: &str, status: &str| {
            json!({kind: object, "upstream": upstream, "uri": format!("amqp://{host}/%2F"),
                   "status": status})
        };
        let live = [
            // Of another name; an old attempt beside the new; by name over a relay; to itself.
            link("queue", "q", "paris", "host-2", "running"),
            link("exchange", "t.events", "paris", "host-2", "starting"),
            link("exchange", "t.events", "paris", "host-2", "running"),
            link(
                "exchange",
                "t.replies",
                "t.main.site-2",
                "relay:1",
                "running",
            ),
            link("exchange", "t.control", "me", "host-1", "running"),
        ];
        let states = link_states(&plan.brokers[0], &live);
        let of = |object: &str| {
            let state = states.iter().find(|state| state.object == object).unwrap();
            (state.upstream.as_str(), state.status.as_str())
        };
        assert_eq!(states.len(), 4);
        assert_eq!(of("q"), ("paris", "running"));
        assert_eq!(of("t.events"), ("paris", "running"));
        assert_eq!(of("t.replies"), ("t.main.site-2", "running"));
        assert_eq!(of("t.control"), ("t.control.site-2", "absent"));
    }
}
