//! Non-idempotent commands: durable and acknowledged before the call, and what becomes of those
//! that may have run.

use super::support::*;
use crate::Event;
use crate::api::command::JournalWrite;
use crate::api::ids::BootId;
use crate::api::input::Input;
use crate::journal::Restored;
use crate::model::Action;
use crate::peer::{Heartbeat, IntentRecord, IntentRefusal, OutcomeRecord, PeerMessage, Role};
use crate::wire::event::ClientEvent;
use crate::wire::message::RawMessage;
use crate::wire::reply::Outcome;

type Key = [u8; 16];

/// A heartbeat of a member that keeps a journal, owes us nothing and has heard our last one.
pub(super) fn heartbeat(rig: &Rig, seq: u64) -> Heartbeat {
    let mut beat = rig.heartbeat(seq, Role::Follower, 100);
    beat.journal = true;
    beat.settled = vec![instance("gc-1")];
    beat.echo = vec![(instance("gc-1"), rig.config.boot, rig.own_seq(), 0)];
    beat
}

pub(super) fn beat(rig: &mut Rig, seq: &mut u64) {
    rig.advance(500);
    *seq += 1;
    let beat = heartbeat(rig, *seq);
    rig.peer("gc-2", PeerMessage::Heartbeat(beat));
}

/// A leader with an agent, and a follower that keeps a journal.
pub(super) fn pair(seq: &mut u64) -> Rig {
    let mut rig = Rig::leader();
    for _ in 0..3 {
        beat(&mut rig, seq);
    }
    rig.sign_in("1001", "desk");
    for _ in 0..3 {
        beat(&mut rig, seq);
    }
    rig.forget();
    rig
}

pub(super) fn told_intents(rig: &Rig) -> Vec<IntentRecord> {
    let journal = rig.said.iter().filter_map(|(_, message)| match message {
        PeerMessage::Journal { intents, .. } => Some(intents.clone()),
        _ => None,
    });
    journal.flatten().collect()
}

pub(super) fn told_outcomes(rig: &Rig) -> Vec<OutcomeRecord> {
    let journal = rig.said.iter().filter_map(|(_, message)| match message {
        PeerMessage::Journal { outcomes, .. } => Some(outcomes.clone()),
        _ => None,
    });
    journal.flatten().collect()
}

fn withdrawn(rig: &Rig) -> Vec<Key> {
    let journal = rig.said.iter().filter_map(|(_, message)| match message {
        PeerMessage::Journal { withdrawn, .. } => Some(withdrawn.clone()),
        _ => None,
    });
    journal.flatten().collect()
}

fn acked(rig: &Rig) -> (Vec<Key>, Vec<(Key, IntentRefusal)>) {
    let mut all = (Vec::new(), Vec::new());
    for (_, message) in &rig.said {
        if let PeerMessage::JournalAck {
            intents, refused, ..
        } = message
        {
            all.0.extend(intents);
            all.1.extend(refused);
        }
    }
    all
}

pub(super) fn ack(rig: &mut Rig, intents: &[Key], outcomes: &[Key]) {
    let message = PeerMessage::JournalAck {
        intents: intents.to_vec(),
        made: Vec::new(),
        outcomes: outcomes.to_vec(),
        unkept: Vec::new(),
        refused: Vec::new(),
    };
    rig.peer("gc-2", message);
}

pub(super) fn calls(rig: &Rig) -> usize {
    let made = |action: &Action| matches!(action, Action::MakeCall { .. });
    rig.actions().iter().filter(|action| made(action)).count()
}

fn keyed(raw: &RawMessage, rig: &Rig) -> (Key, [u8; 8]) {
    let command = crate::wire::command::parse(raw, &rig.config.parse, rig.now().wall).unwrap();
    crate::jobs::ledger::key_of(&command).unwrap()
}

pub(super) fn intent_of(raw: &RawMessage, rig: &Rig, by: &str, boot: u64) -> IntentRecord {
    let (key, body) = keyed(raw, rig);
    IntentRecord {
        key,
        body,
        until: rig.now().wall + 600_000,
        agent: agent("1001"),
        command: "MakeCall".into(),
        epoch: 100,
        by: instance(by),
        boot: BootId(boot),
        at: rig.now().wall,
        alone: false,
    }
}

pub(super) fn tell(rig: &mut Rig, intents: Vec<IntentRecord>, outcomes: Vec<OutcomeRecord>) {
    let message = PeerMessage::Journal {
        intents,
        outcomes,
        withdrawn: Vec::new(),
        withdrawn_made: Vec::new(),
        history: false,
    };
    rig.peer("gc-2", message);
    rig.advance(5);
}

pub(super) fn seen(id: &str) -> RawMessage {
    let mut raw = message("MakeCall#1001", "5000", id);
    raw.redelivered = true;
    raw
}

/// Signed in, with what a journal kept, and alone.
pub(super) fn restored(make: impl FnOnce(&Rig) -> Restored) -> Rig {
    let mut rig = Rig::new(config());
    let kept = make(&rig);
    let now = rig.now();
    rig.engine.restore_journal(now, kept);
    rig.start();
    rig.advance(2_000);
    rig.sign_in("1001", "desk");
    rig.forget();
    rig
}

#[test]
fn a_call_waits_for_the_disk_and_the_member_and_its_reply_for_both_again() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.journal_answers = false;
    rig.send("MakeCall#1001", "5000", "m1");
    rig.send("MakeReady#1001", "", "m2");
    let intents = told_intents(&rig);
    assert_eq!(intents.len(), 1);
    let key = intents[0].key;
    ack(&mut rig, &[key], &[]);
    assert_eq!(calls(&rig), 0, "it is not on disk here");
    let write = rig.journal.pop().unwrap();
    assert!(matches!(write.1, JournalWrite::Intent(_)));
    rig.input(Input::Journaled {
        ids: vec![write.0],
        failure: None,
    });
    assert_eq!(calls(&rig), 1);
    assert!(rig.outcomes().is_empty(), "the outcome is not on disk");
    rig.advance(5);
    assert_eq!(told_outcomes(&rig).len(), 1);
    let write = rig.journal.pop().unwrap();
    assert!(matches!(write.1, JournalWrite::Outcome(_)));
    rig.input(Input::Journaled {
        ids: vec![write.0],
        failure: None,
    });
    assert!(rig.outcomes().is_empty(), "the member has no outcome");
    ack(&mut rig, &[], &[key]);
    assert_eq!(rig.outcomes(), [Outcome::Accepted, Outcome::Accepted]);
    assert_eq!(rig.acks.len(), 2);
}

#[test]
fn the_word_on_an_intent_that_was_taken_back_is_no_word_on_the_one_made_since() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.send("MakeCall#1001", "5000", "m1");
    let intent = told_intents(&rig).pop().unwrap();
    let word = |made| PeerMessage::JournalAck {
        intents: vec![intent.key],
        made: vec![made],
        outcomes: Vec::new(),
        unkept: Vec::new(),
        refused: Vec::new(),
    };
    rig.peer("gc-2", word(intent.at - 1));
    assert_eq!(calls(&rig), 0, "that was another intent");
    rig.peer("gc-2", word(intent.at));
    assert_eq!(calls(&rig), 1);
}

#[test]
fn an_intent_that_was_taken_back_is_not_acknowledged_and_one_made_anew_is() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.journal_answers = false;
    let first = intent_of(&message("MakeCall#1001", "5000", "m1"), &rig, "gc-2", 22);
    let again = IntentRecord {
        at: first.at + 1,
        ..first.clone()
    };
    let written = |rig: &mut Rig| {
        let ids = rig.journal.drain(..).map(|(id, _)| id).collect();
        rig.input(Input::Journaled { ids, failure: None });
        rig.advance(5);
        acked(rig).0
    };
    let journal = |intents, withdrawn| PeerMessage::Journal {
        intents,
        outcomes: Vec::new(),
        withdrawn,
        withdrawn_made: Vec::new(),
        history: false,
    };
    rig.peer("gc-2", journal(vec![first.clone()], Vec::new()));
    rig.peer("gc-2", journal(Vec::new(), vec![first.key]));
    assert!(written(&mut rig).is_empty(), "it is not there any more");
    rig.peer("gc-2", journal(vec![first.clone()], Vec::new()));
    rig.peer("gc-2", journal(vec![again.clone()], vec![first.key]));
    let kept = rig.journal.last().map(|(_, write)| write.clone());
    assert!(
        matches!(&kept, Some(JournalWrite::Intent(intent)) if intent.at == again.at),
        "{kept:?}"
    );
    assert_eq!(written(&mut rig), [first.key]);
    // Told once more, and late: the one that is there now is not meant.
    let late = PeerMessage::Journal {
        intents: Vec::new(),
        outcomes: Vec::new(),
        withdrawn: vec![first.key],
        withdrawn_made: vec![first.at],
        history: false,
    };
    rig.peer("gc-2", late);
    assert!(rig.engine.book.open_intent(&first.key).is_some());
}

#[test]
fn what_a_member_missed_is_told_again_though_the_timer_was_wanted_earlier() {
    let raw = seen("m1");
    let mut rig = restored(|rig| Restored {
        intents: vec![intent_of(&raw, rig, "gc-1", 5)],
        ..Restored::default()
    });
    beat(&mut rig, &mut 0);
    // Its acknowledgements are gathered for a moment: that is the timer's next time.
    for id in ["m2", "m3"] {
        let intent = intent_of(&message("MakeCall#1001", "5000", id), &rig, "gc-2", 22);
        tell(&mut rig, vec![intent], Vec::new());
    }
    rig.advance(1_000);
    let told = rig.said.iter().filter(|(_, message)| {
        matches!(message, PeerMessage::Journal { history: true, intents, .. } if !intents.is_empty())
    });
    assert!(told.count() >= 3, "nothing was acknowledged");
}

#[test]
fn an_intent_told_by_a_third_member_is_acknowledged_to_its_maker_too() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let intent = intent_of(&message("MakeCall#1001", "5000", "m1"), &rig, "gc-3", 33);
    let told = |history| PeerMessage::Journal {
        intents: vec![intent.clone()],
        outcomes: Vec::new(),
        withdrawn: Vec::new(),
        withdrawn_made: Vec::new(),
        history,
    };
    rig.peer("gc-2", told(true));
    rig.advance(5);
    rig.peer_boot("gc-3", 33, told(false));
    rig.advance(5);
    assert_eq!(acked(&rig).0, [intent.key, intent.key]);
}

#[test]
fn without_the_members_word_there_is_no_call_until_it_is_lost() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.sign_in("1002", "desk");
    rig.send("MakeCall#1001", "5000", "m1");
    rig.send("MakeReady#1002", "", "m2");
    assert_eq!(calls(&rig), 0);
    assert_eq!(
        rig.outcomes(),
        [Outcome::Accepted],
        "others are not delayed"
    );
    rig.advance(1_000);
    assert!(told_intents(&rig).len() >= 3, "it is said again");
    assert_eq!(calls(&rig), 0);
    rig.advance(2_500);
    assert_eq!(calls(&rig), 1);
    let alone = rig
        .journal
        .iter()
        .any(|(_, write)| matches!(write, JournalWrite::Intent(intent) if intent.alone));
    assert!(alone, "that it is made alone is durable first");
    assert_eq!(rig.outcomes(), [Outcome::Accepted, Outcome::Accepted]);
}

#[test]
fn a_disk_that_fails_refuses_before_the_call_and_the_id_may_come_again() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.journal_failure = Some("disk full".into());
    rig.send("MakeCall#1001", "5000", "m1");
    rig.advance(5);
    let (_, reply) = rig.replies().remove(0);
    assert_eq!(reply.outcome, Outcome::Rejected);
    assert_eq!(reply.error.unwrap().code, "JOURNAL_UNAVAILABLE");
    assert!(reply.retry_after_ms.is_some());
    assert_eq!(withdrawn(&rig).len(), 1);
    assert_eq!((calls(&rig), rig.acks.len()), (0, 1));
    rig.send("MakeReady#1001", "", "m2");
    assert_eq!(
        rig.outcomes().len(),
        2,
        "idempotent commands need no journal"
    );
    rig.journal_failure = None;
    rig.forget();
    rig.send("MakeCall#1001", "5000", "m1");
    let key = told_intents(&rig)[0].key;
    ack(&mut rig, &[key], &[]);
    rig.advance(5);
    ack(&mut rig, &[], &[key]);
    assert_eq!((calls(&rig), rig.outcomes()), (1, vec![Outcome::Accepted]));
}

#[test]
fn a_member_that_has_not_heard_us_lately_holds_the_call_back() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    // It is heard, but hears nothing: it may think that we are lost.
    for _ in 0..6 {
        rig.advance(500);
        seq += 1;
        let mut deaf = heartbeat(&rig, seq);
        deaf.echo.clear();
        rig.peer("gc-2", PeerMessage::Heartbeat(deaf));
    }
    rig.send("MakeCall#1001", "5000", "m1");
    let key = told_intents(&rig)[0].key;
    ack(&mut rig, &[key], &[]);
    rig.advance(200);
    assert_eq!(calls(&rig), 0);
    beat(&mut rig, &mut seq);
    rig.advance(60);
    assert_eq!(calls(&rig), 1);
}

#[test]
fn an_intent_whose_delivery_is_gone_is_taken_back() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let link = rig.active();
    rig.send("MakeCall#1001", "5000", "m1");
    let key = told_intents(&rig)[0].key;
    rig.lose(link);
    rig.advance(5);
    ack(&mut rig, &[key], &[]);
    rig.advance(100);
    assert_eq!(withdrawn(&rig), [key]);
    assert_eq!(calls(&rig), 0);
    assert_eq!(rig.engine.view().inflight, 0);
}

#[test]
fn an_intent_of_another_start_is_asked_for_and_then_in_doubt() {
    let raw = seen("m1");
    let mut rig = restored(|rig| Restored {
        intents: vec![intent_of(&raw, rig, "gc-1", 5)],
        ..Restored::default()
    });
    rig.deliver(raw.clone());
    assert_eq!(rig.actions(), [Action::ReadDialogs]);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    rig.deliver(raw);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt, Outcome::InDoubt]);
    let recorded = rig.journal.iter().any(|(_, write)| {
        matches!(write, JournalWrite::Outcome(outcome) if outcome.reply.outcome == Outcome::InDoubt)
    });
    assert!(recorded);
    assert_eq!(calls(&rig), 0);
}

#[test]
fn a_call_to_the_same_number_made_after_the_intent_proves_that_it_ran() {
    // WALL is 2023-11-14T22:13:20Z; the intent was made a second later.
    for (to, start, outcome) in [
        ("5000", "2023-11-14T22:13:21.500Z", Outcome::Accepted),
        ("5000", "2023-11-14T22:13:19.000Z", Outcome::InDoubt),
        ("6000", "2023-11-14T22:13:21.500Z", Outcome::InDoubt),
        ("5000", "", Outcome::InDoubt),
    ] {
        let raw = seen("m1");
        let mut rig = restored(|rig| Restored {
            intents: vec![intent_of(&raw, rig, "gc-1", 5)],
            ..Restored::default()
        });
        rig.answers.push_back(dialog(to, start));
        rig.deliver(raw);
        assert_eq!(rig.outcomes(), [outcome], "{to} {start}");
        assert_eq!(calls(&rig), 0);
    }
}

#[test]
fn what_proves_itself_later_is_told_once() {
    let mut rig = Rig::with_agent();
    rig.answers.push_back(timed_out());
    rig.send("MakeCall#1001", "5000", "m1");
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    rig.answers
        .push_back(dialog("5000", "2033-11-14T22:13:21.500Z"));
    rig.advance(10_000);
    let told = rig.told("desk");
    let resolved = ClientEvent::Resolved {
        agent: agent("1001"),
        command: "MakeCall".into(),
        id: "m1".into(),
        outcome: Outcome::Accepted,
    };
    assert_eq!(told.iter().filter(|event| **event == resolved).count(), 1);
    rig.deliver(seen("m1"));
    assert_eq!(rig.outcomes(), [Outcome::InDoubt, Outcome::Accepted]);
    assert_eq!(calls(&rig), 1);
}

#[test]
fn a_kept_outcome_is_the_answer_also_after_a_restart() {
    let raw = message("MakeCall#1001", "5000", "m1");
    let mut before = Rig::with_agent();
    before.deliver(raw.clone());
    let kept = before.journal.iter().find_map(|(_, write)| match write {
        JournalWrite::Outcome(outcome) => Some(outcome.clone()),
        _ => None,
    });
    let mut rig = restored(|_| Restored {
        outcomes: kept.into_iter().collect(),
        ..Restored::default()
    });
    rig.deliver(raw);
    rig.deliver(message("MakeCall#1001", "6000", "m1"));
    assert_eq!(rig.outcomes(), [Outcome::Accepted, Outcome::Rejected]);
    assert!(rig.calls.is_empty());
}

#[test]
fn a_members_intent_is_acknowledged_once_durable_and_refused_where_it_is_late() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let first = intent_of(&message("MakeCall#1001", "5000", "m1"), &rig, "gc-2", 22);
    rig.journal_answers = false;
    tell(&mut rig, vec![first.clone()], Vec::new());
    assert!(acked(&rig).0.is_empty(), "it is not on disk");
    let id = rig.journal.last().unwrap().0;
    rig.input(Input::Journaled {
        ids: vec![id],
        failure: None,
    });
    rig.advance(5);
    assert_eq!(acked(&rig).0, [first.key]);
    rig.journal_answers = true;
    let mut late = intent_of(&message("MakeCall#1001", "5000", "m2"), &rig, "gc-2", 22);
    late.epoch = 0;
    tell(&mut rig, vec![late.clone()], Vec::new());
    assert_eq!(acked(&rig).1, [(late.key, IntentRefusal::Stale)]);
}

#[test]
fn of_two_makers_of_one_command_exactly_one_gives_way() {
    for (epoch, gives_way) in [(100, true), (0, false)] {
        let mut seq = 0;
        let mut rig = pair(&mut seq);
        let raw = message("MakeCall#1001", "5000", "m1");
        rig.deliver(raw.clone());
        let own = told_intents(&rig)[0].clone();
        let mut other = intent_of(&raw, &rig, "gc-2", 22);
        other.epoch = if gives_way { epoch } else { own.epoch - 1 };
        tell(&mut rig, vec![other.clone()], Vec::new());
        assert_eq!(acked(&rig).0 == [other.key], gives_way);
        // Even if the other acknowledges, only the winner calls.
        ack(&mut rig, &[own.key], &[]);
        rig.advance(100);
        assert_eq!(calls(&rig), usize::from(!gives_way));
        if gives_way {
            let reply = {
                let mut single = Rig::with_agent();
                single.deliver(raw);
                single.replies().remove(0).1
            };
            let outcome = OutcomeRecord {
                resolved: false,
                key: other.key,
                body: other.body,
                until: other.until,
                reply,
            };
            tell(&mut rig, Vec::new(), vec![outcome]);
            rig.advance(100);
            assert_eq!(rig.outcomes(), [Outcome::Accepted]);
            assert_eq!(calls(&rig), 0);
        }
    }
}

#[test]
fn an_answer_in_doubt_is_resolved_by_the_member_that_knows_and_once() {
    doubt_told_later(false, 1);
}

/// Both had answered in doubt; the other one has found it out and told the client.
#[test]
fn an_answer_in_doubt_that_another_one_has_resolved_is_not_told_again() {
    doubt_told_later(true, 0);
}

fn doubt_told_later(resolved: bool, times: usize) {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let raw = message("ReleaseCall#1001", "77", "m1");
    let intent = intent_of(&raw, &rig, "gc-2", 22);
    tell(&mut rig, vec![intent.clone()], Vec::new());
    rig.advance(4_000);
    let mut again = raw.clone();
    again.redelivered = true;
    rig.deliver(again);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    let reply = {
        let mut single = Rig::with_agent();
        single.deliver(raw);
        single.replies().remove(0).1
    };
    assert_eq!(reply.outcome, Outcome::Accepted);
    let outcome = OutcomeRecord {
        resolved,
        key: intent.key,
        body: intent.body,
        until: intent.until,
        reply,
    };
    for _ in 0..2 {
        tell(&mut rig, Vec::new(), vec![outcome.clone()]);
    }
    let is_resolved = |event: &ClientEvent| matches!(event, ClientEvent::Resolved { .. });
    let told = rig.told("desk");
    assert_eq!(
        told.iter().filter(|event| is_resolved(event)).count(),
        times
    );
    let count = |event: &Event| matches!(event, Event::DoubleEffect { .. });
    assert!(!rig.events.iter().any(count));
}

#[test]
fn two_definite_outcomes_are_not_told_back_and_forth() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let raw = message("ReleaseCall#1001", "77", "m1");
    let intent = intent_of(&raw, &rig, "gc-2", 22);
    let reply = {
        let mut single = Rig::with_agent();
        single.deliver(raw);
        single.replies().remove(0).1
    };
    let first = OutcomeRecord {
        resolved: false,
        key: intent.key,
        body: intent.body,
        until: intent.until,
        reply,
    };
    let mut second = first.clone();
    second.reply.outcome = Outcome::Failed;
    let mut doubt = first.clone();
    doubt.reply.outcome = Outcome::InDoubt;
    tell(&mut rig, Vec::new(), vec![first.clone()]);
    rig.forget();
    tell(&mut rig, Vec::new(), vec![second]);
    rig.advance(100);
    assert!(told_outcomes(&rig).is_empty());
    let told = rig.events.iter().find_map(|event| match event {
        Event::DoubleEffect {
            command,
            agent,
            outcomes,
        } => Some((command.as_str(), agent.as_str(), outcomes.each_ref())),
        _ => None,
    });
    let (command, agent, [ours, theirs]) = told.unwrap();
    assert_eq!((command, agent), ("ReleaseCall", "1001"));
    assert!(ours.starts_with("ACCEPTED by "), "{ours}");
    assert!(theirs.starts_with("FAILED by "), "{theirs}");
    // Who only is in doubt is told what is known here.
    tell(&mut rig, Vec::new(), vec![doubt]);
    rig.advance(100);
    assert_eq!(told_outcomes(&rig), [first]);
}
