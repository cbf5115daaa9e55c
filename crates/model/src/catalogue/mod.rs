//! The protocol's commands in one table: names, arguments, who sends them, repeat safety, what
//! each asks of the downstream, what is told. Adding a command is adding a row to one of the
//! [`FAMILIES`] (and, where it needs a request that nothing sent before, an [`Action`]).
//! `tandem commands` and `docs/commands.md` show the same table.

mod args;
mod error_code;
pub mod show;
mod table;

pub use args::{ArgSpec, Args};
pub use error_code::ErrorCode;
pub use table::FAMILIES;
pub use table::skill_range;

use crate::{Action, Secret};

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

impl Repeat {
    /// The word of the reference.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Guarded => "guarded",
            Self::Unsafe => "UNSAFE",
        }
    }
}

/// Who sends a command. The platform decides what it allows; this is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// An agent for itself.
    Agent,
    /// A supervisor.
    Supervisor,
    /// A supervisor for a member of the team, addressed by the member's id; the agent as well.
    Both,
    /// Anybody; the connector asks with the administrator's credentials.
    Administrator,
    /// A client process.
    Client,
}

impl Who {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Supervisor => "supervisor",
            Self::Both => "agent, or a supervisor for it",
            Self::Administrator => "agent (asked as administrator)",
            Self::Client => "client",
        }
    }
}

/// What is told or done once the downstream has taken a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing beside what the platform notifies.
    Nothing,
    /// Watch the team of argument `teamId`, where argument `subscribe` is true.
    WatchTeam,
    /// `CallBack` with this text, and the same for the status bar.
    Callback(&'static str),
    /// `CALLBACK` with title `RECLASSIFY` and the value.
    Reclassify,
    /// `Control` that names the participant of argument `extension`.
    ParticipantDropped,
}

/// What a command's plan may know of its agent.
#[derive(Debug, Clone, Default)]
pub struct Subject<'a> {
    /// Team that the agent belongs to, where it was read.
    pub team: Option<&'a str>,
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
    /// Several downstream requests in turn; the first refusal ends it.
    Requests(fn(&Subject<'_>, &Args) -> Result<Vec<Action>, ErrorCode>),
    /// Reads whose answers are published as events.
    Query(fn(&Subject<'_>, &Args) -> Result<Vec<Action>, ErrorCode>),
    /// A request to a generic HTTP downstream, answered by the reply.
    Http,
    /// Known, but not carried out, for this reason.
    Unsupported(&'static str),
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
    /// Who sends it.
    pub who: Who,
    /// Body arguments in order.
    pub args: &'static [ArgSpec],
    /// Repeat safety.
    pub repeat: Repeat,
    /// How it is carried out.
    pub step: Step,
    /// What follows its acceptance.
    pub after: After,
    /// What is asked of the downstream, for people.
    pub asks: &'static str,
    /// Events that it causes, for people.
    pub events: &'static str,
    /// Error codes of its own, for people; any may be answered `PLEASE_RETRY`, `RE_LOGIN`, `DOWN`,
    /// `NOT_REACHABLE` or with a constant of the platform.
    pub errors: &'static str,
}

/// Commands that belong together.
#[derive(Debug)]
pub struct Family {
    /// Heading.
    pub title: &'static str,
    /// The commands in the order of the reference.
    pub commands: &'static [CommandSpec],
}

/// All commands, in the order of the reference.
pub fn commands() -> impl Iterator<Item = &'static CommandSpec> {
    FAMILIES.iter().flat_map(|family| family.commands)
}

impl std::fmt::Debug for CommandSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Finds a command by name or alias, without regard to case.
#[must_use]
pub fn find(name: &str) -> Option<&'static CommandSpec> {
    commands().find(|spec| {
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
        for spec in commands() {
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
