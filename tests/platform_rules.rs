//! The platform's own rules, where a client sees them: when a node is usable, forced sign-outs,
//! lists that only the primary or only the team's resource has, the block after wrong passwords.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::time::Duration;

use support::pair::is_state;
use support::{Pair, PairOptions, Shared, run, until};
use tandem::simulator::agent::State;
use tandem::simulator::faults::{Fault, Match};

fn options() -> PairOptions {
    PairOptions::default()
        .instances(1)
        .set("downstream.admin-user", "admin")
        .set("downstream.admin-password", "admin")
}

/// The pair that the scenarios share which leave it as it was.
async fn standing(shared: &mut Shared) -> &mut Pair {
    shared.standing(options()).await
}

fn application_gone() -> Fault {
    Fault {
        application_gone: true,
        ..Fault::default()
    }
}

/// The third condition of a usable node: SystemInfo says in service, the notification service
/// stands, and the application behind it is present.
#[test]
fn a_node_is_left_when_its_application_has_gone_and_without_any_there_is_no_service() {
    run(async |shared| {
        let pair = shared.pair(options()).await;
        let desk = pair.desk("desk-presence", 0).await;
        pair.sign_in(&desk, &[1001, 1002]).await;
        assert_eq!(pair.subscribed_at(1001), Some(1));
        pair.fault(1, application_gone());
        until("both agents move to the second node", async || {
            [1001, 1002]
                .iter()
                .all(|agent| pair.subscribed_at(*agent) == Some(2) && pair.sessions(*agent) == 1)
        })
        .await;
        desk.clear_events();
        let id = desk.send("MakeReady#1001", "").await;
        let reply = desk.reply(&id).await;
        assert_eq!(reply.field("outcome"), "ACCEPTED", "{}", reply.text);
        desk.event("the state", |m| is_state(m, 1001, "READY"))
            .await;

        // The first node's health as REST shows it stays good all the time.
        pair.fault(
            1,
            Fault {
                refuse: true,
                ..Fault::default()
            },
        );
        until("the first node is down", async || {
            pair.gc1.status().await["downstreams"][0]["state"] == "down"
        })
        .await;
        pair.fault(2, application_gone());
        let system = |status: &'static str| {
            move |m: &tandem::client::Message| {
                m.field("type") == "System" && m.field("status") == status
            }
        };
        desk.event("out of service", system("OUT_OF_SERVICE")).await;
        pair.heal();
        desk.event("in service", system("IN_SERVICE")).await;
        let id = desk.send("MakeNotReady#1001", "").await;
        assert_eq!(desk.reply(&id).await.field("outcome"), "ACCEPTED");
    });
}

/// Signs an agent out as the platform does, with the reason of this code; false where it is out.
fn platform_signs_out(pair: &Pair, agent: u32, code: u32) -> bool {
    let world = pair.simulator.world();
    let agent = world.agent(&agent.to_string()).unwrap();
    let mut state = agent.state.lock().unwrap();
    if state.state == State::Logout {
        return false;
    }
    let reason = tandem::simulator::reasons::system(code, "LOGOUT", "so said the test");
    world.sign_out(agent, &mut state, Some(reason));
    world.publish_user(agent, &state, "");
    true
}

/// An agent without a notification session for too long is signed out by the platform; it is
/// signed in again, and its client is not told of a sign-out that does not last.
#[test]
fn agents_that_the_platform_forced_out_are_signed_in_again() {
    run(async |shared| {
        let mut options = options();
        options.simulator = |config| config.forced_logout_after = Duration::from_millis(300);
        let pair = shared.pair(options).await;
        let desk = pair.desk("desk-forced", 0).await;
        pair.sign_in(&desk, &[1001, 1002]).await;
        desk.clear_events();
        pair.fault_everywhere(&Fault {
            xmpp_down: true,
            ..Fault::default()
        });
        let forced = |agent: u32| {
            let effects = pair.effects(agent);
            effects.iter().filter(|e| e.kind == "FORCED_LOGOUT").count()
        };
        until("the platform has signed both out", async || {
            [1001, 1002].iter().all(|agent| forced(*agent) == 1)
        })
        .await;
        pair.heal();
        for agent in [1001, 1002] {
            until("signed in again", async || pair.state(agent) == "NOT_READY").await;
            desk.event("its state", |m| is_state(m, agent, "NOT_READY"))
                .await;
            desk.event("its calls", |m| {
                m.field("type") == "DialogStatus" && m.field("agentId") == agent.to_string()
            })
            .await;
        }
        assert!(!desk.events().iter().any(|m| is_state(m, 1001, "LOGOUT")));

        // The race: the sign-out is carried out after the new session stands.
        let logins = || {
            let effects = pair.effects(1001);
            effects.iter().filter(|e| e.kind == "LOGIN").count()
        };
        desk.clear_events();
        until("not signed in again a moment ago", async || {
            let before = logins();
            if !platform_signs_out(&pair, 1001, 255) {
                return false;
            }
            for _ in 0..50 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if logins() > before {
                    return true;
                }
            }
            // Too soon after the first time: then it is told, and the client signs in.
            let id = desk.send("Login#1001", "pw-1001,7001").await;
            desk.reply(&id).await;
            false
        })
        .await;
        until("and is in again", async || pair.state(1001) == "NOT_READY").await;
        // A supervisor's sign-out is no such thing.
        desk.clear_events();
        assert!(platform_signs_out(&pair, 1001, 999));
        desk.event("told", |m| is_state(m, 1001, "LOGOUT")).await;
        assert_eq!(pair.state(1001), "LOGOUT");
    });
}

/// Phone books and users are the primary's; releases without an agent's own reason lists have the
/// team's.
#[test]
fn lists_are_asked_where_they_are() {
    run(async |shared| {
        let pair = standing(shared).await;
        let desk = pair.desk("desk-lists", 0).await;
        pair.sign_in(&desk, &[1003]).await;
        pair.fault(
            1,
            Fault {
                refuse: true,
                ..Fault::default()
            },
        );
        until("the agent moves", async || {
            pair.subscribed_at(1003) == Some(2)
        })
        .await;
        pair.heal();
        until("the first node is up", async || {
            pair.gc1.status().await["downstreams"][0]["state"] == "up"
        })
        .await;
        desk.clear_events();
        let id = desk.send("GetTeamPhonebooks#1003", "1").await;
        let reply = desk.reply(&id).await;
        assert_eq!(reply.field("outcome"), "OK", "{}", reply.text);
        desk.event("the books", |m| m.text.contains("Partners"))
            .await;
        pair.fault_everywhere(&Fault {
            status: Some(404),
            matching: Match {
                path: Some("/User/1003/WrapUpReasons".to_owned()),
                ..Match::default()
            },
            ..Fault::default()
        });
        let id = desk.send("wrapupreasoncode#1003", "").await;
        let reply = desk.reply(&id).await;
        assert_eq!(reply.field("outcome"), "OK", "{}", reply.text);
        desk.event("the reasons", |m| {
            m.field("type") == "ReasonCodes" && m.text.contains("Call back")
        })
        .await;
        pair.heal();
    });
}

/// Five wrong passwords block an agent at the platform. The connector adds none of its own, tells
/// of the block, and after it the right password works.
#[test]
fn five_wrong_passwords_block_and_the_connector_adds_none() {
    run(async |shared| {
        let mut options = options();
        options.simulator = |config| config.lockout_for = Duration::from_secs(3);
        let pair = shared.pair(options).await;
        let desk = pair.desk("desk-wrong", 0).await;
        let connect = async |password: &str| {
            let body = format!("desk-wrong,{password}");
            let id = desk.send("Connect#1004", body).await;
            desk.reply(&id).await
        };
        for _ in 0..4 {
            let reply = connect("wrong").await;
            assert_eq!(reply.error_code(), "SUBSCRIPTION_FAILED", "{}", reply.text);
        }
        // Four, and not one more.
        let reply = connect("pw-1004").await;
        assert_eq!(reply.field("outcome"), "OK", "{}", reply.text);
        let id = desk.send("force_logout#1004", "").await;
        desk.reply(&id).await;
        for _ in 0..5 {
            let reply = connect("wrong").await;
            assert_eq!(reply.error_code(), "SUBSCRIPTION_FAILED", "{}", reply.text);
        }
        until("the block ends", async || {
            connect("pw-1004").await.field("outcome") == "OK"
        })
        .await;
    });
}

/// Real platforms answer 202 at once and act seconds later. Until then nobody is told of a sign-out,
/// nothing is asked twice, and a forced sign-out does not stop halfway.
#[test]
fn a_platform_that_acts_later_signs_in_once_and_out_for_good() {
    run(async |shared| {
        let options = PairOptions {
            simulator: |config| config.effect_delay = Duration::from_millis(2_500),
            ..options()
        };
        let pair = shared.pair(options).await;
        let desk = pair.desk("desk-later", 0).await;
        pair.sign_in(&desk, &[1001]).await;
        let told = desk.events();
        let signed_out = told.iter().find(|m| is_state(m, 1001, "LOGOUT"));
        assert!(signed_out.is_none(), "{told:?}");
        desk.expect("MakeReady#1001", "", "ACCEPTED").await;
        desk.event("ready", |m| is_state(m, 1001, "READY")).await;
        desk.expect("force_logout#1001", "", "ACCEPTED").await;
        desk.event("signed out", |m| is_state(m, 1001, "LOGOUT"))
            .await;
        assert_eq!(pair.state(1001), "LOGOUT");
        let effects = pair.effects(1001);
        let done: Vec<&str> = effects.iter().map(|entry| entry.kind).collect();
        assert_eq!(done, ["LOGIN", "READY", "NOT_READY", "LOGOUT"]);
    });
}
