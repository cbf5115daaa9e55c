//! The exchange that spreads agents over the command queues by a hash, so that several instances
//! share the work while all commands of one agent go one way. It is for clients alone: no instance
//! needs it, declares it or publishes to it.
//!
//! The broker's ring is a list, in which each queue takes as many places as its weight says, in the
//! order in which the queues were bound. It is bound in the same order on every broker, so that an
//! agent's commands go to one queue wherever a client publishes them.

use serde_json::{Map, Value, json};

use super::apply::{Target, TopologyError};
use super::{BindingSpec, BrokerPlan, ExchangeSpec};
use crate::broker::management::segment;
use crate::model::brokers::{HASH_HEADER, HASH_TYPE, HashBy};

/// What is bound to it and should not be.
pub(super) const STRAY_CURE: &str =
    "delete that binding (management page, Exchanges): what is sent there is lost or is nobody's";

/// What spreads agents, and over which queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashInput {
    /// What tells agents apart.
    pub by: HashBy,
    /// Queues with their weights, 1 or more, in the order in which they are bound.
    pub queues: Vec<(String, u32)>,
}

impl HashInput {
    pub(super) fn exchange(&self, cluster: &str) -> ExchangeSpec {
        let mut arguments = Map::new();
        if self.by == HashBy::Header {
            arguments.insert("hash-header".to_owned(), json!(HASH_HEADER));
        }
        ExchangeSpec {
            name: exchange_name(cluster),
            kind: HASH_TYPE,
            arguments,
        }
    }

    pub(super) fn bindings(&self, cluster: &str) -> Vec<BindingSpec> {
        let exchange = exchange_name(cluster);
        let each = self.queues.iter().map(|(queue, weight)| BindingSpec {
            name: format!("{exchange} to {queue}"),
            exchange: exchange.clone(),
            queue: queue.clone(),
            key: weight.to_string(),
        });
        each.collect()
    }
}

fn exchange_name(cluster: &str) -> String {
    format!("{cluster}.commands")
}

/// Why a broker cannot have such an exchange, by its word about itself (`/api/overview`); `None`
/// where it can, where none is wanted, or where it does not say.
#[must_use]
pub fn hash_problem(plan: &BrokerPlan, overview: &Value) -> Option<String> {
    let wanted = plan.exchanges.iter().find(|one| one.kind == HASH_TYPE)?;
    let known = overview["exchange_types"].as_array()?;
    let has = known.iter().any(|one| one["name"] == HASH_TYPE);
    (!has).then(|| {
        format!(
            "the plug-in rabbitmq_consistent_hash_exchange is not enabled there, and command.hash-exchange \
             asks for the exchange {}",
            wanted.name
        )
    })
}

/// What is bound to the exchange beside the planned: each with its name and what it is.
pub(super) async fn strays(target: &Target<'_>) -> Result<Vec<(String, String)>, TopologyError> {
    let plan = &*target.plan;
    let Some(exchange) = plan.exchanges.iter().find(|one| one.kind == HASH_TYPE) else {
        return Ok(Vec::new());
    };
    let (vhost, name) = (segment(&plan.vhost), segment(&exchange.name));
    let path = format!("exchanges/{vhost}/{name}/bindings/source");
    let live = target.get(&path).await?.unwrap_or_default();
    Ok(unplanned(plan, &exchange.name, &live))
}

fn unplanned(plan: &BrokerPlan, exchange: &str, live: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for one in live.as_array().into_iter().flatten() {
        let (kind, to) = (
            one["destination_type"].as_str(),
            one["destination"].as_str(),
        );
        let (kind, to) = (kind.unwrap_or("queue"), to.unwrap_or_default());
        let planned = |own: &BindingSpec| kind == "queue" && own.queue == to;
        if !plan.bindings.iter().any(planned) {
            let key = one["routing_key"].as_str().unwrap_or_default();
            found.push((
                format!("{exchange} to {to}"),
                format!("agents are spread over the {kind} {to} too (weight {key}), which is not planned"),
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::input;
    use super::super::{Topology, TopologyInput};
    use super::*;

    fn spread(by: HashBy) -> TopologyInput {
        let mut input = input(2);
        let queues = [("Connector1", 1), ("My.Queue", 3)];
        input.hash = Some(HashInput {
            by,
            queues: queues
                .map(|(name, weight)| (name.to_owned(), weight))
                .to_vec(),
        });
        input
    }

    #[test]
    fn each_queue_is_bound_with_its_weight_on_every_broker_in_one_order() {
        let plan = Topology::of(&spread(HashBy::RoutingKey));
        for broker in &plan.brokers {
            let exchange = broker.exchanges.last().unwrap();
            assert_eq!(
                (exchange.name.as_str(), exchange.kind),
                ("tandem.commands", HASH_TYPE)
            );
            assert!(exchange.arguments.is_empty());
            let bound: Vec<_> = broker
                .bindings
                .iter()
                .map(|one| (one.queue.as_str(), one.key.as_str()))
                .collect();
            assert_eq!(bound, [("Connector1", "1"), ("My.Queue", "3")]);
            // It is for clients at this broker: what it routes is federated as a command is.
            assert!(
                broker
                    .links
                    .iter()
                    .all(|(object, _)| *object != exchange.name)
            );
        }
        let text = plan.to_text();
        assert!(
            text.contains("binding tandem.commands to My.Queue  weight 3"),
            "{text}"
        );
        let by_header = Topology::of(&spread(HashBy::Header));
        let arguments = &by_header.brokers[0].exchanges.last().unwrap().arguments;
        assert_eq!(arguments["hash-header"], "x-agent");
        assert!(Topology::of(&input(2)).brokers[0].bindings.is_empty());
    }

    #[test]
    fn a_broker_without_the_plug_in_is_told_by_its_own_word() {
        let plan = Topology::of(&spread(HashBy::RoutingKey)).brokers.remove(0);
        let types = |names: &[&str]| {
            let types: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            json!({"exchange_types": types})
        };
        assert_eq!(hash_problem(&plan, &types(&["topic", HASH_TYPE])), None);
        assert_eq!(hash_problem(&plan, &Value::Null), None);
        let why = hash_problem(&plan, &types(&["topic"])).unwrap();
        assert!(why.contains("rabbitmq_consistent_hash_exchange"), "{why}");
        let none = Topology::of(&input(2)).brokers.remove(0);
        assert_eq!(hash_problem(&none, &types(&["topic"])), None);
    }

    #[test]
    fn what_is_bound_beside_the_plan_is_a_stray() {
        let plan = Topology::of(&spread(HashBy::RoutingKey)).brokers.remove(0);
        let bound = |kind: &str, to: &str| json!({"destination_type": kind, "destination": to, "routing_key": "7"});
        let live = json!([
            bound("queue", "My.Queue"),
            bound("queue", "Old"),
            bound("exchange", "Connector1")
        ]);
        let found = unplanned(&plan, "tandem.commands", &live);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["tandem.commands to Old", "tandem.commands to Connector1"]
        );
        assert!(found[0].1.contains("weight 7"), "{found:?}");
    }
}
