//! Validated identifiers.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct IdError {
    /// What was being read, e.g. `agent id`.
    pub what: &'static str,
    /// What is allowed.
    pub rule: &'static str,
}

/// One start of an instance: drawn at random, so that a restart is told from a pause.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct BootId(pub u64);

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Reads an identifier.
            ///
            /// # Errors
            /// Where the text breaks the rule that the error names.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError { what: $what, rule: $rule })
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id_type!(
    /// An agent's login id: `^[A-Za-z0-9._@-]{1,150}$`.
    AgentId,
    "agent id",
    "1 to 150 characters of A-Z a-z 0-9 . _ @ -",
    |text| {
        (1..=150).contains(&text.len())
            && text != "."
            && text != ".."
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b))
    }
);

/// Longest key of a generic HTTP command, in bytes.
const MAX_KEY: usize = 255;

impl AgentId {
    /// Reads the key of a command to a generic HTTP downstream. There are no agents there, and the
    /// key stands where an agent's id would: commands of one key run in order. It is never part of
    /// a request's path or credentials, and no session is ever kept under it, so that it may be
    /// any text.
    ///
    /// # Errors
    /// Where it is empty, longer than 255 bytes or holds a control character.
    pub fn key(text: &str) -> Result<Self, IdError> {
        if (1..=MAX_KEY).contains(&text.len()) && !text.chars().any(char::is_control) {
            Ok(Self(text.into()))
        } else {
            Err(IdError {
                what: "key",
                rule: "1 to 255 bytes without control characters",
            })
        }
    }

    /// For records of commands, which may be of a key instead of an agent.
    ///
    /// # Errors
    /// As [`Self::key`].
    pub fn deserialize_key<'de, D>(deserializer: D) -> Result<Self, D::Error>
    where
        D: serde::Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        Self::key(&text).map_err(serde::de::Error::custom)
    }
}

id_type!(
    /// A client's event address: the routing key on the events exchange.
    Destination,
    "destination",
    "1 to 200 bytes without control characters, `,`, `#` or `|`, blanks at its ends, or a `*` that \
     stands alone between dots",
    |text| {
        // A queue is bound with it: a word `*` would be bound to other clients' events, too.
        (1..=200).contains(&text.len())
            && text.trim() == text
            && !text.chars().any(|c| c.is_control() || ",#|".contains(c))
            && !text.split('.').any(|word| word == "*")
    }
);

id_type!(
    /// One running connector: `[a-z0-9-]{1,32}`.
    InstanceId,
    "instance id",
    "1 to 32 characters of a-z 0-9 -",
    |text| {
        (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_texts_that_bind_to_themselves_alone() {
        for good in ["crm", "CRM Desk 1", "a.b", "a*b", "a.*b", "Bürö"] {
            assert!(Destination::new(good).is_ok(), "{good}");
        }
        for bad in [
            "", " ", " crm", "crm ", "*", "a.*", "*.b", "a#b", "a,b", "a|b", "a\tb", "a\nb",
        ] {
            assert!(Destination::new(bad).is_err(), "{bad:?}");
        }
    }
}
