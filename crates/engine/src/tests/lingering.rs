//! Sessions of signed-out agents: how long they stay, and what keeps them.

use super::support::*;
use crate::model::Action;
use crate::peer::{PeerMessage, Role, SessionRecord};
use crate::wire::event::ClientEvent;
use crate::wire::reply::Outcome;

/// Ready, with a subscription that `Rig::notify` knows.
fn ready() -> Rig {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.advance(1_000);
    rig.users.insert(agent("1001"), user("1001", "READY"));
    rig.notify_state("1001", "READY", None);
    rig.forget();
    rig
}

fn sessions(rig: &Rig) -> usize {
    rig.engine.session_views().len()
}

/// The agent's record as it was kept last.
fn kept(rig: &Rig) -> SessionRecord {
    let kept = rig.kept.sessions.iter().rev();
    let mut kept = kept.filter_map(|(_, record)| record.clone());
    kept.next().unwrap()
}

#[test]
fn the_late_notification_of_a_sign_out_does_not_end_the_sign_in_after_it() {
    let mut rig = ready();
    rig.send("Logout#1001", "", "o1");
    rig.send("Login#1001", "pw,2001", "l2");
    rig.notify_state("1001", "LOGOUT", None);
    rig.users.insert(agent("1001"), user("1001", "NOT_READY"));
    rig.notify_state("1001", "NOT_READY", None);
    rig.advance(40_000);
    assert_eq!(sessions(&rig), 1);
    assert!(rig.unsubscribed.is_empty());
    assert!(kept(&rig).signed_in);
}

#[test]
fn a_sign_out_after_a_sign_in_that_has_no_effect_yet_ends_the_session() {
    let mut rig = ready();
    rig.send("Logout#1001", "", "o1");
    rig.notify_state("1001", "LOGOUT", None);
    rig.send("Login#1001", "pw,2001", "l2");
    rig.send("Logout#1001", "", "o2");
    rig.users.insert(agent("1001"), user("1001", "LOGOUT"));
    rig.notify_state("1001", "NOT_READY", None);
    rig.notify_state("1001", "LOGOUT", None);
    rig.advance(40_000);
    assert_eq!(sessions(&rig), 0);
}

#[test]
fn an_agent_that_signs_in_at_the_platforms_own_desktop_keeps_its_session() {
    let mut rig = ready();
    rig.notify_state("1001", "LOGOUT", None);
    rig.advance(10_000);
    rig.notify_state("1001", "NOT_READY", None);
    rig.advance(31_000);
    assert_eq!(sessions(&rig), 1);
    assert!(rig.unsubscribed.is_empty());
    rig.notify_state("1001", "LOGOUT", None);
    rig.advance(31_000);
    assert_eq!(sessions(&rig), 0);
}

#[test]
fn a_session_does_not_end_while_a_sign_in_runs() {
    for accepted in [true, false] {
        let mut rig = ready();
        rig.notify_state("1001", "LOGOUT", None);
        rig.advance(29_500);
        rig.answers_calls = false;
        rig.send("Login#1001", "pw,2001", "l2");
        rig.advance(1_000);
        assert_eq!(sessions(&rig), 1);
        rig.answer(if accepted { done() } else { refused(401) });
        rig.advance(5_000);
        assert_eq!(sessions(&rig), usize::from(accepted));
        assert_eq!(rig.unsubscribed.len(), usize::from(!accepted));
        if accepted {
            assert_eq!(rig.outcomes(), [Outcome::Accepted]);
        }
    }
}

#[test]
fn a_session_that_ended_and_came_again_is_not_removed_as_the_old_one() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let told = |rig: &mut Rig, name: &str, epoch: u64, tombstone: bool| {
        let mut record = Rig::record(name, "gc-2", epoch);
        record.tombstone = tombstone;
        rig.peer(
            "gc-2",
            PeerMessage::Delta {
                sessions: vec![record],
                destinations: Vec::new(),
                outcomes: Vec::new(),
            },
        );
    };
    told(&mut rig, "1001", 5, false);
    told(&mut rig, "1001", 50, true);
    told(&mut rig, "1001", 60, false);
    let life = crate::api::limits::TOMBSTONE_MS / 1_000;
    for second in 0..life + 5 {
        // Somebody's is there when the first one would be removed.
        if second == life / 2 {
            told(&mut rig, "1002", 70, true);
        }
        seq += 1;
        rig.peer_beat(seq, Role::Leader, 200);
        rig.advance(1_000);
    }
    let session = &rig.engine.session_views()[0];
    assert_eq!((session.owner.as_str(), session.epoch), ("gc-2", 60));
}

/// A member that was away for longer than ended sessions are remembered comes back with the session
/// as it was.
#[test]
fn an_ended_session_is_remembered_for_a_member_that_is_away() {
    let mut rig = ready();
    let mut seq = 0;
    rig.advance_with_peer(2_000, &mut seq, Role::Follower, 50);
    let before = kept(&rig);
    rig.peer("gc-2", PeerMessage::Goodbye);
    rig.send("Logout#1001", "", "o1");
    rig.users.insert(agent("1001"), user("1001", "LOGOUT"));
    rig.notify_state("1001", "LOGOUT", None);
    for _ in 0..(crate::api::limits::TOMBSTONE_MS + 60_000) / 1_000 {
        rig.advance(1_000);
    }
    assert_eq!(sessions(&rig), 0);
    rig.forget();
    let mut heartbeat = rig.heartbeat(1, Role::Joining, 50);
    heartbeat.started += 1_000;
    rig.peer_boot("gc-2", 23, PeerMessage::Heartbeat(heartbeat));
    let told = PeerMessage::Snapshot {
        part: 0,
        parts: 1,
        sessions: vec![before],
        destinations: Vec::new(),
    };
    rig.peer_boot("gc-2", 23, told);
    rig.advance(5_000);
    assert_eq!(sessions(&rig), 0);
    assert!(rig.subscribed.is_empty());
    assert_eq!(rig.actions(), []);
    // Once it has been here for as long it is forgotten.
    let life = crate::api::limits::TOMBSTONE_MS / 1_000;
    for second in 0..life + 5 {
        let mut heartbeat = rig.heartbeat(second + 2, Role::Follower, 50);
        heartbeat.started += 1_000;
        rig.peer_boot("gc-2", 23, PeerMessage::Heartbeat(heartbeat));
        rig.advance(1_000);
    }
    assert_eq!(rig.kept.sessions.last(), Some(&(agent("1001"), None)));
}

/// The owner that counted its time is gone: the next one counts anew.
#[test]
fn a_signed_out_agent_of_a_former_owner_is_let_go() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let mut record = Rig::record("1001", "gc-2", 5);
    record.signed_in = false;
    let mut waits = Rig::record("1002", "gc-2", 5);
    (waits.signed_in, waits.extension) = (false, None);
    rig.peer_snapshot_of(vec![record, waits]);
    for name in ["1001", "1002"] {
        rig.users.insert(agent(name), user(name, "LOGOUT"));
    }
    rig.peer("gc-2", PeerMessage::Goodbye);
    rig.advance(5_000);
    assert_eq!(rig.role(), Role::Leader);
    assert_eq!((sessions(&rig), rig.subscribed.len()), (2, 2));
    rig.advance(35_000);
    // Who was never signed in waits for its first sign-in.
    let left = rig.engine.session_views();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].agent, "1002");
    let reads = |action: &Action| matches!(action, Action::ReadUser | Action::ReadDialogs);
    assert!(rig.actions().iter().all(reads), "nobody is signed in");
}

/// Who signed out where the former owner was cut off has gone home; who is at another node is not
/// known there.
#[test]
fn an_agent_that_signed_out_at_its_former_owner_is_not_signed_in_again() {
    for (node, again) in [("f0", false), ("f9", true)] {
        let mut seq = 0;
        let mut rig = Rig::follower(&mut seq);
        let mut record = Rig::record("1001", "gc-2", 5);
        record.node = Some(node.into());
        rig.peer_snapshot_of(vec![record]);
        rig.users.insert(agent("1001"), user("1001", "LOGOUT"));
        rig.advance(8_000);
        assert!(rig.role().leads());
        let signs_in = |action: &Action| matches!(action, Action::SignIn { .. });
        assert_eq!(rig.actions().iter().any(signs_in), again, "{node}");
        let told = rig.told("desk");
        let out = |event: &ClientEvent| matches!(event, ClientEvent::State { user, .. } if user.state == "LOGOUT");
        assert!(again || told.iter().any(out), "{told:?}");
    }
}
