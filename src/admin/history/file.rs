//! The file: one JSON object a line, two files of a bounded size, written by a thread of its own.
//!
//! A line that is torn (the process was killed, the disk was full) is passed over when the file is
//! read, and the next one begins behind it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::HistoryEntry;
use crate::data_dir;

/// The newer file.
pub(super) const NAME: &str = "history.jsonl";
/// The file before it.
const FORMER: &str = "history.1.jsonl";
/// Size at which the newer one takes the place of the former, bytes; some 10,000 rows.
const LARGEST: u64 = 2 * 1024 * 1024;
/// Lines on their way to the thread; what finds no room is in memory only, and missed in the file.
const QUEUE: usize = 1_000;
/// Lines that wait for a file that cannot be written; beyond it the oldest is given up.
const WAITING: usize = 5_000;
/// How often a file that cannot be written is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the last lines.
const CLOSING: Duration = Duration::from_secs(1);

/// All whole rows of both files, in the order of their numbers; and how many lines were not whole.
///
/// # Errors
/// Where a file is there and cannot be read.
pub(crate) fn read(dir: &Path) -> io::Result<(Vec<HistoryEntry>, usize)> {
    let mut rows = BTreeMap::new();
    let mut unreadable = 0;
    for name in [FORMER, NAME] {
        let bytes = match tail(&dir.join(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let lines = bytes.split(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.trim_ascii().is_empty()) {
            match serde_json::from_slice::<HistoryEntry>(line) {
                Ok(entry) => {
                    rows.insert(entry.id, entry);
                }
                Err(_) => unreadable += 1,
            }
        }
    }
    Ok((rows.into_values().collect(), unreadable))
}

/// The end of a file, as much as one of ours may have.
fn tail(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut file = File::open(path)?;
    let most = 2 * LARGEST;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Takes lines without waiting.
#[derive(Debug)]
pub(super) struct Writer {
    lines: SyncSender<String>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// `None`, with a warning, where there is no thread for it.
    pub(super) fn start(dir: &Path) -> Option<Self> {
        let (lines, taken) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let mut page = Page::new(dir);
        let thread = std::thread::Builder::new().name("history".to_owned());
        let thread = thread.spawn(move || {
            keep(&mut page, &taken);
            let _ = end.send(());
        });
        match thread {
            Ok(thread) => Some(Self {
                lines,
                ended,
                thread,
            }),
            Err(error) => {
                tracing::warn!(%error, "no thread for the history: it is kept in memory only");
                None
            }
        }
    }

    pub(super) fn add(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            tracing::warn!("history: too many changes wait for the disk: one is not in the file");
        }
    }

    /// Waits a moment for the last line.
    pub(super) fn close(self) {
        drop(self.lines);
        if self.ended.recv_timeout(CLOSING).is_ok() {
            let _ = self.thread.join();
        }
    }
}

/// Until the process ends.
fn keep(page: &mut Page, lines: &Receiver<String>) {
    loop {
        let line = if page.waiting.is_empty() {
            lines.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            lines.recv_timeout(AGAIN)
        };
        let ends = line == Err(RecvTimeoutError::Disconnected);
        page.waiting.extend(line);
        // What came at once is made durable at once.
        page.waiting.extend(lines.try_iter().take(QUEUE));
        while page.waiting.len() > WAITING {
            page.waiting.pop_front();
        }
        page.look_for_it();
        page.write();
        if ends {
            return;
        }
    }
}

/// The newer file, as it is written.
#[derive(Debug)]
struct Page {
    dir: PathBuf,
    file: Option<File>,
    waiting: VecDeque<String>,
    /// It is known that it cannot be written.
    failed: bool,
}

impl Page {
    fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            file: None,
            waiting: VecDeque::new(),
            failed: false,
        }
    }

    /// What was removed or moved away from outside would be written on, for nobody to read.
    fn look_for_it(&mut self) {
        let path = self.dir.join(NAME);
        let Some(file) = &self.file else {
            return;
        };
        if let Ok(false) = is_at(file, &path) {
            self.file = None;
            tracing::warn!(
                file = %path.display(),
                "history: the file was removed or moved from outside; a new one is begun"
            );
        }
    }

    fn write(&mut self) {
        let file = self.dir.join(NAME);
        match self.try_write() {
            Ok(()) if self.failed => {
                self.failed = false;
                tracing::info!(file = %file.display(), "history: the file is written again");
            }
            Ok(()) => {}
            Err(error) => {
                // What is open may be torn, or not be there any more: begun anew.
                self.file = None;
                self.failed = true;
                tracing::warn!(
                    file = %file.display(),
                    %error,
                    waiting = self.waiting.len(),
                    "history: the file cannot be written; tried again"
                );
            }
        }
    }

    fn try_write(&mut self) -> io::Result<()> {
        while let Some(line) = self.waiting.front() {
            let line = format!("{line}\n");
            self.opened(line.len() as u64)?.write_all(line.as_bytes())?;
            self.waiting.pop_front();
        }
        match &self.file {
            Some(file) => file.sync_data(),
            None => Ok(()),
        }
    }

    /// The file, at its end, with room for so many bytes.
    fn opened(&mut self, bytes: u64) -> io::Result<&mut File> {
        let path = self.dir.join(NAME);
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open(&path)?,
        };
        // Also where it was cut short from outside.
        let full = file.seek(SeekFrom::End(0))? + bytes > LARGEST;
        let file = if full {
            drop(file);
            std::fs::rename(&path, self.dir.join(FORMER))?;
            open(&path)?
        } else {
            file
        };
        Ok(self.file.insert(file))
    }
}

/// Whether this is the file that is found under that name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens it at its end, behind whatever is torn there.
fn open(path: &Path) -> io::Result<File> {
    // A pipe of this name would be waited for.
    if std::fs::metadata(path).is_ok_and(|it| !it.is_file()) {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut file = data_dir::open_file(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    if size > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
