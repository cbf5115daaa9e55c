use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use super::*;
use crate::broker::BrokerConfig;
use crate::engine::ids::BootId;
use crate::engine::peer::PeerMessage;
use crate::model::{Destination, InstanceId};
use crate::wire::command::Defaults;
use crate::wire::control::{Keys, Opener, Sealer};
use crate::wire::event::{ClientEvent, SystemStatus};
use crate::wire::message::Unreadable;
use crate::wire::reply::{Outcome, Reply};

fn caused(id: &str) -> Cause {
    Cause {
        correlation_id: Some(id.to_owned()),
        trace: Trace::read(PARENT, Some("vendor=1")).map(Arc::new),
    }
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const PASSWORD: &str = "planted-Passw0rd";

fn id(text: &str) -> InstanceId {
    InstanceId::new(text).unwrap()
}

fn keys(instance: &str) -> Keys {
    Keys::new(None, None, "tandem", id(instance), BootId(1))
}

fn context(format: Format) -> Context {
    let config = BrokerConfig {
        instance: id("gc-1"),
        site: "site-1".into(),
        role: "active-passive priority 127".into(),
        version: "0".into(),
        cluster_name: "tandem".into(),
        queue_type: Default::default(),
        groups: Vec::new(),
        brokers: Vec::new(),
        timeout: Duration::from_secs(1),
        heartbeat: Duration::from_secs(1),
        probe_interval: Duration::from_millis(500),
        probe_count: 3,
        prefetch: 1,
        tls: Default::default(),
        format,
        parse: Defaults::default(),
        control: keys("gc-1"),
    };
    let (inputs, _) = tokio::sync::mpsc::channel(1);
    Context {
        sealer: Mutex::new(Sealer::new(keys("gc-1"))),
        opener: Mutex::new(Opener::new(keys("gc-1"))),
        config,
        endpoints: RwLock::default(),
        managements: RwLock::default(),
        inputs,
        noted: Mutex::default(),
        control_node: Mutex::default(),
        peers_nodes: Mutex::default(),
    }
}

fn one(outbound: Outbound) -> Message {
    match encode(&context(Format::Json), outbound).unwrap() {
        Encoded::Confirmed(mut messages) => {
            assert_eq!(messages.len(), 1);
            messages.remove(0)
        }
        Encoded::Direct(message) => *message,
    }
}

fn address(message: &Message) -> (&str, &str, bool) {
    (
        message.exchange.as_str(),
        message.key.as_str(),
        message.mandatory,
    )
}

fn header(message: &Message, name: &str) -> Option<String> {
    let headers = message.properties.headers().as_ref()?;
    headers.inner().get(name).map(|value| match value {
        AMQPValue::LongString(text) => text.to_string(),
        other => format!("{other:?}"),
    })
}

fn reply() -> Arc<Reply> {
    Arc::new(Reply {
        command: "Hello".into(),
        id: "crm".into(),
        outcome: Outcome::Ok,
        status: None,
        instance: "gc-1".into(),
        downstream: None,
        error: None,
        retry_after_ms: None,
        body: None,
    })
}

fn routed(route: ReplyRoute) -> Outbound {
    Outbound::Reply {
        route,
        reply: reply(),
        cause: caused("c-1"),
        message_id: "r-1".into(),
    }
}

#[test]
fn an_event_goes_to_its_destination_with_the_owners_epoch() {
    let message = one(Outbound::Event {
        to: Destination::new("crm-1").unwrap(),
        event: Arc::new(ClientEvent::System(SystemStatus::InService)),
        cause: caused("c-1"),
        epoch: 7,
        message_id: "e-1".into(),
    });
    assert_eq!(address(&message), ("tandem.events", "crm-1", false));
    assert_eq!(
        header(&message, "x-epoch").as_deref(),
        Some("LongLongInt(7)")
    );
    let properties = &message.properties;
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    assert_eq!(text(properties.message_id()).as_deref(), Some("e-1"));
    assert_eq!(text(properties.correlation_id()).as_deref(), Some("c-1"));
    assert_eq!(text(properties.app_id()).as_deref(), Some("gc-1"));
    assert_eq!(*properties.delivery_mode(), Some(PERSISTENT));
    assert!(serde_json::from_slice::<serde_json::Value>(&message.body).is_ok());
}

#[test]
fn replies_take_their_route() {
    let local = one(routed(ReplyRoute::Near("amq.gen-x".into())));
    assert_eq!(address(&local), ("", "amq.gen-x", true));
    let relayed = one(routed(ReplyRoute::Far("answers".into())));
    assert_eq!(address(&relayed), ("tandem.replies", "answers", true));
    let direct = routed(ReplyRoute::Direct("amq.rabbitmq.reply-to.x".into()));
    match encode(&context(Format::Json), direct).unwrap() {
        // Never mandatory: a direct reply comes back even where it was delivered.
        Encoded::Direct(message) => assert!(!message.mandatory),
        Encoded::Confirmed(_) => panic!("not on the connection that may be lost"),
    }
    let parked = one(Outbound::ParkedReply {
        reply_to: "gone".into(),
        reply: reply(),
        cause: Cause::default(),
    });
    assert_eq!(address(&parked), ("", "tandem.dead-letter", true));
    assert_eq!(
        header(&parked, "x-reason").as_deref(),
        Some("unroutable-reply")
    );
}

#[test]
fn a_dead_letter_shows_no_password_and_cannot_act_again() {
    let raw = RawMessage {
        kind: Some("Login#1001".into()),
        body: format!("{PASSWORD},5001").into_bytes().into(),
        reply_to: Some("answers".into()),
        expiration: Some(5),
        queue: Some("Batch".into()),
        ..RawMessage::default()
    };
    let message = one(Outbound::DeadLetter {
        raw: Arc::new(raw),
        reason: "expired",
        detail: "d".repeat(3 * MAX_DETAIL),
    });
    assert_eq!(address(&message), ("", "tandem.dead-letter", true));
    assert!(!String::from_utf8_lossy(&message.body).contains(PASSWORD));
    assert!(message.properties.expiration().is_none());
    assert!(message.properties.reply_to().is_none());
    assert_eq!(header(&message, "x-reason").as_deref(), Some("expired"));
    assert_eq!(header(&message, "x-detail").unwrap().len(), MAX_DETAIL);
    assert_eq!(
        header(&message, "x-original-reply-to").as_deref(),
        Some("answers")
    );
    assert_eq!(
        header(&message, "x-original-queue").as_deref(),
        Some("Batch")
    );
}

#[test]
fn a_dead_letter_names_the_command_of_its_body_and_counts_seconds() {
    let letter = |timestamp| {
        let raw = RawMessage {
            body: format!(r#"{{"type":"login#1001","body":"{PASSWORD}"}}"#)
                .into_bytes()
                .into(),
            timestamp: Some(timestamp),
            ..RawMessage::default()
        };
        one(Outbound::DeadLetter {
            raw: Arc::new(raw),
            reason: "reply_to_forbidden",
            detail: String::new(),
        })
    };
    let message = letter(1_900_000_000_123);
    assert_eq!(header(&message, "x-command").as_deref(), Some("Login#1001"));
    assert!(!String::from_utf8_lossy(&message.body).contains(PASSWORD));
    assert!(
        message.properties.kind().is_none(),
        "its body would be read otherwise"
    );
    assert_eq!(*message.properties.timestamp(), Some(1_900_000_000));
    let given = *letter(1_900_000_000).properties.timestamp();
    assert_eq!(given, Some(1_900_000_000));
    assert!(letter(0).properties.timestamp().unwrap() > 1_000_000_000);
}

#[test]
fn the_dead_letter_of_what_could_not_be_read_shows_some_of_its_bytes() {
    let raw = RawMessage {
        unreadable: Some(Unreadable {
            detail: "property correlation_id is not UTF-8".into(),
            evidence: "02ffff".into(),
        }),
        ..RawMessage::default()
    };
    let message = one(Outbound::DeadLetter {
        raw: Arc::new(raw),
        reason: "unreadable_properties",
        detail: "property correlation_id is not UTF-8".into(),
    });
    assert_eq!(header(&message, "x-evidence").as_deref(), Some("02ffff"));
}

#[test]
fn a_peer_message_is_sealed_for_its_receiver() {
    let message = one(Outbound::Peer {
        to: Some(id("gc-2")),
        message: Box::new(PeerMessage::Hello),
    });
    assert_eq!(address(&message), ("tandem.control", "gc-2", false));
    let opened = Opener::new(keys("gc-2")).open(&message.body).unwrap();
    assert_eq!(opened.2, PeerMessage::Hello);
    let to_all = one(Outbound::Peer {
        to: None,
        message: Box::new(PeerMessage::Hello),
    });
    assert_eq!(to_all.key.as_str(), "all");
}

#[test]
fn what_is_too_long_for_a_short_string_is_cut_between_characters() {
    let long = "ä".repeat(200);
    let cut = short(&long);
    assert_eq!(cut.as_str(), "ä".repeat(127));
}
