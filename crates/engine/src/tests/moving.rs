//! Active-active: whose agent, moves between living owners, healing; and silent leaders.

use super::support::*;
use crate::Event;
use crate::api::config::Mode;
use crate::api::input::Input;
use crate::model::CallOutcome;
use crate::peer::{ForwardRefusal, PeerMessage, Role, SessionRecord, Version};
use crate::wire::reply::Outcome;

/// gc-1 serves beside gc-2, which owns agent 1001; gc-2 is attached to broker `at`.
fn beside(seq: &mut u64, at: usize) -> Rig {
    let mut config = config();
    config.mode = Mode::ActiveActive;
    let mut rig = Rig::new(config);
    rig.counts.insert(instance("gc-2"), 1);
    rig.peers_at = Some(at);
    rig.users.insert(agent("1001"), user("1001", "READY"));
    rig.start();
    beat(&mut rig, seq, at);
    let sessions = vec![Rig::record("1001", "gc-2", 5)];
    rig.peer(
        "gc-2",
        PeerMessage::Snapshot {
            part: 0,
            parts: 1,
            sessions,
            destinations: Vec::new(),
        },
    );
    pass(&mut rig, seq, at, 2_000);
    assert_eq!(rig.role(), Role::Leader);
    rig.forget();
    rig
}

fn beat(rig: &mut Rig, seq: &mut u64, at: usize) {
    *seq += 1;
    let mut heartbeat = rig.heartbeat(*seq, Role::Leader, 100);
    heartbeat.broker = format!("b{at}");
    rig.peer("gc-2", PeerMessage::Heartbeat(heartbeat));
}

/// Time passes with a living peer.
fn pass(rig: &mut Rig, seq: &mut u64, at: usize, millis: u64) {
    for _ in 0..millis / 250 {
        rig.advance(250);
        beat(rig, seq, at);
    }
}

fn owner(rig: &Rig) -> (String, u64) {
    let session = &rig.engine.session_views()[0];
    (session.owner.clone(), session.epoch)
}

fn said(rig: &Rig, name: &str) -> usize {
    rig.said.iter().filter(|(_, m)| m.name() == name).count()
}

fn granted(rig: &Rig) -> Option<SessionRecord> {
    rig.said.iter().find_map(|(_, message)| match message {
        PeerMessage::GrantAgent { record } => Some(record.clone()),
        _ => None,
    })
}

#[test]
fn an_agent_whose_client_came_here_is_fetched_while_its_owner_serves() {
    let mut seq = 0;
    let mut rig = beside(&mut seq, 1);
    rig.send("MakeReady#1001", "", "m1");
    rig.advance(200);
    assert_eq!(rig.forwards().len(), 1, "no command waits for the move");
    assert_eq!(rig.subscribed.len(), 1);
    assert_eq!(said(&rig, "claim_agent"), 1);
    assert_eq!(owner(&rig).0, "gc-2");
    let mut record = Rig::record("1001", "gc-1", 6);
    record.version.counter = 0;
    rig.peer("gc-2", PeerMessage::GrantAgent { record });
    assert_eq!(owner(&rig), ("gc-1".to_owned(), 6));
    rig.send("MakeReady#1001", "", "m2");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    assert!(rig.unsubscribed.is_empty(), "the subscription it came with");
    let moved = |event: &Event| matches!(event, Event::AgentMoved { .. });
    assert_eq!(rig.events.iter().filter(|e| moved(e)).count(), 1);
}

#[test]
fn at_one_broker_arrival_proves_nothing() {
    let mut seq = 0;
    let mut rig = beside(&mut seq, 0);
    rig.send("MakeReady#1001", "", "m1");
    pass(&mut rig, &mut seq, 0, 3_000);
    assert!(!rig.forwards().is_empty());
    assert_eq!(said(&rig, "claim_agent"), 0);
    assert!(rig.subscribed.is_empty());
}

#[test]
fn what_another_broker_passed_on_does_not_call_the_agent() {
    let mut seq = 0;
    let mut rig = beside(&mut seq, 1);
    let mut raw = message("MakeReady#1001", "", "m1");
    raw.relayed = true;
    rig.deliver(raw);
    rig.advance(300);
    assert_eq!(rig.forwards().len(), 1);
    assert_eq!(said(&rig, "claim_agent"), 0);
}

#[test]
fn a_refused_move_lets_go_what_was_prepared_and_asks_later() {
    let mut seq = 0;
    let mut rig = beside(&mut seq, 1);
    rig.send("MakeReady#1001", "", "m1");
    rig.advance(200);
    let agent = agent("1001");
    rig.peer("gc-2", PeerMessage::RefuseAgent { agent });
    pass(&mut rig, &mut seq, 1, 3_000);
    assert_eq!(rig.unsubscribed.len(), 1);
    rig.send("MakeReady#1001", "", "m2");
    rig.advance(100);
    assert_eq!(said(&rig, "claim_agent"), 1, "not again at once");
    pass(&mut rig, &mut seq, 1, 5_000);
    rig.send("MakeReady#1001", "", "m3");
    rig.advance(100);
    assert_eq!(said(&rig, "claim_agent"), 2);
}

#[test]
fn an_owner_finishes_what_runs_hands_back_what_waits_and_grants() {
    let mut config = config();
    config.mode = Mode::ActiveActive;
    let mut rig = Rig::new(config);
    rig.counts.insert(instance("gc-2"), 1);
    rig.peers_at = Some(1);
    let mut seq = 0;
    rig.start();
    beat(&mut rig, &mut seq, 1);
    rig.peer_snapshot();
    pass(&mut rig, &mut seq, 1, 2_000);
    rig.sign_in("1001", "desk");
    pass(&mut rig, &mut seq, 1, 8_000);
    rig.forget();
    rig.answers_calls = false;
    let forward = |rig: &mut Rig, id: u64| {
        let raw = message("MakeReady#1001", "", &format!("f{id}"));
        rig.peer("gc-2", PeerMessage::Forward { id, raw });
    };
    forward(&mut rig, 1);
    let claim = || PeerMessage::ClaimAgent {
        agent: agent("1001"),
    };
    rig.peer("gc-2", claim());
    forward(&mut rig, 2);
    rig.advance(100);
    assert!(granted(&rig).is_none(), "a command runs");
    assert_eq!(rig.calls.len(), 1, "nothing more is started");
    let before = owner(&rig).1;
    rig.answer(done());
    rig.advance(20);
    let record = granted(&rig).expect("granted");
    assert_eq!(record.version.owner, instance("gc-2"));
    assert!(record.version.epoch > before);
    let order: Vec<&str> = rig
        .said
        .iter()
        .map(|(_, message)| message.name())
        .filter(|name| name.starts_with("forward") || *name == "grant_agent")
        .collect();
    assert_eq!(order, ["forward_done", "forward_refused", "grant_agent"]);
    assert!(rig.unsubscribed.is_empty(), "not before the new owner");
    // The grant was lost: it is said again.
    rig.peer("gc-2", claim());
    assert_eq!(said(&rig, "grant_agent"), 2);
    forward(&mut rig, 3);
    let refused = |message: &PeerMessage| {
        let why = ForwardRefusal::NotOwner;
        *message == PeerMessage::ForwardRefused { id: 3, why }
    };
    assert!(rig.said.iter().any(|(_, m)| refused(m)));
    pass(&mut rig, &mut seq, 1, 3_000);
    assert_eq!(rig.unsubscribed.len(), 1);
}

/// gc-1 owns agent 1001 and carries out a command of it, another one waits, and gc-2 has asked for
/// the agent.
fn yielding(seq: &mut u64, before: impl FnOnce(&mut Rig, &mut u64)) -> Rig {
    let mut config = config();
    config.mode = Mode::ActiveActive;
    let mut rig = Rig::new(config);
    rig.counts.insert(instance("gc-2"), 1);
    rig.peers_at = Some(1);
    rig.start();
    beat(&mut rig, seq, 1);
    rig.peer_snapshot();
    pass(&mut rig, seq, 1, 2_000);
    rig.sign_in("1001", "desk");
    pass(&mut rig, seq, 1, 8_000);
    before(&mut rig, seq);
    rig.said.clear();
    rig.calls.clear();
    rig.answers_calls = false;
    for id in [1, 2] {
        let raw = message("MakeReady#1001", "", &format!("f{id}"));
        rig.peer("gc-2", PeerMessage::Forward { id, raw });
    }
    let agent = agent("1001");
    rig.peer("gc-2", PeerMessage::ClaimAgent { agent });
    assert_eq!(rig.engine.agents.yielding.len(), 1);
    assert_eq!(rig.calls.len(), 1);
    rig
}

/// The session of a signed-out agent stays while commands of it wait; these wait for the move.
#[test]
fn a_signed_out_agent_whose_session_is_over_is_given_away_all_the_same() {
    let mut seq = 0;
    let mut rig = yielding(&mut seq, |rig, seq| {
        // Another one of its client's, so that the newest subscription is known.
        rig.send("Connect#1001", "other,pw", "c2");
        rig.users.insert(agent("1001"), user("1001", "LOGOUT"));
        rig.notify_state("1001", "LOGOUT", None);
        pass(rig, seq, 1, 29_000);
    });
    pass(&mut rig, &mut seq, 1, 2_000);
    assert!(granted(&rig).is_none(), "a command runs");
    rig.answer(done());
    pass(&mut rig, &mut seq, 1, 1_500);
    assert!(granted(&rig).is_some());
    assert!(rig.engine.agents.yielding.is_empty());
    assert!(rig.engine.jobs.is_empty(), "handed back");
}

/// Whatever ends a move: nothing of it stays behind.
#[test]
fn an_agent_that_is_not_given_away_any_more_is_not_remembered_as_such() {
    let mut seq = 0;
    let mut rig = yielding(&mut seq, |_, _| {});
    let epoch = owner(&rig).1 + 5;
    rig.peer_snapshot_of(vec![Rig::record("1001", "gc-2", epoch)]);
    assert!(rig.engine.agents.yielding.is_empty());
    rig.answer(done());
    rig.advance(100);
    assert!(rig.engine.jobs.is_empty(), "handed back");
    // It is taken anew by the one that has it: what waits goes on.
    let mut seq = 0;
    let mut rig = yielding(&mut seq, |_, _| {});
    let epoch = owner(&rig).1 + 1;
    rig.engine.own(&agent("1001"), epoch);
    assert!(rig.engine.agents.yielding.is_empty());
    rig.answer(done());
    rig.advance(50);
    assert_eq!(rig.calls.len(), 2, "the next one is started");
}

#[test]
fn an_owner_that_hears_the_client_itself_keeps_the_agent() {
    let mut seq = 0;
    let mut rig = beside(&mut seq, 1);
    rig.sign_in("1002", "desk");
    pass(&mut rig, &mut seq, 1, 8_000);
    rig.send("MakeReady#1002", "", "m1");
    let agent = agent("1002");
    rig.peer("gc-2", PeerMessage::ClaimAgent { agent });
    assert_eq!(said(&rig, "refuse_agent"), 1);
    assert!(granted(&rig).is_none());
}

#[test]
fn after_a_cut_who_hears_the_client_keeps_the_agent() {
    let mut seq = 0;
    let mut rig = beside(&mut seq, 1);
    rig.sign_in("1002", "desk");
    rig.send("MakeReady#1002", "", "m1");
    pass(&mut rig, &mut seq, 1, 500);
    // Silence, and its broker is out of reach: dead or cut off.
    let far = rig.links.iter().find(|(_, broker)| *broker == 1).unwrap().0;
    rig.dials = false;
    rig.lose(far);
    rig.advance(4_000);
    let views = rig.engine.session_views();
    assert!(views.iter().all(|session| session.owner == "gc-1"));
    let epoch = views[0].epoch;
    assert_eq!(views[1].epoch, epoch, "its own in the same epoch");
    // The other side did the same.
    let theirs = |name: &str, rank: u16| SessionRecord {
        version: Version {
            epoch,
            rank,
            owner: instance("gc-2"),
            counter: 9,
        },
        ..Rig::record(name, "gc-2", epoch)
    };
    beat(&mut rig, &mut seq, 1);
    rig.peer_snapshot_of(vec![
        theirs("1001", 100 + Version::LOCAL),
        theirs("1002", 100),
    ]);
    let owners: Vec<String> = rig
        .engine
        .session_views()
        .into_iter()
        .map(|s| s.owner)
        .collect();
    assert_eq!(owners, ["gc-2", "gc-1"]);
}

#[test]
fn a_restart_brings_the_subscriptions_of_own_agents_back() {
    let mut config = config();
    config.mode = Mode::ActiveActive;
    let mut rig = Rig::new(config);
    let records = vec![
        Rig::record("1001", "gc-1", 5),
        Rig::record("1002", "gc-2", 5),
    ];
    rig.engine.restore(records, Vec::new(), 5);
    rig.start();
    rig.advance(3_000);
    assert_eq!(rig.subscribed.len(), 2, "its own, and those of nobody");
}

#[test]
fn a_follower_outranks_a_silent_leader_on_its_broker_until_it_is_heard() {
    let mut seq = 0;
    let mut rig = Rig::follower(&mut seq);
    rig.counts.insert(instance("gc-2"), 1);
    rig.peers_at = Some(0);
    rig.advance_with_peer(500, &mut seq, Role::Leader, 127);
    let priority = |rig: &Rig| rig.consumers[&(rig.active(), 0)].0;
    assert_eq!(priority(&rig), 100);
    rig.advance(1_600);
    assert_eq!(rig.role(), Role::Follower);
    assert_eq!(priority(&rig), 128);
    rig.send("MakeReady#1001", "", "m1");
    assert!(rig.calls.is_empty(), "held, not run");
    rig.advance_with_peer(500, &mut seq, Role::Leader, 127);
    assert_eq!(priority(&rig), 100);
    assert!(rig.fences.is_empty(), "only where it is wanted");
    // Lost, but its consumer stands as long as the broker has not noticed.
    rig.advance(3_500);
    assert!(rig.role().leads());
    assert_eq!(priority(&rig), 128);
    rig.counts.insert(instance("gc-2"), 0);
    rig.advance(600);
    assert_eq!(priority(&rig), 100);
}

#[test]
fn a_silent_leader_is_fenced_once_where_that_is_wanted() {
    let mut seq = 0;
    let mut config = config();
    config.priority = 100;
    config.fence = true;
    let mut rig = Rig::new(config);
    rig.counts.insert(instance("gc-2"), 1);
    rig.peers_at = Some(0);
    rig.start();
    seq += 1;
    rig.peer_beat(seq, Role::Leader, 127);
    rig.peer_snapshot();
    rig.advance_with_peer(2_000, &mut seq, Role::Leader, 127);
    rig.advance(1_700);
    assert_eq!(
        rig.fences,
        [(0, instance("gc-2")), (1, instance("gc-2"))],
        "at every broker in reach"
    );
    rig.counts.insert(instance("gc-2"), 0);
    rig.input(Input::Fenced {
        broker: 0,
        peer: instance("gc-2"),
        closed: Ok(2),
    });
    rig.advance(600);
    assert_eq!(rig.role(), Role::Leader, "its consumer is gone");
    assert_eq!(rig.fences.len(), 2);
}

#[test]
fn a_request_that_the_shell_withheld_is_sent_again_or_left_to_the_new_leader() {
    let mut rig = Rig::with_agent();
    rig.answers_calls = false;
    rig.send("MakeCall#1001", "5000", "m1");
    rig.answer(CallOutcome::Withheld);
    assert_eq!(rig.calls.len(), 2, "it was not sent: no doubt");
    rig.answer(done());
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
}

#[test]
fn after_a_pause_nothing_more_is_sent_before_it_is_known_who_leads() {
    let mut rig = Rig::with_agent();
    let mut seq = 0;
    rig.advance_with_peer(1_000, &mut seq, Role::Follower, 100);
    rig.answers_calls = false;
    let delivery = rig.send("MakeCall#1001", "5000", "m1");
    rig.freeze(10_000);
    rig.answer(CallOutcome::Withheld);
    assert_eq!(rig.calls.len(), 1, "in doubt who leads");
    seq += 1;
    let mut heartbeat = rig.heartbeat(seq, Role::Leader, 100);
    heartbeat.groups[0].term = 99;
    heartbeat.echo = vec![(instance("gc-1"), rig.config.boot, u64::MAX, 0)];
    rig.peer("gc-2", PeerMessage::Heartbeat(heartbeat));
    // A later term than its own: it was deposed meanwhile, whatever its priority.
    assert_eq!(rig.role(), Role::Follower);
    rig.advance(100);
    seq += 1;
    rig.peer_beat(seq, Role::Leader, 100);
    rig.advance(100);
    assert_eq!(rig.calls.len(), 1, "left to the new leader");
    assert_eq!(rig.forwards().len(), 1);
    assert!(!rig.acks.contains(&delivery));
}

#[test]
fn the_agents_of_a_peer_that_is_there_and_stopped_are_taken_at_the_start() {
    let mut config = config();
    config.mode = Mode::ActiveActive;
    let mut rig = Rig::new(config);
    let mut seq = 1;
    rig.start();
    rig.peer_beat(seq, Role::Disabled, 100);
    rig.peer_snapshot_of(vec![Rig::record("1001", "gc-2", 5)]);
    rig.advance_with_peer(3_000, &mut seq, Role::Disabled, 100);
    assert!(rig.role().leads());
    assert_eq!(owner(&rig).0, "gc-1");
    assert_eq!(rig.subscribed.len(), 1);
}

#[test]
fn the_teams_that_a_supervisor_watches_come_with_it() {
    let mut seq = 0;
    let mut rig = beside(&mut seq, 1);
    rig.send("MakeReady#1001", "", "m1");
    rig.advance(200);
    assert_eq!(said(&rig, "claim_agent"), 1);
    let mut record = Rig::record("1001", "gc-1", 6);
    record.watched = vec!["7".into()];
    rig.peer("gc-2", PeerMessage::GrantAgent { record });
    assert_eq!(rig.watched, [(agent("1001"), "7".to_owned())]);
}

#[test]
fn what_was_prepared_for_an_agent_that_is_gone_is_let_go() {
    let mut seq = 0;
    let mut rig = beside(&mut seq, 1);
    rig.send("MakeReady#1001", "", "m1");
    rig.advance(200);
    assert_eq!(rig.subscribed.len(), 1);
    let mut record = Rig::record("1001", "gc-2", 6);
    record.tombstone = true;
    rig.peer_snapshot_of(vec![record]);
    pass(&mut rig, &mut seq, 1, 5_000);
    assert_eq!(rig.unsubscribed.len(), 1);
}

/// gc-1 carries out a command of its agent 1002, which gc-2 owns before that is done.
fn former_owner(command: &str, body: &str) -> Rig {
    let mut seq = 0;
    let mut rig = beside(&mut seq, 1);
    rig.sign_in("1002", "desk");
    rig.answers_calls = false;
    rig.send(&format!("{command}#1002"), body, "m1");
    assert_eq!(rig.calls.len(), 1);
    let epoch = rig.engine.session_views()[1].epoch + 5;
    rig.peer_snapshot_of(vec![Rig::record("1002", "gc-2", epoch)]);
    rig.answer(done());
    rig
}

fn told_owner(rig: &Rig) -> Option<SessionRecord> {
    rig.said.iter().find_map(|(to, message)| match message {
        PeerMessage::SessionChanged { record } if *to == Some(instance("gc-2")) => {
            Some(record.clone())
        }
        _ => None,
    })
}

#[test]
fn a_former_owner_reads_and_writes_nothing_of_the_agent_whose_sign_in_it_finishes() {
    let mut rig = former_owner("Login", "new,2009");
    let record = told_owner(&rig).expect("the owner is told");
    assert_eq!(record.extension.as_deref(), Some("2009"));
    let version = record.version;
    rig.calls.clear();
    rig.forget_published();
    // Long enough for a read, too short to miss the peer.
    rig.advance(1_200);
    assert!(rig.calls.is_empty());
    assert!(rig.told("desk").is_empty());
    let view = &rig.engine.session_views()[1];
    assert_eq!((view.owner.as_str(), view.epoch), ("gc-2", version.epoch));
}

#[test]
fn a_team_that_is_to_be_watched_is_known_to_the_new_owner() {
    let rig = former_owner("getteamusers", "7,true");
    let record = told_owner(&rig).expect("the owner is told");
    assert_eq!(record.watched, ["7"]);
    let mut rig = Rig::with_agent();
    let record = SessionRecord {
        watched: vec!["7".into()],
        ..Rig::record("1001", "gc-1", 1)
    };
    rig.peer("gc-2", PeerMessage::SessionChanged { record });
    assert_eq!(rig.watched, [(agent("1001"), "7".to_owned())]);
}
