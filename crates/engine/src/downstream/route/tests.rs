use super::*;

fn up() -> NodeHealth {
    NodeHealth::InService {
        xmpp_domain: "d".into(),
        pubsub_domain: "pubsub.d".into(),
        deployment: "UCCE".into(),
    }
}

fn silent() -> NodeHealth {
    NodeHealth::Unreachable { reason: "x".into() }
}

fn route(failback: bool) -> Route {
    let mut route = Route::new(&["a".into(), "b".into()], failback);
    route.on_probe(Now::default(), 0, up());
    route.on_probe(Now::default(), 1, up());
    route
}

#[test]
fn one_missed_probe_is_asked_again_and_two_move_to_the_other_node() {
    let mut route = route(false);
    assert_eq!(
        route.on_probe(Now::default(), 0, silent()),
        (Vec::new(), true)
    );
    let (changes, _) = route.on_probe(Now::default(), 0, silent());
    assert!(changes.contains(&RouteChange::Moved { from: 0, to: 1 }));
    assert!(route.available());
}

#[test]
fn no_return_without_failback_and_return_with_it() {
    for failback in [false, true] {
        let mut route = route(failback);
        route.on_failure(Now::default(), 0, "refused".into());
        assert_eq!(route.current(), 1);
        route.on_probe(Now::default(), 0, up());
        assert_eq!(route.current(), usize::from(!failback));
    }
}

#[test]
fn a_node_in_service_is_not_usable_while_its_application_has_gone() {
    let mut route = route(false);
    let moved = RouteChange::Moved { from: 0, to: 1 };
    assert!(
        route
            .on_application(Now::default(), 0, false)
            .contains(&moved)
    );
    route.on_probe(Now::default(), 0, up());
    assert!(!route.usable(0), "its status alone does not make it usable");
    assert!(
        route
            .on_application(Now::default(), 1, false)
            .contains(&RouteChange::Service(false))
    );
    assert_eq!(route.on_application(Now::default(), 0, true), []);
    let (changes, _) = route.on_probe(Now::default(), 0, up());
    assert!(changes.contains(&RouteChange::Service(true)));
    assert_eq!(route.current(), 0);
}

#[test]
fn an_application_that_nobody_hears_of_is_doubted_longer_each_time() {
    let at = |mono| Now { mono, wall: 0 };
    let mut route = route(false);
    for (begin, hold) in [(0, 1_000), (100_000, 2_000), (200_000, 4_000)] {
        route.on_application(at(begin), 0, false);
        route.on_application(at(begin), 0, false);
        route.forget_application(at(begin + hold - 1), 0);
        assert!(route.application_gone(0).is_some(), "{hold}");
        route.forget_application(at(begin + hold), 0);
        assert!(route.application_gone(0).is_none(), "{hold}");
    }
    route.on_application(at(300_000), 0, true);
    route.on_application(at(300_000), 0, false);
    route.forget_application(at(301_000), 0);
    assert!(
        route.application_gone(0).is_none(),
        "heard again in between"
    );
}

#[test]
fn both_down_is_out_of_service_and_either_up_is_service_again() {
    let mut route = route(false);
    route.on_failure(Now::default(), 0, "x".into());
    assert!(
        route
            .on_failure(Now::default(), 1, "x".into())
            .contains(&RouteChange::Service(false))
    );
    let (changes, _) = route.on_probe(Now::default(), 0, up());
    assert!(changes.contains(&RouteChange::Service(true)));
    assert_eq!(route.current(), 0);
}

/// The status of a node says nothing about its notifications: with failback on, agents do not go to
/// and fro with every probe.
#[test]
fn a_node_that_was_left_for_its_notifications_is_not_returned_to_at_its_next_probe() {
    let at = |mono| Now { mono, wall: 0 };
    let mut route = route(true);
    let mut now = 100_000;
    for absence in [60_000, 120_000, 240_000] {
        let moved = RouteChange::Moved { from: 0, to: 1 };
        assert_eq!(route.prefer_other(at(now)), [moved]);
        let mut away = 0;
        while route.current() == 1 {
            away += 5_000;
            route.on_probe(at(now + away), 1, up());
            route.on_probe(at(now + away), 0, up());
            assert!(away <= absence, "it never goes back");
        }
        assert_eq!(away, absence);
        now += away + 20_000;
    }
    // It lasted: the next absence is a short one again.
    now += 1_000_000;
    route.prefer_other(at(now));
    route.on_probe(at(now + 59_999), 0, up());
    assert_eq!(route.current(), 1);
    route.on_probe(at(now + 60_000), 0, up());
    assert_eq!(route.current(), 0);
}

#[test]
fn a_node_that_was_left_for_its_notifications_serves_where_the_other_one_cannot() {
    let at = |mono| Now { mono, wall: 0 };
    let mut route = route(true);
    route.prefer_other(at(100_000));
    assert_eq!(route.current(), 1);
    route.on_failure(at(100_001), 1, "refused".into());
    assert_eq!(route.current(), 0);
    assert!(route.available());
}
