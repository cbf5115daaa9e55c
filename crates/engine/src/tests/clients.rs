//! Clients and their agents: Hello, Beat, Connect, Login.

use super::support::*;
use crate::Event;
use crate::api::command::Outbound;
use crate::api::input::{Input, Notice};
use crate::model::{Action, Answer, CallOutcome};
use crate::view::SessionQuery;
use crate::wire::event::{ClientEvent, SystemStatus};
use crate::wire::reply::Outcome;

fn codes(events: &[ClientEvent]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            ClientEvent::System(SystemStatus::InService) => "in-service".into(),
            ClientEvent::System(SystemStatus::OutOfService) => "out-of-service".into(),
            ClientEvent::DestinationReconnect { .. } => "reconnect".into(),
            ClientEvent::ConnectStatus => "connected".into(),
            ClientEvent::Error { code, .. } => code.clone(),
            ClientEvent::AgentInfo { .. } => "info".into(),
            ClientEvent::State { user, .. } => format!("state {}", user.state),
            ClientEvent::ReLogin { .. } => "re-login".into(),
            ClientEvent::LogoutState { .. } => "logout".into(),
            ClientEvent::DialogStatus { .. } => "dialogs".into(),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_client_that_never_said_hello_is_asked_to_reconnect() {
    let mut rig = Rig::leader();
    rig.send("Beat#desk", "", "b1");
    assert_eq!(codes(&rig.told("desk")), ["reconnect"]);
    rig.send("Hello#desk", "", "h1");
    rig.send("Beat#desk", "", "b2");
    assert_eq!(
        codes(&rig.told("desk")),
        ["reconnect", "in-service", "in-service"]
    );
    assert_eq!(rig.acks.len(), 3);
}

#[test]
fn connect_tells_the_client_and_holds_one_subscription() {
    let mut rig = Rig::leader();
    rig.send("Connect#1001", "desk,pw", "c1");
    assert_eq!(codes(&rig.told("desk")), ["connected"]);
    assert_eq!(rig.outcomes(), [Outcome::Ok]);
    rig.send("Connect#1001", "desk,pw", "c2");
    assert_eq!(
        rig.subscribed.len(),
        1,
        "the same binding needs nothing new"
    );
    assert_eq!(rig.outcomes(), [Outcome::Ok, Outcome::Ok]);
}

#[test]
fn a_wrong_password_does_not_end_a_session_that_works() {
    let mut rig = Rig::with_agent();
    rig.notifications = Notifications::Refuses;
    rig.send("Connect#1001", "thief,guess", "c9");
    assert_eq!(rig.outcomes(), [Outcome::Failed]);
    assert!(rig.unsubscribed.is_empty());
    assert!(rig.told("desk").is_empty(), "the old client hears nothing");
    let sessions = rig.engine.session_views();
    assert_eq!(sessions[0].destination, "desk");
    assert!(sessions[0].subscribed);
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.calls.last().unwrap().password.expose(), "pw");
}

#[test]
fn an_agent_that_connects_elsewhere_is_taken_from_its_former_client() {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    assert_eq!(codes(&rig.told("desk")), ["SESSION_INVALIDATED", "logout"]);
    assert_eq!(codes(&rig.told("other")), ["connected"]);
    assert_eq!(rig.unsubscribed.len(), 1);
}

#[test]
fn a_session_is_told_to_no_peer_before_its_credentials_are_proven() {
    let mut rig = Rig::leader();
    rig.notifications = Notifications::Silent;
    rig.send("Connect#1001", "desk,pw", "c1");
    assert!(rig.engine.session_views().is_empty());
    rig.notify("1001", Notice::Up);
    assert_eq!(rig.engine.session_views().len(), 1);
    assert_eq!(rig.outcomes(), [Outcome::Ok]);
}

#[test]
fn an_unreachable_service_is_tried_on_the_other_node_then_fails() {
    let mut rig = Rig::leader();
    rig.notifications = Notifications::Unreachable;
    rig.send("Connect#1001", "desk,pw", "c1");
    let nodes: Vec<usize> = rig.subscribed.iter().map(|(.., node)| *node).collect();
    assert_eq!(nodes, [0, 1]);
    assert_eq!(rig.outcomes(), [Outcome::Failed]);
    rig.notifications = Notifications::Up;
    rig.send("Connect#1001", "desk,pw", "c2");
    assert_eq!(rig.outcomes(), [Outcome::Failed, Outcome::Ok]);
}

fn fails(rig: &mut Rig, name: &str) {
    let reason = "so said the test".to_owned();
    rig.notify(name, Notice::Unreachable { reason });
}

#[test]
fn connects_that_fail_at_the_same_node_move_the_instance_once() {
    let mut rig = Rig::leader();
    rig.notifications = Notifications::Silent;
    for name in ["1001", "1002", "1003"] {
        rig.send(&format!("Connect#{name}"), "desk,pw", &format!("c-{name}"));
    }
    for name in ["1001", "1002", "1003"] {
        fails(&mut rig, name);
    }
    let nodes: Vec<usize> = rig.subscribed.iter().map(|(.., node)| *node).collect();
    assert_eq!(nodes, [0, 0, 0, 1, 1, 1]);
    for name in ["1001", "1002", "1003"] {
        rig.notify(name, Notice::Up);
    }
    assert_eq!(rig.outcomes(), [Outcome::Ok; 3]);
}

/// Nothing is known of the other node yet: its answer is waited for, until the deadline.
#[test]
fn a_connect_that_waits_for_the_other_nodes_domain_ends_with_its_deadline() {
    let mut rig = Rig::new(config());
    rig.nodes[1] = super::support::unreachable();
    rig.silent_probes = true;
    rig.start();
    let node = 0;
    let health = in_service();
    rig.input(Input::Probed { node, health });
    rig.advance(2_000);
    rig.notifications = Notifications::Unreachable;
    let id = rig.send("Connect#1001", "desk,pw", "c1");
    rig.advance(40_000);
    assert_eq!(rig.acks, [id]);
    assert_eq!(rig.outcomes(), [Outcome::Expired]);
}

#[test]
fn a_connect_whose_node_fails_after_the_move_is_tried_on_the_new_one() {
    let mut rig = Rig::leader();
    rig.notifications = Notifications::Silent;
    rig.send("Connect#1001", "desk,pw", "c1");
    rig.nodes[0] = unreachable();
    rig.advance(20_000);
    fails(&mut rig, "1001");
    let nodes: Vec<usize> = rig.subscribed.iter().map(|(.., node)| *node).collect();
    assert_eq!(nodes, [0, 1]);
    rig.notify("1001", Notice::Up);
    assert_eq!(rig.outcomes(), [Outcome::Ok]);
}

#[test]
fn a_connect_that_succeeds_at_the_node_that_was_left_is_moved() {
    let mut rig = Rig::leader();
    rig.notifications = Notifications::Silent;
    rig.send("Connect#1001", "desk,pw", "c1");
    rig.nodes[0] = unreachable();
    rig.advance(20_000);
    rig.notify("1001", Notice::Up);
    rig.notifications = Notifications::Up;
    rig.advance(1_000);
    let nodes: Vec<usize> = rig.subscribed.iter().map(|(.., node)| *node).collect();
    assert_eq!(nodes, [0, 1]);
    assert_eq!(rig.unsubscribed.len(), 1, "one subscription an agent");
}

#[test]
fn a_connect_that_no_node_can_prove_ends_with_its_deadline() {
    let mut rig = Rig::new(config());
    // No probe is ever answered: the domain stays unknown.
    rig.silent_probes = true;
    rig.start();
    rig.advance(2_000);
    let id = rig.send("Connect#1001", "desk,pw", "c1");
    rig.advance(40_000);
    assert_eq!(rig.acks, [id]);
    assert_eq!(rig.outcomes(), [Outcome::Expired]);
}

#[test]
fn sign_in_is_followed_by_info_state_and_calls_after_the_notification() {
    let mut rig = Rig::leader();
    rig.users.insert(agent("1001"), user("1001", "NOT_READY"));
    rig.send("Connect#1001", "desk,pw", "c1");
    rig.send("Login#1001", "pw,2001", "l1");
    assert_eq!(codes(&rig.told("desk")), ["connected"]);
    rig.notify_state("1001", "NOT_READY", None);
    assert_eq!(
        codes(&rig.told("desk")),
        ["connected", "info", "state NOT_READY", "dialogs"]
    );
    rig.advance(3_000);
    assert_eq!(rig.told("desk").len(), 4, "told once");
}

#[test]
fn sign_in_is_read_after_the_settle_time_where_no_notification_comes() {
    let mut rig = Rig::leader();
    rig.users.insert(agent("1001"), user("1001", "NOT_READY"));
    rig.send("Connect#1001", "desk,pw", "c1");
    rig.send("Login#1001", "pw,2001", "l1");
    rig.advance(900);
    assert_eq!(rig.told("desk").len(), 1);
    rig.advance(200);
    assert_eq!(
        codes(&rig.told("desk")),
        ["connected", "info", "state NOT_READY", "dialogs"]
    );
}

#[test]
fn a_state_change_during_the_read_after_sign_in_is_not_swallowed() {
    let mut rig = Rig::leader();
    rig.send("Connect#1001", "desk,pw", "c1");
    rig.send("Login#1001", "pw,2001", "l1");
    rig.answers_calls = false;
    rig.notify_state("1001", "NOT_READY", None);
    assert_eq!(rig.calls.last().unwrap().action, Action::ReadUser);
    rig.notify_state("1001", "READY", None);
    // The first read was served before the change.
    rig.answer(CallOutcome::Done {
        status: 200,
        answer: Answer::User(Box::new(user("1001", "NOT_READY"))),
    });
    rig.users.insert(agent("1001"), user("1001", "READY"));
    while !rig.open_calls.is_empty() {
        let id = rig.open_calls[0];
        let call = rig.calls.iter().find(|call| call.id == id).unwrap().clone();
        let answer = match call.action {
            Action::ReadUser => Answer::User(Box::new(user("1001", "READY"))),
            _ => Answer::Dialogs(Vec::new()),
        };
        rig.answer(CallOutcome::Done {
            status: 200,
            answer,
        });
    }
    let told = codes(&rig.told("desk"));
    assert_eq!(
        told.iter().rfind(|t| t.starts_with("state")),
        Some(&"state READY".to_owned())
    );
}

#[test]
fn an_unknown_agent_is_asked_to_sign_in_again() {
    let mut rig = Rig::leader();
    rig.send("MakeReady#7777", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Rejected]);
    let (_, reply) = &rig.replies()[0];
    assert_eq!(reply.error.as_ref().unwrap().code, "RE_LOGIN");
}

#[test]
fn a_client_that_connects_again_after_sign_out_keeps_its_session() {
    let mut rig = Rig::with_agent();
    // The newest subscription was recorded before `forget`.
    rig.send("Connect#1001", "other,pw", "c2");
    rig.send("Logout#1001", "", "o1");
    rig.notify_state("1001", "LOGOUT", None);
    rig.advance(5_000);
    rig.send("Connect#1001", "other,pw", "c3");
    rig.advance(40_000);
    assert_eq!(rig.engine.session_views().len(), 1);
    rig.forget();
    rig.send("Login#1001", "pw,2001", "l2");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
}

#[test]
fn a_signed_out_agent_is_let_go_after_a_while() {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.forget_unsubscribed();
    rig.notify_state("1001", "LOGOUT", None);
    rig.advance(29_000);
    assert!(rig.unsubscribed.is_empty());
    rig.advance(2_000);
    assert_eq!(rig.unsubscribed.len(), 1);
    assert!(rig.engine.session_views().is_empty());
}

#[test]
fn forced_sign_out_runs_both_requests_and_ends_the_subscription_at_once() {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.forget_unsubscribed();
    rig.calls.clear();
    rig.answers.push_back(refused(400));
    rig.send("force_logout#1001", "", "f1");
    assert!(matches!(
        rig.actions().as_slice(),
        [
            Action::SetState {
                state: "NOT_READY",
                ..
            },
            Action::SetState {
                state: "LOGOUT",
                ..
            }
        ]
    ));
    assert_eq!(rig.outcomes().last(), Some(&Outcome::Accepted));
    rig.advance(100);
    rig.notify_state("1001", "LOGOUT", None);
    rig.advance(10);
    assert_eq!(rig.unsubscribed.len(), 1, "not after the linger of 30 s");
}

#[test]
fn sessions_are_found_by_part_of_their_names_and_shown_page_by_page() {
    let mut rig = Rig::leader();
    for agent in ["1003", "1001", "1002"] {
        rig.sign_in(agent, &format!("desk-{agent}"));
    }
    let ask = |search: &str, owner: Option<&str>, offset, limit| {
        let query = SessionQuery {
            search: search.to_owned(),
            owner: owner.map(str::to_owned),
            offset,
            limit,
        };
        let page = rig.engine.session_page(&query);
        let agents: Vec<String> = page.sessions.into_iter().map(|s| s.agent).collect();
        (page.matching, agents.join(" "))
    };
    assert_eq!(ask("", None, 0, None), (3, "1001 1002 1003".to_owned()));
    assert_eq!(ask("", None, 1, Some(1)), (3, "1002".to_owned()));
    assert_eq!(ask("DESK-1003", None, 0, None), (1, "1003".to_owned()));
    assert_eq!(ask("", Some("gc-9"), 0, None), (0, String::new()));
    assert_eq!(ask("", None, 9, Some(5)), (3, String::new()));
}

#[test]
fn a_consumer_that_the_broker_does_not_list_is_registered_anew() {
    let mut rig = Rig::leader();
    let consumer = |rig: &Rig| rig.engine.view().groups[0].tag.clone().unwrap();
    let before = consumer(&rig);
    let unlisted = |tag: &str| Input::ConsumerUnlisted {
        tag: tag.to_owned(),
        reason: "not listed".to_owned(),
    };
    rig.input(unlisted("gc-1.agents.leader.99"));
    rig.advance(1_000);
    assert_eq!(consumer(&rig), before, "an older tag says nothing");
    rig.input(unlisted(&before));
    rig.advance(1_000);
    let after = consumer(&rig);
    assert_ne!(after, before);
    assert!(rig.consumers.values().any(|(_, tag)| *tag == after));
    let lost = |event: &Event| matches!(event, Event::ConsumerLost { .. });
    assert_eq!(rig.events.iter().filter(|event| lost(event)).count(), 1);
}

#[test]
fn an_error_carries_the_epoch_of_its_agent_as_the_states_do() {
    let mut rig = Rig::with_agent();
    for name in ["1002", "1003", "1004"] {
        rig.sign_in(name, "desk");
    }
    rig.answers.push_back(refused(400));
    rig.send("MakeReady#1001", "", "m1");
    rig.notify_state("1001", "READY", None);
    let epochs: Vec<u64> = rig
        .published
        .iter()
        .filter_map(|(.., message)| match message {
            Outbound::Event { epoch, .. } => Some(*epoch),
            _ => None,
        })
        .collect();
    assert_eq!(epochs.len(), 2, "the error and the state");
    assert_eq!(epochs[0], epochs[1]);
}
