//! Groups of command queues, and what spreads agents over them.

use super::finding::Finding;
use super::schema;
use super::validate::Validator;
use super::value::Value;
use super::{Group, HashBy};

impl Validator<'_> {
    pub(super) fn groups(&mut self, cluster: &str) -> Vec<Group> {
        let mut groups = vec![Group {
            name: "agents".into(),
            queues: vec![self.text("command.queue")],
            priority: None,
            hash_weight: self.weight_of("command.hash-weight"),
        }];
        let mut keys = vec!["command.queue".to_owned()];
        for (key, candidate) in &self.given.values {
            if let (Some(name), Value::Queues(queues)) = (group_name(key), &candidate.value) {
                groups.push(Group {
                    name: name.to_owned(),
                    queues: queues.clone(),
                    priority: self.priority_of(name),
                    hash_weight: self.weight_of(&format!("group.{name}.hash-weight")),
                });
                keys.push(key.clone());
            }
        }
        self.no_group(&groups);
        let own = format!("{cluster}.");
        for (at, key) in keys.iter().enumerate() {
            for queue in &groups[at].queues {
                if queue.starts_with(&own) {
                    let message =
                        format!("queue {queue} has a name that this cluster's own objects use");
                    self.about(
                        key,
                        Finding::error(message).allowed(format!("no name that begins with {own}")),
                    );
                }
                if let Some(other) = groups[..at]
                    .iter()
                    .find(|group| group.queues.contains(queue))
                {
                    let message = format!("queue {queue} belongs to group {} already", other.name);
                    self.about(
                        key,
                        Finding::error(message).allowed("each queue in one group"),
                    );
                }
            }
        }
        groups
    }

    fn priority_of(&self, group: &str) -> Option<u8> {
        match self.value(&format!("group.{group}.priority")) {
            Some(Value::Int(priority)) => u8::try_from(priority).ok(),
            _ => None,
        }
    }

    /// The weight under this key; 1 where nobody gave one.
    fn weight_of(&self, key: &str) -> u32 {
        match self.value(key) {
            Some(Value::Int(weight)) => u32::try_from(weight).unwrap_or(u32::MAX),
            _ => 1,
        }
    }

    /// What the exchange goes by, where there is to be one; it must have queues to choose from.
    pub(super) fn hash_exchange(&mut self, groups: &[Group]) -> Option<HashBy> {
        let key = "command.hash-exchange";
        let by = match self.text(key).as_str() {
            "routing-key" => HashBy::RoutingKey,
            "header" => HashBy::Header,
            _ => return None,
        };
        let weighed = groups.iter().filter(|group| group.hash_weight > 0);
        match weighed.map(|group| group.queues.len()).sum() {
            0 => {
                let message = "all queues have the weight 0: what is published to it would be lost";
                self.about(
                    key,
                    Finding::error(message).allowed("a weight of 1 or more for at least one group"),
                );
            }
            1 => {
                let message = "one queue takes all agents: there is nothing to spread";
                self.about(
                    key,
                    Finding::warning(message)
                        .allowed("a second group, group.NAME.queues, with a weight of 1 or more"),
                );
            }
            _ => {}
        }
        Some(by)
    }

    /// A key for a group that has no queues.
    fn no_group(&mut self, groups: &[Group]) {
        let unknown = |key: &String| {
            let group = schema::group_of(key)?;
            let known = groups.iter().any(|known| known.name == group);
            (!known).then(|| (key.clone(), group))
        };
        let all: Vec<(String, String)> = self.given.values.keys().filter_map(unknown).collect();
        for (key, group) in all {
            let message = format!("there is no group {group}");
            self.about(
                &key,
                Finding::error(message)
                    .allowed(format!("a group with queues: group.{group}.queues")),
            );
        }
    }
}

fn group_name(key: &str) -> Option<&str> {
    key.strip_prefix("group.")?.strip_suffix(".queues")
}
