//! Downstream nodes, doubt, subscriptions.

use super::support::*;
use crate::engine::Event;
use crate::engine::input::Input;
use crate::engine::input::Notice;
use crate::model::Action;
use crate::wire::event::{ClientEvent, SystemStatus};
use crate::wire::reply::Outcome;

#[test]
fn an_unsafe_request_that_timed_out_is_in_doubt_and_tries_no_second_node() {
    let mut rig = Rig::with_agent();
    rig.answers.push_back(timed_out());
    rig.send("MakeCall#1001", "5000", "m1");
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    assert_eq!(rig.calls.len(), 1);
}

#[test]
fn an_idempotent_request_that_timed_out_is_tried_once_more() {
    let mut rig = Rig::with_agent();
    rig.answers.extend([timed_out(), timed_out(), timed_out()]);
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Failed]);
    let nodes: Vec<usize> = rig.calls.iter().map(|c| c.node).collect();
    assert_eq!(nodes, [0, 1]);
}

#[test]
fn what_was_not_sent_goes_to_the_secondary_also_when_unsafe() {
    let mut rig = Rig::with_agent();
    rig.answers.push_back(not_sent());
    rig.send("MakeCall#1001", "5000", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    let nodes: Vec<usize> = rig
        .calls
        .iter()
        .filter(|c| matches!(c.action, Action::MakeCall { .. }))
        .map(|c| c.node)
        .collect();
    assert_eq!(nodes, [0, 1]);
    rig.advance(1_000);
    assert_eq!(
        rig.subscribed.last().map(|(.., node)| *node),
        Some(1),
        "subscriptions follow"
    );
}

#[test]
fn both_down_tells_everyone_and_stops_consuming_and_service_comes_back() {
    let mut rig = Rig::with_agent();
    rig.send("Hello#watcher", "", "h1");
    rig.forget();
    rig.nodes = vec![unreachable(), unreachable()];
    rig.advance(6_000);
    for desk in ["desk", "watcher"] {
        let out = ClientEvent::System(SystemStatus::OutOfService);
        let told = rig.told(desk);
        assert_eq!(told.iter().filter(|event| **event == out).count(), 1);
    }
    assert!(rig.consumers.is_empty());
    rig.forget();
    rig.nodes = vec![unreachable(), in_service()];
    rig.advance(6_000);
    assert!(
        rig.told("desk")
            .contains(&ClientEvent::System(SystemStatus::InService))
    );
    assert_eq!(rig.consumers.len(), 1);
    rig.forget();
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    assert_eq!(rig.calls.last().unwrap().node, 1);
}

#[test]
fn commands_wait_for_service_until_their_deadline() {
    let mut rig = Rig::with_agent();
    rig.nodes = vec![unreachable(), unreachable()];
    rig.advance(6_000);
    rig.forget();
    rig.send("MakeReady#1001", "", "m1");
    assert!(rig.calls.is_empty());
    rig.advance(31_000);
    assert_eq!(rig.outcomes(), [Outcome::Expired]);
}

#[test]
fn a_lost_subscription_is_had_again_and_what_was_missed_is_read() {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.advance(1_000);
    rig.calls.clear();
    let before = rig.subscribed.len();
    rig.notify(
        "1001",
        Notice::Lost {
            reason: "closed".into(),
            conflict: true,
        },
    );
    rig.advance(1_000);
    assert_eq!(rig.subscribed.len(), before + 1);
    assert_eq!(rig.actions(), [Action::ReadUser, Action::ReadDialogs]);
    assert!(rig.events.iter().any(|e| matches!(
        e,
        Event::SubscriptionLost {
            kind: "conflict",
            ..
        }
    )));
}

#[test]
fn an_unreachable_service_is_tried_with_growing_delays_and_on_the_other_node() {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.notifications = Notifications::Unreachable;
    rig.subscribed.truncate(1);
    rig.notify(
        "1001",
        Notice::Lost {
            reason: "closed".into(),
            conflict: false,
        },
    );
    rig.advance(60_000);
    let tries = rig.subscribed.len() - 1;
    assert!((5..=60).contains(&tries), "{tries} tries in a minute");
    assert!(rig.subscribed.iter().any(|(.., node)| *node == 1));
    rig.notifications = Notifications::Up;
    rig.advance(10_000);
    assert!(rig.engine.session_views()[0].subscribed);
}

#[test]
fn a_password_that_is_refused_later_is_told_and_not_tried_for_ever() {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.notifications = Notifications::Refuses;
    let before = rig.subscribed.len();
    rig.notify(
        "1001",
        Notice::Lost {
            reason: "closed".into(),
            conflict: false,
        },
    );
    rig.advance(60_000);
    assert_eq!(rig.subscribed.len(), before + 1);
    assert!(
        rig.told("other")
            .iter()
            .any(|e| matches!(e, ClientEvent::Error { code, .. } if code == "SUBSCRIPTION_FAILED"))
    );
}

#[test]
fn late_answers_are_counted_and_ignored() {
    let mut rig = Rig::with_agent();
    rig.input(Input::CallDone {
        call: crate::engine::ids::CallId(424_242),
        outcome: done(),
    });
    assert_eq!(rig.events, [Event::Stale { what: "call" }]);
}

#[test]
fn a_sign_out_that_was_accepted_is_not_undone_by_reading_the_agent_again() {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.send("Logout#1001", "", "o1");
    rig.users.insert(agent("1001"), user("1001", "LOGOUT"));
    rig.calls.clear();
    // The notification of the sign-out is lost with the subscription.
    rig.notify(
        "1001",
        Notice::Lost {
            reason: "closed".into(),
            conflict: false,
        },
    );
    rig.advance(2_000);
    assert!(
        !rig.actions()
            .iter()
            .any(|action| matches!(action, Action::SignIn { .. })),
        "signed in behind the client's back"
    );
}
