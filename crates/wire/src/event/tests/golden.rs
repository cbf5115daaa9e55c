//! Every event in both formats against `tests/data/events.golden`, byte by byte.
//!
//! `TANDEM_WRITE_GOLDEN=1 cargo test --lib golden` writes the file anew; read the difference.

use super::*;
use crate::model::{Contact, Mobile, PhoneBook, Queue};

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/data/events.golden"
);

fn team_member() -> User {
    User {
        login_id: "1002".into(),
        first_name: "Ola".into(),
        last_name: "Berg".into(),
        extension: "2002".into(),
        state: "READY".into(),
        media_type: "1".into(),
        ..user()
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
        agents_wrap_up_not_ready: "-1".into(),
        agents_wrap_up_ready: "1".into(),
        calls_in_queue: "3".into(),
        start_time_of_longest_call: "2030-06-01T09:19:00Z".into(),
    }
}

fn book(kind: &str) -> PhoneBook {
    PhoneBook {
        id: "4".into(),
        name: "Branch #1".into(),
        kind: kind.into(),
    }
}

fn contact() -> Contact {
    Contact {
        id: "77".into(),
        first_name: "Front".into(),
        last_name: "Desk".into(),
        phone_number: "4100".into(),
        description: "Basel".into(),
    }
}

fn call(kind: CallKind, phase: CallPhase, dialog: Dialog) -> ClientEvent {
    ClientEvent::Call(Box::new(CallEvent {
        agent: agent(),
        name: "Mira Lund".into(),
        extension: "2001".into(),
        kind,
        phase,
        dialog,
    }))
}

fn plain_events() -> Vec<(&'static str, ClientEvent)> {
    let desk = Destination::new("desk-1").unwrap();
    let user = || Box::new(user());
    vec![
        ("system-in", ClientEvent::System(SystemStatus::InService)),
        (
            "system-out",
            ClientEvent::System(SystemStatus::OutOfService),
        ),
        (
            "reconnect",
            ClientEvent::DestinationReconnect { destination: desk },
        ),
        ("connect-status", ClientEvent::ConnectStatus),
        (
            "error",
            ClientEvent::Error {
                agent: Some(agent()),
                code: "CF_RESOURCE_BUSY".into(),
                message: "Extension already in use".into(),
            },
        ),
        (
            "error-call-id",
            ClientEvent::Error {
                agent: Some(agent()),
                code: "E_CTI_INVALID_CALLID".into(),
                message: "gone".into(),
            },
        ),
        (
            "agent-info",
            ClientEvent::AgentInfo {
                agent: agent(),
                user: user(),
            },
        ),
        (
            "agent-info-supervisor",
            ClientEvent::AgentInfo {
                agent: agent(),
                user: Box::new(supervisor()),
            },
        ),
        (
            "team-info",
            ClientEvent::TeamInfo {
                agent: agent(),
                name: "Mira Lund".into(),
                teams: supervisor().teams,
            },
        ),
        (
            "state",
            ClientEvent::State {
                agent: agent(),
                user: user(),
            },
        ),
        ("state-re-login", ClientEvent::ReLogin { agent: agent() }),
        (
            "state-logout-elsewhere",
            ClientEvent::LogoutState { agent: agent() },
        ),
        (
            "state-of-member",
            ClientEvent::MemberState {
                agent: AgentId::new("9001").unwrap(),
                user: Box::new(team_member()),
            },
        ),
        (
            "reason-codes",
            ClientEvent::ReasonCodes {
                agent: agent(),
                name: "Mira Lund".into(),
                category: ReasonCategory::NotReady,
                reasons: [("9", "Lunch"), ("14", "Training")]
                    .map(|(id, label)| ReasonCode {
                        id: id.into(),
                        label: label.into(),
                    })
                    .into(),
            },
        ),
        (
            "reason-codes-wrap-up",
            ClientEvent::ReasonCodes {
                agent: agent(),
                name: "Mira Lund".into(),
                category: ReasonCategory::WrapUp,
                reasons: vec![ReasonCode {
                    id: "27".into(),
                    label: "Sold".into(),
                }],
            },
        ),
        (
            "note-callback",
            note(Note::Callback("CallBack scheduled".into())),
        ),
        ("note-reclassified", note(Note::Reclassified("FAX".into()))),
        (
            "note-status-bar",
            note(Note::StatusBar("CallBack scheduled".into())),
        ),
        (
            "note-participant",
            note(Note::ParticipantDropped("2003".into())),
        ),
        (
            "resolved",
            ClientEvent::Resolved {
                agent: agent(),
                command: "MakeCall".into(),
                id: "c-1".into(),
                outcome: Outcome::Accepted,
            },
        ),
    ]
}

fn note(note: Note) -> ClientEvent {
    ClientEvent::Note {
        agent: agent(),
        note,
    }
}

fn call_events() -> Vec<(&'static str, ClientEvent)> {
    let active = || dialog("ACTIVE", "ACD_IN", "ACTIVE");
    let consult = |state| Dialog {
        from_address: "2001".into(),
        to_address: "2002".into(),
        ..dialog(state, "CONSULT", state)
    };
    let failed = || CallPhase::Failed {
        cause: "BUSY".into(),
    };
    vec![
        (
            "new-inbound-call",
            call(
                CallKind::NewInbound,
                CallPhase::Live,
                dialog("ALERTING", "ACD_IN", "ALERTING"),
            ),
        ),
        (
            "new-outbound-call",
            call(
                CallKind::NewOutbound,
                CallPhase::Live,
                dialog("ALERTING", "OUTBOUND", "ALERTING"),
            ),
        ),
        (
            "new-outbound-preview-call",
            call(
                CallKind::NewOutboundPreview,
                CallPhase::Live,
                dialog("ACTIVE", "OUTBOUND_PREVIEW", "ACTIVE"),
            ),
        ),
        (
            "inbound-call",
            call(CallKind::Inbound, CallPhase::Live, active()),
        ),
        (
            "inbound-call-held",
            call(
                CallKind::Inbound,
                CallPhase::Live,
                dialog("ACTIVE", "ACD_IN", "HELD"),
            ),
        ),
        (
            "inbound-call-failed",
            call(
                CallKind::Inbound,
                failed(),
                dialog("FAILED", "OUT", "FAILED"),
            ),
        ),
        (
            "inbound-call-dropped",
            call(
                CallKind::Inbound,
                CallPhase::Dropped,
                dialog("DROPPED", "ACD_IN", "DROPPED"),
            ),
        ),
        (
            "consult-call",
            call(CallKind::Consult, CallPhase::Live, consult("INITIATED")),
        ),
        (
            "consult-call-failed",
            call(CallKind::Consult, failed(), consult("FAILED")),
        ),
        (
            "consult-call-dropped",
            call(CallKind::Consult, CallPhase::Dropped, consult("DROPPED")),
        ),
        (
            "dialog-state",
            ClientEvent::DialogState {
                agent: agent(),
                name: "Mira Lund".into(),
                dialog: "900".into(),
                state: "HELD".into(),
            },
        ),
        (
            "dialog-status",
            ClientEvent::DialogStatus {
                agent: agent(),
                extension: "2001".into(),
                dialogs: vec![active()],
            },
        ),
        (
            "dialog-status-none",
            ClientEvent::DialogStatus {
                agent: agent(),
                extension: "2001".into(),
                dialogs: Vec::new(),
            },
        ),
    ]
}

fn list_events() -> Vec<(&'static str, ClientEvent)> {
    let list = |list| ClientEvent::list(&agent(), "Mira Lund", list);
    let mobile = User {
        mobile: Some(Mobile {
            mode: "CALL_BY_CALL".into(),
            dial_number: "0041790001122".into(),
        }),
        ..user()
    };
    let dialog = || Box::new(dialog("ACTIVE", "ACD_IN", "HELD"));
    vec![
        ("agents", list(List::Agents(vec![user(), team_member()]))),
        (
            "team-users",
            list(List::TeamUsers(vec![user(), team_member()])),
        ),
        (
            "team-member",
            list(List::TeamMember(Box::new(team_member()))),
        ),
        ("queues", list(List::Queues(vec![queue(), queue()]))),
        (
            "phone-books",
            list(List::PhoneBooks(vec![book("GLOBAL"), book("Team")])),
        ),
        ("phone-books-none", list(List::PhoneBooks(Vec::new()))),
        (
            "team-phone-books",
            list(List::TeamPhoneBooks(vec![book("Team")])),
        ),
        (
            "team-phone-books-none",
            list(List::TeamPhoneBooks(Vec::new())),
        ),
        ("contacts", list(List::Contacts(vec![contact()]))),
        ("contacts-none", list(List::Contacts(Vec::new()))),
        (
            "skill-groups",
            list(List::SkillGroups(vec!["Claims".into(), "Sales".into()])),
        ),
        ("supervisors", list(List::Supervisors(vec![supervisor()]))),
        (
            "agent-extension",
            list(List::AgentExtension(Box::new(user()))),
        ),
        (
            "agent-extension-mobile",
            list(List::AgentExtension(Box::new(mobile))),
        ),
        ("participants", list(List::Participants(dialog()))),
        (
            "dialog-controls",
            list(List::DialogControls {
                dialog: dialog(),
                extension: "2001".into(),
            }),
        ),
    ]
}

#[test]
fn every_event_in_both_formats_is_as_the_golden_file_has_it() {
    let mut written = String::new();
    for (name, event) in [plain_events(), call_events(), list_events()].concat() {
        for (format, word) in [(Format::Json, "json"), (Format::Default, "text")] {
            let bodies = strings(&event, format);
            if bodies.is_empty() {
                written.push_str(&format!("{name} {word} (none)\n"));
            }
            for body in bodies {
                written.push_str(&format!("{name} {word} {body}\n"));
            }
        }
    }
    if std::env::var_os("TANDEM_WRITE_GOLDEN").is_some() {
        std::fs::write(FILE, &written).unwrap();
    }
    let golden = std::fs::read_to_string(FILE).unwrap();
    for (line, (got, want)) in written.lines().zip(golden.lines()).enumerate() {
        assert_eq!(got, want, "line {}", line + 1);
    }
    assert_eq!(written.lines().count(), golden.lines().count());
}
