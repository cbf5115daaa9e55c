//! What an input costs does not depend on how many agents are signed in.
//!
//! Instructions are counted, not time: this test runs itself under valgrind, once for each number
//! of agents, and counts within [`counted`] only. (Subtracting a run without the rounds from one
//! with them leaves more noise than there is to see: tables are hashed differently in every run,
//! and signing in 3,000 agents is most of it.)

use std::process::Command;

use super::support::*;
use crate::api::ids::LinkEpoch;
use crate::api::input::Source;
use crate::peer::{PeerMessage, Role};
use crate::wire::reply::Outcome;

/// Agents and rounds of the inner run: `3000,300`.
const INNER: &str = "TANDEM_GROWTH";
const FEW: usize = 100;
const MANY: usize = 3_000;
/// 50 ms each.
const ROUNDS: usize = 300;

fn name(number: usize) -> String {
    format!("{}", 10_000 + number)
}

fn signed_in(agents: usize) -> Rig {
    let mut rig = Rig::leader();
    // Every one to the desk of its own, as with real clients.
    for number in 0..agents {
        let name = name(number);
        rig.users.insert(agent(&name), user(&name, "NOT_READY"));
        let connect = format!("desk-{name},pw");
        rig.send(&format!("Connect#{name}"), &connect, &format!("c-{name}"));
        rig.send(&format!("Login#{name}"), "pw,2001", &format!("l-{name}"));
        if number % 50 == 0 {
            rig.advance(50);
            rig.forget();
        }
    }
    rig.advance(1_500);
    assert_eq!(rig.engine.view().sessions.total, agents as u64);
    // A newcomer is told all of them, once.
    beat(&mut rig, 1);
    rig.advance(500);
    rig.forget();
    rig
}

/// A peer that knows what we know.
fn beat(rig: &mut Rig, seq: u64) {
    let mut beat = rig.heartbeat(seq, Role::Follower, 100);
    let own = rig.engine.sessions.tally(&rig.config.instance);
    (beat.total, beat.digest) = (own.total, own.digest());
    rig.peer("gc-2", PeerMessage::Heartbeat(beat));
}

/// Commands, their requests and replies, notifications with their events, heartbeats of both,
/// every timer that is due: 50 ms a round.
fn rounds(rig: &mut Rig, link: LinkEpoch, agents: usize, rounds: usize) {
    let send = |rig: &mut Rig, kind: String, body: &str, id: String| {
        rig.deliver_on(
            link,
            Source::Commands { group: 0 },
            message(&kind, body, &id),
        );
    };
    for round in 0..rounds {
        let name = name(round % agents);
        send(rig, format!("MakeReady#{name}"), "", format!("m-{round}"));
        rig.notify_state(&name, "READY", None);
        send(
            rig,
            format!("MakeCall#{name}"),
            "5000",
            format!("call-{round}"),
        );
        rig.advance(50);
        if round % 5 == 0 {
            beat(rig, round as u64 + 2);
        }
    }
    let outcomes = rig.outcomes();
    let good = |outcome: &Outcome| matches!(outcome, Outcome::Ok | Outcome::Accepted);
    assert_eq!(
        outcomes.iter().filter(|outcome| good(outcome)).count(),
        2 * rounds
    );
}

/// What valgrind counts; no other function may have this name, or it is not counted there.
#[inline(never)]
fn counted(rig: &mut Rig, link: LinkEpoch, agents: usize, count: usize) {
    rounds(rig, link, agents, count);
}

/// What is counted; alone it only shows that the inputs are answered.
#[test]
fn inputs_among_many_agents_are_answered() {
    let given = std::env::var(INNER).unwrap_or_else(|_| "20,25".to_owned());
    let (agents, count) = given.split_once(',').unwrap();
    let (agents, count) = (agents.parse().unwrap(), count.parse().unwrap());
    let mut rig = signed_in(agents);
    // A look at all of them, which only who looks pays for.
    let link = rig.active();
    counted(&mut rig, link, agents, count);
}

/// What the rounds alone take with so many agents.
fn cost(agents: usize) -> u64 {
    let program = std::env::current_exe().unwrap();
    let out = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=*growth*counted*",
        ])
        .arg(program)
        .args([
            "--exact",
            "tests::growth::inputs_among_many_agents_are_answered",
        ])
        .env(INNER, format!("{agents},{ROUNDS}"))
        .output()
        .expect("this test needs valgrind: scripts/setup installs it");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&out.stdout)
    );
    let counted = text.lines().find_map(|line| line.split_once("Collected :"));
    let counted = counted.expect("the number of instructions").1.trim();
    counted.parse().unwrap()
}

#[test]
fn a_command_costs_the_same_among_many_agents() {
    let (few, many) = (cost(FEW), cost(MANY));
    println!("{few} instructions with {FEW} agents, {many} with {MANY}");
    // Less is not 600 commands: the function was not found.
    assert!(few > 1_000_000, "{few}");
    // Ordered tables are deeper, and a sweep a second remains: a tenth more is theirs.
    assert!(
        many < few + few / 10,
        "{few} with {FEW} agents, {many} with {MANY}"
    );
}
