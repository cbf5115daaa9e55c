//! What is left in the engine's tables: nothing, once all is well and nobody asks for anything.

use crate::Engine;

impl Engine {
    /// Tables that should be empty at rest: their names, and how much is in each.
    #[must_use]
    pub fn left_over(&self) -> [(&'static str, usize); 5] {
        [
            ("requests under way", self.calls.len()),
            ("requests held back", self.jobs.parked_len()),
            ("agents given away", self.agents.yielding.len()),
            ("subscriptions awaited", self.agents.takeover.awaited()),
            ("entries owed to members", self.book.owed_len()),
        ]
    }
}
