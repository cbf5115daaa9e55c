use chrono::FixedOffset;

use super::*;
use crate::model::{DialogsVerb, Participant};

mod choosing;
mod golden;
mod reference;

fn zone() -> FixedOffset {
    FixedOffset::east_opt(2 * 3600).unwrap()
}

fn agent() -> AgentId {
    AgentId::new("1001").unwrap()
}

fn viewer(agent: &AgentId) -> Viewer<'_> {
    Viewer {
        agent,
        name: "Mira Lund",
        extension: "2001",
    }
}

fn user() -> User {
    User {
        login_id: "1001".into(),
        login_name: "mlund".into(),
        first_name: "Mira".into(),
        last_name: "Lund".into(),
        extension: "2001".into(),
        state: "NOT_READY".into(),
        reason_code_id: "5".into(),
        reason_label: "Desk #3".into(),
        state_change_time: "2030-06-01T09:15:02.318Z".into(),
        wrap_up_on_incoming: "OPTIONAL".into(),
        team: Team {
            id: "7".into(),
            name: "Sales".into(),
        },
        ..User::default()
    }
}

fn supervisor() -> User {
    User {
        supervisor: true,
        teams: vec![
            Team {
                id: "7".into(),
                name: "Sales".into(),
            },
            Team {
                id: "8".into(),
                name: "Care".into(),
            },
        ],
        ..user()
    }
}

fn party(address: &str, state: &str) -> Participant {
    let device = address == "2001" || address == "2002";
    Participant {
        media_address: address.into(),
        media_address_type: if device { "AGENT_DEVICE" } else { "" }.into(),
        state: state.into(),
        start_time: "2030-06-01T09:20:03.551Z".into(),
        state_change_time: "2030-06-01T09:20:09Z".into(),
        ..Participant::default()
    }
}

/// Where of the call before no more is known than whether the agent had it.
fn choose_where(
    dialog: &Dialog,
    verb: DialogsVerb,
    known_before: bool,
    viewer: &Viewer<'_>,
) -> Vec<ClientEvent> {
    let nothing = Dialog::default();
    choose(dialog, verb, known_before.then_some(&nothing), viewer)
}

fn dialog(state: &str, call_type: &str, own: &str) -> Dialog {
    Dialog {
        id: "900".into(),
        from_address: "0612".into(),
        to_address: "8800".into(),
        state: state.into(),
        call_type: call_type.into(),
        queue_name: "Q1".into(),
        call_variables: vec![
            ("callVariable10".into(), "ten".into()),
            ("callVariable2".into(), String::new()),
            ("user.policy".into(), "P#9".into()),
            ("callVariable1".into(), "C-1".into()),
        ],
        participants: vec![party("0612", "ACTIVE"), party("2001", own)],
        ..Dialog::default()
    }
}

fn json(event: &ClientEvent) -> Vec<String> {
    strings(event, Format::Json)
}

fn strings(event: &ClientEvent, format: Format) -> Vec<String> {
    render_in(event, format, &zone())
        .into_iter()
        .map(|body| String::from_utf8(body).unwrap())
        .collect()
}

/// Both forms of one event.
fn golden(event: &ClientEvent, want_json: &[&str], want_text: &[&str]) {
    assert_eq!(json(event), want_json);
    assert_eq!(strings(event, Format::Default), want_text);
}

fn only(mut events: Vec<ClientEvent>) -> ClientEvent {
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

#[test]
fn system_and_destination_events() {
    golden(
        &ClientEvent::System(SystemStatus::InService),
        &[r#"{"type":"System","status":"IN_SERVICE"}"#],
        &["System#IN_SERVICE"],
    );
    golden(
        &ClientEvent::System(SystemStatus::OutOfService),
        &[r#"{"type":"System","status":"OUT_OF_SERVICE"}"#],
        &["System#OUT_OF_SERVICE"],
    );
    golden(
        &ClientEvent::DestinationReconnect {
            destination: Destination::new("desk-1").unwrap(),
        },
        &[r#"{"type":"DESTINATION","destination":"desk-1","status":"RECONNECT"}"#],
        &["DESTINATION#desk-1#RECONNECT"],
    );
    golden(
        &ClientEvent::ConnectStatus,
        &[r#"{"type":"ConnectStatus","status":"ConnectSuccess"}"#],
        &[],
    );
}

#[test]
fn errors() {
    golden(
        &ClientEvent::Error {
            agent: Some(agent()),
            code: "CF_RESOURCE_BUSY".into(),
            message: "in \"use\"".into(),
        },
        &[
            r#"{"type":"Error","agentId":"1001","errorType":"CF_RESOURCE_BUSY","errorMessage":"in \"use\""}"#,
        ],
        &["1001#Error#CF_RESOURCE_BUSY"],
    );
    golden(
        &ClientEvent::Error {
            agent: None,
            code: "PLEASE_RETRY".into(),
            message: String::new(),
        },
        &[r#"{"type":"Error","errorType":"PLEASE_RETRY","errorMessage":""}"#],
        &["System#Error#PLEASE_RETRY"],
    );
}

#[test]
fn agent_info_of_agent_and_supervisor() {
    golden(
        &ClientEvent::AgentInfo {
            agent: agent(),
            user: Box::new(user()),
        },
        &[
            r#"{"type":"AgentInfo","firstName":"Mira","lastName":"Lund","supervisor":false,"wrapUpOnIncoming":"OPTIONAL","totalNumberOfTeams":"","teams":[],"team":{"id":"7","name":"Sales"},"agentId":"1001"}"#,
        ],
        &["1001#AgentInfo#Mira#Lund#False#OPTIONAL#7#Mira Lund#mlund"],
    );
    golden(
        &ClientEvent::AgentInfo {
            agent: agent(),
            user: Box::new(supervisor()),
        },
        &[
            r#"{"type":"AgentInfo","firstName":"Mira","lastName":"Lund","supervisor":true,"wrapUpOnIncoming":"OPTIONAL","totalNumberOfTeams":"2","teams":[{"id":"7","name":"Sales"},{"id":"8","name":"Care"}],"team":{"id":"7","name":"Sales"},"agentId":"1001"}"#,
        ],
        &[
            "1001#AgentInfo#Mira#Lund#True#OPTIONAL#TotalNumberOfTeams:2#7,Sales|8,Care#7#Mira Lund#mlund",
        ],
    );
}

#[test]
fn team_info_is_two_texts_and_no_json() {
    golden(
        &ClientEvent::TeamInfo {
            agent: agent(),
            name: "Mira Lund".into(),
            teams: supervisor().teams,
        },
        &[],
        &[
            "1001#TeamInfoIDs#TeamID#7,8#Mira Lund",
            "1001#TeamInfoNames#TeamName#Sales,Care#Mira Lund",
        ],
    );
}

#[test]
fn state_with_reason_time_and_escaped_hash() {
    golden(
        &ClientEvent::State {
            agent: agent(),
            user: Box::new(user()),
        },
        &[
            r#"{"type":"State","agentId":"1001","state":"NOT_READY","reasonCode":"5","stateChangeTimeString":"","pendingState":"","stateChangeTime":"2030-06-01 11:15:02","fullName":"Mira Lund","extension":"2001","label":"Desk #3"}"#,
        ],
        &[
            "1001#State#NOT_READY#5###2030-06-01 11:15:02#Mira Lund#1001#2001#Desk 001000113#Mira Lund#mlund",
        ],
    );
}

#[test]
fn reason_is_minus_one_only_where_clients_expect_it() {
    for (state, reason, want) in [
        ("LOGOUT", "", "-1"),
        ("NOT_READY", "-1", "-1"),
        ("LOGOUT", "12", "12"),
        ("READY", "-1", ""),
        ("TALKING", "", ""),
    ] {
        let user = User {
            state: state.into(),
            reason_code_id: reason.into(),
            ..user()
        };
        assert_eq!(shown_reason(&user), want, "{state} {reason}");
    }
}

#[test]
fn lost_sessions() {
    golden(
        &ClientEvent::ReLogin { agent: agent() },
        &[
            r#"{"type":"State","agentId":"1001","state":"RE_LOGIN","reasonCode":"","stateChangeTimeString":"","pendingState":"","stateChangeTime":"","fullName":"","extension":"","label":""}"#,
        ],
        &["1001#State#RE_LOGIN"],
    );
    golden(
        &ClientEvent::LogoutState { agent: agent() },
        &[
            r#"{"type":"State","agentId":"1001","state":"LOGOUT","reasonCode":"-1","stateChangeTimeString":"","pendingState":"","stateChangeTime":"","fullName":"","extension":"","label":""}"#,
        ],
        &["1001#State#LOGOUT#-1#####1001####"],
    );
}

const VARIABLES: &str = r#""callVariables":[{"callVariable1":"C-1"},{"callVariable2":""},{"callVariable10":"ten"},{"user.policy":"P#9"},{"ani":"0612"}]"#;

fn parties(other: &str, own: &str) -> String {
    format!(
        r#""participants":[{{"mediaAddress":"0612","state":"{other}","addressType":"","stateCause":"","stateChangeTime":"2030-06-01 11:20:09"}},{{"mediaAddress":"2001","state":"{own}","addressType":"AGENT_DEVICE","stateCause":"","stateChangeTime":"2030-06-01 11:20:09"}}]"#
    )
}

const TEXT_VARIABLES: &str =
    "ani=0612|callVariable1=C-1|callVariable2=|callVariable10=ten|user.policy=P001000119";

#[test]
fn new_calls() {
    let agent = agent();
    for (call_type, json_type, text_tail) in [
        (
            "ACD_IN",
            "NewInboundCall",
            "#CallType:ACD_IN#2030-06-01 11:20:03",
        ),
        ("OUTBOUND", "NewOutboundCall", ""),
        (
            "OUTBOUND_PREVIEW",
            "NewOutboundPreviewCall",
            "#CallType:OUTBOUND_PREVIEW",
        ),
    ] {
        let dialog = dialog("ALERTING", call_type, "ALERTING");
        let event = only(choose_where(
            &dialog,
            DialogsVerb::Added,
            false,
            &viewer(&agent),
        ));
        let parties = parties("ACTIVE", "ALERTING");
        golden(
            &event,
            &[&format!(
                r#"{{"type":"{json_type}","dialogId":"900","fromAddress":"0612",{VARIABLES},{parties},"callType":"{call_type}","queueName":"Q1","agentId":"1001"}}"#
            )],
            &[&format!(
                "1001#{json_type}#0612#{TEXT_VARIABLES}#DialogID:900{text_tail}"
            )],
        );
    }
}

#[test]
fn call_variables_without_names_where_that_is_wanted() {
    let agent = agent();
    let dialog = dialog("ALERTING", "ACD_IN", "ALERTING");
    let event = only(choose_where(
        &dialog,
        DialogsVerb::Added,
        false,
        &viewer(&agent),
    ));
    assert_eq!(
        strings(&event, Format::Values),
        [
            "1001#NewInboundCall#0612#0612,C-1,,ten,P001000119#DialogID:900#CallType:ACD_IN#2030-06-01 11:20:03"
        ]
    );
    let status = ClientEvent::DialogStatus {
        agent,
        extension: "2001".into(),
        dialogs: vec![dialog],
    };
    assert_eq!(
        strings(&status, Format::Values),
        ["1001#DialogStatus#900#ALERTING#0612#0612,C-1,,ten,P001000119####"]
    );
}

#[test]
fn a_call_that_changes_is_held_and_ends() {
    let agent = agent();
    for (own, state, word) in [("ACTIVE", "ACTIVE", "ACTIVE"), ("HELD", "HELD", "HOLD")] {
        let dialog = dialog("ACTIVE", "ACD_IN", own);
        let event = only(choose_where(
            &dialog,
            DialogsVerb::Changed,
            true,
            &viewer(&agent),
        ));
        let parties = parties("ACTIVE", own);
        golden(
            &event,
            &[&format!(
                r#"{{"type":"InboundCall","dialogId":"900","state":"{state}","startTime":"2030-06-01 11:20:03","associatedDialogId":null,"fromAddress":"0612",{VARIABLES},{parties},"callType":"ACD_IN","queueName":"Q1","agentId":"1001"}}"#
            )],
            &[&format!(
                "1001#InboundCall#{word}#DialogID:900#0612#{TEXT_VARIABLES}#2030-06-01 11:20:03#CallType:ACD_IN#ParticipantsCount:2#participants:0612,ACTIVE|2001,{own}"
            )],
        );
    }
    let gone = Dialog {
        id: "900".into(),
        state: "DROPPED".into(),
        associated_dialog_id: "901".into(),
        ..Dialog::default()
    };
    for verb in [DialogsVerb::Changed, DialogsVerb::Removed] {
        golden(
            &only(choose_where(&gone, verb, true, &viewer(&agent))),
            &[
                r#"{"type":"InboundCall","dialogId":"900","associatedDialogId":"901","state":"DROPPED","callType":"","queueName":"","participants":[],"agentId":"1001"}"#,
            ],
            &[
                "1001#InboundCall#DROP#DialogID:900##ani=##CallType:#ParticipantsCount:0#participants:",
            ],
        );
    }
}

#[test]
fn a_consultation_and_its_end() {
    let agent = agent();
    let mut dialog = dialog("INITIATED", "CONSULT", "INITIATED");
    let parties = parties("ACTIVE", "INITIATED");
    for (verb, state, word) in [
        (DialogsVerb::Changed, "INITIATED", "INITIATED"),
        (DialogsVerb::Removed, "DROPPED", "DROP"),
    ] {
        golden(
            &only(choose_where(&dialog, verb, true, &viewer(&agent))),
            &[&format!(
                r#"{{"type":"ConsultCall","state":"{state}","assDialogId":"900","fromAddress":"0612","toAddress":"8800","startTime":"2030-06-01 11:20:03",{VARIABLES},{parties},"callType":"CONSULT","queueName":"Q1","agentId":"1001"}}"#
            )],
            &[&format!(
                "1001#ConsultCall#{word}#AssDialogID:900#0612#{TEXT_VARIABLES}#Mira Lund"
            )],
        );
    }
    dialog.state = "FAILED".into();
    dialog.participants[0].state_cause = "BUSY".into();
    let events = choose_where(&dialog, DialogsVerb::Changed, true, &viewer(&agent));
    assert_eq!(
        strings(&events[0], Format::Default),
        ["1001#ConsultCall#FAILED#AssDialogID:900#BUSY#Mira Lund"]
    );
}

#[test]
fn a_failed_call_tells_its_cause_once_and_ends() {
    let agent = agent();
    let mut dialog = dialog("FAILED", "OUT", "FAILED");
    dialog.participants.remove(0);
    dialog.participants[0].state_cause = "BAD_DESTINATION".into();
    let events = choose_where(&dialog, DialogsVerb::Changed, true, &viewer(&agent));
    assert_eq!(events.len(), 2);
    golden(
        &events[0],
        &[&format!(
            r#"{{"type":"InboundCall","dialogId":"900","state":"FAILED","startTime":"2030-06-01 11:20:03","associatedDialogId":null,"fromAddress":"0612",{VARIABLES},"participants":[{{"mediaAddress":"2001","state":"FAILED","addressType":"AGENT_DEVICE","stateCause":"BAD_DESTINATION","stateChangeTime":"2030-06-01 11:20:09"}}],"callType":"OUT","queueName":"Q1","agentId":"1001"}}"#
        )],
        &["1001#InboundCall#FAILED#DialogID:900#BAD_DESTINATION#Mira Lund"],
    );
    assert!(json(&events[1])[0].contains(r#""state":"DROPPED""#));
    let removed = only(choose_where(
        &dialog,
        DialogsVerb::Removed,
        true,
        &viewer(&agent),
    ));
    assert_eq!(removed, events[1]);
}

#[test]
fn dialog_state_and_not_found() {
    let agent = agent();
    golden(
        &ClientEvent::dialog_state(&viewer(&agent), &dialog("ACTIVE", "OUT", "HELD")),
        &[r#"{"type":"DialogState","dialogId":"900","state":"HELD","agentId":"1001"}"#],
        &["1001#DialogState#HELD#900#Mira Lund"],
    );
    golden(
        &ClientEvent::dialog_not_found(&viewer(&agent), "77"),
        &[r#"{"type":"DialogState","dialogId":"77","state":"NOT_FOUND","agentId":"1001"}"#],
        &["1001#DialogState#NOT_FOUND#77#Mira Lund"],
    );
}

#[test]
fn dialog_status_with_none_one_and_two_calls() {
    let status = |dialogs| ClientEvent::DialogStatus {
        agent: agent(),
        extension: "2001".into(),
        dialogs,
    };
    golden(
        &status(vec![]),
        &[r#"{"type":"DialogStatus","agentId":"1001","dialogs":[]}"#],
        &["1001#DialogStatus###"],
    );
    let parties = parties("ACTIVE", "HELD");
    let main = dialog("ACTIVE", "ACD_IN", "HELD");
    golden(
        &status(vec![main.clone()]),
        &[&format!(
            r#"{{"type":"DialogStatus","agentId":"1001","dialogs":[{{"type":"InboundCall","dialogId":"900","state":"HELD","startTime":"2030-06-01 11:20:03","associatedDialogId":null,"fromAddress":"0612",{VARIABLES},{parties},"callType":"ACD_IN","queueName":"Q1","agentId":"1001"}}]}}"#
        )],
        &[&format!(
            "1001#DialogStatus#900#HELD#0612#{TEXT_VARIABLES}####"
        )],
    );
    let consult = Dialog {
        id: "901".into(),
        ..dialog("ACTIVE", "CONSULT", "ACTIVE")
    };
    assert_eq!(
        strings(&status(vec![consult, main]), Format::Default),
        [format!(
            "1001#DialogStatus#900#HELD#0612#{TEXT_VARIABLES}#901#ACTIVE#0612#{TEXT_VARIABLES}"
        )]
    );
}

#[test]
fn reason_lists() {
    let reason = |id: &str, label: &str| ReasonCode {
        id: id.into(),
        label: label.into(),
    };
    for (category, json_word, text_word) in [
        (ReasonCategory::NotReady, "NOT_READY", "NOT_READY"),
        (ReasonCategory::Logout, "LOGOUT", "LOGOUT"),
        (ReasonCategory::WrapUp, "WrapUp", "Wrap_Up"),
    ] {
        golden(
            &ClientEvent::ReasonCodes {
                agent: agent(),
                name: "Mira Lund".into(),
                category,
                reasons: vec![reason("5", "Desk"), reason("6", "Tea")],
            },
            &[&format!(
                r#"{{"type":"ReasonCodes","category":"{json_word}","reasonCodes":[{{"code":"5","label":"Desk"}},{{"code":"6","label":"Tea"}}],"agentId":"1001"}}"#
            )],
            &[&format!(
                "1001#ReasonCodes#Category:{text_word}#5,6#Labels:Desk,Tea#Mira Lund"
            )],
        );
    }
}

#[test]
fn resolved() {
    golden(
        &ClientEvent::Resolved {
            agent: agent(),
            command: "MakeCall".into(),
            id: "m-1".into(),
            outcome: Outcome::Accepted,
        },
        &[
            r#"{"type":"Resolved","command":"MakeCall","id":"m-1","outcome":"ACCEPTED","agentId":"1001"}"#,
        ],
        &["1001#Resolved#MakeCall#m-1#ACCEPTED"],
    );
}

#[test]
fn times_are_local_and_odd_ones_pass_through() {
    for (utc, want) in [
        ("", ""),
        ("2030-12-31T22:30:00Z", "2031-01-01 00:30:00"),
        ("2030-06-01T09:15:02.3Z", "2030-06-01 11:15:02"),
        ("yesterday", "yesterday"),
    ] {
        assert_eq!(time::local(utc, &zone()), want);
    }
}

proptest::proptest! {
    /// Whatever the platform says, JSON stays one object and the text keeps its number of fields.
    #[test]
    fn odd_values_do_not_break_the_forms(
        first in proptest::prelude::any::<String>(),
        label in "[#|,a]{0,9}",
        time in proptest::prelude::any::<String>(),
    ) {
        let event = ClientEvent::State {
            agent: agent(),
            user: Box::new(User {
                first_name: first,
                reason_label: label.clone(),
                state_change_time: time,
                ..user()
            }),
        };
        let object: serde_json::Value = serde_json::from_str(&json(&event)[0]).unwrap();
        proptest::prop_assert_eq!(&object["label"], &serde_json::Value::from(label));
        let fields = strings(&event, Format::Default)[0].split('#').count();
        proptest::prop_assert_eq!(fields, 13);
    }
}
