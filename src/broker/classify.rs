//! What a library error means to us, in words that hold no credentials.

use std::fmt;

use lapin::protocol::AMQPErrorKind;
use lapin::{Error, ErrorKind};

use super::guard;
use crate::model::{Resource, Shortage};
use crate::net::shortage;

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The broker could not be reached, or the connection was lost.
    Unreachable,
    /// Credentials or permissions are missing, or the object is in exclusive use (403, 405).
    AccessRefused,
    /// An object does not exist (404).
    NotFound,
    /// An object exists with other properties (406).
    Precondition,
    /// The broker closed channel or connection for another reason.
    Protocol,
    /// What the broker sent could not be read: the connection is lost.
    Garbled,
    /// No answer in time.
    Timeout,
    /// No answer in time to what the broker may do yet, and nobody would look after then: the
    /// channel has to end, or the link.
    Outstanding,
    /// This machine lacks what a connection takes: the broker may be as well as ever.
    NoRoom(Resource),
    /// Something of ours: a bad argument, a closed channel.
    Local,
}

/// An error in our words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Problem {
    /// What it means.
    pub class: Class,
    /// For people; without credentials.
    pub text: String,
}

impl Problem {
    pub(super) fn new(class: Class, text: impl Into<String>) -> Self {
        Self {
            class,
            text: text.into(),
        }
    }

    pub(super) fn timeout(what: impl fmt::Display) -> Self {
        Self::new(Class::Timeout, format!("no answer from the broker: {what}"))
    }

    /// The same with what was being done in front.
    pub(super) fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        // Every error of the library comes by here: the guard hears of what it let through.
        guard::note(&error);
        if let Some(shortage) = shortage_of(&error) {
            return Self::new(Class::NoRoom(shortage.of), shortage.to_string());
        }
        let class = classify(&error);
        let text = match error.kind() {
            // The library's text for it says "protocol error" first.
            ErrorKind::ProtocolError(said) => said.get_message().to_string(),
            _ => error.to_string(),
        };
        Self { class, text }
    }
}

fn shortage_of(error: &Error) -> Option<Shortage> {
    match error.kind() {
        ErrorKind::IOError(error) => shortage::of(error),
        _ => None,
    }
}

fn classify(error: &Error) -> Class {
    match error.kind() {
        _ if guard::is_garbled(error) => Class::Garbled,
        ErrorKind::IOError(_) | ErrorKind::MissingHeartbeatError => Class::Unreachable,
        ErrorKind::ProtocolError(said) => match said.kind() {
            AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => match said.get_id() {
                403 | 405 => Class::AccessRefused,
                404 => Class::NotFound,
                406 => Class::Precondition,
                _ => Class::Protocol,
            },
        },
        ErrorKind::InvalidProtocolVersion(_) => Class::Protocol,
        _ => Class::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::protocol::{AMQPError, AMQPSoftError};

    fn said(kind: AMQPSoftError, text: &str) -> Problem {
        Error::from(ErrorKind::ProtocolError(AMQPError::new(
            kind.into(),
            text.into(),
        )))
        .into()
    }

    #[test]
    fn codes_become_classes_and_the_brokers_words_stay() {
        let problem = said(AMQPSoftError::NOTFOUND, "NOT_FOUND - no queue 'q'");
        assert_eq!(problem.class, Class::NotFound);
        assert_eq!(problem.to_string(), "NOT_FOUND - no queue 'q'");
        let class = |kind| said(kind, "x").class;
        assert_eq!(class(AMQPSoftError::ACCESSREFUSED), Class::AccessRefused);
        assert_eq!(
            class(AMQPSoftError::PRECONDITIONFAILED),
            Class::Precondition
        );
        assert_eq!(class(AMQPSoftError::NOCONSUMERS), Class::Protocol);
        let io = Error::from(std::io::Error::other("reset"));
        assert_eq!(Problem::from(io).class, Class::Unreachable);
        let bad = std::io::Error::new(std::io::ErrorKind::InvalidData, guard::BadFrame::Type);
        assert_eq!(Problem::from(Error::from(bad)).class, Class::Garbled);
        let number = nix::errno::Errno::EMFILE as i32;
        let io = Error::from(std::io::Error::from_raw_os_error(number));
        let problem = Problem::from(io);
        assert_eq!(problem.class, Class::NoRoom(Resource::Descriptors));
        let words = "this machine has no descriptors left";
        assert!(problem.text.starts_with(words), "{problem}");
    }
}
