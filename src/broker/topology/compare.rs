//! Planned objects in the terms of the management API, and how live ones compare with them.

use serde_json::{Map, Value, json};

use super::uri;
use super::{BindingSpec, BrokerPlan, ExchangeSpec, QueueSpec, TYPE};
use crate::broker::management::segment;

/// Kind of an exchange.
pub(super) const EXCHANGE: &str = "exchange";

/// How a live object compares with its plan.
pub(super) enum Live {
    Absent,
    Same,
    /// Another value, which can be replaced.
    Stale(String),
    /// Properties that are fixed once declared.
    Fixed(String),
    /// A queue of the other type.
    OtherType(String),
}

/// How an object is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// What is at its path is made, or replaced.
    Put,
    /// One more is made at its path.
    Post,
}

/// One planned object in the terms of the management API.
pub(super) struct Object<'a> {
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    pub(super) path: String,
    pub(super) body: Value,
    pub(super) verb: Verb,
    /// Of a binding: the exchange.
    pub(super) from: Option<&'a str>,
    pub(super) compare: fn(&Value, &Value) -> Live,
}

/// Exchanges and queues, and which of these get what from an exchange.
pub(super) fn declared(plan: &BrokerPlan) -> Vec<Object<'_>> {
    let vhost = segment(&plan.vhost);
    let mut objects = Vec::new();
    for ExchangeSpec {
        name,
        kind,
        arguments,
    } in &plan.exchanges
    {
        objects.push(Object {
            kind: EXCHANGE,
            name,
            path: format!("exchanges/{vhost}/{}", segment(name)),
            body: json!({"type": kind, "durable": true, "auto_delete": false, "internal": false, "arguments": arguments}),
            verb: Verb::Put,
            from: None,
            compare: compare_declared,
        });
    }
    for QueueSpec { name, arguments } in &plan.queues {
        objects.push(Object {
            kind: "queue",
            name,
            path: format!("queues/{vhost}/{}", segment(name)),
            body: json!({"durable": true, "auto_delete": false, "arguments": arguments}),
            verb: Verb::Put,
            from: None,
            compare: compare_declared,
        });
    }
    for binding in &plan.bindings {
        let BindingSpec {
            name,
            exchange,
            queue,
            key,
        } = binding;
        let (exchange, queue) = (segment(exchange), segment(queue));
        objects.push(Object {
            kind: "binding",
            name,
            path: format!("bindings/{vhost}/e/{exchange}/q/{queue}"),
            body: json!({"routing_key": key, "arguments": {}}),
            verb: Verb::Post,
            from: Some(&binding.exchange),
            compare: compare_bindings,
        });
    }
    objects
}

/// Upstreams, sets and policies, in the order in which they refer to each other.
pub(super) fn settings(plan: &BrokerPlan) -> Vec<Object<'_>> {
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
                verb: Verb::Put,
                from: None,
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
            verb: Verb::Put,
            from: None,
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
        map.remove(TYPE);
        map
    };
    let planned = plan["arguments"].get(TYPE);
    if let (Some(wanted), Some(found)) = (planned, live.get("type"))
        && wanted != found
    {
        let waiting = live["messages"].as_u64().unwrap_or(0);
        return Live::OtherType(format!(
            "{}; {waiting} messages wait in it",
            differs("queue type", wanted, Some(found))
        ));
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

/// Against all bindings of one queue to one exchange. A queue takes its share by one of them only.
fn compare_bindings(plan: &Value, live: &Value) -> Live {
    let key = &plan["routing_key"];
    match live.as_array().map_or(&[][..], Vec::as_slice) {
        [] => Live::Absent,
        [one] if one["routing_key"] == *key => Live::Same,
        [one] => Live::Fixed(differs("its weight", key, one.get("routing_key"))),
        many => {
            let keys: Vec<&Value> = many.iter().map(|one| &one["routing_key"]).collect();
            Live::Fixed(format!(
                "it is bound more than once, with {}, should be with {key}",
                keys.iter()
                    .map(|key| key.to_string())
                    .collect::<Vec<_>>()
                    .join(" and ")
            ))
        }
    }
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
    if let (["uri"], Some(options)) = (
        &names[..],
        uri::other_options(&wanted["uri"], &found["uri"]),
    ) {
        let options = options.join(", ");
        return Live::Stale(format!("differs in options of its uri: {options}"));
    }
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
            matches!(compare_declared(&plan, &quorum), Live::OtherType(why) if why.contains("quorum"))
        );
        let wanted = json!({"durable": true, "auto_delete": false,
                            "arguments": {"x-queue-type": "quorum"}});
        assert!(same(compare_declared(&wanted, &quorum)));
        assert!(matches!(compare_declared(&wanted, &plain),
            Live::OtherType(why) if why.contains("classic") && why.contains("3 messages")));
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
    fn a_queue_has_one_binding_with_its_weight() {
        let plan = json!({"routing_key": "2", "arguments": {}});
        let bound = |keys: &[&str]| {
            let keys = keys.iter().map(|key| json!({"routing_key": key}));
            compare_bindings(&plan, &Value::Array(keys.collect()))
        };
        assert!(matches!(bound(&[]), Live::Absent));
        assert!(same(bound(&["2"])));
        assert!(
            matches!(bound(&["1"]), Live::Fixed(why) if why.contains(r#"is "1", should be "2""#))
        );
        assert!(matches!(bound(&["1", "2"]), Live::Fixed(why) if why.contains("more than once")));
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
