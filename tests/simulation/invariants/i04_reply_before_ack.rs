//! I4: no acknowledgement before a broker has confirmed the answer to that delivery, or an earlier
//! definite one to the same command. (What is parked, or put with the dead letters, is an answer,
//! too.)

use std::collections::{BTreeMap, BTreeSet};

/// Confirms that reached the instance which had published.
#[derive(Debug, Default)]
pub struct Confirms {
    /// Commands with a definite answer.
    definite: BTreeSet<String>,
    /// Step of the run at which the newest answer of any kind was confirmed.
    newest: BTreeMap<String, u64>,
}

impl Confirms {
    pub fn confirmed(&mut self, id: &str, definite: bool, step: u64) {
        if definite {
            self.definite.insert(id.to_owned());
        }
        self.newest.insert(id.to_owned(), step);
    }

    /// A delivery that was handed out at a step is acknowledged.
    pub fn acked(&self, id: &str, handed_out: u64, by: &str, at: u64) -> Option<String> {
        let own = || self.newest.get(id).is_some_and(|step| *step >= handed_out);
        let early = !self.definite.contains(id) && !own();
        early.then(|| format!("I4: {id} acknowledged by {by}@{at} before a reply was confirmed"))
    }
}

#[test]
fn an_answer_for_now_to_an_earlier_delivery_is_none_to_this_one() {
    let mut confirms = Confirms::default();
    let early = |confirms: &Confirms| confirms.acked("a:1", 5, "gc-1", 0).is_some();
    assert!(early(&confirms));
    confirms.confirmed("a:1", false, 4);
    assert!(early(&confirms));
    confirms.confirmed("a:1", false, 6);
    assert!(!early(&confirms));
    confirms.confirmed("a:2", true, 1);
    assert!(confirms.acked("a:2", 5, "gc-1", 0).is_none());
}
