//! Any sequence of inputs: no panic, no hot loop, everything bounded.

use proptest::prelude::*;

use super::support::*;
use crate::api::ids::{CallId, LinkEpoch, PublishId, SubscriptionEpoch, VerbId};
use crate::api::input::{Input, Notice, PublishOutcome, Source, Verb};
use crate::api::way::Way;
use crate::model::{Answer, CallOutcome, Update, UpdateBody};
use crate::peer::{ForwardRefusal, PeerMessage, Role};

const ROLES: [Role; 6] = Role::ALL;
const KINDS: [(&str, &str); 10] = [
    ("Hello#desk", ""),
    ("Beat#desk", ""),
    ("Connect#1001", "desk,pw"),
    ("Connect#1001", "other,pw"),
    ("Login#1001", "pw,2001"),
    ("MakeCall#1001", "5000"),
    ("MakeReady#1002", ""),
    ("force_logout#1001", ""),
    ("GetState#1001", ""),
    ("Nonsense#1001", "\u{0}"),
];

const WAYS: [Way; 9] = [
    Way::Commands,
    Way::Replies,
    Way::Events,
    Way::Publishing,
    Way::FarReplies,
    Way::Peers,
    Way::ControlQueue,
    Way::Expired,
    Way::DeadLetters,
];

/// One step: a kind of input, with three numbers to choose from.
type Step = (u8, u8, u8, u8);

fn apply(rig: &mut Rig, (kind, a, b, c): Step) {
    let link = LinkEpoch(u64::from(a % 8));
    let (number, peer) = (u64::from(b), ["gc-2", "gc-3", "gc-1"][usize::from(c % 3)]);
    match kind % 25 {
        0 => rig.advance(u64::from(a) * 20 + 1),
        1 => rig.freeze(u64::from(a) * 50),
        2..=4 => {
            let (kind, body) = KINDS[usize::from(a) % KINDS.len()];
            let mut raw = message(kind, body, &format!("m{}", b % 6));
            raw.redelivered = c % 4 == 0;
            raw.relayed = c % 5 == 0;
            let source = if c % 17 == 0 {
                Source::Expired
            } else {
                Source::Commands { group: 0 }
            };
            let on = rig.links.first().map_or(link, |(link, _)| *link);
            rig.deliver_on(on, source, raw);
        }
        5 => rig.input(Input::LinkDown {
            link,
            reason: String::new(),
        }),
        6 => rig.input(Input::LinkUp {
            link,
            node: String::new(),
            cluster: String::new(),
        }),
        7 => {
            if let Some((link, _)) = rig.links.first().copied() {
                rig.lose(link);
            }
        }
        8 => rig.answers_calls = a % 2 == 0,
        9 => {
            if !rig.open_calls.is_empty() {
                rig.answer(
                    [done(), timed_out(), not_sent(), no_room(), refused(404)][usize::from(a % 5)]
                        .clone(),
                );
            }
        }
        10 => rig.input(Input::CallDone {
            call: CallId(number),
            outcome: CallOutcome::Done {
                status: 200,
                answer: Answer::Dialogs(Vec::new()),
            },
        }),
        11 => {
            rig.broker = [
                Broker::Confirms,
                Broker::Holds,
                Broker::Returns,
                Broker::Fails,
                Broker::ClientsAreFull,
            ][usize::from(a % 5)]
        }
        12 => rig.confirm_all(),
        13 => rig.input(Input::Published {
            publish: PublishId(number),
            outcome: [
                PublishOutcome::Untaken,
                PublishOutcome::Failed,
                PublishOutcome::Refused,
                PublishOutcome::Barred,
            ][usize::from(a % 4)],
        }),
        14 => {
            rig.nodes[usize::from(a % 2)] = if b % 2 == 0 {
                in_service()
            } else {
                unreachable()
            };
        }
        15 => {
            rig.notifications = [
                Notifications::Up,
                Notifications::Refuses,
                Notifications::Unreachable,
                Notifications::NoRoom,
                Notifications::Silent,
            ][usize::from(a % 5)];
        }
        16 => {
            let update = Update {
                request_id: None,
                item_id: None,
                body: UpdateBody::User(Box::new(user(
                    "1001",
                    ["READY", "LOGOUT"][usize::from(a % 2)],
                ))),
            };
            let subscription = rig
                .subscribed
                .last()
                .map_or(SubscriptionEpoch(number), |(_, epoch, _)| *epoch);
            let lost = Notice::Lost {
                reason: String::new(),
                conflict: a % 3 == 0,
            };
            rig.input(Input::Notice {
                agent: agent("1001"),
                subscription,
                notice: if c % 2 == 0 {
                    Notice::Update(update)
                } else {
                    lost
                },
            });
        }
        17 | 18 => {
            let mut beat = rig.heartbeat(number, ROLES[usize::from(a) % 6], c);
            beat.groups[0].term = u64::from(a);
            beat.groups[0].eligible = b % 3 != 0;
            rig.peer_boot(peer, u64::from(a % 3), PeerMessage::Heartbeat(beat));
        }
        19 => {
            let group = "agents".to_owned();
            let raw = message("MakeCall#1001", "5000", &format!("m{}", b % 6));
            let record = {
                let mut record = Rig::record("1001", peer, number);
                record.tombstone = a % 2 == 0;
                record
            };
            let message = match a % 9 {
                0 => PeerMessage::Hello,
                1 => PeerMessage::Claim {
                    group,
                    term: number,
                },
                2 => PeerMessage::Grant {
                    group,
                    term: number,
                },
                3 => PeerMessage::Forward { id: number, raw },
                4 => PeerMessage::ForwardDone { id: number },
                5 => PeerMessage::ForwardRefused {
                    id: number,
                    why: ForwardRefusal::Busy,
                },
                6 => PeerMessage::ForwardWithdrawn { id: number },
                7 => PeerMessage::Delta {
                    sessions: vec![record],
                    destinations: vec![destination("far")],
                    outcomes: Vec::new(),
                },
                _ => PeerMessage::Goodbye,
            };
            rig.peer(peer, message);
        }
        20 => rig.input(Input::PeerConsumers {
            link,
            peer: instance(peer),
            count: u32::from(b % 2),
        }),
        21 | 22 => {
            let refused = (usize::from(b % 2), WAYS[usize::from(c) % WAYS.len()]);
            if a % 3 == 0 {
                rig.refused.insert(refused);
            } else {
                rig.refused.remove(&refused);
            }
        }
        23 => {
            let blocked = b % 2 == 0;
            rig.input(Input::LinkBlocked { link, blocked });
        }
        _ => {
            let verb = match a % 7 {
                0 => Verb::GroupStop("agents".into()),
                1 | 2 => Verb::GroupStart("agents".into()),
                3 if b == 0 => Verb::Drain,
                _ => Verb::GroupStart("other".into()),
            };
            rig.input(Input::Operator {
                id: VerbId(1),
                verb,
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_inputs_breaks_it(steps in prop::collection::vec(any::<Step>(), 1..150)) {
        let mut rig = Rig::new(config());
        rig.start();
        for step in steps {
            apply(&mut rig, step);
        }
        // The world is well again: whatever was begun ends.
        rig.broker = Broker::Confirms;
        rig.notifications = Notifications::Up;
        rig.nodes = vec![in_service(), in_service()];
        rig.answers_calls = true;
        rig.confirm_all();
        while !rig.open_calls.is_empty() {
            rig.answer(done());
        }
        rig.advance(60_000);
        rig.input(Input::Shutdown);
        rig.advance(11_000);
        prop_assert!(rig.exited);
    }
}
