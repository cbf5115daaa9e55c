//! The brokers: reached, named apart, on time, set up as planned, links running.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::Report;
use super::patience::Patience;
use crate::broker::management::{ManagementClient, ManagementError, segment};
use crate::broker::probes::{Probes, Wrong};
use crate::broker::topology::{self, BrokerPlan, Setting, Topology, UNKNOWN};
use crate::model::brokers::{
    HASH_CURE, NOT_ONE_CLUSTER_CURE, ONE_CLUSTER_CURE, QueueType, VHOST_CURE, one_cluster,
};
use crate::net::address::each_address;

/// A broker's clock may differ by so much: message times are whole seconds.
const CLOCK: Duration = Duration::from_secs(2);

/// An upstream that is as planned but for the address.
const OTHER_ROUTE: &str = "differs in uri";

/// What to do about a broker that cannot be reached.
const DOWN_CURE: &str = "start the broker, open its port, or correct broker.url.N, broker.username and \
                         broker.password";

/// What to do about a link that is down for no reason that is known here.
const LINK_CURE: &str = "look whether the other broker can be reached from this one, with the user \
                         and URI of the upstream; then run `tandem topology apply --wait`";

pub(super) fn reached(probes: &Probes, report: &mut Report) {
    for broker in probes.brokers() {
        let part = format!("broker {}", broker.label);
        for Wrong { node, why, foreign } in broker.wrong {
            if *foreign {
                let seen = format!("AMQP: its address {node} cannot be used: {why}");
                report.bad(part.clone(), seen, NOT_ONE_CLUSTER_CURE);
                continue;
            }
            report.warn(
                part.clone(),
                format!("AMQP: its address {node} cannot be used: {why}"),
                "start that node, or correct or leave out its address in broker.url.N",
            );
        }
        match broker.problem {
            None => {
                let node = broker
                    .node
                    .map_or(String::new(), |node| format!(" to {node}"));
                report.good(part, format!("AMQP: connected{node}, user accepted"));
            }
            Some(why) => report.unreachable(
                part,
                format!("AMQP: {why}"),
                match broker.nodes {
                    1 => DOWN_CURE.to_owned(),
                    _ => format!("{DOWN_CURE}; nodes of a cluster that has lost its majority refuse too (pause_minority): start the others"),
                },
            ),
        }
    }
}

/// `served`: the command queues and how long lists may be behind, where somebody should consume by
/// now.
pub(super) async fn managed(
    topology: &Topology,
    served: Option<(&[String], Patience)>,
    report: &mut Report,
) {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for plan in &topology.brokers {
        let part = format!("broker {}", plan.broker.label);
        let broker = &plan.broker;
        let client = match broker.client() {
            Ok(client) => client,
            Err(error) => {
                report.bad(part, error.to_string(), "correct the broker.…-file keys");
                continue;
            }
        };
        let overview = match client.get("overview").await {
            Ok(overview) => overview.unwrap_or_default(),
            Err(error) => {
                refused(part, &error, report);
                continue;
            }
        };
        let word = |key: &str| overview[key].as_str().unwrap_or("?").to_owned();
        let version = word("rabbitmq_version");
        report.good(part.clone(), format!("management API: RabbitMQ {version}"));
        let name = word("cluster_name");
        if let Some(why) = topology.queue_type.problem_on(&version) {
            report.bad(
                part.clone(),
                why,
                "upgrade RabbitMQ, or set queue.type=classic",
            );
        }
        if let Some(why) = topology::hash_problem(plan, &overview) {
            report.bad(part.clone(), why, HASH_CURE);
        }
        if let Some(other) = names.insert(name.clone(), plan.broker.label.clone()) {
            report.bad(
                part.clone(),
                one_cluster(&other, &plan.broker.label, &name),
                ONE_CLUSTER_CURE,
            );
        }
        clock(&part, &client, report).await;
        if let Some(why) = topology::vhost_problem(plan).await {
            // All else is missing for that reason.
            report.bad(part, why, VHOST_CURE);
            continue;
        }
        if topology.queue_type == QueueType::Quorum {
            no_majority(&part, plan, &client, report).await;
        }
        planned(&part, plan, report).await;
        judged_links(&part, plan, &version, report);
        if topology.queue_type == QueueType::Quorum {
            lost_track(&part, plan, &version, report);
        }
        if let Some((queues, patience)) = served {
            left_behind(&part, plan, &client, report).await;
            unconsumed(&part, plan, (&client, queues), patience, report).await;
        }
    }
}

fn refused(part: String, error: &ManagementError, report: &mut Report) {
    let cure = match error {
        ManagementError::Unauthorized { .. } => {
            "give the user the tag `management` or correct the user in broker.management-url.N"
        }
        _ => "enable the plug-in rabbitmq_management there, or correct broker.management-url.N",
    };
    report.unreachable(part, error.to_string(), cure);
}

async fn clock(part: &str, client: &ManagementClient, report: &mut Report) {
    let Ok(Some(theirs)) = client.clock().await else {
        return;
    };
    let ours = SystemTime::now();
    let apart = ours
        .duration_since(theirs)
        .unwrap_or_else(|error| error.duration());
    // The other clock is told in whole seconds.
    if apart > CLOCK {
        report.bad(
            part,
            format!("its clock is {} s apart from this machine's", apart.as_secs()),
            "let all machines follow one time service (chrony, ntpd): deadlines are wall-clock times",
        );
    } else {
        report.good(part, "its clock agrees with this machine's");
    }
}

async fn planned(part: &str, plan: &BrokerPlan, report: &mut Report) {
    match topology::missing(plan).await {
        Err(error) => report.bad(
            part,
            error.to_string(),
            "give the user the tag `policymaker` or `administrator` to read policies and parameters",
        ),
        Ok(findings) if findings.is_empty() => report.good(
            part,
            format!(
                "{} queues, {} exchanges, {} policies, {} upstreams are as planned: TTL, \
                 dead-letter key, federation prefetch and reconnect delay included",
                plan.queues.len(),
                plan.exchanges.len(),
                plan.policies.len(),
                plan.upstreams.len()
            ),
        ),
        Ok(findings) => {
            for found in findings {
                if !found.grave {
                    report.warn(
                        part,
                        format!("{}: {}", found.object, found.problem),
                        found.cure,
                    );
                    continue;
                }
                if found.problem == OTHER_ROUTE {
                    report.warn(
                        part,
                        format!("{}: {}", found.object, found.problem),
                        "right where the brokers reach each other by other addresses than the \
                         instances do; else run `tandem topology apply`",
                    );
                    continue;
                }
                report.bad(part, format!("{}: {}", found.object, found.problem), found.cure);
            }
        }
    }
    let links = topology::links_of(plan).await.unwrap_or_default();
    if let Some(unknown) = links.iter().find(|link| link.status == UNKNOWN) {
        let why = unknown.error.as_deref().unwrap_or_default();
        report.bad(
            part,
            format!("its federation links cannot be asked for: {why}"),
            "give the user the tag `monitoring`; enable the plug-in rabbitmq_federation_management; \
             where the broker answers 500, restart the link that hangs",
        );
        return;
    }
    let down = links.iter().filter(|link| !link.is_running());
    let mut all = true;
    for link in down {
        all = false;
        let why = link.error.as_deref().unwrap_or_default();
        let known = topology::explain(why);
        let problem = known.map_or("", |words| words.problem);
        report.bad(
            part,
            format!(
                "link {} from {}: {} {}",
                link.object,
                link.upstream,
                link.status,
                [problem, why].join(" ").trim()
            ),
            known.map_or(LINK_CURE, |words| words.cure),
        );
    }
    if all && !links.is_empty() {
        report.good(part, format!("{} federation links run", links.len()));
    }
}

/// A broker of before 4.0 takes any certificate on a link whose URI does not say how to judge it;
/// later ones refuse such links or judge by the system's authorities.
fn judged_links(part: &str, plan: &BrokerPlan, version: &str, report: &mut Report) {
    let major = version
        .split('.')
        .next()
        .and_then(|n| n.parse::<u32>().ok());
    let unjudged = |setting: &Setting| topology::unjudged(&setting.value["uri"]);
    if major.is_some_and(|major| major < 4) && plan.upstreams.iter().any(unjudged) {
        report.warn(
            part,
            "its links believe whatever certificate the other broker shows",
            "set federation.ca-file to the authorities' file on the brokers' machines and run \
             `tandem topology apply`",
        );
    }
}

/// A cluster that may forget what its links hand over.
fn lost_track(part: &str, plan: &BrokerPlan, version: &str, report: &mut Report) {
    let nodes = each_address(&plan.broker.amqp_uri).len();
    if nodes > 1 && forgets(version) {
        report.warn(
            part,
            format!(
                "RabbitMQ {version}: where the node that leads the command queue is stopped, what a \
                 federation link hands over in that moment may wait for more than ten seconds"
            ),
            "upgrade RabbitMQ to 4.0.6, 4.1.5, 4.2.0 or later",
        );
    }
}

/// Whether a sender that is new to a quorum queue is not told of the next leader: mended in 4.0.6.
fn forgets(version: &str) -> bool {
    let mut parts = version.splitn(3, '.').map(str::trim);
    let first = (parts.next(), parts.next()) == (Some("4"), Some("0"));
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect();
    let patch = parts.next().map(|text| -> String { digits(text) });
    first && patch.is_some_and(|text| text.parse::<u32>().is_ok_and(|patch| patch < 6))
}

/// Quorum queues that give and take nothing, since too few of their members run.
async fn no_majority(
    part: &str,
    plan: &BrokerPlan,
    client: &ManagementClient,
    report: &mut Report,
) {
    let vhost = segment(&plan.vhost);
    let mut still = Vec::new();
    for queue in &plan.queues {
        let path = format!("queues/{vhost}/{}", segment(&queue.name));
        let live = client.get(&path).await.ok().flatten().unwrap_or_default();
        let lacks = minority(&live);
        still.extend(lacks.map(|why| format!("queue {}: {why}", queue.name)));
    }
    if !still.is_empty() {
        let seen = format!("{}; commands are not served there", still.join("; "));
        report.bad(part, seen, "start the other nodes of this cluster");
    }
}

/// Why a queue, as the management API describes it, has no majority; `None` where it has, or is not
/// replicated. The list of members that run is behind where the state tells already.
fn minority(queue: &Value) -> Option<String> {
    let count = |key: &str| queue[key].as_array().map(Vec::len);
    let members = count("members").filter(|_| queue["type"] == "quorum")?;
    let runs = count("online").unwrap_or(members);
    if 2 * runs <= members {
        return Some(format!("{runs} of {members} members run: no majority"));
    }
    let state = queue["state"].as_str()?;
    matches!(state, "minority" | "down")
        .then(|| format!("its state is {state}: no majority of its {members} members runs"))
}

/// What nobody has taken.
async fn left_behind(
    part: &str,
    plan: &BrokerPlan,
    client: &ManagementClient,
    report: &mut Report,
) {
    let vhost = segment(&plan.vhost);
    let cluster = plan
        .exchanges
        .first()
        .and_then(|exchange| exchange.name.strip_suffix(".events"))
        .unwrap_or_default();
    for (name, what, cure) in [
        (
            format!("{cluster}.dead-letter"),
            "dead letters",
            "look at them with `tandem deadletter list` (docs/operations.md, \"Dead letters\"), mend the cause, send them again or throw them away",
        ),
        (
            format!("{cluster}.expired"),
            "expired commands that nobody answers",
            "an instance consumes this queue: is one running and attached to this broker?",
        ),
    ] {
        let path = format!("queues/{vhost}/{}", segment(&name));
        let queue: Value = client.get(&path).await.ok().flatten().unwrap_or_default();
        let count = queue["messages"].as_u64().unwrap_or_default();
        if count > 0 {
            report.warn(part, format!("{count} {what} in {name}"), cure);
        }
    }
}

/// Commands that wait where nobody consumes.
async fn unconsumed(
    part: &str,
    plan: &BrokerPlan,
    (client, queues): (&ManagementClient, &[String]),
    patience: Patience,
    report: &mut Report,
) {
    let vhost = segment(&plan.vhost);
    for name in queues {
        let path = format!("queues/{vhost}/{}", segment(name));
        let waiting = loop {
            let queue: Value = client.get(&path).await.ok().flatten().unwrap_or_default();
            let waiting = queue["messages_ready"].as_u64().unwrap_or_default();
            let consumers = queue["consumers"].as_u64().unwrap_or_default();
            if waiting == 0 || consumers > 0 {
                break 0;
            }
            if !patience.again().await {
                break waiting;
            }
        };
        if waiting > 0 {
            let looked = patience.words();
            report.bad(
                part,
                format!("{waiting} commands wait in {name} and nobody consumes it {looked}"),
                "start an instance; `tandem status` says why one does not consume",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{forgets, minority};

    #[test]
    fn a_queue_without_a_majority_is_told_from_one_that_has_it() {
        let queue = |members: usize, online: usize, state: &str| {
            json!({"type": "quorum", "state": state,
                   "members": vec!["n"; members], "online": vec!["n"; online]})
        };
        for (members, online, state, said) in [
            (3, 1, "minority", "1 of 3 members run: no majority"),
            (3, 1, "running", "1 of 3 members run: no majority"),
            (2, 1, "minority", "1 of 2 members run: no majority"),
            (
                3,
                3,
                "minority",
                "its state is minority: no majority of its 3 members runs",
            ),
            (
                3,
                2,
                "down",
                "its state is down: no majority of its 3 members runs",
            ),
        ] {
            let found = minority(&queue(members, online, state));
            assert_eq!(found.as_deref(), Some(said));
        }
        for (members, online, state) in [(3, 3, "running"), (3, 2, "running"), (1, 1, "running")] {
            assert_eq!(minority(&queue(members, online, state)), None);
        }
        // On one node only; gone.
        assert_eq!(minority(&json!({"type": "classic", "state": "down"})), None);
        assert_eq!(minority(&json!(null)), None);
    }

    #[test]
    fn versions_that_forget_what_links_hand_over_are_known() {
        for old in ["4.0.0", "4.0.5", "4.0.5-rc.1"] {
            assert!(forgets(old), "{old}");
        }
        for fine in ["3.10.8", "4.0.6", "4.0.10", "4.1.0", "4.3.6", "4", "?", ""] {
            assert!(!forgets(fine), "{fine}");
        }
    }
}
