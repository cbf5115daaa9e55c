//! What survives a restart.

use crate::Event;
use crate::api::command::Keep;
use crate::api::ids::VerbId;
use crate::api::input::{Input, Verb};
use crate::peer::{PeerMessage, Role};
use crate::view::NO_EPOCHS;
use crate::wire::reply::Outcome;

use super::support::*;

#[test]
fn a_restored_session_is_served_without_a_new_sign_in() {
    let mut rig = Rig::with_agent();
    rig.advance(1_000);
    let kept = rig.kept.clone();
    assert!(kept.epoch > 0);
    let mut again = Rig::restored(kept);
    again.send("MakeReady#1001", "", "m9");
    assert_eq!(again.outcomes(), [Outcome::Accepted]);
}

#[test]
fn a_failed_write_is_tried_again_with_what_changed_meanwhile() {
    let mut rig = Rig::with_agent();
    rig.advance(1_000);
    rig.store_fails = true;
    rig.send("Hello#another-desk", "", "h9");
    rig.advance(1_000);
    let known = |kept: &Keep| {
        kept.destinations
            .iter()
            .any(|d| d.as_str() == "another-desk")
    };
    assert!(!known(&rig.kept));
    rig.store_fails = false;
    rig.advance(6_000);
    assert!(known(&rig.kept));
}

#[test]
fn the_store_forgets_the_destinations_that_are_forgotten() {
    let mut rig = Rig::leader();
    for number in 0..crate::limits::DESTINATIONS + 3 {
        rig.send(&format!("Hello#d-{number}"), "", &format!("h-{number}"));
        if number % 500 == 0 {
            rig.advance(100);
            rig.forget();
        }
    }
    // Heard again, it is none of the oldest.
    rig.advance(5_000);
    let known = |rig: &Rig, name: &str| rig.kept.destinations.contains(&destination(name));
    assert_eq!(rig.kept.destinations.len(), crate::limits::DESTINATIONS);
    assert!(!known(&rig, "d-0") && !known(&rig, "d-2") && known(&rig, "d-3"));
}

#[test]
fn ended_sessions_that_were_restored_are_forgotten_in_the_end() {
    let record = crate::peer::SessionRecord {
        tombstone: true,
        ..Rig::record("1001", "gc-1", 5)
    };
    let mut rig = Rig::new(config());
    rig.engine.restore(vec![record], Vec::new(), 5);
    rig.start();
    rig.advance(590_000);
    assert!(rig.kept.sessions.is_empty());
    rig.advance(20_000);
    assert_eq!(rig.kept.sessions, [(agent("1001"), None)]);
}

/// Whether it has said last that it can lead.
fn eligible(rig: &Rig) -> bool {
    let mut beats = rig.said.iter().rev();
    let beat = beats.find_map(|(_, message)| match message {
        PeerMessage::Heartbeat(beat) => Some(beat.groups[0].eligible),
        _ => None,
    });
    beat.expect("a heartbeat")
}

#[test]
fn an_instance_whose_store_takes_nothing_is_not_said_to_be_able_to_lead() {
    let mut rig = Rig::new(config());
    rig.store_fails = true;
    let mut seq = 1;
    rig.start();
    rig.peer_beat(1, Role::Leader, 100);
    rig.peer_snapshot();
    rig.advance_with_peer(4_000, &mut seq, Role::Leader, 100);
    assert_eq!(rig.role(), Role::Follower);
    assert!(!eligible(&rig), "it has no epoch, and gets none");
    let warns = |rig: &Rig| rig.engine.view().warnings.iter().any(|w| w == NO_EPOCHS);
    assert!(warns(&rig));
    rig.store_fails = false;
    rig.advance_with_peer(2_000, &mut seq, Role::Leader, 100);
    assert!(eligible(&rig) && !warns(&rig));
    // Who leads has its epoch, whatever becomes of the disk.
    let mut rig = Rig::with_agent();
    rig.store_fails = true;
    rig.send("Hello#another-desk", "", "h9");
    rig.advance(3_000);
    assert_eq!(rig.role(), Role::Leader);
    assert!(eligible(&rig));
}

#[test]
fn a_store_that_does_not_answer_counts_as_one_that_takes_nothing() {
    let mut rig = Rig::new(config());
    rig.store_hangs = true;
    let mut seq = 1;
    rig.start();
    rig.peer_beat(1, Role::Leader, 100);
    rig.peer_snapshot();
    rig.advance_with_peer(8_000, &mut seq, Role::Leader, 100);
    assert!(!eligible(&rig), "it has no epoch, and gets none");
    let told = |rig: &Rig| {
        let told = |event: &&Event| matches!(event, Event::NotKept { .. });
        rig.events.iter().filter(told).count()
    };
    assert_eq!(told(&rig), 1);
    // It was only slow.
    rig.store_hangs = false;
    rig.input(Input::Kept { failure: None });
    rig.advance_with_peer(2_000, &mut seq, Role::Leader, 100);
    assert!(eligible(&rig));
}

#[test]
fn an_operator_does_not_wait_for_a_store_that_does_not_answer() {
    let mut rig = Rig::leader();
    rig.store_hangs = true;
    let verb = Verb::GroupStop("agents".to_owned());
    rig.input(Input::Operator {
        id: VerbId(7),
        verb,
    });
    rig.advance(5_000);
    let [Err(words)] = &rig.verbs[..] else {
        panic!("{:?}", rig.verbs);
    };
    assert!(words.contains("has not answered"), "{words}");
}

/// What one machine cannot do just now is not the command's outcome.
#[test]
fn a_connect_that_the_store_has_no_epoch_for_may_come_again_under_its_id() {
    let mut rig = Rig::leader();
    // All that was reserved is used up.
    rig.store_fails = true;
    let used = Rig::record("9999", "gc-2", 1_000_000);
    rig.peer(
        "gc-2",
        PeerMessage::Delta {
            sessions: vec![used],
            destinations: Vec::new(),
            outcomes: Vec::new(),
        },
    );
    rig.send("Connect#1001", "desk,pw", "c1");
    assert_eq!(rig.outcomes(), [Outcome::Rejected]);
    let (_, reply) = rig.replies().pop().unwrap();
    assert!(reply.retry_after_ms.is_some());
    rig.confirm_all();
    rig.store_fails = false;
    rig.advance(5_000);
    rig.forget();
    rig.send("Connect#1001", "desk,pw", "c1");
    rig.advance(1_000);
    assert_eq!(rig.outcomes(), [Outcome::Ok]);
}
