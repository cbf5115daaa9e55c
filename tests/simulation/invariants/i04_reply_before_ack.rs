//! I4: no acknowledgement before the reply is with a broker, or parked.

use std::collections::BTreeSet;

pub fn acked(replied: &BTreeSet<String>, id: &str, by: &str, at: u64) -> Option<String> {
    let early = !replied.contains(id);
    early.then(|| format!("I4: {id} acknowledged by {by}@{at} without a reply"))
}
