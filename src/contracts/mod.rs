//! Contracts for machines: JSON Schemas of what travels over AMQP, an AsyncAPI document that uses
//! them, OpenAPI documents of the listeners. `tandem schema` prints them, `docs/api` keeps them,
//! and `tests/contracts` holds them against what is really said.

mod asyncapi;
mod commands;
mod events;

use serde_json::Value;

/// The dialect of the schemas.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// One document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Contract {
    /// OpenAPI of the admin API, as `/openapi.json` serves it
    Openapi,
    /// OpenAPI of the HTTP entrance, as its `/openapi.json` serves it
    Entrance,
    /// AsyncAPI of commands, replies and events
    Asyncapi,
    /// JSON Schema of commands
    Commands,
    /// JSON Schema of replies
    Replies,
    /// JSON Schema of events
    Events,
}

impl Contract {
    /// All.
    pub const ALL: [Self; 6] = [
        Self::Openapi,
        Self::Entrance,
        Self::Asyncapi,
        Self::Commands,
        Self::Replies,
        Self::Events,
    ];

    /// Its file in `docs/api`.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Openapi => "openapi.json",
            Self::Entrance => "entrance.openapi.json",
            Self::Asyncapi => "asyncapi.json",
            Self::Commands => "commands.schema.json",
            Self::Replies => "replies.schema.json",
            Self::Events => "events.schema.json",
        }
    }

    /// The document.
    #[must_use]
    pub fn document(self) -> Value {
        match self {
            Self::Openapi => crate::admin::openapi(),
            Self::Entrance => crate::rest::openapi(),
            Self::Asyncapi => asyncapi::document(),
            Self::Commands => commands::schema(),
            Self::Replies => commands::reply(),
            Self::Events => events::schema(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::catalogue;

    #[test]
    fn no_name_of_a_command_means_something_to_a_pattern() {
        for spec in catalogue::commands() {
            for name in std::iter::once(&spec.name).chain(spec.aliases) {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                assert!(name.chars().all(plain), "{name}");
            }
        }
    }
}
