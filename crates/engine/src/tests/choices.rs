//! What operators chose, beside what was so before.

use super::support::*;
use super::verbs::{
    beat_with, choice, claim_of_peer, give, granted, last_beat, leader_wish, off_wish, pair,
};
use crate::api::input::Verb;
use crate::peer::{PeerMessage, Role};

#[test]
fn failover_that_is_on_again_starts_no_group_that_was_stopped_before() {
    for stopped_before in [true, false] {
        let mut seq = 0;
        let mut rig = Rig::leader();
        rig.advance_with_peer(2_000, &mut seq, Role::Follower, 100);
        if stopped_before {
            give(&mut rig, Verb::GroupStop("agents".into())).unwrap();
            rig.advance_with_peer(20_000, &mut seq, Role::Leader, 100);
            assert_eq!(rig.role(), Role::Disabled);
        }
        give(&mut rig, Verb::FailoverStop("agents".into())).unwrap();
        rig.advance_with_peer(1_000, &mut seq, Role::Leader, 100);
        assert_eq!(rig.role(), Role::Disabled);
        // It outlives a restart which of them stopped it.
        let kept = rig.kept.clone();
        let mut rig = Rig::restored(kept);
        assert_eq!(rig.role(), Role::Disabled);
        let on = choice(9, leader_wish("gc-2"));
        let mut seq = 0;
        beat_with(&mut rig, &mut seq, Role::Leader, 100, &on);
        rig.peer_snapshot();
        for _ in 0..8 {
            rig.advance(250);
            beat_with(&mut rig, &mut seq, Role::Leader, 100, &on);
        }
        let role = match stopped_before {
            true => Role::Disabled,
            false => Role::Follower,
        };
        assert_eq!(rig.role(), role);
    }
}

#[test]
fn a_choice_for_an_instance_that_cannot_lead_keeps_nobodys_agents_from_the_leader() {
    let mut seq = 0;
    let mut rig = Rig::leader();
    let wish = choice(1, leader_wish("gc-2"));
    for _ in 0..8 {
        rig.advance(250);
        seq += 1;
        let mut beat = rig.heartbeat(seq, Role::Follower, 100);
        beat.groups[0].choice = Some(wish.clone());
        beat.groups[0].eligible = false;
        rig.peer("gc-2", PeerMessage::Heartbeat(beat));
    }
    assert!(rig.role().leads());
    rig.peer_snapshot_of(vec![Rig::record("1001", "gc-2", 5)]);
    rig.advance(1_500);
    assert_eq!(rig.engine.session_views()[0].owner, "gc-1");
}

/// An instance that was started anew while it was stopped joins when it is told to lead.
#[test]
fn a_choice_of_one_that_joins_now_stands() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let off = choice(7, off_wish("gc-2"));
    beat_with(&mut rig, &mut seq, Role::Disabled, 100, &off);
    rig.advance(600);
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    let mut known = choice(8, leader_wish("gc-2"));
    known.at = WALL + 5_000;
    beat_with(&mut rig, &mut seq, Role::Joining, 100, &known);
    rig.advance(600);
    let stands = last_beat(&rig).groups[0].choice.clone().unwrap();
    assert_eq!(stands.wish, leader_wish("gc-2"));
    beat_with(&mut rig, &mut seq, Role::Follower, 100, &known);
    claim_of_peer(&mut rig, 90);
    assert!(granted(&rig));
}
