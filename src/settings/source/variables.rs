//! Environment variables that are named like keys.

use crate::settings::finding::Finding;
use crate::settings::schema::{self, Key, SCHEMA};

/// A warning for a variable that looks like a key and is none. What Kubernetes sets for a service
/// of the name `tandem` (`TANDEM_SERVICE_HOST`, `TANDEM_PORT_…`) is left alone.
pub fn unknown_variable(variable: &str) -> Option<Finding> {
    /// Not keys: what builds for tests read.
    const OTHERS: &[&str] = &["TANDEM_FAILPOINT"];
    let given = variable.strip_prefix("TANDEM_")?;
    let foreign = given.contains("SERVICE_") || format!("_{given}_").contains("_PORT_");
    if known_variable(given) || foreign || OTHERS.contains(&variable) {
        return None;
    }
    let message = match schema::nearest(&given.to_ascii_lowercase().replace('_', ".")) {
        Some(near) => format!(
            "this variable is no key and not used; did you mean TANDEM_{}?",
            upper(&near)
        ),
        None => "this variable is no key and not used".to_owned(),
    };
    Some(Finding::warning(message).key(variable))
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
