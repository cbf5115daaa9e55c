//! A journal whose disk does not answer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Journal;
use crate::database::testing::{Hung, hanging};
use crate::engine::command::JournalWrite;
use crate::engine::ids::JournalId;

/// A journal with a write that hangs until the disk is dropped.
pub(crate) fn on_a_hung_disk(dir: &Path) -> (Journal, Hung) {
    let hangs = Arc::new(AtomicBool::new(false));
    let (opener, disk, reached) = hanging(&hangs);
    let opened = Journal::with(dir, false, 1, Box::new(|_, _, _| {}), opener);
    let (journal, _) = opened.unwrap();
    hangs.store(true, Ordering::SeqCst);
    let write = JournalWrite::Withdraw([1; 16]);
    journal.submit(JournalId(1), write).unwrap();
    // It is in the write.
    reached.recv().unwrap();
    (journal, disk)
}
