//! Peers: roles, held and forwarded commands, takeover, takeback, pauses.

use super::support::*;
use crate::Event;
use crate::api::input::{Input, Notice};
use crate::peer::{ForwardRefusal, OutcomeRecord, PeerMessage, Role};
use crate::wire::reply::{Outcome, Reply};

#[test]
fn a_follower_hands_commands_to_the_leader_and_acknowledges_when_it_is_done() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let id = rig.send("MakeCall#1001", "5000", "m1");
    assert!(rig.forwards().is_empty(), "no sign of life since");
    rig.hear(&mut seq);
    let forwards = rig.forwards();
    assert_eq!(forwards.len(), 1);
    assert!(rig.acks.is_empty());
    rig.peer("gc-2", PeerMessage::ForwardDone { id: forwards[0].1 });
    assert_eq!(rig.acks, [id]);
    assert!(rig.calls.is_empty());
}

#[test]
fn an_unsafe_command_in_a_lost_leaders_hands_is_in_doubt_and_one_still_held_runs() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.peer(
        "gc-2",
        PeerMessage::Delta {
            sessions: vec![Rig::record("1001", "gc-2", 5)],
            destinations: Vec::new(),
            outcomes: Vec::new(),
        },
    );
    rig.send("MakeCall#1001", "5000", "m1");
    rig.hear(&mut seq);
    assert_eq!(rig.forwards().len(), 1);
    rig.advance(2_000);
    rig.send("MakeCall#1001", "6000", "m2");
    rig.advance(2_000);
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt, Outcome::Accepted]);
    assert_eq!(rig.acks.len(), 2);
}

#[test]
fn what_a_lost_owner_may_have_answered_is_not_said_to_have_failed() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.peer(
        "gc-2",
        PeerMessage::Delta {
            sessions: vec![Rig::record("1001", "gc-2", 5)],
            destinations: Vec::new(),
            outcomes: Vec::new(),
        },
    );
    rig.answers.push_back(refused(401));
    rig.send("MakeReady#1001", "", "m1");
    rig.hear(&mut seq);
    assert_eq!(rig.forwards().len(), 1);
    rig.advance(4_000);
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
}

pub(super) fn outcome_of(raw: &crate::wire::message::RawMessage, rig: &Rig) -> OutcomeRecord {
    let command = crate::wire::command::parse(raw, &rig.config.parse, rig.now().wall).unwrap();
    let (key, body) = crate::jobs::ledger::key_of(&command).unwrap();
    OutcomeRecord {
        resolved: false,
        key,
        body,
        until: rig.now().wall + 60_000,
        reply: Reply {
            command: "MakeCall".into(),
            id: "1001".into(),
            outcome: Outcome::Accepted,
            status: Some(202),
            instance: "gc-2".into(),
            downstream: None,
            error: None,
            retry_after_ms: None,
            body: None,
        },
    }
}

/// How often an answer in doubt was told to whoever counts.
fn doubts(rig: &Rig) -> usize {
    let told = |event: &&Event| matches!(event, Event::InDoubt { .. });
    rig.events.iter().filter(told).count()
}

#[test]
fn what_another_one_has_told_is_the_outcome_of_a_command_that_runs_here_too() {
    let refusal = || refused(401);
    for (ours, theirs, told) in [
        (refusal(), Outcome::Accepted, Outcome::Accepted),
        (done(), Outcome::Accepted, Outcome::Accepted),
        (refusal(), Outcome::InDoubt, Outcome::Failed),
        (done(), Outcome::Failed, Outcome::InDoubt),
    ] {
        let mut seq = 0;
        let mut rig = Rig::with_agent();
        rig.advance_with_peer(1_000, &mut seq, Role::Follower, 100);
        rig.forget();
        rig.answers_calls = false;
        let raw = message("MakeReady#1001", "", "m1");
        rig.deliver(raw.clone());
        assert_eq!(rig.open_calls.len(), 1);
        let mut record = outcome_of(&raw, &rig);
        record.reply.command = "MakeReady".into();
        record.reply.outcome = theirs;
        rig.peer(
            "gc-2",
            PeerMessage::Delta {
                sessions: Vec::new(),
                destinations: Vec::new(),
                outcomes: vec![record],
            },
        );
        rig.answer(ours);
        rig.advance(100);
        assert_eq!(rig.outcomes(), [told], "theirs was {theirs:?}");
        assert_eq!(doubts(&rig), usize::from(told == Outcome::InDoubt));
    }
}

#[test]
fn the_outcome_a_lost_leader_told_before_it_went_is_the_answer() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let raw = message("MakeCall#1001", "5000", "m1");
    rig.deliver(raw.clone());
    rig.hear(&mut seq);
    let record = outcome_of(&raw, &rig);
    rig.peer(
        "gc-2",
        PeerMessage::Delta {
            sessions: vec![Rig::record("1001", "gc-2", 5)],
            destinations: Vec::new(),
            outcomes: vec![record],
        },
    );
    rig.advance(4_000);
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    assert!(rig.actions().iter().all(|action| action.idempotent()));
}

#[test]
fn a_redelivery_at_a_follower_is_left_to_the_leader_who_may_know_it() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let mut raw = message("MakeCall#1001", "5000", "m1");
    raw.redelivered = true;
    rig.deliver(raw);
    assert!(rig.outcomes().is_empty());
    rig.hear(&mut seq);
    assert_eq!(rig.forwards().len(), 1);
}

#[test]
fn a_leader_that_restarts_gets_an_unsafe_command_again_as_one_that_may_have_run() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.send("MakeCall#1001", "5000", "m1");
    rig.send("MakeReady#1001", "", "m2");
    rig.hear(&mut seq);
    assert_eq!(rig.forwards().len(), 2);
    let heartbeat = rig.heartbeat(1, Role::Leader, 127);
    rig.peer_boot("gc-2", 23, PeerMessage::Heartbeat(heartbeat));
    rig.advance(250);
    let heartbeat = rig.heartbeat(2, Role::Leader, 127);
    rig.peer_boot("gc-2", 23, PeerMessage::Heartbeat(heartbeat));
    rig.advance(1_500);
    let again = rig.forwards()[2..].to_vec();
    assert!(!again.is_empty());
    assert!(again.iter().all(|(.., raw)| raw.redelivered));
    assert!(rig.outcomes().is_empty());
}

#[test]
fn a_command_in_a_lost_peers_hands_goes_to_the_third_that_leads_now() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let mut other = rig.heartbeat(1, Role::Follower, 110);
    rig.peer_boot("gc-3", 33, PeerMessage::Heartbeat(other.clone()));
    rig.send("MakeReady#1001", "", "m1");
    rig.hear(&mut seq);
    assert_eq!(rig.forwards().len(), 1);
    for n in 0..20 {
        rig.advance(250);
        other.seq += 1;
        other.groups[0].role = if n > 12 { Role::Leader } else { Role::Follower };
        rig.peer_boot("gc-3", 33, PeerMessage::Heartbeat(other.clone()));
    }
    rig.advance(200);
    let to: Vec<_> = rig.forwards().into_iter().map(|(to, ..)| to).collect();
    assert_eq!(to.last(), Some(&instance("gc-3")));
}

#[test]
fn duplicates_of_a_command_that_the_owner_refuses_are_answered_too() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.send("MakeReady#1001", "", "m1");
    rig.send("MakeReady#1001", "", "m1");
    rig.hear(&mut seq);
    let (_, id, _) = rig.forwards()[0].clone();
    rig.peer(
        "gc-2",
        PeerMessage::ForwardRefused {
            id,
            why: ForwardRefusal::Busy,
        },
    );
    rig.advance(100);
    rig.hear(&mut seq);
    if let Some((_, id, _)) = rig.forwards().get(1).cloned() {
        rig.peer("gc-2", PeerMessage::ForwardDone { id });
    }
    assert_eq!(rig.acks.len(), 2, "a waiting duplicate is stuck");
}

#[test]
fn a_refusal_from_another_than_the_one_asked_changes_nothing() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.send("MakeReady#1001", "", "m1");
    rig.hear(&mut seq);
    let (_, id, _) = rig.forwards()[0].clone();
    let why = ForwardRefusal::Busy;
    rig.peer("gc-3", PeerMessage::ForwardRefused { id, why });
    rig.peer_boot("gc-2", 21, PeerMessage::ForwardRefused { id, why });
    rig.peer("gc-3", PeerMessage::ForwardDone { id });
    assert!(rig.outcomes().is_empty());
    assert!(rig.acks.is_empty());
}

#[test]
fn the_numbers_of_two_starts_do_not_meet() {
    let mut config = config();
    config.priority = 100;
    let mut ids = Vec::new();
    for boot in [101, 102] {
        config.boot = crate::api::ids::BootId(boot);
        let mut rig = Rig::new(config.clone());
        rig.start();
        rig.peer_beat(1, Role::Leader, 127);
        rig.peer_snapshot();
        rig.advance(1_000);
        let mut seq = 1;
        rig.hear(&mut seq);
        rig.send("MakeReady#1001", "", "m1");
        rig.hear(&mut seq);
        ids.push(rig.forwards()[0].1);
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn an_owner_runs_a_forwarded_command_once_and_says_when_its_reply_is_confirmed() {
    let mut rig = Rig::with_agent();
    rig.broker = Broker::Holds;
    let raw = message("MakeCall#1001", "5000", "m1");
    for _ in 0..2 {
        rig.peer(
            "gc-2",
            PeerMessage::Forward {
                id: 7,
                raw: raw.clone(),
            },
        );
    }
    assert_eq!(rig.calls.len(), 1);
    let done = |rig: &Rig| {
        rig.said
            .iter()
            .filter(|(_, m)| *m == PeerMessage::ForwardDone { id: 7 })
            .count()
    };
    assert_eq!(done(&rig), 0);
    rig.confirm_all();
    assert_eq!(done(&rig), 1);
    // The word was lost: asked again, answered again, not run again.
    rig.broker = Broker::Confirms;
    rig.peer("gc-2", PeerMessage::Forward { id: 7, raw });
    assert_eq!(done(&rig), 2);
    assert_eq!(rig.calls.len(), 1);
}

#[test]
fn a_forward_without_command_id_is_marked_when_it_is_sent_again() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.send("MakeCall#1001", "5000", "");
    rig.advance_with_peer(2_000, &mut seq, Role::Leader, 127);
    let forwards = rig.forwards();
    assert!(forwards.len() >= 2);
    assert!(!forwards[0].2.maybe_seen());
    assert!(forwards[1].2.maybe_seen(), "the first may have been run");
}

#[test]
fn a_follower_that_holds_too_much_refuses_with_advice() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    for n in 0..51 {
        rig.send("MakeReady#1001", "", &format!("m{n}"));
    }
    let replies = rig.replies();
    assert_eq!(replies.len(), 1);
    assert!(replies[0].1.retry_after_ms.is_some());
}

#[test]
fn a_pause_below_the_suspect_time_takes_nothing_over() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.advance(1_499);
    rig.hear(&mut seq);
    rig.advance(400);
    assert_eq!(rig.role(), Role::Follower);
    assert!(
        !rig.events
            .iter()
            .any(|e| matches!(e, Event::PeerLost { .. }))
    );
}

#[test]
fn a_thawed_leader_starts_nothing_before_it_heard_who_leads_now() {
    let mut rig = Rig::with_agent();
    let mut seq = 0;
    rig.advance_with_peer(1_000, &mut seq, Role::Follower, 100);
    rig.forget();
    rig.freeze(8_000);
    rig.send("MakeCall#1001", "5000", "m1");
    assert!(rig.calls.is_empty());
    // A heartbeat that waited in the socket all the time says nothing of now.
    seq += 1;
    rig.peer_beat(seq, Role::Follower, 100);
    assert!(rig.calls.is_empty(), "an old heartbeat lifted the fence");
    // One that answers a heartbeat of ours since then does: here, that the peer leads.
    let own = rig.own_seq();
    let mut heartbeat = rig.heartbeat(seq + 1, Role::Leader, 127);
    heartbeat.groups[0].term = 99;
    heartbeat.echo = vec![(instance("gc-1"), rig.config.boot, own, 0)];
    rig.peer("gc-2", PeerMessage::Heartbeat(heartbeat));
    assert_eq!(rig.role(), Role::Follower);
    assert!(rig.calls.is_empty(), "started though another one leads");
}

/// While it was frozen its peer served, and has started anew since: it knows no more how it
/// answered what may be repeated.
#[test]
fn what_a_thawed_instance_fails_at_is_in_doubt_where_the_peer_may_have_forgotten_another_outcome() {
    for (boot, outcome) in [(22, Outcome::Failed), (23, Outcome::InDoubt)] {
        let mut rig = Rig::with_agent();
        let mut seq = 0;
        rig.advance_with_peer(1_000, &mut seq, Role::Follower, 100);
        rig.forget();
        rig.freeze(8_000);
        rig.input(Input::Tick);
        let own = rig.own_seq();
        let mut heartbeat = rig.heartbeat(seq + 1, Role::Follower, 100);
        heartbeat.echo = vec![(instance("gc-1"), rig.config.boot, own, 0)];
        rig.peer_boot("gc-2", boot, PeerMessage::Heartbeat(heartbeat));
        rig.answers.push_back(refused(400));
        rig.send("MakeReady#1001", "", "m1");
        rig.advance(100);
        assert_eq!(rig.outcomes(), [outcome], "start {boot}");
    }
}

#[test]
fn an_instance_without_a_broker_does_not_take_its_peer_for_lost() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.refuses_links = true;
    for (link, _) in rig.links.clone() {
        rig.lose(link);
    }
    rig.advance(20_000);
    assert_eq!(rig.role(), Role::Follower);
    rig.refuses_links = false;
    rig.advance(6_000);
    assert!(
        rig.role() == Role::Follower || rig.role().leads(),
        "attached again"
    );
    assert!(
        rig.events
            .iter()
            .filter(|e| matches!(e, Event::PeerLost { .. }))
            .count()
            <= 1
    );
}

#[test]
fn a_leader_owns_the_agents_that_a_healed_peer_brings() {
    let mut rig = Rig::with_agent();
    rig.peer_beat(1, Role::Follower, 100);
    let mut record = Rig::record("1001", "gc-2", 90);
    record.destination = destination("desk");
    rig.peer_snapshot_of(vec![record]);
    rig.advance(5_000);
    let session = &rig.engine.session_views()[0];
    assert_eq!(session.owner, "gc-1");
    assert!(session.epoch > 90);
    assert!(session.subscribed, "the leader let its subscription go");
}

#[test]
fn a_session_that_ended_and_comes_again_ends_its_old_subscription() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let mut record = Rig::record("1001", "gc-2", 5);
    let delta = |record: &crate::peer::SessionRecord| PeerMessage::Delta {
        sessions: vec![record.clone()],
        destinations: Vec::new(),
        outcomes: Vec::new(),
    };
    rig.peer("gc-2", delta(&record));
    rig.advance(4_000);
    assert_eq!(rig.subscribed.len(), 1);
    record.version.epoch = 50;
    record.tombstone = true;
    rig.peer("gc-2", delta(&record));
    rig.send("Connect#1001", "desk,pw", "c1");
    rig.advance(5_000);
    assert_eq!(rig.subscribed.len() - rig.unsubscribed.len(), 1);
    rig.notify("1001", Notice::Up);
}

#[test]
fn peer_messages_of_every_kind_are_taken_at_any_time() {
    let mut rig = Rig::with_agent();
    for id in 0..3 {
        rig.peer("gc-9", PeerMessage::ForwardDone { id });
        rig.peer("gc-9", PeerMessage::ForwardWithdrawn { id });
    }
    rig.peer("gc-9", PeerMessage::Unknown);
    rig.peer("gc-9", PeerMessage::Goodbye);
    rig.input(Input::PeerRejected {
        claimed: Some(instance("gc-9")),
        reason: "wrong_key",
    });
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
}

#[test]
fn a_peer_whose_table_stays_different_gets_a_snapshot() {
    let mut rig = Rig::with_agent();
    let snapshots = |rig: &Rig| {
        rig.said
            .iter()
            .filter(|(_, m)| matches!(m, PeerMessage::Snapshot { .. }))
            .count()
    };
    for seq in 1..=8 {
        let mut beat = rig.heartbeat(seq, Role::Follower, 100);
        beat.digest = 5;
        rig.peer("gc-2", PeerMessage::Heartbeat(beat));
        rig.advance(500);
    }
    assert_eq!(snapshots(&rig), 3, "at once, then once in four heartbeats");
}

#[test]
fn two_instances_do_not_wait_for_each_other_with_the_same_command() {
    let mut config = config();
    config.priority = 100;
    let mut rig = Rig::new(config);
    rig.start();
    rig.advance(2_000);
    rig.sign_in("1001", "desk");
    // No downstream: the own copy waits in its lane, the peer's behind it.
    rig.nodes = vec![unreachable(), unreachable()];
    rig.advance(10_000);
    let raw = message("MakeReady#1001", "", "m1");
    rig.deliver(raw.clone());
    rig.peer(
        "gc-2",
        PeerMessage::Forward {
            id: 7,
            raw: raw.clone(),
        },
    );
    let refused = |rig: &Rig, id: u64| {
        rig.said.iter().any(|(_, m)| {
            let why = ForwardRefusal::NotOwner;
            *m == PeerMessage::ForwardRefused { id, why }
        })
    };
    assert!(!refused(&rig, 7));
    // The peer leads now: it is asked, and must not have to wait for us.
    let mut seq = 1;
    rig.peer_beat(seq, Role::Leader, 127);
    assert_eq!(rig.role(), Role::Follower);
    assert!(refused(&rig, 7), "the peer's copy waits for the peer");
    rig.hear(&mut seq);
    assert_eq!(rig.forwards().len(), 1);
    // We lead again, the peer still has ours: its own copy is not taken in behind it.
    rig.nodes = vec![in_service(), in_service()];
    rig.advance_with_peer(12_000, &mut seq, Role::Follower, 90);
    assert_eq!(rig.role(), Role::Leader);
    rig.peer("gc-2", PeerMessage::Forward { id: 8, raw });
    assert!(refused(&rig, 8), "both wait for each other");
    rig.peer(
        "gc-2",
        PeerMessage::ForwardRefused {
            id: rig.forwards()[0].1,
            why: ForwardRefusal::NotOwner,
        },
    );
    rig.advance(200);
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    assert_eq!(rig.acks.len(), 1);
}

/// Supervisors of many teams are large: each message to the peers has a size.
#[test]
fn a_snapshot_of_supervisors_is_told_in_parts_that_fit() {
    let mut rig = Rig::leader();
    let team = |n: usize| crate::model::Team {
        id: format!("{n}"),
        name: format!("a team with a long name, number {n}"),
    };
    for number in 0..40 {
        let name = format!("{}", 2_000 + number);
        let mut supervisor = user(&name, "NOT_READY");
        supervisor.teams = (0..300).map(team).collect();
        rig.users.insert(agent(&name), supervisor);
        rig.send(&format!("Connect#{name}"), "desk,pw", &format!("c-{name}"));
        rig.send(&format!("Login#{name}"), "pw,2001", &format!("l-{name}"));
    }
    rig.advance(2_000);
    rig.forget();
    rig.peer_beat(1, Role::Follower, 100);
    let sizes: Vec<usize> = rig
        .said
        .iter()
        .map(|(_, message)| serde_json::to_vec(message).unwrap().len())
        .collect();
    assert!(sizes.iter().sum::<usize>() > 400_000, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size < 100_000), "{sizes:?}");
}

/// It gives up its role while a request is under way, and its successor has carried out what the
/// client sent again: what the late answer says is not the last word.
#[test]
fn a_failure_that_comes_after_the_agent_has_another_owner_is_in_doubt() {
    let mut rig = Rig::with_agent();
    rig.peer_beat(1, Role::Follower, 100);
    rig.advance(100);
    rig.answers_calls = false;
    rig.send("MakeReady#1001", "", "m1");
    rig.nodes = vec![unreachable(), unreachable()];
    let mut seq = 1;
    rig.advance_with_peer(15_000, &mut seq, Role::Follower, 100);
    assert_eq!(rig.role(), Role::Follower, "it cannot serve");
    let mut record = Rig::record("1001", "gc-2", 90);
    record.destination = destination("desk");
    let message = PeerMessage::Delta {
        sessions: vec![record],
        destinations: Vec::new(),
        outcomes: Vec::new(),
    };
    rig.peer("gc-2", message);
    seq += 1;
    rig.peer_beat(seq, Role::Leader, 100);
    rig.answer(refused(400));
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    let told = rig.said.iter().flat_map(|(_, message)| match message {
        PeerMessage::Journal { outcomes, .. } | PeerMessage::Delta { outcomes, .. } => {
            outcomes.clone()
        }
        _ => Vec::new(),
    });
    let told: Vec<Outcome> = told.map(|one| one.reply.outcome).collect();
    assert!(!told.contains(&Outcome::Failed), "{told:?}");
}
