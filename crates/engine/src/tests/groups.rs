//! Several groups: each has its leader, and is given away by itself.

use super::support::*;
use super::verbs::{choice, claim, give, granted, leader_wish};
use crate::api::config::Mode;
use crate::api::input::Verb;
use crate::peer::{PeerMessage, Role};
use crate::wire::reply::Outcome;

// ---- groups --------------------------------------------------------------------------------------

/// Leads `agents`; gc-2 leads `batch` by an operator's choice.
fn two_groups(seq: &mut u64) -> Rig {
    let mut config = config();
    config.groups.push("batch".into());
    config.queues.push("Batch".into());
    let mut rig = Rig::new(config);
    rig.start();
    rig.advance(2_000);
    rig.sign_in("1001", "desk");
    for _ in 0..8 {
        beat_two(&mut rig, seq, Role::Leader);
        rig.peer_snapshot();
        rig.advance(250);
    }
    // Two leaders of batch: the chosen one stays.
    let roles: Vec<Role> = rig.engine.view().groups.iter().map(|g| g.role).collect();
    assert_eq!(roles, [Role::Leader, Role::Follower]);
    rig.forget();
    rig
}

fn beat_two(rig: &mut Rig, seq: &mut u64, batch: Role) {
    *seq += 1;
    let mut beat = rig.heartbeat(*seq, Role::Follower, 100);
    let mut second = beat.groups[0].clone();
    second.name = "batch".into();
    second.role = batch;
    second.choice = Some(choice(1, leader_wish("gc-2")));
    beat.groups.push(second);
    rig.peer("gc-2", PeerMessage::Heartbeat(beat));
}

fn deliver_in(rig: &mut Rig, group: usize, kind: &str, body: &str, id: &str) {
    let link = rig.active();
    let source = crate::api::input::Source::Commands { group };
    rig.deliver_on(link, source, message(kind, body, id));
}

#[test]
fn gr4_each_groups_commands_go_to_its_leader() {
    let mut seq = 0;
    let mut rig = two_groups(&mut seq);
    // An agent of the first group, whichever queue its command comes from.
    deliver_in(&mut rig, 0, "MakeReady#1001", "", "m1");
    deliver_in(&mut rig, 1, "MakeNotReady#1001", "", "m2");
    assert_eq!(rig.outcomes(), [Outcome::Accepted, Outcome::Accepted]);
    // A Connect from the other group's queue is its leader's to answer.
    deliver_in(&mut rig, 1, "Connect#2001", "desk,pw", "c1");
    rig.advance(60);
    beat_two(&mut rig, &mut seq, Role::Leader);
    rig.advance(60);
    let (to, _, raw) = rig.forwards().pop().expect("a forward");
    assert_eq!(
        (to, raw.group.as_deref()),
        (instance("gc-2"), Some("batch"))
    );
    // Its agents are not taken into the first group, and their commands go there too.
    let mut record = Rig::record("2001", "gc-2", 90);
    record.group = "batch".into();
    rig.peer(
        "gc-2",
        PeerMessage::Delta {
            sessions: vec![record],
            destinations: Vec::new(),
            outcomes: Vec::new(),
        },
    );
    deliver_in(&mut rig, 0, "MakeReady#2001", "", "m3");
    rig.advance(60);
    beat_two(&mut rig, &mut seq, Role::Leader);
    rig.advance(60);
    assert_eq!(rig.forwards().len(), 2);
    let owner = |rig: &Rig, n: usize| rig.engine.session_views()[n].owner.clone();
    assert_eq!(
        (owner(&rig, 0), owner(&rig, 1)),
        ("gc-1".into(), "gc-2".into())
    );
    // The peer goes: both groups are ours, the agents of each with it.
    rig.counts.insert(instance("gc-2"), 0);
    rig.advance(6_000);
    let roles: Vec<Role> = rig.engine.view().groups.iter().map(|g| g.role).collect();
    assert_eq!(roles, [Role::Leader, Role::Leader]);
    assert_eq!(owner(&rig, 1), "gc-1");
}

#[test]
fn gr4_a_group_is_granted_while_the_other_is_busy() {
    let mut seq = 0;
    let mut rig = two_groups(&mut seq);
    rig.answers_calls = false;
    deliver_in(&mut rig, 0, "MakeReady#1001", "", "m1");
    // The other group is the peer's to give now.
    give(&mut rig, Verb::FailoverStart("batch".into())).unwrap();
    let term = claim(&rig).expect("a claim");
    let group: String = "batch".into();
    rig.peer(
        "gc-2",
        PeerMessage::Grant {
            group: group.clone(),
            term,
        },
    );
    let roles: Vec<Role> = rig.engine.view().groups.iter().map(|g| g.role).collect();
    assert_eq!(roles, [Role::Leader, Role::Leader]);
    rig.peer(
        "gc-2",
        PeerMessage::Claim {
            group,
            term: term + 50,
        },
    );
    assert!(granted(&rig), "it waits for a command of another group");
    assert_eq!(rig.role(), Role::Leader);
}

#[test]
fn a_connect_from_another_groups_queue_takes_the_agent_there() {
    let mut config = config();
    config.groups.push("batch".into());
    config.queues.push("Batch".into());
    let mut rig = Rig::new(config);
    rig.start();
    rig.advance(2_000);
    rig.sign_in("1001", "desk");
    deliver_in(&mut rig, 1, "Connect#1001", "desk,pw", "c2");
    assert_eq!(rig.outcomes(), [Outcome::Ok]);
    rig.advance(200);
    let kept = rig
        .kept
        .sessions
        .iter()
        .rev()
        .find_map(|(_, record)| record.clone());
    assert_eq!(kept.unwrap().group, "batch");
}

// ---- active-active -------------------------------------------------------------------------------

#[test]
fn a_drained_instance_of_an_active_pair_leaves_its_agents_to_the_other() {
    let mut config = config();
    config.mode = crate::api::config::Mode::ActiveActive;
    let mut rig = Rig::new(config);
    rig.start();
    let mut seq = 1;
    rig.peer_beat(seq, Role::Leader, 100);
    rig.peer_snapshot_of(vec![Rig::record("1001", "gc-2", 5)]);
    rig.advance_with_peer(2_000, &mut seq, Role::Leader, 100);
    assert_eq!(rig.engine.view().sessions.owned, 0);
    seq += 1;
    rig.peer_beat(seq, Role::Draining, 100);
    rig.advance(200);
    assert_eq!(rig.engine.view().sessions.owned, 0, "it finishes first");
    seq += 1;
    rig.peer_beat(seq, Role::Disabled, 100);
    rig.advance(200);
    assert_eq!(rig.engine.view().sessions.owned, 1);
    let reason = give(&mut rig, Verb::Switchover("gc-2".into())).unwrap_err();
    assert!(reason.contains("active-active"), "{reason}");
    // The own drain: nothing is started any more, what comes late goes back.
    rig.answers_calls = false;
    rig.send("MakeReady#1001", "", "m1");
    rig.send("MakeNotReady#1001", "", "m2");
    give(&mut rig, Verb::Drain).unwrap();
    assert_eq!(rig.requeued.len(), 1);
    assert_eq!(rig.role(), Role::Draining);
    rig.answer(done());
    assert_eq!(rig.role(), Role::Disabled);
}

/// A group that is stopped here is none of ours, whatever else is served: its agents are left to
/// who serves them, or to nobody.
#[test]
fn agents_of_a_group_that_is_stopped_here_are_not_taken_over() {
    let mut config = config();
    config.mode = Mode::ActiveActive;
    config.groups.push("batch".into());
    config.queues.push("Batch".into());
    let mut rig = Rig::new(config);
    let mut seq = 0;
    let beat = |rig: &mut Rig, seq: &mut u64, agents: Role| {
        *seq += 1;
        let mut beat = rig.heartbeat(*seq, agents, 100);
        let mut second = beat.groups[0].clone();
        second.name = "batch".into();
        second.role = Role::Leader;
        beat.groups.push(second);
        rig.peer("gc-2", PeerMessage::Heartbeat(beat));
    };
    rig.start();
    beat(&mut rig, &mut seq, Role::Leader);
    rig.peer_snapshot_of(vec![Rig::record("2001", "gc-2", 5)]);
    for _ in 0..4 {
        rig.advance(500);
        beat(&mut rig, &mut seq, Role::Leader);
    }
    rig.sign_in("1001", "desk");
    beat(&mut rig, &mut seq, Role::Leader);
    give(&mut rig, Verb::GroupStop("agents".into())).unwrap();
    let stopped = |rig: &Rig| rig.engine.view().groups[0].role == Role::Disabled;
    while !stopped(&rig) {
        beat(&mut rig, &mut seq, Role::Leader);
        rig.advance(500);
    }
    rig.forget();
    // There it is stopped as well, then that instance is gone.
    for _ in 0..20 {
        beat(&mut rig, &mut seq, Role::Disabled);
        rig.advance(500);
    }
    rig.advance(20_000);
    let owners: Vec<String> = (rig.engine.session_views().into_iter())
        .map(|view| view.owner)
        .collect();
    assert_eq!(owners, ["gc-1", "gc-2"]);
    assert!(rig.subscribed.is_empty());
    give(&mut rig, Verb::GroupStart("agents".into())).unwrap();
    rig.advance(5_000);
    let views = rig.engine.session_views();
    assert!(views.iter().all(|view| view.owner == "gc-1"), "{views:?}");
}
