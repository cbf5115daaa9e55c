//! Telling a shortage of this machine from the failure of somebody else.
//!
//! | the system says | short of |
//! | --- | --- |
//! | `EMFILE`, `ENFILE` | descriptors |
//! | `EADDRNOTAVAIL`, and no port can be had for anything else either | ports |
//! | `ENOMEM`, `ENOBUFS`, `ENOSPC` (no room for another watched socket) | memory |
//! | `EAGAIN` (a thread is refused) | threads |
//!
//! Only for errors of what is done before anything was sent: resolving, connecting, starting a
//! thread. Later ones say nothing about what the other side has seen.

use std::error::Error;
use std::io;

use nix::errno::Errno;

use tandem_model::{Resource, Shortage};

/// What the standard library says of every name that could not be resolved: the number of the
/// error is lost there.
const LOOKUP: &str = "failed to lookup address information";

/// The shortage that an error is about, where it is about one.
#[must_use]
pub fn of(error: &io::Error) -> Option<Shortage> {
    let Some(number) = error.raw_os_error() else {
        // Without a descriptor the resolver reads no file and asks nobody, and says "no such
        // name" or "try again".
        return error
            .to_string()
            .starts_with(LOOKUP)
            .then(descriptors)
            .flatten();
    };
    let of = match Errno::from_raw(number) {
        Errno::EMFILE | Errno::ENFILE => Resource::Descriptors,
        Errno::EADDRNOTAVAIL if no_port() => Resource::Ports,
        Errno::ENOMEM | Errno::ENOBUFS | Errno::ENOSPC => Resource::Memory,
        Errno::EAGAIN => Resource::Threads,
        _ => return None,
    };
    let reason = error.to_string();
    Some(Shortage { of, reason })
}

/// The first shortage among an error and its causes.
#[must_use]
pub fn among(error: &(dyn Error + 'static)) -> Option<Shortage> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<io::Error>().and_then(of) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// Whether a descriptor can be had just now.
fn descriptors() -> Option<Shortage> {
    // A socket without address: nothing leaves, and it is gone at once.
    of(&std::os::unix::net::UnixDatagram::unbound().err()?)
}

/// An address that this machine does not have is refused in the same words as a port that is not
/// free: with the one there are ports for everything else.
fn no_port() -> bool {
    std::net::TcpListener::bind(("127.0.0.1", 0)).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: Errno) -> Option<Resource> {
        of(&io::Error::from_raw_os_error(number as i32)).map(|found| found.of)
    }

    #[test]
    fn what_the_machine_lacks_is_told_from_what_others_do() {
        assert_eq!(number(Errno::EMFILE), Some(Resource::Descriptors));
        assert_eq!(number(Errno::ENFILE), Some(Resource::Descriptors));
        assert_eq!(number(Errno::ENOMEM), Some(Resource::Memory));
        assert_eq!(number(Errno::ENOBUFS), Some(Resource::Memory));
        assert_eq!(number(Errno::EAGAIN), Some(Resource::Threads));
        for other in [
            Errno::ECONNREFUSED,
            Errno::ETIMEDOUT,
            Errno::ENETUNREACH,
            Errno::EHOSTUNREACH,
            Errno::ECONNRESET,
        ] {
            assert_eq!(number(other), None, "{other}");
        }
        // This machine has ports: it is the address that is missing, and that is the site's
        // network, not a shortage.
        assert_eq!(number(Errno::EADDRNOTAVAIL), None);
        // A name that does not exist, on a machine that has descriptors.
        let lookup = io::Error::other(format!("{LOOKUP}: Name or service not known"));
        assert_eq!(of(&lookup), None);
    }

    #[test]
    fn it_is_found_among_the_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("connect failed")]
        struct Outer(#[source] io::Error);
        let outer = Outer(io::Error::from_raw_os_error(Errno::EMFILE as i32));
        let found = among(&outer).unwrap();
        assert_eq!(found.of, Resource::Descriptors);
        let words = "this machine has no descriptors left: Too many open files (os error 24)";
        assert_eq!(found.to_string(), words);
        assert_eq!(among(&Outer(io::ErrorKind::ConnectionRefused.into())), None);
    }
}
