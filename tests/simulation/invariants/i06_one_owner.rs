//! I6: after healing one leader, one owner and one subscription an agent, equal tables; and where
//! nothing but a handover happens, an agent is never without a subscription: the new owner has
//! its own before the old one lets go.

use tandem_engine::Engine;
use tandem_engine::config::Mode;
use tandem_engine::peer::Role;

use crate::clients::Client;
use crate::plan::{Kind, Plan};
use crate::world::World;

/// What is judged while a run goes on.
#[derive(Debug, Default)]
pub struct Owners {
    one_handover: bool,
    crash_at: Option<u64>,
}

/// An owner that was killed is found lost by then.
const FOUND_MS: u64 = 1_500;

impl Owners {
    pub fn new(plan: &Plan) -> Self {
        let crash = plan.faults.iter().find(|fault| {
            let kind = &fault.kind;
            matches!(kind, Kind::Crash { .. })
        });
        Self {
            one_handover: plan.one_handover(),
            crash_at: crash.map(|fault| fault.at),
        }
    }

    pub fn let_go(&self, who: &str, agent: &str, at: u64) -> Option<String> {
        // What was kept for a new owner goes when its time is over, though that one was killed.
        let killed = |crash: u64| (crash..crash + FOUND_MS).contains(&at);
        let judged = self.one_handover && !self.crash_at.is_some_and(killed);
        judged.then(|| {
            format!("I6: {who}@{at} let go of agent {agent}, and nobody else has a subscription")
        })
    }
}

pub fn judge(world: &World) -> Vec<String> {
    let mut bad = Vec::new();
    bad.extend(roles(world));
    bad.extend(tables(world));
    let here = |client: &&Client| client.out_since.is_none();
    for client in world.clients.iter().filter(here) {
        let holders: Vec<usize> = world.holders(&client.agent).collect();
        let owner = owner_of(world, &client.agent);
        if holders.len() != 1 || Some(holders[0]) != owner {
            let agent = &client.agent;
            bad.push(format!(
                "I6: agent {agent} of owner {owner:?} is subscribed by {holders:?}"
            ));
        }
    }
    bad
}

fn engines(world: &World) -> impl Iterator<Item = &Engine> {
    world.nodes.iter().filter_map(|node| node.engine.as_ref())
}

fn roles(world: &World) -> Option<String> {
    let stopped = |node| world.plan.start_not_kept(node);
    if (0..world.nodes.len()).any(stopped) {
        return None;
    }
    let roles: Vec<Role> = engines(world)
        .map(|engine| engine.view().groups[0].role)
        .collect();
    let well = match world.plan.mode {
        Mode::ActiveActive => roles.iter().all(|role| *role == Role::Leader),
        Mode::ActivePassive => {
            let leader = roles.iter().position(|role| *role == Role::Leader);
            let leaders = roles.iter().filter(|role| **role == Role::Leader).count();
            let followers = roles.iter().filter(|role| **role == Role::Follower).count();
            // The highest priority leads, unless an operator said otherwise.
            let wanted = leader == Some(0) || world.plan.chosen();
            wanted && leaders == 1 && followers + 1 == roles.len()
        }
    };
    (!well || roles.len() != world.nodes.len()).then(|| format!("I6: roles {roles:?}"))
}

fn tables(world: &World) -> Option<String> {
    let mut tables = engines(world).map(|engine| {
        let views = engine.session_views().into_iter();
        views
            .map(|view| (view.agent, view.owner, view.epoch, view.destination))
            .collect::<Vec<_>>()
    });
    let first = tables.next()?;
    let other = tables.find(|table| *table != first)?;
    Some(format!("I6: tables differ: {first:?} and {other:?}"))
}

fn owner_of(world: &World, agent: &str) -> Option<usize> {
    let engine = engines(world).next()?;
    let views = engine.session_views();
    let owner = &views.iter().find(|view| view.agent == agent)?.owner;
    owner
        .strip_prefix("gc-")?
        .parse::<usize>()
        .ok()?
        .checked_sub(1)
}
