//! Messages of other instances that come twice, late, or of an earlier start.

use super::journal::{pair, told_intents};
use super::support::*;
use crate::api::ids::BootId;
use crate::peer::{PeerMessage, Role};
use crate::wire::reply::Outcome;

/// Two ways to a broker carry a message each; without an id nothing but its number tells them apart.
#[test]
fn a_copy_of_a_command_without_id_that_was_answered_is_not_run() {
    let mut rig = Rig::with_agent();
    let raw = message("MakeCall#1001", "5000", "");
    for _ in 0..2 {
        let raw = raw.clone();
        rig.peer("gc-2", PeerMessage::Forward { id: 7, raw });
    }
    assert_eq!(rig.calls.len(), 1);
    let done = |(_, said): &&_| matches!(said, PeerMessage::ForwardDone { id: 7 });
    assert_eq!(rig.said.iter().filter(done).count(), 2, "it is said again");
}

/// Its delivery is gone, and comes again by itself.
#[test]
fn nor_one_that_was_taken_back() {
    let mut rig = Rig::with_agent();
    rig.peer("gc-2", PeerMessage::ForwardWithdrawn { id: 7 });
    let raw = message("MakeCall#1001", "5000", "");
    rig.peer("gc-2", PeerMessage::Forward { id: 7, raw });
    assert!(rig.calls.is_empty());
}

/// An owner may be there and never hear of one command.
#[test]
fn a_command_that_a_living_owner_never_answers_is_answered_in_the_end() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let mut raw = message("MakeCall#1001", "5000", "m1");
    raw.deadline = Some((WALL + 10_000) as i64);
    rig.deliver(raw);
    rig.advance_with_peer(30_000, &mut seq, Role::Leader, 127);
    assert!(rig.outcomes().is_empty(), "the owner may be at it");
    rig.advance_with_peer(60_000, &mut seq, Role::Leader, 127);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
}

/// What it had acknowledged in memory only is gone.
#[test]
fn an_earlier_start_acknowledges_nothing() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.deliver(message("MakeCall#1001", "5000", "m1"));
    let intent = told_intents(&rig)[0].clone();
    let acked = || PeerMessage::JournalAck {
        intents: vec![intent.key],
        made: vec![intent.at],
        outcomes: Vec::new(),
        unkept: Vec::new(),
        refused: Vec::new(),
    };
    rig.peer_boot("gc-2", 21, acked());
    assert!(rig.calls.is_empty());
    rig.peer("gc-2", acked());
    assert_eq!(rig.calls.len(), 1);
}

/// The lead is the third one's, not the follower's to give.
#[test]
fn a_late_claim_is_not_granted_where_another_one_leads() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let mut beat = rig.heartbeat(1, Role::Follower, 110);
    beat.started = WALL + 2;
    rig.peer_boot("gc-3", 33, PeerMessage::Heartbeat(beat));
    let claim = |term| PeerMessage::Claim {
        group: "agents".into(),
        term,
    };
    rig.said.clear();
    rig.peer_boot("gc-3", 33, claim(3));
    let granted = |(_, said): &(_, PeerMessage)| matches!(said, PeerMessage::Grant { .. });
    assert!(!rig.said.iter().any(granted));
}

/// A process that was started under its id by mistake does not take the lead from it.
#[test]
fn a_second_process_at_another_broker_is_not_taken_for_a_restart_while_the_first_is_heard() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.advance_with_peer(2_000, &mut seq, Role::Leader, 127);
    for other in 1..=6 {
        let mut second = rig.heartbeat(other, Role::Joining, 127);
        (second.broker, second.started) = ("elsewhere".into(), WALL + 50_000);
        rig.peer_boot("gc-2", 99, PeerMessage::Heartbeat(second));
        rig.advance_with_peer(500, &mut seq, Role::Leader, 127);
        assert_eq!(rig.role(), Role::Follower);
    }
    // Once the first is silent the other one counts: it is a restart.
    rig.advance(2_000);
    let mut second = rig.heartbeat(7, Role::Joining, 127);
    (second.broker, second.started) = ("elsewhere".into(), WALL + 50_000);
    rig.peer_boot("gc-2", 99, PeerMessage::Heartbeat(second));
    let known = rig.engine.members.get(&instance("gc-2")).unwrap();
    assert_eq!(known.boot, BootId(99));
}
