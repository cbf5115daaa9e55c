//! Evidence and proof, accepted sign-ins, and what a process that was away may do.

use super::support::*;
use crate::Event;
use crate::api::input::{Input, Source};
use crate::model::Action;
use crate::peer::{Heartbeat, PeerMessage, Role};
use crate::wire::message::RawMessage;
use crate::wire::reply::Outcome;

const PEER: &str = "gc-2";

/// A heartbeat of a member that keeps a journal, owes nothing and heard our last one.
fn heartbeat(rig: &Rig, seq: u64) -> Heartbeat {
    let said = rig.said.iter().rev();
    let own = said.filter_map(|(_, message)| match message {
        PeerMessage::Heartbeat(beat) => Some(beat.seq),
        _ => None,
    });
    let own = own.max().unwrap_or(0);
    let mut beat = rig.heartbeat(seq, Role::Follower, 100);
    beat.journal = true;
    beat.shares = true;
    beat.settled = vec![instance("gc-1")];
    beat.echo = vec![(instance("gc-1"), rig.config.boot, own, 0)];
    beat
}

fn beat(rig: &mut Rig, seq: &mut u64, millis: u64) {
    rig.advance(millis);
    *seq += 1;
    let beat = heartbeat(rig, *seq);
    rig.peer(PEER, PeerMessage::Heartbeat(beat));
}

/// The member answers all that waits for it.
fn answer(rig: &mut Rig) {
    let said = std::mem::take(&mut rig.said);
    for (_, message) in &said {
        let answer = match message {
            PeerMessage::Share { number, .. } => PeerMessage::Shared { number: *number },
            PeerMessage::Journal {
                intents, outcomes, ..
            } => PeerMessage::JournalAck {
                intents: intents.iter().map(|intent| intent.key).collect(),
                made: intents.iter().map(|intent| intent.at).collect(),
                outcomes: outcomes.iter().map(|outcome| outcome.key).collect(),
                unkept: Vec::new(),
                refused: Vec::new(),
            },
            _ => continue,
        };
        rig.peer(PEER, answer);
    }
    rig.said.splice(0..0, said);
}

/// A leader with an agent, and a member at broker `at`.
fn pair(seq: &mut u64, at: usize) -> Rig {
    let mut rig = Rig::with_agent();
    rig.counts.insert(instance(PEER), 1);
    rig.peers_at = Some(at);
    for _ in 0..6 {
        beat(&mut rig, seq, 500);
    }
    rig.forget();
    rig
}

/// The other broker is out of reach, for longer than one that restarts.
fn lose_far(rig: &mut Rig, seq: &mut u64) {
    let far = rig.links.iter().find(|(_, broker)| *broker == 1).unwrap().0;
    rig.refuses_links = true;
    rig.lose(far);
    for _ in 0..6 {
        beat(rig, seq, 500);
    }
}

fn resent(id: &str) -> RawMessage {
    let mut raw = message("MakeCall#1001", "5000", id);
    raw.attempt = Some(2);
    raw
}

fn calls(rig: &Rig) -> usize {
    let made = |action: &&Action| matches!(action, Action::MakeCall { .. });
    rig.actions().iter().filter(made).count()
}

fn lost(rig: &Rig) -> Vec<&'static str> {
    let lost = |event: &Event| match event {
        Event::PeerLost { reason, .. } => Some(*reason),
        _ => None,
    };
    rig.events.iter().filter_map(lost).collect()
}

#[test]
fn a_peer_that_moves_to_another_broker_is_not_lost_by_the_count_of_the_former_one() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 1);
    // It is at the other broker now, and its heartbeats are late.
    rig.peers_at = Some(0);
    rig.advance(1_200);
    assert_eq!(lost(&rig), [""; 0]);
}

#[test]
fn a_peer_may_move_to_a_broker_that_is_out_of_reach_for_a_moment() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    let far = rig.links.iter().find(|(_, broker)| *broker == 1).unwrap().0;
    rig.refuses_links = true;
    rig.lose(far);
    beat(&mut rig, &mut seq, 100);
    // It is there now, and is heard late.
    rig.peers_at = Some(1);
    rig.advance(1_200);
    assert_eq!(lost(&rig), [""; 0]);
    rig.refuses_links = false;
    rig.advance(1_000);
    assert_eq!(lost(&rig), [""; 0]);
}

#[test]
fn a_resend_runs_once_no_broker_has_the_lost_peer_and_not_on_the_word_of_one() {
    // The broker that it may have moved to is out of reach.
    for (reached, outcome) in [(true, Outcome::Accepted), (false, Outcome::InDoubt)] {
        let mut seq = 0;
        let mut rig = pair(&mut seq, 0);
        if !reached {
            lose_far(&mut rig, &mut seq);
        }
        rig.counts.insert(instance(PEER), 0);
        rig.advance(1_100);
        assert_eq!(lost(&rig), ["consumer_gone"]);
        rig.forget();
        rig.deliver(resent("m1"));
        rig.advance(8_000);
        assert_eq!(rig.outcomes(), [outcome], "all brokers reached: {reached}");
        assert_eq!(calls(&rig), usize::from(reached));
    }
}

#[test]
fn an_old_count_is_no_proof_once_a_broker_was_out_of_reach() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    rig.counts.insert(instance(PEER), 0);
    rig.advance(1_100);
    assert_eq!(lost(&rig), ["consumer_gone"]);
    // It may have come back there, served and gone again meanwhile.
    let far = rig.links.iter().find(|(_, broker)| *broker == 1).unwrap().0;
    rig.refuses_links = true;
    rig.lose(far);
    rig.advance(2_000);
    rig.refuses_links = false;
    rig.advance(8_000);
    rig.forget();
    rig.deliver(resent("m1"));
    rig.advance(8_000);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
}

#[test]
fn nor_is_it_where_a_link_was_cut_for_longer_than_it_was_known_to_be_lost() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    rig.counts.insert(instance(PEER), 0);
    rig.advance(1_100);
    assert_eq!(lost(&rig), ["consumer_gone"]);
    rig.mute = Some(1);
    rig.advance(2_000);
    rig.mute = None;
    let far = rig.links.iter().find(|(_, broker)| *broker == 1).unwrap().0;
    rig.lose(far);
    rig.advance(8_000);
    rig.forget();
    rig.deliver(resent("m1"));
    rig.advance(8_000);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
}

#[test]
fn the_proof_is_looked_at_again_when_a_member_is_lost_before_the_call() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    // It is there: its word is waited for, and does not come.
    rig.deliver(resent("m1"));
    assert_eq!(calls(&rig), 0);
    rig.advance(3_500);
    assert_eq!(lost(&rig), ["silent"]);
    rig.advance(6_000);
    assert_eq!(calls(&rig), 0, "it may be alone and have made the call");
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
}

#[test]
fn who_is_lost_by_a_count_has_a_say_until_it_must_have_noticed() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    lose_far(&mut rig, &mut seq);
    beat(&mut rig, &mut seq, 100);
    rig.counts.insert(instance(PEER), 0);
    rig.advance(1_100);
    assert_eq!(lost(&rig), ["consumer_gone"]);
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted], "what may be repeated");
    rig.send("MakeCall#1001", "5000", "m2");
    assert_eq!(
        calls(&rig),
        0,
        "it may live at the broker that cannot be asked"
    );
    rig.advance(2_500);
    assert_eq!(calls(&rig), 1);
}

#[test]
fn what_was_sent_before_an_instance_was_back_may_have_been_sent_again_elsewhere() {
    // Clients count seconds or milliseconds.
    for unit in [1, 1_000] {
        sent_before_it_was_back(unit);
    }
}

fn sent_before_it_was_back(unit: u64) {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    let active = rig.active();
    rig.refuses_links = true;
    rig.lose(active);
    let far = rig.links.iter().map(|(link, _)| *link).collect::<Vec<_>>();
    far.into_iter().for_each(|link| rig.lose(link));
    rig.advance(5_000);
    let before = rig.now().wall / 1_000 - 3;
    rig.refuses_links = false;
    rig.advance(8_000);
    rig.forget();
    let mut old = message("MakeCall#1001", "5000", "m1");
    old.timestamp = Some(before * unit);
    rig.deliver(old);
    rig.advance(8_000);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    // Sent since, and again once the member has told everything.
    let mut new = message("MakeCall#1001", "5001", "m2");
    new.timestamp = Some(rig.now().wall / 1_000 * unit);
    rig.deliver(new);
    rig.advance(5_000);
    assert_eq!(rig.outcomes()[1], Outcome::Accepted);
    rig.counts.insert(instance(PEER), 1);
    beat(&mut rig, &mut seq, 10);
    beat(&mut rig, &mut seq, 10);
    let mut old = message("MakeCall#1001", "5002", "m3");
    old.timestamp = Some((rig.now().wall / 1_000 - 25) * unit);
    rig.deliver(old);
    answer(&mut rig);
    rig.advance(20);
    answer(&mut rig);
    rig.advance(20);
    assert_eq!(rig.outcomes()[2], Outcome::Accepted);
}

#[test]
fn a_false_alarm_makes_the_count_no_evidence_for_a_while() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    rig.counts.insert(instance(PEER), 0);
    rig.advance(1_100);
    assert_eq!(lost(&rig), ["consumer_gone"]);
    beat(&mut rig, &mut seq, 10);
    rig.events.clear();
    rig.advance(2_000);
    assert_eq!(lost(&rig), [""; 0], "it lived: silence alone counts now");
    rig.advance(1_000);
    assert_eq!(lost(&rig), ["silent"]);
}

#[test]
fn a_starved_process_believes_none_of_its_counts() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    rig.counts.insert(instance(PEER), 0);
    rig.advance(260);
    rig.freeze(700);
    rig.advance(10);
    assert_eq!(lost(&rig), [""; 0]);
}

// ---- sign-ins -----------------------------------------------------------------------------------

#[test]
fn an_accepted_sign_in_is_told_once_the_member_knows_it() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    rig.users.insert(agent("1002"), user("1002", "NOT_READY"));
    for (command, body, outcome) in [
        ("Connect#1002", "desk-2,pw", Outcome::Ok),
        ("Login#1002", "pw,2002", Outcome::Accepted),
        ("Logout#1002", "", Outcome::Accepted),
    ] {
        rig.forget();
        rig.send(command, body, command);
        answer(&mut rig);
        rig.advance(10);
        let shares = |(_, message): &&(_, PeerMessage)| {
            matches!(message, PeerMessage::Share { sessions, .. }
                if sessions[0].signed_in == command.starts_with("Login"))
        };
        let told = rig.said.iter().filter(shares).count();
        assert_eq!(told, 1, "{command}");
        answer(&mut rig);
        rig.advance(10);
        answer(&mut rig);
        assert_eq!(rig.outcomes(), [outcome], "{command}");
    }
}

#[test]
fn a_sign_in_waits_for_a_member_that_is_silent_for_a_second_and_for_the_disk() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    rig.send("Connect#1002", "desk-2,pw", "c1");
    rig.advance(900);
    assert_eq!(rig.outcomes(), []);
    let connected = |rig: &Rig| !rig.told("desk-2").is_empty();
    assert!(!connected(&rig), "nor the event");
    rig.advance(200);
    assert_eq!(rig.outcomes(), [Outcome::Ok]);
    assert!(connected(&rig));
}

#[test]
fn a_member_says_that_it_knows_what_is_shared() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let sessions = vec![Rig::record("1001", PEER, 5)];
    let number = 7;
    rig.peer(PEER, PeerMessage::Share { number, sessions });
    assert_eq!(rig.engine.session_views().len(), 1);
    let said = rig.said.last().unwrap();
    assert_eq!(said.1, PeerMessage::Shared { number });
}

#[test]
fn what_a_former_owner_finishes_is_written_by_the_owner() {
    let mut rig = Rig::with_agent();
    let mut record = Rig::record("1001", "gc-1", 1);
    record.extension = Some("2999".into());
    record.signed_in = true;
    rig.peer(PEER, PeerMessage::SessionChanged { record });
    let told = |rig: &mut Rig| {
        rig.advance(50);
        let read = |action: &Action| matches!(action, Action::ReadUser);
        rig.advance(2_000);
        rig.actions().iter().any(read)
    };
    assert!(told(&mut rig), "the agent is read anew");
    let kept = rig.kept.sessions.iter().rev();
    let mut kept = kept.filter_map(|(_, record)| record.as_ref());
    assert_eq!(kept.next().unwrap().extension.as_deref(), Some("2999"));
}

// ---- expired ------------------------------------------------------------------------------------

#[test]
fn an_expired_command_that_nobody_started_is_expired_and_not_in_doubt() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    let mut raw = resent("m1");
    raw.deadline = Some(rig.now().wall as i64 - 1);
    rig.deliver(raw);
    answer(&mut rig);
    rig.advance(20);
    assert_eq!(rig.outcomes(), [Outcome::Expired]);
}

#[test]
fn what_expired_in_the_queue_waits_for_proof() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    rig.advance(3_500);
    assert_eq!(lost(&rig), ["silent"]);
    let link = rig.active();
    let mut raw = message("MakeCall#1001", "5000", "m1");
    raw.deadline = Some(rig.now().wall as i64 - 1);
    rig.deliver_on(link, Source::Expired, raw);
    rig.advance(8_000);
    assert_eq!(
        rig.outcomes(),
        [Outcome::InDoubt],
        "the other may have begun it"
    );
}

// ---- pauses -------------------------------------------------------------------------------------

#[test]
fn a_leader_that_was_away_for_long_consumes_nothing_before_it_heard_who_leads() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    let tag = |rig: &Rig| rig.consumers.values().map(|(_, tag)| tag.clone()).next();
    assert!(tag(&rig).is_some_and(|tag| tag.contains(".leader.")));
    rig.freeze(5_000);
    // Its link was lost meanwhile, as brokers miss heartbeats.
    let active = rig.active();
    rig.lose(active);
    rig.advance(10);
    assert_eq!(tag(&rig), None, "consumes as if it still led");
    let mut deposed = heartbeat(&rig, seq + 1);
    deposed.groups[0].role = Role::Leader;
    deposed.groups[0].term = 99;
    rig.peer(PEER, PeerMessage::Heartbeat(deposed));
    assert!(tag(&rig).is_some_and(|tag| tag.contains(".follower.")));
}

#[test]
fn a_leader_that_was_away_for_long_and_hears_nobody_goes_on() {
    let mut seq = 0;
    let mut rig = pair(&mut seq, 0);
    rig.freeze(5_000);
    rig.input(Input::Tick);
    assert!(rig.consumers.is_empty());
    rig.advance(3_500);
    assert_eq!(rig.consumers.len(), 1);
}

#[test]
fn a_leader_whose_peer_had_left_starts_nothing_after_a_pause_before_it_has_listened() {
    for comes in [true, false] {
        let mut seq = 0;
        let mut rig = pair(&mut seq, 1);
        rig.peer(PEER, PeerMessage::Goodbye);
        rig.counts.insert(instance(PEER), 0);
        rig.advance(1_000);
        rig.forget();
        rig.freeze(12_000);
        rig.send("MakeReady#1001", "", "m1");
        assert!(rig.calls.is_empty(), "it may have come back and serve");
        assert!(rig.consumers.is_empty());
        if comes {
            let mut beat = rig.heartbeat(1, Role::Leader, 100);
            beat.started = WALL + 5_000;
            beat.groups[0].term = 99;
            rig.peer_boot(PEER, 23, PeerMessage::Heartbeat(beat));
            assert_eq!(rig.role(), Role::Follower);
            rig.advance(1_600);
            assert!(rig.calls.is_empty());
        } else {
            rig.advance(1_600);
            assert_eq!(rig.outcomes(), [Outcome::Accepted]);
            assert_eq!(rig.consumers.len(), 1);
        }
    }
}
