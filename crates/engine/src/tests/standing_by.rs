//! Active-active: who cannot serve leaves its agents to who can.

use super::support::*;
use crate::api::config::Mode;
use crate::api::way::Way;
use crate::peer::{PeerMessage, Role};
use crate::wire::event::{ClientEvent, SystemStatus};
use crate::wire::reply::Outcome;

/// How gc-2 stands.
#[derive(Clone, Copy)]
struct Beside {
    role: Role,
    eligible: bool,
}

const SERVES: Beside = Beside {
    role: Role::Leader,
    eligible: true,
};

const STANDS_BY: Beside = Beside {
    role: Role::Follower,
    eligible: false,
};

fn beat_of(rig: &mut Rig, name: &str, seq: &mut u64, how: Beside) {
    *seq += 1;
    let mut heartbeat = rig.heartbeat(*seq, how.role, 100);
    heartbeat.broker = "b1".into();
    heartbeat.groups[0].eligible = how.eligible;
    rig.peer(name, PeerMessage::Heartbeat(heartbeat));
}

/// Time passes with gc-2.
fn pass(rig: &mut Rig, seq: &mut u64, how: Beside, millis: u64) {
    for _ in 0..millis / 250 {
        rig.advance(250);
        beat_of(rig, "gc-2", seq, how);
    }
}

/// gc-1 serves 1001 beside gc-2, which is attached to the other broker and owns 2001.
fn beside(seq: &mut u64) -> Rig {
    let mut config = config();
    config.mode = Mode::ActiveActive;
    let mut rig = Rig::new(config);
    rig.counts.insert(instance("gc-2"), 1);
    rig.peers_at = Some(1);
    rig.start();
    beat_of(&mut rig, "gc-2", seq, SERVES);
    rig.peer_snapshot_of(vec![Rig::record("2001", "gc-2", 5)]);
    pass(&mut rig, seq, SERVES, 2_000);
    rig.sign_in("1001", "desk");
    pass(&mut rig, seq, SERVES, 8_000);
    assert_eq!(rig.role(), Role::Leader);
    rig.forget();
    rig
}

fn owner(rig: &Rig, name: &str) -> String {
    let views = rig.engine.session_views();
    let view = views.into_iter().find(|view| view.agent == name).unwrap();
    view.owner
}

/// gc-2 tells that it has an agent.
fn taken(rig: &mut Rig, name: &str) {
    let epoch = rig.engine.session_views()[0].epoch + 10;
    rig.peer(
        "gc-2",
        PeerMessage::Delta {
            sessions: vec![Rig::record(name, "gc-2", epoch)],
            destinations: Vec::new(),
            outcomes: Vec::new(),
        },
    );
}

const OUT: ClientEvent = ClientEvent::System(SystemStatus::OutOfService);

fn no_downstream(rig: &mut Rig) {
    rig.nodes = vec![unreachable(), unreachable()];
}

#[test]
fn what_waits_where_no_downstream_is_goes_to_the_peer_that_has_one() {
    let mut seq = 0;
    let mut rig = beside(&mut seq);
    no_downstream(&mut rig);
    rig.answers.push_back(not_sent());
    rig.answers.push_back(not_sent());
    rig.send("MakeReady#1001", "", "m1");
    rig.send("MakeNotReady#1001", "", "m2");
    rig.send("Connect#1009", "desk,pw", "c9");
    pass(&mut rig, &mut seq, SERVES, 6_000);
    assert_eq!(rig.role(), Role::Follower);
    assert!(!rig.told("desk").contains(&OUT), "the other one serves");
    assert!(rig.consumers.is_empty());
    let connects = |(to, _, raw): &(_, _, crate::wire::message::RawMessage)| {
        *to == instance("gc-2") && raw.kind.as_deref() == Some("Connect#1009")
    };
    assert!(rig.forwards().iter().any(connects), "nobody has it yet");
    taken(&mut rig, "1001");
    pass(&mut rig, &mut seq, SERVES, 1_000);
    assert!(!rig.outcomes().contains(&Outcome::Expired));
    assert!(
        !rig.forwards().is_empty(),
        "handed on, not kept until it expires"
    );
    // What comes by way of the peer, which had not heard of it, goes back there.
    rig.forget();
    let raw = message("MakeReady#1001", "", "m3");
    rig.peer("gc-2", PeerMessage::Forward { id: 7, raw });
    let refused = |(_, message): &(_, PeerMessage)| {
        matches!(message, PeerMessage::ForwardRefused { id: 7, .. })
    };
    assert!(rig.said.iter().any(refused));
}

#[test]
fn it_leads_again_with_its_downstream_and_its_agents_stay_where_they_were_taken() {
    let mut seq = 0;
    let mut rig = beside(&mut seq);
    no_downstream(&mut rig);
    pass(&mut rig, &mut seq, SERVES, 6_000);
    assert_eq!(rig.role(), Role::Follower);
    taken(&mut rig, "1001");
    rig.nodes = vec![in_service(), in_service()];
    pass(&mut rig, &mut seq, SERVES, 6_000);
    assert_eq!(rig.role(), Role::Leader);
    assert_eq!(owner(&rig, "1001"), "gc-2", "until its client comes here");
    assert_eq!(rig.consumers.len(), 1);
    rig.forget();
    rig.send("MakeReady#1001", "", "m1");
    pass(&mut rig, &mut seq, SERVES, 500);
    let claims = |(_, message): &(_, PeerMessage)| message.name() == "claim_agent";
    assert!(rig.said.iter().any(claims), "it is fetched");
}

#[test]
fn one_that_comes_back_before_anybody_took_its_agents_has_them_still() {
    let mut seq = 0;
    let mut rig = beside(&mut seq);
    no_downstream(&mut rig);
    // Signed out, and nobody says that it took it: its session is not ended here.
    pass(&mut rig, &mut seq, SERVES, 9_000);
    assert_eq!(rig.role(), Role::Follower);
    rig.nodes = vec![in_service(), in_service()];
    pass(&mut rig, &mut seq, SERVES, 6_000);
    assert_eq!(owner(&rig, "1001"), "gc-1");
    rig.forget();
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    assert!(
        rig.engine
            .session_views()
            .iter()
            .any(|s| s.agent == "1001" && s.subscribed)
    );
}

#[test]
fn where_nobody_has_a_downstream_all_stay_and_the_clients_are_told() {
    let mut seq = 0;
    let mut rig = beside(&mut seq);
    let neither = Beside {
        eligible: false,
        ..SERVES
    };
    pass(&mut rig, &mut seq, neither, 1_000);
    no_downstream(&mut rig);
    pass(&mut rig, &mut seq, neither, 6_000);
    assert_eq!(rig.role(), Role::Leader);
    assert!(rig.told("desk").contains(&OUT));
    assert_eq!(owner(&rig, "1001"), "gc-1");
    assert_eq!(owner(&rig, "2001"), "gc-2");
    // The other one has it back first, and serves all.
    pass(&mut rig, &mut seq, SERVES, 500);
    assert_eq!(rig.role(), Role::Follower);
}

#[test]
fn the_agents_of_a_peer_that_stands_by_are_taken_and_its_commands_run_here() {
    let mut seq = 0;
    let mut rig = beside(&mut seq);
    pass(&mut rig, &mut seq, STANDS_BY, 250);
    assert_eq!(owner(&rig, "2001"), "gc-1");
    rig.send("MakeReady#2001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    // One that it is said to have after that is taken, too.
    let late = Rig::record("2002", "gc-2", 5);
    rig.peer_snapshot_of(vec![late]);
    pass(&mut rig, &mut seq, STANDS_BY, 1_500);
    assert_eq!(owner(&rig, "2002"), "gc-1");
    // Back with a downstream it takes nothing by itself.
    pass(&mut rig, &mut seq, SERVES, 500);
    assert_eq!(owner(&rig, "2001"), "gc-1");
}

#[test]
fn of_three_the_one_that_stands_by_takes_nobody() {
    let mut seq = 0;
    let mut rig = beside(&mut seq);
    let mut third = 0;
    rig.counts.insert(instance("gc-0"), 1);
    for _ in 0..8 {
        // Of the same priority and smaller id, it would be the first.
        third += 1;
        let mut heartbeat = rig.heartbeat(third, Role::Follower, 127);
        heartbeat.broker = "b1".into();
        heartbeat.groups[0].eligible = false;
        rig.peer("gc-0", PeerMessage::Heartbeat(heartbeat));
        pass(&mut rig, &mut seq, SERVES, 250);
    }
    pass(&mut rig, &mut seq, STANDS_BY, 250);
    assert_eq!(owner(&rig, "2001"), "gc-1");
}

#[test]
fn a_broker_of_no_use_has_the_same_effect() {
    let mut seq = 0;
    let mut rig = beside(&mut seq);
    for broker in 0..2 {
        rig.refused.insert((broker, Way::Commands));
        rig.refused.insert((broker, Way::Replies));
    }
    pass(&mut rig, &mut seq, SERVES, 12_000);
    assert_eq!(rig.role(), Role::Follower);
    rig.refused.clear();
    pass(&mut rig, &mut seq, SERVES, 30_000);
    assert_eq!(rig.role(), Role::Leader);
}

#[test]
fn of_three_the_last_takes_the_agents_of_both_that_are_lost_one_after_the_other() {
    let mut seq = 0;
    let mut rig = beside(&mut seq);
    let (mut zero, both) = (0, ["gc-0", "gc-2"]);
    rig.counts.insert(instance("gc-0"), 1);
    beat_of(&mut rig, "gc-0", &mut zero, SERVES);
    rig.peer_snapshot_of(vec![Rig::record("3001", "gc-2", 5)]);
    let records = vec![Rig::record("4001", "gc-0", 5)];
    rig.peer(
        "gc-0",
        PeerMessage::Snapshot {
            part: 0,
            parts: 1,
            sessions: records,
            destinations: Vec::new(),
        },
    );
    for _ in 0..4 {
        // A higher priority: it is the first of the living.
        zero += 1;
        let mut heartbeat = rig.heartbeat(zero, Role::Leader, 200);
        heartbeat.broker = "b1".into();
        rig.peer("gc-0", PeerMessage::Heartbeat(heartbeat));
        pass(&mut rig, &mut seq, SERVES, 250);
    }
    // Both are killed at one time: gc-2 is found lost first.
    rig.peer("gc-2", PeerMessage::Goodbye);
    assert_eq!(
        owner(&rig, "3001"),
        "gc-2",
        "the first of the living takes them"
    );
    rig.peer("gc-0", PeerMessage::Goodbye);
    for name in ["3001", "4001", "2001"] {
        assert_eq!(owner(&rig, name), "gc-1", "{both:?} are gone");
    }
}

/// Clients do not wait between Connect and Login, and each may be consumed by another instance.
#[test]
fn a_command_of_an_agent_that_is_connected_elsewhere_waits_for_word_of_it() {
    let mut seq = 0;
    let mut rig = beside(&mut seq);
    rig.send("Login#3001", "pw,2001", "l1");
    pass(&mut rig, &mut seq, SERVES, 500);
    assert_eq!(rig.outcomes(), []);
    taken(&mut rig, "3001");
    pass(&mut rig, &mut seq, SERVES, 500);
    let forwards = rig.forwards();
    let (to, _, raw) = forwards.last().expect("a forward");
    assert_eq!(
        (to, raw.kind.as_deref()),
        (&instance("gc-2"), Some("Login#3001"))
    );
    // Of one that nobody connects it is said before long.
    rig.send("Login#3002", "pw,2001", "l2");
    pass(&mut rig, &mut seq, SERVES, 3_000);
    assert_eq!(rig.outcomes(), [Outcome::Rejected]);
    // One that connects here waits for its own Connect alone.
    rig.forget();
    rig.users.insert(
        agent("3003"),
        crate::tests::support::user("3003", "NOT_READY"),
    );
    rig.send("Connect#3003", "desk,pw", "c3");
    rig.send("Login#3003", "pw,2001", "l3");
    rig.advance(100);
    assert_eq!(rig.outcomes(), [Outcome::Ok, Outcome::Accepted]);
}
