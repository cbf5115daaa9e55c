//! Instances that start: newcomers, common starts, twins.

use super::support::*;
use crate::peer::{PeerMessage, Role};

#[test]
fn a_newcomer_follows_a_leader_and_takes_over_when_it_is_lost() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.peer(
        "gc-2",
        PeerMessage::Delta {
            sessions: vec![Rig::record("1001", "gc-2", 5)],
            destinations: Vec::new(),
            outcomes: Vec::new(),
        },
    );
    assert!(rig.subscribed.is_empty());
    rig.advance(2_700);
    assert_eq!(rig.role(), Role::Follower);
    rig.advance(600);
    assert_eq!(rig.role(), Role::LeaderSingleNode, "it may be alive");
    rig.advance(500);
    assert_eq!(rig.subscribed.len(), 1);
    let session = &rig.engine.session_views()[0];
    assert_eq!(session.owner, "gc-1");
    assert!(session.epoch > 5);
}

#[test]
fn a_peer_that_takes_long_to_join_leaves_nobody_without_a_leader() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let mut newcomer = rig.heartbeat(1, Role::Joining, 110);
    newcomer.groups[0].eligible = false;
    for _ in 0..16 {
        rig.advance(250);
        rig.peer_boot("gc-3", 33, PeerMessage::Heartbeat(newcomer.clone()));
        newcomer.seq += 1;
    }
    let role = rig.role();
    assert_eq!(
        role,
        Role::LeaderSingleNode,
        "the newcomer counts as eligible"
    );
}

#[test]
fn at_a_common_start_the_higher_rank_is_waited_for_a_while() {
    let mut config = config();
    config.priority = 100;
    let mut rig = Rig::new(config);
    rig.start();
    let mut other = rig.heartbeat(1, Role::Joining, 127);
    other.groups[0].eligible = false;
    rig.peer("gc-2", PeerMessage::Heartbeat(other.clone()));
    rig.peer_snapshot();
    let own = rig.said.iter().find_map(|(_, m)| match m {
        PeerMessage::Heartbeat(beat) => Some(beat.groups[0].eligible),
        _ => None,
    });
    assert_eq!(own, Some(false), "a newcomer calls itself eligible");
    for (millis, role) in [(2_000, Role::Follower), (2_000, Role::Leader)] {
        for _ in 0..millis / 250 {
            rig.advance(250);
            other.seq += 1;
            rig.peer("gc-2", PeerMessage::Heartbeat(other.clone()));
        }
        assert_eq!(rig.role(), role);
    }
}

#[test]
fn an_earlier_process_under_the_own_id_is_given_way_to_wherever_it_is_attached() {
    let mut rig = Rig::new(config());
    rig.start();
    let mut beat = rig.heartbeat(1, Role::Leader, 127);
    beat.started = rig.config.started - 60_000;
    // What an earlier life has left comes at once, and its numbers say nothing.
    for seq in 1..10 {
        beat.seq = seq;
        rig.peer_boot("gc-1", 77, PeerMessage::Heartbeat(beat.clone()));
    }
    assert!(!rig.exited);
    for seq in 10..16 {
        rig.advance(500);
        assert_eq!(rig.role(), Role::Joining);
        beat.seq = seq;
        rig.peer_boot("gc-1", 77, PeerMessage::Heartbeat(beat.clone()));
    }
    assert!(rig.exited);
}

#[test]
fn a_later_process_under_the_own_id_is_not_given_way_to() {
    let mut rig = Rig::leader();
    let mut beat = rig.heartbeat(1, Role::Leader, 127);
    beat.started = rig.config.started + 60_000;
    for seq in 1..20 {
        rig.advance(500);
        beat.seq = seq;
        rig.peer_boot("gc-1", 77, PeerMessage::Heartbeat(beat.clone()));
    }
    assert!(!rig.exited);
    assert_eq!(rig.role(), Role::Leader);
}

#[test]
fn a_newcomer_waits_for_a_member_that_is_there_and_not_heard_yet() {
    let known = |counts: u32| {
        let mut rig = Rig::new(config());
        let restored = crate::journal::Restored {
            members: vec![(instance("gc-2"), rig.now().wall)],
            ..Default::default()
        };
        rig.engine.restore_journal(rig.now(), restored);
        rig.counts.insert(instance("gc-2"), counts);
        rig.start();
        rig.advance(3_000);
        rig
    };
    assert_eq!(known(0).role(), Role::Leader, "it is gone");
    let mut rig = known(1);
    assert_eq!(rig.role(), Role::Joining);
    // It may be frozen, or cut off: not for ever.
    rig.advance(8_000);
    assert_eq!(rig.role(), Role::Leader);
    let mut rig = known(1);
    rig.counts.insert(instance("gc-2"), 0);
    rig.advance(1_500);
    assert_eq!(rig.role(), Role::Leader);
}
