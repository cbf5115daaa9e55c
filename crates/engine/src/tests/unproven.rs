//! Connects whose credentials are not proven: what is left of them.

use super::support::*;
use crate::api::config::Mode;
use crate::api::input::Notice;
use crate::peer::{PeerMessage, Role, SessionRecord};
use crate::wire::reply::Outcome;

/// What a snapshot of this instance says of its sessions.
fn snapshot(rig: &mut Rig) -> Vec<SessionRecord> {
    rig.advance(1_000);
    rig.said.clear();
    rig.peer("gc-2", PeerMessage::Hello);
    let parts = rig.said.iter().filter_map(|(_, message)| match message {
        PeerMessage::Snapshot { sessions, .. } => Some(sessions.clone()),
        _ => None,
    });
    parts.flatten().collect()
}

fn share(rig: &mut Rig, record: SessionRecord) {
    let sessions = vec![record];
    rig.peer(
        "gc-2",
        PeerMessage::Share {
            number: 1,
            sessions,
        },
    );
}

fn ended(name: &str, epoch: u64) -> SessionRecord {
    SessionRecord {
        tombstone: true,
        ..Rig::record(name, "gc-2", epoch)
    }
}

#[test]
fn what_a_connect_that_failed_leaves_ends_no_session_elsewhere() {
    let mut config = config();
    config.mode = Mode::ActiveActive;
    let mut rig = Rig::new(config);
    let mut seq = 1;
    rig.start();
    rig.peer_beat(seq, Role::Leader, 127);
    rig.peer_snapshot();
    rig.advance_with_peer(2_000, &mut seq, Role::Leader, 127);
    rig.notifications = Notifications::Refuses;
    rig.send("Connect#1001", "desk,guess", "c1");
    rig.send("Connect#1001", "desk,guess", "c2");
    assert_eq!(rig.outcomes(), [Outcome::Failed; 2]);
    assert!(snapshot(&mut rig).is_empty(), "nothing is told of it");
    // Elsewhere the client is let in, in an epoch of before.
    share(&mut rig, Rig::record("1001", "gc-2", 1));
    let views = rig.engine.session_views();
    assert_eq!((views.len(), views[0].owner.as_str()), (1, "gc-2"));
}

#[test]
fn an_ended_session_is_remembered_until_a_connect_is_proven() {
    let mut rig = Rig::leader();
    share(&mut rig, ended("1001", 70));
    rig.notifications = Notifications::Refuses;
    rig.send("Connect#1001", "desk,guess", "c1");
    assert_eq!(snapshot(&mut rig), [ended("1001", 70)]);
    rig.notifications = Notifications::Silent;
    rig.send("Connect#1001", "other,pw", "c2");
    assert_eq!(snapshot(&mut rig), [ended("1001", 70)]);
    rig.notify("1001", Notice::Up);
    assert_eq!(rig.outcomes(), [Outcome::Failed, Outcome::Ok]);
    let told = snapshot(&mut rig);
    assert_eq!(told.len(), 1);
    assert!(told[0].version.epoch > 70 && !told[0].tombstone);
    assert_eq!(told[0].destination, destination("other"));
    assert_eq!(told[0].extension, None, "nothing of the ended session");
    assert!(!told[0].signed_in);
}

#[test]
fn the_store_keeps_nothing_of_a_connect_that_failed() {
    let mut rig = Rig::leader();
    rig.notifications = Notifications::Refuses;
    rig.send("Connect#1001", "desk,guess", "c1");
    rig.advance(1_000);
    assert!(rig.kept.sessions.iter().all(|(_, record)| record.is_none()));
}

#[test]
fn what_is_told_of_an_agent_during_its_connect_is_known() {
    let mut rig = Rig::leader();
    rig.notifications = Notifications::Silent;
    rig.send("Connect#1001", "other,pw", "c1");
    share(&mut rig, Rig::record("1001", "gc-2", 1));
    assert_eq!(rig.engine.session_views().len(), 1);
    rig.notify("1001", Notice::Up);
    assert_eq!(rig.outcomes(), [Outcome::Ok]);
    let told = snapshot(&mut rig);
    assert_eq!(told[0].version.owner, instance("gc-1"));
    assert_eq!(told[0].destination, destination("other"));
}

#[test]
fn an_ended_session_is_not_removed_under_a_connect() {
    let mut rig = Rig::leader();
    share(&mut rig, ended("1001", 70));
    rig.notifications = Notifications::Silent;
    let mut raw = message("Connect#1001", "desk,pw", "c1");
    raw.deadline = Some((rig.now().wall + 3_600_000) as i64);
    let id = rig.deliver(raw);
    rig.advance(700_000);
    assert!(rig.acks.is_empty());
    rig.notify("1001", Notice::Up);
    assert_eq!(rig.acks, [id]);
    assert_eq!(rig.outcomes(), [Outcome::Ok]);
}
