use super::*;

const TIMERS: PeerTimers = PeerTimers {
    heartbeat: 500,
    suspect: 1_500,
    lost: 3_000,
};

fn at(mono: u64) -> Now {
    Now { mono, wall: mono }
}

fn id() -> InstanceId {
    InstanceId::new("gc-2").expect("valid")
}

fn beat(seq: u64) -> Heartbeat {
    Heartbeat {
        seq,
        site: "s2".into(),
        version: "1".into(),
        mode: "active-passive".into(),
        started: 0,
        former: 0,
        groups: Vec::new(),
        broker: String::new(),
        owned: 0,
        total: 0,
        digest: 0,
        echo: Vec::new(),
        journal: true,
        shares: true,
        settled: Vec::new(),
        standing: Default::default(),
        control_node: String::new(),
    }
}

fn members() -> Members {
    let mut members = Members::default();
    let change = members.on_heartbeat(at(0), &id(), BootId(1), beat(1));
    assert_eq!(change, Some(Change::Up(id())));
    members
}

#[test]
fn a_pause_below_the_suspect_time_changes_nothing() {
    let mut members = members();
    assert!(members.tick(at(1_499), TIMERS, None).is_empty());
}

#[test]
fn silence_is_suspected_then_lost() {
    let mut members = members();
    assert_eq!(members.next_change(TIMERS), Some(1_500));
    assert_eq!(
        members.tick(at(1_500), TIMERS, None),
        [Change::Suspect(id())]
    );
    assert_eq!(members.next_change(TIMERS), Some(2_800));
    assert!(members.tick(at(2_799), TIMERS, None).is_empty());
    assert_eq!(
        members.tick(at(2_800), TIMERS, None),
        [Change::Lost(id(), "silent")]
    );
}

#[test]
fn a_vanished_consumer_on_its_own_broker_makes_it_lost_sooner() {
    let mut members = members();
    members.on_consumers(LinkEpoch(1), &id(), 1, 0);
    members.on_consumers(LinkEpoch(1), &id(), 0, 0);
    assert!(members.tick(at(700), TIMERS, None).is_empty());
    members.on_consumers(LinkEpoch(1), &id(), 0, 0);
    assert!(members.tick(at(499), TIMERS, None).is_empty());
    assert_eq!(
        members.tick(at(750), TIMERS, None),
        [Change::Lost(id(), "consumer_gone")]
    );
}

#[test]
fn a_peer_may_be_on_its_way_to_a_broker_that_is_out_of_reach_for_a_moment() {
    let mut members = members();
    members.on_consumers(LinkEpoch(1), &id(), 1, 0);
    members.on_consumers(LinkEpoch(1), &id(), 0, 400);
    members.on_consumers(LinkEpoch(1), &id(), 0, 650);
    members.note_blind(Some(300));
    assert!(members.tick(at(1_400), TIMERS, None).is_empty());
    // It is reached again, and the peer is not there.
    let links = [LinkEpoch(1), LinkEpoch(2)];
    members.note_blind(None);
    members.on_consumers(LinkEpoch(2), &id(), 0, 1_410);
    assert!(members.tick(at(1_420), TIMERS, Some(&links)).is_empty());
    members.on_consumers(LinkEpoch(1), &id(), 0, 1_450);
    members.on_consumers(LinkEpoch(2), &id(), 0, 1_450);
    let gone = Change::Lost(id(), "consumer_gone");
    assert_eq!(members.tick(at(1_460), TIMERS, Some(&links)), [gone]);
}

#[test]
fn a_broker_that_stays_out_of_reach_holds_no_evidence_up() {
    let mut members = members();
    members.note_blind(Some(0));
    for (seq, now) in [(2, 1_000), (3, 2_000), (4, 2_400)] {
        members.on_heartbeat(at(now), &id(), BootId(1), beat(seq));
    }
    members.on_consumers(LinkEpoch(1), &id(), 1, 2_400);
    members.on_consumers(LinkEpoch(1), &id(), 0, 2_650);
    members.on_consumers(LinkEpoch(1), &id(), 0, 2_900);
    assert!(members.tick(at(2_950), TIMERS, None).is_empty());
    let gone = Change::Lost(id(), "consumer_gone");
    assert_eq!(members.tick(at(3_000), TIMERS, None), [gone]);
}

#[test]
fn counts_on_another_broker_prove_nothing() {
    let mut members = members();
    members.on_consumers(LinkEpoch(1), &id(), 1, 0);
    for _ in 0..5 {
        members.on_consumers(LinkEpoch(2), &id(), 0, 0);
    }
    assert!(members.tick(at(1_000), TIMERS, None).is_empty());
    members.on_consumers(LinkEpoch(1), &id(), 0, 0);
    members.on_link_down(LinkEpoch(1));
    assert!(members.tick(at(1_400), TIMERS, None).is_empty());
}

#[test]
fn own_pause_is_not_the_peers_silence() {
    let mut members = members();
    members.forgive(20_000, 20_000);
    assert!(members.tick(at(20_500), TIMERS, None).is_empty());
}

#[test]
fn a_restart_is_a_new_peer_and_old_heartbeats_are_ignored() {
    let mut members = members();
    assert_eq!(
        members.on_heartbeat(at(10), &id(), BootId(2), beat(1)),
        Some(Change::Up(id()))
    );
    assert_eq!(
        members.on_heartbeat(at(20), &id(), BootId(2), beat(5)),
        None
    );
    let before = members.get(&id()).map(|peer| peer.last_seen);
    members.on_heartbeat(at(30), &id(), BootId(2), beat(4));
    assert_eq!(members.get(&id()).map(|peer| peer.last_seen), before);
}

#[test]
fn what_an_earlier_start_sent_does_not_put_the_later_one_out() {
    let mut members = Members::default();
    let (old, new) = (BootId(1), BootId(2));
    let started = |seq, started| Heartbeat {
        started,
        ..beat(seq)
    };
    members.on_heartbeat(at(0), &id(), new, started(1, 900));
    assert_eq!(
        members.on_heartbeat(at(10), &id(), old, started(50, 100)),
        None
    );
    members.on_heartbeat(at(500), &id(), new, started(2, 900));
    assert_eq!(members.get(&id()).expect("known").boot, new);
    assert_eq!(members.get(&id()).expect("known").last_seen, 500);
    // Its clock was set back: believed once the later one is lost.
    members.tick(at(9_000), TIMERS, None);
    assert!(
        members
            .on_heartbeat(at(9_001), &id(), BootId(3), started(1, 50))
            .is_some()
    );
}

#[test]
fn a_late_goodbye_of_an_earlier_start_is_not_that_of_the_later_one() {
    let mut members = members();
    let (old, new) = (BootId(1), BootId(2));
    members.on_heartbeat(at(10), &id(), new, beat(1));
    assert_eq!(members.on_goodbye(at(20), &id(), old), None);
    assert!(members.get(&id()).is_some_and(|p| p.liveness.present()));
    let left = Change::Lost(id(), "goodbye");
    assert_eq!(members.on_goodbye(at(30), &id(), new), Some(left));
}

#[test]
fn what_comes_behind_a_goodbye_was_on_its_way_before_it() {
    let mut members = members();
    let boot = BootId(1);
    members.on_heartbeat(at(10), &id(), boot, beat(1));
    assert!(members.on_goodbye(at(20), &id(), boot).is_some());
    assert_eq!(members.on_heartbeat(at(30), &id(), boot, beat(2)), None);
    let left = members.get(&id()).map(|peer| peer.liveness);
    assert_eq!(left, Some(Liveness::Left));
    // The next start is heard.
    let up = members.on_heartbeat(at(40), &id(), BootId(2), beat(1));
    assert_eq!(up, Some(Change::Up(id())));
}

#[test]
fn a_start_that_was_taken_for_an_earlier_one_is_heard_in_the_end() {
    let started = |seq, started| Heartbeat {
        started,
        ..beat(seq)
    };
    let (one, other) = (BootId(1), BootId(2));
    let hear = |members: &mut Members, now, boot, beat| {
        members.on_heartbeat(at(now), &id(), boot, beat);
        let peer = members.get(&id()).expect("known");
        (peer.boot, peer.liveness.present())
    };
    // The later start left, and an earlier one's heartbeat came after that.
    let mut members = Members::default();
    hear(&mut members, 0, one, started(1, 900));
    members.on_goodbye(at(10), &id(), one);
    assert_eq!(
        hear(&mut members, 20, other, started(9, 100)),
        (other, true)
    );
    members.tick(at(9_000), TIMERS, None);
    assert_eq!(hear(&mut members, 9_001, one, started(2, 900)), (one, true));
    // Late words of an earlier start are none of the later one that has left.
    let mut members = Members::default();
    hear(&mut members, 0, one, started(1, 100));
    hear(&mut members, 10, other, started(1, 900));
    members.on_goodbye(at(20), &id(), other);
    let late = hear(&mut members, 30, one, started(99, 100));
    assert_eq!(late, (other, false));
    // Unless the clock was set back between them.
    let late = hear(&mut members, 20_000, one, started(120, 100));
    assert_eq!(late, (one, true));
}

#[test]
fn a_late_heartbeat_of_an_earlier_start_changes_nothing() {
    let mut members = members();
    for boot in 2..=3 {
        let change = members.on_heartbeat(at(10), &id(), BootId(boot), beat(1));
        assert_eq!(change, Some(Change::Up(id())));
    }
    for boot in 1..=2 {
        let change = members.on_heartbeat(at(20), &id(), BootId(boot), beat(90));
        assert_eq!(change, None);
    }
    let peer = members.get(&id()).map(|peer| (peer.boot, peer.last_seen));
    assert_eq!(peer, Some((BootId(3), 10)));
}

#[test]
fn a_copy_of_the_last_heartbeat_brings_nobody_back() {
    let mut members = members();
    members.tick(at(1_500), TIMERS, None);
    members.tick(at(2_800), TIMERS, None);
    // The same came by way of the other broker, and waited there.
    let again = members.on_heartbeat(at(3_000), &id(), BootId(1), beat(1));
    assert_eq!(again, None);
    assert_eq!(members.get(&id()).map(|p| p.liveness), Some(Liveness::Lost));
    let alive = members.on_heartbeat(at(3_100), &id(), BootId(1), beat(2));
    assert_eq!(alive, Some(Change::Up(id())));
}

#[test]
fn a_peer_with_consumers_at_two_brokers_is_where_it_was_until_that_one_is_gone() {
    let (old, new) = (LinkEpoch(1), LinkEpoch(2));
    let mut members = members();
    let seen = |members: &Members| members.get(&id()).and_then(Peer::attached_on);
    for round in 0..3 {
        members.on_consumers(old, &id(), 1, round * 250);
        members.on_consumers(new, &id(), u32::from(round > 0), round * 250);
        assert_eq!(seen(&members), Some(old), "in round {round}");
    }
    members.on_consumers(old, &id(), 0, 750);
    members.on_consumers(new, &id(), 1, 750);
    assert_eq!(seen(&members), Some(new));
    // A broker that answers no more says nothing of where it is.
    members.on_consumers(old, &id(), 1, 1_000);
    assert_eq!(seen(&members), Some(new));
    members.on_consumers(old, &id(), 1, 2_000);
    assert_eq!(seen(&members), Some(old));
    members.on_link_down(old);
    members.on_consumers(new, &id(), 1, 2_000);
    assert_eq!(seen(&members), Some(new));
}

/// Two processes of one name: the earlier goes on after the later has ended.
#[test]
fn an_earlier_start_that_goes_on_is_heard_again_and_stays() {
    let mut members = members();
    let mut later = beat(1);
    later.started = 500;
    members.on_heartbeat(at(1_000), &id(), BootId(2), later);
    // The earlier one is not believed beside it.
    assert_eq!(
        members.on_heartbeat(at(1_500), &id(), BootId(1), beat(3)),
        None
    );
    let mut now = 4_500;
    members.tick(at(now), TIMERS, None);
    let mut heard = 0;
    for seq in 4..80 {
        now += 500;
        members.on_heartbeat(at(now), &id(), BootId(1), beat(seq));
        members.tick(at(now), TIMERS, None);
        heard += u32::from(members.get(&id()).unwrap().liveness.present());
    }
    assert!(heard > 50, "{heard}");
    assert!(members.get(&id()).unwrap().liveness.present());
}
