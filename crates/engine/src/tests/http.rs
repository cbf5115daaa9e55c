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

fn unsettled(status: u16) -> CallOutcome {
    CallOutcome::Unsettled {
        status,
        answer: Box::new(HttpAnswer {
            body: serde_json::json!({"why": status}).into(),
        }),
        reason: format!("HTTP {status}"),
    }
}

#[test]
fn an_answer_that_leaves_it_open_is_passed_on_whatever_the_outcome() {
    let mut rig = leader();
    rig.send("Call#a", POST, "m1");
    rig.answer(unsettled(500));
    // By the command's own word: once more at the other node.
    let again = r#"{"method":"POST","path":"/v1/items","idempotent":true}"#;
    rig.send("Call#a", again, "m2");
    rig.answer(unsettled(500));
    rig.answer(unsettled(302));
    assert_eq!(rig.outcomes(), [Outcome::InDoubt, Outcome::Failed]);
    let replies = rig.replies();
    for ((_, reply), (status, code)) in replies.iter().zip([(500, "IN_DOUBT"), (302, "HTTP_302")]) {
        assert_eq!(reply.status, Some(status));
        assert_eq!(reply.error.as_ref().unwrap().code, code);
        let body = reply.body.as_ref().unwrap();
        assert_eq!(body.as_str(), format!(r#"{{"why":{status}}}"#));
        assert!(reply.downstream.is_some());
    }
    let nodes: Vec<usize> = rig.calls.iter().map(|call| call.node).collect();
    assert_eq!(nodes.len(), 3);
    assert_ne!(nodes[1], nodes[2]);
}

#[test]
fn a_long_body_goes_to_the_client_and_not_into_the_journal() {
    let mut rig = leader();
    rig.send("Call#a", POST, "m1");
    let long = "x".repeat(100_000);
    rig.answer(CallOutcome::Done {
        status: 200,
        answer: Answer::Http(Box::new(HttpAnswer {
            body: serde_json::Value::from(long.as_str()).into(),
        })),
    });
    let body = rig.replies()[0].1.body.clone().unwrap();
    assert_eq!(body.as_str().len(), long.len() + 2);
    let outcomes = rig.journal.iter().filter_map(|(_, write)| match write {
        JournalWrite::Outcome(outcome) => Some(outcome.reply.body.is_some()),
        _ => None,
    });
    assert_eq!(outcomes.collect::<Vec<_>>(), [false]);
}
