//! Operators' verbs: what they do, what stands, what is refused.

use super::support::*;
use crate::Event;
use crate::api::ids::VerbId;
use crate::api::input::{Input, Verb};
use crate::peer::{Choice, Heartbeat, PeerMessage, Role, Wish};
use crate::wire::reply::Outcome;

pub(super) fn give(rig: &mut Rig, verb: Verb) -> Result<String, String> {
    rig.verbs.clear();
    rig.input(Input::Operator {
        id: VerbId(1),
        verb,
    });
    rig.advance(100);
    rig.verbs.pop().expect("an answer")
}

pub(super) fn leader_wish(name: &str) -> Wish {
    Wish::Leader {
        instance: instance(name),
    }
}

pub(super) fn off_wish(name: &str) -> Wish {
    Wish::FailoverOff {
        stopped: instance(name),
    }
}

pub(super) fn choice(counter: u64, wish: Wish) -> Choice {
    Choice {
        counter,
        by: instance("gc-2"),
        at: WALL,
        wish,
    }
}

/// gc-2 beats with this choice.
pub(super) fn beat_with(rig: &mut Rig, seq: &mut u64, role: Role, priority: u8, known: &Choice) {
    *seq += 1;
    let mut beat = rig.heartbeat(*seq, role, priority);
    beat.groups[0].choice = Some(known.clone());
    beat.groups[0].eligible = role != Role::Disabled;
    rig.peer("gc-2", PeerMessage::Heartbeat(beat));
}

pub(super) fn last_beat(rig: &Rig) -> Heartbeat {
    let mut beats = rig.said.iter().rev();
    let beat = beats.find_map(|(_, message)| match message {
        PeerMessage::Heartbeat(beat) => Some(beat.clone()),
        _ => None,
    });
    beat.expect("a heartbeat")
}

pub(super) fn claim(rig: &Rig) -> Option<u64> {
    rig.said
        .iter()
        .rev()
        .find_map(|(_, message)| match message {
            PeerMessage::Claim { term, .. } => Some(*term),
            _ => None,
        })
}

pub(super) fn granted(rig: &Rig) -> bool {
    let mut said = rig.said.iter();
    said.any(|(_, message)| matches!(message, PeerMessage::Grant { .. }))
}

/// gc-1 leads an agent, gc-2 (100) follows it.
pub(super) fn pair(seq: &mut u64) -> Rig {
    let mut rig = Rig::with_agent();
    *seq += 1;
    rig.peer_beat(*seq, Role::Follower, 100);
    rig.peer_snapshot();
    rig.advance_with_peer(1_000, seq, Role::Follower, 100);
    assert_eq!(rig.role(), Role::Leader);
    rig.forget();
    rig
}

pub(super) fn claim_of_peer(rig: &mut Rig, term: u64) {
    let group = "agents".into();
    rig.peer("gc-2", PeerMessage::Claim { group, term });
}

#[test]
fn gr1_a_stopped_leader_serves_until_its_follower_claims() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let said = give(&mut rig, Verb::GroupStop("agents".into()));
    assert_eq!(said.as_deref(), Ok("draining"));
    assert_eq!(rig.role(), Role::Leader, "nobody has claimed yet");
    let told = &last_beat(&rig).groups[0];
    assert!(told.leaving && !told.eligible);
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    claim_of_peer(&mut rig, 90_000);
    assert!(granted(&rig));
    assert_eq!(rig.role(), Role::Disabled);
    assert!(rig.consumers.is_empty());
    assert!(rig.kept.groups[0].stopped);
}

#[test]
fn a_choice_can_be_taken_back() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let auto = || Verb::FailoverAuto("agents".into());
    let nothing = give(&mut rig, auto()).unwrap_err();
    assert!(nothing.contains("priority decides"), "{nothing}");
    give(&mut rig, Verb::FailoverStop("agents".into())).unwrap();
    assert!(rig.kept.groups[0].stopped);
    give(&mut rig, auto()).unwrap();
    let kept = &rig.kept.groups[0];
    let wish = kept.choice.as_ref().map(|choice| &choice.wish);
    assert_eq!(wish, Some(&Wish::Priority));
    assert!(!kept.stopped);
    let unknown = give(&mut rig, Verb::FailoverAuto("batch".into())).unwrap_err();
    assert!(unknown.contains("known: agents"), "{unknown}");
}

#[test]
fn a_follower_claims_at_once_from_a_leader_that_leaves() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let mut beat = rig.heartbeat(seq + 1, Role::Leader, 127);
    beat.groups[0].leaving = true;
    beat.groups[0].eligible = false;
    rig.peer("gc-2", PeerMessage::Heartbeat(beat));
    rig.advance(200);
    let term = claim(&rig).expect("a claim without hold");
    let group = "agents".into();
    rig.peer("gc-2", PeerMessage::Grant { group, term });
    assert_eq!(rig.role(), Role::Leader);
}

#[test]
fn a_leader_that_leaves_closes_when_nobody_claims() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    give(&mut rig, Verb::Drain).unwrap();
    rig.advance_with_peer(19_000, &mut seq, Role::Follower, 100);
    assert_eq!(rig.role(), Role::Leader);
    rig.advance_with_peer(2_000, &mut seq, Role::Follower, 100);
    assert_eq!(rig.role(), Role::Disabled);
    assert_eq!(rig.engine.view().drain.as_deref(), Some("drained"));
}

#[test]
fn a_drain_under_a_stream_of_forwards_ends_with_the_claim() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    give(&mut rig, Verb::Drain).unwrap();
    rig.answers_calls = false;
    rig.send("MakeReady#1001", "", "m1");
    let raw = message("MakeReady#1001", "", "m2");
    rig.peer("gc-2", PeerMessage::Forward { id: 7, raw });
    claim_of_peer(&mut rig, 90_000);
    assert_eq!(rig.role(), Role::Draining);
    rig.answer(done());
    rig.advance(50);
    assert_eq!(rig.calls.len(), 1, "the second is the claimant's");
    assert_eq!(rig.role(), Role::Disabled);
    assert_eq!(rig.engine.view().drain.as_deref(), Some("drained"));
    let back = give(&mut rig, Verb::GroupStart("agents".into()));
    assert_eq!(back.as_deref(), Ok("follower"));
    assert_eq!(rig.engine.view().drain, None);
}

#[test]
fn gr2_failover_stop_disables_here_and_nobody_takes_over() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let said = give(&mut rig, Verb::FailoverStop("agents".into()));
    assert_eq!(said.as_deref(), Ok("disabled"));
    assert_eq!(rig.role(), Role::Disabled);
    assert!(!granted(&rig));
    let told = last_beat(&rig).groups[0].choice.clone().unwrap();
    assert_eq!(told.wish, off_wish("gc-1"));
    assert_eq!(rig.kept.groups[0].choice.as_ref(), Some(&told));
    rig.advance(3_000);
    assert_eq!(rig.unsubscribed.len(), 1, "its subscription is let go");
    let again = give(&mut rig, Verb::FailoverStop("agents".into()));
    assert!(again.unwrap_err().contains("already"));
    let start = give(&mut rig, Verb::GroupStart("agents".into()));
    assert!(start.unwrap_err().contains("failover start"));
}

#[test]
fn gr2_the_others_serve_alone_and_acquire_an_agent_when_its_client_connects() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.peer(
        "gc-2",
        PeerMessage::Delta {
            sessions: vec![
                Rig::record("1001", "gc-2", 5),
                Rig::record("1002", "gc-2", 5),
            ],
            destinations: Vec::new(),
            outcomes: Vec::new(),
        },
    );
    let off = choice(1, off_wish("gc-2"));
    beat_with(&mut rig, &mut seq, Role::Draining, 127, &off);
    rig.advance(300);
    assert_eq!(rig.role(), Role::Follower, "it finishes first");
    beat_with(&mut rig, &mut seq, Role::Disabled, 127, &off);
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    rig.advance(1_000);
    assert!(rig.subscribed.is_empty(), "nothing is taken over");
    assert!(
        rig.events
            .iter()
            .any(|e| matches!(e, Event::Alone { reason, .. } if *reason == "failover-off"))
    );
    rig.send("MakeReady#1001", "", "m1");
    let refused = rig.replies()[0].1.clone();
    assert_eq!(refused.outcome, Outcome::Rejected);
    assert_eq!(refused.error.unwrap().code, "RE_LOGIN");
    rig.send("Connect#1001", "desk,pw", "c1");
    rig.send("MakeReady#1001", "", "m2");
    rig.send("MakeReady#1002", "", "m3");
    assert_eq!(
        rig.outcomes()[1..],
        [Outcome::Ok, Outcome::Accepted, Outcome::Rejected]
    );
    let owners: Vec<String> = rig
        .engine
        .session_views()
        .into_iter()
        .map(|s| s.owner)
        .collect();
    assert_eq!(owners, ["gc-1", "gc-2"]);
    // The stopped one is lost: still nobody takes over. It comes back by its operator's word.
    rig.advance(5_000);
    assert_eq!(rig.engine.view().sessions.owned, 1);
    let on = choice(2, leader_wish("gc-2"));
    beat_with(&mut rig, &mut seq, Role::Follower, 127, &on);
    claim_of_peer(&mut rig, 50_000);
    assert_eq!(rig.role(), Role::Follower);
}

#[test]
fn gr3_failover_start_leads_without_hold_and_stays_whatever_the_priorities() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    let said = give(&mut rig, Verb::FailoverStart("agents".into()));
    assert_eq!(said.as_deref(), Ok("joining"));
    let term = claim(&rig).expect("a claim without hold");
    let group = "agents".into();
    rig.peer("gc-2", PeerMessage::Grant { group, term });
    assert_eq!(rig.role(), Role::Leader);
    let known = rig.kept.groups[0].choice.clone().unwrap();
    assert_eq!(known.wish, leader_wish("gc-1"));
    for _ in 0..60 {
        beat_with(&mut rig, &mut seq, Role::Follower, 127, &known);
        rig.advance(250);
    }
    assert_eq!(rig.role(), Role::Leader);
    let view = rig.engine.view().groups[0].clone();
    assert_eq!(view.leader.as_deref(), Some("gc-1"));
    assert!(
        view.reason
            .contains("gc-1 leads, chosen by operator on gc-1 at 20"),
        "{}",
        view.reason
    );
    let again = give(&mut rig, Verb::FailoverStart("agents".into()));
    assert!(again.unwrap_err().contains("already"));
}

#[test]
fn a_follower_does_not_take_back_while_the_choice_stands_and_does_when_it_ends() {
    let mut rig = Rig::new(config());
    let mut seq = 0;
    rig.start();
    let known = choice(1, leader_wish("gc-2"));
    beat_with(&mut rig, &mut seq, Role::Leader, 100, &known);
    rig.peer_snapshot();
    for _ in 0..60 {
        beat_with(&mut rig, &mut seq, Role::Leader, 100, &known);
        rig.advance(250);
    }
    assert_eq!(rig.role(), Role::Follower);
    assert_eq!(claim(&rig), None);
    let ended = choice(2, Wish::Priority);
    for _ in 0..60 {
        beat_with(&mut rig, &mut seq, Role::Leader, 100, &ended);
        rig.advance(250);
    }
    assert!(claim(&rig).is_some());
}

#[test]
fn a_choice_ends_when_the_chosen_one_is_gone_for_sure_but_not_in_a_cut() {
    for (consumers, role, wish) in [
        (Some(0), Role::Leader, Wish::Priority),
        (None, Role::LeaderSingleNode, leader_wish("gc-2")),
    ] {
        let mut rig = Rig::new(config());
        let mut seq = 0;
        rig.counts.insert(instance("gc-2"), 1);
        rig.start();
        let known = choice(1, leader_wish("gc-2"));
        beat_with(&mut rig, &mut seq, Role::Leader, 100, &known);
        rig.peer_snapshot();
        for _ in 0..8 {
            beat_with(&mut rig, &mut seq, Role::Leader, 100, &known);
            rig.advance(250);
        }
        assert_eq!(rig.role(), Role::Follower);
        match consumers {
            Some(count) => rig.counts.insert(instance("gc-2"), count),
            None => rig.counts.remove(&instance("gc-2")),
        };
        rig.advance(5_000);
        assert_eq!(rig.role(), role);
        let stands = rig.kept.groups[0].choice.clone().unwrap();
        assert_eq!(stands.wish, wish);
    }
}

#[test]
fn a_choice_ends_when_the_chosen_one_starts_anew_and_another_leads_meanwhile() {
    let mut rig = Rig::new(config());
    let mut seq = 0;
    rig.start();
    let known = choice(1, leader_wish("gc-2"));
    for _ in 0..20 {
        beat_with(&mut rig, &mut seq, Role::Leader, 100, &known);
        rig.peer_snapshot();
        rig.advance(250);
    }
    assert_eq!(rig.role(), Role::Follower);
    let mut beat = rig.heartbeat(1, Role::Joining, 100);
    beat.groups[0].eligible = false;
    beat.groups[0].choice = Some(known);
    rig.peer_boot("gc-2", 23, PeerMessage::Heartbeat(beat));
    rig.advance(300);
    assert_eq!(rig.role(), Role::Leader);
    let stands = rig.kept.groups[0].choice.clone().unwrap();
    assert_eq!((stands.wish, stands.by), (Wish::Priority, instance("gc-1")));
}

#[test]
fn switchover_is_a_choice_that_the_target_acts_on() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let said = give(&mut rig, Verb::Switchover("gc-2".into()));
    assert_eq!(said.as_deref(), Ok("draining"));
    let told = last_beat(&rig).groups[0].clone();
    assert_eq!(told.choice.unwrap().wish, leader_wish("gc-2"));
    assert!(!told.leaving, "it is only asked, not on its way out");
    claim_of_peer(&mut rig, 90_000);
    assert_eq!(rig.role(), Role::Follower);
    rig.advance_with_peer(15_000, &mut seq, Role::Leader, 100);
    assert_eq!(rig.role(), Role::Follower, "no takeback by priority");
    let again = give(&mut rig, Verb::Switchover("gc-2".into()));
    assert_eq!(again.unwrap_err(), "gc-2 leads already");
    give(&mut rig, Verb::Switchover("gc-1".into())).unwrap();
    rig.advance(300);
    assert!(claim(&rig).is_some(), "back without hold");
}

#[test]
fn verbs_that_make_no_sense_are_refused_with_the_reason() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let mut refused = |verb: Verb, part: &str| {
        let reason = give(&mut rig, verb).unwrap_err();
        assert!(reason.contains(part), "{reason}");
    };
    refused(Verb::Switchover("gc-7".into()), "no instance gc-7");
    refused(Verb::Switchover("no such!".into()), "no instance");
    refused(Verb::Switchover("gc-1".into()), "leads already");
    refused(Verb::GroupStop("batch".into()), "no group batch");
    refused(Verb::FailoverStop("batch".into()), "no group batch");
    refused(Verb::GroupStart("agents".into()), "not stopped");
    let mut beat = rig.heartbeat(seq + 1, Role::Follower, 100);
    beat.groups[0].eligible = false;
    rig.peer("gc-2", PeerMessage::Heartbeat(beat));
    let reason = give(&mut rig, Verb::Switchover("gc-2".into())).unwrap_err();
    assert!(reason.contains("gc-2 cannot lead"), "{reason}");
    rig.advance(2_000);
    let reason = give(&mut rig, Verb::Switchover("gc-2".into())).unwrap_err();
    assert_eq!(reason, "gc-2 is suspect");
}

#[test]
fn gr6_a_stopped_group_is_stopped_after_a_restart() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    give(&mut rig, Verb::GroupStop("agents".into())).unwrap();
    let mut again = Rig::restored(rig.kept.clone());
    again.advance(5_000);
    assert_eq!(again.role(), Role::Disabled);
    assert!(again.consumers.is_empty());
    give(&mut again, Verb::GroupStart("agents".into())).unwrap();
    again.advance(1_000);
    assert_eq!(again.role(), Role::Leader);
    again.send("MakeReady#1001", "", "m9");
    assert_eq!(again.outcomes(), [Outcome::Accepted]);
}

#[test]
fn an_answer_waits_for_the_disk_and_says_when_it_failed() {
    let mut rig = Rig::leader();
    rig.store_fails = true;
    let reason = give(&mut rig, Verb::GroupStop("agents".into())).unwrap_err();
    assert!(reason.contains("disk full"), "{reason}");
    rig.store_fails = false;
    rig.advance(6_000);
    assert!(rig.kept.groups[0].stopped, "it is written later");
    // Asked again, it is tried again at once.
    rig.store_fails = true;
    let reason = give(&mut rig, Verb::GroupStart("agents".into())).unwrap_err();
    assert!(reason.contains("disk full"), "{reason}");
    rig.store_fails = false;
    let said = give(&mut rig, Verb::GroupStart("agents".into()));
    assert_eq!(said, Ok("leader".into()));
    assert!(!rig.kept.groups[0].stopped, "a restart would forget it");
    let again = give(&mut rig, Verb::GroupStart("agents".into())).unwrap_err();
    assert!(again.contains("is not stopped"), "{again}");
}

#[test]
fn choices_merge_in_any_order_to_the_same() {
    let wishes = [
        Wish::Priority,
        leader_wish("gc-1"),
        leader_wish("gc-2"),
        off_wish("gc-3"),
    ];
    let mut all = Vec::new();
    for (n, wish) in wishes.into_iter().enumerate() {
        for by in ["gc-1", "gc-2"] {
            all.push(Choice {
                counter: 1 + n as u64 / 2,
                by: instance(by),
                at: WALL,
                wish: wish.clone(),
            });
        }
    }
    let merged = |order: &[Choice]| {
        let mut rig = Rig::new(config());
        rig.start();
        for (n, told) in order.iter().chain(order).enumerate() {
            let mut beat = rig.heartbeat(n as u64 + 1, Role::Follower, 90);
            beat.groups[0].choice = Some(told.clone());
            rig.peer("gc-9", PeerMessage::Heartbeat(beat));
        }
        rig.advance(600);
        last_beat(&rig).groups[0].choice.clone()
    };
    let first = merged(&all);
    for turn in 1..all.len() {
        all.rotate_left(1);
        assert_eq!(merged(&all), first, "rotated {turn}");
        let back: Vec<Choice> = all.iter().rev().cloned().collect();
        assert_eq!(merged(&back), first, "reversed {turn}");
    }
    assert_eq!(first, all.iter().max().cloned());
}

// ---- alone ---------------------------------------------------------------------------------------

#[test]
fn a_leader_whose_peer_may_be_alive_is_a_single_node_until_there_is_proof() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    rig.advance(3_500);
    assert_eq!(rig.role(), Role::Leader, "a moment for the proof");
    rig.advance(1_500);
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    let view = rig.engine.view();
    assert!(
        view.groups[0].reason.contains("gc-2 is not heard"),
        "{view:?}"
    );
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    rig.counts.insert(instance("gc-2"), 0);
    rig.advance(1_000);
    assert_eq!(rig.role(), Role::Leader, "no broker has a consumer of it");
    assert!(rig.subscribed.is_empty(), "nothing was taken anew");
}

#[test]
fn without_a_link_to_every_broker_there_is_no_proof() {
    let mut seq = 0;
    let mut rig = pair(&mut seq);
    let second = rig.links.iter().find(|(_, broker)| *broker == 1).unwrap().0;
    rig.dials = false;
    rig.lose(second);
    rig.counts.insert(instance("gc-2"), 0);
    rig.advance(8_000);
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    assert!(
        rig.events
            .iter()
            .any(|e| matches!(e, Event::Alone { reason, .. } if *reason == "peer-unreachable"))
    );
    rig.peer_beat(seq + 1, Role::Follower, 100);
    assert_eq!(rig.role(), Role::Leader, "it is heard again");
}

#[test]
fn gr5_a_group_that_the_peer_does_not_have_is_a_single_nodes() {
    let mut rig = Rig::leader();
    let mut seq = 0;
    for _ in 0..8 {
        seq += 1;
        let mut beat = rig.heartbeat(seq, Role::LeaderSingleNode, 100);
        beat.groups[0].name = "desks".into();
        rig.peer("gc-2", PeerMessage::Heartbeat(beat));
        rig.advance(250);
    }
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    let warnings = rig.engine.view().warnings.join(" ");
    assert!(
        warnings.contains("group agents") && warnings.contains("desks"),
        "{warnings}"
    );
    seq += 1;
    rig.peer_beat(seq, Role::Follower, 100);
    assert_eq!(rig.role(), Role::Leader);
}

// ---- epochs --------------------------------------------------------------------------------------

#[test]
fn no_epoch_is_used_before_it_is_on_disk_and_none_twice() {
    let mut rig = Rig::new(config());
    rig.store_fails = true;
    rig.start();
    rig.advance(4_000);
    assert_ne!(rig.role(), Role::Leader, "there is no epoch to lead in");
    assert_eq!(last_beat(&rig).groups[0].term, 0);
    rig.store_fails = false;
    rig.advance(6_000);
    assert_eq!(rig.role(), Role::Leader);
    rig.sign_in("1001", "desk");
    let used = rig.engine.session_views()[0].epoch;
    assert!(used <= rig.kept.epoch);
    // It dies before anything else is written: what comes after is greater than all before.
    let reserved = rig.kept.epoch;
    let again = Rig::restored(rig.kept.clone());
    assert!(again.engine.view().groups[0].term > reserved);
}

#[test]
fn epochs_go_on_over_a_whole_block() {
    let mut rig = Rig::leader();
    let mut last = 0;
    for n in 0..200 {
        // A peer far ahead: the next own epoch is beyond what was reserved.
        let epoch = 1_000_000 * (n + 1);
        let record = Rig::record("7001", "gc-9", epoch);
        rig.peer(
            "gc-9",
            PeerMessage::Delta {
                sessions: vec![record],
                destinations: Vec::new(),
                outcomes: Vec::new(),
            },
        );
        rig.advance(50);
        let owned = rig.engine.session_views()[0].clone();
        assert_eq!(owned.owner, "gc-1");
        assert!(owned.epoch > epoch && owned.epoch > last);
        assert!(owned.epoch <= rig.kept.epoch, "used before it was kept");
        last = owned.epoch;
    }
}
