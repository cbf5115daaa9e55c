//! The exchange that spreads agents over the groups' command queues: set on real brokers, told where
//! their plug-in is missing, and used by clients of two instances that lead a group each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::AMQPValue;
use serde_json::json;
use support::pair::tandem;
use support::wire::{command, with_header};
use support::{LIMIT, Pair, PairOptions, Shared, Wire, run, until};
use tandem::broker::topology::{self, Change, HashInput, Topology, TopologyInput};
use tandem::model::brokers::{HASH_HEADER, HashBy};

const PLUGIN: &str = "rabbitmq_consistent_hash_exchange";
/// Nothing expires while a test looks at it.
const MAX_AGE: Duration = Duration::from_secs(600);
const AGENTS: std::ops::Range<u32> = 1001..1025;

#[test]
fn agents_are_spread_over_groups_and_each_stays_with_its_queue() {
    run(async |shared| {
        let options = PairOptions {
            queues: vec!["Batch-{cluster}"],
            ..PairOptions::default()
        };
        let options = options
            .set("command.hash-exchange", "routing-key")
            .set("group.batch.queues", "Batch-{cluster}")
            .set_own(0, "group.batch.priority", "90")
            .set_own(1, "group.batch.priority", "120");
        let mut pair = shared.pair(options).await;
        the_command_that_enables_the_plug_in_is_named(&pair).await;
        for node in shared.network_as_it_is().nodes() {
            node.enable(PLUGIN).await.unwrap();
        }
        for end in ["done", "nothing to do"] {
            let (code, text) = tandem_of(&pair, &["topology", "apply"]).await;
            assert!(
                code == 0 && text.lines().any(|line| line == end),
                "{code} {text}"
            );
        }
        let (code, text) = tandem_of(&pair, &["check", "--online"]).await;
        assert!(code == 0 && !text.contains(PLUGIN), "{code} {text}");
        two_instances_serve_what_is_spread(&pair).await;
        letters_go_back_to_the_queue_they_came_from(&mut pair).await;
        drop(pair);
        one_ring_on_all_brokers(shared).await;
    });
}

/// A command with the pair's first file.
async fn tandem_of(pair: &Pair, words: &[&str]) -> (i32, String) {
    let config = pair.gc1.config.display().to_string();
    let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    if words[0] != "check" {
        all.push("--config".to_owned());
    }
    all.push(config);
    tandem(all).await
}

async fn the_command_that_enables_the_plug_in_is_named(pair: &Pair) {
    for words in [&["topology", "apply"][..], &["check", "--online"]] {
        let (code, text) = tandem_of(pair, words).await;
        assert_eq!(code, 1, "{text}");
        let cure = format!("rabbitmq-plugins enable {PLUGIN}");
        assert!(text.contains(&cure), "{words:?}: {text}");
    }
    let path = format!("exchanges/%2F/{}.commands", pair.cluster);
    assert!(pair.manage(0).get(&path).await.unwrap().is_none());
}

async fn each_leads_one(pair: &Pair) {
    until("each leads one group", async || {
        let first = (pair.gc1.role_in(0).await, pair.gc1.role_in(1).await);
        let second = (pair.gc2.role_in(0).await, pair.gc2.role_in(1).await);
        let roles = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        first == roles("leader", "follower") && second == roles("follower", "leader")
    })
    .await;
}

/// Publishes a command for each agent through the exchange, and waits for the replies: by agent the
/// instances that answered, one an answer.
async fn asked(wire: &Wire, pair: &Pair, what: &str, round: u32) -> BTreeMap<u32, Vec<String>> {
    let answers = wire.exclusive_queue().await;
    let exchange = format!("{}.commands", pair.cluster);
    for agent in AGENTS {
        let body = match what {
            "Connect" => format!("client-{agent},pw-{agent}"),
            _ => String::new(),
        };
        let properties = command(
            &format!("{what}#{agent}"),
            &format!("{what}-{agent}-{round}"),
        )
        .with_reply_to(answers.as_str().into());
        let key = agent.to_string();
        wire.publish_through((&exchange, &key), properties, body.as_bytes())
            .await;
    }
    let mut by_agent: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for _ in AGENTS {
        let reply = wire.next(&answers).await.json();
        let done = [json!("OK"), json!("ACCEPTED")].contains(&reply["outcome"]);
        assert!(done, "{reply}");
        let agent = reply["id"].as_str().unwrap().parse().unwrap();
        let instance = reply["instance"].as_str().unwrap().to_owned();
        by_agent.entry(agent).or_default().push(instance);
    }
    assert!(
        wire.take(&answers).await.is_none(),
        "{what}: one more answer"
    );
    by_agent
}

async fn two_instances_serve_what_is_spread(pair: &Pair) {
    each_leads_one(pair).await;
    let mut wire = Wire::open(pair, 0).await;
    let connected = asked(&wire, pair, "Connect", 0).await;
    assert_eq!(connected.len(), AGENTS.count(), "{connected:?}");
    let instances: BTreeSet<&String> = connected.values().flatten().collect();
    assert_eq!(instances.len(), 2, "{connected:?}");
    for round in 1..=3 {
        let served = asked(&wire, pair, "GetState", round).await;
        assert_eq!(served, connected, "each once, by the instance of its group");
    }
    // The letter of what nobody understands says which queue it came from.
    let exchange = format!("{}.commands", pair.cluster);
    let batch = format!("Batch-{}", pair.cluster);
    for agent in AGENTS.take(8) {
        let id = format!("mystery-{agent}");
        let properties = command(&format!("Nonsense#{agent}"), &id);
        wire.publish_through((&exchange, &agent.to_string()), properties, b"")
            .await;
        let letter = wire.dead_letter(&id).await;
        let from = if connected[&agent] == ["gc-2"] {
            batch.as_str()
        } else {
            ""
        };
        assert_eq!(letter.queue, from, "{letter:?}");
    }
}

/// Nobody consumes, so that what is sent again can be seen in its queue.
async fn letters_go_back_to_the_queue_they_came_from(pair: &mut Pair) {
    pair.gc1.kill();
    pair.gc2.kill();
    let wire = Wire::open(pair, 0).await;
    let batch = format!("Batch-{}", pair.cluster);
    let letters = format!("{}.dead-letter", pair.cluster);
    let control = format!("{}.control", pair.cluster);
    for (id, header, from) in [
        ("ours", "x-original-queue", batch.as_str()),
        ("the-brokers", "x-first-death-queue", &batch),
        ("usual", "x-detail", "none"),
        ("strange", "x-original-queue", &control),
    ] {
        let properties = command("MakeReady#1001", id);
        let from = AMQPValue::LongString(from.into());
        wire.publish_to(&letters, with_header(properties, header, from), b"")
            .await;
    }
    let requeue = ["deadletter", "requeue", "--yes"];
    let (code, text) = tandem_of(pair, &[&requeue[..], &["strange"]].concat()).await;
    assert!(code == 1 && text.contains("--queue"), "{code} {text}");
    for (id, queue) in [
        ("ours", &batch),
        ("the-brokers", &batch),
        ("usual", &pair.queue),
    ] {
        let (code, text) = tandem_of(pair, &[&requeue[..], &[id]].concat()).await;
        assert_eq!(code, 0, "{text}");
        assert_eq!(wire.next(queue).await.message_id, id);
    }
    let told = ["strange", "--queue", &pair.queue];
    let (code, text) = tandem_of(pair, &[&requeue[..], &told].concat()).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(wire.next(&pair.queue).await.message_id, "strange");
}

/// Which queue each agent's commands go to, published at one broker. Nobody consumes there.
async fn ring(
    uri: &str,
    exchange: &str,
    by: HashBy,
    queues: &[(String, u32)],
) -> BTreeMap<u32, String> {
    let wire = Wire::of(uri, "none", "none").await;
    for round in 0..3 {
        for agent in AGENTS {
            let id = agent.to_string();
            let mut properties = BasicProperties::default().with_message_id(id.as_str().into());
            let key = match by {
                HashBy::RoutingKey => id,
                HashBy::Header => {
                    let value = AMQPValue::LongString(id.into());
                    properties = with_header(properties, HASH_HEADER, value);
                    format!("anything-{round}")
                }
            };
            wire.publish_through((exchange, &key), properties, b"")
                .await;
        }
    }
    let mut taken: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (queue, _) in queues {
        while let Some(letter) = wire.take(queue).await {
            let agent = letter.message_id.parse().unwrap();
            taken.entry(agent).or_default().push(queue.clone());
        }
    }
    let one = |(agent, mut all): (u32, Vec<String>)| {
        assert_eq!(all.len(), 3, "{agent}: {all:?}");
        all.dedup();
        assert_eq!(all.len(), 1, "{agent}: {all:?}");
        (agent, all.remove(0))
    };
    taken.into_iter().map(one).collect()
}

async fn one_ring_on_all_brokers(shared: &mut Shared) {
    let network = shared.network_as_it_is();
    let uris = network.uris_from(0);
    let input = |cluster: &str, by| {
        let names = [1, 2, 3].map(|n| format!("{cluster}-{n}"));
        let mut input =
            network.topology_input(cluster, &names.each_ref().map(String::as_str), MAX_AGE);
        let weights = names.into_iter().zip([1, 1, 2]).collect();
        input.hash = Some(HashInput {
            by,
            queues: weights,
        });
        input
    };
    let (by_key, by_header) = (
        input("ring", HashBy::RoutingKey),
        input("hring", HashBy::Header),
    );
    let other = input("other", HashBy::RoutingKey);
    let mut rings = Vec::new();
    for input in [&by_key, &by_header] {
        let report = topology::apply(&Topology::of(input), Some(LIMIT)).await;
        assert!(report.is_complete(), "{report:#?}");
        let hash = input.hash.as_ref().unwrap();
        let exchange = format!("{}.commands", input.cluster_name);
        for uri in &uris {
            let ring = ring(uri, &exchange, hash.by, &hash.queues).await;
            let used: BTreeSet<&String> = ring.values().collect();
            assert_eq!((ring.len(), used.len()), (AGENTS.count(), 3), "{ring:?}");
            rings.push(ring);
        }
    }
    assert_eq!(rings[0], rings[1], "the same at both brokers");
    assert_eq!(rings[2], rings[3], "the same at both brokers");
    what_is_bound_otherwise_is_told(
        &by_key,
        &shared.network_as_it_is().nodes()[0].management().unwrap(),
    )
    .await;
    nothing_is_bound_to_anothers_exchange(
        &other,
        &shared.network_as_it_is().nodes()[0].management().unwrap(),
    )
    .await;
    let node = shared.broker(0);
    node.stop().await;
    node.start_again().await.unwrap();
    let queues = &by_key.hash.as_ref().unwrap().queues;
    let after = ring(&uris[0], "ring.commands", HashBy::RoutingKey, queues).await;
    assert_eq!(after, rings[0], "the same after a restart");
}

/// An exchange of that name that is of another type, or tells agents apart by something else.
async fn nothing_is_bound_to_anothers_exchange(
    input: &TopologyInput,
    api: &tandem::broker::management::ManagementClient,
) {
    let path = "exchanges/%2F/other.commands";
    for theirs in [
        json!({"type": "topic", "durable": true}),
        json!({"type": "x-consistent-hash", "durable": true, "arguments": {"hash-header": "x-agent"}}),
    ] {
        api.put(path, &theirs).await.unwrap();
        let report = topology::apply(&Topology::of(input), None).await;
        let said = report
            .steps
            .iter()
            .find(|step| step.name == "other.commands");
        let said = said.unwrap().change.to_string();
        assert!(said.starts_with("CONFLICT: "), "{said}");
        assert!(said.contains("delete it, then run"), "{said}");
        let bound = api.get(&format!("{path}/bindings/source")).await.unwrap();
        assert_eq!(bound, Some(json!([])), "{report:#?}");
        assert!(api.delete(path).await.unwrap());
    }
    let report = topology::apply(&Topology::of(input), Some(LIMIT)).await;
    assert!(report.is_complete(), "{report:#?}");
}

/// Another weight, and a queue of nobody's.
async fn what_is_bound_otherwise_is_told(
    input: &TopologyInput,
    api: &tandem::broker::management::ManagementClient,
) {
    let mut heavier = input.clone();
    heavier.hash.as_mut().unwrap().queues[0].1 = 7;
    let stray = json!({"routing_key": "5", "arguments": {}});
    let path = "bindings/%2F/e/ring.commands/q/hring-1";
    api.post(path, &stray).await.unwrap();
    let plan = Topology::of(&heavier);
    let report = topology::apply(&plan, None).await;
    let conflicts: Vec<(&str, String)> = report
        .steps
        .iter()
        .filter(|step| matches!(step.change, Change::Conflict(_)))
        .map(|step| (step.name.as_str(), step.change.to_string()))
        .collect();
    let of = |name: &str| conflicts.iter().filter(|(step, _)| *step == name).count();
    assert_eq!(of("ring.commands to ring-1"), 2, "{conflicts:#?}");
    assert_eq!(of("ring.commands to hring-1"), 1, "{conflicts:#?}");
    assert!(
        conflicts.iter().any(|(_, why)| why.contains("weight")),
        "{conflicts:#?}"
    );
    let found = topology::missing(&plan.brokers[0]).await.unwrap();
    let objects: Vec<&str> = found.iter().map(|found| found.object.as_str()).collect();
    assert_eq!(
        objects,
        [
            "binding ring.commands to ring-1",
            "binding ring.commands to hring-1"
        ],
        "{found:#?}"
    );
    assert!(api.delete(&format!("{path}/5")).await.unwrap());
    let plan = Topology::of(input);
    assert_eq!(
        topology::missing(&plan.brokers[0]).await.unwrap(),
        Vec::new()
    );
}
