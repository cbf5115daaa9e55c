//! Every event against what the documents of the original print (`tests/data/reference.golden`).

use super::*;
use crate::model::{Contact, PhoneBook, Queue};

const FILE: &str = include_str!("../../../../../tests/data/reference.golden");

fn lines() -> impl Iterator<Item = &'static str> {
    FILE.lines().filter(|line| !line.starts_with('#'))
}

fn id(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

/// Local time there is two hours ahead of the platform's.
fn utc(time: &str) -> String {
    let (hour, rest) = time.split_once(':').unwrap();
    let hour: u32 = hour.parse().unwrap();
    format!("2031-04-09T{:02}:{rest}Z", hour - 2)
}

fn dana() -> User {
    User {
        login_id: "41007".into(),
        first_name: "Dana".into(),
        last_name: "Reyes".into(),
        extension: "7007".into(),
        state: "NOT_READY".into(),
        reason_code_id: "9".into(),
        reason_label: "Lunch".into(),
        state_change_time: utc("08:15:02"),
        wrap_up_on_incoming: "OPTIONAL".into(),
        team: Team {
            id: "12".into(),
            name: "Claims".into(),
        },
        ..User::default()
    }
}

fn party(address: &str, device: bool, state: &str, started: &str, changed: &str) -> Participant {
    Participant {
        media_address: address.into(),
        media_address_type: if device { "AGENT_DEVICE" } else { "" }.into(),
        state: state.into(),
        start_time: utc(started),
        state_change_time: utc(changed),
        ..Participant::default()
    }
}

fn call(kind: CallKind, phase: CallPhase, dialog: Dialog) -> ClientEvent {
    ClientEvent::Call(Box::new(CallEvent {
        agent: id("41007"),
        name: "Dana Reyes".into(),
        extension: "7007".into(),
        kind,
        phase,
        dialog,
    }))
}

fn customers_call(variables: &[(&str, &str)]) -> Dialog {
    Dialog {
        id: "33018842".into(),
        from_address: "5550142".into(),
        call_type: "PREROUTE_ACD_IN".into(),
        call_variables: variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        ..Dialog::default()
    }
}

fn queue() -> Queue {
    Queue {
        name: "Claims_Q".into(),
        agents_not_ready: "2".into(),
        agents_ready: "5".into(),
        agents_talking_inbound: "7".into(),
        agents_talking_internal: "0".into(),
        agents_talking_outbound: "1".into(),
        agents_wrap_up_not_ready: "0".into(),
        agents_wrap_up_ready: "1".into(),
        calls_in_queue: "3".into(),
        start_time_of_longest_call: "2031-04-09T08:19:00Z".into(),
    }
}

fn reasons(category: ReasonCategory, agent: &str, name: &str) -> ClientEvent {
    ClientEvent::ReasonCodes {
        agent: id(agent),
        name: name.into(),
        category,
        reasons: [("9", "Lunch"), ("14", "Training")]
            .map(|(id, label)| ReasonCode {
                id: id.into(),
                label: label.into(),
            })
            .into(),
    }
}

fn sampled_calls() -> Vec<ClientEvent> {
    let offered = Dialog {
        participants: vec![party("7007", true, "ALERTING", "08:20:11", "08:20:11")],
        ..customers_call(&[("callVariable1", "P-778"), ("callVariable2", "")])
    };
    let active = Dialog {
        state: "ACTIVE".into(),
        queue_name: "Claims_Q".into(),
        participants: vec![
            party("5550142", false, "ACTIVE", "08:20:11", "08:20:19"),
            party("7007", true, "ACTIVE", "08:20:11", "08:20:19"),
        ],
        ..customers_call(&[("callVariable1", "P-778")])
    };
    let consult = Dialog {
        id: "33018850".into(),
        from_address: "7007".into(),
        to_address: "7011".into(),
        state: "INITIATED".into(),
        call_type: "CONSULT".into(),
        participants: vec![party("7007", true, "INITIATED", "08:22:40", "08:22:40")],
        ..customers_call(&[("callVariable1", "P-778")])
    };
    let dropped = Dialog {
        associated_dialog_id: "33018850".into(),
        state: "DROPPED".into(),
        call_type: "TRANSFER".into(),
        ..customers_call(&[])
    };
    vec![
        call(CallKind::NewInbound, CallPhase::Live, offered),
        call(CallKind::Inbound, CallPhase::Live, active),
        call(CallKind::Consult, CallPhase::Live, consult),
        call(CallKind::Inbound, CallPhase::Dropped, dropped),
    ]
}

#[test]
fn every_printed_json_event_is_met_byte_by_byte() {
    let member = User {
        login_id: "41011".into(),
        first_name: "Ola".into(),
        last_name: "Berg".into(),
        extension: "7011".into(),
        state: "READY".into(),
        media_type: "1".into(),
        state_change_time: utc("08:01:00"),
        ..User::default()
    };
    let mut events = vec![
        ClientEvent::AgentInfo {
            agent: id("41007"),
            user: Box::new(dana()),
        },
        ClientEvent::State {
            agent: id("41007"),
            user: Box::new(dana()),
        },
    ];
    events.extend(sampled_calls());
    events.extend([
        reasons(ReasonCategory::NotReady, "41007", ""),
        ClientEvent::list(&id("49001"), "", List::TeamUsers(vec![member])),
        ClientEvent::list(&id("49001"), "", List::Queues(vec![queue()])),
        ClientEvent::Error {
            agent: Some(id("41007")),
            code: "CF_RESOURCE_BUSY".into(),
            message: "Extension already in use".into(),
        },
        ClientEvent::System(SystemStatus::InService),
    ]);
    let printed: Vec<&str> = lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(printed.len(), events.len());
    for (event, printed) in events.iter().zip(printed) {
        let [told] = &json(event)[..] else {
            panic!("{event:?} is one message");
        };
        // This sample alone is sent inside an array, as the document says beside it.
        let told = match told.strip_prefix('[') {
            Some(inner) if printed.contains("QueueStats") => inner.strip_suffix(']').unwrap(),
            _ => told,
        };
        assert_eq!(told, printed);
    }
}

/// A pattern with the values of its placeholders filled in.
fn filled(pattern: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, more)) = rest.split_once('<') {
        let (name, after) = more.split_once('>').unwrap();
        let value = values.iter().find(|(known, _)| *known == name);
        out.push_str(before);
        out.push_str(value.unwrap_or_else(|| panic!("<{name}> in {pattern}")).1);
        rest = after;
    }
    out + rest
}

const VALUES: &[(&str, &str)] = &[
    ("agent", "1001"),
    ("dest", "desk-1"),
    ("first", "Mira"),
    ("last", "Lund"),
    ("name", "Mira Lund"),
    ("loginName", "mlund"),
    ("wrapUpMode", "OPTIONAL"),
    ("teamId", "7"),
    ("name1", "Sales"),
    ("name2", "Care"),
    ("state", "NOT_READY"),
    ("reasonCodeId", "5"),
    ("reasonLabel", "Desk 001000113"),
    ("stateChangeTimeString", ""),
    ("stateChangeTime", "2030-06-01 11:15:02"),
    ("pendingState", ""),
    ("mediaType", ""),
    ("extension", "2001"),
    ("n", "2"),
    ("dialog", "900"),
    ("from", "0612"),
    (
        "callVars",
        "ani=0612|callVariable1=C-1|callVariable2=|callVariable10=ten|user.policy=P001000119",
    ),
    ("assocDialog", ""),
    ("assocState", ""),
    ("assocFrom", ""),
    ("assocVars", ""),
    ("dialogState", "ACTIVE"),
    ("startTime", "2030-06-01 11:20:03"),
    ("type", "ACD_IN"),
    ("list", "0612,ACTIVE|2001,ACTIVE"),
    ("cause", "BUSY"),
    ("l1", "Lunch"),
    ("l2", "Training"),
    ("ext1", "0612"),
    ("ext2", "2001"),
    ("text", "CallBack scheduled"),
    ("code", "CF_RESOURCE_BUSY"),
];

fn mira(kind: CallKind, phase: CallPhase) -> ClientEvent {
    ClientEvent::Call(Box::new(CallEvent {
        agent: agent(),
        name: "Mira Lund".into(),
        extension: "2001".into(),
        kind,
        phase,
        dialog: dialog("ACTIVE", "ACD_IN", "ACTIVE"),
    }))
}

fn told_calls() -> Vec<(&'static str, ClientEvent)> {
    let failed = || CallPhase::Failed {
        cause: "BUSY".into(),
    };
    let status = |dialogs| ClientEvent::DialogStatus {
        agent: agent(),
        extension: "2001".into(),
        dialogs,
    };
    let active = || dialog("ACTIVE", "ACD_IN", "ACTIVE");
    let viewed = agent();
    vec![
        ("dialog-status", status(vec![active()])),
        ("dialog-status-none", status(Vec::new())),
        (
            "dialog-state",
            ClientEvent::dialog_state(&viewer(&viewed), &active()),
        ),
        ("new-inbound", mira(CallKind::NewInbound, CallPhase::Live)),
        ("new-outbound", mira(CallKind::NewOutbound, CallPhase::Live)),
        (
            "new-outbound-preview",
            mira(CallKind::NewOutboundPreview, CallPhase::Live),
        ),
        ("inbound", mira(CallKind::Inbound, CallPhase::Live)),
        ("inbound-failed", mira(CallKind::Inbound, failed())),
        ("consult", mira(CallKind::Consult, CallPhase::Live)),
        ("consult-failed", mira(CallKind::Consult, failed())),
    ]
}

fn told_lists() -> Vec<(&'static str, ClientEvent)> {
    let list = |list| ClientEvent::list(&agent(), "Mira Lund", list);
    let book = || PhoneBook {
        id: "4".into(),
        name: "Branches".into(),
        kind: "GLOBAL".into(),
    };
    let contact = Contact {
        id: "77".into(),
        first_name: "Front".into(),
        last_name: "Desk".into(),
        phone_number: "4100".into(),
        description: "Basel".into(),
    };
    let parties = Box::new(dialog("ACTIVE", "ACD_IN", "ACTIVE"));
    let codes = |category| reasons(category, "1001", "Mira Lund");
    vec![
        ("reason-codes-not-ready", codes(ReasonCategory::NotReady)),
        ("reason-codes-logout", codes(ReasonCategory::Logout)),
        ("reason-codes-wrap-up", codes(ReasonCategory::WrapUp)),
        ("team-users", list(List::TeamUsers(vec![user()]))),
        ("participants", list(List::Participants(parties))),
        ("queues", list(List::Queues(vec![queue()]))),
        ("phone-books", list(List::PhoneBooks(vec![book()]))),
        ("phone-books-none", list(List::PhoneBooks(Vec::new()))),
        ("contacts", list(List::Contacts(vec![contact]))),
        ("contacts-none", list(List::Contacts(Vec::new()))),
        ("team-phone-books", list(List::TeamPhoneBooks(vec![book()]))),
        (
            "team-phone-books-none",
            list(List::TeamPhoneBooks(Vec::new())),
        ),
    ]
}

fn told_words() -> Vec<(&'static str, ClientEvent)> {
    let text = "CallBack scheduled".to_owned();
    let note = |note| ClientEvent::Note {
        agent: agent(),
        note,
    };
    let info = |user| ClientEvent::AgentInfo {
        agent: agent(),
        user: Box::new(user),
    };
    vec![
        ("in-service", ClientEvent::System(SystemStatus::InService)),
        (
            "out-of-service",
            ClientEvent::System(SystemStatus::OutOfService),
        ),
        (
            "reconnect",
            ClientEvent::DestinationReconnect {
                destination: Destination::new("desk-1").unwrap(),
            },
        ),
        ("agent-info", info(user())),
        ("agent-info-supervisor", info(supervisor())),
        (
            "state",
            ClientEvent::State {
                agent: agent(),
                user: Box::new(user()),
            },
        ),
        ("re-login", ClientEvent::ReLogin { agent: agent() }),
        (
            "team-info",
            ClientEvent::TeamInfo {
                agent: agent(),
                name: "Mira Lund".into(),
                teams: supervisor().teams,
            },
        ),
        ("control", note(Note::StatusBar(text.clone()))),
        ("callback", note(Note::Callback(text))),
        (
            "error",
            ClientEvent::Error {
                agent: Some(agent()),
                code: "CF_RESOURCE_BUSY".into(),
                message: "busy".into(),
            },
        ),
    ]
}

#[test]
fn every_printed_pattern_is_met_byte_by_byte() {
    let patterns: Vec<(&str, &str)> = lines().filter_map(|line| line.split_once('\t')).collect();
    let events = [told_words(), told_calls(), told_lists()].concat();
    for (name, event) in &events {
        let ids: &[(&str, &str)] = if name.starts_with("reason") {
            &[("id1", "9"), ("id2", "14")]
        } else {
            &[("id1", "7"), ("id2", "8")]
        };
        let values = [VALUES, ids].concat();
        let wanted: Vec<String> = patterns
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, pattern)| filled(pattern, &values))
            .collect();
        assert!(!wanted.is_empty(), "{name}: no pattern");
        assert_eq!(strings(event, Format::Default), wanted, "{name}");
    }
    for (name, _) in patterns {
        assert!(
            events.iter().any(|(known, _)| *known == name),
            "{name}: no event"
        );
    }
}
