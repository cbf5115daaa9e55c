//! A platform that says 202 first and acts later, and what its notifications belong to.

use super::support::*;
use crate::api::command::Outbound;
use crate::api::input::Notice;
use crate::model::{Action, ApiError, CallOutcome, Dialog, DialogsVerb, Update, UpdateBody};
use crate::peer::{PeerMessage, Role};
use crate::wire::event::ClientEvent;
use crate::wire::reply::Outcome;

fn states(rig: &Rig) -> Vec<String> {
    let told = rig.told("desk").into_iter();
    told.filter_map(|event| match event {
        ClientEvent::State { user, .. } => Some(user.state.clone()),
        _ => None,
    })
    .collect()
}

fn sign_ins(rig: &Rig) -> usize {
    let signs_in = |action: &Action| matches!(action, Action::SignIn { .. });
    rig.actions()
        .iter()
        .filter(|action| signs_in(action))
        .count()
}

/// Connect and Login were sent; the platform has accepted them and done nothing yet.
fn signing_in() -> Rig {
    let mut rig = Rig::leader();
    rig.send("Connect#1001", "desk,pw", "c1");
    rig.send("Login#1001", "pw,2001", "l1");
    rig
}

#[test]
fn a_slow_sign_in_is_waited_for_and_told_once() {
    for seconds in [1, 3, 12, 31] {
        let mut rig = signing_in();
        rig.advance(seconds * 1_000 + 500);
        assert_eq!(states(&rig), [""; 0], "{seconds} s");
        rig.users.insert(agent("1001"), user("1001", "NOT_READY"));
        rig.advance(10_000);
        assert_eq!(states(&rig), ["NOT_READY"], "{seconds} s");
        assert_eq!(sign_ins(&rig), 1);
        let infos = rig.told("desk").into_iter();
        let infos = infos.filter(|event| matches!(event, ClientEvent::AgentInfo { .. }));
        assert_eq!(infos.count(), 1);
    }
}

#[test]
fn the_notification_of_a_slow_sign_in_ends_the_wait_and_an_old_state_does_not() {
    let mut rig = signing_in();
    rig.advance(5_200);
    rig.notify_state("1001", "LOGOUT", None);
    assert_eq!(states(&rig), [""; 0]);
    rig.users.insert(agent("1001"), user("1001", "NOT_READY"));
    rig.notify_state("1001", "NOT_READY", Some("l1"));
    assert_eq!(states(&rig), ["NOT_READY"]);
}

#[test]
fn a_read_that_lags_behind_the_notification_is_no_sign_out() {
    let mut rig = signing_in();
    rig.advance(5_200);
    rig.notify_state("1001", "NOT_READY", Some("l1"));
    rig.users.insert(agent("1001"), user("1001", "NOT_READY"));
    rig.advance(10_000);
    assert_eq!(states(&rig), ["NOT_READY"]);
    assert_eq!(sign_ins(&rig), 1);
}

#[test]
fn a_sign_in_without_any_effect_is_told_in_the_end() {
    let mut rig = signing_in();
    rig.advance(75_000);
    assert_eq!(states(&rig), ["LOGOUT"]);
    assert_eq!(sign_ins(&rig), 1);
}

#[test]
fn a_sign_in_that_is_refused_later_is_no_sign_out() {
    let mut rig = signing_in();
    rig.advance(1_500);
    let refused = UpdateBody::Refused(ApiError::default());
    rig.notify("1001", notice(None, refused));
    rig.advance(70_000);
    assert_eq!(states(&rig), [""; 0]);
    assert_eq!(correlations(&rig, is_error), [Some("corr-l1".to_owned())]);
    assert_eq!(sign_ins(&rig), 1);
}

fn sets(rig: &Rig) -> Vec<&'static str> {
    let actions = rig.actions().into_iter();
    actions
        .filter_map(|action| match action {
            Action::SetState { state, .. } => Some(state),
            _ => None,
        })
        .collect()
}

fn ready() -> Rig {
    let mut rig = Rig::with_agent();
    rig.notify_state("1001", "READY", None);
    rig.forget();
    rig
}

#[test]
fn a_forced_sign_out_waits_until_the_agent_is_not_ready() {
    let mut rig = ready();
    rig.send("force_logout#1001", "", "f1");
    assert_eq!(sets(&rig), ["NOT_READY"]);
    rig.notify_state("1001", "NOT_READY", Some("f1"));
    assert_eq!(sets(&rig), ["NOT_READY", "LOGOUT"]);
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    // Nothing is left that would send it again.
    rig.advance(10_000);
    assert_eq!(sets(&rig).len(), 2);
}

#[test]
fn a_forced_sign_out_goes_on_without_a_notification_and_is_tried_again() {
    let invalid = || CallOutcome::Refused {
        status: 400,
        error: ApiError {
            kind: "Invalid State".into(),
            ..ApiError::default()
        },
    };
    let mut rig = ready();
    rig.answers.extend([done(), invalid(), invalid(), done()]);
    rig.send("force_logout#1001", "", "f1");
    rig.advance(900);
    assert_eq!(sets(&rig), ["NOT_READY"]);
    rig.advance(1_200);
    assert_eq!(sets(&rig), ["NOT_READY", "LOGOUT", "LOGOUT", "LOGOUT"]);
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);

    let mut rig = ready();
    rig.answers.push_back(done());
    rig.answers.extend((0..30).map(|_| invalid()));
    rig.send("force_logout#1001", "", "f1");
    rig.advance(8_000);
    assert_eq!(rig.outcomes(), [Outcome::Failed], "not for ever");
}

// ---- what belongs to which command ------------------------------------------------------------

fn notice(request: Option<&str>, body: UpdateBody) -> Notice {
    Notice::Update(Update {
        request_id: request.map(str::to_owned),
        item_id: None,
        body,
    })
}

fn call(id: &str, from: &str, state: &str) -> Dialog {
    Dialog {
        id: id.into(),
        from_address: from.into(),
        state: state.into(),
        ..Dialog::default()
    }
}

fn tell_call(rig: &mut Rig, request: Option<&str>, dialog: Dialog) {
    let body = UpdateBody::Dialogs {
        verb: DialogsVerb::Changed,
        dialogs: vec![dialog],
    };
    rig.notify("1001", notice(request, body));
}

fn correlations(rig: &Rig, wanted: fn(&ClientEvent) -> bool) -> Vec<Option<String>> {
    let events = rig.published.iter();
    events
        .filter_map(|(.., message)| match message {
            Outbound::Event { event, cause, .. } if wanted(event) => {
                Some(cause.correlation_id.clone())
            }
            _ => None,
        })
        .collect()
}

fn is_error(event: &ClientEvent) -> bool {
    matches!(event, ClientEvent::Error { .. })
}

fn is_state(event: &ClientEvent) -> bool {
    matches!(event, ClientEvent::State { .. })
}

fn is_call(event: &ClientEvent) -> bool {
    !is_error(event) && !is_state(event)
}

fn corr(id: &str) -> Option<String> {
    Some(format!("corr-{id}"))
}

#[test]
fn without_echoed_ids_a_call_belongs_to_the_request_on_it() {
    let mut rig = Rig::with_agent();
    rig.send("AnswerCall#1001", "900", "a");
    rig.send("HoldCall#1001", "901", "b");
    tell_call(&mut rig, None, call("901", "5551", "ACTIVE"));
    tell_call(&mut rig, None, call("900", "5552", "ACTIVE"));
    // Nobody here caused these.
    tell_call(&mut rig, None, call("900", "5552", "HELD"));
    tell_call(&mut rig, None, call("902", "5553", "ALERTING"));
    let told = correlations(&rig, is_call);
    assert_eq!(told[..2], [corr("b"), corr("a")], "{told:?}");
    assert!(
        told.len() > 2 && told[2..].iter().all(Option::is_none),
        "{told:?}"
    );
}

#[test]
fn without_echoed_ids_a_begun_call_is_known_by_the_own_device_until_it_stands() {
    let mut rig = Rig::with_agent();
    rig.send("MakeCall#1001", "5000", "m");
    tell_call(&mut rig, None, call("800", "5559", "ALERTING"));
    let strangers = correlations(&rig, is_call);
    assert!(strangers.iter().all(Option::is_none), "{strangers:?}");
    rig.forget_published();
    for state in ["INITIATING", "INITIATED", "ACTIVE"] {
        tell_call(&mut rig, None, call("801", "2001", state));
    }
    let own = correlations(&rig, is_call);
    assert!(
        own.len() >= 3 && own.iter().all(|id| *id == corr("m")),
        "{own:?}"
    );
    rig.forget_published();
    tell_call(&mut rig, None, call("801", "2001", "HELD"));
    assert!(correlations(&rig, is_call).iter().all(Option::is_none));
}

#[test]
fn a_node_that_echoes_ids_is_believed_when_it_echoes_none() {
    let mut rig = Rig::with_agent();
    rig.send("MakeReady#1001", "", "r1");
    rig.advance(20_000);
    rig.notify_state("1001", "READY", Some("r1"));
    rig.send("MakeNotReady#1001", "", "r2");
    rig.notify_state("1001", "NOT_READY", None);
    assert_eq!(correlations(&rig, is_state), [corr("r1"), None]);
}

#[test]
fn a_refusal_that_comes_later_belongs_to_the_newest_request_and_one_refused_at_once_to_none() {
    let mut rig = Rig::with_agent();
    rig.answers.push_back(refused(400));
    rig.send("HoldCall#1001", "901", "h");
    rig.send("MakeReady#1001", "", "r");
    rig.forget_published();
    rig.notify(
        "1001",
        notice(None, UpdateBody::Refused(ApiError::default())),
    );
    tell_call(&mut rig, None, call("901", "5551", "HELD"));
    assert_eq!(correlations(&rig, is_error), [corr("r")]);
    assert!(correlations(&rig, is_call).iter().all(Option::is_none));
}

// ---- who hears of it --------------------------------------------------------------------------

#[test]
fn a_command_of_another_known_client_is_answered_to_that_client() {
    let mut rig = Rig::with_agent();
    rig.sign_in("1002", "boss");
    let mut ask = message("GetState#1001", "", "g1");
    ask.reply_to = Some("boss".into());
    rig.deliver(ask);
    let mut lacks = message("HoldCall#1001", "", "h1");
    lacks.reply_to = Some("boss".into());
    rig.deliver(lacks);
    let mut nonsense = message("Fly#1001", "", "n1");
    nonsense.reply_to = Some("boss".into());
    rig.deliver(nonsense);
    let told = rig.told("boss");
    assert!(told.iter().any(is_state), "{told:?}");
    assert_eq!(
        told.iter().filter(|event| is_error(event)).count(),
        2,
        "{told:?}"
    );
    assert_eq!(rig.told("desk"), []);
    // It has no queue of that name: where an event has told it, there is nothing for people to look
    // at.
    rig.broker = Broker::Returns;
    let parked = |rig: &Rig| {
        let parked = |message: &Outbound| matches!(message, Outbound::ParkedReply { .. });
        let all = rig.published.iter();
        all.filter(|(.., message)| parked(message)).count()
    };
    let ask = |rig: &mut Rig, kind: &str, id: &str, to: &str| {
        let mut ask = message(kind, "", id);
        ask.reply_to = Some(to.into());
        let id = rig.deliver(ask);
        assert!(rig.acks.contains(&id));
        parked(rig)
    };
    assert_eq!(ask(&mut rig, "GetState#1001", "g2", "boss"), 0);
    assert_eq!(ask(&mut rig, "MakeReady#1001", "r1", "boss"), 0);
    assert_eq!(ask(&mut rig, "MakeReady#1001", "r2", "nobody"), 1);
    // What it asks wrongly is answered as what it asks well: it may have a queue of that name.
    rig.broker = Broker::Confirms;
    let replies = |rig: &Rig| rig.replies().len();
    let before = replies(&rig);
    ask(&mut rig, "HoldCall#1001", "h2", "boss");
    ask(&mut rig, "MakeNotReady#1001", "n2", "boss");
    assert_eq!(replies(&rig), before + 2);
    ask(&mut rig, "HoldCall#1001", "h3", "desk");
    assert_eq!(
        replies(&rig),
        before + 2,
        "its own client is told by events"
    );
}

/// An instance that was frozen goes on with what it had begun: another one owns the agent, and may
/// have done a newer command of it.
#[test]
fn a_request_of_a_former_owner_is_not_made_again() {
    for moved in [false, true] {
        let mut config = config();
        config.mode = crate::api::config::Mode::ActiveActive;
        let mut rig = Rig::new(config);
        rig.start();
        rig.peer_beat(1, Role::Leader, 100);
        rig.peer_snapshot();
        let mut seq = 1;
        rig.advance_with_peer(1_500, &mut seq, Role::Leader, 100);
        rig.sign_in("1001", "desk");
        rig.advance_with_peer(500, &mut seq, Role::Leader, 100);
        rig.answers_calls = false;
        rig.send("MakeReady#1001", "", "m1");
        let made = rig.actions().len();
        if moved {
            rig.peer(
                "gc-2",
                PeerMessage::Delta {
                    sessions: vec![Rig::record("1001", "gc-2", 900)],
                    destinations: Vec::new(),
                    outcomes: Vec::new(),
                },
            );
        }
        rig.answer(timed_out());
        let again = rig.actions().len() - made;
        assert_eq!(again, usize::from(!moved));
        if moved {
            rig.advance(2_000);
            assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
        }
    }
}
