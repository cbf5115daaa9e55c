//! The folder `data.dir` and its files: for the user that the program runs as, nobody else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Rights of a file that is made here.
const FILE_MODE: u32 = 0o600;

/// Opens a file to read and write, or makes it for this user only. A file that is there keeps its
/// rights.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)
}

/// Makes a file for this user only; an error where there is one already.
pub(crate) fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
}
