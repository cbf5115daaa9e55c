//! The way of replies, and that an acknowledgement waits for their confirm.

use super::support::*;
use crate::Event;
use crate::api::command::{Outbound, ReplyRoute};
use crate::wire::reply::Outcome;

#[test]
fn a_command_is_acknowledged_only_after_all_it_caused_is_confirmed() {
    let mut rig = Rig::with_agent();
    rig.broker = Broker::Holds;
    let id = rig.send("GetState#1001", "", "g1");
    assert!(rig.held.len() >= 2, "an event and a reply");
    assert!(rig.acks.is_empty());
    let last = rig.held.pop().unwrap();
    rig.confirm_all();
    assert!(rig.acks.is_empty());
    rig.held.push(last);
    rig.confirm_all();
    assert_eq!(rig.acks, [id]);
}

#[test]
fn an_unroutable_reply_goes_the_other_way_then_to_the_dead_letters() {
    for relayed in [false, true] {
        let mut rig = Rig::with_agent();
        rig.broker = Broker::Returns;
        let mut raw = message("MakeReady#1001", "", "m1");
        raw.relayed = relayed;
        let id = rig.deliver(raw);
        let name = "replies-of-client".to_owned();
        let (first, second) = (ReplyRoute::Near(name.clone()), ReplyRoute::Far(name));
        // At last the other broker itself, by the spare link.
        let expected = if relayed {
            [second, first.clone(), first]
        } else {
            [first.clone(), second, first]
        };
        let routes: Vec<ReplyRoute> = rig.replies().into_iter().map(|(route, _)| route).collect();
        assert_eq!(routes, expected);
        let parked = |message: &Outbound| matches!(message, Outbound::ParkedReply { .. });
        assert!(rig.published.iter().any(|(.., message)| parked(message)));
        assert_eq!(rig.acks, [id]);
    }
}

#[test]
fn dead_letters_wait_until_their_queue_is_there_again() {
    let mut rig = Rig::with_agent();
    rig.broker = Broker::NoDeadLetters;
    let id = rig.deliver(message("Nonsense#1001", "", "m1"));
    assert_eq!(rig.outcomes(), [Outcome::Rejected]);
    assert!(rig.acks.is_empty(), "it is nowhere yet");
    // Declaring is what the instance does about it.
    assert_eq!(rig.broker, Broker::Confirms);
    rig.advance(1_000);
    assert_eq!(rig.acks, [id]);
}

#[test]
fn a_returned_reply_is_not_acknowledged_before_its_second_way_is_confirmed() {
    let mut rig = Rig::with_agent();
    rig.broker = Broker::Holds;
    rig.send("MakeReady#1001", "", "m1");
    let reply = rig.held.pop().unwrap();
    rig.input(crate::Input::Published {
        publish: reply,
        outcome: crate::api::input::PublishOutcome::Untaken,
    });
    assert!(rig.acks.is_empty());
    rig.confirm_all();
    assert_eq!(rig.acks.len(), 1);
}

#[test]
fn a_publication_that_fails_is_tried_again_without_haste() {
    let mut rig = Rig::with_agent();
    rig.broker = Broker::Fails;
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.replies().len(), 1);
    rig.advance(1_000);
    let tries = rig.replies().len();
    assert!((2..=11).contains(&tries), "{tries} tries in a second");
    rig.broker = Broker::Confirms;
    rig.advance(200);
    assert_eq!(rig.acks.len(), 1);
}

#[test]
fn a_client_that_is_full_does_not_keep_its_commands() {
    let mut rig = Rig::with_agent();
    rig.broker = Broker::ClientsAreFull;
    let id = rig.send("MakeReady#1001", "", "m1");
    assert!(rig.acks.is_empty(), "it may make room");
    rig.advance(1_000);
    let tries = usize::from(crate::api::limits::REFUSALS) + 1;
    assert_eq!(rig.replies().len(), tries);
    let parked = |message: &Outbound| matches!(message, Outbound::ParkedReply { .. });
    assert!(rig.published.iter().any(|(.., message)| parked(message)));
    assert_eq!(rig.acks, [id]);
}

#[test]
fn a_reply_that_cannot_be_kept_for_other_brokers_takes_the_other_way_at_once() {
    let mut rig = Rig::with_agent();
    rig.broker = Broker::FarRepliesAreRefused;
    let mut raw = message("MakeReady#1001", "", "m1");
    raw.relayed = true;
    let id = rig.deliver(raw);
    let name = "replies-of-client".to_owned();
    let (first, second) = (ReplyRoute::Far(name.clone()), ReplyRoute::Near(name));
    let routes: Vec<ReplyRoute> = rig.replies().into_iter().map(|(route, _)| route).collect();
    assert_eq!(routes, [first, second]);
    assert_eq!(rig.acks, [id]);
}

#[test]
fn replies_are_published_again_on_the_next_link() {
    let mut rig = Rig::with_agent();
    rig.broker = Broker::Holds;
    let link = rig.active();
    rig.send("MakeReady#1001", "", "m1");
    rig.broker = Broker::Confirms;
    rig.lose(link);
    let links: Vec<_> = rig
        .published
        .iter()
        .filter(|(.., m)| matches!(m, Outbound::Reply { .. }))
        .map(|(_, link, _)| *link)
        .collect();
    assert_eq!(links, [link, rig.active()]);
    // The queue that the client named is on the broker that is gone: by way of the others first.
    let relayed = |route: &ReplyRoute| matches!(route, ReplyRoute::Far(_));
    let ways: Vec<bool> = rig
        .replies()
        .iter()
        .map(|(route, _)| relayed(route))
        .collect();
    assert_eq!(ways, [false, true]);
    assert!(rig.acks.is_empty(), "that delivery is gone");
    let mut again = message("MakeReady#1001", "", "m1");
    again.redelivered = true;
    let id = rig.deliver(again);
    assert_eq!(rig.acks, [id]);
    assert_eq!(rig.outcomes().last(), Some(&Outcome::Accepted));
    assert_eq!(rig.calls.len(), 1);
}

#[test]
fn a_client_that_gets_events_gets_no_reply_on_the_same_address() {
    let mut rig = Rig::with_agent();
    rig.send("Hello#desk", "", "h1");
    rig.forget();
    let mut raw = message("MakeReady#1001", "", "m1");
    raw.reply_to = Some("desk".into());
    rig.deliver(raw);
    assert!(rig.replies().is_empty());
    assert_eq!(rig.acks.len(), 1);
}

#[test]
fn a_reply_to_another_client_than_the_agents_that_finds_no_queue_is_counted_and_not_kept() {
    for (kind, answer, told) in [
        ("MakeNotReady#1001", None, false),
        // Events of a query and of an error go to whoever asked.
        ("GetState#1001", None, true),
        ("MakeNotReady#1001", Some(refused(400)), true),
    ] {
        let mut rig = Rig::with_agent();
        rig.send("Hello#other", "", "h1");
        rig.forget();
        rig.broker = Broker::Returns;
        rig.answers.extend(answer);
        let mut raw = message(kind, "", "m1");
        raw.reply_to = Some("other".into());
        let id = rig.deliver(raw);
        rig.advance(100);
        assert_eq!(rig.told("other").len(), usize::from(told), "{kind}");
        let lost = |event: &&Event| matches!(event, Event::ReplyUnroutable);
        assert_eq!(rig.events.iter().filter(lost).count(), 1, "{kind}");
        let parked = |message: &Outbound| matches!(message, Outbound::ParkedReply { .. });
        let kept = rig.published.iter().any(|(.., message)| parked(message));
        assert!(!kept, "{kind}");
        assert_eq!(rig.acks, [id], "{kind}");
    }
}
