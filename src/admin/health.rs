//! Health in one line.

use crate::engine::View;
use crate::engine::peer::Role;
use crate::engine::view::NO_EPOCHS;

/// Ready: served by a broker, with a usable downstream, and leading or standing by in at least
/// one group. A healthy follower is ready. Either way one line.
pub(crate) fn readiness(view: &View) -> Result<String, String> {
    let Some(broker) = view.brokers.iter().find(|broker| broker.attached) else {
        let broken = view.brokers.iter().filter(|b| !b.problem.is_empty());
        let why: Vec<String> = broken
            .map(|b| format!("{}: {}", b.url, b.problem))
            .collect();
        return Err(match why.is_empty() {
            true => "no broker is attached".to_owned(),
            false => format!("no broker is attached: {}", why.join("; ")),
        });
    };
    if broker.unfit {
        return Err(format!("broker {}: {}", broker.url, broker.problem));
    }
    if !view.in_service {
        return Err("no downstream is in service".to_owned());
    }
    let roles: Vec<String> = view
        .groups
        .iter()
        .map(|group| format!("{} {}", group.name, group.role.as_str()))
        .collect();
    let roles = roles.join(", ");
    let leads = view.groups.iter().any(|group| group.role.leads());
    if !leads && view.warnings.iter().any(|warning| warning == NO_EPOCHS) {
        return Err(NO_EPOCHS.to_owned());
    }
    let serves = |role: Role| role.leads() || role == Role::Follower;
    if view.groups.iter().any(|group| serves(group.role)) {
        return Ok(format!("ready: {roles}"));
    }
    let joining = view.groups.iter().any(|group| group.role == Role::Joining);
    if joining && !view.attached {
        return Err("joining: the control queue is not attached yet".to_owned());
    }
    Err(format!("not serving: {roles}"))
}

/// What is asked of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// `leader` or `leader-single-node`.
    Leader,
    /// `follower`.
    Follower,
}

/// Whether this instance has that role in the group; either way one line.
pub(super) fn has_role(view: &View, group: &str, asked: Wanted) -> Result<String, String> {
    let Some(group) = view.groups.iter().find(|g| g.name == group) else {
        let known: Vec<&str> = view.groups.iter().map(|g| g.name.as_str()).collect();
        let known = known.join(", ");
        return Err(format!("there is no group {group:?}; known: {known}"));
    };
    let line = format!("{} {}", group.name, group.role.as_str());
    let fits = match asked {
        Wanted::Leader => group.role.leads(),
        Wanted::Follower => group.role == Role::Follower,
    };
    if fits { Ok(line) } else { Err(line) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::view;

    #[test]
    fn readiness_table() {
        use Role::{Disabled, Draining, Follower, Joining, Leader, LeaderSingleNode};
        for (role, ready) in [
            (Leader, true),
            (LeaderSingleNode, true),
            (Follower, true),
            (Joining, false),
            (Draining, false),
            (Disabled, false),
        ] {
            let mut view = view();
            view.groups[0].role = role;
            let answer = readiness(&view);
            assert_eq!(answer.is_ok(), ready, "{role:?}: {answer:?}");
            let (Ok(line) | Err(line)) = answer;
            assert!(line.contains(role.as_str()), "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut no_broker = view();
        no_broker.brokers[0].attached = false;
        assert_eq!(readiness(&no_broker).unwrap_err(), "no broker is attached");
        let mut no_downstream = view();
        no_downstream.in_service = false;
        let line = readiness(&no_downstream).unwrap_err();
        assert_eq!(line, "no downstream is in service");
        let mut joining = view();
        joining.groups[0].role = Role::Joining;
        joining.attached = false;
        assert!(readiness(&joining).unwrap_err().contains("control queue"));
    }

    #[test]
    fn a_stopped_group_beside_a_serving_one_is_ready() {
        let mut view = view();
        let mut other = view.groups[0].clone();
        other.name = "batch".to_owned();
        other.role = Role::Disabled;
        view.groups.push(other);
        let line = readiness(&view).unwrap();
        assert_eq!(line, "ready: agents leader, batch disabled");
    }

    #[test]
    fn roles_for_load_balancers() {
        let mut view = view();
        assert!(has_role(&view, "agents", Wanted::Leader).is_ok());
        assert!(has_role(&view, "agents", Wanted::Follower).is_err());
        let unknown = has_role(&view, "nope", Wanted::Leader).unwrap_err();
        assert!(unknown.ends_with("known: agents"), "{unknown}");
        view.groups[0].role = Role::LeaderSingleNode;
        assert!(has_role(&view, "agents", Wanted::Leader).is_ok());
        view.groups[0].role = Role::Follower;
        assert!(has_role(&view, "agents", Wanted::Leader).is_err());
        assert!(has_role(&view, "agents", Wanted::Follower).is_ok());
    }
}
