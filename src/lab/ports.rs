//! Free ports on 127.0.0.1 that stay reserved, also against other test processes.
//!
//! Binding port 0 and closing the socket again is not enough here: a broker that is killed and
//! started again must find its port still free, and the kernel could have given it to an outgoing
//! connection meanwhile. So the laboratory takes its ports below the range that the kernel hands
//! out, and holds an advisory lock on a file for each: the lock ends with the process, whatever
//! happens to it.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use super::LabError;

/// First port of the laboratory's range.
const FIRST: u16 = 20_000;
/// Last port of the range: below 32768, where Linux starts to hand out ephemeral ports.
const LAST: u16 = 31_999;
const COUNT: u16 = LAST - FIRST + 1;

/// Where the next search starts, so that one process does not try the same ports again and again.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on 127.0.0.1 that no other user of this module gets while this value lives.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    /// Holds the lock; closing the file releases it.
    _lock: File,
    path: PathBuf,
}

impl Drop for ReservedPort {
    /// Nothing stays behind; the folder goes with its last file.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        if let Some(folder) = self.path.parent() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

impl ReservedPort {
    /// Reserves a port that nothing listens on now.
    ///
    /// # Errors
    /// [`LabError::NoFreePort`] when all are taken, [`LabError::Io`] when the folder for the lock
    /// files cannot be made.
    pub fn take() -> Result<Self, LabError> {
        let folder = lock_folder();
        // Processes start at different places, so that they seldom meet.
        let start = (std::process::id() % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            let number = FIRST + ((u32::from(start) + u32::from(step)) % u32::from(COUNT)) as u16;
            // Each time, because the last holder of a port removes the folder.
            std::fs::create_dir_all(&folder)
                .map_err(LabError::io(format!("create {}", folder.display())))?;
            let path = folder.join(number.to_string());
            let Ok(lock) = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
            else {
                continue;
            };
            if lock.try_lock().is_ok() && is_still(&path, &lock) && is_free(number) {
                return Ok(Self {
                    number,
                    _lock: lock,
                    path,
                });
            }
        }
        Err(LabError::NoFreePort {
            from: FIRST,
            to: LAST,
        })
    }

    /// The port number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The file whose lock reserves the port.
    pub fn lock_file(&self) -> &Path {
        &self.path
    }

    /// The port as an address on loopback.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

/// A file that its holder has removed meanwhile locks nothing.
fn is_still(path: &Path, lock: &File) -> bool {
    match (std::fs::metadata(path), lock.metadata()) {
        (Ok(named), Ok(held)) => (named.dev(), named.ino()) == (held.dev(), held.ino()),
        _ => false,
    }
}

/// One folder a user: lock files of another user could not be opened.
pub(super) fn lock_folder() -> PathBuf {
    let user = std::env::var("USER").unwrap_or_default();
    let user: String = user.chars().filter(char::is_ascii_alphanumeric).collect();
    std::env::temp_dir().join(format!("tandem-lab-ports-{user}"))
}

/// Nothing listens on the port, on loopback of either family or on all addresses.
fn is_free(port: u16) -> bool {
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
    // Without IPv6 on the machine nobody can listen there.
    let six_taken = six.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse);
    !six_taken && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ports_are_distinct_while_held_and_can_be_bound() {
        let held: Vec<_> = (0..50).map(|_| ReservedPort::take().unwrap()).collect();
        let numbers: HashSet<_> = held.iter().map(ReservedPort::number).collect();
        assert_eq!(numbers.len(), held.len());
        assert!(numbers.iter().all(|n| (FIRST..=LAST).contains(n)));
        TcpListener::bind(held[0].address()).unwrap();
    }

    #[test]
    fn a_held_port_is_locked_for_others() {
        let held = ReservedPort::take().unwrap();
        let path = held.lock_file().to_owned();
        let second = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(second.try_lock().is_err());
        drop(held);
        assert!(second.try_lock().is_ok());
        assert!(
            !is_still(&path, &second),
            "the file is gone with its holder"
        );
    }
}
