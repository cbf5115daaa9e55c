//! Downstream nodes, doubt, subscriptions.

use super::support::*;
use crate::Event;
use crate::api::input::Input;
use crate::api::input::Notice;
use crate::model::Action;
use crate::peer::Role;
use crate::view::StandingView;
use crate::wire::event::{ClientEvent, SystemStatus};
use crate::wire::reply::Outcome;

#[test]
fn an_unsafe_request_that_timed_out_is_in_doubt_and_tries_no_second_node() {
    let mut rig = Rig::with_agent();
    rig.answers.push_back(timed_out());
    rig.send("MakeCall#1001", "5000", "m1");
    assert_eq!(rig.outcomes(), [Outcome::InDoubt]);
    assert_eq!(rig.calls.len(), 1);
}

#[test]
fn an_idempotent_request_that_timed_out_is_tried_once_more() {
    let mut rig = Rig::with_agent();
    rig.answers.extend([timed_out(), timed_out(), timed_out()]);
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Failed]);
    let nodes: Vec<usize> = rig.calls.iter().map(|c| c.node).collect();
    assert_eq!(nodes, [0, 1]);
}

#[test]
fn what_was_not_sent_goes_to_the_secondary_also_when_unsafe() {
    let mut rig = Rig::with_agent();
    rig.answers.push_back(not_sent());
    rig.send("MakeCall#1001", "5000", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    let nodes: Vec<usize> = rig
        .calls
        .iter()
        .filter(|c| matches!(c.action, Action::MakeCall { .. }))
        .map(|c| c.node)
        .collect();
    assert_eq!(nodes, [0, 1]);
    rig.advance(1_000);
    assert_eq!(
        rig.subscribed.last().map(|(.., node)| *node),
        Some(1),
        "subscriptions follow"
    );
}

#[test]
fn both_down_tells_everyone_and_stops_consuming_and_service_comes_back() {
    let mut rig = Rig::with_agent();
    rig.send("Hello#watcher", "", "h1");
    rig.forget();
    rig.nodes = vec![unreachable(), unreachable()];
    rig.advance(6_000);
    for desk in ["desk", "watcher"] {
        let out = ClientEvent::System(SystemStatus::OutOfService);
        let told = rig.told(desk);
        assert_eq!(told.iter().filter(|event| **event == out).count(), 1);
    }
    assert!(rig.consumers.is_empty());
    rig.forget();
    rig.nodes = vec![unreachable(), in_service()];
    rig.advance(6_000);
    assert!(
        rig.told("desk")
            .contains(&ClientEvent::System(SystemStatus::InService))
    );
    assert_eq!(rig.consumers.len(), 1);
    rig.forget();
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.outcomes(), [Outcome::Accepted]);
    assert_eq!(rig.calls.last().unwrap().node, 1);
}

#[test]
fn what_the_agents_did_while_there_was_no_service_is_read() {
    let mut rig = Rig::with_agent();
    rig.nodes = vec![unreachable(), in_service()];
    rig.advance(6_000);
    rig.nodes = vec![unreachable(), unreachable()];
    rig.advance(6_000);
    rig.users.insert(agent("1001"), user("1001", "READY"));
    rig.forget();
    rig.calls.clear();
    // The same node is back; the subscription never went.
    rig.nodes = vec![unreachable(), in_service()];
    rig.advance(6_000);
    assert!(rig.subscribed.is_empty());
    assert_eq!(rig.actions(), [Action::ReadUser, Action::ReadDialogs]);
    let told = rig.told("desk");
    let state = |event: &ClientEvent| matches!(event, ClientEvent::State { user, .. } if user.state == "READY");
    assert!(told.iter().any(state), "{told:?}");
    let status = |event: &ClientEvent| matches!(event, ClientEvent::DialogStatus { .. });
    assert!(told.iter().any(status), "{told:?}");
}

#[test]
fn commands_wait_for_service_until_their_deadline() {
    let mut rig = Rig::with_agent();
    rig.nodes = vec![unreachable(), unreachable()];
    rig.advance(6_000);
    rig.forget();
    rig.send("MakeReady#1001", "", "m1");
    assert!(rig.calls.is_empty());
    rig.advance(31_000);
    assert_eq!(rig.outcomes(), [Outcome::Expired]);
}

#[test]
fn a_lost_subscription_is_had_again_and_what_was_missed_is_read() {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.advance(1_000);
    rig.calls.clear();
    let before = rig.subscribed.len();
    rig.notify(
        "1001",
        Notice::Lost {
            reason: "closed".into(),
            conflict: true,
        },
    );
    rig.advance(1_000);
    assert_eq!(rig.subscribed.len(), before + 1);
    assert_eq!(rig.actions(), [Action::ReadUser, Action::ReadDialogs]);
    assert!(rig.events.iter().any(|e| matches!(
        e,
        Event::SubscriptionLost {
            kind: "conflict",
            ..
        }
    )));
}

#[test]
fn an_unreachable_service_is_tried_with_growing_delays_and_on_the_other_node() {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.notifications = Notifications::Unreachable;
    rig.subscribed.truncate(1);
    rig.notify(
        "1001",
        Notice::Lost {
            reason: "closed".into(),
            conflict: false,
        },
    );
    rig.advance(60_000);
    let tries = rig.subscribed.len() - 1;
    assert!((5..=60).contains(&tries), "{tries} tries in a minute");
    assert!(rig.subscribed.iter().any(|(.., node)| *node == 1));
    rig.notifications = Notifications::Up;
    rig.advance(10_000);
    assert!(rig.engine.session_views()[0].subscribed);
}

/// Both services are gone, and the requests are answered: neither node is the better one.
#[test]
fn without_notifications_at_either_node_the_instance_does_not_move_to_and_fro() {
    let mut rig = Rig::with_agent();
    let agents: Vec<String> = (1002..1042).map(|n| n.to_string()).collect();
    for agent in &agents {
        rig.sign_in(agent, "desk");
    }
    rig.forget();
    rig.notifications = Notifications::Unreachable;
    for agent in &agents {
        rig.notify(
            agent,
            Notice::Lost {
                reason: "closed".into(),
                conflict: false,
            },
        );
    }
    rig.advance(120_000);
    let count = |wanted: fn(&Event) -> bool| rig.events.iter().filter(|e| wanted(e)).count();
    let moves = count(|event| matches!(event, Event::DownstreamFailover { .. }));
    assert!((2..=10).contains(&moves), "{moves} moves in two minutes");
    let started = count(|event| matches!(event, Event::TakeoverStarted { .. }));
    assert!(started <= moves, "{started} takeovers of {moves} moves");
    for event in &rig.events {
        if let Event::TakeoverStarted { agents, .. } = event {
            assert!(*agents <= 41, "{agents} of 41 agents");
        }
    }
    // Sooner or later where one of them is back, and nobody is forgotten.
    rig.notifications = Notifications::Up;
    rig.advance(10_000);
    assert!(
        rig.engine
            .session_views()
            .iter()
            .all(|view| view.subscribed)
    );
}

#[test]
fn a_password_that_is_refused_later_is_told_and_not_tried_for_ever() {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.notifications = Notifications::Refuses;
    let before = rig.subscribed.len();
    rig.notify(
        "1001",
        Notice::Lost {
            reason: "closed".into(),
            conflict: false,
        },
    );
    rig.advance(60_000);
    assert_eq!(rig.subscribed.len(), before + 1);
    assert!(
        rig.told("other")
            .iter()
            .any(|e| matches!(e, ClientEvent::Error { code, .. } if code == "SUBSCRIPTION_FAILED"))
    );
}

#[test]
fn late_answers_are_counted_and_ignored() {
    let mut rig = Rig::with_agent();
    rig.input(Input::CallDone {
        call: crate::api::ids::CallId(424_242),
        outcome: done(),
    });
    assert_eq!(rig.events, [Event::Stale { what: "call" }]);
}

#[test]
fn a_sign_out_that_was_accepted_is_not_undone_by_reading_the_agent_again() {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.send("Logout#1001", "", "o1");
    rig.users.insert(agent("1001"), user("1001", "LOGOUT"));
    rig.calls.clear();
    // The notification of the sign-out is lost with the subscription.
    rig.notify(
        "1001",
        Notice::Lost {
            reason: "closed".into(),
            conflict: false,
        },
    );
    rig.advance(2_000);
    assert!(
        !rig.actions()
            .iter()
            .any(|action| matches!(action, Action::SignIn { .. })),
        "signed in behind the client's back"
    );
}

fn application(available: bool) -> Notice {
    Notice::Update(crate::model::Update {
        request_id: None,
        item_id: None,
        body: crate::model::UpdateBody::Application { available },
    })
}

fn signs_in(rig: &Rig) -> usize {
    let sign_in = |action: &&Action| matches!(action, Action::SignIn { .. });
    rig.actions().iter().filter(sign_in).count()
}

/// A subscription that `Rig::notify` knows, and nothing recorded.
fn connected() -> Rig {
    let mut rig = Rig::with_agent();
    rig.send("Connect#1001", "other,pw", "c2");
    rig.advance(1_000);
    rig.calls.clear();
    rig
}

/// The platform's own notification of a state, with a reason's code.
fn platform_state(rig: &mut Rig, state: &str, code: &str) {
    let mut user = user("1001", state);
    user.reason_code = code.into();
    rig.notify_user("1001", user);
}

#[test]
fn a_node_whose_application_has_gone_is_left_though_its_status_is_good() {
    let mut rig = connected();
    rig.notify("1001", application(false));
    rig.advance(500);
    assert_eq!(rig.subscribed.last().map(|(.., node)| *node), Some(1));
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.calls.last().unwrap().node, 1);
    // Nobody hears of the first node any more: its status decides again, after a while.
    assert_eq!(rig.engine.view().downstreams[0].state, "down");
    rig.advance(20_000);
    assert_eq!(rig.engine.view().downstreams[0].state, "up");
}

#[test]
fn with_both_applications_gone_there_is_no_service_until_one_is_back() {
    let mut rig = connected();
    rig.nodes[1] = unreachable();
    rig.advance(11_000);
    rig.notify("1001", application(false));
    let out = ClientEvent::System(SystemStatus::OutOfService);
    assert!(rig.told("other").contains(&out));
    rig.advance(60_000);
    assert!(
        rig.consumers.is_empty(),
        "its status alone brings no service"
    );
    rig.notify("1001", application(true));
    rig.advance(1_000);
    let back = ClientEvent::System(SystemStatus::InService);
    assert!(rig.told("other").contains(&back));
}

#[test]
fn an_agent_that_the_platform_signs_out_is_signed_in_again_unseen() {
    let mut rig = connected();
    let told = rig.told("other").len();
    platform_state(&mut rig, "LOGOUT", "255");
    assert_eq!(signs_in(&rig), 1);
    assert_eq!(rig.told("other").len(), told, "the client sees no sign-out");
    platform_state(&mut rig, "NOT_READY", "");
    assert_eq!(rig.engine.session_views()[0].state, "NOT_READY");
}

#[test]
fn where_that_does_not_last_the_client_is_told() {
    let mut rig = connected();
    platform_state(&mut rig, "LOGOUT", "255");
    platform_state(&mut rig, "LOGOUT", "255");
    assert_eq!(signs_in(&rig), 1);
    let out = |event: &ClientEvent| matches!(event, ClientEvent::State { user, .. } if user.state == "LOGOUT");
    assert!(rig.told("other").iter().any(out));
}

#[test]
fn a_sign_in_again_that_is_refused_is_told_with_the_state() {
    let mut rig = connected();
    rig.answers.push_back(refused(401));
    rig.users.insert(agent("1001"), user("1001", "LOGOUT"));
    platform_state(&mut rig, "LOGOUT", "255");
    rig.advance(100);
    let told = rig.told("other");
    assert!(
        told.iter()
            .any(|e| matches!(e, ClientEvent::Error { code, .. } if code == "Unauthorized"))
    );
    assert!(
        told.iter()
            .any(|e| matches!(e, ClientEvent::State { user, .. } if user.state == "LOGOUT"))
    );
    rig.advance(60_000);
    assert_eq!(
        signs_in(&rig),
        1,
        "wrong credentials are not tried for ever"
    );
}

#[test]
fn a_sign_out_by_somebody_else_is_a_sign_out() {
    for code in ["999", "33", ""] {
        let mut rig = connected();
        platform_state(&mut rig, "LOGOUT", code);
        assert_eq!(signs_in(&rig), 0, "{code}");
        assert_eq!(rig.engine.session_views()[0].state, "LOGOUT");
    }
    // Asked for here; its notification is quicker than the answer.
    let mut rig = connected();
    rig.answers_calls = false;
    rig.send("Logout#1001", "", "o1");
    platform_state(&mut rig, "LOGOUT", "255");
    assert_eq!(signs_in(&rig), 0);
}

/// Connected, at the node that is left since the other one is gone.
fn moved() -> Rig {
    let mut rig = connected();
    rig.nodes[0] = unreachable();
    rig.advance(12_000);
    assert_eq!(rig.subscribed.last().map(|(.., node)| *node), Some(1));
    rig.advance(10_000);
    rig.calls.clear();
    rig
}

#[test]
fn a_sign_out_that_somebody_has_requested_is_not_the_node_that_was_left() {
    let mut rig = moved();
    rig.notify_state("1001", "LOGOUT", Some("o7"));
    assert_eq!(
        signs_in(&rig),
        0,
        "at the other side of a cut, as it may be"
    );
}

#[test]
fn the_node_that_was_left_may_sign_out_late() {
    let mut rig = moved();
    platform_state(&mut rig, "LOGOUT", "");
    assert_eq!(signs_in(&rig), 1, "it was the former node's doing");
    platform_state(&mut rig, "NOT_READY", "");
    rig.advance(200_000);
    rig.calls.clear();
    platform_state(&mut rig, "LOGOUT", "");
    assert_eq!(signs_in(&rig), 0, "that long after it is somebody's wish");
}

#[test]
fn a_state_that_the_platform_does_not_know_changes_nothing() {
    let mut rig = connected();
    let told = rig.told("other").len();
    platform_state(&mut rig, "UNKNOWN", "");
    platform_state(&mut rig, "", "");
    assert_eq!(rig.told("other").len(), told);
    rig.advance(40_000);
    assert!(
        rig.engine.session_views()[0].subscribed,
        "it is still signed in"
    );
}

#[test]
fn a_pending_state_is_told_with_the_state() {
    let mut rig = connected();
    let mut talking = user("1001", "TALKING");
    talking.pending_state = "NOT_READY".into();
    rig.notify_user("1001", talking);
    assert!(rig.told("other").iter().any(|event| matches!(event,
        ClientEvent::State { user, .. } if user.state == "TALKING" && user.pending_state == "NOT_READY")));
}

#[test]
fn what_only_the_primary_serves_is_asked_there() {
    let mut rig = connected();
    rig.nodes[0] = unreachable();
    rig.advance(12_000);
    rig.nodes[0] = in_service();
    rig.advance(6_000);
    rig.calls.clear();
    rig.answers.push_back(refused(403));
    rig.send("GetTeamPhonebooks#1001", "12", "p1");
    let nodes: Vec<usize> = rig.calls.iter().map(|call| call.node).collect();
    assert_eq!(nodes, [1, 0]);
    assert_eq!(rig.outcomes().last(), Some(&Outcome::Ok));
    // The primary's own word is the last.
    rig.forget();
    rig.answers.extend([refused(403), refused(403)]);
    rig.send("GetTeamPhonebooks#1001", "12", "p2");
    assert_eq!(rig.calls.len(), 2);
    assert_eq!(rig.outcomes(), [Outcome::Failed]);
}

#[test]
fn reasons_are_read_of_the_team_where_the_platform_has_none_of_the_agent() {
    let mut rig = connected();
    let mut known = user("1001", "NOT_READY");
    known.team.id = "12".into();
    rig.notify_user("1001", known);
    for status in [404, 501] {
        rig.forget();
        rig.answers.push_back(refused(status));
        rig.send("wrapupreasoncode#1001", "", &format!("r{status}"));
        let actions = rig.actions();
        assert!(
            matches!(&actions[..], [Action::ReadReasons(_), Action::ReadTeamReasons { team, .. }] if team == "12"),
            "{actions:?}"
        );
        assert_eq!(rig.outcomes(), [Outcome::Ok]);
    }
}

#[test]
fn requests_of_one_agent_never_run_side_by_side() {
    let mut rig = connected();
    rig.answers_calls = false;
    rig.send("MakeReady#1001", "", "m1");
    rig.send("MakeNotReady#1001", "", "m2");
    rig.send("MakeCall#1001", "5000", "m3");
    for open in 1..=3 {
        assert_eq!(rig.calls.len(), open);
        assert_eq!(rig.open_calls.len(), 1);
        rig.answer(done());
    }
    assert!(rig.open_calls.is_empty());
}

#[test]
fn new_credentials_are_proven_and_then_used() {
    let mut rig = connected();
    rig.send("Connect#1001", "other,new-pw", "c3");
    rig.calls.clear();
    rig.send("MakeReady#1001", "", "m1");
    assert_eq!(rig.calls.last().unwrap().password.expose(), "new-pw");
}

#[test]
fn a_node_is_shown_by_its_base_url_and_its_name_here_and_by_the_peers() {
    let rig = Rig::leader();
    let nodes = rig.engine.view().downstreams;
    let first = (nodes[0].url.as_str(), nodes[0].host.as_str());
    assert_eq!(first, ("http://f0/api", "f0"));
    let mut told = rig.engine.standing(0);
    assert_eq!(StandingView::from(&told).downstreams, nodes);
    // An older instance tells the name only.
    told.downstreams[1].base.clear();
    let old = &StandingView::from(&told).downstreams[1];
    assert_eq!((old.url.as_str(), old.host.as_str()), ("f1", "f1"));
}

#[test]
fn streams_that_are_all_lost_at_once_are_had_again_at_the_rate_of_a_takeover() {
    let mut rig = Rig::leader();
    let names: Vec<String> = (0..100).map(|n| format!("2{n:03}")).collect();
    for name in &names {
        rig.sign_in(name, "desk");
    }
    let lost = || Notice::Lost {
        reason: "the service has ended".into(),
        conflict: false,
    };
    rig.forget();
    rig.notify(&names[0], lost());
    rig.advance(160);
    assert_eq!(rig.subscribed.len(), 1, "one alone does not wait");
    rig.advance(1_000);
    rig.forget();
    for name in &names {
        rig.notify(name, lost());
    }
    let mut most = 0;
    for _ in 0..40 {
        let before = rig.subscribed.len();
        rig.advance(50);
        most = most.max(rig.subscribed.len() - before);
    }
    let rate = usize::try_from(rig.config.takeover_rate).unwrap();
    assert_eq!(rig.subscribed.len(), names.len());
    assert!(most <= rate * 2 * 50 / 1_000, "{most} in 50 ms");
}

#[test]
fn a_sign_in_with_new_credentials_brings_a_refused_subscription_back() {
    let mut rig = connected();
    rig.notifications = Notifications::Refuses;
    let reason = "closed".into();
    let conflict = false;
    rig.notify("1001", Notice::Lost { reason, conflict });
    rig.advance(5_000);
    rig.notifications = Notifications::Up;
    rig.forget();
    rig.advance(30_000);
    assert!(rig.subscribed.is_empty());
    rig.send("Login#1001", "new,2001", "l2");
    rig.advance(100);
    assert_eq!(rig.subscribed.len(), 1);
}

#[test]
fn a_connect_in_the_place_of_a_lost_subscription_reads_the_agent() {
    let mut rig = connected();
    let reason = "closed".into();
    let conflict = false;
    rig.notify("1001", Notice::Lost { reason, conflict });
    rig.send("Connect#1001", "third,pw", "c3");
    rig.advance(1_000);
    assert_eq!(rig.actions(), [Action::ReadUser, Action::ReadDialogs]);
    rig.calls.clear();
    rig.send("Connect#1001", "fourth,pw", "c4");
    rig.advance(1_000);
    assert!(rig.calls.is_empty(), "nothing was missed");
}

#[test]
fn who_stands_by_has_no_subscriptions_at_the_other_node_either() {
    let mut config = config();
    config.priority = 100;
    let mut rig = Rig::new(config);
    let record = Rig::record("1001", "gc-1", 5);
    rig.engine.restore(vec![record], Vec::new(), 5);
    rig.start();
    let mut seq = 1;
    rig.peer_beat(seq, Role::Leader, 127);
    rig.peer_snapshot();
    rig.advance_with_peer(2_000, &mut seq, Role::Leader, 127);
    assert_eq!(rig.role(), Role::Follower);
    rig.nodes[0] = unreachable();
    rig.advance_with_peer(20_000, &mut seq, Role::Leader, 127);
    assert_eq!(rig.engine.view().downstreams[0].state, "down");
    assert!(rig.subscribed.is_empty());
}
