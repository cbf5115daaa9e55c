//! The journal's thread: everything that waits goes into one transaction.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::engine::command::JournalWrite;
use crate::engine::ids::JournalId;
use crate::engine::steady::Steady;

use super::Told;
use super::file::File;

/// Most writes in one transaction.
const BATCH: usize = 1_024;

/// Between two tries to replace the file after a failure; meanwhile writes fail at once.
const REST: Duration = Duration::from_secs(1);

/// Runs until the queue is closed and empty.
pub(super) fn run(mut file: File, queue: &Receiver<(JournalId, JournalWrite)>, told: &Told) {
    let (clock, mut steady) = (Clock::new(), Steady::default());
    // What is there is as old as the clock says now, and not when the first write comes.
    steady.at(clock.now());
    let mut failed: Option<(Instant, String)> = None;
    while let Ok(first) = queue.recv() {
        #[cfg(feature = "failpoints")]
        crate::failpoints::fail("panic-journal");
        let mut batch = vec![first];
        batch.extend(queue.try_iter().take(BATCH - 1));
        let begun = now();
        let resting = failed.as_ref().filter(|(since, _)| begun < *since + REST);
        let result = match resting {
            Some((_, reason)) => Err(reason.clone()),
            None => {
                let writes: Vec<&JournalWrite> = batch.iter().map(|(_, write)| write).collect();
                let result = file.write(&writes, steady.at(clock.now()));
                failed = result.as_ref().err().map(|why| (now(), why.clone()));
                result
            }
        };
        let ids = batch.iter().map(|(id, _)| *id).collect();
        told(ids, result.err(), begun.elapsed());
    }
}

fn now() -> Instant {
    Instant::now()
}
