use super::*;

fn refused() -> Proof {
    Proof::Refused {
        reason: "no".to_owned(),
    }
}

/// Answers every proof until `until`; returns when they were asked for.
fn answer(fitness: &mut Fitness, from: u64, until: u64, proof: &Proof, way: Way) -> Vec<u64> {
    let mut asked = Vec::new();
    let mut now = from;
    while let Some(at) = fitness.next_at().filter(|at| *at <= until) {
        now = now.max(at);
        for due in fitness.due(now) {
            if due == way {
                asked.push(now);
                fitness.proved(now, due, proof);
            } else {
                fitness.proved(now, due, &Proof::Passed);
            }
        }
    }
    asked
}

fn up() -> Fitness {
    let mut fitness = Fitness::default();
    fitness.on_up(0);
    assert_eq!(fitness.due(0), Way::PUBLISHING);
    for way in Way::PUBLISHING {
        fitness.proved(1, way, &Proof::Passed);
    }
    fitness
}

fn lost(way: Way) -> Vec<Change> {
    let lost = Some("no".to_owned());
    vec![Change { way, lost }]
}

fn back(way: Way) -> Vec<Change> {
    vec![Change { way, lost: None }]
}

#[test]
fn traffic_raises_a_doubt_and_a_passed_proof_ends_it() {
    let mut fitness = up();
    for _ in 0..50 {
        fitness.refused(100, Way::Replies, "no");
    }
    assert_eq!(fitness.pass(Way::Replies), Pass::Doubted);
    assert_eq!(fitness.weight(), Weight::Minor);
    let asked = answer(&mut fitness, 100, 4_000, &Proof::Passed, Way::Replies);
    assert_eq!(asked, [300], "one proof, soon");
    assert_eq!(fitness.pass(Way::Replies), Pass::Open);
    assert!(fitness.take_changes().is_empty());
}

#[test]
fn a_way_that_is_refused_again_and_again_is_lost_and_proofs_grow_rare() {
    let mut fitness = up();
    fitness.refused(100, Way::Events, "no");
    let asked = answer(&mut fitness, 100, 700, &refused(), Way::Events);
    assert_eq!(asked, [300, 700]);
    assert_eq!(fitness.pass(Way::Events), Pass::Lost);
    assert_eq!(fitness.take_changes(), lost(Way::Events));
    assert!(fitness.mute());
    let asked = answer(&mut fitness, 700, 600_000, &refused(), Way::Events);
    let pauses: Vec<u64> = asked.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(pauses[..4], [1_600, 3_200, 6_400, 12_800]);
    assert!(pauses[4..].iter().all(|pause| *pause == PROOF_MAX_MS));
    assert!(fitness.take_changes().is_empty(), "it is told once");
    let last = asked.last().unwrap();
    let asked = answer(
        &mut fitness,
        *last,
        last + 20_000,
        &Proof::Passed,
        Way::Events,
    );
    assert!(!asked.is_empty());
    assert_eq!(fitness.take_changes(), back(Way::Events));
    assert_eq!(fitness.pass(Way::Events), Pass::Open);
}

#[test]
fn ways_for_publications_are_looked_at_without_a_doubt() {
    let mut fitness = up();
    let asked = answer(&mut fitness, 1, 60_000, &Proof::Passed, Way::Peers);
    assert_eq!(asked.len(), 12);
    // A right that is lost while nothing is sent.
    let next = fitness.next_at().unwrap();
    answer(
        &mut fitness,
        60_000,
        next + 1_000,
        &refused(),
        Way::FarReplies,
    );
    assert_eq!(fitness.take_changes(), lost(Way::FarReplies));
    assert_eq!(fitness.weight(), Weight::Grave);
    assert!(!fitness.mute(), "clients here are answered");
}

/// A consumer stands, and now and then something is not answered in its time: nobody uses the way
/// anew to show that it works.
#[test]
fn refusals_far_apart_with_a_passed_proof_between_are_no_row() {
    let mut fitness = up();
    fitness.used(0);
    let mut now = 100;
    for _ in 0..10 {
        fitness.refused(now, Way::Commands, "slow");
        assert_eq!(fitness.pass(Way::Commands), Pass::Doubted);
        now += 1_000;
        let _ = fitness.due(now);
        fitness.proved(now, Way::Commands, &Proof::Passed);
        assert_eq!(fitness.pass(Way::Commands), Pass::Open);
        now += APART_MS;
    }
    assert!(fitness.take_changes().is_empty());
}

#[test]
fn a_consumer_is_shown_by_its_use_not_by_a_proof() {
    let mut fitness = up();
    fitness.used(0);
    let mut now = 100;
    fitness.refused(now, Way::Commands, "no");
    for _ in 0..2 {
        // The proof passes, the consumer is refused all the same.
        now = fitness.next_at().unwrap();
        let due = fitness.due(now);
        assert_eq!(due, [Way::Commands]);
        fitness.proved(now, Way::Commands, &Proof::Passed);
        assert_eq!(fitness.pass(Way::Commands), Pass::Open);
        assert_eq!(fitness.next_at().unwrap(), LOOK_MS, "nothing to ask");
        fitness.refused(now, Way::Commands, "no");
    }
    assert_eq!(fitness.take_changes(), lost(Way::Commands));
    assert_eq!(fitness.weight(), Weight::Vital);
    answer(
        &mut fitness,
        now,
        now + 5_000,
        &Proof::Passed,
        Way::Commands,
    );
    assert_eq!(fitness.take_changes(), back(Way::Commands));
    fitness.works(now + 6_000, Way::Commands);
    assert!(fitness.take_changes().is_empty());
}

#[test]
fn an_alarm_is_a_lost_way_when_it_lasts() {
    let mut fitness = up();
    fitness.blocked(1_000, true);
    assert_eq!(fitness.pass(Way::Replies), Pass::Doubted, "kept here");
    assert!(fitness.due(5_999).is_empty(), "nothing is asked meanwhile");
    assert_eq!(fitness.next_at(), Some(6_000));
    assert!(!fitness.mute());
    fitness.blocked(5_999, false);
    assert!(fitness.take_changes().is_empty(), "it was short");
    fitness.blocked(7_000, true);
    fitness.due(12_000);
    assert!(fitness.mute());
    assert_eq!(fitness.take_changes().len(), 1);
    assert_eq!(fitness.next_at(), None, "the broker tells when it ends");
    // On a new link it shows only when something was published.
    fitness.on_down();
    fitness.on_up(20_000);
    assert!(fitness.mute());
    fitness.blocked(20_500, true);
    fitness.due(22_000);
    assert!(fitness.mute());
    fitness.on_down();
    fitness.on_up(30_000);
    fitness.due(32_000);
    assert!(!fitness.mute());
    assert_eq!(fitness.take_changes(), back(Way::Publishing));
}

#[test]
fn refusals_of_a_blocked_connection_are_silence() {
    let mut fitness = up();
    fitness.refused(100, Way::Replies, "no");
    fitness.due(300);
    fitness.blocked(400, true);
    fitness.proved(10_300, Way::Replies, &refused());
    assert_eq!(fitness.pass(Way::Replies), Pass::Doubted);
    fitness.blocked(11_000, false);
    let asked = answer(&mut fitness, 11_000, 12_000, &Proof::Passed, Way::Replies);
    assert_eq!(asked.len(), 1);
    assert_eq!(fitness.pass(Way::Replies), Pass::Open);
}

#[test]
fn dead_letters_and_expired_commands_are_shown_at_once_and_weigh_nothing() {
    let mut fitness = up();
    for way in [Way::Expired, Way::DeadLetters] {
        fitness.proved(100, way, &refused());
        assert_eq!(fitness.take_changes(), lost(way));
    }
    assert_eq!(fitness.weight(), Weight::Minor);
    assert_eq!(fitness.lost().count(), 2);
    let asked = answer(&mut fitness, 100, 120_000, &refused(), Way::Expired);
    assert!(asked.len() < 16, "{asked:?}");
}

#[test]
fn one_that_fails_soon_after_each_return_is_held_off_for_longer() {
    let mut fitness = up();
    let mut now = 0;
    let mut holds = Vec::new();
    for _ in 0..10 {
        fitness.used(now);
        fitness.lose(now + 1_000, Way::Events, "no");
        holds.push(fitness.hold(5_000));
        now += 20_000;
        fitness.proved(now, Way::Events, &Proof::Passed);
        assert_eq!(fitness.fit_since(), now);
    }
    let doubled = [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000];
    assert_eq!(holds[..7], doubled);
    assert_eq!(holds[9], HOLD_MAX_MS);
    // It was well for a while.
    fitness.used(now);
    fitness.failed(now + RELAPSE_MS);
    assert_eq!(fitness.hold(5_000), 5_000);
    // As a spare it fails nobody.
    fitness.failed(now + RELAPSE_MS + 1);
    assert_eq!(fitness.hold(5_000), 5_000);
}

#[test]
fn what_was_asked_on_a_link_that_is_gone_is_asked_again() {
    let mut fitness = up();
    fitness.refused(100, Way::Peers, "no");
    assert_eq!(fitness.due(300), [Way::Peers]);
    assert!(fitness.due(400).is_empty(), "one at a time");
    fitness.on_down();
    assert_eq!(fitness.next_at(), None);
    fitness.on_up(500);
    let due = fitness.due(500);
    assert!(due.contains(&Way::Peers), "{due:?}");
    fitness.proved(510, Way::Peers, &Proof::Unknown);
    assert!(fitness.due(600).is_empty());
    assert_eq!(fitness.due(510 + UNKNOWN_MS), [Way::Peers]);
}
