//! What is said of a command is what is known: of refusals at a bound, of failures that others may
//! contradict, of disks that hang and clocks that differ.

use super::journal::{ack, beat, calls, heartbeat, intent_of, pair, seen, tell, told_intents};
use super::support::*;
use crate::api::command::JournalWrite;
use crate::model::{Team, User};
use crate::peer::{ForwardRefusal, IntentRefusal, OutcomeRecord, PeerMessage, Role};
use crate::wire::event::ClientEvent;
use crate::wire::message::RawMessage;
use crate::wire::reply::{Outcome, Reply};

fn outcome_of(raw: &RawMessage, rig: &Rig, outcome: Outcome) -> OutcomeRecord {
    let intent = intent_of(raw, rig, "gc-2", 1);
    OutcomeRecord {
        resolved: false,
        key: intent.key,
        body: intent.body,
        until: intent.until,
        reply: Reply {
            command: intent.command,
            id: "1001".into(),
            outcome,
            status: None,
            instance: "gc-2".into(),
            downstream: None,
            error: None,
            retry_after_ms: None,
            body: None,
        },
    }
}

#[test]
fn what_is_in_doubt_is_written_and_told_as_such() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let sessions = vec![Rig::record("1001", "gc-2", 5)];
    rig.peer_snapshot_of(sessions);
    rig.answers.push_back(refused(400));
    let mut raw = message("MakeReady#1001", "", "m1");
    raw.redelivered = true;
    rig.deliver(raw);
    rig.advance(6_000);
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    for (_, write) in &rig.journal {
        if let JournalWrite::Outcome(record) = write {
            assert_ne!(record.reply.outcome, Outcome::Failed);
        }
    }
}

#[test]
fn a_command_without_id_whose_forward_was_repeated_is_not_run_when_it_comes_back() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let sessions = vec![Rig::record("1001", "gc-2", 5)];
    rig.peer_snapshot_of(sessions);
    rig.send("MakeCall#1001", "5000", "");
    rig.advance_with_peer(2_000, &mut seq, Role::Leader, 127);
    let (_, id, _) = rig.forwards().pop().unwrap();
    assert!(rig.forwards().len() >= 2);
    // The first one was run, and its answer was lost; the agent is nobody's there any more.
    let why = ForwardRefusal::NotOwner;
    rig.peer("gc-2", PeerMessage::ForwardRefused { id, why });
    for _ in 0..8 {
        seq += 1;
        rig.peer_beat(seq, Role::Disabled, 100);
        rig.advance(500);
    }
    rig.advance(10_000);
    assert_eq!(calls(&rig), 0, "it may have been called");
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
}

#[test]
fn what_may_have_run_is_not_refused_for_want_of_room() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    for n in 0..80 {
        rig.deliver(seen(&format!("m{n}")));
    }
    assert!(rig.outcomes().is_empty(), "{:?}", rig.outcomes());
}

#[test]
fn what_another_one_may_have_started_is_not_said_to_be_expired() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let mut raw = message("MakeCall#1001", "5000", "m1");
    raw.deadline = Some(rig.now().wall as i64 + 2_000);
    rig.deliver(raw);
    rig.advance(5);
    let key = told_intents(&rig)[0].key;
    rig.peer(
        "gc-2",
        PeerMessage::JournalAck {
            intents: Vec::new(),
            made: Vec::new(),
            outcomes: Vec::new(),
            unkept: Vec::new(),
            refused: vec![(key, IntentRefusal::Known)],
        },
    );
    for _ in 0..7 {
        beat(&mut rig, &mut seq);
    }
    assert!(rig.outcomes().is_empty(), "{:?}", rig.outcomes());
    for _ in 0..10 {
        beat(&mut rig, &mut seq);
    }
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    assert_eq!(calls(&rig), 0);
}

#[test]
fn a_disk_that_hangs_is_one_that_fails() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.journal_answers = false;
    rig.send("MakeCall#1001", "5000", "m1");
    let raw = message("MakeCall#1002", "5000", "theirs");
    let mut theirs = intent_of(&raw, &rig, "gc-2", 1);
    theirs.agent = agent("1002");
    tell(&mut rig, vec![theirs.clone()], Vec::new());
    for _ in 0..4 {
        beat(&mut rig, &mut seq);
    }
    assert!(rig.outcomes().is_empty());
    for _ in 0..6 {
        beat(&mut rig, &mut seq);
    }
    // Ours was not called, and says so; of theirs we say that we know it, and not for how long.
    assert_eq!(rig.outcomes(), [Outcome::Rejected]);
    assert!(rig.replies()[0].1.retry_after_ms.is_some());
    assert_eq!(calls(&rig), 0);
    let word = rig.said.iter().any(|(_, message)| {
        matches!(message, PeerMessage::JournalAck { intents, unkept, .. }
            if intents.contains(&theirs.key) && unkept.contains(&theirs.key))
    });
    assert!(word, "the member waits for our disk");
}

#[test]
fn an_outcome_that_a_disk_does_not_take_is_told() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.send("MakeCall#1001", "5000", "m1");
    let key = told_intents(&rig)[0].key;
    rig.journal_answers = false;
    ack(&mut rig, &[key], &[]);
    assert_eq!(calls(&rig), 1);
    for _ in 0..10 {
        beat(&mut rig, &mut seq);
    }
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
}

#[test]
fn a_failure_told_by_journal_is_agreed_upon_too() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.answers_calls = false;
    let raw = message("MakeReady#1001", "", "m1");
    rig.deliver(raw.clone());
    let theirs = outcome_of(&raw, &rig, Outcome::Failed);
    tell(&mut rig, Vec::new(), vec![theirs]);
    rig.answer(done());
    rig.advance(100);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
}

/// A client without replies, whose command came before.
#[test]
fn who_is_told_by_events_alone_is_told_again() {
    let mut rig = Rig::with_agent();
    let silent = |kind: &str, id: &str| RawMessage {
        reply_to: None,
        ..message(kind, "", id)
    };
    let errors = |rig: &Rig| {
        let told = rig.told("desk");
        let error = |event: &&ClientEvent| matches!(event, ClientEvent::Error { .. });
        told.iter().filter(error).count()
    };
    rig.answers.push_back(refused(400));
    rig.deliver(silent("MakeReady#1001", "m1"));
    rig.advance(100);
    assert_eq!(errors(&rig), 1);
    let first = rig.calls.len();
    rig.deliver(silent("MakeReady#1001", "m1"));
    rig.advance(100);
    assert_eq!((errors(&rig), rig.calls.len()), (2, first));
    // What only reads is answered anew.
    for round in 1..=2 {
        rig.deliver(silent("Hello#desk-7", "h1"));
        rig.deliver(silent("GetState#1001", "g1"));
        rig.advance(100);
        let told = rig.told("desk-7");
        let system = |event: &&ClientEvent| matches!(event, ClientEvent::System(_));
        assert_eq!(told.iter().filter(system).count(), round);
        assert_eq!(rig.calls.len(), first + round);
    }
}

#[test]
fn a_member_whose_clock_is_behind_is_believed_for_as_long() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let raw = message("MakeCall#1001", "5000", "m1");
    let mut theirs = outcome_of(&raw, &rig, Outcome::Accepted);
    theirs.until = rig.now().wall - 600_000;
    tell(&mut rig, Vec::new(), vec![theirs]);
    let other = message("MakeCall#1001", "5001", "m2");
    let mut intent = intent_of(&other, &rig, "gc-2", 1);
    intent.until = rig.now().wall - 600_000;
    tell(&mut rig, vec![intent], Vec::new());
    let beats = heartbeat(&rig, 0);
    assert!(beats.journal);
    for raw in [raw, other] {
        rig.deliver(RawMessage {
            redelivered: true,
            ..raw
        });
    }
    rig.advance(500);
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    assert_eq!(calls(&rig), 0);
}

/// Notifications that hold the state alone.
#[test]
fn a_notification_takes_nothing_away_that_it_does_not_name() {
    let mut rig = Rig::with_agent();
    let whole = User {
        first_name: "Ada".into(),
        last_name: "Byron".into(),
        team: Team {
            id: "7".into(),
            name: "Sales".into(),
        },
        ..user("1001", "NOT_READY")
    };
    rig.notify_user("1001", whole.clone());
    rig.forget();
    let state_alone = User {
        state: "READY".into(),
        ..User::default()
    };
    rig.notify_user("1001", state_alone);
    let told = rig.told("desk").into_iter().find_map(state).unwrap();
    assert_eq!(told.state, "READY");
    assert_eq!(told.full_name(), whole.full_name());
    assert_eq!(told.extension, whole.extension);
    assert_eq!(told.team, whole.team);
}

fn state(event: ClientEvent) -> Option<User> {
    match event {
        ClientEvent::State { user, .. } => Some(*user),
        _ => None,
    }
}

#[test]
fn a_refusal_gives_way_to_what_is_done_here() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.answers_calls = false;
    let raw = message("MakeReady#1001", "", "m1");
    rig.deliver(raw.clone());
    let theirs = outcome_of(&raw, &rig, Outcome::Expired);
    tell(&mut rig, Vec::new(), vec![theirs]);
    rig.answer(done());
    rig.advance(100);
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
}

#[test]
fn a_process_that_was_away_does_not_blame_its_disk() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.journal_answers = false;
    rig.send("MakeCall#1001", "5000", "m1");
    rig.advance(5);
    rig.freeze(4_000);
    rig.advance(1_200);
    assert!(rig.outcomes().is_empty(), "{:?}", rig.outcomes());
}

#[test]
fn what_is_read_again_has_the_outcome_of_the_first_time() {
    let mut rig = Rig::with_agent();
    let raw = RawMessage {
        reply_to: None,
        deadline: Some(rig.now().wall as i64 + 5_000),
        ..message("GetState#1001", "", "g1")
    };
    rig.deliver(raw.clone());
    rig.advance(100);
    let calls = rig.calls.len();
    rig.answers.push_back(refused(400));
    rig.journal.clear();
    rig.said.clear();
    rig.deliver(raw.clone());
    rig.advance(100);
    assert_eq!(rig.calls.len(), calls + 1);
    let error = |event: &ClientEvent| matches!(event, ClientEvent::Error { .. });
    assert!(rig.told("desk").iter().any(error));
    assert!(rig.journal.is_empty(), "{:?}", rig.journal);
    // Past its deadline it is not read, and has not expired.
    rig.advance(6_000);
    rig.forget();
    rig.deliver(raw);
    rig.advance(100);
    assert!(rig.calls.is_empty());
}

/// Each of two instances holds a copy: neither waits for the other's for good.
#[test]
fn a_copy_that_waits_for_one_that_is_anothers_now_goes_back() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let raw = message("MakeCall#1001", "5000", "m1");
    rig.deliver(raw.clone());
    rig.peer("gc-2", PeerMessage::Forward { id: 7, raw });
    rig.advance(5);
    let back = |rig: &Rig| {
        let said = rig.said.iter();
        said.filter(|(_, message)| matches!(message, PeerMessage::ForwardRefused { id: 7, .. }))
            .count()
    };
    assert_eq!(back(&rig), 0, "it waits for the first one");
    let mut beat = heartbeat(&rig, seq + 1);
    beat.groups[0].role = Role::Leader;
    beat.groups[0].term = 1_000;
    rig.peer("gc-2", PeerMessage::Heartbeat(beat));
    rig.advance(100);
    assert_eq!(rig.role(), Role::Follower);
    assert_eq!(back(&rig), 1);
}
