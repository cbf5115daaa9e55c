//! The user's rights, before an instance needs them.

use super::Report;
use super::travel::address;
use crate::broker::probes::Probes;
use crate::broker::rights::Needs;
use crate::broker::topology;
use crate::settings::Settings;

/// What to do about a right that is missing.
const CURE: &str =
    "give the user the rights that docs/security.md names: rabbitmqctl set_permissions";

/// What to do about a broker that does not do it for another reason.
const FAILED_CURE: &str = "a broker that answers nothing may have too few of its cluster's nodes, or no \
                           memory or disk left: start the other nodes, look into its log";

pub(super) async fn denied(probes: &Probes, settings: &Settings, report: &mut Report) {
    let denied = probes.denied(&needs(settings), &address()).await;
    for broker in probes.brokers().filter(|broker| broker.problem.is_none()) {
        let part = format!("broker {}", broker.label);
        let mut own = denied
            .iter()
            .filter(|one| one.broker == broker.label)
            .peekable();
        if own.peek().is_none() {
            report.good(
                part.clone(),
                "the user may consume, publish and make a control queue as an instance does",
            );
        }
        for one in own {
            let (words, cure) = match one.refused {
                true => ("the user may not", CURE),
                false => ("an instance could not", FAILED_CURE),
            };
            let seen = format!("{words} {}: {}", one.act, one.why);
            report.bad(part.clone(), seen, cure);
        }
    }
}

fn needs(settings: &Settings) -> Needs {
    let cluster = &settings.cluster_name;
    let exchanges = topology::exchanges(cluster);
    let mut written: Vec<String> = exchanges.into_iter().map(|one| one.name).collect();
    // Replies and dead letters go by their queue's name.
    written.push(String::new());
    let groups = settings.groups.iter();
    let mut read: Vec<String> = groups.flat_map(|group| group.queues.clone()).collect();
    read.push(format!("{cluster}.expired"));
    let instance = settings.instance.id.as_str();
    Needs {
        written,
        read,
        made: topology::control_queue(cluster, instance, "").name,
        bound_to: format!("{cluster}.control"),
    }
}
