//! What members are remembered to have, and that they were ever there.

use super::journal::*;
use super::support::*;
use crate::api::command::JournalWrite;
use crate::journal::Restored;
use crate::model::CallOutcome;
use crate::peer::{IntentRecord, OutcomeRecord, PeerMessage};
use crate::wire::event::ClientEvent;
use crate::wire::reply::Outcome;

type Key = [u8; 16];

const HOUR: u64 = 60 * 60 * 1_000;
const WEEK: u64 = 7 * 24 * HOUR;

/// When the disk was told that `gc-2` is there, or 0 that it is forgotten.
fn noted(rig: &Rig) -> Vec<u64> {
    let writes = rig.journal.iter().filter_map(|(_, write)| match write {
        JournalWrite::Member(id, heard) if *id == instance("gc-2") => Some(*heard),
        _ => None,
    });
    writes.collect()
}

fn knows(rig: &Rig) -> bool {
    let mut known = rig.engine.book.known_members();
    known.any(|id| *id == instance("gc-2"))
}

#[test]
fn a_member_that_was_heard_long_before_a_restart_is_a_cause_of_doubt_still() {
    let mut rig = restored(|rig| Restored {
        members: vec![(instance("gc-2"), rig.now().wall - 2 * WEEK)],
        ..Restored::default()
    });
    rig.advance(10_000);
    rig.deliver(seen("m1"));
    rig.advance(6_000);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    assert_eq!(calls(&rig), 0);
}

#[test]
fn the_disk_knows_to_the_hour_that_a_member_is_there() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    for _ in 0..2 * HOUR / 500 + 10 {
        beat(&mut rig, &mut seq);
    }
    let now = rig.now().wall;
    assert_eq!(noted(&rig).len(), 2);
    assert!(noted(&rig).iter().all(|heard| now - heard < 2 * HOUR));
}

#[test]
fn a_disk_that_did_not_take_a_member_is_told_it_again() {
    let mut rig = Rig::leader();
    rig.journal_failure = Some("disk full".into());
    beat(&mut rig, &mut 0);
    rig.journal_failure = None;
    rig.forget();
    beat(&mut rig, &mut 1);
    beat(&mut rig, &mut 2);
    assert_eq!(noted(&rig).len(), 1);
}

#[test]
fn a_member_that_is_there_is_not_forgotten_and_one_that_is_silent_for_a_week_is() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.freeze(WEEK + HOUR);
    beat(&mut rig, &mut seq);
    rig.advance(1_500);
    assert!(knows(&rig), "it is there");
    rig.advance(30_000);
    rig.freeze(WEEK - HOUR);
    rig.advance(2_000);
    assert!(knows(&rig));
    rig.forget();
    rig.freeze(2 * HOUR);
    rig.advance(2_000);
    assert!(!knows(&rig));
    assert_eq!(noted(&rig), [0]);
    rig.deliver(seen("m1"));
    rig.advance(6_000);
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
}

/// `gc-2` acknowledges; its disk has taken it or not.
fn word(rig: &mut Rig, intents: &[Key], outcomes: &[Key], kept: bool) {
    let message = PeerMessage::JournalAck {
        intents: intents.to_vec(),
        made: Vec::new(),
        outcomes: outcomes.to_vec(),
        unkept: match kept {
            true => Vec::new(),
            false => [intents, outcomes].concat(),
        },
        refused: Vec::new(),
    };
    rig.peer("gc-2", message);
    rig.advance(5);
}

#[test]
fn a_member_whose_disk_did_not_take_it_is_told_again_after_its_restart() {
    for kept in [true, false] {
        let mut seq = 0;
        let mut rig = pair(&mut seq);
        rig.send("MakeCall#1001", "5000", "m1");
        let key = told_intents(&rig)[0].key;
        word(&mut rig, &[key], &[], true);
        rig.advance(5);
        word(&mut rig, &[], &[key], kept);
        rig.advance(5);
        assert_eq!(rig.outcomes(), [Outcome::Accepted]);
        rig.forget();
        seq = 1;
        let beat = heartbeat(&rig, seq);
        rig.peer_boot("gc-2", 23, PeerMessage::Heartbeat(beat));
        rig.advance(100);
        let told = told_outcomes(&rig).iter().any(|outcome| outcome.key == key);
        assert_eq!(told, !kept);
        // What its disk has since is not told it again.
        let ack = PeerMessage::JournalAck {
            intents: Vec::new(),
            made: Vec::new(),
            outcomes: vec![key],
            unkept: Vec::new(),
            refused: Vec::new(),
        };
        rig.peer_boot("gc-2", 23, ack);
        rig.forget();
        let beat = heartbeat(&rig, seq);
        rig.peer_boot("gc-2", 24, PeerMessage::Heartbeat(beat));
        rig.advance(100);
        assert!(told_outcomes(&rig).is_empty());
    }
}

#[test]
fn who_could_not_write_it_says_so_and_writes_it_when_it_is_told_again() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let intent = intent_of(&message("MakeCall#1001", "5000", "m1"), &rig, "gc-2", 22);
    let said = |rig: &mut Rig| {
        rig.advance(5);
        let said = std::mem::take(&mut rig.said);
        let acks = said.into_iter().filter_map(|(_, message)| match message {
            PeerMessage::JournalAck {
                intents, unkept, ..
            } => Some((intents, unkept)),
            _ => None,
        });
        acks.collect::<Vec<_>>()
    };
    let key = intent.key;
    for (failure, unkept) in [
        (Some("disk full"), vec![key]),
        (Some("disk full"), vec![key]),
        (None, vec![]),
        (None, vec![]),
    ] {
        rig.journal_failure = failure.map(str::to_owned);
        tell(&mut rig, vec![intent.clone()], Vec::new());
        assert_eq!(said(&mut rig), [(vec![key], unkept)]);
    }
}

#[test]
fn an_intent_made_anew_is_acknowledged_where_only_the_one_before_it_is_known() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let first = intent_of(&message("MakeCall#1001", "5000", "m1"), &rig, "gc-2", 22);
    // That the first one was taken back was lost on the way.
    let anew = IntentRecord {
        at: first.at + 1,
        ..first.clone()
    };
    for intent in [first, anew] {
        rig.said.clear();
        tell(&mut rig, vec![intent.clone()], Vec::new());
        let acks = rig.said.iter().filter_map(|(_, message)| match message {
            PeerMessage::JournalAck { intents, made, .. } => Some((intents[0], made[0])),
            _ => None,
        });
        assert_eq!(acks.collect::<Vec<_>>(), [(intent.key, intent.at)]);
    }
}

#[test]
fn who_gives_way_takes_its_intent_back_from_all() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let third = heartbeat(&rig, 1);
    rig.peer_boot("gc-3", 33, PeerMessage::Heartbeat(third));
    let raw = message("MakeCall#1001", "5000", "m1");
    rig.deliver(raw.clone());
    let key = told_intents(&rig)[0].key;
    let other = intent_of(&raw, &rig, "gc-2", 22);
    rig.said.clear();
    tell(&mut rig, vec![other.clone()], Vec::new());
    let taken_back = rig.said.iter().any(|(to, message)| {
        *to == Some(instance("gc-3"))
            && matches!(message, PeerMessage::Journal { withdrawn, .. } if *withdrawn == [key])
    });
    assert!(taken_back);
    let kept = rig.engine.book.open_intent(&key);
    assert_eq!(kept, Some(&other));
    let written = rig.journal.last().map(|(_, write)| write);
    assert!(matches!(written, Some(JournalWrite::Intent(intent)) if *intent == other));
}

/// The platform's only call, made long after all commands.
fn a_call(to: &str) -> CallOutcome {
    dialog(to, "2033-11-14T22:13:21.500Z")
}

fn resolved(rig: &Rig) -> Vec<String> {
    let told = rig.told("desk").into_iter();
    let resolved = told.filter_map(|event| match event {
        ClientEvent::Resolved { id, .. } => Some(id),
        _ => None,
    });
    resolved.collect()
}

#[test]
fn the_call_of_a_client_that_dials_again_is_no_proof_of_the_one_in_doubt() {
    for (second, outcome, told) in [
        (done(), Outcome::Accepted, vec![]),
        // Which of the two it is nobody knows.
        (timed_out(), Outcome::InDoubt, vec![]),
        (refused(400), Outcome::Failed, vec!["m1".to_owned()]),
    ] {
        let mut rig = Rig::with_agent();
        rig.answers.push_back(timed_out());
        rig.send("MakeCall#1001", "5000", "m1");
        rig.advance(100);
        rig.answers.push_back(second);
        rig.send("MakeCall#1001", "5000", "m2");
        assert_eq!(rig.outcomes(), [Outcome::InDoubt, outcome]);
        rig.answers.extend([a_call("5000"), a_call("5000")]);
        rig.advance(10_000);
        assert_eq!(resolved(&rig), told);
    }
}

#[test]
fn nor_is_one_that_another_member_has_made_since() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let raw = seen("m1");
    let mut intent: IntentRecord = intent_of(&raw, &rig, "gc-2", 22);
    tell(&mut rig, vec![intent.clone()], Vec::new());
    rig.advance(4_000);
    intent = intent_of(&message("MakeCall#1001", "5000", "m2"), &rig, "gc-2", 22);
    let reply = {
        let mut single = Rig::with_agent();
        single.deliver(message("MakeCall#1001", "5000", "m2"));
        single.replies().remove(0).1
    };
    assert_eq!(reply.outcome, Outcome::Accepted);
    // As a member that was away is told it: without its intent.
    let outcome = OutcomeRecord {
        resolved: false,
        key: intent.key,
        body: intent.body,
        until: intent.until,
        reply,
    };
    tell(&mut rig, Vec::new(), vec![outcome]);
    rig.advance(4_000);
    rig.answers.extend([a_call("5000"), a_call("5000")]);
    rig.deliver(raw);
    rig.advance(10_000);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    assert!(resolved(&rig).is_empty());
}

#[test]
fn outcomes_that_no_peer_can_be_told_are_bounded() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let record = super::peers::outcome_of(&message("MakeCall#1001", "5000", "m1"), &rig);
    for _ in 0..crate::limits::OUTCOMES_TOLD_AGAIN + 5 {
        let replication = &mut rig.engine.cluster.replication;
        replication.tell_outcome(record.clone());
    }
    rig.input(crate::api::input::Input::Tick);
    rig.advance(200);
    let told = rig.said.iter().map(|(_, message)| match message {
        crate::peer::PeerMessage::Delta { outcomes, .. } => outcomes.len(),
        _ => 0,
    });
    assert_eq!(told.sum::<usize>(), crate::limits::OUTCOMES_TOLD_AGAIN);
}

/// In a cut the agent's client may have dialled again at the other side: not before this process was
/// there to be in doubt.
#[test]
fn nor_is_any_where_a_member_may_have_made_one_unheard() {
    let before = "2023-11-14T22:13:19.900Z";
    for (away, cut, created, outcome) in [
        (false, false, "2033-11-14T22:13:21.500Z", Outcome::Accepted),
        (true, false, "2033-11-14T22:13:21.500Z", Outcome::InDoubt),
        (true, false, before, Outcome::Accepted),
        // It may be at the broker that cannot be reached, and have answered in doubt from there.
        (true, true, before, Outcome::InDoubt),
    ] {
        let raw = seen("m1");
        let mut rig = restored(|rig| {
            let mut intent = intent_of(&raw, rig, "gc-1", 10);
            intent.at = WALL - 1_000;
            Restored {
                intents: vec![intent],
                members: away.then(|| (instance("gc-2"), WALL)).into_iter().collect(),
                ..Restored::default()
            }
        });
        rig.answers
            .extend([dialog("5000", created), dialog("5000", created)]);
        if cut {
            let spare = rig.links.iter().find(|link| link.0 != rig.active());
            let spare = spare.map(|link| link.0);
            rig.refuses_links = true;
            if let Some(link) = spare {
                rig.lose(link);
            }
        }
        rig.deliver(raw);
        rig.advance(8_000);
        assert_eq!(rig.outcomes(), [outcome], "{away} {cut} {created}");
    }
}
