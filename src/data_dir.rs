//! The folder `data.dir` and its files: for the user that the program runs as, nobody else.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Rights of the folder where it is made here.
const FOLDER_MODE: u32 = 0o700;
/// What others may do.
const OTHERS: u32 = 0o077;

/// Rights of a file that is made here.
const FILE_MODE: u32 = 0o600;

/// Makes the folder for this user only. One that is there keeps its rights; others' are warned of.
/// Folders above it are made as usual: other instances may have theirs beside it.
pub(crate) fn prepare(dir: &Path) -> io::Result<()> {
    if let Some(above) = dir.parent() {
        fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(dir) {
        Ok(()) => return Ok(()),
        Err(_) if dir.is_dir() => {}
        Err(error) => return Err(error),
    }
    let mode = fs::metadata(dir)?.permissions().mode();
    if mode & OTHERS != 0 {
        tracing::warn!(
            folder = %dir.display(),
            mode = format!("{:o}", mode & 0o7777),
            "data.dir is open to other users of this host: chmod 700 closes it"
        );
    }
    Ok(())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_for_this_user_only_and_what_is_there_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data/gc-1");
        prepare(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        let file = dir.join("one");
        open_file(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        new_file(&dir.join("two")).unwrap();
        assert_eq!(mode(&dir.join("two")), 0o600);
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        prepare(&dir).unwrap();
        open_file(&file).unwrap();
        assert_eq!((mode(&dir), mode(&file)), (0o750, 0o640));
        assert!(prepare(&file).is_err(), "a file is no folder");
    }
}
