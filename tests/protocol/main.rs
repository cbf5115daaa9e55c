//! The protocol, command by command and sequence by sequence, in both formats: text arguments with
//! `#` events, JSON arguments with JSON events. Each scenario is written once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod lists;
mod outbound;
mod session;
mod supervisor;
mod talk;

use calls::{blind_transfer, calls, consult, wrap_up};
use lists::{agent_states, lists};
use outbound::outbound;
use session::{mobile, session, takeover};
use supervisor::{supervisor, supervisor_of_a_stranger};
use support::pair::SUPERVISOR;
use support::run;
use talk::{Form, Talk, in_call, options};
use tandem::simulator::Deployment;

/// What the other product does differently: no hold state, one pending change, no mobile agents,
/// no queues, no dropping of participants.
#[test]
fn the_other_product_refuses_what_it_lacks() {
    run(async |shared| {
        let mut options = options(Form::Json);
        options.deployment = Deployment::Uccx;
        let pair = shared.pair(options).await;
        let talk = Talk::open(&pair, Form::Json, "desk-ccx").await;
        talk.sign_in(&[1001, 1002, SUPERVISOR]).await;
        let dialog = in_call(&talk, 1001, 1002).await;
        talk.does("HoldCall#1001", &[&dialog]).await;
        talk.sees("1001 InboundCall HELD").await;
        talk.does("MakeNotReady#1002", &[]).await;
        talk.does("MakeNotReady#1002", &[]).await;
        talk.sees("1002 Error CF_INVALID_AGENT_WORKMODE").await;
        talk.fails(
            "dropparticipant#1001",
            &["7002", &dialog],
            "FAILED",
            "CF_GENERIC_UNSPECIFIED",
        )
        .await;
        talk.fails("getqueuelist#9001", &[], "FAILED", "CF_OBJECT_NOT_KNOWN")
            .await;
        talk.does("Connect#1003", &["desk-ccx", "pw-1003"]).await;
        talk.does(
            "MobileAgentLogin#1003",
            &["pw-1003", "7003", "0699", "false"],
        )
        .await;
        talk.sees("1003 Error CF_GENERIC_UNSPECIFIED").await;
        assert_eq!(talk.count("1001 State HOLD"), 0);
        // Signing out from READY is allowed here.
        talk.does("ReleaseCall#1001", &[&dialog]).await;
        talk.does("MakeReady#9001", &[]).await;
        talk.does("logoutwithreason#9001", &["21"]).await;
        talk.sees("9001 State LOGOUT").await;
    });
}

#[test]
fn a_supervisor_acts_on_a_member_without_a_session() {
    run(async |shared| supervisor_of_a_stranger(shared).await);
}

/// Two tests a scenario, one a form.
macro_rules! both_forms {
    ($($scenario:ident: $text:ident, $json:ident;)*) => {$(
        #[test]
        fn $text() {
            run(async |shared| $scenario(shared, Form::Text).await);
        }

        #[test]
        fn $json() {
            run(async |shared| $scenario(shared, Form::Json).await);
        }
    )*};
}

both_forms! {
    session: session_text, session_json;
    takeover: takeover_text, takeover_json;
    mobile: mobile_text, mobile_json;
    calls: calls_text, calls_json;
    consult: consult_text, consult_json;
    blind_transfer: blind_transfer_text, blind_transfer_json;
    wrap_up: wrap_up_text, wrap_up_json;
    lists: lists_text, lists_json;
    agent_states: agent_states_text, agent_states_json;
    supervisor: supervisor_text, supervisor_json;
    outbound: outbound_text, outbound_json;
}
