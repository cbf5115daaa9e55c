use super::*;

fn lane(name: &str) -> LaneKey {
    (true, name.into())
}

#[test]
fn one_runs_at_a_time_in_order_and_an_empty_lane_is_none() {
    let (mut lanes, key) = (Lanes::default(), lane("1001"));
    for id in 1..=3 {
        assert!(lanes.push(JobId(id), &key, false));
    }
    assert_eq!(lanes.start_next(&key), Some(JobId(1)));
    assert_eq!(lanes.start_next(&key), None, "one runs");
    assert!(!lanes.take_out(JobId(2), &key), "it had not begun");
    assert_eq!(lanes.head(&key), Some(JobId(1)));
    assert!(lanes.take_out(JobId(1), &key));
    assert_eq!(lanes.head(&key), Some(JobId(3)));
    assert_eq!(lanes.start_next(&key), Some(JobId(3)));
    assert!(lanes.take_out(JobId(3), &key));
    assert!(lanes.keys().is_empty());
    assert_eq!(lanes.busy().count(), 0);
}

#[test]
fn a_lane_is_bounded_and_lanes_are_apart() {
    let (mut lanes, key) = (Lanes::default(), lane("1001"));
    for id in 0..limits::LANE_DEPTH as u64 {
        assert!(lanes.push(JobId(id), &key, false));
    }
    assert!(!lanes.push(JobId(9_999), &key, false));
    assert!(lanes.push(JobId(9_999), &lane("1002"), false));
    assert_eq!(lanes.queued().count(), limits::LANE_DEPTH + 1);
}
