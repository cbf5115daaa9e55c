//! Commands to a generic HTTP downstream.

use super::support::*;
use crate::api::command::JournalWrite;
use crate::limits;
use crate::model::{Action, Answer, CallOutcome, HttpAnswer, HttpPermission};
use crate::wire::reply::Outcome;

const POST: &str = r#"{"method":"POST","path":"/v1/items"}"#;

/// A leader with a generic HTTP downstream.
fn leader() -> Rig {
    let mut config = config();
    config.http = Some(vec![HttpPermission {
        method: "POST".into(),
        prefix: "/v1".into(),
    }]);
    let mut rig = Rig::new(config);
    rig.start();
    rig.advance(5_000);
    rig.forget();
    rig.answers_calls = false;
    rig
}

fn created() -> CallOutcome {
    answer(serde_json::json!({"n": 1}))
}

fn answer(body: serde_json::Value) -> CallOutcome {
    CallOutcome::Done {
        status: 201,
        answer: Answer::Http(Box::new(HttpAnswer { body: body.into() })),
    }
}

#[test]
fn a_long_answer_goes_to_the_client_and_not_to_the_journal() {
    let mut rig = leader();
    rig.send("Call#order:42", POST, "m1");
    rig.answer(answer("x".repeat(limits::REMEMBERED_BODY + 1).into()));
    rig.send("Call#order:42", POST, "m2");
    rig.answer(created());
    let outcomes = rig.journal.iter().filter_map(|(_, write)| match write {
        JournalWrite::Outcome(outcome) => Some(outcome.reply.body.is_some()),
        _ => None,
    });
    assert_eq!(outcomes.collect::<Vec<_>>(), [false, true]);
    let replies = rig.replies();
    assert!(replies.iter().all(|(_, reply)| reply.body.is_some()));
    assert_eq!(replies.len(), 2);
}

#[test]
fn commands_of_one_key_run_in_order_and_a_repeat_is_not_run_again() {
    let mut rig = leader();
    rig.send("Call#order:42/\u{fc} b", POST, "m1");
    rig.send("Call#order:42/\u{fc} b", POST, "m2");
    rig.send("Call#order:43", POST, "m3");
    let sent = |rig: &Rig| {
        let actions = rig.actions();
        let calls = actions
            .iter()
            .filter(|action| matches!(action, Action::Http(_)));
        calls.count()
    };
    assert_eq!(sent(&rig), 2, "one of each key");
    rig.answer(created());
    rig.answer(created());
    assert_eq!(sent(&rig), 3, "the second one of the first key");
    rig.answer(created());
    rig.send("Call#order:42/\u{fc} b", POST, "m1");
    assert_eq!(sent(&rig), 3);
    assert_eq!(rig.outcomes(), [Outcome::Ok; 4]);
    let ids: Vec<_> = rig
        .replies()
        .into_iter()
        .map(|(_, reply)| reply.id)
        .collect();
    assert_eq!(
        ids.iter().filter(|id| *id == "order:42/\u{fc} b").count(),
        3
    );
    assert!(rig.dead_letters().is_empty());
}
