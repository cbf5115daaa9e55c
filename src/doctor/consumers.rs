//! Who consumes: the brokers' lists against what the instances believe.

use super::patience::Patience;
use super::{Asked, Report};
use crate::broker::proof;
use crate::broker::topology::Topology;
use crate::engine::View;
use crate::engine::view::GroupView;
use crate::network::{BrokerProof, Listed, queue_tag};
use crate::settings::Settings;

pub(super) async fn compare(
    topology: &Topology,
    queues: &[String],
    settings: &Settings,
    (admin, patience): (&impl Asked, Patience),
    report: &mut Report,
) {
    // A consumer that has just been registered, or anew, is not in the brokers' lists yet; so
    // both sides are asked again.
    loop {
        let mut found = Report::default();
        let missing = look(topology, queues, settings, (admin, patience), &mut found).await;
        if !missing || !patience.again().await {
            report.findings.append(&mut found.findings);
            return;
        }
    }
}

/// One look; whether a consumer is missing.
async fn look(
    topology: &Topology,
    queues: &[String],
    settings: &Settings,
    (admin, patience): (&impl Asked, Patience),
    report: &mut Report,
) -> bool {
    let mut proofs = Vec::new();
    for plan in &topology.brokers {
        proofs.push(proof::ask(plan, queues).await);
    }
    let part = format!("instance {}", settings.instance.id);
    let view = match admin.view().await {
        Ok(view) => view,
        Err(why) => {
            report.unreachable(
                part,
                why,
                "start it with `tandem run`, or give its address with --url; versions may differ \
                 by one step only",
            );
            return false;
        }
    };
    if view.instance != settings.instance.id {
        report.bad(
            part,
            format!("{} is the admin API of {}", admin.address(), view.instance),
            "give the address of this configuration's instance with --url",
        );
        return false;
    }
    let peers = view.peers.iter().filter(|peer| peer.state == "alive");
    let others = peers.map(|peer| (peer.instance.as_str(), &peer.standing.groups));
    let own = (view.instance.as_str(), &view.groups);
    let mut missing = false;
    for (instance, groups) in std::iter::once(own).chain(others) {
        for group in groups {
            let queues = queues_of(settings, &group.name);
            missing |= one(instance, (group, queues), &proofs, patience, report);
        }
    }
    prefetch(&view, &proofs, settings, report);
    strangers(&view, &proofs, report);
    for warning in &view.warnings {
        report.warn(part.clone(), warning.clone(), "see docs/troubleshooting.md");
    }
    missing
}

/// One group of one instance, and how many queues it has; whether a consumer of it is missing.
fn one(
    instance: &str,
    (group, queues): (&GroupView, usize),
    proofs: &[BrokerProof],
    patience: Patience,
    report: &mut Report,
) -> bool {
    let part = format!("instance {instance}, group {}", group.name);
    let role = group.role.as_str();
    let (Some(tag), Some(priority), Some(broker)) = (&group.tag, group.priority, &group.broker)
    else {
        report.warn(
            part,
            format!("is {role} and does not consume"),
            "right while it is stopped, drained or without downstream; else see `tandem history`",
        );
        return false;
    };
    // A peer may name the brokers otherwise: then it is the one that lists its consumer.
    let named = proofs.iter().find(|proof| proof.broker == *broker);
    let holds = |proof: &&BrokerProof| proof.consumers.iter().any(|one| one.tag == *tag);
    let proof = named.or_else(|| proofs.iter().find(holds));
    let listed = proof.map(|proof| proof.lists(tag, priority, queues));
    let missing = matches!(listed, Some(Listed::No(_)));
    match listed {
        Some(Listed::Yes) => report.good(
            part,
            format!("{role}: broker {broker} lists {tag} with priority {priority}"),
        ),
        Some(Listed::No(why)) => report.bad(
            part,
            format!(
                "{role} believes to consume as {tag}, but {why} {}",
                patience.words()
            ),
            "a running instance registers it anew within 20 s by itself; if that does not help, \
             stop and start the group",
        ),
        Some(Listed::Unknown) => report.unreachable(
            part,
            format!("whether {tag} is registered cannot be asked on {broker}"),
            "see the finding on that broker's management API",
        ),
        None => report.warn(
            part,
            format!(
                "serves on {broker}, which is not in this configuration's list, and no broker of \
                 the list knows {tag}"
            ),
            "name the same brokers in all property files",
        ),
    }
    missing
}

/// How many queues a group has; one where this file does not know it.
fn queues_of(settings: &Settings, group: &str) -> usize {
    let own = settings.groups.iter().find(|own| own.name == group);
    own.map_or(1, |own| own.queues.len())
}

fn prefetch(view: &View, proofs: &[BrokerProof], settings: &Settings, report: &mut Report) {
    let wanted = u64::from(settings.consumer.prefetch);
    let groups = view
        .groups
        .iter()
        .filter_map(|group| Some((group.tag.as_deref()?, group)));
    let tags: Vec<String> = groups
        .flat_map(|(tag, group)| {
            (0..queues_of(settings, &group.name)).map(|index| queue_tag(tag, index))
        })
        .collect();
    let own = proofs.iter().flat_map(|proof| &proof.consumers);
    for found in own.filter(|consumer| tags.contains(&consumer.tag)) {
        match found.prefetch {
            Some(real) if real != wanted => report.warn(
                format!("instance {}", view.instance),
                format!("{} has prefetch {real}, the file says {wanted}", found.tag),
                "restart the instance: it runs with an older file",
            ),
            _ => {}
        }
    }
}

/// Consumers of the command queues that belong to no instance that is known.
fn strangers(view: &View, proofs: &[BrokerProof], report: &mut Report) {
    let known = |tag: &str| {
        let mut ids = view.peers.iter().map(|peer| peer.instance.as_str());
        let of = |id: &str| {
            tag.strip_prefix(id)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        of(&view.instance) || ids.any(of)
    };
    for proof in proofs {
        for consumer in proof.consumers.iter().filter(|c| !known(&c.tag)) {
            report.warn(
                format!("broker {}", proof.broker),
                format!("{} consumes {} and is no instance of this cluster", consumer.tag, consumer.queue),
                "commands that it takes are not served here: stop it, or give it a queue of its own",
            );
        }
    }
}
