//! Instances that speak under another key, and more of them than there are places for.

use super::support::*;
use crate::api::input::Input;
use crate::peer::{PeerMessage, Role};

fn speak(rig: &mut Rig, name: &str) {
    rig.input(Input::PeerRejected {
        claimed: Some(instance(name)),
        reason: "wrong_key",
    });
}

fn priorities(rig: &Rig) -> Vec<i32> {
    rig.consumers
        .values()
        .map(|(priority, _)| *priority)
        .collect()
}

#[test]
fn a_leader_serves_on_and_says_what_is_wrong_until_the_other_is_gone() {
    let mut rig = Rig::leader();
    rig.advance(10_000);
    let own = priorities(&rig);
    speak(&mut rig, "gc-9");
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    assert_eq!(priorities(&rig), own);
    let view = rig.engine.view();
    let peers: Vec<_> = view
        .peers
        .iter()
        .map(|p| (p.instance.as_str(), p.state.as_str()))
        .collect();
    assert_eq!(peers, [("gc-9", "auth-failed")]);
    let said = |words: &str| view.warnings.iter().any(|warning| warning.contains(words));
    assert!(said("gc-9") && said("control.key"), "{:?}", view.warnings);
    rig.advance(20_000);
    assert_eq!(rig.role(), Role::Leader);
    assert_eq!(priorities(&rig), own);
    assert!(rig.engine.view().peers.is_empty());
}

#[test]
fn a_newcomer_that_hears_only_strangers_leads_behind_them() {
    let mut rig = Rig::new(config());
    rig.start();
    for _ in 0..8 {
        speak(&mut rig, "gc-9");
        rig.advance(500);
    }
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    assert_eq!(priorities(&rig), [0]);
    for _ in 0..40 {
        speak(&mut rig, "gc-9");
        rig.advance(500);
    }
    assert_eq!(priorities(&rig), [0], "as long as the other is heard");
    rig.advance(20_000);
    assert_eq!(rig.role(), Role::Leader);
    assert_ne!(priorities(&rig), [0]);
}

#[test]
fn one_that_had_a_peer_serves_on() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.advance(15_000);
    assert!(rig.role().leads(), "its peer is lost");
    let own = priorities(&rig);
    speak(&mut rig, "gc-9");
    assert_eq!(rig.role(), Role::LeaderSingleNode);
    assert_eq!(priorities(&rig), own);
    // Somebody cannot be made a stranger by whoever claims to be it.
    let mut rig = Rig::follower(&mut seq);
    speak(&mut rig, "gc-1");
    speak(&mut rig, "gc-2");
    let view = rig.engine.view();
    assert!(
        !view
            .warnings
            .iter()
            .any(|warning| warning.contains("another control.key"))
    );
}

#[test]
fn strangers_are_bounded() {
    let mut rig = Rig::leader();
    for number in 0..100 {
        speak(&mut rig, &format!("x-{number}"));
    }
    assert_eq!(rig.engine.view().peers.len(), 8);
}

/// Names come and go, as those of containers do: the 17th is heard all the same.
#[test]
fn a_peer_is_heard_in_the_place_of_one_that_is_gone() {
    let mut rig = Rig::leader();
    for number in 0..crate::limits::PEERS {
        let name = format!("pod-{number}");
        let heartbeat = rig.heartbeat(1, Role::Follower, 50);
        rig.peer(&name, PeerMessage::Heartbeat(heartbeat));
        rig.peer(&name, PeerMessage::Goodbye);
    }
    let claim = PeerMessage::Claim {
        group: "agents".into(),
        term: 99,
    };
    rig.peer("pod-x", claim.clone());
    assert_eq!(rig.role(), Role::Leader, "who is not heard claims nothing");
    let heartbeat = rig.heartbeat(1, Role::Follower, 127);
    rig.peer("pod-x", PeerMessage::Heartbeat(heartbeat));
    let peers = rig.engine.view().peers;
    let there = peers.iter().find(|peer| peer.instance == "pod-x");
    assert_eq!(there.map(|peer| peer.state.as_str()), Some("alive"));
    assert_eq!(peers.len(), crate::limits::PEERS);
    rig.peer("pod-x", claim);
    assert_eq!(rig.role(), Role::Follower);
}
