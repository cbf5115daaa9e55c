//! What cannot be read.

use super::support::*;
use crate::api::ids::LinkEpoch;
use crate::api::input::{Input, Source};
use crate::wire::command::UNREADABLE;
use crate::wire::message::{RawMessage, Unreadable};
use crate::wire::reply::Outcome;
use crate::{Event, limits};

fn unreadable(raw: RawMessage) -> RawMessage {
    RawMessage {
        unreadable: Some(Unreadable {
            detail: "property correlation_id is not UTF-8".into(),
            evidence: "02ffff".into(),
        }),
        ..raw
    }
}

#[test]
fn a_command_with_unreadable_properties_is_not_carried_out_and_kept_with_its_reason() {
    for source in [Source::Commands { group: 0 }, Source::Expired] {
        let mut rig = Rig::with_agent();
        let raw = RawMessage {
            reply_to: Some("answers".into()),
            ..unreadable(message("MakeCall#1001", "5551", "m-1"))
        };
        let link = rig.active();
        let id = rig.deliver_on(link, source, raw);
        rig.advance(1_000);
        assert!(rig.calls.is_empty(), "{:?}", rig.actions());
        assert_eq!(rig.outcomes(), [Outcome::Rejected]);
        assert_eq!(rig.dead_letters(), [UNREADABLE]);
        assert_eq!(rig.acks, [id]);
    }
}

#[test]
fn what_the_control_queue_held_is_dead_lettered_and_a_flood_of_it_is_bounded() {
    let mut rig = Rig::leader();
    rig.forget();
    let input = || Input::Unreadable(Box::new(unreadable(message("x", "", "m-1"))));
    rig.input(input());
    assert_eq!(rig.dead_letters(), [UNREADABLE]);
    rig.broker = Broker::Holds;
    for _ in 0..2 * limits::STRAY_LETTERS {
        rig.input(input());
    }
    let letters = rig.dead_letters().len();
    assert!(
        (2..=limits::STRAY_LETTERS + 1).contains(&letters),
        "{letters}"
    );
    let counted = |event: &&Event| matches!(event, Event::DeadLettered { .. });
    let counted = rig.events.iter().filter(counted).count();
    assert_eq!(counted, 2 * limits::STRAY_LETTERS + 1);
    let named = |event: &&Event| match event {
        Event::DeadLettered { tag, .. } => tag.command_id.as_deref() == Some("m-1"),
        _ => false,
    };
    assert!(rig.events.iter().any(|event| named(&event)));
}

fn garble(rig: &mut Rig, link: LinkEpoch) {
    let problem = "the broker sends what is no frame".to_owned();
    rig.input(Input::LinkGarbled { link, problem });
    rig.lose(link);
}

#[test]
fn a_link_that_is_lost_three_times_to_the_same_is_told_and_the_other_broker_serves() {
    let mut rig = Rig::leader();
    rig.forget();
    let attached = |rig: &Rig| rig.engine.view().brokers.iter().position(|b| b.attached);
    let warned = |rig: &Rig| {
        let warnings = rig.engine.view().warnings;
        warnings.iter().any(|w| w.contains("3 times in a row"))
    };
    for round in 1..=3 {
        assert!(!warned(&rig));
        let link = rig.active();
        assert_eq!(attached(&rig), Some(0), "round {round}");
        garble(&mut rig, link);
        assert_eq!(attached(&rig), Some(1), "served on at once");
        let back = if round < 3 { 30_000 } else { 0 };
        rig.advance(back);
    }
    assert!(warned(&rig), "{:?}", rig.engine.view().warnings);
    let times: Vec<u32> = rig
        .events
        .iter()
        .filter_map(|event| match event {
            Event::LinkGarbled { times, .. } => Some(*times),
            _ => None,
        })
        .collect();
    assert_eq!(times, [1, 2, 3]);
    // It rests before it is dialled again.
    let state = |rig: &Rig| rig.engine.view().brokers[0].state.clone();
    rig.advance(limits::GARBLED_PAUSE_MS - 200);
    assert_eq!(state(&rig), "down");
    rig.advance(400);
    assert_eq!(state(&rig), "connected");
    rig.advance(limits::GARBLED_FORGET_MS);
    assert!(!warned(&rig));
}
