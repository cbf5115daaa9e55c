//! Own intents that are taken back: whoever holds them hears so, sooner or later.

use super::journal::{beat, calls, pair, told_intents};
use super::support::*;
use crate::peer::PeerMessage;
use crate::wire::message::RawMessage;

fn withdrawn(rig: &Rig) -> Vec<[u8; 16]> {
    let journal = rig.said.iter().filter_map(|(_, message)| match message {
        PeerMessage::Journal { withdrawn, .. } => Some(withdrawn.clone()),
        _ => None,
    });
    journal.flatten().collect()
}

/// A command whose delivery is lost with its link before its call: its intent is taken back, which
/// nobody can be told in that moment.
#[test]
fn an_intent_that_is_taken_back_while_nobody_hears_is_told_later() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.deliver(message("MakeCall#1001", "5000", "m1"));
    let key = told_intents(&rig)[0].key;
    for link in rig.links.clone() {
        rig.lose(link.0);
    }
    assert!(rig.engine.book.open_intent(&key).is_none());
    rig.said.clear();
    rig.advance(1_000);
    let told = withdrawn(&rig);
    assert!(told.first() == Some(&key) && told.iter().all(|one| *one == key));
    assert_eq!(calls(&rig), 0);
}

/// A command whose delivery is lost before its call, while the member is there; the key of its intent.
fn taken_back(seq: &mut u64) -> (Rig, RawMessage, [u8; 16]) {
    let mut rig = pair(seq);
    let raw = message("MakeCall#1001", "5000", "m1");
    let delivery = rig.deliver(raw.clone());
    let key = told_intents(&rig)[0].key;
    rig.lose(delivery.link);
    (rig, raw, key)
}

/// Seconds in which the member is there all the time.
fn heard_for(rig: &mut Rig, seq: &mut u64, seconds: usize) {
    for _ in 0..2 * seconds {
        beat(rig, seq);
    }
}

/// One message may be lost though nothing else is, and nobody says that it has come.
#[test]
fn an_intent_that_was_taken_back_is_told_some_times() {
    let mut seq = 0;
    let (mut rig, raw, key) = taken_back(&mut seq);
    heard_for(&mut rig, &mut seq, 1);
    assert!(withdrawn(&rig).len() >= 2, "{:?}", withdrawn(&rig));
    heard_for(&mut rig, &mut seq, 30);
    let all = withdrawn(&rig).len();
    assert!((4..=8).contains(&all), "{all} times");
    heard_for(&mut rig, &mut seq, 60);
    assert_eq!(withdrawn(&rig).len(), all);
    // Made anew it is later than the one that was taken back, whatever the clock says.
    let made = rig.said.iter().filter_map(|(_, message)| match message {
        PeerMessage::Journal { withdrawn_made, .. } => withdrawn_made.first().copied(),
        _ => None,
    });
    let made = made.max();
    rig.said.clear();
    rig.deliver(raw);
    rig.advance(10);
    assert_eq!(told_intents(&rig)[0].key, key);
    assert!(Some(told_intents(&rig)[0].at) > made);
}

/// A member that did not hear for a while may have missed it.
#[test]
fn an_intent_that_was_taken_back_is_told_to_a_member_that_is_heard_again() {
    let mut seq = 0;
    let (mut rig, raw, key) = taken_back(&mut seq);
    heard_for(&mut rig, &mut seq, 25);
    for silence in [2_000, 5_000] {
        rig.said.clear();
        rig.advance(silence);
        assert!(withdrawn(&rig).is_empty());
        beat(&mut rig, &mut seq);
        rig.advance(10);
        assert_eq!(withdrawn(&rig), [key], "after {silence}");
    }
    // Made anew it is there, and nothing is said against it.
    beat(&mut rig, &mut seq);
    rig.said.clear();
    rig.deliver(raw);
    rig.advance(10);
    assert_eq!(told_intents(&rig)[0].key, key);
    rig.advance(2_000);
    beat(&mut rig, &mut seq);
    rig.advance(10);
    assert!(withdrawn(&rig).is_empty());
}
