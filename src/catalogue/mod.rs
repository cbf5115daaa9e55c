//! The protocol's commands in one table: names, arguments, repeat safety, and what each asks of
//! the downstream. Adding a command is adding a row to [`COMMANDS`] (and, where it needs a request
//! that nothing sent before, an [`Action`]).

mod args;
mod error_code;
mod table;

pub use args::{ArgSpec, Args};
pub use error_code::ErrorCode;
pub use table::COMMANDS;

use crate::model::{Action, Secret};

/// What the text behind `#` addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressee {
    /// An agent.
    Agent,
    /// A client destination.
    Destination,
}

/// What a second execution does (reference, section 2, column "Repeat").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Reads, or sets an absolute value.
    Safe,
    /// A second execution is refused by the platform.
    Guarded,
    /// A second execution can have a second effect.
    Unsafe,
}

/// What a command's plan may know of its agent.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// Extension from the agent's session, if it signed in.
    pub extension: Option<&'a str>,
    /// Reason id for forced not-ready.
    pub not_ready_reason: Option<&'a str>,
    /// Reason id for forced logout.
    pub logout_reason: Option<&'a str>,
    /// Reason id where a supervisor sets an agent not ready.
    pub supervisor_not_ready_reason: Option<&'a str>,
    /// Reason id where a supervisor signs an agent out.
    pub supervisor_logout_reason: Option<&'a str>,
}

/// How a command is carried out.
#[derive(Clone, Copy)]
pub enum Step {
    /// Answer with the system's status; learns the destination.
    Hello,
    /// Answer with the system's status, or `RECONNECT` to an unknown destination.
    Beat,
    /// Bind the agent to a destination and hold its notification subscription.
    Connect,
    /// Sign the agent in, then read and publish its state and calls.
    SignIn(Plan),
    /// One downstream request whose result arrives as a notification.
    Request(Plan),
    /// Several downstream requests in turn; each may be refused without harm but the last.
    Sequence(fn(&Subject<'_>, &Args) -> Result<Vec<Action>, ErrorCode>),
    /// Reads whose answers are published as events.
    Query(fn(&Subject<'_>, &Args) -> Result<Vec<Action>, ErrorCode>),
}

/// Turns arguments into the downstream request.
pub type Plan = fn(&Subject<'_>, &Args) -> Result<Action, ErrorCode>;

/// One command of the protocol.
pub struct CommandSpec {
    /// Name in the spelling of the reference; compared without case.
    pub name: &'static str,
    /// Other spellings.
    pub aliases: &'static [&'static str],
    /// What it addresses.
    pub addressee: Addressee,
    /// Body arguments in order.
    pub args: &'static [ArgSpec],
    /// Repeat safety.
    pub repeat: Repeat,
    /// How it is carried out.
    pub step: Step,
}

impl std::fmt::Debug for CommandSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Finds a command by name or alias, without regard to case.
#[must_use]
pub fn find(name: &str) -> Option<&'static CommandSpec> {
    COMMANDS.iter().find(|spec| {
        spec.name.eq_ignore_ascii_case(name)
            || spec
                .aliases
                .iter()
                .any(|alias| alias.eq_ignore_ascii_case(name))
    })
}

/// The password among the arguments, where the command has one.
#[must_use]
pub fn password(args: &Args) -> Option<&Secret> {
    args.secret("password")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for spec in COMMANDS {
            for name in std::iter::once(&spec.name).chain(spec.aliases) {
                assert!(
                    seen.insert(name.to_ascii_lowercase()),
                    "{name} stands twice"
                );
            }
        }
    }

    #[test]
    fn lookup_ignores_case() {
        assert_eq!(find("MAKEREADY").map(|s| s.name), Some("MakeReady"));
        assert!(find("MakeReadyNow").is_none());
    }
}
