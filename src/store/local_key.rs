//! `data.dir/local.key`: what sessions are sealed under where no `control.key` is configured.
//!
//! Random, made at the first start that needs it, and used for nothing but this store. It guards
//! copies of the store alone; who can read the whole folder can read the sessions.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::StoreError;
use crate::data_dir;
use crate::model::Secret;
use crate::model::text::trimmed;

/// Name of the file in `data.dir`.
pub const FILE: &str = "local.key";
/// Under this name until it is whole and on disk.
const UNFINISHED: &str = "local.key.new";
/// Random bytes of a key.
const BYTES: usize = 32;
/// A longer file is none that was made here, bytes.
const LONGEST: u64 = 1024;

/// The key of a data folder; `None` where there is none.
pub(super) fn read(dir: &Path) -> Result<Option<Secret>, StoreError> {
    let path = dir.join(FILE);
    let unusable = |reason: String| StoreError::LocalKey {
        path: path.clone(),
        reason,
    };
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let mut text = Zeroizing::new(String::new());
    file.take(LONGEST)
        .read_to_string(&mut text)
        .map_err(|error| unusable(error.to_string()))?;
    let key = trimmed(&text);
    if key.len() != 2 * BYTES || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let reason = format!("it does not hold {} hexadecimal digits", 2 * BYTES);
        return Err(unusable(reason));
    }
    Ok(Some(Secret::new(key)))
}

/// The key of a data folder, made where there is none: it is on disk when this returns. Only
/// while the store is open, which no other process can have open then.
pub(super) fn read_or_make(dir: &Path) -> Result<Secret, StoreError> {
    if let Some(key) = read(dir)? {
        return Ok(key);
    }
    let key = make(dir).map_err(|error| StoreError::LocalKey {
        path: dir.join(FILE),
        reason: format!("it cannot be made: {error}"),
    })?;
    Ok(Secret::new(key.as_str()))
}

fn make(dir: &Path) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0_u8; BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| io::Error::other(error.to_string()))?;
    let mut key = Zeroizing::new(String::with_capacity(2 * BYTES));
    for byte in bytes.iter() {
        for digit in [byte >> 4, byte & 15] {
            key.extend(char::from_digit(digit.into(), 16));
        }
    }
    let unfinished = dir.join(UNFINISHED);
    // Of a start that was killed here.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = data_dir::new_file(&unfinished)?;
    file.write_all(key.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&unfinished, dir.join(FILE))?;
    fs::File::open(dir)?.sync_all()?;
    Ok(key)
}
