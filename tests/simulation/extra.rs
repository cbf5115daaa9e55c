//! What came to the simulation later: a plan of before has none of it and stays the same run.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// Habits of platform and clients. Drawn by numbers of its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    /// The platform shows the calls that were made, while they last.
    pub calls: bool,
}

impl Extra {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xE87A);
        Self {
            calls: !rng.one_in(4),
        }
    }
}
