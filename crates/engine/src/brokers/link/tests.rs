use super::*;

fn at(mono: u64) -> Now {
    Now { mono, wall: mono }
}

fn links(count: usize) -> Links {
    Links::new(
        BrokerPolicy {
            labels: (0..count).map(|n| format!("b{n}")).collect(),
            spare: true,
            priority_backup: true,
            failback_hold: 5_000,
            reconnect_delay: 100,
            reconnect_delay_max: 5_000,
            far_follower: -10,
            stands_back: 0,
        },
        7,
    )
}

fn dialled(steps: &[LinkStep]) -> Vec<(LinkEpoch, usize)> {
    steps
        .iter()
        .filter_map(|step| match step {
            LinkStep::Dial { link, broker } => Some((*link, *broker)),
            LinkStep::Activate { .. } | LinkStep::Prove { .. } => None,
        })
        .collect()
}

fn activated(steps: &[LinkStep]) -> Option<(usize, Option<LinkEpoch>)> {
    steps.iter().find_map(|step| match step {
        LinkStep::Activate { broker, leave, .. } => Some((*broker, *leave)),
        LinkStep::Dial { .. } | LinkStep::Prove { .. } => None,
    })
}

#[test]
fn first_broker_serves_though_the_second_answers_sooner() {
    let mut links = links(2);
    let dials = dialled(&links.steps(at(0)));
    assert_eq!(dials.len(), 2);
    links.on_up(at(5), dials[1].0, String::new(), String::new());
    assert_eq!(activated(&links.steps(at(5))), None);
    links.on_up(at(9), dials[0].0, String::new(), String::new());
    assert_eq!(activated(&links.steps(at(9))), Some((0, None)));
}

#[test]
fn spare_takes_over_at_once_and_first_comes_back_after_the_hold() {
    let mut links = links(2);
    let dials = dialled(&links.steps(at(0)));
    links.on_up(at(1), dials[0].0, String::new(), String::new());
    links.on_up(at(1), dials[1].0, String::new(), String::new());
    assert_eq!(activated(&links.steps(at(1))), Some((0, None)));
    assert_eq!(links.on_down(at(10_000), dials[0].0), Some((0, true)));
    let steps = links.steps(at(10_000));
    assert_eq!(activated(&steps), Some((1, None)));
    let redial = dialled(&links.steps(at(10_200)));
    assert_eq!(redial.len(), 1);
    links.on_up(at(11_000), redial[0].0, String::new(), String::new());
    assert_eq!(activated(&links.steps(at(15_000))), None);
    let back = links.next_at(at(15_000)).expect("a time is set");
    assert!((16_000..=17_251).contains(&back));
    assert_eq!(
        activated(&links.steps(at(back))),
        Some((0, Some(dials[1].0)))
    );
}

#[test]
fn delays_grow_to_the_bound_and_never_end() {
    let mut links = links(1);
    let mut now = 0;
    let mut longest = 0;
    for _ in 0..200 {
        let dials = dialled(&links.steps(at(now)));
        assert_eq!(dials.len(), 1);
        links.on_down(at(now), dials[0].0);
        let next = links.next_at(at(now)).expect("retries for ever");
        longest = longest.max(next - now);
        now = next;
    }
    assert!((3_750..=5_000).contains(&longest));
}

/// When the first broker is dialled next; everything that is dialled is up at once.
fn first_up(links: &mut Links, mut now: u64) -> (u64, LinkEpoch) {
    loop {
        let mut first = None;
        for (link, broker) in dialled(&links.steps(at(now))) {
            links.on_up(at(now), link, String::new(), String::new());
            first = first.or((broker == 0).then_some(link));
        }
        if let Some(link) = first {
            return (now, link);
        }
        now = links.next_at(at(now)).expect("it is dialled again");
    }
}

/// Loses a link to the first broker because of what came on it; gives back the time of the
/// next dial, and its link.
fn garble(links: &mut Links, (now, first): (u64, LinkEpoch), problem: &str) -> (u64, LinkEpoch) {
    links.steps(at(now));
    links.on_garbled(at(now), first, problem);
    links.on_down(at(now), first);
    let next = first_up(links, now);
    assert_eq!(links.active_broker(), Some(1));
    next
}

#[test]
fn a_broker_of_which_nothing_can_be_read_rests_longer_each_time_and_another_one_serves() {
    let mut links = links(2);
    let mut now = first_up(&mut links, 0);
    let mut rests = Vec::new();
    for _ in 0..9 {
        let next = garble(&mut links, now, "no frame");
        rests.push(next.0 - now.0);
        now = next;
    }
    assert!(rests[..2].iter().all(|rest| *rest <= 5_000), "{rests:?}");
    let rests = &rests[2..];
    assert_eq!(
        rests,
        [5_000, 10_000, 20_000, 40_000, 60_000, 60_000, 60_000]
    );
    assert_eq!(links.garbled(at(now.0), 0), Some(("no frame", 9)));
    assert_eq!(links.garbled(at(now.0), 1), None);
    // Another problem begins anew, and after a long time it is not told any more.
    let next = garble(&mut links, now, "another");
    assert!(next.0 - now.0 <= 5_000);
    now = next;
    assert_eq!(links.garbled(at(now.0), 0), Some(("another", 1)));
    for _ in 0..2 {
        now = garble(&mut links, now, "no frame");
        now = garble(&mut links, now, "another");
    }
    assert_eq!(links.garbled(at(now.0), 0), Some(("another", 1)));
    let later = at(now.0 + limits::GARBLED_FORGET_MS + 1);
    assert_eq!(links.garbled(later, 0), None);
}

#[test]
fn two_entries_of_one_cluster_are_found() {
    let mut links = links(3);
    assert_eq!(links.one_cluster(), None);
    for (slot, name) in links.slots.iter_mut().zip(["a", "b", "a"]) {
        name.clone_into(&mut slot.cluster);
    }
    let (one, other) = (links.label(0).to_owned(), links.label(2).to_owned());
    assert_eq!(links.one_cluster(), Some((&*one, &*other, "a")));
}

#[test]
fn late_answers_of_an_old_link_are_ignored() {
    let mut links = links(1);
    let dials = dialled(&links.steps(at(0)));
    links.on_down(at(1), dials[0].0);
    assert!(!links.on_up(at(2), dials[0].0, String::new(), String::new()));
    assert_eq!(links.on_down(at(2), dials[0].0), None);
}

#[test]
fn a_broker_that_is_blocked_is_not_gone_back_to_before_it_is_free() {
    let mut links = links(2);
    let dials = dialled(&links.steps(at(0)));
    links.on_up(at(1), dials[0].0, String::new(), String::new());
    links.on_up(at(1), dials[1].0, String::new(), String::new());
    links.steps(at(1));
    links.on_down(at(10_000), dials[0].0);
    assert_eq!(activated(&links.steps(at(10_000))), Some((1, None)));
    let redial = dialled(&links.steps(at(10_200)));
    let first = redial[0].0;
    links.on_up(at(11_000), first, String::new(), String::new());
    assert_eq!(activated(&links.steps(at(15_000))), None);
    let back = links.next_at(at(15_000)).expect("a time is set");
    links.on_blocked(at(back - 100), first, true);
    assert_eq!(activated(&links.steps(at(back))), None);
    links.on_blocked(at(back + 100), first, false);
    let steps = links.steps(at(back + 100));
    assert_eq!(activated(&steps), Some((0, Some(dials[1].0))));
}

#[test]
fn of_two_brokers_the_one_that_is_not_blocked_is_chosen() {
    for (blocked, chosen) in [(vec![0], 1), (vec![0, 1], 0)] {
        let mut links = links(2);
        let dials = dialled(&links.steps(at(0)));
        for (link, broker) in &dials {
            links.on_up(at(1), *link, String::new(), String::new());
            if blocked.contains(broker) {
                links.on_blocked(at(1), *link, true);
            }
        }
        assert_eq!(activated(&links.steps(at(1))), Some((chosen, None)));
    }
}
