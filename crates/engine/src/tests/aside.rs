//! What brokers put aside for another reason than a deadline, and events that they refuse.

use super::support::*;
use crate::Event;
use crate::api::command::Outbound;
use crate::api::input::Source;
use crate::api::limits;
use crate::wire::message::PutAside;
use crate::wire::reply::Outcome;

fn put_aside(kind: &str, body: &str, why: PutAside) -> Rig {
    let mut rig = Rig::with_agent();
    let link = rig.active();
    let mut raw = message(kind, body, "m1");
    raw.put_aside = Some(why);
    // Sent after the start: who had finished it would know.
    raw.timestamp = Some(rig.now().wall / 1_000);
    rig.deliver_on(link, Source::Expired, raw);
    rig.advance(8_000);
    assert!(rig.calls.is_empty(), "{:?}", rig.actions());
    rig
}

#[test]
fn what_was_put_aside_before_its_deadline_did_not_expire() {
    for (why, word) in [
        (PutAside::Full, "maxlen"),
        (PutAside::GivenBack, "delivery_limit"),
        (PutAside::Refused, "rejected"),
    ] {
        let rig = put_aside("MakeReady#1001", "", why);
        assert_eq!(rig.outcomes(), [Outcome::Rejected], "{why:?}");
        let error = rig.replies()[0].1.error.clone().unwrap();
        assert_eq!(error.code, "PLEASE_RETRY");
        assert!(error.message.contains(word), "{}", error.message);
    }
    let rig = put_aside("MakeReady#1001", "", PutAside::Expired);
    assert_eq!(rig.outcomes(), [Outcome::Expired]);
}

#[test]
fn an_unsafe_one_that_may_have_been_started_is_in_doubt_whatever_put_it_aside() {
    for why in [PutAside::GivenBack, PutAside::Full, PutAside::Expired] {
        let mut seq = 0;
        let mut rig = Rig::with_agent();
        rig.advance_with_peer(2_000, &mut seq, crate::peer::Role::Follower, 100);
        // Lost without a goodbye: what it has begun nobody knows.
        rig.advance(10_000);
        rig.forget();
        let link = rig.active();
        let mut raw = message("MakeCall#1001", "5000", "m1");
        raw.put_aside = Some(why);
        rig.deliver_on(link, Source::Expired, raw);
        rig.advance(8_000);
        assert_eq!(rig.outcomes(), [Outcome::InDoubt], "{why:?}");
    }
}

#[test]
fn when_its_deadline_has_passed_as_well_it_is_expired() {
    let mut rig = Rig::with_agent();
    let link = rig.active();
    let mut raw = message("MakeReady#1001", "", "m1");
    raw.put_aside = Some(PutAside::Full);
    raw.deadline = Some(rig.now().wall as i64 - 1);
    rig.deliver_on(link, Source::Expired, raw);
    assert_eq!(rig.outcomes(), [Outcome::Expired]);
}

// ---- refused events -----------------------------------------------------------------------------

fn dropped(rig: &Rig) -> usize {
    let lost = |event: &&Event| matches!(event, Event::EventDropped);
    rig.events.iter().filter(lost).count()
}

/// Message ids of the events for a client, as often as they were published.
fn events(rig: &Rig, client: &str) -> Vec<String> {
    let id = |(_, _, message): &(_, _, Outbound)| match message {
        Outbound::Event { to, message_id, .. } if to.as_str() == client => Some(message_id.clone()),
        _ => None,
    };
    rig.published.iter().filter_map(id).collect()
}

#[test]
fn refused_events_hold_nobody_up_and_the_newest_is_tried_until_it_is_taken() {
    let mut rig = Rig::with_agent();
    rig.forget();
    rig.broker = Broker::EventsAreRefused;
    for n in 0..20 {
        rig.send("GetState#1001", "", &format!("g{n}"));
    }
    rig.advance(1_000);
    let once = events(&rig, "desk");
    let mut first: Vec<String> = Vec::new();
    for id in &once {
        if !first.contains(id) {
            first.push(id.clone());
        }
    }
    // Another queue of the client's may take everything: each goes out, in order, soon.
    assert_eq!(first.len(), 20, "{once:?}");
    assert_eq!(rig.acks.len(), 20, "commands do not wait for the client");
    rig.advance(30_000);
    let tries = events(&rig, "desk").split_off(once.len());
    // And then the newest, at first soon and then every 5 s: no storm.
    assert!((4..16).contains(&tries.len()), "{}", tries.len());
    assert!(tries.iter().all(|id| *id == first[19]), "{tries:?}");
    assert_eq!(dropped(&rig), 0);
    rig.broker = Broker::Confirms;
    rig.advance(6_000);
    let taken = events(&rig, "desk").split_off(once.len() + tries.len());
    assert_eq!(taken, [first[19].clone()], "under the same id");
    assert_eq!(dropped(&rig), 19, "what is older would only mislead");
    rig.send("GetState#1001", "", "later");
    assert_eq!(events(&rig, "desk").len(), once.len() + tries.len() + 2);
}

#[test]
fn a_short_refusal_keeps_the_order() {
    let mut rig = Rig::with_agent();
    rig.forget();
    rig.broker = Broker::EventsAreRefused;
    rig.send("GetState#1001", "", "g0");
    rig.advance(50);
    rig.send("GetState#1001", "", "g1");
    rig.broker = Broker::Confirms;
    rig.advance(1_000);
    let told = events(&rig, "desk");
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[0], told[1], "the first again, before what followed it");
    assert_eq!(dropped(&rig), 0);
}

/// One that failed rests before it goes out again: what comes for its client meanwhile waits behind
/// it, and what comes for others does not.
#[test]
fn an_event_that_failed_is_not_overtaken_by_those_behind_it() {
    let mut rig = Rig::with_agent();
    rig.sign_in("1002", "other");
    rig.forget();
    rig.broker = Broker::Fails;
    rig.send("GetState#1001", "", "g0");
    let first = events(&rig, "desk");
    assert_eq!(first.len(), 1);
    rig.forget();
    rig.broker = Broker::Confirms;
    for n in 1..4 {
        rig.advance(10);
        rig.send("GetState#1001", "", &format!("g{n}"));
        rig.send("GetState#1002", "", &format!("o{n}"));
    }
    assert_eq!(events(&rig, "desk").len(), 0, "the first one rests");
    assert_eq!(events(&rig, "other").len(), 3);
    rig.advance(200);
    let told = events(&rig, "desk");
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(told[0], first[0], "the first one first");
    assert_eq!(rig.engine.view().outbox, 0);
    // And nobody waits any more.
    rig.send("GetState#1001", "", "g9");
    assert_eq!(events(&rig, "desk").len(), 5);
}

#[test]
fn a_client_that_takes_nothing_costs_no_other_client_an_event() {
    let mut rig = Rig::with_agent();
    rig.sign_in("1002", "other");
    rig.forget();
    rig.broker = Broker::Refuses("desk");
    for n in 0..2 * limits::REFUSED_EVENTS {
        rig.send("GetState#1001", "", &format!("a{n}"));
        rig.advance(1);
    }
    rig.send("GetState#1002", "", "b");
    assert_eq!(events(&rig, "other").len(), 1);
    // What is older than a minute is given up, and counted.
    rig.advance(limits::REFUSED_EVENT_MS + limits::REFUSED_PAUSE_MAX_MS);
    assert!(
        dropped(&rig) >= 2 * limits::REFUSED_EVENTS,
        "{}",
        dropped(&rig)
    );
    assert_eq!(rig.engine.view().outbox, 0);
}

#[test]
fn a_refused_snapshot_is_not_tried_again() {
    let mut config = config();
    config.agents.states_interval = 1_000;
    let mut rig = Rig::new(config);
    rig.start();
    rig.advance(2_000);
    rig.sign_in("1001", "desk");
    rig.forget();
    rig.broker = Broker::Refuses("AgentStates");
    rig.advance(20_000);
    let tries = events(&rig, "AgentStates");
    let once: std::collections::BTreeSet<&String> = tries.iter().collect();
    assert!(tries.len() >= 3 && once.len() == tries.len(), "{tries:?}");
    assert_eq!(dropped(&rig), 0);
}

#[test]
fn refused_events_do_not_hold_up_the_end() {
    let mut rig = Rig::with_agent();
    rig.broker = Broker::EventsAreRefused;
    rig.send("GetState#1001", "", "g1");
    rig.advance(2_000);
    rig.input(crate::Input::Shutdown);
    rig.advance(6_000);
    assert!(rig.exited);
}

/// Dead-lettering takes away the mark that a command was delivered before: one that was sent while
/// somebody who ended since had commands in work may have been carried out.
#[test]
fn a_safe_one_of_the_time_of_a_process_that_ended_at_work_is_in_doubt() {
    let outcome = |former: Option<u64>, sent: i64| {
        let config = crate::Config { former, ..config() };
        let mut rig = Rig::new(config);
        rig.start();
        rig.advance(2_000);
        rig.sign_in("1001", "desk");
        rig.forget();
        let link = rig.active();
        let mut raw = message("MakeReady#1001", "", "m1");
        let started = rig.config.started / 1_000;
        raw.timestamp = started.checked_add_signed(sent);
        raw.put_aside = Some(PutAside::Expired);
        rig.deliver_on(link, Source::Expired, raw);
        rig.advance(100);
        rig.outcomes()
    };
    let started = config().started;
    let ended = Some(started - 20_000);
    assert_eq!(outcome(ended, -25), [Outcome::InDoubt]);
    assert_eq!(outcome(ended, -15), [Outcome::Expired]);
    assert_eq!(outcome(ended, 1), [Outcome::Expired]);
    assert_eq!(outcome(None, -25), [Outcome::Expired]);
}
