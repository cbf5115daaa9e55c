//! Standard error, written by a thread of its own: who logs never waits for whoever reads it.
//!
//! A pipe that nobody reads takes 64 KiB and then nothing more. What waits for it is bounded; what
//! finds no room is dropped and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Bytes that wait to be written; more are dropped.
const ROOM: usize = 4 << 20;
/// Lines that wait to be written; more are dropped.
const LINES: usize = 32_768;
/// How long the end of the process waits until all is written.
const LAST: Duration = Duration::from_secs(1);

/// That of the process, where its thread was started.
static STDERR: OnceLock<Arc<Queue>> = OnceLock::new();

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A line is on its way.
    writing: bool,
    /// Lines dropped since somebody asked.
    dropped: u64,
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.lines.len() >= LINES || waiting.bytes + line.len() > ROOM {
            waiting.dropped += 1;
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.to_vec());
        self.changed.notify_all();
    }

    /// The next line; waits for one.
    fn next(&self) -> Vec<u8> {
        let mut waiting = self.waiting();
        loop {
            waiting.writing = false;
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.writing = true;
                return line;
            }
            // Who waits for the end of it all.
            self.changed.notify_all();
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes for ever.
    fn write(&self, mut out: impl Write) {
        loop {
            // As ever with a log: where it cannot be written, nobody can be told.
            let _ = out.write_all(&self.next());
        }
    }

    /// Waits until all is written, at most so long. Whether it is.
    fn drained(&self, limit: Duration) -> bool {
        let open = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        let waited = self.changed.wait_timeout_while(self.waiting(), limit, open);
        let (_waiting, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }
}

/// Starts the thread, once a process. Without one lines are written by those who log.
pub(super) fn start() {
    let queue = Arc::new(Queue::default());
    let written = Arc::clone(&queue);
    let write = move || written.write(io::stderr());
    let thread = std::thread::Builder::new().name("log".to_owned());
    if thread.spawn(write).is_ok() {
        let _ = STDERR.set(queue);
    }
}

/// Hands on a line; never waits where the thread runs.
pub(super) fn add(line: &[u8]) -> io::Result<()> {
    match STDERR.get() {
        Some(queue) => {
            queue.add(line);
            Ok(())
        }
        None => io::stderr().write_all(line),
    }
}

/// Waits a moment until all is written: the process ends.
pub(super) fn drain() {
    if let Some(queue) = STDERR.get() {
        queue.drained(LAST);
    }
}

/// How many lines were dropped since the last call.
pub(super) fn dropped() -> u64 {
    let queue = STDERR.get();
    queue.map_or(0, |queue| std::mem::take(&mut queue.waiting().dropped))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn started(out: impl Write + Send + 'static) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        let written = Arc::clone(&queue);
        std::thread::spawn(move || written.write(out));
        queue
    }

    #[test]
    fn what_nobody_reads_holds_nobody_up_and_is_bounded_and_counted() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = started(writer);
        let line = [b'x'; 1_024];
        let lines = 3 * ROOM / line.len();
        for _ in 0..lines {
            queue.add(&line);
        }
        assert!(!queue.drained(Duration::from_millis(50)));
        let (bytes, dropped) = {
            let waiting = queue.waiting();
            (waiting.bytes, waiting.dropped)
        };
        assert!(bytes <= ROOM, "{bytes}");
        let dropped = usize::try_from(dropped).unwrap();
        assert!(dropped > lines / 2 && dropped < lines, "{dropped}");
        for _ in 0..2 * LINES {
            queue.add(b"");
        }
        assert!(queue.waiting().lines.len() <= LINES);
        // Somebody reads again: it goes on, in order.
        std::thread::spawn(move || io::copy(&mut { reader }, &mut io::sink()));
        assert!(queue.drained(PATIENCE));
        queue.add(b"last\n");
        assert!(queue.drained(PATIENCE));
    }

    /// Takes everything, and says what.
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn once_it_is_drained_all_is_written_in_order() {
        let page = Arc::new(Mutex::new(Vec::new()));
        let queue = started(Page(Arc::clone(&page)));
        let lines: Vec<String> = (0..1_000).map(|n| format!("{n}\n")).collect();
        for line in &lines {
            queue.add(line.as_bytes());
        }
        assert!(queue.drained(PATIENCE));
        assert_eq!(*page.lock().unwrap(), lines.concat().into_bytes());
    }
}
