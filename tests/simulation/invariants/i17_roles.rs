//! I17: roles come to rest. In active-passive two do not lead side by side for long once all can
//! talk again, and one fault costs few changes of role.

use std::collections::BTreeMap;

use tandem_engine::Event;
use tandem_engine::config::Mode;

use crate::plan::Plan;

/// After the last fault it takes so long until there is one leader, milliseconds.
const HEALED_MS: u64 = 3_000;
/// Two lead side by side for so long at most then: a handover, and what is on its way.
const BOTH_MS: u64 = 500;
/// Changes of role that one fault costs an instance at most.
const CHANGES: u32 = 6;

/// Moves from one downstream node to the other in a run at most.
const MOVES: u32 = 8;

#[derive(Debug, Default)]
pub struct Roles {
    passive: bool,
    judged_from: u64,
    /// Start of the only fault.
    one_fault: Option<u64>,
    leads: BTreeMap<String, bool>,
    /// Since when more than one leads.
    both_since: Option<u64>,
    changes: BTreeMap<String, u32>,
    moves: BTreeMap<String, u32>,
}

impl Roles {
    pub fn new(plan: &Plan) -> Self {
        let one_fault = match plan.faults.as_slice() {
            [fault] => Some(fault.at),
            _ => None,
        };
        Self {
            passive: plan.mode == Mode::ActivePassive,
            judged_from: plan.healed_at + HEALED_MS,
            one_fault,
            ..Self::default()
        }
    }

    pub fn happened(&mut self, who: &str, event: &Event, at: u64) -> Vec<String> {
        if let Event::DownstreamFailover { .. } = event {
            return self.moved(who, at).into_iter().collect();
        }
        let Event::RoleChanged { to, .. } = event else {
            return Vec::new();
        };
        let changes = self.changes.entry(who.to_owned()).or_default();
        if self.one_fault.is_some_and(|fault| at >= fault) {
            *changes += 1;
        }
        let many = *changes == CHANGES + 1;
        let many = many.then(|| format!("I17: one fault, and {who}@{at} changes its role again"));
        self.leads.insert(who.to_owned(), to.leads());
        many.into_iter().chain(self.counted(at)).collect()
    }

    /// An instance went to another node of the downstream.
    fn moved(&mut self, who: &str, at: u64) -> Option<String> {
        let moves = self.moves.entry(who.to_owned()).or_default();
        *moves += 1;
        let many = *moves > MOVES;
        many.then(|| {
            format!("I17: {who}@{at} moves to another downstream node for the {moves}th time")
        })
    }

    /// An instance has ended.
    pub fn ended(&mut self, who: &str, at: u64) -> Option<String> {
        self.leads.remove(who);
        self.counted(at)
    }

    /// How many lead may have changed.
    fn counted(&mut self, at: u64) -> Option<String> {
        let both = self.leads.values().filter(|leads| **leads).count() > 1;
        if both {
            self.both_since.get_or_insert(at);
            return None;
        }
        let since = self.both_since.take()?.max(self.judged_from);
        let long = self.passive && at > since + BOTH_MS;
        long.then(|| format!("I17: two led from {since} to {at}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_engine::peer::Role;

    fn change(to: Role) -> Event {
        Event::RoleChanged {
            group: "agents".into(),
            from: Role::Follower,
            to,
            reason: "test",
        }
    }

    fn roles() -> Roles {
        Roles {
            passive: true,
            judged_from: 1_000,
            one_fault: Some(0),
            ..Roles::default()
        }
    }

    #[test]
    fn two_leaders_for_long_are_found() {
        let mut roles = roles();
        assert!(roles.happened("gc-1", &change(Role::Leader), 0).is_empty());
        assert!(roles.happened("gc-2", &change(Role::Leader), 0).is_empty());
        let wrong = roles.happened("gc-2", &change(Role::Follower), 2_600);
        assert_eq!(wrong.len(), 1);
        assert!(
            roles
                .happened("gc-2", &change(Role::Leader), 3_000)
                .is_empty()
        );
        assert_eq!(roles.ended("gc-2", 3_300), None);
    }

    #[test]
    fn flapping_is_found_once() {
        let mut roles = roles();
        let mut wrong = Vec::new();
        for at in 0..20 {
            wrong.extend(roles.happened("gc-1", &change(Role::Leader), at));
        }
        assert_eq!(wrong.len(), 1);
    }
}
