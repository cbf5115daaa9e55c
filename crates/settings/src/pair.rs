//! The checks of two or more files of one cluster.

use std::collections::BTreeSet;

use super::finding::{Finding, Findings};
use super::{HashBy, Loaded, Mode, Settings};

/// Compares the files of one cluster, each with the first, and looks for what must be unique.
pub fn check_pair(all: &[Loaded]) -> Findings {
    let mut findings = Findings::default();
    for (at, second) in all.iter().enumerate() {
        for first in &all[..at] {
            unique(first, second, &mut findings);
        }
        if let Some(first) = all.first().filter(|_| at > 0) {
            same(first, second, &mut findings);
            control_keys(first, second, &mut findings);
            groups(first, second, &mut findings);
            brokers(first, second, &mut findings);
            downstreams(first, second, &mut findings);
            callbacks(first, second, &mut findings);
            sign_keys(first, second, &mut findings);
        }
    }
    findings.sort();
    findings
}

/// A finding that names both files and both values.
fn both(
    finding: fn(String) -> Finding,
    key: &str,
    what: &str,
    a: (&Loaded, &str),
    b: (&Loaded, &str),
) -> Finding {
    let message = format!(
        "{what}: {} in {}, {} in {}",
        a.1,
        a.0.path.display(),
        b.1,
        b.0.path.display()
    );
    finding(message).key(key)
}

fn unique(first: &Loaded, second: &Loaded, findings: &mut Findings) {
    let (a, b) = (&first.settings, &second.settings);
    if a.instance.id == b.instance.id {
        let finding = both(
            Finding::error,
            "instance.id",
            "two instances have the same id",
            (first, &a.instance.id),
            (second, &b.instance.id),
        );
        findings.push(finding.allowed("a different id in each file"));
    }
    if a.mode != Mode::ActivePassive || b.mode != Mode::ActivePassive {
        return;
    }
    for group in &a.groups {
        let priority = |settings: &Settings| {
            let same = |other: &&super::Group| other.name == group.name;
            let own = settings.groups.iter().find(same)?.priority;
            Some(own.unwrap_or(settings.consumer.priority))
        };
        let key = match (group.priority, group.name.as_str()) {
            (None, "agents") => "consumer.priority".to_owned(),
            // Said above.
            (None, _) if a.consumer.priority == b.consumer.priority => continue,
            _ => format!("group.{}.priority", group.name),
        };
        if let (Some(p), Some(q)) = (priority(a), priority(b))
            && p == q
        {
            let finding = both(
                Finding::warning,
                &key,
                "equal priorities in active-passive: whoever comes first leads",
                (first, &p.to_string()),
                (second, &q.to_string()),
            );
            findings.push(finding.allowed("127 for the preferred site, 100 for the other"));
        }
    }
}

/// What must be the same in all files: key and how to show it.
fn same(first: &Loaded, second: &Loaded, findings: &mut Findings) {
    type Show = fn(&Settings) -> String;
    let table: [(&str, Show); 13] = [
        ("cluster.name", |s| s.cluster_name.clone()),
        ("mode", |s| s.mode.as_str().into()),
        ("queue.type", |s| s.queue_type.as_str().into()),
        ("command.hash-exchange", |s| {
            s.hash_exchange.map_or("off", HashBy::as_str).into()
        }),
        ("peer.heartbeat", |s| format!("{:?}", s.peer.heartbeat)),
        ("peer.suspect", |s| format!("{:?}", s.peer.suspect)),
        ("peer.lost", |s| format!("{:?}", s.peer.lost)),
        ("command.max-age", |s| format!("{:?}", s.command_max_age)),
        ("federation.ca-file", |s| {
            shown(s.broker.federation.ca_file.as_ref())
        }),
        ("federation.certificate-file", |s| {
            let own = s.broker.federation.certificate.as_ref();
            shown(own.map(|(certificate, _)| certificate))
        }),
        ("federation.private-key-file", |s| {
            let own = s.broker.federation.certificate.as_ref();
            shown(own.map(|(_, key)| key))
        }),
        ("message.format", |s| {
            format!("{:?}", s.message_format).to_lowercase()
        }),
        ("downstream.kind", |s| {
            format!("{:?}", s.downstream.kind).to_lowercase()
        }),
    ];
    for (key, show) in table {
        let (a, b) = (show(&first.settings), show(&second.settings));
        if a != b {
            let finding = both(Finding::error, key, "it differs", (first, &a), (second, &b));
            findings.push(finding.allowed("the same value in every file of a cluster"));
        }
    }
    let (a, b) = (first.settings.takeback_hold, second.settings.takeback_hold);
    if a != b && first.settings.mode == Mode::ActivePassive {
        findings.push(both(
            Finding::warning,
            "takeback.hold",
            "it differs",
            (first, &format!("{a:?}")),
            (second, &format!("{b:?}")),
        ));
    }
}

/// Events wait as long as only an instance is there that may not post them.
fn callbacks(first: &Loaded, second: &Loaded, findings: &mut Findings) {
    let of = |loaded: &Loaded| {
        let rest = loaded.settings.rest.as_ref();
        let callback = rest.and_then(|rest| rest.callback.as_ref());
        let mut all: Vec<String> = callback.map_or_else(Vec::new, |callback| {
            let places = callback.allow.iter().chain(&callback.url);
            places.cloned().collect()
        });
        all.sort();
        match all.is_empty() {
            true => "none".to_owned(),
            false => all.join(" "),
        }
    };
    let (a, b) = (of(first), of(second));
    if a != b {
        let finding = both(
            Finding::warning,
            "rest.callback.allow.1",
            "events may not be posted to the same places",
            (first, &a),
            (second, &b),
        );
        findings.push(finding.allowed("the same rest.listen and rest.callback keys in every file"));
    }
}

/// Whichever instance posts, the client checks by one key.
fn sign_keys(first: &Loaded, second: &Loaded, findings: &mut Findings) {
    let of = |loaded: &Loaded| {
        let rest = loaded.settings.rest.clone();
        rest.and_then(|rest| rest.callback)
    };
    let (Some(a), Some(b)) = (of(first), of(second)) else {
        return;
    };
    if a.sign_key != b.sign_key {
        let finding = Finding::warning(format!(
            "{} and {} sign posted events with different keys, or one of them with none",
            first.path.display(),
            second.path.display()
        ));
        let finding = finding.key("rest.callback.sign-key");
        findings.push(finding.allowed("the same key in every file of a cluster"));
    }
}

fn shown(path: Option<&String>) -> String {
    path.map_or_else(|| "not set".to_owned(), String::clone)
}

fn control_keys(first: &Loaded, second: &Loaded, findings: &mut Findings) {
    let allowed =
        "the same secret in every file of a cluster, for example from `openssl rand -hex 32`";
    let (a, b) = (&first.settings.control, &second.settings.control);
    let (p, q) = (first.path.display(), second.path.display());
    let finding = match (&a.key, &b.key) {
        (None, None) => Finding::warning(format!(
            "neither {p} nor {q} has one: the instances cannot talk, and the second refuses to start"
        )),
        (Some(_), None) => Finding::error(format!("{p} has one, {q} has none")),
        (None, Some(_)) => Finding::error(format!("{q} has one, {p} has none")),
        (Some(x), Some(y)) if x == y => return,
        // In the middle of a rotation each side knows what the other sends.
        (Some(x), Some(y))
            if a.previous_key.as_ref() == Some(y) || b.previous_key.as_ref() == Some(x) =>
        {
            Finding::warning(format!(
                "it differs between {p} and {q}; control.previous-key bridges that while keys are rotated"
            ))
        }
        (Some(_), Some(_)) => Finding::error(format!("it differs between {p} and {q}")),
    };
    findings.push(finding.key("control.key").allowed(allowed));
}

fn groups(first: &Loaded, second: &Loaded, findings: &mut Findings) {
    let names = |s: &Settings| {
        s.groups
            .iter()
            .map(|g| g.name.clone())
            .collect::<BTreeSet<_>>()
    };
    let (a, b) = (names(&first.settings), names(&second.settings));
    if a != b {
        let list = |all: &BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join(", ");
        let finding = both(
            Finding::error,
            "group.NAME.queues",
            "the groups differ",
            (first, &list(&a)),
            (second, &list(&b)),
        );
        findings.push(finding.allowed("the same group names in every file of a cluster"));
    }
    for group in &first.settings.groups {
        let other = second
            .settings
            .groups
            .iter()
            .find(|other| other.name == group.name);
        let queues = |group: &super::Group| group.queues.iter().cloned().collect::<BTreeSet<_>>();
        if let Some(other) = other.filter(|other| queues(other) != queues(group)) {
            let key = if group.name == "agents" {
                "command.queue".to_owned()
            } else {
                format!("group.{}.queues", group.name)
            };
            let (a, b) = (group.queues.join(", "), other.queues.join(", "));
            let finding = both(
                Finding::error,
                &key,
                "the queues differ",
                (first, &a),
                (second, &b),
            );
            findings.push(finding.allowed("the same queues in every file of a cluster"));
        }
        if let Some(other) = other.filter(|other| other.hash_weight != group.hash_weight)
            && first.settings.hash_exchange.is_some()
        {
            let key = match group.name.as_str() {
                "agents" => "command.hash-weight".to_owned(),
                name => format!("group.{name}.hash-weight"),
            };
            let (a, b) = (group.hash_weight.to_string(), other.hash_weight.to_string());
            let finding = both(
                Finding::error,
                &key,
                "it differs",
                (first, &a),
                (second, &b),
            );
            findings.push(finding.allowed("the same value in every file of a cluster"));
        }
    }
}

/// Whether two entries have an address in common.
fn shares(one: &super::BrokerUrl, other: &super::BrokerUrl) -> bool {
    let mut addresses = one.label.split(',');
    addresses.any(|address| other.label.split(',').any(|theirs| theirs == address))
}

fn brokers(first: &Loaded, second: &Loaded, findings: &mut Findings) {
    let (a, b) = (&first.settings, &second.settings);
    let labels = |s: &Settings| {
        s.broker
            .urls
            .iter()
            .map(|u| u.label.clone())
            .collect::<Vec<_>>()
    };
    let (list_a, list_b) = (labels(a), labels(b));
    let (text_a, text_b) = (list_a.join(", "), list_b.join(", "));
    let mut told = false;
    for url in &a.broker.urls {
        let place = |u: &super::BrokerUrl| {
            let scheme = u.amqp.split("://").next().unwrap_or_default().to_owned();
            // Each side may log in in its own way: behind `?` stands how.
            let place = u.amqp.split('?').next().unwrap_or_default();
            (
                scheme,
                place.rsplit('/').next().unwrap_or_default().to_owned(),
            )
        };
        let other = b.broker.urls.iter().find(|other| shares(url, other));
        if let Some(other) = other.filter(|other| other.label != url.label) {
            let finding = both(
                Finding::error,
                "broker.url.N",
                "one broker is listed with different addresses",
                (first, &url.label),
                (second, &other.label),
            );
            findings.push(finding.allowed("all addresses of a broker in every file, in any order"));
            told = true;
        }
        if let Some(other) = other.filter(|other| place(other) != place(url)) {
            let show = |u: &super::BrokerUrl| {
                format!(
                    "{} with virtual host {}",
                    place(u).0,
                    place(u).1.replace("%2F", "/")
                )
            };
            let what = format!("broker {} is meant in two ways", url.label);
            let finding = both(
                Finding::error,
                "broker.url.N",
                &what,
                (first, &show(url)),
                (second, &show(other)),
            );
            findings.push(finding.allowed("one scheme and virtual host for one broker"));
        }
    }
    let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
    if told {
        // What else differs follows from that.
    } else if set(&list_a) != set(&list_b) {
        let finding = both(
            Finding::warning,
            "broker.url.N",
            "the lists hold different brokers",
            (first, &text_a),
            (second, &text_b),
        );
        findings.push(
            finding.allowed("the same brokers in every file, so that each instance can reach all"),
        );
    } else if list_a.len() > 1 && !a.broker.randomize && !b.broker.randomize {
        let same_first = list_a.first() == list_b.first();
        if a.mode == Mode::ActivePassive && b.mode == Mode::ActivePassive && list_a != list_b {
            let finding = both(
                Finding::warning,
                "broker.url.N",
                "the lists have different orders in active-passive",
                (first, &text_a),
                (second, &text_b),
            );
            findings.push(
                finding
                    .allowed("the same order in every file: priorities count only on one broker"),
            );
        } else if a.mode == Mode::ActiveActive && b.mode == Mode::ActiveActive && same_first {
            let finding = both(
                Finding::warning,
                "broker.url.N",
                "both prefer the same broker in active-active",
                (first, &text_a),
                (second, &text_b),
            );
            findings.push(finding.allowed("each site's own broker first"));
        }
    }
}

fn downstreams(first: &Loaded, second: &Loaded, findings: &mut Findings) {
    let urls = |s: &Settings| {
        s.downstream
            .nodes
            .iter()
            .map(|n| n.url.clone())
            .collect::<Vec<_>>()
    };
    let (a, b) = (urls(&first.settings), urls(&second.settings));
    let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
    if set(&a) != set(&b) {
        let (a, b) = (a.join(", "), b.join(", "));
        let finding = both(
            Finding::warning,
            "downstream.url.N",
            "the downstreams differ",
            (first, &a),
            (second, &b),
        );
        findings.push(
            finding.allowed(
                "the same nodes in every file, so that each instance can serve every agent",
            ),
        );
    }
}
