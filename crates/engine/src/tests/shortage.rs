//! A shortage of this machine is nobody else's failure.

use super::support::*;
use crate::Event;
use crate::api::input::Notice;
use crate::model::{Action, NodeHealth};
use crate::wire::reply::Outcome;

/// Nothing that was decided says that somebody else has failed.
fn nobody_else_is_blamed(rig: &Rig) {
    let blamed = rig.events.iter().find(|event| {
        matches!(
            event,
            Event::DownstreamState { up: false, .. }
                | Event::DownstreamFailover { .. }
                | Event::Service { .. }
                | Event::SubscriptionLost { .. }
        )
    });
    assert_eq!(blamed, None);
    assert_eq!(rig.consumers.len(), 1, "consuming goes on");
    let view = rig.engine.view();
    assert!(view.in_service);
    assert!(view.downstreams[0].current && view.downstreams[0].state == "up");
}

fn counted(rig: &Rig) -> usize {
    let short = |event: &&Event| matches!(event, Event::Shortage { .. });
    rig.events.iter().filter(short).count()
}

#[test]
fn a_request_without_room_is_refused_for_now_and_made_once_when_it_comes_again() {
    let mut rig = Rig::with_agent();
    rig.answers.push_back(no_room());
    rig.send("MakeCall#1001", "5000", "m1");
    let reply = rig.replies()[0].1.clone();
    assert_eq!(reply.outcome, Outcome::Rejected);
    assert!(reply.retry_after_ms.is_some());
    assert_eq!(rig.calls.len(), 1, "no second node fares better");
    nobody_else_is_blamed(&rig);
    let warned = rig.engine.view().warnings;
    assert!(warned[0].contains("no descriptors left"), "{warned:?}");
    // The lane is free, and the command is no duplicate of one that was not executed.
    rig.forget();
    rig.send("MakeReady#1001", "", "m2");
    rig.send("MakeCall#1001", "5000", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted, Outcome::Accepted]);
    let calls = rig.actions();
    let made = calls
        .iter()
        .filter(|action| matches!(action, Action::MakeCall { .. }));
    assert_eq!(made.count(), 1);
    rig.advance(70_000);
    assert_eq!(rig.engine.view().warnings.len(), 0, "it is over");
}

#[test]
fn what_was_begun_is_not_refused_as_if_nothing_had_happened() {
    let mut rig = Rig::with_agent();
    rig.answers.extend([done(), no_room()]);
    rig.notify_state("1001", "READY", None);
    rig.send("force_logout#1001", "", "m1");
    rig.notify_state("1001", "NOT_READY", None);
    rig.advance(3_000);
    assert_eq!(rig.outcomes(), [Outcome::Failed]);
}

#[test]
fn probes_without_room_say_nothing_about_the_nodes() {
    let mut rig = Rig::with_agent();
    rig.nodes = vec![
        NodeHealth::NoRoom(no_descriptors()),
        NodeHealth::NoRoom(no_descriptors()),
    ];
    rig.advance(30_000);
    nobody_else_is_blamed(&rig);
    assert!(counted(&rig) > 1);
    rig.forget();
    // And who was down is not said to be back.
    rig.nodes[0] = unreachable();
    rig.advance(12_000);
    rig.nodes[0] = NodeHealth::NoRoom(no_descriptors());
    rig.advance(30_000);
    assert_eq!(rig.engine.view().downstreams[0].state, "down");
}

#[test]
fn a_connect_without_room_is_told_when_to_come_again() {
    let mut rig = Rig::with_agent();
    rig.notifications = Notifications::NoRoom;
    rig.send("Connect#1002", "desk,pw", "c1");
    let reply = rig.replies()[0].1.clone();
    assert_eq!(reply.outcome, Outcome::Rejected);
    assert!(reply.retry_after_ms.is_some());
    nobody_else_is_blamed(&rig);
    rig.notifications = Notifications::Up;
    rig.forget_published();
    rig.send("Connect#1002", "desk,pw", "c1");
    assert_eq!(rig.outcomes(), [Outcome::Ok]);
}

#[test]
fn a_lost_session_without_room_waits_and_stays_at_its_node() {
    let mut rig = Rig::with_agent();
    rig.notifications = Notifications::NoRoom;
    rig.notify(
        "1001",
        Notice::Lost {
            reason: "closed".into(),
            conflict: false,
        },
    );
    rig.events.clear();
    rig.advance(60_000);
    nobody_else_is_blamed(&rig);
    assert!((5..=14).contains(&counted(&rig)), "{}", counted(&rig));
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    rig.notifications = Notifications::Up;
    rig.advance(8_000);
    assert!(rig.engine.session_views()[0].subscribed);
}

fn with_seats(seats: usize) -> Rig {
    let mut config = config();
    config.seats = seats;
    let mut rig = Rig::new(config);
    rig.start();
    rig.advance(2_000);
    rig
}

#[test]
fn who_is_served_goes_on_when_all_seats_are_taken() {
    let mut rig = with_seats(2);
    rig.sign_in("1001", "desk");
    rig.sign_in("1002", "desk");
    rig.send("Connect#1003", "desk,pw", "c3");
    let reply = rig.replies()[0].1.clone();
    assert_eq!(reply.outcome, Outcome::Rejected);
    assert_eq!(reply.retry_after_ms, Some(5_000));
    assert!(rig.subscribed.is_empty());
    nobody_else_is_blamed(&rig);
    rig.forget_published();
    rig.send("MakeReady#1001", "", "m1");
    rig.send("Connect#1002", "other,pw", "c2");
    assert_eq!(rig.outcomes(), [Outcome::Accepted, Outcome::Ok]);
    // A seat that is free for a moment is its holder's.
    rig.notify(
        "1001",
        Notice::Lost {
            reason: "closed".into(),
            conflict: false,
        },
    );
    rig.forget_published();
    rig.send("Connect#1003", "desk,pw", "c4");
    assert_eq!(rig.outcomes(), [Outcome::Rejected]);
    rig.advance(2_000);
    let views = rig.engine.session_views();
    assert!(views.iter().all(|session| session.subscribed), "{views:?}");
    // One that is given up is the newcomer's.
    rig.notify_state("1001", "LOGOUT", None);
    rig.advance(40_000);
    rig.forget_published();
    rig.send("Connect#1003", "desk,pw", "c5");
    assert_eq!(rig.outcomes(), [Outcome::Ok]);
}

#[test]
fn of_more_agents_than_seats_those_that_fit_are_served_and_the_operator_is_told() {
    let mut rig = with_seats(9);
    for name in ["1001", "1002", "1003"] {
        rig.sign_in(name, "desk");
    }
    rig.advance(1_000);
    let mut config = config();
    config.seats = 2;
    let mut again = Rig::new(config);
    let records = rig.kept.sessions.into_iter();
    let records = records.filter_map(|(_, record)| record).collect();
    again
        .engine
        .restore(records, rig.kept.destinations, rig.kept.epoch);
    again.start();
    again.advance(20_000);
    nobody_else_is_blamed(&again);
    let view = again.engine.view();
    assert_eq!((view.sessions.owned, view.sessions.subscribed), (3, 2));
    let words = "room for the notification sessions of 2 agents, 3 are known";
    assert!(view.warnings[0].contains(words), "{:?}", view.warnings);
    let over = |event: &Event| matches!(event, Event::TakeoverFinished { .. });
    assert!(again.events.iter().any(over), "nobody waits for the rest");
}
