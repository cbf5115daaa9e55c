//! A broker is left for another one: heard at any time, and served until the other one serves.

use super::support::*;
use crate::Event;
use crate::api::ids::{LinkEpoch, VerbId};
use crate::api::input::{Input, Source, Verb};
use crate::peer::{PeerMessage, Role};

/// Leading at the second broker while the first one is back and rests. Gives its link there.
fn away() -> (Rig, LinkEpoch) {
    let mut rig = Rig::leader();
    rig.refuses_links = true;
    let first = rig.active();
    rig.lose(first);
    rig.refuses_links = false;
    rig.advance(1_000);
    let there = rig.active();
    assert_eq!(rig.broker_of(there), 1);
    (rig, there)
}

fn beats(rig: &Rig) -> usize {
    let beat = |(_, message): &&(_, PeerMessage)| matches!(message, PeerMessage::Heartbeat(_));
    rig.said.iter().filter(beat).count()
}

fn stands(rig: &Rig, link: LinkEpoch) -> bool {
    rig.links.iter().any(|(known, _)| *known == link)
}

#[test]
fn the_former_link_is_heard_on_until_the_control_queue_is_consumed_on_the_new_one() {
    let (mut rig, there) = away();
    rig.slow_control = true;
    rig.advance(7_000);
    let here = rig.active();
    assert_eq!(rig.broker_of(here), 0);
    assert!(stands(&rig, there), "peers would find no consumer of ours");
    rig.forget();
    rig.advance(3_000);
    assert!(beats(&rig) >= 5, "{}", beats(&rig));
    rig.input(Input::ControlAttached { link: here });
    rig.advance(100);
    assert!(!stands(&rig, there));
    rig.forget();
    rig.advance(3_000);
    assert!(beats(&rig) >= 5, "{}", beats(&rig));
}

#[test]
fn the_former_link_is_not_waited_on_for_ever() {
    let (mut rig, there) = away();
    rig.slow_control = true;
    rig.advance(7_000);
    assert!(stands(&rig, there));
    rig.advance(25_000);
    assert!(!stands(&rig, there));
}

#[test]
fn commands_are_taken_at_the_former_broker_until_the_new_one_gives_them() {
    let (mut rig, there) = away();
    rig.slow_consumers.insert(0);
    rig.advance(8_000);
    let here = rig.active();
    assert_eq!(rig.broker_of(here), 0);
    assert!(rig.consumers.contains_key(&(there, 0)));
    let held = rig.deliver_on(
        there,
        Source::Commands { group: 0 },
        message("GetState#1001", "", "g1"),
    );
    assert_eq!(rig.acks, [held]);
    // It gives them late: from then on only there.
    let tag = rig.engine.view().groups[0].tag.clone().unwrap();
    let group = 0;
    rig.input(Input::Consuming {
        link: here,
        group,
        tag,
    });
    rig.advance(100);
    assert!(!rig.consumers.contains_key(&(there, 0)));
    assert!(!stands(&rig, there));
}

#[test]
fn a_broker_that_gives_no_commands_after_all_costs_no_silence_and_no_role() {
    let (mut rig, there) = away();
    rig.slow_consumers.insert(0);
    rig.forget();
    for _ in 0..600 {
        rig.advance(50);
        let consumed = rig.consumers.keys().any(|(link, _)| stands(&rig, *link));
        assert!(consumed, "nobody consumes at {}", rig.mono);
        assert_eq!(rig.role(), Role::Leader, "at {}", rig.mono);
    }
    let moves = |event: &&Event| matches!(event, Event::BrokerFailover { .. });
    assert!(rig.events.iter().filter(moves).count() >= 2);
    assert!(stands(&rig, there), "it goes on as it was");
}

#[test]
fn who_is_to_consume_nothing_does_not_at_the_former_broker_either() {
    let (mut rig, there) = away();
    rig.slow_consumers.insert(0);
    rig.advance(8_000);
    assert!(rig.consumers.contains_key(&(there, 0)));
    let verb = Verb::GroupStop("agents".into());
    rig.input(Input::Operator {
        id: VerbId(1),
        verb,
    });
    rig.advance(1_000);
    assert!(!rig.consumers.contains_key(&(there, 0)));
}
