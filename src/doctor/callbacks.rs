//! Queues of HTTP callbacks that exist with other properties than an instance makes them with.

use serde_json::Value;

use super::Report;
use crate::broker::management::segment;
use crate::broker::topology::{BrokerPlan, Topology};
use crate::rest::{Difference, Objects, QUEUE_CURE, listed};
use crate::settings::Settings;

/// So many of a broker are named, those that do not serve first.
const NAMED: usize = 10;

pub(super) async fn look(topology: &Topology, settings: &Settings, report: &mut Report) {
    let rest = settings.rest.as_ref();
    if rest.is_none_or(|rest| rest.callback.is_none()) {
        return;
    }
    let objects = Objects::new(&settings.cluster_name, settings.queue_type);
    for plan in &topology.brokers {
        // A broker that cannot be asked has been told already.
        if let Some(queues) = queues(plan).await {
            compare(&plan.broker.label, &objects, &queues, report);
        }
    }
}

async fn queues(plan: &BrokerPlan) -> Option<Vec<Value>> {
    let vhost = segment(&plan.vhost);
    let columns = "name,type,durable,auto_delete,exclusive,arguments";
    let path = format!("queues/{vhost}?columns={columns}");
    let listed = plan.broker.client().ok()?.get(&path).await.ok()??;
    listed.as_array().cloned()
}

fn compare(label: &str, objects: &Objects, queues: &[Value], report: &mut Report) {
    let part = format!("broker {label}");
    let name = |queue: &Value| queue["name"].as_str().unwrap_or_default().to_owned();
    let all = queues.iter();
    let all = all.filter_map(|queue| Some((name(queue), objects.compared(queue)?)));
    let (odd, same): (Vec<_>, Vec<_>) = all.partition(|(_, differences)| !differences.is_empty());
    if !same.is_empty() {
        report.good(
            part.as_str(),
            format!("{} callback queues are as they are made", same.len()),
        );
    }
    let is_unfit = |all: &[Difference]| all.iter().any(|one| one.unfit().is_some());
    let (unfit, odd): (Vec<_>, Vec<_>) = odd.into_iter().partition(|(_, all)| is_unfit(all));
    let hidden = (unfit.len() + odd.len()).saturating_sub(NAMED);
    let each = unfit.iter().map(|one| (one, true));
    let each = each.chain(odd.iter().map(|one| (one, false)));
    for ((queue, differences), unfit) in each.take(NAMED) {
        let seen = format!(
            "callback queue {queue} exists with other properties: {}",
            listed(differences)
        );
        match unfit {
            true => {
                let why = differences.iter().find_map(Difference::unfit);
                let why = why.unwrap_or_default();
                let seen = format!("{seen}; it does not serve, {why}");
                report.bad(part.as_str(), seen, QUEUE_CURE);
            }
            false => report.warn(
                part.as_str(),
                format!("{seen}; it serves, and is used as it is"),
                format!("right where somebody wanted it so; else {QUEUE_CURE}"),
            ),
        }
    }
    if hidden > 0 {
        report.warn(
            part,
            format!("{hidden} further callback queues exist with other properties"),
            QUEUE_CURE,
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::Verdict;
    use crate::model::brokers::QueueType;

    #[test]
    fn a_queue_of_another_kind_is_named_and_whether_it_serves() {
        let objects = Objects::new("tandem", QueueType::Classic);
        let queue = |name: &str, expires: i64, alone: bool| {
            json!({"name": name, "type": "classic", "durable": true, "auto_delete": false,
                "exclusive": false, "arguments": {"x-queue-type": "classic",
                "x-single-active-consumer": alone, "x-max-length": 10_000,
                "x-max-length-bytes": 67_108_864, "x-expires": expires}})
        };
        let queues = [
            queue("tandem.callback.crm", 21_600_000, true),
            queue("tandem.callback.odd", 60_000, true),
            queue("tandem.callback.bad", 21_600_000, false),
            queue("tandem.events.crm", 1, false),
        ];
        let mut report = Report::default();
        compare("b-1", &objects, &queues, &mut report);
        let found: Vec<_> = report.findings.iter().map(|one| one.verdict).collect();
        assert_eq!(found, [Verdict::Good, Verdict::Bad, Verdict::Warning]);
        assert!(report.findings[1].seen.contains("tandem.callback.bad"));
        assert!(report.findings[1].cure.contains("delete it"));
        let seen = &report.findings[2].seen;
        assert!(
            seen.contains("x-expires is 60000, ours is 21600000"),
            "{seen}"
        );
    }
}
