//! A broker that stands and is of no use: left for the next one, taken back when it is proven well.

use super::support::*;
use crate::Event;
use crate::api::command::{Outbound, ReplyRoute};
use crate::api::ids::LinkEpoch;
use crate::api::input::{Input, PublishOutcome, Source, Verb};
use crate::api::way::Way;
use crate::peer::Role;
use crate::wire::event::ClientEvent;
use crate::wire::reply::Outcome;

/// What was said of ways: (broker, way, whether it was lost).
fn said(rig: &Rig) -> Vec<(String, &'static str, bool)> {
    let ways = rig.events.iter().filter_map(|event| match event {
        Event::BrokerWay { broker, way, lost } => Some((broker.clone(), *way, lost.is_some())),
        _ => None,
    });
    ways.collect()
}

fn failovers(rig: &Rig) -> usize {
    let moves = |event: &&Event| matches!(event, Event::BrokerFailover { .. });
    rig.events.iter().filter(moves).count()
}

fn attached(rig: &Rig) -> usize {
    let view = rig.engine.view();
    view.brokers.iter().position(|b| b.attached).unwrap()
}

/// A single broker.
fn alone() -> Rig {
    let mut config = config();
    config.brokers.labels.truncate(1);
    let mut rig = Rig::new(config);
    rig.start();
    rig.advance(2_000);
    rig.sign_in("1001", "desk");
    rig
}

/// The broker cancels the command consumer.
fn lose_consumer(rig: &mut Rig) {
    let tag = rig.engine.view().groups[0].tag.clone().unwrap();
    let link = rig.active();
    rig.input(Input::ConsumerLost {
        link,
        group: 0,
        tag,
        reason: "the queue was deleted".into(),
    });
}

#[test]
fn a_broker_that_refuses_replies_or_events_is_left_and_what_it_refused_goes_the_other_way() {
    for way in [Way::Replies, Way::Events] {
        let mut rig = Rig::with_agent();
        rig.refused.insert((0, way));
        let first = rig.active();
        let id = rig.send("GetState#1001", "", "g1");
        assert!(rig.acks.is_empty());
        rig.advance(1_500);
        assert_eq!(attached(&rig), 1, "{way:?}");
        assert_eq!(rig.outcomes(), [Outcome::Ok]);
        assert_eq!(rig.told("desk").len(), 1);
        assert_eq!(rig.acks, [id]);
        // Its command was consumed at the broker that is left: the brokers carry the reply there.
        if way == Way::Replies {
            let name = "replies-of-client".to_owned();
            assert_eq!(rig.replies()[0].0, ReplyRoute::Far(name));
        }
        assert_eq!(said(&rig), [("b0".to_owned(), way.as_str(), true)]);
        assert!(rig.barred <= 2, "{} times", rig.barred);
        assert!(!rig.links.iter().any(|(link, _)| *link == first), "left");
        assert_eq!(rig.role(), Role::Leader);
        let view = rig.engine.view();
        assert!(view.brokers[0].unfit && !view.brokers[1].unfit);
        let warned = view.warnings.iter().find(|w| w.contains("b0")).unwrap();
        assert!(warned.contains("is not used"), "{warned}");
        assert!(warned.contains(REFUSAL), "{warned}");
    }
}

/// What a broker that was left says of a publication at last is no word on the same one at the next
/// broker.
#[test]
fn a_late_word_of_the_link_that_was_left_says_nothing_of_what_is_on_the_next_one() {
    for late in [
        PublishOutcome::Untaken,
        PublishOutcome::Refused,
        PublishOutcome::Failed,
        PublishOutcome::Barred,
        PublishOutcome::Confirmed,
    ] {
        let mut rig = Rig::with_agent();
        rig.broker = Broker::Holds;
        let id = rig.send("MakeReady#1001", "", "m1");
        let (former, first, _) = rig.published.last().cloned().unwrap();
        assert_eq!(rig.outcomes(), [Outcome::Accepted]);
        // It takes no replies any more: it is left.
        rig.refused.insert((0, Way::Replies));
        let reason = REFUSAL.to_owned();
        let way = Way::Replies;
        rig.input(Input::Barred {
            link: first,
            way,
            reason,
        });
        rig.advance(1_500);
        assert_eq!(attached(&rig), 1);
        let (again, link, _) = rig.published.last().cloned().unwrap();
        assert_ne!(link, first);
        assert_eq!(rig.outcomes().len(), 2, "{late:?}");
        let outbox = rig.engine.view().outbox;
        rig.input(Input::Published {
            publish: former,
            outcome: late,
        });
        rig.advance(1_000);
        assert_eq!(rig.outcomes().len(), 2, "{late:?}");
        assert_eq!(rig.engine.view().outbox, outbox, "{late:?}");
        assert!(rig.acks.is_empty(), "{late:?}");
        rig.input(Input::Published {
            publish: again,
            outcome: PublishOutcome::Confirmed,
        });
        assert_eq!(rig.acks, [id], "{late:?}");
    }
}

#[test]
fn one_that_lacks_something_is_no_reserve() {
    // Without a warm spare, and with a second broker that is no better.
    for (labels, spare) in [(2, false), (3, true)] {
        let mut config = config();
        config.brokers.labels = (0..labels).map(|n| format!("b{n}")).collect();
        config.brokers.spare = spare;
        let mut rig = Rig::new(config);
        rig.start();
        rig.advance(2_000);
        let last = labels - 1;
        // At the start two are dialled, whatever is kept later.
        assert!(!spare || rig.links.iter().all(|(_, broker)| *broker != last));
        rig.refused.extend((0..last).map(|n| (n, Way::Events)));
        rig.advance(15_000);
        assert_eq!(attached(&rig), last);
    }
}

#[test]
fn a_broker_that_is_left_is_taken_again_after_a_proof_and_a_hold_that_grows() {
    let mut rig = Rig::with_agent();
    let mut away = Vec::new();
    for round in 0..4 {
        rig.refused.insert((0, Way::Replies));
        rig.send("GetState#1001", "", &format!("g{round}"));
        rig.advance(2_000);
        assert_eq!(attached(&rig), 1);
        // It is not tried with clients' replies.
        let barred = rig.barred;
        rig.advance(30_000);
        assert_eq!(attached(&rig), 1, "it is not well");
        assert_eq!(rig.barred, barred);
        rig.refused.clear();
        let mended = rig.mono;
        while attached(&rig) == 1 {
            rig.advance(100);
            assert!(rig.mono < mended + 200_000);
        }
        away.push(rig.mono - mended);
    }
    // The hold is 5 s, and a proof comes each 15 s.
    assert!((5_000..=25_000).contains(&away[0]), "{away:?}");
    assert!((40_000..=70_000).contains(&away[3]), "{away:?}");
    assert_eq!(failovers(&rig), 8);
    rig.send("GetState#1001", "", "last");
    assert_eq!(*rig.outcomes().last().unwrap(), Outcome::Ok);
}

#[test]
fn without_another_broker_nothing_is_consumed_until_answers_go_out_again() {
    for way in [Way::Replies, Way::Events] {
        let mut rig = alone();
        rig.refused.insert((0, way));
        let id = rig.send("GetState#1001", "", "g1");
        rig.advance(1_500);
        assert!(rig.consumers.is_empty(), "{way:?}");
        assert!(rig.acks.is_empty());
        let view = rig.engine.view();
        assert!(view.brokers[0].unfit && view.brokers[0].attached);
        let warned = view.warnings.iter().find(|w| w.contains("b0")).unwrap();
        assert!(warned.contains("commands are not consumed"), "{warned}");
        let proofs = rig.proofs.len();
        rig.advance(60_000);
        let proofs = rig.proofs.len() - proofs;
        assert!(proofs < 60, "{proofs} proofs in a minute");
        assert_eq!(said(&rig).len(), 1, "told once");
        rig.refused.clear();
        rig.advance(16_000);
        assert_eq!(rig.acks, [id]);
        assert_eq!(rig.outcomes(), [Outcome::Ok]);
        assert_eq!(rig.consumers.len(), 1);
        assert!(!rig.engine.view().brokers[0].unfit);
    }
}

#[test]
fn a_leader_whose_only_broker_is_of_no_use_gives_way_to_its_peer() {
    for way in [Way::Replies, Way::Commands] {
        let mut rig = alone();
        let mut seq = 0;
        rig.advance_with_peer(1_000, &mut seq, Role::Follower, 100);
        rig.refused.insert((0, way));
        rig.send("GetState#1001", "", "g1");
        if way == Way::Commands {
            lose_consumer(&mut rig);
        }
        rig.advance_with_peer(3_000, &mut seq, Role::Follower, 100);
        assert_eq!(rig.role(), Role::Follower, "{way:?}");
        rig.advance_with_peer(3_000, &mut seq, Role::Leader, 100);
        assert_eq!(rig.role(), Role::Follower);
        assert!(!rig.engine.view().groups[0].consuming);
    }
}

#[test]
fn ways_to_far_clients_and_to_peers_that_are_lost_are_no_reason_to_stop() {
    for way in [Way::FarReplies, Way::Peers] {
        let mut rig = alone();
        rig.refused.insert((0, way));
        rig.advance(15_000);
        assert!(rig.engine.view().brokers[0].unfit, "{way:?}");
        let id = rig.send("GetState#1001", "", "g1");
        assert_eq!(rig.acks, [id]);
        assert_eq!(rig.consumers.len(), 1);
    }
}

#[test]
fn a_far_reply_that_is_refused_takes_the_other_way_at_once() {
    let mut rig = Rig::with_agent();
    rig.refused.insert((0, Way::FarReplies));
    let mut raw = message("GetState#1001", "", "g1");
    raw.relayed = true;
    let id = rig.deliver(raw);
    let name = "replies-of-client".to_owned();
    assert_eq!(rig.replies()[0].0, ReplyRoute::Near(name));
    assert_eq!(rig.acks, [id]);
    rig.advance(1_500);
    assert_eq!(attached(&rig), 1);
}

/// The broker where a command was consumed is connected again, takes its reply and never answers: its
/// nodes are no majority.
#[test]
fn a_reply_does_not_wait_at_a_broker_that_lacks_something_vital() {
    let mut rig = Rig::with_agent();
    rig.answers_calls = false;
    let first = rig.active();
    rig.send("MakeReady#1001", "", "m1");
    rig.lose(first);
    rig.advance(1_200);
    assert_eq!(attached(&rig), 1);
    rig.broker = Broker::Holds;
    let call = rig.open_calls.remove(0);
    rig.input(Input::CallDone {
        call,
        outcome: done(),
    });
    let last = |rig: &Rig| {
        let mut all = rig.published.iter().rev();
        let reply = all.find(|(.., message)| matches!(message, Outbound::Reply { .. }));
        reply.map(|(_, link, _)| *link)
    };
    let home = last(&rig).expect("a reply");
    assert_eq!(rig.broker_of(home), 0, "by the way that its command came");
    rig.refused.insert((0, Way::Commands));
    rig.input(Input::Barred {
        link: home,
        way: Way::Commands,
        reason: "no answer".into(),
    });
    rig.advance(1_500);
    assert_eq!(last(&rig), Some(rig.active()));
    assert_eq!(attached(&rig), 1);
}

#[test]
fn one_clients_queue_that_refuses_condemns_no_broker() {
    for broker in [Broker::ClientsAreFull, Broker::Returns, Broker::Fails] {
        let mut rig = Rig::with_agent();
        rig.broker = broker;
        for n in 0..20 {
            rig.send("GetState#1001", "", &format!("g{n}"));
        }
        rig.advance(20_000);
        assert_eq!(attached(&rig), 0, "{broker:?}");
        assert!(said(&rig).is_empty(), "{broker:?}: {:?}", said(&rig));
        assert_eq!(failovers(&rig), 0);
    }
}

#[test]
fn a_broker_that_refuses_the_command_consumer_is_left_and_not_asked_again_and_again() {
    let mut rig = Rig::with_agent();
    rig.refused.insert((0, Way::Commands));
    lose_consumer(&mut rig);
    rig.advance(2_000);
    assert_eq!(attached(&rig), 1);
    let view = rig.engine.view();
    assert!(view.groups[0].consuming);
    rig.advance(60_000);
    let commands = |rig: &Rig| {
        rig.proofs
            .iter()
            .filter(|(_, way)| *way == Way::Commands)
            .count()
    };
    assert!(commands(&rig) < 12, "{}", commands(&rig));
    assert_eq!(attached(&rig), 1);
    rig.refused.clear();
    rig.advance(30_000);
    assert_eq!(attached(&rig), 0);
    assert!(rig.engine.view().groups[0].consuming);
    assert_eq!(failovers(&rig), 2);
}

#[test]
fn a_consumer_is_not_waited_for_where_another_broker_gives_one() {
    let mut rig = Rig::new(config());
    rig.slow_consumers.insert(0);
    rig.start();
    rig.advance(2_000);
    assert!(!rig.engine.view().groups[0].consuming);
    rig.advance(5_000);
    assert_eq!(attached(&rig), 1);
    assert!(rig.engine.view().groups[0].consuming);
    let told = said(&rig);
    assert_eq!(told[0], ("b0".to_owned(), "commands", true));
    // It gives one or it does not: each return that fails is followed by a longer hold.
    let before = failovers(&rig);
    rig.advance(120_000);
    let moves = failovers(&rig) - before;
    assert!((2..=10).contains(&moves), "{moves}");
    rig.slow_consumers.clear();
    rig.advance(300_000);
    assert_eq!(attached(&rig), 0);
    assert!(rig.engine.view().groups[0].consuming);
}

#[test]
fn an_own_pause_is_no_delay_of_the_brokers() {
    let mut rig = Rig::new(config());
    rig.slow_consumers.insert(0);
    rig.start();
    rig.advance(2_000);
    rig.freeze(5_000);
    rig.advance(1_000);
    assert_eq!(attached(&rig), 0);
    rig.advance(3_000);
    assert_eq!(attached(&rig), 1);
}

#[test]
fn a_broker_without_the_control_queue_is_left_before_anything_is_consumed() {
    let mut rig = Rig::new(config());
    rig.refused.insert((0, Way::ControlQueue));
    rig.start();
    rig.advance(1_500);
    assert_eq!(attached(&rig), 1);
    rig.advance(2_000);
    assert_eq!(rig.role(), Role::Leader);
    assert!(rig.engine.view().groups[0].consuming);
    rig.refused.clear();
    rig.advance(40_000);
    assert_eq!(attached(&rig), 0);
    assert!(rig.engine.view().attached);
}

#[test]
fn what_is_said_to_peers_is_not_sent_where_it_is_refused() {
    let mut rig = Rig::with_agent();
    rig.refused.insert((0, Way::Peers));
    rig.advance(1_500);
    assert_eq!(attached(&rig), 1);
    rig.forget();
    rig.advance(10_000);
    assert!(rig.said.len() >= 10, "heartbeats go on");
    assert_eq!(rig.role(), Role::Leader);
}

#[test]
fn an_alarm_that_lasts_moves_the_service_and_unconfirmed_replies_with_it() {
    let mut rig = Rig::with_agent();
    let link = rig.active();
    // One is under way when it begins, one comes after.
    rig.broker = Broker::Holds;
    let first = rig.send("GetState#1001", "", "g1");
    let blocked = true;
    rig.input(Input::LinkBlocked { link, blocked });
    let second = rig.send("GetState#1001", "", "g2");
    rig.advance(4_500);
    assert_eq!(attached(&rig), 0, "a short one is waited out");
    rig.broker = Broker::Confirms;
    rig.advance(1_000);
    assert_eq!(attached(&rig), 1);
    assert_eq!(rig.acks, [first, second]);
    assert_eq!(said(&rig), [("b0".to_owned(), "publishing", true)]);
}

#[test]
fn under_an_alarm_without_another_broker_nothing_more_is_taken() {
    let mut rig = alone();
    let link = rig.active();
    rig.input(Input::LinkBlocked {
        link,
        blocked: true,
    });
    rig.advance(6_000);
    assert!(rig.consumers.is_empty());
    rig.input(Input::LinkBlocked {
        link,
        blocked: false,
    });
    assert_eq!(rig.consumers.len(), 1);
}

#[test]
fn dead_letters_and_expired_commands_that_cannot_be_had_are_shown_and_nothing_moves() {
    let mut rig = Rig::new(config());
    rig.refused
        .extend([(0, Way::Expired), (0, Way::DeadLetters)]);
    rig.start();
    rig.advance(2_000);
    rig.sign_in("1001", "desk");
    rig.broker = Broker::NoDeadLetters;
    let first = rig.deliver(message("Nonsense#1001", "", "m1"));
    // Another broker keeps it.
    rig.advance(1_000);
    assert_eq!(rig.acks, [first]);
    rig.advance(120_000);
    assert_eq!(attached(&rig), 0);
    assert_eq!(failovers(&rig), 0);
    let view = rig.engine.view();
    assert!(!view.brokers[0].unfit);
    let problem = &view.brokers[0].problem;
    assert!(
        problem.contains("expired") && problem.contains("dead"),
        "{problem}"
    );
    rig.refused.clear();
    rig.advance(20_000);
    assert!(rig.engine.view().brokers[0].problem.is_empty());
    assert!(rig.undertakers.iter().any(|link| rig.broker_of(*link) == 0));
}

#[test]
fn a_link_that_was_left_is_closed_though_something_on_it_never_ends() {
    let mut rig = Rig::with_agent();
    rig.answers_calls = false;
    let first = rig.active();
    rig.send("MakeReady#1001", "", "m1");
    rig.refused.insert((0, Way::Events));
    rig.advance(15_000);
    assert_eq!(attached(&rig), 1);
    assert!(
        rig.links.iter().any(|(link, _)| *link == first),
        "it may end"
    );
    rig.advance(20_000);
    assert!(!rig.links.iter().any(|(link, _)| *link == first));
    assert!(
        rig.links.iter().any(|(_, broker)| *broker == 0),
        "dialled again"
    );
    // What comes again is the same command.
    let link = rig.active();
    let mut raw = message("MakeReady#1001", "", "m1");
    raw.redelivered = true;
    let again = rig.deliver_on(link, Source::Commands { group: 0 }, raw);
    rig.answer(done());
    assert_eq!(rig.acks, [again]);
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
}

#[test]
fn the_one_in_use_is_lost_while_the_former_one_is_being_left() {
    let mut rig = Rig::with_agent();
    rig.answers_calls = false;
    rig.send("MakeReady#1001", "", "m1");
    rig.refused.insert((0, Way::Events));
    rig.advance(15_000);
    let second = rig.active();
    rig.refused.clear();
    rig.lose(second);
    rig.advance(1_000);
    let view = rig.engine.view();
    assert!(view.attached, "it is heard");
    assert!(view.groups[0].consuming);
}

#[test]
fn a_group_that_is_stopped_gives_up_the_consumer_that_a_failed_one_was_to_replace() {
    let mut rig = alone();
    // The broker refuses the new one; the one before it consumes still.
    lose_consumer(&mut rig);
    assert_eq!(rig.consumers.len(), 1);
    rig.refused.insert((0, Way::Commands));
    rig.input(Input::Operator {
        id: crate::api::ids::VerbId(1),
        verb: Verb::FailoverStop("agents".into()),
    });
    rig.advance(100);
    assert!(rig.consumers.is_empty());
}

/// A move to the preferred broker while the other one has not confirmed an event yet.
#[test]
fn an_event_does_not_overtake_one_that_is_unconfirmed_at_the_broker_that_was_left() {
    let mut rig = Rig::with_agent();
    let first = rig.active();
    rig.lose(first);
    rig.advance(100);
    let second = rig.active();
    assert_ne!(rig.broker_of(second), 0);
    // Its link is left once this is answered.
    rig.answers_calls = false;
    rig.send("GetState#1001", "", "g1");
    rig.broker = Broker::Holds;
    rig.notify_state("1001", "READY", None);
    let (number, link, _) = rig.published.last().cloned().unwrap();
    assert_eq!(link, second);
    while rig.active() == second {
        rig.advance(500);
    }
    rig.notify_state("1001", "NOT_READY", None);
    let states = |rig: &Rig| {
        let state = |(_, link, message): &(_, LinkEpoch, Outbound)| match message {
            Outbound::Event { event, .. } => match event.as_ref() {
                ClientEvent::State { user, .. } => Some((*link, user.state.clone())),
                _ => None,
            },
            _ => None,
        };
        rig.published.iter().filter_map(state).collect::<Vec<_>>()
    };
    assert_eq!(states(&rig).last().unwrap().0, second, "it waits");
    rig.input(Input::Published {
        publish: number,
        outcome: PublishOutcome::Confirmed,
    });
    let (link, state) = states(&rig).pop().unwrap();
    assert_eq!((link, state.as_str()), (rig.active(), "NOT_READY"));
}
