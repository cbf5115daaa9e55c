//! Reading files of others: bounded, and whole or not at all; and the syntax of property files.

pub mod properties;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

/// Largest PEM file, in bytes: a system's whole store of authorities has 300 KiB.
const MAX_PEM_BYTES: usize = 4 * 1024 * 1024;

/// A byte order mark in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The bytes of a file, wiped when they are dropped: they may be a secret.
///
/// # Errors
/// Where it cannot be read, is a folder, or has more than `most` bytes.
pub fn read_bounded(path: &Path, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "it is a folder",
        ));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {most} bytes"),
        ));
    }
    Ok(bytes)
}

/// The bytes of a PEM file, as a parser of PEM understands them: it does not see a section whose
/// first line begins with a byte order mark, and a file that was joined of several may have one in
/// its middle.
///
/// # Errors
/// As [`read_bounded`].
pub fn read_pem(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    read_bounded(path, MAX_PEM_BYTES).map(|bytes| without_marks(&bytes))
}

/// Without the marks at the beginnings of lines.
fn without_marks(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len()));
    let mut rest = bytes;
    loop {
        while let Some(behind) = rest.strip_prefix(MARK) {
            rest = behind;
        }
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let (line, behind) = rest.split_at(end.map_or(rest.len(), |at| at + 1));
        if line.is_empty() {
            return out;
        }
        out.extend_from_slice(line);
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_pem_file_begins_without_a_mark() {
        let without = |bytes: &[u8]| without_marks(bytes).to_vec();
        let joined = b"\xef\xbb\xbfa\r\n\xef\xbb\xbf\xef\xbb\xbfb\n\n\rc\xef\xbb\xbf";
        assert_eq!(without(joined), b"a\r\nb\n\n\rc\xef\xbb\xbf");
        assert_eq!(without(MARK), b"");
        assert_eq!(without(b""), b"");
    }

    #[test]
    fn folders_and_what_is_too_large_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap().as_slice(), b"12345");
        let kind = |path: &Path, most| read_bounded(path, most).unwrap_err().kind();
        assert_eq!(kind(&path, 4), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(dir.path(), 4), io::ErrorKind::IsADirectory);
    }
}
