//! From an instance's settings to what its topology follows from.

use std::collections::{BTreeMap, BTreeSet};

use super::{FederationTls, HashInput, TopologyBroker, TopologyInput};
use crate::settings::Settings;

/// The topology that these settings need: the command queues of all groups, federated between
/// all brokers of the list, which reach each other by the configured URLs.
pub fn topology_input(settings: &Settings) -> TopologyInput {
    let mut seen = BTreeSet::new();
    let queues = settings.groups.iter().flat_map(|group| &group.queues);
    let brokers = settings.broker.urls.iter().map(|url| TopologyBroker {
        label: url.label.clone(),
        amqp_uri: url.amqp.clone(),
        management_url: url.management.url.clone(),
        user: url.management.username.clone(),
        password: url.management.password.expose().to_owned(),
        tls: url.management.tls.clone(),
    });
    TopologyInput {
        cluster_name: settings.cluster_name.clone(),
        queue_type: settings.queue_type,
        command_queues: queues.filter(|q| seen.insert(*q)).cloned().collect(),
        hash: settings.hash_exchange.map(|by| HashInput {
            by,
            queues: weighed(settings),
        }),
        command_max_age: settings.command_max_age,
        brokers: brokers.collect(),
        federation_uris: BTreeMap::new(),
        federation_tls: FederationTls {
            ca_file: settings.broker.federation.ca_file.clone(),
            certificate: settings.broker.federation.certificate.clone(),
        },
    }
}

/// The queues that get a share, in an order that does not depend on how a file is written.
fn weighed(settings: &Settings) -> Vec<(String, u32)> {
    let groups = settings.groups.iter().filter(|group| group.hash_weight > 0);
    let each = groups.flat_map(|group| {
        let queues = group.queues.iter();
        queues.map(|queue| (queue.clone(), group.hash_weight))
    });
    let sorted: BTreeMap<String, u32> = each.collect();
    sorted.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_spread_over_the_queues_that_have_a_weight() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site-1.properties");
        let text = "broker.url.1=localhost\n\
            downstream.url.1=http://localhost:8080\n\
            command.hash-exchange=Header\n\
            command.queue=Zebra\n\
            group.sales.queues=Sales2,Sales1\n\
            group.sales.hash-weight=3\n\
            group.bulk.queues=Bulk\n\
            group.bulk.hash-weight=0\n";
        std::fs::write(&file, text).unwrap();
        let loaded = crate::settings::load(&file, &|_| None).unwrap();
        let hash = topology_input(&loaded.settings).hash.unwrap();
        assert_eq!(hash.by, crate::settings::HashBy::Header);
        let queues: Vec<_> = hash
            .queues
            .iter()
            .map(|(name, n)| (name.as_str(), *n))
            .collect();
        assert_eq!(queues, [("Sales1", 3), ("Sales2", 3), ("Zebra", 1)]);
    }

    #[test]
    fn queues_of_all_groups_and_all_brokers_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site-1.properties");
        let text = "mode=active-active\n\
            cluster.name=blue\n\
            control.key=6b1d9f3e07a84c52b6e8d4013f97ac25\n\
            broker.url.1=10.0.0.1:5672\n\
            broker.url.2=amqp://u:p%40w@10.0.0.2:5673/v\n\
            broker.management-url.2=http://10.0.0.2:15673\n\
            command.max-age=45s\n\
            group.sales.queues=Sales1,Sales2\n\
            federation.ca-file=/etc/rabbitmq/ca.pem\n\
            downstream.url.1=http://10.0.0.3\n";
        std::fs::write(&file, text).unwrap();
        let loaded = crate::settings::load(&file, &|_| None).unwrap();
        let input = topology_input(&loaded.settings);
        assert_eq!(input.cluster_name, "blue");
        assert_eq!(input.command_queues, ["Connector1", "Sales1", "Sales2"]);
        assert_eq!(input.command_max_age.as_secs(), 45);
        assert_eq!(input.hash, None);
        let ca = input.federation_tls.ca_file.as_deref();
        assert_eq!(ca, Some("/etc/rabbitmq/ca.pem"));
        assert_eq!(input.brokers.len(), 2);
        let second = &input.brokers[1];
        assert_eq!(second.label, "10.0.0.2:5673");
        assert_eq!(second.amqp_uri, "amqp://u:p%40w@10.0.0.2:5673/v");
        assert_eq!(second.management_url, "http://10.0.0.2:15673");
    }
}
