//! Whether live brokers are what the plan takes them for: brokers of their own, new enough, with the
//! plug-ins that it needs, their queues of the planned type.

use std::collections::BTreeMap;

use serde_json::Value;

use super::apply::{Change, Step, Target};
use super::compare::{Live, declared};
use super::{BrokerPlan, hash_problem};
use crate::broker::management::segment;
use crate::model::brokers::{
    HASH_CURE, NOT_ONE_CLUSTER_CURE, ONE_CLUSTER_CURE, OTHER_TYPE_CURE, QueueType, VHOST_CURE,
    not_one_cluster, one_cluster,
};

/// What speaks against setting anything; empty where nothing does. A broker that cannot be asked
/// says nothing: what is set on it fails by itself.
pub(super) async fn conflicts(targets: &[Target<'_>], kind: QueueType) -> Vec<Step> {
    let mut said = Vec::new();
    for target in targets {
        let overview = target.get("overview").await.ok().flatten();
        let label = target.plan.broker.label.as_str();
        said.push((label, overview.unwrap_or_default()));
    }
    let mut steps = found(&said, kind);
    for (target, (label, overview)) in targets.iter().zip(&said) {
        let lacks = hash_problem(&target.plan, overview);
        steps.extend(lacks.map(|why| conflict(label, format!("{why}; {HASH_CURE}"))));
        let strangers = foreign(&target.cluster_names().await);
        steps
            .extend(strangers.map(|why| conflict(label, format!("{why}; {NOT_ONE_CLUSTER_CURE}"))));
        let lacks = no_vhost(target).await;
        steps.extend(lacks.map(|why| conflict(label, format!("{why}; {VHOST_CURE}"))));
    }
    if steps.is_empty() {
        // Policies for one type on a queue of the other are a half-working link.
        for target in targets {
            steps.extend(other_types(target).await);
        }
    }
    steps
}

/// That the broker does not have the virtual host, where it says so.
async fn no_vhost(target: &Target<'_>) -> Option<String> {
    let vhost = &target.plan.vhost;
    let asked = target.get(&format!("vhosts/{}", segment(vhost))).await;
    matches!(asked, Ok(None)).then(|| format!("there is no virtual host {vhost}"))
}

/// In words that a broker lacks the virtual host of its plan; `None` also where it does not say.
pub async fn vhost_problem(plan: &BrokerPlan) -> Option<String> {
    no_vhost(&Target::new(plan).ok()?).await
}

async fn other_types(target: &Target<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for object in declared(&target.plan) {
        if let Ok(Live::OtherType(why)) = target.live(&object).await {
            steps.push(Step {
                broker: target.plan.broker.label.clone(),
                kind: object.kind,
                name: object.name.to_owned(),
                change: Change::Conflict(format!("{why}; {OTHER_TYPE_CURE}")),
            });
        }
    }
    steps
}

fn conflict(label: &str, why: String) -> Step {
    Step {
        broker: label.to_owned(),
        kind: "broker",
        name: label.to_owned(),
        change: Change::Conflict(why),
    }
}

/// In words that one of these nodes is of another cluster than the first one: each with its address
/// and the name of its cluster.
fn foreign(nodes: &[(String, String)]) -> Option<String> {
    let (first, name) = nodes.first()?;
    nodes.iter().find_map(|(node, theirs)| {
        let why = not_one_cluster(first, name, theirs)?;
        Some(format!("its address {node} cannot be used: {why}"))
    })
}

/// The same from each broker's label and its word about itself (`/api/overview`).
fn found(said: &[(&str, Value)], kind: QueueType) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for (label, overview) in said {
        let version = overview["rabbitmq_version"].as_str().unwrap_or_default();
        if let Some(why) = kind.problem_on(version) {
            steps.push(conflict(label, why));
        }
        let Some(name) = overview["cluster_name"].as_str() else {
            continue;
        };
        if let Some(other) = names.insert(name, label) {
            let why = one_cluster(other, label, name);
            steps.push(conflict(label, format!("{why}; {ONE_CLUSTER_CURE}")));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(version: &str, name: &str) -> Value {
        json!({"rabbitmq_version": version, "cluster_name": name})
    }

    fn words(step: &Step) -> &str {
        match &step.change {
            Change::Conflict(why) => why,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn brokers_of_their_own_that_are_new_enough_are_taken() {
        let two = [("a", said("4.0.5", "x")), ("b", said("4.3.6", "y"))];
        assert_eq!(found(&two, QueueType::Quorum), []);
        let old = [("a", said("3.10.8", "x")), ("b", Value::Null)];
        assert_eq!(found(&old, QueueType::Classic), []);
        let steps = found(&old, QueueType::Quorum);
        assert_eq!((steps.len(), steps[0].broker.as_str()), (1, "a"));
        assert!(words(&steps[0]).contains("RabbitMQ 3.10.8"));
    }

    #[test]
    fn an_address_of_another_cluster_is_named() {
        let node = |node: &str, name: &str| (node.to_owned(), name.to_owned());
        let nodes = [
            node("http://a", "x"),
            node("http://b", "x"),
            node("http://c", "y"),
        ];
        assert_eq!(foreign(&nodes[..2]), None);
        assert_eq!(foreign(&[]), None);
        let why = foreign(&nodes).unwrap();
        for part in ["http://c", "another cluster, \"y\"", "http://a to \"x\""] {
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn two_entries_of_one_cluster_are_refused_with_the_cure() {
        let one = said("4.0.5", "site-1");
        let both = [("a:5672", one.clone()), ("b:5672", one)];
        let steps = found(&both, QueueType::Classic);
        assert_eq!(steps.len(), 1);
        let text = words(&steps[0]);
        assert!(text.contains("a:5672") && text.contains("b:5672"), "{text}");
        assert!(
            text.contains("broker.url.1=host-a:5672,host-b:5672"),
            "{text}"
        );
    }
}
