//! Redeliveries of non-idempotent commands: whose silence proves that they were not started.

use super::journal::{
    ack, beat, calls, heartbeat, intent_of, pair, restored, seen, tell, told_intents, told_outcomes,
};
use super::support::*;
use crate::api::command::JournalWrite;
use crate::api::input::Input;
use crate::journal::Restored;
use crate::peer::PeerMessage;
use crate::wire::reply::Outcome;

#[test]
fn a_redelivery_runs_where_every_member_would_have_told() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.deliver(seen("m1"));
    let key = told_intents(&rig)[0].key;
    ack(&mut rig, &[key], &[]);
    assert_eq!(calls(&rig), 1, "both know everything, and nobody knows it");
}

#[test]
fn a_redelivery_waits_for_a_member_that_has_yet_to_tell() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.advance(500);
    seq += 1;
    let mut owing = heartbeat(&rig, seq);
    owing.settled.clear();
    rig.peer("gc-2", PeerMessage::Heartbeat(owing));
    rig.forget();
    let raw = seen("m1");
    rig.deliver(raw.clone());
    rig.advance(100);
    assert!(told_intents(&rig).is_empty());
    let mut intent = intent_of(&raw, &rig, "gc-2", 21);
    intent.alone = true;
    tell(&mut rig, vec![intent], Vec::new());
    beat(&mut rig, &mut seq);
    // The member has not acknowledged the outcome: the reply does not wait for it for ever.
    rig.advance(1_100);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    assert_eq!(calls(&rig), 0);
}

#[test]
fn a_lost_members_silence_proves_something_only_where_it_cannot_have_been_alone() {
    // Killed: its consumer is gone at once. Silent: it may have served alone for a while.
    for (killed, outcome) in [(true, Outcome::Accepted), (false, Outcome::InDoubt)] {
        let mut seq = 0;
        let mut rig = pair(&mut seq);
        if killed {
            rig.counts.insert(instance("gc-2"), 1);
            rig.advance(300);
            rig.counts.insert(instance("gc-2"), 0);
            rig.advance(900);
        } else {
            rig.advance(4_000);
        }
        rig.forget();
        rig.deliver(seen("m1"));
        rig.advance(100);
        assert_eq!(rig.outcomes(), [outcome]);
    }
}

#[test]
fn a_member_of_former_days_that_is_not_heard_proves_nothing() {
    let mut rig = restored(|rig| Restored {
        members: vec![(instance("gc-2"), rig.now().wall)],
        ..Restored::default()
    });
    rig.deliver(seen("m1"));
    rig.advance(100);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    let mut rig = restored(|rig| Restored {
        lost_until: rig.now().wall + 600_000,
        ..Restored::default()
    });
    rig.deliver(seen("m1"));
    assert_eq!(rig.outcomes(), [Outcome::InDoubt], "the journal was lost");
    rig.send("MakeCall#1001", "5000", "m2");
    assert_eq!(rig.outcomes()[1], Outcome::Accepted, "it was never seen");
}

#[test]
fn a_member_that_an_operator_has_forgotten_is_no_cause_of_doubt() {
    let forget = |rig: &mut Rig, name: &str| {
        rig.verbs.clear();
        rig.input(Input::Operator {
            id: crate::api::ids::VerbId(1),
            verb: crate::api::input::Verb::Forget(name.to_owned()),
        });
        rig.advance(100);
        rig.verbs.pop().expect("an answer")
    };
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    for (name, why) in [
        ("gc-2", "gc-2 is there"),
        ("gc-1", "itself"),
        ("gc-9", "no instance gc-9 is known here; known: gc-2"),
        ("no such!", "no instance"),
    ] {
        let said = forget(&mut rig, name).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
    // Silent, so it may be alive and alone.
    rig.advance(60_000);
    let said = forget(&mut rig, "gc-2").unwrap_err();
    assert!(said.contains("10 minutes"), "{said}");
    rig.deliver(seen("c1"));
    rig.advance(100);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    rig.advance(600_000);
    assert_eq!(forget(&mut rig, "gc-2").unwrap(), "forgotten");
    let written = rig
        .journal
        .iter()
        .any(|(_, write)| matches!(write, JournalWrite::Member(id, 0) if *id == instance("gc-2")));
    assert!(written);
    rig.deliver(seen("c2"));
    rig.advance(100);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt, Outcome::Accepted]);
    // It is alive after all: known again.
    beat(&mut rig, &mut seq);
    assert!(forget(&mut rig, "gc-2").unwrap_err().contains("is there"));
}

#[test]
fn a_member_that_returns_is_told_what_it_missed_before_it_is_called_settled() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.advance(4_000);
    for n in 0..150 {
        rig.send("MakeCall#1001", "5000", &format!("m{n}"));
    }
    rig.forget();
    let mut told = 0;
    for _ in 0..10 {
        beat(&mut rig, &mut seq);
        let keys: Vec<[u8; 16]> = told_outcomes(&rig).iter().map(|o| o.key).collect();
        told += keys.len();
        rig.forget();
        if !keys.is_empty() {
            let settled = |rig: &Rig| {
                rig.said.iter().any(|(_, message)| {
                    matches!(message, PeerMessage::Heartbeat(beat) if !beat.settled.is_empty())
                })
            };
            assert!(!settled(&rig));
        }
        ack(&mut rig, &[], &keys);
    }
    assert!(told >= 150, "{told}");
    rig.forget();
    rig.advance(600);
    let last = rig
        .said
        .iter()
        .rev()
        .find_map(|(_, message)| match message {
            PeerMessage::Heartbeat(beat) => Some(beat.settled.clone()),
            _ => None,
        });
    assert_eq!(last, Some(vec![instance("gc-2")]));
}

/// Whoever owned the agent when the newer change was carried out.
#[test]
fn an_older_state_change_that_comes_again_does_not_undo_a_newer_one_of_the_former_owner() {
    let sent = |id: &str, ago: u64| {
        let mut raw = message("MakeNotReady#1001", "", id);
        raw.timestamp = Some(WALL / 1_000 - ago);
        raw
    };
    // Who carries a change out tells.
    let mut rig = Rig::with_agent();
    let mut seq = 0;
    rig.advance_with_peer(1_000, &mut seq, crate::peer::Role::Follower, 50);
    rig.deliver(sent("m5", 5));
    rig.advance(200);
    let told = rig
        .said
        .iter()
        .rev()
        .find_map(|(_, message)| match message {
            PeerMessage::Delta { sessions, .. } => sessions.last()?.newest_change,
            _ => None,
        });
    assert_eq!(told, Some(WALL / 1_000 - 5));
    // The next owner goes by it.
    for (newest, runs) in [(Some(WALL / 1_000 - 5), false), (None, true)] {
        let mut rig = Rig::new(config());
        let record = crate::peer::SessionRecord {
            newest_change: newest,
            ..Rig::record("1001", "gc-1", 5)
        };
        rig.users.insert(agent("1001"), user("1001", "READY"));
        rig.engine.restore(vec![record], Vec::new(), 5);
        rig.start();
        rig.advance(2_000);
        rig.forget();
        let mut old = sent("m4", 9);
        old.redelivered = true;
        rig.deliver(old);
        rig.advance(3_000);
        let outcome = if runs {
            Outcome::Accepted
        } else {
            Outcome::InDoubt
        };
        assert_eq!(rig.outcomes(), [outcome], "{newest:?}");
    }
}
