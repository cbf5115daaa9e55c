//! Supervisors.

use crate::support::pair::SUPERVISOR;
use crate::support::{Shared, until, wire};
use crate::talk::{Form, Talk, dialog_of, field, in_call, options, pair};

pub async fn supervisor(shared: &mut Shared, form: Form) {
    let pair = pair(shared, form).await;
    let talk = Talk::open(pair, form, "desk-supervisor").await;
    talk.sign_in(&[1018, 1019, SUPERVISOR]).await;
    if form == Form::Text {
        talk.sees_in_order(&[
            "9001 AgentInfo",
            "9001 TeamInfoIDs",
            "9001 TeamInfoNames",
            "9001 State NOT_READY",
        ])
        .await;
    }
    talk.does("getteamusers#9001", &["1", "true"]).await;
    let team = talk.sees("9001 TeamUsersList").await;
    assert!(
        team.text.contains("1018") && team.text.contains("Pervisor"),
        "{}",
        team.text
    );
    until("the team is watched", async || {
        pair.simulator.world().team_watch_count() >= 1
    })
    .await;
    talk.forget();
    talk.does("MakeReady#1018", &[]).await;
    let copy = talk.sees("9001 State READY").await;
    let member = field(form, r#""teamAgentId":"1018""#, "#1018#7018#");
    assert!(copy.text.contains(member), "{}", copy.text);
    talk.does("getteamuserstate#9001", &["1018"]).await;
    let told = field(
        form,
        r#""teamAgentId":"1018""#,
        "9001#TeamMemberStateChanged#1#READY",
    );
    talk.desk
        .event("the member's state", |m| m.text.contains(told))
        .await;
    // With a session of the agent the supervisor's command is the agent's own.
    talk.does("MakeNotReady#1018", &[]).await;
    talk.sees("1018 State NOT_READY").await;

    let main = in_call(&talk, 1018, 1019).await;
    talk.forget();
    talk.does("silentmonitor#9001", &["7018"]).await;
    talk.sees_in_order(&[
        "9001 InboundCall INITIATING",
        "9001 InboundCall INITIATED",
        "9001 InboundCall ACTIVE",
    ])
    .await;
    let passive = talk.sees("1018 NewInboundCall").await;
    assert!(
        passive.text.contains("SUPERVISOR_MONITOR"),
        "{}",
        passive.text
    );
    talk.sees("1018 InboundCall ACTIVE").await;
    let monitor = dialog_of(&passive);
    talk.does("endsilentmonitor#9001", &[&monitor]).await;
    talk.sees("9001 InboundCall DROPPED").await;
    talk.sees("1018 InboundCall DROPPED").await;

    talk.forget();
    talk.does("silentmonitor#9001", &["7018"]).await;
    let monitor = dialog_of(&talk.sees("9001 InboundCall ACTIVE").await);
    talk.forget();
    talk.does("bargein#9001", &["7018", &monitor]).await;
    talk.sees_in_order(&[
        "9001 InboundCall DROPPED",
        "9001 NewInboundCall",
        "9001 InboundCall ACTIVE",
    ])
    .await;
    talk.forget();
    talk.does("dropparticipant#9001", &["7019", &main]).await;
    talk.sees("9001 Control").await;
    talk.sees("1019 InboundCall DROPPED").await;
    talk.does("ReleaseCall#9001", &[&main]).await;
    talk.sees("1018 InboundCall DROPPED").await;
    let kinds: Vec<_> = pair.effects(SUPERVISOR).iter().map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [
            "LOGIN",
            "SILENT_MONITOR",
            "DROP",
            "SILENT_MONITOR",
            "BARGE_CALL",
            "PARTICIPANT_DROP",
            "DROP"
        ]
    );
}

/// A member without a session here: the platform is asked as the supervisor, who is known by the
/// address that the reply goes to.
pub async fn supervisor_of_a_stranger(shared: &mut Shared) {
    let options = options(Form::Json);
    let pair = shared.pair(options).await;
    let mut wire = crate::support::Wire::open(&pair, 0).await;
    let talk = Talk::open(&pair, Form::Json, "desk-boss").await;
    talk.sign_in(&[SUPERVISOR]).await;
    let world = pair.simulator.world().clone();
    let stranger = world.agent("1020").unwrap().clone();
    stranger
        .state
        .lock()
        .unwrap()
        .rest(tandem::simulator::agent::State::Ready, None);
    let command = |kind, id| wire::command(kind, id).with_reply_to("desk-boss".into());
    wire.publish(command("MakeNotReady#1020", "boss-1"), b"")
        .await;
    until("the member is not ready", async || {
        pair.state(1020) == "NOT_READY"
    })
    .await;
    wire.publish(command("Logout#1020", "boss-2"), b"").await;
    until("the member is out", async || pair.state(1020) == "LOGOUT").await;
    // Nobody's client: who asks is not known.
    let queue = wire.exclusive_queue().await;
    let foreign = wire::command("Logout#1020", "boss-3").with_reply_to(queue.as_str().into());
    wire.publish(foreign, b"").await;
    assert_eq!(wire.next(&queue).await.json()["error"]["code"], "RE_LOGIN");
    assert_eq!(wire.other_dead_letters().await.len(), 0);
}
