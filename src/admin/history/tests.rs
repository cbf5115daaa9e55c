use super::*;
use crate::engine::input::Verb;
use crate::engine::peer::Role;
use crate::model::InstanceId;

fn down(reason: &str) -> Event {
    Event::BrokerLink {
        broker: "a:5672".to_owned(),
        up: false,
        reason: reason.to_owned(),
    }
}

fn up() -> Event {
    Event::BrokerLink {
        broker: "a:5672".to_owned(),
        up: true,
        reason: String::new(),
    }
}

#[test]
fn changes_are_kept_newest_first_and_messages_are_not() {
    let history = History::default();
    history.record(&Event::EventPublished);
    history.record(&Event::RoleChanged {
        group: "agents".to_owned(),
        from: Role::Follower,
        to: Role::Leader,
        reason: "peer-lost",
    });
    history.record(&down(&"x".repeat(10_000)));
    let entries = history.entries();
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (entries[0].kind.as_str(), entries[0].to.as_str()),
        ("broker", "down")
    );
    assert_eq!(entries[0].reason.as_ref().unwrap().len(), REASON_CHARS);
    assert_eq!(entries[1].from.as_deref(), Some("follower"));
    assert_eq!(entries[1].reason.as_deref(), Some("peer-lost"));
    assert!(entries[1].at.ends_with('Z'), "{}", entries[1].at);
}

#[test]
fn the_oldest_is_forgotten_at_the_bound() {
    let history = History::default();
    for millis in 0..ENTRIES as u64 + 5 {
        history.record(&Event::OwnPause { millis });
    }
    let entries = history.entries();
    assert_eq!(entries.len(), ENTRIES);
    assert_eq!(entries[ENTRIES - 1].to, "was away for 5 ms");
}

#[test]
fn a_broker_that_stays_down_is_one_row_with_a_count() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path());
    for _ in 0..50 {
        history.record(&down("connection refused"));
    }
    let entries = history.entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].count, 50);
    assert!(entries[0].last.as_ref().unwrap() >= &entries[0].at);
    history.record(&up());
    history.record(&down("again"));
    // A new start begins anew.
    history.instance("gc-1", "started", "");
    history.record(&down("again"));
    let shape: Vec<(String, u64)> = history
        .entries()
        .into_iter()
        .map(|e| (e.to, e.count))
        .collect();
    let wanted = [
        ("down", 1),
        ("started", 1),
        ("down", 1),
        ("up", 1),
        ("down", 50),
    ];
    assert_eq!(shape, wanted.map(|(to, count)| (to.to_owned(), count)));
    history.close();
    let (kept, unreadable) = read(dir.path()).unwrap();
    assert_eq!((kept.len(), kept[0].count, unreadable), (5, 50, 0));
}

#[test]
fn a_verb_says_who_whence_and_why() {
    let history = History::default();
    history.verb(&Given {
        verb: Verb::GroupStop("agents".to_owned()),
        token: Some("ops".to_owned()),
        from: "::ffff:10.0.0.7".parse().unwrap(),
        reason: "patch\u{1b}[31m day".to_owned(),
        result: Ok("draining".to_owned()),
    });
    let entry = &history.entries()[0];
    assert_eq!(
        (entry.kind.as_str(), entry.subject.as_str()),
        ("operator", "agents")
    );
    assert_eq!(entry.to, "group stop: draining");
    assert_eq!(entry.reason.as_deref(), Some("patch[31m day"));
    assert_eq!(entry.token.as_deref(), Some("ops"));
    assert_eq!(entry.address.as_deref(), Some("10.0.0.7"));
}

#[test]
fn a_goodbye_is_no_loss() {
    let history = History::default();
    for reason in [GOODBYE, "silent"] {
        let peer = InstanceId::new("gc-2").unwrap();
        history.record(&Event::PeerLost { peer, reason });
    }
    let to: Vec<String> = history
        .entries()
        .into_iter()
        .map(|entry| entry.to)
        .collect();
    assert_eq!(to, ["lost", "left"]);
}

#[test]
fn rows_since_a_time_hold_what_was_told_again_since() {
    let history = History::default();
    history.record(&down("x"));
    history.record(&down("x"));
    let now = Utc::now();
    assert_eq!(history.since(now - chrono::TimeDelta::hours(1)).len(), 1);
    assert!(history.since(now + chrono::TimeDelta::hours(1)).is_empty());
}

#[test]
fn a_takeover_is_one_row_that_says_in_the_end_how_long_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path());
    let started = |reason, agents| Event::TakeoverStarted { reason, agents };
    let finished = |reason, agents| Event::TakeoverFinished {
        reason,
        agents,
        millis: 254,
    };
    history.record(&started("healed", 48));
    history.record(&started("healed", 51));
    history.record(&started("peer-lost", 60));
    history.record(&finished("healed", 60));
    history.record(&started("downstream", 1));
    let shape = |entries: Vec<HistoryEntry>| -> Vec<(String, String, Option<String>)> {
        let each = entries.into_iter();
        each.map(|e| (e.subject, e.to, e.reason)).collect()
    };
    let row = |subject: &str, to: &str, why: &str| {
        (subject.to_owned(), to.to_owned(), Some(why.to_owned()))
    };
    let mut wanted = vec![
        row("1 agent", "started", "downstream"),
        row("60 agents", "finished in 254 ms", "peer-lost"),
        row("60 agents", "finished in 254 ms", "healed"),
    ];
    assert_eq!(shape(history.entries()), wanted);
    history.close();
    let (kept, _) = read(dir.path()).unwrap();
    wanted.reverse();
    assert_eq!(shape(kept), wanted);
}
