//! What this machine has run out of.

use std::fmt;

/// Something that the system gives to processes, and has none left of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Open files and sockets, of this process or of the whole machine.
    Descriptors,
    /// Local ports towards an address.
    Ports,
    /// Memory for sockets and the like.
    Memory,
    /// Threads.
    Threads,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Descriptors, Self::Ports, Self::Memory, Self::Threads];

    /// Label of the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Ports => "ports",
            Self::Memory => "memory",
            Self::Threads => "threads",
        }
    }
}

/// Something was not done because this machine is short of what it takes. It says nothing about
/// whom it was meant for: no other node or broker would do better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// Of what.
    pub of: Resource,
    /// What the system said.
    pub reason: String,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.of.as_str();
        write!(f, "this machine has no {of} left: {}", self.reason)
    }
}
