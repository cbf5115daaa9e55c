//! I2: every command that a broker took gets a terminal outcome.

use std::collections::BTreeSet;

pub fn judge(accepted: &BTreeSet<String>, replied: &BTreeSet<String>) -> Option<String> {
    let open: Vec<&String> = accepted.difference(replied).collect();
    (!open.is_empty()).then(|| format!("I2: without an answer: {open:?}"))
}
