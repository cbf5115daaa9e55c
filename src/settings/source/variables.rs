//! Environment variables that are named like keys.

use crate::settings::finding::Finding;
use crate::settings::schema::{self, Key, SCHEMA};

/// Before every key.
const PREFIX: &str = "TANDEM_";
/// Not keys: what builds for tests read, and what the command line reads.
const OTHERS: &[&str] = &[
    "TANDEM_FAILPOINT",
    "TANDEM_URL",
    "TANDEM_TOKEN_FILE",
    "TANDEM_CA_FILE",
];
/// Most variables that one warning names.
const NAMED: usize = 3;
/// Protocols of a Service's ports, as URLs and as names have them.
const PROTOCOLS: [(&str, &str); 3] = [("tcp://", "TCP"), ("udp://", "UDP"), ("sctp://", "SCTP")];

/// Whether Kubernetes has made the variable for a Service, as it does in every container of a
/// namespace: for one of the name `tandem-notify` `TANDEM_NOTIFY_SERVICE_HOST`,
/// `TANDEM_NOTIFY_PORT=tcp://10.0.0.7:5223`, `TANDEM_NOTIFY_PORT_5223_TCP_ADDR` and more.
pub(super) fn of_service(variable: &str, value: &str) -> bool {
    let url = PROTOCOLS
        .iter()
        .any(|(scheme, _)| value.starts_with(scheme));
    if (variable.ends_with("_PORT") && url) || variable.ends_with("_SERVICE_HOST") {
        return true;
    }
    // `_SERVICE_PORT`, and the same with the name of a port behind it.
    let port = variable.split_once("_SERVICE_PORT");
    if port.is_some_and(|(_, name)| name.is_empty() || name.starts_with('_')) {
        return true;
    }
    // `_PORT_<number>_<protocol>`, alone and with `_PROTO`, `_PORT` or `_ADDR` behind it.
    variable.match_indices("_PORT_").any(|(at, found)| {
        let mut parts = variable[at + found.len()..].split('_');
        let number = parts.next().is_some_and(|n| n.parse::<u16>().is_ok());
        let protocol = parts.next();
        let known = PROTOCOLS.iter().any(|(_, name)| protocol == Some(name));
        number && known && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
    })
}

/// The warning for what is no setting although a key's variable may have the name.
pub(super) fn passed_over(variables: &str) -> Finding {
    let message = "made by Kubernetes for a Service of a like name: passed over, and no setting \
                   (enableServiceLinks: false in the pod keeps such variables away)";
    Finding::warning(message).key(variables)
}

/// A warning for each variable that looks like a key and is none, and one for all those that
/// Kubernetes has made for Services.
pub fn unknown_variables(given: impl Iterator<Item = (String, String)>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut services = Vec::new();
    for (variable, value) in given {
        let Some(name) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        if known_variable(name) || OTHERS.contains(&variable.as_str()) {
            continue;
        }
        if of_service(&variable, &value) {
            services.push(variable);
        } else {
            findings.push(unknown(&variable, name));
        }
    }
    if !services.is_empty() {
        services.sort_unstable();
        let more = services.len().saturating_sub(NAMED);
        services.truncate(NAMED);
        let more = (more > 0).then(|| format!(" and {more} more"));
        findings.push(passed_over(
            &(services.join(", ") + &more.unwrap_or_default()),
        ));
    }
    findings
}

fn unknown(variable: &str, name: &str) -> Finding {
    let message = match schema::nearest(&name.to_ascii_lowercase().replace('_', ".")) {
        Some(near) => format!(
            "this variable is no key and not used; did you mean TANDEM_{}?",
            upper(&near)
        ),
        None => "this variable is no key and not used".to_owned(),
    };
    Finding::warning(message).key(variable)
}

fn upper(key: &str) -> String {
    key.to_ascii_uppercase().replace(['.', '-'], "_")
}

fn known_variable(given: &str) -> bool {
    let matches = |key: &Key, pattern: &str| {
        let pattern = upper(pattern);
        if key.max_index > 0 {
            let stem = pattern.trim_end_matches('N');
            let index = given.strip_prefix(stem).map(str::parse::<usize>);
            return matches!(index, Some(Ok(n)) if n > 0);
        }
        match pattern.split_once("NAME") {
            Some((before, behind)) => given.starts_with(before) && given.ends_with(behind),
            None => {
                given == pattern || (key.kind.is_secret() && given == format!("{pattern}_FILE"))
            }
        }
    };
    SCHEMA.iter().any(|key| {
        let mut aliases = key.aliases.iter().map(|(alias, _)| *alias);
        matches(key, key.name) || aliases.any(|alias| matches(key, alias))
    })
}
