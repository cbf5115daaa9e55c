//! Taking the lead back, and giving it away.

use super::support::*;
use crate::Event;
use crate::api::input::Input;
use crate::peer::{PeerMessage, Role};

/// The one of the greater rank is back, beside a leader with an agent.
fn returned() -> (Rig, u64) {
    let mut rig = Rig::new(config());
    rig.start();
    rig.peer_beat(1, Role::Leader, 100);
    rig.peer_snapshot_of(vec![Rig::record("1001", "gc-2", 5)]);
    (rig, 1)
}

#[test]
fn a_returned_instance_takes_back_after_hold_preparation_and_grant() {
    let (mut rig, mut seq) = returned();
    rig.advance_with_peer(9_000, &mut seq, Role::Leader, 100);
    assert_eq!(rig.role(), Role::Follower);
    assert!(rig.subscribed.is_empty());
    rig.advance_with_peer(3_000, &mut seq, Role::Leader, 100);
    assert_eq!(rig.subscribed.len(), 1, "prepared");
    let term = rig
        .said
        .iter()
        .find_map(|(_, m)| match m {
            PeerMessage::Claim { term, .. } => Some(*term),
            _ => None,
        })
        .unwrap();
    assert_eq!(rig.role(), Role::Follower, "not before the grant");
    rig.peer(
        "gc-2",
        PeerMessage::Grant {
            group: "agents".into(),
            term,
        },
    );
    assert_eq!(rig.role(), Role::Leader);
    assert_eq!(rig.engine.session_views()[0].owner, "gc-1");
}

/// The heartbeat of a leader that has stepped down comes before its grant: the lead is taken back
/// all the same, and is said to be.
#[test]
fn a_lead_that_a_heartbeat_gives_is_a_takeback_as_by_a_grant() {
    let (mut rig, mut seq) = returned();
    rig.advance_with_peer(12_000, &mut seq, Role::Leader, 100);
    let claims = |(_, said): &(_, PeerMessage)| matches!(said, PeerMessage::Claim { .. });
    assert!(rig.said.iter().any(claims));
    rig.peer_beat(seq + 1, Role::Follower, 100);
    assert_eq!(rig.role(), Role::Leader);
    let mut why = rig.events.iter().filter_map(|event| match event {
        Event::RoleChanged { to, reason, .. } if to.leads() => Some(*reason),
        _ => None,
    });
    assert_eq!(why.next_back(), Some("takeback"));
    // One that leads in a later term deposes it at once: the next way back takes longer.
    let mut beat = rig.heartbeat(seq + 2, Role::Leader, 100);
    beat.groups[0].term = 1_000;
    rig.peer("gc-2", PeerMessage::Heartbeat(beat));
    let mut why = rig.events.iter().filter_map(|event| match event {
        Event::RoleChanged { to, reason, .. } => Some((*to, *reason)),
        _ => None,
    });
    assert_eq!(why.next_back(), Some((Role::Follower, "outranked")));
    assert_eq!(rig.engine.groups[0].hold_factor, 2);
}

#[test]
fn a_leader_grants_only_when_what_it_started_is_finished() {
    let mut config = config();
    config.priority = 100;
    let mut rig = Rig::new(config);
    rig.start();
    rig.advance(2_000);
    rig.sign_in("1001", "desk");
    rig.peer_beat(1, Role::Follower, 127);
    rig.answers_calls = false;
    rig.send("MakeReady#1001", "", "m1");
    rig.send("MakeReady#1001", "", "m2");
    let claim = PeerMessage::Claim {
        group: "agents".into(),
        term: 9,
    };
    rig.peer("gc-2", claim);
    let granted = |rig: &Rig| {
        rig.said
            .iter()
            .any(|(_, m)| matches!(m, PeerMessage::Grant { .. }))
    };
    assert_eq!(rig.role(), Role::Draining);
    rig.advance(200);
    assert!(!granted(&rig));
    rig.answer(done());
    assert_eq!(rig.calls.len(), 1, "the second is the new leader's");
    rig.advance(50);
    assert!(granted(&rig));
    assert_eq!(rig.role(), Role::Follower);
    let mut seq = 1;
    rig.hear(&mut seq);
    assert_eq!(rig.forwards().len(), 1);
    rig.advance(3_000);
    assert_eq!(rig.unsubscribed.len(), 1);
}

/// A platform that does not answer one agent's command: the others' go on, and the lead is given
/// away once that one has ended.
#[test]
fn a_command_that_takes_long_holds_the_others_up_for_a_moment_only() {
    let mut config = config();
    config.priority = 100;
    let mut rig = Rig::new(config);
    rig.start();
    rig.advance(2_000);
    rig.sign_in("1001", "desk");
    rig.sign_in("1002", "other");
    let mut seq = 1;
    rig.peer_beat(seq, Role::Follower, 127);
    let epoch = rig.engine.session_views()[0].epoch;
    let claim = || PeerMessage::Claim {
        group: "agents".into(),
        term: 9_000,
    };
    rig.answers_calls = false;
    rig.send("MakeReady#1001", "", "slow");
    rig.peer("gc-2", claim());
    assert_eq!(rig.role(), Role::Draining);
    let mut waits = Vec::new();
    for round in 0..6 {
        let since = rig.mono;
        rig.send("MakeReady#1002", "", &format!("m{round}"));
        while rig.open_calls.len() < 2 {
            rig.advance_with_peer(250, &mut seq, Role::Follower, 127);
            assert!(rig.mono < since + 20_000, "it waits for the other's");
        }
        waits.push(rig.mono - since);
        let call = rig.open_calls.remove(1);
        let outcome = done();
        rig.input(Input::CallDone { call, outcome });
        rig.advance_with_peer(1_000, &mut seq, Role::Follower, 127);
        rig.peer("gc-2", claim());
    }
    assert!(waits[0] <= 1_000, "{waits:?}");
    assert_eq!(waits[1..], [0; 5], "it would be for nothing");
    assert_eq!(rig.outcomes().len(), 6);
    assert_eq!(rig.role(), Role::Leader);
    // It leads on in the same term, with the same subscriptions.
    assert_eq!(rig.engine.session_views()[0].epoch, epoch);
    assert!(rig.subscribed.is_empty() && rig.unsubscribed.is_empty());
    rig.answer(done());
    rig.peer("gc-2", claim());
    assert_eq!(rig.role(), Role::Follower);
    let granted = |(_, said): &(_, PeerMessage)| matches!(said, PeerMessage::Grant { .. });
    assert!(rig.said.iter().any(granted));
}

/// A platform that takes long for everything: the time to drain grows until it is enough.
#[test]
fn a_drain_that_was_too_short_is_a_longer_one_the_next_time() {
    let mut config = config();
    config.priority = 100;
    let mut rig = Rig::new(config);
    rig.start();
    rig.advance(2_000);
    rig.sign_in("1001", "desk");
    let mut seq = 1;
    rig.peer_beat(seq, Role::Follower, 127);
    rig.answers_calls = false;
    let mut tries = 0;
    while rig.role() != Role::Follower {
        tries += 1;
        assert!(tries < 6, "never granted");
        rig.send("MakeReady#1001", "", &format!("m{tries}"));
        rig.peer(
            "gc-2",
            PeerMessage::Claim {
                group: "agents".into(),
                term: 9_000,
            },
        );
        assert_eq!(rig.role(), Role::Draining);
        rig.advance_with_peer(2_500, &mut seq, Role::Follower, 127);
        rig.answer(done());
        rig.advance(20);
    }
    assert_eq!(tries, 4, "0.5, 1 and 2 s were too short");
}

#[test]
fn a_takeback_that_is_given_up_leaves_no_second_subscription() {
    let (mut rig, mut seq) = returned();
    rig.advance_with_peer(12_000, &mut seq, Role::Leader, 100);
    assert_eq!(rig.subscribed.len(), 1);
    rig.nodes = vec![unreachable(), unreachable()];
    rig.advance_with_peer(12_000, &mut seq, Role::Leader, 100);
    assert_eq!(rig.role(), Role::Follower);
    assert_eq!(rig.unsubscribed.len(), 1);
}

#[test]
fn what_was_prepared_is_let_go_when_a_higher_one_leads() {
    let mut config = config();
    config.priority = 100;
    let mut rig = Rig::new(config);
    let mut seq = 1;
    rig.start();
    rig.peer_beat(1, Role::Leader, 90);
    rig.peer_snapshot_of(vec![Rig::record("1001", "gc-2", 5)]);
    rig.advance_with_peer(12_000, &mut seq, Role::Leader, 90);
    assert_eq!(rig.subscribed.len(), 1, "prepared");
    let mut first = rig.heartbeat(1, Role::Leader, 127);
    for _ in 0..16 {
        rig.peer_boot("gc-3", 33, PeerMessage::Heartbeat(first.clone()));
        first.seq += 1;
        seq += 1;
        rig.peer_beat(seq, Role::Follower, 90);
        rig.advance(250);
        assert_eq!(rig.role(), Role::Follower);
    }
    assert_eq!(rig.unsubscribed.len(), 1);
}

#[test]
fn stopping_a_group_lets_go_what_was_prepared_for_it() {
    let (mut rig, mut seq) = returned();
    rig.advance_with_peer(12_000, &mut seq, Role::Leader, 100);
    assert_eq!(rig.subscribed.len(), 1, "prepared");
    rig.input(Input::Operator {
        id: crate::api::ids::VerbId(1),
        verb: crate::api::input::Verb::GroupStop("agents".into()),
    });
    rig.advance_with_peer(3_000, &mut seq, Role::Leader, 100);
    assert_eq!(rig.unsubscribed.len(), 1);
}

/// The lead is lost right after it was taken back: the next way back takes longer.
#[test]
fn the_hold_doubles_where_a_takeback_did_not_last() {
    let mut rig = Rig::leader();
    let mut seq = 0;
    let mut waits = Vec::new();
    for turn in 1..=3 {
        // Another one leads in a later term.
        let mut beat = rig.heartbeat(seq + 1, Role::Leader, 100);
        seq += 1;
        beat.groups[0].term = 1_000 * turn;
        rig.peer("gc-2", PeerMessage::Heartbeat(beat));
        if turn == 1 {
            rig.peer_snapshot();
        }
        assert_eq!(rig.role(), Role::Follower, "turn {turn}");
        rig.said.clear();
        let since = rig.mono;
        let claimed = |rig: &Rig| {
            rig.said.iter().find_map(|(_, m)| match m {
                PeerMessage::Claim { term, .. } => Some(*term),
                _ => None,
            })
        };
        let term = loop {
            rig.advance(250);
            seq += 1;
            let mut beat = rig.heartbeat(seq, Role::Leader, 100);
            beat.groups[0].term = 1_000 * turn;
            rig.peer("gc-2", PeerMessage::Heartbeat(beat));
            assert!(rig.mono < since + 200_000, "it never claims");
            if let Some(term) = claimed(&rig) {
                break term;
            }
        };
        waits.push(rig.mono - since);
        let group = "agents".to_owned();
        rig.peer("gc-2", PeerMessage::Grant { group, term });
        assert_eq!(rig.role(), Role::Leader);
    }
    assert!(waits[0] >= 10_000 && waits[0] < 15_000, "{waits:?}");
    assert!(waits[1] >= 20_000 && waits[1] < 25_000, "{waits:?}");
    assert!(waits[2] >= 40_000 && waits[2] < 45_000, "{waits:?}");
}

/// A process that ends soon after it took the lead back did not lead for long either.
#[test]
fn a_takeback_that_a_restart_ends_makes_the_next_one_wait_longer() {
    // When it restarts after the grant, milliseconds, and how long the next hold is at least.
    for (after, factor) in [(1_000, 2), (70_000, 1)] {
        let mut seq = 0;
        let mut rig = Rig::new(config());
        rig.start();
        rig.peer_beat(1, Role::Leader, 100);
        rig.peer_snapshot();
        seq += 1;
        rig.advance_with_peer(14_000, &mut seq, Role::Leader, 100);
        let claimed = rig.said.iter().find_map(|(_, m)| match m {
            PeerMessage::Claim { term, .. } => Some(*term),
            _ => None,
        });
        let group = "agents".to_owned();
        let term = claimed.expect("a claim");
        rig.peer("gc-2", PeerMessage::Grant { group, term });
        assert_eq!(rig.role(), Role::Leader);
        rig.advance_with_peer(after, &mut seq, Role::Follower, 100);
        let kept = rig.kept.groups.iter().find(|group| group.name == "agents");
        assert_eq!(kept.map(|group| group.hold_factor), Some(factor));
        let mut again = Rig::restored(rig.kept.clone());
        again.advance(100);
        assert!(again.role().leads());
        let mut beat = again.heartbeat(1, Role::Leader, 100);
        beat.groups[0].term = 100_000;
        again.peer("gc-2", PeerMessage::Heartbeat(beat));
        let mut waited = 0;
        again.said.clear();
        while !again
            .said
            .iter()
            .any(|(_, m)| matches!(m, PeerMessage::Claim { .. }))
        {
            again.advance(250);
            waited += 250;
            assert!(waited < 60_000);
            let mut beat = again.heartbeat(1 + waited, Role::Leader, 100);
            beat.groups[0].term = 100_000;
            again.peer("gc-2", PeerMessage::Heartbeat(beat));
        }
        let hold = 10_000 * factor;
        assert!(
            (hold..hold + 5_000).contains(&waited),
            "{waited} after {after}"
        );
    }
}
