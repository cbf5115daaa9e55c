//! From an instance's settings to what its topology follows from.

use std::collections::{BTreeMap, BTreeSet};

use super::{FederationTls, TopologyBroker, TopologyInput};
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
        command_max_age: settings.command_max_age,
        brokers: brokers.collect(),
        federation_uris: BTreeMap::new(),
        federation_tls: FederationTls {
            ca_file: settings.broker.federation.ca_file.clone(),
            certificate: settings.broker.federation.certificate.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let ca = input.federation_tls.ca_file.as_deref();
        assert_eq!(ca, Some("/etc/rabbitmq/ca.pem"));
        assert_eq!(input.brokers.len(), 2);
        let second = &input.brokers[1];
        assert_eq!(second.label, "10.0.0.2:5673");
        assert_eq!(second.amqp_uri, "amqp://u:p%40w@10.0.0.2:5673/v");
        assert_eq!(second.management_url, "http://10.0.0.2:15673");
    }
}
