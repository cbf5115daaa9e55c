//! I16: an agent whose last accepted command is a sign-out stays out: nobody signs it in again of
//! its own accord, and when its subscription's time is over there is neither that nor a session.

use tandem_engine::{Engine, limits};

use crate::world::World;

/// After its sign-out, and after a start, the agent's session lingers so long at most, milliseconds.
const GONE_MS: u64 = limits::LOGOUT_LINGER_MS + 4_000;

/// A sign-in that no client asked for is carried out.
pub fn signed_in(world: &World, agent: &str, id: &str, who: &str) -> Option<String> {
    let asked = id
        .strip_prefix(agent)
        .is_some_and(|rest| rest.starts_with(':'));
    let judged = !asked && world.plan.hears_of_sign_outs();
    let out = out_since(world, agent).filter(|_| judged)?;
    let at = world.now;
    Some(format!(
        "I16: {who}@{at} signs {agent} in, who is out since {out}"
    ))
}

fn out_since(world: &World, agent: &str) -> Option<u64> {
    let client = world.clients.iter().find(|client| client.agent == agent)?;
    client.out_since
}

pub fn judge(world: &World) -> Vec<String> {
    let mut bad = Vec::new();
    for client in &world.clients {
        let Some(out) = client.out_since else {
            continue;
        };
        let agent = client.agent.as_str();
        let state = world.platform.state(agent);
        let heard = world.plan.hears_of_sign_outs();
        if state != "LOGOUT" && heard {
            bad.push(format!(
                "I16: {agent} is out since {out} and {state} at the platform"
            ));
        }
        let gone = state == "LOGOUT" || heard;
        if !gone || world.now < out.max(world.plan.healed_at) + GONE_MS {
            continue;
        }
        let holders: Vec<usize> = world.holders(agent).collect();
        let knows = |engine: &Engine| engine.session_views().iter().any(|v| v.agent == agent);
        let known: Vec<bool> = (world.nodes.iter())
            .map(|node| node.engine.as_ref().is_some_and(knows))
            .collect();
        if !holders.is_empty() || known.contains(&true) {
            bad.push(format!(
                "I16: {agent} is out since {out}, subscribed by {holders:?}, known by {known:?}"
            ));
        }
    }
    bad
}
