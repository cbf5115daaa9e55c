//! Order, deadlines, duplicates, overload.

use super::support::*;
use crate::api::command::{Outbound, ReplyRoute};
use crate::api::ids::LinkEpoch;
use crate::api::input::Source;
use crate::model::Action;
use crate::peer::Role;
use crate::wire::reply::Outcome;
use crate::{Event, Input};

#[test]
fn one_agents_commands_run_in_order_and_agents_in_parallel() {
    let mut rig = Rig::with_agent();
    rig.sign_in("1002", "desk2");
    rig.answers_calls = false;
    rig.send("MakeReady#1001", "", "a1");
    rig.send("MakeNotReady#1001", "", "a2");
    rig.send("MakeReady#1002", "", "b1");
    let agents: Vec<&str> = rig.calls.iter().map(|c| c.agent.as_str()).collect();
    assert_eq!(agents, ["1001", "1002"]);
    rig.answer(done());
    assert_eq!(rig.calls.len(), 3);
    assert!(matches!(
        rig.calls[2].action,
        Action::SetState {
            state: "NOT_READY",
            ..
        }
    ));
}

#[test]
fn a_command_past_its_deadline_is_not_started() {
    let mut rig = Rig::with_agent();
    rig.answers_calls = false;
    rig.send("MakeReady#1001", "", "a1");
    let mut late = message("MakeNotReady#1001", "", "a2");
    late.deadline = Some((rig.now().wall + 1_000) as i64);
    rig.deliver(late);
    rig.advance(2_500);
    assert_eq!(rig.outcomes(), [Outcome::Expired]);
    rig.answer(done());
    assert_eq!(rig.calls.len(), 1);
    assert_eq!(rig.acks.len(), 2);
}

#[test]
fn what_the_broker_expired_is_answered_unless_its_outcome_is_known() {
    let mut rig = Rig::with_agent();
    let link = rig.active();
    rig.deliver_on(link, Source::Expired, message("MakeReady#1001", "", "e1"));
    assert_eq!(rig.outcomes(), [Outcome::Expired]);
    assert!(rig.calls.is_empty());
    rig.send("MakeReady#1001", "", "e2");
    rig.deliver_on(link, Source::Expired, message("MakeReady#1001", "", "e2"));
    assert_eq!(
        rig.outcomes(),
        [Outcome::Expired, Outcome::Accepted, Outcome::Accepted]
    );
    assert_eq!(rig.calls.len(), 1);
}

#[test]
fn what_expired_on_the_spare_ones_broker_is_answered_there() {
    let mut rig = Rig::with_agent();
    let active = rig.active();
    let mut links = rig.links.iter().map(|(link, _)| *link);
    let spare = links.rfind(|link| *link != active).unwrap();
    assert_eq!(rig.undertakers, [active, spare]);
    rig.deliver_on(spare, Source::Expired, message("MakeReady#1001", "", "e1"));
    let on =
        |(_, link, message): &(_, _, _)| matches!(message, Outbound::Reply { .. }).then_some(*link);
    assert_eq!(
        rig.published.iter().filter_map(on).collect::<Vec<_>>(),
        [spare]
    );
    let to = ReplyRoute::Near("replies-of-client".into());
    assert_eq!(rig.replies()[0].0, to);
    assert_eq!(rig.outcomes(), [Outcome::Expired]);
    assert_eq!(rig.acks.len(), 1);
}

#[test]
fn a_newcomer_answers_what_expired_once_it_knows_what_the_others_carried_out() {
    let mut rig = Rig::new(config());
    rig.start();
    let mut seq = 0;
    rig.advance_with_peer(2_000, &mut seq, Role::Leader, 127);
    assert_eq!(rig.undertakers, []);
    rig.peer_snapshot();
    rig.advance_with_peer(500, &mut seq, Role::Leader, 127);
    let links: Vec<LinkEpoch> = rig.links.iter().map(|(link, _)| *link).collect();
    assert_eq!(rig.undertakers, links);
    // A link that comes later is served at once.
    let spare = *links.last().unwrap();
    rig.input(Input::LinkDown {
        link: spare,
        reason: String::new(),
    });
    rig.advance_with_peer(3_000, &mut seq, Role::Leader, 127);
    assert_eq!(rig.undertakers.len(), links.len() + 1);
}

/// What was told of duplicates: of which kind, and of which command.
fn duplicates(rig: &Rig) -> Vec<(&'static str, Option<&str>)> {
    let told = rig.events.iter().filter_map(|event| match event {
        Event::Duplicate { tag, kind } => Some((*kind, tag.command_id.as_deref())),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_duplicate_of_a_running_command_waits_for_its_outcome() {
    let mut rig = Rig::with_agent();
    rig.answers_calls = false;
    rig.send("MakeCall#1001", "5000", "m1");
    rig.send("MakeCall#1001", "5000", "m1");
    assert_eq!(rig.calls.len(), 1);
    assert!(rig.acks.is_empty());
    rig.answer(done());
    assert_eq!(rig.outcomes(), [Outcome::Accepted, Outcome::Accepted]);
    assert_eq!(rig.acks.len(), 2);
    assert_eq!(duplicates(&rig), [("running", Some("m1"))]);
}

#[test]
fn a_duplicate_of_a_finished_command_gets_the_same_reply() {
    let mut rig = Rig::with_agent();
    rig.send("MakeCall#1001", "5000", "m1");
    let mut again = message("MakeCall#1001", "5000", "m1");
    again.redelivered = true;
    rig.deliver(again);
    assert_eq!(rig.calls.len(), 1);
    let replies = rig.replies();
    assert_eq!(replies.len(), 2);
    assert_eq!(replies[0].1, replies[1].1);
}

#[test]
fn the_same_id_with_another_body_is_rejected_and_changes_nothing() {
    let mut rig = Rig::with_agent();
    rig.send("MakeCall#1001", "5000", "m1");
    rig.send("MakeCall#1001", "6000", "m1");
    rig.send("MakeCall#1001", "5000", "m1");
    assert_eq!(
        rig.outcomes(),
        [Outcome::Accepted, Outcome::Rejected, Outcome::Accepted]
    );
    assert_eq!(rig.calls.len(), 1);
}

#[test]
fn an_expired_one_under_the_id_of_another_is_rejected_as_well() {
    let mut rig = Rig::with_agent();
    rig.send("MakeCall#1001", "5000", "m1");
    let link = rig.active();
    let other = message("MakeCall#1001", "6000", "m1");
    let id = rig.deliver_on(link, Source::Expired, other);
    assert_eq!(rig.outcomes(), [Outcome::Accepted, Outcome::Rejected]);
    assert_eq!(rig.acks.last(), Some(&id));
    assert_eq!(rig.calls.len(), 1);
    assert_eq!(duplicates(&rig), [("other_body", Some("m1"))]);
}

#[test]
fn an_unsafe_command_that_may_have_been_seen_is_in_doubt_and_a_safe_one_runs() {
    let mut rig = Rig::with_agent();
    // A member that keeps no journal may have started it.
    rig.peer_beat(1, Role::Follower, 100);
    let mut seen = message("MakeCall#1001", "5000", "m1");
    seen.redelivered_upstream = true;
    seen.relayed = true;
    rig.deliver(seen);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    assert!(rig.calls.is_empty());
    let mut seen = message("MakeReady#1001", "", "m2");
    seen.redelivered = true;
    rig.deliver(seen);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt, Outcome::Accepted]);
}

#[test]
fn too_many_commands_for_one_agent_are_rejected_with_advice_and_may_come_again() {
    let mut rig = Rig::with_agent();
    rig.answers_calls = false;
    for n in 0..=crate::api::limits::LANE_DEPTH {
        rig.send("MakeReady#1001", "", &format!("m{n}"));
    }
    assert!(rig.replies().is_empty());
    rig.send("MakeReady#1001", "", "last");
    let (_, reply) = &rig.replies()[0];
    assert_eq!(reply.outcome, Outcome::Rejected);
    assert!(reply.retry_after_ms.is_some());
    rig.answer(done());
    rig.send("MakeReady#1001", "", "last");
    assert_eq!(rig.outcomes(), [Outcome::Rejected, Outcome::Accepted]);
}

/// Room for what one command takes, not for two hundred of them in one another.
#[test]
fn a_long_lane_of_commands_that_end_at_once_is_worked_off_without_deep_recursion() {
    let work = || {
        let mut rig = Rig::with_agent();
        rig.answers_calls = false;
        rig.send("MakeReady#1001", "", "first");
        for n in 0..crate::api::limits::LANE_DEPTH {
            // An extension that is no number is rejected before any request.
            rig.send("Login#1001", "pw,x", &format!("l{n}"));
        }
        rig.answer(done());
        assert_eq!(rig.acks.len(), 1 + crate::api::limits::LANE_DEPTH);
    };
    #[expect(clippy::disallowed_methods, reason = "a thread for its small stack")]
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    small.spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_lost_link_drops_what_was_not_started_and_finishes_what_was() {
    let mut rig = Rig::with_agent();
    rig.answers_calls = false;
    let link = rig.active();
    rig.send("MakeCall#1001", "5000", "m1");
    rig.send("MakeCall#1001", "6000", "m2");
    rig.send("MakeCall#1001", "6000", "m2");
    rig.lose(link);
    assert_ne!(rig.active(), link, "the spare serves at once");
    for (id, number) in [("m1", "5000"), ("m2", "6000")] {
        let mut again = message("MakeCall#1001", number, id);
        again.redelivered = true;
        rig.deliver(again);
    }
    rig.answer(done());
    assert_eq!(
        rig.calls.len(),
        2,
        "m2 is in no journal: nobody has started it"
    );
    rig.answer(done());
    assert_eq!(rig.outcomes(), [Outcome::Accepted, Outcome::Accepted]);
    assert_eq!(rig.acks.len(), 2);
    assert!(rig.acks.iter().all(|id| id.link != link));
    assert_eq!(rig.engine.view().inflight, 0);
}

#[test]
fn what_cannot_be_understood_is_kept_answered_and_acknowledged() {
    let mut rig = Rig::leader();
    let mut odd = message("Frobnicate#1001", "", "x1");
    odd.body = bytes::Bytes::from_static(&[0xff, 0xfe]);
    let id = rig.deliver(odd);
    assert_eq!(rig.dead_letters().len(), 1);
    assert_eq!(rig.outcomes(), [Outcome::Rejected]);
    assert_eq!(rig.acks, [id]);
}

#[test]
fn what_is_refused_is_counted_where_its_name_was_understood() {
    let mut rig = Rig::with_agent();
    rig.send("MakeCall#1001", "", "m1");
    rig.send("hello#", "", "");
    rig.send("Frobnicate#1001", "", "x1");
    assert_eq!(rig.dead_letters().len(), 3);
    let counted = rig.events.iter().filter_map(|event| match event {
        Event::CommandFinished {
            command,
            tag,
            outcome,
            code,
            identified,
            ..
        } => Some((
            *command,
            tag.addressee.as_str(),
            *outcome,
            code.as_deref(),
            *identified,
        )),
        _ => None,
    });
    let refused = Outcome::Rejected;
    assert_eq!(
        counted.collect::<Vec<_>>(),
        [
            ("MakeCall", "1001", refused, Some("MISSING_NUMBER"), true),
            ("Hello", "", refused, Some("PLEASE_RETRY"), false),
        ]
    );
}

#[test]
fn a_call_that_nobody_made_is_made_after_newer_state_changes() {
    let mut rig = Rig::with_agent();
    let second = WALL / 1_000;
    let mut newer = message("MakeReady#1001", "", "new");
    newer.timestamp = Some(second + 1);
    rig.deliver(newer);
    rig.advance(2_000);
    rig.forget();
    let mut old = message("MakeCall#1001", "5000", "old");
    old.timestamp = Some(second);
    old.redelivered = true;
    rig.deliver(old);
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
}

#[test]
fn a_state_change_seen_before_does_not_undo_a_newer_one() {
    let mut rig = Rig::with_agent();
    let second = WALL / 1_000;
    let sent_at = |kind: &str, body: &str, id: &str, timestamp: u64| {
        let mut raw = message(kind, body, id);
        raw.timestamp = Some(timestamp);
        raw
    };
    // A clock that is a day ahead counts as now.
    rig.deliver(sent_at("MakeReady#1001", "", "new", second + 86_400));
    rig.forget();
    let mut old = sent_at("MakeNotReady#1001", "", "old", second - 2);
    old.redelivered = true;
    rig.deliver(old);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    assert!(rig.calls.is_empty(), "the older command ran");
    let mut read = sent_at("GetState#1001", "", "read", second - 2);
    read.redelivered = true;
    rig.deliver(read);
    rig.deliver(sent_at("MakeNotReady#1001", "", "late", second - 2));
    let mut newer = sent_at("MakeReady#1001", "", "newer", second + 60);
    newer.redelivered = true;
    rig.deliver(newer);
    assert_eq!(
        rig.outcomes()[1..],
        [Outcome::Ok, Outcome::Accepted, Outcome::Accepted],
        "a read, what was never seen, and what is newer run"
    );
}

/// Clocks are never quite the same.
#[test]
fn nor_where_the_clock_here_is_a_little_behind() {
    let mut rig = Rig::with_agent();
    let second = WALL / 1_000;
    let mut new = message("MakeReady#1001", "", "new");
    new.timestamp = Some(second + 1);
    rig.deliver(new);
    rig.forget();
    let mut old = message("MakeNotReady#1001", "", "old");
    (old.timestamp, old.redelivered) = (Some(second), true);
    rig.deliver(old);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
}

/// What may be repeated has perhaps had its effect where it failed.
#[test]
fn nor_one_that_failed() {
    let mut rig = Rig::with_agent();
    let second = WALL / 1_000;
    rig.answers.extend([timed_out(), timed_out()]);
    let mut new = message("MakeReady#1001", "", "new");
    new.timestamp = Some(second);
    rig.deliver(new);
    rig.advance(5_000);
    assert_eq!(rig.outcomes(), [Outcome::Failed]);
    rig.forget();
    let mut old = message("MakeNotReady#1001", "", "old");
    (old.timestamp, old.redelivered) = (Some(second - 2), true);
    rig.deliver(old);
    rig.advance(3_000);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    assert!(rig.calls.is_empty(), "the older command ran");
}

#[test]
fn times_of_clients_that_count_finer_are_compared_with_those_that_count_seconds() {
    let mut rig = Rig::with_agent();
    let sent_at = |kind: &str, body: &str, id: &str, timestamp: u64| {
        let mut raw = message(kind, body, id);
        raw.timestamp = Some(timestamp);
        raw
    };
    rig.deliver(sent_at("MakeReady#1001", "", "new", WALL));
    rig.forget();
    for (id, timestamp) in [
        ("old-s", WALL / 1_000 - 2),
        ("old-ms", WALL - 2_000),
        ("old-us", (WALL - 2_000) * 1_000),
    ] {
        let mut old = sent_at("MakeNotReady#1001", "", id, timestamp);
        old.redelivered = true;
        rig.deliver(old);
        assert_eq!(rig.outcomes(), [Outcome::InDoubt], "{id}");
        rig.forget();
    }
    assert!(rig.calls.is_empty(), "an older command ran");
    // Too long ago, by a clock that counts milliseconds.
    rig.deliver(sent_at("MakeCall#1001", "5000", "late", WALL - 600_000));
    assert_eq!(rig.outcomes(), [Outcome::Expired]);
    rig.forget();
    // No time at all breaks nothing.
    for (id, timestamp) in [("zero", 0), ("most", u64::MAX), ("much", u64::MAX / 1_000)] {
        let mut odd = sent_at("GetState#1001", "", id, timestamp);
        odd.redelivered = true;
        rig.deliver(odd);
        let mut odd = sent_at("MakeReady#1001", "", &format!("{id}-2"), timestamp);
        odd.redelivered = true;
        rig.deliver(odd);
    }
    assert_eq!(rig.engine.view().inflight, 0);
}
