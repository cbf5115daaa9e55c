//! Groups, and what becomes of their messages.

use lapin::BasicProperties;
use lapin::message::{BasicReturnMessage, Delivery};

use super::refusals::mark;
use super::*;

fn properties(id: Option<&str>) -> BasicProperties {
    let properties = BasicProperties::default();
    match id {
        Some(id) => properties.with_message_id(id.into()),
        None => properties,
    }
}

fn waiting(ids: &[Option<&str>]) -> VecDeque<Entry> {
    let entry = |(number, id): (usize, &Option<&str>)| {
        let message = Message {
            exchange: "".into(),
            key: "q".into(),
            mandatory: true,
            properties: properties(*id),
            body: Vec::new(),
        };
        (PublishId(number as u64), message)
    };
    ids.iter().enumerate().map(entry).collect()
}

fn groups(mut waiting: VecDeque<Entry>) -> Vec<Vec<u64>> {
    let mut groups = Vec::new();
    while !waiting.is_empty() {
        let group = next_group(&mut waiting);
        groups.push(group.iter().map(|(id, _)| id.0).collect());
    }
    groups
}

fn back(id: Option<&str>) -> Answer {
    let mut delivery = Delivery::mock(1, "".into(), "q".into(), false, Vec::new());
    delivery.properties = properties(id);
    Some(Ok(Confirmation::Ack(Some(BasicReturnMessage {
        delivery,
        reply_code: 312,
        reply_text: "NO_ROUTE".into(),
    }))))
}

fn ack() -> Answer {
    Some(Ok(Confirmation::Ack(None)))
}

fn ids(names: &[&str]) -> Vec<Id> {
    let id = |(number, name): (usize, &&str)| (PublishId(number as u64), Some((*name).into()));
    names.iter().enumerate().map(id).collect()
}

fn judged(ids: Vec<Id>, answers: &[Answer]) -> Vec<PublishOutcome> {
    judge(ids, answers).into_iter().map(|(_, o)| o).collect()
}

#[test]
fn only_messages_that_are_told_apart_share_a_channel() {
    let mixed = waiting(&[Some("a"), Some("b"), None, None, Some("c"), Some("c")]);
    assert_eq!(
        groups(mixed),
        [vec![0, 1], vec![2], vec![3], vec![4], vec![5]]
    );
    let names: Vec<String> = (0..=MAX_GROUP).map(|n| n.to_string()).collect();
    let names: Vec<_> = names.iter().map(|name| Some(name.as_str())).collect();
    let sizes: Vec<usize> = groups(waiting(&names)).iter().map(Vec::len).collect();
    assert_eq!(sizes, [MAX_GROUP, 1]);
}

#[test]
fn a_return_counts_for_its_own_message_whoever_carries_it() {
    use PublishOutcome::{Confirmed, Failed, Untaken};
    // The library put both returns on confirms of other messages.
    let answers = [back(Some("c")), back(Some("b")), ack(), ack()];
    assert_eq!(
        judged(ids(&["a", "b", "c", "d"]), &answers),
        [Confirmed, Untaken, Untaken, Confirmed]
    );
    assert_eq!(
        judged(ids(&["a", "b"]), &[back(Some("b")), None]),
        [Confirmed, Failed]
    );
    assert_eq!(judged(vec![(PublishId(0), None)], &[back(None)]), [Untaken]);
}

fn target(exchange: &str, key: &str) -> Target {
    Target {
        exchange: exchange.into(),
        key: key.into(),
    }
}

#[test]
fn only_what_a_refusal_was_about_is_barred() {
    use PublishOutcome::{Barred, Confirmed, Failed, Refused};
    let outcomes = |list: [PublishOutcome; 4]| {
        let ids = (1..).map(PublishId);
        ids.zip(list).collect::<Outcomes>()
    };
    let targets = ["t.replies", "", "t.replies", ""].map(|exchange| target(exchange, exchange));
    let mut told = outcomes([Failed, Failed, Confirmed, Confirmed]);
    mark(&mut told, &targets, Barred, |target| {
        target.exchange.as_str() == "t.replies"
    });
    assert_eq!(told, outcomes([Barred, Failed, Confirmed, Confirmed]));
    let mut told = outcomes([Failed, Failed, Failed, Failed]);
    mark(&mut told, &targets, Refused, |target| {
        target.key.as_str().is_empty()
    });
    assert_eq!(told, outcomes([Failed, Refused, Failed, Refused]));
}
