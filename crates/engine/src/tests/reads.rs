//! Reads of an agent, and what notifications tell meanwhile.

use super::support::*;
use crate::api::input::{Input, Notice};
use crate::model::{Action, Answer, CallOutcome, Dialog, DialogsVerb, Participant};
use crate::wire::event::{CallPhase, ClientEvent};

fn answer(answer: Answer) -> CallOutcome {
    CallOutcome::Done {
        status: 200,
        answer,
    }
}

fn ringing(rig: &mut Rig) {
    let party = Participant {
        media_address: "2001".into(),
        state: "ALERTING".into(),
        ..Participant::default()
    };
    let dialog = Dialog {
        id: "900".into(),
        from_address: "0612".into(),
        state: "ALERTING".into(),
        participants: vec![party],
        ..Dialog::default()
    };
    rig.notify_dialog("1001", DialogsVerb::Added, dialog);
}

/// A lost subscription is had again, and the agent is being read.
fn read_again() -> Rig {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.advance(1_000);
    rig.answers_calls = false;
    rig.notify(
        "1001",
        Notice::Lost {
            reason: "closed".into(),
            conflict: false,
        },
    );
    rig.advance(500);
    assert_eq!(rig.open_calls.len(), 1);
    rig.forget_published();
    rig
}

fn states(rig: &Rig) -> Vec<String> {
    let told = rig.told("other").into_iter();
    let states = told.filter_map(|event| match event {
        ClientEvent::State { user, .. } => Some(user.state.clone()),
        _ => None,
    });
    states.collect()
}

fn phases(rig: &Rig) -> Vec<CallPhase> {
    let told = rig.told("other").into_iter();
    let phases = told.filter_map(|event| match event {
        ClientEvent::Call(call) => Some(call.phase),
        _ => None,
    });
    phases.collect()
}

fn listed(rig: &Rig) -> Vec<usize> {
    let told = rig.told("other").into_iter();
    let lists = told.filter_map(|event| match event {
        ClientEvent::DialogStatus { dialogs, .. } => Some(dialogs.len()),
        _ => None,
    });
    lists.collect()
}

#[test]
fn what_was_read_before_a_notification_undoes_nothing_of_it() {
    let mut rig = read_again();
    rig.answer(answer(Answer::User(Box::new(user("1001", "READY")))));
    rig.notify_state("1001", "TALKING", None);
    ringing(&mut rig);
    let rung = phases(&rig);
    assert_eq!(rung.len(), 1);
    rig.answer(answer(Answer::Dialogs(Vec::new())));
    assert_eq!(states(&rig), ["TALKING", "TALKING"]);
    assert_eq!(phases(&rig), rung, "it rings still");
    assert_eq!(listed(&rig), [1]);
    assert_eq!(rig.engine.session_views()[0].state, "TALKING");
}

#[test]
fn calls_that_are_read_after_a_notification_are_newer() {
    let mut rig = read_again();
    ringing(&mut rig);
    let rung = phases(&rig).len();
    rig.answer(answer(Answer::User(Box::new(user("1001", "READY")))));
    rig.answer(answer(Answer::Dialogs(Vec::new())));
    assert_eq!(states(&rig), ["READY"]);
    assert!(phases(&rig).len() > rung, "its end was not seen");
    assert_eq!(listed(&rig), [0]);
}

#[test]
fn the_state_that_was_read_is_told_where_the_calls_are_refused() {
    for (state, left) in [("READY", 1), ("LOGOUT", 0)] {
        let mut rig = read_again();
        ringing(&mut rig);
        if state == "LOGOUT" {
            rig.engine.asked_out(&agent("1001"));
        }
        rig.answer(answer(Answer::User(Box::new(user("1001", state)))));
        rig.answer(refused(400));
        assert_eq!(states(&rig), [state]);
        assert_eq!(listed(&rig), [left], "calls of one who is {state}");
    }
}

#[test]
fn notifications_without_end_do_not_put_off_what_a_sign_in_is_told() {
    let mut rig = Rig::leader();
    rig.send("Connect#1001", "other,pw", "c1");
    rig.send("Login#1001", "pw,2001", "l1");
    rig.answers_calls = false;
    for _ in 0..50 {
        rig.notify_state("1001", "NOT_READY", None);
        rig.notify_state("1001", "READY", None);
    }
    let reads = |rig: &Rig| {
        let read = |action: &&Action| matches!(action, Action::ReadUser);
        rig.actions().iter().filter(read).count()
    };
    assert_eq!(reads(&rig), 1);
    let mut read = user("1001", "NOT_READY");
    read.supervisor = true;
    rig.answer(answer(Answer::User(Box::new(read))));
    rig.answer(answer(Answer::Dialogs(Vec::new())));
    assert_eq!(states(&rig), ["READY"]);
    let info = |event: &ClientEvent| matches!(event, ClientEvent::AgentInfo { user, .. } if user.supervisor);
    assert!(rig.told("other").iter().any(info), "what only a read shows");
}

/// A platform that answers no read for a while: what it shows then is told.
#[test]
fn an_agent_is_read_until_its_platform_answers() {
    let mut rig = read_again();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        rig.answer(timed_out());
        let since = rig.mono;
        while rig.open_calls.is_empty() {
            rig.advance(100);
            assert!(rig.mono < since + 60_000, "read no more after {pauses:?}");
        }
        pauses.push(rig.mono - since);
    }
    assert!(
        pauses[..5].iter().all(|pause| *pause <= 2_100),
        "{pauses:?}"
    );
    assert!(pauses.iter().all(|pause| *pause <= 38_000), "{pauses:?}");
    assert!(pauses[7] >= 8_000, "{pauses:?}");
    rig.answer(answer(Answer::User(Box::new(user("1001", "READY")))));
    rig.answer(answer(Answer::Dialogs(Vec::new())));
    assert_eq!(states(&rig), ["READY"]);
}

/// Whose read fails while another instance has the agent, or its session is gone, is not read again.
#[test]
fn an_agent_that_is_not_ours_any_more_is_not_read_again() {
    let mut rig = read_again();
    for _ in 0..5 {
        rig.answer(timed_out());
        rig.advance(2_100);
    }
    let reason = "gone".to_owned();
    rig.notify("1001", Notice::Refused { reason });
    let call = rig.open_calls.remove(0);
    let outcome = timed_out();
    rig.input(Input::CallDone { call, outcome });
    rig.advance(60_000);
    assert!(rig.open_calls.is_empty());
}
