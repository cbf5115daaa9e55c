//! Environment variables that are named like keys.

use crate::finding::Finding;
use crate::schema::{self, Key, SCHEMA};

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
        if OTHERS.contains(&variable.as_str()) {
            continue;
        }
        match named(name) {
            Named::Key => {}
            _ if of_service(&variable, &value) => services.push(variable),
            Named::BadIndex(allowed) => {
                let words = "this variable is no key and not used";
                findings.push(Finding::warning(words).key(variable).allowed(allowed));
            }
            Named::No => findings.push(unknown(&variable, name)),
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

/// Whether a variable's name, without what stands before every key, is one that a key has.
enum Named {
    Key,
    /// A number or a group that the key cannot have; what is allowed.
    BadIndex(String),
    No,
}

fn named(given: &str) -> Named {
    let mut bad = None;
    for key in SCHEMA {
        let patterns = std::iter::once(key.name).chain(key.aliases.iter().map(|(alias, _)| *alias));
        for pattern in patterns {
            match named_by(key, pattern, given) {
                Named::Key => return Named::Key,
                Named::BadIndex(allowed) => bad = Some(allowed),
                Named::No => {}
            }
        }
    }
    bad.map_or(Named::No, Named::BadIndex)
}

fn named_by(key: &Key, pattern: &str, given: &str) -> Named {
    let spelled = upper(pattern);
    if key.max_index > 0 {
        let number = given.strip_prefix(spelled.trim_end_matches('N'));
        // As text: one of too many digits is a number, too.
        let digits = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let Some(number) = number.filter(digits) else {
            return Named::No;
        };
        let index = number.parse::<u16>().ok();
        return match index.filter(|n| (1..=key.max_index).contains(n) && number == n.to_string()) {
            Some(_) => Named::Key,
            None => Named::BadIndex(format!("{pattern} with N from 1 to {}", key.max_index)),
        };
    }
    if let Some((before, behind)) = spelled.split_once("NAME") {
        let group = given.strip_prefix(before);
        return match group.and_then(|rest| rest.strip_suffix(behind)) {
            None => Named::No,
            Some(group) if group_named(group).is_some() => Named::Key,
            Some(_) => Named::BadIndex(schema::group_allowed(pattern)),
        };
    }
    let file = || key.kind.is_secret() && given == format!("{}_FILE", upper(key.name));
    match given == spelled || file() {
        true => Named::Key,
        false => Named::No,
    }
}

/// The group whose name is spelled so in a variable: no group's name has an underscore, so that
/// each stands for a dash.
fn group_named(spelled: &str) -> Option<String> {
    let group = spelled.to_ascii_lowercase().replace('_', "-");
    let given = upper(&group) == spelled && schema::is_group(&group);
    given.then_some(group)
}

/// The group that a variable's key is of.
pub(super) fn group_of_variable(variable: &str) -> Option<String> {
    let given = variable.strip_prefix(PREFIX)?;
    let keys = SCHEMA.iter().filter(|key| key.name.contains("NAME"));
    keys.filter_map(|key| {
        let spelled = upper(key.name);
        let (before, behind) = spelled.split_once("NAME")?;
        group_named(given.strip_prefix(before)?.strip_suffix(behind)?)
    })
    .next()
}
