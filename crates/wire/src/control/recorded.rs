//! What other versions write is read: one recorded message a kind and version lies in
//! `tests/data/control`. See docs/testing.md on how a version is recorded.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::message::RawMessage;
use crate::model::BootId;
use crate::model::{AgentId, Destination, InstanceId, Mobile, Secret, Team, User};
use crate::peer::standing::{BrokerStanding, ChoiceStanding, GroupStanding, NodeStanding};
use crate::peer::{
    Choice, ForwardRefusal, GroupState, Heartbeat, IntentRecord, IntentRefusal, OutcomeRecord,
    PeerMessage, Role, SessionRecord, Standing, TraceRow, Version, Wish,
};
use crate::reply::{Outcome, Reply, ReplyError};

const AT: u64 = 1_790_000_000_000;
const KEY: [u8; 16] = [17, 4, 250, 9, 88, 31, 0, 255, 63, 7, 140, 2, 71, 19, 5, 201];

/// Number of a kind. A new one gets a new number here, a sample below and a recorded message.
fn number(message: &PeerMessage) -> usize {
    match message {
        PeerMessage::Heartbeat(_) => 0,
        PeerMessage::Hello => 1,
        PeerMessage::Snapshot { .. } => 2,
        PeerMessage::Delta { .. } => 3,
        PeerMessage::Journal { .. } => 4,
        PeerMessage::JournalAck { .. } => 5,
        PeerMessage::Claim { .. } => 6,
        PeerMessage::Grant { .. } => 7,
        PeerMessage::ClaimAgent { .. } => 8,
        PeerMessage::GrantAgent { .. } => 9,
        PeerMessage::RefuseAgent { .. } => 10,
        PeerMessage::Forward { .. } => 11,
        PeerMessage::ForwardDone { .. } => 12,
        PeerMessage::ForwardRefused { .. } => 13,
        PeerMessage::ForwardWithdrawn { .. } => 14,
        PeerMessage::Goodbye => 15,
        PeerMessage::Share { .. } => 16,
        PeerMessage::Shared { .. } => 17,
        PeerMessage::SessionChanged { .. } => 18,
        PeerMessage::TraceAsk { .. } => 19,
        PeerMessage::TraceAnswer { .. } => 20,
        PeerMessage::Unknown => usize::MAX,
    }
}

const KINDS: usize = 21;

fn samples() -> Vec<PeerMessage> {
    vec![
        PeerMessage::Heartbeat(heartbeat()),
        PeerMessage::Hello,
        PeerMessage::Snapshot {
            part: 0,
            parts: 2,
            sessions: vec![session("1001"), ended("1002")],
            destinations: vec![destination("crm-1"), destination("crm-2")],
        },
        PeerMessage::Delta {
            sessions: vec![session("1001")],
            destinations: vec![destination("crm-3")],
            outcomes: vec![accepted(), failed()],
        },
        PeerMessage::Journal {
            intents: vec![intent()],
            outcomes: vec![accepted()],
            withdrawn: vec![[3; 16]],
            withdrawn_made: Vec::new(),
            history: true,
        },
        PeerMessage::JournalAck {
            intents: vec![KEY],
            made: vec![7],
            outcomes: vec![[2; 16]],
            unkept: Vec::new(),
            refused: vec![
                ([3; 16], IntentRefusal::Stale),
                ([4; 16], IntentRefusal::Known),
            ],
        },
        PeerMessage::Claim {
            group: "agents".into(),
            term: 8,
        },
        PeerMessage::Grant {
            group: "agents".into(),
            term: 8,
        },
        PeerMessage::ClaimAgent {
            agent: agent("1001"),
        },
        PeerMessage::GrantAgent {
            record: session("1001"),
        },
        PeerMessage::RefuseAgent {
            agent: agent("1001"),
        },
        PeerMessage::Forward {
            id: 41,
            raw: command(),
        },
        PeerMessage::ForwardDone { id: 41 },
        PeerMessage::ForwardRefused {
            id: 42,
            why: ForwardRefusal::NotOwner,
        },
        PeerMessage::ForwardWithdrawn { id: 43 },
        PeerMessage::Goodbye,
        PeerMessage::Share {
            number: 44,
            sessions: vec![session("1001"), ended("1002")],
        },
        PeerMessage::Shared { number: 44 },
        PeerMessage::SessionChanged {
            record: session("1001"),
        },
        PeerMessage::TraceAsk {
            number: 45,
            id: "crm-1-000017".into(),
        },
        PeerMessage::TraceAnswer {
            number: 45,
            rows: vec![stage()],
        },
    ]
}

fn stage() -> TraceRow {
    TraceRow {
        at: Some(AT),
        instance: "gc-1".into(),
        command: "MakeCall".into(),
        addressee: "1001".into(),
        command_id: Some("crm-1-000017".into()),
        correlation_id: Some("17".into()),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        stage: "received".into(),
        detail: "broker a:5672, queue of agents".into(),
    }
}

fn agent(text: &str) -> AgentId {
    AgentId::new(text).unwrap()
}

fn instance(text: &str) -> InstanceId {
    InstanceId::new(text).unwrap()
}

fn destination(text: &str) -> Destination {
    Destination::new(text).unwrap()
}

fn session(name: &str) -> SessionRecord {
    SessionRecord {
        agent: agent(name),
        version: Version {
            epoch: 12,
            rank: Version::LOCAL + 2,
            owner: instance("gc-1"),
            counter: 5,
        },
        destination: destination("crm-1"),
        extension: Some("5001".into()),
        // Sealed a second time where it travels: Base64. This one is made up.
        password: Secret::new("bWFkZSB1cCwgbm90IGEgc2VjcmV0"),
        mobile: Some(Mobile {
            mode: "CALL_BY_CALL".into(),
            dial_number: "0301234567".into(),
        }),
        watched: vec!["5".into()],
        signed_in: true,
        user: Some(Box::new(User {
            login_id: name.into(),
            login_name: "jsmith".into(),
            first_name: "John".into(),
            last_name: "Smith".into(),
            extension: "5001".into(),
            state: "NOT_READY".into(),
            reason_code_id: "12".into(),
            reason_label: "Lunch".into(),
            state_change_time: "2026-09-21T14:13:20.000Z".into(),
            supervisor: true,
            wrap_up_on_incoming: "OPTIONAL".into(),
            team: team("5", "Sales"),
            teams: vec![team("5", "Sales"), team("6", "Service")],
            media_type: "1".into(),
            ..User::default()
        })),
        tombstone: false,
        group: "agents".into(),
        newest_change: None,
        node: None,
    }
}

fn ended(name: &str) -> SessionRecord {
    SessionRecord {
        extension: None,
        password: Secret::new(""),
        mobile: None,
        watched: Vec::new(),
        signed_in: false,
        user: None,
        tombstone: true,
        group: String::new(),
        newest_change: None,
        node: None,
        ..session(name)
    }
}

fn team(id: &str, name: &str) -> Team {
    Team {
        id: id.into(),
        name: name.into(),
    }
}

fn accepted() -> OutcomeRecord {
    OutcomeRecord {
        resolved: false,
        key: KEY,
        body: [1, 2, 3, 4, 5, 6, 7, 8],
        until: AT + 600_000,
        reply: Reply {
            command: "MakeCall".into(),
            id: "1001".into(),
            outcome: Outcome::Accepted,
            status: Some(202),
            instance: "gc-1".into(),
            downstream: Some("finesse-1.example".into()),
            error: None,
            retry_after_ms: None,
            body: None,
        },
    }
}

fn failed() -> OutcomeRecord {
    let mut record = accepted();
    record.key = [2; 16];
    record.reply.outcome = Outcome::Failed;
    record.reply.status = Some(400);
    record.reply.error = Some(ReplyError {
        code: "CF_INVALID_OBJECT_STATE".into(),
        message: "The call is not in a state that allows this".into(),
    });
    record
}

fn intent() -> IntentRecord {
    IntentRecord {
        key: KEY,
        body: [1, 2, 3, 4, 5, 6, 7, 8],
        until: AT + 600_000,
        agent: agent("1001"),
        command: "MakeCall".into(),
        epoch: 12,
        by: instance("gc-1"),
        boot: BootId(0x5151_c0de_5151_c0de),
        at: AT,
        alone: true,
    }
}

fn command() -> RawMessage {
    RawMessage {
        kind: Some("MakeCall#1001".into()),
        body: Bytes::from_static(b"5002"),
        content_type: Some("text/plain".into()),
        message_id: Some("crm-1-000017".into()),
        correlation_id: Some("17".into()),
        reply_to: Some("crm-1".into()),
        timestamp: Some(AT / 1_000),
        expiration: Some(30_000),
        deadline: Some(AT.cast_signed() + 30_000),
        attempt: Some(2),
        // Recorded versions have none.
        trace: None,
        redelivered: true,
        relayed: true,
        redelivered_upstream: true,
        visit_count: Some(1),
        looped: false,
        put_aside: None,
        cut: None,
        unreadable: None,
        group: Some("agents".into()),
        // Recorded versions have none.
        queue: None,
    }
}

fn heartbeat() -> Heartbeat {
    let choice = Choice {
        counter: 3,
        by: instance("gc-2"),
        at: AT,
        wish: Wish::Leader {
            instance: instance("gc-1"),
        },
    };
    Heartbeat {
        seq: 814,
        site: "site-a".into(),
        version: "0.1.0".into(),
        mode: "active-passive".into(),
        started: AT - 3_600_000,
        former: 0,
        groups: vec![GroupState {
            name: "agents".into(),
            role: Role::Leader,
            priority: 2,
            term: 7,
            eligible: true,
            leaving: true,
            choice: Some(choice),
        }],
        broker: "rabbit-1.example:5672".into(),
        owned: 120,
        total: 240,
        digest: 0,
        echo: vec![(instance("gc-2"), BootId(99), 812, 140)],
        journal: true,
        shares: true,
        settled: vec![instance("gc-2")],
        standing: standing(),
        control_node: String::new(),
    }
}

fn standing() -> Standing {
    Standing {
        brokers: vec![BrokerStanding {
            url: "rabbit-1.example:5672".into(),
            state: "connected".into(),
            attached: true,
            preferred: true,
            ..BrokerStanding::default()
        }],
        downstreams: vec![NodeStanding {
            url: "finesse-2.example".into(),
            state: "down".into(),
            current: false,
            reason: Some("out of service".into()),
            ..NodeStanding::default()
        }],
        groups: vec![GroupStanding {
            name: "agents".into(),
            role: Role::Leader,
            queue: "agents".into(),
            priority: Some(2),
            tag: Some("gc-1.leader".into()),
            broker: Some("rabbit-1.example:5672".into()),
            consuming: true,
            term: 7,
            leader: Some("gc-1".into()),
            reason: "chosen by an operator".into(),
            choice: Some(ChoiceStanding {
                wish: "leader".into(),
                instance: Some("gc-1".into()),
                by: "gc-2".into(),
                at: AT,
            }),
        }],
        page: String::new(),
        in_service: true,
        inflight: 3,
        outbox: 1,
        subscribed: 120,
        finished: 9_001,
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/control")
}

/// Name of this version's folder.
fn ours() -> String {
    let (major, minor) = (
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
    );
    format!("v{major}.{minor}")
}

/// All recorded messages, by version and kind.
fn recorded() -> BTreeMap<(String, String), Value> {
    let mut all = BTreeMap::new();
    for version in std::fs::read_dir(folder()).unwrap() {
        let version = version.unwrap();
        for file in std::fs::read_dir(version.path()).unwrap() {
            let path = file.unwrap().path();
            let kind = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let name = version.file_name().into_string().unwrap();
            all.insert((name, kind), serde_json::from_str(&text).unwrap());
        }
    }
    all
}

fn read(value: &Value) -> PeerMessage {
    serde_json::from_slice(&serde_json::to_vec(value).unwrap())
        .unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// The v0.1 message of a kind after `change`.
fn changed(kind: &str, change: impl FnOnce(&mut Value)) -> PeerMessage {
    let mut value = recorded()[&("v0.1".to_owned(), kind.to_owned())].clone();
    change(&mut value);
    read(&value)
}

/// Whether all that `before` says stands in `after` too.
fn covers(after: &Value, before: &Value) -> bool {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => before
            .iter()
            .all(|(key, value)| after.get(key).is_some_and(|after| covers(after, value))),
        (Value::Array(after), Value::Array(before)) => {
            after.len() == before.len()
                && after
                    .iter()
                    .zip(before)
                    .all(|(after, before)| covers(after, before))
        }
        (after, before) => after == before,
    }
}

/// Puts a field that nobody knows into every object.
fn add_everywhere(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(add_everywhere);
            fields.insert("fromTheFuture".into(), json!({"a": [1, null, "x"]}));
        }
        Value::Array(items) => items.iter_mut().for_each(add_everywhere),
        _ => {}
    }
}

/// Takes fields away, wherever they stand.
fn drop_everywhere(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !names.contains(&key.as_str()));
            fields
                .values_mut()
                .for_each(|value| drop_everywhere(value, names));
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| drop_everywhere(item, names)),
        _ => {}
    }
}

/// With `TANDEM_RECORD_CONTROL` set, writes what this version has not recorded yet. What lies
/// there is never changed: others run that version.
#[test]
fn this_version_has_a_recorded_message_of_every_kind() {
    let samples = samples();
    let numbers: Vec<usize> = samples.iter().map(number).collect();
    assert_eq!(numbers, (0..KINDS).collect::<Vec<_>>());
    let folder = folder().join(ours());
    for sample in &samples {
        let path = folder.join(format!("{}.json", sample.name()));
        if !path.exists() && std::env::var_os("TANDEM_RECORD_CONTROL").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            let text = serde_json::to_string_pretty(sample).unwrap();
            std::fs::write(&path, text + "\n").unwrap();
        }
        assert!(path.exists(), "not recorded: {}", path.display());
    }
}

#[test]
fn every_recorded_message_is_read_and_nothing_of_it_is_lost() {
    let all = recorded();
    assert!(all.len() >= KINDS);
    for ((version, kind), value) in &all {
        let message = read(value);
        assert_eq!(message.name(), kind, "{version}");
        let mut again = serde_json::to_value(&message).unwrap();
        if let Some(digest) = value.get("digest") {
            // Another reckoning: not compared, see `Heartbeat::digest`.
            again["digest"] = digest.clone();
        }
        assert!(
            covers(&again, value),
            "{version}/{kind}: {again}\nof {value}"
        );
    }
}

#[test]
fn a_newer_versions_message_is_read_as_if_it_had_nothing_new() {
    for ((version, kind), value) in &recorded() {
        let mut newer = value.clone();
        add_everywhere(&mut newer);
        assert_ne!(&newer, value);
        assert_eq!(read(&newer), read(value), "{version}/{kind}");
        newer["kind"] = json!("from_the_future");
        assert_eq!(read(&newer), PeerMessage::Unknown, "{version}/{kind}");
    }
    let wish = json!({"kind": "from-the-future", "instance": "gc-9"});
    let message = changed("heartbeat", |value| {
        value["groups"][0]["choice"]["wish"] = wish;
    });
    let PeerMessage::Heartbeat(heartbeat) = message else {
        panic!("another message");
    };
    let choice = heartbeat.groups[0].choice.as_ref().unwrap();
    assert_eq!(choice.wish, Wish::Unknown);
}

#[test]
fn what_an_older_version_did_not_say_of_itself_is_taken_as_nothing() {
    let new = [
        "leaving", "choice", "digest", "journal", "shares", "settled", "standing",
    ];
    let message = changed("heartbeat", |value| drop_everywhere(value, &new));
    let mut expected = heartbeat();
    expected.digest = 0;
    expected.journal = false;
    expected.shares = false;
    expected.settled = Vec::new();
    expected.standing = Standing::default();
    expected.groups[0].leaving = false;
    expected.groups[0].choice = None;
    assert_eq!(message, PeerMessage::Heartbeat(expected));

    let new = ["leader", "reason", "choice", "finished", "subscribed"];
    let message = changed("heartbeat", |value| {
        drop_everywhere(&mut value["standing"]["groups"], &new);
        drop_everywhere(&mut value["standing"], &["finished", "subscribed"]);
    });
    let mut expected = heartbeat();
    expected.standing.finished = 0;
    expected.shares = false;
    expected.standing.subscribed = 0;
    let group = &mut expected.standing.groups[0];
    (group.leader, group.reason, group.choice) = (None, String::new(), None);
    assert_eq!(message, PeerMessage::Heartbeat(expected));
}

#[test]
fn what_an_older_version_did_not_say_of_agents_is_taken_as_nothing() {
    let new = ["rank", "mobile", "watched", "group"];
    let message = changed("grant_agent", |value| {
        // Of the platform's user object, which has such a field too, all may be missing.
        drop_everywhere(&mut value["record"], &new);
        value["record"]["user"] = json!({"login_id": "1001"});
    });
    let mut record = session("1001");
    record.version.rank = 0;
    (record.mobile, record.watched) = (None, Vec::new());
    record.group = String::new();
    record.user = Some(Box::new(User {
        login_id: "1001".into(),
        ..User::default()
    }));
    assert_eq!(message, PeerMessage::GrantAgent { record });
}

#[test]
fn what_an_older_version_did_not_say_of_commands_is_taken_as_nothing() {
    let message = changed("journal", |value| {
        drop_everywhere(value, &["alone", "history"]);
    });
    let mut intent = intent();
    intent.alone = false;
    let expected = PeerMessage::Journal {
        intents: vec![intent],
        outcomes: vec![accepted()],
        withdrawn: vec![[3; 16]],
        withdrawn_made: Vec::new(),
        history: false,
    };
    assert_eq!(message, expected);

    let message = changed("forward", |value| {
        value["raw"] = json!({"kind": "Ready#1001"});
    });
    let raw = RawMessage {
        kind: Some("Ready#1001".into()),
        ..RawMessage::default()
    };
    assert_eq!(message, PeerMessage::Forward { id: 41, raw });
}
