use std::sync::Arc;

use super::*;
use crate::model::InstanceId;

fn job() -> Job {
    let raw = Arc::new(RawMessage::default());
    let tag = Arc::new(Tag::of(&raw, None, None));
    Job::arrived(Origin::Orphan, raw, tag, None, None, 0)
}

fn handed() -> Evidence {
    Evidence::HandedOver {
        to: InstanceId::new("gc-2").expect("a name"),
        boot: BootId(1),
        at: 5,
    }
}

#[test]
fn the_drawing_is_followed() {
    let mut job = job();
    for evidence in [
        Evidence::SameIdInWork,
        Evidence::NotOurs { since: 1 },
        handed(),
        handed(),
        Evidence::CameBack { since: 7 },
        Evidence::Ours,
        Evidence::MayHaveRun { since: 8 },
        Evidence::CredentialsAsked,
        Evidence::Said,
    ] {
        let word = evidence.word();
        assert!(job.step(evidence).is_ok(), "{word}: {:?}", job.state());
    }
    assert!(job.is_settled());
}

#[test]
fn what_cannot_follow_is_refused_and_changes_nothing() {
    let mut job = job();
    let refused = job.step(Evidence::IntentHolds).expect_err("no intent");
    let words = (refused.state, refused.evidence);
    assert_eq!(words, ("arrived", "intent holds"));
    assert!(matches!(job.state(), State::Arrived));
    assert!(job.step(handed()).is_err(), "nobody has held it");
    assert!(job.step(Evidence::Said).is_ok());
    for evidence in [
        Evidence::Said,
        Evidence::Ours,
        Evidence::Known,
        Evidence::NotOurs { since: 1 },
        Evidence::MayHaveRun { since: 1 },
    ] {
        assert!(job.step(evidence).is_err(), "it is over");
    }
    assert!(job.is_settled());
}
