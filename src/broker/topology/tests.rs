use super::*;

pub(super) fn input(brokers: usize) -> TopologyInput {
    TopologyInput {
        cluster_name: "tandem".to_owned(),
        queue_type: Default::default(),
        command_queues: vec!["Connector1".to_owned(), "My.Queue".to_owned()],
        hash: None,
        command_max_age: Duration::from_secs(30),
        brokers: (1..=brokers)
            .map(|n| TopologyBroker {
                label: format!("site-{n}"),
                amqp_uri: format!("amqp://host-{n}:5672"),
                management_url: format!("http://host-{n}:15672"),
                user: "tandem".to_owned(),
                password: "pass/word".to_owned(),
                tls: Default::default(),
            })
            .collect(),
        federation_uris: BTreeMap::new(),
        federation_tls: Default::default(),
    }
}

#[test]
fn three_brokers_make_a_full_mesh() {
    let plan = Topology::of(&input(3));
    for (index, broker) in plan.brokers.iter().enumerate() {
        let own = format!("site-{}", index + 1);
        let names: Vec<&str> = broker.upstreams.iter().map(|u| u.name.as_str()).collect();
        assert_eq!(names.len(), 4, "two kinds for each of two other brokers");
        assert!(names.iter().all(|n| !n.ends_with(&own)), "{names:?}");
        // Two command queues, events and replies on `main`, control on its own, twice.
        assert_eq!(broker.links.len(), 10);
    }
}

#[test]
fn an_upstream_is_safe_bounded_and_carries_credentials() {
    let plan = Topology::of(&input(2));
    let main = &plan.brokers[0].upstreams[0];
    assert_eq!(main.name, "tandem.main.site-2");
    assert_eq!(main.value["ack-mode"], "on-confirm");
    assert_eq!(main.value["max-hops"], 1);
    assert_eq!(main.value["reconnect-delay"], 0.5);
    let uri = main.value["uri"].as_str().unwrap();
    assert!(
        uri.starts_with("amqp://tandem:pass%2Fword@host-2:5672/%2F?"),
        "{uri}"
    );
    let control = &plan.brokers[0].upstreams[1];
    assert_eq!(control.name, "tandem.control.site-2");
    assert_eq!(control.value["message-ttl"], 5_000);
}

#[test]
fn the_override_is_used_for_its_pair_only() {
    let mut input = input(2);
    let relay = "amqp://127.0.0.1:7777/%2f".to_owned();
    input.federation_uris.insert((0, 1), relay);
    let plan = Topology::of(&input);
    let uri = |broker: usize| plan.brokers[broker].upstreams[0].value["uri"].to_string();
    assert!(uri(0).contains("@127.0.0.1:7777/%2f"), "{}", uri(0));
    assert!(uri(1).contains("@host-1:5672"), "{}", uri(1));
}

#[test]
fn one_policy_holds_all_that_a_command_queue_needs() {
    let plan = Topology::of(&input(2));
    let policy = &plan.brokers[0].policies[0];
    assert_eq!(policy.value["pattern"], r"^(Connector1|My\.Queue)$");
    let definition = &policy.value["definition"];
    assert_eq!(definition["federation-upstream-set"], "tandem.main");
    assert_eq!(definition["message-ttl"], 30_000);
    assert_eq!(definition["dead-letter-exchange"], "");
    assert_eq!(definition["dead-letter-routing-key"], "tandem.expired");
}

#[test]
fn one_broker_alone_is_not_federated_but_expires_commands() {
    let plan = Topology::of(&input(1));
    let broker = &plan.brokers[0];
    assert!(broker.upstreams.is_empty() && broker.upstream_sets.is_empty());
    assert!(broker.links.is_empty());
    assert_eq!(broker.policies.len(), 1);
    let definition = &broker.policies[0].value["definition"];
    assert!(definition.get("federation-upstream-set").is_none());
    assert_eq!(definition["message-ttl"], 30_000);
}

#[test]
fn every_queue_that_nobody_may_read_is_bounded() {
    for queue in queues("t", &[], QueueType::Classic)
        .into_iter()
        .chain([control_queue("t", "gc-1", "")])
    {
        assert_eq!(queue.arguments["x-queue-type"], "classic");
        assert!(queue.arguments.contains_key("x-max-length"), "{queue:?}");
        assert_eq!(queue.arguments["x-overflow"], "drop-head");
    }
}

#[test]
fn quorum_queues_are_declared_so_and_give_no_command_up() {
    let mut input = input(2);
    input.queue_type = QueueType::Quorum;
    let plan = Topology::of(&input).brokers.remove(0);
    for queue in &plan.queues {
        assert_eq!(queue.arguments["x-queue-type"], "quorum", "{queue:?}");
    }
    let definition = |name: &str| {
        let policy = plan.policies.iter().find(|policy| policy.name == name);
        policy.unwrap().value["definition"].clone()
    };
    let commands = definition("tandem.commands");
    assert_eq!(commands["delivery-limit"], -1);
    assert_eq!(commands["dead-letter-strategy"], "at-least-once");
    assert_eq!(commands["overflow"], "reject-publish");
    assert_eq!(commands["federation-upstream-set"], "tandem.main");
    assert_eq!(definition("tandem.kept"), json!({"delivery-limit": -1}));
    // Not an argument: an older broker would take any, a newer one only the same again.
    assert!(plan.queues.iter().all(|queue| {
        !queue
            .arguments
            .keys()
            .any(|key| key.contains("disconnected"))
    }));
    let on_a_node = control_queue("tandem", "gc-1", "host-a:5672");
    assert_eq!(on_a_node.name, "tandem.control.gc-1.host-a:5672");
    assert_eq!(on_a_node.arguments["x-expires"], 600_000);
    // Peers' messages are for the moment: their queues are not replicated.
    let control = control_queue("tandem", "gc-1", "");
    assert_eq!(control.arguments["x-queue-type"], "classic");
}

#[test]
fn a_policy_has_what_the_brokers_version_knows_and_no_more() {
    let timeouts = |kind, version: &str| -> Vec<(String, Value)> {
        let mut input = input(2);
        input.queue_type = kind;
        let plan = Topology::of(&input).brokers.remove(0).on(version);
        assert!(!plan.depends_on_version());
        let policies = plan.policies.iter();
        policies
            .map(|one| {
                (
                    one,
                    &one.value["definition"]["consumer-disconnected-timeout"],
                )
            })
            .filter(|(_, value)| !value.is_null())
            .map(|(one, value)| (one.name.clone(), value.clone()))
            .collect()
    };
    let both = [("tandem.kept", 500), ("tandem.commands", 500)]
        .map(|(name, value)| (name.to_owned(), json!(value)));
    for new in ["4.3.6", "4.10.0", "5.0.0"] {
        assert_eq!(timeouts(QueueType::Quorum, new), both, "{new}");
        assert_eq!(timeouts(QueueType::Classic, new), [], "{new}");
    }
    for old in ["4.2.9", "3.10.8", "4.0.5", "4", "?", ""] {
        assert_eq!(timeouts(QueueType::Quorum, old), [], "{old}");
    }
    let mut input = input(1);
    assert!(!Topology::of(&input).to_text().contains("4.3"));
    input.queue_type = QueueType::Quorum;
    let text = Topology::of(&input).to_text();
    let said = "on RabbitMQ 4.3 and later also consumer-disconnected-timeout=500";
    assert_eq!(text.matches(said).count(), 2, "{text}");
}

#[test]
fn a_cluster_is_reached_by_all_its_nodes() {
    let mut input = input(2);
    input.brokers[1].amqp_uri = "amqps://a,b:5673/v".to_owned();
    let plan = Topology::of(&input);
    let uris = &plan.brokers[0].upstreams[0].value["uri"];
    let text = |at: usize| uris[at].as_str().unwrap_or_default();
    assert!(
        text(0).starts_with("amqps://tandem:pass%2Fword@a/v?"),
        "{uris}"
    );
    assert!(
        text(1).starts_with("amqps://tandem:pass%2Fword@b:5673/v?"),
        "{uris}"
    );
    assert_eq!(plan.brokers[1].vhost, "v");
}

#[test]
fn no_password_is_printed() {
    let mut input = input(2);
    input.brokers[1].amqp_uri = "amqp://u:hidden@host-2:5672/v".to_owned();
    let plan = Topology::of(&input);
    let texts = [
        plan.to_text(),
        plan.to_json().to_string(),
        format!("{plan:?}"),
        format!("{input:?}"),
    ];
    for text in texts {
        assert!(!text.contains("hidden"), "{text}");
        assert!(!text.contains("pass/word"), "{text}");
        assert!(!text.contains("pass%2Fword"), "{text}");
        assert!(text.contains("host-2"), "{text}");
    }
}
