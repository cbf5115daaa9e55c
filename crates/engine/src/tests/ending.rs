//! Timers at rest, links that stay down, drain and shutdown.

use super::support::*;
use crate::api::ids::VerbId;
use crate::api::input::{Input, Verb};
use crate::peer::{PeerMessage, Role};
use crate::wire::reply::Outcome;

#[test]
fn timers_are_quiet_whatever_the_broker_policy() {
    for (brokers, spare, backup) in [
        (1, true, true),
        (2, false, false),
        (2, false, true),
        (3, true, false),
        (3, true, true),
    ] {
        let mut config = config();
        config.brokers.labels = (0..brokers).map(|n| format!("b{n}")).collect();
        config.brokers.spare = spare;
        config.brokers.priority_backup = backup;
        let mut rig = Rig::new(config);
        rig.start();
        // Fails by itself on a hot loop.
        rig.advance(20_000);
        let link = rig.active();
        rig.lose(link);
        rig.advance(20_000);
        assert_eq!(rig.role(), Role::Leader);
    }
}

#[test]
fn links_that_never_open_are_dialled_for_ever_and_calmly() {
    let mut rig = Rig::new(config());
    rig.refuses_links = true;
    rig.start();
    rig.advance(120_000);
    rig.refuses_links = false;
    rig.advance(10_000);
    assert_eq!(rig.role(), Role::Leader);
}

#[test]
fn shutdown_finishes_what_is_started_gives_back_what_waits_and_exits() {
    let mut rig = Rig::with_agent();
    rig.answers_calls = false;
    let first = rig.send("MakeReady#1001", "", "a1");
    let second = rig.send("MakeReady#1001", "", "a2");
    rig.input(Input::Shutdown);
    assert_eq!(rig.requeued, [second]);
    assert!(rig.consumers.is_empty());
    assert!(!rig.exited);
    rig.answer(done());
    assert_eq!(rig.acks, [first]);
    assert!(rig.exited);
    assert!(matches!(
        rig.said.last(),
        Some((None, PeerMessage::Goodbye))
    ));
}

#[test]
fn shutdown_ends_with_the_grace_though_a_call_never_does() {
    let mut rig = Rig::with_agent();
    rig.answers_calls = false;
    rig.send("MakeReady#1001", "", "a1");
    rig.input(Input::Shutdown);
    rig.advance(9_900);
    assert!(!rig.exited);
    rig.advance(200);
    assert!(rig.exited);
    assert!(rig.acks.is_empty());
}

/// It is to end, and the disk has not said yet that it has what has just changed.
fn ending_with_something_to_keep() -> Rig {
    let mut rig = Rig::with_agent();
    rig.advance(5_000);
    rig.store_hangs = true;
    let mut change = message("MakeReady#1001", "", "a1");
    change.timestamp = Some(WALL / 1_000);
    rig.deliver(change);
    rig.input(Input::Shutdown);
    rig
}

/// Without it an instance alone in its part of a cut would take what it did there to its grave.
#[test]
fn shutdown_waits_until_what_is_to_survive_is_on_disk() {
    let mut rig = ending_with_something_to_keep();
    assert!(
        !rig.exited,
        "the disk has not said yet that it has the session"
    );
    rig.input(Input::Kept { failure: None });
    assert!(rig.exited);
}

#[test]
fn shutdown_does_not_wait_for_a_disk_that_takes_nothing() {
    let mut rig = ending_with_something_to_keep();
    let failure = Some("no space left".to_owned());
    rig.input(Input::Kept { failure });
    assert!(rig.exited);
}

#[test]
fn shutdown_waits_for_the_confirm_of_replies() {
    let mut rig = Rig::with_agent();
    rig.broker = Broker::Holds;
    rig.send("MakeReady#1001", "", "a1");
    rig.input(Input::Shutdown);
    assert!(!rig.exited);
    rig.confirm_all();
    assert_eq!(rig.acks.len(), 1);
    assert!(rig.exited);
}

#[test]
fn a_drained_instance_stays_up_without_consuming() {
    let mut rig = Rig::with_agent();
    rig.input(Input::Operator {
        id: VerbId(1),
        verb: Verb::Drain,
    });
    rig.advance(5_000);
    assert_eq!(rig.verbs.len(), 1);
    assert!(rig.consumers.is_empty());
    assert!(!rig.exited);
}

#[test]
fn a_stopped_group_serves_again_after_start() {
    let mut rig = Rig::with_agent();
    rig.input(Input::Operator {
        id: VerbId(1),
        verb: Verb::GroupStop("agents".into()),
    });
    assert_eq!(rig.role(), Role::Disabled);
    assert!(rig.consumers.is_empty());
    rig.advance(10_000);
    rig.input(Input::Operator {
        id: VerbId(2),
        verb: Verb::GroupStart("agents".into()),
    });
    rig.advance(1_000);
    assert_eq!(rig.role(), Role::Leader);
    rig.forget();
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    assert!(rig.engine.session_views()[0].subscribed);
    rig.input(Input::Operator {
        id: VerbId(3),
        verb: Verb::GroupStop("nobody".into()),
    });
    assert!(rig.verbs[2].is_err());
}

/// Both were dialled at the start, when nobody knew which would come up.
#[test]
fn without_a_spare_one_link_is_left_once_it_serves() {
    let mut config = config();
    config.brokers.spare = false;
    let mut rig = Rig::new(config);
    rig.start();
    rig.advance(10_000);
    assert_eq!(rig.links.len(), 1, "{:?}", rig.links);
    let link = rig.active();
    rig.lose(link);
    rig.advance(10_000);
    assert_eq!(rig.role(), Role::Leader);
}
