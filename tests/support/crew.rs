//! The agents of a test with load, and the pair that serves them.

use std::ops::Range;
use std::sync::Arc;

use super::load::Load;
use super::pair::Instance;
use super::{Desk, Pair, PairOptions, Shared};

/// Consecutive agents from 1001: some make one call each, some change their state, and on the last
/// ones no load is put.
pub struct Crew {
    pub callers: Range<u32>,
    pub others: Range<u32>,
    pub quiet: Range<u32>,
}

impl Crew {
    pub const fn new(callers: u32, others: u32, quiet: u32) -> Self {
        let (second, third) = (1001 + callers, 1001 + callers + others);
        Self {
            callers: 1001..second,
            others: second..third,
            quiet: third..third + quiet,
        }
    }

    pub fn all(&self) -> Vec<u32> {
        (self.callers.start..self.quiet.end).collect()
    }

    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// A settled pair with these agents signed in, by a client at broker 1.
    pub async fn settled(&self, shared: &mut Shared, options: PairOptions) -> (Pair, Arc<Desk>) {
        let pair = shared.pair(options).await;
        let desk = Arc::new(pair.desk("desk", 0).await);
        pair.sign_in(&desk, &self.all()).await;
        pair.owns(&pair.gc1, self.count()).await;
        (pair, desk)
    }

    /// One instance owns them all, and has one subscription each.
    pub async fn served_by(&self, pair: &Pair, instance: &Instance) {
        pair.owns(instance, self.count()).await;
        pair.one_subscription_each(&self.all()).await;
    }

    pub fn load(&self, desk: &Arc<Desk>) -> Load {
        Load::start(
            desk.clone(),
            self.callers.clone().collect(),
            self.others.clone().collect(),
        )
    }
}
