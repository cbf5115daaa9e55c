//! A plan as text for people and as JSON for programs, without passwords.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{BrokerPlan, Setting, Topology, uri};

impl Topology {
    /// The plan as indented text.
    pub fn to_text(&self) -> String {
        let mut out = format!("cluster {}\n", self.cluster_name);
        for plan in &self.brokers {
            plan.write_text(&mut out);
        }
        out
    }

    /// The plan as JSON: `{"cluster", "brokers": [{"label", "vhost", "exchanges", …}]}`.
    pub fn to_json(&self) -> Value {
        json!({
            "cluster": self.cluster_name,
            "brokers": self.brokers.iter().map(BrokerPlan::to_json).collect::<Vec<_>>(),
        })
    }
}

impl BrokerPlan {
    fn write_text(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "\nbroker {} ({}, virtual host {})",
            self.broker.label, self.broker.management_url, self.vhost
        );
        for exchange in &self.exchanges {
            let arguments = pairs(&Value::Object(exchange.arguments.clone()));
            let line = format!(
                "  exchange {}  {}, durable {arguments}",
                exchange.name, exchange.kind
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
        for queue in &self.queues {
            let _ = writeln!(
                out,
                "  queue {}  durable, {}",
                queue.name,
                pairs(&Value::Object(queue.arguments.clone()))
            );
        }
        for binding in &self.bindings {
            let _ = writeln!(out, "  binding {}  weight {}", binding.name, binding.key);
        }
        for upstream in &self.upstreams {
            let value = pairs(&uri::redacted_value(&upstream.value));
            let _ = writeln!(out, "  federation upstream {}  {value}", upstream.name);
        }
        for set in &self.upstream_sets {
            let members: Vec<&str> = set
                .value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|member| member["upstream"].as_str())
                .collect();
            let members = members.join(", ");
            let _ = writeln!(out, "  federation upstream set {}  {members}", set.name);
        }
        for policy in &self.policies {
            let _ = writeln!(
                out,
                "  policy {}  {} {}: {}",
                policy.name,
                policy.applies_to,
                policy.value["pattern"].as_str().unwrap_or_default(),
                pairs(&policy.value["definition"])
            );
            if !policy.since_4_3.is_empty() {
                let later = pairs(&Value::Object(policy.since_4_3.clone()));
                let _ = writeln!(out, "    on RabbitMQ 4.3 and later also {later}");
            }
        }
    }

    fn to_json(&self) -> Value {
        let exchanges: Vec<Value> = self
            .exchanges
            .iter()
            .map(|e| json!({"name": e.name, "type": e.kind, "durable": true, "arguments": e.arguments}))
            .collect();
        let queues: Vec<Value> = self
            .queues
            .iter()
            .map(|q| json!({"name": q.name, "durable": true, "arguments": q.arguments}))
            .collect();
        let bindings: Vec<Value> = self
            .bindings
            .iter()
            .map(|b| json!({"exchange": b.exchange, "queue": b.queue, "routingKey": b.key}))
            .collect();
        let links: Vec<Value> = self
            .links
            .iter()
            .map(|(object, upstream)| json!({"object": object, "upstream": upstream}))
            .collect();
        let policies: Vec<Value> = self
            .policies
            .iter()
            .map(|p| json!({"name": p.name, "value": p.value, "since4.3": p.since_4_3}))
            .collect();
        json!({
            "label": self.broker.label,
            "managementUrl": self.broker.management_url,
            "vhost": self.vhost,
            "exchanges": exchanges,
            "queues": queues,
            "bindings": bindings,
            "federationUpstreams": settings(&self.upstreams),
            "federationUpstreamSets": settings(&self.upstream_sets),
            "policies": policies,
            "links": links,
        })
    }
}

fn settings(settings: &[Setting]) -> Vec<Value> {
    settings
        .iter()
        .map(|s| json!({"name": s.name, "value": uri::redacted_value(&s.value)}))
        .collect()
}

/// `key=value` for each member of an object.
fn pairs(value: &Value) -> String {
    let Some(object) = value.as_object() else {
        return String::new();
    };
    let pairs: Vec<String> = object
        .iter()
        .map(|(key, value)| match value.as_str() {
            Some("") => format!("{key}=\"\""),
            Some(text) => format!("{key}={text}"),
            None => format!("{key}={value}"),
        })
        .collect();
    pairs.join(" ")
}
