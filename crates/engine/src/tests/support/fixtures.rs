//! Names, users and answers of the tests.

use super::*;
use crate::model::{Dialog, Participant};

pub fn instance(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

pub fn agent(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

pub fn destination(name: &str) -> Destination {
    Destination::new(name).unwrap()
}

pub fn config() -> Config {
    Config {
        instance: instance("gc-1"),
        site: "site-1".into(),
        version: "1".into(),
        boot: BootId(11),
        started: WALL,
        former: None,
        seed: 7,
        mode: Mode::ActivePassive,
        groups: vec!["agents".into()],
        queues: vec!["Connector1".into()],
        priority: 127,
        group_priorities: Vec::new(),
        prefetch: 100,
        brokers: BrokerPolicy {
            labels: vec!["b0".into(), "b1".into()],
            spare: true,
            priority_backup: true,
            failback_hold: 5_000,
            reconnect_delay: 100,
            reconnect_delay_max: 5_000,
            far_follower: -10,
            stands_back: 0,
        },
        peers: PeerTimers {
            heartbeat: 500,
            suspect: 1_500,
            lost: 3_000,
        },
        fence: false,
        takeback_hold: 10_000,
        takeover_rate: 200,
        remembered: 500_000,
        nodes: vec!["f0".into(), "f1".into()],
        node_urls: vec!["http://f0/api".into(), "http://f1/api".into()],
        seats: usize::MAX,
        probe_interval: 5_000,
        request_timeout: 3_000,
        failback: false,
        http: None,
        agents: AgentPolicy::default(),
        parse: Defaults {
            max_age_ms: 30_000,
            cluster_name: "tandem".into(),
            generate_traces: false,
            command_queues: vec!["Connector1".into()],
        },
        shutdown_grace: 10_000,
        page: String::new(),
        planted: Planted::default(),
    }
}

pub fn in_service() -> NodeHealth {
    NodeHealth::InService {
        xmpp_domain: "d".into(),
        pubsub_domain: "pubsub.d".into(),
        deployment: "UCCE".into(),
    }
}

pub fn unreachable() -> NodeHealth {
    NodeHealth::Unreachable {
        reason: "no route".into(),
    }
}

pub fn user(name: &str, state: &str) -> User {
    User {
        login_id: name.into(),
        extension: "2001".into(),
        state: state.into(),
        ..User::default()
    }
}

pub fn done() -> CallOutcome {
    CallOutcome::Done {
        status: 202,
        answer: Answer::Empty,
    }
}

pub fn not_sent() -> CallOutcome {
    CallOutcome::NotSent {
        timed_out: false,
        reason: "refused".into(),
    }
}

pub fn no_descriptors() -> Shortage {
    Shortage {
        of: Resource::Descriptors,
        reason: "Too many open files (os error 24)".into(),
    }
}

pub fn no_room() -> CallOutcome {
    CallOutcome::NoRoom(no_descriptors())
}

pub fn timed_out() -> CallOutcome {
    CallOutcome::Unknown {
        status: None,
        timed_out: true,
        reason: "time is up".into(),
    }
}

pub fn refused(status: u16) -> CallOutcome {
    CallOutcome::Refused {
        status,
        error: ApiError::default(),
    }
}

/// A command as a client sends it.
pub fn message(kind: &str, body: &str, id: &str) -> RawMessage {
    RawMessage {
        kind: Some(kind.into()),
        body: Bytes::copy_from_slice(body.as_bytes()),
        message_id: Some(id.into()).filter(|id: &String| !id.is_empty()),
        correlation_id: Some(format!("corr-{id}")),
        reply_to: Some("replies-of-client".into()),
        ..RawMessage::default()
    }
}

/// The platform's only call, of extension 2001.
pub fn dialog(to: &str, start: &str) -> CallOutcome {
    let party = Participant {
        media_address: "2001".into(),
        start_time: start.into(),
        ..Participant::default()
    };
    let dialog = Dialog {
        from_address: "2001".into(),
        to_address: to.into(),
        participants: vec![party],
        ..Dialog::default()
    };
    CallOutcome::Done {
        status: 200,
        answer: Answer::Dialogs(vec![dialog]),
    }
}
