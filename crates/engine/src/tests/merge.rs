//! What peers tell is merged to the same, whatever is lost, doubled or overtaken on the way.

use proptest::prelude::*;

use super::support::*;
use crate::api::ids::{JobId, Now};
use crate::jobs::ledger::{Known, Ledger};
use crate::peer::{OutcomeRecord, SessionRecord, Version};
use crate::state::session::Sessions;
use crate::state::tally::Tally;
use crate::wire::reply::{Outcome, Reply};

const NOW: Now = Now {
    mono: 0,
    wall: WALL,
};

fn version() -> impl Strategy<Value = Version> {
    (0..4_u64, 0..3_u16, 0..3_usize, 0..4_u64).prop_map(|(epoch, rank, owner, counter)| Version {
        epoch,
        rank,
        owner: instance(["gc-1", "gc-2", "gc-3"][owner]),
        counter,
    })
}

/// What the table counted as it went, and what a new one counts that was given all at once.
fn counted(records: &[SessionRecord]) -> (Tally, Tally) {
    let me = instance("gc-1");
    let mut sessions = Sessions::default();
    for (number, record) in records.iter().enumerate() {
        sessions.merge(record.clone());
        match number % 4 {
            0 => drop(sessions.tally(&me)),
            1 => sessions.own(&record.agent, &me, 7, 0),
            2 => sessions.change(&record.agent, |_| ()).unwrap_or_default(),
            _ if record.tombstone => sessions.remove(&record.agent),
            _ => {}
        }
        assert_eq!(sessions.count(&me), sessions.clone().tally(&me));
    }
    let mut anew = Sessions::default();
    anew.restore(
        sessions
            .iter()
            .map(|s| SessionRecord::clone(&s.record))
            .collect(),
        Vec::new(),
    );
    (sessions.tally(&me), anew.tally(&me))
}

/// Content follows from the version: an owner writes each version once.
fn record() -> impl Strategy<Value = SessionRecord> {
    (0..3_u32, version()).prop_map(|(number, version)| {
        let mut record = Rig::record(&format!("100{number}"), version.owner.as_str(), 0);
        record.destination = destination(&format!("desk-{}", version.counter));
        record.tombstone = version.counter == 3 && version.epoch.is_multiple_of(2);
        record.version = version;
        record
    })
}

fn table(records: &[SessionRecord]) -> Vec<SessionRecord> {
    let mut sessions = Sessions::default();
    for record in records {
        sessions.merge(record.clone());
    }
    let all = ["1000", "1001", "1002"].map(agent);
    let all = all.iter().filter_map(|agent| sessions.get(agent));
    all.map(|session| SessionRecord::clone(&session.record))
        .collect()
}

const OUTCOMES: [Outcome; 6] = [
    Outcome::InDoubt,
    Outcome::Ok,
    Outcome::Accepted,
    Outcome::Rejected,
    Outcome::Failed,
    Outcome::Expired,
];

/// An outcome of one of three ids, with one of two bodies.
fn outcome() -> impl Strategy<Value = OutcomeRecord> {
    (0..3_u8, 0..2_u8, 0..OUTCOMES.len(), 0..2_usize, 1..4_u64).prop_map(
        |(key, body, outcome, who, until)| OutcomeRecord {
            resolved: false,
            key: [key; 16],
            body: [body; 8],
            until: WALL + until * 1_000,
            reply: Reply {
                command: "MakeCall".into(),
                id: "1001".into(),
                outcome: OUTCOMES[outcome],
                status: None,
                instance: ["gc-1", "gc-2"][who].into(),
                downstream: None,
                error: None,
                retry_after_ms: None,
                body: None,
            },
        },
    )
}

/// As instances tell them that keep the promise: one body an id, and one definite outcome, beside
/// which some may be in doubt.
fn honest_outcome() -> impl Strategy<Value = OutcomeRecord> {
    outcome().prop_map(|mut record| {
        let key = record.key[0];
        record.body = [key; 8];
        if record.reply.outcome != Outcome::InDoubt {
            record.reply.outcome = OUTCOMES[1 + usize::from(key)];
        }
        record
    })
}

fn known(ledger: &Ledger, record: &OutcomeRecord) -> Option<Reply> {
    match ledger.look_up(NOW, &record.key, record.body) {
        Known::Finished(reply) => Some(reply.as_ref().clone()),
        _ => None,
    }
}

/// What a ledger holds of each id, and for how long, after these were heard in this order.
fn held(outcomes: &[OutcomeRecord]) -> Vec<(u8, [u8; 8], Outcome, u64)> {
    let mut ledger = Ledger::with_bound(100);
    for record in outcomes {
        ledger.learn(NOW, record.clone(), |_| false);
    }
    let held = ledger.newest(NOW, 10).into_iter();
    let mut held: Vec<_> = held
        .map(|one| (one.key[0], one.body, one.reply.outcome, one.until))
        .collect();
    held.sort_by_key(|(key, ..)| *key);
    held
}

/// Some, in another order, with some of them twice.
fn shuffled<T: Clone + std::fmt::Debug + 'static>(
    one: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = (Vec<T>, Vec<T>)> {
    prop::collection::vec(one, 0..12).prop_flat_map(|all| {
        let twice: Vec<T> = all.iter().chain(all.iter().step_by(2)).cloned().collect();
        (Just(all), Just(twice).prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Commutative, associative and idempotent at once: any order, any repetition, one result.
    #[test]
    fn sessions_merge_to_the_same_in_any_order((first, second) in shuffled(record())) {
        prop_assert_eq!(table(&first), table(&second));
    }

    #[test]
    fn sessions_are_counted_as_they_change(records in prop::collection::vec(record(), 0..24)) {
        let (as_it_went, anew) = counted(&records);
        prop_assert_eq!(as_it_went, anew);
    }

    /// What one table took from another, merged once more, changes nothing.
    #[test]
    fn tables_merge_to_the_same_from_either_side(
        ours in prop::collection::vec(record(), 0..8),
        theirs in prop::collection::vec(record(), 0..8),
    ) {
        let joined = |a: &[SessionRecord], b: &[SessionRecord]| {
            let mut all = table(a);
            all.extend(table(b));
            table(&all)
        };
        let once = joined(&ours, &theirs);
        prop_assert_eq!(&once, &joined(&theirs, &ours));
        prop_assert_eq!(&once, &joined(&once, &theirs));
    }

    #[test]
    fn outcomes_merge_to_the_same_in_any_order((first, second) in shuffled(honest_outcome())) {
        prop_assert_eq!(held(&first), held(&second));
    }

    /// Whatever is heard, also what must not be: a client may have been told the first.
    #[test]
    fn a_definite_outcome_is_never_replaced(
        outcomes in prop::collection::vec(outcome(), 0..12),
    ) {
        let mut ledger = Ledger::with_bound(100);
        for record in &outcomes {
            let before = known(&ledger, record);
            ledger.learn(NOW, record.clone(), |_| false);
            let after = known(&ledger, record);
            match before {
                Some(before) if before.outcome != Outcome::InDoubt => {
                    prop_assert_eq!(Some(before), after);
                }
                Some(_) => prop_assert_eq!(
                    after.map(|reply| reply.outcome),
                    Some(record.reply.outcome)
                ),
                None => prop_assert!(after.is_none_or(|after| after == record.reply)),
            }
        }
    }

    /// Of two versions one is the greater, unless they are one; and the order is transitive.
    #[test]
    fn versions_are_in_one_order(a in version(), b in version(), c in version()) {
        prop_assert_eq!(a == b, a.cmp(&b).is_eq());
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
    }
}

fn later(millis: u64) -> Now {
    Now {
        mono: millis,
        wall: WALL + millis,
    }
}

fn reply(outcome: Outcome) -> Reply {
    Reply {
        command: "MakeCall".into(),
        id: "1001".into(),
        outcome,
        status: Some(202),
        instance: "gc-1".into(),
        downstream: Some("f0".into()),
        error: None,
        retry_after_ms: None,
        body: None,
    }
}

fn finished(ledger: &mut Ledger, now: Now, wall: u64, key: u8, deadline: u64) {
    ledger.start([key; 16], [key; 8], JobId(u64::from(key)), deadline);
    let done = ledger.finish(now, wall, [key; 16], &reply(Outcome::Accepted));
    assert!(done.is_some());
}

fn is_known(ledger: &Ledger, now: Now, key: u8) -> bool {
    matches!(
        ledger.look_up(now, &[key; 16], [key; 8]),
        Known::Finished(_)
    )
}

/// What is behind a command with a long deadline, too: clients may count theirs anew.
#[test]
fn an_outcome_is_known_for_ten_minutes_or_until_its_deadline() {
    let mut ledger = Ledger::with_bound(100);
    finished(&mut ledger, NOW, WALL, 1, WALL + 24 * 3_600_000);
    finished(&mut ledger, NOW, WALL, 2, WALL + 30_000);
    for key in [1, 2] {
        assert!(is_known(&ledger, later(599_000), key));
    }
    assert!(is_known(&ledger, later(3_600_000), 1));
    assert!(!is_known(&ledger, later(601_000), 2));
    finished(
        &mut ledger,
        later(601_000),
        WALL + 601_000,
        2,
        WALL + 640_000,
    );
    assert!(is_known(&ledger, later(1_200_000), 2));
}

/// The time to forget by follows a clock that was set forward ten minutes later.
#[test]
fn a_clock_that_was_set_forward_does_not_end_the_promise_early() {
    let mut ledger = Ledger::with_bound(100);
    let ahead = WALL + 900_000;
    finished(&mut ledger, NOW, ahead, 1, WALL + 30_000);
    let caught_up = Now {
        mono: 1,
        wall: ahead + 590_000,
    };
    assert!(is_known(&ledger, caught_up, 1));
}

/// Late deadlines do not push the others out, nor take their place among what a peer is told.
#[test]
fn late_deadlines_leave_room_and_the_newest_are_told() {
    let mut ledger = Ledger::with_bound(100);
    for key in 0..90 {
        finished(&mut ledger, NOW, WALL, key, WALL + 3_600_000);
    }
    for key in 100..150 {
        finished(&mut ledger, NOW, WALL, key, WALL + 30_000);
        assert!(is_known(&ledger, NOW, key));
    }
    assert!((100..150).all(|key| is_known(&ledger, NOW, key)));
    let told: Vec<u8> = (ledger.newest(NOW, 20).iter())
        .map(|one| one.key[0])
        .collect();
    assert_eq!(told, (130..150).rev().collect::<Vec<u8>>());
    ledger.learn(later(3_700_000), outcome_of(1), |_| false);
    assert_eq!(
        ledger.len(),
        1,
        "all the others are forgotten in their time"
    );
}

fn outcome_of(key: u8) -> OutcomeRecord {
    OutcomeRecord {
        resolved: false,
        key: [key; 16],
        body: [key; 8],
        until: WALL + 3_900_000,
        reply: reply(Outcome::Ok),
    }
}

/// One for each agent and for each way to end, however many commands; and of bounded size.
#[test]
fn outcomes_share_what_they_have_in_common() {
    let mut ledger = Ledger::with_bound(1_000);
    let mut shrunk = None;
    for number in 0..5_000_u32 {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&number.to_be_bytes());
        ledger.start(key, [0; 8], JobId(u64::from(number)), WALL);
        let mut reply = reply(Outcome::Ok);
        reply.id = format!("{}", number % 10);
        let (record, early) = ledger.finish(NOW, WALL, key, &reply).unwrap();
        assert_eq!(record.reply, reply);
        assert_eq!(ledger.record(&key).unwrap().reply, reply);
        shrunk = shrunk.or(early);
    }
    assert_eq!(ledger.len(), 1_000);
    assert_eq!(
        shrunk,
        Some(0),
        "forgotten at once: it is said for how long they are known"
    );
    assert_eq!(ledger.shared(), (1, 10));
}

#[test]
fn a_password_that_was_refused_here_is_forgotten_with_a_new_one() {
    let mut sessions = Sessions::default();
    sessions.merge(Rig::record("1001", "gc-2", 1));
    let refused = |sessions: &Sessions| sessions.get(&agent("1001")).unwrap().refused;
    sessions.get_mut(&agent("1001")).unwrap().refused = true;
    sessions.merge(Rig::record("1001", "gc-2", 2));
    assert!(refused(&sessions));
    let mut record = Rig::record("1001", "gc-2", 3);
    record.password = crate::model::Secret::new("new");
    sessions.merge(record);
    assert!(!refused(&sessions));
}
