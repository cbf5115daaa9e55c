//! Two files together.

use super::*;

fn pair(first: &str, second: &str) -> Vec<String> {
    let base = format!(
        "broker.url.1=localhost:1\nbroker.url.2=localhost:2\ndownstream.url.1=https://h/finesse/api\ncontrol.key={KEY}\n"
    );
    let one = load_with(
        &format!("{base}instance.id=gc-1\nconsumer.priority=127\n{first}"),
        &[],
    )
    .unwrap();
    let second = if second.contains("broker.url") {
        base.lines().skip(2).collect::<Vec<_>>().join("\n") + "\n" + second
    } else {
        base + second
    };
    let id = if second.contains("instance.id") {
        ""
    } else {
        "instance.id=gc-2\n"
    };
    let priority = if second.contains("consumer.priority") {
        ""
    } else {
        "consumer.priority=100\n"
    };
    let two = load_with(&format!("{second}{id}{priority}"), &[]).unwrap();
    check_pair(&[one, two])
        .0
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn pairs_that_contradict_each_other() {
    assert_eq!(pair("", ""), [""; 0]);
    for (first, second, needle) in [
        (
            "",
            "instance.id=gc-1\n",
            "error: instance.id: two instances have the same id",
        ),
        (
            "",
            "consumer.priority=127\n",
            "warning: consumer.priority: equal priorities",
        ),
        (
            "",
            "cluster.name=other\n",
            "error: cluster.name: it differs: tandem in",
        ),
        (
            "rest.listen=127.0.0.1:8112\nrest.callback.allow.1=https://crm.example\n",
            "rest.listen=127.0.0.1:8112\n",
            "warning: rest.callback.allow.1: events may not be posted to the same places: https://crm.example in",
        ),
        (
            "rest.listen=127.0.0.1:8112\nrest.callback.allow.1=https://crm.example\nrest.callback.sign-key=0123456789abcdef0123456789abcdef\n",
            "rest.listen=127.0.0.1:8112\nrest.callback.allow.1=https://crm.example\n",
            "warning: rest.callback.sign-key: ",
        ),
        (
            "",
            "queue.type=quorum\n",
            "error: queue.type: it differs: classic in",
        ),
        (
            "",
            "broker.url.1=localhost:1,localhost:3\nbroker.url.2=localhost:2\n",
            "error: broker.url.N: one broker is listed with different addresses: localhost:1 in",
        ),
        (
            "group.a.queues=A\ncommand.hash-exchange=header\n",
            "group.a.queues=A\n",
            "error: command.hash-exchange: it differs: header in",
        ),
        (
            "group.a.queues=A\ncommand.hash-exchange=header\n",
            "group.a.queues=A\ncommand.hash-exchange=header\ngroup.a.hash-weight=2\n",
            "error: group.a.hash-weight: it differs: 1 in",
        ),
        ("", "mode=active-active\n", "error: mode"),
        ("peer.lost=4s\n", "", "error: peer.lost: it differs: 4s in"),
        ("", "command.max-age=10s\n", "error: command.max-age"),
        ("", "takeback.hold=1s\n", "warning: takeback.hold"),
        ("", "message.format=default\n", "error: message.format"),
        (
            "group.a.queues=A\n",
            "group.b.queues=A\n",
            "the groups differ: a, agents in",
        ),
        (
            "group.a.queues=A\n",
            "group.a.queues=B\n",
            "error: group.a.queues: the queues differ",
        ),
        (
            "group.a.queues=A\ngroup.a.priority=100\n",
            "group.a.queues=A\n",
            "warning: group.a.priority: equal priorities",
        ),
        ("", "command.queue=C2\n", "error: command.queue"),
        (
            "",
            "broker.url.1=localhost:2\nbroker.url.2=localhost:1\n",
            "different orders in active-passive",
        ),
        (
            "",
            "broker.url.1=localhost:1\nbroker.url.2=localhost:3\n",
            "different brokers",
        ),
        (
            "",
            "broker.url.1=localhost:1\nbroker.url.2=amqp://localhost:2/v\n",
            "error: broker.url.N: broker localhost:2 is meant in two ways",
        ),
        (
            "downstream.url.2=https://i/finesse/api\n",
            "",
            "warning: downstream.url.N",
        ),
    ] {
        let all = pair(first, second);
        assert_eq!(all.len(), 1, "{first}{second}{all:#?}");
        assert!(all[0].contains(needle), "{all:#?}");
    }
    let both = "mode=active-active\n";
    assert!(pair(both, both)[0].contains("both prefer the same broker"));
    assert_eq!(
        pair(
            both,
            "mode=active-active\nbroker.url.1=localhost:2\nbroker.url.2=localhost:1\n"
        ),
        [""; 0]
    );
}

#[test]
fn control_keys_of_a_pair() {
    let check = |first: &str, second: &str| {
        let one = load_with(&format!("{LEAST}{first}"), &[]).unwrap();
        let two = load_with(
            &format!(
                "{}consumer.priority=1\n{second}",
                LEAST.replace("gc-1", "gc-2")
            ),
            &[],
        )
        .unwrap();
        check_pair(&[one, two])
            .0
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let (old, new) = (KEY, "ffffffffffffffffffffffffffffffff");
    assert!(check("", "").starts_with("warning: control.key: neither"));
    assert!(check(&format!("control.key={old}\n"), "").starts_with("error: control.key"));
    let differ = check(
        &format!("control.key={old}\n"),
        &format!("control.key={new}\n"),
    );
    assert!(
        differ.starts_with("error: control.key: it differs") && !differ.contains("ffff"),
        "{differ}"
    );
    let rotating = check(
        &format!("control.key={old}\n"),
        &format!("control.key={new}\ncontrol.previous-key={old}\n"),
    );
    assert!(rotating.starts_with("warning: control.key"), "{rotating}");
}

#[test]
fn the_nodes_of_a_broker_may_stand_in_any_order() {
    let base = |urls: &str| {
        let text = format!(
            "broker.url.1={urls}\ndownstream.url.1=https://h/finesse/api\ncontrol.key={KEY}\n"
        );
        text
    };
    let one = "instance.id=gc-1\nconsumer.priority=127\n";
    let two = "instance.id=gc-2\nconsumer.priority=100\n";
    let one = load_with(&format!("{}{one}", base("localhost:1,localhost:2")), &[]).unwrap();
    let two = load_with(&format!("{}{two}", base("localhost:2,localhost:1")), &[]).unwrap();
    let (first, second) = (&one.settings.broker.urls[0], &two.settings.broker.urls[0]);
    assert_eq!(first.label, second.label);
    assert_ne!(first.amqp, second.amqp);
    let found = check_pair(&[one, two]).0;
    assert!(found.is_empty(), "{found:?}");
}
